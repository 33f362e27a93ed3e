//! Guards that random faults seldom reach: each with the one history that needs it.

use super::world::{SETTINGS, collect};
use crate::log::disk::Disk as _;
use crate::log::record::{Found, Header, Kind, Position, read_at};
use crate::log::segment::{self, FIRST_RECORD};
use crate::log::{Log, LogError, OpenError, ReadError, Settings, snapshots};
use crate::sim::disk::{Plan, SimDisk};
use crate::types::{Epoch, Zxid};
use std::io::Write as _;

fn zxid(epoch: u64, counter: u64) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn open(disk: &SimDisk) -> Log<SimDisk> {
    let (mut log, _) = Log::open(disk.clone(), SETTINGS).expect("the log opens");
    if log.epochs().accepted < Epoch(2) {
        log.set_accepted_epoch(Epoch(2)).expect("nothing fails");
        log.set_current_epoch(Epoch(2)).expect("nothing fails");
        log.next_incarnation().expect("nothing fails");
    }
    log
}

/// A log of these transactions, 100 bytes each, all durable.
fn log_of(disk: &SimDisk, zxids: &[Zxid]) -> Log<SimDisk> {
    let mut log = open(disk);
    for &zxid in zxids {
        log.append(zxid, &[zxid.counter as u8; 100])
            .expect("nothing fails");
    }
    log.sync_now().expect("nothing fails");
    log
}

fn first_segment() -> [Zxid; 4] {
    [1, 2, 3, 4].map(|counter| zxid(1, counter))
}

fn refusal(disk: SimDisk) -> String {
    match Log::open(disk, SETTINGS) {
        Ok(_) => panic!("the log was opened"),
        Err(error @ OpenError::Corrupt { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
    }
}

/// Overwrites a part of a file.
fn patch(disk: &SimDisk, name: &str, offset: usize, part: &[u8]) {
    let mut bytes = disk.bytes(name);
    bytes[offset..offset + part.len()].copy_from_slice(part);
    disk.put(name, &bytes);
}

fn snapshot(log: &Log<SimDisk>, zxid: Zxid) {
    let mut writer = log.snapshot_writer(zxid).expect("nothing fails");
    writer.write_all(b"state").expect("nothing fails");
    writer.finish().expect("nothing fails");
}

#[test]
fn a_log_older_than_its_snapshot_is_refused() {
    let disk = SimDisk::new(1, Plan::default());
    let mut log = log_of(&disk, &first_segment()[..2]);
    let old = disk.kill(Plan::default());
    log.append(zxid(1, 3), b"later").expect("nothing fails");
    log.sync_now().expect("nothing fails");
    snapshot(&log, zxid(1, 3));
    log.close().expect("nothing fails");
    disk.put("segment-0000000001", &old.bytes("segment-0000000001"));
    let text = refusal(disk);
    assert!(
        text.contains("transactions up to 1:3, of which there is a snapshot"),
        "{text}"
    );
}

#[test]
fn epochs_older_than_the_log_are_refused() {
    let disk = SimDisk::new(1, Plan::default());
    let old = SimDisk::new(1, Plan::default());
    Log::open(old.clone(), SETTINGS).expect("a new log");
    log_of(&disk, &[zxid(2, 1)]).close().expect("nothing fails");
    disk.put("epochs", &old.bytes("epochs"));
    let text = refusal(disk);
    assert!(
        text.contains("epochs at byte 8, after transaction 2:1"),
        "{text}"
    );
}

#[test]
fn a_used_directory_without_any_segment_is_refused_unless_a_snapshot_is_enough() {
    let disk = SimDisk::new(1, Plan::default());
    let log = log_of(&disk, &first_segment());
    snapshot(&log, zxid(1, 4));
    log.close().expect("nothing fails");
    for index in segment::list(&disk).expect("nothing fails") {
        disk.remove(&segment::name_of(index))
            .expect("nothing fails");
    }
    let text = refusal(disk.kill(Plan::default()));
    assert!(text.contains("the beginning of the log"), "{text}");
    let alone = Settings {
        snapshot_is_enough: true,
        ..SETTINGS
    };
    let (mut log, recovered) =
        Log::open(disk.kill(Plan::default()), alone).expect("the snapshot is enough");
    assert_eq!(
        (recovered.snapshot, log.last()),
        (Some(zxid(1, 4)), zxid(1, 4))
    );
    log.append(zxid(1, 5), b"on").expect("it goes on");
    disk.remove(&snapshots::name_of(zxid(1, 4)))
        .expect("nothing fails");
    let Err(error) = Log::open(disk, alone) else {
        panic!("a used directory without anything was opened");
    };
    let text = error.to_string();
    assert!(text.contains("the beginning of the log"), "{text}");
}

#[test]
fn a_clean_stop_leaves_a_durable_mark_that_protects_the_last_transaction() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed, Plan::default());
        log_of(&disk, &first_segment()[..2])
            .close()
            .expect("nothing fails");
        let disk = disk.power_cycle(Plan::default());
        disk.flip("segment-0000000001", FIRST_RECORD + 40 + 144 + 60, 0);
        let text = refusal(disk);
        assert!(text.contains("after transaction 1:1"), "{text}");
    }
}

