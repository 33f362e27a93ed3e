//! The paths whose instructions are counted, each from request bytes to reply bytes.

use std::hint::black_box;
use std::path::Path;

use systole::time::{Millis, TICK_MS};

use crate::lone::Server;

/// A way that requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `HEAD /G/M`, one at a time on each of many connections.
    Heartbeat,
    /// `HEAD /G/M`, so many in one input.
    HeartbeatPipelined,
    /// Lines of `POST /-/heartbeats`.
    BatchNames,
    /// Packed ids of `POST /-/heartbeats`.
    BatchIds,
    /// `PUT /G/M` of a new member, without the document; many under way at once.
    Join,
    /// The same, answered with the document of a small group.
    JoinDocument,
    /// The end of sessions that are all due together.
    Expiry,
}

/// A path as the table names it.
pub(crate) struct PathOfRequests {
    pub(crate) name: &'static str,
    kind: Kind,
}

/// All of them, in the order of the table.
pub(crate) const PATHS: [PathOfRequests; 7] = [
    path("heartbeat", Kind::Heartbeat),
    path("heartbeat-pipelined", Kind::HeartbeatPipelined),
    path("batch-names", Kind::BatchNames),
    path("batch-ids", Kind::BatchIds),
    path("join", Kind::Join),
    path("join-document", Kind::JoinDocument),
    path("expiry", Kind::Expiry),
];

const fn path(name: &'static str, kind: Kind) -> PathOfRequests {
    PathOfRequests { name, kind }
}

impl PathOfRequests {
    /// Goes along it once uncounted, so that everything has its memory, and then counted.
    /// Returns the number of operations counted.
    pub(crate) fn run(&self, dir: &Path) -> u64 {
        let mut world = World::new(dir);
        match self.kind {
            Kind::Heartbeat => world.heartbeats(1),
            Kind::HeartbeatPipelined => world.heartbeats(32),
            Kind::BatchNames => world.batches(false),
            Kind::BatchIds => world.batches(true),
            Kind::Join => world.joins(MINIMAL),
            Kind::JoinDocument => world.joins(""),
            Kind::Expiry => world.expiry(),
        }
    }
}

/// What is counted: `--toggle-collect` of callgrind knows this function by its name.
#[inline(never)]
fn counted_work<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// A server with sessions, and room for its answers.
struct World {
    server: Server,
    out: Vec<u8>,
    joined: usize,
}

impl World {
    fn new(dir: &Path) -> World {
        let mut world = World {
            server: Server::new(dir, CONNS as u32),
            out: Vec::with_capacity(1 << 22),
            joined: 0,
        };
        while world.joined < SESSIONS {
            let inputs = world.join_requests(MINIMAL);
            world.exchange(&inputs);
        }
        world
    }

    /// `HEAD` of sessions in no order, `pipelined` in one input.
    fn heartbeats(&mut self, pipelined: usize) -> u64 {
        let mut order = Order(1);
        let mut inputs = || -> Vec<Vec<u8>> {
            let of_one = |_| -> Vec<u8> {
                let beats = (0..pipelined).map(|_| {
                    let path = path_of(order.below(SESSIONS));
                    format!("HEAD {path} HTTP/1.1\r\n{HOST}Accept: */*\r\n\r\n")
                });
                beats.collect::<String>().into_bytes()
            };
            (0..CONNS).map(of_one).collect()
        };
        let (warm, counted) = (inputs(), inputs());
        self.exchange(&warm);
        counted_work(|| self.exchange(&counted));
        self.all_said("HTTP/1.1 204", CONNS * pipelined)
    }

