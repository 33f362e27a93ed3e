//! A running server: the replica, the log, the shards, and the mail between them.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::super::clock::Clock;
use super::super::random::Span;
use super::http;
use super::probes::Probe;
use super::stage::{Event, Stage, What, Word};
use super::store::{Made, Store};
use crate::group::Settings as GroupSettings;
use crate::log::LogError;
use crate::mail::{Ask, Mail, Pass, ShardIndex};
use crate::metrics::{CoreCounters, Registry, ShardCounters};
use crate::replica::{Output, Replica};
use crate::shard::{ConnId, Latencies, Next, Settings as ShardSettings, Shard};
use crate::time::{Millis, TICK_MS};
use crate::types::{ServerId, Zxid};
use crate::zab::{Persisted, Read, Replay, Write};

/// A process.
pub(super) struct Server {
    at: usize,
    run: u32,
    pub(super) clock: Clock,
    pub(super) replica: Replica,
    out: Output,
    pub(super) store: Store,
    pub(super) shards: Vec<Shard>,
    /// What the core is asked and has not looked at.
    inbox: VecDeque<(ShardIndex, Ask)>,
    core_called: bool,
    mail: Vec<VecDeque<Mail>>,
    mail_called: Vec<bool>,
    batch: u64,
    /// The request behind each connection.
    conns: BTreeMap<(u16, u64), u32>,
    /// By shard: connections to be used again, and how many there are.
    places: Vec<(Vec<ConnId>, u32)>,
    /// The history this server was asked to write, behind its snapshot.
    chain: VecDeque<(Zxid, Arc<[u8]>)>,
    applied: Zxid,
    /// A part of the log to be read, once so many writes have been made.
    replay: Option<(Replay, u64)>,
    /// The part that is being read, and how often another took the place of one.
    replaying: Option<Replay>,
    replay_called: bool,
    reads: VecDeque<Read>,
    tick_at: u64,
    tick_for: Millis,
    /// Transactions applied since the last snapshot.
    since_snapshot: u64,
    snapshot_called: bool,
    /// Requests that came during a pause and wait to be read.
    pub(super) backlog: u32,
    /// It must end: a write has failed, or the replica has withdrawn.
    pub(super) over: bool,
}

impl Server {
    pub(super) fn new(
        (at, run): (usize, u32),
        clock: Clock,
        replica: Replica,
        store: Store,
        chain: VecDeque<(Zxid, Arc<[u8]>)>,
        stage: &mut Stage,
    ) -> Server {
        let now = clock.read(stage.now);
        let count = stage.profile.shards;
        let applied = replica.state().applied();
        let mut server = Server {
            at,
            run,
            clock,
            replica,
            out: Output::default(),
            store,
            shards: shards(stage, at, now),
            inbox: VecDeque::new(),
            core_called: false,
            mail: (0..count).map(|_| VecDeque::new()).collect(),
            mail_called: vec![false; usize::from(count)],
            batch: 0,
            conns: BTreeMap::new(),
            places: (0..count).map(|_| (Vec::new(), 0)).collect(),
            chain,
            applied,
            replay: None,
            replaying: None,
            replay_called: false,
            reads: VecDeque::new(),
            tick_at: u64::MAX,
            tick_for: Millis(u64::MAX),
            since_snapshot: 0,
            snapshot_called: false,
            backlog: 0,
            over: false,
        };
        for shard in 0..count {
            server.plan_shard_tick(stage, shard as u8);
        }
        server.input(stage, |replica, now| replica.start(now));
        server
    }

    /// Gives the replica an input, and carries out what it asks for.
    pub(super) fn input(&mut self, stage: &mut Stage, give: impl FnOnce(&mut Replica, Millis)) {
        let now = self.clock.read(stage.now);
        give(&mut self.replica, now);
        self.settle(stage);
    }

