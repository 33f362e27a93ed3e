//! Z6: global primary order. If m was broadcast in an epoch before that of m′, no server
//! delivers m after m′.
//!
//! Checked, stronger than that, at each delivery and each append that changes the epoch: right
//! before it comes the end of the history that its primary began with, which is of earlier
//! epochs. So epochs never go down, and not only the order but the very transactions of earlier
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
    // A history that a primary begins with is of earlier epochs: this refuses the way back too.
    let base = tree.run_of(zxid.epoch).map(|run| tree.base(run));
    ensure(base == Some(last), Invariant::Z6, id, || {
        let base = base.map(|base| tree.zxid(base)).unwrap_or_default();
        format!("{what} from {last_zxid} to {zxid}, whose primary began after {base}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{Script, appended, at};

    /// 2:1 is delivered at 2 and 3, on top of 1:2; 1:3 is at server 1 alone.
    fn two_epochs() -> Script {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.elect(2, 2, &[3]);
        script.write(at(2, 1), 2, &[3]);
        script
    }

    #[test]
    fn a_log_or_an_application_that_returns_to_an_earlier_epoch_is_refused() {
        two_epochs().refused(Invariant::Z6, appended(3, at(1, 1)));
        let mut script = two_epochs();
        let seen = script.delivered(3, at(1, 3));
        script.refused(Invariant::Z6, seen);
    }

    #[test]
    fn an_epoch_that_begins_on_another_history_is_refused() {
        let mut script = two_epochs();
        script.stop(1);
        script.start(1);
        script.accept(1, 2);
        script.deliver(1, at(1, 1));
        let seen = script.delivered(1, at(2, 1));
        script.refused(Invariant::Z6, seen);

        let mut script = two_epochs();
        script.append(1, at(1, 3));
        script.accept(1, 2);
        script.refused(Invariant::Z6, appended(1, at(2, 1)));
    }
}
