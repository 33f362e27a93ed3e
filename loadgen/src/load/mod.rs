//! The driver of one thread: joins its sessions, beats for them, lets some die, leave and
//! rejoin, and holds every answer against the contract.
//!
//! The phases follow each other: open the connections, join, warm up, measure, and, if a mass
//! is to expire, doom it and watch; then wait for what is under way.

mod answers;
mod joins;
mod mass;
mod outcome;

use joins::Joins;
use mass::Doom;
pub(crate) use outcome::{Counts, Outcome, Phase, Progress};

use crate::batch::{self, Batches};
use crate::churn::{self, Action, Event};
use crate::clock::{MILLI, SECOND};
use crate::net::{self, Driver, Kind, Lane, NOT_HTTP, Net, Next, Pending};
use crate::plan::{Known, Load, Mode, Plan};
use crate::process;
use crate::recorder::{Recorder, Tag};
use crate::reply::{Last, Reply};
use crate::schedule::{Dealing, OpenLoop};
use crate::stalls::Stalls;
use crate::standing::{Standing, State};
use crate::verify::{Fault, Sent, Session, Verifier};
use crate::watch::{Deaths, Mass};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The driver; see the module's doc.
pub(crate) struct Loader {
    plan: Plan,
    phase: Phase,
    phase_ns: u64,
    dealing: Dealing,
    sessions: Vec<Session>,
    standing: Standing,
    verifier: Verifier,
    recorder: Recorder,
    stalls: Stalls,
    counts: Counts,
    progress: Arc<Progress>,
    joined: u32,
    joins: Joins,
    open_loop: Option<OpenLoop>,
    /// Closed loop: the next block of each connection.
    cursors: Vec<u64>,
    batches: Batches,
    last: Last,
    events: std::vec::IntoIter<Event>,
    next_event: Option<Event>,
    deaths: Deaths,
    mass: Mass,
    doom: Doom,
    next_list_ns: u64,
    listing: bool,
    next_look_ns: u64,
    /// The measured time: beats due in it are measured, whenever they are answered.
    measured: Range<u64>,
    /// When the last answer was seen to be missing fewer than before, and how many were.
    drained: (u64, u64),
    cpu_before: (u64, u64),
    ticks_before: (u64, u64),
    broken_off: Option<String>,
}

impl Loader {
    /// Prepares a thread's run; `origin_ns` is the common start of all threads' intervals.
    pub(crate) fn new(plan: Plan, origin_ns: u64, progress: Arc<Progress>) -> Loader {
        let mut verifier = Verifier::new(plan.names.clone(), plan.timeout_ns);
        let n = plan.sessions as usize;
        let first = if plan.bare {
            State::Live
        } else {
            State::Absent
        };
        let (sessions, standing) = match &plan.known {
            Some(known) => {
                verifier.adopt(&known.floors);
                (known.sessions.clone(), known.standing.clone())
            }
            None => (
                vec![Session::default(); n],
                Standing::new(plan.sessions, first),
            ),
        };
        let dealing = Dealing::new(plan.sessions, plan.connections, plan.block());
        let joins = match plan.bare || plan.known.is_some() {
            true => Joins::of_none(dealing, plan.joins_outstanding),
            false => Joins::of_all(dealing, plan.joins_outstanding),
        };
        Loader {
            phase: Phase::Opening,
            phase_ns: origin_ns,
            dealing,
            sessions,
            standing,
            verifier,
            recorder: Recorder::new(origin_ns),
            stalls: Stalls::new(plan.stall_ns),
            counts: Counts::default(),
            progress,
            joined: 0,
            joins,
            open_loop: None,
            cursors: (0..plan.connections).map(|_| 0).collect(),
            batches: Batches::default(),
            last: Last::default(),
            events: Vec::new().into_iter(),
            next_event: None,
            deaths: Deaths::new(plan.timeout_ns, plan.late_bound_ns),
            mass: Mass::default(),
            doom: Doom::Choosing,
            next_list_ns: 0,
            listing: false,
            next_look_ns: 0,
            measured: u64::MAX..u64::MAX,
            drained: (0, u64::MAX),
            cpu_before: (0, 0),
            ticks_before: (0, 0),
            broken_off: None,
            plan,
        }
    }

