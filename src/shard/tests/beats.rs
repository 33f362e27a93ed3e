//! Beats, joins and ends, told as stories.

use super::world::World;
use crate::time::Millis;

#[test]
fn a_join_a_beat_a_leave_and_a_beat_on_one_connection_are_answered_in_order() {
    let mut world = World::new(1);
    let client = world.connect(0);
    for line in ["PUT /g/m", "HEAD /g/m", "DELETE /g/m", "HEAD /g/m"] {
        world.write(client, line, "", b"");
    }
    world.quiet();
    assert_eq!(world.statuses(client), [201, 204, 204, 404]);
}

#[test]
fn a_client_that_shuts_its_side_after_a_join_is_answered() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "PUT /g/m");
    world.clients[client].shut = true;
    world.pump(client, 0);
    assert!(world.clients[client].open, "an answer is owed");
    world.quiet();
    assert_eq!(world.statuses(client), [201]);
    assert!(!world.clients[client].open);
}

#[test]
fn a_timeout_raised_while_the_session_is_handed_over_is_kept() {
    let mut world = World::new(2);
    let (here, there) = (world.connect(0), world.connect(1));
    assert_eq!(world.ask(here, "PUT /g/m?timeout=200ms").status, 201);
    world.send(there, "PUT /g/m?timeout=60");
    while world.core_takes(1) {}
    world.core_syncs();
    // The shard that joined hears of it and claims; the one that holds has not heard yet.
    world.shard_hears(1);
    world.shard_gets(1, 0);
    world.quiet();
    assert_eq!(world.statuses(there), [200]);
    world.pass(5_000);
    assert!(world.is_active("g", "m"), "S2");
}

#[test]
fn a_session_that_one_shard_knows_to_have_ended_is_not_brought_back_from_another() {
    let mut world = World::new(2);
    let (here, there) = (world.connect(0), world.connect(1));
    world.ask(here, "PUT /g/m?timeout=20");
    world.send(there, "DELETE /g/m");
    world.core_takes(1);
    world.core_syncs();
    world.shard_hears(1);
    assert_eq!(world.statuses(there), [204]);
    // Shard 0 has not heard: a claim finds the session there still.
    world.send(there, "HEAD /g/m");
    world.shard_gets(1, 0);
    world.quiet();
    assert_eq!(world.statuses(there), [204, 404]);
    assert!(world.holders("g", "m").is_empty());
    world.pass(20);
    world.assert_nothing_is_kept();
}

#[test]
fn a_client_told_of_the_end_by_one_shard_is_told_the_same_by_another() {
    let mut world = World::new(2);
    let (here, there) = (world.connect(0), world.connect(1));
    world.ask(here, "PUT /g/m?timeout=20");
    world.send(there, "DELETE /g/m");
    world.core_takes(1);
    world.core_syncs();
    world.shard_hears(1);
    assert_eq!(world.statuses(there), [204]);
    world.send(here, "HEAD /g/m");
    assert_eq!(world.statuses(here), [201], "not answered from what was");
    world.quiet();
    assert_eq!(world.statuses(here), [201, 404]);
}

#[test]
fn a_session_on_its_way_between_two_shards_is_not_called_ended_by_a_third() {
    let mut world = World::new(3);
    let clients = [0, 1, 2].map(|shard| world.connect(shard));
    let id = world.ask(clients[1], "PUT /g/m?timeout=20").session();
    let id = id.expect("a session");
    world.send(clients[2], "HEAD /g/m");
    world.shard_gets(2, 1);
    assert!(world.holders("g", "m").is_empty(), "it is on its way");
    let packed = "content-type: application/octet-stream\r\n";
    world.write(clients[0], "POST /-/heartbeats", packed, &id.to_bytes());
    world.pump(clients[0], usize::MAX);
    for shard in [1, 2] {
        world.shard_gets(0, shard);
        world.shard_gets(shard, 0);
    }
    while world.core_takes(0) {}
    world.shard_hears(0);
    world.quiet();
    world.pass(20);
    assert_eq!(
        world.last(clients[0]).text(),
        "{\"failed\":[],\"renewed\":1}\n"
    );
}

#[test]
fn a_session_renewed_while_its_expiry_is_proposed_is_not_called_renewed_if_it_ended() {
    let mut world = World::new(2);
    let first = world.connect(0);
    let joined = world.ask(first, "PUT /g/m?timeout=100ms");
    let mut world = world.restart();
    world.start();
    // Dealt by its number; this is where it is now.
    let holder = world.holders("g", "m")[0];
    let other = world.connect(1 - holder);
    // Renewed elsewhere, and due here, at the same time.
    world.send(other, "PUT /g/m?timeout=100ms");
    for _ in 0..15 {
        world.now = world.now + Millis(10);
        world.ticks(holder, true);
    }
    assert_eq!(world.to_core[holder].len(), 1, "an expiry is proposed");
    world.core_takes(1 - holder);
    world.core_takes(holder);
    world.quiet();
    world.pass(30);
    let refused = world.last(other);
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("the session has just ended"));
    let again = world.ask(other, "PUT /g/m?timeout=100ms");
    assert_eq!(again.status, 201);
    assert_ne!(again.session(), joined.session());
    world.pass(300);
    assert!(
        !world.is_active("g", "m"),
        "S4: it expires when it has been silent"
    );
    world.assert_nothing_is_kept();
}

