//! Connections: cuts, pieces, order, silence, and ends.

use super::super::Next;
use super::world::{Tune, World};
use crate::time::Millis;

/// A group whose document is longer than one piece.
fn long_group(world: &mut World) {
    let client = world.connect(0);
    for member in 0..12 {
        let config = vec![b'a' + member; 60_000];
        let line = format!("PUT /long/m{member}/config");
        assert_eq!(world.ask_with(client, &line, "", &config).status, 204);
    }
    world.drop_client(client);
}

#[test]
fn a_request_is_understood_however_it_is_cut() {
    for cut in 1..60 {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.write(client, "PUT /g/m/config", "", b"config");
        world.write(client, "PUT /g/m", "", b"");
        world.write(client, "HEAD /g/m", "", b"");
        while !world.clients[client].kernel.is_empty() {
            world.pump(client, cut);
            if world.clients[client].next == Next::Wait {
                world.quiet();
            }
        }
        world.quiet();
        assert_eq!(world.statuses(client), [204, 201, 204], "cut {cut}");
    }
}

#[test]
fn a_body_of_a_mebibyte_that_comes_byte_by_byte_is_not_copied_at_every_byte() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let body = vec![b'\n'; 1 << 20];
    world.write(client, "POST /-/heartbeats", "", &body);
    // Copying what there is at each byte would move half a terabyte here.
    while !world.clients[client].kernel.is_empty() {
        world.pump(client, 1);
    }
    assert_eq!(world.last(client).text(), "{\"failed\":[],\"renewed\":0}\n");
}

#[test]
fn a_long_document_comes_in_pieces_between_the_answers_around_it() {
    let mut world = World::new(1);
    long_group(&mut world);
    let client = world.connect(0);
    for line in [
        "PUT /g/m",
        "GET /long",
        "HEAD /g/m",
        "GET /long",
        "DELETE /g/m",
    ] {
        world.write(client, line, "", b"");
    }
    world.quiet();
    assert_eq!(world.statuses(client), [201, 200, 204, 200, 204]);
    let documents = [1, 3].map(|at| world.clients[client].answers[at].1.clone());
    for document in &documents {
        assert!(document.chunks > 2, "{} chunks", document.chunks);
        let json: serde_json::Value = serde_json::from_slice(&document.body).expect("JSON");
        assert_eq!(json["inactive_members"].as_array().map(Vec::len), Some(12));
    }
}

#[test]
fn a_long_document_for_a_connection_that_ends_is_closed_by_its_end() {
    let mut world = World::new(1);
    long_group(&mut world);
    let client = world.connect(0);
    world.write(client, "GET /long", "connection: close\r\n", b"");
    world.write(client, "GET /long", "", b"");
    world.quiet();
    let answer = world.last(client);
    assert!(!world.clients[client].open && answer.chunks == 0);
    assert!(answer.header("content-length").is_none());
    serde_json::from_slice::<serde_json::Value>(&answer.body).expect("whole JSON");
    assert_eq!(
        world.clients[client].cut, 1,
        "nothing is read after `close`"
    );
}

#[test]
fn a_slow_reader_is_sent_one_piece_at_a_time() {
    let mut world = World::new(1);
    long_group(&mut world);
    let client = world.connect(0);
    world.write(client, "GET /long", "", b"");
    world.clients[client].slow = true;
    world.quiet();
    world.clients[client].slow = false;
    world.pump(client, usize::MAX);
    world.clients[client].slow = true;
    world.quiet();
    let conn = world.clients[client].conn;
    let mut pieces = 0;
    loop {
        let mut out = Vec::new();
        let next = world.shards[0].resume(conn, world.now, &mut out);
        assert!(out.len() < 200_000, "{} bytes at once", out.len());
        world.clients[client].read(&out, world.now);
        pieces += 1;
        if next != Next::More {
            break;
        }
    }
    assert!(pieces > 5, "{pieces} pieces");
    assert_eq!(world.statuses(client), [200]);
}

#[test]
fn a_document_that_the_client_has_already_counts_as_a_heartbeat() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let tag = world.ask(client, "PUT /g/m?timeout=300ms");
    let tag = format!("if-none-match: {}\r\n", tag.header("etag").expect("a tag"));
    for _ in 0..5 {
        world.pass(200);
        let answer = world.ask_with(client, "GET /g/m", &tag, b"");
        assert_eq!((answer.status, answer.body.len()), (304, 0));
        assert!(answer.session().is_some());
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked_once() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let headers = "expect: 100-continue\r\n";
    world.write(client, "PUT /g/m/config", headers, b"config");
    let head = world.clients[client].kernel.len() - b"config".len();
    world.pump(client, head);
    assert_eq!(world.clients[client].continues, 1);
    world.pump(client, 3);
    world.quiet();
    assert_eq!(world.clients[client].continues, 1);
    assert_eq!(world.statuses(client), [204]);
}

