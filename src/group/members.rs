//! The members of one group: packed leaves in name order.
//!
//! A member of a 24-byte name without config costs about 40 bytes: it is not an object but a
//! stretch of bytes in a *leaf*, an exactly sized allocation of at most [`LEAF_BYTES_MAX`]
//! that holds about twenty neighbours. A change builds the leaf anew (a copy of a kilobyte)
//! and leaves the old one to whoever still reads it: a snapshot or a document being sent.
//!
//! An entry, the same in a leaf and in a snapshot:
//!
//! ```text
//! offset  size  field
//! 0       1     n, length of the name, 1 to 255
//! 1       1     t, length of the tail
//! 2       n     name, UTF-8
//! 2+n     t     tail:
//!               flags u8: 1 active, 2 term follows, 4 config, 8 config is JSON,
//!                         16 config lies outside
//!               if active: epoch varint · counter varint (with the ensemble's birth they
//!                          are the session id) · timeout_ms varint ·
//!                          [term varint, if not 1] · owner varint · incarnation varint
//!               if config: its version varint, then, unless it lies outside, its bytes
//!                          to the end of the tail
//! ```
//!
//! A config longer than [`INLINE_BYTES_MAX`] lies outside: in the leaf's list of long
//! configs, in the order of the entries that have one.
//!
//! Invariants, checked by `check` in the tests: names ascend strictly; an entry is active or
//! has a config; each entry is in its one shortest encoding; no leaf of several is empty or
//! longer than [`LEAF_BYTES_MAX`]; there are as many long configs as entries that say so.

use std::cmp::Ordering;
use std::sync::Arc;

use super::codec::put_varint;
use super::ordered::{Keyed, Ordered, Pos};
use super::record::ConfigView;
use super::request::Session;
use crate::time::Millis;
use crate::types::{Incarnation, ServerId, SessionId, Term};

/// All members of a group. A small group is one leaf and nothing more.
#[derive(Clone)]
pub(super) enum Members {
    One(Leaf),
    Many(Arc<Ordered<Leaf>>),
}

/// Some neighbouring members.
#[derive(Clone, Default)]
pub(super) struct Leaf {
    /// The entries; `None` for no entry.
    packed: Option<Arc<[u8]>>,
    /// The long configs of those entries that have one; `None` for none.
    long: Long,
}

type Long = Option<Arc<Vec<Arc<[u8]>>>>;

/// Where a name is or belongs; good until the next change of the members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// The leaf.
    pos: Pos,
    /// Where in it the entry begins, or would.
    at: usize,
    /// Where the entry ends; `at` if there is none.
    end: usize,
    /// How many long configs come before it.
    long: usize,
}

/// What a change does to a member's config.
#[derive(Clone, Copy)]
pub(super) enum ConfigChange<'a> {
    /// The config stays as it is, or stays absent.
    Keep,
    /// The config is written.
    Write(ConfigView<'a>),
    /// The config goes.
    Remove,
}

/// What becomes of a member's session.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// It stays as it is, or stays absent.
    Stays,
    /// It ends: a configured member becomes inactive, another disappears.
    Ends,
    /// It becomes this one.
    Becomes(Session),
}

/// One member, decoded as far as it is asked.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    tail: &'a [u8],
    outside: Option<&'a Arc<[u8]>>,
}

impl Default for Members {
    fn default() -> Self {
        Members::One(Leaf::default())
    }
}

