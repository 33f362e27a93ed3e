//! Runs seeds of the simulated world.
//!
//! ```text
//! sim --seeds 0..1000                 all must be clean; exits with 1 if one is not
//! sim --seed 17 --trace               everything that happens, line by line
//! sim --plant NAME|all --seeds 0..1000   each plant must be found
//! sim --scenario NAME --seeds 0..100     one story, told in many ways
//! ```
//!
//! A panic is a finding too: it ends the process, and the last line names the seed.

use std::cell::Cell;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use systole::sim::judge::Sink;
use systole::sim::plants::Planted;
use systole::sim::probes::{Probe, Probes};
use systole::sim::run::{self, Options};
use systole::sim::stories;
use systole::sim::world::Outcome;

/// The deterministic simulator.
#[derive(Parser, Debug)]
#[command(name = "sim")]
struct Args {
    /// Seeds to run, as FROM..TO.
    #[arg(long, value_parser = range_of, default_value = "0..100")]
    seeds: (u64, u64),
    /// One seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints everything that happens; with `--seed`.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Servers that vote; drawn from the seed if not given.
    #[arg(long)]
    servers: Option<usize>,
    /// Events with faults before all is healed.
    #[arg(long, default_value_t = 200_000)]
    steps: u64,
    /// Plants a fault, which must be found; `all` for one after the other.
    #[arg(long)]
    plant: Option<String>,
    /// Seeds run at the same time.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Tells a story with a known end, once for each seed, in place of the random world.
    #[arg(long)]
    scenario: Option<String>,
    /// Prints the names of all stories.
    #[arg(long)]
    list_scenarios: bool,
    /// Prints the names of all plants.
    #[arg(long)]
    list_plants: bool,
    /// Prints how often each probe was reached.
    #[arg(long)]
    probes: bool,
}

/// What came of all seeds so far.
#[derive(Default)]
struct Sum {
    runs: u64,
    steps: u64,
    committed: u64,
    time_us: u64,
    recovery_us_max: u64,
    fingerprint: u64,
    probes: Probes,
    /// The lowest seed that is not clean, and why.
    worst: Option<(u64, String)>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list_plants {
        Planted::names().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if args.list_scenarios {
        stories::all().for_each(|story| println!("{}: {}", story.name, story.about));
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &args.scenario
        && !stories::all().any(|story| story.name == name)
    {
        eprintln!("there is no such scenario; --list-scenarios names them");
        return ExitCode::from(2);
    }
    name_the_seed_on_panic();
    if args.plant.as_deref() == Some("all") {
        return try_all_plants(&args);
    }
    let Some(job) = job_of(&args) else {
        eprintln!("there is no such plant; --list-plants names them");
        return ExitCode::from(2);
    };
    if args.trace {
        let sink: Sink = Box::new(|line| println!("{line}"));
        let outcome = run_seed(args.seed.unwrap_or(0), &job, Some(sink));
        println!(
            "fingerprint {:016x}, {} steps",
            outcome.fingerprint, outcome.steps
        );
        return verdict(outcome.violation.is_some(), &args);
    }
    let (from, to) = args.seed.map_or(args.seeds, |seed| (seed, seed + 1));
    let sum = run_seeds(from, to, &job, args.threads, args.plant.is_some());
    report(from, to, &sum, &args);
    if let Some((seed, what)) = &sum.worst {
        println!("seed {seed}: {what}");
        if args.plant.is_none() {
            print_the_end(*seed, &job);
        }
    }
    verdict(sum.worst.is_some(), &args)
}

/// Clean seeds are a success; with a plant, a finding is.
fn verdict(found: bool, args: &Args) -> ExitCode {
    match found == args.plant.is_some() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What is done with each seed.
struct Job {
    options: Options,
    scenario: Option<String>,
}

fn job_of(args: &Args) -> Option<Job> {
    let planted = match &args.plant {
        None => Planted::default(),
        Some(name) => Planted::named(name)?,
    };
    Some(Job {
        options: Options {
            servers: args.servers,
            steps: args.steps,
            planted,
        },
        scenario: args.scenario.clone(),
    })
}

fn run_seed(seed: u64, job: &Job, trace: Option<Sink>) -> Outcome {
    SEED.set(Some(seed));
    let outcome = match &job.scenario {
        None => run::run(seed, &job.options, trace),
        Some(name) => stories::play(name, seed, job.options.planted, trace)
            .expect("the name was looked up at the start"),
    };
    SEED.set(None);
    outcome
}

/// Runs all seeds from `from` to below `to`, and after a violation none above it.
fn run_seeds(from: u64, to: u64, job: &Job, threads: usize, stop: bool) -> Sum {
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
                    let outcome = run_seed(seed, job, None);
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

fn report(from: u64, to: u64, sum: &Sum, args: &Args) {
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
    let unfired: Vec<&str> = sum.probes.unfired().map(Probe::name).collect();
    if unfired.is_empty() {
        println!("every probe fired");
    } else {
        println!("never reached: {}", unfired.join("; "));
    }
}

/// Runs a seed again and prints what happened last.
fn print_the_end(seed: u64, job: &Job) {
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

/// Runs every plant in a process of its own, for some are found by an assertion, which ends it.
fn try_all_plants(args: &Args) -> ExitCode {
    let mut missed = 0;
    for name in Planted::names() {
        let found = try_plant(name, args);
        missed += u32::from(found.is_none());
        println!("{name}: {}", found.as_deref().unwrap_or("NOT FOUND"));
    }
    println!("{missed} plants were not found");
    match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// How a plant was found, if it was.
fn try_plant(name: &str, args: &Args) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let mut command = Command::new(program);
    command.args(["--plant", name]);
    command.args(["--seeds", &format!("{}..{}", args.seeds.0, args.seeds.1)]);
    command.args(["--steps", &args.steps.to_string()]);
    command.args(["--threads", &args.threads.to_string()]);
    if let Some(scenario) = &args.scenario {
        command.args(["--scenario", scenario]);
    }
    if let Some(servers) = args.servers {
        command.args(["--servers", &servers.to_string()]);
    }
    let output = command.output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let told = text.lines().find(|line| line.starts_with("seed "));
    match output.status.success() || output.status.code().is_none() {
        true => Some(told.unwrap_or("by the end of the process").to_owned()),
        false => None,
    }
}

thread_local! {
    /// The seed this thread is running.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

fn name_the_seed_on_panic() {
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

fn range_of(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("write it as FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    let (from, to) = (number(from)?, number(to)?);
    if from < to {
        return Ok((from, to));
    }
    Err("there is no seed in it".into())
}

/// How much of a trace is printed of a seed that is not clean.
const LAST_LINES: usize = 60;
