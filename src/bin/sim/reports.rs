//! What is explored and measured beside the random world.

use std::process::ExitCode;

use systole::sim::failover::{self, Fall};
use systole::sim::model::{self, Bounds};
use systole::zab::Plants;

/// Explores small ensembles within several budgets; a violation is told with its way.
pub(super) fn explore_all(states_max: u64) -> ExitCode {
    let mut sound = true;
    println!("transactions crashes restarts resets begin    states     steps  depth");
    for (transactions, crashes, restarts, resets, from_nothing) in MODELS {
        let bounds = Bounds {
            servers: 3,
            transactions,
            crashes,
            restarts,
            resets,
            from_nothing,
            plants: Plants::NONE,
        };
        let explored = model::explore(bounds, states_max);
        println!(
            "{transactions:12} {crashes:7} {restarts:8} {resets:6} {:5} {:9} {:9} {:6}{}",
            if from_nothing { "empty" } else { "led" },
            explored.states,
            explored.steps,
            explored.depth,
            if explored.states < states_max {
                ""
            } else {
                "  not all"
            },
        );
        if let Some((way, what)) = explored.violation {
            sound = false;
            println!("{what}, by this way: {}", way.join(", "));
        }
    }
    verdict_of(sound)
}

/// Transactions, crashes, restarts, resets, and whether disks are empty at the beginning.
const MODELS: [(u32, u32, u32, u32, bool); 8] = [
    (3, 1, 0, 0, false),
    (2, 1, 0, 1, false),
    (3, 0, 0, 1, false),
    (1, 2, 0, 1, false),
    (3, 0, 0, 0, true),
    (1, 1, 0, 0, true),
    (1, 1, 1, 0, false),
    (1, 0, 0, 1, true),
];

/// Prints how long changes of leader take, in simulated milliseconds.
pub(super) fn measure_falls(seeds: u64) -> ExitCode {
    let mut sound = true;
    println!(
        "servers  leader   in flight  followers that hold them     p50     p90     p99     max"
    );
    for (voters, killed, everywhere, in_flight) in falls() {
        let fall = Fall {
            voters,
            in_flight,
            everywhere,
            killed,
        };
        // The largest take longest, and vary least.
        let seeds = if in_flight >= 10_000 {
            seeds.div_ceil(10)
        } else {
            seeds
        };
        let mut times = Vec::new();
        for seed in 0..seeds {
            match failover::measure(fall, seed) {
                Ok(time_us) => times.push(time_us),
                Err(what) => {
                    sound = false;
                    println!("{fall:?}, seed {seed}: {what}");
                }
            }
        }
        times.sort_unstable();
        let at = |share: usize| {
            let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
            times
                .get(index)
                .map_or(0.0, |&time_us| time_us as f64 / 1_000.0)
        };
        println!(
            "{voters:7}  {}  {in_flight:9}  {:24}  {:6.1}  {:6.1}  {:6.1}  {:6.1}",
            if killed { "killed " } else { "stopped" },
            if everywhere {
                "all"
            } else {
                "as few as may be"
            },
            at(50),
            at(90),
            at(99),
            at(100),
        );
    }
    verdict_of(sound)
}

fn falls() -> impl Iterator<Item = (usize, bool, bool, u64)> {
    let counts = [0, 100, 1_000, 10_000, 100_000];
    [(3, true), (3, false), (5, true), (5, false)]
        .into_iter()
        .flat_map(move |(voters, killed)| {
            [true, false].into_iter().flat_map(move |everywhere| {
                counts
                    .into_iter()
                    .map(move |count| (voters, killed, everywhere, count))
            })
        })
}

fn verdict_of(sound: bool) -> ExitCode {
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
