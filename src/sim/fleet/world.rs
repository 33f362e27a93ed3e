//! The fleet: servers and clients, and everything that happens to them, one event after the
//! other.
//!
//! A run has two phases. In the first, faults strike as the [`Profile`] has it, and nothing may
//! ever be wrong. Then all is healed: there must be a leader, every client that lives must be
//! promised so, and who has fallen silent must be gone in its time.

use std::collections::BTreeMap;

use super::super::net::{Arrival, Net, Weather, id_of};
use super::super::queue::Queue;
use super::super::random::{Random, Span};
use super::client::{Client, Mood};
use super::faults::{Fault, UnderWay};
use super::judge::{Judge, Violation};
use super::machine::{Machine, Stop};
use super::plants::Plants;
use super::probes::Probes;
use super::profile::Profile;
use super::server::GROUP;
use super::stage::{Event, Stage, What, Word};
use crate::types::{ServerId, Zxid};
use crate::zab::Ensemble;

/// A simulated ensemble, its clients and its surroundings.
pub struct Fleet {
    pub(super) stage: Stage,
    pub(super) machines: Vec<Machine>,
    pub(super) clients: Vec<Client>,
    ensemble: Ensemble,
    under_way: BTreeMap<u32, UnderWay>,
    slots: u32,
    /// A server whose disk was lost, and what was committed then.
    blank: Option<(usize, Zxid)>,
    steps: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events that happened.
    pub steps: u64,
    /// True time that passed, µs.
    pub time_us: u64,
    /// The same for the same seed.
    pub fingerprint: u64,
    /// Why the run was ended, if it was.
    pub violation: Option<Violation>,
    /// Transactions committed.
    pub committed: u64,
    /// Promises made.
    pub promises: u64,
    /// Sessions that expired.
    pub expired: u64,
    /// Sessions that moved from server to server.
    pub moved: u64,
    /// What was reached.
    pub probes: Probes,
    /// What happened, line by line, if that was wanted.
    pub lines: Vec<String>,
}

impl Outcome {
    /// Holds this run to another one of the same seed: the two must be the same.
    pub fn must_be(&mut self, again: &Outcome) {
        if again.fingerprint != self.fingerprint {
            self.violation = Some(Violation {
                at_us: self.time_us,
                what: "another outcome the second time".into(),
            });
        }
    }
}

impl Fleet {
    /// A fleet of this character, in which nothing has happened yet.
    #[must_use]
    pub fn new(seed: u64, profile: Profile, plants: Plants, trace: bool) -> Fleet {
        let mut random = Random::new(seed ^ FLEET_SALT);
        let count = profile.servers;
        let ids: Vec<ServerId> = (0..count).map(id_of).collect();
        let mut net: Net<Word> = Net::new(count, profile.latency);
        net.weather = profile.weather;
        let slow_disks: Vec<u32> = (0..count)
            .map(|_| u32::from(random.chance(profile.slow_disks)))
            .collect();
        let mut stage = Stage {
            now: 0,
            queue: Queue::new(),
            random,
            net,
            judge: Judge::new(GROUP, trace),
            profile,
            plants,
            slow_disks,
            slow_ways: BTreeMap::new(),
            requests: BTreeMap::new(),
            newest: 0,
        };
        stage.judge.ghost.plant(plants.group);
        let machines = (0..count)
            .map(|at| Machine::new(&mut stage, at, count))
            .collect();
        let clients = (0..stage.profile.clients)
            .map(|index| Client::new(&mut stage, index))
            .collect();
        Fleet {
            stage,
            machines,
            clients,
            ensemble: Ensemble::new(1, &ids, &[]),
            under_way: BTreeMap::new(),
            slots: 0,
            blank: None,
            steps: 0,
        }
    }

    /// The fleet of a seed.
    #[must_use]
    pub fn drawn(seed: u64, plants: Plants, trace: bool) -> Fleet {
        let profile = Profile::draw(&mut Random::new(seed));
        Fleet::new(seed, profile, plants, trace)
    }

