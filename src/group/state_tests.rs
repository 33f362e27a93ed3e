//! Tests of the state: limits, verdicts on beats, stale transactions, the table of what is
//! in flight. That histories go as they should is the business of `model.rs`.

use super::*;
use crate::group::{Applied, Join, Lapse, Require};
use crate::types::{Epoch, Incarnation, ServerId, Term};

struct Leader {
    state: State,
    next: Zxid,
    out: Applied,
}

impl Leader {
    fn founded() -> Leader {
        let settings = Settings {
            default_timeout: Millis(10_000),
            seeds: [0; 4],
        };
        let mut leader = Leader {
            state: State::new(settings),
            next: Zxid::new(Epoch(1), 1),
            out: Applied::default(),
        };
        leader.commit(&Request::Genesis { birth_s: 5 });
        leader.commit(&adopt(1, 1));
        leader
    }

    fn propose(&mut self, request: &Request) -> Vec<u8> {
        let mut txn = Vec::new();
        let decision = self.state.preprocess(request, &mut txn);
        assert_eq!(decision, Decision::Propose, "{request:?}");
        txn
    }

    fn apply(&mut self, txn: &[u8]) -> Outcome {
        self.state.apply(self.next, txn, &mut self.out).unwrap();
        self.next = self.next.next();
        self.out.outcome.clone()
    }

    fn commit(&mut self, request: &Request) -> Outcome {
        let txn = self.propose(request);
        self.apply(&txn)
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        match self.state.preprocess(request, &mut Vec::new()) {
            Decision::Answer(outcome) => outcome,
            Decision::Propose => panic!("{request:?} was proposed"),
        }
    }

    fn session(&self, member: &str) -> Session {
        self.state.session(b"g", member.as_bytes()).unwrap()
    }
}

fn join_to(group: &str, member: &str) -> Join {
    Join {
        group: group.as_bytes().into(),
        member: member.as_bytes().into(),
        timeout: None,
        config: None,
        takeover: false,
        only_if_absent: false,
        owner: ServerId(1),
        incarnation: Incarnation(1),
    }
}

fn adopt(server: u32, incarnation: u64) -> Request {
    Request::Adopt {
        server: ServerId(server),
        incarnation: Incarnation(incarnation),
        after: None,
        limit: 1_000,
    }
}

fn join(member: &str) -> Request {
    Request::Join(join_to("g", member))
}

fn leave(member: &str) -> Request {
    Request::Leave {
        group: Box::from(&b"g"[..]),
        member: member.as_bytes().into(),
        session: None,
    }
}

fn configure(group: &str, member: Option<&str>) -> Request {
    Request::SetConfig {
        group: group.as_bytes().into(),
        member: member.map(|m| m.as_bytes().into()),
        bytes: Box::from(&b"c"[..]),
        require: Require::Nothing,
    }
}

fn delete_group() -> Request {
    let group = Box::from(&b"g"[..]);
    Request::DeleteGroup { group }
}

