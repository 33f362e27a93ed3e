//! Transactions: requests as compare-and-set operations in bytes.
//!
//! A transaction says what is wished and on what condition, never what the state was; its
//! outcome is decided when it is applied, at its place in the total order, and is therefore
//! the same on every server. One that has gone stale meanwhile changes nothing.
//!
//! ```text
//! offset  size  field
//! 0       1     format, 2
//! 1       1     kind
//! 2       …     fields of the kind, in this order
//!
//! kind  name           fields
//! 1     genesis        birth_s u32 big-endian
//! 2     join           flags u8 · group · member · owner varint · incarnation varint ·
//!                      timeout_ms varint · [config text]
//!                      flags: 1 keep the timeout of an active member, 2 takeover,
//!                      4 only if absent, 8 config follows, 16 config is JSON
//! 3     leave          flags u8 · group · member · [session 16 bytes big-endian]
//!                      flags: 1 session follows
//! 4     set config     flags u8 · group · [member] · require · config text
//!                      flags: 1 member follows, 16 config is JSON
//! 5     delete config  flags u8 · group · [member] · require
//!                      flags: 1 member follows
//! 6     delete group   group
//! 7     expire         groups varint, then for each: group · members varint, then for
//!                      each: member · era varint · counter varint · term varint
//!                      Groups and members ascend strictly. The first era of the
//!                      transaction is written as it is, the others xor the one before.
//! 8     move           owner varint · incarnation varint · then as in expire
//! 9     adopt          flags u8 · server varint · incarnation varint · limit varint ·
//!                      [group · length u8 (0 to 255), then UTF-8: the place]
//!                      flags: 1 place follows
//!
//! group, member   length u8 (1 to 255), then UTF-8
//! text            length varint (at most 65,536), then UTF-8
//! require         0 nothing · 1 exists · 2 absent · 3 one of: count u8, versions varint
//! ```
//!
//! Integrity is the log's concern (CRC); here damage can at worst be refused.

use super::codec::{Corrupt, Reader, is_utf8, put_name, put_varint};
use super::request::{Lapse, Place, Refusal, Request, Require};
use super::{
    ADOPT_MEMBERS_MAX, CONFIG_BYTES_MAX, EXPIRE_BATCH_MAX, NAME_BYTES_MAX, REQUIRE_VERSIONS_MAX,
    TIMEOUT_MAX,
};
use crate::time::Millis;
use crate::types::{Incarnation, ServerId, SessionId, Term};

/// A transaction, borrowed from the request it is made of or the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Txn<'a> {
    Genesis {
        birth_s: u32,
    },
    Join(JoinTxn<'a>),
    Leave {
        group: &'a [u8],
        member: &'a [u8],
        session: Option<SessionId>,
    },
    SetConfig {
        target: Target<'a>,
        config: Text<'a>,
        require: Require,
    },
    DeleteConfig {
        target: Target<'a>,
        require: Require,
    },
    DeleteGroup {
        group: &'a [u8],
    },
    /// In strictly ascending order of (group, member).
    Expire(Vec<LapseTxn<'a>>),
    Move {
        to: (ServerId, Incarnation),
        /// In strictly ascending order of (group, member).
        lapses: Vec<LapseTxn<'a>>,
    },
    Adopt(AdoptTxn<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdoptTxn<'a> {
    pub(super) server: ServerId,
    pub(super) incarnation: Incarnation,
    pub(super) after: Option<(&'a [u8], &'a [u8])>,
    /// 1 to `ADOPT_MEMBERS_MAX`.
    pub(super) limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JoinTxn<'a> {
    pub(super) group: &'a [u8],
    pub(super) member: &'a [u8],
    pub(super) owner: ServerId,
    pub(super) incarnation: Incarnation,
    /// For a new session, and for an old one unless `keep_timeout`.
    pub(super) timeout: Millis,
    pub(super) keep_timeout: bool,
    pub(super) takeover: bool,
    pub(super) only_if_absent: bool,
    pub(super) config: Option<Text<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LapseTxn<'a> {
    pub(super) group: &'a [u8],
    pub(super) member: &'a [u8],
    pub(super) id: SessionId,
    pub(super) term: Term,
}

/// Whose config is meant: a member's, or with no member the group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) group: &'a [u8],
    pub(super) member: Option<&'a [u8]>,
}

/// A config to be written, with the verdict on its form. The server that takes the request
/// judges once and the verdict is replicated, so that servers of different make show the same document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) json: bool,
}

