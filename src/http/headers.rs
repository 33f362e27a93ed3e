//! The header fields a request is understood by, decoded; all others are only checked.

use crate::types::{GroupVersion, SessionId};

use super::etag::EtagList;
use super::parse::{Limits, Scan, Stop};
use super::problem::Code;
use super::scan;

/// What the headers of a request say that is not about framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// `x-session-id`: the session the client believes to have.
    pub session_id: Option<SessionId>,
    /// `x-group-version`: the answer must not come from an older state.
    pub group_version: Option<GroupVersion>,
    /// `If-Match`.
    pub if_match: Option<EtagList<'a>>,
    /// `If-None-Match`.
    pub if_none_match: Option<EtagList<'a>>,
    /// `Prefer` lists `return=minimal`.
    pub prefer_minimal: bool,
    /// `Accept` names `text/event-stream`.
    pub accepts_event_stream: bool,
    /// `Content-Type`, as sent.
    pub content_type: Option<&'a [u8]>,
    /// `Last-Event-ID`, as sent.
    pub last_event_id: Option<&'a [u8]>,
    /// What is wrong with one of the above, if anything is. Such a request is refused,
    /// but its framing is sound and the connection lives on.
    pub(super) fault: Option<&'static str>,
}

impl<'a> Headers<'a> {
    /// Takes a field that says nothing about framing, if it is one that matters.
    fn take(&mut self, name: &[u8], value: &'a [u8]) {
        let fault = &mut self.fault;
        match name.len() {
            6 if is(name, b"prefer") => self.prefer_minimal |= prefers_minimal(value),
            8 if is(name, b"if-match") => {
                let bad = "If-Match must be given once, as * or a list of entity tags";
                store(&mut self.if_match, EtagList::parse(value), fault, bad);
            }
            12 if is(name, b"x-session-id") => {
                let bad = "x-session-id must be given once, as 32 hex digits";
                store(&mut self.session_id, session_id(value), fault, bad);
            }
            12 if is(name, b"content-type") => {
                let bad = "Content-Type must be given once";
                store(&mut self.content_type, Some(value), fault, bad);
            }
            13 if is(name, b"if-none-match") => {
                let bad = "If-None-Match must be given once, as * or a list of entity tags";
                store(&mut self.if_none_match, EtagList::parse(value), fault, bad);
            }
            13 if is(name, b"last-event-id") => {
                let bad = "Last-Event-ID must be given once";
                store(&mut self.last_event_id, Some(value), fault, bad);
            }
            15 if is(name, b"x-group-version") => {
                let bad = "x-group-version must be given once, in digits";
                store(
                    &mut self.group_version,
                    digits(value).map(GroupVersion),
                    fault,
                    bad,
                );
            }
            _ => {}
        }
    }
}

/// What the headers say about framing and the connection, beside [`Headers`].
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) known: Headers<'a>,
    pub(super) host_given: bool,
    pub(super) body_len: Option<usize>,
    pub(super) close: bool,
    pub(super) expect_continue: bool,
}

