//! Starts the executors: one a shard, one for the core, each on its processor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use flume::Sender;
use glommio::{LocalExecutorBuilder, Placement};

use super::backing::{self, Provider};
use super::clock;
use super::courtesy;
use super::mailbox::{MailSender, mailbox};
use super::pipeline::{Limits as PipelineLimits, ToCore, Ways};
use super::post::{Everywhere, Inbox, Post};
use super::preflight::{IO_MEMORY_BYTES, Machine};
use super::recover::{Parts, recover, seeds};
use super::shard::ShardLoop;
use super::sockets::{Sockets, listener};
use super::watchdog::Watched;
use crate::config::{Pin, Settings, Tuning};
use crate::http;
use crate::mail::{Mail, ShardIndex, Tell};
use crate::metrics::{Latency, Registry, ShardCounters};
use crate::shard::{EXPIRIES_MAX, Latencies, Settings as ShardSettings, Shard};
use crate::time::Millis;
use crate::types::ServerId;

/// Everything the executors are started with.
pub struct Plan {
    /// This server.
    pub id: ServerId,
    /// Where clients connect; a port that is free.
    pub listen: SocketAddr,
    /// Where clients reach this server, as documents show it.
    pub endpoint: String,
    /// Every server of the ensemble and where the others connect to it; empty for one alone.
    pub ensemble: Vec<(ServerId, String)>,
    /// Where the other servers connect to this one; `None` if there are none.
    pub peer_listener: Option<TcpListener>,
    /// How long a lease is.
    pub lease: Millis,
    /// Bytes that may wait for another server.
    pub peer_queue_bytes_max: usize,
    /// Messages that may wait for another server.
    pub peer_queue_frames_max: usize,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The processors to use, or empty to leave the placing to the kernel.
    pub cpus: Vec<usize>,
    /// There are fewer processors than executors: the core runs where a shard does.
    pub shares_processor: bool,
    /// What each shard is told; index and incarnation are filled in here.
    pub shard: ShardSettings,
    /// Connections a shard may have open.
    pub connections_max: usize,
    /// Messages that may wait for the core.
    pub core_queue_max: usize,
    /// Messages that may wait for a shard.
    pub shard_queue_max: usize,
    /// Proposals in flight at a time.
    pub in_flight_max: usize,
    /// How the machine is used.
    pub tuning: Tuning,
    /// Limits of the core's loop.
    pub pipeline: PipelineLimits,
}

impl Plan {
    /// The plan for `settings` on `machine`, listening on `listen` for clients, and on
    /// `peer_listener` for other servers if there are any.
    #[must_use]
    pub fn new(
        settings: &Settings,
        machine: &Machine,
        listen: SocketAddr,
        peer_listener: Option<TcpListener>,
    ) -> Plan {
        let shards = settings.shards.count(machine.cpus.len()) as u16;
        let limits = &settings.limits;
        let cpus = match settings.pin {
            Pin::Off => Vec::new(),
            // On a single processor there is nothing to choose.
            Pin::Auto if machine.cpus.len() == 1 => Vec::new(),
            Pin::Auto if usize::from(shards) > machine.cpus.len() => {
                tracing::warn!(
                    "{shards} shards on {} processors: their threads are not pinned",
                    machine.cpus.len()
                );
                Vec::new()
            }
            Pin::Auto => machine.cpus.clone(),
        };
        let for_clients = machine
            .descriptors
            .saturating_sub(limits.files_reserved)
            .max(16);
        let endpoint = settings
            .advertise
            .clone()
            .unwrap_or_else(|| listen.to_string());
        Plan {
            id: settings.id,
            listen,
            endpoint,
            ensemble: settings.ensemble.clone(),
            peer_listener,
            lease: settings.lease,
            peer_queue_bytes_max: limits.peer_queue_bytes_max,
            peer_queue_frames_max: limits.peer_queue_frames_max,
            data_dir: settings.data_dir.clone(),
            cpus,
            shares_processor: usize::from(shards) >= machine.cpus.len(),
            shard: shard_settings(settings, shards),
            connections_max: (for_clients / u64::from(shards)) as usize,
            core_queue_max: limits.core_mail_max,
            shard_queue_max: limits.shard_mail_max,
            in_flight_max: (limits.asks_per_shard_max + EXPIRIES_MAX) * usize::from(shards),
            tuning: settings.tuning.clone(),
            pipeline: PipelineLimits {
                batch_max: limits.core_batch_max,
                batch_window: Duration::from_micros(settings.tuning.batch_window_us.into()),
                is_polling: settings.tuning.busy_poll_us > 0,
                snapshot_log_bytes: limits.snapshot_log_bytes,
                snapshots_kept: limits.snapshots_kept,
            },
        }
    }

    /// True if the shard of this index may find the core on its processor: the last shard where
    /// threads are pinned, and any where the kernel places them.
    fn is_beside_core(&self, index: usize) -> bool {
        let is_last = index + 1 == usize::from(self.shard.shards);
        self.shares_processor && (is_last || self.cpus.is_empty())
    }

