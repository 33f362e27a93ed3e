//! 51, 54, 55, 57: what clients may do, and how many they may be.

use super::script::{Member, Script, Told, ensure, ensure_status, still};
use super::{Faults, Guard, Story};
use crate::sim::fleet::http::Ask;
use crate::types::GroupVersion;
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
