//! `GET /-/sd/prometheus`.

use super::world::{Tune, World};

#[test]
fn members_are_listed_and_a_group_nobody_knows_has_none() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/a");
    let some = world.ask(client, "GET /-/sd/prometheus?group=g&port=9");
    assert_eq!((some.status, some.version()), (200, Some(0)));
    assert_eq!(some.header("content-type"), Some("application/json"));
    assert!(some.text().contains("\"a:9\""), "{}", some.text());
    let none = world.ask(client, "GET /-/sd/prometheus?group=other");
    assert_eq!((none.status, none.text()), (200, "[]"));
    let head = world.ask(client, "HEAD /-/sd/prometheus?group=g");
    assert_eq!((head.status, head.text()), (200, ""));
    world.assert_nothing_is_kept();
}

#[test]
fn a_client_that_is_ahead_is_not_told_of_the_past() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/a");
    for (floor, status) in [("0", 200), ("1", 503)] {
        let headers = format!("x-group-version: {floor}\r\n");
        let line = "GET /-/sd/prometheus?group=g";
        assert_eq!(world.ask_with(client, line, &headers, b"").status, status);
    }
    let line = "GET /-/sd/prometheus?group=unseen";
    let unseen = world.ask_with(client, line, "x-group-version: 0\r\n", b"");
    assert_eq!(unseen.status, 503, "it may be there on another server");
}

#[test]
fn a_server_that_is_not_ready_refuses_so_that_prometheus_keeps_what_it_has() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/a");
    let mut world = world.restart();
    let client = world.connect(0);
    let refused = world.ask(client, "GET /-/sd/prometheus?group=g");
    assert_eq!(refused.status, 503);
}

#[test]
fn a_long_list_comes_in_pieces() {
    let mut world = World::tuned(Tune {
        shards: 1,
        ..Tune::default()
    });
    let client = world.connect(0);
    for n in 0..1_000 {
        let line = format!("PUT /g/member-with-a-rather-long-name-{n:04}");
        world.ask_with(client, &line, "Prefer: return=minimal\r\n", b"");
    }
    let list = world.ask(client, "GET /-/sd/prometheus?group=g");
    assert_eq!(list.header("transfer-encoding"), Some("chunked"));
    let list: Vec<serde_json::Value> = serde_json::from_str(list.text()).unwrap();
    assert_eq!(list.len(), 1_000);
}
