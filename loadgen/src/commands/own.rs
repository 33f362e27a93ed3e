//! A systole of our own, for the commands that start, kill and measure one.

use crate::cli::Own;
use crate::clock::SECOND;
use crate::net::Target;
use crate::process::{self, Server, TempDir};
use crate::report::machine::describe_server;
use anyhow::Result;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a systole of our own lives, whether it runs or not.
pub(crate) struct Home {
    program: PathBuf,
    /// Where its data lie.
    pub(crate) data_dir: PathBuf,
    log: PathBuf,
    more_args: Vec<String>,
    cpu: Option<usize>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Removed at the end; holds the log, and the data unless a place for them was given.
    _temporary: TempDir,
}

impl Home {
    /// Finds the program and a place for its data.
    pub(crate) fn new(own: &Own) -> Result<Home> {
        let temporary = TempDir::new()?;
        let data_dir = own.data_dir.clone();
        Ok(Home {
            program: process::systole_path(own.server.as_deref())?,
            data_dir: data_dir.unwrap_or_else(|| temporary.path().join("data")),
            log: temporary.path().join("server.log"),
            more_args: own.server_arg.clone(),
            cpu: own.server_cpu,
            address: process::free_address()?,
            _temporary: temporary,
        })
    }

    /// Starts it and waits until it is ready; also says how long that took.
    pub(crate) fn start(&self) -> Result<(Server, u64)> {
        let mut args = process::systole_args(self.address, &self.data_dir)?;
        args.extend(self.more_args.iter().cloned());
        Server::start(
            &self.program,
            &args,
            self.address,
            &self.log,
            self.cpu,
            READY_NS_MAX,
            process::is_ready,
        )
    }

    /// Its version and the sources' commit.
    pub(crate) fn describe(&self) -> String {
        describe_server(&self.program)
    }

    /// The target for connections to it.
    pub(crate) fn target(&self) -> Target {
        target(self.address)
    }
}

/// A target that is one server, whose connections last.
pub(crate) fn target(address: SocketAddr) -> Target {
    Target {
        endpoints: vec![address],
        connects_per_s: 5_000,
        reconnect: false,
    }
}

/// A server must be ready by then; ten million sessions may take 12 s.
const READY_NS_MAX: u64 = 60 * SECOND;
