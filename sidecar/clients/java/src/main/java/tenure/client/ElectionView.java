package tenure.client;

/**
 * An election as the store shows it.
 *
 * @param name the election
 * @param leader who leads, without what it proclaims, or null
 * @param candidates how many wait to lead
 */
public record ElectionView(String name, Leader leader, int candidates) {}
