//! Watching a group: a stream of server-sent events that is taken up again where it was lost.

use std::io::{self, BufRead, Read};

use super::core::call::{Call, group_path};
use super::core::events::{Change, Parser};
use super::group::done;
use super::http::Stream;
use super::{Client, Error, clock};
use crate::time::Millis;

/// What happens in a group, in order. See [`Watch::next`].
pub struct Watch {
    client: Client,
    group: String,
    /// What the last event that was given is named by, for the next server to go on from.
    last_id: Option<u64>,
    open: Option<Open>,
}

struct Open {
    endpoint: String,
    stream: Stream,
    parser: Parser,
}

impl Watch {
    pub(super) fn new(client: Client, group: &str) -> Watch {
        Watch {
            client,
            group: group.to_owned(),
            last_id: None,
            open: None,
        }
    }

    /// Blocks until something happens, and says what. The first is a `snapshot` with the group's
    /// document, and so is what comes in place of more than the servers remember.
    ///
    /// A stream that is lost is taken up again, at another server if need be, behind the last
    /// event that was given. The server that it came from is left alone for as long as it asked to be.
    ///
    /// # Errors
    /// `Unreachable` or `Unavailable` once all servers were asked in vain; a further call asks
    /// again, and misses nothing. `Refused` if they will not have it. That there is no such group
    /// is no error: it is waited for.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that gave an error would be over"
    )]
    pub fn next(&mut self) -> Result<Change, Error> {
        loop {
            if self.open.is_none() {
                self.open = Some(self.connect()?);
            }
            let Some(open) = &mut self.open else { continue };
            match open.read() {
                Ok(change) => {
                    self.last_id = change.id.or(self.last_id);
                    return Ok(change);
                }
                Err(_) => {
                    let endpoint = open.endpoint.clone();
                    // Another server is asked at once: the longer that takes, the less it may
                    // still know of what came behind the last event.
                    let pause = open.parser.retry();
                    self.open = None;
                    self.client
                        .endpoints()
                        .failed(&endpoint, clock::now(), pause);
                }
            }
        }
    }

    /// The server that the stream comes from, while there is one.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.open.as_ref().map(|open| &*open.endpoint)
    }

    fn connect(&self) -> Result<Open, Error> {
        let mut call = Call::new("GET", group_path(&self.group)).header("accept", EVENT_STREAM);
        if let Some(id) = self.last_id {
            call = call.header("last-event-id", id);
        }
        let (mut endpoint, http) = (String::new(), &self.client.http);
        let asked = self.client.ask(|name, _| {
            name.clone_into(&mut endpoint);
            http.stream(name, &call, SILENCE)
        });
        let (answer, stream) = asked?;
        done(answer)?;
        Ok(Open {
            endpoint,
            stream: stream.ok_or(Error::Strange("events"))?,
            parser: Parser::default(),
        })
    }
}

impl Open {
    /// The next event; fails where the stream ends.
    fn read(&mut self) -> io::Result<Change> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut self.stream).take(LINE_BYTES_MAX);
            limited.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let text = std::str::from_utf8(&line);
            let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some(change) = self.parser.line(text) {
                return Ok(change);
            }
        }
    }
}

const EVENT_STREAM: &str = "text/event-stream";
/// A server says something every 15 s, be it nothing: one that is silent for longer is lost.
const SILENCE: Millis = Millis(20_000);
/// The longest line of a stream: the document of a group of ten million.
const LINE_BYTES_MAX: u64 = 1 << 30;
