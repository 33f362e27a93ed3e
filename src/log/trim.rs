//! Snapshots beside the log, and the removal of what they make superfluous.

use super::disk::Disk;
use super::error::ReadError;
use super::generation::Made;
use super::record::{HEADER_BYTES, Position};
use super::segment::{self, FIRST_RECORD};
use super::snapshots::{self, SnapshotReader, SnapshotWriter};
use super::{Link, Log};
use crate::types::Zxid;
use std::io;

impl<D: Disk> Log<D> {
    /// Begins a snapshot of the state as of `zxid`, to be written on any thread.
    ///
    /// # Errors
    /// What the disk says. A snapshot that fails harms nothing else, and does not fence.
    ///
    /// # Panics
    /// If `zxid` is not durable: the snapshot would outlive its own log.
    pub fn snapshot_writer(&self, zxid: Zxid) -> io::Result<SnapshotWriter<D>> {
        let synced = self.synced_zxid;
        assert!(
            zxid <= synced,
            "a snapshot as of {zxid} while only {synced} is durable"
        );
        let draft = format!("{}.tmp", snapshots::name_of(zxid));
        let made = self.generation.made();
        SnapshotWriter::new(self.disk.clone(), zxid, self.salt, draft, made)
    }

    /// Opens the snapshot as of `zxid`.
    ///
    /// # Errors
    /// `Io` if there is none; `Corrupt` if its beginning is damaged.
    pub fn open_snapshot(&self, zxid: Zxid) -> Result<SnapshotReader<D>, ReadError> {
        SnapshotReader::open(&self.disk, zxid, self.salt)
    }

    /// The zxids of all snapshots, newest first, but for those known to be damaged and those
    /// being removed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn snapshots(&self) -> io::Result<Vec<Zxid>> {
        let mut zxids = snapshots::list(&self.disk)?;
        zxids.retain(|zxid| !self.disowned.contains(zxid));
        Ok(zxids)
    }

    /// The work of removing all but the newest `keep` snapshots, and the segments that none of
    /// these needs; for a helper thread to do. For the log they are gone at once.
    ///
    /// # Errors
    /// What the disk says; nothing is changed then.
    ///
    /// # Panics
    /// If `keep` is 0.
    pub fn trim_job(&mut self, keep: usize) -> io::Result<TrimJob<D>> {
        assert!(keep > 0, "trimming would leave no snapshot");
        let kept = self.snapshots()?;
        let mut job = TrimJob {
            disk: self.disk.clone(),
            made: self.generation.made(),
            snapshots: Vec::new(),
            segments: segment::list(&self.disk)?,
        };
        self.disowned.extend(kept.iter().skip(keep));
        job.snapshots.clone_from(&self.disowned);
        if let Some(&oldest) = kept.iter().take(keep).next_back() {
            let begun = |next: &Link| {
                let end = Position::new(next.index, (FIRST_RECORD + HEADER_BYTES) as u32);
                next.previous <= oldest && end <= self.synced
            };
            // A segment may go if the next one begins at or before what the snapshot covers,
            // and does so durably: else a crash could leave no beginning at all.
            let gone = self
                .chain
                .iter()
                .skip(1)
                .take_while(|next| begun(next))
                .count();
            self.chain.drain(..gone);
            self.history.trim(self.chain[0].previous);
        }
        // All before the first, not only those that go now: an earlier job may have failed,
        // and a hole must not arise behind what it left.
        let first = self.chain[0].index;
        job.segments.retain(|&index| index < first);
        Ok(job)
    }
}

/// The work of removing old snapshots and segments.
#[must_use = "nothing is removed until the job is run"]
pub struct TrimJob<D: Disk> {
    disk: D,
    made: Made,
    snapshots: Vec<Zxid>,
    segments: Vec<u32>,
}

impl<D: Disk> TrimJob<D> {
    /// Removes them, durably. What a failure or a crash leaves is part of the log again at the
    /// next start. Once the log was cut or replaced, it removes nothing more.
    ///
    /// # Errors
    /// What the disk says; the log is not harmed.
    pub fn run(self) -> io::Result<()> {
        let snapshots = self.snapshots.iter().copied().map(snapshots::name_of);
        // Segments oldest first, each durably gone before the next: there is never a hole.
        let segments = self.segments.iter().copied().map(segment::name_of);
        for name in snapshots.chain(segments) {
            match self.made.while_current(|| self.disk.remove(&name)) {
                Some(removed) => gone(removed)?,
                None => break,
            }
            self.disk.sync_dir()?;
        }
        Ok(())
    }
}

/// Takes a file that is not there for removed: another job may have been quicker.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}
