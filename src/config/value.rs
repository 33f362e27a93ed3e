//! How one setting's text is read: pure functions from text to value.
//!
//! An error is the second half of a sentence; the caller puts the setting's name, the text
//! and where it was found in front of it.

use std::net::{Ipv4Addr, SocketAddr};

use super::SERVERS_MAX;
use crate::time::Millis;
use crate::types::ServerId;

/// Reads a duration: a number, then `ms`, `s`, `m`, `h` or `d`, as in `500ms` or `1.5s`.
///
/// # Errors
/// A phrase that says what it is not.
pub fn duration(text: &str) -> Result<Millis, String> {
    const FORM: &str = "is not a duration: write a number and a unit, like 500ms, 10s, 2m or 24h";
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if !number.is_empty() => return Err(format!("has no unit: did you mean {number}s?")),
        _ => return Err(FORM.to_owned()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || fraction.len() > 9 {
        return Err(FORM.to_owned());
    }
    let whole: u64 = whole.parse().map_err(|_| "is too long".to_owned())?;
    // At most nine digits times a day's milliseconds: below 2^57.
    let part: u64 = fraction.parse().map_err(|_| FORM.to_owned())?;
    let part_ms = part * unit_ms / 10u64.pow(fraction.len() as u32);
    whole
        .checked_mul(unit_ms)
        .and_then(|ms| ms.checked_add(part_ms))
        .map(Millis)
        .ok_or_else(|| "is too long".to_owned())
}

/// Writes a duration in the largest unit that divides it: the inverse of [`duration`].
pub(super) fn duration_text(value: Millis) -> String {
    let ms = value.0;
    for (unit_ms, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms != 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// Reads an address to bind: `IP:PORT`, with `localhost` for 127.0.0.1.
///
/// Names are not looked up: a server binds addresses of this machine, and a resolver that is
/// slow or wrong must not decide which.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("has no port: did you mean {text}:8640?"))?;
    let Ok(port) = port.parse::<u16>() else {
        return Err(format!("has no valid port: {port:?} is not in 0–65535"));
    };
    match host {
        "localhost" => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        "" | "*" => Err(format!(
            "has no address: write 0.0.0.0:{port} to listen on every interface"
        )),
        _ => Err(format!(
            "is not IP:PORT: {host:?} is not an address of this machine"
        )),
    }
}

/// Reads `HOST:PORT` as others will use it: a name or an address, and a port that is not 0.
pub(super) fn host_port(text: &str) -> Result<String, String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| "is not HOST:PORT: the port is missing".to_owned())?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(format!("is not HOST:PORT: {port:?} is not in 1–65535"));
    }
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let sound = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if sound {
        Ok(text.to_owned())
    } else {
        Err(format!("is not HOST:PORT: {host:?} is no host name"))
    }
}

/// Reads a server's number, 1 or more.
pub(super) fn server_id(text: &str) -> Result<ServerId, String> {
    match text.parse::<u32>() {
        Ok(id) if id >= 1 => Ok(ServerId(id)),
        _ => Err("is not a server id: write a whole number from 1 to 4294967295".to_owned()),
    }
}

/// Reads `1=HOST:PEERPORT,2=…`: at least one entry, at most [`SERVERS_MAX`], ids and addresses
/// unique.
pub(super) fn ensemble(text: &str) -> Result<Vec<(ServerId, String)>, String> {
    let mut servers: Vec<(ServerId, String)> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let (id, peer) = entry
            .split_once('=')
            .ok_or_else(|| format!("is not ID=HOST:PORT,ID=HOST:PORT,…: see {entry:?}"))?;
        let id = server_id(id).map_err(|why| format!("has an entry {entry:?} whose id {why}"))?;
        let peer = host_port(peer).map_err(|why| format!("has an entry {entry:?} that {why}"))?;
        if servers.iter().any(|(other, _)| *other == id) {
            return Err(format!("names server {id} twice"));
        }
        if let Some((other, _)) = servers.iter().find(|(_, at)| *at == peer) {
            return Err(format!(
                "gives servers {other} and {id} the same address {peer}"
            ));
        }
        servers.push((id, peer));
    }
    if servers.len() > SERVERS_MAX {
        let count = servers.len();
        return Err(format!(
            "names {count} servers: at most {SERVERS_MAX} may be"
        ));
    }
    Ok(servers)
}

