//! The bodies of Zab's messages.

use super::Malformed;
use super::field::{Reader, put_flag, put_u32, put_u64, put_zxid};
use crate::types::ServerId;
use crate::zab::{Body, Entry, Message, Notification, Stance, Summary, Tenure, Vote};

/// The kind that stands for this message.
pub(super) fn kind_of(message: &Message) -> u8 {
    let body = match message {
        Message::Vote(_) => return VOTE,
        Message::Link { body, .. } => body,
    };
    match body {
        Body::FollowerInfo { .. } => FOLLOWER_INFO,
        Body::LeaderInfo { .. } => LEADER_INFO,
        Body::AckEpoch { .. } => ACK_EPOCH,
        Body::Diff { .. } => DIFF,
        Body::Trunc { .. } => TRUNC,
        Body::Snap { .. } => SNAP,
        Body::SnapPiece { .. } => SNAP_PIECE,
        Body::Proposal(_) => PROPOSAL,
        Body::NewLeader { .. } => NEW_LEADER,
        Body::AckNewLeader { .. } => ACK_NEW_LEADER,
        Body::UpToDate { .. } => UP_TO_DATE,
        Body::Ack { .. } => ACK,
        Body::Commit { .. } => COMMIT,
        Body::Inform(_) => INFORM,
        Body::Ping { .. } => PING,
        Body::Pong { .. } => PONG,
        Body::Payload(_) => PAYLOAD,
        Body::Close => CLOSE,
    }
}

/// Writes what follows the kind.
pub(super) fn put(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Vote(notification) => put_notification(notification, out),
        Message::Link { tenure, seq, body } => {
            put_u64(tenure.boot, out);
            put_u64(tenure.attempt, out);
            put_u64(*seq, out);
            put_body(body, out);
        }
    }
}

/// Reads what follows the kind.
pub(super) fn read(kind: u8, reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    if kind == VOTE {
        return read_notification(reader).map(Message::Vote);
    }
    // Before the tenure, so that an unknown kind is called that however short the frame is.
    if !(FOLLOWER_INFO..=CLOSE).contains(&kind) {
        return Err(Malformed::Kind { found: kind });
    }
    let tenure = Tenure {
        boot: reader.u64()?,
        attempt: reader.u64()?,
    };
    let seq = reader.u64()?;
    let body = read_body(kind, reader)?;
    Ok(Message::Link { tenure, seq, body })
}

fn put_notification(notification: &Notification, out: &mut Vec<u8>) {
    let Notification {
        stance,
        round,
        vote,
        holds_data,
        ensemble,
    } = notification;
    out.push(match stance {
        Stance::Looking => 1,
        Stance::Following => 2,
        Stance::Leading => 3,
    });
    put_u64(*round, out);
    put_u64(vote.epoch.0, out);
    put_zxid(vote.zxid, out);
    put_u32(vote.leader.0, out);
    put_flag(*holds_data, out);
    put_u64(*ensemble, out);
}

fn read_notification(reader: &mut Reader<'_>) -> Result<Notification, Malformed> {
    let wrong = reader.wrong("stance");
    let stance = match reader.u8()? {
        1 => Stance::Looking,
        2 => Stance::Following,
        3 => Stance::Leading,
        _ => return Err(wrong),
    };
    Ok(Notification {
        stance,
        round: reader.u64()?,
        vote: Vote {
            epoch: reader.epoch()?,
            zxid: reader.zxid()?,
            leader: ServerId(reader.u32()?),
        },
        holds_data: reader.flag()?,
        ensemble: reader.u64()?,
    })
}

