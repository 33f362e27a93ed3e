//! How a server is brought to its leader's history: what is sent, for each way they can differ.

use super::disk::Disk;
use super::peers::Peers;
use crate::time::Millis;
use crate::zab::{Body, Phase};

/// How the leader began, and how many transactions it sent before NewLeader.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Diff(usize),
    Trunc(usize),
    Snap(usize),
}

/// How `id` was brought up last.
fn way(world: &Peers, id: u32) -> Way {
    let said: Vec<&Body> = world
        .said()
        .filter(|(_, to, _)| *to == id)
        .map(|(_, _, body)| body)
        .collect();
    let is_plan = |body: &&Body| {
        matches!(
            body,
            Body::Diff { .. } | Body::Trunc { .. } | Body::Snap { .. }
        )
    };
    let begin = said.iter().rposition(is_plan).expect("it was brought up");
    let said = &said[begin..];
    let end = said
        .iter()
        .position(|body| matches!(body, Body::NewLeader { .. }));
    let said = &said[..end.expect("to the end")];
    let sent = said
        .iter()
        .filter(|body| matches!(body, Body::Proposal(_)))
        .count();
    match said[0] {
        Body::Trunc { .. } => Way::Trunc(sent),
        Body::Snap { .. } => Way::Snap(sent),
        _ => Way::Diff(sent),
    }
}

/// Three servers of which one is down, the leader, and the one that is down.
fn one_down(before: &[&str], missed: &[&str]) -> (Peers, u32, u32) {
    let mut world = Peers::running(3);
    let leader = world.leader();
    let down = world.others(leader)[0];
    world.propose_all(leader, before);
    world.run(500);
    world.crash(down);
    world.propose_all(leader, missed);
    (world, leader, down)
}

/// Three servers of which the former leader is down with a history nobody else has.
fn diverged(window: usize, lost: &[&str], since: &[&str]) -> (Peers, u32, u32) {
    let mut world = Peers::new(3);
    world.settings.limits.window_entries_max = window;
    world.start_all();
    world.run(3_000);
    let old = world.leader();
    world.propose_all(old, &["a", "b"]);
    for other in world.others(old) {
        world.hold(old, other);
    }
    world.propose_all(old, lost);
    world.crash(old);
    world.heal();
    world.run(3_000);
    let leader = world.leader();
    world.propose_all(leader, since);
    (world, leader, old)
}

fn assert_joined(world: &mut Peers, id: u32, by: &Way) {
    world.start(id);
    world.run(2_000);
    assert_eq!(way(world, id), *by);
    assert_eq!(world.phase(id), Phase::Following);
    let leader = world.leader();
    assert_eq!(world.texts(id), world.texts(leader));
    world.propose_all(leader, &["and on"]);
    assert_eq!(world.texts(id), world.texts(leader));
    assert_eq!(world.texts(id).last().unwrap(), "and on");
}

#[test]
fn both_histories_are_empty() {
    let (mut world, _, down) = one_down(&[], &[]);
    assert_joined(&mut world, down, &Way::Diff(0));
}

#[test]
fn nothing_was_missed() {
    let (mut world, _, down) = one_down(&["a", "b"], &[]);
    assert_joined(&mut world, down, &Way::Diff(0));
}

#[test]
fn everything_was_missed() {
    let (mut world, _, down) = one_down(&[], &["a", "b", "c"]);
    assert_joined(&mut world, down, &Way::Diff(3));
}

#[test]
fn the_end_was_missed() {
    let (mut world, _, down) = one_down(&["a"], &["b", "c"]);
    assert_joined(&mut world, down, &Way::Diff(2));
}

#[test]
fn what_memory_no_longer_holds_is_read_from_the_log() {
    let mut world = Peers::new(3);
    world.settings.limits.window_entries_max = 1;
    world.settings.limits.read_bytes_max = 2;
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    let down = world.others(leader)[0];
    world.crash(down);
    let texts: Vec<String> = (0..20).map(|text| text.to_string()).collect();
    for text in &texts {
        world.propose_all(leader, &[text]);
    }
    assert_joined(&mut world, down, &Way::Diff(20));
    assert_eq!(world.texts(down)[..20], texts);
}

