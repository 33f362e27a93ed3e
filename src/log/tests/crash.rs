//! Loss of power at every write and sync, in recovery too.

use super::world::{Promises, Random, User};
use crate::sim::disk::{Plan, SimDisk};

/// Steps of the life that is crashed everywhere.
const STEPS: u64 = 60;
/// Steps of the lives after it.
const STEPS_AFTER: u64 = 12;

/// Works until done or until power is lost.
fn life(disk: &SimDisk, seed: u64, steps: u64, promises: &mut Promises) {
    let mut random = Random(seed);
    let lived =
        User::open(disk, promises).and_then(|mut user| user.work(steps, &mut random, promises));
    if let Err(stopped) = lived {
        assert!(
            disk.crashed(),
            "seed {seed}: stopped without a crash: {}",
            stopped.0
        );
    }
}

fn plan(crash_at: Option<u64>) -> Plan {
    Plan {
        crash_at,
        ..Plan::default()
    }
}

/// Crashes one life at `event`, then recovers, crashing there too a few times at random.
fn crash_at(seed: u64, event: u64) -> u64 {
    let mut points = 1;
    let mut promises = Promises::default();
    let mut disk = SimDisk::new(seed ^ (event << 20), plan(Some(event)));
    life(&disk, seed, STEPS, &mut promises);
    let mut random = Random(seed ^ event);
    for _ in 0..random.below(3) {
        disk = disk.power_cycle(plan(Some(random.below(12))));
        life(&disk, random.next(), STEPS_AFTER, &mut promises);
        points += u64::from(disk.crashed());
    }
    disk = disk.power_cycle(Plan::default());
    life(&disk, random.next(), STEPS_AFTER, &mut promises);
    // The last life ended without a crash: even so, only what was synced is sure to be there.
    disk = disk.power_cycle(Plan::default());
    life(&disk, random.next(), STEPS_AFTER, &mut promises);
    points
}

/// Crashes at every event of the lives of these seeds; how many crashes that was.
fn campaign(seeds: std::ops::Range<u64>) -> u64 {
    let mut points = 0;
    for seed in seeds {
        let disk = SimDisk::new(seed, Plan::default());
        life(&disk, seed, STEPS, &mut Promises::default());
        for event in 0..disk.events() {
            points += crash_at(seed, event);
        }
    }
    points
}

#[test]
fn what_was_durable_survives_a_crash_at_every_write_and_sync() {
    let points = campaign(0..60);
    assert!(points >= 20_000, "only {points} crash points");
}
