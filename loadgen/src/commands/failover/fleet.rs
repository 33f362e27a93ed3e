//! The clients: each connection is a host that beats for its sessions, and goes to another
//! server when the one it uses is lost.

use super::watch::Shared;
use crate::batch::{self, Batches};
use crate::clock::MILLI;
use crate::names::Names;
use crate::net::{Driver, Kind, Lane, Net, Next, Pending};
use crate::recorder::{self, Hist};
use crate::reply::Reply;
use crate::verify::{Fault, Sent, Session, Verifier};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Drives all connections of one thread.
///
/// Session s belongs to host s modulo the number of hosts, for ever. A host beats once an
/// interval for each of its sessions, whatever the answers. What is lost with a connection or
/// answered 503 is sent again.
pub(super) struct Fleet {
    names: Names,
    sessions: Vec<Session>,
    flags: Vec<u8>,
    hosts: Vec<Host>,
    servers: u32,
    interval_ns: u64,
    timeout_ms: u64,
    patience_ns: u64,
    batches: Batches,
    shared: Arc<Shared>,
    /// What happened before the first fault is in the first of these.
    pub(super) rounds: Vec<Round>,
    /// Holds each answer against the contract.
    pub(super) verifier: Verifier,
    joined: u32,
    joins_next: u32,
    joins_out: u32,
    began_ns: u64,
}

/// A client.
#[derive(Clone, Debug, Default)]
struct Host {
    /// How many of its sessions have come up so far, laps included.
    due: u64,
    /// Sessions to be sent again, none before its time.
    again: VecDeque<(u64, u32)>,
    /// The server it prefers.
    home: u32,
    /// Since when it has had nothing but refusals, or no connection; 0: not so.
    failing_ns: u64,
    /// When an answer last came.
    heard_ns: u64,
    /// It beats in batches, by name.
    batches: bool,
}

/// What the clients saw from one fault to the next.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// Beats answered 2xx.
    pub(super) beats: u64,
    /// Beats refused or not answered at servers that were not touched, for their own sessions.
    pub(super) failed: u64,
    /// Beats of the lost server's sessions that another server answered 503.
    pub(super) refused: u64,
    /// Sessions of the lost server.
    pub(super) lost: u64,
    /// From the fault until each of them was acknowledged elsewhere.
    pub(super) back: Hist,
    /// The longest time without an acknowledgement of each of them.
    pub(super) silence: Hist,
    /// Sessions that ended after nobody had acknowledged them for a timeout.
    pub(super) starved: u64,
    victim: u32,
}

impl Round {
    fn new(victim: u32) -> Round {
        Round {
            beats: 0,
            failed: 0,
            refused: 0,
            lost: 0,
            back: recorder::empty(),
            silence: recorder::empty(),
            starved: 0,
            victim,
        }
    }
}

/// How the clients behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// Sessions in all.
    pub(super) sessions: u32,
    /// Connections in all.
    pub(super) hosts: u32,
    /// Servers.
    pub(super) servers: u32,
    /// The sessions' timeout; each beats three times in it.
    pub(super) timeout_ns: u64,
    /// How long an answer is awaited before the host goes to another server.
    pub(super) patience_ns: u64,
}

impl Fleet {
    pub(super) fn new(manners: Manners, names: Names, shared: Arc<Shared>) -> Fleet {
        let host = |number| Host {
            home: number % manners.servers,
            batches: number / manners.servers % 4 == 3,
            ..Host::default()
        };
        Fleet {
            verifier: Verifier::new(names.clone(), manners.timeout_ns),
            names,
            sessions: vec![Session::default(); manners.sessions as usize],
            flags: vec![0; manners.sessions as usize],
            hosts: (0..manners.hosts).map(host).collect(),
            servers: manners.servers,
            interval_ns: manners.timeout_ns / 3,
            timeout_ms: manners.timeout_ns / MILLI,
            patience_ns: manners.patience_ns,
            batches: Batches::default(),
            shared,
            rounds: vec![Round::new(NOBODY)],
            joined: 0,
            joins_next: 0,
            joins_out: 0,
            began_ns: 0,
        }
    }

