//! The install of another server's snapshot: all or nothing, wherever it is interrupted.

use super::world::{SETTINGS, Stopped, collect, snapshot_content, stopped};
use crate::log::disk::Disk as _;
use crate::log::{History, Log, LogError, OpenError, Recovered, SnapshotReceiver};
use crate::sim::disk::{Plan, SimDisk};
use crate::types::{Epoch, Zxid};
use std::io::{Read as _, Write as _};

fn zxid(epoch: u64, counter: u64) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// A log as it stands before the install, and what is to be installed.
struct Shape {
    name: &'static str,
    /// How many transactions each epoch has, from epoch 1.
    epochs: &'static [u64],
    /// Snapshots, by how many transactions are durable then.
    snapshots: &'static [u64],
    /// Trims to its newest snapshot.
    trims: bool,
    /// Transactions at the end that are not durable.
    unsynced: u64,
    /// What is installed.
    install: (u64, u64),
}

const PLAIN: Shape = Shape {
    name: "",
    epochs: &[],
    snapshots: &[],
    trims: false,
    unsynced: 0,
    install: (3, 5),
};

const SHAPES: &[Shape] = &[
    Shape {
        name: "empty",
        ..PLAIN
    },
    Shape {
        name: "shorter",
        epochs: &[4],
        ..PLAIN
    },
    Shape {
        name: "divergent, and not all durable",
        epochs: &[4, 9],
        unsynced: 9,
        install: (3, 2),
        ..PLAIN
    },
    Shape {
        name: "longer",
        epochs: &[20],
        install: (1, 7),
        ..PLAIN
    },
    Shape {
        name: "trimmed, a gap away, with snapshots of its own",
        epochs: &[20],
        snapshots: &[9, 15],
        trims: true,
        install: (2, 40),
        ..PLAIN
    },
    Shape {
        name: "with a snapshot of the same zxid",
        epochs: &[12],
        snapshots: &[8, 12],
        install: (1, 12),
        ..PLAIN
    },
    Shape {
        name: "with newer snapshots of its own",
        epochs: &[6, 6],
        snapshots: &[8, 12],
        install: (1, 2),
        ..PLAIN
    },
    Shape {
        name: "replaced by nothing",
        epochs: &[12],
        snapshots: &[10],
        trims: true,
        install: (0, 0),
        ..PLAIN
    },
];

type Entries = Vec<(Zxid, Vec<u8>)>;

impl Shape {
    fn installed(&self) -> Zxid {
        zxid(self.install.0, self.install.1)
    }

    fn entries(&self) -> Entries {
        let epochs = (1..).zip(self.epochs);
        let zxids = epochs.flat_map(|(epoch, &count)| (1..=count).map(move |at| zxid(epoch, at)));
        zxids.map(|at| (at, vec![at.counter as u8; 90])).collect()
    }

    /// Brings a new log into this shape.
    fn build(&self, disk: &SimDisk) -> Log<SimDisk> {
        let (mut log, _) = Log::open(disk.clone(), SETTINGS).expect("nothing fails");
        log.next_incarnation().expect("nothing fails");
        log.set_accepted_epoch(Epoch(3)).expect("nothing fails");
        log.set_current_epoch(Epoch(2)).expect("nothing fails");
        let entries = self.entries();
        let durable = entries.len() - self.unsynced as usize;
        for (at, (zxid, payload)) in entries.iter().enumerate() {
            log.append(*zxid, payload).expect("nothing fails");
            if at < durable {
                log.sync_now().expect("nothing fails");
            }
            if self.snapshots.contains(&(at as u64 + 1)) {
                let mut writer = log.snapshot_writer(*zxid).expect("nothing fails");
                writer.write_all(b"its own").expect("nothing fails");
                writer.finish().expect("nothing fails");
            }
        }
        if self.trims {
            let job = log.trim_job(1).expect("nothing fails");
            job.run().expect("nothing fails");
        }
        log
    }

