//! Answers, appended to a buffer of the caller's, so that all requests of one read can be
//! answered with one send.

use crate::json;
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// The head of an answer that is not a plain heartbeat's. All that is absent by default is
/// left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status; 200 by default.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<&'static str>,
    /// `x-group-version`.
    pub version: Option<GroupVersion>,
    /// `x-session-id` and `x-session-timeout-ms`.
    pub session: Option<(SessionId, Millis)>,
    /// `ETag`: a version of the group or of the config.
    pub etag: Option<u64>,
    /// `Allow`.
    pub allow: Option<&'static str>,
    /// `Retry-After`, seconds.
    pub retry_after_s: Option<u32>,
    /// `x-problem`: the code of a refusal that has no body to say it in.
    pub problem: Option<&'static str>,
    /// `Cache-Control: no-store`.
    pub no_store: bool,
    /// `Connection: close`.
    pub close: bool,
}

/// How the client finds the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// By its length in bytes.
    Exactly(u64),
    /// It comes in chunks (RFC 9112, 7.1), the last of which is empty.
    Chunked,
    /// It ends with the connection.
    Unsaid,
}

impl Default for Answer {
    fn default() -> Answer {
        Answer {
            status: 200,
            content_type: None,
            version: None,
            session: None,
            etag: None,
            allow: None,
            retry_after_s: None,
            problem: None,
            no_store: false,
            close: false,
        }
    }
}

impl Answer {
    /// Appends head and body.
    ///
    /// To a HEAD (`head_only`) the head alone, with `content-length: 0`: what a GET would
    /// have had is not announced, because `curl -XHEAD` would wait for it. A 204 or 304
    /// has no body whatever `body` is.
    pub fn write(&self, out: &mut Vec<u8>, body: &[u8], head_only: bool) {
        let body = if head_only || self.is_bodiless() {
            b""
        } else {
            body
        };
        out.reserve(HEAD_BYTES_GUESS + body.len());
        self.write_head(out, Length::Exactly(body.len() as u64));
        out.extend_from_slice(body);
    }

    /// Appends the head alone, for a body that the caller sends after it, piece by piece.
    pub fn write_head(&self, out: &mut Vec<u8>, length: Length) {
        out.extend_from_slice(b"HTTP/1.1 ");
        json::number(out, self.status.into());
        out.push(b' ');
        out.extend_from_slice(phrase(self.status).as_bytes());
        if let Some(version) = self.version {
            number_field(out, VERSION, version.0);
        }
        if let Some((id, timeout)) = self.session {
            field(out, SESSION_ID, &hex(id));
            number_field(out, TIMEOUT, timeout.0);
        }
        if let Some(etag) = self.etag {
            out.extend_from_slice(b"\r\netag: \"");
            json::number(out, etag);
            out.push(b'"');
        }
        if let Some(content_type) = self.content_type {
            field(out, b"\r\ncontent-type: ", content_type.as_bytes());
        }
        if let Some(allow) = self.allow {
            field(out, b"\r\nallow: ", allow.as_bytes());
        }
        if let Some(seconds) = self.retry_after_s {
            number_field(out, b"\r\nretry-after: ", seconds.into());
        }
        if let Some(problem) = self.problem {
            field(out, b"\r\nx-problem: ", problem.as_bytes());
        }
        match length {
            _ if self.is_bodiless() => {}
            Length::Exactly(bytes) => number_field(out, b"\r\ncontent-length: ", bytes),
            Length::Chunked => out.extend_from_slice(b"\r\ntransfer-encoding: chunked"),
            Length::Unsaid => {}
        }
        if self.no_store {
            out.extend_from_slice(NO_STORE);
        }
        if self.close {
            out.extend_from_slice(CLOSE);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// True for the statuses that never have a body, nor say how long it is (RFC 9110,
    /// 8.6 and 15.4.5).
    const fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }
}

/// Appends the answer to a heartbeat: 204, the group's version, the session.
///
/// Cost: about 160 bytes copied; nothing allocated if `out` has room.
#[inline]
pub fn beat(
    out: &mut Vec<u8>,
    version: GroupVersion,
    session: SessionId,
    timeout: Millis,
    close: bool,
) {
    let mut line = Fixed::new();
    line.push(b"HTTP/1.1 204 No Content\r\nx-group-version: ");
    line.push_number(version.0);
    line.push(SESSION_ID);
    line.push(&hex(session));
    line.push(TIMEOUT);
    line.push_number(timeout.0);
    line.push(NO_STORE);
    if close {
        line.push(CLOSE);
    }
    line.push(b"\r\n\r\n");
    out.extend_from_slice(line.written());
}

/// A short text put together on the stack: every piece has a length the compiler knows,
/// so that pushing one is a few moves, without a call or a growth check.
struct Fixed {
    bytes: [u8; BEAT_BYTES_MAX],
    len: usize,
}

impl Fixed {
    #[inline(always)]
    const fn new() -> Fixed {
        Fixed {
            bytes: [0; BEAT_BYTES_MAX],
            len: 0,
        }
    }

