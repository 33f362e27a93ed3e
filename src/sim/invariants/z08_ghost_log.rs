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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::established as becomes_established;
    use crate::sim::invariants::script::{
        Script, appended, at, broadcast, current, durable, new_leader, truncated,
    };

    /// 1:2 is committed without server 3.
    fn behind() -> Script {
        let mut script = Script::of(3);
        script.elect(1, 1, &[2, 3]);
        script.write(at(1, 1), 1, &[2, 3]);
        script.write(at(1, 2), 1, &[2]);
        script
    }

    #[test]
    fn a_leader_without_the_committed_log_is_refused() {
        let mut script = behind();
        script.discover(3, 2, &[2]);
        let at_3 = script.ghost().index(crate::types::ServerId(3)).unwrap();
        let unannounced = established(script.ghost(), at_3, Epoch(2));
        assert_eq!(unannounced.unwrap_err().invariant, Invariant::Z8);
        script.see(new_leader(3, 2, 2, at(1, 1)));
        let announced = established(script.ghost(), at_3, Epoch(2));
        assert_eq!(announced.unwrap_err().invariant, Invariant::Z8);
        let before = established(script.ghost(), at_3, Epoch(1));
        assert_eq!(before, Ok(()), "nothing was committed before epoch 1");
    }

    #[test]
    fn a_quorum_on_another_branch_is_refused() {
        let mut script = behind();
        script.discover(3, 2, &[2]);
        script.see(new_leader(3, 2, 2, at(1, 1)));
        script.force(truncated(2, at(1, 1)));
        script.force(becomes_established(3, 2));
        script.force(broadcast(3, at(2, 1)));
        for server in [2, 3] {
            script.see(current(server, 2));
            script.see(appended(server, at(2, 1)));
        }
        script.see(durable(3, at(2, 1)));
        script.refused(Invariant::Z8, durable(2, at(2, 1)));
    }

    #[test]
    fn a_commit_that_a_later_leader_began_without_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.sync(3);
        script.elect(2, 2, &[3]);
        script.append(1, at(1, 3));
        script.refused(Invariant::Z8, durable(1, at(1, 3)));
    }

    #[test]
    fn a_leader_that_wakes_up_late_need_not_have_what_later_epochs_commit() {
        let mut script = Script::settled();
        script.synchronize(1, 2, &[2]);
        script.elect(2, 3, &[3]);
        script.write(at(3, 1), 2, &[3]);
        script.see(becomes_established(1, 2));
        script.commit(1, at(1, 2));
    }
}
