//! Long polls.

use super::world::{Tune, World};

fn joins(world: &mut World, client: usize, names: std::ops::Range<u32>) {
    for name in names {
        let answer = world.ask(client, &format!("PUT /g/m{name}?timeout=1h"));
        assert_eq!(answer.status, 201);
    }
}

/// Sends a poll on a connection of its own.
fn poll(world: &mut World, shard: usize, line: &str, headers: &str) -> usize {
    let client = world.connect(shard);
    world.write(client, line, headers, b"");
    world.quiet();
    client
}

#[test]
fn a_poll_from_an_older_version_is_answered_at_once() {
    let mut world = World::new(2);
    let client = world.connect(0);
    joins(&mut world, client, 0..3);
    for shard in [0, 1] {
        for version in [0, 1] {
            let line = format!("GET /g?version={version}&wait=30s");
            let poller = poll(&mut world, shard, &line, "");
            assert_eq!(world.statuses(poller), [200], "{line}");
            assert_eq!(world.last(poller).version(), Some(2));
            assert_eq!(world.last(poller).header("etag"), Some("\"2\""));
            assert!(world.last(poller).text().contains("\"m2\""));
        }
    }
    assert_eq!(world.shards[0].counters.watchers.get(), 0);
}

#[test]
fn a_poll_is_answered_as_soon_as_the_version_is_above() {
    let mut world = World::new(2);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let lines = [
        "GET /g?version=0&wait=30s",
        "GET /g?wait=30s",
        "GET /g?version=0",
    ];
    let pollers = lines.map(|line| poll(&mut world, 1, line, ""));
    let later = poll(&mut world, 1, "GET /g?version=1&wait=30s", "");
    world.pass(10_000);
    for poller in pollers {
        assert!(world.statuses(poller).is_empty());
    }
    assert_eq!(world.shards[1].counters.watchers.get(), 4);
    joins(&mut world, client, 1..2);
    for poller in pollers {
        assert_eq!(world.statuses(poller), [200]);
        assert_eq!(world.last(poller).version(), Some(1));
    }
    assert!(world.statuses(later).is_empty(), "1 is not above 1");
    joins(&mut world, client, 2..3);
    assert_eq!(world.last(later).version(), Some(2));
    // The connection goes on.
    let again = world.ask(later, "GET /g");
    assert_eq!((again.status, again.version()), (200, Some(2)));
    assert_eq!(world.shards[1].counters.watchers.get(), 0);
    world.assert_nothing_is_kept();
}

#[test]
fn a_poll_whose_wait_is_over_is_answered_with_the_same_document() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let since = world.now;
    let pollers: Vec<usize> = (0..40)
        .map(|_| poll(&mut world, 0, "GET /g?version=0&wait=16s", ""))
        .collect();
    world.pass(15_990);
    for poller in &pollers {
        assert!(world.statuses(*poller).is_empty(), "not before its time");
    }
    world.pass(1_030);
    let mut ends = std::collections::BTreeSet::new();
    for poller in &pollers {
        assert_eq!(world.statuses(*poller), [200]);
        let answer = world.last(*poller);
        assert_eq!(answer.version(), Some(0));
        ends.insert(answer.at.since(since).0);
    }
    assert!(ends.len() > 10, "they come back one by one: {ends:?}");
    assert!(ends.last() <= Some(&17_010), "{ends:?}");
    // A version that has not come yet is no reason to wait longer.
    let ahead = poll(&mut world, 0, "GET /g?version=77&wait=1s", "");
    world.pass(1_100);
    assert_eq!(world.statuses(ahead), [200]);
    let at_once = poll(&mut world, 0, "GET /g?version=0&wait=0", "");
    assert_eq!(world.statuses(at_once), [200]);
}

#[test]
fn no_wait_is_longer_than_ten_minutes() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let poller = poll(&mut world, 0, "GET /g?version=0&wait=2h", "");
    let default = poll(&mut world, 0, "GET /g?version=0", "");
    world.pass(29_000);
    assert!(world.statuses(default).is_empty());
    world.pass(3_000);
    assert_eq!(world.statuses(default), [200]);
    world.pass(567_000);
    world.review(poller);
    assert!(world.statuses(poller).is_empty());
    world.pass(39_000);
    assert_eq!(world.statuses(poller), [200]);
}

