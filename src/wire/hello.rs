//! What is said before the first frame: who each side is, or why they will not talk.
//!
//! Whoever dials says [`Hello`]; the other answers with its own, or with a [`Greeting::Reject`]
//! and hangs up. The first 13 bytes are the same in every format, and so is a rejection, so
//! that servers of two formats can still tell their operators. Integers are big-endian:
//!
//! ```text
//! offset size field
//! 0      8    magic: "systole" and a zero byte
//! 8      2    format of what this server speaks
//! 10     1    kind: 1 Hello, 2 Reject
//! 11     2    length of the body
//! 13     …    body
//! …      4    CRC-32 of all before
//!             Hello:
//! 13     8    cluster
//! 21     4    from
//! 25     4    to
//! 29     8    version of the ensemble
//! 37     8    nonce
//!             Reject:
//! 13     …    the reason, UTF-8
//! ```

use crate::types::ServerId;

/// One side's introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The format of the frames it speaks: [`FORMAT`].
    pub format: u16,
    /// The ensemble it belongs to: see [`cluster_id`].
    pub cluster: u64,
    /// Who it is.
    pub from: ServerId,
    /// Whom it believes to talk to.
    pub to: ServerId,
    /// The version of the ensemble that it knows; for information.
    pub ensemble_version: u64,
    /// Drawn at random at each start: tells one run of a server from the next.
    pub nonce: u64,
}

/// What comes before the frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// I am this server.
    Hello(Hello),
    /// I will not talk to you, for this reason.
    Reject(String),
    /// An introduction in another format, which is all that is known of it.
    Foreign {
        /// That format.
        format: u16,
    },
}

impl Hello {
    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(HELLO_BYTES);
        body.extend_from_slice(&self.cluster.to_be_bytes());
        body.extend_from_slice(&self.from.0.to_be_bytes());
        body.extend_from_slice(&self.to.0.to_be_bytes());
        body.extend_from_slice(&self.ensemble_version.to_be_bytes());
        body.extend_from_slice(&self.nonce.to_be_bytes());
        encode(self.format, HELLO, &body, out);
    }

    /// Why a server that says `self` is not to be talked to, by the one that says `own` and
    /// whose ensemble is `servers`: a sentence for the operators of both.
    ///
    /// The order is that of the likely mistake: with another list of servers, nothing that
    /// follows from it can be expected to match.
    #[must_use]
    pub fn refusal(&self, own: &Hello, servers: &[ServerId]) -> Option<String> {
        let (me, them) = (own.from, self.from);
        if self.format != own.format {
            return Some(format_refusal(own, self.format));
        }
        if self.cluster != own.cluster {
            return Some(format!(
                "server {me} and the server that calls itself {them} have different --ensemble \
                 settings: all servers need the same list of ids and addresses"
            ));
        }
        if self.to != me {
            return Some(format!(
                "this is server {me}, not server {}: its address leads here, or --id is wrong",
                self.to
            ));
        }
        if them == me {
            return Some(format!(
                "two servers call themselves {me}: --id must differ"
            ));
        }
        if !servers.contains(&them) {
            return Some(format!(
                "server {them} is not in the ensemble that server {me} knows"
            ));
        }
        None
    }
}

/// The sentence for a server whose format is `format`.
#[must_use]
pub fn format_refusal(own: &Hello, format: u16) -> String {
    format!(
        "server {} speaks format {} of the protocol between servers, the other format {format}: \
         they need releases that share one",
        own.from, own.format
    )
}

/// Appends a rejection to `out`. A reason is cut off at [`REASON_BYTES_MAX`].
pub fn encode_reject(reason: &str, out: &mut Vec<u8>) {
    let cut = reason.floor_char_boundary(REASON_BYTES_MAX);
    encode(FORMAT, REJECT, &reason.as_bytes()[..cut], out);
}

/// Reads the greeting that `bytes` begins with, and how many bytes it takes; `None` if more
/// must come first, which is never more than [`GREETING_BYTES_MAX`] in all.
///
/// # Errors
/// If no greeting begins like that.
pub fn decode(bytes: &[u8]) -> Result<Option<(Greeting, usize)>, NoGreeting> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(NoGreeting::Magic);
    }
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let format = u16::from_be_bytes([head[8], head[9]]);
    let kind = head[10];
    let length = usize::from(u16::from_be_bytes([head[11], head[12]]));
    if length > REASON_BYTES_MAX {
        return Err(NoGreeting::Length { length });
    }
    let whole = HEAD_BYTES + length;
    let Some(crc) = bytes.get(whole..whole + 4) else {
        return Ok(None);
    };
    if crc != crc32fast::hash(&bytes[..whole]).to_be_bytes() {
        return Err(NoGreeting::Crc);
    }
    let body = &bytes[HEAD_BYTES..whole];
    let greeting = match kind {
        // What is not UTF-8 can still be shown.
        REJECT => Greeting::Reject(String::from_utf8_lossy(body).into_owned()),
        _ if format != FORMAT => Greeting::Foreign { format },
        HELLO => Greeting::Hello(read_hello(format, body)?),
        found => return Err(NoGreeting::Kind { found }),
    };
    Ok(Some((greeting, whole + 4)))
}

