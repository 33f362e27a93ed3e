//! What clients say and hear, as bytes.

use crate::types::{GroupVersion, SessionId};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `PUT /g/m`, with a timeout.
    Join {
        /// The timeout asked for, ms.
        timeout_ms: u64,
    },
    /// `PUT /g/m?takeover`, with a timeout.
    Takeover {
        /// The timeout asked for, ms.
        timeout_ms: u64,
    },
    /// `HEAD /g/m`.
    Beat,
    /// `HEAD /g/m` with the id of the session.
    BeatSession,
    /// `GET /g/m`.
    BeatAndGet,
    /// A batch of one line.
    Line,
    /// A batch of one id.
    Packed,
    /// `DELETE /g/m`.
    Leave,
    /// `PUT /g/m/config`.
    Config,
    /// `GET /g`, after everything that was committed before.
    Read,
    /// `GET /g`, of what this server has.
    Look,
}

impl Ask {
    /// True if a good answer is a promise that the session lives.
    #[must_use]
    pub fn promises(self) -> bool {
        !matches!(self, Ask::Leave | Ask::Config | Ask::Read | Ask::Look)
    }

    /// True if a good answer is the outcome of a change of who is in the group.
    #[must_use]
    pub fn joins(self) -> bool {
        matches!(self, Ask::Join { .. } | Ask::Takeover { .. })
    }

    /// True if it says what its client has seen of the group.
    #[must_use]
    pub fn has_floor(self) -> bool {
        matches!(
            self,
            Ask::Beat | Ask::BeatSession | Ask::BeatAndGet | Ask::Read | Ask::Look
        )
    }

    /// True if the answer has a head and no body.
    fn is_head(self) -> bool {
        matches!(self, Ask::Beat | Ask::BeatSession)
    }

    /// The request.
    #[must_use]
    pub fn bytes(
        self,
        (group, member): (&str, &str),
        session: Option<SessionId>,
        floor: Option<GroupVersion>,
    ) -> Vec<u8> {
        let mut head = match self {
            Ask::Join { timeout_ms } => format!("PUT /{group}/{member}?timeout={timeout_ms}ms"),
            Ask::Takeover { timeout_ms } => {
                format!("PUT /{group}/{member}?takeover&timeout={timeout_ms}ms")
            }
            Ask::Beat | Ask::BeatSession => format!("HEAD /{group}/{member}"),
            Ask::BeatAndGet => format!("GET /{group}/{member}"),
            Ask::Line | Ask::Packed => "POST /-/heartbeats".to_owned(),
            Ask::Leave => format!("DELETE /{group}/{member}"),
            Ask::Config => format!("PUT /{group}/{member}/config"),
            Ask::Read => format!("GET /{group}?consistent"),
            Ask::Look => format!("GET /{group}"),
        };
        head.push_str(" HTTP/1.1\r\nhost: fleet\r\n");
        let named = matches!(self, Ask::BeatSession | Ask::Leave);
        if let Some(session) = session.filter(|_| named) {
            head.push_str(&format!("x-session-id: {session}\r\n"));
        }
        if let Some(floor) = floor.filter(|_| self.has_floor()) {
            head.push_str(&format!("x-group-version: {floor}\r\n"));
        }
        let body = match self {
            Ask::Line => format!("{group}/{member}\n").into_bytes(),
            Ask::Packed => session.unwrap_or_default().to_bytes().to_vec(),
            Ask::Config => b"{\"a\":1}".to_vec(),
            _ => Vec::new(),
        };
        if self == Ask::Packed {
            head.push_str("content-type: application/octet-stream\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(body);
        bytes
    }
}

/// An answer, as far as a client of the fleet cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status; for a batch of one, what became of that one.
    pub status: u16,
    /// `x-session-id`.
    pub session: Option<SessionId>,
    /// `x-session-timeout-ms`.
    pub timeout_ms: Option<u64>,
    /// `x-group-version`.
    pub version: Option<GroupVersion>,
    /// The code in the body of a refusal.
    pub problem: Option<String>,
}

/// The answer to `ask`, if `bytes` hold it in full.
///
/// # Errors
/// A sentence if they are no answer.
pub fn read(ask: Ask, bytes: &[u8]) -> Result<Option<Answer>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status: u16 = status
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| format!("no status: {head:?}"))?;
    let header = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    };
    let body = &bytes[end + 4..];
    let whole = if ask.is_head() || status == 204 || status == 304 {
        true
    } else if let Some(length) = header("content-length") {
        body.len()
            >= length
                .parse::<usize>()
                .map_err(|_| "a length that is no number")?
    } else {
        body.ends_with(b"0\r\n\r\n")
    };
    if !whole {
        return Ok(None);
    }
    let mut answer = Answer {
        status,
        session: header("x-session-id").and_then(|id| id.parse().ok()),
        timeout_ms: header("x-session-timeout-ms").and_then(|ms| ms.parse().ok()),
        version: header("x-group-version")
            .and_then(|version| version.parse().ok())
            .map(GroupVersion),
        problem: code_of(&String::from_utf8_lossy(body)),
    };
    if matches!(ask, Ask::Line | Ask::Packed) && status == 200 {
        let text = String::from_utf8_lossy(body);
        if !text.contains("\"renewed\":1}") {
            answer.status = field(&text, "\"status\":").unwrap_or(400);
        }
    }
    Ok(Some(answer))
}

/// The code of a refusal.
fn code_of(body: &str) -> Option<String> {
    let (_, rest) = body.split_once("\"code\":")?;
    let (_, rest) = rest.split_once('"')?;
    Some(rest.split_once('"')?.0.to_owned())
}

fn field(text: &str, name: &str) -> Option<u16> {
    let (_, rest) = text.split_once(name)?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_once_it_is_whole() {
        let bytes = b"HTTP/1.1 204 No Content\r\nx-group-version: 12\r\n\
            x-session-id: 0000000000000abc0000000000000012\r\n\
            x-session-timeout-ms: 10000\r\n\r\n";
        for length in 0..bytes.len() {
            assert_eq!(read(Ask::Beat, &bytes[..length]), Ok(None));
        }
        let answer = read(Ask::Beat, bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.timeout_ms), (204, Some(10_000)));
        assert_eq!(answer.version, Some(GroupVersion(12)));
        assert_eq!(answer.session, Some(SessionId(0xabc_0000_0000_0000_0012)));
    }

    #[test]
    fn a_failure_in_a_batch_of_one_is_the_answer() {
        let body = "{\"failed\":[{\"line\":1,\"status\":404}],\"renewed\":0}\n";
        let length = body.len();
        let bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        let answer = read(Ask::Line, bytes.as_bytes()).unwrap().unwrap();
        assert_eq!(answer.status, 404);
        let cut = read(Ask::Line, &bytes.as_bytes()[..bytes.len() - 1]);
        assert_eq!(cut, Ok(None));
    }
}
