//! Requests, answers, and their bounds.

use super::*;
use crate::zab::app::{Garbled, Malformed, Refusal, Sender, envelope};
use crate::zab::{Body, Entry, Message, Ready, Standing};

#[test]
fn a_request_made_at_a_follower_is_delivered_everywhere_and_completed_where_it_was_made() {
    let mut world = Nodes::running(3);
    let follower = world.follower();
    let id = world.propose(follower, "set a 5");
    assert_eq!(
        world.completions(follower),
        [],
        "not before it is committed"
    );
    world.run(10);
    let completions = world.completions(follower);
    assert_eq!(completions.len(), 1);
    assert!(delivered(id, 5)(&completions[0]), "{completions:?}");
    for server in 1..=3 {
        assert_eq!(world.app(server).get("a"), 5);
        assert_eq!(world.completions(server), []);
    }
}

#[test]
fn requests_are_delivered_in_the_order_of_their_server_and_alike_everywhere() {
    let mut world = Nodes::running(3);
    for round in 0..4 {
        for server in 1..=3 {
            world.propose(server, &format!("set from{server} {round}"));
            world.propose(server, &format!("add all {server}"));
        }
    }
    world.run(10);
    let order = world.app(1).delivered.clone();
    assert_eq!(order.len(), 24);
    for server in 1..=3 {
        assert_eq!(world.app(server).delivered, order);
        let own = format!("from{server} ");
        let own: Vec<&str> = order
            .iter()
            .filter_map(|(_, txn)| txn.strip_prefix(&own))
            .collect();
        assert_eq!(own, ["0", "1", "2", "3"]);
        let ids: Vec<u64> = world
            .completions(server)
            .iter()
            .map(|done| done.id().0)
            .collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
    assert_eq!(world.app(1).get("all"), 4 * 6);
}

#[test]
fn an_answer_is_given_without_a_broadcast() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.propose(leader, "set a 5");
    world.run(10);
    world.completions(leader);
    world.sent.clear();
    let logged = world.disk(leader).log.len();
    for server in [leader, follower] {
        let id = world.propose(server, "get a");
        world.settle();
        let answer = b"5".to_vec();
        assert_eq!(
            world.completions(server),
            [Completion::Answered { id, answer }]
        );
        world.propose(server, &format!("note {server}"));
        world.settle();
    }
    let notes = [leader, follower].map(|id| (ServerId(id), id.to_string()));
    assert_eq!(world.app(leader).notes, notes);
    assert_eq!(world.app(follower).notes, []);
    assert_eq!(world.disk(leader).log.len(), logged);
    for sent in &world.sent {
        let Message::Link { body, .. } = &sent.message else {
            panic!("an election");
        };
        let pings = matches!(body, Body::Ping { .. } | Body::Pong { .. });
        assert!(pings || matches!(body, Body::Payload(_)), "{body:?}");
    }
}

#[test]
fn a_leader_that_hears_nobody_gives_no_answer() {
    let mut world = Nodes::running(3);
    let old = world.leader();
    for other in (1..=3).filter(|id| *id != old) {
        // Nothing arrives either way, and no transport says so.
        world.hold(old, other);
        world.hold(other, old);
    }
    // The others may have another leader by now, and `a` another value.
    let id = world.propose(old, "get a");
    world.settle();
    assert_eq!(world.completions(old), []);
    world.run(5_000);
    assert_eq!(handed_back(&world.completions(old)), [(id, Fate::Unknown)]);
}

#[test]
fn preprocess_sees_what_is_in_flight() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    for server in 1..=3 {
        world.stick(server, true);
    }
    let ids = [leader, follower, leader].map(|server| {
        let id = world.propose(server, "add a 1");
        world.settle();
        id
    });
    assert_eq!(world.app(leader).get("a"), 0, "nothing is committed");
    for server in 1..=3 {
        world.stick(server, false);
    }
    world.settle();
    let at_leader = world.completions(leader);
    assert!(delivered(ids[0], 1)(&at_leader[0]) && delivered(ids[2], 3)(&at_leader[1]));
    assert!(delivered(ids[1], 2)(&world.completions(follower)[0]));
}

#[test]
fn an_answer_waits_until_its_server_has_delivered_what_it_rests_on() {
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
    let id = world.propose(follower, "get a");
    world.settle();
    assert_eq!(world.on_the_way(leader, follower), 0, "the answer has come");
    assert_eq!(world.completions(follower), []);
    world.stick(follower, false);
    world.settle();
    let answer = b"3".to_vec();
    assert_eq!(
        world.completions(follower),
        [Completion::Answered { id, answer }]
    );
    assert_eq!(world.app(follower).get("a"), 3);
}

