//! Answers that wait for others to the same connection.
//!
//! The core tells what one sync has made durable in pieces, a fraction of a millisecond apart. A
//! connection with many joins under way has an answer or two in each: sent as they come, every
//! one would cost a system call here, one at the client, and another for the few joins that it
//! sends next. So what has come for such a connection stays until the core has told everything,
//! for a millisecond at most.

use crate::shard::ConnId;

/// Connections that answers have come for while the core is about to tell more.
#[derive(Default)]
pub(super) struct Gathered {
    conns: Vec<ConnId>,
    /// When the first of them came.
    since_ns: u64,
    /// The core has said that it tells more in a moment.
    expects_more: bool,
}

impl Gathered {
    /// The core has told something, and whether it tells more in a moment.
    pub(super) fn told(&mut self, more: bool) {
        self.expects_more = more;
    }

    /// Nothing at all has come for half a millisecond, and so did not what the core was to tell.
    pub(super) fn rested(&mut self) {
        self.expects_more = false;
    }

    /// Keeps a connection that answers have come for; false if they are not to wait.
    #[must_use]
    pub(super) fn keeps(&mut self, conn: ConnId, now_ns: u64) -> bool {
        if !self.expects_more {
            return false;
        }
        if self.conns.is_empty() {
            self.since_ns = now_ns;
        }
        self.conns.push(conn);
        true
    }

    /// The connections that wait no longer; some may be named twice.
    pub(super) fn due(&mut self, now_ns: u64) -> impl Iterator<Item = ConnId> {
        let is_due = !self.expects_more || now_ns.saturating_sub(self.since_ns) >= WAIT_NS_MAX;
        let count = if is_due { self.conns.len() } else { 0 };
        self.conns.drain(..count)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }
}

/// How long an answer waits for others, nanoseconds.
const WAIT_NS_MAX: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId {
            index,
            generation: 1,
        }
    }

    fn due(gathered: &mut Gathered, now_ns: u64) -> Vec<u32> {
        gathered.due(now_ns).map(|conn| conn.index).collect()
    }

    #[test]
    fn nobody_waits_unless_more_is_to_come() {
        let mut gathered = Gathered::default();
        assert!(!gathered.keeps(conn(1), 5));
        gathered.told(true);
        gathered.told(false);
        assert!(!gathered.keeps(conn(1), 5));
        assert!(gathered.is_empty());
    }

    #[test]
    fn all_go_once_the_core_has_told_everything_or_is_silent() {
        let ends: [fn(&mut Gathered); 2] = [|it| it.told(false), Gathered::rested];
        for end in ends {
            let mut gathered = Gathered::default();
            gathered.told(true);
            assert!(gathered.keeps(conn(1), 5));
            gathered.told(true);
            assert!(gathered.keeps(conn(2), 6));
            assert!(due(&mut gathered, 7).is_empty());
            assert!(!gathered.is_empty());
            end(&mut gathered);
            assert_eq!(due(&mut gathered, 7), [1, 2]);
            assert!(gathered.is_empty());
        }
    }

    #[test]
    fn all_go_when_the_first_has_waited_for_long_whatever_is_to_come() {
        let mut gathered = Gathered::default();
        gathered.told(true);
        for round in [0, 7 * WAIT_NS_MAX] {
            assert!(gathered.keeps(conn(1), round));
            assert!(gathered.keeps(conn(2), round + WAIT_NS_MAX - 1));
            assert!(due(&mut gathered, round + WAIT_NS_MAX - 1).is_empty());
            assert_eq!(due(&mut gathered, round + WAIT_NS_MAX), [1, 2]);
        }
    }
}
