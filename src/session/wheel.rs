//! The timing wheel: which slots to look at when a tick comes up.
//!
//! One level of [`HORIZON`] buckets of 10 ms. A bucket is a chain of small blocks of slot
//! numbers, not a list through the sessions: a touch leaves the wheel alone, and a bucket
//! that comes up is read in blocks whose sessions can be loaded side by side.
//!
//! The wheel knows no session. It promises that a slot filed at a tick is handed out when
//! that tick comes up; the tracker says what an entry is still worth:
//!
//! 1. every live session is filed at the tick its header names, no later than its deadline
//!    (nor later than the horizon, when it is looked at and filed again);
//! 2. an entry whose session is gone, closing, or filed at another tick is stale and dropped.
//!    Stale entries last until their tick comes up, at most the horizon.
//!
//! A slot used again may have a stale entry at the very tick its new session is filed at.
//! Both entries then count as valid; the first that is handled makes the other stale.

use super::Slot;
use super::paged::Paged;

/// The buckets and the blocks their chains are made of.
pub(super) struct Wheel {
    /// The earliest tick not wholly handed out; everything is filed in
    /// `next..next + HORIZON`, so a bucket holds entries of one tick only.
    next: u64,
    buckets: Box<[Bucket]>,
    blocks: Paged<Block>,
    /// Head of the list of unused blocks.
    free: u32,
    /// Entries filed, stale ones included.
    entries: usize,
}

/// The chain of one tick. Only its first block may be partly full.
#[derive(Clone, Copy)]
struct Bucket {
    head: u32,
    /// Entries in the first block.
    filled: u32,
}

/// Four cache lines: slot numbers, and the next block of the chain.
struct Block {
    slots: [u32; BLOCK_SLOTS],
    link: u32,
}

/// What [`Wheel::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many entries of this (wrapped) tick; more may follow.
    Entries { tick: u32, count: usize },
    /// The allowance is used up and there may be more.
    Spent,
    /// All ticks that have come up are done.
    Done,
}

impl Wheel {
    /// An empty wheel whose first tick to come up is `next`.
    pub(super) fn new(next: u64) -> Wheel {
        Wheel {
            next,
            buckets: vec![Bucket::EMPTY; HORIZON as usize].into_boxed_slice(),
            blocks: Paged::new(),
            free: NIL,
            entries: 0,
        }
    }

    /// Files `slot` to be handed out at `deadline` (wrapped), or at the horizon if that is
    /// nearer; a deadline that has passed is filed to come up at once. Returns the tick
    /// chosen, wrapped, which the caller must note in the session.
    #[inline]
    pub(super) fn file(&mut self, slot: Slot, deadline: u32) -> u32 {
        let ahead = deadline.wrapping_sub(self.next as u32) as i32;
        let tick = self.next + u64::from(ahead.clamp(0, HORIZON as i32 - 1) as u32);
        let at = (tick % HORIZON) as usize;
        let Bucket { head, filled } = self.buckets[at];
        if head != NIL && (filled as usize) < BLOCK_SLOTS {
            self.blocks.at_mut(head).slots[filled as usize] = slot.0;
            self.buckets[at].filled = filled + 1;
        } else {
            let block = self.unused_block();
            let new = self.blocks.at_mut(block);
            new.slots[0] = slot.0;
            new.link = head;
            self.buckets[at] = Bucket {
                head: block,
                filled: 1,
            };
        }
        self.entries += 1;
        tick as u32
    }

    /// Hands out up to a block of entries of the earliest tick that has come up by `now`.
    ///
    /// `allowance` falls by one for each entry and for each tick gone through, and stops the
    /// work when it is used up (a block is always handed out whole).
    pub(super) fn take(
        &mut self,
        now: u64,
        allowance: &mut usize,
        out: &mut [u32; BLOCK_SLOTS],
    ) -> Taken {
        if self.entries == 0 {
            // Nothing to find: a shard without sessions does not walk through idle hours.
            self.next = self.next.max(now + 1);
        }
        while self.next <= now {
            if *allowance == 0 {
                return Taken::Spent;
            }
            let at = (self.next % HORIZON) as usize;
            let Bucket { head, filled } = self.buckets[at];
            if head == NIL {
                self.next += 1;
                *allowance -= 1;
                continue;
            }
            let count = filled as usize;
            assert!(count > 0, "a chained block holds entries");
            let free = self.free;
            let block = self.blocks.at_mut(head);
            *out = block.slots;
            let rest = std::mem::replace(&mut block.link, free);
            self.free = head;
            self.buckets[at] = Bucket {
                head: rest,
                filled: if rest == NIL { 0 } else { BLOCK_SLOTS as u32 },
            };
            self.entries -= count;
            *allowance = allowance.saturating_sub(count);
            return Taken::Entries {
                tick: self.next as u32,
                count,
            };
        }
        Taken::Done
    }

    /// The first tick at which [`Wheel::take`] has an entry to hand out.
    ///
    /// Looks through the buckets: 2 µs at worst.
    pub(super) fn next_tick(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        (self.next..self.next + HORIZON)
            .find(|tick| self.buckets[(tick % HORIZON) as usize].head != NIL)
    }