#[test]
fn without_a_leader_nothing_is_taken() {
    let mut world = Nodes::new(3);
    world.start(1);
    assert_eq!(world.try_propose(1, "set a 1"), Err(Refusal::NoLeader));
    let flush = world.with_machine(1, |server, now| server.node.flush(now));
    assert_eq!(flush, Err(Refusal::NoLeader));
    assert!(!world.send(1, None, "hello"));
    assert_eq!(world.machine(1).node.requests(), 0);
}

#[test]
fn requests_that_are_not_complete_are_bounded() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(leader, follower);
    for _ in 0..7 {
        world.propose(follower, "add a 1");
    }
    world.flush(follower);
    assert_eq!(world.try_propose(follower, "add a 1"), Err(Refusal::Full));
    let flush = world.with_machine(follower, |server, now| server.node.flush(now));
    assert_eq!(flush, Err(Refusal::Full));
    world.settle();
    assert_eq!(world.try_propose(follower, "add a 1"), Err(Refusal::Full));
    world.release(leader, follower);
    world.settle();
    assert_eq!(world.completions(follower).len(), 8);
    assert_eq!(world.propose(follower, "add a 1"), RequestId(9));
    world.settle();
    assert_eq!(
        world.app(leader).get("a"),
        8,
        "a refused request does nothing"
    );
}

/// A world in which one transaction may be in flight, and the leader's disks do nothing.
fn clogged() -> (Nodes, u32, u32) {
    let mut world = Nodes::new(3);
    world.settings.limits.in_flight_max = 1;
    world.start_all();
    world.run(3_000);
    let (leader, follower) = (world.leader(), world.follower());
    for server in 1..=3 {
        world.stick(server, true);
    }
    (world, leader, follower)
}

fn unclog(world: &mut Nodes) {
    for server in 1..=3 {
        world.stick(server, false);
    }
    world.settle();
}

#[test]
fn requests_wait_at_the_leader_while_there_is_no_room_and_keep_their_order() {
    let (mut world, leader, follower) = clogged();
    for server in [leader, follower, leader, follower] {
        world.propose(server, "add a 1");
        world.settle();
    }
    let withdrawn = |world: &Nodes| {
        let told = world.app(leader).told.iter();
        told.filter(|told| told.starts_with("withdrawn")).count()
    };
    assert_eq!(withdrawn(&world), 1, "not tried again before there is room");
    unclog(&mut world);
    let outcome = |completion: &Completion<u64>| match completion {
        Completion::Delivered { outcome, .. } => *outcome,
        other => panic!("{other:?}"),
    };
    let at_leader: Vec<u64> = world.completions(leader).iter().map(outcome).collect();
    let at_follower: Vec<u64> = world.completions(follower).iter().map(outcome).collect();
    assert_eq!((at_leader, at_follower), (vec![1, 3], vec![2, 4]));
}

#[test]
fn requests_that_wait_at_the_leader_are_bounded() {
    let (mut world, leader, follower) = clogged();
    for _ in 0..7 {
        world.propose(follower, "add a 1");
    }
    world.settle();
    assert_eq!(world.try_propose(leader, "add a 1"), Err(Refusal::Full));
    let refused = world.propose(follower, "add a 1");
    world.settle();
    let refusal = Refusal::Full;
    let id = refused;
    assert_eq!(
        world.completions(follower),
        [Completion::Refused { id, refusal }]
    );
    unclog(&mut world);
    assert_eq!(world.completions(follower).len(), 7);
    assert_eq!(world.app(leader).get("a"), 7);
}

#[test]
fn what_is_too_long_is_refused_and_leaves_nothing_in_flight() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    let long = format!("note {}", "x".repeat(96));
    assert_eq!(world.try_propose(follower, &long), Err(Refusal::TooLong));
    world.propose(follower, &long[..100]);
    let fits = 200 - envelope::TRANSACTION_BYTES;
    let refusal = Refusal::TooLong;
    for server in [leader, follower] {
        world.settle();
        world.completions(server);
        let id = world.propose(server, &format!("blow {}", fits + 1));
        world.settle();
        assert_eq!(
            world.completions(server),
            [Completion::Refused { id, refusal }]
        );
        assert!(
            world
                .app(leader)
                .told
                .last()
                .unwrap()
                .starts_with("withdrawn")
        );
        let id = world.propose(server, &format!("blow {fits}"));
        world.settle();
        assert!(delivered(id, 0)(&world.completions(server)[0]));
    }
}

