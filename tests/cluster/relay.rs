//! A TCP relay between the servers, which can lose its way: every server knows every other by
//! an address of the relay, so that a test decides what gets through, in which direction, how
//! late, and when a connection breaks.
//!
//! Bytes that a cut holds back are not lost: they come when it is mended, as TCP's do. A cut
//! hides the end of a connection as well. Who dials is read from the greeting, whose layout is
//! that of `wire::hello`: `from` is at offset 21.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Deadline, now};
use crate::network::Network;

/// What happens to bytes on their way from one server to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rule {
    cut: bool,
    delay: Duration,
}

/// The relay; dropped, it closes all it carries.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    listeners: Vec<TcpListener>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By sender and receiver, both counted from 0.
    rules: Vec<Vec<Rule>>,
    /// Both ends of every connection that is carried, and between whom.
    carried: Vec<Carried>,
    count: u64,
    closed: bool,
}

struct Carried {
    number: u64,
    pair: (usize, usize),
    ends: [TcpStream; 2],
}

impl Relay {
    /// Carries what comes to `doors[i]` on to `servers[i]`.
    pub(crate) fn start(doors: &[SocketAddr], servers: &[SocketAddr]) -> Relay {
        let state = State {
            rules: vec![vec![Rule::default(); servers.len()]; servers.len()],
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let open = |(to, (&door, &server)): (usize, (&SocketAddr, &SocketAddr))| {
            let listener = TcpListener::bind(door).expect("a door of the relay");
            let accepting = listener.try_clone().expect("a second descriptor");
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.accept(&accepting, to, server));
            listener
        };
        let listeners = doors.iter().zip(servers).enumerate().map(open).collect();
        Relay { shared, listeners }
    }
}

impl Network for Relay {
    fn cut(&self, from: usize, to: usize) {
        self.shared.set(|rules| rules[from][to].cut = true);
    }

    fn heal(&self) {
        self.shared.set(|rules| {
            let rules = rules.iter_mut().flatten();
            rules.for_each(|rule| *rule = Rule::default());
        });
    }

    fn delay(&self, from: usize, to: usize, delay: Duration) {
        self.shared.set(|rules| rules[from][to].delay = delay);
    }

