//! When each session's beats are due in an open loop, and which connection carries them.
//!
//! The schedule is fixed before the run and owes nothing to the answers: a beat's latency is
//! counted from when it was *due*, so that a server that stalls cannot slow down the question
//! and thereby look well (coordinated omission).
//!
//! Sessions are dealt to *slots* by a permutation, so that neighbours in time are not
//! neighbours in the server's tables. Slots are taken in *blocks*, spread evenly over the
//! interval; the slots of a block are due together and go to one connection in one write.

/// The fixed relation between sessions, slots, blocks and connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dealing {
    sessions: u64,
    connections: u64,
    block: u64,
    stride: u64,
    inverse: u64,
}

impl Dealing {
    /// Deals `sessions` over `connections` in blocks of `block` slots.
    ///
    /// # Panics
    /// If any of them is 0.
    pub(crate) fn new(sessions: u32, connections: u32, block: u32) -> Dealing {
        assert!(sessions > 0 && connections > 0 && block > 0);
        let n = u64::from(sessions);
        // Near the golden section, so that successive slots are far apart.
        let mut stride = (n as f64 * 0.618_033_988_75) as u64;
        while stride == 0 || gcd(stride, n) != 1 {
            stride += 1;
        }
        Dealing {
            sessions: n,
            connections: u64::from(connections),
            block: u64::from(block),
            stride,
            inverse: inverse(stride % n, n),
        }
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> u32 {
        self.sessions as u32
    }

    /// How many connections carry them.
    pub(crate) fn connections(&self) -> u32 {
        self.connections as u32
    }

    /// The session in `slot`.
    pub(crate) fn session(&self, slot: u64) -> u32 {
        (slot * self.stride % self.sessions) as u32
    }

    /// The slot of `session`.
    pub(crate) fn slot(&self, session: u32) -> u64 {
        u64::from(session) * self.inverse % self.sessions
    }

    /// The connection that carries `session`, always.
    pub(crate) fn connection(&self, session: u32) -> u32 {
        self.connection_of_block(self.slot(session) / self.block)
    }

    /// How many blocks make one round over all sessions.
    pub(crate) fn blocks(&self) -> u64 {
        self.sessions.div_ceil(self.block)
    }

    /// The slots of the `block`-th block of a round.
    pub(crate) fn slots(&self, block: u64) -> std::ops::Range<u64> {
        let from = block * self.block;
        from..(from + self.block).min(self.sessions)
    }

    /// The connection of the `block`-th block of a round.
    pub(crate) fn connection_of_block(&self, block: u64) -> u32 {
        (block % self.connections) as u32
    }

    /// How many blocks of a round `connection` carries.
    pub(crate) fn blocks_of(&self, connection: u32) -> u64 {
        let c = u64::from(connection);
        self.blocks().saturating_sub(c).div_ceil(self.connections)
    }
}

/// The open loop's clock: which blocks are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenLoop {
    start_ns: u64,
    interval_ns: u64,
    blocks: u64,
    next: u64,
}

impl OpenLoop {
    /// A round over all blocks every `interval_ns`, the first block due at `start_ns`.
    pub(crate) fn new(dealing: &Dealing, interval_ns: u64, start_ns: u64) -> OpenLoop {
        OpenLoop {
            start_ns,
            interval_ns,
            blocks: dealing.blocks(),
            next: 0,
        }
    }

    /// The next block of the round and when it was due, if that is not after `now_ns`.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let due = self.next_due();
        if due > now_ns {
            return None;
        }
        let block = self.next % self.blocks;
        self.next += 1;
        Some((block, due))
    }

    /// When the next block is due.
    pub(crate) fn next_due(&self) -> u64 {
        let (round, block) = (self.next / self.blocks, self.next % self.blocks);
        // In 128 bits: block × interval exceeds 64 for a million blocks and long intervals.
        let within = u128::from(block) * u128::from(self.interval_ns) / u128::from(self.blocks);
        self.start_ns + round * self.interval_ns + within as u64
    }
}

