//! This server's own sessions: its incarnation, what it takes over at its start, what comes to
//! it and what leaves it.

use super::requests::{Request as Asked, Who};
use super::{Plant, Replica};
use crate::group::{End, EndedSession, Outcome, Place, Refusal, Request, Session, SessionChange};
use crate::lease;
use crate::mail::{Dealt, ShardIndex, Tell};
use crate::time::Millis;
use crate::types::{Incarnation, SessionId};

/// The run of this server that owns sessions.
///
/// Its number is agreed like everything else: the first piece of an adoption records it. So
/// neither a wiped disk nor a second server with this one's id can own sessions under a number
/// that was used before.
#[derive(Default)]
pub(super) struct Own {
    /// The number asked for, or in use.
    incarnation: Option<Incarnation>,
    /// Every session of earlier runs is taken over.
    settled: bool,
    /// The next piece of the adoption is asked for.
    asked: bool,
    /// Where it begins.
    after: Option<Place>,
}

impl Own {
    /// The run in which sessions may be joined and moved here.
    pub(super) fn settled(&self) -> Option<Incarnation> {
        self.incarnation.filter(|_| self.settled)
    }

    pub(super) fn is(&self, incarnation: Incarnation) -> bool {
        self.incarnation == Some(incarnation)
    }
}

impl Replica {
    /// Takes over this server's sessions, from the beginning: at a start, and after the state
    /// was replaced, which may have passed over what became of this run's own proposals.
    pub(super) fn begin_adoption(&mut self) {
        self.own = Own::default();
        self.publisher.tell_all(|| Tell::Lease { until: Millis(0) });
    }

    /// Asks for the next piece of the adoption, if there is a leader to ask.
    pub(super) fn go_on_adopting(&mut self, now: Millis) -> bool {
        if self.own.settled || self.own.asked || !self.stands() {
            return false;
        }
        let recorded = self.state().incarnation_of(self.settings.id);
        if recorded.is_some() && self.lacks(Plant::KeepsIncarnation) {
            self.own.incarnation = recorded;
            self.own.settled = true;
            self.begin_lease();
            return false;
        }
        let next = Incarnation(recorded.map_or(0, |recorded| recorded.0) + 1);
        let incarnation = *self.own.incarnation.get_or_insert(next);
        let request = Request::Adopt {
            server: self.settings.id,
            incarnation,
            after: self.own.after.clone(),
            limit: self.adopt_limit,
        };
        self.own.asked = true;
        self.submit_own(now, &request, Who::Adoption);
        true
    }

    /// A piece of the adoption is done, or was refused.
    pub(super) fn on_adopted(&mut self, outcome: Outcome) {
        self.own.asked = false;
        match outcome {
            Outcome::Adopted { next: None, .. } => {
                self.own.settled = true;
                self.publisher.flush();
                self.begin_lease();
            }
            Outcome::Adopted { next, .. } => self.own.after = next,
            Outcome::Refused(Refusal::StaleOwner) => {
                // Another run has taken the number; this one takes the next.
                self.own = Own::default();
            }
            _ => {}
        }
    }

    /// A session is new or not what it was.
    pub(super) fn on_session(&mut self, now: Millis, change: SessionChange) {
        let session = change.session;
        let assigned = change.created || change.from.is_some();
        if assigned && let Some(grantor) = &mut self.grantor {
            grantor.on_assigned(now, (session.owner, session.incarnation));
        }
        self.index.on_session(&change);
        if change.created {
            self.active += 1;
            // What is read again after a start was counted when it happened.
            self.counters.created.add(u64::from(self.is_serving()));
        }
        let mine = self.is_own(&session);
        if let Some((server, incarnation)) = change.from {
            self.adopted += u64::from(server == session.owner);
            if server == self.settings.id && self.own.is(incarnation) && !mine {
                self.publisher.end(session.id);
            }
        } else if !change.created && mine {
            let Session {
                id, term, timeout, ..
            } = session;
            self.publisher
                .tell_all(|| Tell::Changed { id, term, timeout });
        }
        if mine && assigned {
            // Who asked for it is known once the whole transaction is.
            self.arrivals.push(change);
        }
    }

