//! 6–10, 12, 16, 17, 19, 29, 30: how a server comes to hold what the others hold.

use super::stage::{
    cast, ends_well, ensure, next_message, say, sound, start, three, with_limits, with_pasts,
};
use super::{Faults, Guard, Scenario};
use crate::sim::script::{Ensemble, Neglect, Past};
use crate::types::{Epoch, Zxid};
use crate::zab::{Body, Fault, Limits, Message, Persisted, Phase, Plant};

pub(super) const ACK_OVERTAKES: Scenario = Scenario {
    number: 6,
    name: "ack-overtakes",
    story: "A learner has a live transaction on its disk before the epoch that it belongs to, \
            and loses power between the two.",
    guards: &[Guard::Core(Plant::AckOvertakesNewLeader)],
    tell: ack_overtakes,
};

fn ack_overtakes(faults: Faults) -> Result<(), String> {
    let whole = Past::new(3, &[(1, 1), (3, 1)]);
    let behind = Past::new(3, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&behind, &whole, &whole]);
    start(&mut ensemble, &[2, 3]);
    ensemble.server(2).syncs = false;
    ensemble.server(1).syncs = false;
    start(&mut ensemble, &[1]);
    // The accepted epoch, so that history is sent, of which 3:1 is still to be synced.
    ensemble.write_one(1);
    ensemble.settle();
    say(&mut ensemble, 3, "b")?;
    ensemble.settle();
    // Both transactions are synced; the current epoch, which waited for 3:1, is not.
    ensemble.sync(1);
    ensemble.settle();
    for id in 1..=3 {
        ensemble.crash(id);
    }
    start(&mut ensemble, &[1, 2]);
    ensemble.pass(2_000);
    sound(&ensemble)?;
    let leader = ensemble.leader().ok_or("1 and 2 find no leader")?;
    say(&mut ensemble, leader, "c")?;
    ensemble.settle();
    ends_well(&mut ensemble)
}

pub(super) const EARLY_COMMIT: Scenario = Scenario {
    number: 7,
    name: "early-commit",
    story: "Proposals, NewLeader, commits and UpToDate come in all the orders that links allow, \
            and an acknowledgement too many.",
    guards: &[
        Guard::Core(Plant::DeliversUncommitted),
        Guard::Core(Plant::CommitsBeforeEstablished),
    ],
    tell: early_commit,
};

fn early_commit(faults: Faults) -> Result<(), String> {
    only_one_has_it(faults)?;
    acknowledged_too_soon(faults)?;
    for steps in 0..60 {
        joins_after(faults, steps)?;
    }
    Ok(())
}

/// 1 has got `b`, which its leader never gets to its own disk.
fn only_one_has_it(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    ensemble.cut(2, 3, false);
    ensemble.server(3).syncs = false;
    ensemble.server(1).syncs = false;
    say(&mut ensemble, 3, "b")?;
    ensemble.settle();
    ensemble.crash(1);
    ensemble.crash(3);
    ensemble.join_all();
    start(&mut ensemble, &[3]);
    ensemble.pass(2_000);
    let leader = ensemble.leader().ok_or("2 and 3 find no leader")?;
    say(&mut ensemble, leader, "c")?;
    ensemble.settle();
    ends_well(&mut ensemble)
}

/// The leader's own epoch is not on its disk when a follower acknowledges its history twice.
fn acknowledged_too_soon(faults: Faults) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&past; 3]);
    ensemble.server(3).syncs = false;
    start(&mut ensemble, &[1, 3]);
    ensemble.write_one(3);
    ensemble.record = Some(Vec::new());
    ensemble.settle();
    let again = next_message(
        &ensemble,
        1,
        3,
        Body::Ack {
            zxid: Zxid::new(Epoch(1), 1),
        },
    )?;
    ensemble.hear(1, 3, again);
    sound(&ensemble)?;
    ensure(
        ensemble.phase(3) == Phase::Synchronization,
        "3 leads too soon",
    )?;
    ends_well(&mut ensemble)
}

