//! The groups that have sessions here, each with what the shard keeps of it.

use super::GroupSlot;
use super::index::{Index, Place};
use super::paged::Paged;

/// Group names, each with a payload and the number of its sessions.
///
/// A group is here exactly while it has sessions: the registry needs no cleaning.
pub(super) struct Groups<G> {
    entries: Paged<Entry<G>>,
    /// Head of the list of unused entries.
    free: u32,
    index: Index,
    len: usize,
}

enum Entry<G> {
    Used(Group<G>),
    Free { next: u32 },
}

struct Group<G> {
    name: Name,
    sessions: u32,
    payload: G,
}

/// A group's name, in place if short: a beat compares it, and with many groups each step to
/// another place is a cache miss.
enum Name {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Box<[u8]>),
}

impl<G> Groups<G> {
    pub(super) fn new(groups_max: u32) -> Groups<G> {
        Groups {
            entries: Paged::new(),
            free: NIL,
            index: Index::new(groups_max),
            len: 0,
        }
    }

    /// The group of this name, whose hash is `hash`.
    pub(super) fn find(&self, hash: u64, name: &[u8]) -> Option<GroupSlot> {
        let place = self.index.place(hash);
        self.find_at(place, name)
    }

    /// Counts one more session of the group, adding the group if it has none yet.
    pub(super) fn enter(
        &mut self,
        hash: u64,
        name: &[u8],
        payload: impl FnOnce() -> G,
    ) -> GroupSlot {
        let place = self.index.place(hash);
        if let Some(slot) = self.find_at(place, name) {
            self.group_mut(slot).sessions += 1;
            return slot;
        }
        let slot = self.add(Group {
            name: Name::new(name),
            sessions: 1,
            payload: payload(),
        });
        self.index.insert(place, slot.0);
        self.len += 1;
        slot
    }

    /// Counts one session less. When that was the last, the group goes and its payload is
    /// handed back. `hash_of` hashes the name as it was hashed to enter.
    pub(super) fn leave(
        &mut self,
        slot: GroupSlot,
        hash_of: impl FnOnce(&[u8]) -> u64,
    ) -> Option<G> {
        let group = self.group_mut(slot);
        assert!(group.sessions > 0, "a group here has sessions");
        group.sessions -= 1;
        if group.sessions > 0 {
            return None;
        }
        let place = self.index.place(hash_of(self.name(slot)));
        let was_there = self.index.remove(place, slot.0);
        assert!(was_there, "the index lost {slot:?}");
        self.len -= 1;
        let unused = Entry::Free { next: self.free };
        self.free = slot.0;
        match std::mem::replace(self.entries.at_mut(slot.0), unused) {
            Entry::Used(group) => Some(group.payload),
            Entry::Free { .. } => unreachable!("`group_mut` found it in use"),
        }
    }

    #[inline]
    pub(super) fn name(&self, slot: GroupSlot) -> &[u8] {
        self.group(slot).name.bytes()
    }

    pub(super) fn sessions(&self, slot: GroupSlot) -> u32 {
        self.group(slot).sessions
    }

    #[inline]
    pub(super) fn payload(&self, slot: GroupSlot) -> &G {
        &self.group(slot).payload
    }

    pub(super) fn payload_mut(&mut self, slot: GroupSlot) -> &mut G {
        &mut self.group_mut(slot).payload
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the registry; long names and what payloads own elsewhere are not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.memory_bytes() + self.index.memory_bytes()
    }

    fn find_at(&self, place: Place, name: &[u8]) -> Option<GroupSlot> {
        self.index
            .find(place, |slot| self.name(GroupSlot(slot)) == name)
            .map(GroupSlot)
    }

    fn add(&mut self, group: Group<G>) -> GroupSlot {
        if self.free == NIL {
            return GroupSlot(self.entries.push(Entry::Used(group)));
        }
        let slot = GroupSlot(self.free);
        match std::mem::replace(self.entries.at_mut(slot.0), Entry::Used(group)) {
            Entry::Free { next } => self.free = next,
            Entry::Used(_) => unreachable!("the free list holds unused entries"),
        }
        slot
    }

    #[inline]
    fn group(&self, slot: GroupSlot) -> &Group<G> {
        match self.entries.at(slot.0) {
            Entry::Used(group) => group,
            Entry::Free { .. } => panic!("{slot:?} has no sessions"),
        }
    }

    fn group_mut(&mut self, slot: GroupSlot) -> &mut Group<G> {
        match self.entries.at_mut(slot.0) {
            Entry::Used(group) => group,
            Entry::Free { .. } => panic!("{slot:?} has no sessions"),
        }
    }
}

impl Name {
    fn new(name: &[u8]) -> Name {
        assert!(
            (1..=255).contains(&name.len()),
            "a name has 1 to 255 bytes, not {}",
            name.len()
        );
        let mut bytes = [0; SHORT_MAX];
        match bytes.get_mut(..name.len()) {
            Some(place) => {
                place.copy_from_slice(name);
                let len = name.len() as u8;
                Name::Short { len, bytes }
            }
            None => Name::Long(name.into()),
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Name::Short { len, bytes } => &bytes[..usize::from(*len)],
            Name::Long(bytes) => bytes,
        }
    }
}

/// The longest name kept in place: with an 8-byte payload an entry is 48 bytes.
const SHORT_MAX: usize = 30;
/// No entry.
const NIL: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(name: &[u8]) -> u64 {
        name.len() as u64
    }

    #[test]
    fn a_group_is_there_exactly_while_it_has_sessions() {
        let mut groups = Groups::new(10);
        let a = groups.enter(1, b"a", || "first");
        assert_eq!(groups.enter(1, b"a", || "not asked for"), a);
        assert_eq!((groups.sessions(a), groups.len()), (2, 1));
        assert_eq!(groups.find(1, b"a"), Some(a));
        assert_eq!(groups.find(1, b"b"), None);
        assert_eq!(groups.leave(a, hash), None);
        assert_eq!(groups.payload(a), &"first");
        assert_eq!(groups.leave(a, hash), Some("first"));
        assert_eq!((groups.find(1, b"a"), groups.len()), (None, 0));
        let b = groups.enter(1, b"b", || "second");
        assert_eq!(b, a, "the entry is used again");
        *groups.payload_mut(b) = "changed";
        assert_eq!(groups.payload(b), &"changed");
    }

    #[test]
    fn names_of_every_length_are_kept() {
        let mut groups = Groups::new(10);
        let name = |len: usize| vec![b'a' + (len % 26) as u8; len];
        for len in 1..=255 {
            let slot = groups.enter(len as u64, &name(len), || len);
            assert_eq!(groups.name(slot), name(len));
        }
        for len in 1..=255 {
            let slot = groups.find(len as u64, &name(len)).unwrap();
            assert_eq!(groups.leave(slot, hash), Some(len));
        }
    }

    #[test]
    #[should_panic(expected = "1 to 255")]
    fn an_empty_name_is_refused() {
        Groups::new(10).enter(0, b"", || ());
    }

    #[test]
    #[should_panic(expected = "no sessions")]
    fn a_group_that_went_is_not_read() {
        let mut groups = Groups::new(10);
        let slot = groups.enter(1, b"a", || ());
        groups.leave(slot, hash);
        groups.name(slot);
    }

    #[test]
    fn an_entry_with_a_pointer_for_payload_takes_48_bytes() {
        assert_eq!(size_of::<Entry<Box<u8>>>(), 48);
    }
}
