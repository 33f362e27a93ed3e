//! Z3: what is delivered was broadcast by the primary of its epoch, with the same bytes, and is
//! delivered at most once.
//!
//! Checked at each broadcast: the zxid is new. At each append and each delivery: the
//! transaction was broadcast and its payload has the hash it was broadcast with. At each
//! delivery: the application does not hold it yet; an application begins anew at a start and
//! with a snapshot, and what a snapshot covers counts as delivered. For a snapshot: what it
//! ends with was broadcast. The hash has 64 bits, and stands for the bytes.

use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::types::Zxid;

/// A primary broadcasts `zxid`.
pub(super) fn broadcast(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let new = ghost.tree().find(zxid).is_none();
    ensure(new, Invariant::Z3, ghost.servers()[at].id, || {
        format!("{zxid} is broadcast a second time")
    })
}

/// `zxid` comes to a log or an application.
pub(super) fn logged(ghost: &Ghost, at: usize, zxid: Zxid, hash: u64) -> Verdict {
    let node = known(ghost, at, Invariant::Z3, zxid)?;
    let same = ghost.tree().hash(node) == hash;
    ensure(same, Invariant::Z3, ghost.servers()[at].id, || {
        format!("{zxid} has other bytes than it was broadcast with")
    })
}

/// A history that ends with `zxid` is spoken of.
pub(super) fn covered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    known(ghost, at, Invariant::Z3, zxid).map(|_| ())
}

/// An application is given `zxid`.
pub(super) fn delivered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let node = known(ghost, at, Invariant::Z3, zxid)?;
    let server = &ghost.servers()[at];
    let again = ghost.tree().holds(server.applied, node);
    ensure(!again, Invariant::Z3, server.id, || {
        format!("{zxid} is delivered a second time")
    })
}
