//! The log as the core knows it: where it begins, where each epoch in it ends, and its newest
//! transactions in memory.
//!
//! The history runs ahead of the disk by the writes that are queued. It is what this server
//! votes with, and what a leader compares with a learner's.

use std::collections::VecDeque;

use super::message::Summary;
use super::plant::{Plant, Plants};
use super::ready::Entry;
use crate::types::Zxid;

/// One server's history.
///
/// Invariants: `base` ≤ every end; `ends` ascend in epoch; `window` is a gapless end of the
/// history, of which `window_after` is the last transaction before it.
#[derive(Clone, Hash)]
pub(super) struct History {
    /// The log reaches back to here; what came before is in a snapshot.
    base: Zxid,
    /// The last transaction of each epoch after `base`.
    ends: Vec<Zxid>,
    window: VecDeque<Entry>,
    window_after: Zxid,
    window_bytes: usize,
}

impl History {
    pub(super) fn new(summary: &Summary) -> History {
        let ascend = summary
            .ends
            .windows(2)
            .all(|pair| pair[0].epoch < pair[1].epoch);
        assert!(ascend, "the ends of epochs ascend: {:?}", summary.ends);
        let begin = summary.ends.first().is_none_or(|&end| end > summary.base);
        assert!(begin, "{summary:?} ends before it begins");
        let history = History {
            base: summary.base,
            ends: summary.ends.clone(),
            window: VecDeque::new(),
            window_after: Zxid::ZERO,
            window_bytes: 0,
        };
        let window_after = history.last();
        History {
            window_after,
            ..history
        }
    }

    /// The last transaction.
    pub(super) fn last(&self) -> Zxid {
        self.ends.last().copied().unwrap_or(self.base)
    }

    pub(super) fn base(&self) -> Zxid {
        self.base
    }

    /// True if `zxid` is a transaction of this history that a learner could continue from.
    pub(super) fn contains(&self, zxid: Zxid) -> bool {
        zxid == self.base
            || zxid > self.base
                && zxid.counter > 0
                && self.end_of(zxid).is_some_and(|end| zxid <= end)
    }

    /// What a leader needs to know of it. At most [`ENDS_MAX`] epochs; older ones are left out.
    pub(super) fn summary(&self) -> Summary {
        let skip = self.ends.len().saturating_sub(ENDS_MAX);
        Summary {
            base: skip
                .checked_sub(1)
                .map_or(self.base, |last| self.ends[last]),
            ends: self.ends[skip..].to_vec(),
        }
    }

    /// The last transaction of this history that a history summed up as `other` has too;
    /// `None` if it lies before the beginning of one of them.
    ///
    /// The newest epoch that both have decides: histories that share a transaction share all
    /// before it, so of that epoch they share as much as the shorter has, and of later ones
    /// nothing.
    pub(super) fn common_with(&self, other: &Summary, plants: Plants) -> Option<Zxid> {
        let last_of_other = other.ends.last().copied().unwrap_or(other.base);
        if plants.has(Plant::ComparesRanges) && last_of_other <= self.last() {
            return (last_of_other >= self.base).then_some(last_of_other);
        }
        if plants.has(Plant::CutsTooMuch) && other.base == self.base {
            return Some(self.base);
        }
        for theirs in points(other.base, &other.ends) {
            for ours in points(self.base, &self.ends) {
                if theirs.epoch == ours.epoch {
                    let common = theirs.min(ours);
                    let reached = common >= self.base && common >= other.base;
                    return reached.then_some(common);
                }
            }
        }
        None
    }

    /// Adds a transaction that follows the last.
    pub(super) fn push(&mut self, entry: Entry) {
        let zxid = entry.zxid;
        assert!(zxid > self.last(), "{zxid} after {}", self.last());
        match self.ends.last_mut() {
            Some(end) if end.epoch == zxid.epoch => *end = zxid,
            _ => self.ends.push(zxid),
        }
        self.window_bytes += entry.payload.len();
        self.window.push_back(entry);
    }

