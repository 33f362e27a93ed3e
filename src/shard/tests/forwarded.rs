//! Beats that other servers send on, and beats that are sent on to them.

use super::ensemble::{asked, closing, deadline, dealt, judge, pass, tell, tell_all};
use super::world::{Tune, World};
use crate::mail::{Answer, Beat, Beaten, Missing, Tell, Verdict, VersionCell, What};
use crate::time::Millis;
use crate::types::{GroupVersion, ServerId, SessionId, Term};

fn named(session: Option<SessionId>) -> Missing {
    Missing::Named {
        group: b"g".as_slice().into(),
        member: b"m".as_slice().into(),
        session,
    }
}

/// Sends one beat on to `shard`, and returns what it makes of it.
fn forwarded(world: &mut World, shard: usize, who: Missing, floor: Option<GroupVersion>) -> Beaten {
    let from = ServerId(2);
    let beats = vec![Beat { who, floor }].into();
    let token = 77;
    let beats = Tell::Beats { from, token, beats };
    tell(world, shard, beats);
    let (_, what) = asked(world, shard);
    let What::Beaten {
        from,
        token,
        verdicts,
    } = what
    else {
        panic!("no verdict: {what:?}");
    };
    assert_eq!((from, token, verdicts.len()), (ServerId(2), 77, 1));
    verdicts[0]
}

#[test]
fn a_beat_sent_on_touches_the_session_where_it_is_held_and_nowhere_else() {
    let mut world = World::new(2);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 1_000, 0)]));
    world.now = world.now + Millis(500);
    let touched = Beaten::Touched {
        id: SessionId(900),
        timeout: Millis(1_000),
        version: GroupVersion(5),
        settled: false,
    };
    for who in [
        named(None),
        named(Some(SessionId(900))),
        Missing::Id(SessionId(900)),
    ] {
        let floor = Some(GroupVersion(5));
        assert_eq!(forwarded(&mut world, 0, who.clone(), floor), touched);
        assert_eq!(forwarded(&mut world, 1, who, floor), Beaten::NotHeld);
    }
    assert!(deadline(&world, 0) >= world.now + Millis(1_001));
    let counters = &world.shards[0].counters;
    assert_eq!(counters.forwarded_in.get(), 3);
    assert_eq!(counters.heartbeats.get(), 0, "its own server counts those");
    world.assert_nothing_is_kept();
}

#[test]
fn a_beat_sent_on_touches_nothing_that_cannot_be_promised() {
    let mut world = World::new(1);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 1_000, 0)]));
    let before = deadline(&world, 0);
    world.now = world.now + Millis(500);
    let version = GroupVersion(5);
    let other = named(Some(SessionId(899)));
    let judged = forwarded(&mut world, 0, other, None);
    assert_eq!(judged, Beaten::Conflict { version });
    let ahead = Some(GroupVersion(6));
    assert_eq!(forwarded(&mut world, 0, named(None), ahead), Beaten::Wait);
    let until = world.now;
    tell(&mut world, 0, Tell::Lease { until });
    assert_eq!(forwarded(&mut world, 0, named(None), None), Beaten::Lapsed);
    assert_eq!(deadline(&world, 0), before);
    assert_eq!(world.shards[0].counters.forwarded_in.get(), 0);
}

#[test]
fn a_beat_sent_on_for_a_closing_session_waits() {
    let (mut world, _) = closing();
    assert_eq!(forwarded(&mut world, 0, named(None), None), Beaten::Wait);
}

#[test]
fn a_client_settles_where_it_beats_eight_times_in_a_row() {
    let mut world = World::new(1);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 1_000, 0)]));
    let client = world.connect(0);
    let mut told = Vec::new();
    for round in 1..=16 {
        world.now = world.now + Millis(100);
        world.ticks(0, true);
        if round == 4 {
            world.send(client, "HEAD /g/m");
            world.now = world.now + Millis(20);
        }
        let judged = forwarded(&mut world, 0, named(None), None);
        if matches!(judged, Beaten::Touched { settled: true, .. }) {
            told.push(round);
        }
    }
    assert_eq!(told, [11], "the row begins after the beat of round 4");
    tell(&mut world, 0, Tell::Ended([SessionId(900)].into()));
    assert_eq!(world.shards[0].settling.len(), 0);
}

#[test]
fn a_row_ends_when_the_session_is_handed_over_or_the_state_replaced() {
    let mut world = World::new(2);
    let client = world.connect(1);
    for reset in [false, true] {
        tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 1_000, 0)]));
        forwarded(&mut world, 0, named(None), None);
        assert_eq!(world.shards[0].settling.len(), 1);
        if reset {
            tell_all(&mut world, || Tell::Reset);
        } else {
            world.send(client, "HEAD /g/m");
            world.shard_gets(1, 0);
            world.shard_gets(0, 1);
            tell(&mut world, 1, Tell::Ended([SessionId(900)].into()));
        }
        assert_eq!(world.shards[0].settling.len(), 0);
    }
}

/// What the owner elsewhere says of session 900.
fn touched(timeout: u64, version: u64) -> Verdict {
    Verdict::Touched {
        id: SessionId(900),
        timeout: Millis(timeout),
        version: GroupVersion(version),
    }
}

