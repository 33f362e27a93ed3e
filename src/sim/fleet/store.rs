//! A server's log on its disk: writes one after the other, syncs in groups.
//!
//! What disks do to logs is the business of the first world ([`crate::sim::world`]); here they are
//! slow, lose power and are wiped, and nothing else.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};

use super::super::disk::{SimDisk, SimFlush};
use crate::log::{Log, LogError, SnapshotReceiver, SyncTicket};
use crate::types::Zxid;
use crate::zab::{Entry, Persisted, Piece, ReadWhat, Write};

/// The log, and what is to be written to it.
pub(super) struct Store {
    pub(super) log: Log<SimDisk>,
    writes: VecDeque<Write>,
    /// A write is being carried out.
    writing: bool,
    sync: Sync,
    receiver: Option<SnapshotReceiver<SimDisk>>,
    /// How many writes were asked for, and how many were made.
    pub(super) asked: u64,
    pub(super) made: u64,
}

/// Where the one sync of a log stands.
enum Sync {
    Idle,
    Coming,
    Out(SyncTicket<SimFlush>),
}

/// What a write has come to.
pub(super) enum Made {
    /// It is not durable yet, or nobody need be told.
    Nothing,
    /// This is durable.
    Persisted(Persisted),
    /// A snapshot has taken the place of the state; this is its content.
    Installed(Zxid, Vec<u8>),
}

impl Store {
    pub(super) fn new(log: Log<SimDisk>) -> Store {
        Store {
            log,
            writes: VecDeque::new(),
            writing: false,
            sync: Sync::Idle,
            receiver: None,
            asked: 0,
            made: 0,
        }
    }

    pub(super) fn ask(&mut self, write: Write) {
        self.asked += 1;
        self.writes.push_back(write);
    }

    /// True if the next write is to be begun now. Writes that take log away wait for the syncs
    /// of what was appended before them.
    pub(super) fn begins_write(&mut self) -> bool {
        let syncing = !matches!(self.sync, Sync::Idle);
        let waits = match self.writes.front() {
            None => true,
            Some(Write::Truncate(_) | Write::SnapshotEnd(_)) => syncing,
            Some(_) => false,
        };
        let begins = !self.writing && !waits;
        self.writing |= begins;
        begins
    }

    /// Carries out the next write.
    pub(super) fn write(&mut self) -> Result<Made, LogError> {
        self.writing = false;
        let Some(write) = self.writes.pop_front() else {
            return Ok(Made::Nothing);
        };
        self.made += 1;
        match write {
            Write::Append(entry) => {
                self.log.append(entry.zxid, &entry.payload)?;
                if let Some(job) = self.log.prepare_job() {
                    // What goes wrong shows when the segment is needed.
                    let _ = job.run();
                }
            }
            Write::AcceptedEpoch(epoch) => {
                self.log.set_accepted_epoch(epoch)?;
                return Ok(Made::Persisted(Persisted::AcceptedEpoch(epoch)));
            }
            Write::CurrentEpoch(epoch) => {
                self.log.set_current_epoch(epoch)?;
                return Ok(Made::Persisted(Persisted::CurrentEpoch(epoch)));
            }
            Write::Truncate(to) => {
                self.log.truncate_after(to)?;
                return Ok(Made::Persisted(Persisted::Truncated(to)));
            }
            Write::SnapshotBegin(zxid) => {
                // The unfinished one goes first: the two may have the same name.
                self.receiver = None;
                let receiver = self.log.snapshot_receiver(zxid);
                self.receiver = Some(receiver.expect("the disk has room and does not fail"));
            }
            Write::SnapshotPiece(bytes) => {
                if let Some(receiver) = &mut self.receiver {
                    let written = receiver.write_all(&bytes);
                    written.expect("the disk has room and does not fail");
                }
            }
            Write::SnapshotEnd(zxid) => {
                if let Some(receiver) = self.receiver.take() {
                    self.log.install_snapshot(receiver)?;
                    let content = self.snapshot(zxid).unwrap_or_default();
                    return Ok(Made::Installed(zxid, content));
                }
            }
        }
        Ok(Made::Nothing)
    }

    /// True if a sync is to be begun now.
    pub(super) fn begins_sync(&mut self) -> bool {
        let begins = matches!(self.sync, Sync::Idle) && self.log.durable() < self.log.last();
        if begins {
            self.sync = Sync::Coming;
        }
        begins
    }

    /// Begins it; false if there is nothing to sync after all.
    pub(super) fn begin_sync(&mut self) -> bool {
        let ticket = self.log.begin_sync();
        self.sync = ticket.map_or(Sync::Idle, Sync::Out);
        matches!(self.sync, Sync::Out(_))
    }

    /// The sync has ended.
    pub(super) fn end_sync(&mut self) -> Result<Made, LogError> {
        let Sync::Out(ticket) = std::mem::replace(&mut self.sync, Sync::Idle) else {
            return Ok(Made::Nothing);
        };
        let result = ticket.run();
        let upto = self.log.end_sync(ticket, result)?;
        Ok(Made::Persisted(Persisted::Log(upto)))
    }

    /// The content of a snapshot.
    pub(super) fn snapshot(&self, zxid: Zxid) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let mut reader = self.log.open_snapshot(zxid).ok()?;
        reader.read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// Writes a snapshot of own state and trims the log; where the log begins now.
    pub(super) fn keep(&mut self, zxid: Zxid, content: &[u8]) -> Option<Zxid> {
        let mut writer = self.log.snapshot_writer(zxid).ok()?;
        writer.write_all(content).ok()?;
        writer.finish().ok()?;
        let job = self.log.trim_job(crate::log::SNAPSHOTS_KEPT).ok()?;
        // What is not removed now is part of the log again at the next start.
        let _ = job.run();
        Some(self.log.begins_after())
    }

    /// The log after `after`, up to `upto`, and about `bytes_max` bytes of it.
    pub(super) fn entries(&self, after: Zxid, upto: Zxid, bytes_max: usize) -> Option<Vec<Entry>> {
        let mut entries = self.log.entries_after(after).ok()?;
        let mut collected = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = entries.next().ok()? {
            if entry.zxid > upto {
                break;
            }
            bytes += entry.payload.len();
            collected.push(Entry {
                zxid: entry.zxid,
                payload: entry.payload.into(),
            });
            if bytes >= bytes_max {
                break;
            }
        }
        Some(collected)
    }

    /// What a learner asked for.
    pub(super) fn read(&self, what: ReadWhat) -> Piece {
        let piece = match what {
            ReadWhat::Log {
                after,
                upto,
                bytes_max,
            } => self
                .entries(after, upto, bytes_max)
                .filter(|entries| !entries.is_empty())
                .map(Piece::Entries),
            ReadWhat::Snapshot {
                zxid,
                offset,
                bytes_max,
            } => self.snapshot(zxid).and_then(|content| {
                let rest = content.get(offset as usize..)?;
                let piece = &rest[..rest.len().min(bytes_max)];
                Some(Piece::Snapshot {
                    bytes: piece.into(),
                    last: piece.len() == rest.len(),
                })
            }),
        };
        piece.unwrap_or(Piece::Gone)
    }
}
