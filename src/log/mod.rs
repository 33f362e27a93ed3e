//! The durable log of one server: memory-mapped segments, epochs, snapshots.
//!
//! It alone touches files and memory maps. [`record`] and [`recovery`] are pure; [`recovery`]
//! says how a torn tail is told from corruption. The directory holds:
//!
//! ```text
//! lock                 held while a server runs on the directory
//! format               version of all this, and the log's salt
//! epochs               accepted and current epoch, incarnation
//! truncate             only while the log is being cut
//! aside                only while a damaged history is being set aside
//! segment-NNNNNNNNNN   the log, each file a stretch of it
//! snapshot-E-C         the replicated state as of epoch E, counter C
//! install-E-C          only while another server's snapshot takes the place of all the rest
//! *.aside-N            a damaged history that was set aside; never read
//! *.tmp                unfinished; removed at the next start
//! ```
//!
//! # Order of positions
//! `written` ≥ `flushing` ≥ `synced`. [`Log::append`] moves `written`; [`Log::begin_sync`]
//! takes it as `flushing`; [`Log::end_sync`] makes that `synced`, and only what is before
//! `synced` may be acknowledged.
//!
//! # Failure
//! The first write or sync that fails fences the log for good: every later call that would
//! change it gives the same [`Fatal`]. A failed sync is never tried again, because the kernel
//! may have dropped what it could not write and say yes the second time. Reading goes on.

mod aside;
mod backup;
pub mod disk;
mod entries;
mod epochs;
mod error;
mod file;
mod generation;
mod history;
mod inspect;
mod install;
mod open;
pub mod record;
pub mod recovery;
pub mod segment;
pub mod snapshots;
#[cfg(test)]
mod tests;
mod trim;
mod truncate;

pub use aside::{SetAside, set_aside};
pub use backup::{BackupError, BackupWriter, Reading, make_dir, open_backup};
pub use entries::{Entries, Entry};
pub use epochs::Epochs;
pub use error::{Corruption, Fatal, LogError, OpenError, ReadError};
pub use file::{FileDisk, FileFlush};
pub use history::History;
pub use inspect::{InspectError, Places, Summary, dump, verify};
pub use install::SnapshotReceiver;
pub use open::{Cut, Recovered};
pub use segment::PrepareJob;
pub use snapshots::{SnapshotReader, SnapshotWriter};
pub use trim::TrimJob;

use crate::types::{Epoch, Incarnation, Zxid};
use disk::{Disk, Flush as _, Segment as _};
use generation::Generation;
use record::{HEADER_BYTES, Header, Kind, Position};
use recovery::Link;
use segment::{FIRST_RECORD, Slot, SlotState};
use std::io;

/// The log on real files.
pub type FileLog = Log<FileDisk>;

/// What can be chosen about a log.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of a new segment; existing ones keep theirs.
    pub segment_bytes: u32,
    /// Any random number. Used when the directory is new: it keeps bytes that a client chose
    /// from passing for records.
    pub salt: u64,
    /// Whether a used directory is opened that has a snapshot and no segment at all. A server
    /// alone goes on from a snapshot that someone put there; one of an ensemble would stand for
    /// less than it acknowledged, and must refuse.
    pub snapshot_is_enough: bool,
}

impl Settings {
    /// The usual settings with this salt.
    #[must_use]
    pub fn new(salt: u64) -> Settings {
        Settings {
            segment_bytes: SEGMENT_BYTES,
            salt,
            snapshot_is_enough: true,
        }
    }
}

/// Bytes of a segment, if nothing else is asked for.
pub const SEGMENT_BYTES: u32 = 64 << 20;
/// The smallest segment that makes sense.
pub const SEGMENT_BYTES_MIN: u32 = 512;
/// The largest segment; all of one is read into memory at recovery.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Snapshots to keep with [`Log::trim_job`]: should the newest be damaged, the
/// log still reaches back to the one before.
pub const SNAPSHOTS_KEPT: usize = 2;

/// The log of one server. See the module's page for its files, positions and failures.
///
/// Invariants: `synced` ≤ `written`; what is not synced is in `active` and `draining` alone;
/// `synced` stands still while a ticket is out; `chain` is never empty and its last link is
/// `active`; everything behind `written` in `active` is zero, but for one mark.
pub struct Log<D: Disk> {
    disk: D,
    _lock: D::Lock,
    settings: Settings,
    /// The directory's salt, which may not be the one of `settings`.
    salt: u64,
    chain: Vec<Link>,
    active: D::Segment,
    /// The segments just before `active` of which some may not be synced, oldest first. More
    /// than one only while a ticket is out: see [`Log::roll`].
    draining: Vec<D::Segment>,
    written: Position,
    synced: Position,
    last: Zxid,
    synced_zxid: Zxid,
    /// What `last` ends, in short.
    history: History,
    /// True while a ticket is out.
    flushing: bool,
    /// Ended by each cut and install, so that a helper from before is known as stale.
    generation: Generation,
    slot: Slot<D>,
    epochs: Epochs,
    /// Snapshots that were found damaged at the start, or are being removed: never counted.
    disowned: Vec<Zxid>,
    fatal: Option<Fatal>,
}

