//! Snapshots: the whole state as a stream of bytes, the same for the same state.
//!
//! ```text
//! size  field
//! 8     "systole", 0
//! 2     format, 2, big-endian
//! 1     1 if the ensemble is founded, else 0
//! 4     birth in seconds since 1970, big-endian; 0 if it is not founded
//! 16    the last transaction applied: epoch, counter, big-endian
//! 16    the session created last, big-endian; 0 for none
//! 8     the version of the config written last, big-endian
//!       then records, each led by its letter:
//! R     the recorded run of a server, in ascending order of servers: server varint ·
//!       incarnation varint
//! G     a group, after the runs, in ascending order of names: name length u8 · name · version varint ·
//!       config u8: 0 none, 1 text, 3 JSON · [its version varint · length varint · bytes] ·
//!       members varint, then each member in ascending order of names: its entry as
//!       `members/mod.rs` draws it plainly · [if its config lies outside: length varint · bytes]
//! T     a tombstone, after the groups, in ascending order of names: name length u8 ·
//!       name · version varint · the transaction that removed the group, 16 bytes
//! E     the end: 8 bytes, big-endian, digest of all bytes before this letter
//! ```
//!
//! Nothing depends on how the state came about: not on the order of the joins, nor on how
//! members lie in leaves. The digest catches a writer and a reader that disagree; damage on
//! disk is caught before, by the checksums of the file that holds the stream.

use std::sync::Arc;

use super::codec::{Corrupt, ENDS_EARLY, Reader, put_name, put_varint};
use super::members::{
    ACTIVE, Builder, CONFIG, Cursor, Entry, INLINE_BYTES_MAX, JSON, OUTSIDE, TERM,
};
use super::ordered::{Ordered, Pos};
use super::record::{Config, ConfigView, Group, Tombstone};
use super::request::Session;
use super::runs::Runs;
use super::state::{Settings, State};
use super::{CONFIG_BYTES_MAX, TIMEOUT_MAX};
use crate::time::Millis;
use crate::types::{GroupVersion, Incarnation, ServerId, SessionId, Term, Zxid};

/// The state at one moment, and how far it is written. Shares the state's memory; may go to
/// another thread and be written there at leisure.
pub struct Snapshot {
    applied: Zxid,
    birth_s: Option<u32>,
    newest: SessionId,
    config_version: u64,
    runs: Runs,
    groups: Ordered<Arc<Group>>,
    tombstones: Ordered<Tombstone>,
    next: Next,
    digest: Digest,
}

/// What is written next.
#[derive(Clone, Copy)]
enum Next {
    Header,
    Group(Option<Pos>),
    Members(Pos, Cursor),
    Tombstone(Option<Pos>),
    End,
    Nothing,
}

impl Snapshot {
    pub(super) fn of(state: &State) -> Snapshot {
        Snapshot {
            applied: state.applied,
            birth_s: state.birth_s,
            newest: state.newest,
            config_version: state.config_version,
            runs: state.runs.clone(),
            groups: state.groups.clone(),
            tombstones: state.tombstones.clone(),
            next: Next::Header,
            digest: Digest::default(),
        }
    }

    /// The last transaction the snapshot contains.
    #[must_use]
    pub fn applied(&self) -> Zxid {
        self.applied
    }

