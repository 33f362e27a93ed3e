//! A connection as the shard sees it: what it has not used of the input, and its answers in
//! the order of the requests.

use std::collections::VecDeque;

use super::document::Pieces;
use super::events::Events;
use super::{Place, Shard};
use crate::group::Joined;
use crate::http;
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// A connection: its place in the slab, and which use of that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// The place in the slab, from 0.
    pub index: u32,
    /// Raised at each use of the place, so that a late answer finds no stranger there.
    pub generation: u32,
}

impl ConnId {
    /// Both halves as one word: what an epoll event carries.
    #[must_use]
    pub fn key(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The inverse of [`ConnId::key`].
    #[must_use]
    pub fn from_key(key: u64) -> ConnId {
        ConnId {
            index: key as u32,
            generation: (key >> 32) as u32,
        }
    }
}

/// What is to be done next with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read on.
    Read,
    /// Leave the input in the kernel until the connection is woken.
    Wait,
    /// Send what there is, then ask [`Shard::resume`] for more output.
    More,
    /// Send what there is, then close.
    Close,
}

/// A connection. An idle one owns no memory outside itself.
pub(super) struct Conn {
    pub(super) generation: u32,
    pub(super) open: bool,
    /// Input not yet used: part of a request, or requests that have to wait.
    pub(super) input: Vec<u8>,
    pub(super) progress: http::Progress,
    /// Bytes that `input` must hold before it is worth a look, if a body is under way.
    pub(super) wanted: usize,
    /// True if `input` holds whole requests that wait for the answers under way.
    pub(super) blocked: bool,
    /// `100 Continue` has been sent for the request that `input` begins with.
    pub(super) continued: bool,
    /// Answers under way, oldest first; `first_seq` is the number of the oldest.
    replies: Replies,
    first_seq: u32,
    /// What the answers under way are to.
    under_way: Class,
    /// Its last request was a change.
    pub(super) changes: bool,
    /// What is being sent in pieces.
    pub(super) stream: Option<Box<Stream>>,
    /// The group that the connection waits for, by its place in the shard's room.
    pub(super) hangs: Option<u32>,
    /// No request after those under way is served: close once they are answered.
    pub(super) last: bool,
    /// The client sends no more.
    ended: bool,
    /// When the partial request in `input` began, or the connection last did something.
    pub(super) since: Millis,
}

/// What may be under way beside what on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Changes follow one another through the core in order.
    Change,
    /// Beats do not touch one another: the searches of a connection whose sessions are another
    /// server's go on together, or their moves would take a commit each, one after the other.
    Beat,
    /// Anything else is alone.
    Other,
}

/// An answer's body that is sent piece by piece.
pub(super) enum Stream {
    /// A long document.
    Document(Pieces),
    /// What happens in a group, for as long as the client listens.
    Events(Events),
}

/// Answers under way on one connection, oldest first.
pub(super) type Replies = VecDeque<Reply>;

/// An answer under way.
pub(super) enum Reply {
    /// The core, or another shard, has the word.
    Awaited,
    /// To be sent when everything before it has been.
    Ready(Response),
    /// The same, and it is [`Shard::overload`].
    Overloaded,
    /// The same, and it is that to a join of a new member, without the document.
    Welcome {
        /// The session.
        id: SessionId,
        /// Its timeout.
        timeout: Millis,
        /// The group's version.
        version: GroupVersion,
    },
}

/// An answer whose turn has not come.
pub(super) struct Response {
    /// Head, and body unless that is a document.
    pub(super) bytes: Vec<u8>,
    /// The rest of the body.
    pub(super) stream: Option<Box<Stream>>,
}

impl From<Vec<u8>> for Response {
    fn from(bytes: Vec<u8>) -> Response {
        Response {
            bytes,
            stream: None,
        }
    }
}

impl Conn {
    fn new(generation: u32, now: Millis) -> Conn {
        Conn {
            generation,
            open: true,
            input: Vec::new(),
            progress: http::Progress::default(),
            wanted: 0,
            blocked: false,
            continued: false,
            replies: VecDeque::new(),
            first_seq: 0,
            under_way: Class::Other,
            changes: false,
            stream: None,
            hangs: None,
            last: false,
            ended: false,
            since: now,
        }
    }

    /// True if this is still the connection meant.
    fn is(&self, conn: ConnId) -> bool {
        self.open && self.generation == conn.generation
    }

    /// Keeps a place in the order of answers for a request that [`Conn::takes`], or for a
    /// refusal, which is nothing to those after it. Returns its number.
    pub(super) fn reserve(&mut self, class: Class) -> u32 {
        let seq = self.next_seq();
        if self.replies.is_empty() {
            self.under_way = class;
        }
        self.replies.push_back(Reply::Awaited);
        seq
    }

    /// Gives the connection a queue for its answers, if it has none and one is kept.
    pub(super) fn lend_queue(&mut self, idle: &mut Vec<Replies>) {
        if self.replies.capacity() == 0
            && let Some(queue) = idle.pop()
        {
            self.replies = queue;
        }
    }

