//! Watching: what listeners and pollers are told, and when.

use super::ensemble::{tell, tell_all};
use super::world::{Tune, World};
use crate::mail::Tell;

const ACCEPT: &str = "accept: text/event-stream\r\n";

/// An event as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    name: String,
    id: Option<u64>,
    data: String,
}

impl Told {
    fn has(&self, part: &str) -> bool {
        self.data.contains(part)
    }
}

/// Opens a stream of `/g` on `shard`.
pub(super) fn listen(world: &mut World, shard: usize, last: Option<u64>) -> usize {
    let client = world.connect(shard);
    let last = last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    world.write(client, "GET /g", &format!("{ACCEPT}{last}"), b"");
    world.quiet();
    client
}

/// The text of a stream that goes on, or has ended.
pub(super) fn text(world: &World, client: usize) -> String {
    if let Some((_, response)) = world.clients[client].answers.last() {
        return response.text().to_owned();
    }
    let received = world.clients[client].received();
    let text = std::str::from_utf8(received).expect("UTF-8");
    let Some((head, mut rest)) = text.split_once("\r\n\r\n") else {
        return String::new();
    };
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    if !head.contains("transfer-encoding: chunked") {
        return rest.to_owned();
    }
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

/// The events of a stream.
fn told(world: &World, client: usize) -> Vec<Told> {
    let text = text(world, client);
    let blocks = text.split_terminator("\n\n");
    blocks
        .filter_map(|block| {
            let field = |name: &str| {
                let lines = block.lines();
                let mut values = lines.filter_map(|line| line.strip_prefix(name));
                let value = values.next().map(str::to_owned);
                assert_eq!(values.next(), None, "{name} once in {block}");
                value
            };
            Some(Told {
                name: field("event: ")?,
                id: field("id: ").map(|id| id.parse().expect("a version")),
                data: field("data: ").expect("data"),
            })
        })
        .collect()
}

pub(super) fn names(world: &World, client: usize) -> Vec<String> {
    let told = told(world, client).into_iter();
    told.map(|told| told.name).collect()
}

pub(super) fn ids(world: &World, client: usize) -> Vec<u64> {
    let told = told(world, client).into_iter();
    told.filter_map(|told| told.id).collect()
}

/// Changes `/g` `count` times by members that join: versions go on by as many.
pub(super) fn joins(world: &mut World, client: usize, names: std::ops::Range<u32>) {
    for name in names {
        let answer = world.ask(client, &format!("PUT /g/m{name}?timeout=1h"));
        assert_eq!(answer.status, 201);
    }
}

#[test]
fn a_listener_is_shown_the_group_and_then_told_of_every_change() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.ask(client, "PUT /g/a");
    let listener = listen(&mut world, 1, None);
    let head = String::from_utf8_lossy(world.clients[listener].received()).into_owned();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("x-group-version: 0"), "{head}");
    let joined = world.ask_with(client, "PUT /g/b", "", b"[1,\n2]");
    world.ask_with(client, "PUT /g/b/config", "", b"two");
    world.ask_with(client, "PUT /g/config", "", b"{}");
    world.ask(client, "DELETE /g/b");
    world.ask(client, "DELETE /g/b/config");
    world.ask(client, "DELETE /g/config");
    world.ask(client, "DELETE /g/a");
    world.ask(client, "DELETE /g");
    let told = told(&world, listener);
    let id = joined.header("x-session-id").expect("an id");
    let expected = [
        (
            "snapshot",
            Some(0),
            "{\"version\":0,\"config\":null,\"endpoints\":[\"t:1\"],\
             \"active_members\":[{\"a\":null}],\"inactive_members\":[]}"
                .to_owned(),
        ),
        (
            "join",
            Some(1),
            format!("{{\"version\":1,\"member\":\"b\",\"session\":\"{id}\",\"config\":[1, 2]}}"),
        ),
        (
            "config",
            Some(2),
            "{\"version\":2,\"member\":\"b\",\"config\":\"two\"}".to_owned(),
        ),
        (
            "config",
            Some(3),
            "{\"version\":3,\"member\":null,\"config\":{}}".to_owned(),
        ),
        (
            "leave",
            Some(4),
            format!("{{\"version\":4,\"member\":\"b\",\"session\":\"{id}\",\"inactive\":true}}"),
        ),
        (
            "config",
            Some(5),
            "{\"version\":5,\"member\":\"b\",\"config\":null}".to_owned(),
        ),
        (
            "config",
            Some(6),
            "{\"version\":6,\"member\":null,\"config\":null}".to_owned(),
        ),
    ];
    for (got, (name, id, data)) in told.iter().zip(&expected) {
        assert_eq!((got.name.as_str(), got.id, &got.data), (*name, *id, data));
    }
    assert_eq!(told[7].name, "leave");
    assert!(told[7].has("\"inactive\":false"), "{:?}", told[7]);
    assert_eq!(told[8].name, "remove");
    assert_eq!(
        told[8].id, None,
        "its version is that of the event before it"
    );
    assert_eq!(told.len(), 9);
}

