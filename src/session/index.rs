//! A hash index from keys it never sees to 32-bit values: eight bytes an entry, at a load
//! of 0.83 and, all told, about ten bytes, growing a small piece at a time.
//!
//! An entry is a word: 32 bits of the key's hash (the tag) above, the value below. A tag
//! proves nothing, it only makes a wrong guess rare; the caller checks each candidate.
//!
//! The high half of the hash chooses one of many sub-tables, the low half is the tag. Within
//! a sub-table the home of a tag is the cache line `tag * lines / 2^32`, which needs no power
//! of two and rises with the tag. Entries are kept in rising order from their home on
//! (linear probing in Robin Hood's way, which for such homes is plain sorting), so that
//!
//! 1. a search, also for what is absent, ends at the first greater word, four times of five
//!    within the home line, which is searched without a branch to mispredict;
//! 2. an insertion or a deletion shifts one short run, and leaves no tombstone;
//! 3. growing a sub-table is one pass over it in order, without looking at any key.
//!
//! Invariants: words that are not `EMPTY` rise strictly; an entry lies at or after the start
//! of its home with no `EMPTY` between.
//!
//! Sub-tables grow in turn, each by a sixteenth, whenever the whole is loaded to its mean; only
//! one that has drawn far more than its share grows out of turn. So the load of the whole stays
//! even, growth is spread over the insertions, and what one sub-table leaves behind in the
//! allocator lies beside what the last one left: the next finds room there. Sub-tables that
//! grew as each came due left an eighth of the heap in pieces too small for any of them.

use super::prefetch;

/// A map from hashes to 32-bit values, several a hash if need be.
pub(super) struct Index {
    subs: Box<[Sub]>,
    /// Entries in each sub-table; apart, because only changes need it.
    counts: Box<[u32]>,
    /// Entries, home lines and words in all sub-tables together.
    entries: usize,
    lines: usize,
    words: usize,
    /// The sub-table whose turn it is to grow.
    turn: usize,
}

/// A sub-table.
#[derive(Clone, Default)]
struct Sub {
    words: Box<[u64]>,
    /// The first word that begins a cache line, and with it the first home.
    first: u32,
    /// Homes: lines that entries are aimed at.
    lines: u32,
}

/// Where a key's entries would lie, once worked out; valid until the index changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    sub: u32,
    tag: u32,
    /// First word of the home line.
    home: u32,
}

impl Index {
    /// An index whose sub-tables stay small (about 8,000 entries) up to `entries_max`.
    pub(super) fn new(entries_max: u32) -> Index {
        let subs = (entries_max / SUB_ENTRIES)
            .clamp(SUBS_MIN, SUBS_MAX)
            .next_power_of_two() as usize;
        Index {
            subs: vec![Sub::default(); subs].into_boxed_slice(),
            counts: vec![0; subs].into_boxed_slice(),
            entries: 0,
            lines: 0,
            words: 0,
            turn: 0,
        }
    }

    /// Where to look for a key of this hash.
    #[inline]
    pub(super) fn place(&self, hash: u64) -> Place {
        // The number of sub-tables is a power of two below 2^32.
        let sub = (hash >> 32) as u32 & (self.subs.len() as u32 - 1);
        let tag = hash as u32;
        let home = self.subs[sub as usize].home(tag) as u32;
        Place { sub, tag, home }
    }

    /// Has the line fetched that a search at `place` begins with, and the next where the search
    /// is likely to need it. Calling this for many places before searching any lets their cache
    /// misses overlap.
    ///
    /// A fifth of all searches end in the next line, and would wait for it alone. Tags are in order
    /// within their line, so those of its upper half are four in five of these; to fetch the
    /// next line for the lower half too costs more than it saves.
    #[inline]
    pub(super) fn warm(&self, place: Place) {
        let sub = &self.subs[place.sub as usize];
        let Some(line) = sub.words.get(place.home as usize..) else {
            return;
        };
        if let Some(word) = line.first() {
            prefetch::line(word);
        }
        if sub.is_in_upper_half(place.tag)
            && let Some(word) = line.get(LINE_WORDS)
        {
            prefetch::line(word);
        }
    }

