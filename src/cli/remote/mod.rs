//! The commands that talk to running servers.
//!
//! Each prints what a person reads, and with `--json` what a program does: one JSON value, or
//! one a line where there is no end. What was asked for goes to stdout, all else to stderr.

mod group;
mod keep;
mod member;
mod output;
mod status;
mod table;

use std::io::Read;
use std::path::Path;

use clap::{Args, Subcommand};

use self::output::Output;
use super::Failure;
use crate::client::{Client, Error, Group};
use crate::config::duration;
use crate::time::Millis;

/// Where the servers are, and how answers are shown.
#[derive(Args, Clone, Debug)]
pub(super) struct Reach {
    /// A server, as HOST:PORT; may be given several times, and the next is asked when one fails
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SYSTOLE_ENDPOINT",
        value_delimiter = ',',
        default_value = "127.0.0.1:8640",
        global = true
    )]
    endpoint: Vec<String>,
    /// How long to go on while servers say that they cannot at present
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "5s", global = true)]
    command_timeout: Millis,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

/// The commands themselves.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Joins a group, and with --keep stays in it until Ctrl-C or SIGTERM, then leaves.
    Join(member::JoinFlags),
    /// Beats once for each member; - reads them from standard input, one a line.
    Beat(member::BeatFlags),
    /// Ends a member's session.
    Leave(member::LeaveFlags),
    /// Shows a group and its members.
    Get(group::GetFlags),
    /// Shows what happens in a group, as it happens.
    Watch(group::WatchFlags),
    /// Reads and writes the config of a group or a member.
    #[command(subcommand_required = true, arg_required_else_help = false)]
    Config {
        #[command(subcommand)]
        command: group::ConfigCommand,
    },
    /// Lists all groups.
    Groups(group::GroupsFlags),
    /// Shows how each server is.
    Status(status::Flags),
}

/// Runs one of them.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Join(flags) => member::join(flags),
        Command::Beat(flags) => member::beat(flags),
        Command::Leave(flags) => member::leave(flags),
        Command::Get(flags) => group::get(flags),
        Command::Watch(flags) => group::watch(flags),
        Command::Config { command } => group::config(command),
        Command::Groups(flags) => group::groups(flags),
        Command::Status(flags) => status::run(flags),
    }
}

impl Reach {
    fn client(&self) -> Result<Client, Failure> {
        let named = self.endpoint.iter().filter(|endpoint| !endpoint.is_empty());
        let client = Client::new(named).map_err(|error| failure(&error, ""))?;
        Ok(client.with_patience(self.command_timeout))
    }

    fn group(&self, name: &str) -> Result<Group, Failure> {
        let group = self.client()?.group(name);
        group.map_err(|error| failure(&error, name))
    }

    fn output(&self) -> Output {
        Output::new(self.json)
    }
}

/// A member, as `GROUP/MEMBER`: names have no slash in them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    group: String,
    member: String,
}

impl Place {
    fn read(text: &str) -> Result<Place, String> {
        let parts = text.split_once('/');
        let (group, member) = parts
            .filter(|(group, member)| !group.is_empty() && !member.is_empty())
            .filter(|(_, member)| !member.contains('/'))
            .ok_or("a member is named as GROUP/MEMBER")?;
        Ok(Place {
            group: group.to_owned(),
            member: member.to_owned(),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.group, self.member)
    }
}

/// A group, as `GROUP`, or a member of it, as `GROUP/MEMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    group: String,
    member: Option<String>,
}

impl Target {
    fn read(text: &str) -> Result<Target, String> {
        if !text.contains('/') {
            let (group, member) = (group_name(text)?, None);
            return Ok(Target { group, member });
        }
        let Place { group, member } = Place::read(text)?;
        let member = Some(member);
        Ok(Target { group, member })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.group)?;
        match &self.member {
            Some(member) => write!(f, "/{member}"),
            None => Ok(()),
        }
    }
}

fn group_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') {
        return Err("a group's name is wanted, without a slash".to_owned());
    }
    Ok(text.to_owned())
}

/// A duration as the servers take it: a number alone is seconds.
fn seconds(text: &str) -> Result<Millis, String> {
    let bare = text.ends_with(|c: char| c.is_ascii_digit());
    let text = if bare {
        format!("{text}s")
    } else {
        text.to_owned()
    };
    duration(&text)
}

/// What a file holds; `-` is standard input.
fn contents(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut bytes).map(drop),
        false => std::fs::read(path).map(|read| bytes = read),
    };
    match read {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Failure::usage(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

/// How a command ends that the client's error has ended; `about` is what it was about.
fn failure(error: &Error, about: &str) -> Failure {
    let sentence = match (error, about) {
        (Error::Refused(problem), about) if !about.is_empty() => format!("{about}: {problem}"),
        _ => error.to_string(),
    };
    let code = match error {
        Error::NoEndpoint | Error::BadEndpoint(_) | Error::BadName(_) => super::USAGE,
        Error::NoThread(_) => super::FATAL,
        Error::Unreachable { .. } | Error::Unavailable { .. } | Error::Strange(_) => {
            super::UNAVAILABLE
        }
        Error::Refused(problem) => refused_code(problem.status),
    };
    Failure { sentence, code }
}

/// The exit code for a refusal with this status.
fn refused_code(status: u16) -> u8 {
    match status {
        404 | 410 => super::NOT_FOUND,
        _ => super::REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Problem;

    #[test]
    fn members_and_groups_are_told_apart_by_the_slash() {
        let place = Place::read("db/db1").unwrap();
        assert_eq!((&*place.group, &*place.member), ("db", "db1"));
        for text in ["db", "/db1", "db/", "a/b/c", ""] {
            assert!(Place::read(text).is_err(), "{text:?}");
        }
        assert_eq!(Target::read("db").unwrap().member, None);
        assert_eq!(Target::read("db/db1").unwrap().to_string(), "db/db1");
        for text in ["", "/", "db/", "a/b/c"] {
            assert!(Target::read(text).is_err(), "{text:?}");
        }
        assert!(group_name("db/db1").is_err());
    }

    #[test]
    fn a_duration_without_a_unit_is_in_seconds() {
        assert_eq!(seconds("20"), Ok(Millis(20_000)));
        assert_eq!(seconds("0.5"), Ok(Millis(500)));
        assert_eq!(seconds("500ms"), Ok(Millis(500)));
        assert!(seconds("soon").is_err());
    }

    #[test]
    fn each_error_has_its_exit_code_and_a_refusal_says_what_it_is_about() {
        let refused = |status| {
            let problem = Problem {
                status,
                title: "No".to_owned(),
                code: "no".to_owned(),
                ..Problem::default()
            };
            failure(&Error::Refused(problem), "db/db1")
        };
        assert_eq!(refused(404).sentence, "db/db1: No (404 no)");
        let codes = [404, 410, 409, 412, 422].map(|status| refused(status).code);
        assert_eq!(codes, [4, 4, 5, 5, 5]);
        let unreachable = Error::Unreachable {
            endpoint: "a:1".to_owned(),
            why: "refused".to_owned(),
        };
        assert_eq!(failure(&unreachable, "x").code, 3);
        assert_eq!(failure(&Error::NoEndpoint, "").code, 2);
    }
}
