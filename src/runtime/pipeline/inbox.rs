//! The core's inbox, taken from in turns.

use std::time::Duration;

use flume::{Receiver, RecvError};
use glommio::timer::Timer;

use crate::runtime::clock;
use crate::time::Millis;

/// Messages for a task that is never long without a rest.
///
/// While a message is there the task that takes it is ready and never lets go of the executor,
/// which then does not look at its rings: neither a sync that has ended nor a frame that has
/// come would be seen. So the task rests now and then, which costs some microseconds.
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

    /// Waits for the first message of a turn.
    pub(super) async fn first(&mut self) -> Result<T, RecvError> {
        let now = clock::now();
        if self.messages.is_empty() {
            self.rested = now;
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
/// Long enough for the executor to take it for a rest.
const REST: Duration = Duration::from_micros(1);
