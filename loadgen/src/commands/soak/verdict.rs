//! What must hold after a soak.

use crate::commands::rolling::{Judged, OURS_NS_MAX, stall_table};
use crate::recorder::Hist;
use crate::report::{Report, count, time};
use std::time::SystemTime;

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
        let table = stall_table(&self.stalls, began, began_ns);
        report.note(&format!("The longest stalls:\n\n{table}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLI;
    use crate::commands::rolling::{Evidence, judge};
    use crate::recorder;
    use crate::stalls::Stall;

    /// A stall of so many milliseconds that nobody else accounts for.
    fn ours(longest_ms: u64) -> Vec<Judged> {
        let stall = Stall {
            during_ns: 500 * MILLI..(500 + longest_ms) * MILLI,
            longest_ns: longest_ms * MILLI,
            unsent_ns: 0,
            beats: 1,
        };
        judge(vec![stall], &Evidence { accounts: vec![] })
    }

    fn outcome() -> Outcome {
        let mut beats = recorder::empty();
        beats.saturating_record_n(MILLI, 1_000);
        Outcome {
            beats,
            stalls: ours(20),
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
    fn a_soak_without_fault_is_clean_and_shows_its_stalls() {
        let report = told(&outcome());
        let text = report.text();
        assert!(report.is_clean(), "{text}");
        assert!(text.contains("| 0.45 s | 20.00 ms |"), "{text}");
    }

    #[test]
    fn every_claim_is_needed() {
        for (what, outcome) in [
            (
                "a stall of ours",
                Outcome {
                    stalls: ours(21),
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
