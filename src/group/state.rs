//! The state itself: what all servers agree on, the leader's first look at a request, and
//! the questions that are answered from what is applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::codec::Corrupt;
use super::document::Document;
use super::feed::Rank;
use super::in_flight::InFlight;
use super::members::{Entry, NameBuf, Spot};
use super::ordered::{Ordered, Pos};
use super::plant::Plants;
use super::record::{ConfigView, Group, GroupSummary, Tombstone};
use super::request::{Decision, Joined, Outcome, Refusal, Request, Session, Status, Verdict};
use super::runs::Runs;
use super::snapshot::Snapshot;
use super::txn::{JoinTxn, Target, Txn};
use super::{GROUPS_MAX, MEMBERS_MAX, TOMBSTONES_MAX};
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId, Zxid};

/// What a server brings along; nothing of it is replicated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The timeout of a new session whose client named none. It travels in the transaction,
    /// so servers may differ in it.
    pub default_timeout: Millis,
    /// Random keys for hashing names that clients choose.
    pub seeds: [u64; 4],
}

/// All groups, and what is needed to go on from here.
///
/// Calls come in any order. `preprocess` is the leader's; `apply` is everyone's, in the
/// order of zxids. The state after a transaction depends on the transactions alone, so
/// equal prefixes give equal [`State::digest`]s.
pub struct State {
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    /// The last transaction applied.
    pub(super) applied: Zxid,
    /// When the ensemble was founded; `None` before the genesis transaction.
    pub(super) birth_s: Option<u32>,
    /// The session created last: no id above it was ever issued.
    pub(super) newest: SessionId,
    /// The version of the config written last, of all groups and members.
    pub(super) config_version: u64,
    pub(super) groups: Ordered<Arc<Group>>,
    /// Members of all groups, active or not.
    pub(super) members: u64,
    pub(super) tombstones: Ordered<Tombstone>,
    /// The names in `tombstones` by the transaction that removed them.
    pub(super) tombstone_ages: BTreeMap<Zxid, Arc<[u8]>>,
    /// The recorded run of each server, and how many sessions each run owns.
    pub(super) runs: Runs,
    pub(super) in_flight: InFlight,
    /// Where leaves are put together.
    pub(super) scratch: Vec<u8>,
    /// None outside tests and the simulator.
    pub(super) plants: Plants,
}

impl State {
    /// The state before the first transaction.
    #[must_use]
    pub fn new(settings: Settings) -> State {
        State {
            settings,
            limits: Limits::STANDARD,
            applied: Zxid::ZERO,
            birth_s: None,
            newest: SessionId::default(),
            config_version: 0,
            groups: Ordered::default(),
            members: 0,
            tombstones: Ordered::default(),
            tombstone_ages: BTreeMap::new(),
            runs: Runs::default(),
            in_flight: InFlight::new(settings.seeds),
            scratch: Vec::new(),
            plants: Plants::NONE,
        }
    }

    /// Remembers so many removed groups at most.
    #[cfg(test)]
    pub(crate) fn remember_removed(&mut self, groups: usize) {
        self.limits.tombstones = groups;
    }

    /// Plants faults.
    #[cfg(any(test, feature = "sim"))]
    pub fn plant(&mut self, plants: Plants) {
        self.plants = plants;
    }

    /// The leader's look at a request: what changes nothing is answered at once, the rest
    /// becomes a transaction in `txn`, which is emptied first.
    ///
    /// An answer is given only if no proposal under way could change it. After `Propose`
    /// the caller broadcasts the transaction and applies it in its turn; if it will not,
    /// it calls [`State::abandon_in_flight`].
    ///
    /// The same as [`State::encode`] and [`State::decide`] one after the other.
    ///
    /// # Panics
    /// See [`State::encode`].
    pub fn preprocess(&mut self, request: &Request, txn: &mut Vec<u8>) -> Decision {
        txn.clear();
        let parsed = match Txn::of(request, self.settings.default_timeout) {
            Ok(parsed) => parsed,
            Err(refusal) => return Decision::Answer(Outcome::Refused(refusal)),
        };
        let decision = self.decide_on(&parsed);
        if decision == Decision::Propose {
            parsed.encode(txn);
        }
        decision
    }

