//! Writing: one write after the other, syncs in groups, and the reports.

use std::fmt;
use std::io::{self, Write as _};

use super::super::app::App;
use super::super::observe::{Observation, hash_of};
use super::super::plants::HostPlant;
use super::super::probes::Probe;
use super::super::stage::{HostEvent, Stage};
use super::power::read_snapshot;
use super::{Host, Sync};
use crate::log::{Fatal, LogError};
use crate::types::{Epoch, Zxid};
use crate::zab::{Entry, Persisted, Ready, Write};

impl Host {
    /// Queues the writes of a [`Ready`] behind those of earlier ones.
    pub(super) fn take_writes(&mut self, stage: &mut Stage, ready: &mut Ready) {
        let Some(server) = &mut self.server else {
            return;
        };
        server.asked += ready.writes.len() as u64;
        if stage.planted.has(HostPlant::ReportsEpochBeforeWrite) {
            for write in &ready.writes {
                match *write {
                    Write::AcceptedEpoch(epoch) => {
                        server.reports.push_back(Persisted::AcceptedEpoch(epoch));
                    }
                    Write::CurrentEpoch(epoch) => {
                        server.reports.push_back(Persisted::CurrentEpoch(epoch));
                    }
                    _ => continue,
                }
                stage.queue.put(
                    stage.now + 1,
                    super::Event::Host {
                        at: self.at as u8,
                        run: self.run,
                        what: HostEvent::Report,
                    },
                );
            }
        }
        server.writes.extend(ready.writes.drain(..));
        self.go_on_writing(stage);
    }

    /// Plans the next write, if there is one and none is planned. Writes that take log away
    /// wait for the syncs of what was appended before them, as the log demands. A sound core
    /// asks for them only when all it has appended is durable.
    fn go_on_writing(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        if server.writing {
            return;
        }
        let syncing = !matches!(server.sync, Sync::Idle);
        if let Some(Write::Truncate(_) | Write::SnapshotEnd(_)) = server.writes.front()
            && syncing
        {
            return;
        }
        let span = match server.writes.front() {
            None => return,
            Some(Write::Append(_) | Write::SnapshotBegin(_) | Write::SnapshotPiece(_)) => {
                stage.profile.disk.write
            }
            Some(_) => stage.profile.disk.change,
        };
        server.writing = true;
        self.on_disk(stage, span, HostEvent::Write);
    }

    /// Carries out the next write.
    pub(super) fn write_next(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        server.writing = false;
        let Some(write) = server.writes.pop_front() else {
            return;
        };
        server.made += 1;
        if let Write::SnapshotEnd(zxid) = write {
            server.installing -= 1;
            // What the snapshot covers is known as committed by that alone.
            server.committed = server.committed.max(zxid);
        }
        let done = match &write {
            Write::Append(entry) => self.append(stage, entry),
            Write::AcceptedEpoch(epoch) => self.accept(stage, *epoch),
            Write::CurrentEpoch(epoch) => self.make_current(stage, *epoch),
            Write::Truncate(to) => self.truncate(stage, *to),
            Write::SnapshotBegin(zxid) => self.receive_begin(*zxid),
            Write::SnapshotPiece(bytes) => self.receive_piece(stage, bytes),
            Write::SnapshotEnd(zxid) => self.receive_end(stage, *zxid),
        };
        match done {
            Ok(Some(persisted)) => self.report(stage, persisted),
            Ok(None) => {}
            Err(error) => self.write_failed(stage, &error, persisted_of(&write)),
        }
        self.pump(stage);
        self.go_on_writing(stage);
    }

    /// A write or a sync has failed. `wished` is what it would have made durable: a peer with a
    /// plant goes on as if it had.
    fn write_failed(&mut self, stage: &mut Stage, error: &Failed, wished: Option<Persisted>) {
        if self.disk.crashed() {
            return; // Nobody is there any more to be told.
        }
        let id = self.id();
        if matches!(error, Failed::Refused(_)) {
            let what = format!("server {id} was asked for a write that makes no sense: {error}");
            return stage.judge.condemn(stage.now, what);
        }
        if stage.judge.is_tracing() {
            stage.judge.trace(stage.now, format_args!("{id} {error}"));
        }
        let full = error.to_string().contains("space");
        stage.probes.hit(if full {
            Probe::DiskFull
        } else {
            Probe::DiskError
        });
        if !stage.planted.has(HostPlant::ForgetsFailure) {
            self.input(stage, |peer, _| peer.on_write_failed());
        }
        if let Some(wished) = wished {
            self.report(stage, wished);
        }
    }

