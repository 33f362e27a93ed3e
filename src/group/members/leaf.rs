//! A leaf: neighbouring members in one allocation, what they share written once.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::ordered::{Keyed, head};
use super::build::shared;
use super::entry::{ACTIVE, Entry, LIKE, Model, Name, OUTSIDE, TERM, Tail, squeeze};

/// Some neighbouring members.
#[derive(Clone, Default)]
pub(in crate::group) struct Leaf {
    /// The packed entries; `None` for no entry.
    packed: Option<Arc<[u8]>>,
    /// The long configs of those entries that have one; `None` for none.
    pub(super) long: Long,
}

pub(super) type Long = Option<Arc<Vec<Arc<[u8]>>>>;

/// The bytes of a leaf, their header read.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) bytes: &'a [u8],
    /// How many bytes at the front of every name the leaf's names share.
    pub(super) shared: usize,
    pub(super) model: Option<Model<'a>>,
    /// Where the first entry begins.
    pub(super) start: usize,
    /// Where the last entry ends.
    pub(super) end: usize,
}

/// A name to be looked for in one leaf.
#[derive(Clone, Copy)]
pub(super) struct Probe<'n> {
    /// The name behind what the leaf's names share, and its [`head`]; or how the leaf's names
    /// compare with it, every one.
    rest: Result<(&'n [u8], u64), Ordering>,
}

impl Leaf {
    /// Makes `packed` the leaf's entries, in the same memory if nobody else reads them there
    /// and the size is right.
    pub(super) fn store(&mut self, packed: &mut Vec<u8>, long: Long) {
        self.long = long;
        if packed.is_empty() {
            self.packed = None;
            return;
        }
        packed.resize(room_for(packed.len()), 0);
        if let Some(mine) = self.packed.as_mut().and_then(Arc::get_mut)
            && mine.len() == packed.len()
        {
            mine.copy_from_slice(packed);
        } else {
            self.packed = Some(Arc::from(&packed[..]));
        }
    }

    /// Writes `entry`, packed, in the place of what lies from `at` to `end`, after which the
    /// leaf has `count` entries, `unlike` of them unlike the model. If nobody else reads the
    /// leaf and its memory is of a size for it, only what lies behind is moved; else a copy
    /// is made, behind `entry` in the same buffer.
    ///
    /// The header's model and what all names share must hold for what comes of it.
    pub(super) fn splice(
        &mut self,
        (at, end): (usize, usize),
        entry: &mut Vec<u8>,
        (count, unlike): (usize, usize),
    ) {
        let view = self.view();
        let (whole, len) = (view.end, entry.len());
        let size = whole - (end - at) + len;
        let room = view.bytes.len();
        let fits = size <= room && room - room_for(size) <= SLACK_BYTES_MAX;
        let packed = self.packed.as_mut().expect("there is a header");
        if fits && let Some(bytes) = Arc::get_mut(packed) {
            bytes.copy_within(end..whole, at + len);
            bytes[at..at + len].copy_from_slice(entry);
            settle_header(bytes, (at, end), size, (count, unlike));
            return;
        }
        entry.extend_from_slice(&packed[..at]);
        entry.extend_from_within(..len);
        entry.extend_from_slice(&packed[end..whole]);
        entry.resize(len + room_for(size), 0);
        settle_header(&mut entry[len..], (at, end), size, (count, unlike));
        *packed = Arc::from(&entry[len..]);
    }

    #[inline]
    pub(super) fn view(&self) -> Packed<'_> {
        Packed::read(self.packed.as_deref().unwrap_or_default())
    }

    /// The entry that lies there, `long` long configs before it.
    pub(super) fn entry(&self, at: usize, long: usize) -> Entry<'_> {
        self.entry_in(&self.view(), at, long)
    }

    /// The same, in a view of this leaf.
    #[inline]
    pub(super) fn entry_in<'a>(&'a self, view: &Packed<'a>, at: usize, long: usize) -> Entry<'a> {
        let mut entry = view.entry(at);
        if let Tail::Whole(tail) = entry.tail
            && tail[0] & OUTSIDE != 0
        {
            entry.outside = self.long.as_ref().map(|list| &list[long]);
        }
        entry
    }
}

