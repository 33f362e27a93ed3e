//! Setting a damaged history aside: the server begins without one, nothing is lost, and no
//! promise falls, wherever it is interrupted.

use super::world::{Promises, Random, SETTINGS, User};
use crate::log::disk::Disk as _;
use crate::log::{Epochs, Log, OpenError, SetAside, segment, set_aside, snapshots};
use crate::sim::disk::{Plan, SimDisk};
use crate::types::{Epoch, Incarnation, Zxid};
use std::collections::{BTreeMap, BTreeSet};

/// What the server's clock says: higher than any incarnation.
const FLOOR: Incarnation = Incarnation(1 << 32);

/// A log of several segments, with epochs and snapshots, all of it durable and damaged.
fn damaged(seed: u64) -> (SimDisk, Epochs) {
    let disk = SimDisk::new(seed, Plan::default());
    let mut promises = Promises::default();
    let mut user = User::open(&disk, &mut promises).expect("nothing fails");
    let worked = user.work(70, &mut Random(seed), &mut promises);
    worked.expect("nothing fails");
    user.sync_now(&mut promises).expect("nothing fails");
    let epochs = user.log.epochs();
    drop(user);
    let name = history(&disk).pop_last().expect("there is a segment").0;
    let name = match name.starts_with("snapshot") {
        true => segment::name_of(*segment::list(&disk).expect("listed").last().expect("one")),
        false => name,
    };
    disk.flip(&name, 0, 0);
    let disk = disk.power_cycle(Plan::default());
    let opened = Log::open(disk.clone(), SETTINGS).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Corrupt { .. })));
    (disk, epochs)
}

/// The files of the history, with their bytes.
fn history(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().expect("the disk works");
    let names = names
        .into_iter()
        .filter(|name| segment::index_of(name).is_some() || snapshots::zxid_of(name).is_some());
    names
        .map(|name| (name.clone(), disk.bytes(&name)))
        .collect()
}

/// Checks that an empty log is opened, that the epochs did not fall, and that every file of
/// `before` is there under another name.
fn check(disk: &SimDisk, before: &BTreeMap<String, Vec<u8>>, epochs: Epochs) {
    let (mut log, recovered) = Log::open(disk.clone(), SETTINGS).expect("it begins anew");
    assert_eq!((recovered.snapshot, log.last()), (None, Zxid::ZERO));
    assert_eq!(log.begins_after(), Zxid::ZERO);
    assert_eq!(log.epochs(), epochs);
    let kept: BTreeSet<Vec<u8>> = disk
        .list()
        .expect("the disk works")
        .iter()
        .filter(|name| name.contains(".aside-"))
        .map(|name| disk.bytes(name))
        .collect();
    for (name, bytes) in before {
        assert!(kept.contains(bytes), "{name} is lost");
    }
    log.set_accepted_epoch(Epoch(90)).expect("nothing fails");
    log.append(Zxid::new(Epoch(90), 1), b"on")
        .expect("it goes on");
}

fn without_history(epochs: Epochs) -> Epochs {
    Epochs {
        current: Epoch(0),
        ..epochs
    }
}

fn crash_at(event: u64) -> Plan {
    Plan {
        crash_at: Some(event),
        ..Plan::default()
    }
}

#[test]
fn a_damaged_history_is_renamed_and_the_server_begins_without_one() {
    for seed in 0..8 {
        let (disk, epochs) = damaged(seed);
        let before = history(&disk);
        let done = set_aside(&disk, Incarnation(0)).expect("nothing fails");
        assert_eq!(done.suffix, ".aside-1");
        assert_eq!(done.epochs, without_history(epochs));
        let names = before.keys().map(|name| format!("{name}.aside-1"));
        assert!(done.files.iter().eq(names.collect::<Vec<_>>().iter()));
        check(&disk, &before, done.epochs);
    }
}

#[test]
fn a_second_history_does_not_overwrite_the_first() {
    let (disk, _) = damaged(1);
    let first = history(&disk);
    set_aside(&disk, Incarnation(0)).expect("nothing fails");
    drop(Log::open(disk.clone(), SETTINGS).expect("it begins anew"));
    let second = history(&disk);
    let done = set_aside(&disk, Incarnation(0)).expect("nothing fails");
    assert_eq!(done.suffix, ".aside-2");
    check(&disk, &first, done.epochs);
    check_kept(&disk, &second, &done);
}

fn check_kept(disk: &SimDisk, before: &BTreeMap<String, Vec<u8>>, done: &SetAside) {
    for (name, bytes) in before {
        assert_eq!(&disk.bytes(&format!("{name}{}", done.suffix)), bytes);
    }
}

