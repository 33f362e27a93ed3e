//! `beat` and `expire`: join, then beat, while members die, leave and rejoin.

use super::{conclude, tell};
use crate::batch;
use crate::churn::Shares;
use crate::cli::{Beat, Common, Expire, ModeName};
use crate::plan::{Load, Mode, Plan};
use crate::report::{Report, time};
use crate::run::{self, share};
use crate::verify::Fault;
use anyhow::{Result, ensure};

/// Runs `beat`. True if nothing went wrong.
///
/// # Errors
/// If the flags contradict each other or the run cannot be done.
pub(crate) fn beat(flags: &Beat) -> Result<bool> {
    load(flags, 0.0, "beat")
}

/// Runs `expire`. True if nothing went wrong.
///
/// # Errors
/// As for [`beat`].
pub(crate) fn expire(flags: &Expire) -> Result<bool> {
    let beat = &flags.beat;
    let churn = beat.die + beat.leave + beat.rejoin;
    ensure!(
        churn == 0.0,
        "`expire` counts who is left: nobody else may die, leave or rejoin"
    );
    ensure!(
        beat.common.threads == 1,
        "`expire` watches from one thread: leave --threads at 1"
    );
    ensure!(
        flags.share > 0.0,
        "--share says how many expire: it is more than 0"
    );
    load(beat, flags.share, "expire")
}

fn load(flags: &Beat, doom: f64, topic: &str) -> Result<bool> {
    let common = &flags.common;
    let plans = plans(flags, doom)?;
    let mut done = run::run(&common.target(), plans, common.cpu)?;
    if common.tolerate_disconnects {
        done.faults.forgive(Fault::Disconnected);
    }
    let server = match crate::client::get(common.endpoint[0], "/-/cluster") {
        Ok((200, _)) => format!("systole at {}", common.endpoint[0]),
        _ => format!("{}", common.endpoint[0]),
    };
    let mut report = Report::new(topic, done.started, &server);
    describe(&mut report, flags);
    tell(&mut report, &done);
    if common.tolerate_disconnects && done.counts.disconnects > 0 {
        report.figure(
            "disconnects",
            "connections that ended",
            format!("{} (tolerated)", done.counts.disconnects),
            done.counts.disconnects,
        );
    }
    conclude(&report, common.out.as_deref())
}

/// One plan a thread.
pub(crate) fn plans(flags: &Beat, doom: f64) -> Result<Vec<Plan>> {
    let Common {
        threads,
        connections,
        ..
    } = flags.common;
    ensure!(
        threads <= connections && threads <= flags.sessions,
        "every thread needs a connection and a session"
    );
    if let Mode::Batch { packed, size } = mode(flags) {
        let group_bytes = flags.common.prefix.len() + 6;
        let most = batch::size_max(packed, flags.common.name_bytes, group_bytes);
        ensure!(
            (1..=most as u32).contains(&size),
            "a batch is at most 1 MiB: --batch lies between 1 and {most} here"
        );
    }
    let mut base = 0;
    let plans = (0..threads).map(|t| {
        let sessions = share(flags.sessions, threads, t);
        let plan = Plan {
            timeout_ns: flags.timeout,
            load: open_or_closed(flags),
            mode: mode(flags),
            duration_ns: flags.duration,
            warmup_ns: flags.warmup,
            joins_outstanding: flags.common.joins_outstanding.div_ceil(threads),
            join_limit_ns: flags.join_limit,
            shares: Shares {
                die: flags.die,
                leave: flags.leave,
                rejoin: flags.rejoin,
            },
            doom,
            late_bound_ns: flags.late_bound,
            seed: flags.common.seed ^ u64::from(t),
            with_id: flags.with_id,
            bare: flags.bare,
            server_pid: flags.common.pid,
            ..Plan::joins(
                flags.common.names(base),
                sessions,
                share(connections, threads, t),
            )
        };
        base += sessions;
        plan
    });
    Ok(plans.collect())
}

fn open_or_closed(flags: &Beat) -> Load {
    if flags.closed {
        Load::Closed {
            pipeline: flags.pipeline,
        }
    } else {
        Load::Open {
            interval_ns: flags.interval,
            block: flags.burst,
        }
    }
}

fn mode(flags: &Beat) -> Mode {
    match flags.mode {
        ModeName::Head => Mode::Head,
        ModeName::Get => Mode::Get,
        ModeName::BatchName => Mode::Batch {
            packed: false,
            size: flags.batch,
        },
        ModeName::BatchId => Mode::Batch {
            packed: true,
            size: flags.batch,
        },
    }
}

fn describe(report: &mut Report, flags: &Beat) {
    let how = if flags.closed {
        format!("closed loop, {} under way a connection", flags.pipeline)
    } else {
        format!("open loop, a beat every {}", time(flags.interval))
    };
    let text = format!(
        "{} sessions in {} groups over {} connections, timeout {}, {how}",
        flags.sessions,
        flags.common.groups,
        flags.common.connections,
        time(flags.timeout)
    );
    report.setup(text);
}
