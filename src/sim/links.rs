//! What passes between a leader and its learners: whether the peers keep their maxima there.
//!
//! The invariants Z1 to Z15 say what is safe. These rules say what is bounded:
//!
//! - behind `NewLeader`, a voter is sent no more proposals than it may leave unacknowledged: the
//!   rest waits at the leader, in its bounded window;
//! - a follower that leaves proposals unacknowledged for longer than the sync limit is let go,
//!   however well it answers pings;
//! - a learner whose synchronization stands still for longer than the init limit is let go;
//! - no two runs of a server introduce themselves by the same number: nobody could tell a message
//!   of the earlier run from one of the later (Z15).
//!
//! Acknowledgements count from when they are said, before the leader hears them, so that a leader
//! that keeps the rules is never taken for one that does not.

use std::collections::{BTreeMap, VecDeque};

use crate::types::{ServerId, Zxid};
use crate::zab::{Body, Message, Tenure};

/// What holds for all links of a world.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Proposals that a learner may leave unacknowledged.
    pub unacknowledged_max: u64,
    /// How long it may do so, µs, with all that clocks and timers add.
    pub sync_limit_us: u64,
    /// How long its synchronization may stand still, µs, likewise.
    pub init_limit_us: u64,
}

/// Every link there is.
#[derive(Debug)]
pub struct Links {
    rules: Rules,
    /// By leader and learner.
    links: BTreeMap<(ServerId, ServerId), Link>,
    /// The run in which each number was said first, by server and number.
    numbers: BTreeMap<(ServerId, u64), u32>,
}

/// What one leader and one learner have said in their present tenure.
#[derive(Debug, Default)]
struct Link {
    tenure: Tenure,
    /// Where the history ended, once the leader has said so.
    new_leader: Option<Zxid>,
    /// The newest proposal sent.
    sent: Zxid,
    /// The newest transaction acknowledged, `NewLeader` included.
    acked: Zxid,
    /// True from when the learner has acknowledged the history.
    synced: bool,
    /// When the leader sent something of its history last, if it has begun to.
    fed_us: Option<u64>,
    up_to_date: bool,
    /// What was sent and not acknowledged at earlier pings, and when that was.
    marks: VecDeque<(Zxid, u64)>,
}

/// Somebody who says something.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// Its name.
    pub id: ServerId,
    /// Which of its runs this is.
    pub run: u32,
    /// When it was last not there to keep a rule, µs.
    pub absent_us: u64,
}