    /// How many sessions new runs of servers have adopted since this was last asked: changes of
    /// the state that are some bytes in the log for thousands of them.
    pub fn take_adopted(&mut self) -> u64 {
        std::mem::take(&mut self.adopted)
    }

    /// A session has ended.
    pub(super) fn on_ended(&mut self, ended: &EndedSession) {
        self.active -= 1;
        self.index.on_ended(ended.id);
        let counts = u64::from(self.is_serving());
        match ended.end {
            End::Expired => self.counters.expired.add(counts),
            End::Left | End::TakenOver => self.counters.closed.add(counts),
        }
        if ended.owner == self.settings.id && self.own.is(ended.incarnation) {
            // By whom is known once the whole transaction is.
            self.ends.push(ended.id);
        }
    }

    /// Tells what the last transaction ended: `request` asked for it, if anybody here has.
    pub(super) fn tell_ends(&mut self, request: Option<&Asked>, outcome: &Outcome) {
        let mut ends = std::mem::take(&mut self.ends);
        match (request.map(|request| &request.who), outcome) {
            (Some(Who::Shard { shard, .. }), Outcome::Expired { .. }) => {
                self.publisher.expire(*shard, &ends);
            }
            _ => ends.iter().for_each(|id| self.publisher.end(*id)),
        }
        ends.clear();
        self.ends = ends;
    }

    /// Deals what the last transaction brought here. A session that a join has created is not
    /// dealt but answered, if the shard that asked for it still waits: it is returned.
    ///
    /// Not every join that creates a session creates it here: if the state was replaced since
    /// it was asked for, the session belongs to the run before, until this one adopts it.
    pub(super) fn deal_arrivals(&mut self, asker: Option<&Who>) -> Option<SessionChange> {
        let mut here = None;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        for change in arrivals.drain(..) {
            let joined = match asker {
                Some(Who::Join { shard, .. }) => Some(*shard),
                _ => None,
            };
            if change.created && joined.is_some() {
                here = Some(change);
                continue;
            }
            let shard = joined.or_else(|| self.mover_of(change.session.id));
            let dealt = self.dealt(change);
            self.publisher.deal(shard, dealt);
        }
        self.arrivals = arrivals;
        here
    }

    fn dealt(&mut self, change: SessionChange) -> Dealt {
        let session = change.session;
        // Another server may promise something until it has heard of the move. An earlier run of
        // this one promises nothing any more, but it may have been given the session by a move just
        // before it ended, and not have waited for that.
        let plant = match change.from {
            Some((from, _)) if from != self.settings.id => Plant::MovesWithoutGrace,
            _ => Plant::AdoptsWithoutGrace,
        };
        let promised = change.from.is_some() && !self.alone;
        let grace = if promised && !self.lacks(plant) {
            lease::grace(self.settings.lease)
        } else {
            Millis(0)
        };
        let (group, version) = self.publisher.known(&change.group).unwrap_or_else(|| {
            let version = self.node.app().state.version(&change.group);
            self.publisher
                .cell(&change.group, version.unwrap_or_default())
        });
        Dealt {
            group,
            version,
            member: change.member,
            id: session.id,
            term: session.term,
            timeout: session.timeout,
            grace,
        }
    }

    /// The shard at which a beat waits for this session to move here.
    fn mover_of(&self, id: SessionId) -> Option<ShardIndex> {
        self.beats.mover_of(id)
    }

    /// True if this run of this server owns the session.
    pub(super) fn is_own(&self, session: &Session) -> bool {
        session.owner == self.settings.id && self.own.is(session.incarnation)
    }

    /// Founds the ensemble, if this leader finds that nobody has.
    pub(super) fn found(&mut self, now: Millis) {
        if self.state().birth_s().is_none() {
            let birth_s = self.settings.wall_s;
            self.submit_own(now, &Request::Genesis { birth_s }, Who::Genesis);
        }
    }

    /// Submits a request of this server itself. It keeps every limit, so it is taken.
    pub(super) fn submit_own(&mut self, now: Millis, request: &Request, who: Who) {
        if self.encode(request).is_ok() {
            self.submit_encoded(now, who, false);
        }
    }
}

/// Members that one piece of an adoption looks at: some milliseconds of every server's core.
pub(super) const ADOPT_LIMIT: u32 = 16_384;
