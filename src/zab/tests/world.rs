//! A small world for a few servers: virtual time, FIFO connections, disks in memory. It does
//! nothing at random; what goes wrong is what a test does to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::disk::Disk;
use crate::time::Millis;
use crate::types::{ServerId, Zxid};
use crate::zab::{
    Boot, Ensemble, Entry, Envelope, Limits, Message, Persisted, Piece, Plants, Read, Replay,
    Settings, Tenure, Timing, Write,
};

/// What the world can run: a peer, or something built on one.
pub(crate) trait Machine: Sized {
    /// Built from what is on the disk.
    fn new(settings: Settings, boot: Boot, disk: &Disk) -> Self;
    /// Gives it this, and takes what it puts out.
    fn step(&mut self, now: Millis, input: Input) -> Output;
    /// When it wants to be ticked.
    fn deadline(&self) -> Millis;
    /// The state it holds, and as of when.
    fn save(&self) -> (Zxid, Vec<u8>);
}

pub(crate) enum Input {
    Start,
    Tick,
    Message(ServerId, Message),
    Connected(ServerId),
    Disconnected(ServerId),
    Persisted(Persisted),
    Read(ServerId, Tenure, Piece),
    Replayed(Entry),
    Restore(Zxid, Vec<u8>),
    SnapshotTaken(Zxid),
    Trimmed(Zxid),
    WriteFailed,
    /// Nothing: the test has called a command itself.
    Nothing,
}

#[derive(Default)]
pub(crate) struct Output {
    pub(crate) writes: Vec<Write>,
    pub(crate) messages: Vec<Envelope>,
    pub(crate) reads: Vec<Read>,
    pub(crate) replay: Option<Replay>,
    pub(crate) fenced: bool,
}

/// The servers and all between them.
pub(crate) struct World<M> {
    pub(crate) now: Millis,
    /// For servers that start from now on; the id is put in.
    pub(crate) settings: Settings,
    hosts: BTreeMap<ServerId, Host<M>>,
    wires: BTreeMap<(ServerId, ServerId), VecDeque<(usize, Message)>>,
    /// Ways that carry nothing: what is sent is lost.
    cut: BTreeSet<(ServerId, ServerId)>,
    /// Ways on which messages pile up.
    held: BTreeSet<(ServerId, ServerId)>,
    /// Every message that was sent, in order.
    pub(crate) sent: Vec<Sent>,
    /// Servers that have ended, in order.
    pub(crate) ended: Vec<M>,
    starts: u64,
}

/// A message that was sent.
pub(crate) struct Sent {
    pub(crate) from: ServerId,
    pub(crate) to: ServerId,
    pub(crate) message: Message,
}

struct Host<M> {
    machine: Option<M>,
    disk: Disk,
    /// Work for the disk, in order; lost with the server.
    work: VecDeque<Work>,
    /// True while the disk does nothing.
    stuck: bool,
    /// True while the log is not read for the application.
    no_replay: bool,
}

enum Work {
    Write(Write),
    Read(Read),
    Replay(Replay),
}

impl<M: Machine> World<M> {
    /// Servers 1 to `voters`, of which none runs yet.
    pub(crate) fn new(voters: u32) -> World<M> {
        World::with(voters, 0)
    }

    /// Voters, and observers with the ids behind theirs.
    pub(crate) fn with(voters: u32, observers: u32) -> World<M> {
        let ids: Vec<ServerId> = (1..=voters + observers).map(ServerId).collect();
        let (voting, observing) = ids.split_at(voters as usize);
        let host = |id: &ServerId| (*id, Host::new());
        World {
            now: Millis(1_000),
            settings: Settings {
                id: ServerId(1),
                ensemble: Ensemble::new(1, voting, observing),
                timing: Timing::DEFAULT,
                limits: Limits::DEFAULT,
                plants: Plants::NONE,
            },
            hosts: ids.iter().map(host).collect(),
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            sent: Vec::new(),
            ended: Vec::new(),
            starts: 0,
        }
    }

    /// Servers 1 to `voters`, started, with an established leader.
    pub(crate) fn running(voters: u32) -> World<M> {
        let mut world = World::new(voters);
        world.start_all();
        world.run(3_000);
        world
    }

    pub(crate) fn ids(&self) -> Vec<ServerId> {
        self.hosts.keys().copied().collect()
    }

    /// Those that run.
    pub(crate) fn alive(&self) -> Vec<ServerId> {
        let alive = self.hosts.iter().filter(|(_, host)| host.machine.is_some());
        alive.map(|(id, _)| *id).collect()
    }

    pub(crate) fn start_all(&mut self) {
        for id in self.ids() {
            if self.hosts[&id].machine.is_none() {
                self.start(id.0);
            }
        }
    }

