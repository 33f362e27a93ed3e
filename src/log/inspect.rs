//! Looking into a data directory without changing it: for `systole log dump` and `verify`.
//!
//! Both work on a damaged directory and say where the damage is. Neither takes the lock; beside
//! a running server, what is being written just then may look like a torn tail.

use super::disk::{self, Disk};
use super::epochs::{self, Aside, Epochs, Format};
use super::error::{Corruption, ReadError};
use super::file::FileDisk;
use super::record::{self, Found, Header, Kind, Position, u32_at, u64_at};
use super::recovery::{Extent, Scan};
use super::segment::{self, FIRST_RECORD};
use super::{aside, install, snapshots};
use crate::types::Zxid;
use std::io::{self, Write};
use std::path::Path;

/// What [`verify`] found in a directory that a server can start on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Segments that are part of the log.
    pub segments: usize,
    /// Transactions in them.
    pub transactions: u64,
    /// The last transaction *before* the first one in the log.
    pub begins_after: Zxid,
    /// The last transaction.
    pub last: Zxid,
    /// Whole snapshots, newest first.
    pub snapshots: Vec<Zxid>,
    /// Where the log is torn, if so: a start cuts it there.
    pub torn: Option<Position>,
}

impl Summary {
    /// That of a log without segments.
    fn of_none(snapshots: Vec<Zxid>) -> Summary {
        let newest = snapshots.first().copied().unwrap_or(Zxid::ZERO);
        Summary {
            segments: 0,
            transactions: 0,
            begins_after: newest,
            last: newest,
            snapshots,
            torn: None,
        }
    }
}

/// Why a directory was not dumped or did not pass.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It could not be read, or the report not written.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is no data directory of a systole.
    #[error("{dir} cannot be read as a data directory: {reason}")]
    NotOurs {
        /// The directory.
        dir: String,
        /// Why.
        reason: String,
    },
    /// It is damaged; the report says where.
    #[error("{0} damaged: a server refuses to start on it or would serve less than was written")]
    Damaged(Places),
}

/// A number of damaged places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places(pub usize);

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            1 => f.write_str("1 place is"),
            count => write!(f, "{count} places are"),
        }
    }
}

/// Checks everything in the directory `dir`, and reports it to `out`, a line for each thing.
///
/// # Errors
/// `Damaged` if any of it is; all else was reported then too.
pub fn verify(dir: impl AsRef<Path>, out: &mut impl Write) -> Result<Summary, InspectError> {
    verify_disk(&existing(dir)?, out)
}

/// Writes every transaction in the directory `dir` to `out`, a line for each, with what
/// `describe` makes of its payload; returns how many there were.
///
/// Goes on behind damage with the next header that is whole, and marks the place with `!!`.
///
/// # Errors
/// `Damaged` if there was damage other than a torn tail would show too.
pub fn dump(
    dir: impl AsRef<Path>,
    out: &mut impl Write,
    describe: &dyn Fn(&[u8]) -> String,
) -> Result<u64, InspectError> {
    dump_disk(&existing(dir)?, out, describe)
}

fn existing(dir: impl AsRef<Path>) -> Result<FileDisk, InspectError> {
    let dir = dir.as_ref();
    FileDisk::existing(dir).map_err(|source| InspectError::Io {
        doing: format!("open {}", dir.display()),
        source,
    })
}

pub(super) fn verify_disk<D: Disk>(
    disk: &D,
    out: &mut impl Write,
) -> Result<Summary, InspectError> {
    let mut report = Report { out, damaged: 0 };
    let (salt, segments) = begin(disk, &mut report)?;
    report.epochs(disk, salt)?;
    let replaced = match report.aside(disk, salt)? {
        true => Some(Vec::new()),
        false => report.install(disk, salt)?.map(|zxid| vec![zxid]),
    };
    let summary = match replaced {
        Some(snapshots) => Summary::of_none(snapshots),
        None => report.history(disk, salt, &segments)?,
    };
    if report.damaged > 0 {
        return Err(InspectError::Damaged(Places(report.damaged)));
    }
    report.line(format_args!(
        "whole: {} transactions after {} up to {}, {} snapshots",
        summary.transactions,
        summary.begins_after,
        summary.last,
        summary.snapshots.len()
    ))?;
    Ok(summary)
}

