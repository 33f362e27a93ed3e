//! Connections that may wait: they are served last, and for a quarter of a millisecond a turn.
//!
//! Where many wait, one that sends more before it has been served is watched *aside* from then
//! on, as is every other then, in an epoll set of their own that is looked at only when those found
//! in it before have been served. A thousand connections that send as fast as they can would
//! otherwise fill the list of what is ready with their news, over and over, and each beat would
//! have to be picked out of it. And the set that is left can be slept in: where the core shares
//! the shard's processor the shard rests after each portion of bulk while there is more than it
//! can serve, so that the core has its turn, and whoever may not wait wakes it at once.

use std::collections::VecDeque;
use std::io;

use rustix::event::epoll::EventFlags;

use super::{Conn, ConnId, EVENTS_MAX, KEY_ASIDE, NS_PER_MS, Service, Sockets, WATCHED};
use crate::runtime::poller::Poller;

/// Who may wait, and how long they do.
pub(super) struct Bulk {
    /// Those that have something to do, and what `served_ns` was when they came to have it; the
    /// one that waits longest first.
    pub(super) queue: VecDeque<(ConnId, u64)>,
    /// For how long bulk connections have been served, each of them counted for a millisecond
    /// at most. A wait is counted in this time: the machine may not run us for a while, and
    /// that is no queue.
    pub(super) served_ns: u64,
    /// Turns since the last that came to `queue`, while others had more than a turn's work.
    waits: u32,
    /// The connection that is being served is late.
    pub(super) is_late: bool,
    /// When one was last late, and when one was last put aside, on the clock.
    late_at_ns: Option<u64>,
    put_at_ns: Option<u64>,
    /// Watches those that are aside.
    aside: Poller,
    aside_count: usize,
    /// The others' set tells of news aside, once.
    is_told: bool,
    /// What `served_ns` was when nobody aside had news that was not seen.
    seen_ns: u64,
    /// Since the turn began nobody aside has been found to have unseen news.
    is_seen: bool,
    /// Until when the shard rests, on the clock.
    rests_until_ns: u64,
    /// Since when it sleeps on that account.
    rests_since_ns: u64,
}

impl Bulk {
    /// Nobody; what happens aside can be told by `poller`, and is not yet.
    pub(super) fn new(poller: &Poller) -> io::Result<Bulk> {
        let aside = Poller::new(EVENTS_MAX)?;
        poller.add(&aside, KEY_ASIDE, EventFlags::empty())?;
        Ok(Bulk {
            queue: VecDeque::new(),
            served_ns: 0,
            waits: 0,
            is_late: false,
            late_at_ns: None,
            put_at_ns: None,
            aside,
            is_told: false,
            aside_count: 0,
            seen_ns: 0,
            is_seen: true,
            rests_until_ns: 0,
            rests_since_ns: 0,
        })
    }

    /// The others' set has told of news aside.
    pub(super) fn told(&mut self) {
        self.is_told = false;
    }

    /// The turn has slept, if it was to, until now. They wait for the rest as for each other.
    pub(super) fn woken(&mut self, now_ns: u64) {
        let since_ns = std::mem::take(&mut self.rests_since_ns);
        if since_ns > 0 {
            self.served_ns += (now_ns - since_ns).min(NS_PER_MS);
        }
    }

    /// One that was aside is gone.
    pub(super) fn lost(&mut self) {
        self.aside_count -= 1;
    }

    /// What `served_ns` was when a connection with news came to have it, or before: the news of one
    /// aside may be as old as its last turn, of which this is the time.
    pub(super) fn since(&self, aside_ns: Option<u64>) -> u64 {
        aside_ns.map_or(self.served_ns, |ns| ns.max(self.seen_ns))
    }

    /// True if all that those aside have sent is known.
    pub(super) fn is_seen(&self) -> bool {
        self.is_seen
    }
}

