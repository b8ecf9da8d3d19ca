package tenure.client;

import java.util.List;

/**
 * Something that a subscription tells; the kind says which of the other members there are. A {@code gap} says that events are missing
 * here; nothing is done about it behind the application's back. The last one of every subscription
 * that was not closed by its owner is {@code end}, with a reason: one that the daemon gave, or {@code slow_reader} (too many
 * events waited here), {@code disconnected} or {@code closed}.
 *
 * @param kind lock, leader, join, update, leave, put, delete, purge, expire, sync, gap or end
 * @param holder who holds a lock, or null
 * @param waiters who is next, in the order of grants to come; not all of them where many wait
 * @param waiting how many wait for a lock
 * @param leader who leads, or null
 * @param member who joined or changed
 * @param id who left
 * @param key which key
 * @param value its value
 * @param revision where in the store's order
 * @param resumeRevision where to go on after a gap
 * @param reason why it ends
 */
public record Event(String kind, Owner holder, List<Owner> waiters, Integer waiting, Leader leader, Member member, String id, String key, byte[] value, Long revision, Long resumeRevision, String reason) {
    public Event {
        waiters = waiters == null ? List.of() : List.copyOf(waiters);
    }

    static Event end(String reason) {
        return new Event("end", null, null, null, null, null, null, null, null, null, null, reason);
    }
}
