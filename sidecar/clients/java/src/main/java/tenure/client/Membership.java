package tenure.client;

import com.google.gson.JsonNull;
import java.util.Map;

/** A place in a group. */
public final class Membership extends Lease {
    Membership(Client client, String name, Granted granted) {
        super(client, "membership of", "member.leave", name, granted);
    }

    /** The member's id. */
    public String id() {
        return granted().id();
    }

    /** The store's revision of its first record. */
    public long revision() {
        return granted().revision();
    }

    /** What {@link #update} changes; what is not named stays as it is. */
    public static final class Change {
        private final Wire.Params params = new Wire.Params();

        /** What the application says. */
        public Change value(byte[] value) {
            params.json.remove("value");
            params.json.remove("value_b64");
            params.withValue(value);
            return this;
        }

        /** Where it is reached; null for nowhere. */
        public Change address(String address) {
            return nullable("address", address);
        }

        /** Where it stands; null for nowhere in particular. */
        public Change zone(String zone) {
            return nullable("zone", zone);
        }

        /** Its share of the work. */
        public Change weight(int weight) {
            params.with("weight", weight);
            return this;
        }

        /** All of its metadata, in place of what was there. */
        public Change metadata(Map<String, String> metadata) {
            params.with("metadata", metadata);
            return this;
        }

        /** Whether it should be given work: passing, warning, critical, draining or maintenance. */
        public Change state(String state) {
            params.with("state", state);
            return this;
        }

        private Change nullable(String name, String value) {
            params.json.add(name, value == null ? JsonNull.INSTANCE : Wire.GSON.toJsonTree(value));
            return this;
        }
    }

    /** Changes the member's record; returns the revision. */
    public long update(Change change) throws InterruptedException {
        var params = Wire.Params.of("lease", handle());
        change.params.json.entrySet().forEach(member -> params.json.add(member.getKey(), member.getValue()));
        return client.revision("member.update", params);
    }

    /** Says that it is well, for a {@code heartbeat:} check. */
    public void beat() throws InterruptedException {
        client.call("member.beat", handleParams());
    }

    /** As {@link #release}. */
    public void leave() throws InterruptedException {
        release();
    }
}
