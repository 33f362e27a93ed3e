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
    /// What a page for browsers is sent with: see [`PAGE`].
    pub page: bool,
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
            page: false,
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
        let page_bytes = if self.page { PAGE.len() } else { 0 };
        out.reserve(HEAD_BYTES_GUESS + page_bytes + body.len());
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
            field(out, SESSION_ID, id.to_string().as_bytes());
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
        if self.page {
            out.extend_from_slice(PAGE);
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

/// The answer to a heartbeat: 204, the session, its timeout, the group's version. That to a join
/// without the document is the same with 201.
///
/// The sessions of a server have few timeouts and their ids begin with few eras, so an answer is
/// kept from one to the next, and only what differs is written into each copy: 16 digits and the
/// version, which stands last for that.
#[derive(Clone, Debug)]
pub struct BeatAnswer {
    /// An answer but for what differs, from `start_len` on, and the end.
    bytes: [u8; BEAT_BYTES_MAX],
    status: &'static [u8],
    start_len: usize,
    timeout: Millis,
    era: u64,
}

impl BeatAnswer {
    /// Ready for answers to heartbeats.
    #[must_use]
    pub fn new() -> BeatAnswer {
        BeatAnswer::of(BEATEN)
    }

    /// Ready for answers to joins that made a member active and do without the document.
    #[must_use]
    pub fn to_joins() -> BeatAnswer {
        BeatAnswer::of(JOINED)
    }

    fn of(status: &'static [u8]) -> BeatAnswer {
        let mut answer = BeatAnswer {
            bytes: [0; BEAT_BYTES_MAX],
            status,
            start_len: 0,
            timeout: Millis(0),
            era: 0,
        };
        answer.start(Millis(0), 0);
        answer
    }

    /// Appends an answer after which the connection goes on.
    ///
    /// Cost: about 160 bytes copied; nothing allocated if `out` has room for
    /// the longest.
    #[inline]
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        version: GroupVersion,
        session: SessionId,
        timeout: Millis,
    ) {
        if timeout != self.timeout || session.era() != self.era {
            self.start(timeout, session.era());
        }
        let begin = out.len();
        out.extend_from_slice(&self.bytes);
        // Written where it stands in the copy: what was just written in pieces and is then
        // copied as a whole would be waited for.
        let differs = &mut out[begin + self.start_len..];
        let differs: &mut [u8; DIFFERS_BYTES] = differs.first_chunk_mut().expect(ROOM);
        differs[..COUNTER_BYTES].copy_from_slice(&hex(session.counter()));
        let len = if let Some((digits, len)) = json::short_decimal(version.0) {
            differs[DIGITS_AT..DIGITS_AT + digits.len()].copy_from_slice(&digits);
            len
        } else {
            let (digits, len) = json::decimal(version.0);
            differs[DIGITS_AT..DIGITS_AT + digits.len()].copy_from_slice(&digits);
            len
        };
        // Over the zeros after the digits.
        let end = DIGITS_AT + len;
        differs[end..end + END.len()].copy_from_slice(END);
        out.truncate(begin + self.start_len + end + END.len());
    }

    /// Appends an answer after which the connection ends.
    #[cold]
    pub fn write_last(
        &self,
        out: &mut Vec<u8>,
        version: GroupVersion,
        session: SessionId,
        timeout: Millis,
    ) {
        let answer = Answer {
            status: 204,
            version: Some(version),
            session: Some((session, timeout)),
            no_store: true,
            close: true,
            ..Answer::default()
        };
        answer.write(out, b"", true);
    }

    /// Writes what the answers about sessions of this timeout and era begin with.
    #[cold]
    fn start(&mut self, timeout: Millis, era: u64) {
        let mut start = self.status.to_vec();
        start.extend_from_slice(NO_STORE);
        number_field(&mut start, TIMEOUT, timeout.0);
        field(&mut start, SESSION_ID, &hex(era));
        self.start_len = start.len();
        start.extend_from_slice(&[0; COUNTER_BYTES]);
        start.extend_from_slice(VERSION);
        self.bytes[..start.len()].copy_from_slice(&start);
        self.timeout = timeout;
        self.era = era;
    }
}

impl Default for BeatAnswer {
    fn default() -> BeatAnswer {
        BeatAnswer::new()
    }
}

/// What the answer to a heartbeat begins with.
const BEATEN: &[u8] = b"HTTP/1.1 204 No Content";
/// The same to a join without the document.
const JOINED: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 0";
/// At least as long as the longest of these answers: so much is copied for each.
const BEAT_BYTES_MAX: usize = 208;
/// Hex digits of half a session id.
const COUNTER_BYTES: usize = 16;
/// Where in what differs from answer to answer the version begins.
const DIGITS_AT: usize = COUNTER_BYTES + VERSION.len();
/// The most that differs: half an id, the name of the next field, a version, the end.
const DIFFERS_BYTES: usize = DIGITS_AT + json::U64_DIGITS_MAX + END.len();
const END: &[u8; 4] = b"\r\n\r\n";
/// Why what differs fits behind what does not.
const ROOM: &str = "an answer is no longer than its room";

