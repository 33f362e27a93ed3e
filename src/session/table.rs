//! Sessions found by name and by id. Time plays no part here.

use std::hash::{BuildHasher, Hasher};

use super::groups::Groups;
use super::index::{Index, Place};
use super::slots::{Header, Slots, State};
use super::{GroupSlot, InsertError, Limits, NewSession, Slot};
use crate::types::SessionId;

/// The slots, and the ways to find them.
///
/// Invariants, each checked when a session is removed:
///
/// 1. every session is in both indexes, once;
/// 2. a group's count is the number of sessions whose header names it;
/// 3. an era's count is the number of sessions whose header names it.
pub(super) struct Table<G, S> {
    pub(super) slots: Slots,
    pub(super) groups: Groups<G>,
    names: Index,
    ids: Index,
    eras: Eras,
    hasher: S,
    sessions: u32,
    sessions_max: u32,
}

/// The distinct upper halves of the session ids, so that a session keeps two bytes for eight.
///
/// There is one for each leader whose sessions still live: a handful.
struct Eras {
    entries: Vec<Era>,
    /// The one used last, and most likely next.
    recent: u16,
}

struct Era {
    value: u64,
    sessions: u32,
}

impl<G, S: BuildHasher> Table<G, S> {
    pub(super) fn new(limits: Limits, hasher: S) -> Table<G, S> {
        Table {
            slots: Slots::new(),
            groups: Groups::new(limits.sessions_max),
            names: Index::new(limits.sessions_max),
            ids: Index::new(limits.sessions_max),
            eras: Eras {
                entries: Vec::new(),
                recent: 0,
            },
            hasher,
            sessions: 0,
            sessions_max: limits.sessions_max,
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self)
    where
        S: Clone,
    {
        let limits = Limits {
            sessions_max: self.sessions_max,
        };
        let new = Table::new(limits, self.hasher.clone());
        let old = std::mem::replace(self, new);
        self.slots = old.slots.cleared();
    }

    /// Takes the session in as live; its `deadline` and `filed` are the caller's to set.
    pub(super) fn insert(
        &mut self,
        new: &NewSession<'_>,
        payload: impl FnOnce() -> G,
    ) -> Result<Slot, InsertError> {
        let by_name = self.place_of_name(new.group, new.member);
        let by_id = self.place_of_id(new.id);
        let named = |slot: u32| self.is_named(Slot(slot), new.group, new.member);
        let numbered = |slot: u32| self.has_id(Slot(slot), new.id);
        let found = self.names.find(by_name, named);
        if let Some(slot) = found.or_else(|| self.ids.find(by_id, numbered)) {
            return Err(InsertError::Exists(Slot(slot)));
        }
        if self.sessions == self.sessions_max {
            return Err(InsertError::Full);
        }
        let timeout_ms = u32::try_from(new.timeout.0).expect("timeouts fit 32 bits");
        let era = self.eras.enter(new.id.era()).ok_or(InsertError::Full)?;
        let header = Header {
            counter: new.id.counter(),
            era,
            name_len: 0,
            state: State::Live,
            group: 0,
            deadline: 0,
            filed: 0,
            timeout_ms,
            term: new.term.0,
        };
        let Some(slot) = self.slots.alloc(header, new.member) else {
            self.eras.leave(era);
            return Err(InsertError::Full);
        };
        let group_hash = hash_group(&self.hasher, new.group);
        let group = self.groups.enter(group_hash, new.group, payload);
        self.slots.write(
            slot,
            Header {
                group: group.0,
                ..self.slots.header(slot)
            },
        );
        self.names.insert(by_name, slot.0);
        self.ids.insert(by_id, slot.0);
        self.sessions += 1;
        Ok(slot)
    }

    /// Lets the session go, and hands back its group's payload if it was the group's last.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<G> {
        let header = self.slots.header(slot);
        assert!(header.state != State::Free, "{slot:?} holds no session");
        let by_id = self.place_of_id(self.id(&header));
        self.remove_at(slot, self.place_of(slot), by_id)
    }

    /// The same, for who has worked out where the indexes have it.
    pub(super) fn remove_at(&mut self, slot: Slot, by_name: Place, by_id: Place) -> Option<G> {
        let header = self.slots.header(slot);
        let group = GroupSlot(header.group);
        let was_named = self.names.remove(by_name, slot.0);
        assert!(was_named, "the name index lost {slot:?}");
        let was_numbered = self.ids.remove(by_id, slot.0);
        assert!(was_numbered, "the id index lost {slot:?}");
        self.eras.leave(header.era);
        self.slots.free(slot);
        self.sessions -= 1;
        let hasher = &self.hasher;
        self.groups.leave(group, |name| hash_group(hasher, name))
    }

    /// Where in the name index the session in the slot is.
    pub(super) fn place_of(&self, slot: Slot) -> Place {
        let (header, member) = self.slots.named(slot);
        self.place_of_name(self.groups.name(GroupSlot(header.group)), member)
    }

    #[inline]
    pub(super) fn find(&self, group: &[u8], member: &[u8]) -> Option<Slot> {
        let place = self.place_of_name(group, member);
        let is = |slot: u32| self.is_named(Slot(slot), group, member);
        self.names.find(place, is).map(Slot)
    }

