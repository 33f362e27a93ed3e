//! `overload`: asks for more than a server can give, and sees whom that harms.
//!
//! Two claims are held: joins far beyond capacity are refused quickly and harm no session that
//! beats; and clients that never end what they begin harm nobody else. What does not hold
//! makes the exit code 1.

mod slow;
mod storm;

use super::conclude;
use crate::cli::{Excess, Overload};
use crate::clock;
use crate::commands::own::Home;
use crate::report::Report;
use anyhow::{Result, ensure};

/// Runs `overload`. True if every claim holds.
///
/// # Errors
/// If the flags contradict each other, the server cannot be started, or the load is too much
/// for the generator itself.
pub(crate) fn overload(flags: &Overload) -> Result<bool> {
    ensure!(
        flags.slow < flags.connections,
        "--slow is a part of --connections"
    );
    ensure!(
        (1.0..=100.0).contains(&flags.factor),
        "--factor lies between 1 and 100"
    );
    let mut flags = flags.clone();
    flags.own.server_cpu = flags.own.server_cpu.or(Some(0));
    flags.own.load_cpu = flags.own.load_cpu.or(Some(1));
    let home = Home::new(&flags.own)?;
    let mut report = Report::new("overload", clock::wall(), &home.describe());
    for (name, part) in [
        (Excess::Joins, storm::joins as fn(&_, &_, &mut _) -> _),
        (Excess::Slow, slow::slow),
    ] {
        if flags.only.is_empty() || flags.only.contains(&name) {
            part(&flags, &home, &mut report)?;
        }
    }
    conclude(&report, flags.own.out.as_deref())
}
