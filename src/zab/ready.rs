//! What a peer asks of the world: one value, whose fields say what waits for what.

use std::sync::Arc;

use super::message::{Envelope, Tenure};
use crate::types::{Epoch, ServerId, Zxid};

/// A transaction and its place in the order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it stands.
    pub zxid: Zxid,
    /// The application's bytes, shared between the log, the peers and the delivery.
    pub payload: Arc<[u8]>,
}

/// The peer's outputs since the last one was taken.
///
/// Take it after every input. Each list is in order; what a field waits for is said with it. A
/// write is reported back when, and only when, it would survive a loss of power.
#[derive(Clone, Debug, Default, Hash)]
pub struct Ready {
    /// To be written in this order, one after the other, each reported with `on_persisted`.
    ///
    /// Writes of several `Ready` queue behind each other. Appends may share a sync: one report
    /// of the last covers all before it.
    pub writes: Vec<Write>,

    /// To be sent, to each receiver in this order. They wait for none of the writes: whatever
    /// must be durable before it is said has been reported durable before it is here.
    pub messages: Vec<Envelope>,

    /// Asked of this server's own disk for a learner; each is answered with `on_read`. The
    /// answer may wait until the way to the learner has room: that is what holds a fast leader
    /// back from a slow learner.
    pub reads: Vec<Read>,

    /// To be read from this server's own log, after all writes given out before have been
    /// made (not: are durable), and delivered before `deliver`: they are committed, but no
    /// longer in memory.
    pub replay: Option<Replay>,

    /// Committed, to be delivered to the application in this order.
    pub deliver: Vec<Entry>,

    /// The peer's standing has changed, and `deliver` holds everything committed before that.
    pub standing: Option<Standing>,

    /// Messages for the application, with their senders.
    pub payloads: Vec<(ServerId, Arc<[u8]>)>,

    /// Barriers that have been passed: see [`super::Peer::barrier`].
    pub barriers: Vec<Barrier>,

    /// The peer has withdrawn for good, and why. The server must end.
    pub fenced: Option<Fault>,
}

/// One durable change of this server's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Raise the accepted epoch; reported as [`Persisted::AcceptedEpoch`].
    AcceptedEpoch(Epoch),
    /// Cut the log after this transaction, which it holds; reported as
    /// [`Persisted::Truncated`].
    Truncate(Zxid),
    /// Begin to receive a snapshot. An unfinished one is dropped when another begins or the
    /// server starts again; it never replaces anything.
    SnapshotBegin(Zxid),
    /// The next piece of the snapshot's content.
    SnapshotPiece(Arc<[u8]>),
    /// The snapshot is whole: make it durable, have the log begin after it in place of all it
    /// held, restore the application from it, then report [`Persisted::Snapshot`].
    SnapshotEnd(Zxid),
    /// Append to the log; reported as [`Persisted::Log`].
    Append(Entry),
    /// Raise the current epoch; reported as [`Persisted::CurrentEpoch`].
    CurrentEpoch(Epoch),
}

/// A write that would survive a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persisted {
    /// The accepted epoch.
    AcceptedEpoch(Epoch),
    /// The log ends at this transaction.
    Truncated(Zxid),
    /// The snapshot is in place and the application restored from it.
    Snapshot(Zxid),
    /// The log, up to and including this transaction.
    Log(Zxid),
    /// The current epoch.
    CurrentEpoch(Epoch),
}

/// A question to this server's own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// For whom.
    pub learner: ServerId,
    /// In which attempt.
    pub tenure: Tenure,
    /// What.
    pub what: ReadWhat,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadWhat {
    /// Transactions of the log after `after`, up to `upto`, at least one, about `bytes_max`
    /// bytes in all.
    Log {
        /// The last one the learner has.
        after: Zxid,
        /// The last one to read.
        upto: Zxid,
        /// When to stop.
        bytes_max: usize,
    },
    /// A piece of the snapshot as of `zxid`.
    Snapshot {
        /// Which snapshot.
        zxid: Zxid,
        /// Bytes of content already read.
        offset: u64,
        /// Longest piece, bytes.
        bytes_max: usize,
    },
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// Of the log.
    Entries(Vec<Entry>),
    /// Of a snapshot.
    Snapshot {
        /// The content from the offset asked for.
        bytes: Arc<[u8]>,
        /// True if it ends there.
        last: bool,
    },
    /// It is not there any more. The learner is let go, and comes again.
    Gone,
}

/// A part of this server's own log that is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replay {
    /// Everything up to here has been delivered.
    pub after: Zxid,
    /// The last one to deliver.
    pub upto: Zxid,
}

/// A barrier that has been passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Barrier {
    /// What was given to [`super::Peer::barrier`].
    pub token: u64,
    /// Everything committed before the barrier was asked for is at or below this.
    pub zxid: Zxid,
}

/// Where a peer stands in the ensemble, as the application sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It has no leader; nothing is proposed, and what was proposed has an open fate.
    Recovering,
    /// It follows, and has everything that was committed when it began to.
    Following {
        /// The leader.
        leader: ServerId,
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// It leads, everything before its epoch is committed, and it takes proposals. Given again
    /// whenever `active` changes.
    Leading {
        /// Its epoch.
        epoch: Epoch,
        /// The servers that are up to date, this one included, ascending.
        active: Vec<ServerId>,
    },
}

/// Why a peer has withdrawn for good.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// A write or a sync failed: what the disk holds is not known until it is read again.
    #[error("a write failed")]
    WriteFailed,
    /// The leader committed what this server was not sent: one of the two is wrong.
    #[error("told to commit {upto} while holding up to {logged}")]
    CommitBeyondLog {
        /// What was to be committed.
        upto: Zxid,
        /// The last transaction held.
        logged: Zxid,
    },
    /// The leader would have this server forget what is committed.
    #[error("told to go back to {to} behind the committed {committed}")]
    CommittedWouldBeLost {
        /// Where to.
        to: Zxid,
        /// What is committed.
        committed: Zxid,
    },
}

impl Ready {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.messages.clear();
        self.reads.clear();
        self.replay = None;
        self.deliver.clear();
        self.standing = None;
        self.payloads.clear();
        self.barriers.clear();
        self.fenced = None;
    }

    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.messages.is_empty()
            && self.reads.is_empty()
            && self.replay.is_none()
            && self.deliver.is_empty()
            && self.standing.is_none()
            && self.payloads.is_empty()
            && self.barriers.is_empty()
            && self.fenced.is_none()
    }
}
