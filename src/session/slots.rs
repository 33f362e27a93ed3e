//! Where sessions lie: slots of several sizes in big pages, found by a 32-bit handle.
//!
//! A slot is a header of 32 bytes and the member's name right behind it, so that a beat by
//! name reads one place to check the name and to move the deadline:
//!
//! ```text
//! offset size  field        (native only: a slot is never sent nor stored)
//!      0    8  counter      of the session id; in a free slot: the next free one
//!      8    2  era          which entry of the table's eras holds the id's upper half
//!     10    1  name_len     1..=255
//!     11    1  state        0 free, 1 live, 2 closing
//!     12    4  group        the group's place in the registry
//!     16    4  deadline     wheel tick, wrapping
//!     20    4  filed        wheel tick of the bucket that holds its valid entry, wrapping
//!     24    4  timeout_ms
//!     28    4  term
//!     32    n  the member's name
//! ```
//!
//! Sizes are multiples of 16 bytes, so a name of 17 to 32 bytes makes a slot of 64 bytes,
//! which never straddles a cache line: slots are cut from extents that hold one size only
//! and begin on a 4 KiB boundary. Freed slots go to the free list of their size. A page,
//! once there, stays; growth adds a page and moves nothing, hence no insert pays for the
//! sessions before it. Nor for the system's, that puts memory behind a page as it is first
//! written to: whoever runs the shard is told of each stride of it while the one before is
//! being filled.

use super::{Prepare, Slot, prefetch};

/// The pages, and what is free in them.
pub(super) struct Slots {
    pages: Vec<Page>,
    /// Told of each page's memory as it is reserved.
    advise: fn(&[u8]),
    /// Told of each stride before it is written to.
    prepare: Option<Prepare>,
    /// The page that follows, once the last stride of the newest is begun.
    following: Option<Page>,
    /// Units of the newest page that extents have taken.
    taken_units: u32,
    /// One entry a size: index `units - UNITS_MIN`.
    sizes: [Size; SIZE_COUNT],
    /// Extents handed out, for the memory account.
    extents: usize,
}

/// A block of zeroed memory, and where in it the first 4 KiB boundary lies.
struct Page {
    bytes: Box<[u8]>,
    start: usize,
}

/// What is free of one slot size.
#[derive(Clone, Copy)]
struct Size {
    /// Head of the list of freed slots, linked through `counter`.
    free: u32,
    /// Where the extent in use continues.
    next: u32,
    /// Slots the extent in use still has room for.
    left: u32,
}

/// What a slot says of its session, name apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) counter: u64,
    pub(super) era: u16,
    pub(super) name_len: u8,
    pub(super) state: State,
    pub(super) group: u32,
    pub(super) deadline: u32,
    pub(super) filed: u32,
    pub(super) timeout_ms: u32,
    pub(super) term: u32,
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: its memory waits for the next session of its size.
    Free = 0,
    /// A session that may be touched.
    Live = 1,
    /// A session whose expiry is proposed and not yet known to be aborted.
    Closing = 2,
}

impl Slots {
    pub(super) fn new() -> Slots {
        let none = Size {
            free: NIL,
            next: NIL,
            left: 0,
        };
        Slots {
            pages: Vec::new(),
            advise: |_| {},
            prepare: None,
            following: None,
            taken_units: PAGE_UNITS,
            sizes: [none; SIZE_COUNT],
            extents: 0,
        }
    }

    /// None in use, and told to the same as before.
    pub(super) fn cleared(self) -> Slots {
        Slots {
            advise: self.advise,
            prepare: self.prepare,
            ..Slots::new()
        }
    }

    /// Has `advise` told of the memory of each page, those to come and those already there.
    pub(super) fn advise(&mut self, advise: fn(&[u8])) {
        self.advise = advise;
        for page in &self.pages {
            advise(&page.bytes);
        }
    }

    /// Has `prepare` told of each stride, a stride before the first slot is taken from it.
    pub(super) fn prepare(&mut self, prepare: Prepare) {
        self.prepare = Some(prepare);
    }

    /// Takes a slot for `name` and fills it; `None` when all 64 GiB that a handle can name
    /// are in use. `header.name_len` is taken from the name.
    pub(super) fn alloc(&mut self, header: Header, name: &[u8]) -> Option<Slot> {
        let name_len = u8::try_from(name.len()).expect("a name has at most 255 bytes");
        assert!(name_len > 0, "a name has at least one byte");
        assert!(header.state != State::Free, "a slot is taken for a session");
        let slot = self.take(units_for(name_len))?;
        self.write(slot, Header { name_len, ..header });
        self.at_mut(slot)[HEADER_BYTES..HEADER_BYTES + name.len()].copy_from_slice(name);
        Some(slot)
    }

