//! Joins at several times the capacity, while other sessions beat.

use crate::cli::Overload;
use crate::clock::{self, MILLI, SECOND};
use crate::commands::own::Home;
use crate::names::Names;
use crate::net::{Driver, Kind, Lane, Net, Next, Pending};
use crate::plan::{Known, Plan};
use crate::process;
use crate::recorder::{self, Hist};
use crate::reply::Reply;
use crate::report::{Report, count, time};
use crate::run;
use crate::schedule::{Dealing, OpenLoop, block_for};
use crate::verify::{Fault, Sent, Session, Verifier};
use anyhow::{Result, anyhow, ensure};

/// Measures the capacity, then the beats alone, then the beats in the storm.
pub(super) fn joins(flags: &Overload, home: &Home, report: &mut Report) -> Result<()> {
    let (server, _) = home.start()?;
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
    let rate = capacity * flags.factor;
    let mut storm = Storm::new(flags, done.into_known(), rate);
    let target = home.target();
    let (cpu, pid) = (flags.own.load_cpu, server.pid());
    let run = || -> Result<Storm> {
        if let Some(cpu) = cpu {
            process::pin_thread(cpu);
        }
        let connections = BEAT_CONNECTIONS + JOIN_CONNECTIONS;
        run::ensure_files(u64::from(connections))?;
        let mut net = Net::new(target, connections)?;
        net.run(&mut storm)?;
        Ok(storm)
    };
    let storm = std::thread::scope(|scope| scope.spawn(run).join())
        .map_err(|_| anyhow!("the load thread panicked"))??;
    ensure!(process::cpu_ns(pid).is_some(), "the server has ended");
    drop(server);
    storm.tell(flags, capacity, report)
}

/// One thread that beats on a schedule and, from the middle of its time on, joins on another.
struct Storm {
    phase: Phase,
    phase_ns: u64,
    length_ns: u64,
    // Those that beat.
    sessions: Vec<Session>,
    gone: Vec<bool>,
    verifier: Verifier,
    names: Names,
    dealing: Dealing,
    beats: OpenLoop,
    // Those that join.
    newcomers: Names,
    per_s: f64,
    /// Joins whose time has come so far.
    due: u64,
    sent: u64,
    /// Joins for which no connection had room: the server neither took nor refused enough.
    held_back: u64,
    admitted: Hist,
    refused: Hist,
    before: Hist,
    during: Hist,
    storm_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Before,
    Storming,
    Draining,
}

impl Storm {
    fn new(flags: &Overload, known: Known, per_s: f64) -> Storm {
        let block = block_for(flags.sessions, BEAT_CONNECTIONS, INTERVAL_NS, MILLI);
        let dealing = Dealing::new(flags.sessions, BEAT_CONNECTIONS, block);
        let mut verifier = Verifier::new(members(), TIMEOUT_NS);
        verifier.adopt(&known.floors);
        Storm {
            phase: Phase::Opening,
            phase_ns: clock::now(),
            length_ns: flags.duration,
            gone: vec![false; known.sessions.len()],
            sessions: known.sessions,
            verifier,
            names: members(),
            dealing,
            beats: OpenLoop::new(&dealing, INTERVAL_NS, clock::now()),
            newcomers: Names::new("storm", GROUPS, 24, 1, 0),
            per_s,
            due: 0,
            sent: 0,
            held_back: 0,
            admitted: recorder::empty(),
            refused: recorder::empty(),
            before: recorder::empty(),
            during: recorder::empty(),
            storm_ns: u64::MAX,
        }
    }

    fn enter(&mut self, phase: Phase, now_ns: u64) {
        self.phase = phase;
        self.phase_ns = now_ns;
    }

    fn advance(&mut self, net: &Net, now_ns: u64) -> bool {
        let spent = now_ns - self.phase_ns;
        match self.phase {
            Phase::Opening if net.all_up() => {
                self.beats = OpenLoop::new(&self.dealing, INTERVAL_NS, now_ns);
                self.enter(Phase::Before, now_ns);
            }
            Phase::Opening if spent > OPENING_NS_MAX => {
                let said = "the connections could not be opened";
                self.verifier.general(Fault::Disconnected, said);
                return true;
            }
            Phase::Before if spent >= self.length_ns => {
                self.storm_ns = now_ns;
                self.enter(Phase::Storming, now_ns);
            }
            Phase::Storming if spent >= self.length_ns => self.enter(Phase::Draining, now_ns),
            Phase::Draining if net.unanswered() == 0 => return true,
            Phase::Draining if spent > DRAINING_NS_MAX => {
                let left = net.unanswered();
                let said = format!("{left} requests had no answer");
                self.verifier.general(Fault::Unanswered, &said);
                return true;
            }
            _ => {}
        }
        false
    }

