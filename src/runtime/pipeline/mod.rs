//! The Zab core's loop: questions and messages in, log and broadcast in the middle, answers out.
//!
//! ```text
//! inbox ─▶ Replica ─▶ Output ─▶ messages ─▶ Transport ─▶ the other servers
//!   ▲                        └─▶ writes ─▶ Log::append ─▶ fdatasync on a thread ─┐
//!   ├── next batch gathers meanwhile                      Synced in the inbox ◀──┘
//!   └── frames of the other servers                           │
//! shards ◀── tells ◀── Replica ◀── what is committed ◀────────┘
//! ```
//!
//! One sync is out at a time and what comes in meanwhile goes into the next, so the syncs
//! group themselves: the slower the disk, the larger the batches. What is asked is carried out,
//! and what is durable is committed, in pieces, for a shard may wait for the same
//! processor. Everything the loop waits for comes through the one inbox: questions, frames, finished syncs and snapshots, what was
//! read, and the time.
//!
//! What blocks is done on threads: reading the log, for learners ([`read`]) and for this
//! server's own replica ([`replay`]), writing a snapshot ([`snapshot`]), making and removing
//! segments. Those threads run on any processor, the snapshot's only when it has nothing else
//! to do. Three things are not, because nothing could go on beside them: the epochs, a few
//! bytes at each change of leader; a cut of the log, and a snapshot that replaces it. These
//! happen while the server follows nobody, and others know it by that it is silent.

mod chronicle;
mod durable;
mod inbox;
mod read;
mod replay;
mod snapshot;
mod sync;
#[cfg(test)]
mod tests;
mod ticker;
mod write;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use flume::{Receiver, Sender};

use super::background::{self, Urgency};
use super::clock;
use super::courtesy::Courtesy;
use super::post::Post;
use super::transport::{self, PeerEvent, Transport};
use crate::group::State;
use crate::log::{FileFlush, FileLog, LogError, SyncTicket};
use crate::mail::{Ask, ShardIndex};
use crate::metrics::{CoreCounters, Latency};
use crate::replica::{Output, Replica};
use crate::time::Millis;
use crate::types::{ServerId, Zxid};
use crate::wire::Frame;
use crate::zab::{Piece, Read};

use chronicle::Chronicle;
use durable::Durable;
use inbox::Inbox;
use read::Reads;
use replay::{Replayed, Replays};
use snapshot::Snapshots;
use sync::Syncs;
use ticker::Ticker;
pub(super) use write::Chunks;
use write::Writes;

/// What the core's inbox takes.
pub enum ToCore {
    /// Questions of a shard.
    Asks(ShardIndex, Vec<Ask>),
    /// Something has happened on the way to another server.
    Peer(PeerEvent),
    /// A sync has ended.
    Synced(SyncTicket<FileFlush>, io::Result<()>),
    /// A snapshot as of this transaction is complete, so many bytes long, or has failed.
    Snapshot(Zxid, io::Result<u64>),
    /// What was read for a learner.
    Read(Read, Piece),
    /// Some of the log was read for this server's own replica.
    Replayed(Replayed),
    /// The replica wants to know the time.
    Tick,
    /// Turn, and nothing else: from the watchdog.
    Nudge,
    /// Sync, close the log, and end.
    Stop,
}

impl From<PeerEvent> for ToCore {
    fn from(event: PeerEvent) -> ToCore {
        ToCore::Peer(event)
    }
}

/// Why the core ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CoreFailure(String);

/// Limits of the loop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Questions and other messages taken from the inbox before what they ask for is appended
    /// and synced; the last message may bring more.
    pub batch_max: usize,
    /// How long more is waited for after the first question of a batch, if no sync is out.
    pub batch_window: Duration,
    /// Whether the executor looks at its rings before it sleeps.
    pub is_polling: bool,
    /// Bytes logged that call for a snapshot.
    pub snapshot_log_bytes: u64,
    /// Snapshots kept.
    pub snapshots_kept: usize,
}

/// The ways that lead out of the core.
pub struct Ways {
    /// What comes in.
    pub inbox: Receiver<ToCore>,
    /// For the tasks and threads that report back.
    pub reports: Sender<ToCore>,
    /// To the shards.
    pub post: Post,
    /// To the other servers; `None` if there are none.
    pub peers: Option<(transport::Settings, TcpListener)>,
}

/// The core: the replica, its log, and the ways to the shards and the other servers.
pub struct Pipeline {
    replica: Replica,
    log: FileLog,
    inbox: Inbox<ToCore>,
    ways: Ways,
    transport: Option<Transport>,
    limits: Limits,
    counters: Arc<CoreCounters>,
    syncs: Syncs,
    durable: Durable,
    courtesy: Courtesy,
    writes: Writes,
    reads: Reads,
    replays: Replays,
    snapshots: Snapshots,
    ticker: Ticker,
    chronicle: Chronicle,
    out: Output,
    /// When the loop ends at the latest, once it was told to stop.
    stops_at: Option<Millis>,
}

