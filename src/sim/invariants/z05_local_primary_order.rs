//! Z5: local primary order. If a primary broadcasts m before m′, every server that delivers m′
//! has delivered m before; for *all* such pairs, and counters have no gaps.
//!
//! Checked link by link, which makes it hold for all pairs: within an epoch a primary
//! broadcasts, a log takes and an application is given a transaction only right after the one
//! with the counter before it, and the first of an epoch has counter 1. By induction over the
//! counter, whoever is given (e, c) was given (e, 1) … (e, c − 1) before, in this order. What a
//! snapshot covers counts as given.

use super::{Ghost, Invariant, Node, Verdict, ensure};
use crate::types::Zxid;

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
    use crate::sim::invariants::script::{Script, appended, at, broadcast};

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
