package tenure.client;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.gson.reflect.TypeToken;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.BiFunction;

/**
 * A connection to the daemon, for any number of threads. Everything held through it is released when it closes.
 *
 * <p>An interrupt cancels what a thread waits for, at the daemon, too; a lease that was granted in the same moment is given back. A
 * write that is cancelled may have been done. Failures are {@link TenureException}s.
 *
 * <p>A connection that has ended is not made again: what was held through it is lost, and only the application knows what that means.
 */
public final class Client implements AutoCloseable {
    /** Leases are let go when the daemon has heard nothing for this long. */
    public static final Duration HEARTBEAT = Duration.ofSeconds(10);
    /** Events kept for a subscription that nobody reads. */
    public static final int EVENTS = 16_384;

    private final Connection connection;
    private final Duration heartbeat;
    private final int room;
    private final Map<String, Lease> leases = new ConcurrentHashMap<>();
    private final Map<String, Subscription> subscriptions = new ConcurrentHashMap<>();
    private final CompletableFuture<String> closed = new CompletableFuture<>();
    private final CompletableFuture<Duration> leaving = new CompletableFuture<>();
    private final ExecutorService notices = Executors.newSingleThreadExecutor(work -> noticing = Connection.daemonThread("tenure-notices", work));
    private volatile Thread noticing;
    private volatile String why;
    private volatile Hello hello;

    /** How to connect. */
    public static final class Builder {
        private Path socket = defaultSocket();
        private String name = "tenure-client-java/0.1.0";
        private Duration heartbeat = HEARTBEAT;
        private boolean manualPing;
        private int events = EVENTS;

        private Builder() {}

        /** Where the daemon listens; {@link Client#defaultSocket} unless told. */
        public Builder socket(Path socket) {
            this.socket = socket;
            return this;
        }

        /** What the client calls itself, for people. */
        public Builder name(String name) {
            this.name = name;
            return this;
        }

        /**
         * For how long the daemon may hear nothing from here before it lets everything go; null for ever. A thread of the client pings
         * three times as often, so it stops with the process, not with a thread of the application that hangs.
         */
        public Builder heartbeat(Duration heartbeat) {
            this.heartbeat = heartbeat;
            return this;
        }

        /** Leaves it to the application to call {@link Client#ping}, from wherever it can tell that it is well. */
        public Builder manualPing() {
            manualPing = true;
            return this;
        }

        /** How many unread events are kept for each subscription before it ends as {@code slow_reader}. */
        public Builder events(int events) {
            this.events = events;
            return this;
        }

        /**
         * Connects to the daemon and says hello.
         *
         * @throws ConnectException where nobody answers
         * @throws UnsupportedException where another protocol is spoken
         */
        public Client connect() throws InterruptedException {
            return new Client(this);
        }
    }

    /** How to connect, with the defaults to begin with. */
    public static Builder builder() {
        return new Builder();
    }

    /** Connects with the defaults. */
    public static Client connect() throws InterruptedException {
        return builder().connect();
    }

    /**
     * Where the daemon listens: {@code $TENURE_SOCKET}, else {@code $XDG_RUNTIME_DIR/tenure/tenured.sock}, else
     * {@code /run/tenure/tenured.sock}.
     */
    public static Path defaultSocket() {
        return Wire.defaultSocket();
    }

    private Client(Builder builder) throws InterruptedException {
        heartbeat = builder.heartbeat;
        room = builder.events;
        connection = new Connection(open(builder.socket), this::told, this::ended);
        connection.start();
        try {
            var protocol = new JsonArray();
            protocol.add(1);
            var params = Wire.Params.of("protocol", protocol).with("client", builder.name).with("heartbeat_ms", heartbeat);
            hello = Wire.read(call("hello", params.json), Hello.class);
        } catch (InterruptedException | RuntimeException failed) {
            close();
            throw failed;
        }
        connection.limitLines(hello.limits().lineBytes());
        if (heartbeat != null && !builder.manualPing) {
            connection.keepAlive(heartbeat);
        }
    }

