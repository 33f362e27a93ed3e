//! `failover`: servers of an ensemble are killed, stopped or ended one after the other, and
//! every promise is held against what the clients see.

mod fleet;
mod watch;

use super::ensemble::{Ensemble, How};
use super::{conclude, spread};
use crate::cli::Failover;
use crate::client;
use crate::clock::{self, MILLI, SECOND};
use crate::names::Names;
use crate::net::Net;
use crate::report::{Report, count, time};
use crate::run::ensure_files;
use crate::verify::{Fault, Faults};
use anyhow::{Context, Result, bail, ensure};
use fleet::{Fleet, Manners};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use watch::{Asked, Doomed, Shared};

/// What was done in a round, and what the orchestrator saw.
struct Fall {
    victim: usize,
    led: bool,
    fault_ns: u64,
    /// Lateness of the members that had stopped beating: at servers that stayed, and at the one
    /// that was lost.
    late_ns: (Vec<i64>, Vec<i64>),
    /// Members that were still listed at the end of the round.
    left: usize,
    /// From the restart until it may serve.
    ready_ns: u64,
}

/// Runs `failover`. True if no promise was broken.
///
/// # Errors
/// If the ensemble cannot be started or the run cannot be done.
pub(crate) fn failover(flags: &Failover) -> Result<bool> {
    ensure!(flags.servers >= 3, "the others go on only if there are two");
    ensure_files(u64::from(flags.connections) * 4)?;
    let mut ensemble = Ensemble::new(
        flags.server.as_deref(),
        flags.servers as usize,
        &flags.server_arg,
    )?;
    if let Some(dir) = &flags.keep {
        ensemble.keep(dir)?;
    }
    ensemble.start_all()?;
    let topic = match flags.how {
        How::Kill => "failover",
        How::Stop => "failover-stop",
        How::Term => "failover-term",
    };
    let mut report = Report::new(topic, clock::wall(), &ensemble.describe());
    let shared = Arc::new(Shared::default());
    let crew = Crew::start(flags, &ensemble, &shared)?;
    let mut falls = Vec::new();
    if let Err(why) = rounds(flags, &mut ensemble, &shared, &mut falls) {
        report.verdict(&Faults::default(), Some(&format!("{why:#}")));
    }
    let seen = crew.stop(&shared, &ensemble)?;
    tell(&mut report, flags, &falls, &seen);
    drop(ensemble);
    conclude(&report, flags.out.as_deref())
}

/// The threads that load the ensemble.
struct Crew {
    fleet: JoinHandle<Result<Fleet>>,
    joins: Vec<JoinHandle<Vec<Asked>>>,
    writes: Vec<JoinHandle<Vec<String>>>,
}

/// What the crew has seen.
struct Seen {
    fleet: Fleet,
    joins: Vec<Asked>,
    written: usize,
    lost_writes: usize,
    documents: Vec<String>,
}

impl Crew {
    fn start(flags: &Failover, ensemble: &Ensemble, shared: &Arc<Shared>) -> Result<Crew> {
        let manners = Manners {
            sessions: flags.sessions,
            hosts: flags.connections,
            servers: flags.servers,
            timeout_ns: flags.timeout,
            patience_ns: flags.patience,
        };
        let (target, connections) = (ensemble.target(), flags.connections);
        let mut fleet = Fleet::new(manners, names(), Arc::clone(shared));
        let (seen, done) = (Arc::clone(shared), Arc::clone(shared));
        let fleet = thread::spawn(move || -> Result<Fleet> {
            let outcome = Net::new(target, connections).and_then(|mut net| net.run(&mut fleet));
            done.stop.store(true, Ordering::Relaxed);
            outcome.map(|()| fleet)
        });
        let began = clock::now();
        while !seen.beating.load(Ordering::Relaxed) {
            if clock::now() - began > JOINING_NS_MAX || seen.stop.load(Ordering::Relaxed) {
                seen.stop.store(true, Ordering::Relaxed);
                bail!("not all sessions could join");
            }
            clock::pause(Duration::from_millis(5));
        }
        let (mut joins, mut writes) = (Vec::new(), Vec::new());
        for (server, to) in ensemble.addresses().into_iter().enumerate() {
            for number in 0..JOINERS {
                let shared = Arc::clone(shared);
                joins.push(thread::spawn(move || {
                    watch::join_on(&shared, server, to, number)
                }));
            }
            let shared = Arc::clone(shared);
            writes.push(thread::spawn(move || watch::write_on(&shared, server, to)));
        }
        Ok(Crew {
            fleet,
            joins,
            writes,
        })
    }

