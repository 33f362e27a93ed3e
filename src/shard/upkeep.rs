//! What the shard does besides answering: the core's news, the tick, expiry and stalls.

use super::transit::News;
use super::{DUE_MAX, EXPIRIES_MAX, EXPIRY_BATCH_MAX, Phase, Purpose, Shard, WHEEL_BUDGET};
use crate::group::{Lapse, Outcome, Request as Change};
use crate::mail::{Answer, Ask, Dealt, Tell, What};
use crate::session::{InsertError, NewSession, Slot};
use crate::time::{Millis, TICK_MS};
use crate::types::SessionId;

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
            Tell::Ready {
                endpoints,
                incarnation,
            } => {
                // Sessions were dealt over a while, and their timeouts count from now.
                self.tracker.make_good(now.since(self.turned));
                self.turned = now;
                self.endpoints = endpoints;
                self.incarnation = incarnation;
                self.phase = Phase::Serving;
            }
            Tell::Stop => self.phase = Phase::Stopping,
        }
    }

    fn on_answer(&mut self, token: u64, answer: Answer, now: Millis) {
        let Some(purpose) = self.parked.take(token) else {
            debug_assert!(false, "an answer to a question that was not asked");
            return;
        };
        if let Purpose::Expiry(ids) = purpose {
            return self.on_expired(ids, answer, now);
        }
        self.asked -= 1;
        match purpose {
            Purpose::Join(job) => self.on_joined(job, answer, now),
            Purpose::Change(job) => self.on_changed(job, answer),
            Purpose::Document(job) => self.on_document(job, answer, now),
            Purpose::List(job) => self.on_list(job, answer),
            Purpose::Config(job) => self.on_config(job, answer),
            Purpose::Cluster(place, manner) => self.on_cluster(place, manner, answer),
            Purpose::Search(search) => match answer {
                Answer::Statuses(statuses) => self.on_statuses(search, &statuses, now),
                _ => self.give_up(*search, crate::http::Code::Overloaded),
            },
            Purpose::Expiry(_) => {}
        }
    }

    /// Takes a session in, with a full timeout from `now`.
    pub(super) fn hold(&mut self, dealt: &Dealt, now: Millis) {
        let Dealt {
            group,
            version,
            member,
            id,
            term,
            timeout,
        } = dealt;
        let new = NewSession {
            group,
            member,
            id: *id,
            term: *term,
            timeout: *timeout,
        };
        match self.tracker.insert(new, now, || version.clone()) {
            Ok(_) => {}
            // Here already: told twice of the same session.
            Err(InsertError::Exists(slot)) if self.tracker.view(slot).id == *id => {}
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

    /// Lets a session go, to hand it over.
    pub(super) fn let_go(&mut self, slot: Slot) -> Dealt {
        let view = self.tracker.view(slot);
        let dealt = Dealt {
            group: self.tracker.group_name(view.group).into(),
            version: self.tracker.group(view.group).clone(),
            member: view.member.into(),
            id: view.id,
            term: view.term,
            timeout: view.timeout,
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
                    self.tracker.set_term(slot, term);
                }
                if timeout != self.tracker.view(slot).timeout {
                    let _ = self.tracker.set_timeout(slot, timeout, now);
                }
            }
        }
    }

    fn end(&mut self, slot: Slot, now: Millis) {
        let view = self.tracker.view(slot);
        if view.closing {
            let late_ms = now.since(view.deadline).0;
            let lateness = &mut self.latencies.expiry_lateness;
            lateness.record(late_ms * NS_PER_MS, 1);
        }
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
    pub fn tick(&mut self, now: Millis, drained: bool) {
        let gap = now.since(self.turned);
        if gap.0 < TICK_MS && !self.wheel_behind {
            return;
        }
        self.turned = now;
        if self.phase == Phase::Starting {
            self.tracker.make_good(gap);
            return;
        }
        let stall_min = self.settings.stall_min;
        let mut lost = Millis(0);
        let late = std::mem::replace(&mut self.late, gap > stall_min);
        if self.late {
            lost = gap.since(if late { stall_min } else { Millis(TICK_MS) });
            self.tracker.make_good(lost);
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
            self.tracker.make_good(gap.since(lost));
        } else {
            self.turn_wheel(now);
        }
        self.transit.forget_given(now);
        self.propose_expiries();
        self.resume_searches(now);
        self.resume_behind();
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
            let count = self.due.len().min(EXPIRY_BATCH_MAX);
            let ids: Vec<SessionId> = self.due.drain(..count).collect();
            let mut lapses = Vec::with_capacity(count);
            for &id in &ids {
                // Ended by its client since it was found due.
                let Some(slot) = self.tracker.find_id(id) else {
                    continue;
                };
                let group = self.group_name_shared(slot, lapses.last());
                let view = self.tracker.view(slot);
                let (member, term) = (view.member.into(), view.term);
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
            let token = self.parked.insert(Purpose::Expiry(ids));
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

    fn on_expired(&mut self, ids: Vec<SessionId>, answer: Answer, now: Millis) {
        let mut busy = false;
        self.expiring -= 1;
        match answer {
            // Those that ended have been told as such and are gone from here. The term of the
            // others has been raised since: they were renewed before their expiry came to be
            // applied, and live.
            Answer::Outcome(Outcome::Expired { stale, .. }) => {
                for id in stale {
                    if let Some(slot) = self.tracker.find_id(id) {
                        self.tracker.reopen(slot, now);
                    }
                }
            }
            // Not proposed: they stay closing, and are proposed again.
            _ => {
                self.due.extend(ids);
                busy = true;
            }
        }
        // At once, not at the next tick: when many are due, this is what keeps the core at work.
        if !busy {
            self.propose_expiries();
        }
    }
}

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;
/// How long the wheel may stand still after a stall although input keeps coming.
const DRAIN_MS_MAX: u64 = 2_000;