fn put_body(body: &Body, out: &mut Vec<u8>) {
    match body {
        Body::FollowerInfo {
            accepted_epoch,
            holds_data,
            ensemble,
        } => {
            put_u64(accepted_epoch.0, out);
            put_flag(*holds_data, out);
            put_u64(*ensemble, out);
        }
        Body::LeaderInfo { epoch, ensemble } => {
            put_u64(epoch.0, out);
            put_u64(*ensemble, out);
        }
        Body::AckEpoch {
            current_epoch,
            promises,
            history,
        } => {
            put_u64(current_epoch.0, out);
            put_flag(*promises, out);
            put_zxid(history.base, out);
            let count = u32::try_from(history.ends.len());
            put_u32(count.expect("fewer than 2^32 elections"), out);
            history.ends.iter().for_each(|end| put_zxid(*end, out));
        }
        Body::Diff { after: zxid }
        | Body::Trunc { to: zxid }
        | Body::Snap { zxid }
        | Body::UpToDate { committed: zxid }
        | Body::Ack { zxid }
        | Body::Commit { upto: zxid } => put_zxid(*zxid, out),
        Body::SnapPiece { bytes, last } => {
            put_flag(*last, out);
            out.extend_from_slice(bytes);
        }
        Body::Proposal(entry) | Body::Inform(entry) => {
            put_zxid(entry.zxid, out);
            out.extend_from_slice(&entry.payload);
        }
        Body::NewLeader { epoch, upto } => {
            put_u64(epoch.0, out);
            put_zxid(*upto, out);
        }
        Body::AckNewLeader { epoch } => put_u64(epoch.0, out),
        Body::Ping { round } => put_u64(*round, out),
        Body::Pong { round, loyal } => {
            put_u64(*round, out);
            put_flag(*loyal, out);
        }
        Body::Payload(bytes) => out.extend_from_slice(bytes),
        Body::Close => {}
    }
}

fn read_body(kind: u8, reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    Ok(match kind {
        FOLLOWER_INFO => Body::FollowerInfo {
            accepted_epoch: reader.epoch()?,
            holds_data: reader.flag()?,
            ensemble: reader.u64()?,
        },
        LEADER_INFO => Body::LeaderInfo {
            epoch: reader.epoch()?,
            ensemble: reader.u64()?,
        },
        ACK_EPOCH => Body::AckEpoch {
            current_epoch: reader.epoch()?,
            promises: reader.flag()?,
            history: read_summary(reader)?,
        },
        DIFF => Body::Diff {
            after: reader.zxid()?,
        },
        TRUNC => Body::Trunc { to: reader.zxid()? },
        SNAP => Body::Snap {
            zxid: reader.zxid()?,
        },
        SNAP_PIECE => Body::SnapPiece {
            last: reader.flag()?,
            bytes: reader.rest(),
        },
        PROPOSAL => Body::Proposal(read_entry(reader)?),
        NEW_LEADER => Body::NewLeader {
            epoch: reader.epoch()?,
            upto: reader.zxid()?,
        },
        ACK_NEW_LEADER => Body::AckNewLeader {
            epoch: reader.epoch()?,
        },
        UP_TO_DATE => Body::UpToDate {
            committed: reader.zxid()?,
        },
        ACK => Body::Ack {
            zxid: reader.zxid()?,
        },
        COMMIT => Body::Commit {
            upto: reader.zxid()?,
        },
        INFORM => Body::Inform(read_entry(reader)?),
        PING => Body::Ping {
            round: reader.u64()?,
        },
        PONG => Body::Pong {
            round: reader.u64()?,
            loyal: reader.flag()?,
        },
        PAYLOAD => Body::Payload(reader.rest()),
        CLOSE => Body::Close,
        found => return Err(Malformed::Kind { found }),
    })
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
    Ok(Entry {
        zxid: reader.zxid()?,
        payload: reader.rest(),
    })
}

fn read_summary(reader: &mut Reader<'_>) -> Result<Summary, Malformed> {
    let base = reader.zxid()?;
    let count = reader.u32()? as usize;
    let ends = reader.list(count, ZXID_BYTES, Reader::zxid)?;
    Ok(Summary { base, ends })
}

const ZXID_BYTES: usize = 16;

const VOTE: u8 = 1;
const FOLLOWER_INFO: u8 = 16;
const LEADER_INFO: u8 = 17;
const ACK_EPOCH: u8 = 18;
const DIFF: u8 = 19;
const TRUNC: u8 = 20;
const SNAP: u8 = 21;
const SNAP_PIECE: u8 = 22;
const PROPOSAL: u8 = 23;
const NEW_LEADER: u8 = 24;
const ACK_NEW_LEADER: u8 = 25;
const UP_TO_DATE: u8 = 26;
const ACK: u8 = 27;
const COMMIT: u8 = 28;
const INFORM: u8 = 29;
const PING: u8 = 30;
const PONG: u8 = 31;
const PAYLOAD: u8 = 32;
const CLOSE: u8 = 33;
