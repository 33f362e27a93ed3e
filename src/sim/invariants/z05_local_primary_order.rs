//! Z5: local primary order. If a primary broadcasts m before m′, every server that delivers m′
//! has delivered m before; for *all* such pairs, and counters have no gaps.
//!
//! Checked link by link, which makes it hold for all pairs: within an epoch a primary
//! broadcasts, a log takes and an application is given a transaction only right after the one
//! with the counter before it, and the first of an epoch has counter 1. By induction over the
//! counter, whoever is given (e, c) was given (e, 1) … (e, c − 1) before, in this order. What a
//! snapshot covers counts as given.

use super::{Ghost, Invariant, Node, Verdict, ensure};
use crate::types::Zxid;

/// A primary broadcasts `zxid`.
pub(super) fn broadcast(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let run = ghost.tree().run_of(zxid.epoch);
    let last = run.map_or(0, |run| ghost.tree().len(run));
    let next = last.checked_add(1) == Some(zxid.counter);
    ensure(next, Invariant::Z5, ghost.servers()[at].id, || {
        format!("it broadcasts {zxid} after counter {last}")
    })
}

/// A log is given `zxid`.
pub(super) fn appended(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let tip = ghost.servers()[at].tip;
    succeeds(ghost, at, tip, zxid, "its log goes")
}

/// An application is given `zxid`.
pub(super) fn delivered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let applied = ghost.servers()[at].applied;
    succeeds(ghost, at, applied, zxid, "its application goes")
}

fn succeeds(ghost: &Ghost, at: usize, last: Node, zxid: Zxid, what: &str) -> Verdict {
    let last = ghost.tree().zxid(last);
    let before = if last.epoch == zxid.epoch {
        last.counter
    } else {
        0
    };
    let next = before.checked_add(1) == Some(zxid.counter);
    ensure(next, Invariant::Z5, ghost.servers()[at].id, || {
        format!("{what} from {last} to {zxid}: a primary's transactions are missing or repeated")
    })
}
