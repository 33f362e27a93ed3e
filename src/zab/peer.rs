//! One server's part in the broadcast.

use std::collections::VecDeque;
use std::sync::Arc;

use super::quorum::Quorum;
use super::ready::{Entry, Ready};
use crate::types::{Epoch, ServerId, Zxid};

/// The state machine of one server.
///
/// Its methods are of three kinds: inputs ([`Peer::start`], `on_…_persisted`,
/// [`Peer::on_write_failed`], [`Peer::propose`]), the one output ([`Peer::ready`]), and
/// getters.
///
/// Positions, in the order that always holds:
/// `delivered = committed ≤ durable ≤ handed out to the log ≤ proposed`.
pub struct Peer {
    id: ServerId,
    phase: Phase,
    accepted_epoch: Epoch,
    current_epoch: Epoch,
    /// What each voter has on disk.
    quorum: Quorum,
    /// Proposed and not yet committed, oldest first; the first `logging` of them have been
    /// handed out to the log.
    in_flight: VecDeque<Entry>,
    logging: usize,
    in_flight_max: usize,
    proposed: Zxid,
    durable: Zxid,
    committed: Zxid,
    ready: Ready,
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Has not been started, or has no leader.
    Looking,
    /// Has won, and waits for its new accepted epoch to be durable.
    Discovery,
    /// Its history is durable; it waits for its new current epoch to be.
    Synchronization,
    /// The established leader: takes proposals.
    Leading,
    /// A write failed: it acknowledges, votes and proposes nothing any more. Only a restart,
    /// which reads again what the disk really holds, ends this.
    Fenced,
}

/// What a peer finds on its disk when it starts.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// This server.
    pub id: ServerId,
    /// The newest epoch it has promised to follow.
    pub accepted_epoch: Epoch,
    /// The newest epoch whose history it holds.
    pub current_epoch: Epoch,
    /// The last transaction in its log or snapshot, durable.
    pub last_logged: Zxid,
    /// How many proposals may be in flight; more are refused.
    pub in_flight_max: usize,
}

/// Why a proposal was not taken. Nothing has happened; the caller may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This peer does not lead at present.
    #[error("not the established leader")]
    NotLeading,
    /// As many proposals are in flight as may be.
    #[error("too many proposals in flight")]
    Full,
}

impl Peer {
    /// A peer of an ensemble of `voters`, resting until [`Peer::start`].
    ///
    /// # Panics
    /// If the disk contradicts itself: accepted ≥ current ≥ epoch of the last transaction
    /// holds on every disk this code has written (invariant Z12); or if `boot.id` does not
    /// vote.
    #[must_use]
    pub fn new(boot: Boot, voters: &[ServerId]) -> Peer {
        let Boot {
            id,
            accepted_epoch,
            current_epoch,
            last_logged,
            in_flight_max,
        } = boot;
        assert!(
            accepted_epoch >= current_epoch,
            "Z12: {accepted_epoch} < {current_epoch}"
        );
        assert!(
            current_epoch >= last_logged.epoch,
            "Z12: {current_epoch} < {last_logged}"
        );
        assert!(voters.contains(&id), "server {id} does not vote");
        Peer {
            id,
            phase: Phase::Looking,
            accepted_epoch,
            current_epoch,
            quorum: Quorum::new(voters),
            in_flight: VecDeque::new(),
            logging: 0,
            in_flight_max,
            proposed: last_logged,
            durable: last_logged,
            committed: Zxid::ZERO,
            ready: Ready::default(),
        }
    }

    /// Looks for a leader. Alone, the peer's own vote is a quorum, so it begins to lead.
    ///
    /// # Panics
    /// If the peer has been started before, or has company it cannot yet talk to.
    pub fn start(&mut self) {
        assert_eq!(self.phase, Phase::Looking, "started twice");
        assert_eq!(self.quorum.len(), 1, "an ensemble of one");
        self.phase = Phase::Discovery;
        self.accepted_epoch = self.accepted_epoch.next();
        self.ready.accepted_epoch = Some(self.accepted_epoch);
    }

    /// The accepted epoch given out in a [`Ready`] is durable.
    pub fn on_accepted_epoch_persisted(&mut self, epoch: Epoch) {
        if self.phase != Phase::Discovery || epoch != self.accepted_epoch {
            return;
        }
        // The history was durable before this peer was built, so the current epoch may
        // follow at once: history, then current epoch, then the acknowledgement.
        assert_eq!(
            self.durable, self.proposed,
            "the history is durable before NewLeader"
        );
        self.phase = Phase::Synchronization;
        self.current_epoch = epoch;
        self.ready.current_epoch = Some(epoch);
    }

