//! Which history helpers work for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts how often the history was cut or replaced; shared with the helpers beside the log.
///
/// A snapshot writer or a trim job may be overtaken by a cut or by the install of another
/// server's snapshot. What it then names or removes would land beside a history it knows
/// nothing of (ZOOKEEPER-4712: a disk writer that outlives its role). So it changes names only
/// under this lock, and only while the history is still the one it was made for.
#[derive(Clone, Default)]
pub(super) struct Generation(Arc<Mutex<u64>>);

/// The generation something was made in.
pub(super) struct Made {
    shared: Generation,
    at: u64,
}

impl Generation {
    /// The present one.
    pub(super) fn now(&self) -> u64 {
        *self.lock()
    }

    /// Ends it. Helpers of earlier generations change no names from here on.
    pub(super) fn end(&self) {
        *self.lock() += 1;
    }

    /// Marks something as made in the present generation.
    pub(super) fn made(&self) -> Made {
        Made {
            shared: self.clone(),
            at: self.now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A panic elsewhere ends the process; the count is whole at every step anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Made {
    /// Runs `change` unless the generation has ended; it cannot end meanwhile.
    pub(super) fn while_current<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        let now = self.shared.lock();
        (*now == self.at).then(change)
    }
}
