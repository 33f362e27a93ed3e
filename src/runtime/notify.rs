//! What systemd is told of the server, if it has started it (`sd_notify`).
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is told to anybody.

use sd_notify::NotifyState;

use super::watchdog::Alive;

/// The server may serve; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The server answers what it has accepted, and ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// What the watchdog has to do for systemd's (`WatchdogSec=`), if that is on: to tell it twice
/// a period that all executors make progress.
#[must_use]
pub fn alive() -> Option<Alive> {
    let period = sd_notify::watchdog_enabled()?;
    Some(Alive {
        period: period / 2,
        // Nobody to complain to: if systemd does not hear us, it ends us.
        tell: Box::new(|| drop(sd_notify::notify(&[NotifyState::Watchdog]))),
    })
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("systemd could not be told of the server's state: {error}");
    }
}