    /// Gives the slot back; whatever is still written in the wheel for it is stale now.
    pub(super) fn free(&mut self, slot: Slot) {
        let header = self.header(slot);
        assert!(header.state != State::Free, "{slot:?} is freed twice");
        let size = &mut self.sizes[size_of(units_for(header.name_len))];
        let next = std::mem::replace(&mut size.free, slot.0);
        let freed = Header {
            counter: u64::from(next),
            state: State::Free,
            ..header
        };
        self.write(slot, freed);
    }

    fn take(&mut self, units: u32) -> Option<Slot> {
        let size = self.sizes[size_of(units)];
        if size.free != NIL {
            let header = self.header(Slot(size.free));
            assert!(
                header.state == State::Free,
                "the free list holds {header:?}"
            );
            self.sizes[size_of(units)].free = header.counter as u32;
            return Some(Slot(size.free));
        }
        if size.left == 0 {
            let extent = self.take_extent()?;
            let size = &mut self.sizes[size_of(units)];
            size.next = extent;
            size.left = EXTENT_UNITS / units;
        }
        let size = &mut self.sizes[size_of(units)];
        let slot = Slot(size.next);
        // Past the last slot of the last extent this wraps, and is not looked at again.
        size.next = size.next.wrapping_add(units);
        size.left -= 1;
        Some(slot)
    }

    fn take_extent(&mut self) -> Option<u32> {
        if self.taken_units == PAGE_UNITS {
            if self.pages.len() == PAGES_MAX {
                return None;
            }
            let page = self.following.take().unwrap_or_else(|| self.reserve());
            self.pages.push(page);
            self.taken_units = 0;
        }
        if self.taken_units.is_multiple_of(STRIDE_UNITS) {
            self.prepare_following();
        }
        let page = (self.pages.len() - 1) as u32;
        let extent = page * PAGE_UNITS + self.taken_units;
        self.taken_units += EXTENT_UNITS;
        self.extents += 1;
        Some(extent)
    }

    /// A page that nothing was written to.
    fn reserve(&self) -> Page {
        let page = Page::new();
        (self.advise)(&page.bytes);
        page
    }

    /// A stride is begun: has the one prepared that follows it.
    #[cold]
    fn prepare_following(&mut self) {
        let Some(mut prepare) = self.prepare.take() else {
            return;
        };
        let following = self.taken_units + STRIDE_UNITS;
        if following < PAGE_UNITS {
            let newest = self.pages.last().expect("a stride of a page is begun");
            prepare(newest.stride(following));
        } else if self.pages.len() < PAGES_MAX {
            let page = self.reserve();
            prepare(page.stride(0));
            self.following = Some(page);
        }
        self.prepare = Some(prepare);
    }

    /// The slot's header.
    #[inline]
    pub(super) fn header(&self, slot: Slot) -> Header {
        Header::read(self.header_bytes(slot))
    }

    #[inline]
    pub(super) fn write(&mut self, slot: Slot, header: Header) {
        header.write(self.header_bytes_mut(slot));
    }

    /// Has the slot's line fetched.
    #[inline]
    pub(super) fn warm(&self, slot: Slot) {
        prefetch::line(self.header_bytes(slot));
    }

    /// Moves the deadline to `deadline(timeout_ms)` unless it already lies later: what a
    /// touch does. Returns the state; only a live session is moved.
    #[inline]
    pub(super) fn extend(&mut self, slot: Slot, deadline: impl FnOnce(u32) -> u32) -> State {
        extend(self.header_bytes_mut(slot), deadline)
    }

    /// The same if `is_it` says so of the counter and the era; else nothing.
    #[inline]
    pub(super) fn extend_if(
        &mut self,
        slot: Slot,
        is_it: impl FnOnce(u64, u16) -> bool,
        deadline: impl FnOnce(u32) -> u32,
    ) -> Option<State> {
        let bytes = self.header_bytes_mut(slot);
        let is_it = is_it(u64_at(bytes, COUNTER), era_in(bytes));
        is_it.then(|| extend(bytes, deadline))
    }

    /// The name of the member the slot belongs to, whose header says it has `name_len` bytes.
    #[inline]
    pub(super) fn name(&self, slot: Slot, name_len: u8) -> &[u8] {
        &self.at(slot)[HEADER_BYTES..HEADER_BYTES + usize::from(name_len)]
    }

