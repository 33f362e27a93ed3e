//! An exhaustive check of a small ensemble: every order in which a handful of things can happen.
//!
//! The world of the simulator walks one random way through a large space; this walks all ways
//! through a small one. Three servers, real [`Peer`]s, and a budget: so many transactions, so
//! many crashes. From each state every possible next step is taken (the oldest message of any
//! wire arrives, the oldest write of any server becomes durable, somebody proposes, crashes,
//! starts again), until no state is new. Time stands still: what only patience can bring about
//! is left to the simulator.
//!
//! States are told apart by 128 bits of hash, so that of a milliard states about one pair in
//! 10²⁰ would be mistaken for each other.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{
    Boot, Ensemble, Entry, Envelope, Limits, Message, Peer, Persisted, Phase, Piece, Plants,
    ReadWhat, Ready, Settings, Standing, Summary, Timing, Write,
};

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Servers, all of them voters.
    pub servers: u32,
    /// Transactions proposed in all.
    pub transactions: u32,
    /// Crashes in all.
    pub crashes: u32,
    /// Starts after a crash in all.
    pub restarts: u32,
    /// Connections reset in all: what was on the wires of a pair is lost, and both notice.
    pub resets: u32,
    /// True to begin with new disks, false to begin with an established leader.
    pub from_nothing: bool,
    /// Faults planted on purpose.
    pub plants: Plants,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states.
    pub states: u64,
    /// Steps taken, those to known states included.
    pub steps: u64,
    /// The longest way, steps.
    pub depth: u32,
    /// States in which a leader was established, by epoch.
    pub established: Vec<u64>,
    /// The shortest way to a violation, and what it violates.
    pub violation: Option<(Vec<String>, String)>,
}

/// One state of everything.
#[derive(Clone, Hash)]
struct State {
    servers: Vec<Server>,
    /// By sender and receiver, `from * servers + to`.
    wires: Vec<VecDeque<Message>>,
    transactions: u32,
    crashes: u32,
    restarts: u32,
    resets: u32,
    /// Everything that has ever been delivered anywhere.
    committed: Vec<Zxid>,
    /// The leader of each epoch that has had one.
    leaders: Vec<(Epoch, usize)>,
}

#[derive(Clone, Hash)]
struct Server {
    /// Shared between states that differ elsewhere.
    peer: Option<Arc<Peer>>,
    starts: u64,
    accepted: Epoch,
    current: Epoch,
    log: Vec<Entry>,
    writes: VecDeque<Write>,
    delivered: Vec<Zxid>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Deliver(usize, usize),
    Persist(usize),
    Propose(usize),
    Crash(usize),
    Start(usize),
    Reset(usize, usize),
}

/// Explores everything within `bounds`; stops at the first violation, and at `states_max`.
#[must_use]
pub fn explore(bounds: Bounds, states_max: u64) -> Explored {
    let mut explored = Explored {
        states: 1,
        steps: 0,
        depth: 0,
        established: Vec::new(),
        violation: None,
    };
    let first = State::first(bounds);
    let mut known = HashSet::new();
    known.insert(fingerprint(&first));
    // Breadth first, so that the way to a violation is a shortest one.
    let mut ways: Vec<(u32, Step)> = Vec::new();
    let mut queue = VecDeque::from([(first, NOWHERE, 0)]);
    while let Some((state, way, depth)) = queue.pop_front() {
        explored.depth = depth;
        for step in state.steps() {
            explored.steps += 1;
            let mut next = state.clone();
            let outcome = next.take(bounds, step);
            if let Err(what) = outcome.and_then(|()| next.check()) {
                let mut told = vec![format!("{step:?}")];
                let mut at = way;
                while at != NOWHERE {
                    let (before, step) = ways[at as usize];
                    told.push(format!("{step:?}"));
                    at = before;
                }
                told.reverse();
                explored.violation = Some((told, what));
                return explored;
            }
            if known.insert(fingerprint(&next)) {
                explored.states += 1;
                next.count(&mut explored.established);
                let index = u32::try_from(ways.len()).expect("fewer than 2^32 states");
                ways.push((way, step));
                queue.push_back((next, index, depth + 1));
            }
        }
        if explored.states >= states_max {
            break;
        }
    }
    explored
}

/// The place of the first state among the ways.
const NOWHERE: u32 = u32::MAX;

