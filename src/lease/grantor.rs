//! The leader's side: whom a lease is granted, and whose sessions are orphaned.

use std::collections::BTreeMap;

use super::{Grant, Plant, Plants, Renew, orphan_wait};
use crate::time::Millis;
use crate::types::{Incarnation, ServerId, Zxid};

/// A run of a server, as sessions name their owner.
pub type Owned = (ServerId, Incarnation);

/// What a leader knows of the leases, from its establishment to its end; each establishment has
/// one of its own. The clock that its methods are given is that of the server that leads.
///
/// The driver owes it this: when [`Grantor::wants_round`], it begins a round that a quorum can
/// confirm only as long as this server leads, says so *at once* with [`Grantor::round_begun`],
/// and later either [`Grantor::round_passed`] or [`Grantor::round_lost`]; and it sends what
/// [`Grantor::grants`] returns.
#[derive(Clone, Debug)]
pub struct Grantor {
    lease: Millis,
    plants: Plants,
    /// When this leader was established, or began to listen anew: T₀.
    since: Millis,
    /// What was heard of each server since.
    heard: BTreeMap<ServerId, Heard>,
    /// Renewals that no round has begun for.
    waiting: BTreeMap<ServerId, Renew>,
    /// The round that runs, and what it will prove; one at a time.
    round: Option<(u64, BTreeMap<ServerId, Renew>)>,
    /// Renewals that may be granted, unless expiries are undecided.
    proven: BTreeMap<ServerId, Renew>,
    /// How many proposals to expire sessions of an owner are undecided, if any.
    expiring: BTreeMap<Owned, u32>,
}

impl Grantor {
    /// The grantor of a leader that was established at `now`, for leases of `lease`.
    #[must_use]
    pub fn new(now: Millis, lease: Millis) -> Grantor {
        Grantor {
            lease,
            plants: Plants::NONE,
            since: now,
            heard: BTreeMap::new(),
            waiting: BTreeMap::new(),
            round: None,
            proven: BTreeMap::new(),
            expiring: BTreeMap::new(),
        }
    }

    /// The same with faults planted in it.
    #[must_use]
    pub fn planted(self, plants: Plants) -> Grantor {
        Grantor { plants, ..self }
    }

    /// `from` asks for a lease; `recorded` is the run of it that the replicated state records.
    /// Another run than that is not granted anything: false.
    pub fn on_renew(
        &mut self,
        now: Millis,
        from: ServerId,
        renew: Renew,
        recorded: Option<Incarnation>,
    ) -> bool {
        if recorded != Some(renew.incarnation) {
            return false;
        }
        if !self.plants.has(Plant::ForgetsRenewals) {
            self.note(now, (from, renew.incarnation));
        }
        if self.plants.has(Plant::GrantWithoutRound) {
            self.proven.insert(from, renew);
        } else if self.plants.has(Plant::GrantByEarlierRound)
            && let Some((_, asked)) = &mut self.round
        {
            asked.insert(from, renew);
        } else {
            self.waiting.insert(from, renew);
        }
        true
    }

    /// A session that `owner` has from now on was delivered: by a join, a move or an adoption.
    pub fn on_assigned(&mut self, now: Millis, owner: Owned) {
        if !self.plants.has(Plant::ForgetsAssigned) {
            self.note(now, owner);
        }
    }

    /// True if a round should begin: somebody waits for one, and none runs.
    #[must_use]
    pub fn wants_round(&self) -> bool {
        self.round.is_none() && !self.waiting.is_empty()
    }

    /// A round has just begun, after everything that was heard so far.
    ///
    /// # Panics
    /// If another one runs.
    pub fn round_begun(&mut self, token: u64) {
        let running = self.round.as_ref().map(|(token, _)| *token);
        assert_eq!(running, None, "round {token} begins before this is done");
        self.round = Some((token, std::mem::take(&mut self.waiting)));
    }

    /// A quorum has confirmed the round `token`. One that does not run says nothing.
    pub fn round_passed(&mut self, token: u64) {
        if let Some((_, asked)) = self.round.take_if(|(running, _)| *running == token) {
            self.proven.extend(asked);
        }
    }

    /// The round `token` will never be confirmed; another is wanted for who waited for it.
    pub fn round_lost(&mut self, token: u64) {
        if let Some((_, asked)) = self.round.take_if(|(running, _)| *running == token) {
            for (server, renew) in asked {
                self.waiting.entry(server).or_insert(renew);
            }
        }
    }

