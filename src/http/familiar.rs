//! Heartbeats whose heads end as an earlier one did.
//!
//! The heartbeats of a client differ in their paths alone: what follows the path, from
//! ` HTTP/1.1` to the empty line, is what its library says each time, and the clients of one
//! server mostly share a library and a `Host`. What such an end means was worked out when it
//! was first read. So the ends of the last few plain heartbeats are kept, and a head that ends
//! in the same bytes means the same: nothing in the reading of an end depends on what stands
//! before it but the limits, which are looked at here too.
//!
//! This only ever says what [`parse`](super::parse()) and [`route`](super::route()) would say,
//! sooner; of all else it says nothing.
//!
//! The same goes for joins where there is no room for them: to refuse one, no more of it matters
//! than where it ends.

use super::headers::Headers;
use super::name;
use super::parse::{Limits, Method, Request};
use super::scan;

/// The ends of heartbeats that are known.
#[derive(Debug, Default)]
pub struct Familiar {
    ends: Ends,
}

/// The ends of joins that are known.
#[derive(Debug, Default)]
pub struct FamiliarJoins {
    ends: Ends,
    /// Bytes of the body that each end announces.
    body_lens: [usize; Ends::MAX],
}

/// What follows the target, or the path, in heads that have been read.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Empty ones are none.
    known: [Vec<u8>; Ends::MAX],
    /// The one to be forgotten next.
    oldest: usize,
}

/// `HEAD /G/M` with two names that stand for themselves and headers that ask for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamiliarBeat<'a> {
    /// The group, a valid name.
    pub group: &'a [u8],
    /// The member, a valid name.
    pub member: &'a [u8],
    /// Bytes of the whole request.
    pub len: usize,
}

/// A heartbeat that was read, to be known again where it comes once more.
#[derive(Clone, Copy, Debug)]
pub struct SeenBeat {
    /// What it begins with; its names end in here.
    begin: [u8; SEEN_BYTES],
    group_len: u8,
    member_len: u8,
}

impl SeenBeat {
    /// Of `beat`, which `input` begins with; `None` if its names are too long to be kept.
    #[inline]
    #[must_use]
    pub fn of(input: &[u8], beat: &FamiliarBeat<'_>) -> Option<SeenBeat> {
        let begin = *input.first_chunk()?;
        let names_len = METHOD.len() + beat.group.len() + b"/".len() + beat.member.len();
        (names_len <= SEEN_BYTES).then_some(SeenBeat {
            begin,
            group_len: beat.group.len() as u8,
            member_len: beat.member.len() as u8,
        })
    }
}

impl Familiar {
    /// As [`Familiar::beat`], where `input` may begin with what was `seen`; `None` if it does
    /// not, and then it may still begin with another heartbeat.
    ///
    /// Cost: two comparisons. The names need no pass: they are the same, and so well.
    #[inline]
    #[must_use]
    pub fn again<'a>(
        &self,
        seen: &SeenBeat,
        input: &'a [u8],
        limits: &Limits,
    ) -> Option<FamiliarBeat<'a>> {
        if input.first_chunk() != Some(&seen.begin) {
            return None;
        }
        let path = &input[METHOD.len()..];
        let (group, rest) = path.split_at_checked(usize::from(seen.group_len))?;
        let (member, rest) = rest
            .get(1..)?
            .split_at_checked(usize::from(seen.member_len))?;
        self.end(input, group, member, rest, limits)
    }

    /// The heartbeat that `input` begins with, if it is a plain one and its end is known.
    ///
    /// Cost: one pass over the path, one comparison of the rest.
    #[inline]
    #[must_use]
    pub fn beat<'a>(&self, input: &'a [u8], limits: &Limits) -> Option<FamiliarBeat<'a>> {
        let path = input.strip_prefix(METHOD)?;
        let (group, member, rest) = match scan::path_names(path) {
            Some((group_len, member_len)) => {
                let (group, rest) = path.split_at(group_len);
                let (member, rest) = rest[1..].split_at(member_len);
                (group, member, rest)
            }
            None => {
                let (group, rest) = path.split_at(scan::path_name_len(path));
                let rest = rest.strip_prefix(b"/")?;
                let (member, rest) = rest.split_at(scan::path_name_len(rest));
                (group, member, rest)
            }
        };
        let beat = self.end(input, group, member, rest, limits)?;
        name::check_pair(group, member).ok()?;
        Some(beat)
    }

    /// The heartbeat of these names if its head, of which the `rest` is to be read, is well.
    #[inline]
    fn end<'a>(
        &self,
        input: &[u8],
        group: &'a [u8],
        member: &'a [u8],
        rest: &[u8],
        limits: &Limits,
    ) -> Option<FamiliarBeat<'a>> {
        let end_len = self.ends.len_of(self.ends.find(rest)?);
        let target_len = b"/".len() + group.len() + b"/".len() + member.len();
        let len = input.len() - rest.len() + end_len;
        let is_within = target_len <= limits.target_bytes_max && len <= limits.head_bytes_max;
        is_within.then_some(FamiliarBeat { group, member, len })
    }

    /// Keeps the end of `request`, which `input` begins with and which was read under the same
    /// limits as all that is asked later, if it is a plain heartbeat.
    pub fn learn(&mut self, input: &[u8], request: &Request<'_>) {
        let is_plain = request.method == Method::Head
            && request.keep_alive
            && request.body_len == 0
            && !request.expect_continue
            && request.headers == Headers::default();
        if !is_plain {
            return;
        }
        if let Some(end) = end_of(input, METHOD, request) {
            self.ends.learn(end);
        }
    }
}

