//! Z11: after the `NewLeader` ack the follower's disk log is a prefix of the leader's.
//!
//! The leader's log is the history it began with and everything it has broadcast since, whether
//! its own disk has it yet or not. Checked:
//!
//! - when a leader says `NewLeader`: the history it names is of its own log;
//! - when a learner acknowledges it: its *synced* log holds the history it was told of last,
//!   and all of its log, synced or not, is of the leader's;
//! - after that, which is while accepted and current epoch are the same: only transactions of
//!   that epoch are appended, nothing is cut off, and a snapshot takes the log only forward.
//!   With Z5 and Z6 the log so stays a prefix of the leader's until a newer epoch is accepted.

use super::ghost::SERVERS_MAX;
use super::tree::{Node, ROOT};
use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::types::{Epoch, ServerId, Zxid};

/// What leaders have told learners.
#[derive(Debug, Default)]
pub(super) struct PrefixOfLeader {
    /// By learner: the epoch and the end of the history of the latest `NewLeader` to it.
    told: Vec<Vec<(Epoch, Node)>>,
}

impl PrefixOfLeader {
    /// A leader tells a learner of its history.
    pub(super) fn new_leader(
        &mut self,
        ghost: &Ghost,
        at: usize,
        to: ServerId,
        epoch: Epoch,
        upto: Zxid,
    ) -> Verdict {
        let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
        let node = known(ghost, at, Invariant::Z11, upto)?;
        let own = match tree.run_of(epoch) {
            Some(run) => tree.holds(tree.tip(run), node) && tree.holds(node, tree.base(run)),
            None => tree.holds(server.tip, node),
        };
        ensure(own, Invariant::Z11, server.id, || {
            format!("it says that its history for epoch {epoch} ends at {upto}, and it does not")
        })?;
        if let Some(learner) = ghost.index(to) {
            self.told.resize(SERVERS_MAX, Vec::new());
            let told = &mut self.told[learner];
            match told.iter_mut().rev().find(|(e, _)| *e == epoch) {
                Some((_, end)) => *end = node,
                None => told.push((epoch, node)),
            }
        }
        Ok(())
    }

    /// A learner acknowledges the history of `epoch`.
    pub(super) fn ack_new_leader(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
        let told = self.told.get(at).into_iter().flatten().rev();
        let told = told.clone().find(|(e, _)| *e == epoch);
        let end = told.map_or(ROOT, |&(_, end)| end);
        ensure(
            told.is_some() && tree.holds(server.durable, end),
            Invariant::Z11,
            server.id,
            || {
                let (end, durable) = (tree.zxid(end), tree.zxid(server.durable));
                format!(
                    "it acknowledges the history of epoch {epoch} up to {end} with only \
                     {durable} synced"
                )
            },
        )?;
        let leader = tree.run_of(epoch).map_or(ROOT, |run| tree.tip(run));
        ensure(
            tree.holds(leader, server.tip),
            Invariant::Z11,
            server.id,
            || {
                let (tip, leader) = (tree.zxid(server.tip), tree.zxid(leader));
                format!(
                    "it acknowledges the history of epoch {epoch} with a log up to {tip}, which \
                     is no prefix of the leader's up to {leader}"
                )
            },
        )
    }
}

/// A log is given `zxid`.
pub(super) fn appended(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let server = &ghost.servers()[at];
    let right = server.accepted != server.current || zxid.epoch == server.current;
    ensure(right, Invariant::Z11, server.id, || {
        let epoch = server.current;
        format!("having the history of epoch {epoch}, it appends {zxid}")
    })
}

/// The log is cut after `to`.
pub(super) fn cut(ghost: &Ghost, at: usize, to: Zxid) -> Verdict {
    let server = &ghost.servers()[at];
    let whole = ghost.tree().zxid(server.tip) == to;
    ensure(
        whole || server.accepted != server.current,
        Invariant::Z11,
        server.id,
        || {
            let epoch = server.current;
            format!("having the history of epoch {epoch}, it cuts its log after {to}")
        },
    )
}

/// A snapshot as of `zxid` takes the place of the log.
pub(super) fn replaced(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z11, zxid)?;
    let forward = tree.holds(node, server.tip);
    ensure(
        forward || server.accepted != server.current,
        Invariant::Z11,
        server.id,
        || {
            let (epoch, tip) = (server.current, tree.zxid(server.tip));
            format!(
                "having the history of epoch {epoch} up to {tip}, it goes to a snapshot of {zxid}"
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, ack_new_leader, appended, at, current, installing, new_leader, truncating,
    };

    /// 1:3 is broadcast, and on server 3 alone.
    fn with_suffix() -> Script {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.sync(3);
        script
    }

    /// After that 2 leads epoch 2 from 1:2 on, with 1; and 3 comes to them.
    fn led_by_2() -> Script {
        let mut script = with_suffix();
        script.discover(2, 2, &[1]);
        script.tell(2, 1, 2, at(1, 2));
        script.promise(3, 2, 2);
        script
    }

    #[test]
    fn a_leader_names_its_own_history() {
        let mut script = with_suffix();
        script.discover(2, 2, &[1]);
        script.refused(Invariant::Z11, new_leader(2, 1, 2, at(1, 3)));

        for counter in [1, 3] {
            let mut script = led_by_2();
            script.refused(Invariant::Z11, new_leader(2, 3, 2, at(1, counter)));
        }
    }

    #[test]
    fn an_ack_before_the_history_is_synced_is_refused() {
        let mut script = Script::settled();
        script.stop(3);
        script.write(at(1, 3), 1, &[2]);
        script.start(3);
        script.tell(1, 3, 1, at(1, 3));
        script.append(3, at(1, 3));
        script.refused(Invariant::Z11, ack_new_leader(3, 1, 1));
    }

    #[test]
    fn an_ack_of_a_history_that_was_never_told_is_refused() {
        let mut script = Script::of(3);
        script.discover(1, 1, &[2, 3]);
        script.tell(1, 2, 1, Zxid::ZERO);
        script.see(current(3, 1));
        script.refused(Invariant::Z11, ack_new_leader(3, 1, 1));
    }

    #[test]
    fn an_ack_with_a_suffix_of_its_own_is_refused() {
        let mut script = led_by_2();
        script.tell(2, 3, 2, at(1, 2));
        script.see(current(3, 2));
        script.refused(Invariant::Z11, ack_new_leader(3, 2, 2));
    }

    #[test]
    fn a_follower_takes_nothing_but_its_leaders_broadcasts() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.elect(2, 2, &[3]);
        script.refused(Invariant::Z11, appended(3, at(1, 3)));
    }

    #[test]
    fn a_follower_cuts_nothing_off() {
        let mut script = with_suffix();
        script.see(truncating(3, at(1, 3)));
        script.refused(Invariant::Z11, truncating(3, at(1, 2)));
    }

    #[test]
    fn a_follower_goes_to_no_snapshot_behind_its_log() {
        let mut script = with_suffix();
        let digest = script.digest(at(1, 3));
        script.see(installing(3, at(1, 3), digest));
        let digest = script.digest(at(1, 2));
        script.refused(Invariant::Z11, installing(3, at(1, 2), digest));
    }

    #[test]
    fn a_server_that_has_accepted_a_newer_epoch_may_go_back_to_a_snapshot() {
        let mut script = with_suffix();
        script.accept(3, 2);
        let digest = script.digest(at(1, 2));
        script.see(installing(3, at(1, 2), digest));
    }
}
