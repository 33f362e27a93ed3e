//! What the paper says of each phase: who may say what, and what is durable before it is said.

use super::peers::{Peers, at};
use super::world::Input;
use crate::types::{Epoch, ServerId};
use crate::zab::{Body, Fault, Persisted, Phase, ProposeError, Write};

/// Whether a server has said something like this.
fn has_said(world: &Peers, from: u32, like: fn(&Body) -> bool) -> bool {
    world
        .said()
        .any(|(sender, _, body)| sender == from && like(body))
}

fn is_leader_info(body: &Body) -> bool {
    matches!(body, Body::LeaderInfo { .. })
}

fn is_ack_epoch(body: &Body) -> bool {
    matches!(body, Body::AckEpoch { .. })
}

fn is_new_leader(body: &Body) -> bool {
    matches!(body, Body::NewLeader { .. })
}

fn is_ack_new_leader(body: &Body) -> bool {
    matches!(body, Body::AckNewLeader { .. })
}

fn is_up_to_date(body: &Body) -> bool {
    matches!(body, Body::UpToDate { .. })
}

fn is_ack(body: &Body) -> bool {
    matches!(body, Body::Ack { .. })
}

fn is_commit(body: &Body) -> bool {
    matches!(body, Body::Commit { .. })
}

#[test]
fn discovery_the_new_epoch_is_above_every_epoch_that_a_quorum_accepted() {
    for id in 1..=3 {
        let mut world = Peers::new(3);
        world.disk_mut(id).accepted = Epoch(9);
        world.start_all();
        world.run(3_000);
        let leader = world.leader();
        assert_eq!(world.peer(leader).current_epoch(), Epoch(10));
    }
}

#[test]
fn discovery_the_leader_announces_no_epoch_before_it_is_durable() {
    let mut world = Peers::new(3);
    world.stick(3, true);
    world.start_all();
    world.run(500);
    assert_eq!(world.phase(3), Phase::Discovery);
    assert_eq!(world.writes_waiting(3), [Write::AcceptedEpoch(Epoch(1))]);
    assert!(!has_said(&world, 3, is_leader_info));
    world.finish_work(3, 1);
    assert!(has_said(&world, 3, is_leader_info));
}

#[test]
fn discovery_a_follower_accepts_an_epoch_durably_before_it_says_so() {
    let mut world = Peers::new(3);
    world.stick(1, true);
    world.stick(2, true);
    world.start_all();
    world.run(500);
    for id in [1, 2] {
        assert_eq!(world.writes_waiting(id), [Write::AcceptedEpoch(Epoch(1))]);
        assert!(!has_said(&world, id, is_ack_epoch));
    }
    assert!(!has_said(&world, 3, is_new_leader), "nobody has promised");
    world.finish_work(1, 1);
    assert!(has_said(&world, 1, is_ack_epoch));
    world.settle();
    assert!(!has_said(&world, 3, is_new_leader), "founding takes all");
    world.finish_work(2, 1);
    world.settle();
    assert!(has_said(&world, 3, is_new_leader));
}

#[test]
fn synchronization_history_then_epoch_then_acknowledgement() {
    let mut world = Peers::running(3);
    let old = world.leader();
    world.crash(1);
    world.propose_all(old, &["a", "b"]);
    // A new epoch, which server 1 has not heard of.
    for id in [2, 3] {
        world.crash(id);
        world.start(id);
    }
    world.run(3_000);
    world.sent.clear();
    world.stick(1, true);
    world.start(1);
    world.run(300);
    world.finish_work(1, 1);
    world.settle();
    let is_append = |write: &Write| matches!(write, Write::Append(_));
    let waiting = world.writes_waiting(1);
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    assert!(
        waiting.iter().all(is_append),
        "no epoch before the history: {waiting:?}"
    );
    world.finish_work(1, 1);
    assert!(world.writes_waiting(1).iter().all(is_append));
    world.finish_work(1, 1);
    assert_eq!(world.writes_waiting(1), [Write::CurrentEpoch(Epoch(2))]);
    assert!(!has_said(&world, 1, is_ack_new_leader));
    world.finish_work(1, 1);
    assert!(has_said(&world, 1, is_ack_new_leader));
}

#[test]
fn synchronization_a_leader_is_established_by_a_quorum_that_has_its_history() {
    let mut world = Peers::new(5);
    for id in 1..=3 {
        world.stick(id, true);
    }
    world.start_all();
    world.run(300);
    for id in 1..=3 {
        world.finish_work(id, 1);
    }
    world.settle();
    assert_eq!(world.phase(5), Phase::Synchronization);
    assert!(
        has_said(&world, 4, is_ack_new_leader),
        "two of five are there"
    );
    assert!(!has_said(&world, 5, is_up_to_date));
    assert_eq!(world.propose(5, "early"), Err(ProposeError::NotLeading));
    world.finish_work(1, 1);
    world.settle();
    assert_eq!(world.phase(5), Phase::Leading, "three of five are");
    assert!(has_said(&world, 5, is_up_to_date));
}

