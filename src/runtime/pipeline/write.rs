//! The replica's writes: one after the other, in the order in which they were asked for.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::Arc;

use super::{CoreFailure, Pipeline};
use crate::log::{FileDisk, ReadError, SnapshotReader, SnapshotReceiver};
use crate::metrics::CoreCounters;
use crate::runtime::clock;
use crate::types::Zxid;
use crate::zab::app::{Content, Damaged};
use crate::zab::{Persisted, Write};

/// Writes asked for and not made.
#[derive(Default)]
pub(super) struct Writes {
    queue: VecDeque<Write>,
    /// How many were made.
    made: u64,
    /// The snapshot that is being received.
    receiver: Option<SnapshotReceiver<FileDisk>>,
}

impl Writes {
    /// Queues `writes` behind the earlier ones.
    pub(super) fn add(&mut self, writes: &mut Vec<Write>) {
        self.queue.extend(writes.drain(..));
    }

    /// How many were asked for.
    pub(super) fn asked(&self) -> u64 {
        self.made + self.queue.len() as u64
    }

    /// How many were made.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Pipeline {
    /// Makes what writes it can. All but appends wait until no sync is out: it may fail, and
    /// nothing durable must come of what follows.
    pub(super) fn write_all(&mut self) -> Result<(), CoreFailure> {
        while let Some(write) = self.writes.queue.front() {
            if self.log.is_syncing() && !matches!(write, Write::Append(_)) {
                break;
            }
            let Some(write) = self.writes.queue.pop_front() else {
                break;
            };
            self.write(write)?;
            self.writes.made += 1;
        }
        self.begin_replay()
    }

    /// Makes one write; those that are durable at once are reported at once.
    fn write(&mut self, write: Write) -> Result<(), CoreFailure> {
        if !matches!(write, Write::Append(_)) {
            // Some of these take log away: what it was is told first.
            self.report_all_durable();
        }
        let persisted = match write {
            Write::Append(entry) => {
                self.snapshots.logged(entry.payload.len());
                let appended = self.log.append(entry.zxid, &entry.payload);
                appended.map_err(|error| self.failed(error))?;
                self.counters.log_bytes.add(entry.payload.len() as u64);
                return Ok(());
            }
            Write::AcceptedEpoch(epoch) => {
                let set = self.log.set_accepted_epoch(epoch);
                set.map_err(|fatal| self.failed(fatal))?;
                Persisted::AcceptedEpoch(epoch)
            }
            Write::CurrentEpoch(epoch) => {
                let set = self.log.set_current_epoch(epoch);
                set.map_err(|fatal| self.failed(fatal))?;
                Persisted::CurrentEpoch(epoch)
            }
            Write::Truncate(to) => {
                let cut = self.log.truncate_after(to);
                cut.map_err(|error| self.failed(error))?;
                self.forget_log();
                Persisted::Truncated(to)
            }
            Write::SnapshotBegin(zxid) => {
                // The unfinished one goes first: the two may have the same name.
                self.writes.receiver = None;
                let begun = self.log.snapshot_receiver(zxid);
                self.writes.receiver = Some(begun.map_err(|error| self.not_received(&error))?);
                return Ok(());
            }
            Write::SnapshotPiece(bytes) => {
                let Some(receiver) = &mut self.writes.receiver else {
                    return Err(CoreFailure("a piece of no snapshot was received".into()));
                };
                let written = receiver.write_all(&bytes);
                return written.map_err(|error| self.not_received(&error));
            }
            Write::SnapshotEnd(zxid) => {
                self.install(zxid)?;
                Persisted::Snapshot(zxid)
            }
        };
        self.replica.on_persisted(clock::now(), persisted);
        Ok(())
    }

    /// Puts the received snapshot in place of the log and of the replicated state.
    fn install(&mut self, zxid: Zxid) -> Result<(), CoreFailure> {
        let Some(receiver) = self.writes.receiver.take() else {
            return Err(CoreFailure("the end of no snapshot was received".into()));
        };
        let installed = self.log.install_snapshot(receiver);
        installed.map_err(|fatal| self.failed(fatal))?;
        self.forget_log();
        self.replays.end();
        self.snapshots.installed();
        let unreadable =
            |error: ReadError| CoreFailure(format!("a snapshot cannot be read back: {error}"));
        let reader = self.log.open_snapshot(zxid).map_err(unreadable)?;
        let counters = Arc::clone(&self.counters);
        let mut content = Chunks { reader, counters };
        let restored = self.replica.restore(zxid, &mut content);
        restored.map_err(|damaged| CoreFailure(damaged.to_string()))
    }

    /// Segments are not what they were: nothing that was opened before is used again.
    fn forget_log(&mut self) {
        self.reads.forget_all();
    }

    fn not_received(&mut self, error: &io::Error) -> CoreFailure {
        self.replica.on_write_failed();
        CoreFailure(format!(
            "could not write a snapshot that was received: {error}"
        ))
    }
}

/// A snapshot of this server's disk, as the application reads it.
pub(in crate::runtime) struct Chunks {
    pub(in crate::runtime) reader: SnapshotReader<FileDisk>,
    /// Turned with each chunk: whoever watches the core sees that it goes on.
    pub(in crate::runtime) counters: Arc<CoreCounters>,
}

impl Content for Chunks {
    fn next_piece(&mut self) -> Result<Option<&[u8]>, Damaged> {
        self.counters.turns.add(1);
        self.reader
            .next_chunk()
            .map_err(|error| Damaged(error.to_string()))
    }
}