    /// Keeps a place for the refusal of a change that there is no room for.
    pub(super) fn refuse_overload(&mut self) {
        self.reserve(Class::Other);
        self.replies.pop_back();
        self.replies.push_back(Reply::Overloaded);
    }

    /// The number that [`Conn::reserve`] will return.
    pub(super) fn next_seq(&self) -> u32 {
        self.first_seq.wrapping_add(self.replies.len() as u32)
    }

    /// True if a request may be under way beside those that are.
    pub(super) fn takes(&self, class: Class) -> bool {
        self.replies.is_empty() || (class == self.under_way && class != Class::Other)
    }

    /// How many answers are under way.
    pub(super) fn pending(&self) -> usize {
        self.replies.len()
    }

    /// True if an answer may go straight to the output.
    pub(super) fn is_clear(&self) -> bool {
        self.replies.is_empty() && self.stream.is_none()
    }

    /// The events it is being sent, if it is.
    pub(super) fn events(&mut self) -> Option<&mut Events> {
        match self.stream.as_deref_mut() {
            Some(Stream::Events(events)) => Some(events),
            _ => None,
        }
    }

    /// True if it listens to events: it is read only to notice its end.
    fn listens(&self) -> bool {
        matches!(self.stream.as_deref(), Some(Stream::Events(_)))
    }
}

impl Shard {
    /// A connection has been accepted.
    pub fn open(&mut self, conn: ConnId, now: Millis) {
        let index = conn.index as usize;
        debug_assert!(
            index <= self.conns.len(),
            "places are used from the first on"
        );
        let fresh = Conn::new(conn.generation, now);
        if index == self.conns.len() {
            self.conns.push(fresh);
        } else {
            self.conns[index] = fresh;
        }
        self.wake(now);
        self.counters
            .connections
            .set(self.counters.connections.get() + 1);
    }

    /// The connection is gone. What it asked for is done all the same, where it was begun.
    pub fn close(&mut self, conn: ConnId) {
        let Some(place) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        if place.is(conn) {
            let hung = place.hangs;
            *place = Conn {
                open: false,
                ..Conn::new(conn.generation, Millis(0))
            };
            self.counters
                .connections
                .set(self.counters.connections.get() - 1);
            if let Some(spot) = hung {
                self.leave_room(conn, spot);
            }
        }
    }

    /// True if `conn` may wait while other connections are served: it is used for changes, which
    /// wait for a disk anyway, or listens to events. Heartbeats do not wait for those who join,
    /// nor for the thousands who are told of it.
    #[must_use]
    pub fn is_bulk(&self, conn: ConnId) -> bool {
        let place = self.conns.get(conn.index as usize);
        place.is_some_and(|open| open.changes || open.listens())
    }

    /// Whether what comes from now on has waited so long that changes are better refused than
    /// done: who is refused at once can try elsewhere, who waits for long tries again here.
    pub fn late(&mut self, is_late: bool) {
        self.admission.late(is_late);
    }

    /// `bytes` have come in on `conn`.
    pub fn receive(&mut self, conn: ConnId, bytes: &[u8], now: Millis, out: &mut Vec<u8>) -> Next {
        let Some(open) = self.conn(conn) else {
            return Next::Close;
        };
        if open.listens() {
            return open.rest();
        }
        if open.last {
            // Whatever comes after the last request is not read as one.
            return open.rest();
        }
        if open.input.is_empty() {
            open.since = now;
            let served = self.serve(conn, bytes, now, out);
            return self.put_by(conn, served, |used| bytes[used..].to_vec());
        }
        open.input.extend_from_slice(bytes);
        // A body that comes in a thousand pieces is not looked at a thousand times.
        if open.input.len() < open.wanted {
            return open.rest();
        }
        self.serve_input(conn, now, out)
    }

