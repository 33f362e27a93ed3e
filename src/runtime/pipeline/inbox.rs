//! The core's inbox, taken from in turns.

use std::time::Duration;

use flume::{Receiver, RecvError, RecvTimeoutError};
use glommio::timer::Timer;

use crate::runtime::clock;
use crate::time::Millis;

/// Messages for a task that is never long without a rest.
///
/// While a message is there the task that takes it is ready and never lets go of the executor,
/// which then does not look at its rings: neither a frame that has come nor a timer that has
/// fired would be seen. So the task rests now and then, which costs some microseconds.
///
/// To rest in the executor's rings takes a dozen system calls, and as many to wake up. Where
/// nothing but messages and the time is waited for, the task sleeps on the channel instead, for
/// which it takes one.
pub(super) struct Inbox<T> {
    messages: Receiver<T>,
    rested: Millis,
    /// When the present turn began.
    began: Millis,
}

impl<T> Inbox<T> {
    pub(super) fn new(messages: Receiver<T>) -> Inbox<T> {
        Inbox {
            messages,
            rested: Millis(0),
            began: Millis(0),
        }
    }

    /// Waits for the first message of a turn. `alone_until`: up to then nothing else on this
    /// executor waits for anything.
    pub(super) async fn first(&mut self, alone_until: Option<Millis>) -> Result<T, RecvError> {
        let now = clock::now();
        if self.messages.is_empty() {
            self.rested = now;
            let left = alone_until.map_or(Millis(0), |until| until.since(now).min(ASLEEP_MAX));
            if left > Millis(0) {
                let slept = self.messages.recv_timeout(Duration::from_millis(left.0));
                if !matches!(slept, Err(RecvTimeoutError::Timeout)) {
                    self.began = clock::now();
                    return slept.map_err(|_| RecvError::Disconnected);
                }
            }
        } else if now.since(self.rested) >= BUSY_MAX {
            Timer::new(REST).await;
            self.rested = now;
        }
        let first = self.messages.recv_async().await;
        self.began = clock::now();
        first
    }

    /// Lets messages gather for so long before the turn goes on.
    pub(super) async fn gather(&mut self, window: Duration) {
        if !window.is_zero() {
            Timer::new(window).await;
            self.began = clock::now();
        }
    }

    /// The next message of the turn, unless there is none or the turn has taken long enough:
    /// what comes as fast as it is taken, such as a log that is read back, must not keep others
    /// from their answers, nor from knowing that this server lives.
    pub(super) fn next(&self) -> Option<T> {
        if clock::now().since(self.began) >= TURN_MAX {
            return None;
        }
        self.messages.try_recv().ok()
    }
}

/// How long one turn may take.
const TURN_MAX: Millis = Millis(3);
/// How long the core may be busy before it lets the executor look after disk and network.
const BUSY_MAX: Millis = Millis(2);
/// How long the task sleeps on the channel before it lets the executor look after itself.
const ASLEEP_MAX: Millis = Millis(100);
/// Long enough for the executor to take it for a rest.
const REST: Duration = Duration::from_micros(1);
