//! What the HTTP codec costs a request, and a line of a batch.
//!
//! Target: a heartbeat as curl sends it is parsed in 60 ns; parsed, routed and answered it
//! should stay a small part of the microsecond of user time that a lone request has.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use systole::http::{self, BeatAnswer, Familiar, Limits, Progress, Route, Scratch};
use systole::time::Millis;
use systole::types::{GroupVersion, SessionId};

/// As wrk sends it.
const SHORT: &str = "HEAD /g/m HTTP/1.1\r\nHost: x\r\n\r\n";

/// As curl sends it, with names of a usual length.
const CURL: &str = "HEAD /database/db1.fleet.example.com HTTP/1.1\r\nHost: 127.0.0.1:8640\r\n\
    User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// With a session id, as a careful client sends it.
const FENCED: &str = "HEAD /database/db1.fleet.example.com HTTP/1.1\r\nHost: 127.0.0.1:8640\r\n\
    x-session-id: 6543210000000001000000000000abcd\r\n\r\n";

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("http/parse");
    for (name, text) in [("short", SHORT), ("curl", CURL), ("fenced", FENCED)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let limits = Limits::default();
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut progress = Progress::default();
                let request = http::parse(black_box(text.as_bytes()), &mut progress, &limits);
                black_box(&request);
            });
        });
        group.bench_function(format!("{name}, httparse"), |b| {
            b.iter(|| {
                let mut headers = [httparse::EMPTY_HEADER; 16];
                let mut request = httparse::Request::new(&mut headers);
                let _ = black_box(request.parse(black_box(text.as_bytes())));
                black_box(&request);
            });
        });
    }
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("http/route");
    let escaped = CURL.replace("db1", "%64b1");
    for (name, text) in [
        ("short", SHORT),
        ("curl", CURL),
        ("escaped", escaped.as_str()),
    ] {
        let request = http::parse(
            text.as_bytes(),
            &mut Progress::default(),
            &Limits::default(),
        )
        .expect("a good request")
        .expect("a whole request");
        let mut scratch = Scratch::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                let route = http::route(black_box(&request), &mut scratch);
                black_box(&route);
            });
        });
    }
}

fn respond(c: &mut Criterion) {
    let id = SessionId::from_parts(0x6543_2100_0000_0001, 0xabcd);
    let mut out = Vec::with_capacity(4096);
    let mut answers = BeatAnswer::new();
    c.bench_function("http/respond/beat", |b| {
        b.iter(|| {
            out.clear();
            let version = black_box(GroupVersion(123_456));
            answers.write(&mut out, version, black_box(id), Millis(10_000));
            black_box(&out);
        });
    });
}

/// A heartbeat from its bytes to the answer's, without the session table between.
fn heartbeat(c: &mut Criterion) {
    let mut group = c.benchmark_group("http/heartbeat");
    let id = SessionId::from_parts(0x6543_2100_0000_0001, 0xabcd);
    let (limits, mut scratch) = (Limits::default(), Scratch::new());
    let mut out = Vec::with_capacity(4096);
    let mut answers = BeatAnswer::new();
    for (name, text) in [("short", SHORT), ("curl", CURL), ("fenced", FENCED)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let mut progress = Progress::default();
                let input = black_box(text.as_bytes());
                let request = http::parse(input, &mut progress, &limits)
                    .expect("a good request")
                    .expect("a whole request");
                match http::route(&request, &mut scratch) {
                    Ok(Route::Beat { group, member }) => black_box((group, member)),
                    other => panic!("not a heartbeat: {other:?}"),
                };
                answers.write(&mut out, GroupVersion(7), id, Millis(10_000));
                black_box(&out);
            });
        });
    }
    // The same once the shard has seen how its clients' heads end.
    for (name, text) in [("short again", SHORT), ("curl again", CURL)] {
        let input = text.as_bytes();
        let request = http::parse(input, &mut Progress::default(), &limits)
            .expect("a good request")
            .expect("a whole request");
        let mut familiar = Familiar::default();
        familiar.learn(input, &request);
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let beat = familiar.beat(black_box(input), &limits);
                black_box(beat.expect("a familiar one"));
                answers.write(&mut out, GroupVersion(7), id, Millis(10_000));
                black_box(&out);
            });
        });
    }
}

fn batch(c: &mut Criterion) {
    const LINES: u64 = 10_000;
    let mut group = c.benchmark_group("http/batch");
    group.throughput(Throughput::Elements(LINES));
    let mut body = Vec::new();
    for line in 0..LINES {
        body.extend(format!("group-{:05}/member-{line:017}\n", line % 100).bytes());
    }
    group.bench_function("names", |b| {
        b.iter(|| {
            for line in http::names(black_box(&mut body)) {
                black_box(&line);
            }
        });
    });
    let body: Vec<u8> = (0..LINES)
        .flat_map(|n| SessionId(n.into()).to_bytes())
        .collect();
    group.bench_function("packed", |b| {
        b.iter(|| {
            for id in http::packed(black_box(&body)) {
                black_box(id);
            }
        });
    });
}

criterion_group!(benches, parse, route, respond, heartbeat, batch);
criterion_main!(benches);
