//! What shards and the Zab core say to each other, and shards among themselves.
//!
//! Everything is owned and travels in batches: one channel operation and at most one wake-up
//! for all that a turn of a loop has to say. A channel keeps the order, and the order carries
//! meaning: what the core says about a session comes to a shard in the order of the commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::forward::{Beat, Beaten, Missing};
use crate::group::{Document, Joined, Name, Notice, Outcome, Request, Ring};
use crate::time::Millis;
use crate::types::{Epoch, GroupVersion, Incarnation, ServerId, SessionId, Term, Zxid};

/// A shard, counted from 0.
pub type ShardIndex = u16;

/// A group's version as the core publishes it: one writer, read by every heartbeat.
#[derive(Debug, Default)]
pub struct VersionCell(AtomicU64);

impl VersionCell {
    /// A cell that shows `version`.
    #[must_use]
    pub fn new(version: GroupVersion) -> Arc<VersionCell> {
        Arc::new(VersionCell(AtomicU64::new(version.0)))
    }

    /// The newest version applied on this server.
    #[must_use]
    pub fn get(&self) -> GroupVersion {
        // Acquire, and Release below: who sees a version sees what the core wrote before.
        GroupVersion(self.0.load(Ordering::Acquire))
    }

    /// Shows a newer version; called by the core alone.
    ///
    /// # Panics
    /// If the version goes back (invariant S5).
    pub fn set(&self, version: GroupVersion) {
        let old = self.0.swap(version.0, Ordering::Release);
        assert!(
            old <= version.0,
            "S5: a group's version went from {old} to {version}"
        );
    }
}

/// A shard's question to the core.
#[derive(Debug)]
pub struct Ask {
    /// Comes back with the answer; means nothing to the core.
    pub token: u64,
    /// The question.
    pub what: What,
}

/// What a shard asks.
#[derive(Debug)]
pub enum What {
    /// A change of the replicated state; answered once it is durable and applied here.
    Change {
        /// The change.
        request: Request,
        /// Send the group's document with the answer to a join.
        document: bool,
        /// This shard holds no session of the member that joins, so it is new, most likely: the
        /// core need not look for it before it is broadcast.
        fresh: bool,
    },
    /// The group as it is.
    Document {
        /// The group's name.
        group: Box<[u8]>,
        /// Wait until everything committed before the question is applied here.
        consistent: bool,
    },
    /// Some groups, in name order.
    List {
        /// Only groups after this name.
        after: Option<Box<[u8]>>,
        /// At most so many.
        limit: usize,
    },
    /// A stored config.
    Config {
        /// The group's name.
        group: Box<[u8]>,
        /// The member, or `None` for the group's own.
        member: Option<Box<[u8]>>,
    },
    /// What becomes of beats for which no shard of this server has a live session.
    Beats(Vec<Beat>),
    /// What this shard made of [`Tell::Beats`]; nobody answers.
    Beaten {
        /// The server that sent them on.
        from: ServerId,
        /// The token they came with.
        token: u64,
        /// One for each beat, in order.
        verdicts: Vec<Beaten>,
    },
    /// The ensemble as this server sees it.
    Cluster,
    /// Somebody on this shard watches the group: tell what happens in it from now on.
    Watch {
        /// The group's name.
        group: Arc<[u8]>,
    },
    /// Nobody on this shard watches the group any more; nobody answers.
    Unwatch {
        /// The group's name.
        group: Arc<[u8]>,
    },
}

/// What the core tells a shard.
#[derive(Debug)]
pub enum Tell {
    /// The answer to an [`Ask`].
    Answer {
        /// The token of the question.
        token: u64,
        /// The answer.
        answer: Answer,
    },
    /// These sessions have ended, or moved to another server; whoever holds one lets it go.
    /// Told to every shard.
    Ended(Arc<[SessionId]>),
    /// These have ended because the shard `by` found them due: it has them closing, promises
    /// them nothing, and lets go of them in its own time. Told to every shard.
    Expired {
        /// The shard that proposed it.
        by: ShardIndex,
        /// The sessions.
        ids: Arc<[SessionId]>,
    },
    /// A session's timeout or term is no longer what it was. Told to every shard.
    Changed {
        /// The session.
        id: SessionId,
        /// Its term now.
        term: Term,
        /// Its timeout now.
        timeout: Millis,
    },
    /// Sessions for this shard to hold, each with a full timeout from now: adopted by this run
    /// of the server, or moved to it.
    Deal(Vec<Dealt>),
    /// Beats that another server sent on, for sessions of this one: every shard takes those it
    /// holds, and answers with [`What::Beaten`].
    Beats {
        /// The server that asks.
        from: ServerId,
        /// Comes back with the answer.
        token: u64,
        /// The beats.
        beats: Arc<[Beat]>,
    },
    /// Something happened in a group that the shard watches.
    Notice {
        /// The group's name.
        group: Arc<[u8]>,
        /// Its version now; `None` if it was removed.
        version: Option<GroupVersion>,
        /// What happened, as watchers are told.
        notice: Arc<Notice>,
    },
    /// This server's promises hold until this point of its own clock, and everything that was
    /// committed when it was given has been told before.
    Lease {
        /// No beat is answered from then on; `Millis(u64::MAX)` for an ensemble of one.
        until: Millis,
    },
    /// The replicated state was replaced as a whole: let go of every session. What is held from
    /// now on is dealt anew.
    Reset,
    /// Every session has been dealt; the server may serve.
    Ready {
        /// What documents show as `endpoints`.
        endpoints: Arc<[String]>,
        /// The server's present run, to join sessions in.
        incarnation: Incarnation,
    },
    /// What documents show as `endpoints` from now on.
    Endpoints(Arc<[String]>),
    /// The server goes down: accept nothing more.
    Stop,
}

