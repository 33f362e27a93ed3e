//! Learners that come late.

use super::super::random::Span;
use super::{Scene, Story};
use crate::zab::Phase;

pub(super) const ALL: &[Story] = &[
    Story {
        name: "19-late-joiner-while-proposals-flow",
        about: "a follower is synchronized while the leader goes on: neither gap nor repetition",
        play: late_joiner,
        servers: (3, 0),
    },
    Story {
        name: "09-snapshot-interrupted-then-diff-from-another",
        about: "a follower is sent a snapshot, loses its leader, and goes on with another one",
        play: interrupted_snapshot,
        servers: (5, 0),
    },
    Story {
        name: "28-snapshots-during-commits",
        about: "every server snapshots and trims while transactions are committed, and all crash",
        play: snapshots,
        servers: (3, 0),
    },
    Story {
        name: "30-observer-joins-mid-stream",
        about: "an observer comes, goes and comes again while transactions flow",
        play: observer,
        servers: (3, 1),
    },
    Story {
        name: "29-snapshot-longer-than-the-limit",
        about: "a snapshot is read so slowly that it takes longer than a synchronization may stand still",
        play: long_snapshot,
        servers: (3, 0),
    },
    Story {
        name: "26-a-slow-read-for-a-learner",
        about: "a learner is sent what a slow disk gives, and the others go on meanwhile",
        play: slow_read,
        servers: (3, 0),
    },
];

fn late_joiner(scene: &mut Scene) {
    let leader = scene.lead();
    let late = scene.follower(0);
    for _ in 0..6 {
        scene.kill(late);
        scene.propose(leader, 50);
        scene.start(late);
        for _ in 0..200 {
            scene.propose(leader, 1);
            scene.pass_ms(1);
        }
        scene.lead();
    }
}

fn interrupted_snapshot(scene: &mut Scene) {
    scene.world.stage.profile.snapshot_every = 10;
    scene.world.stage.profile.snapshots_kept = 1;
    let mut leader = scene.lead();
    let late = scene.follower(0);
    for round in 0..6 {
        scene.kill(late);
        for _ in 0..20 {
            scene.commit(leader, 10);
        }
        scene.start(late);
        scene.pass_ms(1 + round * 2);
        let old = leader;
        scene.kill(old);
        leader = scene.lead_instead_of(old);
        scene.start(old);
        scene.lead();
    }
}

fn snapshots(scene: &mut Scene) {
    scene.world.stage.profile.snapshot_every = 7;
    scene.world.stage.profile.snapshots_kept = 1;
    for _ in 0..5 {
        let leader = scene.lead();
        for _ in 0..100 {
            scene.propose(leader, 3);
            scene.pass_ms(1);
        }
        scene.crash_all();
        scene.start_all();
    }
    scene.lead();
}

fn observer(scene: &mut Scene) {
    let leader = scene.lead();
    let observer = scene.world.stage.profile.voters;
    for _ in 0..5 {
        scene.kill(observer);
        scene.propose(leader, 30);
        scene.start(observer);
        for _ in 0..100 {
            scene.propose(leader, 1);
            scene.pass_ms(1);
        }
        scene.lead();
    }
}

fn long_snapshot(scene: &mut Scene) {
    let profile = &mut scene.world.stage.profile;
    profile.snapshot_every = 10;
    profile.snapshots_kept = 1;
    profile.limits.window_entries_max = 0;
    profile.limits.read_bytes_max = 8;
    let leader = scene.lead();
    let late = scene.follower(0);
    scene.kill(late);
    for _ in 0..20 {
        scene.commit(leader, 10);
    }
    // Pieces of a few bytes, each half a second after the one before.
    scene.world.stage.profile.disk.read = Span::new(400_000, 700_000);
    scene.start(late);
    scene.until("it has been sent all of it", |world| {
        world.hosts[late].phase() == Some(Phase::Following)
    });
    scene.world.stage.profile.disk.read = Span::new(20, 500);
}

fn slow_read(scene: &mut Scene) {
    let limits = &mut scene.world.stage.profile.limits;
    limits.window_entries_max = 0;
    limits.read_bytes_max = 8;
    let leader = scene.lead();
    let (late, other) = (scene.follower(0), scene.follower(1));
    scene.kill(late);
    scene.commit(leader, 20);
    let read = std::mem::replace(
        &mut scene.world.stage.profile.disk.read,
        Span::new(400_000, 700_000),
    );
    scene.start(late);
    scene.until("it is being sent what it lacks", |world| {
        world.hosts[late].phase() == Some(Phase::Synchronization)
    });
    for _ in 0..10 {
        let zxid = scene.propose(leader, 1);
        scene.within_ms(AT_ONCE_MS, "the others commit meanwhile", |world| {
            let server = world.hosts[other].server.as_ref();
            server.is_some_and(|server| server.app.applied >= zxid)
        });
        let pause_ms = scene.draw(200);
        scene.pass_ms(pause_ms);
    }
    scene.world.stage.profile.disk.read = read;
    scene.lead();
}

/// Longer than any commit takes for which nobody has to wait, and shorter than the slow read.
const AT_ONCE_MS: u64 = 100;
