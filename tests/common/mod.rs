//! What the tests of the real server share: starting and killing it, a small HTTP client of
//! our own (a fault of the server's codec must not hide in the client's), and waiting for
//! something with a deadline instead of for some time.
//!
//! Nothing here waits without a deadline, and every deadline that passes fails with a
//! sentence on what was waited for.

// Each test program uses its own part of this.
#![allow(dead_code, unused_imports)]

mod client;
mod disk;
mod server;
mod wait;

pub(crate) use client::{Client, Lost, Response, request};
pub(crate) use disk::SmallDisk;
pub(crate) use server::{Ended, Server, Setup, program, run_to_end, run_within, systole};
pub(crate) use wait::{Deadline, now, poll};

/// A random seed from `SYSTOLE_SEED`, else from the process id; said aloud so that a failure
/// can be repeated.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SYSTOLE_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("SYSTOLE_SEED={seed}");
    seed
}

/// Random numbers that a seed repeats (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// A process that is not left behind.
pub(crate) struct Killed(pub(crate) std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says why a test did not test anything, and that this is no failure.
pub(crate) fn skipped(why: &str) {
    println!("SKIPPED: {why}");
}
