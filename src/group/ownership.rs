//! Who owns which session: what a new run adopts, what moves, and the walk over all members,
//! in pieces, that finds the sessions of one owner.

use std::sync::Arc;

use super::members::{Entry, Fate, NameBuf};
use super::ordered::Pos;
use super::plant::Plant;
use super::record::Group;
use super::request::{Applied, Outcome, Place, SessionChange};
use super::state::{ActiveSession, State};
use super::txn::{AdoptTxn, LapseTxn};
use smallvec::SmallVec;

use crate::types::{Incarnation, ServerId, SessionId};

impl State {
    /// The recorded run of a server; `None` if none ever was.
    #[must_use]
    pub fn incarnation_of(&self, server: ServerId) -> Option<Incarnation> {
        self.runs.recorded(server)
    }

    /// The runs that own active sessions, and how many, in ascending order. Costs nothing:
    /// they are counted all along.
    pub fn owners(&self) -> impl Iterator<Item = (ServerId, Incarnation, u64)> {
        self.runs.owners()
    }

    /// Calls `each` for the sessions of one run among the next `limit` members after `after`,
    /// in order of the names. Returns where to go on, or `None` at the end.
    ///
    /// What is not changed between two pieces is seen once; a session that comes to this
    /// owner meanwhile may be missed.
    pub fn scan_owner(
        &self,
        owner: ServerId,
        incarnation: Incarnation,
        after: Option<&Place>,
        limit: usize,
        mut each: impl FnMut(ActiveSession<'_>),
    ) -> Option<Place> {
        let after = after.map(|(group, member)| (&group[..], &member[..]));
        let mut name = NameBuf::new();
        self.walk(after, limit, |group, entry| {
            if entry.owner() == Some((owner, incarnation))
                && let Some(session) = self.session_of(Some(entry))
            {
                each(ActiveSession {
                    group: &group.name,
                    member: entry.name.whole(&mut name),
                    session,
                });
            }
        })
    }

    /// Whether sessions may be given to this run: it is the recorded one of its server.
    pub(super) fn is_recorded(&self, (server, incarnation): (ServerId, Incarnation)) -> bool {
        self.runs.recorded(server) == Some(incarnation)
    }

    /// Whether a piece of an adoption would do anything: the first must record its run, and
    /// the others must find theirs recorded.
    pub(super) fn may_adopt(&self, adopt: &AdoptTxn<'_>) -> bool {
        match adopt.after {
            None => self.runs.may_record(adopt.server, adopt.incarnation),
            Some(_) => self.is_recorded((adopt.server, adopt.incarnation)),
        }
    }

    /// Gives sessions to the run `to`, which `idle` has found recorded.
    pub(super) fn move_sessions(
        &mut self,
        to: (ServerId, Incarnation),
        lapses: &[LapseTxn<'_>],
        out: &mut Applied,
    ) -> Outcome {
        let mut stale = Vec::new();
        for run in lapses.chunk_by(|a, b| a.group == b.group) {
            match self.find(run[0].group).zip(self.birth_s) {
                Some((pos, birth_s)) => self.move_in(pos, birth_s, to, run, &mut stale, out),
                None => stale.extend(run.iter().map(|lapse| lapse.id)),
            }
        }
        Outcome::Moved {
            moved: out.sessions.len() as u32,
            stale,
        }
    }

    /// Moves sessions of one group, whose version stays: a document does not show owners.
    fn move_in(
        &mut self,
        pos: Pos,
        birth_s: u32,
        to: (ServerId, Incarnation),
        run: &[LapseTxn<'_>],
        stale: &mut Vec<SessionId>,
        out: &mut Applied,
    ) {
        let any_term = self.plants.has(Plant::MovesAnyTerm);
        let group = Arc::make_mut(self.groups.at_mut(pos));
        group.members.revise(
            |i| run.get(i).map(|lapse| lapse.member),
            |i, entry| {
                let lapse = &run[i];
                let session = entry.and_then(|e| e.session(birth_s));
                let moved = session
                    .filter(|s| s.id == lapse.id && (s.term == lapse.term || any_term))
                    .filter(|s| s.run() != to)
                    .and_then(|old| Some((old.run(), old.given_to(to)?)));
                let Some((from, session)) = moved else {
                    stale.push(lapse.id);
                    return Fate::Stays;
                };
                self.runs.pass(Some(from), to);
                out.sessions.push(SessionChange {
                    group: Arc::clone(&group.name),
                    member: SmallVec::from_slice(lapse.member),
                    session,
                    created: false,
                    from: Some(from),
                });
                Fate::Becomes(session)
            },
            &mut self.scratch,
        );
    }

    /// Carries out a piece of an adoption that `idle` has let through.
    pub(super) fn adopt(&mut self, adopt: &AdoptTxn<'_>, out: &mut Applied) -> Outcome {
        let to = (adopt.server, adopt.incarnation);
        if adopt.after.is_none() {
            let recorded = self.runs.record(adopt.server, adopt.incarnation);
            assert!(recorded, "`idle` sees to it");
        }
        let mut name = NameBuf::new();
        let next = self.walk(adopt.after, adopt.limit as usize, |group, entry| {
            let owner = entry.owner();
            if owner.is_none_or(|owner| owner.0 != adopt.server || owner == to) {
                return;
            }
            // One whose terms are used up stays where nobody promises for it, and expires.
            let session = self.session_of(Some(entry));
            if let Some((from, session)) = session.and_then(|s| Some((s.run(), s.given_to(to)?))) {
                out.sessions.push(SessionChange {
                    group: Arc::clone(&group.name),
                    member: SmallVec::from_slice(entry.name.whole(&mut name)),
                    session,
                    created: false,
                    from: Some(from),
                });
            }
        });
        for run in out.sessions.chunk_by(|a, b| a.group == b.group) {
            let pos = self.find(&run[0].group).expect("the walk was there");
            let group = Arc::make_mut(self.groups.at_mut(pos));
            let names = |i: usize| run.get(i).map(|change| &change.member[..]);
            let fate = |i: usize, _: Option<Entry<'_>>| Fate::Becomes(run[i].session);
            group.members.revise(names, fate, &mut self.scratch);
            for from in run.iter().filter_map(|change| change.from) {
                self.runs.take(from, 1);
            }
            self.runs.add(to, run.len() as u64);
        }
        Outcome::Adopted {
            incarnation: adopt.incarnation,
            next,
        }
    }

    /// Visits the next members after a place, and says where to go on; `None` at the end.
    ///
    /// A step is a member seen or a group passed on to, so that groups without members cost
    /// their share of `limit`, and every piece gets on by one step at least.
    fn walk<'s>(
        &'s self,
        after: Option<(&[u8], &[u8])>,
        limit: usize,
        mut each: impl FnMut(&'s Group, Entry<'s>),
    ) -> Option<Place> {
        let mut left = limit.max(1);
        let (mut pos, mut member) = match after {
            None => (self.groups.first()?, None),
            Some((group, member)) => match self.groups.find(group) {
                Some(pos) => (pos, Some(member)),
                None => (self.groups.above(group)?, None),
            },
        };
        loop {
            let group: &Group = self.groups.at(pos);
            let mut cursor = group.members.cursor(member.take());
            while let Some(entry) = group.members.read(&mut cursor) {
                each(group, entry);
                left -= 1;
                if left == 0 {
                    return Some(((*group.name).into(), entry.name.to_vec().into()));
                }
            }
            pos = self.groups.next(pos)?;
            left -= 1;
            if left == 0 {
                return Some(((*self.groups.at(pos).name).into(), Box::default()));
            }
        }
    }
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
