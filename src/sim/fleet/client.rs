//! A member of a group: what it asks, where, and how it takes the answers.

use super::super::random::Span;
use super::http::{Answer, Ask};
use super::stage::{Event, Request, Stage};
use crate::types::{Epoch, GroupVersion, SessionId};

/// A client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    index: usize,
    pub(super) timeout_ms: u64,
    /// The server it speaks to.
    pub(super) server: usize,
    /// Speaks to another server each time.
    pub(super) wanders: bool,
    /// How it beats.
    form: Ask,
    pub(super) session: Option<SessionId>,
    /// What it has seen of its group.
    floor: Option<GroupVersion>,
    /// The request it waits for.
    pending: Option<u32>,
    /// Counts its acts: one that was planned before the last is stale.
    turn: u32,
    /// What it does on the whole.
    pub(super) mood: Mood,
    /// When it was last answered with a promise, µs.
    pub(super) promised_us: u64,
    /// When it last asked for one, µs.
    asked_us: u64,
    /// How often it found its session gone without having been silent.
    pub(super) evicted: u32,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// It is in the group, or wants to be.
    Lives,
    /// It says nothing more.
    Silent,
    /// It leaves, and then says nothing.
    Leaves,
}

impl Client {
    pub(super) fn new(stage: &mut Stage, index: usize) -> Client {
        let profile = &stage.profile;
        let (servers, wanderers) = (profile.servers, profile.wanderers);
        let random = &mut stage.random;
        let timeout_ms = random.pick(&stage.profile.timeouts);
        Client {
            index,
            timeout_ms,
            server: random.below(servers as u64) as usize,
            wanders: random.chance(wanderers),
            form: random.pick(&FORMS),
            session: None,
            floor: None,
            pending: None,
            turn: 0,
            mood: Mood::Lives,
            promised_us: 0,
            asked_us: 0,
            evicted: 0,
        }
    }

    /// The names of a client: half of them share a group, and twins a name.
    pub(super) fn names(index: usize, twins: bool) -> (String, String) {
        let index = if twins { index / 2 } else { index };
        (format!("g{}", index % 2), format!("m{index}"))
    }

    /// The client does what is next.
    pub(super) fn act(&mut self, stage: &mut Stage, turn: u32) {
        if turn != self.turn {
            return;
        }
        if let Some(number) = self.pending.take() {
            // No answer in time: it asks elsewhere.
            stage.requests.remove(&number);
            self.turn_away(stage);
        }
        if self.rest(stage) {
            return;
        }
        self.change_mood(stage);
        let ask = match self.mood {
            Mood::Silent => return self.plan(stage, PAUSE_US),
            Mood::Leaves if self.session.is_some() => Ask::Leave,
            Mood::Leaves => {
                self.mood = Mood::Silent;
                return self.plan(stage, PAUSE_US);
            }
            Mood::Lives => self.wish(stage),
        };
        if self.wanders || stage.random.chance(stage.profile.hops) {
            self.hop(stage);
        }
        self.ask(stage, ask);
    }

    fn wish(&mut self, stage: &mut Stage) -> Ask {
        if self.session.is_some() && !stage.random.chance(stage.profile.chores) {
            return self.form;
        }
        if stage.random.chance(stage.profile.fickle) {
            self.timeout_ms = stage.random.pick(&stage.profile.timeouts);
        }
        let timeout_ms = self.timeout_ms;
        let join = match stage.random.chance(stage.profile.takeovers) {
            true => Ask::Takeover { timeout_ms },
            false => Ask::Join { timeout_ms },
        };
        match self.session {
            None => join,
            Some(_) => stage
                .random
                .pick(&[join, join, Ask::Config, Ask::Read, Ask::Look]),
        }
    }

    /// Rests for about its timeout, so that its next beat meets the end of its session; perhaps
    /// it has forgotten that it had one.
    fn rest(&mut self, stage: &mut Stage) -> bool {
        let rests = self.session.is_some() && stage.random.chance(stage.profile.rests);
        if rests {
            if stage.random.chance(500_000) {
                self.session = None;
            }
            self.turn += 1;
            let timeout_us = self.timeout_ms * 1_000;
            let from_us = timeout_us - timeout_us / 50;
            let pause = Span::new(from_us, from_us + timeout_us / 16 + 40_000);
            stage.after(pause, self.next());
        }
        rests
    }