    #[inline(always)]
    fn push<const N: usize>(&mut self, piece: &[u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(piece);
        self.len += N;
    }

    #[inline(always)]
    fn push_number(&mut self, value: u64) {
        let (digits, len) = json::decimal(value);
        // The zeros after the digits are overwritten by the next piece.
        self.push(&digits);
        self.len -= digits.len() - len;
    }

    #[inline(always)]
    fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// More than the longest answer to a heartbeat takes.
const BEAT_BYTES_MAX: usize = 240;

/// Appends a piece of a body that comes in chunks (RFC 9112, 7.1), or that ends with the
/// connection; an empty one in chunks would be the end.
pub fn piece(out: &mut Vec<u8>, bytes: &[u8], chunked: bool) {
    debug_assert!(!bytes.is_empty(), "an empty chunk is the end");
    if !chunked {
        return out.extend_from_slice(bytes);
    }
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The end of a body that comes in chunks.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The interim answer to `Expect: 100-continue`: go on, send the body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// More than the head of any answer takes.
const HEAD_BYTES_GUESS: usize = 384;

const VERSION: &[u8] = b"\r\nx-group-version: ";
const SESSION_ID: &[u8; 16] = b"\r\nx-session-id: ";
const TIMEOUT: &[u8; 24] = b"\r\nx-session-timeout-ms: ";
const NO_STORE: &[u8; 25] = b"\r\ncache-control: no-store";
const CLOSE: &[u8; 19] = b"\r\nconnection: close";

/// `start` is a line end, a name, a colon and a space.
fn field(out: &mut Vec<u8>, start: &[u8], value: &[u8]) {
    out.extend_from_slice(start);
    out.extend_from_slice(value);
}

fn number_field(out: &mut Vec<u8>, start: &[u8], value: u64) {
    out.extend_from_slice(start);
    json::number(out, value);
}

/// The 32 hex digits of a session id.
#[inline]
fn hex(id: SessionId) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(id.to_bytes()) {
        *pair = HEX_PAIRS[usize::from(byte)];
    }
    digits
}

/// The two hex digits of each byte.
static HEX_PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The reason phrase of each status that is ever answered.
const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_heartbeat_is_answered_as_the_contract_says() {
        let id = SessionId::from_parts(0xabc, 0x12);
        assert_eq!(
            text(|out| beat(out, GroupVersion(12), id, Millis(10_000), false)),
            "HTTP/1.1 204 No Content\r\n\
             x-group-version: 12\r\n\
             x-session-id: 0000000000000abc0000000000000012\r\n\
             x-session-timeout-ms: 10000\r\n\
             cache-control: no-store\r\n\r\n"
        );
        let closing = text(|out| beat(out, GroupVersion(0), id, Millis(1), true));
        assert!(closing.contains("\r\nconnection: close\r\n"));
    }

    #[test]
    fn a_document_comes_with_its_length_and_tag() {
        let answer = Answer {
            status: 201,
            content_type: Some("application/json"),
            version: Some(GroupVersion(3)),
            etag: Some(3),
            ..Answer::default()
        };
        assert_eq!(
            text(|out| answer.write(out, b"{}", false)),
            "HTTP/1.1 201 Created\r\nx-group-version: 3\r\netag: \"3\"\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        );
    }

    #[test]
    fn the_answer_to_a_head_has_no_body_and_announces_none() {
        let head = text(|out| Answer::default().write(out, b"body", true));
        assert!(head.ends_with("content-length: 0\r\n\r\n"));
    }

    #[test]
    fn a_204_or_304_says_nothing_of_a_body() {
        for status in [204, 304] {
            let answer = Answer {
                status,
                ..Answer::default()
            };
            let head = text(|out| answer.write(out, b"body", false));
            assert!(
                !head.contains("content-length") && head.ends_with("\r\n\r\n"),
                "{head}"
            );
        }
    }

    #[test]
    fn the_longest_answer_to_a_heartbeat_has_room() {
        let head = text(|out| {
            let id = SessionId(u128::MAX);
            beat(out, GroupVersion(u64::MAX), id, Millis(u64::MAX), true);
        });
        assert!(head.len() <= BEAT_BYTES_MAX, "{}", head.len());
    }

    #[test]
    fn no_head_is_longer_than_what_is_reserved_for_it() {
        let answer = Answer {
            status: 431,
            content_type: Some("application/problem+json"),
            version: Some(GroupVersion(u64::MAX)),
            session: Some((SessionId(u128::MAX), Millis(u64::MAX))),
            etag: Some(u64::MAX),
            allow: Some("GET, HEAD, PUT, DELETE"),
            retry_after_s: Some(u32::MAX),
            problem: None,
            no_store: true,
            close: true,
        };
        let head = text(|out| answer.write(out, b"", false));
        assert!(head.len() <= HEAD_BYTES_GUESS, "{}", head.len());
    }

    proptest! {
        #[test]
        fn a_beat_reads_back_with_httparse(version: u64, id: u128, timeout: u64, close: bool) {
            let mut out = Vec::new();
            beat(&mut out, GroupVersion(version), SessionId(id), Millis(timeout), close);
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&out).expect("a response");
            prop_assert_eq!(parsed, httparse::Status::Complete(out.len()));
            prop_assert_eq!(response.code, Some(204));
            let value = |name: &str| {
                let header = response.headers.iter().find(|header| header.name == name);
                header.map(|header| String::from_utf8_lossy(header.value).into_owned())
            };
            prop_assert_eq!(value("x-group-version"), Some(version.to_string()));
            prop_assert_eq!(value("x-session-id"), Some(SessionId(id).to_string()));
            prop_assert_eq!(value("x-session-timeout-ms"), Some(timeout.to_string()));
            prop_assert_eq!(value("connection").is_some(), close);
            prop_assert!(value("content-length").is_none());
        }
    }
}
