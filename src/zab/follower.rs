//! A server that follows, or tries to: as a voter or as an observer.
//!
//! The phases are in files of their own: [`super::discovery`], [`super::sync`],
//! [`super::broadcast`]. Here is what they share.

use super::core::Core;
use super::link::{Heard, Link};
use super::message::{Body, Tenure, Vote};
use super::plant::Plant;
use super::{Next, Why};
use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};

/// A follower or observer, active or on the way to it.
#[derive(Clone, Hash)]
pub(super) struct Follower {
    pub(super) link: Link,
    pub(super) step: Step,
    /// The vote that brought it here.
    pub(super) vote: Vote,
    /// The leader's epoch, once it has said it.
    pub(super) epoch: Epoch,
    /// True if that epoch was news.
    pub(super) promises: bool,
    /// True once the leader has said how the histories differ.
    pub(super) planned: bool,
    /// The snapshot being received.
    pub(super) receiving: Option<Zxid>,
    /// The newest transaction acknowledged.
    pub(super) acked: Zxid,
    /// When the leader was last heard, or first asked.
    heard: Millis,
    /// True once the leader has answered.
    answered: bool,
    retry_at: Millis,
    retry_wait: Millis,
}

/// How far a follower has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Discovery: has introduced itself.
    Connecting,
    /// Discovery: makes the leader's epoch durable.
    Accepting,
    /// Synchronization: takes in the leader's history.
    Synchronizing,
    /// Synchronization: has all of it up to here, and makes it durable.
    Adopting {
        /// Where NewLeader came.
        upto: Zxid,
    },
    /// Synchronization: the history is durable; makes the leader's epoch its current one.
    Entering {
        /// Where NewLeader came.
        upto: Zxid,
    },
    /// Synchronization: has acknowledged NewLeader, waits for UpToDate.
    Waiting,
    /// Broadcast.
    Active,
}

impl Follower {
    /// Begins to follow the leader of `vote`.
    pub(super) fn begin(core: &mut Core, vote: Vote) -> Follower {
        let retry_wait = core.settings.timing.retry;
        let mut follower = Follower {
            link: Link::new(vote.leader, Tenure::default()),
            step: Step::Connecting,
            vote,
            epoch: Epoch(0),
            promises: false,
            planned: false,
            receiving: None,
            acked: Zxid::ZERO,
            heard: core.now,
            answered: false,
            retry_at: core.now + retry_wait,
            retry_wait,
        };
        follower.introduce(core);
        follower
    }

    pub(super) fn leader(&self) -> ServerId {
        self.link.peer
    }

    /// Opens a new tenure.
    fn introduce(&mut self, core: &mut Core) {
        core.attempts += 1;
        let tenure = Tenure {
            boot: core.nonce,
            attempt: core.attempts,
        };
        self.link = Link::new(self.link.peer, tenure);
        let info = Body::FollowerInfo {
            accepted_epoch: core.accepted,
            holds_data: core.holds_data(),
            ensemble: core.settings.ensemble.version(),
        };
        self.link.say(core, info);
    }

    /// Takes in what the leader says.
    pub(super) fn on_link(
        &mut self,
        core: &mut Core,
        from: ServerId,
        tenure: Tenure,
        seq: u64,
        body: Body,
    ) -> Next {
        let any = core.plants().has(Plant::TakesOldTenure);
        if from != self.link.peer || (tenure != self.link.tenure && !any) {
            return Next::Stay;
        }
        match self.link.hear(seq, core.plants()) {
            Heard::Next => {}
            Heard::Again => return Next::Stay,
            Heard::Gap => return Next::Look(Why::Gap),
        }
        self.heard = core.now;
        self.answered = true;
        match body {
            Body::LeaderInfo { epoch, ensemble } => self.on_leader_info(core, epoch, ensemble),
            Body::Diff { after } => self.on_diff(core, after),
            Body::Trunc { to } => self.on_trunc(core, to),
            Body::Snap { zxid } => self.on_snap(core, zxid),
            Body::SnapPiece { bytes, last } => self.on_snap_piece(core, bytes, last),
            Body::Proposal(entry) => self.on_proposal(core, entry),
            Body::NewLeader { epoch, upto } => self.on_new_leader(core, epoch, upto),
            Body::UpToDate { committed } => self.on_up_to_date(core, committed),
            Body::Commit { upto } => self.on_commit(core, upto),
            Body::Inform(entry) => self.on_inform(core, entry),
            Body::Ping { round } => self.on_ping(core, round),
            Body::Payload(payload) => {
                core.receive(from, payload);
                Next::Stay
            }
            Body::Close => Next::Look(Why::Closed),
            // What only a learner says.
            Body::FollowerInfo { .. }
            | Body::AckEpoch { .. }
            | Body::AckNewLeader { .. }
            | Body::Ack { .. }
            | Body::Pong { .. } => Next::Look(Why::Nonsense),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, core: &mut Core) -> Next {
        let timing = core.settings.timing;
        if core.now.since(self.heard) > timing.sync_limit {
            core.silent = Some(self.leader());
            return Next::Look(Why::LeaderSilent);
        }
        if !self.answered && self.retry_at <= core.now {
            // Twice as long each time, so that an answer that takes longer than the first wait
            // is not met by yet another attempt.
            self.retry_wait = Millis(self.retry_wait.0 * 2);
            self.retry_at = core.now + self.retry_wait;
            self.introduce(core);
        }
        Next::Stay
    }

    pub(super) fn deadline(&self, core: &Core) -> Millis {
        let silent = self.heard + core.settings.timing.sync_limit + Millis(1);
        if self.answered {
            silent
        } else {
            silent.min(self.retry_at)
        }
    }

    /// The disk has finished a write.
    pub(super) fn on_progress(&mut self, core: &mut Core) -> Next {
        match self.step {
            // Its current epoch and its history are part of what it says, and writes of an
            // earlier attempt, a cut among them, may still be under way.
            Step::Accepting
                if core.has_accepted(self.epoch)
                    && core.has_entered(core.current)
                    && core.is_durable(core.history.last()) =>
            {
                self.ack_epoch(core)
            }
            Step::Adopting { .. } | Step::Entering { .. } => {
                if core.plants().has(Plant::AckOvertakesNewLeader) {
                    self.ack(core);
                }
                self.adopt(core)
            }
            Step::Waiting | Step::Active => {
                self.ack(core);
                Next::Stay
            }
            _ => Next::Stay,
        }
    }

    /// Says goodbye.
    pub(super) fn leave(&mut self, core: &mut Core) {
        self.link.say(core, Body::Close);
    }
}