    /// The first value at `place` whose key `is` the one sought.
    #[inline]
    pub(super) fn find(&self, place: Place, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let words = &self.subs[place.sub as usize].words;
        let home = place.home as usize;
        // No line: nothing was ever inserted here.
        let line: &[u64; LINE_WORDS] = words.get(home..)?.first_chunk()?;
        // Counted rather than searched for: how far it is varies from key to key, and a
        // mispredicted branch would cost more than the eight comparisons.
        let before: u32 = line
            .iter()
            .map(|&word| u32::from(tag(word) < place.tag))
            .sum();
        for &word in &words[home + before as usize..] {
            if tag(word) < place.tag {
                continue;
            }
            if tag(word) > place.tag || word == EMPTY {
                return None;
            }
            if is(word as u32) {
                return Some(word as u32);
            }
        }
        None
    }

    /// Adds `value`, which is not yet there, under `place`.
    ///
    /// Shifts a run of a few words; now and then grows a sub-table or two, at about 2 ns an
    /// entry of it.
    ///
    /// # Panics
    /// If `value` is `u32::MAX`, or already there.
    pub(super) fn insert(&mut self, place: Place, value: u32) {
        assert!(value != u32::MAX, "no value of a session");
        let word = (u64::from(place.tag) << 32) | u64::from(value);
        let sub = place.sub as usize;
        if self.entries * 8 >= self.lines * LOAD_MEAN_EIGHTHS {
            self.grow(self.turn);
            self.turn = (self.turn + 1) % self.subs.len();
        }
        let is_loaded = self.counts[sub] * 2 >= self.subs[sub].lines * LOAD_MAX_HALVES;
        if is_loaded || !self.subs[sub].put(word) {
            self.grow(sub);
            while !self.subs[sub].put(word) {
                self.grow(sub);
            }
        }
        self.counts[sub] += 1;
        self.entries += 1;
    }

    /// Removes `value` from under `place`; false if it is not there.
    pub(super) fn remove(&mut self, place: Place, value: u32) -> bool {
        let word = (u64::from(place.tag) << 32) | u64::from(value);
        let sub = &mut self.subs[place.sub as usize];
        let start = place.home as usize;
        if start >= sub.words.len() {
            return false;
        }
        let run = &sub.words[start..];
        let Some(at) = run.iter().position(|&w| w >= word).map(|i| start + i) else {
            return false;
        };
        if sub.words[at] != word {
            return false;
        }
        // Those behind it that are not at home move up by one.
        let len = sub.words.len();
        let mut end = at + 1;
        while end < len && sub.words[end] != EMPTY && sub.home_of(sub.words[end]) < end {
            end += 1;
        }
        sub.words.copy_within(at + 1..end, at);
        sub.words[end - 1] = EMPTY;
        self.counts[place.sub as usize] -= 1;
        self.entries -= 1;
        true
    }

    /// Bytes held, directory included.
    pub(super) fn memory_bytes(&self) -> usize {
        self.words * size_of::<u64>() + self.subs.len() * (size_of::<Sub>() + size_of::<u32>())
    }

    #[cold]
    fn grow(&mut self, sub: usize) {
        let old = std::mem::take(&mut self.subs[sub]);
        self.words -= old.words.len();
        self.lines -= old.lines as usize;
        let mut next = old.lines as usize;
        loop {
            next = (next + (next / 16).max(1)).max(LINES_MIN);
            if let Some(new) = old.spread(next) {
                self.words += new.words.len();
                self.lines += next;
                self.subs[sub] = new;
                return;
            }
        }
    }
}

impl Sub {
    /// An empty one of so many lines.
    fn new(lines: usize) -> Sub {
        let words = vec![EMPTY; length(lines)].into_boxed_slice();
        // An allocation may begin within a cache line.
        let first = (words.as_ptr().addr() / size_of::<u64>()).wrapping_neg() % LINE_WORDS;
        Sub {
            words,
            first: first as u32,
            lines: u32::try_from(lines).expect("fewer than 2^32 lines"),
        }
    }

