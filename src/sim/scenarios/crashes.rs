//! 1–5: servers lose power between two steps that must both have been taken.

use super::stage::{cast, ends_well, ensure, say, sound, start, three, with_pasts};
use super::{Faults, Guard, Scenario};
use crate::sim::disk::Plan;
use crate::sim::script::{Ensemble, Neglect, Past};
use crate::zab::{Body, Message, Phase, Plant};

pub(super) const LATE_LEADER: Scenario = Scenario {
    number: 1,
    name: "late-leader",
    story: "A leader syncs a transaction that nobody else has got, crashes, and comes back when \
            others have committed another in its place.",
    guards: &[
        Guard::Core(Plant::KeepsSuffix),
        Guard::Core(Plant::ComparesRanges),
    ],
    tell: late_leader,
};

fn late_leader(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    ensemble.part(&[3], &[1, 2]);
    say(&mut ensemble, 3, "b")?;
    ensemble.sync(3);
    ensemble.crash(3);
    ensemble.pass(3_000);
    say(&mut ensemble, 2, "c")?;
    ensemble.settle();
    ensemble.join_all();
    start(&mut ensemble, &[3]);
    ensemble.pass(1_000);
    sound(&ensemble)?;
    ensure(
        ensemble.server(3).zxids() == "1:1 2:1",
        "the old leader keeps what was never committed",
    )?;
    ends_well(&mut ensemble)
}

pub(super) const CRASH_ALL: Scenario = Scenario {
    number: 2,
    name: "crash-all",
    story: "All lose power around the moment at which a quorum has acknowledged a transaction, \
            and before anybody hears of its commit.",
    guards: &[
        Guard::Core(Plant::AckBeforeDurable),
        Guard::Core(Plant::LeaderAckBeforeDurable),
        Guard::Host(Neglect::ReportsBeforeSync),
    ],
    tell: crash_all,
};

fn crash_all(faults: Faults) -> Result<(), String> {
    acknowledged_by_a_quorum(faults)?;
    leader_has_not_synced(faults)?;
    for seed in 0..16 {
        followers_have_not_synced(faults, seed)?;
    }
    Ok(())
}

/// `b` is on two disks, and nobody was told that it is committed.
fn acknowledged_by_a_quorum(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    ensemble.server(1).syncs = false;
    say(&mut ensemble, 3, "b")?;
    ensemble.withhold = Some(|_, to, message| {
        let commit = matches!(
            message,
            Message::Link {
                body: Body::Commit { .. },
                ..
            }
        );
        commit || to == 1
    });
    ensemble.settle();
    ensure(ensemble.delivered(3) == ["a", "b"], "b is not committed")?;
    for id in 1..=3 {
        ensemble.crash(id);
    }
    start(&mut ensemble, &[1, 2]);
    ensemble.withhold = None;
    ensemble.pass(2_000);
    ensure(
        ensemble.delivered(1) == ["a", "b"],
        "b is lost with the leader",
    )?;
    ends_well(&mut ensemble)
}

