//! The driver of a comparison: the same work for whoever is spoken to.
//!
//! A closed loop: every connection asks so many questions at once, and the next ones when all
//! are answered. What is counted is whole operations, of one or more questions each.

use super::{Op, Says, Sessions, Speech, Who};
use crate::clock::{self, MILLI, SECOND};
use crate::net::{Driver, Kind, Lane, Net, Next, Pending, Target};
use crate::process;
use crate::recorder::{self, Hist};
use crate::reply::Reply;
use crate::run::ensure_files;
use crate::verify::Sent;
use crate::watch::Mass;
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::ops::Range;

/// What a crew is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Each of these sessions once, as fast as answers come.
    Each {
        /// The operation.
        op: Op,
        /// The sessions.
        sessions: Range<u32>,
    },
    /// Beats for so many sessions over and over, measured for a time.
    Beats {
        /// How many sessions; connection c of n has every n-th from c on.
        sessions: u32,
        /// Not measured at the beginning; nor what comes before every connection has had an
        /// answer.
        warmup_ns: u64,
        /// Measured.
        duration_ns: u64,
    },
    /// Sessions are counted until those of `mass` are gone, or it is `until_ns`.
    Watch {
        /// Their deadlines, sealed.
        mass: Box<Mass>,
        /// The end of patience.
        until_ns: u64,
    },
}

/// Where to and how.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// To whom.
    pub(crate) who: Who,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its process, whose CPU time is read.
    pub(crate) pid: u32,
    /// Connections; of who binds sessions to connections, those open at once while sessions
    /// are created.
    pub(crate) connections: u32,
    /// Questions under way on each.
    pub(crate) depth: u32,
    /// The load's processor.
    pub(crate) cpu: Option<usize>,
}

/// What came of it.
pub(crate) struct Took {
    /// Operations done, in the measured time if there was one.
    pub(crate) done: u64,
    /// How long that took.
    pub(crate) ns: u64,
    /// The server's CPU time meanwhile.
    pub(crate) server_ns: u64,
    /// Ours.
    pub(crate) own_ns: u64,
    /// How long each took; of a watch, how late each was.
    pub(crate) hist: Hist,
    /// When each session's last question was sent, in the order of the sessions ([`Job::Each`]).
    pub(crate) sent_ns: Vec<u64>,
    /// Watched sessions gone before their deadline, and not gone at the end.
    pub(crate) early_and_left: (u64, u64),
}

impl Took {
    /// The server's CPU time for each operation, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.server_ns as f64 / 1e3 / self.done.max(1) as f64
    }

    /// Operations a second.
    pub(crate) fn per_s(&self) -> f64 {
        self.done as f64 * 1e9 / self.ns.max(1) as f64
    }
}

/// Does a job.
///
/// # Errors
/// If connections cannot be opened, the server refuses, ends a connection or falls silent.
pub(crate) fn work(way: &Way, sessions: &Sessions, job: Job) -> Result<Took> {
    let work = || drive(way, sessions, job);
    // A thread of its own: pinning it must not pin what is started later.
    std::thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| anyhow::anyhow!("the load thread panicked"))?
}

fn drive(way: &Way, sessions: &Sessions, job: Job) -> Result<Took> {
    if let Some(cpu) = way.cpu {
        process::pin_thread(cpu);
    }
    let (connections, own_connections) = match &job {
        Job::Each {
            op: Op::Create,
            sessions: each,
        } if way.who.is_session_bound() => (each.len() as u32, true),
        _ => (way.connections, false),
    };
    ensure_files(u64::from(connections))?;
    let target = Target {
        endpoints: vec![way.address],
        connects_per_s: CONNECTS_PER_S,
        reconnect: false,
    };
    let mut net = Net::new(target, connections)?;
    if own_connections {
        net.open_up_to(way.connections);
    }
    let speech = way.who.speech(sessions, connections);
    let mut crew = Crew::new(way, speech, job, connections, own_connections);
    net.run(&mut crew)?;
    crew.finish(way)
}

