//! What an ensemble costs: joins that three servers agree on (P7), beats over several shards
//! (P11), and what sessions of followers cost their leader (P13).

use super::heartbeat::start_bound;
use super::topic;
use crate::cli::{Bench, Own};
use crate::client;
use crate::clock::{self, SECOND};
use crate::commands::ensemble::Ensemble;
use crate::commands::own::{self, Home};
use crate::commands::{conclude, spread};
use crate::names::Names;
use crate::net::Target;
use crate::plan::{Load, Plan};
use crate::process::{self, TempDir};
use crate::report::Report;
use crate::run::{self, Done};
use anyhow::{Context, Result, anyhow};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// P7 with three servers: a crowd of joins at the leader, then one at a follower.
pub(super) fn three_servers(flags: &Bench) -> Result<bool> {
    let (ensemble, leader) = started(flags)?;
    let mut report = Report::new("p7-three", clock::wall(), &ensemble.describe());
    let crowd = (flags.sessions / flags.rounds).max(1);
    report.setup(format!(
        "three servers on this machine and the load share its processors; rounds of {crowd} joins \
         at the leader, then at a follower, {} under way over 64 connections",
        flags.outstanding
    ));
    let aim = "three servers on one machine: ≥ 50,000 a second";
    report.figure("aim", "target", aim.to_owned(), aim);
    let follower = (leader + 1) % ensemble.len();
    let mut rates = [Vec::new(), Vec::new()];
    let mut cpu_us = [Vec::new(), Vec::new()];
    for round in 0..flags.rounds {
        for (place, at) in [leader, follower].into_iter().enumerate() {
            let names = Names::new(&format!("at{place}round{round}"), 100, 24, 1, 0);
            let plan = Plan {
                joins_outstanding: flags.outstanding,
                ..Plan::joins(names, crowd, 64)
            };
            let before = cpu_of(&ensemble);
            let target = target(vec![ensemble.addresses()[at]]);
            let done = run::run(&target, vec![plan], flags.own.load_cpu)?;
            report.verdict(&done.faults, done.broken_off.as_deref());
            let joins = done.counts.joins.max(1) as f64;
            let rate = joins * 1e9 / done.counts.joining_ns.max(1) as f64;
            rates[place].push(rate);
            let spent = cpu_of(&ensemble).iter().sum::<u64>() - before.iter().sum::<u64>();
            cpu_us[place].push(spent as f64 / 1e3 / joins);
        }
        let (led, followed) = (rates[0][round as usize], rates[1][round as usize]);
        eprintln!("round {}: {led:.0} and {followed:.0} a second", round + 1);
    }
    for (place, name) in ["leader", "follower"].into_iter().enumerate() {
        let (key, label) = (
            format!("{name}_per_s"),
            format!("joins a second at the {name}"),
        );
        spread(&mut report, &key, &label, &rates[place], "");
        let (key, label) = (
            format!("{name}_cpu_us"),
            "CPU of all three servers a join".to_owned(),
        );
        spread(&mut report, &key, &label, &cpu_us[place], " µs");
    }
    drop(ensemble);
    conclude(&report, flags.own.out.as_deref())
}