/// The candidate that is most like `word`, if any is like enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        let cases = [
            ("0ms", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("0.25s", 250),
            ("2m", 120_000),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_duration_that_is_not_one_is_refused() {
        for text in [
            "",
            "s",
            "10 s",
            "-1s",
            "+1s",
            "1.s",
            ".5s",
            "1.2.3s",
            "1e3s",
            "10sec",
            "∞s",
            "1.0123456789s",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        let err = duration("10").unwrap_err();
        assert!(err.contains("did you mean 10s?"), "{err}");
        for text in ["99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(text).unwrap_err(), "is too long", "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_as_it_may_be_read() {
        for ms in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 86_400_000] {
            let text = duration_text(Millis(ms));
            assert_eq!(duration(&text), Ok(Millis(ms)), "{text}");
        }
        assert_eq!(duration_text(Millis(86_400_000)), "24h");
    }

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        for text in ["127.0.0.1:8640", "0.0.0.0:0", "[::1]:80"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        assert_eq!(address("localhost:1").unwrap().to_string(), "127.0.0.1:1");
        for (text, advice) in [
            ("127.0.0.1", "did you mean 127.0.0.1:8640?"),
            (":8640", "0.0.0.0:8640"),
            ("*:8640", "0.0.0.0:8640"),
            ("1.2.3.4:99999", "0–65535"),
            ("example.com:80", "not an address of this machine"),
        ] {
            let err = address(text).unwrap_err();
            assert!(err.contains(advice), "{text}: {err}");
        }
    }

    #[test]
    fn what_is_advertised_needs_a_host_and_a_port_others_can_use() {
        for text in ["db1.example.com:8640", "10.0.0.1:1", "[2001:db8::1]:65535"] {
            assert_eq!(host_port(text), Ok(text.to_owned()));
        }
        for text in [
            "", "host", ":1", "host:0", "host:", "ho st:1", "[x]:1", "\"h\":1", "::1:5",
        ] {
            assert!(host_port(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_ensemble_names_each_server_once() {
        let servers = ensemble("1=a:1, 2=b:2").unwrap();
        assert_eq!(servers[1], (ServerId(2), "b:2".to_owned()));
        for (text, why) in [
            ("", "is not ID=HOST:PORT"),
            ("a:1", "is not ID=HOST:PORT"),
            ("0=a:1", "whose id is not a server id"),
            ("1=a", "the port is missing"),
            ("1=a:1,1=b:2", "names server 1 twice"),
            ("1=a:1,2=a:1", "gives servers 1 and 2 the same address a:1"),
            ("1=a:1,", "is not ID=HOST:PORT"),
        ] {
            let err = ensemble(text).unwrap_err();
            assert!(err.contains(why), "{text:?}: {err}");
        }
    }

    #[test]
    fn an_ensemble_has_a_limit() {
        let list = |count: usize| -> String {
            let entries = (1..=count).map(|id| format!("{id}=h{id}:1"));
            entries.collect::<Vec<_>>().join(",")
        };
        assert_eq!(ensemble(&list(SERVERS_MAX)).unwrap().len(), SERVERS_MAX);
        let err = ensemble(&list(SERVERS_MAX + 1)).unwrap_err();
        assert_eq!(err, "names 32 servers: at most 31 may be");
    }

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        let words = ["listen", "lease", "data-dir"];
        assert_eq!(nearest("lisen", &words), Some("listen"));
        assert_eq!(nearest("datadir", &words), Some("data-dir"));
        assert_eq!(nearest("frobnicate", &words), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
