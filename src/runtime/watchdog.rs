//! Ends the process when an executor no longer turns.
//!
//! glommio 0.9.0 can park with runnable tasks and no pending wake-up: its loop takes "was
//! preempted before running anything" for "nothing to run". A wake-up from another thread
//! frees it, so the watchdog rings every executor's bell now and then; and if one does not
//! turn although its bell was rung many times, a dead process that restarts from its log is
//! better than a live one that answers nobody.
//!
//! Whoever watches the process from outside is told that it is alive, while all executors turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One executor as the watchdog sees it.
pub struct Watched {
    /// For the message, for example `shard 0`.
    pub name: String,
    /// Grows with every turn of its loop.
    pub turns: Box<dyn Fn() -> u64 + Send>,
    /// Makes it turn.
    pub ring: Box<dyn Fn() + Send>,
}

/// Who is to be told that the process is alive.
pub struct Alive {
    /// How often, at least, as long as it is.
    pub period: Duration,
    /// Tells it.
    pub tell: Box<dyn Fn() + Send>,
}

/// Looks at each of `watched` every [`INTERVAL`] until `stop` is set and the thread unparked;
/// calls `end` with the reason if one stands still for [`STANDSTILLS_MAX`] looks in a row.
///
/// Looks are counted, not time: a process that was stopped as a whole and goes on later has
/// missed none. `alive` is told once a period, if each executor has turned since the last time.
pub fn watch(
    watched: Vec<Watched>,
    stop: Arc<AtomicBool>,
    alive: Option<Alive>,
    end: impl Fn(&str) + Send + 'static,
) -> JoinHandle<()> {
    let body = move || {
        let mut seen: Vec<(u64, u32)> = vec![(0, 0); watched.len()];
        let mut pulse = alive.map(|alive| Pulse::new(alive, watched.len()));
        while !stop.load(Ordering::Acquire) {
            for (executor, (turns, still)) in watched.iter().zip(&mut seen) {
                let now = (executor.turns)();
                *still = if now == *turns { *still + 1 } else { 0 };
                *turns = now;
                if *still >= STANDSTILLS_MAX {
                    let ms = INTERVAL.as_millis() * u128::from(STANDSTILLS_MAX);
                    end(&format!(
                        "{} has not turned for {ms} ms of running time",
                        executor.name
                    ));
                    return;
                }
                (executor.ring)();
            }
            if let Some(pulse) = &mut pulse {
                pulse.look(seen.iter().map(|(turns, _)| *turns));
            }
            thread::park_timeout(INTERVAL);
        }
    };
    thread::Builder::new()
        .name("watchdog".into())
        .spawn(body)
        .expect("a thread can be started: the executors' could")
}

/// When somebody was last told that the process is alive.
struct Pulse {
    alive: Alive,
    /// Looks since then.
    looks: u32,
    /// The turns of each executor then.
    turns: Vec<u64>,
}

impl Pulse {
    fn new(alive: Alive, executors: usize) -> Pulse {
        Pulse {
            alive,
            looks: 0,
            turns: vec![0; executors],
        }
    }

    fn look(&mut self, turns: impl Iterator<Item = u64> + Clone) {
        self.looks = self.looks.saturating_add(1);
        let due = INTERVAL.saturating_mul(self.looks) >= self.alive.period;
        let all_turn = turns
            .clone()
            .zip(&self.turns)
            .all(|(now, then)| now != *then);
        if due && all_turn {
            (self.alive.tell)();
            self.looks = 0;
            self.turns = turns.collect();
        }
    }
}

/// Between two looks.
pub const INTERVAL: Duration = Duration::from_millis(50);
/// Ten seconds of looks: far more than any disk or scheduler stall that passes by itself.
pub const STANDSTILLS_MAX: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;

    fn watched(turns: &Arc<AtomicU64>, rings: mpsc::Sender<()>, answers: bool) -> Watched {
        let (read, write) = (Arc::clone(turns), Arc::clone(turns));
        Watched {
            name: "shard 7".into(),
            turns: Box::new(move || read.load(Ordering::Relaxed)),
            ring: Box::new(move || {
                if answers {
                    write.fetch_add(1, Ordering::Relaxed);
                }
                let _ = rings.send(());
            }),
        }
    }

    #[test]
    fn an_executor_that_turns_when_rung_is_left_alone_until_the_stop() {
        let (rings, rung) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicU64::new(1));
        let watchdog = watch(
            vec![watched(&turns, rings, true)],
            Arc::clone(&stop),
            None,
            |_| panic!(),
        );
        for _ in 0..3 {
            rung.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        stop.store(true, Ordering::Release);
        watchdog.thread().unpark();
        watchdog.join().unwrap();
    }

    #[test]
    fn an_executor_that_stands_still_ends_the_process() {
        let (rings, _rung) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        let turns = Arc::new(AtomicU64::new(1));
        let watchdog = watch(
            vec![watched(&turns, rings, false)],
            Arc::default(),
            None,
            move |why| {
                ended.send(why.to_owned()).unwrap();
            },
        );
        // Unparking in a loop stands in for the passing of the intervals.
        let why = loop {
            watchdog.thread().unpark();
            if let Ok(why) = end.try_recv() {
                break why;
            }
            thread::yield_now();
        };
        assert!(why.starts_with("shard 7 has not turned"), "{why}");
    }

    /// A pulse of three looks, and how often it has told.
    fn pulse(executors: usize) -> (Pulse, Arc<AtomicU64>) {
        let told = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&told);
        let tell = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let alive = Alive {
            period: INTERVAL * 3,
            tell: Box::new(tell),
        };
        (Pulse::new(alive, executors), told)
    }

    #[test]
    fn it_is_told_once_a_period_that_all_executors_turn() {
        let (mut pulse, told) = pulse(2);
        for look in 1..=9 {
            pulse.look([look, look * 2].into_iter());
            assert_eq!(told.load(Ordering::Relaxed), look / 3, "look {look}");
        }
    }

    #[test]
    fn nothing_is_told_while_one_executor_stands_still() {
        let (mut pulse, told) = pulse(2);
        for look in 1..=3 {
            pulse.look([look, 7].into_iter());
        }
        assert_eq!(told.load(Ordering::Relaxed), 1);
        for look in 4..=20 {
            pulse.look([look, 7].into_iter());
        }
        assert_eq!(told.load(Ordering::Relaxed), 1, "the second has not turned");
        pulse.look([21, 8].into_iter());
        assert_eq!(told.load(Ordering::Relaxed), 2, "at once when it turns");
    }
}
