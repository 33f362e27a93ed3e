//! What users would pick instead, and how each is spoken to.
//!
//! Every server gets the same work from the same driver ([`crew`]); a [`Speech`] turns it into
//! the few frames its protocol needs. The frames are written by hand, apart from any client
//! library, so that the load costs about the same whoever is loaded.

pub(crate) mod crew;
mod etcd;
mod grpc;
mod http;
mod nginx;
mod redis;
mod zookeeper;

use crate::cli::Own;
use crate::clock::SECOND;
use crate::commands::own::Home;
use crate::names::Names;
use crate::process::{self, Server, TempDir};
use crate::report::machine::{describe_server, first_line};
use anyhow::{Context, Result};
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

/// A server to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Who {
    /// Ours.
    Systole,
    /// `benches/bound`: a fixed answer and nothing else.
    Bound,
    /// nginx, `return 204`.
    Nginx,
    /// Redis: a key with a time to live.
    Redis,
    /// ZooKeeper: a session with an ephemeral node.
    Zookeeper,
    /// etcd: a key with a lease.
    Etcd,
}

/// What a server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A connection introduces itself.
    Hello,
    /// What must be there before the first session.
    Prepare,
    /// A session is created.
    Create,
    /// A session is renewed.
    Beat,
    /// How many sessions there are.
    Count,
}

/// A protocol. Its state is per connection, numbered from 0.
pub(crate) trait Speech {
    /// How many questions `op` takes, one after the other; 0 if it takes none.
    fn steps(&self, op: Op) -> u8;
    /// Writes the question that is step `step` of `op`.
    fn ask(&mut self, conn: u32, op: Op, step: u8, session: u32, out: &mut Vec<u8>);
    /// Reads the first frame at the start of `input`, knowing what `conn` awaits; `None` asks
    /// for more bytes. What the protocol wants said back goes into `out`.
    ///
    /// # Errors
    /// If the bytes are none of the protocol.
    fn frame(
        &mut self,
        conn: u32,
        awaited: Option<Op>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Frame>, String>;
}

/// One frame of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its length.
    pub(crate) len: usize,
    /// What it says.
    pub(crate) says: Says,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Nothing we asked for.
    Aside,
    /// Done; the number, if one was asked for.
    Yes(u64),
    /// Not done.
    No,
}

/// Which sessions, and how long they live.
#[derive(Clone)]
pub(crate) struct Sessions {
    /// What they are called.
    pub(crate) names: Names,
    /// Their timeout; whole seconds, since not all take less.
    pub(crate) timeout_s: u32,
}

impl Sessions {
    /// Sessions of the usual names.
    pub(crate) fn new(timeout_s: u32) -> Sessions {
        Sessions {
            names: Names::new(PREFIX, GROUPS, NAME_BYTES, 1, 0),
            timeout_s,
        }
    }

    /// Appends the session's name, group and all.
    fn push(&self, out: &mut Vec<u8>, session: u32) {
        self.names.push_group(out, session);
        out.push(b'/');
        self.names.push_member(out, session);
    }
}

/// A rival that runs.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its process; ends before its directory goes.
    pub(crate) server: Server,
    _home: Option<Home>,
    _dir: TempDir,
}

/// What of a server's setting differs from work to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Whatever costs least.
    Memory,
    /// What is answered is on disk.
    Durable,
}

impl Who {
    /// All, in the order of tables.
    pub(crate) const ALL: [Who; 6] = [
        Who::Systole,
        Who::Bound,
        Who::Nginx,
        Who::Redis,
        Who::Zookeeper,
        Who::Etcd,
    ];

    /// Why it cannot be compared here, if so: a sentence that says what to do about it.
    pub(crate) fn missing(self, bound: Option<&Path>) -> Option<String> {
        let (found, remedy) = match self {
            Who::Systole => return None,
            Who::Bound => (
                bound.is_some_and(Path::is_file),
                "`cargo bench --bench bound --no-run` builds it and tells its path; give that as --bound PATH",
            ),
            Who::Nginx => (nginx::program().is_some(), "apt-get install nginx-light"),
            Who::Redis => (redis::program().is_some(), "apt-get install redis-server"),
            Who::Zookeeper => (
                zookeeper::program().is_some(),
                "apt-get install zookeeper default-jre-headless",
            ),
            Who::Etcd => (etcd::program().is_some(), "apt-get install etcd-server"),
        };
        (!found).then(|| format!("{self} is left out: {remedy}"))
    }

    /// Whether it knows sessions at all.
    pub(crate) fn has_sessions(self) -> bool {
        !matches!(self, Who::Bound | Who::Nginx)
    }

    /// Whether a session is a connection's: created over it, and renewed over it alone.
    pub(crate) fn is_session_bound(self) -> bool {
        self == Who::Zookeeper
    }

