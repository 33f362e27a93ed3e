//! One thread's connections: nonblocking sockets behind one epoll set.
//!
//! Cost per closed-loop beat: one recv, one send and a share of one epoll_wait; pipelined,
//! all beats of one read share them. Answers come in the order of the requests, so a queue
//! per connection says what each is about. Sockets are level-triggered: one recv an event.

use crate::clock;
use crate::reply::{self, Reply};
use crate::verify::Sent;
use anyhow::{Context, Result};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self as socket, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// What it is.
    pub(crate) kind: Kind,
    /// About what, and when sent.
    pub(crate) sent: Sent,
    /// When it was due; latency counts from here.
    pub(crate) due_ns: u64,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `PUT /G/M`.
    Join,
    /// `HEAD /G/M`.
    Head,
    /// `GET /G/M`.
    Get,
    /// `POST /-/heartbeats`.
    Batch,
    /// Likewise, for members that fall silent after it.
    Doom,
    /// `DELETE /G/M`.
    Leave,
    /// Likewise, by a member that joins again at once.
    Depart,
    /// `HEAD /G/M` of a session that is known to have ended.
    Ghost,
    /// `GET /G?after=…&limit=1`.
    Probe,
    /// `GET /?…`.
    List,
}

/// The two queues of a connection: bytes to send, answers to come.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Number of the connection.
    pub(crate) number: u32,
    /// The server it leads to, by its place in [`Target::endpoints`].
    pub(crate) endpoint: u32,
    /// Requests not yet given to the kernel.
    pub(crate) out: Vec<u8>,
    /// Requests without an answer, oldest first.
    pub(crate) waiting: VecDeque<Pending>,
    /// When the kernel last took everything after having refused some of it. What was sent
    /// before that may have left only then.
    pub(crate) unblocked_ns: u64,
}

impl Lane {
    /// Whether one more request may be queued: a server that does not read must not fill
    /// this machine's memory.
    pub(crate) fn has_room(&self) -> bool {
        self.out.len() < OUT_BYTES_MAX
    }
}

/// What to do with answers, and when to do what.
pub(crate) trait Driver {
    /// Queues what is due at `now_ns`; says when to be called again at the latest.
    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next;
    /// Takes an answer; may queue more requests on the same connection.
    fn answered(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        body: &[u8],
        now_ns: u64,
    );
    /// Answers have arrived on a connection: whoever holds what they are about far apart in
    /// memory may fetch it now, all at once.
    fn arrived(&mut self, _: &Lane) {}
    /// Connection `conn` ended, with `lost` requests unanswered.
    fn closed(&mut self, conn: u32, why: &str, lost: &mut dyn Iterator<Item = Pending>);
    /// The first answer in `input`; `None` asks for more bytes. An answer with a status below
    /// 200 answers nothing and is passed over. HTTP, unless the driver speaks something else;
    /// what must be said back at once goes into the lane.
    ///
    /// # Errors
    /// If the bytes are no answer, with the reason for which the connection is closed.
    fn frame(&mut self, lane: &mut Lane, input: &[u8]) -> Result<Option<Reply>, String> {
        read_http(lane, input)
    }
}

/// The first answer in `input` to what `lane` awaits; see [`Driver::frame`].
///
/// # Errors
/// If the bytes are none of HTTP.
pub(crate) fn read_http(lane: &Lane, input: &[u8]) -> Result<Option<Reply>, String> {
    let kind = lane.waiting.front().map(|p| p.kind);
    let to_head = matches!(kind, Some(Kind::Head | Kind::Ghost));
    reply::parse(input, to_head).map_err(|e| format!("{NOT_HTTP}{e}"))
}

/// What [`Driver::tick`] wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// To be called again at this time, or after the next answers.
    Wake(u64),
    /// To end.
    Stop,
}

/// Where connections go to and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Servers; connection i goes to the i-th, modulo their number.
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Connections opened in a second at most.
    pub(crate) connects_per_s: u32,
    /// Whether a connection that ended is opened again.
    pub(crate) reconnect: bool,
}

