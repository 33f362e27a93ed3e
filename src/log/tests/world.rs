//! A random user of the log, and what it was promised.

use crate::log::disk::Disk;
use crate::log::{
    Entries, Fatal, FlushOf, Log, PrepareJob, ReadError, Recovered, Settings, SyncTicket, TrimJob,
};
use crate::sim::disk::SimDisk;
use crate::types::{Epoch, Incarnation, Zxid};
use std::io::{Read as _, Write as _};

pub(super) const SETTINGS: Settings = Settings {
    segment_bytes: 1024,
    salt: 0x1234_5678_9abc_def0,
    snapshot_is_enough: false,
};

/// What the log has promised, and what it was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises {
    /// Everything appended and not cut, in order.
    pub appended: Vec<(Zxid, Vec<u8>)>,
    /// Reported durable.
    pub durable: Zxid,
    /// The transaction the log begins after, if another server's snapshot was installed.
    pub base: Zxid,
    /// An install of another server's snapshot that was begun and has not returned.
    pub installing: Option<Zxid>,
    /// A cut that was begun and has not returned.
    pub cutting: Option<Zxid>,
    /// Snapshots that were finished, oldest first; trimming may have removed old ones.
    pub snapshots: Vec<Zxid>,
    /// A snapshot that was begun and may or may not be there.
    pub snapshotting: Option<Zxid>,
    /// Acknowledged: accepted, current, incarnation.
    pub epochs: [u64; 3],
    /// What was being written when the last call failed.
    pub epochs_asked: [u64; 3],
}

impl Promises {
    fn last(&self) -> Zxid {
        self.appended.last().map_or(self.base, |(zxid, _)| *zxid)
    }

    /// Compares a log just opened with what was promised, and takes it as the new truth.
    pub(super) fn check<D: Disk>(&mut self, log: &Log<D>, recovered: &Recovered) {
        assert_eq!(log.last(), recovered.last);
        let found = log.epochs();
        let found = [found.accepted.0, found.current.0, found.incarnation.0];
        assert!(
            found == self.epochs || found == self.epochs_asked,
            "epochs {found:?}, acknowledged {:?}, asked {:?}",
            self.epochs,
            self.epochs_asked
        );
        (self.epochs, self.epochs_asked) = (found, found);
        if let Some(zxid) = self.installing.take()
            && [log.last(), log.begins_after()] == [zxid; 2]
            && recovered.snapshot == Some(zxid)
        {
            self.installed(zxid);
        }
        let was_cut = self.check_last(log.last());
        self.appended.retain(|(zxid, _)| *zxid <= log.last());
        assert_eq!(
            self.last(),
            log.last(),
            "a transaction that was never appended, or a gap"
        );
        self.check_snapshot(log, recovered.snapshot, was_cut);
        self.check_entries(log, log.begins_after());
        self.check_entries(log, recovered.snapshot.unwrap_or(Zxid::ZERO));
        self.check_history(log);
        self.durable = log.last();
    }

    /// Another server's snapshot has taken the place of everything.
    fn installed(&mut self, zxid: Zxid) {
        self.appended.clear();
        self.base = zxid;
        self.durable = zxid;
        self.snapshots = vec![zxid];
        self.cutting = None;
        self.snapshotting = None;
    }

    /// Compares the history in short with what was appended.
    pub(super) fn check_history<D: Disk>(&self, log: &Log<D>) {
        let history = log.history();
        assert_eq!(history.last(), log.last());
        assert!(history.base >= log.begins_after());
        let newest = log.snapshots().expect("the disk works").first().copied();
        let covered = newest.unwrap_or_default();
        assert!(history.base <= covered, "{} uncovered", history.base);
        let mut ends: Vec<Zxid> = Vec::new();
        for &(zxid, _) in self.appended.iter().filter(|(at, _)| *at > history.base) {
            ends.pop_if(|end| end.epoch == zxid.epoch);
            ends.push(zxid);
        }
        assert_eq!(history.ends, ends, "after {}", history.base);
    }

    /// True if a cut was under way and is done.
    fn check_last(&mut self, last: Zxid) -> bool {
        let cut = self.cutting.take();
        assert!(
            last >= self.durable || cut == Some(last),
            "{last}, though {} was durable",
            self.durable
        );
        cut.is_some()
    }

