//! Joins at several times the capacity, while other sessions beat.

use crate::cli::Overload;
use crate::clock::{self, MILLI, SECOND};
use crate::commands::own::Home;
use crate::names::Names;
use crate::net::{Driver, Kind, Lane, Net, Next, Pending, Target};
use crate::plan::{Known, Load, Plan};
use crate::process;
use crate::recorder::{self, Hist, Tag};
use crate::reply::Reply;
use crate::report::{Report, count, plot, time};
use crate::run::{self, Done};
use crate::verify::{Fault, Sent, Verifier};
use anyhow::{Result, anyhow, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Measures the capacity, then the beats alone, then the beats in the storm.
pub(super) fn joins(flags: &Overload, home: &Home, report: &mut Report) -> Result<()> {
    let (mut server, _) = home.start()?;
    let crowd = Names::new("capacity", GROUPS, 24, 1, 0);
    let capacity = Plan {
        joins_outstanding: CAPACITY_OUTSTANDING,
        ..Plan::joins(crowd, CAPACITY_JOINS, 64)
    };
    let done = run::run(&home.target(), vec![capacity], flags.own.load_cpu)?;
    report.verdict(&done.faults, done.broken_off.as_deref());
    let capacity = done.counts.joins as f64 * 1e9 / done.counts.joining_ns.max(1) as f64;
    let members = Plan {
        timeout_ns: TIMEOUT_NS,
        ..Plan::joins(members(), flags.sessions, BEAT_CONNECTIONS)
    };
    let done = run::run(&home.target(), vec![members], flags.own.load_cpu)?;
    report.verdict(&done.faults, done.broken_off.as_deref());
    let calm = beats(flags, home, done.into_known())?;
    report.verdict(&calm.faults, calm.broken_off.as_deref());
    let before = calm.hist(Tag::Beat);
    let flood = Flood::new(capacity * flags.factor);
    let (storm, flood) = beside(flags, home, flood, calm.into_known())?;
    if let Some(words) = server.has_ended() {
        bail!("the server has ended; it said:\n{words}");
    }
    drop(server);
    report.verdict(&storm.faults, storm.broken_off.as_deref());
    report.verdict(flood.verifier.faults(), None);
    tell(flags, capacity, &flood, &storm, report);
    let outcome = Outcome {
        before,
        during: storm.hist(Tag::Beat),
        refused: flood.refused,
        held_back: flood.held_back,
        lost: u64::from(flags.sessions) - storm.into_known().standing.living(),
    };
    outcome.judge(report);
    let curves = [
        ("before".to_owned(), outcome.before),
        ("in the storm".to_owned(), outcome.during),
    ];
    report.attach("beats.svg", plot::percentiles("beats", &curves)?);
    Ok(())
}

/// Every member beats once a second. On a thread of its own, which sleeps most of the time: what
/// else the generator does hardly delays it.
fn beats(flags: &Overload, home: &Home, known: Known) -> Result<Done> {
    let plan = Plan {
        timeout_ns: TIMEOUT_NS,
        load: Load::Open {
            interval_ns: INTERVAL_NS,
            block: 0,
        },
        warmup_ns: SECOND,
        duration_ns: flags.duration,
        known: Some(Arc::new(known)),
        ..Plan::joins(members(), flags.sessions, BEAT_CONNECTIONS)
    };
    run::run(&home.target(), vec![plan], flags.own.load_cpu)
}

/// The same beats while it storms.
fn beside(flags: &Overload, home: &Home, flood: Flood, known: Known) -> Result<(Done, Flood)> {
    run::ensure_files(u64::from(JOIN_CONNECTIONS + BEAT_CONNECTIONS))?;
    let (open, stop) = (Arc::clone(&flood.open), Arc::clone(&flood.stop));
    let (target, cpu) = (home.target(), flags.own.load_cpu);
    let thread = thread::spawn(move || flood.run(target, cpu));
    let began_ns = clock::now();
    while !open.load(Ordering::Relaxed) && !thread.is_finished() {
        if clock::now() - began_ns > OPENING_NS_MAX {
            stop.store(true, Ordering::Relaxed);
            bail!("the connections of those that join could not be opened");
        }
        clock::pause(Duration::from_nanos(MILLI));
    }
    let done = beats(flags, home, known);
    stop.store(true, Ordering::Relaxed);
    let flood = thread.join();
    let flood = flood.map_err(|_| anyhow!("the load thread panicked"))??;
    Ok((done?, flood))
}

/// Joins that come at a rate, whatever the answers.
struct Flood {
    open: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    verifier: Verifier,
    names: Names,
    per_s: f64,
    began_ns: u64,
    /// When it was told to stop.
    ended_ns: Option<u64>,
    /// Joins whose time has come so far.
    due: u64,
    sent: u64,
    /// Joins for which no connection had room: the server neither took nor refused enough.
    held_back: u64,
    admitted: Hist,
    refused: Hist,
}

impl Flood {
    fn new(per_s: f64) -> Flood {
        let names = Names::new("storm", GROUPS, 24, 1, 0);
        Flood {
            open: Arc::new(AtomicBool::new(false)),
            stop: Arc::new(AtomicBool::new(false)),
            verifier: Verifier::new(names.clone(), TIMEOUT_NS),
            names,
            per_s,
            began_ns: 0,
            ended_ns: None,
            due: 0,
            sent: 0,
            held_back: 0,
            admitted: recorder::empty(),
            refused: recorder::empty(),
        }
    }

    fn run(mut self, target: Target, cpu: Option<usize>) -> Result<Flood> {
        if let Some(cpu) = cpu {
            process::pin_thread(cpu);
        }
        let mut net = Net::new(target, JOIN_CONNECTIONS)?;
        net.run(&mut self)?;
        Ok(self)
    }

    fn join(&mut self, net: &mut Net, now_ns: u64) {
        let due = ((now_ns - self.began_ns) as f64 * self.per_s / 1e9) as u64;
        let mut full = 0;
        while self.due < due && full < JOIN_CONNECTIONS {
            let conn = (self.due % u64::from(JOIN_CONNECTIONS)) as u32;
            self.due += 1;
            if net.lane_of(conn).waiting.len() >= JOIN_PIPELINE || !net.is_up(conn) {
                self.held_back += 1;
                full += 1;
                continue;
            }
            let session = self.sent as u32;
            self.sent += 1;
            let lane = net.lane(conn);
            self.names.join(&mut lane.out, session, NEWCOMER_TIMEOUT_MS);
            let sent = Sent {
                session,
                at_ns: now_ns,
                floor: 0,
            };
            lane.waiting.push_back(Pending {
                kind: Kind::Join,
                sent,
                due_ns: now_ns,
            });
        }
        // Every connection was found full: what is due by now is held back as a whole.
        self.held_back += due.saturating_sub(self.due);
        self.due = self.due.max(due);
    }

    /// True when no answer is missing, or has been for long.
    fn drained(&mut self, net: &Net, now_ns: u64, ended_ns: u64) -> bool {
        let left = net.unanswered();
        let patient = now_ns - ended_ns < DRAINING_NS_MAX;
        if left > 0 && !patient {
            let said = format!("{left} joins had no answer");
            self.verifier.general(Fault::Unanswered, &said);
        }
        left == 0 || !patient
    }
}

impl Driver for Flood {
    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next {
        let stop = self.stop.load(Ordering::Relaxed);
        if self.began_ns == 0 {
            if stop {
                return Next::Stop;
            }
            if net.all_up() {
                self.began_ns = now_ns;
                self.open.store(true, Ordering::Relaxed);
            }
        } else if stop {
            let ended_ns = *self.ended_ns.get_or_insert(now_ns);
            if self.drained(net, now_ns, ended_ns) {
                return Next::Stop;
            }
        } else {
            self.join(net, now_ns);
        }
        Next::Wake(now_ns + MILLI)
    }

    fn answered(&mut self, _: &mut Lane, pending: Pending, reply: &Reply, _: &[u8], now_ns: u64) {
        let waited = now_ns.saturating_sub(pending.due_ns);
        match reply.status {
            201 => self.admitted.saturating_record(waited),
            503 | 429 => self.refused.saturating_record(waited),
            status => {
                let said = format!("{status} to a join in the storm");
                self.verifier.general(Fault::UnexpectedStatus, &said);
            }
        }
    }

    fn closed(&mut self, _: u32, why: &str, lost: &mut dyn Iterator<Item = Pending>) {
        let said = format!("{why}, {} joins unanswered", lost.count());
        self.verifier.general(Fault::Disconnected, &said);
    }
}

fn tell(flags: &Overload, capacity: f64, flood: &Flood, storm: &Done, report: &mut Report) {
    let storm_ns = flood.ended_ns.unwrap_or(0).saturating_sub(flood.began_ns);
    let offered = flood.sent as f64 * 1e9 / storm_ns.max(1) as f64;
    report.setup(format!(
        "{} sessions beat once a second; then joins come at {} × the capacity for {}, over {} connections",
        count(flags.sessions.into()),
        flags.factor,
        time(storm_ns),
        count(JOIN_CONNECTIONS.into())
    ));
    for (key, label, per_s) in [
        ("capacity_per_s", "joins a second at capacity", capacity),
        ("due_per_s", "joins due a second", flood.per_s),
        ("sent_per_s", "joins sent a second", offered),
    ] {
        report.figure(key, label, count(per_s as u64), per_s);
    }
    for (name, hist) in [("admitted", &flood.admitted), ("refused", &flood.refused)] {
        let text = format!(
            "{}, p50 {}, p99 {}",
            count(hist.len()),
            p(hist, 0.5),
            p(hist, 0.99)
        );
        report.figure(name, &format!("joins {name}"), text, hist.len());
        report.distribution(&format!("joins-{name}"), hist);
    }
    let lag = storm.hist(Tag::SendLag);
    let text = format!("p99 {}, which is the generator's own", p(&lag, 0.99));
    let ns = lag.value_at_quantile(0.99);
    let label = "beats sent after due in the storm";
    report.figure("sent_after_due_p99_ns", label, text, ns);
}

/// What is judged.
struct Outcome {
    before: Hist,
    during: Hist,
    refused: Hist,
    held_back: u64,
    /// Members that beat and are no more.
    lost: u64,
}

impl Outcome {
    fn judge(&self, report: &mut Report) {
        report.distribution("beat-before", &self.before);
        report.distribution("beat-in-the-storm", &self.during);
        let kept = self.held_back == 0;
        let text = format!(
            "{} found all connections waiting for answers",
            count(self.held_back)
        );
        let what = "every join is taken or refused in time";
        report.claim("taken_or_refused", what, &text, kept);
        let late = self.refused.value_at_quantile(0.99);
        let quick = !self.refused.is_empty() && late <= QUICK_NS;
        let text = format!("{} refused, p99 {}", count(self.refused.len()), time(late));
        let what = format!("joins are refused, p99 within {}", time(QUICK_NS));
        report.claim("refused_quickly", &what, &text, quick);
        let p99 = |hist: &Hist| hist.value_at_quantile(0.99);
        let (before, during) = (p99(&self.before), p99(&self.during));
        let ratio = during as f64 / before.max(1) as f64;
        let text = format!(
            "{ratio:.2} × ({} before, {} in the storm)",
            time(before),
            time(during)
        );
        let unharmed = !self.during.is_empty() && ratio <= WORSE_MAX;
        let what = "p99 of beats within 2 × of before";
        report.claim("beats_unharmed", what, &text, unharmed);
        report.data("beat_p99_ratio", ratio.into());
        let text = format!("{} ended", count(self.lost));
        report.claim("nobody_expired", "nobody expires", &text, self.lost == 0);
    }
}

fn p(hist: &Hist, q: f64) -> String {
    time(hist.value_at_quantile(q))
}

/// Those that beat.
fn members() -> Names {
    Names::new("members", GROUPS, 24, 1, 0)
}

/// Groups of either kind.
const GROUPS: u32 = 100;
/// Connections of those that beat.
const BEAT_CONNECTIONS: u32 = 64;
/// Connections of those that join: with so much under way on each, more in all than a shard
/// takes before it refuses.
const JOIN_CONNECTIONS: u32 = 1_024;
/// Joins under way on each: as many as the server reads before it answers.
const JOIN_PIPELINE: usize = 128;
/// Joins under way while the capacity is measured.
const CAPACITY_OUTSTANDING: u32 = 2_048;
/// Joins that measure the capacity.
const CAPACITY_JOINS: u32 = 200_000;
/// Timeout of those that beat.
const TIMEOUT_NS: u64 = 10 * SECOND;
/// How often they beat.
const INTERVAL_NS: u64 = SECOND;
/// Those that join are not beaten for, and stay until the server ends.
const NEWCOMER_TIMEOUT_MS: u64 = 3_600_000;
/// How many times longer beats may take in the storm.
const WORSE_MAX: f64 = 2.0;
/// A refusal that takes longer is no better than a wait.
const QUICK_NS: u64 = 100 * MILLI;
/// All connections must be open by then.
const OPENING_NS_MAX: u64 = 60 * SECOND;
/// Answers are awaited so long after the end.
const DRAINING_NS_MAX: u64 = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ms: u64) -> Hist {
        let mut hist = recorder::empty();
        hist.saturating_record_n(ms * MILLI, 1_000);
        hist
    }

    /// An outcome with which every claim holds.
    fn good() -> Outcome {
        Outcome {
            before: all(5),
            during: all(9),
            refused: all(20),
            held_back: 0,
            lost: 0,
        }
    }

    fn holds(outcome: Outcome) -> bool {
        let mut report = Report::new("overload", std::time::SystemTime::UNIX_EPOCH, "x");
        outcome.judge(&mut report);
        report.is_clean()
    }

    #[test]
    fn every_claim_is_needed() {
        assert!(holds(good()));
        for (what, outcome) in [
            (
                "beats are harmed",
                Outcome {
                    during: all(11),
                    ..good()
                },
            ),
            (
                "nobody beats",
                Outcome {
                    during: recorder::empty(),
                    ..good()
                },
            ),
            (
                "refused late",
                Outcome {
                    refused: all(200),
                    ..good()
                },
            ),
            (
                "nothing is refused",
                Outcome {
                    refused: recorder::empty(),
                    ..good()
                },
            ),
            (
                "neither taken nor refused",
                Outcome {
                    held_back: 1,
                    ..good()
                },
            ),
            ("somebody expired", Outcome { lost: 1, ..good() }),
        ] {
            assert!(!holds(outcome), "{what}");
        }
    }
}
