//! What a peer is built with.

use super::message::Summary;
use super::plant::Plants;
use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};

/// Who belongs to the ensemble. A value with a version: messages carry the version, and a
/// leader does not lead a server that knows a newer one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ensemble {
    version: u64,
    /// Sorted, without repetition, never empty.
    voters: Vec<ServerId>,
    /// Sorted, without repetition, none of them a voter.
    observers: Vec<ServerId>,
}

impl Ensemble {
    /// An ensemble of these servers; whoever is named as both votes.
    ///
    /// # Panics
    /// If there is no voter, since nothing could ever be decided, or more than [`VOTERS_MAX`].
    #[must_use]
    pub fn new(version: u64, voters: &[ServerId], observers: &[ServerId]) -> Ensemble {
        assert!(!voters.is_empty(), "an ensemble has at least one voter");
        assert!(voters.len() <= VOTERS_MAX, "more than {VOTERS_MAX} voters");
        let sorted = |ids: &[ServerId]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let voters = sorted(voters);
        let mut observers = sorted(observers);
        observers.retain(|id| voters.binary_search(id).is_err());
        Ensemble {
            version,
            voters,
            observers,
        }
    }

    /// Grows with each change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Those whose word counts, ascending.
    #[must_use]
    pub fn voters(&self) -> &[ServerId] {
        &self.voters
    }

    /// Those who only learn, ascending.
    #[must_use]
    pub fn observers(&self) -> &[ServerId] {
        &self.observers
    }

    /// True if `id` votes.
    #[must_use]
    pub fn votes(&self, id: ServerId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    /// True if `id` belongs to the ensemble.
    #[must_use]
    pub fn contains(&self, id: ServerId) -> bool {
        self.votes(id) || self.observers.binary_search(&id).is_ok()
    }

    /// All but `id`, voters first.
    pub fn others(&self, id: ServerId) -> impl Iterator<Item = ServerId> + '_ {
        let all = self.voters.iter().chain(&self.observers);
        all.copied().filter(move |&other| other != id)
    }
}

/// The most voters of an ensemble. Each commit waits for half of them, so that more would make
/// it slower, not safer; servers beyond these are observers.
pub const VOTERS_MAX: usize = 31;

/// How a peer behaves, the same over all its runs.
#[derive(Clone, Debug, Hash)]
pub struct Settings {
    /// This server.
    pub id: ServerId,
    /// The ensemble it belongs to.
    pub ensemble: Ensemble,
    /// Its patience.
    pub timing: Timing,
    /// Its maxima.
    pub limits: Limits,
    /// Faults planted on purpose, for the simulator to find; none outside it.
    pub plants: Plants,
}

impl Settings {
    /// The settings of a production server that is an ensemble of its own.
    #[must_use]
    pub fn alone(id: ServerId) -> Settings {
        Settings {
            id,
            ensemble: Ensemble::new(1, &[id], &[]),
            timing: Timing::DEFAULT,
            limits: Limits::DEFAULT,
            plants: Plants::NONE,
        }
    }
}

/// How long a peer waits for what.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Timing {
    /// Between two pings of a leader.
    pub ping: Millis,
    /// A leader that has not heard a quorum, and a learner that has not heard its leader, for
    /// this long looks for a leader anew. It is also how long a proposal may stay
    /// unacknowledged before the leader lets go of that follower.
    pub sync_limit: Millis,
    /// A leader that is not established looks anew after this long without progress. Each piece
    /// of history sent is progress, so that it scales with what there is to send.
    pub init_limit: Millis,
    /// With a quorum agreed, how long a better vote is waited for, from those who are connected
    /// and have not agreed.
    pub finalize: Millis,
    /// First wait before a vote is repeated; doubles up to `notify_max`.
    pub notify_min: Millis,
    /// Longest wait before a vote is repeated.
    pub notify_max: Millis,
    /// A learner that its leader has not answered tries again after this long.
    pub retry: Millis,
    /// A server whose disk has finished no write for this long, with one under way, neither
    /// leads nor stands for election.
    pub disk_limit: Millis,
}

impl Timing {
    /// The times of a production server.
    pub const DEFAULT: Timing = Timing {
        ping: Millis(200),
        sync_limit: Millis(1_000),
        init_limit: Millis(10_000),
        finalize: Millis(200),
        notify_min: Millis(100),
        notify_max: Millis(1_000),
        retry: Millis(100),
        disk_limit: Millis(2_000),
    };
}

/// The maxima of a peer.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Limits {
    /// Proposals in flight; more are refused.
    pub in_flight_max: usize,
    /// Transactions kept in memory for learners that lag, beyond those in flight. A server that
    /// is its whole ensemble keeps none.
    pub window_entries_max: usize,
    /// Bytes of these.
    pub window_bytes_max: usize,
    /// Bytes of proposals in flight; more are refused.
    pub in_flight_bytes_max: usize,
    /// Proposals sent to one learner and not acknowledged; the rest waits at the leader.
    pub unacknowledged_max: u64,
    /// Bytes of one piece read from the disk for a learner.
    pub read_bytes_max: usize,
    /// Barriers that may wait; more are refused.
    pub barriers_max: usize,
    /// The last counter of an epoch: a leader that reaches it makes room for the next epoch.
    pub counter_max: u64,
}

impl Limits {
    /// The limits of a production server.
    pub const DEFAULT: Limits = Limits {
        in_flight_max: 100_000,
        window_entries_max: 65_536,
        window_bytes_max: 16 << 20,
        in_flight_bytes_max: 64 << 20,
        unacknowledged_max: 200_000,
        read_bytes_max: 256 << 10,
        barriers_max: 65_536,
        counter_max: u64::MAX - 1,
    };
}

/// What a peer finds on its disk when it starts.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The newest epoch it has promised to follow.
    pub accepted_epoch: Epoch,
    /// The newest epoch whose history it holds; 0 if its disk is new, wiped or set aside.
    pub current_epoch: Epoch,
    /// The log: all of it is durable.
    pub history: Summary,
    /// The newest snapshot.
    pub snapshot: Option<Zxid>,
    /// The last transaction the application holds. Beyond the snapshot only in an ensemble of
    /// one, where all that is in the log is committed.
    pub delivered: Zxid,
    /// Drawn at random at each start.
    pub nonce: u64,
}
