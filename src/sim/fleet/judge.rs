//! Says whether all is as it must be.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::observe::fold;
use super::ghost::Ghost;
use super::http::{Answer, Ask};
use super::invariants::{
    Closing, Ids, Lived, OneOwner, Promises, Settling, Verdict, Versions, Work, joined_is_not_over,
    overdue, stale_is_nothing, state_is_the_ghosts,
};
use super::probes::{Probe, Probes};
use super::stage::Request;
use crate::group::{self, Applied, End, Outcome, Session, Settings, State};
use crate::mail::{self, Beaten, Tell, What};
use crate::time::Millis;
use crate::types::{ServerId, SessionId, Zxid};

/// Why a run was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in true time, µs.
    pub at_us: u64,
    /// What is wrong.
    pub what: String,
}

/// True time, µs, and that of a server's clock.
pub(super) type Times = (u64, Millis);
/// A server and one of its shards.
type Place = (usize, u16);

/// All that is known to be true, and what follows from it.
pub(super) struct Judge {
    pub(super) ghost: Ghost,
    one_owner: OneOwner,
    pub(super) promises: Promises,
    closing: Closing,
    lived: Lived,
    settling: Settling,
    versions: Versions,
    ids: Ids,
    pub(super) work: Work,
    pub(super) probes: Probes,
    /// Until when each shard has been told that its lease lasts.
    leases: HashMap<Place, Millis>,
    violation: Option<Violation>,
    fingerprint: u64,
    /// Lines of what happened, if they are wanted.
    pub(super) lines: Option<Vec<String>>,
}

impl Judge {
    pub(super) fn new(settings: Settings, trace: bool) -> Judge {
        Judge {
            ghost: Ghost::new(settings),
            one_owner: OneOwner::default(),
            promises: Promises::default(),
            closing: Closing::default(),
            lived: Lived::default(),
            settling: Settling::default(),
            versions: Versions::default(),
            ids: Ids::default(),
            work: Work::default(),
            probes: Probes::new(),
            leases: HashMap::new(),
            violation: None,
            fingerprint: 0,
            lines: trace.then(Vec::new),
        }
    }

    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(super) fn condemn(&mut self, at_us: u64, what: String) {
        self.violation.get_or_insert(Violation { at_us, what });
    }

    pub(super) fn check(&mut self, at_us: u64, verdict: Verdict) {
        if let Err(what) = verdict {
            self.condemn(at_us, what);
        }
    }

