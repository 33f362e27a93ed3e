//! One server of several, as its shards see it: leases, moves, replaced states. The rest of
//! the ensemble is played by the test, which speaks for the core.

use super::super::EXPIRIES_MAX;
use super::super::due::Found;
use super::world::World;
use crate::mail::{Answer, Dealt, Missing, Tell, Verdict, VersionCell, What};
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId, Term};

const FOREVER: Millis = Millis(u64::MAX);
const PACKED: &str = "content-type: application/octet-stream\r\n";

/// A world of `shards` in service whose lease ends `ms` from now.
fn leased(shards: u16, ms: u64) -> World {
    let mut world = World::new(shards);
    let until = world.now + Millis(ms);
    tell_all(&mut world, || Tell::Lease { until });
    world
}

pub(super) fn tell(world: &mut World, shard: usize, tell: Tell) {
    world.to_shard[shard].push_back(vec![tell]);
    while world.shard_hears(shard) {}
}

pub(super) fn tell_all(world: &mut World, what: impl Fn() -> Tell) {
    for shard in 0..world.shards.len() {
        tell(world, shard, what());
    }
}

/// Takes the one question that the shard has for the core.
pub(super) fn asked(world: &mut World, shard: usize) -> (u64, What) {
    let ask = world.to_core[shard].pop_front().expect("a question");
    assert!(world.to_core[shard].is_empty(), "one question");
    (ask.token, ask.what)
}

/// Answers the shard's one question with these verdicts.
pub(super) fn judge(world: &mut World, shard: usize, verdicts: &[Verdict]) {
    let (token, what) = asked(world, shard);
    assert!(matches!(what, What::Beats(beats) if beats.len() == verdicts.len()));
    let answer = Answer::Verdicts(verdicts.to_vec());
    tell(world, shard, Tell::Answer { token, answer });
}

pub(super) fn dealt(id: u128, term: u64, timeout: u64, grace: u64) -> Dealt {
    Dealt {
        group: b"g".as_slice().into(),
        version: VersionCell::new(GroupVersion(5)),
        member: b"m".as_slice().into(),
        id: SessionId(id),
        term: Term(term as u32),
        timeout: Millis(timeout),
        grace: Millis(grace),
    }
}

pub(super) fn deadline(world: &World, shard: usize) -> Millis {
    let tracker = &world.shards[shard].tracker;
    let slot = tracker.find(b"g", b"m").expect("held");
    tracker.view(slot).deadline
}

/// Lets time pass for the shards alone: nothing reaches the core.
pub(super) fn pass(world: &mut World, ms: u64) {
    let until = world.now + Millis(ms);
    while world.now < until {
        world.now = world.now + Millis(10);
        (0..world.shards.len()).for_each(|shard| world.ticks(shard, true));
    }
}

#[test]
fn beats_and_joins_are_promised_nothing_from_the_end_of_the_lease_on() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let joined = world.ask(client, "PUT /g/m?timeout=9");
    let until = world.now + Millis(100);
    tell(&mut world, 0, Tell::Lease { until });
    world.now = until;
    world.now.0 -= 1;
    assert_eq!(world.ask(client, "HEAD /g/m").status, 204);
    world.now.0 += 1;
    let before = deadline(&world, 0);
    let conflict = format!("x-session-id: {}\r\n", SessionId(1));
    for (line, headers) in [
        ("HEAD /g/m", ""),
        ("GET /g/m", ""),
        ("PUT /g/m", ""),
        ("PUT /g/new", ""),
        ("HEAD /g/m", conflict.as_str()),
    ] {
        let refused = world.ask_with(client, line, headers, b"");
        assert_eq!(refused.status, 503, "{line}");
        assert_eq!(refused.header("retry-after"), Some("1"));
        let told = refused.header("x-problem") == Some("lease_lapsed")
            || refused.text().contains("\"lease_lapsed\"") && refused.text().contains("t:1");
        assert!(told, "{line}");
    }
    assert!(!world.is_active("g", "new"));
    assert_eq!(deadline(&world, 0), before, "nothing was touched");
    assert_eq!(world.shards[0].counters.lease_refusals.get(), 5);
    // What promises nothing goes on.
    assert_eq!(world.ask(client, "GET /g").status, 200);
    assert_eq!(world.ask(client, "DELETE /g/m").status, 204);
    assert_eq!(joined.status, 201);
}