/// See the module's doc.
struct Crew {
    speech: Box<dyn Speech>,
    job: Job,
    pid: u32,
    depth: u32,
    connections: u32,
    /// Clients that act at once.
    crowd: u32,
    /// Every session is created over a connection of its own, and they are opened in turn.
    own_connections: bool,
    phase: Phase,
    phase_ns: u64,
    /// Connections that have introduced themselves.
    greeted: u32,
    /// The next session of [`Job::Each`]; of beats, how many each connection has begun.
    next: u32,
    turns: Vec<u32>,
    finished: u32,
    /// Connections whose first beats are answered. What a stream costs to open is no beat's.
    warmed: u32,
    next_count_ns: u64,
    counting: bool,
    before: (u64, u64),
    last_answer_ns: u64,
    took: Took,
    failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Warming,
    Working,
    Draining,
}

impl Crew {
    fn new(way: &Way, speech: Box<dyn Speech>, job: Job, connections: u32, own: bool) -> Crew {
        let each = match &job {
            Job::Each { sessions, .. } => sessions.len(),
            _ => 0,
        };
        let now_ns = clock::now();
        Crew {
            speech,
            job,
            pid: way.pid,
            depth: way.depth,
            connections,
            crowd: way.connections,
            own_connections: own,
            phase: Phase::Opening,
            phase_ns: now_ns,
            greeted: 0,
            next: 0,
            turns: vec![0; connections as usize],
            finished: 0,
            warmed: 0,
            next_count_ns: 0,
            counting: false,
            before: (0, 0),
            last_answer_ns: now_ns,
            took: Took {
                done: 0,
                ns: 0,
                server_ns: 0,
                own_ns: 0,
                hist: recorder::empty(),
                sent_ns: vec![0; each],
                early_and_left: (0, 0),
            },
            failure: None,
        }
    }

    fn finish(mut self, way: &Way) -> Result<Took> {
        if let Some(why) = self.failure {
            anyhow::bail!("{}: {why}", way.who);
        }
        if let Job::Watch { mass, .. } = &self.job {
            let (gone, all) = mass.progress();
            self.took.early_and_left.1 = (all - gone) as u64;
        }
        ensure!(self.took.done > 0, "{}: nothing was done", way.who);
        Ok(self.took)
    }

    fn fail(&mut self, why: impl Into<String>) {
        self.failure.get_or_insert(why.into());
    }

    fn enter(&mut self, phase: Phase, now_ns: u64) {
        self.phase = phase;
        self.phase_ns = now_ns;
    }

    fn cpu(&self) -> (u64, u64) {
        let own = process::own_thread_cpu_ns().unwrap_or(0);
        (process::cpu_ns(self.pid).unwrap_or(0), own)
    }

    fn begin_working(&mut self, now_ns: u64) {
        self.before = self.cpu();
        self.enter(Phase::Working, now_ns);
    }

    fn end_working(&mut self, now_ns: u64) {
        let after = self.cpu();
        self.took.ns = now_ns - self.phase_ns;
        self.took.server_ns = after.0.saturating_sub(self.before.0);
        self.took.own_ns = after.1.saturating_sub(self.before.1);
        self.enter(Phase::Draining, now_ns);
    }

    /// Asks, and notes what about: a kind that stands for the operation, its step in the place
    /// of the version, and when the whole operation began as when it was due.
    fn ask(&mut self, lane: &mut Lane, op: Op, step: u8, session: u32, begun_ns: u64, now_ns: u64) {
        self.speech
            .ask(lane.number, op, step, session, &mut lane.out);
        let sent = Sent {
            session,
            at_ns: now_ns,
            floor: u64::from(step),
        };
        let kind = kind(op);
        lane.waiting.push_back(Pending {
            kind,
            sent,
            due_ns: begun_ns,
        });
    }

    /// Opens the connections and introduces them.
    fn open(&mut self, net: &mut Net, now_ns: u64) {
        if self.own_connections {
            return self.begin_working(now_ns);
        }
        if !net.all_up() {
            return;
        }
        let hello = self.speech.steps(Op::Hello) > 0;
        if hello && self.turns[0] == 0 {
            for conn in 0..self.connections {
                self.turns[conn as usize] = 1;
                self.ask(net.lane(conn), Op::Hello, 0, conn, now_ns, now_ns);
            }
        }
        if hello && self.greeted < self.connections {
            return;
        }
        self.turns.fill(0);
        match self.job {
            Job::Beats { .. } => self.enter(Phase::Warming, now_ns),
            _ => self.begin_working(now_ns),
        }
        if !matches!(self.job, Job::Watch { .. }) {
            for conn in 0..self.connections {
                for _ in 0..self.depth {
                    self.go_on(net.lane(conn), now_ns);
                }
            }
        }
    }

