//! 50, 53, 56, 60: servers come back, alone or together, and leaders change again and again.

use super::script::{Member, Script, Told, all_promised, ensure, ensure_status, still};
use super::{Faults, Guard, Story};
use crate::lease::Plant;
use crate::sim::fleet::http::Ask;
use crate::sim::fleet::machine::Stop;
use crate::types::Incarnation;
use crate::{replica, shard};

pub(super) const QUICK_RESTART: Story = Story {
    number: 50,
    name: "quick-restart",
    story: "An owner restarts at once and is cut off as it takes over its own sessions: what its \
            earlier run promised is kept.",
    guards: &[
        Guard::Lease(Plant::ForgetsAssigned),
        Guard::Lease(Plant::ForgetsEarlierRuns),
        Guard::Replica(replica::Plant::KeepsIncarnation),
        Guard::Replica(replica::Plant::WaitsForNewEpoch),
    ],
    tell: quick_restart,
};

fn quick_restart(faults: Faults) -> Told {
    // Piece by piece, and all at once.
    for adopt_limit in [1, 16_384] {
        let mut profile = still(3);
        profile.adopt_limit = adopt_limit;
        let mut script = Script::new(faults, profile, 1, &[])?;
        let owner = script.others[0];
        let members = [
            script.member(0, 4_000, owner)?,
            script.member(1, 4_000, owner)?,
        ];
        let both = [(&members[0], owner), (&members[1], owner)];
        // The leader's own beginning is long past.
        script.keep(&both, 200, 9_000)?;
        script.kill(owner, 200);
        let first = members[0].id.unwrap_or_default();
        script.until(3_000, "the new run has the first session", |script| {
            let session = script.fleet.stage.judge.ghost.live.get(&first);
            session.is_some_and(|session| session.incarnation == Incarnation(2))
        })?;
        script.part(&[owner]);
        script.pass(1_500)?;
        script.open_all();
        script.until(3_000, "the new run serves", |script| {
            let server = script.fleet.machines[owner].server.as_ref();
            server.is_some_and(|server| server.replica.is_serving())
        })?;
        script.pass(20)?;
        let beats = script.keep(&both, 200, 6_000)?;
        all_promised(&beats, 0)?;
        all_promised(&beats, 1)?;
        script.lives(&members[0])?;
        script.lives(&members[1])?;
        script.ends_well()?;
    }
    Ok(())
}

pub(super) const SLOW_RESTART: Story = Story {
    number: 50,
    name: "slow-restart",
    story: "An owner is away for longer than a lease and a timeout; what its first run has sent \
            comes when its second is there.",
    guards: &[Guard::Lease(Plant::OrphansWithoutLease)],
    tell: slow_restart,
};

fn slow_restart(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, owner, third) = (script.leader, script.others[0], script.others[1]);
    let silent = script.member(0, 4_000, owner)?;
    let hops = script.member(1, 4_000, owner)?;
    script.keep(&[(&silent, owner), (&hops, owner)], 100, 2_000)?;
    script.fleet.stage.net.weather.late = 1_000_000;
    script.hold(owner, leader);
    let beats = script.keep(&[(&silent, owner), (&hops, owner)], 100, 2_900)?;
    let last = super::script::last_promise(&beats, 0).ok_or("nothing is promised")?;
    script.kill(owner, 12_000);
    script.pass(100)?;
    let beats = script.keep(&[(&hops, third)], 200, 12_500)?;
    all_promised(&beats, 0)?;
    script.expires(&silent, last + silent.timeout_us(), script.now())?;
    script.release(owner, leader);
    script.pass(1_000)?;
    script.fleet.stage.net.weather.late = 0;
    script.pass(1_000)?;
    let answer = script.ask(&silent, owner, Ask::BeatSession)?;
    ensure_status("a beat to the dead", &answer, &[410])?;
    script.beats(&hops, owner, 204)?;
    script.member(2, 4_000, owner)?;
    script.ends_well()
}

