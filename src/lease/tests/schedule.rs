//! No schedule breaks the promise, and without any one line some schedule does.

use super::world::World;
use super::*;

#[test]
fn no_session_ends_before_its_timeout_has_passed_since_the_last_promise() {
    let (mut promises, mut expired) = (0, 0);
    for seed in 0..SEEDS {
        let world = World::new(seed, Plants::NONE).run();
        let world = world.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        promises += world.promises;
        expired += u64::from(world.expired);
    }
    assert!(promises > SEEDS * 10, "only {promises} promises were made");
    assert!(expired > SEEDS / 10, "only {expired} sessions expired");
}

#[test]
fn every_planted_fault_breaks_the_promise() {
    for plant in Plant::ALL {
        let broken = |seed| World::new(seed, Plants::only(*plant)).run().err();
        let found = (0..10 * SEEDS).find(|seed| broken(*seed).is_some());
        assert!(found.is_some(), "{} was not found", plant.name());
    }
}

const SEEDS: u64 = 100;
