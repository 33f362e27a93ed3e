//! What a member does next.
//!
//! ```text
//!            2xx                    leave()
//!  Joining ───────▶ Holding ───────────────────▶ Leaving ──▶ Over
//!     ▲                │  404, 410: the session       2xx, 404, 410,
//!     └────────────────┘  has ended                   or in vain for a while
//!
//!  Joining, Holding ──▶ Over    refused; 409: another has taken the name over
//! ```
//!
//! The promise. A 2xx to a join or a beat says that the session will not be expired before its
//! timeout has passed *since the server handled the request*. The client does not know when that
//! was, but it was not before the request was sent. So it counts from there, and less by as much
//! as its clock may be slow: [`Membership::promised_until`] is the time up to which nobody can
//! hold the member dead. A program that must not act while another may have taken its place stops
//! there.

use std::collections::VecDeque;

use super::call::{Answer, Call, Problem, Verdict, member_path};
use super::endpoints::{Dice, Endpoints, Pick};
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// Who joins what, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The group's name.
    pub group: String,
    /// The member's name; nobody else's.
    pub member: String,
    /// The session's timeout; `None` takes the server's default.
    pub timeout: Option<Millis>,
    /// The member's config, written with the join; `None` leaves it as it is.
    pub config: Option<Vec<u8>>,
    /// What to do about a session that the member has already.
    pub entry: Entry,
}

impl Terms {
    /// Joins `group` as `member`, with the server's default timeout and no config.
    #[must_use]
    pub fn new(group: impl Into<String>, member: impl Into<String>) -> Terms {
        Terms {
            group: group.into(),
            member: member.into(),
            timeout: None,
            config: None,
            entry: Entry::Renew,
        }
    }

    /// The request that joins.
    #[must_use]
    pub fn join(&self) -> Call {
        let mut target = member_path(&self.group, &self.member);
        let mut parameters = Vec::new();
        if let Some(Millis(timeout_ms)) = self.timeout {
            parameters.push(format!("timeout={timeout_ms}ms"));
        }
        if self.entry == Entry::TakeOver {
            parameters.push("takeover".to_owned());
        }
        if !parameters.is_empty() {
            target.push('?');
            target.push_str(&parameters.join("&"));
        }
        let mut call = Call::new("PUT", target);
        call.body.clone_from(&self.config);
        match self.entry {
            Entry::OnlyNew => call.header("if-none-match", "*"),
            Entry::Renew | Entry::TakeOver => call,
        }
    }
}

/// What to do about a session that the member has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Go on with it: right where the name is this process's alone.
    #[default]
    Renew,
    /// End it, and begin a new one in the same transaction: a process that was started again
    /// fences what is left of its last run.
    TakeOver,
    /// Be refused.
    ///
    /// A join whose answer was lost may have been carried out, and is refused when it is sent
    /// again; the session that nobody knows of then expires.
    OnlyNew,
}

/// What a program is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The member is in, with a session of its own: the id is its fencing token.
    Joined {
        /// The session.
        session: SessionId,
        /// Its timeout.
        timeout: Millis,
        /// Whether this member had another session before: what was done under that one may
        /// have been taken over meanwhile.
        again: bool,
    },
    /// The group has changed.
    Changed(GroupVersion),
    /// A server did not answer, or could not at present.
    Failed {
        /// Which.
        endpoint: String,
        /// How, in words.
        why: String,
    },
    /// Nothing that was promised holds any more: from here on others may hold the member dead.
    Lapsed,
    /// The same session is promised again, after it had lapsed.
    Recovered,
    /// The session has expired, or was ended by somebody; the member joins again.
    Ended(SessionId),
    /// The member has left, or nothing is left of it.
    Left,
    /// Another has taken the name over: this member is out for good.
    Replaced(Problem),
    /// The servers will not have it: this member is out for good.
    Refused(Problem),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and report what comes of it.
    Call {
        /// To whom.
        endpoint: String,
        /// What.
        call: Call,
        /// How long to wait for the answer.
        within: Millis,
    },
    /// Nothing before this time.
    Wait(Millis),
    /// Nothing any more.
    Over,
}

/// One member of one group, from its first join to its end.
///
/// [`Membership::next`] says what to do; each [`Step::Call`] is followed by one call of
/// [`Membership::on_answer`] or [`Membership::on_failure`]. What the program should know is in
/// [`Membership::take_event`].
#[derive(Debug)]
pub struct Membership {
    terms: Terms,
    endpoints: Endpoints,
    dice: Dice,
    phase: Phase,
    /// What a call that is under way was sent to, and when.
    sent: Option<(String, Millis)>,
    /// A join was sent.
    asked: bool,
    /// The session that was held last.
    session: Option<SessionId>,
    timeout: Millis,
    promised_until: Option<Millis>,
    /// The lapse of `promised_until` has been told.
    lapsed: bool,
    version: Option<GroupVersion>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Joining,
    Holding { next_beat: Millis },
    Leaving { until: Millis },
    Over,
}

