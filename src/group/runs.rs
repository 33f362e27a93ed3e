//! The runs of servers that matter: the newest recorded of each server, and every one that
//! owns sessions, with their number.
//!
//! A server has one recorded run. A run that was recorded before keeps its sessions until the
//! recorded one has adopted them all. There are few, so a sorted list is searched faster than
//! anything that hashes.

use super::SERVERS_MAX;
use crate::types::{Incarnation, ServerId};

/// The runs, in ascending order of server and incarnation.
///
/// Invariants: a server has one recorded run, which is its newest; a run that is not recorded
/// owns sessions.
#[derive(Clone, Default)]
pub(super) struct Runs {
    list: Vec<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    server: ServerId,
    incarnation: Incarnation,
    /// Active sessions that it owns.
    sessions: u64,
}

impl Runs {
    /// Makes `incarnation` the recorded run of `server`; false, and nothing done, if it is not
    /// newer than the one that is, or if there are [`SERVERS_MAX`] other servers.
    pub(super) fn record(&mut self, server: ServerId, incarnation: Incarnation) -> bool {
        if !self.may_record(server, incarnation) {
            return false;
        }
        if let Some(old) = self.recorded(server) {
            self.forget_if_idle(server, old);
        }
        if let Err(at) = self.seek(server, incarnation) {
            let run = Run {
                server,
                incarnation,
                sessions: 0,
            };
            self.list.insert(at, run);
        }
        true
    }

    /// Counts `count` sessions more that this run owns.
    ///
    /// # Panics
    /// If no such run was ever recorded: a session has no other owner.
    pub(super) fn add(&mut self, owner: (ServerId, Incarnation), count: u64) {
        self.run(owner).sessions += count;
    }

    /// Counts a session that is new, or that has come from another run or stayed with its own.
    pub(super) fn pass(
        &mut self,
        from: Option<(ServerId, Incarnation)>,
        to: (ServerId, Incarnation),
    ) {
        if from == Some(to) {
            return;
        }
        self.add(to, 1);
        if let Some(from) = from {
            self.take(from, 1);
        }
    }

    /// Counts `count` sessions that it owns no more.
    ///
    /// # Panics
    /// If it did not own so many.
    pub(super) fn take(&mut self, owner: (ServerId, Incarnation), count: u64) {
        let run = self.run(owner);
        let left = run.sessions.checked_sub(count);
        run.sessions = left.expect("each session was counted when it got its owner");
        if run.sessions == 0 && self.recorded(owner.0) != Some(owner.1) {
            self.forget_if_idle(owner.0, owner.1);
        }
    }

    /// Counts a session of a state that is read back; false if its owner never was recorded.
    pub(super) fn restore(&mut self, owner: (ServerId, Incarnation)) -> bool {
        if self.recorded(owner.0).is_none_or(|newest| newest < owner.1) {
            return false;
        }
        match self.seek(owner.0, owner.1) {
            Ok(at) => self.list[at].sessions += 1,
            Err(at) => {
                let run = Run {
                    server: owner.0,
                    incarnation: owner.1,
                    sessions: 1,
                };
                self.list.insert(at, run);
            }
        }
        true
    }

    /// Whether [`Runs::record`] would.
    pub(super) fn may_record(&self, server: ServerId, incarnation: Incarnation) -> bool {
        match self.recorded(server) {
            Some(recorded) => recorded < incarnation,
            None => self.recorded_all().count() < SERVERS_MAX,
        }
    }

    /// The recorded run of `server`.
    pub(super) fn recorded(&self, server: ServerId) -> Option<Incarnation> {
        let end = self.list.partition_point(|run| run.server <= server);
        let newest = &self.list[end.checked_sub(1)?];
        (newest.server == server).then_some(newest.incarnation)
    }

