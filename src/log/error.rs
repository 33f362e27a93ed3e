//! What can go wrong with the log, in sentences for the one who must mend it.

use crate::types::Zxid;
use std::fmt;
use std::io;

/// Why the log did not open. Nothing was acknowledged or cut.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server holds the directory.
    #[error(
        "the data directory {dir} is in use by another systole{}: stop it, or give this server \
         its own --data-dir", holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        dir: String,
        /// The other's process id, if it left one.
        holder: Option<String>,
    },
    /// The directory was written by another version, or is not a data directory.
    #[error("the data directory {dir} cannot be used: {reason}")]
    Format {
        /// The directory.
        dir: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk failed.
    #[error("could not {doing} in {dir}: {source}{}", advice(source))]
    Io {
        /// The directory.
        dir: String,
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The log, a snapshot or the epochs are damaged where a crash cannot have damaged them.
    #[error(
        "the data directory {dir} is damaged: {0}. Nothing was changed. `systole log verify {dir}` \
         shows the extent; restore the directory from a backup or a snapshot",
        corruption
    )]
    Corrupt {
        /// The directory.
        dir: String,
        /// What and where.
        corruption: Box<Corruption>,
    },
}

/// Damage that a crash does not explain: where, what is there, and what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The file's name within the data directory.
    pub file: String,
    /// Bytes into the file.
    pub offset: u64,
    /// The last good transaction before the damage, if any was read.
    pub after: Option<Zxid>,
    /// What stands there.
    pub found: String,
    /// What should stand there.
    pub expected: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.file, self.offset)?;
        if let Some(zxid) = self.after {
            write!(f, ", after transaction {zxid}")?;
        }
        write!(f, ": found {}, expected {}", self.found, self.expected)
    }
}

/// Why an entry or a snapshot could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("could not read {file}: {source}")]
    Io {
        /// The file's name within the data directory.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("damaged: {0}")]
    Corrupt(Corruption),
    /// The log begins after what was asked for.
    #[error("the log begins after transaction {first}; what follows {asked} is no longer there")]
    Trimmed {
        /// What was asked for.
        asked: Zxid,
        /// The last transaction that is *not* in the log any more.
        first: Zxid,
    },
    /// The zxid asked for was never logged, though later ones were.
    #[error("transaction {asked} is not in the log, which goes from {before} to {after}")]
    NotThere {
        /// What was asked for.
        asked: Zxid,
        /// The last one before it.
        before: Zxid,
        /// The first one after it.
        after: Zxid,
    },
}

/// Why a transaction was not logged, or the log not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log has failed for good.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The zxid does not follow the last one.
    #[error("transaction {got} does not follow {last}, the last one in the log")]
    ZxidGap {
        /// The last one in the log.
        last: Zxid,
        /// The one that was to be appended.
        got: Zxid,
    },
    /// The payload does not fit a segment.
    #[error("a transaction of {bytes} bytes is longer than the log takes ({max} bytes)")]
    TooLong {
        /// Length of the payload.
        bytes: usize,
        /// The longest that fits.
        max: usize,
    },
    /// There is nothing to cut back to at that zxid.
    #[error("the log cannot be cut after transaction {asked}: {reason}")]
    BadCut {
        /// Where the cut was asked for.
        asked: Zxid,
        /// Why there is no such place.
        reason: String,
    },
}

/// The first failed write or sync. The log takes nothing after it and acknowledges nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "could not {doing}: {reason}{advice}. Nothing is acknowledged after this; the server stops, and a restart reads what really reached the disk"
)]
pub struct Fatal {
    /// What was being done.
    pub doing: String,
    /// What the system said.
    pub reason: String,
    advice: &'static str,
}

impl Fatal {
    pub(super) fn new(doing: impl Into<String>, error: &io::Error) -> Fatal {
        Fatal {
            doing: doing.into(),
            reason: error.to_string(),
            advice: advice(error),
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space and start again"
        }
        io::ErrorKind::PermissionDenied => "; the server needs to own the directory",
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system writable",
        _ => "",
    }
}