    /// Lets all servers start within a second, and clients and faults come.
    pub fn begin(&mut self) {
        self.start_all();
        for client in &mut self.clients {
            client.plan(&mut self.stage, CLIENTS_COME_US);
        }
        if let Some(every) = self.stage.profile.faults_every {
            self.stage.after(every, Event::Fault);
        }
    }

    /// Runs both phases: for `time_us` with faults, then until all is well again.
    #[must_use]
    pub fn run(mut self, time_us: u64) -> Outcome {
        self.begin();
        self.run_for(time_us);
        self.recover();
        self.outcome()
    }

    /// Sums up.
    #[must_use]
    pub fn outcome(mut self) -> Outcome {
        let judge = &mut self.stage.judge;
        Outcome {
            steps: self.steps,
            time_us: self.stage.now,
            fingerprint: judge.fingerprint(),
            violation: judge.violation().cloned(),
            committed: judge.ghost.committed(),
            promises: judge.promises.made,
            expired: judge.ghost.expired,
            moved: judge.ghost.moved,
            probes: judge.probes.clone(),
            lines: judge.lines.take().unwrap_or_default(),
        }
    }

    /// Runs for so long, or until something is wrong.
    pub fn run_for(&mut self, time_us: u64) {
        let until = self.stage.now + time_us;
        while self.stage.judge.violation().is_none()
            && self
                .stage
                .queue
                .next_time()
                .is_some_and(|next| next <= until)
        {
            self.step();
        }
        self.stage.now = until.max(self.stage.now);
    }

    /// Heals everything, and demands that all is well within the bound.
    pub fn recover(&mut self) {
        if self.stage.judge.violation().is_some() {
            return;
        }
        self.heal();
        self.run_for(LEADER_US_MAX);
        let healed = self.stage.now;
        if !self.machines.iter().any(Machine::leads) {
            let what = "there is no leader although all is well".to_owned();
            return self.stage.judge.condemn(healed, what);
        }
        // Every client that lives is promised so, and who is silent goes.
        let longest = self.clients.iter().map(|client| client.timeout_ms).max();
        let longest_us = longest.unwrap_or(0) * 1_000;
        let patience_us = 3 * self.stage.profile.lease.0 * 1_000 + SLACK_US;
        self.run_for(2 * longest_us + 2 * patience_us);
        let now = self.stage.now;
        let unheard = self.clients.iter().position(|client| {
            let lives = client.mood == Mood::Lives;
            lives && client.promised_us + longest_us + SLACK_US < now
        });
        if let Some(client) = unheard {
            let what = format!("m{client} is promised nothing although all is well");
            return self.stage.judge.condemn(now, what);
        }
        let overdue = self.stage.judge.overdue(now, patience_us);
        if let Some(id) = overdue.first() {
            let what = format!("S4: {id} lives on although nobody beats for it");
            return self.stage.judge.condemn(now, what);
        }
        for machine in &self.machines {
            let Some(server) = &machine.server else {
                continue;
            };
            let applied = server.replica.state().applied();
            let last = self.stage.judge.ghost.last();
            if applied < last && self.stage.judge.ghost.digest(applied).is_none() {
                let what = format!(
                    "server {} is at {applied}, and {last} is committed",
                    machine.at + 1
                );
                return self.stage.judge.condemn(now, what);
            }
        }
    }

    /// Ends all faults, at once and for good.
    pub(super) fn heal(&mut self) {
        self.stage.profile.faults_every = None;
        self.stage.profile.calm_down();
        self.stage.net.weather = Weather::default();
        self.stage.net.latency = Span::new(100, 2_000);
        for slot in self.under_way.keys().copied().collect::<Vec<_>>() {
            self.end_fault(slot);
        }
        self.stage.slow_disks.fill(0);
        self.start_all();
    }

    /// Lets all servers that do not run start within a second.
    fn start_all(&mut self) {
        for machine in &self.machines {
            let (at, run) = (machine.at as u8, machine.run);
            self.stage.after(STARTS, Event::Start { at, run });
        }
    }

