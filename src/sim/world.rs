//! The world: servers, and everything that happens to them, one event after the other.
//!
//! A run has two phases. In the first, faults strike as the [`Profile`] has it, and nothing
//! may ever be wrong. Then all is healed, and the ensemble must recover within a bound: a
//! leader, a commit at every server, and all servers in one state.

use std::sync::Arc;

use super::clock::Clock;
use super::disk::{Plan, SimDisk};
use super::faults::{Ended, FaultKind, Faults, pairs};
use super::host::Host;
use super::judge::{Judge, Sink, Violation};
use super::links::Links;
use super::net::{Arrival, Net, Weather, id_of, index_of};
use super::observe::Observation;
use super::plants::Planted;
use super::probes::{Probe, Probes};
use super::profile::Profile;
use super::queue::Queue;
use super::random::{Random, Span};
use super::recovery::{Reached, Recovery};
use super::stage::{Event, HostEvent, Stage};
use crate::zab::{Ensemble, Phase, Settings};

/// A simulated ensemble and its surroundings.
pub struct World {
    /// What all share.
    pub stage: Stage,
    /// The servers, voters first.
    pub hosts: Vec<Host>,
    faults: Faults,
    ensemble: Ensemble,
    steps: u64,
    /// True while a script says who starts and when.
    scripted: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events that happened.
    pub steps: u64,
    /// The same for the same seed.
    pub fingerprint: u64,
    /// Why the run was ended, if it was.
    pub violation: Option<Violation>,
    /// What was reached.
    pub probes: Probes,
    /// Transactions committed.
    pub committed: u64,
    /// True time that passed, µs.
    pub time_us: u64,
    /// How long it took to recover once all was healed, µs.
    pub recovery_us: u64,
}

impl World {
    /// A world of this character, in which nothing has happened yet.
    #[must_use]
    pub fn new(seed: u64, profile: Profile, planted: Planted, trace: Option<Sink>) -> World {
        let mut random = Random::new(seed ^ WORLD_SALT);
        let count = profile.servers();
        let ids = |range: std::ops::Range<usize>| range.map(id_of).collect::<Vec<_>>();
        let ensemble = Ensemble::new(1, &ids(0..profile.voters), &ids(profile.voters..count));
        let hosts = (0..count)
            .map(|at| {
                let disk = SimDisk::new(random.any(), Plan::default());
                let drift = match profile.drift {
                    true => random.below(2_001) as i64 - 1_000,
                    false => 0,
                };
                let clock = Clock::new(0, random.below(1_000_000_000), drift);
                Host::new(at, disk, clock, count)
            })
            .collect();
        let mut net = Net::new(count, profile.latency);
        net.weather = profile.weather;
        World {
            stage: Stage {
                now: 0,
                queue: Queue::new(),
                random,
                net,
                judge: Judge::new(ensemble.voters(), ensemble.observers(), trace),
                links: Links::new(profile.rules()),
                probes: Probes::new(),
                profile,
                planted,
                entered: None,
                deceived: None,
                fallen: Vec::new(),
            },
            hosts,
            faults: Faults::default(),
            ensemble,
            steps: 0,
            scripted: false,
        }
    }

    /// Lets all servers start within a second, and clients and faults come.
    pub fn begin(&mut self) {
        for at in 0..self.hosts.len() {
            let at = at as u8;
            self.stage.after(STARTS, Event::Start { at, run: 0 });
        }
        self.stage.after(self.stage.profile.clients, Event::Clients);
        self.stage
            .after(self.stage.profile.faults_every, Event::Fault);
    }

    /// Runs both phases: `steps` events with faults, then until all is well again.
    #[must_use]
    pub fn run(mut self, steps: u64) -> Outcome {
        self.begin();
        while self.steps < steps && self.stage.judge.violation().is_none() {
            self.step();
        }
        self.finish()
    }

