//! Reading the log back for this server's own replica: on a thread, a little at a time.
//!
//! A start restores the newest snapshot; what follows it is read once it is known to be
//! committed. It is given to the replica in batches of a millisecond or two, so that frames,
//! pings and beats have their turns in between.

use std::sync::Arc;

use flume::{Receiver, Sender};

use super::{CoreFailure, Pipeline, ToCore, on_thread};
use crate::log::{Entries, FileDisk, ReadError};
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
        on_thread("replay", move || {
            read_on(entries, replay, number, &go, &reports);
        });
        let given = replay.after;
        self.replays.reading = Some(Reading {
            replay,
            given,
            more,
        });
        Ok(())
    }

    /// Gives the replica what was read.
    pub(super) fn on_replayed(
        &mut self,
        now: Millis,
        replayed: Replayed,
    ) -> Result<(), CoreFailure> {
        let Some(reading) = &mut self.replays.reading else {
            return Ok(());
        };
        if replayed.number != self.replays.number {
            return Ok(());
        }
        let batch = replayed.batch.map_err(unreadable)?;
        let Some(last) = batch.last() else {
            let (given, upto) = (reading.given, reading.replay.upto);
            return Err(CoreFailure(format!(
                "the log cannot be read back: it ends at {given}, and should hold {upto}"
            )));
        };
        reading.given = last.zxid;
        let _ = reading.more.try_send(());
        if reading.given == reading.replay.upto {
            self.replays.reading = None;
        }
        for entry in &batch {
            if entry.zxid <= self.replays.found {
                self.snapshots.logged(entry.payload.len());
            }
            self.replica.on_replayed(now, entry);
        }
        Ok(())
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
/// Bytes of one batch.
const BATCH_BYTES: usize = 128 * 1024;
