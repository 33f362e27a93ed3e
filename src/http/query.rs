//! Query parameters: each route takes a fixed few, and a misspelt one is refused by name,
//! for a `timout=` that is silently ignored costs somebody a night.

use crate::time::Millis;
use crate::types::GroupVersion;

use super::headers::digits;
use super::name::{self, NameBuffer};
use super::problem::{Code, Problem, quoted};

/// The parameters a request may carry, decoded; those not given are absent or false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pub(super) timeout: Option<Millis>,
    pub(super) takeover: bool,
    pub(super) after: Option<&'a [u8]>,
    pub(super) limit: Option<u32>,
    pub(super) version: Option<GroupVersion>,
    pub(super) wait: Option<Millis>,
    pub(super) consistent: bool,
    pub(super) group: Option<&'a [u8]>,
    pub(super) port: Option<u16>,
}

/// Reads `query`, as sent, of a route that takes the parameters in `allowed`. Names and
/// values are escaped as in paths, and `+` is a space, which is how forms and most
/// libraries write one. No route takes both of the parameters that are text, `after` and
/// `group`: whichever it takes is kept in `text`.
///
/// # Errors
/// A parameter that is unknown here, given twice or senseless.
#[inline]
pub(super) fn read<'a>(
    query: &[u8],
    allowed: &'static [&'static str],
    text: &'a mut NameBuffer,
) -> Result<Query<'a>, Problem> {
    if query.is_empty() {
        return Ok(Query::default());
    }
    read_pairs(query, allowed, text)
}

fn read_pairs<'a>(
    query: &[u8],
    allowed: &'static [&'static str],
    text: &'a mut NameBuffer,
) -> Result<Query<'a>, Problem> {
    debug_assert!(!(allowed.contains(&"after") && allowed.contains(&"group")));
    let mut read = Query::default();
    let (mut after_len, mut group_len) = (None, None);
    let mut seen = 0u32;
    for pair in query.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
        let (key, raw) = match pair.iter().position(|&b| b == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        let Some(index) = allowed.iter().position(|name| name.as_bytes() == key) else {
            return Err(unknown(key, allowed));
        };
        let known = allowed[index];
        if seen & 1 << index != 0 {
            return Err(bad(known, "is given twice"));
        }
        seen |= 1 << index;
        match known {
            "after" => {
                after_len = Some(long_text(known, raw, text)?);
                continue;
            }
            "group" => {
                group_len = Some(long_text(known, raw, text)?);
                continue;
            }
            _ => {}
        }
        let mut buffer = [0; VALUE_BYTES_MAX];
        let value = decode(raw, &mut buffer).ok_or_else(|| bad(known, "makes no sense"))?;
        read.set(known, value)?;
    }
    let text: &'a [u8] = text;
    // An empty cursor is the beginning.
    read.after = after_len
        .map(|len| &text[..len])
        .filter(|cursor| !cursor.is_empty());
    read.group = group_len.map(|len| &text[..len]);
    Ok(read)
}

impl Query<'_> {
    fn set(&mut self, key: &'static str, value: &[u8]) -> Result<(), Problem> {
        const DURATION: &str = "must be seconds, or have a unit: 20, 0.5, 500ms, 2m, 1h";
        match key {
            "timeout" => {
                self.timeout = Some(duration(value).ok_or_else(|| bad(key, DURATION))?);
            }
            "wait" => self.wait = Some(duration(value).ok_or_else(|| bad(key, DURATION))?),
            "limit" => {
                let limit = digits(value).filter(|&limit| limit > 0);
                let limit = limit.ok_or_else(|| bad(key, "must be a number from 1"))?;
                self.limit = Some(u32::try_from(limit).unwrap_or(u32::MAX));
            }
            "version" => {
                let version = digits(value).ok_or_else(|| bad(key, "must be a version"))?;
                self.version = Some(GroupVersion(version));
            }
            "port" => {
                let port = digits(value).and_then(|port| u16::try_from(port).ok());
                let port = port.filter(|&port| port > 0);
                self.port = Some(port.ok_or_else(|| bad(key, "must be from 1 to 65535"))?);
            }
            "takeover" => self.takeover = flag(key, value)?,
            "consistent" => self.consistent = flag(key, value)?,
            _ => return Err(unknown(key.as_bytes(), &[])),
        }
        Ok(())
    }
}

