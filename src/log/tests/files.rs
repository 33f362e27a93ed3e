//! The log on real files.

use super::world::collect;
use crate::log::disk::Flush;
use crate::log::{FileDisk, FileLog, Log, LogError, OpenError, Settings};
use crate::types::{Epoch, Zxid};
use std::path::Path;

const SETTINGS: Settings = Settings {
    segment_bytes: 64 << 10,
    salt: 7,
    snapshot_is_enough: true,
};

fn open(dir: &Path) -> FileLog {
    let disk = FileDisk::create(dir).expect("the directory is made");
    let (mut log, _) = Log::open(disk, SETTINGS).expect("the log opens");
    if log.epochs().accepted == Epoch(0) {
        log.set_accepted_epoch(Epoch(1)).expect("written");
        log.set_current_epoch(Epoch(1)).expect("written");
    }
    log
}

fn zxid(counter: u64) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

#[test]
fn a_log_of_many_segments_is_read_back_after_a_clean_stop_and_after_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut expected = Vec::new();
    let mut log = open(dir.path());
    for clean in [true, false] {
        let first = expected.len() as u64 + 1;
        for counter in first..first + 3_000 {
            let payload = counter.to_le_bytes().repeat(counter as usize % 20);
            log.append(zxid(counter), &payload).expect("appended");
            expected.push((zxid(counter), payload));
        }
        if clean {
            log.close().expect("closed");
        } else {
            // As if killed: nothing is synced, and the kernel keeps what was written.
            drop(log);
        }
        log = open(dir.path());
        assert_eq!(log.durable(), zxid(expected.len() as u64));
        let entries = log.entries_after(Zxid::ZERO).expect("all are there");
        assert!(collect(entries).expect("all are whole") == expected);
    }
}

#[test]
fn a_ticket_is_run_on_another_thread_while_appends_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path());
    let mut counter = 0;
    let payload = [7; 300];
    while counter < 1_000 {
        counter += 1;
        log.append(zxid(counter), &payload).expect("appended");
        let Some(ticket) = log.begin_sync() else {
            panic!("there is something to sync");
        };
        assert!(log.begin_sync().is_none(), "one ticket at a time");
        let job = log.prepare_job();
        std::thread::scope(|scope| {
            let flushes = ticket.flushes.clone();
            let sync = scope.spawn(move || flushes.iter().try_for_each(Flush::run));
            scope.spawn(move || job.map_or(Ok(()), crate::log::PrepareJob::run));
            for _ in 0..10 {
                counter += 1;
                log.append(zxid(counter), &payload).expect("appended");
            }
            let result = sync.join().expect("no panic");
            let upto = ticket.upto;
            assert_eq!(log.end_sync(ticket, result), Ok(upto));
        });
    }
    drop(log);
    assert_eq!(open(dir.path()).last(), zxid(counter));
}

#[test]
fn a_second_server_on_the_same_directory_is_told_who_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    let disk = FileDisk::create(dir.path()).expect("the directory is there");
    let Err(error) = Log::open(disk, SETTINGS) else {
        panic!("two servers have the directory");
    };
    assert!(matches!(error, OpenError::Locked { .. }));
    let text = error.to_string();
    let pid = format!("(process {})", std::process::id());
    assert!(text.contains(&pid), "{text}");
    drop(log);
    open(dir.path());
}

#[test]
fn a_directory_of_another_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(
        dir.path().join("format"),
        "systole data directory, format 2\n",
    )
    .expect("written");
    let disk = FileDisk::create(dir.path()).expect("the directory is there");
    let Err(error) = Log::open(disk, SETTINGS) else {
        panic!("a format of the future was opened");
    };
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[test]
fn a_gap_and_a_payload_too_long_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path());
    let gap = LogError::ZxidGap {
        last: Zxid::ZERO,
        got: zxid(2),
    };
    assert_eq!(log.append(zxid(2), b""), Err(gap));
    let max = log.payload_bytes_max();
    let too_long = LogError::TooLong {
        bytes: max + 1,
        max,
    };
    assert_eq!(log.append(zxid(1), &vec![1; max + 1]), Err(too_long));
    assert_eq!(log.last(), Zxid::ZERO);
    for counter in 1..5 {
        log.append(zxid(counter), &vec![1; max])
            .expect("the longest fits");
    }
    log.close().expect("closed");
    assert_eq!(open(dir.path()).last(), zxid(4));
}

#[test]
fn of_a_segment_only_what_records_take_is_brought_in_and_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path());
    log.append(zxid(1), b"record").expect("room");
    // A line with its path begins each mapping, and its flags come below.
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux shows a process its own");
    let here = dir.path().to_string_lossy();
    let mut mine = maps.lines().skip_while(|line| !line.contains(&*here));
    let flags = mine.find(|line| line.starts_with("VmFlags:"));
    let flags = flags.expect("the segment is mapped");
    // rr: read at random, so nothing around a page that is wanted is read or written with it.
    assert!(flags.split(' ').any(|flag| flag == "rr"), "{flags}");
}
