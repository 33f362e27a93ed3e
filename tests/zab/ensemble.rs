//! A few peers on perfect wires, moved step by step: what is sent waits in order until it is
//! delivered, what is written waits until it is made durable, time stands until it is moved.
//!
//! Nothing here is random. Scripts read like the story they tell, and every message passes
//! through a trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use systole::time::Millis;
use systole::types::{Epoch, ServerId, Zxid};
use systole::zab::{
    Barrier, Body, Boot, Ensemble as Members, Entry, Envelope, Fault, Limits, Message, Peer,
    Persisted, Phase, Piece, Plants, ProposeError, Read, ReadWhat, Ready, Settings, Stance,
    Standing, Summary, Timing, Write,
};

/// The peers, their disks, and the wires between them.
pub(crate) struct Ensemble {
    pub(crate) now: Millis,
    pub(crate) servers: BTreeMap<u32, Server>,
    members: Members,
    limits: Limits,
    plants: Plants,
    /// What is under way, by sender and receiver.
    wires: BTreeMap<(u32, u32), VecDeque<Message>>,
    cut: BTreeSet<(u32, u32)>,
    trace: String,
    starts: u64,
}

/// One server.
pub(crate) struct Server {
    pub(crate) peer: Option<Peer>,
    pub(crate) disk: Disk,
    /// Asked for and not yet made durable.
    pub(crate) writes: VecDeque<Write>,
    /// If false, writes wait for [`Ensemble::sync`].
    pub(crate) syncs: bool,
    pub(crate) delivered: Vec<Entry>,
    pub(crate) standings: Vec<Standing>,
    pub(crate) barriers: Vec<Barrier>,
    pub(crate) payloads: Vec<(u32, String)>,
    pub(crate) fault: Option<Fault>,
    receiving: Vec<u8>,
}

/// What would survive.
#[derive(Clone, Default, Debug, PartialEq)]
pub(crate) struct Disk {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// The state as of a zxid: here, all transactions up to it.
    pub(crate) snapshot: Option<(Zxid, Vec<Entry>)>,
    /// The log begins after this.
    pub(crate) base: Zxid,
    pub(crate) log: Vec<Entry>,
}

impl Disk {
    /// A disk with this log, as left by a server whose current epoch is `current`.
    pub(crate) fn with(current: u64, log: &[(u64, u64)]) -> Disk {
        let entry = |&(epoch, counter): &(u64, u64)| Entry {
            zxid: Zxid::new(Epoch(epoch), counter),
            payload: Arc::from(format!("{epoch}.{counter}").as_bytes()),
        };
        Disk {
            accepted: Epoch(current),
            current: Epoch(current),
            log: log.iter().map(entry).collect(),
            ..Disk::default()
        }
    }

    /// The zxids of the log, as text.
    pub(crate) fn zxids(&self) -> String {
        let zxids: Vec<String> = self.log.iter().map(|e| e.zxid.to_string()).collect();
        zxids.join(" ")
    }

    fn summary(&self) -> Summary {
        let mut ends: Vec<Zxid> = Vec::new();
        for entry in &self.log {
            match ends.last_mut() {
                Some(end) if end.epoch == entry.zxid.epoch => *end = entry.zxid,
                _ => ends.push(entry.zxid),
            }
        }
        Summary {
            base: self.base,
            ends,
        }
    }

    /// Takes a snapshot as of `zxid` and has the log begin after it.
    pub(crate) fn snapshot_and_trim(&mut self, zxid: Zxid) {
        let mut state = self.snapshot.take().map_or(Vec::new(), |(_, state)| state);
        let split = self.log.partition_point(|entry| entry.zxid <= zxid);
        state.extend(self.log.drain(..split));
        self.snapshot = Some((zxid, state));
        self.base = zxid;
    }
}

impl Ensemble {
    /// `voters` servers with empty disks, 1 to `voters`, none of them started.
    pub(crate) fn new(voters: u32) -> Ensemble {
        Ensemble::with_observers(voters, 0)
    }

    /// Observers come behind the voters.
    pub(crate) fn with_observers(voters: u32, observers: u32) -> Ensemble {
        let ids = |range: std::ops::RangeInclusive<u32>| -> Vec<ServerId> {
            range.map(ServerId).collect()
        };
        let all = voters + observers;
        let members = Members::new(1, &ids(1..=voters), &ids(voters + 1..=all));
        Ensemble {
            now: Millis(0),
            servers: (1..=all)
                .map(|id| (id, Server::new(Disk::default())))
                .collect(),
            members,
            limits: Limits::DEFAULT,
            plants: Plants::NONE,
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            trace: String::new(),
            starts: 0,
        }
    }

