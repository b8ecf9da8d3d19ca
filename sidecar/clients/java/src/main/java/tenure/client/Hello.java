package tenure.client;

import java.util.List;

/**
 * What the daemon said when the connection began.
 *
 * @param protocol the version that is spoken
 * @param server name and version of the daemon
 * @param session this connection's
 * @param capabilities the methods that it serves
 * @param limits what it allows
 */
public record Hello(int protocol, String server, String session, List<String> capabilities, Limits limits) {
    public Hello {
        capabilities = capabilities == null ? List.of() : List.copyOf(capabilities);
        limits = limits == null ? new Limits(0, 0, 0, 0, 0, 0, 0, 0, 0, 0) : limits;
    }
}
