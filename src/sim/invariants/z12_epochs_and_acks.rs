//! Z12: accepted_epoch ≥ current_epoch ≥ epoch(last log), both monotone on disk; no ack before
//! its write is durable.
//!
//! As checked here, on the disk at every moment: accepted ≥ current, accepted ≥ epoch(last
//! log), and neither epoch goes down while the server runs or between two runs. During
//! synchronization the log may run ahead of the current epoch, because history is made durable
//! first; current = accepted ≥ epoch(last log) is asked at each `NewLeader` ack, and Z11 keeps
//! it so after that. A current epoch on disk means that the history its primary began with is
//! synced there (the order is history, epoch, ack: ZOOKEEPER-4643).
//!
//! Nothing is acknowledged before it is durable, to anyone: `LeaderInfo` waits for the leader's
//! own accepted epoch, `AckEpoch` for the learner's, `AckNewLeader` for the current epoch,
//! `Ack` for the log; a promise (`AckEpoch` with a new epoch) names the epoch and the end of the
//! history that the disk has. And the disk's reports to its own server are true: what is
//! reported was durable at some time in this run.
//!
//! Disk loss: a wiped disk starts from zero. A log that was set aside starts with current epoch
//! 0 and an accepted epoch that is kept or is 0.

use super::server::{Loss, Server};
use super::tree::Node;
use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::sim::observe::Boot;
use crate::types::{Epoch, Zxid};
use crate::zab::Persisted;

fn server(ghost: &Ghost, at: usize) -> &Server {
    &ghost.servers()[at]
}

fn require(ghost: &Ghost, at: usize, right: bool, why: impl FnOnce() -> String) -> Verdict {
    ensure(right, Invariant::Z12, server(ghost, at).id, why)
}

/// A server is about to start with what it found.
pub(super) fn started(ghost: &Ghost, at: usize, boot: &Boot) -> Verdict {
    let before = server(ghost, at);
    let kept = boot.accepted >= before.accepted && boot.current >= before.current;
    let right = match before.loss {
        Loss::None => kept,
        Loss::Wiped => boot.accepted == Epoch(0) && boot.current == Epoch(0),
        Loss::SetAside => {
            let accepted = boot.accepted == Epoch(0) || kept;
            accepted && boot.current == Epoch(0)
        }
    };
    let Server {
        accepted, current, ..
    } = *before;
    require(ghost, at, right, || {
        let Boot {
            accepted: a,
            current: c,
            ..
        } = *boot;
        format!("it starts with the epochs {a} and {c}, and had {accepted} and {current} on disk")
    })?;
    let order = boot.accepted >= boot.current && boot.accepted >= boot.last.epoch;
    require(ghost, at, order, || {
        let Boot {
            accepted,
            current,
            last,
            ..
        } = *boot;
        format!("it starts with accepted epoch {accepted}, current epoch {current}, log to {last}")
    })
}

/// The accepted epoch is durable.
pub(super) fn accepted(ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
    let before = server(ghost, at).accepted;
    require(ghost, at, epoch >= before, || {
        format!("its accepted epoch goes from {before} back to {epoch}")
    })
}

/// The current epoch is durable.
pub(super) fn current(ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
    let Server {
        accepted,
        current,
        durable,
        ..
    } = *server(ghost, at);
    require(ghost, at, epoch >= current, || {
        format!("its current epoch goes from {current} back to {epoch}")
    })?;
    require(ghost, at, epoch <= accepted, || {
        format!("its current epoch becomes {epoch}, above the accepted {accepted}")
    })?;
    has_history(ghost, at, epoch, durable)
}

/// The history of `epoch` has been announced: whoever has that current epoch has it.
pub(super) fn history_of_current(ghost: &Ghost, epoch: Epoch) -> Verdict {
    for (at, server) in ghost.servers().iter().enumerate() {
        if server.current == epoch {
            has_history(ghost, at, epoch, server.durable)?;
        }
    }
    Ok(())
}

