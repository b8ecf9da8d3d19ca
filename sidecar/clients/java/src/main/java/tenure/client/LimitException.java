package tenure.client;

import com.google.gson.JsonObject;

/** A limit of this connection or of the daemon. */
public class LimitException extends TenureException {
    private static final long serialVersionUID = 1L;

    LimitException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }

    /** Which, or null. */
    public String limit() {
        return text("limit");
    }
}
