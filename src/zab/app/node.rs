//! One server of an ensemble that replicates an application.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::envelope::{self, Call, Letter, Malformed};
use super::ready::{Completion, Garbled, NodeReady, Sender, Sent};
use super::requests::{Open, Requests, Word};
use super::{
    Application, Content, Damaged, Limits, Origin, Preprocessed, Refusal, RequestId, Waiting,
};
use crate::time::Millis;
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{
    Boot, Ensemble, Entry, Message, Peer, Persisted, Piece, ProposeError, Ready, Replay, Settings,
    Standing, Tenure,
};

/// A [`Peer`] with an [`Application`] on top.
///
/// Its methods are of five kinds: the peer's inputs, passed on; two inputs of its own,
/// [`Node::on_replayed`] and [`Node::restore`]; commands ([`Node::propose`], [`Node::flush`],
/// [`Node::send`]); the one output ([`Node::ready`]), to be taken after each of these; and
/// getters. The application is called from within `ready`, `on_replayed`, `restore` and, for a
/// leader's message to itself, `send`.
///
/// Invariants: at most `requests_max` requests are not complete, at most `inbox_max` wait; only a
/// leader has an inbox and flushes under way.
pub struct Node<A: Application> {
    app: A,
    peer: Peer,
    /// Where the peer's outputs are taken to before they are looked into.
    scratch: Ready,
    ready: NodeReady<A::Outcome>,
    limits: Limits,
    ensemble: Ensemble,
    id: ServerId,
    run: u64,
    /// This server's clock, as of the last input.
    now: Millis,
    /// What the application was told last.
    standing: Standing,
    /// The last transaction that the application holds.
    applied: Zxid,
    catching_up: Option<CatchingUp>,
    /// The requests made here.
    requests: Requests,
    /// Requests of all servers that this leader has not preprocessed, oldest first.
    pub(super) inbox: VecDeque<Waiting>,
    /// The peer takes no proposal until it has committed one.
    full: bool,
    /// Room to put transactions together in.
    bytes: Vec<u8>,
    /// What waits for a barrier, by its token.
    pub(super) barriers: BTreeMap<u64, Waits>,
    newest_token: u64,
    /// Flushes whose barrier is passed, and what must be committed before they are answered; in
    /// the order of that.
    flushing: VecDeque<(Zxid, Origin)>,
}

/// What waits for a barrier.
pub(super) enum Waits {
    /// A flush, who asked for it, and the last transaction proposed before it.
    Flush(Origin, Zxid),
    /// The answer to a request, and the last transaction that it rests on.
    Answer(Origin, Zxid, Vec<u8>),
    /// This leader's application.
    Application,
}

/// The application is behind what is committed, and the log is read for it.
///
/// What is committed meanwhile is in the log as well and could be read in its turn. But while
/// that is read more is committed, and under load the end would never be reached: so the last
/// of it is kept.
struct CatchingUp {
    /// What is being read.
    reading: Replay,
    /// The last transaction to be read: `ahead` begins right after it.
    upto: Zxid,
    /// The last transactions known to be committed: at most [`AHEAD_MAX`], in order.
    ahead: VecDeque<Entry>,
    /// What the application is to be told when it is there.
    standing: Option<Standing>,
}

impl CatchingUp {
    /// Keeps a committed transaction. If they are too many, the older half is left to the log:
    /// were it one at a time, the reading would have to be as fast as commits come.
    fn keep(&mut self, entry: Entry) {
        self.ahead.push_back(entry);
        if self.ahead.len() > AHEAD_MAX
            && let Some(last) = self.ahead.drain(..AHEAD_MAX / 2).next_back()
        {
            self.upto = last.zxid;
        }
    }
}

