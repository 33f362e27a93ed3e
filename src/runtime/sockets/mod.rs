//! A shard's sockets: one listener, its connections in a slab, one `recv` and one `send` for
//! everything a client has pipelined.
//!
//! The engine knows nothing of HTTP. It hands bytes to a [`Service`], sends what the service
//! answers, and obeys its word on whether to read on. Connections are edge-triggered: after
//! a `recv` that did not fill the buffer nothing is left to read, and the kernel says so when
//! that changes, which saves the second `recv` that would only return `EAGAIN`.
//!
//! Bounds: a turn takes at most `EVENTS_MAX` events, and each of them at most one buffer of
//! input, so a flood on one connection delays the others by one buffer's worth of work. A flood
//! on many of a kind that the service calls bulk delays the others by a quarter of a millisecond:
//! those connections are served last, and only so many in a turn. What a client does not read of its
//! answers stays with the service, save for one batch of output.

mod bulk;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, bind,
    listen, recv, send, shutdown, socket_with, sockopt,
};

use super::poller::Poller;
use crate::shard::{ConnId, Next};
use crate::time::Millis;
use bulk::Bulk;

/// What the bytes mean. All calls for one connection come in order.
pub trait Service {
    /// A connection has been accepted.
    fn open(&mut self, conn: ConnId, now: Millis);
    /// A connection has been accepted only to be told that there is no room for it. Of the
    /// other methods only `close` is called for it.
    fn refuse(&mut self, out: &mut Vec<u8>);
    /// These inputs will be received next, one after the other: time to get ready for all of
    /// them together.
    fn expect<'a>(&mut self, inputs: impl Iterator<Item = &'a [u8]>);
    /// `bytes` have come in; the service keeps what it does not use at once.
    fn receive(&mut self, conn: ConnId, bytes: &[u8], now: Millis, out: &mut Vec<u8>) -> Next;
    /// Output has drained after [`Next::More`], or an answer has come after [`Next::Wait`].
    fn resume(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Next;
    /// The client will send no more.
    fn finish(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Next;
    /// Called about once a second for each connection; `None` leaves it as it is.
    fn review(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Option<Next>;
    /// True if the connection is for work that may wait while others are served: asked after
    /// each `receive` and `resume`, and holds until the next.
    fn is_bulk(&self, conn: ConnId) -> bool;
    /// Whether what is received and resumed from now on has waited for long.
    fn late(&mut self, is_late: bool);
    /// The connection is gone.
    fn close(&mut self, conn: ConnId);
    /// What the last `receive` answered has been handed to the kernel, `took_ns` after the
    /// turn that read it began.
    fn served(&mut self, took_ns: u64);
}

/// What one turn saw besides connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// How many events were taken. 0 means that the set was empty.
    pub events: usize,
    /// The timer has fired.
    pub tick: bool,
    /// The inbox's bell has rung.
    pub bell: bool,
}

/// How long a turn may sleep, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// If nothing is left to do.
    pub idle_ns: u32,
    /// If only bulk is left to do, after each portion of it.
    pub rest_ns: u32,
}

/// The shard's clock, in nanoseconds.
pub type Clock = Box<dyn Fn() -> u64>;

/// The listener and the connections of one shard.
pub struct Sockets {
    poller: Poller,
    listener: Option<OwnedFd>,
    conns: Vec<Place>,
    free: Vec<u32>,
    open: usize,
    open_max: usize,
    /// One read's worth of input, shared by all connections.
    scratch: Box<[u8]>,
    /// Room for the input of [`STAGE_MAX`] connections, and who has what in it.
    stage: Box<[u8]>,
    staged: Vec<(ConnId, Result<usize, Errno>)>,
    /// One batch of output, shared likewise.
    out: Vec<u8>,
    /// Connections that have something to do although no event will say so.
    again: Vec<ConnId>,
    again_spare: Vec<ConnId>,
    bulk: Bulk,
    accepted: u64,
    /// Read anew for every input, after it has been read: a promise counts from when it is
    /// made, and a turn may take milliseconds.
    clock: Clock,
    /// When the turn began.
    turn_ns: u64,
    /// Where the once-a-second review goes on.
    review_at: usize,
}

