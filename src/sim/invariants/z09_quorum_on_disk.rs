//! Z9: what is committed is on synced disks of a quorum, then and ever after, barring disk loss.
//!
//! A voter holds a transaction if it is at or below the end of its synced log, in the log
//! itself or covered by the snapshot the log begins after; a stopped server's disk counts.
//! Checked:
//!
//! - when a server regards more as committed: the ghost does too, so a quorum had it synced;
//! - when the ghost's log grows, when a log was cut or replaced, and at a start: a quorum of
//!   voters hold the end of the committed log, and with it all of it;
//! - at a start: what was synced is there again, on the same branch, and nothing is that was
//!   never appended. A cut or an installation that power interrupted may have happened or not;
//! - when the log is trimmed: a durable snapshot covers what goes.
//!
//! Disk loss: a wiped disk, or a log that is set aside, holds nothing from then on. The world
//! may do that only where [`Ghost::can_lose`] lets it; it is told if a quorum is gone then.

use super::server::{Loss, Server};
use super::tree::{Node, ROOT};
use super::{Ghost, Growth, Invariant, Verdict, ensure, known};
use crate::sim::observe::Boot;
use crate::types::Zxid;

/// A server regards everything up to `upto` as committed.
pub(super) fn committed(ghost: &Ghost, at: usize, upto: Zxid) -> Verdict {
    let node = known(ghost, at, Invariant::Z9, upto)?;
    ensure(
        ghost.is_committed(node),
        Invariant::Z9,
        ghost.servers()[at].id,
        || {
            let end = ghost.committed_zxid();
            format!("it commits {upto}, while quorums have synced up to {end} only")
        },
    )
}

/// The committed log has grown.
pub(super) fn grown(ghost: &Ghost, at: usize, _growth: &Growth) -> Verdict {
    still(ghost, at)
}

/// A disk may hold less than before.
pub(super) fn still(ghost: &Ghost, at: usize) -> Verdict {
    quorum_holds(ghost, at, Invariant::Z9)
}

/// A disk holds nothing any more.
pub(super) fn lost(ghost: &Ghost, at: usize) -> Verdict {
    quorum_holds(ghost, at, Invariant::World)
}

fn quorum_holds(ghost: &Ghost, at: usize, invariant: Invariant) -> Verdict {
    let holders = ghost.holders(ghost.committed());
    let holds = ghost.is_quorum(holders);
    ensure(holds, invariant, ghost.servers()[at].id, || {
        let end = ghost.committed_zxid();
        format!("the committed {end} is left on the disks {holders:b}, which are no quorum")
    })
}

/// A server is about to start with what it found.
pub(super) fn started(ghost: &Ghost, at: usize, boot: &Boot) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let last = known(ghost, at, Invariant::Z9, boot.last)?;
    if server.loss != Loss::None {
        return ensure(last == ROOT, Invariant::World, server.id, || {
            format!("its disk was lost, and it starts with {}", boot.last)
        });
    }
    let floor = floor(ghost, server);
    let kept = tree.holds(last, floor) && tree.holds(server.tip, last);
    let installed = server.installing == Some(last);
    ensure(kept || installed, Invariant::Z9, server.id, || {
        let (floor, tip) = (tree.zxid(floor), tree.zxid(server.tip));
        let last = boot.last;
        format!("it starts with {last}, with {floor} synced and {tip} appended before")
    })
}

/// The least that must be found on a disk.
fn floor(ghost: &Ghost, server: &Server) -> Node {
    match server.cutting {
        Some(to) if ghost.tree().holds(server.durable, to) => to,
        _ => server.durable,
    }
}