impl<A: Application> Node<A> {
    /// A node that rests until [`Node::start`]. `app` holds what [`Boot::delivered`] says: it was
    /// restored from the newest snapshot, or holds nothing.
    ///
    /// # Panics
    /// As [`Peer::new`].
    #[must_use]
    pub fn new(app: A, settings: Settings, boot: Boot, limits: Limits) -> Node<A> {
        Node {
            app,
            scratch: Ready::default(),
            ready: NodeReady::default(),
            limits,
            ensemble: settings.ensemble.clone(),
            id: settings.id,
            run: boot.nonce,
            now: Millis(0),
            standing: Standing::Recovering,
            applied: boot.delivered,
            catching_up: None,
            requests: Requests::new(limits.requests_max),
            inbox: VecDeque::new(),
            full: false,
            bytes: Vec::new(),
            barriers: BTreeMap::new(),
            newest_token: 0,
            flushing: VecDeque::new(),
            peer: Peer::new(settings, boot),
        }
    }

    /// See [`Peer::start`].
    ///
    /// # Panics
    /// If the node has been started before.
    pub fn start(&mut self, now: Millis) {
        self.now = now;
        self.peer.start(now);
    }

    /// See [`Peer::tick`].
    pub fn tick(&mut self, now: Millis) {
        self.now = now;
        self.peer.tick(now);
    }

    /// See [`Peer::deadline`].
    #[must_use]
    pub fn deadline(&self) -> Millis {
        self.peer.deadline()
    }

    /// See [`Peer::on_message`].
    pub fn on_message(&mut self, now: Millis, from: ServerId, message: Message) {
        self.now = now;
        self.peer.on_message(now, from, message);
    }

    /// See [`Peer::on_connected`].
    pub fn on_connected(&mut self, now: Millis, peer: ServerId) {
        self.now = now;
        self.peer.on_connected(now, peer);
    }

    /// See [`Peer::on_disconnected`].
    pub fn on_disconnected(&mut self, now: Millis, peer: ServerId) {
        self.now = now;
        self.peer.on_disconnected(now, peer);
    }

    /// See [`Peer::on_persisted`]. Before [`Persisted::Snapshot`] the application is to be
    /// restored with [`Node::restore`].
    pub fn on_persisted(&mut self, now: Millis, persisted: Persisted) {
        self.now = now;
        self.peer.on_persisted(now, persisted);
    }

    /// See [`Peer::on_write_failed`].
    pub fn on_write_failed(&mut self) {
        self.peer.on_write_failed();
    }

    /// See [`Peer::on_read`].
    pub fn on_read(&mut self, now: Millis, learner: ServerId, tenure: Tenure, piece: Piece) {
        self.now = now;
        self.peer.on_read(now, learner, tenure, piece);
    }

    /// See [`Peer::on_snapshot_taken`]: what [`Node::save`] gave is durable.
    pub fn on_snapshot_taken(&mut self, zxid: Zxid) {
        self.peer.on_snapshot_taken(zxid);
    }

    /// See [`Peer::on_trimmed`].
    pub fn on_trimmed(&mut self, begins_after: Zxid) {
        self.peer.on_trimmed(begins_after);
    }

    /// A transaction of [`NodeReady::replay`] was read. One that the application holds already,
    /// because a snapshot has come in between, is passed over.
    ///
    /// # Panics
    /// If one was left out: the log and the node disagree.
    pub fn on_replayed(&mut self, entry: &Entry) {
        if entry.zxid <= self.applied {
            return;
        }
        self.deliver(entry);
        self.go_on_catching_up();
    }

    /// Restores the application from a snapshot as of `zxid` that has taken the place of the
    /// log: at `SnapshotEnd`.
    ///
    /// # Errors
    /// [`Damaged`] if the content is not what was saved. The node has withdrawn then, as after a
    /// failed write: what the application holds is not known.
    pub fn restore(&mut self, zxid: Zxid, content: &mut dyn Content) -> Result<(), Damaged> {
        if let Err(damaged) = self.app.restore(content) {
            self.peer.on_write_failed();
            return Err(damaged);
        }
        self.applied = zxid;
        self.go_on_catching_up();
        self.complete_due();
        Ok(())
    }

