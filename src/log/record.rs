//! One record of the log: how it lies in bytes, written and read back, over plain slices.
//!
//! All integers are little-endian. A record starts at a multiple of [`ALIGN`] bytes.
//!
//! ```text
//! offset size field
//!      0    4 header CRC    CRC-32 of bytes 4..40, started from (salt, position)
//!      4    4 payload CRC   CRC-32 of the payload
//!      8    4 length        of the payload, bytes
//!     12    4 kind          "TXN1", "MARK", "BEGN" or "NEXT"
//!     16    8 epoch         of the zxid
//!     24    8 counter       of the zxid
//!     32    8 durable       everything before this position was synced when this was written:
//!                           segment in the upper 32 bits, offset in the lower
//!     40    n payload
//!   40+n    p zero          up to the next multiple of 8
//! ```
//!
//! The header CRC covers the payload CRC, so the two together cover header and payload. They
//! are apart because recovery must be able to believe a header, and the `durable` in it, even
//! where the payload behind it was torn.
//!
//! The CRC starts from the log's random salt and the record's own position. So bytes that a
//! client chose, or a record that the disk put in the wrong place, never pass for a record.

use crate::types::{Epoch, Zxid};
use std::fmt;

/// Bytes of a record before its payload.
pub const HEADER_BYTES: usize = 40;

/// Records start at multiples of this many bytes within their segment.
pub const ALIGN: usize = 8;

/// A place in the log: which segment, and how many bytes into it.
///
/// The order of positions is the order of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Index of the segment, 1 or more.
    pub segment: u32,
    /// Bytes from the start of the segment's file.
    pub offset: u32,
}

impl Position {
    /// Before every record.
    pub const ZERO: Position = Position::new(0, 0);

    /// Builds a position from its two halves.
    #[must_use]
    pub const fn new(segment: u32, offset: u32) -> Position {
        Position { segment, offset }
    }

    /// Both halves in one integer, in the order of positions.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.segment as u64) << 32) | self.offset as u64
    }

    /// The inverse of [`Position::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Position {
        Position::new((bits >> 32) as u32, bits as u32)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} byte {}", self.segment, self.offset)
    }
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A transaction; its payload is opaque here.
    Txn,
    /// Says only how far the log is synced; the next record overwrites it.
    Mark,
    /// The first record of each segment: its zxid is the last one of all earlier segments.
    Begin,
    /// The last record of a full segment: the log goes on in the next one, which is there.
    Next,
}

impl Kind {
    const fn code(self) -> u32 {
        u32::from_le_bytes(match self {
            Kind::Txn => *b"TXN1",
            Kind::Mark => *b"MARK",
            Kind::Begin => *b"BEGN",
            Kind::Next => *b"NEXT",
        })
    }

    fn of(code: u32) -> Option<Kind> {
        [Kind::Txn, Kind::Mark, Kind::Begin, Kind::Next]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// The fields of a record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record is for.
    pub kind: Kind,
    /// Bytes of payload.
    pub length: u32,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
    /// Of the transaction; for the other kinds, that of the last transaction before.
    pub zxid: Zxid,
    /// Everything before this was synced when the record was written.
    pub durable: Position,
}

impl Header {
    /// The header of a record with this payload.
    ///
    /// # Panics
    /// If the payload is 4 GiB or longer; the log bounds it far below.
    #[must_use]
    pub fn new(kind: Kind, zxid: Zxid, durable: Position, payload: &[u8]) -> Header {
        Header {
            kind,
            length: u32::try_from(payload.len()).expect("the log bounds payloads"),
            payload_crc: crc32fast::hash(payload),
            zxid,
            durable,
        }
    }

