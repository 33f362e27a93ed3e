//! One server of the ghost: its disk, its application, and where it stands.

use super::tree::{Node, ROOT};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::Phase;

/// One server, as the world knows it.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its name.
    pub id: ServerId,
    /// True if its word counts.
    pub votes: bool,
    /// True between its start and its stop.
    pub running: bool,
    /// Counts its starts.
    pub starts: u64,
    /// Where it stands in the protocol.
    pub phase: Phase,
    /// Since when, µs.
    pub phase_since: u64,
    /// On disk.
    pub accepted: Epoch,
    /// On disk.
    pub current: Epoch,
    /// The end of the log, synced or not.
    pub tip: Node,
    /// The end of what would survive a loss of power.
    pub durable: Node,
    /// The newest durable snapshot; the empty history if there is none.
    pub snapshot: Node,
    /// The snapshot that is being written.
    pub snapshotting: Node,
    /// What the application holds.
    pub applied: Node,
    /// What the server regards as committed.
    pub committed: Node,
    /// A cut that has begun and not ended.
    pub cutting: Option<Node>,
    /// An installation that has begun and not ended.
    pub installing: Option<Node>,
    /// What has become of its disk while it was down.
    pub loss: Loss,
    /// Things done on the disk since the start, for reports about them to be checked against.
    pub done: Done,
}

/// What may be reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The highest transaction that was durable at any time since the start.
    pub synced: Zxid,
    /// Cuts that have not been reported yet.
    pub cuts: u32,
    /// Installations that have not been reported yet.
    pub installs: u32,
}

/// What has become of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    None,
    /// It is empty.
    Wiped,
    /// The log is gone, and perhaps the accepted epoch.
    SetAside,
}

impl Server {
    pub(super) fn new(id: ServerId, votes: bool) -> Server {
        Server {
            id,
            votes,
            running: false,
            starts: 0,
            phase: Phase::Looking,
            phase_since: 0,
            accepted: Epoch(0),
            current: Epoch(0),
            tip: ROOT,
            durable: ROOT,
            snapshot: ROOT,
            snapshotting: ROOT,
            applied: ROOT,
            committed: ROOT,
            cutting: None,
            installing: None,
            loss: Loss::None,
            done: Done::default(),
        }
    }

    /// Its log ends at `tip` now, all of it durable.
    pub(super) fn replace(&mut self, tip: Node) {
        self.tip = tip;
        self.durable = tip;
        self.cutting = None;
        self.installing = None;
    }

    /// True while it is promised to `epoch` and nothing later, and holds its history.
    #[must_use]
    pub fn is_loyal_to(&self, epoch: Epoch) -> bool {
        self.accepted == epoch && self.current == epoch
    }
}
