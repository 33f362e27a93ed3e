//! What a beat costs in a table of a million sessions, beside what one cache miss costs.
//!
//! `cargo bench --bench session` measures at 1 M sessions, or at the sizes that
//! `SYSTOLE_BENCH_SESSIONS` names: `1000` shows the instructions alone, without cache misses;
//! `1000000,10000000` needs 2 GB. Before the criterion figures it prints what criterion cannot say: memory a
//! session as the tracker counts it and as the system does, the longest single insert, and a
//! million sessions due at the same tick.
//!
//! All times are CPU time of the thread: wall-clock time on a shared machine says more of its
//! neighbours. (They still share the caches and the way to memory: hence the yardstick.)
//!
//! Each figure stands beside `miss`, one load from a place that the load before it named, in
//! as much memory as the slots take: machines differ most in that. The slots lie in huge pages
//! if the system gives any, as a server has it; `miss` is measured with and without.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion};
use rustix::time::{ClockId, clock_gettime};
use systole::runtime::backing;
use systole::session::{Limits, NewSession, Slot, Tracker};
use systole::time::{Millis, TICK_MS};
use systole::types::{Epoch, SessionId, Term, Zxid};

/// A full table, and keys of it in random order.
struct World {
    tracker: Tracker<u64>,
    slots: Vec<Slot>,
    /// Every session once if there are few, else a random million.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    group: [u8; 8],
    member: [u8; 24],
    id: SessionId,
}

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    // Without `--bench` criterion runs everything once, to see that it works.
    let is_measured = std::env::args().any(|arg| arg == "--bench");
    let sizes = match std::env::var("SYSTOLE_BENCH_SESSIONS") {
        Ok(sizes) if is_measured => sizes,
        _ if is_measured => "1000000".to_owned(),
        _ => "1000".to_owned(),
    };
    for size in sizes.split(',') {
        let size = size
            .parse()
            .expect("SYSTOLE_BENCH_SESSIONS is numbers and commas");
        let before = resident_bytes();
        let mut world = World::new(size, before);
        touches(&mut criterion, size, &mut world);
        inserts(&mut criterion, size, &mut world);
        mass_expiry(size, &mut world);
        drop(world);
        upkeep(&mut criterion, size);
    }
    criterion.final_summary();
}

impl World {
    fn new(size: u32, resident_before: usize) -> World {
        let limits = Limits {
            sessions_max: size + 10_000,
        };
        let mut tracker = Tracker::new(limits, [1, 2, 3, 4], START);
        tracker.advise_memory(backing::ask_for_huge_pages);
        // Written now, so that the system counts it before and not after.
        let mut slots = vec![None; size as usize];
        let resident_before = resident_bytes().max(resident_before);
        let mut longest = Duration::ZERO;
        let begin = clock();
        // Timed by sixteen: the clock costs as much as an insert. The longest sixteen bound
        // the longest one.
        for numbers in (0..size).collect::<Vec<u32>>().chunks(16) {
            let before = clock();
            for &number in numbers {
                let slot = insert(&mut tracker, &Key::new(number), START);
                slots[number as usize] = Some(slot);
            }
            longest = longest.max(since(before));
        }
        let whole = since(begin);
        let resident = resident_bytes() - resident_before;
        let memory = tracker.memory_bytes();
        println!(
            "{size} sessions: {} ns an insert and its key, longest 16 {} us; a session takes {:.1} B \
             (resident {:.1} B): {memory:?}",
            whole.as_nanos() / u128::from(size),
            longest.as_micros(),
            memory.total() as f64 / f64::from(size),
            resident as f64 / f64::from(size),
        );
        let mut next = rng(7);
        let mut order: Vec<u32> = (0..size).collect();
        shuffle(&mut order, &mut next);
        order.truncate(1_000_000);
        World {
            tracker,
            slots: slots.into_iter().flatten().collect(),
            keys: order.into_iter().map(Key::new).collect(),
        }
    }
}

