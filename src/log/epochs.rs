//! The small files of a data directory: its format, its epochs, and the notes of a cut or of a
//! setting aside under way.
//!
//! Each is replaced whole, so that a crash leaves the old one or the new one.
//!
//! `format` is text, for the one who finds the directory:
//!
//! ```text
//! systole data directory, format 1
//! salt 00112233445566aa
//! crc 1234abcd          CRC-32 of the two lines above, newlines included
//! ```
//!
//! `epochs`, `truncate` and `aside` are binary, integers little-endian:
//!
//! ```text
//! offset size  epochs             truncate                      aside
//!      0    8  magic "SYSTEPOC"   magic "SYSTTRUN"              magic "SYSTASID"
//!      8    8  accepted epoch     epoch   of the last to keep   number of the suffix
//!     16    8  current epoch      counter of it                 lowest incarnation to go on with
//!     24    8  incarnation        0                             0
//!     32    4  CRC-32 of the log's salt (8 bytes) and bytes 0..32
//! ```

use super::disk::{self, Disk};
use super::error::Corruption;
use super::record::{u32_at, u64_at};
use crate::types::{Epoch, Incarnation, Zxid};
use std::io;

/// Name of the file with the format.
pub(super) const FORMAT_FILE: &str = "format";
/// Name of the file with the epochs.
pub(super) const EPOCHS_FILE: &str = "epochs";
/// Name of the file that tells of a cut under way.
pub(super) const TRUNCATE_FILE: &str = "truncate";
/// Name of the file that tells of a history being set aside.
pub(super) const ASIDE_FILE: &str = "aside";

const FORMAT_LINE: &str = "systole data directory, format 1";
const RECORD_BYTES: usize = 36;

/// What a server must never forget about epochs, besides its log.
///
/// Invariant, on disk too: `accepted` ≥ `current`, and none of the three ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The highest epoch this server promised to follow.
    pub accepted: Epoch,
    /// The epoch whose leader's history this server has taken over.
    pub current: Epoch,
    /// How often the server was started on this directory.
    pub incarnation: Incarnation,
}

impl Epochs {
    /// Reads the epochs; `None` if the file is not there.
    ///
    /// # Errors
    /// What the disk says, or the damage.
    pub(super) fn read<D: Disk>(
        disk: &D,
        salt: u64,
    ) -> io::Result<Result<Option<Epochs>, Corruption>> {
        Ok(read(disk, EPOCHS_FILE, b"SYSTEPOC", salt)?.map(|fields| {
            fields.map(|[accepted, current, incarnation]| Epochs {
                accepted: Epoch(accepted),
                current: Epoch(current),
                incarnation: Incarnation(incarnation),
            })
        }))
    }

    /// Replaces the epochs on disk, durably.
    pub(super) fn write<D: Disk>(self, disk: &D, salt: u64) -> io::Result<()> {
        assert!(
            self.accepted >= self.current,
            "current epoch {} above the accepted one {}",
            self.current,
            self.accepted
        );
        let fields = [self.accepted.0, self.current.0, self.incarnation.0];
        disk::replace(disk, EPOCHS_FILE, &encode(b"SYSTEPOC", fields, salt))
    }
}

/// The zxid of an interrupted cut, if there is one.
pub(super) fn read_cut<D: Disk>(
    disk: &D,
    salt: u64,
) -> io::Result<Result<Option<Zxid>, Corruption>> {
    Ok(read(disk, TRUNCATE_FILE, b"SYSTTRUN", salt)?
        .map(|fields| fields.map(|[epoch, counter, _]| Zxid::new(Epoch(epoch), counter))))
}

/// Notes durably that the log is being cut after `zxid`.
pub(super) fn write_cut<D: Disk>(disk: &D, salt: u64, zxid: Zxid) -> io::Result<()> {
    let fields = [zxid.epoch.0, zxid.counter, 0];
    disk::replace(disk, TRUNCATE_FILE, &encode(b"SYSTTRUN", fields, salt))
}

