//! Watching where things cross: news on the way, clients that go, groups that come and go.

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
        world.shards[0].deliver(Mail::Core { batch: 0, tells }, now);
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
