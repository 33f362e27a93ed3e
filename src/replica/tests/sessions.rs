//! Who owns what: joins, moves, adoptions.

use super::world::Fleet;
use crate::group::{Lapse, Outcome, Request};
use crate::mail::{Answer, Verdict, What};
use crate::time::Millis;
use crate::types::{ServerId, SessionId, Term};
use crate::zab::Standing;

#[test]
fn a_join_at_any_server_is_owned_there_and_known_everywhere() {
    let mut fleet = Fleet::running(3);
    for id in 1..=3 {
        fleet.join(id, 1, &format!("m{id}"), 10_000);
    }
    fleet.run(100);
    for id in 1..=3 {
        let session = fleet.joined(id, 1);
        let held: Vec<_> = fleet.server(id).held.keys().copied().collect();
        assert_eq!(held, [session], "each server holds what was joined at it");
    }
    let digests: Vec<u64> = (1..=3)
        .map(|id| fleet.server(id).replica.state().digest())
        .collect();
    assert!(
        digests.windows(2).all(|pair| pair[0] == pair[1]),
        "{digests:?}"
    );
}

#[test]
fn what_is_delivered_together_shows_one_version() {
    for id in 1..=3 {
        let mut fleet = Fleet::running(3);
        let version = |fleet: &Fleet, id| fleet.server(id).replica.state().version(b"g").unwrap();
        // None is heard of before all of them are in the state.
        (1..=5).for_each(|token| fleet.join(id, token, &format!("m{token}"), 10_000));
        fleet.run(100);
        let held: Vec<_> = fleet.server(id).held.values().collect();
        assert_eq!(held.len(), 5);
        for dealt in held {
            assert_eq!(dealt.version.get(), version(&fleet, id));
        }
    }
}

#[test]
fn a_group_that_is_removed_and_back_at_once_goes_on_showing_its_version() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    fleet.join(leader, 1, "m", 10_000);
    fleet.run(100);
    let member = || (b"g"[..].into(), b"m"[..].into());
    let ((group, name), (removed, _)) = (member(), member());
    let leave = Request::Leave {
        group,
        member: name,
        session: None,
    };
    for (token, request) in [(2, leave), (3, Request::DeleteGroup { group: removed })] {
        let document = false;
        fleet.ask(
            leader,
            token,
            What::Change {
                request,
                document,
                fresh: false,
            },
        );
    }
    fleet.join(leader, 4, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(leader, 4);
    fleet.join(leader, 5, "n", 10_000);
    fleet.run(100);
    let server = fleet.server(leader);
    assert_eq!(
        server.held[&id].version.get(),
        server.replica.state().version(b"g").unwrap()
    );
}

#[test]
fn a_member_that_a_shard_believes_to_be_new_is_looked_for_once_and_keeps_its_session() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let logged = |fleet: &Fleet| fleet.server(leader).replica.peer().last_logged().counter;
    fleet.join(leader, 1, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(leader, 1);
    let before = logged(&fleet);
    // In turns with one that is not believed to be: each is decided as it was asked.
    for (token, fresh) in [(2, false), (3, true), (4, false), (5, true)] {
        fleet.ask_join_of(leader, token, ("m", fresh), |_| {});
        fleet.run(100);
        assert_eq!(fleet.joined(leader, token), id, "it is active");
    }
    assert_eq!(
        logged(&fleet) - before,
        2,
        "only who is not looked for costs a transaction"
    );
    let follower = fleet.followers()[0];
    // The first moves it there; of the second the leader knows better than a follower's shard.
    for token in [6, 7] {
        fleet.ask_join_of(follower, token, ("m", true), |_| {});
        fleet.run(100);
        assert_eq!(fleet.joined(follower, token), id);
        assert_eq!(logged(&fleet) - before, 3);
    }
}

