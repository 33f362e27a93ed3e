//! Z9: what is committed is on synced disks of a quorum, then and ever after, barring disk loss.
//!
//! A voter holds a transaction if it is at or below the end of its synced log, in the log
//! itself or covered by the snapshot the log begins after; a stopped server's disk counts.
//! Checked:
//!
//! - when a server regards more as committed: the ghost does too, so a quorum had it synced;
//! - when the ghost's log grows, when a log was cut or replaced, and at a start: a quorum of
//!   voters hold the end of the committed log, and with it all of it;
//! - at a start: what was synced is there again, on the same branch, and nothing is that was
//!   never appended. A cut or an installation that power interrupted may have happened or not;
//! - when the log is trimmed: a durable snapshot covers what goes.
//!
//! Disk loss: a wiped disk, or a log that is set aside, holds nothing from then on. The world
//! may do that only where [`Ghost::can_lose`] lets it; it is told if a quorum is gone then.

use super::tree::{Node, ROOT};
use super::{Ghost, Growth, Invariant, Verdict, ensure, known};
use crate::sim::invariants::ghost::{Loss, Server};
use crate::sim::observe::Boot;
use crate::types::Zxid;

/// A server regards everything up to `upto` as committed.
pub(super) fn committed(ghost: &Ghost, at: usize, upto: Zxid) -> Verdict {
    let node = known(ghost, at, Invariant::Z9, upto)?;
    ensure(
        ghost.is_committed(node),
        Invariant::Z9,
        ghost.servers()[at].id,
        || {
            let end = ghost.committed_zxid();
            format!("it commits {upto}, while quorums have synced up to {end} only")
        },
    )
}

/// The committed log has grown.
pub(super) fn grown(ghost: &Ghost, at: usize, _growth: &Growth) -> Verdict {
    still(ghost, at)
}

/// A disk may hold less than before.
pub(super) fn still(ghost: &Ghost, at: usize) -> Verdict {
    quorum_holds(ghost, at, Invariant::Z9)
}

/// A disk holds nothing any more.
pub(super) fn lost(ghost: &Ghost, at: usize) -> Verdict {
    quorum_holds(ghost, at, Invariant::World)
}

fn quorum_holds(ghost: &Ghost, at: usize, invariant: Invariant) -> Verdict {
    let holders = ghost.holders(ghost.committed());
    let holds = ghost.is_quorum(holders);
    ensure(holds, invariant, ghost.servers()[at].id, || {
        let end = ghost.committed_zxid();
        format!("the committed {end} is left on the disks {holders:b}, which are no quorum")
    })
}

/// A server is about to start with what it found.
pub(super) fn started(ghost: &Ghost, at: usize, boot: &Boot) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let last = known(ghost, at, Invariant::Z9, boot.last)?;
    if server.loss != Loss::None {
        return ensure(last == ROOT, Invariant::World, server.id, || {
            format!("its disk was lost, and it starts with {}", boot.last)
        });
    }
    let floor = floor(ghost, server);
    let kept = tree.holds(last, floor) && tree.holds(server.tip, last);
    let installed = server.installing == Some(last);
    ensure(kept || installed, Invariant::Z9, server.id, || {
        let (floor, tip) = (tree.zxid(floor), tree.zxid(server.tip));
        let last = boot.last;
        format!("it starts with {last}, with {floor} synced and {tip} appended before")
    })
}

/// The least that must be found on a disk.
fn floor(ghost: &Ghost, server: &Server) -> Node {
    match server.cutting {
        Some(to) if ghost.tree().holds(server.durable, to) => to,
        _ => server.durable,
    }
}

/// The log begins after `begins_after` now.
pub(super) fn trimmed(ghost: &Ghost, at: usize, begins_after: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z9, begins_after)?;
    ensure(
        tree.holds(server.snapshot, node),
        Invariant::Z9,
        server.id,
        || {
            let snapshot = tree.zxid(server.snapshot);
            format!("its log is trimmed up to {begins_after}, its snapshot covers {snapshot}")
        },
    )
}
