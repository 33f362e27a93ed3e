//! Snapshots: the replicated state as of one zxid, in a file of its own.
//!
//! ```text
//! offset size field
//!      0    8 magic      "SYSTSNAP"
//!      8    4 version    1
//!     12    4 CRC-32     of bytes 0..12 and 16..40
//!     16    8 epoch      of the zxid
//!     24    8 counter    of the zxid
//!     32    8 salt       of the log it belongs to
//!     40      chunks
//!
//! a chunk:   4 length n, 1 or more    4 CRC-32    n bytes
//! the last:  4 zero                   4 CRC-32    8 total of all lengths
//! ```
//!
//! Integers are little-endian. The CRC of a chunk goes on from that of the chunk before (the
//! first from the header's), over the length and the bytes; so chunks cannot be lost, swapped
//! or taken from another snapshot, and the last one vouches for all. A snapshot gets its name
//! only when it is whole and synced.

use super::disk::{self, Disk, Writer as _};
use super::error::{Corruption, ReadError};
use super::generation::Made;
use super::record::{u32_at, u64_at};
use crate::types::{Epoch, Zxid};
use std::io::{self, Read, Write};

/// Bytes of a snapshot's header.
pub(super) const HEADER: usize = 40;
/// Longest chunk; also what writer and reader hold in memory.
const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// The writer syncs this often, so that the last sync is short and the log's syncs are not
/// held up behind it.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

const MAGIC: &[u8; 8] = b"SYSTSNAP";
const VERSION: u32 = 1;
const PREFIX: &str = "snapshot-";

/// The name of the file of the snapshot as of `zxid`.
#[must_use]
pub fn name_of(zxid: Zxid) -> String {
    name_with(PREFIX, zxid)
}

/// The zxid in the name of a snapshot's file; `None` for other names.
#[must_use]
pub fn zxid_of(name: &str) -> Option<Zxid> {
    zxid_with(PREFIX, name)
}

pub(super) fn name_with(prefix: &str, zxid: Zxid) -> String {
    format!("{prefix}{:016x}-{:016x}", zxid.epoch.0, zxid.counter)
}

pub(super) fn zxid_with(prefix: &str, name: &str) -> Option<Zxid> {
    let (epoch, counter) = name.strip_prefix(prefix)?.split_once('-')?;
    let half = |digits| u64::from_str_radix(digits, 16).ok();
    let zxid = Zxid::new(Epoch(half(epoch)?), half(counter)?);
    (name_with(prefix, zxid) == name).then_some(zxid)
}

/// Writes one snapshot; usable on a helper thread. Dropped unfinished, it leaves nothing.
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    zxid: Zxid,
    draft: String,
    file: Option<D::Writer>,
    chunk: Vec<u8>,
    crc: u32,
    total: u64,
    unsynced: u64,
    made: Made,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins one under the temporary name `draft`.
    pub(super) fn new(
        disk: D,
        zxid: Zxid,
        salt: u64,
        draft: String,
        made: Made,
    ) -> io::Result<SnapshotWriter<D>> {
        let header = encode_header(zxid, salt);
        let mut file = disk.create(&draft)?;
        file.write(&header)?;
        Ok(SnapshotWriter {
            disk,
            zxid,
            draft,
            file: Some(file),
            chunk: Vec::with_capacity(CHUNK_BYTES_MAX + 8),
            crc: u32_at(&header, 12),
            total: 0,
            unsynced: 0,
            made,
        })
    }

    /// Makes the snapshot durable and visible, and returns its length in bytes of content.
    ///
    /// # Errors
    /// What the disk says, or that the log was cut meanwhile; the snapshot is then not there.
    pub fn finish(self) -> io::Result<u64> {
        let name = name_of(self.zxid);
        self.seal_as(&name)
    }

    /// The last transaction the snapshot holds.
    pub(super) fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Makes the snapshot durable under this name.
    pub(super) fn seal_as(mut self, name: &str) -> io::Result<u64> {
        self.end_chunk()?;
        let mut last = [0; 16];
        last[8..16].copy_from_slice(&self.total.to_le_bytes());
        let crc = chunk_crc(self.crc, 0, &last[8..16]);
        last[4..8].copy_from_slice(&crc.to_le_bytes());
        let mut file = self
            .file
            .take()
            .expect("only finish and drop take the file");
        let result = file.write(&last).and_then(|()| file.sync());
        drop(file);
        let rename = || self.disk.rename(&self.draft, name);
        let outlived = || Err(io::Error::other("the log was cut or replaced meanwhile"));
        let result = result.and_then(|()| self.made.while_current(rename).unwrap_or_else(outlived));
        if let Err(error) = result {
            let _ = self.disk.remove(&self.draft);
            return Err(error);
        }
        self.disk.sync_dir()?;
        Ok(self.total)
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let length = self.chunk.len() as u32;
        self.crc = chunk_crc(self.crc, length, &self.chunk);
        let mut head = [0; 8];
        head[0..4].copy_from_slice(&length.to_le_bytes());
        head[4..8].copy_from_slice(&self.crc.to_le_bytes());
        let file = self
            .file
            .as_mut()
            .expect("only finish and drop take the file");
        file.write(&head)?;
        file.write(&self.chunk)?;
        self.total += u64::from(length);
        self.unsynced += u64::from(length);
        self.chunk.clear();
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.unsynced = 0;
            file.sync()?;
        }
        Ok(())
    }
}

impl<D: Disk> Write for SnapshotWriter<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES_MAX - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES_MAX {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    /// Does nothing: only [`SnapshotWriter::finish`] makes anything last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D: Disk> Drop for SnapshotWriter<D> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Left behind, it would be removed at the next start.
            let _ = self.disk.remove(&self.draft);
        }
    }
}

