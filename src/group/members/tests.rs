//! Tests of the members of a group.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::entry::Tail;
use super::leaf::{LEAF_ENTRIES_MAX, pack};
use super::*;
use crate::group::record::ConfigView;
use crate::time::Millis;
use crate::types::{Incarnation, ServerId, SessionId, Term};

/// What the model keeps of a member: its session's counter, and its config.
type Model = BTreeMap<Vec<u8>, (Option<u64>, Option<Vec<u8>>)>;

/// A session that takes few bytes, or with a counter of many as many bytes as can be.
fn session(counter: u64) -> Session {
    let long = counter > u64::from(u32::MAX);
    let pick = |few, many| if long { many } else { few };
    Session {
        id: SessionId::from_parts((7 << 32) | pick(3, u64::from(u32::MAX)), counter),
        term: Term(pick(1 + counter % 3, u64::from(u32::MAX)) as u32),
        timeout: Millis(pick(10_000, u64::from(u32::MAX))),
        owner: ServerId(pick(1, u64::from(u32::MAX)) as u32),
        incarnation: Incarnation(pick(5, u64::MAX)),
    }
}

fn view(bytes: &[u8]) -> ConfigView<'_> {
    ConfigView {
        bytes,
        version: bytes.len() as u64,
        json: bytes.len() % 2 == 1,
    }
}

fn check(members: &Members, model: &Model) {
    members.check();
    let shown: Vec<_> = members
        .iter()
        .map(|e| {
            let counter = e.session(7).map(|s| s.id.counter());
            assert_eq!(e.session(7), counter.map(session));
            let config = e.config();
            if let Some(config) = config {
                assert_eq!(config, view(config.bytes));
            }
            (e.name.to_vec(), (counter, config.map(|c| c.bytes.to_vec())))
        })
        .collect();
    let expected: Vec<_> = model.clone().into_iter().collect();
    assert_eq!(shown, expected);
}

/// Names from one byte to 255, many of them alike at the start.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let len = prop::sample::select(vec![1usize, 7, 8, 9, 24, 255]);
    (len, 0u32..200).prop_map(|(len, i)| {
        let digits = format!("{i:03}");
        let text = format!("{}{digits}", "m".repeat(len.saturating_sub(3)));
        text.into_bytes()[..len.max(1)].to_vec()
    })
}

fn config_len() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![
        0,
        1,
        100,
        INLINE_BYTES_MAX,
        INLINE_BYTES_MAX + 1,
        5_000,
    ])
}

#[derive(Clone, Debug)]
enum Op {
    Join(Vec<u8>, u64),
    Configure(Vec<u8>, usize),
    Unconfigure(Vec<u8>),
    Remove(Vec<u8>),
    End(Vec<Vec<u8>>),
    /// Gives every other of these members the longest session there can be.
    Move(Vec<Vec<u8>>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (name(), prop_oneof![0..9u64, any::<u64>()]).prop_map(|(n, c)| Op::Join(n, c)),
        2 => (name(), config_len()).prop_map(|(n, len)| Op::Configure(n, len)),
        1 => name().prop_map(Op::Unconfigure),
        2 => name().prop_map(Op::Remove),
        1 => prop::collection::vec(name(), 0..60).prop_map(Op::End),
        1 => prop::collection::vec(name(), 0..60).prop_map(Op::Move),
    ]
}