    /// Checks that a log just opened is the old one or the new one, whole; true if new.
    fn check(&self, disk: &SimDisk, log: &Log<SimDisk>, recovered: &Recovered) -> bool {
        let names = disk.list().expect("the disk works");
        let left = |name: &&String| name.ends_with(".tmp") || name.starts_with("install");
        assert_eq!(names.iter().find(left), None, "{}", self.name);
        assert_eq!(log.epochs().accepted, Epoch(3));
        let new = self.installed();
        if log.last() == new && log.begins_after() == new && !self.is_old(log) {
            self.check_new(log, recovered);
            return true;
        }
        let entries = self.entries();
        let durable = entries.len() - self.unsynced as usize;
        let begins_after = log.begins_after();
        let found = log.entries_after(begins_after).expect("it reaches back");
        let found = collect(found).expect("it is whole");
        let expected: Vec<_> = entries
            .iter()
            .filter(|(at, _)| *at > begins_after)
            .collect();
        assert!(
            found.iter().eq(expected.into_iter().take(found.len())),
            "{}: the old log has other entries",
            self.name
        );
        let count = entries.iter().filter(|(at, _)| *at <= log.last()).count();
        assert!(count >= durable, "{}: {count} left of {durable}", self.name);
        let own = self.snapshots.last().map(|&at| entries[at as usize - 1].0);
        assert_eq!(recovered.snapshot, own, "{}", self.name);
        assert!(self.is_old(log) || own.is_none(), "{}", self.name);
        false
    }

    /// True if the newest snapshot is this log's own.
    fn is_old(&self, log: &Log<SimDisk>) -> bool {
        let newest = log.snapshots().expect("the disk works").first().copied();
        newest.is_some_and(|newest| content(log, newest) == b"its own")
    }

    fn check_new(&self, log: &Log<SimDisk>, recovered: &Recovered) {
        let new = self.installed();
        assert_eq!((log.last(), log.durable()), (new, new));
        assert_eq!(recovered.snapshot, Some(new));
        assert_eq!(log.snapshots().expect("the disk works"), [new]);
        assert_eq!(content(log, new), snapshot_content(new));
        assert_eq!(*log.history(), History::after(new));
        let found = collect(log.entries_after(new).expect("it reaches back"));
        assert_eq!(found.expect("it is whole"), []);
    }
}

fn content(log: &Log<SimDisk>, zxid: Zxid) -> Vec<u8> {
    let mut content = Vec::new();
    let mut reader = log.open_snapshot(zxid).expect("it is there");
    reader.read_to_end(&mut content).expect("it is whole");
    content
}

fn receive(log: &Log<SimDisk>, zxid: Zxid) -> Result<SnapshotReceiver<SimDisk>, Stopped> {
    let mut receiver = log.snapshot_receiver(zxid).map_err(stopped)?;
    let content = snapshot_content(zxid);
    receiver.write_all(&content).map_err(stopped)?;
    Ok(receiver)
}

fn install(log: &mut Log<SimDisk>, zxid: Zxid) -> Result<(), Stopped> {
    let receiver = receive(log, zxid)?;
    log.install_snapshot(receiver).map_err(stopped)
}

/// Opens the log after a fault, checks it, and uses it; true if it is the new one.
fn recover(shape: &Shape, disk: &SimDisk) -> Result<bool, OpenError> {
    let (mut log, recovered) = Log::open(disk.clone(), SETTINGS)?;
    let new = shape.check(disk, &log, &recovered);
    log.append(
        zxid(
            3,
            if log.last().epoch == Epoch(3) {
                log.last().counter + 1
            } else {
                1
            },
        ),
        b"on",
    )
    .expect("it goes on");
    Ok(new)
}

/// The events of a shape's build, and of the install after it.
fn events(shape: &Shape) -> (u64, u64) {
    let disk = SimDisk::new(0, Plan::default());
    let mut log = shape.build(&disk);
    let begun = disk.events();
    install(&mut log, shape.installed()).expect("nothing fails");
    (begun, disk.events())
}

fn crash_at(event: u64) -> Plan {
    Plan {
        crash_at: Some(event),
        ..Plan::default()
    }
}

fn fail_at(event: u64) -> Plan {
    Plan {
        fail_at: Some(event),
        ..Plan::default()
    }
}

/// Lets power fail at every event of the recovery from `disk`, and recovers again each time.
/// How many crashes that was, and how often the old log was found.
fn crash_recovery(
    shape: &Shape,
    disk: &SimDisk,
    after: impl Fn(&SimDisk, Plan) -> SimDisk,
) -> [u64; 2] {
    let [mut crashes, mut old] = [0, 0];
    for event in 0.. {
        let again = after(disk, crash_at(event));
        let first = recover_some(shape, &again);
        let last = again.power_cycle(Plan::default());
        let new = recover(shape, &last).expect("the disk works");
        // What one start has seen, the next one sees.
        assert!(first.is_none_or(|first| first == new), "{}", shape.name);
        old += u64::from(!new);
        if !again.crashed() {
            return [crashes, old];
        }
        crashes += 1;
    }
    unreachable!("a recovery has an end")
}

