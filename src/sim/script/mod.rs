//! A few servers on perfect wires, moved step by step: what is sent waits in order until it is
//! delivered, what is written waits until it is made durable, time stands until it is moved.
//!
//! The peers are real, and so are the logs, on simulated disks. Nothing here is random. Scripts
//! read like the story they tell, and every message passes through a trace.

mod ghost;
mod hands;
mod past;
mod server;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::log::LogError;
use crate::sim::disk::{Plan, SimDisk};
use crate::time::Millis;
use crate::types::{ServerId, Zxid};
use crate::zab::{
    Ensemble as Members, Envelope, Limits, Message, Peer, Persisted, Phase, Plants, ProposeError,
    Ready, Settings, Timing, Write,
};

use ghost::Ghost;

pub use hands::{Neglect, Withhold};
pub use past::Past;
pub use server::Server;

/// The peers, their disks, and the wires between them.
pub struct Ensemble {
    /// The one clock.
    pub now: Millis,
    /// All servers, by id.
    pub servers: BTreeMap<u32, Server>,
    members: Members,
    limits: Limits,
    plants: Plants,
    /// What is under way, by sender and receiver.
    wires: BTreeMap<(u32, u32), VecDeque<Message>>,
    cut: BTreeSet<(u32, u32)>,
    trace: String,
    starts: u64,
    ghost: Ghost,
    neglect: Option<Neglect>,
    /// Messages that [`Ensemble::settle`] leaves where they are, and what is behind them.
    pub withhold: Option<Withhold>,
    /// Every message that was sent, with its sender and receiver, from when this is not `None`.
    pub record: Option<Vec<(u32, u32, Message)>>,
    /// What must not be, in plain words: what the script cannot go on from, and what the ghost
    /// has seen.
    pub problems: Vec<String>,
}

impl Ensemble {
    /// `voters` servers with empty disks, 1 to `voters`, none of them started.
    #[must_use]
    pub fn new(voters: u32) -> Ensemble {
        Ensemble::with_observers(voters, 0)
    }

    /// Observers come behind the voters.
    #[must_use]
    pub fn with_observers(voters: u32, observers: u32) -> Ensemble {
        let ids = |range: std::ops::RangeInclusive<u32>| -> Vec<ServerId> {
            range.map(ServerId).collect()
        };
        let all = voters + observers;
        let members = Members::new(1, &ids(1..=voters), &ids(voters + 1..=all));
        Ensemble {
            now: Millis(0),
            servers: (1..=all)
                .map(|id| {
                    (
                        id,
                        Server::new(SimDisk::new(u64::from(id), Plan::default())),
                    )
                })
                .collect(),
            members,
            limits: Limits::DEFAULT,
            plants: Plants::NONE,
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            trace: String::new(),
            starts: 100,
            ghost: Ghost::default(),
            neglect: None,
            withhold: None,
            record: None,
            problems: Vec::new(),
        }
    }