#[test]
fn a_join_or_a_search_in_which_the_lease_lapses_is_promised_nothing() {
    for search in [false, true] {
        let mut world = leased(1, 100);
        let client = world.connect(0);
        world.send(client, if search { "HEAD /g/m" } else { "PUT /g/m" });
        world.now = world.now + Millis(100);
        if search {
            tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 10_000, 0)]));
            judge(&mut world, 0, &[Verdict::Here]);
        } else {
            let (token, _) = asked(&mut world, 0);
            let joined = crate::group::Joined {
                session: SessionId(900),
                term: Term(1),
                timeout: Millis(10_000),
                version: GroupVersion(5),
                created: true,
            };
            let answer = Answer::Joined {
                joined,
                here: true,
                group: b"g"[..].into(),
                member: b"m"[..].into(),
                version: VersionCell::new(GroupVersion(5)),
                document: None,
            };
            tell(&mut world, 0, Tell::Answer { token, answer });
        }
        world.pump(client, usize::MAX);
        assert_eq!(world.statuses(client), [503]);
        assert!(
            world.shards[0].tracker.find(b"g", b"m").is_some(),
            "it is held"
        );
    }
}

#[test]
fn a_batch_under_a_lapsed_lease_touches_nobody_and_says_so_of_each_line() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let id = world.ask(client, "PUT /g/m?timeout=9").session();
    let before = deadline(&world, 0);
    let until = world.now;
    tell(&mut world, 0, Tell::Lease { until });
    world.now = world.now + Millis(500);
    let body = b"g/m\nno-member\ng/x\n";
    let by_name = world.ask_with(client, "POST /-/heartbeats", "", body);
    let id = id.expect("a session").to_bytes();
    let by_id = world.ask_with(client, "POST /-/heartbeats", PACKED, &id);
    for (answer, lapsed) in [(by_name, vec![1, 3]), (by_id, vec![0])] {
        assert_eq!(answer.status, 200);
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(json["renewed"], 0);
        let failed = json["failed"].as_array().expect("a list").iter();
        let failed = failed.filter(|failure| failure["code"] == "lease_lapsed");
        let at: Vec<u64> = failed
            .map(|failure| {
                assert_eq!(failure["status"], 503);
                let at = failure["line"].as_u64().or(failure["index"].as_u64());
                at.expect("a place")
            })
            .collect();
        assert_eq!(at, lapsed, "{json}");
    }
    assert_eq!(deadline(&world, 0), before);
    assert_eq!(world.shards[0].counters.lease_refusals.get(), 3);
}

#[test]
fn a_search_that_outlives_the_lease_touches_nothing_and_ends_at_once() {
    let mut world = World::new(2);
    let (here, there) = (world.connect(0), world.connect(1));
    world.ask(here, "PUT /g/m?timeout=9");
    let until = world.now + Millis(50);
    tell_all(&mut world, || Tell::Lease { until });
    world.send(there, "HEAD /g/m");
    world.now = world.now + Millis(50);
    world.quiet();
    let refused = world.last(there);
    assert_eq!(
        (refused.status, refused.header("x-problem")),
        (503, Some("lease_lapsed"))
    );
    assert_eq!(world.holders("g", "m"), [1], "it has been handed over");
    world.assert_nothing_is_kept();
}

#[test]
fn a_join_that_outlives_the_lease_is_done_but_promised_nothing() {
    let mut world = leased(1, 50);
    let client = world.connect(0);
    world.send(client, "PUT /g/m?timeout=1");
    world.now = world.now + Millis(50);
    world.quiet();
    let refused = world.last(client);
    assert!(refused.status == 503 && refused.text().contains("lease_lapsed"));
    assert_eq!(world.holders("g", "m"), [0], "the session is there");
}

#[test]
fn deadlines_move_by_the_lapsed_time_to_the_millisecond() {
    for (lease, lapse) in [(3, 47), (105, 600), (110, 7)] {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.ask(client, "PUT /g/m?timeout=1");
        world.pass(10);
        let due = deadline(&world, 0);
        let until = world.now + Millis(lease);
        tell(&mut world, 0, Tell::Lease { until });
        let granted = until + Millis(lapse);
        while world.now < granted {
            world.now = (world.now + Millis(10)).min(granted);
            if world.now < granted {
                world.ticks(0, true);
            }
        }
        tell(&mut world, 0, Tell::Lease { until: FOREVER });
        world.pass(10);
        assert_eq!(deadline(&world, 0), due + Millis(lapse), "{lease} {lapse}");
    }
}

