//! Sessions found due, in the order in which they are ended best.
//!
//! The wheel finds sessions in the order in which they were filed, which says nothing of where
//! their members are. The core keeps the members of a group in the order of their names, some
//! dozens of neighbours in one leaf, and a transaction that ends one of them here and one of them
//! there reads and writes a leaf for each. So what the wheel finds in one turn is sorted by group
//! and name; many such *runs* are gathered while there is more to be found; and then they are
//! merged, and handed out in that order: neighbours follow each other, and leave together.
//!
//! The order is for speed alone. Names that begin with the same 16 bytes come in any order, and
//! so do groups.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::session::{GroupSlot, SessionView, Slot};
use crate::types::SessionId;

/// The sessions that are closing and not gathered.
#[derive(Default)]
pub(super) struct Due {
    /// What the wheel has found since the merge under way began: sorted, and not empty.
    found: Vec<Vec<Found>>,
    /// What is being merged.
    merged: BinaryHeap<Run>,
    /// Sessions in both.
    len: usize,
    /// More is to be found before the next merge begins.
    gathers: bool,
}

/// A session that was due when it was found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    key: Key,
    pub(super) slot: Slot,
    /// Both halves of its id: as one number they would be aligned to 16 bytes.
    id: (u64, u64),
}

/// The group, and how the member's name begins.
type Key = (GroupSlot, u64, u64);

/// Sessions in their order, the first `at` of which are handed out.
struct Run {
    found: Vec<Found>,
    at: usize,
}

impl Due {
    /// The wheel has found these, and `is_behind` if there is more to be found at once.
    pub(super) fn add(&mut self, found: Vec<Found>, is_behind: bool) {
        self.add_again(found);
        self.gathers = is_behind && !self.is_full() && self.found.len() < RUNS_MAX;
    }

    /// These were taken out before, and are to be taken out again.
    pub(super) fn add_again(&mut self, mut found: Vec<Found>) {
        self.len += found.len();
        if !found.is_empty() {
            found.sort_unstable_by_key(|found| found.key);
            self.found.push(found);
        }
    }

    /// Takes out the next session, unless more is to be found first.
    pub(super) fn pop(&mut self) -> Option<Found> {
        if self.merged.is_empty() && !self.gathers {
            let found = self.found.drain(..);
            self.merged.extend(found.map(|found| Run { found, at: 0 }));
        }
        let mut run = self.merged.peek_mut()?;
        let next = run.found[run.at];
        run.at += 1;
        if run.at == run.found.len() {
            PeekMut::pop(run);
        }
        self.len -= 1;
        Some(next)
    }

    /// True if [`Due::pop`] has one.
    pub(super) fn has_next(&self) -> bool {
        !self.merged.is_empty() || !self.gathers && !self.found.is_empty()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All of them, in the order of their names.
    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<SessionId> {
        let merged = self.merged.iter().flat_map(|run| &run.found[run.at..]);
        let mut all: Vec<&Found> = merged.chain(self.found.iter().flatten()).collect();
        all.sort_by_key(|found| found.key);
        assert_eq!(all.len(), self.len);
        all.into_iter().map(Found::id).collect()
    }

    /// True if no more are to be found before some are taken out.
    pub(super) fn is_full(&self) -> bool {
        self.len >= DUE_MAX
    }
}

impl Found {
    pub(super) fn new(slot: Slot, session: &SessionView<'_>) -> Found {
        let mut begins = [0; 16];
        let len = session.member.len().min(begins.len());
        begins[..len].copy_from_slice(&session.member[..len]);
        let begins = u128::from_be_bytes(begins);
        Found {
            key: (session.group, (begins >> 64) as u64, begins as u64),
            slot,
            id: (session.id.era(), session.id.counter()),
        }
    }

