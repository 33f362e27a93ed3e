//! The durable log: cost of an append, of a synced batch, and of recovery.
//!
//! Figures are those of the disk under the target directory. Recovery reads from the page
//! cache, for it was just written.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock itself"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use systole::log::{FileDisk, FileLog, Log, Settings, TrimJob};
use systole::types::{Epoch, Zxid};

const PAYLOAD: [u8; 100] = [0x5a; 100];
/// Records of the recovered log.
const RECORDS: u64 = 1_000_000;
/// Syncs come this often while appends are timed, as they would from the pipeline; the time
/// they take is not counted.
const SYNC_EVERY: u64 = 4_096;

fn open(dir: &Path) -> FileLog {
    let disk = FileDisk::create(dir).expect("the target directory is writable");
    let (mut log, _) = Log::open(disk, Settings::new(1)).expect("a new log");
    if log.epochs().accepted == Epoch(0) {
        log.set_accepted_epoch(Epoch(1)).expect("the disk works");
    }
    log
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

fn next(log: &FileLog) -> Zxid {
    Zxid::new(Epoch(1), log.last().counter + 1)
}

/// Nanoseconds a record, page faults and rolls included, syncs and preparation left out.
fn append(criterion: &mut Criterion) {
    let dir = scratch();
    let mut log = open(dir.path());
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(1));
    group.bench_function("append_100_bytes", |bencher| {
        bencher.iter_custom(|count| {
            let mut total = Duration::ZERO;
            let mut left = count;
            while left > 0 {
                let batch = left.min(SYNC_EVERY);
                let start = Instant::now();
                for _ in 0..batch {
                    let zxid = next(&log);
                    log.append(zxid, black_box(&PAYLOAD)).expect("room");
                }
                total += start.elapsed();
                log.sync_now().expect("the disk works");
                if let Some(job) = log.prepare_job() {
                    job.run().expect("room");
                }
                left -= batch;
            }
            // Only the newest segment is kept, or a long run would fill the disk.
            trim(&mut log);
            total
        });
    });
    group.finish();
}

fn trim(log: &mut FileLog) {
    let durable = log.sync_now().expect("the disk works");
    if durable > log.begins_after() {
        let writer = log.snapshot_writer(durable).expect("room");
        writer.finish().expect("room");
        let trimmed = log.trim_job(1).and_then(TrimJob::run);
        trimmed.expect("the disk works");
    }
}

/// Microseconds for appending a batch and syncing it, one batch at a time.
fn batches(criterion: &mut Criterion) {
    let dir = scratch();
    let mut log = open(dir.path());
    let mut group = criterion.benchmark_group("log_append_and_sync");
    for batch in [1_u64, 16, 128, 1_024] {
        group.throughput(Throughput::Elements(batch));
        group.sample_size(20);
        group.bench_function(batch.to_string(), |bencher| {
            bencher.iter(|| {
                for _ in 0..batch {
                    let zxid = next(&log);
                    log.append(zxid, black_box(&PAYLOAD)).expect("room");
                }
                log.sync_now().expect("the disk works")
            });
            trim(&mut log);
        });
    }
    group.finish();
}

/// Seconds to open a log of a million records, and to replay it.
fn recovery(criterion: &mut Criterion) {
    let dir = scratch();
    let mut log = open(dir.path());
    for _ in 0..RECORDS {
        let zxid = next(&log);
        log.append(zxid, &PAYLOAD).expect("room");
    }
    log.close().expect("the disk works");
    let mut group = criterion.benchmark_group("log_recovery");
    group.throughput(Throughput::Elements(RECORDS));
    group.sample_size(10);
    group.bench_function("open_1m_records", |bencher| {
        bencher.iter(|| open(dir.path()).last());
    });
    let log = open(dir.path());
    group.bench_function("replay_1m_records", |bencher| {
        bencher.iter(|| {
            let mut entries = log.entries_after(Zxid::ZERO).expect("all are there");
            let mut bytes = 0;
            while let Some(entry) = entries.next().expect("all are whole") {
                bytes += entry.payload.len();
            }
            bytes
        });
    });
    group.finish();
}

criterion_group!(benches, append, batches, recovery);
criterion_main!(benches);
