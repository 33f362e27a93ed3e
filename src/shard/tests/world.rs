//! A server of one without threads, sockets, disk and clock: every hop is a queue, and a
//! queue moves when the test says so.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::super::{ConnId, Latencies, Next, Settings, Shard};
use super::client::{Client, Response};
use super::oracle::Oracle;
use crate::group;
use crate::http;
use crate::mail::{Ask, Mail, Pass, Tell};
use crate::metrics::{CoreCounters, Registry, ShardCounters};
use crate::replica::{GroupSettings, Output, Replica, Settings as ReplicaSettings};
use crate::time::{Millis, TICK_MS};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{Boot, Entry, Persisted, Settings as ZabSettings, Summary, Write};

/// Shards, the core, and everything between them and their clients.
pub(super) struct World {
    pub(super) now: Millis,
    pub(super) shards: Vec<Shard>,
    pub(super) replica: Replica,
    counters: Arc<CoreCounters>,
    /// Written to the log, and how much of it would survive.
    log: Vec<Entry>,
    durable: usize,
    epochs: (Epoch, Epoch),
    starts: u64,
    pub(super) to_core: Vec<VecDeque<Ask>>,
    pub(super) to_shard: Vec<VecDeque<Vec<Tell>>>,
    /// From, to.
    pub(super) between: Vec<Vec<VecDeque<Pass>>>,
    pub(super) clients: Vec<Client>,
    by_conn: HashMap<(usize, ConnId), usize>,
    /// Places in each shard's slab: how many there are, and those that are free.
    places: Vec<(u32, Vec<ConnId>)>,
    pub(super) oracle: Oracle,
    pub(super) tune: Tune,
}

/// What a test may set.
#[derive(Clone)]
pub(super) struct Tune {
    pub(super) shards: u16,
    pub(super) asks_max: usize,
    pub(super) changes_max: usize,
    pub(super) pipelined_max: usize,
    pub(super) output_bytes_max: usize,
    pub(super) watchers_max: u64,
    pub(super) sessions_max: u32,
    pub(super) in_flight_max: usize,
    pub(super) default_timeout: Millis,
    pub(super) body_bytes_max: usize,
}

impl Default for Tune {
    fn default() -> Tune {
        Tune {
            shards: 2,
            asks_max: 1_000,
            changes_max: 1_000,
            pipelined_max: 128,
            output_bytes_max: 1 << 20,
            watchers_max: 1_000,
            sessions_max: 100_000,
            in_flight_max: 4_096,
            default_timeout: Millis(1_000),
            body_bytes_max: 1 << 20,
        }
    }
}

impl World {
    /// In service, with `shards` shards.
    pub(super) fn new(shards: u16) -> World {
        World::tuned(Tune {
            shards,
            ..Tune::default()
        })
    }

    pub(super) fn tuned(tune: Tune) -> World {
        let mut world = World::starting(tune, Vec::new(), (Epoch(0), Epoch(0)), 1, Millis(50_007));
        world.start();
        world
    }

    /// Ends this server, loses what was not durable, and builds the next, not yet started.
    pub(super) fn restart(&mut self) -> World {
        let mut log = std::mem::take(&mut self.log);
        log.truncate(self.durable);
        let (tune, starts) = (self.tune.clone(), self.starts + 1);
        let mut next = World::starting(tune, log, self.epochs, starts, self.now);
        next.oracle = std::mem::take(&mut self.oracle);
        next.oracle.restarted(next.shards.len());
        next
    }

    /// Elects, replays, deals, and opens the doors.
    pub(super) fn start(&mut self) {
        self.replica.start(self.now);
        self.core_writes();
        self.quiet();
    }