    /// Begins the connection's next operation, if there is one.
    fn go_on(&mut self, lane: &mut Lane, now_ns: u64) {
        let (op, session) = match &self.job {
            Job::Each { op, sessions } => {
                if self.next as usize >= sessions.len() {
                    return;
                }
                self.next += 1;
                (*op, sessions.start + self.next - 1)
            }
            Job::Beats { sessions, .. } => {
                if self.phase == Phase::Draining {
                    return;
                }
                let turn = &mut self.turns[lane.number as usize];
                let own = (sessions - lane.number).div_ceil(self.connections);
                // A prime step scatters neighbours in time over the session table.
                let place = (u64::from(*turn) * STRIDE % u64::from(own)) as u32;
                *turn = turn.wrapping_add(1);
                (Op::Beat, lane.number + place * self.connections)
            }
            Job::Watch { .. } => return,
        };
        self.ask(lane, op, 0, session, now_ns, now_ns);
    }

    /// Connections that are sessions: those that have come up since the last look begin.
    fn begin_sessions(&mut self, net: &mut Net, now_ns: u64) {
        while self.next < self.connections && net.is_up(self.next) {
            let conn = self.next;
            self.go_on(net.lane(conn), now_ns);
        }
    }

    fn count(&mut self, net: &mut Net, now_ns: u64) {
        let Job::Watch { mass, until_ns } = &self.job else {
            return;
        };
        if mass.all_gone() || now_ns > *until_ns {
            self.end_working(now_ns);
        } else if !self.counting && now_ns >= self.next_count_ns {
            self.counting = true;
            self.next_count_ns = now_ns + COUNT_STEP_NS;
            self.ask(net.lane(0), Op::Count, 0, 0, now_ns, now_ns);
        }
    }

    fn done(&mut self, lane: &mut Lane, op: Op, pending: Pending, value: u64, now_ns: u64) {
        let waited = now_ns.saturating_sub(pending.due_ns);
        match &mut self.job {
            _ if op == Op::Hello => self.greeted += 1,
            Job::Each { sessions, .. } => {
                let place = (pending.sent.session - sessions.start) as usize;
                self.took.sent_ns[place] = pending.sent.at_ns;
                self.took.hist.saturating_record(waited);
                self.finished += 1;
                self.took.done += 1;
                if self.finished as usize == sessions.len() {
                    self.end_working(now_ns);
                } else if !self.own_connections {
                    self.go_on(lane, now_ns);
                }
            }
            Job::Beats { .. } => {
                if self.phase == Phase::Working {
                    self.took.done += 1;
                    self.took.hist.saturating_record(waited);
                }
                // The next burst when the last is answered: whoever answers one by one must not
                // be asked one by one for it.
                if lane.waiting.is_empty() {
                    self.warmed += u32::from(self.turns[lane.number as usize] == self.depth);
                    for _ in 0..self.depth {
                        self.go_on(lane, now_ns);
                    }
                }
            }
            Job::Watch { mass, .. } => {
                self.counting = false;
                let (late, early) = mass.counted(value, now_ns);
                for (ns, members) in late {
                    self.took.done += u64::from(members);
                    self.took.hist.saturating_record_n(ns, u64::from(members));
                }
                self.took.done += early;
                self.took.early_and_left.0 += early;
            }
        }
    }

    fn advance(&mut self, net: &mut Net, now_ns: u64) {
        let spent = now_ns - self.phase_ns;
        match (&self.job, self.phase) {
            (_, Phase::Opening) => self.open(net, now_ns),
            (Job::Beats { warmup_ns, .. }, Phase::Warming)
                if spent >= *warmup_ns && self.warmed == self.connections =>
            {
                self.begin_working(now_ns);
            }
            (Job::Beats { duration_ns, .. }, Phase::Working) if spent >= *duration_ns => {
                self.end_working(now_ns);
            }
            (Job::Watch { .. }, Phase::Working) => self.count(net, now_ns),
            _ => {}
        }
        if self.own_connections && self.phase == Phase::Working {
            // Those that are done stay open: the sessions are theirs.
            net.open_up_to(self.finished + self.crowd);
            self.begin_sessions(net, now_ns);
        }
        if now_ns - self.last_answer_ns > SILENCE_NS_MAX {
            let (up, why) = (net.up(), net.last_refusal);
            let waits = net.unanswered();
            self.fail(format!(
                "silent for 60 s with {up} connections open and {waits} questions under way ({why:?})"
            ));
        }
    }
}

