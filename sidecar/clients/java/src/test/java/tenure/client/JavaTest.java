package tenure.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** What is Java's own, and what only a scripted daemon shows. */
final class JavaTest {
    private static final long PATIENCE = Daemon.PATIENCE.toSeconds();
    private static Daemon daemon;

    @BeforeAll
    static void start() throws Exception {
        daemon = new Daemon(List.of());
    }

    @AfterAll
    static void stop() throws Exception {
        daemon.close();
    }

    private static <T> FutureTask<T> background(Callable<T> work, Thread[] thread) {
        var task = new FutureTask<>(work);
        thread[0] = Connection.daemonThread("test", task);
        thread[0].start();
        return task;
    }

    @Test
    void aBlockReleasesWhateverHappens() throws Exception {
        try (Client client = daemon.connect()) {
            Lock[] held = {null};
            assertThrows(IllegalStateException.class, () -> {
                try (Lock lock = client.lock("a")) {
                    held[0] = lock;
                    assertTrue(lock.isHeld() && lock.check().held());
                    throw new IllegalStateException();
                }
            });
            assertEquals(Lease.State.RELEASED, held[0].state());
            assertFalse(held[0].isHeld());
            held[0].release();
            assertNull(client.lockGet("a").holder());
        }
    }

    @Test
    void aBlockThatLostItsLockSaysSo() throws Exception {
        try (Client client = daemon.connect()) {
            var states = new CopyOnWriteArrayList<Lease.State>();
            var lost = assertThrows(LostException.class, () -> {
                try (Lock lock = client.lock("b")) {
                    lock.onChange(states::add);
                    client.lockBreak("b", lock.fence());
                    assertEquals("broken", lock.lost().get(PATIENCE, TimeUnit.SECONDS).reason());
                    assertThrows(LostException.class, lock::throwIfLost);
                }
            });
            assertEquals("broken", lost.reason());
            Daemon.until("it is told", () -> states.equals(List.of(Lease.State.LOST)));
        }
    }

    @Test
    void anInterruptCancelsAndTheConnectionLasts() throws Exception {
        try (Client client = daemon.connect(); Client other = daemon.connect(); Lock lock = other.lock("c")) {
            Thread[] thread = {null};
            FutureTask<Lock> waits = background(() -> client.lock("c"), thread);
            Daemon.until("it waits", () -> other.lockGet("c").waiters().size() == 1);
            thread[0].interrupt();
            var failed = assertThrows(ExecutionException.class, () -> waits.get(PATIENCE, TimeUnit.SECONDS));
            assertTrue(failed.getCause() instanceof InterruptedException);
            Daemon.until("it waits no more", () -> other.lockGet("c").waiters().isEmpty());
            client.ping();
            // A thread that is interrupted before it begins sends nothing, and closes nothing either.
            Thread.currentThread().interrupt();
            assertThrows(InterruptedException.class, client::ping);
            client.ping();
            assertTrue(lock.isHeld());
        }
    }

    @Test
    void aBlockOfAnInterruptedThreadReleases() throws Exception {
        try (Client client = daemon.connect()) {
            try (Lock lock = client.lock("d")) {
                assertTrue(lock.isHeld());
                Thread.currentThread().interrupt();
            }
            assertTrue(Thread.interrupted());
            assertNull(client.lockGet("d").holder());
        }
    }

    @Test
    void aDaemonThatSaysNothingEndsTheConnection() throws Exception {
        try (var quiet = new Daemon(List.of());
                Client client = Client.builder().socket(quiet.socket).heartbeat(Duration.ofMillis(600)).connect()) {
            Lock lock = client.lock("a");
            quiet.signal("stop");
            assertEquals("daemon_silent", lock.lost().get(PATIENCE, TimeUnit.SECONDS).reason());
            assertEquals("daemon_silent", client.closed().get(PATIENCE, TimeUnit.SECONDS));
        }
    }

