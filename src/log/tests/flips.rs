//! Flipped bits after a loss of power and after a clean stop: what a start may still take for a
//! torn tail, and what not.
//!
//! `SYSTOLE_FLIPS` sets the number of flips of the campaign.

use super::world::{Promises, Random, SETTINGS, User, collect};
use crate::log::disk::Disk as _;
use crate::log::record::HEADER_BYTES;
use crate::log::segment::{self, FIRST_RECORD};
use crate::log::{Log, OpenError, snapshots};
use crate::sim::disk::{Plan, SECTOR_BYTES, SimDisk};
use crate::types::Zxid;

/// How a start took a flip.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Refused,
    Whole,
    /// For a torn tail, which it may do with the last batch that was synced.
    Torn,
}

/// A used log, stopped somewhere: after a loss of power, or cleanly.
fn stopped_log(seed: u64, clean: bool) -> (SimDisk, Promises) {
    let disk = SimDisk::new(seed, Plan::default());
    let mut promises = Promises::default();
    let mut random = Random(seed);
    let mut user = User::open(&disk, &mut promises).expect("nothing fails");
    for steps in [30, 30] {
        user.work(steps, &mut random, &mut promises)
            .expect("nothing fails");
        if random.below(2) == 0 {
            drop(user);
            user = User::open(&disk, &mut promises).expect("nothing fails");
        }
    }
    if clean {
        user.sync_now(&mut promises).expect("nothing fails");
        user.log.close().expect("nothing fails");
        promises.settled = promises.durable;
        return (disk.kill(Plan::default()), promises);
    }
    // A sync that has ended and is not told yet leaves its mark too.
    if random.below(4) == 0 {
        user.run_ticket().expect("nothing fails");
    }
    (disk.power_cycle(Plan::default()), promises)
}

/// Starts on a log with a bit flipped.
fn start(disk: SimDisk, promises: &Promises, what: &str) -> Taken {
    let (log, recovered) = match Log::open(disk, SETTINGS) {
        Err(OpenError::Corrupt { .. } | OpenError::Format { .. }) => return Taken::Refused,
        Err(other) => panic!("{what}: {other}"),
        Ok(opened) => opened,
    };
    let last = log.last();
    let settled = promises.settled;
    assert!(last >= settled, "{what}: cut to {last}, below {settled}");
    let found = log.epochs();
    let found = [found.accepted.0, found.current.0, found.incarnation.0];
    assert_eq!(found, promises.epochs, "{what}");
    let after = recovered.snapshot.unwrap_or(log.begins_after());
    let found = collect(log.entries_after(after).expect("it reaches back"));
    let found = found.expect("what was just read is whole");
    let appended = promises.appended.iter();
    let expected = appended.filter(|(at, _)| (after..=last).contains(at) && *at != after);
    assert!(found.iter().eq(expected), "{what}: other entries");
    match last < promises.durable {
        true => Taken::Torn,
        false => Taken::Whole,
    }
}

/// True if the log's end is where a mark lies across two sectors, so that a loss of power may
/// leave half of it and half of the record that was to take its place.
fn ends_across_sectors(disk: &SimDisk) -> bool {
    let (log, _) = Log::open(disk.kill(Plan::default()), SETTINGS).expect("nothing is flipped");
    log.written().offset as usize % SECTOR_BYTES + HEADER_BYTES > SECTOR_BYTES
}

fn flipped(disk: &SimDisk, name: &str, byte: usize, bit: u32) -> SimDisk {
    let flipped = disk.kill(Plan::default());
    flipped.flip(name, byte, bit);
    flipped
}

#[test]
fn no_flip_takes_more_than_the_last_batch_that_was_synced() {
    let told = std::env::var("SYSTOLE_FLIPS").ok();
    let flips: u64 = told.map_or(6_000, |told| told.parse().expect("a number of flips"));
    let per_log = 60;
    let mut torn = 0;
    for seed in 0..flips / per_log {
        let clean = seed % 4 == 0;
        let (disk, mut promises) = stopped_log(seed, clean);
        let vouched = disk.vouched();
        if vouched < promises.settled && ends_across_sectors(&disk) {
            promises.settled = vouched;
        }
        promises.settled = promises.settled.max(vouched);
        let mut random = Random(!seed);
        for _ in 0..per_log {
            let names = disk.list().expect("the disk works");
            let name = &names[random.below(names.len() as u64) as usize];
            let length = disk.bytes(name).len() as u64;
            let (byte, bit) = (random.below(length.max(1)) as usize, random.below(8) as u32);
            let what = format!("seed {seed}, {name} byte {byte} bit {bit}");
            let taken = start(flipped(&disk, name, byte, bit), &promises, &what);
            torn += u64::from(taken == Taken::Torn);
            assert!(!clean || taken != Taken::Torn, "{what}: after a clean stop");
        }
    }
    assert!(torn > 0, "the one limit was never met");
}

