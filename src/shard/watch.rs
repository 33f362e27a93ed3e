//! Watching groups: long polls and event streams, from the request to the answer.
//!
//! The core tells a shard what happens in the groups that it watches; see `room` for how those
//! who wait are found, and `events` for what a listener is sent. Here it is decided what each
//! of them gets when something has happened, or when its patience has ended.
//!
//! What somebody is told is applied state of this server, and never older than what the client
//! says it has seen: not than the version it polls from, nor than its last event.

use std::rc::Rc;
use std::sync::Arc;

use super::conn::{Class, ConnId, Response, Stream};
use super::document::{BEHIND_MS_MAX, DocumentAsk, DocumentJob, Rendered};
use super::events::Events;
use super::serve::{Manner, Step};
use super::{Phase, Place, Purpose, Shard};
use crate::group::{Event, Happening, Notice, Rank, ring_bytes_max};
use crate::http::{self, Answer, Code, Length, Problem};
use crate::mail::{Answer as CoreAnswer, Ask, What};
use crate::time::Millis;
use crate::types::GroupVersion;

/// What a long poll waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    /// A version above this; `None`: above what it is when the wait begins.
    pub(super) above: Option<GroupVersion>,
    /// How long at most; `None`: [`WAIT_DEFAULT`].
    pub(super) wait: Option<Millis>,
}

/// One who waits for a group and has not been answered.
pub(super) struct Wait {
    /// When its patience ends.
    pub(super) until: Option<Millis>,
    /// Its patience has ended.
    over: bool,
    kind: Kind,
}

enum Kind {
    Poll(Box<Polling>),
    Listen(Listening),
}

struct Polling {
    job: DocumentJob,
    above: Option<GroupVersion>,
    /// Whether the group existed when the wait began; `None` before it has begun.
    existed: Option<bool>,
}

struct Listening {
    place: Place,
    manner: Manner,
    /// The last version the client has seen.
    resume: Option<GroupVersion>,
    /// Nothing older may be shown.
    floor: Option<GroupVersion>,
}

/// What one who waits is to get.
enum Verdict {
    /// Nothing yet.
    Stays(Wait),
    /// It needs a document that the core is to give.
    NeedsDocument(Wait),
    /// The answer has been given, and it hangs here no longer.
    Answered,
    /// Its stream has begun.
    Listens,
}

/// Requests.
impl Shard {
    /// `GET /G?wait=…`.
    pub(super) fn poll_group(
        &mut self,
        conn: ConnId,
        group: &[u8],
        ask: DocumentAsk,
        (poll, consistent): (Poll, bool),
        manner: Manner,
        now: Millis,
    ) -> Result<Step, Problem> {
        self.must_have_room_to_watch()?;
        if consistent {
            // What is there now is asked for first, as everybody agrees that it is.
            let what = What::Document {
                group: group.into(),
                consistent,
            };
            return self.park(conn, Class::Other, what, |place| {
                let job = DocumentJob::new(place, group, ask, None, manner);
                Purpose::Document(job.polling(poll))
            });
        }
        let place = self.reserve(conn);
        let job = DocumentJob::new(place, group, ask, None, manner);
        self.hang_poll(job, poll, now);
        Ok(Step::Parked)
    }

    /// `GET /G` with `Accept: text/event-stream`.
    pub(super) fn listen(
        &mut self,
        conn: ConnId,
        group: &[u8],
        resume: Option<GroupVersion>,
        manner: Manner,
        now: Millis,
    ) -> Result<Step, Problem> {
        self.must_have_room_to_watch()?;
        let place = self.reserve(conn);
        let floor = resume.max(manner.floor);
        let listening = Listening {
            place,
            manner,
            resume,
            floor,
        };
        let until = floor.map(|_| now + Millis(BEHIND_MS_MAX));
        self.hang(conn, group, Kind::Listen(listening), until, now);
        Ok(Step::Parked)
    }

