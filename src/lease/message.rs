//! What owners and the leader say to each other, and its bytes.
//!
//! ```text
//! offset size field
//! 0      1    version of this layout: 1
//! 1      1    kind: 1 Renew, 2 Grant
//! 2      8    incarnation of the owner
//! 10     8    n, the number of the renewal
//!             Grant:
//! 18     16   the last transaction the leader had applied: epoch and counter
//! ```
//!
//! Integers are big-endian. Zab carries the messages between a follower and its leader and
//! checks them on the way; nothing that is read is trusted all the same.

use crate::types::{Incarnation, Zxid};

/// An owner asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renew {
    /// The run of the server that asks.
    pub incarnation: Incarnation,
    /// Numbers the renewals of a run, ascending from 1.
    pub n: u64,
}

/// The leader grants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The run of the server that asked.
    pub incarnation: Incarnation,
    /// The renewal that is granted.
    pub n: u64,
    /// The last transaction the leader had applied: the grant counts from the moment at which
    /// the owner has applied it as well.
    pub applied: Zxid,
}

/// A message of the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// From an owner to the leader.
    Renew(Renew),
    /// From the leader to an owner.
    Grant(Grant),
}

impl Message {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, incarnation, n) = match self {
            Message::Renew(renew) => (RENEW, renew.incarnation, renew.n),
            Message::Grant(grant) => (GRANT, grant.incarnation, grant.n),
        };
        let mut bytes = Vec::with_capacity(GRANT_BYTES);
        bytes.extend_from_slice(&[VERSION, kind]);
        bytes.extend_from_slice(&incarnation.0.to_be_bytes());
        bytes.extend_from_slice(&n.to_be_bytes());
        if let Message::Grant(grant) = self {
            bytes.extend_from_slice(&grant.applied.to_bytes());
        }
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are none of this version.
    pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let found = bytes.len();
        let [version, kind, rest @ ..] = bytes else {
            return Err(Malformed::Length { found });
        };
        if *version != VERSION {
            return Err(Malformed::Version { found: *version });
        }
        let (incarnation, rest) = number(rest).ok_or(Malformed::Length { found })?;
        let incarnation = Incarnation(incarnation);
        let (n, rest) = number(rest).ok_or(Malformed::Length { found })?;
        match (*kind, rest) {
            (RENEW, []) => Ok(Message::Renew(Renew { incarnation, n })),
            (GRANT, rest) if rest.len() == ZXID_BYTES => {
                let applied: [u8; ZXID_BYTES] = rest.try_into().expect("its length was compared");
                let applied = Zxid::from_bytes(applied);
                Ok(Message::Grant(Grant {
                    incarnation,
                    n,
                    applied,
                }))
            }
            (RENEW | GRANT, _) => Err(Malformed::Length { found }),
            (found, _) => Err(Malformed::Kind { found }),
        }
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// Why bytes are no message of the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Of another release.
    #[error("a lease message of version {found}, expected {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Neither Renew nor Grant.
    #[error("a lease message of kind {found}")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// Not as long as its kind is.
    #[error("a lease message of {found} bytes")]
    Length {
        /// The length found.
        found: usize,
    },
}

const VERSION: u8 = 1;
const RENEW: u8 = 1;
const GRANT: u8 = 2;
const ZXID_BYTES: usize = 16;
const GRANT_BYTES: usize = 34;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    fn messages() -> [Message; 2] {
        let incarnation = Incarnation(0x0102_0304_0506_0708);
        [
            Message::Renew(Renew { incarnation, n: 9 }),
            Message::Grant(Grant {
                incarnation,
                n: 9,
                applied: Zxid::new(Epoch(3), 17),
            }),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_the_picture() {
        let [renew, grant] = messages();
        let mut drawn = vec![1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(renew.encode(), drawn);
        drawn[1] = 2;
        drawn.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 17]);
        assert_eq!(grant.encode(), drawn);
    }

    #[test]
    fn what_is_written_is_read_back_and_no_part_of_it_is() {
        for message in messages() {
            let mut bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            for length in 0..bytes.len() {
                let found = length;
                let cut = Message::decode(&bytes[..length]);
                assert_eq!(cut, Err(Malformed::Length { found }));
            }
            bytes.push(0);
            let found = bytes.len();
            assert_eq!(Message::decode(&bytes), Err(Malformed::Length { found }));
        }
    }

    #[test]
    fn another_version_or_kind_is_refused() {
        let mut bytes = messages()[0].encode();
        bytes[1] = 3;
        assert_eq!(Message::decode(&bytes), Err(Malformed::Kind { found: 3 }));
        bytes[0] = 2;
        let refused = Message::decode(&bytes);
        assert_eq!(refused, Err(Malformed::Version { found: 2 }));
    }
}
