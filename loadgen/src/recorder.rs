//! Latencies by kind, in total and by interval.

use crate::clock::SECOND;
use hdrhistogram::Histogram;

/// A histogram of nanoseconds.
pub(crate) type Hist = Histogram<u64>;

/// What a latency is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(crate) enum Tag {
    /// Joins.
    Join,
    /// Beats while sessions still join; apart, since joins disturb them.
    BeatJoining,
    /// Beats in the measured time.
    Beat,
    /// Beats while a mass expires.
    BeatExpiring,
    /// Leaves.
    Leave,
    /// From a dead member's deadline to the answer that no longer lists it.
    Lateness,
    /// Open loop: how long after it was due a block of beats was sent.
    SendLag,
}

impl Tag {
    /// All of them, in the order of their places.
    pub(crate) const ALL: [Tag; 7] = [
        Tag::Join,
        Tag::BeatJoining,
        Tag::Beat,
        Tag::BeatExpiring,
        Tag::Leave,
        Tag::Lateness,
        Tag::SendLag,
    ];

    /// The word used in logs and file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tag::Join => "join",
            Tag::BeatJoining => "beat-while-joining",
            Tag::Beat => "beat",
            Tag::BeatExpiring => "beat-while-expiring",
            Tag::Leave => "leave",
            Tag::Lateness => "expiry-lateness",
            Tag::SendLag => "sent-after-due",
        }
    }
}

/// The latencies of one kind in one interval.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Which kind.
    pub(crate) tag: Tag,
    /// Which interval, counted from the start in units of [`INTERVAL_NS`].
    pub(crate) index: u64,
    /// How often each latency was seen, ascending. Much smaller than a histogram, of which an
    /// hour's run would keep thousands.
    pub(crate) seen: Vec<(u64, u64)>,
}

impl Interval {
    /// As a histogram.
    pub(crate) fn hist(&self) -> Hist {
        let mut hist = empty();
        self.add_to(&mut hist);
        hist
    }

    fn add_to(&self, hist: &mut Hist) {
        for (ns, n) in &self.seen {
            hist.saturating_record_n(*ns, *n);
        }
    }
}

/// Records latencies of one thread.
pub(crate) struct Recorder {
    origin_ns: u64,
    index: u64,
    current: Vec<Hist>,
    done: Vec<Interval>,
}

impl Recorder {
    /// Counts intervals from `origin_ns`.
    pub(crate) fn new(origin_ns: u64) -> Recorder {
        Recorder {
            origin_ns,
            index: 0,
            current: Tag::ALL.iter().map(|_| empty()).collect(),
            done: Vec::new(),
        }
    }

    /// Records `ns` once.
    pub(crate) fn record(&mut self, tag: Tag, ns: u64) {
        self.record_n(tag, ns, 1);
    }

    /// Records `ns` for `n` operations at once.
    pub(crate) fn record_n(&mut self, tag: Tag, ns: u64, n: u32) {
        self.current[tag as usize].saturating_record_n(ns.max(LOWEST_NS), u64::from(n));
    }

    /// Ends the interval if `now_ns` is past it.
    pub(crate) fn roll(&mut self, now_ns: u64) {
        let index = now_ns.saturating_sub(self.origin_ns) / INTERVAL_NS;
        if index > self.index {
            self.cut();
            self.index = index;
        }
    }

    /// The intervals, in order.
    pub(crate) fn finish(mut self) -> Vec<Interval> {
        self.cut();
        self.done
    }

    fn cut(&mut self) {
        for tag in Tag::ALL {
            let hist = &mut self.current[tag as usize];
            if !hist.is_empty() {
                let values = hist.iter_recorded();
                let seen = values
                    .map(|v| (v.value_iterated_to(), v.count_at_value()))
                    .collect();
                self.done.push(Interval {
                    tag,
                    index: self.index,
                    seen,
                });
                hist.reset();
            }
        }
    }
}

/// All latencies of one kind.
pub(crate) fn total(intervals: &[Interval], tag: Tag) -> Hist {
    let mut sum = empty();
    for interval in intervals.iter().filter(|i| i.tag == tag) {
        interval.add_to(&mut sum);
    }
    sum
}

/// Joins the intervals of several threads: one of each kind and index, in order of time.
pub(crate) fn merge(mut all: Vec<Interval>) -> Vec<Interval> {
    all.sort_by_key(|i| (i.index, i.tag));
    let mut merged: Vec<Interval> = Vec::with_capacity(all.len());
    for interval in all {
        match merged.last_mut() {
            Some(last) if (last.index, last.tag) == (interval.index, interval.tag) => {
                let mut both = last.hist();
                interval.add_to(&mut both);
                let values = both.iter_recorded();
                last.seen = values
                    .map(|v| (v.value_iterated_to(), v.count_at_value()))
                    .collect();
            }
            _ => merged.push(interval),
        }
    }
    merged
}

/// A histogram with the bounds all of ours have.
pub(crate) fn empty() -> Hist {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3).expect("constant bounds that are in order")
}

/// Length of an interval.
pub(crate) const INTERVAL_NS: u64 = SECOND;
/// Resolution: below the cost of a system call.
const LOWEST_NS: u64 = 100;
/// Longer latencies count as this long.
const HIGHEST_NS: u64 = 200 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_cut_by_time_and_add_up() {
        let mut a = Recorder::new(0);
        a.record(Tag::Beat, 5_000);
        a.roll(INTERVAL_NS - 1);
        a.record(Tag::Beat, 6_000);
        a.roll(3 * INTERVAL_NS);
        a.record_n(Tag::Beat, 7_000, 3);
        a.record(Tag::Join, u64::MAX);
        let mut b = Recorder::new(0);
        b.record(Tag::Beat, 1);
        let all = merge([a.finish(), b.finish()].concat());
        let shape: Vec<(u64, Tag, u64)> = all
            .iter()
            .map(|i| (i.index, i.tag, i.hist().len()))
            .collect();
        assert_eq!(
            shape,
            [(0, Tag::Beat, 3), (3, Tag::Join, 1), (3, Tag::Beat, 3)]
        );
        assert_eq!(total(&all, Tag::Beat).len(), 6);
        assert!(total(&all, Tag::Leave).is_empty());
    }

    #[test]
    fn tags_stand_at_their_places() {
        for (place, tag) in Tag::ALL.iter().enumerate() {
            assert_eq!(*tag as usize, place);
        }
    }
}
