package tenure.client;

/**
 * Where a lease stands, as the daemon sees it.
 *
 * @param held whether it is held
 * @param remainingMs how long it stays valid without another renewal
 * @param fence its token
 */
public record LeaseCheck(boolean held, long remainingMs, long fence) {}
