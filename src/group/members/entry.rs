//! One member: how it is written, plainly and packed, and how it is read.

use std::sync::Arc;

use super::super::codec::put_varint;
use super::super::record::ConfigView;
use super::super::request::Session;
use super::ConfigChange;
use crate::time::Millis;
use crate::types::{Incarnation, ServerId, SessionId, Term};

/// One member, decoded as far as it is asked.
#[derive(Clone, Copy)]
pub(in crate::group) struct Entry<'a> {
    pub(in crate::group) name: Name<'a>,
    pub(super) tail: Tail<'a>,
    pub(super) outside: Option<&'a Arc<[u8]>>,
}

/// A member's name: what its leaf's names begin with, and the rest.
#[derive(Clone, Copy, Debug)]
pub(in crate::group) struct Name<'a> {
    prefix: &'a [u8],
    rest: &'a [u8],
}

/// Room for a name that is put together.
pub(in crate::group) struct NameBuf([u8; NAME_BYTES_MAX]);

/// What an entry says behind its name.
#[derive(Clone, Copy)]
pub(super) enum Tail<'a> {
    /// Everything, as `mod.rs` draws it.
    Whole(&'a [u8]),
    /// A session like the leaf's model but for its counter, and no config.
    Like(Model<'a>, &'a [u8]),
}

/// What most sessions of a leaf have in common: the bytes of a whole tail before the counter
/// and behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model<'a> {
    /// [`ACTIVE`], and [`TERM`] if `rest` has a term.
    pub(super) flags: u8,
    pub(super) epoch: &'a [u8],
    pub(super) rest: &'a [u8],
}

/// A model that lies in no leaf yet.
pub(super) struct Kind {
    /// The tail of a session of this kind.
    tail: Vec<u8>,
    epoch_end: usize,
    rest_at: usize,
}

impl<'a> Entry<'a> {
    pub(in crate::group) fn is_active(&self) -> bool {
        self.flags() & ACTIVE != 0
    }

    /// The session of an active member of the ensemble founded at `birth_s`.
    pub(in crate::group) fn session(&self, birth_s: u32) -> Option<Session> {
        if !self.is_active() {
            return None;
        }
        let (epoch, counter, rest) = match self.tail {
            Tail::Whole(tail) => {
                let mut at = 1;
                let epoch = varint_at(tail, &mut at);
                (epoch, varint_at(tail, &mut at), &tail[at..])
            }
            Tail::Like(model, counter) => {
                let epoch = varint_at(model.epoch, &mut 0);
                (epoch, number(counter), model.rest)
            }
        };
        let mut at = 0;
        let mut next = || varint_at(rest, &mut at);
        let timeout = Millis(next());
        let term = match self.flags() & TERM {
            0 => FIRST_TERM,
            _ => Term(next() as u32),
        };
        Some(Session {
            id: SessionId::from_parts((u64::from(birth_s) << 32) | epoch, counter),
            term,
            timeout,
            owner: ServerId(next() as u32),
            incarnation: Incarnation(next()),
        })
    }

    pub(in crate::group) fn config(&self) -> Option<ConfigView<'a>> {
        let Tail::Whole(tail) = self.tail else {
            return None;
        };
        let mut at = config_at(tail)?;
        let version = varint_at(tail, &mut at);
        Some(ConfigView {
            bytes: match self.outside {
                Some(outside) => outside,
                None => &tail[at..],
            },
            version,
            json: tail[0] & JSON != 0,
        })
    }

    /// The config that lies outside the entry.
    pub(in crate::group) fn outside(&self) -> Option<&'a [u8]> {
        self.outside.map(|outside| &outside[..])
    }

    /// Appends the entry as it is written plainly, without a config that lies outside.
    pub(in crate::group) fn write(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[self.name.len() as u8, 0]);
        self.name.write(out);
        let tail_at = out.len();
        match self.tail {
            Tail::Whole(tail) => out.extend_from_slice(tail),
            Tail::Like(model, counter) => {
                out.push(model.flags);
                out.extend_from_slice(model.epoch);
                put_varint(out, number(counter));
                out.extend_from_slice(model.rest);
            }
        }
        out[begin + 1] = (out.len() - tail_at) as u8;
    }

    pub(in crate::group) fn has_config(&self) -> bool {
        self.flags() & CONFIG != 0
    }

    /// Who owns the session of an active member; quicker than the whole session.
    pub(in crate::group) fn owner(&self) -> Option<(ServerId, Incarnation)> {
        if !self.is_active() {
            return None;
        }
        // Epoch and counter, unless they are apart, then timeout and the term if there is one.
        let (tail, mut at, before) = match self.tail {
            Tail::Whole(tail) => (tail, 1, 3),
            Tail::Like(model, _) => (model.rest, 0, 1),
        };
        for _ in 0..before + usize::from(self.flags() & TERM != 0) {
            varint_at(tail, &mut at);
        }
        let server = ServerId(varint_at(tail, &mut at) as u32);
        Some((server, Incarnation(varint_at(tail, &mut at))))
    }

    fn flags(&self) -> u8 {
        match self.tail {
            Tail::Whole(tail) => tail[0],
            Tail::Like(model, _) => model.flags,
        }
    }
}