#[test]
fn nobody_is_expired_while_the_lease_has_lapsed() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=200ms");
    let until = world.now + Millis(100);
    tell(&mut world, 0, Tell::Lease { until });
    world.pass(10_000);
    assert!(world.is_active("g", "m"));
    tell(&mut world, 0, Tell::Lease { until: FOREVER });
    world.pass(90);
    assert!(world.is_active("g", "m"));
    world.pass(40);
    assert!(!world.is_active("g", "m"), "what it had left has passed");
}

#[test]
fn a_stall_in_which_the_lease_lapsed_is_made_good_once() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.ask(client, "PUT /g/m?timeout=1");
    world.pass(10);
    let due = deadline(&world, 0);
    let until = world.now + Millis(2_000);
    tell(&mut world, 0, Tell::Lease { until });
    world.now = world.now + Millis(5_000);
    world.ticks(0, true);
    assert_eq!(deadline(&world, 0), due + Millis(4_990));
}

#[test]
fn the_probe_for_readiness_names_the_lapsed_lease_and_the_metrics_show_it() {
    let mut world = leased(1, 700);
    let client = world.connect(0);
    assert_eq!(world.ask(client, "GET /-/readyz").status, 200);
    let metrics = world.ask(client, "GET /-/metrics");
    for line in [
        "systole_lease_lapsed{shard=\"0\"} 0",
        "systole_lease_left_seconds{shard=\"0\"} 0.700",
    ] {
        assert!(metrics.text().contains(line), "{line}");
    }
    assert!(
        world
            .ask(client, "GET /-/cluster")
            .text()
            .contains("\"held\":true")
    );
    world.now = world.now + Millis(700);
    let probed = world.ask(client, "GET /-/readyz");
    assert!(probed.status == 503 && probed.text().contains("lease_lapsed"));
    let metrics = world.ask(client, "GET /-/metrics");
    assert!(
        metrics
            .text()
            .contains("systole_lease_lapsed{shard=\"0\"} 1")
    );
    assert!(
        world
            .ask(client, "GET /-/cluster")
            .text()
            .contains("\"held\":false")
    );
    assert_eq!(world.shards[0].counters.lease_refusals.get(), 0);
}

#[test]
fn alone_a_server_shows_the_full_length_of_its_lease() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let metrics = world.ask(client, "GET /-/metrics");
    assert!(
        metrics
            .text()
            .contains("systole_lease_left_seconds{shard=\"0\"} 3.000")
    );
}

#[test]
fn a_session_moved_here_is_spared_for_what_its_last_owner_may_have_promised() {
    let mut world = World::new(2);
    let mine = dealt(900, 2, 1_000, 3_000);
    tell(&mut world, 0, Tell::Deal(vec![mine]));
    let first = deadline(&world, 0);
    assert!(first >= world.now + Millis(4_004));
    let client = world.connect(0);
    assert_eq!(world.ask(client, "HEAD /g/m").status, 204);
    assert_eq!(deadline(&world, 0), first, "a touch does not pull it in");
    // Nor does a shorter timeout, which the last owner may not have heard of.
    let (id, term, timeout) = (SessionId(900), Term(2), Millis(200));
    world.now = world.now + Millis(100);
    tell_all(&mut world, || Tell::Changed { id, term, timeout });
    assert!(deadline(&world, 0) >= world.now + Millis(3_200));
    world.now = world.now + Millis(3_400);
    let timeout = Millis(300);
    tell_all(&mut world, || Tell::Changed { id, term, timeout });
    assert!(
        deadline(&world, 0) < world.now + Millis(320),
        "all that is over"
    );
}

