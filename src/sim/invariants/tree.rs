//! Every history there ever was, as one tree.
//!
//! A primary broadcasts its transactions one after the other on top of the history it began
//! with. So each transaction has one predecessor, the same wherever it is logged, and a log is
//! wholly described by its last transaction: whether one log is a prefix of another is whether
//! one node is an ancestor of another. The invariants Z3, Z5 and Z6 refuse a log that is no
//! path of this tree, and with that the tree stays the truth about every log.
//!
//! Transactions of one epoch are one run, so that going from a transaction to its ancestors
//! costs one step an epoch, and most questions are about one epoch alone.

use crate::sim::observe::fold;
use crate::types::{Epoch, ServerId, Zxid};

/// A transaction, or the empty history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which run, in the order in which they began; 0 is the empty history.
    run: u32,
    /// Its place in the run: 1 for the first. 0 stands for the empty history and nothing else.
    counter: u64,
}

/// The empty history.
pub const ROOT: Node = Node { run: 0, counter: 0 };

/// What one primary broadcasts.
#[derive(Debug)]
struct Run {
    epoch: Epoch,
    primary: ServerId,
    /// The history the primary began with.
    base: Node,
    /// Transactions in that history.
    base_depth: u64,
    txns: Vec<Txn>,
}

#[derive(Clone, Copy, Debug)]
struct Txn {
    hash: u64,
    /// Of the application that has applied everything up to here.
    digest: u64,
}

/// All runs, and how they hang together.
#[derive(Debug)]
pub struct Tree {
    runs: Vec<Run>,
    /// Ascending by epoch.
    by_epoch: Vec<(Epoch, u32)>,
}

impl Node {
    /// The run it belongs to, as an index that counts from 1; 0 for the empty history.
    #[must_use]
    pub fn run(self) -> usize {
        self.run as usize
    }

    /// Its place in its run.
    #[must_use]
    pub fn counter(self) -> u64 {
        self.counter
    }
}

impl Tree {
    /// The tree of the empty history.
    pub(super) fn new() -> Tree {
        let root = Run {
            epoch: Epoch(0),
            primary: ServerId(0),
            base: ROOT,
            base_depth: 0,
            txns: Vec::new(),
        };
        Tree {
            runs: vec![root],
            by_epoch: Vec::new(),
        }
    }

    /// Opens the run of `epoch` on top of `base` and returns its index.
    pub(super) fn begin(&mut self, epoch: Epoch, primary: ServerId, base: Node) -> usize {
        let at = self.by_epoch.partition_point(|&(other, _)| other < epoch);
        let known = self.by_epoch.get(at).is_some_and(|&(e, _)| e == epoch);
        assert!(!known, "epoch {epoch} has begun before");
        let run = u32::try_from(self.runs.len()).expect("fewer than 2^32 epochs");
        self.by_epoch.insert(at, (epoch, run));
        self.runs.push(Run {
            epoch,
            primary,
            base,
            base_depth: self.depth(base),
            txns: Vec::new(),
        });
        run as usize
    }

    /// Adds the next transaction of a run.
    pub(super) fn push(&mut self, run: usize, hash: u64) {
        let tip = self.tip(run);
        let before = self.digest(tip);
        let run = &mut self.runs[run];
        let zxid = Zxid::new(run.epoch, run.txns.len() as u64 + 1);
        let digest = fold(before, zxid, hash);
        run.txns.push(Txn { hash, digest });
    }

    /// The run of `epoch`, if its primary has announced a history.
    #[must_use]
    pub fn run_of(&self, epoch: Epoch) -> Option<usize> {
        match self.by_epoch.last() {
            Some(&(newest, run)) if newest == epoch => Some(run as usize),
            _ => {
                let at = self.by_epoch.binary_search_by_key(&epoch, |&(e, _)| e);
                at.ok().map(|at| self.by_epoch[at].1 as usize)
            }
        }
    }

