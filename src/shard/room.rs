//! Who waits on this shard for which group: the lists, and who is to be looked at next.
//!
//! All who wait for one group hang on one *spot*. A change of the group costs the spot one step,
//! however many they are: those who rest become those who are due. They are looked at in small
//! pieces, between which the shard serves its sockets.
//!
//! The lists hold connections, not what these wait for, and are not tidied when a client goes:
//! whoever takes a connection from a list asks whether it still hangs there.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::conn::ConnId;
use super::document::Rendered;
use super::watch::Wait;
use crate::group::{Document, Rank, Ring};
use crate::time::Millis;
use crate::types::GroupVersion;

/// The spots of a shard.
#[derive(Default)]
pub(super) struct Room {
    spots: Vec<Spot>,
    free: Vec<u32>,
    by_name: HashMap<Arc<[u8]>, u32>,
    /// What those wait for that have not been answered yet, by connection.
    waits: HashMap<ConnId, Wait>,
    /// When their patience ends.
    deadlines: BTreeSet<(Millis, u64)>,
    /// Spots that have somebody due, each once.
    due: VecDeque<u32>,
    /// Spots that were deserted, each once, and when; they may have been found again since.
    deserted: VecDeque<(Millis, u32)>,
    /// How many wait or listen, on all spots.
    watchers: usize,
    /// When the shard was last ticked or told something.
    pub(super) now: Millis,
}

/// A group that somebody waits for, or did lately.
pub(super) struct Spot {
    pub(super) name: Arc<[u8]>,
    /// The core has told how the group stands, and tells whatever happens.
    pub(super) known: bool,
    /// Its version, if it exists.
    pub(super) exists: Option<GroupVersion>,
    pub(super) ring: Ring,
    /// Grows when what the ring holds does not go on from what it held before.
    pub(super) life: u32,
    /// A document that the core has given for those who are due.
    pub(super) document: Option<(Document, Rc<Rendered>)>,
    /// The core has been asked for one.
    pub(super) asked: bool,
    /// How many wait or listen here.
    watchers: usize,
    /// Those who rest until something happens.
    resting: Vec<ConnId>,
    /// Those who wait for the document.
    for_document: Vec<ConnId>,
    due: VecDeque<ConnId>,
    /// It stands in the room's line of spots that have somebody due.
    in_line: bool,
    /// When the last one went, if nobody is here.
    deserted: Option<Millis>,
    /// It stands among the deserted ones, rightly or not any more.
    queued: bool,
}

impl Room {
    /// How many wait or listen.
    pub(super) fn watchers(&self) -> usize {
        self.watchers
    }

    /// How many groups have a spot.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if somebody is due.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// True if time means anything here.
    pub(super) fn needs_tick(&self) -> bool {
        self.len() > 0
    }

    /// How many connections rest on a spot, those included that are gone.
    #[cfg(test)]
    pub(super) fn resting(&self, index: u32) -> usize {
        self.spots[index as usize].resting.len()
    }

    pub(super) fn find(&self, group: &[u8]) -> Option<u32> {
        self.by_name.get(group).copied()
    }

    pub(super) fn spot(&self, index: u32) -> &Spot {
        &self.spots[index as usize]
    }

    pub(super) fn spot_mut(&mut self, index: u32) -> &mut Spot {
        &mut self.spots[index as usize]
    }

    /// The places of all spots.
    pub(super) fn all(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.by_name.values().copied().collect();
        all.sort_unstable();
        all
    }

