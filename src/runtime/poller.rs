//! An epoll set that a glommio task can wait for: the shard's one point of rest.
//!
//! glommio's `TcpStream` costs a one-shot poll, a completion and a task switch for every
//! request. A shard instead registers its listener, its connections, its timer and its
//! inbox's bell in an epoll set of its own, takes events from that in batches, and parks
//! the executor only when the set is empty.
//!
//! glommio has no public way to wait until a descriptor is readable, and an epoll set is
//! one. [`Poller::ready`] borrows one: it dresses a duplicate of the epoll descriptor as a
//! `TcpStream` and reads a byte from it. Building the stream arms a poll for readability in
//! the executor's ring; once the poll fires glommio tries `recv`, which fails with
//! `ENOTSOCK`, and so the read returns exactly when the set has events. This rests on the
//! inside of glommio 0.9.0, which Cargo.toml therefore pins; the tests below fail if another
//! release behaves otherwise.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use futures_lite::AsyncReadExt;
use glommio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::clock;
use crate::time::Millis;

/// An epoll set, and the events last taken from it.
pub struct Poller {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// An empty set that yields at most `batch_max` events a turn.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn new(batch_max: usize) -> io::Result<Poller> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Poller {
            set,
            events: Vec::with_capacity(batch_max),
        })
    }

    /// Watches `fd` for `flags`; its events carry `key`.
    ///
    /// # Errors
    /// If `fd` is watched already, or the kernel's limit of watches is reached.
    pub fn add(&self, fd: impl AsFd, key: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.set,
            fd,
            epoll::EventData::new_u64(key),
            flags,
        )?)
    }

    /// Watches `fd`, which is watched already, for `flags` from now on.
    ///
    /// # Errors
    /// If `fd` is not watched.
    pub fn modify(&self, fd: impl AsFd, key: u64, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::modify(&self.set, fd, data, flags)?)
    }

    /// Stops watching `fd`. Closing a descriptor that has no duplicate does the same.
    ///
    /// # Errors
    /// If `fd` is not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.set, fd)?)
    }

    /// Takes what is ready, waiting at most `wait_ns` nanoseconds for something to be; the
    /// number of events is returned. The thread sleeps meanwhile, and with it every other
    /// task of the executor.
    ///
    /// # Errors
    /// Only if the set itself is broken.
    pub fn take(&mut self, wait_ns: u32) -> io::Result<usize> {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: wait_ns.into(),
        };
        self.events.clear();
        match epoll::wait(&self.set, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The `index`th event of the last [`Poller::take`]: its key and what is ready.
    ///
    /// # Panics
    /// If `index` is not below the number that `take` returned.
    #[must_use]
    pub fn event(&self, index: usize) -> (u64, epoll::EventFlags) {
        let event = self.events[index];
        (event.data.u64(), event.flags)
    }

    /// Waits until the set has an event. Other tasks of the executor run meanwhile.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated, or the read ends in another way than
    /// `ENOTSOCK`, which would mean that glommio no longer reads as this module expects.
    pub async fn ready(&self) -> io::Result<()> {
        let double = self.set.try_clone()?.into_raw_fd();
        // SAFETY: `double` was duplicated one line above and its owner given up, so the
        // stream becomes the only owner and closes it once, when dropped. The stream is used
        // for one read; glommio hands the descriptor to poll and to recv, and both accept
        // any descriptor number without touching memory other than the one-byte buffer.
        let mut stream = unsafe { TcpStream::from_raw_fd(double) };
        let mut byte = [0_u8; 1];
        match stream.read(&mut byte).await {
            Err(error) if error.raw_os_error() == Some(ENOTSOCK) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other(
                "read from an epoll set: glommio has changed",
            )),
        }
    }
}

/// Dresses a connected socket for the executor it is called on; glommio has no safe way to.
#[must_use]
pub fn stream(socket: std::net::TcpStream) -> TcpStream {
    // SAFETY: the descriptor's owner is given up in the same expression, so that the stream is
    // the only one and closes it once, when dropped; and it is a TCP socket, as glommio expects.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

/// A timer that the epoll set can watch; while it runs it fires whenever the boot clock shows
/// `phase` and a whole number of periods.
pub struct Ticker {
    timer: OwnedFd,
    /// The phase it runs with, if it does.
    running: Option<Millis>,
}

impl Ticker {
    /// A stopped timer.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn new() -> io::Result<Ticker> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Ticker {
            timer,
            running: None,
        })
    }

    /// Starts the timer with this phase, or stops it; does nothing if it is so already.
    ///
    /// # Errors
    /// None that a valid descriptor can cause.
    pub fn run(&mut self, phase: Option<Millis>, period: Millis) -> io::Result<()> {
        if phase == self.running {
            return Ok(());
        }
        let (first, every) = match phase {
            Some(phase) => (first_after(clock::now(), phase, period), period),
            None => (Millis(0), Millis(0)),
        };
        let setting = Itimerspec {
            it_interval: timespec(every),
            it_value: timespec(first),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        self.running = phase;
        Ok(())
    }

    /// True if the timer runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Takes note that the timer has fired, so that it is no longer readable.
    pub fn acknowledge(&self) {
        let mut count = [0_u8; 8];
        // Nothing to read means that another turn has taken note already.
        let _ = rustix::io::read(&self.timer, &mut count);
    }
}