impl<'a> Name<'a> {
    pub(super) fn new(prefix: &'a [u8], rest: &'a [u8]) -> Name<'a> {
        Name { prefix, rest }
    }

    pub(super) fn len(&self) -> usize {
        self.prefix.len() + self.rest.len()
    }

    /// True if it is `name`.
    pub(in crate::group) fn is(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.prefix) == Some(self.rest)
    }

    /// The name in one piece, put together in `buf`.
    pub(in crate::group) fn whole<'b>(&self, buf: &'b mut NameBuf) -> &'b [u8] {
        let whole = &mut buf.0[..self.len()];
        let (prefix, rest) = whole.split_at_mut(self.prefix.len());
        prefix.copy_from_slice(self.prefix);
        rest.copy_from_slice(self.rest);
        whole
    }

    pub(in crate::group) fn to_vec(self) -> Vec<u8> {
        [self.prefix, self.rest].concat()
    }

    /// The name in two parts, which may part a character.
    pub(in crate::group) fn parts(&self) -> [&'a [u8]; 2] {
        [self.prefix, self.rest]
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix);
        out.extend_from_slice(self.rest);
    }
}

impl NameBuf {
    pub(in crate::group) fn new() -> NameBuf {
        NameBuf([0; NAME_BYTES_MAX])
    }
}

impl Kind {
    pub(super) fn of(session: Session) -> Kind {
        let mut tail = Vec::with_capacity(TAIL_BYTES_MAX);
        put_entry(&mut tail, b"", Some(session), ConfigChange::Remove, None);
        tail.drain(..2);
        let mut at = 1;
        varint_at(&tail, &mut at);
        let epoch_end = at;
        varint_at(&tail, &mut at);
        Kind {
            tail,
            epoch_end,
            rest_at: at,
        }
    }

    pub(super) fn model(&self) -> Model<'_> {
        Model {
            flags: self.tail[0],
            epoch: &self.tail[1..self.epoch_end],
            rest: &self.tail[self.rest_at..],
        }
    }
}

impl<'a> Model<'a> {
    /// The model after which a whole tail would be one of its kind, and the tail's counter;
    /// `None` for a member with a config, or without a session.
    pub(super) fn of(tail: &'a [u8]) -> Option<(Model<'a>, u64)> {
        if !Model::may_stand_for(tail[0]) {
            return None;
        }
        let mut at = 1;
        varint_at(tail, &mut at);
        let epoch = &tail[1..at];
        let counter = varint_at(tail, &mut at);
        let model = Model {
            flags: tail[0],
            epoch,
            rest: &tail[at..],
        };
        Some((model, counter))
    }

    /// True if it is this session's.
    pub(super) fn is_of(&self, session: &Session) -> bool {
        let mut at = 0;
        let mut next = || varint_at(self.rest, &mut at);
        varint_at(self.epoch, &mut 0) == session.id.era() & u64::from(u32::MAX)
            && next() == session.timeout.0
            && match self.flags & TERM {
                0 => session.term == FIRST_TERM,
                _ => next() == u64::from(session.term.0),
            }
            && next() == u64::from(session.owner.0)
            && next() == session.incarnation.0
    }

    /// Whether an entry with these flags could be like a model.
    pub(super) fn may_stand_for(flags: u8) -> bool {
        flags & !TERM == ACTIVE
    }
}

/// Appends an entry, plainly. `old` is the one it replaces, for the config that is kept.
pub(super) fn put_entry(
    out: &mut Vec<u8>,
    name: &[u8],
    session: Option<Session>,
    config: ConfigChange<'_>,
    old: Option<Entry<'_>>,
) {
    let len = u8::try_from(name.len()).expect("names were checked to be at most 255 bytes");
    out.extend_from_slice(&[len, 0]);
    out.extend_from_slice(name);
    let tail = out.len();
    out.push(0);
    let mut flags = 0;
    if let Some(session) = session {
        flags |= ACTIVE;
        put_varint(out, session.id.era() & u64::from(u32::MAX));
        put_varint(out, session.id.counter());
        put_varint(out, session.timeout.0);
        if session.term != FIRST_TERM {
            flags |= TERM;
            put_varint(out, u64::from(session.term.0));
        }
        put_varint(out, u64::from(session.owner.0));
        put_varint(out, session.incarnation.0);
    }
    match config {
        ConfigChange::Keep => {
            if let Some(Tail::Whole(old)) = old.map(|old| old.tail)
                && let Some(at) = config_at(old)
            {
                flags |= old[0] & (CONFIG | JSON | OUTSIDE);
                out.extend_from_slice(&old[at..]);
            }
        }
        ConfigChange::Write(view) => {
            flags |= CONFIG | if view.json { JSON } else { 0 };
            put_varint(out, view.version);
            if view.bytes.len() > INLINE_BYTES_MAX {
                flags |= OUTSIDE;
            } else {
                out.extend_from_slice(view.bytes);
            }
        }
        ConfigChange::Remove => {}
    }
    assert!(flags & (ACTIVE | CONFIG) != 0, "a member that is nothing");
    out[tail] = flags;
    let tail_len = out.len() - tail;
    out[tail - name.len() - 1] = u8::try_from(tail_len).expect("INLINE_BYTES_MAX sees to it");
}

