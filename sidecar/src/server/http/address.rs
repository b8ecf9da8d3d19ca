//! Where HTTP is served.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A port alone, with or without a colon before it, is one of this machine's loopback: anything else must be meant.
pub(in crate::server) fn address(text: &str) -> Result<SocketAddr, String> {
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let port = text.strip_prefix("localhost:").or(text.strip_prefix(':')).unwrap_or(text);
    if !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(port) = port.parse()
    {
        return Ok(loopback(port));
    }
    text.parse().map_err(|_| {
        "use a port, such as 9464, or an address of this machine and a port, such as 0.0.0.0:9464 or [::1]:9464".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_out_leaves_this_machine() {
        for text in ["9464", ":9464", "localhost:9464", "127.0.0.1:9464"] {
            assert_eq!(address(text).unwrap().to_string(), "127.0.0.1:9464", "{text}");
        }
        for text in ["0.0.0.0:9464", "[::1]:9464", "[::]:1"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        for wrong in ["", ":", "+9464", "70000", "host:80", "1.2.3.4", "::1", "http://127.0.0.1:80", "localhost:"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
