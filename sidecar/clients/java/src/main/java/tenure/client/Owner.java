package tenure.client;

/**
 * Who holds a lock or waits for it.
 *
 * @param fence the fencing token of the hold, or the one a waiter will have
 * @param label the label given, or null
 * @param session the store session behind it
 * @param host its machine
 * @param pid its process there
 * @param sinceMs since when: Unix time, for people
 */
public record Owner(long fence, String label, String session, String host, int pid, long sinceMs) {}
