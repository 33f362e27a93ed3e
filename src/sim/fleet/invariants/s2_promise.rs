//! S2: a 2xx that was decided at real time h means that no expiry commits before h + T.
//!
//! A beat that another shard or server decided was decided between its arrival and its answer.
//! What is demanded counts from the arrival, which is never too much.

use std::collections::HashMap;

use super::super::ghost::Ghost;
use super::Verdict;
use crate::group::{Applied, End};
use crate::types::SessionId;

/// Until when each session was promised to live, µs.
#[derive(Default)]
pub(in super::super) struct Promises {
    until: HashMap<SessionId, u64>,
    /// How many promises were made.
    pub(in super::super) made: u64,
}

impl Promises {
    /// A 2xx was given to a request that came at `arrived_us`.
    pub(in super::super) fn promised(
        &mut self,
        ghost: &Ghost,
        id: SessionId,
        arrived_us: u64,
        timeout_ms: u64,
    ) -> Verdict {
        self.made += 1;
        let until_us = arrived_us + timeout_ms * 1_000;
        let known = self.until.entry(id).or_default();
        *known = (*known).max(until_us);
        match ghost.ended.get(&id) {
            Some((End::Expired, at_us)) if *at_us < until_us => Err(format!(
                "S2: {id} was promised {timeout_ms} ms at {arrived_us}, and expired at {at_us}"
            )),
            _ => Ok(()),
        }
    }

    pub(in super::super) fn committed(&mut self, now_us: u64, applied: &Applied) -> Verdict {
        for ended in &applied.ended {
            let until = self.until.remove(&ended.id).unwrap_or(0);
            if ended.end == End::Expired && now_us < until {
                let id = ended.id;
                return Err(format!("S2: {id} expires, and was promised until {until}"));
            }
        }
        Ok(())
    }

    /// Until when the session was promised to live.
    pub(in super::super) fn until(&self, id: SessionId) -> u64 {
        self.until.get(&id).copied().unwrap_or(0)
    }
}
