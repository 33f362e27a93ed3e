//! S9: the state of a server, from whatever snapshot and log it came, is the ghost's.

use super::super::ghost::Ghost;
use super::Verdict;
use crate::group::State;
use crate::types::Zxid;

pub(in super::super) fn state_is_the_ghosts(ghost: &Ghost, at: usize, state: &State) -> Verdict {
    let applied = state.applied();
    let known = ghost.digest(applied);
    if applied > Zxid::ZERO && known != Some(state.digest()) {
        let server = at + 1;
        return Err(format!(
            "S9: server {server} at {applied} is not what it must be"
        ));
    }
    Ok(())
}
