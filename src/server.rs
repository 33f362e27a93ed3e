//! A server from start to stop: checks the machine, starts the executors, hears signals.

use std::io::{self, Write as _};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Pin, Settings};
use crate::http;
use crate::mail::{Mail, Tell};
use crate::runtime::launch::{Event, Plan, Running, launch};
use crate::runtime::pipeline::{Limits as PipelineLimits, ToCore};
use crate::runtime::preflight::{self, Machine, Unfit};
use crate::runtime::{clock, sockets, watchdog};
use crate::shard::{EXPIRIES_MAX, Settings as ShardSettings};

/// Why a server could not start, or had to end. The text is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine lacks something.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The listen address is not to be had.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// The address.
        addr: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A thread or descriptor could not be had.
    #[error("the server could not be started: {0}")]
    Resources(#[from] io::Error),
    /// The data directory, or what is in it, or a later write to it.
    #[error("{0}")]
    Failed(String),
}

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// See [`StartError`]. A failure after the start is returned too: nothing has been
/// acknowledged that is not durable.
pub fn run(settings: Settings) -> Result<(), StartError> {
    let executors = settings.shards.count(usize::from(u16::MAX)).min(1) + 1;
    let machine = preflight::check(executors)?;
    let listen = sockets::probe(settings.listen).map_err(|error| {
        let addr = settings.listen.to_string();
        StartError::Listen {
            addr,
            reason: explain(&error),
        }
    })?;
    let (events, happened) = flume::unbounded();
    hear_signals(events.clone())?;
    let plan = plan(&settings, &machine, listen);
    let shards = plan.shard.shards;
    let (report, reports) = flume::unbounded();
    let Running {
        shards: inboxes,
        core,
        watched,
    } = launch(plan, &report)?;
    let stop_watching = Arc::new(AtomicBool::new(false));
    let dog = watchdog::watch(watched, Arc::clone(&stop_watching), |why| {
        // The state is on disk; a process that answers nobody is worse than one that is
        // started again.
        eprintln!("systole: {why}; ending the process");
        process::abort();
    });
    thread::Builder::new()
        .name("reports".into())
        .spawn(move || {
            for event in reports {
                let _ = events.send(Happening::Report(event));
            }
        })?;
    let mut shards_left = usize::from(shards);
    let mut stopping = false;
    let outcome = loop {
        match happened.recv() {
            Ok(Happening::Report(Event::Serving(found))) => {
                tracing::info!("{found}");
                announce(&settings, listen, shards);
            }
            Ok(Happening::Report(Event::Failed(sentence))) => {
                break Err(StartError::Failed(sentence));
            }
            Ok(Happening::Report(Event::ShardEnded)) => {
                shards_left -= 1;
                if shards_left == 0 {
                    let _ = core.send(ToCore::Stop);
                }
            }
            Ok(Happening::Report(Event::CoreEnded)) | Err(_) => break Ok(()),
            Ok(Happening::Signal) if stopping => {
                break Err(StartError::Failed("ended by a second signal".to_owned()));
            }
            Ok(Happening::Signal) => {
                stopping = true;
                tracing::info!("stopping: answering what was asked, then closing the log");
                for inbox in &inboxes {
                    let _ = inbox.try_send(Mail::Core(vec![Tell::Stop]));
                }
            }
        }
    };
    stop_watching.store(true, Ordering::Release);
    dog.thread().unpark();
    outcome
}

enum Happening {
    Report(Event),
    Signal,
}

fn hear_signals(events: flume::Sender<Happening>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                let _ = events.send(Happening::Signal);
            }
        })?;
    Ok(())
}

fn plan(settings: &Settings, machine: &Machine, listen: std::net::SocketAddr) -> Plan {
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
    let advertise = settings
        .advertise
        .clone()
        .unwrap_or_else(|| listen.to_string());
    Plan {
        id: settings.id,
        listen,
        endpoints: Arc::from([advertise]),
        data_dir: settings.data_dir.clone(),
        cpus,
        shard: shard_settings(settings, shards),
        connections_max: (for_clients / u64::from(shards)) as usize,
        core_queue_max: limits.core_mail_max,
        shard_queue_max: limits.shard_mail_max,
        in_flight_max: (limits.asks_per_shard_max + EXPIRIES_MAX) * usize::from(shards),
        segment_bytes: limits.segment_bytes,
        pipeline: PipelineLimits {
            batch_max: limits.core_batch_max,
            snapshot_log_bytes: limits.snapshot_log_bytes,
            snapshots_kept: limits.snapshots_kept,
        },
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
        http: http::Limits {
            head_bytes_max: limits.head_bytes_max,
            target_bytes_max: limits.target_bytes_max,
            headers_max: limits.headers_max,
            body_bytes_max: limits.body_bytes_max,
        },
        pipelined_max: limits.pipelined_max,
        output_bytes_max: limits.output_bytes_max,
        request_timeout: limits.request_timeout,
        idle_timeout: limits.idle_timeout,
        stall_min: limits.stall_min,
        started_s: clock::wall_s(),
    }
}

/// The one line that says the server is ready.
fn announce(settings: &Settings, listen: std::net::SocketAddr, shards: u16) {
    let data = settings.data_dir.display();
    let plural = if shards == 1 { "" } else { "s" };
    // If nobody reads standard output, nobody is missing the line.
    let _ = writeln!(
        io::stdout(),
        "systole is ready: listening on {listen}, data in {data}, ensemble of 1, {shards} \
         shard{plural}"
    );
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use: stop the other server, or choose another with --listen".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose another with --listen".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: choose a port above 1023 with --listen".to_owned()
        }
        _ => error.to_string(),
    }
}
