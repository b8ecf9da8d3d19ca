package tenure.client;

import com.google.gson.JsonObject;

/** Not acquired in time. */
public class TimeoutException extends TenureException {
    private static final long serialVersionUID = 1L;

    TimeoutException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }

    /** Who had it, or null. */
    public Owner holder() {
        return Wire.read(data().get("holder"), Owner.class);
    }
}