    /// Asks the ensemble, through its leader, to preprocess `request`, and to broadcast what
    /// comes of it.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing was asked then.
    pub fn propose(&mut self, now: Millis, request: &[u8]) -> Result<RequestId, Refusal> {
        self.now = now;
        if request.len() > self.limits.request_bytes_max {
            return Err(Refusal::TooLong);
        }
        let id = self.requests.next_id()?;
        let payload = Letter::Request(self.origin(id), request).encode_in(&mut self.bytes);
        match self.standing {
            Standing::Recovering => return Err(Refusal::NoLeader),
            Standing::Leading { .. } => {
                let (origin, payload) = (self.origin(id), Arc::clone(&payload));
                self.wait(Waiting { origin, payload })?;
            }
            Standing::Following { .. } => self.ask_leader(&payload)?,
        }
        let flush = false;
        self.requests.open(id, Open { flush, payload });
        Ok(id)
    }

    /// A request that was made here and is not decided.
    #[must_use]
    pub fn sent(&self, id: RequestId) -> Option<Sent> {
        let open = self.requests.get(id)?;
        Some(Sent(Arc::clone(&open.payload)))
    }

    /// A barrier for reads: complete when this server has delivered everything that was
    /// committed, anywhere, before the call, and when the requests it made earlier have met
    /// their fate. Who reads the application then reads nothing stale.
    ///
    /// That includes requests that were handed back: the leader takes the flush up in its turn
    /// behind them and waits for what it had proposed by then, so one of them that has not been
    /// delivered when the flush is complete never will be.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing was asked then.
    pub fn flush(&mut self, now: Millis) -> Result<RequestId, Refusal> {
        self.now = now;
        let id = self.requests.next_id()?;
        let payload = Letter::Flush(self.call(id)).encode();
        match self.standing {
            Standing::Recovering => return Err(Refusal::NoLeader),
            Standing::Leading { .. } => self.begin_flush(self.origin(id))?,
            Standing::Following { .. } => self.ask_leader(&payload)?,
        }
        let flush = true;
        self.requests.open(id, Open { flush, payload });
        Ok(id)
    }

    /// Asks a quorum whether this server still leads: the number that is returned comes back in
    /// [`NodeReady::confirmed`] once a round of pings that began after this call has been
    /// answered. It waits for nothing else, unlike [`Node::flush`], and is lost with the
    /// leadership.
    ///
    /// # Errors
    /// [`Refusal::NoLeader`] if this server does not lead; see [`Refusal`] for the others.
    pub fn confirm(&mut self, now: Millis) -> Result<u64, Refusal> {
        self.now = now;
        self.begin_barrier(Waits::Application)
    }

    /// Sends a message to the application of another server: of a learner, if this server leads,
    /// or of the leader (`None`), which may be this server itself. It is neither logged nor
    /// ordered with transactions, and may be lost with the connection. False if there is no such
    /// way at present.
    pub fn send(&mut self, to: Option<ServerId>, message: &[u8]) -> bool {
        let here = to.is_none_or(|to| to == self.id);
        if here && matches!(self.standing, Standing::Leading { .. }) {
            self.app.message(self.id, message);
            return true;
        }
        self.peer.send(to, Letter::Message(message).encode())
    }

    /// Moves what has come up since the last call into `ready`, whose old contents are dropped
    /// while its memory is used again.
    pub fn ready(&mut self, ready: &mut NodeReady<A::Outcome>) {
        let mut taken = std::mem::take(&mut self.scratch);
        // Each look into what the peer has put out may make it put out more.
        loop {
            self.pump();
            self.peer.ready(&mut taken);
            if taken.is_empty() {
                break;
            }
            self.take(&mut taken);
        }
        self.scratch = taken;
        ready.clear();
        std::mem::swap(ready, &mut self.ready);
    }