const _: () = assert!(
    BEATEN.len() <= JOINED.len(),
    "the longer of the two is looked at below"
);
const _: () = assert!(
    JOINED.len()
        + NO_STORE.len()
        + TIMEOUT.len()
        + json::U64_DIGITS_MAX
        + SESSION_ID.len()
        + COUNTER_BYTES
        + DIFFERS_BYTES
        <= BEAT_BYTES_MAX,
    "the longest answer has room"
);

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

/// A page may be kept but is asked for again each time, by its `ETag`. It takes nothing from
/// elsewhere, is shown in nobody's frame, and where the browser can (trusted types), a script
/// of ours that makes HTML of a text fails instead.
const PAGE: &[u8] = b"\r\ncache-control: no-cache\
    \r\ncontent-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'\
    \r\nx-content-type-options: nosniff\
    \r\nreferrer-policy: no-referrer";

const VERSION: &[u8; 19] = b"\r\nx-group-version: ";
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

/// The 16 hex digits of half a session id.
#[inline]
fn hex(half: u64) -> [u8; COUNTER_BYTES] {
    let mut digits = [0; COUNTER_BYTES];
    let (high, low) = digits.split_at_mut(8);
    high.copy_from_slice(&hex_digits((half >> 32) as u32));
    low.copy_from_slice(&hex_digits(half as u32));
    digits
}

/// The 8 hex digits of a number, all at once: each in a byte of a word.
#[inline]
const fn hex_digits(value: u32) -> [u8; 8] {
    // The halves are drawn apart three times, until each byte holds four bits.
    let mut word = value as u64;
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Six more than 9 carries into the next four bits: those bytes are letters.
    let letters = (word + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    let text = word + 0x3030_3030_3030_3030 + letters * (b'a' - b'0' - 10) as u64;
    text.to_be_bytes()
}

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
        let mut beats = BeatAnswer::new();
        let mut said = |version, id, timeout| {
            text(|out| beats.write(out, GroupVersion(version), id, Millis(timeout)))
        };
        for (version, era, counter, timeout) in [
            (12, 0xabc, 0x12, 10_000),
            (0, 0xabc, 0x13, 10_000),
            (u64::MAX, 0xabc, u64::MAX, 1),
            (7, u64::MAX, 0x0123_4567_89ab_cdef, u64::MAX),
            (8, 0, 0, 0),
        ] {
            let id = SessionId::from_parts(era, counter);
            let expected = format!(
                "HTTP/1.1 204 No Content\r\n\
                 cache-control: no-store\r\n\
                 x-session-timeout-ms: {timeout}\r\n\
                 x-session-id: {era:016x}{counter:016x}\r\n\
                 x-group-version: {version}\r\n\r\n"
            );
            assert_eq!(said(version, id, timeout), expected);
        }
        let id = SessionId::from_parts(1, 2);
        assert_eq!(
            text(|out| BeatAnswer::new().write_last(out, GroupVersion(3), id, Millis(1))),
            "HTTP/1.1 204 No Content\r\n\
             x-group-version: 3\r\n\
             x-session-id: 00000000000000010000000000000002\r\n\
             x-session-timeout-ms: 1\r\n\
             cache-control: no-store\r\n\
             connection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_join_is_answered_as_a_heartbeat_is_but_created() {
        let mut joins = BeatAnswer::to_joins();
        for timeout in [u64::MAX, 10_000] {
            let id = SessionId::from_parts(u64::MAX, 0x12);
            assert_eq!(
                text(|out| joins.write(out, GroupVersion(u64::MAX), id, Millis(timeout))),
                format!(
                    "HTTP/1.1 201 Created\r\n\
                     content-length: 0\r\n\
                     cache-control: no-store\r\n\
                     x-session-timeout-ms: {timeout}\r\n\
                     x-session-id: ffffffffffffffff0000000000000012\r\n\
                     x-group-version: 18446744073709551615\r\n\r\n"
                )
            );
        }
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
            page: true,
            close: true,
        };
        let head = text(|out| answer.write(out, b"", false));
        let most = HEAD_BYTES_GUESS + PAGE.len();
        assert!(head.len() <= most, "{}", head.len());
    }

    proptest! {
        #[test]
        fn a_beat_reads_back_with_httparse(version: u64, id: u128, timeout: u64, close: bool) {
            let mut out = Vec::new();
            let mut beats = BeatAnswer::new();
            let (version, id, timeout) = (GroupVersion(version), SessionId(id), Millis(timeout));
            if close {
                beats.write_last(&mut out, version, id, timeout);
            } else {
                beats.write(&mut out, version, id, timeout);
            }
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&out).expect("a response");
            prop_assert_eq!(parsed, httparse::Status::Complete(out.len()));
            prop_assert_eq!(response.code, Some(204));
            let value = |name: &str| {
                let header = response.headers.iter().find(|header| header.name == name);
                header.map(|header| String::from_utf8_lossy(header.value).into_owned())
            };
            prop_assert_eq!(value("x-group-version"), Some(version.0.to_string()));
            prop_assert_eq!(value("x-session-id"), Some(id.to_string()));
            prop_assert_eq!(value("x-session-timeout-ms"), Some(timeout.0.to_string()));
            prop_assert_eq!(value("connection").is_some(), close);
            prop_assert!(value("content-length").is_none());
        }
    }
}
