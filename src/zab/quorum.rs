//! Which servers vote, and how far enough of them have come.

use crate::types::{ServerId, Zxid};

/// The voters of one configuration, and the last transaction each has made durable.
#[derive(Clone, Debug)]
pub struct Quorum {
    /// Sorted by id, without repetition; never empty.
    voters: Vec<(ServerId, Zxid)>,
}

impl Quorum {
    /// A quorum over `voters`, none of which has acknowledged anything.
    ///
    /// # Panics
    /// If there is no voter: nothing could ever be decided.
    #[must_use]
    pub fn new(voters: &[ServerId]) -> Quorum {
        assert!(!voters.is_empty(), "an ensemble has at least one voter");
        let mut voters: Vec<_> = voters.iter().map(|&id| (id, Zxid::ZERO)).collect();
        voters.sort_unstable();
        voters.dedup_by_key(|(id, _)| *id);
        Quorum { voters }
    }

    /// Takes note that `voter` has everything up to `zxid` on disk. Acknowledgements from
    /// strangers count for nothing, and one that goes back is old news.
    pub fn ack(&mut self, voter: ServerId, zxid: Zxid) {
        if let Ok(at) = self.voters.binary_search_by_key(&voter, |(id, _)| *id) {
            let acked = &mut self.voters[at].1;
            *acked = zxid.max(*acked);
        }
    }

    /// The newest transaction that more than half of the voters have acknowledged.
    #[must_use]
    pub fn acked_by_majority(&self) -> Zxid {
        let mut acked: Vec<Zxid> = self.voters.iter().map(|(_, zxid)| *zxid).collect();
        acked.sort_unstable_by(|a, b| b.cmp(a));
        // Of n voters sorted from the newest, the one at n / 2 and all before it are a
        // majority: floor(n / 2) + 1 of n.
        acked[self.voters.len() / 2]
    }

    /// How many servers vote.
    #[must_use]
    pub fn len(&self) -> usize {
        self.voters.len()
    }

    /// Never true; there is at least one voter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    fn at(counter: u64) -> Zxid {
        Zxid::new(Epoch(1), counter)
    }

    fn of(count: u32) -> Quorum {
        Quorum::new(&(1..=count).map(ServerId).collect::<Vec<_>>())
    }

    #[test]
    fn more_than_half_must_have_acknowledged() {
        for (voters, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)] {
            let mut quorum = of(voters);
            for id in 1..needed {
                quorum.ack(ServerId(id), at(5));
                assert_eq!(quorum.acked_by_majority(), Zxid::ZERO, "{id} of {voters}");
            }
            quorum.ack(ServerId(needed), at(5));
            assert_eq!(quorum.acked_by_majority(), at(5), "{needed} of {voters}");
        }
    }

    #[test]
    fn the_slower_half_decides_how_far_the_majority_is() {
        let mut quorum = of(3);
        quorum.ack(ServerId(1), at(9));
        quorum.ack(ServerId(2), at(4));
        assert_eq!(quorum.acked_by_majority(), at(4));
        quorum.ack(ServerId(2), at(2));
        assert_eq!(
            quorum.acked_by_majority(),
            at(4),
            "an old acknowledgement takes nothing back"
        );
    }

    #[test]
    fn a_stranger_and_a_repeated_voter_count_for_nothing() {
        let mut quorum = Quorum::new(&[ServerId(1), ServerId(1), ServerId(2), ServerId(3)]);
        assert_eq!(quorum.len(), 3);
        quorum.ack(ServerId(9), at(7));
        quorum.ack(ServerId(1), at(7));
        quorum.ack(ServerId(1), at(7));
        assert_eq!(quorum.acked_by_majority(), Zxid::ZERO);
    }
}
