//! Whether a promise may be made: the server's lease as a shard knows it.
//!
//! A beat or join is answered with a promise only while the lease holds. Whether it does is
//! one comparison, and what is refused for it has touched nothing. While the lease has lapsed
//! no client could renew its session here, so the wheel stands still and every deadline moves
//! by exactly the lapsed time: not by a full timeout, or elections would make sessions
//! immortal.

use super::{Phase, Plant, Shard};
use crate::http::{Code, Problem};
use crate::time::Millis;

/// The lease, and the lapsed time that the deadlines have yet to be moved by.
#[derive(Default)]
pub(super) struct Lease {
    /// Promises hold until then; the epoch of the clock until the first grant.
    until: Millis,
    /// As `until` while the shard serves, and never otherwise.
    promises_until: Millis,
    /// Lapsed time before `counted` that is not yet made good.
    owed: Millis,
    /// Up to here, lapsed time is counted.
    counted: Millis,
}

impl Lease {
    /// True if a promise may be made at `now`.
    #[inline]
    pub(super) fn promises(&self, now: Millis) -> bool {
        now < self.promises_until
    }

    /// True if the lease has run out, whether or not the shard serves.
    pub(super) fn has_lapsed(&self, now: Millis) -> bool {
        now >= self.until
    }

    /// True if the server needs nobody to make promises: it is alone.
    pub(super) fn is_endless(&self) -> bool {
        self.until == Millis(u64::MAX)
    }

    /// How long it still runs, `most` at most: alone, a server has one without end.
    pub(super) fn left(&self, now: Millis, most: Millis) -> Millis {
        self.until.since(now).min(most)
    }

    /// Lapsed time up to `now` that has not been taken yet; taken by this.
    pub(super) fn take_lapsed(&mut self, now: Millis) -> Millis {
        self.count(now);
        std::mem::take(&mut self.owed)
    }

    /// Lapsed time up to `now` is made good otherwise.
    pub(super) fn forgive(&mut self, now: Millis) {
        self.owed = Millis(0);
        self.counted = self.counted.max(now);
    }

    fn count(&mut self, now: Millis) {
        let from = self.counted.max(self.until);
        self.owed = self.owed + now.since(from);
        self.counted = self.counted.max(now);
    }

    fn grant(&mut self, until: Millis, now: Millis) {
        self.count(now);
        self.until = until;
    }

    fn serve(&mut self, serving: bool) {
        self.promises_until = if serving { self.until } else { Millis(0) };
    }
}

impl Shard {
    /// The core has renewed the lease.
    pub(super) fn on_lease(&mut self, until: Millis, now: Millis) {
        self.lease.grant(until, now);
        self.lease.serve(self.phase == Phase::Serving);
        self.show_lease(now);
    }

    /// Opens the doors, or closes them.
    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.lease.serve(phase == Phase::Serving);
        if phase == Phase::Stopping {
            self.empty_room();
        }
    }

    /// Shows to readers how the lease stands.
    pub(super) fn show_lease(&self, now: Millis) {
        let left = self.lease.left(now, self.settings.lease);
        self.counters.lease_lapsed.set(u64::from(left.0 == 0));
        self.counters.lease_left_ms.set(left.0);
    }

    /// Refuses what only a server that can keep a promise may answer.
    #[inline]
    pub(super) fn must_promise(&self, now: Millis) -> Result<(), Problem> {
        if self.lease.promises(now) {
            Ok(())
        } else {
            Err(self.no_promise())
        }
    }

    #[cold]
    fn no_promise(&self) -> Problem {
        match self.must_serve() {
            Err(problem) => problem,
            Ok(()) => Problem::new(Code::LeaseLapsed),
        }
    }

    /// As [`Shard::must_promise`], for a beat or join, which is counted when it is refused.
    #[inline]
    pub(super) fn must_promise_to(&self, now: Millis) -> Result<(), Problem> {
        if self.plants.has(Plant::BeatsWhileLapsed) {
            return self.must_serve();
        }
        self.must_promise(now)
            .inspect_err(|problem| self.count_lapsed(problem.code, 1))
    }

    /// Counts beats and joins refused with `code`.
    pub(super) fn count_lapsed(&self, code: Code, count: usize) {
        if code == Code::LeaseLapsed {
            self.counters.lease_refusals.add(count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(until: u64) -> Lease {
        let mut lease = Lease::default();
        lease.forgive(Millis(100));
        lease.grant(Millis(until), Millis(100));
        lease.serve(true);
        lease
    }

    #[test]
    fn a_lease_holds_before_its_end_and_not_at_it() {
        let lease = lease(500);
        assert!(lease.promises(Millis(499)) && !lease.has_lapsed(Millis(499)));
        assert!(!lease.promises(Millis(500)) && lease.has_lapsed(Millis(500)));
    }

    #[test]
    fn a_shard_starts_without_a_lease() {
        let mut lease = Lease::default();
        lease.serve(true);
        assert!(!lease.promises(Millis(0)));
    }

    #[test]
    fn exactly_the_time_after_the_end_is_owed_and_only_once() {
        let mut lease = lease(500);
        assert_eq!(lease.take_lapsed(Millis(500)), Millis(0));
        assert_eq!(lease.take_lapsed(Millis(507)), Millis(7));
        assert_eq!(lease.take_lapsed(Millis(507)), Millis(0));
        lease.grant(Millis(900), Millis(510));
        assert_eq!(lease.take_lapsed(Millis(600)), Millis(3));
        assert_eq!(lease.take_lapsed(Millis(900)), Millis(0));
    }

    #[test]
    fn grants_that_come_late_and_together_count_no_time_twice() {
        let mut lease = lease(500);
        lease.grant(Millis(520), Millis(600));
        lease.grant(Millis(900), Millis(610));
        assert_eq!(lease.take_lapsed(Millis(700)), Millis(110));
    }
}