    fn hosts_len(&self) -> u32 {
        self.hosts.len() as u32
    }

    fn host_of(&self, session: u32) -> usize {
        session as usize % self.hosts.len()
    }

    /// Sessions of a host.
    fn share(&self, host: u32) -> u64 {
        let (all, hosts) = (self.sessions.len() as u32, self.hosts_len());
        u64::from((all + hosts - 1 - host) / hosts)
    }

    fn join_more(&mut self, net: &mut Net, now_ns: u64) {
        while self.joins_out < JOINS_OUT_MAX && self.joins_next < self.sessions.len() as u32 {
            let session = self.joins_next;
            let lane = net.lane(self.host_of(session) as u32);
            self.names.join(&mut lane.out, session, self.timeout_ms);
            lane.waiting
                .push_back(pending(Kind::Join, session, now_ns, now_ns));
            self.joins_next += 1;
            self.joins_out += 1;
        }
    }

    /// A new round has begun: whose sessions will be lost is known before the fault.
    fn open_round(&mut self, net: &Net) {
        let (round, victim) = self.shared.round();
        if round < self.rounds.len() {
            return;
        }
        let mut next = Round::new(victim);
        for session in 0..self.sessions.len() {
            let at = net.lane_of(self.host_of(session as u32) as u32).endpoint;
            let lost = at == victim && self.flags[session] & ENDED == 0;
            self.flags[session] &= !LOST;
            if lost {
                self.flags[session] |= LOST;
                next.lost += 1;
            }
        }
        self.rounds.push(next);
    }

    fn round(&mut self) -> &mut Round {
        self.rounds.last_mut().expect("there is always a round")
    }

    /// Queues what is due on one connection.
    fn beat(&mut self, net: &mut Net, number: u32, now_ns: u64) {
        let share = self.share(number);
        let since = now_ns - self.began_ns;
        // A host never owes more than one lap, whatever it has waited for.
        let until = (u128::from(since) * u128::from(share) / u128::from(self.interval_ns)) as u64;
        let up = net.is_up(number);
        let host = &mut self.hosts[number as usize];
        let quantum = if host.batches { share.div_ceil(8) } else { 1 };
        let from = host.due.max(until.saturating_sub(share));
        let mut list = Vec::new();
        if until - from >= quantum {
            let hosts = self.flags.len().min(self.hosts.len()) as u32;
            let laps = from..until;
            list.extend(laps.map(|due| (due % share) as u32 * hosts + number));
            self.hosts[number as usize].due = until;
        }
        let host = &mut self.hosts[number as usize];
        if !up {
            host.again.extend(list.drain(..).map(|s| (now_ns, s)));
        }
        while up && host.again.front().is_some_and(|(at, _)| *at <= now_ns) {
            list.extend(host.again.pop_front().map(|(_, session)| session));
        }
        list.retain(|session| self.flags[*session as usize] & (ENDED | ASKED) == 0);
        list.sort_unstable();
        list.dedup();
        self.send(net.lane(number), list, now_ns);
    }

    fn send(&mut self, lane: &mut Lane, list: Vec<u32>, now_ns: u64) {
        for session in &list {
            self.flags[*session as usize] |= ASKED;
        }
        if !self.hosts[lane.number as usize].batches {
            for session in list {
                self.names.head(&mut lane.out, session, None);
                lane.waiting
                    .push_back(pending(Kind::Head, session, now_ns, now_ns));
            }
            return;
        }
        for part in list.chunks(BATCH_MAX) {
            let (number, mut held) = self.batches.take();
            held.extend_from_slice(part);
            batch::write(&mut lane.out, &self.names, &self.sessions, &held, false);
            self.batches.keep(number, held);
            lane.waiting
                .push_back(pending(Kind::Batch, number, now_ns, now_ns));
        }
    }