impl<'a> Txn<'a> {
    /// The transaction that carries out `request`, whose every limit is checked here.
    pub(super) fn of(request: &'a Request, default_timeout: Millis) -> Result<Self, Refusal> {
        Ok(match request {
            Request::Join(join) => {
                let timeout = join.timeout.unwrap_or(default_timeout);
                if timeout == Millis(0) || timeout > TIMEOUT_MAX {
                    return Err(Refusal::BadTimeout);
                }
                Txn::Join(JoinTxn {
                    group: checked_name(&join.group)?,
                    member: checked_name(&join.member)?,
                    owner: join.owner,
                    incarnation: join.incarnation,
                    timeout,
                    keep_timeout: join.timeout.is_none(),
                    takeover: join.takeover,
                    only_if_absent: join.only_if_absent,
                    config: join.config.as_deref().map(Text::checked).transpose()?,
                })
            }
            Request::Leave {
                group,
                member,
                session,
            } => Txn::Leave {
                group: checked_name(group)?,
                member: checked_name(member)?,
                session: *session,
            },
            Request::SetConfig {
                group,
                member,
                bytes,
                require,
            } => Txn::SetConfig {
                target: Target::checked(group, member.as_deref())?,
                config: Text::checked(bytes)?,
                require: checked_require(require)?,
            },
            Request::DeleteConfig {
                group,
                member,
                require,
            } => Txn::DeleteConfig {
                target: Target::checked(group, member.as_deref())?,
                require: checked_require(require)?,
            },
            Request::DeleteGroup { group } => Txn::DeleteGroup {
                group: checked_name(group)?,
            },
            Request::Expire(lapses) => Txn::Expire(sorted(lapses)?),
            Request::Move {
                owner,
                incarnation,
                lapses,
            } => Txn::Move {
                to: (*owner, *incarnation),
                lapses: sorted(lapses)?,
            },
            Request::Adopt {
                server,
                incarnation,
                after,
                limit,
            } => Txn::Adopt(AdoptTxn {
                server: *server,
                incarnation: *incarnation,
                after: after.as_ref().map(checked_place).transpose()?,
                limit: (*limit).clamp(1, ADOPT_MEMBERS_MAX),
            }),
            Request::Genesis { birth_s } => Txn::Genesis { birth_s: *birth_s },
        })
    }

    /// Appends the bytes drawn above.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        match self {
            Txn::Genesis { birth_s } => {
                out.push(GENESIS);
                out.extend_from_slice(&birth_s.to_be_bytes());
            }
            Txn::Join(join) => join.encode(out),
            Txn::Leave {
                group,
                member,
                session,
            } => {
                out.extend_from_slice(&[LEAVE, flag(session.is_some(), HAS_SESSION)]);
                put_name(out, group);
                put_name(out, member);
                if let Some(id) = session {
                    out.extend_from_slice(&id.to_bytes());
                }
            }
            Txn::SetConfig {
                target,
                config,
                require,
            } => {
                let flags = target.flags() | flag(config.json, IS_JSON);
                out.extend_from_slice(&[SET_CONFIG, flags]);
                target.encode(out);
                put_require(out, require);
                put_text(out, config.bytes);
            }
            Txn::DeleteConfig { target, require } => {
                out.extend_from_slice(&[DELETE_CONFIG, target.flags()]);
                target.encode(out);
                put_require(out, require);
            }
            Txn::DeleteGroup { group } => {
                out.push(DELETE_GROUP);
                put_name(out, group);
            }
            Txn::Expire(lapses) => {
                out.push(EXPIRE);
                encode_lapses(lapses, out);
            }
            Txn::Move { to, lapses } => {
                out.push(MOVE);
                put_run(out, *to);
                encode_lapses(lapses, out);
            }
            Txn::Adopt(adopt) => adopt.encode(out),
        }
    }

    /// Reads what [`Txn::encode`] wrote: all of it, and nothing else.
    ///
    /// # Errors
    /// `Corrupt` at the first byte that could not have been written. No more memory is
    /// taken than the bytes could rightly ask for.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        if r.byte()? != FORMAT {
            return Err(r.corrupt("a transaction of another format"));
        }
        let txn = match r.byte()? {
            GENESIS => Txn::Genesis {
                birth_s: u32::from_be_bytes(r.array()?),
            },
            JOIN => Txn::Join(JoinTxn::decode(r)?),
            LEAVE => {
                let flags = known_flags(r, HAS_SESSION)?;
                Txn::Leave {
                    group: r.name()?,
                    member: r.name()?,
                    session: match flags & HAS_SESSION {
                        0 => None,
                        _ => Some(SessionId::from_bytes(r.array()?)),
                    },
                }
            }
            SET_CONFIG => {
                let flags = known_flags(r, HAS_MEMBER | IS_JSON)?;
                let target = Target::decode(r, flags)?;
                let require = read_require(r)?;
                let config = Text::decode(r, flags)?;
                Txn::SetConfig {
                    target,
                    config,
                    require,
                }
            }
            DELETE_CONFIG => {
                let flags = known_flags(r, HAS_MEMBER)?;
                Txn::DeleteConfig {
                    target: Target::decode(r, flags)?,
                    require: read_require(r)?,
                }
            }
            DELETE_GROUP => Txn::DeleteGroup { group: r.name()? },
            EXPIRE => Txn::Expire(decode_lapses(r)?),
            MOVE => Txn::Move {
                to: read_run(r)?,
                lapses: decode_lapses(r)?,
            },
            ADOPT => Txn::Adopt(AdoptTxn::decode(r)?),
            _ => return Err(r.corrupt("a transaction of unknown kind")),
        };
        if !reader.is_empty() {
            return Err(reader.corrupt("more bytes than the transaction has"));
        }
        Ok(txn)
    }
}

