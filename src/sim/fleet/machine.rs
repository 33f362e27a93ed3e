//! A server with its disk and its clock, running or not.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;

use super::super::clock::Clock;
use super::super::disk::{Plan, SimDisk};
use super::super::net::id_of;
use super::super::random::Span;
use super::server::{GROUP, MIN_TIMEOUT, Server};
use super::stage::{Event, Stage};
use super::store::Store;
use crate::group::{Restore, State};
use crate::log::{Log, Recovered, Settings as LogSettings};
use crate::metrics::CoreCounters;
use crate::replica::{Replica, Settings as ReplicaSettings};
use crate::types::Zxid;
use crate::zab::{Boot, Ensemble, Limits, Plants, Settings as ZabSettings, Summary};

/// A machine.
pub(super) struct Machine {
    pub(super) at: usize,
    pub(super) server: Option<Box<Server>>,
    disk: SimDisk,
    pub(super) clock: Clock,
    /// Counts its runs: an event of another run is stale.
    pub(super) run: u32,
    /// How many faults pause it; what should happen then waits in `deferred`.
    pub(super) pauses: u32,
    pub(super) deferred: Vec<Event>,
    /// By shard: how many faults keep it from its turns, and what waits for them.
    pub(super) stalls: Vec<(u32, Vec<Event>)>,
    /// By peer: the newest connection it was told of.
    told: Vec<u32>,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The process is killed; the system's cache stays.
    Killed,
    /// Power is lost, and the clock begins anew.
    PowerLost,
    /// The disk is lost.
    Wiped,
}

impl Machine {
    pub(super) fn new(stage: &mut Stage, at: usize, servers: usize) -> Machine {
        let disk = SimDisk::new(stage.random.any(), Plan::default());
        Machine {
            at,
            server: None,
            disk,
            clock: clock(stage, 1_000_000_000),
            run: 0,
            pauses: 0,
            deferred: Vec::new(),
            stalls: vec![(0, Vec::new()); usize::from(stage.profile.shards)],
            told: vec![0; servers],
        }
    }

    /// Before the first start: the disk holds a snapshot of this state.
    pub(super) fn remembers(&mut self, stage: &Stage, state: &State) {
        let settings = LogSettings {
            segment_bytes: stage.profile.segment_bytes,
            salt: 1,
            snapshot_is_enough: false,
        };
        let sound = "a new disk is sound";
        let (mut log, _) = Log::open(self.disk.clone(), settings).expect(sound);
        let zxid = state.applied();
        log.set_accepted_epoch(zxid.epoch).expect(sound);
        log.set_current_epoch(zxid.epoch).expect(sound);
        let mut snapshot = state.snapshot();
        let mut content = Vec::new();
        while snapshot.write_into(&mut content, usize::MAX) {}
        let mut receiver = log.snapshot_receiver(zxid).expect(sound);
        receiver.write_all(&content).expect(sound);
        log.install_snapshot(receiver).expect(sound);
        log.close().expect(sound);
    }

    /// Starts the process, as production does: the newest snapshot is restored, and what follows
    /// it is replayed once it is known to be committed.
    pub(super) fn start(&mut self, stage: &mut Stage, ensemble: &Ensemble) {
        assert!(self.server.is_none(), "a server runs once at a time");
        self.run += 1;
        let settings = LogSettings {
            segment_bytes: stage.profile.segment_bytes,
            salt: stage.random.any(),
            snapshot_is_enough: false,
        };
        let (log, recovered) = match Log::open(self.disk.clone(), settings) {
            Ok(opened) => opened,
            Err(error) => {
                let what = format!("server {} cannot start: {error}", self.at + 1);
                return stage.judge.condemn(stage.now, what);
            }
        };
        let store = Store::new(log);
        let Some((state, chain)) = recover(&store, &recovered) else {
            let what = format!("server {} cannot read what it wrote", self.at + 1);
            return stage.judge.condemn(stage.now, what);
        };
        let replica = self.replica(stage, ensemble, &store, &recovered, state);
        stage.judge.started(self.at);
        let id = self.at + 1;
        stage.judge.trace(stage.now, || format!("{id} starts"));
        let place = (self.at, self.run);
        let server = Server::new(place, self.clock, replica, store, chain, stage);
        self.server = Some(Box::new(server));
    }

    fn replica(
        &self,
        stage: &mut Stage,
        ensemble: &Ensemble,
        store: &Store,
        recovered: &Recovered,
        state: State,
    ) -> Replica {
        let epochs = store.log.epochs();
        let history = store.log.history().clone();
        let boot = Boot {
            accepted_epoch: epochs.accepted,
            current_epoch: epochs.current,
            history: Summary {
                base: history.base,
                ends: history.ends,
            },
            snapshot: recovered.snapshot,
            delivered: state.applied(),
            nonce: stage.random.any(),
        };
        let zab = ZabSettings {
            id: id_of(self.at),
            ensemble: ensemble.clone(),
            timing: stage.profile.timing,
            limits: Limits {
                unacknowledged_max: stage.profile.unacknowledged_max,
                ..Limits::DEFAULT
            },
            plants: Plants::NONE,
        };
        let settings = ReplicaSettings {
            id: id_of(self.at),
            shards: stage.profile.shards,
            endpoint: format!("server{}:8640", self.at + 1),
            wall_s: 1_700_000_000 + (stage.now / 1_000_000) as u32,
            lease: stage.profile.lease,
            min_timeout: MIN_TIMEOUT,
            seeds: std::array::from_fn(|_| stage.random.any()),
            requests_max: 10_000,
        };
        let counters = Arc::new(CoreCounters::default());
        let mut replica = Replica::new(settings, zab, boot, state, GROUP, counters);
        let planted = stage.plants;
        replica.plant(planted.replica, planted.lease, planted.group);
        replica.adopt_in_pieces(stage.profile.adopt_limit);
        replica
    }

