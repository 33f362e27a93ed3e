//! What a log left by a crash holds: pure, over the bytes of its segments.
//!
//! # How a torn tail is told from corruption
//!
//! Several records may have been written after the last sync, and a crash leaves any subset of
//! their sectors. So whole records may well follow a torn one, and that alone proves nothing.
//! Instead every header says how far the log was **synced** when it was written (`durable`),
//! and after each sync that finds nothing more to write, a mark at the end of the log says so.
//!
//! Recovery reads records from the front as long as they are whole and in order. Where that
//! ends, at E, it looks at every header anywhere behind E whose CRC matches, takes the highest
//! `durable` D that any of them states, and decides:
//!
//! - **D > E: corruption.** Bytes before D had been synced, and E is one of them, so no crash
//!   did this. The log refuses.
//! - **D ≤ E: a torn tail.** It is cut: zeroed and synced before anything is appended.
//!
//! *A crash is never taken for corruption:* let S be how far the log was really synced. The
//! crash left everything before S whole, so E ≥ S; and whatever header survived was written
//! when the log was synced no further than S, so D ≤ S ≤ E. This needs a sector to be written
//! whole or not at all, since the tail's first sector may hold the end of what was synced.
//!
//! *What was synced is never cut,* as long as one header that knows of it survives. One does
//! if a later record or mark reached the disk, which takes the next sync, a clean stop, or the
//! kernel's own write-back (under a minute; and a killed process loses nothing the kernel
//! has). What remains: power lost within that time after the last sync **and** a sector of
//! just that last batch damaged as well. No log can tell that from a torn write, short of
//! syncing twice.
//!
//! *Nothing wrong is served:* a record is read only if both its CRCs match at its place in
//! this log, and its zxid follows the one before.
//!
//! Cutting is safe to interrupt: all that survives of the tail still states D ≤ E.

use super::error::Corruption;
use super::record::{self, Damage, Found, HEADER_BYTES, Header, Kind, Position};
use super::segment::{self, FIRST_RECORD};
use crate::types::Zxid;

/// Reads the segments of a log one after the other and finds where it ends.
///
/// Invariants: `last` is the zxid of the last record before `end`; every segment of `chain`
/// begins where the one before it ended.
#[derive(Debug)]
pub struct Scan {
    salt: u64,
    /// Records above this are taken as cut off.
    keep: Option<Zxid>,
    chain: Vec<Link>,
    last: Zxid,
    end: Position,
    why: Stop,
    /// What stands behind `end` in its own segment, so far as it is not zero: up to here.
    tail_end: u32,
    /// True once a segment did not continue the one before: the rest is behind the end.
    ended: bool,
    /// The segment read last.
    index: u32,
    claim: Option<Claim>,
    records: u64,
    ends: Vec<Zxid>,
}

/// A segment that is part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// The last zxid of all earlier segments.
    pub previous: Zxid,
}

/// Where a log ends, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The segments it consists of, oldest first; empty if no segment has a beginning.
    pub chain: Vec<Link>,
    /// The last transaction; if there is none, the last before the first segment.
    pub last: Zxid,
    /// Where the next record goes.
    pub end: Position,
    /// Transactions read.
    pub records: u64,
    /// The last transaction of each epoch among those read, ascending.
    pub ends: Vec<Zxid>,
    /// In the last segment of the chain, everything from here on is zero.
    pub tail_end: u32,
    /// What the tail consists of, if it has to be cut.
    pub torn: Option<String>,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Empty,
    Mark,
    /// The log went on in the next segment.
    Next,
    Damaged(Damage),
    /// A whole record, but not the next one.
    Gap(Zxid),
    /// A record, or a segment, of a kind that does not belong here.
    Misplaced,
    /// A record above [`Scan::keep`].
    Cut,
}

/// A header behind the end, and what it states.
#[derive(Clone, Copy, Debug)]
struct Claim {
    durable: Position,
    by: Position,
}

impl Scan {
    /// A scan of the log with this salt, whose first segment given will be `first`.
    ///
    /// With `keep`, everything above that zxid is to be cut, whatever it states.
    #[must_use]
    pub fn new(salt: u64, first: u32, keep: Option<Zxid>) -> Scan {
        Scan {
            salt,
            keep,
            chain: Vec::new(),
            last: Zxid::ZERO,
            end: Position::new(first, FIRST_RECORD as u32),
            why: Stop::Empty,
            tail_end: 0,
            ended: false,
            index: first.saturating_sub(1),
            claim: None,
            records: 0,
            ends: Vec::new(),
        }
    }

