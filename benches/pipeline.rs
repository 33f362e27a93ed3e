//! The whole way of a write on one thread: request bytes, shard, core, log, commit, answer.
//!
//! What production adds is the way between the threads and the sockets; what it hides is the
//! sync, which here is waited for. So the batch of one is about one fdatasync, and the large
//! batch tells what the code itself costs.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use systole::group::{self, State};
use systole::http;
use systole::log::{FileDisk, FileLog, Log, Settings as LogSettings};
use systole::mail::Mail;
use systole::metrics::{CoreCounters, Registry, ShardCounters};
use systole::replica::{Output, Replica, Settings as ReplicaSettings};
use systole::shard::{ConnId, Latencies, Settings, Shard};
use systole::time::Millis;
use systole::types::ServerId;
use systole::zab::{Boot, Persisted, Settings as ZabSettings, Summary, Write};

const NOW: Millis = Millis(1_000_000);
const CONN: ConnId = ConnId {
    index: 0,
    generation: 0,
};

/// A server without threads and sockets.
struct Server {
    shard: Shard,
    replica: Replica,
    log: FileLog,
    ready: Output,
    out: Vec<u8>,
    joined: u64,
}

impl Server {
    fn new(dir: &tempfile::TempDir) -> Server {
        let disk = FileDisk::create(dir.path()).expect("the target directory is writable");
        let (log, _) = Log::open(disk, LogSettings::new(1)).expect("a new log");
        let boot = Boot {
            accepted_epoch: log.epochs().accepted,
            current_epoch: log.epochs().current,
            history: Summary::default(),
            snapshot: None,
            delivered: log.last(),
            nonce: 1,
        };
        let group = group::Settings {
            default_timeout: Millis(10_000),
            seeds: [1, 2, 3, 4],
        };
        let counters = Arc::new(CoreCounters::default());
        let settings = ReplicaSettings {
            id: ServerId(1),
            shards: 1,
            endpoint: "127.0.0.1:8640".to_owned(),
            wall_s: 1_700_000_000,
            lease: Millis(3_000),
            min_timeout: Millis(100),
            seeds: [5, 6, 7, 8],
            requests_max: 1 << 16,
        };
        let zab = ZabSettings::alone(ServerId(1));
        let state = State::new(group);
        let registry = Rc::new(Registry::default());
        let shard_counters = Arc::new(ShardCounters::default());
        let seeds = [9, 8, 7, 6];
        let latencies = Latencies::new();
        let mut server = Server {
            shard: Shard::new(
                settings_of_shard(),
                seeds,
                shard_counters,
                latencies,
                registry,
                NOW,
            ),
            replica: Replica::new(settings, zab, boot, state, group, counters),
            log,
            ready: Output::default(),
            out: Vec::new(),
            joined: 0,
        };
        server.replica.start(NOW);
        server.settle();
        server.shard.open(CONN, NOW);
        server
    }

    /// `count` members join in one pipelined input, and are answered.
    fn join(&mut self, count: u64) {
        let mut input = Vec::new();
        for _ in 0..count {
            self.joined += 1;
            let member = self.joined;
            input.extend_from_slice(
                format!(
                    "PUT /group-{:03}/member-{member:017} HTTP/1.1\r\nhost: s\r\n\
                     prefer: return=minimal\r\n\r\n",
                    member % 100
                )
                .as_bytes(),
            );
        }
        self.out.clear();
        self.shard.receive(CONN, &input, NOW, &mut self.out);
        for ask in std::mem::take(&mut self.shard.outbox().asks) {
            self.replica.ask(NOW, 0, ask);
        }
        self.settle();
        self.shard.outbox().woken.clear();
        self.shard.resume(CONN, NOW, &mut self.out);
        let answers = self.out.windows(12).filter(|at| at == b"HTTP/1.1 201");
        assert_eq!(answers.count() as u64, count, "each join is answered 201");
    }

    /// Writes, syncs and applies until nothing is left to do, and tells the shard.
    fn settle(&mut self) {
        loop {
            self.replica.ready(&mut self.ready);
            if self.ready.is_empty() {
                break;
            }
            for write in &self.ready.writes {
                match write {
                    Write::AcceptedEpoch(epoch) => {
                        self.log.set_accepted_epoch(*epoch).expect("the disk works");
                        let persisted = Persisted::AcceptedEpoch(*epoch);
                        self.replica.on_persisted(NOW, persisted);
                    }
                    Write::CurrentEpoch(epoch) => {
                        self.log.set_current_epoch(*epoch).expect("the disk works");
                        let persisted = Persisted::CurrentEpoch(*epoch);
                        self.replica.on_persisted(NOW, persisted);
                    }
                    Write::Append(entry) => {
                        let appended = self.log.append(entry.zxid, &entry.payload);
                        appended.expect("the disk works");
                    }
                    other => panic!("an ensemble of one was told to {other:?}"),
                }
            }
            let durable = self.log.sync_now().expect("the disk works");
            self.replica.on_persisted(NOW, Persisted::Log(durable));
        }
        let tells = std::mem::take(&mut self.replica.tells()[0]);
        self.shard.deliver(Mail::Core { batch: 0, tells }, NOW);
    }
}

fn settings_of_shard() -> Settings {
    Settings {
        index: 0,
        shards: 1,
        server: ServerId(1),
        default_timeout: Millis(10_000),
        min_timeout: Millis(100),
        max_timeout: Millis(86_400_000),
        lease: Millis(3_000),
        sessions_max: 1 << 25,
        asks_max: 1 << 16,
        http: http::Limits::default(),
        pipelined_max: 1 << 16,
        output_bytes_max: 1 << 24,
        request_timeout: Millis(10_000),
        idle_timeout: Millis(300_000),
        stall_min: Millis(50),
        started_s: 0,
    }
}

fn joins(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline/joins");
    for batch in [1_u64, 64, 2_048] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory");
        let mut server = Server::new(&dir);
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| {
                server.join(black_box(batch));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, joins);
criterion_main!(benches);