    /// Ends the load, then compares what the servers show.
    fn stop(self, shared: &Shared, ensemble: &Ensemble) -> Result<Seen> {
        let documents = audit(&ensemble.addresses(), shared.living.load(Ordering::Relaxed));
        shared.stop.store(true, Ordering::Relaxed);
        let gone = |_| anyhow::anyhow!("a thread of the load has panicked");
        let fleet = self.fleet.join().map_err(gone)??;
        let (mut joins, mut written) = (Vec::new(), Vec::new());
        for thread in self.joins {
            joins.extend(thread.join().map_err(gone)?);
        }
        for thread in self.writes {
            written.extend(thread.join().map_err(gone)?);
        }
        let servers = ensemble.addresses();
        let lost = servers.iter().map(|to| watch::missing(*to, &written));
        let lost_writes = lost.sum();
        Ok(Seen {
            fleet,
            joins,
            written: written.len(),
            lost_writes,
            documents,
        })
    }
}

/// What differs between the servers, or from what the clients know, in sentences. The sessions
/// beat meanwhile, so that whoever is listed beats.
fn audit(servers: &[SocketAddr], living: u64) -> Vec<String> {
    let mut said = Vec::new();
    let mut total = 0;
    for group in 0..GROUPS {
        let path = format!("/over-{group:05}");
        match same_document(servers, &path) {
            Ok(members) => total += members,
            Err(why) => said.push(format!("{path}: {why}")),
        }
    }
    if total != living {
        said.push(format!("{total} members are listed, {living} beat"));
    }
    said.truncate(SAID_MAX);
    said
}

/// How many members are active in a document that all servers show alike. Sessions that go home
/// move for a while yet, and each move changes the document: it is asked for again until then.
fn same_document(servers: &[SocketAddr], path: &str) -> Result<u64, &'static str> {
    let until = clock::now() + AUDIT_NS_MAX;
    loop {
        let shown = servers.iter().map(|to| match client::get(*to, path) {
            Ok((200, body)) => Some(body),
            _ => None,
        });
        let shown: Vec<Option<Vec<u8>>> = shown.collect();
        let why = match shown.first() {
            Some(Some(first)) if shown.iter().all(|one| one.as_ref() == Some(first)) => {
                let document: serde_json::Value = serde_json::from_slice(first).unwrap_or_default();
                let active = document["active_members"].as_array();
                return Ok(active.map_or(0, Vec::len) as u64);
            }
            Some(Some(_)) => "the servers show different documents",
            _ => "the first server does not show it",
        };
        if clock::now() >= until {
            return Err(why);
        }
        clock::pause(Duration::from_millis(20));
    }
}

fn rounds(
    flags: &Failover,
    ensemble: &mut Ensemble,
    shared: &Shared,
    falls: &mut Vec<Fall>,
) -> Result<()> {
    let everybody: Vec<usize> = (0..ensemble.len()).collect();
    clock::pause(Duration::from_nanos(flags.calm));
    for round in 1..=flags.rounds as usize {
        shared.go_home.store(false, Ordering::Relaxed);
        let leader = ensemble.leader(&everybody).context("nobody leads")?;
        // The leader every other time; in between the others in turn.
        let turn = (leader + 1 + round / 2 % (ensemble.len() - 1)) % ensemble.len();
        let victim = if round % 2 == 1 { leader } else { turn };
        let fall = fall(flags, ensemble, shared, (round, victim, victim == leader))?;
        eprintln!(
            "round {round} of {}: server {}{}, {} sessions live",
            flags.rounds,
            victim + 1,
            if fall.led { ", which led" } else { "" },
            shared.living.load(Ordering::Relaxed)
        );
        falls.push(fall);
        if let Some((server, words)) = ensemble.ended().first() {
            bail!("server {server} has ended by itself in round {round}; it said:\n{words}");
        }
        if shared.stop.load(Ordering::Relaxed) {
            bail!("the load has ended before its time");
        }
    }
    Ok(())
}

