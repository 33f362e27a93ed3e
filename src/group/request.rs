//! What the state machine is asked and what it answers.

use std::sync::Arc;

use super::feed::Feed;
use smallvec::SmallVec;

use crate::time::Millis;
use crate::types::{GroupVersion, Incarnation, ServerId, SessionId, Term};

/// One wish of a client or of a server; owned, because it travels between threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Makes a member active, or renews the one that is.
    Join(Join),
    /// Ends a member's session at the client's wish.
    Leave {
        /// The member's group.
        group: Box<[u8]>,
        /// The member.
        member: Box<[u8]>,
        /// If given, only this session is ended, never its successor.
        session: Option<SessionId>,
    },
    /// Writes the config of a member, or of the group itself; both appear if new.
    SetConfig {
        /// The group.
        group: Box<[u8]>,
        /// The member, or `None` for the group's own config.
        member: Option<Box<[u8]>>,
        /// UTF-8, at most [`CONFIG_BYTES_MAX`](super::CONFIG_BYTES_MAX) bytes.
        bytes: Box<[u8]>,
        /// What the present config must be for the write to happen.
        require: Require,
    },
    /// Deletes the config of a member, or of the group itself.
    DeleteConfig {
        /// The group.
        group: Box<[u8]>,
        /// The member, or `None` for the group's own config.
        member: Option<Box<[u8]>>,
        /// What the present config must be for the deletion to happen.
        require: Require,
    },
    /// Removes a group that has no active member.
    DeleteGroup {
        /// The group.
        group: Box<[u8]>,
    },
    /// Ends sessions whose beats have stopped. At most
    /// [`EXPIRE_BATCH_MAX`](super::EXPIRE_BATCH_MAX), in any order.
    Expire(Vec<Lapse>),
    /// Gives sessions to another owner. What documents show does not change.
    Move {
        /// The server that will own them.
        owner: ServerId,
        /// Its present run; if it is another by then, nothing is moved.
        incarnation: Incarnation,
        /// The sessions, each in the term that its owner is known by. At most
        /// [`EXPIRE_BATCH_MAX`](super::EXPIRE_BATCH_MAX), in any order.
        lapses: Vec<Lapse>,
    },
    /// Records a server's new run and gives it the sessions of the earlier ones, piece by
    /// piece: the next piece is asked for with the [`Outcome::Adopted`] of the one before.
    Adopt {
        /// The server.
        server: ServerId,
        /// The run. In the first piece it must be newer than the recorded one, in the others
        /// it must be the recorded one.
        incarnation: Incarnation,
        /// Only members after this place, or `None` for the first piece.
        after: Option<Place>,
        /// How many members of the whole state to look at; 1 at least, and
        /// [`ADOPT_MEMBERS_MAX`](super::ADOPT_MEMBERS_MAX) at most.
        limit: u32,
    },
    /// Founds the ensemble: the first transaction of all. Later ones change nothing.
    Genesis {
        /// Seconds since 1970 when the ensemble was founded.
        birth_s: u32,
    },
}

/// The name of a group or member on its way: mostly in place, for every join makes some of
/// these, and thousands at a time live so shortly that the allocator would have more work than
/// all others.
pub type Name = SmallVec<[u8; NAME_BYTES_IN_PLACE]>;

/// Longer names lie outside.
const NAME_BYTES_IN_PLACE: usize = 32;

/// The fields of [`Request::Join`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The group; it appears if new.
    pub group: Name,
    /// The member.
    pub member: Name,
    /// The session's timeout, already held against the bounds; `None` keeps the one of an
    /// active member and gives the default to a new session.
    pub timeout: Option<Millis>,
    /// The member's config; `None` leaves what there is.
    pub config: Option<Box<[u8]>>,
    /// End the session of an active member and create a new one in the same transaction.
    pub takeover: bool,
    /// Refuse if the member is active.
    pub only_if_absent: bool,
    /// The server that received the request and will own the session.
    pub owner: ServerId,
    /// That server's present run.
    pub incarnation: Incarnation,
}

/// How far a walk over all members has come: the names of a group and of the last member
/// seen in it, which may be empty for none. Neither needs to be there any more.
pub type Place = (Box<[u8]>, Box<[u8]>);

