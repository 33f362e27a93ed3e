//! `compare`: the same work for systole and for what users would pick instead.
//!
//! Every server is started by us on loopback, keeps to one processor and is loaded from the
//! other by the same driver. Rounds are interleaved, in an order that changes from one to
//! the next, so that a machine that slows down for a while slows down everybody.

mod create;
mod expiry;
mod heartbeat;
mod memory;
mod summary;
mod table;

use super::conclude;
use crate::cli::{Compare, WorkName};
use crate::clock::{self, MILLI, SECOND};
use crate::process;
use crate::report::Report;
use crate::rivals::crew::{self, Job, Took, Way};
use crate::rivals::{Op, Running, Sessions, Setting, Who};
use anyhow::{Result, ensure};
use std::time::Duration;
use summary::Summary;

/// Runs `compare`. True if every server did its work; who is faster is no matter of that.
///
/// # Errors
/// If the flags contradict each other, or systole cannot be started.
pub(crate) fn compare(flags: &Compare) -> Result<bool> {
    ensure!(
        flags.crowd <= flags.sessions,
        "--crowd {} connections for --sessions {}: a connection without a session beats nobody",
        flags.crowd,
        flags.sessions
    );
    let mut flags = flags.clone();
    flags.own.server_cpu = flags.own.server_cpu.or(Some(0));
    flags.own.load_cpu = flags.own.load_cpu.or(Some(1));
    let mut here = Vec::new();
    let mut report = Report::new("compare", clock::wall(), &Who::Systole.version(&flags.own));
    for who in Who::ALL {
        if !flags.only.is_empty() && !flags.only.contains(&who) {
            continue;
        }
        if let Some(why) = who.missing(flags.bound.as_deref()) {
            eprintln!("{why}");
            report.note(&why);
            continue;
        }
        report.figure(
            &format!("{who}_version"),
            &who.to_string(),
            format!("{}; {}", who.version(&flags.own), who.terms()),
            who.terms(),
        );
        here.push(who);
    }
    ensure!(!here.is_empty(), "there is nobody to compare");
    type Work = fn(&Compare, &[Who], &mut Report, &mut Summary) -> Result<()>;
    let all: [(WorkName, Work); 4] = [
        (WorkName::Heartbeat, heartbeat::heartbeat),
        (WorkName::Create, create::create),
        (WorkName::Expiry, expiry::expiry),
        (WorkName::Memory, memory::memory),
    ];
    let mut summary = Summary::default();
    for (name, work) in all {
        if flags.work.is_empty() || flags.work.contains(&name) {
            work(&flags, &here, &mut report, &mut summary)?;
        }
    }
    summary.tell(&here, &mut report);
    report.note(CLOSED_LOOP);
    report.note(NOT_MEASURED);
    conclude(&report, flags.own.out.as_deref())
}

/// A server at work, and what is called after it.
struct Contender {
    running: Running,
    way: Way,
}

impl Contender {
    /// Starts `who` and prepares it for sessions.
    fn start(
        who: Who,
        setting: Setting,
        flags: &Compare,
        sessions: &Sessions,
    ) -> Result<Contender> {
        let running = who.start(setting, &flags.own, flags.bound.as_deref())?;
        let way = Way {
            who,
            address: running.address,
            pid: running.server.pid(),
            connections: 1,
            depth: 1,
            cpu: flags.own.load_cpu,
        };
        let contender = Contender { running, way };
        if who.speech(sessions, 1).steps(Op::Prepare) > 0 {
            contender.each(sessions, Op::Prepare, 0..1, 1)?;
        }
        Ok(contender)
    }

    /// Does `op` once for each of `which`, by so many clients.
    fn each(
        &self,
        sessions: &Sessions,
        op: Op,
        which: std::ops::Range<u32>,
        clients: u32,
    ) -> Result<Took> {
        let way = Way {
            connections: clients.min(which.len() as u32),
            depth: 1,
            ..self.way.clone()
        };
        let job = Job::Each {
            op,
            sessions: which,
        };
        crew::work(&way, sessions, job)
    }

    /// Creates `which`. Of who binds sessions to connections, a part at a time: the connections
    /// close, and the sessions stay until their timeout.
    fn create_all(&self, sessions: &Sessions, which: std::ops::Range<u32>) -> Result<Vec<u64>> {
        let part = if self.way.who.is_session_bound() {
            CONNECTIONS_AT_ONCE
        } else {
            u32::MAX
        };
        let mut sent_ns = Vec::new();
        let mut from = which.start;
        while from < which.end {
            let to = which.end.min(from.saturating_add(part));
            sent_ns.extend(self.each(sessions, Op::Create, from..to, CLIENTS)?.sent_ns);
            from = to;
        }
        Ok(sent_ns)
    }
}

/// Waits until the servers have come to rest. What a load leaves behind, such as code to
/// compile or memory to collect, would else be done while the next server is measured, on the
/// same processor.
fn rest(contenders: &[Contender]) {
    let spent = || -> u64 {
        let pids = contenders.iter().map(|c| c.way.pid);
        pids.filter_map(process::cpu_ns).sum()
    };
    let began_ns = clock::now();
    let mut before = spent();
    while clock::now() - began_ns < REST_NS_MAX {
        clock::pause(Duration::from_nanos(LOOK_NS));
        let now = spent();
        if now.saturating_sub(before) < LOOK_NS / 20 {
            return;
        }
        before = now;
    }
}

/// The order of round `round`: another one begins each time, and every other time it is turned
/// round.
fn order(count: usize, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|i| (i + round as usize) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Notes that a server did not do its work.
fn failed(report: &mut Report, who: Who, work: &str, why: &anyhow::Error) {
    let said = format!("{who} failed at {work}: {why:#}");
    eprintln!("{said}");
    report.note(&said);
    report.verdict(&crate::verify::Faults::default(), Some(&said));
}

/// Length of a look at how busy the servers are.
const LOOK_NS: u64 = 100 * MILLI;
/// Who has not come to rest by then is measured as it is.
const REST_NS_MAX: u64 = 5 * SECOND;
/// Clients that act at once where that is not what is measured.
const CLIENTS: u32 = 512;
/// Connections that a part of the sessions of who binds them to connections takes.
const CONNECTIONS_AT_ONCE: u32 = 5_000;
/// What the latencies of a comparison are not.
const CLOSED_LOOP: &str = "Latencies of beats and creations are of a closed loop: a server that stalls is asked nothing \
     meanwhile. They compare servers at full load; what clients on a schedule see, `beat` and `soak` measure.";
/// What other measurements say that this one does not repeat.
const NOT_MEASURED: &str = "Not measured here, from earlier work on such a machine: ZooKeeper 3.9.5 with Netty 14.6 µs a \
     ping (9.8 pipelined), with its default NIO 21–27 (17–19); etcd 3.5 by gRPC stream 25–50 µs a \
     keep-alive (4.1–6.1 pipelined, by another client), by its HTTP gateway 150–190; three etcd \
     servers 35–41 µs at the leader and 140–154 at a follower.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_changes_and_leaves_nobody_out() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [0, 2, 1]);
        assert_eq!(order(3, 2), [2, 0, 1]);
        for round in 0..7 {
            let mut all = order(5, round);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4]);
        }
    }
}
