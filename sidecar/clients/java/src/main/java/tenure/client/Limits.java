package tenure.client;

/**
 * What one connection and the daemon allow.
 *
 * @param lineBytes bytes of a line
 * @param requests requests in flight
 * @param subscriptions subscriptions
 * @param stallMs how long events may wait for a client that does not read
 * @param leases leases
 * @param connections connections of the daemon
 * @param connectionsPerUid connections of one user
 * @param requestsPerUid requests in flight on all of these
 * @param leasesPerUid leases on all of these
 * @param subscriptionsPerUid subscriptions on all of these
 * @param checksPerUid checks of members that the daemon runs for one user
 * @param minCheckIntervalMs the shortest interval of a check for which the daemon connects somewhere
 * @param leaseLengths different lengths of leases
 * @param defaultLeaseMs of a request that names none
 * @param minLeaseMs the shortest
 * @param maxLeaseMs the longest
 */
public record Limits(long lineBytes, int requests, int subscriptions, long stallMs, int leases, int connections,
    int connectionsPerUid, int requestsPerUid, int leasesPerUid, int subscriptionsPerUid, int checksPerUid, long minCheckIntervalMs, int leaseLengths,
    long defaultLeaseMs, long minLeaseMs, long maxLeaseMs) {}
