//! The owner's side: how long this server may promise anything.

use std::collections::VecDeque;

use super::{Grant, Plant, Plants, Renew, period};
use crate::time::Millis;
use crate::types::{Incarnation, Zxid};

/// The leases of one run of a server.
///
/// It begins without one. The clock that all of its methods are given is this server's own.
/// Invariant: renewals are kept in the order in which they were sent, by number and by time.
#[derive(Clone, Debug)]
pub struct Owner {
    lease: Millis,
    plants: Plants,
    /// This run, once it is recorded; nothing is asked for before.
    incarnation: Option<Incarnation>,
    /// Number of the newest renewal.
    n: u64,
    /// When to renew next.
    due: Millis,
    /// Renewals that may still give a lease: at most [`RENEWALS_MAX`], without the oldest if
    /// more are sent.
    renewals: VecDeque<Renewal>,
    until: Millis,
}

impl Owner {
    /// An owner of an ensemble whose leases last `lease`, which holds none.
    #[must_use]
    pub fn new(lease: Millis) -> Owner {
        Owner {
            lease,
            plants: Plants::NONE,
            incarnation: None,
            n: 0,
            due: Millis(u64::MAX),
            renewals: VecDeque::new(),
            until: Millis(0),
        }
    }

    /// The owner of an ensemble of one: nobody else could expire anything, so its lease has no
    /// end and needs no renewal.
    #[must_use]
    pub fn forever() -> Owner {
        Owner {
            until: Millis(u64::MAX),
            ..Owner::new(Millis(u64::MAX))
        }
    }

    /// The same with faults planted in it.
    #[must_use]
    pub fn planted(self, plants: Plants) -> Owner {
        Owner { plants, ..self }
    }

    /// This run is recorded as `incarnation`: leases are asked for from now on.
    ///
    /// # Panics
    /// If it was recorded as another one before: a run has one incarnation.
    pub fn begin(&mut self, incarnation: Incarnation) {
        let before = self.incarnation.replace(incarnation);
        assert!(
            before.is_none_or(|before| before == incarnation),
            "this run was {before:?} and is {incarnation:?} now"
        );
        self.hurry();
    }

    /// The next renewal is due at once: there is another leader, or this server was not run for
    /// longer than [`super::pause`].
    pub fn hurry(&mut self) {
        if self.incarnation.is_some() && !self.is_forever() {
            self.due = Millis(0);
        }
    }

    /// A renewal, if one is due, to be sent to the leader *after* `now` was read. One that
    /// cannot be sent is no harm; the next is due a period later.
    pub fn renew(&mut self, now: Millis) -> Option<Renew> {
        let incarnation = self.incarnation?;
        if now < self.due {
            return None;
        }
        self.due = now + period(self.lease);
        self.n += 1;
        if self.renewals.len() == RENEWALS_MAX {
            self.renewals.pop_front();
        }
        self.renewals.push_back(Renewal {
            n: self.n,
            sent: now,
            granted: None,
        });
        let n = self.n;
        Some(Renew { incarnation, n })
    }

    /// The leader grants a renewal. It counts from [`Owner::on_applied`] on.
    ///
    /// The grant of a leader that has been deposed since counts like any other: the leaders
    /// after it wait for what may have been promised by it.
    pub fn on_grant(&mut self, grant: Grant) {
        if self.incarnation != Some(grant.incarnation) {
            return;
        }
        let newest = self.renewals.back().map(|renewal| renewal.sent);
        let asked = self.renewals.iter_mut().find(|asked| asked.n == grant.n);
        let Some(renewal) = asked else {
            return;
        };
        renewal.granted = Some(grant.applied);
        if self.plants.has(Plant::CountsFromNewest) {
            renewal.sent = newest.unwrap_or(renewal.sent);
        }
    }

    /// This server has applied all transactions up to `applied`, and let go of every session
    /// that they ended or gave away. The end of the lease on this server's clock if that, or a
    /// grant since the last call, makes it later.
    pub fn on_applied(&mut self, applied: Zxid) -> Option<Millis> {
        let early = self.plants.has(Plant::GrantWithoutApplied);
        let counts = |renewal: &Renewal| renewal.granted.is_some_and(|c| c <= applied || early);
        let newest = self.renewals.iter().rposition(counts)?;
        let sent = self.renewals[newest].sent;
        // What was asked for earlier lasts no longer.
        self.renewals.drain(..=newest);
        let until = sent + self.lease;
        (until > self.until).then(|| {
            self.until = until;
            until
        })
    }

    /// The end of the lease: nothing is promised at a clock of this or later.
    #[must_use]
    pub fn until(&self) -> Millis {
        self.until
    }

    /// When the next renewal is due; `Millis(u64::MAX)` for never.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        self.due
    }

    fn is_forever(&self) -> bool {
        self.until == Millis(u64::MAX)
    }
}

/// A renewal that was sent.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    n: u64,
    /// The clock before it was sent: t_n.
    sent: Millis,
    /// What has to be applied for it to count, once it was granted.
    granted: Option<Zxid>,
}

/// Renewals that are remembered. Twelve are sent while a lease lasts; those that are older are
/// of no use, and more come only if leaders change at a rate at which none of them grants any.
const RENEWALS_MAX: usize = 32;
