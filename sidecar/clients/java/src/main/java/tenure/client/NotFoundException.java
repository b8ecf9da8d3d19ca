package tenure.client;

import com.google.gson.JsonObject;

/** No such key, bucket, name, request or subscription. */
public class NotFoundException extends TenureException {
    private static final long serialVersionUID = 1L;

    NotFoundException(String message, String kind, boolean retryable, Integer code, JsonObject data) {
        super(message, kind, retryable, code, data);
    }
}