    /// Appends the transaction that carries out `request` to `out`. Every limit is held to
    /// here, and the state is not looked at: this may be done on another server than
    /// [`State::decide`].
    ///
    /// # Errors
    /// The refusal to answer with; then nothing is appended.
    ///
    /// # Panics
    /// If a request names more than `EXPIRE_BATCH_MAX` sessions.
    pub fn encode(&self, request: &Request, out: &mut Vec<u8>) -> Result<(), Refusal> {
        Txn::of(request, self.settings.default_timeout)?.encode(out);
        Ok(())
    }

    /// The leader's look at a transaction that some server made by [`State::encode`]: either
    /// it is to be broadcast, these very bytes, and is now counted as under way, or it
    /// changes nothing. Who asked for it finds the answer with [`State::idle_outcome`].
    ///
    /// # Errors
    /// `Corrupt` if the bytes are no transaction; they must not be broadcast.
    pub fn decide(&mut self, txn: &[u8]) -> Result<Verdict, Corrupt> {
        Ok(self.decide_on(&Txn::decode(txn)?).verdict())
    }

    /// As [`State::decide`], for a transaction of which its server believes that it is the join
    /// of a new member: that is broadcast without a look for the member, which would cost as
    /// much as the join itself. If the member is active after all, the transaction changes
    /// nothing, or renews it, when it is applied.
    ///
    /// # Errors
    /// As there.
    pub fn decide_fresh(&mut self, txn: &[u8]) -> Result<Verdict, Corrupt> {
        let txn = Txn::decode(txn)?;
        if let Txn::Join(join) = &txn
            && !join.only_if_absent
            && self.has_room_for(join)
        {
            self.in_flight.register(&txn);
            return Ok(Verdict::Propose);
        }
        Ok(self.decide_on(&txn).verdict())
    }

    /// The outcome of a transaction, if it would change nothing here and now: for a server
    /// that was told so by the leader and has applied as much as the leader had.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are no transaction.
    pub fn idle_outcome(&self, txn: &[u8]) -> Result<Option<Outcome>, Corrupt> {
        Ok(self.idle(&Txn::decode(txn)?))
    }

    fn decide_on(&mut self, txn: &Txn<'_>) -> Decision {
        if !self.in_flight.touches(txn)
            && let Some(outcome) = self.idle(txn)
        {
            return Decision::Answer(outcome);
        }
        self.in_flight.register(txn);
        Decision::Propose
    }

    /// Forgets all proposals under way. To be called when this server ceases to lead, and
    /// when it begins to, after applying what earlier leaders left.
    pub fn abandon_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// Takes back a [`Decision::Propose`] that did not become a proposal; `txn` is what was
    /// to be broadcast.
    pub fn withdraw(&mut self, txn: &[u8]) {
        if let Ok(txn) = Txn::decode(txn) {
            self.in_flight.release(&txn);
        }
    }

    /// The session created last: no id above it was ever issued.
    #[must_use]
    pub fn newest(&self) -> SessionId {
        self.newest
    }

    /// The last transaction applied; `Zxid::ZERO` before the first.
    #[must_use]
    pub fn applied(&self) -> Zxid {
        self.applied
    }

    /// When the ensemble was founded, in seconds since 1970; `None` before that.
    #[must_use]
    pub fn birth_s(&self) -> Option<u32> {
        self.birth_s
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups_len(&self) -> usize {
        self.groups.len()
    }

    /// How many members all groups have together, active or not.
    #[must_use]
    pub fn members_len(&self) -> u64 {
        self.members
    }

    /// Where the group stands in its life; [`Rank::NOTHING`] if nothing is known of it.
    #[must_use]
    pub fn rank(&self, group: &[u8]) -> Rank {
        if let Some(version) = self.version(group) {
            return Rank::of(version);
        }
        let removed = self.tombstones.find(group);
        removed.map_or(Rank::NOTHING, |pos| {
            Rank::removed(self.tombstones.at(pos).version)
        })
    }

    /// The version of a group.
    #[must_use]
    pub fn version(&self, group: &[u8]) -> Option<GroupVersion> {
        self.group(group).map(|group| group.version)
    }

    /// What a beat for the member deserves that names the session `id`, or none.
    ///
    /// A session that is not the member's is `Gone` if its id may have been issued, which
    /// is so for every id up to the newest.
    #[must_use]
    pub fn status(&self, group: &[u8], member: &[u8], id: Option<SessionId>) -> Status {
        match (self.session(group, member), id) {
            (Some(session), Some(id)) if session.id != id => Status::OtherSession,
            (Some(session), _) => Status::Active(session),
            (None, Some(id)) if id <= self.newest => Status::Gone,
            (None, _) => Status::NotFound,
        }
    }

    /// The session of an active member.
    #[must_use]
    pub fn session(&self, group: &[u8], member: &[u8]) -> Option<Session> {
        let group = self.group(group)?;
        let spot = group.members.find(member);
        self.session_of(group.members.get(&spot))
    }

    /// The config of a member, or of the group itself.
    #[must_use]
    pub fn config(&self, group: &[u8], member: Option<&[u8]>) -> Option<ConfigView<'_>> {
        let group = self.group(group)?;
        match member {
            None => group.config.as_deref().map(|config| config.view()),
            Some(member) => group.members.get(&group.members.find(member))?.config(),
        }
    }

