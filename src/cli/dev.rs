//! `systole dev`: a whole ensemble of real server processes on this machine, for a look around.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::{Failure, hear_signals};
use clap::Args;

/// The flags of `dev`.
#[derive(Args)]
pub(super) struct Flags {
    /// How many servers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=31))]
    servers: u16,
    /// Port of the first server; the next take every second one, and peers those between
    #[arg(long, value_name = "PORT", default_value_t = 8640, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// Where the servers' data directories are made, one each
    #[arg(long, value_name = "DIR", default_value = "./systole-dev")]
    data_dir: PathBuf,
    /// Passed on to every server; see `systole serve --help`
    #[arg(last = true, value_name = "FLAGS")]
    serve: Vec<String>,
}

/// What a thread that watches something reports.
enum Event {
    /// A signal: end.
    Stop,
    /// A server has closed its outputs: it has ended, or is about to.
    Quiet(u16),
}

/// Starts the servers and stays until a signal, or until none is left.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::fatal(format!("cannot find this program's own file: {error}")))?;
    let (events, inbox) = channel();
    let signal = events.clone();
    hear_signals(move || signal.send(Event::Stop).is_ok())?;
    let mut servers = Vec::new();
    for id in 1..=flags.servers {
        match start(&program, flags, id, &events) {
            Ok(server) => servers.push(server),
            Err(error) => {
                stop(&mut servers);
                return Err(Failure::fatal(format!(
                    "server {id} could not be started: {error}"
                )));
            }
        }
    }
    say(&format!(
        "dev: {} servers, clients at {}; data in {}; Ctrl-C stops all",
        flags.servers,
        (1..=flags.servers)
            .map(|id| address(flags.port, id, 0))
            .collect::<Vec<_>>()
            .join(" "),
        flags.data_dir.display()
    ));
    wait(&inbox, servers)
}

/// Stays until all servers have ended, and says what became of those that ended by themselves.
fn wait(inbox: &Receiver<Event>, mut servers: Vec<Server>) -> Result<(), Failure> {
    let (mut stopping, mut failed) = (false, 0);
    while !servers.is_empty() {
        match inbox.recv() {
            Ok(Event::Stop) => {
                stopping = true;
                stop(&mut servers);
            }
            Ok(Event::Quiet(id)) => {
                let Some(at) = servers.iter().position(|server| server.id == id) else {
                    continue;
                };
                let (sound, how) = match servers.remove(at).child.wait() {
                    Ok(status) => (status.success(), status.to_string()),
                    Err(error) => (false, error.to_string()),
                };
                if !sound || !stopping {
                    failed += 1;
                    let left = servers.len();
                    say(&format!("dev: server {id} has ended: {how}; {left} left"));
                }
            }
            // The signals' thread holds the other end for as long as this process lives.
            Err(_) => break,
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::fatal(format!(
        "{failed} servers ended by themselves"
    )))
}

/// A server process that has not been waited for, so that its id is its own.
struct Server {
    id: u16,
    child: Child,
}

fn start(
    program: &Path,
    flags: &Flags,
    id: u16,
    events: &Sender<Event>,
) -> std::io::Result<Server> {
    let data_dir = flags.data_dir.join(format!("server-{id}"));
    std::fs::create_dir_all(&flags.data_dir)?;
    let mut command = Command::new(program);
    command
        .args(["serve", "--id", &id.to_string()])
        .args(["--listen", &address(flags.port, id, 0)])
        .arg("--data-dir")
        .arg(data_dir)
        // So many servers on one machine would all pin their threads to the same processors.
        .args(["--pin", "off", "--shards", "1"]);
    if flags.servers > 1 {
        let ensemble: Vec<String> = (1..=flags.servers)
            .map(|id| format!("{id}={}", address(flags.port, id, 1)))
            .collect();
        command
            .args(["--peer-listen", &address(flags.port, id, 1)])
            .args(["--ensemble", &ensemble.join(",")]);
    }
    let mut child = command
        .args(&flags.serve)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let events = events.clone();
    thread::spawn(move || {
        let err = err.map(|err| thread::spawn(move || prefix(id, err)));
        if let Some(out) = out {
            prefix(id, out);
        }
        if let Some(err) = err {
            let _ = err.join();
        }
        let _ = events.send(Event::Quiet(id));
    });
    Ok(Server { id, child })
}

/// Copies what a server says to stderr, with its number before each line.
fn prefix(id: u16, from: impl Read) {
    for line in BufReader::new(from).lines() {
        // What is no UTF-8 is nothing our servers say.
        let Ok(line) = line else { return };
        say(&format!("{id} | {line}"));
    }
}

fn say(line: &str) {
    // If nobody reads it, nobody is missing.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn stop(servers: &mut [Server]) {
    for server in servers {
        let pid = rustix::process::Pid::from_child(&server.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Where server `id` listens: for clients (`offset` 0) or for the other servers (1).
fn address(port: u16, id: u16, offset: u16) -> String {
    format!("127.0.0.1:{}", port + 2 * (id - 1) + offset)
}
