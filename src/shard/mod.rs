//! One core's part of the service, pure: bytes and messages in, bytes and messages out.
//!
//! A [`Shard`] holds connections and the sessions that live on it. It answers heartbeats by
//! itself; everything that changes the replicated state it asks of the core, and answers
//! when the core has told. It has no socket, no channel and no clock: whoever runs it passes
//! in bytes, [`Mail`] and the time, and carries away what [`Shard::outbox`] holds.
//!
//! | file | about |
//! |---|---|
//! | `conn` | a connection: its unread input, its answers in order |
//! | `serve` | the loop over pipelined requests; what each asks for |
//! | `ahead` | beats about to come in, got ready for together |
//! | `beat` | a heartbeat that hits, and the answer to it |
//! | `search` | heartbeats that found no session here: claims, verdicts, second tries |
//! | `forwarded` | heartbeats that other servers send on, and when their client has settled there |
//! | `lease` | whether a promise may be made now |
//! | `change` | joins, leaves, configs: questions to the core and their answers |
//! | `join_run` | joins that ask for nothing but a session, many of one input together |
//! | `document` | group documents: rendered once a version, sent in pieces |
//! | `watch` | long polls and event streams: who gets what when something has happened |
//! | `room` | who waits for which group, and who is to be looked at next |
//! | `events` | what one listener is sent |
//! | `pages` | the server's own pages |
//! | `transit` | sessions on their way between shards: what was said of them meanwhile |
//! | `upkeep` | the tick, stalls; sessions dealt, ended, handed over |
//! | `expiry` | sessions on their way out: found due, proposed, let go, a piece a turn |
//! | `plant` | the guarding lines that the simulator takes away |
//!
//! What holds between calls:
//!
//! 1. a session is in at most one shard's table, and whoever has none of it never answers
//!    for it;
//! 2. answers leave a connection in the order of its requests;
//! 3. a request that needs the core never overtakes, and is never overtaken by, a request
//!    of the same connection that does not.

mod admission;
mod ahead;
mod beat;
mod change;
mod conn;
mod discovery;
mod document;
mod due;
mod events;
mod expiry;
mod forwarded;
mod join_run;
mod lease;
mod pages;
mod plant;
mod room;
mod search;
mod serve;
#[cfg(test)]
mod tests;
mod transit;
mod ui;
mod upkeep;
mod watch;

use std::rc::Rc;
use std::sync::Arc;

pub use conn::{ConnId, Next};
pub use expiry::EXPIRIES_MAX;
pub use plant::{Plant, Plants};

use crate::http;
use crate::mail::{Answer, Ask, Mail, Pass, ShardIndex, Tell, VersionCell, What};
use crate::metrics::{Latency, Published, Registry, ShardCounters};
use crate::session::{Limits as SessionLimits, Prepare, Tracker};
use crate::time::{Millis, TICK_MS};
use crate::types::{Incarnation, ServerId, SessionId, Term};

use admission::Admission;
use ahead::Ahead;
use conn::Conn;
use document::Documents;
use expiry::Expiry;
use forwarded::Settling;
use lease::Lease;
use room::Room;
use search::Search;
use transit::{Claim, Handover, Transit};
use watch::Dice;

/// What a shard is told when it is built.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which shard this is.
    pub index: ShardIndex,
    /// How many shards there are.
    pub shards: ShardIndex,
    /// The server, as owner of the sessions joined here.
    pub server: ServerId,
    /// The timeout of a session that asks for none.
    pub default_timeout: Millis,
    /// The shortest timeout to be had.
    pub min_timeout: Millis,
    /// The longest timeout to be had.
    pub max_timeout: Millis,
    /// How long the server's lease is, for the cluster page.
    pub lease: Millis,
    /// Sessions at most.
    pub sessions_max: u32,
    /// Questions to the core that may be unanswered; beyond that, changes are refused (503).
    pub asks_max: usize,
    /// Questions unanswered from which on changes are refused; fewer than `asks_max`.
    pub changes_max: usize,
    /// Limits of a request.
    pub http: http::Limits,
    /// Answers of one connection that may be under way; beyond that, it is not read.
    pub pipelined_max: usize,
    /// Clients of the whole server that may wait for groups to change; more are refused (503).
    pub watchers_max: u64,
    /// Output of one connection that is gathered before it is sent, bytes.
    pub output_bytes_max: usize,
    /// How long a request may take to arrive whole.
    pub request_timeout: Millis,
    /// How long a connection may say nothing.
    pub idle_timeout: Millis,
    /// A turn of the loop that comes later than this is a stall, to be made good.
    pub stall_min: Millis,
    /// Seconds since 1970 at the start, for the histograms' page.
    pub started_s: u32,
}