/// 1 joins while the others go on, and stands still after so many steps while more is proposed.
fn joins_after(faults: Faults, steps: usize) -> Result<(), String> {
    let mut ensemble = cast(3, faults);
    start(&mut ensemble, &[2, 3]);
    // Two new servers do not found an ensemble; with the third all three do.
    ensemble.start(1);
    ensemble.steps(steps);
    for text in ["a", "b"] {
        if let Some(leader) = ensemble.leader() {
            say(&mut ensemble, leader, text)?;
        }
        ensemble.steps(3);
    }
    ensemble.settle();
    for id in 1..=3 {
        ensure(!ensemble.started_over(id), "a server has to start over")?;
    }
    ends_well(&mut ensemble)
}

pub(super) const STALE_REPORT: Scenario = Scenario {
    number: 8,
    name: "stale-report",
    story: "A server is told of the end of a sync when what was synced has been cut since, by \
            the leader of a later epoch.",
    guards: &[Guard::Core(Plant::StaleDiskReport)],
    tell: stale_report,
};

fn stale_report(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    ensemble.part(&[3], &[1, 2]);
    say(&mut ensemble, 3, "b")?;
    // The disk has it, and the word of it is under way.
    ensemble.write(3);
    if let Some(log) = &mut ensemble.server(3).log {
        log.sync_now().map_err(|error| error.to_string())?;
    }
    // Not so long that 3 would take its disk to be stuck.
    ensemble.pass(1_500);
    ensure(ensemble.leads(2), "2 does not lead")?;
    ensemble.join_all();
    ensemble.settle();
    ensure(ensemble.phase(3) == Phase::Following, "3 does not follow")?;
    let begun = ensemble.server(3).standings.len();
    let zxid = Zxid::new(Epoch(1), 2);
    ensemble.report_late(3, Persisted::Log(zxid));
    ensemble.settle();
    let now = ensemble.server(3).standings.len();
    ensure(now == begun, "a word about what is gone makes 3 start over")?;
    ends_well(&mut ensemble)
}

pub(super) const BROKEN_SNAPSHOT: Scenario = Scenario {
    number: 9,
    name: "broken-snapshot",
    story: "A leader dies while it sends a snapshot, and the next one sends only what is \
            missing.",
    guards: &[Guard::Host(Neglect::RestoresEarly)],
    tell: broken_snapshot,
};

