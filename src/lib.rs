//! systole: who in the fleet is alive.
//!
//! The map is in ARCHITECTURE.md; the order of the modules here is the order of the layers,
//! lowest first, and `tests/layering.rs` holds every module to it.

pub mod cli;
pub mod client;
pub mod config;
pub mod forward;
pub mod group;
pub mod http;
pub mod json;
pub mod lease;
pub mod log;
pub mod mail;
pub mod metrics;
pub mod plant;
pub mod replica;
pub mod runtime;
pub mod server;
pub mod session;
pub mod shard;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod time;
pub mod types;
pub mod wire;
pub mod zab;
