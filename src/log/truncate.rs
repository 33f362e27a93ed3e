//! Cutting the end of the log off, for a follower whose history the leader does not share.

use super::disk::Disk;
use super::epochs;
use super::error::{LogError, ReadError};
use super::open::truncate_to;
use super::record::{self, HEADER_BYTES, Position};
use super::segment::{self, FIRST_RECORD};
use super::{Log, disk};
use crate::types::Zxid;

impl<D: Disk> Log<D> {
    /// Cuts off every transaction after `zxid`, and every snapshot of a later state, durably
    /// on return. A crash in between leaves the cut to the next start.
    ///
    /// # Errors
    /// `BadCut` changes nothing: `zxid` is not in the log. `Fatal` is for good.
    ///
    /// # Panics
    /// As [`Log::sync_now`], if a ticket is out.
    pub fn truncate_after(&mut self, zxid: Zxid) -> Result<(), LogError> {
        // What is kept must be durable before the rest goes.
        self.sync_now()?;
        if zxid == self.last {
            return Ok(());
        }
        let end = self.end_of(zxid).map_err(|error| LogError::BadCut {
            asked: zxid,
            reason: error.to_string(),
        })?;
        let covered = match self.covered_below(zxid) {
            Ok(Some(covered)) => covered,
            Ok(None) => {
                let reason = "no snapshot reaches back so far".into();
                return Err(LogError::BadCut {
                    asked: zxid,
                    reason,
                });
            }
            Err(error) => return Err(self.fence("list the directory", &error).into()),
        };
        let history = self.history_upto(zxid, covered);
        let history = history.map_err(|error| LogError::BadCut {
            asked: zxid,
            reason: error.to_string(),
        })?;
        match self.try_truncate(zxid, end) {
            Ok(()) => {
                self.history = history;
                Ok(())
            }
            Err(error) => Err(self.fence("cut the log", &error).into()),
        }
    }

    /// Where the record of `zxid` ends.
    fn end_of(&self, zxid: Zxid) -> Result<Position, ReadError> {
        if let Some(link) = self.chain.iter().find(|link| link.previous == zxid) {
            // Keep the segment that begins there rather than go back into the one before.
            return Ok(Position::new(
                link.index,
                (FIRST_RECORD + HEADER_BYTES) as u32,
            ));
        }
        let mut entries = self.entries_after(zxid)?;
        // `NotThere` comes from here. The next entry begins where `zxid` ends, since a segment
        // boundary there was found above.
        let next = entries.next()?.map(|entry| entry.position);
        next.ok_or(ReadError::NotThere {
            asked: zxid,
            before: self.last,
            after: zxid,
        })
    }

    /// The newest snapshot from which the state can be rebuilt up to `zxid` once everything
    /// above that is gone; zero if the log reaches back to its beginning, `None` if neither.
    fn covered_below(&self, zxid: Zxid) -> std::io::Result<Option<Zxid>> {
        let begins_after = self.begins_after();
        let mut snapshots = self.snapshots()?.into_iter();
        let covered = snapshots.find(|snapshot| (begins_after..=zxid).contains(snapshot));
        Ok(covered.or((begins_after == Zxid::ZERO).then_some(Zxid::ZERO)))
    }

    fn try_truncate(&mut self, zxid: Zxid, end: Position) -> std::io::Result<()> {
        epochs::write_cut(&self.disk, self.salt, zxid)?;
        let mut segments: Vec<u32> = self.chain.iter().map(|link| link.index).collect();
        if self.take_prepared().is_some() {
            segments.push(self.written.segment + 1);
        }
        let mut bytes = Vec::new();
        disk::read_into(&self.disk, &segment::name_of(end.segment), &mut bytes)?;
        let tail_end = record::nonzero_end(&bytes) as u32;
        self.generation.end();
        self.draining.clear();
        self.active = self.disk.map(&segment::name_of(end.segment))?;
        truncate_to(
            &self.disk,
            end,
            tail_end,
            end.segment,
            &segments,
            Some(zxid),
        )?;
        self.chain.retain(|link| link.index <= end.segment);
        self.written = end;
        self.synced = end;
        self.last = zxid;
        self.synced_zxid = zxid;
        self.mark()
    }
}
