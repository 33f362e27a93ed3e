//! Beats by the hundred: the same touches as one by one, in stages over blocks.
//!
//! A touch in a large table waits for memory twice, for the index and then for the session.
//! Here a block of them takes each step together (hash all, load all index lines, load all
//! sessions, then check and store), so that the waits overlap. Every entry goes through all
//! stages, the first of a batch like the last. The early stages only guess, by the tag in
//! the index; the last one checks the guess as a touch alone does, and if it was wrong looks
//! again in full.

use std::hash::BuildHasher;
use std::hint::black_box;

use super::index::{Index, Place};
use super::slots::State;
use super::table::Table;
use super::{Failure, Slot, Touch, Tracker};
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
        let way = Way {
            place: |table: &Table<G, S>, id| table.place_of_id(id),
            index: Table::ids,
            is: |table: &Table<G, S>, slot, id| table.has_id(slot, id),
        };
        self.touch_staged(ids.into_iter(), now, &way, on_failure)
    }

    /// Touches the sessions of these (group, member) names at `now`, and calls `on_failure`
    /// with the position of each that could not be. Returns how many were touched.
    pub fn touch_names<'a>(
        &mut self,
        names: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        now: Millis,
        on_failure: impl FnMut(usize, Failure),
    ) -> usize {
        let way = Way {
            place: |table: &Table<G, S>, (group, member)| table.place_of_name(group, member),
            index: Table::names,
            is: |table: &Table<G, S>, slot, (group, member)| table.is_named(slot, group, member),
        };
        self.touch_staged(names.into_iter(), now, &way, on_failure)
    }

    /// Brings into cache what touching the sessions of these names will need. Changes nothing;
    /// names that are nobody's do no harm.
    pub fn expect<'a>(&self, names: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
        let way = Way {
            place: |table: &Table<G, S>, (group, member)| table.place_of_name(group, member),
            index: Table::names,
            is: |table: &Table<G, S>, slot, (group, member)| table.is_named(slot, group, member),
        };
        let mut names = names.into_iter();
        let mut block: [Option<NamedLane<'_>>; BLOCK] = [None; BLOCK];
        loop {
            let mut count = 0;
            for (lane, key) in block.iter_mut().zip(&mut names) {
                let place = (way.place)(&self.table, key);
                let guess = None;
                *lane = Some(Lane { key, place, guess });
                count += 1;
            }
            self.warm(&mut block[..count], &way);
            if count < BLOCK {
                return;
            }
        }
    }

    fn touch_staged<K, P, V>(
        &mut self,
        mut keys: impl Iterator<Item = K>,
        now: Millis,
        way: &Way<G, S, P, V>,
        mut on_failure: impl FnMut(usize, Failure),
    ) -> usize
    where
        K: Copy,
        P: Fn(&Table<G, S>, K) -> Place,
        V: Fn(&Table<G, S>, Slot, K) -> bool,
    {
        let lived = self.lived(now);
        let mut block: [Option<Lane<K>>; BLOCK] = [None; BLOCK];
        let mut touched = 0;
        for begin in (0..).step_by(BLOCK) {
            let mut count = 0;
            for (lane, key) in block.iter_mut().zip(&mut keys) {
                let place = (way.place)(&self.table, key);
                let guess = None;
                *lane = Some(Lane { key, place, guess });
                count += 1;
            }
            let lanes = &mut block[..count];
            self.warm(lanes, way);
            for (at, &lane) in (begin..).zip(lanes.iter().flatten()) {
                let slot = self.settle(lane, way);
                let failure = match slot.map(|slot| self.touch_lived(slot, lived)) {
                    Some(Touch::Live) => {
                        touched += 1;
                        continue;
                    }
                    Some(Touch::Closing) => Failure::Closing,
                    None => Failure::Unknown,
                };
                on_failure(at, failure);
            }
            if count < BLOCK {
                break;
            }
        }
        touched
    }

    /// Brings into cache the index lines of all lanes, then the sessions they lead to, which
    /// are noted as guesses.
    #[inline]
    fn warm<K, P, V>(&self, lanes: &mut [Option<Lane<K>>], way: &Way<G, S, P, V>) {
        let index = (way.index)(&self.table);
        let mut words = 0;
        for lane in lanes.iter().flatten() {
            words ^= index.warm(lane.place);
        }
        black_box(words);
        let mut states = [State::Free; BLOCK];
        for (lane, state) in lanes.iter_mut().flatten().zip(&mut states) {
            lane.guess = index.find(lane.place, |_| true).map(Slot);
            if let Some(slot) = lane.guess {
                *state = self.table.slots.state(slot);
            }
        }
        black_box(&states);
    }

    /// As [`Tracker::expect`], for the sessions of these ids: what finding and reading them will
    /// need.
    pub fn expect_ids(&self, ids: impl IntoIterator<Item = SessionId>) {
        let way = Way {
            place: (),
            index: Table::ids,
            is: (),
        };
        let mut lanes: [Option<Lane<()>>; BLOCK] = [None; BLOCK];
        let mut count = 0;
        for id in ids {
            let (key, place, guess) = ((), self.table.place_of_id(id), None);
            lanes[count] = Some(Lane { key, place, guess });
            count += 1;
            if count == BLOCK {
                self.warm(&mut lanes, &way);
                count = 0;
            }
        }
        self.warm(&mut lanes[..count], &way);
    }

    /// The session of the lane's key: the guess if it is right, else what a search finds.
    #[inline]
    fn settle<K, P, V>(&self, lane: Lane<K>, way: &Way<G, S, P, V>) -> Option<Slot>
    where
        K: Copy,
        V: Fn(&Table<G, S>, Slot, K) -> bool,
    {
        // Nothing under the tag means no such key; anything else has to be the key's.
        let guess = lane.guess?;
        if (way.is)(&self.table, guess, lane.key) {
            return Some(guess);
        }
        let is = |slot| (way.is)(&self.table, Slot(slot), lane.key);
        (way.index)(&self.table).find(lane.place, is).map(Slot)
    }
}

/// A lane whose key is a group and a member.
type NamedLane<'a> = Lane<(&'a [u8], &'a [u8])>;

/// How keys of one kind are looked for.
struct Way<G, S, P, V> {
    /// Where in the index a key would be.
    place: P,
    /// That index.
    index: fn(&Table<G, S>) -> &Index,
    /// Whether the session in a slot is the key's.
    is: V,
}

/// One touch on its way through the stages.
#[derive(Clone, Copy)]
struct Lane<K> {
    key: K,
    place: Place,
    /// The first session under the key's tag, unchecked.
    guess: Option<Slot>,
}

/// Touches that go through the stages together: enough to keep all of a core's outstanding
/// loads busy, few enough that their lines stay in the first-level cache.
const BLOCK: usize = 64;