impl FamiliarJoins {
    /// The bytes of the join that `input` begins with, if all of it is there, its path has two
    /// names that stand for themselves, and its end is known. What is wrong with it beyond its
    /// form, its query above all, is not looked at.
    ///
    /// Cost: one pass over the target, one comparison of the rest.
    #[inline]
    #[must_use]
    pub fn len(&self, input: &[u8], limits: &Limits) -> Option<usize> {
        let path = input.strip_prefix(JOIN_METHOD)?;
        let (group, rest) = path.split_at(scan::path_name_len(path));
        let rest = rest.strip_prefix(b"/")?;
        let (member, mut rest) = rest.split_at(scan::path_name_len(rest));
        if let Some(query) = rest.strip_prefix(b"?") {
            rest = &query[scan::target_len(query)..];
        }
        let at = self.ends.find(rest)?;
        let target_len = b"/".len() + path.len() - rest.len();
        let head_len = input.len() - rest.len() + self.ends.len_of(at);
        let len = head_len + self.body_lens[at];
        if target_len > limits.target_bytes_max
            || head_len > limits.head_bytes_max
            || len > input.len()
        {
            return None;
        }
        name::check_pair(group, member).ok()?;
        Some(len)
    }

    /// Keeps the end of `request`, as [`Familiar::learn`] does, if it is a PUT that was led
    /// somewhere and wants no word before its body.
    pub fn learn(&mut self, input: &[u8], request: &Request<'_>) {
        if request.method != Method::Put || !request.keep_alive || request.expect_continue {
            return;
        }
        let end = end_of(input, JOIN_METHOD, request);
        if let Some(at) = end.and_then(|end| self.ends.learn(end)) {
            self.body_lens[at] = request.body_len;
        }
    }
}

impl Ends {
    /// As many as there are likely to be kinds of clients at a time; each costs a comparison.
    pub(super) const MAX: usize = 4;

    /// Which of the known ends `rest` begins with.
    #[inline]
    pub(super) fn find(&self, rest: &[u8]) -> Option<usize> {
        let is_end = |end: &Vec<u8>| !end.is_empty() && rest.starts_with(end);
        self.known.iter().position(is_end)
    }

    /// Bytes of a known end.
    #[inline]
    pub(super) fn len_of(&self, at: usize) -> usize {
        self.known[at].len()
    }

    /// Keeps `end`, unless it is known or too long. Returns where.
    pub(super) fn learn(&mut self, end: &[u8]) -> Option<usize> {
        if end.len() > END_BYTES_MAX || self.known.iter().any(|known| known == end) {
            return None;
        }
        let at = self.oldest;
        self.known[at].clear();
        self.known[at].extend_from_slice(end);
        self.oldest = (at + 1) % Ends::MAX;
        Some(at)
    }
}