    fn check_snapshot<D: Disk>(&mut self, log: &Log<D>, found: Option<Zxid>, was_cut: bool) {
        self.snapshots.retain(|zxid| *zxid <= log.last());
        let newest = self.snapshots.last().copied();
        // A cut may leave an older one that an interrupted trim has removed or has not.
        let older = was_cut && found.is_none_or(|zxid| self.snapshots.contains(&zxid));
        assert!(
            found == newest || (found.is_some() && found == self.snapshotting) || older,
            "snapshot {found:?}, finished {:?}, begun {:?}",
            self.snapshots,
            self.snapshotting
        );
        self.snapshotting = None;
        self.snapshots = log.snapshots().expect("the disk works");
        self.snapshots.reverse();
        for zxid in log.snapshots().expect("the disk works") {
            assert!(zxid <= log.last(), "a snapshot of what was cut");
            let mut content = Vec::new();
            let mut reader = log.open_snapshot(zxid).expect("the snapshot opens");
            reader
                .read_to_end(&mut content)
                .expect("the snapshot is whole");
            assert_eq!(content, snapshot_content(zxid));
        }
    }

    fn check_entries<D: Disk>(&self, log: &Log<D>, after: Zxid) {
        let expected = self.appended.iter().filter(|(zxid, _)| *zxid > after);
        let entries = log.entries_after(after).expect("the log reaches back");
        let found = collect(entries).expect("the log is whole");
        assert!(
            found.iter().eq(expected),
            "the log gives back other entries"
        );
    }
}

pub(super) fn collect<D: Disk>(mut entries: Entries<D>) -> Result<Vec<(Zxid, Vec<u8>)>, ReadError> {
    let mut all = Vec::new();
    while let Some(entry) = entries.next()? {
        all.push((entry.zxid, entry.payload.to_vec()));
    }
    Ok(all)
}

pub(super) fn snapshot_content(zxid: Zxid) -> Vec<u8> {
    let length = 40 + (zxid.counter as usize * 37) % 900;
    zxid.to_bytes().into_iter().cycle().take(length).collect()
}

/// Random numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Uses a log at random, and notes what it promises.
pub(super) struct User {
    pub log: Log<SimDisk>,
    ticket: Option<SyncTicket<FlushOf<SimDisk>>>,
    job: Option<PrepareJob<SimDisk>>,
    trim: Option<TrimJob<SimDisk>>,
}

/// A call failed: the power is off, or the log is fenced.
#[derive(Debug)]
pub(super) struct Stopped(pub String);

pub(super) fn stopped(error: impl std::fmt::Display) -> Stopped {
    Stopped(error.to_string())
}

impl User {
    /// Opens the log and checks it against the promises.
    pub(super) fn open(disk: &SimDisk, promises: &mut Promises) -> Result<User, Stopped> {
        let (log, recovered) = Log::open(disk.clone(), SETTINGS).map_err(stopped)?;
        promises.check(&log, &recovered);
        let mut user = User {
            log,
            ticket: None,
            job: None,
            trim: None,
        };
        promises.epochs_asked[2] += 1;
        let incarnation = user.log.next_incarnation().map_err(stopped)?;
        assert_eq!(incarnation, Incarnation(promises.epochs_asked[2]));
        promises.epochs = promises.epochs_asked;
        if promises.epochs[0] == 0 {
            user.next_epoch(promises)?;
        }
        Ok(user)
    }

    /// Does `steps` random things.
    pub(super) fn work(
        &mut self,
        steps: u64,
        random: &mut Random,
        promises: &mut Promises,
    ) -> Result<(), Stopped> {
        for _ in 0..steps {
            match random.below(43) {
                0..=19 => self.append(random, promises)?,
                20..=25 => {
                    self.ticket = self.ticket.take().or_else(|| self.log.begin_sync());
                    if let Some(fatal) = self.log.fatal() {
                        return Err(stopped(fatal));
                    }
                }
                26..=30 => self.end_sync(promises)?,
                31..=32 => self.sync_now(promises)?,
                33 => self.job = self.job.take().or_else(|| self.log.prepare_job()),
                34 => {
                    if let Some(job) = self.job.take() {
                        job.run().map_err(stopped)?;
                    }
                }
                35 => self.next_epoch(promises)?,
                36..=37 => self.snapshot(promises)?,
                38 => {
                    let keep = 1 + random.below(2) as usize;
                    self.trim = Some(self.log.trim_job(keep).map_err(stopped)?);
                }
                39..=40 => {
                    if let Some(job) = self.trim.take() {
                        job.run().map_err(stopped)?;
                    }
                }
                41 => self.cut(random, promises)?,
                _ => self.install(random, promises)?,
            }
            promises.check_history(&self.log);
            assert!(self.log.durable() <= self.log.last());
        }
        Ok(())
    }