    /// Reads the next segment, whose whole file is `bytes`.
    ///
    /// # Errors
    /// `Corruption` if it is not the next one or its own header is damaged.
    pub fn segment(&mut self, index: u32, bytes: &[u8]) -> Result<(), Corruption> {
        if index != self.index + 1 {
            return Err(Corruption {
                file: segment::name_of(self.index + 1),
                offset: 0,
                after: Some(self.last),
                found: format!("no such file, but {}", segment::name_of(index)),
                expected: "every segment up to the last".into(),
            });
        }
        self.index = index;
        segment::check_header(bytes, bytes.len() as u64, index, self.salt)?;
        let stop = if self.ended {
            FIRST_RECORD
        } else {
            self.follow(index, bytes)
        };
        self.claims_behind(index, bytes, stop);
        Ok(())
    }

    /// Reads records from the front of a segment, if it continues the log, and returns where
    /// that stopped.
    fn follow(&mut self, index: u32, bytes: &[u8]) -> usize {
        let begin = record::read_at(bytes, self.salt, index, FIRST_RECORD);
        let (previous, mut offset) = match begin {
            Found::Record(
                Header {
                    kind: Kind::Begin,
                    zxid,
                    ..
                },
                _,
                next,
            ) => (zxid, next),
            found => {
                self.ended = true;
                if self.chain.is_empty() {
                    self.why = match found {
                        Found::Empty => Stop::Empty,
                        Found::Damaged(damage) => Stop::Damaged(damage),
                        Found::Record(..) => Stop::Misplaced,
                    };
                }
                return FIRST_RECORD;
            }
        };
        if !self.chain.is_empty() && previous != self.last {
            self.ended = true;
            return FIRST_RECORD;
        }
        self.chain.push(Link { index, previous });
        self.last = previous;
        self.why = loop {
            match record::read_at(bytes, self.salt, index, offset) {
                Found::Record(header, _, next) => match self.judge(&header) {
                    None => {
                        self.count(header.zxid);
                        offset = next;
                    }
                    Some(stop) => break stop,
                },
                Found::Empty => break Stop::Empty,
                Found::Damaged(damage) => break Stop::Damaged(damage),
            }
        };
        self.end = Position::new(index, offset as u32);
        self.tail_end = record::nonzero_end(bytes) as u32;
        offset
    }

    /// Takes the next transaction for part of the log.
    fn count(&mut self, zxid: Zxid) {
        self.ends.pop_if(|end| end.epoch == zxid.epoch);
        self.ends.push(zxid);
        self.last = zxid;
        self.records += 1;
    }

    /// `None` if this record is the next one of the log; else why reading stops at it.
    fn judge(&self, header: &Header) -> Option<Stop> {
        match header.kind {
            Kind::Txn if self.keep.is_some_and(|keep| header.zxid > keep) => Some(Stop::Cut),
            Kind::Txn if header.zxid.follows(self.last) => None,
            Kind::Txn => Some(Stop::Gap(header.zxid)),
            Kind::Mark if header.zxid == self.last => Some(Stop::Mark),
            Kind::Next if header.zxid == self.last => Some(Stop::Next),
            Kind::Mark | Kind::Next | Kind::Begin => Some(Stop::Misplaced),
        }
    }

    /// Keeps the highest `durable` that any header at or behind `offset` states.
    fn claims_behind(&mut self, index: u32, bytes: &[u8], mut offset: usize) {
        // The last header may itself end in zeroes.
        let end = bytes.len().min(record::nonzero_end(bytes) + HEADER_BYTES);
        let bytes = &bytes[..end];
        while let Some((at, header)) = record::find_header(bytes, self.salt, index, offset) {
            let (durable, by) = (header.durable, Position::new(index, at as u32));
            if self.claim.is_none_or(|claim| durable > claim.durable) {
                self.claim = Some(Claim { durable, by });
            }
            offset = at + record::ALIGN;
        }
    }

