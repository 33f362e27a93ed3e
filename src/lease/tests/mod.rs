//! The promise, line by line, and under a schedule that does its worst.

mod grantor;
mod owner;
mod schedule;
mod world;

use super::*;
use crate::types::{Epoch, Incarnation, ServerId, Zxid};

#[test]
fn a_grace_covers_a_slow_owner_and_a_reading_that_is_a_millisecond_old() {
    // 3,000 ms on a clock that loses a thousandth are 3,003.003 ms.
    assert_eq!(grace(LEASE), Millis(3_004 + 1));
    assert_eq!(grace(Millis(999)), Millis(1_000 + 1), "nothing to round");
    assert_eq!(grace(Millis(1_000)), Millis(1_002 + 1), "rounded up");
}

#[test]
fn the_wait_for_orphans_covers_timeout_and_lease_at_any_drift() {
    for (timeout, lease) in [(1, 1), (4_000, 3_000), (10_000, 999), (86_400_000, 60_000)] {
        let wait = orphan_wait(Millis(timeout), Millis(lease)).0 - 1;
        // W/(1+ρ) ≥ T + L/(1−ρ), in whole numbers; without the millisecond of the reading.
        let (wait, timeout, lease) = (u128::from(wait), u128::from(timeout), u128::from(lease));
        let waited = wait * 1_000 * 999;
        let promised = (timeout * 999 + lease * 1_000) * 1_001;
        assert!(waited >= promised, "timeout {timeout}, lease {lease}");
    }
    assert_eq!(orphan_wait(Millis(4_000), LEASE), Millis(7_005 + 8));
}

#[test]
fn an_owner_renews_twelve_times_in_a_lease() {
    assert_eq!(period(LEASE), Millis(250));
    assert_eq!(pause(LEASE), Millis(750));
}

fn at(counter: u64) -> Zxid {
    Zxid::new(Epoch(1), counter)
}