    /// The slot's header, and the name of the member it belongs to.
    #[inline]
    pub(super) fn named(&self, slot: Slot) -> (Header, &[u8]) {
        let (header, rest) = self.at(slot).split_first_chunk().expect(INSIDE);
        let header = Header::read(header);
        (header, &rest[..usize::from(header.name_len)])
    }

    /// Sets the deadline.
    #[inline]
    pub(super) fn set_deadline(&mut self, slot: Slot, deadline: u32) {
        put_u32(self.header_bytes_mut(slot), DEADLINE, deadline);
    }

    /// Sets the tick of the bucket that holds the session's valid entry.
    #[inline]
    pub(super) fn set_filed(&mut self, slot: Slot, filed: u32) {
        put_u32(self.header_bytes_mut(slot), FILED, filed);
    }

    /// Sets the state.
    #[inline]
    pub(super) fn set_state(&mut self, slot: Slot, state: State) {
        self.header_bytes_mut(slot)[STATE] = state as u8;
    }

    /// Bytes of the extents in use. A page is reserved whole, but the system backs only what
    /// was written to.
    pub(super) fn memory_bytes(&self) -> usize {
        self.extents * (EXTENT_UNITS * UNIT_BYTES) as usize
    }

    #[inline]
    fn at(&self, slot: Slot) -> &[u8] {
        let page = &self.pages[(slot.0 / PAGE_UNITS) as usize];
        &page.bytes[page.start + ((slot.0 % PAGE_UNITS) * UNIT_BYTES) as usize..]
    }

    #[inline]
    fn at_mut(&mut self, slot: Slot) -> &mut [u8] {
        let page = &mut self.pages[(slot.0 / PAGE_UNITS) as usize];
        &mut page.bytes[page.start + ((slot.0 % PAGE_UNITS) * UNIT_BYTES) as usize..]
    }

    #[inline]
    fn header_bytes(&self, slot: Slot) -> &[u8; HEADER_BYTES] {
        self.at(slot).first_chunk().expect(INSIDE)
    }

    #[inline]
    fn header_bytes_mut(&mut self, slot: Slot) -> &mut [u8; HEADER_BYTES] {
        self.at_mut(slot).first_chunk_mut().expect(INSIDE)
    }
}

impl Page {
    /// Reserves a page. It is zeroed by the system as it is first written to, so this is
    /// quick however big the page; the spare bytes let it begin on a 4 KiB boundary.
    fn new() -> Page {
        let bytes = vec![0; PAGE_BYTES + ALIGN - 1].into_boxed_slice();
        let start = bytes.as_ptr().addr().wrapping_neg() % ALIGN;
        Page { bytes, start }
    }

    /// The memory of the stride that begins after so many units.
    fn stride(&self, units: u32) -> &[u8] {
        let first = self.start + (units * UNIT_BYTES) as usize;
        &self.bytes[first..first + STRIDE_BYTES]
    }
}

impl Header {
    #[inline]
    fn read(bytes: &[u8; HEADER_BYTES]) -> Header {
        Header {
            counter: u64_at(bytes, COUNTER),
            era: era_in(bytes),
            name_len: bytes[NAME_LEN],
            state: State::of(bytes[STATE]),
            group: u32_at(bytes, GROUP),
            deadline: u32_at(bytes, DEADLINE),
            filed: u32_at(bytes, FILED),
            timeout_ms: u32_at(bytes, TIMEOUT_MS),
            term: u32_at(bytes, TERM),
        }
    }

    #[inline]
    fn write(&self, bytes: &mut [u8; HEADER_BYTES]) {
        bytes[COUNTER..COUNTER + 8].copy_from_slice(&self.counter.to_ne_bytes());
        bytes[ERA..ERA + 2].copy_from_slice(&self.era.to_ne_bytes());
        bytes[NAME_LEN] = self.name_len;
        bytes[STATE] = self.state as u8;
        put_u32(bytes, GROUP, self.group);
        put_u32(bytes, DEADLINE, self.deadline);
        put_u32(bytes, FILED, self.filed);
        put_u32(bytes, TIMEOUT_MS, self.timeout_ms);
        put_u32(bytes, TERM, self.term);
    }
}

impl State {
    #[inline]
    fn of(byte: u8) -> State {
        match byte {
            0 => State::Free,
            1 => State::Live,
            // Written by `Header::write` alone, which knows three.
            _ => State::Closing,
        }
    }
}

