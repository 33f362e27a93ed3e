//! Rebuilding one leaf with some of its members changed.

use std::cmp::Ordering;

use super::ConfigChange;
use super::entry::{Entry, put_packed};
use super::leaf::{Leaf, Long, Packed, Probe, finish, fits, wants_model};
use crate::group::request::Session;

/// Goes through one leaf from front to back and writes it anew. Who has a long config keeps
/// it.
pub(super) struct Sweep<'a> {
    leaf: &'a Leaf,
    view: Packed<'a>,
    out: &'a mut Vec<u8>,
    /// The next entry not yet copied, and the number of long configs before it.
    at: usize,
    long_at: usize,
    count: usize,
    /// How many entries are unlike the model.
    unlike: usize,
    changed: bool,
    /// The first entry, whose name alone is there as a whole, was dropped.
    front_gone: bool,
}

/// What a sweep came to.
pub(super) enum Swept {
    /// The leaf stays as it is.
    Unchanged,
    /// The entries as they are packed now, or none.
    Packed,
    /// The same, and they should be packed anew: they are too many, or too unlike.
    ToBePacked,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(leaf: &'a Leaf, out: &'a mut Vec<u8>) -> Self {
        let view = leaf.view();
        out.clear();
        out.extend_from_slice(&view.bytes[..view.start]);
        Sweep {
            leaf,
            view,
            out,
            at: view.start,
            long_at: 0,
            count: view.count(),
            unlike: view.unlike(),
            changed: false,
            front_gone: false,
        }
    }

    /// What [`Sweep::copy_below`] and [`Sweep::entry_named`] look for.
    pub(super) fn probe<'n>(&self, name: &'n [u8]) -> Probe<'n> {
        self.view.probe(name)
    }

    /// Copies the entries below the name.
    pub(super) fn copy_below(&mut self, name: &Probe<'_>) {
        let from = self.at;
        while self.at < self.view.end && self.view.compare(self.at, name) == Ordering::Less {
            self.pass();
        }
        self.out.extend_from_slice(&self.view.bytes[from..self.at]);
    }

    /// The next entry, if it has this name.
    pub(super) fn entry_named(&self, name: &Probe<'_>) -> Option<Entry<'a>> {
        let is_it = self.at < self.view.end && self.view.compare(self.at, name) == Ordering::Equal;
        is_it.then(|| self.leaf.entry(self.at, self.long_at))
    }

    /// Passes over the next entry, which is `entry`, and writes it with another session.
    pub(super) fn put(&mut self, name: &[u8], entry: &Entry<'_>, session: Option<Session>) {
        debug_assert!(entry.is_active());
        let skip = match self.at == self.view.start {
            true => 0,
            false => self.view.shared,
        };
        let (keep, model) = (ConfigChange::Keep, self.view.model);
        let is_unlike = put_packed(self.out, (name, skip), session, keep, Some(*entry), model);
        self.unlike += usize::from(is_unlike);
        self.unlike -= usize::from(self.view.is_unlike(self.at));
        self.pass();
        self.changed = true;
    }

    /// Passes over the next entry, which is `entry`, keeping of it what is configured.
    pub(super) fn end_session(&mut self, name: &[u8], entry: &Entry<'_>) {
        debug_assert!(entry.is_active());
        match entry.has_config() {
            true => self.put(name, entry, None),
            false => self.drop_entry(),
        }
    }

    /// Passes over the next entry and leaves it out.
    fn drop_entry(&mut self) {
        self.front_gone |= self.at == self.view.start;
        self.unlike -= usize::from(self.view.is_unlike(self.at));
        self.at = self.view.next(self.at);
        self.count -= 1;
        self.changed = true;
    }

    /// Copies the rest.
    pub(super) fn finish(self) -> Swept {
        let Sweep { view, out, .. } = self;
        if !self.changed {
            return Swept::Unchanged;
        }
        out.extend_from_slice(&view.bytes[self.at..view.end]);
        if self.count == 0 {
            out.clear();
            return Swept::Packed;
        }
        if self.front_gone {
            let name_at = view.start + 2;
            out.splice(name_at..name_at, view.prefix().iter().copied());
            out[view.start] += view.shared as u8;
        }
        finish(out, self.count, self.unlike);
        let wants_model = wants_model(self.count, view.unlike(), self.unlike);
        match fits(out.len(), self.count) && !wants_model {
            true => Swept::Packed,
            false => Swept::ToBePacked,
        }
    }

    fn pass(&mut self) {
        self.long_at += usize::from(self.view.is_outside(self.at));
        self.at = self.view.next(self.at);
    }
}

/// All long configs of a leaf but the one at `at`, if `was` says that it was there.
pub(super) fn without_long(long: &Long, at: usize, was: bool) -> Long {
    replace_long(long, at, was, None)
}

/// The list with the one at `at` dropped if it `was` there, and `new` in its place.
pub(super) fn replace_long(
    long: &Long,
    at: usize,
    was: bool,
    new: Option<std::sync::Arc<[u8]>>,
) -> Long {
    if !was && new.is_none() {
        return long.clone();
    }
    let mut list = long.as_deref().cloned().unwrap_or_default();
    list.splice(at..at + usize::from(was), new);
    (!list.is_empty()).then(|| std::sync::Arc::new(list))
}