impl Members {
    /// Writes the member at `spot`: inserts it, or replaces it. `scratch` is any buffer.
    ///
    /// # Panics
    /// If the member would be neither active nor configured.
    pub(super) fn put(
        &mut self,
        spot: &Spot,
        name: &[u8],
        session: Option<Session>,
        config: ConfigChange<'_>,
        scratch: &mut Vec<u8>,
    ) {
        let leaf = self.leaf(spot.pos);
        let bytes = leaf.bytes();
        let old = leaf.entry(spot);
        scratch.clear();
        scratch.extend_from_slice(&bytes[..spot.at]);
        put_entry(scratch, name, session, config, old);
        scratch.extend_from_slice(&bytes[spot.end..]);
        let was_outside = old.and_then(|e| e.outside);
        let long = match config {
            ConfigChange::Keep => leaf.long.clone(),
            ConfigChange::Write(view) if view.bytes.len() > INLINE_BYTES_MAX => {
                let new = Some(Arc::from(view.bytes));
                replace_long(&leaf.long, spot.long, was_outside.is_some(), new)
            }
            _ => replace_long(&leaf.long, spot.long, was_outside.is_some(), None),
        };
        // A name after all others fills the last leaf to the brim instead of halving it.
        let appended = spot.at == bytes.len() && spot.at > 0 && self.is_last(spot.pos);
        self.settle(spot.pos, scratch, long, appended.then_some(spot.at));
    }

    /// Takes out the member at `spot`.
    pub(super) fn remove(&mut self, spot: &Spot, scratch: &mut Vec<u8>) {
        let leaf = self.leaf(spot.pos);
        let was_outside = leaf.entry(spot).is_some_and(|e| e.outside.is_some());
        let bytes = leaf.bytes();
        scratch.clear();
        scratch.extend_from_slice(&bytes[..spot.at]);
        scratch.extend_from_slice(&bytes[spot.end..]);
        let long = replace_long(&leaf.long, spot.long, was_outside, None);
        self.settle(spot.pos, scratch, long, None);
    }

    /// Goes through `names`, which ascend strictly, and does with each member's session what
    /// `fate(index, entry)` says. Each leaf is rebuilt once, however many of its members are
    /// named.
    ///
    /// # Panics
    /// If a session is to end or to become another that is not there.
    pub(super) fn revise<'n>(
        &mut self,
        names: impl Fn(usize) -> Option<&'n [u8]>,
        mut fate: impl FnMut(usize, Option<Entry<'_>>) -> Fate,
        scratch: &mut Vec<u8>,
    ) {
        let mut i = 0;
        while let Some(name) = names(i) {
            let pos = self.floor(name);
            let upper = self.next(pos).map(|next| self.leaf(next).key());
            let leaf = self.leaf(pos);
            load_all(leaf.bytes());
            let mut sweep = Sweep::new(leaf, scratch);
            while let Some(name) = names(i) {
                if upper.is_some_and(|upper| name >= upper) {
                    break;
                }
                sweep.copy_below(name);
                let entry = sweep.entry_named(name);
                match (fate(i, entry), entry) {
                    (Fate::Stays, _) => {}
                    (Fate::Ends, Some(entry)) => sweep.end_session(&entry),
                    (Fate::Becomes(session), Some(entry)) => sweep.put(&entry, session),
                    (_, None) => panic!("a session that is not there cannot change"),
                }
                i += 1;
            }
            let (changed, long) = sweep.finish();
            if changed {
                self.settle(pos, scratch, long, None);
            }
        }
    }

    /// Where `name` is or belongs.
    pub(super) fn find(&self, name: &[u8]) -> Spot {
        let pos = self.floor(name);
        let leaf = self.leaf(pos);
        let bytes = leaf.bytes();
        load_all(bytes);
        let (mut at, mut long) = (0, 0);
        while at < bytes.len() {
            let end = entry_end(bytes, at);
            match compare(name_at(bytes, at), name) {
                Ordering::Less => {}
                Ordering::Equal => return Spot { pos, at, end, long },
                Ordering::Greater => break,
            }
            long += usize::from(leaf.long.is_some() && flags_at(bytes, at) & OUTSIDE != 0);
            at = end;
        }
        Spot {
            pos,
            at,
            end: at,
            long,
        }
    }