fn apply(members: &mut Members, model: &mut Model, op: Op) {
    let mut scratch = Vec::new();
    let mut put = |members: &mut Members, name: &[u8], counter: Option<u64>, config| {
        let spot = members.find(name);
        members.put(&spot, name, counter.map(session), config, &mut scratch);
    };
    match op {
        Op::Join(name, counter) => {
            put(members, &name, Some(counter), ConfigChange::Keep);
            model.entry(name).or_default().0 = Some(counter);
        }
        Op::Configure(name, len) => {
            let bytes = vec![b'c'; len];
            let counter = model.get(&name).and_then(|m| m.0);
            put(members, &name, counter, ConfigChange::Write(view(&bytes)));
            model.entry(name).or_default().1 = Some(bytes);
        }
        Op::Unconfigure(name) => {
            if let Some((Some(counter), config)) = model.get_mut(&name) {
                put(members, &name, Some(*counter), ConfigChange::Remove);
                *config = None;
            }
        }
        Op::Remove(name) => {
            if model.remove(&name).is_some() {
                let spot = members.find(&name);
                members.remove(&spot, &mut scratch);
            }
        }
        Op::End(names) => {
            for name in revised(members, model, names, Fate::Ends) {
                if let Some(member) = model.get_mut(&name) {
                    member.0 = None;
                }
            }
            model.retain(|_, m| m.0.is_some() || m.1.is_some());
        }
        Op::Move(names) => {
            let longest = Fate::Becomes(session(u64::MAX));
            for name in revised(members, model, names, longest) {
                if let Some((Some(counter), _)) = model.get_mut(&name) {
                    *counter = u64::MAX;
                }
            }
        }
    }
}

/// Lets every other of `names` meet its fate, if it is active; returns those.
fn revised(
    members: &mut Members,
    model: &Model,
    mut names: Vec<Vec<u8>>,
    fate: Fate,
) -> Vec<Vec<u8>> {
    names.sort();
    names.dedup();
    let mut seen = Vec::new();
    members.revise(
        |i| names.get(i).map(|n| &n[..]),
        |i, entry| {
            let counter = model.get(&names[i]).map(|m| m.0);
            let found = entry.map(|e| e.session(7).map(|s| s.id.counter()));
            assert_eq!(found, counter, "{i}");
            seen.push(i);
            // Every other session is spared, as a stale lapse would.
            match entry {
                Some(entry) if entry.is_active() && i.is_multiple_of(2) => fate,
                _ => Fate::Stays,
            }
        },
        &mut Vec::new(),
    );
    let each = 0..names.len();
    assert!(seen.into_iter().eq(each), "each name once, in order");
    names.into_iter().step_by(2).collect()
}

proptest! {
    #[test]
    fn behave_as_a_sorted_map(ops in prop::collection::vec(op(), 0..300), after in name()) {
        let (mut members, mut model) = (Members::default(), Model::new());
        for (i, op) in ops.into_iter().enumerate() {
            apply(&mut members, &mut model, op);
            if i % 20 == 0 {
                check(&members, &model);
            }
        }
        check(&members, &model);
        // A page from anywhere, and a handle that stays as it was.
        let mut cursor = members.cursor(Some(&after));
        let next = members.read(&mut cursor).map(|e| e.name.to_vec());
        let above = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let expected = model.range::<Vec<u8>, _>(above).next().map(|(name, _)| name.clone());
        prop_assert_eq!(next, expected);
        let before = (members.clone(), model.clone());
        for name in before.1.keys() {
            apply(&mut members, &mut model, Op::Remove(name.clone()));
        }
        prop_assert!(members.iter().next().is_none());
        check(&before.0, &before.1);
    }

    #[test]
    fn names_in_a_leaf_compare_as_bytes_do(
        names in prop::collection::btree_set(any_name(), 1..20),
        sought in any_name(),
    ) {
        let mut plain = Vec::new();
        for name in &names {
            put_entry(&mut plain, name, Some(session(1)), ConfigChange::Keep, None);
        }
        let mut packed = Vec::new();
        pack(&plain, &mut packed);
        let view = Packed::read(&packed);
        let probe = view.probe(&sought);
        let mut at = view.start;
        for name in &names {
            prop_assert_eq!(view.compare(at, &probe), name[..].cmp(&sought[..]));
            at = view.next(at);
        }
        prop_assert_eq!(at, view.end);
    }
}

/// Names that are alike or nothing like each other, zeros included.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        name(),
        prop::collection::vec(prop::sample::select(vec![0u8, b'a', 255]), 1..12),
        prop::collection::vec(any::<u8>(), 1..40),
    ]
}

fn filled(names: impl Iterator<Item = u32>) -> Members {
    let (mut members, mut model) = (Members::default(), Model::new());
    for i in names {
        let name = format!("worker-{i:09}.eu-west").into_bytes();
        apply(&mut members, &mut model, Op::Join(name, 1));
    }
    members.check();
    members
}

