//! Z1: at most one established leader per epoch.
//!
//! Checked when a server becomes established, and before that when it announces a history as
//! the primary of an epoch (`NewLeader`): the epoch is nobody else's, not even that of an
//! earlier run of the same server, and it is established once.
//!
//! What makes epochs unique is checked as well: whoever announces a history first for an epoch
//! has been promised that epoch by a quorum, itself included, as something new to each of them.
//! A promise is an `AckEpoch` that was sent to it and claims to be new. A server without data,
//! whose current epoch is 0, cannot know what it has promised before; its promise counts only
//! where all voters have promised, which is how an ensemble is founded (ZOOKEEPER-261, 2325).

use super::{Ghost, Invariant, Verdict, ensure, refuse};
use crate::types::{Epoch, ServerId};

/// Who has promised what to whom.
#[derive(Debug, Default)]
pub(super) struct OneLeader {
    /// In the order of the first.
    promises: Vec<Promises>,
}

/// The promises of one epoch to one candidate, a bit for each server.
#[derive(Clone, Copy, Debug)]
struct Promises {
    epoch: Epoch,
    to: ServerId,
    all: u32,
    /// Those of servers with data.
    informed: u32,
}

impl OneLeader {
    /// A server whose current epoch is `current` has promised `epoch` to `to`.
    pub(super) fn promised(&mut self, at: usize, to: ServerId, epoch: Epoch, current: Epoch) {
        let mut newest_first = self.promises.iter().rev();
        let known = newest_first.any(|known| (known.epoch, known.to) == (epoch, to));
        if !known {
            self.promises.push(Promises {
                epoch,
                to,
                all: 0,
                informed: 0,
            });
        }
        let mut newest_first = self.promises.iter_mut().rev();
        if let Some(known) = newest_first.find(|known| (known.epoch, known.to) == (epoch, to)) {
            known.all |= 1 << at;
            known.informed |= u32::from(current > Epoch(0)) << at;
        }
    }

    /// A server announces the history of `epoch`.
    pub(super) fn new_leader(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        let Some(run) = ghost.tree().run_of(epoch) else {
            return self.quorum_promised(ghost, at, epoch);
        };
        let server = &ghost.servers()[at];
        let primary = ghost.tree().primary(run);
        let same_run = ghost.reign(run).starts == server.starts;
        ensure(
            primary == server.id && same_run,
            Invariant::Z1,
            server.id,
            || format!("it leads epoch {epoch}, which an earlier run or server {primary} has led"),
        )
    }

    /// A server takes itself for the established leader of `epoch`.
    pub(super) fn established(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        self.new_leader(ghost, at, epoch)?;
        let run = ghost.tree().run_of(epoch);
        let twice = run.is_some_and(|run| ghost.reign(run).established);
        ensure(!twice, Invariant::Z1, ghost.servers()[at].id, || {
            format!("it is established in epoch {epoch} a second time")
        })
    }

    fn quorum_promised(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        let server = &ghost.servers()[at];
        let mut promises = self.promises.iter().rev();
        let given = promises.find(|known| (known.epoch, known.to) == (epoch, server.id));
        let (mut all, mut informed) = given.map_or((0, 0), |given| (given.all, given.informed));
        if server.accepted == epoch {
            all |= 1 << at;
            informed |= u32::from(server.current > Epoch(0)) << at;
        }
        if ghost.is_quorum(informed) || ghost.is_everyone(all) {
            return Ok(());
        }
        refuse(Invariant::Z1, server.id, || {
            format!(
                "it leads epoch {epoch}, which no quorum has promised to it ({all:b}, with data {informed:b})"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, accepted, at, current, established, new_leader, said, wiped,
    };
    use crate::sim::observe::Said;
    use crate::types::Zxid;

    #[test]
    fn a_second_server_may_not_lead_the_epoch() {
        let mut script = Script::settled();
        script.refused(Invariant::Z1, established(3, 1));
        let mut script = Script::settled();
        script.refused(Invariant::Z1, new_leader(3, 2, 1, at(1, 2)));
    }

    #[test]
    fn a_server_may_not_lead_an_epoch_of_its_earlier_run() {
        let mut script = Script::settled();
        script.stop(1);
        script.start(1);
        script.refused(Invariant::Z1, new_leader(1, 2, 1, at(1, 2)));
    }

    #[test]
    fn a_leader_is_established_once() {
        let mut script = Script::settled();
        script.refused(Invariant::Z1, established(1, 1));
    }

    #[test]
    fn an_epoch_needs_the_promises_of_a_quorum() {
        let mut script = Script::of(5);
        script.discover(1, 1, &[2]);
        script.refused(Invariant::Z1, new_leader(1, 2, 1, Zxid::ZERO));
        let mut script = Script::of(5);
        script.discover(1, 1, &[2, 3, 4]);
        script.refused(Invariant::Z1, new_leader(1, 2, 1, Zxid::ZERO));
        let mut script = Script::of(5);
        script.discover(1, 1, &[2, 3, 4, 5]);
        script.see(new_leader(1, 2, 1, Zxid::ZERO));

        let mut script = Script::of(5);
        script.elect(1, 1, &[2, 3, 4, 5]);
        script.discover(1, 2, &[2]);
        script.refused(Invariant::Z1, new_leader(1, 2, 2, Zxid::ZERO));
        let mut script = Script::of(5);
        script.elect(1, 1, &[2, 3, 4, 5]);
        script.discover(1, 2, &[2, 3]);
        script.see(new_leader(1, 2, 2, Zxid::ZERO));
        let mut script = Script::of(3);
        script.see(accepted(1, 1));
        script.see(current(1, 1));
        script.refused(Invariant::Z1, established(1, 1));
    }

    #[test]
    fn the_promise_of_a_server_without_data_does_not_make_a_quorum() {
        let wiped_of = |candidate, by: &[u32]| {
            let mut script = Script::settled();
            script.stop(3);
            script.see(wiped(3));
            script.start(3);
            script.discover(candidate, 2, by);
            script
        };
        wiped_of(2, &[3]).refused(Invariant::Z1, new_leader(2, 3, 2, at(1, 2)));
        wiped_of(3, &[2]).refused(Invariant::Z1, new_leader(3, 2, 2, Zxid::ZERO));
        wiped_of(2, &[1, 3]).see(new_leader(2, 3, 2, at(1, 2)));
    }

    #[test]
    fn promises_of_observers_to_others_and_of_old_do_not_count() {
        let mut script = Script::with_observers(3, 1);
        script.discover(1, 1, &[4]);
        script.refused(Invariant::Z1, new_leader(1, 4, 1, Zxid::ZERO));

        let mut script = Script::of(3);
        script.accept(1, 1);
        script.promise(2, 3, 1);
        script.refused(Invariant::Z1, new_leader(1, 2, 1, Zxid::ZERO));

        let mut script = Script::of(3);
        script.promise(2, 1, 1);
        script.accept(1, 2);
        script.refused(Invariant::Z1, new_leader(1, 2, 2, Zxid::ZERO));

        let mut script = Script::of(3);
        script.accept(1, 1);
        script.accept(2, 1);
        let what = Said::AckEpoch {
            epoch: Epoch(1),
            current: Epoch(0),
            promises: false,
            last: Zxid::ZERO,
        };
        script.see(said(2, 1, what));
        script.refused(Invariant::Z1, new_leader(1, 2, 1, Zxid::ZERO));
    }
}
