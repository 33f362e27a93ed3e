//! Snapshots of this server's own state, and the log that goes with them.

use std::io::{self, Write as _};

use super::{Pipeline, ToCore, on_thread};
use crate::group::Snapshot;
use crate::log::{FileDisk, SnapshotWriter};
use crate::runtime::background::{self, Urgency};
use crate::runtime::clock;
use crate::time::Millis;
use crate::types::Zxid;

/// When the next snapshot is due.
///
/// While much is logged snapshots are few: what changes while one is written is copied, and a
/// burst of joins changes nearly everything. Once little is logged one is taken that much sooner,
/// so that a start has little log to read back.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Bytes of transactions since the last one, replayed ones included.
    logged_bytes: u64,
    /// What the last one took.
    bytes: u64,
    under_way: bool,
    pace: Pace,
}

/// How much has been logged lately.
#[derive(Default)]
struct Pace {
    /// When the present second began, if it has, and how much of [`Snapshots::logged_bytes`]
    /// there was.
    since: Option<Millis>,
    before: u64,
    /// True if little was logged in the second before it.
    is_calm: bool,
}

impl Snapshots {
    /// A transaction of `bytes` bytes follows the last snapshot.
    pub(super) fn logged(&mut self, bytes: usize) {
        self.logged_bytes += bytes as u64;
    }

    /// So many sessions were adopted since the last snapshot.
    fn adopted(&mut self, sessions: u64) {
        self.logged_bytes += sessions * ADOPTED_BYTES;
    }

    /// True if the next is due, if `least` bytes logged call for one at any time.
    fn is_due(&mut self, now: Millis, least: u64) -> bool {
        let pace = &mut self.pace;
        if pace.since.is_none_or(|since| now.since(since) >= PACE) {
            let little = self.logged_bytes.saturating_sub(pace.before) < CALM_BYTES;
            pace.is_calm = little && pace.since.is_some();
            (pace.since, pace.before) = (Some(now), self.logged_bytes);
        }
        let share = if pace.is_calm { CALM_SHARE } else { 1 };
        !self.under_way && self.logged_bytes >= self.due_bytes(least) / share
    }

    /// When [`Snapshots::is_due`] may next be true although nothing more is logged.
    pub(super) fn deadline(&self, least: u64) -> Millis {
        let waits = !self.under_way && self.logged_bytes >= self.due_bytes(least) / CALM_SHARE;
        let calm = self.pace.since.filter(|_| waits);
        calm.map_or(Millis(u64::MAX), |since| since + PACE)
    }

    /// How many bytes logged call for the next while much is logged, if `least` always do.
    ///
    /// Half of what the last one took: to read a byte of the log back costs several times what it
    /// costs to restore one of a snapshot, so this keeps the log's part of a start below the
    /// snapshot's; and snapshots cost at most twice the bytes the log does.
    fn due_bytes(&self, least: u64) -> u64 {
        least.max(self.bytes / 2)
    }

    /// One has been begun.
    fn begin(&mut self) {
        self.logged_bytes = 0;
        self.pace.before = 0;
        self.under_way = true;
    }

    /// Another server's snapshot has taken the place of the log.
    pub(super) fn installed(&mut self) {
        self.logged_bytes = 0;
        self.pace.before = 0;
    }
}

impl Pipeline {
    /// Begins a snapshot if enough has been logged since the last, and all it would hold is
    /// durable here: a follower may be told of a commit before its own disk is done with it.
    pub(super) fn begin_snapshot(&mut self) {
        // A start is not to be slowed down by what it leads to.
        if !self.replica.is_serving() {
            return;
        }
        self.snapshots.adopted(self.replica.take_adopted());
        let least = self.limits.snapshot_log_bytes;
        if !self.snapshots.is_due(clock::now(), least) {
            return;
        }
        let (zxid, snapshot) = self.replica.save();
        if zxid > self.log.durable() {
            return;
        }
        self.snapshots.begin();
        let writer = match self.log.snapshot_writer(zxid) {
            Ok(writer) => writer,
            Err(error) => return self.on_snapshot(zxid, Err(error)),
        };
        let reports = self.ways.reports.clone();
        let work = move || {
            let _ = reports.send(ToCore::Snapshot(zxid, write_snapshot(snapshot, writer)));
        };
        if let Err(error) = background::spawn("snapshot", Urgency::Leisure, work) {
            self.on_snapshot(zxid, Err(error));
        }
    }

    /// A snapshot is complete, so what is older may go; or it failed, which loses nothing: the
    /// log still holds what it would have, and the next one is tried after as many bytes.
    pub(super) fn on_snapshot(&mut self, zxid: Zxid, result: io::Result<u64>) {
        self.snapshots.under_way = false;
        match result {
            Ok(bytes) => self.snapshots.bytes = bytes,
            Err(error) => {
                tracing::warn!("could not write a snapshot: {error}; the log is kept instead");
                return;
            }
        }
        self.counters.snapshots.add(1);
        self.replica.on_snapshot_taken(zxid);
        match self.log.trim_job(self.limits.snapshots_kept) {
            Ok(job) => {
                self.replica.on_trimmed(self.log.history().base);
                on_thread("trim", Urgency::Leisure, move || {
                    if let Err(error) = job.run() {
                        tracing::warn!("could not remove old log segments: {error}");
                    }
                });
            }
            Err(error) => tracing::warn!("could not look for old log segments: {error}"),
        }
    }
}

