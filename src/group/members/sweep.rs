//! Rebuilding one leaf with some of its members changed.

use std::cmp::Ordering;

use super::ConfigChange;
use super::entry::{Entry, Kind, put_packed, squeeze};
use super::leaf::{Leaf, Long, Packed, Probe, finish, fits, put_model, wants_model};
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
    /// How many entries are unlike the model; once that is another, of those written.
    unlike: usize,
    /// Most entries are named, so that the first session to be written makes a better model
    /// than the leaf has.
    most_named: bool,
    /// The model instead of the leaf's.
    kind: Option<Kind>,
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
    pub(super) fn new(leaf: &'a Leaf, most_named: bool, out: &'a mut Vec<u8>) -> Self {
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
            most_named,
            kind: None,
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
        self.copy(from, self.at);
    }

    /// The next entry, if it has this name.
    pub(super) fn entry_named(&self, name: &Probe<'_>) -> Option<Entry<'a>> {
        let is_it = self.at < self.view.end && self.view.compare(self.at, name) == Ordering::Equal;
        is_it.then(|| self.leaf.entry(self.at, self.long_at))
    }

    /// Passes over the next entry, which is `entry`, and writes it with another session.
    pub(super) fn put(&mut self, name: &[u8], entry: &Entry<'_>, session: Option<Session>) {
        debug_assert!(entry.is_active());
        if !self.changed
            && self.most_named
            && let Some(session) = session
            && self.view.model.is_none_or(|model| !model.is_of(&session))
        {
            self.remodel(Kind::of(session));
        }
        let skip = self.skip(self.at);
        let model = match &self.kind {
            Some(kind) => Some(kind.model()),
            None => self.view.model,
        };
        let (keep, old) = (ConfigChange::Keep, Some(*entry));
        let is_unlike = put_packed(self.out, (name, skip), session, keep, old, model);
        self.forget(self.at);
        self.unlike += usize::from(is_unlike);
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
        self.forget(self.at);
        self.at = self.view.next(self.at);
        self.count -= 1;
        self.changed = true;
    }

    /// Copies the rest.
    pub(super) fn finish(mut self) -> Swept {
        if !self.changed {
            return Swept::Unchanged;
        }
        self.copy(self.at, self.view.end);
        let Sweep { view, out, .. } = self;
        if self.count == 0 {
            out.clear();
            return Swept::Packed;
        }
        if self.front_gone {
            // What drops the first entry before it writes any keeps the leaf's model.
            debug_assert!(self.kind.is_none());
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

    /// Writes what is copied from here on, and what was copied, after another model.
    fn remodel(&mut self, kind: Kind) {
        self.out.clear();
        self.out.extend_from_slice(self.view.header());
        put_model(self.out, kind.model());
        self.kind = Some(kind);
        self.unlike = 0;
        self.copy(self.view.start, self.at);
    }

    /// Copies the entries from `from` to `to`.
    fn copy(&mut self, from: usize, to: usize) {
        let Some(kind) = &self.kind else {
            self.out.extend_from_slice(&self.view.bytes[from..to]);
            return;
        };
        let mut at = from;
        while at < to {
            let begin = self.out.len();
            self.view.entry(at).write(self.out);
            let is_unlike = squeeze(self.out, begin, self.skip(at), Some(kind.model()));
            self.unlike += usize::from(is_unlike);
            at = self.view.next(at);
        }
    }

    /// No longer counts the entry at `at`, which is not copied.
    fn forget(&mut self, at: usize) {
        self.unlike -= usize::from(self.kind.is_none() && self.view.is_unlike(at));
    }

    /// How many bytes of the name of the entry at `at` are left out.
    fn skip(&self, at: usize) -> usize {
        match at == self.view.start {
            true => 0,
            false => self.view.shared,
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
