//! What one listener is sent of a group: a snapshot where it needs one, then each event of the
//! group's ring from its place on.
//!
//! A listener keeps no events of its own. It has a place in the ring that all listeners of the
//! group share, and is sent on from there as fast as it reads. One that reads so slowly that
//! the ring has forgotten its place is ended: it comes back with the last version it has seen.

use std::rc::Rc;
use std::sync::Arc;

use super::conn::{ConnId, Next};
use super::document::{PIECE_BYTES, Rendered};
use super::room::Spot;
use super::{Phase, Shard};
use crate::group::{Notice, Rank, on_one_line};
use crate::http;
use crate::time::Millis;

/// A listener's place among the events of a group.
pub(super) struct Events {
    /// The number in the ring of the next event to be sent.
    next: u64,
    /// Events up to this are not sent: what the listener has shows them.
    floor: Rank,
    /// The life of the ring that `next` belongs to; `None` if the listener has nothing that
    /// events could change, and a snapshot must come first.
    life: Option<u32>,
    /// To be sent before anything else.
    first: Option<First>,
    /// In chunks; otherwise the end of the connection is the end of the events.
    chunked: bool,
    /// It is in one of its spot's lists.
    listed: bool,
}

/// What comes before the events of the ring.
enum First {
    /// The group as it is, and how many pieces of it have been sent.
    Snapshot(Rc<Rendered>, usize),
    /// The group is gone.
    Removal(Arc<Notice>),
}

/// What a call of [`Events::send`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// There is more.
    More,
    /// The listener has everything that there is.
    All,
    /// Its place belongs to an earlier life of the ring.
    Lost,
    /// The ring has forgotten its place.
    TooSlow,
}

impl Events {
    /// A listener that goes on at `next`, in this life of the ring.
    pub(super) fn resumed(next: u64, floor: Rank, life: u32, chunked: bool) -> Events {
        Events {
            next,
            floor,
            life: Some(life),
            first: None,
            chunked,
            listed: false,
        }
    }

    /// A listener that has nothing yet.
    pub(super) fn new(chunked: bool) -> Events {
        Events {
            life: None,
            ..Events::resumed(0, Rank::NOTHING, 0, chunked)
        }
    }

    /// Gives it the group as it is, from which the events from `next` on lead further.
    pub(super) fn show(&mut self, rendered: Rc<Rendered>, next: u64, life: u32) {
        self.floor = Rank::of(rendered.version());
        self.first = Some(First::Snapshot(rendered, 0));
        self.next = next;
        self.life = Some(life);
    }

    /// Tells it, unless it has nothing anyway, that the group is gone. When there is one again,
    /// it needs to be shown it.
    pub(super) fn lose(&mut self, removal: Arc<Notice>) {
        if self.life.take().is_some() {
            self.first = Some(First::Removal(removal));
        }
    }

    /// True if it has everything of this life of the ring, or will have once it is sent.
    pub(super) fn is_of(&self, life: u32) -> bool {
        self.life == Some(life)
    }

    /// True if something is to be sent that does not stand in the ring.
    pub(super) fn has_first(&self) -> bool {
        self.first.is_some()
    }

    /// Takes note that it is in a list now, or in none; tells what was the case.
    pub(super) fn list(&mut self, listed: bool) -> bool {
        std::mem::replace(&mut self.listed, listed)
    }

    /// Appends a comment if the listener has heard nothing for long.
    pub(super) fn comment(&self, silent: Millis, out: &mut Vec<u8>) -> bool {
        // In the middle of a snapshot it would be part of that.
        let due = silent >= COMMENT_PERIOD && self.first.is_none();
        if due {
            http::piece(out, b":\n\n", self.chunked);
        }
        due
    }

