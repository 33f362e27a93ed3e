//! P7: durable joins, many at once and one alone, beside the disk that makes them durable.

use super::heartbeat::start_bound;
use super::topic;
use crate::cli::Bench;
use crate::clock::{self, SECOND};
use crate::commands::own::{Home, target};
use crate::commands::{conclude, spread};
use crate::names::Names;
use crate::plan::{Load, Plan};
use crate::process::{Server, TempDir};
use crate::recorder::{self, Tag};
use crate::report::Report;
use crate::run::{self, Done};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Runs the rounds: a crowd of joins, then one after the other, then the bare disk.
pub(super) fn durable_joins(flags: &Bench) -> Result<bool> {
    let home = Home::new(&flags.own)?;
    let (server, _) = home.start()?;
    let bare = flags.bound.as_deref().map(|program| {
        let servers = HANDS.map(|hands| Bare::start(program, &home, flags, hands));
        servers.into_iter().collect::<Result<Vec<Bare>>>()
    });
    let bare = bare.transpose()?.unwrap_or_default();
    let mut report = Report::new(&topic(flags), clock::wall(), &home.describe());
    let mut rounds = Rounds::default();
    let mut intervals = Vec::new();
    let crowd = (flags.sessions / flags.rounds).max(1);
    for round in 0..flags.rounds {
        let mut join = |name: &str, sessions: u32, outstanding: u32| -> Result<Done> {
            let names = Names::new(&format!("{name}{round}"), 100, 24, 1, 0);
            let plan = Plan {
                joins_outstanding: outstanding,
                server_pid: Some(server.pid()),
                ..Plan::joins(names, sessions, 64)
            };
            let done = run::run(&home.target(), vec![plan], flags.own.load_cpu)?;
            report.verdict(&done.faults, done.broken_off.as_deref());
            Ok(done)
        };
        let many = join("many", crowd, flags.outstanding)?;
        if many.counts.joining_ns == 0 {
            let (done, round) = (many.counts.joins, round + 1);
            bail!(
                "round {round} was broken off: {done} of {crowd} joins were answered, at no rate"
            );
        }
        let alone = join("alone", ALONE, 1)?;
        let joins = many.counts.joins.max(1) as f64;
        let disk = fdatasync_median_us(&home.data_dir)?;
        let one = alone.hist(Tag::Join).value_at_quantile(0.5) as f64 / 1e3;
        let rate = joins * 1e9 / many.counts.joining_ns as f64;
        rounds.rate.push(rate);
        let cpu_us = many.counts.joining_cpu_ns as f64 / 1e3 / joins;
        rounds.cpu_us.push(cpu_us);
        rounds.alone_us.push(one);
        rounds.disk_us.push(disk);
        rounds.ratio.push(one / disk);
        for (bare, at) in bare.iter().zip(&mut rounds.bare) {
            let us = bare.alone_us(flags)?;
            at.us.push(us);
            at.disk_ratio.push(us / disk);
            at.ratio.push(one / us);
        }
        intervals = recorder::merge([intervals, many.intervals].concat());
        eprintln!(
            "round {}: {rate:.0} a second, alone {one:.0} µs, disk {disk:.0} µs",
            round + 1
        );
    }
    report.setup(format!(
        "rounds of {crowd} joins with {} under way, then {ALONE} one at a time, then \
         {SYNCS} × fdatasync after overwriting 4 KiB of a preallocated file on the same disk",
        flags.outstanding
    ));
    let aim = "≥ 200,000 a second, ≤ 5 µs CPU, alone ≤ 1.5 × one fdatasync";
    report.figure("aim", "target", aim.to_owned(), aim);
    rounds.tell(&mut report);
    report.latencies(&intervals);
    drop(server);
    conclude(&report, flags.own.out.as_deref())
}

/// What the rounds measured.
#[derive(Default)]
struct Rounds {
    rate: Vec<f64>,
    cpu_us: Vec<f64>,
    alone_us: Vec<f64>,
    disk_us: Vec<f64>,
    ratio: Vec<f64>,
    /// Empty without the bound server.
    bare: [BareRounds; HANDS.len()],
}

/// What the rounds measured at one bare server.
#[derive(Default)]
struct BareRounds {
    us: Vec<f64>,
    /// To the disk.
    disk_ratio: Vec<f64>,
    /// Of ours to it.
    ratio: Vec<f64>,
}

