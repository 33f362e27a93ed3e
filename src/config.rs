//! Validated settings: what `systole serve` was told, and every limit.
//!
//! A setting is looked for as a flag, in the environment, in the `--config` file and at last
//! among the defaults; the first found wins. All four go through the same readers and the
//! same checks, so a wrong value is named with the place it came from.
//!
//! This module reads no file, no environment and no command line: they come in as text.

mod file;
mod limits;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::time::{Millis, TICK_MS};
use crate::types::ServerId;

pub use limits::Limits;
pub use value::duration;

/// What a server runs with. Every field is valid by itself and with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This server's number in the ensemble; 1 or more.
    pub id: ServerId,
    /// Where clients connect. Port 0 lets the kernel choose; the ready line tells.
    pub listen: SocketAddr,
    /// What `endpoints` shows, `HOST:PORT`; `None` shows the address really bound.
    pub advertise: Option<String>,
    /// Where the other servers connect; `None` is the address that `ensemble` names for this
    /// server. Not opened while the ensemble is one server.
    pub peer_listen: Option<SocketAddr>,
    /// Number and peer address of every server, this one included; empty for a server alone.
    /// Numbers and addresses are unique, and there are at most [`SERVERS_MAX`].
    pub ensemble: Vec<(ServerId, String)>,
    /// Directory of log, snapshots and epochs; made if it is missing.
    pub data_dir: PathBuf,
    /// How many shard executors run.
    pub shards: Shards,
    /// Whether executors are bound to cores.
    pub pin: Pin,
    /// Timeout of a session whose join names none; within the two bounds below.
    pub default_timeout: Millis,
    /// Shortest timeout a join may ask for.
    pub min_timeout: Millis,
    /// Longest timeout a join may ask for; at most [`TIMEOUT_MAX`].
    pub max_timeout: Millis,
    /// How long an owner may answer beats after it last heard the leader. It has no effect
    /// while the ensemble is one server.
    pub lease: Millis,
    /// The least severe messages that are written to stderr.
    pub log_level: LogLevel,
    /// The maximum of everything; not settable from outside.
    pub limits: Limits,
}

impl Settings {
    /// Merges the sources, reads each value and checks the relations between them.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order of [`KEYS`], the file's own errors first.
    pub fn from_sources(sources: &Sources<'_>) -> Result<Settings, ConfigError> {
        let file = match sources.file {
            Some((name, text)) => file::parse(name, text)?,
            None => file::Entries::default(),
        };
        let find = |key| Given::find(sources, &file, key);
        let settings = Settings {
            id: find("id").read(value::server_id)?,
            listen: find("listen").read(value::address)?,
            advertise: find("advertise").read_if_given(value::host_port)?,
            peer_listen: find("peer-listen").read_if_given(value::address)?,
            ensemble: find("ensemble")
                .read_if_given(value::ensemble)?
                .unwrap_or_default(),
            data_dir: find("data-dir").read(data_dir)?,
            shards: find("shards").read(Shards::read)?,
            pin: find("pin").read(Pin::read)?,
            default_timeout: find("default-timeout").read(value::duration)?,
            min_timeout: find("min-timeout").read(value::duration)?,
            max_timeout: find("max-timeout").read(value::duration)?,
            lease: find("lease").read(value::duration)?,
            log_level: find("log-level").read(LogLevel::read)?,
            limits: Limits::DEFAULT,
        };
        settings.check_timeouts()?;
        settings.check_servers()?;
        Ok(settings)
    }

