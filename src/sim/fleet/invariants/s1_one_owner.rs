//! S1: each session has exactly one (owner, incarnation, term), and its term grows with each
//! owner.

use std::collections::HashMap;

use super::Verdict;
use crate::group::{Applied, Session};
use crate::types::SessionId;

/// The owner of each session so far.
#[derive(Default)]
pub(in super::super) struct OneOwner(HashMap<SessionId, Session>);

impl OneOwner {
    pub(in super::super) fn committed(&mut self, applied: &Applied) -> Verdict {
        for change in &applied.sessions {
            let new = change.session;
            let Some(old) = self.0.insert(new.id, new) else {
                continue;
            };
            let same = (old.owner, old.incarnation) == (new.owner, new.incarnation);
            if new.term < old.term || (!same && new.term == old.term) {
                return Err(format!("S1: {old:?} has become {new:?}"));
            }
        }
        Ok(())
    }
}