#[test]
fn an_expiry_is_told_and_one_transaction_has_one_id() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask_with(client, "PUT /g/a?timeout=500ms", "", b"kept");
    world.ask(client, "PUT /g/b?timeout=500ms");
    let listener = listen(&mut world, 0, None);
    world.pass(700);
    let told = told(&world, listener);
    assert_eq!(names(&world, listener), ["snapshot", "expire", "expire"]);
    assert!(told[1].has("\"member\":\"a\"") && told[1].has("\"inactive\":true"));
    assert!(told[2].has("\"member\":\"b\"") && told[2].has("\"inactive\":false"));
    assert!(told[1].has("\"version\":2") && told[2].has("\"version\":2"));
    // Cut between the two, a client must be told both.
    assert_eq!((told[1].id, told[2].id), (None, Some(2)));
}

#[test]
fn whoever_resumes_at_any_event_misses_none_and_is_told_none_twice() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.ask(client, "PUT /g/first");
    let first = listen(&mut world, 0, None);
    joins(&mut world, client, 0..10);
    assert_eq!(ids(&world, first), (0..=10).collect::<Vec<u64>>());
    for shard in [0, 1] {
        for last in 0..=10 {
            let again = listen(&mut world, shard, Some(last));
            let expected: Vec<u64> = (last + 1..=10).collect();
            assert_eq!(ids(&world, again), expected, "shard {shard} from {last}");
            assert!(!names(&world, again).contains(&"snapshot".to_owned()));
        }
    }
    joins(&mut world, client, 10..11);
    for listener in 2..world.clients.len() {
        assert_eq!(ids(&world, listener).last(), Some(&11), "{listener}");
    }
}

#[test]
fn the_query_says_where_to_go_on_if_no_header_does() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/first");
    listen(&mut world, 0, None);
    joins(&mut world, client, 0..3);
    for (headers, expected) in [
        ("", vec![2, 3]),
        ("last-event-id: 2\r\n", vec![3]),
        ("last-event-id:\r\n", vec![2, 3]),
        ("last-event-id: elsewhere-7\r\n", vec![3]),
    ] {
        let again = world.connect(0);
        let headers = format!("{ACCEPT}{headers}");
        world.write(again, "GET /g?version=1", &headers, b"");
        world.quiet();
        assert_eq!(ids(&world, again), expected, "{headers}");
        let strange = headers.contains("elsewhere");
        assert_eq!(names(&world, again)[0] == "snapshot", strange);
    }
}

#[test]
fn whoever_resumes_before_the_ring_is_shown_a_snapshot() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..5);
    // Nobody watched so far, so nothing is kept of these five.
    let listener = listen(&mut world, 0, Some(2));
    assert_eq!(names(&world, listener), ["snapshot"]);
    assert_eq!(ids(&world, listener), [4]);
    let newest = listen(&mut world, 0, Some(4));
    assert!(names(&world, newest).is_empty(), "it has seen everything");
}

