//! Beats by the hundred: the same touches as one by one, many under way at a time.
//!
//! A touch in a large table waits for memory twice, for the index and then for the session.
//! Here the steps of one touch (hash and have the index line fetched, search that and have the
//! session fetched, then check and store) lie some touches apart, and what they wait for comes
//! meanwhile. Every entry goes through all steps, the first of a batch like the last. The early
//! ones only guess, by the tag in the index; the last one checks the guess as a touch alone
//! does, and if it was wrong looks again in full.

use std::hash::BuildHasher;
use std::iter::FusedIterator;

use super::index::{Index, Place};
use super::slots::{State, is_before};
use super::table::Table;
use super::tracker::{deadline, touch_of};
use super::{Failure, GroupSlot, Slot, Touch, Tracker};
use crate::time::Millis;
use crate::types::SessionId;

impl<G, S: BuildHasher> Tracker<G, S> {
    /// Touches the sessions of these ids at `now`, and calls `on_failure` with the position
    /// of each that could not be. Returns how many were touched.
    pub fn touch_ids(
        &mut self,
        ids: impl IntoIterator<Item = SessionId>,
        now: Millis,
        on_failure: impl FnMut(usize, Failure),
    ) -> usize {
        self.touch_staged(ids.into_iter().fuse(), now, on_failure)
    }

    /// Touches the sessions of these (group, member) names at `now`, and calls `on_failure`
    /// with the position of each that could not be. Returns how many were touched.
    pub fn touch_names<'a>(
        &mut self,
        names: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        now: Millis,
        on_failure: impl FnMut(usize, Failure),
    ) -> usize {
        self.touch_staged(names.into_iter().fuse(), now, on_failure)
    }

    /// Brings into cache what touching the sessions of these names will need. Changes nothing;
    /// names that are nobody's do no harm.
    pub fn expect<'a>(&self, names: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
        self.expect_keys(names.into_iter().fuse());
    }

    /// As [`Tracker::expect`], for the sessions of these ids: what finding and reading them will
    /// need.
    pub fn expect_ids(&self, ids: impl IntoIterator<Item = SessionId>) {
        self.expect_keys(ids.into_iter().fuse());
    }

    fn expect_keys<K: Key<G, S>>(&self, mut keys: impl FusedIterator<Item = K>) {
        let mut lanes = Lanes::default();
        while !self.go_on(&mut lanes, &mut keys).is_last {}
    }

    fn touch_staged<K: Key<G, S>>(
        &mut self,
        mut keys: impl FusedIterator<Item = K>,
        now: Millis,
        mut on_failure: impl FnMut(usize, Failure),
    ) -> usize {
        let mut moment = self.moment(now);
        let mut lanes = Lanes::default();
        let (mut at, mut touched) = (0, 0);
        loop {
            let Ready { lanes, is_last } = self.go_on(&mut lanes, &mut keys);
            for &lane in lanes {
                match self.settle(lane, &mut moment) {
                    Some(Touch::Live) => touched += 1,
                    Some(Touch::Closing) => on_failure(at, Failure::Closing),
                    None => on_failure(at, Failure::Unknown),
                }
                at += 1;
            }
            if is_last {
                return touched;
            }
        }
    }

    /// Takes in some keys, leads those of the last time one step on, and gives back those of
    /// the time before it, whose sessions should have come by now.
    #[inline]
    fn go_on<'l, K: Key<G, S>>(
        &self,
        lanes: &'l mut Lanes<K>,
        keys: &mut impl FusedIterator<Item = K>,
    ) -> Ready<'l, K> {
        let index = K::index(&self.table);
        let (newest, older, oldest) = lanes.turn();
        newest.len = 0;
        for (lane, key) in newest.lanes.iter_mut().zip(keys) {
            let place = key.place(&self.table);
            index.warm(place);
            let guess = None;
            *lane = Lane { key, place, guess };
            newest.len += 1;
        }
        for lane in &mut older.lanes[..older.len] {
            lane.guess = self.guess(index, lane.place);
        }
        Ready {
            lanes: &oldest.lanes[..oldest.len],
            is_last: newest.len + older.len == 0,
        }
    }

    /// The first session under the tag, which is fetched: mostly the one that is sought.
    #[inline(always)]
    fn guess(&self, index: &Index, place: Place) -> Option<Slot> {
        let slot = Slot(index.find(place, |_| true)?);
        self.table.slots.warm(slot);
        Some(slot)
    }

    /// Touches the session of the lane's key: the guess if it is right, else what a search finds.
    #[inline]
    fn settle<K: Key<G, S>>(&mut self, lane: Lane<K>, moment: &mut Moment) -> Option<Touch> {
        // Nothing under the tag means no such key; anything else has to be the key's.
        let guess = lane.guess?;
        if let Some(state) = lane.key.touch(&mut self.table, guess, moment) {
            return Some(touch_of(guess, state));
        }
        let is = |slot| lane.key.is_of(&self.table, Slot(slot));
        let found = K::index(&self.table).find(lane.place, is).map(Slot)?;
        Some(self.touch_at(found, moment))
    }
}

