//! What servers say to each other.
//!
//! Two kinds of speech. A [`Notification`] stands alone: it may be lost, repeated or come late,
//! and says by itself all that it means. Everything else belongs to a [`Tenure`], one attempt of
//! one learner to follow one leader, and carries its place in it, so that a loss, a repetition
//! or a message of an earlier attempt is noticed by the receiver whatever the network did.
//!
//! ARCHITECTURE.md has the table of who sends what in which phase.

use std::sync::Arc;

use super::ready::Entry;
use crate::types::{Epoch, ServerId, Zxid};

/// A message and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// Its receiver.
    pub to: ServerId,
    /// What it says.
    pub message: Message,
}

/// One message between two servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Of an election.
    Vote(Notification),
    /// Between a leader and one of its learners.
    Link {
        /// The attempt to follow that it belongs to.
        tenure: Tenure,
        /// Its place among the messages of this tenure in this direction, from 0.
        seq: u64,
        /// What it says.
        body: Body,
    },
}

/// One attempt of one learner to follow one leader, named by the learner.
///
/// `boot` is drawn at random at each start, so that attempts of an earlier run, or of one from
/// before the disk was wiped, are not taken for those of the present one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// The learner's run.
    pub boot: u64,
    /// Counts the attempts of that run, from 1.
    pub attempt: u64,
}

/// A preference for a leader: compared by epoch, then history, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// The current epoch of the preferred server.
    pub epoch: Epoch,
    /// The last transaction in its log.
    pub zxid: Zxid,
    /// The preferred server.
    pub leader: ServerId,
}

/// What a server says of itself to those who look for a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// What the sender is doing.
    pub stance: Stance,
    /// The sender's round of the election: votes of one round are counted together.
    pub round: u64,
    /// Whom it prefers, or follows.
    pub vote: Vote,
    /// False if the sender's disk is new, wiped or set aside as damaged: it cannot say what it
    /// has acknowledged before.
    pub holds_data: bool,
    /// Version of the ensemble the sender knows.
    pub ensemble: u64,
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stance {
    /// Looking for a leader.
    Looking,
    /// Following the leader it names.
    Following,
    /// Leading.
    Leading,
}

/// What is said between a leader and one of its learners.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Learner, discovery: I would follow you.
    FollowerInfo {
        /// The newest epoch the learner has promised to follow.
        accepted_epoch: Epoch,
        /// See [`Notification::holds_data`].
        holds_data: bool,
        /// Version of the ensemble the learner knows.
        ensemble: u64,
    },
    /// Leader, discovery: this is my epoch. It is durable at the leader.
    LeaderInfo {
        /// Above every epoch a quorum has accepted.
        epoch: Epoch,
        /// Version of the ensemble the leader acts for.
        ensemble: u64,
    },
    /// Learner, discovery: I have accepted your epoch, durably, and this is my history.
    AckEpoch {
        /// The epoch whose history the learner holds.
        current_epoch: Epoch,
        /// True if the epoch was news to the learner. Only then does the acknowledgement count:
        /// else it was perhaps given to another leader before.
        promises: bool,
        /// The learner's history in short.
        history: Summary,
    },
    /// Leader, synchronization: what follows continues your history as it is.
    Diff {
        /// The learner's last transaction.
        after: Zxid,
    },
    /// Leader, synchronization: cut off what comes after `to`; the rest follows.
    Trunc {
        /// The last transaction that both histories share.
        to: Zxid,
    },
    /// Leader, synchronization: a snapshot follows, in pieces, and replaces your history.
    Snap {
        /// The last transaction the snapshot covers.
        zxid: Zxid,
    },
    /// Leader, synchronization: a piece of the snapshot.
    SnapPiece {
        /// The content, from where the piece before ended.
        bytes: Arc<[u8]>,
        /// True for the last piece.
        last: bool,
    },
    /// Leader, synchronization and broadcast: a transaction for the log.
    Proposal(Entry),
    /// Leader, synchronization: this was my history.
    NewLeader {
        /// The leader's epoch.
        epoch: Epoch,
        /// The last transaction of the history.
        upto: Zxid,
    },
    /// Learner: history and current epoch are durable.
    AckNewLeader {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// Leader: you are part of the ensemble, and all up to here is committed.
    UpToDate {
        /// The newest committed transaction that the learner has been sent.
        committed: Zxid,
    },
    /// Learner: all up to here is durable.
    Ack {
        /// The newest durable transaction.
        zxid: Zxid,
    },
    /// Leader: all up to here is committed.
    Commit {
        /// The newest committed transaction that the learner has been sent.
        upto: Zxid,
    },
    /// Leader, to an observer: a transaction that is committed.
    Inform(Entry),
    /// Leader: are you with me?
    Ping {
        /// Counts the rounds of this leader.
        round: u64,
    },
    /// Learner: I am.
    Pong {
        /// The round answered.
        round: u64,
        /// True while the learner's accepted and current epoch are the leader's: it has promised
        /// itself to nobody else.
        loyal: bool,
    },
    /// Either way, for the application: not logged, not ordered with commits.
    Payload(Arc<[u8]>),
    /// Either way: I end this tenure. A courtesy that spares the other the wait.
    Close,
}

/// A history in short: its beginning, and the last transaction of each epoch in it.
///
/// Two histories that share a transaction share all before it, so this is enough to find the
/// last one they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Summary {
    /// Everything up to here is in a snapshot, or is not told here.
    pub base: Zxid,
    /// The last transaction of each epoch after `base`, ascending. Empty: the history ends at
    /// `base`.
    pub ends: Vec<Zxid>,
}