impl Sockets {
    /// For how long the turn that begins may sleep, if it may for `idle_ns` where nothing is
    /// left to do.
    pub(super) fn sleep_ns(&mut self, idle_ns: u32) -> io::Result<u32> {
        if !self.again.is_empty() {
            return Ok(0);
        }
        if self.bulk.queue.is_empty() {
            // Who sleeps with nothing to do, here or with the executor, is woken by anybody.
            if idle_ns > 0 && self.bulk.aside_count > 0 && !self.bulk.is_told {
                let once = EventFlags::IN | EventFlags::ONESHOT;
                self.poller.modify(&self.bulk.aside, KEY_ASIDE, once)?;
                self.bulk.is_told = true;
            }
            return Ok(idle_ns);
        }
        if self.bulk.rests_until_ns == 0 {
            return Ok(0);
        }
        let now_ns = (self.clock)();
        let left_ns = self.bulk.rests_until_ns.saturating_sub(now_ns);
        self.bulk.rests_since_ns = now_ns;
        Ok(u32::try_from(left_ns).unwrap_or(0))
    }

    /// Queues those aside that have news, if those that had some before have been served.
    pub(super) fn look_aside<S: Service>(&mut self, service: &mut S) -> io::Result<()> {
        self.bulk.is_seen = self.bulk.aside_count == 0;
        if self.bulk.is_seen || !self.bulk.queue.is_empty() {
            return Ok(());
        }
        let count = self.bulk.aside.take(0)?;
        for index in 0..count {
            let (key, flags) = self.bulk.aside.event(index);
            self.on_event(ConnId::from_key(key), flags, service);
        }
        if count < EVENTS_MAX {
            self.bulk.is_seen = true;
            self.bulk.seen_ns = self.bulk.served_ns;
        }
        Ok(())
    }

    /// Serves bulk connections, unless `more_urgent` ones are to come first, or the shard rests.
    /// It rests for `rest_ns` once it has served them for as long as a turn may.
    pub(super) fn attend_bulk<S: Service>(
        &mut self,
        service: &mut S,
        more_urgent: bool,
        rest_ns: u32,
    ) {
        if self.bulk.queue.is_empty() {
            self.bulk.waits = 0;
            return;
        }
        if more_urgent && self.bulk.waits < BULK_WAITS_MAX {
            self.bulk.waits += 1;
            return;
        }
        let now_ns = (self.clock)();
        if now_ns < self.bulk.rests_until_ns {
            return;
        }
        self.bulk.waits = 0;
        let now_ns = self.serve_bulk(service, now_ns);
        let is_pressed = self.bulk.aside_count > 0 || !self.is_calm(now_ns);
        let rests = rest_ns > 0 && is_pressed && !self.bulk.queue.is_empty();
        self.bulk.rests_until_ns = match rests {
            true => now_ns + u64::from(rest_ns),
            false => 0,
        };
    }

    /// Serves bulk connections, each once, for as long as a turn may. Returns the time.
    fn serve_bulk<S: Service>(&mut self, service: &mut S, begin_ns: u64) -> u64 {
        let mut now_ns = begin_ns;
        for _ in 0..self.bulk.queue.len() {
            let Some((conn, since_ns)) = self.bulk.queue.pop_front() else {
                break;
            };
            let is_late = self.bulk.served_ns - since_ns > BULK_LATE_NS;
            if is_late {
                self.bulk.late_at_ns = Some(now_ns);
            }
            let served_ns = self.bulk.served_ns;
            if let Some(open) = self.get(conn) {
                open.queued = false;
                open.served_ns = served_ns;
                self.bulk.is_late = is_late;
                service.late(is_late);
                self.go_on(conn, service);
            }
            let before_ns = now_ns;
            now_ns = (self.clock)();
            self.bulk.served_ns += (now_ns - before_ns).min(NS_PER_MS);
            if now_ns - begin_ns >= BULK_NS_MAX {
                break;
            }
        }
        self.bulk.is_late = false;
        service.late(false);
        now_ns
    }

