//! Which shards watch which groups, and what happened there lately.
//!
//! A shard says once that it watches a group, however many of its clients do, and once that
//! it does so no more. What happens is rendered here, once, and told to every shard that
//! watches. The newest events are kept for shards that come later: their clients may have
//! seen the older ones elsewhere, before their connection was cut.
//!
//! What is told is what is applied on this server, in that order.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use super::Replica;
use super::groups::Standing;
use crate::group::{Event, Happening, Rank, Ring, ring_bytes_max};
use crate::mail::{Answer, ShardIndex, Tell};
use crate::types::GroupVersion;

/// The watched groups.
pub(super) struct Watches {
    groups: HashMap<Arc<[u8]>, Watched, RandomState>,
}

struct Watched {
    /// The shards that watch it, each once.
    shards: Vec<ShardIndex>,
    version: Option<GroupVersion>,
    ring: Ring,
}

impl Watches {
    pub(super) fn new(seeds: [u64; 4]) -> Watches {
        let [a, b, c, d] = seeds;
        Watches {
            groups: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
        }
    }

    /// How many groups are watched.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The state was replaced: what happened in between is not known, so nothing of before
    /// leads on to what comes.
    pub(super) fn reset(&mut self, standings: Vec<Standing>) {
        for standing in standings {
            if let Some(watched) = self.groups.get_mut(&standing.group) {
                watched.version = standing.version;
                watched.ring.restart(standing.rank);
            }
        }
    }
}

impl Replica {
    /// Remembers so many removed groups at most.
    #[cfg(test)]
    pub(crate) fn remember_removed(&mut self, groups: usize) {
        self.node.app_mut().state.remember_removed(groups);
    }

    /// A shard watches a group from now on.
    pub(super) fn watch(&mut self, shard: ShardIndex, group: &Arc<[u8]>) -> Answer {
        if !self.watches.groups.contains_key(group) {
            let Standing { version, rank, .. } = self.node.app_mut().watch(group);
            let watched = Watched {
                shards: Vec::new(),
                version,
                ring: Ring::new(rank),
            };
            self.watches.groups.insert(Arc::clone(group), watched);
        }
        let Some(watched) = self.watches.groups.get_mut(group) else {
            return Answer::NoQuorum;
        };
        if !watched.shards.contains(&shard) {
            watched.shards.push(shard);
        }
        Answer::Watching(watched.version, Box::new(watched.ring.clone()))
    }

    /// Nobody on the shard watches the group any more.
    pub(super) fn unwatch(&mut self, shard: ShardIndex, group: &[u8]) {
        let Some(watched) = self.watches.groups.get_mut(group) else {
            return;
        };
        watched.shards.retain(|other| *other != shard);
        if watched.shards.is_empty() {
            self.watches.groups.remove(group);
            self.node.app_mut().unwatch(group);
        }
    }

    /// Something has happened in a group that is, or just was, watched.
    pub(super) fn on_event(&mut self, event: &Event) {
        let rings = self.watches.groups.len();
        let Some(watched) = self.watches.groups.get_mut(&event.group) else {
            return;
        };
        if event.rank() < watched.ring.newest() {
            // A removed group was forgotten, and counts from 0 again. Whoever watches it is
            // told of it as of a new one.
            watched.ring.restart(Rank::NOTHING);
        }
        let removed = matches!(event.what, Happening::Removed);
        watched.version = (!removed).then_some(event.version);
        let notice = Arc::new(event.render());
        watched
            .ring
            .push(Arc::clone(&notice), ring_bytes_max(rings));
        for shard in &watched.shards {
            self.publisher.note(
                *shard,
                Tell::Notice {
                    group: Arc::clone(&event.group),
                    version: watched.version,
                    notice: Arc::clone(&notice),
                },
            );
        }
    }
}
