//! Tests of `snapshot.rs`.

use super::*;
use crate::group::{Applied, Decision, Join, Outcome, Request, Require};
use crate::types::Epoch;

const SETTINGS: Settings = Settings {
    default_timeout: Millis(10_000),
    seeds: [0; 4],
};

fn founded() -> State {
    let mut state = State::new(SETTINGS);
    commit(&mut state, &Request::Genesis { birth_s: 9 });
    adopt(&mut state, 1, 1);
    state
}

fn commit(state: &mut State, request: &Request) -> Outcome {
    let mut txn = Vec::new();
    if let Decision::Answer(outcome) = state.preprocess(request, &mut txn) {
        return outcome;
    }
    let zxid = match state.applied().epoch {
        Epoch(0) => Zxid::new(Epoch(1), 1),
        _ => state.applied().next(),
    };
    let mut out = Applied::default();
    state.apply(zxid, &txn, &mut out).unwrap();
    out.outcome
}

fn adopt(state: &mut State, server: u32, incarnation: u64) {
    adopt_some(state, server, incarnation, 1_000);
}

fn adopt_some(state: &mut State, server: u32, incarnation: u64, limit: u32) {
    let request = Request::Adopt {
        server: ServerId(server),
        incarnation: Incarnation(incarnation),
        after: None,
        limit,
    };
    commit(state, &request);
}

fn join(state: &mut State, group: &str, member: &str, config: Option<&str>) -> Outcome {
    let request = Request::Join(Join {
        group: group.as_bytes().into(),
        member: member.as_bytes().into(),
        timeout: None,
        config: config.map(|c| c.as_bytes().into()),
        takeover: false,
        only_if_absent: false,
        owner: ServerId(1),
        incarnation: Incarnation(1),
    });
    commit(state, &request)
}

fn leave(state: &mut State, group: &str, member: &str) -> Outcome {
    let request = Request::Leave {
        group: group.as_bytes().into(),
        member: member.as_bytes().into(),
        session: None,
    };
    commit(state, &request)
}

fn delete_group(state: &mut State, group: &str) -> Outcome {
    let group = group.as_bytes().into();
    commit(state, &Request::DeleteGroup { group })
}

fn configure(state: &mut State, group: &str, member: Option<&str>, config: &str) -> Outcome {
    let request = Request::SetConfig {
        group: group.as_bytes().into(),
        member: member.map(|m| m.as_bytes().into()),
        bytes: config.as_bytes().into(),
        require: Require::Nothing,
    };
    commit(state, &request)
}

/// A state with one of everything: a snapshot of a few hundred bytes.
fn varied() -> State {
    let mut state = founded();
    join(&mut state, "g", "a", None);
    join(&mut state, "g", "b", Some("{}"));
    // Two servers, of which one has adopted "a" in its second run and not yet "b".
    adopt(&mut state, 7, 300);
    adopt_some(&mut state, 1, 2, 1);
    configure(&mut state, "g", Some("c"), &"long".repeat(60));
    configure(&mut state, "g", None, "text");
    configure(&mut state, "h", None, "[1]");
    configure(&mut state, "gone", None, "x");
    delete_group(&mut state, "gone");
    state
}

fn bytes_of(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut snapshot = state.snapshot();
    while snapshot.write_into(&mut bytes, 100) {}
    bytes
}

fn restored(bytes: &[u8]) -> Result<State, Corrupt> {
    let mut restore = Restore::new(SETTINGS);
    restore.feed(bytes)?;
    restore.finish()
}

