//! How servers write to each other: the frame, and the greeting before the first of them.
//!
//! A connection begins with a greeting each way ([`hello`]). Then the server that dialled
//! sends frames, one after the other; integers are big-endian:
//!
//! ```text
//! offset size field
//! 0      4    length of what follows the CRC: at least 1, at most FRAME_BYTES_MAX - 8
//! 4      4    CRC-32 of the length and of what follows
//! 8      1    kind
//! 9      …    body
//! ```
//!
//! Fields are written one after the other: `u8`, `u32` and `u64` as they are, a flag as a byte
//! of 0 or 1, a zxid as two `u64`, a session as 16 bytes, `bytes` up to the end of the frame,
//! a name as its length in one byte and then itself.
//!
//! ```text
//! kind  message         body
//! 1     Vote            stance u8 (1 looking, 2 following, 3 leading) · round u64 · vote:
//!                       epoch u64, zxid, leader u32 · holds_data flag · ensemble u64
//!       of a link       tenure: boot u64, attempt u64 · seq u64 · and then:
//! 16    FollowerInfo    accepted_epoch u64 · holds_data flag · ensemble u64
//! 17    LeaderInfo      epoch u64 · ensemble u64
//! 18    AckEpoch        current_epoch u64 · promises flag · base zxid · count u32 · ends zxid…
//! 19    Diff            after zxid
//! 20    Trunc           to zxid
//! 21    Snap            zxid
//! 22    SnapPiece       last flag · bytes
//! 23    Proposal        zxid · bytes
//! 24    NewLeader       epoch u64 · upto zxid
//! 25    AckNewLeader    epoch u64
//! 26    UpToDate        committed zxid
//! 27    Ack             zxid
//! 28    Commit          upto zxid
//! 29    Inform          zxid · bytes
//! 30    Ping            round u64
//! 31    Pong            round u64 · loyal flag
//! 32    Payload         bytes
//! 33    Close
//!       of beats        token u64 · count u32 · and then, count times:
//! 64    Beats           shape u8 · [group name · member name] · [session] · [floor u64]
//!                       shape: 1 names, 2 session, 4 floor, in sum; a session alone is a beat
//!                       by id, and neither names nor session is no beat
//! 65    Beaten          1 · session · timeout u64 · version u64 · settled flag: touched
//!                       2 · version u64: conflict
//!                       3: wait
//!                       4: not held
//!                       5: lapsed
//! ```
//!
//! Nothing that is read is trusted: what does not fit this picture to the last byte is a
//! [`Malformed`], and whoever sent it has lost the connection. A CRC tells accidents, not
//! enemies: it keeps a broken cable or memory from becoming a transaction.

mod field;
pub mod hello;
mod link;
#[cfg(test)]
mod tests;

use crate::forward::{self, BEATS_MAX, Beat, Beaten, Missing};
use crate::time::Millis;
use crate::types::GroupVersion;
use crate::zab;

use field::{Reader, put_flag, put_name, put_session, put_u32, put_u64};

/// What one server says to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Of the protocol that orders transactions.
    Zab(zab::Message),
    /// Of beats, beside it.
    Forward(forward::Message),
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// See [`encode_zab`] and [`encode_forward`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Zab(message) => encode_zab(message, out),
            Frame::Forward(message) => encode_forward(message, out),
        }
    }
}

/// Appends the frame of `message` to `out`.
///
/// # Panics
/// If it is longer than [`FRAME_BYTES_MAX`]: the limits of `zab` stay far below.
pub fn encode_zab(message: &zab::Message, out: &mut Vec<u8>) {
    let start = begin(link::kind_of(message), out);
    link::put(message, out);
    end(start, out);
}

