package tenure.client;

/**
 * The answer to who leads.
 *
 * @param leader who leads, or null
 * @param ageMs how long ago at most the store said so
 */
public record Leadership(Leader leader, long ageMs) {}
