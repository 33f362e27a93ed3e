//! P1–P4: what a heartbeat costs the server, measured in interleaved rounds.
//!
//! Server and load each keep to a processor of their own. A round measures the bound and
//! systole one after the other, in alternating order, with the same requests; the ratio is
//! taken within the round, so that a machine that slows down for a while slows down both.

use super::{loaded, names};
use crate::cli::{Bench, Own};
use crate::clock::{MILLI, SECOND};
use crate::commands::own::target;
use crate::commands::{conclude, spread};
use crate::net::Target;
use crate::plan::{Load, Mode, Plan};
use crate::process::{self, Server, TempDir};
use crate::recorder::{self, Interval};
use crate::report::Report;
use crate::run::{self, Done};
use anyhow::{Context, Result, ensure};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// P1–P3: systole beside the bound.
pub(super) fn against_bound(
    flags: &Bench,
    connections: u32,
    pipeline: u32,
    aim: &str,
) -> Result<bool> {
    let program = flags.bound.as_deref().context(
        "--bound PATH is needed: the bound server, as `cargo bench --bench bound --no-run` builds it",
    )?;
    ensure!(
        flags.sessions >= connections,
        "more sessions than connections are needed"
    );
    let log = TempDir::new()?;
    let (bound, bound_address) = start_bound(program, &log, &flags.own, &[])?;
    let as_many = ["--answer".to_owned(), "beat".to_owned()];
    let wordy_log = TempDir::new()?;
    let (wordy, wordy_address) = start_bound(program, &wordy_log, &flags.own, &as_many)?;
    let (home, server, mut known, mut report) = loaded(flags)?;
    let load = Load::Closed { pipeline };
    let mut rounds = Rounds::default();
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
        let wordy = Plan {
            bare: true,
            server_pid: Some(wordy.pid()),
            ..plan(flags, connections, load, Mode::Head)
        };
        let wordy = measure(&target(wordy_address), wordy, flags)?;
        for done in [&bare, &full, &wordy] {
            report.verdict(&done.faults, done.broken_off.as_deref());
        }
        rounds.add(&bare, &full, &wordy);
        known = full.into_known();
    }
    report.setup(format!(
        "{connections} connections, {pipeline} under way on each, {} sessions in the table",
        flags.sessions
    ));
    report.figure("aim", "target", aim.to_owned(), aim);
    rounds.tell(&mut report);
    conclude(&report, flags.own.out.as_deref())
}

/// What the rounds measured.
#[derive(Default)]
struct Rounds {
    bound_us: Vec<f64>,
    ours_us: Vec<f64>,
    ours_user_us: Vec<f64>,
    ratio: Vec<f64>,
    wordy_us: Vec<f64>,
    wordy_ratio: Vec<f64>,
    load_us: Vec<f64>,
    bound_per_s: Vec<f64>,
    ours_per_s: Vec<f64>,
    bound_busy: Vec<f64>,
    ours_busy: Vec<f64>,
    intervals: Vec<Interval>,
}

impl Rounds {
    fn add(&mut self, bare: &Done, full: &Done, wordy: &Done) {
        let rate =
            |d: &Done| d.counts.beats_measured as f64 * 1e9 / d.counts.measured_ns.max(1) as f64;
        let own_ns = full.counts.cpu_ns.1 as f64;
        self.bound_us.push(bare.cpu_us());
        self.ours_us.push(full.cpu_us());
        self.ours_user_us.push(full.user_us());
        self.ratio.push(full.cpu_us() / bare.cpu_us());
        self.wordy_us.push(wordy.cpu_us());
        self.wordy_ratio.push(full.cpu_us() / wordy.cpu_us());
        self.load_us
            .push(own_ns / 1e3 / full.counts.beats_measured.max(1) as f64);
        self.bound_per_s.push(rate(bare));
        self.ours_per_s.push(rate(full));
        let busy = |d: &Done| d.counts.cpu_ns.0 as f64 / d.counts.measured_ns.max(1) as f64;
        self.bound_busy.push(busy(bare));
        self.ours_busy.push(busy(full));
        let all = [&self.intervals[..], &full.intervals].concat();
        self.intervals = recorder::merge(all);
        eprintln!(
            "round {}: bound {:.3} µs, systole {:.3} µs",
            self.ratio.len(),
            bare.cpu_us(),
            full.cpu_us()
        );
    }

