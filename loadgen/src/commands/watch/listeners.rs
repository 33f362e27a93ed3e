//! Thousands of event streams on one thread, each event of which is timed.
//!
//! What is read is only searched for its `id:` lines: a fault that hides behind them, such as an
//! event whose data are wrong, is for the server's own tests to find. What is checked is that
//! no listener misses a version, hears one twice, or is shown a second snapshot.

use crate::clock;
use crate::recorder::{self, Hist};
use anyhow::{Context, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// When each version's change was due, for those who hear of it.
pub(super) struct Ledger {
    base: AtomicU64,
    due_ns: Vec<AtomicU64>,
    /// How many listeners have been shown the group.
    shown: AtomicU32,
    /// Events heard by all listeners together, snapshots not counted.
    heard: AtomicU64,
    stop: AtomicBool,
}

impl Ledger {
    /// For so many changes.
    pub(super) fn new(changes: usize) -> Arc<Ledger> {
        Arc::new(Ledger {
            base: AtomicU64::new(0),
            due_ns: (0..changes).map(|_| AtomicU64::new(0)).collect(),
            shown: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// Changes begin after this version.
    pub(super) fn begin(&self, base: u64) {
        self.base.store(base, Ordering::Release);
    }

    /// The change that leads to `version` is due, and counts from, `at_ns`.
    ///
    /// # Errors
    /// If there were more changes than the ledger is for.
    pub(super) fn due(&self, version: u64, at_ns: u64) -> Result<()> {
        let at = version.checked_sub(self.base.load(Ordering::Acquire) + 1);
        let place = at.and_then(|at| self.due_ns.get(at as usize));
        place
            .context("more changes than were planned")?
            .store(at_ns, Ordering::Release);
        Ok(())
    }

    /// Events heard so far.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    fn due_of(&self, version: u64) -> Option<u64> {
        let at = version.checked_sub(self.base.load(Ordering::Acquire) + 1)?;
        let due = self.due_ns.get(at as usize)?.load(Ordering::Acquire);
        (due > 0).then_some(due)
    }
}

/// The listeners, on a thread of their own.
pub(super) struct Listeners {
    ledger: Arc<Ledger>,
    thread: JoinHandle<Result<Heard>>,
}

/// What they heard.
pub(super) struct Heard {
    /// From when a change was due to when a listener had it.
    pub(super) latency: Hist,
    /// What was wrong, the first few.
    pub(super) faults: Vec<String>,
}

impl Listeners {
    /// Opens them all, and returns when each has been shown the group.
    ///
    /// # Errors
    /// If they cannot be opened, or are not shown it within a minute.
    pub(super) fn open(
        address: SocketAddr,
        group: &str,
        count: u32,
        ledger: &Arc<Ledger>,
        cpu: Option<usize>,
    ) -> Result<Listeners> {
        let request =
            format!("GET /{group} HTTP/1.1\r\nHost: systole\r\nAccept: text/event-stream\r\n\r\n");
        let shared = Arc::clone(ledger);
        let thread = thread::spawn(move || {
            if let Some(cpu) = cpu {
                crate::process::pin_thread(cpu);
            }
            let mut crowd = Crowd::open(address, request.as_bytes(), count, shared)?;
            crowd.listen()
        });
        let began = clock::now();
        while ledger.shown.load(Ordering::Acquire) < count {
            if thread.is_finished() || clock::now() - began > 60 * clock::SECOND {
                let shown = ledger.shown.load(Ordering::Acquire);
                ledger.stop.store(true, Ordering::Release);
                if let Ok(Err(why)) = thread.join() {
                    return Err(why);
                }
                bail!("only {shown} of {count} listeners were shown the group");
            }
            clock::pause(Duration::from_millis(5));
        }
        Ok(Listeners {
            ledger: Arc::clone(ledger),
            thread,
        })
    }

    /// Ends them and says what they heard.
    ///
    /// # Errors
    /// If their thread had failed.
    pub(super) fn close(self) -> Result<Heard> {
        self.ledger.stop.store(true, Ordering::Release);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the listeners' thread panicked"))?
    }
}

struct Crowd {
    epoll: OwnedFd,
    listeners: Vec<Listener>,
    ledger: Arc<Ledger>,
    heard: Heard,
}

struct Listener {
    stream: TcpStream,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    last: Option<u64>,
}

impl Crowd {
    fn open(address: SocketAddr, request: &[u8], count: u32, ledger: Arc<Ledger>) -> Result<Crowd> {
        crate::run::ensure_files(u64::from(count))?;
        let mut crowd = Crowd {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            listeners: Vec::new(),
            ledger,
            heard: Heard {
                latency: recorder::empty(),
                faults: Vec::new(),
            },
        };
        for number in 0..count {
            let mut stream = TcpStream::connect(address).context("a listener's connection")?;
            stream.write_all(request)?;
            stream.set_nonblocking(true)?;
            let key = epoll::EventData::new_u64(u64::from(number));
            epoll::add(&crowd.epoll, &stream, key, epoll::EventFlags::IN)?;
            crowd.listeners.push(Listener {
                stream,
                partial: Vec::new(),
                last: None,
            });
        }
        Ok(crowd)
    }

    fn listen(&mut self) -> Result<Heard> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut room = vec![0; ROOM_BYTES];
        while !self.ledger.stop.load(Ordering::Acquire) {
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, Some(&PATIENCE)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why).context("the listeners' epoll set"),
            }
            for event in &events {
                let number = event.data.u64() as usize;
                self.read(number, &mut room)?;
            }
        }
        let empty = Heard {
            latency: recorder::empty(),
            faults: Vec::new(),
        };
        Ok(std::mem::replace(&mut self.heard, empty))
    }

    fn read(&mut self, number: usize, room: &mut [u8]) -> Result<()> {
        let listener = &mut self.listeners[number];
        let count = match listener.stream.read(room) {
            Ok(0) => bail!("the stream of listener {number} ended"),
            Ok(count) => count,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(why) => return Err(why).context("a listener's stream"),
        };
        let now = clock::now();
        let mut rest = &room[..count];
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..at];
            rest = &rest[at + 1..];
            let listener = &mut self.listeners[number];
            if listener.partial.is_empty() {
                if let Some(version) = id_of(line) {
                    self.hear(number, version, now);
                }
            } else {
                let mut whole = std::mem::take(&mut listener.partial);
                whole.extend_from_slice(line);
                if let Some(version) = id_of(&whole) {
                    self.hear(number, version, now);
                }
            }
        }
        // Only the beginning of a line tells whether it is an id.
        let partial = &mut self.listeners[number].partial;
        let more = rest.len().min(LINE_BYTES.saturating_sub(partial.len()));
        partial.extend_from_slice(&rest[..more]);
        Ok(())
    }

    fn hear(&mut self, number: usize, version: u64, now: u64) {
        let listener = &mut self.listeners[number];
        match listener.last.replace(version) {
            None => {
                self.ledger.shown.fetch_add(1, Ordering::AcqRel);
            }
            Some(last) => {
                if version != last + 1 && self.heard.faults.len() < FAULTS_MAX {
                    let fault = format!("listener {number} heard {version} after {last}");
                    self.heard.faults.push(fault);
                }
                if let Some(due) = self.ledger.due_of(version) {
                    self.heard
                        .latency
                        .saturating_record(now.saturating_sub(due));
                }
                self.ledger.heard.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

/// The version in an `id:` line.
fn id_of(line: &[u8]) -> Option<u64> {
    let text = line.strip_prefix(b"id: ")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

const EVENTS_MAX: usize = 1_024;
const ROOM_BYTES: usize = 256 * 1024;
/// More than an `id:` line has.
const LINE_BYTES: usize = 64;
const FAULTS_MAX: usize = 20;
/// How often a silent crowd looks whether it is to end.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_version_on_a_line_of_its_own() {
        assert_eq!(id_of(b"id: 17"), Some(17));
        for other in ["id: x", "id: ", " id: 1", "data: {\"id\": 1}", "5b\r"] {
            assert_eq!(id_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_change_is_timed_from_when_it_was_due() {
        let ledger = Ledger::new(2);
        ledger.begin(7);
        ledger.due(8, 100).unwrap();
        assert_eq!(ledger.due_of(8), Some(100));
        assert_eq!((ledger.due_of(7), ledger.due_of(9)), (None, None));
        assert!(ledger.due(10, 1).is_err());
    }
}
