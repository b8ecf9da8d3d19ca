package tenure.client;

import com.google.gson.JsonObject;

/** No daemon answers; the message says where it was looked for and what to do. */
public class ConnectException extends UnavailableException {
    private static final long serialVersionUID = 1L;

    ConnectException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }
}
