package tenure.client;

import com.google.gson.JsonObject;

/** This daemon does not offer that. */
public class UnsupportedException extends TenureException {
    private static final long serialVersionUID = 1L;

    UnsupportedException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }
}