impl State {
    fn first(bounds: Bounds) -> State {
        let count = bounds.servers as usize;
        let server = Server {
            peer: None,
            starts: 0,
            accepted: Epoch(0),
            current: Epoch(0),
            log: Vec::new(),
            writes: VecDeque::new(),
            delivered: Vec::new(),
        };
        let mut state = State {
            servers: vec![server; count],
            wires: vec![VecDeque::new(); count * count],
            transactions: bounds.transactions,
            crashes: bounds.crashes,
            restarts: bounds.restarts,
            resets: bounds.resets,
            committed: Vec::new(),
            leaders: Vec::new(),
        };
        for at in 0..count {
            state.start(bounds, at);
        }
        for at in 0..count {
            let started = state.output(at);
            assert!(started.is_ok(), "the first words: {started:?}");
        }
        if !bounds.from_nothing {
            state.transactions = 0;
            state.crashes = 0;
            state.resets = 0;
            while let Some(step) = state.steps().first().copied() {
                let taken = state.take(bounds, step);
                assert!(taken.is_ok(), "the way to the first leader: {taken:?}");
            }
            state.transactions = bounds.transactions;
            state.crashes = bounds.crashes;
            state.resets = bounds.resets;
        }
        state
    }

    /// Everything that can happen next.
    fn steps(&self) -> Vec<Step> {
        let count = self.servers.len();
        let mut steps = Vec::new();
        for from in 0..count {
            for to in 0..count {
                if !self.wires[from * count + to].is_empty() {
                    steps.push(Step::Deliver(from, to));
                }
                let both = |at: usize| self.servers[at].peer.is_some();
                if from < to && self.resets > 0 && both(from) && both(to) {
                    steps.push(Step::Reset(from, to));
                }
            }
        }
        for (at, server) in self.servers.iter().enumerate() {
            if !server.writes.is_empty() {
                steps.push(Step::Persist(at));
            }
            match &server.peer {
                Some(peer) => {
                    if self.transactions > 0 && peer.phase() == Phase::Leading {
                        steps.push(Step::Propose(at));
                    }
                    if self.crashes > 0 {
                        steps.push(Step::Crash(at));
                    }
                }
                None if self.restarts > 0 => steps.push(Step::Start(at)),
                None => {}
            }
        }
        steps
    }

    fn take(&mut self, bounds: Bounds, step: Step) -> Result<(), String> {
        match step {
            Step::Deliver(from, to) => {
                let wire = from * self.servers.len() + to;
                let Some(message) = self.wires[wire].pop_front() else {
                    return Ok(());
                };
                let from = ServerId(from as u32 + 1);
                self.input(to, |peer| peer.on_message(NOW, from, message))
            }
            Step::Persist(at) => {
                let Some(write) = self.servers[at].writes.pop_front() else {
                    return Ok(());
                };
                let persisted = self.servers[at].make_durable(write)?;
                self.input(at, |peer| peer.on_persisted(NOW, persisted))
            }
            Step::Propose(at) => {
                self.transactions -= 1;
                let payload: Arc<[u8]> = Arc::from([self.transactions as u8]);
                self.input(at, |peer| {
                    let _ = peer.propose(NOW, payload);
                })
            }
            Step::Crash(at) => self.crash(at),
            Step::Reset(a, b) => self.reset(a, b),
            Step::Start(at) => {
                self.restarts -= 1;
                self.start(bounds, at);
                self.output(at)
            }
        }
    }

    fn crash(&mut self, at: usize) -> Result<(), String> {
        let count = self.servers.len();
        self.crashes -= 1;
        self.servers[at].peer = None;
        self.servers[at].writes.clear();
        self.servers[at].delivered.clear();
        for other in 0..count {
            self.wires[at * count + other].clear();
            self.wires[other * count + at].clear();
        }
        for other in (0..count).filter(|&other| other != at) {
            let id = ServerId(at as u32 + 1);
            self.input(other, |peer| peer.on_disconnected(NOW, id))?;
        }
        Ok(())
    }

    fn reset(&mut self, a: usize, b: usize) -> Result<(), String> {
        let count = self.servers.len();
        self.resets -= 1;
        for (from, to) in [(a, b), (b, a)] {
            self.wires[from * count + to].clear();
        }
        for (from, to) in [(a, b), (b, a)] {
            let id = ServerId(from as u32 + 1);
            self.input(to, |peer| peer.on_disconnected(NOW, id))?;
        }
        Ok(())
    }

