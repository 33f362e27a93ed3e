//! Every scenario ends well, and none does without one of the guards it names.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use systole::sim::scenarios::{ALL, Faults, Scenario};
use systole::sim::script::Neglect;
use systole::zab::Plant;

#[test]
fn every_scenario_ends_well() {
    let mut failed = Vec::new();
    for scenario in ALL {
        let told = catch_unwind(AssertUnwindSafe(|| scenario.run(Faults::default())));
        match told {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => failed.push(format!("{}: {reason}", scenario.name)),
            Err(_) => failed.push(format!("{} panics", scenario.name)),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

fn survives(scenario: &Scenario, faults: impl Into<Faults>) -> bool {
    let faults = faults.into();
    catch_unwind(AssertUnwindSafe(|| scenario.run(faults))).is_ok_and(|told| told.is_ok())
}

#[test]
fn no_scenario_ends_well_without_one_of_its_guards() {
    for scenario in ALL {
        assert!(!scenario.guards.is_empty(), "{}", scenario.name);
    }
    let guards = ALL
        .iter()
        .flat_map(|scenario| scenario.guards.iter().map(move |&guard| (scenario, guard)));
    let idle: Vec<String> = guards
        .filter(|&(scenario, guard)| survives(scenario, guard))
        .map(|(scenario, guard)| format!("{} without {}", scenario.name, guard.name()))
        .collect();
    assert!(idle.is_empty(), "{idle:#?}");
}

#[test]
fn the_scenarios_are_in_order_and_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    let mut before = 0;
    for scenario in ALL {
        assert!(scenario.number >= before, "{}", scenario.name);
        before = scenario.number;
        assert!(names.insert(scenario.name), "{} twice", scenario.name);
    }
    assert!(names.iter().all(|name| Scenario::named(name).is_some()));
}

#[test]
fn every_plant_and_every_neglect_ends_some_scenario_badly() {
    let guards: BTreeSet<&str> = ALL
        .iter()
        .flat_map(|scenario| scenario.guards.iter().map(|guard| guard.name()))
        .collect();
    let plants = Plant::ALL.iter().map(|plant| plant.name());
    let neglects = Neglect::ALL.iter().map(|neglect| neglect.name());
    for name in plants.chain(neglects) {
        assert!(guards.contains(name), "{name} is nowhere a guard");
    }
}
