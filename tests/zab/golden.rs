//! The ordinary ways, as full traces that a person can read.
//!
//! Each test tells a story and compares every message, epoch write and change of standing with
//! the file of its name in `tests/zab/traces`. After a change that is meant to alter them:
//! `SYSTOLE_REWRITE_TRACES=1 cargo test --all-features --test zab golden`, then read the diff.

use std::path::Path;

use systole::sim::script::{Ensemble, Past};
use systole::zab::Phase;

fn compare(name: &str, trace: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/zab/traces")
        .join(format!("{name}.txt"));
    if std::env::var_os("SYSTOLE_REWRITE_TRACES").is_some() {
        std::fs::write(&path, trace).expect("the traces can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (now, before)) in trace.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, before, "{name}, line {}", line + 1);
    }
    assert_eq!(trace.lines().count(), golden.lines().count(), "{name}");
}

#[test]
fn three_servers_with_new_disks_elect_a_leader() {
    let mut ensemble = Ensemble::new(3);
    ensemble.start_all();
    assert_eq!(ensemble.leader(), Some(3));
    ensemble.propose(3, "a").unwrap();
    ensemble.settle();
    for id in 1..=3 {
        assert_eq!(ensemble.delivered(id), ["a"], "server {id}");
    }
    compare("election_of_three", &ensemble.trace());
}

/// Two servers lead an epoch that a third has missed.
fn behind(third: &Past) -> Ensemble {
    let mut ensemble = Ensemble::new(3);
    let log = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)];
    ensemble.put(1, &Past::new(2, &log));
    ensemble.put(2, &Past::new(2, &log));
    ensemble.put(3, third);
    ensemble.start(1);
    ensemble.start(2);
    ensemble.settle();
    assert_eq!(ensemble.leader(), Some(2));
    ensemble.trace();
    ensemble
}

#[test]
fn a_server_that_lags_is_brought_up_to_date_by_a_diff() {
    let mut ensemble = behind(&Past::new(1, &[(1, 1), (1, 2)]));
    ensemble.start(3);
    ensemble.settle();
    assert_eq!(ensemble.phase(3), Phase::Following);
    assert_eq!(ensemble.server(3).zxids(), "1:1 1:2 1:3 2:1 2:2");
    compare("join_by_diff", &ensemble.trace());
}

#[test]
fn a_server_that_went_its_own_way_is_cut_back() {
    // 1:4 was proposed by a leader that never got it to anybody else.
    let mut ensemble = behind(&Past::new(1, &[(1, 1), (1, 2), (1, 3), (1, 4)]));
    ensemble.start(3);
    ensemble.settle();
    assert_eq!(ensemble.phase(3), Phase::Following);
    assert_eq!(ensemble.server(3).zxids(), "1:1 1:2 1:3 2:1 2:2");
    compare("join_by_trunc", &ensemble.trace());
}

#[test]
fn a_server_behind_the_beginning_of_the_log_is_sent_a_snapshot() {
    let mut ensemble = Ensemble::new(3);
    let past = Past::new(2, &[(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]).trimmed(4);
    ensemble.put(1, &past);
    ensemble.put(2, &past);
    ensemble.put(3, &Past::new(1, &[(1, 1), (1, 2), (1, 3), (1, 4)]));
    ensemble.start(1);
    ensemble.start(2);
    ensemble.settle();
    ensemble.trace();
    ensemble.start(3);
    ensemble.settle();
    assert_eq!(ensemble.phase(3), Phase::Following);
    assert_eq!(ensemble.server(3).zxids(), "2:2");
    assert_eq!(
        ensemble.delivered(3),
        ["1.1", "1.2", "1.3", "2.1", "2.2"],
        "the snapshot and what came after it"
    );
    compare("join_by_snap", &ensemble.trace());
}

#[test]
fn a_leader_dies_with_proposals_in_flight() {
    let mut ensemble = Ensemble::new(3);
    ensemble.start_all();
    ensemble.propose(3, "a").unwrap();
    ensemble.settle();
    ensemble.trace();
    // 2 gets both, 1 gets the first, 3 gets neither to its own disk.
    ensemble.server(3).syncs = false;
    ensemble.server(1).syncs = false;
    ensemble.propose(3, "b").unwrap();
    ensemble.propose(3, "c").unwrap();
    ensemble.deliver(3, 2);
    ensemble.deliver(3, 2);
    ensemble.deliver(3, 1);
    ensemble.sync(1);
    ensemble.sync(2);
    ensemble.server(1).syncs = true;
    ensemble.crash(3);
    ensemble.settle();
    assert_eq!(ensemble.leader(), Some(2), "its log is the longest");
    ensemble.propose(2, "d").unwrap();
    ensemble.settle();
    for id in 1..=2 {
        assert_eq!(ensemble.delivered(id), ["a", "b", "c", "d"], "server {id}");
    }
    ensemble.start(3);
    ensemble.settle();
    assert_eq!(ensemble.delivered(3), ["a", "b", "c", "d"]);
    compare("leader_change", &ensemble.trace());
}

#[test]
fn an_observer_learns_only_what_is_committed() {
    let mut ensemble = Ensemble::with_observers(3, 1);
    ensemble.start_all();
    ensemble.pass(1_000);
    ensemble.trace();
    ensemble.propose(3, "a").unwrap();
    ensemble.settle();
    assert_eq!(ensemble.phase(4), Phase::Observing);
    assert_eq!(ensemble.delivered(4), ["a"]);
    compare("observer", &ensemble.trace());
}