#[test]
fn a_restored_state_writes_the_same_bytes_however_the_pieces_are_cut() {
    let state = varied();
    let bytes = bytes_of(&state);
    for piece in [1, 2, 3, 7, 64, bytes.len()] {
        let mut restore = Restore::new(SETTINGS);
        for part in bytes.chunks(piece) {
            restore.feed(part).unwrap();
        }
        let restored = restore.finish().unwrap();
        assert_eq!(bytes_of(&restored), bytes);
        assert_eq!(restored.digest(), state.digest());
        assert_eq!(restored.applied(), state.applied());
        assert!(restored.owners().eq(state.owners()));
        assert_eq!(state.owners().count(), 2, "both runs of one server");
        let run_of = |state: &State, server| state.incarnation_of(ServerId(server));
        assert_eq!(run_of(&restored, 1), Some(Incarnation(2)));
        assert_eq!(run_of(&restored, 7), Some(Incarnation(300)));
    }
    let mut whole = Vec::new();
    assert!(!state.snapshot().write_into(&mut whole, usize::MAX));
    assert_eq!(whole, bytes);
}

#[test]
fn the_bytes_do_not_depend_on_how_members_came_to_lie_in_leaves() {
    let names: Vec<String> = (0..500).map(|i| format!("member-{i:04}")).collect();
    let mut ascending = founded();
    names
        .iter()
        .for_each(|n| drop(join(&mut ascending, "g", n, None)));
    // The same joins, with a crowd between them that comes and goes, then renumbered by a
    // restore: leaves were parted and joined on the way.
    let mut crowded = founded();
    for name in &names {
        join(&mut crowded, "g", name, None);
        join(&mut crowded, "g", &format!("{name}-too"), None);
    }
    for name in &names {
        leave(&mut crowded, "g", &format!("{name}-too"));
    }
    let lean = restored(&bytes_of(&crowded)).unwrap();
    assert_eq!(bytes_of(&lean), bytes_of(&crowded));
    let members = |state: &State| {
        let mut names = Vec::new();
        state.for_each_active(|a| names.push(a.member.to_vec()));
        names
    };
    assert_eq!(members(&lean), members(&ascending));
}

#[test]
fn a_snapshot_shows_its_moment_while_the_state_goes_on() {
    let mut state = founded();
    for i in 0..1_000 {
        join(&mut state, &format!("g{}", i % 3), &format!("m{i}"), None);
    }
    let before = bytes_of(&state);
    let mut snapshot = state.snapshot();
    let mut bytes = Vec::new();
    let mut i = 0;
    while snapshot.write_into(&mut bytes, 50) {
        join(&mut state, &format!("g{}", i % 4), &format!("n{i}"), None);
        leave(&mut state, &format!("g{}", i % 3), &format!("m{i}"));
        i += 1;
    }
    assert_eq!(bytes, before);
    assert_ne!(bytes_of(&state), before);
}

#[test]
fn no_truncation_is_a_snapshot() {
    let bytes = bytes_of(&varied());
    for len in 0..bytes.len() {
        assert!(restored(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
    }
    let longer = [&bytes[..], b"E"].concat();
    assert_eq!(restored(&longer).err().unwrap().what, "bytes after the end");
}

#[test]
fn no_flipped_byte_goes_unnoticed() {
    let mut bytes = bytes_of(&varied());
    for at in 0..bytes.len() {
        for flip in 1..=255 {
            bytes[at] ^= flip;
            assert!(restored(&bytes).is_err(), "byte {at} ^ {flip:#x}");
            bytes[at] ^= flip;
        }
    }
}

/// Flips every byte and mends the digest: what is still accepted must be a state that
/// writes exactly those bytes, and must bear being used.
#[test]
fn what_a_flipped_byte_makes_of_a_snapshot_is_refused_or_a_state_of_its_own() {
    let mut bytes = bytes_of(&varied());
    let end = bytes.len() - 9;
    for at in 0..end {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            bytes[at] ^= flip;
            let mut digest = Digest::default();
            digest.update(&bytes[..end]);
            bytes[end + 1..].copy_from_slice(&digest.value().to_be_bytes());
            if let Ok(state) = restored(&bytes) {
                assert_eq!(bytes_of(&state), bytes, "byte {at} ^ {flip:#x}");
                state.groups.iter().for_each(|g| g.members.check());
            }
            bytes[at] ^= flip;
        }
    }
}

#[test]
fn an_error_tells_the_place_in_the_whole_stream() {
    let state = varied();
    let bytes = bytes_of(&state);
    let mut restore = Restore::new(SETTINGS);
    restore.feed(&bytes[..100]).unwrap();
    let error = restore.feed(&[0xff; 600]).unwrap_err();
    assert!((90..700).contains(&error.offset), "{error}");
    assert!(
        restored(b"systoleX-and-more")
            .err()
            .unwrap()
            .to_string()
            .contains("not a snapshot")
    );
}

#[test]
fn the_digest_does_not_depend_on_the_cuts_and_tells_lengths_apart() {
    let bytes: Vec<u8> = (0..=255).collect();
    let of = |pieces: &[&[u8]]| {
        let mut digest = Digest::default();
        pieces.iter().for_each(|p| digest.update(p));
        digest.value()
    };
    let whole = of(&[&bytes]);
    for cut in 0..bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(of(&[a, b]), whole);
        let (b, c) = b.split_at(b.len() / 3);
        assert_eq!(of(&[a, b, c]), whole);
    }
    assert_ne!(of(&[&[0]]), of(&[&[0, 0]]));
    assert_ne!(of(&[]), of(&[&[0; 8]]));
}