    /// The grants to send now. `applied` is the last transaction that this server has applied;
    /// all that was committed when the round of a grant began must be among what is applied.
    ///
    /// An owner gets none while an expiry of its sessions is undecided: it might promise to keep
    /// a session that the same moment ends. It gets it as soon as the expiry is applied here, as
    /// the owner then has to apply it first.
    pub fn grants(&mut self, applied: Zxid) -> Vec<(ServerId, Grant)> {
        let mut grants = Vec::new();
        let (expiring, plants) = (&self.expiring, self.plants);
        self.proven.retain(|server, renew| {
            let Renew { incarnation, n } = *renew;
            let undecided = expiring.contains_key(&(*server, incarnation));
            if undecided && !plants.has(Plant::GrantDuringExpiry) {
                return true;
            }
            let grant = Grant {
                incarnation,
                n,
                applied,
            };
            grants.push((*server, grant));
            false
        });
        grants
    }

    /// Those of `owners` that have been silent for so long that a session of theirs with the
    /// timeout `shortest` may be expired: it is time to look for such.
    pub fn lost(
        &self,
        now: Millis,
        owners: impl Iterator<Item = Owned>,
        shortest: Millis,
    ) -> Vec<Owned> {
        owners
            .filter(|owner| self.due(now, *owner, shortest))
            .collect()
    }

    /// True if a session of `owner` with the timeout `timeout` may be expired at `now`.
    #[must_use]
    pub fn due(&self, now: Millis, owner: Owned, timeout: Millis) -> bool {
        let wait = if self.plants.has(Plant::OrphansWithoutLease) {
            orphan_wait(timeout, Millis(0))
        } else if self.plants.has(Plant::OrphansWithoutDrift) {
            timeout + self.lease
        } else {
            orphan_wait(timeout, self.lease)
        };
        now >= self.base(owner) + wait
    }

    /// When `owner` was last heard of, at the latest: nothing that it promises by what it has
    /// now lasts longer than if it had been granted a lease then. It only grows; a list of
    /// orphans that was made under an earlier base is void.
    #[must_use]
    pub fn base(&self, owner: Owned) -> Millis {
        let (server, incarnation) = owner;
        let since = if self.plants.has(Plant::ForgetsEstablishment) {
            Millis(0)
        } else {
            self.since
        };
        let Some(heard) = self.heard.get(&server) else {
            return since;
        };
        since.max(match incarnation.cmp(&heard.incarnation) {
            std::cmp::Ordering::Less => heard.earlier,
            std::cmp::Ordering::Equal => heard.at,
            std::cmp::Ordering::Greater => Millis(0),
        })
    }

    /// An expiry of sessions of `owner` is proposed now.
    pub fn expiry_proposed(&mut self, owner: Owned) {
        *self.expiring.entry(owner).or_default() += 1;
    }

    /// An expiry of sessions of `owner` has been decided, and applied here.
    ///
    /// # Panics
    /// If none was undecided.
    pub fn expiry_settled(&mut self, owner: Owned) {
        let undecided = self.expiring.get_mut(&owner);
        let undecided = undecided.expect("an expiry is settled after it was proposed");
        *undecided -= 1;
        if *undecided == 0 {
            self.expiring.remove(&owner);
        }
    }

    /// This server was not run for a while, and has heard now what there was to hear: who was
    /// silent meanwhile may have spoken and not been heard, and is waited for anew.
    pub fn rebase(&mut self, now: Millis) {
        self.since = self.since.max(now);
    }

    fn note(&mut self, now: Millis, (server, incarnation): Owned) {
        let heard = self.heard.entry(server).or_insert(Heard {
            incarnation,
            at: now,
            earlier: Millis(0),
        });
        if incarnation < heard.incarnation {
            heard.earlier = heard.earlier.max(now);
            return;
        }
        if incarnation > heard.incarnation {
            if !self.plants.has(Plant::ForgetsEarlierRuns) {
                heard.earlier = heard.earlier.max(heard.at);
            }
            heard.incarnation = incarnation;
        }
        heard.at = heard.at.max(now);
    }
}

/// When a server was last heard of.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The newest run that was heard of.
    incarnation: Incarnation,
    /// The last that was heard of it.
    at: Millis,
    /// The last that was heard of any run before it: one number for all of them, so that a
    /// server that starts again and again needs no more room.
    earlier: Millis,
}
