//! One server of a script: a peer, a log on a simulated disk, and what it was told.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use crate::log::{Log, LogError, ReadError, Settings as LogSettings, SnapshotReceiver};
use crate::sim::disk::SimDisk;
use crate::types::Zxid;
use crate::zab::{
    Barrier, Boot, Entry, Fault, Peer, Persisted, Piece, Read, ReadWhat, Settings, Standing,
    Summary, Write,
};

/// A server, running or not.
pub struct Server {
    /// Its core, while it runs.
    pub peer: Option<Peer>,
    /// Its log, while it runs.
    pub log: Option<Log<SimDisk>>,
    /// Its disk.
    pub disk: SimDisk,
    /// Asked for and not made.
    pub writes: VecDeque<Write>,
    /// If false, writes wait for [`super::Ensemble::sync`].
    pub syncs: bool,
    /// Asked for and not answered.
    pub reads: VecDeque<Read>,
    /// If false, reads wait for [`super::Ensemble::answer`].
    pub answers: bool,
    /// What the application was given in this run, the snapshot it began with included.
    pub delivered: Vec<Entry>,
    /// Its standings in this run, in order.
    pub standings: Vec<Standing>,
    /// The barriers it has passed.
    pub barriers: Vec<Barrier>,
    /// The application's messages, with their senders.
    pub payloads: Vec<(u32, String)>,
    /// Why it has withdrawn, if it has.
    pub fault: Option<Fault>,
    receiver: Option<SnapshotReceiver<SimDisk>>,
    received: Vec<u8>,
    unsynced: bool,
    /// The last transaction that was to be appended.
    pub(super) appended: Zxid,
    /// How much of `delivered` the ghost has seen.
    pub(super) judged: usize,
    /// Which of the starts of this script this run began with.
    pub(super) run: u64,
}

impl Server {
    pub(super) fn new(disk: SimDisk) -> Server {
        Server {
            peer: None,
            log: None,
            disk,
            writes: VecDeque::new(),
            syncs: true,
            delivered: Vec::new(),
            standings: Vec::new(),
            barriers: Vec::new(),
            payloads: Vec::new(),
            fault: None,
            receiver: None,
            received: Vec::new(),
            unsynced: false,
            appended: Zxid::ZERO,
            judged: 0,
            run: 0,
            reads: VecDeque::new(),
            answers: true,
        }
    }

    /// Opens the log and makes the peer; the peer has not been started.
    pub(super) fn boot(&mut self, settings: Settings, run: u64, nonce: u64) -> Result<(), String> {
        let opened = Log::open(self.disk.clone(), log_settings());
        let (log, recovered) = opened.map_err(|error| error.to_string())?;
        self.delivered.clear();
        if let Some(zxid) = recovered.snapshot {
            let mut bytes = Vec::new();
            let mut reader = log.open_snapshot(zxid).map_err(|error| error.to_string())?;
            let read = reader.read_to_end(&mut bytes);
            read.map_err(|error| error.to_string())?;
            self.delivered = decode(&bytes);
        }
        let history = log.history().clone();
        let boot = Boot {
            accepted_epoch: log.epochs().accepted,
            current_epoch: log.epochs().current,
            history: Summary {
                base: history.base,
                ends: history.ends,
            },
            snapshot: recovered.snapshot,
            delivered: recovered.snapshot.unwrap_or(Zxid::ZERO),
            nonce,
        };
        self.run = run;
        self.judged = 0;
        self.log = Some(log);
        self.peer = Some(Peer::new(settings, boot));
        Ok(())
    }

