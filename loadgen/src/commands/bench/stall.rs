//! P9's stall: the longest a beat waits while a snapshot is taken, beside the longest while none
//! is.

use super::{filled, pinned};
use crate::cli::Bench;
use crate::clock::{self, MILLI, SECOND};
use crate::commands::rolling::{
    self, Churn, Judged, Rolled, Witnesses, judge, stall_table, tell_churn, tell_evidence,
};
use crate::commands::{conclude, tell};
use crate::plan::{Load, Plan};
use crate::recorder::Tag;
use crate::report::{Report, count, time};
use crate::run;
use anyhow::Result;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Beats at a steady rate while as many snapshots are taken as there are to be rounds.
pub(super) fn stalls(flags: &Bench) -> Result<bool> {
    let flags = pinned(flags);
    let (home, _settings) = rolling::home(&flags.own)?;
    let (server, known, mut report) = filled(&home, &flags)?;
    let duration_ns = u64::from(flags.rounds) * EACH_NS;
    let snapshot_bytes = u64::from(flags.sessions) * SNAPSHOT_BYTES_A_SESSION;
    // One more than must be: what is logged is no even stream.
    let rolls_each = 2 + (snapshot_bytes / 2 / rolling::SEGMENT_BYTES) as u32;
    let rolls = flags.rounds * rolls_each;
    let config_bytes = rolling::config_bytes(rolls, CHURN_PER_S, duration_ns);
    let interval_ns = u64::from(flags.sessions) * SECOND / BEATS_PER_S;
    let plan = Plan {
        load: Load::Open {
            interval_ns,
            block: 0,
        },
        warmup_ns: SECOND,
        duration_ns,
        server_pid: Some(server.pid()),
        stall_ns: LOOKED_INTO_NS,
        known: Some(Arc::new(known)),
        ..Plan::joins(super::names(), flags.sessions, CONNECTIONS)
    };
    report.setup(format!(
        "{} sessions, {} beats a second over {CONNECTIONS} connections; {CHURN_PER_S} members \
         join and as many leave a second, so that the log grows",
        count(flags.sessions.into()),
        count(BEATS_PER_S),
    ));
    let before = Rolled::of(home.address)?;
    let (began, began_ns) = (clock::wall(), clock::now());
    let cpus = (flags.own.server_cpu, flags.own.load_cpu);
    let drafts = Drafts::watch(&home.data_dir);
    let witnesses = Witnesses::begin(server.pid(), cpus.0, cpus.1);
    let churn = Churn::begin(home.target(), CHURN_PER_S, config_bytes, cpus.1)?;
    let done = run::run(&home.target(), vec![plan], flags.own.load_cpu);
    let churned = churn.end()?;
    let evidence = witnesses.end();
    let snapshots = drafts.end();
    let mut done = done?;
    let (written, segments) = Rolled::of(home.address)?.since(before);
    tell(&mut report, &done);
    tell_churn(&mut report, &churned, config_bytes);
    tell_evidence(&mut report, &evidence);
    let mut told = Told {
        snapshots,
        written,
        segments,
        stalls: judge(std::mem::take(&mut done.stalls), &evidence),
        beats: done.hist(Tag::Beat).len(),
    };
    told.tell(&mut report, flags.rounds.into());
    let during = told.during_snapshots();
    for (what, stalls) in [
        ("while a snapshot was taken", during),
        ("else", told.stalls),
    ] {
        let table = stall_table(&stalls, began, began_ns);
        report.note(&format!("The longest waits {what}:\n\n{table}"));
    }
    drop(server);
    conclude(&report, flags.own.out.as_deref())
}

/// What is told of.
struct Told {
    /// When snapshots were taken.
    snapshots: Vec<Range<u64>>,
    written: u64,
    segments: u64,
    stalls: Vec<Judged>,
    beats: u64,
}

