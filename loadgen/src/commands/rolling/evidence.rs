//! Who kept the server and the generator from running, and when.
//!
//! Three witnesses, each with an account of its own, in hundredths of a second:
//!
//! - A *watchman* on each of the two processors sleeps for 2 ms, again and again, at the highest
//!   priority it can get. Where it wakes late, the machine ran nothing of ours either.
//! - The kernel says for how long each thread waited for a processor. Where a shard waited longer
//!   than the server's other threads ran, somebody else had the processor. What those ran
//!   themselves is the server's own affair and excuses nothing.
//! - Likewise for the threads that load.
//!
//! In each hundredth only the longest account counts, so that nothing is counted twice.

use crate::clock::{self, MILLI};
use crate::process;
use crate::run;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time that was taken from us, by hundredths of a second.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Account {
    origin_ns: u64,
    slots: Vec<u64>,
}

impl Account {
    pub(in crate::commands) fn new(origin_ns: u64) -> Account {
        Account {
            origin_ns,
            slots: Vec::new(),
        }
    }

    /// Puts down that `taken_ns` of the time from `from_ns` to `to_ns` were taken: evenly, for
    /// want of better knowledge.
    pub(in crate::commands) fn add(&mut self, from_ns: u64, to_ns: u64, taken_ns: u64) {
        let whole = to_ns.saturating_sub(from_ns);
        if whole == 0 || taken_ns == 0 {
            return;
        }
        let taken_ns = taken_ns.min(whole);
        let places = self.place(from_ns)..=self.place(to_ns);
        let last = *places.end();
        if self.slots.len() <= last {
            self.slots.resize(last + 1, 0);
        }
        for place in places {
            let start = self.origin_ns + place as u64 * SLOT_NS;
            let overlap = (start + SLOT_NS).min(to_ns) - start.max(from_ns).min(to_ns);
            let share = u128::from(taken_ns) * u128::from(overlap) / u128::from(whole);
            self.slots[place] = (self.slots[place] + share as u64).min(SLOT_NS);
        }
    }

    fn place(&self, at_ns: u64) -> usize {
        (at_ns.saturating_sub(self.origin_ns) / SLOT_NS) as usize
    }

    fn at(&self, place: usize) -> u64 {
        self.slots.get(place).copied().unwrap_or(0)
    }

    /// All that was taken.
    pub(in crate::commands) fn total(&self) -> u64 {
        self.slots.iter().sum()
    }
}

/// What the witnesses say.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Evidence {
    /// Their accounts, and what each is called; all begin at the same time.
    pub(in crate::commands) accounts: Vec<(&'static str, Account)>,
}

impl Evidence {
    /// How much of a stretch of time was taken from us, at most its length.
    pub(in crate::commands) fn taken(&self, from_ns: u64, to_ns: u64) -> u64 {
        let Some((_, first)) = self.accounts.first() else {
            return 0;
        };
        let places = first.place(from_ns)..=first.place(to_ns);
        let most = |place| self.accounts.iter().map(|(_, a)| a.at(place)).max();
        let sum: u64 = places.filter_map(most).sum();
        sum.min(to_ns.saturating_sub(from_ns))
    }
}

/// The witnesses at work.
pub(in crate::commands) struct Witnesses {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<(&'static str, Account)>>>,
}

impl Witnesses {
    /// Sends them out: to the server's processor and the generator's, if those are known.
    pub(in crate::commands) fn begin(
        server_pid: u32,
        server_cpu: Option<usize>,
        load_cpu: Option<usize>,
    ) -> Witnesses {
        let stop = Arc::new(AtomicBool::new(false));
        let origin_ns = clock::now();
        let mut threads = Vec::new();
        for (name, cpu) in [(SERVER_SIDE, server_cpu), (LOAD_SIDE, load_cpu)] {
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || {
                watch_processor(&stop, name, cpu, origin_ns)
            }));
        }
        let asked = Arc::clone(&stop);
        threads.push(thread::spawn(move || {
            watch_threads(&asked, server_pid, load_cpu, origin_ns)
        }));
        Witnesses { stop, threads }
    }

    /// Calls them back.
    pub(in crate::commands) fn end(self) -> Evidence {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        let accounts = threads.flat_map(|t| t.join().unwrap_or_default());
        Evidence {
            accounts: accounts.collect(),
        }
    }
}

