//! Whose each stall was, and what must hold after a soak.

use super::evidence::Evidence;
use crate::clock::{self, MILLI};
use crate::recorder::Hist;
use crate::report::{Report, count, time};
use crate::stalls::Stall;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// A stall, and how much of it nobody else accounts for.
pub(super) struct Judged {
    stall: Stall,
    /// What the witnesses say was taken from us within it.
    taken_ns: u64,
    /// What is left of the longest wait: the server's, for all that is known.
    left_ns: u64,
}

/// Holds every stall against the evidence. The longest come first.
///
/// Of the longest wait either the time before the beat was sent is the generator's and what the
/// witnesses saw after it the machine's, or what they saw in all of the stall is; the larger of
/// the two, since they may have seen what kept the generator.
pub(super) fn judge(stalls: Vec<Stall>, evidence: &Evidence) -> Vec<Judged> {
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

/// What is judged.
pub(super) struct Outcome {
    pub(super) beats: Hist,
    pub(super) stalls: Vec<Judged>,
    pub(super) sessions: u64,
    pub(super) living: u64,
    /// Of each so many must have begun.
    pub(super) rolls: u64,
    pub(super) snapshots: u64,
    pub(super) segments: u64,
}

impl Outcome {
    /// Adds the claims, and the table of the longest stalls; `began` is when the time that was
    /// measured in nanoseconds stood at `began_ns`.
    pub(super) fn tell(&self, report: &mut Report, began: SystemTime, began_ns: u64) {
        let beats = &self.beats;
        let q = |q| time(beats.value_at_quantile(q));
        let (p50, p99, p999, p9999) = (q(0.5), q(0.99), q(0.999), q(0.9999));
        let text = format!(
            "p50 {p50}, p99 {p99}, p99.9 {p999}, p99.99 {p9999}, max {}",
            time(beats.max())
        );
        let p999 = beats.value_at_quantile(0.999);
        report.figure("beat_p999_ns", "beats, from when each was due", text, p999);
        let label = "beats answered at all";
        let answered = !beats.is_empty();
        report.claim("answered", label, &count(beats.len()), answered);
        for (key, what, n) in [
            ("snapshots", "snapshots written", self.snapshots),
            ("segments", "log segments begun, at least", self.segments),
        ] {
            let label = format!("{what}, {} asked for", self.rolls);
            report.claim(key, &label, &count(n), n >= self.rolls);
        }
        let gone = self.sessions.saturating_sub(self.living);
        let text = format!("{} of {} are gone", count(gone), count(self.sessions));
        report.claim("false_expiries", "nobody expires", &text, gone == 0);
        let worst = self.stalls.iter().map(|j| j.left_ns).max().unwrap_or(0);
        let over = |ns: fn(&Judged) -> u64| {
            let long = self.stalls.iter().filter(|j| ns(j) > OURS_NS_MAX);
            count(long.count() as u64)
        };
        let text = format!(
            "{} stalls over {}, of which {} are not accounted for by machine or generator; most \
             that is left of any: {}",
            over(|j| j.stall.longest_ns),
            time(OURS_NS_MAX),
            over(|j| j.left_ns),
            time(worst)
        );
        let what = format!("no stall over {} that is ours", time(OURS_NS_MAX));
        report.claim("no_stall_of_ours", &what, &text, worst <= OURS_NS_MAX);
        report.data("stall_left_ns", worst.into());
        report.note(&self.table(began, began_ns));
    }

    fn table(&self, began: SystemTime, began_ns: u64) -> String {
        let mut table =
            "The longest stalls:\n\n| at, UTC | after | longest wait | of it unsent | taken \
                         by the machine | left | beats | whose |\n|---|---|---|---|---|---|---|---|"
                .to_owned();
        for judged in self.stalls.iter().take(SHOWN) {
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

/// A stall of ours is longer than this.
const OURS_NS_MAX: u64 = 20 * MILLI;
/// Stalls told of.
const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::super::evidence::Account;
    use super::*;
    use crate::recorder;

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

    fn outcome() -> Outcome {
        let mut beats = recorder::empty();
        beats.saturating_record_n(MILLI, 1_000);
        Outcome {
            beats,
            stalls: judge(vec![stall(500, 20, 0), stall(100, 45, 0)], &evidence()),
            sessions: 100,
            living: 100,
            rolls: 5,
            snapshots: 5,
            segments: 5,
        }
    }

    fn told(outcome: &Outcome) -> Report {
        let mut report = Report::new("soak", SystemTime::UNIX_EPOCH, "x");
        outcome.tell(&mut report, SystemTime::UNIX_EPOCH, 50 * MILLI);
        report
    }

    #[test]
    fn the_longest_stall_comes_first_with_its_time() {
        let report = told(&outcome());
        let text = report.text();
        let row = "| 00:00:00 | 0.05 s | 45.00 ms | 0 ns | 40.00 ms | 5.00 ms | 1 | machine |";
        let (first, second) = (text.find(row), text.find("| 0.45 s | 20.00 ms |"));
        assert!(first.is_some() && first < second, "{text}");
        assert!(report.is_clean(), "{text}");
    }

    #[test]
    fn every_claim_is_needed() {
        for (what, outcome) in [
            (
                "a stall of ours",
                Outcome {
                    stalls: judge(vec![stall(500, 21, 0)], &evidence()),
                    ..outcome()
                },
            ),
            (
                "too few snapshots",
                Outcome {
                    snapshots: 4,
                    ..outcome()
                },
            ),
            (
                "too few segments",
                Outcome {
                    segments: 4,
                    ..outcome()
                },
            ),
            (
                "somebody expired",
                Outcome {
                    living: 99,
                    ..outcome()
                },
            ),
            (
                "nobody was answered",
                Outcome {
                    beats: recorder::empty(),
                    ..outcome()
                },
            ),
        ] {
            assert!(!told(&outcome).is_clean(), "{what}");
        }
    }
}
