//! Deadlines: who is expired when, and who is not.

use super::world::{Tune, World};
use crate::time::Millis;

/// Lets `ms` pass in turns of `gap`; `drained` as the loop would say.
fn turns(world: &mut World, ms: u64, gap: u64, drained: bool) {
    let until = world.now + Millis(ms);
    while world.now < until {
        world.now = world.now + Millis(gap);
        for shard in 0..world.shards.len() {
            world.ticks(shard, drained);
        }
        world.quiet();
    }
}

#[test]
fn a_silent_member_expires_a_tick_or_two_after_its_timeout() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=1");
    world.pass(1_000);
    assert!(world.is_active("g", "m"));
    world.pass(30);
    assert!(!world.is_active("g", "m"));
    world.assert_nothing_is_kept();
}

#[test]
fn a_session_joined_after_a_long_rest_of_the_shard_expires_in_time() {
    let mut world = World::new(1);
    world.now = world.now + Millis(3_600_000);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=1");
    world.drop_client(client);
    world.pass(1_050);
    assert!(!world.is_active("g", "m"), "the rest was no stall");
}

#[test]
fn a_session_dealt_after_a_long_recovery_has_one_timeout_from_the_opening_of_the_doors() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=1");
    let mut world = world.restart();
    world.now = world.now + Millis(600_000);
    world.start();
    world.pass(1_000);
    assert!(world.is_active("g", "m"), "S2 holds through the restart");
    world.pass(40);
    assert!(!world.is_active("g", "m"));
}

#[test]
fn a_stall_is_made_good_and_the_beats_queued_in_it_count() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=200ms");
    world.ask(client, "PUT /g/silent?timeout=200ms");
    world.write(client, "HEAD /g/m", "", b"");
    world.now = world.now + Millis(5_000);
    // The turn after the stall: the sockets are not drained yet.
    world.ticks(0, false);
    world.pump(client, usize::MAX);
    world.ticks(0, true);
    world.quiet();
    assert_eq!(world.last(client).status, 204);
    world.pass(150);
    assert!(world.is_active("g", "m"));
    world.pass(100);
    assert!(!world.is_active("g", "m") && !world.is_active("g", "silent"));
}

#[test]
fn a_stall_moves_deadlines_by_its_length_and_no_more() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=1");
    world.now = world.now + Millis(5_000);
    world.ticks(0, false);
    world.ticks(0, true);
    world.pass(1_040);
    assert!(!world.is_active("g", "m"));
}

#[test]
fn sockets_that_are_never_drained_hold_the_wheel_two_seconds_after_a_stall() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=100ms");
    world.now = world.now + Millis(500);
    world.ticks(0, false);
    turns(&mut world, 1_900, 10, false);
    assert!(world.is_active("g", "m"));
    turns(&mut world, 300, 10, false);
    assert!(!world.is_active("g", "m"));
}

#[test]
fn a_shard_that_is_always_late_expires_its_sessions_all_the_same() {
    for (gap, drained) in [(60, true), (60, false), (200, true), (200, false)] {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.ask(client, "PUT /g/m?timeout=500ms");
        turns(&mut world, 2_000 + 600 * gap / 50, gap, drained);
        assert!(!world.is_active("g", "m"), "{gap} ms, drained: {drained}");
    }
}

#[test]
fn one_who_waits_to_be_the_first_does_not_keep_the_ghost_alive() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=500ms");
    let first = "if-none-match: *\r\n";
    for _ in 0..5 {
        world.pass(90);
        let refused = world.ask_with(client, "PUT /g/m", first, b"");
        assert_eq!(refused.status, 412);
    }
    world.pass(90);
    let joined = world.ask_with(client, "PUT /g/m?timeout=500ms", first, b"");
    assert_eq!(joined.status, 201, "the ghost has expired");
}

