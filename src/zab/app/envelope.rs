//! How the application face writes down what it sends and what it has logged.
//!
//! Between servers, as the payload of a message; integers are big-endian:
//!
//! ```text
//! offset size field
//! 0      1    kind: 1 Request, 2 Flush, 3 Answer, 4 Flushed, 5 Refused, 6 Message
//!             Request, Flush, Answer, Flushed, Refused:
//! 1      8    run of the server that asked
//! 9      8    its request id
//! 17     …    Request: the request
//! 17     16   Answer, Flushed: a transaction, epoch and counter; completed once delivered
//! 33     …    Answer: the answer
//! 17     1    Refused: 1 no leader, 2 full, 3 too long
//!             Message:
//! 1      …    the message
//! ```
//!
//! In the log, as the payload of a transaction:
//!
//! ```text
//! offset size field
//! 0      1    kind: 16 Transaction
//! 1      4    server that asked
//! 5      8    its run
//! 13     8    its request id
//! 21     …    the application's transaction
//! ```
//!
//! The kinds differ, so that neither can be taken for the other. Nothing that is read is
//! trusted: a payload that does not fit this picture is a [`Malformed`].

use std::sync::Arc;

use super::{Origin, Refusal, RequestId};
use crate::types::{ServerId, Zxid};

/// A payload between servers, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter<'a> {
    /// Make a transaction of this, or answer it.
    Request(Call, &'a [u8]),
    /// How far must I have delivered?
    Flush(Call),
    /// No transaction was needed.
    Answer(Call, Zxid, &'a [u8]),
    /// This far.
    Flushed(Call, Zxid),
    /// Nothing was done.
    Refused(Call, Refusal),
    /// For the application.
    Message(&'a [u8]),
}

/// Names a request to the server that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) run: u64,
    pub(super) request: RequestId,
}

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within a field.
    #[error("the payload ends at offset {length} within the field at offset {offset}")]
    EndsEarly {
        /// Where the field begins.
        offset: usize,
        /// Where the payload ends.
        length: usize,
    },
    /// Bytes follow where it should end.
    #[error("the payload should end at offset {offset} and ends at {length}")]
    EndsLate {
        /// Where it should end.
        offset: usize,
        /// Where it ends.
        length: usize,
    },
    /// No kind has this number here.
    #[error("unknown kind {found} at offset 0")]
    Kind {
        /// The number.
        found: u8,
    },
    /// No reason has this number.
    #[error("unknown reason {found} at offset {offset}")]
    Reason {
        /// Where it is.
        offset: usize,
        /// The number.
        found: u8,
    },
}

impl Letter<'_> {
    /// The payload that says this.
    pub(super) fn encode(&self) -> Arc<[u8]> {
        self.encode_in(&mut Vec::new())
    }

    /// The same; `bytes` is room to put it together in.
    pub(super) fn encode_in(&self, bytes: &mut Vec<u8>) -> Arc<[u8]> {
        let (kind, call) = match self {
            Letter::Request(call, _) => (REQUEST, Some(call)),
            Letter::Flush(call) => (FLUSH, Some(call)),
            Letter::Answer(call, ..) => (ANSWER, Some(call)),
            Letter::Flushed(call, _) => (FLUSHED, Some(call)),
            Letter::Refused(call, _) => (REFUSED, Some(call)),
            Letter::Message(_) => (MESSAGE, None),
        };
        let body = match self {
            Letter::Request(_, body) | Letter::Answer(_, _, body) | Letter::Message(body) => *body,
            Letter::Flush(_) | Letter::Flushed(..) | Letter::Refused(..) => &[],
        };
        bytes.clear();
        bytes.reserve(REPLY_BYTES + body.len());
        bytes.push(kind);
        if let Some(call) = call {
            bytes.extend_from_slice(&call.run.to_be_bytes());
            bytes.extend_from_slice(&call.request.0.to_be_bytes());
        }
        match self {
            Letter::Answer(_, zxid, _) | Letter::Flushed(_, zxid) => {
                bytes.extend_from_slice(&zxid.to_bytes());
            }
            Letter::Refused(_, refusal) => bytes.push(reason_of(*refusal)),
            Letter::Request(..) | Letter::Flush(_) | Letter::Message(_) => {}
        }
        bytes.extend_from_slice(body);
        Arc::from(&bytes[..])
    }

    /// Reads what another server has sent.
    pub(super) fn decode(payload: &[u8]) -> Result<Letter<'_>, Malformed> {
        let mut cursor = Cursor::new(payload);
        let [kind] = cursor.take()?;
        if kind == MESSAGE {
            return Ok(Letter::Message(cursor.rest()));
        }
        if !(REQUEST..=REFUSED).contains(&kind) {
            return Err(Malformed::Kind { found: kind });
        }
        let call = Call {
            run: u64::from_be_bytes(cursor.take()?),
            request: RequestId(u64::from_be_bytes(cursor.take()?)),
        };
        let letter = match kind {
            REQUEST => return Ok(Letter::Request(call, cursor.rest())),
            ANSWER => {
                let zxid = Zxid::from_bytes(cursor.take()?);
                return Ok(Letter::Answer(call, zxid, cursor.rest()));
            }
            FLUSHED => Letter::Flushed(call, Zxid::from_bytes(cursor.take()?)),
            REFUSED => Letter::Refused(call, cursor.refusal()?),
            _ => Letter::Flush(call),
        };
        cursor.end()?;
        Ok(letter)
    }
}

