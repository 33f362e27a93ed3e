//! S6: a transaction that has gone stale, an expiry or a move above all, does nothing.

use super::Verdict;
use crate::group::Applied;

/// `idle`: by the state before it, the transaction was to change nothing.
pub(in super::super) fn stale_is_nothing(applied: &Applied, idle: bool) -> Verdict {
    let nothing =
        applied.groups.is_empty() && applied.sessions.is_empty() && applied.ended.is_empty();
    if idle && !nothing {
        return Err(format!("S6: a stale transaction did {applied:?}"));
    }
    Ok(())
}
