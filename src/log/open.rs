//! Opening the log: what a start finds on the disk, and what it makes of it.

use super::disk::{self, Disk, Flush as _, LockError, Segment as _};
use super::epochs::{self, Aside, Epochs, Format, TRUNCATE_FILE};
use super::error::{Corruption, OpenError, ReadError};
use super::generation::Generation;
use super::history::History;
use super::record::{self, Found, HEADER_BYTES, Header, Kind, Position};
use super::recovery::{Extent, Link, Scan};
use super::segment::{self, FIRST_RECORD, Slot};
use super::{Log, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Settings, aside, install, snapshots};
use crate::types::{Epoch, Zxid};
use std::io;

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The newest whole snapshot: the state is this, and the entries after it. `None`: the
    /// state is all entries.
    pub snapshot: Option<Zxid>,
    /// The last transaction of the log.
    pub last: Zxid,
    /// Transactions read while checking the log; older segments, which the snapshot covers,
    /// are not read.
    pub records: u64,
    /// What was cut off, if the log had a torn tail.
    pub cut: Option<Cut>,
    /// Damage that did no harm, for the server's own log.
    pub warnings: Vec<String>,
}

/// A torn tail that was cut off: never synced, so never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the log ends now.
    pub position: Position,
    /// What was found there.
    pub found: String,
}

impl<D: Disk> Log<D> {
    /// Opens the log in a directory, or begins one if the directory has none.
    ///
    /// All that is read back is durable when this returns. Reads the newest snapshot and the
    /// segments after it once.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing that might be of use was changed.
    ///
    /// # Panics
    /// If the settings are out of their bounds.
    pub fn open(disk: D, settings: Settings) -> Result<(Log<D>, Recovered), OpenError> {
        let bounds = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        assert!(
            bounds.contains(&settings.segment_bytes),
            "a segment of impossible length"
        );
        let lock = take_lock(&disk)?;
        // What a killed server renamed and could not sync is now made durable: else this one
        // would build on names that a loss of power takes back.
        at_open(&disk, "sync the directory", disk.sync_dir())?;
        let mut opening = Opening::begin(&disk, &settings)?;
        opening.complete_install()?;
        let keep = epochs::read_cut(&disk, opening.salt);
        let keep = opening.check("read an interrupted cut", keep)?;
        let snapshot = opening.newest_snapshot(keep)?;
        let extent = opening.scan(snapshot, keep)?;
        let cut = opening.repair(&extent, keep)?;
        let (active, end) = opening.begin_or_map(&extent, snapshot)?;
        opening.check_epochs(opening.last)?;
        let recovered = Recovered {
            snapshot,
            last: opening.last,
            records: extent.records,
            cut,
            warnings: opening.warnings,
        };
        let mut log = Log {
            salt: opening.salt,
            chain: opening.chain,
            disowned: opening.disowned,
            history: opening.history,
            epochs: opening.epochs,
            disk,
            _lock: lock,
            settings,
            active,
            draining: Vec::new(),
            written: end,
            synced: end,
            last: recovered.last,
            synced_zxid: recovered.last,
            flushing: false,
            generation: Generation::default(),
            slot: Slot::new(),
            fatal: None,
        };
        let marked = log.mark();
        at_open(&log.disk, "write to the log", marked)?;
        Ok((log, recovered))
    }
}

/// A start under way.
struct Opening<'a, D: Disk> {
    disk: &'a D,
    settings: &'a Settings,
    salt: u64,
    epochs: Epochs,
    /// Indexes of all segments, ascending.
    segments: Vec<u32>,
    chain: Vec<Link>,
    last: Zxid,
    history: History,
    disowned: Vec<Zxid>,
    warnings: Vec<String>,
}

