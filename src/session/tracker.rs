//! The tracker: sessions, their deadlines, and the two clocks.

use std::hash::BuildHasher;

use ahash::RandomState;

use super::slots::{Header, State, is_before};
use super::table::Table;
use super::wheel::{BLOCK_SLOTS, Taken, Wheel};
use super::{GroupSlot, InsertError, Limits, Moment, NewSession, Prepare, Slot, Touch};
use crate::time::{Millis, Tick, stretched};
use crate::types::{SessionId, Term};

/// The sessions of one shard, `G` being what the shard keeps for each group.
///
/// `now` is always the shard's monotonic clock, truncated to milliseconds. Deadlines are
/// ticks of a *virtual* clock that runs like it but is held back by every gap that
/// [`Tracker::make_good`] reports: time in which this machine did not run us, and so could
/// not have read a beat. Holding the clock back moves all deadlines by the gap at once.
///
/// Invariants, with those of the parts:
///
/// 1. no session is reported before `timeout` of real time has passed since its last touch
///    (a touch within the millisecond `h` counts as made at its very end, clocks may run fast
///    by a thousandth, and deadlines round up to a tick);
/// 2. a touch never pulls a deadline in, even if `now` goes back;
/// 3. a closing session is not in the wheel, cannot be touched, and stays so until it is
///    removed or reopened.
pub struct Tracker<G, S = RandomState> {
    pub(super) table: Table<G, S>,
    wheel: Wheel,
    /// How far the virtual clock is behind the shard's.
    held: Millis,
}

/// A session as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView<'a> {
    /// Its id.
    pub id: SessionId,
    /// How often it changed owner.
    pub term: Term,
    /// The time without a beat after which it is expired.
    pub timeout: Millis,
    /// Its group.
    pub group: GroupSlot,
    /// The member's name.
    pub member: &'a [u8],
    /// True if its expiry was reported and not aborted.
    pub closing: bool,
    /// The point on the shard's clock at which it is due; moved by gaps yet to come.
    pub deadline: Millis,
}

/// What a tracker holds, in bytes, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Headers and member names.
    pub slots: usize,
    /// The index by group and member.
    pub name_index: usize,
    /// The index by session id.
    pub id_index: usize,
    /// The timing wheel.
    pub wheel: usize,
    /// The group registry.
    pub groups: usize,
}

impl<G> Tracker<G> {
    /// An empty tracker. `seeds` are random and secret: clients choose names, and must not
    /// be able to choose their hashes.
    #[must_use]
    pub fn new(limits: Limits, seeds: [u64; 4], now: Millis) -> Tracker<G> {
        let [a, b, c, d] = seeds;
        Tracker::with_hasher(limits, RandomState::with_seeds(a, b, c, d), now)
    }
}

impl<G, S: BuildHasher> Tracker<G, S> {
    /// An empty tracker that hashes with `hasher`.
    #[must_use]
    pub fn with_hasher(limits: Limits, hasher: S, now: Millis) -> Tracker<G, S> {
        Tracker {
            table: Table::new(limits, hasher),
            wheel: Wheel::new(now.tick().0),
            held: Millis(0),
        }
    }

    /// Takes in a session, as touched at `now`. `payload` is asked for if its group has no
    /// session here yet.
    ///
    /// # Errors
    /// [`InsertError::Exists`] if the member or the id has a session, [`InsertError::Full`] at
    /// the limit. Nothing is changed then.
    ///
    /// # Panics
    /// If a name is not of 1 to 255 bytes or the timeout not below 2³² ms: whoever parsed
    /// them has checked.
    pub fn insert(
        &mut self,
        new: NewSession<'_>,
        now: Millis,
        payload: impl FnOnce() -> G,
    ) -> Result<Slot, InsertError> {
        let slot = self.table.insert(&new, payload)?;
        self.file(slot, deadline(self.lived(now), new.timeout));
        Ok(slot)
    }

    /// Lets the session go, and hands back its group's payload if it was the group's last.
    ///
    /// # Panics
    /// If the slot holds no session.
    pub fn remove(&mut self, slot: Slot) -> Option<G> {
        self.table.remove(slot)
    }

