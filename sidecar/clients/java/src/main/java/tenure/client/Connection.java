package tenure.client;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * One connection: lines in, lines out, requests that wait, the heartbeat, and the end of it all.
 *
 * <p>Lines are dealt with by the thread that reads them, in the order of the daemon, which says first what is lost; no queue stands
 * between a notice and the state of the lease that it is about. A thread of its own writes, since interrupting whoever writes to a
 * channel closes it.
 */
final class Connection {
    /** The longest line taken from a daemon, whose own limit may be set higher than usual. */
    private static final int MAX_LINE = 64 << 20;
    /** Lines that wait to be written before callers wait themselves. */
    private static final int MAX_OUTGOING = 1_024;
    /** How long a close waits for its threads, of which the application may hold one up. */
    private static final Duration PATIENCE = Duration.ofSeconds(5);

    private final SocketChannel channel;
    private final BiConsumer<String, JsonObject> told;
    private final Consumer<String> ended;
    private final BlockingQueue<byte[]> outgoing = new ArrayBlockingQueue<>(MAX_OUTGOING);
    private final Thread writer;
    private final Thread reader;
    private final ScheduledExecutorService pinger;
    private volatile Thread pinging;

    private final Object lock = new Object();
    private final Map<Long, Pending<?>> pending = new HashMap<>();
    private long lastId;
    private String why;
    /** When the last line was sent that has been answered: the daemon heard of us since. */
    private long confirmed = System.nanoTime();
    private long maxLine = Long.MAX_VALUE;

    private static final class Pending<T> {
        final String method;
        final long sent = System.nanoTime();
        final Function<JsonElement, T> take;
        final Consumer<T> undo;
        final CompletableFuture<T> answer = new CompletableFuture<>();
        boolean dropped;

        Pending(String method, Function<JsonElement, T> take, Consumer<T> undo) {
            this.method = method;
            this.take = take;
            this.undo = undo;
        }
    }

    private record Begun<T>(long id, Pending<T> pending, byte[] line) {}

    Connection(SocketChannel channel, BiConsumer<String, JsonObject> told, Consumer<String> ended) {
        this.channel = channel;
        this.told = told;
        this.ended = ended;
        writer = daemonThread("tenure-write", this::write);
        reader = daemonThread("tenure-read", this::read);
        pinger = Executors.newSingleThreadScheduledExecutor(work -> pinging = daemonThread("tenure-ping", work));
    }

    void start() {
        writer.start();
        reader.start();
    }

    /** Waits until the threads of a connection that is closed have ended, for a while. */
    void join() {
        join(reader);
        join(writer);
        join(pinging);
    }