/// What a shard tells another.
#[derive(Debug)]
pub enum Pass {
    /// Which of these do you hold? Hand them over.
    Claim {
        /// Who asks.
        from: ShardIndex,
        /// Comes back with the answer.
        token: u64,
        /// How much of the core's news the asking shard had heard; see [`Tell::is_news`].
        /// Who is asked answers once it has heard as much, or it might hand over a session
        /// that the other knows to have ended.
        heard: u64,
        /// What is looked for.
        wanted: Vec<Missing>,
    },
    /// The answer to a claim: what was held, and is held no longer.
    Handover {
        /// The claim's token.
        token: u64,
        /// The claim's `heard`.
        asked: u64,
        /// How much of the core's news the giving shard had heard. Who is given takes the
        /// sessions once it has heard as much, and what it has heard beyond applies to them.
        heard: u64,
        /// The sessions given.
        given: Vec<Dealt>,
        /// Sessions asked for by id alone that may live although they are not given: they
        /// are closing, or have just been given to another shard.
        open: Vec<SessionId>,
    },
}

impl Tell {
    /// True for what is told to every shard, in the same order: by how many of these two
    /// shards have heard, they know which of them knows more.
    #[must_use]
    pub fn is_news(&self) -> bool {
        matches!(
            self,
            Tell::Ended(_) | Tell::Expired { .. } | Tell::Changed { .. } | Tell::Reset
        )
    }
}

/// A message to a shard, from the core or from another shard.
#[derive(Debug)]
pub enum Mail {
    /// From the core.
    Core {
        /// Grows by one with each batch that the core sends; what all shards are told of one
        /// change has one number. A shard takes a batch in once every shard has it in its
        /// inbox. 0 waits for nobody.
        batch: u64,
        /// What is told.
        tells: Vec<Tell>,
        /// More is told in a moment: answers that may wait for it go out together.
        more: bool,
    },
    /// From a shard.
    Shard(Pass),
    /// From the watchdog: turn, and nothing else.
    Nudge,
}

/// A session as it is put into a shard's table.
#[derive(Clone, Debug)]
pub struct Dealt {
    /// The group's name.
    pub group: Arc<[u8]>,
    /// The group's version.
    pub version: Arc<VersionCell>,
    /// The member's name.
    pub member: Name,
    /// The session.
    pub id: SessionId,
    /// Its term.
    pub term: Term,
    /// Its timeout.
    pub timeout: Millis,
    /// How much longer its first deadline is: another owner may have promised it that long.
    pub grace: Millis,
}

/// The core's answer.
#[derive(Debug)]
pub enum Answer {
    /// The member is active in this session.
    Joined {
        /// The session, and whether it is new.
        joined: Joined,
        /// It is new, and this run of the server owns it: the shard that asked holds it.
        here: bool,
        /// The group's name.
        group: Arc<[u8]>,
        /// The member's name.
        member: Name,
        /// The group's version from now on.
        version: Arc<VersionCell>,
        /// The group's document, if it was asked for.
        document: Option<Document>,
    },
    /// What became of any other change.
    Outcome(Outcome),
    /// The group, or `None` if it is unknown.
    Document(Option<Document>),
    /// Some groups.
    List(Vec<ListedGroup>),
    /// The config and its version; `None` if nothing is configured.
    Config(Option<(Arc<[u8]>, u64)>),
    /// One verdict for each of the beats asked about, in order.
    Verdicts(Vec<Verdict>),
    /// The ensemble.
    Cluster(Cluster),
    /// The group is watched: its version, if it exists, and what happened in it lately. What
    /// happens from now on is told.
    Watching(Option<GroupVersion>, Box<Ring>),
    /// Too many transactions are in flight: ask again later.
    Busy,
    /// This server cannot have anything committed now.
    NoQuorum,
}

/// What becomes of a beat that found no session on any shard of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its owner, another server, has touched it: a promise.
    Touched {
        /// The session.
        id: SessionId,
        /// Its timeout.
        timeout: Millis,
        /// The group's version at the owner.
        version: GroupVersion,
    },
    /// It lives, and is or will be on a shard of this server, or its fate is open: look again.
    Here,
    /// No such group or member, or it is not active (404).
    NotFound,
    /// The session the client named has ended (410).
    Gone,
    /// The member is active in another session than the client named (409).
    OtherSession,
    /// It may live, and nobody can be reached now who could promise it anything (503).
    Unavailable,
}

/// A group in a list of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its version.
    pub version: GroupVersion,
    /// Members with a live session.
    pub active: u32,
    /// Members known by their config only.
    pub inactive: u32,
}

/// The ensemble as one server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This server.
    pub id: ServerId,
    /// The leader it follows or is, if any.
    pub leader: Option<ServerId>,
    /// `looking`, `following` or `leading`.
    pub role: &'static str,
    /// Its current epoch.
    pub epoch: Epoch,
    /// The newest transaction in its log.
    pub last_zxid: Zxid,
    /// The newest transaction applied.
    pub applied_zxid: Zxid,
    /// Every server: its id, its endpoint, and `active` or `lost`.
    pub servers: Vec<(ServerId, String, &'static str)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_the_newest_version() {
        let cell = VersionCell::new(GroupVersion(3));
        cell.set(GroupVersion(3));
        cell.set(GroupVersion(4));
        assert_eq!(cell.get(), GroupVersion(4));
    }

    #[test]
    #[should_panic(expected = "S5")]
    fn a_version_that_goes_back_is_a_bug() {
        VersionCell::new(GroupVersion(3)).set(GroupVersion(2));
    }
}
