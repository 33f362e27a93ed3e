//! Says whether all is as it must be.

use std::sync::Arc;

use super::super::observe::fold;
use super::client::Client;
use super::ghost::Ghost;
use super::http::{Answer, Ask};
use super::invariants::{
    Closing, Ids, OneOwner, Promises, Verdict, Versions, Work, overdue, stale_is_nothing,
    state_is_the_ghosts,
};
use super::stage::Request;
use crate::group::{Settings, State};
use crate::mail::{self, Tell};
use crate::types::{SessionId, Zxid};

/// Why a run was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in true time, µs.
    pub at_us: u64,
    /// What is wrong.
    pub what: String,
}

/// All that is known to be true, and what follows from it.
pub(super) struct Judge {
    pub(super) ghost: Ghost,
    one_owner: OneOwner,
    pub(super) promises: Promises,
    closing: Closing,
    versions: Versions,
    ids: Ids,
    pub(super) work: Work,
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
            versions: Versions::default(),
            ids: Ids::default(),
            work: Work::default(),
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
            Ok((applied, idle)) => self
                .one_owner
                .committed(applied)
                .and(self.promises.committed(now, applied))
                .and(self.versions.committed(applied))
                .and(self.ids.committed(applied))
                .and(stale_is_nothing(applied, idle)),
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
    }

    pub(super) fn asked(&mut self, now: u64, at: usize, shard: u16, ask: &mail::Ask) {
        self.closing.asked(now, at, shard, ask);
    }

    pub(super) fn told(&mut self, now: u64, at: usize, shard: u16, tell: &Tell) {
        self.closing.told(now, at, shard, tell);
    }

    /// A shard has answered.
    pub(super) fn answered(&mut self, now: u64, request: &Request, answer: &Answer) {
        let number = u64::from(answer.status) << 32 | request.client as u64;
        self.mix(number);
        if !(200..300).contains(&answer.status) {
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
        let timeout_ms = answer.timeout_ms.or(live.map(|session| session.timeout.0));
        let (Some(id), Some(timeout_ms)) = (id, timeout_ms) else {
            return;
        };
        let arrived = request.arrived_us;
        let kept = self.promises.promised(&self.ghost, id, arrived, timeout_ms);
        self.check(now, kept);
        if arrived == now {
            let place = (request.at, request.shard);
            let right = self.closing.promised(&self.ghost, place, id, arrived);
            self.check(now, right);
        }
    }

    /// The session that a beat was about, which its answer does not name.
    fn beaten(&self, request: &Request) -> Option<SessionId> {
        if request.session.is_some() {
            return request.session;
        }
        let (group, member) = Client::names(request.client);
        let state = self.ghost.state();
        let session = state.session(group.as_bytes(), member.as_bytes());
        session.map(|session| session.id)
    }

    /// A client is told that its session is gone: then it is.
    fn denied(&self, request: &Request, answer: &Answer) -> Verdict {
        let beat = request.ask.promises() && !matches!(request.ask, Ask::Join { .. });
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
