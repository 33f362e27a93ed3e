//! Answers: what each says about its session, and what follows from it.

use super::{Loader, Phase};
use crate::batch;
use crate::clock::{self, MILLI};
use crate::net::{Kind, Lane, Pending};
use crate::plan::Load;
use crate::recorder::Tag;
use crate::reply::Reply;
use crate::standing::State;
use crate::verify::{Fault, Sent};
use crate::watch::{Verdict, active_in, lists};

impl Loader {
    pub(super) fn on_beat(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        now_ns: u64,
    ) {
        let session = pending.sent.session;
        if self.plan.bare {
            self.verifier.bare(pending.sent, reply);
        } else if self.standing.is_held(session) {
            let mut sent = pending.sent;
            if reply.status >= 300 {
                // It may have waited in our own socket until then.
                sent.at_ns = sent.at_ns.max(lane.unblocked_ns);
            }
            let s = &mut self.sessions[session as usize];
            if !self.verifier.beaten(s, sent, reply, now_ns) {
                self.standing.set(session, State::Gone);
            }
        }
        if reply.status < 300 {
            self.beats_done(pending, 1, now_ns);
        }
        self.beat_again(lane, now_ns);
    }

    fn beats_done(&mut self, pending: Pending, beats: u32, now_ns: u64) {
        self.counts.beats += u64::from(beats);
        if self.phase == Phase::Measuring {
            self.counts.beats_measured += u64::from(beats);
        }
        self.record_beat(&pending, beats, now_ns);
    }

    /// Records how long beats took, under the part of the run in which they were due.
    pub(super) fn record_beat(&mut self, pending: &Pending, beats: u32, now_ns: u64) {
        if !matches!(pending.kind, Kind::Head | Kind::Get | Kind::Batch) {
            return;
        }
        let due_ns = pending.due_ns;
        let tag = if self.measured.contains(&due_ns) {
            let sent_ns = pending.sent.at_ns;
            self.stalls.add(due_ns, sent_ns, now_ns, beats);
            Tag::Beat
        } else if self.mass.is_due(due_ns) {
            Tag::BeatExpiring
        } else if self.phase == Phase::Joining {
            Tag::BeatJoining
        } else {
            return;
        };
        let waited = now_ns.saturating_sub(due_ns);
        self.recorder.record_n(tag, waited, beats);
    }

    fn beat_again(&mut self, lane: &mut Lane, now_ns: u64) {
        let beating = matches!(self.phase, Phase::Warming | Phase::Measuring);
        if beating && matches!(self.plan.load, Load::Closed { .. }) {
            let conn = lane.number;
            self.beat_next(lane, conn, now_ns);
        }
    }

    pub(super) fn on_batch(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        body: &[u8],
        now_ns: u64,
    ) {
        let number = pending.sent.session;
        let list = self.batches.answered(number);
        self.verifier.checked += 1;
        let failed = if reply.status == 200 {
            batch::failures(body)
        } else {
            None
        };
        if let Some(failed) = &failed {
            for (line, status) in failed {
                self.batch_refusal(lane, &list, *line, *status, pending, now_ns);
            }
            for session in &list {
                if self.standing.get(*session) != State::Gone {
                    let s = &mut self.sessions[*session as usize];
                    s.acked_ns = s.acked_ns.max(pending.sent.at_ns);
                }
            }
            let beats = list.len().saturating_sub(failed.len()) as u32;
            self.beats_done(pending, beats, now_ns);
        } else {
            let said = format!("{} to a batch of {}", reply.status, list.len());
            let fault = if reply.status == 503 {
                Fault::Unavailable
            } else {
                Fault::UnexpectedStatus
            };
            self.verifier.general(fault, &said);
        }
        if pending.kind == Kind::Doom {
            let due_ns = pending.sent.at_ns + self.plan.timeout_ns;
            self.mass.renewed(list.len(), due_ns);
            self.doom.answered();
        }
        self.batches.recycle(number, list);
        if pending.kind == Kind::Batch {
            self.beat_again(lane, now_ns);
        }
    }

    fn batch_refusal(
        &mut self,
        lane: &Lane,
        list: &[u32],
        line: usize,
        status: u16,
        pending: Pending,
        now_ns: u64,
    ) {
        let Some(session) = list.get(line).copied() else {
            self.verifier.general(
                Fault::UnexpectedStatus,
                "a failure of a line that was not sent",
            );
            return;
        };
        if self.standing.is_held(session) {
            let at_ns = pending.sent.at_ns.max(lane.unblocked_ns);
            let sent = Sent {
                session,
                at_ns,
                floor: 0,
            };
            let s = &self.sessions[session as usize];
            self.verifier.refused(s, sent, status, now_ns);
            self.standing.set(session, State::Gone);
        }
    }