#[inline]
fn era_in(bytes: &[u8; HEADER_BYTES]) -> u16 {
    u16::from_ne_bytes([bytes[ERA], bytes[ERA + 1]])
}

/// Moves the deadline in a header; see [`Slots::extend`].
#[inline]
fn extend(bytes: &mut [u8; HEADER_BYTES], deadline: impl FnOnce(u32) -> u32) -> State {
    let state = State::of(bytes[STATE]);
    if state == State::Live {
        let deadline = deadline(u32_at(bytes, TIMEOUT_MS));
        if is_before(u32_at(bytes, DEADLINE), deadline) {
            put_u32(bytes, DEADLINE, deadline);
        }
    }
    state
}

/// True if tick `a` comes before tick `b`. Ticks wrap: two that are compared lie less than
/// 2³¹ ticks (248 days) apart, and the longest timeout is a fifth of that.
#[inline]
pub(super) fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn units_for(name_len: u8) -> u32 {
    (HEADER_BYTES as u32 + u32::from(name_len)).div_ceil(UNIT_BYTES)
}

fn size_of(units: u32) -> usize {
    (units - UNITS_MIN) as usize
}

#[inline]
fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

#[inline]
fn put_u32(bytes: &mut [u8; HEADER_BYTES], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

/// What a handle counts in.
const UNIT_BYTES: u32 = 16;
/// Why a header is always whole.
const INSIDE: &str = "a slot lies inside its page";

const HEADER_BYTES: usize = 32;
const COUNTER: usize = 0;
const ERA: usize = 8;
const NAME_LEN: usize = 10;
const STATE: usize = 11;
const GROUP: usize = 12;
const DEADLINE: usize = 16;
const FILED: usize = 20;
const TIMEOUT_MS: usize = 24;
const TERM: usize = 28;

/// A header and a name of 1 to 16 bytes.
const UNITS_MIN: u32 = 3;
/// A header and a name of 255 bytes.
const UNITS_MAX: u32 = 18;
const SIZE_COUNT: usize = (UNITS_MAX - UNITS_MIN + 1) as usize;

/// 4 KiB: what one size takes at a time.
const EXTENT_UNITS: u32 = 256;
const ALIGN: usize = 4096;
/// A megabyte: 16,384 slots of 64 bytes, which takes as many joins some 0.1 s to fill at their
/// fastest.
const STRIDE_UNITS: u32 = 1 << 16;
const STRIDE_BYTES: usize = (STRIDE_UNITS * UNIT_BYTES) as usize;
/// 32 MiB: above what the C library serves from its heap, so a page comes straight from the
/// system, lazily zeroed, and may be backed by huge pages.
const PAGE_UNITS: u32 = 1 << 21;
const PAGE_BYTES: usize = (PAGE_UNITS * UNIT_BYTES) as usize;
const PAGES_MAX: usize = 1 << (32 - 21);
/// No slot: the last unit of the last page, too near the end to begin one.
const NIL: u32 = u32::MAX;

const _: () = assert!(
    EXTENT_UNITS as usize * UNIT_BYTES as usize == ALIGN,
    "extents keep the alignment of the page"
);
const _: () = assert!(
    PAGE_UNITS.is_multiple_of(EXTENT_UNITS),
    "extents fill a page"
);
const _: () = assert!(
    HEADER_BYTES + 255 <= (UNITS_MAX * UNIT_BYTES) as usize,
    "the longest name fits the largest size"
);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::ops::Range;
    use std::rc::Rc;

    use super::*;

    fn header(counter: u64) -> Header {
        Header {
            counter,
            era: 0xabcd,
            name_len: 0,
            state: State::Live,
            group: 7,
            deadline: 8,
            filed: 9,
            timeout_ms: 10,
            term: 11,
        }
    }

    #[test]
    fn a_slot_returns_what_was_written_for_every_length_of_name() {
        let mut slots = Slots::new();
        let name = |len: usize| vec![len as u8; len];
        let all: Vec<Slot> = (1..=255)
            .map(|len| slots.alloc(header(len as u64), &name(len)).unwrap())
            .collect();
        for (slot, len) in all.into_iter().zip(1usize..) {
            let found = slots.header(slot);
            let want = Header {
                name_len: len as u8,
                ..header(len as u64)
            };
            assert_eq!(found, want);
            assert_eq!(slots.name(slot, found.name_len), name(len));
        }
    }

    #[test]
    fn a_slot_of_64_bytes_is_one_cache_line() {
        let mut slots = Slots::new();
        for len in [1, 17, 100, 24, 32, 255].repeat(500) {
            let slot = slots.alloc(header(1), &vec![b'x'; len]).unwrap();
            if (17..=32).contains(&len) {
                assert_eq!(slots.at(slot).as_ptr().addr() % 64, 0);
            }
        }
    }

    #[test]
    fn a_freed_slot_is_used_again_by_its_own_size_only() {
        let mut slots = Slots::new();
        let short = slots.alloc(header(1), b"short").unwrap();
        let long = slots.alloc(header(2), &[b'l'; 40]).unwrap();
        slots.free(short);
        slots.free(long);
        assert_eq!(slots.header(short).state, State::Free);
        assert_eq!(slots.alloc(header(3), &[b'm'; 48]), Some(long));
        assert_eq!(slots.alloc(header(4), b"s"), Some(short));
        let fresh = slots.alloc(header(5), b"t").unwrap();
        assert!(fresh != short && fresh != long);
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn freeing_twice_is_noticed() {
        let mut slots = Slots::new();
        let slot = slots.alloc(header(1), b"a").unwrap();
        slots.free(slot);
        slots.free(slot);
    }

    #[test]
    fn slots_do_not_overlap_across_extents_and_pages() {
        let mut slots = Slots::new();
        slots.pages.push(Page::new());
        slots.taken_units = PAGE_UNITS - EXTENT_UNITS;
        let all: Vec<Slot> = (0..100)
            .map(|i| slots.alloc(header(i), &[b'n'; 255]).unwrap())
            .collect();
        assert_eq!(slots.pages.len(), 2);
        for (slot, i) in all.into_iter().zip(0u64..) {
            assert_eq!(slots.header(slot).counter, i);
            assert_eq!(slots.name(slot, 255), [b'n'; 255]);
        }
    }

    #[test]
    fn each_stride_but_the_first_is_told_of_a_stride_before_it_is_taken() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let mut slots = Slots::new();
        let teller = Rc::clone(&told);
        slots.prepare(Box::new(move |stride| {
            teller.borrow_mut().push(stride.as_ptr_range());
        }));
        let mut first = None;
        while slots.pages.len() < 3 {
            let slot = slots.alloc(header(1), &[b'n'; 255]).unwrap();
            let place = slots.at(slot).as_ptr();
            let first = *first.get_or_insert(place);
            let in_first = (0..STRIDE_BYTES).contains(&(place.addr().wrapping_sub(first.addr())));
            let told = told.borrow();
            let before = told.len().saturating_sub(1);
            assert!(in_first || told[..before].iter().any(|stride| stride.contains(&place)));
        }
        let told = told.borrow();
        let strides = PAGE_BYTES / STRIDE_BYTES;
        // All of two pages and the first of the third, but the very first; and the next.
        assert_eq!(told.len(), 2 * strides + 1);
        let bytes = |stride: &Range<*const u8>| stride.end.addr() - stride.start.addr();
        assert!(told.iter().all(|stride| bytes(stride) == STRIDE_BYTES));
        drop(told);
        assert!(slots.cleared().prepare.is_some());
    }

    #[test]
    fn no_page_is_reserved_early_where_nobody_prepares_it() {
        let mut slots = Slots::new();
        slots.pages.push(Page::new());
        slots.taken_units = PAGE_UNITS - EXTENT_UNITS;
        slots.alloc(header(1), b"a").unwrap();
        assert!(slots.following.is_none());
    }

    #[test]
    fn a_full_address_space_is_an_answer_and_no_panic() {
        let mut slots = Slots::new();
        slots.pages = (0..PAGES_MAX)
            .map(|_| Page {
                bytes: Box::new([]),
                start: 0,
            })
            .collect();
        assert_eq!(slots.alloc(header(1), b"a"), None);
    }

    #[test]
    fn ticks_are_compared_across_the_wrap() {
        assert!(is_before(u32::MAX, 3));
        assert!(!is_before(3, u32::MAX));
        assert!(!is_before(3, 3));
    }

    #[test]
    fn an_extension_never_pulls_a_deadline_in() {
        let mut slots = Slots::new();
        let slot = slots.alloc(header(1), b"a").unwrap();
        assert_eq!(
            slots.extend(slot, |timeout_ms| timeout_ms + 10),
            State::Live
        );
        assert_eq!(slots.header(slot).deadline, 20);
        slots.extend(slot, |_| 19);
        assert_eq!(slots.header(slot).deadline, 20);
    }
}
