//! How long an ensemble may take to recover, and whether it comes nearer.
//!
//! A server that lacks ten thousand transactions and may be sent one at a time, each synced by a
//! slow disk before the next, needs minutes: no fixed bound is fair to all worlds. So two things
//! are demanded, from when all is healed until a new commit has come and all servers agree:
//!
//! - **progress**: within [`STILL_US`] at least one server comes further than it has ever been;
//! - **an end**: all is over after [`STILL_US`] twice, once for a leader and once for agreement,
//!   and as long as the drawn limits and the drawn disk take at worst for what is missing.
//!
//! A livelock cannot pass for progress. What is measured are high-water marks of each server's log
//! and application, in transactions of the ghost's histories: whoever is cut and fed again, or
//! starts over and over, comes no further than it was. Once clients are quiet no history grows, so
//! that the marks have an end too.

use super::profile::Profile;

/// How far a server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Transactions in its log.
    pub logged: u64,
    /// Those of them that are committed: fewer, where a suffix is yet to be cut off.
    pub kept: u64,
    /// Transactions its application has been given.
    pub applied: u64,
}

/// What has been reached since all was healed.
#[derive(Clone, Debug)]
pub struct Recovery {
    began_us: u64,
    /// By server: the most of each that it has reached.
    marks: Vec<Reached>,
    /// When one of them was raised last.
    raised_us: u64,
    /// When it must have come to its end, whatever the progress.
    end_us: u64,
    /// How long one transaction takes at worst, from the leader's history to the learner's
    /// acknowledgement, with nothing else under way.
    slowest_us: u64,
}

impl Recovery {
    /// All has just been healed, in a world of this character. `missing` is how many
    /// transactions servers lack, summed over all of them.
    #[must_use]
    pub fn new(now_us: u64, profile: &Profile, latency_max_us: u64, missing: u64) -> Recovery {
        let disk = &profile.disk;
        // Read at the leader, sent, taken, synced, reported, acknowledged.
        let slowest_us = disk.read.max
            + 2 * latency_max_us
            + 2 * disk.write.max
            + disk.sync.max
            + disk.report.max
            + SLACK_US;
        let mut recovery = Recovery {
            began_us: now_us,
            marks: vec![Reached::default(); profile.servers()],
            raised_us: now_us,
            end_us: 0,
            slowest_us,
        };
        recovery.owes(now_us, missing);
        recovery
    }

    /// From `now_us` on no more transactions come, and this many are missing, summed over all
    /// servers.
    pub fn owes(&mut self, now_us: u64, missing: u64) {
        self.end_us = now_us + 2 * STILL_US + missing * self.slowest_us;
    }

    /// A server is here now.
    pub fn stands(&mut self, now_us: u64, at: usize, reached: Reached) {
        let mark = &mut self.marks[at];
        let furthest = Reached {
            logged: mark.logged.max(reached.logged),
            kept: mark.kept.max(reached.kept),
            applied: mark.applied.max(reached.applied),
        };
        if furthest != *mark {
            *mark = furthest;
            self.raised_us = now_us;
        }
    }

    /// When it has failed unless somebody comes further.
    #[must_use]
    pub fn deadline_us(&self) -> u64 {
        self.end_us.min(self.raised_us + STILL_US)
    }

    /// How long it has taken so far, µs.
    #[must_use]
    pub fn took_us(&self, now_us: u64) -> u64 {
        now_us - self.began_us
    }

    /// Why it has failed.
    #[must_use]
    pub fn failure(&self, now_us: u64) -> String {
        let seconds = |us: u64| us / 1_000_000;
        format!(
            "not recovered {} s after all was healed, {} s after the last progress",
            seconds(self.took_us(now_us)),
            seconds(now_us - self.raised_us),
        )
    }
}

/// How long an ensemble may come no nearer to recovery, µs.
pub const STILL_US: u64 = 10_000_000;
/// What timers and the queue add to a transaction, µs.
const SLACK_US: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(missing: u64) -> Recovery {
        Recovery::new(0, &Profile::calm(3, 0), 2_000, missing)
    }

    fn at(logged: u64, kept: u64, applied: u64) -> Reached {
        Reached {
            logged,
            kept,
            applied,
        }
    }

    #[test]
    fn whoever_comes_further_has_ten_more_seconds() {
        let mut recovery = begun(100_000);
        assert_eq!(recovery.deadline_us(), STILL_US);
        let steps = [at(7, 0, 0), at(7, 1, 0), at(7, 1, 1)];
        for (now_us, reached) in (4_000_000..).step_by(1_000_000).zip(steps) {
            recovery.stands(now_us, 1, reached);
            assert_eq!(recovery.deadline_us(), now_us + STILL_US);
        }
        recovery.stands(8_000_000, 2, at(1, 1, 1));
        assert_eq!(recovery.deadline_us(), 8_000_000 + STILL_US);
    }

    #[test]
    fn a_server_that_is_cut_and_fed_again_makes_no_progress() {
        let mut recovery = begun(100_000);
        recovery.stands(0, 1, at(50, 40, 40));
        for turn in 1..20 {
            recovery.stands(turn * 1_000_000, 1, at(10, 10, 10));
            recovery.stands(turn * 1_000_000 + 500_000, 1, at(50, 40, 40));
        }
        assert_eq!(recovery.deadline_us(), STILL_US);
    }

    #[test]
    fn what_is_missing_and_the_drawn_disk_say_when_it_must_end_whatever_the_progress() {
        let (few, many) = (begun(10), begun(9_000));
        let slowest_us = few.slowest_us;
        assert!(slowest_us > Profile::calm(3, 0).disk.sync.max);
        assert_eq!(many.end_us - few.end_us, 8_990 * slowest_us);
        let mut recovery = few;
        for second in 0..1_000 {
            recovery.stands(second * 1_000_000, 0, at(second, second, second));
        }
        assert_eq!(recovery.deadline_us(), 2 * STILL_US + 10 * slowest_us);
    }
}
