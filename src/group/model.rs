//! The state machine held against a naive one, over random histories.
//!
//! The model, in `naive.rs`, keeps plain maps and knows nothing of leaves, transactions or
//! proposals. Here are the histories and the comparison.

mod naive;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use naive::{Model, Name, text};
use proptest::prelude::*;

use super::*;
use smallvec::SmallVec;

use crate::time::Millis;
use crate::types::{Epoch, GroupVersion, Incarnation, ServerId, SessionId, Term, Zxid};

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
        stale: bool,
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
    Move {
        owner: u8,
        stale: bool,
        lapses: Vec<((u8, u8), Which, bool)>,
    },
    Adopt {
        server: u8,
        piece: Piece,
        limit: u32,
    },
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    /// A new run starts.
    First,
    /// The run that adopted last goes on where it was, done or overtaken though it may be.
    Next,
    /// An earlier run goes on, from anywhere.
    Stale(u8, u8),
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
    let piece = prop_oneof![
        3 => Just(Piece::First),
        6 => Just(Piece::Next),
        1 => (0u8..3, 0u8..40).prop_map(|(group, member)| Piece::Stale(group, member)),
    ];
    prop_oneof![
        8 => (at(), timeout, config, (rare(), rare(), rare()), 1u8..4).prop_map(
            |(at, timeout, config, (takeover, absent, stale), owner)| Ask::Join {
                at, timeout, config, takeover, absent, owner, stale,
            }
        ),
        2 => (at(), which()).prop_map(|(at, session)| Ask::Leave { at, session }),
        2 => (config_at(), 0u8..8, 0u8..5)
            .prop_map(|(at, config, require)| Ask::SetConfig { at, config, require }),
        1 => (config_at(), 0u8..5).prop_map(|(at, require)| Ask::DeleteConfig { at, require }),
        1 => (0u8..3).prop_map(|group| Ask::DeleteGroup { group }),
        2 => prop::collection::vec(lapse.clone(), 0..30).prop_map(Ask::Expire),
        2 => (1u8..4, rare(), prop::collection::vec(lapse, 0..30))
            .prop_map(|(owner, stale, lapses)| Ask::Move { owner, stale, lapses }),
        2 => (1u8..4, piece, prop::sample::select(vec![1, 2, 7, 40, 1_000]))
            .prop_map(|(server, piece, limit)| Ask::Adopt { server, piece, limit }),
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
    /// Where the adoption of each server has come to: the last outcome.
    adopted: BTreeMap<ServerId, (Incarnation, Option<Place>)>,
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
            adopted: BTreeMap::new(),
        };
        world.ask(&Request::Genesis { birth_s: 77 });
        world.commit();
        for server in 1..3 {
            let (piece, limit) = (Piece::First, 1);
            let first = world.request(&Ask::Adopt {
                server,
                piece,
                limit,
            });
            world.ask(&first);
            world.commit();
        }
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
        match self.decided(request, &mut txn) {
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

    /// What the leader decides: of a request of its own clients, or of one that was made a
    /// transaction by the follower, which finds the answer itself.
    fn decided(&mut self, request: &Request, txn: &mut Vec<u8>) -> Decision {
        if self.last.counter.is_multiple_of(2) {
            return self.leader.preprocess(request, txn);
        }
        if let Err(refusal) = self.follower.encode(request, txn) {
            return Decision::Answer(Outcome::Refused(refusal));
        }
        match self.leader.decide(txn).unwrap() {
            Verdict::Propose => Decision::Propose,
            Verdict::Idle => Decision::Answer(self.follower.idle_outcome(txn).unwrap().unwrap()),
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
        if let (Request::Adopt { server, .. }, Outcome::Adopted { incarnation, next }) =
            (&request, &out.outcome)
        {
            self.adopted.insert(*server, (*incarnation, next.clone()));
        }
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
            assert_eq!((end.owner, end.incarnation), session.run());
        }
        let changed = new.iter().filter(|(id, s)| old.get(id) != Some(s));
        let from = |id| old.get(id).map(|(_, _, old)| old.run());
        let changed: Vec<_> = changed
            .map(|(id, (group, member, session))| SessionChange {
                group: group[..].into(),
                member: SmallVec::from_slice(member),
                session: *session,
                created: !old.contains_key(id),
                from: from(id).filter(|run| *run != session.run()),
            })
            .collect();
        // A config written by a renewal reports the session too, though it is the same.
        let mut reported: Vec<_> = out
            .sessions
            .iter()
            .filter(|s| s.created || old.get(&s.session.id).map(|o| o.2) != Some(s.session))
            .cloned()
            .collect();
        reported.sort_by_key(|s| s.session.id);
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
        self.check_owners();
    }

    fn check_owners(&self) {
        let mut owned: BTreeMap<_, Vec<_>> = BTreeMap::new();
        self.leader.for_each_active(|a| {
            let names = (a.group.to_vec(), a.member.to_vec(), a.session);
            owned.entry(a.session.run()).or_default().push(names);
        });
        let counts = owned
            .iter()
            .map(|(run, all)| (run.0, run.1, all.len() as u64));
        assert!(self.leader.owners().eq(counts));
        assert!(self.follower.owners().eq(self.leader.owners()));
        for server in 0..5 {
            let server = ServerId(server);
            let recorded = self.committed.runs.get(&server).copied();
            assert_eq!(self.leader.incarnation_of(server), recorded);
        }
        for ((server, incarnation), all) in owned {
            for limit in [1, 7, 1_000] {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let before = found.len();
                    let each = |a: ActiveSession<'_>| {
                        found.push((a.group.to_vec(), a.member.to_vec(), a.session));
                    };
                    after =
                        (self.leader).scan_owner(server, incarnation, after.as_ref(), limit, each);
                    assert!(found.len() - before <= limit);
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(found, all);
            }
        }
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
                stale,
            } => Request::Join(super::Join {
                group: group_name(at.0).into(),
                member: member_name(at.1).into(),
                timeout: timeout.map(|t| Millis(u64::from(t))),
                config: text.map(config),
                takeover: *takeover,
                only_if_absent: *absent,
                owner: ServerId(u32::from(*owner)),
                incarnation: self.run_of(*owner, *stale),
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
            Ask::Expire(lapses) => Request::Expire(self.lapses(lapses)),
            Ask::Move {
                owner,
                stale,
                lapses,
            } => Request::Move {
                owner: ServerId(u32::from(*owner)),
                incarnation: self.run_of(*owner, *stale),
                lapses: self.lapses(lapses),
            },
            Ask::Adopt {
                server,
                piece,
                limit,
            } => self.adoption(*server, *piece, *limit),
        }
    }

    /// The recorded run of a server, or the one before.
    fn run_of(&self, server: u8, stale: bool) -> Incarnation {
        let recorded = self.committed.runs.get(&ServerId(u32::from(server)));
        let recorded = recorded.map_or(0, |recorded| recorded.0);
        Incarnation(recorded.saturating_sub(u64::from(stale)))
    }

    fn adoption(&self, server: u8, piece: Piece, limit: u32) -> Request {
        let id = ServerId(u32::from(server));
        // Numbers of several lengths, far apart for some servers.
        let new = Incarnation(self.run_of(server, false).0 + (1 << (server * 13)));
        let (incarnation, after) = match piece {
            Piece::First => (new, None),
            Piece::Next => self.adopted.get(&id).cloned().unwrap_or((new, None)),
            Piece::Stale(group, member) => {
                let place = (group_name(group).into(), member_name(member).into());
                (self.run_of(server, true), Some(place))
            }
        };
        Request::Adopt {
            server: id,
            incarnation,
            after,
            limit,
        }
    }

    fn lapses(&mut self, lapses: &[((u8, u8), Which, bool)]) -> Vec<Lapse> {
        let mut made = Vec::new();
        for (at, which, wrong_term) in lapses {
            let (group, member) = (group_name(at.0), member_name(at.1));
            let session = self.committed.session(&group, &member);
            let term = session.map_or(1, |s| s.term.0) + u32::from(*wrong_term);
            made.push(Lapse {
                group: group.into(),
                member: member.into(),
                id: self.which(*at, *which).unwrap_or_default(),
                term: Term(term),
            });
        }
        made
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
