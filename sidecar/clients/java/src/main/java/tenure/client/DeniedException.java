package tenure.client;

import com.google.gson.JsonObject;

/** This user may not. */
public class DeniedException extends TenureException {
    private static final long serialVersionUID = 1L;

    DeniedException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }

    /** What the daemon's policy would have to allow, or null. */
    public String needs() {
        return text("needs");
    }
}
