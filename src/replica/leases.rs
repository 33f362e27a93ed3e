//! The promise: this server's lease, and at the leader those of all owners.

use super::requests::{Orphaned, Who};
use super::{Plant, Replica, epoch_of};
use crate::group::Request;
use crate::lease::{Grantor, Message as Letter, Owner};
use crate::mail::Tell;
use crate::time::Millis;
use crate::types::ServerId;
use crate::zab::Standing;

impl Replica {
    /// Every session of this server is dealt: from now on it may promise, as soon as it has
    /// been granted a lease.
    pub(super) fn begin_lease(&mut self) {
        if let Some(incarnation) = self.own.settled() {
            if !self.alone {
                self.lease = Owner::new(self.settings.lease).planted(self.plants.1);
            }
            self.lease.begin(incarnation);
        }
        if self.alone {
            self.serve();
            let until = self.lease.until();
            self.publisher.tell_all(|| Tell::Lease { until });
        }
    }

    /// The leader begins to grant, or a server that leads no more ceases to.
    pub(super) fn stand_as_grantor(&mut self, now: Millis, standing: &Standing) {
        match standing {
            Standing::Leading { .. } if self.alone => {}
            Standing::Leading { .. } => {
                let grantor = Grantor::new(now, self.settings.lease);
                self.grantor = Some(grantor.planted(self.plants.1));
            }
            Standing::Following { .. } | Standing::Recovering => self.grantor = None,
        }
        self.orphans.clear();
        self.lease.hurry();
    }

    /// Asks for this server's lease and confirms those of others, if that is due; true if the
    /// node was asked for something.
    pub(super) fn carry_leases(&mut self, now: Millis) -> bool {
        let mut asked = false;
        if self.stands()
            && self.own.settled().is_some()
            && let Some(renew) = self.lease.renew(now)
        {
            asked |= self.node.send(None, &Letter::Renew(renew).encode());
        }
        if let Some(grantor) = &mut self.grantor
            && grantor.wants_round()
            && let Ok(token) = self.node.confirm(now)
        {
            grantor.round_begun(token);
            asked = true;
        }
        asked | self.send_grants()
    }

    /// A round of pings that was asked for has been answered by a quorum.
    pub(super) fn on_confirmed(&mut self, token: u64) {
        if let Some(grantor) = &mut self.grantor {
            grantor.round_passed(token);
        }
    }

    /// Sends the grants that may be sent now.
    fn send_grants(&mut self) -> bool {
        let applied = self.node.applied();
        let Some(grantor) = &mut self.grantor else {
            return false;
        };
        let grants = grantor.grants(applied);
        for (server, grant) in &grants {
            let to = (*server != self.settings.id).then_some(*server);
            self.node.send(to, &Letter::Grant(*grant).encode());
        }
        !grants.is_empty()
    }

    /// Another replica, or this one as the leader, has sent a letter.
    pub(super) fn on_letter(&mut self, now: Millis, from: ServerId, bytes: &[u8]) {
        match Letter::decode(bytes) {
            Ok(Letter::Renew(renew)) => {
                let recorded = self.state().incarnation_of(from);
                if let Some(grantor) = &mut self.grantor {
                    grantor.on_renew(now, from, renew, recorded);
                }
            }
            Ok(Letter::Grant(grant)) => self.lease.on_grant(grant),
            Err(_) => self.counters.garbled.add(1),
        }
    }

    /// Makes use of a grant whose transactions have been applied here by now.
    pub(super) fn take_up_lease(&mut self) {
        let applied = self.node.applied();
        let Some(until) = self.lease.on_applied(applied) else {
            return;
        };
        if self.own.settled().is_some() {
            self.serve();
            // Behind everything that was told of what the grant rests on.
            self.publisher.tell_all(|| Tell::Lease { until });
        }
    }

    /// The expiry of sessions whose owner is lost has met its fate. What an earlier reign of this
    /// server proposed is none of the present one's.
    pub(super) fn on_orphans_expired(&mut self, orphaned: Orphaned) {
        let ours = epoch_of(&self.standing) == Some(orphaned.epoch);
        if (ours || self.lacks(Plant::SettlesForAnyReign))
            && let Some(grantor) = &mut self.grantor
        {
            grantor.expiry_settled((orphaned.server, orphaned.incarnation));
        }
    }

    /// Expires sessions of lost owners whose clients have not moved in time.
    pub(super) fn tick_orphans(&mut self, now: Millis) -> bool {
        let Some(grantor) = &mut self.grantor else {
            return false;
        };
        if now.since(self.orphans_looked) < ORPHANS_LOOK {
            return false;
        }
        self.orphans_looked = now;
        let state = &self.node.app().state;
        let owners = state
            .owners()
            .map(|(server, incarnation, _)| (server, incarnation));
        let lost = grantor.lost(now, owners, self.settings.min_timeout);
        self.orphans.retain(&lost);
        let mut asked = false;
        for (server, incarnation) in lost {
            let owner = (server, incarnation);
            let due = |timeout| grantor.due(now, owner, timeout);
            let batch = self.orphans.due(state, owner, grantor.base(owner), due);
            if batch.is_empty() {
                continue;
            }
            grantor.expiry_proposed(owner);
            self.counters.orphans.add(batch.len() as u64);
            asked = true;
            self.orphan_batches.push((server, incarnation, batch));
        }
        for (server, incarnation, batch) in std::mem::take(&mut self.orphan_batches) {
            let orphaned = Orphaned {
                server,
                incarnation,
                epoch: epoch_of(&self.standing).unwrap_or_default(),
            };
            self.submit_own(now, &Request::Expire(batch), Who::Orphans(orphaned));
        }
        asked
    }
}

/// How often the leader looks for sessions whose owner is lost.
pub(super) const ORPHANS_LOOK: Millis = Millis(20);
