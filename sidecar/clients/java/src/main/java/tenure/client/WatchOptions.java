package tenure.client;

/** What to follow: one key, or all with a prefix; all keys unless told. */
public record WatchOptions(String key, String prefix, Long fromRevision, Boolean updatesOnly, String bucket) {
    /** With every default. */
    public static final WatchOptions DEFAULTS = new WatchOptions(null, null, null, null, null);

    /** The key. */
    public WatchOptions key(String key) {
        return new WatchOptions(key, prefix, fromRevision, updatesOnly, bucket);
    }

    /** The prefix. */
    public WatchOptions prefix(String prefix) {
        return new WatchOptions(key, prefix, fromRevision, updatesOnly, bucket);
    }

    /** First the writes of this revision and later that the store still has; see {@link Subscription#resumeRevision}. */
    public WatchOptions fromRevision(Long fromRevision) {
        return new WatchOptions(key, prefix, fromRevision, updatesOnly, bucket);
    }

    /** Do not tell what is there at the beginning. */
    public WatchOptions updatesOnly(Boolean updatesOnly) {
        return new WatchOptions(key, prefix, fromRevision, updatesOnly, bucket);
    }

    /** A bucket other than the coordination bucket. */
    public WatchOptions bucket(String bucket) {
        return new WatchOptions(key, prefix, fromRevision, updatesOnly, bucket);
    }
}
