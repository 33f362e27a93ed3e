//! One server of the world: a real peer, a real log on a simulated disk, and a small
//! application, with everything between them slow, interruptible and in pieces.
//!
//! It carries out what the peer's [`Ready`] asks for as the runtime does, but each write, each
//! begin and end of a sync, and each report is an event of its own, so that anything may happen
//! in between.

mod deliver;
mod power;
mod snapshot;
mod speak;
mod write;

use std::collections::VecDeque;
use std::io;

use super::app::App;
use super::clock::Clock;
use super::disk::{SimDisk, SimFlush};
use super::net::id_of;
use super::observe::{Observation, Stop};
use super::probes::Probe;
use super::random::Span;
use super::stage::{Event, Fallen, HostEvent, Stage};
use crate::log::{Log, SnapshotReceiver, SyncTicket, TrimJob};
use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{Fault, Peer, Persisted, Phase, Plants, Read, Ready, Why, Write};

use deliver::Waiting;
use snapshot::OwnSnapshot;

/// A server, running or not, with its disk and its clock.
pub struct Host {
    /// Its index.
    pub at: usize,
    /// The process, while it runs.
    pub server: Option<Box<Server>>,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: Clock,
    /// Counts its runs: an event of another run is stale.
    pub run: u32,
    /// How many faults pause it at present; what should happen then waits in `deferred`.
    pub pauses: u32,
    /// What waits for the end of the pause.
    pub deferred: Vec<Event>,
    /// How many faults make its disk slow, and how many make it stuck.
    pub slow: u32,
    /// See `slow`.
    pub stuck: u32,
    /// Since when a write waits for the disk.
    pub waits_since: Option<u64>,
    /// When it was last paused or stopped.
    pub absent_at: u64,
    /// Reports that a stopped run had not been given; for a plant.
    left_over: VecDeque<Persisted>,
    /// What waits for the disk.
    pub stuck_events: Vec<HostEvent>,
    /// True from a loss of its data until it has been given it again.
    pub blank: bool,
    /// True if bits of its disk were flipped since its last start.
    pub damaged: bool,
    /// True from when its history is being set aside until that has come to an end.
    pub setting_aside: bool,
    /// The last transaction it was told is durable; more may be.
    pub durable: Zxid,
    /// The last durable transaction when it stopped.
    pub durable_at_stop: Zxid,
    /// True if it had taken over a history when it stopped.
    pub entered_at_stop: bool,
    /// How it stopped last.
    pub stopped: Option<Stop>,
    /// By peer: the newest connection it was told of.
    told: Vec<u32>,
}

/// A running server.
pub struct Server {
    /// The core.
    pub peer: Peer,
    /// The log.
    pub log: Log<SimDisk>,
    /// The application.
    pub app: App,
    ready: Ready,
    /// Writes asked for and not made.
    writes: VecDeque<Write>,
    writing: bool,
    /// Installations asked for and not made: until then the peer is ahead of its disk.
    installing: u32,
    /// How many writes were asked for, and how many were made.
    asked: u64,
    made: u64,
    sync: Sync,
    /// Finished writes of which the peer is not told yet.
    reports: VecDeque<Persisted>,
    last_report: u64,
    reads: VecDeque<Read>,
    /// What the application is still to be given.
    waiting: VecDeque<Waiting>,
    receiver: Option<SnapshotReceiver<SimDisk>>,
    /// What it has received so far.
    received: Vec<u8>,
    snapshot: Option<OwnSnapshot>,
    /// The count of deliveries at the last snapshot.
    snapshot_at: u64,
    trims: VecDeque<TrimJob<SimDisk>>,
    preparing: bool,
    /// When the next tick is due that counts, and the deadline it is for.
    tick_at: u64,
    tick_for: Millis,
    /// The epoch it has been established for in this run.
    led: Epoch,
    phase: Phase,
    committed: Zxid,
}

/// Where the one sync of a log stands.
enum Sync {
    /// Nothing is to be synced.
    Idle,
    /// A sync will be asked for.
    Coming,
    /// It has been asked for.
    Out(SyncTicket<SimFlush>),
    /// The disk has done it, or not; the log does not know yet.
    Done(SyncTicket<SimFlush>, io::Result<()>),
}

impl Host {
    /// A server that has never run, on an empty disk.
    #[must_use]
    pub fn new(at: usize, disk: SimDisk, clock: Clock, servers: usize) -> Host {
        Host {
            at,
            server: None,
            disk,
            clock,
            run: 0,
            pauses: 0,
            deferred: Vec::new(),
            slow: 0,
            stuck: 0,
            waits_since: None,
            absent_at: 0,
            left_over: VecDeque::new(),
            stuck_events: Vec::new(),
            blank: false,
            damaged: false,
            setting_aside: false,
            durable: Zxid::ZERO,
            durable_at_stop: Zxid::ZERO,
            entered_at_stop: false,
            stopped: None,
            told: vec![0; servers],
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ServerId {
        id_of(self.at)
    }

    /// What its clock reads.
    #[must_use]
    pub fn time(&self, stage: &Stage) -> Millis {
        self.clock.read(stage.now)
    }

    /// True if it runs and is the established leader, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.phase() == Some(Phase::Leading)
    }

    /// Where it stands, if it runs.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.server.as_ref().map(|server| server.peer.phase())
    }

