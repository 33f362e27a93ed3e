//! The command line.

use crate::commands::ensemble::How;
use crate::endpoint;
use crate::names::Names;
use crate::net::Target;
use crate::rivals::Who;
use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Load generator and verifier for systole.
///
/// Every answer is held against the contract while the load runs; the exit code is 1 if the
/// server broke it, 2 if the run could not be done. Only loopback addresses are loaded.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a server of its own and show joining, beating, dying and restarting, in a minute.
    Demo(Demo),
    /// Join sessions and beat for them, on a schedule or as fast as answers come.
    Beat(Beat),
    /// Join sessions and measure that alone.
    Join(Join),
    /// Let a mass of sessions expire at one moment and watch.
    Expire(Expire),
    /// Measure a server's memory per session.
    Memory(Memory),
    /// Measure a server's restart, and the longest stall of a beat while it runs.
    Restart(Restart),
    /// Measure idle connections: memory, and what they cost the others.
    Idle(Idle),
    /// Measure how soon listeners hear of changes, what that costs, and what it does to beats.
    Watch(Watch),
    /// Lose servers of an ensemble one after the other under load, and hold every promise.
    Failover(Failover),
    /// Measure one of the project's targets, side by side with the bound.
    Bench(Bench),
    /// Draw how costs and latencies grow with sessions, shards, joins under way and load.
    Growth(Growth),
    /// Ask for more than a server can give, or too slowly, and see that it harms nobody else.
    Overload(Overload),
    /// Beat for minutes below saturation, while snapshots and log segments come and go, and find
    /// out who made each stall.
    Soak(Soak),
    /// Give systole and what users would pick instead the same work, side by side.
    Compare(Compare),
}

/// Where to, and what the sessions are called.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// A server, HOST:PORT; repeat it to spread the connections over several.
    #[arg(long, default_value = "127.0.0.1:8640", value_parser = endpoint_text)]
    pub(crate) endpoint: Vec<SocketAddr>,
    /// Connections that carry the sessions.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: u32,
    /// Groups the sessions are spread over.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=99_999))]
    pub(crate) groups: u32,
    /// Length of the members' names.
    #[arg(long, default_value_t = 24)]
    pub(crate) name_bytes: usize,
    /// What the groups' names begin with.
    #[arg(long, default_value = "load")]
    pub(crate) prefix: String,
    /// Load threads, each with its share of sessions and connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Keep the load on this processor.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Connections opened in a second.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) connect_rate: u32,
    /// Joins under way at once.
    #[arg(long, default_value_t = 512)]
    pub(crate) joins_outstanding: u32,
    /// Ask for join answers without the group's document.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) prefer_minimal: bool,
    /// Where lots are drawn from.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Process id of the server, to read its CPU time.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Connections that end are opened again and are no fault.
    #[arg(long)]
    pub(crate) tolerate_disconnects: bool,
    /// Write a dated folder with the raw data below this one.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

impl Common {
    /// The target for the connections.
    pub(crate) fn target(&self) -> Target {
        Target {
            endpoints: self.endpoint.clone(),
            connects_per_s: self.connect_rate,
            reconnect: self.tolerate_disconnects,
        }
    }

    /// The names of a thread's sessions.
    pub(crate) fn names(&self, base: u32) -> Names {
        Names::new(&self.prefix, self.groups, self.name_bytes, self.seed, base)
            .minimal(self.prefer_minimal)
    }
}

/// How a beat is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// HEAD /G/M
    Head,
    /// GET /G/M
    Get,
    /// POST /-/heartbeats, by name
    BatchName,
    /// POST /-/heartbeats, by packed session id
    BatchId,
}

