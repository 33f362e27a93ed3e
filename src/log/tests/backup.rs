//! Reading a directory for a backup, and making one from it.

use std::io::{Read as _, Write as _};
use std::path::Path;

use super::world::collect;
use crate::log::backup::{BackupError, BackupWriter, Reading, make_dir, open_backup};
use crate::log::{FileDisk, FileLog, Log, Settings, epochs, snapshots};
use crate::types::{Epoch, Zxid};

const SETTINGS: Settings = Settings {
    segment_bytes: 64 << 10,
    salt: 7,
    snapshot_is_enough: true,
};

fn zxid(counter: u64) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

fn open(dir: &Path) -> FileLog {
    let disk = FileDisk::create(dir).expect("the directory is made");
    Log::open(disk, SETTINGS).expect("the log opens").0
}

/// A log of ten transactions, with a snapshot as of the third and one as of the sixth.
fn ten(dir: &Path) {
    let mut log = open(dir);
    log.set_accepted_epoch(Epoch(1)).expect("written");
    log.set_current_epoch(Epoch(1)).expect("written");
    for counter in 1..=10 {
        log.append(zxid(counter), &[counter as u8; 40])
            .expect("appended");
        log.sync_now().expect("synced");
        if counter == 3 || counter == 6 {
            let mut writer = log.snapshot_writer(zxid(counter)).expect("begun");
            writer
                .write_all(format!("state {counter}").as_bytes())
                .expect("written");
            writer.finish().expect("finished");
        }
    }
    log.close().expect("closed");
}

/// The content of the snapshot, and the counters of what follows.
fn read(dir: &Path) -> Result<(Option<String>, Vec<u64>), BackupError> {
    let reading = Reading::of(dir)?;
    assert_eq!(reading.salt(), 7);
    let state = reading.snapshot()?.map(|mut reader| {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("whole");
        text
    });
    let entries = reading.entries()?.expect("there is a log");
    let entries = collect(entries).expect("whole");
    Ok((
        state,
        entries.iter().map(|(zxid, _)| zxid.counter).collect(),
    ))
}

#[test]
fn the_newest_snapshot_is_read_and_what_follows_it_and_nothing_is_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    ten(dir.path());
    // A server may hold the lock.
    let log = open(dir.path());
    let found = read(dir.path()).expect("sound");
    assert_eq!(found, (Some("state 6".to_owned()), vec![7, 8, 9, 10]));
    drop(log);
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let dir = tempfile::tempdir().expect("a directory");
    ten(dir.path());
    let path = dir.path().join(snapshots::name_of(zxid(6)));
    let mut bytes = std::fs::read(&path).expect("it is there");
    bytes[50] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let found = read(dir.path()).expect("the log reaches back");
    assert_eq!(found, (Some("state 3".to_owned()), (4..=10).collect()));
}

#[test]
fn a_cut_that_is_under_way_has_cut_and_an_install_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    ten(dir.path());
    let disk = FileDisk::existing(dir.path()).expect("it is there");
    epochs::write_cut(&disk, 7, zxid(5)).expect("written");
    let found = read(dir.path()).expect("sound");
    assert_eq!(found, (Some("state 3".to_owned()), vec![4, 5]));

    let from = dir.path().join(snapshots::name_of(zxid(3)));
    let name = snapshots::name_of(zxid(3)).replace("snapshot", "install");
    std::fs::copy(from, dir.path().join(name)).expect("copied");
    let error = read(dir.path()).expect_err("being installed");
    assert!(matches!(error, BackupError::Unfit(_)), "{error}");
    assert!(!error.is_passing());
}

#[test]
fn damage_in_the_log_is_no_end_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    ten(dir.path());
    let path = dir.path().join("segment-0000000001");
    let mut bytes = std::fs::read(&path).expect("it is there");
    let at = bytes
        .windows(40)
        .position(|w| w == [8; 40])
        .expect("the eighth");
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let error = read(dir.path()).expect_err("damaged");
    assert!(error.is_passing(), "a server may just be writing: {error}");
}

#[test]
fn a_log_that_its_snapshots_do_not_reach_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(dir.path());
    log.set_accepted_epoch(Epoch(1)).expect("written");
    let mut receiver = log.snapshot_receiver(zxid(5)).expect("begun");
    receiver.write_all(b"state 5").expect("written");
    log.install_snapshot(receiver).expect("installed");
    log.close().expect("closed");
    assert_eq!(
        read(dir.path()).expect("sound").0.as_deref(),
        Some("state 5")
    );
    std::fs::remove_file(dir.path().join(snapshots::name_of(zxid(5)))).expect("removed");
    let error = read(dir.path()).expect_err("nothing holds the beginning");
    assert!(error.to_string().contains("1:5"), "{error}");
}

#[test]
fn a_backup_says_what_it_is_of_and_takes_its_name_only_when_it_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("backup");
    std::fs::write(&path, "of yesterday").expect("written");
    let mut writer = BackupWriter::create(&path, zxid(4), 9).expect("begun");
    writer.write_all(b"state 4").expect("written");
    drop(writer);
    assert_eq!(std::fs::read(&path).expect("there"), b"of yesterday");
    assert!(matches!(open_backup(&path), Err(BackupError::Unfit(_))));

    let mut writer = BackupWriter::create(&path, zxid(4), 9).expect("begun");
    writer.write_all(b"state 4").expect("written");
    assert_eq!(writer.finish().expect("finished"), 7);
    let (of, mut reader) = open_backup(&path).expect("a backup");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("whole");
    assert_eq!((of, &*text), (zxid(4), "state 4"));
}

#[test]
fn a_restored_directory_opens_with_its_epoch_and_an_interrupted_one_is_none() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("restored");
    let failing = make_dir(&dir, zxid(4), Epoch(99), 5, |out| {
        out.write_all(b"half").expect("written");
        Err(BackupError::Damaged("the backup ends here".to_owned()))
    });
    assert!(matches!(failing, Err(BackupError::Damaged(_))));
    assert!(matches!(Reading::of(&dir), Err(BackupError::Unfit(_))));

    let content = |out: &mut dyn std::io::Write| {
        out.write_all(b"state 4").expect("written");
        Ok(())
    };
    make_dir(&dir, zxid(4), Epoch(99), 5, content).expect("made");
    let disk = FileDisk::existing(&dir).expect("made");
    let (log, recovered) = Log::open(disk, SETTINGS).expect("it opens");
    assert_eq!(
        (recovered.snapshot, recovered.last),
        (Some(zxid(4)), zxid(4))
    );
    let epochs = log.epochs();
    assert_eq!((epochs.accepted, epochs.current), (Epoch(99), Epoch(1)));
    drop(log);
    let again = make_dir(&dir, zxid(4), Epoch(99), 5, content);
    assert!(
        again
            .expect_err("it is not empty")
            .to_string()
            .contains("not empty")
    );
}
