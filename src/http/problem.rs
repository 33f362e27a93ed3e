//! Refusals: one table of codes, and their form on the wire (RFC 9457).

use std::borrow::Cow;

use crate::json;
use crate::time::Millis;
use crate::types::GroupVersion;

use super::respond::Answer;

/// Why a request is refused: an `application/problem+json` answer in the making.
///
/// Making one may allocate (for the detail); no heartbeat that succeeds makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of refusal; gives status and title.
    pub code: Code,
    /// What is wrong with this very request; empty if the title says it all.
    pub detail: Cow<'static, str>,
    /// Value of `Allow`: present with 405 only.
    pub allow: Option<&'static str>,
    /// Value of `Retry-After` in seconds.
    pub retry_after_s: Option<u32>,
    /// Value of `x-group-version`, when the refusal is about a group that exists.
    pub version: Option<GroupVersion>,
    /// True if the connection ends after this answer, because where the next request
    /// begins is unknown or its bytes are not worth reading.
    pub close: bool,
}

impl Problem {
    /// A refusal without detail, after which the connection lives on. Those with status
    /// 503 ask to be tried again after a second.
    #[must_use]
    pub const fn new(code: Code) -> Problem {
        Problem {
            code,
            detail: Cow::Borrowed(""),
            allow: None,
            retry_after_s: if code.status() == 503 { Some(1) } else { None },
            version: None,
            close: false,
        }
    }

    /// The same with a sentence on what is wrong with this request.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Problem {
        self.detail = detail.into();
        self
    }

    /// The same, ending the connection.
    #[must_use]
    pub fn closing(mut self) -> Problem {
        self.close = true;
        self
    }

    /// The same, telling the group's version.
    #[must_use]
    pub fn about(mut self, version: GroupVersion) -> Problem {
        self.version = Some(version);
        self
    }

    /// The method is not one of those that `allow` lists.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Problem {
        let mut problem =
            Problem::new(Code::MethodNotAllowed).detail(format!("what this path takes: {allow}"));
        problem.allow = Some(allow);
        problem
    }

    /// A timeout that is not within the bounds this server was given. Refused rather than
    /// clamped: a client must not believe in a timeout it does not have.
    #[must_use]
    pub fn timeout_out_of_range(asked: Millis, min: Millis, max: Millis) -> Problem {
        Problem::new(Code::TimeoutOutOfRange).detail(format!(
            "the timeout of {} ms is not within {} ms and {} ms",
            asked.0, min.0, max.0
        ))
    }

    /// Appends the whole answer.
    ///
    /// The answer to a HEAD (`head_only`) carries no body and says `content-length: 0`,
    /// since `curl -XHEAD` waits for as many bytes as are announced; there the code alone
    /// is told, as `x-problem`. `endpoints` are the addresses of all servers and are shown
    /// with status 503, so that the client may try another.
    pub fn write(&self, out: &mut Vec<u8>, head_only: bool, endpoints: &[String]) {
        let body = if head_only {
            Vec::new()
        } else {
            self.body(endpoints)
        };
        let answer = Answer {
            status: self.code.status(),
            content_type: (!head_only).then_some("application/problem+json"),
            version: self.version,
            allow: self.allow,
            retry_after_s: self.retry_after_s,
            problem: head_only.then_some(self.code.name()),
            no_store: true,
            close: self.close,
            ..Answer::default()
        };
        answer.write(out, &body, head_only);
    }

    fn body(&self, endpoints: &[String]) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        body.extend_from_slice(b"{\"type\":\"/-/problems/");
        body.extend_from_slice(self.code.name().as_bytes());
        body.extend_from_slice(b"\",\"title\":");
        json::string(&mut body, self.code.title());
        body.extend_from_slice(b",\"status\":");
        json::number(&mut body, self.code.status().into());
        body.extend_from_slice(b",\"code\":");
        json::string(&mut body, self.code.name());
        if !self.detail.is_empty() {
            body.extend_from_slice(b",\"detail\":");
            json::string(&mut body, &self.detail);
        }
        if self.code.status() == 503 {
            body.extend_from_slice(b",\"endpoints\":[");
            for (index, endpoint) in endpoints.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                json::string(&mut body, endpoint);
            }
            body.push(b']');
        }
        body.extend_from_slice(b"}\n");
        body
    }
}

