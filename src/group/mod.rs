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
//! Each session has an owner, the run of a server that takes its beats. Which run of a server
//! is the present one is replicated too: a run has itself recorded before it owns anything,
//! and what an earlier one still asks for is refused. A session changes its owner when its
//! member renews it elsewhere ([`Request::Join`]), when another server asks for it
//! ([`Request::Move`]), or when its server has started again ([`Request::Adopt`]). Each time
//! its term grows, so that what an earlier owner says about it is stale.
//!
//! Configs have versions of their own, drawn from one counter of the whole ensemble: they
//! grow with each write, are not disturbed by members coming and going, and never come
//! back, not even for a config that was deleted and written again.
//!
//! What happens in a group that somebody watches is told as events besides ([`Feed`]). They are
//! no part of the state: who watches what differs from server to server.

mod apply;
mod codec;
mod describe;
mod document;
mod feed;
mod in_flight;
mod members;
#[cfg(test)]
mod model;
mod ordered;
mod ownership;
mod plant;
mod record;
mod request;
mod runs;
mod snapshot;
mod state;
mod txn;

pub use codec::Corrupt;
pub use describe::describe;
pub use document::Document;
pub use feed::{
    Event, EventConfig, Feed, Forgotten, Happening, Notice, Rank, Ring, on_one_line, ring_bytes_max,
};
pub use plant::{Plant, Plants};
pub use record::{ConfigView, GroupSummary};
pub use request::{
    Applied, Decision, End, EndedSession, GroupChange, GroupChangeKind, Join, Joined, Lapse, Name,
    Outcome, Place, Refusal, Request, Require, Session, SessionChange, Status, Verdict,
};
pub use snapshot::{Restore, Snapshot};
pub use state::{ActiveSession, Settings, State};
pub use txn::{is_repeatable, joins};

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

/// Most sessions in one transaction that expires or moves some. More is a bug of the caller.
pub const EXPIRE_BATCH_MAX: usize = 16_384;

/// Most members that one piece of an adoption looks at; a greater limit is taken for this.
pub const ADOPT_MEMBERS_MAX: u32 = 1 << 20;

/// Most servers whose run is recorded, those included that have left the ensemble for good.
/// The run of one more is refused.
pub const SERVERS_MAX: usize = 1_024;

/// Most versions one `If-Match` may name.
pub const REQUIRE_VERSIONS_MAX: usize = 32;

/// The longest timeout that can be stored. The bounds users meet are settings, and narrower.
pub const TIMEOUT_MAX: Millis = Millis(u32::MAX as u64);

/// Groups of more members than this are shown to a joiner in brief.
pub const JOIN_DOCUMENT_MEMBERS_MAX: u64 = 1_000;
