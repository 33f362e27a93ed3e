//! Phase 3: proposals, acknowledgements, commits; and who is still there.
//!
//! ```text
//! leader                                follower               observer
//!   Proposal ─────────────────────────▶ appends, syncs
//!   a quorum, itself included once
//!   its own sync is done      ◀──────── Ack(zxid)
//!   Commit(upto) ─────────────────────▶ delivers
//!   Inform ──────────────────────────────────────────────────▶ appends, delivers
//!   Ping(round) ──────────────────────▶
//!                             ◀──────── Pong(round, loyal)
//! ```
//!
//! Acknowledgements and commits are cumulative: each stands for all before it.

use std::sync::Arc;

use super::core::Core;
use super::follower::{Follower, Step};
use super::leader::{Leader, Stage};
use super::message::Body;
use super::peer::ProposeError;
use super::plant::Plant;
use super::ready::{Barrier, Entry, Fault};
use super::{Next, Why};
use crate::types::{ServerId, Zxid};

impl Leader {
    /// Gives `payload` the next place in the order.
    pub(super) fn propose(
        &mut self,
        core: &mut Core,
        payload: Arc<[u8]>,
    ) -> Result<Zxid, ProposeError> {
        let limits = core.settings.limits;
        if self.stage != Stage::Established {
            return Err(ProposeError::NotLeading);
        }
        let counter = match core.history.last() {
            last if last.epoch == self.epoch => last.counter,
            _ => 0,
        };
        let wraps = core.plants().has(Plant::CounterWraps);
        if counter >= limits.counter_max && !wraps {
            // The next tick makes room for the next epoch.
            return Err(ProposeError::NotLeading);
        }
        let counter = if counter >= limits.counter_max {
            0
        } else {
            counter
        };
        let in_flight = self.in_flight(core);
        if in_flight >= limits.in_flight_max
            || self.in_flight_bytes + payload.len() > limits.in_flight_bytes_max && in_flight > 0
        {
            return Err(ProposeError::Full);
        }
        let zxid = Zxid::new(self.epoch, counter + 1);
        self.in_flight_bytes += payload.len();
        core.append(Entry { zxid, payload });
        for at in 0..self.learners.len() {
            let id = self.learners[at].link.peer;
            self.pump(core, id);
        }
        if core.plants().has(Plant::LeaderAckBeforeDurable) {
            self.commit(core);
        }
        Ok(zxid)
    }

    /// How many proposals are not committed.
    pub(super) fn in_flight(&self, core: &Core) -> usize {
        let counter = |zxid: Zxid| {
            if zxid.epoch == self.epoch {
                zxid.counter
            } else {
                0
            }
        };
        let open = counter(core.history.last()).saturating_sub(counter(core.committed));
        usize::try_from(open).unwrap_or(usize::MAX)
    }

    pub(super) fn on_ack(&mut self, core: &mut Core, from: ServerId, zxid: Zxid) -> Next {
        let early = core.plants().has(Plant::AckOvertakesNewLeader);
        let known = self.learner_mut(from);
        let Some(learner) = known.filter(|learner| learner.synced || early) else {
            return self.let_go(core, from);
        };
        let sent = learner.feed.as_ref().map_or(Zxid::ZERO, |feed| feed.sent);
        if zxid > sent {
            // It has something this leader never sent in this tenure.
            return self.let_go(core, from);
        }
        learner.acked = zxid.max(learner.acked);
        let acked = learner.acked;
        while learner
            .marks
            .front()
            .is_some_and(|(mark, _)| *mark <= acked)
        {
            learner.marks.pop_front();
        }
        self.commit(core);
        self.pump(core, from);
        Next::Stay
    }