    fn sever(&self, one: usize, other: usize) {
        let state = self.shared.lock();
        for carried in &state.carried {
            if [(one, other), (other, one)].contains(&carried.pair) {
                carried.end();
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.carried.iter().for_each(Carried::end);
        drop(state);
        self.shared.changed.notify_all();
        for listener in &self.listeners {
            // It wakes whoever waits in accept.
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
    }
}

impl Carried {
    fn end(&self) {
        for end in &self.ends {
            // It may have ended before.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the relay's lock")
    }

    fn set(&self, change: impl FnOnce(&mut Vec<Vec<Rule>>)) {
        change(&mut self.lock().rules);
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Shared>, listener: &TcpListener, to: usize, server: SocketAddr) {
        while let Ok((stream, _)) = listener.accept() {
            if self.lock().closed {
                return;
            }
            let shared = Arc::clone(self);
            thread::spawn(move || shared.carry(stream, to, server));
        }
    }

    /// Carries one connection, once its greeting says whose it is.
    fn carry(self: &Arc<Shared>, mut dialled: TcpStream, to: usize, server: SocketAddr) {
        let mut greeting = [0; GREETING_BYTES];
        let _ = dialled.set_read_timeout(Some(GREETING_TIME));
        if dialled.read_exact(&mut greeting).is_err() {
            return;
        }
        let _ = dialled.set_read_timeout(None);
        let id = greeting[21..25].try_into().expect("four bytes");
        let from = (u32::from_be_bytes(id) as usize).wrapping_sub(1);
        let Ok(accepted) = TcpStream::connect_timeout(&server, GREETING_TIME) else {
            return;
        };
        for stream in [&dialled, &accepted] {
            let _ = stream.set_nodelay(true);
        }
        let Some(number) = self.register((from, to), &dialled, &accepted) else {
            return;
        };
        let there = self.pump((from, to), greeting.to_vec(), &dialled, &accepted);
        let back = self.pump((to, from), Vec::new(), &accepted, &dialled);
        for pump in [there, back] {
            pump.join().expect("a pump of the relay");
        }
        self.lock().carried.retain(|c| c.number != number);
    }

    fn register(
        &self,
        pair: (usize, usize),
        dialled: &TcpStream,
        accepted: &TcpStream,
    ) -> Option<u64> {
        let ends = [dialled.try_clone().ok()?, accepted.try_clone().ok()?];
        let mut state = self.lock();
        // Whoever greets with a number that no server has is not carried anywhere.
        if state.closed || pair.0 >= state.rules.len() {
            return None;
        }
        state.count += 1;
        let number = state.count;
        state.carried.push(Carried { number, pair, ends });
        Some(number)
    }

    /// Carries bytes one way: a thread that reads and notes the time, and one that writes when
    /// the rule of the day lets it.
    fn pump(
        self: &Arc<Shared>,
        way: (usize, usize),
        first: Vec<u8>,
        from: &TcpStream,
        to: &TcpStream,
    ) -> thread::JoinHandle<()> {
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        let mut from = from.try_clone().expect("a second descriptor");
        let mut to = to.try_clone().expect("a second descriptor");
        let shared = Arc::clone(self);
        thread::spawn(move || {
            thread::spawn(move || read_all(&mut from, first, &sender));
            shared.write_all(way, &receiver, &mut to);
            // The end comes after all that was said before it, and no sooner than a cut lets it.
            let _ = to.shutdown(Shutdown::Write);
        })
    }

    fn write_all(&self, way: (usize, usize), chunks: &Receiver<Chunk>, to: &mut TcpStream) {
        loop {
            match chunks.recv_timeout(LOOK) {
                Ok((read_at, bytes)) => {
                    if !self.pass(way, read_at) || to.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) if !self.lock().closed => {}
                Err(_) => {
                    self.pass(way, now());
                    return;
                }
            }
        }
    }

    /// Waits until what was read at `read_at` may be written; false if it never will.
    fn pass(&self, (from, to): (usize, usize), read_at: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed {
                return false;
            }
            let rule = state.rules[from][to];
            if rule.cut {
                state = self.changed.wait(state).expect("the relay's lock");
                continue;
            }
            let wait = (read_at + rule.delay).saturating_duration_since(now());
            if wait.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.expect("the relay's lock").0;
        }
    }
}

type Chunk = (Instant, Vec<u8>);

fn read_all(from: &mut TcpStream, first: Vec<u8>, sender: &SyncSender<Chunk>) {
    if !first.is_empty() && sender.send((now(), first)).is_err() {
        return;
    }
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut bytes)
        && count > 0
        && sender.send((now(), bytes[..count].to_vec())).is_ok()
    {}
}

/// How much of a greeting it takes to know who greets.
const GREETING_BYTES: usize = 29;

/// How long a greeting may take to come, and a server to accept.
const GREETING_TIME: Duration = Duration::from_secs(5);

/// Chunks that wait on one way; beyond these the reader waits, as it does on a full socket.
const CHUNKS_MAX: usize = 64;

/// How often a silent way looks whether the relay is closed.
const LOOK: Duration = Duration::from_millis(500);

/// What a relay's own test needs: a pair of ends through it.
#[cfg(test)]
mod tests {
    use super::*;

    fn hello(from: u8) -> Vec<u8> {
        let mut bytes = vec![0; GREETING_BYTES];
        bytes[24] = from;
        bytes
    }

    /// A relay between two servers of which the test plays both; the ends of a connection that
    /// the first has dialled.
    fn connected() -> (Relay, TcpStream, TcpStream) {
        let any = "127.0.0.1:0".parse().expect("an address");
        let server = TcpListener::bind(any).expect("a port");
        let at = server.local_addr().expect("an address");
        let relay = Relay::start(&[any, any], &[at, at]);
        let door = relay.listeners[1].local_addr().expect("an address");
        let mut dialled = TcpStream::connect(door).expect("to connect");
        dialled.write_all(&hello(1)).expect("to greet");
        let (mut accepted, _) = server.accept().expect("the relay");
        accepted
            .read_exact(&mut [0; GREETING_BYTES])
            .expect("the greeting, carried on");
        (relay, dialled, accepted)
    }

    #[test]
    fn a_cut_holds_back_one_way_and_gives_it_when_mended() {
        let (relay, mut dialled, mut accepted) = connected();
        relay.cut(0, 1);
        dialled.write_all(b"held").expect("to write");
        accepted.write_all(b"back").expect("to write");
        let mut four = [0; 4];
        dialled.read_exact(&mut four).expect("the way back");
        assert_eq!(&four, b"back");
        let short = Some(Duration::from_millis(100));
        accepted.set_read_timeout(short).expect("a timeout");
        assert!(accepted.read(&mut four).is_err(), "the cut lets nothing by");
        accepted.set_read_timeout(None).expect("a timeout");
        relay.heal();
        accepted.read_exact(&mut four).expect("what was held back");
        assert_eq!(&four, b"held");
    }

    #[test]
    fn a_delay_is_kept_and_a_severed_connection_ends() {
        let (relay, mut dialled, mut accepted) = connected();
        relay.delay(0, 1, Duration::from_millis(150));
        let sent = now();
        dialled.write_all(b"late").expect("to write");
        accepted.read_exact(&mut [0; 4]).expect("it comes");
        assert!(now() - sent >= Duration::from_millis(150));
        relay.sever(1, 0);
        let patience = Deadline::after(Duration::from_secs(5));
        assert_eq!(accepted.read(&mut [0; 4]).unwrap_or(0), 0);
        patience.left("the end of a severed connection");
    }
}