    /// Connections a plan needs: those for the load, and two for the watch.
    pub(crate) fn connections(plan: &Plan) -> u32 {
        plan.connections + if plan.watches() { 2 } else { 0 }
    }

    /// Ends the run.
    pub(crate) fn finish(mut self, net: &Net) -> Outcome {
        self.counts.bytes = net.bytes;
        self.counts.checked = self.verifier.checked;
        self.counts.late_by_us = self.verifier.late_by_us;
        Outcome {
            counts: self.counts,
            faults: self.verifier.faults().clone(),
            intervals: self.recorder.finish(),
            stalls: self.stalls.finish(),
            known: Known {
                floors: self.verifier.floors().to_vec(),
                sessions: self.sessions,
                standing: self.standing,
            },
            broken_off: self.broken_off,
        }
    }

    fn enter(&mut self, phase: Phase, now_ns: u64) {
        self.phase = phase;
        self.phase_ns = now_ns;
        self.show();
    }

    fn break_off(&mut self, why: String, now_ns: u64) {
        self.broken_off = Some(why);
        self.enter(Phase::Draining, now_ns);
    }

    fn show(&self) {
        let set = |to: &AtomicU64, value| to.store(value, Ordering::Relaxed);
        set(&self.progress.phase, self.phase as u64);
        set(&self.progress.joined, u64::from(self.joined));
        set(&self.progress.beats, self.counts.beats);
        set(&self.progress.faults, self.verifier.faults().total());
        set(&self.progress.gone, self.counts.expired);
    }

    /// Moves on to the next phase when this one is done.
    fn advance(&mut self, net: &mut Net, now_ns: u64) -> bool {
        let spent = now_ns - self.phase_ns;
        match self.phase {
            Phase::Opening if net.all_up() => self.begin_joining(now_ns),
            Phase::Opening if spent > OPENING_NS_MAX => {
                let (up, why) = (net.up(), net.last_refusal);
                let why = why.map_or(String::new(), |e| format!(": {e}"));
                self.break_off(
                    format!("only {up} connections could be opened{why}"),
                    now_ns,
                );
            }
            Phase::Joining if self.plan.bare || self.plan.known.is_some() => {
                self.begin_beating(net, now_ns);
            }
            Phase::Joining if self.joined == self.plan.sessions => {
                self.begin_beating(net, now_ns);
            }
            Phase::Joining if self.joins.are_done() => {
                let missing = self.plan.sessions - self.joined;
                self.break_off(format!("{missing} sessions could not join"), now_ns);
            }
            Phase::Joining if spent > self.plan.join_limit_ns => {
                let joined = self.joined;
                self.break_off(
                    format!("only {joined} sessions joined in the time allowed"),
                    now_ns,
                );
            }
            Phase::Warming if spent >= self.plan.warmup_ns => self.begin_measuring(now_ns),
            Phase::Measuring if spent >= self.plan.duration_ns => self.end_measuring(now_ns),
            Phase::Dooming => self.doom(net, now_ns, spent),
            Phase::Expiring => self.watch_mass(net, now_ns),
            Phase::Draining => return self.drained(net, now_ns),
            _ => {}
        }
        false
    }

    fn begin_joining(&mut self, now_ns: u64) {
        self.enter(Phase::Joining, now_ns);
        self.cpu_before = self.cpu();
        // Sessions beat from the moment they have joined: a million take longer to join
        // than the first of them may stay silent.
        if let Load::Open { interval_ns, .. } = self.plan.load {
            self.open_loop = Some(OpenLoop::new(&self.dealing, interval_ns, now_ns));
        }
    }

    fn begin_beating(&mut self, net: &mut Net, now_ns: u64) {
        self.counts.joining_ns = now_ns - self.phase_ns;
        self.counts.joining_cpu_ns = self.cpu().0.saturating_sub(self.cpu_before.0);
        if let Load::Closed { pipeline } = self.plan.load {
            for conn in 0..self.plan.connections {
                for _ in 0..pipeline {
                    self.beat_next(net.lane(conn), conn, now_ns);
                }
            }
        }
        self.enter(Phase::Warming, now_ns);
    }

