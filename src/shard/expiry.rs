//! Expiry, from the deadline to the empty slot, in pieces.
//!
//! ```text
//! wheel ─▶ due ─▶ gathered ─▶ proposed to the core ─▶ ended ─▶ let go
//! ```
//!
//! When a million sessions are due at once, each of these steps takes a second in all, and the
//! beats of the living must not wait for it. So every step is taken for some sessions a turn
//! ([`PIECE`]), and sockets and mail have their turns in between; while one transaction is at
//! the core the next is gathered, so the two work side by side.
//!
//! That a session is let go some turns after its end was told breaks no promise. It has been
//! closing since it was found due, so its beats are answered neither yes nor no (S3), it is
//! handed to no other shard, and its member's next session takes its place. And what is let go
//! late has ended for good: ids are used once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::due::{Due, Found};
use super::transit::News;
use super::{Latencies, Plant, Purpose, Shard};
use crate::group::{EXPIRE_BATCH_MAX, Lapse, Outcome, Request as Change};
use crate::mail::{Answer, Ask, ShardIndex, What};
use crate::session::{SessionView, Slot};
use crate::time::Millis;
use crate::types::{SessionId, Term};

/// The sessions of a shard on their way out.
pub(super) struct Expiry {
    /// Found due, closing, and not gathered.
    pub(super) due: Due,
    /// What the wheel has just found; empty between turns.
    found: Vec<Slot>,
    /// What the next transaction is to name.
    lapses: Vec<Lapse>,
    /// The same by id and term, for when it is answered.
    proposed: Vec<(SessionId, Term)>,
    /// One of those may have ended or got a newer term since it was gathered.
    doubtful: bool,
    /// Transactions proposed and not yet answered.
    pub(super) asked: usize,
    /// Told as ended, in the order of the transactions, and how many of the first have been let
    /// go.
    ended: VecDeque<Arc<[SessionId]>>,
    let_go: usize,
    /// The wheel had more to look at than one turn may.
    pub(super) wheel_behind: bool,
    /// The core has no room: nothing is proposed before the next tick.
    pub(super) rests: bool,
    /// Sessions that each step may still take this turn.
    left: Left,
    piece: usize,
}

/// How many sessions of a step this turn has left; each step has its own, so that none starves
/// another.
#[derive(Clone, Copy)]
struct Left {
    gathered: usize,
    let_go: usize,
}

impl Expiry {
    pub(super) fn new() -> Expiry {
        Expiry {
            due: Due::default(),
            found: Vec::new(),
            lapses: Vec::new(),
            proposed: Vec::new(),
            doubtful: false,
            asked: 0,
            ended: VecDeque::new(),
            let_go: 0,
            wheel_behind: false,
            rests: false,
            left: Left::of(PIECE),
            piece: PIECE,
        }
    }

    /// Takes `piece` sessions a turn from now on, or as many as usual.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn in_pieces(&mut self, piece: usize) {
        self.piece = piece.min(PIECE);
        self.begin_turn();
    }

    /// A turn of the loop begins.
    pub(super) fn begin_turn(&mut self) {
        self.left = Left::of(self.piece);
    }

    /// The replicated state was replaced: what was found and told of the old one is void.
    pub(super) fn reset(&mut self) {
        self.due = Due::default();
        self.lapses.clear();
        self.proposed.clear();
        self.doubtful = false;
        self.ended.clear();
        self.let_go = 0;
        self.wheel_behind = false;
    }

    /// True if there is more to do than the last turn might.
    pub(super) fn is_behind(&self) -> bool {
        let gathers = self.may_gather() && self.due.has_next() && !self.rests;
        self.wheel_behind || gathers || !self.ended.is_empty()
    }

    /// A closing session is not what it was.
    pub(super) fn doubt(&mut self) {
        self.doubtful = !self.lapses.is_empty();
    }

    /// While as many transactions are at the core as may be, more would only wait here.
    fn may_gather(&self) -> bool {
        self.lapses.len() < BATCH_MAX && self.asked < EXPIRIES_MAX
    }

    /// True if what is gathered is to be proposed: a full transaction, the last that are due, or
    /// as many as there are while the core has nothing to do.
    fn is_ripe(&self) -> bool {
        if self.lapses.is_empty() || self.rests || self.asked >= EXPIRIES_MAX {
            return false;
        }
        self.lapses.len() >= BATCH_MAX || !self.due.has_next() || self.asked == 0
    }
}