#[test]
fn a_suffix_nobody_else_has_is_cut() {
    let (mut world, _, old) = diverged(100, &["lost", "too"], &[]);
    assert_joined(&mut world, old, &Way::Trunc(0));
    assert_eq!(world.logged(old), ["a", "b", "and on"]);
}

#[test]
fn a_suffix_is_cut_and_the_rest_follows() {
    // As long as, shorter and longer than what took its place: lengths decide nothing.
    for since in [&["c", "d"][..], &["c"], &["c", "d", "e"]] {
        let (mut world, _, old) = diverged(100, &["lost", "too"], since);
        assert_joined(&mut world, old, &Way::Trunc(since.len()));
        assert!(!world.logged(old).contains(&"lost".to_owned()));
    }
}

#[test]
fn a_suffix_is_cut_where_memory_no_longer_reaches() {
    let (mut world, _, old) = diverged(1, &["lost"], &["c", "d", "e", "f"]);
    assert_joined(&mut world, old, &Way::Trunc(4));
}

#[test]
fn a_server_that_the_log_no_longer_reaches_gets_a_snapshot() {
    let mut world = Peers::new(3);
    world.settings.limits.window_entries_max = 1;
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    let down = world.others(leader)[0];
    world.propose_all(leader, &["a"]);
    world.crash(down);
    world.propose_all(leader, &["b", "c", "d"]);
    world.snapshot(leader);
    world.propose_all(leader, &["e"]);
    assert_joined(&mut world, down, &Way::Snap(1));
    assert_eq!(world.disk(down).base, world.disk(leader).base);
    assert_eq!(world.logged(down), ["e", "and on"]);
}

#[test]
fn a_snapshot_replaces_a_history_nobody_else_has() {
    let (mut world, leader, old) = diverged(1, &["lost", "too"], &["c", "d", "e"]);
    world.snapshot(leader);
    world.propose_all(leader, &["f"]);
    assert_joined(&mut world, old, &Way::Snap(1));
    assert_eq!(world.texts(old), ["a", "b", "c", "d", "e", "f", "and on"]);
}

#[test]
fn a_server_joins_while_proposals_flow() {
    for steps in 0..40 {
        let (mut world, leader, down) = one_down(&["a"], &["b", "c"]);
        world.start(down);
        for text in ["d", "e", "f", "g"] {
            world.propose(leader, text).unwrap();
            world.steps(steps);
        }
        world.run(2_000);
        assert_eq!(
            world.texts(down),
            ["a", "b", "c", "d", "e", "f", "g"],
            "{steps}"
        );
        assert_eq!(world.logged(down), world.logged(leader));
    }
}

#[test]
fn an_observer_joins_while_proposals_flow() {
    for steps in 0..40 {
        let mut world = Peers::with(3, 1);
        for id in 1..=3 {
            world.start(id);
        }
        world.run(3_000);
        let leader = world.leader();
        world.propose_all(leader, &["a", "b"]);
        world.start(4);
        for text in ["c", "d", "e"] {
            world.propose(leader, text).unwrap();
            world.steps(steps);
        }
        world.run(2_000);
        assert_eq!(world.texts(4), ["a", "b", "c", "d", "e"], "{steps}");
        assert_eq!(world.phase(4), Phase::Observing);
    }
}

#[test]
fn a_voter_wiped_after_the_founding_waits_for_a_round_of_its_leader() {
    let mut world = Peers::running(3);
    assert_eq!(world.leader(), 3);
    world.crash(1);
    *world.disk_mut(1) = Disk::default();
    world.hold(2, 3);
    world.sent.clear();
    world.start(1);
    world.run(700);
    let informed = |world: &Peers| {
        let informs = |body: &Body| matches!(body, Body::LeaderInfo { .. });
        world.said().any(|(_, to, body)| to == 1 && informs(body))
    };
    assert_eq!(world.leader(), 3);
    assert!(!informed(&world), "2 has confirmed nothing since 1 came");
    world.release(2, 3);
    world.run(700);
    assert!(informed(&world));
    assert_eq!(world.phase(1), Phase::Following);
}

