//! What servers say to each other about beats, beside Zab: values only.
//!
//! A beat that lands at a server which does not own its session is sent on to the one that does,
//! in memory at both ends, straight from server to server: the leader hears nothing of it and
//! nothing is logged. Beats of one turn travel together.

use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// A beat that found no session at the server it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whose beat it is.
    pub who: Missing,
    /// The answer must not be older than this version of the group.
    pub floor: Option<GroupVersion>,
}

/// A member whose session is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A beat by name, perhaps naming its session too.
    Named {
        /// The group's name.
        group: Box<[u8]>,
        /// The member's name.
        member: Box<[u8]>,
        /// The session the client believes to be in.
        session: Option<SessionId>,
    },
    /// A beat by id alone.
    Id(SessionId),
}

/// What the owner's server made of a beat that another sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beaten {
    /// The session lives, for its timeout from when its owner touched it. A promise.
    Touched {
        /// The session.
        id: SessionId,
        /// Its timeout.
        timeout: Millis,
        /// The group's version at the owner.
        version: GroupVersion,
        /// The client has beaten at the asking server only for a while: the session may move.
        settled: bool,
    },
    /// The member is now in another session than the client named. Nothing was touched.
    Conflict {
        /// The group's version at the owner.
        version: GroupVersion,
    },
    /// The session is there, but nothing can be promised for it now: its fate is open, or the
    /// owner is behind what the client has seen.
    Wait,
    /// The session is there, and its owner's lease has lapsed: whoever may promise had better
    /// take it over.
    Lapsed,
    /// The server does not hold the session.
    NotHeld,
}

/// A message from server to server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Take these beats.
    Beats {
        /// Comes back with the answer; means nothing to the receiver.
        token: u64,
        /// The beats, at most [`BEATS_MAX`].
        beats: Vec<Beat>,
    },
    /// The answer.
    Beaten {
        /// The token of the question.
        token: u64,
        /// One verdict for each beat, in order.
        verdicts: Vec<Beaten>,
    },
}

/// Beats in one message.
pub const BEATS_MAX: usize = 4_096;
