//! Reading a data directory for a backup, and making one from a backup.
//!
//! A backup is one file in the format of a snapshot ([`super::snapshots`]), with its zxid and the
//! salt of the log it was taken from in its header; so whatever happens to the file is noticed.
//! What becomes of snapshot and log is the caller's: this module knows nothing of states.
//!
//! Reading takes no lock. Beside a running server a file may be trimmed away or be half written
//! at the moment it is read; whoever reads begins anew then ([`BackupError::is_passing`]).

use super::disk::{self, Disk as _};
use super::epochs::{self, Aside, Epochs, Format};
use super::error::ReadError;
use super::file::FileDisk;
use super::generation::Generation;
use super::record::{Position, u64_at};
use super::recovery::{Link, Scan};
use super::snapshots::{self, SnapshotReader, SnapshotWriter};
use super::{Entries, install, segment};
use crate::types::{Epoch, Incarnation, Zxid};
use std::io::{self, Write};
use std::path::Path;

/// What a data directory holds: a snapshot, and the log that goes on from it.
pub struct Reading {
    disk: FileDisk,
    salt: u64,
    snapshot: Option<Zxid>,
    chain: Vec<Link>,
    end: Position,
}

/// Why a directory was not read, or a backup not written or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The system would not.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something is not as it was written.
    #[error("{0}")]
    Damaged(String),
    /// It is not what it should be.
    #[error("{0}")]
    Unfit(String),
}

impl BackupError {
    /// True if a server that runs on the directory may be the reason, so that a second look may
    /// find it sound.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            BackupError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            BackupError::Damaged(_) => true,
            BackupError::Unfit(_) => false,
        }
    }
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> BackupError {
        match error {
            ReadError::Io { file, source } => BackupError::Io {
                doing: format!("read {file}"),
                source,
            },
            error => BackupError::Damaged(error.to_string()),
        }
    }
}

impl Reading {
    /// Looks for the newest whole snapshot in the directory `dir`, and where the log ends.
    ///
    /// # Errors
    /// See [`BackupError`]; `Unfit` if it is no data directory, or a start has to complete
    /// something in it first.
    pub fn of(dir: impl AsRef<Path>) -> Result<Reading, BackupError> {
        let dir = dir.as_ref();
        let shown = dir.display();
        let disk = FileDisk::existing(dir).map_err(doing(|| format!("open {shown}")))?;
        let reading = || format!("read {shown}");
        let salt = match Format::read(&disk).map_err(doing(reading))? {
            Format::Known(salt) => salt,
            Format::Absent => {
                let why = format!("{shown} is no data directory: it has no file `format`");
                return Err(BackupError::Unfit(why));
            }
            Format::Foreign(why) => return Err(BackupError::Unfit(why)),
        };
        let names = disk.list().map_err(doing(reading))?;
        let installing = names.iter().any(|name| install::zxid_of(name).is_some());
        let aside = Aside::read(&disk, salt).map_err(doing(reading))?;
        if installing || !matches!(aside, Ok(None)) {
            return Err(BackupError::Unfit(format!(
                "the history in {shown} is being replaced: start a server on it first, which \
                 completes that"
            )));
        }
        let keep = epochs::read_cut(&disk, salt).map_err(doing(reading))?;
        let keep = keep.map_err(|corruption| BackupError::Damaged(corruption.to_string()))?;
        let snapshot = newest_snapshot(&disk, salt, keep)?;
        let segments = segment::list(&disk).map_err(doing(reading))?;
        let mut scan = Scan::new(salt, segments.first().copied().unwrap_or(1), keep);
        let mut bytes = Vec::new();
        let damaged = |corruption| BackupError::Damaged(format!("{corruption}"));
        for index in segments {
            let name = segment::name_of(index);
            disk::read_into(&disk, &name, &mut bytes).map_err(doing(|| format!("read {name}")))?;
            scan.segment(index, &bytes).map_err(damaged)?;
        }
        let extent = scan.finish().map_err(damaged)?;
        let covered = snapshot.unwrap_or_default();
        let (first, last) = match extent.chain.first() {
            Some(first) => (first.previous, extent.last),
            None => (covered, covered),
        };
        if first > covered || covered > last {
            return Err(BackupError::Damaged(format!(
                "the log in {shown} goes from {first} to {last}, and the newest whole snapshot \
                 is as of {covered}"
            )));
        }
        Ok(Reading {
            disk,
            salt,
            snapshot,
            chain: extent.chain,
            end: extent.end,
        })
    }

    /// The salt of the log.
    #[must_use]
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// The snapshot; `None` if the log reaches back to the beginning.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn snapshot(&self) -> Result<Option<SnapshotReader<FileDisk>>, BackupError> {
        let open = |zxid| SnapshotReader::open(&self.disk, zxid, self.salt);
        Ok(self.snapshot.map(open).transpose()?)
    }

    /// The transactions that follow the snapshot.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn entries(&self) -> Result<Option<Entries<FileDisk>>, BackupError> {
        if self.chain.is_empty() {
            return Ok(None);
        }
        let after = self.snapshot.unwrap_or_default();
        let (disk, chain) = (self.disk.clone(), &self.chain);
        Ok(Some(Entries::new(disk, self.salt, chain, self.end, after)?))
    }
}

