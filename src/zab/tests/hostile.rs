//! What a server makes of a member that says what it should not.

use super::peers::{Peers, at};
use super::world::Input;
use crate::types::{Epoch, ServerId};
use crate::zab::{Body, Entry, Message, Phase, Summary, Tenure, Why};

/// Says `body` to `to` in the place of the next message of its leader.
fn in_place_of_leader(world: &mut Peers, to: u32, body: Body) {
    let leader = world.leader();
    let (tenure, seq) = last_said(world, leader, to);
    let seq = seq + 1;
    let message = Message::Link { tenure, seq, body };
    world.input(ServerId(to), Input::Message(ServerId(leader), message));
}

/// The last message of a tenure from one to the other: its tenure and number.
fn last_said(world: &Peers, from: u32, to: u32) -> (Tenure, u64) {
    let way = (ServerId(from), ServerId(to));
    let last = world.sent.iter().rev().find_map(|sent| match sent.message {
        Message::Link { tenure, seq, .. } if (sent.from, sent.to) == way => Some((tenure, seq)),
        _ => None,
    });
    last.expect("it has spoken")
}

/// Lets a server that looks go on until it asks somebody to lead it.
fn asked_by(world: &mut Peers, id: u32) -> Tenure {
    world.sent.clear();
    loop {
        let asked = world.sent.iter().find_map(|sent| match sent.message {
            Message::Link { tenure, .. } if sent.from == ServerId(id) => Some(tenure),
            _ => None,
        });
        if let Some(tenure) = asked {
            return tenure;
        }
        assert_eq!(world.steps(1), 1, "{id} asks nobody");
    }
}

fn stranger(body: Body) -> Message {
    let tenure = Tenure {
        boot: 99,
        attempt: 1,
    };
    Message::Link {
        tenure,
        seq: 0,
        body,
    }
}

fn introduction(accepted: u64) -> Message {
    stranger(Body::FollowerInfo {
        accepted_epoch: Epoch(accepted),
        holds_data: true,
        ensemble: 1,
    })
}

#[test]
fn no_epoch_that_a_voter_claims_uses_up_the_epochs() {
    for accepted in [u64::MAX, u64::MAX - 1, u64::MAX - 2, 1 << 50] {
        let mut world = Peers::running(3);
        for id in 1..=3 {
            world.crash(id);
        }
        world.start(3);
        let claim = introduction(accepted);
        world.input(ServerId(3), Input::Message(ServerId(1), claim));
        world.start(2);
        world.run(3_000);
        world.start(1);
        world.run(3_000);
        for id in 1..=3 {
            let epoch = world.peer(id).accepted_epoch();
            assert!(epoch < Epoch(100), "{id} accepts {epoch} after {accepted}");
        }
        world.leader();
    }
}

#[test]
fn no_epoch_that_a_leader_claims_uses_up_the_epochs() {
    for claimed in [u64::MAX, u64::MAX - 1, u64::MAX - 2, 1 << 50] {
        let mut world = Peers::running(3);
        world.crash(1);
        world.start(1);
        let asked = asked_by(&mut world, 1);
        let message = Message::Link {
            tenure: asked,
            seq: 0,
            body: Body::LeaderInfo {
                epoch: Epoch(claimed),
                ensemble: 1,
            },
        };
        world.input(ServerId(1), Input::Message(ServerId(3), message));
        assert_eq!(world.peer(1).why(), Why::Nonsense, "{claimed}");
        world.run(3_000);
        assert!(world.peer(1).accepted_epoch() < Epoch(100), "{claimed}");
    }
}

#[test]
fn an_observer_is_informed_of_nothing_from_above_its_epoch() {
    let mut world = Peers::with(3, 1);
    world.start_all();
    world.run(3_000);
    assert_eq!(world.phase(4), Phase::Observing);
    let entry = Entry {
        zxid: at(50, 1),
        payload: (*b"far").into(),
    };
    in_place_of_leader(&mut world, 4, Body::Inform(entry));
    assert_eq!(world.peer(4).why(), Why::Nonsense);
    world.run(3_000);
    assert_eq!(world.phase(4), Phase::Observing);
    assert_eq!(world.texts(4), Vec::<String>::new());
}

