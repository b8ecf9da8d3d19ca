package tenure.client;

/**
 * What is done under a lease, see {@link Client#withLock}.
 *
 * @param <L> the lease
 * @param <T> what it comes to
 */
@FunctionalInterface
public interface Work<L extends Lease, T> {
    /** Does it. It is interrupted when the lease is lost. */
    T under(L lease) throws Exception;
}
