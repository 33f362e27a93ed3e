//! Where the members of sessions known by their ids alone are.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use super::groups::Groups;
use crate::group::SessionChange;
use crate::types::SessionId;

/// Session id → group and member, for beats by id that come to a server which does not hold the
/// session. Most ensembles never see one, so it is made when the first comes, and kept up to
/// date from then on: about 100 bytes a session, and 0.3 s once for a million.
pub(super) struct IdIndex {
    members: Option<HashMap<SessionId, Member, RandomState>>,
    hasher: RandomState,
}

/// The names of a group and of a member.
type Member = (Arc<[u8]>, Box<[u8]>);

impl IdIndex {
    pub(super) fn new(seeds: [u64; 4]) -> IdIndex {
        let [a, b, c, d] = seeds;
        IdIndex {
            members: None,
            hasher: RandomState::with_seeds(a, b, c, d),
        }
    }

    /// The member of a session that is active.
    pub(super) fn find(&mut self, groups: &Groups, id: SessionId) -> Option<Member> {
        let members = self.members.get_or_insert_with(|| {
            let mut members = HashMap::with_hasher(self.hasher.clone());
            let mut last: Option<Arc<[u8]>> = None;
            groups.state.for_each_active(|active| {
                let group = match &last {
                    Some(name) if **name == *active.group => Arc::clone(name),
                    _ => Arc::from(active.group),
                };
                last = Some(Arc::clone(&group));
                members.insert(active.session.id, (group, active.member.into()));
            });
            members
        });
        members.get(&id).cloned()
    }

    pub(super) fn on_session(&mut self, change: &SessionChange) {
        if change.created
            && let Some(members) = &mut self.members
        {
            let place = (Arc::clone(&change.group), change.member[..].into());
            members.insert(change.session.id, place);
        }
    }

    pub(super) fn on_ended(&mut self, id: SessionId) {
        if let Some(members) = &mut self.members {
            members.remove(&id);
        }
    }

    /// The state was replaced.
    pub(super) fn reset(&mut self) {
        self.members = None;
    }
}