/// Reads one snapshot back, checking every chunk before it hands it out.
pub struct SnapshotReader<D: Disk> {
    name: String,
    file: io::BufReader<D::Reader>,
    offset: u64,
    crc: u32,
    total: u64,
    chunk: Vec<u8>,
    /// How much of `chunk` was handed out by `Read`.
    taken: usize,
    done: bool,
}

impl<D: Disk> SnapshotReader<D> {
    /// Opens the snapshot as of `zxid` and checks its header.
    pub(super) fn open(disk: &D, zxid: Zxid, salt: u64) -> Result<SnapshotReader<D>, ReadError> {
        SnapshotReader::open_file(disk, name_of(zxid), zxid, salt)
    }

    /// Opens it under another name.
    pub(super) fn open_file(
        disk: &D,
        name: String,
        zxid: Zxid,
        salt: u64,
    ) -> Result<SnapshotReader<D>, ReadError> {
        let io = |source| ReadError::Io {
            file: name.clone(),
            source,
        };
        let file = disk.open(&name).map_err(io)?;
        let mut reader = SnapshotReader {
            file: io::BufReader::with_capacity(64 * 1024, file),
            name,
            offset: 0,
            crc: 0,
            total: 0,
            chunk: Vec::new(),
            taken: 0,
            done: false,
        };
        let mut header = [0; HEADER];
        reader.read_part(&mut header)?;
        if header != encode_header(zxid, salt) {
            return Err(reader.corrupt(0, "another header", "that of this snapshot of this log"));
        }
        reader.crc = u32_at(&header, 12);
        Ok(reader)
    }

    /// The next piece of the content; `None` once the end was reached and found whole.
    ///
    /// # Errors
    /// `Corrupt` at the first chunk that is not as it was written.
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>, ReadError> {
        if self.done {
            return Ok(None);
        }
        let start = self.offset;
        let mut head = [0; 8];
        self.read_part(&mut head)?;
        let (length, expected) = (u32_at(&head, 0), u32_at(&head, 4));
        if length as usize > CHUNK_BYTES_MAX {
            return Err(self.corrupt(start, "a chunk longer than any", "a chunk"));
        }
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(if length == 0 { 8 } else { length as usize }, 0);
        let read = self.read_part(&mut chunk);
        self.chunk = chunk;
        read?;
        let found = chunk_crc(self.crc, length, &self.chunk);
        if found != expected {
            let found = format!("a chunk with CRC {found:08x}");
            return Err(self.corrupt(start, &found, &format!("CRC {expected:08x}")));
        }
        self.crc = found;
        if length > 0 {
            self.total += u64::from(length);
            return Ok(Some(&self.chunk));
        }
        if u64_at(&self.chunk, 0) != self.total {
            return Err(self.corrupt(start, "another total length", "that of the chunks"));
        }
        let mut beyond = [0; 1];
        let more = self
            .file
            .read(&mut beyond)
            .map_err(|source| self.io(source))?;
        if more != 0 {
            return Err(self.corrupt(self.offset, "more bytes", "the end of the file"));
        }
        self.chunk.clear();
        self.done = true;
        Ok(None)
    }

    fn read_part(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        match self.file.read_exact(bytes) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.corrupt(self.offset, "the end of the file", "more of the snapshot"))
            }
            Err(error) => Err(self.io(error)),
        }
    }

    fn io(&self, source: io::Error) -> ReadError {
        ReadError::Io {
            file: self.name.clone(),
            source,
        }
    }

    fn corrupt(&self, offset: u64, found: &str, expected: &str) -> ReadError {
        ReadError::Corrupt(Corruption {
            file: self.name.clone(),
            offset,
            after: None,
            found: found.into(),
            expected: expected.into(),
        })
    }
}

/// The content as a stream; the end is reported only once it was found whole.
impl<D: Disk> Read for SnapshotReader<D> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() {
            self.taken = 0;
            let next = self.next_chunk();
            if next
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
                .is_none()
            {
                return Ok(0);
            }
        }
        let rest = &self.chunk[self.taken..];
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// The zxids of all snapshots, newest first, whole or not.
pub(super) fn list<D: Disk>(disk: &D) -> io::Result<Vec<Zxid>> {
    let mut found: Vec<Zxid> = disk
        .list()?
        .iter()
        .filter_map(|name| zxid_of(name))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Reads a snapshot to its end; its length in bytes of content.
pub(super) fn verify<D: Disk>(disk: &D, zxid: Zxid, salt: u64) -> Result<u64, ReadError> {
    verify_file(disk, &name_of(zxid), zxid, salt)
}

/// As [`verify`], under another name.
pub(super) fn verify_file<D: Disk>(
    disk: &D,
    name: &str,
    zxid: Zxid,
    salt: u64,
) -> Result<u64, ReadError> {
    let mut reader = SnapshotReader::open_file(disk, name.into(), zxid, salt)?;
    while reader.next_chunk()?.is_some() {}
    Ok(reader.total)
}

/// Removes the snapshot as of `zxid`, durably.
pub(super) fn remove<D: Disk>(disk: &D, zxid: Zxid) -> io::Result<()> {
    disk::remove(disk, &name_of(zxid))
}

fn encode_header(zxid: Zxid, salt: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&zxid.epoch.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&zxid.counter.to_le_bytes());
    bytes[32..40].copy_from_slice(&salt.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[0..12]);
    hasher.update(&bytes[16..40]);
    let crc = hasher.finalize();
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn chunk_crc(before: u32, length: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(&length.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}