    /// Things that are allowed and probably not meant, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.advertise.is_none() && self.listen.ip().is_unspecified() {
            warnings.push(format!(
                "clients are told the endpoint {}, which they cannot connect to: \
                 give --advertise HOST:PORT",
                self.listen
            ));
        }
        let servers = self.ensemble.len();
        if servers > 0 && servers.is_multiple_of(2) {
            warnings.push(format!(
                "an ensemble of {servers} servers serves with no more of them lost than one of \
                 {}: an odd number is better",
                servers - 1
            ));
        }
        warnings
    }

    fn check_timeouts(&self) -> Result<(), ConfigError> {
        let Settings {
            default_timeout: default,
            min_timeout: min,
            max_timeout: max,
            lease,
            ..
        } = *self;
        let unless =
            |holds: bool, left: &str, l: Millis, relation: &str, right: &str, r: Millis| {
                let sentence = || {
                    let (l, r) = (value::duration_text(l), value::duration_text(r));
                    ConfigError::Relation(format!("--{left} is {l}, but {relation} {right}, {r}"))
                };
                if holds { Ok(()) } else { Err(sentence()) }
            };
        let (least, most) = ("must be at least", "must be at most");
        let floor = "five ticks of the timing wheel";
        unless(
            min >= TIMEOUT_MIN,
            "min-timeout",
            min,
            least,
            floor,
            TIMEOUT_MIN,
        )?;
        unless(
            max <= TIMEOUT_MAX,
            "max-timeout",
            max,
            most,
            "a day",
            TIMEOUT_MAX,
        )?;
        unless(min <= max, "min-timeout", min, most, "--max-timeout", max)?;
        let name = "default-timeout";
        unless(min <= default, name, default, least, "--min-timeout", min)?;
        unless(default <= max, name, default, most, "--max-timeout", max)?;
        unless(
            lease >= LEASE_MIN,
            "lease",
            lease,
            least,
            "four renewals",
            LEASE_MIN,
        )?;
        unless(
            lease <= LEASE_MAX,
            "lease",
            lease,
            most,
            "a minute",
            LEASE_MAX,
        )
    }

    fn check_servers(&self) -> Result<(), ConfigError> {
        let wrong = |sentence: String| Err(ConfigError::Relation(sentence));
        let id = self.id;
        if self.own_peer_address().is_none() && !self.ensemble.is_empty() {
            let names: Vec<String> = self.ensemble.iter().map(|(id, _)| id.to_string()).collect();
            return wrong(match names.as_slice() {
                [only] => format!("--ensemble names server {only} alone, but --id is {id}"),
                _ => format!(
                    "--ensemble names the servers {}, but --id is {id}: it must be one of them",
                    names.join(", ")
                ),
            });
        }
        // An address that is a name is only known once it is looked up: binding it fails then.
        let named = self
            .own_peer_address()
            .and_then(|address| address.parse().ok());
        if let Some(peer_listen) = self.peer_listen.or(named)
            && self.listen == peer_listen
            && self.listen.port() != 0
        {
            return wrong(format!(
                "--listen and --peer-listen are both {}: clients and servers need a port each",
                self.listen
            ));
        }
        Ok(())
    }

    /// The address at which the other servers look for this one, if there are any.
    #[must_use]
    pub fn own_peer_address(&self) -> Option<&str> {
        let own = self.ensemble.iter().find(|(id, _)| *id == self.id);
        own.map(|(_, address)| address.as_str())
    }

    /// True if there is no other server.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.ensemble.len() <= 1
    }
}

/// Where settings come from, strongest first.
pub struct Sources<'a> {
    /// Value of a flag, by its name without the dashes.
    pub flags: &'a dyn Fn(&str) -> Option<String>,
    /// Value of an environment variable, by its full name; an empty one counts as absent.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Name and text of the `--config` file.
    pub file: Option<(&'a str, &'a str)>,
}

/// How many shard executors to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shards {
    /// One less than there are cores, and at least one: the core left over runs Zab.
    Auto,
    /// Exactly so many, 1 to [`SHARDS_MAX`].
    Count(u16),
}

impl Shards {
    /// The number of shards on a machine of `cores` cores.
    #[must_use]
    pub fn count(self, cores: usize) -> usize {
        match self {
            Shards::Auto => cores.saturating_sub(1).clamp(1, usize::from(SHARDS_MAX)),
            Shards::Count(count) => usize::from(count),
        }
    }

    fn read(text: &str) -> Result<Shards, String> {
        match (text, text.parse::<u16>()) {
            ("auto", _) => Ok(Shards::Auto),
            (_, Ok(count)) if (1..=SHARDS_MAX).contains(&count) => Ok(Shards::Count(count)),
            _ => Err(format!(
                "is no number of shards: write auto or a number from 1 to {SHARDS_MAX}"
            )),
        }
    }
}

/// Whether executors are bound to cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Bound where the machine has a core for each; else left to the scheduler, with a warning.
    Auto,
    /// Left to the scheduler.
    Off,
}

impl Pin {
    fn read(text: &str) -> Result<Pin, String> {
        match text {
            "auto" => Ok(Pin::Auto),
            "off" => Ok(Pin::Off),
            _ => Err("is neither auto nor off".to_owned()),
        }
    }
}

/// The least severe messages to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What ended the server or lost a connection to the disk.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And the few events of a server's life.
    Info,
    /// And each decision.
    Debug,
    /// And each step.
    Trace,
}

impl LogLevel {
    /// The level as it is written in a flag.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }

    fn read(text: &str) -> Result<LogLevel, String> {
        use LogLevel::{Debug, Error, Info, Trace, Warn};
        [Error, Warn, Info, Debug, Trace]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| "is not one of error, warn, info, debug, trace".to_owned())
    }
}