    pub(super) fn handle(&mut self, stage: &mut Stage, what: What) {
        match what {
            What::Tick => self.tick(stage),
            What::Core => {
                self.core_called = false;
                let asks = std::mem::take(&mut self.inbox);
                self.input(stage, |replica, now| {
                    for (shard, ask) in asks {
                        replica.ask(now, shard, ask);
                    }
                });
            }
            What::Mail(shard) => {
                self.mail_called[usize::from(shard)] = false;
                self.read_mail(stage, usize::from(shard));
            }
            What::ShardTick(shard) => self.shard_tick(stage, shard),
            What::Write => {
                let made = self.store.write();
                self.made(stage, made);
            }
            What::SyncBegin => {
                if self.store.begin_sync() {
                    let sync = stage.sync_of(self.at);
                    self.call(stage, sync, What::SyncEnd);
                }
                self.go_on_writing(stage);
            }
            What::SyncEnd => {
                let made = self.store.end_sync();
                self.made(stage, made);
            }
            What::Replay => self.replay(stage),
            What::Read => {
                if let Some(read) = self.reads.pop_front() {
                    let piece = self.store.read(read.what);
                    self.input(stage, |replica, now| {
                        replica.on_read(now, read.learner, read.tenure, piece);
                    });
                }
            }
            What::Snapshot => self.take_snapshot(stage),
        }
    }

    fn made(&mut self, stage: &mut Stage, made: Result<Made, LogError>) {
        match made {
            Ok(Made::Nothing) => self.input(stage, |_, _| {}),
            Ok(Made::Persisted(persisted)) => {
                self.input(stage, |replica, now| replica.on_persisted(now, persisted));
            }
            Ok(Made::Installed(zxid, content)) => {
                let mut restored = Ok(());
                self.input(stage, |replica, now| {
                    restored = replica.restore(zxid, &mut &content[..]);
                    replica.on_persisted(now, Persisted::Snapshot(zxid));
                });
                if let Err(damaged) = restored {
                    stage.judge.condemn(stage.now, damaged.to_string());
                }
            }
            Err(error) => {
                let at = self.at + 1;
                let what = format!("server {at} was asked for a write that fails: {error}");
                stage.judge.condemn(stage.now, what);
                self.over = true;
            }
        }
        self.go_on_writing(stage);
    }

    fn go_on_writing(&mut self, stage: &mut Stage) {
        if self.store.begins_write() {
            self.call(stage, stage.profile.write, What::Write);
        }
        if self.store.begins_sync() {
            self.call(stage, stage.profile.write, What::SyncBegin);
        }
    }

    /// Carries out what the replica asks for.
    fn settle(&mut self, stage: &mut Stage) {
        let mut out = std::mem::take(&mut self.out);
        self.replica.ready(&mut out);
        self.take_writes(stage, &mut out);
        for envelope in out.messages.drain(..) {
            stage.send(self.at, envelope.to, Word::Zab(envelope.message));
        }
        for (to, message) in out.forwards.drain(..) {
            stage.judge.work.forwards[self.at] += 1;
            stage.judge.work.forwards[to.0 as usize - 1] += 1;
            stage.send(self.at, to, Word::Forward(message));
        }
        for read in out.reads.drain(..) {
            self.reads.push_back(read);
            self.call(stage, stage.profile.sync, What::Read);
        }
        if let Some(replay) = out.replay.take() {
            self.replay = Some((replay, self.store.asked));
            self.replaying = None;
        }
        if let Some(fault) = out.fenced.take() {
            let what = format!("server {} withdraws: {fault}", self.at + 1);
            stage.judge.condemn(stage.now, what);
            self.over = true;
        }
        if let Some(failure) = out.failure.take() {
            stage.judge.condemn(stage.now, failure);
            self.over = true;
        }
        self.out = out;
        self.note_applied(stage);
        self.post(stage);
        self.go_on_replaying(stage);
        self.go_on_writing(stage);
        self.plan_tick(stage);
        self.snapshot_if_due(stage);
    }

    fn take_writes(&mut self, stage: &mut Stage, out: &mut Output) {
        for write in out.writes.drain(..) {
            match &write {
                Write::Append(entry) => {
                    stage.judge.work.appends += 1;
                    let payload = Arc::clone(&entry.payload);
                    self.chain.push_back((entry.zxid, payload));
                }
                Write::Truncate(to) => {
                    while self.chain.back().is_some_and(|(zxid, _)| zxid > to) {
                        self.chain.pop_back();
                    }
                }
                Write::SnapshotEnd(_) => {
                    self.chain.clear();
                    (self.replay, self.replaying) = (None, None);
                }
                _ => {}
            }
            self.store.ask(write);
        }
    }

