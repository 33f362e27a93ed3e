//! The one place that reads a clock or waits for time to pass.
//!
//! Everything else takes nanoseconds on the monotonic clock as arguments, so that schedules
//! and verdicts can be tested without waiting.

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::{Duration, SystemTime};

/// Nanoseconds on the monotonic clock since an arbitrary origin.
pub(crate) fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    (t.tv_sec as u64) * SECOND + t.tv_nsec as u64
}

/// The wall clock: for the names and heads of reports, never for measuring.
pub(crate) fn wall() -> SystemTime {
    let t = clock_gettime(ClockId::Realtime);
    SystemTime::UNIX_EPOCH + Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Sleeps for `length`: only between attempts at something that gives no event to wait for,
/// such as a server that is not listening yet.
pub(crate) fn pause(length: Duration) {
    let request = Timespec {
        tv_sec: length.as_secs() as i64,
        tv_nsec: i64::from(length.subsec_nanos()),
    };
    match nanosleep(&request) {
        // Waking early costs one more attempt, nothing else.
        NanosleepRelativeResult::Ok
        | NanosleepRelativeResult::Interrupted(_)
        | NanosleepRelativeResult::Err(_) => {}
    }
}

/// `2026-11-22` and `13:58:37` of a point in time, in UTC.
pub(crate) fn date_and_time(at: SystemTime) -> (String, String) {
    let s = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (y, m, d) = civil(s / 86_400);
    let t = s % 86_400;
    (
        format!("{y:04}-{m:02}-{d:02}"),
        format!("{:02}:{:02}:{:02}", t / 3_600, t / 60 % 60, t % 60),
    )
}

/// Year, month and day of the `days`-th day after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    let mut left = days;
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, left + 1)
}

/// Nanoseconds in a millisecond.
pub(crate) const MILLI: u64 = 1_000_000;
/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar_through_leap_years() {
        let at = |s| date_and_time(SystemTime::UNIX_EPOCH + Duration::from_secs(s)).0;
        assert_eq!(at(0), "1970-01-01");
        assert_eq!(at(951_782_400), "2000-02-29");
        assert_eq!(at(1_795_305_600), "2026-11-22");
        assert_eq!(at(4_107_542_400), "2100-03-01");
    }
}
