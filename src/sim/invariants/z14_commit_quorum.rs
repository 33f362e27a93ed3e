//! Z14: no commit without the quorum.
//!
//! Z9 asks the disks; this asks the messages. A leader of epoch e may take itself for
//! established once a quorum have acknowledged its history, itself included by its own disk; it
//! may commit, or say that it has, what a quorum of those have acknowledged, itself included by
//! its own sync. An acknowledgement counts once it has been *sent*: the world may lose it, and
//! then the leader knows less than is counted here, never more.
//!
//! An `AckNewLeader` says that everything synced at that moment is held. A leader's own part is
//! its synced log while its current epoch is e. Whatever reaches an application, by delivery or
//! by a snapshot, is committed by the ghost's account.
//!
//! There is one configuration as yet: at most one pending one, and joint quorums, have their
//! place in [`Ghost::quorum_of`] and [`Ghost::is_quorum`].

use super::ghost::SERVERS_MAX;
use super::{Ghost, Invariant, Node, Verdict, ensure, known, refuse};
use crate::types::{Epoch, Zxid};

/// What has been acknowledged in each epoch.
#[derive(Debug, Default)]
pub(super) struct CommitQuorum {
    /// By run.
    acked: Vec<Acked>,
}

#[derive(Clone, Copy, Debug)]
struct Acked {
    /// By server: one more than the depth it has acknowledged; 0 if it has acknowledged nothing,
    /// not even the history, which Z15 asks to be the first.
    depth: [u64; SERVERS_MAX],
    /// One more than the depth up to which commits are known to be right.
    passed: u64,
}

const NOTHING: Acked = Acked {
    depth: [0; SERVERS_MAX],
    passed: 0,
};

impl CommitQuorum {
    /// A learner has acknowledged the history of `epoch`.
    pub(super) fn ack_new_leader(&mut self, ghost: &Ghost, at: usize, epoch: Epoch) {
        if let Some(run) = ghost.tree().run_of(epoch) {
            let depth = ghost.tree().depth(ghost.servers()[at].durable) + 1;
            let acked = &mut self.of(run).depth[at];
            *acked = depth.max(*acked);
        }
    }

    /// A learner has acknowledged everything up to `zxid`.
    pub(super) fn ack(&mut self, ghost: &Ghost, at: usize, epoch: Epoch, zxid: Zxid) {
        let found = ghost.tree().run_of(epoch).zip(ghost.tree().find(zxid));
        if let Some((run, node)) = found {
            let depth = ghost.tree().depth(node) + 1;
            let acked = &mut self.of(run).depth[at];
            *acked = depth.max(*acked);
        }
    }

    /// A server takes itself for the established leader of `epoch`.
    pub(super) fn established(&mut self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        let tree = ghost.tree();
        let history = match tree.run_of(epoch) {
            Some(run) => tree.base(run),
            None => ghost.servers()[at].durable,
        };
        self.quorum_has(ghost, at, epoch, history, "is established")
    }

    /// A server says, as the leader of `epoch`, that everything up to `upto` is committed.
    pub(super) fn told(&mut self, ghost: &Ghost, at: usize, epoch: Epoch, upto: Zxid) -> Verdict {
        let node = known(ghost, at, Invariant::Z14, upto)?;
        self.quorum_has(ghost, at, epoch, node, "tells of a commit")
    }

    /// A server regards everything up to `upto` as committed.
    pub(super) fn committed(&mut self, ghost: &Ghost, at: usize, upto: Zxid) -> Verdict {
        let server = &ghost.servers()[at];
        let node = known(ghost, at, Invariant::Z14, upto)?;
        let leads = |run: &usize| {
            let reign = ghost.reign(*run);
            let own = ghost.tree().primary(*run) == server.id && reign.starts == server.starts;
            own && !reign.is_over(ghost.now_us())
        };
        // Whoever does not lead is told, and what it was told has been checked.
        match ghost.tree().run_of(server.current).filter(leads) {
            Some(_) => self.quorum_has(ghost, at, server.current, node, "commits"),
            None => Ok(()),
        }
    }

    fn quorum_has(
        &mut self,
        ghost: &Ghost,
        at: usize,
        epoch: Epoch,
        node: Node,
        what: &str,
    ) -> Verdict {
        let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
        let depth = tree.depth(node) + 1;
        let mut acked = NOTHING;
        if let Some(run) = tree.run_of(epoch) {
            acked = *self.of(run);
            if depth <= acked.passed {
                return Ok(());
            }
        }
        if server.current == epoch {
            acked.depth[at] = tree.depth(server.durable) + 1;
        }
        let passed = ghost.quorum_of(&acked.depth);
        if depth <= passed {
            if let Some(run) = tree.run_of(epoch) {
                self.of(run).passed = passed;
            }
            return Ok(());
        }
        refuse(Invariant::Z14, server.id, || {
            let zxid = tree.zxid(node);
            format!(
                "it {what} in epoch {epoch} up to {zxid}, which no quorum has acknowledged \
                 ({depth} of {passed})"
            )
        })
    }

