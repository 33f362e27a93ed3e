//! A segment: one preallocated file that holds a stretch of the log.
//!
//! ```text
//! offset size field
//!      0    8 magic      "SYSTLOG\0"
//!      8    4 version    1
//!     12    4 index      of the segment: 1, 2, 3 …, as in its name
//!     16    8 capacity   length of the file, bytes
//!     24    8 salt       of the log; the same in all segments
//!     32    4 CRC-32     of bytes 0..32
//!     36   28 zero
//!     64      records; the first is a `Begin`
//! ```
//!
//! Integers are little-endian. A segment is made under a temporary name, filled with zeroes to
//! its full length, given its header, synced, and only then renamed. So a file with a segment's
//! name and a bad header or another length is never the work of a crash: it is damage.

use super::disk::{Disk, Flush as _, Segment as _};
use super::error::Corruption;
use super::record::{HEADER_BYTES, Header, Kind, Position, u32_at, u64_at};
use crate::types::Zxid;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes before the first record.
pub const FIRST_RECORD: usize = 64;

/// Bytes a segment cannot do without: its header, a `Begin` and room for a mark.
pub(super) const OVERHEAD: usize = FIRST_RECORD + 2 * HEADER_BYTES;

const MAGIC: &[u8; 8] = b"SYSTLOG\0";
const VERSION: u32 = 1;
const PREFIX: &str = "segment-";

/// The name of the file of segment `index`.
#[must_use]
pub fn name_of(index: u32) -> String {
    format!("{PREFIX}{index:010}")
}

/// The index of the segment with this file name; `None` if it is no segment's name.
#[must_use]
pub fn index_of(name: &str) -> Option<u32> {
    let index = name.strip_prefix(PREFIX)?.parse().ok()?;
    (name_of(index) == name).then_some(index)
}

