//! The scenarios of sessions: old and possible faults, each told as a story of whole servers with
//! an end that must hold.
//!
//! A story is a script of a fleet ([`script`]). Each names the guards it is about: lines without
//! which the same story ends badly. Both ways are tested. The numbers are those of the
//! protocol's list of scenarios.

mod clients;
mod leases;
mod moves;
mod races;
mod restarts;
mod script;
#[cfg(test)]
mod tests;

use super::plants::Plants;
use crate::{group, lease, replica, shard};

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Story {
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
    /// A line of the leases.
    Lease(lease::Plant),
    /// A line of the state machines.
    Group(group::Plant),
    /// A line of the replicas.
    Replica(replica::Plant),
    /// A line of the shards.
    Shard(shard::Plant),
    /// A duty of the machine.
    Host(Neglect),
}

/// A duty of the machine under the server that is neglected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neglect {
    /// The clock stands still while the machine is suspended.
    ClockStops,
}

/// What is taken away in a run of a story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From the servers.
    pub plants: Plants,
    /// From the machines.
    pub neglect: Option<Neglect>,
}

impl Story {
    /// The story of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Story> {
        ALL.iter().find(|story| story.name == name)
    }

    /// Tells it.
    ///
    /// # Errors
    /// What should not have come of it, in a sentence.
    ///
    /// # Panics
    /// Only with a guard taken away: then a server may meet what it believes impossible.
    pub fn run(&self, faults: impl Into<Faults>) -> Result<(), String> {
        (self.tell)(faults.into())
    }
}

impl Guard {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Guard::Lease(plant) => plant.name(),
            Guard::Group(plant) => plant.name(),
            Guard::Replica(plant) => plant.name(),
            Guard::Shard(plant) => plant.name(),
            Guard::Host(neglect) => neglect.name(),
        }
    }

    /// The guard of this name, if a story has one.
    #[must_use]
    pub fn named(name: &str) -> Option<Guard> {
        let mut guards = ALL.iter().flat_map(|story| story.guards);
        guards.find(|guard| guard.name() == name).copied()
    }
}

impl Neglect {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Neglect::ClockStops => "clock-stops",
        }
    }
}

impl From<Guard> for Faults {
    /// Takes just this guard away.
    fn from(guard: Guard) -> Faults {
        let mut faults = Faults::default();
        match guard {
            Guard::Lease(plant) => faults.plants.lease = lease::Plants::only(plant),
            Guard::Group(plant) => faults.plants.group = group::Plants::only(plant),
            Guard::Replica(plant) => faults.plants.replica = replica::Plants::only(plant),
            Guard::Shard(plant) => faults.plants.shard = shard::Plants::only(plant),
            Guard::Host(neglect) => faults.neglect = Some(neglect),
        }
        faults
    }
}

/// All stories, by number.
pub const ALL: &[Story] = &[
    leases::CUT_OWNER,
    leases::LAPSED_OWNER,
    leases::LATE_GRANT,
    leases::DEPOSED_GRANTOR,
    leases::CUT_LEADER,
    leases::SHORT_ELECTION,
    leases::LONG_ELECTION,
    leases::PAUSED_LEADER,
    leases::LATE_REPLY,
    leases::SUSPENDED_OWNER,
    leases::DRIFT_AT_ITS_BOUND,
    races::BEAT_AND_EXPIRY,
    races::LOST_EXPIRY,
    races::RENEWAL_AND_ORPHANS,
    races::MOVE_AND_OWNER,
    races::MOVE_AND_ORPHANS,
    races::MOVE_AND_CLOSE,
    races::TWO_MOVES,
    moves::WANDERER,
    moves::LAGGING_OWNER,
    moves::OWNER_BEHIND_ITS_GRANT,
    restarts::QUICK_RESTART,
    restarts::SLOW_RESTART,
    clients::DOUBLE_JOIN,
    races::CONFIG_AND_EXPIRY,
    restarts::ELECTIONS,
    restarts::SECOND_REIGN,
    restarts::DEAD_EXPIRY,
    clients::MOVE_STORM,
    clients::MASS_EXPIRY,
    restarts::MINORITY,
    clients::TIMEOUTS,
    moves::LAGGING_SERVER,
    moves::CLOSE_WITHOUT_OWNER,
    restarts::ALL_DOWN,
];