/// One round: members that will not beat join everywhere, one server fails, and is mended.
fn fall(
    flags: &Failover,
    ensemble: &mut Ensemble,
    shared: &Shared,
    (round, victim, led): (usize, usize, bool),
) -> Result<Fall> {
    let addresses = ensemble.addresses();
    let mut doomed = Vec::new();
    for (server, to) in addresses.iter().enumerate() {
        doomed.push(Doomed::join(
            round,
            server,
            *to,
            flags.doomed,
            DOOMED_TIMEOUT_MS,
        )?);
    }
    shared.begin(round, victim as u32);
    // The clients must know whose sessions are about to be lost.
    clock::pause(Duration::from_millis(50));
    let fault_ns = clock::now();
    shared.fault_ns.store(fault_ns, Ordering::Relaxed);
    ensemble.harm(victim, flags.how);
    let mut fall = Fall {
        victim,
        led,
        fault_ns,
        late_ns: (Vec::new(), Vec::new()),
        left: 0,
        ready_ns: 0,
    };
    let watcher = addresses[(victim + 1) % addresses.len()];
    let mut look = |fall: &mut Fall| {
        for (server, doomed) in doomed.iter_mut().enumerate().filter(|(_, d)| d.left() > 0) {
            let late = doomed.look(watcher);
            match server == victim {
                true => fall.late_ns.1.extend(late),
                false => fall.late_ns.0.extend(late),
            }
        }
        clock::pause(Duration::from_millis(4));
        doomed.iter().map(Doomed::left).sum::<usize>()
    };
    while clock::now() - fault_ns < flags.down {
        look(&mut fall);
    }
    ensemble.mend(victim)?;
    fall.ready_ns = ensemble.wait_ready(victim, READY_NS_MAX)?;
    shared.go_home.store(flags.go_home, Ordering::Relaxed);
    let mended_ns = clock::now();
    while clock::now() - mended_ns < flags.calm {
        fall.left = look(&mut fall);
    }
    Ok(fall)
}

/// From the fault until the first join that was sent after it was acknowledged by a server that
/// stayed.
fn joins_back(fall: &Fall, joins: &[Asked]) -> Option<u64> {
    let good = |asked: &&Asked| {
        asked.server != fall.victim
            && asked.sent_ns >= fall.fault_ns
            && matches!(asked.status, 200 | 201)
    };
    let done = joins.iter().filter(good).map(|asked| asked.done_ns);
    done.min().map(|at| at - fall.fault_ns)
}

fn tell(report: &mut Report, flags: &Failover, falls: &[Fall], seen: &Seen) {
    let fleet = &seen.fleet;
    report.setup(format!(
        "{} servers on this machine, {} sessions of {} on {} connections (every fourth beats in \
         batches by name, the others pipeline HEAD), each beat every {}; joins and config writes \
         at every server; {} members that never beat at each server, timeout 2 s, joined just \
         before each fault; {:?}, back after {}, then {} of calm",
        flags.servers,
        count(flags.sessions.into()),
        time(flags.timeout),
        flags.connections,
        time(flags.timeout / 3),
        flags.doomed,
        flags.how,
        time(flags.down),
        time(flags.calm)
    ));
    let mut faults = fleet.verifier.faults().clone();
    tell_clients(report, fleet);
    tell_joins(report, flags, falls, &seen.joins);
    tell_deaths(report, falls, &mut faults, flags);
    report.figure(
        "writes",
        "config writes acknowledged",
        count(seen.written as u64),
        seen.written,
    );
    report.figure(
        "lost_writes",
        "of them missing at some server at the end",
        count(seen.lost_writes as u64),
        seen.lost_writes,
    );
    report.figure(
        "audit",
        "documents compared at the end",
        if seen.documents.is_empty() {
            format!("{GROUPS} groups: the same at all servers, and who is listed beats")
        } else {
            seen.documents.join("; ")
        },
        json!(seen.documents),
    );
    let broken = if seen.lost_writes > 0 {
        Some("acknowledged writes were lost".to_owned())
    } else {
        seen.documents.first().cloned()
    };
    report.verdict(&faults, broken.as_deref());
}

fn tell_clients(report: &mut Report, fleet: &Fleet) {
    let rounds = fleet.rounds.get(1..).unwrap_or_default();
    let sum = |of: fn(&fleet::Round) -> u64| rounds.iter().map(of).sum::<u64>();
    for (key, label, value) in [
        ("beats", "beats acknowledged", sum(|r| r.beats)),
        (
            "lost",
            "sessions whose server was lost, all rounds",
            sum(|r| r.lost),
        ),
        (
            "failed",
            "beats failed at servers that stayed, for their own sessions",
            sum(|r| r.failed),
        ),
        (
            "refused",
            "beats answered 503 while sessions moved",
            sum(|r| r.refused),
        ),
        (
            "starved",
            "sessions ended that nobody had acknowledged for a timeout",
            sum(|r| r.starved),
        ),
    ] {
        report.figure(key, label, count(value), value);
    }
    let (mut back, mut silence) = (crate::recorder::empty(), crate::recorder::empty());
    for round in rounds {
        let _ = back.add(&round.back);
        let _ = silence.add(&round.silence);
    }
    for (key, label, hist) in [
        (
            "back_ns",
            "from the fault to a session's next acknowledged beat elsewhere",
            &back,
        ),
        (
            "silence_ns",
            "between a lost session's acknowledged beats",
            &silence,
        ),
    ] {
        let at = |q| time(hist.value_at_quantile(q));
        let text = format!(
            "p50 {}, p99 {}, max {}",
            at(0.5),
            at(0.99),
            time(hist.max())
        );
        report.figure(key, label, text, hist.max());
    }
    let each: Vec<_> = rounds
        .iter()
        .map(|r| {
            json!({"beats": r.beats, "failed": r.failed, "refused": r.refused, "lost": r.lost,
                "starved": r.starved, "back_p50_ns": r.back.value_at_quantile(0.5),
                "back_max_ns": r.back.max(), "silence_max_ns": r.silence.max()})
        })
        .collect();
    report.data("rounds", each.into());
}