fn newest_snapshot(
    disk: &FileDisk,
    salt: u64,
    keep: Option<Zxid>,
) -> Result<Option<Zxid>, BackupError> {
    let zxids = snapshots::list(disk).map_err(doing(|| "list the snapshots".to_owned()))?;
    let kept = |zxid: &Zxid| keep.is_none_or(|keep| *zxid <= keep);
    for zxid in zxids.into_iter().filter(kept) {
        match snapshots::verify(disk, zxid, salt) {
            Ok(_) => return Ok(Some(zxid)),
            // Trimmed away since it was listed, or read badly: not to be passed over.
            Err(error @ ReadError::Io { .. }) => return Err(error.into()),
            // The log reaches back to the one before.
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Writes a backup. Dropped unfinished, it leaves nothing.
pub struct BackupWriter {
    writer: SnapshotWriter<FileDisk>,
    name: String,
}

impl BackupWriter {
    /// Begins a backup of the state as of `zxid` in the file `path`, which is there, in place of
    /// any other of that name, once it is finished.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn create(path: &Path, zxid: Zxid, salt: u64) -> Result<BackupWriter, BackupError> {
        let (disk, name) = at(path)?;
        let draft = format!("{name}.tmp");
        let made = Generation::default().made();
        let writer = SnapshotWriter::new(disk, zxid, salt, draft, made);
        let writer = writer.map_err(doing(|| format!("write {}", path.display())))?;
        Ok(BackupWriter { writer, name })
    }

    /// Makes it durable under its name, and returns its length in bytes of content.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn finish(self) -> Result<u64, BackupError> {
        let name = self.name;
        let sealed = self.writer.seal_as(&name);
        sealed.map_err(doing(|| format!("write {name}")))
    }
}

impl Write for BackupWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    /// Does nothing: only [`BackupWriter::finish`] makes anything last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a backup: as of when it is, and its content.
///
/// # Errors
/// See [`BackupError`]; `Unfit` if the file does not begin like one.
pub fn open_backup(path: &Path) -> Result<(Zxid, SnapshotReader<FileDisk>), BackupError> {
    let (disk, name) = at(path)?;
    let reading = || format!("read {}", path.display());
    let head = disk::read_head(&disk, &name, snapshots::HEADER as u64).map_err(doing(reading))?;
    let unfit = || BackupError::Unfit(format!("{} is no backup", path.display()));
    if head.len() < snapshots::HEADER {
        return Err(unfit());
    }
    let zxid = Zxid::new(Epoch(u64_at(&head, 16)), u64_at(&head, 24));
    match SnapshotReader::open_file(&disk, name, zxid, u64_at(&head, 32)) {
        Ok(reader) => Ok((zxid, reader)),
        Err(error @ ReadError::Io { .. }) => Err(error.into()),
        // Its magic, version or CRC.
        Err(_) => Err(unfit()),
    }
}

/// Makes a data directory in `dir`, which must be missing or empty, that holds what `content`
/// writes as the state as of `zxid`. `epoch` is the newest that was accepted there.
///
/// The file `format` is written last: what was interrupted is no data directory.
///
/// # Errors
/// See [`BackupError`].
///
/// # Panics
/// If `epoch` is below that of `zxid`.
pub fn make_dir(
    dir: &Path,
    zxid: Zxid,
    epoch: Epoch,
    salt: u64,
    content: impl FnOnce(&mut dyn Write) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    assert!(epoch >= zxid.epoch, "epoch {epoch} is below {zxid}");
    let shown = dir.display();
    let writing = || format!("write to {shown}");
    let disk = FileDisk::create(dir).map_err(doing(writing))?;
    if !disk.list().map_err(doing(writing))?.is_empty() {
        let why = format!("{shown} is not empty: a backup is restored into a new directory");
        return Err(BackupError::Unfit(why));
    }
    let draft = format!("{}.tmp", snapshots::name_of(zxid));
    let made = Generation::default().made();
    let writer = SnapshotWriter::new(disk.clone(), zxid, salt, draft, made);
    let mut writer = writer.map_err(doing(writing))?;
    content(&mut writer)?;
    writer.finish().map_err(doing(writing))?;
    let epochs = Epochs {
        accepted: epoch,
        current: zxid.epoch,
        incarnation: Incarnation(0),
    };
    epochs.write(&disk, salt).map_err(doing(writing))?;
    Format::write(&disk, salt).map_err(doing(writing))
}

/// The directory of a file, and its name there.
fn at(path: &Path) -> Result<(FileDisk, String), BackupError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| BackupError::Unfit(format!("{} is no name of a file", path.display())))?;
    let disk = FileDisk::existing(parent);
    let disk = disk.map_err(doing(|| format!("open {}", parent.display())))?;
    Ok((disk, name.to_owned()))
}

fn doing(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::Io {
        doing: what(),
        source,
    }
}
