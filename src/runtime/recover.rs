//! What a start finds on the disk, and the core that is made of it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use super::clock;
use super::launch::Plan;
use super::pipeline::{Chunks, Pipeline, Ways};
use super::transport;
use crate::group::{Restore, Settings as GroupSettings, State};
use crate::log::{
    FileDisk, FileLog, Log, OpenError, Recovered, Settings as LogSettings, set_aside,
};
use crate::metrics::{CoreCounters, Latency};
use crate::replica::{Replica, Settings as ReplicaSettings};
use crate::types::{Incarnation, ServerId};
use crate::zab::app::Content as _;
use crate::zab::{Boot, Ensemble, Settings as ZabSettings, Summary};

/// What the core is made of beside what the disk holds.
pub struct Parts {
    /// The ways out of it; those to other servers are filled in here.
    pub ways: Ways,
    /// Its counters.
    pub counters: Arc<CoreCounters>,
    /// How long syncs take.
    pub sync: Latency,
}

/// What a start has found.
pub struct Found {
    recovered: Recovered,
    start: Incarnation,
}

/// Opens the log, and restores the newest snapshot. What follows that in the log is read later,
/// once it is known to be committed.
///
/// # Errors
/// A sentence for the operator.
pub fn recover(plan: Plan, parts: Parts) -> Result<(Pipeline, Found), String> {
    let alone = plan.ensemble.len() <= 1;
    let (mut log, recovered) = open(&plan, alone)?;
    for warning in &recovered.warnings {
        tracing::warn!("{warning}");
    }
    let start = log.next_incarnation().map_err(|error| error.to_string())?;
    let group = GroupSettings {
        default_timeout: plan.shard.default_timeout,
        seeds: seeds(),
    };
    let state = restore(&log, &recovered, group, &plan.data_dir, &parts.counters)?;
    let [nonce, ..] = seeds();
    let (epochs, history) = (log.epochs(), log.history().clone());
    let boot = Boot {
        accepted_epoch: epochs.accepted,
        current_epoch: epochs.current,
        history: Summary {
            base: history.base,
            ends: history.ends,
        },
        snapshot: recovered.snapshot,
        delivered: recovered.snapshot.unwrap_or_default(),
        nonce,
    };
    let settings = ReplicaSettings {
        id: plan.id,
        shards: plan.shards(),
        endpoint: plan.endpoint.clone(),
        wall_s: clock::wall_s(),
        lease: plan.lease,
        min_timeout: plan.shard.min_timeout,
        seeds: seeds(),
        requests_max: plan.in_flight_max,
    };
    let Parts {
        mut ways,
        counters,
        sync,
    } = parts;
    let zab = zab_settings(&plan);
    let counted = Arc::clone(&counters);
    let replica = Replica::new(settings, zab, boot, state, group, counted);
    let limits = plan.pipeline;
    ways.peers = peers(plan, nonce);
    let pipeline = Pipeline::new(replica, log, ways, limits, counters, sync);
    Ok((pipeline, Found { recovered, start }))
}

impl Found {
    /// A sentence on what was found, once `state` holds it.
    #[must_use]
    pub fn describe(&self, state: &State) -> String {
        let Found { recovered, start } = self;
        let snapshot = recovered
            .snapshot
            .map_or(String::new(), |at| format!(" after snapshot {at}"));
        let cut = recovered.cut.as_ref().map_or(String::new(), |cut| {
            format!(
                "; the last write had not reached the disk whole ({})",
                cut.found
            )
        });
        format!(
            "start {}: replayed {} transactions{snapshot}, up to {}: {} members in {} groups{cut}",
            start.0,
            recovered.records,
            recovered.last,
            state.members_len(),
            state.groups_len()
        )
    }
}

/// Opens the log. One that is damaged is set aside if other servers hold what it held; alone,
/// nobody does, and the server does not start.
fn open(plan: &Plan, alone: bool) -> Result<(FileLog, Recovered), String> {
    let dir = plan.data_dir.as_path();
    let disk = FileDisk::create(dir).map_err(|error| {
        format!(
            "the data directory {} cannot be used: {error}",
            dir.display()
        )
    })?;
    let [salt, ..] = seeds();
    let settings = LogSettings {
        segment_bytes: plan.tuning.segment_bytes(),
        // Others may ask for more than this server needs for itself.
        snapshot_is_enough: alone,
        ..LogSettings::new(salt)
    };
    let opened = match Log::open(disk.clone(), settings) {
        Err(OpenError::Corrupt { corruption, .. }) if !alone => {
            let dir = dir.display();
            tracing::error!("the data directory {dir} is damaged: {corruption}");
            // The log's own count of starts is for the operator: which run owns sessions is
            // agreed by all servers.
            let floor = Incarnation(0);
            let aside = set_aside(&disk, floor).map_err(|error| error.to_string())?;
            tracing::warn!(
                "{} files of {dir} now end in {}: the other servers will send what they held",
                aside.files.len(),
                aside.suffix
            );
            Log::open(disk, settings)
        }
        opened => opened,
    };
    opened.map_err(|error| error.to_string())
}

fn restore(
    log: &FileLog,
    recovered: &Recovered,
    settings: GroupSettings,
    dir: &Path,
    counters: &Arc<CoreCounters>,
) -> Result<State, String> {
    let Some(zxid) = recovered.snapshot else {
        return Ok(State::new(settings));
    };
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    let mut restore = Restore::new(settings);
    let reader = log.open_snapshot(zxid).map_err(|error| at(&error))?;
    let counters = Arc::clone(counters);
    let mut content = Chunks { reader, counters };
    while let Some(piece) = content.next_piece().map_err(|error| at(&error))? {
        restore.feed(piece).map_err(|error| at(&error))?;
    }
    restore.finish().map_err(|error| at(&error))
}

fn zab_settings(plan: &Plan) -> ZabSettings {
    let mut settings = ZabSettings::alone(plan.id);
    if plan.ensemble.len() > 1 {
        let ids: Vec<ServerId> = plan.ensemble.iter().map(|(id, _)| *id).collect();
        settings.ensemble = Ensemble::new(ENSEMBLE_VERSION, &ids, &[]);
    }
    settings.limits.in_flight_max = plan.in_flight_max;
    settings
}

fn peers(plan: Plan, nonce: u64) -> Option<(transport::Settings, std::net::TcpListener)> {
    let listener = plan.peer_listener?;
    let settings = transport::Settings {
        own: plan.id,
        servers: plan.ensemble,
        ensemble_version: ENSEMBLE_VERSION,
        nonce,
        queue_bytes_max: plan.peer_queue_bytes_max,
        queue_frames_max: plan.peer_queue_frames_max,
    };
    Some((settings, listener))
}

/// Random keys from the system, by way of the standard library's hasher.
#[must_use]
pub fn seeds() -> [u64; 4] {
    std::array::from_fn(|_| RandomState::new().build_hasher().finish())
}

/// The servers of an ensemble do not change while it runs.
const ENSEMBLE_VERSION: u64 = 1;
