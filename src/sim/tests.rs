//! The simulator itself: it repeats itself exactly, it is quiet when all is well, and it finds
//! what is planted.

use super::plants::{Planted, defends};
use super::profile::Profile;
use super::random::Random;
use super::run::{Options, run};
use super::stories::play;
use super::world::{Outcome, World};
use crate::zab::Plant;

fn short(seed: u64, steps: u64, plant: Option<&str>) -> Outcome {
    let planted = plant.map_or_else(Planted::default, |name| {
        Planted::named(name).expect("the test names a plant that is there")
    });
    let options = Options {
        servers: None,
        steps,
        planted,
    };
    run(seed, &options, None)
}

#[test]
fn the_same_seed_gives_the_same_fingerprint_and_another_gives_another() {
    for seed in [1, 2, 3] {
        let (first, again) = (short(seed, 4_000, None), short(seed, 4_000, None));
        assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
        assert_eq!(first.steps, again.steps, "seed {seed}");
    }
    let (one, other) = (short(1, 4_000, None), short(2, 4_000, None));
    assert_ne!(one.fingerprint, other.fingerprint);
}

#[test]
fn a_trace_changes_nothing_and_shows_the_messages() {
    use std::sync::{Arc, Mutex};
    let lines = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&lines);
    let sink = Box::new(move |line: std::fmt::Arguments<'_>| {
        taken.lock().unwrap().push(line.to_string());
    });
    let options = Options {
        steps: 3_000,
        ..Options::default()
    };
    let traced = run(4, &options, Some(sink));
    assert_eq!(traced.fingerprint, run(4, &options, None).fingerprint);
    let lines = lines.lock().unwrap();
    for part in ["Vote Looking", "AckNewLeader", "Durable", "Healed"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}");
    }
}

#[test]
fn a_range_of_seeds_is_clean() {
    for seed in 0..20 {
        let outcome = short(seed, 6_000, None);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.committed > 0, "seed {seed}");
    }
}

/// A bit of the leader's log was flipped where its snapshot covers it, and a learner was sent
/// for ever what could not be read.
#[test]
fn a_learner_is_sent_a_snapshot_where_the_log_cannot_be_read() {
    let outcome = run(9_421, &Options::default(), None);
    assert_eq!(outcome.violation, None);
}

/// A follower on a slow disk that may be sent one transaction at a time is nine thousand behind.
#[test]
fn a_follower_that_can_only_be_slow_has_the_time_it_needs() {
    let outcome = run(8_504, &Options::default(), None);
    assert_eq!(outcome.violation, None);
    assert!(outcome.recovery_us > 60_000_000, "{}", outcome.recovery_us);
}

#[test]
fn a_calm_world_commits_everything_and_agrees() {
    let mut world = World::new(5, Profile::calm(3, 1), Planted::default(), None);
    world.begin();
    world.run_for(10_000_000);
    world.stage.profile.burst_max = 0;
    world.run_for(2_000_000);
    assert_eq!(world.stage.judge.violation(), None);
    assert!(world.agrees(), "{}", world.describe());
    assert!(world.stage.judge.oracle.committed() > 1_000);
}

#[test]
fn what_is_planted_is_found() {
    for name in [
        "ack-before-durable",
        "history-not-durable",
        "epoch-before-history",
        "established-by-one",
        "delivers-uncommitted",
        "keeps-suffix",
        "host-reports-before-sync",
        "host-delivers-twice",
        "host-forgets-failure",
        "host-snapshots-late",
    ] {
        let found = (0..100).find(|&seed| short(seed, 10_000, Some(name)).violation.is_some());
        assert!(found.is_some(), "{name}");
    }
}

#[test]
fn the_rules_of_links_find_what_no_safety_property_does() {
    for (name, seed, rule) in [
        ("sends-unbounded", 2, "may leave"),
        ("host-same-nonce", 0, "introduces itself"),
    ] {
        let violation = short(seed, 200_000, Some(name)).violation.unwrap();
        assert!(violation.what.contains(rule), "{name}: {violation}");
    }
}

#[test]
fn a_story_finds_what_it_was_made_for() {
    for (story, name) in [
        ("22-epochs-that-nobody-shares", "observers-hear-early"),
        ("22-epochs-that-nobody-shares", "ignores-newer-epoch"),
        ("22-a-voter-many-epochs-ahead", "epoch-of-own"),
        ("29-snapshot-longer-than-the-limit", "progress-is-nothing"),
        ("07-a-pong-comes-as-an-ack", "commits-before-established"),
        ("08-a-report-comes-after-the-cut", "stale-disk-report"),
        ("10-told-to-cut-what-is-committed", "forgets-committed"),
        ("10-the-summary-of-another-history", "snaps-back"),
        ("22-led-into-an-older-epoch", "follows-lower-epoch"),
        ("26-a-slow-read-for-a-learner", "host-blocks-on-read"),
    ] {
        let planted = Planted::named(name).unwrap();
        let outcome = play(story, 0, planted, None).unwrap();
        assert!(outcome.violation.is_some(), "{story} with {name}");
    }
}

#[test]
fn a_defence_never_decides_anything_where_nobody_lies() {
    for plant in Plant::ALL
        .iter()
        .filter(|plant| defends(plant.name()).is_some())
    {
        for seed in 0..10 {
            let sound = short(seed, 6_000, None);
            let without = short(seed, 6_000, Some(plant.name()));
            let name = plant.name();
            assert_eq!(
                sound.fingerprint, without.fingerprint,
                "{name}, seed {seed}"
            );
        }
    }
}

#[test]
fn seeds_draw_worlds_of_every_size() {
    let mut sizes = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let profile = Profile::drawn(&mut Random::new(seed), None);
        sizes.insert((profile.voters, profile.observers > 0));
    }
    for voters in [3, 5, 7] {
        assert!(sizes.contains(&(voters, false)), "{voters} servers");
    }
    assert!(sizes.iter().any(|&(_, observed)| observed));
}