/// A session in a term: one whose beats have stopped as its owner saw it, or one to move.
///
/// It is ended or moved only if the member still has this session in this term, so an expiry
/// that arrives late, after a move or a takeover, changes nothing (S6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// The member's group.
    pub group: Arc<[u8]>,
    /// The member.
    pub member: Name,
    /// The session.
    pub id: SessionId,
    /// The term in which the owner held it.
    pub term: Term,
}

/// A condition on the present config, by its version: `If-Match` and `If-None-Match: *`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Require {
    /// No condition.
    #[default]
    Nothing,
    /// There is a config (`If-Match: *`).
    Exists,
    /// There is none (`If-None-Match: *`).
    Absent,
    /// The config's version is one of these (`If-Match: "3", "5"`); at most
    /// [`REQUIRE_VERSIONS_MAX`](super::REQUIRE_VERSIONS_MAX). An empty list never holds.
    OneOf(Vec<u64>),
}

impl Require {
    /// Whether a config of version `current`, or none, fulfils the condition.
    #[must_use]
    pub fn holds(&self, current: Option<u64>) -> bool {
        match self {
            Require::Nothing => true,
            Require::Exists => current.is_some(),
            Require::Absent => current.is_none(),
            Require::OneOf(versions) => current.is_some_and(|v| versions.contains(&v)),
        }
    }
}

/// What the leader does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The transaction is in the caller's buffer: broadcast it.
    Propose,
    /// Nothing would change: answer at once, broadcast nothing.
    Answer(Outcome),
}

impl Decision {
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Decision::Propose => Verdict::Propose,
            Decision::Answer(_) => Verdict::Idle,
        }
    }
}

/// What the leader does with a transaction that another server made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Broadcast it as it is.
    Propose,
    /// Broadcast nothing: it would change nothing.
    Idle,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The transaction had been applied before, or is yet to be.
    #[default]
    Nothing,
    /// The member is active.
    Joined(Joined),
    /// The member's session is ended.
    Left {
        /// The group's version, this change included.
        version: GroupVersion,
    },
    /// The config is written.
    ConfigSet {
        /// The config's own version: its `ETag`.
        config_version: u64,
        /// True if there was none before.
        created: bool,
        /// The group's version, this change included.
        version: GroupVersion,
    },
    /// The config is deleted.
    ConfigDeleted {
        /// The group's version, this change included.
        version: GroupVersion,
    },
    /// The group is removed.
    GroupDeleted,
    /// The sessions of an [`Request::Expire`] have met their fate.
    Expired {
        /// How many were ended.
        ended: u32,
        /// Those that were not, because the member has another session or term by now, or
        /// none: their ids, for the shard that holds them as closing.
        stale: Vec<SessionId>,
    },
    /// The sessions of a [`Request::Move`] have met their fate.
    Moved {
        /// How many have the new owner.
        moved: u32,
        /// Those that were not moved: the member has another session or term by now, or none;
        /// or that run owned it already; or that run is not the recorded one of its server,
        /// and then it is all of them.
        stale: Vec<SessionId>,
    },
    /// A piece of a [`Request::Adopt`] is done.
    Adopted {
        /// The run, now recorded.
        incarnation: Incarnation,
        /// Where the next piece goes on; `None` if this was the last.
        next: Option<Place>,
    },
    /// The ensemble is founded; `birth_s` is its date, whoever proposed it.
    Founded {
        /// Seconds since 1970.
        birth_s: u32,
    },
    /// The request is refused and has changed nothing.
    Refused(Refusal),
}

/// The fields of [`Outcome::Joined`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member's session.
    pub session: SessionId,
    /// The session's term.
    pub term: Term,
    /// The session's timeout.
    pub timeout: Millis,
    /// True if the session is new (201), false if it was renewed (200).
    pub created: bool,
    /// The group's version, this change included.
    pub version: GroupVersion,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No such group, member, or config (404).
    NotFound,
    /// The session has expired or left (410).
    Gone,
    /// The member is now another session's (409).
    OtherSession,
    /// The group has active members (409).
    GroupActive,
    /// A condition of the request does not hold (412).
    PreconditionFailed,
    /// There are [`GROUPS_MAX`](super::GROUPS_MAX) groups already (503).
    GroupsFull,
    /// There are [`MEMBERS_MAX`](super::MEMBERS_MAX) members already (503).
    MembersFull,
    /// A name is empty, longer than 255 bytes, or not UTF-8 (400).
    BadName,
    /// A config is longer than [`CONFIG_BYTES_MAX`](super::CONFIG_BYTES_MAX) (413).
    ConfigTooLong,
    /// A config is not UTF-8 (415).
    ConfigNotUtf8,
    /// A timeout is 0, or beyond [`TIMEOUT_MAX`](super::TIMEOUT_MAX) (422).
    BadTimeout,
    /// More than [`REQUIRE_VERSIONS_MAX`](super::REQUIRE_VERSIONS_MAX) versions (400).
    TooManyVersions,
    /// The run that asks is not, or not any more, the recorded one of its server (503).
    StaleOwner,
}