impl Told {
    fn tell(&self, report: &mut Report, asked_for: u64) {
        let answered = self.beats > 0;
        report.claim(
            "answered",
            "beats answered at all",
            &count(self.beats),
            answered,
        );
        let seen = self.snapshots.len() as u64;
        let enough = self.written >= asked_for && seen >= asked_for;
        let took: u64 = self.snapshots.iter().map(|s| s.end - s.start).sum();
        let text = format!(
            "{} by the server's count, {} seen, {} each; {} log segments begun at least",
            count(self.written),
            count(seen),
            time(took / seen.max(1)),
            count(self.segments)
        );
        let label = format!("snapshots taken, {asked_for} asked for");
        report.claim("snapshots", &label, &text, enough);
        for (key, label, during) in [
            (
                "snapshot",
                "longest wait of a beat while a snapshot was taken",
                true,
            ),
            ("calm", "longest wait of a beat else", false),
        ] {
            let those = || {
                let all = self.stalls.iter();
                all.filter(move |j| self.is_during(j) == during)
            };
            let longest = those().map(|j| j.stall.longest_ns).max().unwrap_or(0);
            let left = those().map(|j| j.left_ns).max().unwrap_or(0);
            let text = match longest {
                0 => format!("less than {}", time(LOOKED_INTO_NS)),
                _ => format!(
                    "{}, of {} over {}; most that machine and generator do not account for: {}",
                    time(longest),
                    count(those().count() as u64),
                    time(LOOKED_INTO_NS),
                    time(left)
                ),
            };
            report.figure(&format!("{key}_left_ns"), label, text, left);
            report.data(&format!("{key}_longest_ns"), longest.into());
        }
        let aim = "≤ 5 ms while a snapshot is taken";
        report.figure("aim", "target", aim.to_owned(), aim);
    }

    fn is_during(&self, judged: &Judged) -> bool {
        let at = &judged.stall.during_ns;
        let overlaps = |s: &Range<u64>| s.start < at.end && at.start < s.end;
        self.snapshots.iter().any(overlaps)
    }

    /// Takes out the stalls while a snapshot was taken.
    fn during_snapshots(&mut self) -> Vec<Judged> {
        let all = std::mem::take(&mut self.stalls);
        let (during, else_) = all.into_iter().partition(|j| self.is_during(j));
        self.stalls = else_;
        during
    }
}

/// Watches for drafts of snapshots in a data directory: there is one while a snapshot is taken.
struct Drafts {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Range<u64>>>,
}

impl Drafts {
    fn watch(data_dir: &Path) -> Drafts {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, dir) = (Arc::clone(&stop), data_dir.to_owned());
        let work = move || {
            let mut spans = Spans::default();
            while !asked.load(Ordering::Relaxed) {
                let now_ns = clock::now();
                spans.looked(now_ns, holds_draft(&dir));
                clock::pause(Duration::from_nanos(LOOK_NS));
            }
            spans.seen
        };
        Drafts {
            stop,
            thread: thread::spawn(work),
        }
    }

    /// When there was one.
    fn end(self) -> Vec<Range<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// When there was a draft, by looks at some distance.
#[derive(Default)]
struct Spans {
    seen: Vec<Range<u64>>,
    /// When the last look was, and whether there was one then.
    last: (u64, bool),
}

impl Spans {
    fn looked(&mut self, now_ns: u64, is_there: bool) {
        let (last_ns, was_there) = std::mem::replace(&mut self.last, (now_ns, is_there));
        // Until the files it makes superfluous are gone as well.
        let end = now_ns + TRIMMING_NS;
        match self.seen.last_mut() {
            Some(span) if was_there => span.end = end,
            _ if is_there => self.seen.push(last_ns..end),
            _ => {}
        }
    }
}

fn holds_draft(dir: &Path) -> bool {
    let Ok(files) = fs::read_dir(dir) else {
        return false;
    };
    let names = files.filter_map(|f| f.ok()?.file_name().into_string().ok());
    let mut drafts = names.filter(|n| n.starts_with("snapshot-") && n.ends_with(".tmp"));
    drafts.next().is_some()
}