    /// Serves what the connection has kept. It is moved only if some of it has been used.
    fn serve_input(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Next {
        let Some(open) = self.conn(conn) else {
            return Next::Close;
        };
        let mut input = std::mem::take(&mut open.input);
        let served = self.serve(conn, &input, now, out);
        self.put_by(conn, served, |used| {
            if used == input.len() {
                return Vec::new();
            }
            input.drain(..used);
            input
        })
    }

    /// Output has drained, or an answer has come.
    pub fn resume(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Next {
        let Shard {
            settings,
            conns,
            overload,
            welcomes,
            idle_queues,
            ..
        } = self;
        let output_bytes_max = settings.output_bytes_max;
        let open = conns.get_mut(conn.index as usize);
        let Some(open) = open.filter(|open| open.is(conn)) else {
            return Next::Close;
        };
        open.since = now;
        loop {
            match open.stream.as_deref_mut() {
                Some(Stream::Document(pieces)) => {
                    if pieces.send(out) {
                        return Next::More;
                    }
                    open.stream = None;
                }
                Some(Stream::Events(_)) => return self.send_events(conn, out),
                None => {}
            }
            if out.len() >= output_bytes_max {
                return Next::More;
            }
            match open.replies.front_mut() {
                Some(Reply::Ready(response)) => {
                    out.extend_from_slice(&response.bytes);
                    open.stream = response.stream.take();
                }
                Some(Reply::Overloaded) => out.extend_from_slice(overload),
                Some(&mut Reply::Welcome {
                    id,
                    timeout,
                    version,
                }) => welcomes.write(out, version, id, timeout),
                Some(Reply::Awaited) | None => break,
            }
            open.replies.pop_front();
            open.first_seq = open.first_seq.wrapping_add(1);
        }
        if open.replies.is_empty() {
            let idle = std::mem::take(&mut open.replies);
            let is_usual = (1..=IDLE_QUEUE_MAX).contains(&idle.capacity());
            if is_usual && idle_queues.len() < IDLE_QUEUES_MAX {
                idle_queues.push(idle);
            }
        }
        // What waited for its turn has it now, be it a request or the word that invites a
        // body.
        let uninvited = open.wanted > 0 && !open.continued && open.is_clear();
        if open.blocked || uninvited {
            open.blocked = false;
            return self.serve_input(conn, now, out);
        }
        open.rest()
    }

    /// The client will send no more; what it asked for is still answered.
    pub fn finish(&mut self, conn: ConnId, _now: Millis, _out: &mut Vec<u8>) -> Next {
        let Some(open) = self.conn(conn) else {
            return Next::Close;
        };
        open.ended = true;
        if open.hangs.is_some() && !open.listens() {
            self.stop_waiting(conn);
        }
        self.conn(conn).map_or(Next::Close, |open| open.rest())
    }

    /// Looks whether the connection has been silent, or a request incomplete, for too long.
    pub fn review(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Option<Next> {
        if let Some(open) = self.conn(conn) {
            let silent = now.since(open.since);
            if let Some(events) = open.events() {
                // It may have been woken meanwhile, so it is asked for more in any case.
                return events.comment(silent, out).then(|| {
                    open.since = now;
                    Next::More
                });
            }
        }
        let Shard {
            settings,
            conns,
            endpoints,
            ..
        } = self;
        let open = conns.get_mut(conn.index as usize)?;
        if !open.is(conn) || !open.is_clear() || open.blocked {
            return None;
        }
        let silent = now.since(open.since);
        if open.input.is_empty() {
            return (silent > settings.idle_timeout).then_some(Next::Close);
        }
        if silent <= settings.request_timeout {
            return None;
        }
        let problem = http::Problem::new(http::Code::RequestTimeout).closing();
        problem.write(out, http::begins_with_head_method(&open.input), endpoints);
        open.input = Vec::new();
        Some(Next::Close)
    }

    /// The connection, if it is still the one meant.
    pub(super) fn conn(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let place = self.conns.get_mut(conn.index as usize)?;
        place.is(conn).then_some(place)
    }

    /// Gives the answer to a request that was parked. The client may be gone by now.
    pub(super) fn answer(&mut self, place: Place, response: impl Into<Response>) {
        self.reply(place, Reply::Ready(response.into()));
    }

    /// 201 or 200 to a join that was parked, without the document.
    pub(super) fn answer_joined(&mut self, place: Place, joined: Joined, close: bool) {
        let Joined {
            session,
            timeout,
            created,
            version,
            ..
        } = joined;
        if created && !close {
            let welcome = Reply::Welcome {
                id: session,
                timeout,
                version,
            };
            return self.reply(place, welcome);
        }
        let answer = http::Answer {
            status: if created { 201 } else { 200 },
            version: Some(version),
            session: Some((session, timeout)),
            no_store: true,
            close,
            ..http::Answer::default()
        };
        let mut bytes = Vec::new();
        answer.write(&mut bytes, b"", false);
        self.answer(place, bytes);
    }

    fn reply(&mut self, place: Place, ready: Reply) {
        let Some(open) = self.conn(place.conn) else {
            return;
        };
        let at = place.seq.wrapping_sub(open.first_seq) as usize;
        let Some(reply) = open.replies.get_mut(at) else {
            return;
        };
        debug_assert!(matches!(reply, Reply::Awaited), "answered twice");
        *reply = ready;
        if at == 0 {
            self.outbox.woken.push(place.conn);
        }
    }

    /// Answers a parked request with a problem.
    pub(super) fn answer_problem(&mut self, place: Place, problem: &http::Problem, head: bool) {
        let mut bytes = Vec::new();
        self.counters.problems.add(1);
        problem.write(&mut bytes, head, &self.endpoints);
        self.answer(place, bytes);
    }
}

impl Conn {
    /// What to do when nothing more can be done now.
    pub(super) fn rest(&self) -> Next {
        if self.listens() {
            // Who listens and sends no more is gone.
            if self.ended { Next::Close } else { Next::Read }
        } else if self.is_clear() && (self.last || self.ended) {
            Next::Close
        } else if self.last || self.blocked || self.ended {
            // Who reads the end of the input once more would close over the answers owed.
            Next::Wait
        } else {
            Next::Read
        }
    }
}

/// Queues kept for connections that will wait for answers, and the longest of them: together
/// some hundred KiB at most, where an allocation for each would be made and given back for
/// every change of a client that sends one at a time.
const IDLE_QUEUES_MAX: usize = 1_024;
const IDLE_QUEUE_MAX: usize = 64;
