//! The clock of a client, and what is random about it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::time::Millis;

/// Milliseconds since the machine booted, time in suspension included: while a laptop sleeps,
/// promises lapse.
pub(super) fn now() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    // The clock starts at zero and runs forward.
    Millis(now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000)
}

/// Blocks this thread until `until`.
pub(super) fn pause(until: Millis) {
    loop {
        let left = until.since(now());
        if left == Millis(0) {
            return;
        }
        thread::park_timeout(Duration::from_millis(left.0));
    }
}

/// A number that differs from one process, and from one call, to the next.
pub(super) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
