//! Z2: committed prefixes are pairwise equal.
//!
//! Checked whenever a server regards more as committed: of the two histories that end there and
//! at the furthest that any server has regarded as committed before, one is a prefix of the
//! other. By induction that holds for every pair of servers, whatever the ghost thinks. What a
//! server regards as committed is on the path of its own log, and it never goes back while the
//! server runs.
//!
//! A snapshot of own state says that what it covers is committed: it must not reach beyond
//! what its server regards as committed.

use super::tree::{Node, ROOT};
use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::types::Zxid;

/// The furthest that any server has regarded as committed.
#[derive(Debug)]
pub(super) struct CommittedPrefixes {
    furthest: Node,
}

impl Default for CommittedPrefixes {
    fn default() -> CommittedPrefixes {
        CommittedPrefixes { furthest: ROOT }
    }
}

impl CommittedPrefixes {
    /// A server regards everything up to `upto` as committed.
    pub(super) fn committed(&mut self, ghost: &Ghost, at: usize, upto: Zxid) -> Verdict {
        let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
        let node = known(ghost, at, Invariant::Z2, upto)?;
        let furthest = self.furthest;
        let grows = tree.holds(node, furthest);
        ensure(
            grows || tree.holds(furthest, node),
            Invariant::Z2,
            server.id,
            || {
                let other = tree.zxid(furthest);
                format!("it commits {upto} on another branch than {other}, committed before")
            },
        )?;
        ensure(
            tree.holds(node, server.committed),
            Invariant::Z2,
            server.id,
            || {
                let before = tree.zxid(server.committed);
                format!("its committed position goes from {before} back to {upto}")
            },
        )?;
        ensure(
            tree.comparable(node, server.tip),
            Invariant::Z2,
            server.id,
            || {
                let tip = tree.zxid(server.tip);
                format!("it commits {upto}, which its log up to {tip} is not on the way to")
            },
        )?;
        if grows {
            self.furthest = node;
        }
        Ok(())
    }
}

/// A server begins to write a snapshot of its state as of `zxid`.
pub(super) fn snapshot(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z2, zxid)?;
    ensure(
        tree.holds(server.committed, node),
        Invariant::Z2,
        server.id,
        || {
            let committed = tree.zxid(server.committed);
            format!("its snapshot covers {zxid}, and it has committed up to {committed} only")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{Script, at, committed, snapshotting};

    /// 1:3 is on server 1 alone, and 2:1 is committed without it.
    fn parted() -> Script {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(1, at(1, 3));
        script.sync(1);
        script.stop(1);
        script.elect(2, 2, &[3]);
        script.write(at(2, 1), 2, &[3]);
        script.start(1);
        script
    }

    #[test]
    fn a_commit_on_another_branch_is_refused() {
        parted().refused(Invariant::Z2, committed(1, at(1, 3)));
    }

    #[test]
    fn a_commit_of_what_the_own_log_has_parted_from_is_refused() {
        parted().refused(Invariant::Z2, committed(1, at(2, 1)));
    }

    #[test]
    fn a_committed_position_that_goes_back_is_refused() {
        let mut script = Script::settled();
        script.see(committed(2, at(1, 2)));
        script.refused(Invariant::Z2, committed(2, at(1, 1)));
    }

    #[test]
    fn a_commit_may_come_before_the_append() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        for server in [1, 2] {
            script.append(server, at(1, 3));
            script.sync(server);
        }
        script.commit(3, at(1, 3));
        script.deliver(3, at(1, 3));
    }

    #[test]
    fn a_snapshot_beyond_what_is_committed_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(2, at(1, 3));
        let digest = script.digest(at(1, 3));
        script.refused(Invariant::Z2, snapshotting(2, at(1, 3), digest));
    }
}
