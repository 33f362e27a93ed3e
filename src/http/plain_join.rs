//! Joins that end as an earlier one did, as `familiar` has it for heartbeats.
//!
//! The members of a deployment join with the same timeout and the same headers, so all that
//! follows the path, the query included, is the same in one join after the other. What such a
//! tail means was worked out when it was first read, and nothing in the reading of it depends on
//! the names before it. Only joins are kept that ask for nothing but a session: no body, no
//! condition, no takeover.
//!
//! This only ever says what [`parse`](super::parse()) and [`route`](super::route()) would say,
//! sooner; of all else it says nothing.

use super::familiar::Ends;
use super::headers::Headers;
use super::name::{self, NAME_BUFFER};
use super::parse::{Limits, Method, Request};
use super::{query, scan};
use crate::time::Millis;

/// The tails of joins that are known.
#[derive(Debug, Default)]
pub struct PlainJoins {
    tails: Ends,
    /// What each tail says, by its place in `tails`.
    said: [Said; Ends::MAX],
}

/// `PUT /G/M[?timeout=…]` with two names that stand for themselves, and no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainJoin<'a> {
    /// The group, a valid name.
    pub group: &'a [u8],
    /// The member, a valid name.
    pub member: &'a [u8],
    /// The timeout asked for; bounds are not checked here.
    pub timeout: Option<Millis>,
    /// The client does without the group's document.
    pub minimal: bool,
    /// Bytes of the whole request.
    pub len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    timeout: Option<Millis>,
    minimal: bool,
    /// Bytes of the query, with its `?`.
    query_len: usize,
}

impl PlainJoins {
    /// The join that `input` begins with, if it is a plain one and its tail is known.
    ///
    /// Cost: one pass over the path, one comparison of the rest.
    #[inline]
    #[must_use]
    pub fn join<'a>(&self, input: &'a [u8], limits: &Limits) -> Option<PlainJoin<'a>> {
        let path = input.strip_prefix(METHOD)?;
        let (group, rest) = path.split_at(scan::path_name_len(path));
        let rest = rest.strip_prefix(b"/")?;
        let (member, rest) = rest.split_at(scan::path_name_len(rest));
        let at = self.tails.find(rest)?;
        let Said {
            timeout,
            minimal,
            query_len,
        } = self.said[at];
        let path_len = b"/".len() + group.len() + b"/".len() + member.len();
        let len = input.len() - rest.len() + self.tails.len_of(at);
        if path_len + query_len > limits.target_bytes_max || len > limits.head_bytes_max {
            return None;
        }
        name::check_pair(group, member).ok()?;
        Some(PlainJoin {
            group,
            member,
            timeout,
            minimal,
            len,
        })
    }

    /// Keeps the tail of `request`, which `input` begins with and which was read under the same
    /// limits as all that is asked later, if it is what a plain join ends with.
    pub fn learn(&mut self, input: &[u8], request: &Request<'_>) {
        if request.method != Method::Put || !request.keep_alive || request.expect_continue {
            return;
        }
        let minimal = request.headers.prefer_minimal;
        let plain = Headers {
            prefer_minimal: minimal,
            ..Headers::default()
        };
        if request.body_len > 0 || request.headers != plain {
            return;
        }
        let mut room = NAME_BUFFER;
        let Ok(asked) = query::read(request.query, query::OF_JOINS, &mut room) else {
            return;
        };
        // An empty line before the request is seldom enough.
        let Some(target) = input[..request.head_len].strip_prefix(METHOD) else {
            return;
        };
        let tail = &target[request.path.len() - b"/".len()..];
        if !asked.takeover
            && let Some(at) = self.tails.learn(tail)
        {
            self.said[at] = Said {
                timeout: asked.timeout,
                minimal,
                query_len: scan::find(tail, b' '),
            };
        }
    }
}

