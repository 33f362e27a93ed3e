//! A disk whose writes begin to fail: one sentence, an exit status, and everything that was
//! answered is there once the disk is healed.
//!
//! The disk is an ext4 on a loop device over a file that `nbdfuse` shows and `nbdkit` fails
//! the writes of, so that the error comes up through the kernel like that of a real disk:
//! io_uring, mmap and the page cache are in its way. That needs root, /dev/fuse, loop devices
//! and Debian's packages nbdkit, libnbd-bin and e2fsprogs; without them the tests say so and
//! pass.
//!
//! `SYSTOLE_EIO_ROUNDS` sets the number of failures (2 unless told), `SYSTOLE_SEED` repeats a
//! run's choices; the moments of the failures are the machine's.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{
    Client, Deadline, Dice, Lost, Response, Setup, poll, request, run_to_end, seed, skipped,
    systole,
};
use rustix::process::geteuid;
use tempfile::TempDir;

const WRITERS: usize = 3;

/// A join is answered with the group's document: few members keep it small.
const GROUP_MEMBERS: u64 = 50;

/// Room for the log's segments and the next one.
const IMAGE_BYTES: u64 = 400 << 20;

/// How long attaching and detaching may take on a busy machine.
const ATTACH_TIME: Duration = Duration::from_secs(20);

/// An ext4 whose writes fail while a file of ours exists.
struct FailingDisk {
    dir: TempDir,
    /// Shows the image as a file, through the filter that fails writes.
    nbdfuse: Option<Child>,
}

impl FailingDisk {
    /// A healthy disk that fails `percent` of its writes once it is told to, or `None`, and
    /// the reason printed, if this machine cannot have one.
    fn new(percent: u32) -> Option<FailingDisk> {
        if !geteuid().is_root() {
            skipped("only root may attach a disk");
            return None;
        }
        for tool in ["nbdkit", "nbdfuse", "mkfs.ext4"] {
            if !runs(Command::new(tool).arg("--version").stdin(Stdio::null()))
                && !runs(Command::new(tool).arg("-V"))
            {
                skipped(&format!("there is no {tool}"));
                return None;
            }
        }
        if !Path::new("/dev/fuse").exists() || !Path::new("/dev/loop-control").exists() {
            skipped("the kernel has no FUSE or no loop devices");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let mut disk = FailingDisk { dir, nbdfuse: None };
        for sub in ["shown", "mounted"] {
            fs::create_dir(disk.path(sub)).expect("a directory");
        }
        let image = fs::File::create(disk.path("image")).expect("an image");
        image.set_len(IMAGE_BYTES).expect("a length");
        let made = runs(Command::new("mkfs.ext4").arg("-q").arg(disk.path("image")));
        assert!(made, "to make a file system");
        if !disk.attach(percent) {
            skipped("this user may not mount a loop device over FUSE");
            return None;
        }
        Some(disk)
    }

    /// A name beside the image; the mounted file system is one of them.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("mounted").join("data")
    }

    /// From now on writes fail.
    fn fail(&self) {
        fs::write(self.path("failing"), "").expect("to write the trigger");
    }

    /// Takes everything apart, so that no cache outlives the failure, and puts together a disk
    /// that holds what really reached it.
    fn heal(&mut self, percent: u32) {
        self.detach();
        fs::remove_file(self.path("failing")).expect("to remove the trigger");
        assert!(self.attach(percent), "to mount the healed disk");
    }

    fn attach(&mut self, percent: u32) -> bool {
        let shown = self.path("shown").join("disk");
        let mut nbdfuse = Command::new("nbdfuse");
        nbdfuse.arg(&shown).args(["--command", "nbdkit", "-s"]);
        nbdfuse.args(["--filter=error", "file"]);
        nbdfuse.arg(self.path("image"));
        nbdfuse.arg(format!("error-file={}", self.path("failing").display()));
        nbdfuse.arg("error=EIO");
        for operation in ["pwrite", "zero", "trim"] {
            nbdfuse.arg(format!("error-{operation}-rate={percent}%"));
        }
        nbdfuse.stdin(Stdio::null()).stdout(Stdio::null());
        nbdfuse.stderr(Stdio::null());
        let mut child = nbdfuse.spawn().expect("nbdfuse, which ran before");
        let up = poll(ATTACH_TIME, "the disk that nbdfuse shows", || {
            let ended = child.try_wait().expect("to look at nbdfuse").is_some();
            (ended || shown.exists()).then_some(!ended)
        });
        self.nbdfuse = Some(child);
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop,errors=remount-ro"]);
        up && runs(mount.arg(&shown).arg(self.path("mounted")))
    }

