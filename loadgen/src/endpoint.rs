//! Where the load may go: this machine and nowhere else.

use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, ToSocketAddrs};

/// Reads `127.0.0.1:8640`, `localhost:8640` or either with `http://` before it.
///
/// # Errors
/// If the text is no address, or if it is not a loopback address: a generator that sends a
/// million beats must not be pointed at somebody else's machine by a typing error.
pub(crate) fn parse(text: &str) -> Result<SocketAddr> {
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let bare = bare.trim_end_matches('/');
    let found: Vec<SocketAddr> = bare
        .to_socket_addrs()
        .with_context(|| format!("`{text}` is not HOST:PORT"))?
        .collect();
    if let Some(foreign) = found.iter().find(|a| !a.ip().is_loopback()) {
        bail!(
            "`{text}` leads to {foreign}, which is not this machine: \
             loadgen sends only to loopback addresses (127.0.0.0/8, ::1)"
        );
    }
    // IPv4 first: only there can the sources be spread over many addresses.
    let first = found.iter().find(|a| a.is_ipv4()).or(found.first());
    first
        .copied()
        .with_context(|| format!("`{text}` has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_taken_with_or_without_a_scheme() {
        let want: SocketAddr = "127.0.0.1:8640".parse().unwrap();
        assert_eq!(parse("127.0.0.1:8640").unwrap(), want);
        assert_eq!(parse("http://127.0.0.1:8640/").unwrap(), want);
        assert_eq!(parse("localhost:8640").unwrap(), want);
        assert!(parse("[::1]:8640").unwrap().is_ipv6());
    }

    #[test]
    fn another_machine_is_refused_and_the_message_says_why() {
        for target in ["192.0.2.1:80", "http://10.0.0.1:8640", "0.0.0.0:1"] {
            let said = parse(target).unwrap_err().to_string();
            assert!(said.contains("not this machine"), "{said}");
        }
        assert!(parse("no port").is_err());
    }
}
