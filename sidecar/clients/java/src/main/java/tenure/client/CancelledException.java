package tenure.client;

import com.google.gson.JsonObject;

/** The request was cancelled by a {@code cancel} that the application sent itself, and holds nothing. */
public class CancelledException extends TenureException {
    private static final long serialVersionUID = 1L;

    CancelledException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }
}
