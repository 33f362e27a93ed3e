//! S4: once all is well, a session whose client has fallen silent expires within its bound.

use super::super::ghost::Ghost;
use super::Promises;
use crate::types::SessionId;

/// The sessions that should be gone: nobody was promised that they live, and they have had
/// `patience_us` beyond that.
pub(in super::super) fn overdue(
    ghost: &Ghost,
    promises: &Promises,
    now_us: u64,
    patience_us: u64,
) -> Vec<SessionId> {
    let late = ghost.live.iter().filter(|(id, session)| {
        let due = promises.until(**id) + session.timeout.0 * 1_000;
        due + patience_us < now_us
    });
    late.map(|(id, _)| *id).collect()
}
