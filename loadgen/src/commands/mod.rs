//! The subcommands.

pub(crate) mod beat;
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod demo;
pub(crate) mod ensemble;
pub(crate) mod failover;
pub(crate) mod growth;
pub(crate) mod idle;
pub(crate) mod join;
pub(crate) mod memory;
pub(crate) mod overload;
pub(crate) mod own;
pub(crate) mod restart;
mod rolling;
pub(crate) mod soak;
pub(crate) mod watch;

use crate::report::{Report, count, time};
use crate::run::Done;
use anyhow::Result;
use std::path::Path;

/// Prints the report and writes its folder, if asked for. True if nothing went wrong.
pub(crate) fn conclude(report: &Report, out: Option<&Path>) -> Result<bool> {
    print!("{}", report.text());
    if let Some(out) = out {
        println!("written to {}", report.write(out)?.display());
    }
    Ok(report.is_clean())
}

/// Adds the median of several rounds and how far they lie apart.
pub(crate) fn spread(report: &mut Report, key: &str, label: &str, rounds: &[f64], unit: &str) {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else {
        return;
    };
    let median = sorted[sorted.len() / 2];
    let text = format!(
        "{median:.3}{unit} ({low:.3} to {high:.3}, {} rounds)",
        sorted.len()
    );
    report.figure(key, label, text, median);
    report.data(&format!("{key}_each"), rounds.to_vec().into());
}

/// Adds what every loading run has to tell.
pub(crate) fn tell(report: &mut Report, done: &Done) {
    let c = &done.counts;
    let rate = |n: u64, ns: u64| n as f64 * 1e9 / ns.max(1) as f64;
    if c.joins > 0 {
        report.figure("joins", "joined", count(c.joins), c.joins);
        let per_s = rate(c.joins - c.rejoins, c.joining_ns);
        report.figure("joins_per_s", "joins a second", count(per_s as u64), per_s);
    }
    if c.joining_cpu_ns > 0 && c.joins > c.rejoins {
        let us = c.joining_cpu_ns as f64 / 1e3 / (c.joins - c.rejoins) as f64;
        report.figure(
            "join_cpu_us",
            "server CPU a join",
            format!("{us:.2} µs"),
            us,
        );
    }
    if c.beats_measured > 0 {
        let per_s = rate(c.beats_measured, c.measured_ns);
        report.figure(
            "beats",
            "beats measured",
            count(c.beats_measured),
            c.beats_measured,
        );
        report.figure("beats_per_s", "beats a second", count(per_s as u64), per_s);
        let us = |ns: u64| ns as f64 / 1e3 / c.beats_measured as f64;
        if c.cpu_ns.0 > 0 {
            let (server, user) = (done.cpu_us(), done.user_us());
            report.data("beat_cpu_user_us", user.into());
            report.figure(
                "beat_cpu_us",
                "server CPU a beat",
                format!("{server:.3} µs, {user:.3} of it user space"),
                server,
            );
        }
        let own = us(c.cpu_ns.1);
        report.figure(
            "load_cpu_us",
            "generator CPU a beat",
            format!("{own:.3} µs"),
            own,
        );
    }
    if c.leaves > 0 {
        report.figure("leaves", "left", count(c.leaves), c.leaves);
        report.figure("rejoins", "rejoined", count(c.rejoins), c.rejoins);
    }
    if c.died > 0 {
        report.figure("died", "stopped beating", count(c.died), c.died);
        report.figure("expired", "seen to expire", count(c.expired), c.expired);
    }
    if let Some((took, span)) = c.mass_ns {
        let text = format!("{} (deadlines within {})", time(took), time(span));
        report.figure("mass_ns", "first deadline to last gone", text, took);
        report.data("mass_deadline_span_ns", span.into());
    }
    report.figure("checked", "answers verified", count(c.checked), c.checked);
    if c.late_by_us > 0 {
        let text = format!(
            "{} (the generator's own lateness, no fault)",
            count(c.late_by_us)
        );
        report.figure("late_by_us", "beats sent too late", text, c.late_by_us);
    }
    report.data("bytes_sent", c.bytes.0.into());
    report.data("bytes_received", c.bytes.1.into());
    report.latencies(&done.intervals);
    report.verdict(&done.faults, done.broken_off.as_deref());
}
