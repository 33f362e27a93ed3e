//! The simulated disk itself: what a crash may leave, and what it must not.

use super::{Plan, SECTOR_BYTES, SimDisk};
use crate::log::disk::{Disk as _, Flush as _, Segment, Writer};
use std::collections::BTreeSet;
use std::io::Read as _;

const SECTORS: usize = 3;

/// A synced segment of zeroes on a disk.
fn segment(disk: &SimDisk) -> super::SimFile {
    let segment = disk
        .allocate("a", (SECTORS * SECTOR_BYTES) as u64)
        .expect("nothing fails");
    segment.flush().run().expect("nothing fails");
    disk.sync_dir().expect("nothing fails");
    segment
}

/// The first byte of each sector, over many losses of power.
fn outcomes(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    let mut outcomes = BTreeSet::new();
    let mut disk = disk.kill(Plan::default());
    for _ in 0..400 {
        // Draws differently each time: the seed moves on.
        let _ = disk.rot(|name| name == "spare");
        let bytes = disk.power_cycle(Plan::default()).bytes("a");
        outcomes.insert(bytes.iter().step_by(SECTOR_BYTES).copied().collect());
        disk = disk.kill(Plan::default());
    }
    outcomes
}

fn with_spare(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed, Plan::default());
    let mut spare = disk.create("spare").expect("nothing fails");
    Writer::write(&mut spare, &[1; 64]).expect("nothing fails");
    spare.sync().expect("nothing fails");
    disk.sync_dir().expect("nothing fails");
    disk
}

#[test]
fn each_sector_not_synced_holds_any_of_its_versions_apart_from_the_others() {
    let disk = with_spare(1);
    let mut segment = segment(&disk);
    Segment::write(&mut segment, 0, &[1; SECTOR_BYTES]).expect("written");
    // Over the border: one write, two sectors.
    Segment::write(&mut segment, 1, &[2; SECTOR_BYTES]).expect("written");
    Segment::write(&mut segment, 0, &[3]).expect("written");
    let expected: BTreeSet<Vec<u8>> = [0, 1, 3]
        .into_iter()
        .flat_map(|first| [0, 2].map(|second| vec![first, second, 0]))
        .collect();
    // The first sector's second version differs from its first only behind its first byte.
    assert_eq!(outcomes(&disk), expected);
    segment.flush().run().expect("nothing fails");
    assert_eq!(outcomes(&disk), BTreeSet::from([vec![3, 2, 0]]));
}

#[test]
fn a_sync_brings_what_was_written_when_it_was_asked_for_and_nothing_later() {
    let disk = with_spare(2);
    let mut segment = segment(&disk);
    Segment::write(&mut segment, 0, &[1]).expect("written");
    let flush = segment.flush();
    Segment::write(&mut segment, 0, &[2]).expect("written");
    Segment::write(&mut segment, SECTOR_BYTES, &[2]).expect("written");
    flush.run().expect("nothing fails");
    let firsts = [1, 2].into_iter();
    let expected: BTreeSet<Vec<u8>> = firsts
        .flat_map(|first| [0, 2].map(|second| vec![first, second, 0]))
        .collect();
    assert_eq!(outcomes(&disk), expected);
}

#[test]
fn after_a_failed_sync_the_next_one_says_well_and_the_disk_may_not_hold_it() {
    let mut held = BTreeSet::new();
    for seed in 0..40 {
        let disk = with_spare(seed);
        let mut segment = segment(&disk);
        Segment::write(&mut segment, 0, &[7; SECTOR_BYTES]).expect("written");
        disk.fail_after(0);
        segment.flush().run().expect_err("planned");
        segment.flush().run().expect("it says that all is well");
        assert_eq!(disk.bytes("a")[0], 7, "the cache shows it");
        let disk = disk.power_cycle(Plan::default());
        held.insert(disk.bytes("a")[0]);
        // The next process reads what is there.
        disk.reread("a").expect("nothing fails");
    }
    assert_eq!(held, BTreeSet::from([0, 7]));
}

#[test]
fn a_write_after_a_failed_sync_takes_its_whole_sector_along() {
    for seed in 0..40 {
        let disk = with_spare(seed);
        let mut segment = segment(&disk);
        Segment::write(&mut segment, 0, &[7; 2 * SECTOR_BYTES]).expect("written");
        disk.fail_after(0);
        segment.flush().run().expect_err("planned");
        Segment::write(&mut segment, 9, &[8]).expect("written");
        segment.flush().run().expect("nothing fails");
        let bytes = disk.power_cycle(Plan::default()).bytes("a");
        assert_eq!((bytes[0], bytes[9]), (7, 8), "the page was written whole");
        assert!([0, 7].contains(&bytes[SECTOR_BYTES]));
    }
}

