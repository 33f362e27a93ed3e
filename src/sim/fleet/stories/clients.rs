//! 51, 54, 55, 57: what clients may do, and how many they may be.

use std::ops::Range;

use super::script::{Member, Script, Told, ensure, ensure_status, still};
use super::{Faults, Guard, Story};
use crate::group::{Join, Request as Change};
use crate::sim::fleet::Profile;
use crate::sim::fleet::http::Ask;
use crate::time::Millis;
use crate::types::{GroupVersion, Incarnation, ServerId};
use crate::{replica, shard};

pub(super) const DOUBLE_JOIN: Story = Story {
    number: 51,
    name: "double-join",
    story: "A member joins at two servers at once; and joins again, at a server that lags, because \
            it has not heard the answer, or the leader is lost before there is one.",
    guards: &[
        Guard::Replica(replica::Plant::JoinsFromOwnState),
        Guard::Replica(replica::Plant::ForgetsHandedBack),
    ],
    tell: double_join,
};

fn double_join(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, one, other) = (script.leader, script.others[0], script.others[1]);
    // At once.
    let member = Member::new(0, 4_000);
    let joins = [one, other].map(|at| script.send(&member, at, member.join()));
    let mut ids = Vec::new();
    for join in joins {
        let answer = script.hear(join)?;
        ensure_status("one of two joins", &answer, &[200, 201])?;
        ensure(
            answer.version == Some(GroupVersion(0)),
            "the second join is a change",
        )?;
        ids.push(answer.session);
    }
    ensure(ids[0] == ids[1], "a member has two sessions")?;
    let old = Member {
        id: ids[0],
        ..member
    };
    // Once more, since the answer is lost, at a server that knows an older session alone.
    script.hold(leader, other);
    let answer = script.ask(&old, one, Ask::Leave)?;
    ensure_status("a leave", &answer, &[204])?;
    let unheard = script.ask(&Member::new(0, 4_000), one, old.join())?;
    let again = script.send(&Member::new(0, 4_000), other, old.join());
    script.pass(300)?;
    script.release(leader, other);
    let answer = script.hear(again)?;
    ensure_status("a second join", &answer, &[200])?;
    ensure(
        answer.session == unheard.session,
        "the second join is another session's",
    )?;
    // The leader is lost before it has decided.
    script.hold(one, leader);
    let fresh = Member::new(2, 4_000);
    let join = script.send(&fresh, one, fresh.join());
    script.pass(10)?;
    script.kill(leader, 5_000);
    let answer = script.hear(join)?;
    ensure_status("a join through an election", &answer, &[201])?;
    script.ends_well()
}

pub(super) const MOVE_STORM: Story = Story {
    number: 54,
    name: "move-storm",
    story: "The owner of 20,000 sessions is lost, and all their clients turn to two other servers: \
            they move in a few transactions, and none expires.",
    guards: &[Guard::Replica(replica::Plant::MovesOneByOne)],
    tell: move_storm,
};

fn move_storm(faults: Faults) -> Told {
    let mut script = Script::after(faults, (roomy(), 1), &[], &crowd(20_000))?;
    let owner = 0;
    let [one, other] = script.servers_but(owner);
    let before = script.committed();
    script.kill(owner, 60_000);
    script.pass(100)?;
    for round in 0..10 {
        let batches = [
            script.send_crowd(one, 0..CROWD / 2),
            script.send_crowd(other, CROWD / 2..CROWD),
        ];
        script.until(3_000, "the batches are answered", |script| {
            let most = script.committed() > before + 40;
            most || batches.iter().all(|batch| script.answer(*batch).is_some())
        })?;
        ensure(
            script.committed() <= before + 40,
            "a session is moved by itself",
        )?;
        let renewed: u32 = batches.iter().map(|batch| script.renewed(*batch)).sum();
        ensure(
            renewed == CROWD,
            &format!("{renewed} of {CROWD} beats are good in round {round}"),
        )?;
        script.pass(1_000)?;
    }
    ensure(
        script.moved() == u64::from(CROWD),
        "not all have moved, or some again",
    )?;
    ensure(
        script.fleet.stage.judge.ghost.expired == 0,
        "a session expires that beats",
    )
}

pub(super) const MASS_EXPIRY: Story = Story {
    number: 55,
    name: "mass-expiry",
    story: "20,000 sessions of one server are due in the same moment, beside one that beats: they \
            are gone soon, hundreds in a transaction, and it does not notice.",
    guards: &[Guard::Shard(shard::Plant::ExpiresOneByOne)],
    tell: mass_expiry,
};

fn mass_expiry(faults: Faults) -> Told {
    let mut script = Script::after(faults, (roomy(), 1), &[], &crowd(8_000))?;
    let owner = 0;
    let member = script.member(CROWD as usize, 4_000, owner)?;
    let before = script.committed();
    let expired = |script: &Script| script.fleet.stage.judge.ghost.expired;
    while expired(&script) == 0 {
        ensure(script.now() < 12_000_000, "nobody expires")?;
        script.beats(&member, owner, 204)?;
        script.pass(10)?;
    }
    let first = script.now();
    while expired(&script) < u64::from(CROWD) {
        ensure(
            script.now() < first + 2_000_000,
            "they take too long to expire",
        )?;
        ensure(
            script.committed() <= before + u64::from(CROWD) / 200,
            "sessions are expired in transactions of a few",
        )?;
        script.beats(&member, owner, 204)?;
        script.pass(10)?;
    }
    script.lives(&member)
}

