//! `systole serve`: gathers the settings, sets up logging, runs the server.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::config::{KEYS, LogLevel, Settings, Sources, TUNING_KEYS, env_name};
use crate::server;

/// The flags of `serve`, as text: [`Settings`] reads flag, variable and file alike.
#[derive(Args)]
pub(super) struct Flags {
    /// This server's number in the ensemble [default: 1]
    #[arg(long, value_name = "N")]
    id: Option<String>,
    /// Where clients connect; port 0 takes a free one [default: 127.0.0.1:8640]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// What clients are told as this server's endpoint [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where the other servers connect [default: this server's address in the ensemble]
    #[arg(long, value_name = "ADDR")]
    peer_listen: Option<String>,
    /// All servers, the same list at each, as 1=HOST:PEERPORT,2=… [default: this one alone]
    #[arg(long, value_name = "LIST")]
    ensemble: Option<String>,
    /// Directory of log and snapshots; made if missing [default: ./systole-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Shards, each a thread with connections and sessions of its own; auto is one less than
    /// there are cores [default: auto]
    #[arg(long, value_name = "N|auto")]
    shards: Option<String>,
    /// Bind each thread to a core, or leave that to the scheduler [default: auto]
    #[arg(long, value_name = "auto|off")]
    pin: Option<String>,
    /// Timeout of a session whose join names none [default: 10s]
    #[arg(long, value_name = "DURATION")]
    default_timeout: Option<String>,
    /// Shortest timeout a join may ask for [default: 100ms]
    #[arg(long, value_name = "DURATION")]
    min_timeout: Option<String>,
    /// Longest timeout a join may ask for [default: 24h]
    #[arg(long, value_name = "DURATION")]
    max_timeout: Option<String>,
    /// How long a server may answer beats after it last heard the leader [default: 3s]
    #[arg(long, value_name = "DURATION")]
    lease: Option<String>,
    /// Least severe messages to write: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// TOML file with any of these settings; a flag or a SYSTOLE_… variable beats it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Flags {
    /// The value of the flag named `key`, if it was given.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        let value = match key {
            "id" => &self.id,
            "listen" => &self.listen,
            "advertise" => &self.advertise,
            "peer-listen" => &self.peer_listen,
            "ensemble" => &self.ensemble,
            "data-dir" => &self.data_dir,
            "shards" => &self.shards,
            "pin" => &self.pin,
            "default-timeout" => &self.default_timeout,
            "min-timeout" => &self.min_timeout,
            "max-timeout" => &self.max_timeout,
            "lease" => &self.lease,
            "log-level" => &self.log_level,
            _ => &None,
        };
        value.clone()
    }
}

/// Runs a server until it is told to stop.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let settings = settings(flags)?;
    log_to_stderr(settings.log_level);
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    server::run(settings).map_err(Failure::fatal)
}

fn settings(flags: &Flags) -> Result<Settings, Failure> {
    // Text that is not UTF-8 must not be mended silently: a directory of another name would
    // be made.
    for (key, _) in KEYS.into_iter().chain(TUNING_KEYS) {
        let name = env_name(key);
        if std::env::var_os(&name).is_some_and(|value| value.to_str().is_none()) {
            return Err(Failure::usage(format!("{name} is not UTF-8")));
        }
    }
    let path = flags
        .config
        .clone()
        .or_else(|| std::env::var_os("SYSTOLE_CONFIG").map(PathBuf::from))
        .filter(|path| !path.as_os_str().is_empty());
    let file = match path {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(&path).map_err(|error| {
                let path = path.display();
                Failure::usage(format!("cannot read the configuration {path}: {error}"))
            })?;
            Some((path.display().to_string(), text))
        }
    };
    let sources = Sources {
        flags: &|key| flags.get(key),
        env: &|name| std::env::var(name).ok(),
        file: file.as_ref().map(|(name, text)| (&**name, &**text)),
    };
    Settings::from_sources(&sources).map_err(Failure::usage)
}

fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    // Only a second subscriber in one process makes this fail, and then the first serves.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(level >= tracing::Level::DEBUG)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn every_setting_has_a_flag_and_every_flag_is_read() {
        for (key, _) in KEYS {
            let line = Line::try_parse_from(["systole", &format!("--{key}"), "x"]).unwrap();
            assert_eq!(line.flags.get(key).as_deref(), Some("x"), "{key}");
        }
        let command = Line::command();
        let mut flags: Vec<&str> = command
            .get_arguments()
            .filter_map(|a| a.get_long())
            .collect();
        flags.retain(|flag| !["config", "help"].contains(flag));
        assert_eq!(flags, KEYS.map(|(key, _)| key));
    }

    #[test]
    fn the_help_states_the_defaults_that_the_settings_have() {
        let command = Line::command();
        for (key, default) in KEYS {
            let argument = command.get_arguments().find(|a| a.get_long() == Some(key));
            let help = argument.unwrap().get_help().unwrap().to_string();
            if let Some(default) = default {
                assert!(help.contains(&format!("[default: {default}]")), "{help}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_a_usage_error_that_names_it() {
        let line = Line::try_parse_from(["systole", "--config", "/nowhere/s.toml"]).unwrap();
        let failure = settings(&line.flags).map(|_| ()).unwrap_err();
        assert_eq!(failure.code, super::super::USAGE);
        assert!(
            failure.sentence.contains("/nowhere/s.toml"),
            "{}",
            failure.sentence
        );
    }
}