fn read_hello(format: u16, body: &[u8]) -> Result<Hello, NoGreeting> {
    let length = body.len();
    let body: &[u8; HELLO_BYTES] = body.try_into().map_err(|_| NoGreeting::Length { length })?;
    let u32_at = |at: usize| {
        let part = body[at..at + 4].try_into();
        u32::from_be_bytes(part.expect("a slice of four bytes"))
    };
    let u64_at = |at: usize| {
        let part = body[at..at + 8].try_into();
        u64::from_be_bytes(part.expect("a slice of eight bytes"))
    };
    Ok(Hello {
        format,
        cluster: u64_at(0),
        from: ServerId(u32_at(8)),
        to: ServerId(u32_at(12)),
        ensemble_version: u64_at(16),
        nonce: u64_at(24),
    })
}

fn encode(format: u16, kind: u8, body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = u16::try_from(body.len()).expect("REASON_BYTES_MAX fits");
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&format.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// Why bytes are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGreeting {
    /// They begin with something else.
    #[error("it is not a systole server")]
    Magic,
    /// No greeting is so long, or an introduction has another length.
    #[error("a greeting of {length} bytes")]
    Length {
        /// The length of its body.
        length: usize,
    },
    /// The CRC does not match.
    #[error("a greeting whose CRC does not match")]
    Crc,
    /// No greeting has this number.
    #[error("a greeting of the unknown kind {found}")]
    Kind {
        /// The number.
        found: u8,
    },
}

/// The number of an ensemble: the same for the same servers with the same addresses, as they
/// are written in the settings, in whatever order.
#[must_use]
pub fn cluster_id(servers: &[(ServerId, String)]) -> u64 {
    let mut sorted: Vec<&(ServerId, String)> = servers.iter().collect();
    sorted.sort();
    let mut hash = FNV_OFFSET;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    };
    for (id, address) in sorted {
        feed(&id.0.to_be_bytes());
        feed(address.as_bytes());
        // No address has this byte, so that lists cannot run into each other.
        feed(&[0]);
    }
    hash
}

/// The format of frames and greetings that this release speaks.
pub const FORMAT: u16 = 1;

/// The longest reason of a rejection.
pub const REASON_BYTES_MAX: usize = 1_024;

/// The longest greeting.
pub const GREETING_BYTES_MAX: usize = HEAD_BYTES + REASON_BYTES_MAX + 4;

const MAGIC: &[u8; 8] = b"systole\0";
const HEAD_BYTES: usize = 13;
const HELLO_BYTES: usize = 32;
const HELLO: u8 = 1;
const REJECT: u8 = 2;

