//! The log's disk in earnest: files of one directory, segments mapped into memory.
//!
//! The only place of the log that has `unsafe`. Memory is mapped to be written; everything is
//! read with ordinary reads, so that a bad block is an error and not a signal.

use super::disk::{Disk, Flush, LockError, Segment, Writer};
use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};
use rustix::fs::{Advice as ReadAdvice, FallocateFlags, FlockOperation};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct FileDisk {
    dir: Arc<Path>,
    handle: Arc<File>,
}

impl FileDisk {
    /// Opens the directory, making it, and its parents, if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(dir: impl AsRef<Path>) -> io::Result<FileDisk> {
        let dir = dir.as_ref();
        if !dir.is_dir() {
            fs::create_dir_all(dir)?;
            // The new directory's own name must survive too.
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        FileDisk::existing(dir)
    }

    /// Opens a directory that must be there.
    ///
    /// # Errors
    /// What the system says.
    pub fn existing(dir: impl AsRef<Path>) -> io::Result<FileDisk> {
        let dir = dir.as_ref();
        let handle = File::open(dir)?;
        if !handle.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(FileDisk {
            dir: dir.into(),
            handle: Arc::new(handle),
        })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Disk for FileDisk {
    type Segment = MappedSegment;
    type Writer = FileWriter;
    type Reader = File;
    type Lock = FileLock;

    fn describe(&self) -> String {
        self.dir.display().to_string()
    }

    fn lock(&self) -> Result<FileLock, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(self.path(LOCK_FILE)).map_err(LockError::Io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Only for the message: an unreadable one is left out.
                let _ = file.read_to_string(&mut pid);
                let pid = pid.trim();
                return Err(LockError::Held((!pid.is_empty()).then(|| pid.to_owned())));
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        let mut note = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note().map_err(LockError::Io)?;
        Ok(FileLock { _file: file })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let file = File::open(self.path(name))?;
        // All our reading is from front to back; not to be advised costs nothing but time.
        let _ = rustix::fs::fadvise(&file, 0, None, ReadAdvice::Sequential);
        Ok(file)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn create(&self, name: &str) -> io::Result<FileWriter> {
        File::create(self.path(name)).map(FileWriter)
    }

    fn allocate(&self, name: &str, length: u64) -> io::Result<MappedSegment> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(self.path(name))?;
        reserve(&file, length)?;
        MappedSegment::new(file)
    }

    fn map(&self, name: &str) -> io::Result<MappedSegment> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))?;
        // A copied directory may have holes, and writing into the mapping of a hole on a full
        // disk would be a signal.
        reserve(&file, file.metadata()?.len())?;
        MappedSegment::new(file)
    }

    fn reread(&self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.sync_all()?;
        // Where there is nothing to forget (a file system in memory), this may be refused.
        let _ = rustix::fs::fadvise(&file, 0, None, ReadAdvice::DontNeed);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// The lock of a directory; the system frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// A file written from front to back.
#[derive(Debug)]
pub struct FileWriter(File);

impl Writer for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// A segment mapped into memory.
///
/// A write is a copy into the page cache; the kernel may bring any page to the disk at any
/// time, so a crash leaves any mixture, as the simulated disk does too.
#[derive(Debug)]
pub struct MappedSegment {
    map: MmapMut,
    flush: FileFlush,
    /// Pages before this were given back.
    released: usize,
}

impl MappedSegment {
    fn new(file: File) -> io::Result<MappedSegment> {
        // SAFETY: a mapping is sound while no one shortens the file or writes to it behind our
        // back. Both are kept out by the directory's lock, which every systole that writes
        // takes first; nothing in this process shortens a segment, and only this value writes
        // to it. Bytes of the mapping are never read, so no Rust value depends on what another
        // program might do to the file. A page that cannot be had is excluded because `reserve`
        // has allocated the whole length.
        let map = unsafe { MmapOptions::new().map_mut(&file)? };
        // Nothing is to be read ahead: the kernel would bring in the segment in pieces of up to
        // 2 MiB, and a piece is written to the disk as a whole for every record that is synced.
        // Only what a page takes is, this way. Advice only, as below.
        let _ = map.advise(Advice::Random);
        let flush = FileFlush {
            file: Arc::new(file),
        };
        Ok(MappedSegment {
            map,
            flush,
            released: 0,
        })
    }
}

impl Segment for MappedSegment {
    type Flush = FileFlush;

    fn capacity(&self) -> usize {
        self.map.len()
    }

    #[inline]
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.map[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&self) -> FileFlush {
        self.flush.clone()
    }

    fn release(&mut self, offset: usize) {
        let upto = offset.min(self.map.len()) / RELEASE_BYTES * RELEASE_BYTES;
        if upto <= self.released {
            return;
        }
        // SAFETY: the range lies within the mapping and begins and ends at a page. The mapping
        // is shared and backed by the file, so giving pages back loses nothing: what was
        // written is in the page cache, and a later access would find it there.
        let given = unsafe {
            self.map.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                self.released,
                upto - self.released,
            )
        };
        // Advice only: if it is refused, the pages stay until the segment is full.
        if given.is_ok() {
            self.released = upto;
        }
    }
}

/// A sync of a mapped segment, to be run on any thread.
#[derive(Clone, Debug)]
pub struct FileFlush {
    file: Arc<File>,
}

impl Flush for FileFlush {
    fn run(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Name of the file that is locked.
const LOCK_FILE: &str = "lock";

/// Memory of synced records is given back in steps of this many bytes: a multiple of the page
/// size on every architecture, and little beside what a small server holds.
const RELEASE_BYTES: usize = 512 << 10;

/// Allocates all of the file's space, so that a full disk is an error here and now.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill_holes(file, length),
        Err(errno) => Err(errno.into()),
    }
}

/// What `fallocate` does, for file systems without it: rewrites every block.
fn fill_holes(file: &File, length: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut block = vec![0; 64 * 1024];
    let mut offset = 0;
    while offset < length {
        let want = block
            .len()
            .min(usize::try_from(length - offset).unwrap_or(usize::MAX));
        let had = file.read_at(&mut block[..want], offset)?;
        block[had..want].fill(0);
        file.write_all_at(&block[..want], offset)?;
        offset += want as u64;
    }
    Ok(())
}
