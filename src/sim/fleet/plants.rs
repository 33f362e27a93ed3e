//! Faults planted on purpose in the servers of a fleet, which the judge must find.

use crate::{group, lease, replica, shard};

/// What is planted in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plants {
    /// In the leases.
    pub lease: lease::Plants,
    /// In the state machines.
    pub group: group::Plants,
    /// In the replicas.
    pub replica: replica::Plants,
    /// In the shards.
    pub shard: shard::Plants,
}

impl Plants {
    /// No faults.
    pub const NONE: Plants = Plants {
        lease: lease::Plants::NONE,
        group: group::Plants::NONE,
        replica: replica::Plants::NONE,
        shard: shard::Plants::NONE,
    };

    /// Just the fault of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Plants> {
        let lease = lease::Plant::named(name).map(lease::Plants::only);
        let group = group::Plant::named(name).map(group::Plants::only);
        let replica = replica::Plant::named(name).map(replica::Plants::only);
        let shard = shard::Plant::named(name).map(shard::Plants::only);
        let plants = Plants {
            lease: lease.unwrap_or_default(),
            group: group.unwrap_or_default(),
            replica: replica.unwrap_or_default(),
            shard: shard.unwrap_or_default(),
        };
        (plants != Plants::NONE).then_some(plants)
    }

    /// The names of all faults.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let lease = lease::Plant::ALL.iter().map(|plant| plant.name());
        let group = group::Plant::ALL.iter().map(|plant| plant.name());
        let replica = replica::Plant::ALL.iter().map(|plant| plant.name());
        let shard = shard::Plant::ALL.iter().map(|plant| plant.name());
        lease.chain(group).chain(replica).chain(shard)
    }
}

/// Why no seed can find this fault: the line that it takes away stands behind another one.
#[must_use]
pub fn defends(name: &str) -> Option<&'static str> {
    DEFENCES
        .iter()
        .find(|(plant, _)| *plant == name)
        .map(|&(_, why)| why)
}

/// Each with why, of a server around sound parts; the small world of the leases, which sends grants
/// and commits on their own ways, finds it without the other line (`lease::tests::schedule`).
const DEFENCES: &[(&str, &str)] = &[(
    "grant-without-applied",
    "a server asks for a lease only once it has applied all that was committed when its leader's \
     tenure with it began, and grants come behind the commits they rest on, on one link in order: \
     what a grant names is applied here when it is heard",
)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plant_has_a_name_of_its_own() {
        let mut names: Vec<_> = Plants::names().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for name in names {
            assert!(Plants::named(name).is_some(), "{name}");
        }
        assert_eq!(Plants::named("nothing"), None);
    }
}