impl Left {
    fn of(piece: usize) -> Left {
        Left {
            gathered: piece,
            let_go: piece,
        }
    }
}

impl Shard {
    /// Takes `piece` sessions a turn through each step of their expiry from now on, or as many as
    /// usual.
    #[cfg(any(test, feature = "sim"))]
    pub fn expire_in_pieces(&mut self, piece: usize) {
        self.expiry.in_pieces(piece);
    }

    /// True if there is more to do than one turn may: tick again soon.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.expiry.is_behind()
    }

    /// Looks for sessions that are due, as many as one turn may.
    pub(super) fn turn_wheel(&mut self, now: Millis) {
        let Expiry {
            due,
            found,
            wheel_behind,
            ..
        } = &mut self.expiry;
        *wheel_behind = false;
        if due.is_full() {
            return;
        }
        found.clear();
        *wheel_behind = self.tracker.advance(now, WHEEL_BUDGET, found);
        let tracker = &self.tracker;
        let found = found
            .iter()
            .map(|&slot| Found::new(slot, &tracker.view(slot)));
        due.add(found.collect(), *wheel_behind);
    }

    /// Takes a piece of each step, as far as this turn may.
    pub(super) fn go_on_expiring(&mut self, now: Millis) {
        self.let_go_ended(now);
        self.gather_due();
        while self.expiry.is_ripe() {
            self.propose_expiry();
            self.gather_due();
        }
    }

    /// The expiry that the shard `by` proposed has ended these sessions, which it holds, closing.
    pub(super) fn on_expired(&mut self, by: ShardIndex, ids: Arc<[SessionId]>, now: Millis) {
        if by == self.settings.index && !ids.is_empty() {
            self.expiry.ended.push_back(ids);
            return self.let_go_ended(now);
        }
        for &id in ids.iter() {
            self.transit.note(News::Ended(id));
        }
    }

    /// Lets go of sessions that have ended.
    fn let_go_ended(&mut self, now: Millis) {
        let Shard {
            tracker,
            settling,
            latencies,
            expiry,
            ..
        } = self;
        while expiry.left.let_go > 0
            && let Some(ids) = expiry.ended.front()
        {
            let count = (ids.len() - expiry.let_go).min(expiry.left.let_go);
            let next = &ids[expiry.let_go..][..count];
            // Those that are not here any more: their members are in their next sessions already.
            tracker.remove_ids(next, |session| {
                note_end(session, latencies, now);
                settling.forget(session.id);
            });
            expiry.left.let_go -= count;
            expiry.let_go += count;
            if expiry.let_go == ids.len() {
                expiry.ended.pop_front();
                expiry.let_go = 0;
            }
        }
    }

    /// Ends a session here.
    pub(super) fn end(&mut self, slot: Slot, now: Millis) {
        let view = self.tracker.view(slot);
        note_end(&view, &mut self.latencies, now);
        self.settling.forget(view.id);
        self.tracker.remove(slot);
    }

    /// Gathers those found due for the next transaction.
    fn gather_due(&mut self) {
        let mut next = [None; BATCH_MAX];
        let one_by_one = self.plants.has(Plant::ExpiresOneByOne);
        let most = if one_by_one { 1 } else { BATCH_MAX };
        while self.expiry.may_gather() {
            let room = most.saturating_sub(self.expiry.lapses.len());
            let room = room.min(self.expiry.left.gathered);
            let mut count = 0;
            while count < room
                && let Some(found) = self.expiry.due.pop()
            {
                next[count] = Some(found);
                count += 1;
            }
            if count == 0 {
                return;
            }
            self.expiry.left.gathered -= count;
            let next = next[..count].iter().flatten();
            self.tracker
                .expect_slots(next.clone().map(|found| found.slot));
            for found in next {
                self.gather(found);
            }
        }
    }

    /// Gathers one that was found due, if it is here and closing still.
    fn gather(&mut self, found: &Found) {
        // Ended by its client since it was found due, or moved away and back.
        let Some(view) = self.tracker.view_of(found.slot, found.id()) else {
            return;
        };
        if !view.closing {
            return;
        }
        let lapse = Lapse {
            group: self.group_name_shared(found.slot, self.expiry.lapses.last()),
            member: view.member.into(),
            id: view.id,
            term: view.term,
        };
        self.expiry.proposed.push((lapse.id, lapse.term));
        self.expiry.lapses.push(lapse);
    }

    /// Proposes the expiry of those gathered.
    fn propose_expiry(&mut self) {
        let mut lapses = std::mem::take(&mut self.expiry.lapses);
        let mut proposed = std::mem::take(&mut self.expiry.proposed);
        if std::mem::take(&mut self.expiry.doubtful) {
            lapses.retain(|lapse| self.closing_in(lapse.id, lapse.term).is_some());
            proposed.retain(|&(id, term)| self.closing_in(id, term).is_some());
            if lapses.is_empty() {
                return;
            }
        }
        self.expiry.asked += 1;
        self.counters.expiries.add(lapses.len() as u64);
        let token = self.parked.insert(Purpose::Expiry(proposed));
        let what = What::Change {
            request: Change::Expire(lapses),
            document: false,
            fresh: false,
        };
        self.outbox.asks.push(Ask { token, what });
    }

    /// The group's name, shared with the last lapse if that is of the same group.
    fn group_name_shared(&self, slot: Slot, last: Option<&Lapse>) -> Arc<[u8]> {
        let name = self.tracker.group_name(self.tracker.view(slot).group);
        match last {
            Some(last) if *last.group == *name => last.group.clone(),
            _ => name.into(),
        }
    }

    /// What became of a proposed expiry.
    pub(super) fn on_expiry(
        &mut self,
        proposed: Vec<(SessionId, Term)>,
        answer: Answer,
        now: Millis,
    ) {
        self.expiry.asked -= 1;
        match answer {
            // Those that ended have been told as such. The others were renewed or moved before
            // their expiry came to be applied, and what is here of them lives under a newer term,
            // of which this expiry decides nothing.
            Answer::Outcome(Outcome::Expired { stale, .. }) if stale.is_empty() => {}
            Answer::Outcome(Outcome::Expired { stale, .. }) => {
                let stale: HashSet<SessionId> = stale.into_iter().collect();
                for (id, term) in proposed {
                    if stale.contains(&id)
                        && let Some(slot) = self.closing_in(id, term)
                    {
                        self.tracker.reopen(slot, now);
                    }
                }
            }
            // Not proposed: they stay closing, and are proposed again.
            _ => {
                let slots = proposed.into_iter();
                let slots = slots.filter_map(|(id, term)| self.closing_in(id, term));
                let found = slots.map(|slot| Found::new(slot, &self.tracker.view(slot)));
                let found = found.collect();
                self.expiry.due.add_again(found);
                self.expiry.rests = true;
            }
        }
        // At once, not at the next tick: when many are due, this is what keeps the core at work.
        self.go_on_expiring(now);
    }

    /// The session, if it is here, in this term, and its expiry proposed.
    fn closing_in(&self, id: SessionId, term: Term) -> Option<Slot> {
        let slot = self.tracker.find_id(id)?;
        let view = self.tracker.view(slot);
        (view.closing && view.term == term).then_some(slot)
    }
}

/// Counts how late a session ends, if it ends because it was due.
fn note_end(session: &SessionView<'_>, latencies: &mut Latencies, now: Millis) {
    if session.closing {
        let late_ms = now.since(session.deadline).0;
        latencies.expiry_lateness.record(late_ms * NS_PER_MS, 1);
    }
}

/// Expiry transactions at the core at a time.
pub const EXPIRIES_MAX: usize = 32;
/// Sessions in one of them: some milliseconds of every server's core.
const BATCH_MAX: usize = 256;
const _: () = assert!(BATCH_MAX <= EXPIRE_BATCH_MAX);
/// Sessions that each step takes in one turn: 0.1 to 0.2 ms.
const PIECE: usize = 256;
/// Entries of the wheel looked at in one turn: about 0.1 ms.
const WHEEL_BUDGET: usize = 2_048;
/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;
