package tenure.client;

/**
 * One who waits to lead.
 *
 * @param id the id of its candidature
 * @param value what it would proclaim
 * @param session the store session behind it
 * @param label the label given, or null
 * @param host its machine
 * @param pid its process there
 * @param priority its priority
 * @param sinceMs since when: Unix time, for people
 */
public record Candidate(String id, byte[] value, String session, String label, String host, int pid, int priority, long sinceMs) {
    public Candidate {
        value = value == null ? new byte[0] : value;
    }

    /** The value as text. */
    public String text() {
        return new String(value, java.nio.charset.StandardCharsets.UTF_8);
    }
}