    /// Starts one of our own on a free port, with a directory of its own, and waits until it
    /// serves.
    ///
    /// # Errors
    /// If it does not start; the message holds the end of what it said.
    pub(crate) fn start(
        self,
        setting: Setting,
        own: &Own,
        bound: Option<&Path>,
    ) -> Result<Running> {
        let dir = TempDir::new()?;
        if self == Who::Systole {
            let home = Home::new(own)?;
            let (server, _) = home.start()?;
            return Ok(Running {
                address: home.address,
                server,
                _home: Some(home),
                _dir: dir,
            });
        }
        let address = process::free_address()?;
        let (program, args) = match self {
            Who::Systole | Who::Bound => {
                let program = bound.context("no path of the bound server")?.to_owned();
                (program, vec!["--serve".to_owned(), address.to_string()])
            }
            Who::Nginx => nginx::command(address, dir.path())?,
            Who::Redis => redis::command(address, dir.path(), setting)?,
            Who::Zookeeper => zookeeper::command(address, dir.path())?,
            Who::Etcd => etcd::command(address, dir.path())?,
        };
        let ready = move |a: SocketAddr| match self {
            Who::Zookeeper => zookeeper::is_ready(a),
            Who::Etcd => etcd::is_ready(a),
            _ => TcpStream::connect(a).is_ok(),
        };
        let log = dir.path().join("said.log");
        let (server, _) = Server::start(
            &program,
            &args,
            address,
            &log,
            own.server_cpu,
            READY_NS_MAX,
            ready,
        )
        .with_context(|| format!("{self} does not start"))?;
        Ok(Running {
            address,
            server,
            _home: None,
            _dir: dir,
        })
    }

    /// How it is spoken to, over so many connections.
    pub(crate) fn speech(self, sessions: &Sessions, connections: u32) -> Box<dyn Speech> {
        let sessions = sessions.clone();
        match self {
            Who::Systole | Who::Bound | Who::Nginx => Box::new(http::Http::new(sessions)),
            Who::Redis => Box::new(redis::Resp::new(sessions)),
            Who::Zookeeper => Box::new(zookeeper::Jute::new(sessions)),
            Who::Etcd => Box::new(etcd::Etcd::new(sessions, connections)),
        }
    }

    /// What it says of its version.
    pub(crate) fn version(self, own: &Own) -> String {
        let ask = |program: Option<PathBuf>, arg: &str| {
            let line = program.and_then(|p| first_line(&p, &[arg]));
            line.unwrap_or_else(|| "version unknown".to_owned())
        };
        match self {
            Who::Systole => process::systole_path(own.server.as_deref())
                .map_or_else(|e| e.to_string(), |p| describe_server(&p)),
            Who::Bound => "a bare epoll server (benches/bound)".to_owned(),
            Who::Nginx => ask(nginx::program(), "-v"),
            Who::Redis => ask(redis::program(), "--version"),
            Who::Zookeeper => zookeeper::version(),
            Who::Etcd => ask(etcd::program(), "--version"),
        }
    }

    /// How it was set up and asked, for the reader who doubts the figures.
    pub(crate) fn terms(self) -> &'static str {
        match self {
            Who::Systole => "one shard, alone; beat: HEAD /G/M; create: PUT /G/M",
            Who::Bound => "knows no sessions; beat: the same HEAD, answered 204",
            Who::Nginx => nginx::TERMS,
            Who::Redis => redis::TERMS,
            Who::Zookeeper => zookeeper::TERMS,
            Who::Etcd => etcd::TERMS,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Who::Systole => "systole",
            Who::Bound => "bound",
            Who::Nginx => "nginx",
            Who::Redis => "redis",
            Who::Zookeeper => "zookeeper",
            Who::Etcd => "etcd",
        })
    }
}

/// The first of these that is a file.
fn find(places: &[&str]) -> Option<PathBuf> {
    places.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// What the groups' names begin with.
const PREFIX: &str = "load";
/// Groups the sessions are spread over.
const GROUPS: u32 = 100;
/// Length of the members' names.
const NAME_BYTES: usize = 24;
/// A server must be ready by then; a Java machine takes some seconds on a busy processor.
const READY_NS_MAX: u64 = 60 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_is_not_there_is_told_with_the_remedy() {
        let said = Who::Bound.missing(None).unwrap();
        assert!(
            said.contains("left out") && said.contains("cargo bench"),
            "{said}"
        );
        assert_eq!(Who::Systole.missing(None), None);
    }

    #[test]
    fn those_that_know_sessions_can_do_everything_and_the_others_only_beat() {
        let sessions = Sessions::new(10);
        for who in Who::ALL {
            let speech = who.speech(&sessions, 1);
            assert!(speech.steps(Op::Beat) > 0);
            if who.has_sessions() {
                assert!(speech.steps(Op::Create) > 0 && speech.steps(Op::Count) > 0);
            }
        }
    }
}
