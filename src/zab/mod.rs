//! Zab, the atomic broadcast: sans I/O, over payloads it does not look into.
//!
//! A [`Peer`] is one server's part. Inputs go in through methods, and one [`Ready`] comes out
//! with everything that is to be written, sent and delivered, in an order that its fields
//! state. A durable write is never assumed: the caller reports it with `on_persisted`, and only
//! then does the peer say or do what rests on it.
//!
//! The phases, one file each:
//!
//! | phase | file |
//! |---|---|
//! | 0 election | `election` |
//! | 1 discovery | `discovery` |
//! | 2 synchronization | `sync` |
//! | 3 broadcast | `broadcast` |
//!
//! `peer` moves between them; `leader` and `follower` hold the state that the phases share;
//! `core` holds what outlives every role, `history` the log as the core knows it; `quorum` is
//! where servers are counted.
//!
//! [`app`] is the way in for an application: it stands on a [`Peer`] and hides it.
//!
//! Source: Junqueira, Reed, Serafini, "Zab: high-performance broadcast for primary-backup
//! systems" (DSN 2011).

pub mod app;
mod broadcast;
mod core;
mod discovery;
mod election;
mod follower;
mod history;
mod leader;
mod link;
mod message;
mod peer;
mod plant;
mod quorum;
mod ready;
mod settings;
mod sync;
#[cfg(test)]
pub(crate) mod tests;

pub use message::{Body, Envelope, Message, Notification, Stance, Summary, Tenure, Vote};
pub use peer::{Peer, Phase, ProposeError, Why};
pub use plant::{Plant, Plants};
pub use ready::{
    Barrier, Entry, Fault, Persisted, Piece, Read, ReadWhat, Ready, Replay, Standing, Write,
};
pub use settings::{Boot, Ensemble, Limits, Settings, Timing, VOTERS_MAX};

use peer::Next;
