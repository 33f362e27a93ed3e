//! Leases between replicas, and the sessions of owners that are lost.

use super::world::{Fleet, LEASE};
use crate::group::Status;
use crate::lease::orphan_wait;
use crate::time::Millis;
use crate::types::ServerId;

fn is_active(fleet: &Fleet, at: u32, member: &str) -> bool {
    let state = fleet.server(at).replica.state();
    matches!(
        state.status(b"g", member.as_bytes(), None),
        Status::Active(_)
    )
}

#[test]
fn every_server_holds_a_lease_and_keeps_it() {
    let mut fleet = Fleet::running(3);
    for _ in 0..20 {
        fleet.run(500);
        for id in 1..=3 {
            let left = fleet.server(id).lease.since(fleet.now);
            assert!(left >= Millis(LEASE.0 - 600), "{id} has {left:?} left");
        }
    }
}

#[test]
fn a_server_cut_off_from_the_leader_stops_promising_before_its_sessions_can_be_expired() {
    let mut fleet = Fleet::running(3);
    let owner = fleet.followers()[0];
    let leader = fleet.leader_of();
    fleet.join(owner, 1, "m", 1_000);
    fleet.run(100);
    fleet.joined(owner, 1);
    fleet.isolate(owner);
    let cut = fleet.now;
    fleet.run(LEASE.0);
    assert!(
        fleet.server(owner).lease <= fleet.now,
        "its lease has lapsed"
    );
    assert!(is_active(&fleet, leader, "m"));
    fleet.run_until("its session is expired", |fleet| {
        !is_active(fleet, leader, "m")
    });
    let took = fleet.now.since(cut);
    let wait = orphan_wait(Millis(1_000), LEASE);
    assert!(took >= Millis(wait.0 - 300), "{took:?}");
    assert!(took <= Millis(wait.0 + 300), "{took:?}");
}

#[test]
fn sessions_of_a_lost_owner_expire_each_in_its_time() {
    let mut fleet = Fleet::running(3);
    let owner = fleet.followers()[0];
    let leader = fleet.leader_of();
    fleet.join(owner, 1, "short", 1_000);
    fleet.join(owner, 2, "long", 5_000);
    fleet.run(100);
    fleet.crash(owner);
    fleet.run(orphan_wait(Millis(1_000), LEASE).0 + 300);
    assert!(!is_active(&fleet, leader, "short"));
    assert!(is_active(&fleet, leader, "long"));
    fleet.run(4_300);
    assert!(!is_active(&fleet, leader, "long"));
}

#[test]
fn nobody_expires_over_a_change_of_leader_who_is_served_by_another() {
    let mut fleet = Fleet::running(3);
    let owner = fleet.followers()[0];
    fleet.join(owner, 1, "m", 1_000);
    fleet.run(100);
    for _ in 0..3 {
        let leader = fleet.leader_of();
        if leader == owner {
            break;
        }
        fleet.crash(leader);
        fleet.run(2_000);
        assert!(
            fleet.server(owner).lease > fleet.now,
            "its lease has lasted"
        );
        fleet.start(leader);
        fleet.run(8_000);
        assert!(is_active(&fleet, owner, "m"));
    }
}

#[test]
fn all_servers_down_for_longer_than_every_timeout_expire_nobody_at_their_start() {
    let mut fleet = Fleet::running(3);
    for id in 1..=3 {
        fleet.join(id, 1, &format!("m{id}"), 2_000);
    }
    fleet.run(100);
    for id in 1..=3 {
        fleet.crash(id);
    }
    fleet.run(60_000);
    fleet.start_all();
    fleet.run(3_000);
    for id in 1..=3 {
        assert_eq!(fleet.server(id).held.len(), 1, "adopted by {id}");
        assert!(fleet.server(id).lease > fleet.now);
    }
}

#[test]
fn a_server_that_never_comes_back_after_a_full_stop_loses_its_sessions() {
    let mut fleet = Fleet::running(3);
    for id in 1..=3 {
        fleet.join(id, 1, &format!("m{id}"), 1_000);
    }
    fleet.run(100);
    for id in 1..=3 {
        fleet.crash(id);
    }
    fleet.start(1);
    fleet.start(2);
    fleet.run(3_000);
    assert!(is_active(&fleet, 1, "m3"));
    fleet.run(5_000);
    assert!(!is_active(&fleet, 1, "m3"));
    assert!(is_active(&fleet, 1, "m1"), "its owner is there");
}

#[test]
fn an_ensemble_of_one_has_a_lease_without_end() {
    let mut fleet = Fleet::running(1);
    assert_eq!(fleet.server(1).lease, Millis(u64::MAX));
    fleet.join(1, 1, "m", 1_000);
    fleet.run(60_000);
    fleet.joined(1, 1);
    assert!(is_active(&fleet, 1, "m"), "it is for its shard to expire");
    assert_eq!(
        fleet
            .server(1)
            .replica
            .state()
            .incarnation_of(ServerId(1))
            .map(|i| i.0),
        Some(1)
    );
}
