//! Tests of `ownership.rs`: stale runs and sessions, pieces, what the leader may answer at
//! once. That any history goes as it should is the business of `model.rs`.

use super::*;
use crate::group::{
    Corrupt, Decision, Join, Lapse, Refusal, Request, Require, Session, Settings, Verdict,
};
use crate::time::Millis;
use crate::types::{Epoch, GroupVersion, Term, Zxid};

/// A leader with three servers, each in its run 1.
struct World {
    state: State,
    out: Applied,
}

impl World {
    fn unfounded() -> World {
        let settings = Settings {
            default_timeout: Millis(10_000),
            seeds: [0; 4],
        };
        let out = Applied::default();
        let state = State::new(settings);
        World { state, out }
    }

    fn founded() -> World {
        let mut world = World::unfounded();
        world.commit(&Request::Genesis { birth_s: 5 });
        (1..=3).for_each(|server| drop(world.commit(&adopt(server, 1))));
        world
    }

    fn propose(&mut self, request: &Request) -> Vec<u8> {
        let mut txn = Vec::new();
        let decision = self.state.preprocess(request, &mut txn);
        assert_eq!(decision, Decision::Propose, "{request:?}");
        txn
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        match self.state.preprocess(request, &mut Vec::new()) {
            Decision::Answer(outcome) => outcome,
            Decision::Propose => panic!("{request:?} was proposed"),
        }
    }

    fn apply(&mut self, txn: &[u8]) -> Outcome {
        let applied = self.state.applied();
        let zxid = match applied {
            Zxid::ZERO => Zxid::new(Epoch(1), 1),
            applied => applied.next(),
        };
        self.state.apply(zxid, txn, &mut self.out).unwrap();
        self.out.outcome.clone()
    }

    fn commit(&mut self, request: &Request) -> Outcome {
        let txn = self.propose(request);
        self.apply(&txn)
    }

    fn session(&self, member: &str) -> Session {
        self.state.session(b"g", member.as_bytes()).unwrap()
    }

    fn lapse(&self, member: &str) -> Lapse {
        let session = self.session(member);
        Lapse {
            group: b"g"[..].into(),
            member: member.as_bytes().into(),
            id: session.id,
            term: session.term,
        }
    }

    fn owners(&self) -> Vec<(u32, u64, u64)> {
        let owners = self.state.owners();
        owners.map(|(s, i, count)| (s.0, i.0, count)).collect()
    }
}

fn join_at(server: u32, incarnation: u64, group: &str, member: &str) -> Request {
    Request::Join(Join {
        group: group.as_bytes().into(),
        member: member.as_bytes().into(),
        timeout: None,
        config: None,
        takeover: false,
        only_if_absent: false,
        owner: ServerId(server),
        incarnation: Incarnation(incarnation),
    })
}

fn adopt_after(server: u32, incarnation: u64, after: Option<Place>, limit: u32) -> Request {
    Request::Adopt {
        server: ServerId(server),
        incarnation: Incarnation(incarnation),
        after,
        limit,
    }
}

fn adopt(server: u32, incarnation: u64) -> Request {
    adopt_after(server, incarnation, None, 1_000)
}

fn move_to(server: u32, incarnation: u64, lapses: Vec<Lapse>) -> Request {
    Request::Move {
        owner: ServerId(server),
        incarnation: Incarnation(incarnation),
        lapses,
    }
}

fn place(group: &str, member: &str) -> Option<Place> {
    Some((group.as_bytes().into(), member.as_bytes().into()))
}

fn moved(moved: u32, stale: &[SessionId]) -> Outcome {
    Outcome::Moved {
        moved,
        stale: stale.to_vec(),
    }
}

fn adopted(incarnation: u64, next: Option<Place>) -> Outcome {
    Outcome::Adopted {
        incarnation: Incarnation(incarnation),
        next,
    }
}

const STALE: Outcome = Outcome::Refused(Refusal::StaleOwner);

