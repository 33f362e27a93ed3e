//! What a node asks of the world, and what has become of requests.

use std::sync::Arc;

use super::envelope::{self, Malformed};
use super::{Refusal, RequestId};
use crate::types::{ServerId, Zxid};
use crate::zab::{Envelope, Fault, Read, Replay, Write};

/// The node's outputs since the last one was taken; take it after every input and command.
#[derive(Debug)]
pub struct NodeReady<O> {
    /// As [`crate::zab::Ready::writes`]. Where those say that the application is restored, that
    /// is a call of [`super::Node::restore`].
    pub writes: Vec<Write>,
    /// As [`crate::zab::Ready::messages`].
    pub messages: Vec<Envelope>,
    /// As [`crate::zab::Ready::reads`].
    pub reads: Vec<Read>,
    /// As [`crate::zab::Ready::replay`], and each transaction read is given to
    /// [`super::Node::on_replayed`], in order, at leisure: other inputs may come in between. A
    /// later one takes the place of one that is not finished.
    pub replay: Option<Replay>,
    /// What has become of requests of this server, in the order in which it happened.
    pub completions: Vec<Completion<O>>,
    /// What [`super::Node::confirm`] returned, for rounds that have been answered.
    pub confirmed: Vec<u64>,
    /// What could not be read and was passed over.
    pub garbled: Vec<Garbled>,
    /// As [`crate::zab::Ready::fenced`].
    pub fenced: Option<Fault>,
}

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion<O> {
    /// It became a transaction, which this server has delivered.
    Delivered {
        /// The request.
        id: RequestId,
        /// The transaction's place in the order.
        zxid: Zxid,
        /// What [`super::Application::deliver`] said.
        outcome: O,
    },
    /// The leader answered, and nothing was broadcast. This server has delivered all that the
    /// leader had when it did.
    Answered {
        /// The request.
        id: RequestId,
        /// What [`super::Application::preprocess`] said.
        answer: Vec<u8>,
    },
    /// This server has delivered everything that was committed when the flush was asked for, and
    /// every request it had made before has met its fate.
    Flushed {
        /// The flush.
        id: RequestId,
    },
    /// The leader did not take it. Nothing has happened and nothing will.
    Refused {
        /// The request.
        id: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// The leader was lost first.
    HandedBack(HandedBack),
}

impl<O> Completion<O> {
    /// The request.
    #[must_use]
    pub fn id(&self) -> RequestId {
        match self {
            Completion::Delivered { id, .. }
            | Completion::Answered { id, .. }
            | Completion::Flushed { id }
            | Completion::Refused { id, .. } => *id,
            Completion::HandedBack(back) => back.id,
        }
    }
}

/// A request that was open when this server lost its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedBack {
    /// The request.
    pub id: RequestId,
    /// True if it was a flush.
    pub flush: bool,
    /// What is known of what has become of it.
    pub fate: Fate,
    /// As it was sent.
    pub(super) payload: Arc<[u8]>,
}

impl HandedBack {
    /// The request as it was made; empty for a flush.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        envelope::request_in(&self.payload)
    }
}

/// A request as it was sent to the leader.
#[derive(Clone, Debug)]
pub struct Sent(pub(super) Arc<[u8]>);

impl Sent {
    /// The request as it was made.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        envelope::request_in(&self.0)
    }
}

/// What is known of a request that was handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has had no effect and will have none: no leader looked at it, or it was a flush.
    NoEffect,
    /// It may or may not have become a transaction, and that may or may not be committed, now or
    /// later.
    Unknown,
}

/// Something that could not be read and was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sender}: {error}")]
pub struct Garbled {
    /// Where it came from.
    pub sender: Sender,
    /// What is wrong with it.
    pub error: Malformed,
}

/// Where something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Sender {
    /// Another server.
    #[error("server {0}")]
    Server(ServerId),
    /// The log: a committed transaction, which every server passes over alike.
    #[error("transaction {0}")]
    Log(Zxid),
}

impl<O> Default for NodeReady<O> {
    fn default() -> NodeReady<O> {
        NodeReady {
            writes: Vec::new(),
            messages: Vec::new(),
            reads: Vec::new(),
            replay: None,
            completions: Vec::new(),
            confirmed: Vec::new(),
            garbled: Vec::new(),
            fenced: None,
        }
    }
}

impl<O> NodeReady<O> {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.messages.clear();
        self.reads.clear();
        self.replay = None;
        self.completions.clear();
        self.confirmed.clear();
        self.garbled.clear();
        self.fenced = None;
    }

    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.messages.is_empty()
            && self.reads.is_empty()
            && self.replay.is_none()
            && self.completions.is_empty()
            && self.confirmed.is_empty()
            && self.garbled.is_empty()
            && self.fenced.is_none()
    }
}
