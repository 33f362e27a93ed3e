//! One test per property of the Zab paper (Junqueira, Reed, Serafini, DSN 2011), each checked
//! over histories that were made to go wrong in the ordinary ways, and each shown to notice a
//! history that breaks it.
//!
//! A *run* is one server from a start to its end. A snapshot counts as the delivery of what it
//! holds, and a start delivers again from the beginning, so each run is a process of the paper.

use super::peers::{Event, Peers, at};
use crate::types::{Epoch, Zxid};
use crate::zab::Entry;

/// What each run did, in order.
type History = Vec<Vec<Event>>;

/// Checks a property of a history; the error says what breaks it.
type Property = fn(&History) -> Result<(), String>;

/// "If some process delivers ⟨v, z⟩, then some process has broadcast ⟨v, z⟩."
fn integrity(history: &History) -> Result<(), String> {
    let broadcast: Vec<&Entry> = history.iter().flatten().filter_map(broadcast).collect();
    for entry in history.iter().flatten().filter_map(delivered) {
        if !broadcast.contains(&entry) {
            return Err(format!("{} was delivered and not broadcast", entry.zxid));
        }
    }
    Ok(())
}

/// "If some process delivers ⟨v, z⟩ before ⟨v′, z′⟩, then any process that delivers ⟨v′, z′⟩ must
/// also deliver ⟨v, z⟩ and deliver ⟨v, z⟩ before ⟨v′, z′⟩."
fn total_order(history: &History) -> Result<(), String> {
    for one in history {
        for other in history {
            let (one, other) = (deliveries(one), deliveries(other));
            for (place, second) in one.iter().enumerate() {
                let Some(there) = other.iter().position(|entry| entry == second) else {
                    continue;
                };
                for first in &one[..place] {
                    if !other[..there].contains(first) {
                        return Err(format!("{} is not before {}", first.zxid, second.zxid));
                    }
                }
            }
        }
    }
    Ok(())
}

/// "If some process p delivers ⟨v, z⟩ and some process p′ delivers ⟨v′, z′⟩, then either p′
/// delivers ⟨v, z⟩ or p delivers ⟨v′, z′⟩."
fn agreement(history: &History) -> Result<(), String> {
    for one in history {
        for other in history {
            let (one, other) = (deliveries(one), deliveries(other));
            let only = |these: &[&Entry], those: &[&Entry]| {
                let alone = these.iter().find(|entry| !those.contains(entry));
                alone.map(|entry| entry.zxid)
            };
            if let (Some(a), Some(b)) = (only(&one, &other), only(&other, &one)) {
                return Err(format!("{a} and {b} were delivered apart"));
            }
        }
    }
    Ok(())
}

/// "If a primary broadcasts ⟨v, z⟩ before it broadcasts ⟨v′, z′⟩, then a process that delivers
/// ⟨v′, z′⟩ must also deliver ⟨v, z⟩ before ⟨v′, z′⟩": for all pairs.
fn local_primary_order(history: &History) -> Result<(), String> {
    for primary in history {
        let sent: Vec<&Entry> = primary.iter().filter_map(broadcast).collect();
        for (place, second) in sent.iter().enumerate() {
            let epoch = second.zxid.epoch;
            for first in sent[..place]
                .iter()
                .filter(|entry| entry.zxid.epoch == epoch)
            {
                for run in history {
                    in_order(run, first, second, true)?;
                }
            }
        }
    }
    Ok(())
}

/// "Let a primary ρ broadcast ⟨v, z⟩, and a later primary ρ′ broadcast ⟨v′, z′⟩. If a process
/// delivers both, then it must deliver ⟨v, z⟩ before ⟨v′, z′⟩."
fn global_primary_order(history: &History) -> Result<(), String> {
    let sent: Vec<&Entry> = history.iter().flatten().filter_map(broadcast).collect();
    for first in &sent {
        for second in sent
            .iter()
            .filter(|entry| entry.zxid.epoch > first.zxid.epoch)
        {
            for run in history {
                in_order(run, first, second, false)?;
            }
        }
    }
    Ok(())
}

