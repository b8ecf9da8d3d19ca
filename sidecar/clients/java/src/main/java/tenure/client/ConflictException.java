package tenure.client;

import com.google.gson.JsonObject;

/** A precondition failed and nothing was applied. */
public class ConflictException extends TenureException {
    private static final long serialVersionUID = 1L;

    ConflictException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }

    /** What was found instead, where that is known. */
    public java.util.OptionalLong revision() {
        var found = data().get("revision");
        return found == null ? java.util.OptionalLong.empty() : java.util.OptionalLong.of(found.getAsLong());
    }
}
