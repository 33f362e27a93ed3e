//! Runs plans, one a thread, shows how they get on, and adds up what they hand back.

use crate::clock;
use crate::load::{Counts, Loader, Outcome, Phase, Progress};
use crate::net::{Net, Target};
use crate::plan::{Known, Plan};
use crate::process;
use crate::recorder::{self, Hist, Interval, Tag};
use crate::stalls::Stall;
use crate::verify::Faults;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

/// What all threads did together.
pub(crate) struct Done {
    /// Sums; of times, the longest.
    pub(crate) counts: Counts,
    /// All faults.
    pub(crate) faults: Faults,
    /// All latencies.
    pub(crate) intervals: Vec<Interval>,
    /// Stretches of the measured time in which beats waited long, of all threads.
    pub(crate) stalls: Vec<Stall>,
    /// What each thread knows of its sessions.
    pub(crate) known: Vec<Known>,
    /// When it began.
    pub(crate) started: SystemTime,
    /// Why a thread ended early.
    pub(crate) broken_off: Option<String>,
}

impl Done {
    /// All latencies of one kind.
    pub(crate) fn hist(&self, tag: Tag) -> Hist {
        recorder::total(&self.intervals, tag)
    }

    /// The server's CPU time for each beat of the measured time, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.counts.cpu_ns.0 as f64 / 1e3 / self.counts.beats_measured.max(1) as f64
    }

    /// Of it, what was spent in user space.
    pub(crate) fn user_us(&self) -> f64 {
        let (user, system) = self.counts.server_ticks;
        self.cpu_us() * user as f64 / (user + system).max(1) as f64
    }

    /// What the only thread knows of its sessions.
    pub(crate) fn into_known(mut self) -> Known {
        self.known.pop().unwrap_or_default()
    }
}

/// Runs `plans`, one a thread, on `cpu` alone if given.
///
/// # Errors
/// If the limit on open files is too low or a thread cannot do its work at all.
pub(crate) fn run(target: &Target, plans: Vec<Plan>, cpu: Option<usize>) -> Result<Done> {
    let plans: Vec<Plan> = plans
        .into_iter()
        .map(Plan::checked)
        .collect::<Result<_>>()?;
    let wanted: u32 = plans.iter().map(Loader::connections).sum();
    ensure_files(u64::from(wanted))?;
    let (started, origin_ns) = (clock::wall(), clock::now());
    let bar = Bar::new(&plans);
    let mut threads = Vec::new();
    for plan in plans {
        let progress = Arc::new(Progress::default());
        let (target, shared) = (target.clone(), Arc::clone(&progress));
        let work = move || -> Result<Outcome> {
            if let Some(cpu) = cpu {
                process::pin_thread(cpu);
            }
            let mut net = Net::new(target, Loader::connections(&plan))?;
            let mut loader = Loader::new(plan, origin_ns, shared);
            net.run(&mut loader)?;
            Ok(loader.finish(&net))
        };
        let handle = thread::Builder::new().name(LOAD_THREAD.into()).spawn(work);
        threads.push((handle.context("cannot start a thread")?, progress));
    }
    while threads.iter().any(|(t, _)| !t.is_finished()) {
        bar.show(threads.iter().map(|(_, p)| p.as_ref()));
        clock::pause(SHOW_EVERY);
    }
    bar.end();
    let outcomes = threads.into_iter().map(|(t, _)| match t.join() {
        Ok(outcome) => outcome,
        Err(_) => bail!("a load thread panicked"),
    });
    Ok(add_up(outcomes.collect::<Result<_>>()?, started))
}

fn add_up(outcomes: Vec<Outcome>, started: SystemTime) -> Done {
    let mut done = Done {
        counts: Counts::default(),
        faults: Faults::default(),
        intervals: Vec::new(),
        stalls: Vec::new(),
        known: Vec::new(),
        started,
        broken_off: None,
    };
    for outcome in outcomes {
        add(&mut done.counts, &outcome.counts);
        done.faults.merge(&outcome.faults);
        done.intervals.extend(outcome.intervals);
        done.stalls.extend(outcome.stalls);
        done.known.push(outcome.known);
        done.broken_off = done.broken_off.or(outcome.broken_off);
    }
    done.intervals = recorder::merge(done.intervals);
    done
}

