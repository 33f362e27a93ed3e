//! `bench`: the project's targets, measured the way they are stated.

pub(crate) mod ensemble;
pub(crate) mod expiry;
mod heartbeat;
pub(crate) mod joins;
mod stall;

use super::own::Home;
use super::tell;
use crate::cli::{Bench, Idle, Memory, Restart, TargetName};
use crate::clock::SECOND;
use crate::names::Names;
use crate::plan::{Known, Plan};
use crate::process::Server;
use crate::report::Report;
use crate::run;
use anyhow::Result;
use clap::ValueEnum;

/// Runs `bench`. True if nothing went wrong; a missed target is a figure, not a fault.
///
/// # Errors
/// If a server cannot be started or the run cannot be done.
pub(crate) fn bench(flags: &Bench) -> Result<bool> {
    match flags.target {
        TargetName::P1 => heartbeat::against_bound(&pinned(flags), 64, 1, "≤ 1.15 × the bound"),
        TargetName::P2 => heartbeat::against_bound(&pinned(flags), 10_000, 1, "≤ 1.2 × the bound"),
        TargetName::P3 => {
            let aim = "≤ 1.5 × the bound, ≤ 0.8 µs";
            heartbeat::against_bound(&pinned(flags), 64, 32, aim)
        }
        TargetName::P4 => heartbeat::batches(&pinned(flags)),
        TargetName::P6 => super::memory::memory(&Memory {
            own: flags.own.clone(),
            sessions: flags.sessions,
            name_bytes: 24,
            groups: 100,
        }),
        TargetName::P7 => joins::durable_joins(flags),
        TargetName::P7Three => ensemble::three_servers(flags),
        TargetName::P11 => ensemble::shards(flags),
        TargetName::P13 => ensemble::idle_leader(flags),
        TargetName::P8 => expiry::lateness(flags),
        TargetName::P9 => super::restart::restart(&Restart {
            own: flags.own.clone(),
            sessions: flags.sessions,
            rounds: flags.rounds,
            duration: 20 * SECOND,
        }),
        TargetName::P9Stall => stall::stalls(flags),
        TargetName::P12 => super::idle::idle(&Idle {
            own: pinned(flags).own,
            connections: 15_000,
            connect_rate: 5_000,
            rounds: flags.rounds,
            duration: flags.duration,
        }),
    }
}

/// Unless told otherwise the server has processor 0 and the load processor 1.
fn pinned(flags: &Bench) -> Bench {
    let mut flags = flags.clone();
    flags.own.server_cpu = flags.own.server_cpu.or(Some(0));
    flags.own.load_cpu = flags.own.load_cpu.or(Some(1));
    flags
}

/// A systole with its table filled.
fn loaded(flags: &Bench) -> Result<(Home, Server, Known, Report)> {
    let home = Home::new(&flags.own)?;
    let (server, known, report) = filled(&home, flags)?;
    Ok((home, server, known, report))
}

/// The same at a home of one's own.
fn filled(home: &Home, flags: &Bench) -> Result<(Server, Known, Report)> {
    let (server, _) = home.start()?;
    let joins = Plan {
        server_pid: Some(server.pid()),
        ..Plan::joins(names(), flags.sessions, 64)
    };
    let done = run::run(&home.target(), vec![joins], flags.own.load_cpu)?;
    let mut report = Report::new(&topic(flags), done.started, &home.describe());
    tell(&mut report, &done);
    Ok((server, done.into_known(), report))
}

/// `p1`, `p7-three` …: what the result's folder is called after.
fn topic(flags: &Bench) -> String {
    let value = flags.target.to_possible_value();
    value.map_or(String::new(), |value| value.get_name().to_owned())
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}
