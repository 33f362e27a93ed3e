//! The simulated world: what the server runs on, with every fault on command and every outcome
//! a function of a seed.
//!
//! ```text
//! run ─▶ world ─┬▶ host      a real peer on a real log, in pieces
//!               ├▶ net       connections and their faults
//!               ├▶ clock     rate drift
//!               ├▶ disk      power loss, tearing, lies
//!               ├▶ faults    what goes wrong, and when
//!               └▶ judge     oracle (what clients were promised), invariants, fingerprint
//! ```
//!
//! A [`profile`] says what kind of world a seed makes; [`plants`] are faults put in on purpose,
//! which the judge must find; [`probes`] count the rare things that were reached.

pub mod app;
pub mod clock;
pub mod disk;
pub mod failover;
pub mod faults;
pub mod fleet;
pub mod host;
pub mod invariants;
pub mod judge;
pub mod links;
pub mod model;
pub mod net;
pub mod observe;
pub mod oracle;
pub mod plants;
pub mod probes;
pub mod profile;
pub mod queue;
pub mod random;
pub mod recovery;
pub mod run;
pub mod scenarios;
pub mod script;
pub mod stage;
pub mod stories;
pub mod trace;
pub mod world;

#[cfg(test)]
mod tests;
