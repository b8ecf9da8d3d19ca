package tenure.client;

import java.time.Duration;

/** How to write. What is null has its default. */
public record PutOptions(Duration ttl, Lease fencedBy, Long fence, String lock, String election, String bucket) {
    /** With every default. */
    public static final PutOptions DEFAULTS = new PutOptions(null, null, null, null, null, null);

    /** Forget the value after this time. */
    public PutOptions ttl(Duration ttl) {
        return new PutOptions(ttl, fencedBy, fence, lock, election, bucket);
    }

    /** Write only while that lease of this client holds, which the store itself checks. */
    public PutOptions fencedBy(Lease fencedBy) {
        return new PutOptions(ttl, fencedBy, fence, lock, election, bucket);
    }

    /** With a lock or an election: write only while that hold lasts, whoever has it. */
    public PutOptions fence(Long fence) {
        return new PutOptions(ttl, fencedBy, fence, lock, election, bucket);
    }

    /** The lock that {@link #fence} is of. */
    public PutOptions lock(String lock) {
        return new PutOptions(ttl, fencedBy, fence, lock, election, bucket);
    }

    /** The election that {@link #fence} is of. */
    public PutOptions election(String election) {
        return new PutOptions(ttl, fencedBy, fence, lock, election, bucket);
    }

    /** A bucket other than the coordination bucket. */
    public PutOptions bucket(String bucket) {
        return new PutOptions(ttl, fencedBy, fence, lock, election, bucket);
    }
}