/// Appends the frame of `message` to `out`.
///
/// # Panics
/// If it holds more than [`BEATS_MAX`] beats or verdicts, or a name of more than 255 bytes.
pub fn encode_forward(message: &forward::Message, out: &mut Vec<u8>) {
    let (kind, token, count) = match message {
        forward::Message::Beats { token, beats } => (BEATS, *token, beats.len()),
        forward::Message::Beaten { token, verdicts } => (BEATEN, *token, verdicts.len()),
    };
    assert!(count <= BEATS_MAX, "{count} beats in one message");
    let start = begin(kind, out);
    put_u64(token, out);
    put_u32(u32::try_from(count).expect("BEATS_MAX fits"), out);
    match message {
        forward::Message::Beats { beats, .. } => beats.iter().for_each(|beat| put_beat(beat, out)),
        forward::Message::Beaten { verdicts, .. } => {
            verdicts.iter().for_each(|verdict| put_beaten(verdict, out));
        }
    }
    end(start, out);
}

/// Reads the frame that `bytes` begins with, and how many bytes it takes; `None` if more must
/// come first. What is allocated is in proportion to the bytes that are there.
///
/// # Errors
/// If no frame begins like that. Where the next one would begin is then unknown.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, Malformed> {
    let Some(length_bytes) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length_bytes) as usize;
    // Refused before it is waited for.
    if length == 0 || length > FRAME_BYTES_MAX - HEADER_BYTES {
        return Err(Malformed::Length { length });
    }
    let Some(crc_bytes) = bytes[4..].first_chunk::<4>() else {
        return Ok(None);
    };
    let Some(rest) = bytes[HEADER_BYTES..].get(..length) else {
        return Ok(None);
    };
    let found = u32::from_be_bytes(*crc_bytes);
    let expected = crc(*length_bytes, rest);
    if found != expected {
        return Err(Malformed::Crc { found, expected });
    }
    let mut reader = Reader::new(rest, HEADER_BYTES);
    let kind = reader.u8()?;
    let frame = match kind {
        BEATS | BEATEN => Frame::Forward(read_forward(kind, &mut reader)?),
        _ => Frame::Zab(link::read(kind, &mut reader)?),
    };
    reader.end()?;
    Ok(Some((frame, HEADER_BYTES + length)))
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No frame has this length.
    #[error("a frame of {length} bytes")]
    Length {
        /// What it says.
        length: usize,
    },
    /// The CRC does not match.
    #[error("a frame with CRC {found:08x} where its bytes give {expected:08x}")]
    Crc {
        /// What stands there.
        found: u32,
        /// What the bytes ask for.
        expected: u32,
    },
    /// No message has this number.
    #[error("a frame of the unknown kind {found}")]
    Kind {
        /// The number.
        found: u8,
    },
    /// A field has a value that is never written.
    #[error("a frame with an impossible {field} at offset {offset}")]
    Field {
        /// The field.
        field: &'static str,
        /// Where it begins, from the beginning of the frame.
        offset: usize,
    },
    /// It ends within a field.
    #[error("a frame that ends within the field at offset {offset}")]
    EndsEarly {
        /// Where the field begins, from the beginning of the frame.
        offset: usize,
    },
    /// Bytes follow its last field.
    #[error("a frame that goes on after its last field, at offset {offset}")]
    EndsLate {
        /// Where they begin, from the beginning of the frame.
        offset: usize,
    },
}

/// The longest frame. Far above what the limits of `zab` let a message become, and what a
/// server can make another keep in memory before it is found out.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

fn begin(kind: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    out.push(kind);
    start
}

fn end(start: usize, out: &mut [u8]) {
    let (header, rest) = out[start..].split_at_mut(HEADER_BYTES);
    let length = rest.len();
    assert!(
        length <= FRAME_BYTES_MAX - HEADER_BYTES,
        "a frame of {length} bytes is asked for"
    );
    let length = u32::try_from(length)
        .expect("FRAME_BYTES_MAX fits")
        .to_be_bytes();
    header[..4].copy_from_slice(&length);
    header[4..].copy_from_slice(&crc(length, rest).to_be_bytes());
}

fn crc(length: [u8; 4], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(rest);
    hasher.finalize()
}