    /// The same for the same seed.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(super) fn mix(&mut self, value: u64) {
        self.fingerprint = fold(self.fingerprint, Zxid::ZERO, value);
    }

    pub(super) fn trace(&mut self, now: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} {}", now as f64 / 1_000.0, line()));
        }
    }

    /// All that was committed before the beginning.
    pub(super) fn remembers(&mut self, past: Ghost) {
        self.versions.remembers(past.state());
        self.ghost = past;
    }

    /// The next transaction is known to be committed.
    pub(super) fn committed(&mut self, now: u64, zxid: Zxid, payload: &Arc<[u8]>) {
        let lines = &mut self.lines;
        if let Some(lines) = lines {
            let txn = crate::group::describe(payload.get(21..).unwrap_or_default());
            lines.push(format!(
                "{:>12.3} committed {zxid} {txn:?}",
                now as f64 / 1_000.0
            ));
        }
        let verdict = match self.ghost.commit(now, zxid, payload) {
            Err(error) => Err(error),
            Ok((applied, idle)) => {
                count(&mut self.probes, applied, &self.closing);
                self.one_owner
                    .committed(applied)
                    .and(self.promises.committed(now, applied))
                    .and(self.versions.committed(applied))
                    .and(self.ids.committed(applied))
                    .and(stale_is_nothing(applied, idle))
            }
        };
        self.mix(zxid.epoch.0 << 40 ^ zxid.counter);
        self.check(now, verdict);
    }

    /// A server has this state.
    pub(super) fn holds(&mut self, now: u64, at: usize, state: &State) {
        let verdict = state_is_the_ghosts(&self.ghost, at, state);
        self.check(now, verdict);
    }

    pub(super) fn started(&mut self, at: usize) {
        self.closing.started(at);
        self.lived.started(at);
    }

    /// A shard asks its core; `now` is true time and its server's.
    pub(super) fn asked(&mut self, (now, clock): Times, place: Place, ask: &mail::Ask) {
        let (at, shard) = place;
        self.closing.asked(now, at, shard, ask);
        match &ask.what {
            What::Change {
                request: group::Request::Expire(lapses),
                ..
            } => {
                for lapse in lapses {
                    // One that is stale, for another term, is nothing.
                    let live = self.ghost.live.get(&lapse.id);
                    let live = live.filter(|live| live.term == lapse.term);
                    let timeout = live.map(|live| live.timeout);
                    let expiring = timeout.map(|timeout| (lapse.id, timeout));
                    let right = expiring.map(|one| self.lived.expires(place, clock, one));
                    self.check(now, right.unwrap_or(Ok(())));
                }
            }
            What::Beaten { from, verdicts, .. } => {
                for verdict in verdicts {
                    self.probes.hit(match verdict {
                        Beaten::Touched { settled: true, .. } => Probe::Settled,
                        Beaten::Touched { .. } => Probe::SentOn,
                        Beaten::Wait => Probe::OwnerWaits,
                        Beaten::Lapsed => Probe::OwnerLapsed,
                        Beaten::NotHeld | Beaten::Conflict { .. } => Probe::NotHeld,
                    });
                }
                let right = self.settling.beaten(at, *from, verdicts);
                self.check(now, right);
            }
            _ => {}
        }
    }

    /// A shard hears from its core.
    pub(super) fn told(&mut self, (now, clock): Times, place: Place, tell: &Tell) {
        self.closing.told(&self.ghost, now, place, tell);
        match tell {
            Tell::Lease { until } => {
                self.lived.leased(place, clock, *until);
                let before = self.leases.insert(place, *until);
                if before.is_some_and(|before| before < clock) {
                    self.probes.hit(Probe::Lapsed);
                }
            }
            Tell::Changed { id, timeout, .. } => self.lived.retimed(place, (*id, *timeout)),
            Tell::Reset => self.probes.hit(Probe::StateReplaced),
            Tell::Deal(dealt) if dealt.iter().any(|one| one.grace > Millis(0)) => {
                self.probes.hit(Probe::DealtWithGrace);
            }
            _ => {}
        }
    }

    /// A shard has its turn.
    pub(super) fn turns(&mut self, clock: Millis, place: Place, stall_min: Millis) {
        self.lived.turns(place, clock, stall_min);
    }

    /// A shard has answered.
    pub(super) fn answered(&mut self, (now, clock): Times, request: &Request, answer: &Answer) {
        let number = u64::from(answer.status) << 32 | request.client as u64;
        self.mix(number);
        if !(200..300).contains(&answer.status) {
            self.count_refusal(answer);
            let right = self.denied(request, answer);
            return self.check(now, right);
        }
        let shown = Versions::shown(request.floor, answer.version);
        self.check(now, shown);
        if !request.ask.promises() {
            return;
        }
        let id = answer.session.or_else(|| self.beaten(request));
        let live = id.and_then(|id| self.ghost.live.get(&id));
        // A batch does not name the timeout: it is the one its server knew of.
        let known = request.known.filter(|known| Some(known.id) == id);
        let meant = known.or(live.copied()).map(|session| session.timeout.0);
        let timeout_ms = answer.timeout_ms.or(meant);
        let (Some(id), Some(timeout_ms)) = (id, timeout_ms) else {
            return;
        };
        let place = (request.at, request.shard);
        let here = self.is_decided_here(request, id);
        let arrived = request.arrived_us;
        let decided = if here || answer.status == 201 {
            now
        } else {
            arrived
        };
        let kept = self.promises.promised(&self.ghost, id, decided, timeout_ms);
        self.check(now, kept);
        if request.ask.joins() {
            let right = joined_is_not_over(&self.ghost, id, (arrived, request.epoch));
            self.check(now, right);
        }
        if (here || answer.status == 201) && answer.timeout_ms.is_some() {
            let promised = (id, Millis(timeout_ms));
            self.lived.promised(place, clock, promised);
        }
        if arrived == now {
            let right = self.closing.promised(&self.ghost, place, id, arrived);
            self.check(now, right);
        }
    }

    fn count_refusal(&mut self, answer: &Answer) {
        match (answer.status, answer.problem.as_deref()) {
            (404 | 410, _) => self.probes.hit(Probe::Denied),
            (503, Some("lease_lapsed")) => self.probes.hit(Probe::RefusedForLapse),
            (503, Some("owner_unreachable")) => self.probes.hit(Probe::Unreachable),
            _ => {}
        }
    }

    /// True if the answer to this request was decided by the shard that gave it, as it gave it: the
    /// session has been this server's all the while, as far as this server knew, too.
    fn is_decided_here(&self, request: &Request, id: SessionId) -> bool {
        let server = ServerId(request.at as u32 + 1);
        let owns = |session: &Session| session.owner == server;
        request.ask != Ask::BeatAndGet
            && request
                .known
                .is_some_and(|known| known.id == id && owns(&known))
            && self.ghost.live.get(&id).is_some_and(owns)
            && self.ghost.assigned(id) <= request.arrived_us
    }

    /// The session that a beat was about, which its answer does not name.
    fn beaten(&self, request: &Request) -> Option<SessionId> {
        if request.session.is_some() {
            return request.session;
        }
        let (group, member) = &request.names;
        let state = self.ghost.state();
        let session = state.session(group.as_bytes(), member.as_bytes());
        let id = session.map(|session| session.id);
        // A server that is behind may have meant the one before it.
        id.filter(|id| request.known.is_some_and(|known| known.id == *id))
    }

    /// A client is told that its session is gone: then it is.
    fn denied(&self, request: &Request, answer: &Answer) -> Verdict {
        let beat = request.ask.promises() && !request.ask.joins();
        if !beat || !matches!(answer.status, 404 | 409 | 410) {
            return Ok(());
        }
        let id = self.beaten(request);
        match id.filter(|id| self.ghost.lived(*id, request.arrived_us)) {
            None => Ok(()),
            Some(id) => {
                let status = answer.status;
                Err(format!(
                    "D: a beat to {id}, which lives, is answered with {status}"
                ))
            }
        }
    }

    /// The sessions that should have expired.
    pub(super) fn overdue(&self, now: u64, patience_us: u64) -> Vec<SessionId> {
        overdue(&self.ghost, &self.promises, now, patience_us)
    }
}

/// Counts what a transaction has done to sessions.
fn count(probes: &mut Probes, applied: &Applied, closing: &Closing) {
    for change in &applied.sessions {
        let run = |(server, _): (ServerId, _)| server == change.session.owner;
        probes.hit(match change.from {
            _ if change.created => Probe::Joined,
            Some(from) if run(from) => Probe::Adopted,
            Some(_) => Probe::Moved,
            None => Probe::Retimed,
        });
    }
    for ended in &applied.ended {
        probes.hit(match ended.end {
            End::TakenOver => Probe::TakenOver,
            End::Left => Probe::Left,
            End::Expired if closing.is_proposed(ended.id) => Probe::Expired,
            End::Expired => Probe::Orphaned,
        });
    }
    if let Outcome::Expired { stale, .. } = &applied.outcome
        && !stale.is_empty()
    {
        probes.hit(Probe::StaleExpiry);
    }
}
