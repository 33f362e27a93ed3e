//! Snapshots of this server's own state, and the log that goes with them.

use std::io::{self, Write as _};
use std::thread;

use super::{Pipeline, ToCore, on_thread};
use crate::group::Snapshot;
use crate::log::{FileDisk, SnapshotWriter};
use crate::types::Zxid;

/// When the next snapshot is due.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Bytes of transactions since the last one, replayed ones included.
    logged_bytes: u64,
    /// What the last one took.
    bytes: u64,
    under_way: bool,
}

impl Snapshots {
    /// A transaction of `bytes` bytes follows the last snapshot.
    pub(super) fn logged(&mut self, bytes: usize) {
        self.logged_bytes += bytes as u64;
    }

    /// So many sessions were adopted since the last snapshot.
    fn adopted(&mut self, sessions: u64) {
        self.logged_bytes += sessions * ADOPTED_BYTES;
    }

    /// How many bytes logged call for the next, if `least` always do.
    ///
    /// Half of what the last one took: to read a byte of the log back costs several times what it
    /// costs to restore one of a snapshot, so this keeps the log's part of a start below the
    /// snapshot's; and snapshots cost at most twice the bytes the log does.
    fn due_bytes(&self, least: u64) -> u64 {
        least.max(self.bytes / 2)
    }

    /// Another server's snapshot has taken the place of the log.
    pub(super) fn installed(&mut self) {
        self.logged_bytes = 0;
    }
}

impl Pipeline {
    /// Begins a snapshot if enough has been logged since the last, and all it would hold is
    /// durable here: a follower may be told of a commit before its own disk is done with it.
    pub(super) fn begin_snapshot(&mut self) {
        // A start is not to be slowed down by what it leads to.
        if self.replica.is_serving() {
            self.snapshots.adopted(self.replica.take_adopted());
        }
        let due_bytes = self.snapshots.due_bytes(self.limits.snapshot_log_bytes);
        if self.snapshots.under_way || self.snapshots.logged_bytes < due_bytes {
            return;
        }
        let (zxid, snapshot) = self.replica.save();
        if zxid > self.log.durable() {
            return;
        }
        self.snapshots.logged_bytes = 0;
        self.snapshots.under_way = true;
        let writer = match self.log.snapshot_writer(zxid) {
            Ok(writer) => writer,
            Err(error) => return self.on_snapshot(zxid, Err(error)),
        };
        let reports = self.ways.reports.clone();
        let work = move || {
            let _ = reports.send(ToCore::Snapshot(zxid, write_snapshot(snapshot, writer)));
        };
        if let Err(error) = thread::Builder::new().name("snapshot".into()).spawn(work) {
            self.on_snapshot(zxid, Err(error));
        }
    }

    /// A snapshot is complete, so what is older may go; or it failed, which loses nothing: the
    /// log still holds what it would have, and the next one is tried after as many bytes.
    pub(super) fn on_snapshot(&mut self, zxid: Zxid, result: io::Result<u64>) {
        self.snapshots.under_way = false;
        match result {
            Ok(bytes) => self.snapshots.bytes = bytes,
            Err(error) => {
                tracing::warn!("could not write a snapshot: {error}; the log is kept instead");
                return;
            }
        }
        self.counters.snapshots.add(1);
        self.replica.on_snapshot_taken(zxid);
        match self.log.trim_job(self.limits.snapshots_kept) {
            Ok(job) => {
                self.replica.on_trimmed(self.log.history().base);
                on_thread("trim", move || {
                    if let Err(error) = job.run() {
                        tracing::warn!("could not remove old log segments: {error}");
                    }
                });
            }
            Err(error) => tracing::warn!("could not look for old log segments: {error}"),
        }
    }
}

/// Streams a snapshot to disk, yielding the core to whoever serves clients.
fn write_snapshot(mut snapshot: Snapshot, mut writer: SnapshotWriter<FileDisk>) -> io::Result<u64> {
    // On Linux this is the thread's own. If it is refused the snapshot is merely less polite.
    let _ = rustix::process::nice(SNAPSHOT_NICE);
    let mut piece = Vec::with_capacity(SNAPSHOT_PIECE_BYTES + SNAPSHOT_PIECE_BYTES / 2);
    loop {
        piece.clear();
        let more = snapshot.write_into(&mut piece, SNAPSHOT_PIECE_BYTES);
        writer.write_all(&piece)?;
        if !more {
            return writer.finish();
        }
    }
}

/// What the adoption of a session counts for, bytes: it takes hardly any in the log, but as long
/// to be read back as a join does. Else each start would read back the adoptions of all before it.
const ADOPTED_BYTES: u64 = 64;
/// The least pressing a thread can be.
const SNAPSHOT_NICE: i32 = 19;
/// Bytes of a snapshot written at a time.
const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_cost_at_most_twice_the_bytes_of_the_log() {
        let due = |bytes| {
            let snapshots = Snapshots {
                bytes,
                ..Snapshots::default()
            };
            snapshots.due_bytes(1_000)
        };
        assert_eq!([due(0), due(2_000), due(5_000)], [1_000, 1_000, 2_500]);
    }
    #[test]
    fn what_was_adopted_counts_as_much_as_its_joins_would() {
        let mut snapshots = Snapshots::default();
        snapshots.logged(100);
        snapshots.adopted(1_000_000);
        assert_eq!(snapshots.logged_bytes, 100 + 64_000_000);
        assert!(snapshots.logged_bytes >= snapshots.due_bytes(32 << 20));
    }
}