    /// The member at `spot`, if there is one.
    pub(super) fn get(&self, spot: &Spot) -> Option<Entry<'_>> {
        self.leaf(spot.pos).entry(spot)
    }

    /// A place to read on from: after `name`, or from the start.
    pub(super) fn cursor(&self, after: Option<&[u8]>) -> Cursor {
        let Some(name) = after else {
            return Cursor::default();
        };
        let spot = self.find(name);
        let is_outside = self.get(&spot).is_some_and(|e| e.outside.is_some());
        Cursor {
            pos: Some(spot.pos),
            at: spot.end,
            long: spot.long + usize::from(is_outside),
        }
    }

    /// A place to read `name` from, if it is a member.
    pub(super) fn cursor_at(&self, name: &[u8]) -> Cursor {
        let spot = self.find(name);
        Cursor {
            pos: Some(spot.pos),
            at: spot.at,
            long: spot.long,
        }
    }

    /// The member at the cursor, which moves on; `None` at the end.
    pub(super) fn read(&self, cursor: &mut Cursor) -> Option<Entry<'_>> {
        loop {
            let leaf = self.leaf(cursor.pos?);
            let bytes = leaf.bytes();
            if cursor.at < bytes.len() {
                let spot = Spot {
                    pos: cursor.pos?,
                    at: cursor.at,
                    end: entry_end(bytes, cursor.at),
                    long: cursor.long,
                };
                let entry = leaf.entry(&spot)?;
                cursor.at = spot.end;
                cursor.long += usize::from(entry.outside.is_some());
                return Some(entry);
            }
            *cursor = Cursor {
                pos: self.next(cursor.pos?),
                ..Cursor::default()
            };
        }
    }

    /// The leaf at the cursor as bytes, if the cursor is at its beginning and it has no long
    /// configs: what a snapshot may copy whole. The cursor moves to the next leaf.
    pub(super) fn read_leaf(&self, cursor: &mut Cursor) -> Option<&[u8]> {
        let pos = cursor.pos?;
        let leaf = self.leaf(pos);
        if cursor.at != 0 || leaf.long.is_some() {
            return None;
        }
        cursor.pos = self.next(pos);
        Some(leaf.bytes())
    }

    /// Every member in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.read(&mut cursor))
    }

    /// Puts the rebuilt leaf in the place of the one at `pos`, keeping leaves neither empty
    /// nor too long nor needlessly small. `cut` is where to part a leaf that is too long.
    fn settle(&mut self, pos: Pos, bytes: &[u8], long: Long, cut: Option<usize>) {
        let too_long = bytes.len() > LEAF_BYTES_MAX;
        match self {
            Members::One(_) if too_long => {
                let mut leaves = Ordered::default();
                for part in parted(bytes, long, cut) {
                    leaves.push(part);
                }
                *self = Members::Many(Arc::new(leaves));
            }
            Members::One(leaf) => *leaf = Leaf::new(bytes, long),
            Members::Many(leaves) => {
                let leaves = Arc::make_mut(leaves);
                if bytes.is_empty() {
                    leaves.remove(pos);
                } else if too_long {
                    let mut parts = parted(bytes, long, cut).into_iter();
                    let first = parts.next().expect("there are at least two");
                    replace(leaves, pos, first);
                    if let Some(second) = parts.next() {
                        leaves.insert_after(pos, second);
                    }
                    // Further ones are rare, and `pos` may be another place by now.
                    parts.for_each(|part| leaves.insert(part));
                } else {
                    replace(leaves, pos, Leaf::new(bytes, long));
                    if bytes.len() < LEAF_BYTES_MAX / 4 {
                        merge(leaves, pos);
                    }
                }
                if leaves.len() == 1 {
                    *self = Members::One(leaves.at(Pos::FIRST).clone());
                }
            }
        }
    }

    fn leaf(&self, pos: Pos) -> &Leaf {
        match self {
            Members::One(leaf) => leaf,
            Members::Many(leaves) => leaves.at(pos),
        }
    }

    fn floor(&self, name: &[u8]) -> Pos {
        match self {
            Members::One(_) => Pos::FIRST,
            Members::Many(leaves) => leaves.floor(name).unwrap_or(Pos::FIRST),
        }
    }

    fn next(&self, pos: Pos) -> Option<Pos> {
        match self {
            Members::One(_) => None,
            Members::Many(leaves) => leaves.next(pos),
        }
    }

    fn is_last(&self, pos: Pos) -> bool {
        self.next(pos).is_none()
    }

    /// Asserts every invariant of the type.
    #[cfg(test)]
    pub(super) fn check(&self) {
        if let Members::Many(leaves) = self {
            leaves.check();
            assert!(leaves.len() > 1);
            let fits = |leaf: &Leaf| (1..=LEAF_BYTES_MAX).contains(&leaf.bytes().len());
            assert!(leaves.iter().all(fits));
        }
        if let Members::One(leaf) = self {
            assert!(leaf.bytes().len() <= LEAF_BYTES_MAX);
        }
        let mut cursor = Cursor::default();
        let mut last: Vec<u8> = Vec::new();
        while let Some(entry) = self.read(&mut cursor) {
            assert!(entry.name > &last[..]);
            last = entry.name.to_vec();
            assert!(entry.is_active() || entry.config().is_some());
            let mut again = Vec::new();
            let config = entry
                .config()
                .map_or(ConfigChange::Keep, ConfigChange::Write);
            put_entry(&mut again, entry.name, entry.session(7), config, None);
            assert_eq!(&again[2 + entry.name.len()..], entry.tail);
        }
    }
}

