//! An ensemble of our own: real servers on this machine that are killed, stopped and restarted.

use crate::client;
use crate::clock::{self, MILLI, SECOND};
use crate::net::Target;
use crate::process::{self, Server, TempDir};
use crate::report::machine::describe_server;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The servers of an ensemble, whether they run or not.
pub(crate) struct Ensemble {
    program: PathBuf,
    more_args: Vec<String>,
    sites: Vec<Site>,
    /// What the servers write and say; removed at the end unless it is to be kept.
    home: Home,
}

/// Where the servers' data and logs are.
enum Home {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Home::Temporary(dir) => dir.path(),
            Home::Kept(dir) => dir,
        }
    }
}

struct Site {
    address: SocketAddr,
    peer: SocketAddr,
    server: Option<Server>,
}

impl Ensemble {
    /// Finds the program and free ports for `servers` servers, each of which is given
    /// `more_args` as well.
    ///
    /// # Errors
    /// If there is no program or no port.
    pub(crate) fn new(
        program: Option<&Path>,
        servers: usize,
        more_args: &[String],
    ) -> Result<Ensemble> {
        let mut sites = Vec::new();
        for _ in 0..servers {
            sites.push(Site {
                address: process::free_address()?,
                peer: process::free_address()?,
                server: None,
            });
        }
        Ok(Ensemble {
            program: process::systole_path(program)?,
            more_args: more_args.to_vec(),
            sites,
            home: Home::Temporary(TempDir::new()?),
        })
    }

    /// Has the servers' data and logs kept in `dir`, which must be empty or absent.
    ///
    /// # Errors
    /// If it is neither, or cannot be made.
    pub(crate) fn keep(&mut self, dir: &Path) -> Result<()> {
        let shown = dir.display();
        fs::create_dir_all(dir).with_context(|| format!("cannot make {shown}"))?;
        let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {shown}"))?;
        ensure!(
            entries.next().is_none(),
            "{shown} is not empty: servers would take up what others have left there"
        );
        self.home = Home::Kept(dir.to_owned());
        Ok(())
    }

    /// Starts all servers and waits until all may serve.
    ///
    /// # Errors
    /// If one of them does not.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        for at in 0..self.len() {
            self.start(at)?;
        }
        for at in 0..self.len() {
            self.wait_ready(at, READY_NS_MAX)?;
        }
        Ok(())
    }

    /// Starts server `at`; does not wait until it may serve.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(&mut self, at: usize) -> Result<()> {
        let log = self.home.path().join(format!("server-{}.log", at + 1));
        let mut args = self.args(at);
        args.extend(self.more_args.iter().cloned());
        let address = self.sites[at].address;
        let (server, _) =
            Server::start(&self.program, &args, address, &log, None, SECOND, |_| true)?;
        self.sites[at].server = Some(server);
        Ok(())
    }

    fn args(&self, at: usize) -> Vec<String> {
        let peers = self.sites.iter().enumerate();
        let list: Vec<String> = peers
            .map(|(i, site)| format!("{}={}", i + 1, site.peer))
            .collect();
        let data = self.home.path().join(format!("server-{}", at + 1));
        let mut args = vec!["serve".to_owned()];
        for (flag, value) in [
            ("--id", (at + 1).to_string()),
            ("--listen", self.sites[at].address.to_string()),
            ("--peer-listen", self.sites[at].peer.to_string()),
            ("--data-dir", data.display().to_string()),
            ("--pin", "off".to_owned()),
            ("--shards", "1".to_owned()),
        ] {
            args.extend([flag.to_owned(), value]);
        }
        if list.len() > 1 {
            args.extend(["--ensemble".to_owned(), list.join(",")]);
        }
        args
    }

    /// Waits until server `at` may serve; the nanoseconds that took.
    ///
    /// # Errors
    /// If it does not within `limit_ns`.
    pub(crate) fn wait_ready(&mut self, at: usize, limit_ns: u64) -> Result<u64> {
        let began = clock::now();
        while !process::is_ready(self.sites[at].address) {
            if let Some((server, words)) = self.ended().pop() {
                bail!("server {server} has ended by itself; it said:\n{words}");
            }
            if clock::now() - began > limit_ns {
                let words = self.sites[at].server.as_ref().map(Server::last_words);
                let words = words.unwrap_or_default();
                bail!("server {} was not ready in time; it said:\n{words}", at + 1);
            }
            clock::pause(Duration::from_nanos(5 * MILLI));
        }
        Ok(clock::now() - began)
    }

    /// Does `how` to server `at`; returns when that was.
    pub(crate) fn harm(&mut self, at: usize, how: How) -> u64 {
        let site = &mut self.sites[at];
        let when = clock::now();
        match (how, &site.server) {
            (How::Kill, _) => drop(site.server.take().map(Server::kill)),
            (How::Stop, Some(server)) => server.signal(Signal::STOP),
            // Its end is waited for.
            (How::Term, _) => drop(site.server.take()),
            (How::Stop, None) => {}
        }
        when
    }

    /// Undoes [`Ensemble::harm`].
    ///
    /// # Errors
    /// If the server cannot be started again.
    pub(crate) fn mend(&mut self, at: usize) -> Result<()> {
        match &self.sites[at].server {
            Some(server) => {
                server.signal(Signal::CONT);
                Ok(())
            }
            None => self.start(at),
        }
    }

    /// Which server leads, by those in `asked`.
    pub(crate) fn leader(&self, asked: &[usize]) -> Option<usize> {
        asked.iter().find_map(|at| {
            let (_, body) = client::get(self.sites[*at].address, "/-/cluster").ok()?;
            let document: Value = serde_json::from_slice(&body).ok()?;
            Some(document["leader"].as_u64()? as usize - 1)
        })
    }

    /// How many servers there are.
    pub(crate) fn len(&self) -> usize {
        self.sites.len()
    }

    /// Where each server is to be had.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.sites.iter().map(|site| site.address).collect()
    }

    /// The process id of each server; 0 of one that does not run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let pid = |site: &Site| site.server.as_ref().map_or(0, Server::pid);
        self.sites.iter().map(pid).collect()
    }

    /// Those that have ended by themselves: (number, the end of what it said).
    pub(crate) fn ended(&mut self) -> Vec<(usize, String)> {
        let sites = self.sites.iter_mut().enumerate();
        sites
            .filter_map(|(at, site)| Some((at + 1, site.server.as_mut()?.has_ended()?)))
            .collect()
    }

    /// Bytes that server `at` has sent to and received from the others over the connections
    /// that are open, as the kernel counts them.
    ///
    /// # Errors
    /// If `ss` cannot be run.
    pub(crate) fn peer_bytes(&self, at: usize) -> Result<(u64, u64)> {
        let output = Command::new("ss").args(["-tinpOH"]).output();
        let output = output.context("cannot run ss, which counts the bytes between servers")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let peers: Vec<String> = self.sites.iter().map(|s| s.peer.to_string()).collect();
        Ok(bytes_of(&text, self.pids()[at], &peers))
    }

    /// A target whose connections are spread over the servers and opened again.
    pub(crate) fn target(&self) -> Target {
        Target {
            endpoints: self.addresses(),
            connects_per_s: 5_000,
            reconnect: true,
        }
    }

    /// Its version and the sources' commit.
    pub(crate) fn describe(&self) -> String {
        describe_server(&self.program)
    }
}

