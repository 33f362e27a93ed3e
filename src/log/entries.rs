//! Reading the log back, entry by entry, each checked again.

use super::disk::{self, Disk};
use super::error::{Corruption, ReadError};
use super::record::{self, Found, Header, Kind, Position};
use super::recovery::Link;
use super::segment::{self, FIRST_RECORD};
use crate::types::Zxid;

/// The transactions after a zxid, up to the last one written when it was made.
///
/// It holds one segment in memory at a time and does not borrow the log, which may go on
/// appending meanwhile; if it is cut or trimmed, reading may end in an error.
pub struct Entries<D: Disk> {
    disk: D,
    salt: u64,
    /// The segments still to read, the next one last.
    rest: Vec<Link>,
    /// Where the log ended.
    end: Position,
    /// The zxid after which entries are given.
    after: Zxid,
    /// The last one read, given or skipped; `None` before the first segment is open.
    last: Option<Zxid>,
    /// The segment being read.
    index: u32,
    bytes: Vec<u8>,
    offset: usize,
}

/// One transaction of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place in the total order.
    pub zxid: Zxid,
    /// Its bytes, as they were appended.
    pub payload: &'a [u8],
    /// Where its record stands.
    pub position: Position,
}

impl<D: Disk> Entries<D> {
    pub(super) fn new(
        disk: D,
        salt: u64,
        chain: &[Link],
        end: Position,
        after: Zxid,
    ) -> Result<Entries<D>, ReadError> {
        // The last segment that begins at or before `after` is the first one that matters.
        let Some(first) = chain.iter().rposition(|link| link.previous <= after) else {
            let first = chain.first().map_or(Zxid::ZERO, |link| link.previous);
            return Err(ReadError::Trimmed {
                asked: after,
                first,
            });
        };
        let rest = chain[first..].iter().rev().copied().collect();
        let (last, index, bytes) = (None, 0, Vec::new());
        Ok(Entries {
            disk,
            salt,
            rest,
            end,
            after,
            last,
            index,
            bytes,
            offset: 0,
        })
    }

    /// The next transaction; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt` at the first record that is not as it was written, `NotThere` if the zxid
    /// asked for was never logged.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry borrows the reader's buffer"
    )]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, ReadError> {
        let (position, next) = loop {
            if self.bytes.is_empty() && !self.open_next()? {
                return Ok(None);
            }
            let at = Position::new(self.index, self.offset as u32);
            if at == self.end {
                self.rest.clear();
                self.bytes = Vec::new();
                continue;
            }
            match record::read_at(&self.bytes, self.salt, self.index, self.offset) {
                Found::Record(
                    Header {
                        kind: Kind::Txn,
                        zxid,
                        ..
                    },
                    _,
                    next,
                ) => {
                    self.step(zxid)?;
                    if zxid > self.after {
                        break (at, next);
                    }
                    self.offset = next;
                }
                // The end of this segment, unless the next one begins with another zxid.
                _ if self.continues() => self.bytes.clear(),
                found => return Err(self.corrupt(&found)),
            }
        };
        self.offset = next;
        let start = position.offset as usize + record::HEADER_BYTES;
        let length = record::u32_at(&self.bytes, position.offset as usize + 8) as usize;
        let zxid = self.last.expect("step has set it");
        Ok(Some(Entry {
            zxid,
            payload: &self.bytes[start..start + length],
            position,
        }))
    }

    /// True if the next segment begins after the last transaction read.
    fn continues(&self) -> bool {
        self.rest
            .last()
            .is_some_and(|next| Some(next.previous) == self.last)
    }

    fn step(&mut self, zxid: Zxid) -> Result<(), ReadError> {
        let last = self.last.expect("a segment is open");
        if !zxid.follows(last) {
            return Err(ReadError::Corrupt(Corruption {
                file: segment::name_of(self.index),
                offset: self.offset as u64,
                after: Some(last),
                found: format!("transaction {zxid}"),
                expected: "the one that follows".into(),
            }));
        }
        if last < self.after && zxid > self.after {
            return Err(ReadError::NotThere {
                asked: self.after,
                before: last,
                after: zxid,
            });
        }
        self.last = Some(zxid);
        Ok(())
    }

    fn open_next(&mut self) -> Result<bool, ReadError> {
        let Some(link) = self.rest.pop() else {
            return Ok(false);
        };
        let name = segment::name_of(link.index);
        disk::read_into(&self.disk, &name, &mut self.bytes)
            .map_err(|source| ReadError::Io { file: name, source })?;
        let length = self.bytes.len() as u64;
        segment::check_header(&self.bytes, length, link.index, self.salt)
            .map_err(ReadError::Corrupt)?;
        self.index = link.index;
        self.offset = FIRST_RECORD;
        match record::read_at(&self.bytes, self.salt, self.index, self.offset) {
            Found::Record(
                Header {
                    kind: Kind::Begin,
                    zxid,
                    ..
                },
                _,
                next,
            ) if zxid == link.previous && self.last.is_none_or(|last| last == zxid) => {
                self.last = Some(zxid);
                self.offset = next;
                Ok(true)
            }
            found => Err(self.corrupt(&found)),
        }
    }

    fn corrupt(&self, found: &Found<'_>) -> ReadError {
        ReadError::Corrupt(Corruption {
            file: segment::name_of(self.index),
            offset: self.offset as u64,
            after: self.last,
            found: match found {
                Found::Record(header, ..) => format!("{:?} {}", header.kind, header.zxid),
                Found::Empty => "nothing".into(),
                Found::Damaged(damage) => damage.to_string(),
            },
            expected: "a record as it was written".into(),
        })
    }
}