#[test]
fn names_that_come_in_order_fill_their_leaves() {
    let members = filled(0..10_000);
    assert!(members.leaves() <= 10_000 / LEAF_ENTRIES_MAX + 1);
    // And so do names that have nothing in common, as to bytes.
    let (mut members, mut model) = (Members::default(), Model::new());
    for i in 0..=255 {
        let name = vec![i; 100];
        apply(&mut members, &mut model, Op::Join(name, 1));
    }
    members.check();
    let bytes = 256 * (2 + 100 + 1);
    assert!(members.leaves() <= bytes / (LEAF_BYTES_MAX * 8 / 10));
}

#[test]
fn a_search_goes_through_a_quarter_of_a_full_leaf_at_most() {
    for (how, order) in [("forth", false), ("back", true)] {
        let names = 0..LEAF_ENTRIES_MAX as u32;
        let members = match order {
            false => filled(names),
            true => filled(names.rev()),
        };
        let Members::One(leaf) = &members else {
            panic!("they fit one leaf");
        };
        let view = leaf.view();
        let mut from: Vec<usize> = view.hinted_places().collect();
        from.insert(0, view.start);
        from.push(view.end);
        for gap in from.windows(2) {
            let (mut at, mut steps) = (gap[0], 0);
            while at < gap[1] {
                (at, steps) = (view.next(at), steps + 1);
            }
            assert!(steps <= LEAF_ENTRIES_MAX / 2, "{how}: {steps}");
        }
    }
}

#[test]
fn a_leaf_keeps_little_more_memory_than_its_members_need() {
    let mut members = filled(0..60);
    let mut scratch = Vec::new();
    for i in 0..60 {
        let Members::One(leaf) = &members else {
            panic!("a small group");
        };
        let view = leaf.view();
        let spare = view.bytes.len() - view.end;
        assert!(spare < 64 + 64 || view.is_empty(), "{spare}");
        let spot = members.find(format!("worker-{i:09}.eu-west").as_bytes());
        members.remove(&spot, &mut scratch);
    }
}

#[test]
fn leaves_left_nearly_empty_are_joined() {
    let mut members = filled(0..10_000);
    let before = members.leaves();
    let gone: Vec<Vec<u8>> = members.iter().map(|e| e.name.to_vec()).collect();
    let mut scratch = Vec::new();
    for name in gone
        .iter()
        .enumerate()
        .filter(|(i, _)| i % 20 != 0)
        .map(|(_, n)| n)
    {
        let spot = members.find(name);
        members.remove(&spot, &mut scratch);
    }
    members.check();
    assert!(
        members.leaves() < before / 5,
        "{} of {before}",
        members.leaves()
    );
}

#[test]
fn the_leaves_that_a_builder_makes_hold_what_it_was_given() {
    let members = filled(0..1_000);
    let mut builder = Builder::default();
    for e in members.iter() {
        builder.push(&e.name.to_vec(), e.session(7), e.config());
    }
    let built = builder.finish();
    built.check();
    let names = |m: &Members| m.iter().map(|e| e.name.to_vec()).collect::<Vec<_>>();
    assert_eq!(names(&built), names(&members));
    builder.push(b"x", Some(session(1)), None);
    assert_eq!(names(&builder.finish()), [b"x"], "and it is as new");
}

#[test]
fn a_leaf_whose_sessions_all_change_owner_is_parted_as_often_as_needed() {
    let (mut members, mut model) = (Members::default(), Model::new());
    let names: Vec<Vec<u8>> = (0..200).map(|i| format!("{i:03}").into_bytes()).collect();
    for name in &names {
        apply(&mut members, &mut model, Op::Join(name.clone(), 1));
    }
    let before = members.leaves();
    let all = |i: usize| names.get(i).map(|n| &n[..]);
    // No two are alike, so there is no model for them.
    let unlike = |i: usize| Session {
        incarnation: Incarnation(u64::MAX - i as u64),
        ..session(u64::MAX)
    };
    let fate = |i, _: Option<Entry<'_>>| Fate::Becomes(unlike(i));
    members.revise(all, fate, &mut Vec::new());
    members.check();
    let found = members.iter().map(|e| e.session(7));
    assert!(found.eq((0..200).map(|i| Some(unlike(i)))));
    assert!(
        members.leaves() > 2 * before,
        "{before}, then {}",
        members.leaves()
    );
}

