//! Nodes in a small world, with an application that shows what it is told.

mod flushes;
mod leaders;
mod requests;
mod state;

use std::collections::{BTreeMap, VecDeque};

use super::{
    Application, Completion, Content, Damaged, Fate, HandedBack, Limits, Node, NodeReady, Origin,
    Preprocessed, RequestId, Snapshot,
};
use crate::time::Millis;
use crate::types::{ServerId, Zxid};
use crate::zab::tests::disk::Disk;
use crate::zab::tests::world::{Input, Machine, Output, World};
use crate::zab::{Boot, Settings};

/// Counters by name.
///
/// Requests are texts: `set a 5` and `add a 5` become the transaction `a 7`, `get a` is answered,
/// `note x` is kept by the leader and answered with nothing, `blow n` becomes a transaction of n
/// bytes.
#[derive(Default)]
struct Counters {
    values: BTreeMap<String, u64>,
    /// What the transactions in flight will make of counters, one after the other.
    in_flight: BTreeMap<String, VecDeque<u64>>,
    notes: Vec<(ServerId, String)>,
    messages: Vec<(ServerId, String)>,
    /// What was delivered, in order.
    delivered: Vec<(Zxid, String)>,
    /// What it was told of leaders.
    told: Vec<String>,
}

impl Counters {
    fn get(&self, name: &str) -> u64 {
        self.values.get(name).copied().unwrap_or(0)
    }
}

impl Application for Counters {
    type Outcome = u64;
    type Snapshot = Written;

    fn preprocess(&mut self, origin: Origin, request: &[u8]) -> Preprocessed {
        let text = String::from_utf8(request.to_vec()).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        let coming = self.in_flight.get(words[1]).and_then(VecDeque::back);
        let known = coming.copied().unwrap_or_else(|| self.get(words[1]));
        let value = match words[0] {
            "get" => return Preprocessed::Answer(known.to_string().into()),
            "note" => {
                self.notes.push((origin.server, words[1].to_owned()));
                return Preprocessed::Answer(Vec::new());
            }
            "blow" => return Preprocessed::Transaction(vec![b'x'; words[1].parse().unwrap()]),
            "add" => known + words[2].parse::<u64>().unwrap(),
            _ => words[2].parse().unwrap(),
        };
        let coming = self.in_flight.entry(words[1].to_owned()).or_default();
        coming.push_back(value);
        Preprocessed::Transaction(format!("{} {value}", words[1]).into())
    }

    fn withdraw(&mut self, txn: &[u8]) {
        let text = String::from_utf8(txn.to_vec()).unwrap();
        self.told.push(format!("withdrawn {text}"));
        let coming = text
            .split_once(' ')
            .map(|(name, _)| self.in_flight.get_mut(name));
        coming.flatten().and_then(VecDeque::pop_back);
    }

    fn deliver(&mut self, zxid: Zxid, txn: &[u8], _origin: Origin) -> u64 {
        let text = String::from_utf8(txn.to_vec()).unwrap();
        self.delivered.push((zxid, text.clone()));
        let Some((name, value)) = text.split_once(' ') else {
            return 0;
        };
        if let Some(coming) = self.in_flight.get_mut(name) {
            coming.pop_front();
        }
        let value = value.parse().unwrap();
        self.values.insert(name.to_owned(), value);
        value
    }

    fn save(&self) -> Written {
        let lines = self
            .values
            .iter()
            .map(|(name, value)| format!("{name} {value}\n"));
        Written(lines.collect::<String>().into(), 0)
    }

    fn restore(&mut self, content: &mut dyn Content) -> Result<(), Damaged> {
        let mut whole = Vec::new();
        while let Some(piece) = content.next_piece()? {
            whole.extend_from_slice(piece);
        }
        let text = String::from_utf8(whole).map_err(|error| Damaged(error.to_string()))?;
        self.values.clear();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').ok_or(Damaged("no space".to_owned()))?;
            let value = value.parse().map_err(|_| Damaged("no number".to_owned()))?;
            self.values.insert(name.to_owned(), value);
        }
        self.told.push("restored".to_owned());
        Ok(())
    }

    fn leading(&mut self, active: &[ServerId]) {
        let active: Vec<String> = active.iter().map(ServerId::to_string).collect();
        self.told.push(format!("leading {}", active.join(" ")));
    }

    fn following(&mut self, leader: ServerId) {
        self.told.push(format!("following {leader}"));
    }

    fn recovering(&mut self, handed_back: &[HandedBack]) {
        self.in_flight.clear();
        self.told.push(format!("recovering {}", handed_back.len()));
    }

    fn message(&mut self, from: ServerId, message: &[u8]) {
        let text = String::from_utf8(message.to_vec()).unwrap();
        self.messages.push((from, text));
    }
}

/// The counters as text, and how much of it is written.
struct Written(Vec<u8>, usize);

