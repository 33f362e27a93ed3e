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

/// Measures the capacity, then the beats alone, then beside joins at capacity, then in the storm.
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
    let before = Beats::of(&calm);
    let crowd = Flood::new("crowd", capacity);
    let (full, crowd) = beside(flags, home, crowd, calm.into_known())?;
    let at_capacity = Beats::of(&full);
    report.verdict(&full.faults, full.broken_off.as_deref());
    report.verdict(crowd.verifier.faults(), None);
    let flood = Flood::new("storm", capacity * flags.factor);
    let (storm, flood) = beside(flags, home, flood, full.into_known())?;
    if let Some(words) = server.has_ended() {
        bail!("the server has ended; it said:\n{words}");
    }
    drop(server);
    report.verdict(&storm.faults, storm.broken_off.as_deref());
    report.verdict(flood.verifier.faults(), None);
    tell_setup(flags, capacity, &flood, report);
    tell("crowd", "at capacity", &crowd, report);
    tell("storm", "in the storm", &flood, report);
    let outcome = Outcome {
        before,
        at_capacity,
        during: Beats::of(&storm),
        refused: flood.refused,
        held_back: flood.held_back,
        lost: u64::from(flags.sessions) - storm.into_known().standing.living(),
    };
    outcome.judge(report);
    let curves = [
        ("alone".to_owned(), outcome.before.latency),
        (
            "beside joins at capacity".to_owned(),
            outcome.at_capacity.latency,
        ),
        ("in the storm".to_owned(), outcome.during.latency),
    ];
    report.attach("beats.svg", plot::percentiles("beats", &curves)?);
    Ok(())
}

/// What the beats of a while took.
struct Beats {
    /// From when each was due.
    latency: Hist,
    /// From when each was due to when it was sent: of `latency`, the generator's own part.
    lag: Hist,
}

impl Beats {
    fn of(done: &Done) -> Beats {
        Beats {
            latency: done.hist(Tag::Beat),
            lag: done.hist(Tag::SendLag),
        }
    }

    fn p99_ns(&self) -> u64 {
        self.latency.value_at_quantile(0.99)
    }

    fn tell(&self, key: &str, when: &str, report: &mut Report) {
        let text = format!(
            "{}, p50 {}, p99 {}, p99.9 {}; sent after due, which is the generator's own: p99 {}",
            count(self.latency.len()),
            p(&self.latency, 0.5),
            p(&self.latency, 0.99),
            p(&self.latency, 0.999),
            p(&self.lag, 0.99)
        );
        let ns = self.p99_ns();
        report.figure(
            &format!("beat_{key}_p99_ns"),
            &format!("beats {when}"),
            text,
            ns,
        );
        report.distribution(&format!("beat-{key}"), &self.latency);
    }
}

/// Every member beats once a second. On a thread of its own, which sleeps most of the time: what
/// else the generator does gives way to it, where it may.
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
    let done = thread::scope(|scope| {
        let work = || {
            process::go_first();
            run::run(&home.target(), vec![plan], flags.own.load_cpu)
        };
        scope.spawn(work).join()
    });
    done.map_err(|_| anyhow!("the load thread panicked"))?
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
    /// From the first join to the last.
    fn lasted_ns(&self) -> u64 {
        self.ended_ns.unwrap_or(0).saturating_sub(self.began_ns)
    }

    fn new(prefix: &str, per_s: f64) -> Flood {
        let names = Names::new(prefix, GROUPS, 24, 1, 0);
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

fn tell_setup(flags: &Overload, capacity: f64, flood: &Flood, report: &mut Report) {
    report.setup(format!(
        "{} sessions beat once a second: alone, then beside joins at the capacity, then at {} × the \
         capacity, each for {}; joins come over {} connections",
        count(flags.sessions.into()),
        flags.factor,
        time(flood.lasted_ns()),
        count(JOIN_CONNECTIONS.into())
    ));
    let label = "joins a second at capacity";
    report.figure("capacity_per_s", label, count(capacity as u64), capacity);
}

/// What became of the joins of a while.
fn tell(key: &str, when: &str, flood: &Flood, report: &mut Report) {
    let offered = flood.sent as f64 * 1e9 / flood.lasted_ns().max(1) as f64;
    for (what, per_s) in [("due", flood.per_s), ("sent", offered)] {
        let label = format!("joins {what} a second {when}");
        report.figure(
            &format!("{key}_{what}_per_s"),
            &label,
            count(per_s as u64),
            per_s,
        );
    }
    for (name, hist) in [("admitted", &flood.admitted), ("refused", &flood.refused)] {
        let text = format!(
            "{}, p50 {}, p99 {}",
            count(hist.len()),
            p(hist, 0.5),
            p(hist, 0.99)
        );
        let label = format!("joins {name} {when}");
        report.figure(&format!("{key}_{name}"), &label, text, hist.len());
        report.distribution(&format!("{key}-{name}"), hist);
    }
}

/// What is judged.
struct Outcome {
    before: Beats,
    at_capacity: Beats,
    during: Beats,
    refused: Hist,
    held_back: u64,
    /// Members that beat and are no more.
    lost: u64,
}

impl Outcome {
    fn judge(&self, report: &mut Report) {
        for (key, when, beats) in [
            ("alone", "alone", &self.before),
            ("at_capacity", "beside joins at capacity", &self.at_capacity),
            ("storm", "in the storm", &self.during),
        ] {
            beats.tell(key, when, report);
        }
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
        let [before, full, during] =
            [&self.before, &self.at_capacity, &self.during].map(Beats::p99_ns);
        let times = |of: u64| during as f64 / of.max(1) as f64;
        let ratio = times(before);
        let text = format!(
            "{ratio:.2} × ({} alone, {} in the storm); of {} beside joins at capacity {:.2} ×",
            time(before),
            time(during),
            time(full),
            times(full)
        );
        let unharmed = !self.during.latency.is_empty() && ratio <= WORSE_MAX;
        let what = "p99 of beats within 2 × of that alone";
        report.claim("beats_unharmed", what, &text, unharmed);
        report.data("beat_p99_ratio", ratio.into());
        report.data("beat_p99_ratio_to_capacity", times(full).into());
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

    fn beats(ms: u64) -> Beats {
        Beats {
            latency: all(ms),
            lag: recorder::empty(),
        }
    }

    fn all(ms: u64) -> Hist {
        let mut hist = recorder::empty();
        hist.saturating_record_n(ms * MILLI, 1_000);
        hist
    }

    /// An outcome with which every claim holds.
    fn good() -> Outcome {
        Outcome {
            before: beats(5),
            // Nobody is spared for what joins at capacity did already.
            at_capacity: beats(100),
            during: beats(9),
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
                    during: beats(11),
                    ..good()
                },
            ),
            (
                "nobody beats",
                Outcome {
                    during: Beats {
                        latency: recorder::empty(),
                        ..beats(9)
                    },
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
