//! The parts of the loop that read and wait, each by itself.

use std::cell::Cell;
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::thread;

use flume::Receiver;
use futures_lite::future;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};
use std::time::Duration;

use super::read::Job;
use super::*;
use crate::config::{Settings as Config, Sources};
use crate::group::{Join, Request};
use crate::log::{FileDisk, Log, ReadError, Settings};
use crate::mail::{Mail, Tell};
use crate::runtime::launch::Plan;
use crate::runtime::mailbox::{MailReceiver, mailbox};
use crate::runtime::post::Everywhere;
use crate::runtime::preflight::Machine;
use crate::runtime::recover::{Parts, recover};
use crate::types::{Epoch, Incarnation};
use crate::zab::{ReadWhat, Replay, Tenure};

/// The core of a server of its own, and what its only shard has of it.
pub(super) struct Core {
    pub(super) pipeline: Pipeline,
    asks: Sender<ToCore>,
    mails: MailReceiver<Mail>,
}

impl Core {
    /// Runs the core until it serves and has answered all of `asks`, which come in one message;
    /// the mails with the answers are returned.
    pub(super) async fn answers_to(self, asks: Vec<Ask>) -> Vec<Mail> {
        let Core {
            pipeline,
            asks: to_core,
            mails,
        } = self;
        let running = glommio::spawn_local(pipeline.run(|_| {}));
        let mut told = Vec::new();
        let mut missing = asks.len();
        let mut asks = Some(asks);
        while missing > 0 {
            let Some(mail) = mails.next() else {
                Timer::new(Duration::from_micros(100)).await;
                continue;
            };
            let Mail::Core { tells, .. } = &mail else {
                panic!("{mail:?}");
            };
            let is_ready = tells.iter().any(|tell| matches!(tell, Tell::Ready { .. }));
            if is_ready && let Some(asks) = asks.take() {
                to_core.send(ToCore::Asks(0, asks)).unwrap();
                continue;
            }
            let answers = tells
                .iter()
                .filter(|tell| matches!(tell, Tell::Answer { .. }));
            missing -= answers.count();
            told.push(mail);
        }
        to_core.send(ToCore::Stop).unwrap();
        running.await.unwrap();
        told
    }
}

/// A core with its log in `dir`; on an executor.
pub(super) fn alone(dir: &Path, adjust: impl FnOnce(&mut Limits)) -> Core {
    let dir = dir.to_str().map(str::to_owned);
    let settings = Config::from_sources(&Sources {
        flags: &|name| (name == "data-dir").then(|| dir.clone()).flatten(),
        env: &|_| None,
        file: None,
    })
    .unwrap();
    let machine = Machine {
        cpus: vec![0],
        descriptors: 1_000,
    };
    let mut plan = Plan::new(&settings, &machine, settings.listen, None);
    adjust(&mut plan.pipeline);
    let (asks, inbox) = flume::bounded(1_000);
    let (shard, mails) = mailbox(100_000).unwrap();
    let ways = Ways {
        inbox,
        reports: asks.clone(),
        post: Post::new(vec![shard], Everywhere::default()),
        peers: None,
    };
    let parts = Parts {
        ways,
        counters: Arc::default(),
        sync: Latency::new("log_sync"),
    };
    let (pipeline, _) = recover(plan, parts).unwrap();
    Core {
        pipeline,
        asks,
        mails,
    }
}

/// A join of the group `g`.
pub(super) fn join(member: &str) -> Request {
    Request::Join(Join {
        group: b"g"[..].into(),
        member: member.as_bytes().into(),
        timeout: None,
        config: None,
        takeover: false,
        only_if_absent: false,
        owner: ServerId(1),
        incarnation: Incarnation::default(),
    })
}

/// The transactions of the log; 0 is before the first.
fn zxid(counter: u64) -> Zxid {
    match counter {
        0 => Zxid::ZERO,
        _ => Zxid::new(Epoch(1), counter),
    }
}