/// Whether a transaction may be proposed again when nobody knows whether it was committed: it
/// does no harm if it was.
///
/// That is so where it names what it changes for good: a session in its term, a run, the
/// founding. It is not so for what clients ask. Another client may have changed the same since,
/// and the repetition would undo that; or it would be answered with an error for what was done.
/// Bytes that are no transaction are not repeatable.
#[must_use]
pub fn is_repeatable(txn: &[u8]) -> bool {
    matches!(
        Txn::decode(txn),
        Ok(Txn::Genesis { .. } | Txn::Expire(_) | Txn::Move { .. } | Txn::Adopt(_))
    )
}

/// Group and member of a transaction that is a join.
#[must_use]
pub fn joins(txn: &[u8]) -> Option<(&[u8], &[u8])> {
    match Txn::decode(txn) {
        Ok(Txn::Join(join)) => Some((join.group, join.member)),
        _ => None,
    }
}

impl<'a> JoinTxn<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let flags = flag(self.keep_timeout, KEEP_TIMEOUT)
            | flag(self.takeover, TAKEOVER)
            | flag(self.only_if_absent, ONLY_IF_ABSENT)
            | flag(self.config.is_some(), HAS_CONFIG)
            | flag(self.config.is_some_and(|c| c.json), IS_JSON);
        out.extend_from_slice(&[JOIN, flags]);
        put_name(out, self.group);
        put_name(out, self.member);
        put_run(out, (self.owner, self.incarnation));
        put_varint(out, self.timeout.0);
        if let Some(config) = self.config {
            put_text(out, config.bytes);
        }
    }

    fn decode(r: &mut Reader<'a>) -> Result<Self, Corrupt> {
        let known = KEEP_TIMEOUT | TAKEOVER | ONLY_IF_ABSENT | HAS_CONFIG | IS_JSON;
        let flags = known_flags(r, known)?;
        if flags & (HAS_CONFIG | IS_JSON) == IS_JSON {
            return Err(r.corrupt("the form of a config that is not there"));
        }
        let (group, member) = (r.name()?, r.name()?);
        let (owner, incarnation) = read_run(r)?;
        Ok(JoinTxn {
            group,
            member,
            owner,
            incarnation,
            timeout: read_timeout(r)?,
            keep_timeout: flags & KEEP_TIMEOUT != 0,
            takeover: flags & TAKEOVER != 0,
            only_if_absent: flags & ONLY_IF_ABSENT != 0,
            config: match flags & HAS_CONFIG {
                0 => None,
                _ => Some(Text::decode(r, flags)?),
            },
        })
    }
}

impl<'a> AdoptTxn<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[ADOPT, flag(self.after.is_some(), HAS_PLACE)]);
        put_run(out, (self.server, self.incarnation));
        put_varint(out, u64::from(self.limit));
        if let Some((group, member)) = self.after {
            put_name(out, group);
            put_name(out, member);
        }
    }

    fn decode(r: &mut Reader<'a>) -> Result<Self, Corrupt> {
        let flags = known_flags(r, HAS_PLACE)?;
        let (server, incarnation) = read_run(r)?;
        let limit = r.varint_u32()?;
        if limit == 0 || limit > ADOPT_MEMBERS_MAX {
            return Err(r.corrupt("a limit out of bounds"));
        }
        Ok(AdoptTxn {
            server,
            incarnation,
            limit,
            after: match flags & HAS_PLACE {
                0 => None,
                _ => Some((r.name()?, r.name_or_none()?)),
            },
        })
    }
}