impl<'a, D: Disk> Opening<'a, D> {
    /// Reads the directory, its format and its epochs; begins a directory that has none.
    fn begin(disk: &'a D, settings: &'a Settings) -> Result<Opening<'a, D>, OpenError> {
        let names = at_open(disk, "list the directory", disk.list())?;
        for draft in names.iter().filter(|name| name.ends_with(".tmp")) {
            at_open(disk, "remove an unfinished file", disk.remove(draft))?;
        }
        let used = names.iter().any(|name| is_data(name));
        let mut opening = Opening {
            disk,
            settings,
            salt: salt_of(disk, settings, used)?,
            epochs: Epochs::default(),
            segments: Vec::new(),
            chain: Vec::new(),
            last: Zxid::ZERO,
            history: History::default(),
            disowned: Vec::new(),
            warnings: Vec::new(),
        };
        opening.complete_aside()?;
        opening.segments = at_open(disk, "list the directory", segment::list(disk))?;
        let epochs = opening.check("read the epochs", Epochs::read(disk, opening.salt))?;
        if epochs.is_none() {
            if used {
                return Err(opening.corrupt(missing(epochs::EPOCHS_FILE, "the epochs")));
            }
            let written = opening.epochs.write(disk, opening.salt);
            at_open(disk, "write the epochs", written)?;
        }
        opening.epochs = epochs.unwrap_or_default();
        Ok(opening)
    }

    /// Finishes setting a damaged history aside, if that was interrupted.
    fn complete_aside(&mut self) -> Result<(), OpenError> {
        let note = Aside::read(self.disk, self.salt);
        let Some(note) = self.check("read what is set aside", note)? else {
            return Ok(());
        };
        let done = aside::complete(self.disk, self.salt, note);
        let done = at_open(self.disk, "set the history aside", done)?;
        let (count, suffix) = (done.files.len(), done.suffix);
        self.warnings.push(format!(
            "a damaged history was set aside: {count} files now end in {suffix}"
        ));
        Ok(())
    }

    /// Finishes the install of another server's snapshot, if that was interrupted.
    fn complete_install(&mut self) -> Result<(), OpenError> {
        let names = at_open(self.disk, "list the directory", self.disk.list())?;
        let Some(zxid) = names.iter().find_map(|name| install::zxid_of(name)) else {
            return Ok(());
        };
        // All else is removed for it, so it must be whole, and no more than was promised.
        let name = install::name_of(zxid);
        match snapshots::verify_file(self.disk, &name, zxid, self.salt) {
            Ok(_) => self.check_epochs(zxid)?,
            Err(ReadError::Io { source, .. }) => {
                return Err(io_error(self.disk, "read a snapshot", source));
            }
            Err(error) => {
                return Err(self.corrupt(Corruption {
                    file: name,
                    offset: 0,
                    after: None,
                    found: error.to_string(),
                    expected: "a whole snapshot, since it was being installed".into(),
                }));
            }
        }
        let capacity = self.settings.segment_bytes;
        let done = install::complete(self.disk, zxid, self.salt, capacity);
        at_open(self.disk, "finish the install of a snapshot", done)?;
        self.segments = at_open(self.disk, "list the directory", segment::list(self.disk))?;
        Ok(())
    }

    /// The newest snapshot that is whole and not about to be cut off.
    fn newest_snapshot(&mut self, keep: Option<Zxid>) -> Result<Option<Zxid>, OpenError> {
        let zxids = at_open(self.disk, "list the directory", snapshots::list(self.disk))?;
        for zxid in zxids
            .into_iter()
            .filter(|&zxid| keep.is_none_or(|keep| zxid <= keep))
        {
            match snapshots::verify(self.disk, zxid, self.salt) {
                Ok(_) => return Ok(Some(zxid)),
                Err(ReadError::Io { source, .. }) => {
                    return Err(io_error(self.disk, "read a snapshot", source));
                }
                Err(error) => {
                    self.warnings
                        .push(format!("the snapshot as of {zxid} is not used: {error}"));
                    self.disowned.push(zxid);
                }
            }
        }
        Ok(None)
    }

    /// Reads the segments that the snapshot does not cover.
    fn scan(&mut self, snapshot: Option<Zxid>, keep: Option<Zxid>) -> Result<Extent, OpenError> {
        // What a killed server left in the cache is now made durable; what a failed sync left
        // there, not durable though it looks so, is forgotten. It may be in any segment: a cut
        // that failed has zeroed one with many behind it. Where there is nothing to sync this
        // costs next to nothing.
        for &index in &self.segments {
            let reread = self.disk.reread(&segment::name_of(index));
            at_open(self.disk, "sync a segment left by the last run", reread)?;
        }
        let first = self.skip_covered(snapshot)?;
        let Some(&lowest) = self.segments.get(first) else {
            let scan = Scan::new(self.salt, 1, None);
            return scan.finish().map_err(|corruption| self.corrupt(corruption));
        };
        let mut scan = Scan::new(self.salt, lowest, keep);
        let mut bytes = Vec::new();
        for &index in &self.segments[first..] {
            let read = disk::read_into(self.disk, &segment::name_of(index), &mut bytes);
            at_open(self.disk, "read a segment", read)?;
            scan.segment(index, &bytes)
                .map_err(|corruption| self.corrupt(corruption))?;
        }
        let extent = scan
            .finish()
            .map_err(|corruption| self.corrupt(corruption))?;
        let base = extent
            .chain
            .first()
            .map_or(Zxid::ZERO, |link| link.previous);
        self.history = History {
            base,
            ends: extent.ends.clone(),
        };
        self.history.reach_back(&self.chain);
        self.chain.extend_from_slice(&extent.chain);
        self.last = extent.last;
        self.check_cover(&extent, snapshot)?;
        Ok(extent)
    }

    /// Links the segments that lie wholly at or below `base`, by their beginnings alone, and
    /// returns how many there are.
    fn skip_covered(&mut self, base: Option<Zxid>) -> Result<usize, OpenError> {
        let mut begins = Vec::new();
        for &index in &self.segments {
            let name = segment::name_of(index);
            let limit = (FIRST_RECORD + HEADER_BYTES) as u64;
            let head = at_open(
                self.disk,
                "read a segment",
                disk::read_head(self.disk, &name, limit),
            )?;
            match record::read_at(&head, self.salt, index, FIRST_RECORD) {
                Found::Record(
                    Header {
                        kind: Kind::Begin,
                        zxid,
                        ..
                    },
                    ..,
                ) => begins.push(zxid),
                _ => break,
            }
        }
        let covered = |&zxid: &Zxid| base.is_some_and(|base| zxid <= base);
        let first = begins.iter().rposition(covered).unwrap_or(0);
        for (at, &previous) in begins.iter().take(first).enumerate() {
            let index = self.segments[at];
            if index + 1 != self.segments[at + 1] {
                return Err(self.corrupt(missing(&segment::name_of(index + 1), "every segment")));
            }
            self.chain.push(Link { index, previous });
        }
        Ok(first)
    }

    /// Checks that snapshot and log together lack nothing.
    fn check_cover(&self, extent: &Extent, snapshot: Option<Zxid>) -> Result<(), OpenError> {
        let Some(first) = self.chain.first() else {
            return Ok(());
        };
        let covered = snapshot.unwrap_or(Zxid::ZERO);
        if first.previous > covered {
            return Err(self.corrupt(Corruption {
                file: segment::name_of(first.index),
                offset: FIRST_RECORD as u64,
                after: snapshot,
                found: format!("a log that begins after transaction {}", first.previous),
                expected: "a whole snapshot that reaches so far".into(),
            }));
        }
        // A snapshot is begun only when its zxid is durable in the log.
        if covered > extent.last {
            return Err(self.corrupt(Corruption {
                file: segment::name_of(extent.end.segment),
                offset: u64::from(extent.end.offset),
                after: Some(extent.last),
                found: "the end of the log".into(),
                expected: format!("transactions up to {covered}, of which there is a snapshot"),
            }));
        }
        Ok(())
    }

    /// Checks that `last` is not of an epoch this server never accepted.
    fn check_epochs(&self, last: Zxid) -> Result<(), OpenError> {
        if last.epoch <= self.epochs.accepted {
            return Ok(());
        }
        Err(self.corrupt(Corruption {
            file: epochs::EPOCHS_FILE.into(),
            offset: 8,
            after: Some(last),
            found: format!("accepted epoch {}", self.epochs.accepted),
            expected: "one no lower than that of the last transaction".into(),
        }))
    }

    /// Cuts what lies behind the end: a torn tail, a prepared segment, an interrupted cut.
    fn repair(&mut self, extent: &Extent, keep: Option<Zxid>) -> Result<Option<Cut>, OpenError> {
        let Some(active) = self.chain.last().map(|link| link.index) else {
            return self.check_absence().map(|()| None);
        };
        let cut = truncate_to(
            self.disk,
            extent.end,
            extent.tail_end,
            active,
            &self.segments,
            keep,
        );
        at_open(self.disk, "cut the log's torn tail", cut)?;
        self.segments.retain(|&index| index <= active);
        let found = extent.torn.clone().filter(|_| keep.is_none());
        Ok(found.map(|found| Cut {
            position: extent.end,
            found,
        }))
    }

    /// There is no log. That is right where only a snapshot was put, if that is enough, and where the current epoch
    /// is 0: in a new directory, and after the history was set aside. Such a server never said
    /// that it holds anything. A segment that is there has a beginning, durable before its name.
    fn check_absence(&self) -> Result<(), OpenError> {
        let used = self.epochs.current > Epoch(0);
        let restored = self.settings.snapshot_is_enough
            && !at_open(self.disk, "list the directory", snapshots::list(self.disk))?.is_empty();
        if !self.segments.is_empty() || (used && !restored) {
            return Err(self.corrupt(missing(&segment::name_of(1), "the beginning of the log")));
        }
        Ok(())
    }

    /// The active segment, and where it is written next.
    fn begin_or_map(
        &mut self,
        extent: &Extent,
        snapshot: Option<Zxid>,
    ) -> Result<(D::Segment, Position), OpenError> {
        if let Some(link) = self.chain.last() {
            let map = self.disk.map(&segment::name_of(link.index));
            return Ok((at_open(self.disk, "map the last segment", map)?, extent.end));
        }
        let previous = snapshot.unwrap_or(Zxid::ZERO);
        let plan = segment::Plan {
            index: 1,
            capacity: self.settings.segment_bytes,
            salt: self.salt,
            begin: Some(previous),
        };
        let first = at_open(self.disk, "make the first segment", plan.create(self.disk))?;
        self.chain.push(Link { index: 1, previous });
        self.last = previous;
        self.history = History::after(previous);
        Ok((
            first,
            Position::new(1, (FIRST_RECORD + HEADER_BYTES) as u32),
        ))
    }

    /// The value of a small file, its two kinds of failure told apart.
    fn check<T>(
        &self,
        doing: &str,
        read: io::Result<Result<T, Corruption>>,
    ) -> Result<T, OpenError> {
        at_open(self.disk, doing, read)?.map_err(|corruption| self.corrupt(corruption))
    }

    fn corrupt(&self, corruption: Corruption) -> OpenError {
        OpenError::Corrupt {
            dir: self.disk.describe(),
            corruption: Box::new(corruption),
        }
    }
}

