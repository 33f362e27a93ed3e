//! Reads the heads of answers: the status, the three `x-` headers, the length of the body.
//!
//! Written apart from the server's codec on purpose, so that a fault of one cannot hide in
//! the other. Incremental: called again with more bytes, it gives the same verdict.

use std::fmt;
use std::ops::Range;

/// The head of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The status code.
    pub(crate) status: u16,
    /// `x-group-version`.
    pub(crate) group_version: Option<u64>,
    /// `x-session-id`.
    pub(crate) session: Option<u128>,
    /// `x-session-timeout-ms`.
    pub(crate) timeout_ms: Option<u64>,
    /// Length of the head, the blank line included.
    pub(crate) head_len: usize,
    /// Length of the body that follows.
    pub(crate) body_len: usize,
    /// The server closes the connection after this answer.
    pub(crate) close: bool,
}

impl Reply {
    /// Head and body together.
    pub(crate) fn total_len(&self) -> usize {
        self.head_len + self.body_len
    }
}

/// The head of a bodiless answer that was read in full, to read the next of the same kind by: a
/// server's answers to heartbeats differ in a session's id and a group's version at most.
///
/// This only ever says what [`parse`] would say, sooner; of all else it says nothing.
#[derive(Debug, Default)]
pub(crate) struct Last {
    head: Vec<u8>,
    reply: Reply,
    /// Where the values of the two stand that may differ, in the order of their places.
    differ: Vec<(Value, Range<usize>)>,
}

/// What may differ from answer to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// That of `x-session-id`.
    Session,
    /// That of `x-group-version`.
    Version,
}

impl Last {
    /// The answer that `input` begins with, if all of its head is there and it is of that kind.
    pub(crate) fn again(&self, input: &[u8]) -> Option<Reply> {
        if self.head.is_empty() {
            return None;
        }
        let mut reply = self.reply;
        let (mut rest, mut same) = (input, 0);
        for (value, place) in &self.differ {
            rest = rest.strip_prefix(&self.head[same..place.start])?;
            same = place.end;
            let len = match value {
                Value::Session => place.len(),
                Value::Version => rest.iter().position(|b| *b == b'\r')?,
            };
            let (text, after) = rest.split_at_checked(len)?;
            match value {
                Value::Session => reply.session = Some(hex(text)?),
                Value::Version => reply.group_version = Some(number(text)?),
            }
            rest = after;
        }
        rest = rest.strip_prefix(&self.head[same..])?;
        reply.head_len = input.len() - rest.len();
        Some(reply)
    }

    /// Keeps the head that `input` begins with and that was read as `reply`, if others may be
    /// like it.
    pub(crate) fn keep(&mut self, input: &[u8], reply: &Reply) {
        if reply.status != 204 {
            return;
        }
        self.head = input[..reply.head_len].to_vec();
        self.reply = *reply;
        self.differ.clear();
        for (value, name) in [
            (Value::Session, &b"\r\nx-session-id: "[..]),
            (Value::Version, b"\r\nx-group-version: "),
        ] {
            let of_name = self.head.windows(name.len()).enumerate();
            let mut found = of_name.filter(|(_, text)| text.eq_ignore_ascii_case(name));
            // Of several the last counts, and those before it are the same in each answer.
            if let Some((at, _)) = found.next_back() {
                let start = at + name.len();
                let len = self.head[start..].iter().position(|b| *b == b'\r');
                self.differ.push((value, start..start + len.unwrap_or(0)));
            }
        }
        self.differ.sort_by_key(|(_, place)| place.start);
    }
}

/// Why the bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadReply(&'static str);

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Parses one head from the start of `input`; `None` asks for more bytes.
///
/// `to_head` says that the request was a HEAD, whose answer has no body whatever its
/// Content-Length says. The body itself may not have arrived yet.
///
/// # Errors
/// If the bytes cannot become an answer of HTTP/1.1 with a known length.
pub(crate) fn parse(input: &[u8], to_head: bool) -> Result<Option<Reply>, BadReply> {
    let Some(mut end) = line_end(input, 0)? else {
        return Ok(None);
    };
    let mut reply = Reply {
        status: status(&input[..end])?,
        ..Reply::default()
    };
    let mut length = None;
    loop {
        let start = end + 2;
        end = match line_end(input, start)? {
            Some(end) => end,
            None => return Ok(None),
        };
        if end == start {
            break;
        }
        header(&input[start..end], &mut reply, &mut length)?;
    }
    reply.head_len = end + 2;
    let bodiless = to_head || matches!(reply.status, 100..=199 | 204 | 304);
    reply.body_len = match length {
        _ if bodiless => 0,
        Some(n) => n,
        None => return Err(BadReply("an answer with a body of unknown length")),
    };
    Ok(Some(reply))
}