    private static SocketChannel open(Path path) {
        SocketChannel channel = null;
        try {
            channel = SocketChannel.open(StandardProtocolFamily.UNIX);
            channel.connect(UnixDomainSocketAddress.of(path));
            return channel;
        } catch (IOException problem) {
            if (channel != null) {
                try {
                    channel.close();
                } catch (IOException closedAllTheSame) {
                    problem.addSuppressed(closedAllTheSame);
                }
            }
            String said;
            if (!Files.exists(path)) {
                said = "there is no socket " + path + "; start tenured, or name its socket";
            } else if (problem instanceof AccessDeniedException || !Files.isWritable(path)) {
                said = "this user may not use " + path + "; join the group of the socket, or start tenured with --socket-group";
            } else if (problem instanceof java.net.ConnectException) {
                said = "nobody listens on " + path + "; start tenured";
            } else {
                said = "cannot connect to " + path + ": " + problem.getMessage();
            }
            var failed = new ConnectException(said, "unavailable", true, null, null);
            failed.initCause(problem);
            throw failed;
        }
    }

    // The connection.

    /** Closes the connection; the daemon releases whatever is still held. Its threads have ended then, but for one that calls this. */
    @Override
    public void close() {
        connection.close("closed");
        connection.join();
        Connection.join(noticing);
    }

    /** Whether the connection has ended, and with it everything held through it. */
    public boolean isClosed() {
        return connection.isClosed();
    }

    /** Completes when it has, with the reason. */
    public CompletableFuture<String> closed() {
        return closed.copy();
    }

    /** Completes when the daemon says that it is leaving: what is still held that much later is lost. */
    public CompletableFuture<Duration> leaving() {
        return leaving.copy();
    }

    /** What the daemon said of itself. */
    public Hello hello() {
        return hello;
    }

    /** Whether the daemon serves {@code method}. */
    public boolean supports(String method) {
        return hello.capabilities().contains(method);
    }

    /** Requests that are not answered yet. */
    public int inFlight() {
        return connection.inFlight();
    }

    /**
     * Calls any method by its name on the wire and returns its result as it is. A lease or subscription in it is the caller's own
     * business.
     */
    public JsonElement call(String method, JsonObject params) throws InterruptedException {
        return connection.call(method, params, result -> result, null);
    }

    /** Says that this client is alive. */
    public void ping() throws InterruptedException {
        call("ping", new JsonObject());
    }

    /** How the daemon and this connection fare. */
    public Status status() throws InterruptedException {
        return read("status", new Wire.Params(), Status.class);
    }

    /** The protocol as an OpenRPC document. */
    public JsonElement discover() throws InterruptedException {
        return call("rpc.discover", new JsonObject());
    }

    // Locks.

    /** Acquires a lock, however long it takes. */
    public Lock lock(String name) throws InterruptedException {
        return lock(name, LockOptions.DEFAULTS);
    }

    /**
     * Acquires a lock.
     *
     * @throws TimeoutException when it was in vain
     */
    public Lock lock(String name, LockOptions options) throws InterruptedException {
        var params = Wire.Params.of("name", name).with("wait_ms", options.waitFor()).with("lease_ms", options.lease())
            .with("label", options.label());
        return acquire("lock.acquire", params, name, (client, granted) -> new Lock(client, name, granted));
    }

    /**
     * Runs {@code work} under a lock, on this thread, and releases it afterwards. The thread is interrupted when the lock is lost; this
     * throws {@link LostException} then, unless the work failed with something else.
     */
    public <T> T withLock(String name, LockOptions options, Work<Lock, T> work) throws Exception {
        return Guard.run(lock(name, options), work);
    }

    /** Who holds a lock and who waits for it. */
    public LockView lockGet(String name) throws InterruptedException {
        return read("lock.get", Wire.Params.of("name", name), LockView.class);
    }

    /** All locks with that prefix, null for all, that somebody holds or waits for. */
    public List<LockView> lockList(String prefix) throws InterruptedException {
        return readAll("lock.list", Wire.Params.of("prefix", prefix), "locks", LockView.class);
    }