    /// The server that leads, and the others.
    pub(super) fn roles(&self) -> (usize, Vec<usize>) {
        let leader = self.machines.iter().position(Machine::leads);
        let leader = leader.expect("there is a leader");
        let others = (0..self.machines.len()).filter(|&at| at != leader);
        (leader, others.collect())
    }

    fn step(&mut self) {
        let Some((time, event)) = self.stage.queue.take() else {
            return;
        };
        self.stage.now = time;
        self.steps += 1;
        self.stage.judge.mix(time);
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { packet } => self.deliver(event, packet),
            Event::Process { at, run, what } => {
                let machine = &mut self.machines[usize::from(at)];
                if machine.run != run || machine.server.is_none() {
                    return;
                }
                if machine.pauses > 0 {
                    return machine.deferred.push(event);
                }
                if let What::Mail(shard) | What::ShardTick(shard) = what
                    && machine.stalled(shard.into(), event)
                {
                    return;
                }
                if let Some(server) = &mut machine.server {
                    server.handle(&mut self.stage, what);
                }
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
            } => self.notice(event, (usize::from(at), usize::from(peer)), generation, up),
            Event::Start { at, run } => self.start(usize::from(at), run),
            Event::Request { number } => self.request(event, number),
            Event::Reply { number } => {
                if let Some(request) = self.stage.requests.get(&number) {
                    // Stories ask without a client, and look themselves.
                    if let Some(client) = self.clients.get_mut(request.client) {
                        client.hear(&mut self.stage, number);
                    }
                }
            }
            Event::Client { client, turn } => {
                self.clients[usize::from(client)].act(&mut self.stage, turn);
            }
            Event::Fault => {
                let Some(every) = self.stage.profile.faults_every else {
                    return;
                };
                let servers = self.machines.len() as u64;
                let at = self.stage.random.below(servers) as usize;
                // Leaders are struck more often than by chance.
                let leader = self.machines.iter().position(Machine::leads);
                let at = leader
                    .filter(|_| self.stage.random.chance(self.stage.profile.at_leader))
                    .unwrap_or(at);
                let random = &mut self.stage.random;
                let fault = Fault::draw(random, &self.stage.profile.faults);
                let lasts = random.pick(&self.stage.profile.lasts);
                self.inflict(at, fault, lasts);
                self.stage.after(every, Event::Fault);
            }
            Event::FaultEnds { slot } => self.end_fault(slot),
        }
    }

    fn deliver(&mut self, event: Event, packet: u32) {
        let to = self.stage.net.packet(packet).to;
        let machine = &mut self.machines[to];
        if machine.server.is_none() {
            self.stage.net.take(packet);
            return;
        }
        if machine.pauses > 0 {
            return machine.deferred.push(event);
        }
        match self.stage.net.arrive(&mut self.stage.random, packet) {
            Arrival::Held => return,
            Arrival::Lost => {
                self.stage.net.take(packet);
                return;
            }
            Arrival::Late | Arrival::InTime => {}
        }
        let packet = self.stage.net.take(packet);
        let from = id_of(packet.from);
        let Some(server) = &mut machine.server else {
            return;
        };
        server.input(&mut self.stage, |replica, now| match packet.message {
            Word::Zab(message) => replica.on_message(now, from, message),
            Word::Forward(message) => replica.on_forward(now, from, message),
        });
    }

    fn notice(&mut self, event: Event, (at, peer): (usize, usize), generation: u32, up: bool) {
        let machine = &mut self.machines[at];
        if machine.pauses > 0 {
            return machine.deferred.push(event);
        }
        // What is not true any more is not told.
        let present = self.stage.net.generation(at, peer);
        if up && (!self.stage.net.connected(at, peer) || present != generation) {
            return;
        }
        machine.notice(&mut self.stage, peer, generation, up);
    }

    fn start(&mut self, at: usize, run: u32) {
        let machine = &mut self.machines[at];
        if machine.server.is_some() || machine.run != run {
            return;
        }
        machine.start(&mut self.stage, &self.ensemble);
        for other in (0..self.machines.len()).filter(|&other| other != at) {
            let (a, b) = (at as u8, other as u8);
            self.stage.after(CONNECTS, Event::Connect { a, b });
        }
    }

    fn request(&mut self, event: Event, number: u32) {
        let Some(request) = self.stage.requests.get(&number) else {
            return;
        };
        let machine = &mut self.machines[request.at];
        if machine.pauses > 0 {
            return machine.deferred.push(event);
        }
        if machine.stalled(request.shard, event) {
            return;
        }
        if let Some(server) = &mut machine.server {
            server.backlog = server.backlog.saturating_sub(1);
            server.receive(&mut self.stage, number);
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.machines[a].server.is_none() || self.machines[b].server.is_none() {
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
            if !self.stage.random.chance(self.stage.net.weather.silent) {
                self.tell(at, peer, generation, false);
            }
        }
        let (a, b) = (a as u8, b as u8);
        self.stage.after(RECONNECTS, Event::Connect { a, b });
    }

    pub(super) fn tell(&mut self, at: usize, peer: usize, generation: u32, up: bool) {
        let (at, peer) = (at as u8, peer as u8);
        let event = Event::Notice {
            at,
            peer,
            generation,
            up,
        };
        self.stage.after(NOTICES, event);
    }

    /// Lets something go wrong at a server, for a while.
    pub(super) fn inflict(&mut self, at: usize, fault: Fault, lasts: Span) {
        let fault = match fault {
            Fault::Wipe if !self.may_wipe(at) => Fault::Power,
            fault => fault,
        };
        self.stage
            .judge
            .trace(self.stage.now, || format!("{} {fault:?}", at + 1));
        self.stage.judge.probes.hit(fault.probe());
        let others: Vec<usize> = (0..self.machines.len())
            .filter(|&other| other != at)
            .collect();
        if let Some(how) = fault.stop() {
            return self.stop(at, how, lasts);
        }
        match fault {
            Fault::Pause => {
                self.machines[at].pauses += 1;
                self.goes_on(UnderWay::Pause(at), lasts);
            }
            Fault::Cut { inward, outward } => {
                self.close(ways_of(at, &others, inward, outward), lasts);
            }
            Fault::Stall => {
                let shards = u64::from(self.stage.profile.shards);
                let shard = self.stage.random.below(shards) as u16;
                self.machines[at].stalls[usize::from(shard)].0 += 1;
                self.goes_on(UnderWay::Stall(at, shard), lasts);
            }
            Fault::SlowDisk => {
                self.stage.slow_disks[at] += 1;
                self.goes_on(UnderWay::SlowDisk(at), lasts);
            }
            Fault::SlowWays { inward, outward } => {
                let ways = ways_of(at, &others, inward, outward);
                let extra = self.stage.random.span(SLOW_WAY);
                for way in &ways {
                    self.stage.slow_ways.entry(*way).or_default().extra_us += extra;
                }
                self.goes_on(UnderWay::SlowWays(ways, extra), lasts);
            }
            Fault::Maroon => self.maroon(at, &others, lasts),
            Fault::Part => {
                let other = self.stage.random.pick(&others);
                self.close(vec![(at, other), (other, at)], lasts);
            }
            _ => others.iter().for_each(|&other| self.disconnect(at, other)),
        }
    }

    /// Breaks the connections of a server to all others but one, and keeps them so. The others
    /// are told at once; it goes by what it still hears.
    fn maroon(&mut self, at: usize, others: &[usize], lasts: Span) {
        let friend = self.stage.random.pick(others);
        let lost: Vec<usize> = others.iter().copied().filter(|&o| o != friend).collect();
        for &other in &lost {
            if let Some(generation) = self.stage.net.disconnect(at, other) {
                self.tell(other, at, generation, false);
            }
            let (a, b) = (at as u8, other as u8);
            self.stage.after(RECONNECTS, Event::Connect { a, b });
        }
        // What they said before may still come.
        self.close(ways_of(at, &lost, false, true), lasts);
    }

    /// Ends a server, which starts again within `down`.
    pub(super) fn stop(&mut self, at: usize, how: Stop, down: Span) {
        if self.machines[at].server.is_none() {
            return;
        }
        if how == Stop::Wiped {
            self.blank = Some((at, self.stage.judge.ghost.last()));
        }
        self.machines[at].stop(&mut self.stage, how);
        for other in (0..self.machines.len()).filter(|&other| other != at) {
            self.disconnect(at, other);
        }
        let run = self.machines[at].run;
        let at = at as u8;
        self.stage.after(down, Event::Start { at, run });
    }

    /// A second disk may be lost once the first has everything again: a promise of two copies is
    /// none against the loss of both.
    fn may_wipe(&mut self, at: usize) -> bool {
        if let Some((blank, mark)) = self.blank {
            let server = self.machines[blank].server.as_ref();
            let whole = server.is_some_and(|server| {
                server.store.log.durable() >= mark && server.replica.state().applied() >= mark
            });
            if whole {
                self.blank = None;
            }
        }
        self.blank.is_none() && self.machines[at].server.is_some()
    }

    /// Holds up these ways for a while; whoever uses them notices, some time.
    fn close(&mut self, ways: Vec<(usize, usize)>, lasts: Span) {
        for &(from, to) in &ways {
            self.stage.net.close(from, to, true);
            let (a, b) = (from as u8, to as u8);
            self.stage.after(TIMES_OUT, Event::TimeOut { a, b });
        }
        self.goes_on(UnderWay::Ways(ways), lasts);
    }

    fn goes_on(&mut self, under_way: UnderWay, lasts: Span) {
        self.slots += 1;
        let slot = self.slots;
        self.under_way.insert(slot, under_way);
        self.stage.after(lasts, Event::FaultEnds { slot });
    }

    fn end_fault(&mut self, slot: u32) {
        match self.under_way.remove(&slot) {
            None => {}
            Some(UnderWay::Pause(at)) => self.machines[at].resume(&mut self.stage),
            Some(UnderWay::Stall(at, shard)) => self.machines[at].go_on(&mut self.stage, shard),
            Some(UnderWay::SlowDisk(at)) => self.stage.slow_disks[at] -= 1,
            Some(UnderWay::SlowWays(ways, extra_us)) => {
                for way in ways {
                    self.stage.slow_ways.entry(way).or_default().extra_us -= extra_us;
                }
            }
            Some(UnderWay::Ways(ways)) => {
                for (from, to) in ways {
                    for packet in self.stage.net.reopen(from, to, true) {
                        let now = self.stage.now;
                        self.stage.queue.put(now, Event::Deliver { packet });
                    }
                }
            }
        }
    }
}

