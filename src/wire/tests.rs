//! Frames there and back, and bytes that are none.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::types::{Epoch, ServerId, SessionId, Zxid};
use crate::zab::{Body, Entry, Message, Notification, Stance, Summary, Tenure, Vote};

fn zxid() -> impl Strategy<Value = Zxid> {
    any::<(u64, u64)>().prop_map(|(epoch, counter)| Zxid::new(Epoch(epoch), counter))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn bytes() -> impl Strategy<Value = std::sync::Arc<[u8]>> {
    vec(any::<u8>(), 0..40).prop_map(Into::into)
}

fn entry() -> impl Strategy<Value = Entry> {
    (zxid(), bytes()).prop_map(|(zxid, payload)| Entry { zxid, payload })
}

fn notification() -> impl Strategy<Value = Notification> {
    let stances = [Stance::Looking, Stance::Following, Stance::Leading];
    let stance = proptest::sample::select(stances.to_vec());
    let rest = any::<(u64, u32, bool, u64)>();
    (stance, epoch(), zxid(), rest).prop_map(|(stance, epoch, zxid, rest)| {
        let (round, leader, holds_data, ensemble) = rest;
        Notification {
            stance,
            round,
            vote: Vote {
                epoch,
                zxid,
                leader: ServerId(leader),
            },
            holds_data,
            ensemble,
        }
    })
}

fn body() -> impl Strategy<Value = Body> {
    let ack_epoch = (epoch(), any::<bool>(), zxid(), vec(zxid(), 0..5));
    let early = prop_oneof![
        (epoch(), any::<(bool, u64)>()).prop_map(|(accepted_epoch, (holds_data, ensemble))| {
            Body::FollowerInfo {
                accepted_epoch,
                holds_data,
                ensemble,
            }
        }),
        (epoch(), any::<u64>()).prop_map(|(epoch, ensemble)| Body::LeaderInfo { epoch, ensemble }),
        ack_epoch.prop_map(|(current_epoch, promises, base, ends)| Body::AckEpoch {
            current_epoch,
            promises,
            history: Summary { base, ends },
        }),
        zxid().prop_map(|after| Body::Diff { after }),
        zxid().prop_map(|to| Body::Trunc { to }),
        zxid().prop_map(|zxid| Body::Snap { zxid }),
        (bytes(), any::<bool>()).prop_map(|(bytes, last)| Body::SnapPiece { bytes, last }),
        entry().prop_map(Body::Proposal),
        (epoch(), zxid()).prop_map(|(epoch, upto)| Body::NewLeader { epoch, upto }),
    ];
    let late = prop_oneof![
        epoch().prop_map(|epoch| Body::AckNewLeader { epoch }),
        zxid().prop_map(|committed| Body::UpToDate { committed }),
        zxid().prop_map(|zxid| Body::Ack { zxid }),
        zxid().prop_map(|upto| Body::Commit { upto }),
        entry().prop_map(Body::Inform),
        any::<u64>().prop_map(|round| Body::Ping { round }),
        any::<(u64, bool)>().prop_map(|(round, loyal)| Body::Pong { round, loyal }),
        bytes().prop_map(Body::Payload),
        Just(Body::Close),
    ];
    prop_oneof![early, late]
}

fn beat() -> impl Strategy<Value = Beat> {
    let name = || vec(any::<u8>(), 0..9).prop_map(Vec::into_boxed_slice);
    let session = || any::<Option<u128>>().prop_map(|id| id.map(SessionId));
    let named = (name(), name(), session()).prop_map(|(group, member, session)| Missing::Named {
        group,
        member,
        session,
    });
    let who = prop_oneof![
        named,
        any::<u128>().prop_map(|id| Missing::Id(SessionId(id)))
    ];
    let beat = (who, any::<Option<u64>>());
    beat.prop_map(|(who, floor)| Beat {
        who,
        floor: floor.map(GroupVersion),
    })
}

fn beaten() -> impl Strategy<Value = Beaten> {
    let touched = any::<(u128, u64, u64, bool)>();
    prop_oneof![
        touched.prop_map(|(id, timeout, version, settled)| Beaten::Touched {
            id: SessionId(id),
            timeout: Millis(timeout),
            version: GroupVersion(version),
            settled,
        }),
        any::<u64>().prop_map(|version| Beaten::Conflict {
            version: GroupVersion(version)
        }),
        Just(Beaten::Wait),
        Just(Beaten::NotHeld),
        Just(Beaten::Lapsed),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let link = (any::<(u64, u64, u64)>(), body()).prop_map(|((boot, attempt, seq), body)| {
        Frame::Zab(Message::Link {
            tenure: Tenure { boot, attempt },
            seq,
            body,
        })
    });
    let beats = (any::<u64>(), vec(beat(), 0..6));
    let beaten = (any::<u64>(), vec(beaten(), 0..6));
    prop_oneof![
        1 => notification().prop_map(|vote| Frame::Zab(Message::Vote(vote))),
        6 => link,
        2 => beats.prop_map(|(token, beats)| {
            Frame::Forward(forward::Message::Beats { token, beats })
        }),
        2 => beaten.prop_map(|(token, verdicts)| {
            Frame::Forward(forward::Message::Beaten { token, verdicts })
        }),
    ]
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// A frame of this kind and body whose CRC is right.
fn forged(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin(kind, &mut bytes);
    bytes.extend_from_slice(body);
    end(start, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn frames_in_a_row_are_read_as_they_were_written(frames in vec(frame(), 1..8)) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let mut at = 0;
        for frame in &frames {
            let (read, taken) = decode(&bytes[at..]).unwrap().unwrap();
            prop_assert_eq!(&read, frame);
            at += taken;
        }
        prop_assert_eq!(at, bytes.len());
        prop_assert_eq!(decode(&bytes[at..]), Ok(None));
    }

    #[test]
    fn a_frame_is_waited_for_until_its_last_byte(frame in frame()) {
        let bytes = encoded(&frame);
        for length in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..length]), Ok(None));
        }
    }

    #[test]
    fn no_flipped_bit_goes_unseen(frame in frame()) {
        let good = encoded(&frame);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(decode(&bytes), Ok(Some(_))), "bit {}", bit);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_waited_for(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(!matches!(decode(&bytes), Ok(Some(_))));
    }

    #[test]
    fn any_body_with_a_right_crc_is_refused_or_the_only_spelling(
        kind in prop_oneof![Just(1_u8), 14..36_u8, 63..67_u8],
        body in vec(prop_oneof![0..4_u8, any::<u8>()], 0..120),
    ) {
        let bytes = forged(kind, &body);
        if let Ok(read) = decode(&bytes) {
            let (frame, taken) = read.unwrap();
            prop_assert_eq!(taken, bytes.len());
            prop_assert_eq!(encoded(&frame), bytes);
        }
    }

    #[test]
    fn a_body_cut_short_or_drawn_out_is_refused(frame in frame(), more in vec(any::<u8>(), 1..4)) {
        let good = encoded(&frame);
        let (kind, body) = (good[HEADER_BYTES], &good[HEADER_BYTES + 1..]);
        let open = matches!(kind, 22 | 23 | 29 | 32);
        for length in 0..body.len() {
            let read = decode(&forged(kind, &body[..length]));
            // Those that end in bytes of any number may lose some.
            prop_assert!(open || matches!(read, Err(Malformed::EndsEarly { .. })), "{:?}", read);
        }
        let long = decode(&forged(kind, &[body, &more].concat()));
        prop_assert!(open || matches!(long, Err(Malformed::EndsLate { .. })), "{:?}", long);
    }
}