    fn start(&mut self, bounds: Bounds, at: usize) {
        let voters: Vec<ServerId> = (1..=bounds.servers).map(ServerId).collect();
        let server = &mut self.servers[at];
        server.starts += 1;
        let settings = Settings {
            id: ServerId(at as u32 + 1),
            ensemble: Ensemble::new(1, &voters, &[]),
            // Time stands still, so nobody may wait for it to pass.
            timing: Timing {
                notify_max: Millis(0),
                ..Timing::DEFAULT
            },
            limits: Limits::DEFAULT,
            plants: bounds.plants,
        };
        let mut ends: Vec<Zxid> = Vec::new();
        for entry in &server.log {
            match ends.last_mut() {
                Some(end) if end.epoch == entry.zxid.epoch => *end = entry.zxid,
                _ => ends.push(entry.zxid),
            }
        }
        let boot = Boot {
            accepted_epoch: server.accepted,
            current_epoch: server.current,
            history: Summary {
                base: Zxid::ZERO,
                ends,
            },
            snapshot: None,
            delivered: Zxid::ZERO,
            nonce: (at as u64) << 32 | server.starts,
        };
        let mut peer = Peer::new(settings, boot);
        peer.start(NOW);
        server.peer = Some(Arc::new(peer));
    }

    fn input(&mut self, at: usize, input: impl FnOnce(&mut Peer)) -> Result<(), String> {
        match &mut self.servers[at].peer {
            Some(peer) => input(Arc::make_mut(peer)),
            None => return Ok(()),
        }
        self.output(at)
    }

    fn output(&mut self, at: usize) -> Result<(), String> {
        let count = self.servers.len();
        let mut ready = Ready::default();
        loop {
            let Some(peer) = &mut self.servers[at].peer else {
                return Ok(());
            };
            Arc::make_mut(peer).ready(&mut ready);
            if ready.is_empty() {
                return Ok(());
            }
            if let Some(fault) = &ready.fenced {
                return Err(format!("server {} withdraws: {fault}", at + 1));
            }
            for Envelope { to, message } in ready.messages.drain(..) {
                let to = to.0 as usize - 1;
                if self.servers[to].peer.is_some() {
                    self.wires[at * count + to].push_back(message);
                }
            }
            self.servers[at].writes.extend(ready.writes.drain(..));
            if let Some(replay) = ready.replay {
                let server = &self.servers[at];
                let queued = server.writes.iter().filter_map(|write| match write {
                    Write::Append(entry) => Some(entry.zxid),
                    _ => None,
                });
                let logged = server.log.iter().map(|entry| entry.zxid).chain(queued);
                let part = logged.filter(|&zxid| zxid > replay.after && zxid <= replay.upto);
                let part: Vec<Zxid> = part.collect();
                self.deliver(at, part)?;
            }
            let delivered: Vec<Zxid> = ready.deliver.iter().map(|entry| entry.zxid).collect();
            self.deliver(at, delivered)?;
            if let Some(Standing::Leading { epoch, .. }) = ready.standing {
                self.lead(epoch, at)?;
            }
            for read in std::mem::take(&mut ready.reads) {
                let piece = self.servers[at].read(read.what);
                if let Some(peer) = &mut self.servers[at].peer {
                    Arc::make_mut(peer).on_read(NOW, read.learner, read.tenure, piece);
                }
            }
        }
    }

    fn lead(&mut self, epoch: Epoch, at: usize) -> Result<(), String> {
        match self.leaders.iter().find(|(known, _)| *known == epoch) {
            Some((_, leader)) if *leader != at => Err(format!(
                "Z1: epoch {epoch} has the leaders {} and {}",
                leader + 1,
                at + 1
            )),
            Some(_) => Ok(()),
            None => {
                self.leaders.push((epoch, at));
                Ok(())
            }
        }
    }

    fn deliver(&mut self, at: usize, zxids: Vec<Zxid>) -> Result<(), String> {
        for zxid in zxids {
            let server = &mut self.servers[at];
            let place = server.delivered.len();
            server.delivered.push(zxid);
            match self.committed.get(place) {
                Some(&known) if known != zxid => {
                    return Err(format!(
                        "Z2: server {} delivers {zxid} where {known} was delivered",
                        at + 1
                    ));
                }
                Some(_) => {}
                None => self.committed.push(zxid),
            }
        }
        Ok(())
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), String> {
        for (at, server) in self.servers.iter().enumerate() {
            let newest = server.log.last().map_or(Epoch(0), |entry| entry.zxid.epoch);
            if server.accepted < server.current || server.accepted < newest {
                return Err(format!(
                    "Z12: server {} has accepted {}, holds {} and a log of {newest}",
                    at + 1,
                    server.accepted,
                    server.current
                ));
            }
        }
        // Committed transactions are a beginning of the logs of a quorum, on disk.
        let holds = |server: &&Server| {
            let zxids = server.log.iter().map(|entry| entry.zxid);
            zxids
                .take(self.committed.len())
                .eq(self.committed.iter().copied())
        };
        if self.servers.iter().filter(holds).count() <= self.servers.len() / 2 {
            return Err(format!(
                "Z9: {:?} is committed and not on a quorum of disks",
                self.committed.last()
            ));
        }
        Ok(())
    }

