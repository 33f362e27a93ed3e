//! The sessions of lost owners, in the order in which they fall due.

use crate::group::{EXPIRE_BATCH_MAX, Lapse, Place, State};
use crate::time::Millis;
use crate::types::{Incarnation, ServerId};

/// What the leader has found of lost owners' sessions.
///
/// The state is looked through piece by piece, so that the core is never held up, and once for
/// each loss of an owner: a session may leave a lost owner meanwhile, and then its expiry comes to
/// nothing, but none can come to it without its being heard of again.
#[derive(Default)]
pub(super) struct Orphans {
    searches: Vec<Search>,
}

type Owner = (ServerId, Incarnation);

struct Search {
    owner: Owner,
    /// When the owner was last heard of as this began.
    base: Millis,
    after: Option<Place>,
    complete: bool,
    /// With their timeouts; once complete, the shortest last.
    found: Vec<(Millis, Lapse)>,
}

impl Orphans {
    /// Forgets everything: this server leads no more, or has begun to.
    pub(super) fn clear(&mut self) {
        self.searches.clear();
    }

    /// Forgets owners that are not lost any more.
    pub(super) fn retain(&mut self, lost: &[Owner]) {
        self.searches.retain(|search| lost.contains(&search.owner));
    }

    /// Sessions of a lost owner whose timeouts are `due`, at most one batch; or none yet, while
    /// the owner's sessions are looked for.
    pub(super) fn due(
        &mut self,
        state: &State,
        owner: Owner,
        base: Millis,
        due: impl Fn(Millis) -> bool,
    ) -> Vec<Lapse> {
        let known = self
            .searches
            .iter()
            .position(|search| search.owner == owner);
        let at = known.unwrap_or_else(|| {
            self.searches.push(Search::new(owner, base));
            self.searches.len() - 1
        });
        let search = &mut self.searches[at];
        if search.base != base {
            // It was heard of meanwhile, and sessions may have come to it.
            *search = Search::new(owner, base);
        }
        search.go_on(state);
        if !search.complete {
            return Vec::new();
        }
        let not_due = search.found.partition_point(|(timeout, _)| !due(*timeout));
        let from = not_due.max(
            search
                .found
                .len()
                .saturating_sub(EXPIRE_BATCH_MAX.min(BATCH_MAX)),
        );
        let batch = search.found.drain(from..).map(|(_, lapse)| lapse);
        let batch = batch.filter(|lapse| {
            let session = state.session(&lapse.group, &lapse.member);
            session.is_some_and(|session| session.id == lapse.id && session.term == lapse.term)
        });
        batch.collect()
    }
}

impl Search {
    fn new(owner: Owner, base: Millis) -> Search {
        Search {
            owner,
            base,
            after: None,
            complete: false,
            found: Vec::new(),
        }
    }

    fn go_on(&mut self, state: &State) {
        if self.complete {
            return;
        }
        let (server, incarnation) = self.owner;
        let found = &mut self.found;
        self.after = state.scan_owner(
            server,
            incarnation,
            self.after.as_ref(),
            SCAN_LIMIT,
            |active| {
                let lapse = Lapse {
                    group: active.group.into(),
                    member: active.member.into(),
                    id: active.session.id,
                    term: active.session.term,
                };
                found.push((active.session.timeout, lapse));
            },
        );
        if self.after.is_none() {
            self.complete = true;
            self.found
                .sort_by_key(|(timeout, _)| std::cmp::Reverse(*timeout));
        }
    }
}

/// Members looked at in one piece: a few milliseconds.
const SCAN_LIMIT: usize = 50_000;
/// Sessions in one transaction.
const BATCH_MAX: usize = 2_048;