impl Keyed for Leaf {
    fn key(&self) -> &[u8] {
        let view = self.view();
        match view.is_empty() {
            true => &[],
            false => view.first_name(),
        }
    }
}

impl<'a> Packed<'a> {
    /// Reads the header; no bytes are a leaf without entries.
    #[inline]
    pub(super) fn read(bytes: &'a [u8]) -> Packed<'a> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Packed {
                bytes,
                shared: 0,
                model: None,
                start: 0,
                end: 0,
            };
        };
        let epoch_len = usize::from(header[EPOCH] & !TERM_FOLLOWS);
        let model_at = HEADER_BYTES + HINT_BYTES * usize::from(header[HINTS]);
        let start = model_at + epoch_len + usize::from(header[REST]);
        let (epoch, rest) = bytes[model_at..start].split_at(epoch_len);
        let flags = match header[EPOCH] & TERM_FOLLOWS {
            0 => ACTIVE,
            _ => ACTIVE | TERM,
        };
        Packed {
            bytes,
            shared: usize::from(header[SHARED]),
            model: (epoch_len > 0).then_some(Model { flags, epoch, rest }),
            start,
            end: usize::from(u16::from_le_bytes([header[END], header[END + 1]])),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> usize {
        self.bytes.get(COUNT).map_or(0, |&count| usize::from(count))
    }

    /// How many sessions are written whole that a model could stand for, were it theirs.
    pub(super) fn unlike(&self) -> usize {
        self.bytes
            .get(UNLIKE)
            .map_or(0, |&count| usize::from(count))
    }

    /// True if the entry at `at` is one of [`Packed::unlike`].
    pub(super) fn is_unlike(&self, at: usize) -> bool {
        let tail_at = at + 2 + usize::from(self.bytes[at]);
        self.bytes[at + 1] < LIKE && Model::may_stand_for(self.bytes[tail_at])
    }

    /// The header as far as the model.
    pub(super) fn header(&self) -> &'a [u8] {
        &self.bytes[..HEADER_BYTES + HINT_BYTES * self.hints()]
    }