impl Driver for Crew {
    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next {
        self.advance(net, now_ns);
        let drained = self.phase == Phase::Draining && net.unanswered() == 0;
        if drained || self.failure.is_some() {
            return Next::Stop;
        }
        Next::Wake(now_ns + MILLI)
    }

    fn answered(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        _: &[u8],
        now_ns: u64,
    ) {
        self.last_answer_ns = now_ns;
        let (op, step) = (op(pending.kind), pending.sent.floor as u8);
        let session = pending.sent.session;
        if reply.status != YES {
            return self.fail(format!("no to step {step} of {op:?} of session {session}"));
        }
        if step + 1 < self.speech.steps(op) {
            return self.ask(lane, op, step + 1, session, pending.due_ns, now_ns);
        }
        let value = reply.group_version.unwrap_or(0);
        self.done(lane, op, pending, value, now_ns);
    }

    fn closed(&mut self, conn: u32, why: &str, lost: &mut dyn Iterator<Item = Pending>) {
        let lost = lost.count();
        self.fail(format!(
            "connection {conn}: {why}, {lost} questions unanswered"
        ));
    }

    fn frame(&mut self, lane: &mut Lane, input: &[u8]) -> Result<Option<Reply>, String> {
        let awaited = lane.waiting.front().map(|p| op(p.kind));
        let frame = self
            .speech
            .frame(lane.number, awaited, input, &mut lane.out)?;
        Ok(frame.map(|frame| {
            let (status, value) = match frame.says {
                Says::Aside => (ASIDE, None),
                Says::Yes(value) => (YES, Some(value)),
                Says::No => (NO, None),
            };
            Reply {
                status,
                group_version: value,
                body_len: frame.len,
                ..Reply::default()
            }
        }))
    }
}

/// The kind of question that stands for an operation.
fn kind(op: Op) -> Kind {
    match op {
        Op::Hello => Kind::Get,
        Op::Prepare => Kind::Probe,
        Op::Create => Kind::Join,
        Op::Beat => Kind::Head,
        Op::Count => Kind::List,
    }
}

fn op(kind: Kind) -> Op {
    match kind {
        Kind::Join => Op::Create,
        Kind::Head => Op::Beat,
        Kind::List => Op::Count,
        Kind::Probe => Op::Prepare,
        _ => Op::Hello,
    }
}

