//! Clients that join, leave, configure and look at the same few members, at all servers, and
//! note each question with its answer: `history` judges what they have seen.
//!
//! Every look is one that must be up to date (`?consistent`). A member's history is kept short,
//! since its judgement is a search: then another member takes its place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::caller::{Caller, Unanswered};
use crate::common::{Deadline, Dice, Response, now};
use crate::history::{Answered, Asked, Member, STEPS_MAX, Step, is_linearizable};

type Histories = Arc<Mutex<BTreeMap<String, Vec<Step>>>>;

/// Clients at work.
pub(crate) struct Registers {
    histories: Histories,
    next_value: Arc<AtomicU64>,
    endpoints: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// One of them.
struct Worker {
    caller: Caller,
    dice: Dice,
    histories: Histories,
    next_value: Arc<AtomicU64>,
}

impl Registers {
    /// So many clients begin.
    pub(crate) fn start(endpoints: &[SocketAddr], workers: usize, seed: u64) -> Registers {
        let mut registers = Registers {
            histories: Histories::default(),
            next_value: Arc::new(AtomicU64::new(1)),
            endpoints: endpoints.to_vec(),
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for number in 0..workers {
            let mut worker = registers.worker(number, seed);
            let stop = Arc::clone(&registers.stop);
            registers.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    worker.step();
                    Deadline::after(PAUSE).pass();
                }
            }));
        }
        registers
    }

    fn worker(&self, number: usize, seed: u64) -> Worker {
        Worker {
            caller: Caller::new(self.endpoints.clone(), number, PATIENCE),
            dice: Dice::new(seed ^ (number as u64 + 77)),
            histories: Arc::clone(&self.histories),
            next_value: Arc::clone(&self.next_value),
        }
    }

    /// Ends the work, looks at every member once more on every server, and judges. The ensemble
    /// must have healed. Returns how many steps of how many members were judged.
    #[track_caller]
    pub(crate) fn judge(mut self) -> (usize, usize) {
        self.end();
        let names: Vec<String> = self.lock().keys().cloned().collect();
        for server in 0..self.endpoints.len() {
            let mut worker = self.worker(server, 0);
            for name in &names {
                worker.caller.turn_to(server);
                worker.ask(name, Asked::Look);
            }
        }
        let histories = self.lock();
        for (name, steps) in histories.iter() {
            assert!(is_linearizable(steps), "{name}:\n{}", tell(steps));
        }
        (histories.values().map(Vec::len).sum(), histories.len())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Step>>> {
        self.histories.lock().expect("the histories' lock")
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a worker's end");
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Worker {
    fn step(&mut self) {
        let name = self.some_member();
        let asked = match self.dice.below(8) {
            0 | 1 => Asked::Join,
            2 => Asked::Leave,
            3 | 4 => Asked::Configure(self.next_value.fetch_add(1, Ordering::Relaxed)),
            5 => Asked::Unconfigure,
            _ => Asked::Look,
        };
        if self.dice.below(6) == 0 {
            self.caller.turn_away();
        }
        self.ask(&name, asked);
    }

    /// One of the few members at present: those whose histories are not long yet.
    fn some_member(&mut self) -> String {
        let place = self.dice.below(MEMBERS);
        let histories = self.histories.lock().expect("the histories' lock");
        let is_full = |life: &u64| {
            let steps = histories.get(&format!("p{place}-{life}"));
            steps.is_some_and(|steps| steps.len() >= STEPS)
        };
        let life = (0..).find(|life| !is_full(life)).expect("one of many");
        format!("p{place}-{life}")
    }

    /// Asks, and notes the answer.
    fn ask(&mut self, name: &str, asked: Asked) {
        let member = format!("/register/{name}");
        let config = format!("{member}/config");
        let body = match asked {
            Asked::Configure(value) => value.to_string(),
            _ => String::new(),
        };
        let absent = [("if-none-match", "*")];
        let (method, target, headers): (_, _, &[_]) = match asked {
            Asked::Join => ("PUT", format!("{member}?timeout=1h"), &absent),
            Asked::Leave => ("DELETE", member, &[]),
            Asked::Configure(_) => ("PUT", config, &[]),
            Asked::Unconfigure => ("DELETE", config, &[]),
            Asked::Look => ("GET", "/register?consistent".to_owned(), &[]),
        };
        let began = now();
        let answer = self.caller.ask(method, &target, headers, body.as_bytes());
        self.note(name, asked, began, answer);
    }

    fn note(
        &mut self,
        name: &str,
        asked: Asked,
        began: Instant,
        answer: Result<Response, Unanswered>,
    ) {
        let answered = match answer {
            Ok(answer) => meaning(asked, name, &answer),
            Err(Unanswered::NotSent) => {
                self.caller.turn_away();
                return;
            }
            Err(Unanswered::Unknown) => Answered::Unknown,
        };
        if answered == Answered::Unknown {
            self.caller.turn_away();
            if asked == Asked::Look {
                return;
            }
        }
        let step = Step {
            asked,
            answered,
            began,
            ended: now(),
        };
        let mut histories = self.histories.lock().expect("the histories' lock");
        histories.entry(name.to_owned()).or_default().push(step);
    }
}

/// What an answer says of a member.
fn meaning(asked: Asked, name: &str, answer: &Response) -> Answered {
    match (asked, answer.status) {
        // Whether a request that was refused for want of a leader is dead, it does not say.
        (_, 503) => Answered::Unknown,
        (Asked::Look, 404) => Answered::Seen(Member::default()),
        (Asked::Look, 200) => Answered::Seen(read(name, answer)),
        (Asked::Join, 201) | (_, 204) => Answered::Done,
        (Asked::Join, 412) | (Asked::Leave | Asked::Unconfigure, 404) => Answered::Refused,
        _ => panic!("{name}: {asked:?} was answered {answer:?}"),
    }
}

fn read(name: &str, document: &Response) -> Member {
    let json = document.json();
    let entry = |list: &str| {
        let members = json[list].as_array().expect("a list");
        members.iter().find_map(|member| member.get(name)).cloned()
    };
    let active = entry("active_members");
    let config = active.clone().or_else(|| entry("inactive_members"));
    let number = |config: serde_json::Value| config.as_str().and_then(|text| text.parse().ok());
    Member {
        active: active.is_some(),
        config: config.and_then(number),
    }
}

/// A history to be read by people.
fn tell(steps: &[Step]) -> String {
    let start = steps.iter().map(|step| step.began).min();
    let since = |at: Instant| start.map_or(0, |start| (at - start).as_micros());
    let line = |step: &Step| {
        format!(
            "{:>12} {:>12} µs {:?}: {:?}",
            since(step.began),
            since(step.ended),
            step.asked,
            step.answered
        )
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Members that are asked about at the same time.
const MEMBERS: u64 = 3;

/// Steps of a member's history; some may be under way at the limit, and the last looks come
/// on top.
const STEPS: usize = 60;
const _: () = assert!(STEPS + 32 <= STEPS_MAX);

/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(15);
