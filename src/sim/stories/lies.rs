//! Servers that are lied to: what no sound server says, and what no sound host reports.
//!
//! Among sound peers and hosts some lines of the core never decide anything
//! ([`super::super::plants::defends`]). These stories bring in from elsewhere what each of them
//! stands against: a message that was damaged and passed its check, a report that was late. All
//! must end well, for that is what these lines are for.

use super::networks::chooses_unheard;
use super::{Scene, Story, durable};
use crate::sim::world::World;
use crate::types::{Epoch, Zxid};
use crate::zab::{Body, Persisted, Phase, Summary};

pub(super) const ALL: &[Story] = &[
    Story {
        name: "07-a-pong-comes-as-an-ack",
        about: "a leader whose own epoch is not on disk hears an acknowledgement too many",
        play: pong_as_ack,
        servers: (3, 0),
    },
    Story {
        name: "08-a-report-comes-after-the-cut",
        about: "a server is told of the end of a sync when what was synced has been cut since",
        play: late_report,
        servers: (3, 0),
    },
    Story {
        name: "10-told-to-cut-what-is-committed",
        about: "a follower that is up to date is told to cut off what it has delivered",
        play: told_to_cut,
        servers: (3, 0),
    },
    Story {
        name: "10-the-summary-of-another-history",
        about: "a learner is taken for one of another past, of which there is only an older snapshot",
        play: other_history,
        servers: (3, 0),
    },
    Story {
        name: "22-led-into-an-older-epoch",
        about: "a leader believes that a voter has promised less than it has, and announces that",
        play: older_epoch,
        servers: (3, 0),
    },
];

/// One follower more than the leader holds the leader's tail, and has acknowledged it; but until
/// the leader's own epoch is on its disk, a server of an epoch between could have it cut.
fn pong_as_ack(scene: &mut Scene) {
    let leader = scene.lead();
    scene.commit(leader, 3);
    let (with, without) = (scene.follower(0), scene.follower(1));
    scene.kill(with);
    scene.kill(without);
    let tail = 1 + scene.draw(5);
    let zxid = scene.propose(leader, tail);
    scene.until("the leader alone has synced it", |world| {
        durable(world, leader) >= zxid
    });
    // It keeps all of that in memory, and needs no read to pass it on.
    scene.until("it looks for others", |world| {
        world.hosts[leader].phase() == Some(Phase::Looking)
    });
    scene.start(with);
    scene.until("the other has promised to follow it", |world| {
        world.hosts[leader].phase() == Some(Phase::Synchronization)
    });
    scene.world.hosts[leader].stuck += 1;
    scene.falsify("the other has it", with, leader, |body| {
        let loyal = matches!(body, Body::Pong { loyal: true, .. });
        if loyal {
            *body = Body::Ack { zxid };
        }
        loyal
    });
    let heard_ms = 2 + scene.draw(100);
    scene.pass_ms(heard_ms);
    scene.world.act(leader, |host, stage| {
        host.stuck -= 1;
        host.unstick(stage);
    });
    scene.start(without);
    scene.lead();
}

fn late_report(scene: &mut Scene) {
    let old = scene.lead();
    scene.commit(old, 3);
    scene.world.cut_off(old, false);
    let tail = 1 + scene.draw(20);
    let zxid = scene.propose(old, tail);
    scene.until("it has synced what nobody else has", |world| {
        durable(world, old) >= zxid
    });
    scene.lead_instead_of(old);
    scene.world.let_in(old, false);
    scene.until("that is cut", |world| {
        let server = world.hosts[old].server.as_ref();
        server.is_some_and(|server| server.peer.last_logged() < zxid)
    });
    let late_us = scene.draw(50_000);
    scene.world.run_for(late_us);
    scene.world.act(old, |host, stage| {
        host.input(stage, |peer, now| {
            peer.on_persisted(now, Persisted::Log(zxid));
        });
    });
    scene.lead();
}