#[test]
fn a_helper_let_go_twice_over_still_replaces_nothing() {
    let disk = SimDisk::new(1, Plan::default());
    let mut log = open(&disk);
    let late = log.prepare_job().expect("nothing is prepared");
    for counter in 1..=8 {
        log.append(zxid(1, counter), &[1; 100])
            .expect("nothing fails");
    }
    let other = log.prepare_job().expect("the next one is not prepared");
    late.run().expect("nothing fails");
    other.run().expect("nothing fails");
    assert!(log.prepare_job().is_none(), "it is ready");
    log.close().expect("nothing fails");
    assert_eq!(open(&disk).last(), zxid(1, 8));
}

#[test]
fn entries_after_a_transaction_that_was_never_logged_are_refused() {
    let disk = SimDisk::new(1, Plan::default());
    let log = log_of(&disk, &[zxid(1, 1), zxid(1, 2), zxid(2, 1)]);
    let missing = collect(log.entries_after(zxid(1, 3)).expect("it may be there"));
    assert!(matches!(missing, Err(ReadError::NotThere { .. })));
    let found = collect(log.entries_after(zxid(1, 2)).expect("it is there"));
    assert_eq!(found.expect("whole").len(), 1);
}

#[test]
fn entries_that_do_not_follow_one_another_are_refused() {
    let disk = SimDisk::new(1, Plan::default());
    let mut log = log_of(&disk, &first_segment());
    let old = disk.kill(Plan::default());
    log.truncate_after(zxid(1, 2)).expect("nothing fails");
    log.append(zxid(2, 1), &[1; 100]).expect("nothing fails");
    log.append(zxid(2, 2), &[1; 100]).expect("nothing fails");
    // The old fourth record, whole and in its place, behind the new third.
    let fourth = FIRST_RECORD + 40 + 3 * 144;
    let stale = &old.bytes("segment-0000000001")[fourth..fourth + 144];
    assert!(matches!(
        read_at(&old.bytes("segment-0000000001"), SETTINGS.salt, 1, fourth),
        Found::Record(..)
    ));
    patch(&disk, "segment-0000000001", fourth, stale);
    let found = collect(log.entries_after(Zxid::ZERO).expect("it reaches back"));
    assert!(matches!(found, Err(ReadError::Corrupt(_))));
}

#[test]
fn a_segment_that_begins_elsewhere_than_it_did_is_refused() {
    let disk = SimDisk::new(1, Plan::default());
    let zxids: Vec<Zxid> = (1..=9).map(|counter| zxid(1, counter)).collect();
    let log = log_of(&disk, &zxids);
    let at = Position::new(2, FIRST_RECORD as u32);
    let begin = Header::new(Kind::Begin, zxid(1, 1), Position::ZERO, b"");
    let begin = begin.encode(SETTINGS.salt, at);
    patch(&disk, "segment-0000000002", FIRST_RECORD, &begin);
    let found = collect(log.entries_after(Zxid::ZERO).expect("it reaches back"));
    let Err(ReadError::Corrupt(corruption)) = found else {
        panic!("another beginning passed");
    };
    assert_eq!(corruption.offset, FIRST_RECORD as u64);
}

#[test]
fn a_cut_that_would_leave_no_base_changes_nothing() {
    let disk = SimDisk::new(1, Plan::default());
    let zxids: Vec<Zxid> = (1..=15).map(|counter| zxid(1, counter)).collect();
    let mut log = log_of(&disk, &zxids);
    snapshot(&log, zxid(1, 14));
    let job = log.trim_job(1).expect("nothing fails");
    job.run().expect("nothing fails");
    assert!(log.begins_after() > Zxid::ZERO);
    let cut = log.begins_after().next();
    assert!(matches!(
        log.truncate_after(cut),
        Err(LogError::BadCut { .. })
    ));
    log.close().expect("nothing fails");
    assert_eq!(open(&disk).last(), zxid(1, 15));
}

#[test]
fn bytes_behind_a_snapshot_and_a_wrong_total_are_refused() {
    let disk = SimDisk::new(1, Plan::default());
    let log = log_of(&disk, &first_segment());
    snapshot(&log, zxid(1, 4));
    let name = snapshots::name_of(zxid(1, 4));
    let good = disk.bytes(&name);
    let read = |bytes: &[u8]| {
        disk.put(&name, bytes);
        snapshots::verify(&disk, zxid(1, 4), SETTINGS.salt)
    };
    assert!(matches!(read(&good), Ok(5)));
    assert!(matches!(
        read(&[&good[..], &[0]].concat()),
        Err(ReadError::Corrupt(_))
    ));
    let mut bad = good.clone();
    let (start, chunk_crc) = (good.len() - 16, &good[44..48]);
    bad[start + 8] = 6;
    let before = u32::from_le_bytes(chunk_crc.try_into().expect("four bytes"));
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(&bad[start..start + 4]);
    hasher.update(&bad[start + 8..]);
    bad[start + 4..start + 8].copy_from_slice(&hasher.finalize().to_le_bytes());
    let Err(ReadError::Corrupt(corruption)) = read(&bad) else {
        panic!("another total passed");
    };
    assert!(corruption.found.contains("total"), "{corruption}");
}
