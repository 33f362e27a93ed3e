//! The judge: what must hold after every step of the simulated world.
//!
//! The invariants are those of PROTOCOL.md, §3, one a file, and each file says what it checks,
//! when, and what it assumes. They look at the [`Ghost`], which knows what is true, and at one
//! [`Observation`], and refuse it or not; a refusal is a [`Violation`] and the end of the run.
//!
//! An observation is checked against the state before it, then taken into the ghost; what
//! follows from it (the committed log grows, a disk holds less) is checked after that. All is
//! incremental: nothing here walks a log.

pub mod ghost;
pub mod server;
pub mod tree;
mod z01_one_leader;
mod z02_committed_prefixes;
mod z03_integrity;
mod z04_total_order;
mod z05_local_primary_order;
mod z06_global_primary_order;
mod z07_primary_integrity;
mod z08_ghost_log;
mod z09_quorum_on_disk;
mod z10_truncation;
mod z11_prefix_of_leader;
mod z12_epochs_and_acks;
mod z13_replay_is_memory;
mod z14_commit_quorum;
mod z15_nothing_stale;

#[cfg(test)]
mod script;

use std::fmt;

use super::observe::{Observation, Said};
use crate::types::{ServerId, Zxid};

pub use ghost::{Ghost, Growth};
pub use tree::{Node, Tree};

/// All invariants over one world.
#[derive(Debug)]
pub struct Checker {
    ghost: Ghost,
    z01: z01_one_leader::OneLeader,
    z02: z02_committed_prefixes::CommittedPrefixes,
    z07: z07_primary_integrity::PrimaryIntegrity,
    z05: z05_local_primary_order::LocalPrimaryOrder,
    z08: z08_ghost_log::GhostLog,
    z11: z11_prefix_of_leader::PrefixOfLeader,
    z14: z14_commit_quorum::CommitQuorum,
    z15: z15_nothing_stale::NothingStale,
}

/// Something that must never happen, and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant is broken.
    pub invariant: Invariant,
    /// The server it was seen at.
    pub server: ServerId,
    /// When, µs of simulated time.
    pub at_us: u64,
    /// What happened, in a sentence.
    pub why: String,
}

/// The invariants of PROTOCOL.md, §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one established leader per epoch.
    Z1,
    /// Committed prefixes are pairwise equal.
    Z2,
    /// What is delivered was broadcast, and is delivered once.
    Z3,
    /// All deliver in one order.
    Z4,
    /// Each primary's transactions are delivered in its order, without gap.
    Z5,
    /// Transactions of earlier primaries come before those of later ones.
    Z6,
    /// A primary broadcasts only after it has delivered what earlier ones left.
    Z7,
    /// The committed log only grows, and every established leader has it.
    Z8,
    /// What is committed is on synced disks of a quorum.
    Z9,
    /// No cut removes what is committed.
    Z10,
    /// After its `NewLeader` ack a follower's log is a prefix of the leader's.
    Z11,
    /// Epochs are ordered and monotone on disk, and no ack precedes its write.
    Z12,
    /// What the disk says is what the application holds.
    Z13,
    /// No commit without a quorum.
    Z14,
    /// Nothing from an old role, epoch or run has an effect.
    Z15,
    /// The world contradicts itself, or took away more than any protocol can bear.
    World,
}

/// What a check says.
pub(super) type Verdict = Result<(), Violation>;

impl Checker {
    /// A checker for an ensemble that has never run.
    ///
    /// # Panics
    /// If there is no voter, or there are more than [`ghost::SERVERS_MAX`] servers.
    #[must_use]
    pub fn new(voters: &[ServerId], observers: &[ServerId]) -> Checker {
        Checker {
            ghost: Ghost::new(voters, observers),
            z01: z01_one_leader::OneLeader::default(),
            z02: z02_committed_prefixes::CommittedPrefixes::default(),
            z07: z07_primary_integrity::PrimaryIntegrity::default(),
            z05: z05_local_primary_order::LocalPrimaryOrder::default(),
            z08: z08_ghost_log::GhostLog::default(),
            z11: z11_prefix_of_leader::PrefixOfLeader::default(),
            z14: z14_commit_quorum::CommitQuorum::default(),
            z15: z15_nothing_stale::NothingStale::default(),
        }
    }

    /// Judges the next thing that happened, at `now_us`.
    ///
    /// # Errors
    /// The first invariant that it breaks. The checker has not taken it in, or not wholly, and
    /// is of no use after that.
    pub fn observe(&mut self, now_us: u64, seen: &Observation) -> Result<(), Violation> {
        self.ghost.at_time(now_us);
        let judged = self.judge(seen);
        judged.map_err(|violation| Violation {
            at_us: now_us,
            ..violation
        })
    }

    /// What is true.
    #[must_use]
    pub fn ghost(&self) -> &Ghost {
        &self.ghost
    }