    pub(super) fn id(&self) -> SessionId {
        SessionId::from_parts(self.id.0, self.id.1)
    }
}

impl Run {
    fn key(&self) -> Key {
        self.found[self.at].key
    }
}

// The heap hands out the greatest: the run whose next session is the least.
impl Ord for Run {
    fn cmp(&self, other: &Run) -> Ordering {
        Reverse(self.key()).cmp(&Reverse(other.key()))
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Run) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Run) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Run {}

/// Sessions found due that may wait to be gathered before the wheel is held: 10 MiB. In groups
/// of many leaves they are neighbours the more, the more of them there are.
const DUE_MAX: usize = 1 << 18;
/// Runs that are merged together: so often the wheel is asked for more before a merge begins.
const RUNS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Limits, NewSession, Tracker};
    use crate::time::Millis;
    use crate::types::Term;

    /// Sessions of a group, in the order of `members`, found in one turn.
    fn found(tracker: &mut Tracker<()>, group: &str, members: &[&str]) -> Vec<Found> {
        let of_one = |member: &&str| {
            let new = NewSession {
                group: group.as_bytes(),
                member: member.as_bytes(),
                id: SessionId((7 << 64) + tracker.len() as u128 + 1),
                term: Term(1),
                timeout: Millis(1_000),
            };
            let slot = tracker.insert(new, Millis(0), || ()).unwrap();
            Found::new(slot, &tracker.view(slot))
        };
        members.iter().map(of_one).collect()
    }

    fn tracker() -> Tracker<()> {
        let sessions_max = 1_000;
        Tracker::new(Limits { sessions_max }, [1, 2, 3, 4], Millis(0))
    }

    fn all(due: &mut Due, tracker: &Tracker<()>) -> String {
        let next = std::iter::from_fn(|| due.pop());
        let names = next.map(|found| {
            let view = tracker.view_of(found.slot, found.id()).unwrap();
            String::from_utf8(view.member.to_vec()).unwrap()
        });
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_several_turns_have_found_comes_out_in_the_order_of_groups_and_names() {
        let (mut tracker, mut due) = (tracker(), Due::default());
        due.add(found(&mut tracker, "g", &["m8", "m2", "m5"]), true);
        due.add(found(&mut tracker, "h", &["m1"]), true);
        due.add(found(&mut tracker, "g", &["m3", "m9", "m1"]), true);
        assert!(
            !due.has_next() && due.pop().is_none(),
            "more is to be found"
        );
        due.add(Vec::new(), false);
        assert!(due.has_next());
        assert_eq!(all(&mut due, &tracker), "m1 m2 m3 m5 m8 m9 m1");
        assert!(!due.has_next() && due.len() == 0);
    }

    #[test]
    fn names_that_differ_late_are_told_apart_within_their_first_sixteen_bytes() {
        let (mut tracker, mut due) = (tracker(), Due::default());
        due.add(found(&mut tracker, "g", &["worker-000000017"]), true);
        let names = ["worker-000000016", "worker-000000018", "w"];
        due.add(found(&mut tracker, "g", &names), false);
        let order = "w worker-000000016 worker-000000017 worker-000000018";
        assert_eq!(all(&mut due, &tracker), order);
    }

    #[test]
    fn what_is_found_during_a_merge_comes_after_it() {
        let (mut tracker, mut due) = (tracker(), Due::default());
        due.add(found(&mut tracker, "g", &["m2", "m3"]), false);
        assert!(due.pop().is_some());
        due.add(found(&mut tracker, "g", &["m1"]), true);
        assert_eq!(all(&mut due, &tracker), "m3");
        due.add(Vec::new(), false);
        assert_eq!(all(&mut due, &tracker), "m1");
    }

    #[test]
    fn a_wheel_that_is_always_behind_does_not_keep_what_it_has_found() {
        let (mut tracker, mut due) = (tracker(), Due::default());
        for n in 0..RUNS_MAX {
            assert!(!due.has_next(), "{n}");
            due.add(found(&mut tracker, "g", &[&format!("m{n}")]), true);
        }
        assert!(due.has_next());
    }

    #[test]
    fn the_wheel_is_held_while_as_many_wait_as_may() {
        let (mut tracker, mut due) = (tracker(), Due::default());
        let one = found(&mut tracker, "g", &["m"])[0];
        due.add(vec![one; DUE_MAX], true);
        assert!(due.is_full() && due.has_next());
        assert!(due.pop().is_some() && !due.is_full());
    }
}
