package tenure.client;

import com.google.gson.JsonObject;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Consumer;

/**
 * Something held through a {@link Client}: a {@link Lock}, an {@link Office} or a {@link Membership}. Hold it in
 * try-with-resources; closing it releases it, and throws {@link LostException} where it was lost meanwhile.
 */
public abstract class Lease implements AutoCloseable {
    /** Where a lease stands. A suspect one may be held again, or lost. */
    public enum State { HELD, SUSPECT, LOST, RELEASED }

    final Client client;
    private final String what;
    private final String releaseMethod;
    private final String name;
    private final Granted granted;
    private final CompletableFuture<LostException> lost = new CompletableFuture<>();
    private final List<Consumer<State>> listeners = new CopyOnWriteArrayList<>();
    private volatile State state = State.HELD;
    private volatile LostException loss;
    private Runnable urgent = () -> { };
    private boolean over;

    /** What a grant says. */
    record Granted(String lease, long fence, String candidate, String id, long revision, long waitedMs, long remainingMs, long leaseMs) {
        Granted {
            java.util.Objects.requireNonNull(lease, "there is no lease in it");
        }
    }

    Lease(Client client, String what, String releaseMethod, String name, Granted granted) {
        this.client = client;
        this.what = what;
        this.releaseMethod = releaseMethod;
        this.name = name;
        this.granted = granted;
    }

    final Granted granted() {
        return granted;
    }

    final String releaseMethod() {
        return releaseMethod;
    }

    /** The lock's, the election's or the group's name. */
    public final String name() {
        return name;
    }

    /** The handle on this connection. */
    public final String handle() {
        return granted.lease;
    }

    /** How long the request waited. */
    public final Duration waited() {
        return Duration.ofMillis(granted.waitedMs);
    }

    /** How long it was valid, when it was granted, without another renewal. */
    public final Duration remaining() {
        return Duration.ofMillis(granted.remainingMs);
    }

    /** How long a crash of the daemon would keep it. */
    public final Duration length() {
        return Duration.ofMillis(granted.leaseMs);
    }

    /** Where it stands, as far as it was told. */
    public final State state() {
        return state;
    }

    /**
     * Whether it is held as far as this process can know without asking: it was not given up, no loss was told, and the daemon has heard
     * from this client within the heartbeat. The clock of that does not count a suspended machine.
     */
    public final boolean isHeld() {
        State now = state;
        return (now == State.HELD || now == State.SUSPECT) && client.heard();
    }

    /**
     * Completes when it is lost, with the reason; never where it is given up instead. What depends on it runs on a thread of the client
     * that tells nothing but losses; {@link #isHeld} and {@link #throwIfLost} know without waiting for that thread.
     */
    public final CompletableFuture<LostException> lost() {
        return lost.copy();
    }

    /** Throws {@link LostException} when it is lost: call it where work under it comes to a point of no return. */
    public final void throwIfLost() {
        if (loss != null) {
            throw loss;
        }
    }

    /** Calls {@code listener} with each new state, on the thread that tells losses. */
    public final void onChange(Consumer<State> listener) {
        listeners.add(listener);
        State now = state;
        if (now == State.SUSPECT || now == State.LOST) {
            client.notices(() -> listener.accept(now));
        }
    }

    /** Runs {@code work} when it is lost, on the thread that reads the connection: it must not block. */
    final void whenLost(Runnable work) {
        synchronized (this) {
            if (loss == null) {
                urgent = work;
                return;
            }
        }
        work.run();
    }

    /** Asks the daemon how it stands. */
    public final LeaseCheck check() throws InterruptedException {
        return Wire.read(client.call("lock.check", handleParams()), LeaseCheck.class);
    }

    /**
     * Gives it up. After {@link UnavailableException} or {@link UnknownOutcomeException} the daemon goes on with it by itself; ask again
     * to learn what came of it. Once that is known asking again does nothing.
     */
    public final void release() throws InterruptedException {
        synchronized (this) {
            throwIfLost();
            if (over) {
                return;
            }
            state = State.RELEASED;
        }
        try {
            client.call(releaseMethod, handleParams());
        } catch (LostException told) {
            lose(told.reason());
            throw told;
        }
        end();
    }

    /** {@link #release}; the daemon goes on with it where this is interrupted. */
    @Override
    public final void close() {
        boolean interrupted = Thread.interrupted();
        try {
            release();
        } catch (InterruptedException interrupt) {
            interrupted = true;
            client.post(releaseMethod, handleParams());
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    final JsonObject handleParams() {
        return Wire.Params.of("lease", handle()).json;
    }

    /** Ends it because its owner wanted so. */
    final void end() {
        synchronized (this) {
            over = true;
            state = State.RELEASED;
        }
        client.forget(this);
    }

    final void tell(String told, String reason) {
        if (told.equals("lost")) {
            lose(reason);
            return;
        }
        State now = told.equals("suspect") ? State.SUSPECT : State.HELD;
        synchronized (this) {
            if (state != State.HELD && state != State.SUSPECT) {
                return;
            }
            state = now;
        }
        listeners.forEach(listener -> client.notices(() -> listener.accept(now)));
    }

    final void lose(String reason) {
        LostException lossNow = TenureException.lost(what + " " + name, reason);
        Runnable first;
        synchronized (this) {
            if (over) {
                return;
            }
            over = true;
            loss = lossNow;
            state = State.LOST;
            first = urgent;
        }
        first.run();
        client.forget(this);
        client.notices(() -> lost.complete(lossNow));
        listeners.forEach(listener -> client.notices(() -> listener.accept(State.LOST)));
    }

    @Override
    public String toString() {
        return getClass().getSimpleName() + "[" + name + " " + handle() + " " + state + "]";
    }
}
