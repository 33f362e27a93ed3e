//! What a script can do to its servers besides the ordinary: single writes, messages out of
//! their place, reads that wait, disks that fail, hosts that neglect their duty.

use std::collections::VecDeque;

use super::{Ensemble, Past};
use crate::sim::disk::{Plan, SimDisk};
use crate::types::{ServerId, Zxid};
use crate::zab::{Body, Entry, Fault, Message, Persisted, Phase, ProposeError, Standing, Write};

/// Says of a message, by sender and receiver, whether it stays under way.
pub type Withhold = fn(u32, u32, &Message) -> bool;

/// A duty of the host, which is around the core and the log, that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neglect {
    /// Appends are reported durable when they are written, before they are synced.
    ReportsBeforeSync,
    /// A failed write or sync is reported as if it had been made.
    ForgetsFailure,
    /// Pieces of a snapshot replace the application's state as they come.
    RestoresEarly,
    /// A snapshot holds what was delivered since it began.
    SnapshotsLate,
    /// Nothing is handed to the core while a read of the disk is under way.
    BlocksOnRead,
    /// A damaged log is cut where the damage is, and the server votes with the rest.
    CutsDamage,
    /// Every run of a server draws the same number at its start.
    SameNonce,
}

impl Neglect {
    /// All of them.
    pub const ALL: &[Neglect] = &[
        Neglect::ReportsBeforeSync,
        Neglect::ForgetsFailure,
        Neglect::RestoresEarly,
        Neglect::SnapshotsLate,
        Neglect::BlocksOnRead,
        Neglect::CutsDamage,
        Neglect::SameNonce,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Neglect::ReportsBeforeSync => "script-reports-before-sync",
            Neglect::ForgetsFailure => "script-forgets-failure",
            Neglect::RestoresEarly => "script-restores-early",
            Neglect::SnapshotsLate => "script-snapshots-late",
            Neglect::BlocksOnRead => "script-blocks-on-read",
            Neglect::CutsDamage => "script-cuts-damage",
            Neglect::SameNonce => "script-same-nonce",
        }
    }
}

impl Ensemble {
    /// With hosts that neglect a duty.
    #[must_use]
    pub fn neglect(mut self, neglect: Option<Neglect>) -> Ensemble {
        self.neglect = neglect;
        self
    }

    /// True if this duty is neglected.
    #[must_use]
    pub fn neglects(&self, neglect: Neglect) -> bool {
        self.neglect == Some(neglect)
    }

    /// All of this past is committed: nobody may ever deliver anything else in its place.
    pub fn committed(&mut self, past: &Past) {
        self.ghost.agree(past.entries());
    }

    /// All that was ever delivered, or was committed from the beginning, as text.
    #[must_use]
    pub fn agreed(&self) -> Vec<String> {
        let text = |entry: &Entry| String::from_utf8_lossy(&entry.payload).into_owned();
        self.ghost.agreed().iter().map(text).collect()
    }

    /// Gives a server that is not running this disk.
    ///
    /// # Panics
    /// If it runs.
    pub fn equip(&mut self, id: u32, disk: SimDisk) {
        assert!(self.server(id).peer.is_none(), "{id} runs");
        self.server(id).disk = disk;
    }

    /// Power is lost, and the disk comes back with `plan`.
    pub fn crash_into(&mut self, id: u32, plan: Plan) {
        self.note(&format!("{id} crashes"));
        let disk = self.server(id).disk.power_cycle(plan);
        self.stop(id, disk);
    }

    /// True if the server runs.
    #[must_use]
    pub fn runs(&self, id: u32) -> bool {
        self.servers[&id].peer.is_some()
    }

    /// True if the server runs and says that it leads an epoch, established.
    #[must_use]
    pub fn leads(&self, id: u32) -> bool {
        let peer = self.servers[&id].peer.as_ref();
        peer.is_some_and(|peer| peer.phase() == Phase::Leading)
    }

    /// True if the server has been without a leader since it first had one in this run.
    #[must_use]
    pub fn started_over(&self, id: u32) -> bool {
        self.servers[&id].standings.contains(&Standing::Recovering)
    }

    /// Makes the oldest write queued at `id`, which is reported if that needs no sync; false if
    /// there is none.
    pub fn write_one(&mut self, id: u32) -> bool {
        let Some(write) = self.server(id).writes.pop_front() else {
            return false;
        };
        let claimed = claim(&write);
        let appends = matches!(write, Write::Append(_));
        let piece = matches!(write, Write::SnapshotPiece(_));
        let mut made = self.server(id).make(write);
        if piece && self.neglects(Neglect::RestoresEarly) {
            self.server(id).restore();
        }
        if appends && made.is_ok() && self.neglects(Neglect::ReportsBeforeSync) {
            made = Ok(claimed);
        }
        self.report(id, made, claimed);
        true
    }

    /// Answers the oldest read that waits at `id`; false if there is none.
    pub fn answer(&mut self, id: u32) -> bool {
        let Some(read) = self.server(id).reads.pop_front() else {
            return false;
        };
        let piece = self.server(id).read(read.what);
        let now = self.now;
        self.peer(id).on_read(now, read.learner, read.tenure, piece);
        self.take(id);
        true
    }

    /// The state of `id` as of the last transaction delivered that is durable, for a snapshot.
    pub fn snapshot_begun(&mut self, id: u32) -> (Zxid, Vec<Entry>) {
        self.sync(id);
        let zxid = self.peer(id).delivered();
        self.note(&format!("{id} takes a snapshot as of {zxid}"));
        (zxid, self.server(id).delivered.clone())
    }

