//! The real server as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Client, poll};

/// How long a server may take to say that it is ready, on a busy machine.
const READY_TIME: Duration = Duration::from_secs(30);

/// How long a server may take to end once it was told to.
const END_TIME: Duration = Duration::from_secs(20);

/// How a server is to be started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    args: Vec<String>,
    wrap: Vec<String>,
    dir: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn new() -> Setup {
        Setup::default()
    }

    pub(crate) fn flag(mut self, name: &str, value: &str) -> Setup {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Starts it with a command that runs another, such as `ip netns exec`, which must become
    /// that other.
    pub(crate) fn within(mut self, command: &[String]) -> Setup {
        self.wrap = command.to_vec();
        self
    }

    /// Uses this data directory; without it the server gets one that goes with it.
    pub(crate) fn dir(mut self, dir: &Path) -> Setup {
        self.dir = Some(dir.to_path_buf());
        self
    }

    #[track_caller]
    pub(crate) fn start(self) -> Server {
        Server::start(self)
    }
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    setup: Setup,
    /// Keeps a directory of its own alive.
    own_dir: Option<TempDir>,
    stderr: Arc<Mutex<String>>,
    pub(crate) ready_line: String,
}

impl Server {
    #[track_caller]
    fn start(mut setup: Setup) -> Server {
        let own_dir = match &setup.dir {
            Some(_) => None,
            None => Some(tempfile::tempdir().expect("a directory")),
        };
        if let Some(dir) = &own_dir {
            setup.dir = Some(dir.path().to_path_buf());
        }
        let mut server = Server::spawn(setup);
        server.own_dir = own_dir;
        server
    }

    #[track_caller]
    fn spawn(setup: Setup) -> Server {
        let mut command = command(&setup);
        let mut child = command.spawn().expect("the server's program");
        let stderr = collect(child.stderr.take().expect("piped"));
        let lines = lines(child.stdout.take().expect("piped"));
        let Ok(ready_line) = lines.recv_timeout(READY_TIME) else {
            let _ = child.kill();
            let _ = child.wait();
            let said = stderr.lock().expect("a lock").clone();
            panic!("the server did not get ready; it said: {said:?}");
        };
        let address = address_in(&ready_line)
            .unwrap_or_else(|| panic!("no address in the ready line {ready_line:?}"));
        Server {
            child,
            address,
            setup,
            own_dir: None,
            stderr,
            ready_line,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn dir(&self) -> &Path {
        self.setup.dir.as_deref().expect("set before the start")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// What it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().expect("a lock").clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("to signal the server");
    }

    /// True if it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("to look at the server")
            .is_none()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        self.child.wait().expect("to wait for the server");
    }

    /// Waits until it has ended by itself and says how.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) -> Ended {
        let child = &mut self.child;
        let status = poll(END_TIME, "the server's end", || {
            child.try_wait().expect("to look at the server")
        });
        let whole = || (Arc::strong_count(&self.stderr) == 1).then_some(());
        poll(END_TIME, "the end of stderr", whole);
        Ended {
            code: status.code(),
            stdout: String::new(),
            stderr: self.stderr(),
        }
    }

    /// Stops it with SIGTERM and waits for its exit status.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let child = &mut self.child;
        poll(END_TIME, "the server's end after SIGTERM", || {
            child.try_wait().expect("to look at the server")
        })
    }

    /// Starts it on the same directory and kills it while it is still getting ready.
    pub(crate) fn die_while_starting(&mut self, after: Duration) {
        self.kill();
        let mut command = command(&self.setup);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the server's program");
        super::Deadline::after(after).pass();
        child.kill().expect("to kill the server");
        child.wait().expect("to wait for the server");
    }

    /// Starts it anew on the same directory, and on a port of the kernel's choice.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut next = Server::spawn(self.setup.clone());
        next.own_dir = self.own_dir.take();
        *self = next;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's stderr:\n{}", self.stderr());
        }
    }
}

/// How a command that ends by itself ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Checks that it failed as promised: this exit code, one line, these words in it, and
    /// nothing that looks like a panic.
    #[track_caller]
    pub(crate) fn expect_sentence(&self, code: i32, words: &[&str]) {
        let said = &self.stderr;
        assert_eq!(self.code, Some(code), "it said {said:?}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
        for ugly in [
            "panick",
            "RUST_BACKTRACE",
            "unwrap",
            "Err(",
            "Os {",
            "Some(",
        ] {
            assert!(!said.contains(ugly), "{ugly:?} is in {said:?}");
        }
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("systole: "), "the last line is {last:?}");
    }
}

/// Runs a command to its end, which must come by itself.
#[track_caller]
pub(crate) fn run_to_end(command: &mut Command) -> Ended {
    run_within(END_TIME, command)
}

/// The same for a command that has reasons to take so long.
#[track_caller]
pub(crate) fn run_within(time: Duration, command: &mut Command) -> Ended {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program to run");
    let stderr = collect(child.stderr.take().expect("piped"));
    let stdout = collect(child.stdout.take().expect("piped"));
    let deadline = super::Deadline::after(time);
    let status = loop {
        if let Some(status) = child.try_wait().expect("to look at the program") {
            break status;
        }
        if deadline.passed() {
            let _ = child.kill();
            let _ = child.wait();
            let said = stderr.lock().expect("a lock").clone();
            panic!("it should have ended by itself; it said {said:?}");
        }
        super::Deadline::after(Duration::from_millis(3)).pass();
    };
    // The pipes end with the process; their readers may be a moment behind.
    let whole = |text: Arc<Mutex<String>>| {
        poll(END_TIME, "the end of a pipe", || {
            (Arc::strong_count(&text) == 1).then_some(())
        });
        text.lock().expect("a lock").clone()
    };
    Ended {
        code: status.code(),
        stdout: whole(stdout),
        stderr: whole(stderr),
    }
}

/// The server's program.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_systole")
}

/// A command that runs the server's program with nothing of our environment that it reads.
pub(crate) fn systole() -> Command {
    without_settings(Command::new(program()))
}

/// A command with nothing of our environment that the server reads.
fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYSTOLE_") {
            command.env_remove(name);
        }
    }
    command
}

fn command(setup: &Setup) -> Command {
    let mut command = match &setup.wrap[..] {
        [] => systole(),
        [first, rest @ ..] => {
            let mut command = without_settings(Command::new(first));
            command.args(rest).arg(program());
            command
        }
    };
    let dir = setup.dir.as_ref().expect("set before the start");
    command.arg("serve").arg("--data-dir").arg(dir);
    if !setup.args.iter().any(|arg| arg == "--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(&setup.args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Reads a pipe to its end on a thread of its own, so that the writer never blocks.
fn collect(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    thread::spawn(move || {
        let mut chunk = [0; 4_096];
        while let Ok(count) = pipe.read(&mut chunk)
            && count > 0
        {
            let piece = String::from_utf8_lossy(&chunk[..count]).into_owned();
            sink.lock().expect("a lock").push_str(&piece);
        }
    });
    text
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // The receiver goes away once it has its line; reading goes on all the same.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The first word of the line that is an address, `http://` and punctuation aside.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches("http://");
        word.trim_end_matches([',', '.', ';', '/']).parse().ok()
    })
}
