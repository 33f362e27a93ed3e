//! Z8: the ghost committed log only grows, and every established leader's log contains it.
//!
//! The log grows when a quorum come to hold more in one epoch (see the ghost). Checked then:
//! what they hold lies on top of what was committed before, and every leader of a later epoch
//! that is established already has it in the history it began with. Checked when a leader
//! becomes established: its history contains everything that is committed by virtue of earlier
//! epochs. What later epochs commit is not asked of it: a leader may wake up late and find
//! itself elected in an epoch that is past.

use super::{Ghost, Growth, Invariant, Verdict, ensure};
use crate::types::Epoch;

/// A server is about to be the established leader of `epoch`.
pub(super) fn established(ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let history = match tree.run_of(epoch) {
        Some(run) => tree.base(run),
        None => server.durable,
    };
    let before = ghost.committed_before(epoch);
    ensure(
        tree.holds(history, before),
        Invariant::Z8,
        server.id,
        || {
            let (history, before) = (tree.zxid(history), tree.zxid(before));
            format!("it leads epoch {epoch} from {history} on, without the committed {before}")
        },
    )
}

/// The committed log has grown.
pub(super) fn grown(ghost: &Ghost, at: usize, growth: &Growth) -> Verdict {
    let (tree, id) = (ghost.tree(), ghost.servers()[at].id);
    let by = tree.epoch(growth.by);
    ensure(!growth.forks, Invariant::Z8, id, || {
        let (from, to) = (tree.zxid(growth.from), tree.zxid(growth.to));
        format!("a quorum of epoch {by} hold {to}, without {from}, which is committed")
    })?;
    for run in tree.runs_after(by) {
        let without = ghost.reign(run).established && !tree.holds(tree.base(run), growth.to);
        ensure(!without, Invariant::Z8, id, || {
            let (to, later) = (tree.zxid(growth.to), tree.epoch(run));
            format!("epoch {by} commits {to}, which the leader of epoch {later} began without")
        })?;
    }
    Ok(())
}