/// Makes `end` the end of the log, durably: removes the segments above `active`, snapshots
/// above `keep`, and zeroes what is behind `end`, up to `tail_end`.
///
/// May be interrupted anywhere and done again.
pub(super) fn truncate_to<D: Disk>(
    disk: &D,
    end: Position,
    tail_end: u32,
    active: u32,
    segments: &[u32],
    keep: Option<Zxid>,
) -> io::Result<()> {
    // Snapshots first: one that is newer than the log must not survive the cut.
    for zxid in snapshots::list(disk)? {
        if keep.is_some_and(|keep| zxid > keep) {
            snapshots::remove(disk, zxid)?;
        }
    }
    if tail_end > end.offset {
        let mut segment = disk.map(&segment::name_of(active))?;
        let zeroes = vec![0; (tail_end - end.offset) as usize];
        segment.write(end.offset as usize, &zeroes)?;
        segment.flush().run()?;
    }
    // Only then the segments, since the tail may say that they are there. The highest first,
    // each durably gone before the next: there is never a hole.
    for &index in segments.iter().rev().filter(|&&index| index > active) {
        disk::remove(disk, &segment::name_of(index))?;
    }
    if keep.is_some() {
        disk::remove(disk, TRUNCATE_FILE)?;
    }
    Ok(())
}

