//! `systole get`, `watch`, `config` and `groups`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{Output, note};
use super::table::Table;
use super::{Reach, Target, contents, failure, group_name};
use crate::cli::Failure;
use crate::client::{Call, Change, Document, Error};
use crate::types::GroupVersion;

/// The flags of `get`.
#[derive(Args)]
pub(in crate::cli) struct GetFlags {
    /// Which group
    #[arg(value_name = "GROUP", value_parser = group_name)]
    group: String,
    /// Have the server ask the leader first, so that nothing is missing that was done before
    #[arg(long)]
    consistent: bool,
    #[command(flatten)]
    reach: Reach,
}

/// The flags of `watch`.
#[derive(Args)]
pub(in crate::cli) struct WatchFlags {
    /// Which group
    #[arg(value_name = "GROUP", value_parser = group_name)]
    group: String,
    #[command(flatten)]
    reach: Reach,
}

/// The flags of `groups`.
#[derive(Args)]
pub(in crate::cli) struct GroupsFlags {
    #[command(flatten)]
    reach: Reach,
}

/// What can be done with a config.
#[derive(Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Prints it, byte for byte.
    Get {
        /// A group, or a member
        #[arg(value_name = "GROUP[/MEMBER]", value_parser = Target::read)]
        target: Target,
        #[command(flatten)]
        reach: Reach,
    },
    /// Stores what a file holds.
    Put {
        /// A group, or a member
        #[arg(value_name = "GROUP[/MEMBER]", value_parser = Target::read)]
        target: Target,
        /// The file; - reads standard input
        file: PathBuf,
        /// Only if it still has this tag, which `config get --json` shows
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Removes it.
    Delete {
        /// A group, or a member
        #[arg(value_name = "GROUP[/MEMBER]", value_parser = Target::read)]
        target: Target,
        #[command(flatten)]
        reach: Reach,
    },
}

pub(super) fn get(flags: &GetFlags) -> Result<(), Failure> {
    let group = flags.reach.group(&flags.group)?;
    let read = match flags.consistent {
        true => group.get_consistent(),
        false => group.get(),
    };
    let document = read.map_err(|error| failure(&error, &flags.group))?;
    let output = flags.reach.output();
    if output.is_json() {
        let mut json = document.json;
        json.push(b'\n');
        return output.bytes(&json);
    }
    show(&flags.group, &document, &output)
}

fn show(name: &str, document: &Document, output: &Output) -> Result<(), Failure> {
    let (active, inactive) = (document.active.len(), document.inactive.len());
    let mut above = format!(
        "{name}: version {}, {active} active, {inactive} inactive\n",
        document.version
    );
    if !document.config.is_null() {
        above.push_str(&format!("config: {}\n", brief(&document.config)));
    }
    let mut table = Table::new(&["MEMBER", "STATE", "CONFIG"]);
    for (members, state) in [
        (&document.active, "active"),
        (&document.inactive, "inactive"),
    ] {
        for (name, config) in members {
            table.row([name.clone(), state.to_owned(), brief(config)]);
        }
    }
    output.table(&above, &table)
}