/// A still world whose logs take large transactions.
fn roomy() -> Profile {
    Profile {
        segment_bytes: 1 << 20,
        ..still(3)
    }
}

/// A past in which many members have joined one group at the first server.
fn crowd(timeout_ms: u64) -> Vec<Change> {
    let (owner, incarnation) = (ServerId(1), Incarnation(1));
    let founded = [
        Change::Genesis {
            birth_s: 1_700_000_000,
        },
        Change::Adopt {
            server: owner,
            incarnation,
            after: None,
            limit: 1,
        },
    ];
    let joins = (0..CROWD).map(|index| {
        Change::Join(Join {
            group: b"crowd"[..].into(),
            member: format!("m{index}").into_bytes().into(),
            timeout: Some(Millis(timeout_ms)),
            config: None,
            takeover: false,
            only_if_absent: false,
            owner,
            incarnation,
        })
    });
    founded.into_iter().chain(joins).collect()
}

impl Script {
    fn servers_but(&self, but: usize) -> [usize; 2] {
        [(but + 1) % 3, (but + 2) % 3]
    }

    /// These of the crowd beat in one batch.
    fn send_crowd(&mut self, at: usize, members: Range<u32>) -> u32 {
        let body: String = members.map(|index| format!("crowd/m{index}\n")).collect();
        let length = body.len();
        let head =
            format!("POST /-/heartbeats HTTP/1.1\r\nhost: fleet\r\ncontent-length: {length}");
        let bytes = format!("{head}\r\n\r\n{body}").into_bytes();
        self.send_bytes(&Member::new(0, 0), (at, 0), Ask::Line, bytes)
    }

    /// How many beats of a batch were good.
    fn renewed(&self, batch: u32) -> u32 {
        let request = self.fleet.stage.requests.get(&batch);
        let text = request.map(|request| String::from_utf8_lossy(&request.out).into_owned());
        let text = text.unwrap_or_default();
        let (_, rest) = text.rsplit_once("\"renewed\":").unwrap_or_default();
        rest.trim_end().trim_end_matches('}').parse().unwrap_or(0)
    }
}

/// How many there are where there are many.
const CROWD: u32 = 20_000;

pub(super) const TIMEOUTS: Story = Story {
    number: 57,
    name: "timeouts",
    story: "Timeouts as short and as long as may be, between the ticks of the wheel, and changed \
            while the session lives and while an owner before still promises the longer.",
    guards: &[Guard::Shard(shard::Plant::ShortensGrace)],
    tell: timeouts,
};

fn timeouts(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let owner = script.others[0];
    for (index, timeout_ms) in [100, 101, 109, 1_234, 5_005].into_iter().enumerate() {
        let member = script.member(2 * index, timeout_ms, owner)?;
        let heard = script.now();
        let until = heard + member.timeout_us();
        // A thousandth for the clocks, a tick or two, and a commit.
        script.expires(&member, until - 1_000, until + until / 1_000 + 40_000)?;
    }
    let long = script.member(1, 86_400_000, owner)?;
    for (timeout_ms, status) in [(99, 422), (86_400_001, 422)] {
        let member = Member::new(3, timeout_ms);
        let answer = script.ask(&member, owner, member.join())?;
        ensure_status("a timeout out of its bounds", &answer, &[status])?;
    }
    script.pass(60_000)?;
    script.lives(&long)?;
    changed_while_live(&mut script, owner)?;
    script.ends_well()?;
    shortened_after_a_move(faults)
}

/// A session is given a longer timeout, and a shorter one; each counts from then.
fn changed_while_live(script: &mut Script, owner: usize) -> Told {
    let mut member = script.member(5, 1_000, owner)?;
    member.timeout_ms = 3_000;
    script.join(&mut member, owner)?;
    script.pass(2_500)?;
    script.beats(&member, owner, 204)?;
    script.pass(2_500)?;
    script.lives(&member)?;
    Ok(())
}

/// The session has moved away from an owner that has lost everybody and promises on; at its new
/// owner the client asks for a shorter timeout.
fn shortened_after_a_move(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let [owner, other] = [script.others[0], script.others[1]];
    let mut member = script.member(0, 4_000, owner)?;
    script.keep(&[(&member, owner)], 200, 1_000)?;
    script.part(&[owner]);
    script.breaks_for(other, owner);
    script.pass(10)?;
    script.beats(&member, other, 204)?;
    member.timeout_ms = 500;
    script.join(&mut member, other)?;
    script.keep(&[(&member, owner)], 20, 3_500)?;
    script.pass(6_000)?;
    ensure(
        script.end_of(&member).is_some(),
        "nobody beats, and it lives",
    )?;
    script.ends_well()
}
