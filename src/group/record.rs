//! What the state keeps of a group, and of one that was removed.

use std::sync::Arc;

use super::members::Members;
use super::ordered::Keyed;
use crate::types::{GroupVersion, Zxid};

/// A group, shared between the state, snapshots and documents; copied before it is changed
/// while shared.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) name: Arc<[u8]>,
    pub(super) version: GroupVersion,
    /// How many of `members` are active.
    pub(super) active: u32,
    /// How many are not: they have a config.
    pub(super) inactive: u32,
    pub(super) config: Option<Arc<Config>>,
    pub(super) members: Members,
}

impl Group {
    /// Active and inactive members together.
    pub(super) fn len(&self) -> u64 {
        u64::from(self.active) + u64::from(self.inactive)
    }

    pub(super) fn summary(&self) -> GroupSummary<'_> {
        GroupSummary {
            name: &self.name,
            version: self.version,
            active: self.active,
            inactive: self.inactive,
        }
    }
}

impl Keyed for Group {
    fn key(&self) -> &[u8] {
        &self.name
    }
}

/// A group's own config.
pub(super) struct Config {
    pub(super) version: u64,
    /// True if the bytes are a JSON object or array and are shown as such.
    pub(super) json: bool,
    pub(super) bytes: Box<[u8]>,
}

impl Config {
    pub(super) fn view(&self) -> ConfigView<'_> {
        ConfigView {
            bytes: &self.bytes,
            version: self.version,
            json: self.json,
        }
    }
}

/// A config of a group or a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigView<'a> {
    /// As they were written.
    pub bytes: &'a [u8],
    /// The config's own version, its `ETag`.
    pub version: u64,
    /// True if the bytes are a JSON object or array.
    pub json: bool,
}

/// A group as the list of groups shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSummary<'a> {
    /// The group's name.
    pub name: &'a [u8],
    /// Its version.
    pub version: GroupVersion,
    /// How many members are active.
    pub active: u32,
    /// How many are configured and not active.
    pub inactive: u32,
}

/// What is left of a removed group.
#[derive(Clone)]
pub(super) struct Tombstone {
    pub(super) name: Arc<[u8]>,
    /// The last version of the group.
    pub(super) version: GroupVersion,
    /// The transaction that removed it; the oldest tombstone is dropped first.
    pub(super) removed_by: Zxid,
}

impl Keyed for Tombstone {
    fn key(&self) -> &[u8] {
        &self.name
    }
}