/// Only one follower has synced `b`; then it stays away.
fn leader_has_not_synced(faults: Faults) -> Result<(), String> {
    let mut ensemble = three(faults)?;
    ensemble.cut(2, 3, false);
    ensemble.server(3).syncs = false;
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

/// The followers have written `b` and not synced it.
fn followers_have_not_synced(faults: Faults, seed: u64) -> Result<(), String> {
    let past = Past::new(1, &[(1, 1)]);
    let pasts = [1, 2, 3].map(|id| past.clone().seed(seed * 3 + id));
    let mut ensemble = with_pasts(faults, &[&pasts[0], &pasts[1], &pasts[2]]);
    ensemble.start_all();
    for id in 1..=2 {
        ensemble.server(id).syncs = false;
    }
    say(&mut ensemble, 3, "b")?;
    ensemble.settle();
    ensemble.write(1);
    ensemble.write(2);
    ensemble.settle();
    ensemble.crash(1);
    ensemble.crash(2);
    ensemble.crash(3);
    start(&mut ensemble, &[1, 2]);
    ensemble.pass(2_000);
    let leader = ensemble.leader().ok_or("1 and 2 find no leader")?;
    say(&mut ensemble, leader, "c")?;
    ensemble.settle();
    ends_well(&mut ensemble)
}

pub(super) const NEW_LEADER_STEPS: Scenario = Scenario {
    number: 3,
    name: "new-leader-steps",
    story: "Followers lose power at each point between the writes that NewLeader asks of them, \
            and meet a server of a newer epoch with a shorter log.",
    guards: &[
        Guard::Core(Plant::HistoryNotDurable),
        Guard::Core(Plant::CurrentEpochNotDurable),
    ],
    tell: new_leader_steps,
};

fn new_leader_steps(faults: Faults) -> Result<(), String> {
    for writes in 0..4 {
        for synced in [false, true] {
            for seed in 0..8 {
                new_leader_step(faults, writes, synced, seed)?;
            }
        }
    }
    Ok(())
}

/// 2 leads with 1 and 3, which make only so many writes; then power is lost, and 1 and 3 find
/// themselves with 4.
fn new_leader_step(faults: Faults, writes: u32, synced: bool, seed: u64) -> Result<(), String> {
    let behind = |id: u64| Past::new(1, &[(1, 1)]).seed(seed * 5 + id);
    let newer = Past::new(3, &[(1, 1)]);
    let longest = Past::new(3, &[(1, 1), (3, 1)]);
    let pasts = [&behind(1), &longest, &behind(3), &newer, &newer];
    let mut ensemble = with_pasts(faults, &pasts);
    for id in [1, 3] {
        ensemble.server(id).syncs = false;
    }
    // What comes with it is replayed from the log, and that would hasten the writes.
    ensemble.withhold = Some(|_, _, message| {
        matches!(
            message,
            Message::Link {
                body: Body::UpToDate { .. },
                ..
            }
        )
    });
    start(&mut ensemble, &[1, 2, 3]);
    for _ in 0..writes {
        for id in [1, 3] {
            ensemble.write_one(id);
            if synced {
                ensemble.sync_written(id);
            }
        }
        ensemble.settle();
    }
    for id in 1..=3 {
        ensemble.crash(id);
    }
    ensemble.withhold = None;
    start(&mut ensemble, &[1, 3, 4]);
    ensemble.pass(3_000);
    let leader = ensemble.leader().ok_or("1, 3 and 4 find no leader")?;
    say(&mut ensemble, leader, "b")?;
    ensemble.settle();
    ends_well(&mut ensemble)
}

pub(super) const SHORT_LOG: Scenario = Scenario {
    number: 4,
    name: "short-log",
    story: "A follower loses power when it has been told the newer epoch and not synced the \
            history that belongs to it.",
    guards: &[Guard::Core(Plant::EpochBeforeHistory)],
    tell: short_log,
};

fn short_log(faults: Faults) -> Result<(), String> {
    for seed in 0..16 {
        let whole = Past::new(3, &[(1, 1), (3, 1)]);
        let behind = Past::new(1, &[(1, 1)]).seed(seed);
        let mut ensemble = with_pasts(faults, &[&whole, &whole, &behind]);
        ensemble.committed(&whole);
        ensemble.server(3).syncs = false;
        start(&mut ensemble, &[2, 3]);
        // Epochs are written whole and at once; what is appended waits for a sync.
        for _ in 0..4 {
            ensemble.write(3);
            ensemble.settle();
        }
        ensemble.crash(2);
        ensemble.crash(3);
        start(&mut ensemble, &[1, 3]);
        ensemble.pass(2_000);
        sound(&ensemble)?;
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

pub(super) const ELECTION_ORDER: Scenario = Scenario {
    number: 4,
    name: "election-order",
    story: "Those who look for a leader have histories of different epochs and lengths, and the \
            one that wins must be one that the others can follow.",
    guards: &[
        Guard::Core(Plant::ZxidBeforeEpoch),
        Guard::Core(Plant::IdDecides),
    ],
    tell: election_order,
};

fn election_order(faults: Faults) -> Result<(), String> {
    let newer = Past::new(2, &[(1, 1)]);
    let longer = Past::new(1, &[(1, 1), (1, 2), (1, 3)]);
    let mut ensemble = with_pasts(faults, &[&newer, &longer, &longer]);
    start(&mut ensemble, &[1, 2]);
    ensemble.pass(3_000);
    ensure(ensemble.leads(1), "the newer epoch does not win")?;
    ends_well(&mut ensemble)
}

pub(super) const FORGOTTEN_PROMISE: Scenario = Scenario {
    number: 5,
    name: "forgotten-promise",
    story: "A follower loses power when it has promised an epoch, and promises the same epoch to \
            another leader.",
    guards: &[Guard::Core(Plant::AckEpochBeforeDurable)],
    tell: forgotten_promise,
};

/// 5 gathers promises from 1 and 2; 1 forgets its own, and 4 gathers from 1 and 3. Both are then
/// joined by 3.
fn forgotten_promise(faults: Faults) -> Result<(), String> {
    let past = Past::new(3, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&past; 5]);
    ensemble.part(&[5, 2], &[3, 4]);
    ensemble.server(1).syncs = false;
    start(&mut ensemble, &[1, 2, 5]);
    ensemble.crash(1);
    ensemble.part(&[5, 2], &[1]);
    ensemble.withhold = None;
    start(&mut ensemble, &[1, 3, 4]);
    sound(&ensemble)?;
    ensure(ensemble.leads(4), "4 does not lead with 1 and 3")?;
    // The others did not notice that 3 has left them, nor that it has come to 5 in the meantime.
    ensemble.part(&[1, 4], &[3]);
    ensemble.kill(3);
    ensemble.join(3, 5);
    ensemble.join(3, 2);
    ensemble.start(3);
    let word = super::stage::word_of_following(5, 3);
    ensemble.hear(1, 3, word);
    ensemble.settle();
    sound(&ensemble)?;
    ends_well(&mut ensemble)
}

pub(super) const EPOCH_FILES: Scenario = Scenario {
    number: 5,
    name: "epoch-files",
    story: "Power fails, or a write, at every event of a disk while its server founds an \
            ensemble, follows, leads and restarts.",
    guards: &[
        Guard::Core(Plant::LeaderInfoBeforeDurable),
        Guard::Core(Plant::GoesOnAfterFault),
    ],
    tell: epoch_files,
};

fn epoch_files(faults: Faults) -> Result<(), String> {
    announced_twice(faults)?;
    for at in (0..60).step_by(3) {
        for id in [1, 3] {
            disk_event(faults, id, at, true)?;
            disk_event(faults, id, at + 1, false)?;
        }
    }
    Ok(())
}

/// A leader loses power while its new epoch is on the way to its disk.
fn announced_twice(faults: Faults) -> Result<(), String> {
    let past = Past::new(3, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&past; 3]);
    ensemble.server(3).syncs = false;
    start(&mut ensemble, &[1, 3]);
    ensemble.crash(3);
    ensemble.crash(1);
    start(&mut ensemble, &[2, 3]);
    ensemble.pass(1_000);
    sound(&ensemble)?;
    ends_well(&mut ensemble)
}

fn disk_event(faults: Faults, id: u32, at: u64, power: bool) -> Result<(), String> {
    let mut ensemble = cast(3, faults);
    if power {
        ensemble.server(id).disk.crash_after(at);
    } else {
        ensemble.server(id).disk.fail_after(at);
    }
    for other in 1..=3 {
        if other != id {
            ensemble.start(other);
        }
    }
    if ensemble.try_start(id).is_ok() {
        ensemble.settle();
        for text in ["a", "b", "c", "d", "e"] {
            if let Some(leader) = ensemble.leader() {
                say(&mut ensemble, leader, text)?;
            }
            ensemble.settle();
        }
    }
    ensemble.pass(3_000);
    sound(&ensemble)?;
    fenced_if_failed(&mut ensemble, id)?;
    if ensemble.runs(id) && ensemble.server(id).disk.crashed() {
        ensemble.crash_into(id, Plan::default());
    }
    // What has not gone wrong by now will not.
    ensemble.server(id).disk.crash_after(u64::from(u32::MAX));
    ensemble.server(id).disk.fail_after(u64::from(u32::MAX));
    ends_well(&mut ensemble)
}

/// A server whose disk has failed says nothing any more.
///
/// # Errors
/// If it does.
pub(super) fn fenced_if_failed(ensemble: &mut Ensemble, id: u32) -> Result<(), String> {
    let server = ensemble.server(id);
    let failed = server.log.as_ref().is_some_and(|log| log.fatal().is_some());
    // A core that is not told goes on, and the story shows what comes of it.
    let told = !ensemble.neglects(Neglect::ForgetsFailure);
    if failed && told && ensemble.runs(id) {
        ensure(
            ensemble.phase(id) == Phase::Fenced,
            "a server whose write failed goes on",
        )?;
    }
    Ok(())
}
