//! 18, 20, 22, 24–27: leaders that die, are elected by those who have gone, or are held up.

use super::stage::{
    cast, ends_well, ensure, say, sound, start, three, with_limits, with_pasts, word_of_following,
};
use super::{Faults, Guard, Scenario};
use crate::sim::script::{Ensemble, Neglect, Past};
use crate::types::Epoch;
use crate::zab::{Body, Limits, Message, Phase, Plant};

pub(super) const RETAINED_MEMORY: Scenario = Scenario {
    number: 18,
    name: "retained-memory",
    story: "A deposed leader comes back with a transaction of its own that was never committed: \
            once in its memory, once only on its disk.",
    guards: &[
        Guard::Core(Plant::BootIsCommitted),
        Guard::Core(Plant::KeepsSuffix),
    ],
    tell: retained_memory,
};

fn retained_memory(faults: Faults) -> Result<(), String> {
    for restarts in [false, true] {
        let mut ensemble = three(faults)?;
        ensemble.part(&[3], &[1, 2]);
        say(&mut ensemble, 3, "b")?;
        ensemble.pass(3_000);
        say(&mut ensemble, 2, "c")?;
        ensemble.settle();
        if restarts {
            ensemble.kill(3);
            ensemble.start(3);
        }
        ensemble.join_all();
        ensemble.pass(2_000);
        sound(&ensemble)?;
        ensure(
            ensemble.server(3).zxids() == "1:1 2:1",
            "3 keeps what was never committed",
        )?;
        // And now it leads again, from what it remembers.
        ensemble.crash(2);
        ensemble.pass(2_000);
        let leader = ensemble.leader().ok_or("1 and 3 find no leader")?;
        say(&mut ensemble, leader, "d")?;
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

pub(super) const EVERY_PHASE: Scenario = Scenario {
    number: 20,
    name: "every-phase",
    story: "The leader dies after each number of steps of its election and work, twenty times \
            over, with transactions that nobody else has got.",
    guards: &[Guard::Core(Plant::EstablishedByOne)],
    tell: every_phase,
};

fn every_phase(faults: Faults) -> Result<(), String> {
    for steps in 0..70 {
        dies_after(faults, steps)?;
    }
    let mut ensemble = cast(3, faults);
    ensemble.start_all();
    for round in 0..20 {
        let Some(leader) = ensemble.leader() else {
            return Err(format!("nobody leads in round {round}"));
        };
        say(&mut ensemble, leader, &format!("{round}"))?;
        ensemble.steps(round);
        ensemble.crash(leader);
        ensemble.steps(3 * round);
        ensemble.start(leader);
        ensemble.pass(2_000);
        sound(&ensemble)?;
    }
    ends_well(&mut ensemble)
}

/// 3 alone holds 1:2, and dies after so many steps.
fn dies_after(faults: Faults, steps: usize) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1)]);
    let own = Past::new(1, &[(1, 1), (1, 2)]);
    let mut ensemble = with_pasts(faults, &[&past, &past, &own]);
    for id in 1..=3 {
        ensemble.start(id);
    }
    ensemble.steps(steps);
    if ensemble.leads(3) {
        say(&mut ensemble, 3, "b")?;
    }
    ensemble.crash(3);
    ensemble.pass(3_000);
    let leader = ensemble.leader().ok_or("1 and 2 find no leader")?;
    say(&mut ensemble, leader, "c")?;
    ensemble.settle();
    ends_well(&mut ensemble)
}

pub(super) const OLD_PROMISE: Scenario = Scenario {
    number: 22,
    name: "old-promise",
    story: "Two servers of seven gather followers for the same epoch, and one follower promises \
            itself to the one and then comes to the other.",
    guards: &[Guard::Core(Plant::OldPromiseCounts)],
    tell: old_promise,
};

