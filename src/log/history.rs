//! The log's history in short: enough for two servers to find the last transaction they share.

use super::Log;
use super::disk::Disk;
use super::error::ReadError;
use super::recovery::Link;
use crate::types::Zxid;

/// Where a history begins, and the last transaction of each epoch in it.
///
/// Two histories share a transaction if, and only if, both have it between `base` and the end
/// of its epoch: a leader numbers its epoch without gaps, so ends say as much as all zxids.
///
/// Invariants: what is at or below `base` is covered by a snapshot, or `base` is zero; what
/// follows it can be read back; `ends` is ascending, with one zxid an epoch, all above `base`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The last transaction before those that `ends` speaks of.
    pub base: Zxid,
    /// The last transaction of each epoch after `base`, ascending. Empty: the history ends at
    /// `base`.
    pub ends: Vec<Zxid>,
}

impl History {
    /// A history of nothing, after `base`.
    #[must_use]
    pub fn after(base: Zxid) -> History {
        History {
            base,
            ends: Vec::new(),
        }
    }

    /// The last transaction.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.ends.last().copied().unwrap_or(self.base)
    }

    /// Adds the next transaction.
    #[inline]
    pub(super) fn append(&mut self, zxid: Zxid) {
        debug_assert!(
            zxid.follows(self.last()),
            "{zxid} does not follow {}",
            self.last()
        );
        match self.ends.last_mut() {
            Some(end) if end.epoch == zxid.epoch => *end = zxid,
            _ => self.ends.push(zxid),
        }
    }

    /// Forgets what follows `zxid`, which is a transaction of this history, or its base.
    pub(super) fn cut(&mut self, zxid: Zxid) {
        assert!(
            zxid >= self.base,
            "a cut at {zxid} below the base {}",
            self.base
        );
        self.ends.retain(|&end| end < zxid);
        if zxid > self.base {
            self.ends.push(zxid);
        }
    }

    /// Forgets what is at or below `base`, unless less than that is known already.
    pub(super) fn trim(&mut self, base: Zxid) {
        if base > self.base {
            self.base = base;
            self.ends.retain(|&end| end > base);
        }
    }

    /// Reaches back over segments that were not read, by their beginnings: one that begins in
    /// the epoch in which the next one begins holds nothing but that epoch.
    ///
    /// `earlier` are those before the base, oldest first.
    pub(super) fn reach_back(&mut self, earlier: &[Link]) {
        let known = self.base;
        let same = earlier.iter().rev().map(|link| link.previous);
        for previous in same.take_while(|previous| previous.epoch == known.epoch) {
            self.base = previous;
        }
        let continued = self
            .ends
            .first()
            .is_some_and(|end| end.epoch == known.epoch);
        if self.base < known && !continued {
            self.ends.insert(0, known);
        }
    }
}

impl<D: Disk> Log<D> {
    /// The history in short, up to [`Log::last`].
    ///
    /// It begins at [`Log::begins_after`], or later if segments that a snapshot covers were not
    /// read at the start.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The history up to `zxid` as it is once all snapshots above that are gone and `covered` is
    /// the newest: read anew if less than what is known in short is covered then.
    pub(super) fn history_upto(&self, zxid: Zxid, covered: Zxid) -> Result<History, ReadError> {
        if self.history.base <= covered {
            let mut history = self.history.clone();
            history.cut(zxid);
            return Ok(history);
        }
        let mut history = History::after(covered);
        let mut entries = self.entries_after(covered)?;
        while let Some(entry) = entries.next()?.filter(|entry| entry.zxid <= zxid) {
            history.append(entry.zxid);
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    fn zxid(epoch: u64, counter: u64) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn history(base: Zxid, ends: &[Zxid]) -> History {
        History {
            base,
            ends: ends.to_vec(),
        }
    }

    #[test]
    fn appending_moves_the_last_end_or_begins_an_epoch() {
        let mut found = History::after(zxid(1, 2));
        for next in [zxid(1, 3), zxid(1, 4), zxid(3, 1), zxid(4, 1), zxid(4, 2)] {
            found.append(next);
            assert_eq!(found.last(), next);
        }
        let ends = [zxid(1, 4), zxid(3, 1), zxid(4, 2)];
        assert_eq!(found, history(zxid(1, 2), &ends));
    }

    #[test]
    fn a_cut_ends_the_epoch_it_falls_into() {
        let whole = history(zxid(1, 2), &[zxid(1, 4), zxid(3, 5), zxid(4, 1)]);
        let cases = [
            (zxid(4, 1), vec![zxid(1, 4), zxid(3, 5), zxid(4, 1)]),
            (zxid(3, 5), vec![zxid(1, 4), zxid(3, 5)]),
            (zxid(3, 2), vec![zxid(1, 4), zxid(3, 2)]),
            (zxid(1, 4), vec![zxid(1, 4)]),
            (zxid(1, 3), vec![zxid(1, 3)]),
            (zxid(1, 2), vec![]),
        ];
        for (at, ends) in cases {
            let mut cut = whole.clone();
            cut.cut(at);
            assert_eq!(cut, history(zxid(1, 2), &ends), "cut at {at}");
        }
    }

    #[test]
    fn trimming_raises_the_base_and_never_lowers_it() {
        let whole = history(zxid(1, 2), &[zxid(1, 4), zxid(3, 5)]);
        let cases = [
            (zxid(1, 1), zxid(1, 2), vec![zxid(1, 4), zxid(3, 5)]),
            (zxid(1, 3), zxid(1, 3), vec![zxid(1, 4), zxid(3, 5)]),
            (zxid(1, 4), zxid(1, 4), vec![zxid(3, 5)]),
            (zxid(3, 2), zxid(3, 2), vec![zxid(3, 5)]),
            (zxid(3, 5), zxid(3, 5), vec![]),
        ];
        for (at, base, ends) in cases {
            let mut trimmed = whole.clone();
            trimmed.trim(at);
            assert_eq!(trimmed, history(base, &ends), "trimmed at {at}");
        }
    }

    #[test]
    fn it_reaches_back_over_segments_of_one_epoch_and_no_further() {
        let links = |begins: &[Zxid]| -> Vec<Link> {
            let link = |(at, &previous): (usize, &Zxid)| Link {
                index: at as u32 + 1,
                previous,
            };
            begins.iter().enumerate().map(link).collect()
        };
        let earlier = links(&[Zxid::ZERO, zxid(1, 9), zxid(2, 3), zxid(2, 8)]);
        let reach = |base: Zxid, ends: &[Zxid]| {
            let mut found = history(base, ends);
            found.reach_back(&earlier);
            found
        };
        // The epoch goes on behind the base, or it ends there.
        let on = reach(zxid(2, 12), &[zxid(2, 15)]);
        assert_eq!(on, history(zxid(2, 3), &[zxid(2, 15)]));
        let ended = reach(zxid(2, 12), &[zxid(4, 1)]);
        assert_eq!(ended, history(zxid(2, 3), &[zxid(2, 12), zxid(4, 1)]));
        let nothing = reach(zxid(2, 12), &[]);
        assert_eq!(nothing, history(zxid(2, 3), &[zxid(2, 12)]));
        // Where the segment before began in another epoch, nothing is known of its end.
        let other = reach(zxid(3, 1), &[zxid(3, 7)]);
        assert_eq!(other, history(zxid(3, 1), &[zxid(3, 7)]));
    }
}
