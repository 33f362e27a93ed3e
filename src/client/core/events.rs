//! Server-sent events: the lines of the stream, put together to events.
//!
//! The format is WHATWG's "text/event-stream", as far as a systole uses it: `id`, `event` and
//! `data` fields, comments, `retry`, and lines that end in LF or CR LF.

use crate::time::Millis;

/// One event of a group's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The group's version after it: what a resumption names. Of several events of one version
    /// the last alone has it.
    pub id: Option<u64>,
    /// `snapshot`, `join`, `leave`, `expire`, `config` or `remove`.
    pub kind: String,
    /// JSON: of a snapshot the group's document, of the others whom it is about.
    pub data: String,
}

/// Puts events together from lines.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    open: Change,
    begun: bool,
    retry: Option<Millis>,
}

impl Parser {
    /// How long the server asks to be left alone once the stream is lost, [`RETRY_MAX`] at most;
    /// `None` if it has not said.
    pub(crate) fn retry(&self) -> Option<Millis> {
        self.retry
    }

    /// Takes the next line, its end removed, and gives the event that it ends, if it ends one.
    pub(crate) fn line(&mut self, line: &str) -> Option<Change> {
        if line.is_empty() {
            let whole = std::mem::take(&mut self.open);
            return std::mem::take(&mut self.begun).then_some(whole);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.open.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.open.kind),
            "data" => {
                if !self.open.data.is_empty() {
                    self.open.data.push('\n');
                }
                self.open.data.push_str(value);
            }
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // More digits than a number holds are more than the most as well.
                let asked = value.parse().map_or(RETRY_MAX, Millis);
                self.retry = Some(asked.min(RETRY_MAX));
                return None;
            }
            // Comments, which begin with a colon, and what is not known.
            _ => return None,
        }
        self.begun = true;
        None
    }
}

/// The longest that a client stays away because a server asked it to: one that says more has
/// lost its mind, and other servers could be asked.
const RETRY_MAX: Millis = Millis(10_000);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &str) -> Vec<Change> {
        let mut parser = Parser::default();
        stream
            .lines()
            .filter_map(|line| parser.line(line))
            .collect()
    }

    #[test]
    fn events_are_told_apart_by_empty_lines_and_comments_are_nothing() {
        let stream = ": hello\n\nid: 3\nevent: join\ndata: {\"member\":\"a\"}\n\n: still here\n\n\
                      id:4\r\nevent:leave\r\ndata:{}\r\n\r\nid: 5\nevent: cut";
        let change = |id, kind: &str, data: &str| Change {
            id: Some(id),
            kind: kind.to_owned(),
            data: data.to_owned(),
        };
        let expected = [
            change(3, "join", "{\"member\":\"a\"}"),
            change(4, "leave", "{}"),
        ];
        assert_eq!(read(stream), expected);
    }

    #[test]
    fn data_in_several_lines_is_one_text() {
        let events = read("data: {\ndata:  \"a\": 1}\nretry: 5\n\n");
        assert_eq!(events[0].data, "{\n \"a\": 1}");
        assert_eq!(events[0].id, None);
    }

    #[test]
    fn the_last_pause_that_is_a_number_holds_up_to_the_longest() {
        let mut parser = Parser::default();
        assert_eq!(parser.retry(), None);
        for (line, expected) in [
            ("retry: 700", 700),
            ("retry: soon", 700),
            ("retry: -1", 700),
            ("retry:", 700),
            ("retry:2400", 2_400),
            ("retry: 0", 0),
            ("retry: 10001", 10_000),
            ("retry: 99999999999999999999999", 10_000),
        ] {
            assert_eq!(parser.line(line), None);
            assert_eq!(parser.line(""), None, "{line} is no event");
            assert_eq!(parser.retry(), Some(Millis(expected)), "{line}");
        }
    }
}