pub(super) const ELECTIONS: Story = Story {
    number: 53,
    name: "elections",
    story: "One leader after the other is lost while an owner is cut off: each begins anew to wait \
            for it.",
    guards: &[Guard::Lease(Plant::ForgetsEstablishment)],
    tell: elections,
};

fn elections(faults: Faults) -> Told {
    let mut script = Script::five(faults)?;
    let [owner, other] = [script.others[0], script.others[1]];
    let silent = script.member(0, 4_000, owner)?;
    let hops = script.member(1, 4_000, owner)?;
    script.keep(&[(&silent, owner), (&hops, owner)], 200, 1_000)?;
    let cut = script.now();
    script.part(&[owner]);
    let mut leader = script.leader;
    for _ in 0..4 {
        script.pass(2_000)?;
        script.kill(leader, 800);
        let lost = leader;
        script.until(3_000, "there is another leader", |script| {
            script.leads_but(lost).is_some()
        })?;
        leader = script.leads_but(lost).unwrap_or(lost);
    }
    let elected = script.now();
    ensure(elected > cut + 8_000_000, "the elections come too soon")?;
    script.lives(&silent)?;
    script.pass(100)?;
    script.beats(&hops, other, 204)?;
    let latest = elected + 7_500_000;
    while script.end_of(&silent).is_none() && script.now() < latest {
        script.keep(&[(&hops, other)], 200, 200)?;
    }
    script.expires(&silent, elected, latest)?;
    script.lives(&hops)?;
    script.ends_well()
}

pub(super) const SECOND_REIGN: Story = Story {
    number: 53,
    name: "second-reign",
    story: "A leader that has proposed to expire orphans is deposed; it comes back, and leads again \
            at once, with a history in which that expiry is not.",
    guards: &[Guard::Replica(replica::Plant::SettlesForAnyReign)],
    tell: second_reign,
};

fn second_reign(faults: Faults) -> Told {
    let mut script = Script::five(faults)?;
    let (leader, owner) = (script.leader, script.others[0]);
    let rest: Vec<usize> = script.others[1..].to_vec();
    let member = script.member(0, 4_000, owner)?;
    let writer = script.member(2, 20_000, rest[0])?;
    script.kill(owner, 60_000);
    script.pass(6_500)?;
    rest.iter().for_each(|&at| script.hold(leader, at));
    script.until(900, "the leader proposes to expire the orphan", |script| {
        script.in_flight(leader) > 0
    })?;
    rest.iter().for_each(|&at| script.hold(at, leader));
    script.until(5_000, "the others have a leader", |script| {
        script.leads_but(leader).is_some()
    })?;
    let other = script.leads_but(leader).unwrap_or(leader);
    // A transaction that the first leader lacks.
    script.ask(&writer, rest[0], Ask::Config)?;
    script.open_all();
    let second = script.epoch(other);
    // The first has all of the second one's history, and has not been told that it follows.
    for _ in 0..50_000 {
        if script.epoch(leader) == second {
            break;
        }
        script.pass_us(100)?;
    }
    script.kill(other, 60_000);
    script.until(4_000, "the first leads again", |script| {
        script.fleet.machines[leader].leads()
    })?;
    script.until(9_000, "the orphan expires", |script| {
        script.end_of(&member).is_some()
    })?;
    script.ends_well()
}

pub(super) const DEAD_EXPIRY: Story = Story {
    number: 53,
    name: "dead-expiry",
    story: "A deposed leader has proposed to expire orphans and nobody has heard of it; the next \
            leader grants their owner a lease, and then the old one comes back.",
    guards: &[Guard::Replica(replica::Plant::ProposesOrphansAgain)],
    tell: dead_expiry,
};