#[test]
fn synchronization_a_quorum_commits_the_whole_initial_history() {
    let mut world = Peers::running(3);
    let old = world.leader();
    for other in world.others(old) {
        world.hold(other, old);
    }
    world.propose_all(old, &["a", "b", "c"]);
    assert_eq!(world.texts(old), Vec::<String>::new());
    world.crash(old);
    world.heal();
    world.run(3_000);
    for id in world.others(old) {
        assert_eq!(world.texts(id), ["a", "b", "c"]);
        assert_eq!(world.peer(id).committed(), at(1, 3));
    }
}

#[test]
fn broadcast_nobody_acknowledges_what_is_not_durable() {
    let mut world = Peers::running(3);
    let leader = world.leader();
    let followers = world.others(leader);
    for id in 1..=3 {
        world.stick(id, true);
    }
    world.propose_all(leader, &["a"]);
    assert!(!followers.iter().any(|id| has_said(&world, *id, is_ack)));
    world.finish_work(followers[0], 1);
    assert!(has_said(&world, followers[0], is_ack));
    world.settle();
    assert_eq!(world.texts(leader), Vec::<String>::new(), "one of three");
    assert!(!has_said(&world, leader, is_commit));
    world.finish_work(leader, 1);
    assert_eq!(
        world.texts(leader),
        ["a"],
        "the leader's own sync makes two"
    );
    assert!(has_said(&world, leader, is_commit));
}

#[test]
fn broadcast_a_quorum_of_followers_commits_before_the_leaders_own_sync() {
    let mut world = Peers::running(3);
    let leader = world.leader();
    world.stick(leader, true);
    world.propose_all(leader, &["a"]);
    for id in 1..=3 {
        assert_eq!(world.texts(id), ["a"]);
    }
    assert_eq!(world.logged(leader), Vec::<String>::new());
}

#[test]
fn broadcast_an_acknowledgement_stands_for_all_before_it_and_commits_come_in_order() {
    let mut world = Peers::running(3);
    let leader = world.leader();
    let followers = world.others(leader);
    world.stick(leader, true);
    world.stick(followers[1], true);
    for other in &followers {
        world.hold(*other, leader);
    }
    world.propose_all(leader, &["a", "b", "c"]);
    assert_eq!(world.logged(followers[0]), ["a", "b", "c"]);
    world.finish_work(leader, 2);
    assert_eq!(world.texts(leader), Vec::<String>::new());
    world.release(followers[0], leader);
    world.settle();
    assert_eq!(
        world.texts(leader),
        ["a", "b"],
        "as far as two disks have come"
    );
    world.finish_work(leader, 1);
    assert_eq!(world.texts(leader), ["a", "b", "c"]);
}

#[test]
fn broadcast_an_observer_is_told_only_what_is_committed_and_does_not_count() {
    let mut world = Peers::with(3, 1);
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    for id in 1..=3 {
        world.stick(id, true);
    }
    world.propose_all(leader, &["a"]);
    assert_eq!(world.logged(4), Vec::<String>::new());
    world.finish_work(leader, 1);
    world.settle();
    assert_eq!(world.texts(leader), Vec::<String>::new());
    let follower = world.others(leader)[0];
    world.finish_work(follower, 1);
    world.settle();
    assert_eq!(
        (world.texts(4), world.logged(4)),
        (vec!["a".to_owned()], vec!["a".to_owned()])
    );
    assert_eq!(world.phase(4), Phase::Observing);
    for id in 1..=3 {
        world.stick(id, false);
    }
    // Two voters and the observer make no quorum of three and one.
    world.crash(follower);
    let other = world
        .others(leader)
        .into_iter()
        .find(|id| *id != follower && *id != 4);
    world.crash(other.unwrap());
    world.run(3_000);
    assert_ne!(world.phase(leader), Phase::Leading);
}

#[test]
fn a_server_whose_write_failed_says_nothing_more_and_the_others_go_on() {
    for role in ["leader", "follower"] {
        let mut world = Peers::running(3);
        let leader = world.leader();
        world.propose_all(leader, &["a"]);
        let victim = if role == "leader" {
            leader
        } else {
            world.others(leader)[0]
        };
        world.input(ServerId(victim), Input::WriteFailed);
        assert_eq!(world.ended[0].fault, Some(Fault::WriteFailed));
        let sent = world.sent.len();
        world.run(3_000);
        assert!(world.sent[sent..].iter().all(|sent| sent.from.0 != victim));
        let leader = world.leader();
        world.propose_all(leader, &["b"]);
        world.start(victim);
        world.run(3_000);
        assert_eq!(world.texts(victim), ["a", "b"], "{role}");
    }
}

