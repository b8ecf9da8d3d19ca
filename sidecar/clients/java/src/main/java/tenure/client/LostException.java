package tenure.client;

import com.google.gson.JsonObject;

/** The lease is lost. Whatever it protected may have a new owner. */
public class LostException extends TenureException {
    private static final long serialVersionUID = 1L;

    LostException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }

    /** Why. */
    public String reason() {
        var reason = text("reason");
        return reason == null ? "" : reason;
    }
}
