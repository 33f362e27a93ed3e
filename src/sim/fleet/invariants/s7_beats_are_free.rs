//! S7: heartbeats cause no log append and no leader message.

#[cfg(test)]
use super::Verdict;

/// What the ensemble has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Work {
    /// Records appended to logs.
    pub(in super::super) appends: u64,
    /// Messages about beats that went to, or came from, a server.
    pub(in super::super) forwards: [u64; 8],
}

#[cfg(test)]
impl Work {
    /// Since `before`, nothing but beats has happened, and those that were sent on were for
    /// sessions that `leader` does not own.
    pub(in super::super) fn was_beats_alone(&self, before: &Work, leader: usize) -> Verdict {
        if self.appends != before.appends {
            let appends = self.appends - before.appends;
            return Err(format!("S7: beats alone have caused {appends} appends"));
        }
        let letters = self.forwards[leader] - before.forwards[leader];
        if letters > 0 {
            return Err(format!(
                "S7: beats of others have told the leader {letters} times"
            ));
        }
        Ok(())
    }
}
