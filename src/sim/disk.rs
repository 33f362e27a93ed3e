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

use crate::log::disk::{Disk, Flush, LockError, Segment, Writer};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The unit that a disk writes whole or not at all, bytes.
pub const SECTOR_BYTES: usize = 512;

/// What will go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Power is lost during this event (the first one is 0); later calls fail.
    pub crash_at: Option<u64>,
    /// This event fails with an I/O error.
    pub fail_at: Option<u64>,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
}

/// A simulated directory. Clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Clone, Default)]
struct World {
    plan: Plan,
    random: u64,
    events: u64,
    crashed: bool,
    locked: bool,
    next_file: u64,
    version: u64,
    files: BTreeMap<u64, Contents>,
    /// The directory as programs see it.
    names: BTreeMap<String, u64>,
    /// The directory as of its last sync, and what happened to it since.
    names_synced: BTreeMap<String, u64>,
    changes: Vec<Change>,
}

/// The bytes of one file: in the cache, on the disk, and in between.
#[derive(Clone, Default)]
struct Contents {
    cache: Vec<u8>,
    disk: Vec<u8>,
    /// For each sector not synced, all its versions since, oldest first.
    dirty: BTreeMap<usize, Vec<(u64, [u8; SECTOR_BYTES])>>,
}

#[derive(Clone)]
struct Change {
    remove: Option<String>,
    insert: Option<(String, u64)>,
}

/// How an event goes.
enum Event {
    Whole,
    /// Power is lost in the middle.
    Partly,
}

impl SimDisk {
    /// An empty disk. `seed` decides what a crash leaves.
    #[must_use]
    pub fn new(seed: u64, plan: Plan) -> SimDisk {
        let random = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        SimDisk(Arc::new(Mutex::new(World {
            plan,
            random,
            ..World::default()
        })))
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

    /// Gives all files together this many bytes, or all they want.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.world().plan.capacity = capacity;
    }

    /// The disk as it comes back after a loss of power, now or when the plan said so.
    #[must_use]
    pub fn power_cycle(&self, plan: Plan) -> SimDisk {
        let mut world = self.world().clone();
        world.lose_power();
        world.restart(plan)
    }

    /// The disk as the next process finds it when this one is killed: nothing is lost, and a
    /// cache that lies goes on lying.
    #[must_use]
    pub fn kill(&self, plan: Plan) -> SimDisk {
        self.world().clone().restart(plan)
    }

