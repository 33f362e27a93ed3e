//! A disk that crashes, tears, lies and fills up when told to, and the same way every time.
//!
//! Every write, sync, creation, rename, removal and sync of the directory is one event, and
//! events are counted. A [`Plan`] names the event at which power is lost, or at which a call
//! fails. What is on the disk after a loss of power is drawn from a seed:
//!
//! - each sector written since its last sync holds any of the versions it ever had since;
//! - the write under way is in any byte prefix of itself;
//! - each change to the directory since its last sync happened or did not, alone;
//! - a file's length is the synced one or the last one.
//!
//! A sync that fails leaves the cache showing what the disk may not hold, and the next sync
//! says that all is well: this is what ext4 does.

mod contents;
#[cfg(test)]
mod tests;
mod vouched;
mod world;

use crate::log::disk::{Disk, Flush, LockError, Segment, Writer};
use contents::Contents;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use world::{Change, Event, World};

/// The unit that a disk writes whole or not at all, bytes.
pub const SECTOR_BYTES: usize = 512;

/// What will go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Power is lost during this event (the first one is 0); later calls fail.
    pub crash_at: Option<u64>,
    /// This event fails with an I/O error.
    pub fail_at: Option<u64>,
    /// This event and all after it fail with an I/O error.
    pub fail_from: Option<u64>,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
}

/// A simulated directory. Clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    /// An empty disk. `seed` decides what a crash leaves.
    #[must_use]
    pub fn new(seed: u64, plan: Plan) -> SimDisk {
        SimDisk::of(World::new(seed, plan))
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.world().events
    }

    /// True once power was lost.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.world().crashed
    }

    /// What is going to go wrong.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.world().plan
    }

    /// Power will be lost during the event that follows after this many others: with 0 during
    /// the next one.
    pub fn crash_after(&self, others: u64) {
        let mut world = self.world();
        world.plan.crash_at = Some(world.events + others);
    }

    /// The event that follows after this many others will fail with an I/O error.
    pub fn fail_after(&self, others: u64) {
        let mut world = self.world();
        world.plan.fail_at = Some(world.events + others);
    }

    /// From now on every event fails with an I/O error, or none does any more.
    pub fn fail_from_now(&self, failing: bool) {
        let mut world = self.world();
        world.plan.fail_from = failing.then_some(world.events);
    }

    /// Gives all files together this many bytes, or all they want.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.world().plan.capacity = capacity;
    }

    /// Bytes of all files together, as programs see them.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.world().used
    }

    /// Power is lost now: every later call fails. What is left shows in [`SimDisk::power_cycle`].
    pub fn cut_power(&self) {
        self.world().crashed = true;
    }

    /// The disk as it comes back after a loss of power, now or when the plan said so.
    #[must_use]
    pub fn power_cycle(&self, plan: Plan) -> SimDisk {
        let mut world = self.world().clone();
        world.lose_power();
        SimDisk::of(world.restart(plan))
    }

    /// The disk as the next process finds it when this one is killed: nothing is lost, and a
    /// cache that lies goes on lying.
    #[must_use]
    pub fn kill(&self, plan: Plan) -> SimDisk {
        SimDisk::of(self.world().clone().restart(plan))
    }

    /// An empty disk in place of this one, whose power is off for good.
    #[must_use]
    pub fn wipe(&self, plan: Plan) -> SimDisk {
        let mut world = self.world();
        world.crashed = true;
        SimDisk::new(world.random(), plan)
    }

    /// Flips one bit of a file, on the disk, in the cache and on the way between them.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip(&self, name: &str, byte: usize, bit: u32) {
        self.edit(name, |file| file.flip(byte, bit));
    }

    /// Flips a bit drawn at random in a file drawn from those that are not empty and that
    /// `eligible` lets pass by their names; says where, or `None` if there is no such file.
    pub fn rot(&self, eligible: impl Fn(&str) -> bool) -> Option<(String, usize, u32)> {
        let (name, byte, bit) = {
            let mut world = self.world();
            let mut files = Vec::new();
            for (name, &id) in world.names.iter().filter(|(name, _)| eligible(name)) {
                files.push((name.clone(), world.file(id).cache().len()));
            }
            files.retain(|&(_, length)| length > 0);
            if files.is_empty() {
                return None;
            }
            let drawn = world.below(files.len());
            let (name, length) = files.swap_remove(drawn);
            (name, world.below(length), world.below(8) as u32)
        };
        self.flip(&name, byte, bit);
        Some((name, byte, bit))
    }

    /// Cuts a file to `length` bytes, on the disk and in the cache.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn shorten(&self, name: &str, length: usize) {
        self.edit(name, |file| {
            let bytes = file.cache()[..length.min(file.cache().len())].to_vec();
            file.replace(&bytes);
        });
    }

    /// Gives a file other bytes, on the disk and in the cache.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.edit(name, |file| file.replace(bytes));
    }

    /// The bytes of a file as programs see them.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let world = self.world();
        world.file(world.expect(name)).cache().to_vec()
    }

    fn edit(&self, name: &str, change: impl Fn(&mut Contents)) {
        let mut world = self.world();
        let id = world.expect(name);
        change(world.file_mut(id));
        world.recount();
    }

    fn of(world: World) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(world)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open file, which is counted until it is dropped.
    fn handle(&self, world: &mut World, id: usize) -> SimFile {
        let file = world.file_mut(id);
        file.handles += 1;
        SimFile {
            capacity: file.cache().len(),
            handle: Arc::new(Handle {
                disk: self.clone(),
                id,
            }),
        }
    }
}

