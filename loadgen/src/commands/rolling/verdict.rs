//! Whose each stall was.

use super::evidence::Evidence;
use crate::clock::{self, MILLI};
use crate::report::{count, time};
use crate::stalls::Stall;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// A stall, and how much of it nobody else accounts for.
pub(in crate::commands) struct Judged {
    pub(in crate::commands) stall: Stall,
    /// What the witnesses say was taken from us within it.
    taken_ns: u64,
    /// What is left of the longest wait: the server's, for all that is known.
    pub(in crate::commands) left_ns: u64,
}

/// Holds every stall against the evidence. The longest come first.
///
/// Of the longest wait either the time before the beat was sent is the generator's and what the
/// witnesses saw after it the machine's, or what they saw in all of the stall is; the larger of
/// the two, since they may have seen what kept the generator.
pub(in crate::commands) fn judge(stalls: Vec<Stall>, evidence: &Evidence) -> Vec<Judged> {
    let mut judged: Vec<Judged> = stalls
        .into_iter()
        .map(|stall| {
            let (start, end) = (stall.during_ns.start, stall.during_ns.end);
            let taken_ns = evidence.taken(start, end);
            let after = evidence.taken(start + stall.unsent_ns, end);
            let excused_ns = taken_ns.max(stall.unsent_ns + after);
            Judged {
                left_ns: stall.longest_ns.saturating_sub(excused_ns),
                taken_ns,
                stall,
            }
        })
        .collect();
    judged.sort_by_key(|j| std::cmp::Reverse(j.stall.longest_ns));
    judged
}

/// A table of the first of `stalls`; `began` is when the time that was measured in nanoseconds
/// stood at `began_ns`.
pub(in crate::commands) fn stall_table(
    stalls: &[Judged],
    began: SystemTime,
    began_ns: u64,
) -> String {
    let mut table =
        "| at, UTC | after | longest wait | of it unsent | taken by the machine | left \
                     | beats | whose |\n|---|---|---|---|---|---|---|---|"
            .to_owned();
    for judged in stalls.iter().take(SHOWN) {
        let stall = &judged.stall;
        let after = Duration::from_nanos(stall.during_ns.start.saturating_sub(began_ns));
        let _ = write!(
            table,
            "\n| {} | {:.2} s | {} | {} | {} | {} | {} | {} |",
            clock::date_and_time(began + after).1,
            after.as_secs_f64(),
            time(stall.longest_ns),
            time(stall.unsent_ns),
            time(judged.taken_ns),
            time(judged.left_ns),
            count(stall.beats),
            judged.whose()
        );
    }
    table
}

impl Judged {
    fn whose(&self) -> &'static str {
        let excused = self.stall.longest_ns - self.left_ns;
        if self.left_ns > OURS_NS_MAX || self.left_ns >= excused {
            "server"
        } else if self.stall.unsent_ns > self.taken_ns {
            "generator"
        } else {
            "machine"
        }
    }
}

/// A stall of which more is left is the server's, whatever else was taken.
pub(in crate::commands) const OURS_NS_MAX: u64 = 20 * MILLI;
/// Stalls told of.
const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::super::evidence::Account;
    use super::*;

    fn stall(from_ms: u64, longest_ms: u64, unsent_ms: u64) -> Stall {
        let start = from_ms * MILLI;
        Stall {
            during_ns: start..start + longest_ms * MILLI,
            longest_ns: longest_ms * MILLI,
            unsent_ns: unsent_ms * MILLI,
            beats: 1,
        }
    }

    /// From 100 ms to 140 ms nothing ran.
    fn evidence() -> Evidence {
        let mut account = Account::new(0);
        account.add(100 * MILLI, 140 * MILLI, 40 * MILLI);
        Evidence {
            accounts: vec![("stopped", account)],
        }
    }

    fn judged(stall: Stall) -> (u64, &'static str) {
        let judged = judge(vec![stall], &evidence()).pop().unwrap();
        (judged.left_ns / MILLI, judged.whose())
    }

    #[test]
    fn what_machine_and_generator_do_not_account_for_is_the_servers() {
        assert_eq!(judged(stall(500, 50, 0)), (50, "server"));
        assert_eq!(judged(stall(500, 50, 45)), (5, "generator"));
        assert_eq!(judged(stall(100, 45, 0)), (5, "machine"));
        assert_eq!(
            judged(stall(100, 90, 0)),
            (50, "server"),
            "a stop excuses itself only"
        );
    }

    #[test]
    fn a_stop_that_kept_the_generator_as_well_is_not_counted_twice() {
        assert_eq!(judged(stall(100, 55, 40)), (15, "machine"));
        assert_eq!(
            judged(stall(100, 70, 40)),
            (30, "server"),
            "too much is left"
        );
    }

    #[test]
    fn the_longest_stall_comes_first_with_its_time() {
        let all = judge(vec![stall(500, 20, 0), stall(100, 45, 0)], &evidence());
        let table = stall_table(&all, SystemTime::UNIX_EPOCH, 50 * MILLI);
        let row = "| 00:00:00 | 0.05 s | 45.00 ms | 0 ns | 40.00 ms | 5.00 ms | 1 | machine |";
        let (first, second) = (table.find(row), table.find("| 0.45 s | 20.00 ms |"));
        assert!(first.is_some() && first < second, "{table}");
    }
}