#[test]
fn events_are_kept_for_a_while_after_the_last_listener_is_gone() {
    let mut world = World::new(2);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listener = listen(&mut world, 0, None);
    world.drop_client(listener);
    joins(&mut world, client, 1..3);
    let again = listen(&mut world, 1, Some(0));
    assert_eq!(ids(&world, again), [1, 2]);
    world.drop_client(again);
    for member in 0..3 {
        world.ask(client, &format!("PUT /g/m{member}?timeout=1h"));
    }
    world.pass(59_000);
    joins(&mut world, client, 3..4);
    world.ask(client, "PUT /g/m3?timeout=1h");
    let again = listen(&mut world, 0, Some(2));
    assert_eq!(names(&world, again), ["join"]);
    world.drop_client(again);
    world.pass(62_000);
    for shard in &world.shards {
        assert_eq!(shard.room.len(), 0, "nothing is kept for ever");
    }
    joins(&mut world, client, 4..5);
    let late = listen(&mut world, 0, Some(3));
    assert_eq!(names(&world, late), ["snapshot"]);
}

#[test]
fn a_listener_of_no_group_hears_a_comment_and_then_of_its_creation() {
    let mut world = World::new(1);
    let listener = listen(&mut world, 0, None);
    assert!(text(&world, listener).contains(": there is no such group\n"));
    assert!(names(&world, listener).is_empty());
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    assert_eq!(names(&world, listener), ["snapshot", "join"]);
    assert_eq!(ids(&world, listener), [0, 1]);
}

#[test]
fn whoever_resumes_is_told_that_the_group_is_gone() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    for line in ["DELETE /g/m0", "DELETE /g/m1", "DELETE /g"] {
        assert_eq!(world.ask(client, line).status, 204);
    }
    // Removed before anybody watched: versions 0 to 3.
    for (last, expected) in [(1, vec!["remove"]), (3, vec!["remove"])] {
        let listener = listen(&mut world, 0, Some(last));
        assert_eq!(names(&world, listener), expected, "from {last}");
    }
    let fresh = listen(&mut world, 0, None);
    assert!(names(&world, fresh).is_empty());
    joins(&mut world, client, 0..1);
    for listener in 1..3 {
        assert_eq!(names(&world, listener), ["remove", "snapshot"]);
    }
    assert_eq!(ids(&world, fresh), [4], "versions go on from the removed");
}

#[test]
fn a_listener_ahead_of_this_server_waits_for_it_and_is_then_refused() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    let ahead = listen(&mut world, 0, Some(2));
    world.pass(500);
    assert!(world.clients[ahead].received().is_empty());
    joins(&mut world, client, 2..3);
    assert!(names(&world, ahead).is_empty(), "it has seen version 2");
    joins(&mut world, client, 3..4);
    assert_eq!(ids(&world, ahead), [3]);
    let far = listen(&mut world, 0, Some(99));
    world.pass(900);
    assert!(
        world.clients[far].answers.is_empty(),
        "a second is not over"
    );
    world.pass(200);
    assert_eq!(world.statuses(far), [503]);
    assert_eq!(world.last(far).version(), Some(3));
    assert!(world.last(far).text().contains("behind"));
}

#[test]
fn a_floor_holds_for_listeners_too() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listener = world.connect(0);
    let headers = format!("{ACCEPT}x-group-version: 1\r\n");
    world.write(listener, "GET /g", &headers, b"");
    world.quiet();
    assert!(world.clients[listener].received().is_empty());
    joins(&mut world, client, 1..2);
    assert_eq!(ids(&world, listener), [1]);
    assert_eq!(names(&world, listener), ["snapshot"]);
}

#[test]
fn a_silent_stream_carries_a_comment_every_fifteen_seconds() {
    let mut world = World::new(1);
    let listener = listen(&mut world, 0, None);
    let comments = |world: &World| text(world, listener).matches(":\n\n").count();
    world.pass(14_000);
    world.review(listener);
    assert_eq!(comments(&world), 0);
    world.pass(1_000);
    world.review(listener);
    assert_eq!(comments(&world), 1);
    world.review(listener);
    assert_eq!(comments(&world), 1);
    world.pass(400_000);
    world.review(listener);
    assert_eq!(comments(&world), 2);
    assert!(world.clients[listener].open, "no stream is idle");
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    assert_eq!(names(&world, listener), ["snapshot"]);
}

