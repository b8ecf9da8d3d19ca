package tenure.client;

import com.google.gson.JsonObject;

/** The store is out of reach, or there is no connection; nothing was applied. */
public class UnavailableException extends TenureException {
    private static final long serialVersionUID = 1L;

    UnavailableException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }
}