/// A place in the members of one group that is not changed meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pos: Option<Pos>,
    at: usize,
    long: usize,
}

impl Default for Cursor {
    fn default() -> Self {
        Cursor {
            pos: Some(Pos::FIRST),
            at: 0,
            long: 0,
        }
    }
}

impl Leaf {
    fn new(bytes: &[u8], long: Long) -> Leaf {
        let packed = (!bytes.is_empty()).then(|| Arc::from(bytes));
        Leaf { packed, long }
    }

    fn bytes(&self) -> &[u8] {
        self.packed.as_deref().unwrap_or_default()
    }

    fn entry(&self, spot: &Spot) -> Option<Entry<'_>> {
        if spot.at == spot.end {
            return None;
        }
        let bytes = self.bytes();
        let name = name_at(bytes, spot.at);
        let tail = &bytes[spot.at + 2 + name.len()..spot.end];
        let outside = match tail[0] & OUTSIDE {
            0 => None,
            _ => self.long.as_ref().map(|long| &long[spot.long]),
        };
        Some(Entry {
            name,
            tail,
            outside,
        })
    }
}

impl Keyed for Leaf {
    fn key(&self) -> &[u8] {
        match self.bytes() {
            [] => &[],
            bytes => name_at(bytes, 0),
        }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn is_active(&self) -> bool {
        self.tail[0] & ACTIVE != 0
    }

    /// The session of an active member of the ensemble founded at `birth_s`.
    pub(super) fn session(&self, birth_s: u32) -> Option<Session> {
        if !self.is_active() {
            return None;
        }
        let mut at = 1;
        let mut next = || varint_at(self.tail, &mut at);
        let era = (u64::from(birth_s) << 32) | next();
        let id = SessionId::from_parts(era, next());
        let timeout = Millis(next());
        let term = match self.tail[0] & TERM {
            0 => FIRST_TERM,
            _ => Term(next() as u32),
        };
        Some(Session {
            id,
            term,
            timeout,
            owner: ServerId(next() as u32),
            incarnation: Incarnation(next()),
        })
    }

    pub(super) fn config(&self) -> Option<ConfigView<'a>> {
        let mut at = self.config_at()?;
        let version = varint_at(self.tail, &mut at);
        Some(ConfigView {
            bytes: match self.outside {
                Some(outside) => outside,
                None => &self.tail[at..],
            },
            version,
            json: self.tail[0] & JSON != 0,
        })
    }

