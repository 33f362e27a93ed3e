//! 46, 47, 52: two things happen to a session at once, and only one of them may.

use super::script::{Member, Script, Told, ensure, ensure_status, still};
use super::{Faults, Guard, Story};
use crate::group::End;
use crate::sim::fleet::http::Ask;
use crate::sim::random::Span;
use crate::{group, lease, replica, shard};

pub(super) const BEAT_AND_EXPIRY: Story = Story {
    number: 46,
    name: "beat-and-expiry",
    story: "A beat comes while the expiry of its session is on its way to the leader, and a join \
            is answered in such a moment.",
    guards: &[
        Guard::Shard(shard::Plant::BeatsClosing),
        Guard::Shard(shard::Plant::WelcomesClosing),
    ],
    tell: beat_and_expiry,
};

fn beat_and_expiry(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, owner) = (script.leader, script.others[0]);
    let member = script.member(0, 1_000, owner)?;
    script.pass(900)?;
    script.hold(owner, leader);
    script.pass(250)?;
    let late = script.send(&member, owner, Ask::BeatSession);
    script.pass(200)?;
    ensure(
        script.answer(late).is_none(),
        "a beat is answered while its fate is open",
    )?;
    script.release(owner, leader);
    let answer = script.hear(late)?;
    ensure_status("a beat too late", &answer, &[410])?;
    join_while_it_ends(&mut script, owner)?;
    script.ends_well()
}

/// A join that only changes the timeout is decided before the session falls due, and answered
/// after.
fn join_while_it_ends(script: &mut Script, owner: usize) -> Told {
    let leader = script.leader;
    let mut member = script.member(2, 100, owner)?;
    script.hold(owner, leader);
    member.timeout_ms = 110;
    let join = script.send(&member, owner, member.join());
    script.pass(300)?;
    script.release(owner, leader);
    let answer = script.hear(join)?;
    ensure_status("a join while the session ends", &answer, &[503])?;
    script.until(1_000, "the session ends", |script| {
        script.end_of(&member).is_some()
    })
}

pub(super) const LOST_EXPIRY: Story = Story {
    number: 46,
    name: "lost-expiry",
    story: "An expiry is lost with the leader it was on its way to: nothing is promised to the \
            session until another leader has decided.",
    guards: &[
        Guard::Shard(shard::Plant::BeatsClosing),
        Guard::Replica(replica::Plant::ForgetsHandedBack),
    ],
    tell: lost_expiry,
};

fn lost_expiry(faults: Faults) -> Told {
    for logged in [false, true] {
        let mut script = Script::three(faults)?;
        let (leader, owner, third) = (script.leader, script.others[0], script.others[1]);
        let member = script.member(0, 1_000, owner)?;
        script.pass(800)?;
        if logged {
            // The leader logs it, and nobody else hears of that.
            script.hold(leader, owner);
            script.hold(leader, third);
        } else {
            script.hold(owner, leader);
        }
        script.pass(300)?;
        script.kill(leader, 5_000);
        let beats = script.keep(&[(&member, owner)], 50, 400)?;
        let promised = beats.iter().any(|beat| beat.status == Some(204));
        ensure(
            !promised,
            "a session is promised to live while its expiry is open",
        )?;
        script.open_all();
        script.until(4_000, "the session ends", |script| {
            script.end_of(&member).is_some()
        })?;
        let answer = script.ask(&member, owner, Ask::BeatSession)?;
        ensure_status("a beat to the dead", &answer, &[410])?;
        script.ends_well()?;
    }
    Ok(())
}

pub(super) const RENEWAL_AND_ORPHANS: Story = Story {
    number: 46,
    name: "renewal-and-orphans",
    story: "An owner that was silent renews its lease while the expiry of its orphans is not \
            committed, and a beat waits there.",
    guards: &[Guard::Lease(lease::Plant::GrantDuringExpiry)],
    tell: renewal_and_orphans,
};

