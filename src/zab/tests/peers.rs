//! Bare peers in the world, and what they said and delivered.

use std::sync::Arc;

use super::disk::Disk;
use super::world::{Input, Machine, Output, World};
use crate::time::Millis;
use crate::types::{Epoch, Zxid};
use crate::zab::{
    Barrier, Body, Boot, Entry, Fault, Message, Peer, Phase, ProposeError, Ready, Settings,
    Standing,
};

/// A peer, and what it gave its application.
pub(super) struct Server {
    pub(super) peer: Peer,
    ready: Ready,
    /// What it did that the paper speaks of.
    pub(super) events: Vec<Event>,
    /// Delivered, or restored from a snapshot.
    pub(super) delivered: Vec<Entry>,
    /// How far the log is being read for the application, and what waits for that.
    replaying: Option<Zxid>,
    waiting: Vec<Entry>,
    pub(super) standings: Vec<Standing>,
    pub(super) barriers: Vec<Barrier>,
    pub(super) fault: Option<Fault>,
}

/// The two things of which the paper's properties speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Broadcast(Entry),
    Delivered(Entry),
}

impl Machine for Server {
    fn new(settings: Settings, boot: Boot, disk: &Disk) -> Server {
        let snapshot = disk.snapshot.as_ref();
        let delivered = snapshot
            .map(|(_, content)| entries_in(content))
            .unwrap_or_default();
        Server {
            peer: Peer::new(settings, boot),
            ready: Ready::default(),
            events: delivered.iter().cloned().map(Event::Delivered).collect(),
            delivered,
            replaying: None,
            waiting: Vec::new(),
            standings: Vec::new(),
            barriers: Vec::new(),
            fault: None,
        }
    }

    fn step(&mut self, now: Millis, input: Input) -> Output {
        let peer = &mut self.peer;
        match input {
            Input::Start => peer.start(now),
            Input::Tick => peer.tick(now),
            Input::Message(from, message) => peer.on_message(now, from, message),
            Input::Connected(other) => peer.on_connected(now, other),
            Input::Disconnected(other) => peer.on_disconnected(now, other),
            Input::Persisted(persisted) => peer.on_persisted(now, persisted),
            Input::Read(learner, tenure, piece) => peer.on_read(now, learner, tenure, piece),
            Input::Replayed(entry) => self.replayed(entry),
            Input::Restore(_, content) => self.restore(&content),
            Input::SnapshotTaken(zxid) => peer.on_snapshot_taken(zxid),
            Input::Trimmed(zxid) => peer.on_trimmed(zxid),
            Input::WriteFailed => peer.on_write_failed(),
            Input::Nothing => {}
        }
        self.peer.ready(&mut self.ready);
        if let Some(replay) = self.ready.replay {
            assert_eq!(self.replaying, None, "one at a time");
            self.replaying = Some(replay.upto);
        }
        let delivered = std::mem::take(&mut self.ready.deliver);
        match self.replaying {
            Some(_) => self.waiting.extend(delivered),
            None => self.deliver(delivered),
        }
        let ready = &mut self.ready;
        self.standings.extend(ready.standing.take());
        self.barriers.append(&mut ready.barriers);
        self.fault = ready.fenced.take();
        Output {
            writes: std::mem::take(&mut ready.writes),
            messages: std::mem::take(&mut ready.messages),
            reads: std::mem::take(&mut ready.reads),
            replay: ready.replay,
            fenced: self.fault.is_some(),
        }
    }

    fn deadline(&self) -> Millis {
        self.peer.deadline()
    }

    fn save(&self) -> (Zxid, Vec<u8>) {
        let last = self.delivered.last().map_or(Zxid::ZERO, |entry| entry.zxid);
        let mut content = Vec::new();
        for Entry { zxid, payload } in &self.delivered {
            content.extend_from_slice(&zxid.to_bytes());
            content.push(u8::try_from(payload.len()).expect("payloads are short here"));
            content.extend_from_slice(payload);
        }
        (last, content)
    }
}

