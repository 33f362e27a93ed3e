//! What is told and handed back when leaders change.

use super::super::envelope;
use super::*;
use crate::zab::{Phase, Ready, Standing};

#[test]
fn open_requests_are_handed_back_when_the_leader_is_lost() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(leader, follower);
    let put = world.propose(follower, "set a 5");
    let flush = world.flush(follower);
    world.settle();
    world.crash(leader);
    let completions = world.completions(follower);
    let fates = [(put, Fate::Unknown), (flush, Fate::NoEffect)];
    assert_eq!(handed_back(&completions), fates);
    let Completion::HandedBack(back) = &completions[0] else {
        panic!();
    };
    assert_eq!((back.request(), back.flush), (&b"set a 5"[..], false));
    assert_eq!(world.app(follower).told.last().unwrap(), "recovering 2");
    assert_eq!(world.machine(follower).node.requests(), 0);
    world.run(5_000);
    assert_eq!(world.completions(follower), [], "each comes back once");
    let again = world.propose(follower, "set a 6");
    world.run(10);
    assert!(delivered(again, 6)(&world.completions(follower)[0]));
}

#[test]
fn a_request_that_was_handed_back_and_is_committed_later_completes_no_second_time() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    // The proposal reaches everybody's disk; the acknowledgements do not reach the leader.
    for other in (1..=3).filter(|id| *id != leader) {
        world.hold(other, leader);
    }
    world.release(follower, leader);
    let put = world.with_machine(follower, |server, now| {
        server.node.propose(now, b"set a 5").unwrap()
    });
    world.hold(follower, leader);
    let request_on_the_way = world.on_the_way(follower, leader);
    assert_eq!(request_on_the_way, 1);
    world.release(follower, leader);
    world.stick(1, true);
    world.stick(2, true);
    world.stick(3, true);
    world.settle();
    world.hold(follower, leader);
    for server in 1..=3 {
        world.stick(server, false);
    }
    world.settle();
    assert_eq!(
        world.disk(follower).log.len(),
        1,
        "durable, and not committed"
    );
    assert_eq!(world.completions(follower), []);
    world.crash(leader);
    assert_eq!(
        handed_back(&world.completions(follower)),
        [(put, Fate::Unknown)]
    );
    world.heal();
    world.run(5_000);
    assert_eq!(
        world.app(follower).get("a"),
        5,
        "committed by the next leader"
    );
    assert_eq!(world.completions(follower), []);
}

#[test]
fn requests_that_no_leader_looked_at_have_no_effect() {
    let mut world = Nodes::new(3);
    world.settings.limits.in_flight_max = 1;
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    let others: Vec<u32> = (1..=3).filter(|id| *id != leader).collect();
    for other in &others {
        world.hold(leader, *other);
    }
    let ids = [1, 2, 3].map(|value| world.propose(leader, &format!("set a {value}")));
    world.settle();
    world.isolate(leader);
    world.run(5_000);
    let fates = [Fate::Unknown, Fate::NoEffect, Fate::NoEffect];
    let expected: Vec<_> = ids.into_iter().zip(fates).collect();
    assert_eq!(handed_back(&world.completions(leader)), expected);
    world.heal();
    world.run(5_000);
    assert_eq!(
        world.app(leader).get("a"),
        0,
        "the others were never proposed"
    );
    assert_eq!(world.completions(leader), []);
    // It has delivered nothing since, and leads again.
    let other = world.leader();
    world.crash(other);
    world.run(3_000);
    assert_eq!(world.leader(), leader);
    let again = world.propose(leader, "set a 4");
    world.settle();
    assert!(delivered(again, 4)(&world.completions(leader)[0]));
}

#[test]
fn a_word_that_was_given_stands_when_the_leader_is_lost() {
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
    let get = world.propose(follower, "get a");
    let flush = world.flush(follower);
    world.settle();
    world.crash(leader);
    world.stick(follower, false);
    assert_eq!(
        world.completions(follower),
        [],
        "what they rest on is committed"
    );
    world.run(5_000);
    assert_eq!(
        world.completions(follower),
        [
            Completion::Answered {
                id: get,
                answer: b"3".to_vec()
            },
            Completion::Flushed { id: flush }
        ]
    );
    assert_eq!(world.app(follower).get("a"), 3);
}

#[test]
fn the_application_is_told_where_its_server_stands() {
    let mut world = Nodes::running(3);
    let leader = world.leader();
    let others: Vec<u32> = (1..=3).filter(|id| *id != leader).collect();
    assert_eq!(world.app(leader).told.last().unwrap(), "leading 1 2 3");
    assert_eq!(world.machine(leader).node.active().unwrap().len(), 3);
    assert_eq!(world.machine(leader).node.ensemble().voters().len(), 3);
    for other in &others {
        assert_eq!(world.app(*other).told, [format!("following {leader}")]);
        assert_eq!(world.machine(*other).node.active(), None);
    }
    world.crash(others[0]);
    world.run(10);
    let left = format!(
        "leading {} {}",
        others[1].min(leader),
        others[1].max(leader)
    );
    assert_eq!(world.app(leader).told.last().unwrap(), &left);
    world.crash(others[1]);
    world.run(3_000);
    assert_eq!(world.app(leader).told.last().unwrap(), "recovering 0");
}

