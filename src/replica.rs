//! What one server decides: Zab below, the replicated groups above, and who is to be told.
//!
//! Pure. Questions from shards go in with [`Replica::ask`]; what is to be written comes out
//! of [`Replica::ready`]; reports of durability and the committed entries go back in; and
//! what the shards are to be told gathers in [`Replica::tells`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;

use crate::group::{
    self, Applied, Corrupt, Decision, End, GroupChange, GroupChangeKind, Joined, Outcome, Refusal,
    Request, State, Status,
};
use crate::mail::{
    Answer, Ask, Cluster, Dealt, ListedGroup, Missing, ShardIndex, Tell, VersionCell, What,
};
use crate::metrics::CoreCounters;
use crate::time::Millis;
use crate::types::{GroupVersion, Incarnation, ServerId, SessionId, Zxid};
use crate::zab::{Entry, Peer, Persisted, Phase, ProposeError, Ready, Standing};

/// One server's replicated state and its part in the broadcast.
pub struct Replica {
    id: ServerId,
    peer: Peer,
    state: State,
    /// Proposals of this server whose commit somebody waits for, in their order.
    awaited: VecDeque<(Zxid, Origin)>,
    /// The published version of each group that a shard has asked about.
    cells: HashMap<Box<[u8]>, Arc<VersionCell>, RandomState>,
    endpoints: Arc<[String]>,
    incarnation: Incarnation,
    /// Seconds since 1970, proposed as the date of founding if there is none yet.
    wall_s: u32,
    serving: bool,
    active: u64,
    tells: Vec<Vec<Tell>>,
    /// Sessions ended since the shards were last told.
    ended: Vec<SessionId>,
    txn: Vec<u8>,
    applied: Applied,
    counters: Arc<CoreCounters>,
}

/// What a replica is built with.
pub struct Settings {
    /// This server.
    pub id: ServerId,
    /// How many shards are told.
    pub shards: ShardIndex,
    /// What documents show as `endpoints`.
    pub endpoints: Arc<[String]>,
    /// The server's present run: every session of an earlier one is adopted by it.
    pub incarnation: Incarnation,
    /// Seconds since 1970 now: the date of founding, should this be a new ensemble.
    pub wall_s: u32,
    /// Random keys for hashing names that clients choose.
    pub seeds: [u64; 4],
}

/// Who waits for a proposal.
enum Origin {
    /// A shard, for a question that is answered with the plain outcome.
    Shard { shard: ShardIndex, token: u64 },
    /// A shard, for a join.
    Join {
        shard: ShardIndex,
        token: u64,
        names: Names,
        document: bool,
    },
    /// This server itself.
    Own,
}

/// The group and member of a join.
struct Names {
    group: Box<[u8]>,
    member: Box<[u8]>,
}

impl Replica {
    /// A replica whose `state` holds everything up to the last logged transaction of `peer`.
    #[must_use]
    pub fn new(
        settings: Settings,
        peer: Peer,
        state: State,
        counters: Arc<CoreCounters>,
    ) -> Replica {
        let [a, b, c, d] = settings.seeds;
        let mut active = 0;
        state.for_each_active(|_| active += 1);
        Replica {
            id: settings.id,
            peer,
            state,
            awaited: VecDeque::new(),
            cells: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            endpoints: settings.endpoints,
            incarnation: settings.incarnation,
            wall_s: settings.wall_s,
            serving: false,
            active,
            tells: (0..settings.shards).map(|_| Vec::new()).collect(),
            ended: Vec::new(),
            txn: Vec::new(),
            applied: Applied::default(),
            counters,
        }
    }

    /// Begins to look for a leader. `now` here and below is this server's own clock.
    pub fn start(&mut self, now: Millis) {
        self.peer.start(now);
    }

    /// Answers a question, or proposes the change it asks for.
    pub fn ask(&mut self, now: Millis, shard: ShardIndex, ask: Ask) {
        let Ask { token, what } = ask;
        let answer = match what {
            What::Change { request, document } => {
                return self.change(now, shard, token, request, document);
            }
            // Alone, what is committed is applied in the same step, so the state is as fresh
            // as a barrier could make it.
            What::Document { group, consistent } => {
                if consistent && self.peer.phase() != Phase::Leading {
                    Answer::NoQuorum
                } else {
                    Answer::Document(self.state.document(&group))
                }
            }
            What::List { after, limit } => Answer::List(self.list(after.as_deref(), limit)),
            What::Config { group, member } => {
                let found = self.state.config(&group, member.as_deref());
                Answer::Config(found.map(|config| (config.bytes.into(), config.version)))
            }
            What::Statuses(missing) => {
                Answer::Statuses(missing.iter().map(|missing| self.status(missing)).collect())
            }
            What::Cluster => Answer::Cluster(self.cluster()),
        };
        self.counters.reads.add(1);
        self.tell(shard, Tell::Answer { token, answer });
    }

    /// Moves what is to be written and delivered into `ready`.
    pub fn ready(&mut self, ready: &mut Ready) {
        self.peer.ready(ready);
    }

