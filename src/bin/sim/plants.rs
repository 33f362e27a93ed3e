//! Tries planted faults, each of which must be found: by the scenarios it is a guard of, or by a
//! seed of the random world.

use std::process::{Command, ExitCode};

use systole::sim::plants::Planted;
use systole::sim::script::Neglect;

use super::{Args, tell};

/// The names of all plants: of the core, of the world's host, of the scripts' host.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    Planted::names().chain(Neglect::ALL.iter().map(|neglect| neglect.name()))
}

/// Tries one after the other.
pub(super) fn try_all(args: &Args) -> ExitCode {
    let missed: Vec<&str> = names().filter(|name| !is_found(name, args)).collect();
    if missed.is_empty() {
        println!("{} plants, all found", names().count());
        return ExitCode::SUCCESS;
    }
    println!("not found: {}", missed.join(", "));
    ExitCode::FAILURE
}

/// Tries one.
pub(super) fn try_one(name: &str, args: &Args) -> ExitCode {
    if is_found(name, args) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Looks for a plant and prints how it was found, if it was.
fn is_found(name: &str, args: &Args) -> bool {
    let guarded = tell::guarded_by(name);
    let failed: Vec<&str> = guarded
        .map(|scenario| scenario.name)
        .filter(|scenario| run(&["--plant", name, "--scenario", scenario]).is_some())
        .collect();
    let seed = if Planted::named(name).is_some() {
        by_seeds(name, args)
    } else {
        None
    };
    let scenarios = match failed.as_slice() {
        [] => "no scenario".to_owned(),
        failed => format!("scenario {}", failed.join(", ")),
    };
    let (from, to) = args.seeds;
    let none = format!("no seed of {from}..{to}");
    println!("{name}: {scenarios}; {}", seed.as_deref().unwrap_or(&none));
    !failed.is_empty() || seed.is_some()
}

fn by_seeds(name: &str, args: &Args) -> Option<String> {
    let seeds = format!("{}..{}", args.seeds.0, args.seeds.1);
    let (steps, threads) = (args.steps.to_string(), args.threads.to_string());
    let servers = args.servers.map(|servers| servers.to_string());
    let mut words = vec!["--planted-seeds", "--plant", name, "--seeds", &seeds];
    words.extend(["--steps", &steps, "--threads", &threads]);
    if let Some(servers) = &servers {
        words.extend(["--servers", servers]);
    }
    run(&words)
}

/// Runs this program in a process of its own, for some faults are found by an assertion, which
/// ends it; the line that tells of the finding, if there was one.
fn run(words: &[&str]) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new(program).args(words).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let told = text.lines().rfind(|line| line.starts_with("seed "));
    let found = output.status.success() || output.status.code().is_none();
    found.then(|| told.unwrap_or("an assertion").to_owned())
}
