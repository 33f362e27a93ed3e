//! I/O errors and full disks: the log is fenced, and nothing is acknowledged after it.

use super::world::{Promises, Random, SETTINGS, User, collect};
use crate::log::{Fatal, Log, LogError, Recovered};
use crate::sim::disk::{Plan, SimDisk};
use crate::types::{Epoch, Zxid};

fn fails_at(event: u64) -> Plan {
    Plan {
        fail_at: Some(event),
        ..Plan::default()
    }
}

/// Every call that would change a fenced log says the same.
fn assert_fenced(user: &mut User) {
    let log = &mut user.log;
    let fatal: Fatal = log.fatal().expect("fenced").clone();
    let durable = log.durable();
    let next = log.last().next();
    for _ in 0..2 {
        assert_eq!(
            log.append(next, b"late"),
            Err(LogError::Fatal(fatal.clone()))
        );
        assert!(log.begin_sync().is_none());
        assert!(log.prepare_job().is_none());
        assert_eq!(log.sync_now(), Err(fatal.clone()));
        assert_eq!(log.set_accepted_epoch(Epoch(u64::MAX)), Err(fatal.clone()));
        assert_eq!(log.next_incarnation(), Err(fatal.clone()));
        let cut = log.truncate_after(Zxid::ZERO);
        assert_eq!(cut, Err(LogError::Fatal(fatal.clone())));
    }
    assert_eq!(log.durable(), durable);
    let last = log.last();
    user.assert_ticket_refused(&fatal);
    assert_eq!(user.log.last(), last);
}

#[test]
fn an_error_at_any_write_or_sync_fences_the_log_and_loses_nothing_acknowledged() {
    let mut fenced = 0;
    for seed in 0..12 {
        let healthy = SimDisk::new(seed, Plan::default());
        let mut user = User::open(&healthy, &mut Promises::default()).expect("nothing fails");
        let worked = user.work(50, &mut Random(seed), &mut Promises::default());
        worked.expect("nothing fails");
        for event in 0..healthy.events() {
            fenced += u64::from(fail_once(seed, event));
        }
    }
    assert!(fenced > 250, "only {fenced} errors fenced the log");
}

/// Lets one event fail, then starts again, both after a kill and after a loss of power.
fn fail_once(seed: u64, event: u64) -> bool {
    let disk = SimDisk::new(seed ^ (event << 20), fails_at(event));
    let mut promises = Promises::default();
    let mut random = Random(seed);
    let mut fenced = false;
    if let Ok(mut user) = User::open(&disk, &mut promises) {
        let worked = user.work(50, &mut random, &mut promises);
        if user.log.fatal().is_some() {
            fenced = true;
            assert_fenced(&mut user);
        } else if worked.is_err() {
            // A helper's job or a snapshot failed, which harms nothing.
            user.work(20, &mut random, &mut promises)
                .expect("it goes on");
        }
    }
    // The next process finds a cache that may show what is not on the disk; it must not
    // promise that.
    let disk = match seed % 2 {
        0 => disk.kill(Plan::default()),
        _ => disk.power_cycle(Plan::default()),
    };
    let mut user = User::open(&disk, &mut promises).expect("the disk works again");
    user.work(10, &mut random, &mut promises)
        .expect("the disk works again");
    drop(user);
    let disk = disk.power_cycle(Plan::default());
    User::open(&disk, &mut promises).expect("the disk works again");
    fenced
}

#[test]
fn an_error_while_starting_harms_nothing() {
    for seed in 0..10 {
        let mut promises = Promises::default();
        let disk = SimDisk::new(seed, Plan::default());
        let mut user = User::open(&disk, &mut promises).expect("nothing fails");
        let mut random = Random(seed);
        user.work(50, &mut random, &mut promises)
            .expect("nothing fails");
        for event in 0..8 {
            let mut promises = promises.clone();
            let disk = disk.power_cycle(fails_at(event));
            let _ = User::open(&disk, &mut promises);
            let disk = disk.kill(Plan::default());
            User::open(&disk, &mut promises).expect("the disk works again");
        }
    }
}

fn open(disk: &SimDisk) -> (Log<SimDisk>, Recovered) {
    let (mut log, recovered) = Log::open(disk.clone(), SETTINGS).expect("the disk works");
    if log.epochs().accepted == Epoch(0) {
        log.set_accepted_epoch(Epoch(1)).expect("the disk works");
    }
    (log, recovered)
}

/// Appends `count` transactions, of which six fill a segment.
fn append(log: &mut Log<SimDisk>, count: u64) {
    for _ in 0..count {
        let zxid = Zxid::new(Epoch(1), log.last().counter + 1);
        log.append(zxid, &[zxid.counter as u8; 100])
            .expect("the disk works");
    }
}

/// What a start takes for durable is so: a loss of power right after it takes none of it back.
fn assert_start_holds(disk: &SimDisk, at_least: Zxid) {
    let (log, recovered) = open(disk);
    assert!(recovered.last >= at_least, "{} is lost", recovered.last);
    drop(log);
    let (_, again) = open(&disk.power_cycle(Plan::default()));
    assert_eq!(again.last, recovered.last, "taken back after a start");
}