#[test]
fn the_groups_removed_first_are_forgotten_first_also_after_a_restore() {
    let mut state = founded();
    state.limits.tombstones = 3;
    let make = |state: &mut State, name: &str| {
        let Outcome::ConfigSet { version, .. } = configure(state, name, None, "c") else {
            panic!("a config can always be set");
        };
        version.0
    };
    // The order of removal is not the order of names.
    for name in ["d", "b", "c"] {
        assert_eq!(make(&mut state, name), 0);
        delete_group(&mut state, name);
    }
    // "d" is made again and removed again: now it is the last removed.
    assert_eq!(make(&mut state, "d"), 1);
    delete_group(&mut state, "d");
    let mut state = restored(&bytes_of(&state)).unwrap();
    state.limits.tombstones = 3;
    make(&mut state, "a");
    delete_group(&mut state, "a");
    assert_eq!(make(&mut state, "b"), 0, "forgotten");
    assert_eq!(make(&mut state, "c"), 1);
    assert_eq!(make(&mut state, "d"), 2);
    assert_eq!(make(&mut state, "a"), 1);
    assert!(state.tombstone_ages.is_empty());
    assert_eq!(state.tombstones.len(), 0);
}

/// Bytes of a snapshot that no state could have written, made by hand.
#[test]
fn states_that_cannot_be_are_refused() {
    let member = |flags: u8, rest: &[u8]| {
        let mut bytes = vec![1, 1 + rest.len() as u8, b'm', flags];
        bytes.extend_from_slice(rest);
        bytes
    };
    // epoch 1, counter 1, timeout 1, owner 1, incarnation 1
    let session: &[u8] = &[1, 1, 1, 1, 1];
    let with = |more: &[u8]| [session, more].concat();
    let long = |flags, rest: &[u8], len: usize| {
        let mut bytes = member(flags, rest);
        put_varint(&mut bytes, len as u64);
        bytes.extend(std::iter::repeat_n(b'x', len));
        bytes
    };
    let cases: Vec<(&str, bool, Vec<u8>)> = vec![
        ("an active member", true, member(ACTIVE, session)),
        ("a configured one", true, member(CONFIG, &[1, b'c'])),
        ("both", true, member(ACTIVE | CONFIG, &with(&[1, b'c']))),
        ("a long config", true, long(CONFIG | OUTSIDE, &[1], 181)),
        ("neither", false, member(0, &[])),
        ("an unknown flag", false, member(ACTIVE | 32, session)),
        (
            "a term and no session",
            false,
            member(CONFIG | TERM, &[1, b'c']),
        ),
        (
            "term 1, written",
            false,
            member(ACTIVE | TERM, &[1, 1, 1, 1, 1, 1]),
        ),
        ("term 0", false, member(ACTIVE | TERM, &[1, 1, 1, 0, 1, 1])),
        ("timeout 0", false, member(ACTIVE, &[1, 1, 0, 1, 1])),
        (
            "a session yet to come",
            false,
            member(ACTIVE, &[1, 99, 1, 1, 1]),
        ),
        (
            "an epoch yet to come",
            false,
            member(ACTIVE, &[2, 1, 1, 1, 1]),
        ),
        ("a run yet to come", false, member(ACTIVE, &[1, 1, 1, 1, 2])),
        (
            "a run before the recorded",
            true,
            member(ACTIVE, &[1, 1, 1, 1, 0]),
        ),
        (
            "a server that never had a run",
            false,
            member(ACTIVE, &[1, 1, 1, 2, 1]),
        ),
        ("JSON and no config", false, member(ACTIVE | JSON, session)),
        ("bytes and no config", false, member(ACTIVE, &with(b"x"))),
        ("a config version of 0", false, member(CONFIG, &[0, b'c'])),
        ("a config yet to come", false, member(CONFIG, &[99, b'c'])),
        (
            "a config that is not UTF-8",
            false,
            member(CONFIG, &[1, 0xff]),
        ),
        (
            "both inside and outside",
            false,
            long(CONFIG | OUTSIDE, &[1, b'c'], 181),
        ),
        (
            "a short one outside",
            false,
            long(CONFIG | OUTSIDE, &[1], 180),
        ),
        (
            "a long one inside",
            false,
            member(CONFIG, &[&[1][..], &[b'x'; 181]].concat()),
        ),
        ("no tail", false, vec![1, 0, b'm']),
        ("no name", false, [&[0, 6, ACTIVE], session].concat()),
        (
            "a name that is not UTF-8",
            false,
            [&[1, 6, 0xff, ACTIVE], session].concat(),
        ),
    ];
    for (what, valid, member) in cases {
        let mut bytes = Vec::new();
        let mut state = founded();
        join(&mut state, "x", "x", Some("x"));
        leave(&mut state, "x", "x");
        state.snapshot().write_header(&mut bytes);
        bytes.extend_from_slice(&[b'R', 1, 1]);
        bytes.extend_from_slice(&[b'G', 1, b'g', 0, 0, 1]);
        bytes.extend_from_slice(&member);
        let mut digest = Digest::default();
        digest.update(&bytes);
        bytes.push(b'E');
        bytes.extend_from_slice(&digest.value().to_be_bytes());
        assert_eq!(restored(&bytes).is_ok(), valid, "{what}");
    }
}

