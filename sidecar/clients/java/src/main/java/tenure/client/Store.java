package tenure.client;

/**
 * Where a daemon keeps everything.
 *
 * @param url what it is, without secrets
 * @param shared whether other machines see the same
 * @param replicas how many copies there are
 */
public record Store(String url, boolean shared, int replicas) {}
