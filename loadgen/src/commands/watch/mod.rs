//! `watch`: how soon thousands of listeners hear of a change of their group, what that costs
//! the server, and what it does to heartbeats.

mod listeners;

use super::conclude;
use super::own::Home;
use crate::cli::Watch;
use crate::client;
use crate::clock::{self, MILLI, SECOND};
use crate::names::Names;
use crate::plan::{Known, Load, Plan};
use crate::process::{self, Server};
use crate::recorder::{Hist, Tag};
use crate::report::{Report, count, time};
use crate::run::{self, Done};
use crate::verify::{Fault, Faults};
use anyhow::{Context, Result, ensure};
use listeners::{Heard, Ledger, Listeners};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Runs `watch`. True if nothing went wrong.
///
/// # Errors
/// If the server cannot be started, or the listeners cannot be opened.
pub(crate) fn watch(flags: &Watch) -> Result<bool> {
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let joins = Plan::joins(names(), SESSIONS, ACTIVE);
    let joined = run::run(&home.target(), vec![joins], flags.own.load_cpu)?;
    let mut report = Report::new("watch", joined.started, &home.describe());
    report.verdict(&joined.faults, joined.broken_off.as_deref());
    let mut changer = Changer::new(&home, &flags.group)?;
    let alone = beats(&home, flags, joined.into_known(), &server)?;
    report.verdict(&alone.faults, alone.broken_off.as_deref());
    let (without, known) = (alone.hist(Tag::Beat), alone.into_known());

    let (heard, cpu_us) = changes(&home, flags, &mut changer, &server)?;
    let killed = kills(&home, flags, &mut changer)?;
    let (crowded, both) = beats_and_changes(&home, flags, &mut changer, known, &server)?;
    report.verdict(&crowded.faults, crowded.broken_off.as_deref());
    let with = crowded.hist(Tag::Beat);

    let text = format!(
        "{} listeners on one group, {} changes a second for {}; beats one at a time over {ACTIVE} \
         other connections",
        flags.watchers,
        flags.rate,
        time(flags.duration)
    );
    report.setup(text);
    latency(&mut report, "notify", "from a change to a listener", &heard);
    let text = format!("{cpu_us:.2} µs (the change itself included)");
    report.figure("notify_cpu_us", "server CPU a notification", text, cpu_us);
    if flags.kills > 0 {
        let label = "from a dead member's deadline to a listener";
        latency(&mut report, "expiry", label, &killed);
    }
    let label = "from a change to a listener, with beats";
    latency(&mut report, "notify_beating", label, &both);
    beat_figures(&mut report, &without, &with);
    conclude(&report, flags.own.out.as_deref())
}

fn latency(report: &mut Report, key: &str, label: &str, heard: &Heard) {
    let hist = &heard.latency;
    let at = |quantile| hist.value_at_quantile(quantile);
    let text = format!(
        "p50 {}, p99 {}, max {} ({} heard)",
        time(at(0.5)),
        time(at(0.99)),
        time(hist.max()),
        count(hist.len())
    );
    report.figure(&format!("{key}_p99_ns"), label, text, at(0.99));
    report.data(&format!("{key}_p50_ns"), at(0.5).into());
    report.data(&format!("{key}_max_ns"), hist.max().into());
    report.data(&format!("{key}_heard"), hist.len().into());
    let mut faults = Faults::default();
    for fault in &heard.faults {
        faults.note(Fault::EventGap, fault);
    }
    report.verdict(&faults, None);
}

fn beat_figures(report: &mut Report, without: &Hist, with: &Hist) {
    for (key, label, hist) in [
        ("beat_alone", "a beat without listeners", without),
        ("beat_watched", "a beat with listeners told", with),
    ] {
        let at = |quantile| hist.value_at_quantile(quantile);
        let text = format!(
            "p50 {}, p99 {}, max {}",
            time(at(0.5)),
            time(at(0.99)),
            time(hist.max())
        );
        report.figure(&format!("{key}_p99_ns"), label, text, at(0.99));
        report.data(&format!("{key}_p50_ns"), at(0.5).into());
    }
}

/// Beats over connections of their own.
fn beats(home: &Home, flags: &Watch, known: Known, server: &Server) -> Result<Done> {
    let plan = Plan {
        load: Load::Closed { pipeline: 1 },
        duration_ns: flags.duration,
        warmup_ns: 300 * MILLI,
        server_pid: Some(server.pid()),
        known: Some(Arc::new(known)),
        ..Plan::joins(names(), SESSIONS, ACTIVE)
    };
    run::run(&home.target(), vec![plan], flags.own.load_cpu)
}

/// Changes the group while all listen; returns what they heard, and the server's CPU time for
/// each event heard, in microseconds.
fn changes(
    home: &Home,
    flags: &Watch,
    changer: &mut Changer,
    server: &Server,
) -> Result<(Heard, f64)> {
    let wanted = (flags.duration as f64 / SECOND as f64 * flags.rate).ceil() as u64;
    let ledger = Ledger::new(wanted as usize);
    ledger.begin(changer.version);
    let listeners = listen(home, flags, &ledger)?;
    let cpu = process::cpu_ns(server.pid()).unwrap_or_default();
    let period = (SECOND as f64 / flags.rate) as u64;
    let mut due = clock::now();
    for _ in 0..wanted {
        wait_until(due);
        changer.change(&ledger, due.max(clock::now()))?;
        due += period;
    }
    all_heard(&ledger, wanted * u64::from(flags.watchers))?;
    let cpu = process::cpu_ns(server.pid()).unwrap_or_default() - cpu;
    let heard = listeners.close()?;
    let each = cpu as f64 / 1e3 / heard.latency.len().max(1) as f64;
    Ok((heard, each))
}