    fn begin_measuring(&mut self, now_ns: u64) {
        let p = &self.plan;
        let events = churn::events(p.sessions, p.shares, now_ns, p.churn_window_ns(), p.seed);
        self.events = events.into_iter();
        self.next_event = self.events.next();
        self.cpu_before = self.cpu();
        self.ticks_before = self.ticks();
        self.measured.start = now_ns;
        self.enter(Phase::Measuring, now_ns);
    }

    fn end_measuring(&mut self, now_ns: u64) {
        let cpu = self.cpu();
        let spent = |after: u64, before: u64| after.saturating_sub(before);
        self.counts.cpu_ns = (
            spent(cpu.0, self.cpu_before.0),
            spent(cpu.1, self.cpu_before.1),
        );
        let (ticks, before) = (self.ticks(), self.ticks_before);
        self.counts.server_ticks = (spent(ticks.0, before.0), spent(ticks.1, before.1));
        self.measured.end = now_ns;
        self.counts.measured_ns = now_ns - self.phase_ns;
        let next = if self.plan.doom > 0.0 {
            Phase::Dooming
        } else {
            Phase::Draining
        };
        self.enter(next, now_ns);
    }

    /// CPU time of the server and of this thread.
    fn cpu(&self) -> (u64, u64) {
        let server = self.plan.server_pid.and_then(process::cpu_ns).unwrap_or(0);
        (server, process::own_thread_cpu_ns().unwrap_or(0))
    }

    fn ticks(&self) -> (u64, u64) {
        let ticks = self.plan.server_pid.and_then(process::cpu_ticks);
        ticks.unwrap_or_default()
    }

    /// True when nothing is under way any more, or no more answers come.
    fn drained(&mut self, net: &Net, now_ns: u64) -> bool {
        let left = net.unanswered();
        if left < self.drained.1 {
            self.drained = (now_ns, left);
        }
        let patient =
            now_ns - self.drained.0 < SILENCE_NS_MAX && now_ns - self.phase_ns < DRAINING_NS_MAX;
        if left > 0 && patient {
            return false;
        }
        if left > 0 {
            // They count as what they have waited so far: leaving them out would flatter.
            for pending in net.waiting() {
                self.record_beat(pending, 1, now_ns);
            }
            let s = (now_ns - self.phase_ns) / SECOND;
            let said = format!("{left} requests had no answer {s} s after the end");
            self.verifier.general(Fault::Unanswered, &said);
        }
        if self.deaths.open() > 0 && self.broken_off.is_none() {
            let said = format!("{} dead members were not seen to go", self.deaths.open());
            self.verifier.general(Fault::ListedTooLong, &said);
        }
        self.show();
        true
    }

    fn sent(&self, session: u32, at_ns: u64) -> Sent {
        let floor = self.verifier.floor(session);
        Sent {
            session,
            at_ns,
            floor,
        }
    }

    fn queue(&self, lane: &mut Lane, kind: Kind, session: u32, due_ns: u64, now_ns: u64) {
        let sent = self.sent(session, now_ns);
        lane.waiting.push_back(Pending { kind, sent, due_ns });
    }

    fn issue_joins(&mut self, net: &mut Net, now_ns: u64) {
        while let Some(session) = self.joins.begin() {
            self.standing.set(session, State::Joining);
            let lane = net.lane(self.dealing.connection(session));
            let timeout_ms = self.plan.timeout_ns / MILLI;
            self.plan.names.join(&mut lane.out, session, timeout_ms);
            self.queue(lane, Kind::Join, session, now_ns, now_ns);
        }
    }