/// Where a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The log is being replayed: everything but the probes is refused.
    Starting,
    /// In service.
    Serving,
    /// Going down: new requests are refused, answers under way are still given.
    Stopping,
}

/// The latencies a shard measures.
pub struct Latencies {
    /// From the turn that found the input to the answer's `send`: beats that hit at once.
    pub heartbeat: Latency,
    /// From a session's deadline to its end being known here.
    pub expiry_lateness: Latency,
}

impl Latencies {
    /// Empty histograms.
    #[must_use]
    pub fn new() -> Latencies {
        Latencies {
            heartbeat: Latency::new("heartbeat"),
            expiry_lateness: Latency::new("expiry_lateness"),
        }
    }

    /// The readers' sides.
    pub fn published(&self) -> [Arc<Published>; 2] {
        [self.heartbeat.published(), self.expiry_lateness.published()]
    }
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies::new()
    }
}

/// What the shard keeps for each group that has sessions on it.
type GroupPayload = Arc<VersionCell>;

/// The state of one shard.
pub struct Shard {
    settings: Settings,
    /// None outside tests and the simulator.
    plants: Plants,
    phase: Phase,
    tracker: Tracker<GroupPayload>,
    conns: Vec<Conn>,
    parked: Parking,
    /// Searches that go on at the next tick.
    searches: Vec<u64>,
    /// Documents asked for by clients that are ahead of this server.
    behind: Vec<document::DocumentJob>,
    documents: Documents,
    /// Who waits for groups to change.
    room: Room,
    dice: Dice,
    /// Sessions on their way out.
    expiry: Expiry,
    /// Questions unanswered, expiries not counted.
    asked: usize,
    transit: Transit,
    /// Sessions that may come here, from other shards or moved from another server: looked
    /// for by searches that have not been answered.
    coming: usize,
    /// Whether promises may be made.
    lease: Lease,
    /// Clients that beat at other servers.
    settling: Settling,
    /// Until then, an owner that has lost a session to this one may still promise it
    /// something, and for how long it might since the move.
    grace: (Millis, Millis),
    endpoints: Arc<[String]>,
    /// What a change is refused with when there are too many: said so often just then that it
    /// is kept as it is sent.
    overload: Vec<u8>,
    /// Which changes are let in.
    admission: Admission,
    /// The server's present run; told when it serves.
    incarnation: Incarnation,
    /// Room for the names of one request. It is lent to each, so it is small to move: a buffer
    /// that was taken and put back by value cost more than half a beat.
    scratch: Option<Box<http::Scratch>>,
    /// How the heartbeats of its clients end.
    familiar: http::Familiar,
    /// How its clients' joins end.
    plain_joins: http::PlainJoins,
    /// How the joins end that there was no room for.
    familiar_joins: http::FamiliarJoins,
    /// What was found out of the beats that are about to come in.
    ahead: Ahead,
    /// What its answers to heartbeats begin with.
    answers: http::BeatAnswer,
    /// What its answers to joins without a document begin with.
    welcomes: http::BeatAnswer,
    /// Queues of connections that wait for nothing, kept for those that do.
    idle_queues: Vec<conn::Replies>,
    /// Room for the body of a batch.
    batch: Vec<u8>,
    outbox: Outbox,
    counters: Arc<ShardCounters>,
    latencies: Latencies,
    /// The count of heartbeats up to which they are in the histogram.
    heartbeats_timed: u64,
    registry: Rc<Registry>,
    started: Millis,
    /// When the wheel was last turned, to notice stalls.
    turned: Millis,
    /// When the first stall came since the sockets were last drained.
    stalled: Option<Millis>,
    /// The last turn of the wheel was a stall too.
    late: bool,
}

