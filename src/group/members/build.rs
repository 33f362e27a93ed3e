//! Leaves made of plain entries: parted, joined, and built from a snapshot.

use std::sync::Arc;

use super::super::ordered::{Keyed, Ordered, Pos};
use super::super::record::ConfigView;
use super::super::request::Session;
use super::entry::{INLINE_BYTES_MAX, Model, TAIL_BYTES_MAX, put_entry};
use super::leaf::{
    HEADER_BYTES_MAX, LEAF_BYTES_MAX, LEAF_ENTRIES_MAX, Leaf, Long, Packed, fits, pack, plain_end,
    plain_name, plain_outside,
};
use super::{ConfigChange, Members};

/// Puts `leaf` in the place of the one at `pos`.
pub(super) fn replace(leaves: &mut Ordered<Leaf>, pos: Pos, leaf: Leaf) {
    let old = std::mem::replace(leaves.at_mut(pos), leaf);
    if old.key() != leaves.at(pos).key() {
        leaves.rekey(pos);
    }
}

/// Joins the small leaf at `pos` with a neighbour if both together are not long.
pub(super) fn merge(leaves: &mut Ordered<Leaf>, pos: Pos) {
    let both = |left: Pos, right: Pos| {
        let (a, b) = (leaves.at(left).view(), leaves.at(right).view());
        is_roomy(a.end + b.end, a.count() + b.count()).then_some((left, right))
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
    let (kept, gone) = (leaves.at(left), leaves.at(right));
    let (mut plain, mut packed) = (Vec::new(), Vec::new());
    for view in [kept.view(), gone.view()] {
        view.unpack(view.start, view.end, &mut plain);
    }
    pack(&plain, &mut packed);
    // They share less than each of them did, and each may have had a model of its own.
    if !is_roomy(packed.len(), Packed::read(&packed).count()) {
        return;
    }
    let long = match (&kept.long, &gone.long) {
        (long, None) | (None, long) => long.clone(),
        (Some(a), Some(b)) => Some(Arc::new([&a[..], &b[..]].concat())),
    };
    let gone = leaves.remove(right);
    // `left` comes before `right`, so unless blocks were joined it is where it was; look it
    // up by its key, which is right in either case.
    let left = leaves.floor(gone.key()).unwrap_or(left);
    leaves.at_mut(left).store(&mut packed, long);
}

/// True if a leaf of so much has room for some members more.
fn is_roomy(bytes: usize, count: usize) -> bool {
    bytes <= LEAF_BYTES_MAX * 3 / 4 && count <= LEAF_ENTRIES_MAX * 3 / 4
}

/// Parts entries that are too long for one leaf: at `cut`, or else near the middle, until
/// each part fits. One entry that has grown takes one cut; many, as when a leaf's sessions
/// all change owner, may take more.
pub(super) fn parted(plain: &[u8], long: Long, cut: Option<usize>) -> Vec<Leaf> {
    let mut packed = Vec::with_capacity(2 * LEAF_BYTES_MAX);
    pack(plain, &mut packed);
    if fits(packed.len(), Packed::read(&packed).count()) {
        let mut leaf = Leaf::default();
        leaf.store(&mut packed, long);
        return vec![leaf];
    }
    let (left, right) = plain.split_at(cut.unwrap_or_else(|| middle(plain)));
    let (in_left, in_right) = match long {
        None => (None, None),
        Some(long) => {
            let (mut at, mut count) = (0, 0);
            while at < left.len() {
                count += usize::from(plain_outside(left, at));
                at = plain_end(left, at);
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
fn middle(plain: &[u8]) -> usize {
    let half = plain.len() / 2;
    let (mut before, mut after) = (0, plain_end(plain, 0));
    while after < half {
        (before, after) = (after, plain_end(plain, after));
    }
    let before_is_nearer = half - before < after - half;
    if after == plain.len() || (before > 0 && before_is_nearer) {
        before
    } else {
        after
    }
}

/// Builds the members of a group from entries in name order.
#[derive(Default)]
pub(in crate::group) struct Builder {
    leaves: Ordered<Leaf>,
    /// Plain entries of the leaf to come.
    plain: Vec<u8>,
    count: usize,
    /// Bytes that they will take, names apart, and bytes of their names.
    tail_bytes: usize,
    name_bytes: usize,
    long: Vec<Arc<[u8]>>,
}

impl Builder {
    /// Appends a member after all others.
    pub(in crate::group) fn push(
        &mut self,
        name: &[u8],
        session: Option<Session>,
        config: Option<ConfigView<'_>>,
    ) {
        let change = config.map_or(ConfigChange::Remove, ConfigChange::Write);
        let begin = self.plain.len();
        put_entry(&mut self.plain, name, session, change, None);
        self.count(begin, name);
        // What the first and the last name share, all share.
        let shared = shared(plain_name(&self.plain, 0), name);
        let bytes = HEAD_BYTES + self.tail_bytes + self.name_bytes - (self.count - 1) * shared;
        if (bytes > LEAF_BYTES_BUILT || self.count > LEAF_ENTRIES_BUILT) && begin > 0 {
            let last = self.plain.split_off(begin);
            self.flush();
            self.plain = last;
            self.count(0, name);
        }
        if let Some(view) = config.filter(|c| c.bytes.len() > INLINE_BYTES_MAX) {
            self.long.push(Arc::from(view.bytes));
        }
    }

    /// The members, and the builder as new.
    pub(in crate::group) fn finish(&mut self) -> Members {
        if !self.plain.is_empty() {
            self.flush();
        }
        let mut leaves = std::mem::take(&mut self.leaves);
        match leaves.len() {
            0 => Members::default(),
            1 => Members::One(leaves.remove(Pos::FIRST)),
            _ => Members::Many(Arc::new(leaves)),
        }
    }

    /// Counts the entry at `begin`, the last.
    fn count(&mut self, begin: usize, name: &[u8]) {
        let tail_of = |at: usize| {
            let tail_at = at + 2 + usize::from(self.plain[at]);
            Model::of(&self.plain[tail_at..plain_end(&self.plain, at)])
        };
        let like_the_first = match (tail_of(0), tail_of(begin)) {
            (Some((first, _)), Some((model, counter))) if first == model => Some(counter),
            _ => None,
        };
        let tail_len = match like_the_first {
            Some(counter) => size_of::<u64>() - counter.leading_zeros() as usize / 8,
            None => usize::from(self.plain[begin + 1]),
        };
        self.count += 1;
        self.tail_bytes += 2 + tail_len;
        self.name_bytes += name.len();
    }

    fn flush(&mut self) {
        let long = std::mem::take(&mut self.long);
        let long = (!long.is_empty()).then(|| Arc::new(long));
        // One as a rule: sizes are reckoned with the first session as the model.
        for leaf in parted(&self.plain, long, None) {
            self.leaves.push(leaf);
        }
        self.plain.clear();
        (self.count, self.tail_bytes, self.name_bytes) = (0, 0, 0);
    }
}

/// How many bytes two names begin with alike.
pub(super) fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A leaf's header with the longest model.
const HEAD_BYTES: usize = HEADER_BYTES_MAX + 5 + 25;

/// How full a leaf is built from a snapshot: room for two or three members more.
const LEAF_BYTES_BUILT: usize = 900;
const LEAF_ENTRIES_BUILT: usize = 58;

/// Two entries fit a leaf, so that one grown too long by an entry, parted nearest to its
/// middle, makes two that are not.
const _: () = assert!(HEAD_BYTES + 2 + 255 + TAIL_BYTES_MAX <= LEAF_BYTES_MAX);
