//! Phase 2: bringing a quorum to the leader's history before anything new is proposed.
//!
//! ```text
//! leader                                     follower
//!   Diff(after) │ Trunc(to) │ Snap(zxid) ──▶
//!   SnapPiece … ───────────────────────────▶ replaces its history when it is whole
//!   Proposal … ────────────────────────────▶ appends to the log
//!   NewLeader(epoch) ──────────────────────▶ history durable, then current epoch durable
//!   from a quorum, itself included ◀──────── AckNewLeader(epoch)
//!   all of that history is committed
//!   UpToDate(committed) ───────────────────▶ serves
//! ```
//!
//! **Diff** if the learner's history is a beginning of the leader's; **Trunc** if it goes on
//! differently after a last common transaction; **Snap** if the leader's log no longer reaches
//! back to that. What a learner loses in either of the last two was never committed, or is in
//! what replaces it.
//!
//! Live proposals follow behind NewLeader under the same cursor ([`super::leader::Feed`]).

use std::sync::Arc;

use super::core::Core;
use super::discovery::last_of;
use super::follower::{Follower, Step};
use super::leader::{Feed, Leader, Learner, Stage};
use super::message::{Body, Summary, Tenure};
use super::plant::Plant;
use super::ready::{Fault, Piece, Read, ReadWhat, Standing, Write};
use super::{Next, Why};
use crate::types::{Epoch, ServerId, Zxid};

/// How a learner is brought to the leader's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It lacks only what comes after its last transaction.
    Diff { after: Zxid },
    /// It has to give up what it has after this one.
    Trunc { to: Zxid },
    /// It needs a snapshot.
    Snap { zxid: Zxid },
    /// The leader has no snapshot that could replace so much.
    Impossible,
}

/// Compares the leader's history with a learner's.
pub(super) fn plan(core: &Core, theirs: &Summary) -> Plan {
    let plants = core.plants();
    let last = last_of(theirs);
    if let Some(common) = core.history.common_with(theirs, plants) {
        if common == last || plants.has(Plant::KeepsSuffix) {
            return Plan::Diff { after: common };
        }
        return Plan::Trunc { to: common };
    }
    // Everything up to `base` of a learner may be committed, and must not be replaced by less.
    let enough = |zxid: Zxid| zxid >= theirs.base || plants.has(Plant::SnapsBack);
    match core.snapshot {
        Some(zxid) if zxid >= core.history.base() && enough(zxid) => Plan::Snap { zxid },
        _ => Plan::Impossible,
    }
}

impl Leader {
    /// Once a quorum has promised, fixes the history to be established and begins to feed.
    pub(super) fn synchronize(&mut self, core: &mut Core) -> Next {
        if self.stage != Stage::Announced || !self.is_promised(core) {
            return Next::Stay;
        }
        self.stage = Stage::Synchronizing;
        self.initial = core.history.last();
        let ready = self
            .learners
            .iter()
            .filter(|learner| learner.history.is_some());
        let ids: Vec<ServerId> = ready.map(|learner| learner.link.peer).collect();
        for id in ids {
            if let Next::Look(why) = self.feed(core, id) {
                return Next::Look(why);
            }
        }
        self.take_over(core)
    }

    /// Begins to feed a learner that has told its history.
    pub(super) fn feed(&mut self, core: &mut Core, id: ServerId) -> Next {
        let established = self.stage == Stage::Established;
        let Some(learner) = self.learner_mut(id) else {
            return Next::Stay;
        };
        if !learner.votes && !established {
            // An observer is sent only what is committed, and nothing is known to be yet.
            return Next::Stay;
        }
        let Some(history) = learner.history.take() else {
            return Next::Stay;
        };
        let (body, sent, snapshot) = match plan(core, &history) {
            Plan::Diff { after } => (Body::Diff { after }, after, None),
            Plan::Trunc { to } => (Body::Trunc { to }, to, None),
            Plan::Snap { zxid } => (Body::Snap { zxid }, zxid, Some((zxid, 0))),
            Plan::Impossible => return self.let_go(core, id),
        };
        let new_leader_at = if learner.votes {
            core.history.last()
        } else {
            core.committed.max(sent)
        };
        learner.link.say(core, body);
        learner.feed = Some(Feed {
            snapshot,
            sent,
            new_leader_at,
            new_leader_sent: false,
            reading: false,
        });
        self.pump(core, id);
        Next::Stay
    }

