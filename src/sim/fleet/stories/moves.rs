//! 48, 49, 58, 59: a client is heard at another server than the owner of its session.

use super::script::{Member, Script, Told, all_promised, ensure, ensure_status, still};
use super::{Faults, Guard, Story};
use crate::sim::fleet::http::Ask;
use crate::{lease, replica, shard};

pub(super) const WANDERER: Story = Story {
    number: 48,
    name: "wanderer",
    story: "A balancer sends a client's beats to one server after the other: none costs a \
            transaction.",
    guards: &[Guard::Shard(shard::Plant::SettlesAtOnce)],
    tell: wanderer,
};

fn wanderer(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let member = script.member(0, 4_000, script.others[0])?;
    let committed = script.committed();
    for round in 0..100 {
        script.beats(&member, round % 3, 204)?;
        script.pass(100)?;
    }
    ensure(script.moved() == 0, "the session moves")?;
    ensure(script.committed() == committed, "beats cause transactions")?;
    script.ends_well()
}

pub(super) const LAGGING_OWNER: Story = Story {
    number: 49,
    name: "lagging-owner",
    story: "A session has moved away from an owner that does not hear of it, holds a lease, and is \
            asked by the client as well.",
    guards: &[
        Guard::Replica(replica::Plant::MovesWithoutGrace),
        Guard::Shard(shard::Plant::LosesGraceOnTheWay),
    ],
    tell: lagging_owner,
};

fn lagging_owner(faults: Faults) -> Told {
    for shard in [0, 1] {
        let mut script = Script::three(faults)?;
        let (owner, member) = moved_away(&mut script)?;
        let other = script.others[1];
        // The session may change shards on its new server.
        let number = script.send_to(&member, (other, shard), Ask::BeatSession);
        let answer = script.hear(number)?;
        ensure_status("a beat at the new owner", &answer, &[204])?;
        let beats = script.keep(&[(&member, owner)], 20, 3_500)?;
        let promised = beats.iter().filter(|beat| beat.status == Some(204)).count();
        ensure(promised > 100, "the old owner's lease is of no use")?;
        script.pass(6_000)?;
        ensure(
            script.end_of(&member).is_some(),
            "nobody beats, and it lives",
        )?;
        script.ends_well()?;
    }
    Ok(())
}

/// A member whose session has just moved from its owner, which has lost everybody and has not
/// heard of that. The new owner is the second of those that do not lead.
fn moved_away(script: &mut Script) -> Result<(usize, Member), String> {
    let [owner, other] = [script.others[0], script.others[1]];
    let member = script.member(0, 4_000, owner)?;
    script.keep(&[(&member, owner)], 200, 1_000)?;
    script.part(&[owner]);
    script.breaks_for(other, owner);
    script.pass(10)?;
    script.beats(&member, other, 204)?;
    ensure(
        script.owner(&member) == Some(other),
        "the session has not moved",
    )?;
    Ok((owner, member))
}

pub(super) const OWNER_BEHIND_ITS_GRANT: Story = Story {
    number: 49,
    name: "owner-behind-its-grant",
    story: "An owner with a slow disk is not sent the transaction that moves a session away, and is \
            granted one lease after the other.",
    guards: &[Guard::Lease(lease::Plant::GrantWithoutApplied)],
    tell: owner_behind_its_grant,
};

fn owner_behind_its_grant(faults: Faults) -> Told {
    let mut profile = still(3);
    profile.unacknowledged_max = 1;
    let mut script = Script::new(faults, profile, 1, &[])?;
    let [owner, other] = [script.others[0], script.others[1]];
    let member = script.member(0, 4_000, owner)?;
    let writer = script.member(1, 60_000, other)?;
    script.keep(&[(&member, owner)], 200, 1_000)?;
    script.hold(owner, other);
    script.hold(other, owner);
    script.breaks_for(other, owner);
    // It is sent one transaction after the other, each when it has the last on its disk.
    script.fleet.stage.slow_disks[owner] += 1;
    for _ in 0..60 {
        script.ask(&writer, other, Ask::Config)?;
    }
    script.beats(&member, other, 204)?;
    ensure(
        script.owner(&member) == Some(other),
        "the session has not moved",
    )?;
    let moved = script.now();
    let beats = script.keep(&[(&member, owner)], 20, 4_500)?;
    let promised = beats.iter().filter(|beat| beat.status == Some(204));
    let last = promised.map(|beat| beat.sent_us).max().unwrap_or(0);
    ensure(
        last < moved + 3_100_000,
        "the old owner promises with leases that came after the move",
    )?;
    script.fleet.stage.slow_disks[owner] -= 1;
    script.pass(8_000)?;
    script.ends_well()
}

