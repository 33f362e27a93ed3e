//! The members of one group: packed leaves in name order.
//!
//! A member of a 24-byte name without config costs about 30 bytes, and less the more its name
//! has in common with its neighbours': it is not an object but a stretch of bytes in a *leaf*,
//! an allocation of at most [`LEAF_BYTES_MAX`] that holds some dozens of neighbours. A change
//! of one member moves what lies behind it, in place, or if a snapshot or a document being
//! sent still reads the leaf, in a copy; a change of several writes the leaf anew, once.
//!
//! An entry as it is written plainly, in a snapshot and while leaves are parted or joined:
//!
//! ```text
//! offset  size  field
//! 0       1     n, length of the name, 1 to 255
//! 1       1     t, length of the tail, at most 231
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
//! A leaf writes what its entries share once. It begins with a header:
//!
//! ```text
//! offset  size  field            (native only: a leaf is never sent nor stored)
//! 0       1     s, how many bytes all names begin with alike
//! 1       1     number of entries
//! 2       2     where the last entry ends, little-endian; what follows is room
//! 4       1     e, length of the model's epoch; 0 for no model; 128 more if a term is in it
//! 5       1     r, length of the model's rest
//! 6       1     number of entries unlike the model
//! 7       1     h, number of hints
//! 8       2h    hints, little-endian, ascending: where some entry begins, or the end
//! 8+2h    e     epoch varint
//! ···     r     timeout_ms varint · [term varint] · owner varint · incarnation varint
//! ···           the entries
//! ```
//!
//! The first entry has its name as a whole, the others leave out the first `s` bytes of
//! theirs. A session that differs from the *model* in its counter alone, of a member without
//! config, has instead of `t` the number 240 + c, and instead of a tail c bytes of counter,
//! big-endian, without zeros in front. Other sessions of such members are *unlike* the model;
//! once most entries are, the leaf is packed anew with another ([`leaf::wants_model`]).
//!
//! A search begins at the last hint that is not above the name. When a leaf is packed every
//! eighth entry has one; later it stays with its entry, wherever others come and go.
//!
//! A config longer than [`INLINE_BYTES_MAX`] lies outside: in the leaf's list of long
//! configs, in the order of the entries that have one.
//!
//! How entries lie in leaves depends on what came before, how they are written plainly does
//! not: snapshots and digests show them so.
//!
//! Invariants, checked by `check` in the tests: names ascend strictly; an entry is active or
//! has a config; each entry is plainly in its one shortest encoding; no leaf of several is
//! empty or, unless it has but one entry, longer than [`LEAF_BYTES_MAX`] or of more entries
//! than [`leaf::LEAF_ENTRIES_MAX`]; there are as many long configs as entries that say so.

mod build;
mod entry;
mod leaf;
mod sweep;

use std::sync::Arc;

use super::ordered::{Keyed, Ordered, Pos};
use super::record::ConfigView;
use super::request::Session;
use build::{merge, parted, replace};
use entry::{put_entry, put_packed};
use leaf::{LEAF_BYTES_MAX, Leaf, Long, Packed, fits, wants_model};
use sweep::{Sweep, Swept, replace_long, without_long};

pub(super) use build::Builder;
pub(super) use entry::{
    ACTIVE, CONFIG, Entry, FIRST_TERM, INLINE_BYTES_MAX, JSON, NameBuf, OUTSIDE, TERM,
};

