//! One server's part in the broadcast: moves between the roles.

use std::sync::Arc;

use super::core::Core;
use super::election::{Early, Election};
use super::follower::{Follower, Step};
use super::leader::{Leader, Stage};
use super::message::{Body, Message, Notification, Stance, Tenure, Vote};
use super::plant::Plant;
use super::ready::{Fault, Persisted, Piece, Ready, Standing};
use super::settings::{Boot, Settings};
use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};

/// The state machine of one server.
///
/// Its methods are of four kinds: inputs ([`Peer::start`], [`Peer::tick`], `on_…`), commands
/// ([`Peer::propose`], [`Peer::barrier`], [`Peer::send`]), the one output ([`Peer::ready`]),
/// to be taken after each of these, and getters.
///
/// Where a method takes `now`, that is this server's own monotonic clock.
#[derive(Clone, Hash)]
pub struct Peer {
    core: Core,
    role: Role,
    why: Why,
}

#[derive(Clone, Hash)]
enum Role {
    /// Not started yet.
    Resting,
    Looking(Election),
    Leading(Leader, Vote),
    Following(Follower),
    /// It acknowledges, votes and proposes nothing any more. Only a restart, which reads again
    /// what the disk really holds, ends this.
    Fenced,
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Has not been started, or has no leader.
    Looking,
    /// Leads or follows, and agrees on an epoch.
    Discovery,
    /// Leads or follows, and agrees on a history.
    Synchronization,
    /// Follows and has all that is committed.
    Following,
    /// Is the established leader: takes proposals.
    Leading,
    /// Does not vote, follows and has all that is committed.
    Observing,
    /// Has withdrawn for good.
    Fenced,
}

/// Why a peer looks for a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It has just started.
    Started,
    /// A leader that has no quorum behind it any more.
    NoQuorum,
    /// A leader that was not established in time.
    InitLimit,
    /// A leader whose disk finishes no write.
    DiskStuck,
    /// A leader that met a voter with a more recent history.
    MoreRecentFollower,
    /// A leader that met a voter which has accepted a newer epoch.
    NewerEpoch,
    /// A leader that has used up the counter of its epoch.
    CounterSpent,
    /// A follower that has not heard its leader for too long.
    LeaderSilent,
    /// A follower whose transport lost the leader.
    LeaderLost,
    /// A follower whose leader looks for a leader itself.
    LeaderLooks,
    /// A follower that its leader let go.
    Closed,
    /// A follower that was not sent everything.
    Gap,
    /// A follower whose leader announced an epoch below the one it accepted.
    LowerEpoch,
    /// A follower that was told what cannot be.
    Nonsense,
}

/// What a role makes of an input.
pub(super) enum Next {
    /// It goes on.
    Stay,
    /// It ends.
    Look(Why),
}

/// Why a proposal was not taken. Nothing has happened; the caller may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This peer does not lead at present.
    #[error("not the established leader")]
    NotLeading,
    /// As much is in flight as may be.
    #[error("too many proposals in flight")]
    Full,
}

impl Peer {
    /// A peer that rests until [`Peer::start`].
    ///
    /// # Panics
    /// If the disk contradicts itself: accepted ≥ current, and accepted ≥ the epoch of the last
    /// transaction, hold on every disk this code has written (invariant Z12); or if the server is
    /// not of the ensemble.
    #[must_use]
    pub fn new(settings: Settings, boot: Boot) -> Peer {
        Peer {
            core: Core::new(settings, boot),
            role: Role::Resting,
            why: Why::Started,
        }
    }

    /// Begins to look for a leader. Alone, the peer's own vote is a quorum, so it leads at once.
    ///
    /// # Panics
    /// If the peer has been started before.
    pub fn start(&mut self, now: Millis) {
        assert!(matches!(self.role, Role::Resting), "started twice");
        self.core.now = now;
        self.look(Why::Started);
    }