    /// A long poll begins to wait.
    pub(super) fn hang_poll(&mut self, job: DocumentJob, poll: Poll, now: Millis) {
        let conn = job.place().conn;
        let wait = poll.wait.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX);
        // Those who began to wait together are not to come back together.
        let until = now + wait + Millis(self.dice.below(wait.0 / JITTER_SHARE + 1));
        let group: Box<[u8]> = job.group().into();
        let polling = Polling {
            job,
            above: poll.above,
            existed: None,
        };
        self.hang(
            conn,
            &group,
            Kind::Poll(Box::new(polling)),
            Some(until),
            now,
        );
    }

    fn must_have_room_to_watch(&mut self) -> Result<(), Problem> {
        let shards = self.registry.shards.iter();
        let watchers: u64 = shards.map(|shard| shard.watchers.get()).sum();
        if watchers < self.settings.watchers_max {
            return Ok(());
        }
        self.counters.watch_refused.add(1);
        let mut problem = Problem::new(Code::TooManyWatchers);
        let spread = self.dice.below(RETRY_AFTER_S_SPREAD);
        problem.retry_after_s = Some(1 + spread as u32);
        Err(problem)
    }

    fn reserve(&mut self, conn: ConnId) -> Place {
        let seq = self.conns[conn.index as usize].reserve(Class::Other);
        Place { conn, seq }
    }

    fn hang(&mut self, conn: ConnId, group: &[u8], kind: Kind, until: Option<Millis>, now: Millis) {
        // The client may be gone, if the wait begins later than the request.
        if self.conn(conn).is_none() {
            return;
        }
        let index = match self.room.find(group) {
            Some(index) => index,
            None => {
                let index = self.room.make(&Arc::from(group));
                self.ask_to_watch(index);
                index
            }
        };
        if let Some(open) = self.conn(conn) {
            open.hangs = Some(index);
        }
        self.room.enter(index);
        self.show_watchers();
        let over = until.is_some_and(|until| until <= now);
        self.room.keep_wait(conn, Wait { until, over, kind });
        self.attend(index, conn, now);
    }

    fn show_watchers(&self) {
        self.counters.watchers.set(self.room.watchers() as u64);
    }

    fn ask_to_watch(&mut self, index: u32) {
        let spot = self.room.spot_mut(index);
        spot.known = false;
        let group = Arc::clone(&spot.name);
        let token = self.parked.insert(Purpose::Watch(index));
        let what = What::Watch { group };
        self.outbox.asks.push(Ask { token, what });
    }

    /// A connection that hangs in the room is gone, or its stream has ended.
    pub(super) fn leave_room(&mut self, conn: ConnId, index: u32) {
        self.room.leave(index, conn);
        self.show_watchers();
        self.tidy_room(index);
    }

    fn tidy_room(&mut self, index: u32) {
        let conns = &self.conns;
        self.room.tidy(index, |conn| {
            let open = conns.get(conn.index as usize);
            open.is_some_and(|open| open.generation == conn.generation && open.hangs == Some(index))
        });
    }

    /// The client sends no more, and may be gone: it is answered what there is.
    pub(super) fn stop_waiting(&mut self, conn: ConnId) {
        let hangs = self.conn(conn).and_then(|open| open.hangs);
        let (Some(index), Some(mut wait)) = (hangs, self.room.take_wait(conn)) else {
            return;
        };
        wait.over = true;
        wait.until = None;
        self.room.keep_wait(conn, wait);
        self.room.list(index, conn, true);
    }
}

/// The core's news.
impl Shard {
    /// The core tells how a group stands that is watched from now on.
    pub(super) fn on_watching(&mut self, index: u32, answer: CoreAnswer) {
        let CoreAnswer::Watching(exists, ring) = answer else {
            debug_assert!(false, "a watch is always granted");
            return;
        };
        let spot = self.room.spot_mut(index);
        spot.known = true;
        spot.exists = exists;
        spot.ring = *ring;
        self.room.stir(index);
    }

    /// Something has happened in a group that this shard watches, or did when it was told.
    pub(super) fn on_notice(
        &mut self,
        group: &[u8],
        exists: Option<GroupVersion>,
        notice: Arc<Notice>,
    ) {
        let bytes_max = ring_bytes_max(self.room.len());
        let Some(index) = self.room.find(group) else {
            return;
        };
        let spot = self.room.spot_mut(index);
        if notice.rank() < spot.ring.newest() {
            // A removed group was forgotten, and counts from 0 again.
            spot.ring.restart(Rank::NOTHING);
            spot.life += 1;
        }
        spot.exists = exists;
        spot.ring.push(notice, bytes_max);
        self.room.stir(index);
    }