    /// How many shards it starts.
    #[must_use]
    pub fn shards(&self) -> ShardIndex {
        self.shard.shards
    }
}

fn shard_settings(settings: &Settings, shards: u16) -> ShardSettings {
    let limits = &settings.limits;
    ShardSettings {
        index: 0,
        shards,
        server: settings.id,
        default_timeout: settings.default_timeout,
        min_timeout: settings.min_timeout,
        max_timeout: settings.max_timeout,
        lease: settings.lease,
        sessions_max: limits.sessions_per_shard_max,
        asks_max: limits.asks_per_shard_max,
        changes_max: limits.changes_per_shard_max,
        http: http::Limits {
            head_bytes_max: limits.head_bytes_max,
            target_bytes_max: limits.target_bytes_max,
            headers_max: limits.headers_max,
            body_bytes_max: limits.body_bytes_max,
        },
        pipelined_max: limits.pipelined_max,
        watchers_max: limits.watchers_max,
        output_bytes_max: limits.output_bytes_max,
        request_timeout: limits.request_timeout,
        idle_timeout: limits.idle_timeout,
        stall_min: limits.stall_min,
        started_s: clock::wall_s(),
    }
}

/// What the executors report to whoever started them.
#[derive(Debug)]
pub enum Event {
    /// The log has been replayed and the server serves; a sentence on what was found.
    Serving(String),
    /// Something failed that ends the process: the sentence to show.
    Failed(String),
    /// A shard has answered what it owed and ended.
    ShardEnded,
    /// The core has closed the log and ended.
    CoreEnded,
}

/// The running executors.
pub struct Running {
    shards: Vec<MailSender<Mail>>,
    core: Sender<ToCore>,
    watched: Vec<Watched>,
}

impl Running {
    /// What the watchdog is to watch; given once.
    pub fn take_watched(&mut self) -> Vec<Watched> {
        std::mem::take(&mut self.watched)
    }

    /// Tells the shards to answer what was asked, and to end.
    pub fn stop_shards(&self) {
        for shard in &self.shards {
            // A box that is full belongs to a shard that does not read its mail; a second
            // signal ends the process.
            let tells = vec![Tell::Stop];
            let _ = shard.try_send(Mail::Core {
                batch: 0,
                tells,
                more: false,
            });
        }
    }

    /// Tells the core to close the log and to end.
    pub fn stop_core(&self) {
        let _ = self.core.send(ToCore::Stop);
    }
}

/// Starts the shards, which answer 503 until the core, started next, has replayed the log.
///
/// # Errors
/// If a descriptor or thread is not to be had, or the port is taken meanwhile.
pub fn launch(plan: Plan, events: &Sender<Event>) -> io::Result<Running> {
    let count = usize::from(plan.shard.shards);
    let (core, core_inbox) = flume::bounded(plan.core_queue_max);
    let mut shards = Vec::new();
    let everywhere = Everywhere::default();
    let mut inboxes = Vec::new();
    for _ in 0..count {
        let (sender, receiver) = mailbox(plan.shard_queue_max)?;
        shards.push(sender);
        inboxes.push(Inbox::new(receiver, everywhere.clone(), count));
    }
    let latencies: Vec<Latencies> = (0..count).map(|_| Latencies::new()).collect();
    let sync = Latency::new("log_sync");
    let registry = Registry {
        shards: (0..count).map(|_| Arc::default()).collect(),
        core: Arc::default(),
        latencies: latencies
            .iter()
            .flat_map(Latencies::published)
            .chain([sync.published()])
            .collect(),
    };
    let watched = watched(&registry, &shards, &core);
    let memory_provider = Provider::start()?;
    for ((index, inbox), latencies) in inboxes.into_iter().enumerate().zip(latencies) {
        let listener = listener(plan.listen, plan.tuning.socket_buffer_kib * 1_024)?;
        let parts = ShardParts {
            settings: ShardSettings {
                index: index as ShardIndex,
                ..plan.shard.clone()
            },
            listener,
            connections_max: plan.connections_max,
            inbox,
            latencies,
            registry: registry.clone(),
            core: core.clone(),
            shards: shards.clone(),
            tuning: plan.tuning.clone(),
            memory_provider: memory_provider.clone(),
            is_beside_core: plan.is_beside_core(index),
        };
        start_shard(&plan, index, parts, events.clone())?;
    }
    let parts = Parts {
        ways: Ways {
            inbox: core_inbox,
            reports: core.clone(),
            post: Post::new(shards.clone(), everywhere),
            peers: None,
        },
        counters: Arc::clone(&registry.core),
        sync,
    };
    start_core(plan, parts, events.clone())?;
    Ok(Running {
        shards,
        core,
        watched,
    })
}

