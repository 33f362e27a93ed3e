//! `soak`: beats for minutes at a share of what the server can take at most, while members join
//! and leave so that snapshots and log segments come and go; and whose each stall was.

mod verdict;

use super::own::{self, Home};
use super::rolling::{self, Churn, Rolled, Witnesses, judge, tell_churn, tell_evidence};
use super::{conclude, tell};
use crate::cli::Soak;
use crate::clock::{self, SECOND};
use crate::names::Names;
use crate::net::Target;
use crate::plan::{Known, Load, Plan};
use crate::process::{Server, TempDir};
use crate::recorder::Tag;
use crate::report::{Report, count, time};
use crate::run::{self, Done};
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use verdict::Outcome;

/// Runs `soak`. True if nothing went wrong.
///
/// # Errors
/// If the server cannot be started or the run cannot be done.
pub(crate) fn soak(flags: &Soak) -> Result<bool> {
    ensure!(
        (0.01..=1_440.0).contains(&flags.minutes),
        "--minutes lies between 0.01 and 1440"
    );
    ensure!(
        (0.01..=1.0).contains(&flags.saturation),
        "--saturation is a share: it lies between 0.01 and 1"
    );
    let mut flags = flags.clone();
    if flags.endpoint.is_none() {
        flags.own.server_cpu = flags.own.server_cpu.or(Some(0));
        flags.own.load_cpu = flags.own.load_cpu.or(Some(1));
    }
    let subject = Subject::find(&flags)?;
    let mut report = Report::new("soak", clock::wall(), &subject.describe);
    let joined = subject.run(&flags, joining(&flags))?;
    report.verdict(&joined.faults, joined.broken_off.as_deref());
    let fastest = Plan {
        load: Load::Closed {
            pipeline: flags.pipeline,
        },
        duration_ns: flags.ramp,
        known: Some(Arc::new(joined.into_known())),
        ..joining(&flags)
    };
    let fastest = subject.run(&flags, fastest)?;
    report.verdict(&fastest.faults, fastest.broken_off.as_deref());
    let c = &fastest.counts;
    let most = c.beats_measured as f64 * 1e9 / c.measured_ns.max(1) as f64;
    ensure!(most > 0.0, "the server answers no beat");
    let per_s = most * flags.saturation;
    describe(&mut report, &flags, most, per_s);
    soaked(&flags, &subject, per_s, fastest.into_known(), &mut report)?;
    drop(subject);
    conclude(&report, flags.own.out.as_deref())
}

/// The server that is soaked.
struct Subject {
    address: SocketAddr,
    pid: u32,
    describe: String,
    /// If it is our own, with the directory of its settings.
    _own: Option<(Server, Home, TempDir)>,
}

impl Subject {
    fn find(flags: &Soak) -> Result<Subject> {
        if let (Some(address), Some(pid)) = (flags.endpoint, flags.pid) {
            return Ok(Subject {
                address,
                pid,
                describe: address.to_string(),
                _own: None,
            });
        }
        let (home, settings) = rolling::home(&flags.own)?;
        let (server, _) = home.start()?;
        Ok(Subject {
            address: home.address,
            pid: server.pid(),
            describe: home.describe(),
            _own: Some((server, home, settings)),
        })
    }

    fn target(&self) -> Target {
        own::target(self.address)
    }

    fn run(&self, flags: &Soak, plan: Plan) -> Result<Done> {
        let plan = Plan {
            server_pid: Some(self.pid),
            ..plan
        };
        run::run(&self.target(), vec![plan], flags.own.load_cpu)
    }
}

/// All join, and those who have joined beat.
fn joining(flags: &Soak) -> Plan {
    Plan {
        timeout_ns: TIMEOUT_NS,
        load: Load::Open {
            interval_ns: TIMEOUT_NS / 4,
            block: 0,
        },
        ..Plan::joins(Names::new("soak", 100, 24, 1, 0), flags.sessions, 64)
    }
}

/// The soak itself.
fn soaked(
    flags: &Soak,
    subject: &Subject,
    per_s: f64,
    known: Known,
    report: &mut Report,
) -> Result<()> {
    let duration_ns = (flags.minutes * 60e9) as u64;
    let plan = Plan {
        load: Load::Open {
            interval_ns: (f64::from(flags.sessions) * 1e9 / per_s) as u64,
            block: flags.pipeline,
        },
        warmup_ns: SECOND,
        duration_ns,
        known: Some(Arc::new(known)),
        ..joining(flags)
    };
    let config_bytes = rolling::config_bytes(flags.rolls, flags.churn, duration_ns);
    let before = Rolled::of(subject.address)?;
    let (began, began_ns) = (clock::wall(), clock::now());
    let cpus = (flags.own.server_cpu, flags.own.load_cpu);
    let witnesses = Witnesses::begin(subject.pid, cpus.0, cpus.1);
    let churn = Churn::begin(subject.target(), flags.churn, config_bytes, cpus.1)?;
    let done = subject.run(flags, plan);
    let churned = churn.end()?;
    // What the last snapshot takes is no part of the run, but it belongs to what was logged in it.
    clock::pause(Duration::from_nanos(SECOND));
    let evidence = witnesses.end();
    let mut done = done?;
    let (snapshots, segments) = Rolled::of(subject.address)?.since(before);
    tell(report, &done);
    tell_churn(report, &churned, config_bytes);
    tell_evidence(report, &evidence);
    let stalls = std::mem::take(&mut done.stalls);
    let outcome = Outcome {
        beats: done.hist(Tag::Beat),
        stalls: judge(stalls, &evidence),
        sessions: u64::from(flags.sessions),
        living: done.into_known().standing.living(),
        rolls: u64::from(flags.rolls),
        snapshots,
        segments,
    };
    outcome.tell(report, began, began_ns);
    Ok(())
}

fn describe(report: &mut Report, flags: &Soak, most: f64, per_s: f64) {
    let text = format!(
        "{}, {} under way on each of 64 connections (closed loop, {})",
        count(most as u64),
        flags.pipeline,
        time(flags.ramp)
    );
    report.figure("saturation_per_s", "beats a second at most", text, most);
    let text = format!("{}, whatever the answers (open loop)", count(per_s as u64));
    report.figure("offered_per_s", "beats due a second", text, per_s);
    report.setup(format!(
        "{} sessions, timeout {}, beat at {:.0} % of saturation for {} min; {} members join and as \
         many leave a second",
        count(flags.sessions.into()),
        time(TIMEOUT_NS),
        flags.saturation * 100.0,
        flags.minutes,
        count(flags.churn.into())
    ));
}

/// Timeout of the sessions.
const TIMEOUT_NS: u64 = 20 * SECOND;