    /// What all names begin with.
    pub(super) fn prefix(&self) -> &'a [u8] {
        match self.is_empty() {
            true => &[],
            false => &self.first_name()[..self.shared],
        }
    }

    pub(super) fn probe<'n>(&self, name: &'n [u8]) -> Probe<'n> {
        let prefix = self.prefix();
        let rest = match name.strip_prefix(prefix) {
            Some(rest) => Ok((rest, head(rest, 0))),
            None => Err(prefix.cmp(name)),
        };
        Probe { rest }
    }

    /// How the name of the entry at `at` compares with the one sought.
    #[inline]
    pub(super) fn compare(&self, at: usize, probe: &Probe<'_>) -> Ordering {
        let (rest, wanted) = match probe.rest {
            Ok(sought) => sought,
            Err(order) => return order,
        };
        let name = self.rest_at(at);
        // Eight bytes decide nearly always. They are read where they lie, with what comes
        // behind a shorter name masked out: a call to compare a few bytes would take longer.
        let found = match self.bytes[self.rest_from(at)..].first_chunk::<8>() {
            Some(eight) if name.len() < 8 => {
                u64::from_be_bytes(*eight) & !(u64::MAX >> (8 * name.len()))
            }
            Some(eight) => u64::from_be_bytes(*eight),
            None => head(name, 0),
        };
        match found.cmp(&wanted) {
            Ordering::Equal => name.cmp(rest),
            order => order,
        }
    }

    /// Where the entry of this name lies, or where it would have to.
    pub(super) fn find(&self, name: &[u8]) -> (usize, usize) {
        self.load();
        let probe = self.probe(name);
        let mut at = match probe.rest {
            Ok(_) => self.hinted(&probe),
            // All are below the name, or all above.
            Err(Ordering::Less) => self.end,
            Err(_) => self.start,
        };
        while at < self.end {
            match self.compare(at, &probe) {
                Ordering::Less => at = self.next(at),
                Ordering::Equal => return (at, self.next(at)),
                Ordering::Greater => break,
            }
        }
        (at, at)
    }

    /// Where to search from: the last hint that is not above the name, or the first entry.
    #[inline]
    fn hinted(&self, probe: &Probe<'_>) -> usize {
        let (mut low, mut high) = (0, self.hints());
        let mut from = self.start;
        while low < high {
            let middle = low.midpoint(high);
            let at = hint(self.bytes, middle);
            if at < self.end && self.compare(at, probe) != Ordering::Greater {
                (low, from) = (middle + 1, at);
            } else {
                high = middle;
            }
        }
        from
    }

    /// How many hints there are.
    fn hints(&self) -> usize {
        self.bytes.get(HINTS).map_or(0, |&count| usize::from(count))
    }

    #[cfg(test)]
    pub(super) fn hinted_places(&self) -> impl Iterator<Item = usize> {
        (0..self.hints()).map(|i| hint(self.bytes, i))
    }

    /// Whether a leaf that comes to have `count` entries should be packed anew for more hints.
    pub(super) fn wants_hints(&self, count: usize) -> bool {
        self.hints() < count / (2 * HINT_ENTRIES)
    }

    /// How many entries with a long config come before `at`.
    pub(super) fn long_before(&self, at: usize) -> usize {
        let (mut i, mut count) = (self.start, 0);
        while i < at {
            count += usize::from(self.is_outside(i));
            i = self.next(i);
        }
        count
    }

    /// Where the entry at `at` ends.
    #[inline]
    pub(super) fn next(&self, at: usize) -> usize {
        let (name_len, kind) = (self.bytes[at], self.bytes[at + 1]);
        at + 2 + usize::from(name_len) + tail_len(kind)
    }

    /// Whether the config of the entry at `at` lies outside.
    pub(super) fn is_outside(&self, at: usize) -> bool {
        let tail_at = at + 2 + usize::from(self.bytes[at]);
        self.bytes[at + 1] < LIKE && self.bytes[tail_at] & OUTSIDE != 0
    }

    /// The entry at `at`; of a long config it knows nothing.
    pub(super) fn entry(&self, at: usize) -> Entry<'a> {
        let bytes = self.bytes;
        let tail = &bytes[at + 2 + usize::from(bytes[at])..self.next(at)];
        Entry {
            name: Name::new(self.prefix(), self.rest_at(at)),
            tail: match self.model {
                Some(model) if bytes[at + 1] >= LIKE => Tail::Like(model, tail),
                _ => Tail::Whole(tail),
            },
            outside: None,
        }
    }

    /// Appends the entry at `at` as it is packed where it is the first.
    pub(super) fn write_first(&self, at: usize, out: &mut Vec<u8>) {
        let (rest, prefix) = (self.rest_at(at), self.prefix());
        let end = self.next(at);
        out.extend_from_slice(&[(prefix.len() + rest.len()) as u8, self.bytes[at + 1]]);
        out.extend_from_slice(prefix);
        out.extend_from_slice(&self.bytes[at + 2..end]);
    }

    /// Appends the entries from `from` to `to`, plainly.
    pub(super) fn unpack(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        let mut at = from;
        while at < to {
            self.entry(at).write(out);
            at = self.next(at);
        }
    }

    /// Loads every cache line of the leaf at once. A search that follows knows the place of the
    /// next entry only when it has read this one, and would wait for each line in turn.
    #[inline]
    pub(super) fn load(&self) {
        let lines = self.bytes.iter().step_by(CACHE_LINE_BYTES);
        std::hint::black_box(lines.fold(0, |all, byte| all ^ byte));
    }

    /// The first entry's name; there must be one.
    pub(super) fn first_name(&self) -> &'a [u8] {
        let name_at = self.start + 2;
        &self.bytes[name_at..name_at + usize::from(self.bytes[self.start])]
    }

    /// The name of the entry at `at` behind what all share.
    #[inline]
    fn rest_at(&self, at: usize) -> &'a [u8] {
        &self.bytes[self.rest_from(at)..at + 2 + usize::from(self.bytes[at])]
    }

    /// The first entry's name is there as a whole.
    #[inline]
    fn rest_from(&self, at: usize) -> usize {
        at + 2 + if at == self.start { self.shared } else { 0 }
    }
}

