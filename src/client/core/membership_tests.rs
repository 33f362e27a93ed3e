//! A member against answers of the tests' own, in a time of the tests' own.

use super::call::{Answer, Call};
use super::membership::{Entry, Event, Membership, Step, Terms};
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

const T: u64 = 9_000;

/// A member and the time it lives in.
struct World {
    now: u64,
    member: Membership,
}

impl World {
    fn new(endpoints: &[&str], terms: Terms) -> World {
        let endpoints: Vec<String> = endpoints.iter().map(|&name| name.to_owned()).collect();
        World {
            now: 1_000_000,
            member: Membership::new(terms, &endpoints, 7),
        }
    }

    /// One that has joined at `a`, with session 1.
    fn joined() -> World {
        let mut world = World::new(&["a", "b"], Terms::new("g", "m"));
        world.call();
        world.answer(promise(1, 0));
        world.events();
        world
    }

    fn step(&mut self) -> Step {
        self.member.next(Millis(self.now))
    }

    /// Goes on in time to the next call: who is asked what.
    #[track_caller]
    fn call(&mut self) -> (String, Call) {
        for _ in 0..100 {
            match self.step() {
                Step::Call { endpoint, call, .. } => return (endpoint, call),
                Step::Wait(Millis(until)) => {
                    assert!(until > self.now, "a wait that is over");
                    self.now = until;
                }
                Step::Over => panic!("it is over"),
            }
        }
        panic!("it waits for ever");
    }

    fn answer(&mut self, answer: Answer) {
        self.member.on_answer(Millis(self.now), &answer);
    }

    fn fail(&mut self) {
        self.member.on_failure(Millis(self.now), "silence");
    }

    /// What was told, failed servers left out.
    fn events(&mut self) -> Vec<Event> {
        let events = std::iter::from_fn(|| self.member.take_event());
        events
            .filter(|event| !matches!(event, Event::Failed { .. }))
            .collect()
    }
}

fn promise(session: u128, version: u64) -> Answer {
    Answer {
        status: 200,
        session: Some(SessionId(session)),
        timeout: Some(Millis(T)),
        version: Some(GroupVersion(version)),
        ..Answer::default()
    }
}

fn refusal(status: u16, code: &str) -> Answer {
    Answer {
        status,
        code: Some(code.to_owned()),
        ..Answer::default()
    }
}

fn joined(session: u128, again: bool) -> Event {
    Event::Joined {
        session: SessionId(session),
        timeout: Millis(T),
        again,
    }
}

#[test]
fn a_join_says_what_the_terms_say() {
    let join = |change: fn(&mut Terms)| {
        let mut terms = Terms::new("g", "m");
        change(&mut terms);
        terms.join()
    };
    assert_eq!(join(|_| ()), Call::new("PUT", "/g/m"));
    let call = join(|terms| {
        terms.timeout = Some(Millis(1_500));
        terms.entry = Entry::TakeOver;
        terms.config = Some(b"{}".to_vec());
    });
    assert_eq!(
        call,
        Call::new("PUT", "/g/m?timeout=1500ms&takeover").body(b"{}".to_vec())
    );
    let call = join(|terms| terms.entry = Entry::OnlyNew);
    assert_eq!(call, Call::new("PUT", "/g/m").header("if-none-match", "*"));
}

#[test]
fn beats_carry_the_session_and_come_every_third_of_the_timeout_with_jitter() {
    let mut world = World::joined();
    let mut pauses = Vec::new();
    let mut last = world.now;
    for _ in 0..200 {
        let (endpoint, call) = world.call();
        assert_eq!(
            (&*endpoint, call.method, &*call.target),
            ("a", "HEAD", "/g/m")
        );
        assert_eq!(call.headers, [("x-session-id", SessionId(1).to_string())]);
        pauses.push(world.now - last);
        last = world.now;
        world.answer(promise(1, 0));
    }
    assert!((T / 9..=T / 3).contains(&pauses[0]), "{}", pauses[0]);
    let later = &pauses[1..];
    assert!(
        later
            .iter()
            .all(|pause| (T / 3 - T / 30..=T / 3).contains(pause)),
        "{later:?}"
    );
    assert!(later.iter().any(|pause| *pause < T / 3 - 50), "no jitter");
    assert_eq!(world.events(), []);
}