    /// Sends a learner what it may be sent now: a snapshot, history, NewLeader, live proposals,
    /// in this order under one cursor.
    pub(super) fn pump(&mut self, core: &mut Core, id: ServerId) {
        let (epoch, established) = (self.epoch, self.stage == Stage::Established);
        let give_up_at = core.now + core.settings.timing.init_limit;
        let Some(learner) = self.learner_mut(id) else {
            return;
        };
        let Some(mut feed) = learner.feed.take() else {
            return;
        };
        let before = feed.sent;
        learner.pump(core, &mut feed, epoch, established);
        if feed.sent != before && !learner.synced {
            learner.sync_by = give_up_at;
            if !established {
                self.give_up_at = give_up_at;
            }
        }
        if let Some(learner) = self.learner_mut(id) {
            learner.feed = Some(feed);
        }
    }

    /// A piece that was asked of the own disk for a learner.
    pub(super) fn on_read(
        &mut self,
        core: &mut Core,
        id: ServerId,
        tenure: Tenure,
        piece: Piece,
    ) -> Next {
        let give_up_at = core.now + core.settings.timing.init_limit;
        let scales = !core.plants().has(Plant::ProgressIsNothing);
        let Some(learner) = self.learner_mut(id).filter(|l| l.link.tenure == tenure) else {
            return Next::Stay;
        };
        let Some(feed) = learner.feed.as_mut().filter(|feed| feed.reading) else {
            return Next::Stay;
        };
        feed.reading = false;
        match (piece, feed.snapshot) {
            (Piece::Snapshot { bytes, last }, Some((zxid, offset))) => {
                let offset = offset + bytes.len() as u64;
                feed.snapshot = (!last).then_some((zxid, offset));
                learner.link.say(core, Body::SnapPiece { bytes, last });
                if scales {
                    learner.sync_by = give_up_at;
                }
            }
            (Piece::Entries(entries), None) => {
                let inform = !learner.votes && feed.new_leader_sent;
                for entry in entries {
                    // A piece that does not continue what was sent is none of this history.
                    if !entry.zxid.follows(feed.sent) {
                        return self.let_go(core, id);
                    }
                    feed.sent = entry.zxid;
                    let body = if inform {
                        Body::Inform(entry)
                    } else {
                        Body::Proposal(entry)
                    };
                    learner.link.say(core, body);
                }
                learner.sync_by = give_up_at;
            }
            (Piece::Gone, None) => {
                let sent = feed.sent;
                core.log_is_unreadable_after(sent);
                return self.let_go(core, id);
            }
            _ => return self.let_go(core, id),
        }
        if self.stage < Stage::Established {
            self.give_up_at = give_up_at;
        }
        self.pump(core, id);
        Next::Stay
    }

    /// The leader's own part of the synchronization: history durable, then its epoch; then it
    /// counts itself.
    pub(super) fn take_over(&mut self, core: &mut Core) -> Next {
        if core.current < self.epoch && core.is_durable(self.initial) {
            core.enter(self.epoch);
        }
        self.establish(core)
    }

    pub(super) fn on_ack_new_leader(
        &mut self,
        core: &mut Core,
        from: ServerId,
        epoch: Epoch,
    ) -> Next {
        let leader_epoch = self.epoch;
        let Some(learner) = self.learner_mut(from) else {
            return Next::Stay;
        };
        let sent = learner.feed.as_ref().filter(|feed| feed.new_leader_sent);
        let Some(upto) = sent
            .map(|feed| feed.new_leader_at)
            .filter(|_| epoch == leader_epoch)
        else {
            return self.let_go(core, from);
        };
        learner.synced = true;
        learner.holds_data = true;
        learner.acked = upto;
        if self.stage == Stage::Established {
            self.bring_up_to_date(core, from);
            self.commit(core);
            return Next::Stay;
        }
        self.establish(core)
    }

    /// With a quorum at its history, all of it is committed, and the leader is established.
    fn establish(&mut self, core: &mut Core) -> Next {
        if self.stage != Stage::Synchronizing {
            return Next::Stay;
        }
        let me = core.id();
        let own = core.has_entered(self.epoch);
        let synced = |id: ServerId| self.learner(id).is_some_and(|learner| learner.synced);
        // Its own part must be durable even if the others are enough: it will count itself for
        // what it proposes, and would stand for less than that after a crash.
        let mut enough = own && core.quorum().agrees(|id| id == me || synced(id));
        if core.plants().has(Plant::EstablishedByOne) {
            enough = own || self.learners.iter().any(|learner| learner.synced);
        }
        if !enough {
            return Next::Stay;
        }
        self.stage = Stage::Established;
        core.committed = core.committed.max(self.initial);
        core.deliver();
        let ids: Vec<ServerId> = self.learners.iter().map(|l| l.link.peer).collect();
        for id in ids {
            if self.learner(id).is_some_and(|learner| learner.synced) {
                self.bring_up_to_date(core, id);
            } else if self.learner(id).is_some_and(|l| l.history.is_some())
                && let Next::Look(why) = self.feed(core, id)
            {
                return Next::Look(why);
            }
        }
        self.stand(core);
        self.ping(core);
        self.admit_waiting(core)
    }