    /// Heals everything, demands recovery, and sums up.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let recovery_us = self.recover();
        if self.stage.judge.oracle.barriers_open() > 0 {
            self.stage.probes.hit(Probe::BarrierLost);
        }
        Outcome {
            steps: self.steps,
            fingerprint: self.stage.judge.fingerprint(),
            violation: self.stage.judge.violation().cloned(),
            probes: self.stage.probes,
            committed: self.stage.judge.oracle.committed(),
            time_us: self.stage.now,
            recovery_us,
        }
    }

    /// Heals everything and demands that the ensemble recovers; how long that took.
    ///
    /// A new commit must come, and then, with quiet clients, agreement: see [`Recovery`].
    pub fn recover(&mut self) -> u64 {
        self.heal();
        let target = self.stage.judge.oracle.committed() + 1;
        let latency_max_us = self.stage.net.latency.max;
        let (now, missing) = (self.stage.now, self.missing());
        let mut recovery = Recovery::new(now, &self.stage.profile, latency_max_us, missing);
        let mut quiet = false;
        while self.stage.judge.violation().is_none() {
            self.step();
            let now = self.stage.now;
            if now < recovery.deadline_us() && !self.steps.is_multiple_of(64) {
                continue;
            }
            for at in 0..self.hosts.len() {
                recovery.stands(now, at, self.reached(at));
            }
            if !quiet && self.stage.judge.oracle.committed() >= target {
                quiet = true;
                self.stage.profile.burst_max = 0;
                recovery.owes(now, self.missing());
            }
            if quiet && self.agrees() {
                break;
            }
            if now >= recovery.deadline_us() {
                let what = format!("{}: {}", recovery.failure(now), self.describe());
                self.stage.judge.condemn(now, what);
            }
        }
        recovery.took_us(self.stage.now)
    }

    /// How far a server has come.
    fn reached(&self, at: usize) -> Reached {
        let ghost = self.stage.judge.checker().ghost();
        let tree = ghost.tree();
        let Some(at) = ghost.index(id_of(at)) else {
            return Reached::default();
        };
        let server = &ghost.servers()[at];
        let kept = tree.meet(server.tip, ghost.committed());
        Reached {
            logged: tree.depth(server.tip),
            kept: tree.depth(kept),
            applied: tree.depth(server.applied),
        }
    }

    /// How many transactions servers lack in log or application, summed over all of them.
    fn missing(&self) -> u64 {
        let reached = (0..self.hosts.len()).map(|at| self.reached(at));
        let longest = reached.clone().map(|reached| reached.logged).max();
        let most = longest.unwrap_or(0);
        reached
            .map(|reached| most - reached.kept.min(reached.applied))
            .sum()
    }

    /// Ends all faults, at once and for good.
    pub fn heal(&mut self) {
        self.scripted = false;
        self.stage.profile.faults.clear();
        self.stage.profile.weather = Weather::default();
        self.stage.net.weather = Weather::default();
        self.stage.net.latency = Span::new(100, 2_000);
        self.faults.calm();
        for slot in self.faults.slots() {
            self.end_fault(slot);
        }
        for host in &mut self.hosts {
            host.relieve_disk();
        }
        for host in &self.hosts {
            let (at, run) = (host.at as u8, host.run);
            self.stage.after(RESTARTS, Event::Start { at, run });
        }
        self.stage.see(Observation::Healed);
        self.clean_up();
    }

    /// From here on servers start only when told to, until all is healed.
    pub fn script(&mut self) {
        self.scripted = true;
    }

    /// Starts a server that does not run.
    pub fn start_now(&mut self, at: usize) {
        let run = self.hosts[at].run;
        self.start(at, run);
        self.clean_up();
    }

    /// Does something to a server, with all that follows from it.
    pub fn act(&mut self, at: usize, act: impl FnOnce(&mut Host, &mut Stage)) {
        act(&mut self.hosts[at], &mut self.stage);
        self.clean_up();
    }

    /// Lets a fault begin that ends by itself.
    pub fn inflict(&mut self, kind: FaultKind, at: usize) {
        self.stage.entered = None;
        let (stage, hosts) = (&mut self.stage, &mut self.hosts);
        for (a, b) in self.faults.inflict(stage, hosts, kind, at) {
            self.disconnect(a, b);
        }
        self.clean_up();
    }

    /// Closes every way between a server and all others; they notice soon.
    pub fn cut_off(&mut self, at: usize, holding: bool) {
        for peer in (0..self.hosts.len()).filter(|&peer| peer != at) {
            self.stage.net.close(at, peer, holding);
            self.stage.net.close(peer, at, holding);
            self.disconnect(at, peer);
        }
    }

    /// Opens the ways that [`World::cut_off`] has closed.
    pub fn let_in(&mut self, at: usize, holding: bool) {
        for peer in (0..self.hosts.len()).filter(|&peer| peer != at) {
            for (from, to) in [(at, peer), (peer, at)] {
                for packet in self.stage.net.reopen(from, to, holding) {
                    self.stage
                        .queue
                        .put(self.stage.now, Event::Deliver { packet });
                }
            }
        }
    }

    /// Lets the next event happen.
    pub fn step(&mut self) {
        let Some((time, event)) = self.stage.queue.take() else {
            let what = "nothing will ever happen again".into();
            return self.stage.judge.condemn(self.stage.now, what);
        };
        self.stage.now = time;
        self.steps += 1;
        self.stage.judge.mix(time);
        self.happen(event);
        self.ambush();
        self.clean_up();
    }

    /// Faults love changes: a server that has just gone on to another phase, or its leader, is
    /// struck more often than by chance.
    fn ambush(&mut self) {
        let Some(at) = self.stage.entered.take() else {
            return;
        };
        if self.stage.profile.faults.is_empty()
            || !self.stage.random.chance(self.stage.profile.ambush)
        {
            return;
        }
        let leader = self.hosts[at].server.as_ref().and_then(|s| s.peer.leader());
        let victim = match leader {
            Some(leader) if self.stage.random.chance(400_000) => index_of(leader),
            _ => at,
        };
        let kind = self.stage.random.pick(&AMBUSHES);
        let (at, kind) = (victim as u8, kind);
        self.stage.after(AMBUSH_WITHIN, Event::Ambush { at, kind });
    }

    /// Runs for so long.
    pub fn run_for(&mut self, span_us: u64) {
        let until = self.stage.now + span_us;
        while self.stage.judge.violation().is_none()
            && self
                .stage
                .queue
                .next_time()
                .is_some_and(|time| time <= until)
        {
            self.step();
        }
        self.stage.now = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { packet } => self.deliver(event, packet),
            Event::Host { at, run, what } => {
                let host = &mut self.hosts[usize::from(at)];
                if host.run != run || host.server.is_none() {
                    if what != HostEvent::Tick {
                        self.stage.probes.hit(Probe::DiskOutlivesRun);
                    }
                    return;
                }
                if host.pauses > 0 {
                    host.deferred.push(event);
                    return;
                }
                self.stage.judge.mix(u64::from(at) << 8 | what as u64);
                host.handle(&mut self.stage, what);
            }
            Event::Connect { a, b } => self.connect(usize::from(a), usize::from(b)),
            Event::TimeOut { a, b } => {
                let (a, b) = (usize::from(a), usize::from(b));
                if self.stage.net.closed(a, b) || self.stage.net.closed(b, a) {
                    self.disconnect(a, b);
                }
            }
            Event::Notice {
                at,
                peer,
                generation,
                up,
            } => self.notice(event, at, peer, generation, up),
            Event::Start { at, run } => self.start(usize::from(at), run),
            Event::Clients => self.clients(),
            Event::Fault => {
                let breaks = self.faults.strike(&mut self.stage, &mut self.hosts);
                for (a, b) in breaks {
                    self.stage.probes.hit(Probe::ConnectionReset);
                    self.disconnect(a, b);
                }
                self.stage
                    .after(self.stage.profile.faults_every, Event::Fault);
            }
            Event::Ambush { at, kind } => {
                let (stage, hosts) = (&mut self.stage, &mut self.hosts);
                let breaks = self.faults.inflict(stage, hosts, kind, usize::from(at));
                for (a, b) in breaks {
                    self.disconnect(a, b);
                }
            }
            Event::Barrier { at } => self.barrier(event, usize::from(at)),
            Event::FaultEnds { slot } => self.end_fault(slot as usize),
        }
    }

    fn deliver(&mut self, event: Event, packet: u32) {
        let to = self.stage.net.packet(packet).to;
        let host = &mut self.hosts[to];
        if host.server.is_none() {
            self.stage.net.take(packet);
            return;
        }
        if host.is_held_up(&self.stage) {
            host.deferred.push(event);
            return;
        }
        match self.stage.net.arrive(&mut self.stage.random, packet) {
            Arrival::Held => return self.stage.probes.hit(Probe::MessageHeld),
            Arrival::Lost => {
                self.stage.net.take(packet);
                return;
            }
            Arrival::Late => self.stage.probes.hit(Probe::MessageLate),
            Arrival::InTime => {}
        }
        let packet = self.stage.net.take(packet);
        let from = id_of(packet.from);
        if self.stage.judge.is_tracing() {
            let line = super::trace::Line(&packet.message);
            let to = host.id();
            self.stage
                .judge
                .trace(self.stage.now, format_args!("{to} <- {from} {line}"));
        }
        self.stage.judge.mix((packet.from as u64) << 8 | to as u64);
        host.input(&mut self.stage, |peer, now| {
            peer.on_message(now, from, packet.message);
        });
    }

    fn notice(&mut self, event: Event, at: u8, peer: u8, generation: u32, up: bool) {
        let (at, peer) = (usize::from(at), usize::from(peer));
        let host = &mut self.hosts[at];
        if host.pauses > 0 {
            host.deferred.push(event);
            return;
        }
        // What is not true any more is not told: the other end is connected anew, or not.
        let present = self.stage.net.generation(at, peer);
        let connected = self.stage.net.connected(at, peer);
        if up && (!connected || present != generation) {
            return;
        }
        host.notice(&mut self.stage, peer, generation, up);
    }

    fn start(&mut self, at: usize, run: u32) {
        let host = &mut self.hosts[at];
        if host.server.is_some() || host.run != run {
            return;
        }
        let settings = Settings {
            id: host.id(),
            ensemble: self.ensemble.clone(),
            timing: self.stage.profile.timing,
            limits: self.stage.profile.limits,
            plants: self.stage.planted.core,
        };
        host.start(&mut self.stage, settings);
        for other in (0..self.hosts.len()).filter(|&other| other != at) {
            let (a, b) = (at as u8, other as u8);
            self.stage.after(CONNECTS, Event::Connect { a, b });
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.hosts[a].server.is_none() || self.hosts[b].server.is_none() {
            return; // Whoever starts tries again.
        }
        if self.stage.net.connected(a, b) {
            return;
        }
        match self.stage.net.connect(a, b) {
            Some(generation) => {
                for (at, peer) in [(a, b), (b, a)] {
                    self.tell(at, peer, generation, true);
                }
            }
            None => {
                let (a, b) = (a as u8, b as u8);
                self.stage.after(RECONNECTS, Event::Connect { a, b });
            }
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        let Some(generation) = self.stage.net.disconnect(a, b) else {
            return;
        };
        for (at, peer) in [(a, b), (b, a)] {
            if self.stage.random.chance(self.stage.net.weather.silent) {
                self.stage.probes.hit(Probe::NoticeLost);
            } else {
                self.tell(at, peer, generation, false);
            }
        }
        let (a, b) = (a as u8, b as u8);
        self.stage.after(RECONNECTS, Event::Connect { a, b });
    }

    fn tell(&mut self, at: usize, peer: usize, generation: u32, up: bool) {
        let (at, peer) = (at as u8, peer as u8);
        let event = Event::Notice {
            at,
            peer,
            generation,
            up,
        };
        self.stage.after(TOLD, event);
    }

    /// Clients propose, ask for barriers, and send requests through followers.
    fn clients(&mut self) {
        let profile = &self.stage.profile;
        let (burst_max, payload_max) = (profile.burst_max, profile.payload_max);
        let (barriers, forwarded) = (profile.barriers, profile.forwarded);
        self.stage.after(self.stage.profile.clients, Event::Clients);
        if burst_max == 0 {
            return;
        }
        let leaders = self.hosts.iter().filter(|host| host.leads());
        let leaders: Vec<usize> = leaders.map(|host| host.at).collect();
        if leaders.is_empty() {
            return;
        }
        if self.stage.random.chance(barriers) {
            // Of everybody who takes itself for the leader, those that do not run included:
            // they find the question when they do.
            for at in leaders {
                let at = at as u8;
                self.stage.after(TOLD, Event::Barrier { at });
            }
            return;
        }
        let at = self.stage.random.pick(&leaders);
        if self.hosts[at].pauses > 0 {
            return;
        }
        for _ in 0..=self.stage.random.below(burst_max) {
            let length = self.stage.random.below(payload_max) as usize;
            let payload: Arc<[u8]> = self.stage.judge.oracle.invent(length).into();
            if self.stage.random.chance(forwarded) {
                let at = self.stage.random.below(self.hosts.len() as u64) as usize;
                if self.hosts[at].pauses == 0 {
                    self.hosts[at].input(&mut self.stage, |peer, _| {
                        peer.send(None, payload);
                    });
                }
            } else {
                self.hosts[at].propose(&mut self.stage, payload);
            }
        }
    }

    /// A client asks for a barrier.
    fn barrier(&mut self, event: Event, at: usize) {
        if self.hosts[at].pauses > 0 {
            return self.hosts[at].deferred.push(event);
        }
        let token = self.stage.judge.oracle.ask_barrier();
        let mut refused = true;
        self.hosts[at].input(&mut self.stage, |peer, now| {
            refused = peer.barrier(now, token).is_err();
        });
        self.stage.judge.oracle.refused(refused);
    }

    fn end_fault(&mut self, slot: usize) {
        match self.faults.end(&mut self.stage, &mut self.hosts, slot) {
            Ended::Done => {}
            Ended::Resumed(at) => self.resume(at),
            Ended::Opened(held) => {
                for packet in held {
                    self.stage
                        .queue
                        .put(self.stage.now, Event::Deliver { packet });
                }
            }
            Ended::Break(a, b) => self.disconnect(a, b),
        }
    }

    /// A server that was paused finds everything that waited for it, at once.
    fn resume(&mut self, at: usize) {
        if self.hosts[at].pauses > 0 {
            return;
        }
        self.hosts[at].absent_at = self.stage.now;
        for event in std::mem::take(&mut self.hosts[at].deferred) {
            self.stage.queue.put(self.stage.now, event);
        }
    }

    /// Does what remains when servers have stopped: their connections break.
    fn clean_up(&mut self) {
        while let Some(fallen) = self.stage.fallen.pop() {
            let at = fallen.at;
            for peer in (0..self.hosts.len()).filter(|&peer| peer != at) {
                self.disconnect(at, peer);
            }
            let (run, at) = (self.hosts[at].run, at as u8);
            if !self.scripted {
                self.stage.after(fallen.down, Event::Start { at, run });
            }
        }
    }

    /// True if there is one leader, everyone else is with it, and all are in one state.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let committed = self.stage.judge.oracle.committed();
        let with = |host: &Host| match host.phase() {
            Some(Phase::Leading) => host.at < self.stage.profile.voters,
            Some(Phase::Following | Phase::Observing) => true,
            _ => false,
        };
        let leaders = self.hosts.iter().filter(|host| host.leads()).count();
        let applied = |host: &Host| host.server.as_ref().map(|server| server.app);
        let first = applied(&self.hosts[0]);
        leaders == 1
            && self
                .hosts
                .iter()
                .all(|host| with(host) && applied(host) == first)
            && first.is_some_and(|app| app.count == committed)
    }

    /// Where all servers stand, in a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let each = self.hosts.iter().map(|host| match &host.server {
            None => format!("{}: down", host.id()),
            Some(server) => format!(
                "{}: {:?}{} epochs {}/{} log {} committed {} applied {}",
                host.id(),
                server.peer.phase(),
                server
                    .peer
                    .leader()
                    .map(|id| format!(" of {id}"))
                    .unwrap_or_default(),
                server.peer.accepted_epoch(),
                server.peer.current_epoch(),
                server.peer.last_logged(),
                server.peer.committed(),
                server.app.applied,
            ),
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// Breaks every connection, as after the loss of a switch.
    pub fn reset_all(&mut self) {
        for (a, b) in pairs(self.hosts.len()) {
            self.disconnect(a, b);
        }
    }

    /// Events that have happened.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

/// Keeps the numbers of the world apart from those that drew its profile.
const WORLD_SALT: u64 = 0x5157_5f3a_9c01_d2b4;
/// When servers start at first.
const STARTS: Span = Span::new(1, 1_000_000);
/// When servers that are down start once all is healed.
const RESTARTS: Span = Span::new(1, 1_000_000);
/// How soon a server that has started is connected.
const CONNECTS: Span = Span::new(200, 20_000);
/// How soon a connection that broke is tried again.
const RECONNECTS: Span = Span::new(2_000, 400_000);
/// What befalls a server that has just gone on to another phase.
const AMBUSHES: [FaultKind; 6] = [
    FaultKind::Crash,
    FaultKind::CrashInWrite,
    FaultKind::Kill,
    FaultKind::Pause,
    FaultKind::Isolate,
    FaultKind::Wipe,
];
/// How soon.
const AMBUSH_WITHIN: Span = Span::new(1, 60_000);
/// How soon a server is told of a connection.
const TOLD: Span = Span::new(1, 3_000);