    /// A beat: the session lives for its timeout from `now`. One load and one store.
    ///
    /// # Panics
    /// If the slot holds no session.
    #[inline]
    pub fn touch(&mut self, slot: Slot, now: Millis) -> Touch {
        let mut moment = self.moment(now);
        self.touch_at(slot, &mut moment)
    }

    /// Moves the deadline of a live session out to `span` from `now`, never in: somebody else
    /// may have promised it that long.
    ///
    /// # Panics
    /// If the slot holds no session.
    pub fn spare(&mut self, slot: Slot, span: Millis, now: Millis) {
        let deadline = deadline(self.lived(now), span);
        let state = self.table.slots.extend(slot, |_| deadline);
        assert!(state != State::Free, "{slot:?} holds no session");
    }

    /// Changes the timeout of a session and touches it, so that a shorter one counts from
    /// `now`. A closing session keeps the new timeout for when it is reopened.
    ///
    /// # Panics
    /// If the slot holds no session, or the timeout is not below 2³² ms.
    pub fn set_timeout(&mut self, slot: Slot, timeout: Millis, now: Millis) -> Touch {
        let timeout_ms = u32::try_from(timeout.0).expect("timeouts fit 32 bits");
        let deadline = deadline(self.lived(now), timeout);
        let mut header = self.header(slot);
        header.timeout_ms = timeout_ms;
        if header.state == State::Closing {
            self.table.slots.write(slot, header);
            return Touch::Closing;
        }
        header.deadline = deadline;
        if is_before(deadline, header.filed) {
            // The wheel would come by too late. The entry it has becomes stale.
            header.filed = self.wheel.file(slot, deadline);
        }
        self.table.slots.write(slot, header);
        Touch::Live
    }

    /// Lets go of every session. Deadlines go on counting on the same clock.
    pub fn clear(&mut self, now: Millis)
    where
        S: Clone,
    {
        self.table.clear();
        self.wheel = Wheel::new(self.lived(now).tick().0);
    }

    /// Notes that the session changed owner.
    ///
    /// # Panics
    /// If the slot holds no session.
    pub fn set_term(&mut self, slot: Slot, term: Term) {
        let header = Header {
            term: term.0,
            ..self.header(slot)
        };
        self.table.slots.write(slot, header);
    }

    /// Makes a closing session live again, with a full timeout from `now`: its expiry is
    /// known to have been aborted for ever.
    ///
    /// # Panics
    /// If the session is not closing.
    pub fn reopen(&mut self, slot: Slot, now: Millis) {
        let header = self.header(slot);
        assert!(
            header.state == State::Closing,
            "{slot:?} is reopened but was not closing"
        );
        let live = Header {
            state: State::Live,
            ..header
        };
        self.table.slots.write(slot, live);
        let timeout = Millis(u64::from(header.timeout_ms));
        self.file(slot, deadline(self.lived(now), timeout));
    }

    /// Turns the wheel to `now` and appends the sessions found due to `due`; they are
    /// closing from then on. Returns true if `budget` was used up before the wheel stood at
    /// `now`: call again, with no need of a later `now`.
    ///
    /// The budget counts entries looked at and ticks passed, and is kept to within 63: some
    /// 50 ns each, so that however many sessions are due at once, nobody waits for all.
    pub fn advance(&mut self, now: Millis, budget: usize, due: &mut Vec<Slot>) -> bool {
        let now = self.lived(now).tick().0;
        let mut allowance = budget;
        // Two blocks: one is judged while the sessions of the next are fetched.
        let mut blocks = [[0; BLOCK_SLOTS]; 2];
        let mut fetched = (0, 0);
        loop {
            let [next, last] = &mut blocks;
            let taken = self.wheel.take(now, &mut allowance, next);
            let (tick, count) = fetched;
            fetched = match taken {
                Taken::Entries { tick, count } => (tick, count),
                Taken::Spent | Taken::Done => (0, 0),
            };
            let next = &next[..fetched.1];
            self.look_at(&last[..count], tick, now as u32, due, next);
            match taken {
                Taken::Entries { .. } => blocks.swap(0, 1),
                Taken::Spent => return true,
                Taken::Done => return false,
            }
        }
    }