/// Members join and never beat, one after the other; returns how long after their deadline the
/// listeners heard of their end.
fn kills(home: &Home, flags: &Watch, changer: &mut Changer) -> Result<Heard> {
    let ledger = Ledger::new(2 * flags.kills as usize);
    ledger.begin(changer.version);
    let listeners = listen(home, flags, &ledger)?;
    for kill in 0..flags.kills {
        changer.join_and_die(kill, &ledger)?;
        let events = 2 * u64::from(kill + 1);
        all_heard(&ledger, events * u64::from(flags.watchers))?;
    }
    listeners.close()
}

fn beats_and_changes(
    home: &Home,
    flags: &Watch,
    changer: &mut Changer,
    known: Known,
    server: &Server,
) -> Result<(Done, Heard)> {
    // The beats take longer than their time, by the warm-up and the connecting.
    let room = (flags.duration + 60 * SECOND) as f64 / SECOND as f64 * flags.rate;
    let ledger = Ledger::new(room as usize);
    ledger.begin(changer.version);
    let listeners = listen(home, flags, &ledger)?;
    let period = (SECOND as f64 / flags.rate) as u64;
    let stop = AtomicBool::new(false);
    let (done, changed) = thread::scope(|scope| {
        let changing = scope.spawn(|| -> Result<u64> {
            let mut changed = 0;
            let mut due = clock::now();
            while !stop.load(Ordering::Relaxed) {
                wait_until(due);
                changer.change(&ledger, due.max(clock::now()))?;
                changed += 1;
                due += period;
            }
            Ok(changed)
        });
        let done = beats(home, flags, known, server);
        stop.store(true, Ordering::Relaxed);
        let changed = changing.join();
        (done, changed)
    });
    let changed = changed.map_err(|_| anyhow::anyhow!("the changing thread panicked"))??;
    all_heard(&ledger, changed * u64::from(flags.watchers))?;
    Ok((done?, listeners.close()?))
}

fn listen(home: &Home, flags: &Watch, ledger: &Arc<Ledger>) -> Result<Listeners> {
    Listeners::open(
        home.address,
        &flags.group,
        flags.watchers,
        ledger,
        flags.own.load_cpu,
    )
}

fn wait_until(due: u64) {
    let now = clock::now();
    if due > now {
        clock::pause(Duration::from_nanos(due - now));
    }
}

/// Waits until so many events have been heard.
fn all_heard(ledger: &Ledger, wanted: u64) -> Result<()> {
    let began = clock::now();
    while ledger.heard() < wanted {
        let heard = ledger.heard();
        ensure!(
            clock::now() - began < HEARING_NS_MAX,
            "only {heard} of {wanted} events were heard"
        );
        clock::pause(Duration::from_millis(2));
    }
    Ok(())
}

/// Whoever changes the watched group; nobody else does.
struct Changer {
    home: std::net::SocketAddr,
    group: String,
    version: u64,
    changes: u64,
}

impl Changer {
    fn new(home: &Home, group: &str) -> Result<Changer> {
        let mut changer = Changer {
            home: home.address,
            group: group.to_owned(),
            version: 0,
            changes: 0,
        };
        changer.version = changer.put("/config", b"0")?;
        Ok(changer)
    }

    /// Writes the group's config.
    fn change(&mut self, ledger: &Ledger, due: u64) -> Result<()> {
        ledger.due(self.version + 1, due)?;
        self.changes += 1;
        let body = self.changes.to_string();
        let version = self.put("/config", body.as_bytes())?;
        ensure!(
            version == self.version + 1,
            "somebody else changes the group"
        );
        self.version = version;
        Ok(())
    }

    /// A member joins and falls silent. Its end counts from when the join was sent, which is a
    /// little before the server's own deadline.
    fn join_and_die(&mut self, number: u32, ledger: &Ledger) -> Result<()> {
        let sent = clock::now();
        ledger.due(self.version + 2, sent + KILL_TIMEOUT_NS)?;
        let path = format!("/dead{number}?timeout={}ms", KILL_TIMEOUT_NS / MILLI);
        let version = self.put(&path, b"")?;
        ensure!(
            version == self.version + 1,
            "somebody else changes the group"
        );
        self.version = version + 1;
        Ok(())
    }

    fn put(&self, below: &str, body: &[u8]) -> Result<u64> {
        let mut request = format!(
            "PUT /{}{below} HTTP/1.1\r\nHost: systole\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            self.group,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let answers = client::exchange(self.home, &request, 1, PUT_LIMIT)?;
        let (reply, _) = answers.first().context("an answer")?;
        ensure!(
            matches!(reply.status, 201 | 204),
            "a change was answered {}",
            reply.status
        );
        reply.group_version.context("an answer without a version")
    }
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}

/// Connections that beat, and sessions they beat for.
const ACTIVE: u32 = 64;
const SESSIONS: u32 = 10_000;
/// Timeout of the members that die.
const KILL_TIMEOUT_NS: u64 = 500 * MILLI;
/// Everything told must be heard by then.
const HEARING_NS_MAX: u64 = 30 * SECOND;
const PUT_LIMIT: Duration = Duration::from_secs(10);