fn tell_joins(report: &mut Report, flags: &Failover, falls: &[Fall], joins: &[Asked]) {
    let good = joins.iter().filter(|j| matches!(j.status, 200 | 201));
    let good = good.count() as u64;
    report.figure("joins", "joins acknowledged", count(good), good);
    let ms = |led: bool| -> Vec<f64> {
        let falls = falls.iter().filter(|fall| fall.led == led);
        falls
            .filter_map(|fall| Some(joins_back(fall, joins)? as f64 / 1e6))
            .collect()
    };
    let aim = match flags.how {
        How::Stop => "≤ the second of the failure detection + 0.2 s after a leader was stopped",
        _ => "≤ 0.15 s after a leader was lost",
    };
    report.figure("aim", "P10: joins resume", aim.to_owned(), aim);
    spread(
        report,
        "join_after_leader_ms",
        "first join after the leader was lost",
        &ms(true),
        " ms",
    );
    spread(
        report,
        "join_after_follower_ms",
        "likewise, after a follower was",
        &ms(false),
        " ms",
    );
    let ready: Vec<f64> = falls.iter().map(|f| f.ready_ns as f64 / 1e6).collect();
    spread(
        report,
        "ready_ms",
        "from restart or SIGCONT to ready",
        &ready,
        " ms",
    );
}

fn tell_deaths(report: &mut Report, falls: &[Fall], faults: &mut Faults, flags: &Failover) {
    let lease_ns = LEASE_NS + DETECTION_NS;
    let mut check = |key: &str, label: &str, of: fn(&Fall) -> &[i64], bound_ns: u64| {
        let mut all: Vec<i64> = falls.iter().flat_map(of).copied().collect();
        all.sort_unstable();
        let early = all.iter().filter(|late| **late < 0).count();
        let late = all.iter().filter(|late| **late > bound_ns as i64).count();
        (0..early).for_each(|_| faults.note(Fault::ExpiredEarly, label));
        (0..late).for_each(|_| faults.note(Fault::ListedTooLong, label));
        if all.is_empty() {
            return;
        }
        let at = |q: f64| time(all[((all.len() - 1) as f64 * q) as usize].max(0) as u64);
        let text = format!(
            "{} gone; p50 {}, p99 {}, max {} after their deadline; early {early}, later than {}: {late}",
            count(all.len() as u64),
            at(0.5),
            at(0.99),
            at(1.0),
            time(bound_ns)
        );
        report.figure(key, label, text, all.last().copied().unwrap_or(0));
    };
    let stay_ns = DETECTION_NS + SECOND;
    check(
        "late_ns",
        "dead members of servers that stayed",
        |f| &f.late_ns.0,
        stay_ns,
    );
    check(
        "late_lost_ns",
        "dead members of the server that was lost",
        |f| &f.late_ns.1,
        lease_ns + SECOND,
    );
    let left: usize = falls.iter().map(|fall| fall.left).sum();
    (0..left).for_each(|_| faults.note(Fault::ListedTooLong, "at the end of a round"));
    report.figure(
        "left",
        "dead members still listed at the end of their round",
        count(left as u64),
        left,
    );
    report.data("doomed", flags.doomed.into());
}

fn names() -> Names {
    Names::new("over", GROUPS, 24, 1, 0)
}

/// Groups of the sessions.
const GROUPS: u32 = 100;
/// The servers must show the same documents by then.
const AUDIT_NS_MAX: u64 = 10 * SECOND;
/// Differences told in full.
const SAID_MAX: usize = 5;
/// Threads that join at each server.
const JOINERS: usize = 3;
/// Timeout of the members that never beat.
const DOOMED_TIMEOUT_MS: u64 = 2_000;
/// The lease of the servers, unless they are told otherwise.
const LEASE_NS: u64 = 3 * SECOND;
/// A leader that is silent for so long is given up.
const DETECTION_NS: u64 = SECOND;
/// All sessions must have joined by then.
const JOINING_NS_MAX: u64 = 60 * SECOND;
/// A server that was started again must be ready by then.
const READY_NS_MAX: u64 = 60 * SECOND;
const _: () = assert!(DOOMED_TIMEOUT_MS * MILLI < LEASE_NS);
