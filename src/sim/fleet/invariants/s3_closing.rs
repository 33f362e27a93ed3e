//! S3: no 2xx by a shard that knows the session's end, nor by one that has proposed its expiry,
//! until that has come to nothing.

use std::collections::HashMap;

use super::super::ghost::Ghost;
use super::Verdict;
use crate::group::{Outcome, Request};
use crate::mail::{Answer, Ask, Tell, What};
use crate::types::{Epoch, ServerId, SessionId, Term};

/// What the shards of a server have said and heard of ends.
#[derive(Default)]
pub(in super::super) struct Closing {
    shards: HashMap<(usize, u16), Shard>,
}

#[derive(Default)]
struct Shard {
    /// Sessions that it was told have ended, and when.
    ended: HashMap<SessionId, u64>,
    /// Sessions whose expiry it has proposed: in which term, and when.
    closing: HashMap<SessionId, (Term, u64)>,
    /// What each proposal was about.
    proposals: HashMap<u64, Vec<SessionId>>,
}

impl Closing {
    /// A server has started: nothing was said.
    pub(in super::super) fn started(&mut self, at: usize) {
        self.shards.retain(|(server, _), _| *server != at);
    }

    /// True if a shard that owns the session has proposed its expiry, as far as is known.
    pub(in super::super) fn is_proposed(&self, id: SessionId) -> bool {
        let mut shards = self.shards.values();
        shards.any(|said| said.closing.contains_key(&id))
    }

    /// A shard asks its core.
    pub(in super::super) fn asked(&mut self, now_us: u64, at: usize, shard: u16, ask: &Ask) {
        let What::Change {
            request: Request::Expire(lapses),
            ..
        } = &ask.what
        else {
            return;
        };
        let said = self.shards.entry((at, shard)).or_default();
        let ids = lapses.iter().map(|lapse| lapse.id).collect();
        said.proposals.insert(ask.token, ids);
        for lapse in lapses {
            said.closing.entry(lapse.id).or_insert((lapse.term, now_us));
        }
    }

    /// A shard hears from its core.
    pub(in super::super) fn told(
        &mut self,
        ghost: &Ghost,
        now_us: u64,
        (at, shard): (usize, u16),
        tell: &Tell,
    ) {
        let said = self.shards.entry((at, shard)).or_default();
        match tell {
            Tell::Answer { token, answer } => {
                let proposed = said.proposals.remove(token).unwrap_or_default();
                if let Answer::Outcome(Outcome::Expired { .. }) = answer {
                    for id in proposed {
                        said.closing.remove(&id);
                    }
                }
            }
            // A shard that was stalled may hear late that a session has moved away, when it is back
            // at another shard of this server: that is no end.
            Tell::Ended(ids) | Tell::Expired { ids, .. } => {
                let over = ids.iter().filter(|id| ghost.ended.contains_key(id));
                said.ended.extend(over.map(|id| (*id, now_us)));
            }
            Tell::Changed { id, term, .. } => said.reopened(*id, *term),
            Tell::Deal(dealt) => {
                // What has moved away and back may go on to another shard.
                for (_, shard) in self.shards.iter_mut().filter(|((s, _), _)| *s == at) {
                    for one in dealt {
                        shard.ended.remove(&one.id);
                        shard.reopened(one.id, one.term);
                    }
                }
            }
            Tell::Reset => *said = Shard::default(),
            _ => {}
        }
    }

    /// A shard gives a 2xx at once to a request that came now.
    pub(in super::super) fn promised(
        &self,
        ghost: &Ghost,
        (at, shard): (usize, u16),
        id: SessionId,
        arrived_us: u64,
    ) -> Verdict {
        let Some(said) = self.shards.get(&(at, shard)) else {
            return Ok(());
        };
        let over = ghost.ended.contains_key(&id);
        if over && said.ended.get(&id).is_some_and(|at_us| *at_us < arrived_us) {
            return Err(format!("S3: a 2xx to {id}, whose end is known there"));
        }
        let server = ServerId(at as u32 + 1);
        let owns = ghost
            .live
            .get(&id)
            .filter(|session| session.owner == server);
        if let Some((term, since_us)) = said.closing.get(&id)
            && *since_us < arrived_us
            && owns.is_some_and(|session| session.term == *term)
        {
            return Err(format!("S3: a 2xx to {id}, whose expiry is proposed there"));
        }
        Ok(())
    }
}

/// A join is answered with a session that had not ended when the join came: it is the leader that
/// says so, however far its server is behind. A leader that has been deposed and does not know it
/// says what was true in its own epoch.
pub(in super::super) fn joined_is_not_over(
    ghost: &Ghost,
    id: SessionId,
    (arrived_us, epoch): (u64, Epoch),
) -> Verdict {
    if ghost.is_over(id, arrived_us, epoch) {
        return Err(format!("S3: a join is answered with {id}, which has ended"));
    }
    Ok(())
}

impl Shard {
    fn reopened(&mut self, id: SessionId, term: Term) {
        if self.closing.get(&id).is_some_and(|(old, _)| *old < term) {
            self.closing.remove(&id);
        }
    }
}