#[test]
fn messages_reach_the_application_of_the_leader_and_of_its_followers() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    assert!(world.send(follower, None, "up"));
    assert!(world.send(leader, Some(follower), "down"));
    assert!(world.send(leader, None, "here"));
    assert!(world.send(leader, Some(leader), "here too"));
    assert!(!world.send(follower, Some(leader), "followers know no names"));
    assert!(!world.send(leader, Some(9), "nobody"));
    world.settle();
    let text = |from: u32, text: &str| (ServerId(from), text.to_owned());
    let at_leader = [
        text(leader, "here"),
        text(leader, "here too"),
        text(follower, "up"),
    ];
    assert_eq!(world.app(leader).messages, at_leader);
    assert_eq!(world.app(follower).messages, [text(leader, "down")]);
    assert_eq!(world.disk(leader).log.len(), 0, "none of it is logged");
}

#[test]
fn an_ensemble_of_one_needs_nobody() {
    let mut world = Nodes::running(1);
    let put = world.propose(1, "set a 5");
    let flush = world.flush(1);
    world.settle();
    let completions = world.completions(1);
    assert!(delivered(put, 5)(&completions[0]), "{completions:?}");
    assert_eq!(completions[1..], [Completion::Flushed { id: flush }]);
}

#[test]
fn what_cannot_be_read_is_reported_and_passed_over() {
    let mut world = Nodes::running(1);
    let zxid = world.machine(1).node.applied();
    let next = Zxid::new(
        world.machine(1).node.peer().current_epoch(),
        zxid.counter + 1,
    );
    let garbled = world.with_machine(1, |server, _| {
        let payload: std::sync::Arc<[u8]> = [77, 0, 0][..].into();
        let mut ready = Ready {
            deliver: vec![Entry {
                zxid: next,
                payload: payload.clone(),
            }],
            payloads: vec![(ServerId(2), payload)],
            ..Ready::default()
        };
        server.node.take(&mut ready);
        server.node.ready(&mut server.ready);
        std::mem::take(&mut server.ready.garbled)
    });
    let error = Malformed::Kind { found: 77 };
    let senders = [Sender::Log(next), Sender::Server(ServerId(2))];
    assert_eq!(garbled, senders.map(|sender| Garbled { sender, error }));
    assert_eq!(
        world.machine(1).node.applied(),
        next,
        "it has its place in the order"
    );
    assert_eq!(world.app(1).delivered, []);
}

#[test]
fn what_an_earlier_run_asked_for_completes_nothing() {
    let mut world = Nodes::running(1);
    world.stick(1, true);
    let id = world.propose(1, "set a 5");
    let flush = RequestId(id.0 + 1);
    let epoch = world.machine(1).node.peer().current_epoch();
    let completed = world.with_machine(1, |server, _| {
        let origin = Origin {
            server: ServerId(1),
            run: 999,
            request: id,
        };
        let payload = envelope::Letter::Request(origin, b"a 6").encode();
        let zxid = Zxid::new(epoch, 1);
        let namesake = Origin {
            server: ServerId(9),
            ..server.node.origin(id)
        };
        let next = zxid.next();
        let call = |request| envelope::Call { run: 999, request };
        let letters = [
            envelope::Letter::Answer(call(id), zxid, b""),
            envelope::Letter::Refused(call(id), Refusal::Full),
            envelope::Letter::Flushed(call(flush), zxid),
        ];
        let mut ready = Ready {
            deliver: vec![
                Entry { zxid, payload },
                Entry {
                    zxid: next,
                    payload: envelope::Letter::Request(namesake, b"a 7").encode(),
                },
            ],
            payloads: letters.map(|word| (ServerId(2), word.encode())).into(),
            ..Ready::default()
        };
        server.node.take(&mut ready);
        server.node.ready(&mut server.ready);
        server.ready.completions.len()
    });
    assert_eq!(completed, 0);
    assert_eq!(world.app(1).get("a"), 7, "it is delivered all the same");
}

