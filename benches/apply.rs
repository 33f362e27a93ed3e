//! What the replicated state machine costs: time per transaction, memory per member.
//!
//! `cargo bench --bench apply` measures at a million members (`SYSTOLE_BENCH_MEMBERS` sets
//! another number) and fails if a member costs more memory than it may. In test mode
//! (`cargo test --benches`) it does the same with twenty thousand, once each.
//!
//! A million members are set up afresh for some measurements, so a run takes a minute.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput};

use rustix::time::{ClockId, clock_gettime};
use systole::group::{Applied, Decision, Join, Lapse, Outcome, Request, Restore, Settings, State};
use systole::time::Millis;
use systole::types::{Epoch, Incarnation, ServerId, Zxid};

fn main() {
    let measuring = std::env::args().any(|arg| arg == "--bench");
    let asked = std::env::var("SYSTOLE_BENCH_MEMBERS").ok();
    let members = match asked.and_then(|text| text.parse().ok()) {
        Some(members) => members,
        None if measuring => 1_000_000,
        None => 20_000,
    };
    memory(members);
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(20)
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    transactions(&mut criterion, members);
    expiry(&mut criterion, members);
    ownership(&mut criterion, members);
    reading(&mut criterion, members);
    criterion.final_summary();
}

/// Bytes per member, by the sizes that the allocator really hands out.
fn memory(members: usize) {
    let shapes = [
        ("one group, random order", 1, false, 50),
        ("one group, in order", 1, true, 50),
        ("ten members a group", members / 10, false, 75),
    ];
    for (what, groups, in_order, limit) in shapes {
        HELD_BYTES.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::Relaxed);
        let world = World::with(members, groups, in_order);
        COUNTING.store(false, Ordering::Relaxed);
        let each = HELD_BYTES.load(Ordering::Relaxed) as f64 / members as f64;
        println!("memory: {each:.1} B a member of {members}, {what}, 24-byte names");
        assert!(
            each <= f64::from(limit),
            "{each:.1} B, and {limit} are allowed"
        );
        drop(world);
    }
}

fn transactions(criterion: &mut Bench, members: usize) {
    let world = RefCell::new(World::with(members, 1, false));
    let mut group = criterion.benchmark_group("transaction");
    group.throughput(Throughput::Elements(1));
    // Members joined some batches ago leave while the next batch is prepared, unmeasured, so
    // the group keeps its size however long this runs.
    let mut joined = VecDeque::new();
    let mut next = 0;
    group.bench_function("join, preprocess and apply", |b| {
        let setup = || {
            if joined.len() > 2 * IN_A_ROW as usize {
                let name: Vec<u8> = joined.pop_front().expect("it is long");
                world.borrow_mut().commit(&leave(&group_of(0, 1), &name));
            }
            next = (next + 1) % (NAMES - members);
            let name = scattered_name(members + next);
            let request = join(&group_of(0, 1), &name);
            joined.push_back(name);
            request
        };
        let commit = |request: Request| {
            world.borrow_mut().commit(&request);
            request
        };
        b.iter_batched(setup, commit, BatchSize::NumIterations(IN_A_ROW));
    });
    let mut order = Lcg(7);
    group.bench_function("renewal that changes nothing", |b| {
        let setup = || join(&group_of(0, 1), &scattered_name(order.below(members)));
        let answer = |request: Request| {
            let world = &mut *world.borrow_mut();
            let decision = world.state.preprocess(&request, &mut world.txn);
            assert!(matches!(decision, Decision::Answer(Outcome::Joined(_))));
            request
        };
        b.iter_batched(setup, answer, BatchSize::NumIterations(IN_A_ROW));
    });
    group.finish();
}