    /// Places `word` in its run; false if the run reaches the end of the sub-table.
    fn put(&mut self, word: u64) -> bool {
        let start = self.home_of(word);
        let words = &mut self.words;
        let run = &words[start..];
        let Some(at) = run.iter().position(|&w| w >= word).map(|i| start + i) else {
            return false;
        };
        assert!(words[at] != word, "the index holds {word:#x} already");
        let Some(end) = words[at..].iter().position(|&w| w == EMPTY) else {
            return false;
        };
        words.copy_within(at..at + end, at + 1);
        words[at] = word;
        true
    }

    /// The same words in a new sub-table of so many lines; `None` if a run would pass its end.
    fn spread(&self, lines: usize) -> Option<Sub> {
        let mut new = Sub::new(lines);
        let mut free = 0;
        for &word in self.words.iter().filter(|&&word| word != EMPTY) {
            let at = free.max(new.home_of(word));
            *new.words.get_mut(at)? = word;
            free = at + 1;
        }
        Some(new)
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        let line = (u64::from(tag) * u64::from(self.lines)) >> 32;
        self.first as usize + line as usize * LINE_WORDS
    }

    /// True if the tag is in the upper half of those whose home is its line.
    #[inline]
    fn is_in_upper_half(&self, tag: u32) -> bool {
        // What `home` shifts out, less the whole lines.
        tag.wrapping_mul(self.lines) > u32::MAX / 2
    }

    #[inline]
    fn home_of(&self, word: u64) -> usize {
        self.home(tag(word))
    }
}

/// Words of a sub-table of so many home lines.
///
/// Behind the last home is room for runs that begin near the end. A run past 16 words is
/// rare at the highest load, and then the sub-table only grows a little early. The share of
/// the whole makes growth help whatever the hash does. The rest is for [`Sub::first`].
fn length(lines: usize) -> usize {
    LINE_WORDS * lines + lines / 8 + SLACK_MIN + LINE_WORDS - 1
}

#[inline]
fn tag(word: u64) -> u32 {
    (word >> 32) as u32
}

/// No entry; greater than every entry, for no value is `u32::MAX`.
const EMPTY: u64 = u64::MAX;

