//! The sessions one shard holds: found by name or by id, touched by a beat, expired by a
//! wheel.
//!
//! [`Tracker`] is the whole face. Below it lie a [table] of sessions in [slots], found
//! through two hash [indexes][index], the [groups] they belong to, and the timing [wheel].
//! Pure: time comes in as an argument, and nothing here blocks, logs or sends.
//!
//! What a beat by name costs: one hash over group and member, one line of the name index,
//! one line of the session. It allocates nothing and moves nothing but the deadline in the
//! session's own line. The wheel finds out when it comes by, once a timeout.
//!
//! What a session costs, with a name of 17 to 32 bytes: a slot of 64 bytes, about 10 bytes in
//! each index, and 4 in the wheel.

mod batch;
mod ending;
mod groups;
mod index;
#[cfg(test)]
mod model;
mod paged;
mod prefetch;
mod slots;
mod table;
mod tracker;
mod wheel;

pub use batch::{Moment, NameHash, Reached, Sought};
pub use tracker::{Memory, SessionView, Tracker};

use crate::time::Millis;
use crate::types::{SessionId, Term};

/// The handle of a session in its tracker, in units of 16 bytes of slot memory.
///
/// Good until the session is removed; then the same handle may come to mean another session.
/// Whoever keeps one across a wait keeps the [`SessionId`] beside it and looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

/// The handle of a group in its tracker, good while the group has sessions there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSlot(u32);

/// What a tracker may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at most; one more is refused with [`InsertError::Full`]. Also tells how
    /// finely to divide the indexes, so that growth beside many sessions stays in small steps.
    pub sessions_max: u32,
}

/// Sees to it that the system backs memory that will soon be written to.
pub type Prepare = Box<dyn FnMut(&[u8])>;

/// A session to hold.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// The group's name, 1 to 255 bytes.
    pub group: &'a [u8],
    /// The member's name, 1 to 255 bytes.
    pub member: &'a [u8],
    /// The session's id, held by no other session.
    pub id: SessionId,
    /// How often it changed owner.
    pub term: Term,
    /// The time without a beat after which it is expired; at most `u32::MAX` milliseconds.
    pub timeout: Millis,
}

/// Why a session was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The member has a session here already, or the id is in use: this one.
    #[error("the member has a session here already")]
    Exists(Slot),
    /// The tracker holds all it may.
    #[error("no room for another session")]
    Full,
}

/// What became of a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "only a live session may be answered with a promise"]
pub enum Touch {
    /// The session lives, and for its timeout from now.
    Live,
    /// Its expiry is proposed: nothing was moved, and nothing may be promised until its fate
    /// is known.
    Closing,
}

/// Why one touch of a batch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such session here.
    Unknown,
    /// Its expiry is proposed, as [`Touch::Closing`].
    Closing,
}