    /// Looks after one connection: is it open, does it answer, is it where it belongs?
    fn tend(&mut self, net: &mut Net, number: u32, now_ns: u64) {
        let lane = net.lane_of(number);
        let (at, waits) = (lane.endpoint, lane.waiting.front().map(|p| p.sent.at_ns));
        let up = net.is_up(number);
        let host = &mut self.hosts[number as usize];
        if !up && host.failing_ns == 0 {
            host.failing_ns = now_ns;
        }
        let limit_ns = if up { REFUSED_NS_MAX } else { DOWN_NS_MAX };
        let failing = host.failing_ns > 0 && now_ns - host.failing_ns > limit_ns;
        let since = |t: u64| now_ns.saturating_sub(t.max(host.heard_ns));
        let silent = up && waits.is_some_and(|sent| since(sent) > self.patience_ns);
        if failing || silent {
            host.failing_ns = now_ns;
            host.heard_ns = now_ns;
            let next = (at + 1 + number / self.servers % (self.servers - 1)) % self.servers;
            return net.retarget(number, next, self);
        }
        let home = self.shared.go_home.load(Ordering::Relaxed);
        if home && at != host.home && up && waits.is_none() {
            let home = host.home;
            net.retarget(number, home, self);
        }
    }

    fn acknowledged(&mut self, session: u32, at: u32, now_ns: u64, before_ns: u64) {
        let fault_ns = self.shared.fault_ns.load(Ordering::Relaxed);
        let flags = &mut self.flags[session as usize];
        *flags &= !ASKED;
        let was_lost = *flags & LOST != 0 && fault_ns > 0;
        let round = self.rounds.last_mut().expect("there is always a round");
        round.beats += 1;
        if was_lost && (at != round.victim || before_ns > fault_ns) {
            *flags &= !LOST;
            round.back.saturating_record(now_ns - fault_ns);
            round.silence.saturating_record(now_ns - before_ns);
        }
    }

    /// A beat was refused for the time being.
    fn refused(&mut self, session: u32, number: u32, now_ns: u64) {
        let lost = self.flags[session as usize] & LOST != 0;
        self.flags[session as usize] &= !ASKED;
        let round = self.round();
        if lost {
            round.refused += 1;
        } else {
            round.failed += 1;
        }
        let host = &mut self.hosts[number as usize];
        host.again.push_back((now_ns + AGAIN_NS, session));
        if host.failing_ns == 0 {
            host.failing_ns = now_ns;
        }
    }

    /// The server does not know the session any more.
    fn ended(&mut self, session: u32, sent: Sent, status: u16, now_ns: u64) {
        self.flags[session as usize] |= ENDED;
        let before = self.verifier.late_by_us;
        let known = self.sessions[session as usize];
        let sent = Sent { session, ..sent };
        self.verifier.refused(&known, sent, status, now_ns);
        self.round().starved += self.verifier.late_by_us - before;
        self.shared.living.fetch_sub(1, Ordering::Relaxed);
    }

    fn on_head(&mut self, lane: &Lane, p: Pending, reply: &Reply, now_ns: u64) {
        let session = p.sent.session;
        match reply.status {
            503 => self.refused(session, lane.number, now_ns),
            404 | 409 | 410 => self.ended(session, p.sent, reply.status, now_ns),
            _ => {
                let mut known = self.sessions[session as usize];
                let before_ns = known.acked_ns;
                let lives = self.verifier.beaten(&mut known, p.sent, reply, now_ns);
                self.sessions[session as usize] = known;
                if lives {
                    self.acknowledged(session, lane.endpoint, now_ns, before_ns);
                    self.hosts[lane.number as usize].failing_ns = 0;
                }
            }
        }
    }

    fn on_batch(&mut self, lane: &Lane, p: Pending, reply: &Reply, body: &[u8], now_ns: u64) {
        let list = self.batches.answered(p.sent.session);
        let failures = match reply.status {
            200 => batch::failures(body),
            503 => Some((0..list.len()).map(|line| (line, 503)).collect()),
            _ => None,
        };
        let Some(failures) = failures else {
            let said = format!("{} to a batch", reply.status);
            self.verifier.general(Fault::UnexpectedStatus, &said);
            self.batches.recycle(p.sent.session, list);
            return;
        };
        let mut failed = failures.iter().peekable();
        for (line, session) in list.iter().enumerate() {
            match failed.next_if(|(at, _)| *at == line) {
                Some((_, status @ (404 | 409 | 410))) => {
                    self.ended(*session, p.sent, *status, now_ns);
                }
                Some(_) => self.refused(*session, lane.number, now_ns),
                None => {
                    let known = &mut self.sessions[*session as usize];
                    let before_ns = known.acked_ns;
                    known.acked_ns = before_ns.max(p.sent.at_ns);
                    self.acknowledged(*session, lane.endpoint, now_ns, before_ns);
                }
            }
        }
        if failures.len() < list.len() {
            self.hosts[lane.number as usize].failing_ns = 0;
        }
        self.batches.recycle(p.sent.session, list);
    }

