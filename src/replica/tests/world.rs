//! Replicas in a small world: what shards would hear is kept, what servers say beside Zab is
//! carried when a test says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::forward;
use crate::group::{Join, Name, Outcome, Request, Restore, State};
use crate::mail::{Answer, Ask, Beat, Dealt, Missing, Tell, Verdict, What};
use crate::replica::{GroupSettings, Output, Replica, Settings};
use crate::time::Millis;
use crate::types::{Incarnation, ServerId, SessionId, Zxid};
use crate::zab::tests::disk::Disk;
use crate::zab::tests::world::{Input, Machine, Output as Written, World};
use crate::zab::{Boot, Settings as ZabSettings};

/// A replica, and what it has told its one shard.
pub(super) struct Server {
    pub(super) replica: Replica,
    out: Output,
    forwards: Vec<(ServerId, forward::Message)>,
    pub(super) answers: BTreeMap<u64, Answer>,
    /// What the shard holds, by what it was told.
    pub(super) held: BTreeMap<SessionId, Dealt>,
    /// What it was told has ended, and what its shard had found due.
    pub(super) ends: (Vec<SessionId>, Vec<SessionId>),
    pub(super) lease: Millis,
    pub(super) ready: Option<Incarnation>,
    pub(super) endpoints: Arc<[String]>,
    /// Beats that other servers sent on, to be answered by the test.
    pub(super) asked: Vec<(ServerId, u64, Arc<[Beat]>)>,
    /// What was told of watched groups: the event and the version after it.
    pub(super) noticed: Vec<String>,
    joins: BTreeMap<u64, (Name, Name)>,
}

pub(super) const LEASE: Millis = Millis(3_000);

impl Machine for Server {
    fn new(settings: ZabSettings, boot: Boot, disk: &Disk) -> Server {
        let group = GroupSettings {
            default_timeout: Millis(10_000),
            seeds: [1, 2, 3, 4],
        };
        let state = match &disk.snapshot {
            None => State::new(group),
            Some((_, content)) => {
                let mut restore = Restore::new(group);
                restore.feed(content).unwrap();
                restore.finish().unwrap()
            }
        };
        let own = Settings {
            id: settings.id,
            shards: 1,
            endpoint: format!("server{}:8640", settings.id),
            wall_s: 1_000_000,
            lease: LEASE,
            min_timeout: Millis(100),
            seeds: [1, 2, 3, 4],
            requests_max: 1_000,
        };
        Server {
            replica: Replica::new(own, settings, boot, state, group, Arc::default()),
            out: Output::default(),
            forwards: Vec::new(),
            answers: BTreeMap::new(),
            held: BTreeMap::new(),
            ends: Default::default(),
            lease: Millis(0),
            ready: None,
            endpoints: Arc::from([]),
            asked: Vec::new(),
            noticed: Vec::new(),
            joins: BTreeMap::new(),
        }
    }

    fn step(&mut self, now: Millis, input: Input) -> Written {
        let replica = &mut self.replica;
        match input {
            Input::Start => replica.start(now),
            Input::Tick => replica.tick(now),
            Input::Message(from, message) => replica.on_message(now, from, message),
            Input::Connected(peer) => replica.on_connected(now, peer),
            Input::Disconnected(peer) => replica.on_disconnected(now, peer),
            Input::Persisted(persisted) => replica.on_persisted(now, persisted),
            Input::Read(learner, tenure, piece) => replica.on_read(now, learner, tenure, piece),
            Input::Replayed(entry) => replica.on_replayed(now, &entry),
            Input::Restore(zxid, content) => replica.restore(zxid, &mut &content[..]).unwrap(),
            Input::SnapshotTaken(zxid) => replica.on_snapshot_taken(zxid),
            Input::Trimmed(zxid) => replica.on_trimmed(zxid),
            Input::WriteFailed => replica.on_write_failed(),
            Input::Nothing => {}
        }
        replica.ready(&mut self.out);
        assert_eq!(self.out.failure, None);
        self.forwards.append(&mut self.out.forwards);
        let tells = std::mem::take(&mut self.replica.tells()[0]);
        tells.into_iter().for_each(|tell| self.hear(tell));
        Written {
            writes: std::mem::take(&mut self.out.writes),
            messages: std::mem::take(&mut self.out.messages),
            reads: std::mem::take(&mut self.out.reads),
            replay: self.out.replay,
            fenced: self.out.fenced.is_some(),
        }
    }

    fn deadline(&self) -> Millis {
        self.replica.deadline()
    }

    fn save(&self) -> (Zxid, Vec<u8>) {
        let (zxid, mut snapshot) = self.replica.save();
        let mut content = Vec::new();
        while snapshot.write_into(&mut content, 1_000) {}
        (zxid, content)
    }
}