    /// The zxids of the log, as text.
    #[must_use]
    pub fn zxids(&self) -> String {
        let Some(log) = &self.log else {
            return "not open".into();
        };
        match read(
            log,
            log.begins_after(),
            Zxid::new(crate::types::Epoch(u64::MAX), 0),
        ) {
            Ok(entries) => {
                let zxids: Vec<String> = entries.iter().map(|e| e.zxid.to_string()).collect();
                zxids.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    /// Makes one write; what is to be reported at once.
    pub(super) fn make(&mut self, write: Write) -> Result<Option<Persisted>, LogError> {
        let Some(log) = &mut self.log else {
            return Ok(None);
        };
        Ok(Some(match write {
            Write::AcceptedEpoch(epoch) => {
                log.set_accepted_epoch(epoch)?;
                Persisted::AcceptedEpoch(epoch)
            }
            Write::CurrentEpoch(epoch) => {
                log.set_current_epoch(epoch)?;
                Persisted::CurrentEpoch(epoch)
            }
            Write::Append(entry) => {
                self.appended = entry.zxid;
                log.append(entry.zxid, &entry.payload)?;
                self.unsynced = true;
                return Ok(None);
            }
            Write::Truncate(to) => {
                log.truncate_after(to)?;
                Persisted::Truncated(to)
            }
            Write::SnapshotBegin(zxid) => {
                // The unfinished one goes first: the two may have the same name.
                self.receiver = None;
                self.received.clear();
                self.receiver = log.snapshot_receiver(zxid).ok();
                return Ok(None);
            }
            Write::SnapshotPiece(bytes) => {
                self.received.extend_from_slice(&bytes);
                if let Some(receiver) = &mut self.receiver {
                    // A failed write shows when the snapshot is installed.
                    let _ = receiver.write_all(&bytes);
                }
                return Ok(None);
            }
            Write::SnapshotEnd(zxid) => {
                if let Some(receiver) = self.receiver.take() {
                    log.install_snapshot(receiver)?;
                    self.restore();
                }
                Persisted::Snapshot(zxid)
            }
        }))
    }

    /// Puts what was received of a snapshot in place of the application's state.
    pub(super) fn restore(&mut self) {
        self.delivered = decode(&self.received);
        self.judged = 0;
    }

    /// Syncs what has been appended; what is to be reported.
    pub(super) fn sync(&mut self) -> Result<Option<Persisted>, LogError> {
        match &mut self.log {
            Some(log) if std::mem::take(&mut self.unsynced) => {
                Ok(Some(Persisted::Log(log.sync_now()?)))
            }
            _ => Ok(None),
        }
    }

    /// Writes `state` as the snapshot as of `zxid`, and trims the log to it as far as whole
    /// segments go; where the log begins then.
    pub(super) fn snapshot(&mut self, zxid: Zxid, state: &[Entry]) -> Result<Zxid, String> {
        let Some(log) = &mut self.log else {
            return Err("the server does not run".into());
        };
        let writer = log.snapshot_writer(zxid);
        let mut writer = writer.map_err(|error| error.to_string())?;
        let written = writer.write_all(&encode(state));
        written.map_err(|error| error.to_string())?;
        writer.finish().map_err(|error| error.to_string())?;
        let job = log.trim_job(1).map_err(|error| error.to_string())?;
        job.run().map_err(|error| error.to_string())?;
        Ok(log.begins_after())
    }

    pub(super) fn replay(&mut self, after: Zxid, upto: Zxid) -> Result<(), String> {
        if let Some(log) = &self.log {
            let entries = read(log, after, upto).map_err(|error| error.to_string())?;
            self.delivered.extend(entries);
        }
        Ok(())
    }

    pub(super) fn read(&self, what: ReadWhat) -> Piece {
        let Some(log) = &self.log else {
            return Piece::Gone;
        };
        match what {
            ReadWhat::Log {
                after,
                upto,
                bytes_max,
            } => match read(log, after, upto) {
                Ok(mut entries) => {
                    let mut bytes = 0;
                    let mut fits = |entry: &Entry| {
                        let room = bytes < bytes_max;
                        bytes += entry.payload.len();
                        room
                    };
                    let count = entries.iter().take_while(|e| fits(e)).count();
                    entries.truncate(count);
                    Piece::Entries(entries)
                }
                Err(_) => Piece::Gone,
            },
            ReadWhat::Snapshot {
                zxid,
                offset,
                bytes_max,
            } => {
                let mut bytes = Vec::new();
                let whole = log
                    .open_snapshot(zxid)
                    .is_ok_and(|mut reader| reader.read_to_end(&mut bytes).is_ok());
                let from = offset as usize;
                if !whole || from > bytes.len() {
                    return Piece::Gone;
                }
                let to = bytes.len().min(from + bytes_max);
                Piece::Snapshot {
                    bytes: Arc::from(&bytes[from..to]),
                    last: to == bytes.len(),
                }
            }
        }
    }
}

/// Small segments, so that a script of a few transactions passes from one to the next.
pub(super) fn log_settings() -> LogSettings {
    LogSettings {
        segment_bytes: 512,
        salt: 7,
        snapshot_is_enough: false,
    }
}

fn read(log: &Log<SimDisk>, after: Zxid, upto: Zxid) -> Result<Vec<Entry>, ReadError> {
    let mut found = Vec::new();
    let mut entries = log.entries_after(after)?;
    while let Some(entry) = entries.next()? {
        if entry.zxid > upto {
            break;
        }
        found.push(Entry {
            zxid: entry.zxid,
            payload: Arc::from(entry.payload),
        });
    }
    Ok(found)
}

/// The state of the scripts' application, which is all it was given.
pub(super) fn encode(state: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in state {
        bytes.extend_from_slice(&entry.zxid.to_bytes());
        bytes.push(entry.payload.len() as u8);
        bytes.extend_from_slice(&entry.payload);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Vec<Entry> {
    let mut state = Vec::new();
    while let Some((zxid, rest)) = bytes.split_first_chunk::<16>() {
        let (payload, rest) = rest[1..].split_at(usize::from(rest[0]));
        state.push(Entry {
            zxid: Zxid::from_bytes(*zxid),
            payload: Arc::from(payload),
        });
        bytes = rest;
    }
    state
}