/// Statuses that stand for what a frame says; below 200 it answers nothing.
const ASIDE: u16 = 100;
const YES: u16 = 200;
const NO: u16 = 500;
/// Connections opened in a second.
const CONNECTS_PER_S: u32 = 10_000;
/// A server that says nothing for so long has failed.
const SILENCE_NS_MAX: u64 = 60 * SECOND;
/// Pause between two counts.
const COUNT_STEP_NS: u64 = 10 * MILLI;
/// No power of two and no multiple of what sessions are counted in.
const STRIDE: u64 = 7_919;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Answers every RESP command with what `say` makes of its number and its word, one by one.
    fn redis(say: fn(u32, &str) -> &'static str) -> (Way, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let serve = move |mut stream: TcpStream, count: &AtomicU32| {
            let mut piece = [0; 4096];
            let mut text = String::new();
            while let Ok(n @ 1..) = stream.read(&mut piece) {
                text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
                while let Some((word, rest)) = first(&text) {
                    let answer = say(count.fetch_add(1, Ordering::SeqCst), word);
                    if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    text = rest.to_owned();
                }
            }
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || serve(stream.unwrap(), &count));
            }
        });
        let way = Way {
            who: Who::Redis,
            address,
            pid: std::process::id(),
            connections: 3,
            depth: 1,
            cpu: None,
        };
        (way, asked)
    }

    /// The first command's word, and what follows the command.
    fn first(text: &str) -> Option<(&str, &str)> {
        let (count, mut rest) = text.strip_prefix('*')?.split_once("\r\n")?;
        let mut word = "";
        for i in 0..count.parse::<usize>().unwrap() {
            let (len, after) = rest.strip_prefix('$')?.split_once("\r\n")?;
            let len: usize = len.parse().unwrap();
            let part = after.get(..len)?;
            rest = after.get(len + 2..)?;
            if i == 0 {
                word = part;
            }
        }
        Some((word, rest))
    }

    fn each(op: Op, sessions: Range<u32>) -> Job {
        Job::Each { op, sessions }
    }

    #[test]
    fn each_session_is_created_once() {
        let (way, asked) = redis(|_, word| if word == "SET" { "+OK\r\n" } else { "" });
        let took = work(&way, &Sessions::new(10), each(Op::Create, 5..105)).unwrap();
        assert_eq!((took.done, asked.load(Ordering::SeqCst)), (100, 100));
        assert_eq!(took.hist.len(), 100);
        assert!(took.sent_ns.iter().all(|at| *at > 0));
    }

    #[test]
    fn beats_go_on_for_their_time_and_only_that_is_measured() {
        let (mut way, asked) = redis(|_, _| ":1\r\n");
        way.depth = 4;
        let job = Job::Beats {
            sessions: 10,
            warmup_ns: 20 * MILLI,
            duration_ns: 50 * MILLI,
        };
        let took = work(&way, &Sessions::new(10), job).unwrap();
        assert!(took.ns >= 50 * MILLI && took.done > 0);
        assert!(u64::from(asked.load(Ordering::SeqCst)) >= took.done);
        assert_eq!(took.hist.len(), took.done);
    }

    #[test]
    fn nothing_is_measured_before_every_connection_had_an_answer() {
        // Answers come late enough for the warm-up's time to be over long before the first.
        let (way, asked) = redis(|n, _| {
            if n < 3 {
                clock::pause(std::time::Duration::from_millis(30));
            }
            ":1\r\n"
        });
        let job = Job::Beats {
            sessions: 10,
            warmup_ns: 0,
            duration_ns: 20 * MILLI,
        };
        let took = work(&way, &Sessions::new(10), job).unwrap();
        // At the end each of the three has one under way, which does not count either.
        let asked = u64::from(asked.load(Ordering::SeqCst));
        assert!(
            asked >= took.done + 6,
            "{asked} asked, {} measured",
            took.done
        );
    }

    #[test]
    fn a_refusal_and_a_lost_connection_end_the_work_with_the_reason() {
        let why = |say| {
            let (way, _) = redis(say);
            let failed = work(&way, &Sessions::new(10), each(Op::Beat, 0..50));
            failed.err().unwrap().to_string()
        };
        let said = why(|n, _| if n == 20 { ":0\r\n" } else { ":1\r\n" });
        assert!(said.starts_with("redis: no to step 0 of Beat"), "{said}");
        let said = why(|n, _| if n == 20 { "" } else { ":1\r\n" });
        assert!(said.contains("closed by the server"), "{said}");
        let said = why(|_, _| "HTTP/1.1 400\r\n");
        assert!(said.contains("not RESP"), "{said}");
    }

    #[test]
    fn a_watch_ends_when_all_are_gone_and_tells_how_late() {
        let (mut way, _) =
            redis(|n, _| [":3\r\n", ":3\r\n", ":1\r\n", ":0\r\n"][n.min(3) as usize]);
        way.connections = 1;
        let mut mass = Mass::default();
        let now_ns = clock::now();
        mass.renewed(3, now_ns);
        mass.seal();
        let job = Job::Watch {
            mass: Box::new(mass),
            until_ns: now_ns + 60 * SECOND,
        };
        let took = work(&way, &Sessions::new(10), job).unwrap();
        assert_eq!((took.done, took.early_and_left), (3, (0, 0)));
        assert!(took.hist.min() > 0);
    }

    #[test]
    fn who_is_still_there_at_the_end_of_patience_is_counted() {
        let (mut way, _) = redis(|n, _| if n == 0 { ":3\r\n" } else { ":2\r\n" });
        way.connections = 1;
        let mut mass = Mass::default();
        let now_ns = clock::now();
        mass.renewed(3, now_ns);
        mass.seal();
        let job = Job::Watch {
            mass: Box::new(mass),
            until_ns: now_ns + 100 * MILLI,
        };
        let took = work(&way, &Sessions::new(10), job).unwrap();
        assert_eq!((took.done, took.early_and_left), (1, (0, 2)));
    }
}