    /// Ends the process.
    pub(super) fn stop(&mut self, stage: &mut Stage, how: Stop) {
        if self.server.take().is_none() {
            return;
        }
        let id = self.at + 1;
        stage
            .judge
            .trace(stage.now, || format!("{id} stops: {how:?}"));
        self.told.fill(0);
        // What waits for a paused process dies with it, but for the messages: their slots are
        // given back when they come.
        self.deferred
            .retain(|event| matches!(event, Event::Deliver { .. }));
        self.stalls
            .iter_mut()
            .for_each(|(_, waiting)| waiting.clear());
        match how {
            Stop::Killed => self.disk = self.disk.kill(Plan::default()),
            Stop::PowerLost => {
                self.disk = self.disk.power_cycle(Plan::default());
                self.clock = clock(stage, 10_000_000);
            }
            Stop::Wiped => {
                self.disk = self.disk.wipe(Plan::default());
                self.clock = clock(stage, 10_000_000);
            }
        }
    }

    /// Goes on after a pause: what waited happens now, in its order.
    pub(super) fn resume(&mut self, stage: &mut Stage) {
        self.pauses -= 1;
        if self.pauses > 0 {
            return;
        }
        let deferred = std::mem::take(&mut self.deferred);
        self.wake(stage, deferred);
    }

    /// The shard at which this happens is kept from its turns: it happens after that.
    pub(super) fn stalled(&mut self, shard: u16, event: Event) -> bool {
        let (stalls, waiting) = &mut self.stalls[usize::from(shard)];
        if *stalls > 0 {
            waiting.push(event);
        }
        *stalls > 0
    }

    /// A shard has its turns again.
    pub(super) fn go_on(&mut self, stage: &mut Stage, shard: u16) {
        let (stalls, waiting) = &mut self.stalls[usize::from(shard)];
        *stalls -= 1;
        if *stalls == 0 {
            let waiting = std::mem::take(waiting);
            self.wake(stage, waiting);
        }
    }

    /// What has waited happens soon; requests are unread input until then.
    fn wake(&mut self, stage: &mut Stage, deferred: Vec<Event>) {
        let requests = deferred
            .iter()
            .filter(|event| matches!(event, Event::Request { .. }));
        if let Some(server) = &mut self.server {
            server.backlog += requests.count() as u32;
        }
        let mut due = stage.now;
        for event in deferred {
            due = due.max(stage.now + stage.random.span(WAKES));
            stage.queue.put(due, event);
        }
    }

    /// Tells it of a connection.
    pub(super) fn notice(&mut self, stage: &mut Stage, peer: usize, generation: u32, up: bool) {
        let told = &mut self.told[peer];
        let Some(server) = &mut self.server else {
            return;
        };
        if generation < *told {
            return;
        }
        if up {
            *told = generation;
            server.input(stage, |replica, now| replica.on_connected(now, id_of(peer)));
        } else {
            server.input(stage, |replica, now| {
                replica.on_disconnected(now, id_of(peer));
            });
        }
    }

    /// True if it is the established leader, as far as it knows.
    pub(super) fn leads(&self) -> bool {
        self.server
            .as_ref()
            .is_some_and(|server| server.replica.leads())
    }
}

type Chain = VecDeque<(Zxid, Arc<[u8]>)>;

/// The state of the newest snapshot, and the history behind it.
fn recover(store: &Store, recovered: &Recovered) -> Option<(State, Chain)> {
    let (state, after) = match recovered.snapshot {
        None => (State::new(GROUP), Zxid::ZERO),
        Some(zxid) => {
            let content = store.snapshot(zxid)?;
            let mut restore = Restore::new(GROUP);
            restore.feed(&content).ok()?;
            (restore.finish().ok()?, zxid)
        }
    };
    let entries = store.entries(after, recovered.last, usize::MAX)?;
    let chain = entries.into_iter().map(|entry| (entry.zxid, entry.payload));
    Some((state, chain.collect()))
}

/// A clock that drifts as far as it may, mostly, and reads less than `before_us`.
fn clock(stage: &mut Stage, before_us: u64) -> Clock {
    let random = &mut stage.random;
    let any = random.below(2_001) as i64 - 1_000;
    let drift = random.pick(&[-1_000, 1_000, any]);
    Clock::new(stage.now, random.below(before_us), drift)
}

/// How soon what waited for the end of a pause happens.
const WAKES: Span = Span::new(1, 3_000);