/// 7 gathers 3, 4 and 5; 3 has not yet heard its epoch when it leaves for 6, which gathers 1, 2
/// and 3 for the same one. Then 3 comes back to 7, and 4 goes to 6.
fn old_promise(faults: Faults) -> Result<(), String> {
    let past = Past::new(3, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&past; 7]);
    ensemble.part(&[7, 4, 5], &[6, 1, 2]);
    ensemble.withhold = Some(|from, to, message| {
        let body = match message {
            Message::Link { body, .. } => body,
            Message::Vote(_) => return false,
        };
        match body {
            Body::LeaderInfo { .. } => (from, to) == (7, 3),
            Body::NewLeader { .. } => (from, to) == (6, 3),
            _ => false,
        }
    });
    start(&mut ensemble, &[3, 4, 5, 7]);
    ensemble.kill(3);
    ensemble.part(&[3], &[7, 4, 5]);
    start(&mut ensemble, &[1, 2, 3, 6]);
    ensure(
        ensemble.peer(3).accepted_epoch() == Epoch(4),
        "3 has not promised itself to 6",
    )?;
    ensemble.kill(3);
    ensemble.part(&[3], &[6, 1, 2]);
    ensemble.withhold = None;
    for other in [7, 4, 5] {
        ensemble.join(3, other);
    }
    start(&mut ensemble, &[3]);
    // 4 hears from those around 6, and a late word of 3, that 6 is followed.
    ensemble.part(&[4], &[7, 3, 5]);
    ensemble.kill(4);
    for other in [6, 1, 2] {
        ensemble.join(4, other);
    }
    ensemble.start(4);
    ensemble.hear(3, 4, word_of_following(6, 3));
    ensemble.settle();
    sound(&ensemble)?;
    ensure(ensemble.leads(6), "6 does not lead with 1, 2 and 4")?;
    ends_well(&mut ensemble)
}

pub(super) const MORE_RECENT: Scenario = Scenario {
    number: 22,
    name: "more-recent",
    story: "A leader elected by a voter that has gone since is joined by one that has committed \
            more in the meantime.",
    guards: &[Guard::Core(Plant::LeadsMoreRecent)],
    tell: more_recent,
};

/// 3 gathers 1, which leaves it and commits `b` with 2; then 2 comes to 3.
fn more_recent(faults: Faults) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1)]);
    let promised = past.clone().accepted(5);
    let mut ensemble = with_pasts(faults, &[&past, &past, &promised]);
    ensemble.withhold = Some(|from, _, message| {
        let info = matches!(
            message,
            Message::Link {
                body: Body::LeaderInfo { .. },
                ..
            }
        );
        from == 3 && info
    });
    start(&mut ensemble, &[1, 3]);
    ensemble.part(&[3], &[1, 2]);
    ensemble.notice(1, 3);
    start(&mut ensemble, &[2]);
    let leader = ensemble.leader().ok_or("1 and 2 find no leader")?;
    say(&mut ensemble, leader, "b")?;
    ensemble.settle();
    ensure(ensemble.agreed().len() == 2, "b is not committed")?;
    ensemble.kill(2);
    ensemble.part(&[2], &[1]);
    ensemble.join(2, 3);
    ensemble.withhold = None;
    ensemble.start(2);
    ensemble.hear(1, 2, word_of_following(3, 1));
    ensemble.settle();
    ensemble.pass(500);
    sound(&ensemble)?;
    if ensemble.leads(3) {
        say(&mut ensemble, 3, "c")?;
    }
    ends_well(&mut ensemble)
}

pub(super) const NEWER_EPOCH: Scenario = Scenario {
    number: 22,
    name: "newer-epoch",
    story: "Voters have promised epochs that a leader does not know of, and come to follow it.",
    guards: &[
        Guard::Core(Plant::EpochOfOwn),
        Guard::Core(Plant::IgnoresNewerEpoch),
    ],
    tell: newer_epoch,
};

fn newer_epoch(faults: Faults) -> Result<(), String> {
    let past = Past::new(3, &[(1, 1)]);
    let promised = past.clone().accepted(4);
    let mut ensemble = with_pasts(faults, &[&promised, &promised, &past]);
    ensemble.start_all();
    ensemble.pass(3_000);
    ensure(ensemble.leads(3), "3 does not lead those who promised")?;
    ensure(
        !ensemble.started_over(3),
        "3 tries an epoch that cannot be promised to it",
    )?;
    ends_well(&mut ensemble)?;
    let promised = past.clone().accepted(9);
    let mut ensemble = with_pasts(faults, &[&promised, &past, &past]);
    start(&mut ensemble, &[2, 3]);
    say(&mut ensemble, 3, "b")?;
    ensemble.settle();
    start(&mut ensemble, &[1]);
    ends_well(&mut ensemble)
}

pub(super) const SLOW_FOLLOWER: Scenario = Scenario {
    number: 24,
    name: "slow-follower",
    story: "A follower answers pings and acknowledges nothing: it is sent only so much, the \
            others go on, and in the end it is let go.",
    guards: &[
        Guard::Core(Plant::CommitBeyondSent),
        Guard::Core(Plant::SendsUnbounded),
        Guard::Core(Plant::KeepsSlow),
    ],
    tell: slow_follower,
};

