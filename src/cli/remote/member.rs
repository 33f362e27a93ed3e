//! `systole join`, `beat` and `leave`.

use std::io::BufRead;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::table::Table;
use super::{Place, Reach, contents, failure, keep, refused_code, seconds};
use crate::cli::Failure;
use crate::client::{Batch, Entry, Terms, member_path};
use crate::time::Millis;
use crate::types::SessionId;

/// The flags of `join`.
#[derive(Args)]
pub(in crate::cli) struct JoinFlags {
    /// Who joins what
    #[arg(value_name = "GROUP/MEMBER", value_parser = Place::read)]
    place: Place,
    /// Stay, beat and join again as need be, until Ctrl-C or SIGTERM; then leave
    #[arg(long)]
    keep: bool,
    /// The session's timeout, in seconds or with a unit [default: the server's]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    timeout: Option<Millis>,
    /// A file with the member's config; - reads standard input
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End a session that the member has already, and begin a new one
    #[arg(long, conflicts_with = "only_new")]
    takeover: bool,
    /// Be refused if the member has a session already
    #[arg(long)]
    only_new: bool,
    #[command(flatten)]
    reach: Reach,
}

/// The flags of `beat`.
#[derive(Args)]
pub(in crate::cli) struct BeatFlags {
    /// For whom; - reads members from standard input, one a line
    #[arg(value_name = "GROUP/MEMBER", required = true)]
    places: Vec<String>,
    /// Be refused if the member is another session's by now; for one member
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    #[command(flatten)]
    reach: Reach,
}

/// The flags of `leave`.
#[derive(Args)]
pub(in crate::cli) struct LeaveFlags {
    /// Who leaves
    #[arg(value_name = "GROUP/MEMBER", value_parser = Place::read)]
    place: Place,
    /// Be refused if the member is another session's by now
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn join(flags: &JoinFlags) -> Result<(), Failure> {
    let Place { group, member } = flags.place.clone();
    let terms = Terms {
        group,
        member,
        timeout: flags.timeout,
        config: flags.config.as_deref().map(contents).transpose()?,
        entry: match (flags.takeover, flags.only_new) {
            (true, _) => Entry::TakeOver,
            (_, true) => Entry::OnlyNew,
            _ => Entry::Renew,
        },
    };
    let output = flags.reach.output();
    if flags.keep {
        let client = flags.reach.client()?;
        let within = flags.reach.command_timeout;
        return keep::run(&client, terms, &flags.place, within, &output);
    }
    let about = flags.place.to_string();
    let group = flags.reach.group(&terms.group)?;
    let joined = group
        .join(&terms)
        .map_err(|error| failure(&error, &about))?;
    let done = if joined.created { "joined" } else { "renewed" };
    let (session, timeout, version) = (joined.session, joined.timeout.0, joined.version);
    output.either(
        || {
            json!({"group": terms.group, "member": terms.member, "created": joined.created,
                "session": session.to_string(), "timeout_ms": timeout, "version": version.0})
        },
        &format!("{done} {about}: session {session}, timeout {timeout} ms, version {version}"),
    )
}

pub(super) fn leave(flags: &LeaveFlags) -> Result<(), Failure> {
    let Place { group, member } = &flags.place;
    let about = flags.place.to_string();
    let left = flags.reach.group(group)?.leave(member, flags.session);
    left.map_err(|error| failure(&error, &about))?;
    flags.reach.output().either(
        || json!({"group": group, "member": member, "left": true}),
        &format!("{about} has left"),
    )
}

pub(super) fn beat(flags: &BeatFlags) -> Result<(), Failure> {
    let reads = flags.places.iter().any(|place| place == "-");
    match &flags.places[..] {
        [place] if !reads => beat_one(flags, &read_place(place)?),
        _ if flags.session.is_some() => Err(Failure::usage(
            "--session names one member's session: name one member",
        )),
        [_] => beat_many(
            flags,
            &mut std::io::stdin().lock().lines().map(|line| {
                line.map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))
            }),
        ),
        _ if reads => Err(Failure::usage("- stands for all members: name no others")),
        places => beat_many(flags, &mut places.iter().map(|place| Ok(place.clone()))),
    }
}

fn beat_one(flags: &BeatFlags, place: &Place) -> Result<(), Failure> {
    let about = place.to_string();
    let group = flags.reach.group(&place.group)?;
    let beaten = group.beat(&place.member, flags.session);
    let version = beaten.map_err(|error| failure(&error, &about))?;
    flags.reach.output().either(
        || json!({"group": place.group, "member": place.member, "version": version.0}),
        &format!("{about}: version {version}"),
    )
}

/// Beats for all members that `lines` name, as many in one request as a server takes.
fn beat_many(
    flags: &BeatFlags,
    lines: &mut dyn Iterator<Item = Result<String, Failure>>,
) -> Result<(), Failure> {
    let client = flags.reach.client()?;
    let (mut all, mut open, mut bytes, mut begun) = (Batch::default(), Vec::new(), 0, 0);
    let mut send = |open: &mut Vec<Place>, all: &mut Batch| -> Result<(), Failure> {
        let places = open.iter().map(|place| (&*place.group, &*place.member));
        let batch = client
            .beat_many(places)
            .map_err(|error| failure(&error, ""))?;
        all.renewed += batch.renewed;
        all.failed
            .extend(batch.failed.into_iter().map(|mut failed| {
                failed.line += begun;
                failed
            }));
        begun += open.len() as u64;
        open.clear();
        Ok(())
    };
    for line in lines {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let place = read_place(line.trim_end())?;
        let length = member_path(&place.group, &place.member).len();
        if bytes + length > BATCH_BYTES_MAX {
            send(&mut open, &mut all)?;
            bytes = 0;
        }
        bytes += length;
        open.push(place);
    }
    if !open.is_empty() {
        send(&mut open, &mut all)?;
    }
    report(flags, &all)
}

fn report(flags: &BeatFlags, all: &Batch) -> Result<(), Failure> {
    let output = flags.reach.output();
    let failures = all.failed.len();
    if output.is_json() {
        let failed: Vec<_> = all
            .failed
            .iter()
            .map(
                |f| json!({"line": f.line, "member": f.member, "status": f.status, "code": f.code}),
            )
            .collect();
        output.either(|| json!({"renewed": all.renewed, "failed": failed}), "")?;
    } else {
        let mut table = Table::new(&["LINE", "MEMBER", "STATUS", "CODE"]);
        for failed in &all.failed {
            let (line, status) = (failed.line.to_string(), failed.status.to_string());
            table.row([line, failed.member.clone(), status, failed.code.clone()]);
        }
        let above = format!("{} renewed, {failures} failed\n", all.renewed);
        match failures {
            0 => output.bytes(above.as_bytes())?,
            _ => output.table(&above, &table)?,
        }
    }
    // The gravest: a refusal before what is merely gone.
    let codes = all.failed.iter().map(|failed| match failed.status {
        500.. => crate::cli::UNAVAILABLE,
        status => refused_code(status),
    });
    match codes.max() {
        None => Ok(()),
        Some(code) => Err(Failure {
            sentence: format!(
                "{failures} of {} beats failed",
                all.renewed + failures as u64
            ),
            code,
        }),
    }
}

fn read_place(text: &str) -> Result<Place, Failure> {
    Place::read(text).map_err(|why| Failure::usage(format!("`{text}`: {why}")))
}

/// Bytes of one request of beats; the servers take 1 MiB.
const BATCH_BYTES_MAX: usize = 1 << 19;