/// Bytes sent and received over the connections in `text`, which `ss -tinpOH` printed, that
/// belong to `pid` and have one of `peers` at one end.
fn bytes_of(text: &str, pid: u32, peers: &[String]) -> (u64, u64) {
    let (mut sent, mut received) = (0, 0);
    let owner = format!("pid={pid},");
    let lines = text.lines().filter(|line| line.contains(&owner));
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ends = words.get(3..5).unwrap_or_default();
        if !peers.iter().any(|peer| ends.contains(&peer.as_str())) {
            continue;
        }
        for word in words {
            let number = |name| word.strip_prefix(name).and_then(|n| n.parse::<u64>().ok());
            sent += number("bytes_sent:").unwrap_or(0);
            received += number("bytes_received:").unwrap_or(0);
        }
    }
    (sent, received)
}

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum How {
    /// kill -9; it is started again later
    Kill,
    /// SIGSTOP; SIGCONT later
    Stop,
    /// SIGTERM; it is started again later
    Term,
}

/// All servers must be ready by then.
const READY_NS_MAX: u64 = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_of_the_process_to_other_servers_are_counted() {
        let text = "\
ESTAB 0 0 127.0.0.1:9001 127.0.0.1:40000 users:((\"systole\",pid=7,fd=1)) cubic bytes_sent:10 bytes_acked:10 bytes_received:3
ESTAB 0 0 127.0.0.1:40001 127.0.0.1:9003 users:((\"systole\",pid=7,fd=2)) cubic bytes_sent:100 bytes_received:20
ESTAB 0 0 127.0.0.1:8640 127.0.0.1:50001 users:((\"systole\",pid=7,fd=3)) cubic bytes_sent:1000 bytes_received:1000
ESTAB 0 0 127.0.0.1:9003 127.0.0.1:40001 users:((\"systole\",pid=77,fd=2)) cubic bytes_sent:20 bytes_received:100
";
        let peers = ["127.0.0.1:9001".to_owned(), "127.0.0.1:9003".to_owned()];
        assert_eq!(bytes_of(text, 7, &peers), (110, 23));
        assert_eq!(bytes_of("", 7, &peers), (0, 0));
    }
}
