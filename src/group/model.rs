//! The state machine held against a naive one, over random histories.
//!
//! The model keeps plain maps and knows nothing of leaves, transactions or proposals. Its
//! versions are not counted by rule: it renders a group's document before and after each
//! request and adds 1 if they differ, which is what is promised (S5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::time::Millis;
use crate::types::{Epoch, GroupVersion, Incarnation, ServerId, SessionId, Term, Zxid};

type Name = Vec<u8>;

#[derive(Clone, Default)]
struct Model {
    birth_s: Option<u32>,
    newest: SessionId,
    config_version: u64,
    groups: BTreeMap<Name, ModelGroup>,
    /// Last versions of removed groups.
    removed: BTreeMap<Name, u64>,
}

#[derive(Clone, Default)]
struct ModelGroup {
    version: u64,
    config: Option<ModelConfig>,
    members: BTreeMap<Name, ModelMember>,
}

#[derive(Clone, Default)]
struct ModelMember {
    session: Option<Session>,
    config: Option<ModelConfig>,
}

#[derive(Clone, PartialEq)]
struct ModelConfig {
    bytes: Vec<u8>,
    version: u64,
}

impl Model {
    /// Carries out a request and lets the versions follow from what is shown.
    fn apply(&mut self, zxid: Zxid, request: &Request) -> Outcome {
        let before = self.clone();
        let mut outcome = self.carry_out(zxid, request);
        let mut shown = GroupVersion(0);
        for (name, group) in &mut self.groups {
            group.version = match (before.groups.get(name), self.removed.remove(name)) {
                (None, None) => 0,
                (None, Some(last)) => last + 1,
                (Some(old), _) => old.version + u64::from(old.document() != group.document()),
            };
            if Some(&name[..]) == group_of(request) {
                shown = GroupVersion(group.version);
            }
        }
        for (name, group) in &before.groups {
            if !self.groups.contains_key(name) {
                self.removed.insert(name.clone(), group.version);
            }
        }
        match &mut outcome {
            Outcome::Joined(Joined { version, .. })
            | Outcome::Left { version }
            | Outcome::ConfigSet { version, .. }
            | Outcome::ConfigDeleted { version } => *version = shown,
            _ => {}
        }
        outcome
    }

    fn carry_out(&mut self, zxid: Zxid, request: &Request) -> Outcome {
        match request {
            Request::Genesis { birth_s } => Outcome::Founded {
                birth_s: *self.birth_s.get_or_insert(*birth_s),
            },
            Request::Join(join) => self.join(zxid, join),
            Request::Leave {
                group,
                member,
                session,
            } => {
                let current = self.session(group, member);
                match (current, session) {
                    (None, Some(id)) if *id <= self.newest => Outcome::Refused(Refusal::Gone),
                    (None, _) => Outcome::Refused(Refusal::NotFound),
                    (Some(s), Some(id)) if s.id != *id => Outcome::Refused(Refusal::OtherSession),
                    (Some(_), _) => {
                        self.end(group, member);
                        Outcome::Left {
                            version: GroupVersion(0),
                        }
                    }
                }
            }
            Request::SetConfig {
                group,
                member,
                bytes,
                require,
            } => {
                let old = self.config(group, member.as_deref());
                if !require.holds(old.as_ref().map(|c| c.version)) {
                    return Outcome::Refused(Refusal::PreconditionFailed);
                }
                let created = old.is_none();
                *self.config_slot(group, member.as_deref()) = Some(ModelConfig {
                    bytes: bytes.to_vec(),
                    version: 0,
                });
                self.config_version += 1;
                let config_version = self.config_version;
                let slot = self.config_slot(group, member.as_deref());
                slot.as_mut().unwrap().version = config_version;
                Outcome::ConfigSet {
                    config_version,
                    created,
                    version: GroupVersion(0),
                }
            }
            Request::DeleteConfig {
                group,
                member,
                require,
            } => match self.config(group, member.as_deref()) {
                None => Outcome::Refused(Refusal::NotFound),
                Some(c) if !require.holds(Some(c.version)) => {
                    Outcome::Refused(Refusal::PreconditionFailed)
                }
                Some(_) => {
                    *self.config_slot(group, member.as_deref()) = None;
                    self.tidy(group);
                    Outcome::ConfigDeleted {
                        version: GroupVersion(0),
                    }
                }
            },
            Request::DeleteGroup { group } => match self.groups.get(&group[..]) {
                None => Outcome::Refused(Refusal::NotFound),
                Some(g) if g.members.values().any(|m| m.session.is_some()) => {
                    Outcome::Refused(Refusal::GroupActive)
                }
                Some(_) => {
                    self.groups.remove(&group[..]);
                    Outcome::GroupDeleted
                }
            },
            Request::Expire(lapses) => self.expire(lapses),
        }
    }

