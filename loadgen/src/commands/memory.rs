//! `memory`: what a session costs a server that holds a million idle ones.

use super::own::Home;
use super::{conclude, tell};
use crate::cli::Memory as Flags;
use crate::clock::{self, MILLI, SECOND};
use crate::names::Names;
use crate::plan::Plan;
use crate::process::{self, Memory, Server};
use crate::report::{Report, count};
use crate::run;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Runs `memory`. True if nothing went wrong.
///
/// # Errors
/// If the server cannot be started or the run cannot be done.
pub(crate) fn memory(flags: &Flags) -> Result<bool> {
    ensure!(flags.sessions > 0, "at least one session is needed");
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let before = settled(&server)?;
    let names = Names::new("load", flags.groups, flags.name_bytes, 1, 0);
    let plan = Plan {
        timeout_ns: 86_400 * SECOND,
        server_pid: Some(server.pid()),
        ..Plan::joins(names, flags.sessions, 64)
    };
    // The connections end with the run: what is measured is sessions alone.
    let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
    let after = settled(&server)?;
    let mut report = Report::new("memory", done.started, &home.describe());
    let n = u64::from(flags.sessions);
    let text = format!(
        "{} idle sessions, names of {} bytes, {} groups, no connection open",
        count(n),
        flags.name_bytes,
        flags.groups
    );
    report.setup(text);
    for (key, label, of) in [
        ("rss", "resident", (|m| m.rss) as fn(&Memory) -> u64),
        ("anonymous", "of it its own memory", |m| m.anonymous),
        ("file", "of it mapped files", |m| m.file),
    ] {
        let (b, a) = (of(&before), of(&after));
        let each = a as f64 / n as f64;
        let text = format!(
            "{each:.1} B a session ({} MiB; {} MiB when empty)",
            a >> 20,
            b >> 20
        );
        report.figure(&format!("{key}_bytes_a_session"), label, text, each);
    }
    report.data("before", serde_json::to_value(before)?);
    report.data("after", serde_json::to_value(after)?);
    report.note("Everything is counted: nothing is subtracted for the empty server.");
    tell(&mut report, &done);
    conclude(&report, flags.own.out.as_deref())
}

/// The server's memory once it stands still.
pub(crate) fn settled(server: &Server) -> Result<Memory> {
    let read = || process::memory(server.pid()).context("cannot read the server's memory");
    let mut last = read()?;
    let began = clock::now();
    loop {
        clock::pause(Duration::from_nanos(500 * MILLI));
        let now = read()?;
        if now.rss.abs_diff(last.rss) < 64 * 1024 || clock::now() - began > 10 * SECOND {
            return Ok(now);
        }
        last = now;
    }
}