    pub(super) fn on_join(&mut self, pending: Pending, reply: &Reply, now_ns: u64) {
        let session = pending.sent.session;
        self.joins.ended(session);
        let s = &mut self.sessions[session as usize];
        let again = s.id != 0;
        if self.verifier.joined(s, pending.sent, reply) {
            self.standing.set(session, State::Live);
            self.counts.joins += 1;
            self.counts.rejoins += u64::from(again);
            self.joined += u32::from(!again);
        } else {
            self.standing.set(session, State::Absent);
        }
        self.recorder
            .record(Tag::Join, now_ns.saturating_sub(pending.due_ns));
    }

    pub(super) fn on_leave(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        now_ns: u64,
    ) {
        let session = pending.sent.session;
        self.standing.set(session, State::Gone);
        let s = &self.sessions[session as usize];
        if self.verifier.left(s, pending.sent, reply, now_ns) {
            self.counts.leaves += 1;
        }
        self.recorder
            .record(Tag::Leave, now_ns.saturating_sub(pending.due_ns));
        self.plan.names.head(&mut lane.out, session, None);
        self.queue(lane, Kind::Ghost, session, now_ns, now_ns);
        if pending.kind == Kind::Depart {
            self.joins.again(session);
        }
    }

    pub(super) fn on_probe(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        body: &[u8],
        now_ns: u64,
    ) {
        let session = pending.sent.session;
        // 404: the group went with its last member.
        if !matches!(reply.status, 200 | 404) {
            let said = format!("{} to a page of the group", reply.status);
            self.verifier.fault(Fault::UnexpectedStatus, session, &said);
        }
        let mut member = Vec::new();
        self.plan.names.push_member(&mut member, session);
        let listed = reply.status != 404 && lists(body, &member);
        let acked_ns = self.sessions[session as usize].acked_ns;
        match self.deaths.answer(session, listed, acked_ns, now_ns) {
            Verdict::Waiting => return,
            Verdict::TooLong => {
                let late = now_ns.saturating_sub(acked_ns + self.plan.timeout_ns) / MILLI;
                let said = format!("still listed {late} ms after its deadline");
                self.verifier.fault(Fault::ListedTooLong, session, &said);
                // It may well be alive still: to beat for it would only renew it.
                self.standing.set(session, State::Gone);
                return;
            }
            Verdict::Early(ns) => {
                let said = format!("gone {:.1} ms before its deadline", ns as f64 / 1e6);
                self.verifier.fault(Fault::ExpiredEarly, session, &said);
            }
            Verdict::Gone(late) => {
                self.counts.expired += 1;
                if let Some(late) = late {
                    self.recorder.record(Tag::Lateness, late);
                }
            }
        }
        self.standing.set(session, State::Gone);
        self.plan.names.head(&mut lane.out, session, None);
        self.queue(lane, Kind::Ghost, session, now_ns, now_ns);
    }

    pub(super) fn on_list(&mut self, pending: Pending, reply: &Reply, body: &[u8], now_ns: u64) {
        self.listing = false;
        let stem = self.plan.names.group_stem();
        let active = active_in(body, &stem).filter(|_| reply.status == 200);
        let Some(active) = active else {
            let said = format!(
                "{} to the list of groups, or not the promised JSON",
                reply.status
            );
            self.verifier.general(Fault::UnexpectedStatus, &said);
            return;
        };
        let (late, early) = self.mass.counted(active, now_ns);
        for (ns, members) in late {
            self.recorder.record_n(Tag::Lateness, ns, members);
        }
        if early > 0 {
            let said = format!("{early} members were gone before any deadline of theirs");
            self.verifier.general(Fault::ExpiredEarly, &said);
        }
        self.counts.expired = self.mass.progress().0 as u64;
        self.next_list_ns = pending.sent.at_ns + LIST_STEP_NS;
    }

    /// A request will have no answer: what it was about is uncertain.
    pub(super) fn forget(&mut self, pending: Pending) {
        let session = pending.sent.session;
        match pending.kind {
            Kind::Join => {
                self.joins.ended(session);
                self.joins.again(session);
                self.standing.set(session, State::Absent);
            }
            Kind::Batch | Kind::Doom => {
                let list = self.batches.answered(session);
                self.batches.recycle(session, list);
                if pending.kind == Kind::Doom {
                    self.doom.answered();
                }
            }
            Kind::Leave | Kind::Depart => self.standing.set(session, State::Gone),
            Kind::Probe => {
                let acked_ns = self.sessions[session as usize].acked_ns;
                let now_ns = clock::now();
                if self.deaths.answer(session, true, acked_ns, now_ns) == Verdict::TooLong {
                    self.verifier
                        .fault(Fault::ListedTooLong, session, "probe lost");
                }
            }
            Kind::List => self.listing = false,
            Kind::Head | Kind::Get | Kind::Ghost => {}
        }
    }
}

/// Pause between two looks at the counts.
const LIST_STEP_NS: u64 = 2 * MILLI;