/// What the shard wants carried.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For the core.
    pub asks: Vec<Ask>,
    /// For other shards.
    pub passes: Vec<(ShardIndex, Pass)>,
    /// Connections that have an answer to send, or want to be read again.
    pub woken: Vec<ConnId>,
}

impl Shard {
    /// A shard without connections and sessions. `seeds` must be random.
    #[must_use]
    pub fn new(
        settings: Settings,
        seeds: [u64; 4],
        counters: Arc<ShardCounters>,
        latencies: Latencies,
        registry: Rc<Registry>,
        now: Millis,
    ) -> Shard {
        let limits = SessionLimits {
            sessions_max: settings.sessions_max,
        };
        let mut lease = Lease::default();
        lease.forgive(now);
        Shard {
            plants: Plants::NONE,
            phase: Phase::Starting,
            tracker: Tracker::new(limits, seeds, now),
            conns: Vec::new(),
            parked: Parking::default(),
            searches: Vec::new(),
            behind: Vec::new(),
            documents: Documents::default(),
            room: Room::default(),
            dice: Dice::new(seeds[0].wrapping_add(u64::from(settings.index))),
            expiry: Expiry::new(),
            asked: 0,
            transit: Transit::default(),
            coming: 0,
            lease,
            settling: Settling::default(),
            grace: (Millis(0), Millis(0)),
            endpoints: Arc::from([]),
            overload: overload(&[]),
            admission: Admission::new(settings.changes_max),
            incarnation: Incarnation::default(),
            scratch: None,
            familiar: http::Familiar::default(),
            plain_joins: http::PlainJoins::default(),
            familiar_joins: http::FamiliarJoins::default(),
            ahead: Ahead::default(),
            answers: http::BeatAnswer::new(),
            welcomes: http::BeatAnswer::to_joins(),
            idle_queues: Vec::new(),
            batch: Vec::new(),
            outbox: Outbox::default(),
            counters,
            latencies,
            heartbeats_timed: 0,
            registry,
            started: now,
            turned: now,
            stalled: None,
            late: false,
            settings,
        }
    }

    /// Plants faults, before the start.
    #[cfg(any(test, feature = "sim"))]
    pub fn plant(&mut self, plants: Plants) {
        self.plants = plants;
    }

    /// True if the core has questions of this shard to answer.
    #[must_use]
    pub fn awaits_core(&self) -> bool {
        self.asked > 0
    }

    /// See [`Tracker::advise_memory`].
    pub fn advise_memory(&mut self, advise: fn(&[u8])) {
        self.tracker.advise_memory(advise);
    }

    /// See [`Tracker::prepare_memory`].
    pub fn prepare_memory(&mut self, prepare: Prepare) {
        self.tracker.prepare_memory(prepare);
    }

    /// Takes in a message.
    pub fn deliver(&mut self, mail: Mail, now: Millis) {
        self.wake(now);
        match mail {
            Mail::Core { tells, .. } => {
                let mut tells = tells.into_iter();
                while tells.len() > 0 {
                    // Few enough for what is brought in to stay in cache until its turn.
                    let some = tells.len().min(EXPECT_TELLS_MAX);
                    self.expect_joined(&tells.as_slice()[..some]);
                    for tell in tells.by_ref().take(some) {
                        self.on_tell(tell, now);
                    }
                }
                while let Some(pass) = self.transit.ripe() {
                    self.on_pass(pass, now);
                }
            }
            Mail::Shard(pass) => {
                if let Some(pass) = self.transit.in_time(pass) {
                    self.on_pass(pass, now);
                }
            }
            Mail::Nudge => {}
        }
        // A shard whose last session has left is not ticked, and should not seem to hold it.
        self.counters.sessions.set(self.tracker.len() as u64);
    }