    @Test
    void workUnderALockThatIsLostIsInterruptedAndOnlyThat() throws Exception {
        try (Client client = daemon.connect()) {
            var lost = assertThrows(LostException.class, () -> client.withLock("f", LockOptions.DEFAULTS, lock -> {
                client.lockBreak("f", lock.fence());
                new java.util.concurrent.CountDownLatch(1).await();
                return null;
            }));
            assertEquals("broken", lost.reason());
            assertFalse(Thread.interrupted());
            assertEquals("done", client.<String>whileLeader("g", CampaignOptions.DEFAULTS, office -> {
                assertTrue(office.isHeld());
                return "done";
            }));
            assertEquals("memory:", client.hello().store().url());
            assertNull(client.leader("g").leader());
            assertThrows(IllegalStateException.class, () -> client.withLock("f", LockOptions.DEFAULTS, lock -> {
                throw new IllegalStateException();
            }));
            assertNull(client.lockGet("f").holder());
            // One that is lost before its work begins, too.
            Lock early = client.lock("f");
            client.lockBreak("f", early.fence());
            early.lost().get(PATIENCE, TimeUnit.SECONDS);
            assertThrows(LostException.class, () -> Guard.run(early, lock -> {
                Thread.sleep(Daemon.PATIENCE.toMillis());
                return null;
            }));
        }
    }

    @Test
    void nothingIsLeftOfAClientThatWasClosed() throws Exception {
        try (var own = new Daemon(List.of())) {
            for (String ends : List.of("closed", "disconnected")) {
                var before = Thread.getAllStackTraces().keySet();
                Client client = own.connect();
                Lock lock = client.lock("a");
                Subscription watch = client.watch(WatchOptions.DEFAULTS);
                FutureTask<Lock> waits = background(() -> client.lock("a"), new Thread[1]);
                Daemon.until("it waits", () -> client.inFlight() == 1);
                var running = Thread.getAllStackTraces().keySet().stream()
                    .filter(thread -> thread.getName().startsWith("tenure-") && !before.contains(thread)).toList();
                assertTrue(running.size() >= 3, running.toString());
                if (ends.equals("closed")) {
                    client.close();
                } else {
                    own.signal("kill");
                }
                var failed = assertThrows(ExecutionException.class, () -> waits.get(PATIENCE, TimeUnit.SECONDS));
                assertTrue(failed.getCause() instanceof UnavailableException, failed.toString());
                assertEquals(ends, lock.lost().get(PATIENCE, TimeUnit.SECONDS).reason());
                Event last = null;
                for (Event event : watch) {
                    last = event;
                }
                assertEquals(List.of("end", ends), List.of(last.kind(), last.reason()));
                client.close();
                assertEquals(List.of(), running.stream().filter(Thread::isAlive).toList());
                assertEquals(List.of(), Thread.getAllStackTraces().keySet().stream()
                    .filter(thread -> thread.getName().startsWith("tenure-") && !before.contains(thread)).toList());
            }
        }
    }

    @Test
    void nobodyListeningIsSaidWithTheRemedy() {
        var failed = assertThrows(ConnectException.class, () -> Client.builder().socket(Path.of("/nonexistent/s.sock")).connect());
        assertTrue(failed.getMessage().contains("start tenured"));
    }

    @Test
    void theSocketIsFoundAsTheProtocolSays() {
        assertEquals(Path.of("/run/tenure/tenured.sock"), Wire.defaultSocket(null, ""));
        assertEquals(Path.of("/run/user/7/tenure/tenured.sock"), Wire.defaultSocket("", "/run/user/7"));
        assertEquals(Path.of("/x"), Wire.defaultSocket("/x", "/run/user/7"));
    }

