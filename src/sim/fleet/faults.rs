//! What goes wrong, and when.

use super::super::net::Weather;
use super::super::random::{Random, Span};
use super::machine::Stop;

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
}

/// A fault under way.
#[derive(Clone, Debug)]
pub(super) enum UnderWay {
    Pause(usize),
    /// Ways that are closed.
    Ways(Vec<(usize, usize)>),
}

impl Fault {
    /// One by chance.
    pub(super) fn draw(random: &mut Random) -> Fault {
        match random.below(20) {
            0..5 => Fault::Pause,
            5..8 => Fault::Kill,
            8..10 => Fault::Power,
            10 => Fault::Wipe,
            11..16 => {
                let (inward, outward) = random.pick(&[(true, true), (true, false), (false, true)]);
                Fault::Cut { inward, outward }
            }
            16..19 => Fault::Part,
            _ => Fault::Break,
        }
    }

    /// How the server ends, if it does.
    pub(super) fn stop(self) -> Option<Stop> {
        match self {
            Fault::Kill => Some(Stop::Killed),
            Fault::Power => Some(Stop::PowerLost),
            Fault::Wipe => Some(Stop::Wiped),
            Fault::Pause | Fault::Cut { .. } | Fault::Part | Fault::Break => None,
        }
    }
}

/// How long a fault lasts, µs.
pub(super) fn lasts(random: &mut Random) -> Span {
    random.pick(&[
        Span::new(10_000, 900_000),
        Span::new(500_000, 4_000_000),
        Span::new(2_000_000, 15_000_000),
        Span::new(5_000_000, 60_000_000),
    ])
}

/// The network between the servers: like TCP's, with an unlucky day now and then.
pub(super) fn weather(random: &mut Random) -> Weather {
    Weather {
        spike: random.pick(&[0, 0, 1_000, 20_000]),
        late: random.pick(&[0, 100_000]),
        silent: random.pick(&[0, 0, 300_000]),
        ..Weather::default()
    }
}
