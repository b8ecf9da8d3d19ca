package tenure.client;

/** How to delete. What is null has its default. */
public record DeleteOptions(Long revision, Lease fencedBy, String bucket) {
    /** With every default. */
    public static final DeleteOptions DEFAULTS = new DeleteOptions(null, null, null);

    /** Only if the value is still that one. */
    public DeleteOptions revision(Long revision) {
        return new DeleteOptions(revision, fencedBy, bucket);
    }

    /** Delete only while that lease of this client holds. */
    public DeleteOptions fencedBy(Lease fencedBy) {
        return new DeleteOptions(revision, fencedBy, bucket);
    }

    /** A bucket other than the coordination bucket. */
    public DeleteOptions bucket(String bucket) {
        return new DeleteOptions(revision, fencedBy, bucket);
    }
}
