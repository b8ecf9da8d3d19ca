package tenure.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** The driver of the shared vectors: {@code vectors/README.md} says what they mean. */
final class VectorsTest {
    private static final AtomicInteger NUMBERS = new AtomicInteger();
    private static Daemon shared;
    private static Hello hello;

    @BeforeAll
    static void start() throws Exception {
        shared = new Daemon(List.of());
        try (Client client = shared.connect()) {
            hello = client.hello();
        }
    }

    @AfterAll
    static void stop() throws Exception {
        shared.close();
    }

    @TestFactory
    List<DynamicTest> vectors() throws Exception {
        var tests = new ArrayList<DynamicTest>();
        try (var files = Files.newDirectoryStream(Daemon.CLIENTS.resolve("vectors"), "*.json")) {
            for (Path file : files) {
                var cases = JsonParser.parseString(Files.readString(file)).getAsJsonObject().getAsJsonArray("cases");
                for (JsonElement one : cases) {
                    JsonObject vector = one.getAsJsonObject();
                    String name = file.getFileName().toString().replace(".json", "") + ": " + vector.get("name").getAsString();
                    tests.add(DynamicTest.dynamicTest(name, () -> run(name, vector)));
                }
            }
        }
        assertFalse(tests.isEmpty(), "there are no vectors");
        return tests;
    }

    private static void run(String name, JsonObject vector) throws Exception {
        if (vector.get("needs") instanceof JsonArray needs) {
            for (JsonElement method : needs) {
                if (!hello.capabilities().contains(method.getAsString())) {
                    String said = name + ": this daemon does not serve " + method.getAsString();
                    System.out.println("skipped " + said);
                    Assumptions.abort(said);
                }
            }
        }
        if (vector.get("daemon") instanceof JsonArray flags) {
            try (var own = new Daemon(flags.asList().stream()
                    .map(flag -> flag.getAsString().replace("${vectors}", Daemon.CLIENTS.resolve("vectors").toString())).toList())) {
                new Run(own, vector).run();
            }
        } else {
            new Run(shared, vector).run();
        }
    }

    /** Why {@code found} does not match, or null. */
    private static String differs(JsonElement pattern, JsonElement given, String where) {
        JsonElement found = Typed.orNull(given);
        if (pattern instanceof JsonArray list) {
            if (!(found instanceof JsonArray there) || there.size() != list.size()) {
                return where + " is " + found + " and not " + pattern;
            }
            for (int i = 0; i < list.size(); i++) {
                String why = differs(list.get(i), there.get(i), where + "." + i);
                if (why != null) {
                    return why;
                }
            }
            return null;
        }
        if (!(pattern instanceof JsonObject members)) {
            return pattern.equals(found) ? null : where + " is " + found + " and not " + pattern;
        }
        for (var member : members.entrySet()) {
            JsonElement operand = member.getValue();
            String why = switch (member.getKey()) {
                case "$any" -> found.isJsonNull() ? where + " is missing" : null;
                case "$gt" -> found instanceof JsonPrimitive number && number.isNumber() && number.getAsLong() > operand.getAsLong()
                    ? null : where + " is " + found + " and not greater than " + operand;
                case "$len" -> found instanceof JsonArray there && there.size() == operand.getAsInt()
                    ? null : where + " is " + found + " and has not " + operand + " elements";
                case "$has" -> found instanceof JsonArray there
                    && there.asList().stream().anyMatch(one -> differs(operand, one, where) == null)
                    ? null : where + " is " + found + " and has no " + operand;
                default -> found instanceof JsonObject object
                    ? differs(operand, object.get(member.getKey()), where + "." + member.getKey())
                    : where + " is " + found + " and no object";
            };
            if (why != null) {
                return why;
            }
        }
        return null;
    }

    private record Started(String on, FutureTask<Object> task, Thread thread) {}

    private static final class Run {
        private static final Pattern WHOLE = Pattern.compile("\\$\\w+");
        private static final Pattern INSIDE = Pattern.compile("\\$\\{(\\w+)\\}");

        private final Daemon daemon;
        private final JsonObject vector;
        private final Map<String, JsonElement> variables = new HashMap<>();
        private final Map<String, Client> clients = new HashMap<>();
        private final Map<String, Lease> leases = new HashMap<>();
        private final Map<String, Started> started = new HashMap<>();
        private final Map<String, Subscription> subscriptions = new HashMap<>();