/// The owner's shard has touched the session of the one beat that it was asked for.
fn touched(fleet: &mut Fleet, owner: u32, (from, token): (ServerId, u64), id: SessionId) {
    let verdicts = vec![crate::mail::Beaten::Touched {
        id,
        timeout: Millis(10_000),
        version: Default::default(),
        settled: false,
    }];
    let what = What::Beaten {
        from,
        token,
        verdicts,
    };
    fleet.ask(owner, 0, what);
}

#[test]
fn a_word_of_the_owner_that_comes_after_the_sessions_end_is_known_promises_nothing() {
    let mut fleet = Fleet::running(3);
    let [owner, other] = fleet.followers()[..] else {
        panic!("two follow");
    };
    fleet.join(owner, 1, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(owner, 1);
    fleet.beat(other, 2, "m");
    fleet.carry_forwards();
    let asked = fleet.with_machine(owner, |server, _| std::mem::take(&mut server.asked));
    touched(&mut fleet, owner, (asked[0].0, asked[0].1), id);
    // While that word is on its way, the member leaves, and the server that waits hears of it.
    let (group, member) = (b"g"[..].into(), b"m"[..].into());
    let session = Some(id);
    let leave = Request::Leave {
        group,
        member,
        session,
    };
    fleet.ask(
        owner,
        3,
        What::Change {
            request: leave,
            document: false,
            fresh: false,
        },
    );
    fleet.run(100);
    fleet.carry_forwards();
    assert_eq!(
        fleet.verdict(other, 2),
        Some(Verdict::Here),
        "it looks again"
    );
}

#[test]
fn a_beat_elsewhere_is_touched_by_the_owner_and_asks_no_quorum() {
    let mut fleet = Fleet::running(3);
    let follower = fleet.followers()[0];
    let other = fleet.followers()[1];
    fleet.join(follower, 1, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(follower, 1);
    let logged = fleet.server(follower).replica.peer().last_logged();
    let sent = fleet.sent.len();
    fleet.beat(other, 2, "m");
    let said = fleet.sent.len() - sent;
    fleet.carry_forwards();
    let asked = fleet.with_machine(follower, |server, _| std::mem::take(&mut server.asked));
    let [(from, token, beats)] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!((from.0, beats.len()), (other, 1));
    let (from, token) = (*from, *token);
    touched(&mut fleet, follower, (from, token), id);
    fleet.carry_forwards();
    let verdict = fleet.verdict(other, 2);
    assert!(
        matches!(verdict, Some(Verdict::Touched { id: touched, .. }) if touched == id),
        "{verdict:?}"
    );
    assert_eq!(said, 0, "nobody else was told");
    assert_eq!(fleet.server(follower).replica.peer().last_logged(), logged);
}

#[test]
fn a_session_moves_to_where_it_beats_once_its_owner_is_lost() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let [owner, other] = fleet.followers()[..] else {
        panic!("two follow");
    };
    fleet.join(owner, 1, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(owner, 1);
    fleet.crash(owner);
    fleet.beat(other, 2, "m");
    fleet.run(100);
    assert_eq!(fleet.verdict(other, 2), Some(Verdict::Here));
    let held = &fleet.server(other).held[&id];
    assert_eq!(held.term.0, 2, "the move is the second term");
    assert!(
        held.grace > Millis(3_000),
        "its owner may have promised until its lease ended"
    );
    assert_ne!(leader, other);
    // The owner comes back, and finds that the session is not its own any more.
    fleet.start(owner);
    fleet.run(3_000);
    assert!(fleet.server(owner).held.is_empty());
    assert!(fleet.server(owner).ready.is_some());
}

#[test]
fn a_session_moves_if_its_owner_does_not_answer() {
    let mut fleet = Fleet::running(3);
    let [owner, other] = fleet.followers()[..] else {
        panic!("two follow");
    };
    fleet.join(owner, 1, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(owner, 1);
    fleet.beat(other, 2, "m");
    assert_eq!(fleet.lose_forwards(), 1);
    fleet.run(400);
    assert_eq!(fleet.verdict(other, 2), None, "it may answer yet");
    fleet.run(300);
    assert_eq!(fleet.verdict(other, 2), Some(Verdict::Here));
    assert!(fleet.server(other).held.contains_key(&id));
    assert!(
        fleet.server(owner).held.is_empty(),
        "it has heard of the move"
    );
}

#[test]
fn a_run_takes_over_the_sessions_of_the_run_before() {
    let mut fleet = Fleet::running(3);
    let owner = fleet.followers()[0];
    for n in 0..5 {
        fleet.join(owner, n, &format!("m{n}"), 10_000);
    }
    fleet.run(100);
    let before = fleet.server(owner).ready;
    fleet.crash(owner);
    fleet.run(100);
    fleet.start(owner);
    fleet.run(2_000);
    let server = fleet.server(owner);
    assert_eq!(server.held.len(), 5);
    assert!(
        server
            .held
            .values()
            .all(|held| held.term.0 == 2 && held.grace > Millis(3_000)),
        "the run before may have been given them by a move, and another server promise still"
    );
    assert!(server.ready > before, "{:?} after {before:?}", server.ready);
    assert!(server.lease > fleet.now, "it may promise");
}

#[test]
fn a_run_that_loses_the_way_to_its_leader_while_it_starts_goes_on_with_the_same_leader() {
    let mut fleet = Fleet::running(3);
    let (leader, owner) = (fleet.leader_of(), fleet.followers()[0]);
    fleet.join(owner, 1, "m", 10_000);
    fleet.run(100);
    let epoch = fleet.server(leader).replica.peer().current_epoch();
    fleet.crash(owner);
    fleet.run(100);
    fleet.start(owner);
    while matches!(fleet.server(owner).replica.standing(), Standing::Recovering) {
        assert_eq!(fleet.steps(1), 1, "it follows");
    }
    // What it has asked to begin with is lost on the way.
    fleet.cut(owner, leader);
    fleet.heal();
    fleet.run(2_000);
    let server = fleet.server(owner);
    assert_eq!(server.held.len(), 1);
    assert!(server.lease > fleet.now, "it may promise");
    assert_eq!(fleet.server(leader).replica.peer().current_epoch(), epoch);
}

#[test]
fn a_join_that_the_same_leader_was_asked_before_the_way_was_lost_is_done_once() {
    for heard in [false, true] {
        let mut fleet = Fleet::running(3);
        let (leader, a) = (fleet.leader_of(), fleet.followers()[0]);
        let way = if heard { (leader, a) } else { (a, leader) };
        fleet.hold(way.0, way.1);
        fleet.ask_join(a, 1, "m", |join| join.only_if_absent = true);
        fleet.settle();
        fleet.cut(leader, a);
        fleet.heal();
        fleet.run(1_000);
        let answer = fleet.answer(a, 1);
        assert!(
            matches!(&answer, Some(Answer::Joined { joined, .. }) if joined.created),
            "{answer:?}"
        );
        assert_eq!(fleet.server(a).held.len(), 1);
    }
}

#[test]
fn one_that_is_unknown_is_denied_only_once_the_leader_was_asked() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let [owner, other] = fleet.followers()[..] else {
        panic!("two follow");
    };
    // The other server is behind: it has not heard of the join.
    fleet.hold(leader, other);
    fleet.join(owner, 1, "m", 10_000);
    fleet.run(100);
    fleet.joined(owner, 1);
    fleet.beat(other, 2, "m");
    fleet.beat(other, 3, "stranger");
    fleet.settle();
    assert_eq!(
        fleet.verdict(other, 2),
        None,
        "it asks how far it is behind"
    );
    fleet.release(leader, other);
    fleet.settle();
    assert_eq!(fleet.verdict(other, 3), Some(Verdict::NotFound));
    assert_eq!(
        fleet.lose_forwards(),
        1,
        "the member is its owner's to touch"
    );
}

#[test]
fn a_join_that_waits_out_a_change_of_leader_is_done_once() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let [a, b] = fleet.followers()[..] else {
        panic!("two follow");
    };
    // The leader takes the join and proposes it to one follower, and falls.
    fleet.hold(leader, a);
    fleet.ask_join(a, 1, "m", |join| join.only_if_absent = true);
    fleet.settle();
    fleet.crash(leader);
    fleet.run(3_000);
    let answer = fleet.answer(a, 1);
    assert!(
        matches!(&answer, Some(Answer::Joined { joined, .. }) if joined.created),
        "it is not told that the member is there already, for that was this very join: {answer:?}"
    );
    assert_eq!(fleet.server(a).held.len(), 1);
    assert!(fleet.server(b).held.is_empty());
}

#[test]
fn a_change_without_a_leader_waits_and_is_refused_in_the_end() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let [a, b] = fleet.followers()[..] else {
        panic!("two follow");
    };
    fleet.crash(leader);
    fleet.crash(b);
    fleet.run(1_500);
    fleet.join(a, 1, "m", 10_000);
    fleet.run(1_000);
    assert!(fleet.answer(a, 1).is_none());
    fleet.run(3_000);
    assert!(matches!(fleet.answer(a, 1), Some(Answer::NoQuorum)));
    fleet.start(b);
    fleet.run(3_000);
    fleet.join(a, 2, "m", 10_000);
    fleet.run(100);
    let joined = fleet.answer(a, 2);
    assert!(
        matches!(&joined, Some(Answer::Joined { joined, .. }) if joined.created),
        "what was refused was not done: {joined:?}"
    );
}