    fn join(&mut self, zxid: Zxid, join: &super::Join) -> Outcome {
        let old = self.session(&join.group, &join.member);
        if old.is_some() && join.only_if_absent {
            return Outcome::Refused(Refusal::PreconditionFailed);
        }
        let fresh = Session {
            id: SessionId::of(self.birth_s.unwrap(), zxid),
            term: Term(1),
            timeout: join.timeout.unwrap_or(DEFAULT_TIMEOUT),
            owner: join.owner,
            incarnation: join.incarnation,
        };
        let kept = old.filter(|_| !join.takeover).map(|old| Session {
            id: old.id,
            term: match (old.owner, old.incarnation) == (join.owner, join.incarnation) {
                true => old.term,
                false => Term(old.term.0 + 1),
            },
            timeout: join.timeout.unwrap_or(old.timeout),
            ..fresh
        });
        let session = kept.unwrap_or(fresh);
        self.newest = self.newest.max(session.id);
        let group = self.groups.entry(join.group.to_vec()).or_default();
        let member = group.members.entry(join.member.to_vec()).or_default();
        member.session = Some(session);
        if let Some(bytes) = &join.config
            && member.config.as_ref().is_none_or(|c| c.bytes != **bytes)
        {
            self.config_version += 1;
            member.config = Some(ModelConfig {
                bytes: bytes.to_vec(),
                version: self.config_version,
            });
        }
        Outcome::Joined(Joined {
            session: session.id,
            term: session.term,
            timeout: session.timeout,
            created: kept.is_none(),
            version: GroupVersion(0),
        })
    }

    fn expire(&mut self, lapses: &[Lapse]) -> Outcome {
        let (mut ended, mut stale) = (0, Vec::new());
        // One lapse a member, the newest; in the order of names.
        let mut newest = BTreeMap::new();
        for lapse in lapses {
            let key = (lapse.group.to_vec(), lapse.member.to_vec());
            let this = (lapse.id, lapse.term);
            let best = newest.entry(key).or_insert(this);
            *best = this.max(*best);
        }
        for ((group, member), (id, term)) in newest {
            match self.session(&group, &member) {
                Some(session) if (session.id, session.term) == (id, term) => {
                    self.end(&group, &member);
                    ended += 1;
                }
                _ => stale.push(id),
            }
        }
        Outcome::Expired { ended, stale }
    }

    fn end(&mut self, group: &[u8], member: &[u8]) {
        let members = &mut self.groups.get_mut(group).unwrap().members;
        members.get_mut(member).unwrap().session = None;
        self.tidy(group);
    }

    fn tidy(&mut self, group: &[u8]) {
        let members = &mut self.groups.get_mut(group).unwrap().members;
        members.retain(|_, m| m.session.is_some() || m.config.is_some());
    }

    fn session(&self, group: &[u8], member: &[u8]) -> Option<Session> {
        self.groups.get(group)?.members.get(member)?.session
    }

    fn config(&self, group: &[u8], member: Option<&[u8]>) -> Option<ModelConfig> {
        let group = self.groups.get(group)?;
        match member {
            None => group.config.clone(),
            Some(member) => group.members.get(member)?.config.clone(),
        }
    }

    fn config_slot(&mut self, group: &[u8], member: Option<&[u8]>) -> &mut Option<ModelConfig> {
        let group = self.groups.entry(group.to_vec()).or_default();
        match member {
            None => &mut group.config,
            Some(member) => &mut group.members.entry(member.to_vec()).or_default().config,
        }
    }

