//! Reading the log back for this server's own replica: on a thread, a little at a time.
//!
//! A start restores the newest snapshot; what follows it is read once it is known to be
//! committed. It is given to the replica a few milliseconds at a time, so that frames, pings and
//! beats have their turns in between. A batch is no measure for that: a join takes a microsecond,
//! and a piece of an adoption, which is no longer, ten thousand.

use std::collections::VecDeque;
use std::sync::Arc;

use flume::{Receiver, Sender};

use super::{CoreFailure, Pipeline, ToCore, on_thread};
use crate::log::{Entries, FileDisk, ReadError};
use crate::runtime::background::Urgency;
use crate::runtime::clock;
use crate::time::Millis;
use crate::types::Zxid;
use crate::zab::{Entry, Replay};

/// What is being read, and what is to be.
pub(super) struct Replays {
    reports: Sender<ToCore>,
    /// Asked for, and after how many writes it may begin.
    asked: Option<(Replay, u64)>,
    /// Under way.
    reading: Option<Reading>,
    /// Counts them: a batch of an earlier one is dropped.
    number: u64,
    /// The log's end at the start: what is read up to there was not logged by this run.
    found: Zxid,
}

struct Reading {
    replay: Replay,
    /// The last transaction given to the replica.
    given: Zxid,
    /// Lets the thread read on; dropped, it ends.
    more: Sender<()>,
    /// Read, and not yet given.
    read: VecDeque<Entry>,
    /// Batches that came since it was last empty.
    batches: usize,
}

/// Some of the log.
pub struct Replayed {
    number: u64,
    pub(super) batch: Result<Vec<Entry>, ReadError>,
}

impl Replays {
    pub(super) fn new(reports: Sender<ToCore>, found: Zxid) -> Replays {
        Replays {
            reports,
            asked: None,
            reading: None,
            number: 0,
            found,
        }
    }

    /// Asks for a part of the log, to be read once `writes` writes have been made in all. It
    /// takes the place of one that is not finished.
    pub(super) fn ask(&mut self, replay: Replay, writes: u64) {
        self.end();
        self.asked = Some((replay, writes));
    }

    /// Gives up what is being read.
    pub(super) fn end(&mut self) {
        self.asked = None;
        self.reading = None;
    }
}

impl Pipeline {
    /// Begins to read what is asked for, if it is time.
    pub(super) fn begin_replay(&mut self) -> Result<(), CoreFailure> {
        let made = self.writes.made();
        let Some((replay, _)) = self.replays.asked.take_if(|(_, after)| made >= *after) else {
            return Ok(());
        };
        let entries = self.log.entries_after(replay.after).map_err(unreadable)?;
        let (more, go) = flume::bounded(BATCHES_AHEAD);
        for _ in 0..BATCHES_AHEAD {
            // There is room for as many.
            let _ = more.try_send(());
        }
        self.replays.number += 1;
        let (number, reports) = (self.replays.number, self.replays.reports.clone());
        on_thread("replay", Urgency::Waited, move || {
            read_on(entries, replay, number, &go, &reports);
        });
        let given = replay.after;
        self.replays.reading = Some(Reading {
            replay,
            given,
            more,
            read: VecDeque::new(),
            batches: 0,
        });
        Ok(())
    }

    /// Takes what was read, to be given to the replica.
    pub(super) fn on_replayed(&mut self, replayed: Replayed) -> Result<(), CoreFailure> {
        let Some(reading) = &mut self.replays.reading else {
            return Ok(());
        };
        if replayed.number != self.replays.number {
            return Ok(());
        }
        let batch = replayed.batch.map_err(unreadable)?;
        if batch.is_empty() {
            let last = reading.read.back().map_or(reading.given, |last| last.zxid);
            let upto = reading.replay.upto;
            return Err(CoreFailure(format!(
                "the log cannot be read back: it ends at {last}, and should hold {upto}"
            )));
        }
        reading.read.extend(batch);
        reading.batches += 1;
        Ok(())
    }