/// Asks for one sync: run every flush, then give the ticket to [`Log::end_sync`].
#[must_use = "the log waits for the ticket"]
#[derive(Debug)]
pub struct SyncTicket<F> {
    /// What to sync: one segment, and those before it that the log has just moved on from.
    pub flushes: Vec<F>,
    /// The last transaction that will be durable then.
    pub upto: Zxid,
    position: Position,
}

impl<F: disk::Flush> SyncTicket<F> {
    /// Runs all flushes here, blocking.
    ///
    /// # Errors
    /// The first error; it is to be given to [`Log::end_sync`].
    pub fn run(&self) -> io::Result<()> {
        self.flushes.iter().try_for_each(|flush| flush.run())
    }
}

/// The flush of a disk's segments.
pub type FlushOf<D> = <<D as Disk>::Segment as disk::Segment>::Flush;

impl<D: Disk> Log<D> {
    /// Appends a transaction. It is durable once a sync begun after this has ended.
    ///
    /// Costs two copies and two CRCs, unless the segment is full and the next one was not
    /// prepared ahead.
    ///
    /// # Errors
    /// `ZxidGap` and `TooLong` change nothing; `Fatal` is for good.
    ///
    /// # Panics
    /// If the zxid's epoch is above the accepted one: an ack would then promise more than the
    /// epochs on disk do.
    #[inline]
    pub fn append(&mut self, zxid: Zxid, payload: &[u8]) -> Result<(), LogError> {
        self.check()?;
        if !zxid.follows(self.last) {
            return Err(LogError::ZxidGap {
                last: self.last,
                got: zxid,
            });
        }
        assert!(
            zxid.epoch <= self.epochs.accepted,
            "transaction {zxid} above the accepted epoch {}",
            self.epochs.accepted
        );
        let span = record::span(payload.len());
        let mut offset = self.written.offset as usize;
        // Room for a mark stays behind every record.
        if offset + span + HEADER_BYTES > self.active.capacity() {
            let max = self.payload_bytes_max();
            if payload.len() > max {
                return Err(LogError::TooLong {
                    bytes: payload.len(),
                    max,
                });
            }
            self.roll()?;
            offset = self.written.offset as usize;
        }
        let header = Header::new(Kind::Txn, zxid, self.synced, payload);
        let header = header.encode(self.salt, self.written);
        let write = self.active.write(offset, &header);
        let write = write.and_then(|()| self.active.write(offset + HEADER_BYTES, payload));
        if let Err(error) = write {
            return Err(self.fence("write to the log", &error).into());
        }
        self.written.offset = (offset + span) as u32;
        self.last = zxid;
        self.history.append(zxid);
        Ok(())
    }

    /// A ticket to sync everything appended so far; `None` if there is nothing to sync, if a
    /// ticket is out already, or if the log has failed.
    pub fn begin_sync(&mut self) -> Option<SyncTicket<FlushOf<D>>> {
        if self.flushing || self.fatal.is_some() || self.written == self.synced {
            return None;
        }
        self.flushing = true;
        if let Err(error) = self.write_mark() {
            // The end of the sync tells it.
            self.fence("write to the log", &error);
        }
        Some(SyncTicket {
            flushes: self.flushes(),
            upto: self.last,
            position: self.written,
        })
    }

    /// Takes a ticket back with what came of it, and returns the last durable transaction.
    ///
    /// # Errors
    /// `Fatal` if the sync failed, or the log has failed before.
    pub fn end_sync(
        &mut self,
        ticket: SyncTicket<FlushOf<D>>,
        result: io::Result<()>,
    ) -> Result<Zxid, Fatal> {
        self.flushing = false;
        self.check()?;
        if let Err(error) = result {
            return Err(self.fence("sync the log", &error));
        }
        self.advance(ticket.position, ticket.upto)?;
        Ok(self.synced_zxid)
    }