/// A log of so many transactions, each a byte long but for its number.
fn log_of(dir: &tempfile::TempDir, count: u64) -> FileLog {
    let disk = FileDisk::create(dir.path()).unwrap();
    let settings = Settings {
        segment_bytes: 4_096,
        ..Settings::new(7)
    };
    let (mut log, _) = Log::open(disk, settings).unwrap();
    log.set_accepted_epoch(Epoch(1)).unwrap();
    for counter in 1..=count {
        log.append(zxid(counter), &[counter as u8]).unwrap();
    }
    log.sync_now().unwrap();
    log
}

fn read(what: ReadWhat) -> Read {
    Read {
        learner: ServerId(2),
        tenure: Tenure::default(),
        what,
    }
}

fn of_log(after: u64, upto: u64, bytes_max: usize) -> Read {
    read(ReadWhat::Log {
        after: zxid(after),
        upto: zxid(upto),
        bytes_max,
    })
}

/// What the reading thread answers to this, given a place to begin.
struct Library {
    jobs: Sender<Job>,
    answers: Receiver<ToCore>,
}

impl Library {
    fn new() -> Library {
        let (jobs, receiver) = flume::unbounded();
        let (reports, answers) = flume::unbounded();
        thread::spawn(move || super::read::serve(&receiver, &reports));
        Library { jobs, answers }
    }

    fn ask(&self, log: &FileLog, read: Read) -> Piece {
        let source = super::read::source_of(log, read.what);
        self.ask_at(read, source)
    }

    fn ask_at(&self, read: Read, source: Result<super::read::Source, ReadError>) -> Piece {
        self.jobs.send(Job { read, source }).unwrap();
        match self.answers.recv().unwrap() {
            ToCore::Read(answered, piece) if answered == read => piece,
            _ => panic!("no answer"),
        }
    }
}

fn counters(piece: &Piece) -> Vec<u64> {
    match piece {
        Piece::Entries(entries) => entries.iter().map(|entry| entry.zxid.counter).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_learner_reads_the_log_piece_by_piece_from_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of(&dir, 200);
    let library = Library::new();
    assert_eq!(counters(&library.ask(&log, of_log(0, 200, 3))), [1, 2, 3]);
    // The place is kept: it goes on from there, whatever place it is offered.
    let elsewhere = super::read::source_of(&log, of_log(100, 200, 2).what);
    let next = library.ask_at(of_log(3, 200, 2), elsewhere);
    assert_eq!(counters(&next), [4, 5]);
    // Another place is found too, behind this one or before it.
    assert_eq!(
        counters(&library.ask(&log, of_log(150, 152, 9))),
        [151, 152]
    );
    assert_eq!(counters(&library.ask(&log, of_log(9, 11, 9))), [10, 11]);
    // What was appended since a place was made is read by a new one.
    assert_eq!(counters(&library.ask(&log, of_log(198, 202, 1))), [199]);
    log.append(zxid(201), b"x").unwrap();
    log.append(zxid(202), b"y").unwrap();
    assert_eq!(counters(&library.ask(&log, of_log(199, 202, 1))), [200]);
    assert_eq!(
        counters(&library.ask(&log, of_log(200, 202, 9))),
        [201, 202]
    );
    let trimmed = Err(ReadError::Trimmed {
        asked: zxid(1),
        first: zxid(2),
    });
    assert_eq!(library.ask_at(of_log(1, 5, 9), trimmed), Piece::Gone);
    assert_eq!(library.ask(&log, of_log(202, 205, 9)), Piece::Gone);
}

#[test]
fn a_learner_reads_a_snapshot_to_its_end_in_whatever_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(&dir, 3);
    let content: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
    let mut writer = log.snapshot_writer(zxid(3)).unwrap();
    writer.write_all(&content).unwrap();
    writer.finish().unwrap();
    for bytes_max in [100_000, 70_001, 600_000, 1_000_000] {
        let library = Library::new();
        let mut received = Vec::new();
        loop {
            let offset = received.len() as u64;
            let read = read(ReadWhat::Snapshot {
                zxid: zxid(3),
                offset,
                bytes_max,
            });
            // One that has lost its place, as after a change of thread, finds it again.
            let library = if offset == 70_001 {
                &Library::new()
            } else {
                &library
            };
            let Piece::Snapshot { bytes, last } = library.ask(&log, read) else {
                panic!("the snapshot is there");
            };
            assert!(bytes.len() <= bytes_max);
            received.extend_from_slice(&bytes);
            if last {
                break;
            }
        }
        assert!(received == content, "in pieces of {bytes_max}");
    }
    let read = read(ReadWhat::Snapshot {
        zxid: zxid(2),
        offset: 0,
        bytes_max: 9,
    });
    assert_eq!(Library::new().ask(&log, read), Piece::Gone);
}

