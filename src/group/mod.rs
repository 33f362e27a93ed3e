//! The replicated state machine: groups, their members, configs and sessions.
//!
//! Pure: a [`Request`] goes through [`State::preprocess`] on the leader, which answers it at
//! once or makes a transaction of it; the committed transaction goes through
//! [`State::apply`] on every server, in the same order, and says in [`Applied`] what it did.
//! Heartbeats never come here: who is active is replicated, when somebody last beat is not.
//!
//! What a group's document shows has a version. The transaction that creates a group gives
//! it version 0 and every later one that changes what the document shows adds exactly 1,
//! however many members it touches. A removed group leaves a tombstone, so that one made
//! again under its name goes on counting and no client ever sees a version go back.
//!
//! Configs have versions of their own, drawn from one counter of the whole ensemble: they
//! grow with each write, are not disturbed by members coming and going, and never come
//! back, not even for a config that was deleted and written again.

mod apply;
mod codec;
mod document;
mod in_flight;
mod members;
#[cfg(test)]
mod model;
mod ordered;
mod record;
mod request;
mod snapshot;
mod state;
mod txn;

pub use codec::Corrupt;
pub use document::Document;
pub use record::{ConfigView, GroupSummary};
pub use request::{
    Applied, Decision, End, EndedSession, GroupChange, GroupChangeKind, Join, Joined, Lapse,
    Outcome, Refusal, Request, Require, Session, SessionChange, Status,
};
pub use snapshot::{Restore, Snapshot};
pub use state::{ActiveSession, Settings, State};
pub use txn::describe;

use crate::time::Millis;

/// Longest name of a group or member, in bytes; the shortest is 1.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest config, in bytes. A longer one is refused.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// Most groups, those without members included. A join or config that would make one more
/// is refused. Part of the replicated semantics: to change it is to change the format.
pub const GROUPS_MAX: usize = 1 << 22;

/// Most members of all groups together, active or not; likewise refused, likewise fixed.
pub const MEMBERS_MAX: u64 = 1 << 26;

/// Most removed groups whose last version is remembered; beyond it the one removed first is
/// forgotten, and would start at version 0 again. Likewise fixed.
pub const TOMBSTONES_MAX: usize = 65_536;

/// Most sessions in one expiry transaction. More is a bug of the caller.
pub const EXPIRE_BATCH_MAX: usize = 16_384;

/// Most versions one `If-Match` may name.
pub const REQUIRE_VERSIONS_MAX: usize = 32;

/// The longest timeout that can be stored. The bounds users meet are settings, and narrower.
pub const TIMEOUT_MAX: Millis = Millis(u32::MAX as u64);

/// Groups of more members than this are shown to a joiner in brief.
pub const JOIN_DOCUMENT_MEMBERS_MAX: u64 = 1_000;
