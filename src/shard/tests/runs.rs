//! Heartbeats by the dozen in one input, whose heads end as earlier ones did.

use super::world::{Tune, World};
use crate::time::Millis;

/// A client whose heads the shard knows, and the ids of the members `m0` to `m{count - 1}`.
fn beating(world: &mut World, count: usize) -> (usize, Vec<String>) {
    let client = world.connect(0);
    let id_of = |member: usize| {
        let joined = world.ask(client, &format!("PUT /g/m{member}?timeout=20"));
        joined.session().expect("a session").to_string()
    };
    let ids = (0..count).map(id_of).collect();
    assert_eq!(world.ask(client, "HEAD /g/m0").status, 204);
    (client, ids)
}

/// The last `count` answers' statuses and session ids.
fn answers(world: &World, client: usize, count: usize) -> Vec<(u16, Option<String>)> {
    let answers = &world.clients[client].answers;
    let answers = answers[answers.len() - count..].iter();
    answers
        .map(|(_, answer)| (answer.status, answer.session().map(|id| id.to_string())))
        .collect()
}

#[test]
fn each_of_many_beats_in_one_input_is_answered_for_its_own_session() {
    let mut world = World::new(1);
    let (client, ids) = beating(&mut world, 80);
    for member in (0..80).rev() {
        world.write(client, &format!("HEAD /g/m{member}"), "", b"");
    }
    world.pump(client, usize::MAX);
    let expected: Vec<_> = ids.into_iter().rev().map(|id| (204, Some(id))).collect();
    assert_eq!(answers(&world, client, 80), expected);
}

#[test]
fn a_beat_that_is_more_than_a_touch_is_answered_in_its_turn() {
    let mut world = World::new(1);
    let (client, ids) = beating(&mut world, 4);
    for line in ["HEAD /g/m1", "HEAD /g/nobody", "HEAD /g/m2", "DELETE /g/m3"] {
        world.write(client, line, "", b"");
    }
    for line in ["HEAD /g/m3", "HEAD /g/m2", "HEAD /g/m1"] {
        world.write(client, line, "", b"");
    }
    world.quiet();
    let id = |member: usize| Some(ids[member].clone());
    let expected = [
        (204, id(1)),
        (404, None),
        (204, id(2)),
        (204, None),
        (404, None),
        (204, id(2)),
        (204, id(1)),
    ];
    assert_eq!(answers(&world, client, 7), expected);
}

#[test]
fn a_beat_behind_a_change_waits_for_its_turn() {
    let mut world = World::new(1);
    let (client, _) = beating(&mut world, 1);
    world.send(client, "PUT /g/new");
    world.send(client, "HEAD /g/m0");
    world.quiet();
    let statuses = answers(&world, client, 2)
        .into_iter()
        .map(|(status, _)| status);
    assert_eq!(statuses.collect::<Vec<_>>(), [201, 204]);
}

#[test]
fn a_run_of_beats_leaves_no_more_than_may_be_to_send() {
    let mut world = World::tuned(Tune {
        shards: 1,
        output_bytes_max: 700,
        ..Tune::default()
    });
    let (client, _) = beating(&mut world, 1);
    let beats = "HEAD /g/m0 HTTP/1.1\r\nhost: t\r\n\r\n".repeat(30);
    let (conn, now) = (world.clients[client].conn, world.now);
    let mut out = Vec::new();
    let shard = &mut world.shards[0];
    shard.receive(conn, beats.as_bytes(), now, &mut out);
    let answer_len = out.len()
        / String::from_utf8_lossy(&out)
            .matches("HTTP/1.1 204")
            .count();
    assert!(
        (700..700 + answer_len).contains(&out.len()),
        "{}",
        out.len()
    );
    let mut answered = out.len() / answer_len;
    while answered < 30 {
        out.clear();
        shard.resume(conn, now, &mut out);
        assert!(!out.is_empty() && out.len() < 700 + answer_len);
        answered += out.len() / answer_len;
    }
    assert_eq!(answered, 30);
}

#[test]
fn what_was_remembered_of_a_beat_in_pieces_says_nothing_of_the_next_request() {
    let mut world = World::new(1);
    let (client, _) = beating(&mut world, 1);
    let next = "GET /g HTTP/1.1\r\nhost: t\r\n\r\n".len();
    world.write(client, "HEAD /g/m0", "", b"");
    world.pump(client, next);
    world.pump(client, usize::MAX);
    // As many bytes as there were of the beat when it was looked at in vain.
    world.send(client, "GET /g");
    world.quiet();
    let statuses = answers(&world, client, 2)
        .into_iter()
        .map(|(status, _)| status);
    assert_eq!(statuses.collect::<Vec<_>>(), [204, 200]);
}

#[test]
fn a_request_begun_behind_a_beat_has_its_own_time_to_arrive() {
    let mut world = World::new(1);
    let (client, _) = beating(&mut world, 1);
    world.write(client, "HEAD /g/m0", "", b"");
    world.write(client, "HEAD /g/m0", "", b"");
    world.pump(client, 5);
    world.now = world.now + Millis(9_000);
    world.pump(client, "HEAD /g/m0 HTTP/1.1\r\nhost: t\r\n\r\n".len());
    world.now = world.now + Millis(9_000);
    world.review(client);
    world.pump(client, usize::MAX);
    let statuses = answers(&world, client, 2)
        .into_iter()
        .map(|(status, _)| status);
    assert_eq!(statuses.collect::<Vec<_>>(), [204, 204], "no 408");
}

/// Enough sessions for the shard to look ahead.
const MANY: usize = 4_096;

#[test]
fn a_beat_that_was_expected_is_answered_for_its_own_session_whatever_comes_of_the_others() {
    let mut world = World::new(1);
    let (client, ids) = beating(&mut world, MANY);
    let (conn, now) = (world.clients[client].conn, world.now);
    let host = "a.host.whose.name.is.long.enough.example.com";
    let head = |member: usize| format!("HEAD /g/m{member} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let shard = &mut world.shards[0];
    let mut said = |inputs: &[String], received: &[String]| {
        shard.expect(inputs.iter().map(|input| input.as_bytes()));
        let mut out = Vec::new();
        for input in received {
            shard.receive(conn, input.as_bytes(), now, &mut out);
        }
        let text = String::from_utf8(out).expect("heads are text");
        let ids = text.split("x-session-id: ").skip(1);
        let ids = ids.map(|after| after[..32].to_string());
        ids.collect::<Vec<_>>()
    };
    let of = |members: &[usize]| -> Vec<String> {
        members.iter().map(|&member| ids[member].clone()).collect()
    };
    // The first is learned from; from then on they are familiar.
    assert_eq!(said(&[], &[head(0)]), of(&[0]));
    let expected = [1, 20, 300, 4_000].map(head);
    assert_eq!(said(&expected, &expected), of(&[1, 20, 300, 4_000]));
    let others = [20, 4_000, 1, 7].map(head);
    assert_eq!(said(&expected, &others), of(&[20, 4_000, 1, 7]));
    let together = [head(5) + &head(1) + &head(1), head(1)];
    assert_eq!(said(&together, &together), of(&[5, 1, 1, 1]));
}