/// The stages one by one, for who does something with each session that is reached.
impl<G, S: BuildHasher> Tracker<G, S> {
    /// Begins to look for a member's session.
    #[inline]
    pub fn seek<'a>(&self, group: &'a [u8], member: &'a [u8]) -> Sought<'a> {
        Sought::new(group, member, self.hash_name(group, member))
    }

    /// What [`Sought::new`] wants to know.
    #[inline]
    #[must_use]
    pub fn hash_name(&self, group: &[u8], member: &[u8]) -> NameHash {
        NameHash(self.table.hash_name(group, member))
    }

    /// Goes on with that for all together: brings into cache what each needs, as
    /// [`Tracker::touch_names`] does.
    ///
    /// The loop does little but fetch. A prefetch whose page is not in the TLB holds back what
    /// comes after it until the page's address is found; in a short loop the next few are begun
    /// meanwhile, and with the reading of a request between two of them each is waited for.
    #[inline]
    pub fn approach(&self, sought: &mut [Sought<'_>]) {
        let index = self.table.names();
        let begin = |one: &mut Sought<'_>| {
            one.place = index.place(one.hash.0);
            index.warm(one.place);
        };
        let go_on = |one: &mut Sought<'_>| one.guess = self.guess(index, one.place);
        let len = sought.len();
        let ahead = AHEAD.min(len);
        sought[..ahead].iter_mut().for_each(begin);
        for at in ahead..len {
            begin(&mut sought[at]);
            go_on(&mut sought[at - ahead]);
        }
        sought[len - ahead..].iter_mut().for_each(go_on);
    }

    /// Ends it: touches the session, and gives what the answer to its beat needs. `None`, and
    /// nothing is touched, if there is no such session or it is closing.
    ///
    /// It must have been approached, and no session have come or gone since it was begun.
    #[inline]
    pub fn reach(&mut self, sought: &Sought<'_>, moment: &mut Moment) -> Option<Reached<'_, G>> {
        let slot = self.found(sought)?;
        let header = self.table.slots.header(slot);
        if header.state != State::Live {
            return None;
        }
        // Before the store, behind which the compiler would have all of it read again.
        let id = self.table.id(&header);
        let group = self.table.groups.payload(GroupSlot(header.group));
        let deadline = moment.deadline(header.timeout_ms);
        if is_before(header.deadline, deadline) {
            self.table.slots.set_deadline(slot, deadline);
        }
        Some(Reached {
            id,
            timeout: Millis(u64::from(header.timeout_ms)),
            group,
        })
    }

    /// The session that was sought, if it is here: as [`Tracker::reach`], and nothing is touched.
    #[inline]
    #[must_use]
    pub fn found(&self, sought: &Sought<'_>) -> Option<Slot> {
        let Sought { group, member, .. } = *sought;
        let slot = sought.guess?;
        if self.table.is_named(slot, group, member) {
            return Some(slot);
        }
        self.table.find(group, member)
    }

    /// The present, for [`Tracker::reach`].
    #[inline]
    #[must_use]
    pub fn moment(&self, now: Millis) -> Moment {
        Moment {
            lived: self.lived(now),
            last: None,
        }
    }
}

/// A member whose session is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sought<'a> {
    group: &'a [u8],
    member: &'a [u8],
    hash: NameHash,
    place: Place,
    /// The first session under the name's tag, unchecked.
    guess: Option<Slot>,
}

impl<'a> Sought<'a> {
    /// Of these names, which have this hash.
    #[inline]
    #[must_use]
    pub fn new(group: &'a [u8], member: &'a [u8], hash: NameHash) -> Sought<'a> {
        Sought {
            group,
            member,
            hash,
            place: Place::default(),
            guess: None,
        }
    }
}

/// A point in time, and what was last worked out from it: the sessions of a shard have few
/// timeouts.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    lived: Millis,
    /// A timeout, and when a session of that timeout is due that is touched now.
    last: Option<(u32, u32)>,
}