    /// The header as bytes, bound by its CRC to the log with `salt` and to the place `at`.
    #[must_use]
    pub fn encode(&self, salt: u64, at: Position) -> [u8; HEADER_BYTES] {
        debug_assert!(
            self.durable <= at,
            "{} claims beyond itself: {at}",
            self.durable
        );
        let mut bytes = [0; HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.zxid.epoch.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.zxid.counter.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable.to_bits().to_le_bytes());
        let crc = header_crc(&bytes, salt, at);
        bytes[0..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at `at`, of which `bytes` are the first 40 bytes.
    ///
    /// # Errors
    /// `Damage` if the CRC does not match, or a field has a value that is never written.
    pub fn decode(bytes: &[u8; HEADER_BYTES], salt: u64, at: Position) -> Result<Header, Damage> {
        let found = u32_at(bytes, 0);
        let expected = header_crc(bytes, salt, at);
        if found != expected {
            return Err(Damage::HeaderCrc { found, expected });
        }
        let header = Header {
            kind: Kind::of(u32_at(bytes, 12)).ok_or(Damage::Field("kind"))?,
            length: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 4),
            zxid: Zxid::new(Epoch(u64_at(bytes, 16)), u64_at(bytes, 24)),
            durable: Position::from_bits(u64_at(bytes, 32)),
        };
        // A record cannot vouch for itself or for what comes after it.
        if header.durable > at {
            return Err(Damage::Field("durable"));
        }
        Ok(header)
    }
}

/// What stands at a place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A record whose two CRCs match, and the offset at which the next one starts.
    Record(Header, &'a [u8], usize),
    /// Nothing: zeroes where a header would be, or no room for one.
    Empty,
    /// Bytes that are no whole record.
    Damaged(Damage),
}

/// Why bytes are no whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The header's CRC does not match.
    HeaderCrc {
        /// What stands there.
        found: u32,
        /// What the other bytes ask for.
        expected: u32,
    },
    /// The payload's CRC does not match.
    PayloadCrc {
        /// What the payload has.
        found: u32,
        /// What the header says.
        expected: u32,
    },
    /// The header's CRC matches, but this field has a value that is never written.
    Field(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::HeaderCrc { found, expected } => {
                write!(
                    f,
                    "a header with CRC {found:08x} where its bytes give {expected:08x}"
                )
            }
            Damage::PayloadCrc { found, expected } => {
                write!(
                    f,
                    "a payload with CRC {found:08x} where its header says {expected:08x}"
                )
            }
            Damage::Field(name) => write!(f, "a header with an impossible {name}"),
        }
    }
}

/// Reads what stands at `offset` of the segment `segment`, whose whole file is `bytes`.
///
/// `offset` may be anything; a place without room for a header is [`Found::Empty`].
#[must_use]
pub fn read_at(bytes: &[u8], salt: u64, segment: u32, offset: usize) -> Found<'_> {
    let Some(head) = header_bytes(bytes, offset) else {
        return Found::Empty;
    };
    if head == &[0; HEADER_BYTES] {
        return Found::Empty;
    }
    let Ok(offset32) = u32::try_from(offset) else {
        return Found::Empty;
    };
    let header = match Header::decode(head, salt, Position::new(segment, offset32)) {
        Ok(header) => header,
        Err(damage) => return Found::Damaged(damage),
    };
    let start = offset + HEADER_BYTES;
    let Some(payload) = bytes[start..].get(..header.length as usize) else {
        return Found::Damaged(Damage::Field("length"));
    };
    let found = crc32fast::hash(payload);
    if found != header.payload_crc {
        let expected = header.payload_crc;
        return Found::Damaged(Damage::PayloadCrc { found, expected });
    }
    Found::Record(header, payload, offset + span(payload.len()))
}

/// The next place at or after `offset` where a header's CRC matches, and that header.
///
/// Payloads are not looked at: a header alone is believed, because its CRC covers it.
/// Linear in the bytes left; places whose `kind` is wrong cost one comparison.
#[must_use]
pub fn find_header(
    bytes: &[u8],
    salt: u64,
    segment: u32,
    offset: usize,
) -> Option<(usize, Header)> {
    let mut offset = offset.next_multiple_of(ALIGN);
    while let Some(head) = header_bytes(bytes, offset) {
        if Kind::of(u32_at(head, 12)).is_some() {
            let at = Position::new(segment, u32::try_from(offset).ok()?);
            if let Ok(header) = Header::decode(head, salt, at) {
                return Some((offset, header));
            }
        }
        offset += ALIGN;
    }
    None
}

/// Bytes a record with a payload of `length` bytes takes, padding included.
#[must_use]
pub const fn span(length: usize) -> usize {
    HEADER_BYTES + length.next_multiple_of(ALIGN)
}

/// Up to where `bytes` is not all zero; a page at a time, since most of a segment often is.
pub(super) fn nonzero_end(bytes: &[u8]) -> usize {
    let mut end = bytes.len();
    for page in bytes.rchunks(4096) {
        if page.iter().fold(0, |any, &byte| any | byte) != 0 {
            let last = page.iter().rposition(|&byte| byte != 0).unwrap_or(0);
            return end - page.len() + last + 1;
        }
        end -= page.len();
    }
    0
}

fn header_bytes(bytes: &[u8], offset: usize) -> Option<&[u8; HEADER_BYTES]> {
    bytes.get(offset..)?.first_chunk()
}

