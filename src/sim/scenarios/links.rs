//! 21–23: links that work one way, some ways or off and on, and messages out of their place.

use std::sync::Arc;

use super::stage::{cast, ends_well, ensure, next_message, say, sound, start, three, with_pasts};
use super::{Faults, Guard, Scenario};
use crate::sim::script::{Ensemble, Neglect, Past};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{Body, Entry, Message, Notification, Phase, Plant, Stance, Summary, Tenure, Vote};

pub(super) const ONE_WAY: Scenario = Scenario {
    number: 21,
    name: "one-way",
    story: "The leader is heard by all and hears nobody.",
    guards: &[Guard::Core(Plant::NeverStepsDown)],
    tell: one_way,
};

fn one_way(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    for other in [1, 2] {
        ensemble.cut_one_way(other, 3);
    }
    ensemble.pass(4_000);
    ensure(!ensemble.leads(3), "3 leads without hearing anybody")?;
    ensure(ensemble.leads(2), "2 does not lead in place of 3")?;
    say(&mut ensemble, 2, "b")?;
    ensemble.settle();
    ends_well(&mut ensemble)?;
    // And the other way round: it hears all, and is not heard.
    let mut ensemble = three(faults)?;
    for other in [1, 2] {
        ensemble.cut_one_way(3, other);
    }
    ensemble.pass(4_000);
    ensure(!ensemble.leads(3), "3 leads unheard")?;
    ensure(ensemble.leads(2), "2 does not lead in place of 3")?;
    ends_well(&mut ensemble)
}

pub(super) const HALVES: Scenario = Scenario {
    number: 21,
    name: "halves",
    story: "Four servers fall apart into two and two.",
    guards: &[Guard::Core(Plant::HalfIsQuorum)],
    tell: halves,
};

fn halves(faults: Faults) -> Result<(), String> {
    let mut ensemble = cast(4, faults);
    ensemble.start_all();
    say(&mut ensemble, 4, "a")?;
    ensemble.settle();
    ensemble.part(&[1, 2], &[3, 4]);
    ensemble.pass(3_000);
    for id in 1..=4 {
        let _ = ensemble.propose(id, &format!("of {id}"));
    }
    ensemble.settle();
    sound(&ensemble)?;
    ensure(ensemble.leader().is_none(), "half of the servers elect")?;
    ends_well(&mut ensemble)
}

pub(super) const SHAPES: Scenario = Scenario {
    number: 21,
    name: "shapes",
    story: "Five servers are joined by a bridge, in a ring, or by links that come and go.",
    guards: &[Guard::Core(Plant::NeverStepsDown)],
    tell: shapes,
};

fn shapes(faults: Faults) -> Result<(), String> {
    bridge(faults)?;
    ring(faults)?;
    flapping(faults)
}

fn bridge(faults: Faults) -> Result<(), String> {
    let mut ensemble = five(faults)?;
    ensemble.part(&[1, 2], &[4, 5]);
    goes_on(&mut ensemble, "over a bridge")?;
    // The leader is on one side now, and the bridge falls.
    let leader = ensemble.leader().ok_or("nobody leads over a bridge")?;
    let others: Vec<u32> = (1..=5).filter(|&id| id != leader).collect();
    ensemble.part(&[leader], &others);
    ensemble.pass(1_500);
    ensure(!ensemble.leads(leader), "a leader goes on alone")?;
    ends_well(&mut ensemble)
}

fn ring(faults: Faults) -> Result<(), String> {
    let mut ensemble = five(faults)?;
    for (a, b) in [(1, 3), (2, 4), (3, 5), (4, 1), (5, 2)] {
        ensemble.cut(a, b, true);
    }
    goes_on(&mut ensemble, "in a ring")?;
    ends_well(&mut ensemble)
}

fn flapping(faults: Faults) -> Result<(), String> {
    let mut ensemble = five(faults)?;
    for round in 0..12 {
        let (one, other) = (1 + round % 5, 1 + (round * 2 + 1) % 5);
        if one != other {
            ensemble.cut(one, other, round % 3 == 0);
        }
        ensemble.pass(300 + u64::from(round) * 70);
        if let Some(leader) = ensemble.leader() {
            let _ = ensemble.propose(leader, &format!("round {round}"));
        }
        if one != other {
            ensemble.join(one, other);
        }
        sound(&ensemble)?;
    }
    ends_well(&mut ensemble)
}