fn renewal_and_orphans(faults: Faults) -> Told {
    let mut profile = still(3);
    profile.timing.sync_limit.0 = 30_000;
    let mut script = Script::new(faults, profile, 1, &[])?;
    let (leader, owner, third) = (script.leader, script.others[0], script.others[1]);
    let member = script.member(0, 4_000, owner)?;
    script.hold(owner, leader);
    script.pass(6_900)?;
    // From here on an expiry is logged by the leader and the owner alone, and slowly.
    script.hold(leader, third);
    script.fleet.stage.profile.sync = Span::new(200_000, 200_001);
    script.until(
        1_000,
        "the leader proposes to expire the orphan",
        |script| script.in_flight(leader) > 0,
    )?;
    script.release(owner, leader);
    let beats = script.keep(&[(&member, owner)], 5, 150)?;
    let promised = beats.iter().any(|beat| beat.status == Some(204));
    script.fleet.stage.profile.sync = Span::new(500, 501);
    script.release(leader, third);
    script.until(3_000, "the orphan expires", |script| {
        script.end_of(&member).is_some()
    })?;
    ensure(
        !promised,
        "an owner is granted a lease for sessions that are about to end",
    )?;
    script.ends_well()
}

pub(super) const MOVE_AND_OWNER: Story = Story {
    number: 47,
    name: "move-and-owner",
    story: "A session falls due at its owner in the moment in which it moves to the server where \
            its client beats now.",
    guards: &[Guard::Replica(replica::Plant::ExpiresAnyTerm)],
    tell: move_and_owner,
};

fn move_and_owner(faults: Faults) -> Told {
    let expires_us = {
        let (mut script, member) = heard_elsewhere(Faults::default())?;
        script.expires(&member, 0, 5_000_000)?
    };
    // Some of these beats are about to move the session as its owner finds it due.
    for before_us in [3_000, 3_700, 4_400] {
        let (mut script, member) = heard_elsewhere(faults)?;
        let other = script.others[1];
        script.pass_us(expires_us - before_us - script.now())?;
        let beat = script.send(&member, other, Ask::BeatSession);
        script.pass_us(300)?;
        // The owner's core looks at its mail late: the expiry lies there while the move commits.
        script.fleet.stage.profile.turn = Span::new(100_000, 100_001);
        script.pass(8)?;
        script.fleet.stage.profile.turn = Span::new(50, 51);
        let answer = script.hear(beat)?;
        ensure_status("a beat in the last moment", &answer, &[204])?;
        ensure(
            script.owner(&member) == Some(other),
            "it was promised where it is not",
        )?;
        script.pass(500)?;
        script.lives(&member)?;
        script.ends_well()?;
    }
    Ok(())
}

/// A member whose owner the last server does not reach.
fn heard_elsewhere(faults: Faults) -> Result<(Script, Member), String> {
    let mut script = Script::three(faults)?;
    let [owner, other] = [script.others[0], script.others[1]];
    let member = script.member(0, 1_000, owner)?;
    script.breaks(owner, other);
    Ok((script, member))
}

pub(super) const MOVE_AND_ORPHANS: Story = Story {
    number: 47,
    name: "move-and-orphans",
    story: "The owner is lost, and its session is moved and expired at once: whichever is first \
            at the leader happens, and the other comes to nothing.",
    guards: &[Guard::Group(group::Plant::EndsAnyTerm)],
    tell: move_and_orphans,
};

