//! Disks that fail, stick and forget.

use super::super::faults::FaultKind;
use super::{Scene, Story, durable};

pub(super) const ALL: &[Story] = &[
    Story {
        name: "08-role-changes-with-writes-in-flight",
        about: "a leader's disk sticks with proposals in it; it becomes a follower, and the disk goes on",
        play: role_change,
        servers: (3, 0),
    },
    Story {
        name: "13-write-error-then-recovery",
        about: "a follower's disk fails; it withdraws, and what it finds at its start is filled up",
        play: write_error,
        servers: (3, 0),
    },
    Story {
        name: "15-wiped-voter-rejoins",
        about: "a voter's disk is wiped while the others hold everything; it is led again",
        play: wiped,
        servers: (3, 0),
    },
    Story {
        name: "25-log-stuck-pings-alive",
        about: "a leader's disk sticks: it abdicates although its pings flow",
        play: stuck,
        servers: (3, 0),
    },
];

fn role_change(scene: &mut Scene) {
    let old = scene.lead();
    scene.commit(old, 3);
    scene.world.hosts[old].stuck += 1;
    scene.propose(old, 10);
    scene.world.cut_off(old, false);
    let new = scene.lead_instead_of(old);
    scene.propose(new, 5);
    scene.pass_ms(3_000);
    scene.world.let_in(old, false);
    scene.pass_ms(500);
    scene.world.act(old, |host, stage| {
        host.stuck -= 1;
        host.unstick(stage);
    });
    scene.lead();
}

fn write_error(scene: &mut Scene) {
    let leader = scene.lead();
    scene.commit(leader, 5);
    let failing = scene.follower(0);
    for events in 0..8 {
        scene.world.hosts[failing].disk.fail_after(events);
        scene.propose(leader, 10);
        // The error may also meet the making of the next segment, which is tried again.
        scene.until("it is down or up to date", |world| {
            world.hosts[failing].server.is_none() || world.agrees()
        });
        scene.start(failing);
        scene.lead();
    }
}

fn wiped(scene: &mut Scene) {
    let leader = scene.lead();
    scene.commit(leader, 20);
    let lost = scene.follower(0);
    let zxid = scene.propose(leader, 1);
    scene.until("all have synced it", |world| {
        (0..3).all(|at| durable(world, at) >= zxid)
    });
    scene.inflict(FaultKind::Wipe, lost);
    scene.commit(leader, 5);
    scene.start(lost);
    scene.lead();
}

fn stuck(scene: &mut Scene) {
    let old = scene.lead();
    scene.commit(old, 3);
    scene.world.hosts[old].stuck += 1;
    scene.propose(old, 5);
    let new = scene.lead_instead_of(old);
    scene.propose(new, 5);
    scene.pass_ms(2_000);
    scene.world.act(old, |host, stage| {
        host.stuck -= 1;
        host.unstick(stage);
    });
    scene.lead();
}