    #[inline]
    pub(super) fn find_id(&self, id: SessionId) -> Option<Slot> {
        let is = |slot: u32| self.has_id(Slot(slot), id);
        self.ids.find(self.place_of_id(id), is).map(Slot)
    }

    pub(super) fn find_group(&self, name: &[u8]) -> Option<GroupSlot> {
        self.groups.find(hash_group(&self.hasher, name), name)
    }

    /// The id of the session whose header this is.
    #[inline]
    pub(super) fn id(&self, header: &Header) -> SessionId {
        SessionId::from_parts(self.eras.value(header.era), header.counter)
    }

    pub(super) fn len(&self) -> usize {
        self.sessions as usize
    }

    /// Bytes of the name index and of the id index.
    pub(super) fn index_bytes(&self) -> (usize, usize) {
        (self.names.memory_bytes(), self.ids.memory_bytes())
    }

    /// The index by group and member.
    #[inline]
    pub(super) fn names(&self) -> &Index {
        &self.names
    }

    /// The index by session id.
    #[inline]
    pub(super) fn ids(&self) -> &Index {
        &self.ids
    }

    /// Where in the name index a member would be.
    #[inline]
    pub(super) fn place_of_name(&self, group: &[u8], member: &[u8]) -> Place {
        self.names.place(self.hash_name(group, member))
    }

    /// The hash under which a member is in the name index.
    #[inline]
    pub(super) fn hash_name(&self, group: &[u8], member: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        // Each write mixes in its length, so the border between the two names counts; and
        // were it not so, a hit is checked against both.
        hasher.write(group);
        hasher.write(member);
        hasher.finish()
    }

    /// Where in the id index a session would be.
    #[inline]
    pub(super) fn place_of_id(&self, id: SessionId) -> Place {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u128(id.0);
        self.ids.place(hasher.finish())
    }

    /// True if the session in the slot is the member's.
    #[inline(always)]
    pub(super) fn is_named(&self, slot: Slot, group: &[u8], member: &[u8]) -> bool {
        let (header, name) = self.slots.named(slot);
        name == member && self.groups.name(GroupSlot(header.group)) == group
    }

    /// True if there is a session in the slot, and it has this id.
    pub(super) fn holds(&self, slot: Slot, id: SessionId) -> bool {
        let header = self.slots.header(slot);
        header.state != State::Free && self.id(&header) == id
    }

    /// True if the session in the slot has this id.
    #[inline]
    pub(super) fn has_id(&self, slot: Slot, id: SessionId) -> bool {
        self.id(&self.slots.header(slot)) == id
    }

    /// Moves the session's deadline as [`Slots::extend`] does if it has this id.
    #[inline]
    pub(super) fn extend_if_id(
        &mut self,
        slot: Slot,
        id: SessionId,
        deadline: impl FnOnce(u32) -> u32,
    ) -> Option<State> {
        let eras = &self.eras;
        let is_it = |counter, era| SessionId::from_parts(eras.value(era), counter) == id;
        self.slots.extend_if(slot, is_it, deadline)
    }
}

impl Eras {
    /// Counts one more session of the era and returns its number; `None` when 65,536 other
    /// eras have sessions.
    fn enter(&mut self, value: u64) -> Option<u16> {
        let is_it = |era: &Era| era.value == value;
        let recent = self.entries.get(usize::from(self.recent));
        let at = if recent.is_some_and(is_it) {
            usize::from(self.recent)
        } else if let Some(at) = self.entries.iter().position(is_it) {
            at
        } else if let Some(at) = self.entries.iter().position(|era| era.sessions == 0) {
            self.entries[at].value = value;
            at
        } else {
            self.entries.push(Era { value, sessions: 0 });
            self.entries.len() - 1
        };
        let Ok(number) = u16::try_from(at) else {
            self.entries.pop();
            return None;
        };
        self.entries[at].sessions += 1;
        self.recent = number;
        Some(number)
    }

    fn leave(&mut self, number: u16) {
        let era = &mut self.entries[usize::from(number)];
        assert!(era.sessions > 0, "an era in use has sessions");
        era.sessions -= 1;
    }

    #[inline]
    fn value(&self, number: u16) -> u64 {
        self.entries[usize::from(number)].value
    }
}

fn hash_group<S: BuildHasher>(hasher: &S, name: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(name);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eras_are_counted_and_their_numbers_used_again() {
        let mut eras = Eras {
            entries: Vec::new(),
            recent: 0,
        };
        assert_eq!(
            [7, 8, 7].map(|era| eras.enter(era)),
            [Some(0), Some(1), Some(0)]
        );
        eras.leave(0);
        assert_eq!(eras.enter(9), Some(2), "era 7 has a session still");
        eras.leave(0);
        assert_eq!(eras.enter(10), Some(0));
        assert_eq!(eras.enter(7), Some(3));
        assert_eq!([0, 1, 2, 3].map(|number| eras.value(number)), [10, 8, 9, 7]);
    }

    #[test]
    fn more_eras_than_numbers_are_refused() {
        let mut eras = Eras {
            entries: (0..65_536)
                .map(|value| Era { value, sessions: 1 })
                .collect(),
            recent: 0,
        };
        assert_eq!(eras.enter(1 << 40), None);
        assert_eq!(eras.enter(65_535), Some(65_535));
        eras.leave(3);
        assert_eq!(eras.enter(1 << 40), Some(3));
    }
}
