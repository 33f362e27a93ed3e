//! What clients have been promised, held against what becomes of their sessions.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::Shard;
use super::client::{Asked, Response};
use crate::group::State;
use crate::mail::Tell;
use crate::time::Millis;
use crate::types::SessionId;

/// Remembers promises, and fails when one is broken.
#[derive(Default)]
pub(super) struct Oracle {
    /// Members to be watched.
    pub(super) members: Vec<(String, String)>,
    /// The watched member's session, and how often it has changed.
    pub(super) sessions: BTreeMap<usize, (Option<(SessionId, Millis)>, u64)>,
    /// The newest promise of each session: when it was made, and for how long.
    promises: HashMap<SessionId, (Millis, Millis)>,
    timeouts: HashMap<SessionId, Millis>,
    pub(super) expired: HashSet<SessionId>,
    /// All that have ended, in their order.
    pub(super) ends: Vec<SessionId>,
    /// Sessions of whose end a shard has heard.
    heard: Vec<HashSet<SessionId>>,
    pub(super) versions: HashMap<String, u64>,
    pub(super) counts: BTreeMap<u16, u64>,
}

impl Oracle {
    pub(super) fn new(shards: usize) -> Oracle {
        Oracle {
            heard: vec![HashSet::new(); shards],
            ..Oracle::default()
        }
    }

    /// The shards have forgotten what they had heard; what clients were told holds.
    pub(super) fn restarted(&mut self, shards: usize) {
        self.heard = vec![HashSet::new(); shards];
    }

    /// A transaction has been applied.
    pub(super) fn applied(&mut self, state: &State) {
        for (index, (group, member)) in self.members.iter().enumerate() {
            let session = state.session(group.as_bytes(), member.as_bytes());
            let session = session.map(|session| (session.id, session.timeout));
            let known = self.sessions.entry(index).or_default();
            if known.0.map(|(id, _)| id) != session.map(|(id, _)| id) {
                known.1 += 1;
            }
            known.0 = session;
            if let Some((id, timeout)) = session {
                self.timeouts.insert(id, timeout);
                // A client that asks for less gives up what it was promised.
                if let Some((_, promised)) = self.promises.get_mut(&id) {
                    *promised = timeout.min(*promised);
                }
            }
        }
    }

    /// S2: what was promised is kept.
    pub(super) fn ended(&mut self, id: SessionId, by_expiry: bool, now: Millis) {
        self.ends.push(id);
        if !by_expiry {
            return;
        }
        assert!(self.expired.insert(id), "{id} expired twice");
        if let Some((at, timeout)) = self.promises.get(&id) {
            assert!(
                now >= *at + *timeout,
                "S2: {id} was promised {} ms at {}, and expired at {}",
                timeout.0,
                at.0,
                now.0
            );
        }
    }

    /// A shard has been told.
    pub(super) fn heard(&mut self, shard: usize, tells: &[Tell]) {
        for tell in tells {
            match tell {
                Tell::Ended(ids) | Tell::Expired { ids, .. } => {
                    self.heard[shard].extend(ids.iter());
                }
                // Moved back.
                Tell::Deal(sessions) => {
                    for dealt in sessions {
                        self.heard[shard].remove(&dealt.id);
                    }
                }
                _ => {}
            }
        }
    }

    /// A client has been answered.
    pub(super) fn answered(&mut self, shard: usize, asked: &Asked, response: &Response) {
        *self.counts.entry(response.status).or_default() += 1;
        if let (Some(group), Some(version)) = (group_of(&asked.line), response.version()) {
            let seen = self.versions.entry(group.to_owned()).or_default();
            *seen = version.max(*seen);
        }
        let (200..=204 | 304) = response.status else {
            return;
        };
        let (Some(id), Some(timeout)) = (response.session(), response.timeout()) else {
            return;
        };
        // A document is sent some time after the beat that came with the question.
        let exact = asked.alone && !asked.line.starts_with("GET ");
        if exact {
            assert!(
                !self.expired.contains(&id),
                "S3: {} after expiry",
                asked.line
            );
            let ended = self.heard[shard].contains(&id);
            assert!(!ended, "S3: {} where the end was known", asked.line);
        }
        let at = if exact { response.at } else { asked.at };
        let now = self.timeouts.get(&id).copied().unwrap_or(timeout);
        let promise = self.promises.entry(id).or_insert((at, timeout));
        if at >= promise.0 {
            *promise = (at, timeout.min(now));
        }
    }

    /// A session is held once at most.
    pub(super) fn placed(&self, shards: &[Shard]) {
        for (index, (group, member)) in self.members.iter().enumerate() {
            let Some((Some((id, _)), _)) = self.sessions.get(&index) else {
                continue;
            };
            let holds = |shard: &&Shard| shard.tracker.find_id(*id).is_some();
            let holders = shards.iter().filter(holds).count();
            assert!(holders <= 1, "{group}/{member} is held {holders} times");
        }
    }
}

/// The group that a request is about, for those the oracle looks at.
pub(super) fn group_of(line: &str) -> Option<&str> {
    let path = line.split(' ').nth(1)?.strip_prefix('/')?;
    let group = path.split(['/', '?']).next()?;
    (!group.is_empty() && group != "-").then_some(group)
}
