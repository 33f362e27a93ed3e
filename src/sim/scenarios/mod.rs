//! The scenarios of old faults, each told as a story with an end that must hold.
//!
//! A story is a script of a few servers ([`super::script`]). Each names the guards it is about:
//! lines of the core, or duties of the host, without which the same story ends badly. Both ways
//! are tested (`tests/zab/scenarios.rs`).
//!
//! The numbers are those of the protocol's list of scenarios; one number may take several
//! stories.

mod crashes;
mod disk;
mod faults;
mod links;
mod stage;
mod sync;

use super::script::Neglect;
use crate::zab::{Plant, Plants};

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Which of the listed scenarios it tells.
    pub number: u32,
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens, in one sentence.
    pub story: &'static str,
    /// What the happy end rests on: without any one of these the story fails.
    pub guards: &'static [Guard],
    /// Tells it; `Err` says what should not have come of it.
    pub tell: fn(Faults) -> Result<(), String>,
}

/// Something that keeps a story from ending badly, and can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A line of the core.
    Core(Plant),
    /// A duty of the host.
    Host(Neglect),
}

/// What is taken away in a run of a story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From the core.
    pub plants: Plants,
    /// From the host.
    pub neglect: Option<Neglect>,
}

impl Scenario {
    /// The story of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Scenario> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Tells the story.
    ///
    /// # Errors
    /// What should not have come of it, in a sentence.
    ///
    /// # Panics
    /// Only with a guard taken away: then the core may meet what it believes impossible.
    pub fn run(&self, faults: impl Into<Faults>) -> Result<(), String> {
        (self.tell)(faults.into())
    }
}

impl Guard {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Guard::Core(plant) => plant.name(),
            Guard::Host(neglect) => neglect.name(),
        }
    }
}

impl From<Plants> for Faults {
    fn from(plants: Plants) -> Faults {
        Faults {
            plants,
            neglect: None,
        }
    }
}

impl From<Guard> for Faults {
    /// Takes just this guard away.
    fn from(guard: Guard) -> Faults {
        match guard {
            Guard::Core(plant) => Plants::only(plant).into(),
            Guard::Host(neglect) => Faults {
                plants: Plants::NONE,
                neglect: Some(neglect),
            },
        }
    }
}

/// All stories, by number.
pub const ALL: &[Scenario] = &[
    crashes::LATE_LEADER,
    crashes::CRASH_ALL,
    crashes::NEW_LEADER_STEPS,
    crashes::SHORT_LOG,
    crashes::ELECTION_ORDER,
    crashes::FORGOTTEN_PROMISE,
    crashes::EPOCH_FILES,
    sync::ACK_OVERTAKES,
    sync::EARLY_COMMIT,
    sync::STALE_REPORT,
    sync::BROKEN_SNAPSHOT,
    sync::CUT_BELOW_SNAPSHOT,
    disk::CUT_FAILS,
    sync::CUT_ACROSS_EPOCHS,
    disk::WRITE_FAILS,
    disk::DAMAGE,
    disk::LOST_SYNC,
    disk::WIPED_VOTER,
    disk::WIPED_PROMISE,
    sync::STALE_SERVES_STALE,
    sync::WINDOW_EDGES,
    faults::RETAINED_MEMORY,
    sync::LATE_JOINER,
    faults::EVERY_PHASE,
    links::ONE_WAY,
    links::HALVES,
    links::SHAPES,
    links::DEPOSED_LEADER,
    faults::OLD_PROMISE,
    faults::MORE_RECENT,
    faults::NEWER_EPOCH,
    links::OLD_TENURE,
    links::OLD_RUN,
    links::EVERY_MESSAGE_TWICE,
    links::MALFORMED,
    faults::SLOW_FOLLOWER,
    faults::STUCK_DISK,
    faults::SLOW_READ,
    faults::COUNTER_END,
    disk::LATE_SNAPSHOT,
    sync::LARGE_SNAPSHOT,
    sync::OBSERVER,
    sync::OBSERVER_AHEAD,
];