    /// The recorded run of each server, in ascending order of servers.
    pub(super) fn recorded_all(&self) -> impl Iterator<Item = (ServerId, Incarnation)> {
        let of_one = self.list.chunk_by(|a, b| a.server == b.server);
        let newest = of_one.filter_map(|runs| runs.last());
        newest.map(|run| (run.server, run.incarnation))
    }

    /// Who owns sessions, and how many.
    pub(super) fn owners(&self) -> impl Iterator<Item = (ServerId, Incarnation, u64)> {
        let some = self.list.iter().filter(|run| run.sessions > 0);
        some.map(|run| (run.server, run.incarnation, run.sessions))
    }

    fn run(&mut self, (server, incarnation): (ServerId, Incarnation)) -> &mut Run {
        match self.seek(server, incarnation) {
            Ok(at) => &mut self.list[at],
            Err(_) => panic!(
                "run {} of server {server} was never recorded",
                incarnation.0
            ),
        }
    }

    fn forget_if_idle(&mut self, server: ServerId, incarnation: Incarnation) {
        if let Ok(at) = self.seek(server, incarnation)
            && self.list[at].sessions == 0
        {
            self.list.remove(at);
        }
    }

    fn seek(&self, server: ServerId, incarnation: Incarnation) -> Result<usize, usize> {
        let key = (server, incarnation);
        self.list
            .binary_search_by_key(&key, |run| (run.server, run.incarnation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ServerId = ServerId(1);
    const B: ServerId = ServerId(2);

    fn owners(runs: &Runs) -> Vec<(u32, u64, u64)> {
        runs.owners().map(|(s, i, n)| (s.0, i.0, n)).collect()
    }

    #[test]
    fn only_a_newer_run_is_recorded() {
        let mut runs = Runs::default();
        assert_eq!(runs.recorded(A), None);
        assert!(runs.record(B, Incarnation(5)));
        assert!(!runs.record(B, Incarnation(5)) && !runs.record(B, Incarnation(4)));
        assert!(runs.record(B, Incarnation(7)));
        assert!(runs.record(A, Incarnation(1)));
        let all: Vec<_> = runs.recorded_all().collect();
        assert_eq!(all, [(A, Incarnation(1)), (B, Incarnation(7))]);
        assert_eq!(runs.recorded(ServerId(3)), None);
        assert_eq!(owners(&runs), []);
    }

    #[test]
    fn an_earlier_run_is_kept_while_it_owns_sessions() {
        let mut runs = Runs::default();
        runs.record(A, Incarnation(1));
        runs.add((A, Incarnation(1)), 2);
        runs.record(A, Incarnation(2));
        assert_eq!(runs.recorded(A), Some(Incarnation(2)));
        runs.take((A, Incarnation(1)), 1);
        runs.add((A, Incarnation(2)), 1);
        assert_eq!(owners(&runs), [(1, 1, 1), (1, 2, 1)]);
        runs.take((A, Incarnation(1)), 1);
        runs.take((A, Incarnation(2)), 1);
        assert_eq!(owners(&runs), []);
        assert_eq!(runs.list.len(), 1, "and the recorded one for good");
    }

    #[test]
    fn a_server_too_many_is_not_recorded_and_the_known_are() {
        let mut runs = Runs::default();
        for server in 1..=SERVERS_MAX as u32 {
            assert!(runs.record(ServerId(server), Incarnation(1)));
        }
        assert!(!runs.record(ServerId(u32::MAX), Incarnation(1)));
        assert!(runs.record(A, Incarnation(2)));
    }

    #[test]
    #[should_panic(expected = "was never recorded")]
    fn a_session_of_no_run_is_a_bug() {
        Runs::default().add((A, Incarnation(1)), 1);
    }

    #[test]
    #[should_panic(expected = "each session was counted")]
    fn a_session_counted_off_twice_is_a_bug() {
        let mut runs = Runs::default();
        runs.record(A, Incarnation(1));
        runs.take((A, Incarnation(1)), 1);
    }
}
