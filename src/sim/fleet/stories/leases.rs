//! 38–45: who may promise, and for how long, while owners and leaders lose each other.

use super::script::{
    LOOK_US, Member, Script, Told, all_promised, ensure, last_promise, refused_from_then_on, still,
};
use super::{Faults, Guard, Neglect, Story};
use crate::lease::{Plant, orphan_wait};
use crate::sim::fleet::Profile;
use crate::sim::fleet::http::Ask;
use crate::time::Millis;
use crate::{replica, shard};

pub(super) const CUT_OWNER: Story = Story {
    number: 38,
    name: "cut-owner",
    story: "A follower is cut off from the leader and not from its client: it ceases to promise \
            before the leader may expire its session.",
    guards: &[
        Guard::Lease(Plant::OrphansWithoutLease),
        Guard::Shard(shard::Plant::BeatsWhileLapsed),
    ],
    tell: cut_owner,
};

fn cut_owner(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let owner = script.others[0];
    let member = script.member(0, 4_000, owner)?;
    script.keep(&[(&member, owner)], 200, 2_000)?;
    script.part(&[owner]);
    let cut = script.now();
    stops_promising(&mut script, &member, owner, cut)?;
    script.ends_well()
}

/// Since `cut`, `owner` reaches no leader. It must refuse its member in time, and the leader must
/// expire that when it is due, and not before.
fn stops_promising(script: &mut Script, member: &Member, owner: usize, cut: u64) -> Told {
    let wait_us = orphan_wait(Millis(member.timeout_ms), LEASE).0 * 1_000;
    let beats = script.keep(&[(member, owner)], 25, LEASE.0 + 1_000)?;
    refused_from_then_on(&beats, 0)?;
    let last = last_promise(&beats, 0).ok_or("nothing is promised at all")?;
    ensure(
        last > cut + 2_500_000,
        "the lease ends long before its time",
    )?;
    // Elections may come before the leader that expires it begins to count.
    let latest = cut + wait_us + ELECTION_US + LOOK_US;
    script.expires(member, last + member.timeout_us(), latest)?;
    let after = script.keep(&[(member, owner)], 100, 1_000)?;
    ensure(
        last_promise(&after, 0).is_none(),
        "the dead are promised something",
    )
}

pub(super) const LAPSED_OWNER: Story = Story {
    number: 38,
    name: "lapsed-owner",
    story: "An owner is cut off from the leader, and its client beats at a third server, which \
            reaches both: the session moves there and lives.",
    guards: &[Guard::Replica(replica::Plant::LeavesLapsed)],
    tell: lapsed_owner,
};

fn lapsed_owner(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, owner, third) = (script.leader, script.others[0], script.others[1]);
    let member = script.member(0, 4_000, owner)?;
    script.keep(&[(&member, owner)], 200, 2_000)?;
    script.hold(leader, owner);
    script.hold(owner, leader);
    script.keep(&[(&member, owner)], 200, 3_200)?;
    let beats = script.keep(&[(&member, third)], 200, 12_000)?;
    script.lives(&member)?;
    ensure(
        script.owner(&member) == Some(third),
        "it has not moved to where it beats",
    )?;
    let refused = beats.iter().filter(|beat| beat.status != Some(204));
    ensure(
        refused.count() <= 5,
        "the client is refused for longer than a move takes",
    )?;
    script.ends_well()
}

pub(super) const LATE_GRANT: Story = Story {
    number: 38,
    name: "late-grant",
    story: "A grant comes to an owner when that has sent further renewals, which never reach the \
            leader.",
    guards: &[Guard::Lease(Plant::CountsFromNewest)],
    tell: late_grant,
};

fn late_grant(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, owner) = (script.leader, script.others[0]);
    let member = script.member(0, 4_000, owner)?;
    script.keep(&[(&member, owner)], 200, 2_000)?;
    script.hold(leader, owner);
    script.pass(300)?;
    script.hold(owner, leader);
    let third = script.others[1];
    script.hold(owner, third);
    script.hold(third, owner);
    script.pass(450)?;
    script.release(leader, owner);
    script.pass(10)?;
    script.hold(leader, owner);
    let beats = script.keep(&[(&member, owner)], 25, 4_000)?;
    refused_from_then_on(&beats, 0)?;
    script.pass(8_000)?;
    ensure(
        script.end_of(&member).is_some(),
        "an orphan does not expire",
    )?;
    script.ends_well()
}