    /// Commits, in order, what a quorum has made durable, and tells those who have it.
    pub(super) fn commit(&mut self, core: &mut Core) {
        if self.stage != Stage::Established && !core.plants().has(Plant::CommitsBeforeEstablished) {
            return;
        }
        let me = core.id();
        let plants = core.plants();
        let early = plants.has(Plant::LeaderAckBeforeDurable);
        let overtakes = plants.has(Plant::AckOvertakesNewLeader);
        let own = if early {
            core.history.last()
        } else {
            core.durable()
        };
        let acked = core.quorum().settled(|id| {
            if id == me {
                return own;
            }
            let synced = self
                .learner(id)
                .filter(|learner| learner.synced || overtakes);
            synced.map_or(Zxid::ZERO, |learner| learner.acked)
        });
        if acked <= core.committed {
            return;
        }
        if let Some(entries) = core.history.range(core.committed, acked) {
            let bytes: usize = entries.map(|entry| entry.payload.len()).sum();
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        }
        core.committed = acked;
        if self.in_flight(core) == 0 {
            // Those too long to stay in memory could not be subtracted.
            self.in_flight_bytes = 0;
        }
        core.deliver();
        for at in 0..self.learners.len() {
            let id = self.learners[at].link.peer;
            self.pump(core, id);
        }
    }

    /// Asks everybody whether they are still there.
    pub(super) fn ping(&mut self, core: &mut Core) {
        self.round += 1;
        let (round, now) = (self.round, core.now);
        for learner in &mut self.learners {
            learner.link.say(core, Body::Ping { round });
            if let Some(feed) = learner.feed.as_ref().filter(|_| learner.up_to_date)
                && feed.sent > learner.acked
                && learner
                    .marks
                    .back()
                    .is_none_or(|(mark, _)| *mark < feed.sent)
            {
                learner.marks.push_back((feed.sent, now));
            }
        }
        let _ = self.confirm(core);
    }

    pub(super) fn on_pong(
        &mut self,
        core: &mut Core,
        from: ServerId,
        round: u64,
        loyal: bool,
    ) -> Next {
        if let Some(learner) = self.learner_mut(from)
            && loyal
            && learner.synced
        {
            learner.pong = round.max(learner.pong);
        }
        self.confirm(core)
    }

    /// Takes note of the newest round that a quorum has answered, and of what waited for it.
    fn confirm(&mut self, core: &mut Core) -> Next {
        if self.stage != Stage::Established {
            return Next::Stay;
        }
        let (me, round) = (core.id(), self.round);
        let confirmed = core.quorum().settled(|id| {
            if id == me {
                return round;
            }
            self.learner(id).map_or(0, |learner| learner.pong)
        });
        if confirmed <= self.confirmed {
            return Next::Stay;
        }
        self.confirmed = confirmed;
        self.pass_barriers(core);
        if !self.barriers.is_empty() && self.round <= self.confirmed {
            self.ping(core);
        }
        self.admit_waiting(core)
    }

    fn pass_barriers(&mut self, core: &mut Core) {
        while let Some((round, barrier)) = self.barriers.front() {
            if *round > self.confirmed {
                break;
            }
            core.ready.barriers.push(*barrier);
            self.barriers.pop_front();
        }
    }

    /// Passes once a quorum has confirmed, later than now, that this server still leads; so that
    /// nothing committed before now, by whomever, is missing from what this server has committed.
    pub(super) fn barrier(&mut self, core: &mut Core, token: u64) -> Result<(), ProposeError> {
        if self.stage != Stage::Established {
            return Err(ProposeError::NotLeading);
        }
        if self.barriers.len() >= core.settings.limits.barriers_max {
            return Err(ProposeError::Full);
        }
        let zxid = core.committed;
        let barrier = Barrier { token, zxid };
        if core.plants().has(Plant::BarrierWithoutRound) {
            core.ready.barriers.push(barrier);
            return Ok(());
        }
        self.barriers.push_back((self.round + 1, barrier));
        // One round at a time: those who come meanwhile share the next.
        if self.round <= self.confirmed {
            self.ping(core);
        }
        Ok(())
    }

    /// The learners that have been silent, or behind, for too long.
    pub(super) fn late_learners(&self, core: &Core) -> Vec<ServerId> {
        let limit = core.settings.timing.sync_limit;
        let (keeps_slow, keeps_stuck) = (
            core.plants().has(Plant::KeepsSlow),
            core.plants().has(Plant::KeepsStuck),
        );
        let late = self.learners.iter().filter(|learner| {
            let silent = core.now.since(learner.heard) > limit;
            let behind = |(_, at): &(Zxid, _)| core.now.since(*at) > limit;
            let behind = learner.up_to_date && learner.marks.front().is_some_and(behind);
            let stuck = learner.feed.is_some() && !learner.synced && learner.sync_by <= core.now;
            silent || (behind && !keeps_slow) || (stuck && !keeps_stuck)
        });
        late.map(|learner| learner.link.peer).collect()
    }

