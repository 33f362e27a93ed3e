//! Snapshots of own state, trimming, and reading for learners.

use std::io::{Read as _, Write as _};

use super::super::app::App;
use super::super::observe::{Observation, fold, hash_of};
use super::super::plants::HostPlant;
use super::super::probes::Probe;
use super::super::stage::{HostEvent, Stage};
use super::deliver::collect;
use super::{Host, SimDisk};
use crate::log::{Log, SnapshotWriter};
use crate::types::Zxid;
use crate::zab::{Piece, ReadWhat, Ready};

/// A snapshot of own state that is being written.
pub(super) struct OwnSnapshot {
    zxid: Zxid,
    writer: SnapshotWriter<SimDisk>,
    /// The rest of its content.
    rest: Vec<u8>,
    /// True until a piece of it is written.
    whole: bool,
}

impl Host {
    /// Begins a snapshot when enough was delivered since the last and what it would cover is
    /// durable.
    pub(super) fn snapshot_if_due(&mut self, stage: &mut Stage) {
        let every = stage.profile.snapshot_every;
        let id = self.id();
        let Some(server) = &mut self.server else {
            return;
        };
        let enough = every > 0 && server.app.count >= server.snapshot_at + every;
        if !enough || server.snapshot.is_some() || server.app.applied > server.log.durable() {
            return;
        }
        server.snapshot_at = server.app.count;
        let mut app = server.app;
        if stage.planted.has(HostPlant::SnapshotsUncommitted) {
            app = everything_durable(&server.log, app);
        }
        stage.see(Observation::Snapshotting {
            server: id,
            zxid: app.applied,
            digest: app.digest,
        });
        // A snapshot that fails harms nothing: the next one is due soon enough.
        if let Ok(writer) = server.log.snapshot_writer(app.applied) {
            server.snapshot = Some(OwnSnapshot {
                zxid: app.applied,
                writer,
                rest: app.save(),
                whole: true,
            });
            self.on_disk(stage, stage.profile.disk.sync, HostEvent::Snapshot);
        }
    }

    /// Writes the next piece of a snapshot of own state, or completes it.
    pub(super) fn continue_snapshot(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        let Some(mut snapshot) = server.snapshot.take() else {
            return;
        };
        if snapshot.rest.is_empty() {
            return self.finish_snapshot(stage, snapshot);
        }
        if snapshot.whole && stage.planted.has(HostPlant::SnapshotsLate) {
            let zxid = snapshot.zxid;
            snapshot.rest = App {
                applied: zxid,
                ..server.app
            }
            .save();
        }
        snapshot.whole = false;
        let piece = snapshot.rest.len().min(PIECE_BYTES);
        if snapshot.writer.write_all(&snapshot.rest[..piece]).is_ok() {
            snapshot.rest.drain(..piece);
            server.snapshot = Some(snapshot);
            self.on_disk(stage, stage.profile.disk.sync, HostEvent::Snapshot);
        }
    }

    fn finish_snapshot(&mut self, stage: &mut Stage, snapshot: OwnSnapshot) {
        let id = self.id();
        let zxid = snapshot.zxid;
        if snapshot.writer.finish().is_err() {
            return;
        }
        stage.see(Observation::Snapshotted { server: id, zxid });
        self.input(stage, |peer, _| peer.on_snapshot_taken(zxid));
        let Some(server) = &mut self.server else {
            return;
        };
        let before = server.log.begins_after();
        let Ok(job) = server.log.trim_job(stage.profile.snapshots_kept) else {
            return;
        };
        server.trims.push_back(job);
        let begins_after = server.log.begins_after();
        self.on_disk(stage, stage.profile.disk.change, HostEvent::Trim);
        if begins_after > before {
            stage.probes.hit(Probe::Trimmed);
            stage.see(Observation::Trimmed {
                server: id,
                begins_after,
            });
            self.input(stage, |peer, _| peer.on_trimmed(begins_after));
        }
    }

    /// Removes the files that a trimmed log does without.
    pub(super) fn run_trim(&mut self, _: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        if let Some(job) = server.trims.pop_front() {
            // What is not removed now is part of the log again at the next start.
            let _ = job.run();
        }
    }

    /// Queues the reads of a [`Ready`].
    pub(super) fn take_reads(&mut self, stage: &mut Stage, ready: &mut Ready) {
        for read in ready.reads.drain(..) {
            if let Some(server) = &mut self.server {
                server.reads.push_back(read);
            }
            self.on_disk(stage, stage.profile.disk.read, HostEvent::Read);
        }
    }
}

/// The state that a snapshot has when whoever takes it does not ask what is committed.
fn everything_durable(log: &Log<SimDisk>, mut app: App) -> App {
    let entries = log
        .entries_after(app.applied)
        .and_then(|mut entries| collect(&mut entries, log.durable(), usize::MAX));
    for entry in entries.unwrap_or_default() {
        app.digest = fold(app.digest, entry.zxid, hash_of(&entry.payload));
        app.applied = entry.zxid;
        app.count += 1;
    }
    app
}

/// What a learner asked for.
pub(super) fn piece_of(log: &Log<SimDisk>, what: ReadWhat, stage: &mut Stage) -> Piece {
    let piece = match what {
        ReadWhat::Log {
            after,
            upto,
            bytes_max,
        } => read_log(log, after, upto, bytes_max, stage),
        ReadWhat::Snapshot {
            zxid,
            offset,
            bytes_max,
        } => read_snapshot(log, zxid, offset, bytes_max, stage),
    };
    if piece.is_none() {
        stage.probes.hit(Probe::ReadGone);
    }
    piece.unwrap_or(Piece::Gone)
}

fn read_log(
    log: &Log<SimDisk>,
    after: Zxid,
    upto: Zxid,
    bytes_max: usize,
    stage: &mut Stage,
) -> Option<Piece> {
    let mut entries = log.entries_after(after).ok()?;
    let mut entries = collect(&mut entries, upto, bytes_max).ok()?;
    if entries.is_empty() {
        return None;
    }
    if stage.planted.has(HostPlant::ReadsWithHoles) && entries.len() > 1 {
        entries.remove(0);
    }
    stage.probes.hit(Probe::LogRead);
    Some(Piece::Entries(entries))
}

fn read_snapshot(
    log: &Log<SimDisk>,
    zxid: Zxid,
    offset: u64,
    bytes_max: usize,
    stage: &mut Stage,
) -> Option<Piece> {
    let mut content = Vec::new();
    log.open_snapshot(zxid)
        .ok()?
        .read_to_end(&mut content)
        .ok()?;
    let rest = content.get(offset as usize..)?;
    let piece = &rest[..rest.len().min(bytes_max)];
    if offset > 0 {
        stage.probes.hit(Probe::SnapInPieces);
    }
    Some(Piece::Snapshot {
        bytes: piece.into(),
        last: piece.len() == rest.len(),
    })
}

/// How much of a snapshot is written at a time, bytes.
const PIECE_BYTES: usize = 200;