const METHOD: &[u8] = b"PUT /";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Progress, Route, Scratch, parse, route};
    use proptest::prelude::*;

    const TAIL: &str = "?timeout=20s HTTP/1.1\r\nHost: x\r\nPrefer: return=minimal\r\n\r\n";

    fn knowing(heads: &[&str]) -> PlainJoins {
        let mut joins = PlainJoins::default();
        for head in heads {
            let mut progress = Progress::default();
            if let Ok(Some(request)) = parse(head.as_bytes(), &mut progress, &Limits::default()) {
                joins.learn(head.as_bytes(), &request);
            }
        }
        joins
    }

    fn known<'a>(joins: &PlainJoins, input: &'a str) -> Option<PlainJoin<'a>> {
        joins.join(input.as_bytes(), &Limits::default())
    }

    #[test]
    fn a_join_that_ends_as_the_last_one_asks_for_the_same() {
        let joins = knowing(&[&format!("PUT /g/a{TAIL}")]);
        let next = format!("PUT /other/b.c{TAIL}PUT /g");
        let join = known(&joins, &next).expect("it is known");
        assert_eq!((join.group, join.member), (&b"other"[..], &b"b.c"[..]));
        assert_eq!(join.timeout, Some(Millis(20_000)));
        assert!(join.minimal);
        assert_eq!(join.len, next.len() - "PUT /g".len());
        for cut in 0..join.len {
            assert_eq!(known(&joins, &next[..cut]), None, "cut at {cut}");
        }
        assert_eq!(known(&PlainJoins::default(), &next), None);
        for other in ["20", "20s&takeover", "21s"] {
            let next = next.replace("20s", other);
            assert_eq!(known(&joins, &next), None, "{other}");
        }
    }

    #[test]
    fn a_tail_that_asks_for_more_than_a_session_is_not_learned() {
        for tail in [
            " HTTP/1.0\r\nHost: x\r\n\r\n",
            "?takeover HTTP/1.1\r\nHost: x\r\n\r\n",
            "?timout=20 HTTP/1.1\r\nHost: x\r\n\r\n",
            "?timeout=x HTTP/1.1\r\nHost: x\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nx-group-version: 3\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nx-session-id: nonsense\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
        ] {
            let head = format!("PUT /g/a{tail}");
            assert_eq!(known(&knowing(&[&head]), &head), None, "{tail}");
        }
        let get = format!("GET /g/a{TAIL}");
        assert_eq!(known(&knowing(&[&get]), &format!("PUT /g/a{TAIL}")), None);
    }

    #[test]
    fn an_unusual_path_is_left_to_those_who_read_it_in_full() {
        let joins = knowing(&[&format!("PUT /g/a{TAIL}")]);
        for path in [
            "/g",
            "/g/",
            "//m",
            "/g/config",
            "/-/x",
            "/g/..",
            "/g/a/config",
            "/%67/a",
        ] {
            assert_eq!(known(&joins, &format!("PUT {path}{TAIL}")), None, "{path}");
        }
        let long = "x".repeat(256);
        assert_eq!(known(&joins, &format!("PUT /g/{long}{TAIL}")), None);
        assert!(known(&joins, &format!("PUT /g/{}{TAIL}", &long[1..])).is_some());
    }

    #[test]
    fn the_limits_hold() {
        let head = format!("PUT /g/abc{TAIL}");
        let joins = knowing(&[&head]);
        let target = "/g/abc?timeout=20s".len();
        let of = |target_bytes_max, head_bytes_max| Limits {
            target_bytes_max,
            head_bytes_max,
            ..Limits::default()
        };
        let is_known = |limits| joins.join(head.as_bytes(), &limits).is_some();
        assert!(is_known(of(target, head.len())));
        assert!(!is_known(of(target - 1, head.len())));
        assert!(!is_known(of(target, head.len() - 1)));
    }

    proptest! {
        #[test]
        fn what_is_known_is_what_a_full_reading_says(
            tail in "(\\?(timeout=[0-9]s?|takeover|x)?)?[ ?]HTTP/1.[01]\r\nHost: [a-b]\r\n(Prefer: return=minimal\r\n|If-None-Match: \\*\r\n|Content-Length: [01]\r\n)?\r\n",
            path in prop_oneof!["/[a-c]{1,2}/[a-c]{1,2}(\\?timeout=3)?", "[ -~é]{1,6}", "/(g|-|\\.\\.)/(m|config|\\.)"],
            cut in 0usize..96,
        ) {
            let joins = knowing(&[&format!("PUT /g/m{tail}."), "PUT /g/m HTTP/1.1\r\nHost: a\r\n\r\n"]);
            let whole = format!("PUT {path}{tail}.");
            let input = &whole.as_bytes()[..whole.len().min(cut)];
            for input in [input, whole.as_bytes()] {
                let Some(join) = joins.join(input, &Limits::default()) else { continue };
                let request = parse(input, &mut Progress::default(), &Limits::default());
                let request = request.expect("it is well").expect("it is whole");
                prop_assert_eq!(request.total_len(), join.len);
                prop_assert!(request.keep_alive && !request.expect_continue);
                prop_assert_eq!(request.headers.prefer_minimal, join.minimal);
                let mut scratch = Scratch::new();
                let route = route(&request, &mut scratch).expect("it leads somewhere");
                prop_assert_eq!(route, Route::Join {
                    group: join.group,
                    member: join.member,
                    timeout: join.timeout,
                    takeover: false,
                    only_if_absent: false,
                });
            }
        }
    }
}
