//! Z8: the ghost committed log only grows, and every established leader's log contains it.
//!
//! The log grows when a quorum come to hold more in one epoch (see the ghost). Checked then:
//! what they hold lies on top of what was committed before, and every leader of a later epoch
//! that is established already has it in the history it began with. Checked when a leader
//! becomes established: its history contains everything that is committed by virtue of earlier
//! epochs. What later epochs commit is not asked of it: a leader may wake up late and find
//! itself elected in an epoch that is past.

//!
//! What makes it so is checked before that, when a leader announces its history for the first
//! time: among the voters that have promised it the epoch are a quorum, itself included, none of
//! which has named a more recent history than its own. More recent is the higher current epoch,
//! then the higher last transaction. A promise of a more recent one may be on its way: it is not
//! one of those that the leader counts.

use super::ghost::SERVERS_MAX;
use super::{Ghost, Growth, Invariant, Verdict, ensure};
use crate::types::{Epoch, ServerId, Zxid};

/// The histories that were named with promises.
#[derive(Debug, Default)]
pub(super) struct GhostLog {
    /// In the order of the first promise.
    named: Vec<Named>,
}

/// What one candidate has been told.
#[derive(Debug)]
struct Named {
    epoch: Epoch,
    leader: ServerId,
    /// By server: the current epoch and the last transaction of those that have promised.
    histories: [Option<(Epoch, Zxid)>; SERVERS_MAX],
}

impl GhostLog {
    /// A server has promised `epoch` to `to`, and names its history.
    pub(super) fn promised(
        &mut self,
        at: usize,
        to: ServerId,
        epoch: Epoch,
        history: (Epoch, Zxid),
    ) {
        if self.of(to, epoch).is_none() {
            self.named.push(Named {
                epoch,
                leader: to,
                histories: [None; SERVERS_MAX],
            });
        }
        let mut newest_first = self.named.iter_mut().rev();
        if let Some(named) = newest_first.find(|n| (n.epoch, n.leader) == (epoch, to)) {
            named.histories[at] = Some(history);
        }
    }

    /// A server announces the history of `epoch`.
    pub(super) fn new_leader(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        if ghost.tree().run_of(epoch).is_some() {
            return Ok(());
        }
        let server = &ghost.servers()[at];
        let own = (server.current, ghost.tree().zxid(server.tip));
        let mut behind = 1 << at;
        if let Some(named) = self.of(server.id, epoch) {
            for (at, history) in named.histories.iter().enumerate() {
                if history.is_some_and(|history| history <= own) {
                    behind |= 1 << at;
                }
            }
        }
        ensure(ghost.is_quorum(behind), Invariant::Z8, server.id, || {
            let (own_epoch, own) = own;
            format!(
                "it leads epoch {epoch} from {own} of epoch {own_epoch} on, and of those who \
                 promised it only {behind:b} hold no more than that"
            )
        })
    }

    fn of(&self, leader: ServerId, epoch: Epoch) -> Option<&Named> {
        let mut newest_first = self.named.iter().rev();
        newest_first.find(|named| (named.epoch, named.leader) == (epoch, leader))
    }
}

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
        Script, accepted, appended, at, broadcast, current, durable, new_leader, truncated,
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
        script.discover(3, 2, &[]);
        script.force(accepted(2, 2));
        let at_3 = script.ghost().index(crate::types::ServerId(3)).unwrap();
        let unannounced = established(script.ghost(), at_3, Epoch(2));
        assert_eq!(unannounced.unwrap_err().invariant, Invariant::Z8);
        script.force(new_leader(3, 2, 2, at(1, 1)));
        let announced = established(script.ghost(), at_3, Epoch(2));
        assert_eq!(announced.unwrap_err().invariant, Invariant::Z8);
        let before = established(script.ghost(), at_3, Epoch(1));
        assert_eq!(before, Ok(()), "nothing was committed before epoch 1");
    }

    #[test]
    fn a_leader_that_has_been_promised_by_one_with_a_more_recent_history_is_refused() {
        let mut script = behind();
        script.discover(3, 2, &[1, 2]);
        script.refused(Invariant::Z8, new_leader(3, 2, 2, at(1, 1)));
    }

    #[test]
    fn the_current_epoch_decides_before_the_length_of_the_history() {
        let mut script = behind();
        script.accept(3, 2);
        script.force(current(3, 2));
        script.discover(2, 3, &[3]);
        script.refused(Invariant::Z8, new_leader(2, 3, 3, at(1, 2)));
        let mut script = behind();
        script.accept(3, 2);
        script.force(current(3, 2));
        script.discover(3, 3, &[2]);
        script.see(new_leader(3, 2, 3, at(1, 1)));
    }

    #[test]
    fn a_promise_that_a_quorum_can_do_without_may_name_a_more_recent_history() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.sync(3);
        script.discover(2, 2, &[1, 3]);
        script.see(new_leader(2, 1, 2, at(1, 2)));
    }

    #[test]
    fn histories_of_observers_and_of_promises_to_others_do_not_count() {
        let mut script = Script::with_observers(3, 1);
        script.elect(1, 1, &[2, 3, 4]);
        script.broadcast(at(1, 1), 1);
        script.append(3, at(1, 1));
        script.sync(3);
        script.promise(1, 3, 2);
        script.discover(2, 2, &[3, 4]);
        script.refused(Invariant::Z8, new_leader(2, 3, 2, Zxid::ZERO));
    }

    #[test]
    fn a_quorum_on_another_branch_is_refused() {
        let mut script = behind();
        script.discover(3, 2, &[2]);
        script.force(new_leader(3, 2, 2, at(1, 1)));
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
        script.discover(2, 2, &[3]);
        script.force(new_leader(2, 3, 2, at(1, 2)));
        script.force(becomes_established(2, 2));
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
