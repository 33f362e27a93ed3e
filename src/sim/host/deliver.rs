//! What the application is given: commits, replays, barriers and messages.

use std::sync::Arc;

use super::super::observe::Observation;
use super::super::plants::HostPlant;
use super::super::probes::Probe;
use super::super::stage::Stage;
use super::{Host, Server};
use crate::types::Zxid;
use crate::zab::{Barrier, Entry, Ready, Replay};

/// Something the application is to be given, in its turn.
pub(super) enum Waiting {
    /// A part of the log, once so many writes have been made.
    Replay(Replay, u64),
    /// A transaction.
    Entry(Entry),
    /// A barrier has passed.
    Barrier(Barrier),
}

impl Host {
    /// Queues what a [`Ready`] gives to the application.
    pub(super) fn take_deliveries(&mut self, ready: &mut Ready) {
        let Some(server) = &mut self.server else {
            return;
        };
        let waiting = &mut server.waiting;
        if let Some(replay) = ready.replay {
            waiting.push_back(Waiting::Replay(replay, server.asked));
        }
        waiting.extend(ready.deliver.drain(..).map(Waiting::Entry));
        waiting.extend(ready.barriers.drain(..).map(Waiting::Barrier));
    }

    /// Gives the application what is its turn.
    pub(super) fn pump(&mut self, stage: &mut Stage) {
        loop {
            let Some(server) = &mut self.server else {
                return;
            };
            match server.waiting.pop_front() {
                None => return self.snapshot_if_due(stage),
                Some(Waiting::Entry(entry)) => self.deliver(stage, entry.zxid, &entry.payload),
                Some(Waiting::Barrier(barrier)) => self.pass(stage, barrier),
                Some(Waiting::Replay(replay, after)) => {
                    let soon = stage.planted.has(HostPlant::ReplaysTooSoon);
                    if server.made < after && !soon {
                        server.waiting.push_front(Waiting::Replay(replay, after));
                        return;
                    }
                    self.replay(stage, replay);
                }
            }
        }
    }

    /// Gives the application one transaction.
    fn deliver(&mut self, stage: &mut Stage, zxid: Zxid, payload: &[u8]) {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return;
        };
        let times = match stage.planted.host {
            Some(HostPlant::DeliversTwice) if stage.random.chance(1_000) => 2,
            Some(HostPlant::SkipsDelivery) if stage.random.chance(1_000) => 0,
            _ => 1,
        };
        for _ in 0..times {
            let hash = server.app.apply(zxid, payload);
            stage.see(Observation::Delivered {
                server: id,
                zxid,
                hash,
                digest: server.app.digest,
            });
            let right = stage.judge.oracle.delivered(&server.app, zxid, payload);
            stage.judge.check(stage.now, right);
        }
        // The leader that proposed it has it applied, so the client is told.
        if zxid.epoch == server.led {
            stage.judge.oracle.acknowledge(server.app.count);
        }
    }

    fn replay(&mut self, stage: &mut Stage, replay: Replay) {
        stage.probes.hit(Probe::ReplayedLog);
        let id = self.id();
        let Some(server) = &mut self.server else {
            return;
        };
        let entries = match server.log.entries_after(replay.after) {
            Ok(mut entries) => collect(&mut entries, replay.upto, usize::MAX),
            Err(error) => Err(error),
        };
        let complete = entries.as_ref().is_ok_and(|entries| {
            entries.last().map_or(replay.after, |entry| entry.zxid) == replay.upto
        });
        if self.disk.crashed() {
            // The power went while it read: nothing more comes of this run.
            server.waiting.clear();
            return;
        }
        if !complete {
            let what = format!("server {id} cannot replay {replay:?} from its log");
            stage.judge.condemn(stage.now, what);
        }
        for entry in entries.unwrap_or_default() {
            self.deliver(stage, entry.zxid, &entry.payload);
        }
    }

    fn pass(&mut self, stage: &mut Stage, barrier: Barrier) {
        let id = self.id();
        let Some(server) = &mut self.server else {
            return;
        };
        stage.probes.hit(Probe::BarrierPassed);
        if server.app.applied < barrier.zxid {
            let (zxid, applied) = (barrier.zxid, server.app.applied);
            let what = format!("a barrier at {zxid} passed at server {id}, which is at {applied}");
            stage.judge.condemn(stage.now, what);
        }
        let kept = stage.judge.oracle.passed(barrier.token, &server.app);
        stage.judge.check(stage.now, kept);
    }

    /// Requests that followers have sent on: the leader proposes them.
    pub(super) fn take_payloads(&mut self, stage: &mut Stage, ready: &mut Ready) {
        for (_, payload) in ready.payloads.drain(..) {
            if self.propose(stage, payload) {
                stage.probes.hit(Probe::ProposalForwarded);
            }
        }
    }

    /// Proposes a transaction here, if this server leads; true if it was taken.
    pub fn propose(&mut self, stage: &mut Stage, payload: Arc<[u8]>) -> bool {
        let now = self.time(stage);
        let id = self.id();
        let Some(server) = &mut self.server else {
            return false;
        };
        let hash = super::super::observe::hash_of(&payload);
        let proposed = server.peer.propose(now, payload);
        match proposed {
            Ok(zxid) => stage.see(Observation::Broadcast {
                server: id,
                zxid,
                hash,
            }),
            Err(_) => stage.probes.hit(Probe::ProposalRefused),
        }
        self.settle(stage);
        proposed.is_ok()
    }

    /// Answers the oldest read for a learner.
    pub(super) fn answer_read(&mut self, stage: &mut Stage) {
        let Some(server) = &mut self.server else {
            return;
        };
        let Some(read) = server.reads.pop_front() else {
            return;
        };
        let piece = super::snapshot::piece_of(&server.log, read.what, stage);
        self.input(stage, |peer, now| {
            peer.on_read(now, read.learner, read.tenure, piece);
        });
        if self.pauses == 0 && stage.planted.has(HostPlant::BlocksOnRead) {
            for event in std::mem::take(&mut self.deferred) {
                stage.queue.put(stage.now, event);
            }
        }
    }

    /// True if what comes has to wait, for this server is paused, or blocks by a plant.
    pub fn is_held_up(&self, stage: &Stage) -> bool {
        let blocks = stage.planted.has(HostPlant::BlocksOnRead);
        let reads = |server: &Server| !server.reads.is_empty();
        self.pauses > 0 || blocks && self.server.as_deref().is_some_and(reads)
    }
}

/// The entries up to `upto`, at least one and about `bytes_max` bytes in all.
pub(super) fn collect(
    entries: &mut crate::log::Entries<super::SimDisk>,
    upto: Zxid,
    bytes_max: usize,
) -> Result<Vec<Entry>, crate::log::ReadError> {
    let mut collected = Vec::new();
    let mut bytes = 0;
    while let Some(entry) = entries.next()? {
        if entry.zxid > upto {
            break;
        }
        bytes += entry.payload.len();
        collected.push(Entry {
            zxid: entry.zxid,
            payload: entry.payload.into(),
        });
        if bytes >= bytes_max || entry.zxid == upto {
            break;
        }
    }
    Ok(collected)
}
