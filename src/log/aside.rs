//! Putting a damaged history aside, so that a server of an ensemble can begin again without
//! one and be refilled by the others.
//!
//! Nothing is deleted: every file of the history is renamed to end in `.aside-N`, and whoever
//! wants to salvage something, or needs the space, deals with it. A file `aside` tells of the
//! work under way; a start that finds it does the rest.

use super::disk::{self, Disk};
use super::epochs::{ASIDE_FILE, Aside, EPOCHS_FILE, Epochs, Format, TRUNCATE_FILE};
use super::error::OpenError;
use super::open::{at_open, take_lock};
use super::{install, segment, snapshots};
use crate::types::{Epoch, Incarnation};
use std::io;

/// A history that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// What the names of its files end in.
    pub suffix: String,
    /// Its files, by the names they have now.
    pub files: Vec<String>,
    /// The epochs the server goes on with. The current one is 0: it holds nothing, and says so.
    pub epochs: Epochs,
}

/// Puts the history in the directory aside, durably on return: [`super::Log::open`] then begins
/// an empty log. For when opening said [`OpenError::Corrupt`], and only where other servers
/// hold what was committed: alone, a server loses it all.
///
/// The accepted epoch stays what it was, and the incarnation, but for being raised to `floor`.
/// If the file `epochs` is itself damaged or missing, the accepted epoch is lost and becomes 0,
/// as on a wiped disk; and since an incarnation must never be used twice, `floor` should then
/// be above any that was: the seconds since 1970 are, as long as no server starts once a
/// second.
///
/// # Errors
/// `Locked` and `Format` change nothing; `Io` may leave the rest to the next start.
pub fn set_aside<D: Disk>(disk: &D, floor: Incarnation) -> Result<SetAside, OpenError> {
    let _lock = take_lock(disk)?;
    at_open(disk, "sync the directory", disk.sync_dir())?;
    let salt = match at_open(disk, "read the format", Format::read(disk))? {
        Format::Known(salt) => salt,
        Format::Absent => return Err(not_ours(disk, "its file `format` is missing".into())),
        Format::Foreign(reason) => return Err(not_ours(disk, reason)),
    };
    let begun = at_open(disk, "read what is set aside", Aside::read(disk, salt))?;
    let aside = match begun {
        Ok(Some(aside)) => aside,
        // A damaged note is replaced: its number may be in use, and the next one is not.
        Ok(None) | Err(_) => {
            let number = at_open(disk, "list the directory", free_number(disk))?;
            let aside = Aside { number, floor };
            at_open(
                disk,
                "begin to set the history aside",
                aside.write(disk, salt),
            )?;
            aside
        }
    };
    at_open(disk, "set the history aside", complete(disk, salt, aside))
}

/// Does what the note says, which is durable.
///
/// May be interrupted anywhere and done again.
pub(super) fn complete<D: Disk>(disk: &D, salt: u64, aside: Aside) -> io::Result<SetAside> {
    let suffix = suffix_of(aside.number);
    let epochs = Epochs::read(disk, salt)?;
    for name in disk.list()? {
        if is_history(&name) || (name == EPOCHS_FILE && epochs.is_err()) {
            disk.rename(&name, &format!("{name}{suffix}"))?;
        }
    }
    let kept = epochs.ok().flatten().unwrap_or_default();
    let epochs = Epochs {
        accepted: kept.accepted,
        current: Epoch(0),
        incarnation: kept.incarnation.max(aside.floor),
    };
    // This syncs the directory, so the renames are durable too before the note is gone.
    epochs.write(disk, salt)?;
    disk::remove(disk, ASIDE_FILE)?;
    let mut files = disk.list()?;
    files.retain(|name| name.ends_with(&suffix));
    files.sort_unstable();
    Ok(SetAside {
        suffix,
        files,
        epochs,
    })
}

/// True for what makes up the history: whatever of it stayed would be taken for the new one.
fn is_history(name: &str) -> bool {
    segment::index_of(name).is_some()
        || snapshots::zxid_of(name).is_some()
        || install::zxid_of(name).is_some()
        || name == TRUNCATE_FILE
}

/// A number under which nothing was set aside yet.
fn free_number<D: Disk>(disk: &D) -> io::Result<u64> {
    let names = disk.list()?;
    let last = names.iter().filter_map(|name| number_of(name)).max();
    let last = last.unwrap_or(0);
    Ok(last.saturating_add(1))
}

/// True for a file of a history that was set aside.
pub(super) fn is_aside(name: &str) -> bool {
    number_of(name).is_some()
}

fn number_of(name: &str) -> Option<u64> {
    name.rsplit_once(SUFFIX)?.1.parse().ok()
}

fn suffix_of(number: u64) -> String {
    format!("{SUFFIX}{number}")
}

const SUFFIX: &str = ".aside-";

fn not_ours<D: Disk>(disk: &D, reason: String) -> OpenError {
    OpenError::Format {
        dir: disk.describe(),
        reason,
    }
}