/// True for a file that only a directory in use has.
fn is_data(name: &str) -> bool {
    segment::index_of(name).is_some()
        || snapshots::zxid_of(name).is_some()
        || install::zxid_of(name).is_some()
}

/// The salt in the file `format`, which is written if the directory is not `used`.
fn salt_of<D: Disk>(disk: &D, settings: &Settings, used: bool) -> Result<u64, OpenError> {
    let reason = match at_open(disk, "read the format", Format::read(disk))? {
        Format::Known(salt) => return Ok(salt),
        Format::Absent if !used => {
            at_open(disk, "write the format", Format::write(disk, settings.salt))?;
            return Ok(settings.salt);
        }
        Format::Absent => "its file `format` is missing".into(),
        Format::Foreign(reason) => reason,
    };
    Err(OpenError::Format {
        dir: disk.describe(),
        reason,
    })
}

/// Takes the directory's lock.
pub(super) fn take_lock<D: Disk>(disk: &D) -> Result<D::Lock, OpenError> {
    disk.lock().map_err(|error| match error {
        LockError::Held(holder) => OpenError::Locked {
            dir: disk.describe(),
            holder,
        },
        LockError::Io(source) => io_error(disk, "lock the directory", source),
    })
}

fn missing(file: &str, expected: &str) -> Corruption {
    Corruption {
        file: file.into(),
        offset: 0,
        after: None,
        found: "no such file, or an empty one".into(),
        expected: expected.into(),
    }
}

pub(super) fn at_open<D: Disk, T>(
    disk: &D,
    doing: &str,
    result: io::Result<T>,
) -> Result<T, OpenError> {
    result.map_err(|source| io_error(disk, doing, source))
}

fn io_error<D: Disk>(disk: &D, doing: &str, source: io::Error) -> OpenError {
    OpenError::Io {
        dir: disk.describe(),
        doing: doing.into(),
        source,
    }
}