    /// Gives a ticket that is out back to the fenced log.
    pub(super) fn assert_ticket_refused(&mut self, fatal: &Fatal) {
        if let Some(ticket) = self.ticket.take() {
            assert_eq!(self.log.end_sync(ticket, Ok(())), Err(fatal.clone()));
        }
    }

    fn append(&mut self, random: &mut Random, promises: &mut Promises) -> Result<(), Stopped> {
        let last = self.log.last();
        let current = Epoch(promises.epochs[1]);
        let new = last.epoch < current;
        let zxid = if new {
            Zxid::new(current, 1)
        } else {
            last.next()
        };
        let length = [0, 1, 8, 30, 60, 100, 200, 500][random.below(8) as usize];
        let payload: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        // Noted before it is tried: a crash may leave it either way.
        promises.appended.push((zxid, payload.clone()));
        self.log.append(zxid, &payload).map_err(stopped)
    }

    fn end_sync(&mut self, promises: &mut Promises) -> Result<(), Stopped> {
        if let Some(ticket) = self.ticket.take() {
            let result = ticket.run();
            promises.durable = self.log.end_sync(ticket, result).map_err(stopped)?;
        }
        Ok(())
    }

    /// Syncs all that is appended, here and now.
    pub(super) fn sync_now(&mut self, promises: &mut Promises) -> Result<(), Stopped> {
        self.end_sync(promises)?;
        promises.durable = self.log.sync_now().map_err(stopped)?;
        Ok(())
    }

    fn next_epoch(&mut self, promises: &mut Promises) -> Result<(), Stopped> {
        let next = Epoch(promises.epochs[0] + 1);
        promises.epochs_asked[0] = next.0;
        self.log.set_accepted_epoch(next).map_err(stopped)?;
        promises.epochs = promises.epochs_asked;
        promises.epochs_asked[1] = next.0;
        self.log.set_current_epoch(next).map_err(stopped)?;
        promises.epochs = promises.epochs_asked;
        Ok(())
    }

    fn snapshot(&mut self, promises: &mut Promises) -> Result<(), Stopped> {
        let zxid = self.log.durable();
        if zxid == Zxid::ZERO || promises.snapshots.contains(&zxid) {
            return Ok(());
        }
        promises.snapshotting = Some(zxid);
        let mut writer = self.log.snapshot_writer(zxid).map_err(stopped)?;
        writer.write_all(&snapshot_content(zxid)).map_err(stopped)?;
        writer.finish().map_err(stopped)?;
        promises.snapshots.push(zxid);
        promises.snapshotting = None;
        Ok(())
    }

    /// Installs another server's snapshot: of this log's own past, of its future, or of another.
    fn install(&mut self, random: &mut Random, promises: &mut Promises) -> Result<(), Stopped> {
        let last = self.log.last();
        let past = promises
            .appended
            .len()
            .checked_sub(random.below(8) as usize + 1);
        let zxid = match random.below(3) {
            0 => past.map_or(last, |at| promises.appended[at].0),
            1 => Zxid::new(last.epoch, last.counter + 1 + random.below(9)),
            _ => Zxid::new(Epoch(promises.epochs[1]), 1 + random.below(9)),
        };
        let mut receiver = self.log.snapshot_receiver(zxid).map_err(stopped)?;
        receiver
            .write_all(&snapshot_content(zxid))
            .map_err(stopped)?;
        self.end_sync(promises)?;
        promises.installing = Some(zxid);
        self.log.install_snapshot(receiver).map_err(stopped)?;
        promises.installing = None;
        promises.installed(zxid);
        Ok(())
    }

    fn cut(&mut self, random: &mut Random, promises: &mut Promises) -> Result<(), Stopped> {
        self.end_sync(promises)?;
        let count = promises.appended.len();
        let back = random.below(8) as usize + 1;
        let zxid = count
            .checked_sub(back)
            .map_or(Zxid::ZERO, |at| promises.appended[at].0);
        promises.cutting = Some(zxid);
        match self.log.truncate_after(zxid) {
            Ok(()) => {
                promises.appended.retain(|(at, _)| *at <= zxid);
                promises.durable = zxid;
                promises.snapshots.retain(|at| *at <= zxid);
            }
            Err(crate::log::LogError::BadCut { .. }) => {
                promises.durable = self.log.durable();
            }
            Err(error) => return Err(stopped(error)),
        }
        promises.cutting = None;
        Ok(())
    }
}