    fn bring_up_to_date(&mut self, core: &mut Core, id: ServerId) {
        let now = core.now;
        let Some(learner) = self.learner_mut(id) else {
            return;
        };
        let Some(feed) = &learner.feed else {
            return;
        };
        let committed = core.committed.min(feed.sent);
        learner.up_to_date = true;
        learner.commit_sent = committed;
        learner.marks.clear();
        // A mark that it has passed already would never be taken away.
        if feed.sent > learner.acked {
            learner.marks.push_back((feed.sent, now));
        }
        learner.link.say(core, Body::UpToDate { committed });
        self.pump(core, id);
        self.stand(core);
    }
}

impl Learner {
    fn pump(&mut self, core: &mut Core, feed: &mut Feed, epoch: Epoch, established: bool) {
        loop {
            if feed.reading {
                return;
            }
            if let Some((zxid, offset)) = feed.snapshot {
                return self.read(
                    core,
                    feed,
                    ReadWhat::Snapshot {
                        zxid,
                        offset,
                        bytes_max: core.settings.limits.read_bytes_max,
                    },
                );
            }
            if !feed.new_leader_sent && feed.sent >= feed.new_leader_at {
                let upto = feed.new_leader_at;
                self.link.say(core, Body::NewLeader { epoch, upto });
                feed.new_leader_sent = true;
            }
            let upto = self.limit(core, feed, epoch, established);
            if feed.sent < upto {
                if feed.sent < core.history.window_after() {
                    let bytes_max = core.settings.limits.read_bytes_max;
                    let upto = upto.min(core.history.window_after());
                    let after = feed.sent;
                    let what = ReadWhat::Log {
                        after,
                        upto,
                        bytes_max,
                    };
                    return self.read(core, feed, what);
                }
                self.send(core, feed, upto);
                continue;
            }
            return self.tell_commit(core, feed);
        }
    }

    /// The last transaction this learner may be sent now.
    fn limit(&self, core: &Core, feed: &Feed, epoch: Epoch, established: bool) -> Zxid {
        if !feed.new_leader_sent {
            return feed.new_leader_at;
        }
        if !self.votes {
            return if established && self.up_to_date {
                core.committed
            } else {
                feed.sent
            };
        }
        let last = core.history.last();
        // Behind NewLeader all is of this epoch, where counters count.
        let acked = if self.acked.epoch == epoch {
            self.acked.counter
        } else {
            0
        };
        let allowed = acked.saturating_add(core.settings.limits.unacknowledged_max);
        if core.plants().has(Plant::SendsUnbounded) {
            return last;
        }
        if last.epoch == epoch && last.counter > allowed {
            return feed.sent.max(Zxid::new(epoch, allowed));
        }
        last
    }

    fn send(&mut self, core: &mut Core, feed: &mut Feed, upto: Zxid) {
        let inform = !self.votes && feed.new_leader_sent;
        let mut skip = core.plants().has(Plant::GapAtSwitch)
            && feed.new_leader_sent
            && feed.sent == feed.new_leader_at
            && feed.sent > Zxid::ZERO;
        let Some(entries) = core.history.range(feed.sent, upto) else {
            return;
        };
        for entry in entries {
            feed.sent = entry.zxid;
            let entry = entry.clone();
            if std::mem::take(&mut skip) {
                continue;
            }
            let body = if inform {
                Body::Inform(entry)
            } else {
                Body::Proposal(entry)
            };
            self.link.say_in(&mut core.ready.messages, body);
        }
    }

    /// Tells what is committed of what has been sent.
    fn tell_commit(&mut self, core: &mut Core, feed: &Feed) {
        let mut upto = core.committed.min(feed.sent);
        if core.plants().has(Plant::CommitBeyondSent) {
            upto = core.committed;
        }
        if self.up_to_date && self.votes && upto > self.commit_sent {
            self.commit_sent = upto;
            self.link.say(core, Body::Commit { upto });
        }
    }

