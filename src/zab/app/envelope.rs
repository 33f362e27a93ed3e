//! How the application face writes down what it sends and what it has logged.
//!
//! Integers are big-endian. A request, and in the log the transaction that has become of it:
//!
//! ```text
//! offset size field
//! 0      1    kind: 16
//! 1      4    server that asked
//! 5      8    its run
//! 13     8    its request id
//! 21     …    the request; the application's transaction
//! ```
//!
//! One picture for both, so that a leader logs and broadcasts the very bytes it was sent. What else
//! servers say to each other:
//!
//! ```text
//! offset size field
//! 0      1    kind: 2 Flush, 3 Answer, 4 Flushed, 5 Refused, 6 Message
//!             Flush, Answer, Flushed, Refused:
//! 1      8    run of the server that asked
//! 9      8    its request id
//! 17     16   Answer, Flushed: a transaction, epoch and counter; completed once delivered
//! 33     …    Answer: the answer
//! 17     1    Refused: 1 no leader, 2 full, 3 too long
//!             Message:
//! 1      …    the message
//! ```
//!
//! Nothing that is read is trusted: a payload that does not fit these pictures is a
//! [`Malformed`].

use std::sync::Arc;

use super::{Origin, Refusal, RequestId};
use crate::types::{ServerId, Zxid};

/// A payload between servers, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter<'a> {
    /// Make a transaction of this, or answer it.
    Request(Origin, &'a [u8]),
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
    /// It names another server than the one that sent it.
    #[error("the server at offset 1 is {found}, which has not sent it")]
    Server {
        /// The server it names.
        found: ServerId,
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

impl Call {
    /// The call, of this server.
    pub(super) fn of(self, server: ServerId) -> Origin {
        Origin {
            server,
            run: self.run,
            request: self.request,
        }
    }

    /// How `origin` is told from its other requests.
    pub(super) fn to(origin: Origin) -> Call {
        Call {
            run: origin.run,
            request: origin.request,
        }
    }
}

impl Letter<'_> {
    /// The payload that says this.
    pub(super) fn encode(&self) -> Arc<[u8]> {
        self.encode_in(&mut Vec::new())
    }

    /// The same; `bytes` is room to put it together in.
    pub(super) fn encode_in(&self, bytes: &mut Vec<u8>) -> Arc<[u8]> {
        let (kind, call) = match self {
            Letter::Request(origin, _) => (REQUEST, Some(&Call::to(*origin))),
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
        if let Letter::Request(origin, _) = self {
            bytes.extend_from_slice(&origin.server.0.to_be_bytes());
        }
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
        if kind == REQUEST {
            let (origin, request) = decode_transaction(payload)?;
            return Ok(Letter::Request(origin, request));
        }
        if !(FLUSH..=REFUSED).contains(&kind) {
            return Err(Malformed::Kind { found: kind });
        }
        let call = cursor.call()?;
        let letter = match kind {
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
    payload.get(TRANSACTION_BYTES..).unwrap_or_default()
}

/// True if the payload is what [`Letter::Flush`] made.
pub(super) fn is_flush(payload: &[u8]) -> bool {
    payload.first() == Some(&FLUSH)
}

/// Reads what was in the log.
pub(super) fn decode_transaction(payload: &[u8]) -> Result<(Origin, &[u8]), Malformed> {
    let mut cursor = Cursor::new(payload);
    let [kind] = cursor.take()?;
    if kind != REQUEST {
        return Err(Malformed::Kind { found: kind });
    }
    let server = ServerId(u32::from_be_bytes(cursor.take()?));
    Ok((cursor.call()?.of(server), cursor.rest()))
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

    fn call(&mut self) -> Result<Call, Malformed> {
        Ok(Call {
            run: u64::from_be_bytes(self.take()?),
            request: RequestId(u64::from_be_bytes(self.take()?)),
        })
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

const REQUEST: u8 = 16;
const FLUSH: u8 = 2;
const ANSWER: u8 = 3;
const FLUSHED: u8 = 4;
const REFUSED: u8 = 5;
const MESSAGE: u8 = 6;

/// Bytes before the answer in an Answer.
const REPLY_BYTES: usize = 33;
/// Bytes before the request, and in the log before the application's transaction.
pub(super) const TRANSACTION_BYTES: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    const CALL: Call = Call {
        run: 0x0102_0304_0506_0708,
        request: RequestId(9),
    };
    const ORIGIN: Origin = Origin {
        server: ServerId(7),
        run: 5,
        request: RequestId(6),
    };

    fn letters() -> Vec<Letter<'static>> {
        let zxid = Zxid::new(Epoch(3), 17);
        vec![
            Letter::Request(ORIGIN, b"put"),
            Letter::Request(ORIGIN, b""),
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
        // What a server asks is what the leader logs, if that is what becomes of it.
        let payload = Letter::Request(ORIGIN, b"txn").encode();
        assert_eq!(decode_transaction(&payload), Ok((ORIGIN, &b"txn"[..])));
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
        let request = Letter::Request(ORIGIN, b"body").encode();
        assert_eq!(request_in(&request), b"body");
        let mut drawn = vec![16, 0, 0, 0, 7];
        drawn.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6]);
        drawn.extend_from_slice(b"body");
        assert_eq!(&request[..], drawn);
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
        for found in (0..=u8::MAX).filter(|kind| !(2..=6).contains(kind) && *kind != REQUEST) {
            let bytes = [&[found][..], &[0; 40]].concat();
            assert_eq!(Letter::decode(&bytes), Err(Malformed::Kind { found }));
        }
        for found in (0..=u8::MAX).filter(|kind| *kind != REQUEST) {
            let bytes = [&[found][..], &[0; 40]].concat();
            assert_eq!(decode_transaction(&bytes), Err(Malformed::Kind { found }));
        }
        let mut refused = Letter::Refused(CALL, Refusal::Full).encode().to_vec();
        for found in (0..=u8::MAX).filter(|reason| !(1..=3).contains(reason)) {
            refused[17] = found;
            let offset = 17;
            assert_eq!(
                Letter::decode(&refused),
                Err(Malformed::Reason { offset, found })
            );
        }
    }

    #[test]
    fn a_cut_off_transaction_is_refused() {
        let whole = Letter::Request(ORIGIN, b"").encode();
        for length in 0..whole.len() {
            let read = decode_transaction(&whole[..length]);
            assert!(matches!(read, Err(Malformed::EndsEarly { .. })), "{length}");
        }
    }
}