fn add(sum: &mut Counts, one: &Counts) {
    sum.joins += one.joins;
    sum.rejoins += one.rejoins;
    sum.beats += one.beats;
    sum.beats_measured += one.beats_measured;
    sum.leaves += one.leaves;
    sum.died += one.died;
    sum.expired += one.expired;
    sum.late_by_us += one.late_by_us;
    sum.checked += one.checked;
    sum.disconnects += one.disconnects;
    sum.joining_ns = sum.joining_ns.max(one.joining_ns);
    sum.measured_ns = sum.measured_ns.max(one.measured_ns);
    // Every thread reads the same server, its own time apart.
    sum.cpu_ns.0 = sum.cpu_ns.0.max(one.cpu_ns.0);
    sum.cpu_ns.1 += one.cpu_ns.1;
    sum.server_ticks = sum.server_ticks.max(one.server_ticks);
    sum.joining_cpu_ns = sum.joining_cpu_ns.max(one.joining_cpu_ns);
    sum.mass_ns = sum.mass_ns.max(one.mass_ns);
    sum.bytes.0 += one.bytes.0;
    sum.bytes.1 += one.bytes.1;
}

/// Deals `whole` over `parts` as evenly as whole numbers allow.
pub(crate) fn share(whole: u32, parts: u32, part: u32) -> u32 {
    whole / parts + u32::from(part < whole % parts)
}

/// Makes sure that so many connections can be open, raising our own limit where allowed.
pub(crate) fn ensure_files(connections: u64) -> Result<()> {
    let wanted = connections + FILES_OF_OUR_OWN;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if setrlimit(Resource::Nofile, raised).is_ok() && limit.maximum.is_none_or(|max| max >= wanted)
    {
        return Ok(());
    }
    bail!(
        "{connections} connections need {wanted} open files, the limit is {}: \
         raise it (`ulimit -n {wanted}`) or use fewer connections",
        limit.maximum.unwrap_or(0)
    )
}

/// The progress bar: only where somebody looks at a terminal.
struct Bar {
    bar: Option<ProgressBar>,
    sessions: u64,
    began_ns: u64,
}

impl Bar {
    fn new(plans: &[Plan]) -> Bar {
        let sessions = plans.iter().map(|p| u64::from(p.sessions)).sum();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(sessions);
            let style = ProgressStyle::with_template("{bar:30} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Bar {
            bar,
            sessions,
            began_ns: clock::now(),
        }
    }

    fn show<'a>(&self, threads: impl Iterator<Item = &'a Progress> + Clone) {
        let Some(bar) = &self.bar else { return };
        let sum = |of: fn(&Progress) -> u64| threads.clone().map(of).sum::<u64>();
        let joined = sum(|p| p.joined.load(Ordering::Relaxed));
        let beats = sum(|p| p.beats.load(Ordering::Relaxed));
        let faults = sum(|p| p.faults.load(Ordering::Relaxed));
        let gone = sum(|p| p.gone.load(Ordering::Relaxed));
        let phase = threads
            .clone()
            .map(|p| p.phase.load(Ordering::Relaxed))
            .min();
        let seconds = (clock::now() - self.began_ns) / clock::SECOND;
        bar.set_position(joined.min(self.sessions));
        bar.set_message(format!(
            "{} · {seconds} s · {joined} joined · {beats} beats · {gone} gone · {faults} faults",
            phase_name(phase.unwrap_or(0))
        ));
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn phase_name(phase: u64) -> &'static str {
    const NAMES: [(Phase, &str); 7] = [
        (Phase::Opening, "connecting"),
        (Phase::Joining, "joining"),
        (Phase::Warming, "warming up"),
        (Phase::Measuring, "beating"),
        (Phase::Dooming, "last beats"),
        (Phase::Expiring, "expiring"),
        (Phase::Draining, "finishing"),
    ];
    NAMES
        .iter()
        .find(|(p, _)| *p as u64 == phase)
        .map_or("", |(_, name)| name)
}

/// What the threads that load are called.
pub(crate) const LOAD_THREAD: &str = "load";
/// Files open besides the connections.
const FILES_OF_OUR_OWN: u64 = 64;
/// How often the progress bar is drawn.
const SHOW_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for (whole, parts) in [(10, 3), (3, 3), (2, 3), (1_000_000, 7)] {
            let all: Vec<u32> = (0..parts).map(|p| share(whole, parts, p)).collect();
            assert_eq!(all.iter().sum::<u32>(), whole);
            assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn too_many_connections_are_refused_with_the_remedy() {
        let why = ensure_files(u64::from(u32::MAX) * 1_000)
            .unwrap_err()
            .to_string();
        assert!(why.contains("ulimit -n"), "{why}");
        ensure_files(1).unwrap();
    }
}