fn broken_snapshot(faults: Faults) -> Result<(), String> {
    let history = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)];
    let limits = Limits {
        read_bytes_max: 32,
        ..Limits::DEFAULT
    };
    // With the third it would be whole.
    for pieces in 0..3 {
        let whole = Past::new(2, &history);
        let trimmed = Past::new(2, &history).trimmed(4);
        let behind = Past::new(1, &history[..1]);
        let mut ensemble = with_limits(faults, &[&whole, &behind, &trimmed], limits);
        ensemble.committed(&whole);
        ensemble.server(3).answers = false;
        start(&mut ensemble, &[2, 3]);
        for _ in 0..pieces {
            ensemble.answer(3);
            ensemble.settle();
        }
        ensemble.crash(3);
        start(&mut ensemble, &[1]);
        ensemble.pass(2_000);
        sound(&ensemble)?;
        ensure(ensemble.leads(1), "1 does not lead")?;
        ensure(
            ensemble.server(2).zxids() == "1:1 1:2 1:3 1:4 2:1",
            "2 does not hold the history of 1",
        )?;
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

pub(super) const CUT_BELOW_SNAPSHOT: Scenario = Scenario {
    number: 10,
    name: "cut-below-snapshot",
    story: "Two disks are put back from an old backup, against all rules, and their leader has \
            less than the snapshot, or the memory, of the third says is committed.",
    guards: &[
        Guard::Core(Plant::SnapsBack),
        Guard::Core(Plant::ForgetsCommitted),
    ],
    tell: cut_below_snapshot,
};

fn cut_below_snapshot(faults: Faults) -> Result<(), String> {
    older_snapshot_is_not_sent(faults)?;
    for base in [0, 1] {
        committed_is_not_given_up(faults, base)?;
    }
    Ok(())
}

/// The leader's log does not reach back to where the two went apart, and neither does its
/// snapshot reach up to what the other has in one.
fn older_snapshot_is_not_sent(faults: Faults) -> Result<(), String> {
    let restored = Past::new(4, &[(1, 1), (4, 1)]).trimmed(1);
    let newer = Past::new(3, &[(1, 1), (1, 2), (1, 3)]).trimmed(3);
    let mut ensemble = with_pasts(faults, &[&newer, &restored, &restored]);
    start(&mut ensemble, &[2, 3]);
    // Its own past and theirs contradict each other, and the ghost is not asked who is right.
    ensemble.start(1);
    ensemble.steps(400);
    ensure(
        ensemble.server(1).fault.is_none(),
        "1 is told to go back, and withdraws",
    )?;
    ensure(
        ensemble.delivered(1).len() == 3,
        "1 has lost what is in its snapshot",
    )
}

/// 1 knows what is committed, and is told to cut it off, or to replace it by less.
fn committed_is_not_given_up(faults: Faults, base: usize) -> Result<(), String> {
    let history = [(1, 1), (1, 2)];
    let old = Past::new(4, &[(1, 1), (4, 1)]).trimmed(base);
    let mut ensemble = with_pasts(faults, &[&Past::new(1, &history); 3]);
    ensemble.start_all();
    ensure(ensemble.delivered(1).len() == 2, "1 does not deliver 1:2")?;
    for id in [2, 3] {
        ensemble.kill(id);
        ensemble.put(id, &old);
    }
    start(&mut ensemble, &[2, 3]);
    ensemble.pass(500);
    let fault = ensemble.server(1).fault.clone();
    let refuses = matches!(fault, Some(Fault::CommittedWouldBeLost { .. }));
    ensure(refuses, "1 gives up what it has delivered")
}

pub(super) const CUT_ACROSS_EPOCHS: Scenario = Scenario {
    number: 12,
    name: "cut-across-epochs",
    story: "A follower is cut back over several epochs to the last transaction it shares with \
            its leader, and loses power in between.",
    guards: &[Guard::Core(Plant::CutsTooMuch)],
    tell: cut_across_epochs,
};

fn cut_across_epochs(faults: Faults) -> Result<(), String> {
    let theirs = [(1, 1), (1, 2), (2, 1)];
    let own = Past::new(3, &[(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]);
    let mut ensemble = with_pasts(
        faults,
        &[&own, &Past::new(4, &theirs), &Past::new(4, &theirs)],
    );
    ensemble.committed(&Past::new(4, &theirs));
    start(&mut ensemble, &[2, 3]);
    say(&mut ensemble, 3, "b")?;
    ensemble.settle();
    start(&mut ensemble, &[1]);
    ensure(
        ensemble.server(1).zxids() == "1:1 1:2 2:1 5:1",
        "1 is not cut to what it shares",
    )?;
    ends_well(&mut ensemble)?;
    nothing_committed_is_cut(faults)
}

/// 1 and 3 hold 2:1, which 2 lacks. 1 loses power as soon as it has cut what 3 says, and then 3
/// stays away.
fn nothing_committed_is_cut(faults: Faults) -> Result<(), String> {
    let whole = Past::new(2, &[(1, 1), (2, 1)]);
    let behind = Past::new(2, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&whole, &behind, &whole]);
    ensemble.committed(&whole);
    ensemble.server(1).syncs = false;
    start(&mut ensemble, &[1, 3]);
    for _ in 0..2 {
        ensemble.write_one(1);
        ensemble.settle();
    }
    ensemble.crash(1);
    ensemble.crash(3);
    start(&mut ensemble, &[1, 2]);
    ensemble.pass(2_000);
    sound(&ensemble)?;
    ends_well(&mut ensemble)
}

pub(super) const STALE_SERVES_STALE: Scenario = Scenario {
    number: 16,
    name: "stale-serves-stale",
    story: "A stale server is brought up to date by a snapshot, becomes the leader, and brings \
            up another stale one that went its own way.",
    guards: &[
        Guard::Core(Plant::ForgetsInstalled),
        Guard::Core(Plant::KeepsSuffix),
        Guard::Core(Plant::ComparesRanges),
    ],
    tell: stale_serves_stale,
};

fn stale_serves_stale(faults: Faults) -> Result<(), String> {
    let history = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)];
    let astray = [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)];
    for kept in 1..=5 {
        // The log of the first leader reaches back to here.
        for trimmed in [0, 2, 4] {
            let whole = Past::new(2, &history).trimmed(trimmed);
            let behind = Past::new(1, &history[..1]);
            let other = Past::new(1, &astray[..kept]);
            let mut ensemble = with_pasts(faults, &[&other, &behind, &whole]);
            ensemble.committed(&whole);
            start(&mut ensemble, &[2, 3]);
            ensemble.crash(3);
            start(&mut ensemble, &[1]);
            ensemble.pass(2_000);
            sound(&ensemble)?;
            ensure(ensemble.leads(2), "2 does not lead")?;
            ensure(ensemble.phase(1) == Phase::Following, "1 does not follow")?;
            ends_well(&mut ensemble)?;
        }
    }
    Ok(())
}

