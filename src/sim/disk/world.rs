//! The state of a simulated disk, and what each event does to it.

use super::Plan;
use super::contents::Contents;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

/// Everything there is to a disk. Invariants: `used` is the length of all files that have a name;
/// `names` is `names_synced` with all `changes` made; a file is there while any of the two leads
/// to it, or a handle does.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) plan: Plan,
    random: u64,
    pub(super) events: u64,
    pub(super) crashed: bool,
    pub(super) locked: bool,
    pub(super) version: u64,
    /// Bytes of all files that have a name.
    pub(super) used: u64,
    pub(super) files: Vec<Option<Contents>>,
    /// Places in `files` that are free.
    free: Vec<usize>,
    /// Files that have lost their name for good, but may still be open.
    nameless: Vec<usize>,
    /// The directory as programs see it.
    pub(super) names: BTreeMap<String, usize>,
    /// The directory as of its last sync, and what happened to it since.
    names_synced: BTreeMap<String, usize>,
    changes: Vec<Change>,
}

/// One step in the directory, which a loss of power undoes or does not.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) remove: Option<String>,
    pub(super) insert: Option<(String, usize)>,
}

/// How an event goes.
pub(super) enum Event {
    Whole,
    /// Power is lost in the middle.
    Partly,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> World {
        World {
            plan,
            random: seed.wrapping_add(0x9e37_79b9_7f4a_7c15),
            ..World::default()
        }
    }

    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound as u64) as usize
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        if self.crashed {
            Err(io::Error::other("the power is off"))
        } else {
            Ok(())
        }
    }

    pub(super) fn event(&mut self) -> io::Result<Event> {
        self.alive()?;
        let event = self.events;
        self.events += 1;
        let failing = self.plan.fail_from.is_some_and(|from| event >= from);
        if failing || self.plan.fail_at == Some(event) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if self.plan.crash_at == Some(event) {
            self.crashed = true;
            return Ok(Event::Partly);
        }
        Ok(Event::Whole)
    }

    pub(super) fn id(&self, name: &str) -> io::Result<usize> {
        self.alive()?;
        let id = self.names.get(name).copied();
        id.ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn expect(&self, name: &str) -> usize {
        let id = self.names.get(name);
        *id.expect("the test names a file that is there")
    }

    pub(super) fn file(&self, id: usize) -> &Contents {
        let file = self.files[id].as_ref();
        file.expect("a file with a name or a handle is there")
    }

    pub(super) fn file_mut(&mut self, id: usize) -> &mut Contents {
        let file = self.files[id].as_mut();
        file.expect("a file with a name or a handle is there")
    }

    pub(super) fn room_for(&self, more: u64) -> io::Result<()> {
        match self.plan.capacity {
            Some(capacity) if self.used + more > capacity => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// Reckons anew what is used, after files have changed their lengths.
    pub(super) fn recount(&mut self) {
        let lengths = self.names.values().map(|&id| self.file(id).cache().len());
        self.used = lengths.sum::<usize>() as u64;
    }

    pub(super) fn change_names(&mut self, change: Change) {
        if let Some(id) = change
            .remove
            .as_ref()
            .and_then(|name| self.names.remove(name))
        {
            self.link(id, false);
        }
        if let Some((name, id)) = &change.insert {
            if let Some(replaced) = self.names.insert(name.clone(), *id) {
                self.link(replaced, false);
            }
            self.link(*id, true);
        }
        self.changes.push(change);
    }

    fn link(&mut self, id: usize, linked: bool) {
        let file = self.file_mut(id);
        let length = file.cache().len() as u64;
        match (std::mem::replace(&mut file.linked, linked), linked) {
            (false, true) => self.used += length,
            (true, false) => self.used -= length,
            _ => {}
        }
    }

    pub(super) fn new_file(&mut self, name: &str) -> io::Result<usize> {
        let event = self.event()?;
        let id = self.free.pop().unwrap_or(self.files.len());
        if id == self.files.len() {
            self.files.push(None);
        }
        self.files[id] = Some(Contents::default());
        self.change_names(Change {
            remove: None,
            insert: Some((name.into(), id)),
        });
        match event {
            Event::Whole => Ok(id),
            Event::Partly => self.alive().map(|()| id),
        }
    }

    pub(super) fn write(&mut self, id: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let count = match self.event()? {
            Event::Whole => bytes.len(),
            Event::Partly => self.below(bytes.len() + 1),
        };
        self.version += 1;
        let version = self.version;
        let file = self.file_mut(id);
        let before = file.cache().len();
        file.write(version, offset, &bytes[..count]);
        if file.linked {
            let more = file.cache().len() - before;
            self.used += more as u64;
        }
        self.alive()
    }

    /// Adds zeroes to a file that has a name.
    pub(super) fn extend(&mut self, id: usize, length: u64) {
        let file = self.file_mut(id);
        let before = file.cache().len();
        file.extend(length as usize);
        let more = file.cache().len() - before;
        self.used += more as u64;
    }

    /// Brings everything written up to `version` to the disk.
    pub(super) fn sync(&mut self, id: usize, version: u64, length: usize) -> io::Result<()> {
        let event = self.event();
        if event.is_err() && !self.crashed {
            self.with_random(id, |file, below| file.lose(below));
        }
        if let Event::Partly = event? {
            return self.alive();
        }
        self.file_mut(id).sync(version, length);
        Ok(())
    }

    /// Changes a file by the draw.
    fn with_random(
        &mut self,
        id: usize,
        change: impl Fn(&mut Contents, &mut dyn FnMut(usize) -> usize),
    ) {
        let mut file = self.files[id].take().expect("an open file is there");
        change(&mut file, &mut |bound| self.below(bound));
        self.files[id] = Some(file);
    }

    pub(super) fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            let displaced = apply(&mut self.names_synced, change);
            self.nameless.extend(displaced.into_iter().flatten());
        }
        self.bury();
    }

    /// Frees what no name leads to, in the cache or on the disk, and no open file.
    fn bury(&mut self) {
        let mut nameless = std::mem::take(&mut self.nameless);
        nameless.retain(|&id| match &self.files[id] {
            Some(file) if !file.linked && file.handles == 0 => {
                self.files[id] = None;
                self.free.push(id);
                false
            }
            Some(file) => !file.linked,
            None => false,
        });
        self.nameless = nameless;
    }

    pub(super) fn lose_power(&mut self) {
        for id in 0..self.files.len() {
            if self.files[id].is_some() {
                self.with_random(id, |file, below| {
                    file.settle(below);
                    file.reread();
                });
            }
        }
        self.names = std::mem::take(&mut self.names_synced);
        for change in std::mem::take(&mut self.changes) {
            if self.random() & 1 == 0 {
                apply(&mut self.names, change);
            }
        }
        self.names_synced = self.names.clone();
    }

    /// What the next process finds: no file is open, no lock held, and events count from 0.
    pub(super) fn restart(mut self, plan: Plan) -> World {
        self.plan = plan;
        self.events = 0;
        self.crashed = false;
        self.locked = false;
        for file in self.files.iter_mut().flatten() {
            file.handles = 0;
            file.linked = false;
        }
        for id in self.names.values() {
            let file = self.files[*id].as_mut();
            file.expect("a name leads to a file").linked = true;
        }
        if self.changes.is_empty() {
            self.nameless = (0..self.files.len()).collect();
            self.bury();
        }
        self.recount();
        self
    }
}

/// The error number of an I/O error, on Linux.
const EIO: i32 = 5;

/// Makes a change to a directory; the files that have lost a name by it.
fn apply(names: &mut BTreeMap<String, usize>, change: Change) -> [Option<usize>; 2] {
    let removed = change.remove.and_then(|name| names.remove(&name));
    let replaced = change.insert.and_then(|(name, id)| names.insert(name, id));
    [removed, replaced]
}