#[test]
fn the_owner_is_read_without_the_rest() {
    let (mut members, mut scratch) = (Members::default(), Vec::new());
    let whole = [session(0), session(1), session(u64::MAX)];
    for (i, session) in whole.into_iter().enumerate() {
        let name = [i as u8 + 1];
        let (spot, config) = (members.find(&name), ConfigChange::Write(view(b"c")));
        members.put(&spot, &name, Some(session), config, &mut scratch);
    }
    let owners: Vec<_> = members.iter().filter_map(|e| e.owner()).collect();
    assert_eq!(owners, whole.map(|s| (s.owner, s.incarnation)));
    let (spot, config) = (members.find(b"x"), ConfigChange::Write(view(b"c")));
    members.put(&spot, b"x", None, config, &mut scratch);
    assert_eq!(members.iter().last().and_then(|e| e.owner()), None);
}

/// How many bytes the members' leaves take, headers and all.
fn packed_bytes(members: &Members) -> usize {
    match members {
        Members::One(leaf) => leaf.view().end,
        Members::Many(leaves) => leaves.iter().map(|leaf| leaf.view().end).sum(),
    }
}

#[test]
fn what_neighbours_share_is_written_once() {
    // Four digits of the name, two bytes in front, two of counter, and the leaf's share.
    let names: Vec<Vec<u8>> = (0..10_000)
        .map(|i| format!("worker-{i:09}.eu-west").into_bytes())
        .collect();
    let mut scratch = Vec::new();
    let mut members = Members::default();
    for (i, name) in names.iter().enumerate() {
        let session = Session {
            id: SessionId::from_parts((7 << 32) | 3, 1_000 + i as u64),
            ..session(3)
        };
        let spot = members.find(name);
        members.put(&spot, name, Some(session), ConfigChange::Keep, &mut scratch);
    }
    members.check();
    let tail = ".eu-west".len();
    let bytes = packed_bytes(&members);
    assert!(bytes < 10_000 * (2 + 2 + tail + 2 + 2), "{bytes}");
}

#[test]
fn a_session_of_another_kind_is_written_whole_until_its_kind_is_the_majority() {
    let kind = |members: &Members| {
        let like = members.iter().filter(|e| matches!(e.tail, Tail::Like(..)));
        like.map(|e| e.session(7).map(|s| s.owner.0))
            .collect::<Vec<_>>()
    };
    let of = |owner: u32| Session {
        owner: ServerId(owner),
        ..session(3)
    };
    let (mut members, mut scratch) = (Members::default(), Vec::new());
    for name in [b"a", b"b", b"c"] {
        let spot = members.find(name);
        members.put(&spot, name, Some(of(1)), ConfigChange::Keep, &mut scratch);
    }
    let spot = members.find(b"b");
    members.put(&spot, b"b", Some(of(2)), ConfigChange::Keep, &mut scratch);
    members.check();
    assert_eq!(
        kind(&members),
        [Some(1), Some(1)],
        "not the one in the middle"
    );
    let names = [&b"a"[..], b"c"];
    let fate = |_, _: Option<Entry<'_>>| Fate::Becomes(of(2));
    members.revise(|i| names.get(i).copied(), fate, &mut scratch);
    members.check();
    assert_eq!(kind(&members), [Some(2); 3]);
}