#[test]
fn a_crash_at_every_event_leaves_the_old_history_or_none() {
    let (mut crashes, mut begun) = (0, 0);
    for seed in 0..8 {
        let (disk, epochs) = damaged(seed);
        let before = history(&disk);
        let expected = Epochs {
            incarnation: FLOOR,
            ..without_history(epochs)
        };
        for event in 0.. {
            let again = disk.power_cycle(crash_at(event));
            let done = set_aside(&again, FLOOR);
            if done.is_ok() {
                break;
            }
            crashes += 1;
            begun += u64::from(finish(&again, &before, expected));
        }
    }
    assert!(crashes > 100, "only {crashes} crashes");
    assert!(begun > crashes / 4, "begun {begun} times of {crashes}");
}

/// Starts again after a crash, crashing there too at every event; true if the history was
/// being set aside already.
fn finish(crashed: &SimDisk, before: &BTreeMap<String, Vec<u8>>, expected: Epochs) -> bool {
    let mut begun = false;
    for event in 0.. {
        let again = crashed.power_cycle(crash_at(event));
        let opened = Log::open(again.clone(), SETTINGS).map(|_| ());
        begun |= opened.is_ok();
        let last = again.power_cycle(Plan::default());
        if Log::open(last.clone(), SETTINGS).is_err() {
            // Not begun: all is as it was.
            assert_eq!(&history(&last), before);
            set_aside(&last, FLOOR).expect("nothing fails");
        }
        check(&last, before, expected);
        if !again.crashed() {
            return begun;
        }
    }
    unreachable!("a start has an end")
}

#[test]
fn after_an_error_at_any_event_another_try_may_crash_at_any_event() {
    let (disk, epochs) = damaged(3);
    let before = history(&disk);
    let expected = Epochs {
        incarnation: FLOOR,
        ..without_history(epochs)
    };
    for event in 0.. {
        let again = disk.power_cycle(Plan {
            fail_at: Some(event),
            ..Plan::default()
        });
        let _ = set_aside(&again, FLOOR);
        // The next try finds names that may not be durable, and may end in a crash itself.
        for crash in 0.. {
            let killed = again.kill(crash_at(crash));
            let tried = set_aside(&killed, FLOOR);
            let last = killed.power_cycle(Plan::default());
            if Log::open(last.clone(), SETTINGS).is_err() {
                assert_eq!(history(&last), before);
                set_aside(&last, FLOOR).expect("nothing fails");
            }
            check(&last, &before, expected);
            if tried.is_ok() {
                break;
            }
        }
        if again.events() <= event {
            break;
        }
    }
}

#[test]
fn damaged_epochs_are_set_aside_too_and_the_incarnation_begins_at_the_floor() {
    let (disk, _) = damaged(2);
    for missing in [false, true] {
        let disk = disk.kill(Plan::default());
        match missing {
            true => disk.remove("epochs").expect("it is there"),
            false => disk.flip("epochs", 10, 1),
        }
        let before = history(&disk);
        let done = set_aside(&disk, FLOOR).expect("nothing fails");
        let kept = done.files.contains(&"epochs.aside-1".to_owned());
        assert_eq!(kept, !missing);
        let expected = Epochs {
            incarnation: FLOOR,
            ..Epochs::default()
        };
        check(&disk, &before, expected);
    }
}

#[test]
fn a_damaged_note_is_refused_and_replaced_by_the_next_try() {
    let (disk, epochs) = damaged(5);
    let before = history(&disk);
    disk.create("aside").expect("nothing fails");
    disk.put("aside", &[7; 36]);
    let opened = Log::open(disk.clone(), SETTINGS).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Corrupt { .. })));
    set_aside(&disk, Incarnation(0)).expect("nothing fails");
    check(&disk, &before, without_history(epochs));
}

#[test]
fn a_directory_in_use_or_of_another_format_is_left_alone() {
    let (disk, _) = damaged(6);
    let before = history(&disk);
    let lock = disk.lock().expect("it is free");
    let refused = set_aside(&disk, FLOOR);
    assert!(matches!(refused, Err(OpenError::Locked { .. })));
    drop(lock);
    disk.flip("format", 30, 0);
    let refused = set_aside(&disk, FLOOR);
    assert!(matches!(refused, Err(OpenError::Format { .. })));
    disk.remove("format").expect("it is there");
    let refused = set_aside(&disk, FLOOR);
    assert!(matches!(refused, Err(OpenError::Format { .. })));
    assert_eq!(history(&disk), before);
}

#[test]
fn a_damaged_note_of_a_cut_and_a_damaged_install_are_set_aside_too() {
    for name in ["truncate", "install-0000000000000001-0000000000000009"] {
        let disk = SimDisk::new(1, Plan::default());
        drop(Log::open(disk.clone(), SETTINGS).expect("nothing fails"));
        disk.create(name).expect("nothing fails");
        disk.put(name, &[7; 36]);
        let opened = Log::open(disk.clone(), SETTINGS).map(|_| ());
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{name}");
        let done = set_aside(&disk, Incarnation(0)).expect("nothing fails");
        assert!(done.files.contains(&format!("{name}.aside-1")));
        check(&disk, &BTreeMap::new(), done.epochs);
    }
}
