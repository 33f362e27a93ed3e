//! The little that the log asks of a disk, so that the same log runs on files and on a
//! simulated disk that crashes, tears, flips and fills up.
//!
//! The steps are as small as the system's own: create, write, sync, rename and sync of the
//! directory are separate calls, because it is their order that makes the log safe, and a
//! forgotten one must show in the simulation.

use std::io;

/// One directory on a disk.
pub trait Disk: Clone + Send + 'static {
    /// A preallocated file that is written in place.
    type Segment: Segment;
    /// A new file that is written from front to back.
    type Writer: Writer;
    /// A file read from front to back.
    type Reader: io::Read + Send;
    /// Keeps other servers out of the directory while it lives.
    type Lock: Send;

    /// The directory, for messages.
    fn describe(&self) -> String;

    /// Takes the directory's lock.
    ///
    /// # Errors
    /// [`LockError::Held`] if another server has it.
    fn lock(&self) -> Result<Self::Lock, LockError>;

    /// The names of all files.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading from its start.
    ///
    /// # Errors
    /// `NotFound` if there is none; else what the system says.
    fn open(&self, name: &str) -> io::Result<Self::Reader>;

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// `NotFound` if there is none; else what the system says.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// Creates an empty file, or empties the one of that name.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str) -> io::Result<Self::Writer>;

    /// Creates a file of `length` zeroes with all its space reserved.
    ///
    /// # Errors
    /// `StorageFull` if there is no room: now, and never when it is written to.
    fn allocate(&self, name: &str, length: u64) -> io::Result<Self::Segment>;

    /// Opens an existing segment for writing, all its space reserved.
    ///
    /// # Errors
    /// As [`Disk::allocate`].
    fn map(&self, name: &str) -> io::Result<Self::Segment>;

    /// Syncs a file and forgets what is cached of it, so that it is next read from the disk.
    ///
    /// After a failed sync the cache may show what the disk does not hold.
    ///
    /// # Errors
    /// What the system says.
    fn reread(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of any file that has it. Lasts after
    /// [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Lasts after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A preallocated file that is written in place.
pub trait Segment: Send {
    /// A sync of one segment.
    type Flush: Flush;

    /// Length in bytes; never changes.
    fn capacity(&self) -> usize;

    /// Writes `bytes` at `offset`. Lasts after a [`Segment::flush`] has run.
    ///
    /// # Errors
    /// What the system says; a mapped file never fails here.
    ///
    /// # Panics
    /// If the bytes do not fit.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// A sync of all that is written by now, to be run later or elsewhere.
    fn flush(&self) -> Self::Flush;

    /// Says that nothing before `offset` will be written again: its memory may go.
    fn release(&mut self, offset: usize);
}

/// A sync of one segment.
pub trait Flush: Send {
    /// Syncs, blocking.
    ///
    /// # Errors
    /// What the system says; after an error nobody knows what reached the disk.
    fn run(&self) -> io::Result<()>;
}

/// A new file that is written from front to back.
pub trait Writer: Send {
    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that is written durable, length included.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;
}

/// Why the directory's lock was not had.
#[derive(Debug)]
pub enum LockError {
    /// Another server has it; its process id, if known.
    Held(Option<String>),
    /// The disk failed.
    Io(io::Error),
}

/// Replaces the small file `name` so that a crash leaves either the old bytes or the new.
///
/// # Errors
/// What the system says; the file may then hold either.
pub(super) fn replace<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = format!("{name}.tmp");
    let mut file = disk.create(&draft)?;
    file.write(bytes)?;
    file.sync()?;
    disk.rename(&draft, name)?;
    disk.sync_dir()
}

/// Removes the file `name`, durably.
pub(super) fn remove<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    disk.remove(name)?;
    disk.sync_dir()
}

/// Reads the whole file `name` into `bytes`, which is emptied first; false if there is none.
pub(super) fn read_into<D: Disk>(disk: &D, name: &str, bytes: &mut Vec<u8>) -> io::Result<bool> {
    use io::Read as _;
    bytes.clear();
    let length = match disk.length(name) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    bytes.reserve(usize::try_from(length).unwrap_or(0));
    disk.open(name)?.read_to_end(bytes)?;
    Ok(true)
}

/// Reads the first bytes of the file `name`, at most `limit`.
pub(super) fn read_head<D: Disk>(disk: &D, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    disk.open(name)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
