//! Servers that stop where it hurts.

use super::{Scene, Story, durable};

pub(super) const ALL: &[Story] = &[
    Story {
        name: "01-leader-crashes-after-its-own-sync",
        about: "a leader syncs what nobody else has seen, crashes, and returns with the higher zxid",
        play: own_sync,
        servers: (3, 0),
    },
    Story {
        name: "02-all-crash-after-the-quorum-has-acknowledged",
        about: "a quorum has synced a transaction, nobody has delivered it, and power is lost",
        play: before_commit,
        servers: (3, 0),
    },
    Story {
        name: "03-crash-at-every-write-of-a-synchronization",
        about: "a lagging follower loses power at each write on its way to its leader's history",
        play: every_write,
        servers: (3, 0),
    },
    Story {
        name: "20-leaders-die-for-twenty-rounds",
        about: "each leader is killed at another point of its reign",
        play: twenty_rounds,
        servers: (5, 0),
    },
];

fn own_sync(scene: &mut Scene) {
    let old = scene.lead();
    scene.commit(old, 5);
    scene.world.cut_off(old, false);
    let zxid = scene.propose(old, 3);
    scene.until("the leader has synced it", |world| {
        durable(world, old) >= zxid
    });
    scene.crash(old);
    let new = scene.lead_instead_of(old);
    scene.commit(new, 4);
    scene.world.let_in(old, false);
    scene.start(old);
    scene.lead();
}

fn before_commit(scene: &mut Scene) {
    let leader = scene.lead();
    scene.commit(leader, 3);
    let zxid = scene.propose(leader, 1);
    scene.until("a quorum has synced it", |world| {
        let synced = (0..3).filter(|&at| durable(world, at) >= zxid);
        synced.count() >= 2
    });
    scene.crash_all();
    scene.start_all();
    scene.lead();
    let kept = scene.world.hosts.iter().all(|host| {
        let server = host.server.as_ref();
        server.is_some_and(|server| server.app.applied >= zxid)
    });
    let right = kept
        .then_some(())
        .ok_or(format!("{zxid} is lost, which a quorum had synced"));
    scene.world.stage.judge.check(scene.world.stage.now, right);
}

fn every_write(scene: &mut Scene) {
    let leader = scene.lead();
    scene.commit(leader, 3);
    let lagging = scene.follower(0);
    for events in 0..40 {
        scene.kill(lagging);
        scene.commit(leader, 2);
        scene.world.hosts[lagging].disk.crash_after(events * 2);
        scene.start(lagging);
        // It either comes to the planned loss of power, or is up to date before.
        scene.until("it is down or up to date", |world| {
            let host = &world.hosts[lagging];
            host.server.is_none() || world.agrees()
        });
        if scene.world.hosts[lagging].server.is_some() {
            scene.propose(leader, 40);
            scene.until_down(lagging);
        }
        scene.start(lagging);
        scene.lead();
    }
}

fn twenty_rounds(scene: &mut Scene) {
    let mut leader = scene.lead();
    for round in 0..20 {
        scene.propose(leader, round % 4);
        scene.pass_ms(round * 3 % 17);
        match round % 2 {
            0 => scene.kill(leader),
            _ => scene.crash(leader),
        }
        let old = leader;
        leader = scene.lead_instead_of(old);
        scene.start(old);
    }
}