/// A config in a cell: nothing if there is none, and cut if it is long.
fn brief(config: &Value) -> String {
    let text = match config {
        Value::Null => return String::new(),
        config => config.to_string(),
    };
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

pub(super) fn watch(flags: &WatchFlags) -> Result<(), Failure> {
    let output = flags.reach.output();
    let mut watch = flags.reach.group(&flags.group)?.watch();
    let mut begun = false;
    let mut lost = false;
    loop {
        match watch.next() {
            Ok(change) => {
                if std::mem::take(&mut lost) {
                    note(&format!(
                        "watching again, at {}",
                        watch.endpoint().unwrap_or("")
                    ));
                }
                begun = true;
                tell(&change, &output)?;
            }
            // A group that is removed has an end; servers that are down come back.
            Err(error @ (Error::Unreachable { .. } | Error::Unavailable { .. })) if begun => {
                if !std::mem::replace(&mut lost, true) {
                    note(&format!("{error}; trying again"));
                }
            }
            Err(error) => return Err(failure(&error, &flags.group)),
        }
    }
}

fn tell(change: &Change, output: &Output) -> Result<(), Failure> {
    let data: Value = serde_json::from_str(&change.data).unwrap_or(Value::Null);
    let version = data["version"].as_u64().or(change.id);
    if output.is_json() {
        let json = || json!({"event": change.kind, "version": version, "data": data});
        return output.either(json, "");
    }
    let shown = version.map_or_else(|| "-".to_owned(), |version| version.to_string());
    let about = match (&*change.kind, data["member"].as_str()) {
        ("snapshot", _) => {
            let version = GroupVersion(version.unwrap_or_default());
            match Document::new(version, change.data.clone().into_bytes()) {
                Ok(document) => snapshot(&document),
                Err(_) => String::new(),
            }
        }
        (_, Some(member)) => format!("{member} {}", brief(&data["config"])),
        _ => brief(&data["config"]),
    };
    let line = format!("{shown:>6}  {:<8}  {about}", change.kind);
    output.either(|| Value::Null, line.trim_end())
}

/// A snapshot in one line: how many, and who if they are few.
fn snapshot(document: &Document) -> String {
    let (active, inactive) = (document.active.len(), document.inactive.len());
    let names: Vec<&str> = document
        .active
        .iter()
        .map(|(name, _)| &**name)
        .take(NAMES_MAX)
        .collect();
    let more = if active > NAMES_MAX { " …" } else { "" };
    let names = names.join(" ");
    let colon = if active > 0 { ": " } else { "" };
    format!("{active} active, {inactive} inactive{colon}{names}{more}")
}

pub(super) fn config(command: &ConfigCommand) -> Result<(), Failure> {
    let (target, reach) = match command {
        ConfigCommand::Get { target, reach }
        | ConfigCommand::Put { target, reach, .. }
        | ConfigCommand::Delete { target, reach } => (target, reach),
    };
    let (group, member) = (reach.group(&target.group)?, target.member.as_deref());
    let (output, about) = (reach.output(), target.to_string());
    let failed = |error: Error| failure(&error, &about);
    match command {
        ConfigCommand::Get { .. } => {
            let config = group.config(member).map_err(failed)?;
            if !output.is_json() {
                return output.bytes(&config.bytes);
            }
            let text = String::from_utf8_lossy(&config.bytes);
            output.either(|| json!({"config": text, "etag": config.etag}), "")
        }
        ConfigCommand::Put { file, if_match, .. } => {
            let put = group.set_config(member, contents(file)?, if_match.as_deref());
            put.map_err(failed)?;
            output.either(
                || json!({"stored": true}),
                &format!("{about} is configured"),
            )
        }
        ConfigCommand::Delete { .. } => {
            group.delete_config(member).map_err(failed)?;
            let text = format!("{about} has no config any more");
            output.either(|| json!({"deleted": true}), &text)
        }
    }
}

#[derive(Deserialize)]
struct Listing {
    groups: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    version: u64,
    active: u64,
    inactive: u64,
}

pub(super) fn groups(flags: &GroupsFlags) -> Result<(), Failure> {
    let client = flags.reach.client()?;
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let mut target = "/?limit=1000".to_owned();
        if let Some(last) = all.last() {
            // A group's path without its slash is its name, escaped.
            let after = &crate::client::group_path(&last.name)[1..];
            target.push_str(&format!("&after={after}"));
        }
        let answer = client.send(&Call::new("GET", target));
        let answer = answer.map_err(|error| failure(&error, ""))?;
        let page: Listing = match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map_err(|_| failure(&Error::Strange("a list of groups"), ""))?,
            _ => return Err(failure(&Error::Refused(answer.problem()), "groups")),
        };
        if page.groups.is_empty() {
            break;
        }
        all.extend(page.groups);
    }
    let output = flags.reach.output();
    if output.is_json() {
        let rows: Vec<Value> = all
            .iter()
            .map(|g| {
                json!({"name": g.name, "version": g.version, "active": g.active,
                    "inactive": g.inactive})
            })
            .collect();
        return output.either(|| Value::Array(rows), "");
    }
    let mut table = Table::new(&["GROUP", "VERSION", "ACTIVE", "INACTIVE"]);
    for group in all {
        let numbers = [group.version, group.active, group.inactive];
        let cells = numbers.map(|number| number.to_string());
        table.row(std::iter::once(group.name).chain(cells));
    }
    output.table("", &table)
}

/// The longest config in a cell.
const CELL_CHARS_MAX: usize = 60;
/// The most names in the line of a snapshot.
const NAMES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_in_a_cell_is_short() {
        assert_eq!(brief(&Value::Null), "");
        assert_eq!(brief(&json!({"port": 1})), "{\"port\":1}");
        let long = brief(&json!("é".repeat(500)));
        assert_eq!(long.chars().count(), CELL_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_snapshot_is_one_line_however_many_there_are() {
        let of = |count: usize| {
            let members: Vec<Value> = (0..count).map(|n| json!({format!("m{n}"): null})).collect();
            let json = json!({"config": null, "endpoints": [], "active_members": members,
                "inactive_members": []});
            let document = Document::new(GroupVersion(1), json.to_string().into_bytes());
            snapshot(&document.unwrap())
        };
        assert_eq!(of(0), "0 active, 0 inactive");
        assert_eq!(of(2), "2 active, 0 inactive: m0 m1");
        assert!(of(11).ends_with("m9 …"), "{}", of(11));
    }
}
