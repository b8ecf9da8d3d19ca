package tenure.client;

import com.google.gson.FieldNamingPolicy;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.gson.TypeAdapter;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import com.google.gson.stream.JsonWriter;
import java.io.IOException;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;
import java.util.Set;

/** Parameters on their way out, results on their way in, and where the daemon listens. No I/O. */
final class Wire {
    /** Methods that change nothing by themselves once their connection is gone. Any other may have been done. */
    static final Set<String> HARMLESS = Set.of(
        "hello", "ping", "status", "rpc.discover", "cancel", "subscription.cancel",
        "lock.acquire", "lock.check", "lock.get", "lock.list", "lock.observe",
        "election.campaign", "election.leader", "election.candidates", "election.list", "election.observe",
        "member.join", "member.beat", "member.list", "member.groups", "member.watch",
        "kv.get", "kv.keys", "kv.history", "kv.watch");

    /** Names as on the wire; bytes as base64, where {@link #read} has put them. */
    static final Gson GSON = new GsonBuilder()
        .setFieldNamingPolicy(FieldNamingPolicy.LOWER_CASE_WITH_UNDERSCORES)
        .registerTypeAdapter(byte[].class, new Bytes())
        .disableHtmlEscaping()
        .create();

    private Wire() {}

    static Path defaultSocket() {
        return defaultSocket(System.getenv("TENURE_SOCKET"), System.getenv("XDG_RUNTIME_DIR"));
    }

    static Path defaultSocket(String named, String runtime) {
        if (named != null && !named.isEmpty()) {
            return Path.of(named);
        }
        return Path.of(runtime == null || runtime.isEmpty() ? "/run" : runtime, "tenure", "tenured.sock");
    }

    /** A result as {@code type}; members that this library does not know are ignored. */
    static <T> T read(JsonElement result, Type type) {
        return GSON.fromJson(normal(result), type);
    }

    /** Has every value in base64, so that bytes are read one way. */
    private static JsonElement normal(JsonElement found) {
        if (found instanceof JsonArray list) {
            var normal = new JsonArray(list.size());
            list.forEach(one -> normal.add(normal(one)));
            return normal;
        }
        if (!(found instanceof JsonObject object)) {
            return found == null ? JsonNull.INSTANCE : found;
        }
        var normal = new JsonObject();
        object.entrySet().forEach(member -> {
            switch (member.getKey()) {
                case "value" -> {
                    if (member.getValue() instanceof JsonPrimitive text) {
                        normal.add("value", bytes(text.getAsString().getBytes(StandardCharsets.UTF_8)));
                    }
                }
                case "value_b64" -> {
                    if (member.getValue() instanceof JsonPrimitive text) {
                        normal.add("value", text);
                    }
                }
                // The application's own names stay as they are.
                case "metadata" -> normal.add("metadata", member.getValue());
                default -> normal.add(member.getKey(), normal(member.getValue()));
            }
        });
        return normal;
    }

    private static JsonPrimitive bytes(byte[] value) {
        return new JsonPrimitive(Base64.getEncoder().encodeToString(value));
    }

    /** Parameters: what is null is left out. */
    static final class Params {
        final JsonObject json = new JsonObject();

        static Params of(String name, Object value) {
            return new Params().with(name, value);
        }

        Params with(String name, Object value) {
            if (value instanceof Duration time) {
                // Rounded up, so that little is not nothing.
                json.addProperty(name, time.plusNanos(999_999).toMillis());
            } else if (value != null) {
                json.add(name, GSON.toJsonTree(value));
            }
            return this;
        }

        Params withValue(byte[] value) {
            if (value == null) {
                return this;
            }
            try {
                json.addProperty("value", StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(value)).toString());
            } catch (CharacterCodingException notText) {
                json.add("value_b64", bytes(value));
            }
            return this;
        }
    }

    private static final class Bytes extends TypeAdapter<byte[]> {
        @Override
        public void write(JsonWriter out, byte[] value) throws IOException {
            out.value(value == null ? null : Base64.getEncoder().encodeToString(value));
        }

        @Override
        public byte[] read(JsonReader in) throws IOException {
            if (in.peek() == JsonToken.NULL) {
                in.nextNull();
                return null;
            }
            return Base64.getDecoder().decode(in.nextString());
        }
    }
}
