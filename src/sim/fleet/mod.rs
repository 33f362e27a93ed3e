//! The session world: whole servers, and clients that join, beat and leave.
//!
//! Each server is the real [`Replica`](crate::replica::Replica), the real shards and the real log
//! on a simulated disk; clients speak HTTP to the shards, byte for byte. Clocks drift as far as
//! they may, servers pause, restart, lose their disks and each other. What must hold is judged by
//! what is true: the order of commits and real time, which no server knows.
//!
//! ```text
//! world ─┬▶ machine    a server with its disk and its clock, running or not
//!        │   └▶ server   the process: replica, shards, store, and the mail between them
//!        ├▶ stage      time, chance, the network, the requests under way
//!        ├▶ client     a member: what it asks, where, and how it takes the answers
//!        ├▶ faults     what goes wrong, and when
//!        ├▶ stories    worlds in which nothing is left to chance
//!        └▶ judge ─┬▶ ghost       the state after every commit
//!                  └▶ invariants  S1 to S9, one a file
//! ```

mod characters;
mod client;
mod faults;
mod ghost;
pub mod http;
mod invariants;
mod judge;
mod machine;
pub mod plants;
pub mod probes;
mod profile;
mod server;
mod stage;
mod store;
pub mod stories;
#[cfg(test)]
mod tests;
mod world;

pub use faults::Kind;
pub use judge::Violation;
pub use profile::Profile;
pub use world::{Fleet, Outcome};
