//! A server that has won an election, and what it knows of its learners.
//!
//! The phases are in files of their own: [`super::discovery`], [`super::sync`],
//! [`super::broadcast`]. Here is what they share.

use std::collections::VecDeque;

use super::core::Core;
use super::election::Early;
use super::link::{Heard, Link};
use super::message::{Body, Summary, Tenure};
use super::plant::{Plant, Plants};
use super::ready::Standing;
use super::{Next, Why};
use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};

/// A leader, established or on the way to it.
#[derive(Clone, Hash)]
pub(super) struct Leader {
    pub(super) stage: Stage,
    /// 0 until it has been chosen.
    pub(super) epoch: Epoch,
    /// Those that follow or want to, ascending by id; at most one for each other server.
    pub(super) learners: Vec<Learner>,
    /// True if the epoch was chosen by all voters, some of which hold no data.
    pub(super) founding: bool,
    /// The history that the establishment commits ends here.
    pub(super) initial: Zxid,
    /// Unless established by then, it looks anew.
    pub(super) give_up_at: Millis,
    /// Since when it has had no quorum of learners, before it is established.
    pub(super) alone_since: Option<Millis>,
    /// When the next round is due that nobody asked for. A round for a barrier leaves it alone:
    /// it is also when silent learners are let go and the quorum is counted.
    pub(super) ping_at: Millis,
    /// The newest round of pings.
    pub(super) round: u64,
    /// The newest round that a quorum has answered.
    pub(super) confirmed: u64,
    /// Barriers, each with the round it waits for.
    pub(super) barriers: VecDeque<(u64, super::Barrier)>,
    /// Bytes of proposals not committed.
    pub(super) in_flight_bytes: usize,
}

/// How far a leader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    /// Discovery: hears which epochs have been accepted.
    Gathering,
    /// Discovery: makes its new epoch durable before anybody hears of it.
    Choosing,
    /// Discovery: has announced the epoch, hears who accepts it.
    Announced,
    /// Synchronization: brings a quorum, itself included, to its history.
    Synchronizing,
    /// Broadcast.
    Established,
}

/// What a leader knows of one learner.
#[derive(Clone, Hash)]
pub(super) struct Learner {
    pub(super) link: Link,
    pub(super) votes: bool,
    pub(super) holds_data: bool,
    pub(super) accepted: Epoch,
    pub(super) informed: bool,
    /// A learner without data is told the epoch when this round is confirmed.
    pub(super) wait_round: Option<u64>,
    /// It has promised the epoch, which was news to it.
    pub(super) promised: bool,
    /// Its history, until it is decided how to bring it up to date.
    pub(super) history: Option<Summary>,
    /// What it is being sent.
    pub(super) feed: Option<Feed>,
    /// It has acknowledged NewLeader.
    pub(super) synced: bool,
    pub(super) up_to_date: bool,
    pub(super) acked: Zxid,
    pub(super) commit_sent: Zxid,
    /// When it was last heard.
    pub(super) heard: Millis,
    /// The newest round it answered while loyal.
    pub(super) pong: u64,
    /// How far it had been sent at earlier pings: what it must acknowledge in time.
    pub(super) marks: VecDeque<(Zxid, Millis)>,
    /// When it is let go unless it makes progress in its synchronization.
    pub(super) sync_by: Millis,
}

/// The one cursor of a learner over the leader's history.
///
/// History and live proposals pass under the same cursor: there is no switch between them at
/// which one could be lost or doubled.
#[derive(Clone, Hash)]
pub(super) struct Feed {
    /// A snapshot under way: its zxid, and how many bytes have been sent.
    pub(super) snapshot: Option<(Zxid, u64)>,
    /// The last transaction sent, or held by the learner before.
    pub(super) sent: Zxid,
    /// NewLeader goes out right behind this.
    pub(super) new_leader_at: Zxid,
    pub(super) new_leader_sent: bool,
    /// A read of the disk is under way.
    pub(super) reading: bool,
}

impl Leader {
    /// Begins to lead, with the learners that came early.
    pub(super) fn begin(core: &mut Core, early: Vec<Early>) -> (Leader, Next) {
        let mut leader = Leader {
            stage: Stage::Gathering,
            epoch: Epoch(0),
            learners: Vec::new(),
            founding: false,
            initial: Zxid::ZERO,
            give_up_at: core.now + core.settings.timing.init_limit,
            alone_since: Some(core.now),
            ping_at: core.now + core.settings.timing.ping,
            round: 0,
            confirmed: 0,
            barriers: VecDeque::new(),
            in_flight_bytes: 0,
        };
        let mut next = leader.choose_epoch(core);
        for early in early {
            if let Next::Stay = next {
                next = leader.on_link(core, early.from, early.tenure, 0, early.body);
            }
        }
        (leader, next)
    }