impl<'a> Fields<'a> {
    /// Takes one field; `name` is a token, `value` is trimmed and free of controls.
    ///
    /// # Errors
    /// What makes the framing doubtful or the request impossible to serve: the connection
    /// must end.
    #[inline]
    pub(super) fn take(&mut self, name: &'a [u8], value: &'a [u8], limits: &Limits) -> Scan<()> {
        // The length tells almost all names apart, so that a field of no interest costs
        // one jump.
        match name.len() {
            4 if is(name, b"host") => self.host(value),
            6 if is(name, b"accept") => {
                self.known.accepts_event_stream |= accepts_event_stream(value);
                Ok(())
            }
            6 if is(name, b"expect") => self.expect(value),
            10 if is(name, b"connection") => {
                self.close |= list(value).any(|option| is(option, b"close"));
                Ok(())
            }
            14 if is(name, b"content-length") => self.length(value, limits),
            // Chunked framing is where requests are smuggled, and nothing here needs it.
            17 if is(name, b"transfer-encoding") => {
                Err(Stop::Refused(Code::UnsupportedEncoding, ""))
            }
            6 | 8 | 12 | 13 | 15 => {
                self.known.take(name, value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Scan<()> {
        if self.host_given {
            return Err(Stop::Refused(Code::BadHost, "Host is given twice"));
        }
        if !scan::is_host(value) {
            return Err(Stop::Refused(
                Code::BadHost,
                "Host is not a name or address with a port",
            ));
        }
        self.host_given = true;
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Scan<()> {
        if !is(value, b"100-continue") {
            return Err(Stop::Refused(Code::ExpectationFailed, ""));
        }
        self.expect_continue = true;
        Ok(())
    }

    /// Equal lengths given twice are refused too: only a confused or hostile sender does
    /// that, and the proxy in between may have read another of the two.
    fn length(&mut self, value: &[u8], limits: &Limits) -> Scan<()> {
        if self.body_len.is_some() {
            return Err(Stop::Refused(
                Code::BadLength,
                "Content-Length is given twice",
            ));
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Stop::Refused(
                Code::BadLength,
                "Content-Length is not a number",
            ));
        }
        let mut len = 0usize;
        for digit in value {
            len = len
                .saturating_mul(10)
                .saturating_add(usize::from(digit - b'0'));
        }
        if len > limits.body_bytes_max {
            return Err(Stop::Refused(Code::BodyTooLarge, ""));
        }
        self.body_len = Some(len);
        Ok(())
    }
}

/// Puts a decoded value into its place, or notes what is wrong: it could not be decoded,
/// or the place is taken.
fn store<T>(
    place: &mut Option<T>,
    value: Option<T>,
    fault: &mut Option<&'static str>,
    bad: &'static str,
) {
    if place.is_some() || value.is_none() {
        *fault = Some(bad);
    }
    *place = value;
}

/// Compares without regard to case.
#[inline]
fn is(bytes: &[u8], lower: &[u8]) -> bool {
    bytes.eq_ignore_ascii_case(lower)
}

/// The elements of a comma-separated list, trimmed.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

/// True if the media range `text/event-stream` is listed. Wildcards do not count: what
/// every client sends by default must not open a stream.
fn accepts_event_stream(value: &[u8]) -> bool {
    // `*/*` is what nearly all send.
    value.len() >= EVENT_STREAM.len()
        && list(value).any(|range| {
            let end = scan::find(range, b';');
            is(range[..end].trim_ascii_end(), EVENT_STREAM)
        })
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// True if the preference `return=minimal` (RFC 7240) is listed.
fn prefers_minimal(value: &[u8]) -> bool {
    value.split(|&b| b == b',' || b == b';').any(|preference| {
        let preference = preference.trim_ascii();
        is(preference, b"return=minimal") || is(preference, b"return=\"minimal\"")
    })
}

/// Reads 32 hex digits of either case.
pub(super) fn session_id(value: &[u8]) -> Option<SessionId> {
    let digits: &[u8; 32] = value.try_into().ok()?;
    let mut bytes = [0; 16];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let (high, low) = (HEX[usize::from(pair[0])], HEX[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    (seen < NO_HEX).then(|| SessionId::from_bytes(bytes))
}

/// Value of each hex digit; [`NO_HEX`] for all other bytes.
static HEX: [u8; 256] = {
    let mut values = [NO_HEX; 256];
    let mut byte = 0;
    while byte < 256 {
        if let Some(value) = (byte as u8 as char).to_digit(16) {
            values[byte] = value as u8;
        }
        byte += 1;
    }
    values
};

const NO_HEX: u8 = 0x80;

/// Reads a number of 1 to 20 digits and nothing else.
pub(super) fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_32_hex_digits_of_either_case() {
        let id = SessionId(0x0123_4567_89ab_cdef_0011_2233_4455_66ff);
        assert_eq!(session_id(id.to_string().as_bytes()), Some(id));
        assert_eq!(
            session_id(id.to_string().to_uppercase().as_bytes()),
            Some(id)
        );
        for at in 0..32 {
            let mut text = id.to_string().into_bytes();
            text[at] = b'g';
            assert_eq!(session_id(&text), None);
            text[at] = 0xff;
            assert_eq!(session_id(&text), None);
        }
        assert_eq!(session_id(&id.to_string().as_bytes()[1..]), None);
        assert_eq!(session_id(b""), None);
    }

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(digits(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(digits(b"0"), Some(0));
        for bad in ["18446744073709551616", "", "+1", "-1", " 1", "1e3", "0x1"] {
            assert_eq!(digits(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_event_stream_must_be_named_to_be_accepted() {
        assert!(accepts_event_stream(b"text/event-stream"));
        assert!(accepts_event_stream(b"text/html, Text/Event-Stream ;q=0.5"));
        for other in [
            "*/*",
            "text/*, application/json, */*",
            "text/event-streams",
            "x/text/event-stream",
        ] {
            assert!(!accepts_event_stream(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_minimal_answer_may_be_preferred_among_other_things() {
        assert!(prefers_minimal(b"respond-async, return=minimal; foo"));
        assert!(prefers_minimal(b"Return=Minimal"));
        assert!(!prefers_minimal(b"return=representation"));
    }
}
