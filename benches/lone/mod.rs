//! A lone server without threads and sockets: request bytes, shard, core, log, commit, answer,
//! all on the caller's thread.
//!
//! What production adds is the way between the threads and the sockets; what it hides is the
//! sync, which here is waited for.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use systole::group::{self, State};
use systole::http;
use systole::log::{FileDisk, FileLog, Log, Settings as LogSettings};
use systole::mail::Mail;
use systole::metrics::{CoreCounters, Registry, ShardCounters};
use systole::replica::{Output, Replica, Settings as ReplicaSettings};
use systole::runtime::backing;
use systole::shard::{ConnId, Latencies, Settings, Shard};
use systole::time::Millis;
use systole::types::ServerId;
use systole::zab::{Boot, Persisted, Settings as ZabSettings, Summary, Write};

/// The time at which a server begins; it stands still until the server is told of another.
pub(crate) const BEGIN: Millis = Millis(1_000_000);

/// One shard, the replica, and a log in a directory.
pub(crate) struct Server {
    shard: Shard,
    replica: Replica,
    log: FileLog,
    ready: Output,
    now: Millis,
}

impl Server {
    /// A server with this many connections, which serves. `dir` is empty.
    pub(crate) fn new(dir: &Path, conns: u32) -> Server {
        let disk = FileDisk::create(dir).expect("the directory is writable");
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
        let zab = ZabSettings::alone(ServerId(1));
        let (state, counters) = (State::new(group), Arc::new(CoreCounters::default()));
        let mut server = Server {
            shard: shard(),
            replica: Replica::new(settings_of_replica(), zab, boot, state, group, counters),
            log,
            ready: Output::default(),
            now: BEGIN,
        };
        // As a server has it.
        server.shard.advise_memory(backing::ask_for_huge_pages);
        server.replica.start(BEGIN);
        server.settle();
        for index in 0..conns {
            server.shard.open(conn(index), BEGIN);
        }
        server
    }

    /// Bytes of these connections come in together; the answers so far are added to `out`.
    pub(crate) fn receive<'a>(
        &mut self,
        inputs: impl Iterator<Item = (u32, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) {
        self.shard.expect(inputs.clone().map(|(_, bytes)| bytes));
        for (index, bytes) in inputs {
            self.shard.receive(conn(index), bytes, self.now, out);
        }
    }

    /// Carries the questions of the shard to the core, what comes of them to the disk, and the
    /// answers back, which are added to `out`.
    pub(crate) fn carry(&mut self, out: &mut Vec<u8>) {
        for ask in std::mem::take(&mut self.shard.outbox().asks) {
            self.replica.ask(self.now, 0, ask);
        }
        self.settle();
        for conn in std::mem::take(&mut self.shard.outbox().woken) {
            self.shard.resume(conn, self.now, out);
        }
    }

    /// Lets so much time pass, after which the shard ticks: what it asks is for
    /// [`Server::carry`].
    pub(crate) fn pass(&mut self, time: Millis) {
        self.now = self.now + time;
        self.shard.tick(self.now, true);
    }

    /// True if the last tick has left work for the next.
    pub(crate) fn is_behind(&self) -> bool {
        self.shard.is_behind()
    }

    /// How many sessions the shard holds.
    pub(crate) fn sessions(&self) -> usize {
        self.shard.sessions()
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
                        self.replica.on_persisted(self.now, persisted);
                    }
                    Write::CurrentEpoch(epoch) => {
                        self.log.set_current_epoch(*epoch).expect("the disk works");
                        let persisted = Persisted::CurrentEpoch(*epoch);
                        self.replica.on_persisted(self.now, persisted);
                    }
                    Write::Append(entry) => {
                        let appended = self.log.append(entry.zxid, &entry.payload);
                        appended.expect("the disk works");
                    }
                    other => panic!("an ensemble of one was told to {other:?}"),
                }
            }
            let durable = self.log.sync_now().expect("the disk works");
            self.replica.on_persisted(self.now, Persisted::Log(durable));
        }
        let tells = std::mem::take(&mut self.replica.tells()[0]);
        self.shard.deliver(
            Mail::Core {
                batch: 0,
                tells,
                more: false,
            },
            self.now,
        );
    }
}

fn conn(index: u32) -> ConnId {
    ConnId {
        index,
        generation: 0,
    }
}

fn shard() -> Shard {
    let counters = Arc::new(ShardCounters::default());
    let registry = Rc::new(Registry::default());
    Shard::new(
        settings_of_shard(),
        [9, 8, 7, 6],
        counters,
        Latencies::new(),
        registry,
        BEGIN,
    )
}

fn settings_of_replica() -> ReplicaSettings {
    ReplicaSettings {
        id: ServerId(1),
        shards: 1,
        endpoint: "127.0.0.1:8640".to_owned(),
        wall_s: 1_700_000_000,
        lease: Millis(3_000),
        min_timeout: Millis(100),
        seeds: [5, 6, 7, 8],
        requests_max: 1 << 16,
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
        changes_max: 1 << 16,
        http: http::Limits::default(),
        pipelined_max: 1 << 16,
        watchers_max: 1_000,
        output_bytes_max: 1 << 24,
        request_timeout: Millis(10_000),
        idle_timeout: Millis(300_000),
        stall_min: Millis(50),
        started_s: 0,
    }
}