/// What is wrong with the settings, as a sentence for the person who wrote them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be read.
    #[error("{origin} {text:?} {why}")]
    Value {
        /// Where the value was found.
        origin: Origin,
        /// The value as given.
        text: String,
        /// The rest of the sentence.
        why: String,
    },
    /// Values that are sound alone and wrong together.
    #[error("{0}")]
    Relation(String),
    /// The file has a key that no setting has, or has one twice.
    #[error("{file}:{line}: {key:?} is {what}{hint}")]
    Key {
        /// The file's name, as given to `--config`.
        file: String,
        /// Line of the key, counted from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The rest of the sentence.
        what: &'static str,
        /// The key that was probably meant, as a question, or nothing.
        hint: String,
    },
    /// The file is not TOML.
    #[error("{file}:{line}: this is not TOML: {why}")]
    Syntax {
        /// The file's name, as given to `--config`.
        file: String,
        /// Line of the fault, counted from 1.
        line: usize,
        /// What the TOML parser says.
        why: String,
    },
}

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name.
    Flag(&'static str),
    /// The environment variable of this name.
    Env(String),
    /// This key of the file, on this line.
    File {
        /// The file's name.
        file: String,
        /// Counted from 1.
        line: usize,
        /// The setting's name.
        key: &'static str,
    },
    /// The default of the setting of this name.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(key) => write!(f, "--{key}"),
            Origin::Env(name) => write!(f, "{name}"),
            Origin::File { file, line, key } => write!(f, "{file}:{line}: {key}"),
            Origin::Default(key) => write!(f, "the default of --{key}"),
        }
    }
}

/// One value as found, before it is read.
struct Given {
    found: Option<(Origin, String)>,
}

impl Given {
    fn find(sources: &Sources<'_>, file: &file::Entries, key: &'static str) -> Given {
        let flag = || (sources.flags)(key).map(|text| (Origin::Flag(key), text));
        let env = || {
            let name = env_name(key);
            let text = (sources.env)(&name).filter(|text| !text.is_empty())?;
            Some((Origin::Env(name), text))
        };
        let default = || {
            let (_, text) = KEYS.iter().find(|(name, _)| *name == key)?;
            text.map(|text| (Origin::Default(key), text.to_owned()))
        };
        Given {
            found: flag()
                .or_else(env)
                .or_else(|| file.get(key))
                .or_else(default),
        }
    }

    fn read_if_given<T>(
        self,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((origin, text)) = self.found else {
            return Ok(None);
        };
        match read(&text) {
            Ok(value) => Ok(Some(value)),
            Err(why) => Err(ConfigError::Value { origin, text, why }),
        }
    }

    fn read<T>(self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        let value = self.read_if_given(read)?;
        Ok(value.expect("a setting that is not optional has a default in KEYS"))
    }
}

/// The environment variable of a setting: `data-dir` is `SYSTOLE_DATA_DIR`.
#[must_use]
pub fn env_name(key: &str) -> String {
    format!("SYSTOLE_{}", key.to_ascii_uppercase().replace('-', "_"))
}

fn data_dir(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is no directory".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// Every setting and its default; no default means that it may be absent.
pub const KEYS: [(&str, Option<&str>); 13] = [
    ("id", Some("1")),
    ("listen", Some("127.0.0.1:8640")),
    ("advertise", None),
    ("peer-listen", None),
    ("ensemble", None),
    ("data-dir", Some("./systole-data")),
    ("shards", Some("auto")),
    ("pin", Some("auto")),
    ("default-timeout", Some("10s")),
    ("min-timeout", Some("100ms")),
    ("max-timeout", Some("24h")),
    ("lease", Some("3s")),
    ("log-level", Some("info")),
];

/// The most servers of an ensemble. All of them vote, and each commit waits for half of them:
/// more would make it slower, not safer.
pub const SERVERS_MAX: usize = 31;

/// The most shards a server runs.
pub const SHARDS_MAX: u16 = 256;

/// The shortest `--min-timeout`. Below a few ticks the wheel's own grain would be a good part
/// of the timeout.
pub const TIMEOUT_MIN: Millis = Millis(5 * TICK_MS);

/// The longest `--max-timeout`. In milliseconds it fits the 32 bits that a session keeps.
pub const TIMEOUT_MAX: Millis = Millis::from_secs(24 * 3_600);
const _: () = assert!(TIMEOUT_MAX.0 <= u32::MAX as u64);

/// How often an owner renews its lease.
pub const LEASE_RENEW: Millis = Millis(250);

/// The shortest `--lease`: one that survives three lost renewals.
pub const LEASE_MIN: Millis = Millis(4 * LEASE_RENEW.0);

/// The longest `--lease`. An owner that is lost delays the expiry of its sessions by this.
pub const LEASE_MAX: Millis = Millis::from_secs(60);

#[cfg(test)]
mod tests;
