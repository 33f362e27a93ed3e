//! What all servers of a world share: time, chance, the network, and the judge.

use super::faults::FaultKind;
use super::judge::Judge;
use super::links::Links;
use super::net::{Net, id_of};
use super::observe::Observation;
use super::plants::Planted;
use super::probes::{Probe, Probes};
use super::profile::Profile;
use super::queue::Queue;
use super::random::{Random, Span};
use crate::types::ServerId;
use crate::zab::Message;

/// The shared part of a world.
pub struct Stage {
    /// True time since the beginning, µs.
    pub now: u64,
    /// What will happen.
    pub queue: Queue<Event>,
    /// The only source of chance.
    pub random: Random,
    /// The network.
    pub net: Net,
    /// Says whether all is as it must be.
    pub judge: Judge,
    /// Says whether the maxima of links are kept.
    pub links: Links,
    /// Counts what was reached.
    pub probes: Probes,
    /// The world's character.
    pub profile: Profile,
    /// Faults planted on purpose.
    pub planted: Planted,
    /// The server that has gone on to another phase last in this step.
    pub entered: Option<usize>,
    /// The server that a story has lied to: it may withdraw rather than give up what it knows to
    /// be committed.
    pub deceived: Option<usize>,
    /// Servers that have stopped in this step, and what becomes of them.
    pub fallen: Vec<Fallen>,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message comes to the end of its way.
    Deliver {
        /// Its slot in the network.
        packet: u32,
    },
    /// Something happens within a server, if it is still the same run.
    Host {
        /// Index of the server.
        at: u8,
        /// Of which run.
        run: u32,
        /// What.
        what: HostEvent,
    },
    /// Two servers try to connect.
    Connect {
        /// One.
        a: u8,
        /// The other.
        b: u8,
    },
    /// Two servers notice that nothing comes through any more, if that is still so.
    TimeOut {
        /// One.
        a: u8,
        /// The other.
        b: u8,
    },
    /// A server is told of a connection.
    Notice {
        /// Who is told.
        at: u8,
        /// The other end.
        peer: u8,
        /// Of which connection.
        generation: u32,
        /// That it is there, or that it is gone.
        up: bool,
    },
    /// A stopped server starts, if it has not since.
    Start {
        /// Index of the server.
        at: u8,
        /// The run that ended.
        run: u32,
    },
    /// Clients have something to propose.
    Clients,
    /// A client asks a server for a barrier.
    Barrier {
        /// Index of the server.
        at: u8,
    },
    /// Something goes wrong.
    Fault,
    /// Something goes wrong with a server that has just gone on to another phase.
    Ambush {
        /// Index of the server.
        at: u8,
        /// What.
        kind: FaultKind,
    },
    /// A fault is over.
    FaultEnds {
        /// Its place among the faults.
        slot: u32,
    },
}

/// Something that happens within a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// A deadline of the peer is reached.
    Tick,
    /// The next write is carried out.
    Write,
    /// A sync is asked for.
    SyncBegin,
    /// The disk syncs.
    SyncRun,
    /// The log learns of it.
    SyncEnd,
    /// The peer is told of a finished write.
    Report,
    /// A read is answered.
    Read,
    /// The next step of a snapshot of own state.
    Snapshot,
    /// Old files are removed.
    Trim,
    /// The next segment is made.
    Prepare,
}

/// A server that has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallen {
    /// Its index.
    pub at: usize,
    /// How long it stays down.
    pub down: Span,
}

impl Stage {
    /// Lets `event` happen after `span`.
    pub fn after(&mut self, span: Span, event: Event) {
        let time = self.now + self.random.span(span);
        self.queue.put(time, event);
    }

    /// Tells the judge.
    #[inline]
    pub fn see(&mut self, observation: Observation) {
        self.judge.see(self.now, &observation);
    }

    /// Sends a message, with all that the network does to it.
    pub fn send(&mut self, from: ServerId, to: ServerId, message: Message) {
        let from = super::net::index_of(from);
        let to = super::net::index_of(to);
        if self.judge.is_tracing() {
            self.judge.trace(
                self.now,
                format_args!(
                    "{} -> {} {}",
                    id_of(from),
                    id_of(to),
                    super::trace::Line(&message)
                ),
            );
        }
        let sending = self.net.send(self.now, &mut self.random, from, to, message);
        for (time, packet) in sending.arrives.into_iter().chain(sending.repeated) {
            self.queue.put(time, Event::Deliver { packet });
        }
        if sending.lost {
            self.probes.hit(Probe::MessageLost);
        }
        if sending.repeated.is_some() {
            self.probes.hit(Probe::MessageRepeated);
        }
        if sending.overtakes {
            self.probes.hit(Probe::MessageReordered);
        }
    }
}
