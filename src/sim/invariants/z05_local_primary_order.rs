//! Z5: local primary order. If a primary broadcasts m before m′, every server that delivers m′
//! has delivered m before; for *all* such pairs, and counters have no gaps.
//!
//! Checked link by link, which makes it hold for all pairs: within an epoch a primary
//! broadcasts, a log takes and an application is given a transaction only right after the one
//! with the counter before it, and the first of an epoch has counter 1. By induction over the
//! counter, whoever is given (e, c) was given (e, 1) … (e, c − 1) before, in this order. What a
//! snapshot covers counts as given.
//!
//! A leader sends what it has in the same way. From its `LeaderInfo` to a learner on, one
//! transaction follows the other, in the history (`Proposal`), at its end (`NewLeader`) and live
//! (`Proposal`, `Inform`): the switch has neither gap nor duplicate. And it tells of a commit
//! (`UpToDate`, `Commit`) only as far as it has sent.

use super::ghost::SERVERS_MAX;
use super::{Ghost, Invariant, Node, Verdict, ensure, known};
use crate::types::{ServerId, Zxid};

/// What leaders have sent to learners.
#[derive(Debug, Default)]
pub(super) struct LocalPrimaryOrder {
    /// By leader and learner: the last transaction sent since the leader told its epoch.
    sent: [[Option<Node>; SERVERS_MAX]; SERVERS_MAX],
}

impl LocalPrimaryOrder {
    /// A leader begins to lead a learner.
    pub(super) fn begins(&mut self, ghost: &Ghost, at: usize, to: ServerId) {
        if let Some(learner) = ghost.index(to) {
            self.sent[at][learner] = None;
        }
    }

    /// A leader sends a transaction to a learner.
    pub(super) fn sent(&mut self, ghost: &Ghost, at: usize, to: ServerId, zxid: Zxid) -> Verdict {
        let (tree, id) = (ghost.tree(), ghost.servers()[at].id);
        let node = known(ghost, at, Invariant::Z5, zxid)?;
        let Some(learner) = ghost.index(to) else {
            return Ok(());
        };
        // Where the first one comes after is between the two of them.
        let before = self.sent[at][learner].replace(node);
        let next = before.is_none_or(|before| before == tree.parent(node));
        ensure(next, Invariant::Z5, id, || {
            let before = before.map(|before| tree.zxid(before)).unwrap_or_default();
            format!("it sends {zxid} to {to} after {before}")
        })
    }

    /// A leader tells a learner that its history ends at `upto`.
    pub(super) fn history_sent(
        &mut self,
        ghost: &Ghost,
        at: usize,
        to: ServerId,
        upto: Zxid,
    ) -> Verdict {
        let node = known(ghost, at, Invariant::Z5, upto)?;
        let Some(learner) = ghost.index(to) else {
            return Ok(());
        };
        let before = self.sent[at][learner].replace(node);
        let whole = before.is_none_or(|before| before == node);
        ensure(whole, Invariant::Z5, ghost.servers()[at].id, || {
            let before = before.map(|before| ghost.tree().zxid(before));
            let before = before.unwrap_or_default();
            format!("it says to {to} that its history ends at {upto}, having sent up to {before}")
        })
    }

    /// A leader tells a learner that everything up to `upto` is committed.
    pub(super) fn commit_sent(
        &self,
        ghost: &Ghost,
        at: usize,
        to: ServerId,
        upto: Zxid,
    ) -> Verdict {
        let node = known(ghost, at, Invariant::Z5, upto)?;
        let sent = ghost.index(to).and_then(|learner| self.sent[at][learner]);
        let right = sent.is_some_and(|sent| ghost.tree().holds(sent, node));
        ensure(right, Invariant::Z5, ghost.servers()[at].id, || {
            let sent = sent.map(|sent| ghost.tree().zxid(sent)).unwrap_or_default();
            format!("it tells {to} of the commit of {upto}, having sent up to {sent}")
        })
    }
}

/// A primary broadcasts `zxid`.
pub(super) fn broadcast(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let run = ghost.tree().run_of(zxid.epoch);
    let last = run.map_or(0, |run| ghost.tree().len(run));
    let next = last.checked_add(1) == Some(zxid.counter);
    ensure(next, Invariant::Z5, ghost.servers()[at].id, || {
        format!("it broadcasts {zxid} after counter {last}")
    })
}

/// A log is given `zxid`.
pub(super) fn appended(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let tip = ghost.servers()[at].tip;
    succeeds(ghost, at, tip, zxid, "its log goes")
}

/// An application is given `zxid`.
pub(super) fn delivered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let applied = ghost.servers()[at].applied;
    succeeds(ghost, at, applied, zxid, "its application goes")
}