impl Rounds {
    fn tell(&self, report: &mut Report) {
        for (key, label, values, unit) in [
            ("joins_per_s", "joins a second", &self.rate, ""),
            ("join_cpu_us", "server CPU a join", &self.cpu_us, " µs"),
            ("alone_us", "one alone, median", &self.alone_us, " µs"),
            (
                "fdatasync_us",
                "one fdatasync, median",
                &self.disk_us,
                " µs",
            ),
            (
                "alone_ratio",
                "alone / fdatasync, by round",
                &self.ratio,
                "",
            ),
        ] {
            spread(report, key, label, values, unit);
        }
        for (bare, hands) in self.bare.iter().zip(HANDS) {
            let (key, label) = match hands {
                0 => ("bare", "a bare server that syncs".to_owned()),
                1 => (
                    "bare_core",
                    "one that has a thread write and sync".to_owned(),
                ),
                _ => ("bare_core_sync", "one with a thread between".to_owned()),
            };
            let (us, median) = (format!("{key}_us"), format!("alone at {label}, median"));
            spread(report, &us, &median, &bare.us, " µs");
            let (disk, by) = (
                format!("{key}_disk_ratio"),
                "    its own / fdatasync, by round",
            );
            spread(report, &disk, by, &bare.disk_ratio, "");
            let (ours, by) = (format!("{key}_ratio"), "    alone / its own, by round");
            spread(report, &ours, by, &bare.ratio, "");
        }
    }
}

/// The bound server, which overwrites 4 KiB and syncs them before it answers: what a durable
/// answer to one client takes if there is nothing else to do for it. It may have that done by
/// threads, as a server must whose log belongs to a core of its own, and whose disk may hang.
struct Bare {
    address: SocketAddr,
    _server: Server,
    _log: TempDir,
}

impl Bare {
    /// Its file is on the disk that systole's log is on, and so many threads lead to it.
    fn start(program: &Path, home: &Home, flags: &Bench, hands: usize) -> Result<Bare> {
        let log = TempDir::new()?;
        let file = home.data_dir.with_extension(format!("bare-{hands}"));
        let (sync, by) = ("--sync".to_owned(), "--hands".to_owned());
        let more = [sync, file.display().to_string(), by, hands.to_string()];
        let (server, address) = start_bound(program, &log, &flags.own, &more)?;
        Ok(Bare {
            address,
            _server: server,
            _log: log,
        })
    }

    /// How long one request takes while there is no other, in microseconds: the median.
    fn alone_us(&self, flags: &Bench) -> Result<f64> {
        let plan = Plan {
            bare: true,
            load: Load::Closed { pipeline: 1 },
            duration_ns: SECOND / 4,
            warmup_ns: SECOND / 20,
            ..Plan::joins(Names::new("bare", 100, 24, 1, 0), 1, 1)
        };
        let done = run::run(&target(self.address), vec![plan], flags.own.load_cpu)?;
        Ok(done.hist(Tag::Beat).value_at_quantile(0.5) as f64 / 1e3)
    }
}

/// The median of `fdatasync` after overwriting 4 KiB, in microseconds.
pub(crate) fn fdatasync_median_us(dir: &Path) -> Result<f64> {
    let path = dir.join("fdatasync.probe");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let page = [0x5a; 4096];
    for i in 0..SYNCS {
        file.write_all_at(&page, i * 4096)?;
    }
    file.sync_all()?;
    let mut took = Vec::new();
    for i in 0..SYNCS {
        let before = clock::now();
        file.write_all_at(&page, i * 4096)?;
        file.sync_data()?;
        took.push(clock::now() - before);
    }
    std::fs::remove_file(&path)?;
    took.sort_unstable();
    Ok(took[took.len() / 2] as f64 / 1e3)
}

/// Threads that lead to the disk of the bare servers.
const HANDS: [usize; 3] = [0, 1, 2];
/// Joins one at a time, in each round.
const ALONE: u32 = 1_000;
/// Syncs of the bare disk, in each round.
const SYNCS: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_timed_and_nothing_stays_behind() {
        let dir = TempDir::new().unwrap();
        assert!(fdatasync_median_us(dir.path()).unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
