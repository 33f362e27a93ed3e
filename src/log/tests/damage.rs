//! Flipped bits, shortened files, missing files: repaired or refused, never served.

use super::world::{Promises, Random, SETTINGS, User, collect};
use crate::log::disk::Disk as _;
use crate::log::{Log, OpenError, record, segment, snapshots};
use crate::sim::disk::{Plan, SimDisk};
use crate::types::Zxid;

/// A small log of several segments, with epochs and snapshots, all of it durable.
fn small_log(seed: u64) -> (SimDisk, Promises) {
    let disk = SimDisk::new(seed, Plan::default());
    let mut promises = Promises::default();
    let mut user = User::open(&disk, &mut promises).expect("nothing fails");
    let worked = user.work(70, &mut Random(seed), &mut promises);
    worked.expect("nothing fails");
    user.sync_now(&mut promises).expect("nothing fails");
    (disk.kill(Plan::default()), promises)
}

/// True if the damaged log was refused; if it is served, it must be served whole.
fn refused_or_whole(disk: &SimDisk, promises: &Promises) -> bool {
    let Ok((log, recovered)) = Log::open(disk.kill(Plan::default()), SETTINGS) else {
        return true;
    };
    assert_eq!(log.last(), promises.durable, "the log was cut");
    let after = recovered.snapshot.unwrap_or(Zxid::ZERO);
    for after in [after, log.begins_after()] {
        let expected = promises.appended.iter().filter(|(at, _)| *at > after);
        match collect(log.entries_after(after).expect("the log reaches back")) {
            Ok(found) => assert!(found.iter().eq(expected), "other entries are served"),
            // An old segment that the snapshot covers is read only when it is asked for.
            Err(_) => assert!(after < recovered.snapshot.unwrap_or(Zxid::ZERO)),
        }
    }
    let promised = promises.epochs;
    let found = log.epochs();
    let found = [found.accepted.0, found.current.0, found.incarnation.0];
    assert_eq!(found, promised, "other epochs are served");
    false
}

#[test]
fn every_flipped_byte_of_a_small_log_is_repaired_or_refused_and_never_served() {
    let (mut refused, mut flips) = (0, 0);
    for seed in 0..2 {
        let (disk, promises) = small_log(seed);
        for name in disk.list().expect("the disk works") {
            for byte in 0..disk.bytes(&name).len() {
                let damaged = disk.kill(Plan::default());
                damaged.flip(&name, byte, (byte as u32 * 5 + seed as u32) % 8);
                refused += u64::from(refused_or_whole(&damaged, &promises));
                flips += 1;
            }
        }
    }
    assert!(
        refused * 4 > flips,
        "only {refused} of {flips} flips were noticed"
    );
}

#[test]
fn a_file_shortened_to_any_length_is_refused_or_does_no_harm() {
    let (disk, promises) = small_log(1);
    for name in disk.list().expect("the disk works") {
        for length in 0..disk.bytes(&name).len() {
            let damaged = disk.kill(Plan::default());
            damaged.shorten(&name, length);
            let refused = refused_or_whole(&damaged, &promises);
            let needed = segment::index_of(&name).is_none() && snapshots::zxid_of(&name).is_none();
            assert!(refused || !needed, "{name} shortened to {length}");
        }
    }
}

#[test]
fn a_missing_file_is_refused_or_does_no_harm() {
    for seed in 0..20 {
        let (disk, promises) = small_log(seed);
        for name in disk.list().expect("the disk works") {
            let damaged = disk.kill(Plan::default());
            damaged.remove(&name).expect("it is there");
            let refused = refused_or_whole(&damaged, &promises);
            let snapshot = snapshots::zxid_of(&name).is_some();
            assert!(
                refused || snapshot || is_spare(&disk, &name),
                "seed {seed}: {name}"
            );
        }
    }
}

/// True for a segment that was prepared ahead, or that the newest snapshot covers.
fn is_spare(disk: &SimDisk, name: &str) -> bool {
    let Some(index) = segment::index_of(name) else {
        return false;
    };
    let begin = |index| {
        let names = disk.list().expect("the disk works");
        let name = segment::name_of(index);
        let bytes = names.contains(&name).then(|| disk.bytes(&name))?;
        match record::read_at(&bytes, SETTINGS.salt, index, segment::FIRST_RECORD) {
            record::Found::Record(header, ..) => Some(header.zxid),
            _ => None,
        }
    };
    let newest = snapshots::list(disk)
        .expect("the disk works")
        .first()
        .copied();
    let first = (1..index).all(|index| begin(index).is_none());
    let covered = begin(index + 1).is_some_and(|next| newest >= Some(next)) && first;
    begin(index).is_none() || covered
}

#[test]
fn any_flip_behind_an_unclean_stop_leaves_a_prefix_of_what_was_appended() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let disk = SimDisk::new(seed, Plan::default());
        let mut promises = Promises::default();
        let mut user = User::open(&disk, &mut promises).expect("nothing fails");
        user.work(50, &mut random, &mut promises)
            .expect("nothing fails");
        let disk = disk.power_cycle(Plan::default());
        let names = disk.list().expect("the disk works");
        let name = &names[random.below(names.len() as u64) as usize];
        let length = disk.bytes(name).len() as u64;
        if length > 0 {
            disk.flip(name, random.below(length) as usize, random.below(8) as u32);
        }
        let Ok((log, recovered)) = Log::open(disk, SETTINGS) else {
            continue;
        };
        let after = recovered.snapshot.unwrap_or(log.begins_after());
        let found = collect(log.entries_after(after).expect("it reaches back"));
        let found = found.expect("what was just scanned is whole");
        let appended = promises.appended.iter().filter(|(at, _)| *at > after);
        let expected = appended.take(found.len());
        assert!(found.iter().eq(expected), "seed {seed}: not a prefix");
    }
}

#[test]
fn a_damaged_newest_snapshot_gives_way_to_the_one_before() {
    let mut tried = 0;
    for seed in 0..60 {
        let (disk, promises) = small_log(seed);
        let kept = snapshots::list(&disk).expect("the disk works");
        let &[newest, ref older @ ..] = kept.as_slice() else {
            continue;
        };
        disk.flip(&snapshots::name_of(newest), 50, 3);
        match Log::open(disk.clone(), SETTINGS) {
            Ok((mut log, recovered)) => {
                assert_eq!(recovered.snapshot, older.first().copied());
                assert_eq!(recovered.warnings.len(), 1);
                let after = recovered.snapshot.unwrap_or(Zxid::ZERO);
                let found = collect(log.entries_after(after).expect("it reaches back"));
                let expected = promises.appended.iter().filter(|(at, _)| *at > after);
                assert!(found.expect("whole").iter().eq(expected), "seed {seed}");
                assert!(!log.snapshots().expect("listed").contains(&newest));
                let trimmed = log.trim_job(2).and_then(crate::log::TrimJob::run);
                trimmed.expect("nothing fails");
                let left = snapshots::list(&disk).expect("the disk works");
                assert!(!left.contains(&newest), "trimming keeps a damaged snapshot");
                tried += 1;
            }
            // Trimmed down to one snapshot, there is nothing to fall back to.
            Err(OpenError::Corrupt { .. }) => assert!(older.is_empty(), "seed {seed}"),
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(tried > 10, "only {tried} logs had two snapshots");
}
