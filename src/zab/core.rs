//! What a peer keeps whatever its role: epochs, history, and how far the disk has come.

use super::history::{History, Keep};
use super::message::{Notification, Stance, Vote};
use super::plant::{Plant, Plants};
use super::quorum::Quorum;
use super::ready::{Entry, Fault, Persisted, Ready, Replay, Standing, Write};
use super::settings::{Boot, Settings};
use super::{Envelope, Message};
use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};
use std::sync::Arc;

/// The part of a peer that outlives its roles.
///
/// Positions, in the order that always holds:
/// `delivered ≤ committed`, `delivered ≤ history.last()`, `durable ≤ history.last()`.
#[derive(Clone, Hash)]
pub(super) struct Core {
    pub(super) settings: Settings,
    /// This server's clock, as of the input being handled.
    pub(super) now: Millis,
    /// The newest epoch promised, with its write at least queued.
    pub(super) accepted: Epoch,
    accepted_durable: Epoch,
    /// Whose epoch that is, if it was promised in this run: to that server, and to no other, the
    /// promise may be given again.
    pub(super) promised_to: Option<ServerId>,
    /// The newest epoch whose history is held, with its write at least queued.
    pub(super) current: Epoch,
    current_durable: Epoch,
    pub(super) history: History,
    /// The log is durable up to here, once no cut is under way.
    durable: Zxid,
    /// Cuts and snapshots handed out and not yet reported.
    replacing: u32,
    pub(super) committed: Zxid,
    pub(super) delivered: Zxid,
    /// The newest snapshot on this server's disk.
    pub(super) snapshot: Option<Zxid>,
    /// When the disk last made progress, while something is under way.
    busy_since: Option<Millis>,
    /// Servers the transport has a connection to.
    connected: Vec<ServerId>,
    /// A leader that fell silent, until it is heard again: an election need not wait for it.
    pub(super) silent: Option<ServerId>,
    /// Elections in a row that came to nothing.
    pub(super) failures: u32,
    /// Round of the election; counts up over the life of this run.
    pub(super) round: u64,
    /// Attempts to follow somebody; numbers the tenures of this run.
    pub(super) attempts: u64,
    pub(super) nonce: u64,
    pub(super) ready: Ready,
    pub(super) fault: Option<Fault>,
}

impl Core {
    pub(super) fn new(settings: Settings, boot: Boot) -> Core {
        let history = History::new(&boot.history);
        let last = history.last();
        assert!(
            boot.accepted_epoch >= boot.current_epoch,
            "Z12: accepted {} < current {}",
            boot.accepted_epoch,
            boot.current_epoch
        );
        assert!(
            boot.accepted_epoch >= last.epoch,
            "Z12: accepted {} < logged {last}",
            boot.accepted_epoch
        );
        assert!(
            boot.delivered <= last,
            "delivered {} beyond {last}",
            boot.delivered
        );
        assert!(
            settings.ensemble.contains(settings.id),
            "server {} is not of the ensemble",
            settings.id
        );
        let boot_commits = settings.plants.has(Plant::BootIsCommitted);
        Core {
            now: Millis(0),
            accepted: boot.accepted_epoch,
            accepted_durable: boot.accepted_epoch,
            promised_to: None,
            current: boot.current_epoch,
            current_durable: boot.current_epoch,
            history,
            durable: last,
            replacing: 0,
            committed: if boot_commits { last } else { boot.delivered },
            delivered: boot.delivered,
            snapshot: boot.snapshot,
            busy_since: None,
            connected: Vec::new(),
            silent: None,
            failures: 0,
            round: 0,
            attempts: 0,
            nonce: boot.nonce,
            ready: Ready::default(),
            fault: None,
            settings,
        }
    }

    pub(super) fn id(&self) -> ServerId {
        self.settings.id
    }

    pub(super) fn plants(&self) -> Plants {
        self.settings.plants
    }