fn slow_follower(faults: Faults) -> Result<(), String> {
    let limits = Limits {
        unacknowledged_max: 4,
        ..Limits::DEFAULT
    };
    let past = Past::new(1, &[(1, 1)]);
    let mut ensemble = with_limits(faults, &[&past; 3], limits);
    ensemble.start_all();
    ensemble.server(1).syncs = false;
    for count in 0..10 {
        say(&mut ensemble, 3, &format!("b{count}"))?;
        ensemble.settle();
    }
    sound(&ensemble)?;
    ensure(ensemble.agreed().len() == 11, "the others do not go on")?;
    let sent = ensemble.peer(1).last_logged().counter;
    ensure(sent == 4, "1 is not sent just as much as it may have open")?;
    ensemble.pass(1_500);
    ensure(ensemble.started_over(1), "1 is kept")?;
    ensure(ensemble.leads(3), "3 does not lead any more")?;
    ends_well(&mut ensemble)
}

pub(super) const STUCK_DISK: Scenario = Scenario {
    number: 25,
    name: "stuck-disk",
    story: "The leader's disk finishes nothing any more, while its pings flow and the followers \
            commit without it.",
    guards: &[Guard::Core(Plant::IgnoresStuckDisk)],
    tell: stuck_disk,
};

fn stuck_disk(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    ensemble.server(3).syncs = false;
    say(&mut ensemble, 3, "b")?;
    ensemble.pass(4_000);
    sound(&ensemble)?;
    ensure(ensemble.leads(2), "2 does not lead in place of 3")?;
    ensure(ensemble.delivered(2) == ["a", "b"], "b is not committed")?;
    say(&mut ensemble, 2, "c")?;
    ends_well(&mut ensemble)
}

pub(super) const SLOW_READ: Scenario = Scenario {
    number: 26,
    name: "slow-read",
    story: "What a learner has to be sent waits for the way to have room, and nobody else waits \
            for that.",
    guards: &[Guard::Host(Neglect::BlocksOnRead)],
    tell: slow_read,
};

fn slow_read(faults: Faults) -> Result<(), String> {
    let limits = Limits {
        window_entries_max: 0,
        ..Limits::DEFAULT
    };
    let past = Past::new(1, &[(1, 1), (1, 2), (1, 3)]);
    let behind = Past::new(1, &[(1, 1)]);
    let mut ensemble = with_limits(faults, &[&behind, &past, &past], limits);
    start(&mut ensemble, &[2, 3]);
    ensemble.server(3).answers = false;
    start(&mut ensemble, &[1]);
    ensure(
        !ensemble.server(3).reads.is_empty(),
        "nothing is read for 1",
    )?;
    for text in ["b", "c"] {
        say(&mut ensemble, 3, text)?;
        ensemble.pass(500);
        let agreed = ensemble.agreed();
        let last = agreed.last().map(String::as_str);
        ensure(last == Some(text), "the others wait for what 1 is sent")?;
    }
    ends_well(&mut ensemble)
}

pub(super) const COUNTER_END: Scenario = Scenario {
    number: 27,
    name: "counter-end",
    story: "The counter of an epoch comes to its end while proposals flow.",
    guards: &[Guard::Core(Plant::CounterWraps)],
    tell: counter_end,
};

fn counter_end(faults: Faults) -> Result<(), String> {
    let limits = Limits {
        counter_max: 3,
        ..Limits::DEFAULT
    };
    for batch in 1..6 {
        let past = Past::new(1, &[(1, 1), (1, 2)]);
        let mut ensemble = with_limits(faults, &[&past; 3], limits);
        ensemble.start_all();
        for round in 0..6 {
            propose_all(&mut ensemble, round, batch);
            ensemble.pass(1_000);
            sound(&ensemble)?;
        }
        let newest = ensemble.peer(1).current_epoch();
        ensure(newest > Epoch(2), "no room was made")?;
        ensure(ensemble.phase(1) != Phase::Looking, "1 finds no leader")?;
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

/// Proposes as many as are taken, `batch` at most.
fn propose_all(ensemble: &mut Ensemble, round: u32, batch: u32) {
    for number in 0..batch {
        if let Some(leader) = ensemble.leader() {
            let _ = ensemble.propose(leader, &format!("{round}.{number}"));
        }
    }
    ensemble.settle();
}