    /// Tells the judge what this server has applied: all of that is committed.
    fn note_applied(&mut self, stage: &mut Stage) {
        let applied = self.replica.state().applied();
        if applied == self.applied {
            return;
        }
        self.applied = applied;
        self.since_snapshot += 1;
        let known = stage.judge.ghost.last();
        if applied > known {
            let new = self.chain.partition_point(|(zxid, _)| *zxid <= known);
            let upto = self.chain.partition_point(|(zxid, _)| *zxid <= applied);
            for (zxid, payload) in self.chain.range(new..upto) {
                stage.judge.committed(stage.now, *zxid, payload);
            }
        }
        stage.judge.holds(stage.now, self.at, self.replica.state());
    }

    /// Has the log read for the replica, once what was to be written before is written.
    fn go_on_replaying(&mut self, stage: &mut Stage) {
        let made = self.store.made;
        if let Some((replay, _)) = self.replay.take_if(|(_, after)| made >= *after) {
            self.replaying = Some(replay);
        }
        if self.replaying.is_some() && !std::mem::replace(&mut self.replay_called, true) {
            self.call(stage, stage.profile.replay, What::Replay);
        }
    }

    /// A piece of the log has been read: gives it to the replica.
    fn replay(&mut self, stage: &mut Stage) {
        self.replay_called = false;
        stage.judge.probes.hit(Probe::Replayed);
        let Some(replay) = self.replaying.take() else {
            return;
        };
        let piece = self.store.entries(replay.after, replay.upto, PIECE_BYTES);
        let entries = piece.unwrap_or_default();
        let last = entries.last().map_or(replay.upto, |entry| entry.zxid);
        if last < replay.upto {
            let after = last;
            self.replaying = Some(Replay { after, ..replay });
        }
        self.input(stage, |replica, now| {
            for entry in &entries {
                replica.on_replayed(now, entry);
            }
        });
    }

    /// Puts what the replica tells into the inboxes of the shards.
    fn post(&mut self, stage: &mut Stage) {
        let tells = self.replica.tells();
        if tells.iter().all(Vec::is_empty) {
            return;
        }
        self.batch += 1;
        let batch = self.batch;
        let lists: Vec<_> = tells.iter_mut().map(std::mem::take).collect();
        for (shard, tells) in lists.into_iter().enumerate() {
            if !tells.is_empty() {
                let more = false;
                self.mail[shard].push_back(Mail::Core { batch, tells, more });
                self.call_mail(stage, shard);
            }
        }
    }

    fn call_mail(&mut self, stage: &mut Stage, shard: usize) {
        if !std::mem::replace(&mut self.mail_called[shard], true) {
            self.call(stage, stage.profile.mail, What::Mail(shard as u8));
        }
    }

    /// A shard takes in its mail.
    fn read_mail(&mut self, stage: &mut Stage, shard: usize) {
        let now = self.clock.read(stage.now);
        while let Some(mail) = self.mail[shard].pop_front() {
            if let Mail::Core { tells, .. } = &mail {
                for tell in tells {
                    let times = (stage.now, now);
                    stage.judge.told(times, (self.at, shard as u16), tell);
                }
            }
            self.shards[shard].deliver(mail, now);
            self.carry(stage, shard);
        }
    }

    /// Carries away what a shard has to say.
    fn carry(&mut self, stage: &mut Stage, shard: usize) {
        loop {
            let outbox = self.shards[shard].outbox();
            let asks: Vec<Ask> = outbox.asks.drain(..).collect();
            let passes: Vec<(ShardIndex, Pass)> = outbox.passes.drain(..).collect();
            let woken = std::mem::take(&mut outbox.woken);
            for ask in asks {
                let times = (stage.now, self.clock.read(stage.now));
                stage.judge.asked(times, (self.at, shard as u16), &ask);
                self.inbox.push_back((shard as u16, ask));
                if !std::mem::replace(&mut self.core_called, true) {
                    self.call(stage, stage.profile.turn, What::Core);
                }
            }
            for (to, pass) in passes {
                self.mail[usize::from(to)].push_back(Mail::Shard(pass));
                self.call_mail(stage, usize::from(to));
            }
            if woken.is_empty() {
                return;
            }
            for conn in woken {
                self.attend(stage, shard, conn, Next::More);
            }
        }
    }