/// Flags of `beat`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Beat {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions in all.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) sessions: u32,
    /// Timeout of the sessions.
    #[arg(long, default_value = "10s", value_parser = length)]
    pub(crate) timeout: u64,
    /// Every session beats once in this time, whatever the answers (open loop).
    #[arg(long, default_value = "3s", value_parser = length)]
    pub(crate) interval: u64,
    /// Sessions due together on one connection; 0: what comes up in a millisecond.
    #[arg(long, default_value_t = 0)]
    pub(crate) burst: u32,
    /// Beat as fast as answers come instead (closed loop).
    #[arg(long)]
    pub(crate) closed: bool,
    /// Closed loop: requests under way on a connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: u32,
    /// How a beat is sent.
    #[arg(long, value_enum, default_value_t = ModeName::Head)]
    pub(crate) mode: ModeName,
    /// Members in a batch.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) batch: u32,
    /// Length of the measured time, after all have joined.
    #[arg(long, default_value = "30s", value_parser = length)]
    pub(crate) duration: u64,
    /// Beats before the measured time.
    #[arg(long, default_value = "1s", value_parser = length)]
    pub(crate) warmup: u64,
    /// Share of the members that stop beating without a word.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) die: f64,
    /// Share of the members that leave.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) leave: f64,
    /// Share of the members that leave and join again.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rejoin: f64,
    /// Dead members must be gone this long after their deadline.
    #[arg(long, default_value = "1s", value_parser = length)]
    pub(crate) late_bound: u64,
    /// Beats carry x-session-id.
    #[arg(long)]
    pub(crate) with_id: bool,
    /// The server answers 204 to everything and knows no sessions: neither join nor verify.
    #[arg(long)]
    pub(crate) bare: bool,
    /// All sessions must have joined in this time.
    #[arg(long, default_value = "120s", value_parser = length)]
    pub(crate) join_limit: u64,
}

/// Flags of `join`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Join {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions to join.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) sessions: u32,
    /// Timeout of the sessions; they are not beaten for.
    #[arg(long, default_value = "1h", value_parser = length)]
    pub(crate) timeout: u64,
    /// Joins under way at once.
    #[arg(long, default_value_t = 512)]
    pub(crate) outstanding: u32,
    /// All sessions must have joined in this time.
    #[arg(long, default_value = "120s", value_parser = length)]
    pub(crate) join_limit: u64,
}

/// Flags of `expire`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Expire {
    #[command(flatten)]
    pub(crate) beat: Beat,
    /// Share of the sessions that expire; the others beat on.
    #[arg(long, default_value_t = 0.9)]
    pub(crate) share: f64,
}

/// A server started for the run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Own {
    /// The systole binary; absent: the one built beside this program.
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Keep the server on this processor.
    #[arg(long)]
    pub(crate) server_cpu: Option<usize>,
    /// Keep the load on this processor.
    #[arg(long)]
    pub(crate) load_cpu: Option<usize>,
    /// Data directory of the server; absent: a temporary one.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// More arguments for the server, each given as `--server-arg=--shards=1`.
    #[arg(long)]
    pub(crate) server_arg: Vec<String>,
    /// Write a dated folder with the raw data below this one.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// Flags of `demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Sessions.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) sessions: u32,
}

/// Flags of `memory`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Memory {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Sessions.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) sessions: u32,
    /// Length of the members' names.
    #[arg(long, default_value_t = 24)]
    pub(crate) name_bytes: usize,
    /// Groups the sessions are spread over.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=99_999))]
    pub(crate) groups: u32,
}

/// Flags of `restart`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Sessions.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) sessions: u32,
    /// How often the server is killed and started again.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// Beats, leaves and rejoins before the first kill, in which the longest stall is sought.
    #[arg(long, default_value = "20s", value_parser = length)]
    pub(crate) duration: u64,
}

/// Flags of `idle`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Idle connections.
    #[arg(long, default_value_t = 15_000)]
    pub(crate) connections: u32,
    /// Connections opened in a second.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) connect_rate: u32,
    /// Pairs of measurements, without and with the idle connections.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Length of each.
    #[arg(long, default_value = "2s", value_parser = length)]
    pub(crate) duration: u64,
}

/// Flags of `watch`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Listeners, all on one group.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) watchers: u32,
    /// The group.
    #[arg(long, default_value = "watched")]
    pub(crate) group: String,
    /// Changes a second.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) rate: f64,
    /// Length of each measurement.
    #[arg(long, default_value = "5s", value_parser = length)]
    pub(crate) duration: u64,
    /// Members that fall silent, one after the other.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) kills: u32,
}