    /// The config that lies outside the entry.
    pub(super) fn outside(&self) -> Option<&'a [u8]> {
        self.outside.map(|outside| &outside[..])
    }

    /// Appends the entry as it stands in the leaf, without a config that lies outside.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.name.len() as u8, self.tail.len() as u8]);
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.tail);
    }

    /// Who owns the session of an active member; quicker than the whole session.
    pub(super) fn owner(&self) -> Option<(ServerId, Incarnation)> {
        if !self.is_active() {
            return None;
        }
        let mut at = 1;
        // Epoch, counter, timeout, and the term if there is one.
        for _ in 0..3 + usize::from(self.tail[0] & TERM != 0) {
            varint_at(self.tail, &mut at);
        }
        let server = ServerId(varint_at(self.tail, &mut at) as u32);
        Some((server, Incarnation(varint_at(self.tail, &mut at))))
    }

    fn config_at(&self) -> Option<usize> {
        let flags = self.tail[0];
        if flags & CONFIG == 0 {
            return None;
        }
        let mut at = 1;
        if flags & ACTIVE != 0 {
            for _ in 0..5 + usize::from(flags & TERM != 0) {
                varint_at(self.tail, &mut at);
            }
        }
        Some(at)
    }
}

/// Builds one leaf anew with the sessions of some members ended.
struct Sweep<'a> {
    leaf: &'a Leaf,
    out: &'a mut Vec<u8>,
    /// The next entry not yet copied, and the number of long configs before it.
    at: usize,
    long_at: usize,
    changed: bool,
}

impl<'a> Sweep<'a> {
    fn new(leaf: &'a Leaf, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Sweep {
            leaf,
            out,
            at: 0,
            long_at: 0,
            changed: false,
        }
    }

    /// Copies the entries below `name`.
    fn copy_below(&mut self, name: &[u8]) {
        let bytes = self.leaf.bytes();
        let from = self.at;
        while self.at < bytes.len() && name_at(bytes, self.at) < name {
            self.long_at += usize::from(flags_at(bytes, self.at) & OUTSIDE != 0);
            self.at = entry_end(bytes, self.at);
        }
        self.out.extend_from_slice(&bytes[from..self.at]);
    }

    /// The next entry, if it has this name.
    fn entry_named(&self, name: &[u8]) -> Option<Entry<'a>> {
        let bytes = self.leaf.bytes();
        if self.at == bytes.len() || name_at(bytes, self.at) != name {
            return None;
        }
        self.leaf.entry(&Spot {
            pos: Pos::FIRST,
            at: self.at,
            end: entry_end(bytes, self.at),
            long: self.long_at,
        })
    }

    /// Passes over the next entry, which is `entry`, and writes it with another session.
    fn put(&mut self, entry: &Entry<'_>, session: Session) {
        debug_assert!(entry.is_active());
        let old = Some(*entry);
        put_entry(self.out, entry.name, Some(session), ConfigChange::Keep, old);
        self.long_at += usize::from(entry.outside.is_some());
        self.at = entry_end(self.leaf.bytes(), self.at);
        self.changed = true;
    }

    /// Passes over the next entry, which is `entry`, keeping of it what is configured.
    fn end_session(&mut self, entry: &Entry<'_>) {
        debug_assert!(entry.is_active());
        if entry.config().is_some() {
            put_entry(self.out, entry.name, None, ConfigChange::Keep, Some(*entry));
            self.long_at += usize::from(entry.outside.is_some());
        }
        self.at = entry_end(self.leaf.bytes(), self.at);
        self.changed = true;
    }

    /// Copies the rest; tells whether anything changed, and the long configs: all of them,
    /// because who has a config stays.
    fn finish(self) -> (bool, Long) {
        self.out.extend_from_slice(&self.leaf.bytes()[self.at..]);
        (self.changed, self.leaf.long.clone())
    }
}