    /// The current epoch given out in a [`Ready`] is durable: that is this server's
    /// acknowledgement of NewLeader, and with a quorum of those the whole initial history is
    /// committed.
    pub fn on_current_epoch_persisted(&mut self, epoch: Epoch) {
        if self.phase != Phase::Synchronization || epoch != self.current_epoch {
            return;
        }
        self.quorum.ack(self.id, self.durable);
        if self.quorum.acked_by_majority() < self.durable {
            return;
        }
        self.phase = Phase::Leading;
        self.committed = self.durable;
        self.proposed = Zxid::new(epoch, 0);
        self.ready.established = Some(epoch);
    }

    /// Proposes `payload`; its place in the order is returned at once, its commit arrives in
    /// a later [`Ready::deliver`].
    ///
    /// # Errors
    /// See [`ProposeError`]; nothing was proposed then.
    pub fn propose(&mut self, payload: Arc<[u8]>) -> Result<Zxid, ProposeError> {
        if self.phase != Phase::Leading {
            return Err(ProposeError::NotLeading);
        }
        if self.in_flight.len() >= self.in_flight_max {
            return Err(ProposeError::Full);
        }
        let zxid = self.proposed.next();
        debug_assert!(
            zxid.epoch == self.current_epoch,
            "a leader proposes in its own epoch"
        );
        self.in_flight.push_back(Entry { zxid, payload });
        self.proposed = zxid;
        Ok(zxid)
    }

    /// Everything up to and including `zxid` is durable in the log. The leader's own
    /// acknowledgement counts from here, not from the append.
    ///
    /// # Panics
    /// If `zxid` was never handed out to the log: the log and the peer disagree.
    pub fn on_log_persisted(&mut self, zxid: Zxid) {
        if self.phase != Phase::Leading || zxid <= self.durable {
            return;
        }
        let handed_out = self
            .logging
            .checked_sub(1)
            .map(|last| self.in_flight[last].zxid);
        assert!(
            Some(zxid) <= handed_out,
            "{zxid} durable, {handed_out:?} handed out"
        );
        self.durable = zxid;
        self.quorum.ack(self.id, zxid);
        self.commit_acked();
    }

    /// A write or a sync failed. The bytes may or may not be on disk, and asking again would
    /// prove nothing, so this server withdraws for good.
    pub fn on_write_failed(&mut self) {
        self.phase = Phase::Fenced;
        self.ready = Ready::default();
    }

    /// Moves what has come up since the last call into `ready`, whose old contents are
    /// dropped while its memory is used again.
    pub fn ready(&mut self, ready: &mut Ready) {
        ready.clear();
        std::mem::swap(ready, &mut self.ready);
        if self.phase == Phase::Leading {
            ready
                .append
                .extend(self.in_flight.range(self.logging..).cloned());
            self.logging = self.in_flight.len();
        }
    }

    /// Where this peer stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The epoch whose history this server holds.
    #[must_use]
    pub fn current_epoch(&self) -> Epoch {
        self.current_epoch
    }

    /// The newest committed transaction.
    #[must_use]
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// The newest transaction this server has proposed, or found in its log.
    #[must_use]
    pub fn last_proposed(&self) -> Zxid {
        // The counter 0 stands for the beginning of an epoch, before its first transaction.
        if self.proposed.counter == 0 {
            self.committed
        } else {
            self.proposed
        }
    }