pub(super) const DEPOSED_GRANTOR: Story = Story {
    number: 39,
    name: "deposed-grantor",
    story: "An owner reaches the leader, which does not know yet that three others of the five \
            have elected another.",
    guards: &[
        Guard::Lease(Plant::GrantWithoutRound),
        Guard::Lease(Plant::GrantByEarlierRound),
        Guard::Lease(Plant::ForgetsEstablishment),
    ],
    tell: deposed_grantor,
};

fn deposed_grantor(faults: Faults) -> Told {
    let mut script = Script::new(faults, patient(5), 1, &[])?;
    let owner = script.others[0];
    let member = script.member(0, 4_000, owner)?;
    script.keep(&[(&member, owner)], 200, 2_000)?;
    let minority = [script.leader, owner];
    let cut = depose(&mut script, &minority)?;
    stops_promising(&mut script, &member, owner, cut)?;
    script.ends_well()
}

/// A world in which a leader that hears nobody goes on for longer than an election takes.
fn patient(servers: usize) -> Profile {
    let mut profile = still(servers);
    profile.timing.sync_limit = Millis(2_000);
    profile
}

/// All but `minority`, in which the leader is, elect another, while answers to the leader's last
/// round of pings are still on their way to it.
fn depose(script: &mut Script, minority: &[usize]) -> Result<u64, String> {
    let old = script.leader;
    let count = script.fleet.machines.len();
    let rest: Vec<usize> = (0..count).filter(|at| !minority.contains(at)).collect();
    script.fleet.stage.net.weather.late = 1_000_000;
    for &other in &rest {
        script.hold(other, old);
    }
    let held = script.now();
    // Each owner asks for a lease meanwhile, and a round of pings goes out for it.
    script.pass(460)?;
    for &other in &rest {
        for &at in minority {
            script.breaks_for(other, at);
        }
    }
    script.until(600, "the majority has a leader", |script| {
        script.leads_but(old).is_some()
    })?;
    // As late as may be: the old leader's patience is not at its end yet.
    script.pass_us(held + 1_800_000 - script.now())?;
    ensure(
        script.fleet.machines[old].leads(),
        "the old leader has given up",
    )?;
    for &other in &rest {
        script.release(other, old);
    }
    script.pass(5)?;
    script.fleet.stage.net.weather.late = 0;
    Ok(held)
}

pub(super) const CUT_LEADER: Story = Story {
    number: 40,
    name: "cut-leader",
    story: "The leader is cut off together with its own clients; one of them turns to another \
            server in time.",
    guards: &[
        Guard::Lease(Plant::GrantWithoutRound),
        Guard::Lease(Plant::GrantByEarlierRound),
        Guard::Lease(Plant::ForgetsEstablishment),
    ],
    tell: cut_leader,
};

fn cut_leader(faults: Faults) -> Told {
    let mut script = Script::new(faults, patient(3), 1, &[])?;
    let (leader, other) = (script.leader, script.others[0]);
    let stays = script.member(0, 4_000, leader)?;
    let hops = script.member(1, 4_000, leader)?;
    let both = [(&stays, leader), (&hops, leader)];
    script.keep(&both, 200, 2_000)?;
    depose(&mut script, &[leader])?;
    let beats = script.keep(&both, 25, LEASE.0 + 1_000)?;
    refused_from_then_on(&beats, 0)?;
    let last = last_promise(&beats, 0).ok_or("nothing is promised at all")?;
    script.beats(&hops, other, 204)?;
    ensure(
        script.owner(&hops) == Some(other),
        "the session stays at the lost leader",
    )?;
    let mut at = last;
    while script.end_of(&stays).is_none() && at < last + 6_000_000 {
        script.beats(&hops, other, 204)?;
        script.pass(200)?;
        at = script.now();
    }
    script.expires(&stays, last + stays.timeout_us(), last + 6_000_000)?;
    script.lives(&hops)?;
    script.ends_well()
}