#[test]
fn a_server_that_was_sent_a_snapshot_adopts_its_sessions_anew() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let [owner, _] = fleet.followers()[..] else {
        panic!("two follow");
    };
    fleet.join(owner, 1, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(owner, 1);
    fleet.isolate(owner);
    for n in 0..10 {
        fleet.join(leader, 10 + n, &format!("n{n}"), 10_000);
    }
    fleet.run(2_000);
    for id in fleet.ids() {
        if id.0 != owner {
            fleet.snapshot(id.0);
        }
    }
    fleet.heal();
    fleet.run(4_000);
    let server = fleet.server(owner);
    assert_eq!(server.held.keys().copied().collect::<Vec<_>>(), [id]);
    assert_eq!(server.held[&id].term.0, 2);
    assert!(server.lease > fleet.now, "it may promise again");
}

#[test]
fn a_join_that_is_delivered_after_the_state_was_replaced_is_held_once_it_is_adopted() {
    let mut fleet = Fleet::running(3);
    let (leader, owner) = (fleet.leader_of(), fleet.followers()[0]);
    fleet.hold(leader, owner);
    for n in 0..10 {
        fleet.join(leader, 10 + n, &format!("n{n}"), 10_000);
    }
    fleet.settle();
    for id in fleet.ids() {
        if id.0 != owner {
            fleet.snapshot(id.0);
        }
    }
    // The leader takes the join behind the snapshot, and its server hears nothing of it.
    fleet.join(owner, 1, "m", 10_000);
    fleet.settle();
    fleet.cut(leader, owner);
    fleet.heal();
    let told = |fleet: &mut Fleet| fleet.answer(owner, 1);
    let mut answer = None;
    while answer.is_none() {
        assert_eq!(fleet.steps(1), 1, "the join is delivered");
        answer = told(&mut fleet);
    }
    assert!(
        matches!(&answer, Some(Answer::Joined { joined, here: false, .. }) if joined.created),
        "it belongs to the run before: {answer:?}"
    );
    fleet.run(2_000);
    let held: Vec<u32> = fleet
        .server(owner)
        .held
        .values()
        .map(|one| one.term.0)
        .collect();
    assert_eq!(held, [2], "adopted");
}

