//! Plain joins, as many as one input begins with: found together, asked of the core together.

use super::Shard;
use super::conn::{Class, ConnId};
use super::serve::Manner;
use crate::http::{self, PlainJoin};
use crate::time::Millis;

impl Shard {
    /// Puts the joins that `input` begins with to the core, as far as they are known in full
    /// and nothing stands in their way. Returns the bytes they take; whatever comes next is for
    /// those who look at everything. A tail is known of joins that were let in, so its timeout
    /// is within the bounds.
    #[inline]
    pub(super) fn join_run(&mut self, conn: ConnId, input: &[u8], now: Millis) -> usize {
        let Some(first) = self.plain_joins.join(input, &self.settings.http) else {
            return 0;
        };
        let open = &self.conns[conn.index as usize];
        if !open.takes(Class::Change) || !self.lease.promises(now) || !self.takes_changes() {
            return 0;
        }
        let room = self.room_for_joins(open.pending());
        let mut joins = [first; RUN_MAX];
        let (mut count, mut end) = (0, 0);
        let mut next = Some(first);
        while let Some(join) = next.filter(|_| count < room) {
            end += join.len;
            joins[count] = join;
            count += 1;
            next = self.plain_joins.join(&input[end..], &self.settings.http);
        }
        self.put_joins(conn, &joins[..count], now);
        end
    }

    fn put_joins(&mut self, conn: ConnId, joins: &[PlainJoin<'_>], now: Millis) {
        let Some(first) = joins.first() else {
            return;
        };
        let mut sought = [self.tracker.seek(first.group, first.member); RUN_MAX];
        for (sought, join) in sought.iter_mut().zip(joins).skip(1) {
            *sought = self.tracker.seek(join.group, join.member);
        }
        self.tracker.approach(&mut sought[..joins.len()]);
        for (join, sought) in joins.iter().zip(&sought) {
            let slot = self.tracker.found(sought);
            let manner = Manner {
                minimal: join.minimal,
                ..Manner::PLAIN_JOIN
            };
            let join = self.join_asked(join.group, join.member, join.timeout);
            self.put_join(conn, join, slot, manner, now);
        }
        self.counters.requests.add(joins.len() as u64);
        let open = &mut self.conns[conn.index as usize];
        open.progress = http::Progress::default();
        open.continued = false;
        open.since = now;
        open.changes = true;
    }

    /// How many joins there is room for at once, on a connection with so many answers under
    /// way.
    fn room_for_joins(&self, pending: usize) -> usize {
        let of_conn = self.settings.pipelined_max.saturating_sub(pending);
        let of_asks = self.settings.asks_max.saturating_sub(self.asked);
        let of_changes = self.admission.room_beside(self.asked);
        let room = of_conn.min(of_asks).min(of_changes).min(RUN_MAX);
        if self.has_room(room) { room } else { 0 }
    }
}

/// Joins that are looked at together.
const RUN_MAX: usize = 32;