/// One thread's connections.
pub(crate) struct Net {
    target: Target,
    /// Tells the sources of this value's connections from those of earlier ones.
    serial: u32,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    /// Connections with something queued by [`Driver::tick`].
    dirty: Vec<u32>,
    /// Connections to open, and not before when.
    to_open: VecDeque<(u64, u32)>,
    opening: u32,
    up: u32,
    /// How many connections may have been opened by now; see [`Net::open_up_to`].
    open_max: u32,
    next_open_ns: u64,
    events: Vec<epoll::Event>,
    scratch: Box<[u8]>,
    /// Bytes sent and received.
    pub(crate) bytes: (u64, u64),
    /// Why a connection could last not be opened.
    pub(crate) last_refusal: Option<Errno>,
}

struct Conn {
    fd: Option<OwnedFd>,
    lane: Lane,
    /// The beginning of an answer whose rest has not arrived.
    input: Vec<u8>,
    connecting: bool,
    dirty: bool,
    blocked: bool,
}

impl Net {
    /// Prepares `connections` connections; they are opened as [`Net::turn`] is called.
    ///
    /// # Errors
    /// If no epoll set can be made.
    pub(crate) fn new(target: Target, connections: u32) -> Result<Net> {
        let endpoints = target.endpoints.len() as u32;
        let conn = |number| Conn {
            fd: None,
            lane: Lane {
                number,
                endpoint: number % endpoints.max(1),
                ..Lane::default()
            },
            input: Vec::new(),
            connecting: false,
            dirty: false,
            blocked: false,
        };
        Ok(Net {
            target,
            serial: NETS.fetch_add(1, Ordering::Relaxed),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)
                .context("cannot make an epoll set")?,
            conns: (0..connections).map(conn).collect(),
            dirty: Vec::new(),
            to_open: (0..connections).map(|c| (0, c)).collect(),
            opening: 0,
            up: 0,
            open_max: u32::MAX,
            next_open_ns: 0,
            events: Vec::with_capacity(EVENTS_MAX),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            bytes: (0, 0),
            last_refusal: None,
        })
    }

    /// The queues of a connection; what is put there leaves at the end of the turn.
    pub(crate) fn lane(&mut self, conn: u32) -> &mut Lane {
        let c = &mut self.conns[conn as usize];
        if !c.dirty {
            c.dirty = true;
            self.dirty.push(conn);
        }
        &mut c.lane
    }

    /// Lets so many connections be open or under way at once, and no more until told again:
    /// for work that wants a connection of its own for each piece.
    pub(crate) fn open_up_to(&mut self, connections: u32) {
        self.open_max = connections;
    }

    /// Whether every connection is open.
    pub(crate) fn all_up(&self) -> bool {
        self.up as usize == self.conns.len()
    }

    /// Whether this connection is open.
    pub(crate) fn is_up(&self, conn: u32) -> bool {
        let conn = &self.conns[conn as usize];
        conn.fd.is_some() && !conn.connecting
    }

    /// The queues of a connection, to look at.
    pub(crate) fn lane_of(&self, conn: u32) -> &Lane {
        &self.conns[conn as usize].lane
    }

    /// Leads a connection to another server from now on; what it awaits is lost. For a target
    /// that reconnects.
    pub(crate) fn retarget(&mut self, conn: u32, endpoint: u32, driver: &mut impl Driver) {
        self.conns[conn as usize].lane.endpoint = endpoint;
        self.close(conn, "left for another server", driver);
    }

    /// How many connections are open.
    pub(crate) fn up(&self) -> u32 {
        self.up
    }

    /// Requests without an answer, over all connections.
    pub(crate) fn unanswered(&self) -> u64 {
        self.conns.iter().map(|c| c.lane.waiting.len() as u64).sum()
    }

    /// The requests without an answer.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Pending> {
        self.conns.iter().flat_map(|c| &c.lane.waiting)
    }

    /// Runs `driver` until it says stop.
    ///
    /// # Errors
    /// If epoll fails.
    pub(crate) fn run(&mut self, driver: &mut impl Driver) -> Result<()> {
        loop {
            let now_ns = clock::now();
            self.open_due(now_ns, driver)?;
            let Next::Wake(at_ns) = driver.tick(self, now_ns) else {
                return Ok(());
            };
            self.flush_dirty(driver);
            self.turn(at_ns, driver)?;
        }
    }

    /// Waits for sockets until `wake_ns` at the latest and takes what has arrived.
    fn turn(&mut self, wake_ns: u64, driver: &mut impl Driver) -> Result<()> {
        let mut wait_ns = wake_ns.saturating_sub(clock::now()).min(WAIT_NS_MAX);
        if !self.to_open.is_empty() {
            wait_ns = wait_ns.min(clock::MILLI);
        }
        let timeout = Timespec {
            tv_sec: (wait_ns / clock::SECOND) as i64,
            tv_nsec: (wait_ns % clock::SECOND) as i64,
        };
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).context("epoll_wait"),
        }
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let (conn, flags) = (event.data.u64() as u32, event.flags);
            if self.conns[conn as usize].connecting {
                self.connected(conn, driver);
                continue;
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.receive(conn, driver);
            }
            self.flush(conn, driver);
        }
        self.events = events;
        Ok(())
    }

    /// Reads once, hands the whole answers to the driver, keeps the rest.
    fn receive(&mut self, conn: u32, driver: &mut impl Driver) {
        let c = &mut self.conns[conn as usize];
        let Some(fd) = &c.fd else { return };
        let got = match socket::recv(fd, &mut *self.scratch, RecvFlags::empty()) {
            Ok((got, _)) if got > 0 => got,
            Ok(_) => return self.close(conn, "closed by the server", driver),
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(e) => return self.close(conn, &format!("recv: {e}"), driver),
        };
        self.bytes.1 += got as u64;
        let now_ns = clock::now();
        driver.arrived(&c.lane);
        let mut kept = std::mem::take(&mut c.input);
        let outcome = if kept.is_empty() {
            let outcome = answers(&self.scratch[..got], &mut c.lane, driver, now_ns);
            if let Ok(used) = outcome {
                kept.extend_from_slice(&self.scratch[used..got]);
            }
            outcome
        } else {
            kept.extend_from_slice(&self.scratch[..got]);
            let outcome = answers(&kept, &mut c.lane, driver, now_ns);
            if let Ok(used) = outcome {
                kept.drain(..used);
            }
            outcome
        };
        c.input = kept;
        if let Err(why) = outcome {
            self.close(conn, &why, driver);
        }
    }

    fn flush_dirty(&mut self, driver: &mut impl Driver) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            self.conns[conn as usize].dirty = false;
            self.flush(conn, driver);
        }
        self.dirty = dirty;
    }

    /// Gives the kernel what it takes of the connection's queue, in one call.
    fn flush(&mut self, conn: u32, driver: &mut impl Driver) {
        let c = &mut self.conns[conn as usize];
        let Some(fd) = &c.fd else { return };
        if c.lane.out.is_empty() || c.connecting {
            return;
        }
        let took = match socket::send(fd, &c.lane.out, SendFlags::NOSIGNAL) {
            Ok(took) => took,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(e) => return self.close(conn, &format!("send: {e}"), driver),
        };
        self.bytes.0 += took as u64;
        let whole = took == c.lane.out.len();
        if whole {
            c.lane.out.clear();
        } else {
            c.lane.out.drain(..took);
        }
        if c.blocked == whole {
            c.blocked = !whole;
            if whole {
                c.lane.unblocked_ns = clock::now();
            }
            let interest = if whole {
                epoll::EventFlags::IN
            } else {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            };
            let data = epoll::EventData::new_u64(u64::from(conn));
            if let Err(e) = epoll::modify(&self.epoll, fd, data, interest) {
                self.close(conn, &format!("epoll_ctl: {e}"), driver);
            }
        }
    }

    fn close(&mut self, conn: u32, why: &str, driver: &mut impl Driver) {
        let c = &mut self.conns[conn as usize];
        if c.fd.take().is_none() {
            return;
        }
        c.input.clear();
        c.lane.out.clear();
        c.blocked = false;
        if std::mem::take(&mut c.connecting) {
            self.opening -= 1;
        } else {
            self.up -= 1;
        }
        driver.closed(conn, why, &mut c.lane.waiting.drain(..));
        if self.target.reconnect {
            self.to_open.push_back((clock::now() + RETRY_NS, conn));
        }
    }

    /// Opens the next connections, at the pace and with the limit on attempts under way.
    fn open_due(&mut self, now_ns: u64, driver: &mut impl Driver) -> Result<()> {
        while let Some((not_before, conn)) = self.to_open.front().copied() {
            let later = now_ns < not_before.max(self.next_open_ns);
            let enough = self.up + self.opening >= self.open_max;
            if later || enough || self.opening >= OPENING_MAX {
                break;
            }
            self.to_open.pop_front();
            self.open(conn, driver)?;
            let gap = clock::SECOND / u64::from(self.target.connects_per_s.max(1));
            self.next_open_ns = self.next_open_ns.max(now_ns.saturating_sub(clock::MILLI)) + gap;
        }
        Ok(())
    }

    fn open(&mut self, conn: u32, driver: &mut impl Driver) -> Result<()> {
        let endpoint = self.conns[conn as usize].lane.endpoint;
        let to = self.target.endpoints[endpoint as usize];
        let family = if to.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket::socket_with(family, SocketType::STREAM, flags, None)
            .context("cannot make a socket (the limit on open files?)")?;
        socket::sockopt::set_tcp_nodelay(&fd, true).context("TCP_NODELAY")?;
        if let Some(source) = source_for(conn, self.conns.len() as u32, self.serial, to) {
            socket::bind(&fd, &source).with_context(|| format!("cannot bind to {source}"))?;
        }
        let done = match socket::connect(&fd, &to) {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(e) => {
                self.refused(conn, e);
                return Ok(());
            }
        };
        let data = epoll::EventData::new_u64(u64::from(conn));
        epoll::add(&self.epoll, &fd, data, epoll::EventFlags::OUT).context("epoll_ctl")?;
        let c = &mut self.conns[conn as usize];
        c.fd = Some(fd);
        c.connecting = true;
        self.opening += 1;
        if done {
            self.connected(conn, driver);
        }
        Ok(())
    }

    fn connected(&mut self, conn: u32, driver: &mut impl Driver) {
        let c = &mut self.conns[conn as usize];
        let Some(fd) = &c.fd else { return };
        let verdict = socket::sockopt::socket_error(fd).and_then(|v| v);
        let data = epoll::EventData::new_u64(u64::from(conn));
        let verdict =
            verdict.and_then(|()| epoll::modify(&self.epoll, fd, data, epoll::EventFlags::IN));
        self.opening -= 1;
        c.connecting = false;
        match verdict {
            Ok(()) => {
                self.up += 1;
                self.flush(conn, driver);
            }
            Err(e) => {
                c.fd = None;
                // Whatever was queued meanwhile was never sent.
                c.lane.out.clear();
                if !c.lane.waiting.is_empty() {
                    driver.closed(conn, "never opened", &mut c.lane.waiting.drain(..));
                }
                self.refused(conn, e);
            }
        }
    }

    /// The server did not take a connection: try again a little later. The driver's own
    /// time limit ends the attempts.
    fn refused(&mut self, conn: u32, why: Errno) {
        self.last_refusal = Some(why);
        self.to_open.push_back((clock::now() + RETRY_NS, conn));
    }
}