    @Test
    void theFirstExampleOfTheReadmeWorks() throws Exception {
        String readme = Files.readString(Path.of("README.md")).replaceAll("\\s+", " ");
        String source = Files.readString(Path.of("src/test/java/tenure/client/JavaTest.java"));
        String example = source.substring(source.lastIndexOf("// example {") + 12, source.lastIndexOf("// } example"));
        String shown = example.replace("daemon.connect()", "Client.connect()").replaceAll("\\s+", " ").strip();
        assertTrue(readme.contains(shown), "the README shows something else than " + shown);
        // example {
        try (Client client = daemon.connect();
                Lock lock = client.lock("nightly", LockOptions.DEFAULTS.waitFor(Duration.ofSeconds(30)))) {
            System.out.println("holding with fencing token " + lock.fence());
            client.put("report", "done", PutOptions.DEFAULTS.fencedBy(lock));
            lock.throwIfLost();
        }
        // } example
        try (Client client = daemon.connect()) {
            assertEquals("done", client.get("report").text());
            assertNull(client.lockGet("nightly").holder());
        }
    }

    /** A daemon that plays a part: it hands over each message but hello and ping, and says what it is given. */
    private static final class Script implements AutoCloseable {
        final Client client;
        private final Path directory = Files.createTempDirectory("tenure-java-");
        private final ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        private final LinkedBlockingQueue<JsonObject> messages = new LinkedBlockingQueue<>();
        private volatile SocketChannel stream;

        Script() throws Exception {
            server.bind(UnixDomainSocketAddress.of(directory.resolve("s")));
            Connection.daemonThread("script", this::listen).start();
            client = Client.builder().socket(directory.resolve("s")).connect();
        }

        private void listen() {
            try {
                stream = server.accept();
                var lines = new BufferedReader(Channels.newReader(stream, StandardCharsets.UTF_8));
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    JsonObject message = JsonParser.parseString(line).getAsJsonObject();
                    switch (message.get("method").getAsString()) {
                        case "hello" -> say("{'id':" + message.get("id") + ",'result':{'protocol':1,'later':1,'limits':{'later':1}}}");
                        case "ping" -> {
                        }
                        default -> messages.add(message);
                    }
                }
            } catch (IOException over) {
                // The client is gone.
            }
        }

