//! What a peer asks of the world: one value, whose fields say what waits for what.

use std::sync::Arc;

use crate::types::{Epoch, Zxid};

/// A transaction and its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub zxid: Zxid,
    /// The application's bytes, shared between the log and the delivery.
    pub payload: Arc<[u8]>,
}

/// The peer's outputs since the last one was taken.
///
/// The caller handles the fields from top to bottom. A write named here is reported back
/// when, and only when, it would survive a loss of power.
#[derive(Debug, Default)]
pub struct Ready {
    /// To be made durable, then reported with `on_accepted_epoch_persisted`.
    ///
    /// Until then the peer asks nobody to follow it in this epoch: a leader that forgot the
    /// epoch it announced could announce it twice.
    pub accepted_epoch: Option<Epoch>,

    /// To be made durable, then reported with `on_current_epoch_persisted`.
    ///
    /// It is given out only when the history before it is durable. The other order lets a
    /// server with a shorter log win an election by its higher epoch (ZOOKEEPER-4643).
    pub current_epoch: Option<Epoch>,

    /// To be appended to the log in this order, then reported with `on_log_persisted` once
    /// synced. One report may cover many entries: that is the grouped sync.
    pub append: Vec<Entry>,

    /// Committed, to be delivered to the application in this order. They are in the log
    /// already, so this needs no wait.
    pub deliver: Vec<Entry>,

    /// The peer has just become the established leader of this epoch: everything in its log
    /// is committed, and it takes proposals.
    pub established: Option<Epoch>,
}

impl Ready {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.accepted_epoch = None;
        self.current_epoch = None;
        self.append.clear();
        self.deliver.clear();
        self.established = None;
    }

    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accepted_epoch.is_none()
            && self.current_epoch.is_none()
            && self.append.is_empty()
            && self.deliver.is_empty()
            && self.established.is_none()
    }
}
