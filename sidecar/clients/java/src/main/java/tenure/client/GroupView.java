package tenure.client;

/**
 * A group as the store shows it.
 *
 * @param name the group
 * @param members how many it has
 */
public record GroupView(String name, int members) {}