#[test]
fn a_listener_that_reads_too_slowly_is_ended_and_resumes() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let slow = listen(&mut world, 0, None);
    let quick = listen(&mut world, 0, None);
    world.clients[slow].slow = true;
    let config = vec![b'x'; 60_000];
    let mut kept = 0;
    for round in 0..20u32 {
        let body = [&config[..], &round.to_be_bytes().map(|b| b'0' + b)[..]].concat();
        let answer = world.ask_with(client, "PUT /g/config", "", &body);
        kept = answer.version().unwrap_or(kept);
    }
    assert_eq!(ids(&world, quick).last(), Some(&20));
    assert!(world.clients[slow].open, "it is found slow when it reads");
    world.clients[slow].slow = false;
    world.pump(slow, usize::MAX);
    assert_eq!(world.statuses(slow), [200], "the end of a whole answer");
    assert!(!world.clients[slow].open);
    assert_eq!(ids(&world, slow), [0]);
    assert_eq!(world.shards[0].counters.watch_dropped.get(), 1);
    let again = listen(&mut world, 0, Some(0));
    assert_eq!(names(&world, again), ["snapshot"]);
    let nearer = listen(&mut world, 0, Some(15));
    assert_eq!(ids(&world, nearer), [16, 17, 18, 19, 20]);
}

#[test]
fn watchers_beyond_the_cap_are_refused_until_one_goes() {
    let mut world = World::tuned(Tune {
        shards: 2,
        watchers_max: 2,
        ..Tune::default()
    });
    let first = listen(&mut world, 0, None);
    let poller = world.connect(1);
    world.send(poller, "GET /h?wait=5m");
    world.quiet();
    let refused = world.connect(0);
    let answer = world.ask_with(refused, "GET /g", ACCEPT, b"");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("too_many_watchers"));
    let after: u64 = answer
        .header("retry-after")
        .expect("a time")
        .parse()
        .unwrap();
    assert!((1..=10).contains(&after), "{after}");
    assert_eq!(world.ask(refused, "GET /g?wait=1s").status, 503);
    assert_eq!(
        world
            .ask(refused, "GET /g?version=1&consistent&wait=1")
            .status,
        503
    );
    assert_eq!(world.ask(refused, "GET /g").status, 404, "no watcher");
    world.drop_client(first);
    let next = listen(&mut world, 1, None);
    assert!(!text(&world, next).is_empty());
    world.drop_client(poller);
    listen(&mut world, 0, None);
    let count: u64 = (0..2)
        .map(|s| world.shards[s].counters.watchers.get())
        .sum();
    assert_eq!(count, 2);
}

#[test]
fn a_client_that_ends_its_side_listens_no_more() {
    let mut world = World::new(1);
    let listener = listen(&mut world, 0, None);
    world.clients[listener]
        .kernel
        .extend(b"GET /g HTTP/1.1\r\n\r\n");
    world.pump(listener, usize::MAX);
    assert!(world.clients[listener].open, "what it says is passed over");
    assert_eq!(world.shards[0].counters.watchers.get(), 1);
    let conn = world.clients[listener].conn;
    let next = world.shards[0].finish(conn, world.now, &mut Vec::new());
    assert_eq!(next, super::super::Next::Close);
    world.drop_client(listener);
    assert_eq!(world.shards[0].counters.watchers.get(), 0);
}

#[test]
fn a_client_of_http_1_0_is_sent_events_without_chunks() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listener = world.connect(0);
    let headers = format!("{ACCEPT}connection: close\r\n");
    world.write(listener, "GET /g", &headers, b"");
    world.quiet();
    joins(&mut world, client, 1..2);
    let received = String::from_utf8_lossy(world.clients[listener].received()).into_owned();
    assert!(!received.contains("chunked"), "{received}");
    assert_eq!(names(&world, listener), ["snapshot", "join"]);
}

#[test]
fn a_head_of_a_stream_is_a_head() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let answer = world.ask_with(client, "HEAD /g", ACCEPT, b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.version(), Some(0));
    assert_eq!(world.shards[0].counters.watchers.get(), 0);
    assert_eq!(world.ask(client, "GET /g").status, 200);
}

