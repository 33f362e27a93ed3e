//! What the server tells systemd, and that the unit fits the server.

mod common;

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use common::{Setup, run_to_end, skipped};
use rustix::process::Signal;

/// How long one message may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Systemd's end of the socket.
struct Systemd {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Systemd {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Systemd { socket, dir }
    }

    /// A server that is started as systemd does it, with a watchdog of `watchdog_ms`.
    fn setup(&self, watchdog_ms: u64) -> Setup {
        let path = self.dir.path().join("notify");
        Setup::new().within(&[
            "env".to_owned(),
            format!("NOTIFY_SOCKET={}", path.display()),
            format!("WATCHDOG_USEC={}", watchdog_ms * 1_000),
        ])
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut bytes = [0; 1_024];
        let count = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..count].to_vec()).expect("UTF-8")
    }

    /// The next message that is not from the watchdog.
    fn hears_news(&self) -> String {
        loop {
            let message = self.hears();
            if message != WATCHDOG {
                return message;
            }
        }
    }
}

const WATCHDOG: &str = "WATCHDOG=1\n";

#[test]
fn systemd_hears_when_the_server_serves_and_when_it_stops() {
    let systemd = Systemd::new();
    let mut server = systemd.setup(60_000).start();
    let ready = systemd.hears_news();
    assert!(ready.starts_with("READY=1\nSTATUS="), "{ready:?}");
    server.client().ask("GET", "/-/readyz").expect(200);
    server.signal(Signal::TERM);
    assert_eq!(systemd.hears_news(), "STOPPING=1\n");
    server.wait_for_end();
}

#[test]
fn the_watchdog_is_fed_while_the_server_runs_and_not_while_it_is_stopped() {
    let systemd = Systemd::new();
    let server = systemd.setup(400).start();
    for _ in 0..3 {
        while systemd.hears() != WATCHDOG {}
    }
    server.signal(Signal::STOP);
    // What was sent before the stop is read, and then there is nothing for long.
    let short = Some(Duration::from_secs(1));
    systemd.socket.set_read_timeout(short).expect("a timeout");
    let mut bytes = [0; 64];
    let sent_before = (0..100).take_while(|_| systemd.socket.recv(&mut bytes).is_ok());
    assert!(sent_before.count() < 100);
    systemd
        .socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout");
    server.signal(Signal::CONT);
    assert_eq!(systemd.hears(), WATCHDOG);
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let there = Command::new("systemd-analyze").arg("--version").output();
    if there.is_err() {
        return skipped("there is no systemd-analyze here");
    }
    // It looks for the program that is to be started: ours stands in for the installed one.
    let unit = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/systemd/systole.service"
    ));
    let unit = unit.expect("the unit");
    let started = "ExecStart=/usr/local/bin/systole ";
    assert!(unit.contains(started));
    let unit = unit.replace(started, &format!("ExecStart={} ", common::program()));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("systole.service");
    std::fs::write(&file, unit).expect("to write");
    let ended = run_to_end(Command::new("systemd-analyze").arg("verify").arg(&file));
    let ours = |line: &&str| line.contains("systole");
    let faults: Vec<&str> = ended.stderr.lines().filter(ours).collect();
    assert_eq!(faults, Vec::<&str>::new());
}
