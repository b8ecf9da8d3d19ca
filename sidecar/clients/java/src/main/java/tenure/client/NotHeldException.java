package tenure.client;

import com.google.gson.JsonObject;

/** No such lease on this connection. */
public class NotHeldException extends TenureException {
    private static final long serialVersionUID = 1L;

    NotHeldException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }
}