#[test]
fn a_voter_is_not_informed_but_told_to_commit() {
    let mut world = Peers::running(3);
    let epoch = world.peer(1).current_epoch();
    let entry = Entry {
        zxid: at(epoch.0, 1),
        payload: (*b"alone").into(),
    };
    in_place_of_leader(&mut world, 1, Body::Inform(entry));
    assert_eq!(world.peer(1).why(), Why::Nonsense);
    world.run(3_000);
    assert_eq!(world.texts(1), Vec::<String>::new());
}

#[test]
fn strangers_are_not_led_and_introductions_come_first() {
    let mut world = Peers::running(3);
    let leader = world.leader();
    let later = |message: Message| match message {
        Message::Link { tenure, body, .. } => Message::Link {
            tenure,
            seq: 3,
            body,
        },
        Message::Vote(_) => message,
    };
    world.crash(1);
    world.sent.clear();
    let to = ServerId(leader);
    let stranger = Input::Message(ServerId(77), introduction(1));
    world.input(to, stranger);
    world.input(to, Input::Message(ServerId(1), later(introduction(1))));
    assert_eq!(world.said().count(), 0);
    world.input(to, Input::Message(ServerId(1), introduction(1)));
    assert!(world.said().count() > 0);
}

#[test]
fn who_knows_a_newer_ensemble_is_not_led_and_who_knows_an_older_one_does_not_lead() {
    let mut world = Peers::running(3);
    world.crash(1);
    world.sent.clear();
    let newer = stranger(Body::FollowerInfo {
        accepted_epoch: Epoch(1),
        holds_data: true,
        ensemble: 2,
    });
    world.input(ServerId(3), Input::Message(ServerId(1), newer));
    let said: Vec<_> = world.said().collect();
    assert_eq!(said, [(3, 1, &Body::Close)]);

    world.start(1);
    let tenure = asked_by(&mut world, 1);
    let epoch = world.peer(3).current_epoch();
    let body = Body::LeaderInfo { epoch, ensemble: 0 };
    let message = Message::Link {
        tenure,
        seq: 0,
        body,
    };
    world.input(ServerId(1), Input::Message(ServerId(3), message));
    assert_eq!(world.peer(1).why(), Why::LowerEpoch);
}

#[test]
fn what_is_said_once_is_not_said_again() {
    let mut world = Peers::running(3);
    let epoch = world.peer(3).current_epoch();
    let body = Body::LeaderInfo { epoch, ensemble: 1 };
    in_place_of_leader(&mut world, 1, body);
    assert_eq!(world.peer(1).why(), Why::Nonsense);

    let mut world = Peers::running(3);
    let (tenure, seq) = last_said(&world, 1, 3);
    world.sent.clear();
    let body = Body::AckEpoch {
        current_epoch: epoch,
        promises: true,
        history: Summary::default(),
    };
    let message = Message::Link {
        tenure,
        seq: seq + 1,
        body,
    };
    world.input(ServerId(3), Input::Message(ServerId(1), message));
    let said: Vec<_> = world.said().collect();
    assert_eq!(said, [(3, 1, &Body::Close)]);
}

#[test]
fn nothing_is_acknowledged_before_the_history_is() {
    let mut world = Peers::running(3);
    world.propose_all(3, &["a"]);
    let zxid = world.peer(3).last_logged();
    world.crash(1);
    world.start(1);
    let tenure = asked_by(&mut world, 1);
    let begun = |world: &Peers| {
        let begins = |body: &Body| matches!(body, Body::NewLeader { .. });
        world.said().any(|(_, to, body)| to == 1 && begins(body))
    };
    while !begun(&world) {
        assert_eq!(world.steps(1), 1);
    }
    let (_, seq) = last_said(&world, 1, 3);
    world.sent.clear();
    let message = Message::Link {
        tenure,
        seq: seq + 1,
        body: Body::Ack { zxid },
    };
    world.input(ServerId(3), Input::Message(ServerId(1), message));
    let said: Vec<_> = world.said().collect();
    assert_eq!(said, [(3, 1, &Body::Close)]);
}
