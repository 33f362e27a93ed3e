//! Many who are due at once: every step of their expiry is taken in pieces.

use super::super::EXPIRIES_MAX;
use super::ensemble::{dealt, pass, tell};
use super::world::World;
use crate::group::{Outcome, Request};
use crate::mail::{Answer, Dealt, Tell, What};
use crate::types::{SessionId, Term};

/// Sessions in each deal.
const CROWD: usize = 250;

/// The `n`th of a crowd whose timeout is 100 ms.
fn one(n: usize) -> Dealt {
    Dealt {
        member: format!("m{n}").into_bytes().into(),
        ..dealt(1_000 + n as u128, 2, 100, 0)
    }
}

/// A shard that takes `piece` sessions a turn, and holds a crowd.
fn crowded(piece: usize) -> World {
    let mut world = World::new(1);
    world.shards[0].expire_in_pieces(piece);
    tell(&mut world, 0, Tell::Deal((0..CROWD).map(one).collect()));
    world
}

/// What the shard proposes, taken from it: the tokens, and how many each names.
fn proposed(world: &mut World) -> Vec<(u64, Vec<SessionId>)> {
    let asks = world.to_core[0].drain(..);
    let expiries = asks.filter_map(|ask| match ask.what {
        What::Change {
            request: Request::Expire(lapses),
            ..
        } => Some((ask.token, lapses.iter().map(|lapse| lapse.id).collect())),
        _ => None,
    });
    expiries.collect()
}

/// The core tells that an expiry has ended all that it named.
fn ended(world: &mut World, (token, ids): &(u64, Vec<SessionId>)) {
    let expired = Tell::Expired {
        by: 0,
        ids: ids.as_slice().into(),
    };
    let answer = Answer::Outcome(Outcome::Expired {
        ended: ids.len() as u32,
        stale: Vec::new(),
    });
    let token = *token;
    world.to_shard[0].push_back(vec![expired, Tell::Answer { token, answer }]);
    while world.shard_hears(0) {}
}

/// All are found due, and none is gathered further than the first turn may.
fn due(world: &mut World) {
    pass(world, 100);
    assert!(proposed(world).is_empty(), "nobody is due");
    pass(world, 10);
}

#[test]
fn no_turn_gathers_or_lets_go_more_sessions_than_its_piece() {
    let mut world = crowded(50);
    due(&mut world);
    let first = proposed(&mut world);
    assert_eq!(first.len(), 1, "the core has nothing to do: at once");
    assert_eq!(first[0].1.len(), 50);
    let mut turns = 0;
    let mut rest = Vec::new();
    while world.shards[0].is_behind() {
        world.ticks(0, true);
        turns += 1;
        rest.append(&mut proposed(&mut world));
    }
    assert_eq!(turns, (CROWD - 50) / 50);
    assert_eq!(rest.len(), 1, "what is gathered meanwhile goes together");
    assert_eq!(rest[0].1.len(), CROWD - 50);

    world.ticks(0, true);
    ended(&mut world, &rest[0]);
    let mut left = CROWD - 50;
    assert_eq!(world.shards[0].sessions(), CROWD - 50);
    while world.shards[0].is_behind() {
        world.ticks(0, true);
        assert!(left - world.shards[0].sessions() <= 50);
        left = world.shards[0].sessions();
    }
    assert_eq!(left, 50, "those of the first, whose fate is open");
    ended(&mut world, &first[0]);
    world.ticks(0, true);
    assert_eq!(world.shards[0].sessions(), 0);
    world.assert_nothing_is_kept();
}

#[test]
fn a_few_who_are_due_are_proposed_and_let_go_at_once() {
    let mut world = crowded(CROWD);
    due(&mut world);
    let all = proposed(&mut world);
    assert_eq!(all.len(), 1);
    assert!(!world.shards[0].is_behind());
    ended(&mut world, &all[0]);
    assert_eq!(world.shards[0].sessions(), 0, "without a turn");
    assert!(!world.shards[0].is_behind());
}

