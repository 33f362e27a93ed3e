//! Tries planted faults, each of which must be found: by a seed of the random world or of a story,
//! and by the scenarios it is a guard of.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::Signal;
use systole::sim::plants::{self, Planted};
use systole::sim::script::Neglect;
use systole::sim::stories;

use super::{Args, tell};

/// The names of all plants: of the core, of the world's host, of the scripts' host.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    Planted::names().chain(Neglect::ALL.iter().map(|neglect| neglect.name()))
}

/// Tries one after the other.
pub(super) fn try_all(args: &Args) -> ExitCode {
    let missed: Vec<&str> = names().filter(|name| !is_found(name, args)).collect();
    if missed.is_empty() {
        let defences = names().filter(|name| plants::defends(name).is_some());
        let (count, defences) = (names().count(), defences.count());
        println!("{count} plants, all found; {defences} of them are defences, by lies alone");
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

/// Looks for a plant and prints how it was found, if it was. One of the world must be found by a
/// seed, of the random world or of a story; one of the scripts' host by a scenario, and it is found
/// by a seed under the name it has in the world's host.
fn is_found(name: &str, args: &Args) -> bool {
    let guarded = tell::guarded_by(name);
    let failed: Vec<&str> = guarded
        .map(|scenario| scenario.name)
        .filter(|scenario| run(&["--plant", name, "--scenario", scenario]).is_some())
        .collect();
    let scenarios = match failed.as_slice() {
        [] => "no scenario".to_owned(),
        failed => format!("scenario {}", failed.join(", ")),
    };
    if Planted::named(name).is_none() {
        let in_world = plants::in_world(name);
        let twin = in_world.map_or_else(String::new, |twin| format!("; in the world {twin}"));
        println!("{name}: {scenarios}{twin}");
        return !failed.is_empty() && in_world.is_some();
    }
    let defends = plants::defends(name);
    let (from, to) = args.seeds;
    let soon = to.min(from + SOON);
    // The cheapest first. That a defence decides nothing in the random world has other proofs
    // than many seeds.
    let mut seed = by_seeds(name, args, (from, soon), None);
    seed = seed.or_else(|| by_stories(name, args, (from, soon)));
    if soon < to && defends.is_none() {
        seed = seed.or_else(|| by_seeds(name, args, (soon, to), None));
    }
    let tried = if defends.is_some() { soon } else { to };
    let none = format!("no seed of {from}..{tried}");
    let told = seed.as_deref().unwrap_or(&none);
    let why = defends.map_or_else(String::new, |why| format!("; defence in depth: {why}"));
    println!("{name}: {scenarios}; {told}{why}");
    seed.is_some()
}

fn by_stories(name: &str, args: &Args, seeds: (u64, u64)) -> Option<String> {
    stories::all().find_map(|story| {
        let seed = by_seeds(name, args, seeds, Some(story.name))?;
        Some(format!("story {}, {seed}", story.name))
    })
}

fn by_seeds(name: &str, args: &Args, seeds: (u64, u64), story: Option<&str>) -> Option<String> {
    let seeds = format!("{}..{}", seeds.0, seeds.1);
    let (steps, threads) = (args.steps.to_string(), args.threads.to_string());
    let servers = args.servers.map(|servers| servers.to_string());
    let mut words = vec!["--planted-seeds", "--plant", name, "--seeds", &seeds];
    words.extend(["--steps", &steps, "--threads", &threads]);
    if let Some(servers) = &servers {
        words.extend(["--servers", servers]);
    }
    if let Some(story) = story {
        words.extend(["--scenario", story]);
    }
    run(&words)
}

/// Runs this program in a process of its own, for some faults are found by an assertion, which
/// ends it; the line that tells of the finding, if there was one.
pub(super) fn run(words: &[&str]) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new(program).args(words).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let found = finding(output.status, &text);
    if found.is_none() && output.status.code().is_none() {
        println!(
            "{}: {}, which shows nothing",
            words.join(" "),
            output.status
        );
    }
    found
}

/// What a run that ended so has found, in a line. Of those that a signal ended, only one that
/// ended itself because an assertion did not hold has found anything: another signal came from
/// elsewhere, and an abort without such a line is a stack or a memory that was not enough.
fn finding(status: ExitStatus, text: &str) -> Option<String> {
    if status.success() {
        let told = text.lines().rfind(|line| line.starts_with("seed "));
        return Some(told.unwrap_or_default().to_owned());
    }
    let aborted = status.signal() == Some(Signal::ABORT.as_raw());
    let mut lines = text.lines();
    let at = lines.find(|line| aborted && line.contains("panicked at "))?;
    let why = lines.next().unwrap_or_default();
    Some(format!("{at} {why}"))
}

/// How many seeds of the world are tried before the stories, and how often each of them is told.
const SOON: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: &str =
        "seed 3: panicked at src/zab/core.rs:1:2:\nthe counter wraps\nnote: no trace\n";

    fn ended_by(signal: Signal) -> ExitStatus {
        ExitStatus::from_raw(signal.as_raw())
    }

    #[test]
    fn a_success_has_found_what_it_tells() {
        let told = finding(ExitStatus::from_raw(0), "seed 1: Z1\nseed 1: Z1 again\n");
        assert_eq!(told.as_deref(), Some("seed 1: Z1 again"));
    }

    #[test]
    fn a_failure_has_found_nothing() {
        assert_eq!(finding(ExitStatus::from_raw(1 << 8), PANIC), None);
    }

    #[test]
    fn an_assertion_that_does_not_hold_is_a_finding_with_its_message() {
        let told = finding(ended_by(Signal::ABORT), PANIC);
        let line = "seed 3: panicked at src/zab/core.rs:1:2: the counter wraps";
        assert_eq!(told.as_deref(), Some(line));
    }

    #[test]
    fn an_abort_that_names_no_assertion_is_none() {
        let text = "thread has overflowed its stack\n";
        assert_eq!(finding(ended_by(Signal::ABORT), text), None);
    }

    #[test]
    fn a_signal_from_elsewhere_is_none_whatever_was_told() {
        for signal in [Signal::KILL, Signal::TERM, Signal::SEGV] {
            assert_eq!(finding(ended_by(signal), PANIC), None);
        }
    }
}
