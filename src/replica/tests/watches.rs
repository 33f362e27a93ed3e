//! What shards are told of the groups that they watch.

use std::sync::Arc;

use super::world::Fleet;
use crate::group::{Rank, Request, Ring};
use crate::mail::{Answer, What};
use crate::types::GroupVersion;

fn watch(fleet: &mut Fleet, id: u32, token: u64) {
    fleet.ask(id, token, What::Watch { group: group() });
}

fn unwatch(fleet: &mut Fleet, id: u32) {
    fleet.ask(id, 0, What::Unwatch { group: group() });
}

fn group() -> Arc<[u8]> {
    b"g"[..].into()
}

fn ring(fleet: &mut Fleet, id: u32, token: u64) -> (Option<u64>, Box<Ring>) {
    match fleet.answer(id, token) {
        Some(Answer::Watching(version, ring)) => (version.map(|version| version.0), ring),
        other => panic!("{other:?} is no ring"),
    }
}

/// The names and versions of what a server's shard was told.
fn noticed(fleet: &Fleet, id: u32) -> Vec<String> {
    fleet.server(id).noticed.clone()
}

#[test]
fn every_server_tells_its_watchers_of_what_happens_anywhere() {
    let mut fleet = Fleet::running(3);
    for id in 1..=3 {
        watch(&mut fleet, id, 1);
        let (version, ring) = ring(&mut fleet, id, 1);
        assert_eq!((version, ring.end()), (None, 0));
    }
    fleet.join(1, 2, "a", 10_000);
    fleet.run(100);
    fleet.join(2, 3, "b", 10_000);
    fleet.run(100);
    for id in 1..=3 {
        assert_eq!(noticed(&fleet, id), ["join 0", "join 1"], "server {id}");
    }
}

#[test]
fn who_watches_later_is_given_what_happened_lately() {
    let mut fleet = Fleet::running(1);
    fleet.join(1, 1, "a", 10_000);
    fleet.run(100);
    watch(&mut fleet, 1, 2);
    let (version, first) = ring(&mut fleet, 1, 2);
    assert_eq!(version, Some(0));
    assert_eq!(first.after(Rank::of(GroupVersion(0))), Some(0));
    assert_eq!(
        first.after(Rank::NOTHING),
        None,
        "nobody kept the first join"
    );
    fleet.join(1, 3, "b", 10_000);
    fleet.run(100);
    watch(&mut fleet, 1, 4);
    let (version, second) = ring(&mut fleet, 1, 4);
    assert_eq!((version, second.end()), (Some(1), 1));
    assert_eq!(noticed(&fleet, 1), ["join 1"], "a shard is told once");
}

#[test]
fn who_watches_no_more_is_told_no_more() {
    let mut fleet = Fleet::running(1);
    watch(&mut fleet, 1, 1);
    fleet.join(1, 2, "a", 10_000);
    fleet.run(100);
    unwatch(&mut fleet, 1);
    fleet.join(1, 3, "b", 10_000);
    fleet.run(100);
    assert_eq!(noticed(&fleet, 1), ["join 0"]);
    watch(&mut fleet, 1, 4);
    let (version, ring) = ring(&mut fleet, 1, 4);
    assert_eq!((version, ring.end()), (Some(1), 0));
    assert_eq!(ring.after(Rank::of(GroupVersion(0))), None);
}

#[test]
fn a_removed_group_has_no_version_and_is_remembered() {
    let mut fleet = Fleet::running(1);
    watch(&mut fleet, 1, 1);
    fleet.join(1, 2, "a", 10_000);
    fleet.run(100);
    for (token, request) in [
        (
            3,
            Request::Leave {
                group: b"g"[..].into(),
                member: b"a"[..].into(),
                session: None,
            },
        ),
        (
            4,
            Request::DeleteGroup {
                group: b"g"[..].into(),
            },
        ),
    ] {
        let document = false;
        fleet.ask(1, token, What::Change { request, document });
        fleet.run(100);
    }
    assert_eq!(noticed(&fleet, 1), ["join 0", "leave 1", "remove none"]);
    unwatch(&mut fleet, 1);
    watch(&mut fleet, 1, 5);
    let (version, ring) = ring(&mut fleet, 1, 5);
    assert_eq!(version, None);
    assert_eq!(ring.newest(), Rank::removed(GroupVersion(1)));
    assert_eq!(
        ring.after(Rank::of(GroupVersion(1))),
        None,
        "its removal is not kept"
    );
}

#[test]
fn nothing_of_before_leads_on_to_a_state_that_was_replaced() {
    let mut fleet = Fleet::running(3);
    let leader = fleet.leader_of();
    let behind = fleet.followers()[0];
    fleet.join(behind, 1, "m", 60_000);
    fleet.run(100);
    watch(&mut fleet, behind, 2);
    let (version, _) = ring(&mut fleet, behind, 2);
    assert_eq!(version, Some(0));
    fleet.isolate(behind);
    for n in 0..10 {
        fleet.join(leader, 10 + n, &format!("n{n}"), 60_000);
    }
    fleet.run(2_000);
    for id in fleet.ids() {
        if id.0 != behind {
            fleet.snapshot(id.0);
        }
    }
    fleet.heal();
    fleet.run(4_000);
    assert_eq!(noticed(&fleet, behind), Vec::<String>::new());
    watch(&mut fleet, behind, 3);
    let (version, kept) = ring(&mut fleet, behind, 3);
    assert_eq!(version, Some(10));
    assert_eq!(
        kept.after(Rank::of(GroupVersion(0))),
        None,
        "ten are not known"
    );
    let next = kept.after(Rank::of(GroupVersion(10)));
    fleet.join(leader, 40, "last", 60_000);
    fleet.run(100);
    assert_eq!(noticed(&fleet, behind), ["join 11"]);
    watch(&mut fleet, behind, 4);
    let (_, kept) = ring(&mut fleet, behind, 4);
    assert_eq!(kept.after(Rank::of(GroupVersion(10))), next);
    assert_eq!(kept.end(), next.expect("a place") + 1);
}