#[test]
fn nothing_in_flight_is_remembered_by_a_leader_that_was_deposed() {
    let mut world = Nodes::running(3);
    let old = world.leader();
    for other in (1..=3).filter(|id| *id != old) {
        world.hold(other, old);
    }
    world.propose(old, "add a 1");
    world.settle();
    assert_eq!(world.app(old).in_flight["a"], [1]);
    world.flush(old);
    assert_eq!(world.machine(old).node.barriers.len(), 1);
    world.isolate(old);
    world.run(3_000);
    assert!(world.app(old).in_flight.is_empty());
    assert!(world.machine(old).node.barriers.is_empty());
}

#[test]
fn a_change_of_leader_that_is_told_at_once_hands_back_as_well() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(follower, leader);
    let put = world.propose(follower, "set a 5");
    let epoch = world.machine(follower).node.peer().current_epoch();
    world.with_machine(follower, |server, _| {
        let mut follows = |epoch| {
            let mut ready = Ready {
                standing: Some(Standing::Following {
                    leader: ServerId(leader),
                    epoch,
                }),
                ..Ready::default()
            };
            server.node.take(&mut ready);
            server.node.requests()
        };
        assert_eq!(follows(epoch), 1, "the same epoch is the same leader");
        assert_eq!(follows(epoch.next()), 0);
    });
    assert_eq!(
        handed_back(&world.completions(follower)),
        [(put, Fate::Unknown)]
    );
}

#[test]
fn a_server_that_withdraws_hands_back_and_takes_nothing_more() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(follower, leader);
    let put = world.propose(follower, "set a 5");
    let (completions, refused) = world.with_machine(follower, |server, now| {
        server.node.on_write_failed();
        server.node.ready(&mut server.ready);
        assert!(server.ready.fenced.is_some());
        assert_eq!(server.node.peer().phase(), Phase::Fenced);
        let completions = std::mem::take(&mut server.ready.completions);
        (completions, server.node.propose(now, b"set a 6"))
    });
    assert_eq!(handed_back(&completions), [(put, Fate::Unknown)]);
    assert_eq!(refused, Err(super::super::Refusal::NoLeader));
}

#[test]
fn a_flush_behind_a_request_that_is_handed_back_completes() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(follower, leader);
    let put = world.propose(follower, "add a 1");
    let flush = world.flush(follower);
    world.with_machine(follower, |server, _| {
        let call = envelope::Call {
            run: server.node.origin(flush).run,
            request: flush,
        };
        let letter = envelope::Letter::Flushed(call, Zxid::ZERO);
        let mut ready = Ready {
            payloads: vec![(ServerId(leader), letter.encode())],
            ..Ready::default()
        };
        server.node.take(&mut ready);
    });
    assert_eq!(world.completions(follower), []);
    world.crash(leader);
    let completions = world.completions(follower);
    assert_eq!(handed_back(&completions), [(put, Fate::Unknown)]);
    assert_eq!(completions[1..], [Completion::Flushed { id: flush }]);
}

#[test]
fn a_flush_tells_what_became_of_requests_that_the_same_leader_was_asked_before_the_way_was_lost() {
    let mut world = Nodes::new(3);
    world.settings.limits.in_flight_max = 1;
    world.start_all();
    world.run(3_000);
    let (leader, follower) = (world.leader(), world.follower());
    let other = 6 - leader - follower;
    let epoch = world.machine(leader).node.standing().clone();
    world.stick(other, true);
    world.hold(leader, follower);
    // One is proposed and not committed, the others wait at the leader for room.
    for _ in 0..7 {
        world.propose(follower, "add a 1");
    }
    world.settle();
    world.cut(follower, leader);
    world.heal();
    let follows = |world: &Nodes| {
        let standing = world.machine(follower).node.standing();
        matches!(standing, Standing::Following { .. })
    };
    while !follows(&world) {
        assert_eq!(world.steps(1), 1, "it follows again at once");
    }
    assert_eq!(handed_back(&world.completions(follower)).len(), 7);
    world.stick(follower, true);
    let flush = world.flush(follower);
    world.settle();
    assert_eq!(world.completions(follower), [], "some are undecided");
    world.stick(follower, false);
    world.settle();
    assert_eq!(
        world.completions(follower),
        [Completion::Flushed { id: flush }]
    );
    assert_eq!(world.app(follower).get("a"), 7);
    assert_eq!(*world.machine(leader).node.standing(), epoch);
}
