//! Stalls: stretches of time in which beats waited long.

use std::ops::Range;

/// A stretch of time in which beats waited, one stall for all that overlap: after a stop of the
/// machine the backlog is worked off, and the beats that wait for that wait for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Stall {
    /// From when the first of the beats was due until the last was answered.
    pub(crate) during_ns: Range<u64>,
    /// How long the one that waited longest did.
    pub(crate) longest_ns: u64,
    /// Of that, how long until the generator sent it.
    pub(crate) unsent_ns: u64,
    /// How many beats waited.
    pub(crate) beats: u64,
}

/// The stalls of a run so far, in order of time.
#[derive(Debug)]
pub(crate) struct Stalls {
    /// A beat that waits less is not looked into.
    least_ns: u64,
    all: Vec<Stall>,
}

impl Stalls {
    /// Those of beats that wait `least_ns` or more.
    pub(crate) fn new(least_ns: u64) -> Stalls {
        Stalls {
            least_ns,
            all: Vec::new(),
        }
    }

    /// Takes note of a beat that was due, sent and answered at these times.
    pub(crate) fn add(&mut self, due_ns: u64, sent_ns: u64, done_ns: u64, beats: u32) {
        let longest_ns = done_ns.saturating_sub(due_ns);
        if longest_ns < self.least_ns {
            return;
        }
        let mut stall = Stall {
            during_ns: due_ns..done_ns,
            longest_ns,
            unsent_ns: sent_ns.saturating_sub(due_ns),
            beats: u64::from(beats),
        };
        // Answers come in order of time, so only the newest stalls can begin after this beat was due.
        let mut full = self.all.len() >= STALLS_MAX;
        while let Some(last) = self
            .all
            .pop_if(|last| std::mem::take(&mut full) || last.during_ns.end >= stall.during_ns.start)
        {
            stall = joined(last, stall);
        }
        self.all.push(stall);
    }

    /// All of them.
    pub(crate) fn finish(self) -> Vec<Stall> {
        self.all
    }
}

fn joined(a: Stall, b: Stall) -> Stall {
    let worse = if a.longest_ns >= b.longest_ns { &a } else { &b };
    let (longest_ns, unsent_ns) = (worse.longest_ns, worse.unsent_ns);
    let start = a.during_ns.start.min(b.during_ns.start);
    let end = a.during_ns.end.max(b.during_ns.end);
    Stall {
        during_ns: start..end,
        longest_ns,
        unsent_ns,
        beats: a.beats + b.beats,
    }
}

/// Stalls kept; where there are more, the newest are joined, which overstates them.
const STALLS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLI;

    fn stalls(beats: &[(u64, u64, u64)]) -> Vec<Stall> {
        let mut stalls = Stalls::new(5 * MILLI);
        for (due, sent, done) in beats {
            stalls.add(due * MILLI, sent * MILLI, done * MILLI, 1);
        }
        stalls.finish()
    }

    #[test]
    fn beats_that_wait_at_the_same_time_wait_in_one_stall() {
        let all = stalls(&[
            (0, 0, 4),
            (10, 10, 40),
            (20, 25, 41),
            (5, 30, 42),
            (50, 51, 60),
        ]);
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[0],
            Stall {
                during_ns: 5 * MILLI..42 * MILLI,
                longest_ns: 37 * MILLI,
                unsent_ns: 25 * MILLI,
                beats: 3
            }
        );
        assert_eq!(all[1].longest_ns, 10 * MILLI);
    }

    #[test]
    fn no_more_stalls_are_kept_than_there_is_room_for_and_none_is_lost() {
        let mut stalls = Stalls::new(5 * MILLI);
        let beats = STALLS_MAX as u64 + 1;
        for beat in 0..beats {
            stalls.add(
                beat * 100 * MILLI,
                beat * 100 * MILLI,
                (beat * 100 + 9) * MILLI,
                1,
            );
        }
        let all = stalls.finish();
        assert_eq!(all.len(), STALLS_MAX);
        assert_eq!(all.iter().map(|s| s.beats).sum::<u64>(), beats);
    }

    #[test]
    fn a_beat_that_spans_earlier_stalls_makes_them_one() {
        let all = stalls(&[(0, 0, 10), (20, 20, 30), (5, 5, 50)]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].during_ns, 0..50 * MILLI);
        assert_eq!((all[0].longest_ns, all[0].beats), (45 * MILLI, 3));
    }
}