    /// See [`Peer::on_persisted`].
    pub fn on_persisted(&mut self, now: Millis, persisted: Persisted) {
        self.peer.on_persisted(now, persisted);
    }

    /// This server's standing in the ensemble has changed. Once it leads, it founds the
    /// ensemble, if that has not been done, and serves.
    pub fn on_standing(&mut self, now: Millis, standing: &Standing) {
        if !matches!(standing, Standing::Leading { .. }) {
            return;
        }
        if self.state.birth_s().is_some() {
            self.serve();
            return;
        }
        let request = Request::Genesis {
            birth_s: self.wall_s,
        };
        if let Decision::Propose = self.state.preprocess(&request, &mut self.txn) {
            // Nothing is in flight at this point, so there is room.
            let _ = self.propose(now, Origin::Own);
        }
    }

    /// Applies committed entries in their order, and answers those who wait for them.
    ///
    /// # Errors
    /// If an entry is no transaction: the log holds what no version of this code has written.
    pub fn deliver(&mut self, entries: &[Entry]) -> Result<(), Corrupt> {
        for entry in entries {
            let mut applied = std::mem::take(&mut self.applied);
            let result = self.state.apply(entry.zxid, &entry.payload, &mut applied);
            if result.is_ok() {
                self.on_applied(entry.zxid, &mut applied);
            }
            self.applied = applied;
            result?;
        }
        self.flush_ended();
        self.counters.applied.add(entries.len() as u64);
        self.counters.groups.set(self.state.groups_len() as u64);
        self.counters.members.set(self.active);
        self.counters
            .inactive
            .set(self.state.members_len() - self.active);
        self.counters.in_flight.set(self.peer.in_flight() as u64);
        Ok(())
    }

    /// What each shard is to be told; whoever carries it empties the lists.
    pub fn tells(&mut self) -> &mut [Vec<Tell>] {
        &mut self.tells
    }

