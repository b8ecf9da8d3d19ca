package tenure.client;

import java.util.List;

/**
 * What the daemon said when the connection began.
 *
 * @param protocol the version that is spoken
 * @param server name and version of the daemon
 * @param session this connection's
 * @param store where it keeps everything
 * @param capabilities the methods that it serves
 * @param limits what it allows
 */
public record Hello(int protocol, String server, String session, Store store, List<String> capabilities, Limits limits) {
    public Hello {
        capabilities = capabilities == null ? List.of() : List.copyOf(capabilities);
        limits = limits == null ? new Limits(2 << 20, 64, 256, 10_000, 1_024, 10_000, 10_000, 16_384, 16_384, 4_096, 1_024, 0, 64, 0, 0, 0) : limits;
    }
}
