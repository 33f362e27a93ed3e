//! Z10: Trunc never removes a ghost-committed transaction.
//!
//! Checked when a cut begins and again when it has been made, against the whole log as
//! appended; and likewise when a snapshot is about to take the place of a log: what it covers
//! contains everything committed that the log held. A cut is made at a transaction the log
//! holds.
//!
//! Committed means: by virtue of the epoch the server has accepted, or an earlier one. A server
//! that went along with a prospective leader can be slow to cut; if that leader has failed
//! meanwhile, and a later one, with that suffix in its history, has got it onto a quorum, then
//! the late cut removes one copy too many, rightly: this server was not of that quorum, which
//! Z9 goes on counting.

use super::{Ghost, Invariant, Node, Verdict, ensure, known, refuse};
use crate::types::Zxid;

/// The log is cut, so that it ends at `to`.
pub(super) fn cut(ghost: &Ghost, at: usize, to: Zxid) -> Verdict {
    let server = &ghost.servers()[at];
    let node = known(ghost, at, Invariant::Z10, to)?;
    if !ghost.tree().holds(server.tip, node) {
        return refuse(Invariant::Z10, server.id, || {
            let tip = ghost.tree().zxid(server.tip);
            format!("its log up to {tip} is cut after {to}, which it does not hold")
        });
    }
    keeps_committed(ghost, at, node, "is cut after")
}

/// A snapshot as of `zxid` takes the place of the log.
pub(super) fn replaced(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let node = known(ghost, at, Invariant::Z10, zxid)?;
    keeps_committed(ghost, at, node, "is replaced by a snapshot of")
}

fn keeps_committed(ghost: &Ghost, at: usize, to: Node, what: &str) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let fork = tree.meet(server.tip, to);
    let Some(first) = tree.child_towards(server.tip, fork) else {
        return Ok(());
    };
    let lost = ghost.committed_by(first);
    ensure(
        lost.is_none_or(|by| by > server.accepted),
        Invariant::Z10,
        server.id,
        || {
            let (tip, to, first) = (tree.zxid(server.tip), tree.zxid(to), tree.zxid(first));
            format!("its log up to {tip} {what} {to}, and {first} is committed")
        },
    )
}
