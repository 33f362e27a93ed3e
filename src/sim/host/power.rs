//! Starting and losing power.

use std::collections::VecDeque;
use std::io::Read as _;

use super::super::app::App;
use super::super::clock::Clock;
use super::super::disk::Plan;
use super::super::observe::{self, Observation, Stop};
use super::super::plants::HostPlant;
use super::super::probes::Probe;
use super::super::random::Span;
use super::super::stage::{Fallen, HostEvent, Stage};
use super::{Host, Server, SimDisk, Sync};
use crate::log::disk::Disk as _;
use crate::log::{Corruption, Log, OpenError, Recovered, Settings as LogSettings};
use crate::time::Millis;
use crate::types::{Epoch, Incarnation, Zxid};
use crate::zab::{Boot, Peer, Phase, Ready, Settings, Summary};

impl Host {
    /// Starts the process: opens the log as production does, and begins to look for a leader.
    /// A start that fails on its disk is tried again later.
    pub fn start(&mut self, stage: &mut Stage, settings: Settings) {
        assert!(self.server.is_none(), "a server runs once at a time");
        self.run += 1;
        let log_settings = LogSettings {
            segment_bytes: stage.profile.segment_bytes,
            salt: stage.random.any(),
            snapshot_is_enough: false,
        };
        match self.open(stage, log_settings) {
            Ok((log, recovered, app)) => self.run_peer(stage, settings, log, recovered, app),
            Err(error) => {
                if stage.judge.is_tracing() {
                    let id = self.id();
                    stage
                        .judge
                        .trace(stage.now, format_args!("{id} cannot start: {error}"));
                }
                stage.probes.hit(Probe::StartFailed);
                if self.disk.crashed() {
                    self.cycle_power(stage);
                } else {
                    self.restart_process();
                }
                stage.fallen.push(Fallen {
                    at: self.at,
                    down: RETRY_START,
                });
            }
        }
    }

    /// Power is lost: the process ends, and the disk keeps what it keeps.
    pub fn lose_power(&mut self, stage: &mut Stage) {
        stage.probes.hit(Probe::PowerLost);
        self.stop(stage, Stop::PowerLost, POWER_DOWN);
        self.cycle_power(stage);
    }

    /// The process is killed: the system's cache stays.
    pub fn kill(&mut self, stage: &mut Stage) {
        stage.probes.hit(Probe::Killed);
        self.stop(stage, Stop::Killed, KILLED_DOWN);
        self.restart_process();
    }

    /// The disk as the next process finds it.
    pub(super) fn restart_process(&mut self) {
        self.disk = self.disk.kill(self.lasting_plan());
    }

    fn cycle_power(&mut self, stage: &mut Stage) {
        self.disk = self.disk.power_cycle(self.lasting_plan());
        // A machine's monotonic clock begins anew with the machine.
        let drift = match stage.profile.drift {
            true => stage.random.below(2_001) as i64 - 1_000,
            false => 0,
        };
        let reading = stage.random.below(10_000_000);
        self.clock = Clock::new(stage.now, reading, drift);
    }

    /// What goes wrong with the disk however often the server starts: there is no room.
    fn lasting_plan(&self) -> Plan {
        Plan {
            capacity: self.disk.plan().capacity,
            ..Plan::default()
        }
    }

    /// Takes back everything that was to go wrong with the disk.
    pub fn relieve_disk(&mut self) {
        self.disk.set_capacity(None);
        self.disk.crash_after(NEVER);
        self.disk.fail_after(NEVER);
    }

    fn open(&mut self, stage: &mut Stage, settings: LogSettings) -> Result<Opened, OpenError> {
        let mut opened = Log::open(self.disk.clone(), settings);
        if let Err(OpenError::Corrupt { corruption, .. }) = &opened
            && stage.planted.has(HostPlant::CutsDamage)
        {
            cut_off(&self.disk, corruption);
            opened = Log::open(self.disk.clone(), settings);
        }
        let opened = match opened {
            Err(OpenError::Corrupt { .. }) if self.damaged => {
                stage.probes.hit(Probe::SetAside);
                // If this is interrupted, the next start may do the rest.
                self.setting_aside = true;
                crate::log::set_aside(&self.disk, Incarnation(0))?;
                Log::open(self.disk.clone(), settings)
            }
            opened => opened,
        };
        if let Err(OpenError::Corrupt { corruption, .. }) = &opened {
            let id = self.id();
            let what = format!("server {id} finds damage that nobody did: {corruption}");
            stage.judge.condemn(stage.now, what);
        }
        let (mut log, recovered) = opened?;
        if self.setting_aside && log.epochs().current == Epoch(0) {
            stage.see(Observation::SetAside { server: self.id() });
            self.setting_aside = false;
            self.blank = true;
        }
        log.next_incarnation().map_err(|fatal| OpenError::Io {
            dir: "the simulated disk".into(),
            doing: "raise the incarnation".into(),
            source: std::io::Error::other(fatal.to_string()),
        })?;
        let app = match recovered.snapshot {
            None => App::default(),
            Some(zxid) => read_snapshot(&log, zxid).unwrap_or_else(|| {
                let what = format!("server {} cannot read its snapshot {zxid}", self.id());
                stage.judge.condemn(stage.now, what);
                App::default()
            }),
        };
        self.damaged = false;
        Ok((log, recovered, app))
    }