    /// Brings into cache together where the sessions of these joins will stand, as
    /// [`Shard::expect`] does for beats.
    fn expect_joined(&self, tells: &[Tell]) {
        if self.tracker.len() < EXPECT_SESSIONS_MIN {
            return;
        }
        let joined = |tell| match tell {
            &Tell::Answer {
                answer:
                    Answer::Joined {
                        ref joined,
                        ref group,
                        ref member,
                        ..
                    },
                ..
            } => Some((joined.session, &group[..], &member[..])),
            _ => None,
        };
        let joins = tells.iter().filter_map(joined);
        let names = joins.clone().map(|(_, group, member)| (group, member));
        self.tracker.expect(names);
        self.tracker.expect_ids(joins.map(|(id, ..)| id));
    }

    fn on_pass(&mut self, pass: Pass, now: Millis) {
        match pass {
            Pass::Claim {
                from,
                token,
                heard,
                wanted,
            } => {
                let claim = Claim {
                    from,
                    token,
                    heard,
                    wanted,
                };
                self.on_claim(&claim, now);
            }
            Pass::Handover {
                token,
                asked,
                heard,
                given,
                open,
            } => {
                let handover = Handover {
                    token,
                    asked,
                    heard,
                    given,
                    open,
                };
                self.on_handover(handover, now);
            }
        }
    }

    /// What is to be carried away; whoever carries it empties the lists.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// True if the shard needs its tick: something may fall due, or somebody waits.
    #[must_use]
    pub fn needs_tick(&self) -> bool {
        !self.tracker.is_empty()
            || self.parked.len() > 0
            || !self.behind.is_empty()
            || self.room.needs_tick()
            || self.counters.connections.get() > 0
    }

    /// Where in a tick's length of the shard's clock the wheel's ticks begin: each gap that was
    /// made good moves them. A tick at that point finds what is due then at once.
    #[must_use]
    pub fn tick_phase(&self) -> Millis {
        Millis(self.tracker.held().0 % TICK_MS)
    }

    /// Called before anything comes in. If the shard went without its tick, nothing was
    /// here that could have missed it: that was rest and no stall to be made good.
    fn wake(&mut self, now: Millis) {
        self.room.now = now;
        if !self.needs_tick() {
            self.turned = now;
            self.lease.forgive(now);
        }
    }

    /// True if questions wait to be carried to the core.
    #[must_use]
    pub fn has_asks(&self) -> bool {
        !self.outbox.asks.is_empty()
    }

    /// Counts a turn of the loop that runs this shard.
    pub fn count_turn(&self) {
        self.counters.turns.add(1);
    }