    /// A request has come. The shard reads its mail first: what is told is in every inbox before
    /// anybody hears of it.
    pub(super) fn receive(&mut self, stage: &mut Stage, number: u32) {
        let Some(request) = stage.requests.get_mut(&number) else {
            return;
        };
        let shard = usize::from(request.shard);
        request.arrived_us = stage.now;
        let (group, member) = &request.names;
        let state = self.replica.state();
        let session = state.session(group.as_bytes(), member.as_bytes());
        request.epoch = self.replica.peer().current_epoch();
        request.known = session;
        let bytes = std::mem::take(&mut request.bytes);
        self.read_mail(stage, shard);
        let now = self.clock.read(stage.now);
        let (free, count) = &mut self.places[shard];
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
        self.conns.insert((shard as u16, conn.key()), number);
        self.shards[shard].open(conn, now);
        let mut out = Vec::new();
        let next = self.shards[shard].receive(conn, &bytes, now, &mut out);
        self.answered(stage, shard, conn, &out);
        self.attend(stage, shard, conn, next);
        self.carry(stage, shard);
    }

    /// Does what is next with a connection.
    fn attend(&mut self, stage: &mut Stage, shard: usize, conn: ConnId, mut next: Next) {
        let now = self.clock.read(stage.now);
        while next == Next::More {
            let mut out = Vec::new();
            next = self.shards[shard].resume(conn, now, &mut out);
            self.answered(stage, shard, conn, &out);
        }
        if next == Next::Close {
            self.close(shard, conn);
        }
    }

    fn close(&mut self, shard: usize, conn: ConnId) {
        if self.conns.remove(&(shard as u16, conn.key())).is_some() {
            self.shards[shard].close(conn);
            self.places[shard].0.push(conn);
        }
    }

    /// A shard has sent bytes on a connection.
    fn answered(&mut self, stage: &mut Stage, shard: usize, conn: ConnId, bytes: &[u8]) {
        let Some(number) = self.conns.get(&(shard as u16, conn.key())).copied() else {
            return;
        };
        let Some(request) = stage.requests.get_mut(&number) else {
            return;
        };
        request.out.extend_from_slice(bytes);
        match http::read(request.ask, &request.out) {
            Err(what) => stage.judge.condemn(stage.now, what),
            Ok(None) => {}
            Ok(Some(answer)) => {
                request.answer = Some(answer.clone());
                let request = request.clone();
                let times = (stage.now, self.clock.read(stage.now));
                stage.judge.answered(times, &request, &answer);
                stage.after(stage.profile.way, Event::Reply { number });
                self.close(shard, conn);
            }
        }
    }

    fn shard_tick(&mut self, stage: &mut Stage, shard: u8) {
        let at = usize::from(shard);
        self.read_mail(stage, at);
        let now = self.clock.read(stage.now);
        stage.judge.turns(now, (self.at, shard.into()), STALL_MIN);
        if self.shards[at].needs_tick() {
            self.shards[at].tick(now, self.backlog == 0);
            self.carry(stage, at);
        }
        if self.shards[at].is_behind() {
            // Others have their turn first.
            let soon = stage.now + TURN_AGAIN_US;
            return stage.queue.put(soon, self.event(What::ShardTick(shard)));
        }
        self.plan_shard_tick(stage, shard);
    }

    fn plan_shard_tick(&mut self, stage: &mut Stage, shard: u8) {
        let next = self.clock.read(stage.now) + Millis(TICK_MS);
        let due = self.clock.when(next).max(stage.now);
        let due = due + stage.random.between(1, TICK_LATE_US);
        stage.queue.put(due, self.event(What::ShardTick(shard)));
    }

    fn tick(&mut self, stage: &mut Stage) {
        let now = self.clock.read(stage.now);
        if self.tick_at > stage.now {
            return; // An earlier tick has taken its place since.
        }
        self.tick_at = u64::MAX;
        self.tick_for = Millis(u64::MAX);
        if now >= self.replica.deadline() {
            self.replica.tick(now);
            self.settle(stage);
        } else {
            self.plan_tick(stage);
        }
    }

