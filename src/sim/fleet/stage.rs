//! What all of a fleet share: time, chance, the network, the requests under way, the judge.

use std::collections::BTreeMap;

use super::super::net::{Net, index_of};
use super::super::queue::Queue;
use super::super::random::{Random, Span};
use super::http::Ask;
use super::judge::Judge;
use super::plants::Plants;
use super::profile::Profile;
use crate::forward;
use crate::group::Session;
use crate::types::{Epoch, GroupVersion, ServerId, SessionId};
use crate::zab;

/// The shared part of a fleet.
pub(super) struct Stage {
    /// True time since the beginning, µs.
    pub(super) now: u64,
    pub(super) queue: Queue<Event>,
    pub(super) random: Random,
    pub(super) net: Net<Word>,
    pub(super) judge: Judge,
    pub(super) profile: Profile,
    /// Faults planted in the servers.
    pub(super) plants: Plants,
    /// By server: how many faults slow its disk down.
    pub(super) slow_disks: Vec<u32>,
    /// Ways on which messages take longer, by sender and receiver.
    pub(super) slow_ways: BTreeMap<(usize, usize), SlowWay>,
    /// Requests under way, by number.
    pub(super) requests: BTreeMap<u32, Request>,
    /// Number of the newest request.
    pub(super) newest: u32,
}

/// What a server says to another.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// Of the agreement.
    Zab(zab::Message),
    /// Of beats.
    Forward(forward::Message),
}

/// A way that is slow now, or was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SlowWay {
    /// How much longer a message takes now, µs.
    pub(super) extra_us: u64,
    /// When the last message arrives: none overtakes it.
    pub(super) busy_until: u64,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A message comes to the end of its way.
    Deliver { packet: u32 },
    /// Something happens within a server, if it is still the same run.
    Process { at: u8, run: u32, what: What },
    /// Two servers try to connect.
    Connect { a: u8, b: u8 },
    /// Two servers notice that nothing comes through any more, if that is still so.
    TimeOut { a: u8, b: u8 },
    /// A server hears of a connection.
    Notice {
        at: u8,
        peer: u8,
        generation: u32,
        up: bool,
    },
    /// A server starts, unless it has since.
    Start { at: u8, run: u32 },
    /// A request comes to its server.
    Request { number: u32 },
    /// An answer comes to its client.
    Reply { number: u32 },
    /// A client acts, unless it has since.
    Client { client: u16, turn: u32 },
    /// Something goes wrong.
    Fault,
    /// A fault ends.
    FaultEnds { slot: u32 },
}

/// What happens within a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The replica's timer.
    Tick,
    /// The core looks at what the shards ask.
    Core,
    /// A shard looks at its mail.
    Mail(u8),
    /// A shard's tick.
    ShardTick(u8),
    /// The disk carries out a write.
    Write,
    /// The log asks for a sync.
    SyncBegin,
    /// The disk has synced.
    SyncEnd,
    /// The disk has read a piece of the log for the replica.
    Replay,
    /// The disk has read for a learner.
    Read,
    /// The core takes a snapshot.
    Snapshot,
}

/// A request of a client.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) client: usize,
    /// The server and its shard.
    pub(super) at: usize,
    pub(super) shard: u16,
    pub(super) ask: Ask,
    pub(super) bytes: Vec<u8>,
    /// The session that its bytes name.
    pub(super) session: Option<SessionId>,
    pub(super) floor: Option<GroupVersion>,
    /// The group and the member that it is about.
    pub(super) names: (String, String),
    /// The session of theirs that the server knew of when the shard read it.
    pub(super) known: Option<Session>,
    /// The epoch that the server was in when the shard read it.
    pub(super) epoch: Epoch,
    /// When the shard read it.
    pub(super) arrived_us: u64,
    /// What has been answered so far.
    pub(super) out: Vec<u8>,
    pub(super) answer: Option<super::http::Answer>,
}

impl Stage {
    /// Something will happen within `span`.
    pub(super) fn after(&mut self, span: Span, event: Event) {
        let due = self.now + self.random.span(span);
        self.queue.put(due, event);
    }

    /// How long a server's disk takes to sync, µs.
    pub(super) fn sync_of(&self, at: usize) -> Span {
        match self.slow_disks[at] {
            0 => self.profile.sync,
            _ => SLOW_SYNC,
        }
    }

    /// Sends a message from server to server.
    pub(super) fn send(&mut self, from: usize, to: ServerId, word: Word) {
        let to = index_of(to);
        let mut latest = self.now;
        let sending = self.net.send(self.now, &mut self.random, from, to, word);
        let slow = self.slow_ways.get_mut(&(from, to));
        for (time, packet) in sending.arrives.into_iter().chain(sending.repeated) {
            let time = match &slow {
                None => time,
                Some(slow) => slow.busy_until.max(time + slow.extra_us),
            };
            latest = latest.max(time);
            self.queue.put(time, Event::Deliver { packet });
        }
        if let Some(slow) = slow {
            slow.busy_until = latest + 1;
        }
    }

    /// A client sends a request; its number.
    pub(super) fn ask(&mut self, request: Request) -> u32 {
        self.newest += 1;
        let number = self.newest;
        self.requests.insert(number, request);
        self.after(self.profile.way, Event::Request { number });
        number
    }
}

/// How long a slow disk takes to sync, µs.
const SLOW_SYNC: Span = Span::new(50_000, 900_000);
