//! What goes wrong, and when.

use super::super::net::Weather;
use super::super::random::Random;
use super::machine::Stop;
use super::probes::Probe;

/// Something that goes wrong at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not run for a while.
    Pause,
    /// Its process ends and starts again.
    Kill,
    /// Its machine loses power.
    Power,
    /// Its disk is lost.
    Wipe,
    /// Nothing reaches it from other servers, or leaves it for them, or neither.
    Cut { inward: bool, outward: bool },
    /// It and another one do not hear each other.
    Part,
    /// Every connection it has breaks.
    Break,
    /// One of its shards has no turn, while the others and the core go on.
    Stall,
    /// Its disk takes many times as long for a sync.
    SlowDisk,
    /// What it says, or hears, or both, takes long.
    SlowWays { inward: bool, outward: bool },
    /// It loses all other servers but one, of which only they are told.
    Maroon,
}

/// The kinds of faults there are, by which worlds choose what goes wrong in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A server is not run.
    Pause,
    /// A process ends.
    Kill,
    /// Power is lost.
    Power,
    /// A disk is lost.
    Wipe,
    /// A server is cut off.
    Cut,
    /// Two servers do not hear each other.
    Part,
    /// Connections break.
    Break,
    /// A shard has no turn.
    Stall,
    /// A disk is slow.
    SlowDisk,
    /// Messages are slow.
    SlowWays,
    /// A server is left with another one.
    Maroon,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Kind] = &[
        Kind::Pause,
        Kind::Kill,
        Kind::Power,
        Kind::Wipe,
        Kind::Cut,
        Kind::Part,
        Kind::Break,
        Kind::Stall,
        Kind::SlowDisk,
        Kind::SlowWays,
        Kind::Maroon,
    ];
}

/// A fault under way.
#[derive(Clone, Debug)]
pub(super) enum UnderWay {
    Pause(usize),
    /// Ways that are closed.
    Ways(Vec<(usize, usize)>),
    /// A shard of a server.
    Stall(usize, u16),
    SlowDisk(usize),
    /// Ways that are slow, and by how much, µs.
    SlowWays(Vec<(usize, usize)>, u64),
}

impl Fault {
    /// One by chance, of these kinds.
    pub(super) fn draw(random: &mut Random, kinds: &[Kind]) -> Fault {
        let ways = [(true, true), (true, false), (false, true)];
        match random.pick(kinds) {
            Kind::Pause => Fault::Pause,
            Kind::Kill => Fault::Kill,
            Kind::Power => Fault::Power,
            Kind::Wipe => Fault::Wipe,
            Kind::Cut => {
                let (inward, outward) = random.pick(&ways);
                Fault::Cut { inward, outward }
            }
            Kind::Part => Fault::Part,
            Kind::Break => Fault::Break,
            Kind::Stall => Fault::Stall,
            Kind::SlowDisk => Fault::SlowDisk,
            Kind::SlowWays => {
                let (inward, outward) = random.pick(&ways);
                Fault::SlowWays { inward, outward }
            }
            Kind::Maroon => Fault::Maroon,
        }
    }

    /// What is counted when it strikes.
    pub(super) fn probe(self) -> Probe {
        match self {
            Fault::Pause => Probe::Paused,
            Fault::Kill | Fault::Power | Fault::Wipe => Probe::Stopped,
            Fault::Cut { .. } => Probe::CutOff,
            Fault::Part => Probe::Parted,
            Fault::Break => Probe::Broken,
            Fault::Stall => Probe::Stalled,
            Fault::SlowDisk => Probe::DiskSlow,
            Fault::SlowWays { .. } => Probe::WaysSlow,
            Fault::Maroon => Probe::Marooned,
        }
    }

    /// How the server ends, if it does.
    pub(super) fn stop(self) -> Option<Stop> {
        match self {
            Fault::Kill => Some(Stop::Killed),
            Fault::Power => Some(Stop::PowerLost),
            Fault::Wipe => Some(Stop::Wiped),
            _ => None,
        }
    }
}

/// The network between the servers: like TCP's, with an unlucky day now and then.
pub(super) fn weather(random: &mut Random) -> Weather {
    Weather {
        spike: random.pick(&[0, 0, 1_000, 20_000]),
        late: random.pick(&[0, 100_000, 1_000_000]),
        silent: random.pick(&[0, 0, 300_000]),
        ..Weather::default()
    }
}
