//! What the shard does besides answering: the core's news, the tick, expiry and stalls.

use std::collections::HashSet;

use super::transit::News;
use super::{DUE_MAX, EXPIRIES_MAX, EXPIRY_BATCH_MAX, Phase, Plant, Purpose, Shard, WHEEL_BUDGET};
use crate::group::{Lapse, Outcome, Request as Change};
use crate::mail::{Answer, Ask, Dealt, Tell, What};
use crate::session::{InsertError, NewSession, Slot};
use crate::time::{Millis, TICK_MS, stretched};
use crate::types::{SessionId, Term};

impl Shard {
    /// Something the core has told.
    pub(super) fn on_tell(&mut self, tell: Tell, now: Millis) {
        if tell.is_news() {
            self.transit.hears();
        }
        match tell {
            Tell::Answer { token, answer } => self.on_answer(token, answer, now),
            Tell::Ended(ids) => {
                for &id in ids.iter() {
                    self.on_news(News::Ended(id), now);
                }
            }
            Tell::Changed { id, term, timeout } => {
                self.on_news(News::Changed { id, term, timeout }, now);
            }
            Tell::Deal(sessions) => {
                for dealt in &sessions {
                    self.hold(dealt, now);
                }
            }
            Tell::Beats { from, token, beats } => self.on_beats(from, token, &beats, now),
            Tell::Notice {
                group,
                version,
                notice,
            } => self.on_notice(&group, version, notice),
            Tell::Lease { until } => self.on_lease(until, now),
            Tell::Reset => self.reset(now),
            Tell::Ready {
                endpoints,
                incarnation,
            } => {
                // Sessions were dealt over a while, and their timeouts count from now.
                self.tracker.make_good(now.since(self.turned));
                self.turned = now;
                self.lease.forgive(now);
                self.endpoints = endpoints;
                self.incarnation = incarnation;
                self.enter(Phase::Serving);
            }
            Tell::Endpoints(endpoints) => {
                self.endpoints = endpoints;
                // They stand in every document.
                self.documents.forget();
            }
            Tell::Stop => self.enter(Phase::Stopping),
        }
    }

    fn on_answer(&mut self, token: u64, answer: Answer, now: Millis) {
        let Some(purpose) = self.parked.take(token) else {
            debug_assert!(false, "an answer to a question that was not asked");
            return;
        };
        match purpose {
            Purpose::Expiry(lapsed) => return self.on_expired(lapsed, answer, now),
            Purpose::Watch(spot) => return self.on_watching(spot, answer),
            Purpose::Shared(spot) => return self.on_shared_document(spot, answer),
            _ => {}
        }
        self.asked -= 1;
        match purpose {
            Purpose::Join(job) => self.on_joined(job, answer, now),
            Purpose::Change(job) => self.on_changed(job, answer),
            Purpose::Document(job) => self.on_document(job, answer, now),
            Purpose::List(job) => self.on_list(job, answer),
            Purpose::Config(job) => self.on_config(job, answer),
            Purpose::Cluster(place, manner) => self.on_cluster(place, manner, answer, now),
            Purpose::Search(search) => self.on_judged(search, answer, now),
            Purpose::Expiry(_) | Purpose::Watch(_) | Purpose::Shared(_) => {}
        }
    }

    /// Takes a session in, with a full timeout and its grace from `now`. One that is here
    /// already takes the newer term, and keeps the later deadline.
    pub(super) fn hold(&mut self, dealt: &Dealt, now: Millis) {
        let Dealt {
            group,
            version,
            member,
            id,
            term,
            timeout,
            grace,
        } = dealt;
        self.note_grace(*grace, now);
        let new = NewSession {
            group,
            member,
            id: *id,
            term: *term,
            timeout: *timeout,
        };
        match self.tracker.insert(new, now, || version.clone()) {
            Ok(slot) => self.tracker.spare(slot, *timeout + *grace, now),
            // Here already: told twice of the same session, or it has come back.
            Err(InsertError::Exists(slot)) if self.tracker.view(slot).id == *id => {
                if *term > self.tracker.view(slot).term {
                    self.renew_term(slot, *term, now);
                    self.tracker.spare(slot, *timeout + *grace, now);
                }
            }
            Err(InsertError::Exists(slot)) => {
                // The member's older session: its end is on the way, for a member has one
                // session at a time, and this one is newer by commit order.
                debug_assert!(self.tracker.view(slot).id < *id, "sessions grow");
                self.tracker.remove(slot);
                self.hold(dealt, now);
            }
            // Joins are refused well before; a server that lost a session would never expire
            // it, and its member would be active for ever.
            Err(InsertError::Full) => panic!("the session table is full at {}", self.tracker.len()),
        }
    }

