//! Who is elected, in whatever order servers come.

use super::disk::Disk;
use super::peers::{Peers, at};
use crate::types::{Epoch, Zxid};
use crate::zab::{Entry, Phase};

/// Every order of three servers.
const ORDERS: [[u32; 3]; 6] = [
    [1, 2, 3],
    [1, 3, 2],
    [2, 1, 3],
    [2, 3, 1],
    [3, 1, 2],
    [3, 2, 1],
];

/// Three servers that have been founded and do not run.
fn founded() -> Peers {
    let mut world = Peers::running(3);
    for id in 1..=3 {
        world.crash(id);
    }
    world.sent.clear();
    world
}

fn disk(accepted: u64, current: u64, log: &[Zxid]) -> Disk {
    let entry = |zxid: &Zxid| Entry {
        zxid: *zxid,
        payload: zxid.to_string().into_bytes().into(),
    };
    let mut disk = Disk::default();
    disk.accepted = Epoch(accepted);
    disk.current = Epoch(current);
    disk.log = log.iter().map(entry).collect();
    disk
}

#[test]
fn two_of_three_elect_the_higher_id_and_the_third_joins_them() {
    for [first, second, third] in ORDERS {
        let mut world = founded();
        world.start(first);
        world.run(3_000);
        assert_eq!(world.phase(first), Phase::Looking, "alone is no majority");
        world.start(second);
        world.run(3_000);
        let leader = world.leader();
        assert_eq!(leader, first.max(second));
        let epoch = world.peer(leader).current_epoch();
        world.start(third);
        world.run(3_000);
        assert_eq!(world.leader(), leader, "a better id alone deposes nobody");
        assert_eq!(world.phase(third), Phase::Following);
        assert_eq!(world.peer(third).current_epoch(), epoch);
    }
}

#[test]
fn servers_that_start_together_elect_one_leader_in_any_order() {
    for order in ORDERS {
        let mut world = founded();
        for id in order {
            world.start(id);
        }
        world.run(3_000);
        assert_eq!(world.leader(), 3);
    }
}

#[test]
fn servers_that_hear_of_each_other_late_elect_one_leader() {
    for [first, second, third] in ORDERS {
        let mut world = founded();
        world.cut(first, third);
        world.cut(second, third);
        for id in [first, second, third] {
            world.start(id);
        }
        world.run(1_000);
        world.heal();
        world.run(3_000);
        assert_eq!(world.leader(), first.max(second));
        assert_eq!(world.phase(third), Phase::Following);
    }
}

#[test]
fn a_longer_history_beats_a_higher_id() {
    for order in ORDERS {
        let mut world = founded();
        *world.disk_mut(1) = disk(1, 1, &[at(1, 1), at(1, 2)]);
        *world.disk_mut(2) = disk(1, 1, &[at(1, 1)]);
        *world.disk_mut(3) = disk(1, 1, &[at(1, 1)]);
        for id in order {
            world.start(id);
        }
        world.run(3_000);
        assert_eq!(world.leader(), 1);
        assert_eq!(world.texts(3), ["1:1", "1:2"]);
    }
}

#[test]
fn a_newer_epoch_beats_a_longer_history() {
    for order in ORDERS {
        let mut world = founded();
        *world.disk_mut(1) = disk(5, 5, &[at(1, 1)]);
        *world.disk_mut(2) = disk(4, 4, &[at(1, 1), at(4, 1), at(4, 2)]);
        *world.disk_mut(3) = disk(5, 5, &[at(1, 1)]);
        world.stop_and_start(&order);
        assert_eq!(world.leader(), 3);
        assert_eq!(world.logged(2), ["1:1"], "what only one server had is gone");
    }
}

#[test]
fn a_promise_to_a_newer_epoch_does_not_make_a_history_better() {
    let mut world = founded();
    *world.disk_mut(1) = disk(1, 1, &[at(1, 1), at(1, 2)]);
    *world.disk_mut(2) = disk(1, 1, &[at(1, 1), at(1, 2)]);
    *world.disk_mut(3) = disk(7, 1, &[at(1, 1)]);
    world.start_all();
    world.run(3_000);
    assert_eq!(world.leader(), 2);
    assert_eq!(
        world.peer(2).current_epoch(),
        Epoch(8),
        "above the promise all the same"
    );
    assert_eq!(world.texts(3), ["1:1", "1:2"]);
}

#[test]
fn a_wiped_server_elects_nobody_and_joins_those_that_have_data() {
    let mut world = founded();
    *world.disk_mut(3) = Disk::default();
    world.start(1);
    world.start(3);
    world.run(10_000);
    assert_eq!(
        world.leaders(),
        Vec::<u32>::new(),
        "one disk of three is no majority"
    );
    world.start(2);
    world.run(3_000);
    assert_eq!(world.leader(), 2, "not the one that knows nothing");
    assert_eq!(world.phase(3), Phase::Following);
}

#[test]
fn a_new_ensemble_is_founded_when_all_voters_attend() {
    let mut world = Peers::new(3);
    world.start(1);
    world.start(2);
    world.run(10_000);
    assert_eq!(world.leaders(), Vec::<u32>::new());
    world.start(3);
    world.run(3_000);
    assert_eq!(world.leader(), 3);
}

#[test]
fn a_leader_without_a_quorum_steps_down_and_one_with_a_quorum_takes_over() {
    let mut world = Peers::running(5);
    let old = world.leader();
    for other in world.others(old) {
        world.hold(old, other);
        world.hold(other, old);
    }
    world.run(5_000);
    assert_ne!(world.phase(old), Phase::Leading);
    let new = world.leader();
    assert_ne!(new, old);
    for other in world.others(old) {
        world.cut(old, other);
    }
    world.heal();
    world.run(3_000);
    assert_eq!(world.leader(), new);
    assert_eq!(world.phase(old), Phase::Following);
}

#[test]
fn a_leader_whose_disk_does_nothing_makes_room() {
    let mut world = Peers::running(3);
    let old = world.leader();
    world.stick(old, true);
    world.propose_all(old, &["a"]);
    world.run(6_000);
    let new = world.leader();
    assert_ne!(new, old);
    assert_eq!(world.texts(new), ["a"]);
    world.stick(old, false);
    world.run(3_000);
    assert_eq!(world.texts(old), ["a"]);
}

impl Peers {
    /// Starts these in this order and lets them elect.
    fn stop_and_start(&mut self, order: &[u32]) {
        for id in order {
            self.start(*id);
        }
        self.run(3_000);
    }
}
