//! What a beat costs when sessions are kept alive by batches alone.

use super::{draw, named, names};
use crate::cli::Growth;
use crate::clock::SECOND;
use crate::commands::memory::settled;
use crate::commands::own::Home;
use crate::plan::{Known, Load, Mode, Plan};
use crate::process::Server;
use crate::recorder::Tag;
use crate::report::plot::Axes;
use crate::report::{Report, count, time};
use crate::run::{self, Done};
use anyhow::Result;
use std::sync::Arc;

/// Fills a server with each number of sessions, which beat by batch from the moment they have
/// joined and would expire otherwise; then measures a few turns over all of them, by packed id
/// and by name.
pub(super) fn beats(flags: &Growth, report: &mut Report) -> Result<()> {
    let mut cost = named(["by packed id", "by name"]);
    let mut memory = named(["resident"]);
    for sessions in flags.sizes.iter().copied() {
        eprintln!("{} sessions that beat by batch", count(sessions.into()));
        let x = f64::from(sessions);
        let home = Home::new(&flags.own)?;
        let (server, _) = home.start()?;
        let done = joined(flags, &home, sessions)?;
        report.verdict(&done.faults, done.broken_off.as_deref());
        let mut known = done.into_known();
        for (place, packed) in [true, false].into_iter().enumerate() {
            let done = turns(flags, &home, &server, known, packed)?;
            report.verdict(&done.faults, done.broken_off.as_deref());
            cost[place].1.push((x, done.cpu_us()));
            tell(report, sessions, packed, &done);
            known = done.into_known();
        }
        // The connections have ended; nothing of the sessions has.
        memory[0].1.push((x, settled(&server)?.rss as f64 / x));
        judge(report, sessions, known.standing.living());
    }
    draw(report, "batch", &COST, &cost)?;
    draw(report, "batch-memory", &MEMORY, &memory)
}

fn joined(flags: &Growth, home: &Home, sessions: u32) -> Result<Done> {
    let plan = Plan {
        join_limit_ns: 900 * SECOND,
        ..plan(sessions, true)
    };
    run::run(&home.target(), vec![plan], flags.own.load_cpu)
}

fn turns(flags: &Growth, home: &Home, server: &Server, known: Known, packed: bool) -> Result<Done> {
    let sessions = known.sessions.len() as u32;
    let plan = Plan {
        duration_ns: flags.duration.max(TURNS * interval_ns(sessions)),
        server_pid: Some(server.pid()),
        known: Some(Arc::new(known)),
        ..plan(sessions, packed)
    };
    run::run(&home.target(), vec![plan], flags.own.load_cpu)
}

fn plan(sessions: u32, packed: bool) -> Plan {
    Plan {
        timeout_ns: TIMEOUT_NS,
        load: Load::Open {
            interval_ns: interval_ns(sessions),
            block: 0,
        },
        mode: Mode::Batch { packed, size: SIZE },
        ..Plan::joins(names(), sessions, CONNECTIONS)
    }
}

/// How often each session beats: as often as makes the same number of beats a second whatever
/// the number of sessions, and often enough to live.
///
/// Between two runs a session waits for up to two intervals: it may be the last of a turn that
/// was broken off and of the turn after that.
fn interval_ns(sessions: u32) -> u64 {
    (u64::from(sessions) * SECOND / BEATS_PER_S).min(TIMEOUT_NS / 3)
}

fn tell(report: &mut Report, sessions: u32, packed: bool, done: &Done) {
    let (key, how) = if packed {
        ("id", "packed id")
    } else {
        ("name", "name")
    };
    let hist = done.hist(Tag::Beat);
    let c = &done.counts;
    let per_s = c.beats_measured as f64 * 1e9 / c.measured_ns.max(1) as f64;
    let text = format!(
        "{:.4} µs of server CPU, everything it did meanwhile included; {} beats, {} a second, each \
         session once in {}; a batch p50 {}, p99 {}, longest {}",
        done.cpu_us(),
        count(c.beats_measured),
        count(per_s as u64),
        time(interval_ns(sessions)),
        time(hist.value_at_quantile(0.5)),
        time(hist.value_at_quantile(0.99)),
        time(hist.max())
    );
    let key = format!("batch_{key}_us_at_{sessions}");
    let label = format!("a beat by {how}, {} sessions", count(sessions.into()));
    report.figure(&key, &label, text, done.cpu_us());
    report.distribution(&key, &hist);
}

/// Nobody may have ended: the timeout is shorter than the run.
fn judge(report: &mut Report, sessions: u32, living: u64) {
    let what = format!(
        "{} sessions live by batches alone, timeout {}",
        count(sessions.into()),
        time(TIMEOUT_NS)
    );
    let text = format!("{} live at the end", count(living));
    let key = format!("batch_living_at_{sessions}");
    report.claim(&key, &what, &text, living == u64::from(sessions));
}

const COST: Axes = Axes {
    title: "Cost of a beat in batches of 1,000",
    x: "sessions",
    y: "µs of server CPU",
};
const MEMORY: Axes = Axes {
    title: "Memory of a session that beats by batch",
    x: "sessions",
    y: "bytes a session",
};
/// Members a batch.
const SIZE: u32 = 1_000;
/// Connections that carry the batches, and before them the joins.
const CONNECTIONS: u32 = 8;
/// Beats a second: ten million sessions once in 20 s.
const BEATS_PER_S: u64 = 500_000;
/// Timeout of the sessions.
const TIMEOUT_NS: u64 = 60 * SECOND;
/// How often each session beats in a measurement, at least.
const TURNS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_beat_often_enough_to_live_through_two_intervals() {
        assert_eq!(interval_ns(10_000_000), 20 * SECOND);
        assert_eq!(interval_ns(10_000), SECOND / 50);
        assert_eq!(interval_ns(20_000_000), TIMEOUT_NS / 3);
    }

    #[test]
    fn a_session_that_ended_is_no_success() {
        let holds = |living| {
            let mut report = Report::new("growth", std::time::SystemTime::UNIX_EPOCH, "x");
            judge(&mut report, 1_000, living);
            report.is_clean()
        };
        assert!(holds(1_000) && !holds(999));
    }
}