    fn append(&mut self, stage: &mut Stage, entry: &Entry) -> Done {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        let appended = server.log.append(entry.zxid, &entry.payload);
        // If power was lost meanwhile all of the record may be there.
        if appended.is_ok() || self.disk.crashed() {
            stage.see(Observation::Appended {
                server: id,
                zxid: entry.zxid,
                hash: hash_of(&entry.payload),
            });
        }
        appended?;
        let idle = matches!(server.sync, Sync::Idle);
        if idle {
            server.sync = Sync::Coming;
        }
        let prepare = !std::mem::replace(&mut server.preparing, true);
        if idle {
            self.on_disk(stage, stage.profile.disk.write, HostEvent::SyncBegin);
        }
        if prepare {
            self.on_disk(stage, stage.profile.disk.sync, HostEvent::Prepare);
        }
        let early = stage.planted.has(HostPlant::ReportsBeforeSync);
        Ok(early.then_some(Persisted::Log(entry.zxid)))
    }

    fn accept(&mut self, stage: &mut Stage, epoch: Epoch) -> Done {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        server.log.set_accepted_epoch(epoch)?;
        stage.see(Observation::AcceptedDurable { server: id, epoch });
        Ok(Some(Persisted::AcceptedEpoch(epoch)))
    }

    fn make_current(&mut self, stage: &mut Stage, epoch: Epoch) -> Done {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        server.log.set_current_epoch(epoch)?;
        if std::mem::replace(&mut self.blank, false) {
            stage.probes.hit(Probe::BlankAdmitted);
        }
        stage.see(Observation::CurrentDurable { server: id, epoch });
        Ok(Some(Persisted::CurrentEpoch(epoch)))
    }

    fn truncate(&mut self, stage: &mut Stage, to: Zxid) -> Done {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        stage.see(Observation::Truncating { server: id, to });
        let last = server.log.last();
        let cut = server.log.truncate_after(to);
        if self.disk.crashed() {
            stage.probes.hit(Probe::CrashInCut);
        }
        cut?;
        stage.probes.hit(Probe::CutFollower);
        if last.epoch > to.epoch {
            stage.probes.hit(Probe::CutAcrossEpochs);
        }
        self.durable = to;
        stage.see(Observation::Truncated { server: id, to });
        Ok(Some(Persisted::Truncated(to)))
    }

    fn receive_begin(&mut self, zxid: Zxid) -> Done {
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        // The unfinished one goes first: the two may have the same name.
        server.receiver = None;
        server.received.clear();
        server.receiver = Some(server.log.snapshot_receiver(zxid)?);
        Ok(None)
    }

    fn receive_piece(&mut self, stage: &Stage, bytes: &[u8]) -> Done {
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        if let Some(receiver) = &mut server.receiver {
            let written = receiver.write_all(bytes);
            written?;
            server.received.extend_from_slice(bytes);
        }
        if stage.planted.has(HostPlant::RestoresEarly) {
            // What part of a snapshot there is makes no state yet, and leaves none.
            server.app = App::restore(&server.received).unwrap_or_default();
        }
        Ok(None)
    }

    fn receive_end(&mut self, stage: &mut Stage, zxid: Zxid) -> Done {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        let Some(receiver) = server.receiver.take() else {
            let what = format!("server {id} was asked to end a snapshot that never began");
            stage.judge.condemn(stage.now, what);
            return Ok(None);
        };
        if server.log.last() > Zxid::ZERO {
            stage.probes.hit(Probe::InstallOverHistory);
        }
        stage.see(Observation::Installing {
            server: id,
            zxid,
            digest: App::restore(&server.received).map_or(0, |app| app.digest),
        });
        let installed = server.log.install_snapshot(receiver);
        if self.disk.crashed() {
            stage.probes.hit(Probe::CrashInInstall);
        }
        installed?;
        let Some(app) = read_snapshot(&server.log, zxid) else {
            let what = format!("server {id} cannot read the snapshot {zxid} it has installed");
            stage.judge.condemn(stage.now, what);
            return Ok(None);
        };
        self.durable = zxid;
        stage.see(Observation::Installed {
            server: id,
            zxid,
            digest: app.digest,
        });
        if !stage.planted.has(HostPlant::KeepsStateOnInstall) {
            server.app = app;
            server.snapshot_at = app.count;
            stage.see(Observation::Restored {
                server: id,
                zxid,
                digest: app.digest,
            });
            let restored = stage.judge.oracle.restored(&app);
            stage.judge.check(stage.now, restored);
        }
        Ok(Some(Persisted::Snapshot(zxid)))
    }

