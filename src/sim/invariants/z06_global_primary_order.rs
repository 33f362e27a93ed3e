//! Z6: global primary order. If m was broadcast in an epoch before that of m′, no server
//! delivers m after m′.
//!
//! Checked at each delivery: epochs never go down. And stronger, at each delivery and each
//! append of the first transaction of an epoch: right before it comes the end of the history
//! that its primary began with, so that not only the order but the very transactions of earlier
//! epochs are the same for all. Together with Z5 this makes every log a path of the tree.

use super::{Ghost, Invariant, Node, Verdict, ensure};
use crate::types::Zxid;

/// A log is given `zxid`.
pub(super) fn appended(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let tip = ghost.servers()[at].tip;
    comes_after(ghost, at, tip, zxid, "its log goes")
}

/// An application is given `zxid`.
pub(super) fn delivered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let applied = ghost.servers()[at].applied;
    comes_after(ghost, at, applied, zxid, "its application goes")
}

fn comes_after(ghost: &Ghost, at: usize, last: Node, zxid: Zxid, what: &str) -> Verdict {
    let (tree, id) = (ghost.tree(), ghost.servers()[at].id);
    let last_zxid = tree.zxid(last);
    if last_zxid.epoch == zxid.epoch {
        return Ok(());
    }
    ensure(last_zxid.epoch < zxid.epoch, Invariant::Z6, id, || {
        format!("{what} from {last_zxid} to {zxid}, of an earlier epoch")
    })?;
    let base = tree.run_of(zxid.epoch).map(|run| tree.base(run));
    ensure(base == Some(last), Invariant::Z6, id, || {
        let base = base.map(|base| tree.zxid(base)).unwrap_or_default();
        format!("{what} from {last_zxid} to {zxid}, whose primary began after {base}")
    })
}
