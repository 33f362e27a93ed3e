//! What a beat costs: one at a time, pipelined, and over thousands of connections.

use super::summary::Summary;
use super::table::{Cell, markdown, medians, none, quantiles, ratio, store};
use super::{Contender, failed, order, rest};
use crate::cli::Compare;
use crate::clock::{MILLI, SECOND};
use crate::report::{Report, count};
use crate::rivals::crew::{self, Job, Took, Way};
use crate::rivals::{Sessions, Setting, Who};
use anyhow::Result;

/// One way to beat.
struct Manner {
    work: &'static str,
    /// In the table in short.
    short: &'static str,
    title: String,
    connections: u32,
    depth: u32,
}

/// Runs the rounds and tells what came of them.
pub(super) fn heartbeat(
    flags: &Compare,
    here: &[Who],
    report: &mut Report,
    summary: &mut Summary,
) -> Result<()> {
    let sessions = Sessions::new(TIMEOUT_S);
    let manners = manners(flags);
    let mut contenders = Vec::new();
    for who in here {
        match ready(*who, flags, &sessions) {
            Ok(contender) => contenders.push(contender),
            Err(why) => failed(report, *who, "heartbeat", &why),
        }
    }
    let mut cells: Vec<Vec<Cell>> = manners
        .iter()
        .map(|_| contenders.iter().map(|c| Cell::new(c.way.who)).collect())
        .collect();
    let mut out = vec![false; contenders.len()];
    for round in 0..flags.rounds {
        for (manner, cells) in manners.iter().zip(&mut cells) {
            for i in order(contenders.len(), round) {
                if out[i] {
                    continue;
                }
                rest(&contenders);
                match measure(&contenders[i], manner, flags, &sessions) {
                    Ok(took) => cells[i].add(&took),
                    Err(why) => {
                        out[i] = true;
                        failed(report, contenders[i].way.who, manner.work, &why);
                    }
                }
            }
            say(round, manner, cells);
        }
    }
    for (manner, cells) in manners.iter().zip(&cells) {
        tell(report, manner, cells)?;
        let us = medians(cells, |cell| &cell.us, |us| format!("{us:.2}"));
        summary.less(manner.short, us);
    }
    Ok(())
}

fn manners(flags: &Compare) -> [Manner; 3] {
    [
        Manner {
            work: "beat",
            short: "CPU a beat, µs",
            title: format!("Heartbeats, one at a time on {CONNECTIONS} connections"),
            connections: CONNECTIONS,
            depth: 1,
        },
        Manner {
            work: "beat-pipelined",
            short: "pipelined × 32, µs",
            title: format!("Heartbeats, {PIPELINE} under way on each of {CONNECTIONS} connections"),
            connections: CONNECTIONS,
            depth: PIPELINE,
        },
        Manner {
            work: "beat-crowd",
            short: "over many connections, µs",
            title: format!(
                "Heartbeats, one at a time on {} connections",
                count(flags.crowd.into())
            ),
            connections: flags.crowd,
            depth: 1,
        },
    ]
}

/// A server with its sessions, warmed up: a Java machine compiles what it runs often.
fn ready(who: Who, flags: &Compare, sessions: &Sessions) -> Result<Contender> {
    let contender = Contender::start(who, Setting::Memory, flags, sessions)?;
    if who.has_sessions() && !who.is_session_bound() {
        contender.create_all(sessions, 0..flags.sessions)?;
    }
    for depth in [PIPELINE, 1] {
        let way = Way {
            connections: CONNECTIONS,
            depth,
            ..contender.way.clone()
        };
        let job = Job::Beats {
            sessions: flags.sessions,
            warmup_ns: 0,
            duration_ns: WARMING_NS,
        };
        crew::work(&way, sessions, job)?;
    }
    Ok(contender)
}

fn measure(
    contender: &Contender,
    manner: &Manner,
    flags: &Compare,
    sessions: &Sessions,
) -> Result<Took> {
    let way = Way {
        connections: manner.connections,
        depth: manner.depth,
        ..contender.way.clone()
    };
    let job = Job::Beats {
        sessions: flags.sessions,
        warmup_ns: 300 * MILLI,
        duration_ns: flags.duration,
    };
    crew::work(&way, sessions, job)
}

fn say(round: u32, manner: &Manner, cells: &[Cell]) {
    let each = cells.iter().filter_map(|c| Some((c.who, c.us.last()?)));
    let each: Vec<String> = each.map(|(who, us)| format!("{who} {us:.2} µs")).collect();
    eprintln!("round {}, {}: {}", round + 1, manner.work, each.join(", "));
}

fn tell(report: &mut Report, manner: &Manner, cells: &[Cell]) -> Result<()> {
    let bound = cells.iter().find(|c| c.who == Who::Bound);
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|cell| {
            let ratio = bound.and_then(|bound| ratio(cell, bound));
            let [p50, p99, max] = quantiles(&cell.hist);
            let rate = super::table::Spread::of(&cell.per_s);
            vec![
                cell.who.to_string(),
                cell.cpu().map_or_else(none, |s| s.text(2)),
                ratio.map_or_else(none, |s| s.text(2)),
                rate.map_or_else(none, |s| count(s.median as u64)),
                p50,
                p99,
                max,
            ]
        })
        .collect();
    let head = [
        "server",
        "server CPU a beat, µs",
        "× the bound",
        "beats a second",
        "p50",
        "p99",
        "longest",
    ];
    report.note(&markdown(&manner.title, &head, &rows));
    store(report, manner.work, "µs of server CPU a beat", cells)
}

/// Connections of the quiet measurements.
const CONNECTIONS: u32 = 64;
/// Beats under way on each, pipelined.
const PIPELINE: u32 = 32;
/// Nobody expires.
const TIMEOUT_S: u32 = 3_600;
/// Beats of either kind that are not counted, before the first round.
const WARMING_NS: u64 = 2 * SECOND;