pub(super) const SHORT_ELECTION: Story = Story {
    number: 41,
    name: "short-election",
    story: "The leader is lost, and another is there before any lease has run out: no beat fails.",
    guards: &[Guard::Lease(Plant::ForgetsEstablishment)],
    tell: short_election,
};

fn short_election(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let [one, other] = [script.others[0], script.others[1]];
    let members = [
        script.member(0, 4_000, one)?,
        script.member(1, 1_000, other)?,
    ];
    script.kill(script.leader, 60_000);
    let beats = script.keep(&[(&members[0], one), (&members[1], other)], 100, 5_000)?;
    all_promised(&beats, 0)?;
    all_promised(&beats, 1)?;
    script.ends_well()
}

pub(super) const LONG_ELECTION: Story = Story {
    number: 41,
    name: "long-election",
    story: "There is no leader for longer than a lease lasts: who beats all along lives on, and \
            who is silent is given exactly the time in which nothing could be promised.",
    guards: &[
        Guard::Lease(Plant::ForgetsEstablishment),
        Guard::Shard(shard::Plant::CountsLapses),
    ],
    tell: long_election,
};

fn long_election(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let [one, other] = [script.others[0], script.others[1]];
    let beating = script.member(0, 4_000, one)?;
    let silent = script.member(1, 8_000, one)?;
    script.keep(&[(&beating, one)], 100, 1_000)?;
    script.beats(&silent, one, 204)?;
    let heard = script.now();
    script.kill(script.leader, 60_000);
    script.part(&[one]);
    let mut beats = script.keep(&[(&beating, one)], 50, 7_000)?;
    script.open_all();
    script.connect_all();
    ensure(other != one, "there are two others")?;
    beats.extend(script.keep(&[(&beating, one)], 50, 4_000)?);
    let refused: Vec<u64> = beats
        .iter()
        .filter(|beat| beat.status != Some(204))
        .map(|beat| beat.sent_us)
        .collect();
    let (Some(first), Some(last)) = (refused.first(), refused.last()) else {
        return Err("no lease runs out".to_owned());
    };
    ensure(
        beats.last().is_some_and(|beat| beat.status == Some(204)),
        "no lease comes back",
    )?;
    script.lives(&beating)?;
    let lapsed = last - first;
    let due = heard + silent.timeout_us() + lapsed;
    let from = due - 100_000;
    while script.now() < due + 200_000 && script.end_of(&silent).is_none() {
        script.keep(&[(&beating, one)], 50, 50)?;
    }
    script.expires(&silent, from, due + 200_000)?;
    script.lives(&beating)?;
    script.ends_well()
}

pub(super) const PAUSED_LEADER: Story = Story {
    number: 42,
    name: "paused-leader",
    story: "The leader is not run for seven seconds, while sessions of four beat at its \
            followers: ZooKeeper expired 50 of 50.",
    guards: &[Guard::Lease(Plant::ForgetsEstablishment)],
    tell: paused_leader,
};

fn paused_leader(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let leader = script.leader;
    let [one, other] = [script.others[0], script.others[1]];
    let members = [
        script.member(0, 4_000, one)?,
        script.member(1, 4_000, other)?,
    ];
    let its_own = script.member(2, 4_000, leader)?;
    let both = [(&members[0], one), (&members[1], other)];
    script.pause(leader);
    let mut beats = script.keep(&both, 100, 1_500)?;
    // Its own client has waited long enough.
    let all = [both[0], both[1], (&its_own, one)];
    beats.extend(script.keep(&all, 100, 5_500)?);
    script.resume(leader);
    beats.extend(script.keep(&all, 100, 8_000)?);
    all_promised(&beats, 0)?;
    all_promised(&beats, 1)?;
    for member in members.iter().chain([&its_own]) {
        script.lives(member)?;
    }
    script.ends_well()
}

pub(super) const LATE_REPLY: Story = Story {
    number: 43,
    name: "late-reply",
    story: "An owner touches a session in the last moment of its lease and is not run for long \
            before the answer leaves: what it says was true when it was decided.",
    guards: &[Guard::Lease(Plant::OrphansWithoutLease)],
    tell: late_reply,
};