#[test]
fn a_word_of_the_wrong_kind_or_run_completes_nothing() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(follower, leader);
    let flush = world.flush(follower);
    let put = world.propose(follower, "set a 5");
    let completed = world.with_machine(follower, |server, _| {
        let run = server.node.origin(put).run;
        let call = |request| envelope::Call { run, request };
        let earlier = |request| envelope::Call {
            run: run + 1,
            request,
        };
        let letters = [
            envelope::Letter::Flushed(call(put), Zxid::ZERO),
            envelope::Letter::Answer(call(flush), Zxid::ZERO, b"5"),
            envelope::Letter::Refused(call(RequestId(99)), Refusal::Full),
            envelope::Letter::Flushed(earlier(flush), Zxid::ZERO),
        ];
        let payloads = letters.map(|letter| (ServerId(leader), letter.encode()));
        let mut ready = Ready {
            payloads: payloads.into(),
            ..Ready::default()
        };
        server.node.take(&mut ready);
        server.node.ready(&mut server.ready);
        server.ready.completions.len()
    });
    assert_eq!(completed, 0);
    world.release(follower, leader);
    world.settle();
    assert_eq!(world.completions(follower).len(), 2, "each by its own word");
}

#[test]
fn a_request_to_a_server_that_does_not_lead_comes_to_nothing() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    assert!(matches!(
        world.machine(follower).node.standing(),
        Standing::Following { .. }
    ));
    world.with_machine(follower, |server, _| {
        let call = envelope::Call {
            run: 1,
            request: RequestId(1),
        };
        let letters = [
            envelope::Letter::Request(call.of(ServerId(leader)), b"set a 5"),
            envelope::Letter::Flush(call),
        ];
        let mut ready = Ready {
            payloads: letters
                .map(|letter| (ServerId(leader), letter.encode()))
                .into(),
            ..Ready::default()
        };
        server.node.take(&mut ready);
    });
    world.crash(leader);
    world.run(3_000);
    let leader = world.leader();
    assert_eq!(
        world.app(leader).get("a"),
        0,
        "not even when it leads later"
    );
    assert!(world.machine(follower).node.inbox.is_empty());
}

#[test]
fn a_request_in_the_name_of_another_server_is_passed_over() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.with_machine(leader, |server, _| {
        let forged = Origin {
            server: ServerId(leader),
            run: 1,
            request: RequestId(1),
        };
        let payload = envelope::Letter::Request(forged, b"set a 5").encode();
        let mut ready = Ready {
            payloads: vec![(ServerId(follower), payload)],
            ..Ready::default()
        };
        server.node.take(&mut ready);
        assert!(server.node.inbox.is_empty());
        server.node.ready(&mut server.ready);
        let found = forged.server;
        let garbled = [Garbled {
            sender: Sender::Server(ServerId(follower)),
            error: Malformed::Server { found },
        }];
        assert_eq!(server.ready.garbled, garbled);
    });
}

#[test]
fn requests_that_have_their_answer_and_wait_for_a_delivery_count_as_well() {
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
    for _ in 0..8 {
        world.propose(follower, "get a");
    }
    world.settle();
    assert_eq!(world.try_propose(follower, "get a"), Err(Refusal::Full));
    world.stick(follower, false);
    world.settle();
    assert_eq!(world.completions(follower).len(), 8);
}

#[test]
fn flushes_that_wait_behind_a_request_count_as_well() {
    let (mut world, _, follower) = clogged();
    world.propose(follower, "add a 1");
    for _ in 0..7 {
        world.flush(follower);
    }
    world.settle();
    assert_eq!(world.try_propose(follower, "get a"), Err(Refusal::Full));
    unclog(&mut world);
    assert_eq!(world.completions(follower).len(), 8);
}

#[test]
fn a_flush_behind_a_request_that_is_refused_completes() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(follower, leader);
    let put = world.propose(follower, "set a 5");
    let flush = world.flush(follower);
    let completions = world.with_machine(follower, |server, _| {
        let run = server.node.origin(put).run;
        let call = |request| envelope::Call { run, request };
        let refusal = Refusal::Full;
        let letters = [
            envelope::Letter::Flushed(call(flush), Zxid::ZERO),
            envelope::Letter::Refused(call(put), refusal),
        ];
        let mut ready = Ready {
            payloads: letters
                .map(|letter| (ServerId(leader), letter.encode()))
                .into(),
            ..Ready::default()
        };
        server.node.take(&mut ready);
        server.node.ready(&mut server.ready);
        std::mem::take(&mut server.ready.completions)
    });
    let ids: Vec<RequestId> = completions.iter().map(Completion::id).collect();
    assert_eq!(ids, [put, flush]);
}