    pub(crate) fn limits(mut self, limits: Limits) -> Ensemble {
        self.limits = limits;
        self
    }

    pub(crate) fn plants(mut self, plants: Plants) -> Ensemble {
        self.plants = plants;
        self
    }

    /// Gives a server that is not running another disk.
    pub(crate) fn put(&mut self, id: u32, disk: Disk) {
        assert!(self.server(id).peer.is_none(), "{id} runs");
        self.server(id).disk = disk;
    }

    pub(crate) fn server(&mut self, id: u32) -> &mut Server {
        self.servers
            .get_mut(&id)
            .expect("the script names a server")
    }

    pub(crate) fn peer(&mut self, id: u32) -> &mut Peer {
        let server = self.server(id);
        server
            .peer
            .as_mut()
            .expect("the script names a running server")
    }

    pub(crate) fn phase(&mut self, id: u32) -> Phase {
        self.peer(id).phase()
    }

    /// Starts a server on what its disk holds. Those that run are connected with it.
    pub(crate) fn start(&mut self, id: u32) {
        self.note(&format!("{id} starts"));
        self.starts += 1;
        let settings = Settings {
            id: ServerId(id),
            ensemble: self.members.clone(),
            timing: Timing::DEFAULT,
            limits: self.limits,
            plants: self.plants,
        };
        let nonce = self.starts;
        let server = self.server(id);
        let disk = &server.disk;
        let snapshot = disk.snapshot.clone();
        let boot = Boot {
            accepted_epoch: disk.accepted,
            current_epoch: disk.current,
            history: disk.summary(),
            snapshot: snapshot.as_ref().map(|(zxid, _)| *zxid),
            delivered: snapshot.as_ref().map_or(Zxid::ZERO, |(zxid, _)| *zxid),
            nonce,
        };
        server.delivered = snapshot.map_or(Vec::new(), |(_, state)| state);
        server.peer = Some(Peer::new(settings, boot));
        let now = self.now;
        self.peer(id).start(now);
        self.take(id);
        let others: Vec<u32> = self.servers.keys().copied().filter(|&o| o != id).collect();
        for other in others {
            self.connect(id, other);
        }
    }

    /// Starts all servers, and lets them come to rest.
    pub(crate) fn start_all(&mut self) {
        let ids: Vec<u32> = self.servers.keys().copied().collect();
        for id in ids {
            self.start(id);
        }
        self.settle();
    }

    /// Power is lost: what was not durable is gone, what was under way too.
    pub(crate) fn crash(&mut self, id: u32) {
        self.note(&format!("{id} crashes"));
        let disk = self.server(id).disk.clone();
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
    pub(crate) fn cut(&mut self, a: u32, b: u32, noticed: bool) {
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
    pub(crate) fn join(&mut self, a: u32, b: u32) {
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
    pub(crate) fn propose(&mut self, id: u32, text: &str) -> Result<Zxid, ProposeError> {
        let now = self.now;
        let proposed = self.peer(id).propose(now, Arc::from(text.as_bytes()));
        if let Ok(zxid) = proposed {
            self.note(&format!("{id} proposes {zxid}"));
        }
        self.take(id);
        proposed
    }

    /// What is queued at `id` becomes durable.
    pub(crate) fn sync(&mut self, id: u32) {
        while let Some(write) = self.server(id).writes.pop_front() {
            self.make_durable(id, write);
        }
    }

    /// Delivers the oldest message from `from` to `to`; false if there is none.
    pub(crate) fn deliver(&mut self, from: u32, to: u32) -> bool {
        let Some(message) = self
            .wires
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front)
        else {
            return false;
        };
        if self.server(to).peer.is_some() {
            let line = format!("{from} → {to}  {}", describe(&message));
            self.note(&line);
            let now = self.now;
            self.peer(to).on_message(now, ServerId(from), message);
            self.take(to);
        }
        true
    }

    /// Delivers and syncs until nothing is left to do at this time.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let ids: Vec<u32> = self.servers.keys().copied().collect();
            let mut moved = false;
            for &id in &ids {
                if self.server(id).syncs && !self.server(id).writes.is_empty() {
                    self.sync(id);
                    moved = true;
                }
            }
            let wires: Vec<(u32, u32)> = self.wires.keys().copied().collect();
            for (from, to) in wires {
                moved |= self.deliver(from, to);
            }
            if !moved {
                return;
            }
        }
        panic!("the servers never stop talking");
    }

