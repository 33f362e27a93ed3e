//! Phase 1: a new epoch, above every epoch that a quorum has promised to follow.
//!
//! ```text
//! follower                       leader
//!   FollowerInfo(accepted) ───────▶ from a quorum, itself included
//!                                   epoch = max + 1, made durable
//!   ◀─────────────────────────────  LeaderInfo(epoch)
//!   accepted = epoch, made durable
//!   AckEpoch(current, history) ───▶ from a quorum: nobody in it will follow an older epoch
//! ```
//!
//! A quorum here is a majority of voters that know what they have acknowledged before; a voter
//! whose disk was lost may have promised what it has forgotten. It counts only when all voters
//! are there (see [`super::election`]), and else it is told the epoch only after a quorum of the
//! others has confirmed, later than it came, that it still follows this leader: whoever promised
//! a newer epoch together with the lost disk would not have.

use super::core::Core;
use super::follower::{Follower, Step};
use super::leader::{Leader, Learner, Stage};
use super::link::Link;
use super::message::{Body, Summary, Tenure};
use super::plant::Plant;
use super::{Next, Why};
use crate::types::{Epoch, ServerId, Zxid};

impl Leader {
    pub(super) fn on_follower_info(
        &mut self,
        core: &mut Core,
        from: ServerId,
        tenure: Tenure,
        seq: u64,
        body: Body,
    ) -> Next {
        let Body::FollowerInfo {
            accepted_epoch,
            holds_data,
            ensemble,
        } = body
        else {
            return Next::Stay;
        };
        if seq != 0 || !core.settings.ensemble.contains(from) {
            return Next::Stay;
        }
        if is_made_up(core, accepted_epoch) {
            return Next::Stay;
        }
        if let Some(known) = self.learner(from).map(|learner| learner.link.tenure) {
            if known.boot == tenure.boot && known.attempt >= tenure.attempt {
                return Next::Stay;
            }
            if let Next::Look(why) = self.drop_learner(core, from) {
                return Next::Look(why);
            }
        }
        let votes = core.settings.ensemble.votes(from);
        let mut link = Link::new(from, tenure);
        let _ = link.hear(0, core.plants());
        if ensemble > core.settings.ensemble.version() {
            // It knows of a newer ensemble, in which this server may not even vote.
            link.say(core, Body::Close);
            return Next::Stay;
        }
        let sync_by = core.now + core.settings.timing.init_limit;
        let mut learner = Learner::new(link, votes, core.now, sync_by);
        learner.holds_data = holds_data;
        learner.accepted = accepted_epoch;
        // So that it knows it was heard, however long the rest takes.
        let round = self.round;
        learner.link.say(core, Body::Ping { round });
        let at = self
            .learners
            .partition_point(|other| other.link.peer < from);
        self.learners.insert(at, learner);
        match self.stage {
            Stage::Gathering => self.choose_epoch(core),
            Stage::Choosing => Next::Stay,
            _ => self.admit(core, from),
        }
    }

    /// Chooses the epoch once a quorum has told what it accepted.
    pub(super) fn choose_epoch(&mut self, core: &mut Core) -> Next {
        let (me, holds) = (core.id(), core.holds_data());
        let known = |id: ServerId| id == me || self.learner(id).is_some();
        let by_data = core.quorum().agrees(|id| {
            (id == me && holds)
                || self
                    .learner(id)
                    .is_some_and(|l| l.holds_data || self.trusts_all(core))
        });
        if !by_data && !core.quorum().all_agree(|&id| known(id)) {
            return Next::Stay;
        }
        self.founding = !by_data;
        let voters = self.learners.iter().filter(|learner| learner.votes);
        let newest = voters.map(|learner| learner.accepted).max();
        let newest = newest.unwrap_or_default().max(core.accepted);
        self.epoch = newest.next();
        if core.plants().has(Plant::EpochOfOwn) {
            self.epoch = core.accepted.next();
        }
        self.stage = Stage::Choosing;
        core.accept(self.epoch, core.id());
        if core.plants().has(Plant::LeaderInfoBeforeDurable) {
            return self.announce_to_all(core);
        }
        Next::Stay
    }

    /// Announces the epoch once it is durable: a leader that forgot it could announce it twice,
    /// with two histories.
    pub(super) fn announce(&mut self, core: &mut Core) -> Next {
        if !core.has_accepted(self.epoch) {
            return Next::Stay;
        }
        self.announce_to_all(core)
    }

    fn announce_to_all(&mut self, core: &mut Core) -> Next {
        self.stage = Stage::Announced;
        let ids: Vec<ServerId> = self.learners.iter().map(|l| l.link.peer).collect();
        for id in ids {
            if let Next::Look(why) = self.admit(core, id) {
                return Next::Look(why);
            }
        }
        self.synchronize(core)
    }

    /// Tells a learner the epoch, if it may know it already.
    pub(super) fn admit(&mut self, core: &mut Core, id: ServerId) -> Next {
        let (epoch, founding, round) = (self.epoch, self.founding, self.round);
        let trusts_all = self.trusts_all(core);
        let established = self.stage == Stage::Established;
        let Some(learner) = self.learner_mut(id).filter(|learner| !learner.informed) else {
            return Next::Stay;
        };
        let ignores = core.plants().has(Plant::IgnoresNewerEpoch);
        if learner.votes && learner.accepted > epoch && !ignores {
            // It can never follow into this epoch, and it votes: the next leader of all of them
            // needs an epoch above.
            return Next::Look(Why::NewerEpoch);
        }
        if !learner.votes && !established && !core.plants().has(Plant::ObserversHearEarly) {
            // Its promise counts for nothing, and would only keep it from a lower epoch if this
            // leader is never established.
            return Next::Stay;
        }
        let attends = founding && !established;
        if learner.votes && !learner.holds_data && !attends && !trusts_all {
            if !established {
                return Next::Stay;
            }
            let wait = *learner.wait_round.get_or_insert(round + 1);
            if self.confirmed < wait {
                return Next::Stay;
            }
        }
        let Some(learner) = self.learner_mut(id) else {
            return Next::Stay;
        };
        learner.informed = true;
        let ensemble = core.settings.ensemble.version();
        learner.link.say(core, Body::LeaderInfo { epoch, ensemble });
        Next::Stay
    }