#[test]
fn changes_of_names_not_synced_happen_apart_from_one_another() {
    let mut found = BTreeSet::new();
    for seed in 0..200 {
        let disk = with_spare(seed);
        drop(disk.create("b").expect("nothing fails"));
        disk.rename("spare", "c").expect("nothing fails");
        let names = disk.power_cycle(Plan::default()).list();
        found.insert(names.expect("nothing fails").join(" "));
    }
    let expected = ["b c", "b spare", "c", "spare"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn faults_can_be_planned_from_now_on_and_taken_back() {
    let disk = with_spare(1);
    let before = disk.events();
    disk.fail_after(1);
    disk.sync_dir().expect("the first one is well");
    disk.sync_dir().expect_err("the second one fails");
    disk.sync_dir().expect("the third one is well");
    disk.fail_from_now(true);
    for _ in 0..3 {
        disk.sync_dir().expect_err("all fail");
    }
    disk.fail_from_now(false);
    disk.sync_dir().expect("none fails any more");
    assert_eq!(disk.events(), before + 7);
    disk.crash_after(1);
    disk.sync_dir().expect("the first one is well");
    assert!(!disk.crashed());
    disk.sync_dir().expect_err("power is lost");
    assert!(disk.crashed());
    let disk = disk.power_cycle(Plan::default());
    assert_eq!(disk.plan(), Plan::default());
    disk.cut_power();
    assert!(disk.list().is_err());
    assert!(disk.open("spare").is_err());
}

#[test]
fn a_disk_fills_up_and_has_room_again_and_counts_files_with_names_alone() {
    let disk = with_spare(1);
    assert_eq!(disk.used(), 64);
    disk.set_capacity(Some(100));
    let mut file = disk.create("b").expect("an empty file has room");
    Writer::write(&mut file, &[0; 36]).expect("there is just room");
    Writer::write(&mut file, &[0]).expect_err("it is full");
    disk.allocate("c", 1).err().expect("it is full");
    disk.remove("spare").expect("nothing fails");
    assert_eq!(disk.used(), 36);
    Writer::write(&mut file, &[0; 64]).expect("there is room again");
    drop(disk.create("b").expect("in place of the old one"));
    assert_eq!(disk.used(), 0);
    Writer::write(&mut file, &[0; 50]).expect("it has no name");
    disk.rename("c", "b").expect("nothing fails");
    disk.set_capacity(None);
    disk.allocate("d", 1000).expect("all the room there is");
    assert_eq!(disk.used(), 1000);
    assert_eq!(disk.kill(Plan::default()).used(), 1000);
}

#[test]
fn a_file_without_a_name_is_there_until_it_is_closed_and_then_its_place_is_free() {
    let disk = with_spare(1);
    let mut open = segment(&disk);
    disk.remove("a").expect("nothing fails");
    disk.sync_dir().expect("nothing fails");
    Segment::write(&mut open, 0, &[1]).expect("it is still open");
    for _ in 0..10 {
        let mut other = disk.create("b").expect("nothing fails");
        Writer::write(&mut other, &[2; 10]).expect("nothing fails");
        other.sync().expect("nothing fails");
        disk.rename("b", "c").expect("nothing fails");
        disk.sync_dir().expect("nothing fails");
    }
    open.flush().run().expect("it is still open");
    assert_eq!(disk.bytes("c"), [2; 10]);
    assert!(disk.world().files.len() <= 5, "files without names pile up");
    drop(open);
    disk.sync_dir().expect("nothing fails");
    let world = disk.world();
    assert_eq!(world.files.iter().flatten().count(), world.names.len());
}

#[test]
fn rot_flips_one_bit_of_an_eligible_file_in_the_cache_and_on_the_disk() {
    let disk = with_spare(1);
    drop(segment(&disk));
    assert_eq!(disk.rot(|name| name == "z"), None);
    for _ in 0..20 {
        let before = disk.bytes("a");
        let spot = disk.rot(|name| name == "a").expect("it is not empty");
        assert_eq!(spot.0, "a");
        let after = disk.bytes("a");
        let flipped = before
            .iter()
            .zip(&after)
            .map(|(one, other)| (one ^ other).count_ones());
        assert_eq!(flipped.sum::<u32>(), 1);
        assert_eq!(disk.power_cycle(Plan::default()).bytes("a"), after);
    }
}

#[test]
fn a_flipped_bit_stays_flipped_whatever_is_drawn() {
    let disk = with_spare(1);
    let mut segment = segment(&disk);
    Segment::write(&mut segment, 0, &[1]).expect("written");
    Segment::write(&mut segment, 0, &[3, 3]).expect("written");
    disk.flip("a", 0, 7);
    let expected = BTreeSet::from([0x80, 0x81, 0x83].map(|first| vec![first, 0, 0]));
    assert_eq!(outcomes(&disk), expected);
}

#[test]
fn a_wiped_disk_is_empty_and_the_old_one_is_off() {
    let disk = with_spare(1);
    let new = disk.wipe(Plan::default());
    assert_eq!(new.list().expect("it works"), Vec::<String>::new());
    assert!(disk.crashed());
    let mut bytes = Vec::new();
    let spare = disk.power_cycle(Plan::default()).open("spare");
    spare.expect("kept").read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes, [1; 64]);
}
