//! A small HTTP/1.1 client over a plain socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Deadline;

/// How long any one answer may take unless a test says otherwise.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long the body of an answer may stay away that may be one to a HEAD.
const BODY_TIME: Duration = Duration::from_millis(200);

/// One connection, and the bytes read from it that no answer has used.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    pub(crate) answer_time: Duration,
}

/// One answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address, ANSWER_TIME).expect("to connect")
    }

    /// The same for a server that may be down; connecting may take `time`, and so may each
    /// answer.
    pub(crate) fn try_connect(address: SocketAddr, time: Duration) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, time)?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            unread: Vec::new(),
            answer_time: time,
        })
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, target: &str) -> Response {
        self.ask_with(method, target, &[], b"")
    }

    /// The same with headers and a body; a body brings its Content-Length.
    #[track_caller]
    pub(crate) fn ask_with(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(&request(method, target, headers, body))
            .expect("to send");
        self.answer_to(method)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let time = Some(self.answer_time);
        self.stream.set_write_timeout(time)?;
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        // The server may have closed first.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads the answer to a request of this method.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, method: &str) -> Response {
        match self.try_answer_to(method) {
            Ok(response) => response,
            Err(Lost::Closed) => panic!("the server closed instead of answering {method}"),
            Err(Lost::Silent) => panic!("no answer to {method} in {:?}", self.answer_time),
        }
    }

    /// The same; says how the answer failed to come.
    pub(crate) fn try_answer_to(&mut self, method: &str) -> Result<Response, Lost> {
        let deadline = Deadline::after(self.answer_time);
        loop {
            let head_end = find(&self.unread, b"\r\n\r\n");
            let Some(end) = head_end else {
                self.read_more(deadline)?;
                continue;
            };
            let head = String::from_utf8(self.unread[..end].to_vec()).expect("a head in UTF-8");
            let mut response = Response::of_head(&head);
            self.unread.drain(..end + 4);
            if response.status == 100 {
                continue;
            }
            let length = match (method, response.status) {
                ("HEAD", _) | (_, 204 | 304) => 0,
                _ => response.length(),
            };
            while self.unread.len() < length {
                self.read_more(deadline)?;
            }
            response.body = self.unread.drain(..length).collect();
            return Ok(response);
        }
    }

    /// Reads an answer without knowing whether it is one to a HEAD: then a length may be
    /// announced, and the next answer, or nothing, follows at once.
    pub(crate) fn try_answer_of_any_method(&mut self) -> Result<Response, Lost> {
        let mut response = self.try_answer_to("HEAD")?;
        let length = response
            .header("content-length")
            .map_or(0, |_| response.length());
        let deadline = Deadline::after(self.answer_time.min(BODY_TIME));
        while self.unread.len() < length && !self.unread.starts_with(b"HTTP/1.1 ") {
            if self.read_more(deadline).is_err() {
                return Ok(response);
            }
        }
        if !self.unread.starts_with(b"HTTP/1.1 ") {
            response.body = self.unread.drain(..length).collect();
        }
        Ok(response)
    }

    /// True if the server closes within the time for an answer, with nothing left to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.ends() && self.unread.is_empty()
    }

    /// True if the server closes within the time for an answer, whatever it says before.
    pub(crate) fn ends(&mut self) -> bool {
        let deadline = Deadline::after(self.answer_time);
        loop {
            match self.read_more(deadline) {
                Ok(()) => {}
                Err(lost) => return lost == Lost::Closed,
            }
        }
    }

    fn read_more(&mut self, deadline: Deadline) -> Result<(), Lost> {
        let mut chunk = [0; 16_384];
        if deadline.passed() {
            return Err(Lost::Silent);
        }
        let left = deadline.left("bytes").max(Duration::from_millis(1));
        self.stream
            .set_read_timeout(Some(left))
            .expect("a read timeout");
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Lost::Closed),
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Lost::Silent)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Lost::Closed),
        }
    }
}

/// How an answer failed to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The connection ended, by FIN or reset.
    Closed,
    /// The time for an answer passed.
    Silent,
}

impl Response {
    fn of_head(head: &str) -> Response {
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status line: {status_line:?}"));
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header with a colon");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Response {
            status,
            headers: lines.map(header).collect(),
            body: Vec::new(),
        }
    }

    fn length(&self) -> usize {
        let length = self
            .header("content-length")
            .unwrap_or_else(|| panic!("no Content-Length in {self:?}"));
        length.parse().expect("a number in Content-Length")
    }

    /// The value of a header; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn version(&self) -> u64 {
        let version = self.header("x-group-version");
        version
            .and_then(|v| v.parse().ok())
            .unwrap_or_else(|| panic!("no x-group-version in {self:?}"))
    }

    #[track_caller]
    pub(crate) fn session(&self) -> String {
        let session = self.header("x-session-id");
        session
            .unwrap_or_else(|| panic!("no x-session-id in {self:?}"))
            .to_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Names of the members in one of the document's lists.
    #[track_caller]
    pub(crate) fn members(&self, list: &str) -> Vec<String> {
        let document = self.json();
        let members = document[list].as_array().expect("a list of members");
        let name = |member: &Value| {
            let object = member.as_object().expect("a member is an object");
            object.keys().next().expect("a member has a name").clone()
        };
        members.iter().map(name).collect()
    }

    /// This answer, if it has the status; else a failure that shows all of it.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Response {
        let body = String::from_utf8_lossy(&self.body);
        let (found, headers) = (self.status, &self.headers);
        assert_eq!(found, status, "{headers:?} {body}");
        self
    }

    /// The same for one of several statuses.
    #[track_caller]
    pub(crate) fn expect_any(self, statuses: &[u16]) -> Response {
        assert!(statuses.contains(&self.status), "{self:?}");
        self
    }

    /// Checks that this is a refusal in the promised form, with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Response {
        let response = self.expect(status);
        let kind = response.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{response:?}");
        let problem = response.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{member} is missing: {problem}");
        }
        response
    }
}

/// The bytes of a request.
pub(crate) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