#[test]
fn a_client_behind_its_own_join_is_asked_for_its_body_once_that_is_answered() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "PUT /g/m");
    world.write(
        client,
        "PUT /g/m/config",
        "expect: 100-continue\r\n",
        b"config",
    );
    let head = world.clients[client].kernel.len() - b"config".len();
    world.pump(client, head);
    assert_eq!(
        world.clients[client].continues, 0,
        "it would look like the join's answer"
    );
    while world.core_takes(0) {}
    world.core_syncs();
    world.shard_hears(0);
    assert_eq!(world.clients[client].continues, 1);
    world.quiet();
    assert_eq!(world.statuses(client), [201, 204]);
}

#[test]
fn a_body_larger_than_allowed_is_refused_before_it_comes() {
    let mut world = World::tuned(Tune {
        body_bytes_max: 10,
        ..Tune::default()
    });
    let client = world.connect(0);
    world.write(client, "POST /-/heartbeats", "", &[b'x'; 11]);
    let head = world.clients[client].kernel.len() - 11;
    world.pump(client, head);
    assert_eq!(world.statuses(client), [413]);
    assert!(!world.clients[client].open);
}

#[test]
fn a_refusal_keeps_the_connection_unless_the_next_request_cannot_be_found() {
    let mut world = World::new(1);
    let client = world.connect(0);
    for (line, status) in [
        ("GET /g", 404),
        ("GET /g?x=1", 400),
        ("PUT /g/m?timeout=1ms", 422),
    ] {
        assert_eq!(world.ask(client, line).status, status, "{line}");
    }
    assert!(world.clients[client].open);
    // Behind a join, too, everything is answered, and only then is the connection closed.
    world.write(client, "PUT /g/m", "", b"");
    world.clients[client].kernel.extend(b"nonsense\r\n\r\n");
    world.clients[client].expect("nonsense", Millis(0), 0);
    world.quiet();
    assert_eq!(world.statuses(client)[3..], [201, 400]);
    assert!(!world.clients[client].open);
}

#[test]
fn a_request_that_does_not_arrive_in_time_is_answered_408_and_silence_with_nothing() {
    let mut world = World::new(1);
    let (slow, idle) = (world.connect(0), world.connect(0));
    world.write(slow, "HEAD /g/m", "", b"");
    world.pump(slow, 10);
    world.now = world.now + Millis(9_900);
    world.pump(slow, 1);
    world.review(slow);
    assert!(world.clients[slow].open);
    world.now = world.now + Millis(200);
    world.clients[slow].kernel.clear();
    world.review(slow);
    assert_eq!(world.statuses(slow), [408]);
    assert!(!world.clients[slow].open);
    world.now = world.now + Millis(289_900);
    world.review(idle);
    assert!(world.clients[idle].open);
    world.now = world.now + Millis(200);
    world.review(idle);
    assert!(!world.clients[idle].open && world.statuses(idle).is_empty());
}

#[test]
fn requests_that_are_refused_while_more_are_on_their_way_are_not_taken_for_one_slow_request() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let len = "GET /g/m?no=1 HTTP/1.1\r\nhost: t\r\n\r\n".len();
    for _ in 0..30 {
        world.write(client, "GET /g/m?no=1", "", b"");
    }
    world.pump(client, 5);
    for _ in 0..29 {
        world.pump(client, len);
        world.now = world.now + Millis(1_000);
        world.review(client);
    }
    world.pump(client, len);
    assert_eq!(world.statuses(client), [400; 30]);
}

#[test]
fn a_connection_that_waits_for_an_answer_is_neither_idle_nor_late() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "PUT /g/m");
    world.now = world.now + Millis(1_000_000);
    world.review(client);
    assert!(world.clients[client].open);
    world.quiet();
    assert_eq!(world.statuses(client), [201]);
}

#[test]
fn a_join_whose_connection_is_lost_creates_the_session_which_expires() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "PUT /g/m?timeout=200ms");
    world.drop_client(client);
    // The place is somebody else's when the answer comes.
    let stranger = world.connect(0);
    world.quiet();
    assert!(world.is_active("g", "m") && world.statuses(stranger).is_empty());
    world.pass(250);
    assert!(!world.is_active("g", "m"));
    world.assert_nothing_is_kept();
}
