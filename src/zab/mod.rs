//! Zab, the atomic broadcast: sans I/O, over payloads it does not look into.
//!
//! A [`Peer`] is one server's part. Inputs go in through methods, and one [`Ready`] comes out
//! with everything that is to be written, sent and delivered, in an order that its fields
//! state. A durable write is never assumed: the caller reports it with one of the
//! `on_…_persisted` inputs, and only then does the peer acknowledge what the write holds.
//!
//! Source: Junqueira, Reed, Serafini, "Zab: high-performance broadcast for primary-backup
//! systems" (DSN 2011). Built so far: an ensemble of one, which passes through every phase
//! but needs no other server's word in any of them.

mod peer;
mod quorum;
mod ready;

pub use peer::{Boot, Peer, Phase, ProposeError};
pub use quorum::Quorum;
pub use ready::{Entry, Ready};