#[test]
fn a_promise_counts_from_when_the_request_was_sent_less_what_the_clock_may_be_slow() {
    let mut world = World::new(&["a"], Terms::new("g", "m"));
    world.call();
    world.now += 4_000;
    world.answer(promise(1, 0));
    assert_eq!(
        world.member.promised_until(),
        Some(Millis(1_000_000 + T - T / 1_000))
    );
}

#[test]
fn a_lapse_is_told_when_it_happens_and_once_and_so_is_the_recovery() {
    let mut world = World::joined();
    let until = world.member.promised_until().unwrap();
    loop {
        match world.step() {
            Step::Call { within, .. } => {
                assert!(within.0 >= 20, "no time for an answer");
                assert!(
                    world.now + within.0 <= until.0 + 20,
                    "it would sleep over the lapse"
                );
                world.now += within.0.min(until.0.saturating_sub(world.now));
                world.fail();
            }
            Step::Wait(Millis(next)) => {
                assert!(next <= until.0, "it would sleep over the lapse");
                world.now = next;
            }
            Step::Over => panic!("it never gives up"),
        }
        let told = world.events();
        if world.now >= until.0 {
            assert_eq!(told, [Event::Lapsed]);
            break;
        }
        assert_eq!(told, []);
    }
    for _ in 0..50 {
        world.call();
        world.fail();
        assert_eq!(world.events(), [], "once");
    }
    let (_, call) = world.call();
    assert_eq!(call.method, "HEAD", "it may be alive yet");
    world.answer(promise(1, 0));
    assert_eq!(world.events(), [Event::Recovered]);
}

#[test]
fn a_server_that_fails_is_left_at_once_for_the_next() {
    let mut world = World::joined();
    let (first, _) = world.call();
    let before = world.now;
    world.fail();
    let (second, _) = world.call();
    assert_eq!((&*first, &*second, world.now), ("a", "b", before));
    world.answer(refusal(503, "lease_lapsed"));
    assert!(matches!(world.step(), Step::Wait(_)), "both have failed");
    let (_, call) = world.call();
    assert_eq!(call.method, "HEAD");
}

