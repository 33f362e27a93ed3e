//! Limits: what is refused, and what goes on.

use super::super::Phase;
use super::world::{Tune, World};

#[test]
fn changes_beyond_what_may_be_asked_are_refused_and_beats_go_on() {
    let mut world = World::tuned(Tune {
        shards: 1,
        asks_max: 2,
        ..Tune::default()
    });
    let beating = world.connect(0);
    world.ask(beating, "PUT /g/m");
    let joining: Vec<usize> = (0..3).map(|_| world.connect(0)).collect();
    for (index, client) in joining.iter().enumerate() {
        world.send(*client, &format!("PUT /g/n{index}"));
    }
    assert_eq!(world.statuses(joining[2]), [503]);
    assert!(world.last(joining[2]).header("retry-after").is_some());
    world.send(beating, "HEAD /g/m");
    assert_eq!(world.statuses(beating), [201, 204]);
    world.quiet();
    assert_eq!(world.statuses(joining[0]), [201]);
    assert_eq!(world.statuses(joining[1]), [201]);
}

#[test]
fn where_changes_are_refused_there_is_room_for_the_searches_of_beats() {
    let mut world = World::tuned(Tune {
        changes_max: 2,
        ..Tune::default()
    });
    let (here, there) = (world.connect(0), world.connect(1));
    world.ask(there, "PUT /g/m?timeout=20");
    let joining: Vec<usize> = (0..3).map(|_| world.connect(0)).collect();
    for (index, client) in joining.iter().enumerate() {
        world.send(*client, &format!("PUT /g/n{index}"));
    }
    assert_eq!(world.statuses(joining[2]), [503]);
    // Its session is at the other shard.
    world.send(here, "HEAD /g/m");
    world.shard_gets(0, 1);
    world.shard_gets(1, 0);
    assert_eq!(world.statuses(here), [204], "before any join is answered");
    assert!(world.statuses(joining[0]).is_empty());
}

#[test]
fn changes_that_come_late_are_refused_in_their_turn_and_beats_are_not() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=20");
    world.send(client, "PUT /g/first");
    world.shards[0].late(true);
    for line in ["PUT /g/n", "PUT /g/m/config", "DELETE /g/m", "HEAD /g/m"] {
        world.send(client, line);
    }
    assert_eq!(world.statuses(client), [201], "the first is at the core");
    world.quiet();
    assert_eq!(world.statuses(client), [201, 201, 503, 503, 503, 204]);
    let refused = &world.clients[client].answers[2].1;
    assert!(refused.text().contains("\"overloaded\"") && refused.text().contains("t:1"));
    assert!(refused.header("retry-after").is_some());
    world.send(client, "DELETE /g/m");
    assert_eq!(world.last(client).status, 503, "at once");
    world.shards[0].late(false);
    assert_eq!(world.ask(client, "DELETE /g/m").status, 204);
}

/// A world without room for changes, and a client that has been refused one already.
fn full(tune: Tune) -> (World, usize) {
    let mut world = World::tuned(Tune { shards: 1, ..tune });
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=20");
    world.shards[0].late(true);
    assert_eq!(world.ask(client, "PUT /g/n").status, 503);
    world.clients[client].answers.clear();
    (world, client)
}

#[test]
fn joins_refused_unread_are_answered_and_counted_like_any_other() {
    let (mut world, client) = full(Tune::default());
    let counted = |world: &World| {
        let counters = &world.shards[0].counters;
        let all = [&counters.requests, &counters.problems, &counters.overloads];
        all.map(|counter| counter.get())
    };
    let before = counted(&world);
    for line in [
        "PUT /g/n",
        "PUT /g/n?timeout=nonsense",
        "PUT /h/n?takeover",
        "HEAD /g/m",
    ] {
        world.write(client, line, "", b"");
    }
    world.pump(client, usize::MAX);
    let pending = world.shards[0]
        .conn(world.clients[client].conn)
        .map(|open| open.pending());
    assert_eq!(pending, Some(0));
    assert_eq!(
        world.statuses(client),
        [503, 503, 503, 204],
        "the second has not been read"
    );
    let refused = &world.clients[client].answers[1].1;
    assert!(refused.text().contains("\"overloaded\"") && refused.text().contains("t:1"));
    let after = counted(&world);
    assert_eq!([0, 1, 2].map(|at| after[at] - before[at]), [4, 3, 3]);
    world.shards[0].late(false);
    assert_eq!(world.ask(client, "PUT /g/n?timeout=nonsense").status, 400);
    assert_eq!(world.ask(client, "PUT /g/n").status, 201);
}

