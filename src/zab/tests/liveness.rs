//! What must go on by itself.

use super::peers::Peers;
use super::world::Input;
use crate::types::{Epoch, ServerId};
use crate::zab::{Body, Message, Tenure, Why};

#[test]
fn an_idle_leader_keeps_its_followers() {
    let mut world = Peers::running(3);
    world.run(60_000);
    for id in 1..=3 {
        assert_eq!(world.peer(id).why(), Why::Started, "{id}");
        assert_eq!(
            world.machine(id).standings.len(),
            if id == world.leader() { 2 } else { 1 }
        );
    }
}

#[test]
fn a_leader_keeps_followers_that_are_behind_for_a_while_again_and_again() {
    let mut world = Peers::running(3);
    let leader = world.leader();
    for _ in 0..20 {
        for other in world.others(leader) {
            world.hold(other, leader);
        }
        world.propose(leader, "a").unwrap();
        world.run(450);
        world.heal();
        world.run(450);
    }
    for id in 1..=3 {
        assert_eq!(world.peer(id).why(), Why::Started, "{id}");
        assert_eq!(world.texts(id).len(), 20, "{id}");
    }
}

#[test]
fn who_asks_a_follower_to_lead_it_is_refused_at_once() {
    let mut world = Peers::running(3);
    world.sent.clear();
    world.input(ServerId(2), Input::Message(ServerId(1), introduction()));
    let refused = world
        .said()
        .any(|(from, to, body)| (from, to, body) == (2, 1, &Body::Close));
    assert!(refused);
    let stranger = ServerId(77);
    world.sent.clear();
    world.input(ServerId(2), Input::Message(stranger, introduction()));
    assert!(
        world.sent.is_empty(),
        "to whom is not of the ensemble nothing is said"
    );
}

fn introduction() -> Message {
    let tenure = Tenure {
        boot: 99,
        attempt: 1,
    };
    let body = Body::FollowerInfo {
        accepted_epoch: Epoch(1),
        holds_data: true,
        ensemble: 1,
    };
    Message::Link {
        tenure,
        seq: 0,
        body,
    }
}
