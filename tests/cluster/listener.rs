//! A client that listens to a group's events, is cut again and again, and goes on where it was.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::common::Deadline;

/// Listens until it is ended.
pub(crate) struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Story>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The last version it has heard the whole of.
    version: AtomicU64,
    cuts: AtomicU64,
}

/// What a listener has lived through.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Who is active, if what it was told is true.
    pub(crate) active: BTreeSet<String>,
    pub(crate) snapshots: u64,
    pub(crate) events: u64,
    /// What it was told that cannot be.
    pub(crate) complaints: Vec<String>,
    /// The last version with an id.
    last: Option<u64>,
    /// The version of the last event.
    seen: Option<u64>,
}

impl Listener {
    /// Listens to a group at server `at`. It hangs up after each `patience` events; when it finds
    /// a server gone it turns to the next one.
    pub(crate) fn start(
        endpoints: &[SocketAddr],
        at: usize,
        group: &str,
        patience: u64,
    ) -> Listener {
        let shared = Arc::new(Shared::default());
        let (theirs, endpoints, group) =
            (Arc::clone(&shared), endpoints.to_vec(), group.to_owned());
        let thread = thread::spawn(move || {
            let mut story = Story::default();
            let mut at = at;
            while !theirs.stop.load(Ordering::Relaxed) {
                if !listen(endpoints[at], &group, patience, &mut story, &theirs) {
                    at = (at + 1) % endpoints.len();
                    Deadline::after(PAUSE).pass();
                }
            }
            story
        });
        Listener {
            shared,
            thread: Some(thread),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Relaxed)
    }

    /// How often it has hung up.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// Ends it and returns what it has lived through.
    pub(crate) fn end(mut self) -> Story {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is ended once");
        thread.join().expect("the listener's end")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// One connection; false if it was not this side that ended it.
fn listen(
    server: SocketAddr,
    group: &str,
    patience: u64,
    story: &mut Story,
    shared: &Shared,
) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&server, LOOK) else {
        return false;
    };
    let resume = story
        .last
        .map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
    // Events of the version it was cut in are told again.
    story.seen = story.last;
    let request = format!(
        "GET /{group} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n{resume}\
         Connection: close\r\n\r\n"
    );
    let ready = stream.set_read_timeout(Some(LOOK));
    if ready.is_err() || stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let mut reader = BufReader::new(stream);
    let (mut line, mut event, mut heard) = (Vec::new(), Event::default(), 0);
    while !shared.stop.load(Ordering::Relaxed) {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return false,
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) => continue,
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return false,
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 200 ") {
            return false;
        }
        if !text.is_empty() {
            event.take(&text);
        } else if let Some(name) = event.name.take() {
            story.hear(&name, &std::mem::take(&mut event), shared);
            heard += 1;
            if heard == patience {
                shared.cuts.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        }
    }
    true
}

/// An event as far as it has come.
#[derive(Default)]
struct Event {
    name: Option<String>,
    id: Option<u64>,
    data: String,
}

impl Event {
    fn take(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("event: ") {
            self.name = Some(name.to_owned());
        } else if let Some(id) = line.strip_prefix("id: ") {
            self.id = id.parse().ok();
        } else if let Some(data) = line.strip_prefix("data: ") {
            self.data = data.to_owned();
        }
    }
}

impl Story {
    fn hear(&mut self, name: &str, event: &Event, shared: &Shared) {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let Some(version) = data["version"].as_u64() else {
            return self.complain(format!("{name} without a version: {}", event.data));
        };
        let member = data["member"].as_str().unwrap_or_default().to_owned();
        let seen = self.seen.replace(version);
        if name == "snapshot" {
            self.snapshots += 1;
            if seen.is_some_and(|seen| version < seen) {
                self.complain(format!("a snapshot of {version} after {seen:?}"));
            }
            let members = data["active_members"].as_array().into_iter().flatten();
            let names = members
                .filter_map(Value::as_object)
                .flat_map(|one| one.keys());
            self.active = names.cloned().collect();
        } else {
            self.events += 1;
            if seen != Some(version) && seen.map(|seen| seen + 1) != Some(version) {
                self.complain(format!("{name} of {version} after {seen:?}"));
            }
            match name {
                "join" => drop(self.active.insert(member)),
                "leave" | "expire" => drop(self.active.remove(&member)),
                _ => self.complain(format!("an event that nobody caused: {name}")),
            }
        }
        if let Some(id) = event.id {
            if id != version {
                self.complain(format!("{name} of {version} has the id {id}"));
            }
            self.last = Some(id);
            shared.version.store(id, Ordering::Relaxed);
        }
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what);
        }
    }
}

/// How long a read waits before it is looked whether to go on.
const LOOK: Duration = Duration::from_millis(200);
/// Between a server that was gone and the next one.
const PAUSE: Duration = Duration::from_millis(50);
const COMPLAINTS_MAX: usize = 10;