#[test]
fn runs_come_first_in_order_and_no_more_of_them_than_there_may_be() {
    let with = |records: &[u8]| {
        let mut bytes = Vec::new();
        State::new(SETTINGS).snapshot().write_header(&mut bytes);
        bytes.extend_from_slice(records);
        let mut digest = Digest::default();
        digest.update(&bytes);
        bytes.push(b'E');
        bytes.extend_from_slice(&digest.value().to_be_bytes());
        restored(&bytes).map(|state| state.runs.recorded_all().count())
    };
    let group: &[u8] = &[b'G', 1, b'g', 0, 0, 0];
    let (one, two): (&[u8], &[u8]) = (&[b'R', 1, 9], &[b'R', 2, 1]);
    assert_eq!(with(&[one, two, group].concat()), Ok(2));
    for records in [[two, one, group], [one, one, group], [one, group, two]] {
        assert!(with(&records.concat()).is_err(), "{records:?}");
    }
    let mut most = Vec::new();
    for server in 0..crate::group::SERVERS_MAX as u64 {
        most.push(b'R');
        put_varint(&mut most, server);
        most.push(1);
    }
    assert!(with(&most).is_ok());
    most.push(b'R');
    put_varint(&mut most, 1 << 20);
    most.push(1);
    assert!(with(&most).is_err(), "one server too many");
}
