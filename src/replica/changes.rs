//! Questions of shards, and the answers.

use std::sync::Arc;

use super::requests::{Request, What, Who};
use super::{Plant, Replica, endpoints};
use crate::group::{Joined, Lapse, Name, Outcome, Refusal, Request as Change, SessionChange};
use crate::mail::{
    Answer, Ask, Cluster, ListedGroup, ShardIndex, Tell, VersionCell, What as Question,
};
use crate::time::Millis;
use crate::types::Incarnation;
use crate::zab::{Phase, Standing};

impl Replica {
    /// Answers a question, or asks the ensemble for the change it wants.
    pub fn ask(&mut self, now: Millis, shard: ShardIndex, ask: Ask) {
        self.advance(now);
        let Ask { token, what } = ask;
        let answer = match what {
            Question::Change {
                request,
                document,
                fresh,
            } => return self.change(now, (shard, token), request, document, fresh),
            Question::Document { group, consistent } if consistent => {
                let who = Who::Document {
                    shard,
                    token,
                    group,
                };
                return self.submit(now, Request::new(What::Flush, who, now));
            }
            Question::Document { group, .. } => Answer::Document(self.state().document(&group)),
            Question::List { after, limit } => Answer::List(self.list(after.as_deref(), limit)),
            Question::Config { group, member } => {
                let found = self.state().config(&group, member.as_deref());
                Answer::Config(found.map(|config| (config.bytes.into(), config.version)))
            }
            Question::Beats(beats) => return self.ask_beats(now, shard, token, beats),
            Question::Beaten {
                from,
                token,
                verdicts,
            } => return self.on_shard_beaten(from, token, &verdicts),
            Question::Cluster => Answer::Cluster(self.cluster()),
            Question::Watch { group } => self.watch(shard, &group),
            Question::Unwatch { group } => return self.unwatch(shard, &group),
        };
        self.counters.reads.add(1);
        self.publisher.answer(shard, token, answer);
    }

    fn change(
        &mut self,
        now: Millis,
        (shard, token): (ShardIndex, u64),
        mut change: Change,
        document: bool,
        fresh: bool,
    ) {
        if let Change::Join(join) = &mut change {
            // A shard may not have heard yet that this run has taken another number.
            join.incarnation = self.own.settled().unwrap_or_default();
            if join.incarnation == Incarnation::default() {
                return self.publisher.answer(shard, token, Answer::NoQuorum);
            }
        }
        if let Change::Expire(lapses) = &mut change
            && self.lacks(Plant::ExpiresAnyTerm)
        {
            self.take_present_terms(lapses);
        }
        if let Err(refusal) = self.encode(&change) {
            let answer = Answer::Outcome(Outcome::Refused(refusal));
            return self.publisher.answer(shard, token, answer);
        }
        let Change::Join(_) = change else {
            return self.submit_encoded(now, Who::Shard { shard, token }, false);
        };
        let who = Who::Join {
            shard,
            token,
            document,
        };
        if self.lacks(Plant::JoinsFromOwnState) {
            return self.answer_idle(now, Request::new(self.encoded(), who, now));
        }
        self.submit_encoded(now, who, fresh);
    }

    /// What [`Plant::ExpiresAnyTerm`] does: the terms under which the sessions are to end are those
    /// they have now.
    fn take_present_terms(&self, lapses: &mut [Lapse]) {
        for lapse in lapses {
            let session = self.state().session(&lapse.group, &lapse.member);
            if let Some(session) = session.filter(|session| session.id == lapse.id) {
                lapse.term = session.term;
            }
        }
    }

    /// A request has had this outcome, and may have created a session that belongs `here`.
    pub(super) fn finish(
        &mut self,
        now: Millis,
        request: Request,
        outcome: Outcome,
        here: Option<SessionChange>,
    ) {
        let Request { what, who, .. } = request;
        match who {
            Who::Shard { shard, token } => {
                self.publisher
                    .answer(shard, token, Answer::Outcome(outcome));
            }
            Who::Join {
                shard,
                token,
                document,
            } => {
                let answer = match outcome {
                    Outcome::Joined(joined) => self.joined(joined, here, &what, document),
                    // This run has taken another number meanwhile.
                    Outcome::Refused(Refusal::StaleOwner) => Answer::NoQuorum,
                    other => Answer::Outcome(other),
                };
                self.publisher.answer(shard, token, answer);
            }
            Who::Adoption => self.on_adopted(outcome),
            Who::Move(ids) => self.on_moved(&ids, &outcome),
            Who::Orphans(orphaned) => self.on_orphans_expired(orphaned),
            Who::Genesis | Who::Endpoint => {}
            Who::Document { .. } | Who::Denials(_) | Who::Fates => self.flushed(now, who),
        }
    }