    /// Makes a spot for a group that has none.
    pub(super) fn make(&mut self, name: &Arc<[u8]>) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.spots.push(Spot::new(name));
            u32::try_from(self.spots.len() - 1).expect("fewer spots than connections")
        });
        // A list of an earlier spot in this place may have been kept.
        self.spots[index as usize] = Spot::new(name);
        self.by_name.insert(Arc::clone(name), index);
        index
    }

    /// One more waits or listens here.
    pub(super) fn enter(&mut self, index: u32) {
        self.watchers += 1;
        let spot = &mut self.spots[index as usize];
        spot.watchers += 1;
        spot.deserted = None;
    }

    /// One who was here is gone.
    pub(super) fn leave(&mut self, index: u32, conn: ConnId) {
        self.take_wait(conn);
        let now = self.now;
        self.watchers -= 1;
        let spot = &mut self.spots[index as usize];
        spot.watchers -= 1;
        if spot.watchers == 0 {
            spot.resting = Vec::new();
            spot.deserted = Some(now);
            if !std::mem::replace(&mut spot.queued, true) {
                self.deserted.push_back((now, index));
            }
        }
    }

    /// Puts a connection where it rests until something happens, or where it is due.
    pub(super) fn list(&mut self, index: u32, conn: ConnId, due: bool) {
        let spot = &mut self.spots[index as usize];
        if due {
            spot.due.push_back(conn);
            self.is_due(index);
        } else {
            spot.resting.push(conn);
        }
    }

    /// Drops from a list that has grown too long who is not here any more, or twice.
    pub(super) fn tidy(&mut self, index: u32, is_here: impl Fn(ConnId) -> bool) {
        let spot = &mut self.spots[index as usize];
        if spot.resting.len() > 2 * spot.watchers + RESTING_SLACK {
            spot.resting.retain(|conn| is_here(*conn));
            spot.resting.sort_unstable_by_key(|conn| conn.key());
            spot.resting.dedup();
        }
    }

    /// Puts a connection among those that wait for the document.
    pub(super) fn list_for_document(&mut self, index: u32, conn: ConnId) {
        self.spots[index as usize].for_document.push(conn);
    }

    /// Something has happened: all who rest are due.
    pub(super) fn stir(&mut self, index: u32) {
        let spot = &mut self.spots[index as usize];
        if spot.due.is_empty() {
            // Most often: the list changes hands as it is.
            spot.due = std::mem::take(&mut spot.resting).into();
        } else {
            spot.due.extend(spot.resting.drain(..));
        }
        self.is_due(index);
    }

    /// The document has come: all who waited for it are due.
    pub(super) fn stir_for_document(&mut self, index: u32) {
        let spot = &mut self.spots[index as usize];
        spot.due.extend(spot.for_document.drain(..));
        self.is_due(index);
    }

    fn is_due(&mut self, index: u32) {
        let spot = &mut self.spots[index as usize];
        if !spot.due.is_empty() && !std::mem::replace(&mut spot.in_line, true) {
            self.due.push_back(index);
        }
    }

    /// The next who is due, and on which spot.
    pub(super) fn next_due(&mut self) -> Option<(u32, ConnId)> {
        let index = *self.due.front()?;
        let conn = self.spots[index as usize].due.pop_front()?;
        Some((index, conn))
    }

    /// To be called after each who was due: lets go of what nobody is due for any more.
    pub(super) fn settle(&mut self, index: u32) {
        let spot = &mut self.spots[index as usize];
        if spot.due.is_empty() {
            spot.document = None;
            spot.in_line = false;
            let first = self.due.pop_front();
            debug_assert_eq!(first, Some(index), "the first in line was looked at");
        }
    }

    /// Lets the next spot have its turn.
    pub(super) fn rotate(&mut self) {
        if let Some(index) = self.due.pop_front() {
            self.due.push_back(index);
        }
    }

    /// What a connection waits for.
    pub(super) fn keep_wait(&mut self, conn: ConnId, wait: Wait) {
        if let Some(until) = wait.until {
            self.deadlines.insert((until, conn.key()));
        }
        self.waits.insert(conn, wait);
    }

    /// The same, to be looked at or changed; [`Room::keep_wait`] puts it back.
    pub(super) fn take_wait(&mut self, conn: ConnId) -> Option<Wait> {
        let wait = self.waits.remove(&conn)?;
        if let Some(until) = wait.until {
            self.deadlines.remove(&(until, conn.key()));
        }
        Some(wait)
    }

    /// A connection whose patience has ended by `now`.
    pub(super) fn overdue(&self, now: Millis) -> Option<ConnId> {
        let (until, key) = self.deadlines.first()?;
        (*until <= now).then(|| ConnId::from_key(*key))
    }

    /// Removes a spot that has been deserted since before `before`, or the one deserted first
    /// if there are too many; tells its name.
    pub(super) fn abandon(&mut self, before: Millis) -> Option<Arc<[u8]>> {
        // Each is looked at once a call: those that cannot go yet are put back.
        for _ in 0..self.deserted.len() {
            let (when, index) = *self.deserted.front()?;
            let crowded = self.deserted.len() > DESERTED_MAX;
            if when > before && !crowded {
                return None;
            }
            self.deserted.pop_front();
            let spot = &mut self.spots[index as usize];
            spot.queued = false;
            let Some(since) = spot.deserted else { continue };
            // The core may still owe it an answer.
            let idle = spot.known && !spot.asked && spot.due.is_empty();
            if !idle || (since > before && !crowded) {
                spot.queued = true;
                self.deserted.push_back((since, index));
                continue;
            }
            let name = Arc::clone(&spot.name);
            self.by_name.remove(&name);
            self.free.push(index);
            return Some(name);
        }
        None
    }
}

impl Spot {
    fn new(name: &Arc<[u8]>) -> Spot {
        Spot {
            name: Arc::clone(name),
            known: false,
            exists: None,
            ring: Ring::new(Rank::NOTHING),
            life: 0,
            document: None,
            asked: false,
            watchers: 0,
            resting: Vec::new(),
            for_document: Vec::new(),
            due: VecDeque::new(),
            in_line: false,
            deserted: None,
            queued: false,
        }
    }
}

/// Connections that a list may hold beyond twice those that are there, before it is tidied.
const RESTING_SLACK: usize = 64;
/// Groups that nobody watches any more and whose events are kept all the same, for clients that
/// were cut and come back.
const DESERTED_MAX: usize = 1_024;