    /// Appends the next piece of the stream, of about `budget_bytes`; true if there is more.
    ///
    /// A piece is longer than asked by at most one record, which is at most 67 KiB.
    pub fn write_into(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> bool {
        let start = out.len();
        let mut hashed = start;
        while out.len() - start < budget_bytes.max(1) {
            if let Next::End = self.next {
                self.digest.update(&out[hashed..]);
                hashed = out.len();
                out.push(b'E');
                out.extend_from_slice(&self.digest.value().to_be_bytes());
                self.next = Next::Nothing;
            }
            if let Next::Nothing = self.next {
                return false;
            }
            self.next = self.step(out);
        }
        self.digest.update(&out[hashed..]);
        true
    }

    /// Hash of all that is yet to be written; the snapshot is used up.
    pub(super) fn digest(mut self) -> u64 {
        let mut piece = Vec::with_capacity(2 * DIGEST_PIECE_BYTES);
        while self.write_into(&mut piece, DIGEST_PIECE_BYTES) {
            piece.clear();
        }
        self.digest.value()
    }

    fn step(&self, out: &mut Vec<u8>) -> Next {
        match self.next {
            Next::Header => {
                self.write_header(out);
                for (server, incarnation) in self.runs.recorded_all() {
                    out.push(b'R');
                    put_varint(out, u64::from(server.0));
                    put_varint(out, incarnation.0);
                }
                Next::Group(self.groups.first())
            }
            Next::Group(Some(pos)) => {
                write_group(self.groups.at(pos), out);
                Next::Members(pos, Cursor::default())
            }
            Next::Members(pos, mut cursor) => {
                let members = &self.groups.at(pos).members;
                if members.write_leaf(&mut cursor, out) {
                    return Next::Members(pos, cursor);
                }
                match members.read(&mut cursor) {
                    Some(entry) => {
                        write_member(&entry, out);
                        Next::Members(pos, cursor)
                    }
                    None => Next::Group(self.groups.next(pos)),
                }
            }
            Next::Group(None) => Next::Tombstone(self.tombstones.first()),
            Next::Tombstone(Some(pos)) => {
                let tombstone = self.tombstones.at(pos);
                out.push(b'T');
                put_name(out, &tombstone.name);
                put_varint(out, tombstone.version.0);
                out.extend_from_slice(&tombstone.removed_by.to_bytes());
                Next::Tombstone(self.tombstones.next(pos))
            }
            Next::Tombstone(None) => Next::End,
            Next::End | Next::Nothing => self.next,
        }
    }

    fn write_header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        out.push(u8::from(self.birth_s.is_some()));
        out.extend_from_slice(&self.birth_s.unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&self.applied.to_bytes());
        out.extend_from_slice(&self.newest.to_bytes());
        out.extend_from_slice(&self.config_version.to_be_bytes());
    }
}

fn write_group(group: &Group, out: &mut Vec<u8>) {
    out.push(b'G');
    put_name(out, &group.name);
    put_varint(out, group.version.0);
    match &group.config {
        None => out.push(0),
        Some(config) => {
            out.push(if config.json { 3 } else { 1 });
            put_varint(out, config.version);
            put_varint(out, config.bytes.len() as u64);
            out.extend_from_slice(&config.bytes);
        }
    }
    put_varint(out, group.len());
}

fn write_member(entry: &Entry<'_>, out: &mut Vec<u8>) {
    entry.write(out);
    if let Some(outside) = entry.outside() {
        put_varint(out, outside.len() as u64);
        out.extend_from_slice(outside);
    }
}

/// Rebuilds a state from the pieces of a snapshot, cut wherever.
pub struct Restore {
    state: State,
    /// What of the pieces so far did not make a whole record; less than one record long.
    rest: Vec<u8>,
    /// Bytes read before `rest`.
    offset: u64,
    expects: Expects,
    digest: Digest,
    builder: Builder,
}

/// What is read next.
enum Expects {
    Header,
    /// One of this stage or a later one.
    Record(Stage),
    Members {
        group: Group,
        left: u64,
        last: Vec<u8>,
    },
    Nothing,
}

/// The order in which records of different kinds come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Runs,
    Groups,
    Tombstones,
}

