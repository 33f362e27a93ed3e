//! The application face: a replicated application over Zab, without sessions, without I/O.
//!
//! An [`Application`] is a state machine; a [`Node`] is one server of an ensemble that keeps
//! equal copies of it. A request may be made at any server:
//!
//! ```text
//!   server 2                      leader                        every server
//!   propose ──── Request ───────▶ preprocess
//!                                   │ a transaction ─ broadcast ─▶ deliver
//!   Answered ◀── Answer ────────────┘ or an answer, after a         │
//!   Delivered ◀───────────────────────── round of pings ────────────┘ at server 2
//!   flush ────── Flush ─────────▶ a round of pings
//!   Flushed ◀─── Flushed ───────────┘ once delivered that far
//! ```
//!
//! `preprocess` runs on the leader alone and may depend on anything; what it makes of a request
//! is an *idempotent transaction*, whose effect depends on nothing but the state before it. So
//! `deliver` comes to the same at every server. A request that would change nothing is answered
//! in place: the leader is told something, as by a session tracker, and no disk turns.
//!
//! # What a caller is promised
//! - Every request that [`Node::propose`] or [`Node::flush`] took comes back in exactly one
//!   [`Completion`], unless this server ends before.
//! - The requests of one server are preprocessed in the order in which it made them. One that
//!   is refused for want of room is left out; later ones may still be taken.
//! - A request is complete once *this server* has delivered what its outcome rests on: who has
//!   an answer reads here a state no older than the answer.
//! - An answer and a flush are the word of a leader that has made sure of a quorum after it was
//!   asked: one that has been deposed and has not noticed gives neither.
//! - On a change of leader all open requests are handed back, with what is known of their fate.
//!   [`Fate::Unknown`] means it: the transaction may be committed already, or be committed by
//!   the next leader, or be lost. An application to which that matters makes its requests such
//!   that a second one changes nothing.
//!
//! # What is left to a later release
//! Leaving the ensemble and joining it: `Node::remove(server)` will stand beside [`Node::flush`],
//! with a kind of letter and a kind of logged transaction of its own (`envelope.rs`), and the
//! joint quorums it needs are the peer's.

mod envelope;
mod node;
mod ready;
mod requests;
mod row;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use envelope::Malformed;
pub use node::Node;
pub use ready::{Completion, Fate, Garbled, HandedBack, NodeReady, Sender, Sent};

pub use row::Row;

use crate::types::{ServerId, Zxid};

/// A state machine of which every server keeps a copy.
///
/// It is called by its [`Node`] alone. It begins without a leader, as after
/// [`Application::recovering`].
pub trait Application {
    /// What a delivered transaction came to. It is given to whom made the request, at the server
    /// where it was made; elsewhere it is dropped.
    type Outcome;
    /// The state at one moment; see [`Application::save`].
    type Snapshot: Snapshot;

    /// The leader's look at a request, whose taker and id are in `origin`.
    ///
    /// The state it is to reckon with is what was delivered *and what is in flight*: the
    /// transactions that this returned, from the moment it did, until they are delivered,
    /// withdrawn, or forgotten with [`Application::recovering`].
    fn preprocess(&mut self, origin: Origin, request: &[u8]) -> Preprocessed;

    /// A transaction that [`Application::preprocess`] just returned is not broadcast after all,
    /// and no longer in flight. Its request may be preprocessed again.
    fn withdraw(&mut self, txn: &[u8]);

    /// Changes the state by a transaction: the next in the order all servers share.
    ///
    /// The effect must depend on the state and on these arguments alone, and a transaction that
    /// no longer fits the state must change nothing. Bytes of a committed transaction were made
    /// by some leader's `preprocess`, perhaps by that of another release.
    fn deliver(&mut self, zxid: Zxid, txn: &[u8], origin: Origin) -> Self::Outcome;

    /// The state as it is now, to be written while this one goes on; cheap to take.
    fn save(&self) -> Self::Snapshot;

