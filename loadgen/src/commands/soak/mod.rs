//! `soak`: beats for minutes at a share of what the server can take at most, while members join
//! and leave so that snapshots and log segments come and go; and whose each stall was.

mod churn;
mod evidence;
mod verdict;

use super::bench::ensemble::metric;
use super::own::{self, Home};
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
use churn::{Churn, Churned};
use evidence::{Evidence, Witnesses};
use std::fs;
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
        let settings = TempDir::new()?;
        let file = settings.path().join("soak.toml");
        fs::write(&file, format!("[tuning]\nsegment-mib = {SEGMENT_MIB}\n"))?;
        let mut own = flags.own.clone();
        own.server_arg.push(format!("--config={}", file.display()));
        let home = Home::new(&own)?;
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

    fn rolled(&self) -> Result<Rolled> {
        Ok(Rolled {
            snapshots: metric(self.address, "systole_snapshots_total")? as u64,
            log_bytes: metric(self.address, "systole_log_bytes_total")? as u64,
        })
    }
}

/// How far a server's log has come, by its own metrics.
#[derive(Clone, Copy, Debug)]
struct Rolled {
    snapshots: u64,
    log_bytes: u64,
}

impl Rolled {
    /// Snapshots written since `before`, and segments begun at least: what was logged fits no
    /// fewer.
    fn since(self, before: Rolled) -> (u64, u64) {
        let logged = self.log_bytes.saturating_sub(before.log_bytes);
        let segments = logged.div_ceil(SEGMENT_BYTES).saturating_sub(1);
        (self.snapshots.saturating_sub(before.snapshots), segments)
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
    let config_bytes = config_bytes(flags, duration_ns);
    let before = subject.rolled()?;
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
    let (snapshots, segments) = subject.rolled()?.since(before);
    tell(report, &done);
    tell_churn(report, &churned, config_bytes);
    tell_evidence(report, &evidence);
    let stalls = std::mem::take(&mut done.stalls);
    let outcome = Outcome {
        beats: done.hist(Tag::Beat),
        stalls: verdict::judge(stalls, &evidence),
        sessions: u64::from(flags.sessions),
        living: done.into_known().standing.living(),
        rolls: u64::from(flags.rolls),
        snapshots,
        segments,
    };
    outcome.tell(report, began, began_ns);
    Ok(())
}

/// How long the configs of those who join must be for the log to roll often enough, and some
/// more. A snapshot is due after as many bytes as fit a segment of this size.
fn config_bytes(flags: &Soak, duration_ns: u64) -> usize {
    let wanted = (u64::from(flags.rolls) + ROLLS_TO_SPARE) * SEGMENT_BYTES;
    let joins = u64::from(flags.churn) * duration_ns / SECOND;
    (wanted / joins.max(1)).clamp(1, CONFIG_BYTES_MAX) as usize
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

fn tell_churn(report: &mut Report, churned: &Churned, config_bytes: usize) {
    let text = format!(
        "{} joins with configs of {} bytes, {} leaves, {} held back; p50 {}, p99 {}",
        count(churned.joins),
        count(config_bytes as u64),
        count(churned.leaves),
        count(churned.held_back),
        time(churned.waited.value_at_quantile(0.5)),
        time(churned.waited.value_at_quantile(0.99))
    );
    report.figure("churn_joins", "churn meanwhile", text, churned.joins);
    report.distribution("churn", &churned.waited);
    report.verdict(&churned.faults, None);
}

fn tell_evidence(report: &mut Report, evidence: &Evidence) {
    for (name, account) in &evidence.accounts {
        let total = account.total();
        let key = format!("taken: {name}");
        report.figure(&key, name, format!("{} in all", time(total)), total);
    }
}

/// Length of the log segments, the shortest there are; a snapshot is due after as much.
const SEGMENT_MIB: u64 = 32;
const SEGMENT_BYTES: u64 = SEGMENT_MIB << 20;
/// What is logged beyond what must be: rolls are no whole number.
const ROLLS_TO_SPARE: u64 = 2;
/// The server takes 64 KiB.
const CONFIG_BYTES_MAX: u64 = 60_000;
/// Timeout of the sessions.
const TIMEOUT_NS: u64 = 20 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn flags(args: &str) -> Soak {
        let line = format!("loadgen soak {args}");
        match crate::cli::Cli::parse_from(line.split(' ')).command {
            crate::cli::Command::Soak(flags) => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn configs_are_as_long_as_the_log_needs_to_roll() {
        for (args, minutes) in [("--rolls 5", 10), ("--rolls 9 --churn 1000", 1)] {
            let flags = flags(args);
            let bytes = config_bytes(&flags, minutes * 60 * SECOND) as u64;
            let logged = bytes * u64::from(flags.churn) * minutes * 60;
            assert!(
                logged / SEGMENT_BYTES > u64::from(flags.rolls),
                "{args}: {bytes}"
            );
        }
        assert_eq!(config_bytes(&flags("--churn 1"), SECOND), 60_000);
    }

    #[test]
    fn segments_are_counted_by_what_no_fewer_would_hold() {
        let at = |snapshots, segments: f64| Rolled {
            snapshots,
            log_bytes: (segments * SEGMENT_BYTES as f64) as u64,
        };
        assert_eq!(at(9, 6.5).since(at(2, 0.25)), (7, 6));
        assert_eq!(at(2, 0.5).since(at(2, 0.25)), (0, 0));
        assert_eq!(at(3, 1.0).since(at(2, 0.0)), (1, 0), "it may just fit");
    }
}