#[test]
fn a_poll_of_no_group_waits_until_there_is_one() {
    let mut world = World::new(1);
    let poller = poll(&mut world, 0, "GET /g?wait=10s", "");
    let strict = poll(&mut world, 0, "GET /g?version=0&wait=10s", "");
    let none = poll(&mut world, 0, "GET /h?wait=2s", "");
    world.pass(2_200);
    assert_eq!(world.statuses(none), [404]);
    assert!(world.statuses(poller).is_empty());
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    assert_eq!(world.statuses(poller), [200]);
    assert_eq!(world.last(poller).version(), Some(0));
    assert!(world.statuses(strict).is_empty(), "0 is not above 0");
    joins(&mut world, client, 1..2);
    assert_eq!(world.last(strict).version(), Some(1));
}

#[test]
fn a_poll_hears_at_once_that_its_group_is_gone() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    world.ask(client, "DELETE /g/m0");
    let poller = poll(&mut world, 0, "GET /g?version=1&wait=1m", "");
    assert_eq!(world.ask(client, "DELETE /g").status, 204);
    assert_eq!(world.statuses(poller), [404]);
}

#[test]
fn polls_take_pages_tags_floors_and_heads() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..3);
    let page = poll(
        &mut world,
        0,
        "GET /g?version=2&wait=9s&after=m0&limit=1",
        "",
    );
    let whole = poll(&mut world, 0, "GET /g?version=2&wait=9s", "");
    let tagged = poll(
        &mut world,
        0,
        "GET /g?version=2&wait=9s",
        "if-none-match: \"3\"\r\n",
    );
    let head = poll(&mut world, 0, "HEAD /g?version=2&wait=9s", "");
    let floored = poll(
        &mut world,
        0,
        "GET /g?version=2&wait=9s",
        "x-group-version: 4\r\n",
    );
    joins(&mut world, client, 3..4);
    assert!(
        world
            .last(page)
            .text()
            .contains("\"active_members\":[{\"m1\":null}]")
    );
    assert!(world.last(page).text().contains("\"truncated\":true"));
    assert!(world.last(whole).text().contains("\"m3\""));
    assert_eq!(world.statuses(tagged), [304]);
    assert_eq!(world.statuses(head), [200]);
    assert_eq!(world.last(head).version(), Some(3));
    assert!(
        world.statuses(floored).is_empty(),
        "never older than its floor"
    );
    joins(&mut world, client, 4..5);
    world.pass(20);
    assert_eq!(world.last(floored).version(), Some(4));
    let unchanged = poll(
        &mut world,
        0,
        "GET /g?version=4&wait=1s",
        "if-none-match: \"4\"\r\n",
    );
    world.pass(1_100);
    assert_eq!(world.statuses(unchanged), [304]);
}

#[test]
fn a_consistent_poll_waits_from_what_everybody_has_agreed_on() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    let poller = poll(&mut world, 0, "GET /g?version=1&wait=9s&consistent", "");
    let missing = poll(&mut world, 0, "GET /h?wait=9s&consistent", "");
    assert!(world.statuses(poller).is_empty());
    joins(&mut world, client, 2..3);
    assert_eq!(world.last(poller).version(), Some(2));
    world.ask(client, "PUT /h/m");
    assert_eq!(world.statuses(missing), [200]);
}

#[test]
fn a_client_that_sends_no_more_is_answered_without_waiting() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let poller = poll(&mut world, 0, "GET /g?wait=5m", "");
    world.clients[poller].shut = true;
    world.pump(poller, usize::MAX);
    world.quiet();
    assert_eq!(world.statuses(poller), [200]);
    assert!(!world.clients[poller].open);
}

#[test]
fn what_is_pipelined_behind_a_poll_is_answered_after_it() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let poller = world.connect(0);
    world.write(poller, "GET /g?version=0&wait=9s", "", b"");
    world.write(poller, "HEAD /g/m0", "", b"");
    world.quiet();
    assert!(world.statuses(poller).is_empty());
    joins(&mut world, client, 1..2);
    assert_eq!(world.statuses(poller), [200, 204]);
}

#[test]
fn the_document_is_rendered_and_asked_for_once_for_all_who_wait() {
    let mut world = World::tuned(Tune {
        shards: 1,
        asks_max: 4,
        ..Tune::default()
    });
    let client = world.connect(0);
    let config = vec![b'x'; 50_000];
    for member in 0..5 {
        world.ask_with(client, &format!("PUT /g/m{member}?timeout=1h"), "", &config);
    }
    let pollers: Vec<usize> = (0..50)
        .map(|_| poll(&mut world, 0, "GET /g?version=4&wait=9s", ""))
        .collect();
    let reads = |world: &World| world.reads();
    let before = reads(&world);
    joins(&mut world, client, 7..8);
    for poller in pollers {
        assert_eq!(world.last(poller).version(), Some(5));
        assert!(world.last(poller).body.len() > 250_000);
    }
    assert_eq!(reads(&world) - before, 1);
}