/// A snapshot is taken about so often.
const EACH_NS: u64 = 12 * SECOND;
/// What a snapshot holds of a session; the next is due when half of the last has been logged.
const SNAPSHOT_BYTES_A_SESSION: u64 = 64;
/// Beats a second: well below what a core can do, so that no wait is that for the other beats.
const BEATS_PER_S: u64 = 50_000;
const CONNECTIONS: u32 = 64;
/// Members that join in a second; as many leave.
const CHURN_PER_S: u32 = 500;
/// Beats that wait less are not looked into.
const LOOKED_INTO_NS: u64 = 2 * MILLI;
/// How often drafts are looked for.
const LOOK_NS: u64 = MILLI;
/// After a snapshot older files are removed; that takes no longer.
const TRIMMING_NS: u64 = 100 * MILLI;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::rolling::Evidence;
    use crate::process::TempDir;
    use crate::stalls::Stall;

    #[test]
    fn a_draft_is_there_from_the_look_before_it_was_seen_until_after_it_was_not() {
        let mut spans = Spans::default();
        for (ms, is_there) in [
            (1, false),
            (2, true),
            (3, true),
            (4, false),
            (9, false),
            (11, true),
        ] {
            spans.looked(ms * MILLI, is_there);
        }
        let of = |from, to| from * MILLI..to * MILLI + TRIMMING_NS;
        assert_eq!(spans.seen, [of(1, 4), of(9, 11)]);
    }

    #[test]
    fn only_the_draft_of_a_snapshot_is_one() {
        let dir = TempDir::new().unwrap();
        let holds = |name| {
            fs::write(dir.path().join(name), "").unwrap();
            holds_draft(dir.path())
        };
        assert!(!holds("snapshot-1-2"));
        assert!(!holds("identity.tmp"));
        assert!(holds("snapshot-1-3.tmp"));
        assert!(!holds_draft(&dir.path().join("nowhere")));
    }

    fn told() -> Told {
        let stall = |from_ms: u64, longest_ms| Stall {
            during_ns: from_ms * MILLI..(from_ms + longest_ms) * MILLI,
            longest_ns: longest_ms * MILLI,
            unsent_ns: 0,
            beats: 1,
        };
        let stalls = vec![stall(90, 8), stall(95, 6), stall(150, 3), stall(201, 9)];
        Told {
            snapshots: vec![100 * MILLI..200 * MILLI, 900 * MILLI..950 * MILLI],
            written: 1,
            segments: 1,
            stalls: judge(stalls, &Evidence { accounts: vec![] }),
            beats: 1,
        }
    }

    #[test]
    fn what_waits_while_a_snapshot_is_taken_is_told_apart() {
        let mut report = Report::new("stall", std::time::UNIX_EPOCH, "x");
        let mut told = told();
        told.tell(&mut report, 1);
        let text = report.text();
        assert!(report.is_clean(), "{text}");
        assert!(text.contains("6.00 ms, of 2 over 2.00 ms"), "{text}");
        assert!(text.contains("9.00 ms, of 2 over 2.00 ms"), "{text}");
        let of = |stalls: &[Judged]| -> Vec<u64> {
            stalls.iter().map(|j| j.stall.longest_ns / MILLI).collect()
        };
        assert_eq!(of(&told.during_snapshots()), [6, 3]);
        assert_eq!(of(&told.stalls), [9, 8]);
    }

    #[test]
    fn a_run_with_too_few_snapshots_or_no_beat_shows_nothing() {
        for (what, told) in [
            (
                "asked for more",
                Told {
                    written: 0,
                    ..told()
                },
            ),
            (
                "saw fewer",
                Told {
                    snapshots: vec![],
                    ..told()
                },
            ),
            ("no beat", Told { beats: 0, ..told() }),
        ] {
            let mut report = Report::new("stall", std::time::UNIX_EPOCH, "x");
            told.tell(&mut report, 1);
            assert!(!report.is_clean(), "{what}");
        }
    }
}