    fn run_peer(
        &mut self,
        stage: &mut Stage,
        settings: Settings,
        log: Log<super::SimDisk>,
        recovered: Recovered,
        app: App,
    ) {
        let epochs = log.epochs();
        self.durable = recovered.last;
        self.note_recovery(stage, &recovered);
        let history = log.history().clone();
        let forgets = stage.planted.has(HostPlant::ForgetsEpochs) && stage.random.chance(200_000);
        let boot = Boot {
            accepted_epoch: epochs.accepted,
            current_epoch: if forgets { Epoch(0) } else { epochs.current },
            history: Summary {
                base: history.base,
                ends: history.ends,
            },
            snapshot: recovered.snapshot,
            delivered: app.applied,
            nonce: match stage.planted.has(HostPlant::SameNonce) {
                true => 7,
                false => stage.random.any(),
            },
        };
        stage.see(Observation::Started {
            server: self.id(),
            boot: observe::Boot {
                accepted: epochs.accepted,
                current: epochs.current,
                begins_after: log.begins_after(),
                last: recovered.last,
                snapshot: recovered.snapshot,
                applied: app.applied,
                digest: app.digest,
            },
        });
        let restored = stage.judge.oracle.restored(&app);
        stage.judge.check(stage.now, restored);
        self.server = Some(Box::new(Server {
            peer: Peer::new(settings, boot),
            log,
            app,
            ready: Ready::default(),
            writes: VecDeque::new(),
            writing: false,
            installing: 0,
            asked: 0,
            made: 0,
            sync: Sync::Idle,
            reports: VecDeque::new(),
            last_report: 0,
            reads: VecDeque::new(),
            waiting: VecDeque::new(),
            receiver: None,
            received: Vec::new(),
            snapshot: None,
            snapshot_at: app.count,
            trims: VecDeque::new(),
            preparing: false,
            tick_at: u64::MAX,
            tick_for: Millis(u64::MAX),
            led: Epoch(0),
            phase: Phase::Looking,
            committed: Zxid::ZERO,
        }));
        self.input(stage, |peer, now| peer.start(now));
        if stage.planted.has(HostPlant::ReportsAcrossRuns)
            && let Some(server) = &mut self.server
        {
            server.reports = std::mem::take(&mut self.left_over);
            for _ in 0..server.reports.len() {
                let event = self.event(HostEvent::Report);
                stage.queue.put(stage.now, event);
            }
        }
    }

    fn note_recovery(&mut self, stage: &mut Stage, recovered: &Recovered) {
        if recovered.cut.is_some() {
            stage.probes.hit(Probe::TornTail);
        }
        if self.stopped == Some(Stop::PowerLost) && recovered.last > self.durable_at_stop {
            stage.probes.hit(Probe::UnsyncedSurvived);
        }
    }

    /// Demands that a server whose disk has finished no write for long does not lead: its log is
    /// stuck although its pings flow.
    fn check_abdication(&self, stage: &mut Stage) {
        let timing = stage.profile.timing;
        let patience_us = (timing.disk_limit.0 + 3 * timing.ping.0) * 1_000 + PATIENCE_US;
        let since = self.waits_since.unwrap_or(stage.now).max(self.absent_at);
        if self.leads() && self.pauses == 0 && since + patience_us < stage.now {
            let waited_ms = (stage.now - since) / 1_000;
            let id = self.id();
            let what = format!("server {id} leads on with a disk that is stuck for {waited_ms} ms");
            stage.judge.condemn(stage.now, what);
        }
    }

    /// Time stands still for the disk no longer: what waited for it goes on.
    pub fn unstick(&mut self, stage: &mut Stage) {
        self.check_abdication(stage);
        self.waits_since = None;
        for what in std::mem::take(&mut self.stuck_events) {
            self.after(stage, UNSTUCK, what);
        }
    }

    /// How much slower the disk is than it should be.
    pub(super) fn slowness(&self) -> u64 {
        if self.slow > 0 { SLOW_TIMES } else { 1 }
    }

    pub(super) fn on_disk(&self, stage: &mut Stage, span: Span, what: HostEvent) {
        self.after(stage, span.times(self.slowness()), what);
    }
}

/// A log that is open, what its start found, and the application's state as of its snapshot.
type Opened = (Log<super::SimDisk>, Recovered, App);

/// The application's state in a snapshot.
pub(super) fn read_snapshot(log: &Log<super::SimDisk>, zxid: Zxid) -> Option<App> {
    let mut bytes = Vec::new();
    let mut reader = log.open_snapshot(zxid).ok()?;
    reader.read_to_end(&mut bytes).ok()?;
    App::restore(&bytes).filter(|app| app.applied == zxid)
}

/// Leaves nothing of a log from where it is damaged; for a plant.
fn cut_off(disk: &SimDisk, damage: &Corruption) {
    let names = disk.list().unwrap_or_default();
    let segments = || names.iter().filter(|name| name.starts_with("segment-"));
    for name in segments().filter(|name| **name == damage.file) {
        let mut bytes = disk.bytes(name);
        let from = bytes.len().min(damage.offset as usize);
        bytes[from..].fill(0);
        disk.put(name, &bytes);
    }
    for name in segments().filter(|name| **name > damage.file) {
        // What cannot be removed is found to be damaged again.
        let _ = disk.remove(name);
    }
}

/// How long a server stays down that lost power.
const POWER_DOWN: Span = Span::new(5_000, 3_000_000);
/// How long one that was killed.
const KILLED_DOWN: Span = Span::new(1_000, 1_500_000);
/// How long until a start that failed is tried again.
const RETRY_START: Span = Span::new(50_000, 500_000);
/// How soon the disk's arrears are made up.
const UNSTUCK: Span = Span::new(1, 50);
/// How much later than by its own clock a leader may abdicate, µs: timers are late, and clocks
/// drift.
const PATIENCE_US: u64 = 100_000;
/// More events than any disk sees.
const NEVER: u64 = 1 << 60;
/// How much slower a slow disk is.
const SLOW_TIMES: u64 = 40;