#[test]
fn streams_end_and_polls_are_refused_when_the_server_goes_down() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listener = listen(&mut world, 0, None);
    let poller = world.connect(0);
    world.send(poller, "GET /g?wait=5m");
    world.quiet();
    tell_all(&mut world, || Tell::Stop);
    world.quiet();
    assert_eq!(world.statuses(listener), [200], "a whole answer");
    assert!(!world.clients[listener].open);
    assert_eq!(world.statuses(poller), [503]);
    assert!(!world.clients[poller].open);
    assert!(world.shards[0].is_drained());
}

#[test]
fn a_state_that_was_replaced_is_shown_to_every_listener() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..2);
    let listener = listen(&mut world, 0, None);
    let gone = world.connect(0);
    world.write(gone, "GET /h", ACCEPT, b"");
    world.quiet();
    tell(&mut world, 0, Tell::Reset);
    world.quiet();
    assert_eq!(names(&world, listener), ["snapshot", "snapshot"]);
    assert!(names(&world, gone).is_empty(), "it never had any");
    let resumed = listen(&mut world, 0, Some(1));
    assert!(names(&world, resumed).is_empty());
}

#[test]
fn a_join_between_the_reset_and_the_new_ring_is_not_lost() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listener = listen(&mut world, 0, None);
    tell(&mut world, 0, Tell::Reset);
    // The shard's question is on its way, and the core tells of a change before it comes.
    world.send(client, "PUT /g/late");
    let asks = world.to_core[0].len();
    assert_eq!(asks, 2, "the ring, and the join");
    world.to_core[0].swap(0, 1);
    world.core_takes(0);
    world.core_syncs();
    world.quiet();
    assert_eq!(ids(&world, listener), [0, 1]);
    assert_eq!(names(&world, listener), ["snapshot", "snapshot"]);
    let last = told(&world, listener).pop().expect("told");
    assert!(last.has("late"), "{last:?}");
    joins(&mut world, client, 5..6);
    assert_eq!(names(&world, listener).last().expect("told"), "join");
}

#[test]
fn a_long_snapshot_comes_in_pieces_and_on_one_line() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let config = [b"[\n", &[b' '; 30_000][..], b"1]"].concat();
    for member in 0..20 {
        world.ask_with(client, &format!("PUT /g/m{member}"), "", &config);
    }
    let listener = listen(&mut world, 0, None);
    let told = told(&world, listener);
    assert_eq!(told.len(), 1);
    assert!(told[0].data.len() > 20 * 30_000 && told[0].data.ends_with("\"inactive_members\":[]}"));
    joins(&mut world, client, 50..51);
    assert_eq!(names(&world, listener), ["snapshot", "join"]);
}

#[test]
fn many_listeners_are_served_in_pieces() {
    let mut world = World::new(1);
    let client = world.connect(0);
    joins(&mut world, client, 0..1);
    let listeners: Vec<usize> = (0..200).map(|_| listen(&mut world, 0, None)).collect();
    world.write(client, "PUT /g/more", "", b"");
    let it = &world.clients[client];
    let (conn, input) = (it.conn, it.kernel.iter().copied().collect::<Vec<u8>>());
    world.clients[client].kernel.clear();
    let now = world.now;
    world.shards[0].receive(conn, &input, now, &mut Vec::new());
    let asks = std::mem::take(&mut world.shards[0].outbox().asks);
    world.to_core[0].extend(asks);
    while world.core_takes(0) {}
    world.core_syncs();
    for tells in std::mem::take(&mut world.to_shard[0]) {
        world.shards[0].deliver(
            crate::mail::Mail::Core {
                batch: 0,
                tells,
                more: false,
            },
            now,
        );
    }
    world.shards[0].outbox().woken.clear();
    let mut turns = 0;
    let mut woken = 0;
    while world.shards[0].has_due() {
        world.shards[0].fan_out(now);
        let some = std::mem::take(&mut world.shards[0].outbox().woken);
        assert!(some.len() <= 64, "{}", some.len());
        woken += some.len();
        turns += 1;
    }
    assert_eq!((woken, turns), (listeners.len(), 4));
}