impl Pipeline {
    /// Puts the parts together; nothing is written yet.
    #[must_use]
    pub fn new(
        replica: Replica,
        log: FileLog,
        ways: Ways,
        limits: Limits,
        counters: Arc<CoreCounters>,
        sync_latency: Latency,
    ) -> Pipeline {
        Pipeline {
            replica,
            syncs: Syncs::new(sync_latency),
            durable: Durable::new(log.last()),
            courtesy: Courtesy::default(),
            writes: Writes::default(),
            reads: Reads::new(ways.reports.clone()),
            replays: Replays::new(ways.reports.clone(), log.last()),
            snapshots: Snapshots::default(),
            ticker: Ticker::default(),
            chronicle: Chronicle::default(),
            out: Output::default(),
            inbox: Inbox::new(ways.inbox.clone()),
            log,
            ways,
            transport: None,
            limits,
            counters,
            stops_at: None,
        }
    }

    /// Runs until told to stop; `on_serving` is called once, when the server may serve.
    ///
    /// # Errors
    /// The first failed write or sync, or what cannot be read back: nothing is acknowledged
    /// after that, and the process must end.
    pub async fn run(mut self, on_serving: impl FnOnce(&State)) -> Result<(), CoreFailure> {
        let mut on_serving = Some(on_serving);
        if let Some((settings, listener)) = self.ways.peers.take() {
            let started = Transport::start(&settings, listener, self.ways.reports.clone());
            let started = started.map_err(|error| {
                CoreFailure(format!(
                    "the port for other servers cannot be used: {error}"
                ))
            })?;
            self.transport = Some(started);
        }
        let started = self.syncs.start(self.ways.reports.clone());
        started.map_err(|error| {
            CoreFailure(format!(
                "the thread that syncs the log cannot be started: {error}"
            ))
        })?;
        self.ticker.start(self.ways.reports.clone());
        self.replica.start(clock::now());
        loop {
            self.go_on_replaying();
            self.settle()?;
            self.begin_sync();
            self.prepare_segment();
            self.begin_snapshot();
            self.carry().await;
            while self.report_durable() {
                self.settle()?;
                self.carry().await;
            }
            if self.replica.is_serving()
                && let Some(on_serving) = on_serving.take()
            {
                on_serving(self.replica.state());
            }
            self.counters.turns.add(1);
            self.counters.segments.set(self.log.segments() as u64);
            self.chronicle();
            if self.may_end() {
                return self.log.close().map_err(failure);
            }
            let deadline = self.deadline();
            self.ticker.arm(deadline);
            // Sockets of other servers would be waited for in the executor's rings.
            let is_alone = self.transport.is_none() && !self.limits.is_polling;
            let first = self.inbox.first(is_alone.then_some(deadline)).await;
            // The sender in `ways` keeps the channel open, so this only ends by a message.
            let Ok(first) = first else {
                return Ok(());
            };
            self.take_turn(first).await?;
        }
    }

    /// Takes in what has come, from `first` on. The first question of a turn, whatever came before
    /// it, waits for others if no sync is out.
    async fn take_turn(&mut self, first: ToCore) -> Result<(), CoreFailure> {
        let mut has_gathered = false;
        let (mut taken, mut next) = (0, Some(first));
        while let Some(message) = next {
            let asks = matches!(message, ToCore::Asks(..));
            if asks && !has_gathered && !self.log.is_syncing() {
                self.inbox.gather(self.limits.batch_window).await;
                has_gathered = true;
            }
            taken += self.take(message)?;
            next = match taken < self.limits.batch_max {
                true => self.inbox.next(),
                false => None,
            };
        }
        Ok(())
    }

    /// Takes in one message; says for how many it counts, which is one for each question.
    fn take(&mut self, message: ToCore) -> Result<usize, CoreFailure> {
        let now = clock::now();
        match message {
            ToCore::Asks(shard, asks) => {
                let count = asks.len();
                for (index, ask) in (1..).zip(asks) {
                    self.replica.ask(now, shard, ask);
                    if index % ASKS_A_PIECE == 0 {
                        // To carry out what was asked is most of the work.
                        self.settle()?;
                        self.courtesy.give_way_in_time();
                    }
                }
                return Ok(count);
            }
            ToCore::Peer(event) => self.on_peer(now, event),
            ToCore::Synced(ticket, result) => {
                let synced = self.end_sync(ticket, result)?;
                self.durable.synced(synced);
                self.report_durable();
                self.write_all()?;
            }
            ToCore::Snapshot(zxid, result) => self.on_snapshot(zxid, result),
            ToCore::Read(read, piece) => self.on_read(now, read, piece),
            ToCore::Replayed(replayed) => self.on_replayed(replayed)?,
            ToCore::Tick => self.replica.tick(now),
            ToCore::Nudge => self.syncs.publish(),
            ToCore::Stop => self.stops_at = Some(now + STOP_MAX),
        }
        Ok(1)
    }

