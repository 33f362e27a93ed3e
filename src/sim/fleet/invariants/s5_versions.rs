//! S5: a group's version grows by exactly one with each visible committed change, never goes
//! back, and never goes back for a client across servers.

use std::collections::HashMap;
use std::sync::Arc;

use super::Verdict;
use crate::group::{Applied, State};
use crate::types::GroupVersion;

/// The version of each group so far, tombstones included.
#[derive(Default)]
pub(in super::super) struct Versions(HashMap<Arc<[u8]>, GroupVersion>);

impl Versions {
    /// The versions of groups that are there in the beginning.
    pub(in super::super) fn remembers(&mut self, state: &State) {
        let groups = state.list(None, usize::MAX);
        self.0 = groups
            .map(|group| (group.name.into(), group.version))
            .collect();
    }

    pub(in super::super) fn committed(&mut self, applied: &Applied) -> Verdict {
        for change in &applied.groups {
            let old = self.0.insert(change.group.clone(), change.version);
            let next = old.map_or(GroupVersion(0), |old| GroupVersion(old.0 + 1));
            if change.version != next {
                let group = String::from_utf8_lossy(&change.group);
                return Err(format!(
                    "S5: {group} went from {old:?} to {}",
                    change.version
                ));
            }
        }
        Ok(())
    }

    /// A client that has seen `floor` is shown `version`.
    pub(in super::super) fn shown(
        floor: Option<GroupVersion>,
        version: Option<GroupVersion>,
    ) -> Verdict {
        match (floor, version) {
            (Some(floor), Some(version)) if version < floor => Err(format!(
                "S5: a client that has seen {floor} is shown {version}"
            )),
            _ => Ok(()),
        }
    }
}