pub(super) const LAGGING_SERVER: Story = Story {
    number: 58,
    name: "lagging-server",
    story: "A client that has seen a version turns to a server that has not got so far.",
    guards: &[
        Guard::Shard(shard::Plant::BeatsIgnoreFloor),
        Guard::Shard(shard::Plant::DocumentsIgnoreFloor),
    ],
    tell: lagging_server,
};

fn lagging_server(faults: Faults) -> Told {
    for behind_ms in [400, 900] {
        let mut script = Script::three(faults)?;
        let [lags, other] = [script.others[0], script.others[1]];
        let mut member = script.member(0, 20_000, lags)?;
        let writer = script.member(2, 20_000, other)?;
        script.pass(500)?;
        script.hold(script.leader, lags);
        let wrote = script.ask(&writer, other, Ask::Config)?;
        member.floor = wrote.version;
        let beat = script.send(&member, lags, Ask::BeatSession);
        let get = script.send(&member, lags, Ask::BeatAndGet);
        let read = read_at(&mut script, &member, lags);
        script.pass(behind_ms)?;
        script.release(script.leader, lags);
        for number in [beat, get, read] {
            let answer = script.hear(number)?;
            ensure_status("a request from ahead", &answer, &[200, 204, 503])?;
            let shown = answer.version.filter(|_| answer.status != 503);
            ensure(
                shown.is_none() || shown >= member.floor,
                "a version goes back",
            )?;
        }
        script.pass(3_000)?;
        script.beats(&member, lags, 204)?;
        script.ends_well()?;
    }
    Ok(())
}

/// Asks for the group's document as the server has it.
fn read_at(script: &mut Script, member: &Member, at: usize) -> u32 {
    let floor = member.floor.unwrap_or_default();
    let (group, _) = member.names();
    let text = format!("GET /{group} HTTP/1.1\r\nhost: fleet\r\nx-group-version: {floor}\r\n\r\n");
    script.send_bytes(member, (at, 0), Ask::Read, text.into_bytes())
}

pub(super) const CLOSE_WITHOUT_OWNER: Story = Story {
    number: 59,
    name: "close-without-owner",
    story: "A session is closed and its member joins anew while the owner cannot be reached; then \
            the client turns to that owner, which has not heard of either.",
    guards: &[
        Guard::Shard(shard::Plant::DeniesWhoIsAhead),
        Guard::Replica(replica::Plant::JoinsFromOwnState),
    ],
    tell: close_without_owner,
};

fn close_without_owner(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let [owner, other] = [script.others[0], script.others[1]];
    let old = script.member(0, 4_000, owner)?;
    script.pass(500)?;
    script.part(&[owner]);
    let answer = script.ask(&old, other, Ask::Leave)?;
    ensure_status("a leave without the owner", &answer, &[204])?;
    // One that joins at the owner itself is not welcomed into the session that was closed.
    let blind = script.send(&Member::new(0, 4_000), owner, old.join());
    script.pass(100)?;
    ensure(
        script.answer(blind).is_none(),
        "a join is answered by who is behind",
    )?;
    script.fleet.stage.requests.remove(&blind);
    let mut new = Member::new(0, 4_000);
    script.join(&mut new, other)?;
    ensure(new.id > old.id, "a closed session is joined again")?;
    let answer = script.ask(&new, owner, Ask::BeatSession)?;
    ensure_status("a beat at the old owner", &answer, &[503])?;
    script.open_all();
    script.until(5_000, "the owner serves again", |script| {
        let server = script.fleet.machines[owner].server.as_ref();
        server.is_some_and(|server| {
            server.replica.state().applied() == script.fleet.stage.judge.ghost.last()
        })
    })?;
    script.pass(1_000)?;
    let beats = script.keep(&[(&new, other), (&new, owner)], 200, 2_000)?;
    all_promised(&beats, 0)?;
    all_promised(&beats, 1)?;
    let answer = script.ask(&old, owner, Ask::BeatSession)?;
    ensure_status("a beat to the closed session", &answer, &[409])?;
    script.ends_well()
}
