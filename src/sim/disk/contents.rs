//! One file of a simulated disk: what programs see, what is on the disk, and what is between.

use super::SECTOR_BYTES;

/// The bytes of a file, and the writes since its last sync.
///
/// A version of a sector is what it held after one of the writes that touched it. Only the
/// writes are kept, and versions are made from them when power is lost: a write costs two
/// copies of its bytes, and a sync one more.
///
/// Invariant: unless `lies`, `cache` is `disk` with all pending writes made, but for the length.
#[derive(Clone, Default)]
pub(super) struct Contents {
    cache: Vec<u8>,
    disk: Vec<u8>,
    /// The writes since the last sync, oldest first.
    pending: Vec<Pending>,
    /// Their bytes, one behind the other.
    bytes: Vec<u8>,
    /// True after a failed sync: the cache shows what the disk may not hold. A write then takes
    /// the whole of its sectors along, as a page goes to the disk whole.
    lies: bool,
    /// Open files that lead here.
    pub(super) handles: usize,
    /// True while a name leads here, as programs see it.
    pub(super) linked: bool,
}

/// A write that was not synced.
#[derive(Clone, Copy)]
struct Pending {
    version: u64,
    offset: usize,
    length: usize,
}

impl Pending {
    fn sectors(&self) -> std::ops::Range<usize> {
        self.offset / SECTOR_BYTES..(self.offset + self.length).div_ceil(SECTOR_BYTES)
    }
}

impl Contents {
    /// The bytes as programs see them.
    pub(super) fn cache(&self) -> &[u8] {
        &self.cache
    }

    /// Adds zeroes at the end.
    pub(super) fn extend(&mut self, length: usize) {
        self.cache.resize(length.max(self.cache.len()), 0);
    }

    pub(super) fn write(&mut self, version: u64, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.extend(end);
        self.cache[offset..end].copy_from_slice(bytes);
        let mut range = offset..end;
        if self.lies {
            let whole = range.end.next_multiple_of(SECTOR_BYTES);
            range = offset / SECTOR_BYTES * SECTOR_BYTES..whole.min(self.cache.len());
        }
        self.pending.push(Pending {
            version,
            offset: range.start,
            length: range.len(),
        });
        self.bytes.extend_from_slice(&self.cache[range]);
    }

    /// Brings everything written up to `version` to the disk, and a length of at least `length`.
    pub(super) fn sync(&mut self, version: u64, length: usize) {
        if self.disk.len() < length {
            self.disk.resize(length, 0);
        }
        let settled = self
            .pending
            .partition_point(|write| write.version <= version);
        let mut taken = 0;
        for write in &self.pending[..settled] {
            let bytes = &self.bytes[taken..taken + write.length];
            put(&mut self.disk, write.offset, bytes);
            taken += write.length;
        }
        if settled == self.pending.len() {
            self.pending.clear();
            self.bytes.clear();
        } else {
            self.pending.drain(..settled);
            self.bytes.drain(..taken);
        }
    }

    /// Draws what is on the disk of everything not synced, and forgets the rest: each sector
    /// holds what was synced, or any of its versions since. `below` draws a number below its
    /// argument.
    pub(super) fn settle(&mut self, mut below: impl FnMut(usize) -> usize) {
        if below(2) == 0 {
            self.disk.resize(self.cache.len().max(self.disk.len()), 0);
        }
        let (pending, bytes) = (
            std::mem::take(&mut self.pending),
            std::mem::take(&mut self.bytes),
        );
        let mut touched = Vec::new();
        let mut start = 0;
        for write in pending {
            touched.extend(write.sectors().map(|sector| (sector, start, write)));
            start += write.length;
        }
        // Stable: the writes to one sector stay in their order.
        touched.sort_by_key(|&(sector, ..)| sector);
        for versions in touched.chunk_by(|(one, ..), (other, ..)| one == other) {
            let drawn = below(versions.len() + 1);
            // The highest number stands for none of them.
            for &(sector, start, write) in versions.iter().take((drawn + 1) % (versions.len() + 1))
            {
                let from = write.offset.max(sector * SECTOR_BYTES);
                let upto = (write.offset + write.length).min((sector + 1) * SECTOR_BYTES);
                let at = start + from - write.offset;
                put(&mut self.disk, from, &bytes[at..at + upto - from]);
            }
        }
    }

    /// A sync has failed: each sector got to the disk or did not, and the cache calls all of
    /// them clean.
    pub(super) fn lose(&mut self, below: impl FnMut(usize) -> usize) {
        self.settle(below);
        self.lies = true;
    }

    /// Forgets the cache, so that what is on the disk is seen.
    pub(super) fn reread(&mut self) {
        self.cache.clone_from(&self.disk);
        self.lies = false;
    }

    /// Gives the file these bytes, on the disk and in the cache.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.cache = bytes.to_vec();
        self.disk = bytes.to_vec();
        self.pending.clear();
        self.bytes.clear();
        self.lies = false;
    }

    /// Flips one bit, on the disk, in the cache and on the way between them.
    pub(super) fn flip(&mut self, byte: usize, bit: u32) {
        for bytes in [&mut self.cache, &mut self.disk] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << bit;
            }
        }
        let mut start = 0;
        for write in &self.pending {
            if (write.offset..write.offset + write.length).contains(&byte) {
                self.bytes[start + byte - write.offset] ^= 1 << bit;
            }
            start += write.length;
        }
    }
}

/// Puts bytes where they belong, as far as the file reaches.
fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    let end = file.len().min(offset + bytes.len());
    if offset < end {
        file[offset..end].copy_from_slice(&bytes[..end - offset]);
    }
}
