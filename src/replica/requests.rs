//! The requests of this server that are on their way through the quorum.
//!
//! ```text
//!            no leader                 leader lost, fate open
//! waiting ◀─────────── submitted ─▶ open ─────────────────────▶ back
//!    │                    ▲          │ delivered, answered       │ delivered after all
//!    └────────────────────┘          ▼                           ▼
//!      a leader is there           done          a newer epoch without it: dead, so again
//! ```
//!
//! A request that was handed back is done at most once, and its outcome is the true one: a
//! transaction says which request it came from, so one that survived the change of leader is
//! recognised when it is delivered. And once this server stands in a newer epoch, which it does
//! only with everything that was committed before, one that has not been delivered never will be.
//! Back at the same leader, in the same epoch, that is known when a later flush is complete.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::beats::Pending;
use crate::mail::ShardIndex;
use crate::time::Millis;
use crate::types::{Epoch, Incarnation, ServerId, SessionId};
use crate::zab::app::{RequestId, Row, Sent};

/// A request, and who asked for it.
pub(super) struct Request {
    pub(super) what: What,
    pub(super) who: Who,
    /// The epoch in which it was asked of the leader.
    pub(super) epoch: Epoch,
    /// When it was first asked, or handed back.
    pub(super) since: Millis,
    /// True if it may have been delivered unseen: the state was replaced meanwhile.
    pub(super) blurred: bool,
}

/// What is asked of the leader.
pub(super) enum What {
    /// To broadcast this transaction, unless it would change nothing.
    Transaction(Arc<[u8]>),
    /// The same, and it has been asked.
    Sent(Sent),
    /// How far this server must have applied.
    Flush,
}

/// Who waits for it.
pub(super) enum Who {
    /// A shard, for a change that is answered with the plain outcome.
    Shard { shard: ShardIndex, token: u64 },
    /// A shard, for a join.
    Join {
        shard: ShardIndex,
        token: u64,
        document: bool,
    },
    /// This server: what has become of what it had asked when it lost its leader, which is its
    /// leader again?
    Fates,
    /// A shard, for a document that must not be stale.
    Document {
        shard: ShardIndex,
        token: u64,
        group: Box<[u8]>,
    },
    /// Beats that are about to be denied, see `beats`.
    Denials(Vec<Pending>),
    /// This server: the ensemble is to be founded.
    Genesis,
    /// This server: its endpoint is to be known.
    Endpoint,
    /// This server: it takes over its own sessions.
    Adoption,
    /// This server: sessions are to move here.
    Move(Vec<SessionId>),
    /// This leader: sessions of a lost owner are to be expired.
    Orphans(Orphaned),
}

/// Whose sessions a leader expires because they are lost, and in which epoch it leads. A later
/// reign of the same server has not proposed that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orphaned {
    pub(super) server: ServerId,
    pub(super) incarnation: Incarnation,
    pub(super) epoch: Epoch,
}

impl What {
    /// The transaction, if that is what is asked for.
    pub(super) fn transaction(&self) -> Option<&[u8]> {
        match self {
            What::Transaction(txn) => Some(txn),
            What::Sent(sent) => Some(sent.request()),
            What::Flush => None,
        }
    }
}

impl Request {
    pub(super) fn new(what: What, who: Who, now: Millis) -> Request {
        Request {
            what,
            who,
            epoch: Epoch::default(),
            since: now,
            blurred: false,
        }
    }

    /// True if a client waits for it, which has better things to do than to wait for ever.
    fn is_of_client(&self) -> bool {
        matches!(
            self.who,
            Who::Shard { .. } | Who::Join { .. } | Who::Document { .. } | Who::Denials(_)
        )
    }

    /// True if it does no harm if it is done twice, or if another has done it.
    pub(super) fn is_repeatable(&self) -> bool {
        // An endpoint nobody else writes, and always the same.
        let repeatable = crate::group::is_repeatable;
        matches!(self.who, Who::Endpoint) || self.what.transaction().is_none_or(repeatable)
    }

    /// True if whoever asked looks after it if there is no room for it.
    pub(super) fn may_fail(&self) -> bool {
        self.is_of_client() || matches!(self.who, Who::Orphans(..))
    }
}

