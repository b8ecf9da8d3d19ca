package tenure.client;

import java.util.List;

/**
 * One line's worth of members, by id.
 *
 * @param members the members
 * @param revision of the group
 * @param unreadable how many records something else wrote
 * @param next where to go on after, or null where there are no more
 */
public record MemberPage(List<Member> members, long revision, long unreadable, String next) {
    public MemberPage {
        members = members == null ? List.of() : List.copyOf(members);
    }
}
