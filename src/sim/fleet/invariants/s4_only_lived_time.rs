//! S4, the other way round: an owner counts against a session only time in which it could have
//! been promised something. What its lease had lapsed, or its shard had no turn, is no silence of
//! the client: so neither an election nor a pause expires who beats.

use std::collections::HashMap;

use super::Verdict;
use crate::time::{Millis, TICK_MS};
use crate::types::SessionId;

/// What each shard has been able to promise, on its server's clock.
#[derive(Default)]
pub(in super::super) struct Lived {
    shards: HashMap<(usize, u16), Shard>,
}

#[derive(Default)]
struct Shard {
    /// The end of its lease, as it was told.
    until: Millis,
    /// Up to here lapsed time is in `lapsed`.
    counted: Millis,
    lapsed: Millis,
    /// Time in which it had no turn, beyond what any loop may take.
    stalled: Millis,
    turned: Millis,
    /// Its last turn came late, too.
    late: bool,
    /// Lapsed time that was known at its last turn.
    lapsed_before: Millis,
    /// The last promise to each session: when, for how long, and what had been lost until then.
    promised: HashMap<SessionId, (Millis, Millis, Millis)>,
}

impl Lived {
    /// A server has started.
    pub(in super::super) fn started(&mut self, at: usize) {
        self.shards.retain(|(server, _), _| *server != at);
    }

    /// A shard is told of a lease.
    pub(in super::super) fn leased(&mut self, place: (usize, u16), clock: Millis, until: Millis) {
        let shard = self.shards.entry(place).or_default();
        shard.count(clock);
        shard.until = until;
    }

    /// A shard has its turn; one that is later than `stall_min` was kept from it.
    pub(in super::super) fn turns(
        &mut self,
        place: (usize, u16),
        clock: Millis,
        stall_min: Millis,
    ) {
        let shard = self.shards.entry(place).or_default();
        let gap = clock.since(shard.turned);
        if gap.0 < TICK_MS / 2 {
            return;
        }
        shard.count(clock);
        shard.turned = clock;
        let lived = gap.since(shard.lapsed.since(shard.lapsed_before));
        shard.lapsed_before = shard.lapsed;
        let late = std::mem::replace(&mut shard.late, gap > stall_min);
        if shard.late {
            let busy = if late { stall_min } else { Millis(TICK_MS) };
            shard.stalled = shard.stalled + lived.since(busy);
        }
    }

    /// A shard has promised a session something, by itself and just now.
    pub(in super::super) fn promised(
        &mut self,
        place: (usize, u16),
        clock: Millis,
        (id, timeout): (SessionId, Millis),
    ) {
        let shard = self.shards.entry(place).or_default();
        shard.count(clock);
        // What has passed since its last turn is before this promise, however it is counted then.
        let lost = shard.lapsed + shard.stalled + clock.since(shard.turned);
        shard.promised.insert(id, (clock, timeout, lost));
    }

    /// A shard hears that a session's timeout has changed; it may change back unheard.
    pub(in super::super) fn retimed(
        &mut self,
        place: (usize, u16),
        (id, timeout): (SessionId, Millis),
    ) {
        let shard = self.shards.entry(place).or_default();
        if let Some((_, before, _)) = shard.promised.get_mut(&id) {
            *before = timeout.min(*before);
        }
    }

    /// A shard proposes that a session expires, whose timeout is this by now.
    pub(in super::super) fn expires(
        &mut self,
        place: (usize, u16),
        clock: Millis,
        (id, timeout): (SessionId, Millis),
    ) -> Verdict {
        let shard = self.shards.entry(place).or_default();
        shard.count(clock);
        let Some((at, before, lost)) = shard.promised.get(&id) else {
            return Ok(());
        };
        let lost = (shard.lapsed + shard.stalled).since(*lost);
        let lived = clock.since(*at).since(lost);
        if lived >= timeout.min(*before) {
            return Ok(());
        }
        let (server, lived, lost) = (place.0 + 1, lived.0, lost.0);
        Err(format!(
            "S4: server {server} expires {id} after {lived} ms, {lost} ms not counted in which it \
             could not be promised anything"
        ))
    }
}

impl Shard {
    fn count(&mut self, clock: Millis) {
        let from = self.counted.max(self.until);
        self.lapsed = self.lapsed + clock.since(from);
        self.counted = self.counted.max(clock);
    }
}