    /// How many proposals are neither committed nor abandoned.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Commits, in order, what a quorum has acknowledged.
    fn commit_acked(&mut self) {
        let acked = self.quorum.acked_by_majority();
        while self
            .in_flight
            .front()
            .is_some_and(|entry| entry.zxid <= acked)
        {
            assert!(
                self.logging > 0,
                "an entry is committed before it was handed to the log"
            );
            let Some(entry) = self.in_flight.pop_front() else {
                break;
            };
            debug_assert!(entry.zxid.follows(self.committed), "commits leave no gap");
            self.logging -= 1;
            self.committed = entry.zxid;
            self.ready.deliver.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(accepted: u64, current: u64, last: Zxid) -> Peer {
        let boot = Boot {
            id: ServerId(1),
            accepted_epoch: Epoch(accepted),
            current_epoch: Epoch(current),
            last_logged: last,
            in_flight_max: 4,
        };
        Peer::new(boot, &[ServerId(1)])
    }

    fn take(peer: &mut Peer) -> Ready {
        let mut ready = Ready::default();
        peer.ready(&mut ready);
        ready
    }

    fn leading() -> Peer {
        let mut peer = booted(0, 0, Zxid::ZERO);
        peer.start();
        peer.on_accepted_epoch_persisted(Epoch(1));
        peer.on_current_epoch_persisted(Epoch(1));
        assert_eq!(take(&mut peer).established, Some(Epoch(1)));
        peer
    }

    fn payload(text: &str) -> Arc<[u8]> {
        Arc::from(text.as_bytes())
    }

    fn zxid(counter: u64) -> Zxid {
        Zxid::new(Epoch(1), counter)
    }

    #[test]
    fn each_epoch_is_durable_before_the_next_step_is_taken() {
        let last = Zxid::new(Epoch(4), 17);
        let mut peer = booted(6, 4, last);
        assert!(take(&mut peer).is_empty());
        peer.start();
        let ready = take(&mut peer);
        assert_eq!(
            (ready.accepted_epoch, ready.current_epoch),
            (Some(Epoch(7)), None)
        );
        assert_eq!(
            peer.propose(payload("early")),
            Err(ProposeError::NotLeading)
        );
        peer.on_accepted_epoch_persisted(Epoch(6));
        assert!(
            take(&mut peer).is_empty(),
            "an older write says nothing about this one"
        );
        peer.on_accepted_epoch_persisted(Epoch(7));
        let ready = take(&mut peer);
        assert_eq!(
            (ready.current_epoch, ready.established),
            (Some(Epoch(7)), None)
        );
        assert_eq!(
            peer.propose(payload("early")),
            Err(ProposeError::NotLeading)
        );
        assert_eq!(peer.committed(), Zxid::ZERO, "history is not committed yet");
        peer.on_current_epoch_persisted(Epoch(7));
        assert_eq!(take(&mut peer).established, Some(Epoch(7)));
        assert_eq!(peer.committed(), last, "the whole initial history");
        assert_eq!(peer.propose(payload("a")), Ok(Zxid::new(Epoch(7), 1)));
    }

    #[test]
    fn nothing_is_committed_before_it_is_durable() {
        let mut peer = leading();
        peer.propose(payload("a")).unwrap();
        peer.propose(payload("b")).unwrap();
        let ready = take(&mut peer);
        assert_eq!(ready.append.len(), 2);
        assert!(ready.deliver.is_empty());
        peer.on_log_persisted(zxid(1));
        let ready = take(&mut peer);
        assert!(
            ready.append.is_empty(),
            "an entry is handed to the log once"
        );
        assert_eq!(
            ready.deliver,
            [Entry {
                zxid: zxid(1),
                payload: payload("a")
            }]
        );
        assert_eq!(peer.committed(), zxid(1));
        peer.on_log_persisted(zxid(2));
        assert_eq!(take(&mut peer).deliver.len(), 1);
        assert_eq!(peer.in_flight(), 0);
    }

    #[test]
    fn a_ready_used_again_brings_nothing_back() {
        let mut peer = booted(0, 0, Zxid::ZERO);
        let mut ready = Ready::default();
        peer.start();
        peer.ready(&mut ready);
        assert!(!ready.is_empty());
        peer.ready(&mut ready);
        assert!(ready.is_empty());
        peer.on_accepted_epoch_persisted(Epoch(1));
        peer.ready(&mut ready);
        assert_eq!(
            (ready.accepted_epoch, ready.current_epoch),
            (None, Some(Epoch(1)))
        );
    }

    #[test]
    fn entries_proposed_while_a_sync_is_under_way_go_to_the_next() {
        let mut peer = leading();
        peer.propose(payload("a")).unwrap();
        assert_eq!(take(&mut peer).append.len(), 1);
        peer.propose(payload("b")).unwrap();
        peer.on_log_persisted(zxid(1));
        let ready = take(&mut peer);
        assert_eq!(ready.append[0].zxid, zxid(2));
        assert_eq!(ready.deliver[0].zxid, zxid(1));
    }

    #[test]
    #[should_panic(expected = "durable")]
    fn a_sync_of_what_was_never_handed_out_is_a_bug() {
        let mut peer = leading();
        peer.propose(payload("a")).unwrap();
        peer.on_log_persisted(zxid(1));
    }

    #[test]
    fn proposals_in_flight_are_bounded() {
        let mut peer = leading();
        for _ in 0..4 {
            peer.propose(payload("x")).unwrap();
        }
        assert_eq!(peer.propose(payload("y")), Err(ProposeError::Full));
        take(&mut peer);
        peer.on_log_persisted(zxid(1));
        assert_eq!(peer.propose(payload("y")), Ok(zxid(5)));
    }

    #[test]
    fn a_failed_write_silences_the_peer_for_good() {
        let mut peer = leading();
        peer.propose(payload("a")).unwrap();
        take(&mut peer);
        peer.on_write_failed();
        peer.on_log_persisted(zxid(1));
        assert!(take(&mut peer).is_empty());
        assert_eq!(peer.phase(), Phase::Fenced);
        assert_eq!(peer.propose(payload("b")), Err(ProposeError::NotLeading));
        assert_eq!(peer.committed(), Zxid::ZERO);
    }

    #[test]
    #[should_panic(expected = "Z12")]
    fn a_disk_whose_epochs_go_back_is_refused() {
        let _ = booted(3, 4, Zxid::ZERO);
    }

    #[test]
    #[should_panic(expected = "Z12")]
    fn a_log_newer_than_the_current_epoch_is_refused() {
        let _ = booted(4, 3, Zxid::new(Epoch(4), 1));
    }
}