    /// Remembers for how long owners of before may still promise something.
    fn note_grace(&mut self, grace: Millis, now: Millis) {
        if grace > Millis(0) {
            let (until, most) = self.grace;
            let most = if now < until { most } else { Millis(0) };
            self.grace = (until.max(now + stretched(grace)), most.max(grace));
        }
    }

    /// Lets a session go, to hand it over. What it has beyond a full timeout goes with it.
    pub(super) fn let_go(&mut self, slot: Slot, now: Millis) -> Dealt {
        let view = self.tracker.view(slot);
        let left = view.deadline.since(now);
        self.settling.forget(view.id);
        let beyond = if self.plants.has(Plant::LosesGraceOnTheWay) {
            Millis(0)
        } else {
            left.since(stretched(view.timeout))
        };
        let dealt = Dealt {
            group: self.tracker.group_name(view.group).into(),
            version: self.tracker.group(view.group).clone(),
            member: view.member.into(),
            id: view.id,
            term: view.term,
            timeout: view.timeout,
            grace: beyond,
        };
        self.tracker.remove(slot);
        dealt
    }

    /// A session has ended, or is not what it was. It may be on its way to this shard.
    pub(super) fn on_news(&mut self, news: News, now: Millis) {
        let Some(slot) = self.tracker.find_id(news.id()) else {
            return self.transit.note(news);
        };
        match news {
            News::Ended(_) => self.end(slot, now),
            News::Changed { term, timeout, .. } => {
                if term > self.tracker.view(slot).term {
                    self.renew_term(slot, term, now);
                }
                if timeout != self.tracker.view(slot).timeout {
                    let _ = self.tracker.set_timeout(slot, timeout, now);
                    // A shorter timeout must not take what the owner before this one may
                    // have promised since it lost the session, and it could be any.
                    let (until, grace) = self.grace;
                    if now < until && !self.plants.has(Plant::ShortensGrace) {
                        self.tracker.spare(slot, timeout + grace, now);
                    }
                }
            }
        }
    }

    /// The session has a newer term. If its expiry is proposed, that names an older one and
    /// can only fail, whenever it comes to be applied: the session lives.
    fn renew_term(&mut self, slot: Slot, term: Term, now: Millis) {
        self.tracker.set_term(slot, term);
        if self.tracker.view(slot).closing {
            self.tracker.reopen(slot, now);
        }
    }

    /// The replicated state was replaced: no session here is known to be so any more.
    fn reset(&mut self, now: Millis) {
        self.tracker.clear(now);
        self.due.clear();
        self.wheel_behind = false;
        self.settling.clear();
        self.transit.reset();
        self.reset_room();
    }

    fn end(&mut self, slot: Slot, now: Millis) {
        let view = self.tracker.view(slot);
        if view.closing {
            let late_ms = now.since(view.deadline).0;
            let lateness = &mut self.latencies.expiry_lateness;
            lateness.record(late_ms * NS_PER_MS, 1);
        }
        self.settling.forget(view.id);
        self.tracker.remove(slot);
    }

    /// The tick: turns the wheel and looks after whoever waits. `drained` tells that no
    /// input was left unread when `now` was taken.
    ///
    /// A shard that was not run cannot have read the beats that were sent meanwhile. So after
    /// a stall the wheel stands still until the sockets have been drained, at most for
    /// [`DRAIN_MS_MAX`], and the deadlines move by the gap. A shard that is late again and
    /// again must expire its sessions all the same: from the second stall in a row on, as
    /// much of each gap counts as a busy loop may take, and the wheel is not held anew until
    /// the sockets have been drained once.
    ///
    /// While the lease has lapsed the wheel stands still too, and what of the gap lay beyond
    /// the lease is made good to the millisecond.
    pub fn tick(&mut self, now: Millis, drained: bool) {
        let gap = now.since(self.turned);
        if gap.0 < TICK_MS && !self.wheel_behind {
            return;
        }
        self.turned = now;
        self.show_lease(now);
        if self.phase == Phase::Starting {
            self.tracker.make_good(gap);
            self.lease.forgive(now);
            return;
        }
        let lapsed = self.lease.take_lapsed(now);
        if !self.plants.has(Plant::CountsLapses) {
            self.tracker.make_good(lapsed);
        }
        let lived = gap.since(lapsed);
        let stall_min = self.settings.stall_min;
        let mut lost = Millis(0);
        let late = std::mem::replace(&mut self.late, gap > stall_min);
        if self.late {
            lost = lived.since(if late { stall_min } else { Millis(TICK_MS) });
            if !self.plants.has(Plant::CountsStalls) {
                self.tracker.make_good(lost);
            }
            self.counters.stalls.add(1);
            self.counters.stall_ms.add(lost.0);
            self.stalled.get_or_insert(now);
        }
        if drained {
            self.stalled = None;
        }
        let held = self
            .stalled
            .is_some_and(|since| now.since(since).0 < DRAIN_MS_MAX);
        if held {
            self.tracker.make_good(lived.since(lost));
        } else if self.lease.has_lapsed(now) {
            // The wheel may have been behind, but nothing is to be looked at before a grant.
            self.wheel_behind = false;
        } else {
            self.turn_wheel(now);
        }
        self.transit.forget_given(now);
        self.propose_expiries();
        self.resume_searches(now);
        self.resume_behind();
        self.tick_room(now);
        self.counters.sessions.set(self.tracker.len() as u64);
    }

