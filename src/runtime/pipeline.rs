//! The Zab core's loop: questions in, log and broadcast in the middle, answers out.
//!
//! ```text
//! inbox ─▶ Replica::ask ─▶ Ready ─▶ Log::append ─▶ fdatasync in the ring ─┐
//!            ▲                                                            │
//!            └── next batch gathers meanwhile        Synced in the inbox ◀┘
//!                                                        │
//! shards ◀── tells ◀── Replica::deliver ◀── committed ◀──┘
//! ```
//!
//! One sync is out at a time and what comes in meanwhile goes into the next, so the syncs
//! group themselves: the slower the disk, the larger the batches. Everything the loop waits
//! for comes through the one inbox: questions, finished syncs, finished snapshots.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use flume::{Receiver, Sender};
use glommio::io::BufferedFile;
use glommio::{GlommioError, spawn_local};

use super::mailbox::MailSender;
use crate::group::Snapshot;
use crate::log::{FileDisk, FileFlush, FileLog, LogError, SnapshotWriter, SyncTicket};
use crate::mail::{Ask, Mail, ShardIndex, Tell};
use crate::metrics::{CoreCounters, Latency};
use crate::replica::Replica;
use crate::zab::{Persisted, Ready, Write};

use super::clock;

/// What the core's inbox takes.
pub enum ToCore {
    /// Questions of a shard.
    Asks(ShardIndex, Vec<Ask>),
    /// A sync has ended.
    Synced(SyncTicket<FileFlush>, io::Result<()>),
    /// A snapshot is complete, or has failed.
    Snapshot(io::Result<u64>),
    /// Turn, and nothing else: from the watchdog.
    Nudge,
    /// Sync, close the log, and end.
    Stop,
}

/// Why the core ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CoreFailure(String);

/// Limits of the loop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages taken from the inbox before what they ask for is appended and synced.
    pub batch_max: usize,
    /// Bytes logged that call for a snapshot.
    pub snapshot_log_bytes: u64,
    /// Snapshots kept.
    pub snapshots_kept: usize,
}

/// The core: the replica, its log, and the ways to the shards.
pub struct Pipeline {
    replica: Replica,
    log: FileLog,
    inbox: Receiver<ToCore>,
    /// For the tasks and threads that report back.
    reports: Sender<ToCore>,
    shards: Vec<MailSender<Mail>>,
    limits: Limits,
    counters: Arc<CoreCounters>,
    sync_latency: Latency,
    files: Files,
    sync_began_ns: u64,
    /// Bytes of transactions since the last snapshot, replayed ones included.
    logged_bytes: u64,
    /// What the last snapshot took.
    snapshot_bytes: u64,
    snapshot_under_way: bool,
    ready: Ready,
}

impl Pipeline {
    /// Puts the parts together; nothing is written yet.
    #[expect(clippy::too_many_arguments, reason = "the parts of one loop")]
    #[must_use]
    pub fn new(
        replica: Replica,
        log: FileLog,
        inbox: Receiver<ToCore>,
        reports: Sender<ToCore>,
        shards: Vec<MailSender<Mail>>,
        limits: Limits,
        counters: Arc<CoreCounters>,
        sync_latency: Latency,
        replayed_bytes: u64,
    ) -> Pipeline {
        Pipeline {
            replica,
            log,
            inbox,
            reports,
            shards,
            limits,
            counters,
            sync_latency,
            files: Files::default(),
            sync_began_ns: 0,
            logged_bytes: replayed_bytes,
            snapshot_bytes: 0,
            snapshot_under_way: false,
            ready: Ready::default(),
        }
    }

    /// Runs until told to stop; `on_serving` is called once, when the server may serve.
    ///
    /// # Errors
    /// The first failed write or sync, or a transaction that cannot be read: nothing is
    /// acknowledged after that, and the process must end.
    pub async fn run(mut self, on_serving: impl FnOnce()) -> Result<(), CoreFailure> {
        let mut on_serving = Some(on_serving);
        self.replica.start(clock::now());
        let mut stopping = false;
        loop {
            self.settle()?;
            self.begin_sync();
            self.prepare_segment();
            self.begin_snapshot();
            self.carry().await;
            if self.replica.is_serving()
                && let Some(on_serving) = on_serving.take()
            {
                on_serving();
            }
            self.counters.turns.add(1);
            if stopping && !self.replica.has_in_flight() && !self.log.is_syncing() {
                return self.log.close().map_err(failure);
            }
            // The sender in `reports` keeps the channel open, so this only ends by a message.
            let Ok(first) = self.inbox.recv_async().await else {
                return Ok(());
            };
            stopping |= self.take(first)?;
            for _ in 1..self.limits.batch_max {
                let Ok(next) = self.inbox.try_recv() else {
                    break;
                };
                stopping |= self.take(next)?;
            }
        }
    }

