//! What is looked at beside the beats: when joins work, what becomes of config writes, and when
//! members whose beats have stopped are gone.

use crate::client;
use crate::clock::{self, MILLI};
use crate::names::Names;
use crate::watch::active_in;
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What the threads of a run share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The run is over.
    pub(super) stop: AtomicBool,
    /// All have joined.
    pub(super) beating: AtomicBool,
    /// Clients go back to the servers they prefer.
    pub(super) go_home: AtomicBool,
    /// When the present round's fault was; 0 before it.
    pub(super) fault_ns: AtomicU64,
    /// Sessions that live, as far as the clients know.
    pub(super) living: AtomicU64,
    /// Number of the present round, and whose turn it is.
    round: Mutex<(usize, u32)>,
}

impl Shared {
    /// Number of the present round, and the server that fails in it.
    pub(super) fn round(&self) -> (usize, u32) {
        *self.round.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Begins a round.
    pub(super) fn begin(&self, round: usize, victim: u32) {
        self.fault_ns.store(0, Ordering::Relaxed);
        *self.round.lock().unwrap_or_else(|e| e.into_inner()) = (round, victim);
    }
}

/// One question: when it was asked and answered, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The server it was put to.
    pub(super) server: usize,
    /// When it was sent.
    pub(super) sent_ns: u64,
    /// When it was answered, or given up.
    pub(super) done_ns: u64,
    /// The status; 0 if there was no answer.
    pub(super) status: u16,
}

/// Joins one member again and again at one server, each time as a new session.
pub(super) fn join_on(shared: &Shared, server: usize, to: SocketAddr, number: usize) -> Vec<Asked> {
    let path = format!("/joins/server{}-{number}?takeover&timeout=10m", server + 1);
    let mut all = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let sent_ns = clock::now();
        let answer = client::ask(to, "PUT", &path, b"", ANSWER_MAX);
        all.push(Asked {
            server,
            sent_ns,
            done_ns: clock::now(),
            status: answer.map_or(0, |(status, _)| status),
        });
        clock::pause(JOIN_PAUSE);
    }
    all
}

/// Writes configs at one server, each a member's of its own; the names of those acknowledged.
pub(super) fn write_on(shared: &Shared, server: usize, to: SocketAddr) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        number += 1;
        let name = format!("server{}-{number}", server + 1);
        let path = format!("/writes/{name}/config");
        let answer = client::ask(to, "PUT", &path, name.as_bytes(), ANSWER_MAX);
        if answer.is_ok_and(|(status, _)| status == 204) {
            acknowledged.push(name);
        }
        clock::pause(WRITE_PAUSE);
    }
    acknowledged
}

/// Counts those of `names` that a server does not have with their own bytes.
pub(super) fn missing(to: SocketAddr, names: &[String]) -> usize {
    let has = |name: &String| {
        let path = format!("/writes/{name}/config");
        let read = client::get(to, &path);
        read.is_ok_and(|(status, body)| status == 200 && body == name.as_bytes())
    };
    names.iter().filter(|name| !has(name)).count()
}

/// Members that join at one server and never beat.
pub(super) struct Doomed {
    stem: String,
    /// The earliest moment at which each may be gone, in order.
    due_ns: Vec<u64>,
    /// How many are gone.
    gone: usize,
}

impl Doomed {
    /// Joins `count` members with `timeout_ms` at `to`, in a group of this round's own.
    ///
    /// # Errors
    /// If not all can join.
    pub(super) fn join(
        round: usize,
        server: usize,
        to: SocketAddr,
        count: u32,
        timeout_ms: u64,
    ) -> Result<Doomed> {
        let prefix = format!("doomed{}of{round}", server + 1);
        let names = Names::new(&prefix, 1, 24, 1, 0);
        let mut requests = Vec::new();
        (0..count).for_each(|member| names.join(&mut requests, member, timeout_ms));
        let sent_ns = clock::now();
        let answers = client::exchange(to, &requests, count as usize, ANSWER_MAX)?;
        ensure!(
            answers.iter().all(|(head, _)| head.status == 201),
            "not all of {prefix} could join"
        );
        let due_ns = sent_ns + timeout_ms * MILLI;
        Ok(Doomed {
            stem: names.group_stem(),
            due_ns: vec![due_ns; count as usize],
            gone: 0,
        })
    }

    /// Asks `to` how many are left. The lateness of those that are gone since the last look, in
    /// nanoseconds from their deadline; less than none if they went too early.
    pub(super) fn look(&mut self, to: SocketAddr) -> Vec<i64> {
        let path = format!("/?after={}&limit=1", self.stem);
        let Ok((200, body)) = client::get(to, &path) else {
            return Vec::new();
        };
        let now_ns = clock::now();
        let Some(left) = active_in(&body, &self.stem) else {
            return Vec::new();
        };
        let gone = self.due_ns.len().saturating_sub(left as usize);
        let since = self.gone.min(gone)..gone;
        self.gone = self.gone.max(gone);
        let late = |due: &u64| now_ns as i64 - *due as i64;
        self.due_ns[since].iter().map(late).collect()
    }

    /// How many are still listed.
    pub(super) fn left(&self) -> usize {
        self.due_ns.len() - self.gone
    }
}

/// An answer is awaited for so long.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Between two joins of one thread.
const JOIN_PAUSE: Duration = Duration::from_millis(10);
/// Between two writes of one thread.
const WRITE_PAUSE: Duration = Duration::from_millis(50);