/// The parameters that a join takes.
pub(super) const OF_JOINS: &[&str] = &["timeout", "takeover"];

/// Bytes of the longest value of a parameter that is no name, as sent.
const VALUE_BYTES_MAX: usize = 64;

/// Resolves the escapes of a short value.
fn decode<'b>(raw: &[u8], buffer: &'b mut [u8; VALUE_BYTES_MAX]) -> Option<&'b [u8]> {
    let room = buffer.get_mut(..raw.len())?;
    room.copy_from_slice(raw);
    plus_to_space(room);
    let len = name::unescape(room).ok()?;
    Some(&room[..len])
}

/// Resolves the escapes of a cursor or a name into `text`. A cursor need not be a name that
/// could exist; it only says where to go on, so any text does. A name is checked by the route.
fn long_text(key: &'static str, raw: &[u8], text: &mut NameBuffer) -> Result<usize, Problem> {
    let too_long = || bad(key, "is longer than a name can be");
    let room = text.get_mut(..raw.len()).ok_or_else(too_long)?;
    room.copy_from_slice(raw);
    plus_to_space(room);
    let len = name::unescape(room)
        .map_err(|_| bad(key, "holds a % that two hex digits do not follow"))?;
    if len > name::NAME_BYTES_MAX {
        return Err(too_long());
    }
    Ok(len)
}

fn plus_to_space(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte == b'+') {
        *byte = b' ';
    }
}

/// `?takeover`, `?takeover=true` and `=1` are yes; `=false` and `=0` are no.
fn flag(key: &'static str, value: &[u8]) -> Result<bool, Problem> {
    match value {
        b"" | b"true" | b"1" => Ok(true),
        b"false" | b"0" => Ok(false),
        _ => Err(bad(key, "must be true or false")),
    }
}

#[cold]
fn bad(key: &'static str, what: &'static str) -> Problem {
    Problem::new(Code::BadParameter).detail(format!("{key} {what}"))
}

#[cold]
fn unknown(key: &[u8], allowed: &'static [&'static str]) -> Problem {
    let taken = match allowed {
        [] => "there are none here".to_owned(),
        _ => format!("known here: {}", allowed.join(", ")),
    };
    Problem::new(Code::UnknownParameter).detail(format!("{} is not known; {taken}", quoted(key)))
}

/// Reads a length of time: a decimal number of seconds, or one with a unit of `ms`, `s`,
/// `m`, `h` or `d`. `None` if it is anything else or not a whole number of milliseconds.
/// What is too long for 64 bits gives the longest there is.
#[must_use]
pub fn duration(text: &[u8]) -> Option<Millis> {
    let number_len = text
        .iter()
        .take_while(|b| b.is_ascii_digit() || **b == b'.')
        .count();
    let (number, unit) = text.split_at(number_len);
    let unit_ms: u128 = match unit {
        b"ms" => 1,
        b"" | b"s" => 1_000,
        b"m" => 60_000,
        b"h" => 3_600_000,
        b"d" => 86_400_000,
        _ => return None,
    };
    let (whole, fraction) = match number.iter().position(|&b| b == b'.') {
        Some(at) => (&number[..at], &number[at + 1..]),
        None => (number, &b"0"[..]),
    };
    if whole.is_empty() || fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    // A fraction that ends in a second point, or is empty, is no number.
    let parts = digits(fraction)?;
    if !whole.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = digits(whole).unwrap_or(u64::MAX);
    let scale = 10u128.pow(fraction.len() as u32);
    let scaled = (u128::from(whole) * scale + u128::from(parts)).saturating_mul(unit_ms);
    if !scaled.is_multiple_of(scale) {
        return None;
    }
    Some(Millis(u64::try_from(scaled / scale).unwrap_or(u64::MAX)))
}