    fn sessions(&self) -> BTreeMap<SessionId, (Name, Name, Session)> {
        let mut sessions = BTreeMap::new();
        for (name, group) in &self.groups {
            for (member, m) in &group.members {
                if let Some(s) = m.session {
                    sessions.insert(s.id, (name.clone(), member.clone(), s));
                }
            }
        }
        sessions
    }
}

impl ModelGroup {
    /// The document by way of serde_json, which knows nothing of pieces and leaves. JSON
    /// configs are marked, so that their bytes are compared and not their values.
    fn document(&self) -> String {
        let show = |config: &Option<ModelConfig>| match config {
            None => "null".to_owned(),
            Some(c) if matches!(c.bytes.first(), Some(b'{' | b'[')) => text(&c.bytes),
            Some(c) => serde_json::to_string(&text(&c.bytes)).unwrap(),
        };
        let list = |active: bool| {
            let some = self
                .members
                .iter()
                .filter(|(_, m)| m.session.is_some() == active);
            let shown: Vec<String> = some
                .map(|(name, m)| {
                    let name = serde_json::to_string(&text(name)).unwrap();
                    format!("{{{name}:{}}}", show(&m.config))
                })
                .collect();
            shown.join(",")
        };
        format!(
            "{{\"config\":{},\"endpoints\":[\"a:1\",\"b:2\"],\"active_members\":[{}],\"inactive_members\":[{}]}}",
            show(&self.config),
            list(true),
            list(false)
        )
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn group_of(request: &Request) -> Option<&[u8]> {
    match request {
        Request::Join(join) => Some(&join.group),
        Request::Leave { group, .. }
        | Request::SetConfig { group, .. }
        | Request::DeleteConfig { group, .. }
        | Request::DeleteGroup { group } => Some(group),
        Request::Expire(_) | Request::Genesis { .. } => None,
    }
}

/// What happens in a history.
#[derive(Clone, Debug)]
enum Step {
    /// A request reaches the leader.
    Ask(Ask),
    /// The oldest proposals are committed.
    Commit(usize),
    /// The leader falls; of its proposals the oldest survive.
    NewLeader(usize),
    /// Another server is rebuilt from a snapshot in pieces of this size.
    Restart(usize),
}

/// A request in terms of what there is: sessions are named by what the member has or had.
#[derive(Clone, Debug)]
enum Ask {
    Join {
        at: (u8, u8),
        timeout: Option<u32>,
        config: Option<u8>,
        takeover: bool,
        absent: bool,
        owner: u8,
    },
    Leave {
        at: (u8, u8),
        session: Which,
    },
    SetConfig {
        at: (u8, Option<u8>),
        config: u8,
        require: u8,
    },
    DeleteConfig {
        at: (u8, Option<u8>),
        require: u8,
    },
    DeleteGroup {
        group: u8,
    },
    Expire(Vec<((u8, u8), Which, bool)>),
}

#[derive(Clone, Copy, Debug)]
enum Which {
    None,
    Current,
    Older,
    NeverIssued,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => ask().prop_map(Step::Ask),
        6 => (1usize..6).prop_map(Step::Commit),
        1 => (0usize..4).prop_map(Step::NewLeader),
        1 => (1usize..3_000).prop_map(Step::Restart),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let at = || (0u8..3, 0u8..40);
    let config_at = || (0u8..3, prop::option::weighted(0.8, 0u8..40));
    let which = || {
        prop_oneof![
            1 => Just(Which::None),
            3 => Just(Which::Current),
            1 => Just(Which::Older),
            1 => Just(Which::NeverIssued)
        ]
    };
    let lapse = (at(), which(), prop::bool::weighted(0.1));
    let timeout = prop::option::of(prop::sample::select(vec![100u32, 10_000, u32::MAX]));
    let config = prop::option::weighted(0.3, 0u8..8);
    let rare = || prop::bool::weighted(0.1);
    prop_oneof![
        8 => (at(), timeout, config, rare(), rare(), 1u8..3).prop_map(
            |(at, timeout, config, takeover, absent, owner)| Ask::Join {
                at, timeout, config, takeover, absent, owner,
            }
        ),
        2 => (at(), which()).prop_map(|(at, session)| Ask::Leave { at, session }),
        2 => (config_at(), 0u8..8, 0u8..5)
            .prop_map(|(at, config, require)| Ask::SetConfig { at, config, require }),
        1 => (config_at(), 0u8..5).prop_map(|(at, require)| Ask::DeleteConfig { at, require }),
        1 => (0u8..3).prop_map(|group| Ask::DeleteGroup { group }),
        2 => prop::collection::vec(lapse, 0..30).prop_map(Ask::Expire),
    ]
}

fn group_name(i: u8) -> Name {
    [&b"g"[..], b"g\"roup", "größe".as_bytes()][usize::from(i)].to_vec()
}

/// Long and short names, so that groups have several leaves and some are full of few.
fn member_name(i: u8) -> Name {
    let width = if i.is_multiple_of(3) { 200 } else { 24 };
    format!("member-{i:0width$}").into_bytes()
}

fn config(i: u8) -> Box<[u8]> {
    let text = match i {
        0 => String::new(),
        1 => "plain".to_owned(),
        2 => "quote \" back \\ bell \u{7} line \n end".to_owned(),
        3 => "{\"a\": [1, 2]}".to_owned(),
        4 => "x".repeat(180),
        5 => "y".repeat(181),
        6 => format!("[\"{}\"]", "z".repeat(3_000)),
        _ => "null".to_owned(),
    };
    text.into_bytes().into()
}

const DEFAULT_TIMEOUT: Millis = Millis(10_000);

const SETTINGS: Settings = Settings {
    default_timeout: DEFAULT_TIMEOUT,
    seeds: [1, 2, 3, 4],
};

/// A leader, a server that follows and is rebuilt at times, and the model of what is
/// committed and of what would be if all proposals were.
struct World {
    leader: State,
    follower: State,
    committed: Model,
    proposed: VecDeque<(Request, Vec<u8>)>,
    last: Zxid,
    epoch: u64,
    older_ids: BTreeMap<(Name, Name), BTreeSet<SessionId>>,
}

impl World {
    fn founded() -> World {
        let mut world = World {
            leader: State::new(SETTINGS),
            follower: State::new(SETTINGS),
            committed: Model::default(),
            proposed: VecDeque::new(),
            last: Zxid::ZERO,
            epoch: 1,
            older_ids: BTreeMap::new(),
        };
        world.ask(&Request::Genesis { birth_s: 77 });
        world.commit();
        world
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Ask(ask) => {
                let request = self.request(ask);
                self.ask(&request);
            }
            Step::Commit(n) => (0..*n).for_each(|_| self.commit()),
            Step::NewLeader(survive) => {
                (0..*survive).for_each(|_| self.commit());
                self.proposed.clear();
                self.leader.abandon_in_flight();
                self.epoch += 1;
            }
            Step::Restart(piece) => self.follower = rebuilt(&self.leader, *piece),
        }
    }

    /// Preprocesses a request. An answer given at once must be true now, and, its version
    /// aside, must be what it would have been behind all proposals.
    fn ask(&mut self, request: &Request) {
        let mut txn = Vec::new();
        match self.leader.preprocess(request, &mut txn) {
            Decision::Propose => self.proposed.push_back((request.clone(), txn)),
            Decision::Answer(outcome) => {
                let mut model = self.committed.clone();
                let mut zxid = self.next_zxid();
                assert_eq!(outcome, model.apply(zxid, request), "{request:?}");
                let mut model = self.committed.clone();
                for (earlier, _) in &self.proposed {
                    model.apply(zxid, earlier);
                    zxid = zxid.next();
                }
                let behind = model.apply(zxid, request);
                assert_eq!(unversioned(outcome), unversioned(behind), "{request:?}");
            }
        }
    }

    fn commit(&mut self) {
        let Some((request, txn)) = self.proposed.pop_front() else {
            return;
        };
        let zxid = self.next_zxid();
        let before = self.committed.clone();
        let expected = self.committed.apply(zxid, &request);
        let mut out = Applied::default();
        self.leader.apply(zxid, &txn, &mut out).unwrap();
        assert_eq!(out.outcome, expected, "{request:?}");
        self.check_groups(&before, &out);
        self.check_sessions(&before, &out);
        let digest = self.leader.digest();
        let again = out.clone();
        // The same transaction once more, and an older one: both are passed over.
        self.leader.apply(zxid, &txn, &mut out).unwrap();
        self.leader.apply(self.last, &txn, &mut out).unwrap();
        assert_eq!(out, Applied::default());
        assert_eq!(self.leader.digest(), digest);
        self.follower.apply(zxid, &txn, &mut out).unwrap();
        assert_eq!(out, again);
        assert_eq!(self.follower.digest(), digest);
        self.last = zxid;
    }

    fn check_groups(&self, before: &Model, out: &Applied) {
        let mut expected = Vec::new();
        let names: BTreeSet<_> = before
            .groups
            .keys()
            .chain(self.committed.groups.keys())
            .collect();
        for name in names {
            let (old, new) = (before.groups.get(name), self.committed.groups.get(name));
            let (kind, version) = match (old, new) {
                (None, Some(new)) => (GroupChangeKind::Created, new.version),
                (Some(old), None) => (GroupChangeKind::Removed, old.version),
                (Some(old), Some(new)) if old.version != new.version => {
                    assert_eq!(new.version, old.version + 1);
                    (GroupChangeKind::Changed, new.version)
                }
                _ => continue,
            };
            expected.push(GroupChange {
                group: name[..].into(),
                version: GroupVersion(version),
                kind,
            });
        }
        assert_eq!(out.groups, expected);
    }

    fn check_sessions(&self, before: &Model, out: &Applied) {
        let (old, new) = (before.sessions(), self.committed.sessions());
        let ended: Vec<_> = old.keys().filter(|id| !new.contains_key(id)).collect();
        let mut reported: Vec<_> = out.ended.iter().map(|e| &e.id).collect();
        reported.sort_unstable();
        assert_eq!(reported, ended);
        for end in &out.ended {
            let (group, member, session) = &old[&end.id];
            assert_eq!((&end.group[..], &end.member[..]), (&group[..], &member[..]));
            assert_eq!(end.owner, session.owner);
        }
        let changed = new.iter().filter(|(id, s)| old.get(id) != Some(s));
        let changed: Vec<_> = changed
            .map(|(id, (group, member, session))| SessionChange {
                group: group[..].into(),
                member: member[..].into(),
                session: *session,
                created: !old.contains_key(id),
            })
            .collect();
        // A config written by a renewal reports the session too, though it is the same.
        let reported: Vec<_> = out
            .sessions
            .iter()
            .filter(|s| s.created || old.get(&s.session.id).map(|o| o.2) != Some(s.session))
            .cloned()
            .collect();
        assert_eq!(reported, changed);
    }

    /// Everything there is to ask, asked of the leader.
    fn check_all(&self) {
        let model = &self.committed;
        let listed: Vec<_> = self.leader.list(None, usize::MAX).collect();
        assert_eq!(listed.len(), model.groups.len());
        let mut members = 0;
        for (summary, (name, group)) in listed.iter().zip(&model.groups) {
            let active = group
                .members
                .values()
                .filter(|m| m.session.is_some())
                .count();
            assert_eq!(summary.name, name);
            assert_eq!(summary.version.0, group.version);
            assert_eq!(summary.active as usize, active);
            assert_eq!(summary.inactive as usize, group.members.len() - active);
            members += group.members.len() as u64;
            assert_eq!(rendered(&self.leader, name), group.document());
            self.leader.group(name).unwrap().members.check();
            for member in group.members.keys().map(|m| Some(&m[..])).chain([None]) {
                let shown = self.leader.config(name, member);
                let expected = model.config(name, member);
                assert_eq!(
                    shown.map(|c| c.bytes),
                    expected.as_ref().map(|c| &c.bytes[..])
                );
                assert_eq!(
                    shown.map(|c| c.version),
                    expected.as_ref().map(|c| c.version)
                );
            }
        }
        assert_eq!(self.leader.members_len(), members);
        self.leader.groups.check();
        self.leader.tombstones.check();
        let mut active = BTreeMap::new();
        self.leader.for_each_active(|a| {
            let names = (a.group.to_vec(), a.member.to_vec(), a.session);
            assert!(active.insert(a.session.id, names).is_none());
        });
        assert_eq!(active, model.sessions());
    }

    fn next_zxid(&self) -> Zxid {
        match self.last.epoch.0 == self.epoch {
            true => self.last.next(),
            false => Zxid::new(Epoch(self.epoch), 1),
        }
    }

    fn request(&mut self, ask: &Ask) -> Request {
        let require = |i: u8, current: Option<u64>| match i {
            0 => Require::Exists,
            1 => Require::Absent,
            2 => Require::OneOf(current.into_iter().chain([9_999]).collect()),
            3 => Require::OneOf(vec![9_999]),
            _ => Require::Nothing,
        };
        match ask {
            Ask::Join {
                at,
                timeout,
                config: text,
                takeover,
                absent,
                owner,
            } => Request::Join(super::Join {
                group: group_name(at.0).into(),
                member: member_name(at.1).into(),
                timeout: timeout.map(|t| Millis(u64::from(t))),
                config: text.map(config),
                takeover: *takeover,
                only_if_absent: *absent,
                owner: ServerId(u32::from(*owner)),
                incarnation: Incarnation(u64::from(*owner) << 40),
            }),
            Ask::Leave { at, session } => Request::Leave {
                group: group_name(at.0).into(),
                member: member_name(at.1).into(),
                session: self.which(*at, *session),
            },
            Ask::SetConfig {
                at,
                config: text,
                require: i,
            } => {
                let member = at.1.map(member_name);
                let current = self.committed.config(&group_name(at.0), member.as_deref());
                Request::SetConfig {
                    group: group_name(at.0).into(),
                    member: member.map(Into::into),
                    bytes: config(*text),
                    require: require(*i, current.map(|c| c.version)),
                }
            }
            Ask::DeleteConfig { at, require: i } => {
                let member = at.1.map(member_name);
                let current = self.committed.config(&group_name(at.0), member.as_deref());
                Request::DeleteConfig {
                    group: group_name(at.0).into(),
                    member: member.map(Into::into),
                    require: require(*i, current.map(|c| c.version)),
                }
            }
            Ask::DeleteGroup { group } => Request::DeleteGroup {
                group: group_name(*group).into(),
            },
            Ask::Expire(lapses) => Request::Expire(
                lapses
                    .iter()
                    .map(|(at, which, wrong_term)| {
                        let (group, member) = (group_name(at.0), member_name(at.1));
                        let session = self.committed.session(&group, &member);
                        let term = session.map_or(1, |s| s.term.0) + u32::from(*wrong_term);
                        Lapse {
                            group: group.into(),
                            member: member.into(),
                            id: self.which(*at, *which).unwrap_or_default(),
                            term: Term(term),
                        }
                    })
                    .collect(),
            ),
        }
    }

    fn which(&mut self, at: (u8, u8), which: Which) -> Option<SessionId> {
        let names = (group_name(at.0), member_name(at.1));
        let current = self.committed.session(&names.0, &names.1).map(|s| s.id);
        let older = self.older_ids.entry(names).or_default();
        older.extend(current);
        match which {
            Which::None => None,
            Which::Current => current,
            Which::Older => older.first().copied(),
            Which::NeverIssued => Some(SessionId(u128::MAX)),
        }
    }
}

fn unversioned(mut outcome: Outcome) -> Outcome {
    if let Outcome::Joined(Joined { version, .. }) = &mut outcome {
        *version = GroupVersion(0);
    }
    outcome
}

fn rendered(state: &State, group: &[u8]) -> String {
    let mut out = Vec::new();
    let mut document = state.document(group).unwrap();
    while document.render_into(&["a:1", "b:2"], &mut out, 100) {}
    text(&out)
}

/// The state as it comes out of a snapshot written and read in pieces.
fn rebuilt(state: &State, piece: usize) -> State {
    let mut snapshot = state.snapshot();
    let mut restore = Restore::new(SETTINGS);
    let mut bytes = Vec::new();
    while snapshot.write_into(&mut bytes, piece) {}
    for part in bytes.chunks(piece) {
        restore.feed(part).unwrap();
    }
    restore.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_as_the_model_tells_it(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::founded();
        for (i, step) in steps.iter().enumerate() {
            world.run(step);
            if i % 16 == 0 {
                world.check_all();
            }
        }
        while !world.proposed.is_empty() {
            world.commit();
        }
        world.check_all();
    }
}
