//! Requests as values, and what their answers say.

use std::fmt;

use serde::Deserialize;

use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// One request, without the server that is to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The HTTP method.
    pub method: &'static str,
    /// Path and query, escaped.
    pub target: String,
    /// Headers beside those that HTTP itself asks for; names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body, if there is one.
    pub body: Option<Vec<u8>>,
}

impl Call {
    /// A request without headers and body.
    #[must_use]
    pub fn new(method: &'static str, target: impl Into<String>) -> Call {
        Call {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl fmt::Display) -> Call {
        self.headers.push((name, value.to_string()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(mut self, body: Vec<u8>) -> Call {
        self.body = Some(body);
        self
    }
}

/// The path of a group: `/G`.
#[must_use]
pub fn group_path(group: &str) -> String {
    let mut path = String::from("/");
    escape(&mut path, group);
    path
}

/// The path of a member: `/G/M`.
#[must_use]
pub fn member_path(group: &str, member: &str) -> String {
    let mut path = group_path(group);
    path.push('/');
    escape(&mut path, member);
    path
}

/// Appends `name` as one segment of a path: everything escaped but what RFC 3986 never asks
/// to escape.
fn escape(out: &mut String, name: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.push('%');
            out.extend(digits.map(char::from));
        }
    }
}

/// One answer, as far as a client looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The group's version.
    pub version: Option<GroupVersion>,
    /// The session that was created or renewed.
    pub session: Option<SessionId>,
    /// The session's effective timeout.
    pub timeout: Option<Millis>,
    /// The entity tag, quotes included.
    pub etag: Option<String>,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Millis>,
    /// The code of a refusal that has no body.
    pub code: Option<String>,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads an answer whose headers `header` gives by name.
    pub fn new(status: u16, header: impl Fn(&str) -> Option<String>, body: Vec<u8>) -> Answer {
        let number = |name: &str| header(name).and_then(|value| value.trim().parse::<u64>().ok());
        Answer {
            status,
            version: number("x-group-version").map(GroupVersion),
            session: header("x-session-id").and_then(|id| id.parse().ok()),
            timeout: number("x-session-timeout-ms").map(Millis),
            etag: header("etag"),
            retry_after: number("retry-after").map(|s| Millis(s.saturating_mul(1_000))),
            code: header("x-problem"),
            body,
        }
    }

    /// What is to be made of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.status {
            200..=299 | 304 => Verdict::Done,
            // What another server would say too: not understood, or the limits of the whole.
            501 | 505 | 507 => Verdict::Refused,
            408 | 429 | 500..=599 => Verdict::Elsewhere,
            // Every refusal of a systole has a code: what has none is of a proxy, or of another
            // program that has taken the port.
            _ if self.problem().code.is_empty() => Verdict::Elsewhere,
            _ => Verdict::Refused,
        }
    }

    /// The servers that a document or a 503 lists; empty for all other bodies.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Listing {
            #[serde(default)]
            endpoints: Vec<String>,
        }
        if self.body.first() != Some(&b'{') {
            return Vec::new();
        }
        let listing = serde_json::from_slice::<Listing>(&self.body);
        listing.map_or_else(|_| Vec::new(), |listing| listing.endpoints)
    }

    /// Why the server refused. Of an answer that is no refusal it tells the status alone.
    #[must_use]
    pub fn problem(&self) -> Problem {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            code: String,
            title: String,
            detail: String,
        }
        let body: Body = serde_json::from_slice(&self.body).unwrap_or_default();
        let code = match &self.code {
            Some(code) if body.code.is_empty() => code.clone(),
            _ => body.code,
        };
        Problem {
            status: self.status,
            code,
            title: body.title,
            detail: body.detail,
        }
    }
}

/// What is to be made of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was asked for.
    Done,
    /// This server cannot at present; another one may.
    Elsewhere,
    /// Every server would say the same.
    Refused,
}