pub(super) fn dump_disk<D: Disk>(
    disk: &D,
    out: &mut impl Write,
    describe: &dyn Fn(&[u8]) -> String,
) -> Result<u64, InspectError> {
    let mut report = Report { out, damaged: 0 };
    let (salt, segments) = begin(disk, &mut report)?;
    let (mut bytes, mut count) = (Vec::new(), 0);
    for index in segments {
        disk::read_into(disk, &segment::name_of(index), &mut bytes).map_err(reading)?;
        if let Err(corruption) = segment::check_header(&bytes, bytes.len() as u64, index, salt) {
            report.damage(&corruption)?;
        }
        count += report.records(&bytes, salt, index, describe)?;
    }
    match report.damaged {
        0 => Ok(count),
        damaged => Err(InspectError::Damaged(Places(damaged))),
    }
}

/// The log's salt, and the indexes of all segments.
fn begin<D: Disk, W: Write>(
    disk: &D,
    report: &mut Report<'_, W>,
) -> Result<(u64, Vec<u32>), InspectError> {
    let segments = segment::list(disk).map_err(reading)?;
    let reason = match Format::read(disk).map_err(reading)? {
        Format::Known(salt) => {
            report.line(format_args!("format 1, salt {salt:016x}"))?;
            return Ok((salt, segments));
        }
        Format::Absent => "its file `format` is missing".to_owned(),
        Format::Foreign(reason) => reason,
    };
    // Every segment has the salt too.
    for &index in &segments {
        let head = disk::read_head(disk, &segment::name_of(index), FIRST_RECORD as u64);
        let head = head.map_err(reading)?;
        if head.len() == FIRST_RECORD && u32_at(&head, 32) == crc32fast::hash(&head[..32]) {
            report.damaged += 1;
            let salt = u64_at(&head, 24);
            report.line(format_args!(
                "!! {reason}; its segments have salt {salt:016x}"
            ))?;
            return Ok((salt, segments));
        }
    }
    let dir = disk.describe();
    Err(InspectError::NotOurs { dir, reason })
}

fn scan<D: Disk>(
    disk: &D,
    salt: u64,
    segments: &[u32],
    keep: Option<Zxid>,
) -> Result<Result<Extent, Corruption>, InspectError> {
    let mut scan = Scan::new(salt, segments.first().copied().unwrap_or(1), keep);
    let mut bytes = Vec::new();
    for &index in segments {
        disk::read_into(disk, &segment::name_of(index), &mut bytes).map_err(reading)?;
        if let Err(corruption) = scan.segment(index, &bytes) {
            return Ok(Err(corruption));
        }
    }
    Ok(scan.finish())
}

/// Writes lines, and counts damage.
struct Report<'a, W> {
    out: &'a mut W,
    damaged: usize,
}