    /// Moves time on by `ms`, in steps, each settled.
    pub(crate) fn pass(&mut self, ms: u64) {
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
    pub(crate) fn leader(&self) -> Option<u32> {
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
    pub(crate) fn delivered(&self, id: u32) -> Vec<String> {
        let entries = self.servers[&id].delivered.iter();
        entries
            .map(|e| String::from_utf8_lossy(&e.payload).into_owned())
            .collect()
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, line: &str) {
        self.trace.push_str(line);
        self.trace.push('\n');
    }

    /// What has happened so far, and forgets it.
    pub(crate) fn trace(&mut self) -> String {
        std::mem::take(&mut self.trace)
    }

    /// Takes what a peer asks for.
    fn take(&mut self, id: u32) {
        let mut ready = Ready::default();
        self.peer(id).ready(&mut ready);
        for write in ready.writes.drain(..) {
            if !matches!(write, Write::Append(_)) {
                self.note(&format!("{id}       writes {}", describe_write(&write)));
            }
            self.server(id).writes.push_back(write);
        }
        for Envelope { to, message } in ready.messages.drain(..) {
            if !self.cut.contains(&(id, to.0)) {
                self.wires.entry((id, to.0)).or_default().push_back(message);
            }
        }
        if let Some(replay) = ready.replay {
            self.sync(id);
            let server = self.server(id);
            let log = server.disk.log.iter();
            let part = log.filter(|e| e.zxid > replay.after && e.zxid <= replay.upto);
            server.delivered.extend(part.cloned().collect::<Vec<_>>());
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
        if let Some(standing) = ready.standing.take() {
            server.standings.push(standing.clone());
            self.note(&format!("{id}       {}", describe_standing(&standing)));
        }
        for read in std::mem::take(&mut ready.reads) {
            let piece = self.server(id).disk.read(read);
            let now = self.now;
            self.peer(id).on_read(now, read.learner, read.tenure, piece);
            self.take(id);
        }
    }

    fn make_durable(&mut self, id: u32, write: Write) {
        let server = self.server(id);
        let disk = &mut server.disk;
        let persisted = match write {
            Write::AcceptedEpoch(epoch) => {
                disk.accepted = epoch;
                Persisted::AcceptedEpoch(epoch)
            }
            Write::CurrentEpoch(epoch) => {
                disk.current = epoch;
                Persisted::CurrentEpoch(epoch)
            }
            Write::Append(entry) => {
                let zxid = entry.zxid;
                disk.log.push(entry);
                Persisted::Log(zxid)
            }
            Write::Truncate(to) => {
                disk.log.retain(|entry| entry.zxid <= to);
                Persisted::Truncated(to)
            }
            Write::SnapshotBegin(_) => {
                server.receiving.clear();
                return;
            }
            Write::SnapshotPiece(bytes) => {
                server.receiving.extend_from_slice(&bytes);
                return;
            }
            Write::SnapshotEnd(zxid) => {
                let state = decode(&server.receiving);
                server.delivered.clone_from(&state);
                *disk = Disk {
                    accepted: disk.accepted,
                    current: disk.current,
                    snapshot: Some((zxid, state)),
                    base: zxid,
                    log: Vec::new(),
                };
                Persisted::Snapshot(zxid)
            }
        };
        let now = self.now;
        self.peer(id).on_persisted(now, persisted);
        self.take(id);
    }
}

impl Server {
    fn new(disk: Disk) -> Server {
        Server {
            peer: None,
            disk,
            writes: VecDeque::new(),
            syncs: true,
            delivered: Vec::new(),
            standings: Vec::new(),
            barriers: Vec::new(),
            payloads: Vec::new(),
            fault: None,
            receiving: Vec::new(),
        }
    }
}

impl Disk {
    fn read(&self, read: Read) -> Piece {
        match read.what {
            ReadWhat::Log {
                after,
                upto,
                bytes_max,
            } => {
                if after < self.base {
                    return Piece::Gone;
                }
                let mut bytes = 0;
                let log = self.log.iter();
                let part = log.filter(|e| e.zxid > after && e.zxid <= upto);
                let part = part.take_while(|entry| {
                    let room = bytes < bytes_max;
                    bytes += entry.payload.len();
                    room
                });
                Piece::Entries(part.cloned().collect())
            }
            ReadWhat::Snapshot {
                zxid,
                offset,
                bytes_max,
            } => {
                let Some((_, state)) = self.snapshot.as_ref().filter(|(at, _)| *at == zxid) else {
                    return Piece::Gone;
                };
                let whole = encode(state);
                let from = offset as usize;
                let to = whole.len().min(from + bytes_max);
                Piece::Snapshot {
                    bytes: Arc::from(&whole[from..to]),
                    last: to == whole.len(),
                }
            }
        }
    }
}

fn encode(state: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in state {
        bytes.extend_from_slice(&entry.zxid.to_bytes());
        bytes.push(entry.payload.len() as u8);
        bytes.extend_from_slice(&entry.payload);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Vec<Entry> {
    let mut state = Vec::new();
    while let Some((zxid, rest)) = bytes.split_first_chunk::<16>() {
        let (payload, rest) = rest[1..].split_at(usize::from(rest[0]));
        state.push(Entry {
            zxid: Zxid::from_bytes(*zxid),
            payload: Arc::from(payload),
        });
        bytes = rest;
    }
    state
}

/// A message as a trace shows it.
fn describe(message: &Message) -> String {
    let body = match message {
        Message::Vote(said) => {
            let stance = match said.stance {
                Stance::Looking => "looking for",
                Stance::Following => "following",
                Stance::Leading => "leading as",
            };
            let data = if said.holds_data {
                ""
            } else {
                ", without data"
            };
            return format!(
                "Vote(round {}, {stance} {} with epoch {} and {}{data})",
                said.round, said.vote.leader, said.vote.epoch, said.vote.zxid
            );
        }
        Message::Link { body, .. } => body,
    };
    match body {
        Body::FollowerInfo { accepted_epoch, .. } => {
            format!("FollowerInfo(accepted {accepted_epoch})")
        }
        Body::LeaderInfo { epoch, .. } => format!("LeaderInfo(epoch {epoch})"),
        Body::AckEpoch {
            current_epoch,
            promises,
            history,
        } => {
            let mut text = format!("AckEpoch(current {current_epoch}, base {}", history.base);
            for end in &history.ends {
                let _ = write!(text, ", {end}");
            }
            text + if *promises { ")" } else { ", no promise)" }
        }
        Body::Diff { after } => format!("Diff(after {after})"),
        Body::Trunc { to } => format!("Trunc(to {to})"),
        Body::Snap { zxid } => format!("Snap({zxid})"),
        Body::SnapPiece { bytes, last } => {
            let end = if *last { ", the last" } else { "" };
            format!("SnapPiece({} bytes{end})", bytes.len())
        }
        Body::Proposal(entry) => format!("Proposal({})", entry.zxid),
        Body::NewLeader { epoch, upto } => format!("NewLeader(epoch {epoch}, upto {upto})"),
        Body::AckNewLeader { epoch } => format!("AckNewLeader(epoch {epoch})"),
        Body::UpToDate { committed } => format!("UpToDate(committed {committed})"),
        Body::Ack { zxid } => format!("Ack({zxid})"),
        Body::Commit { upto } => format!("Commit(upto {upto})"),
        Body::Inform(entry) => format!("Inform({})", entry.zxid),
        Body::Ping { round } => format!("Ping({round})"),
        Body::Pong { round, loyal } => {
            format!("Pong({round}{})", if *loyal { ", loyal" } else { "" })
        }
        Body::Payload(bytes) => format!("Payload({} bytes)", bytes.len()),
        Body::Close => "Close".into(),
    }
}

fn describe_write(write: &Write) -> String {
    match write {
        Write::AcceptedEpoch(epoch) => format!("accepted epoch {epoch}"),
        Write::CurrentEpoch(epoch) => format!("current epoch {epoch}"),
        Write::Truncate(to) => format!("the cut after {to}"),
        Write::SnapshotBegin(zxid) => format!("the beginning of the snapshot {zxid}"),
        Write::SnapshotPiece(bytes) => format!("{} bytes of the snapshot", bytes.len()),
        Write::SnapshotEnd(zxid) => format!("the snapshot {zxid} in place of its history"),
        Write::Append(entry) => format!("transaction {}", entry.zxid),
    }
}

fn describe_standing(standing: &Standing) -> String {
    match standing {
        Standing::Recovering => "has no leader".into(),
        Standing::Following { leader, epoch } => format!("follows {leader} in epoch {epoch}"),
        Standing::Leading { epoch, active } => {
            let active: Vec<String> = active.iter().map(ToString::to_string).collect();
            format!("leads epoch {epoch} with {}", active.join(" "))
        }
    }
}
