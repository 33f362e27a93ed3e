//! What the world sees a server do, for the invariants to judge.
//!
//! An [`Observation`] is a fact about a disk, a message or an application, told by the world
//! that carried it out and never by the server it is about: the checker must not believe what it
//! checks. Observations come in the order in which things happen; several may come at one
//! instant.
//!
//! How the disk of one server is told:
//!
//! ```text
//! Appended … Appended   Durable          the log grew, then some of it was synced
//! Truncating Truncated                   cut; durable on return
//! Installing Installed                   a snapshot in place of the log; durable on return
//! Snapshotting Snapshotted               a snapshot of own state, beside the log
//! Stopped [Wiped | SetAside] Started     what the start found: the log up to `last`
//! ```
//!
//! Between `…ing` and `…ed` power may be lost, and then either outcome is right; `Started` says
//! which. A log that was not cut meanwhile starts again with everything that was `Durable`, and
//! perhaps with some of what was `Appended` after that.

use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{Persisted, Phase, Vote};

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A server runs; all it was built with is durable on its disk.
    Started {
        /// Who.
        server: ServerId,
        /// What its disk held.
        boot: Boot,
    },
    /// A server's process has ended.
    Stopped {
        /// Who.
        server: ServerId,
        /// How.
        how: Stop,
    },
    /// The disk of a stopped server is empty now: "barring disk loss" is about this.
    Wiped {
        /// Whose.
        server: ServerId,
    },
    /// The log of a stopped server was damaged and put aside: it starts blank. Its accepted
    /// epoch survives if the file it is in does.
    SetAside {
        /// Whose.
        server: ServerId,
    },
    /// The server stands elsewhere in the protocol than before.
    Entered {
        /// Who.
        server: ServerId,
        /// Where it stands now.
        phase: Phase,
        /// Its current epoch.
        epoch: Epoch,
    },
    /// The server has become the established leader of `epoch`.
    Established {
        /// Who.
        server: ServerId,
        /// Of which epoch.
        epoch: Epoch,
    },
    /// The established leader leads no more (a stop says so too, without this).
    Deposed {
        /// Who.
        server: ServerId,
        /// Of which epoch.
        epoch: Epoch,
    },
    /// The primary of `zxid.epoch` has begun to broadcast a transaction.
    Broadcast {
        /// The primary.
        server: ServerId,
        /// Its place.
        zxid: Zxid,
        /// [`hash_of`] its payload.
        hash: u64,
    },
    /// A transaction is in the log's memory, and not yet durable.
    Appended {
        /// Where.
        server: ServerId,
        /// Its place.
        zxid: Zxid,
        /// [`hash_of`] its payload.
        hash: u64,
    },
    /// The log is durable up to here.
    Durable {
        /// Whose.
        server: ServerId,
        /// The newest durable transaction.
        upto: Zxid,
    },
    /// The log is about to be cut.
    Truncating {
        /// Whose.
        server: ServerId,
        /// The last transaction that is kept.
        to: Zxid,
    },
    /// The log has been cut, durably; all that is left is durable.
    Truncated {
        /// Whose.
        server: ServerId,
        /// The last transaction that is kept.
        to: Zxid,
    },
    /// A snapshot received from a leader is about to take the place of the log.
    Installing {
        /// Where.
        server: ServerId,
        /// What it covers.
        zxid: Zxid,
        /// The digest it was taken with.
        digest: u64,
    },
    /// The snapshot has taken the place of the log, durably: the log is empty after it.
    Installed {
        /// Where.
        server: ServerId,
        /// What it covers.
        zxid: Zxid,
        /// The digest of the restored application.
        digest: u64,
    },
    /// A snapshot of own state is about to be written.
    Snapshotting {
        /// Where.
        server: ServerId,
        /// What it covers.
        zxid: Zxid,
        /// The application's digest.
        digest: u64,
    },
    /// The snapshot is durable.
    Snapshotted {
        /// Where.
        server: ServerId,
        /// What it covers.
        zxid: Zxid,
    },
    /// The log no longer holds what is at or below here; a snapshot covers it.
    Trimmed {
        /// Whose.
        server: ServerId,
        /// The last transaction before the oldest one kept.
        begins_after: Zxid,
    },
    /// The accepted epoch is durable.
    AcceptedDurable {
        /// Whose.
        server: ServerId,
        /// Which.
        epoch: Epoch,
    },
    /// The current epoch is durable.
    CurrentDurable {
        /// Whose.
        server: ServerId,
        /// Which.
        epoch: Epoch,
    },
    /// The server has been told that a write is durable.
    Reported {
        /// Who.
        server: ServerId,
        /// Which.
        persisted: Persisted,
    },
    /// Everything up to here is committed, as the server sees it.
    Committed {
        /// Who.
        server: ServerId,
        /// Up to where.
        upto: Zxid,
    },
    /// The application has been given a transaction.
    Delivered {
        /// Where.
        server: ServerId,
        /// Its place.
        zxid: Zxid,
        /// [`hash_of`] its payload.
        hash: u64,
        /// The application's digest after it.
        digest: u64,
    },
    /// The application has been set to a snapshot's state.
    Restored {
        /// Where.
        server: ServerId,
        /// What the snapshot covers.
        zxid: Zxid,
        /// The application's digest now.
        digest: u64,
    },
    /// A message has been handed to the network.
    Sent {
        /// By whom.
        from: ServerId,
        /// To whom.
        to: ServerId,
        /// What it says, as far as it binds the sender.
        what: Said,
    },
    /// All faults are over; from here on the ensemble must recover.
    Healed,
}