    pub(super) fn quorum(&self) -> Quorum<'_> {
        Quorum::of(&self.settings.ensemble, self.settings.plants)
    }

    /// True if this server votes.
    pub(super) fn votes(&self) -> bool {
        self.settings.ensemble.votes(self.settings.id)
    }

    /// True if this server knows what it has acknowledged before: its disk is neither new nor
    /// wiped nor set aside as damaged.
    pub(super) fn holds_data(&self) -> bool {
        self.current_durable > Epoch(0) || self.plants().has(Plant::BlankVotes)
    }

    /// The vote of this server for itself.
    pub(super) fn own_vote(&self) -> Vote {
        Vote {
            epoch: self.current,
            zxid: self.history.last(),
            leader: self.id(),
        }
    }

    /// What this server says of itself.
    pub(super) fn notification(&self, stance: Stance, vote: Vote) -> Message {
        Message::Vote(Notification {
            stance,
            round: self.round,
            vote,
            holds_data: self.holds_data(),
            ensemble: self.settings.ensemble.version(),
        })
    }

    pub(super) fn send(&mut self, to: ServerId, message: Message) {
        self.ready.messages.push(Envelope { to, message });
    }

    /// Sends `message` to every other server.
    pub(super) fn send_all(&mut self, message: &Message) {
        for to in self.settings.ensemble.others(self.settings.id) {
            let message = message.clone();
            self.ready.messages.push(Envelope { to, message });
        }
    }

    pub(super) fn is_connected(&self, peer: ServerId) -> bool {
        self.connected.contains(&peer) && self.silent != Some(peer)
    }

    pub(super) fn set_connected(&mut self, peer: ServerId, connected: bool) {
        self.connected.retain(|&other| other != peer);
        if connected && self.settings.ensemble.contains(peer) {
            self.connected.push(peer);
        }
    }

    /// Promises to follow `leader` into `epoch`; the promise holds once [`Core::has_accepted`] it.
    pub(super) fn accept(&mut self, epoch: Epoch, leader: ServerId) {
        assert!(
            epoch > self.accepted,
            "accepts {epoch} after {}",
            self.accepted
        );
        self.accepted = epoch;
        self.promised_to = Some(leader);
        self.write(Write::AcceptedEpoch(epoch));
    }

    /// Takes over the history of `epoch`; done once [`Core::has_entered`] it.
    pub(super) fn enter(&mut self, epoch: Epoch) {
        assert!(
            epoch <= self.accepted,
            "enters {epoch} above {}",
            self.accepted
        );
        assert!(
            epoch >= self.current,
            "enters {epoch} below {}",
            self.current
        );
        self.current = epoch;
        self.write(Write::CurrentEpoch(epoch));
    }

    /// True if the accepted epoch is `epoch`, durably.
    pub(super) fn has_accepted(&self, epoch: Epoch) -> bool {
        self.accepted == epoch && self.accepted_durable == epoch
    }

    /// True if the current epoch is `epoch`, durably.
    pub(super) fn has_entered(&self, epoch: Epoch) -> bool {
        self.current == epoch && self.current_durable == epoch
    }

    /// The log could not be read behind `zxid`: trimmed meanwhile, or damaged where a start does
    /// not look because a snapshot covers it. From now on it begins after that snapshot, so that
    /// the next learner is sent that, and not for ever what cannot be read.
    pub(super) fn log_is_unreadable_after(&mut self, zxid: Zxid) {
        let snapshot = self.snapshot.filter(|&snapshot| snapshot > zxid);
        if let Some(snapshot) = snapshot.filter(|&snapshot| self.history.contains(snapshot)) {
            self.history.trim(snapshot);
        }
    }

    pub(super) fn append(&mut self, entry: Entry) {
        self.history.push(entry.clone());
        self.write(Write::Append(entry));
    }

    pub(super) fn truncate(&mut self, to: Zxid) {
        self.history.truncate(to);
        self.durable = self.durable.min(to);
        self.replacing += 1;
        self.write(Write::Truncate(to));
    }

    /// The snapshot received as of `zxid` is whole and takes the place of the history.
    pub(super) fn install(&mut self, zxid: Zxid) {
        self.history.reset(zxid);
        self.durable = self.durable.min(zxid);
        self.committed = zxid;
        self.delivered = zxid;
        if !self.plants().has(Plant::ForgetsInstalled) {
            self.snapshot = Some(zxid);
        }
        self.replacing += 1;
        self.write(Write::SnapshotEnd(zxid));
    }

    pub(super) fn write(&mut self, write: Write) {
        // Parts of a snapshot are not reported, only its end: one that is given up would leave
        // the disk busy for ever.
        if !matches!(write, Write::SnapshotBegin(_) | Write::SnapshotPiece(_)) {
            self.busy_since.get_or_insert(self.now);
        }
        self.ready.writes.push(write);
    }

    /// Takes note of what would survive a loss of power.
    pub(super) fn on_persisted(&mut self, persisted: Persisted) {
        match persisted {
            Persisted::AcceptedEpoch(epoch) => {
                assert!(epoch <= self.accepted, "{epoch} was never accepted");
                self.accepted_durable = epoch.max(self.accepted_durable);
            }
            Persisted::CurrentEpoch(epoch) => {
                assert!(epoch <= self.current, "{epoch} was never entered");
                self.current_durable = epoch.max(self.current_durable);
            }
            Persisted::Truncated(_) => self.replaced(),
            Persisted::Snapshot(zxid) => {
                self.replaced();
                self.raise_durable(zxid);
            }
            Persisted::Log(zxid) => self.raise_durable(zxid),
        }
        self.busy_since = self.is_writing().then_some(self.now);
    }

    fn replaced(&mut self) {
        assert!(
            self.replacing > 0,
            "a cut was reported that was not asked for"
        );
        self.replacing -= 1;
    }

    fn raise_durable(&mut self, zxid: Zxid) {
        // A report from before a cut speaks of what is gone, however durable it was.
        if zxid <= self.history.last() || self.plants().has(Plant::StaleDiskReport) {
            self.durable = zxid.max(self.durable);
        }
    }

    /// The log is durable up to here: what this server may acknowledge.
    pub(super) fn durable(&self) -> Zxid {
        self.durable
    }

    /// True if the history is on disk up to `zxid`, in the form it has now.
    pub(super) fn is_durable(&self, zxid: Zxid) -> bool {
        self.replacing == 0 && self.durable >= zxid
    }

    fn is_writing(&self) -> bool {
        self.durable < self.history.last()
            || self.replacing > 0
            || self.accepted_durable < self.accepted
            || self.current_durable < self.current
    }

    /// True if writes are under way and none has finished for too long.
    pub(super) fn disk_is_stuck(&self) -> bool {
        let limit = self.settings.timing.disk_limit;
        let stuck = self
            .busy_since
            .is_some_and(|since| self.now.since(since) > limit);
        stuck && !self.plants().has(Plant::IgnoresStuckDisk)
    }

    /// When [`Core::disk_is_stuck`] becomes true, unless a write finishes.
    pub(super) fn disk_deadline(&self) -> Option<Millis> {
        let limit = self.settings.timing.disk_limit;
        self.busy_since.map(|since| since + limit + Millis(1))
    }

    /// Hands what is committed and held to the application, in order.
    pub(super) fn deliver(&mut self) {
        let upto = self.committed.min(self.history.last());
        if self.delivered >= upto {
            return;
        }
        if self.delivered < self.history.window_after() {
            let replayed = upto.min(self.history.window_after());
            assert!(
                self.ready.deliver.is_empty(),
                "memory does not shrink while a Ready gathers"
            );
            let after = self
                .ready
                .replay
                .map_or(self.delivered, |replay| replay.after);
            self.ready.replay = Some(Replay {
                after,
                upto: replayed,
            });
            self.delivered = replayed;
        }
        if let Some(entries) = self.history.range(self.delivered, upto) {
            self.ready.deliver.extend(entries.cloned());
        }
        self.delivered = upto;
    }

    /// Forgets what memory need not hold. Only between two Ready: a delivery under way must not
    /// lose its entries.
    ///
    /// A server that is its whole ensemble keeps nothing for learners, for there are none.
    pub(super) fn shrink(&mut self) {
        let limits = &self.settings.limits;
        let (entries, bytes) = match self.settings.ensemble.others(self.id()).next() {
            None => (0, 0),
            Some(_) => (limits.window_entries_max, limits.window_bytes_max),
        };
        let keep = Keep {
            entries,
            bytes,
            open_entries: limits.in_flight_max,
            open_bytes: limits.in_flight_bytes_max,
        };
        self.history.shrink(self.delivered, keep);
    }

    pub(super) fn stand(&mut self, standing: Standing) {
        self.ready.standing = Some(standing);
    }

    pub(super) fn receive(&mut self, from: ServerId, payload: Arc<[u8]>) {
        self.ready.payloads.push((from, payload));
    }

    /// Withdraws for good.
    pub(super) fn fence(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}