#[test]
fn what_a_session_is_spared_goes_with_it_to_another_shard() {
    let mut world = World::new(2);
    let mine = dealt(900, 2, 1_000, 3_000);
    tell(&mut world, 0, Tell::Deal(vec![mine]));
    let first = deadline(&world, 0);
    pass(&mut world, 500);
    let client = world.connect(1);
    world.send(client, "HEAD /g/m");
    world.shard_gets(1, 0);
    world.shard_gets(0, 1);
    assert_eq!(world.statuses(client), [204]);
    assert!(
        deadline(&world, 1) >= first,
        "{:?} {first:?}",
        deadline(&world, 1)
    );
    let (id, term, timeout) = (SessionId(900), Term(2), Millis(200));
    tell(&mut world, 1, Tell::Changed { id, term, timeout });
    assert!(deadline(&world, 1) >= world.now + Millis(2_600));
}

#[test]
fn a_session_dealt_again_takes_the_newer_term_and_keeps_the_later_deadline() {
    let mut world = World::new(1);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 1_000, 3_000)]));
    let first = deadline(&world, 0);
    let term = |world: &World| {
        let tracker = &world.shards[0].tracker;
        tracker.view(tracker.find(b"g", b"m").expect("held")).term
    };
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 4, 1_000, 0)]));
    assert_eq!((term(&world), deadline(&world, 0)), (Term(4), first));
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 5, 1_000, 9_000)]));
    assert!(deadline(&world, 0) >= world.now + Millis(10_010));
    tell(
        &mut world,
        0,
        Tell::Deal(vec![dealt(900, 3, 1_000, 99_000)]),
    );
    assert_eq!(term(&world), Term(5), "terms only grow");
}

/// A shard whose session is closing, its expiry proposed in term 2, and the expiry's token.
pub(super) fn closing() -> (World, u64) {
    let mut world = World::new(1);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 100, 0)]));
    pass(&mut world, 130);
    let (token, what) = asked(&mut world, 0);
    assert!(matches!(what, What::Change { .. }), "an expiry");
    (world, token)
}

fn expired(world: &mut World, token: u64, stale: &[SessionId]) {
    let answer = Answer::Outcome(crate::group::Outcome::Expired {
        ended: 0,
        stale: stale.to_vec(),
    });
    tell(world, 0, Tell::Answer { token, answer });
}

#[test]
fn a_session_whose_term_is_raised_lives_although_its_expiry_is_proposed() {
    let (mut world, token) = closing();
    let client = world.connect(0);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 3, 100, 0)]));
    world.send(client, "HEAD /g/m");
    assert_eq!(world.statuses(client), [204]);
    expired(&mut world, token, &[SessionId(900)]);
    world.send(client, "HEAD /g/m");
    assert_eq!(world.statuses(client), [204, 204]);
}

#[test]
fn a_stale_expiry_of_an_older_term_does_not_reopen_a_session_closing_in_a_newer() {
    let (mut world, first) = closing();
    tell_all(&mut world, || Tell::Ended([SessionId(900)].into()));
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 4, 100, 0)]));
    pass(&mut world, 130);
    let (second, _) = asked(&mut world, 0);
    expired(&mut world, first, &[SessionId(900)]);
    let client = world.connect(0);
    world.send(client, "HEAD /g/m");
    assert!(world.statuses(client).is_empty(), "S3: its fate is open");
    world.to_core[0].clear();
    expired(&mut world, second, &[SessionId(900)]);
    let tracker = &world.shards[0].tracker;
    let slot = tracker.find(b"g", b"m").expect("held");
    assert!(!tracker.view(slot).closing, "its own does");
}

#[test]
fn a_session_moved_away_and_back_is_not_expired_for_what_was_found_before() {
    let mut world = World::new(1);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 100, 0)]));
    // As many are proposed as may be: it is found due and waits.
    world.shards[0].expiry.asked = EXPIRIES_MAX;
    pass(&mut world, 130);
    assert_eq!(world.shards[0].expiry.due.len(), 1);
    tell_all(&mut world, || Tell::Ended([SessionId(900)].into()));
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 4, 100, 0)]));
    world.shards[0].expiry.asked = 0;
    pass(&mut world, 10);
    assert!(world.to_core[0].is_empty(), "it has just come");
    assert_eq!(world.holders("g", "m"), [0]);
}

#[test]
fn an_expiry_that_was_not_proposed_is_not_repeated_for_a_session_that_lives_again() {
    let (mut world, token) = closing();
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 3, 100, 0)]));
    let answer = Answer::Busy;
    tell(&mut world, 0, Tell::Answer { token, answer });
    assert!(world.shards[0].expiry.due.len() == 0);
}