/// All of them.
pub(super) struct Requests {
    open: Row<Request>,
    back: BTreeMap<RequestId, Request>,
    waiting: VecDeque<Request>,
    /// A flush that tells the fate of what was handed back is under way, or waits.
    fates_asked: bool,
}

impl Requests {
    pub(super) fn new() -> Requests {
        Requests {
            open: Row::new(),
            back: BTreeMap::new(),
            waiting: VecDeque::new(),
            fates_asked: false,
        }
    }

    /// The leader was asked.
    pub(super) fn asked(&mut self, id: RequestId, epoch: Epoch, request: Request) {
        self.open.push(id, Request { epoch, ..request });
    }

    /// The request has met its fate.
    pub(super) fn close(&mut self, id: RequestId) -> Option<Request> {
        self.open.remove(id).or_else(|| self.back.remove(&id))
    }

    /// The leader is lost. `open_fate`: the request may have become a transaction.
    pub(super) fn hand_back(&mut self, id: RequestId, open_fate: bool, now: Millis) {
        let Some(mut request) = self.open.remove(id) else {
            return;
        };
        request.since = now;
        if open_fate {
            self.back.insert(id, request);
        } else {
            self.waiting.push_back(request);
        }
    }

    /// Keeps a request until there is a leader; hands it out again if too many are kept.
    pub(super) fn wait(&mut self, request: Request) -> Result<(), Request> {
        if request.is_of_client() && self.waiting.len() >= WAITING_MAX {
            return Err(request);
        }
        self.waiting.push_back(request);
        Ok(())
    }

    /// The state was replaced: what was delivered meanwhile was not seen.
    pub(super) fn blur(&mut self) {
        let all = self.open.values_mut().chain(self.back.values_mut());
        all.for_each(|request| request.blurred = true);
    }

    /// This server stands in `epoch`. What was handed back from an earlier one and was not
    /// delivered is dead, and comes out together with what has waited, oldest first.
    pub(super) fn revive(&mut self, epoch: Epoch) -> Vec<Request> {
        let dead = self.back.extract_if(.., |_, request| request.epoch < epoch);
        let mut revived: Vec<Request> = dead.map(|(_, request)| request).collect();
        revived.extend(self.waiting.drain(..));
        revived
    }

    /// True if the leader is to be asked for a flush, which tells what became of what was handed
    /// back: once for all of it.
    pub(super) fn asks_fates(&mut self) -> bool {
        let asks = !self.back.is_empty() && !self.fates_asked;
        self.fates_asked |= asks;
        asks
    }

    /// This flush is complete: what was handed back of the requests before it is dead.
    pub(super) fn flushed(&mut self, flush: RequestId, who: &Who) -> Vec<Request> {
        self.fates_asked &= !matches!(who, Who::Fates);
        let dead = self.back.extract_if(..flush, |_, _| true);
        dead.map(|(_, request)| request).collect()
    }

    /// What has waited for a leader, or for room at it.
    pub(super) fn waiting(&mut self) -> VecDeque<Request> {
        std::mem::take(&mut self.waiting)
    }

    /// What clients have waited for too long.
    pub(super) fn overdue(&mut self, now: Millis) -> Vec<Request> {
        let late = |request: &Request| {
            request.is_of_client() && now.since(request.since) >= Millis(WAIT_MS_MAX)
        };
        if !self.back.values().any(late) && !self.waiting.iter().any(late) {
            return Vec::new();
        }
        let late_back = self.back.extract_if(.., |_, request| late(request));
        let mut overdue: Vec<Request> = late_back.map(|(_, request)| request).collect();
        for request in std::mem::take(&mut self.waiting) {
            if late(&request) {
                overdue.push(request);
            } else {
                self.waiting.push_back(request);
            }
        }
        overdue
    }

    /// True if somebody waits for a leader.
    pub(super) fn anybody_waits(&self) -> bool {
        !self.back.is_empty() || !self.waiting.is_empty()
    }

    /// How many have been asked and not answered.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.back.len() + self.waiting.len()
    }
}

/// Requests of clients that may wait for a leader.
const WAITING_MAX: usize = 16_384;
/// How long a client's request waits for a leader before it is refused, milliseconds: longer
/// than a change of leader takes.
pub(super) const WAIT_MS_MAX: u64 = 3_000;