/// Appends plain entries, of which there are some, as a leaf packs them.
pub(super) fn pack(plain: &[u8], out: &mut Vec<u8>) {
    let (mut last, mut at, mut count) = (0, 0, 0_usize);
    let mut majority: Option<Model<'_>> = None;
    let mut lead = 0_usize;
    while at < plain.len() {
        (last, count) = (at, count + 1);
        at = plain_end(plain, last);
        // The majority's model, if there is a majority, survives this count (Boyer and Moore).
        let tail = &plain[last + 2 + usize::from(plain[last])..at];
        match Model::of(tail).map(|(model, _)| model) {
            Some(model) if lead == 0 => (majority, lead) = (Some(model), 1),
            Some(model) if majority == Some(model) => lead += 1,
            Some(_) => lead -= 1,
            None => {}
        }
    }
    // What the first and the last of a sorted sequence share, all share.
    let shared = shared(plain_name(plain, 0), plain_name(plain, last));
    out.clear();
    let hints = (count.saturating_sub(1) / HINT_ENTRIES).min(HINTS_MAX);
    out.resize(HEADER_BYTES + HINT_BYTES * hints, 0);
    out[SHARED] = shared as u8;
    out[HINTS] = hints as u8;
    if let Some(model) = majority {
        put_model(out, model);
    }
    let (mut at, mut unlike) = (0, 0);
    while at < plain.len() {
        let (begin, end) = (out.len(), plain_end(plain, at));
        out.extend_from_slice(&plain[at..end]);
        let skip = if at == 0 { 0 } else { shared };
        unlike += usize::from(squeeze(out, begin, skip, majority));
        at = end;
    }
    finish(out, count, unlike);
}

/// Ends a header, of which `out` has what comes before the model.
pub(super) fn put_model(out: &mut Vec<u8>, model: Model<'_>) {
    let term = match model.flags & TERM {
        0 => 0,
        _ => TERM_FOLLOWS,
    };
    out[EPOCH] = model.epoch.len() as u8 | term;
    out[REST] = model.rest.len() as u8;
    out.extend_from_slice(model.epoch);
    out.extend_from_slice(model.rest);
}

/// Writes into the header of `packed` how much there is, and where to search from.
pub(super) fn finish(packed: &mut [u8], count: usize, unlike: usize) {
    let end = packed.len();
    put_counts(packed, end, count, unlike);
    let view = Packed::read(packed);
    let hints = view.hints();
    let (mut at, each) = (view.start, count.div_ceil(hints + 1));
    let mut found = [end; HINTS_MAX];
    for hint in &mut found[..hints] {
        for _ in 0..each {
            at = if at < end { view.next(at) } else { end };
        }
        *hint = at;
    }
    for (i, at) in found[..hints].iter().enumerate() {
        put_hint(packed, i, *at);
    }
}

/// Brings the header of a leaf up to date, in which what lay from `at` to `end` has been
/// replaced, and which takes `size` bytes now. A hint stays with its entry, or goes to the
/// next if that is gone.
fn settle_header(
    packed: &mut [u8],
    (at, end): (usize, usize),
    size: usize,
    (count, unlike): (usize, usize),
) {
    let before = usize::from(u16::from_le_bytes([packed[END], packed[END + 1]]));
    put_counts(packed, size, count, unlike);
    for i in 0..usize::from(packed[HINTS]) {
        let hint = hint(packed, i);
        if hint >= end {
            put_hint(packed, i, hint + size - before);
        } else if hint > at {
            put_hint(packed, i, at);
        }
    }
}

fn put_counts(packed: &mut [u8], end: usize, count: usize, unlike: usize) {
    // More than fit are parted before they are stored.
    packed[COUNT] = count.min(255) as u8;
    packed[UNLIKE] = unlike.min(255) as u8;
    let end = u16::try_from(end).expect("a few leaves' worth at most");
    packed[END..END + 2].copy_from_slice(&end.to_le_bytes());
}

