//! Runs seeds of the session world: whole servers, and their clients.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use systole::sim::fleet::plants::{Plants, defends};
use systole::sim::fleet::probes::{Probe, Probes};
use systole::sim::fleet::{Fleet, Outcome};

use super::{Args, plants, seeds};

/// What came of all seeds so far.
#[derive(Default)]
struct Sum {
    runs: u64,
    steps: u64,
    committed: u64,
    promises: u64,
    expired: u64,
    moved: u64,
    time_us: u64,
    fingerprint: u64,
    probes: Probes,
    /// The lowest seed that is not clean, and why.
    worst: Option<(u64, String)>,
}

/// Runs what the command line asks for.
pub(super) fn run(args: &Args) -> ExitCode {
    match args.session_plant.as_deref() {
        None => run_clean(args),
        Some("all") => {
            let missed: Vec<&str> = Plants::names()
                .filter(|name| !is_found(name, args))
                .collect();
            let count = Plants::names().count();
            match missed.as_slice() {
                [] => println!("{count} plants, all found, but for defences"),
                missed => println!("{count} plants; not found: {}", missed.join(", ")),
            }
            verdict(missed.is_empty())
        }
        Some(name) => match Plants::named(name) {
            Some(plants) if args.planted_seeds => look_for(plants, args),
            Some(_) => verdict(is_found(name, args)),
            None => {
                let names: Vec<&str> = Plants::names().collect();
                eprintln!("there is no such plant; there are {}", names.join(", "));
                ExitCode::from(2)
            }
        },
    }
}

fn run_clean(args: &Args) -> ExitCode {
    if args.trace {
        let outcome = run_seed(args.seed.unwrap_or(0), args, Plants::NONE, true);
        outcome.lines.iter().for_each(|line| println!("{line}"));
        return verdict(outcome.violation.is_none());
    }
    let sum = run_seeds(args, Plants::NONE, false);
    let (from, to) = range(args);
    println!(
        "seeds {from}..{to}: {} runs, {} steps, {} commits, {} promises, {} expiries, {} moves, \
         {} s simulated, fingerprint {:016x}",
        sum.runs,
        sum.steps,
        sum.committed,
        sum.promises,
        sum.expired,
        sum.moved,
        sum.time_us / 1_000_000,
        sum.fingerprint,
    );
    let unfired: Vec<&str> = sum.probes.unfired().map(Probe::name).collect();
    if args.probes {
        for &probe in Probe::ALL {
            println!("{:>12}  {}", sum.probes.count(probe), probe.name());
        }
        match unfired.as_slice() {
            [] => println!("every probe fired"),
            unfired => println!("never reached: {}", unfired.join("; ")),
        }
    }
    let Some((seed, _)) = sum.worst else {
        return verdict(!args.probes || unfired.is_empty());
    };
    let lines = run_seed(seed, args, Plants::NONE, true).lines;
    let last = lines.len().saturating_sub(LAST_LINES);
    lines[last..].iter().for_each(|line| println!("{line}"));
    ExitCode::FAILURE
}

/// Looks for a plant among the seeds, in this process.
fn look_for(plants: Plants, args: &Args) -> ExitCode {
    let sum = run_seeds(args, plants, true);
    if let Some((seed, what)) = &sum.worst {
        println!("seed {seed}: {what}");
    }
    verdict(sum.worst.is_some())
}

/// Looks for a plant in a process of its own, which an assertion may end, and prints how it was
/// found, if it was.
fn is_found(name: &str, args: &Args) -> bool {
    let (from, to) = range(args);
    let seeds = format!("{from}..{to}");
    let (seconds, threads) = (args.seconds.to_string(), args.threads.to_string());
    let mut words = vec![
        "--session-plant",
        name,
        "--planted-seeds",
        "--seeds",
        &seeds,
    ];
    words.extend(["--seconds", &seconds, "--threads", &threads]);
    let found = plants::run(&words);
    match &found {
        Some(told) => println!("{name}: {told}"),
        None => match defends(name) {
            Some(why) => println!("{name}: no seed of {seeds}; defence in depth: {why}"),
            None => println!("{name}: no seed of {seeds}"),
        },
    }
    found.is_some() || defends(name).is_some()
}

/// Runs the seeds, and after a violation none above it if `stop`.
fn run_seeds(args: &Args, plants: Plants, stop: bool) -> Sum {
    let (from, to) = range(args);
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    let mut outcome = run_seed(seed, args, plants, false);
                    let twice = seed.is_multiple_of(seeds::TWICE_EVERY);
                    if twice && outcome.violation.is_none() {
                        let again = run_seed(seed, args, plants, false);
                        outcome.must_be(&again);
                    }
                    let found = outcome.violation.is_some();
                    let mut sum = sum.lock().expect("a panic ends the process");
                    sum.add(seed, outcome, stop);
                    if found && stop {
                        next.store(to, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    sum.into_inner().expect("a panic ends the process")
}

fn run_seed(seed: u64, args: &Args, plants: Plants, trace: bool) -> Outcome {
    let time_us = args.seconds * 1_000_000;
    seeds::naming(seed, || Fleet::drawn(seed, plants, trace).run(time_us))
}

fn range(args: &Args) -> (u64, u64) {
    args.seed.map_or(args.seeds, |seed| (seed, seed + 1))
}

fn verdict(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome, quiet: bool) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.committed += outcome.committed;
        self.promises += outcome.promises;
        self.expired += outcome.expired;
        self.moved += outcome.moved;
        self.time_us += outcome.time_us;
        // Commutative, so that threads do not matter.
        self.fingerprint ^= outcome.fingerprint;
        self.probes.add(&outcome.probes);
        let Some(violation) = outcome.violation else {
            return;
        };
        let what = format!("{:.3} s: {}", violation.at_us as f64 / 1e6, violation.what);
        if !quiet {
            println!("seed {seed}: {what}");
        }
        if self.worst.as_ref().is_none_or(|(worst, _)| seed < *worst) {
            self.worst = Some((seed, what));
        }
    }
}

/// How much of a trace is printed of a seed that is not clean.
const LAST_LINES: usize = 60;