/// The ways of a server to and from others.
fn ways_of(at: usize, others: &[usize], inward: bool, outward: bool) -> Vec<(usize, usize)> {
    let mut ways = Vec::new();
    for &other in others {
        ways.extend(inward.then_some((other, at)));
        ways.extend(outward.then_some((at, other)));
    }
    ways
}

/// So that a seed of the fleet is not the same chance as that of another world.
const FLEET_SALT: u64 = 0x666c_6565_7400;
/// How soon servers start.
const STARTS: Span = Span::new(1, 1_000_000);
/// When the first clients come, µs.
const CLIENTS_COME_US: u64 = 1_000_000;
/// How soon two servers connect once both run.
const CONNECTS: Span = Span::new(100, 20_000);
/// How often they try again.
const RECONNECTS: Span = Span::new(1_000, 200_000);
/// How soon a server hears of a connection.
const NOTICES: Span = Span::new(10, 5_000);
/// How soon it notices that nothing comes through.
const TIMES_OUT: Span = Span::new(50_000, 3_000_000);
/// How long until there is a leader once all is well, µs.
const LEADER_US_MAX: u64 = 10_000_000;
/// How much longer messages take on a slow way.
const SLOW_WAY: Span = Span::new(10_000, 1_500_000);
/// What timers, networks and disks add to any bound, µs.
const SLACK_US: u64 = 4_000_000;