    fn judge(&mut self, seen: &Observation) -> Verdict {
        let Some(id) = subject(seen) else {
            return Ok(());
        };
        let Some(at) = self.ghost.index(id) else {
            return refuse(Invariant::World, id, || "it is not of the ensemble".into());
        };
        self.z15.runs(&self.ghost, at, seen)?;
        if let Observation::Sent { to, what, .. } = *seen {
            self.judge_speech(at, to, what)?;
        } else {
            self.judge_deed(at, seen)?;
        }
        let growth = self.ghost.apply(at, seen);
        if let Some(growth) = growth {
            z08_ghost_log::grown(&self.ghost, at, &growth)?;
            z09_quorum_on_disk::grown(&self.ghost, at, &growth)?;
        }
        self.judge_outcome(at, seen)
    }

    /// What a server does to its disk and its application, before the ghost knows of it.
    fn judge_deed(&mut self, at: usize, seen: &Observation) -> Verdict {
        let ghost = &self.ghost;
        match *seen {
            Observation::Started { boot, .. } => {
                z12_epochs_and_acks::started(ghost, at, &boot)?;
                z09_quorum_on_disk::started(ghost, at, &boot)?;
                z13_replay_is_memory::started(ghost, at, &boot)
            }
            Observation::Established { epoch, .. } => {
                self.z15.established(ghost, at, epoch)?;
                self.z01.established(ghost, at, epoch)?;
                self.z14.established(ghost, at, epoch)?;
                z08_ghost_log::established(ghost, at, epoch)
            }
            Observation::Broadcast { zxid, .. } => {
                z03_integrity::broadcast(ghost, at, zxid)?;
                z05_local_primary_order::broadcast(ghost, at, zxid)?;
                self.z15.broadcast(ghost, at, zxid)?;
                self.z07.broadcast(ghost, at, zxid)
            }
            Observation::Appended { zxid, hash, .. } => {
                z03_integrity::logged(ghost, at, zxid, hash)?;
                z05_local_primary_order::appended(ghost, at, zxid)?;
                z06_global_primary_order::appended(ghost, at, zxid)?;
                z12_epochs_and_acks::appended(ghost, at, zxid)?;
                z11_prefix_of_leader::appended(ghost, at, zxid)
            }
            Observation::Durable { upto, .. } => z13_replay_is_memory::synced(ghost, at, upto),
            Observation::Truncating { to, .. } | Observation::Truncated { to, .. } => {
                z10_truncation::cut(ghost, at, to)?;
                z11_prefix_of_leader::cut(ghost, at, to)?;
                z13_replay_is_memory::cut(ghost, at, to)
            }
            Observation::Installing { zxid, digest, .. }
            | Observation::Installed { zxid, digest, .. } => {
                z03_integrity::covered(ghost, at, zxid)?;
                z10_truncation::replaced(ghost, at, zxid)?;
                z11_prefix_of_leader::replaced(ghost, at, zxid)?;
                z13_replay_is_memory::digest(ghost, at, zxid, digest)
            }
            Observation::Snapshotting { zxid, digest, .. } => {
                z03_integrity::covered(ghost, at, zxid)?;
                z02_committed_prefixes::snapshot(ghost, at, zxid)?;
                z13_replay_is_memory::digest(ghost, at, zxid, digest)
            }
            Observation::Snapshotted { zxid, .. } => {
                z13_replay_is_memory::snapshotted(ghost, at, zxid)
            }
            Observation::Trimmed { begins_after, .. } => {
                z09_quorum_on_disk::trimmed(ghost, at, begins_after)
            }
            Observation::AcceptedDurable { epoch, .. } => {
                z12_epochs_and_acks::accepted(ghost, at, epoch)
            }
            Observation::CurrentDurable { epoch, .. } => {
                z12_epochs_and_acks::current(ghost, at, epoch)
            }
            Observation::Reported { persisted, .. } => {
                z12_epochs_and_acks::reported(ghost, at, persisted)
            }
            Observation::Committed { upto, .. } => {
                z03_integrity::covered(ghost, at, upto)?;
                self.z02.committed(ghost, at, upto)?;
                self.z14.committed(ghost, at, upto)?;
                z09_quorum_on_disk::committed(ghost, at, upto)?;
                z15_nothing_stale::committed(ghost, at, upto)
            }
            Observation::Delivered {
                zxid, hash, digest, ..
            } => self.judge_delivery(at, zxid, hash, digest),
            Observation::Restored { zxid, digest, .. } => {
                z03_integrity::covered(ghost, at, zxid)?;
                z04_total_order::restored(ghost, at, zxid)?;
                z14_commit_quorum::relied_on(ghost, at, zxid)?;
                z13_replay_is_memory::digest(ghost, at, zxid, digest)
            }
            _ => Ok(()),
        }
    }