#[test]
fn a_run_that_is_not_recorded_is_given_nothing() {
    let mut world = World::founded();
    for (server, incarnation) in [(1, 0), (1, 2), (4, 1), (0, 0)] {
        assert_eq!(world.answer(&join_at(server, incarnation, "g", "a")), STALE);
    }
    world.commit(&join_at(1, 1, "g", "a"));
    let lapse = world.lapse("a");
    for (server, incarnation) in [(2, 0), (2, 2), (4, 1)] {
        let request = move_to(server, incarnation, vec![lapse.clone()]);
        assert_eq!(world.answer(&request), moved(0, &[lapse.id]));
    }
    assert_eq!(world.owners(), [(1, 1, 1)]);
}

#[test]
fn what_a_run_proposed_is_refused_once_the_next_is_recorded() {
    let mut world = World::founded();
    world.commit(&join_at(1, 1, "g", "a"));
    let lapse = world.lapse("a");
    let adoption = world.propose(&adopt(2, 2));
    let join = world.propose(&join_at(2, 1, "g", "b"));
    let renewal = world.propose(&join_at(2, 1, "g", "a"));
    let movement = world.propose(&move_to(2, 1, vec![lapse.clone()]));
    assert_eq!(world.apply(&adoption), adopted(2, None));
    assert_eq!(world.apply(&join), STALE);
    assert_eq!(world.apply(&renewal), STALE);
    assert_eq!(world.apply(&movement), moved(0, &[lapse.id]));
    assert_eq!(world.session("a").run(), (ServerId(1), Incarnation(1)));
    assert_eq!(world.state.members_len(), 1);
}

#[test]
fn an_incarnation_is_recorded_once() {
    let mut world = World::founded();
    // Two runs of one server that know of the same last one.
    let first = world.propose(&adopt(1, 2));
    let twin = world.propose(&adopt(1, 2));
    assert_eq!(world.apply(&first), adopted(2, None));
    assert_eq!(world.apply(&twin), STALE);
    assert_eq!(world.answer(&adopt(1, 1)), STALE);
    assert_eq!(world.answer(&adopt_after(1, 1, place("g", ""), 9)), STALE);
    assert_eq!(world.answer(&adopt_after(1, 3, place("g", ""), 9)), STALE);
    assert_eq!(
        world.state.incarnation_of(ServerId(1)),
        Some(Incarnation(2))
    );
    assert_eq!(world.state.incarnation_of(ServerId(4)), None);
}

#[test]
fn a_session_moves_in_its_term_alone_and_shows_nothing_of_it() {
    let mut world = World::founded();
    world.commit(&join_at(1, 1, "g", "a"));
    let (old, lapse) = (world.session("a"), world.lapse("a"));
    assert_eq!(
        world.commit(&move_to(2, 1, vec![lapse.clone()])),
        moved(1, &[])
    );
    let new = world.session("a");
    assert_eq!(new.run(), (ServerId(2), Incarnation(1)));
    assert_eq!(
        (new.id, new.term, new.timeout),
        (old.id, Term(2), old.timeout)
    );
    let [change] = &world.out.sessions[..] else {
        panic!("{:?}", world.out);
    };
    assert_eq!((change.session, change.from), (new, Some(old.run())));
    assert!(!change.created && world.out.groups.is_empty() && world.out.ended.is_empty());
    assert_eq!(world.state.version(b"g"), Some(GroupVersion(0)));
    // The same move again, an expiry by the first owner, and a move to where it is.
    let again = world.commit(&move_to(3, 1, vec![lapse.clone()]));
    assert_eq!(again, moved(0, &[old.id]));
    let expired = world.commit(&Request::Expire(vec![lapse]));
    assert!(matches!(expired, Outcome::Expired { ended: 0, .. }));
    let here = move_to(2, 1, vec![world.lapse("a")]);
    assert_eq!(world.commit(&here), moved(0, &[old.id]));
    assert_eq!(world.session("a"), new);
    assert_eq!(world.owners(), [(2, 1, 1)]);
}