#[test]
fn joins_are_refused_unread_in_their_turn_and_no_more_than_may_wait() {
    let (mut world, client) = full(Tune {
        pipelined_max: 4,
        ..Tune::default()
    });
    world.shards[0].late(false);
    world.write(client, "PUT /g/o", "", b"");
    world.pump(client, usize::MAX);
    world.shards[0].late(true);
    for _ in 0..9 {
        world.write(client, "PUT /g/n", "", b"");
    }
    world.pump(client, usize::MAX);
    let conn = world.clients[client].conn;
    assert_eq!(
        world.shards[0].conn(conn).map(|open| open.pending()),
        Some(4)
    );
    assert!(
        world.statuses(client).is_empty(),
        "the first is at the core"
    );
    world.quiet();
    let statuses = world.statuses(client);
    assert_eq!((statuses.len(), statuses[0]), (10, 201));
    assert!(statuses[1..].iter().all(|status| *status == 503));
}

#[test]
fn a_join_behind_a_read_waits_for_its_answer_before_it_is_refused() {
    let (mut world, client) = full(Tune::default());
    world.write(client, "GET /-/cluster", "", b"");
    world.write(client, "PUT /g/n", "", b"");
    world.pump(client, usize::MAX);
    let conn = world.clients[client].conn;
    let pending = world.shards[0].conn(conn).map(|open| open.pending());
    assert_eq!(pending, Some(1), "the page, which the core is asked for");
    world.quiet();
    assert_eq!(world.statuses(client), [200, 503]);
}

#[test]
fn where_no_promise_is_made_joins_are_told_that_and_not_of_overload() {
    let (mut world, client) = full(Tune::default());
    world.shards[0].enter(Phase::Stopping);
    world.write(client, "PUT /g/n", "", b"");
    world.pump(client, usize::MAX);
    assert!(world.last(client).text().contains("\"shutting_down\""));
}

#[test]
fn fewer_changes_are_let_in_after_some_came_late() {
    let mut world = World::new(1);
    let joining: Vec<usize> = (0..6).map(|_| world.connect(0)).collect();
    world.shards[0].late(true);
    world.shards[0].late(false);
    world.pass(10);
    // Of a thousand under way at most, half.
    for number in 0..600 {
        let client = joining[number % joining.len()];
        world.write(client, &format!("PUT /g/n{number}"), "", b"");
    }
    for client in &joining {
        world.pump(*client, usize::MAX);
    }
    world.quiet();
    let statuses = joining.iter().flat_map(|client| world.statuses(*client));
    let let_in = statuses.filter(|status| *status == 201).count();
    assert_eq!(let_in, 500);
}

#[test]
fn a_connection_may_wait_for_others_while_it_is_used_for_changes() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let is_bulk = |world: &World| world.shards[0].is_bulk(world.clients[client].conn);
    for (line, bulk) in [
        ("HEAD /g/m", false),
        ("PUT /g/m?timeout=20", true),
        ("HEAD /g/m", false),
        ("PUT /g/m/config", true),
        // Familiar by now.
        ("HEAD /g/m", false),
        ("DELETE /g/m", true),
        ("GET /g", false),
    ] {
        world.ask(client, line);
        assert_eq!(is_bulk(&world), bulk, "after {line}");
    }
    let listens = "accept: text/event-stream\r\n";
    world.ask(client, "PUT /g/m?timeout=20");
    world.write(client, "GET /g", listens, b"");
    world.quiet();
    assert!(is_bulk(&world), "while it listens");
    world.drop_client(client);
    assert!(!is_bulk(&world));
}