fn expire(member: &str, id: SessionId, term: Term) -> Request {
    Request::Expire(vec![Lapse {
        group: b"g"[..].into(),
        member: member.as_bytes().into(),
        id,
        term,
    }])
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

#[test]
fn a_beat_that_finds_no_session_is_told_why() {
    let mut leader = Leader::founded();
    leader.commit(&join("a"));
    let first = leader.session("a");
    leader.commit(&leave("a"));
    leader.commit(&join("a"));
    let second = leader.session("a");
    leader.commit(&join("b"));
    leader.commit(&leave("b"));
    let state = &leader.state;
    assert_eq!(state.status(b"g", b"a", None), Status::Active(second));
    assert_eq!(
        state.status(b"g", b"a", Some(second.id)),
        Status::Active(second)
    );
    assert_eq!(
        state.status(b"g", b"a", Some(first.id)),
        Status::OtherSession
    );
    assert_eq!(state.status(b"g", b"b", None), Status::NotFound);
    assert_eq!(state.status(b"g", b"b", Some(first.id)), Status::Gone);
    assert_eq!(state.status(b"h", b"b", Some(state.newest())), Status::Gone);
    let unissued = SessionId(state.newest().0 + 1);
    assert_eq!(state.status(b"g", b"b", Some(unissued)), Status::NotFound);
}

#[test]
fn a_stale_expiry_changes_nothing() {
    let mut leader = Leader::founded();
    leader.commit(&join("a"));
    let old = leader.session("a");
    let takeover = Request::Join(Join {
        takeover: true,
        ..join_to("g", "a")
    });
    leader.commit(&takeover);
    let new = leader.session("a");
    assert!(new.id > old.id);
    let version = leader.state.version(b"g");
    for (id, term) in [
        (old.id, old.term),
        (new.id, Term(2)),
        (SessionId(0), Term(1)),
    ] {
        let stale = Outcome::Expired {
            ended: 0,
            stale: vec![id],
        };
        assert_eq!(leader.commit(&expire("a", id, term)), stale);
        assert!(leader.out.ended.is_empty() && leader.out.groups.is_empty());
    }
    assert_eq!(leader.session("a"), new);
    assert_eq!(leader.state.version(b"g"), version);
}

#[test]
fn a_takeover_ends_and_creates_and_shows_nothing_new() {
    let mut leader = Leader::founded();
    leader.commit(&join("a"));
    let old = leader.session("a");
    let outcome = leader.commit(&Request::Join(Join {
        takeover: true,
        ..join_to("g", "a")
    }));
    let Outcome::Joined(joined) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(joined.created);
    assert_eq!(joined.version, GroupVersion(0), "the document is as before");
    assert_eq!(leader.out.ended[0].id, old.id);
    assert_eq!(leader.out.sessions[0].session.id, joined.session);
}

#[test]
fn a_renewal_at_another_server_moves_the_session() {
    let mut leader = Leader::founded();
    leader.commit(&join("a"));
    let old = leader.session("a");
    // Another server's: the same server's own would have been adopted.
    leader.commit(&adopt(2, 2));
    let elsewhere = Request::Join(Join {
        owner: ServerId(2),
        incarnation: Incarnation(2),
        ..join_to("g", "a")
    });
    let Outcome::Joined(joined) = leader.commit(&elsewhere) else {
        panic!("a renewal succeeds");
    };
    assert_eq!((joined.session, joined.term), (old.id, Term(2)));
    assert!(!joined.created);
    let from = Some((ServerId(1), Incarnation(1)));
    assert_eq!(leader.out.sessions[0].from, from);
    // What the first owner still has to say about it is stale.
    leader.commit(&expire("a", old.id, old.term));
    assert_eq!(leader.session("a").incarnation, Incarnation(2));
}

#[test]
fn an_expiry_of_many_members_is_one_step_of_the_version() {
    let mut leader = Leader::founded();
    let names: Vec<String> = (0..500).map(|i| format!("m{i:03}")).collect();
    names.iter().for_each(|n| drop(leader.commit(&join(n))));
    assert_eq!(leader.state.version(b"g"), Some(GroupVersion(499)));
    let lapses = names.iter().map(|name| Lapse {
        group: b"g"[..].into(),
        member: name.as_bytes().into(),
        id: leader.session(name).id,
        term: Term(1),
    });
    let request = Request::Expire(lapses.collect());
    leader.commit(&request);
    assert_eq!(leader.out.ended.len(), 500);
    assert_eq!(leader.out.groups.len(), 1);
    assert_eq!(leader.state.version(b"g"), Some(GroupVersion(500)));
    assert_eq!(leader.state.members_len(), 0);
}

#[test]
fn a_group_or_member_too_many_is_refused_and_the_known_are_served() {
    let mut leader = Leader::founded();
    leader.state.limits.groups = 1;
    leader.state.limits.members = 2;
    leader.commit(&join("a"));
    // Proposed while there was room; applied when there is none left.
    let late = leader.propose(&join("c"));
    let late_group = leader.propose(&join("d"));
    leader.commit(&join("b"));
    assert_eq!(leader.apply(&late), refused(Refusal::MembersFull));
    assert_eq!(leader.apply(&late_group), refused(Refusal::MembersFull));
    assert_eq!(leader.answer(&join("e")), refused(Refusal::MembersFull));
    let other_group = Request::Join(join_to("h", "a"));
    assert_eq!(leader.answer(&other_group), refused(Refusal::GroupsFull));
    let config = configure("g", Some("e"));
    assert_eq!(leader.answer(&config), refused(Refusal::MembersFull));
    assert_eq!(
        leader.answer(&configure("h", None)),
        refused(Refusal::GroupsFull)
    );
    leader.commit(&configure("g", None));
    leader.commit(&configure("g", Some("a")));
    leader.commit(&leave("a"));
    assert!(matches!(leader.commit(&join("a")), Outcome::Joined(_)));
    leader.commit(&leave("b"));
    assert!(matches!(leader.commit(&join("e")), Outcome::Joined(_)));
}

#[test]
fn nothing_is_answered_while_a_proposal_could_change_the_answer() {
    let mut leader = Leader::founded();
    leader.commit(&join("a"));
    assert!(matches!(leader.answer(&join("a")), Outcome::Joined(_)));
    // A leave under way: the renewal must come behind it, and makes a new session.
    let leaving = leader.propose(&leave("a"));
    let renewal = leader.propose(&join("a"));
    leader.apply(&leaving);
    assert!(matches!(leader.apply(&renewal), Outcome::Joined(joined) if joined.created));
    assert!(matches!(leader.answer(&join("a")), Outcome::Joined(_)));
    // Anything in the group: its removal must come behind.
    let joining = leader.propose(&join("b"));
    let removal = leader.propose(&delete_group());
    leader.apply(&joining);
    assert_eq!(leader.apply(&removal), refused(Refusal::GroupActive));
    // Its removal: whatever concerns a member or the config must come behind.
    leader.commit(&leave("a"));
    leader.commit(&leave("b"));
    assert_eq!(leader.answer(&leave("b")), refused(Refusal::NotFound));
    let removal = leader.propose(&delete_group());
    let member = leader.propose(&leave("b"));
    let config = leader.propose(&Request::DeleteConfig {
        group: Box::from(&b"g"[..]),
        member: None,
        require: Require::Nothing,
    });
    assert_eq!(leader.apply(&removal), Outcome::GroupDeleted);
    assert_eq!(leader.apply(&member), refused(Refusal::NotFound));
    assert_eq!(leader.apply(&config), refused(Refusal::NotFound));
    assert_eq!(leader.answer(&delete_group()), refused(Refusal::NotFound));
}

#[test]
fn proposals_that_came_to_nothing_are_forgotten() {
    let mut leader = Leader::founded();
    leader.commit(&join("a"));
    let txn = leader.propose(&leave("a"));
    leader.state.withdraw(&txn);
    assert!(matches!(leader.answer(&join("a")), Outcome::Joined(_)));
    leader.propose(&leave("a"));
    leader.propose(&delete_group());
    leader.state.abandon_in_flight();
    assert!(matches!(leader.answer(&join("a")), Outcome::Joined(_)));
    assert_eq!(
        leader.answer(&delete_group()),
        refused(Refusal::GroupActive)
    );
    // Two of one kind under way, one applied: the other still counts.
    let first = leader.propose(&leave("a"));
    leader.propose(&leave("a"));
    leader.apply(&first);
    leader.propose(&leave("a"));
}

#[test]
fn a_removal_is_proposed_while_anything_is_under_way() {
    let mut leader = Leader::founded();
    assert_eq!(leader.answer(&delete_group()), refused(Refusal::NotFound));
    let elsewhere = leader.propose(&Request::Join(join_to("other", "a")));
    let removal = leader.propose(&delete_group());
    leader.apply(&elsewhere);
    assert_eq!(leader.apply(&removal), refused(Refusal::NotFound));
    // What the removal might have taken is looked for again.
    leader.commit(&join("a"));
    assert!(matches!(leader.answer(&join("a")), Outcome::Joined(_)));
}

#[test]
fn a_join_believed_to_be_of_a_new_member_is_proposed_and_finds_the_member() {
    let mut leader = Leader::founded();
    leader.commit(&join("a"));
    let session = leader.session("a");
    let bytes = |leader: &Leader, join: Join| {
        let mut txn = Vec::new();
        leader.state.encode(&Request::Join(join), &mut txn).unwrap();
        txn
    };
    let again = bytes(&leader, join_to("g", "a"));
    assert_eq!(leader.state.decide(&again), Ok(Verdict::Idle));
    assert_eq!(leader.state.decide_fresh(&again), Ok(Verdict::Propose));
    assert_eq!(
        leader.state.decide(&again),
        Ok(Verdict::Propose),
        "one is under way"
    );
    leader.state.withdraw(&again);
    let Outcome::Joined(joined) = leader.apply(&again) else {
        panic!("it is active");
    };
    assert_eq!((joined.session, joined.created), (session.id, false));
    assert_eq!(leader.state.decide(&again), Ok(Verdict::Idle));
    // What would be refused whoever the member is, is refused at once.
    let first = bytes(
        &leader,
        Join {
            only_if_absent: true,
            ..join_to("g", "a")
        },
    );
    let stale = bytes(
        &leader,
        Join {
            incarnation: Incarnation(9),
            ..join_to("g", "b")
        },
    );
    let one_more = bytes(&leader, join_to("g", "b"));
    leader.state.limits.members = 1;
    for txn in [&first, &stale, &one_more] {
        assert_eq!(leader.state.decide_fresh(txn), Ok(Verdict::Idle));
    }
    assert!(leader.state.decide_fresh(b"nonsense").is_err());
}

#[test]
fn a_transaction_in_the_wrong_place_is_refused_and_changes_nothing() {
    let mut leader = Leader::founded();
    let txn = leader.propose(&join("a"));
    let mut out = Applied::default();
    let digest = leader.state.digest();
    let too_far = Zxid::new(Epoch(1 << 32), 1);
    assert!(leader.state.apply(too_far, &txn, &mut out).is_err());
    assert!(leader.state.apply(leader.next, b"", &mut out).is_err());
    assert_eq!(leader.state.digest(), digest);
}

#[test]
fn a_second_genesis_answers_with_the_first() {
    let mut leader = Leader::founded();
    let again = Request::Genesis { birth_s: 6 };
    assert_eq!(leader.answer(&again), Outcome::Founded { birth_s: 5 });
    assert_eq!(leader.state.birth_s(), Some(5));
}

#[test]
fn a_config_version_never_comes_back() {
    let mut leader = Leader::founded();
    let version = |leader: &Leader| leader.state.config(b"g", None).unwrap().version;
    leader.commit(&configure("g", None));
    let first = version(&leader);
    leader.commit(&join("a"));
    assert_eq!(
        version(&leader),
        first,
        "not disturbed by who comes and goes"
    );
    leader.commit(&configure("g", None));
    let second = version(&leader);
    assert!(second > first, "the same bytes are a write all the same");
    assert_eq!(
        leader.state.version(b"g"),
        Some(GroupVersion(1)),
        "but not shown"
    );
    leader.commit(&leave("a"));
    leader.commit(&delete_group());
    leader.commit(&configure("g", None));
    assert!(version(&leader) > second);
}

#[test]
fn the_list_of_groups_goes_on_after_any_name() {
    let mut leader = Leader::founded();
    for group in ["b", "d", "f"] {
        leader.commit(&Request::Join(join_to(group, "m")));
    }
    leader.commit(&configure("d", Some("n")));
    let names = |after: Option<&[u8]>, limit| {
        let listed = leader.state.list(after, limit);
        listed.map(|g| g.name.to_vec()).collect::<Vec<_>>().concat()
    };
    assert_eq!(names(None, 9), b"bdf");
    assert_eq!(names(None, 2), b"bd");
    assert_eq!(names(Some(b"a"), 9), b"bdf");
    assert_eq!(names(Some(b"b"), 9), b"df");
    assert_eq!(names(Some(b"c"), 1), b"d");
    assert_eq!(names(Some(b"f"), 9), b"");
    let d = leader.state.list(Some(b"b"), 1).next().unwrap();
    assert_eq!((d.version, d.active, d.inactive), (GroupVersion(1), 1, 1));
}