    /// Lets something happen within it.
    pub fn handle(&mut self, stage: &mut Stage, what: HostEvent) {
        if self.server.is_none() {
            return;
        }
        let disk_event = !matches!(what, HostEvent::Tick | HostEvent::Report);
        if disk_event && self.stuck > 0 {
            if matches!(
                what,
                HostEvent::Write | HostEvent::SyncRun | HostEvent::SyncEnd
            ) {
                self.waits_since.get_or_insert(stage.now);
            }
            self.stuck_events.push(what);
            return;
        }
        match what {
            HostEvent::Tick => self.tick(stage),
            HostEvent::Write => self.write_next(stage),
            HostEvent::SyncBegin => self.begin_sync(stage),
            HostEvent::SyncRun => self.run_sync(stage),
            HostEvent::SyncEnd => self.end_sync(stage),
            HostEvent::Report => self.report_next(stage),
            HostEvent::Read => self.answer_read(stage),
            HostEvent::Snapshot => self.continue_snapshot(stage),
            HostEvent::Trim => self.run_trim(stage),
            HostEvent::Prepare => self.run_prepare(stage),
        }
        if self.disk.crashed() {
            stage.probes.hit(Probe::CrashInWrite);
            self.lose_power(stage);
        }
    }

    /// Tells it of a connection.
    pub fn notice(&mut self, stage: &mut Stage, peer: usize, generation: u32, up: bool) {
        if self.server.is_none() || generation < self.told[peer] {
            return;
        }
        if up {
            self.told[peer] = generation;
            self.input(stage, |core, now| core.on_connected(now, id_of(peer)));
        } else {
            self.input(stage, |core, now| core.on_disconnected(now, id_of(peer)));
        }
    }

    /// Gives the peer an input and carries out what it asks for.
    pub fn input(&mut self, stage: &mut Stage, give: impl FnOnce(&mut Peer, Millis)) {
        let now = self.time(stage);
        let Some(server) = &mut self.server else {
            return;
        };
        give(&mut server.peer, now);
        self.settle(stage);
    }

