//! What one server decides: Zab below, the replicated groups above, and who is to be told.
//!
//! Pure. Questions from shards, words of other servers and reports of the disk go in; what is to
//! be written, read and sent comes out of [`Replica::ready`]; and what the shards are to be told
//! gathers in [`Replica::tells`].
//!
//! | file | about |
//! |---|---|
//! | `groups` | the replicated groups as an application of Zab |
//! | `requests` | what is on its way through the quorum, and what a change of leader makes of it |
//! | `changes` | questions of shards, and the answers |
//! | `endpoints` | where clients reach the servers |
//! | `sessions` | this server's incarnation; sessions that come here and leave |
//! | `leases` | the promise: this server's lease; at the leader, everybody's, and the orphans |
//! | `orphans` | the sessions of lost owners |
//! | `beats` | beats whose session another server owns |
//! | `index` | members by session id |
//! | `publish` | the mail to the shards |
//! | `watches` | which shards watch which groups, and what happened there lately |
//! | `plant` | the guarding lines that the simulator takes away |

mod beats;
mod changes;
mod endpoints;
mod groups;
mod index;
mod leases;
mod orphans;
mod plant;
mod publish;
mod requests;
mod sessions;
#[cfg(test)]
mod tests;
mod watches;

use std::sync::Arc;

use crate::forward;
pub use crate::group::Settings as GroupSettings;
pub use plant::{Plant, Plants};

use crate::group::{Lapse, Refusal, Request as Change, SessionChange, Snapshot, State};
use crate::lease::{self, Owner};
use crate::mail::{Answer, ShardIndex, Tell};
use crate::metrics::CoreCounters;
use crate::time::Millis;
use crate::types::{Epoch, Incarnation, ServerId, SessionId, Zxid};
use crate::zab::app::{
    Completion, Content, Damaged, Fate, Limits as NodeLimits, Node, NodeReady, Refusal as NoRoom,
    RequestId,
};
use crate::zab::{
    Boot, Entry, Envelope, Fault, Message, Peer, Persisted, Piece, Read, Replay,
    Settings as ZabSettings, Standing, Tenure, Write,
};

use beats::Beats;
use groups::{Groups, News, Standing as GroupStanding};
use index::IdIndex;
use leases::ORPHANS_LOOK;
use orphans::Orphans;
use publish::Publisher;
use requests::{Request, Requests, What, Who};
use sessions::Own;
use watches::Watches;

/// One server's replicated state and its part in the broadcast.
pub struct Replica {
    settings: Settings,
    /// The ensemble is this server and nobody else.
    alone: bool,
    run: u64,
    node: Node<Groups>,
    scratch: NodeReady<()>,
    /// The transaction that was put together last.
    txn: Vec<u8>,
    news: Vec<News>,
    requests: Requests,
    publisher: Publisher,
    watches: Watches,
    own: Own,
    /// Sessions that the transaction being looked at brought here.
    arrivals: Vec<SessionChange>,
    /// Sessions that new runs of servers have adopted, not yet asked for.
    adopted: u64,
    /// Sessions of this run that the transaction being looked at ended.
    ends: Vec<SessionId>,
    lease: Owner,
    /// Faults planted here and in the leases; none outside tests and the simulator.
    plants: (Plants, lease::Plants),
    grantor: Option<lease::Grantor>,
    orphans: Orphans,
    orphans_looked: Millis,
    orphan_batches: Vec<(ServerId, Incarnation, Vec<Lapse>)>,
    beats: Beats,
    index: IdIndex,
    endpoints: Arc<[String]>,
    /// How many endpoints the servers' own group has, if there is that group.
    own_group: Option<u64>,
    /// This server's endpoint is written, or being written.
    announced: bool,
    /// Where this server stood when that was last looked at.
    standing: Standing,
    now: Millis,
    /// The run in which this server has opened its doors.
    served: Option<Incarnation>,
    active: u64,
    failure: Option<String>,
    /// Members that one piece of an adoption looks at.
    adopt_limit: u32,
    counters: Arc<CoreCounters>,
}