/// The follower has lost its way to the leader for a while, and remembers what it has delivered.
fn told_to_cut(scene: &mut Scene) {
    let leader = scene.lead();
    let count = 5 + scene.draw(20);
    scene.commit(leader, count);
    let told = scene.follower(0);
    let committed = committed(&scene.world, told);
    let to = Zxid::new(committed.epoch, 1 + scene.draw(committed.counter - 1));
    scene.world.cut_off(told, false);
    scene.pass_ms(10);
    scene.world.let_in(told, false);
    scene.world.stage.deceived = Some(told);
    scene.falsify("it is led again", leader, told, |body| {
        let diff = matches!(body, Body::Diff { .. });
        if diff {
            *body = Body::Trunc { to };
        }
        diff
    });
    scene.until("it has withdrawn or follows", |world| {
        let phase = world.hosts[told].phase();
        matches!(phase, None | Some(Phase::Following))
    });
    scene.start(told);
    scene.lead();
}

/// All but the learner have a snapshot of the first epoch, and the learner one of a later epoch.
/// Between the two was an epoch in which nothing was proposed; from this the learner's history
/// seems to come.
fn other_history(scene: &mut Scene) {
    scene.world.stage.profile.snapshots_kept = 1;
    let leader = scene.lead();
    let learner = scene.follower(0);
    scene.kill(learner);
    scene.world.stage.profile.snapshot_every = 10;
    let count = 20 + scene.draw(8);
    let first = scene.propose(leader, count).epoch;
    let has_snapshot = |world: &World, at: usize| newest_snapshot(world, at) > Zxid::ZERO;
    scene.until("the others have taken a snapshot", |world| {
        (0..3).all(|at| at == learner || has_snapshot(world, at))
    });
    scene.world.stage.profile.snapshot_every = 0;
    let mut leader = leader;
    for _ in 0..2 {
        scene.kill(leader);
        scene.start(leader);
        scene.until("one of the two leads", |world| {
            world.hosts.iter().any(|host| host.leads())
        });
        leader = scene.leader();
    }
    scene.start(learner);
    scene.lead();
    scene.commit(leader, 5);
    // More than the others have delivered since theirs.
    scene.world.stage.profile.snapshot_every = count + 1;
    scene.propose(leader, 1);
    scene.until("the learner has taken a snapshot", |world| {
        newest_snapshot(world, learner).epoch > first.next()
    });
    scene.kill(learner);
    scene.start(learner);
    scene.falsify("it tells its history", learner, leader, |body| {
        let Body::AckEpoch { history, .. } = body else {
            return false;
        };
        *history = Summary {
            base: Zxid::new(first.next(), 1),
            ends: Vec::new(),
        };
        true
    });
    scene.lead();
}

/// The third server promises epoch after epoch that nobody else hears of.
fn older_epoch(scene: &mut Scene) {
    let (heard_of, other, ahead) = (0, 1, 2);
    let leader = scene.lead();
    scene.commit(leader, 3);
    scene.crash_all();
    scene.start(heard_of);
    for _ in 0..2 + scene.draw(4) {
        chooses_unheard(scene, ahead, heard_of);
    }
    scene.start(other);
    let leader = scene.lead_instead_of(ahead);
    scene.commit(leader, 1);
    scene.start(ahead);
    scene.falsify("it introduces itself", ahead, leader, |body| {
        let Body::FollowerInfo { accepted_epoch, .. } = body else {
            return false;
        };
        *accepted_epoch = Epoch(1);
        true
    });
    // That all go on together is left to the end, when nobody has lied for long.
    scene.pass_ms(500);
}

/// What a running server knows to be committed.
fn committed(world: &World, at: usize) -> Zxid {
    let server = world.hosts[at].server.as_ref();
    server.map_or(Zxid::ZERO, |server| server.peer.committed())
}

/// The newest snapshot on the disk of a running server.
fn newest_snapshot(world: &World, at: usize) -> Zxid {
    let server = world.hosts[at].server.as_ref();
    let snapshots = server.and_then(|server| server.log.snapshots().ok());
    let newest = snapshots.into_iter().flatten().max();
    newest.unwrap_or(Zxid::ZERO)
}