    /// Takes in one message; true if it says stop.
    fn take(&mut self, message: ToCore) -> Result<bool, CoreFailure> {
        match message {
            ToCore::Asks(shard, asks) => {
                let now = clock::now();
                for ask in asks {
                    self.replica.ask(now, shard, ask);
                }
            }
            ToCore::Synced(ticket, result) => {
                let took_ns = clock::now_ns() - self.sync_began_ns;
                self.sync_latency.record(took_ns, 1);
                let durable = self.log.end_sync(ticket, result).map_err(failure)?;
                self.counters.syncs.add(1);
                let now = clock::now();
                self.replica.on_persisted(now, Persisted::Log(durable));
            }
            ToCore::Snapshot(result) => self.on_snapshot(result),
            ToCore::Nudge => self.sync_latency.publish(),
            ToCore::Stop => return Ok(true),
        }
        Ok(false)
    }

    /// A snapshot is complete, so what is older may go; or it failed, which loses nothing: the
    /// log still holds what it would have, and the next one is tried after as many bytes.
    fn on_snapshot(&mut self, result: io::Result<u64>) {
        self.snapshot_under_way = false;
        match result {
            Ok(bytes) => self.snapshot_bytes = bytes,
            Err(error) => {
                tracing::warn!("could not write a snapshot: {error}; the log is kept instead");
                return;
            }
        }
        self.counters.snapshots.add(1);
        match self.log.trim_job(self.limits.snapshots_kept) {
            Ok(job) => self.on_thread("trim", move || {
                if let Err(error) = job.run() {
                    tracing::warn!("could not remove old log segments: {error}");
                }
            }),
            Err(error) => tracing::warn!("could not look for old log segments: {error}"),
        }
    }