fn status(line: &[u8]) -> Result<u16, BadReply> {
    let rest = line
        .strip_prefix(b"HTTP/1.1 ")
        .ok_or(BadReply("no HTTP/1.1 status line"))?;
    if rest.len() > 3 && rest[3] != b' ' {
        return Err(BadReply("a status that is not three digits"));
    }
    let digits = rest.get(..3).ok_or(BadReply("a status line cut short"))?;
    match number(digits) {
        Some(n) if n >= 100 => Ok(n as u16),
        _ => Err(BadReply("a status that is not three digits")),
    }
}

fn header(line: &[u8], reply: &mut Reply, length: &mut Option<usize>) -> Result<(), BadReply> {
    // The first byte tells apart what matters from what does not.
    match line[0] | 0x20 {
        b'x' => {
            if let Some(v) = value(line, b"x-group-version:") {
                reply.group_version = Some(number(v).ok_or(BadReply("x-group-version"))?);
            } else if let Some(v) = value(line, b"x-session-id:") {
                reply.session = Some(hex(v).ok_or(BadReply("x-session-id"))?);
            } else if let Some(v) = value(line, b"x-session-timeout-ms:") {
                reply.timeout_ms = Some(number(v).ok_or(BadReply("x-session-timeout-ms"))?);
            }
        }
        b'c' => {
            if let Some(v) = value(line, b"content-length:") {
                let n = number(v).ok_or(BadReply("content-length is no number"))?;
                if length.replace(n as usize).is_some() {
                    return Err(BadReply("two content-lengths"));
                }
            } else if let Some(v) = value(line, b"connection:") {
                reply.close = v.eq_ignore_ascii_case(b"close");
            }
        }
        b't' if value(line, b"transfer-encoding:").is_some() => {
            return Err(BadReply("a transfer-encoding"));
        }
        _ => {}
    }
    Ok(())
}

/// The trimmed value, if `line` is the header `name` (lower case, with its colon).
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, d| match d {
        b'0'..=b'9' => Some(sum * 10 + u64::from(d - b'0')),
        _ => None,
    })
}

fn hex(digits: &[u8]) -> Option<u128> {
    if digits.len() != 32 {
        return None;
    }
    digits.iter().try_fold(0_u128, |sum, d| {
        let nibble = HEX[usize::from(*d)];
        (nibble < 16).then_some((sum << 4) | u128::from(nibble))
    })
}

/// Where the CR of the next CR LF at or after `from` stands.
fn line_end(input: &[u8], from: usize) -> Result<Option<usize>, BadReply> {
    match find_lf(input, from) {
        Some(lf) if lf > from && input[lf - 1] == b'\r' => Ok(Some(lf - 1)),
        Some(_) => Err(BadReply("a line that ends without CR LF")),
        None if input.len() > HEAD_BYTES_MAX => Err(BadReply("a head without end")),
        None => Ok(None),
    }
}

