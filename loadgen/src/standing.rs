//! Where each session stands, kept so that the question asked for every beat is cheap.

/// Where a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Not joined yet, or about to join again.
    #[default]
    Absent,
    /// Its join is on the way.
    Joining,
    /// Joined and beating.
    Live,
    /// Stopped beating without a word; the server finds out.
    Dying,
    /// Its leave is on the way.
    Leaving,
    /// Left, or seen to be expired.
    Gone,
}

/// The states of all sessions.
///
/// Sessions are beaten for in scattered order, so each look is a cache miss unless what is
/// looked at is small: a bit a session, 125 kB for a million, stays in the second-level cache.
/// Invariant: the bit is set exactly while the state is [`State::Live`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    states: Vec<State>,
    live: Vec<u64>,
}

impl Standing {
    /// `count` sessions in the same state.
    pub(crate) fn new(count: u32, state: State) -> Standing {
        let mut standing = Standing {
            states: vec![state; count as usize],
            live: vec![0; count.div_ceil(64) as usize],
        };
        for session in 0..count {
            standing.set(session, state);
        }
        standing
    }

    /// Whether `session` is joined and beating.
    pub(crate) fn is_live(&self, session: u32) -> bool {
        self.live[session as usize / 64] >> (session % 64) & 1 == 1
    }

    /// Whether the server holds `session`, as far as we know: it beats, or stopped without a word.
    pub(crate) fn is_held(&self, session: u32) -> bool {
        self.is_live(session) || self.get(session) == State::Dying
    }

    /// Where `session` stands.
    pub(crate) fn get(&self, session: u32) -> State {
        self.states[session as usize]
    }

    /// Moves `session` on.
    pub(crate) fn set(&mut self, session: u32, state: State) {
        self.states[session as usize] = state;
        let bit = 1 << (session % 64);
        let word = &mut self.live[session as usize / 64];
        if state == State::Live {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    /// How many are joined and beating.
    pub(crate) fn living(&self) -> u64 {
        self.live.iter().map(|w| u64::from(w.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_follow_the_states() {
        let mut all = Standing::new(130, State::Live);
        assert_eq!(all.living(), 130);
        all.set(64, State::Dying);
        all.set(129, State::Gone);
        assert!(!all.is_live(64) && all.is_held(64));
        assert!(!all.is_live(129) && !all.is_held(129));
        assert_eq!((all.living(), all.get(64)), (128, State::Dying));
        all.set(64, State::Live);
        assert!(all.is_live(64) && all.is_live(63) && all.is_live(65));
        assert_eq!(Standing::new(65, State::Absent).living(), 0);
    }
}