/// As [`recover`], without use of the log, and with `None` for a crash.
fn recover_some(shape: &Shape, disk: &SimDisk) -> Option<bool> {
    match Log::open(disk.clone(), SETTINGS) {
        Ok((log, recovered)) => Some(shape.check(disk, &log, &recovered)),
        Err(error) => {
            assert!(disk.crashed(), "{}: {error}", shape.name);
            None
        }
    }
}

#[test]
fn an_install_replaces_every_shape_of_log() {
    for shape in SHAPES {
        let disk = SimDisk::new(1, Plan::default());
        let mut log = shape.build(&disk);
        let new = shape.installed();
        install(&mut log, new).expect("nothing fails");
        let now = [log.last(), log.durable(), log.begins_after()];
        assert_eq!(now, [new; 3], "{}", shape.name);
        assert_eq!(*log.history(), History::after(new));
        let next = zxid(
            3,
            if new.epoch == Epoch(3) {
                new.counter + 1
            } else {
                1
            },
        );
        log.append(next, b"on").expect("it goes on");
        let ticket = log.begin_sync().expect("there is something to sync");
        assert_eq!(ticket.flushes.len(), 1, "an old segment is still synced");
        let ran = ticket.run();
        assert_eq!(log.end_sync(ticket, ran), Ok(next));
        log.close().expect("nothing fails");
        let (log, recovered) = Log::open(disk.clone(), SETTINGS).expect("nothing fails");
        assert_eq!((recovered.snapshot, log.last()), (Some(new), next));
        assert_eq!(content(&log, new), snapshot_content(new));
    }
}

#[test]
fn a_crash_at_every_event_of_an_install_and_of_its_recovery_leaves_the_old_or_the_new() {
    let [mut crashes, mut old] = [0, 0];
    for shape in SHAPES {
        let (begun, ended) = events(shape);
        for event in begun..ended {
            for seed in 0..3 {
                let disk = SimDisk::new(seed, crash_at(event));
                let mut log = shape.build(&disk);
                install(&mut log, shape.installed()).expect_err("power was lost");
                drop(log);
                let found = crash_recovery(shape, &disk, SimDisk::power_cycle);
                crashes += found[0];
                old += found[1];
            }
        }
    }
    assert!(crashes > 3_000, "only {crashes} crashes");
    assert!(
        (crashes / 10..crashes * 9 / 10).contains(&old),
        "{old} times the old one"
    );
}

#[test]
fn an_error_at_every_event_of_an_install_fences_and_leaves_the_old_or_the_new() {
    let mut fenced = 0;
    for shape in SHAPES {
        let (begun, ended) = events(shape);
        for event in begun..ended {
            let disk = SimDisk::new(event, fail_at(event));
            let mut log = shape.build(&disk);
            match receive(&log, shape.installed()) {
                // A failed receiver harms nothing.
                Err(_) => assert_eq!(log.fatal(), None),
                Ok(receiver) => {
                    let fatal = log.install_snapshot(receiver).expect_err("an event failed");
                    let text = fatal.to_string();
                    assert!(text.contains("could not install a snapshot"), "{text}");
                    let append = log.append(log.last().next(), b"late");
                    assert_eq!(append, Err(LogError::Fatal(fatal)));
                    fenced += 1;
                }
            }
            drop(log);
            // The cache may show names that are not durable.
            crash_recovery(shape, &disk, SimDisk::kill);
        }
    }
    assert!(fenced > 80, "only {fenced} errors fenced the log");
}

#[test]
fn an_install_on_a_full_disk_fences_and_leaves_the_old_or_the_new() {
    for shape in SHAPES {
        let full = SimDisk::new(1, Plan::default());
        drop(shape.build(&full));
        let names = full.list().expect("the disk works");
        let used: usize = names.iter().map(|name| full.bytes(name).len()).sum();
        let mut refused = 0;
        for room in (0..1600).step_by(16) {
            let disk = SimDisk::new(room, Plan::default());
            let mut log = shape.build(&disk);
            disk.set_capacity(Some(used as u64 + room));
            let Ok(receiver) = receive(&log, shape.installed()) else {
                continue;
            };
            refused += u64::from(log.install_snapshot(receiver).is_err());
            drop(log);
            disk.set_capacity(None);
            let disk = disk.power_cycle(Plan::default());
            recover(shape, &disk).expect("there is room again");
        }
        assert!(refused > 0, "{}: there was room", shape.name);
    }
}

#[test]
fn a_receiver_that_is_dropped_leaves_nothing() {
    let disk = SimDisk::new(1, Plan::default());
    let shape = &SHAPES[1];
    let mut log = shape.build(&disk);
    let names = disk.list().expect("the disk works");
    drop(receive(&log, shape.installed()).expect("nothing fails"));
    assert_eq!(disk.list().expect("the disk works"), names);
    log.append(zxid(2, 1), b"on").expect("it goes on");
}

