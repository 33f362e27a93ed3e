//! Sessions on their way between shards.
//!
//! The core tells all shards the same news, each in its own time; a session handed over
//! jumps from one shard's time to another's. Left alone, it could miss a word: the shard
//! that gives it has not yet heard that it ended, and the one that takes it has heard so
//! before it came. So both sides count the news:
//!
//! 1. a claim is answered by a shard that has heard as much as the claimant had;
//! 2. a handover is taken by a shard that has heard as much as the giver had;
//! 3. what the claimant hears from the claim to the handover is kept, and what of it the
//!    giver had not heard is applied to what is given.
//!
//! A pass that comes too early waits for the core's next message, which is on its way.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::mail::{Dealt, Missing, Pass, ShardIndex};
use crate::time::Millis;
use crate::types::{SessionId, Term};

/// What a shard knows of sessions between shards.
#[derive(Default)]
pub(super) struct Transit {
    /// News heard from the core since the start.
    heard: u64,
    /// Passes from shards that had heard more.
    early: VecDeque<Pass>,
    /// Claims of ours that are unanswered: what had been heard when they were made,
    /// ascending, and how many of each.
    claims: VecDeque<(u64, usize)>,
    /// News of sessions that are not here, since the oldest of those claims: the news'
    /// number and what it was.
    meanwhile: VecDeque<(u64, News)>,
    /// Sessions given away of late, and when. They may be on their way still.
    given: HashMap<SessionId, Millis>,
    given_order: VecDeque<(Millis, SessionId)>,
    /// News heard when the state was last replaced: what was given before is nobody's.
    reset: u64,
}

/// What the core tells every shard about one session.
#[derive(Clone, Copy)]
pub(super) enum News {
    /// It has ended.
    Ended(SessionId),
    /// Its timeout or term is no longer what it was.
    Changed {
        id: SessionId,
        term: Term,
        timeout: Millis,
    },
}

impl News {
    pub(super) fn id(&self) -> SessionId {
        match *self {
            News::Ended(id) | News::Changed { id, .. } => id,
        }
    }
}

/// The fields of [`Pass::Claim`].
pub(super) struct Claim {
    pub(super) from: ShardIndex,
    pub(super) token: u64,
    pub(super) heard: u64,
    pub(super) wanted: Vec<Missing>,
}

/// The fields of [`Pass::Handover`].
pub(super) struct Handover {
    pub(super) token: u64,
    pub(super) asked: u64,
    pub(super) heard: u64,
    pub(super) given: Vec<Dealt>,
    pub(super) open: Vec<SessionId>,
}

impl Transit {
    /// How much news this shard has heard.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// A piece of news has come.
    pub(super) fn hears(&mut self) {
        self.heard += 1;
    }

    /// The pass, unless it has to wait for news.
    pub(super) fn in_time(&mut self, pass: Pass) -> Option<Pass> {
        if heard_of(&pass) <= self.heard {
            return Some(pass);
        }
        self.early.push_back(pass);
        None
    }

    /// A pass that has waited long enough.
    pub(super) fn ripe(&mut self) -> Option<Pass> {
        let heard = self.heard;
        let at = self.early.iter().position(|pass| heard_of(pass) <= heard)?;
        self.early.remove(at)
    }

    /// A claim has been sent to one shard.
    pub(super) fn claimed(&mut self) {
        match self.claims.back_mut() {
            Some((heard, count)) if *heard == self.heard => *count += 1,
            _ => self.claims.push_back((self.heard, 1)),
        }
    }

    /// A claim has been answered that was made when `asked` had been heard.
    pub(super) fn answered(&mut self, asked: u64) {
        let at = self.claims.partition_point(|(heard, _)| *heard < asked);
        if let Some((_, count)) = self.claims.get_mut(at) {
            *count -= 1;
        }
        while self.claims.pop_front_if(|(_, count)| *count == 0).is_some() {}
        match self.claims.front() {
            None => self.meanwhile.clear(),
            Some(&(since, _)) => {
                while self
                    .meanwhile
                    .pop_front_if(|(at, _)| *at <= since)
                    .is_some()
                {}
            }
        }
    }

    /// Notes news of a session that is not here.
    pub(super) fn note(&mut self, news: News) {
        if let News::Ended(id) = news {
            self.given.remove(&id);
        }
        if !self.claims.is_empty() {
            self.meanwhile.push_back((self.heard, news));
        }
    }

    /// What this shard has heard of the sessions in `given` and the giver, which had heard
    /// `heard`, had not.
    pub(super) fn missed(&mut self, given: &[Dealt], heard: u64) -> Vec<News> {
        for dealt in given {
            self.given.remove(&dealt.id);
        }
        let from = self.meanwhile.partition_point(|(at, _)| *at <= heard);
        if given.is_empty() || from == self.meanwhile.len() {
            return Vec::new();
        }
        let ids: HashSet<SessionId> = given.iter().map(|dealt| dealt.id).collect();
        let later = self.meanwhile.range(from..).map(|(_, news)| *news);
        later.filter(|news| ids.contains(&news.id())).collect()
    }

    /// The state was replaced.
    pub(super) fn reset(&mut self) {
        self.reset = self.heard;
        self.given.clear();
        self.given_order.clear();
    }

    /// True if what was given by a shard that had heard `heard` belongs to a state that has
    /// been replaced since.
    pub(super) fn is_void(&self, heard: u64) -> bool {
        heard < self.reset
    }

    /// A session has been given away.
    pub(super) fn gave(&mut self, id: SessionId, now: Millis) {
        self.given.insert(id, now);
        self.given_order.push_back((now, id));
    }

    /// True if the session was given away of late and is not known to have ended.
    pub(super) fn has_given(&self, id: SessionId) -> bool {
        self.given.contains_key(&id)
    }

    /// Forgets what was given away so long ago that it has arrived.
    pub(super) fn forget_given(&mut self, now: Millis) {
        while let Some((at, id)) = self
            .given_order
            .pop_front_if(|(at, _)| now.since(*at).0 > GIVEN_MS_MAX)
        {
            if self.given.get(&id) == Some(&at) {
                self.given.remove(&id);
            }
        }
    }

    /// Pieces of news kept.
    #[cfg(test)]
    pub(super) fn noted(&self) -> usize {
        self.meanwhile.len()
    }

    /// True if nothing waits here.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.early.is_empty() && self.claims.is_empty() && self.meanwhile.is_empty()
    }
}

/// How much news the sender of the pass had heard.
fn heard_of(pass: &Pass) -> u64 {
    match pass {
        Pass::Claim { heard, .. } | Pass::Handover { heard, .. } => *heard,
    }
}

/// How long a session given away may be on its way, milliseconds: longer than a search goes
/// on.
const GIVEN_MS_MAX: u64 = 2_000;
