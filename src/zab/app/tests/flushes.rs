//! Barriers for reads.

use super::*;

#[test]
fn a_flush_sees_everything_that_was_committed_when_it_was_asked_for() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(leader, follower);
    world.propose(leader, "set a 5");
    world.settle();
    assert_eq!(
        world.completions(leader).len(),
        1,
        "committed without the follower"
    );
    assert_eq!(world.app(follower).get("a"), 0);
    let id = world.flush(follower);
    world.settle();
    assert_eq!(world.completions(follower), []);
    world.release(leader, follower);
    world.settle();
    assert_eq!(world.completions(follower), [Completion::Flushed { id }]);
    assert_eq!(world.app(follower).get("a"), 5);
}

#[test]
fn a_flush_waits_until_its_server_has_delivered_that_far() {
    let mut world = Nodes::new(3);
    world.settings.limits.unacknowledged_max = 1;
    world.start_all();
    world.run(3_000);
    let (leader, follower) = (world.leader(), world.follower());
    world.stick(follower, true);
    for value in 1..=3 {
        world.propose(leader, &format!("set a {value}"));
    }
    world.settle();
    let id = world.flush(follower);
    world.settle();
    assert_eq!(
        world.on_the_way(leader, follower),
        0,
        "the leader has said how far"
    );
    assert_eq!(world.completions(follower), []);
    world.stick(follower, false);
    world.settle();
    assert_eq!(world.completions(follower), [Completion::Flushed { id }]);
    assert_eq!(world.app(follower).get("a"), 3);
}

#[test]
fn a_flush_completes_behind_the_requests_its_server_made_before() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    for server in 1..=3 {
        world.stick(server, true);
    }
    for server in [leader, follower] {
        world.propose(server, "add a 1");
        world.flush(server);
        world.propose(server, "add b 1");
        world.flush(server);
    }
    world.settle();
    for server in [leader, follower] {
        assert_eq!(
            world.completions(server),
            [],
            "though the leader is sure of its quorum"
        );
    }
    for server in 1..=3 {
        world.stick(server, false);
    }
    world.settle();
    for server in [leader, follower] {
        let completions = world.completions(server);
        let flushed = |id| Completion::Flushed { id: RequestId(id) };
        assert!(matches!(completions[0], Completion::Delivered { .. }));
        assert_eq!(completions[1], flushed(2));
        assert!(matches!(completions[2], Completion::Delivered { .. }));
        assert_eq!(completions[3], flushed(4));
    }
}

#[test]
fn a_deposed_leader_completes_no_flush() {
    let mut world = Nodes::running(3);
    let old = world.leader();
    world.isolate(old);
    let mut flushes = Vec::new();
    // Its transport has told it; whatever it still takes it must not complete.
    if let Ok(id) = world.with_machine(old, |server, now| server.node.flush(now)) {
        flushes.push(id);
    }
    world.run(5_000);
    let back = handed_back(&world.completions(old));
    let all = flushes.iter().map(|id| (*id, Fate::NoEffect));
    assert_eq!(back, all.collect::<Vec<_>>());
}

#[test]
fn a_leader_that_hears_nobody_completes_no_flush() {
    let mut world = Nodes::running(3);
    let old = world.leader();
    let others: Vec<u32> = (1..=3).filter(|id| *id != old).collect();
    for other in &others {
        // Nothing arrives either way, and no transport says so.
        world.hold(old, *other);
        world.hold(*other, old);
    }
    let id = world.flush(old);
    world.settle();
    assert_eq!(world.completions(old), []);
    world.run(5_000);
    assert_eq!(handed_back(&world.completions(old)), [(id, Fate::NoEffect)]);
    let new = others[0];
    assert_ne!(
        world.app(new).told.last().unwrap(),
        &format!("following {old}")
    );
}

#[test]
fn a_flush_at_an_observer_sees_what_is_committed() {
    let mut world = Nodes::with(3, 1);
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    world.hold(leader, 4);
    world.propose(leader, "set a 5");
    world.settle();
    let id = world.flush(4);
    world.settle();
    assert_eq!(world.completions(4), []);
    world.release(leader, 4);
    world.settle();
    assert_eq!(world.completions(4), [Completion::Flushed { id }]);
    assert_eq!(world.app(4).get("a"), 5);
}

#[test]
fn flushes_under_way_at_the_leader_are_bounded() {
    let mut world = Nodes::new(3);
    world.settings.limits.barriers_max = 2;
    world.start_all();
    world.run(3_000);
    let (leader, follower) = (world.leader(), world.follower());
    for other in (1..=3).filter(|id| *id != leader) {
        world.hold(leader, other);
    }
    for _ in 0..2 {
        world.flush(leader);
    }
    let refused = world.with_machine(leader, |server, now| server.node.flush(now));
    assert_eq!(refused, Err(super::super::Refusal::Full));
    let id = world.flush(follower);
    world.settle();
    for other in (1..=3).filter(|id| *id != leader) {
        world.release(leader, other);
    }
    world.settle();
    let refusal = super::super::Refusal::Full;
    assert_eq!(
        world.completions(follower),
        [Completion::Refused { id, refusal }]
    );
    assert_eq!(world.completions(leader).len(), 2);
}

#[test]
fn a_confirmation_waits_for_a_quorum_and_for_nothing_else() {
    let mut world = Nodes::running(3);
    let leader = world.leader();
    let confirmed = |world: &mut Nodes| {
        world.with_machine(leader, |server, _| std::mem::take(&mut server.confirmed))
    };
    for server in 1..=3 {
        world.stick(server, true);
    }
    world.propose(leader, "set a 5");
    let asked = world.with_machine(leader, |server, now| server.node.confirm(now));
    let token = asked.unwrap();
    assert!(confirmed(&mut world).is_empty(), "nobody has answered");
    world.settle();
    assert_eq!(
        confirmed(&mut world),
        [token],
        "although its request is under way"
    );
    for server in 1..=3 {
        world.stick(server, false);
    }
    for other in (1..=3).filter(|other| *other != leader) {
        world.hold(other, leader);
    }
    let asked = world.with_machine(leader, |server, now| server.node.confirm(now));
    assert!(asked.is_ok());
    world.run(900);
    assert!(confirmed(&mut world).is_empty(), "nobody is heard");
    let follower = world.follower();
    let refused = world.with_machine(follower, |server, now| server.node.confirm(now));
    assert_eq!(refused, Err(super::super::Refusal::NoLeader));
}
