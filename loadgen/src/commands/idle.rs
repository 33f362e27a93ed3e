//! `idle`: what thousands of connections that say nothing cost, in memory and to the others.

use super::memory::settled;
use super::own::Home;
use super::{conclude, spread};
use crate::cli::Idle;
use crate::clock::{self, MILLI, SECOND};
use crate::names::Names;
use crate::net::{Driver, Lane, Net, Next, Pending, Target};
use crate::plan::{Known, Load, Plan};
use crate::reply::Reply;
use crate::report::Report;
use crate::run::{self, Done};
use anyhow::{Result, anyhow, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Runs `idle`. True if nothing went wrong.
///
/// # Errors
/// If the server cannot be started or the connections cannot be opened.
pub(crate) fn idle(flags: &Idle) -> Result<bool> {
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let joins = Plan::joins(names(), SESSIONS, ACTIVE);
    let joined = run::run(&home.target(), vec![joins], flags.own.load_cpu)?;
    let mut report = Report::new("idle", joined.started, &home.describe());
    report.verdict(&joined.faults, joined.broken_off.as_deref());
    let mut known = joined.into_known();
    let (mut without, mut with, mut ratios, mut memory) = (vec![], vec![], vec![], vec![]);
    for round in 0..flags.rounds {
        let alone = measure(&home, flags, known, server.pid())?;
        report.verdict(&alone.faults, alone.broken_off.as_deref());
        let before = settled(&server)?;
        let target = Target {
            connects_per_s: flags.connect_rate,
            ..home.target()
        };
        let held = Held::open(target, flags.connections)?;
        let after = settled(&server)?;
        let alone_us = alone.cpu_us();
        let crowded = measure(&home, flags, alone.into_known(), server.pid())?;
        report.verdict(&crowded.faults, crowded.broken_off.as_deref());
        let ended = held.close()?;
        if ended > 0 {
            bail!("the server ended {ended} of the idle connections");
        }
        without.push(alone_us);
        with.push(crowded.cpu_us());
        ratios.push(crowded.cpu_us() / alone_us);
        memory.push(after.rss.saturating_sub(before.rss) as f64 / f64::from(flags.connections));
        known = crowded.into_known();
        eprintln!(
            "round {}: {alone_us:.2} µs alone, {:.2} µs crowded",
            round + 1,
            with[round as usize]
        );
    }
    let text = format!(
        "{} idle connections; beats one at a time over {ACTIVE} others, {} rounds",
        flags.connections, flags.rounds
    );
    report.setup(text);
    // Later rounds find memory that earlier ones have left: the first is the honest one.
    let first = memory.first().copied().unwrap_or(0.0);
    let text = format!("{first:.0} B of user space (resident, first round)");
    report.figure("bytes_a_connection", "memory of a connection", text, first);
    spread(
        &mut report,
        "alone_us",
        "server CPU a beat, alone",
        &without,
        " µs",
    );
    spread(
        &mut report,
        "crowded_us",
        "server CPU a beat, crowded",
        &with,
        " µs",
    );
    spread(&mut report, "ratio", "crowded / alone", &ratios, "");
    report.data("bytes_a_connection_each", memory.into());
    conclude(&report, flags.own.out.as_deref())
}

fn measure(home: &Home, flags: &Idle, known: Known, pid: u32) -> Result<Done> {
    let plan = Plan {
        load: Load::Closed { pipeline: 1 },
        duration_ns: flags.duration,
        warmup_ns: 300 * MILLI,
        server_pid: Some(pid),
        known: Some(Arc::new(known)),
        ..Plan::joins(names(), SESSIONS, ACTIVE)
    };
    run::run(&home.target(), vec![plan], flags.own.load_cpu)
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}

/// Connections that stay open and say nothing.
struct Held {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32>>,
}

impl Held {
    fn open(target: Target, connections: u32) -> Result<Held> {
        run::ensure_files(u64::from(connections))?;
        let (stop, up) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let mut hold = Hold {
            stop: Arc::clone(&stop),
            up: Arc::clone(&up),
            ended: 0,
        };
        let thread = thread::spawn(move || {
            let mut net = Net::new(target, connections)?;
            net.run(&mut hold)?;
            Ok(hold.ended)
        });
        let began = clock::now();
        while up.load(Ordering::Relaxed) < connections {
            if thread.is_finished() || clock::now() - began > OPENING_NS_MAX {
                stop.store(true, Ordering::Relaxed);
                let got = up.load(Ordering::Relaxed);
                bail!("only {got} of {connections} idle connections could be opened");
            }
            clock::pause(Duration::from_nanos(5 * MILLI));
        }
        Ok(Held { stop, thread })
    }

    /// Closes them; returns how many the server had ended before.
    fn close(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that holds the connections panicked"))?
    }
}

struct Hold {
    stop: Arc<AtomicBool>,
    up: Arc<AtomicU32>,
    ended: u32,
}

impl Driver for Hold {
    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next {
        self.up.store(net.up(), Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) {
            return Next::Stop;
        }
        Next::Wake(now_ns + 50 * MILLI)
    }

    fn answered(&mut self, _: &mut Lane, _: Pending, _: &Reply, _: &[u8], _: u64) {}

    fn closed(&mut self, _: u32, _: &str, _: &mut dyn Iterator<Item = Pending>) {
        self.ended += 1;
    }
}

/// Connections that beat.
const ACTIVE: u32 = 64;
/// Sessions they beat for.
const SESSIONS: u32 = 10_000;
/// All idle connections must be open by then.
const OPENING_NS_MAX: u64 = 60 * SECOND;
