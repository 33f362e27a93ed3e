//! A member that is kept in by a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::core::membership::{Event, Membership, Step, Terms};
use super::http::Http;
use super::{Error, clock};
use crate::time::Millis;
use crate::types::{GroupVersion, SessionId};

/// A member of a group, kept in with beats. Dropped, it leaves.
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    session: Option<SessionId>,
    promised_until: Option<Millis>,
    version: Option<GroupVersion>,
    /// The program has asked to leave, for at most until then.
    leave: Option<Millis>,
    /// Why it is over, if it is.
    over: Option<Event>,
}

impl Member {
    pub(super) fn start(
        http: Http,
        terms: Terms,
        endpoints: &[String],
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Member, Error> {
        let shared = Arc::new(Shared::default());
        let membership = Membership::new(terms, endpoints, clock::seed());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("systole-member".to_owned())
            .spawn(move || live(&http, membership, &theirs, on_event))
            .map_err(|error| Error::NoThread(error.to_string()))?;
        Ok(Member {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits for the first session, for at most `within`; `None` if there is none by then.
    ///
    /// # Errors
    /// `Refused` if the servers will not have the member.
    pub fn joined(&self, within: Duration) -> Result<Option<SessionId>, Error> {
        let waits = |state: &mut State| state.session.is_none() && state.over.is_none();
        let state = self.shared.state();
        let waited = self.shared.changed.wait_timeout_while(state, within, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.over {
            Some(Event::Refused(problem) | Event::Replaced(problem)) => {
                Err(Error::Refused(problem.clone()))
            }
            _ => Ok(state.session),
        }
    }

    /// The session that is held, or was held last: the fencing token.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.shared.state().session
    }

    /// Whether nobody can hold the member dead at this moment.
    #[must_use]
    pub fn is_promised(&self) -> bool {
        self.promised_for().is_some()
    }

    /// For how long nobody can hold the member dead, if no further beat gets through.
    #[must_use]
    pub fn promised_for(&self) -> Option<Duration> {
        let until = self.shared.state().promised_until?;
        let left = until.since(clock::now()).0;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// The newest version of the group that an answer has told.
    #[must_use]
    pub fn version(&self) -> Option<GroupVersion> {
        self.shared.state().version
    }

    /// Whether the member is out for good.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.state().over.is_some()
    }

    /// Leaves, and returns once that is done, or was tried in vain for two seconds: then the
    /// session expires.
    pub fn leave(self) {
        drop(self);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.state().leave = Some(clock::now() + LEAVE_TIME);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A callback that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole at every step; a panic elsewhere does not change that.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until `until`, or until the program asks to leave.
    fn wait(&self, until: Millis) {
        let within = Duration::from_millis(until.since(clock::now()).0);
        let stays = |state: &mut State| state.leave.is_none();
        let waited = self.changed.wait_timeout_while(self.state(), within, stays);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// The member's life, from its first join to its end.
fn live(http: &Http, mut membership: Membership, shared: &Shared, mut on_event: impl FnMut(Event)) {
    let mut leaving = false;
    loop {
        let asked = shared.state().leave;
        if let Some(until) = asked.filter(|_| !leaving) {
            leaving = true;
            membership.leave(until);
        }
        let step = membership.next(clock::now());
        if let Step::Call {
            endpoint,
            call,
            within,
        } = &step
        {
            match http.call(endpoint, call, *within) {
                Ok(answer) => membership.on_answer(clock::now(), &answer),
                Err(fault) => membership.on_failure(clock::now(), &fault.to_string()),
            }
        }
        publish(&mut membership, shared, &step, &mut on_event);
        match step {
            Step::Call { .. } => {}
            // What was asked for is under way: nothing is left that would wake this.
            Step::Wait(until) if leaving => clock::pause(until),
            Step::Wait(until) => shared.wait(until),
            Step::Over => return,
        }
    }
}

/// Shows the program what is so, and then tells it what has happened.
fn publish(
    membership: &mut Membership,
    shared: &Shared,
    step: &Step,
    on_event: &mut impl FnMut(Event),
) {
    let events: Vec<Event> = std::iter::from_fn(|| membership.take_event()).collect();
    {
        let mut state = shared.state();
        state.session = membership.session();
        state.promised_until = membership.promised_until();
        state.version = membership.version();
    }
    let last = events.last().cloned();
    events.into_iter().for_each(on_event);
    if matches!(step, Step::Over) || last.as_ref().is_some_and(is_end) {
        let mut state = shared.state();
        state.over = state.over.take().or(last);
    }
    shared.changed.notify_all();
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Left | Event::Replaced(_) | Event::Refused(_))
}

/// How long a leave is tried.
const LEAVE_TIME: Millis = Millis(2_000);