    fn on_join(&mut self, p: Pending, reply: &Reply) {
        self.joins_out -= 1;
        let known = &mut self.sessions[p.sent.session as usize];
        if self.verifier.joined(known, p.sent, reply) {
            self.joined += 1;
            self.shared.living.fetch_add(1, Ordering::Relaxed);
        } else {
            self.flags[p.sent.session as usize] |= ENDED;
        }
    }
}

impl Driver for Fleet {
    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Next::Stop;
        }
        if self.began_ns == 0 {
            if net.all_up() {
                self.join_more(net, now_ns);
            }
            if self.joins_next < self.sessions.len() as u32 || self.joins_out > 0 {
                return Next::Wake(now_ns + TURN_NS);
            }
            // Each host's sessions come up in the order in which they joined.
            self.began_ns = now_ns;
            self.shared.beating.store(true, Ordering::Relaxed);
        }
        self.open_round(net);
        for number in 0..self.hosts_len() {
            self.tend(net, number, now_ns);
            self.beat(net, number, now_ns);
        }
        Next::Wake(now_ns + TURN_NS)
    }

    fn answered(&mut self, lane: &mut Lane, p: Pending, reply: &Reply, body: &[u8], now_ns: u64) {
        self.hosts[lane.number as usize].heard_ns = now_ns;
        match p.kind {
            Kind::Join => self.on_join(p, reply),
            Kind::Batch => self.on_batch(lane, p, reply, body, now_ns),
            _ => self.on_head(lane, p, reply, now_ns),
        }
    }

    fn closed(&mut self, conn: u32, _: &str, lost: &mut dyn Iterator<Item = Pending>) {
        for p in lost {
            let list = match p.kind {
                Kind::Join => {
                    self.joins_out -= 1;
                    self.verifier
                        .general(Fault::Disconnected, "while sessions joined");
                    continue;
                }
                Kind::Batch => self.batches.answered(p.sent.session),
                _ => vec![p.sent.session],
            };
            for session in &list {
                let flags = &mut self.flags[*session as usize];
                *flags &= !ASKED;
                if *flags & LOST == 0 {
                    self.round().failed += 1;
                }
                self.hosts[conn as usize].again.push_front((0, *session));
            }
            if p.kind == Kind::Batch {
                self.batches.recycle(p.sent.session, list);
            }
        }
    }
}

fn pending(kind: Kind, session: u32, at_ns: u64, due_ns: u64) -> Pending {
    let sent = Sent {
        session,
        at_ns,
        floor: 0,
    };
    Pending { kind, sent, due_ns }
}

/// A session that ended.
const ENDED: u8 = 1;
/// A session whose beat awaits its answer.
const ASKED: u8 = 2;
/// A session whose server is lost, and that nobody else has acknowledged yet.
const LOST: u8 = 4;
/// No server.
pub(super) const NOBODY: u32 = u32::MAX;
/// Joins under way at once.
const JOINS_OUT_MAX: u32 = 2_048;
/// Members in a batch.
const BATCH_MAX: usize = 2_000;
/// Pause before a beat that was answered 503 is sent again.
const AGAIN_NS: u64 = 100 * MILLI;
/// A host that is refused everything for so long goes to another server …
const REFUSED_NS_MAX: u64 = 300 * MILLI;
/// … and so does one without a connection for so long.
const DOWN_NS_MAX: u64 = 30 * MILLI;
/// Beats are sent at this pace.
const TURN_NS: u64 = 5 * MILLI;