/// FNV-1a, 64 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>. Nothing hostile chooses its
/// input: it tells two honest configurations apart.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Hello = Hello {
        format: FORMAT,
        cluster: 7,
        from: ServerId(1),
        to: ServerId(2),
        ensemble_version: 1,
        nonce: 99,
    };

    const BOB: Hello = Hello {
        from: ServerId(2),
        to: ServerId(1),
        nonce: 100,
        ..ALICE
    };

    const BOTH: [ServerId; 2] = [ServerId(1), ServerId(2)];

    fn bytes_of(hello: &Hello) -> Vec<u8> {
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        bytes
    }

    fn rejection(reason: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_reject(reason, &mut bytes);
        bytes
    }

    #[test]
    fn a_greeting_reads_back_and_says_where_it_ends() {
        let mut bytes = bytes_of(&ALICE);
        let whole = bytes.len();
        bytes.extend_from_slice(b"frames");
        let read = decode(&bytes).unwrap();
        assert_eq!(read, Some((Greeting::Hello(ALICE), whole)));
        let bytes = rejection("no");
        let read = decode(&bytes).unwrap();
        assert_eq!(read, Some((Greeting::Reject("no".into()), bytes.len())));
    }

    #[test]
    fn the_layout_is_the_one_drawn_above() {
        let bytes = bytes_of(&ALICE);
        assert_eq!(bytes.len(), HEAD_BYTES + HELLO_BYTES + 4);
        assert_eq!(&bytes[..13], b"systole\0\x00\x01\x01\x00\x20");
        assert_eq!(bytes[20], 7, "the cluster");
        assert_eq!((bytes[24], bytes[28]), (1, 2), "from and to");
        assert_eq!((bytes[36], bytes[44]), (1, 99), "version and nonce");
    }

    #[test]
    fn every_flipped_bit_is_refused_and_every_truncation_waited_out() {
        for good in [bytes_of(&ALICE), rejection("not like this")] {
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(decode(&bytes), Ok(Some(_))), "bit {bit}");
            }
            for length in 0..good.len() {
                assert_eq!(decode(&good[..length]), Ok(None), "length {length}");
            }
        }
    }

    #[test]
    fn what_cannot_become_a_greeting_is_refused_at_its_first_wrong_byte() {
        assert_eq!(decode(b"G"), Err(NoGreeting::Magic));
        let mut long = bytes_of(&ALICE);
        long[11..13].copy_from_slice(&1_025_u16.to_be_bytes());
        let refused = Err(NoGreeting::Length { length: 1_025 });
        assert_eq!(decode(&long[..13]), refused);
        let mut bytes = Vec::new();
        encode(FORMAT, 9, b"", &mut bytes);
        assert_eq!(decode(&bytes), Err(NoGreeting::Kind { found: 9 }));
        let mut bytes = Vec::new();
        encode(FORMAT, HELLO, b"short", &mut bytes);
        assert_eq!(decode(&bytes), Err(NoGreeting::Length { length: 5 }));
    }

    #[test]
    fn another_format_is_known_as_such_and_its_rejections_are_read() {
        let mut bytes = Vec::new();
        encode(2, HELLO, b"whatever comes then", &mut bytes);
        let (greeting, _) = decode(&bytes).unwrap().unwrap();
        assert_eq!(greeting, Greeting::Foreign { format: 2 });
        let mut bytes = Vec::new();
        encode(2, REJECT, b"too old", &mut bytes);
        let (greeting, _) = decode(&bytes).unwrap().unwrap();
        assert_eq!(greeting, Greeting::Reject("too old".into()));
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let bytes = rejection(&"é".repeat(1_000));
        assert_eq!(bytes.len(), GREETING_BYTES_MAX);
        let (greeting, _) = decode(&bytes).unwrap().unwrap();
        assert_eq!(greeting, Greeting::Reject("é".repeat(512)));
        let odd = rejection(&format!("a{}", "é".repeat(1_000)));
        assert_eq!(odd.len(), GREETING_BYTES_MAX - 1);
    }

    #[test]
    fn those_who_belong_together_talk() {
        assert_eq!(ALICE.refusal(&BOB, &BOTH), None);
        assert_eq!(BOB.refusal(&ALICE, &BOTH), None);
    }

    #[test]
    fn a_refusal_names_what_differs() {
        let cases = [
            (Hello { format: 2, ..ALICE }, "format 2"),
            (
                Hello {
                    cluster: 8,
                    ..ALICE
                },
                "different --ensemble settings",
            ),
            (
                Hello {
                    to: ServerId(3),
                    ..ALICE
                },
                "this is server 2, not server 3",
            ),
            (
                Hello {
                    from: ServerId(2),
                    ..ALICE
                },
                "two servers call themselves 2",
            ),
            (
                Hello {
                    from: ServerId(9),
                    ..ALICE
                },
                "server 9 is not in the ensemble",
            ),
        ];
        for (hello, words) in cases {
            let sentence = hello.refusal(&BOB, &BOTH).unwrap();
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn a_cluster_is_its_servers_in_any_order_and_nothing_else() {
        let list = |text: &[(u32, &str)]| -> u64 {
            let pair = |&(id, at): &(u32, &str)| (ServerId(id), at.to_owned());
            cluster_id(&text.iter().map(pair).collect::<Vec<_>>())
        };
        let usual = list(&[(1, "a:1"), (2, "b:1")]);
        assert_eq!(usual, list(&[(2, "b:1"), (1, "a:1")]));
        // Written down once, so that no release counts differently.
        assert_eq!(list(&[]), FNV_OFFSET);
        for other in [
            list(&[(1, "a:1")]),
            list(&[(1, "b:1"), (2, "a:1")]),
            list(&[(1, "a:1"), (3, "b:1")]),
            list(&[(1, "a:1"), (2, "b:2")]),
            list(&[(1, "a:1"), (2, "b:1"), (3, "c:1")]),
        ] {
            assert_ne!(usual, other);
        }
    }
}