fn watch_processor(
    stop: &AtomicBool,
    name: &'static str,
    cpu: Option<usize>,
    origin_ns: u64,
) -> Vec<(&'static str, Account)> {
    if let Some(cpu) = cpu {
        process::pin_thread(cpu);
    }
    // Refused to those who are not root; then a few threads of ours may keep it waiting, less
    // than what counts as late.
    let _ = rustix::process::setpriority_process(None, -20);
    let mut account = Account::new(origin_ns);
    while !stop.load(Ordering::Relaxed) {
        let due_ns = clock::now() + 2 * MILLI;
        clock::pause(Duration::from_nanos(2 * MILLI));
        let now_ns = clock::now();
        if now_ns.saturating_sub(due_ns) >= LATE_NS_MIN {
            account.add(due_ns, now_ns, now_ns - due_ns);
        }
    }
    vec![(name, account)]
}

fn watch_threads(
    stop: &AtomicBool,
    server_pid: u32,
    load_cpu: Option<usize>,
    origin_ns: u64,
) -> Vec<(&'static str, Account)> {
    if let Some(cpu) = load_cpu {
        process::pin_thread(cpu);
    }
    let mut sides = [
        Threads::new(server_pid, |name| name.starts_with("shard-"), true),
        Threads::new(std::process::id(), |name| name == run::LOAD_THREAD, false),
    ];
    let mut accounts = [SERVER_WAITS, LOAD_WAITS].map(|name| (name, Account::new(origin_ns)));
    let mut since_ns = clock::now();
    // What they waited before is not asked for.
    for side in &mut sides {
        side.waited();
    }
    while !stop.load(Ordering::Relaxed) {
        clock::pause(Duration::from_nanos(SLOT_NS));
        let now_ns = clock::now();
        for (side, (_, account)) in sides.iter_mut().zip(&mut accounts) {
            account.add(since_ns, now_ns, side.waited());
        }
        since_ns = now_ns;
    }
    accounts.into()
}

/// The threads of a process, and how long those of one name waited for a processor.
struct Threads {
    tasks: PathBuf,
    /// Whether a thread of this name matters.
    matters: fn(&str) -> bool,
    /// Whether what the process's other threads ran is its own affair.
    subtract: bool,
    /// For each thread: whether it matters, how long it ran, and how long it waited.
    seen: BTreeMap<PathBuf, (bool, u64, u64)>,
}

impl Threads {
    fn new(pid: u32, matters: fn(&str) -> bool, subtract: bool) -> Threads {
        Threads {
            tasks: PathBuf::from(format!("/proc/{pid}/task")),
            matters,
            subtract,
            seen: BTreeMap::new(),
        }
    }

    /// The longest that one of them has waited since the last look, in nanoseconds, less what the
    /// other threads ran meanwhile.
    fn waited(&mut self) -> u64 {
        let Ok(tasks) = fs::read_dir(&self.tasks) else {
            return 0;
        };
        let mut deltas = Vec::new();
        for task in tasks.filter_map(|t| Some(t.ok()?.path())) {
            let Some((ran, waited)) = process::schedstat(&task) else {
                continue;
            };
            let known = self.seen.get(&task).copied();
            let (mut matters, ran_before, waited_before) = known.unwrap_or_default();
            if !matters {
                // Asked each time: a thread that has just begun still has its parent's name.
                let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
                matters = (self.matters)(name.trim_end());
            }
            deltas.push((matters, ran - ran_before, waited - waited_before));
            self.seen.insert(task, (matters, ran, waited));
        }
        longest_wait(&deltas, self.subtract)
    }
}