impl Moment {
    #[inline]
    pub(super) fn deadline(&mut self, timeout_ms: u32) -> u32 {
        match self.last {
            Some((last_ms, deadline)) if last_ms == timeout_ms => deadline,
            _ => {
                let deadline = deadline(self.lived, Millis(u64::from(timeout_ms)));
                self.last = Some((timeout_ms, deadline));
                deadline
            }
        }
    }
}

/// The hash of a group and a member in one tracker, the same as long as that lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameHash(u64);

/// A session that was touched.
#[derive(Debug)]
pub struct Reached<'t, G> {
    /// Its id.
    pub id: SessionId,
    /// The time without a beat after which it is expired.
    pub timeout: Millis,
    /// What is kept of its group.
    pub group: &'t G,
}

/// What a session is looked for by.
trait Key<G, S>: Copy + Default {
    /// The index that leads from keys of this kind to sessions.
    fn index(table: &Table<G, S>) -> &Index;
    /// Where in the index the key would be.
    fn place(self, table: &Table<G, S>) -> Place;
    /// True if the session in the slot is the key's.
    fn is_of(self, table: &Table<G, S>, slot: Slot) -> bool;
    /// If it is, touches it, in the same look, and says what state it is in.
    fn touch(self, table: &mut Table<G, S>, slot: Slot, moment: &mut Moment) -> Option<State>;
}

impl<G, S: BuildHasher> Key<G, S> for SessionId {
    #[inline]
    fn index(table: &Table<G, S>) -> &Index {
        table.ids()
    }

    #[inline]
    fn place(self, table: &Table<G, S>) -> Place {
        table.place_of_id(self)
    }

    #[inline]
    fn is_of(self, table: &Table<G, S>, slot: Slot) -> bool {
        table.has_id(slot, self)
    }

    #[inline]
    fn touch(self, table: &mut Table<G, S>, slot: Slot, moment: &mut Moment) -> Option<State> {
        let deadline = |timeout_ms| moment.deadline(timeout_ms);
        table.extend_if_id(slot, self, deadline)
    }
}

/// A group and a member.
impl<G, S: BuildHasher> Key<G, S> for (&[u8], &[u8]) {
    #[inline]
    fn index(table: &Table<G, S>) -> &Index {
        table.names()
    }

    #[inline]
    fn place(self, table: &Table<G, S>) -> Place {
        table.place_of_name(self.0, self.1)
    }

    #[inline]
    fn is_of(self, table: &Table<G, S>, slot: Slot) -> bool {
        table.is_named(slot, self.0, self.1)
    }

    #[inline]
    fn touch(self, table: &mut Table<G, S>, slot: Slot, moment: &mut Moment) -> Option<State> {
        let deadline = |timeout_ms| moment.deadline(timeout_ms);
        let is_it = table.is_named(slot, self.0, self.1);
        is_it.then(|| table.slots.extend(slot, deadline))
    }
}

/// The touches under way, in three blocks: one in each step.
struct Lanes<K> {
    blocks: [Block<K>; 3],
    /// Which block is the newest.
    newest: usize,
}

/// Touches that take each step together.
#[derive(Clone, Copy)]
struct Block<K> {
    lanes: [Lane<K>; AHEAD],
    len: usize,
}

/// One touch under way.
#[derive(Clone, Copy, Default)]
struct Lane<K> {
    key: K,
    place: Place,
    /// The first session under the key's tag, unchecked.
    guess: Option<Slot>,
}

/// What has come through the steps.
struct Ready<'l, K> {
    lanes: &'l [Lane<K>],
    /// Nothing is left behind it.
    is_last: bool,
}

impl<K: Copy + Default> Default for Lanes<K> {
    fn default() -> Lanes<K> {
        let empty = Block {
            lanes: [Lane::default(); AHEAD],
            len: 0,
        };
        Lanes {
            blocks: [empty; 3],
            newest: 0,
        }
    }
}

impl<K> Lanes<K> {
    /// Makes the oldest block the newest. Gives the newest, the one before it and the oldest.
    #[inline]
    fn turn(&mut self) -> (&mut Block<K>, &mut Block<K>, &mut Block<K>) {
        self.newest = (self.newest + 1) % 3;
        let [a, b, c] = &mut self.blocks;
        match self.newest {
            0 => (a, c, b),
            1 => (b, a, c),
            _ => (c, b, a),
        }
    }
}

/// Touches between two steps of one: enough that what it waits for has come, and that a core's
/// outstanding loads are all in use.
const AHEAD: usize = 16;