    /// True if a connection that has news is to be watched aside: it waits for its turn already,
    /// and so do many, or others are aside, and none is to come before them.
    pub(super) fn belongs_aside(&self, open: &Conn) -> bool {
        let is_one_of_many = open.queued && self.bulk.queue.len() >= ASIDE_MIN;
        open.bulk && !open.aside && (is_one_of_many || self.bulk.aside_count > 0)
    }

    /// Watches a connection aside from now on.
    pub(super) fn put_aside<S: Service>(&mut self, conn: ConnId, service: &mut S) {
        let Some(open) = self.get(conn) else {
            return;
        };
        open.aside = true;
        self.bulk.aside_count += 1;
        self.bulk.put_at_ns = Some((self.clock)());
        let place = &self.conns[conn.index as usize];
        let Some(open) = &place.conn else { return };
        let moved = self.poller.remove(&open.fd);
        // What is ready now is news in the other set too.
        let moved = moved.and_then(|()| self.bulk.aside.add(&open.fd, conn.key(), WATCHED));
        if moved.is_err() {
            self.drop_conn(conn, service);
        }
    }

    /// Watches a connection with the others again; false if that cannot be, and it is gone.
    pub(super) fn bring_back<S: Service>(&mut self, conn: ConnId, service: &mut S) -> bool {
        let Some(open) = self.get(conn).filter(|open| open.aside) else {
            return true;
        };
        open.aside = false;
        self.bulk.aside_count -= 1;
        let place = &self.conns[conn.index as usize];
        let Some(open) = &place.conn else { return true };
        let moved = self.bulk.aside.remove(&open.fd);
        let moved = moved.and_then(|()| self.poller.add(&open.fd, conn.key(), WATCHED));
        if moved.is_err() {
            self.drop_conn(conn, service);
        }
        moved.is_ok()
    }

    /// True if nobody has been late or put aside for a while.
    pub(super) fn is_calm(&self, now_ns: u64) -> bool {
        is_long_ago(self.bulk.late_at_ns, now_ns) && is_long_ago(self.bulk.put_at_ns, now_ns)
    }
}

/// True if it was a while ago, or never.
fn is_long_ago(at_ns: Option<u64>, now_ns: u64) -> bool {
    at_ns.is_none_or(|at_ns| now_ns.saturating_sub(at_ns) >= CALM_NS)
}

/// How long one turn serves bulk connections, nanoseconds; the last of them may take a little
/// longer, for it is served a buffer of `STAGE_BYTES`, or of `LATE_BYTES` that are refused.
const BULK_NS_MAX: u64 = 250_000;
/// A bulk connection that has waited while others were served for longer is late, nanoseconds.
pub(super) const BULK_LATE_NS: u64 = 20_000_000;
/// Connections that wait, from which on those that send more are put aside: the news of fewer
/// comes in one batch.
const ASIDE_MIN: usize = EVENTS_MAX;
/// Turns that others may fill before bulk connections have theirs.
pub(super) const BULK_WAITS_MAX: u32 = 8;
/// After so long without anybody late there is time enough for everybody, and nobody need be aside;
/// nanoseconds.
pub(super) const CALM_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_counts_as_a_wait_and_a_machine_that_stood_still_meanwhile_does_not() {
        let mut bulk = Bulk::new(&Poller::new(1).unwrap()).unwrap();
        for (since_ns, now_ns, waited_ns) in [
            (0, 7, 0),
            (7, 150_007, 150_000),
            (8, NS_PER_MS * 9, NS_PER_MS),
        ] {
            bulk.rests_since_ns = since_ns;
            let before_ns = bulk.served_ns;
            bulk.woken(now_ns);
            bulk.woken(now_ns + 5);
            assert_eq!(bulk.served_ns - before_ns, waited_ns);
        }
    }
}
