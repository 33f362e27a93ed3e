//! A client of the server, for programs: it joins, keeps beating, fails over and watches.
//!
//! ```no_run
//! use systole::client::{Client, Event, Terms};
//!
//! # fn main() -> Result<(), systole::client::Error> {
//! let client = Client::new(["127.0.0.1:8640", "127.0.0.1:8642"])?;
//! let member = client.keep(Terms::new("database", "db1"), |event| match event {
//!     Event::Joined { session, again, .. } => println!("fencing token {session}, new: {again}"),
//!     Event::Lapsed => println!("others may hold us dead from here on: stop"),
//!     event => println!("{event:?}"),
//! })?;
//! println!("{} members", client.group("database")?.get()?.active.len());
//! member.leave();
//! # Ok(())
//! # }
//! ```
//!
//! All of it blocks. [`Client::keep`] has a thread of its own, which beats every third of the
//! timeout; [`Member::is_promised`] says whether anybody can hold the member dead.
//!
//! What a client decides is in `core`, which is pure; the files beside it carry it out.

mod clock;
mod core;
mod error;
mod group;
mod http;
mod member;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::core::call::Verdict;
use self::core::endpoints::{Endpoints, Pick};
use self::http::{Fault, Http};
use crate::time::Millis;

pub use self::core::call::{Answer, Call, Problem, group_path, member_path};
pub use self::core::events::Change;
pub use self::core::membership::{Entry, Event, Membership, Step, Terms};
pub use error::Error;
pub use group::{Batch, Document, Failure, Group, Joined, Tagged};
pub use member::Member;
pub use watch::Watch;

/// The servers, and connections to them. A clone shares both.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    endpoints: Arc<Mutex<Endpoints>>,
    given: Arc<[String]>,
    patience: Millis,
}

impl Client {
    /// A client of the servers at these addresses, each `HOST:PORT`, perhaps with `http://`
    /// before it. One is enough: the others are learnt from what it answers.
    ///
    /// # Errors
    /// If there is none, or one is no address.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Client, Error> {
        let given: Result<Vec<String>, Error> = endpoints
            .into_iter()
            .map(|endpoint| address(endpoint.as_ref()))
            .collect();
        let given = given?;
        if given.is_empty() {
            return Err(Error::NoEndpoint);
        }
        Ok(Client {
            http: Http::new(),
            endpoints: Arc::new(Mutex::new(Endpoints::new(&given, clock::seed()))),
            given: given.into(),
            patience: PATIENCE,
        })
    }

    /// The same client, whose calls go on for at most `patience` as long as servers answer that
    /// they cannot at present.
    #[must_use]
    pub fn with_patience(mut self, patience: Millis) -> Client {
        self.patience = patience;
        self
    }

    /// A group, of which this handle never shows an older state than it has shown before.
    ///
    /// # Errors
    /// If that is no name.
    pub fn group(&self, name: &str) -> Result<Group, Error> {
        Group::new(self.clone(), name)
    }

    /// Joins, and keeps the member in with beats from a thread of its own, until it is dropped
    /// or told to leave. Returns at once: [`Member::joined`] waits for the first session.
    ///
    /// `on_event` is called from that thread, which does not beat meanwhile: it must not block.
    ///
    /// # Errors
    /// If a name is none, or the system has no thread.
    pub fn keep(
        &self,
        terms: Terms,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Member, Error> {
        for name in [&terms.group, &terms.member] {
            check_name(name)?;
        }
        let endpoints: Vec<String> = self.known();
        Member::start(self.http.clone(), terms, &endpoints, on_event)
    }

    /// Sends `call` to a server that answers it, and gives what that says, refusals included.
    ///
    /// # Errors
    /// `Unreachable` once every server was asked in vain; `Unavailable` if none could answer for
    /// as long as the client's patience.
    pub fn send(&self, call: &Call) -> Result<Answer, Error> {
        self.send_telling(call).map(|(answer, _)| answer)
    }

    /// The same; says too whether an attempt before came to nothing, which a server may have
    /// carried out all the same.
    fn send_telling(&self, call: &Call) -> Result<(Answer, bool), Error> {
        let mut repeated = false;
        let answer = self.ask(|endpoint, within| {
            let answer = self.http.call(endpoint, call, within);
            repeated |= answer.is_err();
            answer.map(|answer| (answer, ()))
        });
        answer.map(|(answer, ())| (answer, repeated))
    }

    /// Asks one server after the other until one answers, in the order and with the pauses that
    /// [`Endpoints`] has for them. `attempt` is told whom to ask, and for how long.
    fn ask<T>(
        &self,
        mut attempt: impl FnMut(&str, Millis) -> Result<(Answer, T), Fault>,
    ) -> Result<(Answer, T), Error> {
        let deadline = clock::now() + self.patience;
        // Those that were not reached since one was.
        let mut silent: Vec<String> = Vec::new();
        let mut last = Error::NoEndpoint;
        loop {
            let now = clock::now();
            let pick = self.endpoints().pick(now);
            let endpoint = match pick {
                Pick::At(at) if at < deadline => {
                    clock::pause(at);
                    continue;
                }
                Pick::Now(endpoint) if now < deadline || last == Error::NoEndpoint => endpoint,
                _ => return Err(last),
            };
            let left = deadline.since(now).max(ATTEMPT_MIN);
            // One that is silent must not use up the time of the others.
            let alone = self.endpoints().names().count() == 1;
            let within = if alone { left } else { left.min(ATTEMPT_MAX) };
            let asked = attempt(&endpoint, within);
            let now = clock::now();
            let mut endpoints = self.endpoints();
            match asked {
                Ok((answer, more)) => {
                    endpoints.learn(&answer.endpoints());
                    if answer.verdict() != Verdict::Elsewhere {
                        endpoints.worked(&endpoint);
                        return Ok((answer, more));
                    }
                    silent.clear();
                    endpoints.failed(&endpoint, now, answer.retry_after);
                    let problem = answer.problem();
                    last = Error::Unavailable { endpoint, problem };
                }
                Err(fault) => {
                    endpoints.failed(&endpoint, now, None);
                    silent.push(endpoint.clone());
                    let why = fault.to_string();
                    last = Error::Unreachable { endpoint, why };
                    let asked = |name: &str| silent.iter().any(|other| other == name);
                    if endpoints.names().all(asked) {
                        return Err(last);
                    }
                }
            }
        }
    }

    /// Sends `call` to the server `endpoint` alone.
    ///
    /// # Errors
    /// `Unreachable` if it does not answer.
    pub fn send_to(&self, endpoint: &str, call: &Call) -> Result<Answer, Error> {
        let answer = self.http.call(endpoint, call, self.patience);
        answer.map_err(|fault| Error::Unreachable {
            endpoint: endpoint.to_owned(),
            why: fault.to_string(),
        })
    }

    /// The servers that are known: those given first, then those learnt.
    #[must_use]
    pub fn known(&self) -> Vec<String> {
        self.endpoints().names().map(str::to_owned).collect()
    }

    /// The servers that the client was made with.
    #[must_use]
    pub fn given(&self) -> &[String] {
        &self.given
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        // It is whole at every step; a panic elsewhere does not change that.
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// `HOST:PORT` out of what a user writes for it.
fn address(text: &str) -> Result<String, Error> {
    let bad = || Error::BadEndpoint(text.to_owned());
    let plain = text.strip_prefix("http://").unwrap_or(text);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    let (host, port) = plain.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let clean = |c: char| c.is_ascii_graphic() && !"/?#@\\%".contains(c);
    if host.is_empty()
        || port == 0
        || !host.chars().all(clean)
        || (!bracketed && host.contains(':'))
    {
        return Err(bad());
    }
    Ok(plain.to_owned())
}

/// Checks what no server could be asked about. The servers' own check is stricter.
fn check_name(name: &str) -> Result<(), Error> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && !name.contains('/') && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::BadName(name.to_owned()))
}

