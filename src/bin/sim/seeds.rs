//! Runs seeds, one after the other on each thread, and sums up.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use systole::sim::judge::{Sink, Violation};
use systole::sim::plants::Planted;
use systole::sim::probes::{Probe, Probes};
use systole::sim::run::{self, Options};
use systole::sim::stories;
use systole::sim::world::Outcome;

use super::Args;

/// What came of all seeds so far.
#[derive(Default)]
pub(super) struct Sum {
    runs: u64,
    steps: u64,
    committed: u64,
    time_us: u64,
    recovery_us_max: u64,
    fingerprint: u64,
    probes: Probes,
    /// The lowest seed that is not clean, and why.
    pub(super) worst: Option<(u64, String)>,
}

/// What is done with each seed.
pub(super) struct Job {
    options: Options,
    story: Option<String>,
}

impl Job {
    /// What the command line asks for. A plant that is none of the world's changes nothing.
    pub(super) fn of(args: &Args) -> Job {
        let planted = args.plant.as_deref().and_then(Planted::named);
        Job {
            options: Options {
                servers: args.servers,
                steps: args.steps,
                planted: planted.unwrap_or_default(),
            },
            story: args.scenario.clone(),
        }
    }
}

pub(super) fn run_seed(seed: u64, job: &Job, trace: Option<Sink>) -> Outcome {
    SEED.set(Some(seed));
    let outcome = match &job.story {
        None => run::run(seed, &job.options, trace),
        Some(name) => stories::play(name, seed, job.options.planted, trace)
            .expect("the name was looked up at the start"),
    };
    SEED.set(None);
    outcome
}

/// Runs all seeds from `from` to below `to`, and after a violation none above it.
pub(super) fn run_seeds(from: u64, to: u64, job: &Job, threads: usize, stop: bool) -> Sum {
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    let mut outcome = run_seed(seed, job, None);
                    if seed.is_multiple_of(TWICE_EVERY) && outcome.violation.is_none() {
                        let again = run_seed(seed, job, None);
                        if again.fingerprint != outcome.fingerprint {
                            outcome.violation = Some(Violation {
                                at_us: outcome.time_us,
                                what: "another outcome the second time".into(),
                            });
                        }
                    }
                    let found = outcome.violation.is_some();
                    sum.lock()
                        .expect("a panic ends the process")
                        .add(seed, outcome);
                    if found && stop {
                        next.store(to, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    sum.into_inner().expect("a panic ends the process")
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.committed += outcome.committed;
        self.time_us += outcome.time_us;
        self.recovery_us_max = self.recovery_us_max.max(outcome.recovery_us);
        // Commutative, so that threads do not matter.
        self.fingerprint ^= outcome.fingerprint;
        self.probes.add(&outcome.probes);
        if let Some(violation) = outcome.violation {
            println!("seed {seed}: {violation}");
            if self.worst.as_ref().is_none_or(|(worst, _)| seed < *worst) {
                self.worst = Some((seed, violation.to_string()));
            }
        }
    }
}

pub(super) fn report(from: u64, to: u64, sum: &Sum, args: &Args) {
    let seconds = cpu_time().as_secs_f64();
    println!(
        "seeds {from}..{to}: {} runs, {} steps, {:.0} steps/s of processor time, {} commits, \
         {} s simulated, recovery {} ms at most, fingerprint {:016x}",
        sum.runs,
        sum.steps,
        sum.steps as f64 / seconds,
        sum.committed,
        sum.time_us / 1_000_000,
        sum.recovery_us_max / 1_000,
        sum.fingerprint,
    );
    if args.probes {
        for &probe in Probe::ALL {
            println!("{:>12}  {}", sum.probes.count(probe), probe.name());
        }
    }
    if args.scenario.is_some() {
        return; // A story does not go everywhere.
    }
    let unfired: Vec<&str> = sum.probes.unfired().map(Probe::name).collect();
    if unfired.is_empty() {
        println!("every probe fired");
    } else {
        println!("never reached: {}", unfired.join("; "));
    }
}

/// Runs a seed again and prints what happened last.
pub(super) fn print_the_end(seed: u64, job: &Job) {
    static LAST: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let sink: Sink = Box::new(|line| {
        let mut text = String::new();
        let _ = write!(text, "{line}");
        let mut last = LAST.lock().expect("a panic ends the process");
        if last.len() >= LAST_LINES {
            last.remove(0);
        }
        last.push(text);
    });
    let _ = run_seed(seed, job, Some(sink));
    for line in LAST.lock().expect("a panic ends the process").iter() {
        println!("{line}");
    }
}

thread_local! {
    /// The seed this thread is running.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Does what is to be done for a seed, which a panic names.
pub(super) fn naming<T>(seed: u64, run: impl FnOnce() -> T) -> T {
    SEED.set(Some(seed));
    let outcome = run();
    SEED.set(None);
    outcome
}

pub(super) fn name_the_seed_on_panic() {
    std::panic::set_hook(Box::new(|panic| match SEED.get() {
        Some(seed) => eprintln!("seed {seed}: {panic}"),
        None => eprintln!("{panic}"),
    }));
}

/// The processor time this process has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How much of a trace is printed of a seed that is not clean.
const LAST_LINES: usize = 60;

/// Every so many seeds one is run twice: the same seed must have the same outcome.
pub(super) const TWICE_EVERY: u64 = 50;
