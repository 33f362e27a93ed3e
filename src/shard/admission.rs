//! How many changes a shard lets in: as many as may be under way, and fewer once they come late.
//!
//! A change that is let in costs the core, which may share this shard's CPU, several times what
//! its refusal costs here. So where more come than can be done, to let in all that there is room
//! for is to let them all wait, and the heartbeats with them: the shard comes late because of what
//! the core does, and the answers come back by the thousand at once. The room is halved while
//! changes are late, down to what keeps the log busy, and grows again by and by.

/// The room for changes, in changes under way.
pub(super) struct Admission {
    most: usize,
    /// In force now, between `CHANGES_MIN` and `most`.
    room: usize,
    /// What comes now has waited too long to be let in.
    is_late: bool,
    /// Something has been late since the last tick.
    was_late: bool,
}

impl Admission {
    /// Room for `most` changes.
    pub(super) fn new(most: usize) -> Admission {
        Admission {
            most,
            room: most,
            is_late: false,
            was_late: false,
        }
    }

    /// Whether what comes from now on has waited for too long.
    pub(super) fn late(&mut self, is_late: bool) {
        self.is_late = is_late;
        self.was_late |= is_late;
    }

    /// True if one more change is let in beside the `under_way`.
    pub(super) fn lets_in(&self, under_way: usize) -> bool {
        self.room_beside(under_way) > 0
    }

    /// How many more changes are let in beside the `under_way`.
    pub(super) fn room_beside(&self, under_way: usize) -> usize {
        if self.is_late {
            return 0;
        }
        self.room.saturating_sub(under_way)
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self) {
        self.room = if std::mem::take(&mut self.was_late) {
            (self.room / 2).max(CHANGES_MIN.min(self.most))
        } else {
            (self.room + CHANGES_A_TICK).min(self.most)
        };
    }
}

/// The log takes as many in one sync without either waiting for the other: durable joins come
/// no faster with more under way, only later.
const CHANGES_MIN: usize = 256;
/// By how much the room grows with each tick that saw nothing late: to all there is in some
/// seconds.
const CHANGES_A_TICK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn room(admission: &Admission) -> usize {
        let refused = (0..).find(|&under_way| !admission.lets_in(under_way));
        refused.expect("a bound")
    }

    #[test]
    fn the_room_shrinks_while_changes_are_late_and_no_further_than_keeps_the_log_busy() {
        let mut admission = Admission::new(1_000);
        assert_eq!(room(&admission), 1_000);
        for wanted in [500, 256, 256] {
            admission.late(true);
            assert_eq!(room(&admission), 0, "who is late is refused");
            admission.late(false);
            admission.tick();
            assert_eq!(room(&admission), wanted);
        }
        let mut small = Admission::new(2);
        small.late(true);
        small.late(false);
        small.tick();
        assert_eq!(room(&small), 2);
    }

    #[test]
    fn the_room_grows_back_when_nothing_is_late() {
        let mut admission = Admission::new(300);
        admission.late(true);
        admission.late(false);
        let rooms = [0, 1, 2].map(|_| {
            admission.tick();
            room(&admission)
        });
        assert_eq!(rooms, [256, 288, 300]);
    }
}