    /// Admits the learners that have waited for a confirmed round, or for this leader to be
    /// established.
    pub(super) fn admit_waiting(&mut self, core: &mut Core) -> Next {
        let waiting = self.learners.iter().filter(|learner| !learner.informed);
        let ids: Vec<ServerId> = waiting.map(|learner| learner.link.peer).collect();
        for id in ids {
            if let Next::Look(why) = self.admit(core, id) {
                return Next::Look(why);
            }
        }
        Next::Stay
    }

    pub(super) fn on_ack_epoch(
        &mut self,
        core: &mut Core,
        from: ServerId,
        current_epoch: Epoch,
        promises: bool,
        history: Summary,
    ) -> Next {
        let theirs = (current_epoch, last_of(&history));
        let ours = (core.current, core.history.last());
        let votes = core.settings.ensemble.votes(from);
        if theirs > ours && votes && !core.plants().has(Plant::LeadsMoreRecent) {
            // What only it holds may be committed.
            return Next::Look(Why::MoreRecentFollower);
        }
        let counts = promises || core.plants().has(Plant::OldPromiseCounts);
        let Some(learner) = self.learner_mut(from) else {
            return Next::Stay;
        };
        if learner.history.is_some() || learner.feed.is_some() || !learner.informed {
            return self.let_go(core, from);
        }
        learner.promised = counts;
        learner.history = Some(history);
        if self.stage == Stage::Announced {
            if !self.may_be_promised(core) {
                // Nobody is left to make it a quorum, but in the next epoch all will promise.
                return Next::Look(Why::NewerEpoch);
            }
            return self.synchronize(core);
        }
        self.feed(core, from)
    }

    /// True unless those who can never promise this epoch leave no quorum: voters that have
    /// promised it to another, and voters without data, whose promise does not count.
    pub(super) fn may_be_promised(&self, core: &Core) -> bool {
        let (me, holds) = (core.id(), core.holds_data());
        let quorum = core.quorum();
        let denies = |learner: &Learner| learner.history.is_some() && !learner.promised;
        if self.founding {
            return quorum.all_agree(|&id| !self.learner(id).is_some_and(denies));
        }
        quorum.agrees(|id| match self.learner(id) {
            _ if id == me => holds,
            Some(learner) => !denies(learner) && (learner.holds_data || self.trusts_all(core)),
            // Nobody knows what those will say who have not come yet.
            None => true,
        })
    }

    /// True if a quorum, this server included, will follow no older epoch.
    pub(super) fn is_promised(&self, core: &Core) -> bool {
        let (me, holds) = (core.id(), core.holds_data());
        let quorum = core.quorum();
        let promised = |id: ServerId| self.learner(id).is_some_and(|learner| learner.promised);
        let counts = |id: ServerId| {
            self.learner(id)
                .is_some_and(|l| l.promised && (l.holds_data || self.trusts_all(core)))
        };
        quorum.agrees(|id| (id == me && holds) || counts(id))
            || (self.founding && quorum.all_agree(|&id| id == me || promised(id)))
    }

    fn trusts_all(&self, core: &Core) -> bool {
        core.plants().has(Plant::BlankVotes) || core.plants().has(Plant::BlankUnconfirmed)
    }
}

impl Follower {
    pub(super) fn on_leader_info(&mut self, core: &mut Core, epoch: Epoch, ensemble: u64) -> Next {
        if self.step != Step::Connecting {
            return Next::Look(Why::Nonsense);
        }
        if is_made_up(core, epoch) {
            return Next::Look(Why::Nonsense);
        }
        let lower = epoch < core.accepted && !core.plants().has(Plant::FollowsLowerEpoch);
        if lower || ensemble < core.settings.ensemble.version() {
            return Next::Look(Why::LowerEpoch);
        }
        self.epoch = epoch;
        let leader = self.leader();
        if epoch > core.accepted {
            core.accept(epoch, leader);
        }
        // One server leads an epoch once at most: what it is promised twice is one promise.
        self.promises = core.promised_to == Some(leader);
        self.step = Step::Accepting;
        if core.plants().has(Plant::AckEpochBeforeDurable) {
            return self.ack_epoch(core);
        }
        self.on_progress(core)
    }

    /// Tells the leader this server's history: the promise to follow nobody older is durable.
    pub(super) fn ack_epoch(&mut self, core: &mut Core) -> Next {
        let history = core.history.summary();
        let body = Body::AckEpoch {
            current_epoch: core.current,
            promises: self.promises,
            history,
        };
        self.link.say(core, body);
        self.step = Step::Synchronizing;
        Next::Stay
    }
}

/// True if `epoch` is so far ahead of this server's that no elections can have led there: who
/// believed it would bring the whole ensemble to where no epoch is left.
fn is_made_up(core: &Core, epoch: Epoch) -> bool {
    epoch.0.saturating_sub(core.accepted.0) > EPOCH_LEAP_MAX
}

/// The most epochs that a server can have missed: an election a millisecond for thirty years.
const EPOCH_LEAP_MAX: u64 = 1 << 40;

/// Where a history summed up so ends.
pub(super) fn last_of(history: &Summary) -> Zxid {
    history.ends.last().copied().unwrap_or(history.base)
}