    fn beat(&mut self, net: &mut Net, now_ns: u64) {
        while let Some((block, due_ns)) = self.beats.take(now_ns) {
            let lane = net.lane(self.dealing.connection_of_block(block));
            for slot in self.dealing.slots(block) {
                let session = self.dealing.session(slot);
                if self.gone[session as usize] {
                    continue;
                }
                self.names.head(&mut lane.out, session, None);
                let floor = self.verifier.floor(session);
                lane.waiting
                    .push_back(pending(Kind::Head, session, floor, due_ns, now_ns));
            }
        }
    }

    fn join(&mut self, net: &mut Net, now_ns: u64) {
        let spent = now_ns - self.phase_ns;
        let due = (spent as f64 * self.per_s / 1e9) as u64;
        let mut full = 0;
        while self.due < due && full < JOIN_CONNECTIONS {
            let conn = BEAT_CONNECTIONS + (self.due % u64::from(JOIN_CONNECTIONS)) as u32;
            self.due += 1;
            if net.lane_of(conn).waiting.len() >= JOIN_PIPELINE || !net.is_up(conn) {
                self.held_back += 1;
                full += 1;
                continue;
            }
            let session = self.sent as u32;
            self.sent += 1;
            let lane = net.lane(conn);
            self.newcomers.join(&mut lane.out, session, 3_600_000);
            lane.waiting
                .push_back(pending(Kind::Join, session, 0, now_ns, now_ns));
        }
        // Every connection was found full: what is due by now is held back as a whole.
        self.held_back += due - self.due.min(due);
        self.due = self.due.max(due);
    }

    fn tell(self, flags: &Overload, capacity: f64, report: &mut Report) -> Result<()> {
        let seconds = flags.duration as f64 / 1e9;
        let offered = self.sent as f64 / seconds;
        report.setup(format!(
            "{} sessions beat once a second; for {seconds} s joins come at {} × the capacity, which is {} a second",
            count(flags.sessions.into()),
            flags.factor,
            count(capacity as u64)
        ));
        report.figure(
            "capacity_per_s",
            "joins a second at capacity",
            count(capacity as u64),
            capacity,
        );
        report.figure(
            "offered_per_s",
            "joins sent a second",
            count(offered as u64),
            offered,
        );
        let answers = [("admitted", &self.admitted), ("refused", &self.refused)];
        for (name, hist) in answers {
            let text = format!(
                "{}, p50 {}, p99 {}",
                count(hist.len()),
                p(hist, 0.5),
                p(hist, 0.99)
            );
            report.figure(name, &format!("joins {name}"), text, hist.len());
            report.distribution(&format!("joins-{name}"), hist);
        }
        report.distribution("beat-before", &self.before);
        report.distribution("beat-in-the-storm", &self.during);
        self.claims(report);
        let lost = self.gone.iter().filter(|gone| **gone).count();
        report.claim(
            "nobody_expired",
            "nobody expires",
            &format!("{lost} ended"),
            lost == 0,
        );
        report.verdict(self.verifier.faults(), None);
        Ok(())
    }

    fn claims(&self, report: &mut Report) {
        let kept = self.held_back == 0;
        let text = format!(
            "{} found all connections waiting for answers",
            count(self.held_back)
        );
        report.claim(
            "taken_or_refused",
            "every join is taken or refused in time",
            &text,
            kept,
        );
        let quick = !self.refused.is_empty() && self.refused.value_at_quantile(0.99) <= QUICK_NS;
        let text = format!(
            "{} refused, p99 {}",
            count(self.refused.len()),
            p(&self.refused, 0.99)
        );
        let what = format!("joins are refused, p99 within {}", time(QUICK_NS));
        report.claim("refused_quickly", &what, &text, quick);
        let (before, during) = (
            self.before.value_at_quantile(0.99),
            self.during.value_at_quantile(0.99),
        );
        let ratio = during as f64 / before.max(1) as f64;
        let text = format!(
            "{ratio:.2} × ({} before, {} in the storm)",
            time(before),
            time(during)
        );
        report.claim(
            "beats_unharmed",
            "p99 of beats within 2 × of before",
            &text,
            ratio <= 2.0,
        );
        report.data("beat_p99_ratio", ratio.into());
    }
}

