package tenure.client;

/** A lock that is held. */
public final class Lock extends Lease {
    Lock(Client client, String name, Granted granted) {
        super(client, "lock", "lock.release", name, granted);
    }

    /** The fencing token: it grows with every later holder. */
    public long fence() {
        return granted().fence();
    }
}