    /// Forgets the oldest transactions in memory as long as there are more than the limits
    /// allow: `entries` and `bytes` for what is at or below `committed`, which the log can
    /// give again, and `open_entries` and `open_bytes` more for the rest.
    pub(super) fn shrink(&mut self, committed: Zxid, keep: Keep) {
        while let Some(front) = self.window.front() {
            let (mut entries, mut bytes) = (keep.entries, keep.bytes);
            if front.zxid > committed {
                entries += keep.open_entries;
                bytes += keep.open_bytes;
            }
            if self.window.len() <= entries && self.window_bytes <= bytes {
                return;
            }
            self.window_bytes -= front.payload.len();
            self.window_after = front.zxid;
            self.window.pop_front();
        }
    }

    /// Cuts off everything after `to`.
    pub(super) fn truncate(&mut self, to: Zxid) {
        assert!(self.contains(to), "cut at {to}, which is not there");
        while self.ends.last().is_some_and(|end| end.epoch > to.epoch) {
            self.ends.pop();
        }
        match self.ends.last_mut() {
            Some(end) if to > self.base && end.epoch == to.epoch => *end = to,
            Some(_) if to <= self.base => self.ends.clear(),
            _ => {}
        }
        while self.window.back().is_some_and(|entry| entry.zxid > to) {
            if let Some(entry) = self.window.pop_back() {
                self.window_bytes -= entry.payload.len();
            }
        }
        self.window_after = self.window_after.min(to);
    }

    /// Begins anew after a snapshot as of `zxid`.
    pub(super) fn reset(&mut self, zxid: Zxid) {
        *self = History::new(&Summary {
            base: zxid,
            ends: Vec::new(),
        });
    }

    /// The log no longer reaches below `base`.
    pub(super) fn trim(&mut self, base: Zxid) {
        if base <= self.base {
            return;
        }
        assert!(self.contains(base), "trimmed to {base}, which is not there");
        self.base = base;
        self.ends.retain(|&end| end > base);
    }

    /// The last transaction that is no longer in memory.
    pub(super) fn window_after(&self) -> Zxid {
        self.window_after
    }

    /// The transactions in memory after `zxid` and up to `upto`; `None` if memory does not reach
    /// back to `zxid`.
    pub(super) fn range(
        &self,
        zxid: Zxid,
        upto: Zxid,
    ) -> Option<impl Iterator<Item = &Entry> + '_> {
        if zxid < self.window_after {
            return None;
        }
        let from = self.index_after(zxid);
        let to = self.index_after(upto).max(from);
        Some(self.window.range(from..to))
    }

    /// Index in the window of the first transaction after `zxid`.
    fn index_after(&self, zxid: Zxid) -> usize {
        match self.window.back() {
            // Within the newest epoch, where all the traffic is, counters are places.
            Some(last) if last.zxid.epoch == zxid.epoch && zxid.counter > 0 => {
                let behind = last.zxid.counter.saturating_sub(zxid.counter);
                let behind = usize::try_from(behind).unwrap_or(usize::MAX);
                if behind <= self.window.len() {
                    let at = self.window.len() - behind;
                    if at
                        .checked_sub(1)
                        .is_none_or(|before| self.window[before].zxid <= zxid)
                    {
                        return at;
                    }
                }
                self.window.partition_point(|entry| entry.zxid <= zxid)
            }
            _ => self.window.partition_point(|entry| entry.zxid <= zxid),
        }
    }

    fn end_of(&self, zxid: Zxid) -> Option<Zxid> {
        let at = self.ends.partition_point(|end| end.epoch < zxid.epoch);
        self.ends
            .get(at)
            .copied()
            .filter(|end| end.epoch == zxid.epoch)
    }
}

/// How much of the history stays in memory.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) open_entries: usize,
    pub(super) open_bytes: usize,
}

/// The most epochs told of a history. A log that holds more is one of a thousand elections
/// since its last snapshot, and then a learner is sent a snapshot sooner than need be.
pub(super) const ENDS_MAX: usize = 1_024;

/// The last known transaction of each epoch, newest first, the beginning included.
fn points(base: Zxid, ends: &[Zxid]) -> impl Iterator<Item = Zxid> + '_ {
    let begins = ends.first().is_none_or(|end| end.epoch != base.epoch);
    ends.iter().rev().copied().chain(begins.then_some(base))
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
