//! Seeds, and stories.

use super::super::random::Span;
use super::faults::Fault;
use super::machine::Stop;
use super::plants::Plants;
use super::*;

#[test]
fn a_calm_fleet_joins_beats_and_expires_nobody() {
    let outcome = Fleet::new(1, Profile::calm(), Plants::NONE, false).run(20_000_000);
    assert_eq!(outcome.violation, None);
    assert_eq!((outcome.expired, outcome.promises > 100), (0, true));
}

#[test]
fn drawn_fleets_break_no_promise() {
    for seed in SEEDS {
        let outcome = Fleet::drawn(seed, Plants::NONE, false).run(RUN_US);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || Fleet::drawn(3, Plants::NONE, false).run(RUN_US);
    let (one, other) = (run(), run());
    assert_eq!(one.fingerprint, other.fingerprint);
    assert_eq!((one.steps, one.committed), (other.steps, other.committed));
}

/// Seeds that have found a fault: they are clean, and not without the line that mended it.
fn finds(seed: u64, plant: &str) {
    let run = |plants| Fleet::drawn(seed, plants, false).run(60_000_000).violation;
    assert_eq!(run(Plants::NONE), None);
    assert!(run(Plants::named(plant).unwrap()).is_some());
}

/// A session moved to a server whose state was then replaced: its next run gave the session its
/// timeout and not what the owner before could still promise.
#[test]
fn a_new_run_waits_for_what_was_promised_before_a_move_to_the_last_one() {
    finds(2519, "adopts-without-grace");
}

/// A calm fleet with an elected leader, whose clients speak to followers only.
fn at_followers(seed: u64, profile: Profile) -> (Fleet, usize, Vec<usize>) {
    let mut fleet = Fleet::new(seed, profile, Plants::NONE, false);
    fleet.begin();
    fleet.run_for(900_000);
    let waits = |fleet: &Fleet| !fleet.machines.iter().any(|machine| machine.leads());
    while waits(&fleet) {
        fleet.run_for(1_000);
    }
    let (leader, followers) = fleet.roles();
    fleet.stage.profile.haunts = followers.clone();
    for client in &mut fleet.clients {
        client.hop(&mut fleet.stage);
    }
    fleet.run_for(6_000_000);
    assert!(fleet.clients.iter().all(|client| client.session.is_some()));
    (fleet, leader, followers)
}

/// Seven seconds, to within a millisecond.
const LONG: Span = Span::new(7_000_000, 7_001_000);

#[test]
fn beats_at_the_wrong_server_cost_no_log_and_no_word_to_the_leader() {
    let profile = Profile {
        wanderers: 1_000_000,
        chores: 0,
        ..Profile::calm()
    };
    for seed in 0..10 {
        let (mut fleet, leader, _) = at_followers(seed, profile.clone());
        let before = fleet.stage.judge.work;
        let promises = fleet.stage.judge.promises.made;
        // Too few beats to settle down in.
        fleet.run_for(3_000_000);
        let work = fleet.stage.judge.work;
        assert_eq!(work.was_beats_alone(&before, leader), Ok(()), "seed {seed}");
        assert!(work.forwards != before.forwards, "some were sent on");
        assert!(fleet.stage.judge.promises.made > promises + 6);
        assert_eq!(fleet.stage.judge.violation(), None);
    }
}

/// Scenario 42: ZooKeeper expired 50 of 50 sessions here.
#[test]
fn a_leader_that_is_paused_expires_no_session_at_its_followers() {
    for seed in 0..10 {
        let (mut fleet, leader, _) = at_followers(seed, Profile::calm());
        fleet.inflict(leader, Fault::Pause, LONG);
        fleet.run_for(20_000_000);
        let outcome = fleet.outcome();
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert_eq!(outcome.expired, 0, "seed {seed}");
    }
}

/// Scenario 38: ZooKeeper answered until four seconds after it had expired them.
#[test]
fn a_follower_that_is_cut_off_stops_promising_before_its_sessions_expire() {
    for seed in 0..10 {
        let (mut fleet, _, followers) = at_followers(seed, Profile::calm());
        fleet.stage.profile.haunts = vec![followers[0]];
        for client in &mut fleet.clients {
            client.hop(&mut fleet.stage);
        }
        // Everybody settles there.
        fleet.run_for(15_000_000);
        let cut = Fault::Cut {
            inward: true,
            outward: true,
        };
        fleet.inflict(followers[0], cut, Span::new(30_000_000, 30_001_000));
        fleet.run_for(25_000_000);
        let expired = fleet.stage.judge.ghost.expired;
        assert_eq!(expired, fleet.clients.len() as u64, "seed {seed}");
        fleet.recover();
        assert_eq!(fleet.outcome().violation, None, "seed {seed}");
    }
}

/// Scenario 60.
#[test]
fn after_a_stop_of_all_servers_nobody_expires_who_beats_again() {
    for seed in 0..10 {
        let (mut fleet, leader, followers) = at_followers(seed, Profile::calm());
        let down = Span::new(12_000_000, 13_000_000);
        for at in followers.into_iter().chain([leader]) {
            fleet.stop(at, Stop::PowerLost, down);
        }
        fleet.run_for(40_000_000);
        let outcome = fleet.outcome();
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert_eq!(outcome.expired, 0, "seed {seed}");
    }
}

/// A few: thousands are the business of the program.
const SEEDS: std::ops::Range<u64> = 0..10;
/// How long faults strike, µs.
const RUN_US: u64 = 30_000_000;