impl Restore {
    /// Begins with nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Restore {
        Restore {
            state: State::new(settings),
            rest: Vec::new(),
            offset: 0,
            expects: Expects::Header,
            digest: Digest::default(),
            builder: Builder::default(),
        }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// `Corrupt` at the first byte that no snapshot has there; the whole is then of no use.
    /// No more memory is taken than the bytes read so far could rightly ask for.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Corrupt> {
        let mut joined = std::mem::take(&mut self.rest);
        let bytes = if joined.is_empty() {
            piece
        } else {
            joined.extend_from_slice(piece);
            &joined
        };
        let mut at = 0;
        while at < bytes.len() {
            match self.read(&bytes[at..]) {
                Ok(read) => {
                    at += read;
                    self.offset += read as u64;
                }
                Err(corrupt) if corrupt.what == ENDS_EARLY => break,
                Err(corrupt) => {
                    return Err(Corrupt {
                        offset: self.offset + corrupt.offset,
                        ..corrupt
                    });
                }
            }
        }
        self.rest = bytes[at..].to_vec();
        Ok(())
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `Corrupt` if the stream has not come to its end.
    pub fn finish(self) -> Result<State, Corrupt> {
        match self.expects {
            Expects::Nothing => Ok(self.state),
            _ => Err(Corrupt {
                offset: self.offset,
                what: ENDS_EARLY,
            }),
        }
    }

    /// Reads one record from the front and tells its length.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        match &mut self.expects {
            Expects::Header => {
                self.read_header(r)?;
                self.expects = Expects::Record(Stage::Runs);
            }
            Expects::Members { group, left, last } => {
                let name = read_member(r, &mut self.state, group, last, &mut self.builder)?;
                self.state.members += 1;
                last.clear();
                last.extend_from_slice(name);
                *left -= 1;
                if *left == 0 {
                    let group = group.clone();
                    self.end_group(group);
                }
            }
            Expects::Record(stage) => {
                let stage = *stage;
                match r.byte()? {
                    b'R' if stage == Stage::Runs => self.read_run(r)?,
                    b'G' if stage <= Stage::Groups => self.read_group(r)?,
                    b'T' => {
                        self.read_tombstone(r)?;
                        self.expects = Expects::Record(Stage::Tombstones);
                    }
                    b'E' => {
                        let digest = u64::from_be_bytes(r.array()?);
                        if digest != self.digest.value() {
                            return Err(r.corrupt("a digest that does not fit"));
                        }
                        self.expects = Expects::Nothing;
                    }
                    _ => return Err(r.corrupt("a record of unknown kind")),
                }
            }
            Expects::Nothing => return Err(r.corrupt("bytes after the end")),
        }
        let read = reader.at();
        self.digest.update(&bytes[..read]);
        Ok(read)
    }

    fn read_header(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        if r.array::<8>()? != *MAGIC {
            return Err(r.corrupt("not a snapshot of systole"));
        }
        if u16::from_be_bytes(r.array()?) != FORMAT {
            return Err(r.corrupt("a snapshot of another format"));
        }
        let founded = r.byte()?;
        let birth_s = u32::from_be_bytes(r.array()?);
        self.state.birth_s = match founded {
            0 if birth_s == 0 => None,
            1 => Some(birth_s),
            _ => return Err(r.corrupt("a birth that is neither there nor not")),
        };
        self.state.applied = Zxid::from_bytes(r.array()?);
        self.state.newest = SessionId::from_bytes(r.array()?);
        self.state.config_version = bounded(r, u64::from_be_bytes)?;
        Ok(())
    }

    fn read_run(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let server = ServerId(r.varint_u32()?);
        let incarnation = Incarnation(r.varint()?);
        let runs = &mut self.state.runs;
        let before = runs.recorded_all().last();
        if before.is_some_and(|before| server <= before.0) {
            return Err(r.corrupt("servers out of order"));
        }
        if !runs.record(server, incarnation) {
            return Err(r.corrupt("more servers than there may be"));
        }
        Ok(())
    }

    fn read_group(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let name = r.name()?;
        let before = self.state.groups.last();
        if before.is_some_and(|before| name <= &before.name[..]) {
            return Err(r.corrupt("groups out of order"));
        }
        let version = read_version(r)?;
        let config = match r.byte()? {
            0 => None,
            form @ (1 | 3) => {
                let version = self.read_config_version(r)?;
                let bytes = r.text(CONFIG_BYTES_MAX)?;
                Some(Arc::new(Config {
                    version,
                    json: form == 3,
                    bytes: bytes.into(),
                }))
            }
            _ => return Err(r.corrupt("a config of unknown form")),
        };
        let left = r.varint()?;
        let limits = &self.state.limits;
        if self.state.groups.len() >= limits.groups {
            return Err(r.corrupt("more groups than there may be"));
        }
        if left > limits.members - self.state.members {
            return Err(r.corrupt("more members than there may be"));
        }
        let group = Group {
            name: name.into(),
            version: GroupVersion(version),
            active: 0,
            inactive: 0,
            config,
            members: super::members::Members::default(),
        };
        if left == 0 {
            self.end_group(group);
        } else {
            let last = Vec::new();
            self.expects = Expects::Members { group, left, last };
        }
        Ok(())
    }

    fn read_config_version(&self, r: &mut Reader<'_>) -> Result<u64, Corrupt> {
        let version = r.varint()?;
        if version == 0 || version > self.state.config_version {
            return Err(r.corrupt("a config newer than the newest"));
        }
        Ok(version)
    }

    fn end_group(&mut self, mut group: Group) {
        group.members = self.builder.finish();
        self.state.groups.push(Arc::new(group));
        self.expects = Expects::Record(Stage::Groups);
    }

    fn read_tombstone(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let name = r.name()?;
        let state = &mut self.state;
        let before = state.tombstones.last();
        if before.is_some_and(|before| name <= &before.name[..]) {
            return Err(r.corrupt("tombstones out of order"));
        }
        if state.groups.find(name).is_some() {
            return Err(r.corrupt("a tombstone of a group that is there"));
        }
        let version = GroupVersion(read_version(r)?);
        let removed_by = Zxid::from_bytes(r.array()?);
        if removed_by > state.applied || state.tombstone_ages.contains_key(&removed_by) {
            return Err(r.corrupt("a tombstone of no transaction"));
        }
        if state.tombstones.len() >= state.limits.tombstones {
            return Err(r.corrupt("more tombstones than there may be"));
        }
        state.bury(Tombstone {
            name: name.into(),
            version,
            removed_by,
        });
        Ok(())
    }
}