struct ShardParts {
    settings: ShardSettings,
    listener: OwnedFd,
    connections_max: usize,
    inbox: Inbox,
    latencies: Latencies,
    registry: Registry,
    core: Sender<ToCore>,
    shards: Vec<MailSender<Mail>>,
    tuning: Tuning,
    memory_provider: Provider,
    is_beside_core: bool,
}

fn start_shard(
    plan: &Plan,
    index: usize,
    parts: ShardParts,
    events: Sender<Event>,
) -> io::Result<()> {
    let cpu = plan.cpus.get(index).copied();
    let executor = Executor {
        name: format!("shard-{index}"),
        cpu,
        ring_depth: plan.tuning.ring_depth,
        // Its loop looks at the sockets itself.
        spin: Duration::ZERO,
        yields: false,
    };
    on_executor(executor, events, move || async move {
        match run_shard(parts).await {
            Ok(()) => Event::ShardEnded,
            Err(error) => Event::Failed(format!("shard {index} failed: {error}")),
        }
    })
}

async fn run_shard(parts: ShardParts) -> io::Result<()> {
    let ShardParts {
        settings,
        listener,
        connections_max,
        inbox,
        latencies,
        registry,
        core,
        shards,
        tuning,
        memory_provider,
        is_beside_core,
    } = parts;
    let index = settings.index;
    let counters: Arc<ShardCounters> = Arc::clone(&registry.shards[usize::from(index)]);
    let sockets = Sockets::new(listener, connections_max, Box::new(clock::now_ns))?;
    let now = clock::now();
    let mut shard = Shard::new(
        settings,
        seeds(),
        counters,
        latencies,
        Rc::new(registry),
        now,
    );
    if tuning.huge_pages {
        shard.advise_memory(backing::ask_for_huge_pages);
    }
    shard.prepare_memory(Box::new(move |memory| memory_provider.provide(memory)));
    ShardLoop::new(index, sockets, shard, inbox, core, shards)?
        .polling(tuning.busy_poll_us)
        .beside_core(is_beside_core)
        .run()
        .await
}

fn start_core(plan: Plan, parts: Parts, events: Sender<Event>) -> io::Result<()> {
    // The processor after the shards', or the last if they take them all.
    let cpu = plan
        .cpus
        .get(usize::from(plan.shard.shards))
        .or(plan.cpus.last())
        .copied();
    let report = events.clone();
    let executor = Executor {
        name: "core".to_owned(),
        cpu,
        ring_depth: plan.tuning.ring_depth,
        spin: Duration::from_micros(plan.tuning.busy_poll_us.into()),
        yields: plan.shares_processor,
    };
    on_executor(executor, events, move || async move {
        match recover(plan, parts) {
            Ok((pipeline, found)) => {
                let serving = |state: &_| drop(report.send(Event::Serving(found.describe(state))));
                match pipeline.run(serving).await {
                    Ok(()) => Event::CoreEnded,
                    Err(error) => Event::Failed(error.to_string()),
                }
            }
            Err(sentence) => Event::Failed(sentence),
        }
    })
}

/// How an executor is made.
struct Executor {
    name: String,
    cpu: Option<usize>,
    /// A shard has one wait in its ring; the core a timer, and up to four waits for
    /// each other server.
    ring_depth: u32,
    /// How long it looks at its rings before it sleeps.
    spin: Duration,
    /// Others on its processor come first.
    yields: bool,
}

/// Runs `task` on an executor of its own, on a thread of its own, and sends its last word.
fn on_executor<F: Future<Output = Event>>(
    executor: Executor,
    events: Sender<Event>,
    task: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let Executor {
        name,
        cpu,
        ring_depth,
        spin,
        yields,
    } = executor;
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let body = move || {
        courtesy::take_short_slices(yields);
        let executor = LocalExecutorBuilder::new(placement)
            // Registered buffers are for O_DIRECT files, and there are none.
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(ring_depth as usize)
            .spin_before_park(spin)
            .make();
        let event = match executor {
            Ok(executor) => executor.run(task()),
            Err(error) => Event::Failed(format!("an executor could not be started: {error}")),
        };
        let _ = events.send(event);
    };
    thread::Builder::new().name(name).spawn(body).map(drop)
}

fn watched(
    registry: &Registry,
    shards: &[MailSender<Mail>],
    core: &Sender<ToCore>,
) -> Vec<Watched> {
    let mut watched = Vec::new();
    for (index, (counters, sender)) in registry.shards.iter().zip(shards).enumerate() {
        let (counters, sender) = (Arc::clone(counters), sender.clone());
        watched.push(Watched {
            name: format!("shard {index}"),
            turns: Box::new(move || counters.turns.get()),
            // A full box needs no nudge: it has rung already.
            ring: Box::new(move || drop(sender.try_send(Mail::Nudge))),
        });
    }
    let (counters, core) = (Arc::clone(&registry.core), core.clone());
    watched.push(Watched {
        name: "the core".to_owned(),
        turns: Box::new(move || counters.turns.get()),
        ring: Box::new(move || drop(core.try_send(ToCore::Nudge))),
    });
    watched
}