    fn change_mood(&mut self, stage: &mut Stage) {
        let moods = stage.profile.moods;
        if !stage.random.chance(moods) {
            return;
        }
        self.mood = match self.mood {
            Mood::Lives => stage.random.pick(&[Mood::Silent, Mood::Leaves]),
            Mood::Silent | Mood::Leaves => Mood::Lives,
        };
    }

    /// Turns to another server.
    pub(super) fn hop(&mut self, stage: &mut Stage) {
        let servers = stage.profile.servers as u64;
        self.server = match &stage.profile.haunts[..] {
            [] => stage.random.below(servers) as usize,
            haunts => stage.random.pick(haunts),
        };
    }

    /// Turns to another server after a refusal, unless it is stubborn.
    fn turn_away(&mut self, stage: &mut Stage) {
        if !stage.random.chance(stage.profile.stubborn) {
            self.hop(stage);
        }
    }

    /// Asks something of the server it speaks to.
    pub(super) fn ask(&mut self, stage: &mut Stage, ask: Ask) {
        let (group, member) = Client::names(self.index, stage.profile.twins);
        let bytes = ask.bytes((&group, &member), self.session, self.floor);
        let names_session = !matches!(ask, Ask::Line | Ask::Beat) && !ask.joins();
        let shards = u64::from(stage.profile.shards);
        let request = Request {
            client: self.index,
            at: self.server,
            shard: stage.random.below(shards) as u16,
            ask,
            bytes,
            session: self.session.filter(|_| names_session),
            floor: self.floor.filter(|_| ask.has_floor()),
            names: (group, member),
            known: None,
            epoch: Epoch::default(),
            arrived_us: 0,
            out: Vec::new(),
            answer: None,
        };
        self.asked_us = stage.now;
        let number = stage.ask(request);
        self.pending = Some(number);
        self.plan(stage, stage.profile.answer_us);
    }

    /// An answer has come.
    pub(super) fn hear(&mut self, stage: &mut Stage, number: u32) {
        let Some(request) = stage.requests.remove(&number) else {
            return;
        };
        if self.pending != Some(number) {
            return;
        }
        self.pending = None;
        let Some(answer) = request.answer.clone() else {
            return;
        };
        let index = self.index;
        stage.judge.trace(stage.now, || {
            let (ask, at) = (request.ask, request.at + 1);
            let (status, problem) = (answer.status, answer.problem.as_deref().unwrap_or(""));
            format!("m{index} {ask:?} at {at}: {status} {problem}")
        });
        self.floor = self.floor.max(answer.version);
        let pause = match answer.status {
            200..300 => self.take(stage, &request, &answer),
            404 | 410 => self.lose(stage),
            // Another session of this member, perhaps by a join whose answer was lost.
            409 => self.lose(stage),
            _ => {
                self.turn_away(stage);
                RETRY_US
            }
        };
        self.plan(stage, pause);
    }

    /// A good answer.
    fn take(&mut self, stage: &Stage, request: &Request, answer: &Answer) -> u64 {
        if request.ask.promises() {
            self.promised_us = self.asked_us;
            self.session = answer.session.or(self.session);
        }
        if request.ask == Ask::Leave {
            self.session = None;
            self.floor = None;
        }
        self.timeout_ms * 1_000 / stage.profile.beats
    }

    /// Its session is gone.
    fn lose(&mut self, stage: &mut Stage) -> u64 {
        let silent_us = stage.now.saturating_sub(self.promised_us);
        let lived = self.session.take().is_some() && self.mood == Mood::Lives;
        if lived && silent_us < self.timeout_ms * 1_000 {
            self.evicted += 1;
        }
        RETRY_US
    }

    /// Acts again in `pause_us` or a little later.
    pub(super) fn plan(&mut self, stage: &mut Stage, pause_us: u64) {
        self.turn += 1;
        stage.after(
            Span::new(pause_us, pause_us + pause_us / 8 + 1),
            self.next(),
        );
    }

    fn next(&self) -> Event {
        Event::Client {
            client: self.index as u16,
            turn: self.turn,
        }
    }
}

/// How clients beat.
const FORMS: [Ask; 6] = [
    Ask::Beat,
    Ask::Beat,
    Ask::BeatSession,
    Ask::BeatAndGet,
    Ask::Line,
    Ask::Packed,
];
/// How long until it asks again after a refusal, µs.
const RETRY_US: u64 = 50_000;
/// How often a silent client thinks of going on, µs.
const PAUSE_US: u64 = 500_000;
