//! What goes wrong, when, and for how long.

use super::disk::{Plan, SimDisk};
use super::host::Host;
use super::observe::{Observation, Stop};
use super::plants::HostPlant;
use super::probes::Probe;
use super::random::Span;
use super::stage::{Event, Stage};
use crate::log::{Log, Settings as LogSettings};
use crate::types::{Epoch, Zxid};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A server loses power.
    Crash,
    /// A server loses power within one of its next writes.
    CrashInWrite,
    /// A process is killed.
    Kill,
    /// All servers lose power at once.
    CrashAll,
    /// A disk is replaced by an empty one.
    Wipe,
    /// A bit of a stopped server's log is flipped.
    Flip,
    /// The disk fails once.
    DiskError,
    /// The disk is full for a while.
    DiskFull,
    /// The disk is slow for a while.
    DiskSlow,
    /// The disk is stuck for a while.
    DiskStuck,
    /// The server does not run for a while, and then finds everything that waited for it.
    Pause,
    /// One way between two servers is closed for a while.
    OneWay,
    /// A server is cut off.
    Isolate,
    /// The servers fall into two groups.
    Split,
    /// Two groups see each other only through one server.
    Bridge,
    /// Each server sees only its two neighbours.
    Ring,
    /// Two servers lose their connection again and again.
    Flap,
    /// Two servers lose their connection.
    Reset,
    /// All connections break.
    ResetAll,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: &[FaultKind] = &[
        FaultKind::Crash,
        FaultKind::CrashInWrite,
        FaultKind::Kill,
        FaultKind::CrashAll,
        FaultKind::Wipe,
        FaultKind::Flip,
        FaultKind::DiskError,
        FaultKind::DiskFull,
        FaultKind::DiskSlow,
        FaultKind::DiskStuck,
        FaultKind::Pause,
        FaultKind::OneWay,
        FaultKind::Isolate,
        FaultKind::Split,
        FaultKind::Bridge,
        FaultKind::Ring,
        FaultKind::Flap,
        FaultKind::Reset,
        FaultKind::ResetAll,
    ];
}

/// The faults under way.
#[derive(Debug, Default)]
pub struct Faults {
    active: Vec<Option<Active>>,
}

/// What is to be taken back when a fault ends.
#[derive(Clone, Debug)]
enum Active {
    /// Room on a disk.
    Room(usize),
    /// A disk's speed.
    Slow(usize),
    /// A stuck disk.
    Stuck(usize),
    /// A pause.
    Pause(usize),
    /// Ways that are closed; whether they hold messages or lose them.
    Ways(Vec<(usize, usize)>, bool),
    /// A link that flaps, and how often yet.
    Flap(usize, usize, u32),
}

/// What a fault that ends leaves to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing.
    Done,
    /// A paused server runs again.
    Resumed(usize),
    /// Ways are open again, and these messages go on.
    Opened(Vec<u32>),
    /// A connection breaks.
    Break(usize, usize),
}

impl Faults {
    /// Lets one fault of the profile begin. Connections to be broken are returned.
    pub fn strike(&mut self, stage: &mut Stage, hosts: &mut [Host]) -> Vec<(usize, usize)> {
        if stage.profile.faults.is_empty() {
            return Vec::new();
        }
        let kind = stage.random.pick(&stage.profile.faults);
        let at = stage.random.below(hosts.len() as u64) as usize;
        self.inflict(stage, hosts, kind, at)
    }

    /// Lets a fault begin, at the server `at` if it is one of a server.
    pub fn inflict(
        &mut self,
        stage: &mut Stage,
        hosts: &mut [Host],
        kind: FaultKind,
        at: usize,
    ) -> Vec<(usize, usize)> {
        if stage.judge.is_tracing() {
            let id = hosts[at].id();
            stage.judge.trace(
                stage.now,
                format_args!("FAULT {kind:?}, server {id} if of one"),
            );
        }
        match kind {
            FaultKind::Crash => hosts[at].lose_power(stage),
            FaultKind::Kill => hosts[at].kill(stage),
            FaultKind::CrashAll => {
                stage.probes.hit(Probe::AllCrashed);
                hosts.iter_mut().for_each(|host| host.lose_power(stage));
            }
            FaultKind::CrashInWrite => {
                let events = stage.random.below(40);
                hosts[at].disk.crash_after(events);
            }
            FaultKind::DiskError => {
                let events = stage.random.below(20);
                hosts[at].disk.fail_after(events);
            }
            FaultKind::Wipe => wipe(stage, hosts, at),
            FaultKind::Flip => flip(stage, hosts, at),
            FaultKind::DiskFull | FaultKind::DiskSlow | FaultKind::DiskStuck | FaultKind::Pause => {
                self.hamper(stage, &mut hosts[at], kind);
            }
            FaultKind::Flap => {
                let (a, b) = two(stage, hosts.len());
                self.begin(stage, Active::Flap(a, b, 8), FLAP);
                stage.probes.hit(Probe::Flapped);
            }
            FaultKind::Reset => return vec![two(stage, hosts.len())],
            FaultKind::ResetAll => return pairs(hosts.len()).collect(),
            FaultKind::OneWay
            | FaultKind::Isolate
            | FaultKind::Split
            | FaultKind::Bridge
            | FaultKind::Ring => self.close_ways(stage, hosts.len(), kind, at),
        }
        Vec::new()
    }

