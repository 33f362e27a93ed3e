//! The one clock: suspend-inclusive and monotonic, read here and nowhere else.
//!
//! `CLOCK_BOOTTIME` goes on while the machine sleeps, so a server that wakes from a suspend
//! sees that its leases have lapsed. `CLOCK_MONOTONIC` would hide the sleep from it.

use rustix::time::{ClockId, clock_gettime};

use crate::time::Millis;

/// Nanoseconds since the machine booted, suspends included.
#[must_use]
pub fn now_ns() -> u64 {
    let at = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(at.tv_sec).expect("the boot clock starts at zero");
    let nanos = u64::try_from(at.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1_000_000_000 + nanos
}

/// Milliseconds since the machine booted, rounded down.
#[must_use]
pub fn now() -> Millis {
    Millis(now_ns() / 1_000_000)
}

/// Seconds since 1970 by the wall clock: for the birth of an ensemble, never for a deadline.
#[must_use]
pub fn wall_s() -> u32 {
    let at = clock_gettime(ClockId::Realtime);
    u32::try_from(at.tv_sec).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_step_back() {
        let first = now_ns();
        assert!(now_ns() >= first);
        assert!(now().0 >= first / 1_000_000);
        assert!(wall_s() > 1_700_000_000, "later than 2023");
    }
}