    /// The replicated state was replaced: what happened in between is not known. Everybody is
    /// shown what there is now.
    pub(super) fn reset_room(&mut self) {
        for index in self.room.all() {
            let spot = self.room.spot_mut(index);
            spot.life += 1;
            // If the core has not answered yet, it will from the new state.
            if spot.known {
                self.ask_to_watch(index);
            }
        }
    }

    /// The document that those who are due have waited for.
    pub(super) fn on_shared_document(&mut self, index: u32, answer: CoreAnswer) {
        let spot = self.room.spot_mut(index);
        spot.asked = false;
        spot.document = None;
        if let CoreAnswer::Document(Some(document)) = answer {
            let rendered = match self.documents.get(&spot.name, document.version()) {
                Some(rendered) => Rc::clone(rendered),
                None => Rendered::new(document.clone()),
            };
            // The first piece is rendered with the endpoints of now.
            rendered.piece(0, &self.endpoints);
            self.documents.keep(&spot.name, &rendered);
            spot.document = Some((document, rendered));
        }
        self.room.stir_for_document(index);
    }

    /// Time has passed: whose patience has ended is due, and groups that nobody watches any
    /// more are given up.
    pub(super) fn tick_room(&mut self, now: Millis) {
        self.room.now = now;
        while let Some(conn) = self.room.overdue(now) {
            self.stop_waiting(conn);
        }
        let before = Millis(now.0.saturating_sub(LINGER.0));
        while let Some(group) = self.room.abandon(before) {
            let what = What::Unwatch { group };
            self.outbox.asks.push(Ask { token: 0, what });
        }
    }

    /// The shard goes down: listeners and pollers are sent elsewhere.
    pub(super) fn empty_room(&mut self) {
        for index in self.room.all() {
            self.room.stir(index);
        }
    }
}

/// Those who are due.
impl Shard {
    /// True if somebody waits to be looked at: call [`Shard::fan_out`] soon.
    #[must_use]
    pub fn has_due(&self) -> bool {
        self.room.has_due()
    }

    /// Looks at some of those for whom something has happened, few enough that the sockets
    /// are not kept waiting.
    pub fn fan_out(&mut self, now: Millis) {
        for _ in 0..FAN_OUT_MAX {
            let Some((index, conn)) = self.room.next_due() else {
                return;
            };
            self.attend(index, conn, now);
            self.room.settle(index);
        }
        self.room.rotate();
    }

    /// Looks at one who may wait or listen here.
    fn attend(&mut self, index: u32, conn: ConnId, now: Millis) {
        let Some(open) = self.conn(conn).filter(|open| open.hangs == Some(index)) else {
            return;
        };
        if let Some(events) = open.events() {
            events.list(false);
            return self.attend_listener(index, conn);
        }
        let Some(wait) = self.room.take_wait(conn) else {
            return;
        };
        match self.judge(index, conn, wait, now) {
            Verdict::Stays(wait) => {
                self.room.keep_wait(conn, wait);
                self.room.list(index, conn, false);
                self.tidy_room(index);
            }
            Verdict::NeedsDocument(wait) => {
                self.room.keep_wait(conn, wait);
                self.room.list_for_document(index, conn);
                self.ask_shared_document(index);
            }
            Verdict::Answered => {
                if let Some(open) = self.conn(conn) {
                    open.hangs = None;
                }
                self.leave_room(conn, index);
            }
            Verdict::Listens => {}
        }
    }

    fn ask_shared_document(&mut self, index: u32) {
        let spot = self.room.spot_mut(index);
        if std::mem::replace(&mut spot.asked, true) {
            return;
        }
        let what = What::Document {
            group: (*spot.name).into(),
            consistent: false,
        };
        let token = self.parked.insert(Purpose::Shared(index));
        self.outbox.asks.push(Ask { token, what });
    }

    /// Something has happened for one who listens, or what it has leads nowhere.
    fn attend_listener(&mut self, index: u32, conn: ConnId) {
        let spot = self.room.spot(index);
        let (life, known, gone) = (spot.life, spot.known, spot.exists.is_none());
        let stopping = self.phase == Phase::Stopping;
        let Some(open) = self.conn(conn) else { return };
        let Some(events) = open.events() else { return };
        if stopping || events.is_of(life) || events.has_first() {
            return self.outbox.woken.push(conn);
        }
        let shown = self.snapshot_of(index).filter(|_| known && !gone);
        let removal = (known && gone).then(|| self.removal_of(index));
        let Some(open) = self.conn(conn) else { return };
        let Some(events) = open.events() else { return };
        if let Some(removal) = removal {
            events.lose(removal);
        } else if let Some((rendered, next)) = shown {
            events.show(rendered, next, life);
            self.counters.watch_snapshots.add(1);
        } else {
            events.list(true);
            if !known {
                return self.room.list(index, conn, false);
            }
            self.room.list_for_document(index, conn);
            return self.ask_shared_document(index);
        }
        self.outbox.woken.push(conn);
    }

