//! The leader's side.

use super::*;

const S: ServerId = ServerId(2);
const RUN: Incarnation = Incarnation(7);
const OWNED: Owned = (S, RUN);
const TIMEOUT: Millis = Millis(4_000);
/// `orphan_wait(TIMEOUT, LEASE)`.
const WAIT: u64 = 7_013;

fn renew(n: u64) -> Renew {
    Renew {
        incarnation: RUN,
        n,
    }
}

fn grant(n: u64, applied: u64) -> (ServerId, Grant) {
    let grant = Grant {
        incarnation: RUN,
        n,
        applied: at(applied),
    };
    (S, grant)
}

/// A grantor since 1,000, which has heard of `renewals`.
fn asked(renewals: &[u64]) -> Grantor {
    let mut grantor = Grantor::new(Millis(1_000), LEASE);
    for n in renewals {
        assert!(grantor.on_renew(Millis(1_000), S, renew(*n), Some(RUN)));
    }
    grantor
}

#[test]
fn a_renewal_is_granted_after_a_round_that_began_after_it() {
    let mut grantor = asked(&[]);
    assert!(!grantor.wants_round(), "nobody asks");
    assert!(grantor.on_renew(Millis(1_000), S, renew(1), Some(RUN)));
    assert!(grantor.wants_round());
    assert_eq!(grantor.grants(at(3)), []);
    grantor.round_begun(5);
    assert!(!grantor.wants_round(), "one at a time");
    assert_eq!(grantor.grants(at(3)), []);
    grantor.round_passed(5);
    assert_eq!(grantor.grants(at(3)), [grant(1, 3)]);
    assert_eq!(grantor.grants(at(3)), [], "once");
}

#[test]
fn a_round_proves_nothing_that_came_after_it_had_begun() {
    let mut grantor = asked(&[1]);
    grantor.round_begun(5);
    assert!(grantor.on_renew(Millis(1_000), S, renew(2), Some(RUN)));
    grantor.round_passed(5);
    assert_eq!(grantor.grants(at(3)), [grant(1, 3)]);
    assert!(grantor.wants_round());
    grantor.round_begun(6);
    grantor.round_passed(6);
    assert_eq!(grantor.grants(at(3)), [grant(2, 3)]);
}

#[test]
fn one_round_serves_all_and_the_newest_renewal_of_each() {
    let mut grantor = asked(&[1, 2]);
    let other = ServerId(3);
    assert!(grantor.on_renew(Millis(1_000), other, renew(9), Some(RUN)));
    grantor.round_begun(5);
    grantor.round_passed(5);
    let (_, third) = grant(9, 3);
    assert_eq!(grantor.grants(at(3)), [grant(2, 3), (other, third)]);
}

#[test]
fn another_round_or_a_lost_one_proves_nothing() {
    let mut grantor = asked(&[1]);
    grantor.round_begun(5);
    grantor.round_passed(4);
    grantor.round_lost(4);
    assert_eq!(grantor.grants(at(3)), []);
    assert!(!grantor.wants_round(), "it still runs");
    grantor.round_lost(5);
    grantor.round_passed(5);
    assert_eq!(grantor.grants(at(3)), []);
    assert!(grantor.wants_round(), "for who waited for the lost one");
}

#[test]
fn a_newer_renewal_is_kept_when_a_round_is_lost() {
    let mut grantor = asked(&[1]);
    grantor.round_begun(5);
    assert!(grantor.on_renew(Millis(1_000), S, renew(2), Some(RUN)));
    grantor.round_lost(5);
    grantor.round_begun(6);
    grantor.round_passed(6);
    assert_eq!(grantor.grants(at(3)), [grant(2, 3)]);
}

#[test]
#[should_panic(expected = "round 6 begins before this is done")]
fn rounds_do_not_overlap() {
    let mut grantor = asked(&[1]);
    grantor.round_begun(5);
    grantor.round_begun(6);
}