    /// A fault is over, or goes on to its next turn.
    pub fn end(&mut self, stage: &mut Stage, hosts: &mut [Host], slot: usize) -> Ended {
        match self.active[slot].take() {
            None => Ended::Done,
            Some(Active::Room(at)) => {
                hosts[at].disk.set_capacity(None);
                Ended::Done
            }
            Some(Active::Slow(at)) => {
                hosts[at].slow -= 1;
                Ended::Done
            }
            Some(Active::Stuck(at)) => {
                hosts[at].stuck -= 1;
                if hosts[at].stuck == 0 {
                    hosts[at].unstick(stage);
                }
                Ended::Done
            }
            Some(Active::Pause(at)) => {
                hosts[at].pauses -= 1;
                Ended::Resumed(at)
            }
            Some(Active::Ways(ways, holding)) => {
                let reopen = |&(from, to): &(usize, usize)| stage.net.reopen(from, to, holding);
                Ended::Opened(ways.iter().flat_map(reopen).collect())
            }
            Some(Active::Flap(a, b, turns)) => {
                if turns > 0 {
                    self.begin(stage, Active::Flap(a, b, turns - 1), FLAP);
                }
                Ended::Break(a, b)
            }
        }
    }

    /// The slots of all faults under way.
    #[must_use]
    pub fn slots(&self) -> std::ops::Range<usize> {
        0..self.active.len()
    }

    /// Forbids a link to flap on.
    pub fn calm(&mut self) {
        for active in self.active.iter_mut().flatten() {
            if let Active::Flap(_, _, turns) = active {
                *turns = 0;
            }
        }
    }

    fn begin(&mut self, stage: &mut Stage, active: Active, lasts: Span) {
        let free = self.active.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.active.len());
        if free.is_none() {
            self.active.push(None);
        }
        self.active[slot] = Some(active);
        let slot = slot as u32;
        stage.after(lasts, Event::FaultEnds { slot });
    }

    /// Makes a disk or a process bad for a while.
    fn hamper(&mut self, stage: &mut Stage, host: &mut Host, kind: FaultKind) {
        let at = host.at;
        match kind {
            FaultKind::DiskFull => {
                let room = stage.random.below(6_000);
                host.disk.set_capacity(Some(host.disk.used() + room));
                self.begin(stage, Active::Room(at), HAMPERED);
            }
            FaultKind::DiskSlow => {
                stage.probes.hit(Probe::DiskSlow);
                host.slow += 1;
                self.begin(stage, Active::Slow(at), HAMPERED);
            }
            FaultKind::DiskStuck => {
                stage.probes.hit(Probe::DiskStuck);
                host.stuck += 1;
                self.begin(stage, Active::Stuck(at), HAMPERED);
            }
            _ => {
                stage.probes.hit(Probe::Paused);
                host.pauses += 1;
                self.begin(stage, Active::Pause(at), PAUSED);
            }
        }
    }

    /// Closes the ways that a fault of the network closes.
    fn close_ways(&mut self, stage: &mut Stage, count: usize, kind: FaultKind, at: usize) {
        let sides = stage.random.any();
        let side = |server: usize| (sides >> server) & 1;
        let apart = |a: usize, b: usize| match kind {
            FaultKind::Isolate => a == at || b == at,
            FaultKind::Split => side(a) != side(b),
            FaultKind::Bridge => side(a) != side(b) && a != at && b != at,
            FaultKind::Ring => (a + 1) % count != b && (b + 1) % count != a,
            _ => false,
        };
        let mut ways: Vec<(usize, usize)> = (0..count)
            .flat_map(|a| (0..count).map(move |b| (a, b)))
            .filter(|&(a, b)| a != b && apart(a, b))
            .collect();
        if kind == FaultKind::OneWay {
            ways.push(two(stage, count));
        }
        stage.probes.hit(match kind {
            FaultKind::Isolate => Probe::Isolated,
            FaultKind::Split => Probe::Partitioned,
            FaultKind::Bridge => Probe::Bridged,
            FaultKind::Ring => Probe::Ringed,
            _ => Probe::OneWayCut,
        });
        let holding = stage.random.chance(400_000);
        for &(a, b) in &ways {
            stage.net.close(a, b, holding);
            if stage.random.chance(700_000) {
                let (a, b) = (a as u8, b as u8);
                stage.after(NOTICED, Event::TimeOut { a, b });
            }
        }
        self.begin(stage, Active::Ways(ways, holding), CLOSED);
    }
}

/// Replaces a disk by an empty one, if the others hold all that this one has ever vouched for.
fn wipe(stage: &mut Stage, hosts: &mut [Host], at: usize) {
    if !may_lose(stage, hosts, at) {
        return;
    }
    stage.probes.hit(Probe::Wiped);
    let host = &mut hosts[at];
    host.stop(stage, Stop::PowerLost, REPAIRED);
    host.disk = SimDisk::new(stage.random.any(), Plan::default());
    host.durable_at_stop = Zxid::ZERO;
    host.durable = Zxid::ZERO;
    host.setting_aside = false;
    host.blank = true;
    host.damaged = false;
    stage.see(Observation::Wiped { server: host.id() });
}

