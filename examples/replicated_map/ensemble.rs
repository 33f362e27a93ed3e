//! Servers in one process: each with a log on real files, with a clock that is a number, and
//! with messages that are passed from hand to hand.
//!
//! A program with a transport does what is here with sockets and a clock; [`Server::work`] stays
//! as it is, but that it would not wait for its disk.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};

use systole::log::{FileDisk, FileLog, Log, Settings as LogSettings};
use systole::time::Millis;
use systole::types::{ServerId, Zxid};
use systole::zab::app::{Completion, Limits as AppLimits, Node, NodeReady, RequestId};
use systole::zab::{
    Boot, Ensemble, Entry, Envelope, Limits, Message, Persisted, Piece, Plants, ReadWhat, Replay,
    Settings, Summary, Timing, Write,
};

use super::map::Map;

type Fallible<T> = Result<T, Box<dyn Error>>;
type Done = Completion<Option<String>>;

/// One server: a node and its log.
pub(crate) struct Server {
    log: FileLog,
    node: Node<Map>,
    ready: NodeReady<Option<String>>,
    done: Vec<Done>,
}

impl Server {
    fn open(id: ServerId, servers: &[ServerId], dir: &Path) -> Fallible<Server> {
        let settings = LogSettings {
            segment_bytes: 1 << 20,
            snapshot_is_enough: false,
            ..LogSettings::new(random())
        };
        let (log, recovered) = Log::open(FileDisk::create(dir)?, settings)?;
        let boot = Boot {
            accepted_epoch: log.epochs().accepted,
            current_epoch: log.epochs().current,
            history: Summary {
                base: log.history().base,
                ends: log.history().ends.clone(),
            },
            snapshot: recovered.snapshot,
            delivered: Zxid::ZERO,
            nonce: random(),
        };
        let settings = Settings {
            id,
            ensemble: Ensemble::new(1, servers, &[]),
            timing: Timing::DEFAULT,
            limits: Limits::DEFAULT,
            plants: Plants::NONE,
        };
        Ok(Server {
            log,
            node: Node::new(Map::default(), settings, boot, AppLimits::DEFAULT),
            ready: NodeReady::default(),
            done: Vec::new(),
        })
    }

    /// Does what the node asks for, until it asks for nothing more.
    fn work(&mut self, now: Millis, mail: &mut Vec<Envelope>) -> Fallible<()> {
        loop {
            let mut ready = std::mem::take(&mut self.ready);
            self.node.ready(&mut ready);
            if ready.is_empty() {
                self.ready = ready;
                return Ok(());
            }
            if let Some(fault) = ready.fenced.take() {
                return Err(fault.into());
            }
            mail.append(&mut ready.messages);
            self.done.append(&mut ready.completions);
            self.write(now, &ready.writes)?;
            for read in ready.reads.drain(..) {
                let piece = self.read(read.what)?;
                self.node.on_read(now, read.learner, read.tenure, piece);
            }
            if let Some(Replay { after, upto }) = ready.replay.take() {
                for entry in self.entries(after, upto)? {
                    self.node.on_replayed(&entry);
                }
            }
            self.ready = ready;
        }
    }

    /// Makes writes durable, in their order, and reports each. Appends share a sync.
    fn write(&mut self, now: Millis, writes: &[Write]) -> Fallible<()> {
        for (at, write) in writes.iter().enumerate() {
            let persisted = match write {
                Write::Append(entry) => {
                    self.log.append(entry.zxid, &entry.payload)?;
                    if matches!(writes.get(at + 1), Some(Write::Append(_))) {
                        continue;
                    }
                    Persisted::Log(self.log.sync_now()?)
                }
                Write::AcceptedEpoch(epoch) => {
                    self.log.set_accepted_epoch(*epoch)?;
                    Persisted::AcceptedEpoch(*epoch)
                }
                Write::CurrentEpoch(epoch) => {
                    self.log.set_current_epoch(*epoch)?;
                    Persisted::CurrentEpoch(*epoch)
                }
                Write::Truncate(to) => {
                    self.log.truncate_after(*to)?;
                    Persisted::Truncated(*to)
                }
                Write::SnapshotBegin(_) | Write::SnapshotPiece(_) | Write::SnapshotEnd(_) => {
                    return Err("nobody takes snapshots here, so nobody sends one".into());
                }
            };
            self.node.on_persisted(now, persisted);
        }
        Ok(())
    }

    fn read(&self, what: ReadWhat) -> Fallible<Piece> {
        match what {
            ReadWhat::Log { after, upto, .. } => Ok(Piece::Entries(self.entries(after, upto)?)),
            ReadWhat::Snapshot { .. } => Ok(Piece::Gone),
        }
    }

    fn entries(&self, after: Zxid, upto: Zxid) -> Fallible<Vec<Entry>> {
        let mut found = Vec::new();
        let mut entries = self.log.entries_after(after)?;
        while let Some(entry) = entries.next()? {
            if entry.zxid > upto {
                break;
            }
            let (zxid, payload) = (entry.zxid, entry.payload.into());
            found.push(Entry { zxid, payload });
        }
        Ok(found)
    }
}