    fn detach(&mut self) {
        for mounted in ["mounted", "shown"] {
            poll(ATTACH_TIME, "the unmounting", || {
                // Busy until the process that used it is gone, and its loop device.
                runs(Command::new("umount").arg(self.path(mounted))).then_some(())
            });
        }
        if let Some(mut nbdfuse) = self.nbdfuse.take() {
            poll(ATTACH_TIME, "the end of nbdfuse", || {
                nbdfuse.try_wait().expect("to look at nbdfuse")
            });
        }
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        // Lazily: the server may not be gone yet. Nothing is there to unmount after a skip.
        for mounted in ["mounted", "shown"] {
            let _ = runs(Command::new("umount").arg("-l").arg(self.path(mounted)));
        }
        if let Some(mut nbdfuse) = self.nbdfuse.take() {
            let deadline = Deadline::after(ATTACH_TIME);
            while !deadline.passed() && matches!(nbdfuse.try_wait(), Ok(None)) {
                Deadline::after(Duration::from_millis(3)).pass();
            }
            let _ = nbdfuse.kill();
            let _ = nbdfuse.wait();
        }
    }
}

/// True if a command ran and succeeded.
fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// One client that joins a new member with each request, and what it was promised.
struct Writer {
    number: usize,
    next: u64,
    /// Session by group and member, of joins that were answered.
    answered: BTreeMap<(String, String), String>,
    /// The last version that an answer named, by group.
    versions: BTreeMap<String, u64>,
}

impl Writer {
    fn new(number: usize) -> Writer {
        Writer {
            number,
            next: 0,
            answered: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    /// Joins until the server is gone.
    fn run(mut self, address: SocketAddr) -> Writer {
        let mut client = Client::connect(address);
        loop {
            let group = format!("g{}-{}", self.number, self.next / GROUP_MEMBERS);
            let member = format!("m{}", self.next);
            self.next += 1;
            let target = format!("/{group}/{member}?timeout=1h");
            let join = request("PUT", &target, &[], config(&member).as_bytes());
            if client.send(&join).is_err() {
                return self;
            }
            match client.try_answer_to("PUT") {
                Ok(answer) if answer.status == 201 => {
                    self.versions.insert(group.clone(), answer.version());
                    self.answered.insert((group, member), answer.session());
                }
                // Refused, or cut off: not promised.
                Ok(_) | Err(Lost::Closed) => return self,
                Err(Lost::Silent) => panic!("neither an answer nor an end"),
            }
        }
    }

    /// Compares what was promised with a server that has just started.
    fn check(&self, client: &mut Client) {
        let mut found = BTreeMap::new();
        for (group, version) in &self.versions {
            let document = client.ask("GET", &format!("/{group}")).expect(200);
            assert!(document.version() >= *version, "{group} went back");
            found.insert(group, configs(&document));
        }
        for ((group, member), session) in &self.answered {
            let kept = found[group].get(member);
            assert_eq!(kept, Some(&config(member)), "{group}/{member}");
            let target = format!("/{group}/{member}");
            let headers = [("x-session-id", session.as_str())];
            client.ask_with("HEAD", &target, &headers, b"").expect(204);
        }
    }
}

/// The config that a member joins with: some hundred bytes, to touch many pages.
fn config(member: &str) -> String {
    format!("{member} ").repeat(100)
}

/// Configs of the active members.
fn configs(document: &Response) -> BTreeMap<String, String> {
    let json = document.json();
    let active = json["active_members"].as_array().expect("a list");
    let members = active.iter().filter_map(|member| member.as_object());
    let pairs = members.flat_map(|member| member.iter());
    pairs
        .filter_map(|(name, config)| Some((name.clone(), config.as_str()?.to_owned())))
        .collect()
}

#[test]
fn a_disk_that_fails_from_the_start_is_named() {
    let Some(disk) = FailingDisk::new(100) else {
        return;
    };
    disk.fail();
    let mut command = systole();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(disk.data());
    let data = disk.data();
    let ended = run_to_end(&mut command);
    ended.expect_sentence(1, &[data.to_str().expect("a UTF-8 path"), "error"]);
}

#[test]
fn a_disk_that_begins_to_fail_costs_nothing_that_was_answered() {
    let rounds = std::env::var("SYSTOLE_EIO_ROUNDS").ok();
    let rounds: u64 = rounds.map_or(2, |text| text.parse().expect("a number of rounds"));
    // All writes fail, or some: then a page may reach the disk and the one before it not.
    let percent = |round: u64| [100, 50, 20][(round % 3) as usize];
    let mut dice = Dice::new(seed());
    let Some(mut disk) = FailingDisk::new(percent(0)) else {
        return;
    };
    let mut server = Setup::new().dir(&disk.data()).start();
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for round in 0..rounds {
        let address = server.address();
        let running: Vec<_> = writers
            .into_iter()
            .map(|writer| thread::spawn(move || writer.run(address)))
            .collect();
        Deadline::after(Duration::from_millis(20 + dice.below(400))).pass();
        disk.fail();
        let ended = server.wait_for_end();
        ended.expect_sentence(1, &["log", "Input/output error", "Nothing is acknowledged"]);
        let ended = running.into_iter().map(|writer| writer.join());
        writers = ended.map(|writer| writer.expect("its end")).collect();
        disk.heal(percent(round + 1));
        server.restart();
        let mut client = server.client();
        for writer in &writers {
            writer.check(&mut client);
        }
    }
    let answered: usize = writers.iter().map(|writer| writer.answered.len()).sum();
    println!("{rounds} failures under {answered} answered joins");
    assert!(answered > WRITERS, "the writers wrote");
}