/// Flips a bit of a log or a snapshot. The server may have to put all of its history aside.
///
/// A flip that costs the server only what nothing on its disk says was synced is left out: that
/// is what a torn tail looks like, and no log can tell the two apart. After a loss of power this
/// is at most the last batch that was synced. A flip that costs more is the log's fault.
fn flip(stage: &mut Stage, hosts: &mut [Host], at: usize) {
    if !may_lose(stage, hosts, at) {
        return;
    }
    let host = &mut hosts[at];
    host.stop(stage, Stop::PowerLost, REPAIRED);
    host.disk = host.disk.power_cycle(Plan::default());
    let Some(name) = some_history(stage, &host.disk) else {
        return;
    };
    let length = host.disk.bytes(&name).len() as u64;
    if length == 0 {
        return;
    }
    let byte = stage.random.below(length) as usize;
    let flipped = host.disk.kill(Plan::default());
    flipped.flip(&name, byte, stage.random.below(8) as u32);
    if let Some(left) = left_unnoticed(&flipped, host.durable_at_stop) {
        let vouched = host.disk.vouched();
        if left < vouched {
            let id = host.id();
            let what = format!(
                "server {id} takes a flip in {name} byte {byte} for a torn tail after {left}, \
                 though {vouched} was vouched for"
            );
            stage.judge.condemn(stage.now, what);
        }
        stage.probes.hit(Probe::FlipUnnoticed);
        return;
    }
    host.disk = flipped;
    host.damaged = true;
    stage.probes.hit(Probe::Flipped);
}

/// What a start would find if that is less than was durable and it does not say so.
fn left_unnoticed(disk: &SimDisk, durable: Zxid) -> Option<Zxid> {
    let settings = LogSettings {
        segment_bytes: 4_096,
        salt: 0,
        snapshot_is_enough: false,
    };
    let (log, _) = Log::open(disk.kill(Plan::default()), settings).ok()?;
    Some(log.last()).filter(|&last| last < durable)
}

/// The name of a file that holds history.
fn some_history(stage: &mut Stage, disk: &SimDisk) -> Option<String> {
    use crate::log::disk::Disk as _;
    let mut names = disk.list().ok()?;
    names.retain(|name| {
        (name.starts_with("segment-") || name.starts_with("snapshot-")) && !name.contains(".aside")
    });
    let drawn = stage.random.below(names.len().max(1) as u64) as usize;
    names.into_iter().nth(drawn)
}

/// True if the ensemble can bear that this server forgets everything.
///
/// What it has made durable it may have acknowledged, so a majority of the voters must hold all
/// of that without it; and no other voter may be without its data at the same time.
fn may_lose(stage: &Stage, hosts: &[Host], at: usize) -> bool {
    if stage.planted.has(HostPlant::WipesTooMuch) {
        return true;
    }
    let voters = stage.profile.voters;
    let vouched = durable_of(&hosts[at]);
    let others = || hosts[..voters].iter().filter(|host| host.at != at);
    let whole = |host: &Host| !host.blank && !host.damaged && !host.setting_aside;
    let nobody_blank = others().all(|host| whole(host) && has_entered(host));
    let held = others().filter(|host| host.durable >= vouched).count();
    // What is synced beyond that and not vouched for may yet be committed with it.
    let counted = stage.judge.checker().ghost().can_lose(hosts[at].id());
    nobody_blank && held > voters / 2 && counted
}

fn durable_of(host: &Host) -> Zxid {
    match &host.server {
        Some(server) => server.log.durable(),
        None => host.durable_at_stop,
    }
}

/// True if the server has taken over a history at some time and still has it.
fn has_entered(host: &Host) -> bool {
    match &host.server {
        Some(server) => server.log.epochs().current > Epoch(0),
        None => host.entered_at_stop,
    }
}

/// Two different servers.
fn two(stage: &mut Stage, count: usize) -> (usize, usize) {
    let a = stage.random.below(count as u64) as usize;
    let b = stage.random.below(count as u64 - 1) as usize;
    (a, if b >= a { b + 1 } else { b })
}

/// All pairs of servers.
pub fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |b| (0..b).map(move |a| (a, b)))
}

/// How long ways stay closed.
const CLOSED: Span = Span::new(5_000, 6_000_000);
/// How soon a closed way is noticed, if it is.
const NOTICED: Span = Span::new(20_000, 4_000_000);
/// How long a disk is bad.
const HAMPERED: Span = Span::new(10_000, 8_000_000);
/// How long a server is paused.
const PAUSED: Span = Span::new(1_000, 5_000_000);
/// How long a link that flaps holds.
const FLAP: Span = Span::new(1_000, 400_000);
/// How long it takes to give a server another disk.
const REPAIRED: Span = Span::new(5_000, 2_000_000);
