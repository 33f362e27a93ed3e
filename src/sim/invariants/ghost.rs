//! What is true, whatever the servers believe.
//!
//! The ghost follows the disks: for each server the log as appended and how far it is synced,
//! both as a node of the [`Tree`] of all histories, and the epochs. From these alone it knows
//! what is committed.
//!
//! A server is *loyal* to an epoch while its accepted and its current epoch are that one, on
//! disk. A transaction is *held in epoch e* by a server that had it synced while it was loyal
//! to e; it stays held when the server goes on to a later epoch. A history is committed once a
//! quorum of voters hold it in one epoch. For the history an epoch begins with that is the
//! quorum of `NewLeader`, for the rest the quorum of `Ack`: what the servers say of it waits
//! for these disks, so the ghost is never behind what they can know.
//! Source: Zab (DSN 2011), phases 2 and 3.
//!
//! Costs: O(1) for an observation, and O(servers) for one about a sync. A log is one node, so
//! that a cut or a crash costs nothing in proportion to what is lost.

use super::server::{Done, Loss, Server};
use super::tree::{Node, ROOT, Tree};
use crate::sim::observe::{Boot, Observation, Said};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{Persisted, Phase};

/// The most servers an ensemble under the checker may have.
pub const SERVERS_MAX: usize = 16;

/// The disks, the histories and the committed log.
#[derive(Debug)]
pub struct Ghost {
    tree: Tree,
    servers: Vec<Server>,
    /// Server id to index in `servers`, or `STRANGER`.
    index: Vec<u8>,
    /// Servers that make a quorum: more than half of the voters. Joint quorums of two
    /// configurations have their place in [`Ghost::is_quorum`] and [`Ghost::quorum_of`].
    majority: usize,
    voters: u32,
    /// By run, parallel to the tree's.
    reigns: Vec<Reign>,
    /// The end of the committed log.
    committed: Node,
    /// How far the committed log reaches by virtue of which run, in the order of the latest
    /// growth; one entry a run.
    grown_by: Vec<(usize, Node)>,
    /// The newest epoch that a quorum has been loyal to.
    established: Epoch,
    /// What has been delivered anywhere, in order.
    delivered: Vec<Zxid>,
    /// When the latest observation was made, µs.
    now_us: u64,
}

/// One epoch from its primary's announcement of a history.
#[derive(Debug)]
pub struct Reign {
    /// Which start of the primary it was.
    pub starts: u64,
    /// The primary has taken itself for established.
    pub established: bool,
    /// When the primary ceased to lead, µs.
    pub over: Option<u64>,
    /// By server: one more than the depth of what it holds in this epoch; 0 for a server that
    /// has not been loyal to it with the history durable.
    held: [u64; SERVERS_MAX],
    /// Up to which counter of this run the committed log reaches, and by virtue of which run;
    /// ascending in the first.
    commits: Vec<(u64, u32)>,
}

/// The committed log has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// By virtue of the epoch of this run.
    pub by: usize,
    /// Its end before.
    pub from: Node,
    /// Its end now.
    pub to: Node,
    /// What a quorum holds is not on top of what was committed before.
    pub forks: bool,
}

const STRANGER: u8 = u8::MAX;

impl Ghost {
    /// The ghost of an ensemble whose servers have never been started.
    ///
    /// # Panics
    /// If there is no voter, or there are more than [`SERVERS_MAX`] servers.
    #[must_use]
    pub fn new(voters: &[ServerId], observers: &[ServerId]) -> Ghost {
        assert!(!voters.is_empty(), "an ensemble has at least one voter");
        let count = voters.len() + observers.len();
        assert!(count <= SERVERS_MAX, "{count} servers are too many");
        let ids = voters.iter().map(|&id| (id, true));
        let ids = ids.chain(observers.iter().map(|&id| (id, false)));
        let servers: Vec<Server> = ids.map(|(id, votes)| Server::new(id, votes)).collect();
        let highest = servers.iter().map(|s| s.id.0).max().unwrap_or(0) as usize;
        let mut index = vec![STRANGER; highest + 1];
        for (at, server) in servers.iter().enumerate() {
            index[server.id.0 as usize] = at as u8;
        }
        Ghost {
            tree: Tree::new(),
            servers,
            index,
            majority: voters.len() / 2 + 1,
            voters: (1 << voters.len()) - 1,
            reigns: vec![Reign::new(0)],
            committed: ROOT,
            grown_by: Vec::new(),
            established: Epoch(0),
            delivered: Vec::new(),
            now_us: 0,
        }
    }