    fn starting(
        tune: Tune,
        log: Vec<Entry>,
        epochs: (Epoch, Epoch),
        starts: u64,
        now: Millis,
    ) -> World {
        let count = usize::from(tune.shards);
        let counters = Arc::new(CoreCounters::default());
        let group = GroupSettings {
            default_timeout: tune.default_timeout,
            seeds: [1, 2, 3, 4],
        };
        let epochs_of = log.chunk_by(|a, b| a.zxid.epoch == b.zxid.epoch);
        let ends = epochs_of.filter_map(|run| Some(run.last()?.zxid)).collect();
        let boot = Boot {
            accepted_epoch: epochs.0,
            current_epoch: epochs.1,
            history: Summary {
                base: Zxid::ZERO,
                ends,
            },
            snapshot: None,
            delivered: Zxid::ZERO,
            nonce: starts,
        };
        let mut zab = ZabSettings::alone(ServerId(1));
        zab.limits.in_flight_max = tune.in_flight_max;
        let settings = ReplicaSettings {
            id: ServerId(1),
            shards: tune.shards,
            endpoint: "t:1".to_owned(),
            wall_s: 1_700_000_000,
            lease: Millis(3_000),
            min_timeout: Millis(100),
            seeds: [5, 6, 7, 8],
            requests_max: 65_536,
        };
        let state = group::State::new(group);
        let registry = Registry {
            shards: (0..count)
                .map(|_| Arc::new(ShardCounters::default()))
                .collect(),
            core: Arc::clone(&counters),
            latencies: Vec::new(),
        };
        let shards = (0..tune.shards).map(|index| {
            let counters = Arc::clone(&registry.shards[usize::from(index)]);
            let registry = Rc::new(registry.clone());
            Shard::new(
                settings_of(&tune, index),
                [9, 8, 7, 6],
                counters,
                Latencies::new(),
                registry,
                now,
            )
        });
        World {
            now,
            shards: shards.collect(),
            replica: Replica::new(settings, zab, boot, state, group, Arc::clone(&counters)),
            counters,
            durable: log.len(),
            log,
            epochs,
            starts,
            to_core: (0..count).map(|_| VecDeque::new()).collect(),
            to_shard: (0..count).map(|_| VecDeque::new()).collect(),
            between: (0..count)
                .map(|_| (0..count).map(|_| VecDeque::new()).collect())
                .collect(),
            clients: Vec::new(),
            by_conn: HashMap::new(),
            places: vec![(0, Vec::new()); count],
            oracle: Oracle::new(count),
            tune,
        }
    }
}

fn settings_of(tune: &Tune, index: u16) -> Settings {
    Settings {
        index,
        shards: tune.shards,
        server: ServerId(1),
        default_timeout: tune.default_timeout,
        min_timeout: Millis(100),
        max_timeout: Millis(86_400_000),
        lease: Millis(3_000),
        sessions_max: tune.sessions_max,
        asks_max: tune.asks_max,
        changes_max: tune.changes_max.min(tune.asks_max),
        http: http::Limits {
            body_bytes_max: tune.body_bytes_max,
            ..http::Limits::default()
        },
        pipelined_max: tune.pipelined_max,
        watchers_max: tune.watchers_max,
        output_bytes_max: tune.output_bytes_max,
        request_timeout: Millis(10_000),
        idle_timeout: Millis(300_000),
        stall_min: Millis(50),
        started_s: 0,
    }
}

/// The core and the queues around it.
impl World {
    /// The core takes one question of `shard`.
    pub(super) fn core_takes(&mut self, shard: usize) -> bool {
        let Some(ask) = self.to_core[shard].pop_front() else {
            return false;
        };
        self.replica.ask(self.now, shard as u16, ask);
        true
    }

    /// The core appends what has been proposed.
    pub(super) fn core_writes(&mut self) {
        let mut ready = Output::default();
        loop {
            let expired = self.counters.expired.get();
            self.replica.ready(&mut ready);
            self.heard_of(self.counters.expired.get() > expired);
            if ready.is_empty() {
                return;
            }
            if let Some(replay) = ready.replay.take() {
                let upto = self.log.partition_point(|entry| entry.zxid <= replay.upto);
                for entry in &self.log[..upto] {
                    self.replica.on_replayed(self.now, entry);
                }
            }
            for write in ready.writes.drain(..) {
                match write {
                    Write::AcceptedEpoch(epoch) => {
                        self.epochs.0 = epoch;
                        let persisted = Persisted::AcceptedEpoch(epoch);
                        self.replica.on_persisted(self.now, persisted);
                    }
                    Write::CurrentEpoch(epoch) => {
                        self.epochs.1 = epoch;
                        let persisted = Persisted::CurrentEpoch(epoch);
                        self.replica.on_persisted(self.now, persisted);
                    }
                    Write::Append(entry) => self.log.push(entry),
                    other => panic!("an ensemble of one was told to {other:?}"),
                }
            }
        }
    }

    /// What the core tells of at most one transaction is noted, and goes on its way.
    fn heard_of(&mut self, by_expiry: bool) {
        if self.replica.is_serving() {
            self.oracle.applied(self.replica.state());
        }
        let tells = self.replica.tells()[0].iter();
        let ended = tells.filter_map(|tell| match tell {
            Tell::Ended(ids) | Tell::Expired { ids, .. } => Some(ids.to_vec()),
            _ => None,
        });
        for id in ended.flatten().collect::<Vec<_>>() {
            self.oracle.ended(id, by_expiry, self.now);
        }
        self.told();
    }

    /// What has been appended is durable. False if there was nothing.
    pub(super) fn core_syncs(&mut self) -> bool {
        self.core_writes();
        if self.durable == self.log.len() {
            return false;
        }
        // One by one, so that the oracle sees each state.
        let synced = self.log.len();
        while self.durable < synced {
            let persisted = Persisted::Log(self.log[self.durable].zxid);
            self.durable += 1;
            self.replica.on_persisted(self.now, persisted);
            self.core_writes();
        }
        true
    }