#[test]
fn the_layout_is_the_one_drawn_above() {
    let commit = Frame::Zab(Message::Link {
        tenure: Tenure {
            boot: 2,
            attempt: 3,
        },
        seq: 4,
        body: Body::Commit {
            upto: Zxid::new(Epoch(5), 6),
        },
    });
    let bytes = encoded(&commit);
    let expected = [&[0, 0, 0, 41][..], &bytes[4..8], &[28]].concat();
    assert_eq!(bytes[..9], expected);
    for (index, value) in [2, 3, 4, 5, 6].into_iter().enumerate() {
        assert_eq!(bytes[9 + 8 * index..][..8], u64::to_be_bytes(value));
    }
    let crc = crc32fast::hash(&[&bytes[..4], &bytes[8..]].concat());
    assert_eq!(bytes[4..8], crc.to_be_bytes());
}

#[test]
fn a_length_that_no_frame_has_is_refused_before_it_is_waited_for() {
    for length in [0, FRAME_BYTES_MAX - HEADER_BYTES + 1, u32::MAX as usize] {
        let bytes = (length as u32).to_be_bytes();
        assert_eq!(decode(&bytes), Err(Malformed::Length { length }));
    }
    let longest = (FRAME_BYTES_MAX - HEADER_BYTES) as u32;
    assert_eq!(decode(&longest.to_be_bytes()), Ok(None));
}