/// `bytes` as they can be quoted in a detail: at most 64 bytes, not UTF-8 replaced.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(QUOTED_BYTES_MAX)];
    let ellipsis = if shown.len() < bytes.len() { "…" } else { "" };
    format!("`{}{ellipsis}`", String::from_utf8_lossy(shown))
}

const QUOTED_BYTES_MAX: usize = 64;

/// Declares [`Code`] from the one table of refusals.
macro_rules! codes {
    ($($variant:ident = $status:literal $name:literal $title:literal;)*) => {
        /// The kinds of refusal. Names are promised to clients; titles may change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $name, "` (", $status, "): ", $title, ".")] $variant,)*
        }

        impl Code {
            /// Every code, by status.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* }
            }

            /// The `code` member of the answer: snake case, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The `title` member: one line for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* }
            }
        }
    };
}

codes! {
    MalformedRequest = 400 "malformed_request" "The bytes are not a valid HTTP/1.1 request";
    BadHost = 400 "bad_host" "HTTP/1.1 wants exactly one valid Host header";
    BadLength = 400 "bad_length" "Content-Length must be given once, in digits";
    BadHeader = 400 "bad_header" "A header of the request has a value that makes no sense";
    BadName = 400 "bad_name" "Not a valid name of a group or member";
    ReservedName = 400 "reserved_name" "This name is kept for the server's own pages";
    BadParameter = 400 "bad_parameter" "A query parameter has a value that makes no sense";
    UnknownParameter = 400 "unknown_parameter" "There is no such query parameter here";
    BodyNotAllowed = 400 "body_not_allowed" "This request takes no body";
    BadBatch = 400 "bad_batch" "The body is not a batch of heartbeats";
    UnsupportedCondition = 400 "unsupported_condition" "This precondition is not supported here";
    UnknownPage = 404 "unknown_page" "There is no such page";
    UnknownGroup = 404 "unknown_group" "There is no such group";
    UnknownMember = 404 "unknown_member" "There is no such active member";
    NoConfig = 404 "no_config" "Nothing is configured";
    MethodNotAllowed = 405 "method_not_allowed" "The path does not take this method";
    RequestTimeout = 408 "request_timeout" "The request did not arrive in time";
    SessionConflict = 409 "session_conflict" "The member is another session's now";
    GroupInUse = 409 "group_in_use" "The group has active members";
    SessionEnded = 410 "session_ended" "The session has expired or left: join again";
    PreconditionFailed = 412 "precondition_failed" "The precondition does not hold";
    AlreadyActive = 412 "already_active" "The member is active already";
    BodyTooLarge = 413 "body_too_large" "The body is larger than allowed";
    TargetTooLong = 414 "target_too_long" "The request target is longer than allowed";
    ConfigNotUtf8 = 415 "config_not_utf8" "A config must be UTF-8 text";
    UnsupportedMediaType = 415 "unsupported_media_type" "A body of this type is not understood";
    ExpectationFailed = 417 "expectation_failed" "The only expectation met is 100-continue";
    TimeoutOutOfRange = 422 "timeout_out_of_range" "The timeout is out of bounds";
    HeadTooLarge = 431 "head_too_large" "The request head is larger than allowed";
    TooManyHeaders = 431 "too_many_headers" "The request has more headers than allowed";
    Internal = 500 "internal" "The server failed in a way it should not";
    UnknownMethod = 501 "unknown_method" "The method is not known";
    UnsupportedEncoding = 501 "unsupported_encoding" "Transfer-Encoding is not supported: send Content-Length";
    NotImplemented = 501 "not_implemented" "This is not available yet";
    NotReady = 503 "not_ready" "The server is not ready yet";
    NoQuorum = 503 "no_quorum" "No quorum of servers can be reached";
    LeaseLapsed = 503 "lease_lapsed" "The server's lease has lapsed: it cannot promise anything now";
    OwnerUnreachable = 503 "owner_unreachable" "The server that owns the session cannot be reached now";
    Behind = 503 "behind" "The server has not yet seen the version asked for";
    Overloaded = 503 "overloaded" "The server has too much to do";
    TooManyWatchers = 503 "too_many_watchers" "The server has as many watchers as it may";
    ShuttingDown = 503 "shutting_down" "The server is going down";
    UnsupportedVersion = 505 "unsupported_version" "Only HTTP/1.1 and HTTP/1.0 are spoken";
    TooManyGroups = 507 "too_many_groups" "The server holds as many groups as it may";
    TooManyMembers = 507 "too_many_members" "The server holds as many members as it may";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn written(problem: &Problem, head_only: bool) -> (String, String) {
        let mut out = Vec::new();
        let endpoints = ["a:1".to_owned(), "b:2".to_owned()];
        problem.write(&mut out, head_only, &endpoints);
        let text = String::from_utf8(out).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn codes_are_distinct_sorted_by_status_and_every_status_has_a_phrase() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.is_sorted_by_key(|code| code.status()));
        for code in Code::ALL {
            let (head, _) = written(&Problem::new(*code), false);
            let line = head.lines().next().expect("a status line");
            assert!(line.len() > "HTTP/1.1 400 ".len(), "{line}");
            assert!(!line.ends_with("Unknown"), "{line}");
        }
    }

    #[test]
    fn a_problem_is_json_with_the_members_of_rfc_9457_and_its_length_is_right() {
        let (head, body) = written(&Problem::new(Code::BadName).detail("a \"quote\""), false);
        assert!(head.contains("content-type: application/problem+json"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(!head.contains("connection"));
        let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(json["type"], "/-/problems/bad_name");
        assert_eq!(json["status"], 400);
        assert_eq!(json["code"], "bad_name");
        assert_eq!(json["detail"], "a \"quote\"");
        assert!(json["title"].is_string());
        assert!(json.get("endpoints").is_none());
    }

    #[test]
    fn a_503_says_when_to_come_back_and_where_else_to_go() {
        let (head, body) = written(&Problem::new(Code::NotReady), false);
        assert!(head.contains("retry-after: 1"));
        let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(json["endpoints"], serde_json::json!(["a:1", "b:2"]));
    }

    #[test]
    fn a_refused_head_has_no_body_and_announces_none() {
        let (head, body) = written(&Problem::new(Code::UnknownMember).closing(), true);
        assert_eq!(body, "");
        assert!(head.contains("content-length: 0"));
        assert!(head.contains("x-problem: unknown_member"));
        assert!(head.contains("connection: close"));
    }

    #[test]
    fn a_405_names_what_is_allowed_and_a_422_names_the_bounds() {
        let (head, _) = written(&Problem::method_not_allowed("GET, HEAD"), false);
        assert!(head.contains("allow: GET, HEAD"));
        let problem = Problem::timeout_out_of_range(Millis(5), Millis(100), Millis(9_000));
        assert!(problem.detail.contains("100 ms") && problem.detail.contains("9000 ms"));
    }

    #[test]
    fn a_refusal_about_a_group_carries_its_version() {
        let problem = Problem::new(Code::SessionConflict).about(GroupVersion(7));
        assert!(written(&problem, true).0.contains("x-group-version: 7"));
    }

    #[test]
    fn what_is_quoted_from_a_client_is_short_and_text() {
        assert_eq!(quoted(b"tim\xffout"), "`tim\u{fffd}out`");
        assert!(quoted(&[b'x'; 500]).len() < 80);
    }
}
