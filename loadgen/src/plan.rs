//! What one thread is to do: the settings of a run, checked.

use crate::churn::Shares;
use crate::clock::{MILLI, SECOND};
use crate::names::Names;
use crate::schedule::block_for;
use crate::standing::Standing;
use crate::verify::Session;
use anyhow::{Result, bail, ensure};
use std::sync::Arc;

/// One thread's share of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Names of the sessions and groups.
    pub(crate) names: Names,
    /// How many sessions.
    pub(crate) sessions: u32,
    /// How many connections carry them.
    pub(crate) connections: u32,
    /// The timeout the sessions ask for, in whole milliseconds.
    pub(crate) timeout_ns: u64,
    /// When beats are sent.
    pub(crate) load: Load,
    /// How a beat is sent.
    pub(crate) mode: Mode,
    /// Length of the measured time.
    pub(crate) duration_ns: u64,
    /// Beats before the measured time, not counted.
    pub(crate) warmup_ns: u64,
    /// Joins under way at once.
    pub(crate) joins_outstanding: u32,
    /// Joins must be done by then, counted from the start.
    pub(crate) join_limit_ns: u64,
    /// Who dies, leaves, rejoins.
    pub(crate) shares: Shares,
    /// The share that stops all at once after the measured time.
    pub(crate) doom: f64,
    /// Dead members must be unlisted this long after their deadline.
    pub(crate) late_bound_ns: u64,
    /// Where lots are drawn from.
    pub(crate) seed: u64,
    /// Beats carry `x-session-id`.
    pub(crate) with_id: bool,
    /// The server knows no sessions: no joins, a fixed 204 to every beat.
    pub(crate) bare: bool,
    /// A beat that waits so long is looked into.
    pub(crate) stall_ns: u64,
    /// Process whose CPU time is read at both ends of the measured time.
    pub(crate) server_pid: Option<u32>,
    /// Sessions that an earlier run with the same names has joined: nobody joins.
    pub(crate) known: Option<Arc<Known>>,
}

/// What one run knows and hands to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The sessions.
    pub(crate) sessions: Vec<Session>,
    /// Where each stands.
    pub(crate) standing: Standing,
    /// The highest version seen of each group.
    pub(crate) floors: Vec<u64>,
}

impl Known {
    /// After a restart every session has a full timeout from readiness, `ready_ns`.
    pub(crate) fn restarted(&mut self, ready_ns: u64) {
        for s in &mut self.sessions {
            s.acked_ns = ready_ns;
        }
    }
}

/// When beats are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Never.
    None,
    /// Every session once an interval, whatever the answers.
    Open {
        /// The interval.
        interval_ns: u64,
        /// Sessions due together on one connection.
        block: u32,
    },
    /// So many requests under way on each connection.
    Closed {
        /// How many.
        pipeline: u32,
    },
}

/// How a beat is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `HEAD /G/M`.
    Head,
    /// `GET /G/M`.
    Get,
    /// `POST /-/heartbeats`.
    Batch {
        /// By session id rather than by name.
        packed: bool,
        /// Members a request.
        size: u32,
    },
}

impl Plan {
    /// A plan that joins and does nothing else.
    pub(crate) fn joins(names: Names, sessions: u32, connections: u32) -> Plan {
        Plan {
            names,
            sessions,
            connections,
            timeout_ns: 3_600 * SECOND,
            load: Load::None,
            mode: Mode::Head,
            duration_ns: 0,
            warmup_ns: 0,
            joins_outstanding: 512,
            join_limit_ns: 300 * SECOND,
            shares: Shares::default(),
            doom: 0.0,
            late_bound_ns: SECOND,
            seed: 1,
            with_id: false,
            bare: false,
            stall_ns: 5 * MILLI,
            server_pid: None,
            known: None,
        }
    }