fn succeeds(ghost: &Ghost, at: usize, last: Node, zxid: Zxid, what: &str) -> Verdict {
    let last = ghost.tree().zxid(last);
    let before = if last.epoch == zxid.epoch {
        last.counter
    } else {
        0
    };
    let next = before.checked_add(1) == Some(zxid.counter);
    ensure(next, Invariant::Z5, ghost.servers()[at].id, || {
        format!("{what} from {last} to {zxid}: a primary's transactions are missing or repeated")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, appended, at, broadcast, commit, new_leader, said,
    };
    use crate::sim::observe::{Observation, Said};
    use crate::types::Epoch;

    /// 1:3 and 1:4 are committed, and delivered nowhere.
    fn ahead() -> Script {
        let mut script = Script::settled();
        for counter in [3, 4] {
            script.broadcast(at(1, counter), 1);
            for server in [1, 2] {
                script.append(server, at(1, counter));
                script.sync(server);
            }
        }
        script
    }

    /// 2:1 and 2:2 are committed, and delivered nowhere.
    fn new_epoch() -> Script {
        let mut script = Script::settled();
        script.elect(2, 2, &[1, 3]);
        for counter in [1, 2] {
            script.broadcast(at(2, counter), 2);
            for server in [1, 2] {
                script.append(server, at(2, counter));
                script.sync(server);
            }
        }
        script
    }

    fn proposal(to: u32, counter: u64) -> Observation {
        let (epoch, zxid) = (Epoch(1), at(1, counter));
        said(1, to, Said::Proposal { epoch, zxid })
    }

    fn inform(to: u32, counter: u64) -> Observation {
        let (epoch, zxid) = (Epoch(1), at(1, counter));
        said(1, to, Said::Inform { epoch, zxid })
    }

    /// Server 3 is led anew, and has been sent nothing yet.
    fn rejoining() -> Script {
        let mut script = ahead();
        let epoch = Epoch(1);
        script.see(said(1, 3, Said::LeaderInfo { epoch }));
        script
    }

    #[test]
    fn a_leader_sends_without_gap_or_repetition_from_the_history_to_what_is_live() {
        let mut script = rejoining();
        script.see(proposal(3, 2));
        script.see(proposal(3, 3));
        script.see(new_leader(1, 3, 1, at(1, 3)));
        script.see(proposal(3, 4));
        script.refused(Invariant::Z5, proposal(3, 4));

        let mut script = rejoining();
        script.see(proposal(3, 2));
        script.refused(Invariant::Z5, proposal(3, 4));

        let mut script = rejoining();
        script.see(new_leader(1, 3, 1, at(1, 2)));
        script.refused(Invariant::Z5, proposal(3, 4));

        let mut script = rejoining();
        script.see(new_leader(1, 3, 1, at(1, 2)));
        script.see(said(1, 2, Said::LeaderInfo { epoch: Epoch(1) }));
        script.see(proposal(2, 4));
        script.refused(Invariant::Z5, inform(3, 4));
    }

    #[test]
    fn a_history_ends_where_its_last_transaction_was_sent() {
        let mut script = rejoining();
        script.see(proposal(3, 3));
        script.refused(Invariant::Z5, new_leader(1, 3, 1, at(1, 4)));
        let mut script = rejoining();
        script.see(proposal(3, 3));
        script.refused(Invariant::Z5, new_leader(1, 3, 1, at(1, 2)));
    }

    #[test]
    fn a_commit_is_told_only_of_what_has_been_sent() {
        let mut script = rejoining();
        script.see(new_leader(1, 3, 1, at(1, 2)));
        script.see(commit(1, 3, 1, at(1, 2)));
        script.refused(Invariant::Z5, commit(1, 3, 1, at(1, 3)));
        let mut script = rejoining();
        script.refused(Invariant::Z5, commit(1, 3, 1, at(1, 2)));
    }

    #[test]
    fn what_was_never_broadcast_is_not_sent() {
        let mut script = rejoining();
        script.refused(Invariant::Z5, proposal(3, 5));
        let mut script = Script::settled();
        script.refused(Invariant::Z5, commit(1, 3, 1, at(1, 5)));
        let mut script = Script::settled();
        script.refused(Invariant::Z5, new_leader(1, 3, 1, at(1, 5)));
    }

    #[test]
    fn a_primary_leaves_no_gap() {
        let mut script = Script::settled();
        script.refused(Invariant::Z5, broadcast(1, at(1, 4)));
        let mut script = Script::settled();
        script.elect(2, 2, &[3]);
        script.refused(Invariant::Z5, broadcast(2, at(2, 2)));
    }

    #[test]
    fn a_log_with_a_gap_or_a_repetition_is_refused() {
        ahead().refused(Invariant::Z5, appended(3, at(1, 4)));
        ahead().refused(Invariant::Z5, appended(3, at(1, 2)));
        new_epoch().refused(Invariant::Z5, appended(3, at(2, 2)));
    }

    #[test]
    fn a_delivery_that_skips_an_earlier_one_of_the_primary_is_refused() {
        let mut script = ahead();
        let seen = script.delivered(2, at(1, 4));
        script.refused(Invariant::Z5, seen);
        let mut script = new_epoch();
        let seen = script.delivered(2, at(2, 2));
        script.refused(Invariant::Z5, seen);
    }

    #[test]
    fn deliveries_in_the_order_of_the_primary_are_right() {
        let mut script = ahead();
        script.deliver(3, at(1, 3));
        script.deliver(3, at(1, 4));
    }
}