    /// A handle on the group's document as it is now; takes no time and holds no lock.
    #[must_use]
    pub fn document(&self, group: &[u8]) -> Option<Document> {
        let pos = self.groups.find(group)?;
        Some(Document::new(Arc::clone(self.groups.at(pos))))
    }

    /// At most `limit` groups in order of their names, from the first after `after`.
    pub fn list(
        &self,
        after: Option<&[u8]>,
        limit: usize,
    ) -> impl Iterator<Item = GroupSummary<'_>> {
        let from = match after {
            None => self.groups.first(),
            Some(name) => self.groups.above(name),
        };
        let groups = self.groups.iter_from(from);
        groups.take(limit).map(|group| group.summary())
    }

    /// Calls `each` for every active member, in order of the names: for a server that has
    /// started and deals the sessions it owns to its shards.
    pub fn for_each_active(&self, mut each: impl FnMut(ActiveSession<'_>)) {
        let mut name = NameBuf::new();
        for group in self.groups.iter() {
            for entry in group.members.iter() {
                if let Some(session) = self.session_of(Some(entry)) {
                    each(ActiveSession {
                        group: &group.name,
                        member: entry.name.whole(&mut name),
                        session,
                    });
                }
            }
        }
    }

    /// The whole state as it is now, to be written while this one goes on. Taking it costs
    /// a reference per hundred groups; afterwards each part is copied when first changed.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }

    /// A number that is equal for equal states: a hash of the snapshot's bytes. Takes as
    /// long as writing one.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.snapshot().digest()
    }

    /// The outcome of a transaction that would change nothing if it were applied now.
    pub(super) fn idle(&self, txn: &Txn<'_>) -> Option<Outcome> {
        match txn {
            Txn::Genesis { .. } => self.birth_s.map(|birth_s| Outcome::Founded { birth_s }),
            Txn::Join(join) => self.idle_join(join, &self.find_member(join)),
            Txn::Leave {
                group,
                member,
                session,
            } => match self.status(group, member, *session) {
                Status::Active(_) => None,
                Status::NotFound => refused(Refusal::NotFound),
                Status::Gone => refused(Refusal::Gone),
                Status::OtherSession => refused(Refusal::OtherSession),
            },
            Txn::SetConfig {
                target, require, ..
            } => {
                let current = self.config_of(target);
                if !require.holds(current.map(|c| c.version)) {
                    return refused(Refusal::PreconditionFailed);
                }
                self.room_for(target.group, target.member)
                    .err()
                    .and_then(refused)
            }
            Txn::DeleteConfig { target, require } => match self.config_of(target) {
                None => refused(Refusal::NotFound),
                Some(config) if !require.holds(Some(config.version)) => {
                    refused(Refusal::PreconditionFailed)
                }
                Some(_) => None,
            },
            Txn::DeleteGroup { group } => match self.group(group) {
                None => refused(Refusal::NotFound),
                Some(group) if group.active > 0 => refused(Refusal::GroupActive),
                Some(_) => None,
            },
            Txn::Expire(lapses) => lapses.is_empty().then(|| Outcome::Expired {
                ended: 0,
                stale: Vec::new(),
            }),
            Txn::Move { to, lapses } => {
                let idle = lapses.is_empty() || !self.is_recorded(*to);
                idle.then(|| Outcome::Moved {
                    moved: 0,
                    stale: lapses.iter().map(|lapse| lapse.id).collect(),
                })
            }
            Txn::Adopt(adopt) if self.may_adopt(adopt) => None,
            Txn::Adopt(_) => refused(Refusal::StaleOwner),
        }
    }

    /// Where the joining member is or belongs, if its group is there.
    pub(super) fn find_member(&self, join: &JoinTxn<'_>) -> Option<(Pos, Spot)> {
        let pos = self.groups.find(join.group)?;
        Some((pos, self.groups.at(pos).members.find(join.member)))
    }

    /// [`State::idle`] for a join, whose member was `found`.
    pub(super) fn idle_join(
        &self,
        join: &JoinTxn<'_>,
        found: &Option<(Pos, Spot)>,
    ) -> Option<Outcome> {
        let founded = self.birth_s.is_some();
        if !founded || !self.is_recorded((join.owner, join.incarnation)) {
            return refused(Refusal::StaleOwner);
        }
        let found = found
            .as_ref()
            .map(|(pos, spot)| (self.groups.at(*pos), spot));
        let entry = found.and_then(|(group, spot)| group.members.get(spot));
        let (Some((group, _)), Some(entry)) = (found, entry) else {
            return self
                .room_for(join.group, Some(join.member))
                .err()
                .and_then(refused);
        };
        let session = self.session_of(Some(entry))?;
        if join.only_if_absent {
            return refused(Refusal::PreconditionFailed);
        }
        let same = !join.takeover && join.renewed(session) == Some(session) && !join.writes(&entry);
        same.then(|| Outcome::Joined(joined(session, false, group.version)))
    }

    /// True if any member can be joined by this owner.
    fn has_room_for(&self, join: &JoinTxn<'_>) -> bool {
        self.birth_s.is_some()
            && self.is_recorded((join.owner, join.incarnation))
            && self.is_roomy()
    }

    /// True if there is room for any group and any member.
    fn is_roomy(&self) -> bool {
        self.groups.len() < self.limits.groups && self.members < self.limits.members
    }

    /// Whether the group and the member exist or may still be added.
    pub(super) fn room_for(&self, group: &[u8], member: Option<&[u8]>) -> Result<(), Refusal> {
        if self.is_roomy() {
            return Ok(());
        }
        let group = self.group(group);
        if group.is_none() && self.groups.len() >= self.limits.groups {
            return Err(Refusal::GroupsFull);
        }
        let Some(member) = member else {
            return Ok(());
        };
        let known = group.is_some_and(|g| g.members.get(&g.members.find(member)).is_some());
        if !known && self.members >= self.limits.members {
            return Err(Refusal::MembersFull);
        }
        Ok(())
    }

    pub(super) fn find(&self, group: &[u8]) -> Option<Pos> {
        self.groups.find(group)
    }

    pub(super) fn group(&self, group: &[u8]) -> Option<&Group> {
        Some(self.groups.at(self.groups.find(group)?))
    }

    pub(super) fn session_of(&self, entry: Option<Entry<'_>>) -> Option<Session> {
        entry?.session(self.birth_s?)
    }

    fn config_of(&self, target: &Target<'_>) -> Option<ConfigView<'_>> {
        self.config(target.group, target.member)
    }
}

