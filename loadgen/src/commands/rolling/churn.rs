//! Members that join and leave at a steady rate, so that the log grows.

use crate::clock::{MILLI, SECOND};
use crate::net::{Driver, Kind, Lane, Net, Next, Pending, Target};
use crate::process;
use crate::recorder::{self, Hist};
use crate::reply::Reply;
use crate::verify::{Fault, Faults, Sent};
use anyhow::{Context, Result, anyhow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// What became of it.
pub(in crate::commands) struct Churned {
    /// Joins answered.
    pub(in crate::commands) joins: u64,
    /// Leaves answered.
    pub(in crate::commands) leaves: u64,
    /// Changes that were not asked for, since their connection still awaited too many answers.
    pub(in crate::commands) held_back: u64,
    /// From when a change was due to its answer.
    pub(in crate::commands) waited: Hist,
    pub(in crate::commands) faults: Faults,
}

/// The churn under way.
pub(in crate::commands) struct Churn {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Churned>>,
}

impl Churn {
    /// Begins it: so many joins a second, each with a config of `config_bytes`, and each followed
    /// by its leave [`STAY_S`] later.
    ///
    /// # Errors
    /// If no thread is to be had.
    pub(in crate::commands) fn begin(
        target: Target,
        joins_per_s: u32,
        config_bytes: usize,
        cpu: Option<usize>,
    ) -> Result<Churn> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let work = move || {
            if let Some(cpu) = cpu {
                process::pin_thread(cpu);
            }
            let mut net = Net::new(target, CONNECTIONS)?;
            let mut driver = Changes {
                stop: asked,
                began_ns: 0,
                ended_ns: None,
                joins_per_s: u64::from(joins_per_s),
                next: 0,
                config: vec![b'c'; config_bytes],
                churned: Churned {
                    joins: 0,
                    leaves: 0,
                    held_back: 0,
                    waited: recorder::empty(),
                    faults: Faults::default(),
                },
            };
            net.run(&mut driver)?;
            Ok(driver.churned)
        };
        let thread = thread::Builder::new().name("churn".into()).spawn(work);
        Ok(Churn {
            stop,
            thread: thread.context("cannot start a thread")?,
        })
    }

    /// Ends it and waits for the last answers.
    ///
    /// # Errors
    /// If it could not be done.
    pub(in crate::commands) fn end(self) -> Result<Churned> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join();
        done.map_err(|_| anyhow!("the thread of the churn panicked"))?
    }
}

struct Changes {
    stop: Arc<AtomicBool>,
    began_ns: u64,
    /// When it was told to stop.
    ended_ns: Option<u64>,
    joins_per_s: u64,
    /// The next change: even ones are joins, odd ones leaves.
    next: u64,
    config: Vec<u8>,
    churned: Churned,
}

impl Changes {
    fn change(&mut self, net: &mut Net, now_ns: u64) {
        loop {
            let due_ns = self.began_ns + self.next * SECOND / (2 * self.joins_per_s);
            if due_ns > now_ns {
                return;
            }
            let turn = self.next / 2;
            let stay = STAY_S * self.joins_per_s;
            let (kind, member) = if self.next.is_multiple_of(2) {
                (Kind::Join, Some(turn))
            } else {
                (Kind::Leave, turn.checked_sub(stay))
            };
            self.next += 1;
            // Before the first of them has stayed so long, nobody leaves.
            let Some(member) = member else { continue };
            // Who has left comes back after twice the stay.
            let member = member % (2 * stay);
            let conn = (member % u64::from(CONNECTIONS)) as u32;
            if net.lane_of(conn).waiting.len() >= PIPELINE_MAX {
                self.churned.held_back += 1;
                continue;
            }
            self.ask(net.lane(conn), kind, member as u32, due_ns, now_ns);
        }
    }

    fn ask(&self, lane: &mut Lane, kind: Kind, member: u32, due_ns: u64, now_ns: u64) {
        let path = format!("/churn-{:02}/member-{member:08}", member % GROUPS);
        let request = if kind == Kind::Join {
            format!(
                "PUT {path}?timeout={TIMEOUT_MS}ms HTTP/1.1\r\nHost: systole\r\n\
                 Prefer: return=minimal\r\nContent-Length: {}\r\n\r\n",
                self.config.len()
            )
        } else {
            format!("DELETE {path} HTTP/1.1\r\nHost: systole\r\n\r\n")
        };
        lane.out.extend_from_slice(request.as_bytes());
        if kind == Kind::Join {
            lane.out.extend_from_slice(&self.config);
        }
        let sent = Sent {
            session: member,
            at_ns: now_ns,
            floor: 0,
        };
        lane.waiting.push_back(Pending { kind, sent, due_ns });
    }

    /// True when no answer is missing, or has been for long.
    fn drained(&mut self, net: &Net, now_ns: u64, ended_ns: u64) -> bool {
        let left = net.unanswered();
        let patient = now_ns - ended_ns < DRAINING_NS_MAX;
        if left > 0 && !patient {
            let said = format!("{left} joins and leaves had no answer");
            self.churned.faults.note(Fault::Unanswered, &said);
        }
        left == 0 || !patient
    }
}

impl Driver for Changes {
    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next {
        if self.stop.load(Ordering::Relaxed) {
            let ended_ns = *self.ended_ns.get_or_insert(now_ns);
            if self.drained(net, now_ns, ended_ns) {
                return Next::Stop;
            }
        } else if self.began_ns > 0 {
            self.change(net, now_ns);
        } else if net.all_up() {
            self.began_ns = now_ns;
        }
        Next::Wake(now_ns + MILLI)
    }

    fn answered(&mut self, _: &mut Lane, pending: Pending, reply: &Reply, _: &[u8], now_ns: u64) {
        let waited_ns = now_ns.saturating_sub(pending.due_ns);
        self.churned.waited.saturating_record(waited_ns);
        match (pending.kind, reply.status) {
            (Kind::Join, 201) => self.churned.joins += 1,
            (Kind::Leave, 204) => self.churned.leaves += 1,
            // Their join or leave before was held back.
            (Kind::Join, 200) | (Kind::Leave, 404) if self.churned.held_back > 0 => {}
            (kind, status) => {
                let member = pending.sent.session;
                let said = format!("{status} to {kind:?} of churning member {member}");
                self.churned.faults.note(Fault::UnexpectedStatus, &said);
            }
        }
    }

    fn closed(&mut self, _: u32, why: &str, lost: &mut dyn Iterator<Item = Pending>) {
        let said = format!("{why}, {} joins and leaves unanswered", lost.count());
        self.churned.faults.note(Fault::Disconnected, &said);
    }
}

/// How long a member stays, in seconds.
const STAY_S: u64 = 2;
/// Much longer than it stays: nobody of them may expire.
const TIMEOUT_MS: u64 = 60_000;
/// Connections of the churn.
const CONNECTIONS: u32 = 4;
/// Answers awaited on each: as many as the server reads before it answers.
const PIPELINE_MAX: usize = 128;
/// Groups of the churn.
const GROUPS: u32 = 50;
/// Answers are awaited so long after the end.
const DRAINING_NS_MAX: u64 = 30 * SECOND;