#[test]
fn a_beat_for_a_closing_session_waits_and_is_never_promised_anything() {
    for (shards, status) in [(1, 404), (2, 404)] {
        let mut world = World::new(shards);
        let client = world.connect(usize::from(shards) - 1);
        let holder = world.connect(0);
        world.ask(holder, "PUT /g/m?timeout=100ms");
        for _ in 0..13 {
            world.now = world.now + Millis(10);
            world.ticks(0, true);
        }
        world.send(client, "HEAD /g/m");
        for _ in 0..3 {
            while world.shard_gets(1 % usize::from(shards), 0) {}
            while world.shard_gets(0, 1 % usize::from(shards)) {}
            world.now = world.now + Millis(10);
            (0..usize::from(shards)).for_each(|shard| world.ticks(shard, true));
        }
        assert!(world.statuses(client).is_empty(), "its fate is open");
        world.quiet();
        world.pass(20);
        assert_eq!(world.statuses(client), [status]);
        world.assert_nothing_is_kept();
    }
}

#[test]
fn a_packed_beat_for_a_closing_session_waits_for_its_end_too() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let id = world.ask(client, "PUT /g/m?timeout=100ms").session();
    for _ in 0..13 {
        world.now = world.now + Millis(10);
        world.ticks(0, true);
    }
    let packed = "content-type: application/octet-stream\r\n";
    let bytes = id.expect("a session").to_bytes();
    world.write(client, "POST /-/heartbeats", packed, &bytes);
    world.pump(client, usize::MAX);
    // The verdict comes while the expiry has still to be committed.
    let expiry = world.to_core[0].pop_front().expect("an expiry");
    while world.core_takes(0) {}
    world.shard_hears(0);
    assert_eq!(world.statuses(client).len(), 1, "only the join is answered");
    world.to_core[0].push_back(expiry);
    world.quiet();
    world.pass(20);
    assert!(world.last(client).text().contains("410"));
}

#[test]
fn an_expiry_that_the_core_is_too_busy_for_is_proposed_again() {
    let mut world = World::tuned(Tune {
        shards: 1,
        in_flight_max: 1,
        ..Tune::default()
    });
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=100ms");
    // A transaction that stays in flight leaves no room.
    world.send(client, "PUT /g/other/config");
    world.write(client, "PUT /g/x/config", "", b"x");
    world.pump(client, usize::MAX);
    while world.core_takes(0) {}
    for _ in 0..20 {
        world.now = world.now + Millis(10);
        world.ticks(0, true);
        while world.core_takes(0) {}
        while world.shard_hears(0) {}
    }
    assert!(world.is_active("g", "m"));
    world.quiet();
    world.pass(30);
    assert!(!world.is_active("g", "m"));
    world.assert_nothing_is_kept();
}

#[test]
fn a_restart_expires_nobody_who_still_beats() {
    let mut world = World::new(4);
    let client = world.connect(0);
    for member in 0..40 {
        world.write(client, &format!("PUT /g/m{member}?timeout=300ms"), "", b"");
    }
    world.quiet();
    let mut world = world.restart();
    world.now = world.now + Millis(10_000);
    world.start();
    let client = world.connect(3);
    for _ in 0..10 {
        world.pass(100);
        let body: String = (0..40).map(|member| format!("g/m{member}\n")).collect();
        let answer = world.ask_with(client, "POST /-/heartbeats", "", body.as_bytes());
        assert_eq!(answer.text(), "{\"failed\":[],\"renewed\":40}\n");
    }
    assert_eq!(world.shards[3].sessions(), 40, "all have settled");
}

#[test]
fn whoever_is_due_is_found_by_the_tick_at_the_wheels_phase() {
    for stall in [0, 53, 57] {
        let mut world = World::new(1);
        let client = world.connect(0);
        if stall > 0 {
            world.ask(client, "PUT /g/other?timeout=9");
            world.now = world.now + Millis(stall);
            world.ticks(0, true);
        }
        world.ask(client, "PUT /g/m?timeout=1");
        let tracker = &world.shards[0].tracker;
        let slot = tracker.find(b"g", b"m").expect("held");
        let deadline = tracker.view(slot).deadline;
        let phase = world.shards[0].tick_phase();
        assert_eq!(deadline.0 % 10, phase.0, "after a stall of {stall} ms");
        while world.now + Millis(27) <= deadline {
            world.pass(10);
        }
        world.pass(deadline.since(world.now).0 - 17);
        world.pass(10);
        world.now = deadline;
        world.ticks(0, true);
        world.quiet();
        assert!(!world.is_active("g", "m"), "though the last tick was late");
    }
}