/// Flags of `failover`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Failover {
    /// The systole binary; absent: the one built beside this program.
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Servers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=9))]
    pub(crate) servers: u32,
    /// More arguments for each server, each given as `--server-arg=--shards=2`.
    #[arg(long)]
    pub(crate) server_arg: Vec<String>,
    /// Sessions in all; each beats every third of its timeout.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) sessions: u32,
    /// Their timeout.
    #[arg(long, default_value = "10s", value_parser = length)]
    pub(crate) timeout: u64,
    /// Connections that carry them.
    #[arg(long, default_value_t = 96)]
    pub(crate) connections: u32,
    /// How often a server is lost: the leader every other time, else the others in turn.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// What is done to it.
    #[arg(long, value_enum, default_value_t = How::Kill)]
    pub(crate) how: How,
    /// How long it is away.
    #[arg(long, default_value = "8s", value_parser = length)]
    pub(crate) down: u64,
    /// From its return to the next loss.
    #[arg(long, default_value = "5s", value_parser = length)]
    pub(crate) calm: u64,
    /// How long a client awaits an answer before it goes to another server.
    #[arg(long, default_value = "1s", value_parser = length)]
    pub(crate) patience: u64,
    /// Members at each server that stop beating in each round.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) doomed: u32,
    /// Clients go back to a server that has returned.
    #[arg(long)]
    pub(crate) go_home: bool,
    /// Keep the servers' data and logs in this directory, empty or absent so far.
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
    /// Write a dated folder with the raw data below this one.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// A target of the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetName {
    /// HEAD, 64 connections, one at a time
    P1,
    /// HEAD, 10,000 connections, one at a time
    P2,
    /// HEAD, 64 connections, 32 pipelined
    P3,
    /// Batches, by name and by packed id
    P4,
    /// Memory of a session
    P6,
    /// Durable joins
    P7,
    /// Durable joins, three servers
    P7Three,
    /// Lateness of expiry
    P8,
    /// Restart
    P9,
    /// The longest wait of a beat while snapshots are taken
    P9Stall,
    /// Beats over several shards
    P11,
    /// Idle connections
    P12,
    /// What sessions of followers cost their leader
    P13,
}

/// Flags of `bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bench {
    /// Which target.
    #[arg(value_enum)]
    pub(crate) target: TargetName,
    #[command(flatten)]
    pub(crate) own: Own,
    /// The bound server's binary; it is started with `--serve ADDR`.
    #[arg(long)]
    pub(crate) bound: Option<PathBuf>,
    /// Rounds; each measures the bound and systole once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Length of each measurement.
    #[arg(long, default_value = "2s", value_parser = length)]
    pub(crate) duration: u64,
    /// Sessions in the server's table.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) sessions: u32,
    /// Joins under way at once (P7).
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) outstanding: u32,
    /// Members in a batch (P4).
    #[arg(long, default_value_t = 1_000)]
    pub(crate) batch: u32,
}

/// A curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Curve {
    /// CPU of a beat against sessions
    Beat,
    /// CPU of a beat in a batch against sessions, each of which lives by its batches
    Batch,
    /// Memory of a session against sessions
    Memory,
    /// Time to restart against sessions
    Restart,
    /// Lateness of expiry against sessions that stop together
    Expiry,
    /// CPU of a beat against shards
    Shards,
    /// Throughput and latency of joins against joins under way
    Joins,
    /// Latency of beats against the rate at which they come
    Saturation,
}

/// Flags of `growth`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Growth {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Only these curves; absent: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Curve>,
    /// Numbers of sessions.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000", value_parser = clap::value_parser!(u32).range(1_000..=20_000_000))]
    pub(crate) sizes: Vec<u32>,
    /// Ten million sessions as well: some 3 GB of memory and 20 minutes more.
    #[arg(long)]
    pub(crate) ten_million: bool,
    /// Measurements of each point that is a cost, or a time to restart.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Length of each measurement of beats.
    #[arg(long, default_value = "2s", value_parser = length)]
    pub(crate) duration: u64,
}

/// A way to ask too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Excess {
    /// More joins than the server can make durable
    Joins,
    /// Clients that never end what they begin
    Slow,
}

/// Flags of `overload`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Overload {
    #[command(flatten)]
    pub(crate) own: Own,
    /// Only this; absent: both.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Excess>,
    /// Joins: sessions that beat once a second meanwhile.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    pub(crate) sessions: u32,
    /// Joins: how many times the capacity is asked for.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) factor: f64,
    /// Joins: how long; and how long the beats are measured before that.
    #[arg(long, default_value = "10s", value_parser = length)]
    pub(crate) duration: u64,
    /// Slow: connections in all.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub(crate) connections: u32,
    /// Slow: of them slow ones.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) slow: u32,
    /// Slow: pairs of measurements, without and with them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Slow: length of each; longer than the 10 s that the server gives a request, so that some
    /// are ended and come again.
    #[arg(long, default_value = "12s", value_parser = length)]
    pub(crate) each: u64,
}

