//! S8: the id of a session is never used again, whoever starts anew and whatever is wiped.

use std::collections::HashSet;

use super::Verdict;
use crate::group::Applied;
use crate::types::SessionId;

/// Every id so far.
#[derive(Default)]
pub(in super::super) struct Ids(HashSet<SessionId>);

impl Ids {
    pub(in super::super) fn committed(&mut self, applied: &Applied) -> Verdict {
        for change in &applied.sessions {
            let id = change.session.id;
            if change.created && !self.0.insert(id) {
                return Err(format!("S8: {id} is created again"));
            }
        }
        Ok(())
    }
}