#[test]
fn one_that_has_ended_and_is_not_let_go_is_promised_nothing() {
    let mut world = crowded(CROWD);
    due(&mut world);
    let all = proposed(&mut world);
    world.shards[0].expire_in_pieces(10);
    ended(&mut world, &all[0]);
    assert_eq!(world.shards[0].sessions(), CROWD - 10);
    let client = world.connect(0);
    let last = format!("HEAD /g/m{}", CROWD - 1);
    world.send(client, &last);
    assert!(world.statuses(client).is_empty(), "S3: {last}");
    let packed = "content-type: application/octet-stream\r\n";
    let other = world.connect(0);
    let id = one(CROWD - 2).id.to_bytes();
    world.write(other, "POST /-/heartbeats", packed, &id);
    world.pump(other, usize::MAX);
    assert!(world.statuses(other).is_empty(), "S3: by its id");
}

#[test]
fn a_member_whose_session_is_not_let_go_is_held_in_its_next_one() {
    let mut world = crowded(CROWD);
    due(&mut world);
    let all = proposed(&mut world);
    world.shards[0].expire_in_pieces(10);
    ended(&mut world, &all[0]);
    let again = Dealt {
        id: SessionId(9_000),
        ..one(CROWD - 1)
    };
    tell(&mut world, 0, Tell::Deal(vec![again]));
    while world.shards[0].is_behind() {
        world.ticks(0, true);
    }
    assert_eq!(world.shards[0].sessions(), 1);
    let tracker = &world.shards[0].tracker;
    assert!(tracker.find_id(SessionId(9_000)).is_some());
}

#[test]
fn the_other_shards_hold_none_of_what_one_has_found_due() {
    let mut world = World::new(2);
    tell(&mut world, 1, Tell::Deal(vec![one(7)]));
    let ids = [one(7).id];
    let expired = |by| Tell::Expired {
        by,
        ids: ids.as_slice().into(),
    };
    tell(&mut world, 1, expired(0));
    assert_eq!(world.shards[1].sessions(), 1, "not looked for");
    tell(&mut world, 1, expired(1));
    assert_eq!(world.shards[1].sessions(), 0);
}

/// Whether a shard that has gathered a session for its next transaction proposes its expiry, if
/// this news of it comes before.
fn is_proposed_after(news: impl Fn(Dealt) -> Tell) -> bool {
    let mut world = crowded(10);
    due(&mut world);
    let first = proposed(&mut world);
    let waiting = world.shards[0].expiry.due.ids();
    let (it, other) = (waiting[0], waiting[1]);
    world.ticks(0, true);
    assert!(
        !world.shards[0].expiry.due.ids().contains(&it),
        "it is gathered"
    );
    let again = Dealt {
        term: Term(3),
        ..one(it.0 as usize - 1_000)
    };
    tell(&mut world, 0, news(again));
    ended(&mut world, &first[0]);
    let next = proposed(&mut world);
    assert!(next[0].1.contains(&other));
    next.iter().any(|(_, ids)| ids.contains(&it))
}

#[test]
fn what_is_gathered_and_has_moved_away_is_not_proposed() {
    assert!(!is_proposed_after(|it| Tell::Ended([it.id].into())));
}

#[test]
fn what_is_gathered_and_lives_again_is_not_proposed() {
    assert!(!is_proposed_after(|it| Tell::Deal(vec![it])));
}

#[test]
fn no_more_transactions_are_proposed_than_may_be_at_the_core() {
    let mut world = crowded(CROWD);
    world.shards[0].expiry.asked = EXPIRIES_MAX;
    due(&mut world);
    assert!(proposed(&mut world).is_empty());
    assert_eq!(world.shards[0].expiry.due.len(), CROWD, "none is gathered");
    assert!(!world.shards[0].is_behind(), "nor is there haste");
    world.shards[0].expiry.asked = EXPIRIES_MAX - 1;
    pass(&mut world, 10);
    assert_eq!(proposed(&mut world).len(), 1);
}
