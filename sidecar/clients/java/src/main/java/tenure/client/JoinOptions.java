package tenure.client;

import java.time.Duration;
import java.util.List;
import java.util.Map;

/** How to join a group. What is null has its default. */
public record JoinOptions(String id, byte[] value, String address, String zone, Integer weight, Map<String, String> metadata, String state, List<MemberCheck> checks, Duration leaveWhenCritical, String label, Duration lease) {
    /** With every default. */
    public static final JoinOptions DEFAULTS = new JoinOptions(null, null, null, null, null, null, null, null, null, null, null);

    /** The member's id; the daemon makes one unless told. */
    public JoinOptions id(String id) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Whatever the application says. */
    public JoinOptions value(byte[] value) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Where it is reached. */
    public JoinOptions address(String address) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Where it stands. */
    public JoinOptions zone(String zone) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Its share of the work. */
    public JoinOptions weight(Integer weight) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Whatever else callers should know. */
    public JoinOptions metadata(Map<String, String> metadata) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Whether it should be given work: passing unless told. */
    public JoinOptions state(String state) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** How the daemon finds out whether it is well. */
    public JoinOptions checks(List<MemberCheck> checks) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Leave when it has been critical for so long. */
    public JoinOptions leaveWhenCritical(Duration leaveWhenCritical) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** Shown to whoever looks. */
    public JoinOptions label(String label) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }

    /** How long a crash of the daemon keeps it. */
    public JoinOptions lease(Duration lease) {
        return new JoinOptions(id, value, address, zone, weight, metadata, state, checks, leaveWhenCritical, label, lease);
    }
}