    fn tell(&self, report: &mut Report) {
        for (key, label, values, unit) in [
            ("bound_us", "CPU a beat, the bound", &self.bound_us, " µs"),
            ("systole_us", "CPU a beat, systole", &self.ours_us, " µs"),
            (
                "systole_user_us",
                "  of it user space",
                &self.ours_user_us,
                " µs",
            ),
            ("ratio", "systole / bound, by round", &self.ratio, ""),
            (
                "wordy_us",
                "CPU a beat, the bound with answers as long as systole's",
                &self.wordy_us,
                " µs",
            ),
            (
                "wordy_ratio",
                "systole / that bound, by round",
                &self.wordy_ratio,
                "",
            ),
            ("load_us", "generator CPU a beat", &self.load_us, " µs"),
            (
                "bound_per_s",
                "beats a second, the bound",
                &self.bound_per_s,
                "",
            ),
            (
                "systole_per_s",
                "beats a second, systole",
                &self.ours_per_s,
                "",
            ),
            // A server that waits for the load pays for going to sleep and waking up.
            (
                "bound_busy",
                "share of its time the bound was busy",
                &self.bound_busy,
                "",
            ),
            (
                "systole_busy",
                "share of its time systole was busy",
                &self.ours_busy,
                "",
            ),
        ] {
            spread(report, key, label, values, unit);
        }
        report.latencies(&self.intervals);
    }
}

/// P4: batches by name and by packed id.
pub(super) fn batches(flags: &Bench) -> Result<bool> {
    let (home, server, mut known, mut report) = loaded(flags)?;
    let (mut by_name, mut by_id) = (Vec::new(), Vec::new());
    for _ in 0..flags.rounds {
        for packed in [false, true] {
            let mode = Mode::Batch {
                packed,
                size: flags.batch,
            };
            let plan = Plan {
                server_pid: Some(server.pid()),
                known: Some(Arc::new(known)),
                ..plan(flags, BATCH_CONNECTIONS, Load::Closed { pipeline: 1 }, mode)
            };
            let done = measure(&home.target(), plan, flags)?;
            report.verdict(&done.faults, done.broken_off.as_deref());
            let each = if packed { &mut by_id } else { &mut by_name };
            each.push(done.cpu_us());
            known = done.into_known();
        }
    }
    report.setup(format!(
        "batches of {} over {BATCH_CONNECTIONS} connections, {} sessions in the table, \
         in scattered order",
        flags.batch, flags.sessions
    ));
    let aim = "≤ 0.10 µs by name, ≤ 0.05 µs by packed id";
    report.figure("aim", "target", aim.to_owned(), aim);
    spread(
        &mut report,
        "by_name_us",
        "CPU a beat, by name",
        &by_name,
        " µs",
    );
    spread(
        &mut report,
        "by_id_us",
        "CPU a beat, by packed id",
        &by_id,
        " µs",
    );
    conclude(&report, flags.own.out.as_deref())
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

/// Starts the bound server, with what `more` says.
pub(super) fn start_bound(
    program: &Path,
    log: &TempDir,
    own: &Own,
    more: &[String],
) -> Result<(Server, SocketAddr)> {
    let address = process::free_address()?;
    let args = [&["--serve".to_owned(), address.to_string()], more].concat();
    let log = log.path().join("bound.log");
    let ready = |a| TcpStream::connect(a).is_ok();
    let limit_ns = 10 * SECOND;
    let (server, _) = Server::start(
        program,
        &args,
        address,
        &log,
        own.server_cpu,
        limit_ns,
        ready,
    )?;
    Ok((server, address))
}

/// Connections that carry batches.
const BATCH_CONNECTIONS: u32 = 8;
