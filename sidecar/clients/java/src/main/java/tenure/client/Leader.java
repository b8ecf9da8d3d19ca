package tenure.client;

/**
 * Who leads an election.
 *
 * @param value what it proclaims
 * @param fence the term
 * @param revision of its last proclamation
 * @param candidate the id of its candidature
 * @param session the store session behind it
 * @param label the label given, or null
 * @param host its machine
 * @param pid its process there
 * @param priority its priority
 * @param sinceMs since when: Unix time, for people
 */
public record Leader(byte[] value, long fence, long revision, String candidate, String session, String label, String host, int pid, int priority, long sinceMs) {
    public Leader {
        value = value == null ? new byte[0] : value;
    }

    /** The value as text. */
    public String text() {
        return new String(value, java.nio.charset.StandardCharsets.UTF_8);
    }
}