#[test]
fn a_failed_sync_whose_end_is_not_told_yet_is_not_made_good_by_filling_segments() {
    for seed in 0..64 {
        let disk = SimDisk::new(seed, Plan::default());
        let (mut log, _) = open(&disk);
        append(&mut log, 2);
        let held = log.sync_now().expect("the disk works");
        append(&mut log, 2);
        let ticket = log.begin_sync().expect("there is something to sync");
        disk.fail_after(0);
        let result = ticket.run();
        assert!(result.is_err(), "the sync was to fail");
        append(&mut log, 26);
        assert!(log.written().segment > 4, "three segments were to be full");
        assert_eq!(log.durable(), held, "a sync that failed counts");
        let lost = disk.power_cycle(Plan::default());
        assert_start_holds(&lost, held);
        log.end_sync(ticket, result).expect_err("the sync failed");
        drop(log);
        assert_start_holds(&disk.kill(Plan::default()), held);
    }
}

#[test]
fn a_cut_far_back_whose_sync_failed_is_made_again() {
    for seed in 0..64 {
        let disk = SimDisk::new(seed, Plan::default());
        let (mut log, _) = open(&disk);
        append(&mut log, 32);
        log.sync_now().expect("the disk works");
        let to = Zxid::new(Epoch(1), 2);
        // One write of the small file, its sync, its name, the directory, and the zeroes.
        for others in 0..8 {
            let disk = disk.kill(Plan::default());
            let (mut log, _) = open(&disk);
            disk.fail_after(others);
            let cut = log.truncate_after(to);
            drop(log);
            let disk = disk.kill(Plan::default());
            let (log, recovered) = open(&disk);
            assert!(recovered.last == to || cut.is_err(), "the cut is not made");
            drop(log);
            let (_, again) = open(&disk.power_cycle(Plan::default()));
            assert_eq!(again.last, recovered.last, "seed {seed} event {others}");
        }
    }
}

#[test]
#[should_panic(expected = "a sync is under way")]
fn a_cut_waits_for_the_ticket_that_is_out() {
    let (mut log, _) = open(&SimDisk::new(1, Plan::default()));
    append(&mut log, 2);
    let _ticket = log.begin_sync();
    let _ = log.truncate_after(Zxid::new(Epoch(1), 1));
}

#[test]
#[should_panic(expected = "a sync is under way")]
fn an_install_waits_for_the_ticket_that_is_out() {
    let (mut log, _) = open(&SimDisk::new(1, Plan::default()));
    append(&mut log, 2);
    let _ticket = log.begin_sync();
    let receiver = log.snapshot_receiver(Zxid::new(Epoch(1), 9));
    let _ = log.install_snapshot(receiver.expect("the disk works"));
}

#[test]
fn a_full_disk_is_an_error_at_extension_and_the_log_stays_readable() {
    let plan = Plan {
        capacity: Some(3 * 1024 + 512),
        ..Plan::default()
    };
    let disk = SimDisk::new(1, plan);
    let (mut log, _) = Log::open(disk.clone(), SETTINGS).expect("there is room to begin");
    log.set_accepted_epoch(Epoch(1)).expect("there is room");
    let mut appended = Vec::new();
    let error = loop {
        let zxid = Zxid::new(Epoch(1), appended.len() as u64 + 1);
        // The helper's failure is not the log's: it goes on while there is room.
        if let Some(job) = log.prepare_job() {
            let _ = job.run();
        }
        match log.append(zxid, &[9; 100]) {
            Ok(()) => appended.push((zxid, vec![9; 100])),
            Err(error) => break error,
        }
        log.sync_now().expect("what fits can be synced");
    };
    let text = error.to_string();
    assert!(matches!(error, LogError::Fatal(_)), "{text}");
    assert!(text.contains("could not extend the log"), "{text}");
    assert!(text.contains("free some space"), "{text}");
    assert!(appended.len() > 12, "three segments were to be filled");
    let found = collect(log.entries_after(Zxid::ZERO).expect("readable"));
    assert!(found.expect("readable") == appended);
    drop(log);
    let (mut log, recovered) =
        Log::open(disk.kill(Plan::default()), SETTINGS).expect("there is room again");
    assert_eq!(recovered.last, appended.last().expect("some").0);
    log.append(recovered.last.next(), b"on")
        .expect("there is room again");
}

#[test]
fn a_helper_that_comes_too_late_does_not_replace_the_segment_in_use() {
    let disk = SimDisk::new(1, Plan::default());
    let (mut log, _) = Log::open(disk.clone(), SETTINGS).expect("nothing fails");
    log.set_accepted_epoch(Epoch(1)).expect("nothing fails");
    let late = log.prepare_job().expect("nothing is prepared");
    let mut zxid = Zxid::new(Epoch(1), 0);
    for _ in 0..20 {
        zxid = zxid.next();
        log.append(zxid, &[1; 100]).expect("nothing fails");
    }
    late.run().expect("nothing fails");
    log.close().expect("nothing fails");
    let (log, recovered) = Log::open(disk, SETTINGS).expect("nothing was harmed");
    assert_eq!((recovered.last, log.last()), (zxid, zxid));
}