    /// Makes good a gap: for so long the machine did not run this shard, so beats that were
    /// sent could not be read. Every deadline, of closing sessions too, moves by the gap.
    ///
    /// Call it before the next [`Tracker::advance`]. Sessions whose beats did stop expire
    /// later by the gap; that is the price, paid once a gap.
    pub fn make_good(&mut self, gap: Millis) {
        self.held = self.held + gap;
    }

    /// By how much all gaps together have moved every deadline.
    #[must_use]
    pub fn held(&self) -> Millis {
        self.held
    }

    /// The session of a member: one hash, one line of the index, one line of the session.
    #[inline]
    #[must_use]
    pub fn find(&self, group: &[u8], member: &[u8]) -> Option<Slot> {
        self.table.find(group, member)
    }

    /// The session of an id.
    #[inline]
    #[must_use]
    pub fn find_id(&self, id: SessionId) -> Option<Slot> {
        self.table.find_id(id)
    }

    /// What is known of a session.
    ///
    /// # Panics
    /// If the slot holds no session.
    #[inline]
    #[must_use]
    pub fn view(&self, slot: Slot) -> SessionView<'_> {
        let header = self.header(slot);
        let deadline = Tick(self.wheel.unwrapped(header.deadline)).start();
        SessionView {
            id: self.table.id(&header),
            term: Term(header.term),
            timeout: Millis(u64::from(header.timeout_ms)),
            group: GroupSlot(header.group),
            member: self.table.slots.name(slot, header.name_len),
            closing: header.state == State::Closing,
            deadline: deadline + self.held,
        }
    }

    /// What is known of the session of this id, if it is the one in the slot.
    #[must_use]
    pub fn view_of(&self, slot: Slot, id: SessionId) -> Option<SessionView<'_>> {
        let is_it = self.table.holds(slot, id);
        is_it.then(|| self.view(slot))
    }

    /// Of [`Tracker::view`], what an answer to a beat needs: id, timeout and group.
    ///
    /// # Panics
    /// If the slot holds no session.
    #[inline]
    #[must_use]
    pub fn identity(&self, slot: Slot) -> (SessionId, Millis, GroupSlot) {
        let header = self.header(slot);
        let timeout = Millis(u64::from(header.timeout_ms));
        (self.table.id(&header), timeout, GroupSlot(header.group))
    }

    /// The point from which [`Tracker::advance`] has something to look at; `None` if the
    /// wheel is empty and the shard may sleep. Takes up to 2 µs.
    #[must_use]
    pub fn next_due(&self) -> Option<Millis> {
        let tick = self.wheel.next_tick()?;
        Some(Tick(tick).start() + self.held)
    }

    /// The group of this name, if it has sessions here.
    #[must_use]
    pub fn find_group(&self, name: &[u8]) -> Option<GroupSlot> {
        self.table.find_group(name)
    }

    /// What the shard keeps for the group.
    ///
    /// # Panics
    /// If the group has no session here.
    #[inline]
    #[must_use]
    pub fn group(&self, group: GroupSlot) -> &G {
        self.table.groups.payload(group)
    }

    /// As [`Tracker::group`], to be changed.
    ///
    /// # Panics
    /// If the group has no session here.
    pub fn group_mut(&mut self, group: GroupSlot) -> &mut G {
        self.table.groups.payload_mut(group)
    }

    /// The group's name.
    ///
    /// # Panics
    /// If the group has no session here.
    #[must_use]
    pub fn group_name(&self, group: GroupSlot) -> &[u8] {
        self.table.groups.name(group)
    }

    /// How many sessions the group has here.
    ///
    /// # Panics
    /// If the group has no session here.
    #[must_use]
    pub fn group_sessions(&self, group: GroupSlot) -> u32 {
        self.table.groups.sessions(group)
    }

    /// How many groups have sessions here.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.table.groups.len()
    }

    /// How many sessions are held, closing ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if no session is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has `advise` told of each large stretch of memory the sessions are put in, so that who
    /// runs the tracker can ask the system for huge pages: sessions are touched in random
    /// order, and at a million of them most touches of 4 KiB pages miss the TLB as well.
    pub fn advise_memory(&mut self, advise: fn(&[u8])) {
        self.table.slots.advise(advise);
    }

    /// Has `prepare` told of each megabyte that sessions will soon be put in, while the one before
    /// is being filled, so that who runs the tracker can have the system back it in time: whoever
    /// first writes to a huge page waits until the system has cleared it.
    pub fn prepare_memory(&mut self, prepare: Prepare) {
        self.table.slots.prepare(prepare);
    }

    /// What all this takes, by part. Constant time.
    #[must_use]
    pub fn memory_bytes(&self) -> Memory {
        let (name_index, id_index) = self.table.index_bytes();
        Memory {
            slots: self.table.slots.memory_bytes(),
            name_index,
            id_index,
            wheel: self.wheel.memory_bytes(),
            groups: self.table.groups.memory_bytes(),
        }
    }

    /// Touches at a point in time.
    #[inline]
    pub(super) fn touch_at(&mut self, slot: Slot, moment: &mut Moment) -> Touch {
        let deadline = |timeout_ms| moment.deadline(timeout_ms);
        touch_of(slot, self.table.slots.extend(slot, deadline))
    }

    /// The point of the virtual clock that `now` of the shard's clock is.
    #[inline]
    pub(super) fn lived(&self, now: Millis) -> Millis {
        now.since(self.held)
    }

    /// Sets the deadline of a live session that has no valid entry in the wheel.
    fn file(&mut self, slot: Slot, deadline: u32) {
        let filed = self.wheel.file(slot, deadline);
        let header = Header {
            deadline,
            filed,
            ..self.table.slots.header(slot)
        };
        self.table.slots.write(slot, header);
    }

    /// Judges entries filed at `tick`: drops the stale, files again what is not due by `now`
    /// and marks the rest closing. Meanwhile the sessions of `next` are fetched.
    fn look_at(&mut self, entries: &[u32], tick: u32, now: u32, due: &mut Vec<Slot>, next: &[u32]) {
        let slots = &mut self.table.slots;
        let (beside, rest) = next.split_at(next.len().min(entries.len()));
        for (at, &slot) in entries.iter().enumerate() {
            if let Some(&slot) = beside.get(at) {
                slots.warm(Slot(slot));
            }
            let slot = Slot(slot);
            let header = slots.header(slot);
            if header.state != State::Live || header.filed != tick {
                continue;
            }
            if is_before(now, header.deadline) {
                slots.set_filed(slot, self.wheel.file(slot, header.deadline));
            } else {
                slots.set_state(slot, State::Closing);
                due.push(slot);
            }
        }
        for &slot in rest {
            slots.warm(Slot(slot));
        }
    }

    fn header(&self, slot: Slot) -> Header {
        let header = self.table.slots.header(slot);
        assert!(header.state != State::Free, "{slot:?} holds no session");
        header
    }
}