/// "If a primary ρ broadcasts ⟨v, z⟩ and some process delivers ⟨v′, z′⟩ that was broadcast by an
/// earlier primary, then ρ must deliver ⟨v′, z′⟩ before it broadcasts ⟨v, z⟩."
fn primary_integrity(history: &History) -> Result<(), String> {
    let all: Vec<&Entry> = history.iter().flatten().filter_map(delivered).collect();
    for primary in history {
        for (place, event) in primary.iter().enumerate() {
            let Some(sent) = broadcast(event) else {
                continue;
            };
            let before = deliveries(&primary[..place]);
            let earlier = all
                .iter()
                .filter(|entry| entry.zxid.epoch < sent.zxid.epoch);
            for entry in earlier {
                if !before.contains(entry) {
                    return Err(format!(
                        "{} was broadcast without {}",
                        sent.zxid, entry.zxid
                    ));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn integrity_what_is_delivered_was_broadcast() {
    hold(integrity);
    breaks(integrity, &[vec![d(1, 1)]]);
    let other_bytes = Event::Delivered(entry(at(1, 1), "other"));
    breaks(integrity, &[vec![b(1, 1), other_bytes]]);
}

#[test]
fn total_order_every_server_delivers_in_one_order() {
    hold(total_order);
    breaks(
        total_order,
        &[vec![d(1, 1), d(1, 2)], vec![d(1, 2), d(1, 1)]],
    );
    breaks(total_order, &[vec![d(1, 1), d(1, 2)], vec![d(1, 2)]]);
}

#[test]
fn agreement_of_two_servers_one_has_delivered_all_that_the_other_has() {
    hold(agreement);
    breaks(agreement, &[vec![d(1, 1)], vec![d(1, 2)]]);
}

#[test]
fn local_primary_order_what_one_leader_broadcast_is_delivered_in_that_order_without_a_gap() {
    hold(local_primary_order);
    let primary = vec![b(1, 1), b(1, 2), b(1, 3)];
    breaks(
        local_primary_order,
        &[primary.clone(), vec![d(1, 2), d(1, 1)]],
    );
    breaks(local_primary_order, &[primary, vec![d(1, 1), d(1, 3)]]);
}

#[test]
fn global_primary_order_leaders_are_delivered_one_after_the_other() {
    hold(global_primary_order);
    breaks(
        global_primary_order,
        &[vec![b(1, 1)], vec![b(2, 1)], vec![d(2, 1), d(1, 1)]],
    );
}

#[test]
fn primary_integrity_a_leader_has_delivered_what_was_delivered_before_it_broadcasts() {
    hold(primary_integrity);
    breaks(
        primary_integrity,
        &[vec![b(1, 1), d(1, 1)], vec![b(2, 1), d(1, 1)]],
    );
}

#[test]
fn the_histories_are_not_empty_of_what_matters() {
    for (name, history) in histories() {
        let mut epochs: Vec<Epoch> = Vec::new();
        epochs.extend(
            history
                .iter()
                .flatten()
                .filter_map(broadcast)
                .map(|e| e.zxid.epoch),
        );
        epochs.dedup();
        epochs.sort_unstable();
        epochs.dedup();
        let delivered = history.iter().flatten().filter_map(delivered).count();
        assert!(delivered >= 9, "{name}: {delivered} deliveries");
        assert!(
            name == "calm" || epochs.len() >= 2,
            "{name}: epochs {epochs:?}"
        );
    }
}

/// Checks all properties of a world's history.
pub(super) fn check(world: Peers) -> Result<(), String> {
    let history = history_of(world);
    let properties: [Property; 6] = [
        integrity,
        total_order,
        agreement,
        local_primary_order,
        global_primary_order,
        primary_integrity,
    ];
    properties
        .iter()
        .try_for_each(|property| property(&history))
}

fn hold(property: Property) {
    for (name, history) in histories() {
        if let Err(broken) = property(&history) {
            panic!("{name}: {broken}");
        }
    }
}

fn breaks(property: Property, history: &[Vec<Event>]) {
    assert!(
        property(&history.to_vec()).is_err(),
        "{history:?} is taken for legal"
    );
}

fn histories() -> Vec<(&'static str, History)> {
    vec![
        ("calm", calm()),
        ("a suffix that is lost", lost_suffix()),
        ("a suffix that is saved", saved_suffix()),
        ("a leader in a minority", minority()),
        ("a snapshot", snapshot()),
        ("leaders one after the other", many_leaders()),
    ]
}

fn calm() -> History {
    let mut world = Peers::running(3);
    let leader = world.leader();
    world.propose_all(leader, &["a", "b", "c", "d"]);
    history_of(world)
}

/// A leader ends with transactions that only its own disk has; another goes on, and the first
/// comes back.
fn lost_suffix() -> History {
    let mut world = Peers::running(3);
    let old = world.leader();
    world.propose_all(old, &["a", "b"]);
    for other in world.others(old) {
        world.hold(old, other);
    }
    world.propose_all(old, &["lost", "lost too"]);
    world.crash(old);
    world.heal();
    world.run(3_000);
    let new = world.leader();
    world.propose_all(new, &["c"]);
    world.start(old);
    world.run(3_000);
    let leader = world.leader();
    world.propose_all(leader, &["d"]);
    assert_eq!(world.texts(old), ["a", "b", "c", "d"]);
    history_of(world)
}

/// A leader ends after a quorum has a transaction on disk, and before it could say so.
fn saved_suffix() -> History {
    let mut world = Peers::running(3);
    let old = world.leader();
    world.propose_all(old, &["a"]);
    for other in world.others(old) {
        world.hold(other, old);
    }
    world.propose_all(old, &["saved"]);
    world.crash(old);
    world.heal();
    world.run(3_000);
    let new = world.leader();
    assert_eq!(world.texts(new), ["a", "saved"]);
    world.propose_all(new, &["b", "c"]);
    world.start(old);
    world.run(3_000);
    assert_eq!(world.texts(old), ["a", "saved", "b", "c"]);
    history_of(world)
}

/// A leader and one follower are cut off from the other three, and go on for a while.
fn minority() -> History {
    let mut world = Peers::running(5);
    let old = world.leader();
    world.propose_all(old, &["a"]);
    let others = world.others(old);
    for other in &others[1..] {
        for inside in [old, others[0]] {
            world.hold(inside, *other);
            world.hold(*other, inside);
        }
    }
    world.propose_all(old, &["lost 1", "lost 2", "lost 3"]);
    world.run(5_000);
    let new = world.leader();
    assert!(others[1..].contains(&new));
    world.propose_all(new, &["b", "c"]);
    for id in [old, others[0]] {
        for other in &others[1..] {
            world.cut(id, *other);
        }
    }
    world.heal();
    world.run(5_000);
    let leader = world.leader();
    world.propose_all(leader, &["d"]);
    world.run(1_000);
    for id in world.ids() {
        assert_eq!(world.texts(id.0), ["a", "b", "c", "d"], "{id}");
    }
    history_of(world)
}

/// A server comes back that the logs no longer reach, with transactions nobody else has.
fn snapshot() -> History {
    let mut world = Peers::new(3);
    world.settings.limits.window_entries_max = 0;
    world.start_all();
    world.run(3_000);
    let old = world.leader();
    world.propose_all(old, &["a", "b"]);
    for other in world.others(old) {
        world.hold(old, other);
    }
    world.propose_all(old, &["lost"]);
    world.crash(old);
    world.heal();
    world.run(3_000);
    let new = world.leader();
    world.propose_all(new, &["c", "d", "e"]);
    for id in world.others(old) {
        world.snapshot(id);
    }
    world.propose_all(new, &["f"]);
    world.start(old);
    world.run(3_000);
    assert!(world.disk(old).snapshot.is_some());
    assert_eq!(world.texts(old), ["a", "b", "c", "d", "e", "f"]);
    history_of(world)
}

/// Leaders end one after the other, each with something under way, and come back.
fn many_leaders() -> History {
    let mut world = Peers::running(5);
    for round in 0..12 {
        let leader = world.leader();
        world.propose_all(leader, &[&format!("{round}")]);
        let quiet = world.others(leader);
        for other in &quiet[..round % 5] {
            world.hold(leader, *other);
        }
        world.propose_all(leader, &[&format!("{round} under way")]);
        world.crash(leader);
        world.heal();
        world.run(3_000);
        world.start(leader);
        world.run(1_000);
    }
    let texts = world.texts(world.leader());
    for round in 0..12 {
        assert!(texts.contains(&round.to_string()), "{round} was committed");
    }
    history_of(world)
}

/// What all runs did, those that have ended included.
fn history_of(mut world: Peers) -> History {
    for id in world.alive() {
        world.crash(id.0);
    }
    world
        .ended
        .into_iter()
        .map(|server| server.events)
        .collect()
}

/// Unless `second` was not delivered in a run: `first` was, before it. With `needed` false also
/// if `first` was not delivered at all.
fn in_order(run: &[Event], first: &Entry, second: &Entry, needed: bool) -> Result<(), String> {
    let run = deliveries(run);
    let place = |wanted: &Entry| run.iter().position(|entry| *entry == wanted);
    let Some(later) = place(second) else {
        return Ok(());
    };
    match place(first) {
        Some(earlier) if earlier < later => Ok(()),
        None if !needed => Ok(()),
        _ => Err(format!("{} is not before {}", first.zxid, second.zxid)),
    }
}

fn deliveries(run: &[Event]) -> Vec<&Entry> {
    run.iter().filter_map(delivered).collect()
}

fn delivered(event: &Event) -> Option<&Entry> {
    match event {
        Event::Delivered(entry) => Some(entry),
        Event::Broadcast(_) => None,
    }
}

fn broadcast(event: &Event) -> Option<&Entry> {
    match event {
        Event::Broadcast(entry) => Some(entry),
        Event::Delivered(_) => None,
    }
}

fn entry(zxid: Zxid, text: &str) -> Entry {
    let payload = text.as_bytes().into();
    Entry { zxid, payload }
}

/// A broadcast.
fn b(epoch: u64, counter: u64) -> Event {
    Event::Broadcast(entry(at(epoch, counter), ""))
}

/// A delivery.
fn d(epoch: u64, counter: u64) -> Event {
    Event::Delivered(entry(at(epoch, counter), ""))
}