fn expiry(criterion: &mut Bench, members: usize) {
    let mut group = criterion.benchmark_group("expiry");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (what, groups) in [("one group", 1), ("ten members a group", members / 10)] {
        let world = RefCell::new(World::with(members, groups, false));
        let mut order = Lcg(11);
        let mut expired = Vec::new();
        group.bench_function(format!("batch of {BATCH}, {what}"), |b| {
            let setup = || {
                let world = &mut *world.borrow_mut();
                for i in expired.drain(..) {
                    world.commit(&join(&group_of(i, groups), &scattered_name(i)));
                }
                let start = order.below(members);
                expired.extend((0..BATCH).map(|i| (start + i * 17) % members));
                // Shards share the names of groups among their sessions.
                let one: Arc<[u8]> = group_of(0, 1).into();
                let lapses = expired.iter().map(|i| world.lapse(*i, groups));
                let lapses = lapses.map(|mut lapse| {
                    if groups == 1 {
                        lapse.group = Arc::clone(&one);
                    }
                    lapse
                });
                Request::Expire(lapses.collect())
            };
            let commit = |request: Request| {
                world.borrow_mut().commit(&request);
                request
            };
            b.iter_batched(setup, commit, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn ownership(criterion: &mut Bench, members: usize) {
    let mut group = criterion.benchmark_group("ownership");
    let world = RefCell::new(World::with(members, 1, false));
    world.borrow_mut().commit(&adopt(2, 1));
    let mut order = Lcg(13);
    let (mut to, mut start) = (1, 0);
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(format!("move of {BATCH}, there and back"), |b| {
        let setup = || {
            let world = &*world.borrow();
            // Each batch goes there, and then all of it back.
            to = 3 - to;
            if to == 2 {
                start = order.below(members);
            }
            let moved = (0..BATCH).map(|i| world.lapse((start + i * 17) % members, 1));
            Request::Move {
                owner: ServerId(to),
                incarnation: Incarnation(1),
                lapses: moved.collect(),
            }
        };
        let commit = |request: Request| {
            world.borrow_mut().commit(&request);
            request
        };
        b.iter_batched(setup, commit, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(u64::from(SCAN)));
    for (what, server) in [("all its own", 1), ("none its own", 3)] {
        let mut incarnation = 1;
        group.bench_function(format!("a piece of an adoption, {what}"), |b| {
            let setup = || {
                incarnation += 1;
                adopt(server, incarnation)
            };
            let commit = |request: Request| {
                world.borrow_mut().commit(&request);
                request
            };
            b.iter_batched(setup, commit, BatchSize::PerIteration);
        });
    }
    group.bench_function("a piece of a walk for one owner", |b| {
        b.iter(|| {
            let mut found = 0;
            let (server, run) = (ServerId(2), Incarnation(1));
            let state = &world.borrow().state;
            state.scan_owner(server, run, None, SCAN as usize, |_| found += 1);
            found
        });
    });
    group.finish();
}

fn reading(criterion: &mut Bench, members: usize) {
    let world = World::with(members, 1, false);
    let document = world
        .state
        .document(&group_of(0, 1))
        .expect("it has members");
    let mut group = criterion.benchmark_group("state");
    group.throughput(Throughput::Elements(members as u64));
    let mut out = Vec::with_capacity(2 * PIECE_BYTES);
    group.bench_function("render the document in pieces of 64 KiB", |b| {
        b.iter(|| {
            let mut document = document.clone();
            while document.render_into(&["localhost:8640"], &mut out, PIECE_BYTES) {
                black_box(&out);
                out.clear();
            }
            out.clear();
        });
    });
    group.bench_function("take a snapshot", |b| b.iter(|| world.state.snapshot()));
    group.bench_function("write a snapshot in pieces of 64 KiB", |b| {
        b.iter(|| {
            let mut snapshot = world.state.snapshot();
            while snapshot.write_into(&mut out, PIECE_BYTES) {
                black_box(&out);
                out.clear();
            }
            out.clear();
        });
    });
    let mut bytes = Vec::new();
    while world.state.snapshot().write_into(&mut bytes, usize::MAX) {}
    group.sample_size(10);
    group.bench_function("restore from pieces of 64 KiB", |b| {
        b.iter(|| {
            let mut restore = Restore::new(SETTINGS);
            for piece in bytes.chunks(PIECE_BYTES) {
                restore.feed(piece).expect("it was just written");
            }
            restore.finish().expect("it was written to its end")
        });
    });
    group.bench_function("visit every active member", |b| {
        b.iter(|| {
            let mut sum = 0;
            world.state.for_each_active(|a| sum += a.session.timeout.0);
            sum
        });
    });
    group.finish();
}

/// A state with `members` members spread over groups, and what is needed to go on.
struct World {
    state: State,
    txn: Vec<u8>,
    out: Applied,
    next: Zxid,
}

impl World {
    fn with(members: usize, groups: usize, in_order: bool) -> World {
        let mut world = World {
            state: State::new(SETTINGS),
            txn: Vec::new(),
            out: Applied::default(),
            next: Zxid::new(Epoch(1), 1),
        };
        world.commit(&Request::Genesis { birth_s: 1 });
        world.commit(&adopt(1, 1));
        for i in 0..members {
            let name = if in_order {
                name_of(i)
            } else {
                scattered_name(i)
            };
            world.commit(&join(&group_of(i, groups), &name));
        }
        world
    }

    fn lapse(&self, i: usize, groups: usize) -> Lapse {
        let (group, member) = (group_of(i, groups), scattered_name(i));
        let session = self.state.session(&group, &member).expect("it is active");
        Lapse {
            group: group.into(),
            member: member.into(),
            id: session.id,
            term: session.term,
        }
    }

    fn commit(&mut self, request: &Request) {
        let decision = self.state.preprocess(request, &mut self.txn);
        assert_eq!(decision, Decision::Propose);
        let applied = self.state.apply(self.next, &self.txn, &mut self.out);
        applied.expect("it was just made");
        self.next = self.next.next();
    }
}

fn join(group: &[u8], member: &[u8]) -> Request {
    Request::Join(Join {
        group: group.into(),
        member: member.into(),
        timeout: None,
        config: None,
        takeover: false,
        only_if_absent: false,
        owner: ServerId(1),
        incarnation: Incarnation(1),
    })
}

fn adopt(server: u32, incarnation: u64) -> Request {
    Request::Adopt {
        server: ServerId(server),
        incarnation: Incarnation(incarnation),
        after: None,
        limit: SCAN,
    }
}

fn leave(group: &[u8], member: &[u8]) -> Request {
    Request::Leave {
        group: group.into(),
        member: member.into(),
        session: None,
    }
}

fn group_of(i: usize, groups: usize) -> Vec<u8> {
    format!("service-{:08}", i % groups).into_bytes()
}

/// The i-th name in order; 24 bytes.
fn name_of(i: usize) -> Vec<u8> {
    format!("worker-{i:09}.eu-west").into_bytes()
}

/// The i-th of the same names in an order of no pattern: i times an odd number, modulo a
/// power of two, meets each number once.
fn scattered_name(i: usize) -> Vec<u8> {
    name_of((i * 0x9e37_79b1) % NAMES)
}

/// A small generator, so that the runs of one build are alike.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        let step = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = step.wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

type Bench = Criterion<CpuTime>;

/// The processor time of this thread: other work on the machine does not count, except for
/// what it takes of the caches.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Counts what is allocated and not freed while `COUNTING` is set.
struct Counter;

static COUNTING: AtomicBool = AtomicBool::new(false);
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counter = Counter;

/// What glibc takes for `size` bytes: eight more for itself, rounded up to sixteen.
fn taken(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed on to `System` with the arguments it came with, and the
// result is passed back; the counting besides touches only two atomics and never allocates.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) {
            HELD_BYTES.fetch_add(taken(layout.size()), Ordering::Relaxed);
        }
        // SAFETY: `layout` is the caller's, who keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if COUNTING.load(Ordering::Relaxed) {
            HELD_BYTES.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        }
        // SAFETY: `pointer` came from `System.alloc` above with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const SETTINGS: Settings = Settings {
    default_timeout: Millis(10_000),
    seeds: [1, 2, 3, 4],
};

/// Sessions in one expiry.
const BATCH: usize = 4_096;

/// Members that one piece of an adoption looks at.
const SCAN: u32 = 16_384;

/// Transactions measured together: asking for the time costs as much as one of them.
const IN_A_ROW: u64 = 1_000;

/// How many names there are; a power of two.
const NAMES: usize = 1 << 24;

const PIECE_BYTES: usize = 64 * 1024;
