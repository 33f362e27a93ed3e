//! Watching where things cross: news on the way, clients that go, groups that come and go.

use std::rc::Rc;

use super::super::document::Rendered;
use super::ensemble::tell;
use super::watch::{ids, joins, listen, names, text};
use super::world::World;
use crate::mail::{Mail, Tell};
use crate::time::Millis;

const ACCEPT: &str = "accept: text/event-stream\r\n";

fn polls(world: &mut World, client: usize, line: &str) {
    world.write(client, line, "", b"");
    world.quiet();
}

#[test]
fn a_snapshot_that_is_ahead_of_the_news_swallows_them() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    world.shards[0].documents.forget();
    let listener = world.connect(0);
    world.write(listener, "GET /g", ACCEPT, b"");
    world.pump(listener, usize::MAX);
    world.core_takes(0);
    world.core_writes();
    while world.shard_hears(0) {}
    // The question for the document is on its way when a join is decided, and the document
    // that answers it comes before the news of that.
    world.write(client, "PUT /g/late?timeout=1h", "", b"");
    world.pump(client, usize::MAX);
    let document = world.to_core[0].pop_front().expect("a question");
    world.core_takes(0);
    world.core_syncs();
    world.replica.ask(world.now, 0, document);
    world.core_writes();
    let answer = world.to_shard[0].pop_back().expect("a document");
    world.to_shard[0].push_front(answer);
    world.quiet();
    assert_eq!(ids(&world, listener), [1]);
    assert_eq!(names(&world, listener), ["snapshot"]);
    joins(&mut world, client, 5..6);
    assert_eq!(ids(&world, listener), [1, 2]);
}

#[test]
fn a_connection_that_waits_elsewhere_by_now_is_left_alone() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    world.ask(client, "PUT /h/m?timeout=1h");
    // With somebody else there, the list in which the poller rests outlives its poll.
    listen(&mut world, 0, None);
    let poller = world.connect(0);
    polls(&mut world, poller, "GET /g?version=0&wait=1s");
    world.pass(1_100);
    assert_eq!(world.statuses(poller), [200]);
    polls(&mut world, poller, "GET /h?version=0&wait=1m");
    joins(&mut world, client, 1..2);
    assert_eq!(world.statuses(poller), [200], "/h has not changed");
    world.ask(client, "PUT /h/n?timeout=1h");
    assert_eq!(world.statuses(poller), [200, 200]);
    assert!(world.last(poller).text().contains("\"n\""));
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let stays = listen(&mut world, 0, None);
    let poller = world.connect(0);
    for _ in 0..300 {
        let listener = listen(&mut world, 0, None);
        world.drop_client(listener);
        polls(&mut world, poller, "GET /g?version=0&wait=0");
    }
    let index = world.shards[0].room.find(b"g").expect("a spot");
    let resting = world.shards[0].room.resting(index);
    assert!(resting <= 70, "{resting} of 1 are kept");
    assert_eq!(world.shards[0].counters.watchers.get(), 1);
    joins(&mut world, client, 1..2);
    assert_eq!(names(&world, stays), ["snapshot", "join"]);
}

#[test]
fn a_group_is_not_given_up_while_the_core_owes_it_an_answer() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listener = world.connect(0);
    world.write(listener, "GET /h", ACCEPT, b"");
    world.pump(listener, usize::MAX);
    world.drop_client(listener);
    world.now = world.now + Millis(62_000);
    world.ticks(0, true);
    assert_eq!(world.shards[0].room.len(), 1);
    let other = listen(&mut world, 0, None);
    assert_eq!(names(&world, other), ["snapshot"]);
    world.pass(20);
    assert_eq!(world.shards[0].room.len(), 1, "it was given up afterwards");
    joins(&mut world, client, 1..2);
    assert_eq!(names(&world, other), ["snapshot", "join"]);
}

#[test]
fn few_groups_are_kept_that_nobody_watches() {
    let mut world = World::new(1);
    for group in 0..1_100 {
        let listener = world.connect(0);
        world.write(listener, &format!("GET /g{group}"), ACCEPT, b"");
        world.quiet();
        world.drop_client(listener);
    }
    world.pass(10);
    assert!(
        world.shards[0].room.len() <= 1_024,
        "{}",
        world.shards[0].room.len()
    );
}