    /// Looks for sessions that are due, as many as one turn may.
    fn turn_wheel(&mut self, now: Millis) {
        self.wheel_behind = false;
        if self.due.len() < DUE_MAX {
            self.due_slots.clear();
            self.wheel_behind = self.tracker.advance(now, WHEEL_BUDGET, &mut self.due_slots);
            for slot in &self.due_slots {
                self.due.push_back(self.tracker.view(*slot).id);
            }
        }
    }

    /// True if the wheel has more to look at than one turn may: tick again soon.
    #[must_use]
    pub fn wheel_behind(&self) -> bool {
        self.wheel_behind
    }

    /// Proposes the expiry of those found due, in few and large transactions.
    fn propose_expiries(&mut self) {
        while self.expiring < EXPIRIES_MAX && !self.due.is_empty() {
            let one = self.plants.has(Plant::ExpiresOneByOne);
            let most = if one { 1 } else { EXPIRY_BATCH_MAX };
            let count = self.due.len().min(most);
            let ids: Vec<SessionId> = self.due.drain(..count).collect();
            let mut lapses = Vec::with_capacity(count);
            let mut proposed = Vec::with_capacity(count);
            for id in ids {
                // Ended by its client since it was found due, or moved away and back.
                let Some(slot) = self.tracker.find_id(id) else {
                    continue;
                };
                if !self.tracker.view(slot).closing {
                    continue;
                }
                let group = self.group_name_shared(slot, lapses.last());
                let view = self.tracker.view(slot);
                let (member, term) = (view.member.into(), view.term);
                proposed.push((id, term));
                lapses.push(Lapse {
                    group,
                    member,
                    id,
                    term,
                });
            }
            if lapses.is_empty() {
                continue;
            }
            self.expiring += 1;
            self.counters.expiries.add(lapses.len() as u64);
            let token = self.parked.insert(Purpose::Expiry(proposed));
            let what = What::Change {
                request: Change::Expire(lapses),
                document: false,
            };
            self.outbox.asks.push(Ask { token, what });
        }
    }

    /// The group's name, shared with the last lapse if that is of the same group.
    fn group_name_shared(&self, slot: Slot, last: Option<&Lapse>) -> std::sync::Arc<[u8]> {
        let name = self.tracker.group_name(self.tracker.view(slot).group);
        match last {
            Some(last) if *last.group == *name => last.group.clone(),
            _ => name.into(),
        }
    }

    fn on_expired(&mut self, proposed: Vec<(SessionId, Term)>, answer: Answer, now: Millis) {
        let mut busy = false;
        self.expiring -= 1;
        match answer {
            // Those that ended have been told as such and are gone from here. The others were
            // renewed or moved before their expiry came to be applied, and what is here of
            // them lives under a newer term, of which this expiry decides nothing.
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
                for (id, term) in proposed {
                    if self.closing_in(id, term).is_some() {
                        self.due.push_back(id);
                    }
                }
                busy = true;
            }
        }
        // At once, not at the next tick: when many are due, this is what keeps the core at work.
        if !busy {
            self.propose_expiries();
        }
    }

    /// The session, if it is here, in this term, and its expiry proposed.
    fn closing_in(&self, id: SessionId, term: Term) -> Option<Slot> {
        let slot = self.tracker.find_id(id)?;
        let view = self.tracker.view(slot);
        (view.closing && view.term == term).then_some(slot)
    }
}

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;
/// How long the wheel may stand still after a stall although input keeps coming.
const DRAIN_MS_MAX: u64 = 2_000;