/// The first LF at or after `from`, eight bytes at a time.
fn find_lf(input: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(eight) = input.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
        let differ = word ^ (ONES * b'\n' as u64);
        let zero = differ.wrapping_sub(ONES) & !differ & HIGH;
        if zero != 0 {
            return Some(at + zero.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let tail = input.get(at..)?;
    tail.iter().position(|b| *b == b'\n').map(|i| at + i)
}

/// An answer whose head is longer than this is refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Value of each hexadecimal digit; 255 for other bytes.
const HEX: [u8; 256] = {
    let mut table = [255; 256];
    let mut i = 0;
    while i < 10 {
        table[b'0' as usize + i] = i as u8;
        i += 1;
    }
    i = 0;
    while i < 6 {
        table[b'a' as usize + i] = 10 + i as u8;
        table[b'A' as usize + i] = 10 + i as u8;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: &[u8] = b"HTTP/1.1 204 No Content\r\nX-Group-Version: 17\r\n\
        x-session-id: 00000abc0000000100000000000000ff\r\nx-session-timeout-ms: 10000\r\n\
        cache-control: no-store\r\n\r\n";

    #[test]
    fn a_beats_answer_is_read_whole() {
        let reply = parse(BEAT, true).unwrap().unwrap();
        assert_eq!(reply.status, 204);
        assert_eq!(reply.group_version, Some(17));
        assert_eq!(reply.session, Some(0x0abc_0000_0001_0000_0000_0000_00ff));
        assert_eq!(reply.timeout_ms, Some(10_000));
        assert_eq!(reply.total_len(), BEAT.len());
        assert!(!reply.close);
    }

    #[test]
    fn every_cut_asks_for_more_and_the_rest_changes_nothing() {
        let whole = parse(BEAT, true);
        for cut in 0..BEAT.len() {
            assert_eq!(parse(&BEAT[..cut], true), Ok(None), "at {cut}");
        }
        let mut followed = BEAT.to_vec();
        followed.extend_from_slice(b"HTTP/1.1 500");
        assert_eq!(parse(&followed, true), whole);
    }

    #[test]
    fn a_body_counts_except_for_head_and_bodiless_statuses() {
        let text = b"HTTP/1.1 404 Not Found\r\nContent-Length: 42\r\nConnection: Close\r\n\r\n";
        let reply = parse(text, false).unwrap().unwrap();
        assert_eq!((reply.body_len, reply.close), (42, true));
        assert_eq!(parse(text, true).unwrap().unwrap().body_len, 0);
        let none = b"HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(parse(none, false).unwrap().unwrap().body_len, 0);
    }

    /// As the server writes it: what differs stands last.
    const SERVED: &[u8] = b"HTTP/1.1 204 No Content\r\ncache-control: no-store\r\n\
        x-session-timeout-ms: 10000\r\nx-session-id: 00000abc0000000100000000000000ff\r\n\
        x-group-version: 17\r\n\r\n";

    fn last(head: &[u8]) -> Last {
        let mut last = Last::default();
        last.keep(head, &parse(head, true).unwrap().unwrap());
        last
    }

    #[test]
    fn an_answer_like_the_last_is_read_by_it() {
        let last = last(SERVED);
        let text = |version: &str| {
            let text = String::from_utf8(SERVED.to_vec()).unwrap();
            let text = text.replace("ff\r", "0d\r").replace("17", version);
            (text + "HTTP/1.1 204").into_bytes()
        };
        for version in ["0", "17", "987654321098765432"] {
            let input = text(version);
            let whole = input.len() - "HTTP/1.1 204".len();
            assert_eq!(last.again(&input), parse(&input, true).unwrap());
            assert_eq!(last.again(&input).unwrap().head_len, whole);
            for cut in 0..whole {
                assert_eq!(last.again(&input[..cut]), None, "cut at {cut}");
            }
        }
        assert_eq!(Last::default().again(SERVED), None);
    }

    #[test]
    fn of_an_answer_that_differs_the_last_says_what_is_said_without_it_or_nothing() {
        let last = last(SERVED);
        for at in 0..SERVED.len() {
            for byte in 0..=255 {
                let mut input = SERVED.to_vec();
                input[at] = byte;
                if let Some(reply) = last.again(&input) {
                    assert_eq!(parse(&input, true), Ok(Some(reply)), "{byte} at {at}");
                }
            }
        }
    }

    #[test]
    fn answers_of_all_kinds_are_read_by_their_like_as_they_are_without() {
        let served = String::from_utf8(SERVED.to_vec()).unwrap();
        for head in [
            BEAT.to_vec(),
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            served.replace("x-group-version: 17\r\n", "").into(),
            served
                .replace("\r\n\r", "\r\nx-group-version: 3\r\n\r")
                .into(),
        ] {
            let mut twice = head.clone();
            twice.extend_from_slice(&head);
            let text = String::from_utf8_lossy(&head);
            let again = last(&head).again(&twice);
            assert_eq!(again, parse(&twice, true).unwrap(), "{text}");
        }
        let with_body = served
            .replace("204", "200")
            .replace("\r\n\r", "\r\ncontent-length: 0\r\n\r");
        let spaced = served.replace("x-session-id: ", "x-session-id:  ");
        for left_out in [with_body, spaced] {
            let left_out = left_out.as_bytes();
            assert_eq!(last(left_out).again(left_out), None);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in [
            &b"HTTP/1.0 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 20x OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 204 x\r\nx-session-id: 12\r\n\r\n",
            b"HTTP/1.1 204 x\r\nx-group-version: -1\r\n\r\n",
        ] {
            assert!(
                parse(bad, false).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(parse(&[b'H'; HEAD_BYTES_MAX + 1], false).is_err());
    }

    #[test]
    fn the_line_feed_is_found_at_every_place() {
        for len in 0..40 {
            for at in 0..len {
                let mut text = vec![b'\x8a'; len];
                text[at] = b'\n';
                for from in 0..len {
                    let want = (from..len).find(|i| text[*i] == b'\n');
                    assert_eq!(find_lf(&text, from), want, "{len} {at} {from}");
                }
            }
        }
    }
}