/// What follows the target in the head of `request`, which `input` begins with.
fn end_of<'a>(input: &'a [u8], method: &[u8], request: &Request<'_>) -> Option<&'a [u8]> {
    // An empty line before the request is seldom enough.
    let target = input[..request.head_len].strip_prefix(method)?;
    Some(&target[scan::find(target, b' ')..])
}

const METHOD: &[u8] = b"HEAD /";
const JOIN_METHOD: &[u8] = b"PUT /";
/// Names longer than this less 7 bytes are read anew.
const SEEN_BYTES: usize = 64;
/// Longer ends are read in full.
const END_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Progress, Route, Scratch, parse, route};
    use proptest::prelude::*;

    const END: &str = " HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n";

    fn knowing(heads: &[&str]) -> Familiar {
        let mut familiar = Familiar::default();
        for head in heads {
            learn(&mut familiar, head.as_bytes());
        }
        familiar
    }

    fn learn(familiar: &mut Familiar, input: &[u8]) {
        let limits = Limits::default();
        if let Ok(Some(request)) = parse(input, &mut Progress::default(), &limits) {
            familiar.learn(input, &request);
        }
    }

    fn names<'a>(familiar: &Familiar, input: &'a str) -> Option<(&'a str, &'a str)> {
        let beat = familiar.beat(input.as_bytes(), &Limits::default())?;
        let text = |name| std::str::from_utf8(name).expect("UTF-8");
        Some((text(beat.group), text(beat.member)))
    }

    #[test]
    fn a_heartbeat_that_ends_as_the_last_one_is_known() {
        let familiar = knowing(&[&format!("HEAD /g/a{END}")]);
        let next = format!("HEAD /other/b.c{END}HEAD /g");
        assert_eq!(names(&familiar, &next), Some(("other", "b.c")));
        let beat = familiar.beat(next.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(beat.len, next.len() - "HEAD /g".len());
        for cut in 0..beat.len {
            assert_eq!(names(&familiar, &next[..cut]), None, "cut at {cut}");
        }
        assert_eq!(names(&Familiar::default(), &next), None);
    }

    #[test]
    fn a_heartbeat_that_was_seen_is_known_again_and_no_other_is_taken_for_it() {
        let familiar = knowing(&[&format!("HEAD /g/a{END}")]);
        let limits = Limits::default();
        let longest = "m".repeat(SEEN_BYTES - "HEAD /group/".len());
        let head = |member: &str| format!("HEAD /group/{member}{END}");
        let seen = |head: &str| {
            let beat = familiar.beat(head.as_bytes(), &limits).expect("a beat");
            SeenBeat::of(head.as_bytes(), &beat)
        };
        for member in ["some-member-of-the-group", &longest] {
            let head = head(member);
            let seen = seen(&head).expect("it is short enough");
            let again = |input: &[u8]| familiar.again(&seen, input, &limits).map(|beat| beat.len);
            assert_eq!(again(head.as_bytes()), Some(head.len()));
            for at in 0..head.len() {
                let mut other = head.clone().into_bytes();
                assert_eq!(again(&other[..at]), None, "cut at {at}");
                other[at] ^= 1;
                assert_eq!(again(&other), None, "changed at {at}");
            }
            let beat = familiar
                .again(&seen, head.as_bytes(), &limits)
                .expect("known");
            assert_eq!(
                beat,
                familiar.beat(head.as_bytes(), &limits).expect("known")
            );
            let tight = Limits {
                head_bytes_max: head.len() - 1,
                ..limits
            };
            assert_eq!(familiar.again(&seen, head.as_bytes(), &tight), None);
            assert_eq!(
                Familiar::default().again(&seen, head.as_bytes(), &limits),
                None
            );
        }
        assert!(
            seen(&head(&format!("{longest}m"))).is_none(),
            "its names end beyond"
        );
        let short = "HEAD /g/a HTTP/1.1\r\nHost: x\r\n\r\n";
        let knows_short = knowing(&[short]);
        let beat = knows_short.beat(short.as_bytes(), &limits).expect("a beat");
        assert!(
            SeenBeat::of(short.as_bytes(), &beat).is_none(),
            "too short to keep"
        );
    }

    #[test]
    fn an_end_that_asks_for_anything_is_not_learned() {
        let ends = [
            " HTTP/1.0\r\nHost: x\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nx-group-version: 3\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nx-session-id: 00000000000000000000000000000001\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nx-session-id: nonsense\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
        ];
        for end in ends {
            let head = format!("HEAD /g/a{end}");
            assert_eq!(names(&knowing(&[&head]), &head), None, "{end}");
        }
        let get = format!("GET /g/a{END}");
        assert_eq!(names(&knowing(&[&get]), &format!("HEAD /g/a{END}")), None);
    }

    #[test]
    fn an_unusual_path_is_left_to_those_who_read_it_in_full() {
        let familiar = knowing(&[&format!("HEAD /g/a{END}")]);
        for path in [
            "/g",
            "/g/",
            "//m",
            "/g/config",
            "/-/livez",
            "/./m",
            "/g/..",
            "/g/a/b",
            "/g/a?x=1",
            "/%67/a",
            "/g/é",
            "/g/a\"",
        ] {
            assert_eq!(
                names(&familiar, &format!("HEAD {path}{END}")),
                None,
                "{path}"
            );
        }
        let long = "x".repeat(256);
        assert_eq!(names(&familiar, &format!("HEAD /g/{long}{END}")), None);
        assert_eq!(names(&familiar, &format!("HEAD /{long}/m{END}")), None);
        assert!(names(&familiar, &format!("HEAD /g/{}{END}", &long[1..])).is_some());
    }

    #[test]
    fn the_limits_hold() {
        let head = format!("HEAD /g/abc{END}");
        let familiar = knowing(&[&head]);
        let of = |target_bytes_max, head_bytes_max| Limits {
            target_bytes_max,
            head_bytes_max,
            ..Limits::default()
        };
        let is_known = |limits| familiar.beat(head.as_bytes(), &limits).is_some();
        assert!(is_known(of(6, head.len())));
        assert!(!is_known(of(5, head.len())));
        assert!(!is_known(of(6, head.len() - 1)));
    }

    #[test]
    fn a_few_ends_are_kept_and_the_oldest_goes_first() {
        let heads: Vec<_> = (0..=Ends::MAX)
            .map(|kind| format!("HEAD /g/a HTTP/1.1\r\nHost: x{kind}\r\n\r\n"))
            .collect();
        let mut familiar = Familiar::default();
        for head in &heads[..Ends::MAX] {
            learn(&mut familiar, head.as_bytes());
            learn(&mut familiar, head.as_bytes());
        }
        assert!(
            heads[..Ends::MAX]
                .iter()
                .all(|head| names(&familiar, head).is_some())
        );
        learn(&mut familiar, heads[Ends::MAX].as_bytes());
        assert_eq!(names(&familiar, &heads[0]), None);
        assert!(
            heads[1..]
                .iter()
                .all(|head| names(&familiar, head).is_some())
        );
        let long = format!(
            "HEAD /g/a HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
            "b".repeat(1024)
        );
        learn(&mut familiar, long.as_bytes());
        assert_eq!(names(&familiar, &long), None);
        assert!(
            names(&familiar, &heads[1]).is_some(),
            "nothing was forgotten for it"
        );
    }

    const JOIN_END: &str = " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n";

    fn joins_knowing(heads: &[&str]) -> FamiliarJoins {
        let mut joins = FamiliarJoins::default();
        for head in heads {
            let read = parse(
                head.as_bytes(),
                &mut Progress::default(),
                &Limits::default(),
            );
            if let Ok(Some(request)) = read {
                joins.learn(head.as_bytes(), &request);
            }
        }
        joins
    }

    fn join_len(joins: &FamiliarJoins, input: &str) -> Option<usize> {
        joins.len(input.as_bytes(), &Limits::default())
    }

    #[test]
    fn a_join_that_ends_as_another_is_as_long_as_its_head_and_the_body_announced() {
        let joins = joins_knowing(&[&format!("PUT /g/a?timeout=1{JOIN_END}{{}}")]);
        for target in ["/other/b.c", "/g/a?timeout=nonsense&x"] {
            let join = format!("PUT {target}{JOIN_END}{{}}");
            assert_eq!(join_len(&joins, &format!("{join}PUT /g")), Some(join.len()));
            for cut in 0..join.len() {
                assert_eq!(join_len(&joins, &join[..cut]), None, "cut at {cut}");
            }
            assert_eq!(join_len(&FamiliarJoins::default(), &join), None);
        }
    }

    #[test]
    fn a_join_whose_end_asks_for_more_than_an_answer_is_not_learned() {
        for end in [
            " HTTP/1.0\r\nHost: x\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
        ] {
            let head = format!("PUT /g/a{end}");
            assert_eq!(join_len(&joins_knowing(&[&head]), &head), None, "{end}");
        }
        let (end, path) = (" HTTP/1.1\r\nHost: x\r\n\r\n", "/g/a");
        let post = format!("POST {path}{end}");
        assert_eq!(
            join_len(&joins_knowing(&[&post]), &format!("PUT {path}{end}")),
            None
        );
    }

    #[test]
    fn the_limits_hold_for_joins() {
        let join = format!("PUT /g/abc?x=1{JOIN_END}{{}}");
        let joins = joins_knowing(&[&join]);
        let of = |target_bytes_max, head_bytes_max| Limits {
            target_bytes_max,
            head_bytes_max,
            ..Limits::default()
        };
        let is_known = |limits| joins.len(join.as_bytes(), &limits).is_some();
        assert!(is_known(of(10, join.len() - 2)));
        assert!(!is_known(of(9, join.len() - 2)));
        assert!(!is_known(of(10, join.len() - 3)));
    }

    proptest! {
        #[test]
        fn where_a_familiar_join_ends_is_where_a_full_reading_ends(
            known in " HTTP/1.[01]\r\nHost: [a-b]\r\n(Content-Length: [0-3]\r\n|If-Match: \\*\r\n)?\r\n",
            path in prop_oneof!["/[a-c]{1,2}/[a-c]{1,2}(\\?[ -~é\r\n]{0,6})?", "[ -~é\r\n]{1,8}"],
            cut in 0usize..96,
        ) {
            let joins = joins_knowing(&[&format!("PUT /g/m{known}...")]);
            let whole = format!("PUT {path}{known}...");
            let input = &whole.as_bytes()[..whole.len().min(cut)];
            for input in [input, whole.as_bytes()] {
                let Some(len) = joins.len(input, &Limits::default()) else { continue };
                let request = parse(input, &mut Progress::default(), &Limits::default());
                let request = request.expect("it is well").expect("it is whole");
                prop_assert_eq!(request.total_len(), len);
                prop_assert!(len <= input.len());
                prop_assert!(request.keep_alive && !request.expect_continue);
                prop_assert_eq!(request.method, Method::Put);
            }
        }

        #[test]
        fn what_is_familiar_is_what_a_full_reading_says(
            known in "(HEAD|GET) /[a-c%/.-]{1,4}[ ?]HTTP/1.[01]\r\nHost: [a-b]\r\n(Prefer: x\r\n|If-Match: \\*\r\n)?\r\n",
            path in prop_oneof!["/[a-c]{1,2}/[a-c]{1,2}", "[ -~é]{1,6}", "/(g|-|\\.\\.)/(m|config|\\.)"],
            cut in 0usize..64,
        ) {
            let mut familiar = knowing(&["HEAD /g/m HTTP/1.1\r\nHost: a\r\n\r\n"]);
            learn(&mut familiar, known.as_bytes());
            let at = known.find(" HTTP").unwrap_or(known.len());
            let whole = format!("HEAD {path}{}", &known[at..]);
            let input = &whole.as_bytes()[..whole.len().min(cut)];
            for input in [input, whole.as_bytes()] {
                let Some(beat) = familiar.beat(input, &Limits::default()) else { continue };
                let request = parse(input, &mut Progress::default(), &Limits::default());
                let request = request.expect("it is well").expect("it is whole");
                prop_assert_eq!(request.total_len(), beat.len);
                prop_assert!(request.keep_alive);
                let mut scratch = Scratch::new();
                let route = route(&request, &mut scratch).expect("it leads somewhere");
                prop_assert_eq!(route, Route::Beat { group: beat.group, member: beat.member });
            }
        }
    }
}
