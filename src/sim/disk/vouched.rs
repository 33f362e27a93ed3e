//! What the disk itself says was durable.

use super::SimDisk;
use crate::log::disk::Disk as _;
use crate::log::record::{self, Found, Header, Kind, Position};
use crate::log::segment::{self, FIRST_RECORD};
use crate::types::Zxid;

impl SimDisk {
    /// The last transaction that any record of the log on this disk states to have been synced;
    /// zero while a cut, an install or a setting aside is under way, since all may go then.
    ///
    /// Counted from the bytes, apart from how the log itself recovers.
    #[must_use]
    pub fn vouched(&self) -> Zxid {
        let names = self.list().unwrap_or_default();
        let changing =
            |name: &String| name == "truncate" || name == "aside" || name.starts_with("install-");
        if names.iter().any(changing) {
            return Zxid::ZERO;
        }
        let mut segments = Vec::new();
        for name in names {
            if let Some(index) = segment::index_of(&name) {
                segments.push((index, self.bytes(&name)));
            }
        }
        let synced = segments
            .iter()
            .flat_map(|(index, bytes)| headers(*index, bytes).map(|header| header.durable));
        let synced = synced.max().unwrap_or_default();
        let vouched = segments
            .iter()
            .filter_map(|(index, bytes)| last_before(*index, bytes, synced));
        vouched.max().unwrap_or_default()
    }
}

/// Every header of a segment whose CRC matches.
fn headers(index: u32, bytes: &[u8]) -> impl Iterator<Item = Header> {
    let mut from = FIRST_RECORD;
    std::iter::from_fn(move || {
        let (at, header) = record::find_header(bytes, salt(bytes)?, index, from)?;
        from = at + record::ALIGN;
        Some(header)
    })
}

/// The last transaction of a segment, or before it, that ends at or before `end`.
fn last_before(index: u32, bytes: &[u8], end: Position) -> Option<Zxid> {
    let (mut offset, mut last) = (FIRST_RECORD, None);
    loop {
        match record::read_at(bytes, salt(bytes)?, index, offset) {
            Found::Record(header, _, next) if Position::new(index, next as u32) <= end => {
                if !matches!(header.kind, Kind::Begin | Kind::Txn) {
                    return last;
                }
                (offset, last) = (next, Some(header.zxid));
            }
            _ => return last,
        }
    }
}

/// The log's salt, as the segment has it.
fn salt(bytes: &[u8]) -> Option<u64> {
    let salt = bytes.get(24..32)?.try_into().ok()?;
    Some(u64::from_le_bytes(salt))
}