    /// Time has come to this.
    pub(super) fn at_time(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Takes an observation into account, after the checks that look at what was before.
    pub(super) fn apply(&mut self, at: usize, seen: &Observation) -> Option<Growth> {
        let find = |zxid| self.tree.find(zxid).unwrap_or(ROOT);
        match *seen {
            Observation::Started { boot, .. } => return self.start(at, &boot),
            Observation::Stopped { .. } => {
                self.servers[at].running = false;
                self.end_reign(at);
            }
            Observation::Wiped { .. } => self.lose(at, Loss::Wiped),
            Observation::SetAside { .. } => self.lose(at, Loss::SetAside),
            Observation::Entered { phase, .. } => {
                let server = &mut self.servers[at];
                server.phase = phase;
                server.phase_since = self.now_us;
                if phase == Phase::Looking {
                    self.end_reign(at);
                }
            }
            Observation::Established { epoch, .. } => return self.establish(at, epoch),
            Observation::Deposed { .. } => self.end_reign(at),
            Observation::Broadcast { zxid, hash, .. } => {
                if let Some(run) = self.tree.run_of(zxid.epoch) {
                    self.tree.push(run, hash);
                }
            }
            Observation::Appended { zxid, .. } => self.servers[at].tip = find(zxid),
            Observation::Durable { upto, .. } => {
                let durable = find(upto);
                let server = &mut self.servers[at];
                // A cut may have made durable more than a sync that was under way.
                if self.tree.holds(durable, server.durable) {
                    server.durable = durable;
                }
                server.done.synced = server.done.synced.max(upto);
                return self.hold(at);
            }
            Observation::Truncating { to, .. } => self.servers[at].cutting = Some(find(to)),
            Observation::Truncated { to, .. } => {
                let to = find(to);
                self.servers[at].replace(to);
                self.servers[at].done.cuts += 1;
            }
            Observation::Installing { zxid, .. } => self.servers[at].installing = Some(find(zxid)),
            Observation::Installed { zxid, .. } => {
                let to = find(zxid);
                let server = &mut self.servers[at];
                server.replace(to);
                server.snapshot = to;
                server.done.installs += 1;
                return self.hold(at);
            }
            Observation::Snapshotting { zxid, .. } => self.servers[at].snapshotting = find(zxid),
            Observation::Snapshotted { zxid, .. } => self.servers[at].snapshot = find(zxid),
            Observation::AcceptedDurable { epoch, .. } => {
                self.servers[at].accepted = epoch;
                return self.hold(at);
            }
            Observation::CurrentDurable { epoch, .. } => {
                self.servers[at].current = epoch;
                return self.hold(at);
            }
            Observation::Reported { persisted, .. } => self.report(at, persisted),
            Observation::Committed { upto, .. } => self.servers[at].committed = find(upto),
            Observation::Delivered { zxid, .. } | Observation::Restored { zxid, .. } => {
                let applied = find(zxid);
                self.set_applied(at, applied);
            }
            Observation::Sent {
                what: Said::NewLeader { epoch, upto },
                ..
            } if self.tree.run_of(epoch).is_none() => {
                let base = find(upto);
                return self.begin(at, epoch, base);
            }
            Observation::Trimmed { .. } | Observation::Sent { .. } | Observation::Healed => {}
        }
        None
    }

    fn start(&mut self, at: usize, boot: &Boot) -> Option<Growth> {
        let last = self.tree.find(boot.last).unwrap_or(ROOT);
        let snapshot = boot.snapshot.and_then(|zxid| self.tree.find(zxid));
        let applied = self.tree.find(boot.applied).unwrap_or(ROOT);
        let server = &mut self.servers[at];
        server.running = true;
        server.starts += 1;
        server.phase = Phase::Looking;
        server.phase_since = self.now_us;
        server.accepted = boot.accepted;
        server.current = boot.current;
        server.replace(last);
        server.snapshot = snapshot.unwrap_or(ROOT);
        server.snapshotting = ROOT;
        server.committed = applied;
        server.loss = Loss::None;
        server.done = Done {
            synced: boot.last,
            ..Done::default()
        };
        self.set_applied(at, applied);
        self.hold(at)
    }

    fn end_reign(&mut self, at: usize) {
        let id = self.servers[at].id;
        // A server has at most one reign that is not over, and it is of its newest epoch; the
        // few that began after it belong to others.
        for run in (1..self.reigns.len()).rev() {
            if self.tree.primary(run) == id {
                self.reigns[run].over.get_or_insert(self.now_us);
                return;
            }
        }
    }

    fn lose(&mut self, at: usize, loss: Loss) {
        let server = &mut self.servers[at];
        server.replace(ROOT);
        server.snapshot = ROOT;
        server.applied = ROOT;
        server.committed = ROOT;
        server.current = Epoch(0);
        server.loss = loss;
        if loss == Loss::Wiped {
            server.accepted = Epoch(0);
        }
        for reign in &mut self.reigns {
            reign.held[at] = 0;
        }
    }

    /// Opens the reign of `epoch` with the history `base`.
    fn begin(&mut self, at: usize, epoch: Epoch, base: Node) -> Option<Growth> {
        let Server { id, starts, .. } = self.servers[at];
        self.tree.begin(epoch, id, base);
        self.reigns.push(Reign::new(starts));
        // The primary may have been loyal to its epoch before it announced the history.
        let mut growth = None;
        for at in 0..self.servers.len() {
            if self.servers[at].current == epoch {
                growth = self.hold(at).or(growth);
            }
        }
        growth
    }

    fn establish(&mut self, at: usize, epoch: Epoch) -> Option<Growth> {
        // A primary alone in its ensemble announces its history to nobody.
        let mut growth = None;
        if self.tree.run_of(epoch).is_none() {
            growth = self.begin(at, epoch, self.servers[at].durable);
        }
        if let Some(run) = self.tree.run_of(epoch) {
            self.reigns[run].established = true;
        }
        growth
    }

    /// Counts what a loyal server has synced, and lets the committed log grow.
    fn hold(&mut self, at: usize) -> Option<Growth> {
        let server = &self.servers[at];
        if !server.votes || server.accepted != server.current {
            return None;
        }
        let run = self.tree.run_of(server.current)?;
        let base = self.tree.base(run);
        if server.durable != base && server.durable.run() != run {
            return None;
        }
        let held = self.tree.depth(server.durable) + 1;
        let slot = &mut self.reigns[run].held[at];
        *slot = held.max(*slot);
        let depth = self.quorum_of(&self.reigns[run].held).checked_sub(1)?;
        self.established = self.established.max(self.tree.epoch(run));
        let to = self.tree.in_run(run, depth - self.tree.depth(base));
        self.grow(run, to)
    }

    fn grow(&mut self, by: usize, to: Node) -> Option<Growth> {
        let from = self.committed;
        if self.is_committed(to) {
            return None;
        }
        let forks = !self.tree.holds(to, from);
        if !forks {
            let mut node = to;
            while !self.is_committed(node) {
                self.reigns[node.run()]
                    .commits
                    .push((node.counter(), by as u32));
                node = self.tree.base(node.run());
            }
            self.committed = to;
            if self.grown_by.last().is_none_or(|&(run, _)| run != by) {
                self.grown_by.retain(|&(run, _)| run != by);
                self.grown_by.push((by, from));
            }
            if let Some(last) = self.grown_by.last_mut() {
                last.1 = to;
            }
        }
        Some(Growth {
            by,
            from,
            to,
            forks,
        })
    }

    fn set_applied(&mut self, at: usize, applied: Node) {
        self.servers[at].applied = applied;
        // What a snapshot holds was delivered somewhere, or is by this: it fills the order up.
        let known = self.delivered.len();
        let mut node = applied;
        while self.tree.depth(node) > known as u64 {
            self.delivered.push(self.tree.zxid(node));
            node = self.tree.parent(node);
        }
        self.delivered[known..].reverse();
    }

    fn report(&mut self, at: usize, persisted: Persisted) {
        let done = &mut self.servers[at].done;
        match persisted {
            Persisted::Truncated(_) => done.cuts = done.cuts.saturating_sub(1),
            Persisted::Snapshot(_) => done.installs = done.installs.saturating_sub(1),
            _ => {}
        }
    }

    /// The tree of all histories.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// All servers, voters first.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Where a server stands among [`Ghost::servers`].
    #[must_use]
    pub fn index(&self, id: ServerId) -> Option<usize> {
        let at = *self.index.get(id.0 as usize)?;
        (at != STRANGER).then_some(at as usize)
    }

    /// When the latest observation was made, µs.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// What is known of the epoch of a run.
    #[must_use]
    pub fn reign(&self, run: usize) -> &Reign {
        &self.reigns[run]
    }

    /// The end of the committed log.
    #[must_use]
    pub fn committed(&self) -> Node {
        self.committed
    }

    /// The last committed transaction.
    #[must_use]
    pub fn committed_zxid(&self) -> Zxid {
        self.tree.zxid(self.committed)
    }

    /// True if `node` is of the committed log.
    #[must_use]
    pub fn is_committed(&self, node: Node) -> bool {
        let commits = &self.reigns[node.run()].commits;
        node.run() == 0
            || commits
                .last()
                .is_some_and(|&(upto, _)| node.counter() <= upto)
    }

    /// The epoch by virtue of which `node` is committed, if it is.
    #[must_use]
    pub fn committed_by(&self, node: Node) -> Option<Epoch> {
        let commits = self.reigns[node.run()].commits.iter();
        let mut reaching = commits.skip_while(|&&(upto, _)| upto < node.counter());
        let &(_, by) = reaching.next()?;
        Some(self.tree.epoch(by as usize))
    }

    /// The end of what is committed by virtue of epochs before `epoch`.
    #[must_use]
    pub fn committed_before(&self, epoch: Epoch) -> Node {
        let earlier = self.grown_by.iter();
        let earlier = earlier.filter(|(run, _)| self.tree.epoch(*run) < epoch);
        let ends = earlier.map(|&(_, node)| node);
        ends.max_by_key(|&node| self.tree.depth(node))
            .unwrap_or(ROOT)
    }

    /// What has been delivered anywhere, in order.
    #[must_use]
    pub fn delivered(&self) -> &[Zxid] {
        &self.delivered
    }

    /// True if the servers of this set, a bit for each index, are a quorum.
    #[must_use]
    pub fn is_quorum(&self, set: u32) -> bool {
        (set & self.voters).count_ones() as usize >= self.majority
    }

    /// True if the servers of this set, a bit for each index, are all voters there are.
    #[must_use]
    pub fn is_everyone(&self, set: u32) -> bool {
        set & self.voters == self.voters
    }

    /// The highest value that a quorum of voters have reached.
    #[must_use]
    pub fn quorum_of(&self, values: &[u64; SERVERS_MAX]) -> u64 {
        let count = self.voters.count_ones() as usize;
        // Of an ascending list of n, the one at n - majority and all after it are a majority.
        // The ensemble is small: an insertion sort on the stack.
        let mut sorted = [0; SERVERS_MAX];
        for (len, &value) in values[..count].iter().enumerate() {
            let mut at = len;
            while at > 0 && sorted[at - 1] > value {
                sorted[at] = sorted[at - 1];
                at -= 1;
            }
            sorted[at] = value;
        }
        sorted[count - self.majority]
    }

    /// The voters on whose synced disks `node` is, in a log or covered by a snapshot.
    #[must_use]
    pub fn holders(&self, node: Node) -> u32 {
        let mut set = 0;
        for (at, server) in self.servers.iter().enumerate() {
            if server.votes && self.tree.holds(server.durable, node) {
                set |= 1 << at;
            }
        }
        set
    }

    /// True if nothing that was or might still be committed depends on the disk of `server`: a
    /// quorum of the others hold all that is committed, and what this one holds beyond it can
    /// no longer be, for a quorum has gone on to a later epoch.
    ///
    /// The world asks before it wipes a disk or damages a log.
    #[must_use]
    pub fn can_lose(&self, server: ServerId) -> bool {
        let Some(at) = self.index(server) else {
            return false;
        };
        let server = &self.servers[at];
        let others = self.holders(self.committed) & !(1 << at);
        let open = !self.is_committed(server.tip) && self.established <= server.current;
        !server.votes || (self.is_quorum(others) && !open && self.established >= server.current)
    }
}

impl Reign {
    /// True if the primary had ceased to lead before `now_us`. What it says in the very step
    /// that ends its reign is still said by the leader.
    #[must_use]
    pub fn is_over(&self, now_us: u64) -> bool {
        self.over.is_some_and(|over| over < now_us)
    }
}

impl Reign {
    fn new(starts: u64) -> Reign {
        Reign {
            starts,
            established: false,
            over: None,
            held: [0; SERVERS_MAX],
            commits: Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "ghost_tests.rs"]
mod tests;
