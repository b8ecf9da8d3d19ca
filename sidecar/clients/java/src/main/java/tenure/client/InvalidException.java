package tenure.client;

import com.google.gson.JsonObject;

/** The call is wrong and will be wrong again. */
public class InvalidException extends TenureException {
    private static final long serialVersionUID = 1L;

    InvalidException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }

    /** The parameter to blame, or null. */
    public String param() {
        return text("param");
    }
}