    /// Appends what comes next, about [`PIECE_BYTES`] at most; counts the events.
    fn send(&mut self, spot: &Spot, out: &mut Vec<u8>, count: &mut u64) -> Sent {
        let start = out.len();
        while out.len() - start < PIECE_BYTES {
            if self.first.is_some() {
                self.send_first(out);
                continue;
            }
            if self.life != Some(spot.life) {
                return if self.life.is_none() && spot.exists.is_none() {
                    Sent::All
                } else {
                    Sent::Lost
                };
            }
            match spot.ring.get(self.next) {
                Err(_) => return Sent::TooSlow,
                Ok(None) => return Sent::All,
                Ok(Some(notice)) => {
                    self.next += 1;
                    if notice.rank() > self.floor {
                        *count += 1;
                        out.extend_from_slice(self.form(notice));
                    }
                }
            }
        }
        Sent::More
    }

    fn form<'a>(&self, notice: &'a Notice) -> &'a [u8] {
        if self.chunked {
            notice.chunk()
        } else {
            notice.text()
        }
    }

    fn send_first(&mut self, out: &mut Vec<u8>) {
        let text = match &mut self.first {
            None => return,
            Some(First::Removal(notice)) => {
                let notice = Arc::clone(notice);
                self.first = None;
                return out.extend_from_slice(self.form(&notice));
            }
            Some(First::Snapshot(rendered, sent)) => {
                let text = snapshot_piece(rendered, *sent);
                *sent += 1;
                text
            }
        };
        match text {
            Some(text) => http::piece(out, &text, self.chunked),
            None => {
                http::piece(out, b"\n\n", self.chunked);
                self.first = None;
            }
        }
    }

    /// Appends the end.
    fn end(&self, out: &mut Vec<u8>) {
        if self.chunked {
            out.extend_from_slice(http::LAST_CHUNK);
        }
    }
}

/// A piece of a snapshot event: the document on one line, with its version in it.
fn snapshot_piece(rendered: &Rendered, index: usize) -> Option<Vec<u8>> {
    // The endpoints stand in the first piece, which has been rendered already.
    let piece = rendered.piece(index, &[])?;
    let mut text = Vec::with_capacity(piece.len() + SNAPSHOT_HEAD_BYTES_GUESS);
    let mut rest = &piece[..];
    if index == 0 {
        let version = rendered.version();
        let head = format!("event: snapshot\nid: {version}\ndata: {{\"version\":{version},");
        text.extend_from_slice(head.as_bytes());
        debug_assert_eq!(rest.first(), Some(&b'{'), "a document is an object");
        rest = &rest[1..];
    }
    let start = text.len();
    text.extend_from_slice(rest);
    on_one_line(&mut text[start..]);
    Some(text)
}

impl Shard {
    /// Goes on with the events of a connection that listens.
    pub(super) fn send_events(&mut self, conn: ConnId, out: &mut Vec<u8>) -> Next {
        let Shard {
            conns,
            room,
            phase,
            counters,
            ..
        } = self;
        let Some(open) = conns.get_mut(conn.index as usize) else {
            return Next::Close;
        };
        let Some(index) = open.hangs else {
            return Next::Close;
        };
        let Some(events) = open.events() else {
            return Next::Close;
        };
        if *phase == Phase::Stopping {
            events.end(out);
            return self.end_events(conn);
        }
        let mut count = 0;
        let sent = events.send(room.spot(index), out, &mut count);
        counters.watch_events.add(count);
        match sent {
            Sent::More => Next::More,
            Sent::TooSlow => {
                events.end(out);
                counters.watch_dropped.add(1);
                self.end_events(conn)
            }
            Sent::All | Sent::Lost => {
                if !events.list(true) {
                    room.list(index, conn, sent == Sent::Lost);
                }
                open.rest()
            }
        }
    }

    fn end_events(&mut self, conn: ConnId) -> Next {
        let Some(open) = self.conn(conn) else {
            return Next::Close;
        };
        open.stream = None;
        open.last = true;
        let hung = open.hangs.take();
        let next = open.rest();
        if let Some(spot) = hung {
            self.leave_room(conn, spot);
        }
        next
    }
}

/// A listener that hears nothing else hears a comment, so that it, and whatever stands between,
/// know that the connection lives.
const COMMENT_PERIOD: Millis = Millis(15_000);
/// What comes before the document in a snapshot event.
const SNAPSHOT_HEAD_BYTES_GUESS: usize = 96;