    /// The runs of epochs after `epoch`.
    pub(super) fn runs_after(&self, epoch: Epoch) -> impl Iterator<Item = usize> + '_ {
        let newest_first = self.by_epoch.iter().rev();
        let later = newest_first.take_while(move |&&(other, _)| other > epoch);
        later.map(|&(_, run)| run as usize)
    }

    /// The transaction `zxid`, if it has been broadcast; the empty history for zero.
    #[must_use]
    pub fn find(&self, zxid: Zxid) -> Option<Node> {
        if zxid == Zxid::ZERO {
            return Some(ROOT);
        }
        let run = self.run_of(zxid.epoch)?;
        let exists = zxid.counter >= 1 && zxid.counter <= self.runs[run].txns.len() as u64;
        exists.then_some(Node {
            run: run as u32,
            counter: zxid.counter,
        })
    }

    /// The epoch of a run.
    #[must_use]
    pub fn epoch(&self, run: usize) -> Epoch {
        self.runs[run].epoch
    }

    /// Who broadcasts in a run.
    #[must_use]
    pub fn primary(&self, run: usize) -> ServerId {
        self.runs[run].primary
    }

    /// The history a run's primary began with.
    #[must_use]
    pub fn base(&self, run: usize) -> Node {
        self.runs[run].base
    }

    /// How many transactions have been broadcast in a run.
    #[must_use]
    pub fn len(&self, run: usize) -> u64 {
        self.runs[run].txns.len() as u64
    }

    /// The last transaction broadcast in a run, or its base if there is none.
    #[must_use]
    pub fn tip(&self, run: usize) -> Node {
        self.in_run(run, self.len(run))
    }

    /// The transaction `counter` of a run; its base for 0.
    #[must_use]
    pub fn in_run(&self, run: usize, counter: u64) -> Node {
        match counter {
            0 => self.runs[run].base,
            _ => Node {
                run: run as u32,
                counter,
            },
        }
    }

    /// How a transaction is called.
    #[must_use]
    pub fn zxid(&self, node: Node) -> Zxid {
        Zxid::new(self.runs[node.run()].epoch, node.counter)
    }

    /// How many transactions the history up to and including `node` has.
    #[must_use]
    pub fn depth(&self, node: Node) -> u64 {
        self.runs[node.run()].base_depth + node.counter
    }

    /// The hash of its payload; 0 for the empty history.
    #[must_use]
    pub fn hash(&self, node: Node) -> u64 {
        self.txn(node).map_or(0, |txn| txn.hash)
    }

    /// The digest of an application that has applied the history up to and including `node`.
    #[must_use]
    pub fn digest(&self, node: Node) -> u64 {
        self.txn(node).map_or(0, |txn| txn.digest)
    }

    /// What precedes it.
    #[must_use]
    pub fn parent(&self, node: Node) -> Node {
        self.in_run(node.run(), node.counter.saturating_sub(1))
    }

    /// True if the history that ends at `tip` contains `node`.
    ///
    /// O(1) within an epoch, else one step for each epoch in between.
    #[must_use]
    pub fn holds(&self, tip: Node, node: Node) -> bool {
        if tip.run == node.run {
            return node.counter <= tip.counter;
        }
        let depth = self.depth(node);
        let mut tip = tip;
        while tip.run != node.run {
            let run = &self.runs[tip.run()];
            if run.base_depth < depth {
                return false;
            }
            tip = run.base;
        }
        node.counter <= tip.counter
    }

    /// True if one of the two histories is a prefix of the other.
    #[must_use]
    pub fn comparable(&self, a: Node, b: Node) -> bool {
        self.holds(a, b) || self.holds(b, a)
    }

    /// The last transaction that two histories have in common.
    #[must_use]
    pub fn meet(&self, a: Node, b: Node) -> Node {
        let (mut a, mut b) = (a, b);
        while a.run != b.run {
            // The run that began on top of more holds nothing of the other history. Of two
            // that began on the same the later one goes first, and the empty history last.
            let (of_a, of_b) = (&self.runs[a.run()], &self.runs[b.run()]);
            if (of_a.base_depth, of_a.epoch) >= (of_b.base_depth, of_b.epoch) {
                a = of_a.base;
            } else {
                b = of_b.base;
            }
        }
        if a.counter <= b.counter { a } else { b }
    }

    /// The first transaction after `node` in the history that ends at `tip`, which contains
    /// `node`; nothing if that is the tip itself.
    pub(super) fn child_towards(&self, tip: Node, node: Node) -> Option<Node> {
        let mut at = tip;
        while at.run != node.run {
            let base = self.runs[at.run()].base;
            if base == node || at.run == 0 {
                return (at.run != 0).then_some(self.in_run(at.run(), 1));
            }
            at = base;
        }
        (at.counter > node.counter).then(|| self.in_run(node.run(), node.counter + 1))
    }

    fn txn(&self, node: Node) -> Option<&Txn> {
        let at = usize::try_from(node.counter.checked_sub(1)?).ok()?;
        self.runs[node.run()].txns.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epoch 1: three transactions; 2 begins after 1:2, 4 after 2:1, 3 after 1:3.
    fn grown() -> Tree {
        let mut tree = Tree::new();
        let mut grow = |epoch, base: (u64, u64), count| {
            let base = tree.find(Zxid::new(Epoch(base.0), base.1)).unwrap();
            let run = tree.begin(Epoch(epoch), ServerId(1), base);
            (0..count).for_each(|n| tree.push(run, 100 * epoch + n));
        };
        grow(1, (0, 0), 3);
        grow(2, (1, 2), 1);
        grow(4, (2, 1), 2);
        grow(3, (1, 3), 2);
        tree
    }

    fn at(tree: &Tree, epoch: u64, counter: u64) -> Node {
        tree.find(Zxid::new(Epoch(epoch), counter)).unwrap()
    }

    #[test]
    fn a_history_holds_its_ancestors_and_nothing_of_another_branch() {
        let tree = grown();
        let tip = at(&tree, 4, 2);
        for (epoch, counter, held) in [
            (1, 1, true),
            (1, 2, true),
            (1, 3, false),
            (2, 1, true),
            (3, 1, false),
            (4, 1, true),
            (4, 2, true),
        ] {
            let node = at(&tree, epoch, counter);
            assert_eq!(tree.holds(tip, node), held, "{epoch}:{counter}");
        }
        assert!(tree.holds(tip, ROOT) && tree.holds(ROOT, ROOT));
        assert!(!tree.holds(ROOT, tip));
        assert!(!tree.comparable(at(&tree, 3, 2), tip));
        assert!(tree.comparable(at(&tree, 1, 1), tip));
    }

    #[test]
    fn depth_counts_the_transactions_of_a_path() {
        let tree = grown();
        assert_eq!(tree.depth(ROOT), 0);
        assert_eq!(tree.depth(at(&tree, 1, 3)), 3);
        assert_eq!(tree.depth(at(&tree, 4, 2)), 5);
        assert_eq!(tree.depth(at(&tree, 3, 1)), 4);
    }

    #[test]
    fn the_digest_of_a_branch_is_that_of_its_own_path() {
        let tree = grown();
        let zxid = |e, c| Zxid::new(Epoch(e), c);
        let path = [(zxid(1, 1), 100), (zxid(1, 2), 101), (zxid(2, 1), 200)];
        let folded = path.iter().fold(0, |digest, &(z, h)| fold(digest, z, h));
        assert_eq!(tree.digest(at(&tree, 2, 1)), folded);
        assert_ne!(tree.digest(at(&tree, 1, 3)), folded);
        assert_eq!(tree.digest(ROOT), 0);
        assert_eq!(tree.hash(at(&tree, 2, 1)), 200);
    }

    #[test]
    fn the_way_from_an_ancestor_to_the_tip_begins_with_the_right_child() {
        let tree = grown();
        let tip = at(&tree, 4, 2);
        let next = |node| tree.child_towards(tip, node);
        assert_eq!(next(ROOT), Some(at(&tree, 1, 1)));
        assert_eq!(next(at(&tree, 1, 1)), Some(at(&tree, 1, 2)));
        assert_eq!(next(at(&tree, 1, 2)), Some(at(&tree, 2, 1)));
        assert_eq!(next(at(&tree, 2, 1)), Some(at(&tree, 4, 1)));
        assert_eq!(next(at(&tree, 4, 1)), Some(tip));
        assert_eq!(next(tip), None);
        assert_eq!(tree.child_towards(ROOT, ROOT), None);
    }

    #[test]
    fn two_histories_meet_where_they_part() {
        let tree = grown();
        for ((a, b), meet) in [
            (((4, 2), (3, 2)), (1, 2)),
            (((4, 2), (1, 1)), (1, 1)),
            (((4, 1), (2, 1)), (2, 1)),
            (((3, 2), (1, 3)), (1, 3)),
            (((3, 2), (3, 1)), (3, 1)),
        ] {
            let (a, b) = (at(&tree, a.0, a.1), at(&tree, b.0, b.1));
            assert_eq!(tree.meet(a, b), at(&tree, meet.0, meet.1));
            assert_eq!(tree.meet(b, a), at(&tree, meet.0, meet.1));
        }
        assert_eq!(tree.meet(at(&tree, 4, 2), ROOT), ROOT);
        let mut forest = Tree::new();
        for epoch in [1, 2] {
            let run = forest.begin(Epoch(epoch), ServerId(1), ROOT);
            forest.push(run, epoch);
        }
        assert_eq!(forest.meet(at(&forest, 1, 1), at(&forest, 2, 1)), ROOT);
    }

    #[test]
    fn what_was_not_broadcast_is_not_found() {
        let tree = grown();
        for (epoch, counter) in [(1, 0), (1, 4), (5, 1), (0, 1)] {
            assert_eq!(tree.find(Zxid::new(Epoch(epoch), counter)), None);
        }
        assert_eq!(tree.find(Zxid::ZERO), Some(ROOT));
        assert_eq!(tree.parent(at(&tree, 4, 1)), at(&tree, 2, 1));
        assert_eq!(tree.parent(at(&tree, 4, 2)), at(&tree, 4, 1));
        let after: Vec<usize> = tree.runs_after(Epoch(2)).collect();
        assert_eq!(after, [3, 4], "epochs 4 and 3, newest first");
    }
}
