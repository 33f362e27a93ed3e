//! What it costs to create a session that a power loss would not undo.

use super::summary::Summary;
use super::table::{Cell, Spread, markdown, medians, none, quantile_each, quantiles, store};
use super::{CLIENTS, Contender, failed, order, rest};
use crate::cli::Compare;
use crate::commands::bench::joins::fdatasync_median_us;
use crate::process::TempDir;
use crate::report::{Report, count};
use crate::rivals::{Op, Sessions, Setting, Who};
use anyhow::Result;

/// Runs the rounds: a crowd of clients that create, then one alone.
pub(super) fn create(
    flags: &Compare,
    here: &[Who],
    report: &mut Report,
    summary: &mut Summary,
) -> Result<()> {
    let sessions = Sessions::new(TIMEOUT_S);
    let disk = TempDir::new()?;
    let mut contenders = Vec::new();
    for who in here.iter().filter(|who| who.has_sessions()) {
        // A Java machine compiles what it has run often: the first ones do not count.
        let warm = flags.rounds * (flags.creates + ALONE);
        let ready = Contender::start(*who, Setting::Durable, flags, &sessions).and_then(|c| {
            c.each(&sessions, Op::Create, warm..warm + WARMING, CLIENTS)?;
            Ok(c)
        });
        match ready {
            Ok(contender) => contenders.push(contender),
            Err(why) => failed(report, *who, "create", &why),
        }
    }
    let new = || -> Vec<Cell> { contenders.iter().map(|c| Cell::new(c.way.who)).collect() };
    let (mut crowd, mut alone) = (new(), new());
    let mut disk_us = Vec::new();
    let mut out = vec![false; contenders.len()];
    let each = flags.creates + ALONE;
    for round in 0..flags.rounds {
        disk_us.push(fdatasync_median_us(disk.path())?);
        for i in order(contenders.len(), round) {
            if out[i] {
                continue;
            }
            let from = round * each;
            let middle = from + flags.creates;
            let contender = &contenders[i];
            rest(&contenders);
            let both = contender
                .each(&sessions, Op::Create, from..middle, CLIENTS)
                .and_then(|many| {
                    let one = contender.each(&sessions, Op::Create, middle..from + each, 1)?;
                    Ok((many, one))
                });
            match both {
                Ok((many, one)) => {
                    eprintln!(
                        "round {}, create: {} {:.0} a second, {:.1} µs",
                        round + 1,
                        contender.way.who,
                        many.per_s(),
                        many.cpu_us()
                    );
                    crowd[i].add(&many);
                    alone[i].add(&one);
                }
                Err(why) => {
                    out[i] = true;
                    failed(report, contender.way.who, "create", &why);
                }
            }
        }
    }
    let per_s = medians(&crowd, |cell| &cell.per_s, |n| count(n as u64));
    summary.more("created a second", per_s);
    summary.less("created alone, p50", quantile_each(&alone, 0.5));
    tell(report, &crowd, &alone, &disk_us, flags)
}

fn tell(
    report: &mut Report,
    crowd: &[Cell],
    alone: &[Cell],
    disk_us: &[f64],
    flags: &Compare,
) -> Result<()> {
    let rows: Vec<Vec<String>> = crowd
        .iter()
        .zip(alone)
        .map(|(many, one)| {
            let rate = Spread::of(&many.per_s);
            let [p50, p99, _] = quantiles(&many.hist);
            let [one_p50, one_p99, _] = quantiles(&one.hist);
            vec![
                many.who.to_string(),
                rate.map_or_else(none, |s| s.text(0)),
                many.cpu().map_or_else(none, |s| s.text(1)),
                p50,
                p99,
                one_p50,
                one_p99,
            ]
        })
        .collect();
    let disk = Spread::of(disk_us).map_or_else(none, |s| s.text(1));
    let title = format!(
        "Creating durable sessions: {} by {CLIENTS} clients, then {ALONE} one after the other; \
         one fdatasync of this disk takes {disk} µs",
        count(flags.creates.into())
    );
    let head = [
        "server",
        "created a second",
        "server CPU each, µs",
        "p50",
        "p99",
        "alone, p50",
        "alone, p99",
    ];
    report.note(&markdown(&title, &head, &rows));
    report.data("create_fdatasync_us_each", disk_us.to_vec().into());
    store(report, "create", "µs of server CPU a session", crowd)?;
    store(report, "create-alone", "µs of server CPU a session", alone)
}

/// Sessions one client creates, one after the other, in each round.
const ALONE: u32 = 200;
/// Sessions created before the first round.
const WARMING: u32 = 5_000;
/// Nobody expires.
const TIMEOUT_S: u32 = 3_600;