/// Of threads that matter or do not, ran and waited: the longest wait of one that matters that
/// the other threads do not account for.
fn longest_wait(threads: &[(bool, u64, u64)], subtract: bool) -> u64 {
    let ran: u64 = threads.iter().map(|(_, ran, _)| ran).sum();
    let excess = |(_, own, waited): &(bool, u64, u64)| {
        let others = if subtract { ran - own } else { 0 };
        waited.saturating_sub(others)
    };
    let of_those = threads.iter().filter(|(matters, ..)| *matters);
    of_those.map(excess).max().unwrap_or(0)
}

/// What the accounts are called.
const SERVER_SIDE: &str = "the watchman on the server's processor was late";
const LOAD_SIDE: &str = "the watchman on the generator's processor was late";
const SERVER_WAITS: &str = "a shard waited for a processor, and no other thread of the server ran";
const LOAD_WAITS: &str = "the generator waited for a processor";
/// Length of the stretches in which time is accounted, and of the pause between two looks.
const SLOT_NS: u64 = 10 * MILLI;
/// Less is the scheduler's ordinary way with a handful of threads.
const LATE_NS_MIN: u64 = 5 * MILLI;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn what_was_taken_lies_where_it_was_taken() {
        let mut account = Account::new(1_000);
        account.add(1_000 + 5 * MILLI, 1_000 + 35 * MILLI, 15 * MILLI);
        assert_eq!(account.slots, [2_500_000, 5_000_000, 5_000_000, 2_500_000]);
        assert_eq!(account.total(), 15 * MILLI);
        account.add(1_000, 1_000 + 10 * MILLI, 99 * MILLI);
        assert_eq!(account.slots[0], SLOT_NS, "no more than there is");
    }

    #[test]
    fn in_each_stretch_only_the_longest_account_counts() {
        let mut a = Account::new(0);
        let mut b = Account::new(0);
        a.add(0, 20 * MILLI, 12 * MILLI);
        b.add(0, 10 * MILLI, 9 * MILLI);
        let evidence = Evidence {
            accounts: vec![("a", a), ("b", b)],
        };
        assert_eq!(evidence.taken(0, 20 * MILLI - 1), 15 * MILLI);
        assert_eq!(
            evidence.taken(0, 5 * MILLI),
            5 * MILLI,
            "at most its length"
        );
        assert_eq!(evidence.taken(50 * MILLI, 90 * MILLI), 0);
        assert_eq!(Evidence { accounts: vec![] }.taken(0, 9), 0);
    }

    #[test]
    fn what_a_server_takes_from_itself_excuses_nothing() {
        let shard = (true, 2, 30);
        let snapshot = (false, 25, 3);
        assert_eq!(longest_wait(&[shard], true), 30);
        assert_eq!(longest_wait(&[shard, snapshot], true), 5);
        assert_eq!(longest_wait(&[shard, snapshot], false), 30);
        assert_eq!(longest_wait(&[snapshot], true), 0, "it serves nobody");
    }

    #[test]
    fn a_thread_is_known_by_the_name_it_takes_later() {
        let (name_it, named) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        let (end, ended) = mpsc::channel::<()>();
        let work = move || {
            name_it.1.recv().unwrap();
            rustix::thread::set_name(c"tardy").unwrap();
            named.0.send(()).unwrap();
            let _ = ended.recv();
        };
        let thread = thread::spawn(work);
        let mut threads = Threads::new(std::process::id(), |name| name == "tardy", false);
        let known = |t: &Threads| t.seen.values().filter(|(matters, ..)| *matters).count();
        threads.waited();
        assert_eq!(known(&threads), 0);
        name_it.0.send(()).unwrap();
        named.1.recv().unwrap();
        threads.waited();
        assert_eq!(known(&threads), 1);
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn the_witnesses_come_back_with_an_account_each() {
        let evidence = Witnesses::begin(std::process::id(), None, None).end();
        let names: Vec<&str> = evidence.accounts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [SERVER_SIDE, LOAD_SIDE, SERVER_WAITS, LOAD_WAITS]);
    }
}