/// The request inside a payload that [`Letter::Request`] made; empty for a flush.
pub(super) fn request_in(payload: &[u8]) -> &[u8] {
    payload.get(CALL_BYTES..).unwrap_or_default()
}

/// True if the payload is what [`Letter::Flush`] made.
pub(super) fn is_flush(payload: &[u8]) -> bool {
    payload.first() == Some(&FLUSH)
}

/// What goes into the log: the transaction, and who asked for it.
/// `bytes` is room to put it together in.
pub(super) fn encode_transaction(origin: Origin, txn: &[u8], bytes: &mut Vec<u8>) -> Arc<[u8]> {
    bytes.clear();
    bytes.push(TRANSACTION);
    bytes.extend_from_slice(&origin.server.0.to_be_bytes());
    bytes.extend_from_slice(&origin.run.to_be_bytes());
    bytes.extend_from_slice(&origin.request.0.to_be_bytes());
    bytes.extend_from_slice(txn);
    Arc::from(&bytes[..])
}

/// Reads what was in the log.
pub(super) fn decode_transaction(payload: &[u8]) -> Result<(Origin, &[u8]), Malformed> {
    let mut cursor = Cursor::new(payload);
    let [kind] = cursor.take()?;
    if kind != TRANSACTION {
        return Err(Malformed::Kind { found: kind });
    }
    let origin = Origin {
        server: ServerId(u32::from_be_bytes(cursor.take()?)),
        run: u64::from_be_bytes(cursor.take()?),
        request: RequestId(u64::from_be_bytes(cursor.take()?)),
    };
    Ok((origin, cursor.rest()))
}

