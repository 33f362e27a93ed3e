//! Z13: replaying the disk up to what is applied gives what is in memory, by digest.
//!
//! A log is a path of the tree, and each node has the digest of an application that has applied
//! the path up to it; so the replay need not be made. Checked:
//!
//! - whenever the world tells a digest (each delivery, each restored, taken or received
//!   snapshot, each start): it is that of the history it claims to be of;
//! - at each delivery and each cut: what the application holds and what the log holds are of
//!   one branch. Delivery may run ahead of the log while writes are under way, and a crash then
//!   takes both; but a cut below what is applied would leave memory without its disk
//!   (ZOOKEEPER-2845);
//! - when a snapshot becomes durable it is the one that was begun;
//! - at a start: the snapshot is of the log's own history and not newer than its end
//!   (ZOOKEEPER-1549, 4837), and so is what the application holds;
//! - what is reported synced by the disk was appended.

use super::tree::ROOT;
use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::sim::observe::Boot;
use crate::types::Zxid;

/// The application holds the history up to `zxid`, and says so with `digest`.
pub(super) fn digest(ghost: &Ghost, at: usize, zxid: Zxid, digest: u64) -> Verdict {
    let node = known(ghost, at, Invariant::Z13, zxid)?;
    let expected = ghost.tree().digest(node);
    ensure(
        digest == expected,
        Invariant::Z13,
        ghost.servers()[at].id,
        || format!("its state as of {zxid} has digest {digest:016x}, the history {expected:016x}"),
    )
}

/// An application is given `zxid`, which follows what it holds.
pub(super) fn delivered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z13, zxid)?;
    ensure(
        tree.comparable(node, server.tip),
        Invariant::Z13,
        server.id,
        || {
            let tip = tree.zxid(server.tip);
            format!("it delivers {zxid}, while its log goes to {tip} on another branch")
        },
    )
}

/// The log is cut after `to`.
pub(super) fn cut(ghost: &Ghost, at: usize, to: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z13, to)?;
    ensure(
        tree.holds(node, server.applied),
        Invariant::Z13,
        server.id,
        || {
            let applied = tree.zxid(server.applied);
            format!("its log is cut after {to}, its application holds {applied}")
        },
    )
}

/// The log is synced up to `upto`.
pub(super) fn synced(ghost: &Ghost, at: usize, upto: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z13, upto)?;
    ensure(
        tree.holds(server.tip, node),
        Invariant::Z13,
        server.id,
        || {
            let tip = tree.zxid(server.tip);
            format!("its log is synced up to {upto}, and goes to {tip}")
        },
    )
}

/// A snapshot of own state is durable.
pub(super) fn snapshotted(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    let node = known(ghost, at, Invariant::Z13, zxid)?;
    let right = node == server.snapshotting && tree.holds(node, server.snapshot);
    ensure(right, Invariant::Z13, server.id, || {
        let begun = tree.zxid(server.snapshotting);
        let newest = tree.zxid(server.snapshot);
        format!("a snapshot of {zxid} is done, after {newest}; begun was that of {begun}")
    })
}

/// A server is about to start with what it found.
pub(super) fn started(ghost: &Ghost, at: usize, boot: &Boot) -> Verdict {
    let (tree, id) = (ghost.tree(), ghost.servers()[at].id);
    let last = known(ghost, at, Invariant::Z13, boot.last)?;
    for zxid in [
        boot.snapshot.unwrap_or_default(),
        boot.begins_after,
        boot.applied,
    ] {
        let node = known(ghost, at, Invariant::Z13, zxid)?;
        ensure(tree.holds(last, node), Invariant::Z13, id, || {
            let last = boot.last;
            format!("it starts with {zxid} in a snapshot, and a log up to {last} without it")
        })?;
    }
    let covered = boot.snapshot.unwrap_or_default() >= boot.begins_after;
    ensure(covered, Invariant::Z13, id, || {
        let Boot {
            begins_after,
            snapshot,
            ..
        } = *boot;
        format!("its log begins after {begins_after}, its newest snapshot is {snapshot:?}")
    })?;
    digest(ghost, at, boot.applied, boot.digest)
}