impl<'a> Target<'a> {
    fn checked(group: &'a [u8], member: Option<&'a [u8]>) -> Result<Self, Refusal> {
        Ok(Target {
            group: checked_name(group)?,
            member: member.map(checked_name).transpose()?,
        })
    }

    fn flags(&self) -> u8 {
        flag(self.member.is_some(), HAS_MEMBER)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_name(out, self.group);
        if let Some(member) = self.member {
            put_name(out, member);
        }
    }

    fn decode(r: &mut Reader<'a>, flags: u8) -> Result<Self, Corrupt> {
        Ok(Target {
            group: r.name()?,
            member: match flags & HAS_MEMBER {
                0 => None,
                _ => Some(r.name()?),
            },
        })
    }
}

impl<'a> Text<'a> {
    fn checked(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.len() > CONFIG_BYTES_MAX {
            return Err(Refusal::ConfigTooLong);
        }
        if !is_utf8(bytes) {
            return Err(Refusal::ConfigNotUtf8);
        }
        let json = is_json_container(bytes);
        Ok(Text { bytes, json })
    }

    fn decode(r: &mut Reader<'a>, flags: u8) -> Result<Self, Corrupt> {
        Ok(Text {
            bytes: r.text(CONFIG_BYTES_MAX)?,
            json: flags & IS_JSON != 0,
        })
    }
}

/// True if the bytes are one JSON object or array, white space around it allowed, and
/// nested no deeper than [`JSON_DEPTH_MAX`]: one config must not make the whole document
/// unreadable to parsers that bound their recursion.
fn is_json_container(bytes: &[u8]) -> bool {
    let first = bytes
        .iter()
        .find(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    matches!(first, Some(b'{' | b'['))
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
        && depth_of_json(bytes) <= JSON_DEPTH_MAX
}

/// How deep the objects and arrays of valid JSON are nested.
fn depth_of_json(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn checked_name(name: &[u8]) -> Result<&[u8], Refusal> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && is_utf8(name) {
        Ok(name)
    } else {
        Err(Refusal::BadName)
    }
}

fn checked_place((group, member): &Place) -> Result<(&[u8], &[u8]), Refusal> {
    let member = match &**member {
        [] => &[],
        member => checked_name(member)?,
    };
    Ok((checked_name(group)?, member))
}

fn checked_require(require: &Require) -> Result<Require, Refusal> {
    match require {
        Require::OneOf(versions) if versions.len() > REQUIRE_VERSIONS_MAX => {
            Err(Refusal::TooManyVersions)
        }
        other => Ok(other.clone()),
    }
}

/// The lapses in the order of the document, so that each leaf of members is rebuilt once.
/// Of several for one member the newest session counts: an older one has ended before.
fn sorted(lapses: &[Lapse]) -> Result<Vec<LapseTxn<'_>>, Refusal> {
    assert!(
        lapses.len() <= EXPIRE_BATCH_MAX,
        "{} lapses at once",
        lapses.len()
    );
    let mut sorted = Vec::with_capacity(lapses.len());
    for lapse in lapses {
        sorted.push(LapseTxn {
            group: checked_name(&lapse.group)?,
            member: checked_name(&lapse.member)?,
            id: lapse.id,
            term: lapse.term,
        });
    }
    let key = |l: &LapseTxn<'_>| (std::cmp::Reverse(l.id), std::cmp::Reverse(l.term));
    sorted.sort_unstable_by(|a, b| {
        // Lapses of one group mostly share its name, and then its bytes are not looked at.
        let groups = match std::ptr::eq(a.group, b.group) {
            true => std::cmp::Ordering::Equal,
            false => a.group.cmp(b.group),
        };
        let members = || a.member.cmp(b.member);
        groups.then_with(members).then_with(|| key(a).cmp(&key(b)))
    });
    sorted.dedup_by(|later, first| (later.group, later.member) == (first.group, first.member));
    Ok(sorted)
}

