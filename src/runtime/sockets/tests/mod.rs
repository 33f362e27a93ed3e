//! The engine against real sockets and a service that speaks lines instead of HTTP.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use super::*;

mod bulk;

/// Answers each line `x` with `<x>`. `wait` answers once woken, `big N` sends N KiB in pieces
/// of 64, `close` closes after its answer.
#[derive(Default)]
struct Lines {
    partial: HashMap<ConnId, Vec<u8>>,
    owed: HashMap<ConnId, usize>,
    asleep: Vec<ConnId>,
    closed: Vec<ConnId>,
    finished: usize,
    served: usize,
    expected: usize,
    /// Those whose last line began with `bulk`: each such line takes a third of a millisecond.
    bulk: HashSet<ConnId>,
    bulk_lines: usize,
    /// Lines that had waited for long.
    late_lines: usize,
    is_late: bool,
    now: Rc<Cell<u64>>,
}

impl Lines {
    fn work(&mut self, conn: ConnId, out: &mut Vec<u8>) -> Next {
        loop {
            if let Some(owed) = self.owed.get_mut(&conn).filter(|owed| **owed > 0) {
                *owed -= 1;
                out.extend_from_slice(&[b'#'; 64 * 1024]);
                return Next::More;
            }
            let input = self.partial.entry(conn).or_default();
            let Some(end) = input.iter().position(|b| *b == b'\n') else {
                return Next::Read;
            };
            let line: Vec<u8> = input.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            let line = line.trim_end();
            if line == "wait" {
                self.asleep.push(conn);
                return Next::Wait;
            }
            if let Some(kib) = line.strip_prefix("big ") {
                self.owed.insert(conn, kib.parse::<usize>().unwrap() / 64);
                continue;
            }
            out.extend_from_slice(format!("<{line}>").as_bytes());
            self.late_lines += usize::from(self.is_late);
            self.bulk.remove(&conn);
            if line.starts_with("bulk") {
                self.bulk.insert(conn);
                self.bulk_lines += 1;
                self.now.set(self.now.get() + NS_PER_MS.div_ceil(3));
            }
            if line == "close" {
                return Next::Close;
            }
        }
    }
}

impl Service for Lines {
    fn open(&mut self, conn: ConnId, _: Millis) {
        assert!(
            self.partial.insert(conn, Vec::new()).is_none(),
            "a generation used twice"
        );
    }
    fn refuse(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<full>");
    }
    fn expect<'a>(&mut self, inputs: impl Iterator<Item = &'a [u8]>) {
        self.expected += inputs.count();
    }
    fn receive(&mut self, conn: ConnId, bytes: &[u8], _: Millis, out: &mut Vec<u8>) -> Next {
        self.partial
            .get_mut(&conn)
            .unwrap()
            .extend_from_slice(bytes);
        self.work(conn, out)
    }
    fn resume(&mut self, conn: ConnId, _: Millis, out: &mut Vec<u8>) -> Next {
        if let Some(at) = self.asleep.iter().position(|id| *id == conn) {
            self.asleep.remove(at);
            out.extend_from_slice(b"<woken>");
        }
        self.work(conn, out)
    }
    fn finish(&mut self, conn: ConnId, _: Millis, _: &mut Vec<u8>) -> Next {
        self.finished += 1;
        if self.asleep.contains(&conn) {
            Next::Wait
        } else {
            Next::Close
        }
    }
    fn review(&mut self, _: ConnId, now: Millis, out: &mut Vec<u8>) -> Option<Next> {
        (now >= Millis(1_000_000)).then(|| {
            out.extend_from_slice(b"<idle>");
            Next::Close
        })
    }
    fn late(&mut self, is_late: bool) {
        self.is_late = is_late;
    }
    fn is_bulk(&self, conn: ConnId) -> bool {
        self.bulk.contains(&conn)
    }
    fn close(&mut self, conn: ConnId) {
        self.partial.remove(&conn);
        self.closed.push(conn);
    }
    fn served(&mut self, took_ns: u64) {
        assert!(took_ns < 60 * 1_000 * NS_PER_MS, "{took_ns}");
        self.served += 1;
    }
}

struct World {
    sockets: Sockets,
    lines: Lines,
    addr: SocketAddr,
    now: Rc<Cell<u64>>,
}

impl World {
    fn new(open_max: usize) -> World {
        let addr = probe("127.0.0.1:0".parse().unwrap()).unwrap();
        let now = Rc::new(Cell::new(NS_PER_MS));
        let clock = Rc::clone(&now);
        let clock = Box::new(move || clock.get());
        let sockets = Sockets::new(listener(addr, 0).unwrap(), open_max, clock).unwrap();
        World {
            sockets,
            lines: Lines {
                now: Rc::clone(&now),
                ..Lines::default()
            },
            addr,
            now,
        }
    }