/// Hands the whole answers at the start of `input` to the driver; returns their length.
fn answers(
    input: &[u8],
    lane: &mut Lane,
    driver: &mut impl Driver,
    now_ns: u64,
) -> Result<usize, String> {
    let mut used = 0;
    while used < input.len() {
        let Some(head) = driver.frame(lane, &input[used..])? else {
            break;
        };
        if input.len() - used < head.total_len() {
            break;
        }
        let body = &input[used + head.head_len..used + head.total_len()];
        used += head.total_len();
        if head.status < 200 {
            continue;
        }
        let Some(pending) = lane.waiting.pop_front() else {
            return Err(format!("a {} that answers no request", head.status));
        };
        driver.answered(lane, pending, &head, body, now_ns);
    }
    Ok(used)
}

/// Where connection `conn` of `total` comes from, if it matters: one address has only some
/// 28,000 ports, and those of a run before this one may still be in TIME_WAIT.
fn source_for(conn: u32, total: u32, serial: u32, to: SocketAddr) -> Option<SocketAddr> {
    if total <= CONNECTIONS_PER_SOURCE / 4 || !to.is_ipv4() {
        return None;
    }
    let net = 1 + std::process::id().wrapping_add(serial) % 250;
    let host = 2 + conn / CONNECTIONS_PER_SOURCE;
    let address = Ipv4Addr::new(127, 0, net as u8, host.min(254) as u8);
    Some(SocketAddr::new(IpAddr::V4(address), 0))
}