    /// Flips one bit of a file, on the disk, in the cache and on the way between them.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip(&self, name: &str, byte: usize, bit: u32) {
        self.edit(name, |file| {
            for bytes in [&mut file.cache, &mut file.disk] {
                if let Some(byte) = bytes.get_mut(byte) {
                    *byte ^= 1 << bit;
                }
            }
            let dirty = file.dirty.get_mut(&(byte / SECTOR_BYTES));
            for (_, bytes) in dirty.into_iter().flatten() {
                bytes[byte % SECTOR_BYTES] ^= 1 << bit;
            }
        });
    }

    /// Cuts a file to `length` bytes, on the disk and in the cache.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn shorten(&self, name: &str, length: usize) {
        self.edit(name, |file| {
            file.cache.truncate(length);
            file.disk.truncate(length);
            file.dirty
                .retain(|&sector, _| sector * SECTOR_BYTES < length);
        });
    }

    /// Gives a file other bytes, on the disk and in the cache.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.edit(name, |file| {
            file.cache = bytes.to_vec();
            file.disk = bytes.to_vec();
            file.dirty.clear();
        });
    }

    /// The bytes of a file as programs see them.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let world = self.world();
        let id = world
            .names
            .get(name)
            .expect("the test names a file that is there");
        world.files[id].cache.clone()
    }

    fn edit(&self, name: &str, change: impl Fn(&mut Contents)) {
        let mut world = self.world();
        let id = *world
            .names
            .get(name)
            .expect("the test names a file that is there");
        change(world.files.get_mut(&id).expect("a name leads to a file"));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound as u64) as usize
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed {
            Err(io::Error::other("the power is off"))
        } else {
            Ok(())
        }
    }

    fn event(&mut self) -> io::Result<Event> {
        self.alive()?;
        let event = self.events;
        self.events += 1;
        if self.plan.fail_at == Some(event) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if self.plan.crash_at == Some(event) {
            self.crashed = true;
            return Ok(Event::Partly);
        }
        Ok(Event::Whole)
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        self.alive()?;
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn room_for(&self, more: u64) -> io::Result<()> {
        let used: usize = self
            .names
            .values()
            .map(|id| self.files[id].cache.len())
            .sum();
        match self.plan.capacity {
            Some(capacity) if used as u64 + more > capacity => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn change_names(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn new_file(&mut self, name: &str) -> io::Result<u64> {
        let event = self.event()?;
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, Contents::default());
        self.change_names(Change {
            remove: None,
            insert: Some((name.into(), id)),
        });
        match event {
            Event::Whole => Ok(id),
            Event::Partly => self.alive().map(|()| id),
        }
    }

    fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let count = match self.event()? {
            Event::Whole => bytes.len(),
            Event::Partly => self.below(bytes.len() + 1),
        };
        self.version += 1;
        let version = self.version;
        let file = self.files.get_mut(&id).expect("an open file is there");
        let end = offset + count;
        if file.cache.len() < end {
            file.cache.resize(end, 0);
        }
        file.cache[offset..end].copy_from_slice(&bytes[..count]);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let now = sector_of(&file.cache, sector);
            file.dirty.entry(sector).or_default().push((version, now));
        }
        self.alive()
    }

    /// Brings everything written up to `version` to the disk.
    fn sync(&mut self, id: u64, version: u64, length: usize) -> io::Result<()> {
        let event = self.event();
        if event.is_err() && !self.crashed {
            self.lose_dirty(id);
        }
        if let Event::Partly = event? {
            return self.alive();
        }
        let file = self.files.get_mut(&id).expect("an open file is there");
        file.disk.resize(length.max(file.disk.len()), 0);
        for (&sector, versions) in &mut file.dirty {
            let settled = versions.iter().take_while(|(at, _)| *at <= version).count();
            if let Some((_, bytes)) = settled.checked_sub(1).map(|last| versions[last]) {
                put_sector(&mut file.disk, sector, &bytes);
            }
            versions.drain(..settled);
        }
        file.dirty.retain(|_, versions| !versions.is_empty());
        Ok(())
    }

    /// A sync has failed: each sector got to the disk or did not, and the cache calls all of
    /// them clean.
    fn lose_dirty(&mut self, id: u64) {
        let mut file = self.files.remove(&id).expect("an open file is there");
        self.settle(&mut file);
        self.files.insert(id, file);
    }

    /// Draws what is on the disk of everything not synced, and forgets the rest.
    fn settle(&mut self, file: &mut Contents) {
        if self.random() & 1 == 0 {
            file.disk.resize(file.cache.len().max(file.disk.len()), 0);
        }
        for (sector, versions) in std::mem::take(&mut file.dirty) {
            let drawn = self.below(versions.len() + 1);
            if let Some((_, bytes)) = versions.get(drawn) {
                put_sector(&mut file.disk, sector, bytes);
            }
        }
    }

    fn lose_power(&mut self) {
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            let mut file = self.files.remove(&id).expect("the id was just listed");
            self.settle(&mut file);
            file.cache.clone_from(&file.disk);
            self.files.insert(id, file);
        }
        self.names = std::mem::take(&mut self.names_synced);
        for change in std::mem::take(&mut self.changes) {
            if self.random() & 1 == 0 {
                apply(&mut self.names, &change);
            }
        }
        self.names_synced = self.names.clone();
    }

    fn restart(mut self, plan: Plan) -> SimDisk {
        self.plan = plan;
        self.events = 0;
        self.crashed = false;
        self.locked = false;
        SimDisk(Arc::new(Mutex::new(self)))
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
        Ok(io::Cursor::new(world.files[&id].cache.clone()))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let world = self.world();
        let id = world.id(name)?;
        Ok(world.files[&id].cache.len() as u64)
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let id = self.world().new_file(name)?;
        Ok(SimFile {
            disk: self.clone(),
            id,
        })
    }

    fn allocate(&self, name: &str, length: u64) -> io::Result<SimFile> {
        let mut world = self.world();
        let id = world.new_file(name)?;
        world.room_for(length)?;
        let file = world.files.get_mut(&id).expect("it was just made");
        file.cache.resize(length as usize, 0);
        drop(world);
        Ok(SimFile {
            disk: self.clone(),
            id,
        })
    }

    fn map(&self, name: &str) -> io::Result<SimFile> {
        let id = self.world().id(name)?;
        Ok(SimFile {
            disk: self.clone(),
            id,
        })
    }

    fn reread(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let id = world.id(name)?;
        let (version, length) = (world.version, world.files[&id].cache.len());
        world.sync(id, version, length)?;
        let file = world.files.get_mut(&id).expect("a name leads to a file");
        file.cache.clone_from(&file.disk);
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
            world.names_synced = world.names.clone();
            world.changes.clear();
        }
        world.alive()
    }
}

/// A file of a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl Segment for SimFile {
    type Flush = SimFlush;

    fn capacity(&self) -> usize {
        self.disk.world().files[&self.id].cache.len()
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(
            offset + bytes.len() <= self.capacity(),
            "a write beyond the segment"
        );
        self.disk.world().write(self.id, offset, bytes)
    }

    fn flush(&self) -> SimFlush {
        let version = self.disk.world().version;
        SimFlush {
            disk: self.disk.clone(),
            id: self.id,
            version,
            length: self.capacity(),
        }
    }

    fn release(&mut self, _offset: usize) {}
}

impl Writer for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.disk.world();
        world.room_for(bytes.len() as u64)?;
        let end = world.files[&self.id].cache.len();
        world.write(self.id, end, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Segment::flush(self).run()
    }
}

/// A sync of what a [`SimFile`] held when it was asked for: what is written later is not in it.
#[derive(Clone)]
pub struct SimFlush {
    disk: SimDisk,
    id: u64,
    version: u64,
    length: usize,
}

impl Flush for SimFlush {
    fn run(&self) -> io::Result<()> {
        self.disk.world().sync(self.id, self.version, self.length)
    }
}

/// The lock of a [`SimDisk`].
pub struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}

/// The error number of an I/O error, on Linux.
const EIO: i32 = 5;

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    if let Some(name) = &change.remove {
        names.remove(name);
    }
    if let Some((name, id)) = &change.insert {
        names.insert(name.clone(), *id);
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR_BYTES] {
    let start = sector * SECTOR_BYTES;
    let end = bytes.len().min(start + SECTOR_BYTES);
    let mut copy = [0; SECTOR_BYTES];
    copy[..end - start].copy_from_slice(&bytes[start..end]);
    copy
}

/// Puts a sector where it belongs, as far as the file reaches.
fn put_sector(bytes: &mut [u8], sector: usize, content: &[u8; SECTOR_BYTES]) {
    let start = (sector * SECTOR_BYTES).min(bytes.len());
    let end = bytes.len().min(start + SECTOR_BYTES);
    bytes[start..end].copy_from_slice(&content[..end - start]);
}
