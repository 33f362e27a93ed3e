//! A replicated map over Zab, without sessions: `cargo run --example replicated_map`.
//!
//! `map.rs` is the application, and all that a user of the layer writes. `ensemble.rs` runs three
//! servers of it in this process, on real logs; `tour.rs` uses them, kills one, and goes on.

mod ensemble;
mod map;
mod tour;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    tour::tour(dir.path(), |line| println!("{line}"))
}