        Run(Daemon daemon, JsonObject vector) {
            this.daemon = daemon;
            this.vector = vector;
            variables.put("case", new JsonPrimitive("v" + NUMBERS.incrementAndGet()));
            variables.put("x400", new JsonPrimitive("x".repeat(400)));
            variables.put("x800", new JsonPrimitive("x".repeat(800)));
            variables.put("x1024", new JsonPrimitive("x".repeat(1024)));
            variables.put("x2048", new JsonPrimitive("x".repeat(2048)));
        }

        void run() {
            int number = 0;
            try {
                for (JsonElement step : vector.getAsJsonArray("steps")) {
                    try {
                        step(step.getAsJsonObject());
                    } catch (Exception | AssertionError problem) {
                        throw new AssertionError("step " + number + " " + step + ": " + problem, problem);
                    }
                    number++;
                }
            } finally {
                clients.values().forEach(Client::close);
            }
        }

        private JsonElement filled(JsonElement thing) {
            if (thing instanceof JsonObject object) {
                var filled = new JsonObject();
                object.entrySet().forEach(member -> filled.add(member.getKey(), filled(member.getValue())));
                return filled;
            }
            if (thing instanceof JsonArray list) {
                var filled = new JsonArray();
                list.forEach(one -> filled.add(filled(one)));
                return filled;
            }
            if (thing instanceof JsonPrimitive text && text.isString()) {
                if (WHOLE.matcher(text.getAsString()).matches()) {
                    return variables.get(text.getAsString().substring(1));
                }
                return new JsonPrimitive(INSIDE.matcher(text.getAsString())
                    .replaceAll(found -> variables.get(found.group(1)).getAsString()));
            }
            return thing;
        }

        private void save(JsonObject step, JsonElement found) {
            if (!(step.get("save") instanceof JsonObject paths)) {
                return;
            }
            paths.entrySet().forEach(path -> {
                JsonElement part = found;
                for (String key : path.getValue().getAsString().split("\\.")) {
                    part = part instanceof JsonArray list ? list.get(Integer.parseInt(key)) : part.getAsJsonObject().get(key);
                }
                variables.put(path.getKey(), part);
            });
        }

        private Client client(String name) throws InterruptedException {
            Client there = clients.get(name);
            if (there != null) {
                return there;
            }
            var builder = Client.builder().socket(daemon.socket);
            if (vector.get("clients") instanceof JsonObject options && options.get(name) instanceof JsonObject given) {
                if (given.has("heartbeat_ms")) {
                    builder.heartbeat(given.get("heartbeat_ms") instanceof JsonPrimitive ms ? Duration.ofMillis(ms.getAsLong()) : null);
                }
                if (given.has("ping")) {
                    builder.manualPing();
                }
                if (given.has("events")) {
                    builder.events(given.get("events").getAsInt());
                }
            }
            Client client = builder.connect();
            clients.put(name, client);
            return client;
        }

        private String text(JsonObject step, String name) {
            return filled(step.get(name)).getAsString();
        }

        private void step(JsonObject step) throws Exception {
            String on = step.has("on") ? text(step, "on") : "a";
            long patience = Daemon.PATIENCE.toSeconds();
            if (step.has("call")) {
                call(step, on);
            } else if (step.has("in_flight")) {
                Client client = client(on);
                Daemon.until("enough in flight", () -> client.inFlight() >= step.get("in_flight").getAsInt());
            } else if (step.has("await")) {
                finish(step, started.get(text(step, "await")));
            } else if (step.has("cancel")) {
                started.get(text(step, "cancel")).thread.interrupt();
            } else if (step.has("subscribe")) {
                Client client = client(on);
                JsonObject params = filled(step.get("params")).getAsJsonObject();
                subscriptions.put(text(step, "as"), switch (text(step, "subscribe")) {
                    case "lock.observe" -> client.observeLock(text(params, "name"));
                    case "election.observe" -> client.observe(text(params, "name"));
                    case "member.watch" -> client.watchMembers(text(params, "group"));
                    case "kv.watch" -> client.watch(Wire.GSON.fromJson(params, WatchOptions.class));
                    default -> fail("unknown subscription");
                });
            } else if (step.has("event")) {
                event(step);
            } else if (step.has("unsubscribe")) {
                Subscription subscription = subscriptions.get(text(step, "unsubscribe"));
                subscription.close();
                assertNull(subscription.poll(Daemon.PATIENCE));
            } else if (step.has("state")) {
                Lease lease = leases.get(on + "/" + text(step, "lease"));
                assertEquals(text(step, "reason"), lease.lost().get(patience, TimeUnit.SECONDS).reason());
                assertEquals(Lease.State.LOST, lease.state());
                assertFalse(lease.isHeld());
            } else if (step.has("asked")) {
                Office office = (Office) leases.get(on + "/" + text(step, "asked"));
                JsonElement candidate = Typed.dump(office.asked().get(patience, TimeUnit.SECONDS));
                assertNull(differs(filled(step.get("match")), candidate, "the candidate"));
            } else if (step.has("resume")) {
                var found = new JsonObject();
                found.addProperty("revision", subscriptions.get(text(step, "resume")).resumeRevision());
                save(step, found);
            } else if (step.has("leaving")) {
                assertTrue(client(text(step, "leaving")).leaving().get(patience, TimeUnit.SECONDS).toMillis() > 0);
            } else if (step.has("close")) {
                client(text(step, "close")).close();
            } else if (step.has("closed")) {
                client(text(step, "closed")).closed().get(patience, TimeUnit.SECONDS);
            } else if (step.has("daemon")) {
                daemon.signal(text(step, "daemon"));
            } else if (step.has("compare")) {
                JsonArray three = filled(step.get("compare")).getAsJsonArray();
                boolean holds = switch (three.get(1).getAsString()) {
                    case "<" -> three.get(0).getAsLong() < three.get(2).getAsLong();
                    case "=" -> three.get(0).equals(three.get(2));
                    default -> !three.get(0).equals(three.get(2));
                };
                assertTrue(holds, three.toString());
            } else {
                fail("unknown step");
            }
        }