    /// Checks the plan, and settles the block size left to it.
    ///
    /// # Errors
    /// If it asks for what cannot be, with a sentence that says why.
    pub(crate) fn checked(mut self) -> Result<Plan> {
        ensure!(self.sessions > 0, "at least one session is needed");
        ensure!(self.connections > 0, "at least one connection is needed");
        if self.load != Load::None && self.connections > self.sessions {
            bail!(
                "{} connections for {} sessions: a connection without a session beats nobody; \
                 use fewer connections, or `idle` for idle ones",
                self.connections,
                self.sessions
            );
        }
        ensure!(
            self.timeout_ns.is_multiple_of(MILLI),
            "the timeout is whole milliseconds"
        );
        let Shares { die, leave, rejoin } = self.shares;
        for share in [die, leave, rejoin, self.doom, die + leave + rejoin] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "shares of members lie between 0 and 1, sum included"
            );
        }
        if die > 0.0 && self.churn_window_ns() == 0 {
            bail!(
                "the duration leaves no time to see dead members expire: it must exceed \
                 the timeout by more than the allowed lateness and a second"
            );
        }
        if let Load::Open { interval_ns, block } = &mut self.load {
            ensure!(*interval_ns > 0, "the interval is more than 0");
            if let Mode::Batch { size, .. } = self.mode {
                *block = size;
            } else if *block == 0 {
                *block = block_for(self.sessions, self.connections, *interval_ns, MILLI);
            }
        }
        Ok(self)
    }

    /// How long, from the start of the measured time, members may begin to die, leave and
    /// rejoin, so that what follows is seen before it ends.
    pub(crate) fn churn_window_ns(&self) -> u64 {
        let tail = if self.shares.die > 0.0 {
            self.timeout_ns + self.late_bound_ns + SECOND
        } else {
            SECOND.min(self.duration_ns / 2)
        };
        self.duration_ns.saturating_sub(tail)
    }

    /// Sessions a block or a batch: what one connection sends at once.
    pub(crate) fn block(&self) -> u32 {
        match (self.load, self.mode) {
            (_, Mode::Batch { size, .. }) => size,
            (Load::Open { block, .. }, _) => block.max(1),
            _ => 1,
        }
    }

    /// Whether dead members are watched, which takes connections of their own.
    pub(crate) fn watches(&self) -> bool {
        self.shares.die > 0.0 || self.doom > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::joins(Names::new("t", 1, 24, 0, 0), 1_000, 10);
        plan.load = Load::Open {
            interval_ns: SECOND,
            block: 0,
        };
        plan.duration_ns = 20 * SECOND;
        plan.timeout_ns = 10 * SECOND;
        plan
    }

    #[test]
    fn a_block_left_open_is_settled() {
        assert_eq!(plan().checked().unwrap().block(), 1);
        let batch = Plan {
            mode: Mode::Batch {
                packed: true,
                size: 50,
            },
            ..plan()
        };
        let batch = batch.checked().unwrap();
        assert_eq!(
            batch.load,
            Load::Open {
                interval_ns: SECOND,
                block: 50
            }
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_sentence() {
        let refused = |p: Plan| p.checked().unwrap_err().to_string();
        assert!(
            refused(Plan {
                sessions: 0,
                ..plan()
            })
            .contains("session")
        );
        assert!(
            refused(Plan {
                connections: 0,
                ..plan()
            })
            .contains("connection")
        );
        assert!(
            refused(Plan {
                connections: 1_001,
                ..plan()
            })
            .contains("beats nobody")
        );
        assert!(
            refused(Plan {
                timeout_ns: 1,
                ..plan()
            })
            .contains("milliseconds")
        );
        let shares = Shares {
            die: 0.6,
            leave: 0.6,
            rejoin: 0.0,
        };
        assert!(refused(Plan { shares, ..plan() }).contains("between 0 and 1"));
        let shares = Shares {
            die: 0.1,
            ..Shares::default()
        };
        let short = Plan {
            shares,
            duration_ns: 12 * SECOND,
            ..plan()
        };
        assert!(refused(short).contains("no time to see"));
        assert!(Plan { shares, ..plan() }.checked().is_ok());
        let load = Load::Open {
            interval_ns: 0,
            block: 0,
        };
        assert!(refused(Plan { load, ..plan() }).contains("interval"));
    }
}