    /// Takes in what a learner says.
    pub(super) fn on_link(
        &mut self,
        core: &mut Core,
        from: ServerId,
        tenure: Tenure,
        seq: u64,
        body: Body,
    ) -> Next {
        if let Body::FollowerInfo { .. } = body {
            return self.on_follower_info(core, from, tenure, seq, body);
        }
        let plants = core.plants();
        let now = core.now;
        let Some(learner) = self.learner_of(from, tenure, plants) else {
            return Next::Stay;
        };
        match learner.link.hear(seq, plants) {
            Heard::Next => {}
            Heard::Again => return Next::Stay,
            Heard::Gap => return self.let_go(core, from),
        }
        learner.heard = now;
        match body {
            Body::AckEpoch {
                current_epoch,
                promises,
                history,
            } => self.on_ack_epoch(core, from, current_epoch, promises, history),
            Body::AckNewLeader { epoch } => self.on_ack_new_leader(core, from, epoch),
            Body::Ack { zxid } => self.on_ack(core, from, zxid),
            Body::Pong { round, loyal } => self.on_pong(core, from, round, loyal),
            Body::Payload(payload) => {
                core.receive(from, payload);
                Next::Stay
            }
            Body::Close => self.drop_learner(core, from),
            // What only a leader says. A learner that says it is broken.
            _ => self.let_go(core, from),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, core: &mut Core) -> Next {
        if core.disk_is_stuck() {
            return Next::Look(Why::DiskStuck);
        }
        if self.stage < Stage::Established && self.give_up_at <= core.now {
            return Next::Look(Why::InitLimit);
        }
        let late = self.late_learners(core);
        for id in late {
            if let Next::Look(why) = self.let_go(core, id) {
                return Next::Look(why);
            }
        }
        if self.is_alone_too_long(core) {
            return Next::Look(Why::NoQuorum);
        }
        if self.stage == Stage::Announced && !self.may_be_promised(core) {
            return Next::Look(Why::NewerEpoch);
        }
        if self.ping_at <= core.now {
            self.ping_at = core.now + core.settings.timing.ping;
            self.ping(core);
        }
        self.check_quorum(core)
    }

    /// True if a leader to be has had no quorum of learners for the sync limit: those who elected
    /// it are gone, and wait elsewhere for its vote. The init limit is for a quorum that is there
    /// and is being synchronized.
    fn is_alone_too_long(&mut self, core: &Core) -> bool {
        let me = core.id();
        let company = core
            .quorum()
            .agrees(|id| id == me || self.learner(id).is_some());
        if company || self.stage == Stage::Established {
            self.alone_since = None;
            return false;
        }
        let since = *self.alone_since.get_or_insert(core.now);
        core.now.since(since) > core.settings.timing.sync_limit
    }

    pub(super) fn deadline(&self, core: &Core) -> Millis {
        let mut deadline = self.ping_at;
        if self.stage < Stage::Established {
            deadline = deadline.min(self.give_up_at);
        }
        core.disk_deadline().map_or(deadline, |at| at.min(deadline))
    }

    /// The disk has finished a write.
    pub(super) fn on_progress(&mut self, core: &mut Core) -> Next {
        match self.stage {
            Stage::Gathering | Stage::Announced => Next::Stay,
            Stage::Choosing => self.announce(core),
            Stage::Synchronizing => self.take_over(core),
            Stage::Established => {
                self.commit(core);
                Next::Stay
            }
        }
    }

    /// Ends a tenure and says so.
    pub(super) fn let_go(&mut self, core: &mut Core, id: ServerId) -> Next {
        if let Some(learner) = self.learners.iter_mut().find(|l| l.link.peer == id) {
            learner.link.say(core, Body::Close);
        }
        self.drop_learner(core, id)
    }

    /// Forgets a learner, which has gone or will soon notice.
    pub(super) fn drop_learner(&mut self, core: &mut Core, id: ServerId) -> Next {
        let Some(at) = self.learners.iter().position(|l| l.link.peer == id) else {
            return Next::Stay;
        };
        let learner = self.learners.remove(at);
        if learner.up_to_date {
            self.stand(core);
        }
        self.check_quorum(core)
    }

    /// Says goodbye to everybody.
    pub(super) fn resign(&mut self, core: &mut Core) {
        for learner in &mut self.learners {
            learner.link.say(core, Body::Close);
        }
    }

    /// Reports the standing of an established leader.
    pub(super) fn stand(&self, core: &mut Core) {
        if self.stage < Stage::Established {
            return;
        }
        let up = self.learners.iter().filter(|learner| learner.up_to_date);
        let mut active: Vec<ServerId> = up.map(|learner| learner.link.peer).collect();
        active.push(core.id());
        active.sort_unstable();
        core.stand(Standing::Leading {
            epoch: self.epoch,
            active,
        });
    }

    pub(super) fn learner(&self, id: ServerId) -> Option<&Learner> {
        self.learners.iter().find(|learner| learner.link.peer == id)
    }

    pub(super) fn learner_mut(&mut self, id: ServerId) -> Option<&mut Learner> {
        self.learners
            .iter_mut()
            .find(|learner| learner.link.peer == id)
    }

    fn learner_of(&mut self, id: ServerId, tenure: Tenure, plants: Plants) -> Option<&mut Learner> {
        let any = plants.has(Plant::TakesOldTenure);
        self.learner_mut(id)
            .filter(|learner| learner.link.tenure == tenure || any)
    }
}

impl Learner {
    pub(super) fn new(link: Link, votes: bool, now: Millis, sync_by: Millis) -> Learner {
        Learner {
            link,
            votes,
            holds_data: false,
            accepted: Epoch(0),
            informed: false,
            wait_round: None,
            promised: false,
            history: None,
            feed: None,
            synced: false,
            up_to_date: false,
            acked: Zxid::ZERO,
            commit_sent: Zxid::ZERO,
            heard: now,
            pong: 0,
            marks: VecDeque::new(),
            sync_by,
        }
    }
}