fn five(faults: Faults) -> Result<Ensemble, String> {
    let mut ensemble = cast(5, faults);
    ensemble.start_all();
    say(&mut ensemble, 5, "a")?;
    ensemble.settle();
    Ok(ensemble)
}

/// Somebody leads, and commits.
fn goes_on(ensemble: &mut Ensemble, how: &str) -> Result<(), String> {
    ensemble.pass(6_000);
    for _ in 0..20 {
        ensemble.pass(500);
        if ensemble.leader().is_some() {
            break;
        }
    }
    let leader = ensemble.leader();
    let leader = leader.ok_or_else(|| format!("nobody leads {how}"))?;
    say(ensemble, leader, how)?;
    ensemble.pass(500);
    sound(ensemble)?;
    let agreed = ensemble.agreed();
    let last = agreed.last().map(String::as_str);
    ensure(last == Some(how), "nothing is committed any more")
}

pub(super) const DEPOSED_LEADER: Scenario = Scenario {
    number: 22,
    name: "deposed-leader",
    story: "A leader that others have left without its noticing is asked whether it still leads, \
            and those who left it are told of an older epoch.",
    guards: &[
        Guard::Core(Plant::BarrierWithoutRound),
        Guard::Core(Plant::FollowsLowerEpoch),
    ],
    tell: deposed_leader,
};

fn deposed_leader(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    ensemble.part(&[3], &[1, 2]);
    ensemble.notice(1, 3);
    ensemble.notice(2, 3);
    ensemble.settle();
    say(&mut ensemble, 2, "b")?;
    ensemble.settle();
    ensure(ensemble.leads(3), "3 has noticed")?;
    let asked = ensemble.barrier(3, 7);
    asked.map_err(|error| error.to_string())?;
    ensemble.settle();
    ensure(
        ensemble.server(3).barriers.is_empty(),
        "a deposed leader says that it leads",
    )?;
    ends_well(&mut ensemble)?;
    lower_epoch(faults)
}

/// 1 introduces itself to 3, and is told of an epoch below the one it has promised.
fn lower_epoch(faults: Faults) -> Result<(), String> {
    let past = Past::new(3, &[(1, 1)]);
    let promised = past.clone().accepted(5);
    let mut ensemble = with_pasts(faults, &[&promised, &past, &past]);
    ensemble.withhold =
        Some(|from, to, message| (from, to) == (3, 1) && matches!(message, Message::Link { .. }));
    start(&mut ensemble, &[1, 3]);
    let Some(Message::Link { tenure, seq, .. }) = ensemble.wire(3, 1).front().cloned() else {
        return Err("3 does not answer 1".into());
    };
    ensemble.wire(3, 1).clear();
    let body = Body::LeaderInfo {
        epoch: Epoch(4),
        ensemble: 1,
    };
    ensemble.hear(3, 1, Message::Link { tenure, seq, body });
    ensure(
        ensemble.phase(1) == Phase::Looking,
        "1 stays with a leader of an older epoch",
    )?;
    ends_well(&mut ensemble)
}

pub(super) const OLD_TENURE: Scenario = Scenario {
    number: 23,
    name: "old-tenure",
    story: "All that a leader and its followers said to each other comes again when the \
            followers have left it and come back.",
    guards: &[Guard::Core(Plant::TakesOldTenure)],
    tell: old_tenure,
};

fn old_tenure(faults: Faults) -> Result<(), String> {
    let away = |ensemble: &mut Ensemble| {
        ensemble.cut(1, 3, true);
        ensemble.join(1, 3);
    };
    comes_again(faults, away, |_| true)
}

pub(super) const OLD_RUN: Scenario = Scenario {
    number: 23,
    name: "old-run",
    story: "What a leader and a follower said to each other comes again when the follower has \
            been killed and started.",
    guards: &[
        Guard::Core(Plant::TakesOldTenure),
        Guard::Host(Neglect::SameNonce),
    ],
    tell: old_run,
};