    /// The full tick that a wrapped one near the present stands for.
    pub(super) fn unwrapped(&self, tick: u32) -> u64 {
        let ahead = tick.wrapping_sub(self.next as u32) as i32;
        self.next.saturating_add_signed(i64::from(ahead))
    }

    /// Entries filed, stale ones included.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of buckets and blocks; blocks once needed are kept.
    pub(super) fn memory_bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>() + self.blocks.memory_bytes()
    }

    fn unused_block(&mut self) -> u32 {
        if self.free == NIL {
            return self.blocks.push(Block {
                slots: [NIL; BLOCK_SLOTS],
                link: NIL,
            });
        }
        let block = self.free;
        self.free = self.blocks.at(block).link;
        block
    }
}

impl Bucket {
    const EMPTY: Bucket = Bucket {
        head: NIL,
        filled: 0,
    };
}

/// Buckets of the wheel: 81.92 s. What is due later is looked at once in that time.
pub(super) const HORIZON: u64 = 8192;
/// Entries of a block. So many sessions are loaded side by side when their tick comes up;
/// half a block a bucket is lost, a megabyte at worst.
pub(super) const BLOCK_SLOTS: usize = 63;
/// No block.
const NIL: u32 = u32::MAX;

const _: () = assert!(size_of::<Block>() == 256, "a block is four lines");

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(wheel: &mut Wheel, now: u64) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        let mut slots = [0; BLOCK_SLOTS];
        loop {
            match wheel.take(now, &mut 1_000_000, &mut slots) {
                Taken::Entries { tick, count } => {
                    found.extend(slots[..count].iter().map(|&slot| (tick, slot)));
                }
                Taken::Spent => panic!("a large allowance"),
                Taken::Done => return found,
            }
        }
    }

    #[test]
    fn a_slot_comes_up_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new(100);
        assert_eq!(wheel.file(Slot(7), 105), 105);
        assert_eq!(wheel.next_tick(), Some(105));
        assert_eq!(drain(&mut wheel, 104), []);
        assert_eq!(drain(&mut wheel, 105), [(105, 7)]);
        assert_eq!(drain(&mut wheel, 9000), []);
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn what_lies_beyond_the_horizon_is_filed_at_it_and_the_past_at_once() {
        let mut wheel = Wheel::new(100);
        assert_eq!(wheel.file(Slot(1), 1_000_000), 100 + HORIZON as u32 - 1);
        assert_eq!(wheel.file(Slot(2), 3), 100);
        assert_eq!(drain(&mut wheel, 100), [(100, 2)]);
        assert_eq!(drain(&mut wheel, 100 + HORIZON).len(), 1);
    }

    #[test]
    fn ticks_wrap_without_a_seam() {
        let start = (1 << 32) - 2;
        let mut wheel = Wheel::new(start);
        assert_eq!(wheel.file(Slot(1), 3), 3);
        assert_eq!(wheel.unwrapped(3), (1 << 32) + 3);
        assert_eq!(wheel.unwrapped(u32::MAX - 10), start - 9);
        assert_eq!(drain(&mut wheel, (1 << 32) + 2), []);
        assert_eq!(drain(&mut wheel, (1 << 32) + 3), [(3, 1)]);
    }

    #[test]
    fn a_long_chain_is_handed_out_whole_in_small_allowances() {
        let mut wheel = Wheel::new(5);
        for slot in 0..1000 {
            wheel.file(Slot(slot), 5);
        }
        let mut seen = Vec::new();
        let mut slots = [0; BLOCK_SLOTS];
        let mut rounds = 0;
        loop {
            let mut allowance = 1;
            match wheel.take(5, &mut allowance, &mut slots) {
                Taken::Entries { count, .. } => {
                    assert!(count <= BLOCK_SLOTS);
                    assert_eq!(allowance, 0);
                    seen.extend_from_slice(&slots[..count]);
                }
                Taken::Spent => panic!("there was an allowance"),
                Taken::Done => break,
            }
            rounds += 1;
            assert!(rounds < 100);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<u32>>());
    }

    #[test]
    fn blocks_are_used_again() {
        let mut wheel = Wheel::new(0);
        for round in 0..1000 {
            for slot in 0..100 {
                wheel.file(Slot(slot), round + 1);
            }
            assert_eq!(drain(&mut wheel, u64::from(round) + 1).len(), 100);
        }
        let held = wheel.memory_bytes() - HORIZON as usize * size_of::<Bucket>();
        assert!(held <= 128 * 1024, "{held} bytes");
    }

    #[test]
    fn an_empty_wheel_crosses_years_at_once() {
        let mut wheel = Wheel::new(0);
        let mut allowance = 1;
        let far = 1 << 40;
        let taken = wheel.take(far, &mut allowance, &mut [0; BLOCK_SLOTS]);
        assert_eq!((taken, allowance), (Taken::Done, 1));
        assert_eq!(wheel.file(Slot(1), far as u32 + 9), far as u32 + 9);
    }
}
