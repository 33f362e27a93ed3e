//! How late sessions that stop are seen to go.

use super::summary::Summary;
use super::table::{Cell, markdown, quantile_each, quantiles, store};
use super::{CLIENTS, Contender, failed, order};
use crate::cli::Compare;
use crate::clock::{self, MILLI, SECOND};
use crate::report::{Report, count};
use crate::rivals::crew::{self, Job, Took, Way};
use crate::rivals::{Op, Sessions, Setting, Who};
use crate::watch::Mass;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Runs the rounds and tells what came of them.
pub(super) fn expiry(
    flags: &Compare,
    here: &[Who],
    report: &mut Report,
    summary: &mut Summary,
) -> Result<()> {
    let here: Vec<Who> = here.iter().copied().filter(|w| w.has_sessions()).collect();
    let mut cells: Vec<Cell> = here.iter().map(|who| Cell::new(*who)).collect();
    let mut ends = vec![(0_u64, 0_u64); here.len()];
    let mut out = vec![false; here.len()];
    for round in 0..flags.rounds {
        for i in order(here.len(), round) {
            if out[i] {
                continue;
            }
            match stop(here[i], flags) {
                Ok(took) => {
                    let p99 = crate::report::time(took.hist.value_at_quantile(0.99));
                    eprintln!("round {}, expiry: {} p99 {p99}", round + 1, here[i]);
                    ends[i].0 += took.early_and_left.0;
                    ends[i].1 += took.early_and_left.1;
                    cells[i].add(&took);
                }
                Err(why) => {
                    out[i] = true;
                    failed(report, here[i], "expiry", &why);
                }
            }
        }
    }
    for cell in &mut cells {
        // What it costs to expire is not told apart from what it costs to be asked how far it is.
        cell.us.clear();
    }
    let rows: Vec<Vec<String>> = cells
        .iter()
        .zip(&ends)
        .map(|(cell, (early, left))| {
            let mut row = vec![cell.who.to_string()];
            row.extend(quantiles(&cell.hist));
            row.extend([count(*early), count(*left)]);
            row
        })
        .collect();
    let title = format!(
        "Expiry: {} sessions of {} s that stop; from a timeout after the last renewal was sent \
         to an observer's count without them (asked every 10 ms)",
        count(flags.mass.into()),
        flags.timeout
    );
    let head = [
        "server",
        "late, p50",
        "p99",
        "longest",
        "gone too early",
        "still there at the end",
    ];
    report.note(&markdown(&title, &head, &rows));
    report.note(
        "Counts are ranked by deadline: the first to go is taken for the first that was due. \
         Redis hides a key from who asks for it by name as soon as it is due; counted here is when \
         it is removed, which is when others are told.",
    );
    summary.less("expired late, p99", quantile_each(&cells, 0.99));
    store(report, "expiry", "", &cells)
}

/// Creates the sessions, renews them once, and watches them go.
fn stop(who: Who, flags: &Compare) -> Result<Took> {
    let sessions = Sessions::new(flags.timeout);
    let contender = Contender::start(who, Setting::Durable, flags, &sessions)?;
    let timeout_ns = u64::from(flags.timeout) * SECOND;
    let began_ns = clock::now();
    let mut sent_ns = Vec::new();
    if who.is_session_bound() {
        sent_ns = contender.create_all(&sessions, 0..flags.mass)?;
    } else {
        // A part at a time: who takes long to create must not lose the first ones meanwhile.
        let mut made = 0;
        while made < flags.mass {
            let to = flags.mass.min(made + PART);
            contender.each(&sessions, Op::Create, made..to, CLIENTS)?;
            made = to;
            sent_ns = contender
                .each(&sessions, Op::Beat, 0..made, RENEWERS)?
                .sent_ns;
        }
    }
    let mut mass = Mass::default();
    for at_ns in &sent_ns {
        mass.renewed(1, at_ns + timeout_ns);
    }
    mass.seal();
    let now_ns = clock::now();
    ensure!(
        now_ns + 500 * MILLI < mass.first_due(),
        "it took {} to create and renew {} sessions of {} s: the first may be gone before they are counted",
        crate::report::time(now_ns - began_ns),
        flags.mass,
        flags.timeout
    );
    let until_ns = mass.last_due() + PATIENCE_NS;
    clock::pause(Duration::from_nanos(
        mass.first_due() - now_ns - 300 * MILLI,
    ));
    let way = Way {
        connections: 1,
        depth: 1,
        ..contender.way.clone()
    };
    let mass = Box::new(mass);
    crew::work(&way, &sessions, Job::Watch { mass, until_ns })
}

/// Sessions created between two renewals of all.
const PART: u32 = 2_500;
/// Clients that renew.
const RENEWERS: u32 = 64;
/// How long after the last deadline the last session is awaited.
const PATIENCE_NS: u64 = 90 * SECOND;