#[test]
fn a_beat_is_answered_on_the_word_of_the_owner_elsewhere() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "HEAD /g/m");
    judge(&mut world, 0, &[touched(1_000, 7)]);
    let answer = world.last(client);
    assert_eq!(answer.status, 204);
    assert_eq!(answer.session(), Some(SessionId(900)));
    assert_eq!(answer.timeout(), Some(Millis(1_000)));
    assert_eq!(answer.version(), Some(7));
    assert_eq!(world.shards[0].sessions(), 0, "it is not held here");
    let counters = &world.shards[0].counters;
    assert_eq!(
        (counters.forwarded.get(), counters.heartbeats.get()),
        (1, 1)
    );
    world.assert_nothing_is_kept();
}

#[test]
fn an_answer_shows_the_newer_of_the_owners_version_and_the_one_known_here() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let mut other = dealt(901, 1, 9_000, 0);
    other.member = b"other".as_slice().into();
    other.version = VersionCell::new(GroupVersion(9));
    tell(&mut world, 0, Tell::Deal(vec![other]));
    world.send(client, "HEAD /g/m");
    judge(&mut world, 0, &[touched(1_000, 7)]);
    assert_eq!(world.last(client).version(), Some(9));
}

#[test]
fn an_owners_word_that_is_older_than_the_client_or_about_another_session_is_no_answer() {
    let mut world = World::new(1);
    for headers in [
        "x-group-version: 8\r\n".to_owned(),
        format!("x-session-id: {}\r\n", SessionId(901)),
    ] {
        let client = world.connect(0);
        world.write(client, "HEAD /g/m", &headers, b"");
        world.pump(client, usize::MAX);
        judge(&mut world, 0, &[touched(1_000, 7)]);
        assert!(world.statuses(client).is_empty());
        pass(&mut world, 10);
        assert_eq!(world.to_core[0].len(), 1, "it asks again");
        judge(&mut world, 0, &[Verdict::NotFound]);
        assert_eq!(world.statuses(client), [404]);
    }
}

#[test]
fn a_beat_with_a_document_shows_this_servers_own() {
    let mut world = World::new(1);
    let joined = world.connect(0);
    world.ask(joined, "PUT /g/other?timeout=60");
    let client = world.connect(0);
    world.send(client, "GET /g/m");
    judge(&mut world, 0, &[touched(1_000, 0)]);
    world.quiet();
    let answer = world.last(client);
    assert_eq!(
        (answer.status, answer.session()),
        (200, Some(SessionId(900)))
    );
    assert!(answer.text().contains("\"other\""));
}

#[test]
fn verdicts_on_a_batch_are_told_line_by_line() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let body = b"g/a\ng/b\ng/c\ng/d\n";
    world.write(client, "POST /-/heartbeats", "", body);
    world.pump(client, usize::MAX);
    let verdicts = [
        touched(1_000, 7),
        Verdict::Unavailable,
        Verdict::NotFound,
        touched(1_000, 7),
    ];
    judge(&mut world, 0, &verdicts);
    let answer = world.last(client);
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(json["renewed"], 2);
    let codes = json["failed"].as_array().expect("a list").iter();
    let codes: Vec<&str> = codes
        .filter_map(|failure| failure["code"].as_str())
        .collect();
    assert_eq!(codes, ["owner_unreachable", "unknown_member"]);
}

#[test]
fn a_beat_for_which_nobody_can_be_reached_is_answered_503() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "HEAD /g/m");
    judge(&mut world, 0, &[Verdict::Unavailable]);
    let refused = world.last(client);
    assert_eq!(
        (refused.status, refused.header("x-problem")),
        (503, Some("owner_unreachable"))
    );
}

#[test]
fn a_session_moved_here_for_a_beat_answers_it() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "HEAD /g/m");
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 1_000, 3_000)]));
    judge(&mut world, 0, &[Verdict::Here]);
    assert_eq!(world.statuses(client), [204]);
    world.assert_nothing_is_kept();
}

#[test]
fn no_more_sessions_are_moved_to_a_shard_than_it_may_hold() {
    let mut world = World::tuned(Tune {
        shards: 1,
        sessions_max: 2,
        ..Tune::default()
    });
    let until = world.now + Millis(3_000);
    tell(&mut world, 0, Tell::Lease { until });
    let clients: Vec<usize> = (0..3).map(|_| world.connect(0)).collect();
    for client in &clients {
        world.send(*client, "HEAD /g/m");
    }
    assert_eq!(
        world.to_core[0].len(),
        1,
        "each leaves room for a session and a join"
    );
    assert_eq!(world.statuses(clients[2]), [503]);
}

#[test]
fn a_renewal_is_not_promised_a_timeout_that_the_owner_has_not_heard_of() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.send(client, "PUT /g/m?timeout=60");
    let (token, _) = asked(&mut world, 0);
    let joined = crate::group::Joined {
        session: SessionId(900),
        term: Term(3),
        timeout: Millis(60_000),
        version: GroupVersion(7),
        created: false,
    };
    let answer = Answer::Joined {
        joined,
        here: false,
        group: b"g"[..].into(),
        member: b"m"[..].into(),
        version: VersionCell::new(GroupVersion(7)),
        document: None,
    };
    tell(&mut world, 0, Tell::Answer { token, answer });
    judge(&mut world, 0, &[touched(1_000, 7)]);
    assert!(
        world.statuses(client).is_empty(),
        "the owner means another timeout"
    );
    pass(&mut world, 10);
    judge(&mut world, 0, &[touched(60_000, 7)]);
    let answer = world.last(client);
    assert_eq!(
        (answer.status, answer.timeout()),
        (200, Some(Millis(60_000)))
    );
}
