//! Phase 0: finding a leader whose history a quorum would follow.
//!
//! Each server prefers itself first, tells everybody, and adopts a better vote when it hears
//! one, so that all come to prefer the server with the most recent history. Votes are counted
//! by rounds; a server that hears of a later round starts again in it.
//!
//! The election need not be right to be safe: the phases that follow check every promise. It
//! must end, and it should end with a leader that the others need not wait for.

use super::core::Core;
use super::link::Link;
use super::message::{Body, Notification, Stance, Tenure, Vote};
use super::plant::Plant;
use crate::time::Millis;
use crate::types::ServerId;

/// A server looking for a leader.
#[derive(Clone, Hash)]
pub(super) struct Election {
    /// Whom this server prefers at present.
    vote: Vote,
    /// The votes of the others in this round.
    tally: Vec<(ServerId, Ballot)>,
    /// What servers say that are not looking.
    settled: Vec<(ServerId, Notification)>,
    /// When to stop waiting for a better vote; `None` unless enough have this server's.
    decide_at: Option<Millis>,
    /// Nobody is elected before this.
    hold_until: Millis,
    notify_at: Millis,
    notify_wait: Millis,
    /// Learners that have heard the outcome sooner than this server; at most one each.
    early: Vec<Early>,
}

#[derive(Clone, Copy, Hash)]
struct Ballot {
    vote: Vote,
    holds_data: bool,
}

/// A `FollowerInfo` that came before this server knew that it leads.
#[derive(Clone, Hash)]
pub(super) struct Early {
    pub(super) from: ServerId,
    pub(super) tenure: Tenure,
    pub(super) body: Body,
}

impl Early {
    /// This server does not lead, so that the learner need not wait for it.
    pub(super) fn refuse(self, core: &mut Core) {
        Link::new(self.from, self.tenure).say(core, Body::Close);
    }
}

impl Election {
    /// Starts a round.
    pub(super) fn begin(core: &mut Core) -> Election {
        // Others may say any round; one that cannot be exceeded only costs time.
        core.round = core.round.saturating_add(1);
        let mut election = Election {
            vote: core.own_vote(),
            tally: Vec::new(),
            settled: Vec::new(),
            decide_at: None,
            hold_until: core.now + hold(core),
            notify_at: core.now,
            notify_wait: core.settings.timing.notify_min,
            early: Vec::new(),
        };
        election.notify(core);
        election
    }

    /// The vote this server ended with.
    pub(super) fn vote(&self) -> Vote {
        self.vote
    }

    /// The transport has a connection to a server, which may not have heard this vote.
    pub(super) fn on_connected(&self, core: &mut Core, peer: ServerId) {
        self.tell(core, peer);
    }

    pub(super) fn into_early(self) -> Vec<Early> {
        self.early
    }

    /// Keeps what a learner says until this server knows whether it leads.
    pub(super) fn on_early(&mut self, early: Early) {
        let later = |other: &Early| {
            other.from == early.from
                && other.tenure.boot == early.tenure.boot
                && other.tenure.attempt > early.tenure.attempt
        };
        if self.early.iter().any(later) {
            return;
        }
        self.early.retain(|other| other.from != early.from);
        self.early.push(early);
    }

    /// Counts what another server says; the leader, once there is one.
    pub(super) fn on_notification(
        &mut self,
        core: &mut Core,
        from: ServerId,
        said: Notification,
    ) -> Option<ServerId> {
        let ensemble = &core.settings.ensemble;
        if !ensemble.votes(from) || !ensemble.votes(said.vote.leader) {
            return None;
        }
        self.settled.retain(|(id, _)| *id != from);
        if said.stance != Stance::Looking {
            self.settled.push((from, said));
            if self.joins(core, said) {
                return Some(self.join(core, said));
            }
            if said.round != core.round {
                return None;
            }
        }
        if said.round < core.round {
            self.tell(core, from);
            return None;
        }
        let later = said.round > core.round;
        if later {
            core.round = said.round;
            self.tally.clear();
            self.adopt(core.own_vote());
        }
        let first = said.stance == Stance::Looking && self.ballot(from).is_none();
        if self.consider(core, said.vote) || later {
            self.notify(core);
        } else if first && said.vote < self.vote {
            // It has perhaps not heard this vote: it was not looking yet when all were told.
            self.tell(core, from);
        }
        self.tally.retain(|(id, _)| *id != from);
        let ballot = Ballot {
            vote: said.vote,
            holds_data: said.holds_data,
        };
        self.tally.push((from, ballot));
        self.decide(core)
    }

    /// The transport has lost a server, which will hardly lead.
    pub(super) fn on_disconnected(&mut self, core: &mut Core, peer: ServerId) -> Option<ServerId> {
        self.settled.retain(|(id, _)| *id != peer);
        if self.vote.leader == peer {
            let early = std::mem::take(&mut self.early);
            // A server that comes and goes must not hold the election back for ever.
            let hold_until = self.hold_until;
            *self = Election::begin(core);
            self.early = early;
            self.hold_until = hold_until;
        }
        self.decide(core)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, core: &mut Core) -> Option<ServerId> {
        if self.notify_at <= core.now {
            self.notify(core);
        }
        let due = self
            .decide_at
            .is_some_and(|at| at.max(self.hold_until) <= core.now);
        if due && !core.disk_is_stuck() {
            return Some(self.vote.leader);
        }
        let mut settled = self.settled.iter().map(|(_, said)| *said);
        if let Some(said) = settled.find(|said| self.joins(core, *said)) {
            return Some(self.join(core, said));
        }
        self.decide(core)
    }

