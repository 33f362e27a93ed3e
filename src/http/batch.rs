//! Heartbeats by the thousand in one body.

use std::mem;

use crate::json;
use crate::types::SessionId;

use super::name::{self, NameFault};
use super::problem::Code;
use super::scan;

/// One line of a batch by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number; the first is 1, and empty lines count.
    pub number: u32,
    /// Group and member, escapes resolved, or what is wrong with the line. The names of a
    /// good line are valid.
    pub names: Result<(&'a [u8], &'a [u8]), NameFault>,
}

/// Walks over the lines of a batch by name. Lines are `G/M`, escaped as in paths, and end
/// in LF or CR LF, the last one perhaps in nothing; empty ones are skipped.
///
/// The body is borrowed mutably, because escapes are resolved in it: so the names of many
/// lines can be held at a time and nothing is copied aside.
#[derive(Debug)]
pub struct Names<'a> {
    rest: &'a mut [u8],
    number: u32,
}

/// The lines of `body`. Cost: one pass.
#[must_use]
pub fn names(body: &mut [u8]) -> Names<'_> {
    Names {
        rest: body,
        number: 0,
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Line<'a>;

    #[inline]
    fn next(&mut self) -> Option<Line<'a>> {
        let rest = mem::take(&mut self.rest);
        // Nearly all lines are two plain names, and reading them finds their end too.
        let group_len = scan::plain_name_len(rest);
        if rest.get(group_len) == Some(&b'/') {
            let line_len = group_len + 1 + scan::plain_name_len(&rest[group_len + 1..]);
            let end_len = match rest[line_len..] {
                [] => Some(0),
                [b'\n', ..] => Some(1),
                [b'\r', b'\n', ..] => Some(2),
                _ => None,
            };
            if let Some(end_len) = end_len {
                let (line, rest) = rest.split_at_mut(line_len + end_len);
                self.rest = rest;
                self.number += 1;
                let names = (&line[..group_len], &line[group_len + 1..line_len]);
                return Some(Line {
                    number: self.number,
                    names: checked(names),
                });
            }
        }
        self.rest = rest;
        self.next_unusual()
    }
}

impl<'a> Names<'a> {
    /// A line that is empty, wrong, or has escapes or more than ASCII in it.
    #[cold]
    fn next_unusual(&mut self) -> Option<Line<'a>> {
        while !self.rest.is_empty() {
            let rest = mem::take(&mut self.rest);
            let line_len = scan::find(rest, b'\n');
            let (line, rest) = rest.split_at_mut(rest.len().min(line_len + 1));
            self.rest = rest;
            self.number += 1;
            let mut line = &mut line[..line_len];
            if let [start @ .., b'\r'] = line {
                line = start;
            }
            if !line.is_empty() {
                return Some(Line {
                    number: self.number,
                    names: resolved(line),
                });
            }
        }
        None
    }
}

/// Both names of a line that may have anything in it.
fn resolved(line: &mut [u8]) -> Result<(&[u8], &[u8]), NameFault> {
    let group_len = scan::find(line, b'/');
    if group_len == line.len() {
        // There is a group at most.
        return Err(NameFault::Empty);
    }
    let (group, member) = line.split_at_mut(group_len);
    checked((
        name::segment_in_place(group)?,
        name::segment_in_place(&mut member[1..])?,
    ))
}

#[inline]
fn checked<'a>(names: (&'a [u8], &'a [u8])) -> Result<(&'a [u8], &'a [u8]), NameFault> {
    name::check_pair(names.0, names.1).map(|()| names)
}

/// The session ids of a packed batch: 16 bytes each, big-endian. What is left over at the
/// end, which [`route`](super::route()) refuses, is ignored.
pub fn packed(body: &[u8]) -> impl ExactSizeIterator<Item = SessionId> {
    body.as_chunks::<16>()
        .0
        .iter()
        .map(|bytes| SessionId::from_bytes(*bytes))
}

