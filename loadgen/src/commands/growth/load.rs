//! What grows with shards, with joins under way, and with the rate of beats.

use super::{add_quantiles, draw, median, named, names};
use crate::cli::Growth;
use crate::clock::{MILLI, SECOND};
use crate::commands::bench::ensemble::{SHARDS, beats_over};
use crate::commands::own::Home;
use crate::names::Names;
use crate::plan::{Load, Plan};
use crate::recorder::Tag;
use crate::report::plot::Axes;
use crate::report::{Report, count};
use crate::run;
use anyhow::Result;
use std::sync::Arc;

/// The cost of a beat with more and more shards, as P11 has it: not pinned, since they want
/// processors of their own.
pub(super) fn shards(flags: &Growth, report: &mut Report) -> Result<()> {
    let mut series = named(["32 pipelined"]);
    let mut own = flags.own.clone();
    own.server_cpu = None;
    own.load_cpu = None;
    for shards in SHARDS {
        let mut us = Vec::new();
        for _ in 0..flags.rounds {
            let (_, done, _) = beats_over(&own, shards, SESSIONS, flags.duration)?;
            report.verdict(&done.faults, done.broken_off.as_deref());
            us.push(done.cpu_us());
        }
        series[0].1.push((f64::from(shards), median(&us)));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.note(&format!(
        "Shards share the machine's {cores} processors with the core and with the load."
    ));
    draw(report, "shards", &SHARDS_AXES, &series)
}

/// Joins with 1, 2, 4 … 4,096 under way.
pub(super) fn joins(flags: &Growth, report: &mut Report) -> Result<()> {
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let mut rate = named(["joins a second"]);
    let mut latency = named(["p50", "p99", "p99.9"]);
    let mut cpu = named(["server CPU a join"]);
    for power in 0..=OUTSTANDING_POWER_MAX {
        let outstanding = 1_u32 << power;
        let crowd = (outstanding * JOINS_EACH).clamp(JOINS_MIN, JOINS_MAX);
        let plan = Plan {
            joins_outstanding: outstanding,
            server_pid: Some(server.pid()),
            ..Plan::joins(
                Names::new(&format!("under{outstanding}"), 100, 24, 1, 0),
                crowd,
                64,
            )
        };
        let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
        report.verdict(&done.faults, done.broken_off.as_deref());
        let x = f64::from(outstanding);
        let joins = done.counts.joins.max(1) as f64;
        let per_s = joins * 1e9 / done.counts.joining_ns.max(1) as f64;
        rate[0].1.push((x, per_s));
        add_quantiles(&mut latency, x, &done.hist(Tag::Join));
        let us = done.counts.joining_cpu_ns as f64 / 1e3 / joins;
        cpu[0].1.push((x, us));
    }
    draw(report, "joins-rate", &JOIN_RATE, &rate)?;
    draw(report, "joins-latency", &JOIN_LATENCY, &latency)?;
    draw(report, "joins-cpu", &JOIN_CPU, &cpu)
}

/// Beats on a schedule, at more and more of what the server can take at most.
pub(super) fn saturation(flags: &Growth, report: &mut Report) -> Result<()> {
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let base = Plan {
        timeout_ns: 3_600 * SECOND,
        warmup_ns: 300 * MILLI,
        duration_ns: flags.duration,
        server_pid: Some(server.pid()),
        ..Plan::joins(names(), SESSIONS, 64)
    };
    let fastest = Plan {
        load: Load::Closed { pipeline: 32 },
        ..base.clone()
    };
    let done = run::run(&home.target(), vec![fastest], flags.own.load_cpu)?;
    report.verdict(&done.faults, done.broken_off.as_deref());
    let rate_of =
        |d: &run::Done| d.counts.beats_measured as f64 * 1e9 / d.counts.measured_ns.max(1) as f64;
    let most = rate_of(&done);
    let text = format!("{}, closed loop, 32 pipelined", count(most as u64));
    report.figure("saturation_per_s", "beats a second at most", text, most);
    let mut known = done.into_known();
    let mut latency = named(["p50", "p99", "p99.9"]);
    let mut lag = named(["sent after due, p99"]);
    let mut answered = named(["answered"]);
    for percent in OFFERED_PERCENT {
        let per_s = most * f64::from(percent) / 100.0;
        let interval_ns = (f64::from(SESSIONS) * 1e9 / per_s) as u64;
        let plan = Plan {
            load: Load::Open {
                interval_ns,
                block: 0,
            },
            known: Some(Arc::new(known)),
            ..base.clone()
        };
        let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
        report.verdict(&done.faults, done.broken_off.as_deref());
        let hist = done.hist(Tag::Beat);
        add_quantiles(&mut latency, per_s, &hist);
        report.distribution(&format!("beat-at-{percent}-percent"), &hist);
        let own = done.hist(Tag::SendLag).value_at_quantile(0.99) as f64 / 1e6;
        lag[0].1.push((per_s, own));
        answered[0].1.push((per_s, rate_of(&done)));
        known = done.into_known();
    }
    let all = [&latency[..], &lag].concat();
    draw(report, "saturation", &SATURATION, &all)?;
    draw(report, "saturation-answered", &ANSWERED, &answered)
}

const SHARDS_AXES: Axes = Axes {
    title: "Cost of a beat over several shards",
    x: "shards",
    y: "µs of server CPU",
};
const JOIN_RATE: Axes = Axes {
    title: "Durable joins",
    x: "joins under way",
    y: "joins a second",
};
const JOIN_LATENCY: Axes = Axes {
    title: "Latency of durable joins",
    x: "joins under way",
    y: "milliseconds",
};
const JOIN_CPU: Axes = Axes {
    title: "Cost of durable joins",
    x: "joins under way",
    y: "µs of server CPU",
};
const SATURATION: Axes = Axes {
    title: "Latency of beats, from when they were due",
    x: "beats offered a second",
    y: "milliseconds",
};
const ANSWERED: Axes = Axes {
    title: "Beats answered within the measured time",
    x: "beats offered a second",
    y: "beats a second",
};
/// Sessions that beat.
const SESSIONS: u32 = 100_000;
/// The most joins under way are two to this power.
const OUTSTANDING_POWER_MAX: u32 = 12;
/// Joins for each that is under way …
const JOINS_EACH: u32 = 500;
/// … within these bounds.
const JOINS_MIN: u32 = 1_000;
const JOINS_MAX: u32 = 400_000;
/// What is offered, in hundredths of the most.
const OFFERED_PERCENT: [u32; 9] = [5, 10, 25, 50, 70, 80, 90, 100, 110];