fn move_and_orphans(faults: Faults) -> Told {
    let expires_us = {
        let mut script = Script::three(faults)?;
        let (member, _) = orphan(&mut script)?;
        let from = script.now() + 6_000_000;
        script.expires(&member, from, from + 2_000_000)?
    };
    for move_first in [true, false] {
        let mut script = Script::three(faults)?;
        let (member, third) = orphan(&mut script)?;
        let leader = script.leader;
        let before = if move_first { 300_000 } else { 5_000 };
        script.pass_us(expires_us - before - script.now())?;
        script.hold(
            if move_first { third } else { leader },
            if move_first { leader } else { third },
        );
        if !move_first {
            script.until(50, "the expiry is proposed", |script| {
                script.in_flight(leader) == 1
            })?;
        } else {
            script.release(third, leader);
        }
        let beat = script.send(&member, third, Ask::BeatSession);
        if move_first {
            script.until(50, "the move is proposed", |script| {
                script.in_flight(leader) == 1
            })?;
            script.hold(third, leader);
            script.until(600, "the expiry is proposed", |script| {
                script.in_flight(leader) == 2
            })?;
            script.release(third, leader);
        } else {
            script.pass(50)?;
            script.release(leader, third);
        }
        let answer = script.hear(beat)?;
        let wanted = if move_first { 204 } else { 410 };
        ensure_status("a beat for an orphan", &answer, &[wanted])?;
        script.pass(1_000)?;
        ensure(
            script.end_of(&member).is_none() == move_first,
            "what came second has happened as well",
        )?;
        script.ends_well()?;
    }
    Ok(())
}

/// A member whose owner has just been lost, and the server that does not lead.
fn orphan(script: &mut Script) -> Result<(Member, usize), String> {
    let [owner, third] = [script.others[0], script.others[1]];
    let member = script.member(0, 4_000, owner)?;
    script.pass(1_000)?;
    script.kill(owner, 60_000);
    Ok((member, third))
}

pub(super) const MOVE_AND_CLOSE: Story = Story {
    number: 47,
    name: "move-and-close",
    story: "A session of a lost owner is moved for a beat at one server while another is told to \
            close it; and it is closed while it changes shards.",
    guards: &[
        Guard::Replica(replica::Plant::EndsBeforeDeals),
        Guard::Shard(shard::Plant::ForgetsNewsOnTheWay),
    ],
    tell: move_and_close,
};

fn move_and_close(faults: Faults) -> Told {
    for later_us in [0, 200, 1_000, 5_000] {
        let mut script = Script::three(faults)?;
        let (member, third) = orphan(&mut script)?;
        script.pass(200)?;
        script.fleet.stage.profile.sync = Span::new(30_000, 30_001);
        let beat = script.send(&member, third, Ask::BeatSession);
        script.pass_us(later_us)?;
        let leave = script.send(&member, script.leader, Ask::Leave);
        let answer = script.hear(leave)?;
        ensure_status("a leave", &answer, &[204])?;
        let answer = script.hear(beat)?;
        ensure_status("a beat beside it", &answer, &[204, 404, 410])?;
        is_over(&mut script, &member, third)?;
        script.ends_well()?;
    }
    closed_as_it_comes(faults)?;
    closed_between_shards(faults)
}

/// A client has settled at another server and closes its session in the moment in which that
/// comes there.
fn closed_as_it_comes(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let [owner, other] = [script.others[0], script.others[1]];
    let member = script.member(0, 4_000, owner)?;
    for _ in 0..7 {
        script.pass(30)?;
        script.beats(&member, other, 204)?;
    }
    // A disk that is slow, and at work, takes both in one sync, and they are told in one piece.
    script.fleet.stage.profile.sync = Span::new(30_000, 30_001);
    script.send(&member, script.leader, Ask::Config);
    script.pass(15)?;
    script.beats(&member, other, 204)?;
    script.pass(3)?;
    let answer = script.ask(&member, script.leader, Ask::Leave)?;
    ensure_status("a leave", &answer, &[204])?;
    ensure(script.moved() == 1, "the client has not settled")?;
    is_over(&mut script, &member, other)?;
    script.ends_well()
}

/// The session has been closed, and no shard of the server promises it anything.
fn is_over(script: &mut Script, member: &Member, at: usize) -> Told {
    // Until all have applied it.
    script.pass(50)?;
    let closed = matches!(script.end_of(member), Some((End::Left, _)));
    ensure(closed, "a closed session lives, or has expired")?;
    for shard in [0, 1, 0] {
        let number = script.send_to(member, (at, shard), Ask::BeatSession);
        let answer = script.hear(number)?;
        ensure_status("a beat to a closed session", &answer, &[404, 410])?;
    }
    Ok(())
}