/// Streams a snapshot to disk.
fn write_snapshot(mut snapshot: Snapshot, mut writer: SnapshotWriter<FileDisk>) -> io::Result<u64> {
    let mut piece = Vec::with_capacity(SNAPSHOT_PIECE_BYTES + SNAPSHOT_PIECE_BYTES / 2);
    loop {
        piece.clear();
        let more = snapshot.write_into(&mut piece, SNAPSHOT_PIECE_BYTES);
        writer.write_all(&piece)?;
        if !more {
            return writer.finish();
        }
    }
}

/// What the adoption of a session counts for, bytes: it takes hardly any in the log, but as long
/// to be read back as a join does. Else each start would read back the adoptions of all before it.
const ADOPTED_BYTES: u64 = 64;
/// How long is looked at to know how much is logged.
const PACE: Millis = Millis(1_000);
/// Less than this in that time is little: some ten thousand joins.
const CALM_BYTES: u64 = 1 << 20;
/// While little is logged a snapshot is due this many times sooner.
const CALM_SHARE: u64 = 4;
/// Bytes of a snapshot written at a time.
const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_cost_at_most_twice_the_bytes_of_the_log() {
        let due = |bytes| {
            let snapshots = Snapshots {
                bytes,
                ..Snapshots::default()
            };
            snapshots.due_bytes(1_000)
        };
        assert_eq!([due(0), due(2_000), due(5_000)], [1_000, 1_000, 2_500]);
    }

    #[test]
    fn what_was_adopted_counts_as_much_as_its_joins_would() {
        let mut snapshots = Snapshots::default();
        snapshots.logged(100);
        snapshots.adopted(1_000_000);
        assert_eq!(snapshots.logged_bytes, 100 + 64_000_000);
    }

    /// What is logged each second, and the seconds after which a snapshot was due.
    fn due_after(logged: &[usize], least: u64) -> Vec<usize> {
        let mut snapshots = Snapshots::default();
        let mut due = Vec::new();
        for (second, bytes) in logged.iter().enumerate() {
            snapshots.logged(*bytes);
            if snapshots.is_due(Millis(1_000 * (second as u64 + 1)), least) {
                due.push(second);
                snapshots.begin();
                snapshots.under_way = false;
            }
        }
        due
    }

    const MIB: usize = 1 << 20;

    #[test]
    fn while_much_is_logged_snapshots_are_few_and_one_follows_when_that_is_over() {
        let least = 40 * MIB as u64;
        assert_eq!(due_after(&[9 * MIB; 15], least), [4, 9, 14]);
        assert_eq!(due_after(&[9 * MIB, 9 * MIB, 0, 0], least), [2]);
        // Before a second has passed nobody knows.
        assert!(due_after(&[12 * MIB], least).is_empty());
        // A quarter of what is due at any time, and no less.
        assert_eq!(due_after(&[9 * MIB, 0, 0, MIB, 0], least), [4]);
        // Little is less than a MiB a second.
        assert!(due_after(&[12 * MIB, MIB, MIB], least).is_empty());
        assert_eq!(due_after(&[12 * MIB, MIB - 1, MIB], least), [1]);
    }

    #[test]
    fn who_waits_for_calm_is_woken_for_it() {
        let least = 40 * MIB as u64;
        let mut snapshots = Snapshots::default();
        let never = Millis(u64::MAX);
        snapshots.logged(10 * MIB - 1);
        assert!(!snapshots.is_due(Millis(5_000), least));
        assert_eq!(snapshots.deadline(least), never, "nothing to wait for");
        snapshots.logged(1);
        assert_eq!(snapshots.deadline(least), Millis(6_000));
        assert!(!snapshots.is_due(Millis(5_999), least));
        assert!(snapshots.is_due(Millis(6_000), least));
        snapshots.begin();
        snapshots.logged(90 * MIB);
        assert!(!snapshots.is_due(Millis(9_000), least), "one at a time");
        assert_eq!(snapshots.deadline(least), never);
    }

    #[test]
    fn what_was_logged_before_a_snapshot_is_no_sign_of_calm_after_it() {
        let mut snapshots = Snapshots::default();
        for second in 1..=3 {
            snapshots.logged(20 * MIB);
            assert_eq!(
                snapshots.is_due(Millis(1_000 * second), 40 * MIB as u64),
                second == 2
            );
            if second == 2 {
                snapshots.begin();
                snapshots.under_way = false;
            }
        }
    }
}