/// How the reason of [`Driver::closed`] begins if the server sent something else than HTTP.
pub(crate) const NOT_HTTP: &str = "not HTTP: ";

/// How many [`Net`]s there have been.
static NETS: AtomicU32 = AtomicU32::new(0);
/// Connections from one source address.
const CONNECTIONS_PER_SOURCE: u32 = 10_000;
/// Connection attempts under way at once.
const OPENING_MAX: u32 = 256;
/// Pause before a connection is tried again.
const RETRY_NS: u64 = 20 * clock::MILLI;
/// Longest wait, so that a driver's own limits are looked at.
const WAIT_NS_MAX: u64 = 100 * clock::MILLI;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;
/// Bytes queued on a connection before more is refused.
const OUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events taken at once.
const EVENTS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    struct Seen(Vec<(u32, u16, usize)>);

    impl Driver for Seen {
        fn tick(&mut self, _: &mut Net, _: u64) -> Next {
            Next::Stop
        }
        fn answered(&mut self, _: &mut Lane, p: Pending, r: &Reply, body: &[u8], _: u64) {
            self.0.push((p.sent.session, r.status, body.len()));
        }
        fn closed(&mut self, _: u32, _: &str, _: &mut dyn Iterator<Item = Pending>) {}
    }

    fn pending(kind: Kind, session: u32) -> Pending {
        let sent = Sent {
            session,
            at_ns: 0,
            floor: 0,
        };
        Pending {
            kind,
            sent,
            due_ns: 0,
        }
    }

    fn lane() -> Lane {
        let mut lane = Lane::default();
        lane.waiting.push_back(pending(Kind::Head, 1));
        lane.waiting.push_back(pending(Kind::Get, 2));
        lane.waiting.push_back(pending(Kind::Head, 3));
        lane
    }

    const THREE: &[u8] = b"HTTP/1.1 404 x\r\ncontent-length: 9\r\n\r\n\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\n{}\
        HTTP/1.1 204 x\r\n\r\n";

    #[test]
    fn answers_are_matched_to_requests_however_the_bytes_are_cut() {
        for cut in 0..=THREE.len() {
            let (mut lane, mut seen) = (lane(), Seen(Vec::new()));
            let used = answers(&THREE[..cut], &mut lane, &mut seen, 0).unwrap();
            answers(&THREE[used..], &mut lane, &mut seen, 0).unwrap();
            assert_eq!(
                seen.0,
                [(1, 404, 0), (2, 200, 2), (3, 204, 0)],
                "cut at {cut}"
            );
            assert!(lane.waiting.is_empty());
        }
    }

    #[test]
    fn an_answer_nobody_asked_for_is_an_error() {
        let mut seen = Seen(Vec::new());
        let mut none = Lane::default();
        let why = answers(b"HTTP/1.1 204 x\r\n\r\n", &mut none, &mut seen, 0).unwrap_err();
        assert!(why.contains("answers no request"), "{why}");
        let why = answers(b"SSH-2.0\r\n", &mut lane(), &mut seen, 0).unwrap_err();
        assert!(why.starts_with(NOT_HTTP), "{why}");
    }

    #[test]
    fn many_connections_come_from_many_addresses() {
        let to: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(source_for(0, 64, 0, to), None);
        let first = source_for(0, 25_000, 0, to).unwrap().ip();
        let last = source_for(24_999, 25_000, 0, to).unwrap().ip();
        assert!(first != last && first.is_loopback() && last.is_loopback());
        assert_eq!(source_for(0, 25_000, 0, "[::1]:1".parse().unwrap()), None);
    }
}