#[test]
fn broadcast_a_proposal_too_long_for_memory_leaves_no_mark_on_what_is_in_flight() {
    let mut world = Peers::new(3);
    world.settings.limits.window_bytes_max = 0;
    world.settings.limits.in_flight_bytes_max = 10;
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    let long = "x".repeat(200);
    world.propose_all(leader, &[&long]);
    world.propose(leader, "a").unwrap();
    world.propose(leader, "b").unwrap();
    let refused = world.propose(leader, "0123456789");
    assert_eq!(refused, Err(ProposeError::Full));
    world.settle();
    for id in 1..=3 {
        assert_eq!(world.texts(id), [&long, "a", "b"], "{id}");
    }
}

#[test]
fn a_new_leader_waits_for_each_write_by_its_own_report() {
    let mut world = Peers::running(3);
    world.crash(3);
    world.run(3_000);
    assert_eq!(world.leader(), 2);
    world.start(3);
    world.run(3_000);
    // What 3 is sent is not on its disk when it is elected.
    world.propose_all(2, &["a"]);
    world.stick(3, true);
    world.propose_all(2, &["b", "c"]);
    let last = world.peer(3).last_logged();
    world.crash(2);
    world.settle();
    assert_eq!(
        (world.phase(3), world.peer(3).leader()),
        (Phase::Discovery, Some(ServerId(3)))
    );
    let asked = world.with_machine(3, |server, now| server.peer.barrier(now, 1));
    assert_eq!(asked, Err(ProposeError::NotLeading), "not established");
    let epoch = world.peer(3).accepted_epoch();
    world.sent.clear();
    let before = crate::types::Zxid::new(last.epoch, last.counter - 1);
    world.input(ServerId(3), Input::Persisted(Persisted::Log(before)));
    world.settle();
    assert!(
        !has_said(&world, 3, |body| matches!(body, Body::LeaderInfo { .. })),
        "the epoch is not durable"
    );
    world.input(
        ServerId(3),
        Input::Persisted(Persisted::AcceptedEpoch(epoch)),
    );
    world.settle();
    assert!(has_said(&world, 3, |body| matches!(
        body,
        Body::LeaderInfo { .. }
    )));
    let enters = |write: &Write| matches!(write, Write::CurrentEpoch(_));
    assert!(
        !world.writes_waiting(3).iter().any(enters),
        "the history is not durable"
    );
    world.input(ServerId(3), Input::Persisted(Persisted::Log(last)));
    assert!(world.writes_waiting(3).iter().any(enters));
    world.stick(3, false);
    world.run(1_000);
    assert_eq!(world.leader(), 3);
}

#[test]
fn broadcast_a_barrier_waits_for_a_round_that_began_after_it() {
    let mut world = Peers::running(3);
    let leader = world.leader();
    let [follower, gone] = [world.others(leader)[0], world.others(leader)[1]];
    world.crash(gone);
    world.hold(follower, leader);
    let ask = |world: &mut Peers, token: u64| {
        let asked = world.with_machine(leader, |server, now| server.peer.barrier(now, token));
        asked.expect("it leads, and there is room");
        world.settle();
    };
    let passed = |world: &Peers| -> Vec<u64> {
        let barriers = world.machine(leader).barriers.iter();
        barriers.map(|barrier| barrier.token).collect()
    };
    ask(&mut world, 1);
    world.sent.clear();
    world.hold(leader, follower);
    ask(&mut world, 2);
    ask(&mut world, 3);
    assert_eq!(world.said().count(), 0, "one round at a time");
    world.release(follower, leader);
    world.settle();
    assert_eq!(passed(&world), [1]);
    assert_eq!(world.said().count(), 1, "the next round, for both");
    world.release(leader, follower);
    world.settle();
    assert_eq!(passed(&world), [1, 2, 3]);
}

#[test]
fn broadcast_what_is_committed_stays_so_when_those_who_acknowledged_it_are_gone() {
    let mut world = Peers::running(5);
    assert_eq!(world.leader(), 5);
    world.propose_all(5, &["a"]);
    world.stick(1, true);
    world.stick(2, true);
    world.propose_all(5, &["b"]);
    let committed = world.peer(5).committed();
    assert_eq!(world.texts(5), ["a", "b"]);
    world.crash(3);
    world.hold(4, 5);
    world.propose_all(5, &["c"]);
    assert_eq!(world.peer(5).durable(), committed.next());
    assert_eq!(world.peer(5).committed(), committed);
}