/// Both runs introduce themselves once: only by the number drawn at the start do their tenures
/// differ. The introduction itself is left out, for numbers that are drawn have no order: a leader
/// takes that of an earlier run, and the follower has to introduce itself anew.
fn old_run(faults: Faults) -> Result<(), String> {
    let away = |ensemble: &mut Ensemble| {
        ensemble.kill(1);
        ensemble.start(1);
    };
    comes_again(faults, away, |body| {
        !matches!(body, Body::FollowerInfo { .. })
    })
}

/// Of what 1 and 3 have said to each other comes again what `repeated` says, when 1 is back from
/// where `away` sends it.
fn comes_again(
    faults: Faults,
    away: fn(&mut Ensemble),
    repeated: fn(&Body) -> bool,
) -> Result<(), String> {
    let mut ensemble = cast(3, faults);
    ensemble.record = Some(Vec::new());
    ensemble.start_all();
    // So much that what comes later is among the first of the new tenure by its numbers.
    for count in 0..20 {
        say(&mut ensemble, 3, &format!("a{count}"))?;
        ensemble.settle();
    }
    let old = ensemble.record.take().unwrap_or_default();
    away(&mut ensemble);
    ensemble.pass(500);
    ensure(
        ensemble.phase(1) == Phase::Following,
        "1 does not come back",
    )?;
    let before = ensemble.server(1).standings.len();
    say(&mut ensemble, 3, "c")?;
    let links = old.into_iter().filter(|(from, to, message)| {
        from + to == 4 && matches!(message, Message::Link { body, .. } if repeated(body))
    });
    for (count, (from, to, message)) in links.enumerate() {
        ensemble.hear(from, to, message);
        ensemble.settle();
        if count % 5 == 0 {
            say(&mut ensemble, 3, &format!("d{count}"))?;
        }
    }
    ensemble.pass(1_000);
    sound(&ensemble)?;
    let after = ensemble.server(1).standings.len();
    ensure(before == after, "1 starts over for old words")?;
    ensure(
        ensemble.delivered(1) == ensemble.agreed(),
        "1 has missed something",
    )?;
    ends_well(&mut ensemble)
}

pub(super) const EVERY_MESSAGE_TWICE: Scenario = Scenario {
    number: 23,
    name: "every-message-twice",
    story: "Every message comes twice; then one is lost, or two change places.",
    guards: &[Guard::Core(Plant::TakesAnySeq)],
    tell: every_message_twice,
};

fn every_message_twice(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    for text in ["b", "c", "d"] {
        say(&mut ensemble, 3, text)?;
        for _ in 0..10 {
            deliver_all_twice(&mut ensemble);
        }
    }
    for id in 1..=3 {
        ensure(
            !ensemble.started_over(id),
            "a repetition makes a server start over",
        )?;
    }
    ensure(ensemble.delivered(1).len() == 4, "1 has missed something")?;
    ends_well(&mut ensemble)?;
    for (from, to) in [(3, 1), (1, 3)] {
        for swaps in [false, true] {
            for at in 0..6 {
                disturbed(faults, from, to, at, swaps)?;
            }
        }
    }
    Ok(())
}

fn deliver_all_twice(ensemble: &mut Ensemble) {
    for id in 1..=3 {
        ensemble.sync(id);
    }
    for from in 1..=3 {
        for to in 1..=3 {
            while let Some(message) = ensemble.wire(from, to).pop_front() {
                ensemble.hear(from, to, message.clone());
                ensemble.hear(from, to, message);
            }
        }
    }
}

/// The message at this place of a wire is lost, or changes places with the next.
fn disturbed(faults: Faults, from: u32, to: u32, at: usize, swaps: bool) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    for text in ["b", "c", "d"] {
        say(&mut ensemble, 3, text)?;
        if from == 1 {
            ensemble.deliver(3, 1);
            ensemble.sync(1);
        }
    }
    let wire = ensemble.wire(from, to);
    if swaps && at + 1 < wire.len() {
        wire.swap(at, at + 1);
    } else if at < wire.len() {
        wire.remove(at);
    }
    ensemble.pass(3_000);
    sound(&ensemble)?;
    ensure(ensemble.agreed().len() == 4, "the others do not go on")?;
    ends_well(&mut ensemble)
}

pub(super) const MALFORMED: Scenario = Scenario {
    number: 23,
    name: "malformed",
    story: "Every kind of message comes in every phase, with contents that make no sense, from \
            those who may say it and those who may not.",
    guards: &[Guard::Core(Plant::TakesGaps)],
    tell: malformed,
};