/// A server has started.
pub(super) fn restarted(ghost: &Ghost, at: usize) -> Verdict {
    let (tree, server) = (ghost.tree(), &ghost.servers()[at]);
    ensure(
        ghost.is_committed(server.applied),
        Invariant::Z13,
        server.id,
        || {
            let applied = tree.zxid(server.applied);
            format!("its application starts with {applied}, which is not committed")
        },
    )?;
    let snapshot = server.snapshot == ROOT || ghost.is_committed(server.snapshot);
    ensure(snapshot, Invariant::Z13, server.id, || {
        let snapshot = tree.zxid(server.snapshot);
        format!("it starts with a snapshot of {snapshot}, which is not committed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, at, durable, hash, installing, restored, snapshotted, snapshotting, started,
        truncating,
    };
    use crate::sim::observe::Observation;
    use crate::types::ServerId;

    #[test]
    fn a_digest_that_is_not_of_the_history_is_refused() {
        let zxid = at(1, 2);
        for seen in [
            restored(2, zxid, 1),
            snapshotting(2, zxid, 1),
            installing(2, zxid, 1),
        ] {
            Script::settled().refused(Invariant::Z13, seen);
        }
        let mut script = Script::settled();
        script.stop(2);
        script.start(2);
        let seen = Observation::Delivered {
            server: ServerId(2),
            zxid: at(1, 1),
            hash: hash(at(1, 1)),
            digest: 1,
        };
        script.refused(Invariant::Z13, seen);
    }

    #[test]
    fn a_delivery_on_another_branch_than_the_log_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.elect(2, 2, &[1]);
        script.write(at(2, 1), 2, &[1]);
        let seen = script.delivered(3, at(2, 1));
        script.refused(Invariant::Z13, seen);
    }

    #[test]
    fn a_cut_below_what_is_applied_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        let early = script.delivered(3, at(1, 3));
        script.force(early);
        script.accept(3, 2);
        script.refused(Invariant::Z13, truncating(3, at(1, 2)));
    }

    #[test]
    fn a_sync_of_what_was_not_appended_is_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.see(durable(3, at(1, 1)));
        script.append(3, at(1, 3));
        script.see(durable(3, at(1, 3)));
        script.refused(Invariant::Z13, durable(2, at(1, 3)));
    }

    #[test]
    fn a_snapshot_is_the_one_that_was_begun_and_newer_than_the_last() {
        let mut script = Script::settled();
        script.snapshot(2, at(1, 1));
        script.refused(Invariant::Z13, snapshotted(2, at(1, 2)));

        let mut script = Script::settled();
        script.snapshot(2, at(1, 2));
        let digest = script.digest(at(1, 1));
        script.see(snapshotting(2, at(1, 1), digest));
        script.refused(Invariant::Z13, snapshotted(2, at(1, 1)));
    }

    /// Server 3 has 1:3 in its log, not committed, and is down; its disk as it would be found.
    fn down() -> (Script, Boot) {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.broadcast(at(1, 4), 1);
        script.append(3, at(1, 3));
        script.snapshot(3, at(1, 2));
        let boot = script.boot(3);
        script.stop(3);
        (script, boot)
    }

    #[test]
    fn a_start_that_agrees_with_itself_is_right() {
        let (mut script, boot) = down();
        assert_eq!(boot.applied, at(1, 2));
        let begins_after = at(1, 1);
        script.see(started(
            3,
            Boot {
                begins_after,
                ..boot
            },
        ));
    }

    #[test]
    fn a_snapshot_that_the_log_does_not_lead_to_is_refused_at_the_start() {
        let (mut script, boot) = down();
        let snapshot = Some(at(1, 4));
        script.refused(Invariant::Z13, started(3, Boot { snapshot, ..boot }));
        let (mut script, boot) = down();
        let snapshot = Some(at(1, 5));
        script.refused(Invariant::Z13, started(3, Boot { snapshot, ..boot }));
    }

    #[test]
    fn a_committed_snapshot_newer_than_the_log_is_refused_at_the_start() {
        let mut script = Script::settled();
        let boot = script.boot(3);
        script.stop(3);
        script.write(at(1, 3), 1, &[2]);
        let snapshot = Some(at(1, 3));
        script.refused(Invariant::Z13, started(3, Boot { snapshot, ..boot }));
    }

    #[test]
    fn a_log_that_begins_after_its_snapshot_is_refused_at_the_start() {
        let (mut script, boot) = down();
        let begins_after = at(1, 3);
        let boot = Boot {
            begins_after,
            ..boot
        };
        script.refused(Invariant::Z13, started(3, boot));
    }

    #[test]
    fn an_application_or_a_snapshot_with_what_is_not_committed_is_refused_at_the_start() {
        let (mut script, boot) = down();
        let (applied, digest) = (at(1, 3), script.digest(at(1, 3)));
        let early = Boot {
            applied,
            digest,
            ..boot
        };
        script.refused(Invariant::Z13, started(3, early));
        let (mut script, boot) = down();
        let snapshot = Some(at(1, 3));
        script.refused(Invariant::Z13, started(3, Boot { snapshot, ..boot }));
    }

    #[test]
    fn another_digest_is_refused_at_the_start() {
        let (mut script, boot) = down();
        script.refused(Invariant::Z13, started(3, Boot { digest: 1, ..boot }));
    }
}
