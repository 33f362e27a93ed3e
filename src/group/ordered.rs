//! A sorted sequence in shared blocks: cheap to clone, cheap to change, quick to search.
//!
//! Two levels: a list of blocks, each a list of at most [`BLOCK_MAX`] items. A clone copies
//! the list of blocks alone; a later change to either copy first copies the one block it
//! touches, so a snapshot taken of a million members costs microseconds.
//!
//! A search does not follow the items' pointers: each level keeps a [`Fence`], eight bytes
//! of every key packed in one array, so that a probe costs a piece of a cache line.

use std::sync::Arc;

/// What has a place in the order. A key must not change while the item is in a sequence,
/// except between `at_mut` and `rekey`, and then only within the gap to its neighbours.
pub(super) trait Keyed {
    fn key(&self) -> &[u8];
}

impl<T: Keyed> Keyed for Arc<T> {
    fn key(&self) -> &[u8] {
        self.as_ref().key()
    }
}

/// Items in strictly ascending order of their keys.
///
/// Invariants, checked by `check` in the tests: no block is empty or longer than
/// [`BLOCK_MAX`]; keys ascend strictly, across blocks too; each fence says the same as the
/// keys it stands for.
#[derive(Clone)]
pub(super) struct Ordered<T> {
    fence: Fence,
    blocks: Vec<Arc<Block<T>>>,
    len: usize,
}

#[derive(Clone)]
struct Block<T> {
    fence: Fence,
    items: Vec<T>,
}

/// Where an item is; good until the next change of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pos {
    block: u32,
    item: u32,
}