fn header_crc(bytes: &[u8; HEADER_BYTES], salt: u64, at: Position) -> u32 {
    // Any mixing will do that makes equal bytes differ between places and between logs.
    let mixed = (salt ^ at.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut hasher = crc32fast::Hasher::new_with_initial((mixed >> 32) as u32);
    hasher.update(&bytes[4..]);
    hasher.finalize()
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let part = bytes[offset..offset + 4].try_into();
    u32::from_le_bytes(part.expect("a slice of four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let part = bytes[offset..offset + 8].try_into();
    u64::from_le_bytes(part.expect("a slice of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x5a17;

    fn segment_with(payload: &[u8], offset: usize) -> Vec<u8> {
        let at = Position::new(3, offset as u32);
        let zxid = Zxid::new(Epoch(2), 7);
        let header = Header::new(Kind::Txn, zxid, Position::new(3, 8), payload);
        let mut bytes = vec![0; offset + span(payload.len()) + 64];
        bytes[offset..offset + HEADER_BYTES].copy_from_slice(&header.encode(SALT, at));
        bytes[offset + HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
        bytes
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let bytes = segment_with(b"hello", 16);
        let Found::Record(header, payload, next) = read_at(&bytes, SALT, 3, 16) else {
            panic!("no record");
        };
        assert_eq!(payload, b"hello");
        assert_eq!(header.zxid, Zxid::new(Epoch(2), 7));
        assert_eq!(header.durable, Position::new(3, 8));
        assert_eq!(next, 16 + 40 + 8);
        assert_eq!(read_at(&bytes, SALT, 3, next), Found::Empty);
    }

    #[test]
    fn the_layout_is_the_one_drawn_above() {
        let bytes = segment_with(b"x", 16);
        assert_eq!(&bytes[24..28], &1_u32.to_le_bytes());
        assert_eq!(&bytes[28..32], b"TXN1");
        assert_eq!(&bytes[32..40], &2_u64.to_le_bytes());
        assert_eq!(&bytes[40..48], &7_u64.to_le_bytes());
        assert_eq!(&bytes[48..56], &((3_u64 << 32) | 8).to_le_bytes());
        assert_eq!(bytes[56], b'x');
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let good = segment_with(b"payload!", 16);
        for bit in 16 * 8..(16 + span(8)) * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(read_at(&bytes, SALT, 3, 16), Found::Damaged(_)),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_record_in_another_place_segment_or_log_is_not_one() {
        let mut bytes = segment_with(b"moved", 16);
        assert!(
            matches!(read_at(&bytes, SALT, 4, 16), Found::Damaged(_)),
            "another segment"
        );
        assert!(
            matches!(read_at(&bytes, SALT + 1, 3, 16), Found::Damaged(_)),
            "another log"
        );
        bytes.copy_within(16..16 + span(5), 24);
        assert!(
            matches!(read_at(&bytes, SALT, 3, 24), Found::Damaged(_)),
            "another offset"
        );
    }

    #[test]
    fn a_header_that_vouches_for_what_follows_it_is_refused() {
        let at = Position::new(1, 64);
        let header = Header::new(Kind::Mark, Zxid::ZERO, at, b"");
        assert!(Header::decode(&header.encode(SALT, at), SALT, at).is_ok());
        let mut bytes = header.encode(SALT, at);
        bytes[32] += 1;
        let crc = header_crc(&bytes, SALT, at);
        bytes[0..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            Header::decode(&bytes, SALT, at),
            Err(Damage::Field("durable"))
        );
    }

    #[test]
    fn every_truncation_reads_as_empty_or_damaged_and_never_past_the_end() {
        let bytes = segment_with(b"payload!", 16);
        for length in 0..16 + HEADER_BYTES + 8 {
            assert!(!matches!(
                read_at(&bytes[..length], SALT, 3, 16),
                Found::Record(..)
            ));
        }
        assert_eq!(read_at(&bytes, SALT, 3, usize::MAX), Found::Empty);
    }

    #[test]
    fn a_header_is_found_behind_damage_though_its_payload_is_torn() {
        let mut bytes = segment_with(b"payload!", 128);
        bytes[3] = 0xff;
        bytes[128 + HEADER_BYTES] ^= 1;
        let (offset, header) = find_header(&bytes, SALT, 3, 0).expect("the header is whole");
        assert_eq!((offset, header.kind), (128, Kind::Txn));
        assert_eq!(find_header(&bytes, SALT, 3, 136), None);
    }
}