#[test]
fn a_join_retried_after_a_lost_reply_renews_the_same_session() {
    for shard in [0, 1] {
        let mut world = World::new(2);
        let first = world.connect(0);
        world.send(first, "PUT /g/m?timeout=60");
        while world.core_takes(0) {}
        world.core_syncs();
        world.drop_client(first);
        let second = world.connect(shard);
        let retried = world.ask(second, "PUT /g/m?timeout=60");
        assert_eq!((retried.status, retried.version()), (200, Some(0)));
        assert_eq!(world.holders("g", "m"), [shard]);
    }
}

#[test]
fn of_two_joins_that_race_from_two_shards_one_creates_and_one_renews() {
    let mut world = World::new(2);
    let clients = [0, 1].map(|shard| world.connect(shard));
    for client in clients {
        world.send(client, "PUT /g/m?timeout=60");
    }
    while world.core_takes(1) {}
    while world.core_takes(0) {}
    world.core_syncs();
    // The one that renews hears first, and claims a session that is nowhere yet.
    world.shard_hears(0);
    world.shard_gets(0, 1);
    world.shard_gets(1, 0);
    world.quiet();
    world.pass(20);
    assert_eq!(world.statuses(clients[1]), [201]);
    assert_eq!(world.statuses(clients[0]), [200]);
    let sessions = clients.map(|client| world.last(client).session());
    assert_eq!(sessions[0], sessions[1]);
    assert_eq!(world.holders("g", "m").len(), 1);
}

#[test]
fn a_beat_at_another_shard_moves_the_session_there_once() {
    let mut world = World::new(3);
    let clients = [0, 1, 2].map(|shard| world.connect(shard));
    let id = world.ask(clients[0], "PUT /g/m?timeout=60").session();
    let applied = world.applied();
    assert!(applied > 0, "the joins");
    for _ in 0..5 {
        let beaten = world.ask(clients[2], "HEAD /g/m");
        assert_eq!((beaten.status, beaten.session()), (204, id));
        assert_eq!(world.holders("g", "m"), [2]);
    }
    let handed_over = |world: &World, shard: usize| {
        let counters = &world.shards[shard].counters;
        counters.handed_over.get()
    };
    let moves = [0, 1, 2].map(|shard| handed_over(&world, shard));
    assert_eq!(moves, [1, 0, 0]);
    assert_eq!(world.applied(), applied, "S7: beats propose nothing");
}

#[test]
fn a_session_that_ends_on_its_way_is_gone_when_it_arrives() {
    let mut world = World::new(2);
    let clients = [0, 1].map(|shard| world.connect(shard));
    world.ask(clients[0], "PUT /g/m?timeout=60");
    world.send(clients[1], "HEAD /g/m");
    world.shard_gets(1, 0);
    world.send(clients[0], "DELETE /g/m");
    while world.core_takes(0) {}
    world.core_syncs();
    world.shard_hears(1);
    world.shard_gets(0, 1);
    assert!(world.holders("g", "m").is_empty());
    world.quiet();
    assert_eq!(world.statuses(clients[1]), [404]);
    assert_eq!(world.statuses(clients[0]), [201, 204]);
    world.pass(20);
    world.assert_nothing_is_kept();
}

#[test]
fn a_member_that_has_left_and_joined_again_is_not_displaced_by_its_old_session() {
    let mut world = World::new(2);
    let clients = [0, 1].map(|shard| world.connect(shard));
    world.ask(clients[0], "PUT /g/m?timeout=60");
    world.send(clients[1], "HEAD /g/m");
    world.shard_gets(1, 0);
    // The old session is in the air; the new one is created where it will land.
    world.send(clients[0], "PUT /g/m?takeover&timeout=60");
    while world.core_takes(0) {}
    let other = world.connect(1);
    world.send(other, "PUT /g/m?takeover&timeout=60");
    while world.core_takes(1) {}
    world.core_syncs();
    world.shard_hears(1);
    world.shard_gets(0, 1);
    world.quiet();
    world.pass(20);
    let newest = world.last(other).session();
    assert_eq!(world.ask(other, "HEAD /g/m").session(), newest);
    assert_eq!(world.holders("g", "m"), [1]);
}

#[test]
fn a_ghost_that_was_taken_over_gets_409_wherever_it_beats() {
    let mut world = World::new(2);
    let clients = [0, 1].map(|shard| world.connect(shard));
    let ghost = world.ask(clients[0], "PUT /g/m?timeout=60").session();
    let taken = world.ask(clients[1], "PUT /g/m?takeover&timeout=60");
    assert_eq!(taken.status, 201);
    assert!(taken.session() > ghost, "ids fence");
    let named = format!("x-session-id: {}\r\n", ghost.expect("a session"));
    for client in clients {
        let refused = world.ask_with(client, "HEAD /g/m", &named, b"");
        assert_eq!(refused.status, 409);
        assert_eq!(refused.header("x-problem"), Some("session_conflict"));
    }
}