    /// Runs what blocks on a thread of its own. If none is to be had the work is left undone,
    /// which every caller can afford.
    fn on_thread(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
            tracing::warn!("could not start the {name} thread: {error}");
        }
    }

    /// Does what the replica asks for until it asks for nothing more.
    fn settle(&mut self) -> Result<(), CoreFailure> {
        loop {
            let mut ready = std::mem::take(&mut self.ready);
            self.replica.ready(&mut ready);
            if ready.is_empty() {
                self.ready = ready;
                return Ok(());
            }
            for write in &ready.writes {
                self.write(write)?;
            }
            self.replica.deliver(&ready.deliver).map_err(|corrupt| {
                CoreFailure(format!(
                    "a committed transaction cannot be applied: {corrupt}"
                ))
            })?;
            if let Some(standing) = &ready.standing {
                self.replica.on_standing(clock::now(), standing);
            }
            self.ready = ready;
        }
    }

    /// Makes one write; those that are durable at once are reported at once.
    fn write(&mut self, write: &Write) -> Result<(), CoreFailure> {
        let persisted = match write {
            Write::Append(entry) => {
                self.logged_bytes += entry.payload.len() as u64;
                let appended = self.log.append(entry.zxid, &entry.payload);
                return appended.map_err(failure);
            }
            Write::AcceptedEpoch(epoch) => {
                self.log.set_accepted_epoch(*epoch).map_err(failure)?;
                Persisted::AcceptedEpoch(*epoch)
            }
            Write::CurrentEpoch(epoch) => {
                self.log.set_current_epoch(*epoch).map_err(failure)?;
                Persisted::CurrentEpoch(*epoch)
            }
            // Only a leader asks for these, and an ensemble of one has none to ask. What cuts
            // or replaces the log waits for the ticket that is out, which the log demands: so a
            // segment is never removed from under `sync_all`, which opens it by its path.
            Write::Truncate(_)
            | Write::SnapshotBegin(_)
            | Write::SnapshotPiece(_)
            | Write::SnapshotEnd(_) => {
                return Err(CoreFailure("an ensemble of one was told to follow".into()));
            }
        };
        self.replica.on_persisted(clock::now(), persisted);
        Ok(())
    }

    /// Starts a sync of what has been appended, unless one is out.
    fn begin_sync(&mut self) {
        let Some(ticket) = self.log.begin_sync() else {
            return;
        };
        self.sync_began_ns = clock::now_ns();
        let (files, reports) = (Rc::clone(&self.files), self.reports.clone());
        spawn_local(async move {
            let result = sync_all(&files, &ticket).await;
            let _ = reports.send_async(ToCore::Synced(ticket, result)).await;
        })
        .detach();
    }

    /// Has the next segment made on a thread of its own, ahead of its use.
    fn prepare_segment(&mut self) {
        if let Some(job) = self.log.prepare_job() {
            self.on_thread("segment", move || {
                // Whatever goes wrong shows when the segment is needed, and is told then.
                let _ = job.run();
            });
        }
    }

    /// Begins a snapshot if enough has been logged since the last.
    fn begin_snapshot(&mut self) {
        // As many bytes as the last snapshot took, so that they cost no more than the log does.
        let due_bytes = self.limits.snapshot_log_bytes.max(self.snapshot_bytes);
        if self.snapshot_under_way || self.logged_bytes < due_bytes {
            return;
        }
        self.logged_bytes = 0;
        self.snapshot_under_way = true;
        let snapshot = self.replica.state().snapshot();
        let writer = match self.log.snapshot_writer(snapshot.applied()) {
            Ok(writer) => writer,
            Err(error) => return self.on_snapshot(Err(error)),
        };
        let reports = self.reports.clone();
        let work = move || {
            let _ = reports.send(ToCore::Snapshot(write_snapshot(snapshot, writer)));
        };
        if let Err(error) = thread::Builder::new().name("snapshot".into()).spawn(work) {
            self.on_snapshot(Err(error));
        }
    }

    /// Sends each shard what it is to be told.
    async fn carry(&mut self) {
        for index in 0..self.shards.len() {
            let tells: Vec<Tell> = std::mem::take(&mut self.replica.tells()[index]);
            if !tells.is_empty() {
                self.shards[index].send(Mail::Core(tells)).await;
            }
        }
    }
}

/// Syncs the segments of `ticket` through the ring, keeping their descriptors for the next
/// sync and letting go of those it does without.
async fn sync_all(files: &Files, ticket: &SyncTicket<FileFlush>) -> io::Result<()> {
    let mut used = HashMap::new();
    for flush in &ticket.flushes {
        let path = Arc::clone(flush.path());
        let known = files.borrow().get(&path).cloned();
        let file = match known {
            Some(file) => file,
            // A descriptor to sync with needs no right to write.
            None => Rc::new(BufferedFile::open(&*path).await.map_err(plain)?),
        };
        file.fdatasync().await.map_err(plain)?;
        used.insert(path, file);
    }
    files.replace(used);
    Ok(())
}

/// The system's error without what glommio knows of the operation: the log says, in a
/// sentence, what was being done.
fn plain(error: GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.into(),
    }
}

/// Segments open for syncing, by path: the one in use, and perhaps the one before.
type Files = Rc<RefCell<HashMap<Arc<Path>, Rc<BufferedFile>>>>;

/// Streams a snapshot to disk, yielding the core to whoever serves clients.
fn write_snapshot(mut snapshot: Snapshot, mut writer: SnapshotWriter<FileDisk>) -> io::Result<u64> {
    // On Linux this is the thread's own. If it is refused the snapshot is merely less polite.
    let _ = rustix::process::nice(SNAPSHOT_NICE);
    let mut piece = Vec::with_capacity(SNAPSHOT_PIECE_BYTES + SNAPSHOT_PIECE_BYTES / 2);
    loop {
        piece.clear();
        let more = snapshot.write_into(&mut piece, SNAPSHOT_PIECE_BYTES);
        writer.write_all(&piece)?;
        if !more {
            return writer.finish();
        }
    }
}

fn failure(error: impl Into<LogError>) -> CoreFailure {
    CoreFailure(error.into().to_string())
}

/// The least pressing a thread can be.
const SNAPSHOT_NICE: i32 = 19;
/// Bytes of a snapshot written at a time.
const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;