#[test]
fn an_expiry_asked_by_a_follower_is_done_and_told() {
    let mut fleet = Fleet::running(3);
    let owner = fleet.followers()[0];
    fleet.join(owner, 1, "m", 10_000);
    fleet.run(100);
    let id = fleet.joined(owner, 1);
    let held = fleet.server(owner).held[&id].clone();
    let lapse = crate::group::Lapse {
        group: held.group,
        member: held.member[..].into(),
        id,
        term: held.term,
    };
    let what = What::Change {
        request: Request::Expire(vec![lapse]),
        document: false,
        fresh: false,
    };
    fleet.ask(owner, 2, what);
    fleet.run(100);
    let outcome = fleet.outcome(owner, 2);
    assert!(
        matches!(outcome, Outcome::Expired { ended: 1, .. }),
        "{outcome:?}"
    );
    assert!(fleet.server(owner).held.is_empty());
}

#[test]
fn the_servers_own_group_is_not_counted_among_the_clients_groups() {
    let mut fleet = Fleet::running(3);
    fleet.run(1_000);
    let counted = |fleet: &Fleet| {
        let counters = &fleet.server(1).replica.counters;
        let members = (counters.members.get(), counters.inactive.get());
        (counters.groups.get(), members)
    };
    assert_eq!(fleet.server(1).endpoints.len(), 3, "they have it");
    assert_eq!(counted(&fleet), (0, (0, 0)));
    fleet.join(1, 1, "m", 60_000);
    fleet.run(100);
    assert_eq!(counted(&fleet), (1, (1, 0)));
}