/// P13: what a leader spends while followers hold more and more sessions.
pub(super) fn idle_leader(flags: &Bench) -> Result<bool> {
    let mut report: Option<Report> = None;
    let steps = STEPS.iter().filter(|n| **n <= flags.sessions);
    for sessions in steps.copied() {
        let (ensemble, leader) = started(flags)?;
        let report = report
            .get_or_insert_with(|| Report::new(&topic(flags), clock::wall(), &ensemble.describe()));
        let mut seen = [Vec::new(), Vec::new(), Vec::new()];
        let followers = (0..ensemble.len()).filter(|at| *at != leader);
        let target = target(followers.map(|at| ensemble.addresses()[at]).collect());
        let load = match sessions {
            0 => None,
            _ => Some(beating(&target, sessions, flags)?),
        };
        for round in 0..flags.rounds {
            let before = (
                clock::now(),
                cpu_of(&ensemble)[leader],
                ensemble.peer_bytes(leader)?,
            );
            clock::pause(Duration::from_nanos(flags.duration));
            let after = (
                clock::now(),
                cpu_of(&ensemble)[leader],
                ensemble.peer_bytes(leader)?,
            );
            let seconds = (after.0 - before.0) as f64 / 1e9;
            seen[0].push((after.1 - before.1) as f64 / 1e3 / seconds);
            seen[1].push((after.2.0.saturating_sub(before.2.0)) as f64 / seconds);
            seen[2].push((after.2.1.saturating_sub(before.2.1)) as f64 / seconds);
            eprintln!(
                "{sessions} sessions, round {}: {:.0} µs a second",
                round + 1,
                seen[0][round as usize]
            );
        }
        for (place, what) in ["CPU µs", "bytes sent", "bytes received"]
            .iter()
            .enumerate()
        {
            let key = format!("{}_{sessions}", ["cpu_us", "sent", "received"][place]);
            let label = format!("{what} a second, {sessions} sessions at the followers");
            spread(report, &key, &label, &seen[place], "");
        }
        if let Some(load) = load {
            let done = load
                .join()
                .map_err(|_| anyhow!("the load has panicked"))??;
            report.verdict(&done.faults, done.broken_off.as_deref());
            let rate =
                done.counts.beats_measured as f64 * 1e9 / done.counts.measured_ns.max(1) as f64;
            let (key, label) = (
                format!("beats_{sessions}"),
                "beats a second at them".to_owned(),
            );
            report.figure(&key, &label, format!("{rate:.0}"), rate);
        }
    }
    let mut report = report.context("nothing was measured")?;
    report.setup(format!(
        "three servers on this machine; sessions of 30 s at the two followers, each beats every \
         10 s; the leader's CPU, and its bytes to and from the others, over windows of {} s",
        flags.duration as f64 / 1e9
    ));
    let aim = "independent of the number of sessions";
    report.figure("aim", "target", aim.to_owned(), aim);
    conclude(&report, flags.own.out.as_deref())
}

type Loading = thread::JoinHandle<Result<run::Done>>;

/// Joins `sessions` and beats for them on a thread; comes back when they beat.
fn beating(target: &Target, sessions: u32, flags: &Bench) -> Result<Loading> {
    let base = Plan {
        timeout_ns: 30 * SECOND,
        load: Load::Open {
            interval_ns: 10 * SECOND,
            block: 0,
        },
        ..Plan::joins(names(), sessions, 64)
    };
    let joins = Plan {
        load: Load::None,
        ..base.clone()
    };
    let joined = run::run(target, vec![joins], flags.own.load_cpu)?;
    let windows_ns = u64::from(flags.rounds) * (flags.duration + SECOND / 5);
    let plan = Plan {
        known: Some(Arc::new(joined.into_known())),
        warmup_ns: SECOND,
        duration_ns: windows_ns + 2 * SECOND,
        ..base
    };
    let (target, cpu) = (target.clone(), flags.own.load_cpu);
    let load = thread::spawn(move || run::run(&target, vec![plan], cpu));
    clock::pause(Duration::from_secs(2));
    Ok(load)
}