struct Place {
    generation: u32,
    conn: Option<Conn>,
}

struct Conn {
    fd: OwnedFd,
    state: State,
    /// The kernel may hold input that an event has already announced.
    readable: bool,
    /// The client has shut its side, so a read that empties the socket is not the last one.
    hangup: bool,
    /// The end of the stream has been read.
    ended: bool,
    /// As the service said last.
    bulk: bool,
    /// Watched apart from the others, see [`bulk`].
    aside: bool,
    /// How long bulk connections had been served when this one last was.
    served_ns: u64,
    /// In `again` or `bulk`.
    queued: bool,
    /// Output the socket did not take, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// Since when `unsent` has not moved, or the close has been going on.
    stuck_since: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As the service said last; never `Next::Close`.
    Open(Next),
    /// Everything is to be sent, then the sending side is shut.
    Closing,
    /// All is sent and our side is shut; what still comes in is read and dropped, for closing
    /// over unread input would reset the connection and may take the answer with it.
    Draining,
}

/// The epoll keys that are not connections. No connection reaches generation `u32::MAX`.
pub const KEY_LISTENER: u64 = u64::MAX;
/// The shard's timer.
pub const KEY_TICK: u64 = u64::MAX - 1;
/// The bell of the shard's inbox.
pub const KEY_BELL: u64 = u64::MAX - 2;

/// What of a connection is news.
const WATCHED: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);
/// News of connections that are watched aside.
const KEY_ASIDE: u64 = u64::MAX - 3;

/// Events taken in one turn.
pub const EVENTS_MAX: usize = 128;
/// Bytes read from one connection in one turn.
pub const READ_BYTES_MAX: usize = 64 * 1024;
/// Connections whose input is read before any of it is served.
const STAGE_MAX: usize = 64;
/// Bytes read from each of them; who has sent more is read again, into a larger buffer.
const STAGE_BYTES: usize = 4_096;
/// Bytes read from a bulk connection that is late. What is refused costs little but the system
/// calls, and the more of it they bring the less it costs.
const LATE_BYTES: usize = 16 * 1024;
/// Connections accepted in one turn.
const ACCEPTS_MAX: usize = 64;
/// Connections looked at in one call of [`Sockets::review`].
const REVIEWS_MAX: usize = 256;
/// Of them told something or ended, which takes system calls, some 0.5 ms of them: beats wait
/// meanwhile. Thousands that fell silent together are ended at 1,600 a second.
const REVIEWED_MAX: usize = 16;
/// Connections that may wait to be accepted: a reconnect storm of a whole fleet. The kernel
/// takes the lesser of this and `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;
/// How long a client may leave its answers unread, or a close unanswered.
const STUCK_MS_MAX: u64 = 30_000;
/// How long input is drained after the last answer has been sent.
const DRAIN_MS_MAX: u64 = 2_000;
const NS_PER_MS: u64 = 1_000_000;

/// A listening socket on `addr` that shares its port with the other shards' listeners. The
/// kernel keeps up to `buffer_bytes` of a connection in each direction; 0 leaves it to itself.
///
/// # Errors
/// The kernel's, for example that the port is in use.
pub fn listener(addr: SocketAddr, buffer_bytes: u32) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    // Inherited by accepted connections. Set before the socket listens: what a window may grow
    // to is agreed on with the first packet.
    if buffer_bytes > 0 {
        sockopt::set_socket_recv_buffer_size(&socket, buffer_bytes as usize)?;
        sockopt::set_socket_send_buffer_size(&socket, buffer_bytes as usize)?;
    }
    bind(&socket, &addr)?;
    listen(&socket, BACKLOG)?;
    // Inherited by accepted connections: an answer is sent whole, so waiting to fill a
    // segment would only delay it.
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// Takes the port of `addr` for the time the returned socket lives, without sharing it, so
/// that a second server on the same port fails instead of taking half of the first one's
/// clients. The shards listen only after this has been closed.
///
/// # Errors
/// If the port is in use, by a shared listener too.
pub fn probe(addr: SocketAddr) -> io::Result<SocketAddr> {
    TcpListener::bind(addr)?.local_addr()
}