/// Slots per block so that a thread writes about once in `pace_ns`, yet every connection
/// gets its share.
pub(crate) fn block_for(sessions: u32, connections: u32, interval_ns: u64, pace_ns: u64) -> u32 {
    let due = u128::from(sessions) * u128::from(pace_ns) / u128::from(interval_ns.max(1));
    let share = sessions.div_ceil(connections.max(1));
    (due as u64).clamp(1, u64::from(share.max(1))) as u32
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The number that undoes multiplication by `a` modulo `n`.
fn inverse(a: u64, n: u64) -> u64 {
    let (mut r, mut next_r) = (n as i64, a as i64);
    let (mut t, mut next_t) = (0_i64, 1_i64);
    while next_r != 0 {
        let q = r / next_r;
        (r, next_r) = (next_r, r - q * next_r);
        (t, next_t) = (next_t, t - q * next_t);
    }
    t.rem_euclid(n as i64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_has_one_slot_and_one_connection() {
        for (n, c, block) in [
            (1, 1, 1),
            (10, 3, 2),
            (1_000, 7, 3),
            (4_096, 64, 64),
            (99_991, 5, 333),
        ] {
            let d = Dealing::new(n, c, block);
            let mut seen = vec![false; n as usize];
            for b in 0..d.blocks() {
                for slot in d.slots(b) {
                    let s = d.session(slot);
                    assert!(!std::mem::replace(&mut seen[s as usize], true));
                    assert_eq!(d.slot(s), slot);
                    assert_eq!(d.connection(s), d.connection_of_block(b));
                }
            }
            assert!(seen.iter().all(|s| *s));
            let blocks: u64 = (0..c).map(|c| d.blocks_of(c)).sum();
            assert_eq!(blocks, d.blocks());
        }
    }

    #[test]
    fn each_session_is_due_once_an_interval_at_its_own_phase() {
        let d = Dealing::new(10, 2, 2);
        let mut open = OpenLoop::new(&d, 1_000, 50);
        let mut due = Vec::new();
        while let Some((block, at)) = open.take(50 + 2 * 1_000 - 1) {
            due.push((block, at));
        }
        let first: Vec<(u64, u64)> = (0..5).map(|b| (b, 50 + b * 200)).collect();
        let second: Vec<(u64, u64)> = first.iter().map(|(b, at)| (*b, at + 1_000)).collect();
        assert_eq!(due, [first, second].concat());
    }

    #[test]
    fn a_late_caller_gets_what_it_missed_with_the_times_it_missed() {
        let d = Dealing::new(4, 1, 1);
        let mut open = OpenLoop::new(&d, 400, 0);
        assert_eq!(open.take(0), Some((0, 0)));
        assert_eq!(open.take(99), None);
        let late: Vec<u64> = std::iter::from_fn(|| open.take(350))
            .map(|(_, at)| at)
            .collect();
        assert_eq!(late, [100, 200, 300]);
        assert_eq!(open.next_due(), 400);
    }

    #[test]
    fn rounding_never_drifts() {
        let d = Dealing::new(7, 1, 1);
        let mut open = OpenLoop::new(&d, 1_000_000_007, 0);
        open.next = 7 * 1_000_000;
        assert_eq!(open.next_due(), 1_000_000 * 1_000_000_007);
    }

    #[test]
    fn blocks_are_a_pace_long_and_leave_no_connection_idle() {
        assert_eq!(block_for(1_000_000, 64, 3_000_000_000, 1_000_000), 333);
        assert_eq!(block_for(1_000, 1_000, 1_000_000, 1_000_000), 1);
        assert_eq!(block_for(10, 4, 1, 1_000_000), 3);
        assert_eq!(block_for(10, 4, 10_000_000_000, 1_000_000), 1);
    }
}