    fn client(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_nodelay(true).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        client
    }

    fn turn(&mut self) -> Turn {
        self.turn_with(Waits::default())
    }

    fn turn_with(&mut self, waits: Waits) -> Turn {
        self.sockets.turn(&mut self.lines, waits).unwrap()
    }

    /// Turns until `client` has received `wanted`, and some more to see that nothing follows;
    /// fails after some thousand turns.
    fn expect(&mut self, client: &mut TcpStream, wanted: &str) {
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        for turn in 0..5_000 {
            self.turn();
            match client.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            if got.len() >= wanted.len() && turn > 20 {
                break;
            }
        }
        assert_eq!(String::from_utf8_lossy(&got), wanted);
    }

    /// Turns until the server has closed its side towards `client`.
    fn expect_end(&mut self, client: &mut TcpStream) {
        for _ in 0..5_000 {
            self.turn();
            match client.read(&mut [0; 4096]) {
                Ok(0) => return,
                Ok(_) => panic!("bytes after the end"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        panic!("not closed");
    }
}

#[test]
fn lines_sent_in_one_piece_or_many_are_answered_in_order() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"a\nb\nc").unwrap();
    world.expect(&mut client, "<a><b>");
    client.write_all(b"c\n").unwrap();
    world.expect(&mut client, "<cc>");
    assert_eq!(world.lines.served, 2, "once a read");
}

#[test]
fn inputs_that_come_together_are_announced_together_and_each_is_answered() {
    let mut world = World::new(200);
    let mut clients: Vec<_> = (0..150).map(|_| world.client()).collect();
    for _ in 0..50 {
        world.turn();
    }
    for (index, client) in clients.iter_mut().enumerate() {
        // Some send more than the stage takes of one.
        let line = "x".repeat(if index % 10 == 0 { 9_000 } else { 10 });
        client
            .write_all(format!("{index}{line}\n").as_bytes())
            .unwrap();
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let line = "x".repeat(if index % 10 == 0 { 9_000 } else { 10 });
        world.expect(client, &format!("<{index}{line}>"));
    }
    assert!(world.lines.expected >= 100, "{}", world.lines.expected);
}

#[test]
fn a_waiting_connection_is_not_read_until_it_is_resumed() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"wait\nafter\n").unwrap();
    world.expect(&mut client, "");
    client.write_all(b"later\n").unwrap();
    world.expect(&mut client, "");
    let conn = world.lines.asleep[0];
    world.sockets.resume(conn);
    assert!(world.sockets.is_busy());
    world.expect(&mut client, "<woken><after><later>");
}

#[test]
fn a_client_that_shuts_its_side_still_gets_its_answers() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"a\nwait\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    world.expect(&mut client, "<a>");
    let conn = world.lines.asleep[0];
    world.sockets.resume(conn);
    world.expect(&mut client, "<woken>");
    assert_eq!(world.lines.finished, 1);
    world.expect_end(&mut client);
    world.turn();
    assert_eq!(world.sockets.open(), 0);
}

#[test]
fn a_client_that_reads_slowly_gets_everything_and_delays_nobody() {
    let mut world = World::new(8);
    let mut slow = world.client();
    let mut quick = world.client();
    slow.write_all(b"big 16384\n").unwrap();
    for _ in 0..50 {
        world.turn();
    }
    quick.write_all(b"hello\n").unwrap();
    world.expect(&mut quick, "<hello>");
    let held: usize = world
        .sockets
        .conns
        .iter()
        .flat_map(|p| &p.conn)
        .map(|c| c.unsent.len())
        .sum();
    assert!(held <= 64 * 1024, "one batch of output at most: {held}");
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    while total < 16_384 * 1024 {
        world.turn();
        if let Ok(count) = slow.read(&mut buffer) {
            assert!(buffer[..count].iter().all(|b| *b == b'#'));
            total += count;
        }
    }
    slow.write_all(b"done\n").unwrap();
    world.expect(&mut slow, "<done>");
}

#[test]
fn an_answer_before_a_close_arrives_although_the_client_goes_on_sending() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"close\n").unwrap();
    client.write_all(&vec![b'x'; 300_000]).unwrap();
    world.expect(&mut client, "<close>");
    world.expect_end(&mut client);
    drop(client);
    for _ in 0..100 {
        world.turn();
    }
    assert_eq!(world.sockets.open(), 0);
}

#[test]
fn a_close_that_the_client_never_answers_ends_after_a_while() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"close\n").unwrap();
    world.expect(&mut client, "<close>");
    assert_eq!(world.sockets.open(), 1, "draining");
    world.now.set((1 + DRAIN_MS_MAX + 1) * NS_PER_MS);
    world.sockets.review(&mut world.lines);
    assert_eq!(world.sockets.open(), 0);
}