    /// The state as it is now, and the last transaction in it: for a snapshot, whose content is
    /// written at leisure and reported with [`Node::on_snapshot_taken`].
    #[must_use]
    pub fn save(&self) -> (Zxid, A::Snapshot) {
        (self.applied, self.app.save())
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The application, for what it keeps beside its state.
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// The peer below.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The last transaction that the application holds.
    #[must_use]
    pub fn applied(&self) -> Zxid {
        self.applied
    }

    /// Where this server stands, as the application was told.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The servers that are up to date, this one included, ascending; `None` if it does not lead.
    #[must_use]
    pub fn active(&self) -> Option<&[ServerId]> {
        match &self.standing {
            Standing::Leading { active, .. } => Some(active),
            Standing::Following { .. } | Standing::Recovering => None,
        }
    }

    /// Who belongs to the ensemble.
    #[must_use]
    pub fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    /// How many requests made here are not complete.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Looks into what the peer has put out.
    pub(super) fn take(&mut self, ready: &mut Ready) {
        self.ready.writes.append(&mut ready.writes);
        self.ready.messages.append(&mut ready.messages);
        self.ready.reads.append(&mut ready.reads);
        if let Some(replay) = ready.replay.take() {
            self.fall_behind(replay);
        }
        for entry in ready.deliver.drain(..) {
            match &mut self.catching_up {
                Some(catching_up) => catching_up.keep(entry),
                None => self.deliver(&entry),
            }
        }
        if let Some(standing) = ready.standing.take() {
            self.stand(standing);
        }
        for barrier in ready.barriers.drain(..) {
            match self.barriers.remove(&barrier.token) {
                Some(Waits::Flush(origin, proposed)) => {
                    self.flushing
                        .push_back((barrier.zxid.max(proposed), origin));
                    self.reply_to_flushes();
                }
                Some(Waits::Answer(origin, at, answer)) => {
                    self.reply(origin, at, Word::Answer(answer));
                }
                Some(Waits::Application) => self.ready.confirmed.push(barrier.token),
                None => {}
            }
        }
        for (from, payload) in ready.payloads.drain(..) {
            if let Err(error) = self.hear(from, &payload) {
                let sender = Sender::Server(from);
                self.ready.garbled.push(Garbled { sender, error });
            }
        }
        if let Some(fault) = ready.fenced.take() {
            self.ready.fenced = Some(fault);
            self.recover();
        }
    }

    /// Takes in a payload of another server.
    fn hear(&mut self, from: ServerId, payload: &Arc<[u8]>) -> Result<(), Malformed> {
        match Letter::decode(payload)? {
            Letter::Request(origin, _) if origin.server != from => {
                let found = origin.server;
                return Err(Malformed::Server { found });
            }
            Letter::Request(origin, _) => self.wait_or_refuse(origin, payload),
            Letter::Flush(call) => self.wait_or_refuse(call.of(from), payload),
            Letter::Answer(call, at, answer) if call.run == self.run => {
                self.decide(call.request, at, Word::Answer(answer.to_vec()));
            }
            Letter::Flushed(call, at) if call.run == self.run => {
                self.decide(call.request, at, Word::Flushed);
            }
            Letter::Refused(call, refusal) if call.run == self.run => {
                self.refused(call.request, refusal);
            }
            // Of a request of an earlier run, which nobody waits for.
            Letter::Answer(..) | Letter::Flushed(..) | Letter::Refused(..) => {}
            Letter::Message(message) => self.app.message(from, message),
        }
        Ok(())
    }

    /// The leader preprocesses, in their order, the requests that there is room for, and takes
    /// up the flushes between them.
    fn pump(&mut self) {
        while !self.full
            && matches!(self.standing, Standing::Leading { .. })
            && let Some(waiting) = self.inbox.pop_front()
        {
            let origin = waiting.origin;
            if envelope::is_flush(&waiting.payload) {
                if let Err(refusal) = self.begin_flush(origin) {
                    self.refuse(origin, refusal);
                }
                continue;
            }
            let request = envelope::request_in(&waiting.payload);
            match self.app.preprocess(origin, request) {
                Preprocessed::Answer(answer) => {
                    let waits = Waits::Answer(origin, self.applied, answer);
                    if let Err(refusal) = self.begin_barrier(waits) {
                        self.refuse(origin, refusal);
                    }
                }
                Preprocessed::Transaction(txn) => {
                    let letter = Letter::Request(origin, &txn);
                    let payload = letter.encode_in(&mut self.bytes);
                    self.broadcast(waiting, Some(payload));
                }
                Preprocessed::AsAsked => self.broadcast(waiting, None),
            }
        }
    }

    /// Proposes the transaction that the application has made of a request, or the request
    /// itself.
    fn broadcast(&mut self, waiting: Waiting, made: Option<Arc<[u8]>>) {
        let payload = made.as_ref().unwrap_or(&waiting.payload);
        if payload.len() > self.limits.txn_bytes_max {
            self.app.withdraw(envelope::request_in(payload));
            return self.refuse(waiting.origin, Refusal::TooLong);
        }
        if self.peer.propose(self.now, Arc::clone(payload)).is_err() {
            // It waits until there is room, or this server leads no more.
            self.app.withdraw(envelope::request_in(payload));
            self.inbox.push_front(waiting);
            self.full = true;
        }
    }

    fn wait_or_refuse(&mut self, origin: Origin, payload: &Arc<[u8]>) {
        let payload = Arc::clone(payload);
        if let Err(refusal) = self.wait(Waiting { origin, payload }) {
            self.refuse(origin, refusal);
        }
    }

    /// A request waits for its turn; at a server that does not lead, until that is known.
    fn wait(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        if self.inbox.len() >= self.limits.inbox_max {
            return Err(Refusal::Full);
        }
        self.inbox.push_back(waiting);
        Ok(())
    }

    /// The leader makes sure that it leads, for a server that would read.
    fn begin_flush(&mut self, origin: Origin) -> Result<(), Refusal> {
        let proposed = self.peer.last_logged();
        self.begin_barrier(Waits::Flush(origin, proposed)).map(drop)
    }

    /// The leader answers the flushes for which enough is committed.
    fn reply_to_flushes(&mut self) {
        while let Some((_, origin)) = self.flushing.pop_front_if(|(at, _)| *at <= self.applied) {
            self.reply(origin, self.applied, Word::Flushed);
        }
    }

    fn begin_barrier(&mut self, waits: Waits) -> Result<u64, Refusal> {
        let token = self.newest_token + 1;
        let barrier = self.peer.barrier(self.now, token);
        barrier.map_err(|error| match error {
            ProposeError::NotLeading => Refusal::NoLeader,
            ProposeError::Full => Refusal::Full,
        })?;
        self.newest_token = token;
        self.barriers.insert(token, waits);
        Ok(token)
    }

    /// Sends the leader what this follower asks.
    fn ask_leader(&mut self, payload: &Arc<[u8]>) -> Result<(), Refusal> {
        let sent = self.peer.send(None, Arc::clone(payload));
        if sent { Ok(()) } else { Err(Refusal::NoLeader) }
    }

    /// The leader gives its word on a request, which is complete where it was made as soon as
    /// `at` is delivered there.
    fn reply(&mut self, origin: Origin, at: Zxid, word: Word) {
        if self.is_own(origin) {
            return self.decide(origin.request, at, word);
        }
        let call = Call::to(origin);
        let letter = match &word {
            Word::Answer(answer) => Letter::Answer(call, at, answer),
            Word::Flushed => Letter::Flushed(call, at),
        };
        // If the way is lost, the other server hands its request back.
        self.peer.send(Some(origin.server), letter.encode());
    }

    /// The leader does not take a request.
    fn refuse(&mut self, origin: Origin, refusal: Refusal) {
        if self.is_own(origin) {
            return self.refused(origin.request, refusal);
        }
        let letter = Letter::Refused(Call::to(origin), refusal);
        self.peer.send(Some(origin.server), letter.encode());
    }

    /// The leader's word has come where the request was made.
    fn decide(&mut self, id: RequestId, at: Zxid, word: Word) {
        if self.requests.decide(id, at, word) {
            self.complete_due();
        }
    }

    fn refused(&mut self, id: RequestId, refusal: Refusal) {
        if self.requests.close(id).is_some() {
            let completion = Completion::Refused { id, refusal };
            self.ready.completions.push(completion);
            self.complete_due();
        }
    }

    /// Gives the application the next transaction.
    fn deliver(&mut self, entry: &Entry) {
        let zxid = entry.zxid;
        assert!(
            zxid.follows(self.applied),
            "{zxid} would be delivered after {}",
            self.applied
        );
        self.applied = zxid;
        self.full = false;
        match envelope::decode_transaction(&entry.payload) {
            Ok((origin, txn)) => {
                let outcome = self.app.deliver(zxid, txn, origin);
                let id = origin.request;
                if self.is_own(origin) && self.requests.close(id).is_some() {
                    let completion = Completion::Delivered { id, zxid, outcome };
                    self.ready.completions.push(completion);
                }
            }
            Err(error) => {
                let sender = Sender::Log(zxid);
                self.ready.garbled.push(Garbled { sender, error });
            }
        }
        self.complete_due();
        self.reply_to_flushes();
    }

    /// Completes what has waited for the deliveries so far.
    fn complete_due(&mut self) {
        while let Some((id, word)) = self.requests.next_complete(self.applied) {
            self.ready.completions.push(match word {
                Word::Answer(answer) => Completion::Answered { id, answer },
                Word::Flushed => Completion::Flushed { id },
            });
        }
    }

    /// The log has to be read for the application.
    fn fall_behind(&mut self, replay: Replay) {
        if let Some(catching_up) = &mut self.catching_up {
            catching_up.upto = replay.upto;
            catching_up.ahead.clear();
            return;
        }
        self.ready.replay = Some(replay);
        self.catching_up = Some(CatchingUp {
            reading: replay,
            upto: replay.upto,
            ahead: VecDeque::new(),
            standing: None,
        });
    }

    /// Has more of the log read if the last reading is done and did not suffice; if it did, what
    /// was kept is delivered and nothing is behind.
    fn go_on_catching_up(&mut self) {
        let Some(catching_up) = &mut self.catching_up else {
            return;
        };
        if self.applied < catching_up.reading.upto {
            return;
        }
        if self.applied < catching_up.upto {
            catching_up.reading = Replay {
                after: self.applied,
                upto: catching_up.upto,
            };
            self.ready.replay = Some(catching_up.reading);
            return;
        }
        let standing = catching_up.standing.take();
        let ahead = std::mem::take(&mut catching_up.ahead);
        self.catching_up = None;
        // A snapshot may have come in between, with some of it.
        for entry in &ahead {
            if entry.zxid > self.applied {
                self.deliver(entry);
            }
        }
        if let Some(standing) = standing {
            self.tell(standing);
        }
    }

    /// The peer's standing has changed.
    fn stand(&mut self, standing: Standing) {
        let held = self
            .catching_up
            .as_ref()
            .and_then(|behind| behind.standing.as_ref());
        let known = epoch_of(held.unwrap_or(&self.standing));
        if known != epoch_of(&standing) {
            self.recover();
        }
        match &mut self.catching_up {
            Some(catching_up) => catching_up.standing = Some(standing),
            None => self.tell(standing),
        }
    }

    /// Tells the application where this server stands.
    fn tell(&mut self, standing: Standing) {
        match &standing {
            Standing::Leading { active, .. } => self.app.leading(active),
            Standing::Following { leader, .. } => self.app.following(*leader),
            Standing::Recovering => return,
        }
        self.standing = standing;
    }

    /// Without a leader, or with another one, nothing that was asked is answered any more.
    fn recover(&mut self) {
        let inbox = std::mem::take(&mut self.inbox);
        self.barriers.clear();
        self.flushing.clear();
        self.full = false;
        if self.standing == Standing::Recovering {
            return;
        }
        self.standing = Standing::Recovering;
        let own = inbox.iter().filter(|waiting| self.is_own(waiting.origin));
        let unseen: BTreeSet<RequestId> = own.map(|waiting| waiting.origin.request).collect();
        let handed_back = self.requests.hand_back(&unseen);
        self.app.recovering(&handed_back);
        let handed_back = handed_back.into_iter().map(Completion::HandedBack);
        self.ready.completions.extend(handed_back);
        self.complete_due();
    }

    fn is_own(&self, origin: Origin) -> bool {
        origin.server == self.id && origin.run == self.run
    }

    pub(super) fn origin(&self, request: RequestId) -> Origin {
        self.call(request).of(self.id)
    }

    fn call(&self, request: RequestId) -> Call {
        let run = self.run;
        Call { run, request }
    }
}

/// Committed transactions kept for an application that is behind: half of it is more than is
/// committed while as many are read from the log.
pub(super) const AHEAD_MAX: usize = 16_384;

fn epoch_of(standing: &Standing) -> Option<Epoch> {
    match standing {
        Standing::Leading { epoch, .. } | Standing::Following { epoch, .. } => Some(*epoch),
        Standing::Recovering => None,
    }
}
