//! Time as values: this module has no clock and never asks for one.
//!
//! [`Millis`] is both a length and a point on the server's suspend-inclusive monotonic
//! clock (milliseconds since the machine booted). [`Tick`] is the same clock in units of
//! the timing wheel.

use std::ops::Add;

/// Milliseconds: a duration, or a point on the monotonic clock, as the name of the field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// A whole number of seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Millis {
        Millis(seconds * 1_000)
    }

    /// How long after `earlier` this is; zero if it is not later.
    #[must_use]
    pub const fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// The tick this point lies in.
    #[must_use]
    pub const fn tick(self) -> Tick {
        Tick(self.0 / TICK_MS)
    }

    /// The first tick that begins at or after this point: where a deadline goes, since a
    /// deadline may be late by a tick and never early.
    #[must_use]
    pub const fn tick_ceil(self) -> Tick {
        Tick(self.0.div_ceil(TICK_MS))
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, other: Millis) -> Millis {
        Millis(self.0.saturating_add(other.0))
    }
}

/// A step of the timing wheel: [`TICK_MS`] milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The point at which this tick begins.
    #[must_use]
    pub const fn start(self) -> Millis {
        Millis(self.0 * TICK_MS)
    }
}

/// Length of a wheel tick in milliseconds.
pub const TICK_MS: u64 = 10;

/// The timeout `timeout` stretched by the worst clock-rate drift, (1 + ρ)·T with ρ = 10⁻³,
/// rounded up: the shortest wait on our clock that is at least `timeout` of real time.
#[must_use]
pub const fn stretched(timeout: Millis) -> Millis {
    Millis(timeout.0 + timeout.0.div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_rounds_up_to_a_tick_and_never_down() {
        assert_eq!(Millis(20).tick_ceil(), Tick(2));
        assert_eq!(Millis(21).tick_ceil(), Tick(3));
        assert_eq!(Millis(29).tick(), Tick(2));
        assert!(Millis(21).tick_ceil().start() >= Millis(21));
    }

    #[test]
    fn stretching_covers_a_clock_that_runs_fast_by_a_thousandth() {
        assert_eq!(stretched(Millis(10_000)), Millis(10_010));
        assert_eq!(stretched(Millis(1)), Millis(2));
        assert_eq!(Millis(5).since(Millis(9)), Millis(0));
    }
}
