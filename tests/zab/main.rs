//! Zab, told step by step: a few real peers on wires and disks that a script moves.
//!
//! What happens in other orders, with losses, crashes and slow disks, is the simulator's.

mod elections;
mod golden;
mod scenarios;