    /// Syncs everything appended so far, blocking, and returns the last durable transaction.
    ///
    /// # Errors
    /// As [`Log::end_sync`].
    ///
    /// # Panics
    /// If a ticket is out. Its sync may have failed already, and the kernel tells of a failure
    /// once: this sync would be told that all is well.
    pub fn sync_now(&mut self) -> Result<Zxid, Fatal> {
        self.check()?;
        self.assert_no_ticket();
        if self.written > self.synced {
            if let Err(error) = self.write_mark() {
                return Err(self.fence("write to the log", &error));
            }
            for flush in self.flushes() {
                if let Err(error) = flush.run() {
                    return Err(self.fence("sync the log", &error));
                }
            }
            self.advance(self.written, self.last)?;
        }
        Ok(self.synced_zxid)
    }

    /// Syncs everything, the mark at the end included, and gives the directory free.
    ///
    /// # Errors
    /// As [`Log::end_sync`].
    ///
    /// # Panics
    /// As [`Log::sync_now`].
    pub fn close(mut self) -> Result<(), Fatal> {
        self.sync_now()?;
        if let Err(error) = self.active.flush().run() {
            return Err(self.fence("sync the log", &error));
        }
        Ok(())
    }

    /// The work of making the next segment, to be run on a helper thread; `None` while it is
    /// done, under way, or failed for this segment.
    pub fn prepare_job(&mut self) -> Option<PrepareJob<D>> {
        let mut state = self.slot.lock();
        if self.fatal.is_some() || !matches!(*state, SlotState::Idle) {
            return None;
        }
        *state = SlotState::Running;
        Some(PrepareJob {
            disk: self.disk.clone(),
            plan: self.next_segment(),
            slot: self.slot.share(),
        })
    }

    /// Raises the accepted epoch, durably on return.
    ///
    /// # Errors
    /// `Fatal` if it could not be written.
    ///
    /// # Panics
    /// If it would fall.
    pub fn set_accepted_epoch(&mut self, epoch: Epoch) -> Result<(), Fatal> {
        let accepted = self.epochs.accepted;
        assert!(
            epoch >= accepted,
            "accepted epoch {accepted} would fall to {epoch}"
        );
        self.write_epochs(Epochs {
            accepted: epoch,
            ..self.epochs
        })
    }

    /// Raises the current epoch, durably on return.
    ///
    /// # Errors
    /// `Fatal` if it could not be written.
    ///
    /// # Panics
    /// If it would fall, or rise above the accepted one.
    pub fn set_current_epoch(&mut self, epoch: Epoch) -> Result<(), Fatal> {
        let current = self.epochs.current;
        assert!(
            epoch >= current,
            "current epoch {current} would fall to {epoch}"
        );
        self.write_epochs(Epochs {
            current: epoch,
            ..self.epochs
        })
    }

    /// Raises the incarnation by one, durably on return: once a start.
    ///
    /// # Errors
    /// `Fatal` if it could not be written.
    pub fn next_incarnation(&mut self) -> Result<Incarnation, Fatal> {
        let next = self.epochs.incarnation.0.checked_add(1);
        let incarnation = Incarnation(next.expect("2^64 starts have not happened"));
        self.write_epochs(Epochs {
            incarnation,
            ..self.epochs
        })?;
        Ok(incarnation)
    }

    /// The transactions after `zxid`, up to the last one written.
    ///
    /// # Errors
    /// `Trimmed` if the log no longer reaches back so far.
    pub fn entries_after(&self, zxid: Zxid) -> Result<Entries<D>, ReadError> {
        Entries::new(
            self.disk.clone(),
            self.salt,
            &self.chain,
            self.written,
            zxid,
        )
    }

    /// The last transaction appended.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// The last durable transaction.
    #[must_use]
    pub fn durable(&self) -> Zxid {
        self.synced_zxid
    }

    /// The last transaction *before* the oldest one that is still here.
    #[must_use]
    pub fn begins_after(&self) -> Zxid {
        self.chain[0].previous
    }

    /// Where the next record goes.
    #[must_use]
    pub fn written(&self) -> Position {
        self.written
    }

