use super::*;
use crate::sim::invariants::script::{
    Script, accepted as accepts, ack as acks, ack_new_leader as acks_new_leader,
    appended as appends, at, current as makes_current, new_leader, said, set_aside,
    started as starts, truncated, truncating, wiped,
};
use crate::sim::observe::{Observation, Said};
use crate::types::ServerId;

/// Server 3 is down; its disk as it would be found.
fn down() -> (Script, Boot) {
    let mut script = Script::settled();
    let boot = script.boot(3);
    script.stop(3);
    (script, boot)
}

fn report(persisted: Persisted) -> Observation {
    let server = ServerId(3);
    Observation::Reported { server, persisted }
}

/// Server 3 tells server 2 of its history.
fn ack_of_epoch(epoch: u64, current: u64, promises: bool, last: Zxid) -> Observation {
    let (epoch, current) = (Epoch(epoch), Epoch(current));
    let what = Said::AckEpoch {
        epoch,
        current,
        promises,
        last,
    };
    said(3, 2, what)
}

#[test]
fn epochs_do_not_go_back_over_a_restart_and_may_go_on() {
    for (accepted, current, right) in [
        (1, 1, true),
        (2, 1, true),
        (2, 2, true),
        (1, 0, false),
        (0, 0, false),
    ] {
        let (mut script, boot) = down();
        let (accepted, current) = (Epoch(accepted), Epoch(current));
        let seen = starts(
            3,
            Boot {
                accepted,
                current,
                ..boot
            },
        );
        if right {
            script.see(seen);
        } else {
            script.refused(Invariant::Z12, seen);
        }
    }
}

#[test]
fn a_disk_with_a_current_epoch_or_a_log_above_the_accepted_epoch_is_refused() {
    let (mut script, boot) = down();
    let current = Epoch(2);
    script.refused(Invariant::Z12, starts(3, Boot { current, ..boot }));
    let (mut script, boot) = down();
    let last = at(2, 1);
    script.refused(Invariant::Z12, starts(3, Boot { last, ..boot }));
}

#[test]
fn a_lost_disk_starts_from_zero_but_for_an_accepted_epoch_that_was_kept() {
    for (lose, accepted, current, right) in [
        (wiped as fn(u32) -> Observation, 0, 0, true),
        (wiped, 1, 0, false),
        (wiped, 1, 1, false),
        (set_aside, 0, 0, true),
        (set_aside, 2, 0, true),
        (set_aside, 1, 0, false),
        (set_aside, 2, 1, false),
    ] {
        let mut script = Script::settled();
        script.accept(3, 2);
        script.stop(3);
        script.see(lose(3));
        let (accepted, current) = (Epoch(accepted), Epoch(current));
        let boot = Boot {
            accepted,
            current,
            ..script.boot(3)
        };
        if right {
            script.see(starts(3, boot));
        } else {
            script.refused(Invariant::Z12, starts(3, boot));
        }
    }
}

#[test]
fn epochs_do_not_go_back_while_a_server_runs() {
    let mut script = Script::settled();
    script.see(accepts(3, 1));
    script.refused(Invariant::Z12, accepts(3, 0));
    let mut script = Script::settled();
    script.see(makes_current(3, 1));
    script.refused(Invariant::Z12, makes_current(3, 0));
}

#[test]
fn the_current_epoch_is_at_most_the_accepted_one() {
    let mut script = Script::settled();
    script.refused(Invariant::Z12, makes_current(3, 2));
}

#[test]
fn the_current_epoch_comes_after_its_history() {
    let mut script = Script::settled();
    script.write(at(1, 3), 1, &[2]);
    script.discover(2, 2, &[3]);
    script.tell(2, 3, 2, at(1, 3));
    script.append(3, at(1, 3));
    script.refused(Invariant::Z12, makes_current(3, 2));
}

#[test]
fn a_current_epoch_that_came_before_the_announcement_has_its_history_too() {
    let mut script = Script::settled();
    script.write(at(1, 3), 1, &[2]);
    script.discover(2, 2, &[3]);
    script.see(makes_current(3, 2));
    script.refused(Invariant::Z12, new_leader(2, 3, 2, at(1, 3)));
}

#[test]
fn a_log_takes_nothing_of_an_epoch_that_is_not_accepted() {
    let mut script = Script::settled();
    script.elect(1, 2, &[2]);
    script.broadcast(at(2, 1), 1);
    script.refused(Invariant::Z12, appends(3, at(2, 1)));
}

