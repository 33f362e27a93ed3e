//! `restart`: how long a server that was killed takes to be ready, with every session there,
//! and the longest a beat had to wait before that, while the log grew and was snapshotted.

use super::own::Home;
use super::{conclude, tell};
use crate::churn::Shares;
use crate::cli::Restart;
use crate::clock::{self, SECOND};
use crate::names::Names;
use crate::plan::{Known, Load, Mode, Plan};
use crate::report::{Report, count, time};
use crate::run::{self, Done};
use anyhow::{Result, ensure};
use std::sync::Arc;

/// Runs `restart`. True if nothing went wrong.
///
/// # Errors
/// If the server cannot be started or the run cannot be done.
pub(crate) fn restart(flags: &Restart) -> Result<bool> {
    ensure!(
        flags.sessions >= CONNECTIONS,
        "at least {CONNECTIONS} sessions are needed"
    );
    let home = Home::new(&flags.own)?;
    let (mut server, first_ns) = home.start()?;
    let plan = busy(flags, server.pid());
    let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
    let mut report = Report::new("restart", done.started, &home.describe());
    tell(&mut report, &done);
    let stall = done.hist(crate::recorder::Tag::Beat).max();
    report.figure("stall_ns", "longest wait of a beat", time(stall), stall);
    let mut known = done.into_known();
    let mut took = Vec::new();
    for round in 0..flags.rounds {
        if !report.is_clean() {
            break;
        }
        server.kill();
        let (next, ready_ns) = home.start()?;
        server = next;
        took.push(ready_ns);
        known.restarted(clock::now());
        let (checked, done) = verify(&home, names(), TIMEOUT_NS, known, flags.own.load_cpu)?;
        report.verdict(&done.faults, done.broken_off.as_deref());
        known = checked;
        eprintln!(
            "restart {} of {}: ready after {}",
            round + 1,
            flags.rounds,
            time(ready_ns)
        );
    }
    tell_restarts(&mut report, &known, first_ns, took);
    drop(server);
    conclude(&report, flags.own.out.as_deref())
}

fn tell_restarts(report: &mut Report, known: &Known, first_ns: u64, took: Vec<u64>) {
    report.figure("empty_ready_ns", "ready, empty", time(first_ns), first_ns);
    let mut sorted = took.clone();
    sorted.sort_unstable();
    if let (Some(low), Some(high)) = (sorted.first(), sorted.last()) {
        let median = sorted[sorted.len() / 2];
        let text = format!(
            "{} ({} to {}, {} restarts after kill -9)",
            time(median),
            time(*low),
            time(*high),
            sorted.len()
        );
        report.figure("ready_ns", "ready, with the sessions", text, median);
        report.data("ready_ns_each", took.into());
    }
    let living = known.standing.living();
    report.figure(
        "living",
        "sessions that came back each time",
        count(living),
        living,
    );
}

/// Beats on a schedule, while a third of the members leave and join again so that the log
/// grows and snapshots become due.
fn busy(flags: &Restart, pid: u32) -> Plan {
    let interval_ns = (u64::from(flags.sessions) * SECOND / BEATS_PER_S_MAX).max(3 * SECOND);
    Plan {
        timeout_ns: TIMEOUT_NS,
        load: Load::Open {
            interval_ns,
            block: 0,
        },
        duration_ns: flags.duration,
        warmup_ns: SECOND,
        shares: Shares {
            rejoin: 0.3,
            ..Shares::default()
        },
        server_pid: Some(pid),
        ..Plan::joins(names(), flags.sessions, CONNECTIONS)
    }
}

/// Beats once for every session by id, then for many by name so that versions are seen too.
pub(crate) fn verify(
    home: &Home,
    names: Names,
    timeout_ns: u64,
    known: Known,
    cpu: Option<usize>,
) -> Result<(Known, Done)> {
    let sessions = known.sessions.len() as u32;
    let known = Arc::new(known);
    let size = sessions.div_ceil(CONNECTIONS).min(10_000);
    let base = Plan {
        timeout_ns,
        load: Load::Closed { pipeline: 1 },
        known: Some(Arc::clone(&known)),
        ..Plan::joins(names, sessions, CONNECTIONS.min(sessions))
    };
    let by_id = Plan {
        mode: Mode::Batch { packed: true, size },
        // As many turns as it takes to reach every block once, at a pace far below target.
        duration_ns: (u64::from(sessions) * 2_000).max(SECOND / 2),
        ..base.clone()
    };
    let mut done = run::run(&home.target(), vec![by_id], cpu)?;
    let reached = done.counts.beats;
    let living = known.standing.living();
    if reached < living && done.broken_off.is_none() {
        done.broken_off = Some(format!("only {reached} of {living} sessions were reached"));
    }
    let after = done.known.pop().unwrap_or_default();
    let by_name = Plan {
        load: Load::Closed { pipeline: 8 },
        duration_ns: SECOND,
        known: Some(Arc::new(after)),
        ..base
    };
    let mut second = run::run(&home.target(), vec![by_name], cpu)?;
    done.faults.merge(&second.faults);
    done.broken_off = done.broken_off.or(second.broken_off.take());
    Ok((second.into_known(), done))
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}

/// Timeout of the sessions: longer than any restart.
const TIMEOUT_NS: u64 = 600 * SECOND;
/// Connections of the load.
const CONNECTIONS: u32 = 16;
/// Beats a second while the stall is sought: well below what a core can do.
const BEATS_PER_S_MAX: u64 = 100_000;