/// A history that is being set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aside {
    /// Of the suffix its files get.
    pub(super) number: u64,
    /// The server goes on with this incarnation, or its own if that is higher.
    pub(super) floor: Incarnation,
}

impl Aside {
    /// Reads the note; `None` if there is none.
    pub(super) fn read<D: Disk>(
        disk: &D,
        salt: u64,
    ) -> io::Result<Result<Option<Aside>, Corruption>> {
        let fields = read(disk, ASIDE_FILE, b"SYSTASID", salt)?;
        let aside = |[number, floor, _]: [u64; 3]| Aside {
            number,
            floor: Incarnation(floor),
        };
        Ok(fields.map(|fields| fields.map(aside)))
    }

    /// Writes the note, durably.
    pub(super) fn write<D: Disk>(self, disk: &D, salt: u64) -> io::Result<()> {
        let fields = [self.number, self.floor.0, 0];
        disk::replace(disk, ASIDE_FILE, &encode(b"SYSTASID", fields, salt))
    }
}

/// What the file `format` says.
pub(super) enum Format {
    /// There is none.
    Absent,
    /// This format, and the log's salt.
    Known(u64),
    /// Something else; why.
    Foreign(String),
}

impl Format {
    pub(super) fn read<D: Disk>(disk: &D) -> io::Result<Format> {
        let mut bytes = Vec::new();
        if !disk::read_into(disk, FORMAT_FILE, &mut bytes)? {
            return Ok(Format::Absent);
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if first != FORMAT_LINE {
            let reason = format!(
                "its file `format` begins with {first:?}, and this systole knows only {FORMAT_LINE:?}"
            );
            return Ok(Format::Foreign(reason));
        }
        let field = |line: Option<&str>, name: &str| {
            let digits = line?.strip_prefix(name)?.strip_prefix(' ')?;
            u64::from_str_radix(digits, 16).ok()
        };
        let known = field(lines.next(), "salt").filter(|&salt| text == format_text(salt));
        Ok(known.map_or_else(
            || Format::Foreign("its file `format` is damaged".into()),
            Format::Known,
        ))
    }

    pub(super) fn write<D: Disk>(disk: &D, salt: u64) -> io::Result<()> {
        disk::replace(disk, FORMAT_FILE, format_text(salt).as_bytes())
    }
}

fn format_text(salt: u64) -> String {
    let text = format!("{FORMAT_LINE}\nsalt {salt:016x}\n");
    let crc = crc32fast::hash(text.as_bytes());
    format!("{text}crc {crc:08x}\n")
}

fn encode(magic: &[u8; 8], fields: [u64; 3], salt: u64) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[0..8].copy_from_slice(magic);
    for (place, field) in bytes[8..32].chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    let crc = crc_of(&bytes, salt);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn crc_of(bytes: &[u8; RECORD_BYTES], salt: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&bytes[0..32]);
    hasher.finalize()
}

fn read<D: Disk>(
    disk: &D,
    name: &str,
    magic: &[u8; 8],
    salt: u64,
) -> io::Result<Result<Option<[u64; 3]>, Corruption>> {
    let mut bytes = Vec::new();
    if !disk::read_into(disk, name, &mut bytes)? {
        return Ok(Ok(None));
    }
    let whole: Option<&[u8; RECORD_BYTES]> = bytes.as_slice().try_into().ok();
    let sound = whole.filter(|b| &b[0..8] == magic && u32_at(&b[..], 32) == crc_of(b, salt));
    Ok(match sound {
        Some(b) => Ok(Some([u64_at(b, 8), u64_at(b, 16), u64_at(b, 24)])),
        None => Err(Corruption {
            file: name.into(),
            offset: 0,
            after: None,
            found: format!("{} bytes whose CRC does not match", bytes.len()),
            expected: format!("{RECORD_BYTES} bytes as they were written"),
        }),
    })
}