#[test]
fn a_session_whose_terms_are_used_up_does_not_move() {
    let mut world = World::founded();
    world.commit(&join_at(1, 1, "g", "a"));
    let old = world.session("a");
    let last = Session {
        term: Term(u32::MAX),
        ..old
    };
    let pos = world.state.find(b"g").unwrap();
    let members = &mut Arc::make_mut(world.state.groups.at_mut(pos)).members;
    let become_last = |_: usize, _: Option<Entry<'_>>| Fate::Becomes(last);
    let names = |i: usize| (i == 0).then_some(&b"a"[..]);
    members.revise(names, become_last, &mut Vec::new());
    let request = move_to(2, 1, vec![world.lapse("a")]);
    assert_eq!(world.commit(&request), moved(0, &[old.id]));
    assert_eq!(world.commit(&adopt(1, 2)), adopted(2, None));
    assert_eq!(world.session("a"), last, "and its owner is no more");
    assert_eq!(world.owners(), [(1, 1, 1)]);
    // A client that joins elsewhere is a new session.
    let Outcome::Joined(joined) = world.commit(&join_at(2, 1, "g", "a")) else {
        panic!("a join succeeds");
    };
    assert!(joined.created && joined.session > old.id);
    assert_eq!(world.out.ended[0].id, old.id);
    assert_eq!(world.out.sessions[0].from, None);
    assert_eq!(world.owners(), [(2, 1, 1)]);
}

#[test]
fn an_adoption_takes_its_own_sessions_piece_by_piece() {
    let mut world = World::founded();
    for (i, member) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        world.commit(&join_at(1 + (i % 2) as u32, 1, "g", member));
    }
    world.commit(&join_at(1, 1, "h", "a"));
    let piece = adopt_after(1, 2, None, 3);
    assert_eq!(world.commit(&piece), adopted(2, place("g", "c")));
    assert_eq!(world.owners(), [(1, 1, 2), (1, 2, 2), (2, 1, 2)]);
    assert_eq!(world.out.sessions.len(), 2);
    // What lies before the place, and the place itself, are not looked at again. The place
    // itself goes, and so does its group.
    world.commit(&Request::Expire(vec![world.lapse("c")]));
    let piece = adopt_after(1, 2, place("g", "c"), 2);
    assert_eq!(world.commit(&piece), adopted(2, place("g", "e")));
    let piece = adopt_after(1, 2, place("g", "e"), 1);
    assert_eq!(world.commit(&piece), adopted(2, place("h", "")));
    let piece = adopt_after(1, 2, place("gone", "x"), 2);
    assert_eq!(world.commit(&piece), adopted(2, None));
    assert_eq!(world.owners(), [(1, 2, 3), (2, 1, 2)]);
    let (a, b) = (world.session("a"), world.session("b"));
    assert_eq!((a.term, a.incarnation), (Term(2), Incarnation(2)));
    assert_eq!((b.term, b.run()), (Term(1), (ServerId(2), Incarnation(1))));
    assert_eq!(
        world.state.version(b"g"),
        Some(GroupVersion(5)),
        "joins and one expiry"
    );
}

#[test]
fn groups_without_members_cost_their_share_of_a_piece() {
    let mut world = World::founded();
    for group in ["a", "b", "c", "d"] {
        world.commit(&Request::SetConfig {
            group: group.as_bytes().into(),
            member: None,
            bytes: Box::from(&b"c"[..]),
            require: Require::Nothing,
        });
    }
    world.commit(&join_at(1, 1, "e", "m"));
    let piece = adopt_after(1, 2, None, 2);
    assert_eq!(world.commit(&piece), adopted(2, place("c", "")));
    let piece = adopt_after(1, 2, place("c", ""), 3);
    assert_eq!(world.commit(&piece), adopted(2, place("e", "m")));
    assert_eq!(world.owners(), [(1, 2, 1)]);
    // A limit of nothing would never get on.
    let mut after = None;
    for _ in 0..5 {
        after = world
            .state
            .scan_owner(ServerId(1), Incarnation(2), after.as_ref(), 0, |_| {});
        assert!(after.is_some());
    }
    assert_eq!(after, place("e", "m"));
    assert_eq!(
        world.commit(&adopt_after(1, 3, None, 0)),
        adopted(3, place("b", ""))
    );
}