/// Reads a payload from its beginning.
struct Cursor<'a> {
    payload: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(payload: &'a [u8]) -> Cursor<'a> {
        Cursor { payload, offset: 0 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let field = self.payload[self.offset..].first_chunk();
        let field = field.ok_or(Malformed::EndsEarly {
            offset: self.offset,
            length: self.payload.len(),
        })?;
        self.offset += N;
        Ok(*field)
    }

    fn refusal(&mut self) -> Result<Refusal, Malformed> {
        let offset = self.offset;
        let [found] = self.take()?;
        match found {
            1 => Ok(Refusal::NoLeader),
            2 => Ok(Refusal::Full),
            3 => Ok(Refusal::TooLong),
            _ => Err(Malformed::Reason { offset, found }),
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.payload[self.offset..]
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.offset < self.payload.len() {
            return Err(Malformed::EndsLate {
                offset: self.offset,
                length: self.payload.len(),
            });
        }
        Ok(())
    }
}

fn reason_of(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::NoLeader => 1,
        Refusal::Full => 2,
        Refusal::TooLong => 3,
    }
}

const REQUEST: u8 = 1;
const FLUSH: u8 = 2;
const ANSWER: u8 = 3;
const FLUSHED: u8 = 4;
const REFUSED: u8 = 5;
const MESSAGE: u8 = 6;
const TRANSACTION: u8 = 16;

/// Bytes before the request in a Request.
const CALL_BYTES: usize = 17;
/// Bytes before the answer in an Answer.
const REPLY_BYTES: usize = 33;
/// Bytes that a transaction in the log has before the application's own.
pub(super) const TRANSACTION_BYTES: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    const CALL: Call = Call {
        run: 0x0102_0304_0506_0708,
        request: RequestId(9),
    };

    fn letters() -> Vec<Letter<'static>> {
        let zxid = Zxid::new(Epoch(3), 17);
        vec![
            Letter::Request(CALL, b"put"),
            Letter::Request(CALL, b""),
            Letter::Flush(CALL),
            Letter::Answer(CALL, zxid, b"there"),
            Letter::Flushed(CALL, zxid),
            Letter::Refused(CALL, Refusal::NoLeader),
            Letter::Refused(CALL, Refusal::Full),
            Letter::Refused(CALL, Refusal::TooLong),
            Letter::Message(b"beat"),
            Letter::Message(b""),
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for letter in letters() {
            assert_eq!(Letter::decode(&letter.encode()), Ok(letter));
        }
        let origin = Origin {
            server: ServerId(7),
            run: 5,
            request: RequestId(6),
        };
        let payload = encode_transaction(origin, b"txn", &mut Vec::new());
        assert_eq!(decode_transaction(&payload), Ok((origin, &b"txn"[..])));
        assert_eq!(payload.len(), TRANSACTION_BYTES + 3);
    }

    #[test]
    fn the_bytes_are_those_of_the_picture() {
        let answer = Letter::Answer(CALL, Zxid::new(Epoch(3), 17), b"x").encode();
        let mut drawn = vec![3, 1, 2, 3, 4, 5, 6, 7, 8];
        drawn.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 9]);
        drawn.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 17]);
        drawn.push(b'x');
        assert_eq!(&answer[..], drawn);
        let request = Letter::Request(CALL, b"body").encode();
        assert_eq!(request_in(&request), b"body");
        assert_eq!(request_in(&Letter::Flush(CALL).encode()), b"");
    }

    #[test]
    fn a_payload_that_is_cut_off_within_its_fields_is_refused() {
        for letter in letters() {
            let whole = letter.encode();
            for length in 0..whole.len() {
                // A shorter body is a body; a shorter field is not a field.
                if let Ok(read) = Letter::decode(&whole[..length]) {
                    assert_eq!(&read.encode()[..], &whole[..length], "{letter:?}");
                }
            }
            assert!(Letter::decode(&whole[..0]).is_err());
        }
        assert_eq!(
            Letter::decode(&[FLUSH, 0, 0]),
            Err(Malformed::EndsEarly {
                offset: 1,
                length: 3
            })
        );
    }

    #[test]
    fn bytes_that_follow_the_end_are_refused() {
        for letter in [
            Letter::Flush(CALL),
            Letter::Flushed(CALL, Zxid::ZERO),
            Letter::Refused(CALL, Refusal::Full),
        ] {
            let mut bytes = letter.encode().to_vec();
            let offset = bytes.len();
            bytes.push(0);
            let length = bytes.len();
            assert_eq!(
                Letter::decode(&bytes),
                Err(Malformed::EndsLate { offset, length })
            );
        }
    }

    #[test]
    fn unknown_kinds_and_reasons_are_refused() {
        for found in (0..=u8::MAX).filter(|kind| !(1..=6).contains(kind)) {
            let bytes = [&[found][..], &[0; 40]].concat();
            assert_eq!(Letter::decode(&bytes), Err(Malformed::Kind { found }));
        }
        for found in (0..=u8::MAX).filter(|kind| *kind != TRANSACTION) {
            let bytes = [&[found][..], &[0; 40]].concat();
            assert_eq!(decode_transaction(&bytes), Err(Malformed::Kind { found }));
        }
        let mut refused = Letter::Refused(CALL, Refusal::Full).encode().to_vec();
        for found in (0..=u8::MAX).filter(|reason| !(1..=3).contains(reason)) {
            refused[CALL_BYTES] = found;
            let offset = CALL_BYTES;
            assert_eq!(
                Letter::decode(&refused),
                Err(Malformed::Reason { offset, found })
            );
        }
    }

    #[test]
    fn a_cut_off_transaction_is_refused() {
        let origin = Origin {
            server: ServerId(7),
            run: 5,
            request: RequestId(6),
        };
        let whole = encode_transaction(origin, b"", &mut Vec::new());
        for length in 0..whole.len() {
            let read = decode_transaction(&whole[..length]);
            assert!(matches!(read, Err(Malformed::EndsEarly { .. })), "{length}");
        }
    }
}