/// The indexes of all segments, ascending.
pub(super) fn list<D: Disk>(disk: &D) -> io::Result<Vec<u32>> {
    let mut found: Vec<u32> = disk
        .list()?
        .iter()
        .filter_map(|name| index_of(name))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The header of a segment's file.
#[must_use]
pub(super) fn encode_header(index: u32, capacity: u32, salt: u64) -> [u8; FIRST_RECORD] {
    let mut bytes = [0; FIRST_RECORD];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&index.to_le_bytes());
    bytes[16..24].copy_from_slice(&u64::from(capacity).to_le_bytes());
    bytes[24..32].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32fast::hash(&bytes[0..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks the header of segment `index`, of which `head` is the beginning, in a file of
/// `length` bytes.
///
/// # Errors
/// `Corruption` with the first field that is wrong.
pub(super) fn check_header(
    head: &[u8],
    length: u64,
    index: u32,
    salt: u64,
) -> Result<(), Corruption> {
    let wrong = |offset: u64, found: String, expected: String| {
        Err(Corruption {
            file: name_of(index),
            offset,
            after: None,
            found,
            expected,
        })
    };
    if head.len() < FIRST_RECORD {
        let expected = format!("at least {FIRST_RECORD} bytes");
        return wrong(length, format!("a file of {length} bytes"), expected);
    }
    let (found, expected) = (u32_at(head, 32), crc32fast::hash(&head[0..32]));
    if &head[0..8] != MAGIC || found != expected || head[36..64] != [0; 28] {
        return wrong(
            0,
            "no segment header".into(),
            "one with a matching CRC".into(),
        );
    }
    let fields = [
        (
            8,
            u64::from(u32_at(head, 8)),
            u64::from(VERSION),
            "format version",
        ),
        (12, u64::from(u32_at(head, 12)), u64::from(index), "index"),
        (24, u64_at(head, 24), salt, "salt"),
        (16, length, u64_at(head, 16), "file length"),
    ];
    for (offset, found, expected, field) in fields {
        if found != expected {
            return wrong(offset, format!("{field} {found}"), format!("{expected}"));
        }
    }
    Ok(())
}

/// A new segment's `Begin` record.
pub(super) fn begin_record(
    index: u32,
    previous: Zxid,
    durable: Position,
    salt: u64,
) -> [u8; HEADER_BYTES] {
    let at = Position::new(index, FIRST_RECORD as u32);
    Header::new(Kind::Begin, previous, durable, b"").encode(salt, at)
}

/// What a new segment shall be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) index: u32,
    pub(super) capacity: u32,
    pub(super) salt: u64,
    /// The zxid it begins after, if that is known: only for the first one of a log.
    pub(super) begin: Option<Zxid>,
}

impl Plan {
    /// Makes the segment here and now.
    pub(super) fn create<D: Disk>(&self, disk: &D) -> io::Result<D::Segment> {
        let draft = self.draft(disk, "tmp")?;
        self.publish(disk, &draft)
    }

    /// Writes a whole, synced segment under a temporary name, and returns that name.
    fn draft<D: Disk>(&self, disk: &D, suffix: &str) -> io::Result<String> {
        let name = format!("{}.{suffix}", name_of(self.index));
        let write = || {
            let mut segment = disk.allocate(&name, u64::from(self.capacity))?;
            let header = encode_header(self.index, self.capacity, self.salt);
            segment.write(0, &header)?;
            if let Some(previous) = self.begin {
                let begin = begin_record(self.index, previous, Position::ZERO, self.salt);
                segment.write(FIRST_RECORD, &begin)?;
            }
            segment.flush().run()
        };
        match write() {
            Ok(()) => Ok(name),
            Err(error) => {
                // Give the space back; the error that matters is the first one.
                let _ = disk.remove(&name);
                Err(error)
            }
        }
    }

    fn publish<D: Disk>(&self, disk: &D, draft: &str) -> io::Result<D::Segment> {
        let name = name_of(self.index);
        disk.rename(draft, &name)?;
        disk.sync_dir()?;
        disk.map(&name)
    }
}

/// The work of making the next segment ahead of need, for a helper thread to do.
pub struct PrepareJob<D: Disk> {
    pub(super) disk: D,
    pub(super) plan: Plan,
    pub(super) slot: Slot<D>,
}

impl<D: Disk> PrepareJob<D> {
    /// Makes the segment and leaves it for the log to find; may take milliseconds.
    ///
    /// If the log needed the segment meanwhile and made it itself, the work is dropped.
    ///
    /// # Errors
    /// What the disk said. The log then tries again itself when it needs the segment, and
    /// fails for good if that fails too; until then it goes on.
    pub fn run(self) -> io::Result<()> {
        let draft = self.plan.draft(&self.disk, "ahead.tmp");
        let mut state = self.slot.lock();
        if !matches!(*state, SlotState::Running) {
            return draft.and_then(|draft| self.disk.remove(&draft));
        }
        match draft.and_then(|draft| self.plan.publish(&self.disk, &draft)) {
            Ok(segment) => {
                *state = SlotState::Ready(segment);
                Ok(())
            }
            Err(error) => {
                *state = SlotState::Failed;
                Err(error)
            }
        }
    }
}

/// Where a [`PrepareJob`] leaves its segment for the log.
///
/// The job publishes the file's final name while it holds the lock, and only if the log has
/// not given up waiting: so a late job can never put an empty file in the place of the
/// segment that the log made and already writes to.
pub(super) struct Slot<D: Disk>(Arc<Mutex<SlotState<D>>>);

pub(super) enum SlotState<D: Disk> {
    /// Nobody works on the next segment.
    Idle,
    /// A job is at it.
    Running,
    /// The segment is there.
    Ready(D::Segment),
    /// The job failed; not tried again before the segment is needed.
    Failed,
}

impl<D: Disk> Slot<D> {
    pub(super) fn new() -> Slot<D> {
        Slot(Arc::new(Mutex::new(SlotState::Idle)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SlotState<D>> {
        // A panic elsewhere ends the process; the state is whole at every step anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn share(&self) -> Slot<D> {
        Slot(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indexes_answer_each_other() {
        assert_eq!(name_of(7), "segment-0000000007");
        assert_eq!(index_of("segment-0000000007"), Some(7));
        for other in [
            "segment-7",
            "segment-0000000007.tmp",
            "segment-99999999999",
            "epochs",
        ] {
            assert_eq!(index_of(other), None, "{other}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_and_every_other_length_is_refused() {
        let good = encode_header(3, 4096, 99);
        assert!(check_header(&good, 4096, 3, 99).is_ok());
        for bit in 0..FIRST_RECORD * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check_header(&bytes, 4096, 3, 99).is_err(), "bit {bit}");
        }
        for length in [0, 63, 64, 4095, 4097] {
            let head = &good[..good.len().min(length as usize)];
            assert!(check_header(head, length, 3, 99).is_err(), "{length}");
        }
        assert!(check_header(&good, 4096, 4, 99).is_err(), "another index");
        assert!(check_header(&good, 4096, 3, 98).is_err(), "another log");
    }
}