    /// Ends the process. Its disk is left as it is: see [`Host::lose_power`].
    pub fn stop(&mut self, stage: &mut Stage, how: Stop, down: Span) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        stage.probes.hit(match server.peer.phase() {
            Phase::Looking => Probe::CrashLooking,
            Phase::Discovery => Probe::CrashDiscovery,
            Phase::Synchronization => Probe::CrashSynchronization,
            Phase::Leading => Probe::CrashLeading,
            Phase::Following | Phase::Observing | Phase::Fenced => Probe::CrashFollowing,
        });
        if server.peer.phase() == Phase::Leading && server.peer.in_flight() > 0 {
            stage.probes.hit(Probe::FellInFlight);
        }
        self.durable_at_stop = server.log.durable();
        self.entered_at_stop = server.log.epochs().current > Epoch(0);
        self.stopped = Some(how);
        self.told.fill(0);
        self.stuck_events.clear();
        self.waits_since = None;
        self.absent_at = stage.now;
        self.left_over = std::mem::take(&mut server.reports);
        // What waits for a paused process dies with it, but for the messages: their slots
        // are given back when they come.
        self.deferred
            .retain(|event| !matches!(event, Event::Host { .. }));
        let server_id = self.id();
        drop(server);
        stage.see(Observation::Stopped {
            server: server_id,
            how,
        });
        stage.fallen.push(Fallen { at: self.at, down });
    }

    /// Carries out everything the peer asks for.
    fn settle(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        let mut ready = std::mem::take(&mut server.ready);
        ready.clear();
        server.peer.ready(&mut ready);
        let installs = |write: &&Write| matches!(write, Write::SnapshotEnd(_));
        server.installing += ready.writes.iter().filter(installs).count() as u32;
        self.note_standing(stage);
        if !ready.is_empty() {
            self.carry_out(stage, &mut ready);
        }
        if let Some(server) = &mut self.server {
            server.ready = ready;
        }
        self.plan_tick(stage);
    }

    fn carry_out(&mut self, stage: &mut Stage, ready: &mut Ready) {
        self.take_writes(stage, ready);
        self.send_all(stage, ready);
        self.take_reads(stage, ready);
        self.take_deliveries(ready);
        self.pump(stage);
        self.take_payloads(stage, ready);
        if let Some(fault) = &ready.fenced {
            let lied_to = stage.deceived == Some(self.at);
            let in_order = match fault {
                Fault::WriteFailed => true,
                Fault::CommittedWouldBeLost { .. } => lied_to,
                _ => false,
            };
            if !in_order {
                let what = format!("server {} withdraws: {fault}", self.id());
                stage.judge.condemn(stage.now, what);
            }
            self.stop(stage, Stop::Fenced, FENCED_DOWN);
            self.restart_process();
        }
    }

    /// Tells the judge what has changed in the peer's own view.
    fn note_standing(&mut self, stage: &mut Stage) {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return;
        };
        let (phase, committed) = (server.peer.phase(), server.peer.committed());
        stage
            .judge
            .mix((phase as u64) << 56 ^ committed.epoch.0 << 40 ^ committed.counter);
        if phase != server.phase {
            let before = std::mem::replace(&mut server.phase, phase);
            let epoch = server.peer.current_epoch();
            stage.probes.hit(match (before, phase) {
                (Phase::Leading, _) => Probe::DeposedLeading,
                (Phase::Following, _) => Probe::FollowerLost,
                (Phase::Discovery, Phase::Looking) => Probe::FailedDiscovery,
                (Phase::Synchronization, Phase::Looking) => Probe::FailedSynchronization,
                (_, Phase::Leading) => Probe::Established,
                (_, Phase::Observing) => Probe::Observing,
                _ => Probe::PhaseChange,
            });
            if before == Phase::Leading {
                if server.peer.in_flight() > 0 {
                    stage.probes.hit(Probe::FellInFlight);
                }
                stage.see(Observation::Deposed {
                    server: id,
                    epoch: server.led,
                });
            }
            stage.see(Observation::Entered {
                server: id,
                phase,
                epoch,
            });
            if phase == Phase::Looking {
                stage.probes.hit(probe_of(server.peer.why()));
            }
            stage.entered = Some(self.at);
            if phase == Phase::Leading {
                server.led = epoch;
                stage.see(Observation::Established { server: id, epoch });
            }
        }
        if committed > server.committed && server.installing == 0 {
            server.committed = committed;
            if server.snapshot.is_some() {
                stage.probes.hit(Probe::SnapshotDuringCommits);
            }
            stage.see(Observation::Committed {
                server: id,
                upto: committed,
            });
        }
    }

    fn tick(&mut self, stage: &mut Stage) {
        let now = self.time(stage);
        let Some(server) = &mut self.server else {
            return;
        };
        if server.tick_at > stage.now {
            return; // An earlier tick has taken its place since.
        }
        server.tick_at = u64::MAX;
        server.tick_for = Millis(u64::MAX);
        if now >= server.peer.deadline() {
            server.peer.tick(now);
            // A plant may take away what a deadline is for.
            if server.peer.deadline() <= now && stage.planted.core == Plants::NONE {
                let what = format!("server {} would be ticked again at once", self.id());
                stage.judge.condemn(stage.now, what);
            }
            self.settle(stage);
        } else {
            self.plan_tick(stage);
        }
    }

    /// Sees to it that a tick comes soon after the peer's deadline.
    fn plan_tick(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        let deadline = server.peer.deadline();
        if deadline >= server.tick_for {
            return;
        }
        // A timer is late by a little, never early.
        let due = self.clock.when(deadline).max(stage.now);
        let due = due + stage.random.between(1, TICK_LATE_US);
        server.tick_for = deadline;
        server.tick_at = due;
        let event = self.event(HostEvent::Tick);
        stage.queue.put(due, event);
    }

    /// The event `what` of this run.
    fn event(&self, what: HostEvent) -> Event {
        Event::Host {
            at: self.at as u8,
            run: self.run,
            what,
        }
    }

    fn after(&self, stage: &mut Stage, span: Span, what: HostEvent) {
        stage.after(span, self.event(what));
    }
}

fn probe_of(why: Why) -> Probe {
    match why {
        Why::Started => Probe::PhaseChange,
        Why::NoQuorum => Probe::NoQuorum,
        Why::InitLimit => Probe::InitLimit,
        Why::DiskStuck => Probe::Abdicated,
        Why::MoreRecentFollower => Probe::MoreRecentFollower,
        Why::NewerEpoch => Probe::NewerEpoch,
        Why::CounterSpent => Probe::NewEpochByCounter,
        Why::LeaderSilent => Probe::LeaderSilent,
        Why::LeaderLost => Probe::LeaderLost,
        Why::LeaderLooks => Probe::LeaderLooks,
        Why::Closed => Probe::Closed,
        Why::Gap => Probe::Gap,
        // The leader lets go of whom it cannot lead before that one notices.
        Why::LowerEpoch | Why::Nonsense => Probe::PhaseChange,
    }
}

/// How late a timer may be, µs.
const TICK_LATE_US: u64 = 800;

/// How long a server stays down that has fenced itself.
const FENCED_DOWN: Span = Span::new(10_000, 2_000_000);
