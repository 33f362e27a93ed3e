//! Names of groups and members, and the requests about them.
//!
//! Nothing is stored per session: a name is computed from the session's number, which is
//! cheaper than fetching 80 prepared bytes from memory for each of a million sessions.

use std::ops::Range;

/// How the sessions of one run are called.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    groups: u32,
    name_bytes: usize,
    seed: u32,
    /// Number, over all threads, of this thread's session 0.
    base: u32,
    minimal: bool,
}

impl Names {
    /// Names of `name_bytes` bytes (clamped to 10–255) in `groups` groups that begin with
    /// `prefix`; `base` is added to every session number.
    pub(crate) fn new(prefix: &str, groups: u32, name_bytes: usize, seed: u64, base: u32) -> Names {
        Names {
            prefix: prefix.to_owned(),
            groups: groups.max(1),
            name_bytes: name_bytes.clamp(NAME_BYTES_MIN, 255),
            seed: seed as u32 ^ (seed >> 32) as u32,
            base,
            minimal: true,
        }
    }

    /// Whether joins ask for an answer without a document.
    pub(crate) fn minimal(mut self, minimal: bool) -> Names {
        self.minimal = minimal;
        self
    }

    /// The group `session` belongs to, as an index.
    pub(crate) fn group_of(&self, session: u32) -> u32 {
        (self.base + session) % self.groups
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> u32 {
        self.groups
    }

    /// What every group's name begins with, the hyphen included.
    pub(crate) fn group_stem(&self) -> String {
        format!("{}-", self.prefix)
    }

    /// Appends the group's name.
    pub(crate) fn push_group(&self, out: &mut Vec<u8>, session: u32) {
        out.extend_from_slice(self.prefix.as_bytes());
        let mut digits = *b"-00000";
        let mut rest = self.group_of(session);
        for d in digits[1..].iter_mut().rev() {
            *d = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
    }

    /// Appends the member's name: eight digits that are unique, filler that looks like what
    /// hosts are called after, and a closing `z` (see [`Names::push_stem`]).
    pub(crate) fn push_member(&self, out: &mut Vec<u8>, session: u32) {
        self.push_stem(out, session);
        out.push(b'z');
    }

    /// Appends the member's name without its last byte. No other member's name lies between
    /// this stem and the name, so `?after=STEM&limit=1` shows the member, if it is listed.
    pub(crate) fn push_stem(&self, out: &mut Vec<u8>, session: u32) {
        let unique = mix32((self.base + session) ^ self.seed);
        let mut fill = (u64::from(unique) << 32) | u64::from(unique ^ 0x5bd1_e995);
        push_hex(out, unique);
        let mut left = self.name_bytes - NAME_BYTES_MIN + 1;
        while left > 0 {
            fill = fill.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            let take = left.min(8);
            let from = out.len();
            push_hex(out, fill as u32);
            out.truncate(from + take);
            left -= take;
        }
    }

    /// `group/member`, for people.
    pub(crate) fn label(&self, session: u32) -> String {
        let mut out = Vec::new();
        self.push_group(&mut out, session);
        out.push(b'/');
        self.push_member(&mut out, session);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Appends `/group/member`.
    fn push_path(&self, out: &mut Vec<u8>, session: u32) {
        out.push(b'/');
        self.push_group(out, session);
        out.push(b'/');
        self.push_member(out, session);
    }

    /// A heartbeat without an answer to read: `HEAD /G/M`, with the session's id if given.
    pub(crate) fn head(&self, out: &mut Vec<u8>, session: u32, id: Option<u128>) {
        out.extend_from_slice(b"HEAD ");
        self.push_path(out, session);
        out.extend_from_slice(TAIL);
        finish(out, id);
    }

    /// A heartbeat that asks for the document: `GET /G/M`.
    pub(crate) fn get(&self, out: &mut Vec<u8>, session: u32, id: Option<u128>) {
        out.extend_from_slice(b"GET ");
        self.push_path(out, session);
        out.extend_from_slice(TAIL);
        finish(out, id);
    }

    /// A join with its timeout.
    pub(crate) fn join(&self, out: &mut Vec<u8>, session: u32, timeout_ms: u64) {
        out.extend_from_slice(b"PUT ");
        self.push_path(out, session);
        out.extend_from_slice(format!("?timeout={timeout_ms}ms").as_bytes());
        out.extend_from_slice(TAIL);
        out.extend_from_slice(b"Content-Length: 0\r\n");
        if self.minimal {
            out.extend_from_slice(b"Prefer: return=minimal\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// A member's farewell.
    pub(crate) fn leave(&self, out: &mut Vec<u8>, session: u32) {
        out.extend_from_slice(b"DELETE ");
        self.push_path(out, session);
        out.extend_from_slice(TAIL);
        out.extend_from_slice(b"\r\n");
    }

    /// Asks whether one member is listed, without renewing it and whatever the group's size.
    pub(crate) fn probe(&self, out: &mut Vec<u8>, session: u32) {
        out.extend_from_slice(b"GET /");
        self.push_group(out, session);
        out.extend_from_slice(b"?after=");
        self.push_stem(out, session);
        out.extend_from_slice(b"&limit=1");
        out.extend_from_slice(TAIL);
        out.extend_from_slice(b"\r\n");
    }

    /// Asks for the counts of all this run's groups.
    pub(crate) fn list(&self, out: &mut Vec<u8>) {
        let line = format!("GET /?after={}&limit={}", self.group_stem(), self.groups);
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(TAIL);
        out.extend_from_slice(b"\r\n");
    }
}

/// Begins a batch of heartbeats in `out`; the body follows. The returned range is where the
/// body's length belongs: give it to [`batch_end`].
pub(crate) fn batch_begin(out: &mut Vec<u8>, packed: bool) -> Range<usize> {
    out.extend_from_slice(b"POST /-/heartbeats");
    out.extend_from_slice(TAIL);
    out.extend_from_slice(if packed {
        b"Content-Type: application/octet-stream\r\nContent-Length: "
    } else {
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: "
    });
    let at = out.len();
    out.extend_from_slice(b"0000000\r\n\r\n");
    at..at + LENGTH_DIGITS
}

/// Writes the length of what was appended since [`batch_begin`].
pub(crate) fn batch_end(out: &mut [u8], length_at: Range<usize>) {
    let mut length = out.len() - (length_at.end + 4);
    for digit in out[length_at].iter_mut().rev() {
        *digit = b'0' + (length % 10) as u8;
        length /= 10;
    }
}

fn finish(out: &mut Vec<u8>, id: Option<u128>) {
    if let Some(id) = id {
        out.extend_from_slice(format!("x-session-id: {id:032x}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Eight hexadecimal digits, without branches: they are written for every beat.
fn push_hex(out: &mut Vec<u8>, value: u32) {
    // Spread the eight nibbles over eight bytes, the first digit lowest.
    let v = u64::from(value.swap_bytes());
    let v = (v | (v << 16)) & 0x0000_ffff_0000_ffff;
    let v = (v | (v << 8)) & 0x00ff_00ff_00ff_00ff;
    let v = ((v >> 4) | (v << 8)) & 0x0f0f_0f0f_0f0f_0f0f;
    // 10..15 need 39 more than 0..9 to become `a`..`f`.
    let letters = ((v + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let text = v + 0x3030_3030_3030_3030 + letters * 39;
    out.extend_from_slice(&text.to_le_bytes());
}

/// A bijection on 32 bits, so that names are unique and look drawn by lot.
pub(crate) fn mix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Shortest name: eight digits, one byte of filler, the closing `z`.
const NAME_BYTES_MIN: usize = 10;
/// Width of a batch's content length; a batch is at most 1 MiB.
const LENGTH_DIGITS: usize = 7;
/// What ends every request line, and the one header each request needs.
const TAIL: &[u8] = b" HTTP/1.1\r\nHost: systole\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn text(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hex_digits_are_those_of_the_number() {
        for value in [0, 1, 0x9abc_def0, 0x0123_4567, u32::MAX] {
            assert_eq!(text(|o| push_hex(o, value)), format!("{value:08x}"));
        }
    }

    #[test]
    fn names_are_unique_and_as_long_as_asked() {
        for bytes in [10, 11, 24, 64, 255] {
            let names = Names::new("load", 7, bytes, 3, 100);
            let all: HashSet<String> = (0..2_000)
                .map(|s| text(|o| names.push_member(o, s)))
                .collect();
            assert_eq!(all.len(), 2_000);
            assert!(all.iter().all(|n| n.len() == bytes), "{bytes}");
        }
    }

    #[test]
    fn no_name_lies_between_a_stem_and_its_member() {
        let names = Names::new("load", 1, 24, 9, 0);
        let mut sorted: Vec<String> = (0..5_000)
            .map(|s| text(|o| names.push_member(o, s)))
            .collect();
        sorted.sort();
        for s in 0..5_000 {
            let stem = text(|o| names.push_stem(o, s));
            let after = sorted.partition_point(|n| *n <= stem);
            assert_eq!(sorted[after], text(|o| names.push_member(o, s)));
        }
    }

    #[test]
    fn requests_are_what_the_contract_asks_for() {
        let names = Names::new("load", 3, 12, 1, 0);
        let member = names.label(4);
        assert!(member.starts_with("load-00001/") && member.len() == "load-00001/".len() + 12);
        assert_eq!(
            text(|o| names.head(o, 4, None)),
            format!("HEAD /{member} HTTP/1.1\r\nHost: systole\r\n\r\n")
        );
        assert_eq!(
            text(|o| names.join(o, 4, 1_500)),
            format!(
                "PUT /{member}?timeout=1500ms HTTP/1.1\r\nHost: systole\r\n\
                 Content-Length: 0\r\nPrefer: return=minimal\r\n\r\n"
            )
        );
        assert!(
            text(|o| names.get(o, 4, Some(255))).contains(&format!("x-session-id: {:032x}", 255))
        );
        assert!(text(|o| names.list(o)).starts_with("GET /?after=load-&limit=3 HTTP/1.1\r\n"));
    }

    #[test]
    fn a_batch_carries_the_length_of_its_body() {
        let got = text(|o| {
            let at = batch_begin(o, false);
            o.extend_from_slice(b"g/m\ng/n\n");
            batch_end(o, at);
        });
        assert!(
            got.ends_with("Content-Length: 0000008\r\n\r\ng/m\ng/n\n"),
            "{got}"
        );
    }
}