#[test]
fn a_leaf_most_of_whose_sessions_change_owner_at_once_takes_them_as_its_model() {
    let of = |owner: u32, counter: u64| Session {
        owner: ServerId(owner),
        ..session(3 + 3 * counter)
    };
    let names: Vec<Vec<u8>> = (0..40).map(|i| format!("w{i:02}").into_bytes()).collect();
    let (mut before, mut scratch) = (Members::default(), Vec::new());
    for (i, name) in names.iter().enumerate() {
        let config = match i % 10 {
            4 => ConfigChange::Write(view(b"c")),
            _ => ConfigChange::Keep,
        };
        let spot = before.find(name);
        before.put(&spot, name, Some(of(1, i as u64)), config, &mut scratch);
    }
    // All of them; all but those in front; and with some that end, in front and elsewhere.
    for (from, each, ends) in [(0, 1, 99), (10, 1, 99), (3, 1, 7), (0, 1, 7), (0, 2, 99)] {
        let named: Vec<usize> = (from..40).step_by(each).collect();
        let mut members = before.clone();
        let is_last = |n: usize| n.is_multiple_of(ends) && ends < 99;
        let fate = |n: usize, _: Option<Entry<'_>>| match is_last(n) {
            true => Fate::Ends,
            false => Fate::Becomes(of(2, named[n] as u64)),
        };
        let name = |n: usize| named.get(n).map(|i| &names[*i][..]);
        members.revise(name, fate, &mut scratch);
        members.check();
        let expected = (0..40).filter_map(|i| {
            let n = named.iter().position(|named| *named == i);
            let configured = i % 10 == 4;
            match n {
                None => Some((i, Some(of(1, i as u64)), configured)),
                Some(n) if is_last(n) && !configured => None,
                Some(n) if is_last(n) => Some((i, None, configured)),
                Some(_) => Some((i, Some(of(2, i as u64)), configured)),
            }
        });
        let expected: Vec<_> = expected
            .map(|(i, session, configured)| (names[i].clone(), session, configured))
            .collect();
        let found: Vec<_> = members
            .iter()
            .map(|e| (e.name.to_vec(), e.session(7), e.has_config()))
            .collect();
        assert_eq!(found, expected, "from {from}, each {each}, {ends}");
        let like = members.iter().find(|e| matches!(e.tail, Tail::Like(..)));
        let most = if each == 1 { 2 } else { 1 };
        assert_eq!(
            like.and_then(|e| e.owner()).map(|(owner, _)| owner.0),
            Some(most)
        );
    }
}

#[test]
fn the_first_of_a_leaf_may_go_and_the_next_has_its_whole_name() {
    let (mut members, mut scratch) = (filled(0..40), Vec::new());
    for i in 0..40 {
        let name = format!("worker-{i:09}.eu-west").into_bytes();
        assert!(members.iter().next().is_some_and(|e| e.name.is(&name)));
        if i % 2 == 0 {
            let spot = members.find(&name);
            members.remove(&spot, &mut scratch);
        } else {
            let fate = |_, _: Option<Entry<'_>>| Fate::Ends;
            members.revise(|n| (n == 0).then_some(&name[..]), fate, &mut scratch);
        }
        members.check();
    }
    assert!(members.iter().next().is_none());
}

#[test]
fn a_leaf_that_nobody_else_reads_is_changed_where_it_is() {
    let address = |members: &Members| match members {
        Members::One(leaf) => leaf.view().bytes.as_ptr(),
        Members::Many(_) => panic!("a small group"),
    };
    let mut members = filled(0..40);
    let (before, mut scratch) = (address(&members), Vec::new());
    let change = |members: &mut Members, scratch: &mut Vec<u8>, counter| {
        let name = b"worker-000000020.eu-west";
        let spot = members.find(name);
        members.put(
            &spot,
            name,
            Some(session(counter)),
            ConfigChange::Keep,
            scratch,
        );
    };
    change(&mut members, &mut scratch, 4);
    assert_eq!(address(&members), before);
    let reader = members.clone();
    change(&mut members, &mut scratch, 7);
    assert_ne!(address(&members), before);
    let at = |members: &Members| {
        let spot = members.find(b"worker-000000020.eu-west");
        members.get(&spot).and_then(|e| e.session(7))
    };
    assert_eq!(
        at(&reader),
        Some(session(4)),
        "the reader's stays as it was"
    );
    assert_eq!(at(&members), Some(session(7)));
}