#[test]
fn no_more_sessions_come_to_a_full_shard_by_join_or_by_beat() {
    let mut world = World::tuned(Tune {
        sessions_max: 2,
        ..Tune::default()
    });
    let (here, there) = (world.connect(0), world.connect(1));
    assert_eq!(world.ask(here, "PUT /g/a?timeout=9").status, 201);
    assert_eq!(world.ask(here, "PUT /g/b?timeout=9").status, 201);
    assert_eq!(world.ask(here, "PUT /g/c?timeout=9").status, 503);
    assert_eq!(world.ask(there, "PUT /g/c?timeout=9").status, 201);
    assert_eq!(
        world.ask(here, "HEAD /g/c").status,
        503,
        "and it stays there"
    );
    assert_eq!(world.ask(there, "HEAD /g/c").status, 204);
}

#[test]
fn sessions_on_their_way_to_a_shard_take_up_its_room() {
    let mut world = World::tuned(Tune {
        shards: 3,
        sessions_max: 2,
        ..Tune::default()
    });
    let (one, other) = (world.connect(1), world.connect(2));
    world.ask(one, "PUT /g/a?timeout=9");
    world.ask(one, "PUT /g/b?timeout=9");
    world.ask(other, "PUT /g/c?timeout=9");
    let beating: Vec<usize> = (0..3).map(|_| world.connect(0)).collect();
    for (client, member) in beating.iter().zip(["a", "b", "c"]) {
        world.send(*client, &format!("HEAD /g/{member}"));
    }
    world.quiet();
    let statuses: Vec<u16> = beating.iter().map(|at| world.last(*at).status).collect();
    assert_eq!(statuses, [204, 204, 503]);
    assert_eq!(world.shards[0].sessions(), 2);
}

#[test]
fn refusals_wait_behind_a_join_like_any_other_answer() {
    let mut world = World::tuned(Tune {
        shards: 1,
        pipelined_max: 4,
        ..Tune::default()
    });
    let client = world.connect(0);
    world.write(client, "PUT /g/m", "", b"");
    for _ in 0..100 {
        world.write(client, "GET /g/m?nonsense=1", "", b"");
    }
    world.pump(client, usize::MAX);
    let conn = world.clients[client].conn;
    let pending = |world: &mut World| world.shards[0].conn(conn).expect("open").pending();
    assert_eq!(
        pending(&mut world),
        4,
        "answers kept for a client are bounded"
    );
    world.quiet();
    let statuses = world.statuses(client);
    assert_eq!((statuses.len(), statuses[0]), (101, 201));
    assert!(statuses[1..].iter().all(|status| *status == 400));
}

#[test]
fn news_kept_for_sessions_on_their_way_is_bounded_although_claims_never_cease() {
    let mut world = World::new(2);
    let clients: Vec<usize> = (0..4).map(|_| world.connect(0)).collect();
    let joining = world.connect(1);
    for round in 0..50 {
        // One claim is always out.
        world.send(clients[round % 4], "HEAD /g/nobody");
        world.write(joining, "PUT /g/m", "", b"");
        world.write(joining, "DELETE /g/m", "", b"");
        world.pump(joining, usize::MAX);
        while world.core_takes(1) {}
        world.core_syncs();
        while world.shard_hears(1) {}
        while world.shard_hears(0) {}
        if round > 0 {
            world.shard_gets(0, 1);
            world.shard_gets(1, 0);
        }
        while world.core_takes(0) {}
        while world.shard_hears(0) {}
    }
    assert!(world.shards[0].transit.noted() < 5);
    world.quiet();
    world.pass(20);
    world.pass(1_100);
    world.assert_nothing_is_kept();
}

#[test]
fn the_room_of_kept_documents_is_counted_once_for_each() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=60");
    for round in 0..20 {
        let config = format!("{{\"round\":{round}}}");
        world.ask_with(client, "PUT /g/m/config", "", config.as_bytes());
        let shown = world.ask(client, "GET /g");
        assert!(shown.text().contains(&config));
    }
    let kept = world.last(client).body.len() + b"g".len();
    assert_eq!(world.shards[0].documents.bytes(), kept);
}
