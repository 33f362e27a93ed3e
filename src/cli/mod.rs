//! The `systole` command: flags to settings, settings to a server, and an exit code.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | it did what was asked, or was told to stop |
//! | 1 | the environment would not have it: port in use, disk full, damaged log |
//! | 2 | it was asked wrongly: a flag, a variable, the configuration file |
//! | 3 | no server could be reached, or none could answer at present |
//! | 4 | there is no such group, member, session or config |
//! | 5 | the servers refused: a conflict, a condition that does not hold, a value out of bounds |
//!
//! Whatever goes wrong is one line on stderr that says what and how to mend it.

mod dev;
mod log;
mod panic;
mod remote;
mod serve;
mod snapshot;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Runs the command that `args` spell, the program's name first, to its end.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    panic::install();
    let command_line = match CommandLine::try_parse_from(args) {
        Ok(command_line) => command_line,
        Err(error) if error.use_stderr() => return Failure::usage(one_line(&error)).report(),
        Err(help) => {
            // What was asked for: help or the version. If nobody reads it, nobody is missing.
            let _ = help.print();
            return ExitCode::from(DONE);
        }
    };
    let outcome = match command_line.command {
        None => serve::run(&command_line.serve),
        Some(Command::Serve(flags)) => serve::run(&flags),
        Some(Command::Dev(flags)) => dev::run(&flags),
        Some(Command::Log { command }) => log::run(&command),
        Some(Command::Snapshot { command }) => snapshot::run(&command),
        Some(Command::Completions { shell }) => completions(shell),
        Some(Command::Remote(command)) => remote::run(&command),
    };
    match outcome {
        Ok(()) => ExitCode::from(DONE),
        Err(failure) => failure.report(),
    }
}

/// Prints a script that completes the command line in a shell.
fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "systole", &mut script);
    // Whoever closes the pipe has what it wants.
    let _ = std::io::stdout().write_all(&script);
    Ok(())
}

/// What clap found wrong with the command line, its advice included and its layout not.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let useful = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty());
    let line = useful.collect::<Vec<_>>().join("; ").replace(":;", ":");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; --help shows what there is")
}

/// Calls `heard` at each SIGTERM and SIGINT, from a thread of its own, until it says that nobody
/// listens any more.
fn hear_signals(heard: impl Fn() -> bool + Send + 'static) -> Result<(), Failure> {
    let refused = |error| Failure::fatal(format!("cannot hear signals: {error}"));
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(refused)?;
    let hear = move || {
        let _ = signals.forever().all(|_| heard());
    };
    let thread = thread::Builder::new().name("signals".into()).spawn(hear);
    thread.map(drop).map_err(refused)
}

/// Why a command ended before its time.
struct Failure {
    /// What is said; empty if nothing is.
    sentence: String,
    code: u8,
}

impl Failure {
    /// The command was asked wrongly.
    fn usage(why: impl Display) -> Failure {
        Failure {
            sentence: why.to_string(),
            code: USAGE,
        }
    }

    /// The environment would not have it.
    fn fatal(why: impl Display) -> Failure {
        Failure {
            sentence: why.to_string(),
            code: FATAL,
        }
    }

    fn report(self) -> ExitCode {
        if self.sentence.is_empty() {
            return ExitCode::from(self.code);
        }
        // A closed stderr must not turn one error into another.
        let _ = writeln!(std::io::stderr(), "systole: {}", self.sentence);
        ExitCode::from(self.code)
    }
}

const DONE: u8 = 0;
const FATAL: u8 = 1;
const USAGE: u8 = 2;
const UNAVAILABLE: u8 = 3;
const NOT_FOUND: u8 = 4;
const REFUSED: u8 = 5;

/// What each exit code means, at the end of the help.
const EXIT_CODES: &str = "Exit codes:
  0  done, or told to stop
  1  the environment would not have it: port in use, disk full, damaged log
  2  asked wrongly
  3  no server could be reached, or none could answer at present
  4  no such group, member, session or config
  5  refused: a conflict, a condition that does not hold, a value out of bounds";

/// Heartbeats and group membership for a fleet, over plain HTTP.
///
/// Without a command, starts a server.
#[derive(Parser)]
#[command(
    name = "systole",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXIT_CODES
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a server.
    Serve(Box<serve::Flags>),
    /// Starts a whole ensemble of servers on this machine; Ctrl-C stops all.
    Dev(dev::Flags),
    #[command(flatten)]
    Remote(remote::Command),
    /// Looks into a data directory. No server may be running on it.
    #[command(subcommand_required = true, arg_required_else_help = false)]
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Backs up a data directory, and makes one of a backup.
    #[command(subcommand_required = true, arg_required_else_help = false)]
    Snapshot {
        #[command(subcommand)]
        command: snapshot::Command,
    },
    /// Prints a script that completes this command line in a shell.
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Subcommand)]
enum LogCommand {
    /// Prints every record and snapshot of the log, a line each.
    Dump {
        /// The data directory.
        dir: PathBuf,
    },
    /// Checks every byte of the log and says what is wrong and where.
    Verify {
        /// The data directory.
        dir: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        for args in [
            &["systole", "--id", "3"][..],
            &["systole", "serve", "--id", "3"],
        ] {
            let line = CommandLine::try_parse_from(args).unwrap();
            let flags = match line.command {
                Some(Command::Serve(flags)) => *flags,
                _ => line.serve,
            };
            assert_eq!(flags.get("id").as_deref(), Some("3"), "{args:?}");
        }
    }

    #[test]
    fn a_wrong_flag_is_one_line_with_the_right_one_in_it() {
        let error = CommandLine::try_parse_from(["systole", "--lisen", "x"])
            .err()
            .unwrap();
        assert_eq!(
            one_line(&error),
            "unexpected argument '--lisen' found; tip: a similar argument exists: '--listen'; \
             --help shows what there is"
        );
    }

    #[test]
    fn serve_flags_do_not_go_before_another_command() {
        let args = ["systole", "--id", "3", "log", "dump", "d"];
        assert!(CommandLine::try_parse_from(args).is_err());
    }
}