#[test]
fn a_replay_comes_in_batches_no_faster_than_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(&dir, 3_000);
    let replay = Replay {
        after: zxid(10),
        upto: zxid(2_900),
    };
    let entries = log.entries_after(replay.after).unwrap();
    let (more, go) = flume::bounded(2);
    let (reports, answers) = flume::unbounded();
    let reading = thread::spawn(move || super::replay::read_on(entries, replay, 1, &go, &reports));
    let mut counters = Vec::new();
    while counters.last() != Some(&2_900) {
        assert!(answers.is_empty(), "nothing comes unasked");
        more.send(()).unwrap();
        let Ok(ToCore::Replayed(replayed)) = answers.recv() else {
            panic!("no batch");
        };
        let batch = replayed.batch.unwrap();
        assert!(batch.len() <= 1_024);
        counters.extend(batch.iter().map(|entry| entry.zxid.counter));
    }
    assert_eq!(counters, (11..=2_900).collect::<Vec<_>>());
    assert!(reading.join().is_ok(), "it ends by itself");
}

#[test]
fn a_replay_of_more_than_there_is_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(&dir, 5);
    let replay = Replay {
        after: zxid(0),
        upto: zxid(9),
    };
    let entries = log.entries_after(Zxid::ZERO).unwrap();
    let (more, go) = flume::bounded(2);
    more.send(()).unwrap();
    more.send(()).unwrap();
    let (reports, answers) = flume::unbounded();
    super::replay::read_on(entries, replay, 1, &go, &reports);
    let lengths = answers.drain().map(|answer| match answer {
        ToCore::Replayed(replayed) => replayed.batch.unwrap().len(),
        _ => panic!("no batch"),
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [5, 0]);
}

fn on_executor<F: Future<Output = ()> + 'static>(task: impl FnOnce() -> F + Send + 'static) {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(1 << 16)
        .spawn(move || async move { task().await })
        .expect("io_uring works here")
        .join()
        .expect("the test passes");
}

/// Waits for a tick, or for so many milliseconds.
async fn ticks_within(inbox: &Receiver<ToCore>, ms: u64) -> bool {
    let late = async {
        Timer::new(Duration::from_millis(ms)).await;
        false
    };
    let tick = async { matches!(inbox.recv_async().await, Ok(ToCore::Tick)) };
    future::or(tick, late).await
}

#[test]
fn an_inbox_that_is_never_empty_does_not_keep_the_executor_from_its_rings() {
    on_executor(|| async {
        let (reports, messages) = flume::bounded(2);
        let mut inbox = Inbox::new(messages);
        let due = Rc::new(Cell::new(false));
        let rings = Rc::clone(&due);
        glommio::spawn_local(async move {
            Timer::new(Duration::from_millis(1)).await;
            rings.set(true);
        })
        .detach();
        let began = clock::now();
        while !due.get() {
            assert!(clock::now().since(began) < Millis(10_000), "never let go");
            reports.send(ToCore::Nudge).unwrap();
            inbox.first(None).await.unwrap();
            reports.send(ToCore::Nudge).unwrap();
            while inbox.next().is_some() {}
        }
    });
}

#[test]
fn an_inbox_that_is_alone_sleeps_on_its_channel() {
    on_executor(|| async {
        let (reports, messages) = flume::bounded(2);
        let mut inbox = Inbox::new(messages);
        let fired = Rc::new(Cell::new(false));
        let fires = Rc::clone(&fired);
        glommio::spawn_local(async move {
            Timer::new(Duration::from_millis(1)).await;
            fires.set(true);
        })
        .detach();
        let sends = thread::spawn(move || {
            // The timer would long have fired by then.
            let (_never, waits) = flume::bounded::<()>(1);
            assert!(waits.recv_timeout(Duration::from_millis(20)).is_err());
            reports.send("sent").unwrap();
            reports
        });
        let first = inbox.first(Some(clock::now() + Millis(60_000))).await;
        assert_eq!(first, Ok("sent"));
        assert!(!fired.get(), "it was in the executor's rings");
        drop(sends.join().unwrap());
        let until = Some(clock::now() + Millis(60_000));
        assert_eq!(
            inbox.first(until).await,
            Err(flume::RecvError::Disconnected)
        );
    });
}

