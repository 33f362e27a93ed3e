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

/// Pipelined heartbeats of a million members in no order, as many inputs as come in one after
/// another: all of a beat but the kernel's part.
fn beats(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory");
    let (mut server, mut joined) = (Server::new(dir.path(), 1), 0);
    while joined < BEATING {
        join(&mut server, &mut joined, 2_000);
    }
    let mut state = 1_u64;
    let mut member = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % BEATING + 1
    };
    let mut input = || -> Vec<u8> {
        let beats = (0..PIPELINED).map(|_| {
            let member = member();
            format!(
                "HEAD /group-{:03}/member-{member:017} HTTP/1.1\r\nhost: s\r\naccept: */*\r\n\r\n",
                member % 100
            )
        });
        beats.collect::<String>().into_bytes()
    };
    let inputs: Vec<Vec<u8>> = (0..INPUTS).map(|_| input()).collect();
    let (mut received, mut out) = (Vec::new(), Vec::new());
    let mut exchange = |server: &mut Server, input: &[u8]| {
        // Received from somewhere else, as from the kernel.
        received.clear();
        received.extend_from_slice(input);
        out.clear();
        server.receive(iter::once((0, &received[..])), &mut out);
        out.len()
    };
    let each = exchange(&mut server, &inputs[0]) as u64 / PIPELINED;
    assert!((150..250).contains(&each), "{each} bytes are no answer");
    let mut group = c.benchmark_group("pipeline/beats");
    group.throughput(Throughput::Elements(PIPELINED));
    let mut next = inputs.iter().cycle();
    group.bench_function(BenchmarkId::from_parameter(PIPELINED), |b| {
        b.iter(|| exchange(&mut server, next.next().expect("a cycle")));
    });
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
/// Members that beat, beats in an input, and inputs until the first comes again.
const BEATING: u64 = 1_000_000;
const PIPELINED: u64 = 32;
const INPUTS: u64 = 4_096;

criterion_group!(benches, joins, beats, expiry);
criterion_main!(benches);