fn touches(criterion: &mut Criterion<CpuTime>, size: u32, world: &mut World) {
    let World { tracker, keys, .. } = world;
    let mut group = criterion.benchmark_group("touch");
    for (name, advise) in [
        ("miss", backing::ask_for_huge_pages as fn(&[u8])),
        ("miss_small_pages", |_| {}),
    ] {
        let mut walk = Walk::new(size, advise);
        group.bench_function(BenchmarkId::new(name, size), |bench| {
            bench.iter(|| walk.step());
        });
    }
    let mut at = 0;
    group.bench_function(BenchmarkId::new("name", size), |bench| {
        bench.iter(|| {
            let key = &keys[at % keys.len()];
            at += 1;
            let slot = tracker.find(&key.group, &key.member);
            slot.map(|slot| tracker.touch(slot, START))
        });
    });
    // Which key is next depends on the session found: nothing overlaps.
    group.bench_function(BenchmarkId::new("name_dependent", size), |bench| {
        bench.iter(|| {
            let key = &keys[at % keys.len()];
            let slot = tracker.find(&key.group, &key.member).expect("it is there");
            at += tracker.view(slot).term.0 as usize;
            tracker.touch(slot, START)
        });
    });
    group.bench_function(BenchmarkId::new("batch_by_name", size), |bench| {
        bench.iter_custom(|iters| {
            in_batches(iters, keys, |keys| {
                let names = keys.iter().map(|key| (&key.group[..], &key.member[..]));
                black_box(tracker.touch_names(names, START, |_, _| panic!("it is there")));
            })
        });
    });
    group.bench_function(BenchmarkId::new("batch_by_id", size), |bench| {
        bench.iter_custom(|iters| {
            let ids: Vec<[u8; 16]> = keys.iter().map(|key| key.id.to_bytes()).collect();
            in_batches(iters, &ids, |ids| {
                let ids = ids.iter().map(|&id| SessionId::from_bytes(id));
                black_box(tracker.touch_ids(ids, START, |_, _| panic!("it is there")));
            })
        });
    });
    group.finish();
}

/// Inserts into the full table, in rounds of new members who leave again unmeasured.
fn inserts(criterion: &mut Criterion<CpuTime>, size: u32, world: &mut World) {
    let tracker = &mut world.tracker;
    let mut group = criterion.benchmark_group("insert");
    group.bench_function(BenchmarkId::from_parameter(size), |bench| {
        bench.iter_custom(|iters| {
            let mut spent = Duration::ZERO;
            let mut done = 0;
            while done < iters {
                let count = (iters - done).min(5_000) as u32;
                let new: Vec<Key> = (0..count).map(|i| Key::new(size + i)).collect();
                let begin = clock();
                let slots: Vec<Slot> = new.iter().map(|key| insert(tracker, key, START)).collect();
                spent += since(begin);
                for slot in slots {
                    tracker.remove(slot);
                }
                done += u64::from(count);
            }
            spent
        });
    });
    group.finish();
}

/// All sessions due at once: how long one slice of the wheel's work keeps the shard.
fn mass_expiry(size: u32, world: &mut World) {
    let now = START + Millis::from_secs(100);
    let mut due = Vec::with_capacity(size as usize);
    let mut longest = Duration::ZERO;
    let mut slices = 0;
    let begin = clock();
    loop {
        let before = clock();
        let more = world.tracker.advance(now, 1_000, &mut due);
        longest = longest.max(since(before));
        slices += 1;
        if !more {
            break;
        }
    }
    assert_eq!(due.len(), world.slots.len());
    println!(
        "{size} sessions due at once: {} ms in {slices} slices of 1,000, longest {} us",
        since(begin).as_millis(),
        longest.as_micros(),
    );
}