impl<W: Write> Report<'_, W> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), InspectError> {
        writeln!(self.out, "{line}").map_err(|source| InspectError::Io {
            doing: "write the report".into(),
            source,
        })
    }

    fn damage(&mut self, what: &impl std::fmt::Display) -> Result<(), InspectError> {
        self.damaged += 1;
        self.line(format_args!("!! {what}"))
    }

    fn epochs<D: Disk>(&mut self, disk: &D, salt: u64) -> Result<(), InspectError> {
        match Epochs::read(disk, salt).map_err(reading)? {
            Ok(Some(epochs)) => self.line(format_args!(
                "accepted epoch {}, current epoch {}, incarnation {}",
                epochs.accepted, epochs.current, epochs.incarnation.0
            )),
            Ok(None) => self.damage(&"the epochs are missing"),
            Err(corruption) => self.damage(&corruption),
        }
    }

    /// The snapshots and the log, and a cut that is under way.
    fn history<D: Disk>(
        &mut self,
        disk: &D,
        salt: u64,
        segments: &[u32],
    ) -> Result<Summary, InspectError> {
        let mut summary = Summary::of_none(self.snapshots(disk, salt)?);
        let keep = match epochs::read_cut(disk, salt).map_err(reading)? {
            Ok(None) => None,
            Ok(Some(zxid)) => {
                self.line(format_args!(
                    "a cut after {zxid} is under way; a start completes it"
                ))?;
                Some(zxid)
            }
            Err(corruption) => {
                self.damage(&corruption)?;
                None
            }
        };
        match scan(disk, salt, segments, keep)? {
            Ok(extent) => self.extent(&extent, &mut summary)?,
            Err(corruption) => self.damage(&corruption)?,
        }
        Ok(summary)
    }

    /// Says what was set aside; true if that is still under way.
    fn aside<D: Disk>(&mut self, disk: &D, salt: u64) -> Result<bool, InspectError> {
        let begun = match Aside::read(disk, salt).map_err(reading)? {
            Ok(None) => false,
            Ok(Some(_)) => {
                self.line(format_args!(
                    "the history is being set aside; a start completes it and begins without one"
                ))?;
                true
            }
            Err(corruption) => {
                self.damage(&corruption)?;
                false
            }
        };
        let names = disk.list().map_err(reading)?;
        match names.iter().filter(|name| aside::is_aside(name)).count() {
            0 => {}
            count => self.line(format_args!("{count} files of damaged histories set aside"))?,
        }
        Ok(begun)
    }

    /// The snapshot that is being installed, if there is one.
    fn install<D: Disk>(&mut self, disk: &D, salt: u64) -> Result<Option<Zxid>, InspectError> {
        let names = disk.list().map_err(reading)?;
        let Some(zxid) = names.iter().find_map(|name| install::zxid_of(name)) else {
            return Ok(None);
        };
        match snapshots::verify_file(disk, &install::name_of(zxid), zxid, salt) {
            Ok(_) => self.line(format_args!(
                "a snapshot as of {zxid} is being installed; a start completes it, and all else \
                 is then gone"
            ))?,
            Err(ReadError::Io { source, .. }) => return Err(reading(source)),
            Err(error) => self.damage(&error)?,
        }
        Ok(Some(zxid))
    }

    /// The whole ones, newest first.
    fn snapshots<D: Disk>(&mut self, disk: &D, salt: u64) -> Result<Vec<Zxid>, InspectError> {
        let mut whole = Vec::new();
        for zxid in snapshots::list(disk).map_err(reading)? {
            match snapshots::verify(disk, zxid, salt) {
                Ok(bytes) => {
                    self.line(format_args!("snapshot as of {zxid}: whole, {bytes} bytes"))?;
                    whole.push(zxid);
                }
                Err(ReadError::Io { source, .. }) => return Err(reading(source)),
                Err(error) => self.damage(&error)?,
            }
        }
        Ok(whole)
    }

    fn extent(&mut self, extent: &Extent, summary: &mut Summary) -> Result<(), InspectError> {
        summary.segments = extent.chain.len();
        summary.transactions = extent.records;
        if let Some(first) = extent.chain.first() {
            summary.begins_after = first.previous;
            summary.last = extent.last;
            let covered = summary.snapshots.first().copied().unwrap_or(Zxid::ZERO);
            if first.previous > covered || covered > extent.last {
                let (first, last) = (first.previous, extent.last);
                let range = format!("the log goes from {first} to {last}");
                self.damage(&format!("{range}, which the snapshots do not reach"))?;
            }
        }
        for (at, link) in extent.chain.iter().enumerate() {
            let last = extent
                .chain
                .get(at + 1)
                .map_or(extent.last, |next| next.previous);
            let (index, previous) = (link.index, link.previous);
            self.line(format_args!(
                "segment {index}: after {previous} up to {last}"
            ))?;
        }
        if let Some(found) = &extent.torn {
            summary.torn = Some(extent.end);
            let end = extent.end;
            self.line(format_args!(
                "torn tail at {end}: {found}; never synced, so a start cuts it off"
            ))?;
        }
        Ok(())
    }

    /// Writes the transactions of one segment.
    fn records(
        &mut self,
        bytes: &[u8],
        salt: u64,
        index: u32,
        describe: &dyn Fn(&[u8]) -> String,
    ) -> Result<u64, InspectError> {
        let (mut offset, mut count) = (FIRST_RECORD, 0);
        loop {
            let at = Position::new(index, offset as u32);
            match record::read_at(bytes, salt, index, offset) {
                Found::Record(
                    Header {
                        kind: Kind::Txn,
                        zxid,
                        ..
                    },
                    payload,
                    next,
                ) => {
                    let (length, text) = (payload.len(), describe(payload));
                    self.line(format_args!("{zxid}  {at}  {length} bytes  {text}"))?;
                    count += 1;
                    offset = next;
                    continue;
                }
                Found::Record(
                    Header {
                        kind: Kind::Begin, ..
                    },
                    _,
                    next,
                ) => {
                    offset = next;
                    continue;
                }
                Found::Record(..) | Found::Empty => {}
                Found::Damaged(damage) => self.damage(&format_args!("{at}: {damage}"))?,
            }
            // The end, unless something follows behind damage.
            match record::find_header(bytes, salt, index, offset + record::ALIGN) {
                Some((next, _)) => offset = next,
                None => return Ok(count),
            }
        }
    }
}

fn reading(source: io::Error) -> InspectError {
    let doing = "read the data directory".into();
    InspectError::Io { doing, source }
}