impl Session {
    /// The run that owns it.
    #[must_use]
    pub fn run(&self) -> (ServerId, Incarnation) {
        (self.owner, self.incarnation)
    }

    /// The session in the hands of another owner, in its next term; `None` if its terms are
    /// used up, which two to the 32 moves do.
    #[must_use]
    pub(super) fn given_to(self, (owner, incarnation): (ServerId, Incarnation)) -> Option<Session> {
        Some(Session {
            term: Term(self.term.0.checked_add(1)?),
            owner,
            incarnation,
            ..self
        })
    }
}

/// What a member is, or was, to a client that beats for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Active, and in the session the client named, if it named one.
    Active(Session),
    /// No such group or member, or it is not active (404).
    NotFound,
    /// The session the client named has ended (410).
    Gone,
    /// The member is active in another session than the client named (409).
    OtherSession,
}

/// A session as every server knows it. When it was last touched, its owner alone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session's name for ever.
    pub id: SessionId,
    /// How often it has changed owner, plus one.
    pub term: Term,
    /// How long it may go without a beat.
    pub timeout: Millis,
    /// The server that takes its beats.
    pub owner: ServerId,
    /// The run of that server that owns it.
    pub incarnation: Incarnation,
}

/// What one transaction did; cleared and filled by each [`State::apply`](super::State::apply).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// For the requester.
    pub outcome: Outcome,
    /// The groups whose version changed, each once.
    pub groups: Vec<GroupChange>,
    /// The sessions that were created, or whose timeout, owner or term changed.
    pub sessions: Vec<SessionChange>,
    /// The sessions that ended. Comes before `sessions`: a takeover ends, then creates.
    pub ended: Vec<EndedSession>,
    /// What happened in the groups that are watched; which those are outlives the transaction.
    pub feed: Feed,
}

impl Applied {
    /// Empties the lists and keeps their memory.
    pub fn clear(&mut self) {
        self.outcome = Outcome::Nothing;
        self.groups.clear();
        self.sessions.clear();
        self.ended.clear();
        self.feed.clear();
    }
}

/// A group that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupChange {
    /// The group's name.
    pub group: Arc<[u8]>,
    /// Its version now; for a removed group, its last.
    pub version: GroupVersion,
    /// What happened to it.
    pub kind: GroupChangeKind,
}

/// What happened to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupChangeKind {
    /// It appeared.
    Created,
    /// Its document changed.
    Changed,
    /// It was removed.
    Removed,
}

/// A session that is new or not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionChange {
    /// The member's group.
    pub group: Arc<[u8]>,
    /// The member.
    pub member: Name,
    /// The session as it is now.
    pub session: Session,
    /// True if it is new.
    pub created: bool,
    /// The owner it had before, if it has another now; `None` for a new session.
    pub from: Option<(ServerId, Incarnation)>,
}

/// A session that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSession {
    /// The member's group.
    pub group: Arc<[u8]>,
    /// The member.
    pub member: Name,
    /// The session.
    pub id: SessionId,
    /// The server that had owned it.
    pub owner: ServerId,
    /// The run of that server that had.
    pub incarnation: Incarnation,
    /// Why it ended.
    pub end: End,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its client closed it.
    Left,
    /// Its beats stopped.
    Expired,
    /// A new session of the same member took over.
    TakenOver,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_judged_by_the_present_version() {
        assert!(Require::Nothing.holds(None) && Require::Nothing.holds(Some(1)));
        assert!(Require::Exists.holds(Some(1)) && !Require::Exists.holds(None));
        assert!(Require::Absent.holds(None) && !Require::Absent.holds(Some(1)));
        let either = Require::OneOf(vec![3, 5]);
        assert!(either.holds(Some(5)) && !either.holds(Some(4)) && !either.holds(None));
        assert!(!Require::OneOf(Vec::new()).holds(Some(0)));
    }
}