/// The servers that run, and what is on its way between them.
pub(crate) struct World {
    dir: PathBuf,
    now: Millis,
    servers: BTreeMap<ServerId, Server>,
    mail: VecDeque<(ServerId, ServerId, Message)>,
}

impl World {
    /// Three servers with their logs below `dir`.
    pub(crate) fn start(dir: &Path) -> Fallible<World> {
        let mut world = World {
            dir: dir.to_owned(),
            now: Millis(1),
            servers: BTreeMap::new(),
            mail: VecDeque::new(),
        };
        SERVERS.iter().try_for_each(|id| world.restart(*id))?;
        Ok(world)
    }

    /// Starts a server on what its log holds.
    pub(crate) fn restart(&mut self, id: ServerId) -> Fallible<()> {
        let server = Server::open(id, &SERVERS, &self.dir.join(id.to_string()))?;
        self.servers.insert(id, server);
        self.with(id, |node, now| node.start(now))?;
        for other in SERVERS {
            if other != id && self.servers.contains_key(&other) {
                self.with(id, |node, now| node.on_connected(now, other))?;
                self.with(other, |node, now| node.on_connected(now, id))?;
            }
        }
        Ok(())
    }

    /// Ends a server at once. What it had become of is all it leaves, with its log.
    pub(crate) fn kill(&mut self, id: ServerId) -> Fallible<()> {
        self.servers.remove(&id);
        self.mail.retain(|(from, to, _)| *from != id && *to != id);
        for other in SERVERS {
            self.with(other, |node, now| node.on_disconnected(now, id))?;
        }
        Ok(())
    }

    /// Makes a request at a server and waits for what becomes of it.
    pub(crate) fn request(&mut self, id: ServerId, request: &str) -> Fallible<Done> {
        let asked = self.with(id, |node, now| node.propose(now, request.as_bytes()))?;
        self.wait(id, asked.ok_or("it runs")??)
    }

    /// What a server's map holds, no older than this call.
    pub(crate) fn entries(&mut self, id: ServerId) -> Fallible<BTreeMap<String, String>> {
        let asked = self.with(id, |node, now| node.flush(now))?;
        self.wait(id, asked.ok_or("it runs")??)?;
        Ok(self.servers[&id].node.app().entries.clone())
    }

    /// Lets time pass until one server leads all that run.
    pub(crate) fn leader(&mut self) -> Fallible<ServerId> {
        for _ in 0..PATIENCE {
            for (id, server) in &self.servers {
                let active = server.node.active().unwrap_or_default();
                if active.len() == self.servers.len() {
                    return Ok(*id);
                }
            }
            self.pass_time()?;
        }
        Err("no leader in all this time".into())
    }

    /// Where a server's log ends.
    pub(crate) fn logged(&self, id: ServerId) -> Zxid {
        self.servers[&id].log.durable()
    }

    /// Begins a request and does not wait.
    pub(crate) fn begin(&mut self, id: ServerId, request: &str) -> Fallible<RequestId> {
        let asked = self.with(id, |node, now| node.propose(now, request.as_bytes()))?;
        Ok(asked.ok_or("it runs")??)
    }

    /// Waits for what becomes of a request.
    pub(crate) fn wait(&mut self, id: ServerId, request: RequestId) -> Fallible<Done> {
        for _ in 0..PATIENCE {
            let done = &mut self.servers.get_mut(&id).ok_or("it runs")?.done;
            if let Some(at) = done.iter().position(|done| done.id() == request) {
                return Ok(done.remove(at));
            }
            self.pass_time()?;
        }
        Err("no answer in all this time".into())
    }

    /// Delivers what is on its way, then moves the clock.
    fn pass_time(&mut self) -> Fallible<()> {
        while let Some((from, to, message)) = self.mail.pop_front() {
            self.with(to, |node, now| node.on_message(now, from, message))?;
        }
        self.now = self.now + Millis(10);
        for id in SERVERS {
            self.with(id, |node, now| node.tick(now))?;
        }
        Ok(())
    }

    /// Does something with a server, if it runs, and then what it asks for.
    fn with<T>(
        &mut self,
        id: ServerId,
        act: impl FnOnce(&mut Node<Map>, Millis) -> T,
    ) -> Fallible<Option<T>> {
        let Some(server) = self.servers.get_mut(&id) else {
            return Ok(None);
        };
        let result = act(&mut server.node, self.now);
        let mut mail = Vec::new();
        server.work(self.now, &mut mail)?;
        let mail = mail
            .into_iter()
            .map(|Envelope { to, message }| (id, to, message));
        self.mail.extend(mail);
        Ok(Some(result))
    }
}

pub(crate) const SERVERS: [ServerId; 3] = [ServerId(1), ServerId(2), ServerId(3)];

/// Turns of the clock to wait for anything: a minute.
const PATIENCE: usize = 6_000;

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