impl Server {
    fn hear(&mut self, tell: Tell) {
        match tell {
            Tell::Answer { token, answer } => {
                if let Answer::Joined {
                    joined,
                    version,
                    here: true,
                    ..
                } = &answer
                    && let Some((group, member)) = self.joins.remove(&token)
                {
                    let dealt = Dealt {
                        group: group[..].into(),
                        version: version.clone(),
                        member,
                        id: joined.session,
                        term: joined.term,
                        timeout: joined.timeout,
                        grace: Millis(0),
                    };
                    self.held.insert(joined.session, dealt);
                }
                let before = self.answers.insert(token, answer);
                assert!(before.is_none(), "{token} is answered twice");
            }
            Tell::Ended(ids) => {
                self.ends.0.extend(ids.iter());
                ids.iter().for_each(|id| drop(self.held.remove(id)));
            }
            Tell::Expired { ids, .. } => {
                self.ends.1.extend(ids.iter());
                ids.iter().for_each(|id| drop(self.held.remove(id)));
            }
            Tell::Deal(dealt) => self.held.extend(dealt.into_iter().map(|one| (one.id, one))),
            Tell::Reset => self.held.clear(),
            Tell::Changed { id, term, timeout } => {
                let held = self.held.get_mut(&id).expect("a change of what is held");
                (held.term, held.timeout) = (term, timeout);
            }
            Tell::Lease { until } => self.lease = until,
            Tell::Ready {
                incarnation,
                endpoints,
            } => (self.ready, self.endpoints) = (Some(incarnation), endpoints),
            Tell::Endpoints(endpoints) => self.endpoints = endpoints,
            Tell::Beats { from, token, beats } => self.asked.push((from, token, beats)),
            Tell::Notice {
                version, notice, ..
            } => {
                let text = String::from_utf8_lossy(notice.text()).into_owned();
                let name = text
                    .lines()
                    .next()
                    .and_then(|line| line.strip_prefix("event: "));
                let version = version.map_or("none".to_owned(), |version| version.to_string());
                self.noticed
                    .push(format!("{} {version}", name.unwrap_or_default()));
            }
            _ => {}
        }
    }
}

pub(super) type Fleet = World<Server>;

impl Fleet {
    pub(super) fn server(&self, id: u32) -> &Server {
        self.machine(id)
    }

    pub(super) fn ask(&mut self, id: u32, token: u64, what: What) {
        self.with_machine(id, |server, now| {
            server.replica.ask(now, 0, Ask { token, what });
        });
    }

    /// Asks for a join of `group/member`; does not wait.
    pub(super) fn join(&mut self, id: u32, token: u64, member: &str, timeout_ms: u64) {
        self.ask_join(id, token, member, |join| {
            join.timeout = Some(Millis(timeout_ms));
        });
    }

    pub(super) fn ask_join(
        &mut self,
        id: u32,
        token: u64,
        member: &str,
        change: impl FnOnce(&mut Join),
    ) {
        self.ask_join_of(id, token, (member, false), change);
    }

    /// Of a member that the shard believes to be new, or not.
    pub(super) fn ask_join_of(
        &mut self,
        id: u32,
        token: u64,
        (member, fresh): (&str, bool),
        change: impl FnOnce(&mut Join),
    ) {
        let mut join = Join {
            group: b"g"[..].into(),
            member: member.as_bytes().into(),
            timeout: None,
            config: None,
            takeover: false,
            only_if_absent: false,
            owner: ServerId(id),
            incarnation: Incarnation(0),
        };
        change(&mut join);
        self.with_machine(id, |server, now| {
            let names = (join.group.clone(), join.member.clone());
            server.joins.insert(token, names);
            let what = What::Change {
                request: Request::Join(join),
                document: false,
                fresh,
            };
            server.replica.ask(now, 0, Ask { token, what });
        });
    }

    /// A beat by name at a server whose shard does not hold the session.
    pub(super) fn beat(&mut self, id: u32, token: u64, member: &str) {
        let who = Missing::Named {
            group: b"g"[..].into(),
            member: member.as_bytes().into(),
            session: None,
        };
        self.ask(id, token, What::Beats(vec![Beat { who, floor: None }]));
    }

    pub(super) fn answer(&mut self, id: u32, token: u64) -> Option<Answer> {
        self.with_machine(id, |server, _| server.answers.remove(&token))
    }

    /// The session that a join has given.
    pub(super) fn joined(&mut self, id: u32, token: u64) -> SessionId {
        match self.answer(id, token) {
            Some(Answer::Joined { joined, .. }) => joined.session,
            other => panic!("{other:?} is no session"),
        }
    }

    pub(super) fn outcome(&mut self, id: u32, token: u64) -> Outcome {
        match self.answer(id, token) {
            Some(Answer::Outcome(outcome)) => outcome,
            other => panic!("{other:?} is no outcome"),
        }
    }

    pub(super) fn verdict(&mut self, id: u32, token: u64) -> Option<Verdict> {
        match self.answer(id, token) {
            Some(Answer::Verdicts(verdicts)) => verdicts.into_iter().next(),
            None => None,
            other => panic!("{other:?} is no verdict"),
        }
    }

    /// Carries what servers have said to each other beside Zab.
    pub(super) fn carry_forwards(&mut self) {
        loop {
            let mut carried = false;
            for id in self.alive() {
                let said =
                    self.with_machine(id.0, |server, _| std::mem::take(&mut server.forwards));
                for (to, message) in said {
                    carried = true;
                    if self.alive().contains(&to) {
                        self.with_machine(to.0, |server, now| {
                            server.replica.on_forward(now, id, message);
                        });
                    }
                }
            }
            if !carried {
                return;
            }
            self.settle();
        }
    }

    /// Loses what servers have said to each other beside Zab.
    pub(super) fn lose_forwards(&mut self) -> usize {
        let mut lost = 0;
        for id in self.alive() {
            lost += self
                .with_machine(id.0, |server, _| std::mem::take(&mut server.forwards))
                .len();
        }
        lost
    }

    pub(super) fn leader_of(&self) -> u32 {
        let leads = |id: &ServerId| self.server(id.0).replica.leads();
        let leaders: Vec<ServerId> = self.alive().into_iter().filter(leads).collect();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        leaders[0].0
    }

    pub(super) fn followers(&self) -> Vec<u32> {
        let leader = self.leader_of();
        let others = self.alive().into_iter().filter(|id| id.0 != leader);
        others.map(|id| id.0).collect()
    }
}
