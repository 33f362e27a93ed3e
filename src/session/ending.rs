//! Sessions that end by the hundred: each step is taken for a block of them, so that the waits
//! for memory overlap, as those of beats do in [`super::batch`].

use std::hash::BuildHasher;

use super::index::Place;
use super::{SessionView, Slot, Tracker};
use crate::types::SessionId;

/// A session on its way out.
#[derive(Clone, Copy, Default)]
struct Lane {
    id: SessionId,
    by_id: Place,
    by_name: Place,
    slot: Option<Slot>,
}

impl<G, S: BuildHasher> Tracker<G, S> {
    /// Brings into cache the sessions of these slots, which need not hold any.
    pub fn expect_slots(&self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            self.table.slots.warm(slot);
        }
    }

    /// Lets the sessions of these ids go, those that are here; `each` sees them before.
    pub fn remove_ids(&mut self, ids: &[SessionId], mut each: impl FnMut(&SessionView<'_>)) {
        let mut lanes = [Lane::default(); BLOCK];
        for ids in ids.chunks(BLOCK) {
            let lanes = &mut lanes[..ids.len()];
            for (lane, &id) in lanes.iter_mut().zip(ids) {
                let by_id = self.table.place_of_id(id);
                self.table.ids().warm(by_id);
                *lane = Lane {
                    id,
                    by_id,
                    ..Lane::default()
                };
            }
            for lane in &mut *lanes {
                let guess = self.table.ids().find(lane.by_id, |_| true);
                lane.slot = guess.map(Slot);
                self.expect_slots(lane.slot);
            }
            for lane in &mut *lanes {
                let is_it = |slot| self.table.has_id(Slot(slot), lane.id);
                let slot = match lane.slot {
                    Some(Slot(slot)) if !is_it(slot) => self.table.ids().find(lane.by_id, is_it),
                    guess => guess.map(|slot| slot.0),
                };
                lane.slot = slot.map(Slot);
                if let Some(slot) = lane.slot {
                    lane.by_name = self.table.place_of(slot);
                    self.table.names().warm(lane.by_name);
                }
            }
            for lane in &*lanes {
                // The same id twice is the same session.
                if let Some(slot) = lane.slot
                    && self.table.holds(slot, lane.id)
                {
                    each(&self.view(slot));
                    self.table.remove_at(slot, lane.by_name, lane.by_id);
                }
            }
        }
    }
}

/// Sessions that take each step together.
const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::{Limits, NewSession};
    use super::*;
    use crate::time::Millis;
    use crate::types::Term;

    fn tracker(sessions: u32) -> Tracker<()> {
        let mut tracker = Tracker::new(
            Limits {
                sessions_max: 1_000,
            },
            [1, 2, 3, 4],
            Millis(0),
        );
        for n in 0..sessions {
            let new = NewSession {
                group: b"g",
                member: &n.to_be_bytes(),
                id: SessionId(u128::from(n)),
                term: Term(1),
                timeout: Millis(1_000),
            };
            tracker.insert(new, Millis(0), || ()).unwrap();
        }
        tracker
    }

    #[test]
    fn sessions_that_end_together_are_seen_and_gone_and_the_others_stay() {
        let mut tracker = tracker(300);
        // Every other one, strangers among them, and one that is named twice.
        let mut ids: Vec<SessionId> = (0..400).step_by(2).map(SessionId).collect();
        ids.push(SessionId(398));
        ids.insert(1, SessionId(0));
        let mut seen = Vec::new();
        tracker.remove_ids(&ids, |session| seen.push(session.id));
        assert!(seen.iter().copied().eq((0..300).step_by(2).map(SessionId)));
        assert_eq!(tracker.len(), 150);
        for n in 0..300 {
            let found = tracker.find_id(SessionId(n)).is_some();
            assert_eq!(found, n % 2 == 1, "{n}");
            let by_name = tracker.find(b"g", &(n as u32).to_be_bytes());
            assert_eq!(by_name, tracker.find_id(SessionId(n)));
        }
    }

    #[test]
    fn a_slot_shows_the_session_of_an_id_and_no_other() {
        let mut tracker = tracker(1);
        let slot = tracker.find_id(SessionId(0)).unwrap();
        assert_eq!(
            tracker.view_of(slot, SessionId(0)).unwrap().id,
            SessionId(0)
        );
        assert_eq!(tracker.view_of(slot, SessionId(1)), None, "another's");
        tracker.remove(slot);
        assert_eq!(tracker.view_of(slot, SessionId(0)), None, "nobody's");
    }
}