    fn judge_delivery(&self, at: usize, zxid: Zxid, hash: u64, digest: u64) -> Verdict {
        let ghost = &self.ghost;
        z03_integrity::logged(ghost, at, zxid, hash)?;
        z03_integrity::delivered(ghost, at, zxid)?;
        z06_global_primary_order::delivered(ghost, at, zxid)?;
        z05_local_primary_order::delivered(ghost, at, zxid)?;
        z04_total_order::delivered(ghost, at, zxid)?;
        self.z07.delivered(ghost, at, zxid)?;
        z14_commit_quorum::relied_on(ghost, at, zxid)?;
        z13_replay_is_memory::digest(ghost, at, zxid, digest)?;
        z13_replay_is_memory::delivered(ghost, at, zxid)
    }

    /// What a server says to another.
    fn judge_speech(&mut self, at: usize, to: ServerId, what: Said) -> Verdict {
        let ghost = &self.ghost;
        match what {
            Said::LeaderInfo { epoch } => {
                z12_epochs_and_acks::leader_info(ghost, at, epoch)?;
                self.z05.begins(ghost, at, to);
                self.z15.leads(ghost, at, epoch)
            }
            Said::AckEpoch {
                epoch,
                current,
                promises,
                last,
            } => {
                z12_epochs_and_acks::ack_epoch(ghost, at, epoch, current, promises)?;
                if promises {
                    z12_epochs_and_acks::history(ghost, at, last)?;
                    self.z01.promised(at, to, epoch, current);
                    self.z08.promised(at, to, epoch, (current, last));
                }
                Ok(())
            }
            Said::NewLeader { epoch, upto } => {
                self.z15.leads(ghost, at, epoch)?;
                self.z01.new_leader(ghost, at, epoch)?;
                self.z08.new_leader(ghost, at, epoch)?;
                self.z05.history_sent(ghost, at, to, upto)?;
                self.z11.new_leader(ghost, at, to, epoch, upto)
            }
            Said::AckNewLeader { epoch } => {
                z12_epochs_and_acks::ack_new_leader(ghost, at, epoch)?;
                self.z15.ack_new_leader(ghost, at, to, epoch)?;
                self.z11.ack_new_leader(ghost, at, epoch)?;
                self.z14.ack_new_leader(ghost, at, epoch);
                Ok(())
            }
            Said::Ack { epoch, zxid } => {
                z12_epochs_and_acks::ack(ghost, at, zxid)?;
                self.z15.ack(ghost, at, to, epoch)?;
                self.z14.ack(ghost, at, epoch, zxid);
                Ok(())
            }
            Said::UpToDate { epoch, upto } | Said::Commit { epoch, upto } => {
                self.z15.commits(ghost, at, epoch)?;
                self.z05.commit_sent(ghost, at, to, upto)?;
                self.z14.told(ghost, at, epoch, upto)
            }
            Said::Inform { epoch, zxid } => {
                self.z15.commits(ghost, at, epoch)?;
                self.z05.sent(ghost, at, to, zxid)?;
                self.z14.told(ghost, at, epoch, zxid)
            }
            Said::Proposal { zxid, .. } => self.z05.sent(ghost, at, to, zxid),
            Said::Pong {
                epoch, loyal: true, ..
            } => z15_nothing_stale::loyal(ghost, at, to, epoch),
            Said::Vote { .. } | Said::Pong { .. } => Ok(()),
        }
    }