    /// The group as a listener may be shown it, and the number of the event after that.
    fn snapshot_of(&self, index: u32) -> Option<(Rc<Rendered>, u64)> {
        let spot = self.room.spot(index);
        let given = spot.document.as_ref().map(|(_, rendered)| rendered);
        let kept = || self.documents.get(&spot.name, spot.exists?);
        let rendered = given.or_else(kept)?;
        let next = spot.ring.after(Rank::of(rendered.version()))?;
        Some((Rc::clone(rendered), next))
    }

    /// What a listener is told of a group that is gone.
    fn removal_of(&self, index: u32) -> Arc<Notice> {
        let spot = self.room.spot(index);
        let event = Event {
            group: Arc::clone(&spot.name),
            version: spot.ring.newest().version().unwrap_or_default(),
            what: Happening::Removed,
            last: true,
        };
        Arc::new(event.render())
    }

    /// What one who waits is to get.
    fn judge(&mut self, index: u32, conn: ConnId, wait: Wait, now: Millis) -> Verdict {
        if self.phase == Phase::Stopping {
            let (place, head_only) = wait.kind.place();
            let problem = Problem::new(Code::ShuttingDown).closing();
            if let Some(open) = self.conn(conn) {
                open.last = true;
                // What was sent behind it does not get its turn.
                open.blocked = false;
            }
            self.answer_problem(place, &problem, head_only);
            return Verdict::Answered;
        }
        if !self.room.spot(index).known {
            return Verdict::Stays(wait);
        }
        let Wait { until, over, kind } = wait;
        let again = |kind| Wait { until, over, kind };
        match kind {
            Kind::Poll(polling) => match self.judge_poll(index, polling, over, now) {
                Ok(()) => Verdict::Answered,
                Err((polling, false)) => Verdict::Stays(again(Kind::Poll(polling))),
                Err((polling, true)) => Verdict::NeedsDocument(again(Kind::Poll(polling))),
            },
            Kind::Listen(listening) => self.judge_listener(index, conn, listening, over, again),
        }
    }

    /// Answers a long poll, or says whether it needs a document.
    fn judge_poll(
        &mut self,
        index: u32,
        mut polling: Box<Polling>,
        over: bool,
        now: Millis,
    ) -> Result<(), (Box<Polling>, bool)> {
        let spot = self.room.spot(index);
        let existed = *polling.existed.get_or_insert_with(|| {
            polling.above = polling.above.or(spot.exists);
            spot.exists.is_some()
        });
        let Some(version) = spot.exists else {
            // One that was there and is not any more has changed.
            if !existed && !over {
                return Err((polling, false));
            }
            let problem = Problem::new(Code::UnknownGroup);
            let job = &polling.job;
            self.answer_problem(job.place(), &problem, job.head_only());
            return Ok(());
        };
        let changed = polling.above.is_none_or(|above| version > above);
        if !changed && !over {
            return Err((polling, false));
        }
        let least = match polling.above {
            Some(above) if changed => GroupVersion(above.0 + 1),
            _ => version,
        };
        let given = spot.document.as_ref();
        if let Some((document, rendered)) = given.filter(|(given, _)| given.version() >= least) {
            let (document, rendered) = (document.clone(), Rc::clone(rendered));
            let whole = polling.job.is_whole().then_some(rendered);
            self.give_document(polling.job, document, whole, now);
            return Ok(());
        }
        let Polling { job, .. } = *polling;
        match self.give_kept(job, version) {
            None => Ok(()),
            Some(job) => {
                let polling = Polling {
                    job,
                    above: polling.above,
                    existed: polling.existed,
                };
                Err((Box::new(polling), true))
            }
        }
    }

