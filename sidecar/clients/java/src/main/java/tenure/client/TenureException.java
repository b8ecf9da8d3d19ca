package tenure.client;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;

/**
 * Anything that went wrong with the daemon. Subclasses say what to do about it; {@link #kind} is the wire's own word.
 */
public class TenureException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final String kind;
    private final boolean retryable;
    private final Integer code;
    private final transient JsonObject data;

    TenureException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message);
        this.kind = kind;
        this.retryable = retryable;
        this.code = code;
        this.data = data == null ? new JsonObject() : data;
    }

    /** The kind on the wire, also one that this library does not know. */
    public String kind() {
        return kind;
    }

    /** Whether the same request may be sent again as it is, with nothing read back before. */
    public boolean retryable() {
        return retryable;
    }

    /** The number on the wire, or null where no daemon said it. */
    public Integer code() {
        return code;
    }

    /** What else came with it. */
    public JsonObject data() {
        return data == null ? new JsonObject() : data.deepCopy();
    }

    String text(String name) {
        JsonElement found = data == null ? null : data.get(name);
        return found != null && found.isJsonPrimitive() ? found.getAsString() : null;
    }

    /** The exception for the {@code error} member of an answer, also for one of a later version. */
    static TenureException fromWire(JsonObject error) {
        JsonObject data = error.get("data") instanceof JsonObject object ? object : new JsonObject();
        String kind = data.get("kind") instanceof JsonPrimitive told ? told.getAsString() : "internal";
        boolean retryable = data.get("retryable") instanceof JsonPrimitive told && told.getAsBoolean();
        Integer code = error.get("code") instanceof JsonPrimitive told ? told.getAsInt() : null;
        String message = error.get("message") instanceof JsonPrimitive told ? told.getAsString() : kind;
        return switch (kind) {
            case "parse_error", "invalid_request", "invalid_params" -> new InvalidException(message, kind, retryable, code, data);
            case "method_not_found", "unsupported" -> new UnsupportedException(message, kind, retryable, code, data);
            case "cancelled" -> new CancelledException(message, kind, retryable, code, data);
            case "timeout" -> new TimeoutException(message, kind, retryable, code, data);
            case "conflict" -> new ConflictException(message, kind, retryable, code, data);
            case "not_held" -> new NotHeldException(message, kind, retryable, code, data);
            case "lost" -> new LostException(message, kind, retryable, code, data);
            case "not_found" -> new NotFoundException(message, kind, retryable, code, data);
            case "unavailable" -> new UnavailableException(message, kind, retryable, code, data);
            case "denied" -> new DeniedException(message, kind, retryable, code, data);
            case "limit" -> new LimitException(message, kind, retryable, code, data);
            case "unknown_outcome" -> new UnknownOutcomeException(message, kind, retryable, code, data);
            default -> new TenureException(message, kind, retryable, code, data);
        };
    }

    static LostException lost(String what, String reason) {
        var data = new JsonObject();
        data.addProperty("reason", reason);
        return new LostException("the " + what + " is lost: " + reason, "lost", false, null, data);
    }

    /** A request that the connection did not outlive. */
    static TenureException disconnected(String method) {
        String said = "the connection to the daemon ended before " + method + " was answered";
        return Wire.HARMLESS.contains(method)
            ? new UnavailableException(said, "unavailable", true, null, null)
            : new UnknownOutcomeException(said + ", so it may have been done", "unknown_outcome", false, null, null);
    }

    /** A request that was never sent. */
    static TenureException notSent(String method) {
        String said = "the connection is closed, so " + method + " was not sent; connect again";
        return new UnavailableException(said, "unavailable", true, null, null);
    }
}