    pub(crate) fn start(&mut self, id: u32) {
        let id = ServerId(id);
        self.starts += 1;
        let settings = Settings {
            id,
            ..self.settings.clone()
        };
        let nonce = self.starts;
        let host = self.host(id);
        assert!(host.machine.is_none(), "{id} runs");
        host.machine = Some(M::new(settings, host.disk.boot(nonce), &host.disk));
        self.input(id, Input::Start);
        for other in self.alive() {
            if other != id && !self.cut.contains(&(id, other)) {
                self.input(id, Input::Connected(other));
                self.input(other, Input::Connected(id));
            }
        }
    }

    /// Power is lost: what was not written is gone, and what was on its way too.
    pub(crate) fn crash(&mut self, id: u32) {
        let id = ServerId(id);
        let host = self.host(id);
        let ended = host.machine.take();
        host.work.clear();
        host.stuck = false;
        self.ended.extend(ended);
        self.lose(|from, to| from == id || to == id);
        for other in self.alive() {
            self.input(other, Input::Disconnected(id));
        }
    }

    /// Cuts the ways between these two.
    pub(crate) fn cut(&mut self, a: u32, b: u32) {
        for (from, to) in [(a, b), (b, a)].map(|(a, b)| (ServerId(a), ServerId(b))) {
            self.cut.insert((from, to));
            self.lose(|f, t| (f, t) == (from, to));
            self.input(from, Input::Disconnected(to));
        }
    }

    /// Cuts `id` off from everybody.
    pub(crate) fn isolate(&mut self, id: u32) {
        for other in self.ids() {
            if other.0 != id {
                self.cut(id, other.0);
            }
        }
    }

    /// Ends all cuts and holds.
    pub(crate) fn heal(&mut self) {
        self.held.clear();
        for (from, to) in std::mem::take(&mut self.cut) {
            if self.hosts[&to].machine.is_some() {
                self.input(from, Input::Connected(to));
            }
        }
    }

    /// Lets messages pile up on the way from `from` to `to`.
    pub(crate) fn hold(&mut self, from: u32, to: u32) {
        self.held.insert((ServerId(from), ServerId(to)));
    }

    /// Ends [`World::hold`].
    pub(crate) fn release(&mut self, from: u32, to: u32) {
        self.held.remove(&(ServerId(from), ServerId(to)));
    }

    /// What has piled up on a way.
    pub(crate) fn on_the_way(&self, from: u32, to: u32) -> usize {
        let way = (ServerId(from), ServerId(to));
        self.wires.get(&way).map_or(0, VecDeque::len)
    }

    /// Stops or frees a disk.
    pub(crate) fn stick(&mut self, id: u32, stuck: bool) {
        self.host(ServerId(id)).stuck = stuck;
    }

    /// Stops or frees the reading of a log for the application, and all work behind it.
    pub(crate) fn stop_replay(&mut self, id: u32, stopped: bool) {
        self.host(ServerId(id)).no_replay = stopped;
    }

    /// Has a stuck disk finish this many pieces of work.
    pub(crate) fn finish_work(&mut self, id: u32, pieces: usize) {
        for _ in 0..pieces {
            self.work(ServerId(id));
        }
    }

    /// Work that waits for the disk.
    pub(crate) fn writes_waiting(&self, id: u32) -> Vec<Write> {
        let work = self.hosts[&ServerId(id)].work.iter();
        let writes = work.filter_map(|work| match work {
            Work::Write(write) => Some(write.clone()),
            Work::Read(_) | Work::Replay(_) => None,
        });
        writes.collect()
    }

    /// Takes a snapshot of a server's state and cuts its log.
    pub(crate) fn snapshot(&mut self, id: u32) {
        let id = ServerId(id);
        let (zxid, content) = self.machine(id.0).save();
        self.host(id).disk.keep_snapshot(zxid, content);
        self.input(id, Input::SnapshotTaken(zxid));
        self.input(id, Input::Trimmed(zxid));
    }

    pub(crate) fn disk(&self, id: u32) -> &Disk {
        &self.hosts[&ServerId(id)].disk
    }

    /// The disk of a server that does not run.
    pub(crate) fn disk_mut(&mut self, id: u32) -> &mut Disk {
        let host = self.host(ServerId(id));
        assert!(host.machine.is_none(), "{id} runs");
        &mut host.disk
    }

    pub(crate) fn machine(&self, id: u32) -> &M {
        let machine = self.hosts[&ServerId(id)].machine.as_ref();
        machine.expect("it runs")
    }

    /// Does something with a server, then what it asks for.
    pub(crate) fn with_machine<T>(&mut self, id: u32, act: impl FnOnce(&mut M, Millis) -> T) -> T {
        let now = self.now;
        let machine = self.host(ServerId(id)).machine.as_mut();
        let result = act(machine.expect("it runs"), now);
        self.input(ServerId(id), Input::Nothing);
        result
    }

    /// Does all that can be done now.
    pub(crate) fn settle(&mut self) {
        let steps = self.steps(STEPS_MAX);
        assert!(steps < STEPS_MAX, "the world does not come to rest");
    }