#[test]
fn only_the_recorded_run_is_granted_a_lease_or_heard() {
    let mut grantor = asked(&[]);
    for recorded in [None, Some(Incarnation(6)), Some(Incarnation(8))] {
        assert!(!grantor.on_renew(Millis(2_000), S, renew(1), recorded));
    }
    assert!(!grantor.wants_round());
    assert_eq!(grantor.base(OWNED), Millis(1_000));
}

#[test]
fn no_lease_is_granted_while_an_expiry_of_the_owner_is_undecided() {
    let mut grantor = asked(&[1]);
    grantor.expiry_proposed(OWNED);
    grantor.expiry_proposed(OWNED);
    grantor.expiry_proposed((S, Incarnation(6)));
    grantor.round_begun(5);
    grantor.round_passed(5);
    assert_eq!(grantor.grants(at(3)), []);
    grantor.expiry_settled(OWNED);
    assert_eq!(grantor.grants(at(4)), [], "one of two");
    grantor.expiry_settled(OWNED);
    assert_eq!(grantor.grants(at(5)), [grant(1, 5)], "with both applied");
}

#[test]
#[should_panic(expected = "settled after it was proposed")]
fn an_expiry_that_was_not_proposed_cannot_be_settled() {
    asked(&[]).expiry_settled(OWNED);
}

#[test]
fn orphans_are_due_a_timeout_and_a_lease_after_the_leader_was_established() {
    let grantor = asked(&[]);
    assert!(!grantor.due(Millis(1_000 + WAIT - 1), OWNED, TIMEOUT));
    assert!(grantor.due(Millis(1_000 + WAIT), OWNED, TIMEOUT));
    assert!(!grantor.due(Millis(1_000 + WAIT), OWNED, Millis(4_001)));
}

#[test]
fn a_renewal_a_session_and_a_pause_each_give_orphans_more_time() {
    let mut grantor = asked(&[]);
    assert!(grantor.on_renew(Millis(1_001), S, renew(1), Some(RUN)));
    assert_eq!(grantor.base(OWNED), Millis(1_001));
    grantor.on_assigned(Millis(1_002), OWNED);
    assert_eq!(grantor.base(OWNED), Millis(1_002));
    grantor.rebase(Millis(1_003));
    assert_eq!(grantor.base(OWNED), Millis(1_003));
    grantor.rebase(Millis(900));
    assert_eq!(grantor.base(OWNED), Millis(1_003), "never less");
    assert!(!grantor.due(Millis(1_003 + WAIT - 1), OWNED, TIMEOUT));
    assert!(grantor.due(Millis(1_003 + WAIT), OWNED, TIMEOUT));
}

#[test]
fn each_run_of_a_server_is_waited_for_from_its_own_last_sign() {
    let mut grantor = asked(&[]);
    let [older, old, new, newer] = [5, 6, 7, 8].map(|run| (S, Incarnation(run)));
    grantor.on_assigned(Millis(1_010), older);
    grantor.on_assigned(Millis(1_020), old);
    grantor.on_assigned(Millis(1_030), new);
    let bases = |grantor: &Grantor| [older, old, new, newer].map(|run| grantor.base(run).0);
    assert_eq!(bases(&grantor), [1_020, 1_020, 1_030, 1_000]);
    grantor.on_assigned(Millis(1_040), older);
    assert_eq!(bases(&grantor), [1_040, 1_040, 1_030, 1_000]);
    assert_eq!(grantor.base((ServerId(9), RUN)), Millis(1_000));
}

#[test]
fn owners_are_lost_when_their_shortest_session_may_be_due() {
    let mut grantor = asked(&[]);
    let other = (ServerId(3), RUN);
    grantor.on_assigned(Millis(1_001), other);
    let lost = |now| grantor.lost(Millis(now), [OWNED, other].into_iter(), TIMEOUT);
    assert_eq!(lost(1_000 + WAIT - 1), []);
    assert_eq!(lost(1_000 + WAIT), [OWNED]);
    assert_eq!(lost(1_001 + WAIT), [OWNED, other]);
}
