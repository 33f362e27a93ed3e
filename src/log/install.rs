//! Putting another server's snapshot in place of all the log held, for a learner whose history
//! lies too far back, or apart, to be mended.
//!
//! The snapshot itself is the record of intent. It is received under a temporary name, synced,
//! and renamed to `install-E-C`: from the moment that name is durable the new history is the
//! one that counts, before it the old one is. Then everything old is removed, the log begins
//! anew after the snapshot, and only when all that is durable does the snapshot get its usual
//! name, which ends the install. A start that finds `install-E-C` does the same again.

use super::Log;
use super::disk::{Disk, Segment as _};
use super::error::Fatal;
use super::history::History;
use super::record::{HEADER_BYTES, Position};
use super::recovery::Link;
use super::segment::{self, FIRST_RECORD};
use super::snapshots::{self, SnapshotWriter};
use crate::types::Zxid;
use std::io::{self, Write};

const PREFIX: &str = "install-";

/// The name of the snapshot as of `zxid` while it is being installed.
pub(super) fn name_of(zxid: Zxid) -> String {
    snapshots::name_with(PREFIX, zxid)
}

/// The zxid in the name of a snapshot that is being installed; `None` for other names.
pub(super) fn zxid_of(name: &str) -> Option<Zxid> {
    snapshots::zxid_with(PREFIX, name)
}

/// Takes another server's snapshot, whose content is written to it; usable on a helper thread.
/// It is nothing to this log before [`Log::install_snapshot`]: dropped, it leaves nothing.
pub struct SnapshotReceiver<D: Disk>(SnapshotWriter<D>);

impl<D: Disk> SnapshotReceiver<D> {
    /// The last transaction the snapshot holds.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.0.zxid()
    }
}

impl<D: Disk> Write for SnapshotReceiver<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// Does nothing: only [`Log::install_snapshot`] makes anything last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D: Disk> Log<D> {
    /// Begins to receive a snapshot as of `zxid`, which may be anywhere: ahead of this log,
    /// behind it, or on another history. One receiver at a time.
    ///
    /// # Errors
    /// What the disk says. Until it is installed, a failed receiver harms nothing and does not
    /// fence.
    pub fn snapshot_receiver(&self, zxid: Zxid) -> io::Result<SnapshotReceiver<D>> {
        let draft = format!("{}.tmp", name_of(zxid));
        let made = self.generation.made();
        let writer = SnapshotWriter::new(self.disk.clone(), zxid, self.salt, draft, made)?;
        Ok(SnapshotReceiver(writer))
    }

    /// Puts a received snapshot in place of everything the log held, durably on return: the log
    /// then begins and ends at its zxid, and all other snapshots and all transactions are gone,
    /// unsynced ones too. A crash leaves either the old history entire or this one.
    ///
    /// Blocks for one sync of what
    /// the receiver wrote last and a few of small files.
    ///
    /// # Errors
    /// `Fatal` if it could not be done. The next start finds the old history or the new one.
    ///
    /// # Panics
    /// If the snapshot's epoch is above the accepted one: the log would then hold more than the
    /// epochs on disk promise. If a ticket is out: it names segments that are removed here.
    pub fn install_snapshot(&mut self, receiver: SnapshotReceiver<D>) -> Result<(), Fatal> {
        self.check()?;
        self.assert_no_ticket();
        let (zxid, accepted) = (receiver.zxid(), self.epochs.accepted);
        assert!(
            zxid.epoch <= accepted,
            "a snapshot as of {zxid} above the accepted epoch {accepted}"
        );
        self.try_install(receiver)
            .map_err(|error| self.fence("install a snapshot", &error))
    }

    fn try_install(&mut self, receiver: SnapshotReceiver<D>) -> io::Result<()> {
        let zxid = receiver.zxid();
        receiver.0.seal_as(&name_of(zxid))?;
        self.generation.end();
        // A helper still at the next segment is let go: its name is not taken below.
        drop(self.take_prepared());
        self.draining.clear();
        let (index, active) = complete(&self.disk, zxid, self.salt, self.settings.segment_bytes)?;
        self.active = active;
        self.chain = vec![Link {
            index,
            previous: zxid,
        }];
        self.written = Position::new(index, (FIRST_RECORD + HEADER_BYTES) as u32);
        self.synced = self.written;
        self.last = zxid;
        self.synced_zxid = zxid;
        self.history = History::after(zxid);
        self.disowned.clear();
        self.mark()
    }
}

/// Does all that follows once `install-E-C` is durable, and returns the segment in which the
/// log begins anew, and its index.
///
/// May be interrupted anywhere and done again.
pub(super) fn complete<D: Disk>(
    disk: &D,
    zxid: Zxid,
    salt: u64,
    capacity: u32,
) -> io::Result<(u32, D::Segment)> {
    for old in snapshots::list(disk)? {
        disk.remove(&snapshots::name_of(old))?;
    }
    let segments = segment::list(disk)?;
    for &index in &segments {
        disk.remove(&segment::name_of(index))?;
    }
    // A higher index than any before: what helpers of the old log still do with theirs does
    // not touch it.
    let index = segments.last().map_or(1, |last| last + 1);
    let plan = segment::Plan {
        index,
        capacity,
        salt,
        begin: Some(zxid),
    };
    // This syncs the directory, so the removals are durable too before the intent is gone.
    let active = plan.create(disk)?;
    debug_assert_eq!(active.capacity(), capacity as usize);
    disk.rename(&name_of(zxid), &snapshots::name_of(zxid))?;
    disk.sync_dir()?;
    Ok((index, active))
}
