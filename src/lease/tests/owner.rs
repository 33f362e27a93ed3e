//! The owner's side.

use super::*;

const RUN: Incarnation = Incarnation(7);

fn owner() -> Owner {
    let mut owner = Owner::new(LEASE);
    owner.begin(RUN);
    owner
}

fn grant(n: u64, applied: u64) -> Grant {
    Grant {
        incarnation: RUN,
        n,
        applied: at(applied),
    }
}

#[test]
fn a_run_that_is_not_recorded_asks_for_nothing() {
    let mut owner = Owner::new(LEASE);
    owner.hurry();
    assert_eq!(owner.deadline(), Millis(u64::MAX));
    assert_eq!(owner.renew(Millis(u64::MAX)), None);
    owner.begin(RUN);
    let renew = owner.renew(Millis(5)).unwrap();
    assert_eq!(
        renew,
        Renew {
            incarnation: RUN,
            n: 1
        }
    );
    assert_eq!(owner.until(), Millis(0), "nothing was granted");
}

#[test]
#[should_panic(expected = "this run was")]
fn a_run_has_one_incarnation() {
    owner().begin(Incarnation(8));
}

#[test]
fn renewals_are_due_every_period_and_at_once_after_a_change() {
    let mut owner = owner();
    assert!(owner.renew(Millis(1_000)).is_some());
    assert_eq!(owner.deadline(), Millis(1_250));
    assert_eq!(owner.renew(Millis(1_249)), None);
    assert_eq!(owner.renew(Millis(1_250)).unwrap().n, 2);
    owner.hurry();
    assert_eq!(owner.renew(Millis(1_251)).unwrap().n, 3);
    assert_eq!(owner.deadline(), Millis(1_501));
}

#[test]
fn a_lease_runs_from_before_its_renewal_was_sent() {
    let mut owner = owner();
    owner.renew(Millis(1_000)).unwrap();
    owner.renew(Millis(1_250)).unwrap();
    owner.on_grant(grant(1, 0));
    assert_eq!(owner.on_applied(at(0)), Some(Millis(4_000)));
    assert_eq!(owner.until(), Millis(4_000));
    assert_eq!(owner.on_applied(at(0)), None, "it has not grown");
}

#[test]
fn a_grant_counts_once_all_that_the_leader_had_applied_is_applied_here() {
    let mut owner = owner();
    owner.renew(Millis(1_000)).unwrap();
    owner.on_grant(grant(1, 9));
    assert_eq!(owner.on_applied(at(8)), None);
    assert_eq!(owner.on_applied(at(9)), Some(Millis(4_000)));
}

#[test]
fn an_older_grant_counts_while_a_newer_one_waits_and_never_after_it() {
    let mut owner = owner();
    owner.renew(Millis(1_000)).unwrap();
    owner.renew(Millis(1_250)).unwrap();
    owner.on_grant(grant(2, 9));
    owner.on_grant(grant(1, 5));
    assert_eq!(owner.on_applied(at(5)), Some(Millis(4_000)));
    assert_eq!(owner.on_applied(at(9)), Some(Millis(4_250)));
    owner.renew(Millis(1_500)).unwrap();
    owner.renew(Millis(1_750)).unwrap();
    owner.on_grant(grant(4, 9));
    assert_eq!(owner.on_applied(at(9)), Some(Millis(4_750)));
    owner.on_grant(grant(3, 9));
    assert_eq!(owner.on_applied(at(9)), None);
    assert_eq!(owner.until(), Millis(4_750));
}

#[test]
fn a_lease_that_would_end_earlier_changes_nothing() {
    let mut owner = owner();
    owner.renew(Millis(1_000)).unwrap();
    owner.hurry();
    owner.renew(Millis(1_000)).unwrap();
    owner.on_grant(grant(1, 0));
    assert_eq!(owner.on_applied(at(0)), Some(Millis(4_000)));
    owner.on_grant(grant(2, 0));
    assert_eq!(owner.on_applied(at(0)), None, "the same end");
}

#[test]
fn a_grant_to_another_run_or_of_no_renewal_says_nothing() {
    let mut owner = owner();
    owner.renew(Millis(1_000)).unwrap();
    owner.on_grant(Grant {
        incarnation: Incarnation(6),
        ..grant(1, 0)
    });
    owner.on_grant(grant(2, 0));
    owner.on_grant(grant(0, 0));
    assert_eq!(owner.on_applied(at(0)), None);
}

#[test]
fn only_the_newest_renewals_are_remembered() {
    let mut owner = owner();
    for n in 1..=40 {
        owner.hurry();
        assert_eq!(owner.renew(Millis(n)).unwrap().n, n);
    }
    owner.on_grant(grant(8, 0));
    assert_eq!(owner.on_applied(at(0)), None, "forgotten");
    owner.on_grant(grant(9, 0));
    assert_eq!(owner.on_applied(at(0)), Some(Millis(3_009)));
}

#[test]
fn a_lease_without_end_is_never_renewed() {
    let mut owner = Owner::forever();
    assert_eq!(owner.until(), Millis(u64::MAX));
    owner.begin(RUN);
    owner.hurry();
    assert_eq!(owner.deadline(), Millis(u64::MAX));
    assert_eq!(owner.renew(Millis(1)), None);
    assert_eq!(owner.on_applied(at(9)), None);
}