    /// Replaces the whole state by that of a snapshot, which comes from this server's disk or
    /// from another server.
    ///
    /// # Errors
    /// [`Damaged`] if the content is no snapshot, or could not be read to its end. The state is
    /// not used any more then.
    fn restore(&mut self, content: &mut dyn Content) -> Result<(), Damaged>;

    /// This server leads; all transactions of earlier leaders have been delivered. Called again
    /// whenever the servers that are up to date, `active`, this one included, have changed.
    fn leading(&mut self, active: &[ServerId]) {
        let _ = active;
    }

    /// This server follows `leader`, and has delivered what was committed when it began to.
    fn following(&mut self, leader: ServerId) {
        let _ = leader;
    }

    /// This server has lost its leader, or its leadership: what is in flight is to be forgotten.
    /// These requests of this server are handed back; the caller gets them as well.
    fn recovering(&mut self, handed_back: &[HandedBack]);

    /// A message of another server's application; neither logged nor ordered with transactions.
    fn message(&mut self, from: ServerId, message: &[u8]) {
        let _ = (from, message);
    }
}

/// The state at one moment, being written.
pub trait Snapshot {
    /// Appends the next piece to `out`, of about `bytes_max` bytes; true if there is more.
    ///
    /// Equal states give equal bytes, however they came about.
    fn write_into(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool;
}

/// The content of a snapshot, being read. Pieces need not be those that were written.
pub trait Content {
    /// The next piece, never empty; `None` after the last.
    ///
    /// # Errors
    /// [`Damaged`] if it cannot be read.
    fn next_piece(&mut self) -> Result<Option<&[u8]>, Damaged>;
}

/// Content that is in memory.
impl Content for &[u8] {
    fn next_piece(&mut self) -> Result<Option<&[u8]>, Damaged> {
        let whole = std::mem::take(self);
        Ok((!whole.is_empty()).then_some(whole))
    }
}

/// Why a snapshot could not be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot cannot be restored: {0}")]
pub struct Damaged(pub String);

/// Reads the payload of a logged entry: who asked for the transaction, and the transaction.
///
/// # Errors
/// [`Malformed`] if the entry was not written by a [`Node`].
pub fn transaction(payload: &[u8]) -> Result<(Origin, &[u8]), Malformed> {
    envelope::decode_transaction(payload)
}

/// What the leader makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preprocessed {
    /// This, idempotent, is to be broadcast.
    Transaction(Vec<u8>),
    /// The request is the transaction: it is to be broadcast as it is.
    AsAsked,
    /// Nothing is to be broadcast, and this is the answer.
    Answer(Vec<u8>),
}

/// Who asked for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The server at which the request was made.
    pub server: ServerId,
    /// The run of that server: [`super::Boot::nonce`].
    pub run: u64,
    /// The request's id there.
    pub request: RequestId,
}

/// Names a request of one run of one server; ascending from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a request was not taken. Nothing has happened and nothing will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This server has no leader it could ask, or the one it asked leads no more.
    #[error("there is no leader at present")]
    NoLeader,
    /// As many requests are under way as may be, here or at the leader.
    #[error("too many requests under way")]
    Full,
    /// The request, or the transaction made of it, is longer than may be.
    #[error("the request is too long")]
    TooLong,
}

/// The maxima of a node, beside those of its peer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests of this server that are not complete; more are refused.
    pub requests_max: usize,
    /// Requests of all servers that wait at the leader because as many transactions as may be
    /// are in flight; more are refused.
    pub inbox_max: usize,
    /// Bytes of a request; longer ones are refused.
    pub request_bytes_max: usize,
    /// Bytes of a transaction in the log, with the 21 that say where it came from; a request
    /// that makes a longer one is refused. Not above what the log takes.
    pub txn_bytes_max: usize,
}

impl Limits {
    /// The usual limits.
    pub const DEFAULT: Limits = Limits {
        requests_max: 65_536,
        inbox_max: 65_536,
        request_bytes_max: 1 << 20,
        txn_bytes_max: 2 << 20,
    };
}

/// A request at the leader, not yet preprocessed.
struct Waiting {
    origin: Origin,
    /// As it was sent: the request begins after the envelope's fields.
    payload: Arc<[u8]>,
}