/// What a replica is built with.
pub struct Settings {
    /// This server.
    pub id: ServerId,
    /// How many shards are told.
    pub shards: ShardIndex,
    /// Where clients reach this server.
    pub endpoint: String,
    /// Seconds since 1970 now: the date of founding, should this be a new ensemble.
    pub wall_s: u32,
    /// How long a lease is.
    pub lease: Millis,
    /// The shortest timeout a session can have.
    pub min_timeout: Millis,
    /// Random keys for hashing names that clients choose.
    pub seeds: [u64; 4],
    /// Transactions in flight, and requests of this server under way; more are refused.
    pub requests_max: usize,
}

/// What a replica asks of the world; see [`NodeReady`] for what waits for what.
#[derive(Debug, Default)]
pub struct Output {
    /// To be written, in this order.
    pub writes: Vec<Write>,
    /// To be sent, in this order.
    pub messages: Vec<Envelope>,
    /// To be sent, in this order; may be lost.
    pub forwards: Vec<(ServerId, forward::Message)>,
    /// To be read for learners.
    pub reads: Vec<Read>,
    /// To be read and given to [`Replica::on_replayed`].
    pub replay: Option<Replay>,
    /// The replica has withdrawn for good.
    pub fenced: Option<Fault>,
    /// The server must end: the log holds what no version of this code has written.
    pub failure: Option<String>,
}

impl Output {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.messages.clear();
        self.forwards.clear();
        self.reads.clear();
        self.replay = None;
        self.fenced = None;
        self.failure = None;
    }

    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.messages.is_empty()
            && self.forwards.is_empty()
            && self.reads.is_empty()
            && self.replay.is_none()
            && self.fenced.is_none()
            && self.failure.is_none()
    }
}

impl Replica {
    /// A replica that rests until [`Replica::start`]. `state` holds what [`Boot::delivered`]
    /// says: it was restored from the newest snapshot with `group`, or holds nothing.
    #[must_use]
    pub fn new(
        settings: Settings,
        zab: ZabSettings,
        boot: Boot,
        state: State,
        group: GroupSettings,
        counters: Arc<CoreCounters>,
    ) -> Replica {
        let alone = zab.ensemble.others(zab.id).next().is_none();
        let mut active = 0;
        state.for_each_active(|_| active += 1);
        let limits = NodeLimits {
            requests_max: settings.requests_max,
            ..NodeLimits::DEFAULT
        };
        Replica {
            alone,
            run: boot.nonce,
            node: Node::new(Groups::new(state, group), zab, boot, limits),
            scratch: NodeReady::default(),
            txn: Vec::new(),
            news: Vec::new(),
            requests: Requests::new(),
            publisher: Publisher::new(settings.shards, settings.seeds),
            watches: Watches::new(settings.seeds),
            own: Own::default(),
            arrivals: Vec::new(),
            adopted: 0,
            ends: Vec::new(),
            lease: if alone {
                Owner::forever()
            } else {
                Owner::new(settings.lease)
            },
            plants: (Plants::NONE, lease::Plants::NONE),
            grantor: None,
            orphans: Orphans::default(),
            orphans_looked: Millis(0),
            orphan_batches: Vec::new(),
            beats: Beats::default(),
            index: IdIndex::new(settings.seeds),
            endpoints: Arc::from([settings.endpoint.clone()]),
            own_group: None,
            announced: false,
            standing: Standing::Recovering,
            now: Millis(0),
            served: None,
            active,
            failure: None,
            adopt_limit: sessions::ADOPT_LIMIT,
            counters,
            settings,
        }
    }

    /// Plants faults, here and in the leases, before the start.
    #[cfg(any(test, feature = "sim"))]
    pub fn plant(&mut self, plants: Plants, leases: lease::Plants, groups: crate::group::Plants) {
        self.plants = (plants, leases);
        self.node.app_mut().plant(groups);
        self.lease = self.lease.clone().planted(leases);
        self.publisher.plant(plants);
    }

