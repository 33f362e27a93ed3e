//! What the shards are told: versions, ends, sessions to hold.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use super::plant::{Plant, Plants};
use crate::group::{GroupChange, State};
use crate::mail::{Answer, Dealt, ShardIndex, Tell, VersionCell};
use crate::types::{GroupVersion, SessionId};

/// The mail to the shards, and what it refers to.
pub(super) struct Publisher {
    tells: Vec<Vec<Tell>>,
    /// The published version of each group that a shard has asked about.
    cells: HashMap<Arc<[u8]>, Arc<VersionCell>, RandomState>,
    /// Sessions ended since the shards were last told.
    ended: Vec<SessionId>,
    /// Sessions to hold, by shard, not yet told.
    hands: Vec<Vec<Dealt>>,
    plants: Plants,
}

impl Publisher {
    pub(super) fn new(shards: ShardIndex, seeds: [u64; 4]) -> Publisher {
        let [a, b, c, d] = seeds;
        Publisher {
            tells: (0..shards).map(|_| Vec::new()).collect(),
            cells: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            ended: Vec::new(),
            hands: (0..shards).map(|_| Vec::new()).collect(),
            plants: Plants::NONE,
        }
    }

    /// Plants faults, before the start.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn plant(&mut self, plants: Plants) {
        self.plants = plants;
    }

    pub(super) fn tells(&mut self) -> &mut [Vec<Tell>] {
        &mut self.tells
    }

    /// The name of a group and its version as heartbeats read it, if a shard has asked before.
    pub(super) fn known(&self, group: &[u8]) -> Option<(Arc<[u8]>, Arc<VersionCell>)> {
        let (name, cell) = self.cells.get_key_value(group)?;
        Some((Arc::clone(name), Arc::clone(cell)))
    }

    /// Its version alone.
    pub(super) fn version_of(&self, group: &[u8]) -> Option<Arc<VersionCell>> {
        self.cells.get(group).cloned()
    }

    /// Name and version, told to shards from now on.
    pub(super) fn cell(
        &mut self,
        group: &[u8],
        version: GroupVersion,
    ) -> (Arc<[u8]>, Arc<VersionCell>) {
        if let Some(known) = self.known(group) {
            return known;
        }
        let (name, cell): (Arc<[u8]>, _) = (group.into(), VersionCell::new(version));
        self.cells.insert(Arc::clone(&name), Arc::clone(&cell));
        (name, cell)
    }

    /// Shows a group's version after a change of it.
    ///
    /// The state is ahead of the news: what else was delivered with the change is in it already,
    /// and a cell that one of the changes made shows that. Hence the state says what is shown.
    pub(super) fn publish(&mut self, change: &GroupChange, state: &State) {
        let Some(cell) = self.cells.get(&*change.group) else {
            return;
        };
        match state.version(&change.group) {
            Some(_) if self.plants.has(Plant::ShowsOldVersions) => cell.set(change.version),
            Some(version) => cell.set(version),
            // No member was active, so no shard holds the cell for a session any more.
            None => drop(self.cells.remove(&*change.group)),
        }
    }

    /// The state was replaced: shows what it shows now, and has every shard forget its sessions.
    pub(super) fn reset(&mut self, state: &State) {
        self.ended.clear();
        self.hands.iter_mut().for_each(Vec::clear);
        self.cells.retain(|group, cell| match state.version(group) {
            Some(version) => {
                cell.set(version);
                true
            }
            None => false,
        });
        for tells in &mut self.tells {
            tells.push(Tell::Reset);
        }
    }

    /// A session has ended, or is another server's now.
    ///
    /// It may have come here in the same batch: then a shard is dealt it first. Told the other
    /// way round, the shard would hold, and promise, what another server owns.
    pub(super) fn end(&mut self, id: SessionId) {
        let dealt = self.hands.iter().any(|hand| !hand.is_empty());
        if dealt && !self.plants.has(Plant::EndsBeforeDeals) {
            self.flush();
        }
        self.ended.push(id);
    }

    /// These have ended because the shard `by` found them due.
    pub(super) fn expire(&mut self, by: ShardIndex, ids: &[SessionId]) {
        if !ids.is_empty() {
            let ids: Arc<[SessionId]> = ids.into();
            let expired = || Tell::Expired {
                by,
                ids: Arc::clone(&ids),
            };
            self.tell_all(expired);
        }
    }

    /// A session for a shard to hold; `shard` has asked for it, if anybody has.
    pub(super) fn deal(&mut self, shard: Option<ShardIndex>, dealt: Dealt) {
        let shards = self.hands.len() as u64;
        let any = (dealt.id.counter() % shards) as usize;
        let shard = shard.map_or(any, usize::from);
        self.hands[shard].push(dealt);
        if self.hands[shard].len() >= DEAL_MAX {
            self.flush();
        }
    }

    /// Puts the ends and the deals so far into the mail, so that what is told next comes after
    /// them. The ends come first: a member never has two sessions.
    pub(super) fn flush(&mut self) {
        if !self.ended.is_empty() {
            let ended: Arc<[SessionId]> = std::mem::take(&mut self.ended).into();
            for tells in &mut self.tells {
                tells.push(Tell::Ended(Arc::clone(&ended)));
            }
        }
        for (tells, hand) in self.tells.iter_mut().zip(&mut self.hands) {
            if !hand.is_empty() {
                tells.push(Tell::Deal(std::mem::take(hand)));
            }
        }
    }

    /// Tells one shard.
    pub(super) fn tell(&mut self, shard: ShardIndex, tell: Tell) {
        self.flush();
        self.tells[usize::from(shard)].push(tell);
    }

    /// Tells one shard what has no order with sessions that come and end.
    pub(super) fn note(&mut self, shard: ShardIndex, tell: Tell) {
        self.tells[usize::from(shard)].push(tell);
    }

    /// Tells one shard the answer to its question.
    pub(super) fn answer(&mut self, shard: ShardIndex, token: u64, answer: Answer) {
        self.tell(shard, Tell::Answer { token, answer });
    }

    /// Tells every shard.
    pub(super) fn tell_all(&mut self, tell: impl Fn() -> Tell) {
        self.flush();
        for tells in &mut self.tells {
            tells.push(tell());
        }
    }
}

/// Sessions dealt in one message.
const DEAL_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;
    use crate::types::Term;

    fn dealt(id: SessionId) -> Dealt {
        Dealt {
            group: Arc::from(&b"g"[..]),
            version: VersionCell::new(GroupVersion(1)),
            member: b"m"[..].into(),
            id,
            term: Term(1),
            timeout: Millis(1_000),
            grace: Millis(0),
        }
    }

    #[test]
    fn a_session_that_comes_and_leaves_in_one_batch_is_let_go_last() {
        let mut publisher = Publisher::new(1, [1, 2, 3, 4]);
        let [old, passing] = [SessionId(1), SessionId(2)];
        publisher.end(old);
        publisher.deal(None, dealt(passing));
        publisher.end(passing);
        publisher.flush();
        let told = publisher.tells()[0].iter().map(|tell| match tell {
            Tell::Ended(ids) => ('-', ids[0]),
            Tell::Deal(dealt) => ('+', dealt[0].id),
            other => panic!("{other:?}"),
        });
        let told: Vec<(char, SessionId)> = told.collect();
        assert_eq!(told, [('-', old), ('+', passing), ('-', passing)]);
    }
}
