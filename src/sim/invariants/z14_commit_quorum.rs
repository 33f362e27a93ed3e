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
    /// By server: one more than the depth it has acknowledged; 0 if it has not acknowledged the
    /// history.
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
            if *acked > 0 {
                *acked = depth.max(*acked);
            }
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