impl Membership {
    /// A member that is about to join. `seed` is to differ between the members of a fleet.
    ///
    /// # Panics
    /// If there are no endpoints.
    #[must_use]
    pub fn new(terms: Terms, endpoints: &[String], seed: u64) -> Membership {
        let mut dice = Dice::new(seed);
        let endpoints = Endpoints::new(endpoints, dice.below(u64::MAX));
        let timeout = terms.timeout.unwrap_or(TIMEOUT_UNKNOWN);
        Membership {
            terms,
            endpoints,
            dice,
            phase: Phase::Joining,
            sent: None,
            asked: false,
            session: None,
            timeout,
            promised_until: None,
            lapsed: false,
            version: None,
            events: VecDeque::new(),
        }
    }

    /// What to do at `now`.
    ///
    /// # Panics
    /// If a call is under way.
    pub fn next(&mut self, now: Millis) -> Step {
        assert!(self.sent.is_none(), "one call at a time");
        self.notice_lapse(now);
        let due = match self.phase {
            Phase::Over => return Step::Over,
            Phase::Leaving { until } if now >= until => {
                self.end(Event::Left);
                return Step::Over;
            }
            Phase::Joining | Phase::Leaving { .. } => now,
            Phase::Holding { next_beat } => next_beat,
        };
        if now < due {
            return self.wait(due);
        }
        match self.endpoints.pick(now) {
            Pick::At(at) => self.wait(at),
            Pick::Now(endpoint) => {
                self.sent = Some((endpoint.clone(), now));
                self.asked = true;
                let call = self.call();
                let within = self.patience(now);
                Step::Call {
                    endpoint,
                    call,
                    within,
                }
            }
        }
    }

    /// The call that was asked for has been answered, at `now`.
    ///
    /// # Panics
    /// If none was.
    pub fn on_answer(&mut self, now: Millis, answer: &Answer) {
        let (endpoint, sent) = self.sent.take().expect("an answer follows a call");
        self.endpoints.learn(&answer.endpoints());
        match answer.verdict() {
            Verdict::Elsewhere => {
                let why = answer.problem().to_string();
                self.endpoints.failed(&endpoint, now, answer.retry_after);
                self.tell(Event::Failed { endpoint, why });
            }
            Verdict::Done => match (self.phase, answer.session) {
                (Phase::Leaving { .. }, _) => self.end(Event::Left),
                (_, Some(session)) => {
                    self.endpoints.worked(&endpoint);
                    self.on_promise(sent, session, answer);
                }
                // Not everything that says yes on a port is one of ours.
                (_, None) => {
                    let why = "answered without a session".to_owned();
                    self.endpoints.failed(&endpoint, now, None);
                    self.tell(Event::Failed { endpoint, why });
                }
            },
            Verdict::Refused => {
                self.endpoints.worked(&endpoint);
                self.on_refusal(answer.problem());
            }
        }
        self.notice_lapse(now);
    }

    /// The call that was asked for came to nothing, for the reason `why`, at `now`.
    ///
    /// # Panics
    /// If none was asked for.
    pub fn on_failure(&mut self, now: Millis, why: &str) {
        let (endpoint, _) = self.sent.take().expect("a failure follows a call");
        self.endpoints.failed(&endpoint, now, None);
        self.tell(Event::Failed {
            endpoint,
            why: why.to_owned(),
        });
        self.notice_lapse(now);
    }

    /// Leaves, and gives that up at `until`.
    pub fn leave(&mut self, until: Millis) {
        // Without a session's id a leave ends whatever session the member has. That is right if
        // a join of ours may have been carried out whose answer was lost, and nobody else joins.
        let nothing_to_leave = !self.asked || self.terms.entry == Entry::OnlyNew;
        match self.phase {
            Phase::Over | Phase::Leaving { .. } => {}
            _ if self.session.is_none() && nothing_to_leave => self.end(Event::Left),
            Phase::Joining | Phase::Holding { .. } => self.phase = Phase::Leaving { until },
        }
    }

    /// The oldest thing that was not told yet.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The session that is held, or was held last.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Up to when nobody can hold the member dead; `None` while it holds no session.
    #[must_use]
    pub fn promised_until(&self) -> Option<Millis> {
        self.promised_until
    }

    /// The newest version of the group that was heard of.
    #[must_use]
    pub fn version(&self) -> Option<GroupVersion> {
        self.version
    }

    /// The request of the present phase.
    fn call(&self) -> Call {
        let Terms { group, member, .. } = &self.terms;
        let method = match self.phase {
            Phase::Joining => return self.terms.join(),
            Phase::Leaving { .. } => "DELETE",
            _ => "HEAD",
        };
        let call = Call::new(method, member_path(group, member));
        match self.session {
            Some(session) => call.header("x-session-id", session),
            None => call,
        }
    }