impl Disk for SimDisk {
    type Segment = SimFile;
    type Writer = SimFile;
    type Reader = io::Cursor<Vec<u8>>;
    type Lock = SimLock;

    fn describe(&self) -> String {
        "the simulated disk".into()
    }

    fn lock(&self) -> Result<SimLock, LockError> {
        let mut world = self.world();
        world.alive().map_err(LockError::Io)?;
        if std::mem::replace(&mut world.locked, true) {
            return Err(LockError::Held(None));
        }
        Ok(SimLock(self.clone()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let world = self.world();
        world.alive()?;
        Ok(world.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<io::Cursor<Vec<u8>>> {
        let world = self.world();
        let id = world.id(name)?;
        Ok(io::Cursor::new(world.file(id).cache().to_vec()))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let world = self.world();
        let id = world.id(name)?;
        Ok(world.file(id).cache().len() as u64)
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut world = self.world();
        let id = world.new_file(name)?;
        Ok(self.handle(&mut world, id))
    }

    fn allocate(&self, name: &str, length: u64) -> io::Result<SimFile> {
        let mut world = self.world();
        let id = world.new_file(name)?;
        world.room_for(length)?;
        world.extend(id, length);
        Ok(self.handle(&mut world, id))
    }

    fn map(&self, name: &str) -> io::Result<SimFile> {
        let mut world = self.world();
        let id = world.id(name)?;
        Ok(self.handle(&mut world, id))
    }

    fn reread(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let id = world.id(name)?;
        let (version, length) = (world.version, world.file(id).cache().len());
        world.sync(id, version, length)?;
        world.file_mut(id).reread();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let id = world.id(from)?;
        world.event()?;
        world.change_names(Change {
            remove: Some(from.into()),
            insert: Some((to.into(), id)),
        });
        world.alive()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.id(name)?;
        world.event()?;
        world.change_names(Change {
            remove: Some(name.into()),
            insert: None,
        });
        world.alive()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        if let Event::Whole = world.event()? {
            world.sync_names();
        }
        world.alive()
    }
}

/// A file of a [`SimDisk`].
pub struct SimFile {
    handle: Arc<Handle>,
    /// Its length when it was opened, which a segment keeps.
    capacity: usize,
}

/// An open file: while there is one, the file is there, with a name or without.
struct Handle {
    disk: SimDisk,
    id: usize,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.world().file_mut(self.id).handles -= 1;
    }
}

impl Segment for SimFile {
    type Flush = SimFlush;

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(
            offset + bytes.len() <= self.capacity,
            "a write beyond the segment"
        );
        let Handle { disk, id } = &*self.handle;
        disk.world().write(*id, offset, bytes)
    }

    fn flush(&self) -> SimFlush {
        SimFlush {
            handle: Arc::clone(&self.handle),
            version: self.handle.disk.world().version,
            length: self.capacity,
        }
    }

    fn release(&mut self, _offset: usize) {}
}

impl Writer for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Handle { disk, id } = &*self.handle;
        let mut world = disk.world();
        world.room_for(bytes.len() as u64)?;
        let end = world.file(*id).cache().len();
        world.write(*id, end, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let Handle { disk, id } = &*self.handle;
        let mut world = disk.world();
        let (version, length) = (world.version, world.file(*id).cache().len());
        world.sync(*id, version, length)
    }
}

/// A sync of what a [`SimFile`] held when it was asked for: what is written later is not in it.
#[derive(Clone)]
pub struct SimFlush {
    handle: Arc<Handle>,
    version: u64,
    length: usize,
}

impl Flush for SimFlush {
    fn run(&self) -> io::Result<()> {
        let Handle { disk, id } = &*self.handle;
        disk.world().sync(*id, self.version, self.length)
    }
}

/// The lock of a [`SimDisk`].
pub struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}