/// Aimed-at entries of a sub-table: growing one of twice that takes some 50 µs.
const SUB_ENTRIES: u32 = 8192;
const SUBS_MIN: u32 = 64;
/// Beyond this the directory would not stay in the second-level cache.
const SUBS_MAX: u32 = 4096;
const LINES_MIN: usize = 3;
/// Words of a line that may be filled on average, in eighths of a word, before the sub-table
/// whose turn it is grows.
const LOAD_MEAN_EIGHTHS: usize = 53;
/// Words of a line that may be filled on average in one sub-table, in halves of a word.
const LOAD_MAX_HALVES: u32 = 15;
const SLACK_MIN: usize = 16;
/// Words of a cache line.
const LINE_WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn rng(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    fn check(index: &Index) {
        for (sub, &count) in index.subs.iter().zip(&index.counts) {
            let words = &sub.words;
            let full: Vec<(usize, u64)> = (0..words.len())
                .map(|at| (at, words[at]))
                .filter(|&(_, word)| word != EMPTY)
                .collect();
            assert_eq!(full.len(), count as usize);
            assert!(full.windows(2).all(|two| two[0].1 < two[1].1));
            for &(at, word) in &full {
                let home = sub.home_of(word);
                assert_eq!(words[home..].as_ptr().addr() % 64, 0);
                assert!(home <= at);
                assert!(words[home..at].iter().all(|&w| w != EMPTY));
            }
        }
        let sum = |of: fn(&Sub) -> usize| index.subs.iter().map(of).sum::<usize>();
        assert_eq!(index.words, sum(|sub| sub.words.len()));
        assert_eq!(index.lines, sum(|sub| sub.lines as usize));
        assert_eq!(index.entries, index.counts.iter().sum::<u32>() as usize);
    }

    /// Runs random changes against a set; `bits` of the hash vary, the rest are zero or one.
    fn churn(seed: u64, hash_mask: u64, hash_base: u64, steps: usize) {
        let mut next = rng(seed);
        let mut index = Index::new(1000);
        let mut all: BTreeSet<(u64, u32)> = BTreeSet::new();
        for step in 0..steps {
            let hash = (next() & hash_mask) | hash_base;
            let value = (next() % 400) as u32;
            let place = index.place(hash);
            match next() % 5 {
                0..3 if all.insert((hash, value)) => index.insert(place, value),
                0..3 => {}
                3 => assert_eq!(index.remove(place, value), all.remove(&(hash, value))),
                _ => {
                    let one = all.range((hash, 0)..).next().copied();
                    if let Some((hash, value)) = one {
                        all.remove(&(hash, value));
                        assert!(index.remove(index.place(hash), value));
                    }
                }
            }
            if step % 16 == 0 {
                check(&index);
            }
            let found = index.find(index.place(hash), |v| v == value);
            assert_eq!(found.is_some(), all.contains(&(hash, value)), "seed {seed}");
        }
        for &(hash, value) in &all {
            assert!(index.find(index.place(hash), |v| v == value).is_some());
        }
        check(&index);
    }

    #[test]
    fn an_index_behaves_as_a_set_under_random_change() {
        for seed in 0..4 {
            churn(seed, u64::MAX, 0, 4000);
        }
    }

    #[test]
    fn an_index_survives_tags_that_all_collide() {
        // Hashes that differ in two bits only, then some whose home is the very last word.
        churn(1, 0b11, 0, 1500);
        churn(2, 0x1_0000_0001, 0xffff_fffe, 1500);
        churn(3, 0, u64::MAX, 600);
    }

    #[test]
    fn the_load_stays_between_seven_and_nine_tenths() {
        let mut next = rng(5);
        let mut index = Index::new(1);
        for count in 1..100_000_usize {
            index.insert(index.place(next()), count as u32);
            if count > 20_000 && count % 1000 == 0 {
                let load = count as f64 / index.words as f64;
                assert!((0.70..0.90).contains(&load), "{load} at {count}");
            }
        }
    }

    #[test]
    fn sub_tables_grow_in_turn() {
        let mut next = rng(8);
        let mut index = Index::new(1);
        let (mut in_turn, mut out_of_turn) = (0, 0);
        for value in 0..300_000 {
            let place = index.place(next());
            let (words, turn) = (index.words, index.turn);
            index.insert(place, value);
            if value < 100_000 || words == index.words {
                continue;
            }
            match index.turn == turn {
                true => out_of_turn += 1,
                false => in_turn += 1,
            }
        }
        assert!(in_turn > 500, "{in_turn}");
        assert!(out_of_turn < in_turn / 20, "{out_of_turn} beside {in_turn}");
        check(&index);
    }

    #[test]
    fn growth_moves_one_small_piece_at_a_time() {
        let mut next = rng(6);
        let mut index = Index::new(1_000_000);
        let mut moved_most = 0;
        for value in 0..300_000 {
            let before = index.words;
            let place = index.place(next());
            index.insert(place, value);
            if index.words != before {
                moved_most = moved_most.max(index.counts[place.sub as usize]);
            }
        }
        assert!(moved_most < SUB_ENTRIES, "{moved_most} entries at once");
    }

    #[test]
    fn a_search_seldom_leaves_its_home_line_and_mostly_from_its_upper_half() {
        let mut next = rng(7);
        let mut index = Index::new(1);
        for value in 0..100_000 {
            index.insert(index.place(next()), value);
        }
        let (mut away, mut foreseen, mut upper) = (0, 0, 0);
        for sub in &index.subs {
            let words = &sub.words;
            for at in (0..words.len()).filter(|&at| words[at] != EMPTY) {
                let is_upper = sub.is_in_upper_half(tag(words[at]));
                upper += usize::from(is_upper);
                if at >= sub.home_of(words[at]) + LINE_WORDS {
                    away += 1;
                    foreseen += usize::from(is_upper);
                }
            }
        }
        assert!(away < 25_000, "{away} of 100,000");
        assert!((49_000..51_000).contains(&upper), "{upper} of 100,000");
        assert!(foreseen * 4 > away * 3, "{foreseen} of {away}");
    }

    #[test]
    #[should_panic(expected = "already")]
    fn the_same_entry_twice_is_noticed() {
        let mut index = Index::new(1);
        index.insert(index.place(7), 1);
        index.insert(index.place(7), 1);
    }
}
