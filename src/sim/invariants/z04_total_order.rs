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
