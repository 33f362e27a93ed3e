//! Which members die, leave or rejoin, and when: drawn by lot from the seed, before the run.

/// Shares of the members, each between 0 and 1, together at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    /// Stop beating without a word.
    pub(crate) die: f64,
    /// Leave.
    pub(crate) leave: f64,
    /// Leave and join again at once.
    pub(crate) rejoin: f64,
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stops beating.
    Die,
    /// Leaves for good.
    Leave,
    /// Leaves and joins again.
    Rejoin,
}

/// One member's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// When.
    pub(crate) at_ns: u64,
    /// Which session.
    pub(crate) session: u32,
    /// What it does.
    pub(crate) action: Action,
}

/// The events of a run over `[start_ns, start_ns + window_ns)`, in order of time.
pub(crate) fn events(
    sessions: u32,
    shares: Shares,
    start_ns: u64,
    window_ns: u64,
    seed: u64,
) -> Vec<Event> {
    let mut events: Vec<Event> = (0..sessions)
        .filter_map(|session| {
            let lot = fraction(seed, u64::from(session));
            let action = if lot < shares.die {
                Action::Die
            } else if lot < shares.die + shares.leave {
                Action::Leave
            } else if lot < shares.die + shares.leave + shares.rejoin {
                Action::Rejoin
            } else {
                return None;
            };
            let when = fraction(seed ^ 0xa5a5, u64::from(session)) * window_ns as f64;
            let at_ns = start_ns + when as u64;
            Some(Event {
                at_ns,
                session,
                action,
            })
        })
        .collect();
    events.sort_by_key(|e| (e.at_ns, e.session));
    events
}

/// Whether `session` is among the share `share` of all.
pub(crate) fn chosen(seed: u64, session: u32, share: f64) -> bool {
    fraction(seed ^ 0xd00d, u64::from(session)) < share
}

/// A number in [0, 1) that looks drawn by lot (splitmix64).
fn fraction(seed: u64, n: u64) -> f64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_met_and_the_seed_decides() {
        let shares = Shares {
            die: 0.01,
            leave: 0.02,
            rejoin: 0.03,
        };
        let all = events(100_000, shares, 1_000, 500, 7);
        let count = |a| all.iter().filter(|e| e.action == a).count() as f64 / 100_000.0;
        assert!((count(Action::Die) - 0.01).abs() < 0.002);
        assert!((count(Action::Leave) - 0.02).abs() < 0.002);
        assert!((count(Action::Rejoin) - 0.03).abs() < 0.003);
        assert!(all.iter().all(|e| (1_000..1_500).contains(&e.at_ns)));
        assert!(all.is_sorted_by_key(|e| e.at_ns));
        assert_eq!(all, events(100_000, shares, 1_000, 500, 7));
        assert_ne!(all, events(100_000, shares, 1_000, 500, 8));
    }

    #[test]
    fn nobody_is_chosen_for_nothing_and_all_for_everything() {
        assert!(events(1_000, Shares::default(), 0, 9, 1).is_empty());
        assert!((0..1_000).all(|s| chosen(1, s, 1.0) && !chosen(1, s, 0.0)));
    }
}