/// Its beats come to the other shard in the moment in which its close commits.
fn closed_between_shards(faults: Faults) -> Told {
    let moments = (0..6_000).step_by(250).zip((1..4).cycle());
    for (later_us, seed) in moments {
        let mut script = Script::new(faults, still(3), seed, &[])?;
        let owner = script.leader;
        let member = script.member(0, 4_000, owner)?;
        let leave = script.send(&member, script.others[0], Ask::Leave);
        script.pass_us(later_us)?;
        script.fleet.stage.profile.turn = Span::new(10, 2_000);
        let beats = [0, 1].map(|shard| script.send_to(&member, (owner, shard), Ask::BeatSession));
        script.hear(leave)?;
        for beat in beats {
            script.hear(beat)?;
        }
        is_over(&mut script, &member, owner)?;
    }
    Ok(())
}

pub(super) const TWO_MOVES: Story = Story {
    number: 47,
    name: "two-moves",
    story: "A lost owner's client beats at two servers at once: one of them has the session, and \
            both beats are heard.",
    guards: &[Guard::Group(group::Plant::MovesAnyTerm)],
    tell: two_moves,
};

fn two_moves(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (member, third) = orphan(&mut script)?;
    script.pass(200)?;
    let leader = script.leader;
    let beats = [leader, third].map(|at| script.send(&member, at, Ask::BeatSession));
    for beat in beats {
        let answer = script.hear(beat)?;
        ensure_status("one of two beats", &answer, &[204])?;
    }
    ensure(script.moved() == 1, "it moves to and fro")?;
    script.ends_well()
}

pub(super) const CONFIG_AND_EXPIRY: Story = Story {
    number: 52,
    name: "config-and-expiry",
    story: "A member's config is written, by itself and with a join, while its session expires, \
            and another watches the versions of the group.",
    guards: &[Guard::Shard(shard::Plant::WelcomesClosing)],
    tell: config_and_expiry,
};

fn config_and_expiry(faults: Faults) -> Told {
    for early_ms in [0, 10, 20] {
        let mut script = Script::three(faults)?;
        let owner = script.others[0];
        let mut watcher = script.member(2, 20_000, owner)?;
        let member = script.member(0, 1_000, owner)?;
        script.pass(1_000 - early_ms)?;
        script.fleet.stage.profile.sync = Span::new(20_000, 20_001);
        let mut writes = Vec::new();
        for _ in 0..60 {
            if writes.len() < 12 {
                writes.push(script.send(&member, owner, Ask::Config));
            }
            let answer = script.ask(&watcher, owner, Ask::BeatSession)?;
            // What it has seen goes with its next beat.
            watcher.floor = watcher.floor.max(answer.version);
            script.pass(3)?;
        }
        for write in writes {
            let answer = script.hear(write)?;
            ensure_status("a config write", &answer, &[204])?;
        }
        is_inactive(&script, &member)?;
        script.ends_well()?;
    }
    config_with_a_join(faults)
}

/// The member is not active, and its config is kept.
fn is_inactive(script: &Script, member: &Member) -> Told {
    ensure(script.end_of(member).is_some(), "it does not expire")?;
    let (group, name) = member.names();
    let state = script.fleet.stage.judge.ghost.state();
    let config = state.config(group.as_bytes(), Some(name.as_bytes()));
    ensure(config.is_some(), "the config is gone with the session")
}

/// A join that brings a config is decided before the session falls due, and answered after.
fn config_with_a_join(faults: Faults) -> Told {
    let mut script = Script::three(faults)?;
    let (leader, owner) = (script.leader, script.others[0]);
    let member = script.member(0, 100, owner)?;
    script.hold(owner, leader);
    let (group, name) = member.names();
    let text = format!(
        "PUT /{group}/{name} HTTP/1.1\r\nhost: fleet\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"
    );
    let join = script.send_bytes(&member, (owner, 0), member.join(), text.into_bytes());
    script.pass(300)?;
    script.release(owner, leader);
    let answer = script.hear(join)?;
    ensure_status("a join while the session ends", &answer, &[503])?;
    script.pass(100)?;
    is_inactive(&script, &member)?;
    script.ends_well()
}