impl Server {
    fn replayed(&mut self, entry: Entry) {
        if self.replaying == Some(entry.zxid) {
            self.replaying = None;
        }
        self.deliver(vec![entry]);
        if self.replaying.is_none() {
            let waiting = std::mem::take(&mut self.waiting);
            self.deliver(waiting);
        }
    }

    fn deliver(&mut self, entries: Vec<Entry>) {
        let events = entries.iter().cloned().map(Event::Delivered);
        self.events.extend(events);
        self.delivered.extend(entries);
    }

    /// A snapshot delivers what this server has not delivered yet; what it has must be in it.
    fn restore(&mut self, content: &[u8]) {
        let entries = entries_in(content);
        let held = self.delivered.len();
        assert_eq!(
            entries[..held],
            self.delivered,
            "a snapshot takes nothing back"
        );
        self.deliver(entries[held..].to_vec());
    }
}

/// The transactions that a snapshot of [`Server::save`] holds.
fn entries_in(mut content: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((zxid, rest)) = content.split_first_chunk() {
        let (length, rest) = rest.split_first().expect("a length");
        let (payload, rest) = rest.split_at(usize::from(*length));
        entries.push(Entry {
            zxid: Zxid::from_bytes(*zxid),
            payload: payload.into(),
        });
        content = rest;
    }
    entries
}

pub(super) type Peers = World<Server>;

impl Peers {
    pub(super) fn peer(&self, id: u32) -> &Peer {
        &self.machine(id).peer
    }

    pub(super) fn phase(&self, id: u32) -> Phase {
        self.peer(id).phase()
    }

    pub(super) fn propose(&mut self, id: u32, text: &str) -> Result<Zxid, ProposeError> {
        let payload: Arc<[u8]> = text.as_bytes().into();
        self.with_machine(id, |server, now| {
            let zxid = server.peer.propose(now, Arc::clone(&payload))?;
            server
                .events
                .push(Event::Broadcast(Entry { zxid, payload }));
            Ok(zxid)
        })
    }

    /// Proposes these one after the other and lets the world come to rest.
    pub(super) fn propose_all(&mut self, id: u32, texts: &[&str]) {
        for text in texts {
            self.propose(id, text).expect("it leads, and there is room");
        }
        self.settle();
    }

    /// The texts delivered at a server, in order.
    pub(super) fn texts(&self, id: u32) -> Vec<String> {
        let texts = self.machine(id).delivered.iter();
        texts
            .map(|entry| String::from_utf8_lossy(&entry.payload).into_owned())
            .collect()
    }

    /// The texts on a server's disk.
    pub(super) fn logged(&self, id: u32) -> Vec<String> {
        let texts = self.disk(id).log.iter();
        texts
            .map(|entry| String::from_utf8_lossy(&entry.payload).into_owned())
            .collect()
    }

    /// Those in the phase `Leading`.
    pub(super) fn leaders(&self) -> Vec<u32> {
        let alive = self.alive().into_iter().map(|id| id.0);
        alive
            .filter(|id| self.phase(*id) == Phase::Leading)
            .collect()
    }

    /// The one leader.
    pub(super) fn leader(&self) -> u32 {
        let leaders = self.leaders();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        leaders[0]
    }

    /// All but this one, ascending.
    pub(super) fn others(&self, id: u32) -> Vec<u32> {
        let ids = self.ids().into_iter().map(|other| other.0);
        ids.filter(|other| *other != id).collect()
    }

    /// What was said between leaders and learners, in order of sending.
    pub(super) fn said(&self) -> impl Iterator<Item = (u32, u32, &Body)> {
        self.sent.iter().filter_map(|sent| match &sent.message {
            Message::Link { body, .. } => Some((sent.from.0, sent.to.0, body)),
            Message::Vote(_) => None,
        })
    }
}

pub(super) fn at(epoch: u64, counter: u64) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}