#[test]
fn a_group_that_was_removed_unheard_is_told_as_gone() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    world.ask(client, "DELETE /g/m0");
    let listener = listen(&mut world, 0, None);
    world.write(client, "DELETE /g", "", b"");
    world.pump(client, usize::MAX);
    world.core_takes(0);
    world.core_syncs();
    // As if the state had been replaced by a later one.
    for tells in &mut world.to_shard[0] {
        tells.retain(|tell| !matches!(tell, Tell::Notice { .. }));
    }
    tell(&mut world, 0, Tell::Reset);
    world.quiet();
    assert_eq!(names(&world, listener), ["snapshot", "remove"]);
    joins(&mut world, client, 0..1);
    assert_eq!(names(&world, listener), ["snapshot", "remove", "snapshot"]);
}

#[test]
fn a_comment_never_stands_within_a_snapshot() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let config = vec![b'x'; 60_000];
    for member in 0..5 {
        let line = format!("PUT /g/m{member}?timeout=1h");
        world.ask_with(client, &line, "", &config);
    }
    let listener = listen(&mut world, 0, None);
    assert_eq!(names(&world, listener), ["snapshot"]);
    world.clients[listener].slow = true;
    tell(&mut world, 0, Tell::Reset);
    world.quiet();
    let conn = world.clients[listener].conn;
    // A first piece has been sent when the silence begins.
    let mut out = Vec::new();
    world.shards[0].resume(conn, world.now, &mut out);
    assert!(!out.is_empty());
    let later = world.now + Millis(16_000);
    let mut comment = Vec::new();
    assert_eq!(world.shards[0].review(conn, later, &mut comment), None);
    assert!(comment.is_empty());
}

#[test]
fn a_busy_group_does_not_keep_another_waiting() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    world.ask(client, "PUT /h/m?timeout=1h");
    for _ in 0..300 {
        listen(&mut world, 0, None);
    }
    let poller = world.connect(0);
    polls(&mut world, poller, "GET /h?wait=1m");
    let conn = world.clients[poller].conn;
    // Both change in one batch of the core's.
    for line in ["PUT /g/more?timeout=1h", "PUT /h/more?timeout=1h"] {
        let other = world.connect(0);
        world.write(other, line, "", b"");
        world.pump(other, usize::MAX);
    }
    while world.core_takes(0) {}
    world.core_syncs();
    let now = world.now;
    for tells in std::mem::take(&mut world.to_shard[0]) {
        world.shards[0].deliver(
            Mail::Core {
                batch: 0,
                tells,
                more: false,
            },
            now,
        );
    }
    world.shards[0].outbox().woken.clear();
    world.shards[0].fan_out(now);
    world.shards[0].fan_out(now);
    let asks = world.shards[0].outbox().asks.len();
    assert_eq!(asks, 1, "the document for {conn:?}");
}

#[test]
fn whoever_listens_to_nothing_says_so_in_text() {
    let mut world = World::new(1);
    let listener = listen(&mut world, 0, None);
    let text = text(&world, listener);
    let retry = text.lines().find_map(|line| line.strip_prefix("retry: "));
    let retry: u64 = retry.expect("a time").parse().expect("milliseconds");
    assert!((500..2_500).contains(&retry), "{retry}");
}

#[test]
fn a_poll_is_not_answered_with_the_older_document_of_others() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    listen(&mut world, 0, None);
    // What some of many are still to be answered with when the group changes again.
    let old = world.replica.state().document(b"g").expect("a group");
    let rendered = Rendered::new(old.clone());
    joins(&mut world, client, 2..3);
    let index = world.shards[0].room.find(b"g").expect("a spot");
    for line in ["GET /g?version=2&wait=0", "GET /g?wait=0"] {
        let spot = world.shards[0].room.spot_mut(index);
        spot.document = Some((old.clone(), Rc::clone(&rendered)));
        let poller = world.connect(0);
        polls(&mut world, poller, line);
        assert_eq!(world.last(poller).version(), Some(2), "{line}");
    }
}

#[test]
fn a_listener_rests_in_one_place_however_often_it_is_looked_at() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listener = listen(&mut world, 0, None);
    for _ in 0..5 {
        world.pass(15_000);
        world.review(listener);
    }
    assert_eq!(text(&world, listener).matches(":\n\n").count(), 5);
    let index = world.shards[0].room.find(b"g").expect("a spot");
    assert_eq!(world.shards[0].room.resting(index), 1);
}

