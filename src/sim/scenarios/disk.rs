//! 11, 13–15, 28: disks that fail, lie, are damaged or lost, and snapshots.

use super::crashes::fenced_if_failed;
use super::stage::{
    ends_well, ensure, say, sound, start, three, with_limits, with_pasts, word_of_following,
};
use super::{Faults, Guard, Scenario};
use crate::log::disk::Disk;
use crate::log::set_aside;
use crate::sim::script::{Ensemble, Neglect, Past};
use crate::types::Incarnation;
use crate::zab::{Limits, Plant};

pub(super) const CUT_FAILS: Scenario = Scenario {
    number: 11,
    name: "cut-fails",
    story: "The disk fails at each event of a cut that a leader has asked for, and the server \
            comes back later.",
    guards: &[
        Guard::Core(Plant::GoesOnAfterFault),
        Guard::Host(Neglect::ForgetsFailure),
    ],
    tell: cut_fails,
};

fn cut_fails(faults: Faults) -> Result<(), String> {
    for event in 0..16 {
        let theirs = Past::new(1, &[(1, 1)]);
        let own = Past::new(1, &[(1, 1), (1, 2)]);
        let mut ensemble = with_pasts(faults, &[&theirs, &theirs, &own]);
        start(&mut ensemble, &[1, 2]);
        ensemble.server(3).disk.fail_after(event + 6);
        if ensemble.try_start(3).is_ok() {
            ensemble.settle();
            fenced_if_failed(&mut ensemble, 3)?;
            ensemble.kill(1);
            say_if_leads(&mut ensemble, 2, "b")?;
            ensemble.settle();
            // 2 and 3 were a quorum. Without 2, the word of 3 is all there is.
            ensemble.kill(2);
            ensemble.kill(3);
            start(&mut ensemble, &[1, 3]);
            ensemble.pass(2_000);
            sound(&ensemble)?;
        }
        ensemble.server(3).disk.fail_after(u64::from(u32::MAX));
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

fn say_if_leads(ensemble: &mut Ensemble, id: u32, text: &str) -> Result<(), String> {
    if ensemble.leads(id) {
        say(ensemble, id, text)?;
    }
    Ok(())
}

pub(super) const WRITE_FAILS: Scenario = Scenario {
    number: 13,
    name: "write-fails",
    story: "A write or a sync fails while transactions are committed, and what came of it shows \
            when the server starts again.",
    guards: &[
        Guard::Core(Plant::GoesOnAfterFault),
        Guard::Host(Neglect::ForgetsFailure),
    ],
    tell: write_fails,
};

fn write_fails(faults: Faults) -> Result<(), String> {
    for event in 0..12 {
        for id in [1, 3] {
            let past = Past::new(1, &[(1, 1)]).seed(event);
            let mut ensemble = with_pasts(faults, &[&past; 3]);
            ensemble.start_all();
            // One follower is away, so that the word of the server that fails is needed.
            ensemble.crash(2);
            ensemble.server(id).disk.fail_after(event);
            for text in ["b", "c", "d"] {
                if let Some(leader) = ensemble.leader() {
                    say(&mut ensemble, leader, text)?;
                }
                ensemble.settle();
            }
            fenced_if_failed(&mut ensemble, id)?;
            ensemble.server(id).disk.fail_after(u64::from(u32::MAX));
            ensemble.crash(4 - id);
            ensemble.crash(id);
            start(&mut ensemble, &[2, id]);
            ensemble.pass(2_000);
            sound(&ensemble)?;
            ends_well(&mut ensemble)?;
        }
    }
    Ok(())
}

pub(super) const DAMAGE: Scenario = Scenario {
    number: 14,
    name: "damage",
    story: "A bit flips in the middle of a log, whose server then must not stand for what is \
            left of it.",
    guards: &[Guard::Host(Neglect::CutsDamage)],
    tell: damage,
};

fn damage(faults: Faults) -> Result<(), String> {
    let whole = Past::new(1, &[(1, 1), (1, 2), (1, 3)]);
    let behind = Past::new(1, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&behind, &whole, &whole]);
    ensemble.committed(&whole);
    let names = ensemble.server(3).disk.list();
    let names = names.map_err(|error| error.to_string())?;
    let segment = names.iter().find(|name| name.starts_with("segment-"));
    let segment = segment.ok_or("3 has no log")?.clone();
    let bytes = ensemble.server(3).disk.bytes(&segment);
    let at = bytes.windows(3).position(|window| window == b"1.2");
    let at = at.ok_or("1:2 is not in the log of 3")?;
    ensemble.server(3).disk.flip(&segment, at, 0);
    ensemble.start(1);
    ensure(ensemble.try_start(3).is_err(), "3 starts on a damaged log")?;
    if ensemble.neglects(Neglect::CutsDamage) {
        ensemble.put(3, &behind);
    } else {
        let aside = set_aside(&ensemble.server(3).disk, Incarnation(0));
        aside.map_err(|error| error.to_string())?;
    }
    start(&mut ensemble, &[3]);
    ensemble.pass(3_000);
    sound(&ensemble)?;
    ensure(ensemble.leader().is_none(), "1 and 3 lead without 2")?;
    ends_well(&mut ensemble)
}

pub(super) const LOST_SYNC: Scenario = Scenario {
    number: 14,
    name: "lost-sync",
    story: "Power is lost at every event of a disk while its server commits, and its host takes \
            only syncs for syncs.",
    guards: &[Guard::Host(Neglect::ReportsBeforeSync)],
    tell: lost_sync,
};

fn lost_sync(faults: Faults) -> Result<(), String> {
    for event in 0..24 {
        let past = Past::new(1, &[(1, 1)]);
        let mut ensemble = with_pasts(faults, &[&past.clone().seed(event), &past, &past]);
        ensemble.start_all();
        ensemble.crash(2);
        ensemble.server(1).disk.crash_after(event);
        for text in ["b", "c", "d", "e"] {
            if let Some(leader) = ensemble.leader() {
                say(&mut ensemble, leader, text)?;
            }
            ensemble.settle();
        }
        ensemble.crash(1);
        ensemble.kill(3);
        start(&mut ensemble, &[1, 2]);
        ensemble.pass(2_000);
        sound(&ensemble)?;
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

pub(super) const WIPED_VOTER: Scenario = Scenario {
    number: 15,
    name: "wiped-voter",
    story: "Voters lose their disks and come back while those who hold what they acknowledged \
            are away.",
    guards: &[Guard::Core(Plant::BlankVotes)],
    tell: wiped_voter,
};

fn wiped_voter(faults: Faults) -> Result<(), String> {
    let whole = Past::new(1, &[(1, 1), (1, 2)]);
    let behind = Past::new(1, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&behind, &whole, &Past::default()]);
    ensemble.committed(&whole);
    start(&mut ensemble, &[1, 3]);
    ensemble.pass(5_000);
    sound(&ensemble)?;
    ensure(ensemble.leader().is_none(), "a voter without a past elects")?;
    ends_well(&mut ensemble)?;

    let blank = Past::default();
    let mut ensemble = with_pasts(faults, &[&behind, &behind, &whole, &blank, &blank]);
    ensemble.committed(&whole);
    start(&mut ensemble, &[1, 2, 4, 5]);
    ensemble.pass(5_000);
    sound(&ensemble)?;
    ensure(ensemble.leader().is_none(), "voters without a past elect")?;
    start(&mut ensemble, &[3]);
    ensemble.pass(3_000);
    ensure(
        ensemble.leads(3),
        "3 does not lead, though three have a past",
    )?;
    ends_well(&mut ensemble)
}

pub(super) const WIPED_PROMISE: Scenario = Scenario {
    number: 15,
    name: "wiped-promise",
    story: "A voter that has promised itself to a new leader loses its disk, and meets the \
            deposed one before that has noticed.",
    guards: &[Guard::Core(Plant::BlankUnconfirmed)],
    tell: wiped_promise,
};

/// 5 leads with 1, 2 and 3; then 2 and 3 leave it, and 2 follows 3 together with 4.
fn wiped_promise(faults: Faults) -> Result<(), String> {
    let past = Past::new(3, &[(1, 1)]);
    let mut ensemble = with_pasts(faults, &[&past; 5]);
    start(&mut ensemble, &[1, 2, 3, 5]);
    ensure(ensemble.leads(5), "5 does not lead")?;
    ensemble.part(&[5, 1], &[2, 3, 4]);
    ensemble.start(4);
    ensemble.notice(2, 5);
    ensemble.notice(3, 5);
    // Time enough to do without those who are not heard, and not for 5 to miss anybody.
    ensemble.pass(500);
    ensure(ensemble.leads(3), "3 does not lead with 2 and 4")?;
    say(&mut ensemble, 3, "b")?;
    ensemble.settle();
    ensure(ensemble.leads(5), "5 has noticed")?;
    ensemble.wipe(2);
    ensemble.part(&[2], &[3, 4]);
    ensemble.join(2, 5);
    ensemble.join(2, 1);
    ensemble.start(2);
    ensemble.hear(3, 2, word_of_following(5, 3));
    ensemble.settle();
    if ensemble.leads(5) {
        say(&mut ensemble, 5, "c")?;
        ensemble.settle();
    }
    sound(&ensemble)?;
    ends_well(&mut ensemble)
}

pub(super) const LATE_SNAPSHOT: Scenario = Scenario {
    number: 28,
    name: "late-snapshot",
    story: "A snapshot is taken while transactions are committed, and a server is brought up to \
            date from it at every point.",
    guards: &[Guard::Host(Neglect::SnapshotsLate)],
    tell: late_snapshot,
};

fn late_snapshot(faults: Faults) -> Result<(), String> {
    for before in 0..8 {
        for during in 0..3 {
            let mut ensemble = three(faults)?;
            ensemble.crash(1);
            say_many(&mut ensemble, "before", before)?;
            let (zxid, state) = ensemble.snapshot_begun(3);
            say_many(&mut ensemble, "during", during)?;
            ensemble.snapshot_done(3, zxid, &state);
            say_many(&mut ensemble, "after", 2)?;
            ensemble.kill(3);
            start(&mut ensemble, &[3]);
            ensemble.pass(2_000);
            sound(&ensemble)?;
            start(&mut ensemble, &[1]);
            ends_well(&mut ensemble)?;
        }
    }
    serves_what_it_took(faults)
}

/// The log is trimmed to a snapshot while a learner is read to from it.
fn serves_what_it_took(faults: Faults) -> Result<(), String> {
    let limits = Limits {
        window_entries_max: 0,
        read_bytes_max: 64,
        ..Limits::DEFAULT
    };
    let history: Vec<(u64, u64)> = (1..=12).map(|counter| (1, counter)).collect();
    let whole = Past::new(1, &history);
    for answered in 0..6 {
        let behind = Past::new(1, &history[..1]);
        let mut ensemble = with_limits(faults, &[&behind, &whole, &whole], limits);
        start(&mut ensemble, &[2, 3]);
        ensemble.server(3).answers = false;
        start(&mut ensemble, &[1]);
        for _ in 0..answered {
            ensemble.answer(3);
            ensemble.settle();
        }
        say_many(&mut ensemble, "b", 2)?;
        ensemble.snapshot(3);
        ends_well(&mut ensemble)?;
    }
    Ok(())
}

fn say_many(ensemble: &mut Ensemble, text: &str, count: u32) -> Result<(), String> {
    for number in 0..count {
        say(ensemble, 3, &format!("{text} {number}"))?;
        ensemble.settle();
    }
    Ok(())
}