    /// True once the shard has been told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.phase == Phase::Stopping
    }

    /// What the last input was answered with has been handed to the kernel, `took_ns` after
    /// the shard was told of it.
    pub fn served(&mut self, took_ns: u64) {
        let heartbeats = self.counters.heartbeats.get();
        let beaten = heartbeats - self.heartbeats_timed;
        if beaten > 0 {
            self.heartbeats_timed = heartbeats;
            self.latencies.heartbeat.record(took_ns, beaten);
        }
    }

    /// Shows to readers what was counted and timed since the last call; `accepted` is how
    /// many connections the sockets have accepted since the start.
    pub fn publish(&mut self, accepted: u64) {
        self.latencies.heartbeat.publish();
        self.latencies.expiry_lateness.publish();
        self.counters.accepted.set(accepted);
        self.counters
            .session_bytes
            .set(self.tracker.memory_bytes().total() as u64);
    }

    /// Answers a connection for which there is no room.
    pub fn refuse(&self, out: &mut Vec<u8>) {
        self.counters.refused.add(1);
        let problem = http::Problem::new(http::Code::Overloaded).closing();
        problem
            .detail("as many connections are open as may be")
            .write(out, false, &self.endpoints);
    }

    /// All servers' addresses are these now.
    fn show_endpoints(&mut self, endpoints: Arc<[String]>) {
        self.overload = overload(&endpoints);
        self.endpoints = endpoints;
    }

    /// True once the shard has been stopped and owes nobody an answer.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.phase == Phase::Stopping
            && self.parked.len() == 0
            && self.behind.is_empty()
            && self.room.watchers() == 0
    }

    /// How many sessions it holds.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.tracker.len()
    }

    /// True if there is room for `more` sessions beside those that may be on their way here:
    /// what the core has created, or another shard given up, cannot be turned away.
    fn has_room(&self, more: usize) -> bool {
        let expected = self.tracker.len() + self.asked + self.coming;
        expected + more <= self.settings.sessions_max as usize
    }

    /// Puts a question to the core; false if too many are unanswered already.
    fn ask(&mut self, what: What, purpose: Purpose) -> bool {
        if self.asked >= self.settings.asks_max {
            self.counters.overloads.add(1);
            return false;
        }
        self.asked += 1;
        let token = self.parked.insert(purpose);
        self.counters.asks.add(1);
        self.outbox.asks.push(Ask { token, what });
        true
    }
}

/// The refusal of a change for which there is no room.
fn overload(endpoints: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    http::Problem::new(http::Code::Overloaded).write(&mut bytes, false, endpoints);
    bytes
}

/// Where an answer goes: a connection, and which of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    conn: ConnId,
    seq: u32,
}

/// Why something is parked, and what to do once it can go on.
enum Purpose {
    /// A join at the core.
    Join(change::JoinJob),
    /// Another change at the core.
    Change(change::ChangeJob),
    /// A document asked of the core.
    Document(document::DocumentJob),
    /// A list of groups.
    List(document::ListJob),
    /// A stored config.
    Config(change::ConfigJob),
    /// A group's members, for Prometheus.
    Targets(discovery::TargetsJob),
    /// A group that is to be watched.
    Watch(u32),
    /// A document for those who wait for one group.
    Shared(u32),
    /// The cluster page.
    Cluster(Place, serve::Manner),
    /// Beats that look for their session.
    Search(Box<Search>),
    /// An expiry at the core: the sessions, and the terms that it names.
    Expiry(Vec<(SessionId, Term)>),
}

/// What waits for an answer, by token. A token is used once: a late or repeated answer
/// finds nothing.
#[derive(Default)]
struct Parking {
    spots: Vec<(u32, Option<Purpose>)>,
    free: Vec<u32>,
}

impl Parking {
    fn insert(&mut self, purpose: Purpose) -> u64 {
        if let Some(index) = self.free.pop() {
            let (turn, spot) = &mut self.spots[index as usize];
            *spot = Some(purpose);
            return (u64::from(*turn) << 32) | u64::from(index);
        }
        let index = u32::try_from(self.spots.len()).expect("fewer parked than 2^32");
        self.spots.push((0, Some(purpose)));
        u64::from(index)
    }

    fn take(&mut self, token: u64) -> Option<Purpose> {
        let index = token as u32;
        let (turn, spot) = self.spots.get_mut(index as usize)?;
        if *turn != (token >> 32) as u32 {
            return None;
        }
        let purpose = spot.take()?;
        *turn = turn.wrapping_add(1);
        self.free.push(index);
        Some(purpose)
    }

    fn get_mut(&mut self, token: u64) -> Option<&mut Purpose> {
        let (turn, spot) = self.spots.get_mut(token as u32 as usize)?;
        if *turn == (token >> 32) as u32 {
            spot.as_mut()
        } else {
            None
        }
    }

    fn len(&self) -> usize {
        self.spots.len() - self.free.len()
    }
}

/// Tells whose sessions are brought into cache together.
const EXPECT_TELLS_MAX: usize = 64;
/// Fewer sessions than this stay in cache by themselves.
const EXPECT_SESSIONS_MIN: usize = 4_096;