    /// The replicated state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// True once this server serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving
    }

    /// True if proposals are under way.
    #[must_use]
    pub fn has_in_flight(&self) -> bool {
        self.peer.in_flight() > 0
    }

    fn change(
        &mut self,
        now: Millis,
        shard: ShardIndex,
        token: u64,
        request: Request,
        document: bool,
    ) {
        if !self.serving {
            return self.tell(
                shard,
                Tell::Answer {
                    token,
                    answer: Answer::NoQuorum,
                },
            );
        }
        let decision = self.state.preprocess(&request, &mut self.txn);
        let names = match request {
            Request::Join(join) => Some(Names {
                group: join.group,
                member: join.member,
            }),
            _ => None,
        };
        match decision {
            Decision::Answer(outcome) => {
                self.counters.short_circuits.add(1);
                let answer = self.answer(outcome, names, document);
                self.tell(shard, Tell::Answer { token, answer });
            }
            Decision::Propose => {
                let origin = match names {
                    Some(names) => Origin::Join {
                        shard,
                        token,
                        names,
                        document,
                    },
                    None => Origin::Shard { shard, token },
                };
                if let Err(error) = self.propose(now, origin) {
                    let answer = match error {
                        ProposeError::Full => Answer::Busy,
                        ProposeError::NotLeading => Answer::NoQuorum,
                    };
                    self.tell(shard, Tell::Answer { token, answer });
                }
            }
        }
    }

    /// Proposes the transaction in `self.txn`.
    fn propose(&mut self, now: Millis, origin: Origin) -> Result<(), ProposeError> {
        match self.peer.propose(now, Arc::from(self.txn.as_slice())) {
            Ok(zxid) => {
                self.counters.proposals.add(1);
                self.counters.log_bytes.add(self.txn.len() as u64);
                self.awaited.push_back((zxid, origin));
                Ok(())
            }
            Err(error) => {
                // It was counted as in flight when it was made, and never will be.
                self.state.withdraw(&self.txn);
                Err(error)
            }
        }
    }

    fn on_applied(&mut self, zxid: Zxid, applied: &mut Applied) {
        for change in &applied.groups {
            self.publish(change);
        }
        for ended in &applied.ended {
            self.ended.push(ended.id);
            match ended.end {
                End::Expired => self.counters.expired.add(1),
                End::Left | End::TakenOver => self.counters.closed.add(1),
            }
        }
        let created = applied
            .sessions
            .iter()
            .filter(|change| change.created)
            .count() as u64;
        self.counters.created.add(created);
        self.active = self.active + created - applied.ended.len() as u64;
        // The ends come first in every shard's mail: a member never has two sessions.
        if !applied.sessions.is_empty() {
            self.flush_ended();
        }
        for change in applied.sessions.iter().filter(|change| !change.created) {
            for tells in &mut self.tells {
                let group::Session {
                    id, term, timeout, ..
                } = change.session;
                tells.push(Tell::Changed { id, term, timeout });
            }
        }
        let Some((_, origin)) = self.awaited.pop_front_if(|(awaited, _)| *awaited == zxid) else {
            return;
        };
        let outcome = std::mem::take(&mut applied.outcome);
        match origin {
            Origin::Own => self.serve(),
            Origin::Shard { shard, token } => {
                // Whoever is told that a session has ended is told so before the answer.
                self.flush_ended();
                self.tell(
                    shard,
                    Tell::Answer {
                        token,
                        answer: Answer::Outcome(outcome),
                    },
                );
            }
            Origin::Join {
                shard,
                token,
                names,
                document,
            } => {
                let answer = self.answer(outcome, Some(names), document);
                self.tell(shard, Tell::Answer { token, answer });
            }
        }
    }

    fn answer(&mut self, outcome: Outcome, names: Option<Names>, document: bool) -> Answer {
        match (outcome, names) {
            (Outcome::Joined(joined), Some(names)) => self.joined(joined, &names, document),
            (outcome, _) => Answer::Outcome(outcome),
        }
    }

    fn joined(&mut self, joined: Joined, names: &Names, document: bool) -> Answer {
        let Some(handle) = self.state.document(&names.group) else {
            debug_assert!(false, "a joined group exists");
            return Answer::Outcome(Outcome::Refused(Refusal::NotFound));
        };
        let version = self.cell(&names.group, handle.version());
        let document = document.then(|| handle.for_joiner(&names.member));
        Answer::Joined {
            joined,
            version,
            document,
        }
    }

    fn cell(&mut self, group: &[u8], version: GroupVersion) -> Arc<VersionCell> {
        if let Some(cell) = self.cells.get(group) {
            return Arc::clone(cell);
        }
        let cell = VersionCell::new(version);
        self.cells.insert(group.into(), Arc::clone(&cell));
        cell
    }

    fn publish(&mut self, change: &GroupChange) {
        if change.kind == GroupChangeKind::Removed {
            // No member was active, so no shard holds the cell for a session any more.
            self.cells.remove(&*change.group);
        } else if let Some(cell) = self.cells.get(&*change.group) {
            cell.set(change.version);
        }
    }

    fn flush_ended(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        let ended: Arc<[SessionId]> = std::mem::take(&mut self.ended).into();
        for tells in &mut self.tells {
            tells.push(Tell::Ended(Arc::clone(&ended)));
        }
    }

    /// Deals the active sessions to the shards and opens the doors.
    fn serve(&mut self) {
        if self.serving {
            return;
        }
        self.serving = true;
        let shards = self.tells.len() as u64;
        let mut hands: Vec<Vec<Dealt>> = self.tells.iter().map(|_| Vec::new()).collect();
        let mut cells = std::mem::take(&mut self.cells);
        let mut last: Option<(Arc<[u8]>, Arc<VersionCell>)> = None;
        self.state.for_each_active(|active| {
            if last
                .as_ref()
                .is_none_or(|(name, _)| **name != *active.group)
            {
                let version = self.state.version(active.group).unwrap_or_default();
                let cell = VersionCell::new(version);
                cells.insert(active.group.into(), Arc::clone(&cell));
                last = Some((active.group.into(), cell));
            }
            let Some((group, version)) = &last else {
                return;
            };
            let group::Session {
                id, term, timeout, ..
            } = active.session;
            let shard = (id.counter() % shards) as usize;
            hands[shard].push(Dealt {
                group: Arc::clone(group),
                version: Arc::clone(version),
                member: active.member.into(),
                id,
                term,
                timeout,
            });
            if hands[shard].len() == DEAL_MAX {
                self.tells[shard].push(Tell::Deal(std::mem::take(&mut hands[shard])));
            }
        });
        self.cells = cells;
        for (tells, hand) in self.tells.iter_mut().zip(hands) {
            if !hand.is_empty() {
                tells.push(Tell::Deal(hand));
            }
            let endpoints = Arc::clone(&self.endpoints);
            tells.push(Tell::Ready {
                endpoints,
                incarnation: self.incarnation,
            });
        }
    }

    fn status(&self, missing: &Missing) -> Status {
        match missing {
            Missing::Named {
                group,
                member,
                session,
            } => self.state.status(group, member, *session),
            // No shard holds it, and names were not given: either it has ended, or it never
            // was.
            Missing::Id(id) if *id <= self.state.newest() => Status::Gone,
            Missing::Id(_) => Status::NotFound,
        }
    }

    fn list(&self, after: Option<&[u8]>, limit: usize) -> Vec<ListedGroup> {
        let groups = self.state.list(after, limit);
        groups
            .map(|group| ListedGroup {
                name: group.name.into(),
                version: group.version,
                active: group.active,
                inactive: group.inactive,
            })
            .collect()
    }

    fn cluster(&self) -> Cluster {
        let leading = self.peer.phase() == Phase::Leading;
        let endpoint = self.endpoints.first().cloned().unwrap_or_default();
        Cluster {
            id: self.id,
            leader: leading.then_some(self.id),
            role: if leading { "leading" } else { "looking" },
            epoch: self.peer.current_epoch(),
            last_zxid: self.peer.last_logged(),
            applied_zxid: self.state.applied(),
            servers: vec![(self.id, endpoint, "active")],
        }
    }

    fn tell(&mut self, shard: ShardIndex, tell: Tell) {
        self.tells[usize::from(shard)].push(tell);
    }
}

/// Sessions dealt in one message.
const DEAL_MAX: usize = 16_384;
