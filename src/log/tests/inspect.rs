//! `log dump` and `log verify`: what they say of whole, torn and damaged directories.

use super::world::{Promises, Random, SETTINGS, User};
use crate::log::inspect::{dump_disk, verify_disk};
use crate::log::{InspectError, Log};
use crate::sim::disk::{Plan, SimDisk};
use crate::types::{Epoch, Zxid};

/// Five transactions in two segments.
fn two_segments() -> SimDisk {
    let disk = SimDisk::new(1, Plan::default());
    let (mut log, _) = Log::open(disk.clone(), SETTINGS).expect("nothing fails");
    log.set_accepted_epoch(Epoch(1)).expect("nothing fails");
    for counter in 1..=5 {
        let zxid = Zxid::new(Epoch(1), counter);
        log.append(zxid, &[b'a' + counter as u8; 200])
            .expect("nothing fails");
        log.sync_now().expect("nothing fails");
    }
    log.close().expect("nothing fails");
    disk
}

fn verified(disk: &SimDisk) -> (Result<crate::log::Summary, InspectError>, String) {
    let mut out = Vec::new();
    let result = verify_disk(disk, &mut out);
    (result, String::from_utf8(out).expect("text"))
}

fn dumped(disk: &SimDisk) -> (Result<u64, InspectError>, String) {
    let mut out = Vec::new();
    let describe = |payload: &[u8]| format!("{} x {:?}", payload.len(), payload[0] as char);
    let result = dump_disk(disk, &mut out, &describe);
    (result, String::from_utf8(out).expect("text"))
}

#[test]
fn a_whole_log_is_summed_up_and_every_transaction_is_shown() {
    let disk = two_segments();
    let (summary, text) = verified(&disk);
    let summary = summary.expect("whole");
    assert_eq!((summary.segments, summary.transactions), (2, 5));
    assert_eq!(summary.last, Zxid::new(Epoch(1), 5));
    assert!(text.contains("segment 1: after 0:0 up to 1:3"), "{text}");
    assert!(
        text.contains("whole: 5 transactions after 0:0 up to 1:5"),
        "{text}"
    );
    let (count, text) = dumped(&disk);
    assert_eq!(count.expect("whole"), 5);
    assert!(
        text.contains("1:2  segment 1 byte 344  200 bytes  200 x 'c'"),
        "{text}"
    );
}

#[test]
fn damage_is_named_by_place_and_the_dump_goes_on_behind_it() {
    let disk = two_segments();
    disk.flip("segment-0000000001", 350, 1);
    let (result, text) = verified(&disk);
    assert!(matches!(result, Err(InspectError::Damaged(_))), "{text}");
    let place = "segment-0000000001 at byte 344, after transaction 1:1: found a header with CRC";
    assert!(text.contains(place), "{text}");
    let (result, text) = dumped(&disk);
    assert!(result.is_err());
    assert!(text.contains("!! segment 1 byte 344"), "{text}");
    for shown in ["1:1", "1:3", "1:4", "1:5"] {
        assert!(
            text.contains(&format!("\n{shown}  segment")),
            "{shown} in {text}"
        );
    }
}

#[test]
fn a_directory_without_its_format_is_still_shown_and_another_is_not() {
    use crate::log::disk::Disk as _;
    let disk = two_segments();
    disk.remove("format").expect("it is there");
    let (result, text) = dumped(&disk);
    assert!(result.is_err());
    assert!(text.contains("1:5  segment 2"), "{text}");
    let (result, _) = verified(&SimDisk::new(1, Plan::default()));
    assert!(matches!(result, Err(InspectError::NotOurs { .. })));
}

#[test]
fn verify_says_of_any_crashed_directory_what_a_start_makes_of_it() {
    let mut torn = 0;
    for seed in 0..400 {
        let disk = SimDisk::new(seed, Plan::default());
        let mut promises = Promises::default();
        let mut user = User::open(&disk, &mut promises).expect("nothing fails");
        user.work(40, &mut Random(seed), &mut promises)
            .expect("nothing fails");
        let disk = disk.power_cycle(Plan::default());
        let before: Vec<_> = crate::log::disk::Disk::list(&disk).expect("the disk works");
        let (summary, text) = verified(&disk);
        let summary = summary.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        let after = crate::log::disk::Disk::list(&disk).expect("the disk works");
        assert_eq!(
            (before, disk.events()),
            (after, 0),
            "verify changed something"
        );
        let (log, recovered) = Log::open(disk, SETTINGS).expect("a crash is no damage");
        assert_eq!(summary.last, log.last());
        assert_eq!(summary.snapshots, log.snapshots().expect("listed"));
        assert_eq!(summary.torn, recovered.cut.map(|cut| cut.position));
        torn += u64::from(summary.torn.is_some());
    }
    assert!(torn > 40, "only {torn} crashes tore the tail");
}
