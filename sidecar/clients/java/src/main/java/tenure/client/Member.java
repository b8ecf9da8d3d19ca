package tenure.client;

import java.util.Map;

/**
 * A member of a group, as others see it.
 *
 * @param id its id
 * @param revision of its record
 * @param value whatever the application says
 * @param address where it is reached, or null
 * @param zone where it stands, or null
 * @param weight its share of the work
 * @param metadata whatever else callers should know
 * @param state passing, warning, critical, draining or maintenance
 * @param session the store session behind it
 * @param host its machine
 * @param pid its process there
 * @param label the label given, or null
 */
public record Member(String id, long revision, byte[] value, String address, String zone, int weight, Map<String, String> metadata, String state, String session, String host, int pid, String label) {
    public Member {
        value = value == null ? new byte[0] : value;
        metadata = metadata == null ? Map.of() : Map.copyOf(metadata);
    }

    /** The value as text. */
    public String text() {
        return new String(value, java.nio.charset.StandardCharsets.UTF_8);
    }
}