    /// How long an answer is waited for. A beat's wait leaves time to beat elsewhere before the
    /// promise lapses, and ends with the promise, so that a lapse is told when it happens.
    fn patience(&self, now: Millis) -> Millis {
        let beat = Millis((self.timeout.0 / 6).clamp(PATIENCE_MIN.0, BEAT_PATIENCE_MAX.0));
        let most = match self.phase {
            Phase::Leaving { until } => until.since(now).min(JOIN_PATIENCE),
            Phase::Joining => JOIN_PATIENCE,
            _ => beat,
        };
        let left = self.promised_until.map_or(most, |until| until.since(now));
        match self.phase {
            Phase::Holding { .. } if !self.lapsed => most.min(left).max(PATIENCE_MIN),
            _ => most.max(PATIENCE_MIN),
        }
    }

    /// A join or a beat that was sent at `sent` has been answered with a promise.
    fn on_promise(&mut self, sent: Millis, session: SessionId, answer: &Answer) {
        self.timeout = answer.timeout.unwrap_or(self.timeout);
        let short = Millis((self.timeout.0 / 12).clamp(PATIENCE_MIN.0, BACKOFF_MAX.0));
        self.endpoints.back_off(short, self.third());
        self.promised_until = Some(sent + shrunk(self.timeout));
        let recovered = std::mem::take(&mut self.lapsed);
        if self.session != Some(session) {
            let again = self.session.replace(session).is_some();
            self.tell(Event::Joined {
                session,
                timeout: self.timeout,
                again,
            });
        } else if recovered {
            self.tell(Event::Recovered);
        }
        if answer.version > self.version {
            let known = std::mem::replace(&mut self.version, answer.version);
            if let (Some(_), Some(version)) = (known, answer.version) {
                self.tell(Event::Changed(version));
            }
        }
        // A third of the timeout at most: two beats may be lost. A first beat comes anywhere in
        // it, so that those who joined together do not beat together.
        let third = self.third().0;
        let least = match self.phase {
            Phase::Joining => third / 3,
            _ => third - third / 10,
        };
        let pause = Millis(least + self.dice.below(third - least + 1));
        self.phase = Phase::Holding {
            next_beat: sent + pause,
        };
    }

    fn on_refusal(&mut self, problem: Problem) {
        match (self.phase, problem.status) {
            (Phase::Leaving { .. }, 404 | 409 | 410) => self.end(Event::Left),
            (Phase::Holding { .. }, 404 | 410) => {
                self.phase = Phase::Joining;
                self.promised_until = None;
                self.lapsed = false;
                if let Some(session) = self.session {
                    self.tell(Event::Ended(session));
                }
            }
            (Phase::Holding { .. }, 409) => self.end(Event::Replaced(problem)),
            _ => self.end(Event::Refused(problem)),
        }
    }

    fn notice_lapse(&mut self, now: Millis) {
        let over = self.promised_until.is_some_and(|until| now >= until);
        let held = matches!(self.phase, Phase::Holding { .. });
        if over && held && !self.lapsed {
            self.lapsed = true;
            self.tell(Event::Lapsed);
        }
    }

    /// Waits for `due`, or for the lapse if that comes before.
    fn wait(&self, due: Millis) -> Step {
        let lapse = self.promised_until.filter(|_| !self.lapsed);
        let until = match self.phase {
            Phase::Leaving { until } => due.min(until),
            _ => lapse.map_or(due, |lapse| due.min(lapse)),
        };
        Step::Wait(until)
    }

    fn end(&mut self, event: Event) {
        self.phase = Phase::Over;
        self.promised_until = None;
        self.tell(event);
    }

    fn tell(&mut self, event: Event) {
        // Whoever drives this takes them after each step, and a step tells three at most.
        assert!(self.events.len() < EVENTS_MAX, "nobody takes the events");
        self.events.push_back(event);
    }

    fn third(&self) -> Millis {
        Millis((self.timeout.0 / 3).max(1))
    }
}

/// What of a timeout has surely not passed for a server whose clock runs a thousandth faster.
const fn shrunk(timeout: Millis) -> Millis {
    Millis(timeout.0 - timeout.0.div_ceil(1_000))
}

/// The timeout to reckon with until a server has told the one that holds.
const TIMEOUT_UNKNOWN: Millis = Millis(10_000);
/// No answer is waited for less than this: a server that is well may be busy.
const PATIENCE_MIN: Millis = Millis(20);
/// No answer to a beat is waited for longer.
const BEAT_PATIENCE_MAX: Millis = Millis(2_000);
/// How long the answer to a join may take: it may have to wait for an election.
const JOIN_PATIENCE: Millis = Millis(5_000);
/// A server that failed once is not left alone for longer.
const BACKOFF_MAX: Millis = Millis(1_000);
/// Events that nobody has taken.
const EVENTS_MAX: usize = 16;
