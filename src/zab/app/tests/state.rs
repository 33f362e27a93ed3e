//! How the application comes to its state: replay, snapshots, and what goes on meanwhile.

use super::*;
use crate::zab::app::envelope::{Call, Letter};
use crate::zab::app::node::AHEAD_MAX;
use crate::zab::{Entry, Ready, Replay, Standing};

fn put(world: &mut Nodes, id: u32, values: std::ops::RangeInclusive<u64>) {
    for value in values {
        world.propose(id, &format!("set a{value} {value}"));
        world.settle();
        world.completions(id);
    }
}

#[test]
fn a_start_reads_the_log_before_anybody_is_told_of_a_leader() {
    let mut world = Nodes::running(3);
    put(&mut world, 1, 1..=20);
    for server in 1..=3 {
        world.crash(server);
    }
    world.start_all();
    world.run(3_000);
    let leader = world.leader();
    for server in 1..=3 {
        assert_eq!(world.app(server).delivered.len(), 20);
        assert_eq!(world.app(server).get("a20"), 20);
    }
    assert!(world.app(leader).told[0].starts_with("leading"));
}

#[test]
fn a_leader_that_still_reads_its_log_takes_requests_and_preprocesses_them_afterwards() {
    let mut world = Nodes::running(3);
    put(&mut world, 1, 1..=5);
    for server in 1..=3 {
        world.crash(server);
        world.stop_replay(server, true);
    }
    world.start_all();
    world.run_until("a leader", |world| {
        let leads =
            |id: &ServerId| world.machine(id.0).node.peer().phase() == crate::zab::Phase::Leading;
        world.ids().iter().any(leads)
    });
    let leads =
        |id: &ServerId| world.machine(id.0).node.peer().phase() == crate::zab::Phase::Leading;
    let leader = world.ids().into_iter().find(leads).unwrap().0;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    world.stop_replay(follower, false);
    world.settle();
    assert_eq!(world.app(follower).told, [format!("following {leader}")]);
    let id = world.propose(follower, "add a5 1");
    world.settle();
    // Its standing is told again, and what waits goes on waiting.
    let third = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();
    world.crash(third);
    world.settle();
    assert_eq!(
        world.app(leader).told,
        Vec::<String>::new(),
        "it does not know yet"
    );
    assert_eq!(world.completions(follower), []);
    world.stop_replay(leader, false);
    world.settle();
    assert!(world.app(leader).told[0].starts_with("leading"));
    assert!(delivered(id, 6)(&world.completions(follower)[0]));
}

#[test]
fn what_is_committed_while_the_log_is_read_is_read_in_its_turn() {
    let mut world = Nodes::running(1);
    let epoch = world.machine(1).node.peer().current_epoch();
    let entry = |counter: u64| {
        let origin = Origin {
            server: ServerId(9),
            run: 1,
            request: RequestId(counter),
        };
        let txn = format!("a {counter}");
        Entry {
            zxid: Zxid::new(epoch, counter),
            payload: Letter::Request(origin, txn.as_bytes()).encode(),
        }
    };
    let following = Standing::Following {
        leader: ServerId(9),
        epoch: epoch.next(),
    };
    world.with_machine(1, |server, _| {
        let replay = |after: Zxid, upto: u64| Replay {
            after,
            upto: Zxid::new(epoch, upto),
        };
        let first = replay(Zxid::ZERO, 2);
        server.node.take(&mut Ready {
            replay: Some(first),
            deliver: vec![entry(3)],
            standing: Some(Standing::Recovering),
            ..Ready::default()
        });
        server.node.take(&mut Ready {
            deliver: vec![entry(4)],
            standing: Some(following.clone()),
            ..Ready::default()
        });
        server.node.ready(&mut server.ready);
        assert_eq!(server.ready.replay, Some(first));
        server.node.on_replayed(&entry(1));
        server.node.on_replayed(&entry(1));
        assert_eq!(server.node.applied(), entry(1).zxid);
        server.node.take(&mut Ready {
            replay: Some(replay(entry(4).zxid, 5)),
            ..Ready::default()
        });
        server.node.ready(&mut server.ready);
        assert_eq!(server.ready.replay, None, "one at a time");
        server.node.on_replayed(&entry(2));
        server.node.ready(&mut server.ready);
        assert_eq!(server.ready.replay, Some(replay(entry(2).zxid, 5)));
        server.node.on_replayed(&entry(3));
        assert_eq!(
            server.node.standing(),
            &Standing::Recovering,
            "not there yet"
        );
        server.node.on_replayed(&entry(4));
        server.node.on_replayed(&entry(5));
        assert_eq!(server.node.standing(), &following);
        server.node.take(&mut Ready {
            deliver: vec![entry(6)],
            ..Ready::default()
        });
        server.node.ready(&mut server.ready);
        assert_eq!(server.ready.replay, None);
    });
    assert_eq!(world.app(1).get("a"), 6);
    assert_eq!(world.app(1).delivered.len(), 6, "each once");
}

