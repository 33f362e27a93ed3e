//! `join --keep`, and the client's own thread.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use systole::client::{Client, Entry, Event, Terms};
use systole::time::Millis;

use crate::common::{Deadline, Server, Setup, poll};
use crate::{at, json, printed, run};

fn server() -> Server {
    Setup::new()
        .flag("--shards", "1")
        .flag("--pin", "off")
        .start()
}

/// `join --keep` in the background, and what it says.
struct Kept {
    child: Child,
    stderr: Receiver<String>,
    stdout: Receiver<String>,
}

impl Kept {
    fn start(server: &Server, args: &[&str]) -> Kept {
        let mut command = at(server, &[&["join", "--keep"], args].concat());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        Kept {
            stderr: lines(child.stderr.take().expect("piped")),
            stdout: lines(child.stdout.take().expect("piped")),
            child,
        }
    }

    /// Waits for a line on stderr with these words in it.
    #[track_caller]
    fn says(&self, words: &str) -> String {
        let deadline = Deadline::after(TIME);
        let mut said = Vec::new();
        loop {
            let Ok(line) = self.stderr.recv_timeout(deadline.left(words)) else {
                panic!("it never said {words:?}, but {said:?}");
            };
            if line.contains(words) {
                return line;
            }
            said.push(line);
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("to signal it");
    }

    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        let ended = || self.child.try_wait().expect("to look at it");
        poll(TIME, "its end", ended).code()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    told
}

const TIME: Duration = Duration::from_secs(20);

#[test]
fn a_kept_member_outlives_its_timeout_and_leaves_when_told_to_stop() {
    let server = server();
    for signal in [Signal::TERM, Signal::INT] {
        let mut kept = Kept::start(&server, &["db/db1", "--timeout", "300ms", "--json"]);
        let session = kept.says("joined, session");
        Deadline::after(Duration::from_millis(1_200)).pass();
        let shown = json(&server, &["get", "db", "--json"]);
        assert_eq!(shown["active_members"], serde_json::json!([{"db1": null}]));
        let now = json(&server, &["join", "db/db1", "--json"]);
        assert!(session.contains(now["session"].as_str().expect("a session")));
        kept.signal(signal);
        assert_eq!(kept.code(), Some(0));
        kept.says("left");
        run(&server, &["beat", "db/db1"]).expect_sentence(4, &[]);
        let first = kept.stdout.recv_timeout(TIME).expect("a line");
        assert!(first.contains("\"event\":\"joined\""), "{first}");
        printed(&server, &["groups"]);
    }
}

#[test]
fn a_member_whose_session_was_ended_joins_again_with_a_greater_token() {
    let server = server();
    let kept = Kept::start(&server, &["db/db1", "--timeout", "600ms"]);
    let first = kept.says("joined, session");
    printed(&server, &["leave", "db/db1"]);
    kept.says("has ended, joining again");
    let second = kept.says("joined again, session");
    let token = |line: &str| line.split("session ").nth(1).expect("a session")[..32].to_owned();
    assert!(token(&second) > token(&first));
}

#[test]
fn a_member_that_was_taken_over_is_out_with_code_5() {
    let server = server();
    let mut kept = Kept::start(&server, &["db/db1", "--timeout", "600ms"]);
    kept.says("joined, session");
    printed(&server, &["join", "db/db1", "--takeover"]);
    kept.says("another session has taken over");
    assert_eq!(kept.code(), Some(5));
    printed(&server, &["beat", "db/db1"]);
}

#[test]
fn who_cannot_join_at_all_is_told_why() {
    let server = server();
    let mut refused = Kept::start(&server, &["db/db1", "--timeout", "1ms"]);
    refused.says("timeout_out_of_range");
    assert_eq!(refused.code(), Some(5));
    let nowhere = [
        "db/db1",
        "--endpoint",
        "127.0.0.1:1",
        "--command-timeout",
        "400ms",
    ];
    let mut nowhere = Kept::start(&server, &nowhere);
    nowhere.says("could not join; 127.0.0.1:1: connection refused");
    assert_eq!(nowhere.code(), Some(3));
}

#[test]
fn a_member_is_told_when_its_promise_lapses_and_lives_on_when_the_server_does() {
    let port = free_port();
    let mut server = Setup::new()
        .flag("--shards", "1")
        .flag("--pin", "off")
        .flag("--listen", &port)
        .start();
    let kept = Kept::start(&server, &["db/db1", "--timeout", "700ms"]);
    kept.says("joined, session");
    server.kill();
    kept.says("connection refused");
    kept.says("others may hold this member dead from now on");
    server.restart();
    // The restart gives every session a full timeout, so the same session goes on.
    kept.says("the session has lived on");
}

/// An address with a port that was free a moment ago.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// A client and what its member tells.
fn keep(server: &Server, terms: Terms) -> (systole::client::Member, Receiver<Event>) {
    let client = Client::new([server.address().to_string()]).expect("a client");
    let (tell, told) = channel();
    let member = client.keep(terms, move |event| drop(tell.send(event)));
    (member.expect("a member"), told)
}

fn short(name: &str) -> Terms {
    Terms {
        timeout: Some(Millis(400)),
        ..Terms::new("db", name)
    }
}

#[test]
fn a_program_holds_its_promise_while_it_beats_and_loses_it_when_servers_are_silent() {
    let server = server();
    let (member, told) = keep(&server, short("db1"));
    let session = member.joined(TIME).expect("no refusal").expect("a session");
    assert!(matches!(
        told.recv_timeout(TIME),
        Ok(Event::Joined { again: false, .. })
    ));
    Deadline::after(Duration::from_millis(900)).pass();
    assert!(member.is_promised());
    assert!(member.promised_for().expect("a promise") <= Duration::from_millis(400));
    assert_eq!(member.session(), Some(session));

    server.signal(Signal::STOP);
    let lapsed = |event: &Event| *event == Event::Lapsed;
    poll(TIME, "the lapse", || told.try_recv().ok().filter(lapsed));
    assert!(!member.is_promised());
    server.signal(Signal::CONT);
    poll(TIME, "a promise", || member.is_promised().then_some(()));
    member.leave();
    let last = told.iter().last();
    assert_eq!(last, Some(Event::Left));
    run(&server, &["beat", "db/db1"]).expect_sentence(4, &[]);
}

#[test]
fn a_dropped_member_has_left_and_one_that_is_refused_says_so() {
    let server = server();
    let (member, _) = keep(&server, short("db1"));
    member.joined(TIME).expect("no refusal").expect("a session");
    let only_new = Terms {
        entry: Entry::OnlyNew,
        ..short("db1")
    };
    let (refused, _) = keep(&server, only_new);
    assert!(refused.joined(TIME).is_err());
    poll(TIME, "its end", || refused.is_over().then_some(()));
    drop(member);
    run(&server, &["beat", "db/db1"]).expect_sentence(4, &[]);
}

#[test]
fn a_groups_handle_reads_writes_and_never_shows_the_past() {
    let server = server();
    let client = Client::new([server.address().to_string()]).expect("a client");
    let group = client.group("d b/".trim_end_matches('/')).expect("a name");
    let joined = group.join(&Terms::new("elsewhere", "m%")).expect("to join");
    assert!(joined.created);
    assert_eq!(group.beat("m%", Some(joined.session)).map(|v| v.0), Ok(0));
    group
        .set_config(None, b"{\"a\":1}".to_vec(), None)
        .expect("to write");
    let document = group.get().expect("to read");
    assert_eq!(
        (document.version.0, &document.config["a"]),
        (1, &serde_json::json!(1))
    );
    assert_eq!(
        document.active,
        [("m%".to_owned(), serde_json::Value::Null)]
    );
    assert_eq!(group.seen().map(|version| version.0), Some(1));
    assert_eq!(document.endpoints, [server.address().to_string()]);
    group.leave("m%", Some(joined.session)).expect("to leave");
    let gone = group.leave("m%", Some(joined.session)).expect_err("once");
    assert!(matches!(
        gone.problem().map(|problem| problem.status),
        Some(404 | 410)
    ));
}