    /// With other maxima.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Ensemble {
        self.limits = limits;
        self
    }

    /// With planted faults.
    #[must_use]
    pub fn plants(mut self, plants: Plants) -> Ensemble {
        self.plants = plants;
        self
    }

    /// Gives a server that is not running another disk.
    ///
    /// # Panics
    /// If it runs.
    pub fn put(&mut self, id: u32, past: &Past) {
        assert!(self.server(id).peer.is_none(), "{id} runs");
        self.server(id).disk = past.disk();
    }

    /// A server.
    ///
    /// # Panics
    /// If there is none of this id.
    pub fn server(&mut self, id: u32) -> &mut Server {
        self.servers
            .get_mut(&id)
            .expect("the script names a server")
    }

    /// The core of a server.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn peer(&mut self, id: u32) -> &mut Peer {
        let server = self.server(id);
        server
            .peer
            .as_mut()
            .expect("the script names a running server")
    }

    /// Where a server stands.
    pub fn phase(&mut self, id: u32) -> Phase {
        self.peer(id).phase()
    }

    /// Starts a server on what its disk holds. Those that run are connected with it.
    pub fn start(&mut self, id: u32) {
        if let Err(error) = self.try_start(id) {
            self.problems
                .push(format!("server {id} cannot start: {error}"));
        }
    }

    /// Starts a server whose disk may fail it.
    ///
    /// # Errors
    /// Why it cannot start.
    pub fn try_start(&mut self, id: u32) -> Result<(), String> {
        self.note(&format!("{id} starts"));
        self.starts += 1;
        let settings = Settings {
            id: ServerId(id),
            ensemble: self.members.clone(),
            timing: Timing::DEFAULT,
            limits: self.limits,
            plants: self.plants,
        };
        let run = self.starts;
        let nonce = if self.neglects(Neglect::SameNonce) {
            7
        } else {
            run
        };
        if let Err(error) = self.server(id).boot(settings, run, nonce) {
            self.note(&format!("{id} cannot start: {error}"));
            return Err(error);
        }
        let now = self.now;
        self.peer(id).start(now);
        self.judge(id);
        self.take(id);
        let others: Vec<u32> = self.servers.keys().copied().filter(|&o| o != id).collect();
        for other in others {
            self.connect(id, other);
        }
        Ok(())
    }

    /// Starts all servers, and lets them come to rest.
    pub fn start_all(&mut self) {
        let ids: Vec<u32> = self.servers.keys().copied().collect();
        for id in ids {
            self.start(id);
        }
        self.settle();
    }

    /// Power is lost: of what was not synced some may be left, what was under way is gone.
    pub fn crash(&mut self, id: u32) {
        self.note(&format!("{id} crashes"));
        let disk = self.server(id).disk.power_cycle(Plan::default());
        self.stop(id, disk);
    }

    /// The process ends, and the system's cache stays.
    pub fn kill(&mut self, id: u32) {
        self.note(&format!("{id} is killed"));
        let disk = self.server(id).disk.kill(Plan::default());
        self.stop(id, disk);
    }

    /// The process ends and the disk is lost.
    pub fn wipe(&mut self, id: u32) {
        self.note(&format!("{id} loses its disk"));
        self.starts += 1;
        let disk = SimDisk::new(self.starts, Plan::default());
        self.stop(id, disk);
    }

    fn stop(&mut self, id: u32, disk: SimDisk) {
        self.servers.insert(id, Server::new(disk));
        self.wires.retain(|&(from, to), _| from != id && to != id);
        let now = self.now;
        let others: Vec<u32> = self.servers.keys().copied().collect();
        for other in others {
            if self.server(other).peer.is_some() && !self.cut.contains(&(id, other)) {
                self.peer(other).on_disconnected(now, ServerId(id));
                self.take(other);
            }
        }
    }

    /// Cuts the wires between two servers, both ways; the two notice at once if `noticed`.
    pub fn cut(&mut self, a: u32, b: u32, noticed: bool) {
        self.note(&format!("{a} and {b} are cut apart"));
        let now = self.now;
        for (from, to) in [(a, b), (b, a)] {
            self.cut.insert((from, to));
            self.wires.remove(&(from, to));
            if noticed && self.server(to).peer.is_some() {
                self.peer(to).on_disconnected(now, ServerId(from));
                self.take(to);
            }
        }
    }

    /// Joins two servers again.
    pub fn join(&mut self, a: u32, b: u32) {
        self.note(&format!("{a} and {b} are joined"));
        self.cut.remove(&(a, b));
        self.cut.remove(&(b, a));
        self.connect(a, b);
    }

    fn connect(&mut self, a: u32, b: u32) {
        if self.cut.contains(&(a, b)) {
            return;
        }
        let now = self.now;
        for (one, other) in [(a, b), (b, a)] {
            if self.server(one).peer.is_some() && self.server(other).peer.is_some() {
                self.peer(one).on_connected(now, ServerId(other));
                self.take(one);
            }
        }
    }

    /// Proposes a transaction at `id`.
    ///
    /// # Errors
    /// What the peer says.
    pub fn propose(&mut self, id: u32, text: &str) -> Result<Zxid, ProposeError> {
        let now = self.now;
        let proposed = self.peer(id).propose(now, Arc::from(text.as_bytes()));
        if let Ok(zxid) = proposed {
            self.note(&format!("{id} proposes {zxid}"));
        }
        self.take(id);
        proposed
    }

    /// What is queued at `id` is written; only what needs no sync is reported.
    pub fn write(&mut self, id: u32) {
        while self.write_one(id) {}
    }

    /// What is queued at `id` becomes durable.
    pub fn sync(&mut self, id: u32) {
        self.write(id);
        self.sync_written(id);
    }

    /// What has been written at `id` becomes durable; the rest of the queue waits.
    pub fn sync_written(&mut self, id: u32) {
        let appended = self.server(id).appended;
        let synced = self.server(id).sync();
        self.report(id, synced, Some(Persisted::Log(appended)));
    }

    /// Takes a snapshot at `id` and trims its log.
    pub fn snapshot(&mut self, id: u32) {
        let (zxid, state) = self.snapshot_begun(id);
        self.snapshot_done(id, zxid, &state);
    }

    /// Tells the peer what came of a write; `claimed` is what it would be told if the disk were
    /// not asked.
    fn report(
        &mut self,
        id: u32,
        made: Result<Option<Persisted>, LogError>,
        claimed: Option<Persisted>,
    ) {
        let now = self.now;
        match made {
            Ok(None) => return,
            Ok(Some(persisted)) => self.peer(id).on_persisted(now, persisted),
            Err(error) => {
                self.note(&format!("{id} cannot write: {error}"));
                match claimed.filter(|_| self.neglects(Neglect::ForgetsFailure)) {
                    Some(claimed) => self.peer(id).on_persisted(now, claimed),
                    None => self.peer(id).on_write_failed(),
                }
            }
        }
        self.judge(id);
        self.take(id);
    }

    /// Delivers the oldest message from `from` to `to`; false if there is none.
    pub fn deliver(&mut self, from: u32, to: u32) -> bool {
        let Some(message) = self
            .wires
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front)
        else {
            return false;
        };
        self.hear(from, to, message);
        true
    }

    /// Delivers and syncs until nothing is left to do at this time.
    ///
    /// # Panics
    /// If that never comes.
    pub fn settle(&mut self) {
        assert!(self.steps(50_000), "the servers never stop talking");
    }

    /// Delivers messages and makes writes, `most` of them at most; true if nothing was left to
    /// do at this time.
    pub fn steps(&mut self, most: usize) -> bool {
        let mut left = most;
        loop {
            let ids: Vec<u32> = self.servers.keys().copied().collect();
            let mut moved = false;
            for &id in &ids {
                if self.server(id).syncs && !self.server(id).writes.is_empty() {
                    if left == 0 {
                        return false;
                    }
                    left -= 1;
                    self.sync(id);
                    moved = true;
                }
            }
            let wires: Vec<(u32, u32)> = self.wires.keys().copied().collect();
            for (from, to) in wires {
                if self.flows(from, to) {
                    if left == 0 {
                        return false;
                    }
                    left -= 1;
                    moved |= self.deliver(from, to);
                }
            }
            if !moved {
                return true;
            }
        }
    }

    /// Moves time on by `ms`, in steps, each settled.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now + Millis(ms);
        while self.now < until {
            let next = self
                .servers
                .values()
                .filter_map(|server| server.peer.as_ref());
            let next = next.map(Peer::deadline).min().unwrap_or(until);
            self.now = next.max(self.now + Millis(1)).min(until);
            let ids: Vec<u32> = self.servers.keys().copied().collect();
            for id in ids {
                if self.server(id).peer.is_some() {
                    let now = self.now;
                    self.peer(id).tick(now);
                    self.take(id);
                }
            }
            self.settle();
        }
    }

    /// The established leader of the newest epoch, if there is one.
    #[must_use]
    pub fn leader(&self) -> Option<u32> {
        let peers = self
            .servers
            .iter()
            .filter_map(|(id, s)| Some((*id, s.peer.as_ref()?)));
        let leading = peers.filter(|(_, peer)| peer.phase() == Phase::Leading);
        leading
            .max_by_key(|(_, peer)| peer.current_epoch())
            .map(|(id, _)| id)
    }

    /// What `id` has delivered, as text.
    #[must_use]
    pub fn delivered(&self, id: u32) -> Vec<String> {
        let entries = self.servers[&id].delivered.iter();
        entries
            .map(|e| String::from_utf8_lossy(&e.payload).into_owned())
            .collect()
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: &str) {
        self.trace.push_str(line);
        self.trace.push('\n');
    }

    /// What has happened so far, and forgets it.
    pub fn trace(&mut self) -> String {
        std::mem::take(&mut self.trace)
    }

    /// Takes what a peer asks for.
    fn take(&mut self, id: u32) {
        let mut ready = Ready::default();
        self.peer(id).ready(&mut ready);
        for write in ready.writes.drain(..) {
            if !matches!(write, Write::Append(_)) {
                self.note(&format!(
                    "{id}       writes {}",
                    trace::describe_write(&write)
                ));
            }
            self.server(id).writes.push_back(write);
        }
        for Envelope { to, message } in ready.messages.drain(..) {
            self.watch(id, to.0, &message);
            if !self.cut.contains(&(id, to.0)) {
                self.wires.entry((id, to.0)).or_default().push_back(message);
            }
        }
        if ready.replay.is_some() || !ready.deliver.is_empty() {
            self.judge_delivery(id);
        }
        if let Some(replay) = ready.replay {
            self.write(id);
            if let Err(error) = self.server(id).replay(replay.after, replay.upto) {
                self.problems.push(format!("server {id}: {error}"));
            }
        }
        let server = self.server(id);
        server.delivered.append(&mut ready.deliver);
        server.barriers.append(&mut ready.barriers);
        for (from, payload) in ready.payloads.drain(..) {
            let text = String::from_utf8_lossy(&payload).into_owned();
            server.payloads.push((from.0, text));
        }
        if let Some(fault) = ready.fenced.take() {
            server.fault = Some(fault);
            server.writes.clear();
        }
        self.judge(id);
        if let Some(standing) = ready.standing.take() {
            self.server(id).standings.push(standing.clone());
            self.note(&format!(
                "{id}       {}",
                trace::describe_standing(&standing)
            ));
        }
        self.server(id).reads.extend(ready.reads.drain(..));
        while self.server(id).answers && self.answer(id) {}
    }
}