    /** Waits for {@code thread}, unless it is this one or nothing, for a while. */
    static void join(Thread thread) {
        if (thread == null || thread == Thread.currentThread()) {
            return;
        }
        boolean interrupted = Thread.interrupted();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        for (long left = PATIENCE.toMillis(); left > 0 && thread.isAlive(); left = (deadline - System.nanoTime()) / 1_000_000) {
            try {
                thread.join(left);
            } catch (InterruptedException interrupt) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    static Thread daemonThread(String name, Runnable work) {
        var thread = new Thread(work, name);
        thread.setDaemon(true);
        return thread;
    }

    boolean isClosed() {
        synchronized (lock) {
            return why != null;
        }
    }

    int inFlight() {
        synchronized (lock) {
            return (int) pending.values().stream().filter(one -> !one.method.equals("ping") && !one.dropped).count();
        }
    }

    void limitLines(long bytes) {
        synchronized (lock) {
            maxLine = bytes > 0 ? bytes : Long.MAX_VALUE;
        }
    }

    /** Whether the daemon has surely heard from here within the heartbeat; null is for none. */
    boolean heard(Duration heartbeat) {
        synchronized (lock) {
            return why == null && (heartbeat == null || System.nanoTime() - confirmed < heartbeat.toNanos());
        }
    }

    /**
     * Sends a request and waits for what {@code take} makes of its result, which happens before the next line is read. An interrupt
     * cancels the request; what was granted all the same goes to {@code undo}.
     */
    <T> T call(String method, JsonObject params, Function<JsonElement, T> take, Consumer<T> undo) throws InterruptedException {
        Begun<T> begun = begin(method, params, take, undo);
        try {
            outgoing.put(begun.line);
        } catch (InterruptedException interrupt) {
            synchronized (lock) {
                pending.remove(begun.id);
            }
            throw interrupt;
        }
        Pending<T> waiting = begun.pending;
        boolean open;
        try {
            return waiting.answer.get();
        } catch (java.util.concurrent.ExecutionException failed) {
            throw thrown(failed.getCause());
        } catch (InterruptedException interrupt) {
            synchronized (lock) {
                open = pending.containsKey(begun.id);
                waiting.dropped = open;
            }
            if (open) {
                var cancel = new JsonObject();
                cancel.addProperty("id", begun.id);
                post(line(null, "cancel", cancel));
            } else if (undo != null) {
                // Answered in this very moment.
                waiting.answer.handle((taken, failed) -> {
                    if (failed == null) {
                        undo.accept(taken);
                    }
                    return null;
                });
            }
            throw interrupt;
        }
    }

    /** The failure, as one of the caller's own. */
    private static RuntimeException thrown(Throwable failure) {
        if (failure instanceof TenureException told) {
            told.fillInStackTrace();
            return told;
        }
        return new CompletionException(failure);
    }

    /** Sends a request whose answer nobody waits for. */
    void post(String method, JsonObject params) {
        try {
            post(begin(method, params, result -> null, null).line);
        } catch (TenureException closed) {
            // There is nobody to tell.
        }
    }

    private void post(byte[] line) {
        if (!outgoing.offer(line)) {
            // A daemon that does not read for so long is as good as gone.
            close("daemon_silent");
        }
    }

    private <T> Begun<T> begin(String method, JsonObject params, Function<JsonElement, T> take, Consumer<T> undo) {
        synchronized (lock) {
            if (why != null) {
                throw TenureException.notSent(method);
            }
            long id = ++lastId;
            byte[] line = line(id, method, params);
            if (line.length - 1 > maxLine) {
                // The daemon would close the connection, and with it release everything.
                var data = new JsonObject();
                data.addProperty("limit", "line_bytes");
                String said = "the request has " + (line.length - 1) + " bytes and the daemon takes " + maxLine;
                throw new InvalidException(said, "invalid_request", false, null, data);
            }
            var waiting = new Pending<>(method, take, undo);
            pending.put(id, waiting);
            return new Begun<>(id, waiting, line);
        }
    }

    private static byte[] line(Long id, String method, JsonObject params) {
        var message = new JsonObject();
        message.addProperty("jsonrpc", "2.0");
        if (id != null) {
            message.addProperty("id", id);
        }
        message.addProperty("method", method);
        message.add("params", params);
        // As a tree of its own, so that null is told from absent.
        return (message + "\n").getBytes(StandardCharsets.UTF_8);
    }

    /** Sends a ping three times per heartbeat, and closes a connection whose daemon says nothing for one. */
    void keepAlive(Duration heartbeat) {
        long every = Math.max(1, heartbeat.toMillis() / 3);
        try {
            pinger.scheduleWithFixedDelay(() -> {
                if (heard(heartbeat)) {
                    post("ping", new JsonObject());
                } else {
                    close("daemon_silent");
                }
            }, 0, every, TimeUnit.MILLISECONDS);
        } catch (RejectedExecutionException over) {
            // Closed already: every call will say so.
        }
    }

    /** Ends the connection: what is held is told lost, then every request that waits fails. */
    void close(String reason) {
        List<Pending<?>> waiting;
        synchronized (lock) {
            if (why != null) {
                return;
            }
            why = reason;
            waiting = List.copyOf(pending.values());
            pending.clear();
        }
        pinger.shutdownNow();
        writer.interrupt();
        try {
            channel.close();
        } catch (IOException closedAllTheSame) {
            // Nothing to do about it.
        }
        ended.accept(reason);
        for (Pending<?> one : waiting) {
            one.answer.completeExceptionally(TenureException.disconnected(one.method));
        }
    }

    private void write() {
        try {
            while (true) {
                ByteBuffer line = ByteBuffer.wrap(outgoing.take());
                while (line.hasRemaining()) {
                    channel.write(line);
                }
            }
        } catch (InterruptedException | IOException over) {
            // The reader has yet to read what the daemon said before it closed, and then closes this side.
        }
    }

    private void read() {
        var buffer = ByteBuffer.allocate(64 << 10);
        var line = new ByteArrayOutputStream();
        try {
            while (channel.read(buffer.clear()) >= 0) {
                byte[] bytes = buffer.array();
                int from = 0;
                for (int at = 0; at < buffer.position(); at++) {
                    if (bytes[at] == '\n') {
                        line.write(bytes, from, at - from);
                        from = at + 1;
                        JsonElement message = JsonParser.parseString(line.toString(StandardCharsets.UTF_8));
                        line.reset();
                        if (message instanceof JsonObject object) {
                            message(object);
                        }
                    }
                }
                line.write(bytes, from, buffer.position() - from);
                if (line.size() > MAX_LINE) {
                    close("malformed");
                }
            }
            close("disconnected");
        } catch (RuntimeException malformed) {
            // Not JSON, or nothing that can be made sense of.
            close("malformed");
        } catch (IOException over) {
            close("disconnected");
        }
    }

    private void message(JsonObject message) {
        if (message.get("method") instanceof JsonPrimitive method) {
            told.accept(method.getAsString(), message.get("params") instanceof JsonObject params ? params : new JsonObject());
        } else if (message.get("id") instanceof JsonPrimitive id && id.isNumber()) {
            Pending<?> waiting;
            synchronized (lock) {
                waiting = pending.get(id.getAsLong());
                if (waiting == null) {
                    return;
                }
                confirmed = waiting.sent - confirmed > 0 ? waiting.sent : confirmed;
            }
            answered(id.getAsLong(), waiting, message);
        }
    }

    private <T> void answered(long id, Pending<T> waiting, JsonObject message) {
        T taken = null;
        TenureException failed = null;
        if (message.get("error") instanceof JsonObject error) {
            failed = TenureException.fromWire(error);
        } else {
            try {
                taken = waiting.take.apply(message.get("result"));
            } catch (RuntimeException problem) {
                failed = new TenureException("the answer to " + waiting.method + " is not understood: " + problem, "internal", false, null, null);
            }
        }
        boolean dropped;
        synchronized (lock) {
            pending.remove(id);
            dropped = waiting.dropped;
        }
        if (!dropped && failed == null) {
            waiting.answer.complete(taken);
        } else if (!dropped) {
            waiting.answer.completeExceptionally(failed);
        } else if (failed == null && waiting.undo != null) {
            waiting.undo.accept(taken);
        }
    }
}