    /// Time has passed. To be called at [`Peer::deadline`] or soon after; sooner does no harm.
    pub fn tick(&mut self, now: Millis) {
        self.core.now = now;
        let core = &mut self.core;
        match &mut self.role {
            Role::Looking(election) => {
                let elected = election.tick(core);
                self.elect(elected);
            }
            Role::Leading(leader, _) => {
                let next = leader.tick(core);
                self.go(next);
            }
            Role::Following(follower) => {
                let next = follower.tick(core);
                self.go(next);
            }
            Role::Resting | Role::Fenced => {}
        }
    }

    /// When [`Peer::tick`] is next of use.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        match &self.role {
            Role::Looking(election) => election.deadline(&self.core),
            Role::Leading(leader, _) => leader.deadline(&self.core),
            Role::Following(follower) => follower.deadline(&self.core),
            Role::Resting | Role::Fenced => Millis(u64::MAX),
        }
    }

    /// Another server has said something.
    pub fn on_message(&mut self, now: Millis, from: ServerId, message: Message) {
        self.core.now = now;
        if from == self.core.id() {
            return;
        }
        if self.core.silent == Some(from) {
            self.core.silent = None;
        }
        match message {
            Message::Vote(said) => self.on_notification(from, said),
            Message::Link { tenure, seq, body } => self.on_link(from, tenure, seq, body),
        }
    }

    /// The transport has a connection to `peer`. A hint: it spares an election the wait.
    pub fn on_connected(&mut self, now: Millis, peer: ServerId) {
        self.core.now = now;
        self.core.set_connected(peer, true);
        if let Role::Looking(election) = &self.role {
            election.on_connected(&mut self.core, peer);
        }
    }

    /// The transport has lost its connection to `peer`. A hint: it spares the silence.
    pub fn on_disconnected(&mut self, now: Millis, peer: ServerId) {
        self.core.now = now;
        self.core.set_connected(peer, false);
        let core = &mut self.core;
        match &mut self.role {
            Role::Looking(election) => {
                let elected = election.on_disconnected(core, peer);
                self.elect(elected);
            }
            Role::Leading(leader, _) => {
                let next = leader.drop_learner(core, peer);
                self.go(next);
            }
            Role::Following(follower) if follower.leader() == peer => {
                self.go(Next::Look(Why::LeaderLost));
            }
            _ => {}
        }
    }

    /// A write given out in a [`Ready`] would survive a loss of power.
    ///
    /// # Panics
    /// If it was never given out: the disk and the peer disagree.
    pub fn on_persisted(&mut self, now: Millis, persisted: Persisted) {
        self.core.now = now;
        self.core.on_persisted(persisted);
        let core = &mut self.core;
        let next = match &mut self.role {
            Role::Leading(leader, _) => leader.on_progress(core),
            Role::Following(follower) => follower.on_progress(core),
            Role::Looking(_) | Role::Resting | Role::Fenced => Next::Stay,
        };
        self.go(next);
    }

    /// A write or a sync failed. The bytes may or may not be on disk, and asking again would
    /// prove nothing, so this server withdraws for good.
    pub fn on_write_failed(&mut self) {
        if self.core.plants().has(Plant::GoesOnAfterFault) {
            return;
        }
        self.core.fence(Fault::WriteFailed);
        self.go(Next::Stay);
    }

    /// The answer to a [`super::Read`] given out in a [`Ready`].
    pub fn on_read(&mut self, now: Millis, learner: ServerId, tenure: Tenure, piece: Piece) {
        self.core.now = now;
        if let Role::Leading(leader, _) = &mut self.role {
            let next = leader.on_read(&mut self.core, learner, tenure, piece);
            self.go(next);
        }
    }

    /// A snapshot of this server's own state as of `zxid` is on its disk.
    pub fn on_snapshot_taken(&mut self, zxid: Zxid) {
        let newer = self.core.snapshot.is_none_or(|known| zxid > known);
        if newer && self.core.history.contains(zxid) {
            self.core.snapshot = Some(zxid);
        }
    }

    /// The log now begins after `begins_after`: what came before is in a snapshot.
    pub fn on_trimmed(&mut self, begins_after: Zxid) {
        self.core.history.trim(begins_after);
    }

    /// Proposes `payload`; its place in the order is returned at once, its commit arrives in
    /// a later [`Ready::deliver`].
    ///
    /// # Errors
    /// See [`ProposeError`]; nothing was proposed then.
    pub fn propose(&mut self, now: Millis, payload: Arc<[u8]>) -> Result<Zxid, ProposeError> {
        self.core.now = now;
        match &mut self.role {
            Role::Leading(leader, _) => leader.propose(&mut self.core, payload),
            _ => Err(ProposeError::NotLeading),
        }
    }

    /// Asks for proof that this server still leads: `token` comes back in
    /// [`Ready::barriers`] once a quorum has confirmed it later than now, and everything that
    /// was committed before now is then delivered here. If it ceases to lead, it never comes
    /// back.
    ///
    /// # Errors
    /// See [`ProposeError`]; nothing was asked then.
    pub fn barrier(&mut self, now: Millis, token: u64) -> Result<(), ProposeError> {
        self.core.now = now;
        match &mut self.role {
            Role::Leading(leader, _) => leader.barrier(&mut self.core, token),
            _ => Err(ProposeError::NotLeading),
        }
    }

    /// Sends a message of the application, to a learner or (`None`) to the leader. It is neither
    /// logged nor ordered with commits, and lost if the tenure ends. False if there is no such
    /// learner, or no leader, at present.
    pub fn send(&mut self, to: Option<ServerId>, payload: Arc<[u8]>) -> bool {
        let core = &mut self.core;
        match (&mut self.role, to) {
            (Role::Leading(leader, _), Some(to)) => match leader.learner_mut(to) {
                Some(learner) if learner.up_to_date => {
                    learner.link.say(core, Body::Payload(payload));
                    true
                }
                _ => false,
            },
            (Role::Following(follower), None) if follower.step == Step::Active => {
                follower.link.say(core, Body::Payload(payload));
                true
            }
            _ => false,
        }
    }

    /// Moves what has come up since the last call into `ready`, whose old contents are
    /// dropped while its memory is used again.
    pub fn ready(&mut self, ready: &mut Ready) {
        ready.clear();
        std::mem::swap(ready, &mut self.core.ready);
        self.core.shrink();
    }

    /// The last transaction that its memory has forgotten.
    #[cfg(test)]
    pub(super) fn forgotten(&self) -> Zxid {
        self.core.history.window_after()
    }

    /// This server.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.core.id()
    }

    /// Where this peer stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.role {
            Role::Resting | Role::Looking(_) => Phase::Looking,
            Role::Leading(leader, _) => match leader.stage {
                Stage::Gathering | Stage::Choosing | Stage::Announced => Phase::Discovery,
                Stage::Synchronizing => Phase::Synchronization,
                Stage::Established => Phase::Leading,
            },
            Role::Following(follower) => match follower.step {
                Step::Connecting | Step::Accepting => Phase::Discovery,
                Step::Active if self.core.votes() => Phase::Following,
                Step::Active => Phase::Observing,
                _ => Phase::Synchronization,
            },
            Role::Fenced => Phase::Fenced,
        }
    }

    /// Why it last began to look for a leader.
    #[must_use]
    pub fn why(&self) -> Why {
        self.why
    }

    /// The newest epoch this server has promised to follow.
    #[must_use]
    pub fn accepted_epoch(&self) -> Epoch {
        self.core.accepted
    }

    /// The epoch whose history this server holds.
    #[must_use]
    pub fn current_epoch(&self) -> Epoch {
        self.core.current
    }

    /// The newest transaction known to be committed.
    #[must_use]
    pub fn committed(&self) -> Zxid {
        self.core.committed
    }

    /// The newest transaction given out for delivery.
    #[must_use]
    pub fn delivered(&self) -> Zxid {
        self.core.delivered
    }

    /// The newest transaction of the history; its write is at least queued.
    #[must_use]
    pub fn last_logged(&self) -> Zxid {
        self.core.history.last()
    }

    /// The newest transaction known to be durable here.
    #[must_use]
    pub fn durable(&self) -> Zxid {
        self.core.durable()
    }

    /// The leader this server follows, itself included; `None` while there is none.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        match &self.role {
            Role::Leading(..) => Some(self.core.id()),
            Role::Following(follower) => Some(follower.leader()),
            Role::Resting | Role::Looking(_) | Role::Fenced => None,
        }
    }

    /// How many proposals of this leader are not committed; 0 if it does not lead.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        match &self.role {
            Role::Leading(leader, _) => leader.in_flight(&self.core),
            _ => 0,
        }
    }

    fn on_notification(&mut self, from: ServerId, said: Notification) {
        let core = &mut self.core;
        let (stance, vote) = match &mut self.role {
            Role::Looking(election) => {
                let elected = election.on_notification(core, from, said);
                return self.elect(elected);
            }
            Role::Leading(_, vote) => (Stance::Leading, *vote),
            Role::Following(follower) => {
                let looks = said.stance == Stance::Looking && said.round > core.round;
                if follower.leader() == from && looks {
                    return self.go(Next::Look(Why::LeaderLooks));
                }
                (Stance::Following, follower.vote)
            }
            Role::Resting | Role::Fenced => return,
        };
        if said.stance == Stance::Looking && core.settings.ensemble.contains(from) {
            let own = core.notification(stance, vote);
            core.send(from, own);
        }
    }

    fn on_link(&mut self, from: ServerId, tenure: Tenure, seq: u64, body: Body) {
        let core = &mut self.core;
        let asks = matches!(body, Body::FollowerInfo { .. }) && seq == 0;
        let asks = asks && core.settings.ensemble.contains(from);
        let next = match &mut self.role {
            Role::Leading(leader, _) => leader.on_link(core, from, tenure, seq, body),
            Role::Following(_) if asks => {
                // It would wait for an answer of a server that does not lead.
                Early { from, tenure, body }.refuse(core);
                Next::Stay
            }
            Role::Following(follower) => follower.on_link(core, from, tenure, seq, body),
            Role::Looking(election) => {
                if asks {
                    election.on_early(Early { from, tenure, body });
                }
                Next::Stay
            }
            Role::Resting | Role::Fenced => Next::Stay,
        };
        self.go(next);
    }

    /// Takes the role that an election has given.
    fn elect(&mut self, elected: Option<ServerId>) {
        let Some(elected) = elected else {
            return;
        };
        let Role::Looking(election) = std::mem::replace(&mut self.role, Role::Resting) else {
            return;
        };
        let vote = Vote {
            leader: elected,
            ..election.vote()
        };
        if elected == self.core.id() {
            let (leader, next) = Leader::begin(&mut self.core, election.into_early());
            self.role = Role::Leading(leader, vote);
            self.go(next);
        } else {
            for early in election.into_early() {
                early.refuse(&mut self.core);
            }
            self.role = Role::Following(Follower::begin(&mut self.core, vote));
        }
    }

    /// Goes where a role points to, and withdraws if there is a fault.
    fn go(&mut self, next: Next) {
        if let Some(fault) = self.core.fault.clone() {
            if !matches!(self.role, Role::Fenced) {
                // What was about to be said or written may rest on what failed.
                self.core.ready.clear();
                self.core.ready.fenced = Some(fault);
                self.role = Role::Fenced;
            }
            return;
        }
        if let Next::Look(why) = next {
            let active = match &mut self.role {
                Role::Leading(leader, _) => {
                    leader.resign(&mut self.core);
                    leader.stage == Stage::Established
                }
                Role::Following(follower) => {
                    follower.leave(&mut self.core);
                    follower.step == Step::Active
                }
                Role::Resting | Role::Looking(_) | Role::Fenced => false,
            };
            let failures = self.core.failures.saturating_add(1);
            self.core.failures = if active { 0 } else { failures };
            self.core.stand(Standing::Recovering);
            self.look(why);
        }
    }

    fn look(&mut self, why: Why) {
        self.why = why;
        let mut election = Election::begin(&mut self.core);
        let alone = self.core.settings.ensemble.voters().len() == 1;
        let elected = if alone {
            election.tick(&mut self.core)
        } else {
            None
        };
        self.role = Role::Looking(election);
        self.elect(elected);
    }
}