    /// Begins the stream of one who wants to listen, or says what it waits for.
    fn judge_listener(
        &mut self,
        index: u32,
        conn: ConnId,
        listening: Listening,
        over: bool,
        again: impl Fn(Kind) -> Wait,
    ) -> Verdict {
        let spot = self.room.spot(index);
        let Listening {
            place,
            manner,
            resume,
            floor,
        } = listening;
        let seen = resume.map(Rank::of);
        let behind = floor.is_some_and(|floor| spot.ring.newest() < Rank::of(floor));
        if behind {
            if !over {
                return Verdict::Stays(again(Kind::Listen(listening)));
            }
            let mut problem = Problem::new(Code::Behind);
            problem.version = spot.exists;
            self.answer_problem(place, &problem, manner.head_only);
            return Verdict::Answered;
        }
        if manner.head_only {
            let mut bytes = Vec::new();
            head(spot.exists, manner).write(&mut bytes, b"", true);
            self.answer(place, bytes);
            return Verdict::Answered;
        }
        let chunked = !manner.close;
        let resumed = seen.and_then(|seen| Some((seen, spot.ring.after(seen)?)));
        let mut events = Events::new(chunked);
        if let Some((seen, next)) = resumed {
            events = Events::resumed(next, seen, spot.life, chunked);
        } else if spot.exists.is_none() {
            // What it has seen is gone, if it has seen anything.
            if seen.is_some() {
                events = Events::resumed(0, Rank::NOTHING, spot.life, chunked);
                events.lose(self.removal_of(index));
            }
        } else if let Some((rendered, next)) = self.snapshot_of(index) {
            events.show(rendered, next, spot.life);
            self.counters.watch_snapshots.add(1);
        } else {
            return Verdict::NeedsDocument(again(Kind::Listen(listening)));
        }
        self.begin_stream(index, conn, place, manner, events);
        Verdict::Listens
    }

    fn begin_stream(
        &mut self,
        index: u32,
        conn: ConnId,
        place: Place,
        manner: Manner,
        events: Events,
    ) {
        let exists = self.room.spot(index).exists;
        let mut bytes = Vec::new();
        let length = if manner.close {
            Length::Unsaid
        } else {
            Length::Chunked
        };
        let answer = Answer {
            close: true,
            ..head(exists, manner)
        };
        answer.write_head(&mut bytes, length);
        // Those whose streams end together are not to come back together.
        let retry_ms = RETRY_MS_MIN + self.dice.below(RETRY_MS_SPREAD);
        let mut hello = format!("retry: {retry_ms}\n\n");
        if exists.is_none() {
            hello = format!(": there is no such group\n{hello}");
        }
        http::piece(&mut bytes, hello.as_bytes(), !manner.close);
        if let Some(open) = self.conn(conn) {
            // Nothing that the client sends from here on is a request.
            open.input = Vec::new();
            open.blocked = false;
        }
        let stream = Some(Box::new(Stream::Events(events)));
        self.answer(place, Response { bytes, stream });
    }
}

fn head(version: Option<GroupVersion>, manner: Manner) -> Answer {
    Answer {
        content_type: Some("text/event-stream"),
        version,
        no_store: true,
        close: manner.close,
        ..Answer::default()
    }
}

impl Kind {
    fn place(&self) -> (Place, bool) {
        match self {
            Kind::Poll(polling) => (polling.job.place(), polling.job.head_only()),
            Kind::Listen(listening) => (listening.place, listening.manner.head_only),
        }
    }
}

/// Random enough to spread clients in time; nothing rests on it.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How long a long poll waits that says a version and no time.
const WAIT_DEFAULT: Millis = Millis(30_000);
/// The longest wait; a longer one is taken for this.
const WAIT_MAX: Millis = Millis(600_000);
/// A wait ends up to this part of it later than asked, so that those who began together do not
/// come back together.
const JITTER_SHARE: u64 = 16;
/// How long a client whose stream has ended waits before it comes back: from the first to the
/// sum of both.
const RETRY_MS_MIN: u64 = 500;
const RETRY_MS_SPREAD: u64 = 2_000;
/// For how many seconds those are spread who find no room.
const RETRY_AFTER_S_SPREAD: u64 = 10;
/// How long the events of a group are kept that nobody watches any more.
const LINGER: Millis = Millis(60_000);
/// How many of those who are due are looked at before the sockets have their turn: at a few
/// microseconds for each `send`, half a millisecond.
const FAN_OUT_MAX: usize = 64;
