//! Runs the example members, each in its language, against a real server: join, beat, join again,
//! leave, and a first server that is dead.

#[allow(dead_code, reason = "its `main` is for the example")]
#[path = "../examples/member.rs"]
mod member;

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{Deadline, Server, Setup, poll, skipped};
use rustix::process::{Pid, Signal, kill_process};
use systole::client::Terms;
use systole::time::Millis;

const TIME: Duration = Duration::from_secs(20);

fn server() -> Server {
    Setup::new()
        .flag("--shards", "1")
        .flag("--pin", "off")
        .start()
}

/// Nobody listens at the first.
fn endpoints(server: &Server) -> String {
    format!("127.0.0.1:1,{}", server.address())
}

fn beats(server: &Server) -> u16 {
    server.client().ask("GET", "/db/db%201").status
}

/// Follows a member of one second through its life, from what it says.
#[track_caller]
fn follow(server: &Server, said: &Receiver<String>, stop: impl FnOnce()) {
    let next = |word: &str| {
        let line = said
            .recv_timeout(TIME)
            .unwrap_or_else(|_| panic!("it never said {word}"));
        let rest = line.strip_prefix(word);
        rest.unwrap_or_else(|| panic!("{word:?} was expected: {line:?}"))
            .trim()
            .to_owned()
    };
    let first = next("joined ");
    Deadline::after(Duration::from_millis(1_700)).pass();
    let shown = String::from_utf8(server.client().ask("GET", "/db").body).expect("UTF-8");
    assert!(shown.contains("\"db 1\""), "it does not beat: {shown}");
    assert_eq!(server.client().ask("DELETE", "/db/db%201").status, 204);
    let second = next("joined again ");
    assert!(second > first, "a fencing token grows");
    stop();
    next("left");
    assert_eq!(beats(server), 404, "it has left");
}

/// Runs the example `name` of another language.
fn run(name: &str, program: &str) {
    if Command::new(program).arg("--version").output().is_err() {
        return skipped(&format!("there is no {program} on this machine"));
    }
    let server = server();
    // The shell's names are escaped already.
    let member = if name.ends_with(".sh") {
        "db%201"
    } else {
        "db 1"
    };
    let child = Command::new(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR")))
        .args([&endpoints(&server), "db", member, "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Killed(child.expect("the example"));
    let (tell, said) = channel();
    let pipe = BufReader::new(child.0.stdout.take().expect("piped"));
    thread::spawn(move || {
        for line in pipe.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    let pid = Pid::from_child(&child.0);
    follow(&server, &said, || {
        kill_process(pid, Signal::TERM).expect("to signal it");
    });
    let ended = || child.0.try_wait().expect("to look at it");
    assert!(poll(TIME, "its end", ended).success());
}

/// A process that is not left behind.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_member_in_rust_joins_beats_joins_again_and_leaves() {
    let server = server();
    let (tell, said) = channel();
    let (stop, stopped) = channel();
    let terms = Terms {
        timeout: Some(Millis::from_secs(1)),
        ..Terms::new("db", "db 1")
    };
    let endpoints = endpoints(&server);
    let life = thread::spawn(move || {
        member::live(&endpoints, terms, &stopped, move |line| {
            drop(tell.send(line))
        })
    });
    follow(&server, &said, || stop.send(()).expect("it waits"));
    life.join().expect("its end").expect("no error");
}

#[test]
fn the_member_in_python_joins_beats_joins_again_and_leaves() {
    run("member.py", "python3");
}

#[test]
fn the_member_in_shell_joins_beats_joins_again_and_leaves() {
    run("member.sh", "curl");
}