impl Driver for Storm {
    fn tick(&mut self, net: &mut Net, now_ns: u64) -> Next {
        if self.advance(net, now_ns) {
            return Next::Stop;
        }
        if matches!(self.phase, Phase::Before | Phase::Storming) {
            self.beat(net, now_ns);
        }
        if self.phase == Phase::Storming {
            self.join(net, now_ns);
        }
        Next::Wake((now_ns + MILLI).min(self.beats.next_due().max(now_ns + MILLI / 8)))
    }

    fn answered(
        &mut self,
        lane: &mut Lane,
        pending: Pending,
        reply: &Reply,
        _: &[u8],
        now_ns: u64,
    ) {
        let session = pending.sent.session;
        let waited = now_ns.saturating_sub(pending.due_ns);
        if pending.kind == Kind::Join {
            match reply.status {
                201 => self.admitted.saturating_record(waited),
                503 | 429 => self.refused.saturating_record(waited),
                status => {
                    let said = format!("{status} to a join in the storm");
                    self.verifier.general(Fault::UnexpectedStatus, &said);
                }
            }
            return;
        }
        let hist = if pending.due_ns >= self.storm_ns {
            &mut self.during
        } else {
            &mut self.before
        };
        hist.saturating_record(waited);
        let mut sent = pending.sent;
        sent.at_ns = sent.at_ns.max(lane.unblocked_ns);
        let s = &mut self.sessions[session as usize];
        if !self.verifier.beaten(s, sent, reply, now_ns) {
            self.gone[session as usize] = true;
        }
    }

    fn closed(&mut self, _: u32, why: &str, lost: &mut dyn Iterator<Item = Pending>) {
        let said = format!("{why}, {} requests unanswered", lost.count());
        self.verifier.general(Fault::Disconnected, &said);
    }
}

fn pending(kind: Kind, session: u32, floor: u64, due_ns: u64, now_ns: u64) -> Pending {
    let sent = Sent {
        session,
        at_ns: now_ns,
        floor,
    };
    Pending { kind, sent, due_ns }
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
/// A refusal that takes longer is no better than a wait.
const QUICK_NS: u64 = 100 * MILLI;
/// All connections must be open by then.
const OPENING_NS_MAX: u64 = 60 * SECOND;
/// Answers are awaited so long after the end.
const DRAINING_NS_MAX: u64 = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    /// The verdict on a storm whose beats took so long before and in it, and whose refusals so long.
    fn holds(before_ms: u64, during_ms: u64, refused_ms: Option<u64>, held_back: u64) -> bool {
        let args = ["loadgen", "overload", "--sessions", "64"];
        let Command::Overload(flags) = Cli::parse_from(args).command else {
            panic!("another command");
        };
        let known = Known {
            sessions: vec![Session::default(); 64],
            ..Known::default()
        };
        let mut storm = Storm::new(&flags, known, 1.0);
        for _ in 0..1_000 {
            storm.before.saturating_record(before_ms * MILLI);
            storm.during.saturating_record(during_ms * MILLI);
            if let Some(ms) = refused_ms {
                storm.refused.saturating_record(ms * MILLI);
            }
        }
        storm.held_back = held_back;
        let mut report = Report::new("overload", std::time::SystemTime::UNIX_EPOCH, "x");
        storm.claims(&mut report);
        report.is_clean()
    }

    #[test]
    fn every_claim_is_needed() {
        assert!(holds(5, 9, Some(20), 0));
        assert!(!holds(5, 11, Some(20), 0), "beats are harmed");
        assert!(!holds(5, 9, Some(200), 0), "refused late");
        assert!(!holds(5, 9, None, 0), "nothing was refused");
        assert!(!holds(5, 9, Some(20), 1), "neither taken nor refused");
    }
}
