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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{Script, at, installing, truncated, truncating};

    #[test]
    fn a_cut_below_what_is_committed_is_refused() {
        for cut in [truncating, truncated] {
            let mut script = Script::settled();
            script.accept(3, 2);
            script.refused(Invariant::Z10, cut(3, at(1, 1)));
            Script::settled().refused(Invariant::Z10, cut(3, at(1, 1)));
        }
    }

    #[test]
    fn what_is_committed_need_not_be_synced_to_be_kept() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        for server in [1, 2] {
            script.append(server, at(1, 3));
            script.sync(server);
        }
        script.accept(3, 2);
        script.refused(Invariant::Z10, truncating(3, at(1, 2)));
    }

    #[test]
    fn a_cut_of_an_uncommitted_suffix_is_right() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.accept(3, 2);
        script.see(truncating(3, at(1, 2)));
        script.see(truncated(3, at(1, 2)));
        assert_eq!(script.tip(3), at(1, 2));
    }

    #[test]
    fn a_cut_at_what_the_log_does_not_hold_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.refused(Invariant::Z10, truncating(3, at(1, 3)));
    }

    #[test]
    fn a_snapshot_that_lacks_what_is_committed_is_refused() {
        let mut script = Script::settled();
        let digest = script.digest(at(1, 1));
        script.accept(3, 2);
        script.refused(Invariant::Z10, installing(3, at(1, 1), digest));
    }

    /// Server 4 goes along with the leader of epoch 2, which has 1:2, and is slow to cut 1:3;
    /// server 5 gets 1:3 committed in epoch 3.
    #[test]
    fn a_late_cut_may_remove_what_a_later_epoch_has_committed_without_it() {
        let mut script = Script::of(5);
        script.elect(1, 1, &[2, 3, 4, 5]);
        script.write(at(1, 1), 1, &[2, 3, 4, 5]);
        script.write(at(1, 2), 1, &[2, 3, 4, 5]);
        script.broadcast(at(1, 3), 1);
        for server in [4, 5] {
            script.append(server, at(1, 3));
            script.sync(server);
        }
        script.discover(2, 2, &[1, 3]);
        script.tell(2, 1, 2, at(1, 2));
        script.promise(4, 2, 2);
        script.tell(2, 4, 2, at(1, 2));
        script.elect(5, 3, &[1, 3]);
        assert_eq!(script.ghost().committed_zxid(), at(1, 3));
        script.see(truncating(4, at(1, 2)));
        script.see(truncated(4, at(1, 2)));

        script.accept(1, 4);
        script.refused(Invariant::Z10, truncating(1, at(1, 2)));
    }
}
