//! Runs seeds of the simulated world.
//!
//! ```text
//! sim --seeds 0..1000                 all must be clean; exits with 1 if one is not
//! sim --seed 17 --trace               everything that happens, line by line
//! sim --plant NAME|all --seeds 0..1000   each plant must be found
//! sim --sessions --seeds 0..1000      whole servers, and their clients
//! sim --session-plant NAME|all        each plant in the leases must be found there
//! sim --model 4                       every order of a small ensemble's steps
//! sim --failover 100                  how long changes of leader take
//! sim --scenario NAME|all             stories with a known end
//! sim --scenario NAME --session-plant NAME   one of whole servers, which must fail
//! ```
//!
//! A panic is a finding too: it ends the process, and the last line names the seed.

mod plants;
mod reports;
mod seeds;
mod sessions;
mod tell;

use std::process::ExitCode;

use clap::Parser;
use systole::sim::judge::Sink;

use seeds::Job;

/// The deterministic simulator.
#[derive(Parser, Clone, Debug)]
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
    /// Tells a scenario with a known end, in place of the random world; `all` for one after the
    /// other. Those whose times are drawn are told once for each seed.
    #[arg(long)]
    scenario: Option<String>,
    /// Prints the names of all scenarios, and the plants they guard against.
    #[arg(long)]
    list_scenarios: bool,
    /// Prints the names of all plants.
    #[arg(long)]
    list_plants: bool,
    /// Looks for the plant in this process, among the seeds alone.
    #[arg(long, hide = true)]
    planted_seeds: bool,
    /// Prints how often each probe was reached.
    #[arg(long)]
    probes: bool,
    /// Explores every order of a small ensemble's steps, up to so many million states a case.
    #[arg(long, value_name = "MILLIONS")]
    model: Option<u64>,
    /// Runs whole servers and their clients, in place of agreement alone.
    #[arg(long)]
    sessions: bool,
    /// Plants a fault in the leases, which must be found there; `all` for one after the other.
    #[arg(long, value_name = "PLANT")]
    session_plant: Option<String>,
    /// Simulated seconds with faults before all is healed; with `--sessions`.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Measures how long a change of leader takes, over so many seeds a case.
    #[arg(long, value_name = "SEEDS")]
    failover: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list_plants {
        plants::names().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if args.list_scenarios {
        return tell::list();
    }
    if let Some(millions) = args.model {
        return reports::explore_all(millions * 1_000_000);
    }
    if let Some(seeds) = args.failover {
        return reports::measure_falls(seeds);
    }
    seeds::name_the_seed_on_panic();
    let scenario = args.scenario.as_deref();
    if let Some(name) = scenario.filter(|name| tell::is_of_sessions(name)) {
        return tell::of_sessions(name, &args);
    }
    if args.sessions || args.session_plant.is_some() {
        return sessions::run(&args);
    }
    if let Some(unknown) = unknown_name(&args) {
        eprintln!("there is no {unknown}");
        return ExitCode::from(2);
    }
    match (args.plant.as_deref(), args.scenario.as_deref()) {
        (Some("all"), _) => plants::try_all(&args),
        (Some(plant), None) if !args.trace && !args.planted_seeds => plants::try_one(plant, &args),
        (_, Some("all")) => tell::all(&args),
        (_, Some(name)) if tell::is_scripted(name) => tell::scripted(name, &args),
        _ => run_seeds(&args),
    }
}

/// What was named on the command line and does not exist.
fn unknown_name(args: &Args) -> Option<&'static str> {
    let plant = args.plant.as_deref().filter(|&name| name != "all");
    if plant.is_some_and(|name| !plants::names().any(|known| known == name)) {
        return Some("such plant; --list-plants names them");
    }
    let scenario = args.scenario.as_deref().filter(|&name| name != "all");
    if scenario.is_some_and(|name| !tell::names().any(|known| known == name)) {
        return Some("such scenario; --list-scenarios names them");
    }
    None
}

/// Runs the seeds asked for, of the random world or of a story.
fn run_seeds(args: &Args) -> ExitCode {
    let job = Job::of(args);
    if args.trace {
        let sink: Sink = Box::new(|line| println!("{line}"));
        let outcome = seeds::run_seed(args.seed.unwrap_or(0), &job, Some(sink));
        println!(
            "fingerprint {:016x}, {} steps",
            outcome.fingerprint, outcome.steps
        );
        return verdict(outcome.violation.is_some(), args);
    }
    let (from, to) = args.seed.map_or(args.seeds, |seed| (seed, seed + 1));
    let sum = seeds::run_seeds(from, to, &job, args.threads, args.plant.is_some());
    seeds::report(from, to, &sum, args);
    if let Some((seed, what)) = &sum.worst {
        println!("seed {seed}: {what}");
        if args.plant.is_none() {
            seeds::print_the_end(*seed, &job);
        }
    }
    verdict(sum.worst.is_some(), args)
}

/// Clean seeds are a success; with a plant, a finding is.
fn verdict(found: bool, args: &Args) -> ExitCode {
    match found == args.plant.is_some() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
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
