package tenure.client;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.gson.reflect.TypeToken;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.function.Function;

/** The typed method for a method's parameters on the wire, and what it returned as it was on the wire. */
final class Typed {
    private final Client client;
    private final JsonObject params;

    private Typed(Client client, JsonObject params) {
        this.client = client;
        this.params = params;
    }

    /** What the client returned, as it was on the wire. */
    static JsonElement dump(Object found) {
        if (found instanceof Lease lease) {
            var json = (JsonObject) Wire.GSON.toJsonTree(lease.granted());
            for (String name : List.of("fence", "revision")) {
                if (json.get(name).getAsLong() == 0) {
                    json.remove(name);
                }
            }
            return json;
        }
        return found instanceof JsonElement plain ? plain : wire(Wire.GSON.toJsonTree(found));
    }

    private static JsonElement wire(JsonElement found) {
        if (found instanceof JsonArray list) {
            var wire = new JsonArray();
            list.forEach(one -> wire.add(wire(one)));
            return wire;
        }
        if (!(found instanceof JsonObject object)) {
            return found;
        }
        var wire = new JsonObject();
        object.entrySet().forEach(member -> {
            if (member.getKey().equals("value")) {
                byte[] value = Base64.getDecoder().decode(member.getValue().getAsString());
                try {
                    wire.addProperty("value", StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(value)).toString());
                } catch (CharacterCodingException notText) {
                    wire.add("value_b64", member.getValue());
                }
            } else {
                wire.add(member.getKey(), member.getKey().equals("metadata") ? member.getValue() : wire(member.getValue()));
            }
        });
        return wire;
    }

    private static JsonObject object(String name, Object value) {
        var object = new JsonObject();
        object.add(name, dump(value));
        return object;
    }

    private String text(String name) {
        return params.get(name) instanceof JsonPrimitive text ? text.getAsString() : null;
    }

    private Long number(String name) {
        return params.get(name) instanceof JsonPrimitive number ? (Long) number.getAsLong() : null;
    }

    private Integer small(String name) {
        return number(name) == null ? null : (Integer) number(name).intValue();
    }

    private Duration time(String name) {
        return number(name) == null ? null : Duration.ofMillis(number(name));
    }

    private byte[] value() {
        if (text("value_b64") != null) {
            return Base64.getDecoder().decode(text("value_b64"));
        }
        return text("value") == null ? null : text("value").getBytes(StandardCharsets.UTF_8);
    }

    private Map<String, String> metadata() {
        return Wire.GSON.fromJson(params.get("metadata"), new TypeToken<Map<String, String>>() {}.getType());
    }

    private Membership.Change change() {
        var change = new Membership.Change();
        if (value() != null) {
            change.value(value());
        }
        if (params.has("address")) {
            change.address(text("address"));
        }
        if (params.has("zone")) {
            change.zone(text("zone"));
        }
        if (params.has("weight")) {
            change.weight(small("weight"));
        }
        if (params.has("metadata")) {
            change.metadata(metadata());
        }
        if (params.has("state")) {
            change.state(text("state"));
        }
        return change;
    }

    /** The call of the typed method for these parameters; of the one without types where there is none. */
    static Callable<Object> call(Client client, Function<String, Lease> lease, String method, JsonObject params) {
        return new Typed(client, params).call(lease, method);
    }

    private Callable<Object> call(Function<String, Lease> lease, String method) {
        Lease held = params.has("lease") ? lease.apply(text("lease")) : null;
        Lease fencedBy = params.has("fence_lease") ? lease.apply(text("fence_lease")) : null;
        if ((params.has("lease") && held == null) || (params.has("fence_lease") && fencedBy == null)) {
            return () -> client.call(method, params);
        }
        String name = text("name");
        String key = text("key");
        String group = text("group");
        var put = new PutOptions(time("ttl_ms"), fencedBy, number("fence"), text("lock"), text("election"), text("bucket"));
        var delete = new DeleteOptions(number("revision"), fencedBy, number("fence"), text("lock"), text("election"), text("bucket"));
        return switch (method) {
            case "ping" -> () -> {
                client.ping();
                return new JsonObject();
            };
            case "status" -> client::status;
            case "rpc.discover" -> client::discover;
            case "lock.acquire" -> () -> client.lock(name, new LockOptions(time("wait_ms"), time("lease_ms"), text("label")));
            case "lock.release", "election.resign", "member.leave" -> () -> {
                held.release();
                return new JsonObject();
            };
            case "lock.check" -> held::check;
            case "lock.get" -> () -> client.lockGet(name);
            case "lock.list" -> () -> object("locks", client.lockList(text("prefix")));
            case "lock.break" -> () -> {
                client.lockBreak(name, number("fence"));
                return new JsonObject();
            };
            case "election.campaign" -> () -> client.campaign(name, new CampaignOptions(
                value(), time("wait_ms"), time("lease_ms"), text("label"), small("priority"), time("min_tenure_ms")));
            case "election.proclaim" -> () -> object("revision", ((Office) held).proclaim(value()));
            case "election.transfer" -> () -> object("fence", ((Office) held).transfer(text("candidate")));
            case "election.leader" -> () -> client.leader(name);
            case "election.candidates" -> () -> object("candidates", client.candidates(name));
            case "election.list" -> () -> object("elections", client.electionList(text("prefix")));
            case "member.groups" -> () -> object("groups", client.groups(text("prefix")));
            case "member.join" -> () -> client.join(group, new JoinOptions(
                text("id"), value(), text("address"), text("zone"), small("weight"), metadata(), text("state"),
                Wire.GSON.fromJson(params.get("checks"), new TypeToken<List<MemberCheck>>() {}.getType()),
                time("leave_when_critical_ms"), text("label"), time("lease_ms")));
            case "member.update" -> () -> object("revision", ((Membership) held).update(change()));
            case "member.beat" -> () -> {
                ((Membership) held).beat();
                return new JsonObject();
            };
            case "member.list" -> () -> client.memberList(group, text("after"));
            case "kv.get" -> () -> object("entry", client.get(key, number("revision"), text("bucket")));
            case "kv.put" -> () -> object("revision", client.put(key, value(), put));
            case "kv.create" -> () -> object("revision", client.create(key, value(), put));
            case "kv.update" -> () -> object("revision", client.update(key, value(), number("revision"), put));
            case "kv.delete" -> () -> object("revision", client.delete(key, delete));
            case "kv.purge" -> () -> object("revision", client.purge(key, delete));
            case "kv.keys" -> params.has("after") ? () -> client.keyPage(text("prefix"), text("after"), text("bucket"))
                : () -> object("keys", client.keys(text("prefix"), text("bucket")));
            case "kv.history" -> () -> object("entries", client.history(key, text("bucket")));
            case "hello" -> () -> client.call(method, params);
            default -> throw new AssertionError("there is no typed method for " + method);
        };
    }

    /** The JSON null for nothing. */
    static JsonElement orNull(JsonElement found) {
        return found == null ? JsonNull.INSTANCE : found;
    }
}