/// P11: beats over one shard and over several.
pub(super) fn shards(flags: &Bench) -> Result<bool> {
    let mut report: Option<Report> = None;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut cpu_us: Vec<Vec<f64>> = vec![Vec::new(); SHARDS.len()];
    let mut crossed: Vec<Vec<f64>> = vec![Vec::new(); SHARDS.len()];
    let mut bound_us: Vec<Vec<f64>> = vec![Vec::new(); SHARDS.len()];
    for _ in 0..flags.rounds {
        for (place, shards) in SHARDS.into_iter().enumerate() {
            let (home, done, share) =
                beats_over(&flags.own, shards, flags.sessions, flags.duration)?;
            let report = report
                .get_or_insert_with(|| Report::new(&topic(flags), clock::wall(), &home.describe()));
            report.verdict(&done.faults, done.broken_off.as_deref());
            cpu_us[place].push(done.cpu_us());
            crossed[place].push(share);
            if let Some(program) = &flags.bound {
                bound_us[place].push(bound_over(program, flags, shards)?);
            }
        }
    }
    let mut report = report.context("nothing was measured")?;
    report.setup(format!(
        "one server, {} sessions, HEAD, 32 pipelined on each of 64 connections that keep; the \
         machine has {cores} cores, for the server and the load together",
        flags.sessions
    ));
    let aim = "the same CPU a beat, ± 10 %";
    report.figure("aim", "target", aim.to_owned(), aim);
    for (place, shards) in SHARDS.into_iter().enumerate() {
        if flags.bound.is_some() {
            let key = format!("bound_us_{shards}");
            let label = format!("CPU a beat, the bound with {shards} threads");
            spread(&mut report, &key, &label, &bound_us[place], " µs");
        }
        let label = format!("server CPU a beat, {shards} shards");
        spread(
            &mut report,
            &format!("cpu_us_{shards}"),
            &label,
            &cpu_us[place],
            " µs",
        );
        let label = format!("share of beats that looked on another shard, {shards} shards");
        spread(
            &mut report,
            &format!("crossed_{shards}"),
            &label,
            &crossed[place],
            "",
        );
    }
    conclude(&report, flags.own.out.as_deref())
}

/// Beats, pipelined, at a server of so many shards; and the share that looked on another shard.
pub(crate) fn beats_over(
    own: &Own,
    shards: u32,
    sessions: u32,
    duration_ns: u64,
) -> Result<(Home, Done, f64)> {
    let mut own = own.clone();
    own.server_arg.push(format!("--shards={shards}"));
    let home = Home::new(&own)?;
    let (server, _) = home.start()?;
    let plan = Plan {
        load: Load::Closed { pipeline: 32 },
        duration_ns,
        warmup_ns: SECOND / 2,
        server_pid: Some(server.pid()),
        ..Plan::joins(names(), sessions, 64)
    };
    let done = run::run(&home.target(), vec![plan], own.load_cpu)?;
    let beats = client::metric(home.address, "systole_heartbeats_total")?;
    let claims = client::metric(home.address, "systole_session_claims_total")?;
    Ok((home, done, claims / beats.max(1.0)))
}

/// The same at the bound server with as many threads: what of the cost is the machine's.
fn bound_over(program: &Path, flags: &Bench, threads: u32) -> Result<f64> {
    let log = TempDir::new()?;
    let more = ["--threads".to_owned(), threads.to_string()];
    let (bound, address) = start_bound(program, &log, &flags.own, &more)?;
    let plan = Plan {
        bare: true,
        load: Load::Closed { pipeline: 32 },
        duration_ns: flags.duration,
        warmup_ns: SECOND / 2,
        server_pid: Some(bound.pid()),
        ..Plan::joins(names(), flags.sessions, 64)
    };
    let done = run::run(&own::target(address), vec![plan], flags.own.load_cpu)?;
    Ok(done.cpu_us())
}

/// Three servers that may serve, and which of them leads.
fn started(flags: &Bench) -> Result<(Ensemble, usize)> {
    let own = &flags.own;
    let mut ensemble = Ensemble::new(own.server.as_deref(), 3, &own.server_arg)?;
    ensemble.start_all()?;
    let leader = ensemble.leader(&[0, 1, 2]).context("nobody leads")?;
    Ok((ensemble, leader))
}

/// Nanoseconds of CPU time of each server so far.
fn cpu_of(ensemble: &Ensemble) -> Vec<u64> {
    let pids = ensemble.pids().into_iter();
    pids.map(|pid| process::cpu_ns(pid).unwrap_or(0)).collect()
}

fn target(endpoints: Vec<SocketAddr>) -> Target {
    Target {
        endpoints,
        connects_per_s: 5_000,
        reconnect: false,
    }
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}

/// Numbers of sessions that beat at the followers.
const STEPS: [u32; 4] = [0, 10_000, 100_000, 300_000];
/// Numbers of shards.
pub(crate) const SHARDS: [u32; 3] = [1, 2, 4];
