//! Z4: total order. What any server delivers as its n-th transaction, every server delivers as
//! its n-th.
//!
//! Checked at each delivery, against the sequence of all that was delivered anywhere. This does
//! not rely on the tree for the order: the sequence is kept as zxids. A restored snapshot counts
//! as the delivery of all it covers, and does not take a running application back.

use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::types::Zxid;

/// An application is given `zxid`.
pub(super) fn delivered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let server = &ghost.servers()[at];
    let position = ghost.tree().depth(server.applied);
    let order = usize::try_from(position);
    let elsewhere = order.ok().and_then(|at| ghost.delivered().get(at));
    ensure(
        elsewhere.is_none_or(|&other| other == zxid),
        Invariant::Z4,
        server.id,
        || {
            let other = elsewhere.copied().unwrap_or_default();
            let place = position + 1;
            format!("it delivers {zxid} as its transaction {place}, another server {other}")
        },
    )
}

/// An application is set to the state as of `zxid`.
pub(super) fn restored(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z4, zxid)?;
    let order = ghost.delivered();
    let place = tree.depth(node).checked_sub(1).map(|at| at as usize);
    let there = place.and_then(|at| order.get(at));
    ensure(
        there.is_none_or(|&other| other == zxid),
        Invariant::Z4,
        server.id,
        || format!("it is restored to {zxid}, where another server has delivered something else"),
    )?;
    ensure(
        tree.holds(node, server.applied),
        Invariant::Z4,
        server.id,
        || {
            let applied = tree.zxid(server.applied);
            format!("its application goes from {applied} back to {zxid}")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{Script, at, restored};

    /// Server 1 delivers 1:3 where the others are about to deliver 2:1.
    fn parted() -> Script {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(1, at(1, 3));
        let early = script.delivered(1, at(1, 3));
        script.elect(2, 2, &[3]);
        script.broadcast(at(2, 1), 2);
        script.force(early);
        script
    }

    #[test]
    fn two_orders_are_refused() {
        let mut script = parted();
        let other = script.delivered(2, at(2, 1));
        script.refused(Invariant::Z4, other);
    }

    #[test]
    fn a_snapshot_of_another_order_is_refused() {
        let mut script = parted();
        let digest = script.digest(at(2, 1));
        script.refused(Invariant::Z4, restored(2, at(2, 1), digest));
    }

    #[test]
    fn an_application_is_not_set_back() {
        let mut script = Script::settled();
        let digest = script.digest(at(1, 2));
        script.see(restored(2, at(1, 2), digest));
        let digest = script.digest(at(1, 1));
        script.refused(Invariant::Z4, restored(2, at(1, 1), digest));
    }

    #[test]
    fn a_snapshot_counts_as_the_delivery_of_all_it_covers() {
        let mut script = Script::settled();
        script.stop(3);
        script.write(at(1, 3), 1, &[2]);
        script.start(3);
        let digest = script.digest(at(1, 3));
        script.see(restored(3, at(1, 3), digest));
        let order: Vec<u64> = script
            .ghost()
            .delivered()
            .iter()
            .map(|z| z.counter)
            .collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