impl Links {
    /// No link has been used yet.
    #[must_use]
    pub fn new(rules: Rules) -> Links {
        Links {
            rules,
            links: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// Somebody says something.
    ///
    /// # Errors
    /// A sentence, if that breaks a rule.
    pub fn said(
        &mut self,
        now_us: u64,
        by: Speaker,
        to: ServerId,
        message: &Message,
    ) -> Result<(), String> {
        let Message::Link { tenure, seq, body } = message else {
            return Ok(());
        };
        if let Body::FollowerInfo { .. } = body {
            return self.introduced(by, *tenure);
        }
        if matches!(body, Body::Ack { .. } | Body::AckNewLeader { .. }) {
            self.answered(by.id, to, *tenure, body);
            return Ok(());
        }
        let rules = self.rules;
        let link = self.links.entry((by.id, to)).or_default();
        // An introduction that comes twice may begin the same tenure with the same server, which
        // has led another epoch meanwhile.
        if link.tenure != *tenure || *seq == 0 {
            *link = Link {
                tenure: *tenure,
                ..Link::default()
            };
        }
        match body {
            Body::Diff { .. } | Body::Trunc { .. } | Body::Snap { .. } | Body::SnapPiece { .. } => {
                link.fed_us = Some(now_us);
            }
            Body::NewLeader { upto, .. } => {
                link.fed_us = Some(now_us);
                link.new_leader = Some(*upto);
                link.sent = *upto;
                link.acked = *upto;
            }
            Body::Proposal(entry) => {
                link.fed_us = Some(now_us);
                link.sent = entry.zxid;
                return link.check_room(&rules, by.id, to);
            }
            Body::UpToDate { .. } => {
                link.up_to_date = true;
                link.mark(now_us);
            }
            Body::Ping { .. } => return link.pinged(now_us, &rules, by, to),
            _ => {}
        }
        Ok(())
    }

    fn introduced(&mut self, by: Speaker, tenure: Tenure) -> Result<(), String> {
        let first = *self.numbers.entry((by.id, tenure.boot)).or_insert(by.run);
        if first == by.run {
            return Ok(());
        }
        let (id, run, number) = (by.id, by.run, tenure.boot);
        Err(format!(
            "server {id} introduces itself in run {run} by the number {number} of its run {first}"
        ))
    }

    fn answered(&mut self, learner: ServerId, leader: ServerId, tenure: Tenure, body: &Body) {
        let link = self.links.get_mut(&(leader, learner));
        let Some(link) = link.filter(|link| link.tenure == tenure) else {
            return;
        };
        match body {
            Body::Ack { zxid } => link.acked = link.acked.max(*zxid),
            _ => link.synced = true,
        }
        let acked = link.acked;
        while link.marks.front().is_some_and(|(mark, _)| *mark <= acked) {
            link.marks.pop_front();
        }
    }
}

impl Link {
    fn check_room(&self, rules: &Rules, leader: ServerId, learner: ServerId) -> Result<(), String> {
        if self.new_leader.is_none() {
            return Ok(()); // All of it is history, which has no such bound.
        }
        let sent = self.sent;
        let acked = if self.acked.epoch == sent.epoch {
            self.acked.counter
        } else {
            0
        };
        let max = rules.unacknowledged_max;
        if sent.counter <= acked.saturating_add(max) {
            return Ok(());
        }
        Err(format!(
            "leader {leader} sends {sent} to {learner}, which has acknowledged {acked} and may \
             leave {max} open"
        ))
    }

    fn mark(&mut self, now_us: u64) {
        let newer = self.marks.back().is_none_or(|(mark, _)| *mark < self.sent);
        if self.up_to_date && self.sent > self.acked && newer {
            self.marks.push_back((self.sent, now_us));
        }
    }

    fn pinged(
        &mut self,
        now_us: u64,
        rules: &Rules,
        by: Speaker,
        learner: ServerId,
    ) -> Result<(), String> {
        let for_us = |since: u64| now_us.saturating_sub(since.max(by.absent_us));
        let leader = by.id;
        if let Some((mark, since)) = self.marks.front()
            && for_us(*since) > rules.sync_limit_us
        {
            let ms = for_us(*since) / 1_000;
            return Err(format!(
                "leader {leader} keeps {learner}, which has not acknowledged {mark} for {ms} ms"
            ));
        }
        if let Some(since) = self.fed_us.filter(|_| !self.synced)
            && for_us(since) > rules.init_limit_us
        {
            let ms = for_us(since) / 1_000;
            return Err(format!(
                "leader {leader} keeps {learner}, whose synchronization stands still for {ms} ms"
            ));
        }
        self.mark(now_us);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;
    use crate::zab::Entry;

    const LEADER: ServerId = ServerId(1);
    const LEARNER: ServerId = ServerId(2);

    fn at(counter: u64) -> Zxid {
        Zxid::new(Epoch(3), counter)
    }

    fn speaker(id: ServerId, run: u32) -> Speaker {
        Speaker {
            id,
            run,
            absent_us: 0,
        }
    }

    fn links() -> Links {
        Links::new(Rules {
            unacknowledged_max: 2,
            sync_limit_us: 100,
            init_limit_us: 1_000,
        })
    }

    fn message(boot: u64, body: Body) -> Message {
        Message::Link {
            tenure: Tenure { boot, attempt: 1 },
            seq: 1,
            body,
        }
    }

    fn leads(links: &mut Links, now_us: u64, body: Body) -> Result<(), String> {
        links.said(now_us, speaker(LEADER, 1), LEARNER, &message(9, body))
    }

    fn follows(links: &mut Links, now_us: u64, body: Body) {
        let said = links.said(now_us, speaker(LEARNER, 1), LEADER, &message(9, body));
        said.unwrap();
    }

    fn proposal(counter: u64) -> Body {
        Body::Proposal(Entry {
            zxid: at(counter),
            payload: [].into(),
        })
    }

    fn new_leader(upto: u64) -> Body {
        Body::NewLeader {
            epoch: Epoch(3),
            upto: at(upto),
        }
    }

    /// A learner that has been brought to `upto`.
    fn joined(upto: u64) -> Links {
        let mut links = links();
        leads(&mut links, 0, new_leader(upto)).unwrap();
        follows(&mut links, 0, Body::AckNewLeader { epoch: Epoch(3) });
        let committed = at(upto);
        leads(&mut links, 0, Body::UpToDate { committed }).unwrap();
        links
    }

    #[test]
    fn a_learner_is_sent_no_more_than_it_may_leave_open() {
        let mut links = joined(10);
        leads(&mut links, 0, proposal(11)).unwrap();
        leads(&mut links, 0, proposal(12)).unwrap();
        let refused = leads(&mut links, 0, proposal(13)).unwrap_err();
        assert!(refused.contains("may leave 2 open"), "{refused}");
        follows(&mut links, 0, Body::Ack { zxid: at(11) });
        leads(&mut links, 0, proposal(13)).unwrap();
    }

    #[test]
    fn history_has_no_such_bound() {
        let mut links = links();
        for counter in 1..50 {
            leads(&mut links, 0, proposal(counter)).unwrap();
        }
    }

    #[test]
    fn a_follower_that_acknowledges_nothing_is_not_kept() {
        let mut links = joined(10);
        leads(&mut links, 0, proposal(11)).unwrap();
        leads(&mut links, 20, Body::Ping { round: 1 }).unwrap();
        leads(&mut links, 120, Body::Ping { round: 2 }).unwrap();
        let mut acknowledged = joined(10);
        leads(&mut acknowledged, 0, proposal(11)).unwrap();
        leads(&mut acknowledged, 20, Body::Ping { round: 1 }).unwrap();
        follows(&mut acknowledged, 30, Body::Ack { zxid: at(11) });
        leads(&mut acknowledged, 121, Body::Ping { round: 3 }).unwrap();
        let refused = leads(&mut links, 121, Body::Ping { round: 3 }).unwrap_err();
        assert!(refused.contains("not acknowledged"), "{refused}");
    }

    #[test]
    fn another_reign_in_the_same_tenure_begins_anew() {
        let mut links = joined(10);
        leads(&mut links, 0, proposal(11)).unwrap();
        leads(&mut links, 20, Body::Ping { round: 1 }).unwrap();
        let first = Message::Link {
            tenure: Tenure {
                boot: 9,
                attempt: 1,
            },
            seq: 0,
            body: Body::Ping { round: 0 },
        };
        let said = links.said(500, speaker(LEADER, 1), LEARNER, &first);
        said.unwrap();
        leads(&mut links, 501, Body::Ping { round: 1 }).unwrap();
    }

    #[test]
    fn a_leader_that_was_not_there_has_its_time_all_the_same() {
        let mut links = joined(10);
        leads(&mut links, 0, proposal(11)).unwrap();
        leads(&mut links, 20, Body::Ping { round: 1 }).unwrap();
        let resumed = Speaker {
            absent_us: 500,
            ..speaker(LEADER, 1)
        };
        let ping = message(9, Body::Ping { round: 2 });
        links.said(600, resumed, LEARNER, &ping).unwrap();
        assert!(links.said(601, resumed, LEARNER, &ping).is_err());
    }

    #[test]
    fn a_synchronization_that_stands_still_is_ended() {
        let mut links = links();
        leads(&mut links, 0, Body::Ping { round: 1 }).unwrap();
        leads(&mut links, 5_000, Body::Ping { round: 2 }).unwrap();
        leads(&mut links, 5_000, Body::Diff { after: at(1) }).unwrap();
        leads(&mut links, 5_900, proposal(2)).unwrap();
        leads(&mut links, 6_900, Body::Ping { round: 3 }).unwrap();
        let refused = leads(&mut links, 6_901, Body::Ping { round: 4 }).unwrap_err();
        assert!(refused.contains("stands still"), "{refused}");
        follows(&mut links, 6_901, Body::AckNewLeader { epoch: Epoch(3) });
        leads(&mut links, 9_000, Body::Ping { round: 5 }).unwrap();
    }

    #[test]
    fn two_runs_of_a_server_have_numbers_of_their_own() {
        let info = |boot| {
            let body = Body::FollowerInfo {
                accepted_epoch: Epoch(1),
                holds_data: true,
                ensemble: 1,
            };
            message(boot, body)
        };
        let mut links = links();
        for (run, boot) in [(1, 7), (1, 7), (2, 8)] {
            let said = links.said(0, speaker(LEARNER, run), LEADER, &info(boot));
            said.unwrap();
        }
        // Another server may draw the same.
        let said = links.said(0, speaker(LEADER, 5), LEARNER, &info(7));
        said.unwrap();
        let again = links.said(0, speaker(LEARNER, 3), LEADER, &info(8));
        assert!(again.unwrap_err().contains("of its run 2"));
    }
}