#[test]
fn before_the_genesis_runs_are_recorded_and_nothing_joins() {
    let mut world = World::unfounded();
    assert_eq!(world.answer(&join_at(1, 1, "g", "a")), STALE);
    assert_eq!(world.commit(&adopt(1, 1)), adopted(1, None));
    assert_eq!(world.answer(&join_at(1, 1, "g", "a")), STALE);
    world.commit(&Request::Genesis { birth_s: 1 });
    let joined = world.commit(&join_at(1, 1, "g", "a"));
    assert!(matches!(joined, Outcome::Joined(_)));
}

#[test]
fn nothing_of_a_server_is_answered_while_its_adoption_is_under_way() {
    let mut world = World::founded();
    world.commit(&join_at(1, 1, "g", "a"));
    let renewal = join_at(1, 1, "g", "a");
    assert!(matches!(world.answer(&renewal), Outcome::Joined(_)));
    let adoption = world.propose(&adopt(1, 2));
    let early = world.propose(&join_at(1, 2, "g", "b"));
    let late = world.propose(&renewal);
    let movement = world.propose(&move_to(1, 2, Vec::new()));
    // Others are not concerned.
    assert_eq!(world.answer(&join_at(2, 9, "g", "c")), STALE);
    world.apply(&adoption);
    assert!(matches!(world.apply(&early), Outcome::Joined(joined) if joined.created));
    assert_eq!(world.apply(&late), STALE);
    assert_eq!(world.apply(&movement), moved(0, &[]));
    assert_eq!(world.answer(&renewal), STALE);
    // One withdrawn, and one of a leader that fell, stand in nobody's way.
    let withdrawn = world.propose(&adopt(1, 3));
    world.state.withdraw(&withdrawn);
    assert_eq!(world.answer(&renewal), STALE);
    world.propose(&adopt(1, 3));
    world.state.abandon_in_flight();
    assert_eq!(world.answer(&renewal), STALE);
}

#[test]
fn a_member_on_the_move_is_not_answered_for() {
    let mut world = World::founded();
    world.commit(&join_at(1, 1, "g", "a"));
    let movement = world.propose(&move_to(2, 1, vec![world.lapse("a")]));
    let renewal = world.propose(&join_at(1, 1, "g", "a"));
    world.apply(&movement);
    world.apply(&renewal);
    let session = world.session("a");
    assert_eq!((session.owner, session.term), (ServerId(1), Term(3)));
}

#[test]
fn a_transaction_made_elsewhere_is_decided_upon_and_answered_elsewhere() {
    let (mut leader, mut taker) = (World::founded(), World::founded());
    let mut txn = b"before".to_vec();
    let request = join_at(2, 1, "g", "a");
    taker.state.encode(&request, &mut txn).unwrap();
    assert_eq!(&txn[..6], b"before", "what is there stays");
    let txn = &txn[6..];
    assert_eq!(taker.state.idle_outcome(txn), Ok(None));
    assert_eq!(leader.state.decide(txn), Ok(Verdict::Propose));
    assert_eq!(
        leader.state.decide(txn),
        Ok(Verdict::Propose),
        "it is under way"
    );
    leader.apply(txn);
    leader.apply(txn);
    assert_eq!(leader.state.decide(txn), Ok(Verdict::Idle));
    taker.apply(txn);
    let outcome = taker.state.idle_outcome(txn).unwrap();
    assert!(matches!(outcome, Some(Outcome::Joined(joined)) if !joined.created));
    let mut none = Vec::new();
    let refused = taker.state.encode(&join_at(2, 1, "", "a"), &mut none);
    assert_eq!((refused, none), (Err(Refusal::BadName), Vec::new()));
    let corrupt: Result<_, Corrupt> = leader.state.decide(b"x");
    assert!(corrupt.is_err() && taker.state.idle_outcome(b"x").is_err());
}
