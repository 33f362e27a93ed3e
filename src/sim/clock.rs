//! A server's own clock: its rate is a little off, and its zero is anywhere.

use crate::time::Millis;

/// Reads `offset + (1 + drift) · t`, where t is true time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_us: i64,
    /// Millionths by which it runs fast; within ±1000, as ρ = 10⁻³ allows.
    drift_ppm: i64,
}

impl Clock {
    /// A clock that reads `reading_us` at true time `now_us`.
    ///
    /// # Panics
    /// If it drifts by more than ρ.
    #[must_use]
    pub fn new(now_us: u64, reading_us: u64, drift_ppm: i64) -> Clock {
        assert!(
            drift_ppm.abs() <= DRIFT_PPM_MAX,
            "a drift of {drift_ppm} ppm"
        );
        let mut clock = Clock {
            offset_us: 0,
            drift_ppm,
        };
        clock.offset_us = reading_us as i64 - clock.scaled(now_us);
        clock
    }

    /// What it reads at true time `now_us`.
    #[must_use]
    pub fn read(&self, now_us: u64) -> Millis {
        Millis(((self.offset_us + self.scaled(now_us)) / 1_000) as u64)
    }

    /// The first true time at which it reads `reading` or more.
    #[must_use]
    pub fn when(&self, reading: Millis) -> u64 {
        let reading_us = i64::try_from(reading.0.saturating_mul(1_000)).unwrap_or(FOREVER_US);
        let scaled = (reading_us.min(FOREVER_US) - self.offset_us).max(0);
        let whole = i128::from(scaled) * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        let mut true_us = whole as u64;
        while self.read(true_us) < Millis(reading_us.min(FOREVER_US) as u64 / 1_000) {
            true_us += 1;
        }
        true_us
    }

    fn scaled(&self, true_us: u64) -> i64 {
        let true_us = true_us as i64;
        true_us + true_us * self.drift_ppm / 1_000_000
    }
}

/// The most that a clock may drift: ρ = 10⁻³.
pub const DRIFT_PPM_MAX: i64 = 1_000;

/// Later than any simulation lasts: about 35 years.
const FOREVER_US: i64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_reads_what_it_was_set_to_and_drifts_from_there() {
        let clock = Clock::new(1_000_000, 5_000, 1_000);
        assert_eq!(clock.read(1_000_000), Millis(5));
        assert_eq!(
            clock.read(11_000_000),
            Millis(10_015),
            "10 ms gained in 10 s"
        );
        let slow = Clock::new(0, 0, -1_000);
        assert_eq!(slow.read(10_000_000), Millis(9_990));
    }

    #[test]
    fn when_is_the_first_instant_of_a_reading() {
        for drift in [-1_000, -7, 0, 3, 1_000] {
            let clock = Clock::new(123_456, 77_777, drift);
            for reading in [100, 101, 5_000, 60_000] {
                let when = clock.when(Millis(reading));
                assert!(clock.read(when) >= Millis(reading));
                assert!(clock.read(when - 1) < Millis(reading), "{drift} {reading}");
            }
        }
        let never = Clock::new(0, 0, 5).when(Millis(u64::MAX));
        assert!(never > 1 << 49, "no overflow");
    }
}