    fn issue_due_beats(&mut self, net: &mut Net, now_ns: u64) {
        let Some(mut open_loop) = self.open_loop else {
            return;
        };
        while let Some((block, due_ns)) = open_loop.take(now_ns) {
            // How late we are ourselves: part of the beat's latency, and not the server's doing.
            self.recorder.record(Tag::SendLag, now_ns - due_ns);
            let lane = net.lane(self.dealing.connection_of_block(block));
            self.beat_block(lane, block, due_ns, now_ns);
        }
        self.open_loop = Some(open_loop);
    }

    /// Beats for the living of a block. False if there are none, or no room to queue them.
    fn beat_block(&mut self, lane: &mut Lane, block: u64, due_ns: u64, now_ns: u64) -> bool {
        if !lane.has_room() {
            self.verifier.general(
                Fault::Unanswered,
                "the server does not read: beats not sent",
            );
            return false;
        }
        let dealing = self.dealing;
        let slots = dealing.slots(block);
        if let Mode::Batch { .. } = self.plan.mode {
            let (number, mut list) = self.batches.take();
            list.extend(
                slots
                    .map(|slot| dealing.session(slot))
                    .filter(|s| self.standing.is_live(*s)),
            );
            return self.send_batch(lane, Kind::Batch, number, list, due_ns, now_ns);
        }
        let mut any = false;
        for session in slots.map(|slot| dealing.session(slot)) {
            if !self.standing.is_live(session) {
                continue;
            }
            any = true;
            let id = self
                .plan
                .with_id
                .then_some(self.sessions[session as usize].id);
            let kind = if self.plan.mode == Mode::Get {
                self.plan.names.get(&mut lane.out, session, id);
                Kind::Get
            } else {
                self.plan.names.head(&mut lane.out, session, id);
                Kind::Head
            };
            self.queue(lane, kind, session, due_ns, now_ns);
        }
        any
    }

    fn send_batch(
        &mut self,
        lane: &mut Lane,
        kind: Kind,
        number: u32,
        list: Vec<u32>,
        due_ns: u64,
        now_ns: u64,
    ) -> bool {
        if list.is_empty() {
            self.batches.recycle(number, list);
            return false;
        }
        let by_id = matches!(self.plan.mode, Mode::Batch { packed: true, .. });
        let packed = by_id || kind == Kind::Doom;
        batch::write(
            &mut lane.out,
            &self.plan.names,
            &self.sessions,
            &list,
            packed,
        );
        let sent = Sent {
            session: number,
            at_ns: now_ns,
            floor: 0,
        };
        lane.waiting.push_back(Pending { kind, sent, due_ns });
        self.batches.keep(number, list);
        true
    }

    /// Closed loop: the next beat of a connection, if one of its sessions lives.
    fn beat_next(&mut self, lane: &mut Lane, conn: u32, now_ns: u64) {
        let blocks = self.dealing.blocks_of(conn);
        for _ in 0..blocks.min(TRIES_MAX) {
            let at = self.cursors[conn as usize];
            self.cursors[conn as usize] = if at + 1 < blocks { at + 1 } else { 0 };
            let block = u64::from(conn) + at * u64::from(self.plan.connections);
            if self.beat_block(lane, block, now_ns, now_ns) {
                return;
            }
        }
    }

    fn issue_churn(&mut self, net: &mut Net, now_ns: u64) {
        while let Some(event) = self.next_event.filter(|e| e.at_ns <= now_ns) {
            self.next_event = self.events.next();
            if !self.standing.is_live(event.session) {
                continue;
            }
            if event.action == Action::Die {
                self.standing.set(event.session, State::Dying);
                self.counts.died += 1;
                let acked_ns = self.sessions[event.session as usize].acked_ns;
                self.deaths.died(event.session, acked_ns);
                continue;
            }
            self.standing.set(event.session, State::Leaving);
            let kind = match event.action {
                Action::Rejoin => Kind::Depart,
                Action::Leave | Action::Die => Kind::Leave,
            };
            let lane = net.lane(self.dealing.connection(event.session));
            self.plan.names.leave(&mut lane.out, event.session);
            self.queue(lane, kind, event.session, now_ns, now_ns);
        }
    }