#[test]
fn no_flip_of_how_a_segment_begins_takes_more_than_the_last_batch() {
    for seed in 0..3 {
        let (disk, promises) = stopped_log(seed, seed == 0);
        for index in segment::list(&disk).expect("the disk works") {
            let name = segment::name_of(index);
            for at in 0..(FIRST_RECORD + HEADER_BYTES) * 8 {
                let (byte, bit) = (at / 8, at as u32 % 8);
                let what = format!("seed {seed}, {name} byte {byte} bit {bit}");
                start(flipped(&disk, &name, byte, bit), &promises, &what);
            }
        }
    }
}

/// A log of four full segments, each transaction synced while the next one was appended, whose
/// last sync is told.
fn pipelined(disk: &SimDisk) -> (Zxid, Zxid) {
    let (mut log, _) = Log::open(disk.clone(), SETTINGS).expect("nothing fails");
    let epoch = crate::types::Epoch(1);
    log.set_accepted_epoch(epoch).expect("nothing fails");
    let mut durable = [Zxid::ZERO; 2];
    let mut ticket = None;
    for counter in 1..=24 {
        log.append(Zxid::new(epoch, counter), &[counter as u8; 100])
            .expect("nothing fails");
        if let Some(ticket) = ticket.take() {
            end(&mut log, ticket, &mut durable);
        }
        ticket = log.begin_sync();
    }
    end(&mut log, ticket.expect("one is out"), &mut durable);
    (durable[0], durable[1])
}

type Ticket = crate::log::SyncTicket<crate::log::FlushOf<SimDisk>>;

fn end(log: &mut Log<SimDisk>, ticket: Ticket, durable: &mut [Zxid; 2]) {
    let ran = ticket.run();
    let upto = log.end_sync(ticket, ran).expect("nothing fails");
    *durable = [durable[1], upto];
}

#[test]
fn each_sync_vouches_for_the_one_before_though_all_it_took_was_appended_meanwhile() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed, Plan::default());
        let (settled, durable) = pipelined(&disk);
        assert!(settled < durable);
        let disk = disk.power_cycle(Plan::default());
        let vouched = disk.vouched();
        assert!((settled..=durable).contains(&vouched), "{vouched}");
        let last = *segment::list(&disk)
            .expect("the disk works")
            .last()
            .expect("some");
        for index in [last - 1, last] {
            let name = segment::name_of(index);
            for byte in FIRST_RECORD..disk.bytes(&name).len() {
                let disk = flipped(&disk, &name, byte, byte as u32 % 8);
                if let Ok((log, _)) = Log::open(disk, SETTINGS) {
                    assert!(log.last() >= settled, "seed {seed}, {name} byte {byte}");
                }
            }
        }
    }
}

#[test]
fn a_cut_leaves_word_of_what_it_keeps() {
    let disk = SimDisk::new(1, Plan::default());
    let (settled, _) = pipelined(&disk);
    let (mut log, _) = Log::open(disk.clone(), SETTINGS).expect("nothing fails");
    // The batch of which a part is kept is vouched for by what is cut off alone.
    let to = Zxid::new(settled.epoch, 9);
    log.truncate_after(to).expect("nothing fails");
    drop(log);
    let disk = disk.power_cycle(Plan::default());
    let name = segment::name_of(2);
    for byte in FIRST_RECORD..disk.bytes(&name).len() {
        match Log::open(flipped(&disk, &name, byte, 3), SETTINGS) {
            Ok((log, _)) => assert_eq!(log.last(), to, "byte {byte}"),
            Err(error) => assert!(matches!(error, OpenError::Corrupt { .. }), "{error}"),
        }
    }
}

#[test]
fn a_start_leaves_word_of_what_it_found() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed, Plan::default());
        let (_, durable) = pipelined(&disk);
        let disk = disk.power_cycle(Plan::default());
        drop(Log::open(disk.clone(), SETTINGS).expect("nothing fails"));
        let disk = disk.power_cycle(Plan::default());
        assert!(snapshots::list(&disk).expect("the disk works").is_empty());
        let last = *segment::list(&disk)
            .expect("the disk works")
            .last()
            .expect("some");
        let name = segment::name_of(last);
        for byte in FIRST_RECORD..disk.bytes(&name).len() {
            if let Ok((log, _)) = Log::open(flipped(&disk, &name, byte, 0), SETTINGS) {
                assert_eq!(log.last(), durable, "seed {seed} byte {byte}");
            }
        }
    }
}