#[test]
fn a_leader_announces_an_epoch_that_is_durable() {
    let mut script = Script::settled();
    let epoch = Epoch(2);
    script.refused(Invariant::Z12, said(1, 2, Said::LeaderInfo { epoch }));
}

#[test]
fn a_promise_follows_its_write_and_tells_what_the_disk_holds() {
    for (epoch, current, promises, counter, right) in [
        (2, 1, true, 3, true),
        (2, 1, true, 4, true),
        (3, 1, true, 3, false),
        (2, 0, true, 3, false),
        (2, 2, true, 3, false),
        (2, 2, false, 3, false),
        (2, 0, false, 3, true),
        (2, 1, true, 2, false),
        (2, 1, true, 5, false),
        (2, 1, true, 6, false),
    ] {
        let mut script = Script::settled();
        for counter in 3..6 {
            script.broadcast(at(1, counter), 1);
        }
        script.append(3, at(1, 3));
        script.sync(3);
        script.append(3, at(1, 4));
        script.accept(3, 2);
        let seen = ack_of_epoch(epoch, current, promises, at(1, counter));
        if right {
            script.see(seen);
        } else {
            script.refused(Invariant::Z12, seen);
        }
    }
}

#[test]
fn the_history_is_acknowledged_after_the_current_epoch_is_durable() {
    let mut script = Script::settled();
    script.discover(2, 2, &[3]);
    script.tell(2, 3, 2, at(1, 2));
    script.refused(Invariant::Z12, acks_new_leader(3, 2, 2));
}

#[test]
fn the_history_is_not_acknowledged_with_a_log_of_a_newer_epoch() {
    let mut script = Script::settled();
    script.elect(2, 2, &[1]);
    script.broadcast(at(2, 1), 2);
    script.accept(3, 2);
    script.append(3, at(2, 1));
    script.refused(Invariant::Z12, acks_new_leader(3, 1, 1));
}

#[test]
fn a_transaction_is_acknowledged_after_its_sync() {
    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    script.append(3, at(1, 3));
    script.refused(Invariant::Z12, acks(3, 1, 1, at(1, 3)));
    let mut script = Script::settled();
    script.refused(Invariant::Z12, acks(3, 1, 1, at(1, 3)));
}

#[test]
fn a_report_of_what_is_not_durable_is_refused() {
    for persisted in [
        Persisted::AcceptedEpoch(Epoch(2)),
        Persisted::CurrentEpoch(Epoch(2)),
        Persisted::Log(at(1, 3)),
        Persisted::Truncated(at(1, 2)),
        Persisted::Snapshot(at(1, 2)),
    ] {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        script.append(3, at(1, 3));
        script.refused(Invariant::Z12, report(persisted));
    }
}

#[test]
fn each_cut_and_each_installation_is_reported_once() {
    let mut script = Script::settled();
    let digest = script.digest(at(1, 2));
    script.see(truncating(3, at(1, 2)));
    script.see(truncated(3, at(1, 2)));
    script.see(report(Persisted::Truncated(at(1, 2))));
    script.install(3, at(1, 2));
    assert_eq!(script.digest(at(1, 2)), digest);
    script.see(report(Persisted::Snapshot(at(1, 2))));
    for persisted in [
        Persisted::AcceptedEpoch(Epoch(1)),
        Persisted::CurrentEpoch(Epoch(1)),
        Persisted::Log(at(1, 2)),
    ] {
        script.see(report(persisted));
    }
    script.refused(Invariant::Z12, report(Persisted::Truncated(at(1, 2))));
}

#[test]
fn an_installation_is_not_reported_twice_and_no_report_outlives_its_run() {
    let mut script = Script::settled();
    script.install(3, at(1, 2));
    script.see(report(Persisted::Snapshot(at(1, 2))));
    script.refused(Invariant::Z12, report(Persisted::Snapshot(at(1, 2))));

    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    script.append(3, at(1, 3));
    script.see(truncating(3, at(1, 3)));
    script.see(truncated(3, at(1, 3)));
    script.stop(3);
    script.start(3);
    script.refused(Invariant::Z12, report(Persisted::Truncated(at(1, 3))));
}

#[test]
fn a_report_may_come_after_the_log_was_cut() {
    let mut script = Script::settled();
    script.broadcast(at(1, 3), 1);
    script.append(3, at(1, 3));
    script.sync(3);
    script.accept(3, 2);
    script.see(truncating(3, at(1, 2)));
    script.see(truncated(3, at(1, 2)));
    script.see(report(Persisted::Log(at(1, 3))));
}
