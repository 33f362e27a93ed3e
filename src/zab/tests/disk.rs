//! A disk in memory: what would survive a loss of power, and nothing else.

use std::sync::Arc;

use crate::types::{Epoch, Zxid};
use crate::zab::{Boot, Entry, Persisted, Piece, ReadWhat, Summary, Write};

/// One server's disk. A write that has been made is durable; one that waits is the world's.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// The log begins after this.
    pub(crate) base: Zxid,
    pub(crate) log: Vec<Entry>,
    pub(crate) snapshot: Option<(Zxid, Arc<[u8]>)>,
    receiving: Vec<u8>,
}

impl Disk {
    /// What a start finds.
    pub(crate) fn boot(&self, nonce: u64) -> Boot {
        let mut ends: Vec<Zxid> = Vec::new();
        for entry in &self.log {
            if ends.last().is_some_and(|end| end.epoch == entry.zxid.epoch) {
                ends.pop();
            }
            ends.push(entry.zxid);
        }
        let snapshot = self.snapshot.as_ref().map(|(zxid, _)| *zxid);
        Boot {
            accepted_epoch: self.accepted,
            current_epoch: self.current,
            history: Summary {
                base: self.base,
                ends,
            },
            snapshot,
            delivered: snapshot.unwrap_or(Zxid::ZERO),
            nonce,
        }
    }

    /// Makes a write, durably; the report, if it has one of its own.
    pub(crate) fn write(&mut self, write: &Write) -> Option<Persisted> {
        match write {
            Write::AcceptedEpoch(epoch) => {
                assert!(*epoch >= self.accepted, "Z12: accepted falls");
                self.accepted = *epoch;
                return Some(Persisted::AcceptedEpoch(*epoch));
            }
            Write::CurrentEpoch(epoch) => {
                assert!(*epoch >= self.current, "Z12: current falls");
                assert!(*epoch <= self.accepted, "Z12: current above accepted");
                self.current = *epoch;
                return Some(Persisted::CurrentEpoch(*epoch));
            }
            Write::Truncate(to) => {
                assert!(self.contains(*to), "cut back to {to}, which is not there");
                self.log.retain(|entry| entry.zxid <= *to);
                return Some(Persisted::Truncated(*to));
            }
            Write::SnapshotBegin(_) => self.receiving.clear(),
            Write::SnapshotPiece(bytes) => self.receiving.extend_from_slice(bytes),
            Write::SnapshotEnd(zxid) => {
                let content = std::mem::take(&mut self.receiving);
                self.snapshot = Some((*zxid, content.into()));
                self.base = *zxid;
                self.log.clear();
                return Some(Persisted::Snapshot(*zxid));
            }
            Write::Append(entry) => {
                assert!(
                    entry.zxid.follows(self.last()),
                    "{} appended after {}",
                    entry.zxid,
                    self.last()
                );
                assert!(entry.zxid.epoch <= self.accepted, "Z12: log above accepted");
                self.log.push(entry.clone());
                return Some(Persisted::Log(entry.zxid));
            }
        }
        None
    }

    /// Answers a question of the peer.
    pub(crate) fn read(&self, what: ReadWhat) -> Piece {
        match what {
            ReadWhat::Log {
                after,
                upto,
                bytes_max,
            } => {
                if !self.contains(after) {
                    return Piece::Gone;
                }
                let mut bytes = 0;
                let mut entries = self.entries(after, upto);
                entries.retain(|entry| {
                    let first = bytes == 0;
                    bytes += entry.payload.len().max(1);
                    first || bytes <= bytes_max
                });
                Piece::Entries(entries)
            }
            ReadWhat::Snapshot {
                zxid,
                offset,
                bytes_max,
            } => match &self.snapshot {
                Some((held, content)) if *held == zxid => {
                    let rest = &content[offset as usize..];
                    let bytes = &rest[..rest.len().min(bytes_max)];
                    Piece::Snapshot {
                        bytes: bytes.into(),
                        last: bytes.len() == rest.len(),
                    }
                }
                _ => Piece::Gone,
            },
        }
    }

    /// The transactions after `after` up to `upto`.
    pub(crate) fn entries(&self, after: Zxid, upto: Zxid) -> Vec<Entry> {
        let within = |entry: &&Entry| entry.zxid > after && entry.zxid <= upto;
        self.log.iter().filter(within).cloned().collect()
    }

    /// Puts a snapshot on the disk and has the log begin after it.
    pub(crate) fn keep_snapshot(&mut self, zxid: Zxid, content: Vec<u8>) {
        assert!(self.contains(zxid), "a snapshot of what is not durable");
        self.snapshot = Some((zxid, content.into()));
        self.base = zxid;
        self.log.retain(|entry| entry.zxid > zxid);
    }

    /// The last transaction it holds.
    pub(crate) fn last(&self) -> Zxid {
        self.log.last().map_or(self.base, |entry| entry.zxid)
    }

    /// True if `zxid` is in the log, or is where it begins.
    pub(crate) fn contains(&self, zxid: Zxid) -> bool {
        zxid == self.base || self.log.iter().any(|entry| entry.zxid == zxid)
    }
}
