//! A server from start to stop: checks the machine, starts the executors, hears signals.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Settings;
use crate::runtime::launch::{Event, Plan, launch};
use crate::runtime::preflight::{self, Unfit};
use crate::runtime::{notify, sockets, transport, watchdog};

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
    let machine = preflight::check(settings.shards, settings.tuning.ring_depth)?;
    let listen = sockets::probe(settings.listen).map_err(|error| {
        let addr = settings.listen.to_string();
        StartError::Listen {
            addr,
            reason: explain(&error, "listen"),
        }
    })?;
    let peer_listener = listen_for_peers(&settings)?;
    let (events, happened) = flume::unbounded();
    hear_signals(events.clone())?;
    let plan = Plan::new(&settings, &machine, listen, peer_listener);
    let shards = plan.shards();
    let (report, reports) = flume::unbounded();
    let mut running = launch(plan, &report)?;
    let watched = running.take_watched();
    let stop_watching = Arc::new(AtomicBool::new(false));
    let dog = watchdog::watch(
        watched,
        Arc::clone(&stop_watching),
        notify::alive(),
        |why| {
            // The state is on disk; a process that answers nobody is worse than one that is
            // started again.
            eprintln!("systole: {why}; ending the process");
            process::abort();
        },
    );
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
                notify::ready(&found);
            }
            Ok(Happening::Report(Event::Failed(sentence))) => {
                break Err(StartError::Failed(sentence));
            }
            Ok(Happening::Report(Event::ShardEnded)) => {
                shards_left -= 1;
                if shards_left == 0 {
                    running.stop_core();
                }
            }
            Ok(Happening::Report(Event::CoreEnded)) | Err(_) => break Ok(()),
            Ok(Happening::Signal) if stopping => {
                break Err(StartError::Failed("ended by a second signal".to_owned()));
            }
            Ok(Happening::Signal) => {
                stopping = true;
                notify::stopping();
                tracing::info!("stopping: answering what was asked, then closing the log");
                running.stop_shards();
            }
        }
    };
    stop_watching.store(true, Ordering::Release);
    dog.thread().unpark();
    outcome
}

/// Listens for the other servers, if there are any.
fn listen_for_peers(settings: &Settings) -> Result<Option<TcpListener>, StartError> {
    if settings.is_alone() {
        return Ok(None);
    }
    let named = settings.own_peer_address().map(str::to_owned);
    let given = settings.peer_listen.map(|address| address.to_string());
    let addr = given.or(named).unwrap_or_default();
    match transport::listen(&addr) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            let reason = explain(&error, "peer-listen");
            Err(StartError::Listen { addr, reason })
        }
    }
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

/// The one line that says the server is ready.
fn announce(settings: &Settings, listen: std::net::SocketAddr, shards: u16) {
    let data = settings.data_dir.display();
    let plural = if shards == 1 { "" } else { "s" };
    let servers = settings.ensemble.len().max(1);
    // If nobody reads standard output, nobody is missing the line.
    let _ = writeln!(
        io::stdout(),
        "systole is ready: listening on {listen}, data in {data}, ensemble of {servers}, {shards} \
         shard{plural}"
    );
}

fn explain(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("the port is in use: stop the other server, or choose another with --{flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address: choose another with --{flag}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("permission denied: choose a port above 1023 with --{flag}")
        }
        _ => error.to_string(),
    }
}