    /// The epochs and the incarnation, as they are on disk.
    #[must_use]
    pub fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.chain.len()
    }

    /// True while a ticket is out. Until it is back the log must not be synced here and now, cut,
    /// replaced by a snapshot or closed.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.flushing
    }

    /// Why the log takes nothing any more, if so.
    #[must_use]
    pub fn fatal(&self) -> Option<&Fatal> {
        self.fatal.as_ref()
    }

    /// The longest payload that [`Log::append`] takes, bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        let room = self.settings.segment_bytes as usize - segment::OVERHEAD - HEADER_BYTES;
        room / record::ALIGN * record::ALIGN
    }

    #[inline]
    fn check(&self) -> Result<(), Fatal> {
        match &self.fatal {
            None => Ok(()),
            Some(fatal) => Err(fatal.clone()),
        }
    }

    /// Nothing that rests on what is durable, or takes segments away, goes on beside a sync
    /// whose outcome is not known.
    fn assert_no_ticket(&self) {
        assert!(!self.flushing, "a sync is under way");
    }

    #[cold]
    fn fence(&mut self, doing: &str, error: &io::Error) -> Fatal {
        let fatal = Fatal::new(format!("{doing} in {}", self.disk.describe()), error);
        self.fatal.get_or_insert(fatal).clone()
    }

    fn flushes(&self) -> Vec<FlushOf<D>> {
        self.draining
            .iter()
            .chain([&self.active])
            .map(|segment| segment.flush())
            .collect()
    }

    /// Notes that everything before `position` is synced.
    fn advance(&mut self, position: Position, zxid: Zxid) -> Result<(), Fatal> {
        assert!(
            position <= self.written,
            "synced {position} beyond written {}",
            self.written
        );
        self.synced = position;
        self.synced_zxid = zxid;
        // What is wholly synced is not written any more: unmap it.
        let unsynced = (self.written.segment - position.segment) as usize;
        let drained = self.draining.len().saturating_sub(unsynced);
        self.draining.drain(..drained);
        if unsynced == 0 {
            self.active.release(position.offset as usize);
        }
        self.mark()
            .map_err(|error| self.fence("write to the log", &error))
    }

    /// Leaves word at the end of the log that everything before is synced, unless a record that
    /// follows will say so.
    fn mark(&mut self) -> io::Result<()> {
        if self.synced < self.written {
            return Ok(());
        }
        self.write_mark()
    }

    /// Writes a mark behind the last record, which says how far the log is synced.
    ///
    /// Each sync takes one along, because the records it syncs may all have been appended while
    /// the sync before was under way, and then none of them knows how that ended.
    fn write_mark(&mut self) -> io::Result<()> {
        let header = Header::new(Kind::Mark, self.last, self.synced, b"");
        let header = header.encode(self.salt, self.written);
        self.active.write(self.written.offset as usize, &header)
    }

    /// Goes on to the next segment, which is made here if no helper has.
    ///
    /// Where nobody syncs, the writer does it here, so that no more than two segments are not
    /// synced. While a ticket is out it must not: it would take for durable what that ticket's
    /// sync may just have failed to write. Then as many segments drain as are filled during one
    /// sync, which is bounded by what the log's user lets be in flight.
    #[cold]
    fn roll(&mut self) -> Result<(), Fatal> {
        if !self.draining.is_empty() && !self.flushing {
            self.sync_now()?;
        }
        let index = self.written.segment + 1;
        let next = match self.take_prepared() {
            Some(segment) => segment,
            None => {
                let made = self.next_segment().create(&self.disk);
                made.map_err(|error| self.fence("extend the log", &error))?
            }
        };
        let mut full = std::mem::replace(&mut self.active, next);
        let last = Header::new(Kind::Next, self.last, self.synced, b"");
        let last = last.encode(self.salt, self.written);
        let link = Link {
            index,
            previous: self.last,
        };
        let begin = segment::begin_record(index, link.previous, self.synced, self.salt);
        let write = full.write(self.written.offset as usize, &last);
        self.draining.push(full);
        if let Err(error) = write.and_then(|()| self.active.write(FIRST_RECORD, &begin)) {
            return Err(self.fence("write to the log", &error));
        }
        self.chain.push(link);
        self.written = Position::new(index, (FIRST_RECORD + HEADER_BYTES) as u32);
        Ok(())
    }

    fn next_segment(&self) -> segment::Plan {
        segment::Plan {
            index: self.written.segment + 1,
            capacity: self.settings.segment_bytes,
            salt: self.salt,
            begin: None,
        }
    }

    /// The segment a helper has made, if it is ready. A helper still at it is let go.
    fn take_prepared(&mut self) -> Option<D::Segment> {
        let slot = std::mem::replace(&mut self.slot, Slot::new());
        let state = std::mem::replace(&mut *slot.lock(), SlotState::Idle);
        match state {
            SlotState::Ready(segment) => Some(segment),
            SlotState::Idle | SlotState::Running | SlotState::Failed => None,
        }
    }

    fn write_epochs(&mut self, epochs: Epochs) -> Result<(), Fatal> {
        self.check()?;
        if let Err(error) = epochs.write(&self.disk, self.salt) {
            return Err(self.fence("write the epochs", &error));
        }
        self.epochs = epochs;
        Ok(())
    }
}