/// Appends an entry. `old` is the one it replaces, for the config that is kept.
fn put_entry(
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
            if let Some(old) = old
                && let Some(at) = old.config_at()
            {
                flags |= old.tail[0] & (CONFIG | JSON | OUTSIDE);
                out.extend_from_slice(&old.tail[at..]);
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

/// The list with the one at `at` dropped if it `was` there, and `new` in its place.
fn replace_long(long: &Long, at: usize, was: bool, new: Option<Arc<[u8]>>) -> Long {
    if !was && new.is_none() {
        return long.clone();
    }
    let mut list = long.as_deref().cloned().unwrap_or_default();
    list.splice(at..at + usize::from(was), new);
    (!list.is_empty()).then(|| Arc::new(list))
}

/// Puts `leaf` in the place of the one at `pos`.
fn replace(leaves: &mut Ordered<Leaf>, pos: Pos, leaf: Leaf) {
    let old = std::mem::replace(leaves.at_mut(pos), leaf);
    if old.key() != leaves.at(pos).key() {
        leaves.rekey(pos);
    }
}

/// Joins the small leaf at `pos` with a neighbour if both together are not long.
fn merge(leaves: &mut Ordered<Leaf>, pos: Pos) {
    let both = |left: Pos, right: Pos| {
        let bytes = leaves.at(left).bytes().len() + leaves.at(right).bytes().len();
        (bytes <= LEAF_BYTES_MAX * 3 / 4).then_some((left, right))
    };
    let with_next = leaves.next(pos).and_then(|next| both(pos, next));
    let with_previous = || {
        leaves
            .previous(pos)
            .and_then(|previous| both(previous, pos))
    };
    let Some((left, right)) = with_next.or_else(with_previous) else {
        return;
    };
    let gone = leaves.remove(right);
    // `left` comes before `right`, so unless blocks were joined it is where it was; look it
    // up by its key, which is right in either case.
    let left = leaves.floor(gone.key()).unwrap_or(left);
    let kept = leaves.at(left);
    let bytes = [kept.bytes(), gone.bytes()].concat();
    let long = match (&kept.long, &gone.long) {
        (long, None) | (None, long) => long.clone(),
        (Some(a), Some(b)) => Some(Arc::new([&a[..], &b[..]].concat())),
    };
    *leaves.at_mut(left) = Leaf::new(&bytes, long);
}

/// Parts entries that are too long for one leaf: at `cut`, or else near the middle, until
/// each part fits. One entry that has grown takes one cut; many, as when a leaf's sessions
/// all change owner, may take more.
fn parted(bytes: &[u8], long: Long, cut: Option<usize>) -> Vec<Leaf> {
    if bytes.len() <= LEAF_BYTES_MAX {
        return vec![Leaf::new(bytes, long)];
    }
    let (left, right) = bytes.split_at(cut.unwrap_or_else(|| middle(bytes)));
    let (in_left, in_right) = match long {
        None => (None, None),
        Some(long) => {
            let (mut at, mut count) = (0, 0);
            while at < left.len() {
                count += usize::from(flags_at(left, at) & OUTSIDE != 0);
                at = entry_end(left, at);
            }
            let part = |list: &[Arc<[u8]>]| (!list.is_empty()).then(|| Arc::new(list.to_vec()));
            let (first, second) = long.split_at(count);
            (part(first), part(second))
        }
    };
    let mut leaves = parted(left, in_left, None);
    leaves.extend(parted(right, in_right, None));
    leaves
}

/// The boundary between entries that is nearest to the middle.
fn middle(bytes: &[u8]) -> usize {
    let half = bytes.len() / 2;
    let (mut before, mut after) = (0, entry_end(bytes, 0));
    while after < half {
        (before, after) = (after, entry_end(bytes, after));
    }
    let before_is_nearer = half - before < after - half;
    if after == bytes.len() || (before > 0 && before_is_nearer) {
        before
    } else {
        after
    }
}

/// Builds the members of a group from entries in name order.
#[derive(Default)]
pub(super) struct Builder {
    leaves: Ordered<Leaf>,
    bytes: Vec<u8>,
    long: Vec<Arc<[u8]>>,
}

impl Builder {
    /// Appends a member after all others.
    pub(super) fn push(
        &mut self,
        name: &[u8],
        session: Option<Session>,
        config: Option<ConfigView<'_>>,
    ) {
        let change = config.map_or(ConfigChange::Remove, ConfigChange::Write);
        let before = self.bytes.len();
        put_entry(&mut self.bytes, name, session, change, None);
        if self.bytes.len() > LEAF_BYTES_BUILT && before > 0 {
            let last = self.bytes.split_off(before);
            self.flush();
            self.bytes = last;
        }
        if let Some(view) = config.filter(|c| c.bytes.len() > INLINE_BYTES_MAX) {
            self.long.push(Arc::from(view.bytes));
        }
    }

    /// The members, and the builder as new.
    pub(super) fn finish(&mut self) -> Members {
        if self.leaves.len() == 0 {
            let members = Members::One(self.leaf());
            self.bytes.clear();
            return members;
        }
        self.flush();
        Members::Many(Arc::new(std::mem::take(&mut self.leaves)))
    }

    fn flush(&mut self) {
        let leaf = self.leaf();
        self.leaves.push(leaf);
        self.bytes.clear();
    }

    fn leaf(&mut self) -> Leaf {
        let long = std::mem::take(&mut self.long);
        let long = (!long.is_empty()).then(|| Arc::new(long));
        Leaf::new(&self.bytes, long)
    }
}

/// Loads every cache line of a leaf at once. The search that follows knows the place of the
/// next entry only when it has read this one, and would wait for each line in turn.
#[inline]
fn load_all(bytes: &[u8]) {
    let lines = bytes.iter().step_by(CACHE_LINE_BYTES);
    std::hint::black_box(lines.fold(0, |all, byte| all ^ byte));
}

/// `a.cmp(b)`, eight bytes at a time and inline: a leaf is searched entry by entry, and a
/// call for each would cost more than the comparison.
#[inline]
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (a_words, a_rest) = a.as_chunks::<8>();
    let (b_words, b_rest) = b.as_chunks::<8>();
    for (x, y) in a_words.iter().zip(b_words) {
        if x != y {
            return u64::from_be_bytes(*x).cmp(&u64::from_be_bytes(*y));
        }
    }
    let shared = 8 * a_words.len().min(b_words.len());
    if a_words.len() == b_words.len() {
        a_rest.cmp(b_rest)
    } else {
        a[shared..].cmp(&b[shared..])
    }
}

fn name_at(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at + 2..at + 2 + usize::from(bytes[at])]
}