    /// The snapshot is written, and the log trimmed.
    pub fn snapshot_done(&mut self, id: u32, zxid: Zxid, state: &[Entry]) {
        let late = self.server(id).delivered.clone();
        let neglects = self.neglects(Neglect::SnapshotsLate);
        let state = if neglects { &late } else { state };
        match self.server(id).snapshot(zxid, state) {
            Ok(begins_after) => {
                self.peer(id).on_snapshot_taken(zxid);
                self.peer(id).on_trimmed(begins_after);
            }
            Err(error) => self.problems.push(format!("server {id}: {error}")),
        }
    }

    /// Tells the peer of a write that was made at some other time.
    pub fn report_late(&mut self, id: u32, persisted: Persisted) {
        self.note(&format!("{id} hears late of {persisted:?}"));
        let now = self.now;
        self.peer(id).on_persisted(now, persisted);
        self.take(id);
    }

    /// Gives a message to a server as if it had just come.
    pub fn hear(&mut self, from: u32, to: u32, message: Message) {
        if self.server(to).peer.is_none() {
            return;
        }
        let line = format!("{from} → {to}  {}", super::trace::describe(&message));
        self.note(&line);
        let now = self.now;
        self.peer(to).on_message(now, ServerId(from), message);
        self.take(to);
    }

    /// What is under way from one server to another, oldest first.
    pub fn wire(&mut self, from: u32, to: u32) -> &mut VecDeque<Message> {
        self.wires.entry((from, to)).or_default()
    }

    /// Asks `id` for a barrier.
    ///
    /// # Errors
    /// What the peer says.
    pub fn barrier(&mut self, id: u32, token: u64) -> Result<(), ProposeError> {
        let now = self.now;
        let asked = self.peer(id).barrier(now, token);
        self.take(id);
        asked
    }

    /// Cuts the wire one way, unnoticed.
    pub fn cut_one_way(&mut self, from: u32, to: u32) {
        self.note(&format!("{from} cannot reach {to} any more"));
        self.cut.insert((from, to));
        self.wires.remove(&(from, to));
    }

    /// Cuts every server of one group from every server of the other, unnoticed.
    pub fn part(&mut self, some: &[u32], others: &[u32]) {
        for &a in some {
            for &b in others {
                self.cut(a, b, false);
            }
        }
    }

    /// `at` notices that its connection to `peer` is gone, and `peer` does not.
    pub fn notice(&mut self, at: u32, peer: u32) {
        self.note(&format!("{at} notices that {peer} is gone"));
        let now = self.now;
        self.peer(at).on_disconnected(now, ServerId(peer));
        self.take(at);
    }

    /// Joins all servers again.
    pub fn join_all(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.connect(a, b);
        }
    }

    /// True if the next message of this wire may be delivered.
    pub(super) fn flows(&mut self, from: u32, to: u32) -> bool {
        let blocks = self.neglects(Neglect::BlocksOnRead);
        let server = self.server(to);
        if blocks && !server.reads.is_empty() {
            return false;
        }
        let Some(next) = self.wires.get(&(from, to)).and_then(VecDeque::front) else {
            return false;
        };
        !self
            .withhold
            .is_some_and(|withhold| withhold(from, to, next))
    }

    /// Takes note of what a server says.
    pub(super) fn watch(&mut self, from: u32, to: u32, message: &Message) {
        if let Some(record) = &mut self.record {
            record.push((from, to, message.clone()));
        }
        if let Message::Link {
            body: Body::LeaderInfo { epoch, .. },
            ..
        } = message
        {
            let run = self.servers[&from].run;
            let judged = self.ghost.announces(from, run, *epoch);
            self.object(from, judged);
        }
    }

    /// Lets the ghost see what a server has come to.
    pub(super) fn judge(&mut self, id: u32) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        let mut judged = self.ghost.delivers(&server.delivered, server.judged);
        server.judged = server.delivered.len();
        if let Some(fault) = server.fault.as_ref()
            && *fault != Fault::WriteFailed
            && judged.is_ok()
        {
            judged = Err(format!("has withdrawn: {fault}"));
        }
        if let Some(peer) = server.peer.as_ref()
            && peer.phase() == Phase::Leading
        {
            judged = judged.and(self.ghost.leads(id, peer.current_epoch()));
        }
        self.object(id, judged);
    }

    /// A leader delivers nothing before it is established.
    pub(super) fn judge_delivery(&mut self, id: u32) {
        let Some(peer) = self.servers[&id].peer.as_ref() else {
            return;
        };
        let early = matches!(peer.phase(), Phase::Discovery | Phase::Synchronization);
        if early && peer.leader() == Some(ServerId(id)) {
            self.object(id, Err("delivers before it is established".into()));
        }
    }

    fn object(&mut self, id: u32, judged: Result<(), String>) {
        if let Err(reason) = judged {
            let problem = format!("server {id} {reason}");
            if !self.problems.contains(&problem) {
                self.note(&problem);
                self.problems.push(problem);
            }
        }
    }
}

/// What is reported of a write when it is done, if anything is.
fn claim(write: &Write) -> Option<Persisted> {
    match write {
        Write::AcceptedEpoch(epoch) => Some(Persisted::AcceptedEpoch(*epoch)),
        Write::CurrentEpoch(epoch) => Some(Persisted::CurrentEpoch(*epoch)),
        Write::Truncate(to) => Some(Persisted::Truncated(*to)),
        Write::SnapshotEnd(zxid) => Some(Persisted::Snapshot(*zxid)),
        Write::Append(entry) => Some(Persisted::Log(entry.zxid)),
        Write::SnapshotBegin(_) | Write::SnapshotPiece(_) => None,
    }
}
