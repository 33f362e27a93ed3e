//! `systole snapshot save|verify|restore`: backup and restore of a data directory.
//!
//! A backup is the state as of one transaction: the newest whole snapshot of the directory, and
//! on top of it what follows in the log, carried out here as a server would.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Failure;
use crate::group::{Applied, Restore, Settings, State};
use crate::log::{
    BackupError, BackupWriter, FileDisk, Log, Reading, Settings as LogSettings, SnapshotReader,
    make_dir, open_backup, verify,
};
use crate::time::Millis;
use crate::types::Epoch;
use crate::zab::app;

/// What can be done.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Saves what a data directory holds; a server may be running on it.
    Save {
        /// The backup, made or replaced.
        file: PathBuf,
        /// The data directory.
        #[arg(
            long,
            value_name = "DIR",
            env = "SYSTOLE_DATA_DIR",
            default_value = "./systole-data"
        )]
        data_dir: PathBuf,
    },
    /// Checks every byte of a backup and says what it holds.
    Verify {
        /// The backup.
        file: PathBuf,
    },
    /// Makes a data directory of a backup, for a server alone or the first of a new ensemble.
    Restore {
        /// The backup.
        file: PathBuf,
        /// The data directory, which must be missing or empty.
        dir: PathBuf,
    },
}

/// Runs one of them.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let done = match command {
        Command::Save { file, data_dir } => save(file, data_dir),
        Command::Verify { file } => load(file).map(|state| holds(&state)),
        Command::Restore { file, dir } => restore(file, dir),
    };
    let said = done.map_err(|error| match error {
        BackupError::Unfit(why) => Failure::usage(why),
        error => Failure::fatal(error),
    })?;
    // If nobody reads it, nobody is missing.
    let _ = writeln!(io::stdout(), "{said}");
    Ok(())
}

fn save(file: &Path, dir: &Path) -> Result<String, BackupError> {
    let mut looks = 0;
    let (state, salt) = loop {
        match read(dir) {
            Ok(found) => break found,
            // A server that runs there may have written or removed what was just being read.
            Err(error) if error.is_passing() && looks < LOOKS_MAX => looks += 1,
            Err(error) => return Err(error),
        }
    };
    let mut writer = BackupWriter::create(file, state.applied(), salt)?;
    write_state(&state, &mut writer, file)?;
    let bytes = writer.finish()?;
    // What is not read back is no backup.
    let read_back = load(file)?;
    assert_eq!(
        read_back.digest(),
        state.digest(),
        "a backup of another state"
    );
    Ok(format!(
        "{}, {bytes} bytes in {}",
        holds(&state),
        file.display()
    ))
}

/// The state that a data directory holds, and the salt of its log.
fn read(dir: &Path) -> Result<(State, u64), BackupError> {
    let reading = Reading::of(dir)?;
    let mut state = match reading.snapshot()? {
        Some(reader) => state_of(reader, dir)?,
        None => State::new(settings()),
    };
    let mut applied = Applied::default();
    if let Some(mut entries) = reading.entries()? {
        while let Some(entry) = entries.next()? {
            let zxid = entry.zxid;
            let damaged = |why: &dyn std::fmt::Display| {
                BackupError::Damaged(format!("transaction {zxid} in {}: {why}", dir.display()))
            };
            let (_, txn) = app::transaction(entry.payload).map_err(|why| damaged(&why))?;
            let done = state.apply(zxid, txn, &mut applied);
            done.map_err(|why| damaged(&why))?;
        }
    }
    Ok((state, reading.salt()))
}

/// The state in a backup, every byte of which is checked.
fn load(file: &Path) -> Result<State, BackupError> {
    let (zxid, reader) = open_backup(file)?;
    let state = state_of(reader, file)?;
    if state.applied() != zxid {
        let found = state.applied();
        let why = format!("{} says {zxid} and holds {found}", file.display());
        return Err(BackupError::Damaged(why));
    }
    Ok(state)
}

fn state_of(mut reader: SnapshotReader<FileDisk>, path: &Path) -> Result<State, BackupError> {
    let damaged =
        |why: &dyn std::fmt::Display| BackupError::Damaged(format!("{}: {why}", path.display()));
    let mut restore = Restore::new(settings());
    while let Some(piece) = reader.next_chunk()? {
        restore.feed(piece).map_err(|why| damaged(&why))?;
    }
    restore.finish().map_err(|why| damaged(&why))
}

fn write_state(state: &State, out: &mut dyn Write, path: &Path) -> Result<(), BackupError> {
    let (mut snapshot, mut piece) = (state.snapshot(), Vec::new());
    loop {
        let more = snapshot.write_into(&mut piece, PIECE_BYTES);
        out.write_all(&piece).map_err(|source| BackupError::Io {
            doing: format!("write {}", path.display()),
            source,
        })?;
        piece.clear();
        if !more {
            return Ok(());
        }
    }
}

fn restore(file: &Path, dir: &Path) -> Result<String, BackupError> {
    let state = load(file)?;
    let zxid = state.applied();
    // The ensemble that the backup is of may have gone on, in later epochs, and may do so yet.
    // Its session ids have the epoch in them: the restored one begins far above, so that no id
    // is given twice and fencing tokens go on growing.
    let epoch = Epoch(zxid.epoch.0 + EPOCHS_SKIPPED);
    make_dir(dir, zxid, epoch, random(), |out| {
        write_state(&state, out, dir)
    })?;
    begin_log(dir)?;
    let checked = verify(dir, &mut io::sink());
    checked.map_err(|error| BackupError::Damaged(error.to_string()))?;
    Ok(format!(
        "{} in {}; start it with: systole serve --data-dir {}",
        holds(&state),
        dir.display(),
        dir.display()
    ))
}

/// Begins the log in a directory that has a snapshot, as the first start of a server alone would.
/// One of an ensemble takes a snapshot without a log for damage, sets it aside, and would have
/// the others, which have nothing, say what the state is.
fn begin_log(dir: &Path) -> Result<(), BackupError> {
    let disk = FileDisk::existing(dir).map_err(|source| BackupError::Io {
        doing: format!("open {}", dir.display()),
        source,
    })?;
    let opened = Log::open(disk, LogSettings::new(random()));
    opened
        .map(drop)
        .map_err(|error| BackupError::Damaged(error.to_string()))
}

fn holds(state: &State) -> String {
    format!(
        "as of {}: {} groups, {} members",
        state.applied(),
        state.groups_len(),
        state.members_len()
    )
}

fn settings() -> Settings {
    Settings {
        // No transaction is made here, so none takes it.
        default_timeout: Millis::from_secs(10),
        seeds: std::array::from_fn(|_| random()),
    }
}

/// A random number from the system, by way of the standard library's hasher.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// How often a directory is looked at anew that a server may be writing to.
const LOOKS_MAX: usize = 5;
/// Bytes handed on at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Elections that the original may have had since the backup, with plenty to spare.
const EPOCHS_SKIPPED: u64 = 1 << 16;