    /** Follows who holds a lock and who waits: events lock, sync, gap, end. */
    public Subscription observeLock(String name) throws InterruptedException {
        return subscribe("lock.observe", Wire.Params.of("name", name));
    }

    /** Ends the hold of a lock that has this token, and no other; for administrators. */
    public void lockBreak(String name, long fence) throws InterruptedException {
        call("lock.break", Wire.Params.of("name", name).with("fence", fence).json);
    }

    // Elections.

    /** Campaigns until elected. */
    public Office campaign(String name, CampaignOptions options) throws InterruptedException {
        var params = Wire.Params.of("name", name).withValue(options.value()).with("wait_ms", options.waitFor())
            .with("lease_ms", options.lease()).with("label", options.label()).with("priority", options.priority())
            .with("min_tenure_ms", options.minTenure());
        return acquire("election.campaign", params, name, (client, granted) -> new Office(client, name, granted));
    }

    /** Campaigns, runs {@code work} while leading and resigns afterwards, as {@link #withLock} does for a lock. */
    public <T> T whileLeader(String name, CampaignOptions options, Work<Office, T> work) throws Exception {
        return Guard.run(campaign(name, options), work);
    }

    /** Who leads. */
    public Leadership leader(String name) throws InterruptedException {
        return read("election.leader", Wire.Params.of("name", name), Leadership.class);
    }

    /** Who waits to lead, longest first. */
    public List<Candidate> candidates(String name) throws InterruptedException {
        return readAll("election.candidates", Wire.Params.of("name", name), "candidates", Candidate.class);
    }

    /** All elections with that prefix, null for all, that somebody leads or waits to lead. */
    public List<ElectionView> electionList(String prefix) throws InterruptedException {
        return readAll("election.list", Wire.Params.of("prefix", prefix), "elections", ElectionView.class);
    }

    /** Follows who leads: events leader, sync, gap, end. */
    public Subscription observe(String name) throws InterruptedException {
        return subscribe("election.observe", Wire.Params.of("name", name));
    }

    // Groups.

    /**
     * Joins a group.
     *
     * @throws ConflictException where somebody else who lives has that id
     */
    public Membership join(String group, JoinOptions options) throws InterruptedException {
        var params = Wire.Params.of("group", group).with("id", options.id()).withValue(options.value())
            .with("address", options.address()).with("zone", options.zone()).with("weight", options.weight())
            .with("metadata", options.metadata()).with("state", options.state()).with("checks", options.checks())
            .with("leave_when_critical_ms", options.leaveWhenCritical()).with("label", options.label())
            .with("lease_ms", options.lease());
        return acquire("member.join", params, group, (client, granted) -> new Membership(client, group, granted));
    }

    /** One line's worth of members, by id; those after {@code after}, null for the first. */
    public MemberPage memberList(String group, String after) throws InterruptedException {
        return read("member.list", Wire.Params.of("group", group).with("after", after), MemberPage.class);
    }

    /** All members, by id. */
    public List<Member> members(String group) throws InterruptedException {
        var all = new ArrayList<Member>();
        String after = null;
        do {
            MemberPage page = memberList(group, after);
            all.addAll(page.members());
            after = page.next();
        } while (after != null);
        return all;
    }

    /** All groups with that prefix, null for all, that have members. */
    public List<GroupView> groups(String prefix) throws InterruptedException {
        return readAll("member.groups", Wire.Params.of("prefix", prefix), "groups", GroupView.class);
    }

    /** Follows a group: events join, update, leave, sync, gap, end. */
    public Subscription watchMembers(String group) throws InterruptedException {
        return subscribe("member.watch", Wire.Params.of("group", group));
    }

    // Values.

    /** The value of a key; null where it has none. */
    public Entry get(String key) throws InterruptedException {
        return get(key, null, null);
    }

    /** The value of a key at a revision, null for the latest; null where there is none. */
    public Entry get(String key, Long revision, String bucket) throws InterruptedException {
        var params = Wire.Params.of("key", key).with("revision", revision).with("bucket", bucket);
        return Wire.read(((JsonObject) call("kv.get", params.json)).get("entry"), Entry.class);
    }

