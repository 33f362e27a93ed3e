//! The whole way of a write on one thread, sync included: so the batch of one is about one
//! fdatasync, and the large batch tells what the code itself costs. And the way of many
//! sessions that are due together, to the last that is let go.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

mod lone;

use std::cell::RefCell;
use std::hint::black_box;
use std::iter;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lone::Server;
use systole::time::{Millis, TICK_MS};

/// `count` members join in one pipelined input, and are answered.
fn join(server: &mut Server, joined: &mut u64, count: u64) {
    let mut input = Vec::new();
    for _ in 0..count {
        *joined += 1;
        let member = *joined;
        input.extend_from_slice(
            format!(
                "PUT /group-{:03}/member-{member:017} HTTP/1.1\r\nhost: s\r\n\
                 prefer: return=minimal\r\n\r\n",
                member % 100
            )
            .as_bytes(),
        );
    }
    let mut out = Vec::new();
    server.receive(iter::once((0, &input[..])), &mut out);
    server.carry(&mut out);
    let answers = out.windows(12).filter(|at| at == b"HTTP/1.1 201");
    assert_eq!(answers.count() as u64, count, "each join is answered 201");
}

fn joins(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/joins");
    for batch in [1_u64, 64, 2_048] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory");
        let (mut server, mut joined) = (Server::new(dir.path(), 1), 0);
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| {
                join(&mut server, &mut joined, black_box(batch));
            });
        });
    }
    group.finish();
}

/// Members in as many groups as have some leaves each fall due together, and are gone.
fn expiry(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/expiry");
    group.sample_size(10);
    group.throughput(Throughput::Elements(EXPIRING));
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory");
    let (server, mut joined) = (RefCell::new(Server::new(dir.path(), 1)), 0);
    let mut until_due = || {
        let server = &mut *server.borrow_mut();
        for _ in 0..EXPIRING / JOINING {
            join(server, &mut joined, JOINING);
        }
        while !server.is_behind() {
            server.pass(Millis(TICK_MS));
        }
    };
    let until_gone = |()| {
        let mut server = server.borrow_mut();
        while server.sessions() > 0 {
            server.carry(&mut Vec::new());
            server.pass(Millis(1));
        }
    };
    group.bench_function(BenchmarkId::from_parameter(EXPIRING), |b| {
        b.iter_batched(&mut until_due, until_gone, BatchSize::PerIteration);
    });
    group.finish();
}

/// Members that fall due together, and how many of them join at a time.
const EXPIRING: u64 = 65_536;
const JOINING: u64 = 2_048;

criterion_group!(benches, joins, expiry);
criterion_main!(benches);