    fn of(&mut self, run: usize) -> &mut Acked {
        if self.acked.len() <= run {
            self.acked.resize(run + 1, NOTHING);
        }
        &mut self.acked[run]
    }
}

/// An application holds `zxid` from now on.
pub(super) fn relied_on(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let node = known(ghost, at, Invariant::Z14, zxid)?;
    ensure(
        ghost.is_committed(node),
        Invariant::Z14,
        ghost.servers()[at].id,
        || {
            let end = ghost.committed_zxid();
            format!("its application gets {zxid}, while quorums hold up to {end} only")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, at, commit, committed, current, deposed, established, restored, said,
    };
    use crate::sim::observe::Said;

    /// 1:3 is on the way: synced at the leader if `own`, acknowledged by `acked`.
    fn under_way(own: bool, acked: &[u32]) -> Script {
        let mut script = Script::with_observers(5, 1);
        script.elect(1, 1, &[2, 3, 4, 5, 6]);
        script.write(at(1, 1), 1, &[2, 3, 4, 5, 6]);
        script.broadcast(at(1, 2), 1);
        script.append(1, at(1, 2));
        if own {
            script.sync(1);
        }
        for server in [2, 3, 4, 5] {
            script.propose(1, server, at(1, 2));
        }
        for &server in acked {
            script.append(server, at(1, 2));
            script.sync(server);
            script.ack(server, 1, at(1, 2));
        }
        script
    }

    #[test]
    fn a_leader_needs_a_quorum_of_acks_to_be_established() {
        let mut script = Script::with_observers(5, 1);
        script.discover(1, 1, &[2, 3, 4, 5, 6]);
        for server in [2, 3, 6] {
            script.tell(1, server, 1, Zxid::ZERO);
        }
        script.see(current(1, 1));
        script.join(2, 1, 1);
        script.join(6, 1, 1);
        script.see(current(3, 1));
        script.refused(Invariant::Z14, established(1, 1));
    }

    #[test]
    fn a_commit_needs_a_quorum_of_acks_or_the_leaders_own_sync_among_them() {
        for (own, acked, right) in [
            (true, &[2, 3][..], true),
            (false, &[2, 3, 4], true),
            (true, &[2, 6], false),
            (false, &[2, 3], false),
        ] {
            for seen in [
                committed(1, at(1, 2)),
                commit(1, 2, 1, at(1, 2)),
                said(
                    1,
                    2,
                    Said::UpToDate {
                        epoch: Epoch(1),
                        upto: at(1, 2),
                    },
                ),
                said(
                    1,
                    6,
                    Said::Inform {
                        epoch: Epoch(1),
                        zxid: at(1, 2),
                    },
                ),
            ] {
                let mut script = under_way(own, acked);
                if right {
                    script.see(seen);
                    script.see(commit(1, 2, 1, at(1, 2)));
                } else {
                    script.refused(Invariant::Z14, seen);
                }
            }
        }
    }

    #[test]
    fn what_is_synced_and_not_acknowledged_does_not_count() {
        let mut script = under_way(true, &[2]);
        script.append(3, at(1, 2));
        script.sync(3);
        script.refused(Invariant::Z14, commit(1, 2, 1, at(1, 2)));
    }

    #[test]
    fn a_rejoining_follower_acknowledges_all_that_it_has() {
        let mut script = under_way(true, &[2]);
        script.append(3, at(1, 2));
        script.sync(3);
        script.tell(1, 3, 1, at(1, 2));
        script.see(crate::sim::invariants::script::ack_new_leader(3, 1, 1));
        script.see(commit(1, 2, 1, at(1, 2)));
    }

    #[test]
    fn a_rejoining_follower_acknowledges_no_more_than_it_has() {
        let mut script = under_way(true, &[2]);
        script.tell(1, 3, 1, at(1, 1));
        script.see(crate::sim::invariants::script::ack_new_leader(3, 1, 1));
        script.refused(Invariant::Z14, commit(1, 2, 1, at(1, 2)));
    }

    #[test]
    fn a_leader_that_has_ceased_to_lead_may_be_told_of_commits() {
        let mut script = under_way(true, &[2]);
        script.append(3, at(1, 2));
        script.sync(3);
        script.see(deposed(1, 1));
        script.see(committed(1, at(1, 2)));
    }

    #[test]
    fn an_application_gets_only_what_is_committed() {
        let mut script = under_way(true, &[2]);
        let seen = script.delivered(2, at(1, 2));
        script.refused(Invariant::Z14, seen);
        let mut script = under_way(true, &[2]);
        let digest = script.digest(at(1, 2));
        script.refused(Invariant::Z14, restored(2, at(1, 2), digest));
    }

    #[test]
    fn an_acknowledgement_of_less_takes_nothing_back() {
        let mut script = under_way(true, &[2, 3]);
        script.ack(3, 1, at(1, 1));
        script.see(commit(1, 2, 1, at(1, 2)));
    }
}