    /**
     * Writes a value; returns the revision.
     *
     * @throws ConflictException where a fence does not hold, as {@link LostException} and {@link NotHeldException}; nothing is written
     */
    public long put(String key, byte[] value, PutOptions options) throws InterruptedException {
        return revision("kv.put", writing(key, value, options));
    }

    /** Writes a text. */
    public long put(String key, String value, PutOptions options) throws InterruptedException {
        return put(key, utf8(value), options);
    }

    /**
     * Writes a value where there is none; returns the revision.
     *
     * @throws ConflictException where there is one
     */
    public long create(String key, byte[] value, PutOptions options) throws InterruptedException {
        return revision("kv.create", writing(key, value, options));
    }

    /**
     * Writes over that very revision; returns the new one.
     *
     * @throws ConflictException where there is another
     */
    public long update(String key, byte[] value, long revision, PutOptions options) throws InterruptedException {
        return revision("kv.update", writing(key, value, options).with("revision", revision));
    }

    /** Deletes a key's value; returns the revision of that. */
    public long delete(String key, DeleteOptions options) throws InterruptedException {
        return revision("kv.delete", deleting(key, options));
    }

    /** As {@link #delete}, the key's history included. */
    public long purge(String key, DeleteOptions options) throws InterruptedException {
        return revision("kv.purge", deleting(key, options));
    }

    /**
     * One line's worth of the keys that have a value, sorted.
     *
     * @param prefix only those that begin with it, null for all
     * @param after only those after that one, null for the first
     * @param bucket a bucket other than the coordination bucket, or null
     */
    public KeyPage keyPage(String prefix, String after, String bucket) throws InterruptedException {
        return read("kv.keys", Wire.Params.of("prefix", prefix).with("after", after).with("bucket", bucket), KeyPage.class);
    }

    /** All keys with that prefix, null for all, that have a value, sorted. */
    public List<String> keys(String prefix) throws InterruptedException {
        return keys(prefix, null);
    }

    /** The keys with that prefix in a bucket other than the coordination bucket. */
    public List<String> keys(String prefix, String bucket) throws InterruptedException {
        var all = new ArrayList<String>();
        String after = null;
        do {
            KeyPage page = keyPage(prefix, after, bucket);
            all.addAll(page.keys());
            after = page.next();
        } while (after != null);
        return all;
    }

    /** What the bucket has kept of a key, oldest first. */
    public List<Entry> history(String key) throws InterruptedException {
        return history(key, null);
    }

    /** What a bucket other than the coordination bucket has kept of a key. */
    public List<Entry> history(String key, String bucket) throws InterruptedException {
        return readList("kv.history", Wire.Params.of("key", key).with("bucket", bucket), "entries", Entry.class);
    }

    /**
     * Follows values: events put, delete, purge, expire, sync, gap, end. After a gap that is followed by end, or any other end, watch again
     * with {@link Subscription#resumeRevision} as {@code fromRevision} and no write is missed, but those that the store has forgotten.
     */
    public Subscription watch(WatchOptions options) throws InterruptedException {
        String prefix = options.key() == null && options.prefix() == null ? "" : options.prefix();
        return subscribe("kv.watch", Wire.Params.of("key", options.key()).with("prefix", prefix)
            .with("from_revision", options.fromRevision()).with("updates_only", options.updatesOnly())
            .with("bucket", options.bucket()));
    }

    // Inside.

    private static Wire.Params writing(String key, byte[] value, PutOptions options) {
        return Wire.Params.of("key", key).withValue(value).with("ttl_ms", options.ttl())
            .with("fence_lease", options.fencedBy() == null ? null : options.fencedBy().handle())
            .with("fence", options.fence()).with("lock", options.lock()).with("election", options.election())
            .with("bucket", options.bucket());
    }