/// The answer to a batch in the making: JSON that lists the failures.
///
/// ```json
/// {"failed":[{"line":3,"member":"g/m","status":404,"code":"unknown_member"}],"renewed":997}
/// ```
///
/// In the answer to a packed batch, `index` (the first is 0) and `session` stand for
/// `line` and `member`.
#[derive(Debug)]
pub struct Report<'a> {
    out: &'a mut Vec<u8>,
    failed: u64,
}

impl<'a> Report<'a> {
    /// Begins the body at the end of `out`.
    #[must_use]
    pub fn begin(out: &'a mut Vec<u8>) -> Report<'a> {
        out.extend_from_slice(b"{\"failed\":[");
        Report { out, failed: 0 }
    }

    /// The member of a line was not renewed.
    pub fn member(&mut self, line: u32, group: &[u8], member: &[u8], code: Code) {
        self.place(b"{\"line\":", line.into());
        self.out.extend_from_slice(b",\"member\":\"");
        json::escaped(self.out, group);
        self.out.push(b'/');
        json::escaped(self.out, member);
        self.out.push(b'"');
        self.verdict(code);
    }

    /// A line made no sense.
    pub fn line(&mut self, line: u32, fault: NameFault) {
        self.place(b"{\"line\":", line.into());
        self.out.extend_from_slice(b",\"detail\":\"a name ");
        json::escaped(self.out, fault.to_string().as_bytes());
        self.out.push(b'"');
        self.verdict(Code::BadName);
    }

    /// The session at a place of a packed batch was not renewed.
    pub fn session(&mut self, index: u32, id: SessionId, code: Code) {
        self.place(b"{\"index\":", index.into());
        self.out.extend_from_slice(b",\"session\":\"");
        self.out.extend_from_slice(id.to_string().as_bytes());
        self.out.push(b'"');
        self.verdict(code);
    }

    /// Ends the body; `renewed` sessions were renewed. Gives the number of failures.
    pub fn finish(self, renewed: u64) -> u64 {
        self.out.extend_from_slice(b"],\"renewed\":");
        json::number(self.out, renewed);
        self.out.extend_from_slice(b"}\n");
        self.failed
    }

    fn place(&mut self, start: &[u8], place: u64) {
        if self.failed > 0 {
            self.out.push(b',');
        }
        self.failed += 1;
        self.out.extend_from_slice(start);
        json::number(self.out, place);
    }

    fn verdict(&mut self, code: Code) {
        self.out.extend_from_slice(b",\"status\":");
        json::number(self.out, code.status().into());
        self.out.extend_from_slice(b",\"code\":\"");
        self.out.extend_from_slice(code.name().as_bytes());
        self.out.extend_from_slice(b"\"}");
    }
}

/// The members that the plain heartbeats in `input` name, as it seems without reading them
/// properly: to get ready for them. Ends at the first request that is something else.
pub fn likely_beats(input: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let target = rest.strip_prefix(b"HEAD /")?;
        let (path, after) = target.split_at_checked(scan::find(target, b' '))?;
        let (group, member) = path.split_at_checked(scan::find(path, b'/'))?;
        let member = member.strip_prefix(b"/")?;
        rest = after_head(after);
        Some((group, member))
    })
}