    /// Decides what the log is, once all segments are read.
    ///
    /// # Errors
    /// `Corruption` if anything is missing or damaged that had been synced.
    pub fn finish(self) -> Result<Extent, Corruption> {
        let cut = self.keep.is_some_and(|keep| self.last == keep);
        if let Some(claim) = self.claim.filter(|claim| claim.durable > self.end && !cut) {
            let expected = format!(
                "what follows transaction {}, since the record in {} states that everything \
                 before {} had been synced",
                self.last, claim.by, claim.durable
            );
            return Err(self.corruption(expected));
        }
        if let Some(keep) = self.keep.filter(|_| !cut) {
            return Err(self.corruption(format!("transaction {keep}, where the log was being cut")));
        }
        if matches!(self.why, Stop::Gap(_)) {
            // A stale record cannot stand here: whatever is cut is zeroed first.
            return Err(self.corruption(format!("the transaction that follows {}", self.last)));
        }
        if self.why == Stop::Next && !self.ended {
            // The next segment was durable before this one said so, and it is removed only
            // after this record is overwritten.
            return Err(Corruption {
                file: segment::name_of(self.index + 1),
                offset: 0,
                after: Some(self.last),
                found: "no such file".into(),
                expected: "the segment in which the log goes on".into(),
            });
        }
        let mark_end = self.end.offset + HEADER_BYTES as u32;
        let torn = match self.why {
            Stop::Mark if self.tail_end <= mark_end => None,
            Stop::Empty if self.tail_end <= self.end.offset => None,
            Stop::Empty | Stop::Mark | Stop::Next => {
                Some("bytes behind the last record".to_owned())
            }
            _ => Some(self.found()),
        };
        Ok(Extent {
            chain: self.chain,
            last: self.last,
            end: self.end,
            records: self.records,
            ends: self.ends,
            tail_end: self.tail_end,
            torn,
        })
    }

    fn corruption(&self, expected: String) -> Corruption {
        Corruption {
            file: segment::name_of(self.end.segment),
            offset: u64::from(self.end.offset),
            after: Some(self.last),
            found: self.found(),
            expected,
        }
    }

