//! Beats that other servers send on for sessions held here, and whether their client has
//! settled over there.
//!
//! A client that beats at another server for a while is better served if that server owns the
//! session. What says so is a row of beats sent on by the same server with no other touch in
//! between; one that a balancer sends to and fro never gets that far, and costs no
//! transaction. Another touch shows as a deadline that is not the one left behind, so that an
//! ordinary beat pays nothing for this.

use std::collections::HashMap;

use super::beat::Hit;
use super::serve::Manner;
use super::{Plant, Shard};
use crate::mail::{Ask, Beat, Beaten, Missing, What};
use crate::session::Slot;
use crate::time::Millis;
use crate::types::{ServerId, SessionId};

/// Sessions whose clients beat at other servers.
#[derive(Default)]
pub(super) struct Settling {
    known: HashMap<SessionId, Row>,
}

/// Beats in a row.
struct Row {
    /// The server that sends them on.
    from: ServerId,
    count: u32,
    /// Where the last of them left the deadline.
    deadline: Millis,
    /// When it came.
    at: Millis,
    /// The asker is not told again before then that the client has settled.
    quiet_until: Millis,
}

/// What a beat that was sent on did to its session.
#[derive(Clone, Copy)]
struct Touched {
    id: SessionId,
    timeout: Millis,
    /// The session's deadline before and after it, gaps not counted.
    before: Millis,
    after: Millis,
}

impl Settling {
    /// Notes a beat that `from` has sent on. True if its client has settled there and nobody
    /// has been told so for as long as the session's timeout: a move that was asked for and
    /// failed is not asked for at every beat.
    fn note(&mut self, from: ServerId, touched: Touched, now: Millis) -> bool {
        if self.known.len() >= SETTLING_MAX && !self.known.contains_key(&touched.id) {
            self.forget_half();
        }
        let row = self.known.entry(touched.id).or_insert(Row {
            from,
            count: 0,
            deadline: touched.before,
            at: now,
            quiet_until: Millis(0),
        });
        if row.from != from || row.deadline != touched.before {
            row.from = from;
            row.count = 0;
        }
        // A session that has just been moved here is spared for a while, and a touch leaves
        // its deadline where it is: then another could not be told.
        if touched.after != touched.before {
            row.count += 1;
        }
        row.deadline = touched.after;
        row.at = now;
        if row.count < SETTLE_BEATS || now < row.quiet_until {
            return false;
        }
        row.quiet_until = now + touched.timeout;
        true
    }

    /// The session is not here any more.
    pub(super) fn forget(&mut self, id: SessionId) {
        if !self.known.is_empty() {
            self.known.remove(&id);
        }
    }