fn entry_end(bytes: &[u8], at: usize) -> usize {
    at + 2 + usize::from(bytes[at]) + usize::from(bytes[at + 1])
}

fn flags_at(bytes: &[u8], at: usize) -> u8 {
    bytes[at + 2 + usize::from(bytes[at])]
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

/// The term of a session that has never changed owner.
pub(super) const FIRST_TERM: Term = Term(1);

/// Longest leaf of more than one entry, in bytes. With the reference counts in front it
/// stays within the sizes that the allocator serves from its quick lists (1,032 bytes), and
/// about twenty members share the 60 bytes that a leaf costs besides.
const LEAF_BYTES_MAX: usize = 1_000;

/// How full a leaf is built from a snapshot: room for two or three members more.
const LEAF_BYTES_BUILT: usize = 900;

/// Longest config that is kept within the entry.
pub(super) const INLINE_BYTES_MAX: usize = 180;

const CACHE_LINE_BYTES: usize = 64;

/// The longest tail: flags, epoch, counter, timeout, term, owner, incarnation, version.
const TAIL_BYTES_MAX: usize = 1 + 5 + 10 + 5 + 5 + 5 + 10 + 10 + INLINE_BYTES_MAX;
const _: () = assert!(TAIL_BYTES_MAX <= 255);
/// Two entries fit a leaf, so that one grown too long by an entry, parted nearest to its
/// middle, makes two that are not.
const _: () = assert!(2 + 255 + TAIL_BYTES_MAX <= LEAF_BYTES_MAX / 2);

pub(super) const ACTIVE: u8 = 1;
pub(super) const TERM: u8 = 2;
pub(super) const CONFIG: u8 = 4;
pub(super) const JSON: u8 = 8;
pub(super) const OUTSIDE: u8 = 16;

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
