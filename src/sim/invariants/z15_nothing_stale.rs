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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, ack, ack_new_leader, at, broadcast, commit, committed, current, deposed, durable,
        established, new_leader, said, set_aside, started, wiped,
    };
    use crate::sim::observe::Said;

    fn pong(from: u32, to: u32, loyal: bool) -> Observation {
        let (epoch, round) = (Epoch(1), 1);
        let what = Said::Pong {
            epoch,
            round,
            loyal,
        };
        said(from, to, what)
    }

    #[test]
    fn a_server_that_does_not_run_does_nothing_and_one_that_runs_does_not_start() {
        let mut script = Script::settled();
        script.stop(3);
        script.refused(Invariant::Z15, durable(3, at(1, 2)));
        for seen in [wiped(3), set_aside(3)] {
            Script::settled().refused(Invariant::Z15, seen);
        }
        let mut script = Script::settled();
        let boot = script.boot(3);
        script.refused(Invariant::Z15, started(3, boot));
    }

    #[test]
    fn a_leader_that_has_accepted_a_newer_epoch_is_silent() {
        let info = said(1, 2, Said::LeaderInfo { epoch: Epoch(1) });
        for seen in [
            info,
            commit(1, 2, 1, at(1, 2)),
            new_leader(1, 2, 1, at(1, 2)),
            broadcast(1, at(1, 3)),
        ] {
            let mut script = Script::settled();
            script.see(info);
            script.accept(1, 2);
            script.refused(Invariant::Z15, seen);
        }
    }

    #[test]
    fn a_leader_that_has_ceased_to_lead_is_silent() {
        for cease in [true, false] {
            let mut script = Script::settled();
            if cease {
                script.see(deposed(1, 1));
            } else {
                script.enter(1, Phase::Looking);
            }
            script.see_at_once(commit(1, 2, 1, at(1, 2)));
            script.refused(Invariant::Z15, commit(1, 2, 1, at(1, 2)));
        }
    }

    #[test]
    fn a_reign_ends_with_its_run_and_is_nobody_elses() {
        let mut script = Script::settled();
        script.stop(1);
        script.start(1);
        script.refused(Invariant::Z15, commit(1, 2, 1, at(1, 2)));
        Script::settled().refused(Invariant::Z15, commit(3, 2, 1, at(1, 2)));
    }

    #[test]
    fn a_leader_is_established_after_its_current_epoch_is_durable() {
        let mut script = Script::of(3);
        script.discover(1, 1, &[2, 3]);
        for server in [2, 3] {
            script.tell(1, server, 1, Zxid::ZERO);
            script.join(server, 1, 1);
        }
        script.refused(Invariant::Z15, established(1, 1));
    }

    #[test]
    fn a_broadcast_comes_after_the_establishment() {
        let mut script = Script::of(3);
        script.synchronize(1, 1, &[2, 3]);
        script.refused(Invariant::Z15, broadcast(1, at(1, 1)));
    }

    #[test]
    fn a_follower_that_has_accepted_a_newer_epoch_acknowledges_nothing() {
        for seen in [
            ack(3, 1, 1, at(1, 2)),
            ack_new_leader(3, 1, 1),
            pong(3, 1, true),
        ] {
            let mut script = Script::settled();
            script.see(seen);
            script.accept(3, 2);
            script.see(pong(3, 1, false));
            script.refused(Invariant::Z15, seen);
        }
    }

    #[test]
    fn a_follower_acknowledges_to_its_leader_in_its_own_epoch() {
        let mut script = Script::settled();
        script.refused(Invariant::Z15, ack(3, 2, 1, at(1, 2)));
        let mut script = Script::settled();
        script.accept(3, 2);
        script.see(current(3, 2));
        script.refused(Invariant::Z15, pong(3, 1, true));
    }

    #[test]
    fn transactions_are_acknowledged_after_the_history_in_each_run_and_each_role() {
        let mut script = Script::settled();
        script.stop(3);
        script.start(3);
        script.refused(Invariant::Z15, ack(3, 1, 1, at(1, 2)));
        for phase in [Phase::Looking, Phase::Discovery] {
            let mut script = Script::settled();
            script.enter(3, phase);
            script.refused(Invariant::Z15, ack(3, 1, 1, at(1, 2)));
        }
        let mut script = Script::settled();
        script.enter(3, Phase::Synchronization);
        script.see(ack(3, 1, 1, at(1, 2)));
    }

    #[test]
    fn a_server_without_a_leader_commits_nothing() {
        for phase in [Phase::Looking, Phase::Discovery, Phase::Fenced] {
            let mut script = Script::settled();
            script.enter(3, phase);
            script.see_at_once(committed(3, at(1, 2)));
            script.refused(Invariant::Z15, committed(3, at(1, 2)));
        }
    }
}