    /// Asks the log for a sync of all that is appended.
    pub(super) fn begin_sync(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        match server.log.begin_sync() {
            None => {
                server.sync = Sync::Idle;
                self.go_on_writing(stage);
            }
            Some(ticket) => {
                server.sync = Sync::Out(ticket);
                self.on_disk(stage, stage.profile.disk.sync, HostEvent::SyncRun);
            }
        }
    }

    /// The disk syncs what was appended when the sync was asked for.
    pub(super) fn run_sync(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        let Sync::Out(ticket) = std::mem::replace(&mut server.sync, Sync::Idle) else {
            return;
        };
        let mut result = ticket.run();
        if stage.planted.has(HostPlant::RetriesFailedSync) && !self.disk.crashed() {
            result = result.or_else(|_| ticket.run());
        }
        server.sync = Sync::Done(ticket, result);
        self.on_disk(stage, stage.profile.disk.report, HostEvent::SyncEnd);
    }

    /// The log learns that its sync has ended.
    pub(super) fn end_sync(&mut self, stage: &mut Stage) {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return;
        };
        let Sync::Done(ticket, result) = std::mem::replace(&mut server.sync, Sync::Idle) else {
            return;
        };
        let wished = ticket.upto;
        match server.log.end_sync(ticket, result) {
            Ok(upto) => {
                self.durable = upto;
                stage.see(Observation::Durable { server: id, upto });
                self.report(stage, Persisted::Log(upto));
                self.sync_again(stage);
                self.go_on_writing(stage);
            }
            Err(fatal) => {
                self.write_failed(stage, &fatal.into(), Some(Persisted::Log(wished)));
            }
        }
    }

    /// What was appended during the last sync is synced next.
    fn sync_again(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        if server.log.durable() < server.log.last() {
            server.sync = Sync::Coming;
            self.on_disk(stage, stage.profile.disk.write, HostEvent::SyncBegin);
        }
    }

    /// Has the next segment made ahead of its use.
    pub(super) fn run_prepare(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        server.preparing = false;
        if let Some(job) = server.log.prepare_job() {
            // What goes wrong shows when the segment is needed.
            let _ = job.run();
            server.preparing = true;
            self.on_disk(stage, stage.profile.disk.change, HostEvent::Prepare);
        }
    }

    /// Tells the peer, later, that a write is durable. Reports keep their order.
    fn report(&mut self, stage: &mut Stage, persisted: Persisted) {
        let event = self.event(HostEvent::Report);
        let Some(server) = &mut self.server else {
            return;
        };
        let span = stage.profile.disk.report;
        let due = (stage.now + stage.random.span(span)).max(server.last_report + 1);
        server.last_report = due;
        server.reports.push_back(persisted);
        stage.queue.put(due, event);
    }

    pub(super) fn report_next(&mut self, stage: &mut Stage) {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return;
        };
        let Some(persisted) = server.reports.pop_front() else {
            return;
        };
        stage.see(Observation::Reported {
            server: id,
            persisted,
        });
        self.input(stage, |peer, now| peer.on_persisted(now, persisted));
    }
}

/// What a write that was carried out makes durable, if it is reported at once.
type Done = Result<Option<Persisted>, Failed>;

/// Why a write was not carried out.
enum Failed {
    /// It makes no sense; nothing has changed.
    Refused(LogError),
    /// The log has failed for good.
    Fatal(Fatal),
    /// A snapshot could not be received.
    Io(io::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Refused(error) => error.fmt(f),
            Failed::Fatal(fatal) => fatal.fmt(f),
            Failed::Io(error) => error.fmt(f),
        }
    }
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Failed {
        match error {
            LogError::Fatal(fatal) => Failed::Fatal(fatal),
            refused => Failed::Refused(refused),
        }
    }
}

impl From<Fatal> for Failed {
    fn from(fatal: Fatal) -> Failed {
        Failed::Fatal(fatal)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Io(error)
    }
}

/// What a write makes durable when all goes well.
fn persisted_of(write: &Write) -> Option<Persisted> {
    match *write {
        Write::AcceptedEpoch(epoch) => Some(Persisted::AcceptedEpoch(epoch)),
        Write::CurrentEpoch(epoch) => Some(Persisted::CurrentEpoch(epoch)),
        Write::Truncate(to) => Some(Persisted::Truncated(to)),
        Write::SnapshotEnd(zxid) => Some(Persisted::Snapshot(zxid)),
        Write::Append(ref entry) => Some(Persisted::Log(entry.zxid)),
        Write::SnapshotBegin(_) | Write::SnapshotPiece(_) => None,
    }
}