fn malformed(faults: Faults) -> Result<(), String> {
    gap_in_an_epoch(faults)?;
    last_of_all(faults)?;
    for steps in (0..80).step_by(2) {
        for number in 0..nonsense().len() {
            nonsense_after(faults, steps, number)?;
        }
    }
    Ok(())
}

/// The leader, or who speaks in its name, leaves one out.
fn gap_in_an_epoch(faults: Faults) -> Result<(), String> {
    let mut ensemble = cast(3, faults);
    ensemble.record = Some(Vec::new());
    ensemble.start_all();
    say(&mut ensemble, 3, "a")?;
    ensemble.settle();
    let entry = Entry {
        zxid: Zxid::new(Epoch(1), 3),
        payload: Arc::from(b"c".as_slice()),
    };
    let message = next_message(&ensemble, 3, 1, Body::Proposal(entry))?;
    ensemble.hear(3, 1, message);
    ensure(
        ensemble.peer(1).last_logged() == Zxid::new(Epoch(1), 1),
        "1 takes what leaves a gap",
    )?;
    ends_well(&mut ensemble)
}

/// 3 hears a voter that has promised the last epoch there can be, or is in the last round; and 1
/// is told of that epoch, or of a snapshot from it, by its leader.
fn last_of_all(faults: Faults) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1)]);
    let [_, vote] = odd_votes();
    let vote = Message::Vote(Notification {
        round: u64::MAX,
        ..vote
    });
    let info = stranger(Body::FollowerInfo {
        accepted_epoch: Epoch(u64::MAX),
        holds_data: true,
        ensemble: 1,
    });
    for message in [info, vote] {
        let mut ensemble = with_pasts(faults, &[&past; 3]);
        ensemble.start(3);
        ensemble.hear(1, 3, message);
        start(&mut ensemble, &[2]);
        ensemble.pass(3_000);
        let leader = ensemble.leader().ok_or("2 and 3 find no leader")?;
        ensemble.crash(leader);
        start(&mut ensemble, &[1]);
        ends_well(&mut ensemble)?;
    }
    let far = Zxid::new(Epoch(u64::MAX), 1);
    let epoch = far.epoch;
    told_instead(faults, &Body::LeaderInfo { epoch, ensemble: 1 }, |body| {
        matches!(body, Body::LeaderInfo { .. })
    })?;
    told_instead(faults, &Body::Snap { zxid: far }, |body| {
        matches!(body, Body::Diff { .. })
    })
}

/// 1 is told `body` instead of what its leader says first of those that `replaced` names.
fn told_instead(faults: Faults, body: &Body, replaced: fn(&Body) -> bool) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&past; 3]);
    ensemble.start(1);
    ensemble.start(3);
    let due = |ensemble: &mut Ensemble| match ensemble.wire(3, 1).front() {
        Some(Message::Link { body, .. }) => replaced(body),
        _ => false,
    };
    for _ in 0..200 {
        if due(&mut ensemble) {
            break;
        }
        ensemble.steps(1);
    }
    ensure(due(&mut ensemble), "3 does not come to what is replaced")?;
    let message = in_place(&mut ensemble, 3, 1, body)?;
    let piece = follow_up(&message);
    ensemble.hear(3, 1, message);
    ensemble.hear(3, 1, piece);
    ends_well(&mut ensemble)
}

/// One of these comes to each server from each other, in its tenure and in none, after so many
/// steps. What a liar in a right place can do is not the question: only that nobody panics, and
/// that what comes in no tenure changes nothing.
fn nonsense_after(faults: Faults, steps: usize, number: usize) -> Result<(), String> {
    let past = Past::new(3, &[(1, 1), (3, 1)]);
    let behind = Past::new(1, &[(1, 1), (1, 2)]);
    let mut ensemble = with_pasts(faults, &[&behind, &past, &past]);
    ensemble.record = Some(Vec::new());
    for id in 1..=3 {
        ensemble.start(id);
    }
    ensemble.steps(steps);
    let bodies = nonsense();
    let body = &bodies[number];
    for from in 1..=3 {
        for to in 1..=3 {
            let stranger = stranger(body.clone());
            let before = ensemble.phase(to);
            ensemble.hear(from, to, stranger);
            let introduces = matches!(body, Body::FollowerInfo { .. });
            let same = ensemble.phase(to) == before;
            ensure(same || introduces, "a stranger is listened to")?;
            if let Ok(message) = in_place(&mut ensemble, from, to, body) {
                let piece = follow_up(&message);
                ensemble.hear(from, to, message);
                ensemble.hear(from, to, piece);
            }
            ensemble.settle();
            for vote in odd_votes() {
                ensemble.hear(from, to, Message::Vote(vote));
            }
        }
    }
    ensemble.pass(300);
    Ok(())
}

