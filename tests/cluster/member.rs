//! Members: clients that join, beat, turn to another server when one fails them, and leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::caller::{Caller, Unanswered};
use crate::common::{Deadline, Dice, Response, now};
use crate::ledger::{Ledger, Name};

/// What a member does with its life.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) timeout: Duration,
    /// One in so many beats is a leave instead, and then a new join; 0 for never.
    pub(crate) restless: u64,
    /// Asks the next server at each beat.
    pub(crate) wanders: bool,
    /// Never asks any but the first one.
    pub(crate) stays: bool,
}

impl Habits {
    /// Joins, and beats three times a timeout, as long as it lives.
    pub(crate) fn faithful(timeout: Duration) -> Habits {
        Habits {
            timeout,
            restless: 0,
            wanders: false,
            stays: false,
        }
    }

    fn pause(&self) -> Duration {
        self.timeout / 3
    }

    /// How long it waits for one server.
    fn patience(&self) -> Duration {
        self.timeout / 6
    }
}

/// A client with a session, on a thread of its own.
struct Member {
    name: Name,
    habits: Habits,
    caller: Caller,
    ledger: Ledger,
    dice: Dice,
    session: Option<String>,
    /// A join or leave under this name was not answered, and may yet be carried out: nothing
    /// is certain of the name any more once this session has ended.
    tainted: bool,
    /// How many names it has given up.
    lives: u64,
    /// The highest version it was told.
    version: u64,
    stop: Arc<AtomicBool>,
}

/// Some members that are alive.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Members `first…` of a group, spread over the servers; all of them have joined.
    #[track_caller]
    pub(crate) fn join(
        endpoints: &[SocketAddr],
        servers: &[usize],
        group: &str,
        count: usize,
        habits: &Habits,
        ledger: &Ledger,
    ) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let mut crowd = Crowd {
            stop: Arc::clone(&stop),
            threads: Vec::new(),
        };
        for number in 0..count {
            let at = servers[number % servers.len()];
            let name = (group.to_owned(), format!("m{number}"));
            let mut member = Member {
                name: name.clone(),
                habits: habits.clone(),
                caller: Caller::new(endpoints.to_vec(), at, habits.patience()),
                ledger: ledger.clone(),
                dice: Dice::new(number as u64 + 1),
                session: None,
                tainted: false,
                lives: 0,
                version: 0,
                stop: Arc::clone(&stop),
            };
            assert!(member.join(), "{name:?} joins");
            crowd.threads.push(thread::spawn(move || member.live()));
        }
        crowd
    }

    /// All of them fall silent, at once and without a word; returns when no request of theirs
    /// is under way any more.
    pub(crate) fn die(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a member's end");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

impl Member {
    fn live(mut self) {
        let mut due = now();
        while !self.stopped() {
            due = (due + self.habits.pause()).max(now());
            while !self.stopped() && now() < due {
                thread::park_timeout(due.saturating_duration_since(now()));
            }
            if self.stopped() {
                return;
            }
            self.act();
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn act(&mut self) {
        if self.habits.wanders {
            self.caller.turn_away();
        }
        let restless = self.habits.restless;
        if self.session.is_none() {
            self.join();
        } else if restless > 0 && self.dice.below(restless) == 0 {
            self.leave();
        } else {
            self.beat();
        }
    }

    fn target(&self) -> String {
        format!("/{}/{}", self.name.0, self.name.1)
    }

    /// Asks one server after the other until one says yes or no; `None` if none has within a
    /// timeout. Returns when the answered question was sent.
    fn insist(
        &mut self,
        method: &str,
        target: &str,
        session: Option<&str>,
    ) -> Option<(Instant, Response)> {
        let patience = Deadline::after(self.habits.timeout);
        let version = self.version.to_string();
        let mut headers = vec![("x-group-version", version.as_str())];
        headers.extend(session.map(|id| ("x-session-id", id)));
        while !self.stopped() && !patience.passed() {
            let sent = now();
            let answer = self.caller.ask(method, target, &headers, b"");
            match answer {
                Ok(answer) if answer.status != 503 => return Some((sent, answer)),
                Err(Unanswered::NotSent) => {}
                // A refusal for want of a quorum does not say what becomes of the request.
                _ => self.tainted |= method != "HEAD",
            }
            self.ledger.retried();
            if !self.habits.stays {
                self.caller.turn_away();
            }
            Deadline::after(RETRY_PAUSE).pass();
        }
        None
    }

    fn join(&mut self) -> bool {
        self.ledger.unsure(&self.name);
        let timeout = self.habits.timeout;
        let target = format!("{}?timeout={}ms", self.target(), timeout.as_millis());
        let Some((sent, answer)) = self.insist("PUT", &target, None) else {
            self.end_session();
            return false;
        };
        if !matches!(answer.status, 200 | 201) {
            self.complain("join", &answer);
            return false;
        }
        self.see(&answer);
        let id = answer.session();
        let version = answer.version();
        self.ledger.joined(&self.name, &id, timeout, version, sent);
        self.session = Some(id);
        true
    }

    fn beat(&mut self) {
        let id = self.session.clone();
        let Some((sent, answer)) = self.insist("HEAD", &self.target(), id.as_deref()) else {
            return;
        };
        match answer.status {
            204 => {
                self.see(&answer);
                self.ledger.touched(&self.name, &answer.session(), sent);
            }
            404 | 409 | 410 => {
                let said = format!("{} by server {}", answer.status, self.caller.at() + 1);
                self.ledger.gone(&self.name, &said);
                self.end_session();
            }
            _ => self.complain("beat", &answer),
        }
    }

    fn leave(&mut self) {
        self.ledger.unsure(&self.name);
        let id = self.session.clone();
        let answer = self.insist("DELETE", &self.target(), id.as_deref());
        match answer.map(|(_, answer)| (answer.status, answer)) {
            Some((204, answer)) => {
                self.see(&answer);
                if !self.tainted {
                    self.ledger.left(&self.name, answer.version());
                }
            }
            // An earlier try that was not answered may have done it.
            Some((404 | 409 | 410, _)) if self.tainted => {}
            Some((_, answer)) => self.complain("leave", &answer),
            None => {}
        }
        self.end_session();
    }

    /// The next session may need another name: what was asked under this one may be carried
    /// out at any time, and would look like a fault.
    fn end_session(&mut self) {
        self.session = None;
        if std::mem::take(&mut self.tainted) {
            self.ledger.unsure(&self.name);
            let first = self.name.1.split('-').next().unwrap_or_default();
            self.lives += 1;
            self.name.1 = format!("{first}-{}", self.lives);
        }
    }

    fn see(&mut self, answer: &Response) {
        let version = answer.version();
        if version < self.version {
            let (known, name) = (self.version, &self.name);
            self.ledger.violation(format!(
                "{name:?} knows version {known} and is told {version}"
            ));
        }
        self.version = self.version.max(version);
    }

    fn complain(&self, what: &str, answer: &Response) {
        let said = format!("{:?}: a {what} was answered {answer:?}", self.name);
        self.ledger.violation(said);
    }
}

/// Between a refusal and the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(30);
