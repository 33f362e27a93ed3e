//! systole: who in the fleet is alive.
//!
//! The map is in ARCHITECTURE.md; the order of the modules here is the order of the layers,
//! lowest first, and `tests/layering.rs` holds every module to it.

pub mod time;
pub mod types;

pub mod config;

pub mod server;

pub mod cli;