#[test]
fn every_server_knows_where_clients_reach_the_others() {
    let mut fleet = Fleet::running(3);
    fleet.run(1_000);
    let all = ["server1:8640", "server2:8640", "server3:8640"];
    for id in 1..=3 {
        assert_eq!(*fleet.server(id).endpoints, all);
    }
    let follower = fleet.followers()[0];
    // It learns them from its log, or from its snapshot.
    for snapshot in [false, true] {
        if snapshot {
            fleet.snapshot(follower);
        }
        fleet.crash(follower);
        fleet.run(2_000);
        fleet.start(follower);
        fleet.run(2_000);
        assert_eq!(*fleet.server(follower).endpoints, all, "{snapshot}");
    }
    fleet.ask(
        follower,
        9,
        What::List {
            after: None,
            limit: 10,
        },
    );
    assert!(matches!(fleet.answer(follower, 9), Some(Answer::List(groups)) if groups.is_empty()));
}

#[test]
fn what_a_new_run_adopts_is_counted_on_every_server_and_joins_and_moves_are_not() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let owner = fleet.followers()[0];
    let adopted =
        |fleet: &mut Fleet, id| fleet.with_machine(id, |server, _| server.replica.take_adopted());
    for n in 0..3 {
        fleet.join(owner, 10 + n, &format!("n{n}"), 60_000);
    }
    fleet.run(100);
    // A join at another server moves it.
    fleet.join(leader, 20, "n0", 60_000);
    fleet.run(100);
    assert_eq!(adopted(&mut fleet, leader), 0);
    fleet.crash(owner);
    fleet.run(100);
    fleet.start(owner);
    fleet.run(3_000);
    assert_eq!(fleet.server(owner).held.len(), 2);
    for id in 1..=3 {
        assert_eq!(adopted(&mut fleet, id), 2, "server {id}");
        assert_eq!(adopted(&mut fleet, id), 0, "once");
    }
}

#[test]
fn shards_are_told_apart_what_one_found_due_and_what_a_client_ended() {
    let mut fleet = Fleet::running(1);
    fleet.join(1, 1, "left", 10_000);
    fleet.join(1, 2, "silent", 10_000);
    fleet.run(100);
    let id = fleet.joined(1, 2);
    let lapse = Lapse {
        group: b"g".as_slice().into(),
        member: b"silent".as_slice().into(),
        id,
        term: Term(1),
    };
    for (token, request) in [
        (3, Request::Expire(vec![lapse])),
        (
            4,
            Request::Leave {
                group: b"g".as_slice().into(),
                member: b"left".as_slice().into(),
                session: None,
            },
        ),
    ] {
        let what = What::Change {
            request,
            document: false,
            fresh: false,
        };
        fleet.ask(1, token, what);
        fleet.run(100);
    }
    let (ended, expired) = &fleet.server(1).ends;
    assert_eq!((ended.len(), &expired[..]), (1, &[id][..]));
}
