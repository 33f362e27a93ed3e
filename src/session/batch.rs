//! Beats by the hundred: the same touches as one by one, in stages over blocks.
//!
//! A touch in a large table waits for memory twice, for the index and then for the session.
//! Here a block of them takes each step together (hash all, load all index lines, load all
//! sessions, then check and store), so that the waits overlap. Every entry goes through all
//! stages, the first of a batch like the last; the early stages only bring lines into cache
//! and decide nothing.

use std::hash::BuildHasher;
use std::hint::black_box;

use super::index::Place;
use super::slots::State;
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
        self.touch_staged(ids, now, &ById, on_failure)
    }

    /// Touches the sessions of these (group, member) names at `now`, and calls `on_failure`
    /// with the position of each that could not be. Returns how many were touched.
    pub fn touch_names<'a>(
        &mut self,
        names: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        now: Millis,
        on_failure: impl FnMut(usize, Failure),
    ) -> usize {
        self.touch_staged(names, now, &ByName, on_failure)
    }

    fn touch_staged<K: Copy, W: Way<K>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
        now: Millis,
        way: &W,
        mut on_failure: impl FnMut(usize, Failure),
    ) -> usize {
        let lived = self.lived(now);
        let mut keys = keys.into_iter();
        let Some(first) = keys.next() else {
            return 0;
        };
        // Whatever is left in a place or a key beyond `count` is an older one, and harmless.
        let mut block = [(first, way.place(self, first)); BLOCK];
        let mut count = 1;
        let mut done = 0;
        let mut touched = 0;
        loop {
            for (lane, key) in block[count..].iter_mut().zip(&mut keys) {
                *lane = (key, way.place(self, key));
                count += 1;
            }
            if count == 0 {
                return touched;
            }
            let lanes = &block[..count];
            self.warm(lanes, way);
            for (lane, &(key, place)) in lanes.iter().enumerate() {
                let failure = match way.find(self, place, key) {
                    None => Failure::Unknown,
                    Some(slot) => match self.touch_lived(slot, lived) {
                        Touch::Live => {
                            touched += 1;
                            continue;
                        }
                        Touch::Closing => Failure::Closing,
                    },
                };
                on_failure(done + lane, failure);
            }
            done += count;
            count = 0;
        }
    }

    /// Brings the index words of all lanes into cache, then the sessions they lead to.
    #[inline]
    fn warm<K: Copy, W: Way<K>>(&self, lanes: &[(K, Place)], way: &W) {
        let mut words = 0;
        for &(_, place) in lanes {
            words ^= way.warm(self, place);
        }
        black_box(words);
        let mut states = [State::Free; BLOCK];
        for (state, &(_, place)) in states.iter_mut().zip(lanes) {
            if let Some(slot) = way.guess(self, place) {
                *state = self.table.slots.state(slot);
            }
        }
        black_box(&states);
    }
}

/// A way to find a session: what differs between names and ids.
trait Way<K> {
    fn place<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, key: K) -> Place;
    fn warm<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, place: Place) -> u64;
    fn guess<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, place: Place) -> Option<Slot>;
    fn find<G, S: BuildHasher>(
        &self,
        tracker: &Tracker<G, S>,
        place: Place,
        key: K,
    ) -> Option<Slot>;
}

struct ByName;
struct ById;

impl<'a> Way<(&'a [u8], &'a [u8])> for ByName {
    #[inline]
    fn place<G, S: BuildHasher>(
        &self,
        tracker: &Tracker<G, S>,
        (group, member): (&'a [u8], &'a [u8]),
    ) -> Place {
        tracker.table.place_of_name(group, member)
    }

    #[inline]
    fn warm<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, place: Place) -> u64 {
        tracker.table.warm_name(place)
    }

    #[inline]
    fn guess<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, place: Place) -> Option<Slot> {
        tracker.table.guess_name(place)
    }

    #[inline]
    fn find<G, S: BuildHasher>(
        &self,
        tracker: &Tracker<G, S>,
        place: Place,
        (group, member): (&'a [u8], &'a [u8]),
    ) -> Option<Slot> {
        tracker.table.find_at(place, group, member)
    }
}

impl Way<SessionId> for ById {
    #[inline]
    fn place<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, id: SessionId) -> Place {
        tracker.table.place_of_id(id)
    }

    #[inline]
    fn warm<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, place: Place) -> u64 {
        tracker.table.warm_id(place)
    }

    #[inline]
    fn guess<G, S: BuildHasher>(&self, tracker: &Tracker<G, S>, place: Place) -> Option<Slot> {
        tracker.table.guess_id(place)
    }

    #[inline]
    fn find<G, S: BuildHasher>(
        &self,
        tracker: &Tracker<G, S>,
        place: Place,
        id: SessionId,
    ) -> Option<Slot> {
        tracker.table.find_id_at(place, id)
    }
}

/// Touches that go through the stages together: enough to keep all of a core's outstanding
/// loads busy, few enough that their lines stay in the first-level cache.
const BLOCK: usize = 32;