fn put_beat(beat: &Beat, out: &mut Vec<u8>) {
    let floor = if beat.floor.is_some() { FLOOR } else { 0 };
    match &beat.who {
        Missing::Named {
            group,
            member,
            session,
        } => {
            let with = if session.is_some() { SESSION } else { 0 };
            out.push(NAMES | with | floor);
            put_name(group, out);
            put_name(member, out);
            if let Some(session) = session {
                put_session(*session, out);
            }
        }
        Missing::Id(id) => {
            out.push(SESSION | floor);
            put_session(*id, out);
        }
    }
    if let Some(floor) = beat.floor {
        put_u64(floor.0, out);
    }
}

fn read_beat(reader: &mut Reader<'_>) -> Result<Beat, Malformed> {
    let wrong = reader.wrong("shape of a beat");
    let shape = reader.u8()?;
    if shape > NAMES | SESSION | FLOOR {
        return Err(wrong);
    }
    let who = match (shape & NAMES != 0, shape & SESSION != 0) {
        (true, session) => Missing::Named {
            group: reader.name()?,
            member: reader.name()?,
            session: session.then(|| reader.session()).transpose()?,
        },
        (false, true) => Missing::Id(reader.session()?),
        (false, false) => return Err(wrong),
    };
    let floor = match shape & FLOOR {
        0 => None,
        _ => Some(GroupVersion(reader.u64()?)),
    };
    Ok(Beat { who, floor })
}

fn put_beaten(verdict: &Beaten, out: &mut Vec<u8>) {
    match *verdict {
        Beaten::Touched {
            id,
            timeout,
            version,
            settled,
        } => {
            out.push(TOUCHED);
            put_session(id, out);
            put_u64(timeout.0, out);
            put_u64(version.0, out);
            put_flag(settled, out);
        }
        Beaten::Conflict { version } => {
            out.push(CONFLICT);
            put_u64(version.0, out);
        }
        Beaten::Wait => out.push(WAIT),
        Beaten::NotHeld => out.push(NOT_HELD),
        Beaten::Lapsed => out.push(LAPSED),
    }
}

fn read_beaten(reader: &mut Reader<'_>) -> Result<Beaten, Malformed> {
    let wrong = reader.wrong("verdict on a beat");
    Ok(match reader.u8()? {
        TOUCHED => Beaten::Touched {
            id: reader.session()?,
            timeout: Millis(reader.u64()?),
            version: GroupVersion(reader.u64()?),
            settled: reader.flag()?,
        },
        CONFLICT => Beaten::Conflict {
            version: GroupVersion(reader.u64()?),
        },
        WAIT => Beaten::Wait,
        NOT_HELD => Beaten::NotHeld,
        LAPSED => Beaten::Lapsed,
        _ => return Err(wrong),
    })
}

fn read_forward(kind: u8, reader: &mut Reader<'_>) -> Result<forward::Message, Malformed> {
    let token = reader.u64()?;
    let wrong = reader.wrong("number of beats");
    let count = reader.u32()? as usize;
    if count > BEATS_MAX {
        return Err(wrong);
    }
    Ok(match kind {
        BEATS => forward::Message::Beats {
            token,
            beats: reader.list(count, BEAT_BYTES_MIN, read_beat)?,
        },
        _ => forward::Message::Beaten {
            token,
            verdicts: reader.list(count, 1, read_beaten)?,
        },
    })
}

/// Length and CRC.
const HEADER_BYTES: usize = 8;

const BEATS: u8 = 64;
const BEATEN: u8 = 65;

const NAMES: u8 = 1;
const SESSION: u8 = 2;
const FLOOR: u8 = 4;

/// A shape, and two names of no bytes.
const BEAT_BYTES_MIN: usize = 3;

const TOUCHED: u8 = 1;
const CONFLICT: u8 = 2;
const WAIT: u8 = 3;
const NOT_HELD: u8 = 4;
const LAPSED: u8 = 5;