/// What follows the empty line; nothing if there is none.
fn after_head(mut input: &[u8]) -> &[u8] {
    loop {
        let line = scan::find(input, b'\n');
        let Some(rest) = input.get(line + 1..) else {
            return b"";
        };
        if let Some(rest) = rest.strip_prefix(b"\r\n") {
            return rest;
        }
        input = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beats_of_a_pipelined_input_are_guessed_in_order() {
        let input = b"HEAD /g/a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /g/b HTTP/1.1\r\n\r\n\
                      GET /g/c HTTP/1.1\r\n\r\nHEAD /g/d HTTP/1.1\r\n\r\n";
        let guessed: Vec<_> = likely_beats(input).collect();
        assert_eq!(
            guessed,
            [(&b"g"[..], &b"a"[..]), (b"g", b"b")],
            "up to what is no beat"
        );
        for end in 0..input.len() {
            assert!(likely_beats(&input[..end]).count() <= 2, "cut at {end}");
        }
        assert_eq!(likely_beats(b"HEAD / HTTP/1.1\r\n\r\n").count(), 0);
    }
    use proptest::prelude::*;

    type Owned = (u32, Result<(String, String), NameFault>);

    fn read(body: &str) -> Vec<Owned> {
        let mut body = body.as_bytes().to_vec();
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("UTF-8");
        names(&mut body)
            .map(|line| {
                (
                    line.number,
                    line.names
                        .map(|(group, member)| (text(group), text(member))),
                )
            })
            .collect()
    }

    fn good(number: u32, group: &str, member: &str) -> Owned {
        (number, Ok((group.to_owned(), member.to_owned())))
    }

    #[test]
    fn lines_are_read_whatever_ends_them() {
        assert_eq!(
            read("a/b\nlonger-group/longer-member.example\r\n\n\r\nc/%64\r\ne/f"),
            [
                good(1, "a", "b"),
                good(2, "longer-group", "longer-member.example"),
                good(5, "c", "d"),
                good(6, "e", "f"),
            ]
        );
        assert_eq!(read(""), []);
        assert_eq!(read("\n\n\r\n"), []);
    }

    #[test]
    fn escapes_are_resolved_and_more_than_ascii_passes() {
        assert_eq!(
            read("a%20b/ü%25\nx/y\n"),
            [good(1, "a b", "ü%"), good(2, "x", "y")]
        );
    }

    #[test]
    fn a_bad_line_spoils_only_itself() {
        let body = "nothing\na/b/c\n/b\na/\na/%2f\n-/x\na/config\na/..\na/b\rc\na/\u{85}\nx/y";
        let faults: Vec<_> = read(body).into_iter().map(|(_, names)| names).collect();
        assert_eq!(
            faults[..10],
            [
                Err(NameFault::Empty),
                Err(NameFault::Slash),
                Err(NameFault::Empty),
                Err(NameFault::Empty),
                Err(NameFault::Slash),
                Err(NameFault::Reserved),
                Err(NameFault::Config),
                Err(NameFault::Dots),
                Err(NameFault::Control),
                Err(NameFault::Control),
            ]
        );
        assert!(faults[10].is_ok());
    }

    #[test]
    fn packed_ids_are_big_endian_and_a_rest_is_ignored() {
        let ids = [SessionId(1), SessionId(u128::MAX - 5)];
        let mut body: Vec<u8> = ids.iter().flat_map(|id| id.to_bytes()).collect();
        body.extend([1; 15]);
        assert_eq!(packed(&body).collect::<Vec<_>>(), ids);
        assert_eq!(packed(&body).len(), 2);
    }

    #[test]
    fn a_report_is_json_that_lists_only_failures() {
        let mut out = Vec::new();
        let mut report = Report::begin(&mut out);
        report.member(3, b"g\"", "mü".as_bytes(), Code::UnknownMember);
        report.line(5, NameFault::Empty);
        report.session(7, SessionId(9), Code::SessionEnded);
        assert_eq!(report.finish(997), 3);
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(json["renewed"], 997);
        assert_eq!(
            json["failed"][0],
            serde_json::json!({"line": 3, "member": "g\"/mü", "status": 404, "code": "unknown_member"})
        );
        assert_eq!(json["failed"][1]["code"], "bad_name");
        assert_eq!(json["failed"][2]["session"], SessionId(9).to_string());
        assert_eq!(json["failed"][2]["status"], 410);
        let mut out = Vec::new();
        assert_eq!(Report::begin(&mut out).finish(0), 0);
        assert_eq!(out, b"{\"failed\":[],\"renewed\":0}\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end_and_good_names_are_valid(
            mut body in any::<Vec<u8>>()
        ) {
            let lines = body.split(|&b| b == b'\n').count() as u32;
            let mut last = 0;
            for line in names(&mut body) {
                prop_assert!(line.number > last && line.number <= lines);
                last = line.number;
                if let Ok((group, member)) = line.names {
                    for name in [group, member] {
                        let text = std::str::from_utf8(name).expect("names are UTF-8");
                        prop_assert!((1..=255).contains(&name.len()));
                        prop_assert!(!text.chars().any(|c| c.is_control() || c == '/'));
                    }
                }
            }
        }
    }
}
