//! What the leader has proposed and not yet applied.
//!
//! The leader may answer from committed state only where no proposal is under way that could
//! change the answer. This table counts proposals by what they may change; names are kept as
//! hashes alone, for two names that collide cost at worst one needless proposal.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::txn::{Target, Txn};
use crate::types::ServerId;

/// Counts of the proposals under way, by what they may change.
pub(super) struct InFlight {
    hasher: ahash::RandomState,
    counts: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    /// How many remove a group. While none does, nobody's group goes.
    removals: usize,
    /// The server of each adoption under way: its joins and moves may not be what they are.
    adopting: Vec<ServerId>,
}

impl InFlight {
    pub(super) fn new(seeds: [u64; 4]) -> InFlight {
        let [a, b, c, d] = seeds;
        InFlight {
            hasher: ahash::RandomState::with_seeds(a, b, c, d),
            counts: HashMap::default(),
            removals: 0,
            adopting: Vec::new(),
        }
    }

    /// Counts a proposal.
    pub(super) fn register(&mut self, txn: &Txn<'_>) {
        let InFlight {
            hasher,
            counts,
            removals,
            adopting,
        } = self;
        if let Txn::Adopt(adopt) = txn {
            adopting.push(adopt.server);
        }
        *removals += usize::from(matches!(txn, Txn::DeleteGroup { .. }));
        each_key(txn, |key| {
            *counts.entry(hasher.hash_one(key)).or_insert(0) += 1;
        });
    }

    /// Takes back one count of a proposal that is now applied. One that was never counted,
    /// such as another leader's, is passed over.
    pub(super) fn release(&mut self, txn: &Txn<'_>) {
        let InFlight {
            hasher,
            counts,
            removals,
            adopting,
        } = self;
        if let Txn::Adopt(adopt) = txn
            && let Some(at) = adopting.iter().position(|server| *server == adopt.server)
        {
            adopting.swap_remove(at);
        }
        if counts.is_empty() {
            return;
        }
        each_key(txn, |key| {
            let Entry::Occupied(mut count) = counts.entry(hasher.hash_one(key)) else {
                return;
            };
            if let Txn::DeleteGroup { .. } = txn {
                *removals = removals.saturating_sub(1);
            }
            if *count.get() == 1 {
                count.remove();
            } else {
                *count.get_mut() -= 1;
            }
        });
    }

    /// True if a proposal under way may change what `txn` finds.
    pub(super) fn touches(&self, txn: &Txn<'_>) -> bool {
        let runs_as = match *txn {
            Txn::Join(ref join) => Some(join.owner),
            Txn::Move { to: (owner, _), .. } => Some(owner),
            Txn::Adopt(ref adopt) => Some(adopt.server),
            _ => None,
        };
        if runs_as.is_some_and(|server| self.adopting.contains(&server)) {
            return true;
        }
        if self.counts.is_empty() {
            return false;
        }
        let has = |key| self.counts.contains_key(&self.hasher.hash_one(key));
        let goes = |group| self.removals > 0 && has(whole(group));
        match *txn {
            Txn::Join(ref join) => has(Key::member(join.group, join.member)) || goes(join.group),
            Txn::Leave { group, member, .. } => has(Key::member(group, member)) || goes(group),
            Txn::SetConfig { target, .. } | Txn::DeleteConfig { target, .. } => {
                has(Key::of_config(target)) || goes(target.group)
            }
            // Whatever is under way may be in this group: to count it by group as well would
            // cost every join more than this costs the few who remove one.
            Txn::DeleteGroup { .. } => true,
            // None is ever answered in a way that a proposal of another kind could make wrong.
            Txn::Genesis { .. } | Txn::Expire(_) | Txn::Move { .. } | Txn::Adopt(_) => false,
        }
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.removals = 0;
        self.adopting.clear();
    }
}

/// What a proposal may change: an aspect and the names it concerns.
#[derive(Clone, Copy, Hash)]
struct Key<'a> {
    aspect: Aspect,
    group: &'a [u8],
    member: &'a [u8],
}

#[derive(Clone, Copy, Hash)]
enum Aspect {
    /// One member: its session and config.
    Member,
    /// The group's own config.
    GroupConfig,
    /// The existence of the group: a proposal to remove it.
    Whole,
}

impl<'a> Key<'a> {
    fn new(aspect: Aspect, group: &'a [u8]) -> Self {
        Key {
            aspect,
            group,
            member: b"",
        }
    }

    fn member(group: &'a [u8], member: &'a [u8]) -> Self {
        Key {
            aspect: Aspect::Member,
            group,
            member,
        }
    }

    fn of_config(target: Target<'a>) -> Self {
        match target.member {
            Some(member) => Key::member(target.group, member),
            None => Key::new(Aspect::GroupConfig, target.group),
        }
    }
}

fn whole(group: &[u8]) -> Key<'_> {
    Key::new(Aspect::Whole, group)
}

fn each_key(txn: &Txn<'_>, mut each: impl FnMut(Key<'_>)) {
    match *txn {
        Txn::Genesis { .. } | Txn::Adopt(_) => {}
        Txn::Join(ref join) => {
            each(Key::member(join.group, join.member));
        }
        Txn::Leave { group, member, .. } => {
            each(Key::member(group, member));
        }
        Txn::SetConfig { target, .. } | Txn::DeleteConfig { target, .. } => {
            each(Key::of_config(target));
        }
        Txn::DeleteGroup { group } => {
            each(whole(group));
        }
        Txn::Expire(ref lapses) | Txn::Move { ref lapses, .. } => {
            for lapse in lapses {
                each(Key::member(lapse.group, lapse.member));
            }
        }
    }
}

/// Passes a hash on as its own hash.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only u64 keys are hashed here");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
