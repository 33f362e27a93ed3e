//! Reading log and snapshots for learners: on a thread, which keeps each learner's place.

use std::collections::HashMap;
use std::io::Read as _;

use flume::{Receiver, Sender};

use super::replay::collect;
use super::{Pipeline, ToCore, on_thread};
use crate::log::{Entries, FileDisk, FileLog, ReadError, SnapshotReader};
use crate::runtime::background::Urgency;
use crate::time::Millis;
use crate::types::{ServerId, Zxid};
use crate::zab::{Piece, Read, ReadWhat};

/// What is being read for learners, and what waits to be sent to them.
pub(super) struct Reads {
    reports: Sender<ToCore>,
    /// To the thread; dropped, it ends, and forgets every place.
    jobs: Option<Sender<Job>>,
    /// Pieces for learners that have not taken what was sent before.
    held: Vec<(Read, Piece)>,
}

/// One read, and where it begins if the thread does not know.
pub(super) struct Job {
    pub(super) read: Read,
    pub(super) source: Result<Source, ReadError>,
}

/// A place in the log, or in a snapshot.
pub(super) enum Source {
    Log(Entries<FileDisk>),
    Snapshot(SnapshotReader<FileDisk>),
}

impl Reads {
    pub(super) fn new(reports: Sender<ToCore>) -> Reads {
        Reads {
            reports,
            jobs: None,
            held: Vec::new(),
        }
    }

    /// The learner is gone: nobody waits for what was read for it.
    pub(super) fn forget(&mut self, learner: ServerId) {
        self.held.retain(|(read, _)| read.learner != learner);
    }

    /// The log is not what it was.
    pub(super) fn forget_all(&mut self) {
        self.jobs = None;
    }

    fn jobs(&mut self) -> &Sender<Job> {
        let reports = &self.reports;
        self.jobs.get_or_insert_with(|| {
            // Bounded by the learners: each waits for its answer before it asks again.
            let (jobs, receiver) = flume::unbounded();
            let reports = reports.clone();
            on_thread("reads", Urgency::Waited, move || serve(&receiver, &reports));
            jobs
        })
    }
}

impl Pipeline {
    /// Has something read for a learner.
    pub(super) fn read(&mut self, read: Read) {
        let source = source_of(&self.log, read.what);
        if self.reads.jobs().send(Job { read, source }).is_err() {
            // No thread was to be had. The learner is let go, and comes again.
            self.reads.jobs = None;
            self.replica
                .on_read(super::clock::now(), read.learner, read.tenure, Piece::Gone);
        }
    }

    /// Something was read. It waits until the learner has taken what was sent to it before,
    /// which holds this server back from filling its own memory.
    pub(super) fn on_read(&mut self, now: Millis, read: Read, piece: Piece) {
        if let Some(transport) = &self.transport
            && transport.queued_bytes(read.learner) > ROOM_BYTES
        {
            transport.tell_when_drained(read.learner);
            self.reads.held.push((read, piece));
            return;
        }
        self.replica.on_read(now, read.learner, read.tenure, piece);
    }

    /// A learner has taken all that was sent to it.
    pub(super) fn on_drained(&mut self, now: Millis, learner: ServerId) {
        let held = std::mem::take(&mut self.reads.held);
        let (due, held) = held
            .into_iter()
            .partition(|(read, _)| read.learner == learner);
        self.reads.held = held;
        for (read, piece) in due {
            self.replica.on_read(now, read.learner, read.tenure, piece);
        }
    }
}

/// Where to read, from the beginning; the thread may know better.
pub(super) fn source_of(log: &FileLog, what: ReadWhat) -> Result<Source, ReadError> {
    match what {
        ReadWhat::Log { after, .. } => log.entries_after(after).map(Source::Log),
        ReadWhat::Snapshot { zxid, .. } => log.open_snapshot(zxid).map(Source::Snapshot),
    }
}

/// Where the last read for a learner has ended.
struct Place {
    source: Source,
    /// What must be asked for to go on from here.
    next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Transactions after this one.
    After(Zxid),
    /// The snapshot as of this transaction, from this offset.
    Offset(Zxid, u64),
}

impl Next {
    fn of(what: ReadWhat) -> Next {
        match what {
            ReadWhat::Log { after, .. } => Next::After(after),
            ReadWhat::Snapshot { zxid, offset, .. } => Next::Offset(zxid, offset),
        }
    }
}

/// Does the jobs, one after the other.
pub(super) fn serve(jobs: &Receiver<Job>, reports: &Sender<ToCore>) {
    let mut places: HashMap<ServerId, Place> = HashMap::new();
    while let Ok(Job { read, source }) = jobs.recv() {
        let next = Next::of(read.what);
        let place = places.remove(&read.learner);
        let place = place.filter(|place| place.next == next);
        let done = source.and_then(|fresh| match place {
            // A reader of the log ends where the log did when it was made: then a new one.
            Some(place) => match go_on(place.source, read.what, 0)? {
                (Piece::Gone, _) => begin(fresh, read.what),
                done => Ok(done),
            },
            None => begin(fresh, read.what),
        });
        let piece = match done {
            Ok((piece, place)) => {
                places.extend(place.map(|place| (read.learner, place)));
                piece
            }
            Err(ReadError::Trimmed { .. }) => Piece::Gone,
            Err(error) => {
                let learner = read.learner;
                tracing::warn!("could not read for server {learner}: {error}");
                Piece::Gone
            }
        };
        if reports.send(ToCore::Read(read, piece)).is_err() {
            return;
        }
    }
}

/// What is read, and where that ends if there may be more.
type Done = (Piece, Option<Place>);

fn begin(source: Source, what: ReadWhat) -> Result<Done, ReadError> {
    let skip = match what {
        ReadWhat::Log { .. } => 0,
        ReadWhat::Snapshot { offset, .. } => offset,
    };
    go_on(source, what, skip)
}

fn go_on(source: Source, what: ReadWhat, skip: u64) -> Result<Done, ReadError> {
    match (source, what) {
        (
            Source::Log(mut entries),
            ReadWhat::Log {
                upto, bytes_max, ..
            },
        ) => {
            let found = collect(&mut entries, upto, usize::MAX, bytes_max)?;
            let Some(last) = found.last().map(|last| last.zxid) else {
                return Ok((Piece::Gone, None));
            };
            // At the end the place is given up: it holds a whole segment in memory.
            let place = (last < upto).then(|| Place {
                source: Source::Log(entries),
                next: Next::After(last),
            });
            Ok((Piece::Entries(found), place))
        }
        (
            Source::Snapshot(mut reader),
            ReadWhat::Snapshot {
                zxid,
                offset,
                bytes_max,
            },
        ) => {
            let io = |source| ReadError::Io {
                file: format!("the snapshot as of {zxid}"),
                source,
            };
            std::io::copy(&mut (&mut reader).take(skip), &mut std::io::sink()).map_err(io)?;
            let mut bytes = Vec::new();
            let mut piece = (&mut reader).take(bytes_max as u64);
            piece.read_to_end(&mut bytes).map_err(io)?;
            // The reader has vouched for the whole once it has reached the end.
            let last = bytes.len() < bytes_max;
            let place = (!last).then(|| Place {
                next: Next::Offset(zxid, offset + bytes.len() as u64),
                source: Source::Snapshot(reader),
            });
            let bytes = bytes.into();
            Ok((Piece::Snapshot { bytes, last }, place))
        }
        // The place of a learner that has turned from one to the other.
        _ => Ok((Piece::Gone, None)),
    }
}

/// Bytes that may wait for a learner before no more is read for it.
const ROOM_BYTES: usize = 1 << 20;