#[test]
fn a_client_that_never_reads_its_answers_is_dropped_after_a_while() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"big 65536\n").unwrap();
    for _ in 0..200 {
        world.turn();
    }
    world.now.set((1 + STUCK_MS_MAX) * NS_PER_MS);
    world.sockets.review(&mut world.lines);
    assert_eq!(world.sockets.open(), 1);
    world.now.set(world.now.get() + NS_PER_MS);
    world.sockets.review(&mut world.lines);
    assert_eq!(world.sockets.open(), 0);
    assert_eq!(world.lines.closed.len(), 1);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let mut world = World::new(2);
    let mut first = world.client();
    let mut second = world.client();
    let mut third = world.client();
    world.expect(&mut third, "<full>");
    world.expect_end(&mut third);
    first.write_all(b"a\n").unwrap();
    world.expect(&mut first, "<a>");
    drop(third);
    drop(second.write_all(b"close\n"));
    world.expect(&mut second, "<close>");
    drop(second);
    for _ in 0..10 {
        world.turn();
    }
    let mut fourth = world.client();
    fourth.write_all(b"b\n").unwrap();
    world.expect(&mut fourth, "<b>");
}

#[test]
fn a_place_used_again_does_not_answer_to_its_old_name() {
    let mut world = World::new(8);
    let mut first = world.client();
    first.write_all(b"wait\n").unwrap();
    world.expect(&mut first, "");
    let old = world.lines.asleep[0];
    drop(first);
    while world.sockets.open() > 0 {
        world.turn();
        // The service asked to wait; the review is what ends such a connection.
        world.now.set(1_000_000 * NS_PER_MS);
        world.sockets.review(&mut world.lines);
    }
    world.now.set(2 * NS_PER_MS);
    let mut second = world.client();
    second.write_all(b"a\n").unwrap();
    world.expect(&mut second, "<a>");
    world.sockets.resume(old);
    assert!(!world.sockets.is_busy(), "the old connection is gone");
    assert_ne!(
        old,
        ConnId {
            index: old.index,
            generation: old.generation + 1
        }
    );
    assert_eq!(ConnId::from_key(old.key()), old);
}

#[test]
fn an_idle_connection_is_closed_when_the_service_says_so() {
    let mut world = World::new(8);
    let mut client = world.client();
    client.write_all(b"a\n").unwrap();
    world.expect(&mut client, "<a>");
    world.now.set(1_000_000 * NS_PER_MS);
    world.sockets.review(&mut world.lines);
    world.expect(&mut client, "<idle>");
    world.expect_end(&mut client);
}

#[test]
fn thousands_that_fell_silent_together_are_ended_a_few_at_a_time() {
    let mut world = World::new(4 * REVIEWED_MAX);
    let mut clients: Vec<TcpStream> = (0..3 * REVIEWED_MAX).map(|_| world.client()).collect();
    while world.sockets.open() < clients.len() {
        world.turn();
    }
    for client in &clients {
        client.set_nonblocking(true).unwrap();
    }
    let told = |clients: &mut [TcpStream]| {
        let each = clients.iter_mut().map(|client| client.peek(&mut [0]));
        each.filter(Result::is_ok).count()
    };
    // First those are told, then those are dropped who do not close in answer.
    for later_ms in [1_000_000, 1_000_001 + DRAIN_MS_MAX] {
        world.now.set(later_ms * NS_PER_MS);
        for calls in 1..=3 {
            world.sockets.review(&mut world.lines);
            let (told, closed) = (told(&mut clients), world.lines.closed.len());
            let reviewed = if later_ms == 1_000_000 { told } else { closed };
            assert_eq!(reviewed, calls * REVIEWED_MAX);
        }
    }
    assert_eq!(world.sockets.open(), 0);
}

#[test]
fn a_port_in_use_is_refused_even_when_it_is_shared() {
    let world = World::new(1);
    assert_eq!(probe(world.addr).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert!(listener(world.addr, 0).is_ok(), "another shard may listen");
}

#[test]
fn a_connection_has_the_buffers_that_its_listener_was_told() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let size = |socket: &OwnedFd| {
        let received = sockopt::socket_recv_buffer_size(socket).unwrap();
        (received, sockopt::socket_send_buffer_size(socket).unwrap())
    };
    let accepted = |buffer_bytes| {
        let listener = listener(any, buffer_bytes).unwrap();
        let at = rustix::net::getsockname(&listener).unwrap();
        let _client = TcpStream::connect(SocketAddr::try_from(at).unwrap()).unwrap();
        size(&accept_with(&listener, SocketFlags::empty()).unwrap())
    };
    // The kernel doubles what it is given.
    assert_eq!(accepted(65_536), (131_072, 131_072));
    assert_ne!(accepted(0), (131_072, 131_072), "left to the kernel");
}
