package tenure.client;

/**
 * How the daemon finds out whether a member is well. What is null has its default.
 *
 * @param check {@code tcp:HOST:PORT}, {@code http://…} or {@code heartbeat:SECONDS}
 * @param intervalMs from one look to the next
 * @param timeoutMs how long one look may take
 * @param rise well again after so many good results
 * @param fall not well after so many bad results
 * @param initially what holds before the first result
 */
public record MemberCheck(String check, Long intervalMs, Long timeoutMs, Integer rise, Integer fall, String initially) {
    /** A check with the defaults. */
    public static MemberCheck of(String check) {
        return new MemberCheck(check, null, null, null, null, null);
    }
}
