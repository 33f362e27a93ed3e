//! P8: how late the dead are expired, one by one and a mass of them together, and what the
//! living notice of it.

use super::{names, topic};
use crate::churn::Shares;
use crate::cli::Bench;
use crate::clock::{MILLI, SECOND};
use crate::commands::own::Home;
use crate::commands::{conclude, tell};
use crate::names::Names;
use crate::plan::{Load, Plan};
use crate::recorder::Tag;
use crate::report::{Report, time};
use crate::run;
use anyhow::Result;

/// First a steady trickle of deaths, each watched closely; then a mass.
pub(super) fn lateness(flags: &Bench) -> Result<bool> {
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let steady = Plan {
        timeout_ns: STEADY_TIMEOUT_NS,
        load: Load::Open {
            interval_ns: 500 * MILLI,
            block: 0,
        },
        duration_ns: 18 * SECOND,
        warmup_ns: SECOND,
        shares: Shares {
            die: 0.1,
            ..Shares::default()
        },
        ..Plan::joins(Names::new("steady", 50, 24, 1, 0), STEADY_SESSIONS, 16)
    };
    let first = run::run(&home.target(), vec![steady], flags.own.load_cpu)?;
    let mut report = Report::new(&topic(flags), first.started, &home.describe());
    report.verdict(&first.faults, first.broken_off.as_deref());
    let late = first.hist(Tag::Lateness);
    for (key, label, q) in [
        ("steady_p50_ns", "steady lateness, p50", 0.5),
        ("steady_p999_ns", "steady lateness, p99.9", 0.999),
    ] {
        let ns = late.value_at_quantile(q);
        let text = format!("{} of {} deaths", time(ns), late.len());
        report.figure(key, label, text, ns);
    }
    let mass = mass(flags.sessions, server.pid());
    let second = run::run(&home.target(), vec![mass], flags.own.load_cpu)?;
    tell(&mut report, &second);
    let p99 = |tag| second.hist(tag).value_at_quantile(0.99);
    let (before, during) = (p99(Tag::Beat), p99(Tag::BeatExpiring));
    let ratio = during as f64 / before.max(1) as f64;
    let text = format!(
        "{ratio:.2} ({} before, {} meanwhile)",
        time(before),
        time(during)
    );
    report.figure(
        "p99_ratio",
        "living members' p99, meanwhile / before",
        text,
        ratio,
    );
    report.setup(format!(
        "a tenth of {STEADY_SESSIONS} members with a timeout of {} die over 14 s; then nine tenths \
         of {} fall silent at once, timeout 10 s",
        time(STEADY_TIMEOUT_NS),
        flags.sessions
    ));
    let aim = "steady p99.9 ≤ 20 ms; the mass gone ≤ 2 s after its deadline; p99 meanwhile ≤ 2 ×";
    report.figure("aim", "target", aim.to_owned(), aim);
    report.note(
        "Lateness counts from the timeout after the last acknowledged beat was sent, to the answer \
         that shows the member gone: it includes the server's margin for drifting clocks (0.1 % \
         of the timeout), its tick, the commit, our pause between two looks and the answer's way.",
    );
    drop(server);
    conclude(&report, flags.own.out.as_deref())
}

/// Nine tenths of `sessions` fall silent at once, and the others beat on: every 3 s of their 10,
/// or, of more than a million, as often as makes that many beats a second.
pub(crate) fn mass(sessions: u32, server_pid: u32) -> Plan {
    let interval_ns = (3 * SECOND).max(u64::from(sessions) * 3_000);
    Plan {
        timeout_ns: interval_ns / 3 * 10,
        load: Load::Open {
            interval_ns,
            block: 0,
        },
        duration_ns: 2 * interval_ns,
        warmup_ns: SECOND,
        doom: 0.9,
        server_pid: Some(server_pid),
        ..Plan::joins(names(), sessions, 64)
    }
}

/// Sessions of the steady part.
const STEADY_SESSIONS: u32 = 50_000;
/// Their timeout.
const STEADY_TIMEOUT_NS: u64 = 2 * SECOND;
