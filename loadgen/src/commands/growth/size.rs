//! What grows with the number of sessions.

use super::{add_quantiles, draw, median, named, names};
use crate::cli::{Curve, Growth};
use crate::clock::{self, MILLI, SECOND};
use crate::commands::bench::expiry::mass;
use crate::commands::memory::settled;
use crate::commands::own::Home;
use crate::commands::restart::verify;
use crate::plan::{Known, Load, Plan};
use crate::process::Server;
use crate::recorder::Tag;
use crate::report::plot::Axes;
use crate::report::{Report, count};
use crate::run;
use anyhow::Result;
use std::sync::Arc;

/// Fills a server with each number of sessions, and measures what is wanted of it.
pub(super) fn filled(
    flags: &Growth,
    wanted: &dyn Fn(Curve) -> bool,
    report: &mut Report,
) -> Result<()> {
    let mut beat = named(["one at a time", "32 pipelined"]);
    let mut memory = named(["resident", "of it its own memory"]);
    let mut restart = named(["kill -9 to ready"]);
    for sessions in flags.sizes.iter().copied() {
        eprintln!("{} sessions", count(sessions.into()));
        let x = f64::from(sessions);
        let home = Home::new(&flags.own)?;
        let (server, _) = home.start()?;
        let joins = Plan {
            timeout_ns: TIMEOUT_NS,
            join_limit_ns: 600 * SECOND,
            ..Plan::joins(names(), sessions, CONNECTIONS)
        };
        let done = run::run(&home.target(), vec![joins], flags.own.load_cpu)?;
        report.verdict(&done.faults, done.broken_off.as_deref());
        let mut known = done.into_known();
        if wanted(Curve::Memory) {
            let now = settled(&server)?;
            memory[0].1.push((x, now.rss as f64 / x));
            memory[1].1.push((x, now.anonymous as f64 / x));
        }
        if wanted(Curve::Beat) {
            for (place, pipeline) in [1, 32].into_iter().enumerate() {
                let (us, after) = cost(flags, &home, &server, known, pipeline, report)?;
                beat[place].1.push((x, us));
                known = after;
            }
        }
        if wanted(Curve::Restart) {
            let s = restarts(flags, &home, server, known, report)?;
            restart[0].1.push((x, s));
        }
    }
    for (curve, name, axes, series) in [
        (Curve::Beat, "beat", BEAT, &beat[..]),
        (Curve::Memory, "memory", MEMORY, &memory[..]),
        (Curve::Restart, "restart", RESTART, &restart[..]),
    ] {
        if wanted(curve) {
            draw(report, name, &axes, series)?;
        }
    }
    Ok(())
}

/// The server's CPU time for a beat, median of the rounds.
fn cost(
    flags: &Growth,
    home: &Home,
    server: &Server,
    mut known: Known,
    pipeline: u32,
    report: &mut Report,
) -> Result<(f64, Known)> {
    let sessions = known.sessions.len() as u32;
    let mut us = Vec::new();
    for _ in 0..flags.rounds {
        let plan = Plan {
            timeout_ns: TIMEOUT_NS,
            load: Load::Closed { pipeline },
            duration_ns: flags.duration,
            warmup_ns: 300 * MILLI,
            server_pid: Some(server.pid()),
            known: Some(Arc::new(known)),
            ..Plan::joins(names(), sessions, CONNECTIONS)
        };
        let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
        report.verdict(&done.faults, done.broken_off.as_deref());
        us.push(done.cpu_us());
        known = done.into_known();
    }
    Ok((median(&us), known))
}

/// Seconds from `kill -9` and a new start to readiness, median of the rounds; every session is
/// asked for after the last.
fn restarts(
    flags: &Growth,
    home: &Home,
    mut server: Server,
    mut known: Known,
    report: &mut Report,
) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..flags.rounds {
        server.kill();
        let (next, ready_ns) = home.start()?;
        server = next;
        seconds.push(ready_ns as f64 / 1e9);
    }
    known.restarted(clock::now());
    let (_, done) = verify(home, names(), TIMEOUT_NS, known, flags.own.load_cpu)?;
    report.verdict(&done.faults, done.broken_off.as_deref());
    Ok(median(&seconds))
}

/// Nine tenths of the sessions stop together.
pub(super) fn expiry(flags: &Growth, report: &mut Report) -> Result<()> {
    let mut late = named(["p50", "p99", "p99.9"]);
    let mut took = named(["first deadline to last gone"]);
    for sessions in flags.sizes.iter().copied() {
        let home = Home::new(&flags.own)?;
        let (server, _) = home.start()?;
        let plan = mass(sessions, server.pid());
        let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
        report.verdict(&done.faults, done.broken_off.as_deref());
        let stopped = f64::from(sessions) * 0.9;
        let hist = done.hist(Tag::Lateness);
        add_quantiles(&mut late, stopped, &hist);
        report.distribution(&format!("lateness-{sessions}"), &hist);
        if let Some((ns, _)) = done.counts.mass_ns {
            took[0].1.push((stopped, ns as f64 / 1e6));
        }
    }
    let all = [&late[..], &took].concat();
    draw(report, "expiry", &EXPIRY, &all)
}

const BEAT: Axes = Axes {
    title: "Cost of a beat over 64 connections",
    x: "sessions",
    y: "µs of server CPU",
};
const MEMORY: Axes = Axes {
    title: "Memory of an idle session, everything counted",
    x: "sessions",
    y: "bytes a session",
};
const RESTART: Axes = Axes {
    title: "Restart after kill -9",
    x: "sessions",
    y: "seconds to readiness",
};
const EXPIRY: Axes = Axes {
    title: "Lateness of expiry when nine tenths stop together",
    x: "sessions that stop",
    y: "milliseconds",
};
/// Connections of the load.
const CONNECTIONS: u32 = 64;
/// Longer than anything takes.
const TIMEOUT_NS: u64 = 3_600 * SECOND;
