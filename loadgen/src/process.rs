//! Server processes: starting, watching and ending them; what /proc says about them.

use crate::client;
use crate::clock::{self, MILLI, SECOND};
use anyhow::{Context, Result, bail};
use nix::time::ClockId;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server of our own; it ends with this value.
pub(crate) struct Server {
    child: Option<Child>,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with `args`, on `cpu` alone if given, and waits until
    /// `ready` says yes. Returns the server and the nanoseconds that took.
    ///
    /// # Errors
    /// If it cannot be started, ends at once, or is not ready in `limit_ns`; the message holds
    /// the end of its log.
    pub(crate) fn start(
        program: &Path,
        args: &[String],
        address: SocketAddr,
        log: &Path,
        cpu: Option<usize>,
        limit_ns: u64,
        ready: impl Fn(SocketAddr) -> bool,
    ) -> Result<(Server, u64)> {
        let file = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        let began = clock::now();
        let spawned = on_cpu(cpu, || command.spawn());
        let child = spawned.with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Server {
            child: Some(child),
            log: log.to_owned(),
        };
        while !ready(address) {
            let ended = server
                .child
                .as_mut()
                .is_some_and(|c| !matches!(c.try_wait(), Ok(None)));
            if ended || clock::now() - began > limit_ns {
                let what = if ended {
                    "ended"
                } else {
                    "was not ready in time"
                };
                bail!(
                    "{} {what}; it said:\n{}",
                    program.display(),
                    server.last_words()
                );
            }
            clock::pause(Duration::from_nanos(MILLI));
        }
        Ok((server, clock::now() - began))
    }

    /// Its process id; 0 once it has ended.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// If it has ended by itself: the end of what it printed.
    pub(crate) fn has_ended(&mut self) -> Option<String> {
        let running = matches!(self.child.as_mut()?.try_wait(), Ok(None));
        (!running).then(|| self.last_words())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid() as i32) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it as a power loss would.
    pub(crate) fn kill(mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The end of what it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(WORDS_MAX)..].join("\n")
    }
}

impl Drop for Server {
    /// Asks it to end, and ends it if it does not.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = clock::now();
        while clock::now() - began < 10 * SECOND {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            clock::pause(Duration::from_nanos(2 * MILLI));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A systole of our own: one shard, not pinned by itself, so that the affinity it inherits holds.
pub(crate) fn systole_args(address: SocketAddr, data_dir: &Path) -> Result<Vec<String>> {
    let peer = free_address()?;
    let text = |s: &str| s.to_owned();
    Ok(vec![
        text("serve"),
        text("--listen"),
        address.to_string(),
        text("--peer-listen"),
        peer.to_string(),
        text("--data-dir"),
        data_dir.display().to_string(),
        text("--pin"),
        text("off"),
    ])
}

/// Whether the server may serve.
pub(crate) fn is_ready(address: SocketAddr) -> bool {
    client::get(address, "/-/readyz").is_ok_and(|(status, _)| status == 200)
}

/// The systole to run: the one given, the one built beside this program, or one built now.
///
/// # Errors
/// If there is none and it cannot be built; the message says how to build it.
pub(crate) fn systole_path(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let places = [
        own.with_file_name("systole"),
        "target/release/systole".into(),
    ];
    let built = || places.iter().find(|path| path.is_file()).cloned();
    if let Some(path) = built() {
        return Ok(path);
    }
    // Started by `cargo run` in a fresh clone: only this program has been built so far.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let build = [
            "build",
            "--release",
            "--locked",
            "--package",
            "systole",
            "--bin",
            "systole",
        ];
        // Whether it has worked is seen by what is there afterwards.
        let _ = Command::new(cargo).args(build).status();
    }
    built().context(
        "no systole binary beside this program; `cargo build --release` makes one, or give --server PATH",
    )
}

/// A loopback address nobody listens on at the moment.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let probe = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    Ok(probe.local_addr()?)
}

