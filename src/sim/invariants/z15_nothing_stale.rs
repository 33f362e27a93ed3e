//! Z15: nothing from an old role, epoch or run (message, timer, disk completion) has an effect.
//!
//! What is stale inside a server cannot be seen, but what comes of it can. Checked:
//!
//! - a server that is not running does nothing, and starts only when it does not run;
//! - whoever acts as the leader of an epoch (`LeaderInfo`, `NewLeader`, `UpToDate`, `Commit`,
//!   `Inform`, a broadcast, being established) has that epoch as its accepted one on disk, is
//!   its primary in the very run in which it announced the history, and has not ceased to lead;
//! - whoever acts as a follower (`AckNewLeader`, `Ack`, a loyal `Pong`) has that epoch as
//!   accepted and current epoch on disk, and speaks to its primary; and it acknowledges
//!   transactions only after the history, in the same run and without having looked for another
//!   leader since (ZOOKEEPER-4685);
//! - a server regards more as committed only while it leads or is led.
//!
//! What is said in the very step in which a reign ends still counts as said before.

use super::{Ghost, Invariant, Verdict, ensure, refuse};
use crate::sim::observe::Observation;
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::Phase;

/// What each server may do in its present role.
#[derive(Debug, Default)]
pub(super) struct NothingStale {
    /// By server: the run, and the epoch whose history it has acknowledged since it last looked
    /// for a leader.
    joined: Vec<(u64, Epoch)>,
}

impl NothingStale {
    /// Something happens at a server.
    pub(super) fn runs(&mut self, ghost: &Ghost, at: usize, seen: &Observation) -> Verdict {
        let server = &ghost.servers()[at];
        let expected = match seen {
            Observation::Started { .. }
            | Observation::Wiped { .. }
            | Observation::SetAside { .. } => false,
            Observation::Entered { phase, .. } => {
                if matches!(phase, Phase::Looking | Phase::Discovery) {
                    *self.joined(at) = (0, Epoch(0));
                }
                true
            }
            _ => true,
        };
        ensure(
            server.running == expected,
            Invariant::Z15,
            server.id,
            || {
                let state = if expected { "not running" } else { "running" };
                format!("it is {state}, and this happens: {seen:?}")
            },
        )
    }

    /// A server acts as the leader of `epoch`.
    pub(super) fn leads(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        let server = &ghost.servers()[at];
        ensure(server.accepted == epoch, Invariant::Z15, server.id, || {
            let accepted = server.accepted;
            format!("it acts as the leader of epoch {epoch}, having accepted {accepted}")
        })?;
        let Some(run) = ghost.tree().run_of(epoch) else {
            return Ok(());
        };
        let reign = ghost.reign(run);
        let primary = ghost.tree().primary(run);
        let same = primary == server.id && reign.starts == server.starts;
        // Whose the epoch is when it is announced a second time, is for Z1 to say.
        ensure(
            !same || !reign.is_over(ghost.now_us()),
            Invariant::Z15,
            server.id,
            || format!("it acts as the leader of epoch {epoch}, which it leads no more"),
        )
    }

    /// A server takes itself for the established leader of `epoch`.
    pub(super) fn established(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        self.leads(ghost, at, epoch)?;
        let server = &ghost.servers()[at];
        ensure(server.current == epoch, Invariant::Z15, server.id, || {
            let current = server.current;
            format!("it is established in epoch {epoch} with current epoch {current} on disk")
        })
    }

    /// A server broadcasts `zxid`.
    pub(super) fn broadcast(&self, ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
        self.commits(ghost, at, zxid.epoch)?;
        let run = ghost.tree().run_of(zxid.epoch);
        let established = run.is_some_and(|run| ghost.reign(run).established);
        ensure(established, Invariant::Z15, ghost.servers()[at].id, || {
            format!("it broadcasts {zxid} without being established")
        })
    }

    /// A server says, as the leader of `epoch`, what is committed.
    pub(super) fn commits(&self, ghost: &Ghost, at: usize, epoch: Epoch) -> Verdict {
        self.leads(ghost, at, epoch)?;
        let server = &ghost.servers()[at];
        let run = ghost.tree().run_of(epoch);
        let own = run.is_some_and(|run| {
            let same = ghost.reign(run).starts == server.starts;
            same && ghost.tree().primary(run) == server.id
        });
        ensure(own, Invariant::Z15, server.id, || {
            format!("it acts as the established leader of epoch {epoch}, which it does not lead")
        })
    }

    /// A server has acknowledged the history of `epoch` to `to`.
    pub(super) fn ack_new_leader(
        &mut self,
        ghost: &Ghost,
        at: usize,
        to: ServerId,
        epoch: Epoch,
    ) -> Verdict {
        loyal(ghost, at, to, epoch)?;
        *self.joined(at) = (ghost.servers()[at].starts, epoch);
        Ok(())
    }

    /// A server acknowledges transactions to `to`.
    pub(super) fn ack(&mut self, ghost: &Ghost, at: usize, to: ServerId, epoch: Epoch) -> Verdict {
        loyal(ghost, at, to, epoch)?;
        let server = &ghost.servers()[at];
        let joined = *self.joined(at) == (server.starts, epoch);
        ensure(joined, Invariant::Z15, server.id, || {
            format!("it acknowledges transactions in epoch {epoch} before its history")
        })
    }

    fn joined(&mut self, at: usize) -> &mut (u64, Epoch) {
        if self.joined.len() <= at {
            self.joined.resize(at + 1, (0, Epoch(0)));
        }
        &mut self.joined[at]
    }
}

/// A server acts as a follower of `to` in `epoch`.
pub(super) fn loyal(ghost: &Ghost, at: usize, to: ServerId, epoch: Epoch) -> Verdict {
    let server = &ghost.servers()[at];
    let run = ghost.tree().run_of(epoch);
    let primary = run.map(|run| ghost.tree().primary(run));
    if server.is_loyal_to(epoch) && primary == Some(to) {
        return Ok(());
    }
    refuse(Invariant::Z15, server.id, || {
        let (accepted, current) = (server.accepted, server.current);
        format!(
            "it acts as a follower of {to} in epoch {epoch}; on disk accepted {accepted}, \
             current {current}, and that epoch's primary is {primary:?}"
        )
    })
}

/// A server regards everything up to `upto` as committed.
pub(super) fn committed(ghost: &Ghost, at: usize, upto: Zxid) -> Verdict {
    let server = &ghost.servers()[at];
    let idle = matches!(
        server.phase,
        Phase::Looking | Phase::Discovery | Phase::Fenced
    );
    let since = server.phase_since < ghost.now_us();
    ensure(!(idle && since), Invariant::Z15, server.id, || {
        let phase = server.phase;
        format!("it commits {upto} in phase {phase:?}")
    })
}
