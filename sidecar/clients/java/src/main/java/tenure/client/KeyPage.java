package tenure.client;

import java.util.List;

/**
 * One line's worth of keys, sorted.
 *
 * @param keys the keys
 * @param next where to go on after, or null where there are no more
 */
public record KeyPage(List<String> keys, String next) {
    public KeyPage {
        keys = keys == null ? List.of() : List.copyOf(keys);
    }
}
