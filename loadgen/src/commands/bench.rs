//! `bench`: the targets that are ratios, measured in interleaved rounds.
//!
//! Server and load each keep to a processor of their own. A round measures the bound and
//! systole one after the other, in alternating order, with the same requests; the ratio is
//! taken within the round, so that a machine that slows down for a while slows down both.

use super::own::{Home, target};
use super::{conclude, spread, tell};
use crate::cli::{Bench, Own, TargetName};
use crate::clock::{MILLI, SECOND};
use crate::names::Names;
use crate::net::Target;
use crate::plan::{Known, Load, Mode, Plan};
use crate::process::{self, Server, TempDir};
use crate::report::Report;
use crate::run::{self, Done};
use anyhow::{Context, Result, ensure};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// Runs `bench`. True if nothing went wrong; a missed target is a figure, not a fault.
///
/// # Errors
/// If a server cannot be started or the run cannot be done.
pub(crate) fn bench(flags: &Bench) -> Result<bool> {
    let flags = &pinned(flags);
    match flags.target {
        TargetName::P1 => against_bound(flags, 64, 1, "≤ 1.15 × the bound"),
        TargetName::P2 => against_bound(flags, 10_000, 1, "≤ 1.2 × the bound"),
        TargetName::P3 => against_bound(flags, 64, 32, "≤ 1.5 × the bound, ≤ 0.8 µs"),
        TargetName::P4 => batches(flags),
    }
}

/// Unless told otherwise the server has processor 0 and the load processor 1.
fn pinned(flags: &Bench) -> Bench {
    let mut flags = flags.clone();
    flags.own.server_cpu = flags.own.server_cpu.or(Some(0));
    flags.own.load_cpu = flags.own.load_cpu.or(Some(1));
    flags
}

fn against_bound(flags: &Bench, connections: u32, pipeline: u32, aim: &str) -> Result<bool> {
    let program = flags.bound.as_deref().context(
        "--bound PATH is needed: the bound server, as `cargo bench --bench bound --no-run` builds it",
    )?;
    ensure!(
        flags.sessions >= connections,
        "more sessions than connections are needed"
    );
    let log = TempDir::new()?;
    let (bound, bound_address) = start_bound(program, &log, &flags.own)?;
    let (home, server, mut known, mut report) = loaded(flags)?;
    let load = Load::Closed { pipeline };
    let (mut theirs, mut ours, mut user, mut ratios) = (vec![], vec![], vec![], vec![]);
    let mut last = None;
    for round in 0..flags.rounds {
        let bare = Plan {
            bare: true,
            server_pid: Some(bound.pid()),
            ..plan(flags, connections, load, Mode::Head)
        };
        let full = Plan {
            server_pid: Some(server.pid()),
            known: Some(Arc::new(known)),
            ..plan(flags, connections, load, Mode::Head)
        };
        // Which goes first alternates: a drift within the round must not favour one.
        let (bare, full) = if round % 2 == 0 {
            let bare = measure(&target(bound_address), bare, flags)?;
            (bare, measure(&home.target(), full, flags)?)
        } else {
            let full = measure(&home.target(), full, flags)?;
            (measure(&target(bound_address), bare, flags)?, full)
        };
        report.verdict(&bare.faults, bare.broken_off.as_deref());
        report.verdict(&full.faults, full.broken_off.as_deref());
        eprintln!(
            "round {}: bound {:.3} µs, systole {:.3} µs",
            round + 1,
            bare.cpu_us(),
            full.cpu_us()
        );
        theirs.push(bare.cpu_us());
        ours.push(full.cpu_us());
        user.push(full.user_us());
        ratios.push(full.cpu_us() / bare.cpu_us());
        last = Some(rates(&mut report, bare, &full));
        known = full.into_known();
    }
    let text = format!(
        "{connections} connections, {pipeline} under way on each, {} sessions in the table",
        flags.sessions
    );
    report.figure("setup", "load", text.clone(), text);
    spread(
        &mut report,
        "bound_us",
        "CPU a beat, the bound",
        &theirs,
        " µs",
    );
    spread(
        &mut report,
        "systole_us",
        "CPU a beat, systole",
        &ours,
        " µs",
    );
    spread(
        &mut report,
        "ratio",
        "systole / bound, by round",
        &ratios,
        "",
    );
    report.figure("aim", "target", aim.to_owned(), aim);
    if let Some((rates, intervals)) = last {
        report.data("last_round", rates);
        report.latencies(&intervals);
    }
    conclude(&report, flags.own.out.as_deref())
}