/// What the disk of a server held when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Accepted epoch.
    pub accepted: Epoch,
    /// Current epoch.
    pub current: Epoch,
    /// The log begins after this, which a snapshot covers or which is [`Zxid::ZERO`].
    pub begins_after: Zxid,
    /// The last transaction in log or snapshot.
    pub last: Zxid,
    /// The newest snapshot.
    pub snapshot: Option<Zxid>,
    /// The last transaction the application holds, and its digest then.
    pub applied: Zxid,
    /// See `applied`.
    pub digest: u64,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process alone: what the system has in its cache stays.
    Killed,
    /// Power was lost: what was not synced is there or is not.
    PowerLost,
    /// The server fenced itself and ended.
    Fenced,
}

/// The messages that bind their sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A vote, sent while looking, following or leading.
    Vote {
        /// For whom.
        vote: Vote,
        /// The round of the election.
        round: u64,
        /// False if the sender's disk is blank.
        holds_data: bool,
    },
    /// The leader's epoch.
    LeaderInfo {
        /// Which.
        epoch: Epoch,
    },
    /// The learner has accepted `epoch`.
    AckEpoch {
        /// The leader's epoch: the learner's accepted one.
        epoch: Epoch,
        /// The epoch of its history.
        current: Epoch,
        /// Whether the promise is new.
        promises: bool,
        /// The last transaction of its history.
        last: Zxid,
    },
    /// The leader's history ends here.
    NewLeader {
        /// The leader's epoch.
        epoch: Epoch,
        /// The last transaction of the history.
        upto: Zxid,
    },
    /// The learner holds that history.
    AckNewLeader {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// The learner is up to date.
    UpToDate {
        /// The sender's current epoch.
        epoch: Epoch,
        /// What is committed.
        upto: Zxid,
    },
    /// The leader proposes a transaction, or hands on one of its history.
    Proposal {
        /// The sender's current epoch.
        epoch: Epoch,
        /// The transaction.
        zxid: Zxid,
    },
    /// The learner has this on disk, and everything before.
    Ack {
        /// The sender's current epoch.
        epoch: Epoch,
        /// Up to where.
        zxid: Zxid,
    },
    /// The leader has committed this, and everything before.
    Commit {
        /// The sender's current epoch.
        epoch: Epoch,
        /// Up to where.
        upto: Zxid,
    },
    /// The leader tells an observer of a committed transaction.
    Inform {
        /// The sender's current epoch.
        epoch: Epoch,
        /// The transaction.
        zxid: Zxid,
    },
    /// The learner answers a round of pings.
    Pong {
        /// The learner's current epoch.
        epoch: Epoch,
        /// The round.
        round: u64,
        /// Whether accepted and current epoch are the leader's.
        loyal: bool,
    },
}

/// The hash of a payload in observations: FNV-1a, 64 bits, eight bytes at a time.
#[must_use]
pub fn hash_of(payload: &[u8]) -> u64 {
    let mut words = payload.chunks_exact(8);
    let mut hash = FNV_BASIS ^ payload.len() as u64;
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("a chunk is eight bytes"));
        hash = mix(hash, word);
    }
    let rest = words.remainder();
    rest.iter().fold(hash, |hash, &b| mix(hash, u64::from(b)))
}

/// The digest of an application's state after one more transaction; 0 is the empty state.
///
/// It depends on every transaction before and their order, so equal digests mean equal
/// histories.
#[must_use]
pub fn fold(digest: u64, zxid: Zxid, hash: u64) -> u64 {
    mix(
        mix(mix(digest ^ FNV_BASIS, zxid.epoch.0), zxid.counter),
        hash,
    )
}

fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(FNV_PRIME);
    mixed ^ (mixed >> 29)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_order_place_and_bytes_apart() {
        let at = |counter| Zxid::new(Epoch(1), counter);
        let (a, b) = (hash_of(b"first"), hash_of(b"second"));
        assert_ne!(a, b);
        let straight = fold(fold(0, at(1), a), at(2), b);
        assert_eq!(straight, fold(fold(0, at(1), a), at(2), b));
        assert_ne!(straight, fold(fold(0, at(1), b), at(2), a));
        assert_ne!(straight, fold(fold(0, at(1), a), at(3), b));
        assert_ne!(hash_of(b"\0"), hash_of(b""));
        assert_ne!(hash_of(&[0; 8]), hash_of(&[0; 16]));
    }
}
