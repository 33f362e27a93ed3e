//! Load generator and verifier for systole: sessions by the million, every answer checked.
//!
//! Shares no code with the server, so that a fault of its codec cannot hide in ours.

mod batch;
mod churn;
mod cli;
mod client;
mod clock;
mod commands;
mod endpoint;
mod load;
mod names;
mod net;
mod plan;
mod process;
mod recorder;
mod reply;
mod report;
mod rivals;
mod run;
mod schedule;
mod stalls;
mod standing;
mod verify;
mod watch;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Beat(flags) => commands::beat::beat(&flags),
        Command::Expire(flags) => commands::beat::expire(&flags),
        Command::Join(flags) => commands::join::join(&flags),
        Command::Demo(flags) => commands::demo::demo(&flags),
        Command::Memory(flags) => commands::memory::memory(&flags),
        Command::Restart(flags) => commands::restart::restart(&flags),
        Command::Idle(flags) => commands::idle::idle(&flags),
        Command::Watch(flags) => commands::watch::watch(&flags),
        Command::Failover(flags) => commands::failover::failover(&flags),
        Command::Bench(flags) => commands::bench::bench(&flags),
        Command::Growth(flags) => commands::growth::growth(&flags),
        Command::Soak(flags) => commands::soak::soak(&flags),
        Command::Overload(flags) => commands::overload::overload(&flags),
        Command::Compare(flags) => commands::compare::compare(&flags),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("loadgen: {why:#}");
            ExitCode::from(2)
        }
    }
}