    fn issue_probes(&mut self, net: &mut Net, now_ns: u64) {
        while let Some(session) = self
            .deaths
            .ask(now_ns, |s| self.sessions[s as usize].acked_ns)
        {
            let lane = net.lane(self.plan.connections);
            self.plan.names.probe(&mut lane.out, session);
            self.queue(lane, Kind::Probe, session, now_ns, now_ns);
        }
    }

    fn wake_ns(&self, now_ns: u64) -> u64 {
        let open = self.open_loop.map_or(u64::MAX, |o| o.next_due());
        let event = self.next_event.map_or(u64::MAX, |e| e.at_ns);
        let death = self.deaths.next_ns().unwrap_or(u64::MAX);
        let end = match self.phase {
            Phase::Warming => self.phase_ns + self.plan.warmup_ns,
            Phase::Measuring => self.phase_ns + self.plan.duration_ns,
            _ => now_ns + MILLI,
        };
        open.min(event).min(death).min(end)
    }
}

impl Driver for Loader {
    fn arrived(&mut self, lane: &Lane) {
        if self.plan.bare {
            return;
        }
        // None of these loads waits for another, and none is done for its value.
        let sessions = lane
            .waiting
            .iter()
            .take(FETCHED_MAX)
            .map(|p| p.sent.session as usize);
        let acked = sessions.filter_map(|at| Some(self.sessions.get(at)?.acked_ns));
        black_box(acked.fold(0, |all, ns| all | ns));
    }

    fn frame(&mut self, lane: &mut Lane, input: &[u8]) -> Result<Option<Reply>, String> {
        if let Some(reply) = self.last.again(input) {
            return Ok(Some(reply));
        }
        let reply = net::read_http(lane, input)?;
        if let Some(reply) = &reply {
            self.last.keep(input, reply);
        }
        Ok(reply)
    }

    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next {
        self.recorder.roll(now_ns);
        if self.advance(net, now_ns) {
            return Next::Stop;
        }
        if now_ns >= self.next_look_ns {
            self.next_look_ns = now_ns + 50 * MILLI;
            self.show();
        }
        if matches!(self.phase, Phase::Opening) {
            return Next::Wake(now_ns + MILLI);
        }
        if self.phase != Phase::Draining {
            self.issue_joins(net, now_ns);
            self.issue_due_beats(net, now_ns);
            self.issue_churn(net, now_ns);
            self.issue_probes(net, now_ns);
        }
        Next::Wake(self.wake_ns(now_ns))
    }

    fn answered(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        body: &[u8],
        now_ns: u64,
    ) {
        match pending.kind {
            Kind::Head | Kind::Get => self.on_beat(lane, pending, reply, now_ns),
            Kind::Batch | Kind::Doom => self.on_batch(lane, pending, reply, body, now_ns),
            Kind::Join => self.on_join(pending, reply, now_ns),
            Kind::Leave | Kind::Depart => self.on_leave(lane, pending, reply, now_ns),
            Kind::Ghost => self.verifier.ghost(pending.sent, reply),
            Kind::Probe => self.on_probe(lane, pending, reply, body, now_ns),
            Kind::List => self.on_list(pending, reply, body, now_ns),
        }
    }

    fn closed(&mut self, _: u32, why: &str, lost: &mut dyn Iterator<Item = Pending>) {
        self.counts.disconnects += 1;
        let fault = if why.starts_with(NOT_HTTP) {
            Fault::NotHttp
        } else {
            Fault::Disconnected
        };
        let mut count = 0;
        for pending in lost {
            count += 1;
            self.forget(pending);
        }
        self.verifier
            .general(fault, &format!("{why}, {count} requests unanswered"));
    }
}

/// Connections must be open by then.
const OPENING_NS_MAX: u64 = 60 * SECOND;
/// Answers are awaited so long after the end …
const DRAINING_NS_MAX: u64 = 30 * SECOND;
/// … and so long after the last one that came.
const SILENCE_NS_MAX: u64 = 5 * SECOND;
/// Blocks tried in a closed loop until one with a living session is found.
const TRIES_MAX: u64 = 64;
/// Sessions fetched at once: more than are answered in one read of a pipelined connection.
const FETCHED_MAX: usize = 64;
