package tenure.client;

/** How to delete. What is null has its default. */
public record DeleteOptions(Long revision, Lease fencedBy, Long fence, String lock, String election, String bucket) {
    /** With every default. */
    public static final DeleteOptions DEFAULTS = new DeleteOptions(null, null, null, null, null, null);

    /** Only if the value is still that one. */
    public DeleteOptions revision(Long revision) {
        return new DeleteOptions(revision, fencedBy, fence, lock, election, bucket);
    }

    /** Delete only while that lease of this client holds. */
    public DeleteOptions fencedBy(Lease fencedBy) {
        return new DeleteOptions(revision, fencedBy, fence, lock, election, bucket);
    }

    /** With a lock or an election: delete only while that hold lasts, whoever has it. */
    public DeleteOptions fence(Long fence) {
        return new DeleteOptions(revision, fencedBy, fence, lock, election, bucket);
    }

    /** The lock that {@link #fence} is of. */
    public DeleteOptions lock(String lock) {
        return new DeleteOptions(revision, fencedBy, fence, lock, election, bucket);
    }

    /** The election that {@link #fence} is of. */
    public DeleteOptions election(String election) {
        return new DeleteOptions(revision, fencedBy, fence, lock, election, bucket);
    }

    /** A bucket other than the coordination bucket. */
    public DeleteOptions bucket(String bucket) {
        return new DeleteOptions(revision, fencedBy, fence, lock, election, bucket);
    }
}