impl Snapshot for Written {
    fn write_into(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        let end = self.0.len().min(self.1 + bytes_max);
        out.extend_from_slice(&self.0[self.1..end]);
        self.1 = end;
        end < self.0.len()
    }
}

/// A node, and what has become of its requests.
struct Server {
    node: Node<Counters>,
    ready: NodeReady<u64>,
    completions: Vec<Completion<u64>>,
    confirmed: Vec<u64>,
}

impl Server {
    fn take(&mut self) -> Output {
        self.node.ready(&mut self.ready);
        assert_eq!(self.ready.garbled, []);
        self.completions.append(&mut self.ready.completions);
        self.confirmed.append(&mut self.ready.confirmed);
        Output {
            writes: std::mem::take(&mut self.ready.writes),
            messages: std::mem::take(&mut self.ready.messages),
            reads: std::mem::take(&mut self.ready.reads),
            replay: self.ready.replay,
            fenced: self.ready.fenced.is_some(),
        }
    }
}

impl Machine for Server {
    fn new(settings: Settings, boot: Boot, disk: &Disk) -> Server {
        let mut app = Counters::default();
        if let Some((_, content)) = &disk.snapshot {
            app.restore(&mut &content[..]).unwrap();
        }
        let limits = Limits {
            requests_max: 8,
            inbox_max: 6,
            request_bytes_max: 100,
            txn_bytes_max: 200,
        };
        Server {
            node: Node::new(app, settings, boot, limits),
            ready: NodeReady::default(),
            completions: Vec::new(),
            confirmed: Vec::new(),
        }
    }

    fn step(&mut self, now: Millis, input: Input) -> Output {
        let node = &mut self.node;
        match input {
            Input::Start => node.start(now),
            Input::Tick => node.tick(now),
            Input::Message(from, message) => node.on_message(now, from, message),
            Input::Connected(peer) => node.on_connected(now, peer),
            Input::Disconnected(peer) => node.on_disconnected(now, peer),
            Input::Persisted(persisted) => node.on_persisted(now, persisted),
            Input::Read(learner, tenure, piece) => node.on_read(now, learner, tenure, piece),
            Input::Replayed(entry) => node.on_replayed(&entry),
            Input::Restore(zxid, content) => node.restore(zxid, &mut &content[..]).unwrap(),
            Input::SnapshotTaken(zxid) => node.on_snapshot_taken(zxid),
            Input::Trimmed(zxid) => node.on_trimmed(zxid),
            Input::WriteFailed => node.on_write_failed(),
            Input::Nothing => {}
        }
        self.take()
    }

    fn deadline(&self) -> Millis {
        self.node.deadline()
    }

    fn save(&self) -> (Zxid, Vec<u8>) {
        let (zxid, mut written) = self.node.save();
        let mut content = Vec::new();
        while written.write_into(&mut content, 3) {}
        (zxid, content)
    }
}

type Nodes = World<Server>;

impl Nodes {
    fn app(&self, id: u32) -> &Counters {
        self.machine(id).node.app()
    }

    fn propose(&mut self, id: u32, request: &str) -> RequestId {
        self.try_propose(id, request).unwrap()
    }

    fn try_propose(&mut self, id: u32, request: &str) -> Result<RequestId, super::Refusal> {
        self.with_machine(id, |server, now| {
            server.node.propose(now, request.as_bytes())
        })
    }

    fn flush(&mut self, id: u32) -> RequestId {
        self.with_machine(id, |server, now| server.node.flush(now))
            .unwrap()
    }

    fn send(&mut self, id: u32, to: Option<u32>, message: &str) -> bool {
        let to = to.map(ServerId);
        self.with_machine(id, |server, _| server.node.send(to, message.as_bytes()))
    }

    /// What has become of requests made at a server since this was last asked.
    fn completions(&mut self, id: u32) -> Vec<Completion<u64>> {
        self.with_machine(id, |server, _| std::mem::take(&mut server.completions))
    }

    /// The server that leads and knows it, of which there is one.
    fn leader(&self) -> u32 {
        let leads = |id: &ServerId| self.machine(id.0).node.active().is_some();
        let leaders: Vec<ServerId> = self.alive().into_iter().filter(leads).collect();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        leaders[0].0
    }

    /// A server that follows.
    fn follower(&self) -> u32 {
        let leader = self.leader();
        let other = self.alive().into_iter().find(|id| id.0 != leader);
        other.unwrap().0
    }
}

fn delivered(id: RequestId, outcome: u64) -> impl Fn(&Completion<u64>) -> bool {
    move |completion| {
        matches!(completion, Completion::Delivered { id: of, outcome: is, .. }
            if (*of, *is) == (id, outcome))
    }
}

/// The ids that were handed back, with their fates.
fn handed_back(completions: &[Completion<u64>]) -> Vec<(RequestId, Fate)> {
    let back = completions
        .iter()
        .filter_map(|completion| match completion {
            Completion::HandedBack(back) => Some((back.id, back.fate)),
            _ => None,
        });
    back.collect()
}