    /// Gives the replica some of what was read.
    pub(super) fn go_on_replaying(&mut self) {
        let began = clock::now();
        let mut now = began;
        while now.since(began) < REPLAY_MAX
            && let Some(entry) = self.replays.next()
        {
            if entry.zxid <= self.replays.found {
                self.snapshots.logged(entry.payload.len());
            }
            self.replica.on_replayed(now, &entry);
            now = clock::now();
        }
        if self.replays.has_read() {
            // Another turn soon. If there is no room, a message is there to begin it.
            let _ = self.replays.reports.try_send(ToCore::Nudge);
        }
    }
}

impl Replays {
    /// True if something is read and not yet given.
    fn has_read(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| !reading.read.is_empty())
    }

    /// The next transaction that is read, to be given.
    fn next(&mut self) -> Option<Entry> {
        let reading = self.reading.as_mut()?;
        let entry = reading.read.pop_front()?;
        reading.given = entry.zxid;
        if reading.read.is_empty() {
            for _ in 0..std::mem::take(&mut reading.batches) {
                let _ = reading.more.try_send(());
            }
        }
        if reading.given == reading.replay.upto {
            self.reading = None;
        }
        Some(entry)
    }
}

/// Reads batch after batch; an empty one says that the log has ended.
pub(super) fn read_on(
    mut entries: Entries<FileDisk>,
    replay: Replay,
    number: u64,
    go: &Receiver<()>,
    reports: &Sender<ToCore>,
) {
    while go.recv().is_ok() {
        let batch = collect(&mut entries, replay.upto, BATCH_ENTRIES, BATCH_BYTES);
        let done = match &batch {
            Ok(batch) => batch.last().is_none_or(|last| last.zxid >= replay.upto),
            Err(_) => true,
        };
        let replayed = Replayed { number, batch };
        if reports.send(ToCore::Replayed(replayed)).is_err() || done {
            return;
        }
    }
}

/// The next entries up to `upto`, until there are so many, or so many bytes of them.
pub(super) fn collect(
    entries: &mut Entries<FileDisk>,
    upto: Zxid,
    entries_max: usize,
    bytes_max: usize,
) -> Result<Vec<Entry>, ReadError> {
    let mut collected = Vec::new();
    let mut bytes = 0;
    while let Some(entry) = entries.next()? {
        if entry.zxid > upto {
            break;
        }
        let (zxid, payload): (Zxid, Arc<[u8]>) = (entry.zxid, entry.payload.into());
        bytes += payload.len();
        collected.push(Entry { zxid, payload });
        if zxid == upto || bytes >= bytes_max || collected.len() >= entries_max {
            break;
        }
    }
    Ok(collected)
}

fn unreadable(error: ReadError) -> CoreFailure {
    CoreFailure(format!("the log cannot be read back: {error}"))
}

/// Batches read before the replica has taken the one before.
const BATCHES_AHEAD: usize = 2;
/// Transactions of one batch: a microsecond or two each.
const BATCH_ENTRIES: usize = 1_024;
/// How long what was read is given in one turn.
const REPLAY_MAX: Millis = Millis(2);
/// Bytes of one batch.
const BATCH_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    fn entry(counter: u64) -> Entry {
        Entry {
            zxid: Zxid::new(Epoch(1), counter),
            payload: Arc::from([]),
        }
    }

    #[test]
    fn more_is_read_when_all_that_was_read_is_given_and_no_more_than_was_asked_for() {
        let (more, go) = flume::bounded(BATCHES_AHEAD);
        let (reports, _answers) = flume::unbounded();
        let mut replays = Replays::new(reports, Zxid::ZERO);
        replays.reading = Some(Reading {
            replay: Replay {
                after: Zxid::ZERO,
                upto: entry(4).zxid,
            },
            given: Zxid::ZERO,
            more,
            read: [1, 2, 3].map(entry).into(),
            batches: 2,
        });
        for (counter, more) in [(1, 0), (2, 0), (3, 2)] {
            assert!(replays.has_read());
            assert_eq!(replays.next().unwrap().zxid, entry(counter).zxid);
            assert_eq!(go.try_iter().count(), more, "after {counter}");
        }
        assert!(!replays.has_read() && replays.next().is_none());
        let reading = replays.reading.as_mut().expect("4 is to come");
        reading.read.push_back(entry(4));
        assert_eq!(replays.next().unwrap().zxid, entry(4).zxid);
        assert!(replays.reading.is_none(), "that was all");
        assert!(go.recv().is_err(), "the thread ends");
    }
}
