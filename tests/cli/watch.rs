//! What `watch` shows, of a server of the test's own that cuts its streams as it likes.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Ended, Killed, run_to_end, systole};

/// Something that listens like a server.
struct Stub {
    listener: TcpListener,
}

impl Stub {
    fn new() -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Stub { listener }
    }

    fn address(&self) -> String {
        self.listener.local_addr().expect("an address").to_string()
    }

    /// Takes a request, checks that it asks for events of `db`, and gives the id that it says
    /// it has seen.
    fn take(&self) -> (TcpStream, Option<String>) {
        let (stream, _) = self.listener.accept().expect("a client");
        let mut lines = BufReader::new(stream.try_clone().expect("a clone")).lines();
        let mut next = || lines.next().expect("a line").expect("to read");
        assert_eq!(next(), "GET /db HTTP/1.1");
        let (mut id, mut accepts) = (None, false);
        loop {
            let line = next().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("last-event-id", value)) => id = Some(value.to_owned()),
                Some(("accept", value)) => accepts = value == "text/event-stream",
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        assert!(accepts);
        (stream, id)
    }

    /// Answers with these events, and closes.
    fn stream(&self, events: &str) -> Option<String> {
        let (mut stream, id) = self.take();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
             {events}"
        )
        .expect("to answer");
        id
    }

    /// Refuses with this status and code, for good.
    fn refuse(&self, status: u16, code: &str) {
        let (mut stream, _) = self.take();
        let body = format!("{{\"title\":\"No\",\"status\":{status},\"code\":\"{code}\"}}");
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} No\r\ncontent-type: application/problem+json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .expect("to answer");
    }
}

const SNAPSHOT: &str = "event: snapshot\nid: 3\ndata: {\"config\":null,\"endpoints\":[],\
    \"active_members\":[{\"db1\":null}],\"inactive_members\":[]}\n\n";
const JOIN: &str = ": a comment\n\nevent: join\nid: 4\n\
    data: {\"version\":4,\"member\":\"db2\",\"config\":{\"p\":1}}\n\n";
const EXPIRE: &str = "event: expire\nid: 5\ndata: {\"version\":5,\"member\":\"db2\"}\n\n";

fn watch(endpoints: &str, more: &[&str]) -> Ended {
    let args = [&["watch", "db", "--endpoint", endpoints], more].concat();
    run_to_end(systole().args(args))
}

#[test]
fn a_stream_that_is_cut_is_taken_up_at_the_next_server_behind_the_last_event() {
    let (first, second) = (Stub::new(), Stub::new());
    let endpoints = format!("{},{}", first.address(), second.address());
    let servers = thread::spawn(move || {
        // Cut in the middle of an event, which then counts for nothing.
        let half = &EXPIRE[..EXPIRE.len() - 1];
        assert_eq!(first.stream(&format!("{SNAPSHOT}{JOIN}{half}")), None);
        drop(first);
        assert_eq!(second.stream(EXPIRE), Some("4".to_owned()));
        second.refuse(404, "unknown_group");
    });
    let ended = watch(&endpoints, &[]);
    servers.join().expect("the servers");
    ended.expect_sentence(4, &["db: No (404 unknown_group)"]);
    let expected = "     3  snapshot  1 active, 0 inactive: db1\n     \
                    4  join      db2 {\"p\":1}\n     5  expire    db2\n";
    assert_eq!(ended.stdout, expected);
}

#[test]
fn a_client_whose_stream_ends_stays_away_for_as_long_as_it_was_asked_to() {
    let stub = Stub::new();
    let endpoint = stub.address();
    let server = thread::spawn(move || {
        #[expect(clippy::disallowed_methods, reason = "measures a real pause")]
        let since = Instant::now();
        stub.stream(&format!("retry: 1200\n\n{SNAPSHOT}"));
        assert_eq!(stub.stream(JOIN), Some("3".to_owned()));
        let away = since.elapsed();
        stub.refuse(404, "unknown_group");
        away
    });
    watch(&endpoint, &[]).expect_sentence(4, &["db: No (404 unknown_group)"]);
    let away = server.join().expect("the server");
    assert!(away >= Duration::from_millis(1_200), "{away:?}");
}

#[test]
fn json_is_a_line_for_each_event() {
    let stub = Stub::new();
    let endpoint = stub.address();
    let server = thread::spawn(move || {
        stub.stream(JOIN);
        stub.refuse(404, "unknown_group");
    });
    let ended = watch(&endpoint, &["--json"]);
    server.join().expect("the server");
    let line: serde_json::Value = serde_json::from_str(&ended.stdout).expect("one line of JSON");
    let data = serde_json::json!({"version": 4, "member": "db2", "config": {"p": 1}});
    assert_eq!(
        line,
        serde_json::json!({"event": "join", "version": 4, "data": data})
    );
}

#[test]
fn a_group_that_is_not_there_and_a_server_that_is_not_are_told_apart() {
    let stub = Stub::new();
    let endpoint = stub.address();
    let server = thread::spawn(move || stub.refuse(404, "unknown_group"));
    watch(&endpoint, &[]).expect_sentence(4, &["unknown_group"]);
    server.join().expect("the server");
    watch("127.0.0.1:1", &[]).expect_sentence(3, &["connection refused"]);
}

#[test]
fn a_watcher_outlives_its_servers_and_goes_on_when_one_is_back() {
    let stub = Stub::new();
    let address = stub.address();
    let mut child = systole()
        .args(["watch", "db", "--endpoint", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let (out, err) = (lines(child.stdout.take()), lines(child.stderr.take()));
    let kept = Killed(child);
    stub.stream(SNAPSHOT);
    assert!(
        out.recv_timeout(TIME)
            .expect("an event")
            .contains("snapshot")
    );
    drop(stub);
    assert!(
        err.recv_timeout(TIME)
            .expect("a word")
            .contains("trying again")
    );
    let listener = TcpListener::bind(&address).expect("the port again");
    let stub = Stub { listener };
    assert_eq!(stub.stream(JOIN), Some("3".to_owned()));
    assert!(out.recv_timeout(TIME).expect("an event").contains("db2"));
    assert!(
        err.recv_timeout(TIME)
            .expect("a word")
            .contains("watching again")
    );
    drop(kept);
}

fn lines(pipe: Option<impl std::io::Read + Send + 'static>) -> Receiver<String> {
    let (tell, told) = channel();
    let pipe = BufReader::new(pipe.expect("piped"));
    thread::spawn(move || {
        for line in pipe.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    told
}

const TIME: Duration = Duration::from_secs(20);
