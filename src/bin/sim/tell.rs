//! Tells scenarios: those of a fixed script, and those whose times a seed draws.

use std::process::ExitCode;

use systole::sim::fleet::stories::{self as sessions, Story};
use systole::sim::plants::Planted;
use systole::sim::scenarios::{self, Faults, Guard, Scenario};
use systole::sim::script::Neglect;
use systole::sim::stories;
use systole::zab::{Plant, Plants};

use super::{Args, run_seeds, verdict};

/// The names of all scenarios.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let scripted = scenarios::ALL.iter().map(|scenario| scenario.name);
    let of_sessions = sessions::ALL.iter().map(|story| story.name);
    let scripted = scripted.chain(of_sessions);
    scripted.chain(stories::all().map(|story| story.name))
}

/// True for those of a fixed script.
pub(super) fn is_scripted(name: &str) -> bool {
    Scenario::named(name).is_some()
}

/// Prints what there is.
pub(super) fn list() -> ExitCode {
    for scenario in scenarios::ALL {
        println!(
            "{:02} {}: {}",
            scenario.number, scenario.name, scenario.story
        );
        let guards: Vec<&str> = scenario.guards.iter().map(|guard| guard.name()).collect();
        println!("   fails with {}", guards.join(", "));
    }
    println!("of whole servers, with --session-plant:");
    for story in sessions::ALL {
        println!("{:02} {}: {}", story.number, story.name, story.story);
        let guards: Vec<&str> = story.guards.iter().map(|guard| guard.name()).collect();
        println!("   fails with {}", guards.join(", "));
    }
    println!("with times drawn by the seed:");
    for story in stories::all() {
        println!("{}: {}", story.name, story.about);
    }
    ExitCode::SUCCESS
}

/// Tells one of a fixed script.
pub(super) fn scripted(name: &str, args: &Args) -> ExitCode {
    let Some(scenario) = Scenario::named(name) else {
        return ExitCode::from(2);
    };
    let faults = args
        .plant
        .as_deref()
        .and_then(faults_of)
        .unwrap_or_default();
    let told = scenario.run(faults);
    match &told {
        Ok(()) => println!("{name}: ends as it must"),
        Err(what) => println!("{name}: {what}"),
    }
    verdict(told.is_err(), args)
}

/// True for those of whole servers.
pub(super) fn is_of_sessions(name: &str) -> bool {
    Story::named(name).is_some()
}

/// Tells one of whole servers. With a plant it must fail.
pub(super) fn of_sessions(name: &str, args: &Args) -> ExitCode {
    let plant = args.session_plant.as_deref();
    let guard = plant.and_then(sessions::Guard::named);
    let (Some(story), true) = (Story::named(name), plant.is_some() == guard.is_some()) else {
        eprintln!("there is no such plant; --list-scenarios names them");
        return ExitCode::from(2);
    };
    let told = story.run(guard.map(sessions::Faults::from).unwrap_or_default());
    match &told {
        Ok(()) => println!("{name}: ends as it must"),
        Err(what) => println!("{name}: {what}"),
    }
    match told.is_err() == guard.is_some() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Tells all of them.
pub(super) fn all(args: &Args) -> ExitCode {
    let mut sound = true;
    for scenario in scenarios::ALL {
        sound &= scripted(scenario.name, args) == ExitCode::SUCCESS;
    }
    for story in sessions::ALL {
        sound &= of_sessions(story.name, args) == ExitCode::SUCCESS;
    }
    for story in stories::all() {
        let args = Args {
            scenario: Some(story.name.to_owned()),
            ..args.clone()
        };
        println!("{}", story.name);
        sound &= run_seeds(&args) == ExitCode::SUCCESS;
    }
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The scenarios that must fail with this plant.
pub(super) fn guarded_by(plant: &str) -> impl Iterator<Item = &'static Scenario> {
    let name = Planted::in_scripts(plant).map_or(plant, |neglect| neglect.name());
    scenarios::ALL
        .iter()
        .filter(move |scenario| scenario.guards.iter().any(|guard| guard.name() == name))
}

/// What a plant takes away from a script; `None` if it is one of the random world alone.
fn faults_of(plant: &str) -> Option<Faults> {
    let core = Plant::named(plant);
    let script = Neglect::ALL.iter().find(|known| known.name() == plant);
    let host = script.copied().or_else(|| Planted::in_scripts(plant));
    let core = core.map(|plant| Faults::from(Plants::only(plant)));
    core.or(host.map(|neglect| Faults::from(Guard::Host(neglect))))
}
