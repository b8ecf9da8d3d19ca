package tenure.client;

/**
 * One entry of a bucket.
 *
 * @param key the key
 * @param value the value
 * @param revision of this write
 * @param created when, by the store's clock (RFC 3339)
 * @param operation put, delete, purge or expire
 */
public record Entry(String key, byte[] value, long revision, String created, String operation) {
    public Entry {
        value = value == null ? new byte[0] : value;
    }

    /** The value as text. */
    public String text() {
        return new String(value, java.nio.charset.StandardCharsets.UTF_8);
    }
}
