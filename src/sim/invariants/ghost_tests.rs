use super::*;
use crate::sim::invariants::script::{Script, at, set_aside, truncated, wiped};

fn id(server: u32) -> ServerId {
    ServerId(server)
}

fn committed(script: &Script) -> Zxid {
    script.ghost().committed_zxid()
}

#[test]
fn a_quorum_is_more_than_half_of_the_voters_and_observers_do_not_count() {
    for (voters, observers, majority) in [(1, 0, 1), (2, 0, 2), (3, 2, 2), (4, 0, 3), (7, 1, 4)] {
        let ids: Vec<ServerId> = (1..=voters + observers).map(ServerId).collect();
        let (voting, observing) = ids.split_at(voters as usize);
        let ghost = Ghost::new(voting, observing);
        for count in 0..=voters {
            let set = (1_u32 << count) - 1;
            assert_eq!(
                ghost.is_quorum(set),
                count >= majority,
                "{count} of {voters}"
            );
            let watching = set | (u32::MAX << voters);
            assert_eq!(ghost.is_quorum(watching), count >= majority);
        }
        let mut values = [0; SERVERS_MAX];
        for (at, value) in values.iter_mut().enumerate() {
            *value = (at as u64 * 7 + 3) % 11 + 100 * u64::from(at >= voters as usize);
        }
        let mut descending = values[..voters as usize].to_vec();
        descending.sort_unstable_by(|a, b| b.cmp(a));
        let reached = descending[majority as usize - 1];
        assert_eq!(ghost.quorum_of(&values), reached, "{voters} voters");
    }
}

#[test]
fn an_ensemble_may_have_as_many_servers_as_there_is_room_for() {
    let ids: Vec<ServerId> = (1..=SERVERS_MAX as u32).map(ServerId).collect();
    assert_eq!(Ghost::new(&ids, &[]).servers().len(), SERVERS_MAX);
}

#[test]
fn servers_are_found_by_id_and_strangers_are_not() {
    let ghost = Ghost::new(&[id(7), id(2)], &[id(4)]);
    assert_eq!(ghost.index(id(7)), Some(0));
    assert_eq!(ghost.index(id(2)), Some(1));
    assert_eq!(ghost.index(id(4)), Some(2));
    for stranger in [0, 1, 3, 8, 1_000] {
        assert_eq!(ghost.index(id(stranger)), None);
    }
}

#[test]
fn a_history_is_committed_by_a_quorum_that_is_loyal_to_the_epoch() {
    let mut script = Script::of(3);
    script.elect(1, 1, &[2, 3]);
    script.broadcast(at(1, 1), 1);
    script.append(2, at(1, 1));
    script.sync(2);
    assert_eq!(committed(&script), Zxid::ZERO, "one of three");
    script.accept(3, 2);
    script.append(3, at(1, 1));
    script.sync(3);
    assert_eq!(
        committed(&script),
        Zxid::ZERO,
        "3 has promised itself to epoch 2"
    );
    script.append(1, at(1, 1));
    script.sync(1);
    assert_eq!(committed(&script), at(1, 1));
}

#[test]
fn what_was_held_before_a_newer_promise_stays_held() {
    let mut script = Script::of(3);
    script.elect(1, 1, &[2, 3]);
    script.broadcast(at(1, 1), 1);
    script.append(2, at(1, 1));
    script.sync(2);
    script.accept(2, 2);
    script.append(1, at(1, 1));
    script.sync(1);
    assert_eq!(committed(&script), at(1, 1));
}

#[test]
fn the_sync_of_an_observer_commits_nothing() {
    let mut script = Script::with_observers(3, 1);
    script.elect(1, 1, &[2, 3, 4]);
    script.broadcast(at(1, 1), 1);
    for server in [1, 4] {
        script.append(server, at(1, 1));
        script.sync(server);
    }
    assert_eq!(committed(&script), Zxid::ZERO);
}

#[test]
fn a_new_epoch_commits_the_history_it_began_with() {
    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    script.append(2, at(1, 3));
    script.sync(2);
    script.stop(1);
    script.discover(2, 2, &[3]);
    script.tell(2, 3, 2, at(1, 3));
    script.catch_up(3, at(1, 3));
    script.join(3, 2, 2);
    assert_eq!(committed(&script), at(1, 2));
    script.see(crate::sim::invariants::script::current(2, 2));
    assert_eq!(committed(&script), at(1, 3));
    let ghost = script.ghost();
    let node = |counter| ghost.tree().find(at(1, counter)).unwrap();
    assert_eq!(ghost.committed_by(node(2)), Some(Epoch(1)));
    assert_eq!(ghost.committed_by(node(3)), Some(Epoch(2)));
    assert_eq!(ghost.committed_before(Epoch(1)), ROOT);
    assert_eq!(ghost.committed_before(Epoch(2)), node(2));
    assert_eq!(ghost.committed_before(Epoch(3)), node(3));
}

