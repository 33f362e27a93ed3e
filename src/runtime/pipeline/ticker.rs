//! The time, told to the core when it wants to know it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use flume::{Receiver, Sender};
use futures_lite::future;
use glommio::spawn_local;
use glommio::timer::Timer;

use super::ToCore;
use crate::runtime::clock;
use crate::time::Millis;

/// One timer for the core's one deadline.
///
/// A deadline mostly moves to later, and then the timer is left as it is: it finds the later
/// one when it fires. So a busy core sets no timer for each turn.
#[derive(Default)]
pub(super) struct Ticker {
    armed: Rc<Cell<Millis>>,
    /// Rung when the deadline has moved to earlier than what the timer waits for.
    bell: Option<Sender<()>>,
    /// What the timer waits for.
    waits_for: Rc<Cell<Millis>>,
}

impl Ticker {
    /// Starts the task that sends [`ToCore::Tick`].
    pub(super) fn start(&mut self, reports: Sender<ToCore>) {
        let (bell, rung) = flume::bounded(1);
        self.bell = Some(bell);
        self.armed.set(NEVER);
        let (armed, waits_for) = (Rc::clone(&self.armed), Rc::clone(&self.waits_for));
        spawn_local(tick(armed, waits_for, rung, reports)).detach();
    }

    /// Asks for a tick at `deadline`, or soon after.
    pub(super) fn arm(&self, deadline: Millis) {
        self.armed.set(deadline);
        if deadline < self.waits_for.get()
            && let Some(bell) = &self.bell
        {
            // If it is full it rings already.
            let _ = bell.try_send(());
        }
    }
}

async fn tick(
    armed: Rc<Cell<Millis>>,
    waits_for: Rc<Cell<Millis>>,
    rung: Receiver<()>,
    reports: Sender<ToCore>,
) {
    loop {
        let deadline = armed.get();
        let now = clock::now();
        let left = deadline.since(now);
        if left > Millis(0) {
            waits_for.set(deadline);
            let wait = Duration::from_millis(left.0.min(LOOK_MS));
            let fired = async {
                Timer::new(wait).await;
                true
            };
            let heard = async { rung.recv_async().await.is_ok() };
            if !future::or(fired, heard).await {
                return;
            }
            continue;
        }
        // The process was stopped, or starved. What others have said meanwhile waits in the
        // sockets, and is to be heard before the replica judges their silence.
        if now.since(deadline) > LATE {
            Timer::new(CATCH_UP).await;
        }
        armed.set(NEVER);
        waits_for.set(NEVER);
        if reports.send_async(ToCore::Tick).await.is_err() {
            return;
        }
        // The core says when it next wants to know.
        if rung.recv_async().await.is_err() {
            return;
        }
    }
}

const NEVER: Millis = Millis(u64::MAX);
/// A timer is late by a few milliseconds; by more, something has stood still.
const LATE: Millis = Millis(50);
/// Long enough for the executor to look at its sockets.
const CATCH_UP: Duration = Duration::from_millis(2);
/// The timer's longest wait: the two clocks differ by what the machine has slept.
const LOOK_MS: u64 = 1_000;