fn has_history(ghost: &Ghost, at: usize, epoch: Epoch, durable: Node) -> Verdict {
    let tree = ghost.tree();
    // A primary may make its epoch current before it has announced its history to anyone.
    let Some(run) = tree.run_of(epoch) else {
        return Ok(());
    };
    let base = tree.base(run);
    require(ghost, at, tree.holds(durable, base), || {
        let (base, durable) = (tree.zxid(base), tree.zxid(durable));
        format!("its current epoch is {epoch}, whose history ends at {base}, with {durable} synced")
    })
}

/// A log is given `zxid`.
pub(super) fn appended(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let accepted = server(ghost, at).accepted;
    require(ghost, at, zxid.epoch <= accepted, || {
        format!("it appends {zxid}, having accepted epoch {accepted}")
    })
}

/// The leader announces its epoch.
pub(super) fn leader_info(ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
    let accepted = server(ghost, at).accepted;
    require(ghost, at, accepted >= epoch, || {
        format!("it announces epoch {epoch}, having {accepted} as its accepted epoch on disk")
    })
}

/// A learner has accepted an epoch.
pub(super) fn ack_epoch(
    ghost: &Ghost,
    at: usize,
    epoch: Epoch,
    current: Epoch,
    promises: bool,
) -> Verdict {
    let disk = server(ghost, at);
    require(ghost, at, disk.accepted >= epoch, || {
        let accepted = disk.accepted;
        format!("it promises epoch {epoch}, having {accepted} as its accepted epoch on disk")
    })?;
    // One that promises nothing new may come while a write of the epoch is under way.
    let right = disk.current == current || (!promises && disk.current > current);
    require(ghost, at, right, || {
        let on_disk = disk.current;
        format!("it says that its current epoch is {current}, on disk it is {on_disk}")
    })
}

/// A learner says, with a new promise, that its history ends at `last`.
pub(super) fn history(ghost: &Ghost, at: usize, last: Zxid) -> Verdict {
    let (tree, disk) = (ghost.tree(), server(ghost, at));
    let node = known(ghost, at, Invariant::Z12, last)?;
    let right = tree.holds(node, disk.durable) && tree.holds(disk.tip, node);
    require(ghost, at, right, || {
        let (durable, tip) = (tree.zxid(disk.durable), tree.zxid(disk.tip));
        format!("it says that its history ends at {last}; {durable} is synced, {tip} appended")
    })
}

/// A learner acknowledges the history of `epoch`.
pub(super) fn ack_new_leader(ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
    let disk = server(ghost, at);
    let newest = ghost.tree().zxid(disk.tip).epoch;
    let right = disk.current >= epoch && disk.current >= newest;
    require(ghost, at, right, || {
        let Server {
            accepted, current, ..
        } = *disk;
        format!(
            "it acknowledges the history of epoch {epoch}; on disk accepted {accepted}, current \
             {current}, log of epoch {newest}"
        )
    })
}

/// A learner acknowledges everything up to `zxid`.
pub(super) fn ack(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let (tree, disk) = (ghost.tree(), server(ghost, at));
    let node = known(ghost, at, Invariant::Z12, zxid)?;
    require(ghost, at, tree.holds(disk.durable, node), || {
        let durable = tree.zxid(disk.durable);
        format!("it acknowledges {zxid} with only {durable} synced")
    })
}

/// A server is told that a write of its own is durable.
pub(super) fn reported(ghost: &Ghost, at: usize, persisted: Persisted) -> Verdict {
    let disk = server(ghost, at);
    let true_at_some_time = match persisted {
        Persisted::AcceptedEpoch(epoch) => disk.accepted >= epoch,
        Persisted::CurrentEpoch(epoch) => disk.current >= epoch,
        // The log may have been cut since: then the report is late, and not wrong.
        Persisted::Log(zxid) => disk.done.synced >= zxid,
        Persisted::Truncated(_) => disk.done.cuts > 0,
        Persisted::Snapshot(_) => disk.done.installs > 0,
    };
    require(ghost, at, true_at_some_time, || {
        format!("it is told that {persisted:?} is durable, and it is not")
    })
}

#[cfg(test)]
#[path = "z12_tests.rs"]
mod tests;