/// Most digits after the point.
const FRACTION_DIGITS_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&str] = &[
        "timeout",
        "takeover",
        "after",
        "limit",
        "version",
        "wait",
        "consistent",
    ];

    fn code(query: &str) -> Code {
        let mut after = name::NAME_BUFFER;
        read(query.as_bytes(), ALL, &mut after)
            .expect_err("a refusal")
            .code
    }

    #[test]
    fn durations_are_seconds_or_have_a_unit() {
        let cases = [
            ("20", 20_000),
            ("0.5", 500),
            ("500ms", 500),
            ("2m", 120_000),
            ("1.5h", 5_400_000),
            ("1d", 86_400_000),
            ("10s", 10_000),
            ("0", 0),
            ("007", 7_000),
            ("0.001", 1),
            ("1.000000000", 1_000),
            ("99999999999999999999999", u64::MAX),
            ("18446744073709551615d", u64::MAX),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text.as_bytes()), Some(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "s",
            ".5",
            "5.",
            "1.2.3",
            "-1",
            "+1",
            "1e3",
            " 1",
            "1 s",
            "1S",
            "1w",
            "0.5ms",
            "0.0001",
            "1.0000000000",
            "ms",
            ".",
            "0x10",
            "1,5",
            "1ms1",
        ] {
            assert_eq!(duration(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn parameters_are_read_with_escapes_resolved() {
        let mut after = name::NAME_BUFFER;
        let text =
            b"timeout=%32%30&takeover&after=a%26b+c&limit=10&version=0&wait=30s&consistent=0";
        let read = read(text, ALL, &mut after).expect("a query");
        assert_eq!(
            read,
            Query {
                timeout: Some(Millis(20_000)),
                takeover: true,
                after: Some(b"a&b c"),
                limit: Some(10),
                version: Some(GroupVersion(0)),
                wait: Some(Millis(30_000)),
                consistent: false,
                group: None,
                port: None,
            }
        );
    }

    #[test]
    fn a_group_and_a_port_are_read_as_names_and_numbers() {
        let mut text = name::NAME_BUFFER;
        let taken = &["group", "port"];
        let query = read(b"group=a%2Fb+c&port=9100", taken, &mut text).expect("a query");
        assert_eq!(query.group, Some(&b"a/b c"[..]));
        assert_eq!(query.port, Some(9100));
        let mut text = name::NAME_BUFFER;
        let query = read(b"group=", taken, &mut text).expect("a query");
        assert_eq!(
            query.group,
            Some(&b""[..]),
            "given, and empty: the route refuses it"
        );
        for bad in [
            "port=0",
            "port=65536",
            "port=x",
            "port=",
            "group=%",
            "group=a&group=b",
        ] {
            let mut text = name::NAME_BUFFER;
            let problem = read(bad.as_bytes(), taken, &mut text).expect_err("a refusal");
            assert_eq!(problem.code, Code::BadParameter, "{bad}");
        }
    }

    #[test]
    fn empty_pairs_and_an_empty_cursor_are_nothing() {
        let mut after = name::NAME_BUFFER;
        let read = read(b"&&after=&", ALL, &mut after).expect("a query");
        assert_eq!(read, Query::default());
    }

    #[test]
    fn a_misspelt_parameter_is_named() {
        let mut after = name::NAME_BUFFER;
        let problem = read(b"timout=20", &["timeout"], &mut after).expect_err("a refusal");
        assert_eq!(problem.code, Code::UnknownParameter);
        assert!(problem.detail.contains("`timout`") && problem.detail.contains("timeout"));
        assert_eq!(code("=1"), Code::UnknownParameter);
        assert_eq!(code("Timeout=1"), Code::UnknownParameter);
    }

    #[test]
    fn senseless_values_are_refused() {
        for query in [
            "timeout=",
            "timeout",
            "timeout=x",
            "limit=0",
            "limit=-1",
            "limit=",
            "version=x",
            "wait=soon",
            "takeover=maybe",
            "after=%",
            "after=%zz",
            "limit=%",
            "limit=1&limit=1",
        ] {
            assert_eq!(code(query), Code::BadParameter, "{query}");
        }
        assert_eq!(
            code(&format!("limit={}", "0".repeat(65))),
            Code::BadParameter
        );
        assert_eq!(
            code(&format!("after={}", "a".repeat(256))),
            Code::BadParameter
        );
        assert_eq!(
            code(&format!("after={}", "a".repeat(800))),
            Code::BadParameter
        );
    }
}
