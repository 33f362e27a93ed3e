//! What shards are told of the groups that they watch.

use std::sync::Arc;

use super::world::Fleet;
use crate::group::{Rank, Request, Require, Ring, State};
use crate::mail::{Answer, What};
use crate::replica::GroupSettings;
use crate::replica::groups::{Groups, News};
use crate::time::Millis;
use crate::types::{Epoch, GroupVersion, ServerId, Zxid};
use crate::zab::app::{Application, Origin, RequestId};

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

/// Has the last member leave its group, and the group removed; uses two tokens.
fn remove(fleet: &mut Fleet, group: &str, member: &str, token: u64) {
    let group: Box<[u8]> = group.as_bytes().into();
    let leave = Request::Leave {
        group: group.clone(),
        member: member.as_bytes().into(),
        session: None,
    };
    for (token, request) in (token..).zip([leave, Request::DeleteGroup { group }]) {
        let document = false;
        fleet.ask(
            1,
            token,
            What::Change {
                request,
                document,
                fresh: false,
            },
        );
        fleet.run(100);
    }
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
    let made = fleet.with_machine(1, |server, _| server.replica.node.app().watched());
    assert_eq!(made, 0, "no event is made for nobody");
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
    remove(&mut fleet, "g", "a", 3);
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

#[test]
fn a_shard_that_asks_twice_is_told_once() {
    let mut fleet = Fleet::running(1);
    watch(&mut fleet, 1, 1);
    watch(&mut fleet, 1, 2);
    fleet.join(1, 3, "a", 10_000);
    fleet.run(100);
    assert_eq!(noticed(&fleet, 1), ["join 0"]);
    unwatch(&mut fleet, 1);
    fleet.join(1, 4, "b", 10_000);
    fleet.run(100);
    assert_eq!(
        noticed(&fleet, 1),
        ["join 0"],
        "it need not take back twice"
    );
}

#[test]
fn a_group_that_begins_again_after_it_was_forgotten_is_told_of_as_a_new_one() {
    let mut fleet = Fleet::running(1);
    fleet.with_machine(1, |server, _| server.replica.remember_removed(1));
    watch(&mut fleet, 1, 1);
    fleet.join(1, 2, "a", 10_000);
    fleet.run(100);
    remove(&mut fleet, "g", "a", 3);
    fleet.ask_join(1, 5, "a", |join| join.group = b"h"[..].into());
    fleet.run(100);
    remove(&mut fleet, "h", "a", 6);
    fleet.join(1, 8, "b", 10_000);
    fleet.run(100);
    let told = ["join 0", "leave 1", "remove none", "join 0"];
    assert_eq!(noticed(&fleet, 1), told);
    watch(&mut fleet, 1, 9);
    let (version, ring) = ring(&mut fleet, 1, 9);
    assert_eq!(
        (version, ring.newest()),
        (Some(0), Rank::of(GroupVersion(0)))
    );
    let first = ring
        .after(Rank::NOTHING)
        .expect("all of its new life is kept");
    assert_eq!(ring.end(), first + 1, "and nothing of the old one");
}

/// Groups, and the transactions that change them, without the rest of a server.
struct Alone {
    groups: Groups,
    next: Zxid,
}

impl Alone {
    fn new() -> Alone {
        let settings = GroupSettings {
            default_timeout: Millis(10_000),
            seeds: [0; 4],
        };
        let mut alone = Alone {
            groups: Groups::new(State::new(settings), settings),
            next: Zxid::new(Epoch(1), 1),
        };
        alone.deliver(&Request::Genesis { birth_s: 5 });
        alone
    }

    fn deliver(&mut self, request: &Request) {
        let mut txn = Vec::new();
        self.groups.state.preprocess(request, &mut txn);
        let origin = Origin {
            server: ServerId(1),
            run: 1,
            request: RequestId(0),
        };
        self.groups.deliver(self.next, &txn, origin);
        self.next = self.next.next();
    }

    /// Gives a group this config, which makes it if there is none.
    fn configure(&mut self, group: &str, config: &str) {
        self.deliver(&Request::SetConfig {
            group: group.as_bytes().into(),
            member: None,
            bytes: config.as_bytes().into(),
            require: Require::Nothing,
        });
    }

    fn watch(&mut self, group: &str) -> Option<u64> {
        let standing = self.groups.watch(&group.as_bytes().into());
        standing.version.map(|version| version.0)
    }

    /// What has happened to watched groups: events by name and version, and after a replaced
    /// state the names of those that were told.
    fn news(&mut self) -> Vec<String> {
        let mut news = Vec::new();
        self.groups.take(&mut news);
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        news.iter()
            .filter_map(|news| match news {
                News::Event(event) => Some(format!("{} {}", text(&event.group), event.version)),
                News::Restored(standings) => {
                    let names = standings.iter().map(|standing| text(&standing.group));
                    Some(format!("restored {}", names.collect::<Vec<_>>().join(" ")))
                }
                _ => None,
            })
            .collect()
    }
}

#[test]
fn what_was_not_told_before_a_watch_ended_is_not_told_to_the_next() {
    let mut alone = Alone::new();
    assert_eq!((alone.watch("g"), alone.watch("h")), (None, None));
    alone.configure("g", "one");
    alone.configure("h", "one");
    alone.groups.unwatch(b"g");
    assert_eq!(alone.watch("g"), Some(0), "which has the change in it");
    alone.configure("g", "two");
    assert_eq!(alone.news(), ["h 0", "g 1"]);
    alone.groups.unwatch(b"h");
    alone.configure("h", "two");
    assert!(alone.news().is_empty());
}

#[test]
fn how_a_group_stood_before_a_watch_ended_is_not_told_to_the_next() {
    let mut alone = Alone::new();
    alone.configure("g", "one");
    alone.configure("h", "one");
    alone.watch("g");
    alone.watch("h");
    let mut content = Vec::new();
    let mut snapshot = alone.groups.save();
    while snapshot.write_into(&mut content, 1_000) {}
    alone.groups.restore(&mut &content[..]).expect("sound");
    alone.configure("g", "two");
    alone.groups.unwatch(b"g");
    assert_eq!(alone.watch("g"), Some(1), "later than the state that came");
    assert_eq!(alone.news(), ["restored h"]);
}