fn dead_expiry(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, owner, third) = (script.leader, script.others[0], script.others[1]);
    let member = script.member(0, 4_000, owner)?;
    script.hold(owner, leader);
    script.hold(leader, owner);
    script.pass(6_500)?;
    script.hold(leader, third);
    script.until(900, "the leader proposes to expire the orphan", |script| {
        script.in_flight(leader) > 0
    })?;
    script.hold(third, leader);
    script.until(5_000, "the others have a leader", |script| {
        script.leads_but(leader).is_some()
    })?;
    script.pass(500)?;
    script.beats(&member, owner, 204)?;
    script.open_all();
    script.connect_all();
    let beats = script.keep(&[(&member, owner)], 200, 4_000)?;
    all_promised(&beats, 0)?;
    script.lives(&member)?;
    script.ends_well()
}

pub(super) const MINORITY: Story = Story {
    number: 56,
    name: "minority",
    story: "Two of five servers are parted from the others for half a minute and come back.",
    guards: &[Guard::Shard(shard::Plant::BeatsWhileLapsed)],
    tell: minority,
};

fn minority(faults: Faults) -> Told {
    let mut script = Script::five(faults)?;
    let (leader, owner) = (script.leader, script.others[0]);
    let [one, other] = [script.others[1], script.others[2]];
    let stays = script.member(0, 4_000, owner)?;
    let hops = script.member(1, 4_000, owner)?;
    let afar = script.member(2, 4_000, other)?;
    script.part(&[leader, owner]);
    let all = [(&stays, owner), (&hops, owner), (&afar, other)];
    let beats = script.keep(&all, 100, 5_000)?;
    all_promised(&beats, 2)?;
    super::script::refused_from_then_on(&beats, 0)?;
    script.beats(&hops, one, 204)?;
    let beats = script.keep(
        &[(&stays, owner), (&hops, one), (&afar, other)],
        100,
        25_000,
    )?;
    ensure(
        super::script::last_promise(&beats, 0).is_none(),
        "a minority promises something",
    )?;
    all_promised(&beats, 1)?;
    all_promised(&beats, 2)?;
    ensure(script.end_of(&stays).is_some(), "the orphan lives on")?;
    script.open_all();
    script.connect_all();
    let beats = script.keep(&[(&hops, one), (&afar, other)], 100, 5_000)?;
    all_promised(&beats, 0)?;
    all_promised(&beats, 1)?;
    let answer = script.ask(&stays, owner, Ask::BeatSession)?;
    ensure_status("a beat to the dead", &answer, &[410])?;
    script.beats(&hops, owner, 204)?;
    script.ends_well()
}

pub(super) const ALL_DOWN: Story = Story {
    number: 60,
    name: "all-down",
    story: "All servers lose power for longer than every timeout, and the last comes back after \
            the others: all sessions have their full time again.",
    guards: &[
        Guard::Lease(Plant::ForgetsEstablishment),
        Guard::Replica(replica::Plant::KeepsIncarnation),
    ],
    tell: all_down,
};

fn all_down(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, owner, third) = (script.leader, script.others[0], script.others[1]);
    let beating: Vec<(Member, usize)> = [leader, owner, third]
        .iter()
        .enumerate()
        .map(|(index, &at)| Ok((script.member(index, 4_000, at)?, at)))
        .collect::<Result<_, String>>()?;
    let silent = script.member(4, 4_000, third)?;
    for at in [leader, owner, third] {
        let late_ms = if at == owner { 2_000 } else { 0 };
        script.stop(at, Stop::PowerLost, 12_000 + late_ms);
    }
    script.pass(12_000)?;
    let up = script.now();
    let all: Vec<(&Member, usize)> = beating.iter().map(|(member, at)| (member, *at)).collect();
    let beats = script.keep(&all, 100, 8_000)?;
    for (position, (member, _)) in beating.iter().enumerate() {
        script.lives(member)?;
        let last = beats
            .iter()
            .rfind(|beat| beat.member == position && beat.status.is_some());
        let status = last.and_then(|beat| beat.status);
        ensure(
            status == Some(204),
            "a member that beats again is promised nothing",
        )?;
    }
    script.expires(&silent, up + silent.timeout_us(), up + 8_000_000)?;
    script.ends_well()
}