/// Why a server refused: RFC 9457, as far as it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The name of the refusal, for programs; empty if whoever answered is no systole.
    pub code: String,
    /// One line for people.
    pub title: String,
    /// What was wrong in this case; may be empty.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            return write!(f, "answered {}, which no systole says", self.status);
        }
        match (self.title.is_empty(), self.detail.is_empty()) {
            // A refused HEAD tells its code alone.
            (true, _) => write!(f, "refused: {}", self.code.replace('_', " "))?,
            (false, true) => f.write_str(&self.title)?,
            (false, false) => write!(f, "{}: {}", self.title, self.detail)?,
        }
        write!(f, " ({} {})", self.status, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, body: &str, code: Option<&str>) -> Problem {
        let header = |name: &str| code.filter(|_| name == "x-problem").map(str::to_owned);
        Answer::new(status, header, body.as_bytes().to_vec()).problem()
    }

    #[test]
    fn names_are_escaped_but_for_what_never_needs_it() {
        assert_eq!(member_path("db", "a-b_c.d~9"), "/db/a-b_c.d~9");
        assert_eq!(member_path("né", "a b%/?#"), "/n%C3%A9/a%20b%25%2F%3F%23");
    }

    #[test]
    fn the_headers_that_matter_are_read_and_nonsense_in_them_is_not() {
        let header = |name: &str| {
            let value = match name {
                "x-group-version" => "7",
                "x-session-id" => "00000abc0000000100000000000000ff",
                "x-session-timeout-ms" => "2500",
                "retry-after" => "2",
                "etag" => "\"7\"",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let answer = Answer::new(200, header, Vec::new());
        assert_eq!(answer.version, Some(GroupVersion(7)));
        assert_eq!(answer.timeout, Some(Millis(2_500)));
        assert_eq!(answer.retry_after, Some(Millis(2_000)));
        assert!(answer.session.is_some());
        let answer = Answer::new(200, |_| Some("nonsense".to_owned()), Vec::new());
        assert_eq!((answer.version, answer.session), (None, None));
    }

    #[test]
    fn what_another_server_may_do_better_is_asked_there() {
        let code = Some("some_code".to_owned());
        let verdict = |status| {
            let code = code.clone();
            Answer {
                status,
                code,
                ..Answer::default()
            }
            .verdict()
        };
        for status in [200, 201, 204, 304] {
            assert_eq!(verdict(status), Verdict::Done, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(verdict(status), Verdict::Elsewhere, "{status}");
        }
        for status in [400, 404, 409, 410, 412, 422, 501, 505, 507] {
            assert_eq!(verdict(status), Verdict::Refused, "{status}");
        }
        let nobody = Answer {
            status: 404,
            ..Answer::default()
        };
        assert_eq!(nobody.verdict(), Verdict::Elsewhere, "no systole says that");
    }

    #[test]
    fn endpoints_are_read_from_documents_and_from_refusals_alone() {
        let of = |body: &str| {
            Answer {
                body: body.into(),
                ..Answer::default()
            }
            .endpoints()
        };
        assert_eq!(
            of(r#"{"endpoints":["a:1","b:2"],"active_members":[]}"#),
            ["a:1", "b:2"]
        );
        assert_eq!(of(r#"{"code":"not_ready"}"#), [""; 0]);
        assert_eq!(of("[1]"), [""; 0]);
        assert_eq!(of(r#"{"endpoints":3}"#), [""; 0]);
    }

    #[test]
    fn a_problem_is_one_sentence_with_its_status_and_code() {
        let body = r#"{"title":"The timeout is out of bounds","status":422,
            "detail":"5 ms is below 100 ms","code":"timeout_out_of_range"}"#;
        assert_eq!(
            problem(422, body, None).to_string(),
            "The timeout is out of bounds: 5 ms is below 100 ms (422 timeout_out_of_range)"
        );
        let head = problem(410, "", Some("session_ended"));
        assert_eq!(
            head.to_string(),
            "refused: session ended (410 session_ended)"
        );
        assert_eq!(
            problem(502, "<html>", None).to_string(),
            "answered 502, which no systole says"
        );
    }
}
