//! `systole join --keep`: a member for as long as the process lives.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::output::{Output, note};
use super::{Place, failure, refused_code};
use crate::cli::{Failure, UNAVAILABLE, hear_signals};
use crate::client::{Client, Event, Terms};
use crate::time::Millis;

enum Told {
    Event(Event),
    Signal,
}

/// Joins within `within`, and stays until a signal, or until the member is out for good.
pub(super) fn run(
    client: &Client,
    terms: Terms,
    place: &Place,
    within: Millis,
    output: &Output,
) -> Result<(), Failure> {
    let (tell, told) = channel();
    let signal = tell.clone();
    hear_signals(move || signal.send(Told::Signal).is_ok())?;
    let member = client.keep(terms, move |event| {
        // The other end goes away when the command is over.
        let _ = tell.send(Told::Event(event));
    });
    let member = member.map_err(|error| failure(&error, &place.to_string()))?;
    let mut speaker = Speaker {
        place,
        output,
        failed: HashSet::new(),
    };
    let outcome = stay(&told, &mut speaker, Duration::from_millis(within.0));
    // Leaves, unless it is out already.
    drop(member);
    while let Ok(Told::Event(event)) = told.try_recv() {
        speaker.say(&event)?;
    }
    outcome
}

fn stay(told: &Receiver<Told>, speaker: &mut Speaker<'_>, within: Duration) -> Result<(), Failure> {
    let mut joined = false;
    let mut why = "no answer in time".to_owned();
    loop {
        let next = match joined {
            true => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => told.recv_timeout(within),
        };
        let event = match next {
            Ok(Told::Event(event)) => event,
            Ok(Told::Signal) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                return Err(Failure {
                    sentence: format!("{} could not join; {why}", speaker.place),
                    code: UNAVAILABLE,
                });
            }
            // The thread that hears signals holds the other end for as long as this lives.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        speaker.say(&event)?;
        match event {
            Event::Joined { .. } => joined = true,
            Event::Failed { endpoint, why: how } => why = format!("{endpoint}: {how}"),
            Event::Replaced(problem) | Event::Refused(problem) => {
                return Err(Failure {
                    sentence: format!("{}: {problem}", speaker.place),
                    code: refused_code(problem.status),
                });
            }
            Event::Left => return Ok(()),
            _ => {}
        }
    }
}

/// Says what happens: to people on stderr, to programs on stdout too.
struct Speaker<'a> {
    place: &'a Place,
    output: &'a Output,
    /// Failures that were told since something else was: they repeat with each attempt.
    failed: HashSet<String>,
}

impl Speaker<'_> {
    fn say(&mut self, event: &Event) -> Result<(), Failure> {
        let line = format!("{}: {}", self.place, sentence(event));
        match event {
            Event::Failed { .. } if !self.failed.insert(line.clone()) => return Ok(()),
            Event::Failed { .. } => {}
            _ => self.failed.clear(),
        }
        note(&line);
        match self.output.is_json() {
            true => self.output.either(|| value(event), ""),
            false => Ok(()),
        }
    }
}

fn sentence(event: &Event) -> String {
    match event {
        Event::Joined {
            session,
            timeout,
            again,
        } => {
            let how = if *again { "joined again" } else { "joined" };
            format!("{how}, session {session}, timeout {} ms", timeout.0)
        }
        Event::Changed(version) => format!("the group has changed, version {version}"),
        Event::Failed { endpoint, why } => format!("{endpoint}: {why}"),
        Event::Lapsed => "no server has answered for a timeout: \
            others may hold this member dead from now on"
            .to_owned(),
        Event::Recovered => "the session has lived on".to_owned(),
        Event::Ended(session) => format!("session {session} has ended, joining again"),
        Event::Left => "left".to_owned(),
        Event::Replaced(problem) => format!("another session has taken over: {problem}"),
        Event::Refused(problem) => problem.to_string(),
    }
}

fn value(event: &Event) -> Value {
    match event {
        Event::Joined {
            session,
            timeout,
            again,
        } => json!({"event": "joined", "session": session.to_string(),
            "timeout_ms": timeout.0, "again": again}),
        Event::Changed(version) => json!({"event": "changed", "version": version.0}),
        Event::Failed { endpoint, why } => {
            json!({"event": "failed", "endpoint": endpoint, "why": why})
        }
        Event::Lapsed => json!({"event": "lapsed"}),
        Event::Recovered => json!({"event": "recovered"}),
        Event::Ended(session) => json!({"event": "ended", "session": session.to_string()}),
        Event::Left => json!({"event": "left"}),
        Event::Replaced(problem) => json!({"event": "replaced", "code": problem.code}),
        Event::Refused(problem) => json!({"event": "refused", "code": problem.code}),
    }
}