    fn found(&self) -> String {
        match self.why {
            Stop::Empty => "nothing".into(),
            Stop::Mark => "the end of the log".into(),
            Stop::Next => "the end of the segment".into(),
            Stop::Damaged(damage) => damage.to_string(),
            Stop::Gap(zxid) => format!("transaction {zxid}"),
            Stop::Misplaced => "a record that does not belong there".into(),
            Stop::Cut => "a transaction that was to be cut".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::{begin_record, encode_header};
    use super::*;
    use crate::types::Epoch;

    const SALT: u64 = 42;
    const CAPACITY: usize = 1024;

    fn zxid(counter: u64) -> Zxid {
        Zxid::new(Epoch(1), counter)
    }

    /// A segment built by hand: what recovery must understand, written without the log.
    struct Built {
        index: u32,
        bytes: Vec<u8>,
        offset: usize,
    }

    impl Built {
        fn new(index: u32, previous: u64, durable: Position) -> Built {
            let mut bytes = vec![0; CAPACITY];
            bytes[..64].copy_from_slice(&encode_header(index, CAPACITY as u32, SALT));
            let begin = begin_record(index, zxid(previous), durable, SALT);
            bytes[64..104].copy_from_slice(&begin);
            Built {
                index,
                bytes,
                offset: 104,
            }
        }

        fn put(&mut self, kind: Kind, counter: u64, durable: Position) -> Position {
            let payload: &[u8] = if kind == Kind::Txn {
                b"some payload"
            } else {
                b""
            };
            let at = Position::new(self.index, self.offset as u32);
            let header = Header::new(kind, zxid(counter), durable, payload);
            let place = &mut self.bytes[self.offset..];
            place[..HEADER_BYTES].copy_from_slice(&header.encode(SALT, at));
            place[HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
            self.offset += record::span(payload.len());
            at
        }

        fn txn(&mut self, counter: u64, durable: Position) -> Position {
            self.put(Kind::Txn, counter, durable)
        }

        fn break_at(&mut self, at: Position) {
            self.bytes[at.offset as usize + HEADER_BYTES] ^= 1;
        }
    }

    fn scan(segments: &[&Built], keep: Option<Zxid>) -> Result<Extent, Corruption> {
        let mut scan = Scan::new(SALT, segments[0].index, keep);
        for segment in segments {
            scan.segment(segment.index, &segment.bytes)?;
        }
        scan.finish()
    }

    #[test]
    fn a_whole_log_ends_behind_its_last_record() {
        let mut one = Built::new(1, 0, Position::ZERO);
        one.txn(1, Position::ZERO);
        let two = one.txn(2, Position::ZERO);
        let extent = scan(&[&one], None).expect("whole");
        assert_eq!(
            (extent.last, extent.records, extent.torn),
            (zxid(2), 2, None)
        );
        assert_eq!(
            extent.end.offset as usize,
            two.offset as usize + record::span(12)
        );
    }

    #[test]
    fn a_torn_record_is_cut_though_whole_ones_of_the_same_batch_follow() {
        let mut one = Built::new(1, 0, Position::ZERO);
        let synced = one.txn(1, Position::ZERO);
        let torn = one.txn(2, synced);
        one.txn(3, synced);
        one.txn(4, synced);
        one.break_at(torn);
        let extent = scan(&[&one], None).expect("a torn tail");
        assert_eq!((extent.last, extent.end), (zxid(1), torn));
        assert!(extent.torn.is_some());
    }

    #[test]
    fn damage_before_a_point_stated_as_synced_is_corruption() {
        let mut one = Built::new(1, 0, Position::ZERO);
        one.txn(1, Position::ZERO);
        let bad = one.txn(2, Position::ZERO);
        let after = one.txn(3, Position::ZERO);
        one.txn(4, after);
        one.break_at(bad);
        let corruption = scan(&[&one], None).expect_err("synced damage");
        assert_eq!(corruption.offset, u64::from(bad.offset));
        assert_eq!(corruption.after, Some(zxid(1)));
    }

    #[test]
    fn a_mark_at_the_end_protects_the_last_batch() {
        let mut one = Built::new(1, 0, Position::ZERO);
        let bad = one.txn(1, Position::ZERO);
        let end = Position::new(1, one.offset as u32);
        one.put(Kind::Mark, 1, end);
        assert_eq!(scan(&[&one], None).expect("whole").torn, None);
        one.break_at(bad);
        scan(&[&one], None).expect_err("the mark states that it was synced");
    }

    #[test]
    fn a_mark_of_another_transaction_is_not_the_end() {
        let mut one = Built::new(1, 0, Position::ZERO);
        one.txn(1, Position::ZERO);
        let end = Position::new(1, one.offset as u32);
        one.put(Kind::Mark, 2, end);
        let extent = scan(&[&one], None).expect("nothing synced is missing");
        assert!(extent.torn.is_some());
    }

    #[test]
    fn a_torn_payload_still_lets_its_header_speak() {
        let mut one = Built::new(1, 0, Position::ZERO);
        let bad = one.txn(1, Position::ZERO);
        let next = one.txn(2, Position::ZERO);
        let torn = one.txn(3, next);
        one.break_at(bad);
        one.break_at(torn);
        scan(&[&one], None).expect_err("the torn record's header states what was synced");
    }

    #[test]
    fn a_segment_that_does_not_continue_the_one_before_is_part_of_the_tail() {
        let mut one = Built::new(1, 0, Position::ZERO);
        let synced = one.txn(1, Position::ZERO);
        let torn = one.txn(2, synced);
        one.break_at(torn);
        let mut two = Built::new(2, 2, synced);
        let in_two = two.txn(3, synced);
        let extent = scan(&[&one, &two], None).expect("a torn tail over two segments");
        assert_eq!((extent.last, extent.chain.len()), (zxid(1), 1));
        two.txn(4, in_two);
        scan(&[&one, &two], None).expect_err("segment two states that one was synced");
    }

    #[test]
    fn segments_chain_and_damage_in_the_slack_of_a_full_one_does_no_harm() {
        let mut one = Built::new(1, 0, Position::ZERO);
        one.txn(1, Position::ZERO);
        one.bytes[1000] = 7;
        let mut two = Built::new(2, 1, Position::new(1, one.offset as u32));
        two.txn(2, Position::ZERO);
        let extent = scan(&[&one, &two], None).expect("whole");
        assert_eq!(
            (extent.last, extent.chain.len(), extent.torn),
            (zxid(2), 2, None)
        );
    }

    #[test]
    fn a_missing_segment_and_a_gap_in_zxids_are_corruption() {
        let mut one = Built::new(1, 0, Position::ZERO);
        one.txn(1, Position::ZERO);
        let three = Built::new(3, 1, Position::ZERO);
        let corruption = scan(&[&one, &three], None).expect_err("two is missing");
        assert_eq!(corruption.file, segment::name_of(2));
        one.txn(3, Position::ZERO);
        scan(&[&one], None).expect_err("transaction 2 is missing");
    }

    #[test]
    fn an_interrupted_cut_is_finished_and_its_tail_believed_in_nothing() {
        let mut one = Built::new(1, 0, Position::ZERO);
        one.txn(1, Position::ZERO);
        let two = one.txn(2, Position::ZERO);
        let three = one.txn(3, two);
        one.txn(4, three);
        one.break_at(two);
        let extent = scan(&[&one], Some(zxid(1))).expect("cut after 1");
        assert_eq!((extent.last, extent.end), (zxid(1), two));
        scan(&[&one], Some(zxid(2))).expect_err("2 was to be kept and is damaged");
    }

    #[test]
    fn a_first_segment_without_a_beginning_is_no_log() {
        let mut one = Built::new(1, 0, Position::ZERO);
        one.bytes[64..104].fill(0);
        let extent = scan(&[&one], None).expect("empty");
        assert!(extent.chain.is_empty());
    }
}
