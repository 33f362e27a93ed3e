//! A client that looks at the documents of all servers all the time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::caller::Caller;
use crate::common::{Deadline, Response};
use crate::ledger::Ledger;

/// Looks until it is dropped.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Watcher {
    /// Watches groups on all servers.
    pub(crate) fn start(endpoints: &[SocketAddr], groups: &[&str], ledger: &Ledger) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers: Vec<Caller> = (0..endpoints.len())
            .map(|at| Caller::new(endpoints.to_vec(), at, PATIENCE))
            .collect();
        let mut known: Vec<(String, u64)> = groups.iter().map(|g| ((*g).to_owned(), 0)).collect();
        let (stopped, ledger) = (Arc::clone(&stop), ledger.clone());
        let thread = thread::spawn(move || {
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                for caller in &mut callers {
                    for (group, version) in &mut known {
                        looks += u64::from(look(caller, group, version, &ledger));
                    }
                }
                Deadline::after(PAUSE).pass();
            }
            looks
        });
        Watcher {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends the watch and says how many documents were looked at.
    pub(crate) fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is ended once");
        thread.join().expect("the watcher's end")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Looks once, as one who has seen `version` before, on whichever server.
fn look(caller: &mut Caller, group: &str, version: &mut u64, ledger: &Ledger) -> bool {
    let floor = version.to_string();
    let headers = [("x-group-version", floor.as_str())];
    let Ok(answer) = caller.ask("GET", &format!("/{group}"), &headers, b"") else {
        return false;
    };
    if answer.status != 200 {
        return false;
    }
    let by = format!("server {}", caller.at() + 1);
    let shown = answer.version();
    if shown < *version {
        ledger.violation(format!("{by} shows {group} {shown} after {version}"));
    }
    *version = shown.max(*version);
    ledger.seen(group, shown, &active(&answer), &by);
    true
}

/// Names of the active members in a document.
pub(crate) fn active(document: &Response) -> BTreeSet<String> {
    document.members("active_members").into_iter().collect()
}

const PATIENCE: Duration = Duration::from_millis(700);
const PAUSE: Duration = Duration::from_millis(40);
