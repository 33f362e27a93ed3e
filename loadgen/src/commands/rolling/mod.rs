//! A server whose log rolls: members join and leave at a steady rate with configs long enough
//! that snapshots and log segments come and go, and whose each stall meanwhile was.

mod churn;
mod evidence;
mod verdict;

pub(in crate::commands) use churn::{Churn, Churned};
pub(in crate::commands) use evidence::{Evidence, Witnesses};
pub(in crate::commands) use verdict::{Judged, OURS_NS_MAX, judge, stall_table};

use super::own::Home;
use crate::cli::Own;
use crate::client;
use crate::clock::SECOND;
use crate::process::TempDir;
use crate::report::{Report, count, time};
use anyhow::Result;
use std::fs;
use std::net::SocketAddr;

/// Where a server lives whose segments are as short as they may be; with the directory of its
/// settings, which is to outlive it.
///
/// # Errors
/// If there is no program, or no place for its files.
pub(in crate::commands) fn home(own: &Own) -> Result<(Home, TempDir)> {
    let settings = TempDir::new()?;
    let file = settings.path().join("rolling.toml");
    fs::write(&file, format!("[tuning]\nsegment-mib = {SEGMENT_MIB}\n"))?;
    let mut own = own.clone();
    own.server_arg.push(format!("--config={}", file.display()));
    Ok((Home::new(&own)?, settings))
}

/// How far a server's log has come, by its own metrics.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Rolled {
    snapshots: u64,
    log_bytes: u64,
}

impl Rolled {
    /// Asks the server.
    ///
    /// # Errors
    /// If it does not answer.
    pub(in crate::commands) fn of(server: SocketAddr) -> Result<Rolled> {
        Ok(Rolled {
            snapshots: client::metric(server, "systole_snapshots_total")? as u64,
            log_bytes: client::metric(server, "systole_log_bytes_total")? as u64,
        })
    }

    /// Snapshots written since `before`, and segments begun at least: what was logged fits no
    /// fewer.
    pub(in crate::commands) fn since(self, before: Rolled) -> (u64, u64) {
        let logged = self.log_bytes.saturating_sub(before.log_bytes);
        let segments = logged.div_ceil(SEGMENT_BYTES).saturating_sub(1);
        (self.snapshots.saturating_sub(before.snapshots), segments)
    }
}

/// How long the configs of those who join must be for the log to roll so often, and some
/// more. A snapshot is due after as many bytes as fit a segment of this size.
pub(in crate::commands) fn config_bytes(rolls: u32, joins_per_s: u32, duration_ns: u64) -> usize {
    let wanted = (u64::from(rolls) + ROLLS_TO_SPARE) * SEGMENT_BYTES;
    let joins = u64::from(joins_per_s) * duration_ns / SECOND;
    (wanted / joins.max(1)).clamp(1, CONFIG_BYTES_MAX) as usize
}

/// Adds what became of the churn.
pub(in crate::commands) fn tell_churn(report: &mut Report, churned: &Churned, config_bytes: usize) {
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

/// Adds how much the witnesses say was taken from us.
pub(in crate::commands) fn tell_evidence(report: &mut Report, evidence: &Evidence) {
    for (name, account) in &evidence.accounts {
        let total = account.total();
        let key = format!("taken: {name}");
        report.figure(&key, name, format!("{} in all", time(total)), total);
    }
}

/// Length of the log segments, the shortest there are; a snapshot is due after as much.
const SEGMENT_MIB: u64 = 32;
pub(in crate::commands) const SEGMENT_BYTES: u64 = SEGMENT_MIB << 20;
/// What is logged beyond what must be: rolls are no whole number.
const ROLLS_TO_SPARE: u64 = 2;
/// The server takes 64 KiB.
const CONFIG_BYTES_MAX: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_as_long_as_the_log_needs_to_roll() {
        for (rolls, joins_per_s, minutes) in [(5, 500, 10), (9, 1_000, 1)] {
            let duration_ns = minutes * 60 * SECOND;
            let bytes = config_bytes(rolls, joins_per_s, duration_ns) as u64;
            let logged = bytes * u64::from(joins_per_s) * minutes * 60;
            assert!(
                logged / SEGMENT_BYTES > u64::from(rolls),
                "{rolls} rolls: {bytes}"
            );
        }
        assert_eq!(config_bytes(5, 1, SECOND), 60_000);
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