fn encode_lapses(lapses: &[LapseTxn<'_>], out: &mut Vec<u8>) {
    let same_group = |a: &LapseTxn<'_>, b: &LapseTxn<'_>| a.group == b.group;
    put_varint(out, lapses.chunk_by(same_group).count() as u64);
    let mut era = 0;
    for run in lapses.chunk_by(same_group) {
        put_name(out, run[0].group);
        put_varint(out, run.len() as u64);
        for lapse in run {
            put_name(out, lapse.member);
            put_varint(out, lapse.id.era() ^ era);
            put_varint(out, lapse.id.counter());
            put_varint(out, u64::from(lapse.term.0));
            era = lapse.id.era();
        }
    }
}

fn decode_lapses<'a>(r: &mut Reader<'a>) -> Result<Vec<LapseTxn<'a>>, Corrupt> {
    let mut lapses: Vec<LapseTxn<'a>> = Vec::new();
    let mut era = 0;
    let mut last_group: &[u8] = b"";
    for _ in 0..r.varint()? {
        let group = r.name()?;
        if group <= last_group {
            return Err(r.corrupt("groups out of order"));
        }
        last_group = group;
        let members = r.varint()?;
        if members == 0 {
            return Err(r.corrupt("a group without members"));
        }
        let mut last_member: &[u8] = b"";
        // The count may lie, the bytes that are there do not.
        lapses.reserve(members.min((r.left() / LAPSE_BYTES_MIN) as u64) as usize);
        for _ in 0..members {
            let member = r.name()?;
            if member <= last_member {
                return Err(r.corrupt("members out of order"));
            }
            last_member = member;
            era ^= r.varint()?;
            let id = SessionId::from_parts(era, r.varint()?);
            let term = Term(r.varint_u32()?);
            if lapses.len() == EXPIRE_BATCH_MAX {
                return Err(r.corrupt("more sessions than one transaction may name"));
            }
            lapses.push(LapseTxn {
                group,
                member,
                id,
                term,
            });
        }
    }
    Ok(lapses)
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_require(out: &mut Vec<u8>, require: &Require) {
    match require {
        Require::Nothing => out.push(0),
        Require::Exists => out.push(1),
        Require::Absent => out.push(2),
        Require::OneOf(versions) => {
            out.extend_from_slice(&[3, versions.len() as u8]);
            for version in versions {
                put_varint(out, *version);
            }
        }
    }
}

fn read_require(r: &mut Reader<'_>) -> Result<Require, Corrupt> {
    Ok(match r.byte()? {
        0 => Require::Nothing,
        1 => Require::Exists,
        2 => Require::Absent,
        3 => {
            let count = usize::from(r.byte()?);
            if count > REQUIRE_VERSIONS_MAX {
                return Err(r.corrupt("more versions than a condition may name"));
            }
            let versions: Result<_, Corrupt> = (0..count).map(|_| r.varint()).collect();
            Require::OneOf(versions?)
        }
        _ => return Err(r.corrupt("an unknown condition")),
    })
}

fn put_run(out: &mut Vec<u8>, (server, incarnation): (ServerId, Incarnation)) {
    put_varint(out, u64::from(server.0));
    put_varint(out, incarnation.0);
}

fn read_run(r: &mut Reader<'_>) -> Result<(ServerId, Incarnation), Corrupt> {
    Ok((ServerId(r.varint_u32()?), Incarnation(r.varint()?)))
}

fn read_timeout(r: &mut Reader<'_>) -> Result<Millis, Corrupt> {
    let timeout = Millis(r.varint()?);
    if timeout == Millis(0) || timeout > TIMEOUT_MAX {
        return Err(r.corrupt("a timeout out of bounds"));
    }
    Ok(timeout)
}

fn known_flags(r: &mut Reader<'_>, known: u8) -> Result<u8, Corrupt> {
    let flags = r.byte()?;
    if flags & !known != 0 {
        return Err(r.corrupt("an unknown flag"));
    }
    Ok(flags)
}

fn flag(on: bool, flag: u8) -> u8 {
    if on { flag } else { 0 }
}

/// The shortest lapse: a name of one byte with its length, era, counter, term.
const LAPSE_BYTES_MIN: usize = 5;

const FORMAT: u8 = 2;

const GENESIS: u8 = 1;
const JOIN: u8 = 2;
const LEAVE: u8 = 3;
const SET_CONFIG: u8 = 4;
const DELETE_CONFIG: u8 = 5;
const DELETE_GROUP: u8 = 6;
const EXPIRE: u8 = 7;
const MOVE: u8 = 8;
const ADOPT: u8 = 9;

const KEEP_TIMEOUT: u8 = 1;
const HAS_SESSION: u8 = 1;
const HAS_MEMBER: u8 = 1;
const HAS_PLACE: u8 = 1;
const TAKEOVER: u8 = 2;
const ONLY_IF_ABSENT: u8 = 4;
const HAS_CONFIG: u8 = 8;
const IS_JSON: u8 = 16;

/// Deepest nesting of a config that is shown as JSON; a deeper one is shown as text. With
/// the document's own three levels it stays below the 128 that serde_json reads.
const JSON_DEPTH_MAX: usize = 100;

#[cfg(test)]
#[path = "txn_tests.rs"]
mod tests;
