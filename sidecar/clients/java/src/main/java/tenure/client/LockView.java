package tenure.client;

import java.util.List;

/**
 * A lock as the store shows it.
 *
 * @param name the lock
 * @param holder who holds it, or null
 * @param waiters who waits, in the order of grants to come
 * @param moreWaiters how many more wait, where all of them would be longer than a line
 */
public record LockView(String name, Owner holder, List<Owner> waiters, int moreWaiters) {
    public LockView {
        waiters = waiters == null ? List.of() : List.copyOf(waiters);
    }
}