#[inline]
fn hint(packed: &[u8], i: usize) -> usize {
    let hint_at = HEADER_BYTES + HINT_BYTES * i;
    usize::from(u16::from_le_bytes([packed[hint_at], packed[hint_at + 1]]))
}

fn put_hint(packed: &mut [u8], i: usize, at: usize) {
    let hint_at = HEADER_BYTES + HINT_BYTES * i;
    packed[hint_at..hint_at + HINT_BYTES].copy_from_slice(&(at as u16).to_le_bytes());
}

/// Whether a leaf of `count` entries should be packed anew, `unlike` of them unlike its model
/// and `before` of them before the change: most are, and since that was last looked at twice
/// as many. Where each session is of a kind of its own no model helps, and is seldom sought.
pub(super) fn wants_model(count: usize, before: usize, unlike: usize) -> bool {
    2 * unlike > count && unlike.checked_ilog2() > before.checked_ilog2()
}

/// Whether so many bytes and entries may be one leaf.
pub(super) fn fits(bytes: usize, count: usize) -> bool {
    count <= 1 || (bytes <= LEAF_BYTES_MAX && count <= LEAF_ENTRIES_MAX)
}

/// Where the plain entry at `at` ends.
pub(super) fn plain_end(plain: &[u8], at: usize) -> usize {
    at + 2 + usize::from(plain[at]) + usize::from(plain[at + 1])
}

/// Whether the config of the plain entry at `at` lies outside.
pub(super) fn plain_outside(plain: &[u8], at: usize) -> bool {
    plain[at + 2 + usize::from(plain[at])] & OUTSIDE != 0
}

pub(super) fn plain_name(plain: &[u8], at: usize) -> &[u8] {
    &plain[at + 2..at + 2 + usize::from(plain[at])]
}

#[inline]
fn tail_len(kind: u8) -> usize {
    usize::from(if kind < LIKE { kind } else { kind - LIKE })
}

/// The size of a leaf's memory for so many bytes: with the reference counts and what the
/// allocator puts in front a multiple of 16 bytes, and of 64 for all but small leaves. A leaf
/// that gains or loses a member then mostly stays where it is, and where it does not, what it
/// leaves behind fits another.
fn room_for(bytes: usize) -> usize {
    let whole = bytes + IN_FRONT_BYTES;
    let step = match whole {
        ..=SMALL_BYTES => 16,
        _ => 64,
    };
    whole.next_multiple_of(step) - IN_FRONT_BYTES
}

/// Longest leaf of more than one entry, in bytes. With the reference counts in front it
/// stays within the sizes that the allocator serves from its quick lists (1,032 bytes).
pub(super) const LEAF_BYTES_MAX: usize = 1_000;
const _: () = assert!(LEAF_BYTES_MAX + IN_FRONT_BYTES <= 1_024);

/// Most entries of a leaf.
pub(super) const LEAF_ENTRIES_MAX: usize = 64;

/// One entry in so many has a hint, when a leaf is packed: those between two hints are
/// searched one after the other.
const HINT_ENTRIES: usize = 8;
const HINTS_MAX: usize = (LEAF_ENTRIES_MAX - 1) / HINT_ENTRIES;
const HINT_BYTES: usize = 2;

/// How much more memory than one of its size has a leaf may keep.
const SLACK_BYTES_MAX: usize = 64;

/// Two reference counts, and the length that the C library's allocator keeps.
const IN_FRONT_BYTES: usize = 24;
const SMALL_BYTES: usize = 256;

const CACHE_LINE_BYTES: usize = 64;

/// The header, as `mod.rs` draws it.
const SHARED: usize = 0;
const COUNT: usize = 1;
const END: usize = 2;
const EPOCH: usize = 4;
const REST: usize = 5;
const UNLIKE: usize = 6;
const HINTS: usize = 7;
const HEADER_BYTES: usize = 8;
/// The longest header, without the model.
pub(super) const HEADER_BYTES_MAX: usize = HEADER_BYTES + HINT_BYTES * HINTS_MAX;
/// With the length of the model's epoch.
const TERM_FOLLOWS: u8 = 0x80;