#[test]
fn what_is_committed_while_the_log_is_read_does_not_put_off_its_end() {
    let mut world = Nodes::running(1);
    let epoch = world.machine(1).node.peer().current_epoch();
    let at = |counter: u64| Zxid::new(epoch, counter);
    let entry = |counter| Entry {
        zxid: at(counter),
        payload: [][..].into(),
    };
    let (kept, half) = (AHEAD_MAX as u64, AHEAD_MAX as u64 / 2);
    let taken = |deliver| Ready {
        deliver,
        ..Ready::default()
    };
    world.with_machine(1, |server, _| {
        let (after, upto) = (Zxid::ZERO, at(2));
        server.node.take(&mut Ready {
            replay: Some(Replay { after, upto }),
            ..taken((3..=kept + 2).map(entry).collect())
        });
        // One more than are kept: the older half must be read.
        server.node.take(&mut taken(vec![entry(kept + 3)]));
        server.node.ready(&mut server.ready);
        server.node.on_replayed(&entry(1));
        server.node.on_replayed(&entry(2));
        server.node.ready(&mut server.ready);
        let (after, upto) = (at(2), at(2 + half));
        assert_eq!(server.ready.replay, Some(Replay { after, upto }));
        // What comes meanwhile does not move the end of the reading.
        server.node.take(&mut taken(vec![entry(kept + 4)]));
        (3..=2 + half).for_each(|counter| server.node.on_replayed(&entry(counter)));
        assert_eq!(server.node.applied(), at(kept + 4), "the rest was kept");
        server.node.ready(&mut server.ready);
        assert_eq!(server.ready.replay, None);
    });
}

#[test]
#[should_panic(expected = "would be delivered after")]
fn a_log_that_leaves_something_out_is_a_bug() {
    let mut world = Nodes::running(1);
    let epoch = world.machine(1).node.peer().current_epoch();
    world.with_machine(1, |server, _| {
        server.node.on_replayed(&Entry {
            zxid: Zxid::new(epoch, 2),
            payload: [][..].into(),
        });
    });
}

#[test]
fn a_snapshot_brings_a_server_up_that_the_log_no_longer_reaches() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    put(&mut world, leader, 1..=3);
    world.crash(follower);
    put(&mut world, leader, 4..=10);
    world.settings.limits.window_entries_max = 0;
    for server in (1..=3).filter(|id| *id != follower) {
        world.snapshot(server);
        world.crash(server);
        world.start(server);
    }
    world.run(5_000);
    world.start(follower);
    world.run(5_000);
    assert!(world.app(follower).told.contains(&"restored".to_owned()));
    assert_eq!(world.machine(follower).save(), world.machine(leader).save());
    let leader = world.leader();
    put(&mut world, leader, 11..=12);
    world.run(300);
    assert_eq!(world.machine(follower).save(), world.machine(leader).save());
    assert_eq!(world.app(follower).get("a10"), 10);
}

#[test]
fn equal_states_are_saved_as_equal_bytes_and_restored_to_the_same() {
    let mut world = Nodes::running(3);
    let leader = world.leader();
    put(&mut world, leader, 1..=7);
    world.run(10);
    let saved = world.machine(leader).save();
    for server in 1..=3 {
        assert_eq!(world.machine(server).save(), saved);
        world.snapshot(server);
    }
    put(&mut world, leader, 8..=9);
    world.run(10);
    for server in 1..=3 {
        world.crash(server);
    }
    world.start_all();
    world.run(3_000);
    for server in 1..=3 {
        assert_eq!(
            world.app(server).delivered.len(),
            2,
            "what the snapshot has is not replayed"
        );
        assert_eq!(world.app(server).get("a9"), 9);
        assert_eq!(world.app(server).get("a1"), 1);
    }
}

#[test]
fn a_restore_in_the_middle_of_a_replay_takes_its_place() {
    let mut world = Nodes::running(1);
    let epoch = world.machine(1).node.peer().current_epoch();
    let at = |counter| Zxid::new(epoch, counter);
    let old = Entry {
        zxid: at(2),
        payload: [][..].into(),
    };
    world.with_machine(1, |server, _| {
        server.node.take(&mut Ready {
            replay: Some(Replay {
                after: Zxid::ZERO,
                upto: at(3),
            }),
            ..Ready::default()
        });
        server.node.restore(at(3), &mut &b"a 7\n"[..]).unwrap();
        server.node.on_replayed(&old);
        assert_eq!(server.node.applied(), at(3));
        server.node.take(&mut Ready {
            deliver: vec![Entry {
                zxid: at(4),
                payload: [][..].into(),
            }],
            ..Ready::default()
        });
        assert_eq!(server.node.applied(), at(4), "nothing is read any more");
        server.node.ready(&mut server.ready);
    });
    assert_eq!(world.app(1).get("a"), 7);
}

#[test]
fn a_damaged_snapshot_makes_the_server_withdraw() {
    let mut world = Nodes::running(1);
    let fenced = world.with_machine(1, |server, _| {
        let damaged = server.node.restore(Zxid::ZERO, &mut &b"nonsense"[..]);
        assert_eq!(damaged, Err(Damaged("no space".to_owned())));
        server.node.ready(&mut server.ready);
        server.ready.fenced.is_some()
    });
    assert!(fenced);
}

#[test]
fn a_restore_completes_what_waited_for_the_transactions_in_it() {
    let mut world = Nodes::running(3);
    let (leader, follower) = (world.leader(), world.follower());
    world.hold(follower, leader);
    let id = world.flush(follower);
    let at = Zxid::new(world.machine(follower).node.peer().current_epoch(), 3);
    let completions = world.with_machine(follower, |server, _| {
        let run = server.node.origin(id).run;
        let call = Call { run, request: id };
        let word = Letter::Flushed(call, at);
        server.node.take(&mut Ready {
            payloads: vec![(ServerId(leader), word.encode())],
            ..Ready::default()
        });
        server.node.restore(at, &mut &b"a 7\n"[..]).unwrap();
        server.node.ready(&mut server.ready);
        std::mem::take(&mut server.ready.completions)
    });
    assert_eq!(completions, [Completion::Flushed { id }]);
}