/// Flags of `soak`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Soak {
    #[command(flatten)]
    pub(crate) own: Own,
    /// A server that runs already, instead of one of our own; --server-cpu says on which
    /// processor alone, without which the witnesses see less and more counts as the server's.
    #[arg(long, value_parser = endpoint_text, requires = "pid")]
    pub(crate) endpoint: Option<SocketAddr>,
    /// Its process id.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Length of the soak.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) minutes: f64,
    /// What is offered, as a share of what the server can take at most.
    #[arg(long, default_value_t = 0.7)]
    pub(crate) saturation: f64,
    /// Sessions that beat.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(64..=10_000_000))]
    pub(crate) sessions: u32,
    /// Requests under way on a connection where saturation is sought, and in a burst afterwards.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub(crate) pipeline: u32,
    /// How long saturation is sought.
    #[arg(long, default_value = "10s", value_parser = length)]
    pub(crate) ramp: u64,
    /// Members that join in a second; as many leave. Their configs are as long as it takes to
    /// roll the log.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) churn: u32,
    /// Snapshots and log segments that must begin, of each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rolls: u32,
}

/// A kind of work that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkName {
    /// What a beat costs
    Heartbeat,
    /// What a durable creation costs
    Create,
    /// How late sessions that stop are seen to go
    Expiry,
    /// What a session occupies
    Memory,
}

/// Flags of `compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Compare {
    #[command(flatten)]
    pub(crate) own: Own,
    /// The bound server's binary, as `cargo bench --bench bound --no-run` builds it.
    #[arg(long)]
    pub(crate) bound: Option<PathBuf>,
    /// Only these servers; absent: all that are installed.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Who>,
    /// Only this work; absent: all of it.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) work: Vec<WorkName>,
    /// Rounds; each gives every server the same work, in an order that changes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Length of each measurement of beats.
    #[arg(long, default_value = "2s", value_parser = length)]
    pub(crate) duration: u64,
    /// Sessions that are beaten for.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(64..=10_000_000))]
    pub(crate) sessions: u32,
    /// Connections of the crowded measurement of beats; at most as many as there are sessions.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(64..=20_000))]
    pub(crate) crowd: u32,
    /// Sessions created in a round.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(512..=20_000))]
    pub(crate) creates: u32,
    /// Sessions that stop at once.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub(crate) mass: u32,
    /// Their timeout, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(5..=40))]
    pub(crate) timeout: u32,
    /// Sessions held while memory is read.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub(crate) held: u32,
}

/// Reads `20`, `0.5`, `500ms`, `2m`, `1h` as nanoseconds.
pub(crate) fn length(text: &str) -> Result<u64> {
    let split = text.find(|c: char| c != '.' && !c.is_ascii_digit());
    let (digits, unit) = text.split_at(split.unwrap_or(text.len()));
    let scale = match unit {
        "" | "s" => 1e9,
        "us" => 1e3,
        "ms" => 1e6,
        "m" => 60e9,
        "h" => 3_600e9,
        _ => {
            return Err(anyhow!(
                "`{unit}` is no unit of time: use us, ms, s, m or h"
            ));
        }
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| anyhow!("`{text}` is no length of time"))?;
    let ns = (number * scale).round();
    if ns > LENGTH_NS_MAX {
        return Err(anyhow!(
            "`{text}` is longer than 24 h: every run is bounded"
        ));
    }
    Ok(ns as u64)
}

fn endpoint_text(text: &str) -> Result<SocketAddr, String> {
    endpoint::parse(text).map_err(|e| format!("{e:#}"))
}

/// No length of time is more than a day.
const LENGTH_NS_MAX: f64 = 86_400e9;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time_take_the_units_of_the_contract() {
        let read = |t| length(t).unwrap();
        assert_eq!(read("20"), 20_000_000_000);
        assert_eq!(read("0.5"), 500_000_000);
        assert_eq!(read("500ms"), 500_000_000);
        assert_eq!(read("2m"), 120_000_000_000);
        assert_eq!(read("24h"), 86_400_000_000_000);
        for bad in ["", "s", "1 s", "-1", "1d", "25h", "1.2.3"] {
            assert!(length(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_endpoint_elsewhere_is_refused_by_the_command_line() {
        let args = ["loadgen", "join", "--endpoint", "192.0.2.7:80"];
        let said = Cli::try_parse_from(args).unwrap_err().to_string();
        assert!(said.contains("not this machine"), "{said}");
    }
}
