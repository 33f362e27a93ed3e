//! Faults of the host, planted on purpose: what a server around a correct core can do wrong.
//!
//! Those of the core itself are in `zab/plant.rs`. The simulator must find all of them.

use super::script::Neglect;
use crate::zab::{Plant, Plants};

/// What is planted in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// In the core.
    pub core: Plants,
    /// In the host.
    pub host: Option<HostPlant>,
}

impl Planted {
    /// The plant of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Planted> {
        let core = Plant::named(name);
        let host = HostPlant::named(name);
        if core.is_none() && host.is_none() {
            return None;
        }
        Some(Planted {
            core: core.map_or(Plants::NONE, with_its_guards),
            host,
        })
    }

    /// The names of all plants, those of the core first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let core = Plant::ALL.iter().map(|plant| plant.name());
        core.chain(HostPlant::ALL.iter().map(|plant| plant.name()))
    }

    /// The same fault in the host of the scripts, if it is one of a host and there is one.
    #[must_use]
    pub fn in_scripts(name: &str) -> Option<Neglect> {
        HostPlant::named(name)?.in_scripts()
    }

    /// True if this fault of the host is planted.
    #[must_use]
    pub fn has(&self, plant: HostPlant) -> bool {
        self.host == Some(plant)
    }
}

/// A fault, together with those that must be there for it to show: some lines stand behind
/// others that catch the same thing, and only without all of them is anything wrong.
fn with_its_guards(plant: Plant) -> Plants {
    let plants = Plants::only(plant);
    match plant {
        // A follower refuses a gap, so that a leader's gap and a lax follower go together.
        Plant::GapAtSwitch => plants.and(Plant::TakesGaps),
        Plant::TakesGaps => plants.and(Plant::GapAtSwitch),
        _ => plants,
    }
}

/// The name that a fault of the scripts' host has in that of the world.
#[must_use]
pub fn in_world(neglect: &str) -> Option<&'static str> {
    let mut faults = HostPlant::ALL.iter();
    let known = |plant: &&HostPlant| {
        let twin = plant.in_scripts();
        twin.is_some_and(|twin| twin.name() == neglect)
    };
    faults.find(known).map(|plant| plant.name())
}

/// Why no seed of the random world can find this fault: among peers and hosts that are otherwise
/// sound, the line that it takes away never decides anything. It is defence in depth. What it
/// stands against must come from elsewhere, and the stories in which a server is lied to bring it
/// in: a message no peer says, a report no host gives.
#[must_use]
pub fn defends(name: &str) -> Option<&'static str> {
    DEFENCES
        .iter()
        .find(|(plant, _)| plant.name() == name)
        .map(|&(_, why)| why)
}

const DEFENCES: &[(Plant, &str)] = &[
    (
        Plant::FollowsLowerEpoch,
        "a leader announces its epoch to no voter that has told it a newer one, and between the \
         telling and the answer a follower accepts no other",
    ),
    (
        Plant::SnapsBack,
        "a leader sends nothing before a quorum has promised, with no history more recent than \
         its own: so it holds all that is committed, the learner's snapshot too, and shares that \
         transaction with it or has a newer snapshot",
    ),
    (
        Plant::ForgetsCommitted,
        "a leader that holds all that is committed has nobody cut off or replace any of it; one \
         that does not is found by what it asks for (Z10), whether the follower does it or not",
    ),
    (
        Plant::CommitsBeforeEstablished,
        "before a leader is established it has proposed nothing, and a follower acknowledges with \
         NewLeader all it was sent: no Ack comes that could commit",
    ),
    (
        Plant::StaleDiskReport,
        "a follower tells its history only when all of it is reported durable, and reports come in \
         order: when it is cut none is under way",
    ),
];

impl HostPlant {
    /// The same fault in the host of the scripts, where there is one.
    #[must_use]
    pub fn in_scripts(self) -> Option<Neglect> {
        match self {
            HostPlant::ReportsBeforeSync => Some(Neglect::ReportsBeforeSync),
            HostPlant::ForgetsFailure => Some(Neglect::ForgetsFailure),
            HostPlant::RestoresEarly => Some(Neglect::RestoresEarly),
            HostPlant::SnapshotsLate => Some(Neglect::SnapshotsLate),
            HostPlant::BlocksOnRead => Some(Neglect::BlocksOnRead),
            HostPlant::CutsDamage => Some(Neglect::CutsDamage),
            HostPlant::SameNonce => Some(Neglect::SameNonce),
            _ => None,
        }
    }
}

crate::plant::plants! {
    /// A fault of the host.
    pub enum HostPlant {
        /// An append is reported durable before its sync.
        ReportsBeforeSync = "host-reports-before-sync",
        /// A sync that failed is tried again, and believed the second time.
        RetriesFailedSync = "host-retries-failed-sync",
        /// A failed write or sync is reported as if it had been made.
        ForgetsFailure = "host-forgets-failure",
        /// An epoch is reported durable before it is written.
        ReportsEpochBeforeWrite = "host-reports-epoch-before-write",
        /// A report about the disk outlives the run it belongs to.
        ReportsAcrossRuns = "host-reports-across-runs",
        /// A transaction is sometimes given to the application twice.
        DeliversTwice = "host-delivers-twice",
        /// A transaction is sometimes not given to the application.
        SkipsDelivery = "host-skips-delivery",
        /// A snapshot holds what is durable and not what is committed (ZOOKEEPER-2845).
        SnapshotsUncommitted = "host-snapshots-uncommitted",
        /// A snapshot holds what was delivered since it began.
        SnapshotsLate = "host-snapshots-late",
        /// Pieces of a snapshot take the place of the application's state as they come.
        RestoresEarly = "host-restores-early",
        /// A snapshot is received and the application not restored from it (ZOOKEEPER-3642).
        KeepsStateOnInstall = "host-keeps-state-on-install",
        /// What is committed is replayed before the log holds it.
        ReplaysTooSoon = "host-replays-too-soon",
        /// Reads for a learner skip a transaction now and then.
        ReadsWithHoles = "host-reads-with-holes",
        /// No message is handed to the core while a read of the disk is under way.
        BlocksOnRead = "host-blocks-on-read",
        /// A damaged log is cut where the damage is, and the server votes with the rest.
        CutsDamage = "host-cuts-damage",
        /// Every run draws the same number at its start.
        SameNonce = "host-same-nonce",
        /// A restarted server is told it holds no data, though it does.
        ForgetsEpochs = "host-forgets-epochs",
        /// Disks are wiped without regard for what is on the others: more than any protocol bears.
        WipesTooMuch = "host-wipes-too-much",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plant_has_a_name_of_its_own() {
        let mut names: Vec<_> = Planted::names().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for name in names {
            let planted = Planted::named(name).unwrap();
            assert_ne!(planted, Planted::default(), "{name}");
        }
        assert_eq!(Planted::named("nothing"), None);
    }

    #[test]
    fn a_fault_of_the_host_that_scripts_know_too_is_found_by_the_same_name() {
        let known = |name| Planted::in_scripts(name).map(Neglect::name);
        assert_eq!(known("host-same-nonce"), Some("script-same-nonce"));
        assert_eq!(known("host-skips-delivery"), None);
        for neglect in Neglect::ALL {
            let name = neglect.name().replace("script-", "host-");
            assert_eq!(Planted::in_scripts(&name), Some(*neglect), "{name}");
        }
    }
}
