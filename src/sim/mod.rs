//! The simulated world, for tests: what the server runs on, with every fault on command and
//! every outcome a function of a seed.

pub mod disk;
pub mod invariants;
pub mod observe;
