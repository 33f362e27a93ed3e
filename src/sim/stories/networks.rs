//! Networks that come apart.

use super::super::faults::FaultKind;
use super::{Scene, Story};

pub(super) const ALL: &[Story] = &[
    Story {
        name: "21-bridges-rings-and-one-way-cuts",
        about: "five servers see each other over one bridge, in a ring, one way only, or now and then",
        play: shapes,
        servers: (5, 0),
    },
    Story {
        name: "22-leader-elected-by-voters-that-vanish",
        about: "whoever elected a leader is gone when it begins to lead",
        play: vanished,
        servers: (5, 0),
    },
    Story {
        name: "23-old-messages-come-late",
        about: "what is on its way when a leader falls arrives in the next reign",
        play: late,
        servers: (3, 0),
    },
];

fn shapes(scene: &mut Scene) {
    let kinds = [
        FaultKind::Bridge,
        FaultKind::Ring,
        FaultKind::OneWay,
        FaultKind::Flap,
        FaultKind::Split,
    ];
    scene.lead();
    for kind in kinds {
        for at in 0..5 {
            scene.inflict(kind, at);
            for _ in 0..40 {
                let leader = scene.leader();
                scene.propose(leader, 2);
                scene.pass_ms(100);
            }
        }
    }
}

fn vanished(scene: &mut Scene) {
    let mut leader = scene.lead();
    scene.commit(leader, 3);
    for round in 0..6 {
        scene.kill(leader);
        let voters = [scene.follower(0), scene.follower(1)];
        scene.pass_ms(100 + round * 40);
        voters.iter().for_each(|&at| scene.kill(at));
        scene.pass_ms(300);
        scene.start_all();
        leader = scene.lead();
    }
}

fn late(scene: &mut Scene) {
    scene.world.stage.net.weather.late = 1_000_000;
    scene.world.stage.net.weather.repeat = 300_000;
    let mut leader = scene.lead();
    for _ in 0..8 {
        scene.propose(leader, 10);
        scene.pass_ms(2);
        scene.world.cut_off(leader, true);
        let old = leader;
        leader = scene.lead_instead_of(old);
        scene.propose(leader, 10);
        scene.world.let_in(old, true);
        scene.pass_ms(300);
    }
}
