//! A client's side of a connection: what it has sent, and a small reader of answers.

use std::collections::VecDeque;

use super::super::{ConnId, Next};
use crate::time::Millis;
use crate::types::SessionId;

/// One connection, the kernel's buffers included.
pub(super) struct Client {
    pub(super) shard: usize,
    pub(super) conn: ConnId,
    pub(super) open: bool,
    /// What the shard said last.
    pub(super) next: Next,
    /// Sent and not yet read by the shard.
    pub(super) kernel: VecDeque<u8>,
    /// The client has shut its side.
    pub(super) shut: bool,
    /// The shard has been told so.
    pub(super) told: bool,
    /// Takes no answers for now.
    pub(super) slow: bool,
    /// Answers not yet read.
    received: Vec<u8>,
    /// Requests not yet answered, oldest first.
    pub(super) asked: VecDeque<Asked>,
    /// Answers read, with the requests they belong to.
    pub(super) answers: Vec<(Asked, Response)>,
    /// Requests that were unanswered when the shard closed.
    pub(super) cut: usize,
    /// Interim answers read.
    pub(super) continues: usize,
}

/// A request, as the client remembers it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) at: Millis,
    pub(super) head: bool,
    /// For whoever checks the answers.
    pub(super) note: usize,
    /// No other answer was under way, so this one is read when it is given.
    pub(super) alone: bool,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) at: Millis,
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// In how many chunks the body came.
    pub(super) chunks: usize,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.header("x-session-id")?.parse().ok()
    }

    pub(super) fn timeout(&self) -> Option<Millis> {
        Some(Millis(self.header("x-session-timeout-ms")?.parse().ok()?))
    }

    pub(super) fn version(&self) -> Option<u64> {
        self.header("x-group-version")?.parse().ok()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

impl Client {
    pub(super) fn new(shard: usize, conn: ConnId) -> Client {
        Client {
            shard,
            conn,
            open: true,
            next: Next::Read,
            kernel: VecDeque::new(),
            shut: false,
            told: false,
            slow: false,
            received: Vec::new(),
            asked: VecDeque::new(),
            answers: Vec::new(),
            cut: 0,
            continues: 0,
        }
    }

    /// Sends a request whose first line is `line`, such as `HEAD /g/m`.
    pub(super) fn send(&mut self, line: &str, headers: &str, body: &[u8], at: Millis, note: usize) {
        let mut bytes = format!("{line} HTTP/1.1\r\nhost: t\r\n{headers}").into_bytes();
        if !body.is_empty() {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.kernel.extend(bytes);
        self.expect(line, at, note);
    }

    /// Expects one more answer.
    pub(super) fn expect(&mut self, line: &str, at: Millis, note: usize) {
        self.asked.push_back(Asked {
            line: line.to_owned(),
            at,
            head: line.starts_with("HEAD "),
            note,
            alone: self.asked.is_empty() && !self.slow,
        });
    }

    /// Takes in what the shard has sent; returns how many answers are complete by it.
    pub(super) fn read(&mut self, bytes: &[u8], now: Millis) -> usize {
        self.received.extend_from_slice(bytes);
        let before = self.answers.len();
        while let Some((used, response)) = parse(
            &self.received,
            self.asked.front().is_some_and(|asked| asked.head),
            !self.open,
            now,
        ) {
            self.received.drain(..used);
            if response.status == 100 {
                self.continues += 1;
                continue;
            }
            let asked = self
                .asked
                .pop_front()
                .unwrap_or_else(|| panic!("an answer to nothing: {}", response.head));
            self.answers.push((asked, response));
        }
        self.answers.len() - before
    }

    /// The shard has closed.
    pub(super) fn closed(&mut self, now: Millis) {
        self.open = false;
        self.read(&[], now);
        self.cut = self.asked.len();
        assert!(
            self.received.is_empty(),
            "half an answer: {:?}",
            self.text()
        );
    }

    /// What has come of an answer that is not complete.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Bytes of an answer that is not complete.
    pub(super) fn partial(&self) -> usize {
        self.received.len()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// The answer that `bytes` begin with, and how long it is.
fn parse(bytes: &[u8], to_head: bool, closed: bool, at: Millis) -> Option<(usize, Response)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).expect("heads are ASCII");
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status line: {head}"));
    let mut response = Response {
        at,
        status,
        head: head.to_owned(),
        body: Vec::new(),
        chunks: 0,
    };
    if to_head || matches!(status, 100 | 204 | 304) {
        return Some((end, response));
    }
    if let Some(length) = response.header("content-length") {
        let length: usize = length.parse().expect("a number");
        response.body = bytes.get(end..end + length)?.to_vec();
        return Some((end + length, response));
    }
    if response.header("transfer-encoding") == Some("chunked") {
        let mut from = end;
        loop {
            let line = bytes[from..].windows(2).position(|two| two == b"\r\n")?;
            let size = std::str::from_utf8(&bytes[from..from + line]).expect("hex");
            let size = usize::from_str_radix(size, 16).expect("hex");
            from += line + 2;
            response
                .body
                .extend_from_slice(bytes.get(from..from + size)?);
            assert_eq!(bytes.get(from + size..from + size + 2)?, b"\r\n");
            from += size + 2;
            if size == 0 {
                return Some((from, response));
            }
            response.chunks += 1;
        }
    }
    closed.then(|| {
        response.body = bytes[end..].to_vec();
        (bytes.len(), response)
    })
}