#[test]
fn servers_that_documents_and_503_answers_list_are_asked_too() {
    let listing = |status, names: &str| Answer {
        body: format!("{{\"code\":\"x\",\"endpoints\":{names}}}").into_bytes(),
        ..match status {
            200 => promise(1, 0),
            _ => refusal(status, "not_ready"),
        }
    };
    let mut world = World::new(&["a"], Terms::new("g", "m"));
    world.call();
    world.answer(listing(503, r#"["a","b"]"#));
    assert_eq!(world.call().0, "b");
    world.answer(listing(200, r#"["c","a"]"#));
    world.call();
    world.fail();
    assert_eq!(world.call().0, "c");
    world.fail();
    assert_eq!(world.call().0, "a");
}

#[test]
fn an_ended_session_is_joined_anew_and_the_program_is_told_that_it_is_another() {
    for answer in [
        refusal(410, "session_ended"),
        refusal(404, "unknown_member"),
    ] {
        let mut world = World::joined();
        world.call();
        world.answer(answer);
        assert_eq!(world.member.promised_until(), None);
        assert_eq!(world.call().1, Call::new("PUT", "/g/m"));
        world.answer(promise(2, 3));
        let told = world.events();
        let ended = Event::Ended(SessionId(1));
        assert_eq!(
            told,
            [ended, joined(2, true), Event::Changed(GroupVersion(3))]
        );
    }
}

#[test]
fn a_404_of_something_that_is_no_systole_ends_nothing() {
    let mut world = World::joined();
    world.call();
    world.answer(Answer {
        status: 404,
        ..Answer::default()
    });
    let (endpoint, call) = world.call();
    assert_eq!((&*endpoint, call.method), ("b", "HEAD"));
    world.answer(Answer {
        status: 200,
        ..Answer::default()
    });
    assert_eq!(
        world.call().1.method,
        "HEAD",
        "a yes without a session is none"
    );
    assert_eq!(world.events(), []);
}

#[test]
fn who_was_replaced_or_is_refused_is_out_for_good() {
    let mut world = World::joined();
    world.call();
    world.answer(refusal(409, "session_conflict"));
    assert!(matches!(&world.events()[..], [Event::Replaced(p)] if p.status == 409));
    assert_eq!(world.step(), Step::Over);
    assert_eq!(world.member.promised_until(), None);

    let mut world = World::new(&["a"], Terms::new("g", "m"));
    world.call();
    world.answer(refusal(422, "timeout_out_of_range"));
    assert!(matches!(&world.events()[..], [Event::Refused(p)] if p.status == 422));
    assert_eq!(world.step(), Step::Over);
}

#[test]
fn versions_are_told_when_they_grow_and_never_when_they_fall() {
    let mut world = World::joined();
    let mut told = Vec::new();
    for version in [0, 4, 4, 2, 5] {
        world.call();
        world.answer(promise(1, version));
        told.extend(world.events());
    }
    assert_eq!(
        told,
        [4, 5].map(|version| Event::Changed(GroupVersion(version)))
    );
    assert_eq!(world.member.version(), Some(GroupVersion(5)));
}

#[test]
fn leaving_names_the_session_and_is_over_with_any_answer_that_it_is_gone() {
    for answer in [
        Answer {
            status: 204,
            ..Answer::default()
        },
        refusal(404, "unknown_member"),
        refusal(409, "session_conflict"),
        refusal(410, "session_ended"),
    ] {
        let mut world = World::joined();
        world.member.leave(Millis(world.now + 2_000));
        let (_, call) = world.call();
        let expected = Call::new("DELETE", "/g/m").header("x-session-id", SessionId(1));
        assert_eq!(call, expected);
        world.answer(answer);
        assert_eq!(world.events(), [Event::Left]);
        assert_eq!(world.step(), Step::Over);
    }
}

#[test]
fn leaving_in_vain_ends_in_time() {
    let mut world = World::joined();
    let until = world.now + 2_000;
    world.member.leave(Millis(until));
    let mut calls = 0;
    loop {
        match world.step() {
            Step::Call { within, .. } => {
                calls += 1;
                assert!(world.now + within.0 <= until + 20);
                world.fail();
            }
            Step::Wait(Millis(next)) => world.now = next,
            Step::Over => break,
        }
    }
    assert!(calls > 2, "it is tried at both, and again");
    assert!(world.now <= until + 20);
    assert_eq!(world.events(), [Event::Left]);
}

#[test]
fn who_never_asked_to_join_has_nothing_to_leave() {
    let mut world = World::new(&["a"], Terms::new("g", "m"));
    world.member.leave(Millis(world.now + 2_000));
    assert_eq!(world.step(), Step::Over);

    let mut world = World::new(&["a"], Terms::new("g", "m"));
    world.call();
    world.fail();
    world.member.leave(Millis(world.now + 2_000));
    assert_eq!(
        world.call().1,
        Call::new("DELETE", "/g/m"),
        "the join may have been done"
    );

    let only_new = Terms {
        entry: Entry::OnlyNew,
        ..Terms::new("g", "m")
    };
    let mut world = World::new(&["a"], only_new);
    world.call();
    world.fail();
    world.member.leave(Millis(world.now + 2_000));
    assert_eq!(world.step(), Step::Over, "the member may be another's");
}