/// All members of a group. A small group is one leaf and nothing more.
#[derive(Clone)]
pub(super) enum Members {
    One(Leaf),
    Many(Arc<Ordered<Leaf>>),
}

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
        let old = self.get(spot);
        let was_outside = old.and_then(|e| e.outside);
        let long = match config {
            ConfigChange::Keep => leaf.long.clone(),
            ConfigChange::Write(view) if view.bytes.len() > INLINE_BYTES_MAX => {
                let new = Some(Arc::from(view.bytes));
                replace_long(&leaf.long, spot.long, was_outside.is_some(), new)
            }
            _ => without_long(&leaf.long, spot.long, was_outside.is_some()),
        };
        let view = leaf.view();
        let is_first = spot.at == view.start;
        if old.is_some() || (!is_first && name.starts_with(view.prefix())) {
            // What the others share the member shares too: they stay as they are.
            scratch.clear();
            let skip = if is_first { 0 } else { view.shared };
            let is_unlike = put_packed(scratch, (name, skip), session, config, old, view.model);
            let was_unlike = old.is_some() && view.is_unlike(spot.at);
            let count = view.count() + usize::from(old.is_none());
            let unlike = view.unlike() + usize::from(is_unlike) - usize::from(was_unlike);
            let wants_model = wants_model(count, view.unlike(), unlike);
            let bytes = view.end - (spot.end - spot.at) + scratch.len();
            if fits(bytes, count) && !wants_model && !view.wants_hints(count) {
                let leaf = self.leaf_mut(spot.pos);
                leaf.long = long;
                leaf.splice((spot.at, spot.end), scratch, (count, unlike));
                return;
            }
        }
        let mut plain = Vec::with_capacity(4 * LEAF_BYTES_MAX);
        view.unpack(view.start, spot.at, &mut plain);
        let at = plain.len();
        put_entry(&mut plain, name, session, config, old);
        view.unpack(spot.end, view.end, &mut plain);
        // A name after all others fills the last leaf to the brim instead of halving it.
        let appended = spot.at == view.end && at > 0 && self.is_last(spot.pos);
        self.settle(spot.pos, &plain, long, appended.then_some(at));
    }

    /// Takes out the member at `spot`.
    pub(super) fn remove(&mut self, spot: &Spot, scratch: &mut Vec<u8>) {
        let leaf = self.leaf(spot.pos);
        let was_outside = self.get(spot).is_some_and(|e| e.outside.is_some());
        let long = without_long(&leaf.long, spot.long, was_outside);
        let view = leaf.view();
        scratch.clear();
        let count = view.count() - 1;
        if count == 0 {
            self.settle_packed(spot.pos, scratch, long);
            return;
        }
        let unlike = view.unlike() - usize::from(view.is_unlike(spot.at));
        let is_first = spot.at == view.start;
        let mut end = spot.end;
        if is_first {
            // The next becomes the first, whose name is there as a whole.
            end = view.next(spot.end);
            view.write_first(spot.end, scratch);
        }
        let leaf = self.leaf_mut(spot.pos);
        leaf.long = long;
        leaf.splice((spot.at, end), scratch, (count, unlike));
        let is_small = leaf.view().end < LEAF_BYTES_MAX / 4;
        if let Members::Many(leaves) = self
            && (is_first || is_small)
        {
            let leaves = Arc::make_mut(leaves);
            if is_first {
                leaves.rekey(spot.pos);
            }
            if is_small {
                merge(leaves, spot.pos);
            }
            self.simplify();
        }
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
        let (mut i, mut known) = (0, None);
        while let Some(name) = names(i) {
            let pos = known.take().unwrap_or_else(|| self.floor(name));
            let next = names(i + 1).map(|next| self.floor(next));
            if next != Some(pos) {
                let leaves = self.leaves();
                self.revise_one(pos, name, |entry| fate(i, entry), scratch);
                i += 1;
                // Where leaves neither came nor went they are where they were.
                known = next.filter(|_| self.leaves() == leaves);
                continue;
            }
            let upper = self.next(pos).map(|next| self.leaf(next).key());
            let leaf = self.leaf(pos);
            leaf.view().load();
            let halfway = names(i + leaf.view().count() / 2);
            let most_named = halfway.is_some_and(|name| upper.is_none_or(|upper| name < upper));
            let mut sweep = Sweep::new(leaf, most_named, scratch);
            while let Some(name) = names(i) {
                if upper.is_some_and(|upper| name >= upper) {
                    break;
                }
                let probe = sweep.probe(name);
                sweep.copy_below(&probe);
                let entry = sweep.entry_named(&probe);
                match (fate(i, entry), entry) {
                    (Fate::Stays, _) => {}
                    (Fate::Ends, Some(entry)) => sweep.end_session(name, &entry),
                    (Fate::Becomes(session), Some(entry)) => {
                        sweep.put(name, &entry, Some(session));
                    }
                    (_, None) => panic!("{NOBODY}"),
                }
                i += 1;
            }
            let swept = sweep.finish();
            // All long configs are kept, because who has a config stays.
            let long = leaf.long.clone();
            self.settle_swept(pos, swept, scratch, long);
        }
    }

    /// [`Members::revise`] for the only one of the names that belongs in the leaf at `pos`.
    fn revise_one(
        &mut self,
        pos: Pos,
        name: &[u8],
        fate: impl FnOnce(Option<Entry<'_>>) -> Fate,
        scratch: &mut Vec<u8>,
    ) {
        let spot = self.find_in(pos, name);
        let entry = self.get(&spot);
        let (was, has_config) = (entry.is_some(), entry.is_some_and(|e| e.has_config()));
        let session = match fate(entry) {
            Fate::Stays => return,
            Fate::Ends => None,
            Fate::Becomes(session) => Some(session),
        };
        assert!(was, "{NOBODY}");
        match session.is_some() || has_config {
            true => self.put(&spot, name, session, ConfigChange::Keep, scratch),
            false => self.remove(&spot, scratch),
        }
    }

    /// Where `name` is or belongs.
    pub(super) fn find(&self, name: &[u8]) -> Spot {
        self.find_in(self.floor(name), name)
    }

    /// The same, in the leaf at `pos`, where it is or belongs.
    fn find_in(&self, pos: Pos, name: &[u8]) -> Spot {
        let leaf = self.leaf(pos);
        let view = leaf.view();
        let (at, end) = view.find(name);
        let long = leaf.long.as_ref().map_or(0, |_| view.long_before(at));
        Spot { pos, at, end, long }
    }

    /// The member at `spot`, if there is one.
    pub(super) fn get(&self, spot: &Spot) -> Option<Entry<'_>> {
        (spot.at < spot.end).then(|| self.leaf(spot.pos).entry(spot.at, spot.long))
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
            let view = leaf.view();
            let at = cursor.at.max(view.start);
            if at < view.end {
                let entry = leaf.entry_in(&view, at, cursor.long);
                cursor.at = view.next(at);
                cursor.long += usize::from(entry.outside.is_some());
                return Some(entry);
            }
            *cursor = Cursor {
                pos: self.next(cursor.pos?),
                ..Cursor::default()
            };
        }
    }

    /// Appends all entries of the leaf at the cursor, plainly, if the cursor is at its
    /// beginning and it has no long configs, and moves the cursor to the next leaf; else
    /// false, and nothing is done.
    pub(super) fn write_leaf(&self, cursor: &mut Cursor, out: &mut Vec<u8>) -> bool {
        let Some(pos) = cursor.pos else {
            return false;
        };
        let leaf = self.leaf(pos);
        if cursor.at != 0 || leaf.long.is_some() {
            return false;
        }
        let view = leaf.view();
        view.unpack(view.start, view.end, out);
        cursor.pos = self.next(pos);
        true
    }

    /// Every member in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.read(&mut cursor))
    }

    /// Puts what a sweep of the leaf at `pos` came to in its place.
    fn settle_swept(&mut self, pos: Pos, swept: Swept, packed: &mut Vec<u8>, long: Long) {
        match swept {
            Swept::Unchanged => {}
            Swept::Packed => self.settle_packed(pos, packed, long),
            Swept::ToBePacked => {
                let mut plain = Vec::with_capacity(4 * LEAF_BYTES_MAX);
                let view = Packed::read(packed);
                view.unpack(view.start, view.end, &mut plain);
                self.settle(pos, &plain, long, None);
            }
        }
    }

    /// Puts a rebuilt leaf that is not too long in the place of the one at `pos`, keeping
    /// leaves neither empty nor needlessly small.
    fn settle_packed(&mut self, pos: Pos, packed: &mut Vec<u8>, long: Long) {
        match self {
            Members::One(leaf) => leaf.store(packed, long),
            Members::Many(leaves) => {
                let leaves = Arc::make_mut(leaves);
                if packed.is_empty() {
                    leaves.remove(pos);
                } else {
                    let first = Packed::read(packed).first_name();
                    let is_rekeyed = leaves.at(pos).key() != first;
                    let is_small = packed.len() < LEAF_BYTES_MAX / 4;
                    leaves.at_mut(pos).store(packed, long);
                    if is_rekeyed {
                        leaves.rekey(pos);
                    }
                    if is_small {
                        merge(leaves, pos);
                    }
                }
                self.simplify();
            }
        }
    }

    /// Puts plain entries, of which there are some, in the place of the leaf at `pos`, parted
    /// if they are too long for one; `cut` is where.
    fn settle(&mut self, pos: Pos, plain: &[u8], long: Long, cut: Option<usize>) {
        let mut parts = parted(plain, long, cut);
        match self {
            Members::One(leaf) if parts.len() == 1 => *leaf = parts.remove(0),
            Members::One(_) => {
                let mut leaves = Ordered::default();
                parts.into_iter().for_each(|part| leaves.push(part));
                *self = Members::Many(Arc::new(leaves));
            }
            Members::Many(leaves) => {
                let leaves = Arc::make_mut(leaves);
                let is_whole = parts.len() == 1;
                let mut parts = parts.into_iter();
                let first = parts.next().expect("there are entries");
                let is_small = is_whole && first.view().end < LEAF_BYTES_MAX / 4;
                replace(leaves, pos, first);
                if let Some(second) = parts.next() {
                    leaves.insert_after(pos, second);
                }
                // Further ones are rare, and `pos` may be another place by now.
                parts.for_each(|part| leaves.insert(part));
                if is_small {
                    merge(leaves, pos);
                }
                self.simplify();
            }
        }
    }

    /// Makes of one leaf in a sequence a leaf and nothing more.
    fn simplify(&mut self) {
        if let Members::Many(leaves) = self
            && leaves.len() == 1
        {
            *self = Members::One(leaves.at(Pos::FIRST).clone());
        }
    }

    fn leaf(&self, pos: Pos) -> &Leaf {
        match self {
            Members::One(leaf) => leaf,
            Members::Many(leaves) => leaves.at(pos),
        }
    }

    fn leaf_mut(&mut self, pos: Pos) -> &mut Leaf {
        match self {
            Members::One(leaf) => leaf,
            Members::Many(leaves) => Arc::make_mut(leaves).at_mut(pos),
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

    /// How many leaves there are.
    fn leaves(&self) -> usize {
        match self {
            Members::One(_) => 1,
            Members::Many(leaves) => leaves.len(),
        }
    }

    fn is_last(&self, pos: Pos) -> bool {
        self.next(pos).is_none()
    }

    /// Asserts every invariant of the type.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let sound = |leaf: &Leaf| {
            let view = leaf.view();
            assert!(view.is_empty() || fits(view.end, view.count()));
            let (mut at, mut entries, mut unlike) = (view.start, 0, 0);
            let mut places = vec![view.end];
            while at < view.end {
                places.push(at);
                entries += 1;
                unlike += usize::from(view.is_unlike(at));
                at = view.next(at);
            }
            assert_eq!((view.count(), view.unlike()), (entries, unlike));
            assert!(view.hinted_places().is_sorted());
            assert!(view.hinted_places().all(|hint| places.contains(&hint)));
            let mut plain = Vec::new();
            view.unpack(view.start, view.end, &mut plain);
            let long = leaf.long.as_ref().map_or(0, |long| long.len());
            assert_eq!(view.long_before(view.end), long);
        };
        match self {
            Members::One(leaf) => sound(leaf),
            Members::Many(leaves) => {
                leaves.check();
                assert!(leaves.len() > 1);
                assert!(leaves.iter().all(|leaf| !leaf.view().is_empty()));
                leaves.iter().for_each(sound);
            }
        }
        let mut cursor = Cursor::default();
        let mut last: Vec<u8> = Vec::new();
        while let Some(entry) = self.read(&mut cursor) {
            assert!(entry.name.to_vec() > last);
            last = entry.name.to_vec();
            assert!(entry.is_active() || entry.config().is_some());
            let (mut again, mut plain) = (Vec::new(), Vec::new());
            let config = entry
                .config()
                .map_or(ConfigChange::Keep, ConfigChange::Write);
            put_entry(&mut again, &last, entry.session(7), config, None);
            entry.write(&mut plain);
            assert_eq!(again, plain);
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

/// What is wrong where a session is said to change that no member has.
const NOBODY: &str = "a session that is not there cannot change";

#[cfg(test)]
mod tests;