impl Sockets {
    /// Serves `listener`, which was made by [`listener`], with at most `open_max` connections.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn new(listener: OwnedFd, open_max: usize, clock: Clock) -> io::Result<Sockets> {
        let poller = Poller::new(EVENTS_MAX)?;
        poller.add(&listener, KEY_LISTENER, EventFlags::IN)?;
        let bulk = Bulk::new(&poller)?;
        Ok(Sockets {
            poller,
            listener: Some(listener),
            conns: Vec::new(),
            free: Vec::new(),
            open: 0,
            open_max,
            scratch: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            stage: vec![0; STAGE_MAX * STAGE_BYTES].into_boxed_slice(),
            staged: Vec::with_capacity(STAGE_MAX),
            out: Vec::with_capacity(READ_BYTES_MAX),
            again: Vec::new(),
            again_spare: Vec::new(),
            bulk,
            accepted: 0,
            clock,
            turn_ns: 0,
            review_at: 0,
        })
    }

    /// The epoll set, to watch a timer and a bell with, and to wait for.
    #[must_use]
    pub fn poller(&self) -> &Poller {
        &self.poller
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many connections have been accepted since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// True if something is left to do although the epoll set may be empty.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.again.is_empty() || !self.bulk.queue.is_empty()
    }

    /// True if all that clients have sent by now has been read, but for what the epoll set has
    /// to tell.
    #[must_use]
    pub fn has_seen_all(&self) -> bool {
        !self.is_busy() && self.bulk.is_seen()
    }

    /// True if no connection has output that its socket has not taken.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        let open = self.conns.iter().filter_map(|place| place.conn.as_ref());
        !self.is_busy() && open.into_iter().all(|open| open.unsent.is_empty())
    }

    /// Stops accepting. Connections that wait in the backlog are reset by the kernel.
    pub fn stop_accepting(&mut self) {
        self.listener = None;
    }

    /// Takes what is ready and serves it, first sleeping until something is if `waits` allows.
    ///
    /// # Errors
    /// Only if the epoll set is broken.
    pub fn turn<S: Service>(&mut self, service: &mut S, waits: Waits) -> io::Result<Turn> {
        self.look_aside(service)?;
        let sleep_ns = self.sleep_ns(waits.idle_ns)?;
        let events = self.poller.take(sleep_ns)?;
        self.turn_ns = (self.clock)();
        self.bulk.woken(self.turn_ns);
        let mut turn = Turn {
            events,
            ..Turn::default()
        };
        for index in 0..events {
            let (key, flags) = self.poller.event(index);
            match key {
                KEY_LISTENER => self.accept(service),
                KEY_ASIDE => self.bulk.told(),
                KEY_TICK => turn.tick = true,
                KEY_BELL => turn.bell = true,
                key => self.on_event(ConnId::from_key(key), flags, service),
            }
            if self.staged.len() == STAGE_MAX {
                self.receive_staged(service);
            }
        }
        self.receive_staged(service);
        if !self.again.is_empty() {
            let mut again =
                std::mem::replace(&mut self.again, std::mem::take(&mut self.again_spare));
            for &conn in &again {
                if let Some(place) = self.get(conn) {
                    place.queued = false;
                    self.go_on(conn, service);
                }
            }
            again.clear();
            self.again_spare = again;
        }
        // A full batch of events is not all there was: the rest may be for more urgent ones.
        self.attend_bulk(service, events == EVENTS_MAX, waits.rest_ns);
        Ok(turn)
    }

    /// True if the connection is for work that may wait, as the service said last.
    #[must_use]
    pub fn is_bulk(&self, conn: ConnId) -> bool {
        let place = self.conns.get(conn.index as usize);
        let open = place.filter(|place| place.generation == conn.generation);
        open.is_some_and(|place| place.conn.as_ref().is_some_and(|open| open.bulk))
    }

    /// The service has output, or wants input again, for a connection that it let wait. The
    /// next turn asks it, or a later one if earlier output has not drained.
    pub fn resume(&mut self, conn: ConnId) {
        let Some(open) = self.get(conn) else { return };
        if let State::Open(next) = &mut open.state {
            *next = Next::More;
            self.queue(conn);
        }
    }

    /// Lets the service look at connections, some at each call: at a hundred calls a second each
    /// of 20,000 is looked at once a second, if there is little to do for them.
    pub fn review<S: Service>(&mut self, service: &mut S) {
        let now = self.now();
        let is_calm = self.is_calm((self.clock)());
        let mut reviewed = 0;
        for _ in 0..REVIEWS_MAX.min(self.conns.len()) {
            if reviewed == REVIEWED_MAX {
                break;
            }
            self.review_at = (self.review_at + 1) % self.conns.len();
            let place = &self.conns[self.review_at];
            let Some(open) = &place.conn else { continue };
            let conn = ConnId {
                index: self.review_at as u32,
                generation: place.generation,
            };
            let stuck_ms = now.since(open.stuck_since).0;
            let limit_ms = if open.state == State::Draining {
                DRAIN_MS_MAX
            } else {
                STUCK_MS_MAX
            };
            let ending = matches!(open.state, State::Closing | State::Draining);
            if (ending || !open.unsent.is_empty()) && stuck_ms > limit_ms {
                self.drop_conn(conn, service);
                reviewed += 1;
            } else if !ending && open.unsent.is_empty() {
                if is_calm && !self.bring_back(conn, service) {
                    continue;
                }
                self.out.clear();
                if let Some(next) = service.review(conn, now, &mut self.out) {
                    self.settle(conn, next, service);
                    reviewed += 1;
                }
            }
        }
    }

    fn now(&self) -> Millis {
        millis(&self.clock)
    }

    fn get(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let place = self.conns.get_mut(conn.index as usize)?;
        if place.generation == conn.generation {
            place.conn.as_mut()
        } else {
            None
        }
    }

    fn accept<S: Service>(&mut self, service: &mut S) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else {
                return;
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let fd = match accept_with(listener, flags) {
                Ok(fd) => fd,
                // The client has gone before we came to it: try the next one.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                // Nothing there, or no descriptor free: the listener stays readable and is
                // tried again next turn.
                Err(_) => return,
            };
            self.accepted += 1;
            let conn = self.place(fd);
            let place = &self.conns[conn.index as usize];
            let Some(open) = &place.conn else { continue };
            if self.poller.add(&open.fd, conn.key(), WATCHED).is_err() {
                self.drop_conn(conn, service);
                continue;
            }
            self.out.clear();
            if self.open <= self.open_max {
                service.open(conn, self.now());
            } else {
                service.refuse(&mut self.out);
                self.settle(conn, Next::Close, service);
            }
        }
    }

    fn place(&mut self, fd: OwnedFd) -> ConnId {
        let conn = Conn {
            fd,
            state: State::Open(Next::Read),
            readable: false,
            hangup: false,
            ended: false,
            bulk: false,
            aside: false,
            served_ns: 0,
            queued: false,
            unsent: Vec::new(),
            sent: 0,
            stuck_since: self.now(),
        };
        self.open += 1;
        if let Some(index) = self.free.pop() {
            let place = &mut self.conns[index as usize];
            place.conn = Some(conn);
            return ConnId {
                index,
                generation: place.generation,
            };
        }
        let index = u32::try_from(self.conns.len()).expect("descriptors are fewer than 2^32");
        self.conns.push(Place {
            generation: 0,
            conn: Some(conn),
        });
        ConnId {
            index,
            generation: 0,
        }
    }

    fn drop_conn<S: Service>(&mut self, conn: ConnId, service: &mut S) {
        let place = &mut self.conns[conn.index as usize];
        debug_assert_eq!(place.generation, conn.generation, "dropped twice");
        if place.conn.take().is_some_and(|open| open.aside) {
            self.bulk.lost();
        }
        // Wraps after 2^31 uses of one place; u32::MAX itself is never reached, for the keys
        // above lie there.
        place.generation = (place.generation + 1) & (u32::MAX >> 1);
        self.free.push(conn.index);
        self.open -= 1;
        service.close(conn);
    }

    fn on_event<S: Service>(&mut self, conn: ConnId, flags: EventFlags, service: &mut S) {
        let Some(open) = self.get(conn) else { return };
        if flags.intersects(EventFlags::ERR) {
            return self.drop_conn(conn, service);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP) {
            open.readable = true;
            open.hangup |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
        }
        if flags.contains(EventFlags::OUT) && !open.unsent.is_empty() && !self.flush(conn) {
            return self.drop_conn(conn, service);
        }
        let place = &self.conns[conn.index as usize];
        let Some(open) = &place.conn else { return };
        if self.belongs_aside(open) {
            // What it has sent is news there.
            return self.put_aside(conn, service);
        }
        if open.bulk {
            let since_ns = open.aside.then_some(open.served_ns);
            let since_ns = self.bulk.since(since_ns);
            return self.queue_since(conn, since_ns);
        }
        let reads = State::Open(Next::Read);
        let may_read = open.readable && open.state == reads && open.unsent.is_empty();
        if may_read {
            return self.stage(conn);
        }
        self.go_on(conn, service);
    }

    /// Reads what has come in, for [`Sockets::receive_staged`] to hand over with what other
    /// connections have sent.
    fn stage(&mut self, conn: ConnId) {
        let place = &self.conns[conn.index as usize];
        let Some(open) = &place.conn else { return };
        let start = self.staged.len() * STAGE_BYTES;
        let room = &mut self.stage[start..start + STAGE_BYTES];
        let result = recv(&open.fd, room, RecvFlags::empty()).map(|(count, _)| count);
        self.staged.push((conn, result));
    }

    /// Hands over what has been staged, in its order, the service having seen all of it.
    fn receive_staged<S: Service>(&mut self, service: &mut S) {
        if self.staged.len() > 1 {
            let stage = &self.stage;
            let inputs = self.staged.iter().zip(stage.chunks(STAGE_BYTES));
            service.expect(
                inputs.filter_map(|((_, result), room)| result.ok().map(|count| &room[..count])),
            );
        }
        let mut staged = std::mem::take(&mut self.staged);
        let mut stage = std::mem::take(&mut self.stage);
        for ((conn, result), room) in staged.drain(..).zip(stage.chunks_mut(STAGE_BYTES)) {
            self.received(conn, result, room, service);
        }
        self.staged = staged;
        self.stage = stage;
    }

    /// Does the next thing that can be done for `conn`, once.
    fn go_on<S: Service>(&mut self, conn: ConnId, service: &mut S) {
        let Some(open) = self.get(conn) else { return };
        if !open.unsent.is_empty() {
            return;
        }
        match open.state {
            State::Open(Next::Read) if open.readable => self.read(conn, service),
            State::Open(Next::More) => {
                open.state = State::Open(Next::Wait);
                self.out.clear();
                let next = service.resume(conn, self.now(), &mut self.out);
                self.settle(conn, next, service);
            }
            State::Open(_) => {}
            State::Closing => self.shut(conn, service),
            State::Draining => self.drain(conn, service),
        }
    }

    fn read<S: Service>(&mut self, conn: ConnId, service: &mut S) {
        let place = &self.conns[conn.index as usize];
        let Some(open) = &place.conn else { return };
        // What may wait is taken in small portions, so that what may not comes in between.
        let room_len = match (open.bulk, self.bulk.is_late) {
            (true, true) => LATE_BYTES,
            (true, false) => STAGE_BYTES,
            (false, _) => READ_BYTES_MAX,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let room = &mut scratch[..room_len];
        let result = recv(&open.fd, &mut *room, RecvFlags::empty()).map(|(count, _)| count);
        self.received(conn, result, room, service);
        self.scratch = scratch;
    }

    /// Hands over what `recv` has put into `room`, or deals with there being nothing.
    fn received<S: Service>(
        &mut self,
        conn: ConnId,
        result: Result<usize, Errno>,
        room: &[u8],
        service: &mut S,
    ) {
        let Some(open) = self.get(conn) else { return };
        match result {
            Ok(0) => {
                open.readable = false;
                open.ended = true;
                self.out.clear();
                let next = service.finish(conn, millis(&self.clock), &mut self.out);
                self.settle(conn, next, service);
            }
            Ok(count) => {
                // A buffer not filled means a socket emptied, but for the end of the stream.
                open.readable = count == room.len() || open.hangup;
                self.out.clear();
                let now = millis(&self.clock);
                let next = service.receive(conn, &room[..count], now, &mut self.out);
                self.settle(conn, next, service);
                service.served((self.clock)() - self.turn_ns);
            }
            Err(Errno::AGAIN) => open.readable = false,
            Err(Errno::INTR) => self.queue(conn),
            Err(_) => self.drop_conn(conn, service),
        }
    }

    /// Sends `self.out`, and takes note of what the service wants next.
    fn settle<S: Service>(&mut self, conn: ConnId, next: Next, service: &mut S) {
        let is_bulk = service.is_bulk(conn);
        if !is_bulk && !self.bring_back(conn, service) {
            return;
        }
        let place = &mut self.conns[conn.index as usize];
        let Some(open) = &mut place.conn else { return };
        open.bulk = is_bulk;
        open.state = match next {
            Next::Close => State::Closing,
            // There is nothing more to read, whatever the service hopes for.
            Next::Read if open.ended => State::Closing,
            next => State::Open(next),
        };
        if !self.out.is_empty() {
            match send(&open.fd, &self.out, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == self.out.len() => {}
                Ok(sent) => keep(open, &self.out[sent..], millis(&self.clock)),
                Err(Errno::AGAIN | Errno::INTR) => keep(open, &self.out, millis(&self.clock)),
                Err(_) => return self.drop_conn(conn, service),
            }
            // The answers to one buffer of beats are kept; a document's worth is given back.
            if self.out.capacity() > OUT_KEPT_BYTES_MAX {
                self.out = Vec::with_capacity(READ_BYTES_MAX);
            }
        }
        if !open.unsent.is_empty() {
            return;
        }
        match open.state {
            State::Closing => self.shut(conn, service),
            State::Open(Next::More) => self.queue(conn),
            State::Open(Next::Read) if open.readable => self.queue(conn),
            _ => {}
        }
    }

    /// Everything is sent: shuts our side, and drops the rest of the client's.
    fn shut<S: Service>(&mut self, conn: ConnId, service: &mut S) {
        let now = self.now();
        let Some(open) = self.get(conn) else { return };
        if shutdown(&open.fd, Shutdown::Write).is_err() {
            return self.drop_conn(conn, service);
        }
        open.state = State::Draining;
        open.stuck_since = now;
        open.readable = true;
        self.drain(conn, service);
    }

    fn drain<S: Service>(&mut self, conn: ConnId, service: &mut S) {
        let place = &mut self.conns[conn.index as usize];
        let Some(open) = &mut place.conn else { return };
        match recv(&open.fd, &mut self.scratch[..], RecvFlags::empty()) {
            Ok((0, _)) => self.drop_conn(conn, service),
            Ok(_) => self.queue(conn),
            Err(Errno::AGAIN) => open.readable = false,
            Err(Errno::INTR) => self.queue(conn),
            Err(_) => self.drop_conn(conn, service),
        }
    }

    /// Sends more of what was left over; false if the connection is broken.
    fn flush(&mut self, conn: ConnId) -> bool {
        let now = self.now();
        let Some(open) = self.get(conn) else {
            return true;
        };
        match send(&open.fd, &open.unsent[open.sent..], SendFlags::NOSIGNAL) {
            Ok(count) => {
                open.sent += count;
                open.stuck_since = now;
                if open.sent == open.unsent.len() {
                    open.unsent = Vec::new();
                    open.sent = 0;
                }
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    fn queue(&mut self, conn: ConnId) {
        let since_ns = self.bulk.served_ns;
        self.queue_since(conn, since_ns);
    }

    fn queue_since(&mut self, conn: ConnId, since_ns: u64) {
        let Some(open) = self.get(conn) else { return };
        if open.queued {
            return;
        }
        open.queued = true;
        if open.bulk {
            self.bulk.queue.push_back((conn, since_ns));
        } else {
            self.again.push(conn);
        }
    }
}

fn millis(clock: &Clock) -> Millis {
    Millis(clock() / NS_PER_MS)
}

fn keep(open: &mut Conn, rest: &[u8], now: Millis) {
    open.unsent.extend_from_slice(rest);
    open.stuck_since = now;
}

/// The capacity of the shared output buffer that is kept from one use to the next.
const OUT_KEPT_BYTES_MAX: usize = 1 << 20;