    /// Batches of sessions in no order.
    fn batches(&mut self, by_id: bool) -> u64 {
        let ids = self.ids();
        let mut order = Order(2);
        let mut inputs = || -> Vec<Vec<u8>> {
            let sessions = (0..BATCH).map(|_| order.below(SESSIONS));
            let (kind, body) = if by_id {
                let bodies = sessions.map(|session| ids[session]);
                (
                    "application/octet-stream",
                    bodies.collect::<Vec<_>>().concat(),
                )
            } else {
                let lines = sessions.map(|session| format!("{}\n", &path_of(session)[1..]));
                ("text/plain", lines.collect::<String>().into_bytes())
            };
            let head = format!(
                "POST /-/heartbeats HTTP/1.1\r\n{HOST}Content-Type: {kind}\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            vec![[head.into_bytes(), body].concat()]
        };
        let (warm, counted) = (inputs(), inputs());
        self.exchange(&warm);
        counted_work(|| self.exchange(&counted));
        assert!(self.out.starts_with(b"HTTP/1.1 200"), "{}", self.said());
        assert!(self.said().contains(&format!("{BATCH}")), "{}", self.said());
        BATCH as u64
    }

    /// Every session's id, as its heartbeat tells it.
    fn ids(&mut self) -> Vec<[u8; 16]> {
        let id_of = |session| {
            let beat = format!("HEAD {} HTTP/1.1\r\n{HOST}\r\n", path_of(session));
            self.exchange(&[beat.into_bytes()]);
            let said = self.said();
            let (_, after) = said.split_once("x-session-id: ").expect("a beat tells it");
            let id = u128::from_str_radix(&after[..32], 16).expect("32 hex digits");
            id.to_be_bytes()
        };
        (0..SESSIONS).map(id_of).collect()
    }

    /// New members, one on each connection.
    fn joins(&mut self, prefer: &str) -> u64 {
        let mut count = 0;
        for round in 0..=JOIN_ROUNDS {
            let inputs = self.join_requests(prefer);
            if round == 0 {
                self.exchange(&inputs);
            } else {
                counted_work(|| self.exchange(&inputs));
                count += self.all_said("HTTP/1.1 201", CONNS);
            }
        }
        count
    }

    /// The end of every session at its one deadline. The first mass of them is not counted.
    fn expiry(&mut self) -> u64 {
        self.expire(|work| work());
        while self.joined < 2 * SESSIONS {
            let inputs = self.join_requests(MINIMAL);
            self.exchange(&inputs);
        }
        self.expire(|work| counted_work(work));
        SESSIONS as u64
    }

    /// Lets time pass until all sessions are due, and has `count` end them.
    fn expire(&mut self, count: impl FnOnce(&mut dyn FnMut())) {
        let server = &mut self.server;
        assert_eq!(server.sessions(), SESSIONS);
        while !server.is_behind() {
            server.pass(Millis(TICK_MS));
        }
        count(&mut || {
            while server.sessions() > 0 {
                server.carry(&mut self.out);
                server.pass(Millis(1));
            }
        });
    }

    fn join_requests(&mut self, prefer: &str) -> Vec<Vec<u8>> {
        let request = |_| {
            let path = path_of(self.joined);
            self.joined += 1;
            let head = format!("PUT {path}?timeout=20s HTTP/1.1\r\n{HOST}");
            format!("{head}Content-Length: 0\r\n{prefer}\r\n").into_bytes()
        };
        (0..CONNS).map(request).collect()
    }

    /// One input on each connection, and all answers.
    fn exchange(&mut self, inputs: &[Vec<u8>]) {
        self.out.clear();
        let inputs = inputs.iter().enumerate();
        let inputs = inputs.map(|(conn, input)| (conn as u32, &input[..]));
        self.server.receive(inputs, &mut self.out);
        self.server.carry(&mut self.out);
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Every one of `count` answers begins like this.
    fn all_said(&self, status: &str, count: usize) -> u64 {
        let said = self.said();
        assert_eq!(said.matches(status).count(), count, "{said}");
        count as u64
    }
}

/// A session's path. Members of a group are not neighbours in time, and names have a usual
/// length.
fn path_of(session: usize) -> String {
    let scattered = session.wrapping_mul(0x9e37_79b1) % (1 << 24);
    format!(
        "/group-{:03}/worker-{scattered:09}.eu-west",
        session % GROUPS
    )
}

/// A small generator, so that all runs are alike.
struct Order(u64);

impl Order {
    fn below(&mut self, n: usize) -> usize {
        let step = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = step.wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

const HOST: &str = "Host: 127.0.0.1:8640\r\nUser-Agent: curl/8.5.0\r\n";
const MINIMAL: &str = "Prefer: return=minimal\r\n";
/// Connections, and joins under way at once: what TARGETS P7 has.
const CONNS: usize = 512;
/// Sessions there are, spread over `GROUPS`: enough for the shard to look ahead at its inputs.
const SESSIONS: usize = 8_192;
const GROUPS: usize = 128;
/// Beats in a batch.
const BATCH: usize = 1_000;
const JOIN_ROUNDS: usize = 4;