impl Pos {
    pub(super) const FIRST: Pos = Pos { block: 0, item: 0 };
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Ordered {
            fence: Fence::default(),
            blocks: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Keyed + Clone> Ordered<T> {
    /// Inserts an item whose key is not there yet.
    pub(super) fn insert(&mut self, item: T) {
        let Some(block) = self.floor_block(item.key()) else {
            self.insert_block(0, vec![item]);
            self.len = 1;
            return;
        };
        let at = match self.blocks[block].seek(item.key()) {
            Ok(at) => {
                debug_assert!(false, "the key is already there");
                at
            }
            Err(at) => at,
        };
        self.insert_at(block, at, item);
    }

    /// Inserts an item that comes right after the one at `pos`.
    pub(super) fn insert_after(&mut self, pos: Pos, item: T) {
        self.insert_at(pos.block as usize, pos.item as usize + 1, item);
    }

    /// Appends an item that comes after all others.
    pub(super) fn push(&mut self, item: T) {
        match self.blocks.len() {
            0 => self.insert(item),
            n => self.insert_at(n - 1, self.blocks[n - 1].items.len(), item),
        }
    }

    /// Takes out the item at `pos`.
    pub(super) fn remove(&mut self, pos: Pos) -> T {
        let b = pos.block as usize;
        let block = Arc::make_mut(&mut self.blocks[b]);
        let item = block.items.remove(pos.item as usize);
        block.fence.heads.remove(pos.item as usize);
        self.len -= 1;
        if block.items.is_empty() {
            self.remove_block(b);
        } else {
            if pos.item == 0 {
                self.refit(b);
            }
            self.merge_if_small(b);
        }
        item
    }

    /// The item at `pos`, to change; its block is copied first if a clone shares it.
    pub(super) fn at_mut(&mut self, pos: Pos) -> &mut T {
        &mut Arc::make_mut(&mut self.blocks[pos.block as usize]).items[pos.item as usize]
    }

    /// Tells the fences that the key of the item at `pos` has changed.
    pub(super) fn rekey(&mut self, pos: Pos) {
        let block = Arc::make_mut(&mut self.blocks[pos.block as usize]);
        let items = &block.items;
        let key_of = |i: usize| items[i].key();
        block.fence.set(pos.item as usize, items.len(), key_of);
        if pos.item == 0 {
            self.refit(pos.block as usize);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The item at `pos`.
    pub(super) fn at(&self, pos: Pos) -> &T {
        &self.blocks[pos.block as usize].items[pos.item as usize]
    }

    /// Where the item with exactly this key is.
    pub(super) fn find(&self, key: &[u8]) -> Option<Pos> {
        let b = self.floor_block(key)?;
        let at = self.blocks[b].seek(key).ok()?;
        Some(pos(b, at))
    }

    /// The last item whose key is not above `key`; the first item if all are above.
    pub(super) fn floor(&self, key: &[u8]) -> Option<Pos> {
        let b = self.floor_block(key)?;
        Some(match self.blocks[b].seek(key) {
            Ok(at) => pos(b, at),
            Err(at) => pos(b, at.saturating_sub(1)),
        })
    }

    /// The first item whose key is above `key`.
    pub(super) fn above(&self, key: &[u8]) -> Option<Pos> {
        let at = self.floor(key)?;
        if self.at(at).key() > key {
            return Some(at);
        }
        self.next(at)
    }

    /// The place after `at`, if there is one.
    pub(super) fn next(&self, at: Pos) -> Option<Pos> {
        let next = Pos {
            item: at.item + 1,
            ..at
        };
        self.normal(next)
    }

    /// The place before `at`, if there is one.
    pub(super) fn previous(&self, at: Pos) -> Option<Pos> {
        if at.item > 0 {
            return Some(pos(at.block as usize, at.item as usize - 1));
        }
        let b = (at.block as usize).checked_sub(1)?;
        Some(pos(b, self.blocks[b].items.len() - 1))
    }

    /// The first place, if there is any item.
    pub(super) fn first(&self) -> Option<Pos> {
        self.normal(Pos::FIRST)
    }

    /// All items from `from` on, in order.
    pub(super) fn iter_from(&self, from: Option<Pos>) -> impl Iterator<Item = &T> {
        let mut next = from;
        std::iter::from_fn(move || {
            let at = next?;
            next = self.next(at);
            Some(self.at(at))
        })
    }

    /// The item with the highest key.
    pub(super) fn last(&self) -> Option<&T> {
        self.blocks.last()?.items.last()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flat_map(|block| block.items.iter())
    }

    fn normal(&self, at: Pos) -> Option<Pos> {
        let block = self.blocks.get(at.block as usize)?;
        if (at.item as usize) < block.items.len() {
            return Some(at);
        }
        let b = at.block as usize + 1;
        (b < self.blocks.len()).then(|| pos(b, 0))
    }

    /// The block in which `key` is or would be.
    fn floor_block(&self, key: &[u8]) -> Option<usize> {
        if self.blocks.is_empty() {
            return None;
        }
        let first_of = |i: usize| self.blocks[i].items[0].key();
        Some(match self.fence.seek(key, first_of) {
            Ok(b) => b,
            Err(b) => b.saturating_sub(1),
        })
    }

    fn insert_at(&mut self, b: usize, at: usize, item: T) {
        self.len += 1;
        let is_last_block = b + 1 == self.blocks.len();
        let len = self.blocks[b].items.len();
        if len < BLOCK_MAX {
            Arc::make_mut(&mut self.blocks[b]).insert(at, item);
            if at == 0 {
                self.refit(b);
            }
        } else if at == len && is_last_block {
            // Names that arrive in order leave full blocks behind, not half-full ones.
            self.insert_block(b + 1, vec![item]);
        } else {
            let block = Arc::make_mut(&mut self.blocks[b]);
            let right = block.items.split_off(len / 2);
            block.rebuild();
            self.insert_block(b + 1, right);
            let (b, at) = if at <= len / 2 {
                (b, at)
            } else {
                (b + 1, at - len / 2)
            };
            Arc::make_mut(&mut self.blocks[b]).insert(at, item);
            if at == 0 {
                self.refit(b);
            }
        }
    }

    fn insert_block(&mut self, b: usize, items: Vec<T>) {
        let mut block = Block {
            fence: Fence::default(),
            items,
        };
        block.rebuild();
        self.blocks.insert(b, Arc::new(block));
        let blocks = &self.blocks;
        self.fence
            .insert(b, blocks.len(), |i| blocks[i].items[0].key());
    }

    fn remove_block(&mut self, b: usize) {
        self.blocks.remove(b);
        self.fence.heads.remove(b);
    }

    /// Tells the upper fence that the first key of block `b` has changed.
    fn refit(&mut self, b: usize) {
        let blocks = &self.blocks;
        self.fence
            .set(b, blocks.len(), |i| blocks[i].items[0].key());
    }

    /// Joins block `b` with a neighbour if both fit well into one.
    fn merge_if_small(&mut self, b: usize) {
        if self.blocks[b].items.len() >= BLOCK_MAX / 4 {
            return;
        }
        let fits = |left: usize| {
            let right = self.blocks.get(left + 1)?;
            let both = self.blocks[left].items.len() + right.items.len();
            (both <= BLOCK_MAX * 3 / 4).then_some(left)
        };
        let Some(left) = fits(b).or_else(|| fits(b.checked_sub(1)?)) else {
            return;
        };
        let right = Arc::unwrap_or_clone(self.blocks.remove(left + 1));
        self.fence.heads.remove(left + 1);
        let block = Arc::make_mut(&mut self.blocks[left]);
        block.items.extend(right.items);
        block.rebuild();
    }

    /// Asserts every invariant of the type.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.iter().count(), self.len);
        assert!(self.blocks.iter().all(|b| !b.items.is_empty()));
        assert!(self.blocks.iter().all(|b| b.items.len() <= BLOCK_MAX));
        let keys: Vec<&[u8]> = self.iter().map(Keyed::key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
        self.fence
            .check(self.blocks.len(), |i| self.blocks[i].items[0].key());
        for block in &self.blocks {
            block
                .fence
                .check(block.items.len(), |i| block.items[i].key());
        }
    }
}

impl<T: Keyed> Block<T> {
    fn insert(&mut self, at: usize, item: T) {
        self.items.insert(at, item);
        let items = &self.items;
        self.fence.insert(at, items.len(), |i| items[i].key());
    }

    fn rebuild(&mut self) {
        let items = &self.items;
        self.fence.rebuild(items.len(), |i| items[i].key());
    }

    fn seek(&self, key: &[u8]) -> Result<usize, usize> {
        self.fence.seek(key, |i| self.items[i].key())
    }
}

/// The keys of one level in brief: what they have in common, and the eight bytes that come
/// after it, as big-endian numbers in the order of the keys.
///
/// Names of one group begin alike (`worker-000017.eu-west…`), so the eight bytes are taken
/// from behind the common part. Keys whose eight bytes are equal too are told apart by
/// looking at them whole. Invariant: every key starts with `prefix[..skip]`, and `heads[i]`
/// is `head(key i, skip)`.
#[derive(Clone, Default)]
struct Fence {
    prefix: [u8; PREFIX_MAX],
    skip: u8,
    heads: Vec<u64>,
}

impl Fence {
    /// Takes in the key at `i`, just inserted, of now `len` keys.
    fn insert<'k>(&mut self, i: usize, len: usize, key_of: impl Fn(usize) -> &'k [u8]) {
        if key_of(i).starts_with(self.prefix()) && len > 1 {
            self.heads.insert(i, head(key_of(i), self.skip));
        } else {
            self.rebuild(len, key_of);
        }
    }

    /// Takes in the key at `i`, just changed.
    fn set<'k>(&mut self, i: usize, len: usize, key_of: impl Fn(usize) -> &'k [u8]) {
        if key_of(i).starts_with(self.prefix()) {
            self.heads[i] = head(key_of(i), self.skip);
        } else {
            self.rebuild(len, key_of);
        }
    }

    fn rebuild<'k>(&mut self, len: usize, key_of: impl Fn(usize) -> &'k [u8]) {
        assert!(len > 0, "a level without keys has no fence");
        // What the first and the last of a sorted sequence share, all share.
        let (first, last) = (key_of(0), key_of(len - 1));
        let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let skip = common.min(PREFIX_MAX);
        self.prefix[..skip].copy_from_slice(&first[..skip]);
        self.skip = skip as u8;
        self.heads.clear();
        self.heads
            .extend((0..len).map(|i| head(key_of(i), self.skip)));
    }

    /// Where `key` is, or else where it would have to be inserted.
    fn seek<'k>(&self, key: &[u8], key_of: impl Fn(usize) -> &'k [u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        if !key.starts_with(prefix) {
            return Err(if key < prefix { 0 } else { self.heads.len() });
        }
        let wanted = head(key, self.skip);
        let mut low = self.first_at_least(wanted);
        let mut high = low;
        while high < self.heads.len() && self.heads[high] == wanted {
            high += 1;
        }
        while low < high {
            let middle = low.midpoint(high);
            match key_of(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The first head that is not below `wanted`. First a few heads far apart are looked at,
    /// all of them, then the piece between two: a search that halves what is left waits for
    /// one cache line after the other, for it knows the next probe by the last alone.
    fn first_at_least(&self, wanted: u64) -> usize {
        let len = self.heads.len();
        let piece = len.div_ceil(PIECES);
        let ends = self.heads.iter().skip(piece).step_by(piece.max(1));
        let from = piece * ends.filter(|head| **head < wanted).count();
        let to = len.min(from + piece);
        from + self.heads[from..to].partition_point(|head| *head < wanted)
    }

    fn prefix(&self) -> &[u8] {
        &self.prefix[..usize::from(self.skip)]
    }

    #[cfg(test)]
    fn check<'k>(&self, len: usize, key_of: impl Fn(usize) -> &'k [u8]) {
        assert_eq!(self.heads.len(), len);
        for i in 0..len {
            assert!(key_of(i).starts_with(self.prefix()));
            assert_eq!(self.heads[i], head(key_of(i), self.skip));
        }
    }
}

/// The eight bytes of `key` from `skip` on, big-endian, zeros for what it lacks. Keys with
/// the same first `skip` bytes are in order wherever their heads differ.
pub(super) fn head(key: &[u8], skip: u8) -> u64 {
    let rest = &key[usize::from(skip)..];
    if let Some(eight) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    let mut eight = [0; 8];
    eight[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(eight)
}

fn pos(block: usize, item: usize) -> Pos {
    Pos {
        block: block as u32,
        item: item as u32,
    }
}

/// Most items of a block. A change after a clone copies one block and the list of blocks,
/// so the best size is near the square root of the length: 128 suits 10⁴ to 10⁵ items.
const BLOCK_MAX: usize = 128;

/// In how many pieces a search parts a fence: a full block's are of two cache lines each.
const PIECES: usize = 8;

/// The longest common beginning a fence can skip.
const PREFIX_MAX: usize = 31;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    impl Keyed for Vec<u8> {
        fn key(&self) -> &[u8] {
            self
        }
    }

    /// Short keys over a tiny alphabet, zero included, so that prefixes, ties in the eight
    /// bytes and keys that only differ in length are all common.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let tail = prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b']), 0..14);
        (
            prop::sample::select(vec![
                &b""[..],
                b"aaaaaaaa",
                b"same-long-beginning-of-more-than-31-bytes",
            ]),
            tail,
        )
            .prop_map(|(start, tail)| [start, &tail].concat())
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(ops in prop::collection::vec((any::<bool>(), key()), 0..1500)) {
            let mut model = BTreeSet::new();
            let mut ordered: Ordered<Vec<u8>> = Ordered::default();
            for (insert, key) in ops {
                let found = ordered.find(&key);
                prop_assert_eq!(found.is_some(), model.contains(&key));
                let above = ordered.above(&key).map(|at| ordered.at(at).clone());
                let expected = model.range::<Vec<u8>, _>((std::ops::Bound::Excluded(&key), std::ops::Bound::Unbounded)).next();
                prop_assert_eq!(above.as_ref(), expected);
                match (insert, found) {
                    (true, None) => { ordered.insert(key.clone()); model.insert(key); }
                    (false, Some(at)) => { ordered.remove(at); model.remove(&key); }
                    _ => {}
                }
            }
            ordered.check();
            prop_assert!(ordered.iter().eq(model.iter()));
            prop_assert!(ordered.iter_from(ordered.first()).eq(model.iter()));
        }
    }

    #[test]
    fn a_clone_keeps_what_it_held_while_the_original_changes() {
        let mut ordered = Ordered::default();
        for i in 0..1_000u32 {
            ordered.push(i.to_be_bytes().to_vec());
        }
        let before = ordered.clone();
        for i in (0..1_000u32).step_by(2) {
            let at = ordered.find(&i.to_be_bytes()).unwrap();
            ordered.remove(at);
        }
        ordered.check();
        before.check();
        assert_eq!(ordered.len(), 500);
        assert_eq!(before.len(), 1_000);
    }

    #[test]
    fn blocks_left_nearly_empty_are_joined() {
        let mut ordered = Ordered::default();
        for i in 0..12_800u32 {
            ordered.push(i.to_be_bytes().to_vec());
        }
        for i in (0..12_800u32).filter(|i| i % 128 != 0) {
            let at = ordered.find(&i.to_be_bytes()).unwrap();
            ordered.remove(at);
        }
        ordered.check();
        assert_eq!(ordered.len(), 100);
        assert!(ordered.blocks.len() <= 8, "{} blocks", ordered.blocks.len());
    }

    #[test]
    fn stepping_back_undoes_stepping_on() {
        let mut ordered = Ordered::default();
        for i in 0..300u32 {
            ordered.push(i.to_be_bytes().to_vec());
        }
        let mut at = ordered.first().unwrap();
        assert_eq!(ordered.previous(at), None);
        while let Some(next) = ordered.next(at) {
            assert_eq!(ordered.previous(next), Some(at));
            at = next;
        }
        assert_eq!(at, pos(2, 43));
    }
}