    fn read(&self, core: &mut Core, feed: &mut Feed, what: ReadWhat) {
        feed.reading = true;
        core.ready.reads.push(Read {
            learner: self.link.peer,
            tenure: self.link.tenure,
            what,
        });
    }
}

impl Follower {
    pub(super) fn on_diff(&mut self, core: &mut Core, after: Zxid) -> Next {
        if !self.begins_plan() || after != core.history.last() {
            let keeps = core.plants().has(Plant::KeepsSuffix);
            return if keeps {
                Next::Stay
            } else {
                Next::Look(Why::Nonsense)
            };
        }
        Next::Stay
    }

    pub(super) fn on_trunc(&mut self, core: &mut Core, to: Zxid) -> Next {
        if !self.begins_plan() || !core.history.contains(to) {
            return Next::Look(Why::Nonsense);
        }
        if to < core.committed && !core.plants().has(Plant::ForgetsCommitted) {
            return self.would_lose(core, to);
        }
        core.truncate(to);
        Next::Stay
    }

    pub(super) fn on_snap(&mut self, core: &mut Core, zxid: Zxid) -> Next {
        // The log takes nothing from above the accepted epoch.
        if !self.begins_plan() || zxid.epoch > self.epoch {
            return Next::Look(Why::Nonsense);
        }
        if zxid < core.committed && !core.plants().has(Plant::ForgetsCommitted) {
            return self.would_lose(core, zxid);
        }
        self.receiving = Some(zxid);
        core.write(Write::SnapshotBegin(zxid));
        Next::Stay
    }

    pub(super) fn on_snap_piece(&mut self, core: &mut Core, bytes: Arc<[u8]>, last: bool) -> Next {
        let Some(zxid) = self.receiving else {
            return Next::Look(Why::Nonsense);
        };
        core.write(Write::SnapshotPiece(bytes));
        if last {
            self.receiving = None;
            core.install(zxid);
        }
        Next::Stay
    }

    pub(super) fn on_new_leader(&mut self, core: &mut Core, epoch: Epoch, upto: Zxid) -> Next {
        let whole = self.planned && self.receiving.is_none() && upto == core.history.last();
        let lax = core.plants().has(Plant::TakesGaps) || core.plants().has(Plant::KeepsSuffix);
        if self.step != Step::Synchronizing || epoch != self.epoch || !(whole || lax) {
            return Next::Look(Why::Nonsense);
        }
        self.step = Step::Adopting { upto };
        self.adopt(core)
    }

    /// History durable, then current epoch durable, then the acknowledgement. In any other order
    /// a crash could leave a server that has acknowledged what it does not hold, or one with
    /// a short log whose epoch wins elections (ZOOKEEPER-4643, 4785).
    pub(super) fn adopt(&mut self, core: &mut Core) -> Next {
        let plants = core.plants();
        if let Step::Adopting { upto } = self.step {
            let early =
                plants.has(Plant::HistoryNotDurable) || plants.has(Plant::EpochBeforeHistory);
            if !core.is_durable(upto) && !early {
                return Next::Stay;
            }
            if core.current < self.epoch {
                core.enter(self.epoch);
            }
            self.step = Step::Entering { upto };
        }
        if let Step::Entering { upto } = self.step {
            let late = plants.has(Plant::EpochBeforeHistory) && !core.is_durable(upto);
            let entered = core.has_entered(self.epoch) || plants.has(Plant::CurrentEpochNotDurable);
            if !entered || late {
                return Next::Stay;
            }
            self.acked = upto;
            self.step = Step::Waiting;
            self.link
                .say(core, Body::AckNewLeader { epoch: self.epoch });
            self.ack(core);
        }
        Next::Stay
    }

    pub(super) fn on_up_to_date(&mut self, core: &mut Core, committed: Zxid) -> Next {
        if self.step != Step::Waiting {
            return Next::Look(Why::Nonsense);
        }
        self.step = Step::Active;
        let next = self.commit_upto(core, committed);
        core.stand(Standing::Following {
            leader: self.leader(),
            epoch: self.epoch,
        });
        next
    }

    fn begins_plan(&mut self) -> bool {
        let begins = self.step == Step::Synchronizing && !self.planned;
        self.planned = true;
        begins
    }

    fn would_lose(&self, core: &mut Core, to: Zxid) -> Next {
        let committed = core.committed;
        core.fence(Fault::CommittedWouldBeLost { to, committed });
        Next::Stay
    }
}
