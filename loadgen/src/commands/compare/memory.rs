//! What a session occupies, whatever of it is resident.

use super::summary::Summary;
use super::table::markdown;
use super::{Contender, failed};
use crate::cli::Compare;
use crate::commands::memory::settled;
use crate::report::{Report, count};
use crate::rivals::{Sessions, Setting, Who};
use anyhow::Result;
use serde_json::json;

/// Fills each server in turn; memory hardly differs from run to run, so there are no rounds.
pub(super) fn memory(
    flags: &Compare,
    here: &[Who],
    report: &mut Report,
    summary: &mut Summary,
) -> Result<()> {
    let mut rows = Vec::new();
    let mut resident = Vec::new();
    for who in here.iter().filter(|who| who.has_sessions()) {
        match held(*who, flags) {
            Ok((row, data)) => {
                let bytes = row[ALL_RESIDENT].clone();
                resident.push((*who, bytes.parse().unwrap_or(f64::INFINITY), bytes));
                eprintln!("memory: {}", row.join(", "));
                report.data(&format!("memory_{who}"), data);
                rows.push(row);
            }
            Err(why) => failed(report, *who, "memory", &why),
        }
    }
    summary.less("memory a session, B", resident);
    let title = format!(
        "Memory at {} idle sessions without connections, names of 24 bytes",
        count(flags.held.into())
    );
    let head = [
        "server",
        "more than empty, B a session",
        "of it no mapped file, B",
        "all resident, B a session",
        "empty, MiB",
        "full, MiB",
    ];
    report.note(&markdown(&title, &head, &rows));
    report.note(
        "Of Java and Go it is what their collectors have not given back, up to the limit of \
         the heap; of etcd and systole also what is mapped of their files.",
    );
    Ok(())
}

fn held(who: Who, flags: &Compare) -> Result<(Vec<String>, serde_json::Value)> {
    let sessions = Sessions::new(TIMEOUT_S);
    let contender = Contender::start(who, Setting::Memory, flags, &sessions)?;
    let before = settled(&contender.running.server)?;
    contender.create_all(&sessions, 0..flags.held)?;
    let after = settled(&contender.running.server)?;
    let each = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(flags.held));
    let row = vec![
        who.to_string(),
        each(after.rss.saturating_sub(before.rss)),
        each(after.anonymous.saturating_sub(before.anonymous)),
        each(after.rss),
        (before.rss >> 20).to_string(),
        (after.rss >> 20).to_string(),
    ];
    Ok((row, json!({ "before": before, "after": after })))
}

/// Where in a row it stands what is resident all told: an empty server's own is not free.
const ALL_RESIDENT: usize = 3;
/// Nobody expires.
const TIMEOUT_S: u32 = 86_400;
