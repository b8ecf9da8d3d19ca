package tenure.client;

import com.google.gson.JsonObject;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.NoSuchElementException;

/** The events of one subscription. A loop over it ends after an {@code end} event, and with the thread's interrupt. */
public final class Subscription implements AutoCloseable, Iterable<Event> {
    private final Client client;
    private final String handle;
    private final int room;
    private final ArrayDeque<Event> events = new ArrayDeque<>();
    private Long resumeRevision;
    private boolean over;

    Subscription(Client client, String handle, int room, Long resumeRevision) {
        this.client = client;
        this.resumeRevision = resumeRevision;
        this.handle = handle;
        this.room = room;
    }

    /** The handle on this connection. */
    public String handle() {
        return handle;
    }

    /**
     * Of a watch of keys: where to go on after what was taken from here, as {@link WatchOptions#fromRevision} of the next one. Null while
     * nothing was told.
     */
    public synchronized Long resumeRevision() {
        return resumeRevision;
    }

    /** The next event; null when there will be none. */
    public synchronized Event next() throws InterruptedException {
        while (events.isEmpty() && !over) {
            wait();
        }
        return take();
    }

    private Event take() {
        Event event = events.poll();
        if (event != null) {
            switch (event.kind()) {
                case "put", "delete", "purge", "expire" -> resumeRevision = event.revision() + 1;
                case "gap" -> resumeRevision = event.resumeRevision() == null ? resumeRevision : event.resumeRevision();
                default -> {
                    // Of something else.
                }
            }
        }
        return event;
    }

    /** The next event; null when there will be none, or none came in that time. */
    public synchronized Event poll(Duration patience) throws InterruptedException {
        long deadline = System.nanoTime() + patience.toNanos();
        for (long left = patience.toNanos(); events.isEmpty() && !over && left > 0; left = deadline - System.nanoTime()) {
            wait(left / 1_000_000, (int) (left % 1_000_000));
        }
        return take();
    }

    @Override
    public Iterator<Event> iterator() {
        return new Iterator<>() {
            private Event next;

            @Override
            public boolean hasNext() {
                if (next == null) {
                    try {
                        next = Subscription.this.next();
                    } catch (InterruptedException interrupt) {
                        Thread.currentThread().interrupt();
                    }
                }
                return next != null;
            }

            @Override
            public Event next() {
                if (!hasNext()) {
                    throw new NoSuchElementException();
                }
                Event event = next;
                next = null;
                return event;
            }
        };
    }

    /** Ends it; no event comes after that. */
    @Override
    public void close() {
        synchronized (this) {
            events.clear();
            if (over) {
                return;
            }
            over = true;
            notifyAll();
        }
        client.forget(this);
        client.post("subscription.cancel", params());
    }

    private JsonObject params() {
        return Wire.Params.of("subscription", handle).json;
    }

    void tell(Event event) {
        boolean slow;
        boolean ended;
        synchronized (this) {
            if (over) {
                return;
            }
            slow = events.size() >= room;
            Event told = slow ? Event.end("slow_reader") : event;
            events.add(told);
            ended = "end".equals(told.kind());
            over = ended;
            notifyAll();
        }
        if (ended) {
            client.forget(this);
        }
        if (slow) {
            client.post("subscription.cancel", params());
        }
    }
}