/// The log begins after `begins_after` now.
pub(super) fn trimmed(ghost: &Ghost, at: usize, begins_after: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z9, begins_after)?;
    ensure(
        tree.holds(server.snapshot, node),
        Invariant::Z9,
        server.id,
        || {
            let snapshot = tree.zxid(server.snapshot);
            format!("its log is trimmed up to {begins_after}, its snapshot covers {snapshot}")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, at, committed, durable, installing, new_leader, set_aside, started, trimmed,
        truncated, truncating, wiped,
    };

    /// Starts server 3 with a log up to `last`.
    fn start(script: &Script, last: Zxid) -> crate::sim::observe::Observation {
        let boot = script.boot(3);
        started(3, Boot { last, ..boot })
    }

    #[test]
    fn a_commit_before_a_quorum_has_synced_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        for server in [1, 2, 3] {
            script.append(server, at(1, 3));
        }
        script.sync(1);
        script.refused(Invariant::Z9, committed(2, at(1, 3)));
    }

    #[test]
    fn a_quorum_of_which_one_has_cut_its_copy_off_is_none() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.sync(3);
        script.discover(2, 2, &[3]);
        script.force(new_leader(2, 3, 2, at(1, 2)));
        script.catch_up(3, at(1, 2));
        script.append(1, at(1, 3));
        script.refused(Invariant::Z9, durable(1, at(1, 3)));
    }

    #[test]
    fn what_was_synced_is_there_at_the_next_start() {
        let mut script = Script::settled();
        script.stop(3);
        let seen = start(&script, at(1, 1));
        script.refused(Invariant::Z9, seen);
    }

    #[test]
    fn what_was_appended_may_be_lost_or_kept_by_a_crash_and_nothing_else_found() {
        let unsynced = || {
            let mut script = Script::settled();
            script.broadcast(at(1, 3), 1);
            script.broadcast(at(1, 4), 1);
            script.append(3, at(1, 3));
            script.stop(3);
            script
        };
        for last in [at(1, 2), at(1, 3)] {
            let mut script = unsynced();
            let seen = start(&script, last);
            script.see(seen);
        }
        let mut script = unsynced();
        let seen = start(&script, at(1, 4));
        script.refused(Invariant::Z9, seen);
    }

    #[test]
    fn a_cut_that_power_interrupted_may_have_happened_or_not() {
        let interrupted = || {
            let mut script = Script::settled();
            for counter in [3, 4] {
                script.broadcast(at(1, counter), 1);
                script.append(3, at(1, counter));
            }
            script.see(durable(3, at(1, 3)));
            script.accept(3, 2);
            script.see(truncating(3, at(1, 2)));
            script.stop(3);
            script
        };
        for counter in [2, 3, 4] {
            let mut script = interrupted();
            let seen = start(&script, at(1, counter));
            script.see(seen);
        }
        let mut script = interrupted();
        let seen = start(&script, at(1, 1));
        script.refused(Invariant::Z9, seen);
    }

    #[test]
    fn an_installation_that_power_interrupted_may_have_happened_or_not() {
        let interrupted = || {
            let mut script = Script::settled();
            script.stop(3);
            script.write(at(1, 3), 1, &[2]);
            script.write(at(1, 4), 1, &[2]);
            script.start(3);
            let digest = script.digest(at(1, 4));
            script.see(installing(3, at(1, 4), digest));
            script.stop(3);
            script
        };
        for last in [at(1, 2), at(1, 4)] {
            let mut script = interrupted();
            let seen = start(&script, last);
            script.see(seen);
        }
        let mut script = interrupted();
        let seen = start(&script, at(1, 3));
        script.refused(Invariant::Z9, seen);
    }

    #[test]
    fn a_quorum_that_is_gone_is_noticed_at_the_next_start_or_cut() {
        let gone = || {
            let mut script = Script::settled();
            script.force(truncated(2, at(1, 1)));
            script.force(truncated(1, at(1, 1)));
            script
        };
        let mut script = gone();
        script.stop(3);
        let seen = start(&script, at(1, 2));
        script.refused(Invariant::Z9, seen);
        let mut script = gone();
        script.refused(Invariant::Z9, truncated(3, at(1, 2)));
    }

    #[test]
    fn one_disk_may_be_lost_and_not_a_second_one() {
        for lose in [wiped, set_aside] {
            let mut script = Script::settled();
            script.stop(2);
            script.stop(3);
            script.see(lose(3));
            script.start(3);
            script.refused(Invariant::World, lose(2));
        }
    }

    #[test]
    fn a_lost_disk_is_empty() {
        let mut script = Script::settled();
        let boot = script.boot(3);
        script.stop(3);
        script.see(set_aside(3));
        let boot = Boot {
            current: crate::types::Epoch(0),
            ..boot
        };
        script.refused(Invariant::World, started(3, boot));
    }

    #[test]
    fn a_log_is_trimmed_only_where_a_snapshot_covers_it() {
        let mut script = Script::settled();
        script.snapshot(1, at(1, 1));
        script.see(trimmed(1, at(1, 1)));
        script.refused(Invariant::Z9, trimmed(1, at(1, 2)));
    }
}