const NAME_BYTES_MAX: usize = 255;
/// How long a call goes on unless [`Client::with_patience`] says otherwise.
const PATIENCE: Millis = Millis(5_000);
/// The least time for one attempt.
const ATTEMPT_MIN: Millis = Millis(50);
/// The most time for one attempt while there are other servers to ask.
const ATTEMPT_MAX: Millis = Millis(3_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, plain) in [
            ("127.0.0.1:8640", "127.0.0.1:8640"),
            ("http://tracker1.example.com:80/", "tracker1.example.com:80"),
            ("[::1]:8640", "[::1]:8640"),
        ] {
            assert_eq!(address(text), Ok(plain.to_owned()));
        }
        for text in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:99999",
            "::1:80",
            "a/b:80",
            "a b:1",
        ] {
            assert_eq!(address(text), Err(Error::BadEndpoint(text.to_owned())));
        }
        let none: [&str; 0] = [];
        assert_eq!(Client::new(none).err(), Some(Error::NoEndpoint));
    }

    #[test]
    fn a_name_that_would_lead_elsewhere_is_not_sent() {
        let client = Client::new(["127.0.0.1:1"]).unwrap();
        for name in ["", ".", "..", "a/b", &"x".repeat(256)] {
            assert_eq!(
                client.group(name).err(),
                Some(Error::BadName(name.to_owned()))
            );
        }
        assert!(client.group(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_server_that_is_not_there_is_said_to_be_so_at_once() {
        // Port 1 of the loopback: nobody listens there, and the kernel says so.
        let client = Client::new(["127.0.0.1:1", "127.0.0.2:1"]).unwrap();
        let began = clock::now();
        let error = client.group("g").unwrap().get().unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("connection refused"), "{error}");
        assert!(clock::now().since(began) < Millis(2_000));
    }
}
