//! What a server of a script has behind it before the script begins.

use std::io::Write as _;
use std::sync::Arc;

use super::server::{encode, log_settings};
use crate::log::Log;
use crate::sim::disk::{Plan, SimDisk};
use crate::types::{Epoch, Zxid};
use crate::zab::Entry;

/// A disk as an earlier run left it.
#[derive(Clone, Debug, Default)]
pub struct Past {
    accepted: u64,
    current: u64,
    log: Vec<(u64, u64)>,
    in_snapshot: usize,
    seed: u64,
}

impl Past {
    /// A log of these transactions, left by a server whose epoch is `current`. The payload of
    /// `(1, 2)` is `1.2`.
    #[must_use]
    pub fn new(current: u64, log: &[(u64, u64)]) -> Past {
        Past {
            accepted: current,
            current,
            log: log.to_vec(),
            in_snapshot: 0,
            seed: 1,
        }
    }

    /// It has promised this epoch, and not got to it.
    #[must_use]
    pub fn accepted(mut self, epoch: u64) -> Past {
        self.accepted = epoch;
        self
    }

    /// The first `count` transactions are in a snapshot only: the log begins after them.
    #[must_use]
    pub fn trimmed(mut self, count: usize) -> Past {
        self.in_snapshot = count;
        self
    }

    /// What a loss of power leaves of this disk is drawn from `seed`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Past {
        self.seed = seed;
        self
    }

    /// Its transactions.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.log.iter().map(|&at| entry(at)).collect()
    }

    /// The disk.
    ///
    /// # Panics
    /// If this could not have been, such as a log above the accepted epoch.
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        let disk = SimDisk::new(self.seed, Plan::default());
        let opened = Log::open(disk.clone(), log_settings());
        let (mut log, _) = opened.expect("a new disk");
        let accepted = log.set_accepted_epoch(Epoch(self.accepted));
        accepted.expect("a sound disk");
        let current = log.set_current_epoch(Epoch(self.current));
        current.expect("a sound disk");
        let entries = self.entries();
        let (before, after) = entries.split_at(self.in_snapshot);
        if let Some(last) = before.last() {
            let receiver = log.snapshot_receiver(last.zxid);
            let mut receiver = receiver.expect("a sound disk");
            receiver.write_all(&encode(before)).expect("a sound disk");
            log.install_snapshot(receiver).expect("a sound disk");
        }
        for entry in after {
            log.append(entry.zxid, &entry.payload).expect("a history");
        }
        log.close().expect("a sound disk");
        disk
    }
}

fn entry((epoch, counter): (u64, u64)) -> Entry {
    Entry {
        zxid: Zxid::new(Epoch(epoch), counter),
        payload: Arc::from(format!("{epoch}.{counter}").as_bytes()),
    }
}
