//! `join`: how fast sessions are created, and how long each takes.

use super::{conclude, tell};
use crate::cli::Join;
use crate::plan::Plan;
use crate::report::Report;
use crate::run::{self, share};
use anyhow::{Result, ensure};

/// Runs `join`. True if nothing went wrong.
///
/// # Errors
/// If the flags contradict each other or the run cannot be done.
pub(crate) fn join(flags: &Join) -> Result<bool> {
    let common = &flags.common;
    let threads = common.threads;
    ensure!(
        threads <= common.connections && threads <= flags.sessions,
        "every thread needs a connection and a session"
    );
    ensure!(flags.outstanding > 0, "--outstanding is at least 1");
    let mut base = 0;
    let plans = (0..threads).map(|t| {
        let sessions = share(flags.sessions, threads, t);
        let plan = Plan {
            timeout_ns: flags.timeout,
            joins_outstanding: flags.outstanding.div_ceil(threads),
            join_limit_ns: flags.join_limit,
            server_pid: common.pid,
            ..Plan::joins(
                common.names(base),
                sessions,
                share(common.connections, threads, t),
            )
        };
        base += sessions;
        plan
    });
    let done = run::run(&common.target(), plans.collect(), common.cpu)?;
    let mut report = Report::new("join", done.started, &common.endpoint[0].to_string());
    let text = format!(
        "{} joins, {} under way at once over {} connections",
        flags.sessions, flags.outstanding, common.connections
    );
    report.setup(text);
    tell(&mut report, &done);
    conclude(&report, common.out.as_deref())
}
