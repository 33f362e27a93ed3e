//! Z3: what is delivered was broadcast by the primary of its epoch, with the same bytes, and is
//! delivered at most once.
//!
//! Checked at each broadcast: the zxid is new. At each append and each delivery: the
//! transaction was broadcast and its payload has the hash it was broadcast with. At each
//! delivery: the application does not hold it yet; an application begins anew at a start and
//! with a snapshot, and what a snapshot covers counts as delivered. For a snapshot: what it
//! ends with was broadcast. The hash has 64 bits, and stands for the bytes.

use super::{Ghost, Invariant, Verdict, ensure, known};
use crate::types::Zxid;

/// A primary broadcasts `zxid`.
pub(super) fn broadcast(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let new = ghost.tree().find(zxid).is_none();
    ensure(new, Invariant::Z3, ghost.servers()[at].id, || {
        format!("{zxid} is broadcast a second time")
    })
}

/// `zxid` comes to a log or an application.
pub(super) fn logged(ghost: &Ghost, at: usize, zxid: Zxid, hash: u64) -> Verdict {
    let node = known(ghost, at, Invariant::Z3, zxid)?;
    let same = ghost.tree().hash(node) == hash;
    ensure(same, Invariant::Z3, ghost.servers()[at].id, || {
        format!("{zxid} has other bytes than it was broadcast with")
    })
}

/// A history that ends with `zxid` is spoken of.
pub(super) fn covered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    known(ghost, at, Invariant::Z3, zxid).map(|_| ())
}

/// An application is given `zxid`.
pub(super) fn delivered(ghost: &Ghost, at: usize, zxid: Zxid) -> Verdict {
    let node = known(ghost, at, Invariant::Z3, zxid)?;
    let server = &ghost.servers()[at];
    let again = ghost.tree().holds(server.applied, node);
    ensure(!again, Invariant::Z3, server.id, || {
        format!("{zxid} is delivered a second time")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::invariants::script::{
        Script, at, broadcast, committed, installing, restored, snapshotting,
    };
    use crate::sim::observe::Observation;
    use crate::types::ServerId;

    const THERE: ServerId = ServerId(2);

    #[test]
    fn a_zxid_is_broadcast_once() {
        let mut script = Script::settled();
        script.refused(Invariant::Z3, broadcast(1, at(1, 2)));
    }

    #[test]
    fn what_was_never_broadcast_is_refused_wherever_it_turns_up() {
        let nowhere = at(1, 3);
        let (server, zxid, hash, digest) = (THERE, nowhere, 0, 0);
        for seen in [
            Observation::Appended { server, zxid, hash },
            Observation::Delivered {
                server,
                zxid,
                hash,
                digest,
            },
            committed(2, nowhere),
            restored(2, nowhere, 0),
            snapshotting(2, nowhere, 0),
            installing(2, nowhere, 0),
        ] {
            Script::settled().refused(Invariant::Z3, seen);
        }
    }

    #[test]
    fn other_bytes_than_were_broadcast_are_refused() {
        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        let (server, zxid, hash) = (THERE, at(1, 3), 1);
        script.refused(Invariant::Z3, Observation::Appended { server, zxid, hash });

        let mut script = Script::settled();
        script.broadcast(at(1, 3), 1);
        let digest = script.digest(zxid);
        let seen = Observation::Delivered {
            server,
            zxid,
            hash,
            digest,
        };
        script.refused(Invariant::Z3, seen);
    }

    #[test]
    fn a_second_delivery_is_refused_and_one_after_a_restart_is_not() {
        let mut script = Script::settled();
        let again = script.delivered(2, at(1, 1));
        script.stop(2);
        script.start(2);
        script.see(again);
        script.refused(Invariant::Z3, again);
    }
}
