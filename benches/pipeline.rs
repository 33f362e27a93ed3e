//! The whole way of a write on one thread, sync included: so the batch of one is about one
//! fdatasync, and the large batch tells what the code itself costs.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

mod lone;

use std::hint::black_box;
use std::iter;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lone::Server;

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

criterion_group!(benches, joins);
criterion_main!(benches);