/// Sessions of 10 s that beat every 3 s: the wheel's share of one beat.
///
/// Every third beat a session is filed again, so they come in over nine seconds: those of a
/// moment would be filed again together, and most ticks have nothing to do.
fn upkeep(criterion: &mut Criterion<CpuTime>, size: u32) {
    let limits = Limits { sessions_max: size };
    let mut tracker = Tracker::new(limits, [1, 2, 3, 4], START);
    tracker.advise_memory(backing::ask_for_huge_pages);
    let mut coming: Vec<u32> = (0..size).collect();
    shuffle(&mut coming, &mut rng(11));
    // Those who beat in the same tick.
    let mut beating = vec![Vec::new(); BEAT_TICKS];
    let mut now = START;
    let mut due = Vec::new();
    let mut ticks = 0;
    // One tick: the beats that fall in it, unmeasured, and then the wheel.
    let mut tick = |come: &[u32], tracker: &mut Tracker<u64>| {
        let beating = &mut beating[ticks % BEAT_TICKS];
        now = now + Millis(TICK_MS);
        ticks += 1;
        for &slot in &*beating {
            let _ = black_box(tracker.touch(slot, now));
        }
        for &number in come {
            beating.push(insert(tracker, &Key::new(number), now));
        }
        let begin = clock();
        assert!(!tracker.advance(now, usize::MAX, &mut due));
        assert!(due.is_empty(), "they all beat");
        since(begin)
    };
    for come in coming.chunks(coming.len().div_ceil(3 * BEAT_TICKS)) {
        tick(come, &mut tracker);
    }
    for _ in 0..4 * BEAT_TICKS {
        tick(&[], &mut tracker);
    }
    let mut group = criterion.benchmark_group("wheel_upkeep_per_beat");
    group.bench_function(BenchmarkId::from_parameter(size), |bench| {
        bench.iter_custom(|iters| {
            let beats_a_tick = f64::from(size) / BEAT_TICKS as f64;
            // Few beats still take whole ticks, so that their share is a true one.
            let ticks = (iters as f64 / beats_a_tick).ceil().max(10.0);
            let spent: Duration = (0..ticks as u64).map(|_| tick(&[], &mut tracker)).sum();
            spent.mul_f64(iters as f64 / (ticks * beats_a_tick))
        });
    });
    group.finish();
}

/// Times `iters` keys taken 512 at a time, as many as come in one request.
fn in_batches<K>(iters: u64, keys: &[K], mut touch: impl FnMut(&[K])) -> Duration {
    let mut left = iters as usize;
    let begin = clock();
    while left > 0 {
        for keys in keys.chunks(512) {
            let count = left.min(keys.len());
            touch(&keys[..count]);
            left -= count;
        }
    }
    since(begin)
}

/// A walk through all lines of a block of memory, each step named by the line before.
struct Walk {
    lines: Box<[u8]>,
    at: usize,
}

impl Walk {
    /// In memory that `advise` is told of before it is written to.
    fn new(lines: u32, advise: fn(&[u8])) -> Walk {
        let mut next = rng(3);
        // Sattolo's shuffle: one cycle through all.
        let mut order: Vec<u64> = (0..u64::from(lines)).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, (next() % i as u64) as usize);
        }
        let mut lines = vec![0; order.len() * LINE_BYTES].into_boxed_slice();
        advise(&lines);
        for (line, to) in lines.chunks_exact_mut(LINE_BYTES).zip(order) {
            line[..8].copy_from_slice(&to.to_ne_bytes());
        }
        Walk { lines, at: 0 }
    }

    fn step(&mut self) -> usize {
        let line = &self.lines[self.at * LINE_BYTES..];
        self.at = u64::from_ne_bytes(*line.first_chunk().expect("8 bytes")) as usize;
        self.at
    }
}

impl Key {
    fn new(number: u32) -> Key {
        let text = format!(
            "grp-{:04}host-{number:011}.rack-{:02}",
            number % 100,
            number % 89
        );
        let (group, member) = text.as_bytes().split_at(8);
        Key {
            group: group.try_into().expect("8 bytes"),
            member: member.try_into().expect("24 bytes"),
            id: SessionId::of(1_700_000_000, Zxid::new(Epoch(1), u64::from(number) + 1)),
        }
    }
}

fn insert(tracker: &mut Tracker<u64>, key: &Key, now: Millis) -> Slot {
    let new = NewSession {
        group: &key.group,
        member: &key.member,
        id: key.id,
        term: Term(1),
        timeout: Millis::from_secs(10),
    };
    tracker.insert(new, now, || 0).expect("there is room")
}

fn shuffle(order: &mut [u32], next: &mut impl FnMut() -> u64) {
    for i in (1..order.len()).rev() {
        order.swap(i, (next() % (i as u64 + 1)) as usize);
    }
}

fn rng(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Memory of this process that is really there.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// CPU time this thread has used.
fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("CPU time is not negative")
}

fn since(begin: Duration) -> Duration {
    clock().saturating_sub(begin)
}

/// Criterion's measurement in CPU time.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        clock()
    }
    fn end(&self, begin: Duration) -> Duration {
        since(begin)
    }
    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
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

const START: Millis = Millis(1_000_000);
/// Ticks from one beat of a session to the next.
const BEAT_TICKS: usize = 300;
const LINE_BYTES: usize = 64;