impl Memory {
    /// All parts together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.slots + self.name_index + self.id_index + self.wheel + self.groups
    }
}

/// What a touch of the slot was, by the state of its session.
///
/// # Panics
/// If it holds none.
#[inline]
pub(super) fn touch_of(slot: Slot, state: State) -> Touch {
    match state {
        State::Live => Touch::Live,
        State::Closing => Touch::Closing,
        State::Free => panic!("{slot:?} holds no session"),
    }
}

/// The tick, wrapped, at which a session touched at `lived` is due.
///
/// `lived` was truncated to a millisecond, so the touch may have come up to one later.
#[inline]
pub(super) fn deadline(lived: Millis, timeout: Millis) -> u32 {
    (lived + Millis(1) + stretched(timeout)).tick_ceil().0 as u32
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    fn tracker(sessions_max: u32) -> Tracker<&'static str> {
        Tracker::new(Limits { sessions_max }, [1, 2, 3, 4], Millis(0))
    }

    fn new(member: &[u8], id: u128) -> NewSession<'_> {
        NewSession {
            group: b"g",
            member,
            id: SessionId(id),
            term: Term(1),
            timeout: Millis(1_000),
        }
    }

    #[test]
    fn memory_is_prepared_for_the_first_session_and_for_the_first_after_a_clear() {
        let mut tracker = tracker(10);
        let told = Rc::new(Cell::new(0));
        let teller = Rc::clone(&told);
        tracker.prepare_memory(Box::new(move |_| teller.set(teller.get() + 1)));
        for count in [1, 2] {
            tracker.insert(new(b"m", 1), Millis(0), || "g").unwrap();
            assert_eq!(told.get(), count);
            tracker.clear(Millis(0));
        }
    }

    #[test]
    fn to_expect_a_beat_is_not_to_take_one() {
        let mut tracker = tracker(200);
        let names: Vec<String> = (0..100).map(|n| format!("member-{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            let new = NewSession {
                group: b"g",
                member: name.as_bytes(),
                id: SessionId(n as u128 + 1),
                term: Term(1),
                timeout: Millis(1_000),
            };
            tracker.insert(new, Millis(0), || "g").unwrap();
        }
        let strangers = (0..30).map(|_| (&b"g"[..], &b"nobody"[..]));
        tracker.expect(strangers.chain(names.iter().map(|name| (&b"g"[..], name.as_bytes()))));
        let mut due = Vec::new();
        assert!(!tracker.advance(Millis(1_100), 10_000, &mut due));
        assert_eq!(due.len(), 100, "nobody was touched");
    }

    #[test]
    fn one_session_above_the_limit_is_refused_and_room_comes_back() {
        let mut tracker = tracker(2);
        let a = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        tracker.insert(new(b"b", 2), Millis(0), || "g").unwrap();
        let refused = tracker.insert(new(b"c", 3), Millis(0), || "g");
        assert_eq!(refused, Err(InsertError::Full));
        assert_eq!(tracker.find(b"g", b"c"), None);
        tracker.remove(a);
        assert!(tracker.insert(new(b"c", 3), Millis(0), || "g").is_ok());
    }

    #[test]
    fn an_id_in_use_is_refused_whoever_brings_it() {
        let mut tracker = tracker(10);
        let a = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        let refused = tracker.insert(new(b"b", 1), Millis(0), || "g");
        assert_eq!(refused, Err(InsertError::Exists(a)));
        assert_eq!(tracker.len(), 1);
    }

    #[test]
    fn ids_are_told_apart_by_both_halves() {
        let mut tracker = tracker(10);
        let a = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        let b = tracker
            .insert(new(b"b", (1 << 64) | 1), Millis(0), || "g")
            .unwrap();
        assert_eq!(tracker.find_id(SessionId(1)), Some(a));
        assert_eq!(tracker.find_id(SessionId((1 << 64) | 1)), Some(b));
        assert_eq!(tracker.find_id(SessionId(1 << 64)), None);
        assert_eq!(tracker.view(b).id, SessionId((1 << 64) | 1));
    }

    #[test]
    fn names_are_told_apart_by_where_the_group_ends() {
        let mut tracker = tracker(10);
        tracker.insert(new(b"ab", 1), Millis(0), || "g").unwrap();
        assert_eq!(tracker.find(b"ga", b"b"), None);
    }

    #[test]
    fn a_closing_session_is_not_touched_until_it_is_reopened() {
        let mut tracker = tracker(10);
        let slot = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        let mut due = Vec::new();
        assert!(
            !tracker.advance(Millis(1_009), 1_000, &mut due),
            "1,002 ms, on tick 101"
        );
        assert_eq!(due, []);
        tracker.advance(Millis(1_010), 1_000, &mut due);
        assert_eq!(due, [slot]);
        let before = tracker.view(slot).deadline;
        assert_eq!(tracker.touch(slot, Millis(1_020)), Touch::Closing);
        assert_eq!(tracker.view(slot).deadline, before);
        tracker.reopen(slot, Millis(1_030));
        assert_eq!(tracker.touch(slot, Millis(1_030)), Touch::Live);
        assert_eq!(tracker.view(slot).deadline, Millis(2_040));
    }

    #[test]
    fn a_budget_bounds_what_one_call_reports() {
        let mut tracker = tracker(1_000);
        for id in 0..1_000u128 {
            let name = id.to_string();
            tracker
                .insert(new(name.as_bytes(), id), Millis(0), || "g")
                .unwrap();
        }
        let mut due = Vec::new();
        let mut calls = 0;
        while tracker.advance(Millis(2_000), 100, &mut due) {
            calls += 1;
            assert!(
                due.len() <= calls * (100 + BLOCK_SLOTS),
                "{} in {calls}",
                due.len()
            );
        }
        assert_eq!(due.len(), 1_000);
    }

    #[test]
    fn stale_entries_are_dropped_when_they_come_up() {
        let mut tracker = tracker(10);
        let mut slot = tracker.insert(new(b"a", 0), Millis(0), || "g").unwrap();
        for round in 1..50 {
            tracker.remove(slot);
            let now = Millis(round * 10);
            slot = tracker
                .insert(new(b"a", u128::from(round)), now, || "g")
                .unwrap();
        }
        assert_eq!(tracker.wheel.entries(), 50);
        let mut due = Vec::new();
        for tick in 50..200 {
            let now = Millis(tick * 10);
            assert_eq!(tracker.touch(slot, now), Touch::Live);
            assert!(!tracker.advance(now, 1_000, &mut due));
        }
        assert_eq!((tracker.wheel.entries(), due.len()), (1, 0));
    }

    #[test]
    fn a_session_is_spared_for_longer_than_its_timeout_and_no_touch_pulls_that_in() {
        let mut tracker = tracker(10);
        let slot = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        tracker.spare(slot, Millis(500), Millis(0));
        assert_eq!(tracker.view(slot).deadline, Millis(1_010), "never in");
        tracker.spare(slot, Millis(4_000), Millis(0));
        assert_eq!(tracker.touch(slot, Millis(100)), Touch::Live);
        assert_eq!(tracker.view(slot).deadline, Millis(4_010));
        let mut due = Vec::new();
        tracker.advance(Millis(4_009), 1_000, &mut due);
        assert_eq!(due, []);
        tracker.advance(Millis(4_010), 1_000, &mut due);
        assert_eq!(due, [slot]);
    }

    #[test]
    fn a_session_that_is_reached_by_an_older_clock_keeps_its_deadline() {
        let mut tracker = tracker(10);
        let slot = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        for (now, deadline) in [(2_000, 3_010), (1_000, 3_010), (2_010, 3_020)] {
            let mut sought = [tracker.seek(b"g", b"a")];
            tracker.approach(&mut sought);
            let mut moment = tracker.moment(Millis(now));
            assert!(tracker.reach(&sought[0], &mut moment).is_some());
            assert_eq!(tracker.view(slot).deadline, Millis(deadline), "at {now}");
        }
    }

    #[test]
    fn a_cleared_tracker_holds_nothing_and_keeps_its_clock_and_its_limit() {
        let mut tracker = tracker(2);
        tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        tracker.make_good(Millis(300));
        tracker.clear(Millis(600));
        assert!(tracker.is_empty() && tracker.group_count() == 0);
        assert_eq!(tracker.find(b"g", b"a"), None);
        let again = tracker.insert(new(b"a", 2), Millis(600), || "g").unwrap();
        tracker.insert(new(b"b", 3), Millis(600), || "g").unwrap();
        let full = tracker.insert(new(b"c", 4), Millis(600), || "g");
        assert_eq!(full, Err(InsertError::Full));
        let deadline = tracker.view(again).deadline;
        assert_eq!(deadline, Millis(1_610), "300 + 1,002 lived, and the gap");
        let mut due = Vec::new();
        tracker.advance(Millis(1_609), 1_000, &mut due);
        assert_eq!(due, []);
        tracker.advance(Millis(1_610), 1_000, &mut due);
        assert_eq!(due.len(), 2);
    }

    #[test]
    fn a_new_term_is_noted() {
        let mut tracker = tracker(10);
        let slot = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        tracker.set_term(slot, Term(5));
        assert_eq!(tracker.view(slot).term, Term(5));
        assert_eq!(tracker.group_sessions(tracker.view(slot).group), 1);
    }

    #[test]
    #[should_panic(expected = "holds no session")]
    fn a_removed_session_is_not_touched() {
        let mut tracker = tracker(10);
        let slot = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        tracker.remove(slot);
        let _ = tracker.touch(slot, Millis(0));
    }

    #[test]
    #[should_panic(expected = "holds no session")]
    fn a_removed_session_is_not_viewed() {
        let mut tracker = tracker(10);
        let slot = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        tracker.remove(slot);
        let _ = tracker.view(slot);
    }

    #[test]
    #[should_panic(expected = "was not closing")]
    fn a_live_session_is_not_reopened() {
        let mut tracker = tracker(10);
        let slot = tracker.insert(new(b"a", 1), Millis(0), || "g").unwrap();
        tracker.reopen(slot, Millis(0));
    }
}