/// Appends an entry as a leaf with this `model` packs it, without the first `skip` bytes of its
/// name. True if it is unlike the model: a session that another could stand for.
pub(super) fn put_packed(
    out: &mut Vec<u8>,
    (name, skip): (&[u8], usize),
    session: Option<Session>,
    config: ConfigChange<'_>,
    old: Option<Entry<'_>>,
    model: Option<Model<'_>>,
) -> bool {
    let has_config = match config {
        ConfigChange::Keep => old.is_some_and(|old| old.has_config()),
        ConfigChange::Write(_) => true,
        ConfigChange::Remove => false,
    };
    if let (Some(session), Some(model)) = (session, model)
        && !has_config
        && model.is_of(&session)
    {
        let rest = &name[skip..];
        let counter = session.id.counter();
        let zeros = counter.leading_zeros() as usize / 8;
        let len = size_of::<u64>() - zeros;
        out.extend_from_slice(&[rest.len() as u8, LIKE + len as u8]);
        out.extend_from_slice(rest);
        out.extend_from_slice(&counter.to_be_bytes()[zeros..]);
        return false;
    }
    let begin = out.len();
    put_entry(out, name, session, config, old);
    squeeze(out, begin, skip, model)
}

/// Packs the plain entry that `out` ends with, from `begin` on: leaves out the first `skip`
/// bytes of its name, and of a session like `model` all but the counter. True if it is unlike:
/// a session that another model could stand for.
pub(super) fn squeeze(
    out: &mut Vec<u8>,
    begin: usize,
    skip: usize,
    model: Option<Model<'_>>,
) -> bool {
    let name_len = usize::from(out[begin]);
    let tail_at = begin + 2 + name_len;
    let found = Model::of(&out[tail_at..]);
    let like = found.filter(|(kind, _)| Some(*kind) == model);
    let is_unlike = found.is_some() && like.is_none();
    if let Some((_, counter)) = like {
        let bytes = counter.to_be_bytes();
        let zeros = counter.leading_zeros() as usize / 8;
        out.truncate(tail_at);
        out.extend_from_slice(&bytes[zeros..]);
        out[begin + 1] = LIKE + (bytes.len() - zeros) as u8;
    }
    let name_at = begin + 2;
    out.copy_within(name_at + skip.., name_at);
    out.truncate(out.len() - skip);
    out[begin] = (name_len - skip) as u8;
    is_unlike
}

/// Where the config begins in a whole tail.
fn config_at(tail: &[u8]) -> Option<usize> {
    let flags = tail[0];
    if flags & CONFIG == 0 {
        return None;
    }
    let mut at = 1;
    if flags & ACTIVE != 0 {
        for _ in 0..5 + usize::from(flags & TERM != 0) {
            varint_at(tail, &mut at);
        }
    }
    Some(at)
}

/// Reads a varint that [`put_varint`] wrote.
fn varint_at(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// A number of at most eight bytes, big-endian, without zeros in front.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// The term of a session that has never changed owner.
pub(in crate::group) const FIRST_TERM: Term = Term(1);

/// Longest config that is kept within the entry.
pub(in crate::group) const INLINE_BYTES_MAX: usize = 180;

/// The longest name.
const NAME_BYTES_MAX: usize = 255;

/// The longest tail: flags, epoch, counter, timeout, term, owner, incarnation, version.
pub(super) const TAIL_BYTES_MAX: usize = 1 + 5 + 10 + 5 + 5 + 5 + 10 + 10 + INLINE_BYTES_MAX;

/// In the place of a tail's length: a session like the model, and so many bytes of counter
/// more than this.
pub(super) const LIKE: u8 = 240;
const _: () = assert!(TAIL_BYTES_MAX < LIKE as usize);
const _: () = assert!(LIKE as usize + size_of::<u64>() <= 255);

pub(in crate::group) const ACTIVE: u8 = 1;
pub(in crate::group) const TERM: u8 = 2;
pub(in crate::group) const CONFIG: u8 = 4;
pub(in crate::group) const JSON: u8 = 8;
pub(in crate::group) const OUTSIDE: u8 = 16;
