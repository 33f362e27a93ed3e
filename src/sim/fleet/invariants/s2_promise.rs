//! S2: a 2xx that was decided at real time h means that no expiry commits before h + T.
//!
//! A beat that another shard or server decided was decided between its arrival and its answer.
//! What is demanded then counts from the arrival, which is never too much. A client that joins
//! anew with a shorter timeout asks for less from then on, wherever it was promised more.

use std::collections::HashMap;

use super::super::ghost::Ghost;
use super::Verdict;
use crate::group::{Applied, End};
use crate::types::SessionId;

/// What each session was promised.
#[derive(Default)]
pub(in super::super) struct Promises {
    known: HashMap<SessionId, Promise>,
    /// How many promises were made.
    pub(in super::super) made: u64,
}

#[derive(Clone, Copy, Default)]
struct Promise {
    /// When the last one was made, µs.
    at: u64,
    /// Until when it lives by all of them, µs.
    until: u64,
}

impl Promises {
    /// A 2xx was given to a request that was decided at `decided_us`.
    pub(in super::super) fn promised(
        &mut self,
        ghost: &Ghost,
        id: SessionId,
        decided_us: u64,
        timeout_ms: u64,
    ) -> Verdict {
        self.made += 1;
        let present = ghost.live.get(&id).map(|session| session.timeout.0);
        let timeout_ms = present.map_or(timeout_ms, |present| present.min(timeout_ms));
        let until_us = decided_us + timeout_ms * 1_000;
        let known = self.known.entry(id).or_default();
        known.at = known.at.max(decided_us);
        known.until = known.until.max(until_us);
        match ghost.ended.get(&id) {
            Some((End::Expired, at_us)) if *at_us < until_us => Err(format!(
                "S2: {id} was promised {timeout_ms} ms at {decided_us}, and expired at {at_us}"
            )),
            _ => Ok(()),
        }
    }

    pub(in super::super) fn committed(&mut self, now_us: u64, applied: &Applied) -> Verdict {
        for ended in &applied.ended {
            let until = self.known.remove(&ended.id).map_or(0, |known| known.until);
            if ended.end == End::Expired && now_us < until {
                let id = ended.id;
                return Err(format!("S2: {id} expires, and was promised until {until}"));
            }
        }
        for change in &applied.sessions {
            if let Some(known) = self.known.get_mut(&change.session.id) {
                let until = known.at + change.session.timeout.0 * 1_000;
                known.until = known.until.min(until);
            }
        }
        Ok(())
    }

    /// Until when the session was promised to live.
    pub(in super::super) fn until(&self, id: SessionId) -> u64 {
        self.known.get(&id).map_or(0, |known| known.until)
    }
}
