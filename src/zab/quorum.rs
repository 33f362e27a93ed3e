//! When enough servers agree.
//!
//! Every count of servers is taken here, so that a change of the ensemble, with its quorums of
//! the old and of the new members, has one place to go to.

use super::plant::{Plant, Plants};
use super::settings::{Ensemble, VOTERS_MAX};
use crate::types::ServerId;

/// The quorums of one ensemble.
#[derive(Clone, Copy)]
pub(super) struct Quorum<'a> {
    voters: &'a [ServerId],
    observers: &'a [ServerId],
    plants: Plants,
}

impl<'a> Quorum<'a> {
    pub(super) fn of(ensemble: &'a Ensemble, plants: Plants) -> Quorum<'a> {
        Quorum {
            voters: ensemble.voters(),
            observers: ensemble.observers(),
            plants,
        }
    }

    /// True if more than half of the voters `agree`.
    pub(super) fn agrees(self, mut agree: impl FnMut(ServerId) -> bool) -> bool {
        let mut count = self.voters.iter().filter(|&&id| agree(id)).count();
        if self.plants.has(Plant::ObserversCount) {
            count += self.observers.iter().filter(|&&id| agree(id)).count();
        }
        count >= self.needed()
    }

    /// True if every voter `agrees`.
    pub(super) fn all_agree(self, agree: impl FnMut(&ServerId) -> bool) -> bool {
        self.voters.iter().all(agree)
    }

    /// The greatest value that more than half of the voters have reached, `reached` being how
    /// far each has come.
    pub(super) fn settled<T: Ord + Copy + Default>(
        self,
        mut reached: impl FnMut(ServerId) -> T,
    ) -> T {
        let mut values = [T::default(); VOTERS_MAX];
        let values = &mut values[..self.voters.len()];
        for (value, &id) in values.iter_mut().zip(self.voters) {
            *value = reached(id);
        }
        values.sort_unstable();
        values[self.voters.len() - self.needed()]
    }

    /// How many voters are more than half of them.
    fn needed(self) -> usize {
        if self.plants.has(Plant::HalfIsQuorum) {
            return (self.voters.len() / 2).max(1);
        }
        self.voters.len() / 2 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensemble(voters: u32) -> Ensemble {
        let voters: Vec<ServerId> = (1..=voters).map(ServerId).collect();
        Ensemble::new(1, &voters, &[ServerId(90), ServerId(91), ServerId(92)])
    }

    #[test]
    fn more_than_half_of_the_voters_is_a_quorum_and_half_is_not() {
        for (voters, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            let ensemble = ensemble(voters);
            let quorum = Quorum::of(&ensemble, Plants::NONE);
            assert!(quorum.agrees(|id| id.0 <= needed), "{needed} of {voters}");
            assert!(
                !quorum.agrees(|id| id.0 < needed),
                "below {needed} of {voters}"
            );
            assert_eq!(quorum.all_agree(|id| id.0 <= needed), needed == voters);
        }
    }

    #[test]
    fn observers_count_for_nothing() {
        let ensemble = ensemble(3);
        let quorum = Quorum::of(&ensemble, Plants::NONE);
        assert!(!quorum.agrees(|id| id.0 == 1 || id.0 >= 90));
    }

    #[test]
    fn the_slower_half_decides_how_far_the_majority_is() {
        let reached = [9, 4, 7, 1, 3];
        for (voters, settled) in [(1, 9), (2, 4), (3, 7), (4, 4), (5, 4)] {
            let ensemble = ensemble(voters);
            let quorum = Quorum::of(&ensemble, Plants::NONE);
            assert_eq!(
                quorum.settled(|id| reached[id.0 as usize - 1]),
                settled,
                "{voters}"
            );
        }
    }
}
