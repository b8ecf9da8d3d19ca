package tenure.client;

import java.time.Duration;

/** How to acquire a lock. What is null has its default. */
public record LockOptions(Duration waitFor, Duration lease, String label) {
    /** With every default. */
    public static final LockOptions DEFAULTS = new LockOptions(null, null, null);

    /** How long to wait: for ever unless told, zero to try once. */
    public LockOptions waitFor(Duration waitFor) {
        return new LockOptions(waitFor, lease, label);
    }

    /** How long a crash of the daemon keeps it; the daemon's default unless told. */
    public LockOptions lease(Duration lease) {
        return new LockOptions(waitFor, lease, label);
    }

    /** Shown to whoever looks. */
    public LockOptions label(String label) {
        return new LockOptions(waitFor, lease, label);
    }
}