        void say(String... lines) throws IOException {
            String text = (String.join("\n", lines) + "\n").replace('\'', '"');
            stream.write(ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8)));
        }

        JsonObject heard(String method) throws InterruptedException {
            JsonObject message = messages.poll(PATIENCE, TimeUnit.SECONDS);
            assertEquals(method, message.get("method").getAsString());
            return message;
        }

        @Override
        public void close() throws IOException {
            client.close();
            server.close();
            Files.deleteIfExists(directory.resolve("s"));
            Files.deleteIfExists(directory);
        }
    }

    @Test
    void aLeaseThatIsLostInTheSameBreathIsToldAndLaterMembersAreIgnored() throws Exception {
        try (var script = new Script()) {
            FutureTask<Lock> locking = background(() -> script.client.lock("x"), new Thread[1]);
            JsonObject asked = script.heard("lock.acquire");
            script.say("{'id':" + asked.get("id") + ",'result':{'lease':'l_1','fence':9007199254740991,'later':[1]},'later':1}",
                "{'method':'later','params':{}}",
                "{'method':'lease','params':{'lease':'l_1','state':'lost','reason':'later_reason','later':2}}");
            Lock lock = locking.get(PATIENCE, TimeUnit.SECONDS);
            assertEquals("later_reason", lock.lost().get(PATIENCE, TimeUnit.SECONDS).reason());
            assertEquals((1L << 53) - 1, lock.fence());
        }
    }

    @Test
    void aLeaseThatComesAfterItsWaitWasCancelledGoesBack() throws Exception {
        try (var script = new Script()) {
            Thread[] thread = {null};
            FutureTask<Lock> waits = background(() -> script.client.lock("x"), thread);
            JsonObject asked = script.heard("lock.acquire");
            thread[0].interrupt();
            JsonObject cancel = script.heard("cancel");
            assertEquals(asked.get("id"), cancel.getAsJsonObject("params").get("id"));
            assertFalse(cancel.has("id"));
            assertThrows(ExecutionException.class, () -> waits.get(PATIENCE, TimeUnit.SECONDS));
            script.say("{'id':" + asked.get("id") + ",'result':{'lease':'l_5','fence':5}}");
            assertEquals("l_5", script.heard("lock.release").getAsJsonObject("params").get("lease").getAsString());
        }
    }

    @Test
    void aLeaseThatIsInDoubtIsToldAndToldToBeKept() throws Exception {
        try (var script = new Script()) {
            FutureTask<Lock> locking = background(() -> script.client.lock("x"), new Thread[1]);
            script.say("{'id':" + script.heard("lock.acquire").get("id") + ",'result':{'lease':'l_1','fence':1}}");
            Lock lock = locking.get(PATIENCE, TimeUnit.SECONDS);
            var states = new CopyOnWriteArrayList<Lease.State>();
            lock.onChange(states::add);
            script.say("{'method':'lease','params':{'lease':'l_1','state':'suspect'}}",
                "{'method':'lease','params':{'lease':'l_1','state':'restored'}}");
            Daemon.until("it is told", () -> states.equals(List.of(Lease.State.SUSPECT, Lease.State.HELD)));
            assertTrue(lock.isHeld());
        }
    }

    @Test
    void aGapIsHandedOnAndTheWatchKnowsWhereToGoOn() throws Exception {
        try (var script = new Script()) {
            FutureTask<Subscription> watching = background(() -> script.client.watch(WatchOptions.DEFAULTS), new Thread[1]);
            JsonObject asked = script.heard("kv.watch");
            assertEquals("{\"prefix\":\"\"}", asked.get("params").toString());
            String event = "{'method':'event','params':{'subscription':'w_1','kind':";
            script.say("{'id':" + asked.get("id") + ",'result':{'subscription':'w_1'}}",
                event + "'put','key':'k','value':'x','revision':5}}", event + "'gap','resume_revision':9}}",
                event + "'delete','key':'k','revision':12}}", event + "'gap'}}", event + "'end','reason':'slow_reader'}}");
            Subscription watch = watching.get(PATIENCE, TimeUnit.SECONDS);
            var told = new StringBuilder().append(watch.resumeRevision());
            for (Event one : watch) {
                told.append(' ').append(one.kind()).append(' ').append(watch.resumeRevision());
            }
            assertEquals("null put 6 gap 9 delete 13 gap 13 end 13", told.toString());
        }
    }

    @Test
    void whatIsNoMessageEndsTheConnection() throws Exception {
        for (String line : List.of("{", "{'method':'goaway','params':{'deadline_ms':'x'}}")) {
            try (var script = new Script()) {
                FutureTask<Long> writes = background(() -> script.client.put("k", "x", PutOptions.DEFAULTS), new Thread[1]);
                script.heard("kv.put");
                script.say(line);
                var failed = assertThrows(ExecutionException.class, () -> writes.get(PATIENCE, TimeUnit.SECONDS));
                assertTrue(failed.getCause() instanceof UnknownOutcomeException, failed.toString());
                assertEquals("malformed", script.client.closed().get(PATIENCE, TimeUnit.SECONDS));
            }
        }
    }

    @Test
    void errorsOfALaterVersionAreStillErrors() throws Exception {
        try (var script = new Script()) {
            for (String[] step : new String[][] {
                {"{'code':77,'message':'m','data':{'kind':'newer','retryable':true}}", "newer", "true"},
                {"{'code':-32603,'message':'m'}", "internal", "false"}}) {
                FutureTask<Object> asking = background(script.client::status, new Thread[1]);
                script.say("{'id':" + script.heard("status").get("id") + ",'error':" + step[0] + "}");
                var failed = assertThrows(ExecutionException.class, () -> asking.get(PATIENCE, TimeUnit.SECONDS));
                TenureException told = (TenureException) failed.getCause();
                assertEquals(List.of(step[1], step[2]), List.of(told.kind(), String.valueOf(told.retryable())));
            }
        }
    }

    @Test
    void leavingIsTold() throws Exception {
        try (var script = new Script()) {
            script.say("{'method':'goaway','params':{'deadline_ms':70}}");
            assertEquals(Duration.ofMillis(70), script.client.leaving().get(PATIENCE, TimeUnit.SECONDS));
        }
    }
}
