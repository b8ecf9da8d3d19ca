package tenure.client;

/**
 * Something that a subscription tells; the kind says which of the other members there are. A {@code gap} says that events are missing
 * here; nothing is done about it behind the application's back. The last one of every subscription
 * that was not closed by its owner is {@code end}, with a reason: one that the daemon gave, or {@code slow_reader} (too many
 * events waited here), {@code disconnected} or {@code closed}.
 *
 * @param kind leader, join, update, leave, put, delete, purge, expire, sync, gap or end
 * @param leader who leads, or null
 * @param member who joined or changed
 * @param id who left
 * @param key which key
 * @param value its value
 * @param revision where in the store's order
 * @param resumeRevision where to go on after a gap
 * @param reason why it ends
 */
public record Event(String kind, Leader leader, Member member, String id, String key, byte[] value, Long revision, Long resumeRevision, String reason) {
    static Event end(String reason) {
        return new Event("end", null, null, null, null, null, null, null, reason);
    }
}