    /// Adopts sessions in pieces of `limit` members, before the start: as a server with many more
    /// does.
    #[cfg(any(test, feature = "sim"))]
    pub fn adopt_in_pieces(&mut self, limit: u32) {
        self.adopt_limit = limit;
    }

    /// True if this line is taken away: never outside tests and the simulator.
    #[inline]
    fn lacks(&self, plant: Plant) -> bool {
        self.plants.0.has(plant)
    }

    /// Begins to look for a leader. `now` here and below is this server's own clock.
    pub fn start(&mut self, now: Millis) {
        self.now = now;
        // A snapshot tells nobody of what was in it.
        self.publish_endpoints();
        self.node.start(now);
    }

    /// Time has passed. To be called at [`Replica::deadline`] or soon after.
    pub fn tick(&mut self, now: Millis) {
        self.advance(now);
        self.node.tick(now);
        self.tick_beats(now);
        for request in self.requests.overdue(now) {
            self.give_up(now, request);
        }
        if self.stands() {
            for request in self.requests.waiting() {
                self.submit(now, request);
            }
        }
        self.tick_orphans(now);
    }

    /// When [`Replica::tick`] is next of use.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        let mut deadline = self.node.deadline().min(self.beats.deadline());
        if self.own.settled().is_some() && self.stands() {
            deadline = deadline.min(self.lease.deadline());
        }
        if self.grantor.is_some() {
            deadline = deadline.min(self.orphans_looked + ORPHANS_LOOK);
        }
        if self.requests.anybody_waits() {
            deadline = deadline.min(self.now + WAITING_LOOK);
        }
        deadline
    }

    /// Another server's peer has said something.
    pub fn on_message(&mut self, now: Millis, from: ServerId, message: Message) {
        self.advance(now);
        self.node.on_message(now, from, message);
    }

    /// The transport has a connection to `peer`.
    pub fn on_connected(&mut self, now: Millis, peer: ServerId) {
        self.advance(now);
        self.node.on_connected(now, peer);
        self.beats_connected(peer);
    }

    /// The transport has lost its connection to `peer`.
    pub fn on_disconnected(&mut self, now: Millis, peer: ServerId) {
        self.advance(now);
        self.node.on_disconnected(now, peer);
        self.beats_disconnected(now, peer);
    }

    /// See [`crate::zab::Peer::on_persisted`].
    pub fn on_persisted(&mut self, now: Millis, persisted: Persisted) {
        self.advance(now);
        self.node.on_persisted(now, persisted);
    }

    /// See [`crate::zab::Peer::on_write_failed`].
    pub fn on_write_failed(&mut self) {
        self.node.on_write_failed();
    }

    /// See [`crate::zab::Peer::on_read`].
    pub fn on_read(&mut self, now: Millis, learner: ServerId, tenure: Tenure, piece: Piece) {
        self.advance(now);
        self.node.on_read(now, learner, tenure, piece);
    }

    /// See [`crate::zab::Peer::on_snapshot_taken`].
    pub fn on_snapshot_taken(&mut self, zxid: Zxid) {
        self.node.on_snapshot_taken(zxid);
    }

    /// See [`crate::zab::Peer::on_trimmed`].
    pub fn on_trimmed(&mut self, begins_after: Zxid) {
        self.node.on_trimmed(begins_after);
    }

    /// See [`Node::on_replayed`].
    pub fn on_replayed(&mut self, now: Millis, entry: &Entry) {
        self.advance(now);
        self.node.on_replayed(entry);
    }

    /// See [`Node::restore`].
    ///
    /// # Errors
    /// As there.
    pub fn restore(&mut self, zxid: Zxid, content: &mut dyn Content) -> Result<(), Damaged> {
        self.node.restore(zxid, content)
    }

    /// Moves what has come up into `out`, whose old contents are dropped.
    pub fn ready(&mut self, out: &mut Output) {
        out.clear();
        let now = self.now;
        let mut taken = std::mem::take(&mut self.scratch);
        let mut news = std::mem::take(&mut self.news);
        loop {
            self.node.ready(&mut taken);
            self.node.app_mut().take(&mut news);
            let quiet = taken.is_empty() && news.is_empty();
            out.writes.append(&mut taken.writes);
            out.messages.append(&mut taken.messages);
            out.reads.append(&mut taken.reads);
            out.replay = taken.replay.take().or(out.replay);
            if let Some(fault) = taken.fenced.take() {
                out.fenced = Some(fault);
            }
            self.hear(now, &mut news);
            self.complete(now, &mut taken);
            self.look_at_standing(now);
            self.take_up_lease();
            let mut asked = self.ask_fates(now);
            asked |= self.go_on_adopting(now);
            asked |= self.announce(now);
            asked |= self.carry_leases(now);
            asked |= self.carry_beats(now);
            if quiet && !asked {
                break;
            }
        }
        self.scratch = taken;
        self.news = news;
        self.publisher.flush();
        self.beats.take_messages(&mut out.forwards);
        out.failure = self.failure.take();
        self.count();
    }

    /// What each shard is to be told; whoever carries it empties the lists.
    pub fn tells(&mut self) -> &mut [Vec<Tell>] {
        self.publisher.tells()
    }

    /// The state as it is now, and the last transaction in it.
    #[must_use]
    pub fn save(&self) -> (Zxid, Snapshot) {
        self.node.save()
    }

    /// The replicated state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.node.app().state
    }

    /// The peer below.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.node.peer()
    }

    /// Where this server stands in the ensemble.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        self.node.standing()
    }

    /// Until when, by its own clock, this server may promise.
    #[must_use]
    pub fn lease_until(&self) -> Millis {
        self.lease.until()
    }

    /// True if this server is the established leader.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.node.standing(), Standing::Leading { .. })
    }

    /// True once this server has served.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.served.is_some()
    }

    /// True if requests of this server are under way.
    #[must_use]
    pub fn has_in_flight(&self) -> bool {
        self.requests.len() > 0 || self.node.peer().in_flight() > 0
    }

    /// Takes note of the time. A long gap was a pause: what other servers sent meanwhile is
    /// still to be read, so nobody is judged by its silence.
    fn advance(&mut self, now: Millis) {
        let gap = now.since(self.now);
        self.now = now.max(self.now);
        if gap <= lease::pause(self.settings.lease) {
            return;
        }
        self.lease.hurry();
        if let Some(grantor) = &mut self.grantor {
            grantor.rebase(now);
        }
    }

    /// True if this server has a leader, or leads.
    fn stands(&self) -> bool {
        !matches!(self.node.standing(), Standing::Recovering)
    }

    /// Takes in what has happened to the state, in its order.
    fn hear(&mut self, now: Millis, news: &mut Vec<News>) {
        for item in news.drain(..) {
            match item {
                News::Group(change) => {
                    self.publisher.publish(&change, &self.node.app().state);
                    if *change.group == *endpoints::SERVERS {
                        self.publish_endpoints();
                    }
                }
                News::Ended(ended) => self.on_ended(&ended),
                News::Session(change) => self.on_session(now, change),
                News::Done(done) => {
                    if self.is_serving() {
                        self.counters.applied.add(1);
                    }
                    let own = done.origin.server == self.settings.id && done.origin.run == self.run;
                    let request = own.then(|| self.requests.close(done.origin.request));
                    let request = request.flatten();
                    self.tell_ends(request.as_ref(), &done.outcome);
                    let here = self.deal_arrivals(request.as_ref().map(|request| &request.who));
                    if let Some(request) = request {
                        self.finish(now, request, done.outcome, here);
                    }
                }
                News::Event(event) => self.on_event(&event),
                News::Restored(standings) => self.on_restored(standings),
                News::Message(from, bytes) => self.on_letter(now, from, &bytes),
                News::Corrupt(sentence) => {
                    let sentence = format!("a committed transaction cannot be applied: {sentence}");
                    self.failure.get_or_insert(sentence);
                }
            }
        }
    }

    /// The state was replaced: everything is told anew, and this server's sessions are adopted
    /// anew, since what was proposed for them may have been decided unseen.
    fn on_restored(&mut self, standings: Vec<GroupStanding>) {
        self.requests.blur();
        self.index.reset();
        debug_assert!(self.ends.is_empty(), "told when its transaction was done");
        self.active = 0;
        let mut active = 0;
        self.node.app().state.for_each_active(|_| active += 1);
        self.active = active;
        self.watches.reset(standings);
        self.publisher.reset(&self.node.app().state);
        self.publish_endpoints();
        self.begin_adoption();
    }

    /// Takes in what has become of requests of this server.
    fn complete(&mut self, now: Millis, ready: &mut NodeReady<()>) {
        for completion in ready.completions.drain(..) {
            match completion {
                // Recognised by its origin when it was delivered.
                Completion::Delivered { .. } => {}
                Completion::Answered { id, .. } => {
                    if let Some(request) = self.requests.close(id) {
                        self.answer_idle(now, request);
                    }
                }
                Completion::Flushed { id } => {
                    if let Some(request) = self.requests.close(id) {
                        for dead in self.requests.flushed(id, &request.who) {
                            self.revive(now, dead);
                        }
                        self.flushed(now, request.who);
                    }
                }
                Completion::Refused { id, refusal } => {
                    if let Some(request) = self.requests.close(id) {
                        self.not_taken(now, request, refusal);
                    }
                }
                Completion::HandedBack(_) if self.lacks(Plant::ForgetsHandedBack) => {}
                Completion::HandedBack(back) => {
                    let open_fate = back.fate == Fate::Unknown;
                    self.requests.hand_back(back.id, open_fate, now);
                }
            }
        }
        for token in ready.confirmed.drain(..) {
            self.on_confirmed(token);
        }
        self.counters.garbled.add(ready.garbled.len() as u64);
        ready.garbled.clear();
    }

    /// Notices a change of standing, once everything before it has been heard.
    fn look_at_standing(&mut self, now: Millis) {
        if *self.node.standing() == self.standing {
            return;
        }
        let standing = self.node.standing().clone();
        let (old, new) = (epoch_of(&self.standing), epoch_of(&standing));
        self.standing = standing;
        if old == new {
            return;
        }
        let standing = self.standing.clone();
        self.stand_as_grantor(now, &standing);
        if let Some(epoch) = new {
            if matches!(standing, Standing::Leading { .. }) {
                self.found(now);
            }
            for request in self.requests.revive(epoch) {
                self.revive(now, request);
            }
        }
    }

    /// Asks the leader what became of what it was asked before it was lost and found again.
    fn ask_fates(&mut self, now: Millis) -> bool {
        let asks =
            self.stands() && !self.lacks(Plant::WaitsForNewEpoch) && self.requests.asks_fates();
        if asks {
            self.submit(now, Request::new(What::Flush, Who::Fates, now));
        }
        asks
    }

    /// Asks the leader, or waits for one.
    fn submit(&mut self, now: Millis, request: Request) {
        if !self.stands() {
            return self.keep(now, request);
        }
        let asked = match request.what.transaction() {
            Some(txn) => self.node.propose(now, txn),
            None => self.node.flush(now),
        };
        match asked {
            Ok(id) => self.note_asked(id, request),
            Err(refusal) => self.not_taken(now, request, refusal),
        }
    }

    /// Puts the transaction of `change` together, for [`Replica::submit_encoded`].
    ///
    /// # Errors
    /// If it breaks a limit.
    fn encode(&mut self, change: &Change) -> Result<(), Refusal> {
        self.txn.clear();
        self.node.app().state.encode(change, &mut self.txn)
    }

    /// Asks the ensemble for the transaction that was put together last. Its bytes are copied
    /// once, into the letter that goes to the leader and, if that is here, into the log.
    ///
    /// It is `fresh` if it is the join of a member that nobody here has a session of.
    fn submit_encoded(&mut self, now: Millis, who: Who, fresh: bool) {
        if !self.stands() {
            return self.keep(now, Request::new(self.encoded(), who, now));
        }
        match self.node.propose(now, &self.txn) {
            Ok(id) => {
                let sent = self.node.sent(id).map(What::Sent);
                let what = sent.unwrap_or_else(|| self.encoded());
                if fresh && self.leads() {
                    self.node.app_mut().expect_new(self.settings.id, id);
                }
                self.note_asked(id, Request::new(what, who, now));
            }
            Err(refusal) => self.not_taken(now, Request::new(self.encoded(), who, now), refusal),
        }
    }

    /// The transaction that was put together last, to be kept.
    fn encoded(&self) -> What {
        What::Transaction(Arc::from(&self.txn[..]))
    }

    fn note_asked(&mut self, id: RequestId, request: Request) {
        let epoch = epoch_of(self.node.standing()).unwrap_or_default();
        self.requests.asked(id, epoch, request);
    }

    /// The leader, or this server's own node, had no room for a request.
    fn not_taken(&mut self, now: Millis, request: Request, refusal: NoRoom) {
        match refusal {
            NoRoom::NoLeader => self.keep(now, request),
            NoRoom::Full if request.may_fail() => self.fail(now, request.who, &Answer::Busy),
            NoRoom::Full => self.keep(now, request),
            NoRoom::TooLong => self.fail(now, request.who, &Answer::NoQuorum),
        }
    }

    fn keep(&mut self, now: Millis, request: Request) {
        if let Err(request) = self.requests.wait(request) {
            self.fail(now, request.who, &Answer::Busy);
        }
    }

    /// A request that was handed back, or has waited, has a leader again.
    fn revive(&mut self, now: Millis, request: Request) {
        if let Who::Orphans(..) = request.who
            && !self.lacks(Plant::ProposesOrphansAgain)
        {
            // Another leader may have granted their owner a lease since this was first asked.
            return self.fail(now, request.who, &Answer::NoQuorum);
        }
        if request.blurred && !request.is_repeatable() {
            return self.fail(now, request.who, &Answer::NoQuorum);
        }
        let blurred = false;
        self.submit(now, Request { blurred, ..request });
    }

    /// A client's request has waited for a leader for too long.
    fn give_up(&mut self, now: Millis, request: Request) {
        self.fail(now, request.who, &Answer::NoQuorum);
    }

    /// The leader found that a request changes nothing. So does this server, now that it has
    /// applied as much, unless something has come in between: then it asks again.
    fn answer_idle(&mut self, now: Millis, request: Request) {
        let Some(txn) = request.what.transaction() else {
            return;
        };
        match self.state().idle_outcome(txn) {
            Ok(Some(outcome)) => {
                self.counters.short_circuits.add(1);
                self.finish(now, request, outcome, None);
            }
            Ok(None) => self.submit(now, request),
            Err(_) => self.fail(now, request.who, &Answer::NoQuorum),
        }
    }

    fn count(&mut self) {
        let counters = &self.counters;
        let state = &self.node.app().state;
        counters.watched.set(self.watches.len() as u64);
        // The group in which the servers keep their endpoints is none of the clients'.
        let (groups, listed) = self.own_group.map_or((0, 0), |listed| (1, listed));
        let groups = (state.groups_len() as u64).saturating_sub(groups);
        counters.groups.set(groups);
        counters.members.set(self.active);
        let members = state.members_len().saturating_sub(listed);
        counters.inactive.set(members.saturating_sub(self.active));
        counters.in_flight.set(self.node.peer().in_flight() as u64);
    }
}

fn epoch_of(standing: &Standing) -> Option<Epoch> {
    match standing {
        Standing::Leading { epoch, .. } | Standing::Following { epoch, .. } => Some(*epoch),
        Standing::Recovering => None,
    }
}

/// How often those who wait for a leader are looked at.
const WAITING_LOOK: Millis = Millis(50);