/// Reads one member into `builder` and counts it in `group`; its name is returned.
fn read_member<'a>(
    r: &mut Reader<'a>,
    state: &mut State,
    group: &mut Group,
    last: &[u8],
    builder: &mut Builder,
) -> Result<&'a [u8], Corrupt> {
    let [name_len, tail_len] = r.array()?;
    let name = r.take(usize::from(name_len))?;
    r.utf8(name, "a name that is not UTF-8")?;
    if name <= last {
        return Err(r.corrupt("members out of order"));
    }
    let tail = r.take(usize::from(tail_len))?;
    let mut t = Reader::new(tail);
    // Offsets within the tail are of no use to anyone, and "ends early" must not be taken
    // for the end of the piece.
    let in_tail = |_| r.corrupt("a member's tail that is malformed");
    let flags = t.byte().map_err(in_tail)?;
    let session = match flags & ACTIVE {
        0 => None,
        _ => Some(read_session(&mut t, flags, state.birth_s.unwrap_or(0)).map_err(in_tail)?),
    };
    let config_version = match flags & CONFIG {
        0 => None,
        _ => Some(t.varint().map_err(in_tail)?),
    };
    let inline = t.take(tail.len() - t.at()).map_err(in_tail)?;
    if session.is_some_and(|s| state.birth_s.is_none() || s.id > state.newest) {
        return Err(r.corrupt("a session newer than the newest"));
    }
    let known = ACTIVE | TERM | CONFIG | JSON | OUTSIDE;
    let odd = flags & !known != 0
        || flags & (ACTIVE | CONFIG) == 0
        || flags & (ACTIVE | TERM) == TERM
        || (flags & CONFIG == 0 && (flags & (JSON | OUTSIDE) != 0 || !inline.is_empty()))
        || (flags & OUTSIDE != 0 && !inline.is_empty())
        || inline.len() > INLINE_BYTES_MAX
        || config_version.is_some_and(|v| v == 0 || v > state.config_version);
    if odd {
        return Err(r.corrupt("a member that cannot be"));
    }
    let bytes = match flags & OUTSIDE {
        0 => r.utf8(inline, "a config that is not UTF-8")?,
        _ => r.text(CONFIG_BYTES_MAX)?,
    };
    if flags & OUTSIDE != 0 && bytes.len() <= INLINE_BYTES_MAX {
        return Err(r.corrupt("a short config outside its member"));
    }
    let config = config_version.map(|version| ConfigView {
        bytes,
        version,
        json: flags & JSON != 0,
    });
    if session.is_some_and(|s| !state.runs.restore(s.run())) {
        return Err(r.corrupt("a session of a run that never was"));
    }
    builder.push(name, session, config);
    group.active += u32::from(session.is_some());
    group.inactive += u32::from(session.is_none());
    Ok(name)
}