fn late_reply(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let owner = script.others[0];
    let member = script.member(0, 4_000, owner)?;
    script.keep(&[(&member, owner)], 200, 2_000)?;
    script.part(&[owner]);
    let cut = script.now();
    let mut touched = 0;
    loop {
        let sent = script.now();
        if script.beat(&member, owner)? != 204 {
            break;
        }
        touched = sent;
    }
    ensure(
        touched > cut + 2_500_000,
        "the lease ends long before its time",
    )?;
    // The refusal above shows that the one before came within a moment of the end. It leaves now.
    script.pause(owner);
    script.expires(&member, touched + member.timeout_us(), touched + 8_000_000)?;
    script.pass(1_000)?;
    let waits = script.send(&member, owner, Ask::BeatSession);
    script.resume(owner);
    let answer = script.hear(waits)?;
    ensure(
        answer.status == 503,
        "an owner that was away promises something",
    )?;
    script.ends_well()
}

pub(super) const SUSPENDED_OWNER: Story = Story {
    number: 44,
    name: "suspended-owner",
    story: "The machine of an owner is suspended until its sessions have expired, and finds a \
            beat in its sockets when it wakes.",
    guards: &[Guard::Host(Neglect::ClockStops)],
    tell: suspended_owner,
};

fn suspended_owner(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (owner, other) = (script.others[0], script.others[1]);
    let stays = script.member(0, 4_000, owner)?;
    let hops = script.member(1, 20_000, owner)?;
    script.keep(&[(&stays, owner), (&hops, owner)], 200, 1_000)?;
    let asleep = script.now();
    let waits = script.send(&stays, owner, Ask::BeatSession);
    script.pass_us(50)?;
    script.suspend(owner, 12_000)?;
    let (_, ended) = script.end_of(&stays).ok_or("an orphan does not expire")?;
    ensure(ended > asleep + 4_000_000, "it expires too early")?;
    let answer = script.hear(waits)?;
    ensure(answer.status == 503, "who has slept promises something")?;
    script.beats(&hops, other, 204)?;
    script.ends_well()
}

pub(super) const DRIFT_AT_ITS_BOUND: Story = Story {
    number: 45,
    name: "drift-at-its-bound",
    story: "The owner's clock is as slow as it may be and the leader's as fast, then the other way \
            round, and the last promise is made in the last moment of the lease.",
    guards: &[Guard::Lease(Plant::OrphansWithoutDrift)],
    tell: drift_at_its_bound,
};

fn drift_at_its_bound(faults: Faults) -> Told {
    for drifts in [[-1_000, -1_000, 1_000], [1_000, 1_000, -1_000]] {
        let mut script = Script::new(faults, still(3), 1, &drifts)?;
        ensure(script.leader == 2, "the drifts are another server's")?;
        let owner = script.others[0];
        let cut_off = script.member(0, 60_000, owner)?;
        let silent = script.member(1, 60_000, script.leader)?;
        let heard = script.now();
        script.pass(1_000)?;
        script.part(&[owner]);
        let cut = script.now();
        let mut touched = 0;
        loop {
            let sent = script.now();
            if script.beat(&cut_off, owner)? != 204 {
                break;
            }
            touched = sent;
        }
        ensure(
            touched > cut + 2_500_000,
            "the lease ends long before its time",
        )?;
        // Each clock a thousandth off, a tick, and a commit.
        let late = 2 * 60_000 + 40_000;
        script.expires(
            &silent,
            heard - 1_000 + silent.timeout_us(),
            heard + silent.timeout_us() + late,
        )?;
        let latest = touched + cut_off.timeout_us() + 400_000;
        script.expires(&cut_off, touched + cut_off.timeout_us(), latest)?;
        script.ends_well()?;
    }
    Ok(())
}

/// The lease of a [`still`] world.
const LEASE: Millis = crate::lease::LEASE;
/// How long a majority that notices at once takes to have a leader, µs.
const ELECTION_US: u64 = 1_500_000;
