package tenure.client;

import com.google.gson.JsonObject;

/** It may have been applied: read back before assuming either. */
public class UnknownOutcomeException extends TenureException {
    private static final long serialVersionUID = 1L;

    UnknownOutcomeException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }
}
