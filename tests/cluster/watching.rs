//! Listeners through faults.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::poll;
use crate::ensemble::{Ensemble, ask};
use crate::ledger::Ledger;
use crate::listener::Listener;
use crate::member::{Crowd, Habits};
use crate::watcher::active;

#[test]
fn a_listener_that_is_cut_and_resumes_misses_nothing_through_a_change_of_leader() {
    let timeout = Duration::from_secs(3);
    let mut ensemble = Ensemble::of_three();
    let endpoints = ensemble.addresses();
    let ledger = Ledger::default();
    let leader = ensemble.leader();
    let survivors: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let habits = Habits {
        restless: 2,
        ..Habits::faithful(timeout)
    };
    let stays = ask(
        endpoints[survivors[0]],
        "PUT",
        "/watched/stays?timeout=1h",
        &[],
    );
    assert_eq!(stays.map(|answer| answer.status), Some(201));
    let listeners: Vec<Listener> = (0..3)
        .map(|at| Listener::start(&endpoints, at, "watched", 3))
        .collect();
    let others = Crowd::join(&endpoints, &survivors, "watched", 8, &habits, &ledger);
    let cut_often = |times: u64| {
        let what = format!("each listener to hang up {times} times");
        poll(PATIENCE, &what, || {
            let enough = |one: &Listener| one.cuts() >= times;
            listeners.iter().all(enough).then_some(())
        });
    };
    cut_often(3);
    ensemble.kill(leader);
    let before = listeners.iter().map(Listener::cuts).max().unwrap_or(0);
    cut_often(before + 3);
    ensemble.start_servers(&[leader]);
    ensemble.wait_until_all_serve();
    others.die();

    let expected: BTreeSet<String> = ["stays".to_owned()].into();
    let last = poll(PATIENCE, "the restless to be gone", || {
        let document = ensemble.ask(survivors[0], "GET", "/watched")?;
        (active(&document) == expected).then(|| document.version())
    });
    poll(PATIENCE, "every listener to know the last version", || {
        let knows = |one: &Listener| one.version() == last;
        listeners.iter().all(knows).then_some(())
    });
    for (at, listener) in listeners.into_iter().enumerate() {
        let story = listener.end();
        println!("server {}: {} events", at + 1, story.events);
        assert_eq!(story.complaints, Vec::<String>::new(), "server {}", at + 1);
        assert_eq!(story.active, expected, "server {}", at + 1);
        // Whoever stayed with its server was never shown what it should have been told.
        assert!(at == leader || story.snapshots == 1, "{story:?}");
    }
    ledger.expect_kept();
    ensemble.stop_and_verify();
}

const PATIENCE: Duration = Duration::from_secs(60);