    /// A flush of this server is complete.
    pub(super) fn flushed(&mut self, now: Millis, who: Who) {
        match who {
            Who::Document {
                shard,
                token,
                group,
            } => {
                self.counters.reads.add(1);
                let document = self.state().document(&group);
                self.publisher
                    .answer(shard, token, Answer::Document(document));
            }
            Who::Denials(denials) => self.on_denials(now, denials, true),
            _ => {}
        }
    }

    /// A request was not taken, or has waited for too long.
    pub(super) fn fail(&mut self, now: Millis, who: Who, answer: &Answer) {
        let busy = matches!(answer, Answer::Busy);
        let answer = if busy { Answer::Busy } else { Answer::NoQuorum };
        match who {
            Who::Shard { shard, token }
            | Who::Join { shard, token, .. }
            | Who::Document { shard, token, .. } => self.publisher.answer(shard, token, answer),
            Who::Denials(denials) => self.on_denials(now, denials, false),
            Who::Adoption => self.on_adopted(Outcome::Nothing),
            Who::Move(ids) => self.on_moved(&ids, &Outcome::Nothing),
            Who::Orphans(orphaned) => self.on_orphans_expired(orphaned),
            Who::Endpoint => self.announced = false,
            Who::Genesis | Who::Fates => {}
        }
    }

    fn joined(
        &mut self,
        joined: Joined,
        here: Option<SessionChange>,
        what: &What,
        document: bool,
    ) -> Answer {
        if let Some(change) = here
            && joined.created
        {
            return self.joined_here(joined, change, document);
        }
        let names = what.transaction().and_then(crate::group::joins);
        let (group, member) = names.unwrap_or_default();
        let known = match document {
            false => self.publisher.known(group),
            true => None,
        };
        self.welcome(joined, false, group, member.into(), known, document)
    }

    /// The answer to a join that has created this session for this server.
    fn joined_here(&mut self, joined: Joined, change: SessionChange, document: bool) -> Answer {
        let SessionChange { group, member, .. } = change;
        let version = match document {
            false => self.publisher.version_of(&group),
            true => None,
        };
        let known = version.map(|version| (Arc::clone(&group), version));
        self.welcome(joined, true, &group, member, known, document)
    }

    fn welcome(
        &mut self,
        joined: Joined,
        here: bool,
        group: &[u8],
        member: Name,
        known: Option<(Arc<[u8]>, Arc<VersionCell>)>,
        document: bool,
    ) -> Answer {
        if let Some((group, version)) = known {
            return Answer::Joined {
                joined,
                here,
                group,
                member,
                version,
                document: None,
            };
        }
        let Some(handle) = self.state().document(group) else {
            debug_assert!(false, "a joined group exists");
            return Answer::Outcome(Outcome::Refused(Refusal::NotFound));
        };
        let (group, version) = self.publisher.cell(group, handle.version());
        let document = document.then(|| handle.for_joiner(&member));
        Answer::Joined {
            joined,
            here,
            group,
            member,
            version,
            document,
        }
    }

    /// Opens the doors.
    pub(super) fn serve(&mut self) {
        let Some(incarnation) = self.own.settled() else {
            return;
        };
        if self.served == Some(incarnation) {
            return;
        }
        self.served = Some(incarnation);
        let endpoints = Arc::clone(&self.endpoints);
        self.publisher.tell_all(|| Tell::Ready {
            endpoints: Arc::clone(&endpoints),
            incarnation,
        });
    }

    fn list(&self, after: Option<&[u8]>, limit: usize) -> Vec<ListedGroup> {
        let groups = self.state().list(after, limit + 1);
        let of_clients = groups.filter(|group| *group.name != *endpoints::SERVERS);
        of_clients
            .take(limit)
            .map(|group| ListedGroup {
                name: group.name.into(),
                version: group.version,
                active: group.active,
                inactive: group.inactive,
            })
            .collect()
    }

    fn cluster(&self) -> Cluster {
        let peer = self.node.peer();
        let leader = match self.node.standing() {
            Standing::Leading { .. } => Some(self.settings.id),
            Standing::Following { leader, .. } => Some(*leader),
            Standing::Recovering => None,
        };
        let role = match peer.phase() {
            Phase::Leading => "leading",
            Phase::Following => "following",
            Phase::Observing => "observing",
            Phase::Looking | Phase::Discovery | Phase::Synchronization | Phase::Fenced => "looking",
        };
        let ensemble = self.node.ensemble();
        let others = ensemble.others(self.settings.id);
        let mut servers: Vec<_> = others
            .map(|id| {
                let state = if self.beats.reaches(id) {
                    "active"
                } else {
                    "lost"
                };
                (id, self.endpoint_of(id).unwrap_or_default(), state)
            })
            .collect();
        servers.push((self.settings.id, self.settings.endpoint.clone(), "active"));
        servers.sort_by_key(|(id, ..)| *id);
        Cluster {
            id: self.settings.id,
            leader,
            role,
            epoch: peer.current_epoch(),
            last_zxid: peer.last_logged(),
            applied_zxid: self.state().applied(),
            servers,
        }
    }
}