#[test]
fn a_primary_that_is_loyal_before_it_announces_its_history_counts() {
    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    script.append(2, at(1, 3));
    script.sync(2);
    script.discover(2, 2, &[3]);
    script.see(crate::sim::invariants::script::current(2, 2));
    script.tell(2, 3, 2, at(1, 3));
    script.catch_up(3, at(1, 3));
    script.join(3, 2, 2);
    assert_eq!(committed(&script), at(1, 3));
}

#[test]
fn nothing_uncommitted_is_committed_by_name() {
    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    let ghost = script.ghost();
    let node = |counter| ghost.tree().find(at(1, counter)).unwrap();
    assert!(ghost.is_committed(ROOT) && ghost.is_committed(node(2)));
    assert!(!ghost.is_committed(node(3)));
    assert_eq!(ghost.committed_by(node(3)), None);
    assert_eq!(ghost.committed_by(node(1)), Some(Epoch(1)));
}

#[test]
fn holders_are_the_voters_whose_synced_logs_contain_it() {
    let mut script = Script::with_observers(3, 1);
    script.elect(1, 1, &[2, 3, 4]);
    script.broadcast(at(1, 1), 1);
    for server in [1, 2, 4] {
        script.append(server, at(1, 1));
    }
    script.sync(1);
    script.sync(4);
    let ghost = script.ghost();
    assert_eq!(ghost.holders(ghost.tree().find(at(1, 1)).unwrap()), 0b001);
    assert_eq!(ghost.holders(ROOT), 0b111);
}

#[test]
fn a_lost_disk_holds_nothing_and_has_held_nothing() {
    for lose in [wiped, set_aside] {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.sync(3);
        script.stop(3);
        script.see(lose(3));
        script.append(1, at(1, 3));
        script.sync(1);
        assert_eq!(committed(&script), at(1, 2));
        let server = script.ghost().servers()[2];
        assert_eq!(
            (server.tip, server.durable, server.applied),
            (ROOT, ROOT, ROOT)
        );
        assert_eq!(server.current, Epoch(0));
    }
}

#[test]
fn a_late_sync_takes_back_nothing_that_a_cut_made_durable() {
    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    script.append(3, at(1, 3));
    script.see(crate::sim::invariants::script::truncating(3, at(1, 3)));
    script.see(truncated(3, at(1, 3)));
    script.see(crate::sim::invariants::script::durable(3, at(1, 2)));
    let ghost = script.ghost();
    assert_eq!(ghost.tree().zxid(ghost.servers()[2].durable), at(1, 3));
}

#[test]
fn a_disk_may_be_lost_while_the_others_hold_all_that_counts() {
    let script = Script::settled();
    for server in 1..=3 {
        assert!(script.ghost().can_lose(id(server)));
    }
    assert!(!script.ghost().can_lose(id(9)), "a stranger");

    let mut script = Script::of(3);
    script.elect(1, 1, &[2, 3]);
    script.write(at(1, 1), 1, &[2]);
    assert!(script.ghost().can_lose(id(3)), "it does not hold 1:1");
    assert!(!script.ghost().can_lose(id(1)) && !script.ghost().can_lose(id(2)));
}

#[test]
fn an_open_acknowledgement_is_not_lost() {
    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    script.append(3, at(1, 3));
    script.sync(3);
    assert!(
        !script.ghost().can_lose(id(3)),
        "1:3 may yet be committed with it"
    );
    script.elect(2, 2, &[1]);
    assert!(script.ghost().can_lose(id(3)), "1:3 cannot be any more");
}

#[test]
fn a_server_whose_epoch_no_quorum_has_reached_is_not_lost_and_an_observer_may_always_be() {
    let mut script = Script::with_observers(3, 1);
    script.elect(1, 1, &[2, 3, 4]);
    script.write(at(1, 1), 1, &[2, 3, 4]);
    script.discover(2, 2, &[3, 4]);
    script.tell(2, 3, 2, at(1, 1));
    script.tell(2, 4, 2, at(1, 1));
    script.join(3, 2, 2);
    assert!(!script.ghost().can_lose(id(3)), "epoch 2 may count on it");
    script.join(4, 2, 2);
    assert!(script.ghost().can_lose(id(4)));
}