#[test]
fn a_large_frame_is_read_whole() {
    let frame = Frame::Zab(Message::Link {
        tenure: Tenure::default(),
        seq: 0,
        body: Body::Payload(vec![7; 4 << 20].into()),
    });
    let bytes = encoded(&frame);
    assert_eq!(decode(&bytes), Ok(Some((frame, bytes.len()))));
}

#[test]
fn a_count_that_cannot_be_true_reserves_no_room() {
    // Of ends, 2^32 - 1 of which would take 64 GiB.
    let mut body = vec![0; 24 + 8 + 1 + 16];
    body.extend_from_slice(&u32::MAX.to_be_bytes());
    let read = decode(&forged(18, &body));
    assert!(matches!(read, Err(Malformed::EndsEarly { .. })), "{read:?}");
    let mut reader = Reader::new(&[0; 40], 0);
    let list = reader.list(2, 16, Reader::zxid).unwrap();
    assert!(list.capacity() <= 2);
    // More beats than a message may hold, although they are there.
    let mut body = vec![0; 8];
    body.extend_from_slice(&(BEATS_MAX as u32 + 1).to_be_bytes());
    body.extend_from_slice(&vec![WAIT; BEATS_MAX + 1]);
    let field = "number of beats";
    let wrong = Malformed::Field { field, offset: 17 };
    assert_eq!(decode(&forged(65, &body)), Err(wrong));
}

#[test]
fn values_that_are_never_written_are_refused_by_name() {
    let field = |read: Result<Option<(Frame, usize)>, Malformed>| match read {
        Err(Malformed::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(decode(&forged(1, &[4; 50]))), "stance");
    let mut pong = vec![0; 32];
    pong.push(2);
    assert_eq!(field(decode(&forged(31, &pong))), "flag");
    let mut one = vec![0; 8];
    one.extend_from_slice(&1_u32.to_be_bytes());
    for shape in [0, FLOOR, 8] {
        let body = [&one[..], &[shape; 30]].concat();
        assert_eq!(field(decode(&forged(64, &body))), "shape of a beat");
    }
    for verdict in [0, LAPSED + 1] {
        let body = [&one[..], &[verdict; 30]].concat();
        assert_eq!(field(decode(&forged(65, &body))), "verdict on a beat");
    }
    for found in [0, 2, 15, 34, 63, 66, 255] {
        assert_eq!(decode(&forged(found, &[])), Err(Malformed::Kind { found }));
    }
}

#[test]
#[should_panic(expected = "beats in one message")]
fn more_beats_than_a_message_may_hold_are_a_bug() {
    let verdicts = vec![Beaten::Wait; BEATS_MAX + 1];
    encode_forward(
        &forward::Message::Beaten { token: 1, verdicts },
        &mut Vec::new(),
    );
}