fn read_session(t: &mut Reader<'_>, flags: u8, birth_s: u32) -> Result<Session, Corrupt> {
    let era = (u64::from(birth_s) << 32) | u64::from(t.varint_u32()?);
    let id = SessionId::from_parts(era, t.varint()?);
    let timeout = Millis(t.varint()?);
    if timeout == Millis(0) || timeout > TIMEOUT_MAX {
        return Err(t.corrupt("a timeout out of bounds"));
    }
    let term = match flags & TERM {
        0 => super::members::FIRST_TERM,
        _ => Term(t.varint_u32()?),
    };
    if flags & TERM != 0 && term <= super::members::FIRST_TERM {
        return Err(t.corrupt("a term written without need"));
    }
    Ok(Session {
        id,
        term,
        timeout,
        owner: ServerId(t.varint_u32()?),
        incarnation: Incarnation(t.varint()?),
    })
}

fn read_version(r: &mut Reader<'_>) -> Result<u64, Corrupt> {
    let version = r.varint()?;
    if version > VERSION_MAX {
        return Err(r.corrupt("a version that cannot have been reached"));
    }
    Ok(version)
}

fn bounded(r: &mut Reader<'_>, of: impl Fn([u8; 8]) -> u64) -> Result<u64, Corrupt> {
    let version = of(r.array()?);
    if version > VERSION_MAX {
        return Err(r.corrupt("a version that cannot have been reached"));
    }
    Ok(version)
}

/// A hash of a stream, the same however it is cut. Quick and well spread, not secret: it
/// tells apart what chance made different, not what an enemy made alike.
#[derive(Clone, Default)]
struct Digest {
    hash: u64,
    /// The last bytes that do not fill a word, and their number.
    partial: [u8; 8],
    partial_len: usize,
    len: u64,
}

impl Digest {
    fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let mut bytes = bytes;
        if self.partial_len > 0 {
            let wanted = (8 - self.partial_len).min(bytes.len());
            let (head, rest) = bytes.split_at(wanted);
            self.partial[self.partial_len..][..wanted].copy_from_slice(head);
            self.partial_len += wanted;
            bytes = rest;
            if self.partial_len < 8 {
                return;
            }
            self.hash = mixed(self.hash, u64::from_be_bytes(self.partial));
            self.partial_len = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.hash = mixed(self.hash, u64::from_be_bytes(*word));
        }
        self.partial[..rest.len()].copy_from_slice(rest);
        self.partial_len = rest.len();
    }

    fn value(&self) -> u64 {
        let mut last = [0; 8];
        last[..self.partial_len].copy_from_slice(&self.partial[..self.partial_len]);
        mixed(mixed(self.hash, u64::from_be_bytes(last)), self.len)
    }
}

/// One round of folded multiplication (the idea of wyhash): both halves of the product.
fn mixed(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ ((product >> 64) as u64).rotate_left(17) ^ hash.rotate_left(29)
}

const MAGIC: &[u8; 8] = b"systole\0";
const FORMAT: u16 = 2;

/// No version reaches this by counting; beyond it, counting on might overflow.
const VERSION_MAX: u64 = 1 << 62;

/// Piece in which a state is written only to be hashed.
const DIGEST_PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