    pub(super) fn deadline(&self, core: &Core) -> Millis {
        // What nobody objects to is decided as soon as the hold ends.
        let held = (self.hold_until > core.now).then_some(self.hold_until);
        let decided = self.decide_at.map(|at| at.max(self.hold_until));
        let due = [held, decided].into_iter().flatten();
        due.fold(self.notify_at, Millis::min)
    }

    /// The leader of those who have one, if a quorum follows it and it says itself that it
    /// leads: the followers' word alone may be about a leader that is gone.
    fn joins(&self, core: &Core, said: Notification) -> bool {
        if core.now < self.hold_until {
            return false;
        }
        let leader = said.vote.leader;
        let names = |id: ServerId| {
            let found = self.settled.iter().find(|(other, _)| *other == id);
            found
                .map(|(_, said)| *said)
                .filter(|said| said.vote.leader == leader)
        };
        let claims = names(leader).is_some_and(|said| said.stance == Stance::Leading);
        let followed = core.quorum().agrees(|id| names(id).is_some());
        leader != core.id() && claims && followed
    }

    /// Goes to the leader that `said` names.
    fn join(&self, core: &mut Core, said: Notification) -> ServerId {
        core.round = said.round.max(core.round);
        said.vote.leader
    }

    /// Adopts `vote` if it is better than the present one.
    fn consider(&mut self, core: &Core, vote: Vote) -> bool {
        let better = if core.plants().has(Plant::IdDecides) {
            vote.leader > self.vote.leader
        } else if core.plants().has(Plant::ZxidBeforeEpoch) {
            let key = |vote: Vote| (vote.zxid, vote.epoch, vote.leader);
            key(vote) > key(self.vote)
        } else {
            vote > self.vote
        };
        if better {
            self.adopt(vote);
        }
        better
    }

    fn adopt(&mut self, vote: Vote) {
        self.vote = vote;
        self.decide_at = None;
    }

    /// Tells everybody the present vote. A server whose disk is stuck keeps silent: it could
    /// make no promise durable, so it must not be elected.
    fn notify(&mut self, core: &mut Core) {
        if !core.disk_is_stuck() {
            let own = core.notification(Stance::Looking, self.vote);
            core.send_all(&own);
        }
        self.notify_at = core.now + self.notify_wait;
        let doubled = Millis(self.notify_wait.0 * 2);
        self.notify_wait = doubled.min(core.settings.timing.notify_max);
    }

    /// Tells one server the present vote.
    fn tell(&self, core: &mut Core, to: ServerId) {
        if !core.disk_is_stuck() {
            let own = core.notification(Stance::Looking, self.vote);
            core.send(to, own);
        }
    }

    /// Ends the election if nobody who could be heard is still of another mind; else sets the
    /// time to wait for a better vote.
    fn decide(&mut self, core: &Core) -> Option<ServerId> {
        if !core.votes() || core.disk_is_stuck() || !self.is_decided(core) {
            self.decide_at = None;
            return None;
        }
        let settled = core
            .quorum()
            .all_agree(|&id| self.supports(core, id) || !core.is_connected(id));
        if settled && core.now >= self.hold_until {
            return Some(self.vote.leader);
        }
        let finalize = core.settings.timing.finalize;
        self.decide_at.get_or_insert(core.now + finalize);
        None
    }

    /// True if enough servers have this server's vote: a majority that know what they have
    /// acknowledged, or all voters. A server that has lost its disk may have acknowledged what
    /// it no longer holds, so that a majority with it in it proves nothing; but when everybody
    /// is there, all that is left anywhere has been taken into account. That is also how an
    /// ensemble is founded.
    fn is_decided(&self, core: &Core) -> bool {
        let quorum = core.quorum();
        quorum.agrees(|id| self.supports(core, id) && self.holds_data(core, id))
            || quorum.all_agree(|&id| self.supports(core, id))
    }

    fn supports(&self, core: &Core, id: ServerId) -> bool {
        id == core.id()
            || self
                .ballot(id)
                .is_some_and(|ballot| ballot.vote == self.vote)
    }

    fn holds_data(&self, core: &Core, id: ServerId) -> bool {
        if id == core.id() {
            return core.holds_data();
        }
        self.ballot(id).is_some_and(|ballot| ballot.holds_data)
            || core.plants().has(Plant::BlankVotes)
    }

    fn ballot(&self, id: ServerId) -> Option<Ballot> {
        let found = self.tally.iter().find(|(other, _)| *other == id);
        found.map(|(_, ballot)| *ballot)
    }
}

/// How long an election takes at least: nothing at first, and longer each time one has come to
/// nothing, so that servers that cannot agree do not do so as fast as they can.
///
/// At most half the sync limit: one that has been elected meanwhile, or follows this server
/// already, waits no longer than that limit.
fn hold(core: &Core) -> Millis {
    let timing = core.settings.timing;
    let longest = timing.notify_max.min(Millis(timing.sync_limit.0 / 2));
    match core.failures {
        0 | 1 => Millis(0),
        failures => {
            let doubled = HOLD_MIN.0 << (failures - 2).min(16);
            Millis(doubled).min(longest)
        }
    }
}

/// The shortest of these waits.
const HOLD_MIN: Millis = Millis(10);

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
