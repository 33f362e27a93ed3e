//! HTTP, as systole, the bound and nginx speak it: the very same beat for all three.

use super::{Frame, Op, Says, Sessions, Speech};
use crate::reply;
use crate::watch::active_in;

/// See the module's doc.
pub(super) struct Http {
    sessions: Sessions,
}

impl Http {
    pub(super) fn new(sessions: Sessions) -> Http {
        Http { sessions }
    }
}

impl Speech for Http {
    fn steps(&self, op: Op) -> u8 {
        u8::from(matches!(op, Op::Create | Op::Beat | Op::Count))
    }

    fn ask(&mut self, _: u32, op: Op, _: u8, session: u32, out: &mut Vec<u8>) {
        let names = &self.sessions.names;
        match op {
            Op::Create => names.join(out, session, u64::from(self.sessions.timeout_s) * 1_000),
            Op::Beat => names.head(out, session, None),
            Op::Count => names.list(out),
            Op::Hello | Op::Prepare => {}
        }
    }

    fn frame(
        &mut self,
        _: u32,
        awaited: Option<Op>,
        input: &[u8],
        _: &mut Vec<u8>,
    ) -> Result<Option<Frame>, String> {
        let to_head = awaited == Some(Op::Beat);
        let parsed = reply::parse(input, to_head).map_err(|e| e.to_string())?;
        let Some(head) = parsed.filter(|h| input.len() >= h.total_len()) else {
            return Ok(None);
        };
        let body = &input[head.head_len..head.total_len()];
        let says = match (awaited, head.status) {
            (_, 100..=199) => Says::Aside,
            (Some(Op::Beat), 204) | (Some(Op::Create), 201) => Says::Yes(0),
            (Some(Op::Count), 200) => {
                active_in(body, &self.sessions.names.group_stem()).map_or(Says::No, Says::Yes)
            }
            _ => Says::No,
        };
        Ok(Some(Frame {
            len: head.total_len(),
            says,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(awaited: Op, input: &[u8]) -> Option<Frame> {
        let mut http = Http::new(Sessions::new(10));
        http.frame(0, Some(awaited), input, &mut Vec::new())
            .unwrap()
    }

    #[test]
    fn a_beat_and_a_create_are_asked_as_systole_wants_them() {
        let mut http = Http::new(Sessions::new(10));
        let mut out = Vec::new();
        http.ask(0, Op::Beat, 0, 7, &mut out);
        http.ask(0, Op::Create, 0, 7, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HEAD /load-00007/"), "{text}");
        assert!(
            text.contains("\r\n\r\nPUT /load-00007/") && text.contains("?timeout=10"),
            "{text}"
        );
    }

    #[test]
    fn only_the_promised_status_is_a_yes() {
        let yes = b"HTTP/1.1 204 No Content\r\n\r\n";
        let frame = read(Op::Beat, yes).unwrap();
        assert_eq!((frame.len, frame.says), (yes.len(), Says::Yes(0)));
        assert_eq!(read(Op::Beat, &yes[..20]), None);
        assert_eq!(read(Op::Create, yes).unwrap().says, Says::No);
        let not = b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n";
        assert_eq!(read(Op::Beat, not).unwrap().says, Says::No);
        assert_eq!(read(Op::Create, not), None, "the body has not come");
    }

    #[test]
    fn the_groups_counts_are_summed() {
        let body = r#"{"groups":[{"name":"load-00001","active":3},{"name":"x","active":9}]}"#;
        let text = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(read(Op::Count, text.as_bytes()).unwrap().says, Says::Yes(3));
    }
}