impl AsFd for Ticker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// The first point after `now` that is `phase` and a whole number of periods.
fn first_after(now: Millis, phase: Millis, period: Millis) -> Millis {
    let phase = phase.0 % period.0;
    let periods = (now.0 + period.0 - phase) / period.0;
    Millis(periods * period.0 + phase)
}

fn timespec(at: Millis) -> Timespec {
    Timespec {
        tv_sec: (at.0 / 1_000).cast_signed(),
        tv_nsec: ((at.0 % 1_000) * 1_000_000).cast_signed(),
    }
}

/// `ENOTSOCK` as the kernel numbers it.
const ENOTSOCK: i32 = rustix::io::Errno::NOTSOCK.raw_os_error();

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use glommio::{LocalExecutorBuilder, Placement, spawn_local};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn on_executor<F: Future<Output = ()> + 'static>(task: impl FnOnce() -> F + Send + 'static) {
        LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(1 << 16)
            .spawn(move || async move { task().await })
            .expect("io_uring works here")
            .join()
            .expect("the task returns");
    }

    fn bell() -> OwnedFd {
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("a descriptor is free")
    }

    #[test]
    fn waiting_ends_when_a_watched_descriptor_becomes_readable() {
        on_executor(|| async {
            let mut poller = Poller::new(8).unwrap();
            let bell = Rc::new(bell());
            poller.add(&*bell, 7, epoll::EventFlags::IN).unwrap();
            assert_eq!(poller.take(0).unwrap(), 0, "nothing rang yet");
            let ringer = Rc::clone(&bell);
            // The ringer runs only once `ready` has given the executor up: a wait that spun
            // would never let it.
            let task = spawn_local(async move {
                rustix::io::write(&*ringer, &1_u64.to_ne_bytes()).unwrap();
            });
            poller.ready().await.unwrap();
            task.await;
            assert_eq!(poller.take(0).unwrap(), 1);
            assert_eq!(poller.event(0).0, 7);
        });
    }

    #[test]
    fn waiting_returns_at_once_when_an_event_is_there_already() {
        on_executor(|| async {
            let mut poller = Poller::new(8).unwrap();
            let bell = bell();
            poller.add(&bell, 1, epoll::EventFlags::IN).unwrap();
            rustix::io::write(&bell, &1_u64.to_ne_bytes()).unwrap();
            poller.ready().await.unwrap();
            poller.ready().await.unwrap();
            assert_eq!(poller.take(0).unwrap(), 1);
        });
    }

    #[test]
    fn waiting_many_times_leaks_no_descriptor() {
        on_executor(|| async {
            let poller = Poller::new(8).unwrap();
            let bell = bell();
            poller.add(&bell, 1, epoll::EventFlags::IN).unwrap();
            rustix::io::write(&bell, &1_u64.to_ne_bytes()).unwrap();
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            poller.ready().await.unwrap();
            let before = open();
            for _ in 0..2_000 {
                poller.ready().await.unwrap();
            }
            // Other tests open and close descriptors at the same time: allow for a few.
            assert!(open() < before + 500, "{} then {}", before, open());
        });
    }

    #[test]
    fn the_first_firing_is_the_next_point_of_the_phase() {
        let first = |now, phase| first_after(Millis(now), Millis(phase), Millis(10)).0;
        assert_eq!([first(0, 0), first(9, 0), first(10, 0)], [10, 10, 20]);
        assert_eq!([first(2, 3), first(3, 3), first(12, 3)], [3, 13, 13]);
        assert_eq!([first(12, 43), first(12, 40)], [13, 20]);
    }

    #[test]
    fn a_ticker_fires_where_its_phase_says_and_where_a_new_one_does() {
        on_executor(|| async {
            let mut poller = Poller::new(8).unwrap();
            let mut ticker = Ticker::new().unwrap();
            poller.add(&ticker, 3, epoll::EventFlags::IN).unwrap();
            let period = Millis(50);
            for phase in [7, 31].map(Millis) {
                let first = first_after(clock::now(), phase, period);
                ticker.run(Some(phase), period).unwrap();
                poller.ready().await.unwrap();
                assert_eq!(poller.take(0).unwrap(), 1);
                assert!(clock::now() >= first, "not before");
                ticker.acknowledge();
            }
        });
    }

    #[test]
    fn a_ticker_fires_only_while_it_runs() {
        on_executor(|| async {
            let mut poller = Poller::new(8).unwrap();
            let mut ticker = Ticker::new().unwrap();
            poller.add(&ticker, 3, epoll::EventFlags::IN).unwrap();
            assert_eq!(poller.take(0).unwrap(), 0);
            ticker.run(Some(Millis(0)), Millis(1)).unwrap();
            poller.ready().await.unwrap();
            assert_eq!(poller.take(0).unwrap(), 1);
            ticker.run(None, Millis(1)).unwrap();
            ticker.acknowledge();
            assert_eq!(poller.take(0).unwrap(), 0, "stopped and taken note of");
        });
    }
}