#[test]
fn an_inbox_that_is_alone_lets_the_executor_have_the_time_at_the_deadline() {
    on_executor(|| async {
        let took = |left: Millis| async move {
            let (reports, messages) = flume::bounded(2);
            let mut inbox = Inbox::new(messages);
            let began = clock::now();
            glommio::spawn_local(async move {
                Timer::new(Duration::from_millis(1)).await;
                reports.send("timer").unwrap();
            })
            .detach();
            assert_eq!(inbox.first(Some(began + left)).await, Ok("timer"));
            clock::now().since(began)
        };
        let mut soonest = Millis(u64::MAX);
        for _ in 0..20 {
            soonest = soonest.min(took(Millis(5)).await);
        }
        assert!(soonest >= Millis(4), "{soonest:?}: it did not sleep");
        assert!(soonest < Millis(50), "{soonest:?}: past the deadline");
        // However far the deadline is, others on the executor have their turn before.
        assert!(took(Millis(60_000)).await < Millis(30_000));
    });
}

#[test]
fn a_turn_ends_though_messages_come_as_fast_as_they_are_taken() {
    on_executor(|| async {
        let (reports, messages) = flume::unbounded();
        let mut inbox = Inbox::new(messages);
        reports.send(0_u64).unwrap();
        inbox.first(None).await.unwrap();
        reports.send(0).unwrap();
        while let Some(number) = inbox.next() {
            assert!(number < 10_000_000, "it does not end");
            reports.send(number + 1).unwrap();
        }
        assert_eq!(reports.len(), 1, "the next turn has it");
    });
}

#[test]
fn a_tick_comes_at_the_deadline_though_it_was_first_a_later_one() {
    on_executor(|| async {
        let (reports, inbox) = flume::bounded(8);
        let mut ticker = Ticker::default();
        ticker.start(reports);
        let began = clock::now();
        ticker.arm(began + Millis(60_000));
        // The timer waits for the later one by now.
        assert!(!ticks_within(&inbox, 5).await);
        ticker.arm(began + Millis(40));
        assert!(ticks_within(&inbox, 20_000).await);
        assert!(clock::now() >= began + Millis(40), "never early");
    });
}

#[test]
fn a_deadline_that_moves_away_is_not_ticked_for_and_one_tick_asks_for_one_answer() {
    on_executor(|| async {
        let (reports, inbox) = flume::bounded(8);
        let mut ticker = Ticker::default();
        ticker.start(reports);
        let ticker = Rc::new(ticker);
        ticker.arm(clock::now() + Millis(10));
        ticker.arm(clock::now() + Millis(60_000));
        assert!(!ticks_within(&inbox, 40).await, "it has moved away");
        ticker.arm(clock::now());
        assert!(ticks_within(&inbox, 20_000).await);
        assert!(!ticks_within(&inbox, 20).await, "nobody has asked again");
        ticker.arm(clock::now() + Millis(5));
        assert!(ticks_within(&inbox, 20_000).await);
    });
}

#[test]
fn messages_gather_for_a_window_and_not_at_all_without_one() {
    let late = Duration::from_millis(5);
    let gathered = |window| {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .make()
            .unwrap();
        executor.run(async move {
            let (sender, messages) = flume::unbounded();
            let mut inbox = Inbox::new(messages);
            sender.send("first").unwrap();
            let second = glommio::spawn_local(async move {
                Timer::new(late).await;
                sender.send("second").unwrap();
            });
            inbox.first(None).await.unwrap();
            inbox.gather(window).await;
            let gathered = inbox.next();
            second.await;
            gathered
        })
    };
    assert_eq!(gathered(Duration::ZERO), None);
    assert_eq!(gathered(2 * late), Some("second"));
}