#[test]
fn a_group_that_begins_again_after_it_was_forgotten_is_shown_as_a_new_one() {
    let mut world = World::new(1);
    world.replica.remember_removed(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    let listener = listen(&mut world, 0, None);
    for line in [
        "DELETE /g/m0",
        "DELETE /g/m1",
        "DELETE /g",
        "PUT /h/m",
        "DELETE /h/m",
        "DELETE /h",
    ] {
        assert!(world.ask(client, line).status < 300, "{line}");
    }
    joins(&mut world, client, 5..7);
    let told = ["snapshot", "leave", "leave", "remove", "snapshot", "join"];
    assert_eq!(names(&world, listener), told);
    assert_eq!(ids(&world, listener), [1, 2, 3, 0, 1]);
    let resumed = listen(&mut world, 0, Some(0));
    assert_eq!(
        (names(&world, resumed), ids(&world, resumed)),
        (vec!["join".to_owned()], vec![1])
    );
}

#[test]
fn a_listener_is_shown_nothing_older_than_either_of_what_it_names() {
    for (last, floor) in [(2, 1), (1, 2)] {
        let mut world = World::new(1);
        let client = world.connect(0);
        joins(&mut world, client, 0..2);
        let listener = world.connect(0);
        let headers = format!("{ACCEPT}last-event-id: {last}\r\nx-group-version: {floor}\r\n");
        world.write(listener, "GET /g", &headers, b"");
        world.quiet();
        assert!(world.clients[listener].received().is_empty(), "1 is older");
        joins(&mut world, client, 2..3);
        assert!(!world.clients[listener].received().is_empty());
    }
}

#[test]
fn a_poll_is_not_answered_with_a_kept_document_below_its_floor() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    listen(&mut world, 0, None);
    assert_eq!(
        world.ask(client, "GET /g").version(),
        Some(1),
        "kept from now on"
    );
    let poller = world.connect(0);
    let floor = "x-group-version: 2\r\n";
    world.write(poller, "GET /g?version=0&wait=9s", floor, b"");
    world.quiet();
    assert!(
        world.statuses(poller).is_empty(),
        "1 is above 0 and below 2"
    );
    joins(&mut world, client, 2..3);
    world.pass(20);
    assert_eq!(world.last(poller).version(), Some(2));
}

#[test]
fn what_is_pipelined_behind_a_poll_that_ends_the_connection_is_not_answered() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let poller = world.connect(0);
    world.write(poller, "GET /g?version=0&wait=9s", "", b"");
    world.write(poller, "GET /g", "", b"");
    world.quiet();
    tell(&mut world, 0, Tell::Stop);
    world.quiet();
    assert_eq!(world.statuses(poller), [503], "with `connection: close`");
    assert!(!world.clients[poller].open);
}

#[test]
fn a_group_that_is_found_again_in_time_is_not_given_up() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let first = listen(&mut world, 0, None);
    world.drop_client(first);
    world.pass(30_000);
    let again = listen(&mut world, 0, None);
    world.pass(62_000);
    joins(&mut world, client, 1..2);
    assert_eq!(names(&world, again), ["snapshot", "join"]);
}

#[test]
fn a_document_that_comes_when_nobody_waits_for_it_any_more_is_not_kept() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    world.shards[0].documents.forget();
    let listener = world.connect(0);
    world.write(listener, "GET /g", ACCEPT, b"");
    world.pump(listener, usize::MAX);
    while world.core_takes(0) {}
    world.core_writes();
    while world.shard_hears(0) {}
    world.drop_client(listener);
    let index = world.shards[0].room.find(b"g").expect("a spot");
    assert!(world.shards[0].room.spot(index).asked, "it is on its way");
    world.quiet();
    assert!(!world.shards[0].room.spot(index).asked, "it has come");
    assert!(world.shards[0].room.spot(index).document.is_none());
}

#[test]
fn a_snapshot_that_has_begun_is_ended_before_the_next_one() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let config = vec![b'x'; 60_000];
    for member in 0..5 {
        let line = format!("PUT /g/m{member}?timeout=1h");
        world.ask_with(client, &line, "", &config);
    }
    // With somebody else there, the list in which it rests as a poller outlives its poll.
    listen(&mut world, 0, None);
    let listener = world.connect(0);
    polls(&mut world, listener, "GET /g?version=4&wait=1s");
    world.pass(1_100);
    assert_eq!(world.statuses(listener), [200]);
    world.write(listener, "GET /g", ACCEPT, b"");
    world.pump(listener, usize::MAX);
    world.clients[listener].slow = true;
    world.quiet();
    let conn = world.clients[listener].conn;
    let mut piece = Vec::new();
    world.shards[0].resume(conn, world.now, &mut piece);
    assert!(!piece.is_empty(), "one is sent when all is new");
    world.clients[listener].read(&piece, world.now);
    tell(&mut world, 0, Tell::Reset);
    world.quiet();
    world.clients[listener].slow = false;
    world.pump(listener, usize::MAX);
    world.quiet();
    let sent = String::from_utf8_lossy(world.clients[listener].received());
    assert_eq!(sent.matches("event: snapshot\n").count(), 2);
    assert_eq!(
        sent.matches("\n\n").count(),
        3,
        "what comes first, and each of them, has its end"
    );
}