pub(super) const WINDOW_EDGES: Scenario = Scenario {
    number: 17,
    name: "window-edges",
    story: "Learners lag by every distance behind a leader whose memory holds none, one, few or \
            all of its newest transactions, and live ones follow.",
    guards: &[Guard::Core(Plant::GapAtSwitch)],
    tell: window_edges,
};

fn window_edges(faults: Faults) -> Result<(), String> {
    for window in [0, 1, 2, 3, 5] {
        for held in 0..=4 {
            for trimmed in [0, 1] {
                window_edge(faults, window, held, trimmed)?;
            }
        }
    }
    Ok(())
}

fn window_edge(faults: Faults, window: usize, held: usize, trimmed: usize) -> Result<(), String> {
    let history = [(1, 1), (1, 2)];
    let limits = Limits {
        window_entries_max: window,
        read_bytes_max: 3,
        ..Limits::DEFAULT
    };
    let past = Past::new(1, &history).trimmed(trimmed);
    let behind = Past::new(1, &history[..held.min(2)]);
    let mut ensemble = with_limits(faults, &[&behind, &past, &past], limits);
    if held > 2 {
        start(&mut ensemble, &[1, 2, 3]);
    } else {
        start(&mut ensemble, &[2, 3]);
    }
    for (count, text) in (3..).zip(["a", "b", "c"]) {
        if count > held && ensemble.runs(1) {
            ensemble.kill(1);
            ensemble.settle();
        }
        say(&mut ensemble, 3, text)?;
        ensemble.settle();
    }
    ensemble.start(1);
    ensemble.settle();
    for text in ["d", "e"] {
        say(&mut ensemble, 3, text)?;
        ensemble.settle();
    }
    ensure(ensemble.phase(1) == Phase::Following, "1 does not follow")?;
    ensure(!ensemble.started_over(1), "1 has to start over")?;
    ends_well(&mut ensemble)
}

pub(super) const LATE_JOINER: Scenario = Scenario {
    number: 19,
    name: "late-joiner",
    story: "A server joins while proposals flow, one more with every step of its coming.",
    guards: &[Guard::Core(Plant::GapAtSwitch)],
    tell: late_joiner,
};