/// Of no tenure that anybody knows; but it may introduce itself.
fn stranger(body: Body) -> Message {
    let seq = match body {
        Body::FollowerInfo { .. } => 0,
        _ => u64::MAX,
    };
    let tenure = Tenure {
        boot: u64::MAX,
        attempt: u64::MAX,
    };
    Message::Link { tenure, seq, body }
}

/// `body` in place of the message that is due next on a wire, or behind all that was said.
fn in_place(ensemble: &mut Ensemble, from: u32, to: u32, body: &Body) -> Result<Message, String> {
    let due = ensemble.wire(from, to).front().cloned();
    match due {
        Some(Message::Link { tenure, seq, .. }) => {
            ensemble.wire(from, to).pop_front();
            let body = body.clone();
            Ok(Message::Link { tenure, seq, body })
        }
        _ => next_message(ensemble, from, to, body.clone()),
    }
}

/// The whole of a snapshot, right behind `message`.
fn follow_up(message: &Message) -> Message {
    let body = Body::SnapPiece {
        bytes: Arc::from(b"".as_slice()),
        last: true,
    };
    match message {
        Message::Link { tenure, seq, .. } => Message::Link {
            tenure: *tenure,
            seq: seq + 1,
            body,
        },
        Message::Vote(_) => stranger(body),
    }
}

fn odd_votes() -> [Notification; 2] {
    let vote = Vote {
        epoch: Epoch(u64::MAX),
        zxid: Zxid::new(Epoch(u64::MAX), u64::MAX),
        leader: ServerId(77),
    };
    let said = Notification {
        stance: Stance::Leading,
        round: 0,
        vote,
        holds_data: false,
        ensemble: 0,
    };
    [
        said,
        Notification {
            stance: Stance::Looking,
            vote: Vote {
                leader: ServerId(2),
                ..vote
            },
            ..said
        },
    ]
}

fn nonsense() -> Vec<Body> {
    let far = Zxid::new(Epoch(u64::MAX), u64::MAX);
    let none = Zxid::new(Epoch(1), 0);
    let bytes: Arc<[u8]> = Arc::from(b"?".as_slice());
    let entry = |zxid| Entry {
        zxid,
        payload: Arc::clone(&bytes),
    };
    let epoch = Epoch(u64::MAX);
    let mut bodies = vec![
        Body::FollowerInfo {
            accepted_epoch: epoch,
            holds_data: true,
            ensemble: 0,
        },
        Body::LeaderInfo { epoch, ensemble: 0 },
        Body::LeaderInfo { epoch, ensemble: 1 },
        Body::SnapPiece {
            bytes: Arc::clone(&bytes),
            last: true,
        },
        Body::Ping { round: u64::MAX },
        Body::Pong {
            round: u64::MAX,
            loyal: true,
        },
        Body::Payload(Arc::clone(&bytes)),
        Body::Close,
        Body::AckNewLeader { epoch },
        Body::AckEpoch {
            current_epoch: Epoch(0),
            promises: true,
            history: Summary {
                base: none,
                ends: vec![none, none],
            },
        },
    ];
    for zxid in [far, none, Zxid::ZERO, Zxid::new(Epoch(2), 1)] {
        bodies.extend([
            Body::Diff { after: zxid },
            Body::Trunc { to: zxid },
            Body::Snap { zxid },
            Body::Proposal(entry(zxid)),
            Body::NewLeader { epoch, upto: zxid },
            Body::UpToDate { committed: zxid },
            Body::Ack { zxid },
            Body::Commit { upto: zxid },
            Body::Inform(entry(zxid)),
        ]);
    }
    bodies
}