    fn count(&self, established: &mut Vec<u64>) {
        if let Some((epoch, _)) = self.leaders.iter().max() {
            let at = epoch.0 as usize;
            if established.len() <= at {
                established.resize(at + 1, 0);
            }
            established[at] += 1;
        }
    }
}

impl Server {
    fn make_durable(&mut self, write: Write) -> Result<Persisted, String> {
        match write {
            Write::AcceptedEpoch(epoch) => {
                self.accepted = epoch;
                Ok(Persisted::AcceptedEpoch(epoch))
            }
            Write::CurrentEpoch(epoch) => {
                self.current = epoch;
                Ok(Persisted::CurrentEpoch(epoch))
            }
            Write::Append(entry) => {
                let zxid = entry.zxid;
                self.log.push(entry);
                Ok(Persisted::Log(zxid))
            }
            Write::Truncate(to) => {
                self.log.retain(|entry| entry.zxid <= to);
                Ok(Persisted::Truncated(to))
            }
            Write::SnapshotBegin(_) | Write::SnapshotPiece(_) | Write::SnapshotEnd(_) => {
                Err("a snapshot was sent though no log was ever trimmed".into())
            }
        }
    }

    fn read(&self, what: ReadWhat) -> Piece {
        let ReadWhat::Log { after, upto, .. } = what else {
            return Piece::Gone;
        };
        // What is queued is as good as written for who reads the own log.
        let queued = self.writes.iter().filter_map(|write| match write {
            Write::Append(entry) => Some(entry),
            _ => None,
        });
        let all = self.log.iter().chain(queued);
        let part = all.filter(|entry| entry.zxid > after && entry.zxid <= upto);
        Piece::Entries(part.cloned().collect())
    }
}

/// Two independent 64-bit hashes of a state.
fn fingerprint(state: &State) -> u128 {
    let hash = |seed: u64| {
        let keys = ahash::RandomState::with_seeds(seed, !seed, seed << 7, 11);
        let mut hasher = std::hash::BuildHasher::build_hasher(&keys);
        state.hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(hash(3)) << 64) | u128::from(hash(1_000_003))
}

/// Time stands still.
const NOW: Millis = Millis(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zab::Plant;

    const BOUNDS: Bounds = Bounds {
        servers: 3,
        transactions: 2,
        crashes: 1,
        restarts: 0,
        resets: 0,
        from_nothing: false,
        plants: Plants::NONE,
    };
    const STATES_MAX: u64 = 1_000_000;

    #[test]
    fn every_order_of_a_crash_among_proposals_is_sound() {
        let explored = explore(BOUNDS, STATES_MAX);
        assert_eq!(explored.violation, None);
        assert!(
            explored.states < STATES_MAX,
            "it came to an end: {explored:?}"
        );
        assert!(explored.established[2] > 0, "leaders changed: {explored:?}");
    }

    #[test]
    fn every_order_of_a_crash_and_a_reset_is_sound() {
        let bounds = Bounds {
            transactions: 1,
            resets: 1,
            ..BOUNDS
        };
        let explored = explore(bounds, STATES_MAX);
        assert_eq!(explored.violation, None);
        assert!(
            explored.states < STATES_MAX,
            "it came to an end: {explored:?}"
        );
        assert!(
            explored.established[3] > 0,
            "leaders changed twice: {explored:?}"
        );
    }

    #[test]
    fn every_order_of_the_first_election_is_sound_with_a_crash_in_it() {
        let bounds = Bounds {
            transactions: 1,
            from_nothing: true,
            ..BOUNDS
        };
        let explored = explore(bounds, STATES_MAX);
        assert_eq!(explored.violation, None);
        assert!(
            explored.states < STATES_MAX,
            "it came to an end: {explored:?}"
        );
        assert!(
            explored.established[1] > 0,
            "a leader is found: {explored:?}"
        );
    }

    #[test]
    fn a_planted_fault_is_found_by_its_shortest_way() {
        let found = [
            (Plant::AckBeforeDurable, 0),
            (Plant::LeaderAckBeforeDurable, 0),
            (Plant::DeliversUncommitted, 0),
            (Plant::EstablishedByOne, 0),
            (Plant::CutsTooMuch, 0),
            (Plant::HistoryNotDurable, 1),
        ];
        for (plant, resets) in found {
            let bounds = Bounds {
                resets,
                plants: Plants::only(plant),
                transactions: 2 - resets,
                ..BOUNDS
            };
            let explored = explore(bounds, STATES_MAX);
            assert!(explored.violation.is_some(), "{plant:?}: {explored:?}");
        }
    }
}
