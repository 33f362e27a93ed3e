//! Deadlines and polling: the only place of the tests that reads a clock or sleeps.

use std::time::{Duration, Instant};

/// The present, for measuring how long something took.
#[allow(
    clippy::disallowed_methods,
    reason = "tests of a real server run in real time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A point in time by which something must have happened.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(time: Duration) -> Deadline {
        Deadline(now() + time)
    }

    /// What is left; panics with `what` when nothing is.
    #[track_caller]
    pub(crate) fn left(self, what: &str) -> Duration {
        let left = self.0.saturating_duration_since(now());
        assert!(!left.is_zero(), "in vain waited for {what}");
        left
    }

    pub(crate) fn passed(self) -> bool {
        now() >= self.0
    }

    /// Waits until it has passed: for tests in which time itself is what must go by.
    pub(crate) fn pass(self) {
        while !self.passed() {
            pause(self.0.saturating_duration_since(now()));
        }
    }
}

/// Calls `check` every few milliseconds until it finds something; panics after `time`.
#[track_caller]
pub(crate) fn poll<T>(time: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(time);
    loop {
        if let Some(found) = check() {
            return found;
        }
        pause(deadline.left(what).min(Duration::from_millis(3)));
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the pause between two looks at a deadline"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