    /// Sees to it that a tick comes soon after the replica's deadline.
    fn plan_tick(&mut self, stage: &mut Stage) {
        let deadline = self.replica.deadline();
        if deadline >= self.tick_for {
            return;
        }
        let due = self.clock.when(deadline).max(stage.now);
        let due = due + stage.random.between(1, TICK_LATE_US);
        self.tick_for = deadline;
        self.tick_at = due;
        stage.queue.put(due, self.event(What::Tick));
    }

    fn snapshot_if_due(&mut self, stage: &mut Stage) {
        let every = stage.profile.snapshot_every;
        let enough = every > 0 && self.since_snapshot >= every;
        if enough && !self.snapshot_called && self.applied <= self.store.log.durable() {
            self.snapshot_called = true;
            self.call(stage, stage.profile.sync, What::Snapshot);
        }
    }

    fn take_snapshot(&mut self, stage: &mut Stage) {
        self.snapshot_called = false;
        let (zxid, mut snapshot) = self.replica.save();
        if zxid > self.store.log.durable() {
            return;
        }
        self.since_snapshot = 0;
        let mut content = Vec::new();
        while snapshot.write_into(&mut content, PIECE_BYTES) {}
        let Some(begins_after) = self.store.keep(zxid, &content) else {
            return;
        };
        self.input(stage, |replica, _| {
            replica.on_snapshot_taken(zxid);
            replica.on_trimmed(begins_after);
        });
    }

    fn call(&self, stage: &mut Stage, span: Span, what: What) {
        stage.after(span, self.event(what));
    }

    fn event(&self, what: What) -> Event {
        Event::Process {
            at: self.at as u8,
            run: self.run,
            what,
        }
    }
}

/// The shards of a server that starts.
fn shards(stage: &mut Stage, at: usize, now: Millis) -> Vec<Shard> {
    let count = stage.profile.shards;
    let registry = Registry {
        shards: (0..count)
            .map(|_| Arc::new(ShardCounters::default()))
            .collect(),
        core: Arc::new(CoreCounters::default()),
        latencies: Vec::new(),
    };
    let registry = Rc::new(registry);
    let shards = (0..count).map(|index| {
        let counters = Arc::clone(&registry.shards[usize::from(index)]);
        let seeds = std::array::from_fn(|_| stage.random.any());
        let settings = ShardSettings {
            index,
            shards: count,
            server: ServerId(at as u32 + 1),
            default_timeout: GROUP.default_timeout,
            min_timeout: MIN_TIMEOUT,
            max_timeout: Millis(86_400_000),
            lease: stage.profile.lease,
            sessions_max: 40_000,
            asks_max: 1_000,
            changes_max: 1_000,
            http: crate::http::Limits::default(),
            pipelined_max: 16,
            watchers_max: 1_000,
            output_bytes_max: 1 << 20,
            request_timeout: Millis(10_000),
            idle_timeout: Millis(300_000),
            stall_min: STALL_MIN,
            started_s: 0,
        };
        let registry = Rc::clone(&registry);
        let mut shard = Shard::new(settings, seeds, counters, Latencies::new(), registry, now);
        shard.plant(stage.plants.shard);
        shard.expire_in_pieces(stage.profile.adopt_limit as usize);
        shard
    });
    shards.collect()
}

/// A shard that has its turn later than this was kept from it.
const STALL_MIN: Millis = Millis(50);
/// How late a timer may be, µs.
const TICK_LATE_US: u64 = 800;
/// How soon a shard that is behind has its next turn, µs.
const TURN_AGAIN_US: u64 = 300;
/// How much of a snapshot is written at a time, bytes.
const PIECE_BYTES: usize = 4_096;
/// The shortest timeout.
pub(super) const MIN_TIMEOUT: Millis = Millis(100);
/// The state's settings, the ghost's included.
pub(super) const GROUP: GroupSettings = GroupSettings {
    default_timeout: Millis(10_000),
    seeds: [1, 2, 3, 4],
};