#[test]
#[should_panic(expected = "above the accepted epoch")]
fn a_snapshot_above_the_accepted_epoch_is_not_installed() {
    let disk = SimDisk::new(1, Plan::default());
    let mut log = SHAPES[1].build(&disk);
    let _ = install(&mut log, zxid(4, 1));
}

/// A disk on which an install has only just become the history that counts.
fn interrupted(shape: &Shape) -> SimDisk {
    let (begun, ended) = events(shape);
    for event in begun..ended {
        let disk = SimDisk::new(1, crash_at(event));
        let mut log = shape.build(&disk);
        install(&mut log, shape.installed()).expect_err("power was lost");
        let disk = disk.power_cycle(Plan::default());
        let names = disk.list().expect("the disk works");
        if names
            .iter()
            .any(|name| name.starts_with("install-") && !name.ends_with(".tmp"))
        {
            return disk;
        }
    }
    panic!("no install was interrupted");
}

#[test]
fn a_damaged_snapshot_is_not_installed_at_the_start_and_nothing_is_removed_for_it() {
    let disk = interrupted(&SHAPES[3]);
    let names = disk.list().expect("the disk works");
    let name = names.iter().find(|name| name.starts_with("install-"));
    let name = name.expect("it is being installed");
    for byte in 0..disk.bytes(name).len() {
        let damaged = disk.kill(Plan::default());
        damaged.flip(name, byte, byte as u32 % 8);
        let opened = Log::open(damaged.clone(), SETTINGS);
        assert!(
            matches!(opened, Err(OpenError::Corrupt { .. })),
            "byte {byte}"
        );
        drop(opened);
        assert_eq!(damaged.list().expect("the disk works"), names);
    }
}

#[test]
fn an_interrupted_install_above_the_accepted_epoch_is_refused() {
    let disk = interrupted(&SHAPES[1]);
    let old = SimDisk::new(1, Plan::default());
    Log::open(old.clone(), SETTINGS).expect("a new log");
    disk.put("epochs", &old.bytes("epochs"));
    let opened = Log::open(disk.clone(), SETTINGS).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Corrupt { .. })));
    let names = disk.list().expect("the disk works");
    assert!(names.iter().any(|name| name.starts_with("install-")));
}

#[test]
fn a_writer_and_a_trim_job_that_an_install_overtook_change_nothing() {
    let disk = SimDisk::new(1, Plan::default());
    let shape = &SHAPES[5];
    let mut log = shape.build(&disk);
    let trim = log.trim_job(1).expect("nothing fails");
    // The newest is kept; this one is what is about to be installed.
    let mut writer = log.snapshot_writer(zxid(1, 11)).expect("nothing fails");
    writer.write_all(b"its own").expect("nothing fails");
    let ahead = log.prepare_job().expect("nothing is prepared");
    install(&mut log, zxid(1, 8)).expect("nothing fails");
    let names = disk.list().expect("the disk works");
    let late = writer.finish().expect_err("the log was replaced");
    assert!(late.to_string().contains("replaced meanwhile"), "{late}");
    trim.run().expect("nothing to do");
    ahead.run().expect("nothing to do");
    let left: Vec<String> = disk.list().expect("the disk works");
    let gone: Vec<_> = names.iter().filter(|name| !left.contains(name)).collect();
    assert!(gone.iter().all(|name| name.ends_with(".tmp")), "{gone:?}");
    assert_eq!(log.snapshots().expect("the disk works"), [zxid(1, 8)]);
    drop(log);
    let (log, recovered) = Log::open(disk, SETTINGS).expect("it opens");
    assert_eq!(
        (recovered.snapshot, log.last()),
        (Some(zxid(1, 8)), zxid(1, 8))
    );
}

#[test]
fn a_writer_that_a_cut_overtook_leaves_no_snapshot_of_what_was_cut() {
    let disk = SimDisk::new(1, Plan::default());
    let mut log = SHAPES[3].build(&disk);
    let mut writer = log.snapshot_writer(zxid(1, 20)).expect("nothing fails");
    writer.write_all(b"its own").expect("nothing fails");
    log.truncate_after(zxid(1, 15)).expect("nothing fails");
    writer.finish().expect_err("the log was cut");
    log.close().expect("nothing fails");
    let (_, recovered) = Log::open(disk, SETTINGS).expect("no snapshot is ahead of the log");
    assert_eq!((recovered.snapshot, recovered.last), (None, zxid(1, 15)));
}