#[test]
fn an_observer_that_joins_is_sent_nothing_that_is_not_committed() {
    let mut world = Peers::with(3, 1);
    for id in 1..=3 {
        world.start(id);
    }
    world.run(3_000);
    assert_eq!(world.leader(), 3);
    world.propose_all(3, &["a"]);
    world.hold(1, 3);
    world.hold(2, 3);
    world.propose_all(3, &["b"]);
    world.start(4);
    world.run(300);
    assert_eq!(world.phase(4), Phase::Observing);
    assert_eq!(world.logged(4), ["a"]);
    world.heal();
    world.run(300);
    assert_eq!(world.texts(4), ["a", "b"]);
}

#[test]
fn an_observer_is_informed_from_the_log_of_what_memory_has_lost() {
    let mut world = Peers::with(3, 1);
    world.settings.limits.window_entries_max = 1;
    world.settings.limits.in_flight_max = 1;
    for id in 1..=3 {
        world.start(id);
    }
    world.run(3_000);
    let leader = world.leader();
    world.propose_all(leader, &["a"]);
    world.start(4);
    let told = |world: &Peers| {
        let tells = |body: &Body| matches!(body, Body::NewLeader { .. });
        world.said().any(|(_, to, body)| to == 4 && tells(body))
    };
    while !told(&world) {
        if world.steps(1) == 0 {
            world.run(10);
        }
    }
    world.hold(4, leader);
    for text in ["b", "c", "d", "e", "f"] {
        world.propose_all(leader, &[text]);
    }
    world.heal();
    world.run(3_000);
    assert_eq!(world.texts(4), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(
        world.machine(4).standings.len(),
        1,
        "without a second attempt"
    );
}

#[test]
fn a_server_is_brought_up_from_the_log_in_one_go_while_proposals_flow() {
    let mut world = Peers::new(3);
    world.settings.limits.window_entries_max = 1;
    world.settings.limits.in_flight_max = 1;
    world.settings.limits.read_bytes_max = 1;
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    let down = world.others(leader)[0];
    world.crash(down);
    for text in ["a", "b", "c", "d", "e", "f"] {
        world.propose_all(leader, &[text]);
    }
    world.start(down);
    for _ in 0..200 {
        world.steps(3);
        // It is refused while another is in flight.
        let _ = world.propose(leader, "more");
    }
    world.run(2_000);
    assert_eq!(world.texts(down), world.texts(leader));
    assert_eq!(world.machine(down).standings.len(), 1);
    let closes = world
        .said()
        .any(|(_, to, body)| to == down && *body == Body::Close);
    assert!(!closes, "one attempt was enough");
}

#[test]
fn a_leader_to_be_waits_as_long_as_a_snapshot_makes_progress() {
    let mut world = Peers::new(3);
    world.settings.limits.window_entries_max = 1;
    world.settings.limits.in_flight_max = 1;
    world.settings.limits.read_bytes_max = 16;
    world.settings.timing.disk_limit = world.settings.timing.init_limit + Millis(60_000);
    world.start_all();
    world.run(3_000);
    let [old, behind] = [1, 2];
    world.crash(behind);
    for text in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        world.propose_all(3, &[text]);
    }
    world.snapshot(3);
    world.crash(3);
    world.crash(old);
    world.start(3);
    world.start(behind);
    while world.phase(3) != Phase::Synchronization {
        assert_eq!(world.steps(1), 1);
    }
    // A piece every three seconds.
    world.stick(3, true);
    for _ in 0..8 {
        world.run(3_000);
        world.finish_work(3, 1);
        assert_eq!(world.phase(3), Phase::Synchronization);
    }
    world.stick(3, false);
    world.run(1_000);
    assert_eq!(world.phase(3), Phase::Leading);
    assert_eq!(world.peer(3).why(), crate::zab::Why::Started);
    assert_eq!(world.texts(behind), world.texts(3));
}

#[test]
fn who_has_nobody_to_teach_keeps_no_transaction_that_is_delivered() {
    for (servers, forgets) in [(1, true), (3, false)] {
        let mut world = Peers::new(servers);
        world.start_all();
        world.run(3_000);
        let leader = world.leader();
        world.propose_all(leader, &["a", "b", "c"]);
        world.run(500);
        assert_eq!(world.texts(leader), ["a", "b", "c"]);
        let last = world.peer(leader).last_logged();
        assert_eq!(world.peer(leader).forgotten() == last, forgets, "{servers}");
    }
}