    /// Does at most this much of what can be done now, a piece of disk work or a message at a
    /// time: disks first, then messages in the order in which they were sent. How much was done.
    pub(crate) fn steps(&mut self, max: usize) -> usize {
        for done in 0..max {
            let worker = self.hosts.iter().find(|(_, host)| host.can_work());
            if let Some(id) = worker.map(|(id, _)| *id) {
                self.work(id);
                continue;
            }
            let wires = self
                .wires
                .iter()
                .filter(|(way, _)| !self.held.contains(way));
            let oldest = wires
                .filter_map(|(way, wire)| Some((wire.front()?.0, *way)))
                .min();
            let Some((_, way)) = oldest else {
                return done;
            };
            self.carry(way);
        }
        max
    }

    /// Lets this much time pass.
    pub(crate) fn run(&mut self, millis: u64) {
        let end = self.now + Millis(millis);
        self.settle();
        loop {
            let hosts = self
                .hosts
                .iter()
                .filter_map(|(id, host)| Some((id, host.machine.as_ref()?)));
            let next = hosts.map(|(id, machine)| (machine.deadline(), *id)).min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= end) else {
                break;
            };
            // A deadline that has passed and does not move must not stop time.
            self.now = at.max(self.now + Millis(1)).min(end.max(self.now));
            self.input(id, Input::Tick);
            let next = self.hosts[&id].machine.as_ref().map(M::deadline);
            assert!(
                next.is_none_or(|next| next > self.now),
                "{id} would be ticked again at once"
            );
            self.settle();
            if self.now >= end {
                break;
            }
        }
        self.now = end;
    }

    /// Lets time pass until this holds.
    pub(crate) fn run_until(&mut self, what: &str, mut holds: impl FnMut(&World<M>) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            self.run(10);
        }
        panic!("20 s have passed, and not: {what}");
    }

    fn host(&mut self, id: ServerId) -> &mut Host<M> {
        self.hosts.get_mut(&id).expect("it is of the world")
    }

    /// Carries the oldest message of a way.
    fn carry(&mut self, way: (ServerId, ServerId)) {
        let message = self.wires.get_mut(&way).and_then(VecDeque::pop_front);
        if let Some((_, message)) = message {
            self.input(way.1, Input::Message(way.0, message));
        }
    }

    /// Has a disk do the next piece of work.
    fn work(&mut self, id: ServerId) {
        let host = self.host(id);
        match host.work.pop_front() {
            Some(Work::Write(write)) => {
                let Some(persisted) = host.disk.write(&write) else {
                    return;
                };
                if let Persisted::Snapshot(zxid) = persisted {
                    let content = host.disk.snapshot.as_ref().expect("it is there").1.to_vec();
                    self.input(id, Input::Restore(zxid, content));
                }
                self.input(id, Input::Persisted(persisted));
            }
            Some(Work::Read(read)) => {
                let piece = host.disk.read(read.what);
                self.input(id, Input::Read(read.learner, read.tenure, piece));
            }
            Some(Work::Replay(replay)) => {
                for entry in host.disk.entries(replay.after, replay.upto) {
                    self.input(id, Input::Replayed(entry));
                }
            }
            None => {}
        }
    }

    /// Gives a server an input and takes its output.
    pub(crate) fn input(&mut self, id: ServerId, input: Input) {
        let now = self.now;
        let host = self.host(id);
        let Some(machine) = &mut host.machine else {
            return;
        };
        let output = machine.step(now, input);
        host.work.extend(output.writes.into_iter().map(Work::Write));
        host.work.extend(output.reads.into_iter().map(Work::Read));
        host.work.extend(output.replay.map(Work::Replay));
        if output.fenced {
            // It ends: nothing more is written or said.
            return self.crash(id.0);
        }
        for Envelope { to, message } in output.messages {
            if !self.cut.contains(&(id, to)) {
                let wire = self.wires.entry((id, to)).or_default();
                wire.push_back((self.sent.len(), message.clone()));
            }
            let from = id;
            self.sent.push(Sent { from, to, message });
        }
    }

    fn lose(&mut self, lost: impl Fn(ServerId, ServerId) -> bool) {
        self.wires.retain(|(from, to), _| !lost(*from, *to));
    }
}

impl<M> Host<M> {
    fn can_work(&self) -> bool {
        match self.work.front() {
            Some(Work::Replay(_)) => !self.stuck && !self.no_replay,
            Some(Work::Write(_) | Work::Read(_)) => !self.stuck,
            None => false,
        }
    }

    fn new() -> Host<M> {
        Host {
            machine: None,
            disk: Disk::default(),
            work: VecDeque::new(),
            stuck: false,
            no_replay: false,
        }
    }
}

/// More steps than any test here needs between two ticks.
const STEPS_MAX: usize = 100_000;
