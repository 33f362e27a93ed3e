//! Joins: which session is next, and which connection has room for one.
//!
//! Those that may be under way are shared out among the connections, as if each were a client of
//! its own: an answer makes room for the next join on the connection it came by. Were it the next
//! session's turn, whatever its connection, a server that answers eight joins of a connection at
//! once would be sent one by each of eight, and pay for reading eight times.

use crate::schedule::Dealing;
use std::collections::VecDeque;
use std::ops::Range;

/// The joins of a thread.
#[derive(Debug)]
pub(super) struct Joins {
    dealing: Dealing,
    /// The sessions that are to join, in order, of one connection after the other.
    sessions: Vec<u32>,
    /// Where in `sessions` those of each connection lie that have not been begun.
    left: Vec<Range<usize>>,
    /// None of the connections before this has any left.
    first_left: usize,
    /// Connections with room, as often as there is.
    room: VecDeque<u32>,
    /// Sessions that are to join once more, before any other.
    again: VecDeque<u32>,
    begun: usize,
    under_way: u32,
}

impl Joins {
    /// Joins of all sessions, so many at once.
    pub(super) fn of_all(dealing: Dealing, outstanding: u32) -> Joins {
        let connections = dealing.connections();
        let mut left = vec![0..0; connections as usize];
        for session in 0..dealing.sessions() {
            left[dealing.connection(session) as usize].end += 1;
        }
        let mut from = 0;
        for range in &mut left {
            *range = from..from + range.end;
            from = range.end;
        }
        let mut sessions = vec![0; from];
        let mut to: Vec<usize> = left.iter().map(|range| range.start).collect();
        for session in 0..dealing.sessions() {
            let at = &mut to[dealing.connection(session) as usize];
            sessions[*at] = session;
            *at += 1;
        }
        Joins {
            sessions,
            left,
            ..Joins::of_none(dealing, outstanding)
        }
    }

    /// None but those who are to join once more, so many at once.
    pub(super) fn of_none(dealing: Dealing, outstanding: u32) -> Joins {
        let connections = dealing.connections();
        Joins {
            dealing,
            sessions: Vec::new(),
            left: Vec::new(),
            first_left: 0,
            room: (0..outstanding).map(|i| i % connections).collect(),
            again: VecDeque::new(),
            begun: 0,
            under_way: 0,
        }
    }

    /// The session whose join is to be sent now, by its own connection, if there is room.
    pub(super) fn begin(&mut self) -> Option<u32> {
        let room = *self.room.front()?;
        let session = match self.again.pop_front() {
            Some(session) => session,
            None => self.next_of(room)?,
        };
        self.room.pop_front();
        self.under_way += 1;
        Some(session)
    }

    /// The next session of a connection, or of another if all of its have begun.
    fn next_of(&mut self, connection: u32) -> Option<u32> {
        let own = connection as usize;
        let range = if self.left.get(own).is_some_and(|range| !range.is_empty()) {
            &mut self.left[own]
        } else {
            let rest = self.left.get(self.first_left..)?;
            self.first_left += rest.iter().take_while(|range| range.is_empty()).count();
            self.left.get_mut(self.first_left)?
        };
        let session = self.sessions[range.next()?];
        self.begun += 1;
        Some(session)
    }

    /// A session's join is no longer under way.
    pub(super) fn ended(&mut self, session: u32) {
        self.under_way -= 1;
        self.room.push_back(self.dealing.connection(session));
    }

    /// A session is to join once more.
    pub(super) fn again(&mut self, session: u32) {
        self.again.push_back(session);
    }

    /// True if every session's join has been sent, and none is under way.
    pub(super) fn are_done(&self) -> bool {
        self.begun == self.sessions.len() && self.under_way == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealing() -> Dealing {
        Dealing::new(1_000, 8, 1)
    }

    #[test]
    fn the_answer_of_a_connection_makes_room_on_that_connection() {
        let dealing = dealing();
        let mut joins = Joins::of_all(dealing, 16);
        let first: Vec<u32> = std::iter::from_fn(|| joins.begin()).collect();
        assert_eq!(first.len(), 16);
        let on = |c| {
            first
                .iter()
                .filter(|s| dealing.connection(**s) == c)
                .count()
        };
        assert!((0..8).all(|c| on(c) == 2));

        let (a, b) = (first[3], first[6]);
        joins.ended(b);
        joins.ended(a);
        let next: Vec<u32> = std::iter::from_fn(|| joins.begin()).collect();
        let connections: Vec<u32> = next.iter().map(|s| dealing.connection(*s)).collect();
        assert_eq!(
            connections,
            [dealing.connection(b), dealing.connection(a)],
            "one for one"
        );
    }

    #[test]
    fn every_session_joins_once_in_order_within_its_connection() {
        for outstanding in [1, 3, 8, 2_000] {
            let dealing = dealing();
            let mut joins = Joins::of_all(dealing, outstanding);
            let mut all = Vec::new();
            let mut last = [None; 8];
            assert!(!joins.are_done());
            loop {
                let begun: Vec<u32> = std::iter::from_fn(|| joins.begin()).collect();
                if begun.is_empty() {
                    break;
                }
                assert!(begun.len() <= outstanding as usize);
                for session in begun {
                    let last = &mut last[dealing.connection(session) as usize];
                    assert!(*last < Some(session), "{last:?} before {session}");
                    *last = Some(session);
                    assert!(!joins.are_done());
                    joins.ended(session);
                    all.push(session);
                }
            }
            assert!(joins.are_done());
            all.sort_unstable();
            assert_eq!(all, (0..1_000).collect::<Vec<_>>(), "{outstanding} at once");
        }
    }

    #[test]
    fn who_joins_once_more_comes_first_and_needs_room_too() {
        let mut joins = Joins::of_all(dealing(), 1);
        let first = joins.begin().unwrap();
        joins.again(777);
        assert_eq!(joins.begin(), None, "no room");
        joins.ended(first);
        assert_eq!(joins.begin(), Some(777));
    }

    #[test]
    fn where_nobody_has_to_join_only_those_do_who_are_to_join_once_more() {
        let mut joins = Joins::of_none(dealing(), 4);
        assert!(joins.are_done());
        assert_eq!(joins.begin(), None);
        joins.again(5);
        assert_eq!(joins.begin(), Some(5));
        assert!(!joins.are_done());
        joins.ended(5);
        assert_eq!(joins.begin(), None);
        assert!(joins.are_done());
    }
}
