//! Tests of `txn.rs`.

use proptest::prelude::*;

use super::*;
use crate::group::{Join, describe};

fn name() -> impl Strategy<Value = Box<[u8]>> {
    "[a-zé\"/ ]{1,40}".prop_map(|name| name.into_bytes().into())
}

fn require() -> impl Strategy<Value = Require> {
    prop_oneof![
        Just(Require::Nothing),
        Just(Require::Exists),
        Just(Require::Absent),
        prop::collection::vec(any::<u64>(), 0..REQUIRE_VERSIONS_MAX).prop_map(Require::OneOf),
    ]
}

fn bytes() -> impl Strategy<Value = Box<[u8]>> {
    "[a-z{}\"]{0,300}".prop_map(|text| text.into_bytes().into())
}

fn join() -> impl Strategy<Value = Request> {
    let timeout = prop::option::of(1..=TIMEOUT_MAX.0);
    let flags = any::<(bool, bool, u32, u64)>();
    (name(), name(), timeout, prop::option::of(bytes()), flags).prop_map(
        |(group, member, timeout, config, (takeover, only_if_absent, owner, incarnation))| {
            Request::Join(Join {
                group: group[..].into(),
                member: member[..].into(),
                timeout: timeout.map(Millis),
                config,
                takeover,
                only_if_absent,
                owner: ServerId(owner),
                incarnation: Incarnation(incarnation),
            })
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let member = || prop::option::of(name());
    let lapse = ("[ab]", "[a-d]{1,3}", any::<u128>(), any::<u32>());
    let lapse = lapse.prop_map(|(group, member, id, term)| Lapse {
        group: group.into_bytes().into(),
        member: member.into_bytes().into(),
        id: SessionId(id),
        term: Term(term),
    });
    let place = || prop::option::of((name(), prop_oneof![Just(Box::default()), name()]));
    let run = || {
        (
            any::<u32>().prop_map(ServerId),
            any::<u64>().prop_map(Incarnation),
        )
    };
    prop_oneof![
        join(),
        (run(), prop::collection::vec(lapse.clone(), 0..40)).prop_map(
            |((owner, incarnation), lapses)| Request::Move {
                owner,
                incarnation,
                lapses,
            }
        ),
        (run(), place(), any::<u32>()).prop_map(|((server, incarnation), after, limit)| {
            Request::Adopt {
                server,
                incarnation,
                after,
                limit,
            }
        }),
        (name(), name(), prop::option::of(any::<u128>())).prop_map(|(group, member, id)| {
            Request::Leave {
                group,
                member,
                session: id.map(SessionId),
            }
        }),
        (name(), member(), bytes(), require()).prop_map(|(group, member, bytes, require)| {
            Request::SetConfig {
                group,
                member,
                bytes,
                require,
            }
        }),
        (name(), member(), require()).prop_map(|(group, member, require)| {
            Request::DeleteConfig {
                group,
                member,
                require,
            }
        }),
        name().prop_map(|group| Request::DeleteGroup { group }),
        prop::collection::vec(lapse, 0..40).prop_map(Request::Expire),
        any::<u32>().prop_map(|birth_s| Request::Genesis { birth_s }),
    ]
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    Txn::of(request, Millis(10_000)).unwrap().encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_transaction_reads_back_and_no_truncation_of_it_does(request in request()) {
        let bytes = encoded(&request);
        prop_assert_eq!(Txn::decode(&bytes).unwrap(), Txn::of(&request, Millis(10_000)).unwrap());
        for len in 0..bytes.len() {
            prop_assert!(Txn::decode(&bytes[..len]).is_err(), "{} of {}", len, bytes.len());
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(Txn::decode(&longer).is_err());
    }

    #[test]
    fn what_a_flipped_byte_makes_is_refused_or_has_no_other_encoding(
        request in request(),
        flip in 1..=255u8,
    ) {
        let mut bytes = encoded(&request);
        for at in 0..bytes.len() {
            bytes[at] ^= flip;
            if let Ok(txn) = Txn::decode(&bytes) {
                let mut again = Vec::new();
                txn.encode(&mut again);
                prop_assert_eq!(&again, &bytes);
            }
            let line = describe(&bytes);
            prop_assert!(line.chars().all(|c| !c.is_control()), "{}", line);
            bytes[at] ^= flip;
        }
    }

    #[test]
    fn arbitrary_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..11u8) {
        let _ = Txn::decode(&bytes);
        let _ = Txn::decode(&[&[FORMAT, kind], &bytes[..]].concat());
    }
}

#[test]
fn counts_that_lie_take_no_memory() {
    // Expire: 2^63 groups of 2^63 members, and nothing else.
    let mut bytes = vec![FORMAT, EXPIRE];
    put_varint(&mut bytes, 1 << 63);
    put_name(&mut bytes, b"g");
    put_varint(&mut bytes, 1 << 63);
    assert!(Txn::decode(&bytes).is_err());
}

#[test]
fn an_expiry_out_of_order_is_refused() {
    let lapse = |member: &'static [u8]| LapseTxn {
        group: b"g",
        member,
        id: SessionId(1),
        term: Term(1),
    };
    for (second, valid) in [(&b"c"[..], true), (b"b", false), (b"a", false)] {
        let mut bytes = Vec::new();
        Txn::Expire(vec![lapse(b"b"), lapse(second)]).encode(&mut bytes);
        assert_eq!(Txn::decode(&bytes).is_ok(), valid, "b, then {second:?}");
    }
    let mut empty_group = vec![FORMAT, EXPIRE, 1];
    put_name(&mut empty_group, b"g");
    empty_group.push(0);
    assert!(Txn::decode(&empty_group).is_err());
    let mut groups = vec![FORMAT, EXPIRE, 2];
    for _ in 0..2 {
        put_name(&mut groups, b"g");
        groups.push(1);
        put_name(&mut groups, b"m");
        groups.extend_from_slice(&[0, 1, 1]);
    }
    assert!(Txn::decode(&groups).is_err(), "the same group twice");
}

#[test]
fn an_adoption_looks_at_one_member_at_least_and_at_no_more_than_the_limit() {
    let adopt = |limit| Request::Adopt {
        server: ServerId(1),
        incarnation: Incarnation(1),
        after: None,
        limit,
    };
    for (limit, taken) in [(0, 1), (1, 1), (u32::MAX, ADOPT_MEMBERS_MAX)] {
        let request = adopt(limit);
        let Ok(Txn::Adopt(txn)) = Txn::of(&request, Millis(1)) else {
            panic!("an adoption is always well formed");
        };
        assert_eq!(txn.limit, taken);
    }
    for (limit, valid) in [
        (0, false),
        (1, true),
        (ADOPT_MEMBERS_MAX, true),
        (ADOPT_MEMBERS_MAX + 1, false),
    ] {
        let mut bytes = vec![FORMAT, ADOPT, 0, 1, 1];
        put_varint(&mut bytes, u64::from(limit));
        assert_eq!(Txn::decode(&bytes).is_ok(), valid, "{limit}");
    }
    let odd = |group: &[u8], member: &[u8]| Request::Adopt {
        server: ServerId(1),
        incarnation: Incarnation(1),
        after: Some((group.into(), member.into())),
        limit: 1,
    };
    let refusal = |request: Request| Txn::of(&request, Millis(1)).err();
    assert_eq!(refusal(odd(b"g", b"")), None);
    assert_eq!(refusal(odd(b"", b"m")), Some(Refusal::BadName));
    assert_eq!(refusal(odd(b"g", &[b'm'; 256])), Some(Refusal::BadName));
}

#[test]
fn more_sessions_than_a_transaction_may_name_are_refused() {
    let names: Vec<Vec<u8>> = (0..=EXPIRE_BATCH_MAX)
        .map(|i| format!("m{i:06}").into_bytes())
        .collect();
    let lapses = names.iter().map(|member| LapseTxn {
        group: b"g",
        member,
        id: SessionId(1),
        term: Term(1),
    });
    let mut lapses: Vec<_> = lapses.collect();
    for (len, valid) in [(lapses.len(), false), (EXPIRE_BATCH_MAX, true)] {
        lapses.truncate(len);
        let mut bytes = Vec::new();
        Txn::Expire(lapses.clone()).encode(&mut bytes);
        assert_eq!(Txn::decode(&bytes).is_ok(), valid, "{len}");
    }
}

#[test]
fn what_rests_on_a_condition_or_deletes_is_not_proposed_twice() {
    let g = || -> Box<[u8]> { Box::from(&b"g"[..]) };
    let join = |takeover, only_if_absent| {
        Request::Join(Join {
            group: g()[..].into(),
            member: g()[..].into(),
            timeout: None,
            config: Some(g()),
            takeover,
            only_if_absent,
            owner: ServerId(1),
            incarnation: Incarnation(1),
        })
    };
    let set = |require| Request::SetConfig {
        group: g(),
        member: None,
        bytes: g(),
        require,
    };
    let cases = [
        (join(false, false), false),
        (join(true, false), false),
        (join(false, true), false),
        (set(Require::Nothing), false),
        (set(Require::Exists), false),
        (set(Require::OneOf(vec![1])), false),
        (Request::Genesis { birth_s: 1 }, true),
        (Request::Expire(Vec::new()), true),
        (
            Request::Move {
                owner: ServerId(1),
                incarnation: Incarnation(1),
                lapses: Vec::new(),
            },
            true,
        ),
        (
            Request::Adopt {
                server: ServerId(1),
                incarnation: Incarnation(1),
                after: None,
                limit: 1,
            },
            true,
        ),
        (
            Request::Leave {
                group: g(),
                member: g(),
                session: Some(SessionId(1)),
            },
            false,
        ),
        (Request::DeleteGroup { group: g() }, false),
        (
            Request::DeleteConfig {
                group: g(),
                member: None,
                require: Require::Nothing,
            },
            false,
        ),
    ];
    for (request, repeatable) in cases {
        assert_eq!(is_repeatable(&encoded(&request)), repeatable, "{request:?}");
    }
    assert!(!is_repeatable(b"x"));
}

#[test]
fn a_config_may_be_as_long_as_the_limit_and_no_longer() {
    let set = |bytes: Vec<u8>| Request::SetConfig {
        group: Box::from(&b"g"[..]),
        member: None,
        bytes: bytes.into(),
        require: Require::Nothing,
    };
    let longest = set(vec![b'x'; CONFIG_BYTES_MAX]);
    let bytes = encoded(&longest);
    assert!(Txn::decode(&bytes).is_ok());
    let too_long = set(vec![b'x'; CONFIG_BYTES_MAX + 1]);
    assert_eq!(Txn::of(&too_long, Millis(1)), Err(Refusal::ConfigTooLong));
    let not_utf8 = set(vec![0xff]);
    assert_eq!(Txn::of(&not_utf8, Millis(1)), Err(Refusal::ConfigNotUtf8));
}

#[test]
fn names_conditions_and_timeouts_are_held_to_their_limits() {
    let delete = |name: &[u8]| Request::DeleteGroup { group: name.into() };
    for bad in [&b""[..], &[b'x'; 256], b"\xff"] {
        assert_eq!(Txn::of(&delete(bad), Millis(1)), Err(Refusal::BadName));
    }
    assert!(Txn::of(&delete(&[b'x'; 255]), Millis(1)).is_ok());
    let versions = |n| Request::DeleteConfig {
        group: Box::from(&b"g"[..]),
        member: None,
        require: Require::OneOf(vec![1; n]),
    };
    assert!(Txn::of(&versions(REQUIRE_VERSIONS_MAX), Millis(1)).is_ok());
    let too_many = versions(REQUIRE_VERSIONS_MAX + 1);
    assert_eq!(Txn::of(&too_many, Millis(1)), Err(Refusal::TooManyVersions));
    let join = |timeout| {
        Request::Join(Join {
            group: b"g"[..].into(),
            member: b"m"[..].into(),
            timeout: Some(timeout),
            config: None,
            takeover: false,
            only_if_absent: false,
            owner: ServerId(1),
            incarnation: Incarnation(1),
        })
    };
    for (timeout, valid) in [
        (0, false),
        (1, true),
        (TIMEOUT_MAX.0, true),
        (TIMEOUT_MAX.0 + 1, false),
    ] {
        let request = join(Millis(timeout));
        let txn = Txn::of(&request, Millis(1));
        assert_eq!(txn.is_ok(), valid, "{timeout}");
    }
}

#[test]
fn objects_and_arrays_are_json_and_everything_else_is_text() {
    for json in [
        "{}",
        "[]",
        " {\"a\":1}\n",
        "[{\"a\":[]}]",
        "[\"\\ud800\"]",
        "[\"]\"]",
    ] {
        assert!(is_json_container(json.as_bytes()), "{json}");
    }
    for text in [
        "", " ", "null", "1", "\"{}\"", "{", "{}{}", "{a:1}", "[1,]", "[] x", "{\"a\"}",
    ] {
        assert!(!is_json_container(text.as_bytes()), "{text}");
    }
}

#[test]
fn json_nested_too_deep_for_readers_of_the_document_is_text() {
    let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert!(is_json_container(nested(JSON_DEPTH_MAX).as_bytes()));
    assert!(!is_json_container(nested(JSON_DEPTH_MAX + 1).as_bytes()));
    let in_a_string = format!("[\"\\\"{}\"]", "[".repeat(1_000));
    assert!(is_json_container(in_a_string.as_bytes()));
    let side_by_side = format!("[{}[]]", "[],".repeat(1_000));
    assert!(is_json_container(side_by_side.as_bytes()));
}

#[test]
fn of_several_lapses_for_one_member_the_newest_session_counts() {
    let lapse = |id, term| Lapse {
        group: b"g"[..].into(),
        member: b"m"[..].into(),
        id: SessionId(id),
        term: Term(term),
    };
    let request = Request::Expire(vec![lapse(3, 1), lapse(5, 1), lapse(5, 2), lapse(4, 9)]);
    let Ok(Txn::Expire(lapses)) = Txn::of(&request, Millis(1)) else {
        panic!("an expiry is always well formed");
    };
    assert_eq!(lapses.len(), 1);
    assert_eq!((lapses[0].id, lapses[0].term), (SessionId(5), Term(2)));
}

#[test]
fn a_transaction_is_described_in_one_line() {
    let join = Request::Join(Join {
        group: b"database"[..].into(),
        member: b"db1\n"[..].into(),
        timeout: None,
        config: Some(Box::from(&b"{}"[..])),
        takeover: true,
        only_if_absent: false,
        owner: ServerId(1),
        incarnation: Incarnation(3),
    });
    assert_eq!(
        describe(&encoded(&join)),
        "join database/db1\\n timeout_ms=10000 or kept owner=1/3 takeover config=json:2B"
    );
    let lapses = (0..10).map(|i| Lapse {
        group: b"g"[..].into(),
        member: format!("m{i}").into_bytes().into(),
        id: SessionId(i),
        term: Term(1),
    });
    let line = describe(&encoded(&Request::Expire(lapses.collect())));
    assert!(line.starts_with("expire 10 g/m0=00000000000000000000000000000000@1 g/m1="));
    assert!(line.ends_with(" and 2 more"));
    let movement = Request::Move {
        owner: ServerId(2),
        incarnation: Incarnation(7),
        lapses: vec![Lapse {
            group: b"g"[..].into(),
            member: b"m"[..].into(),
            id: SessionId(1),
            term: Term(3),
        }],
    };
    assert_eq!(
        describe(&encoded(&movement)),
        "move 1 to=2/7 g/m=00000000000000000000000000000001@3"
    );
    let adoption = Request::Adopt {
        server: ServerId(2),
        incarnation: Incarnation(7),
        after: Some((Box::from(&b"g"[..]), Box::from(&b"m"[..]))),
        limit: 16,
    };
    assert_eq!(
        describe(&encoded(&adoption)),
        "adopt by=2/7 after=g/m limit=16"
    );
    assert_eq!(
        describe(&[9]),
        "not a transaction: a transaction of another format at byte 1"
    );
}
