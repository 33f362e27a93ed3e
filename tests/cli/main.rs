//! The commands that talk to servers, and the client for programs, against real servers.
//!
//! | file | about |
//! |---|---|
//! | `commands` | each command, in both forms, and each exit code |
//! | `ensemble` | what happens to them when servers of an ensemble are lost |
//! | `keep` | `join --keep`, and the client's own thread |
//! | `snapshot` | backup and restore of a data directory |
//! | `watch` | what `watch` shows |

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "its own tests use the rest")]
#[path = "../cluster/network.rs"]
mod network;
#[allow(dead_code, reason = "its own tests use the rest")]
#[path = "../cluster/relay.rs"]
mod relay;
#[allow(dead_code, reason = "its own tests use the rest")]
#[path = "../cluster/ensemble.rs"]
mod servers;

mod commands;
mod ensemble;
mod keep;
mod snapshot;
mod watch;

use std::process::Command;

use common::{Ended, Server, run_to_end, systole};

/// The program with these arguments, aimed at `server`.
fn at(server: &Server, args: &[&str]) -> Command {
    let mut command = systole();
    command.args(args);
    command.env("SYSTOLE_ENDPOINT", server.address().to_string());
    command
}

/// Runs it to its end.
#[track_caller]
fn run(server: &Server, args: &[&str]) -> Ended {
    run_to_end(&mut at(server, args))
}

/// The same, which must succeed and say nothing on stderr: what it prints.
#[track_caller]
fn printed(server: &Server, args: &[&str]) -> String {
    let ended = run(server, args);
    assert_eq!(
        (ended.code, &*ended.stderr),
        (Some(0), ""),
        "{args:?}: {ended:?}"
    );
    ended.stdout
}

/// The same as JSON, which must be one line.
#[track_caller]
fn json(server: &Server, args: &[&str]) -> serde_json::Value {
    let text = printed(server, args);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}