fn late_joiner(faults: Faults) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1), (1, 2)]);
    let behind = Past::new(1, &[(1, 1)]);
    for pace in 1..6 {
        let mut ensemble = with_pasts(faults, &[&behind, &past, &past]);
        start(&mut ensemble, &[2, 3]);
        ensemble.start(1);
        for count in 0..20 {
            ensemble.steps(pace);
            say(&mut ensemble, 3, &format!("b{count}"))?;
        }
        ensemble.settle();
        ensure(ensemble.phase(1) == Phase::Following, "1 does not follow")?;
        ensure(!ensemble.started_over(1), "1 has to start over")?;
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

pub(super) const LARGE_SNAPSHOT: Scenario = Scenario {
    number: 29,
    name: "large-snapshot",
    story: "A snapshot takes far longer to send than a synchronization may take, with progress, \
            and another makes no progress.",
    guards: &[
        Guard::Core(Plant::ProgressIsNothing),
        Guard::Core(Plant::KeepsStuck),
    ],
    tell: large_snapshot,
};

/// 3 leads with 2, and sends 1 its snapshot in pieces, each when it is told to.
fn sends_snapshot(faults: Faults) -> Result<Ensemble, String> {
    let history = [(1, 1), (1, 2), (1, 3), (1, 4)];
    let limits = Limits {
        read_bytes_max: 20,
        ..Limits::DEFAULT
    };
    let trimmed = Past::new(1, &history).trimmed(4);
    let behind = Past::new(1, &history[..1]);
    let mut ensemble = with_limits(faults, &[&behind, &trimmed, &trimmed], limits);
    start(&mut ensemble, &[2, 3]);
    ensemble.server(3).answers = false;
    start(&mut ensemble, &[1]);
    ensure(!ensemble.server(3).reads.is_empty(), "3 sends no snapshot")?;
    Ok(ensemble)
}

fn large_snapshot(faults: Faults) -> Result<(), String> {
    let mut ensemble = sends_snapshot(faults)?;
    ensemble.pass(11_000);
    ensure(ensemble.started_over(1), "1 waits without an end")?;
    ends_well(&mut ensemble)?;
    let mut ensemble = sends_snapshot(faults)?;
    for _ in 0..4 {
        ensemble.pass(6_000);
        ensemble.answer(3);
        ensemble.settle();
    }
    ensure(
        !ensemble.started_over(1),
        "1 is let go while its snapshot comes",
    )?;
    ends_well(&mut ensemble)
}

pub(super) const OBSERVER: Scenario = Scenario {
    number: 30,
    name: "observer",
    story: "Observers join while proposals flow, and are all that is left to a leader.",
    guards: &[Guard::Core(Plant::ObserversCount)],
    tell: observer,
};

fn observer(faults: Faults) -> Result<(), String> {
    for pace in 1..6 {
        let mut ensemble = Ensemble::with_observers(3, 2);
        ensemble = ensemble.plants(faults.plants).neglect(faults.neglect);
        start(&mut ensemble, &[1, 2, 3, 5]);
        ensemble.start(4);
        for count in 0..20 {
            ensemble.steps(pace);
            say(&mut ensemble, 3, &format!("b{count}"))?;
        }
        ensemble.pass(1_000);
        ensure(ensemble.phase(4) == Phase::Observing, "4 does not observe")?;
        ensure(!ensemble.started_over(4), "4 has to start over")?;
        for other in [1, 2] {
            ensemble.cut(3, other, true);
        }
        ensemble.settle();
        ensure(!ensemble.leads(3), "3 leads with observers only")?;
        ensemble.pass(2_000);
        ensure(ensemble.leads(2), "2 does not lead")?;
        say(&mut ensemble, 2, "c")?;
        ensemble.settle();
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

pub(super) const OBSERVER_AHEAD: Scenario = Scenario {
    number: 30,
    name: "observer-ahead",
    story: "An observer hears of leaders that die before they are established, and then of one \
            that is, in a lower epoch.",
    guards: &[Guard::Core(Plant::ObserversHearEarly)],
    tell: observer_ahead,
};

fn observer_ahead(faults: Faults) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1)]);
    let mut ensemble = Ensemble::with_observers(3, 1);
    ensemble = ensemble.plants(faults.plants).neglect(faults.neglect);
    for id in 1..=4 {
        ensemble.put(id, &past);
    }
    ensemble.withhold = Some(|from, to, message| {
        let info = matches!(
            message,
            Message::Link {
                body: Body::LeaderInfo { .. },
                ..
            }
        );
        info && (from, to) == (3, 1)
    });
    start(&mut ensemble, &[1, 4]);
    // Each time 3 takes an epoch above the one before, and 1 does not hear of it.
    for _ in 0..3 {
        start(&mut ensemble, &[3]);
        ensemble.pass(500);
        ensemble.crash(3);
        ensemble.settle();
    }
    ensemble.withhold = None;
    start(&mut ensemble, &[2]);
    ensemble.pass(3_000);
    sound(&ensemble)?;
    ensure(ensemble.leads(2), "2 does not lead with 1")?;
    ensure(
        ensemble.phase(4) == Phase::Observing,
        "4 does not observe: it has heard of a higher epoch",
    )?;
    ends_well(&mut ensemble)
}