impl JoinTxn<'_> {
    /// The active member's session as a renewal leaves it. A member renewed at another
    /// server, or at the same after a restart, has settled there: the session moves. `None`
    /// if it has no term left for that; the join then makes a new session, as a takeover
    /// does.
    pub(super) fn renewed(&self, session: Session) -> Option<Session> {
        let here = (self.owner, self.incarnation);
        let mut renewed = match session.run() == here {
            true => session,
            false => session.given_to(here)?,
        };
        if !self.keep_timeout {
            renewed.timeout = self.timeout;
        }
        Some(renewed)
    }

    /// Whether the join writes a config that differs from the one there is. A client that
    /// joins again with what it joined with must cost no transaction.
    pub(super) fn writes(&self, entry: &Entry<'_>) -> bool {
        self.config
            .is_some_and(|new| entry.config().is_none_or(|old| old.bytes != new.bytes))
    }
}

/// An active member, as [`State::for_each_active`] and [`State::scan_owner`] show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveSession<'a> {
    /// The member's group.
    pub group: &'a [u8],
    /// The member.
    pub member: &'a [u8],
    /// Its session.
    pub session: Session,
}

/// The limits in force; tests lower them.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) groups: usize,
    pub(super) members: u64,
    pub(super) tombstones: usize,
}

impl Limits {
    const STANDARD: Limits = Limits {
        groups: GROUPS_MAX,
        members: MEMBERS_MAX,
        tombstones: TOMBSTONES_MAX,
    };
}

pub(super) fn joined(session: Session, created: bool, version: GroupVersion) -> Joined {
    Joined {
        session: session.id,
        term: session.term,
        timeout: session.timeout,
        created,
        version,
    }
}

fn refused(refusal: Refusal) -> Option<Outcome> {
    Some(Outcome::Refused(refusal))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