        private void event(JsonObject step) throws Exception {
            JsonElement pattern = filled(step.get("match"));
            while (true) {
                Event event = subscriptions.get(text(step, "event")).poll(Daemon.PATIENCE);
                assertNotNull(event, "no event came");
                JsonElement found = Typed.dump(event);
                String why = differs(pattern, found, "the event");
                if (why == null) {
                    save(step, found);
                    return;
                }
                if (step.has("next") || event.kind().equals("end")) {
                    fail(why);
                }
            }
        }

        private void call(JsonObject step, String on) throws Exception {
            JsonObject params = step.has("params") ? filled(step.get("params")).getAsJsonObject() : new JsonObject();
            if (step.has("as")) {
                started.put(text(step, "as"), start(step, on, params));
                return;
            }
            long deadline = System.nanoTime() + Daemon.PATIENCE.toNanos();
            while (true) {
                try {
                    finish(step, start(step, on, params));
                    return;
                } catch (AssertionError problem) {
                    if (!step.has("eventually") || System.nanoTime() > deadline) {
                        throw problem;
                    }
                    Thread.sleep(10);
                }
            }
        }

        private Started start(JsonObject step, String on, JsonObject params) throws InterruptedException {
            Client client = client(on);
            String method = text(step, "call");
            Callable<Object> call = step.has("raw") ? () -> client.call(method, params)
                : Typed.call(client, handle -> leases.get(on + "/" + handle), method, params);
            var task = new FutureTask<>(call);
            Thread thread = Connection.daemonThread("test-call", task);
            thread.start();
            return new Started(on, task, thread);
        }

        private void finish(JsonObject step, Started call) throws Exception {
            Object result = null;
            Throwable failed = null;
            try {
                result = call.task.get(Daemon.PATIENCE.toSeconds(), TimeUnit.SECONDS);
            } catch (ExecutionException failure) {
                failed = failure.getCause();
            }
            if (step.has("cancelled")) {
                if (result instanceof Lease lease && step.get("cancelled").getAsString().equals("or held")) {
                    lease.release();
                } else {
                    assertTrue(failed instanceof InterruptedException, "it was not cancelled: " + result + ", " + failed);
                }
                return;
            }
            JsonElement found;
            JsonElement pattern;
            if (failed instanceof TenureException told) {
                JsonObject error = told.data();
                error.addProperty("kind", told.kind());
                error.addProperty("retryable", told.retryable());
                error.addProperty("code", told.code());
                error.addProperty("message", told.getMessage());
                found = error;
                pattern = step.get("error");
                assertNotNull(pattern, "it failed: " + found);
            } else if (failed != null) {
                throw new AssertionError(failed);
            } else {
                if (result instanceof Lease lease) {
                    leases.put(call.on + "/" + lease.handle(), lease);
                }
                found = Typed.dump(result);
                assertFalse(step.has("error"), "it came to " + found);
                pattern = step.has("result") ? step.get("result") : new JsonObject();
            }
            assertNull(differs(filled(pattern), found, "it"));
            save(step, found);
        }
    }
}