    private static Wire.Params deleting(String key, DeleteOptions options) {
        return Wire.Params.of("key", key).with("revision", options.revision())
            .with("fence_lease", options.fencedBy() == null ? null : options.fencedBy().handle())
            .with("fence", options.fence()).with("lock", options.lock()).with("election", options.election())
            .with("bucket", options.bucket());
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    long revision(String method, Wire.Params params) throws InterruptedException {
        return ((JsonObject) call(method, params.json)).get("revision").getAsLong();
    }

    private <T> T read(String method, Wire.Params params, Class<T> type) throws InterruptedException {
        return Wire.read(call(method, params.json), type);
    }

    /** All of a list, however many answers that takes. */
    private <T> List<T> readAll(String method, Wire.Params params, String member, Class<T> type) throws InterruptedException {
        var all = new ArrayList<T>();
        String after = null;
        do {
            var page = (JsonObject) call(method, params.with("after", after).json);
            all.addAll(Wire.<List<T>>read(page.get(member), TypeToken.getParameterized(List.class, type).getType()));
            JsonElement next = page.get("next");
            after = next == null || next.isJsonNull() ? null : next.getAsString();
        } while (after != null);
        return all;
    }

    private <T> List<T> readList(String method, Wire.Params params, String member, Class<T> type) throws InterruptedException {
        JsonElement found = ((JsonObject) call(method, params.json)).get(member);
        return Wire.read(found, TypeToken.getParameterized(List.class, type).getType());
    }

    private <L extends Lease> L acquire(String method, Wire.Params params, String name, BiFunction<Client, Lease.Granted, L> build)
            throws InterruptedException {
        return connection.call(method, params.json, result -> {
            L lease = build.apply(this, Wire.read(result, Lease.Granted.class));
            // Before the next line is read, which may tell that it is lost.
            leases.put(lease.handle(), lease);
            if (why != null) {
                lease.lose(why);
            }
            return lease;
        }, lease -> {
            lease.end();
            post(lease.releaseMethod(), lease.handleParams());
        });
    }

    private Subscription subscribe(String method, Wire.Params params) throws InterruptedException {
        return connection.call(method, params.json, result -> {
            String handle = ((JsonObject) result).get("subscription").getAsString();
            Long from = params.json.get("from_revision") instanceof JsonPrimitive number ? (Long) number.getAsLong() : null;
            var subscription = new Subscription(this, handle, room, from);
            subscriptions.put(handle, subscription);
            if (why != null) {
                subscription.tell(Event.end(why));
            }
            return subscription;
        }, Subscription::close);
    }

    void post(String method, JsonObject params) {
        connection.post(method, params);
    }

    boolean heard() {
        return connection.heard(heartbeat);
    }

    void forget(Lease lease) {
        leases.remove(lease.handle(), lease);
    }

    void forget(Subscription subscription) {
        subscriptions.remove(subscription.handle(), subscription);
    }

    /** Runs what a loss calls for, on a thread that does nothing else. */
    void notices(Runnable work) {
        try {
            notices.execute(work);
        } catch (RejectedExecutionException over) {
            work.run();
        }
    }

    private void told(String method, JsonObject said) {
        Lease lease = leases.get(text(said, "lease"));
        switch (method) {
            case "lease" -> {
                if (lease != null) {
                    lease.tell(text(said, "state"), text(said, "reason"));
                }
            }
            case "event" -> {
                Subscription subscription = subscriptions.get(text(said, "subscription"));
                if (subscription != null) {
                    subscription.tell(Wire.read(said, Event.class));
                } else if (lease instanceof Office office && text(said, "kind").equals("asked_to_step_down")) {
                    office.ask(said.get("candidate"));
                }
            }
            case "goaway" -> {
                long deadline = said.get("deadline_ms") instanceof JsonPrimitive number ? number.getAsLong() : 0;
                notices(() -> leaving.complete(Duration.ofMillis(deadline)));
            }
            default -> {
                // Of a later version.
            }
        }
    }

    private static String text(JsonObject said, String name) {
        return said.get(name) instanceof JsonPrimitive text ? text.getAsString() : "";
    }

    private void ended(String reason) {
        why = reason;
        List.copyOf(leases.values()).forEach(lease -> lease.lose(reason));
        List.copyOf(subscriptions.values()).forEach(subscription -> subscription.tell(Event.end(reason)));
        notices(() -> closed.complete(reason));
        notices.shutdown();
    }
}
