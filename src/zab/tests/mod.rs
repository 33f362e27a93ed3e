//! Tests of the whole: several peers in a small world.

pub(crate) mod disk;
mod elections;
mod failures;
mod hostile;
mod joining;
mod liveness;
mod paper;
mod peers;
mod phases;
pub(crate) mod world;
