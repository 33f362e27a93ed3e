//! What the shard does besides answering: the core's news, the tick and stalls.

use super::transit::News;
use super::{EXPECT_SESSIONS_MIN, Phase, Plant, Purpose, Shard};
use crate::mail::{Answer, Dealt, Tell};
use crate::session::{InsertError, NewSession, Slot};
use crate::time::{Millis, TICK_MS, stretched};
use crate::types::Term;

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
            Tell::Expired { by, ids } => self.on_expired(by, ids, now),
            Tell::Changed { id, term, timeout } => {
                self.on_news(News::Changed { id, term, timeout }, now);
            }
            Tell::Deal(sessions) => {
                for some in sessions.chunks(EXPECT_MAX) {
                    self.expect_dealt(some);
                    for dealt in some {
                        self.hold(dealt, now);
                    }
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
                self.show_endpoints(endpoints);
                self.incarnation = incarnation;
                self.enter(Phase::Serving);
            }
            Tell::Endpoints(endpoints) => {
                self.show_endpoints(endpoints);
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
            Purpose::Expiry(lapsed) => return self.on_expiry(lapsed, answer, now),
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
            Purpose::Targets(job) => self.on_targets(job, answer),
            Purpose::Search(search) => self.on_judged(search, answer, now),
            Purpose::Expiry(_) | Purpose::Watch(_) | Purpose::Shared(_) => {}
        }
    }

    /// Brings into cache together where these sessions will stand, as [`Shard::expect`] does for
    /// beats.
    fn expect_dealt(&self, sessions: &[Dealt]) {
        if self.tracker.len() >= EXPECT_SESSIONS_MIN {
            let names = sessions
                .iter()
                .map(|dealt| (&dealt.group[..], &dealt.member[..]));
            self.tracker.expect(names);
            self.tracker
                .expect_ids(sessions.iter().map(|dealt| dealt.id));
        }
    }

    /// Takes a session in, with a full timeout and its grace from `now`. One that is here
    /// already takes the newer term, and keeps the later deadline. Says where it is.
    pub(super) fn hold(&mut self, dealt: &Dealt, now: Millis) -> Slot {
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
            Ok(slot) => {
                if *grace > Millis(0) {
                    self.tracker.spare(slot, *timeout + *grace, now);
                }
                slot
            }
            // Here already: told twice of the same session, or it has come back.
            Err(InsertError::Exists(slot)) if self.tracker.view(slot).id == *id => {
                if *term > self.tracker.view(slot).term {
                    self.renew_term(slot, *term, now);
                    self.tracker.spare(slot, *timeout + *grace, now);
                }
                slot
            }
            Err(InsertError::Exists(slot)) => {
                // The member's older session: its end is on the way, for a member has one
                // session at a time, and this one is newer by commit order.
                debug_assert!(self.tracker.view(slot).id < *id, "sessions grow");
                self.tracker.remove(slot);
                self.hold(dealt, now)
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
            News::Ended(_) => {
                self.end(slot, now);
                self.expiry.doubt();
            }
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
            self.expiry.doubt();
        }
    }

    /// The replicated state was replaced: no session here is known to be so any more.
    fn reset(&mut self, now: Millis) {
        self.tracker.clear(now);
        self.expiry.reset();
        self.settling.clear();
        self.transit.reset();
        self.reset_room();
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
        self.expiry.begin_turn();
        let gap = now.since(self.turned);
        // A timer that was late the last time is not the next.
        if gap.0 < TICK_MS / 2 && !self.expiry.wheel_behind {
            return self.go_on_expiring(now);
        }
        self.expiry.rests = false;
        self.turned = now;
        self.admission.tick();
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
            self.expiry.wheel_behind = false;
        } else {
            self.turn_wheel(now);
        }
        self.transit.forget_given(now);
        self.go_on_expiring(now);
        self.resume_searches(now);
        self.resume_behind();
        self.tick_room(now);
        self.counters.sessions.set(self.tracker.len() as u64);
    }
}

/// Sessions dealt whose places are looked for together: their lines stay in cache.
const EXPECT_MAX: usize = 256;
/// How long the wheel may stand still after a stall although input keeps coming.
const DRAIN_MS_MAX: u64 = 2_000;