    /// No session is.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Lets the half go that has been silent longest, and more if they came together.
    fn forget_half(&mut self) {
        let mut times: Vec<Millis> = self.known.values().map(|row| row.at).collect();
        let middle = times.len() / 2;
        let (_, &mut middle, _) = times.select_nth_unstable(middle);
        self.known.retain(|_, row| row.at > middle);
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl Shard {
    /// Another server has sent beats on: touches what is held here and says what became of
    /// each. The core bounds how many come, and puts the words of all shards together.
    pub(super) fn on_beats(&mut self, from: ServerId, token: u64, beats: &[Beat], now: Millis) {
        let mut verdicts = Vec::with_capacity(beats.len());
        for beat in beats {
            verdicts.push(self.beat_for(from, beat, now));
        }
        let what = What::Beaten {
            from,
            token,
            verdicts,
        };
        // Nobody answers, so no token waits.
        self.outbox.asks.push(Ask { token: 0, what });
    }

    fn beat_for(&mut self, from: ServerId, beat: &Beat, now: Millis) -> Beaten {
        let Some(slot) = self.locate(&beat.who) else {
            return Beaten::NotHeld;
        };
        if !self.lease.promises(now) && !self.plants.has(Plant::ForwardedWhileLapsed) {
            return Beaten::Lapsed;
        }
        let session = match beat.who {
            Missing::Named { session, .. } => session,
            Missing::Id(id) => Some(id),
        };
        let manner = Manner::forwarded(session, beat.floor);
        let before = self.lived_deadline(slot);
        match self.touch(slot, manner, now) {
            Hit::Touched(beaten) => {
                self.counters.forwarded_in.add(1);
                let touched = Touched {
                    id: beaten.id,
                    timeout: beaten.timeout,
                    before,
                    after: self.lived_deadline(slot),
                };
                Beaten::Touched {
                    id: beaten.id,
                    timeout: beaten.timeout,
                    version: beaten.version,
                    settled: self.settling.note(from, touched, now)
                        || self.plants.has(Plant::SettlesAtOnce),
                }
            }
            Hit::Conflict(version) => Beaten::Conflict { version },
            Hit::Wait => Beaten::Wait,
        }
    }

    /// The session's deadline on the clock that gaps hold back: only touches move it.
    fn lived_deadline(&self, slot: Slot) -> Millis {
        let deadline = self.tracker.view(slot).deadline;
        deadline.since(self.tracker.held())
    }
}

/// Beats in a row that tell that a client has settled.
const SETTLE_BEATS: u32 = 8;
/// Sessions whose rows are kept. When there are more, the half that has been silent longest
/// is forgotten: its clients have to beat in a row anew.
const SETTLING_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ServerId = ServerId(2);

    /// A beat at `now` that finds the deadline of `last` and pushes it out.
    fn beat(settling: &mut Settling, from: ServerId, last: u64, now: u64) -> bool {
        let touched = Touched {
            id: SessionId(7),
            timeout: Millis(1_000),
            before: Millis(last + 1_000),
            after: Millis(now + 1_000),
        };
        settling.note(from, touched, Millis(now))
    }

    #[test]
    fn the_eighth_beat_in_a_row_tells_that_the_client_has_settled() {
        let mut settling = Settling::default();
        let told: Vec<bool> = (1..=9)
            .map(|at| beat(&mut settling, HERE, at * 100, (at + 1) * 100))
            .collect();
        assert_eq!(told.iter().position(|told| *told), Some(7));
        assert!(!told[8], "and it is not told at once again");
    }

    #[test]
    fn it_is_told_again_once_a_timeout_has_passed() {
        let mut settling = Settling::default();
        let told: Vec<u64> = (1..=40)
            .filter(|at| beat(&mut settling, HERE, at * 100, (at + 1) * 100))
            .collect();
        assert_eq!(told, [8, 18, 28, 38]);
    }

    #[test]
    fn a_touch_of_another_in_between_begins_the_row_anew() {
        let mut settling = Settling::default();
        for at in 1..=7 {
            assert!(!beat(&mut settling, HERE, at * 100, (at + 1) * 100));
        }
        assert!(!beat(&mut settling, HERE, 850, 900), "touched at 850");
        for at in 9..=14 {
            assert!(!beat(&mut settling, HERE, at * 100, (at + 1) * 100));
        }
        assert!(beat(&mut settling, HERE, 1_500, 1_600));
    }

    #[test]
    fn beats_that_two_servers_send_on_in_turn_are_no_row() {
        let mut settling = Settling::default();
        for at in 1..=40 {
            let from = ServerId(2 + (at / 2 % 2) as u32);
            assert!(!beat(&mut settling, from, at * 100, (at + 1) * 100));
        }
    }

    #[test]
    fn beats_that_leave_the_deadline_where_it_is_do_not_count() {
        let mut settling = Settling::default();
        for now in 1..=40 {
            let touched = Touched {
                id: SessionId(7),
                timeout: Millis(1_000),
                before: Millis(9_000),
                after: Millis(9_000),
            };
            assert!(!settling.note(HERE, touched, Millis(now * 100)));
        }
    }

    #[test]
    fn when_too_many_are_known_the_older_half_is_forgotten() {
        let mut settling = Settling::default();
        for id in 0..=SETTLING_MAX as u64 {
            let touched = Touched {
                id: SessionId(id.into()),
                timeout: Millis(1_000),
                before: Millis(0),
                after: Millis(1),
            };
            settling.note(HERE, touched, Millis(id));
        }
        assert_eq!(settling.len(), SETTLING_MAX / 2);
        let newest = SessionId(SETTLING_MAX as u128 - 1);
        assert!(settling.known.contains_key(&newest));
        assert!(!settling.known.contains_key(&SessionId(0)));
    }
}