    fn told(&mut self) {
        for (tells, queue) in self.replica.tells().iter_mut().zip(&mut self.to_shard) {
            if !tells.is_empty() {
                queue.push_back(std::mem::take(tells));
            }
        }
    }

    /// A shard takes one message of the core.
    pub(super) fn shard_hears(&mut self, shard: usize) -> bool {
        let Some(tells) = self.to_shard[shard].pop_front() else {
            return false;
        };
        self.oracle.heard(shard, &tells);
        self.shards[shard].deliver(
            Mail::Core {
                batch: 0,
                tells,
                more: false,
            },
            self.now,
        );
        self.carry(shard);
        true
    }

    /// A shard takes one message of another.
    pub(super) fn shard_gets(&mut self, from: usize, to: usize) -> bool {
        let Some(pass) = self.between[from][to].pop_front() else {
            return false;
        };
        self.shards[to].deliver(Mail::Shard(pass), self.now);
        self.carry(to);
        true
    }

    pub(super) fn ticks(&mut self, shard: usize, drained: bool) {
        self.shards[shard].tick(self.now, drained);
        self.carry(shard);
    }

    /// Moves every message, and whatever they lead to, without time passing.
    pub(super) fn quiet(&mut self) {
        let count = self.shards.len();
        for round in 0.. {
            assert!(round < 100_000, "the messages never end");
            let mut moved = self.core_syncs();
            for shard in 0..count {
                while self.core_takes(shard) {
                    moved = true;
                }
            }
            moved |= self.core_syncs();
            for shard in 0..count {
                moved |= self.shard_hears(shard);
                for to in 0..count {
                    moved |= self.shard_gets(shard, to);
                }
            }
            for client in 0..self.clients.len() {
                moved |= !self.clients[client].kernel.is_empty() && self.pump(client, usize::MAX);
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets `ms` pass in ticks, all messages moving at once.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now + Millis(ms);
        while self.now < until {
            self.now = (self.now + Millis(TICK_MS)).min(until);
            for shard in 0..self.shards.len() {
                self.ticks(shard, true);
            }
            self.quiet();
        }
    }

    /// Carries away what a shard has to say.
    fn carry(&mut self, shard: usize) {
        loop {
            while self.shards[shard].has_due() {
                self.shards[shard].fan_out(self.now);
            }
            let outbox = self.shards[shard].outbox();
            self.to_core[shard].extend(outbox.asks.drain(..));
            for (to, pass) in outbox.passes.drain(..) {
                self.between[shard][usize::from(to)].push_back(pass);
            }
            if outbox.woken.is_empty() {
                break;
            }
            for conn in std::mem::take(&mut outbox.woken) {
                if let Some(&client) = self.by_conn.get(&(shard, conn)) {
                    self.clients[client].next = Next::More;
                    self.pump_once(client, 0);
                }
            }
        }
        self.oracle.placed(&self.shards);
    }
}

/// The clients.
impl World {
    pub(super) fn connect(&mut self, shard: usize) -> usize {
        let (count, free) = &mut self.places[shard];
        let conn = match free.pop() {
            Some(ConnId { index, generation }) => ConnId {
                index,
                generation: generation + 1,
            },
            None => {
                *count += 1;
                ConnId {
                    index: *count - 1,
                    generation: 0,
                }
            }
        };
        self.shards[shard].open(conn, self.now);
        let client = self.clients.len();
        self.clients.push(Client::new(shard, conn));
        self.by_conn.insert((shard, conn), client);
        client
    }

    /// The client is gone, whatever it is owed.
    pub(super) fn drop_client(&mut self, client: usize) {
        let Client { shard, conn, .. } = self.clients[client];
        if self.by_conn.remove(&(shard, conn)).is_some() {
            self.clients[client].open = false;
            self.shards[shard].close(conn);
            self.places[shard].1.push(conn);
        }
    }

    /// Puts a request into the kernel's hands.
    pub(super) fn write(&mut self, client: usize, line: &str, headers: &str, body: &[u8]) {
        let now = self.now;
        self.clients[client].send(line, headers, body, now, 0);
    }

    /// Writes a request and lets the shard read it.
    pub(super) fn send(&mut self, client: usize, line: &str) {
        self.write(client, line, "", b"");
        self.pump(client, usize::MAX);
    }

    /// Sends a request, lets everything move, and returns the answer.
    pub(super) fn ask(&mut self, client: usize, line: &str) -> Response {
        self.ask_with(client, line, "", b"")
    }

    pub(super) fn ask_with(
        &mut self,
        client: usize,
        line: &str,
        headers: &str,
        body: &[u8],
    ) -> Response {
        self.write(client, line, headers, body);
        self.quiet();
        for _ in 0..200 {
            if self.clients[client].asked.is_empty() {
                break;
            }
            self.pass(TICK_MS);
        }
        assert!(self.clients[client].asked.is_empty(), "{line}: no answer");
        self.last(client)
    }

    /// The answer read last.
    pub(super) fn last(&self, client: usize) -> Response {
        let (_, response) = self.clients[client].answers.last().expect("an answer");
        response.clone()
    }

    /// The statuses of all answers read, in order.
    pub(super) fn statuses(&self, client: usize) -> Vec<u16> {
        let answers = self.clients[client].answers.iter();
        answers.map(|(_, response)| response.status).collect()
    }

    /// Lets the shard read at most `bytes` of what the client has sent.
    pub(super) fn pump(&mut self, client: usize, bytes: usize) -> bool {
        let (shard, before) = (
            self.clients[client].shard,
            self.clients[client].kernel.len(),
        );
        self.pump_once(client, bytes);
        self.carry(shard);
        self.clients[client].kernel.len() < before
    }

    fn pump_once(&mut self, client: usize, bytes: usize) {
        // What is told is in every shard's inbox before anybody hears of it, and a shard takes
        // its mail in before an input that came later.
        let it = &self.clients[client];
        if it.open && !it.slow && it.next == Next::Read && !it.kernel.is_empty() && bytes > 0 {
            let shard = it.shard;
            while self.shard_hears(shard) {}
        }
        let World {
            shards,
            clients,
            oracle,
            now,
            ..
        } = self;
        let it = &mut clients[client];
        let shard = &mut shards[it.shard];
        let mut left = bytes;
        while it.open && !it.slow {
            let mut out = Vec::new();
            let next = match it.next {
                Next::Read if !it.kernel.is_empty() && left > 0 => {
                    let count = left.min(it.kernel.len()).min(64 * 1024);
                    left -= count;
                    let input: Vec<u8> = it.kernel.drain(..count).collect();
                    shard.receive(it.conn, &input, *now, &mut out)
                }
                Next::Read if it.kernel.is_empty() && it.shut && !it.told => {
                    it.told = true;
                    shard.finish(it.conn, *now, &mut out)
                }
                Next::Read | Next::Wait => break,
                Next::More => {
                    it.next = Next::Wait;
                    shard.resume(it.conn, *now, &mut out)
                }
                Next::Close => {
                    it.closed(*now);
                    break;
                }
            };
            // As the sockets do: there is nothing more to read.
            it.next = match next {
                Next::Read if it.told => Next::Close,
                next => next,
            };
            let count = it.read(&out, *now);
            let fresh = it.answers.len() - count;
            for (asked, response) in &it.answers[fresh..] {
                oracle.answered(it.shard, asked, response);
            }
        }
        if !it.open {
            self.drop_client(client);
        }
    }

    /// Looks at a connection for silence.
    pub(super) fn review(&mut self, client: usize) {
        let it = &mut self.clients[client];
        let mut out = Vec::new();
        if let Some(next) = self.shards[it.shard].review(it.conn, self.now, &mut out) {
            it.next = next;
            it.read(&out, self.now);
            self.pump(client, usize::MAX);
        }
    }

    /// Fails if anything is kept for anybody once nobody waits.
    pub(super) fn assert_nothing_is_kept(&self) {
        for shard in &self.shards {
            assert_eq!(shard.parked.len(), 0, "parked");
            assert_eq!((shard.asked, shard.expiry.asked), (0, 0), "asked, expiring");
            assert_eq!(shard.coming, 0, "coming");
            assert!(shard.transit.is_idle(), "claims");
            assert!(shard.behind.is_empty() && shard.searches.is_empty());
            assert!(shard.expiry.due.len() == 0 && !shard.is_behind());
        }
    }

    /// How many shards hold the member's session.
    pub(super) fn holders(&self, group: &str, member: &str) -> Vec<usize> {
        let holds = |shard: &Shard| {
            let found = shard.tracker.find(group.as_bytes(), member.as_bytes());
            found.is_some()
        };
        (0..self.shards.len())
            .filter(|index| holds(&self.shards[*index]))
            .collect()
    }

    /// Transactions applied so far.
    pub(super) fn applied(&self) -> u64 {
        self.counters.applied.get()
    }

    /// Questions that the core has answered from its state.
    pub(super) fn reads(&self) -> u64 {
        self.counters.reads.get()
    }

    /// True if the replicated state shows the member active.
    pub(super) fn is_active(&self, group: &str, member: &str) -> bool {
        let state = self.replica.state();
        state.session(group.as_bytes(), member.as_bytes()).is_some()
    }
}