#[test]
fn a_replaced_state_drops_every_session_and_its_expiries_come_to_nothing() {
    let (mut world, token) = closing();
    let shard = &mut world.shards[0];
    let slot = shard.tracker.find(b"g", b"m").expect("held");
    let found = Found::new(slot, &shard.tracker.view(slot));
    shard.expiry.due.add_again(vec![found]);
    tell(&mut world, 0, Tell::Reset);
    assert_eq!(world.shards[0].expiry.due.len(), 0);
    assert!(world.holders("g", "m").is_empty());
    assert_eq!(world.shards[0].sessions(), 0);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 100, 0)]));
    expired(&mut world, token, &[SessionId(900)]);
    pass(&mut world, 20);
    assert!(
        world.to_core[0].is_empty(),
        "nothing falls due that was due before"
    );
    assert_eq!(world.holders("g", "m"), [0]);
    pass(&mut world, 130);
    assert_eq!(world.to_core[0].len(), 1, "and it expires in its own time");
}

#[test]
fn a_session_on_its_way_when_the_state_is_replaced_does_not_arrive() {
    for giver_hears_first in [false, true] {
        let mut world = World::new(2);
        tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 9_000, 0)]));
        let client = world.connect(1);
        world.send(client, "HEAD /g/m");
        world.shard_gets(1, 0);
        for shard in 0..2 {
            world.to_shard[shard].push_back(vec![Tell::Reset]);
        }
        if giver_hears_first {
            world.shard_hears(0);
        }
        world.shard_hears(1);
        world.shard_gets(0, 1);
        world.shard_hears(0);
        assert!(world.holders("g", "m").is_empty());
        judge(&mut world, 1, &[Verdict::NotFound]);
        assert_eq!(world.statuses(client), [404], "the search goes on");
    }
}

#[test]
fn a_session_moved_away_and_back_survives_a_handover_of_before() {
    let mut world = World::new(2);
    tell(&mut world, 0, Tell::Deal(vec![dealt(900, 2, 9_000, 0)]));
    let client = world.connect(1);
    world.send(client, "HEAD /g/m");
    world.shard_gets(1, 0);
    tell_all(&mut world, || Tell::Ended([SessionId(900)].into()));
    tell(&mut world, 1, Tell::Deal(vec![dealt(900, 4, 9_000, 0)]));
    world.shard_gets(0, 1);
    assert_eq!(world.holders("g", "m"), [1]);
    assert_eq!(world.statuses(client), [204]);
}

#[test]
fn beats_for_sessions_that_are_elsewhere_look_for_them_together_and_are_answered_in_order() {
    let mut world = leased(1, 60_000);
    let client = world.connect(0);
    world.ask(client, "PUT /g/here");
    for line in [
        "HEAD /g/a",
        "HEAD /g/b",
        "HEAD /g/here",
        "HEAD /g/c",
        "DELETE /g/here",
        "HEAD /g/d",
    ] {
        world.write(client, line, "", b"");
    }
    world.pump(client, usize::MAX);
    let asks: Vec<_> = world.to_core[0].drain(..).collect();
    let names = asks.iter().map(|ask| match &ask.what {
        What::Beats(beats) => match &beats[0].who {
            Missing::Named { member, .. } => member.clone(),
            Missing::Id(id) => panic!("{id}"),
        },
        other => panic!("{other:?}: a change waits for the beats before it"),
    });
    let names: Vec<Box<[u8]>> = names.collect();
    assert_eq!(names, [b"a", b"b", b"c"].map(|name| Box::from(&name[..])));
    let touched = Verdict::Touched {
        id: SessionId(900),
        timeout: Millis(1_000),
        version: GroupVersion(5),
    };
    let verdicts = [touched, Verdict::NotFound, Verdict::Gone];
    for (ask, verdict) in asks.into_iter().zip(verdicts).rev() {
        assert_eq!(world.statuses(client), [201], "the first is open");
        let answer = Answer::Verdicts(vec![verdict]);
        let token = ask.token;
        tell(&mut world, 0, Tell::Answer { token, answer });
        world.pump(client, usize::MAX);
    }
    world.quiet();
    assert_eq!(world.statuses(client), [201, 204, 404, 204, 410, 204, 404]);
}