    fn on_peer(&mut self, now: Millis, event: PeerEvent) {
        match event {
            PeerEvent::Connected(peer) => self.replica.on_connected(now, peer),
            PeerEvent::Disconnected(peer) => {
                self.reads.forget(peer);
                self.replica.on_disconnected(now, peer);
            }
            PeerEvent::Drained(peer) => self.on_drained(now, peer),
            PeerEvent::Frames(received) => {
                let from = received.from;
                for frame in received.frames {
                    self.on_frame(now, from, frame);
                }
            }
        }
    }

    fn on_frame(&mut self, now: Millis, from: ServerId, frame: Frame) {
        match frame {
            Frame::Zab(message) => self.replica.on_message(now, from, message),
            Frame::Forward(message) => self.replica.on_forward(now, from, message),
        }
    }

    /// Does what the replica asks for until it asks for nothing more.
    fn settle(&mut self) -> Result<(), CoreFailure> {
        loop {
            let mut out = std::mem::take(&mut self.out);
            self.replica.ready(&mut out);
            if out.is_empty() {
                self.out = out;
                return Ok(());
            }
            self.speak(&mut out);
            if let Some(sentence) = out.failure.take() {
                return Err(CoreFailure(sentence));
            }
            if let Some(fault) = out.fenced.take() {
                return Err(CoreFailure(format!(
                    "this server has withdrawn from the ensemble: {fault}"
                )));
            }
            self.writes.add(&mut out.writes);
            if let Some(replay) = out.replay.take() {
                self.replays.ask(replay, self.writes.asked());
            }
            self.write_all()?;
            for read in out.reads.drain(..) {
                self.read(read);
            }
            self.out = out;
        }
    }

    /// Sends what is to be said to other servers: before anything is written, since it waits
    /// for none of that.
    fn speak(&mut self, out: &mut Output) {
        let Some(transport) = &self.transport else {
            return;
        };
        for envelope in out.messages.drain(..) {
            transport.send_zab(envelope.to, &envelope.message);
        }
        for (to, message) in out.forwards.drain(..) {
            transport.send_forward(to, &message);
        }
    }

    /// Sends each shard what it is to be told, and lets it have the processor if it wants that:
    /// who was woken here would wait until this executor has put itself to rest.
    async fn carry(&mut self) {
        let more = self.durable.goes_on();
        let told = self.ways.post.carry(self.replica.tells(), more).await;
        self.durable.done(clock::now_ns());
        if told || more {
            self.courtesy.give_way_in_time();
        }
    }

    /// Tells of a change of standing. A server alone has none worth telling.
    fn chronicle(&mut self) {
        if self.transport.is_none() {
            return;
        }
        let (standing, until) = (self.replica.standing(), self.replica.lease_until());
        if let Some(said) = self.chronicle.note(standing, until, clock::now()) {
            tracing::info!("{said}");
        }
    }

    fn deadline(&self) -> Millis {
        let snapshot = self.snapshots.deadline(self.limits.snapshot_log_bytes);
        let deadline = self.replica.deadline().min(snapshot);
        self.stops_at.map_or(deadline, |at| deadline.min(at))
    }

    /// True if the loop was told to stop, and nothing is left to be waited for.
    fn may_end(&self) -> bool {
        let Some(at) = self.stops_at else {
            return false;
        };
        // Clients have had their answers by now. What else is under way may have no leader to
        // end it and is not waited for long: it is durable or not, and whoever has asked will
        // know. A sync that is out always comes back.
        let quiet = !self.replica.has_in_flight() && self.writes.is_empty();
        !self.log.is_syncing() && (quiet || clock::now() >= at)
    }

    /// Takes note that a write or sync has failed, in words.
    fn failed(&mut self, error: impl Into<LogError>) -> CoreFailure {
        self.replica.on_write_failed();
        failure(error)
    }
}

/// Runs what blocks on a thread of its own. If none is to be had the work is left undone,
/// which every caller can afford.
fn on_thread(name: &str, urgency: Urgency, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = background::spawn(name, urgency, work) {
        tracing::warn!("could not start the {name} thread: {error}");
    }
}

fn failure(error: impl Into<LogError>) -> CoreFailure {
    CoreFailure(error.into().to_string())
}

/// Questions taken before what they ask for is done: some 0.1 ms.
const ASKS_A_PIECE: usize = 32;
/// How long a server that was told to stop waits for what is under way.
const STOP_MAX: Millis = Millis(1_000);
