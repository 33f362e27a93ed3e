//! Joins by the dozen in one input, whose heads end as earlier ones did.

use super::world::{Tune, World};
use crate::time::Millis;

/// A client whose joins the shard knows by how they end, after one of `m0`.
fn joining(tune: Tune) -> (World, usize) {
    let mut world = World::tuned(Tune { shards: 1, ..tune });
    let client = world.connect(0);
    write(&mut world, client, 0..1);
    world.pump(client, usize::MAX);
    world.quiet();
    assert_eq!(world.statuses(client), [201]);
    world.clients[client].answers.clear();
    (world, client)
}

fn write(world: &mut World, client: usize, members: std::ops::Range<usize>) {
    for member in members {
        let line = format!("PUT /g/m{member}?timeout=20");
        world.write(client, &line, "prefer: return=minimal\r\n", b"");
    }
}

#[test]
fn each_of_many_joins_in_one_input_is_answered_with_its_own_session() {
    let (mut world, client) = joining(Tune::default());
    write(&mut world, client, 1..81);
    world.pump(client, usize::MAX);
    world.quiet();
    assert_eq!(world.statuses(client), [201; 80]);
    let answers = std::mem::take(&mut world.clients[client].answers);
    for (member, (_, joined)) in (1..81).zip(answers) {
        assert_eq!(joined.header("content-length"), Some("0"));
        assert_eq!(joined.header("x-group-version"), Some(&*member.to_string()));
        let id = joined.session().expect("a session").to_string();
        let beaten = world.ask(client, &format!("HEAD /g/m{member}"));
        let session = beaten.session().map(|id| id.to_string());
        assert_eq!(session, Some(id), "m{member}");
    }
}

#[test]
fn joins_of_members_that_are_active_renew_them_and_write_nothing() {
    let (mut world, client) = joining(Tune::default());
    write(&mut world, client, 1..5);
    world.pump(client, usize::MAX);
    world.quiet();
    let applied = world.applied();
    world.pass(15_000);
    write(&mut world, client, 0..5);
    world.pump(client, usize::MAX);
    world.quiet();
    assert_eq!(
        world.statuses(client),
        [201, 201, 201, 201, 200, 200, 200, 200, 200]
    );
    assert_eq!(world.applied(), applied);
    // The renewals counted as beats.
    world.pass(15_000);
    assert_eq!(world.ask(client, "HEAD /g/m3").status, 204);
}

#[test]
fn the_last_of_many_joins_ends_its_connection_if_it_says_so() {
    let (mut world, client) = joining(Tune::default());
    write(&mut world, client, 1..3);
    world.write(client, "PUT /g/last", "connection: close\r\n", b"");
    world.pump(client, usize::MAX);
    world.quiet();
    assert_eq!(world.statuses(client), [201, 201, 201]);
    assert_eq!(world.last(client).header("connection"), Some("close"));
}

#[test]
fn of_many_joins_as_many_are_let_in_as_there_is_room_for() {
    for tune in [
        Tune {
            changes_max: 3,
            ..Tune::default()
        },
        Tune {
            asks_max: 3,
            ..Tune::default()
        },
        Tune {
            sessions_max: 4,
            ..Tune::default()
        },
    ] {
        let (mut world, client) = joining(tune);
        write(&mut world, client, 1..7);
        world.pump(client, usize::MAX);
        world.quiet();
        assert_eq!(world.statuses(client), [201, 201, 201, 503, 503, 503]);
    }
    let (mut world, client) = joining(Tune {
        pipelined_max: 3,
        ..Tune::default()
    });
    write(&mut world, client, 1..7);
    world.pump(client, usize::MAX);
    assert_eq!(world.shards[0].asked, 3, "the others wait");
    world.quiet();
    assert_eq!(world.statuses(client), [201; 6]);
}

#[test]
fn a_join_behind_another_kind_of_request_waits_for_its_turn() {
    let (mut world, client) = joining(Tune::default());
    world.write(client, "GET /g?consistent", "", b"");
    write(&mut world, client, 1..2);
    world.pump(client, usize::MAX);
    assert_eq!(world.shards[0].asked, 1, "the document alone");
    world.quiet();
    assert_eq!(world.statuses(client), [200, 201]);
}

#[test]
fn no_join_is_let_in_without_a_lease() {
    let (mut world, client) = joining(Tune::default());
    let now = world.now;
    world.shards[0].on_lease(Millis(0), now);
    write(&mut world, client, 1..3);
    world.pump(client, usize::MAX);
    assert_eq!(world.shards[0].asked, 0);
    assert_eq!(world.statuses(client), [503, 503]);
}
