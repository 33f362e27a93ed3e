//! What must be true over all the runs of a story, whatever the servers remember of it.

use std::collections::BTreeMap;

use crate::types::Epoch;
use crate::zab::Entry;

/// Sees all that servers deliver and announce, and forgets nothing.
#[derive(Default)]
pub(super) struct Ghost {
    /// What has been delivered anywhere, in order.
    agreed: Vec<Entry>,
    /// Who was established in which epoch.
    leaders: BTreeMap<Epoch, u32>,
    /// In which run a server announced which epoch.
    announced: BTreeMap<(u32, Epoch), u64>,
}

impl Ghost {
    /// These are committed, from before the story.
    pub(super) fn agree(&mut self, entries: Vec<Entry>) {
        self.agreed = entries;
    }

    pub(super) fn agreed(&self) -> &[Entry] {
        &self.agreed
    }

    /// A server has delivered all of this, of which the first `seen` were told before.
    pub(super) fn delivers(&mut self, delivered: &[Entry], seen: usize) -> Result<(), String> {
        for (at, entry) in delivered.iter().enumerate().skip(seen) {
            match self.agreed.get(at) {
                Some(agreed) if agreed == entry => {}
                Some(agreed) => {
                    return Err(format!(
                        "delivers {} where {} was delivered before",
                        describe(entry),
                        describe(agreed)
                    ));
                }
                None => self.agreed.push(entry.clone()),
            }
        }
        Ok(())
    }

    /// A server leads an epoch as its established leader.
    pub(super) fn leads(&mut self, id: u32, epoch: Epoch) -> Result<(), String> {
        let leader = *self.leaders.entry(epoch).or_insert(id);
        if leader == id {
            return Ok(());
        }
        Err(format!("leads epoch {epoch}, which {leader} led"))
    }

    /// A server announces an epoch in one of its runs.
    pub(super) fn announces(&mut self, id: u32, run: u64, epoch: Epoch) -> Result<(), String> {
        let first = *self.announced.entry((id, epoch)).or_insert(run);
        if first == run {
            return Ok(());
        }
        Err(format!(
            "announces epoch {epoch} as it did in an earlier run"
        ))
    }
}

fn describe(entry: &Entry) -> String {
    let text = String::from_utf8_lossy(&entry.payload);
    format!("{text:?} at {}", entry.zxid)
}
