//! Beats that are about to come in: fetched together, and what was found out of each kept until
//! it is received.

use super::{EXPECT_SESSIONS_MIN, Shard};
use crate::http::{self, FamiliarBeat, SeenBeat};
use crate::session::{NameHash, Sought, Tracker};

/// The beats that are alone in the inputs about to be received, in their order.
///
/// Only what follows from an input's bytes is kept, and it is used for the same bytes only, so
/// nothing that happens meanwhile can make it wrong, nor does it matter if they never come.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// At most [`BEATS_MAX`].
    beats: Vec<(SeenBeat, NameHash)>,
    /// Those before this one have been received.
    next: usize,
}

impl Ahead {
    fn clear(&mut self) {
        self.beats.clear();
        self.next = 0;
    }

    #[inline]
    fn note(&mut self, seen: SeenBeat, hash: NameHash) {
        if self.beats.len() < BEATS_MAX {
            self.beats.push((seen, hash));
        }
    }

    /// The beat that `input` begins with, and its hash, if it is the next one noted or, should
    /// that not have come, the one after it.
    #[inline]
    pub(super) fn recall<'a>(
        &mut self,
        input: &'a [u8],
        familiar: &http::Familiar,
        limits: &http::Limits,
    ) -> Option<(FamiliarBeat<'a>, NameHash)> {
        let left = self.beats.get(self.next..)?;
        for (skipped, (seen, hash)) in left.iter().take(2).enumerate() {
            if let Some(beat) = familiar.again(seen, input, limits) {
                self.next += skipped + 1;
                return Some((beat, *hash));
            }
        }
        None
    }
}

impl Shard {
    /// These inputs are about to be received. A guess at the beats they hold brings their
    /// sessions into cache together, so that the waits for memory overlap; nothing more.
    pub fn expect<'a>(&mut self, inputs: impl Iterator<Item = &'a [u8]>) {
        self.ahead.clear();
        if self.tracker.len() < EXPECT_SESSIONS_MIN {
            return;
        }
        let mut block = Block::default();
        for input in inputs {
            let Some(beat) = self.familiar.beat(input, &self.settings.http) else {
                for (group, member) in http::likely_beats(input) {
                    block.take(self.tracker.seek(group, member), &self.tracker);
                }
                continue;
            };
            if beat.len < input.len() {
                // What follows a familiar one is looked up together with it, see `serve_run`.
                continue;
            }
            let hash = self.tracker.hash_name(beat.group, beat.member);
            if let Some(seen) = SeenBeat::of(input, &beat) {
                self.ahead.note(seen, hash);
            }
            let sought = Sought::new(beat.group, beat.member, hash);
            block.take(sought, &self.tracker);
        }
        block.approach(&self.tracker);
    }
}

/// Beats whose sessions are fetched side by side.
#[derive(Default)]
struct Block<'a> {
    sought: [Sought<'a>; BLOCK],
    len: usize,
}

impl<'a> Block<'a> {
    #[inline]
    fn take<G>(&mut self, sought: Sought<'a>, tracker: &Tracker<G>) {
        self.sought[self.len] = sought;
        self.len += 1;
        if self.len == BLOCK {
            self.approach(tracker);
        }
    }

    fn approach<G>(&mut self, tracker: &Tracker<G>) {
        tracker.approach(&mut self.sought[..self.len]);
        self.len = 0;
    }
}

/// Inputs that are received together at most; more would only not be remembered.
const BEATS_MAX: usize = 64;
/// Enough for the waits to overlap.
const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Familiar, Limits, Progress, parse};
    use crate::session::Limits as SessionLimits;
    use crate::time::Millis;

    const END: &str = " HTTP/1.1\r\nHost: tracker.example.com\r\nAccept: */*\r\n\r\n";

    fn head(member: usize) -> String {
        format!("HEAD /group/member-{member:09}{END}")
    }

    /// What a shard that is about to receive the beats of these members has noted.
    struct World {
        ahead: Ahead,
        familiar: Familiar,
        tracker: Tracker<()>,
    }

    impl World {
        fn noted(members: &[usize]) -> World {
            let limits = SessionLimits { sessions_max: 1 };
            let mut world = World {
                ahead: Ahead::default(),
                familiar: Familiar::default(),
                tracker: Tracker::new(limits, [1, 2, 3, 4], Millis(0)),
            };
            let limits = Limits::default();
            for &member in members {
                let head = head(member);
                let request = parse(head.as_bytes(), &mut Progress::default(), &limits);
                let request = request.expect("it is well").expect("it is whole");
                world.familiar.learn(head.as_bytes(), &request);
                let beat = world.familiar.beat(head.as_bytes(), &limits);
                let beat = beat.expect("a familiar beat");
                let hash = world.tracker.hash_name(beat.group, beat.member);
                let seen = SeenBeat::of(head.as_bytes(), &beat).expect("short names");
                world.ahead.note(seen, hash);
            }
            world
        }

        /// True if the beat was recalled, and then as it would be read.
        fn recalls(&mut self, member: usize) -> bool {
            let (head, limits) = (head(member), Limits::default());
            let recalled = self.ahead.recall(head.as_bytes(), &self.familiar, &limits);
            recalled.is_some_and(|(beat, hash)| {
                let read = self.familiar.beat(head.as_bytes(), &limits);
                assert_eq!(Some(beat), read);
                assert_eq!(hash, self.tracker.hash_name(beat.group, beat.member));
                true
            })
        }
    }

    #[test]
    fn beats_are_recalled_in_the_order_in_which_they_were_expected() {
        let mut world = World::noted(&[1, 2, 3]);
        assert!(world.recalls(1) && world.recalls(2) && world.recalls(3));
        assert!(!world.recalls(3), "once each");
    }

    #[test]
    fn one_that_does_not_come_costs_the_others_nothing() {
        let mut world = World::noted(&[1, 2, 3, 4]);
        assert!(world.recalls(2) && world.recalls(3));
        assert!(!world.recalls(1), "its turn is over");
        assert!(!world.recalls(9), "it was not expected");
        assert!(world.recalls(4));
    }

    #[test]
    fn no_more_are_noted_than_come_in_together() {
        let members: Vec<usize> = (0..BEATS_MAX + 1).collect();
        let world = World::noted(&members);
        assert_eq!(world.ahead.beats.len(), BEATS_MAX);
    }
}