#[test]
fn a_beat_that_names_another_session_touches_nothing() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=300ms");
    let named = format!("x-session-id: {:032x}\r\n", 1);
    for _ in 0..3 {
        world.pass(90);
        assert_eq!(world.ask_with(client, "HEAD /g/m", &named, b"").status, 409);
        assert_eq!(world.ask_with(client, "GET /g/m", &named, b"").status, 409);
    }
    world.pass(60);
    assert!(!world.is_active("g", "m"), "nothing was touched");
}

#[test]
fn after_a_leave_the_name_is_unknown_and_the_session_is_gone() {
    let mut world = World::new(2);
    let clients = [0, 1].map(|shard| world.connect(shard));
    let id = world.ask(clients[0], "PUT /g/m?timeout=60").session();
    let named = format!("x-session-id: {}\r\n", id.expect("a session"));
    assert_eq!(world.ask(clients[1], "DELETE /g/m").status, 204);
    for client in clients {
        assert_eq!(world.ask(client, "HEAD /g/m").status, 404);
        assert_eq!(world.ask_with(client, "HEAD /g/m", &named, b"").status, 410);
    }
}

#[test]
fn a_client_ahead_of_this_server_waits_a_second_for_it_and_then_hears_503() {
    for line in ["HEAD /g/m", "GET /g/m", "GET /g"] {
        let mut world = World::new(2);
        let clients = [0, 1].map(|shard| world.connect(shard));
        world.ask(clients[0], "PUT /g/m?timeout=60");
        world.write(clients[1], line, "x-group-version: 1\r\n", b"");
        world.quiet();
        world.pass(900);
        assert!(world.statuses(clients[1]).is_empty(), "{line} waits");
        world.pass(150);
        assert_eq!(world.statuses(clients[1]), [503], "{line}");
        world.write(clients[1], line, "x-group-version: 1\r\n", b"");
        world.quiet();
        world.ask(clients[0], "PUT /g/another?timeout=60");
        world.pass(30);
        assert!(world.last(clients[1]).status < 300, "{line} has caught up");
        world.drop_client(clients[0]);
        world.drop_client(clients[1]);
        world.pass(61_000);
        world.assert_nothing_is_kept();
    }
}

#[test]
fn a_batch_names_exactly_those_that_it_could_not_renew() {
    let mut world = World::new(2);
    let clients = [0, 1].map(|shard| world.connect(shard));
    for (index, client) in [0, 1, 0, 1].into_iter().enumerate() {
        let line = format!("PUT /g/m{index}?timeout=60");
        assert_eq!(world.ask(clients[client], &line).status, 201);
    }
    let gone = world.ask(clients[0], "PUT /g/gone?timeout=60").session();
    world.ask(clients[0], "DELETE /g/gone");
    let body = b"g/m0\ng/m1\n\ng/nobody\nnonsense\ng/m2\ng/m3\ng/gone";
    // What is about one member is not about a batch.
    let headers = format!("x-session-id: {:032x}\r\nx-group-version: 99\r\n", 1);
    let answer = world.ask_with(clients[0], "POST /-/heartbeats", &headers, body);
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(json["renewed"], 4, "{json}");
    let mut lines: Vec<(u64, u64)> = json["failed"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|failure| {
            let number = |key: &str| failure[key].as_u64().expect("a number");
            (number("line"), number("status"))
        })
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, [(4, 404), (5, 400), (8, 404)]);
    let gone = gone.expect("a session").to_bytes();
    let packed = "content-type: application/octet-stream\r\n";
    let answer = world.ask_with(clients[1], "POST /-/heartbeats", packed, &gone);
    assert!(answer.text().contains("\"index\":0") && answer.text().contains("410"));
}

#[test]
fn a_session_handed_to_a_shard_that_has_heard_less_shows_the_version_of_its_group_as_it_is() {
    let mut world = World::new(2);
    let (here, there) = (world.connect(0), world.connect(1));
    world.ask(there, "PUT /g/x?timeout=60");
    // The group goes and comes again, and shard 1 hears of none of it.
    for line in ["DELETE /g/x", "DELETE /g", "PUT /g/y?timeout=60"] {
        world.send(here, line);
        while world.core_takes(0) {}
        world.core_syncs();
        while world.shard_hears(0) {}
    }
    assert_eq!(world.statuses(here), [204, 204, 201]);
    world.send(there, "HEAD /g/y");
    world.shard_gets(1, 0);
    world.shard_gets(0, 1);
    world.quiet();
    assert_eq!(world.last(there).status, 204);
    let joined = world.ask(here, "PUT /g/z?timeout=60");
    let beaten = world.ask(there, "HEAD /g/y");
    assert_eq!(beaten.version(), joined.version());
}