/// What the table leaves out of a round, and systole's latencies.
fn rates(
    report: &mut Report,
    bare: Done,
    full: &Done,
) -> (serde_json::Value, Vec<crate::recorder::Interval>) {
    let rate = |d: &Done| d.counts.beats_measured as f64 * 1e9 / d.counts.measured_ns.max(1) as f64;
    let own = full.counts.cpu_ns.1 as f64 / 1e3 / full.counts.beats_measured.max(1) as f64;
    let text = format!("{own:.3} µs (last round)");
    report.figure("load_us", "generator CPU a beat", text, own);
    let both = serde_json::json!({
        "bound_beats_per_s": rate(&bare),
        "systole_beats_per_s": rate(full),
    });
    (both, full.intervals.clone())
}

fn batches(flags: &Bench) -> Result<bool> {
    let (home, server, mut known, mut report) = loaded(flags)?;
    let connections = 8;
    for (packed, key, label, aim) in [
        (false, "by_name_us", "CPU a beat, by name", "≤ 0.10 µs"),
        (true, "by_id_us", "CPU a beat, by packed id", "≤ 0.05 µs"),
    ] {
        let mut each = Vec::new();
        for _ in 0..flags.rounds {
            let mode = Mode::Batch {
                packed,
                size: flags.batch,
            };
            let plan = Plan {
                server_pid: Some(server.pid()),
                known: Some(Arc::new(known)),
                ..plan(flags, connections, Load::Closed { pipeline: 1 }, mode)
            };
            let done = measure(&home.target(), plan, flags)?;
            report.verdict(&done.faults, done.broken_off.as_deref());
            each.push(done.cpu_us());
            known = done.into_known();
        }
        spread(&mut report, key, label, &each, " µs");
        report.figure(&format!("{key}_aim"), "  target", aim.to_owned(), aim);
    }
    let text = format!(
        "batches of {} over {connections} connections, {} sessions in the table, in scattered order",
        flags.batch, flags.sessions
    );
    report.figure("setup", "load", text.clone(), text);
    conclude(&report, flags.own.out.as_deref())
}

/// A systole with its table filled.
fn loaded(flags: &Bench) -> Result<(Home, Server, Known, Report)> {
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let joins = Plan {
        server_pid: Some(server.pid()),
        ..Plan::joins(names(), flags.sessions, 64)
    };
    let done = run::run(&home.target(), vec![joins], flags.own.load_cpu)?;
    let topic = format!("{:?}", flags.target).to_lowercase();
    let mut report = Report::new(&topic, done.started, &home.describe());
    tell(&mut report, &done);
    Ok((home, server, done.into_known(), report))
}

fn plan(flags: &Bench, connections: u32, load: Load, mode: Mode) -> Plan {
    Plan {
        load,
        mode,
        duration_ns: flags.duration,
        warmup_ns: 300 * MILLI,
        ..Plan::joins(names(), flags.sessions, connections)
    }
}

fn measure(target: &Target, plan: Plan, flags: &Bench) -> Result<Done> {
    run::run(target, vec![plan], flags.own.load_cpu)
}

fn start_bound(program: &Path, log: &TempDir, own: &Own) -> Result<(Server, SocketAddr)> {
    let address = process::free_address()?;
    let args = ["--serve".to_owned(), address.to_string()];
    let log = log.path().join("bound.log");
    let ready = |a| TcpStream::connect(a).is_ok();
    let (server, _) = Server::start(
        program,
        &args,
        address,
        &log,
        own.server_cpu,
        10 * SECOND,
        ready,
    )?;
    Ok((server, address))
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}
