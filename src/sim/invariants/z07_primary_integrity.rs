//! Z7: primary integrity. If a primary broadcasts m, and any server ever delivers some m′ of an
//! earlier epoch, then the primary delivered m′ before it broadcast m.
//!
//! It is enough to look at a primary's first broadcast. Two moments can break it, and both are
//! checked: the broadcast, against all that has been delivered anywhere; and each later
//! delivery, against all primaries of later epochs that have broadcast already. Positions in
//! the one order of deliveries (Z4) stand for the transactions.

use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::types::{Epoch, Zxid};

/// How much each primary had delivered when it first broadcast.
#[derive(Debug, Default)]
pub(super) struct PrimaryIntegrity {
    /// Of each epoch with a broadcast, ascending.
    firsts: Vec<First>,
}

#[derive(Clone, Copy, Debug)]
struct First {
    epoch: Epoch,
    /// How many transactions the primary of this or of any later epoch had delivered at its
    /// first broadcast, at the least.
    least: u64,
}

impl PrimaryIntegrity {
    /// A primary broadcasts `zxid`.
    pub(super) fn broadcast(&mut self, ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
        if zxid.counter != 1 {
            return Ok(());
        }
        let server = &ghost.servers()[at];
        let delivered = ghost.tree().depth(server.applied);
        let order = ghost.delivered();
        // Epochs never go down along the order (Z6).
        let earlier = order.partition_point(|other| other.epoch < zxid.epoch) as u64;
        ensure(delivered >= earlier, Invariant::Z7, server.id, || {
            format!(
                "it broadcasts {zxid} with {delivered} transactions delivered, while {earlier} \
                 of earlier epochs have been delivered elsewhere"
            )
        })?;
        self.insert(zxid.epoch, delivered);
        Ok(())
    }

    /// An application is given `zxid`.
    pub(super) fn delivered(&self, ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
        // Most deliveries are of the newest epoch.
        if self
            .firsts
            .last()
            .is_none_or(|last| last.epoch <= zxid.epoch)
        {
            return Ok(());
        }
        let node = known(ghost, at, Invariant::Z7, zxid)?;
        let later = self
            .firsts
            .partition_point(|first| first.epoch <= zxid.epoch);
        let least = self.firsts.get(later).map_or(u64::MAX, |first| first.least);
        let place = ghost.tree().depth(node);
        ensure(
            place <= least,
            Invariant::Z7,
            ghost.servers()[at].id,
            || {
                format!(
                    "it delivers {zxid} in place {place}, which a later primary had not \
                     delivered when it began to broadcast (it had {least})"
                )
            },
        )
    }

    fn insert(&mut self, epoch: Epoch, delivered: u64) {
        let at = self.firsts.partition_point(|first| first.epoch < epoch);
        let after = self.firsts.get(at).map_or(u64::MAX, |first| first.least);
        let least = delivered.min(after);
        self.firsts.insert(at, First { epoch, least });
        for first in self.firsts[..at].iter_mut().rev() {
            if first.least <= least {
                break;
            }
            first.least = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{Script, at, broadcast, established};

    #[test]
    fn a_primary_that_has_not_delivered_what_came_before_is_refused() {
        let mut script = Script::settled();
        script.stop(2);
        script.start(2);
        script.synchronize(2, 2, &[3]);
        script.see(established(2, 2));
        script.deliver(2, at(1, 1));
        script.refused(Invariant::Z7, broadcast(2, at(2, 1)));
    }

    #[test]
    fn a_delivery_that_a_later_primary_did_not_know_of_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(1, at(1, 3));
        script.elect(2, 2, &[3]);
        script.broadcast(at(2, 1), 2);
        let seen = script.delivered(1, at(1, 3));
        script.refused(Invariant::Z7, seen);
    }

    #[test]
    fn late_deliveries_of_what_the_primary_had_are_right() {
        let mut script = Script::settled();
        script.stop(3);
        script.start(3);
        script.elect(2, 2, &[1]);
        script.broadcast(at(2, 1), 2);
        script.deliver(3, at(1, 1));
        script.deliver(3, at(1, 2));
    }

    #[test]
    fn the_least_of_all_later_primaries_counts_in_whatever_order_they_begin() {
        let mut known = PrimaryIntegrity::default();
        known.insert(Epoch(2), 5);
        known.insert(Epoch(9), 9);
        known.insert(Epoch(1), 7);
        known.insert(Epoch(4), 3);
        let least: Vec<u64> = known.firsts.iter().map(|first| first.least).collect();
        assert_eq!(least, [3, 3, 3, 9]);
        known.insert(Epoch(3), 4);
        let least: Vec<u64> = known.firsts.iter().map(|first| first.least).collect();
        assert_eq!(least, [3, 3, 3, 3, 9]);
    }
}
