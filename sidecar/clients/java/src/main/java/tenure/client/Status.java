package tenure.client;

import java.util.List;

/**
 * How the daemon fares: what it has of everything, and of the connection that asks.
 *
 * @param server its name and version
 * @param pid its process
 * @param uptimeMs how long it has been up
 * @param draining whether it is leaving
 * @param store where it keeps everything
 * @param sessions its sessions with the store
 * @param connections connections
 * @param connectionsMax how many there may be
 * @param leases leases of all connections
 * @param leaderships leaderships among these
 * @param members memberships among these
 * @param subscriptions subscriptions of all connections
 * @param requests requests in flight on all connections
 * @param policy the rules that say who may do what, or null
 * @param connection the connection that asks
 */
public record Status(String server, int pid, long uptimeMs, boolean draining, Store store, List<Session> sessions, int connections,
    int connectionsMax, int leases, int leaderships, int members, int subscriptions, int requests, Policy policy, Asking connection) {
    public Status {
        sessions = sessions == null ? List.of() : List.copyOf(sessions);
    }

    /**
     * A session of the daemon with its store.
     *
     * @param id its id
     * @param leaseMs how long a crash of the daemon would keep what rests on it
     * @param state held, suspect, restored or lost
     * @param remainingMs how long it stays valid without another renewal
     * @param users the leases and waits that rest on it
     */
    public record Session(String id, long leaseMs, String state, long remainingMs, int users) {}

    /**
     * The rules that say who may do what.
     *
     * @param path their file
     * @param rules how many are in force
     * @param problem why what the file says now is not in force, or null
     */
    public record Policy(String path, int rules, String problem) {}

    /**
     * What the daemon knows of the connection that asks.
     *
     * @param session its session
     * @param pid its process, or null where that is not known
     * @param uid its user
     * @param leases its leases
     * @param subscriptions its subscriptions
     * @param requests its requests in flight
     * @param heartbeatMs the heartbeat that it asked for, or null
     */
    public record Asking(String session, Integer pid, long uid, int leases, int subscriptions, int requests, Long heartbeatMs) {}
}