    /// An established leader steps down as soon as those it has left are no quorum, and when the
    /// counter of its epoch is used up.
    pub(super) fn check_quorum(&mut self, core: &mut Core) -> Next {
        if self.stage != Stage::Established {
            return Next::Stay;
        }
        let last = core.history.last();
        let spent = last.epoch == self.epoch && last.counter >= core.settings.limits.counter_max;
        if spent && core.committed == last && !core.plants().has(Plant::CounterWraps) {
            return Next::Look(Why::CounterSpent);
        }
        let me = core.id();
        let with_us = |id: ServerId| self.learner(id).is_some_and(|learner| learner.synced);
        let quorum = core.quorum().agrees(|id| id == me || with_us(id));
        if quorum || core.plants().has(Plant::NeverStepsDown) {
            return Next::Stay;
        }
        Next::Look(Why::NoQuorum)
    }
}

impl Follower {
    pub(super) fn on_proposal(&mut self, core: &mut Core, entry: Entry) -> Next {
        let expects = self.planned && self.receiving.is_none();
        let takes = matches!(
            self.step,
            Step::Synchronizing
                | Step::Adopting { .. }
                | Step::Entering { .. }
                | Step::Waiting
                | Step::Active
        );
        if !takes || !expects {
            return Next::Look(Why::Nonsense);
        }
        let last = core.history.last();
        let lax = core.plants().has(Plant::TakesGaps) && entry.zxid > last;
        let of_past = entry.zxid.epoch <= self.epoch;
        if !(entry.zxid.follows(last) && of_past || lax) {
            return Next::Look(Why::Gap);
        }
        let zxid = entry.zxid;
        core.append(entry);
        if core.plants().has(Plant::AckBeforeDurable) && self.step == Step::Active {
            self.acked = zxid;
            self.link.say(core, Body::Ack { zxid });
        }
        if core.plants().has(Plant::DeliversUncommitted) && self.step == Step::Active {
            core.committed = zxid;
            core.deliver();
        }
        Next::Stay
    }

    /// Acknowledges what has become durable since the last time.
    pub(super) fn ack(&mut self, core: &mut Core) {
        let zxid = core.durable();
        if zxid > self.acked && core.is_durable(zxid) {
            self.acked = zxid;
            self.link.say(core, Body::Ack { zxid });
        }
    }

    pub(super) fn on_commit(&mut self, core: &mut Core, upto: Zxid) -> Next {
        if self.step != Step::Active {
            return Next::Look(Why::Nonsense);
        }
        self.commit_upto(core, upto)
    }

    /// Everything up to `upto` is committed. A leader says so only of what it has sent, and what
    /// it has sent is here: anything else means that the two disagree about history, and this
    /// server must not go on.
    pub(super) fn commit_upto(&mut self, core: &mut Core, upto: Zxid) -> Next {
        if upto > core.history.last() {
            let logged = core.history.last();
            core.fence(Fault::CommitBeyondLog { upto, logged });
            return Next::Stay;
        }
        core.committed = upto.max(core.committed);
        core.deliver();
        Next::Stay
    }

    pub(super) fn on_inform(&mut self, core: &mut Core, entry: Entry) -> Next {
        // A voter commits by counted acknowledgements only, and the log takes nothing from above
        // the accepted epoch.
        let expects = self.step == Step::Active && !core.votes();
        if !expects || entry.zxid.epoch > self.epoch {
            return Next::Look(Why::Nonsense);
        }
        if !entry.zxid.follows(core.history.last()) {
            return Next::Look(Why::Gap);
        }
        let upto = entry.zxid;
        core.append(entry);
        self.commit_upto(core, upto)
    }

    pub(super) fn on_ping(&mut self, core: &mut Core, round: u64) -> Next {
        // Only who has promised itself to nobody else may say so.
        let follows = matches!(self.step, Step::Waiting | Step::Active);
        let loyal = follows && core.has_accepted(self.epoch) && core.has_entered(self.epoch);
        self.link.say(core, Body::Pong { round, loyal });
        Next::Stay
    }
}