/// A directory of our own under the system's temporary one; removed with this value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Makes one.
    pub(crate) fn new() -> Result<TempDir> {
        let name = format!("systole-loadgen-{}-{}", std::process::id(), clock::now());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(TempDir(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lines of a server's last words.
const WORDS_MAX: usize = 40;

/// Runs `work` with this thread on `cpu`; what it starts inherits that.
fn on_cpu<T>(cpu: Option<usize>, work: impl FnOnce() -> T) -> T {
    let Some(cpu) = cpu else { return work() };
    let before = sched_getaffinity(None);
    pin_thread(cpu);
    let result = work();
    if let Ok(before) = before {
        let _ = sched_setaffinity(None, &before);
    }
    result
}

/// Keeps this thread on `cpu`. Where that is refused the run goes on, less evenly.
pub(crate) fn pin_thread(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    let _ = sched_setaffinity(None, &set);
}

/// Nanoseconds of CPU time, user and system, of a process: of all threads it has and has had.
///
/// The process's own clock, since what `/proc/PID/task` shows goes with each thread that ends.
pub(crate) fn cpu_ns(pid: u32) -> Option<u64> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(pid)).ok()?;
    let time = clock.now().ok()?;
    Some(time.tv_sec() as u64 * SECOND + time.tv_nsec() as u64)
}

/// Nanoseconds of CPU time of the calling thread.
pub(crate) fn own_thread_cpu_ns() -> Option<u64> {
    let (ran_ns, _) = schedstat(Path::new("/proc/thread-self"))?;
    Some(ran_ns)
}

/// For how many nanoseconds a thread has run, and waited for a processor though it could have.
/// `task` is its directory below `/proc`.
pub(crate) fn schedstat(task: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    let mut fields = text.split_whitespace();
    let mut next = || fields.next()?.parse().ok();
    Some((next()?, next()?))
}

/// Ticks of user and of system time of a process (100 a second).
pub(crate) fn cpu_ticks(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name, in parentheses, and may hold anything.
    let rest = &text[text.rfind(')')? + 2..];
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse().ok();
    Some((next()?, next()?))
}

/// What a process occupies, in bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Memory {
    /// Resident, all told.
    pub(crate) rss: u64,
    /// Of it, memory of its own that no file backs.
    pub(crate) anonymous: u64,
    /// Of it, pages of mapped files, such as the log.
    pub(crate) file: u64,
}

/// Reads a process's memory from `/proc/PID/smaps_rollup`.
pub(crate) fn memory(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|l| l.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    let (rss, anonymous) = (field("Rss:")?, field("Anonymous:")?);
    Some(Memory {
        rss,
        anonymous,
        file: rss.saturating_sub(anonymous),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_read() {
        let pid = std::process::id();
        assert!(cpu_ns(pid).unwrap() > 0);
        assert!(own_thread_cpu_ns().is_some());
        assert!(cpu_ticks(pid).is_some());
        let m = memory(pid).unwrap();
        assert!(m.rss > 100_000 && m.rss == m.anonymous + m.file);
        assert_eq!(cpu_ns(u32::MAX), None);
        assert_eq!(cpu_ns(0), None, "that would be ourselves");
    }

    #[test]
    fn the_time_of_a_thread_that_has_ended_is_counted() {
        let spend = || {
            while own_thread_cpu_ns().unwrap() < 100 * MILLI {
                std::hint::black_box(0);
            }
        };
        std::thread::spawn(spend).join().unwrap();
        let pid = std::process::id();
        // The kernel's own sum, in whole ticks, so a little less.
        let (user, system) = cpu_ticks(pid).unwrap();
        let told = cpu_ns(pid).unwrap();
        assert!(
            told >= (user + system) * 10 * MILLI,
            "{told} ns, {user} + {system} ticks"
        );
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_words() {
        let dir = TempDir::new().unwrap();
        let args = ["-c".to_owned(), "echo no such luck; exit 3".to_owned()];
        let to = free_address().unwrap();
        let log = dir.path().join("log");
        let why = Server::start(Path::new("/bin/sh"), &args, to, &log, None, SECOND, |_| {
            false
        });
        let why = why.err().unwrap().to_string();
        assert!(
            why.contains("ended") && why.contains("no such luck"),
            "{why}"
        );
    }

    #[test]
    fn a_temporary_directory_goes_with_its_value() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().to_owned();
        assert!(path.is_dir());
        drop(dir);
        assert!(!path.exists());
    }
}