    /// What has come of it, the ghost knowing.
    fn judge_outcome(&mut self, at: usize, seen: &Observation) -> Verdict {
        let ghost = &self.ghost;
        match *seen {
            Observation::Started { .. } => {
                z09_quorum_on_disk::still(ghost, at)?;
                z13_replay_is_memory::restarted(ghost, at)
            }
            Observation::Truncated { .. } | Observation::Installed { .. } => {
                z09_quorum_on_disk::still(ghost, at)
            }
            Observation::Wiped { .. } | Observation::SetAside { .. } => {
                z09_quorum_on_disk::lost(ghost, at)
            }
            Observation::Sent {
                what: Said::NewLeader { epoch, .. },
                ..
            } => z12_epochs_and_acks::history_of_current(ghost, epoch),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation {
            invariant,
            server,
            at_us,
            why,
        } = self;
        write!(f, "{invariant:?} at server {server}, {at_us} µs: {why}")
    }
}

impl std::error::Error for Violation {}

/// Whose disk, application or word an observation is about.
fn subject(seen: &Observation) -> Option<ServerId> {
    match *seen {
        Observation::Started { server, .. }
        | Observation::Stopped { server, .. }
        | Observation::Wiped { server }
        | Observation::SetAside { server }
        | Observation::Entered { server, .. }
        | Observation::Established { server, .. }
        | Observation::Deposed { server, .. }
        | Observation::Broadcast { server, .. }
        | Observation::Appended { server, .. }
        | Observation::Durable { server, .. }
        | Observation::Truncating { server, .. }
        | Observation::Truncated { server, .. }
        | Observation::Installing { server, .. }
        | Observation::Installed { server, .. }
        | Observation::Snapshotting { server, .. }
        | Observation::Snapshotted { server, .. }
        | Observation::Trimmed { server, .. }
        | Observation::AcceptedDurable { server, .. }
        | Observation::CurrentDurable { server, .. }
        | Observation::Reported { server, .. }
        | Observation::Committed { server, .. }
        | Observation::Delivered { server, .. }
        | Observation::Restored { server, .. }
        | Observation::Sent { from: server, .. } => Some(server),
        Observation::Healed => None,
    }
}

/// Refuses what `server` did, for the reason given.
#[cold]
fn refuse(invariant: Invariant, server: ServerId, why: impl FnOnce() -> String) -> Verdict {
    Err(Violation {
        invariant,
        server,
        at_us: 0,
        why: why(),
    })
}

/// Refuses unless it is `right`.
#[inline]
fn ensure(
    right: bool,
    invariant: Invariant,
    server: ServerId,
    why: impl FnOnce() -> String,
) -> Verdict {
    if right {
        return Ok(());
    }
    refuse(invariant, server, why)
}

/// The transaction `zxid`, or a refusal by `invariant` if nobody ever broadcast it.
fn known(ghost: &Ghost, at: usize, invariant: Invariant, zxid: Zxid) -> Result<Node, Violation> {
    ghost.tree().find(zxid).ok_or_else(|| Violation {
        invariant,
        server: ghost.servers()[at].id,
        at_us: 0,
        why: format!("{zxid} was never broadcast"),
    })
}

#[cfg(test)]
mod tests {
    use super::script::{Script, at};
    use super::*;
    use crate::sim::observe::Observation;
    use crate::zab::Phase;

    #[test]
    fn an_ordinary_history_breaks_nothing() {
        let mut script = Script::settled();
        script.stop(1);
        script.elect(2, 2, &[3]);
        script.write(at(2, 1), 2, &[3]);
        script.start(1);
        script.elect(3, 3, &[1, 2]);
        script.write(at(3, 1), 3, &[1]);
        assert_eq!(script.ghost().committed_zxid(), at(3, 1));
        assert_eq!(script.ghost().delivered().len(), 4);
    }

    #[test]
    fn an_ensemble_of_one_and_one_with_an_observer_break_nothing() {
        let mut alone = Script::of(1);
        alone.elect(1, 1, &[]);
        alone.write(at(1, 1), 1, &[]);
        alone.stop(1);
        alone.start(1);
        alone.elect(1, 2, &[]);
        alone.write(at(2, 1), 1, &[]);
        let mut watched = Script::with_observers(3, 1);
        watched.elect(1, 1, &[2, 3, 4]);
        watched.write(at(1, 1), 1, &[2, 4]);
        assert_eq!(watched.ghost().committed_zxid(), at(1, 1));
    }

    #[test]
    fn a_suffix_that_no_quorum_held_may_go() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(1, at(1, 3));
        script.sync(1);
        script.stop(1);
        script.elect(2, 2, &[3]);
        script.write(at(2, 1), 2, &[3]);
        script.start(1);
        script.elect(2, 3, &[1, 3]);
        assert_eq!(script.tip(1), at(2, 1));
        script.write(at(3, 1), 2, &[1, 3]);
    }

    #[test]
    fn a_lagging_server_may_be_brought_up_by_a_snapshot() {
        let mut script = Script::settled();
        script.stop(3);
        script.write(at(1, 3), 1, &[2]);
        script.snapshot(1, at(1, 3));
        script.start(3);
        script.install(3, at(1, 3));
        script.tell(1, 3, 1, at(1, 3));
        script.see(script::ack_new_leader(3, 1, 1));
        script.enter(3, Phase::Following);
        script.write(at(1, 4), 1, &[2, 3]);
        script.stop(3);
        script.start(3);
    }

    #[test]
    fn a_server_outside_the_ensemble_is_the_worlds_mistake() {
        let mut script = Script::of(3);
        let stranger = ServerId(9);
        script.refused(Invariant::World, Observation::Wiped { server: stranger });
        let stranger = ServerId(0);
        script.refused(Invariant::World, Observation::Wiped { server: stranger });
        script.see(Observation::Healed);
    }

    #[test]
    fn a_violation_says_what_where_and_when() {
        let violation = Violation {
            invariant: Invariant::Z9,
            server: ServerId(3),
            at_us: 1_234,
            why: "a thing".into(),
        };
        assert_eq!(violation.to_string(), "Z9 at server 3, 1234 µs: a thing");
    }
}
