//! What is true: the state after every commit, in the order of all servers, and when it came.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::group::{Applied, End, Plants, Request, Session, Settings, State};
use crate::types::{Epoch, SessionId, Zxid};

/// The state after everything committed so far.
pub(super) struct Ghost {
    state: State,
    /// Of the state after each transaction.
    digests: BTreeMap<Zxid, u64>,
    /// Sessions that have ended: why, and when that was known to be committed first, µs.
    pub(super) ended: HashMap<SessionId, (End, u64)>,
    /// Sessions that live.
    pub(super) live: HashMap<SessionId, Session>,
    /// When each session was known to be committed first, µs.
    created: HashMap<SessionId, u64>,
    /// The epoch in which each session ended.
    ended_in: HashMap<SessionId, Epoch>,
    /// When its present owner was known to have it first, µs.
    assigned: HashMap<SessionId, u64>,
    /// How many sessions have expired.
    pub(super) expired: u64,
    /// How many sessions have moved.
    pub(super) moved: u64,
    applied: Applied,
}

impl Ghost {
    pub(super) fn new(settings: Settings) -> Ghost {
        Ghost {
            state: State::new(settings),
            digests: BTreeMap::new(),
            ended: HashMap::new(),
            live: HashMap::new(),
            created: HashMap::new(),
            ended_in: HashMap::new(),
            assigned: HashMap::new(),
            expired: 0,
            moved: 0,
            applied: Applied::default(),
        }
    }

    /// What is true after these requests, each of which is granted, in epoch 1.
    pub(super) fn after(settings: Settings, requests: &[Request]) -> Ghost {
        let mut ghost = Ghost::new(settings);
        let mut txn = Vec::new();
        for (at, request) in requests.iter().enumerate() {
            txn.clear();
            let encoded = ghost.state.encode(request, &mut txn);
            encoded.expect("a past is within the limits");
            let zxid = Zxid::new(Epoch(1), at as u64 + 1);
            let applied = ghost.state.apply(zxid, &txn, &mut ghost.applied);
            applied.expect("it was encoded just now");
            for change in &ghost.applied.sessions {
                ghost.live.insert(change.session.id, change.session);
                ghost.created.insert(change.session.id, 0);
            }
        }
        let last = ghost.state.applied();
        ghost.digests.insert(last, ghost.state.digest());
        ghost
    }

    /// Plants faults: what is true is then what servers with these faults agree on.
    pub(super) fn plant(&mut self, plants: Plants) {
        self.state.plant(plants);
    }

    /// The last transaction.
    pub(super) fn last(&self) -> Zxid {
        self.state.applied()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// True if the session has lived from before `since_us` until now.
    pub(super) fn lived(&self, id: SessionId, since_us: u64) -> bool {
        self.live.contains_key(&id) && self.created.get(&id).is_some_and(|at| *at < since_us)
    }

    /// True if the session ended before `now_us`, as everybody in `epoch` must have known by then.
    pub(super) fn is_over(&self, id: SessionId, now_us: u64, epoch: Epoch) -> bool {
        let before = self.ended.get(&id).is_some_and(|(_, at)| *at < now_us);
        before && self.ended_in.get(&id).is_some_and(|in_| *in_ <= epoch)
    }

    /// When the session came to its present owner, µs.
    pub(super) fn assigned(&self, id: SessionId) -> u64 {
        self.assigned.get(&id).copied().unwrap_or(u64::MAX)
    }

    /// How many transactions there are.
    pub(super) fn committed(&self) -> u64 {
        self.digests.len() as u64
    }

    /// The digest of the state after `zxid`.
    pub(super) fn digest(&self, zxid: Zxid) -> Option<u64> {
        self.digests.get(&zxid).copied()
    }

    /// The next transaction is known to be committed; what it did, and whether by what was
    /// known before it was to change nothing.
    pub(super) fn commit(
        &mut self,
        now: u64,
        zxid: Zxid,
        payload: &Arc<[u8]>,
    ) -> Result<(&Applied, bool), String> {
        let txn = payload.get(ORIGIN_BYTES..).unwrap_or_default();
        let corrupt = |error| format!("{zxid} cannot be applied: {error}");
        let idle = self.state.idle_outcome(txn).map_err(corrupt)?.is_some();
        self.state
            .apply(zxid, txn, &mut self.applied)
            .map_err(corrupt)?;
        self.digests.insert(zxid, self.state.digest());
        for ended in &self.applied.ended {
            self.live.remove(&ended.id);
            self.ended_in.insert(ended.id, zxid.epoch);
            self.ended.insert(ended.id, (ended.end, now));
            self.expired += u64::from(ended.end == End::Expired);
        }
        for change in &self.applied.sessions {
            self.live.insert(change.session.id, change.session);
            self.created.entry(change.session.id).or_insert(now);
            if change.created || change.from.is_some() {
                self.assigned.insert(change.session.id, now);
            }
            let moved = change
                .from
                .is_some_and(|from| from.0 != change.session.owner);
            self.moved += u64::from(moved);
        }
        Ok((&self.applied, idle))
    }
}

/// What comes before the transaction in a payload: who asked for it.
const ORIGIN_BYTES: usize = 21;
