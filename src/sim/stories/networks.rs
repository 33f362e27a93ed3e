//! Networks that come apart.

use super::super::faults::FaultKind;
use super::super::recovery::STILL_US;
use super::super::world::World;
use super::{Scene, Story};
use crate::types::Epoch;
use crate::zab::Phase;

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
    Story {
        name: "22-epochs-that-nobody-shares",
        about: "a server takes one epoch after the other and falls before any voter hears of them",
        play: unshared,
        servers: (3, 1),
    },
    Story {
        name: "22-a-voter-many-epochs-ahead",
        about: "who must lead knows of few epochs, and the voter it needs has promised many",
        play: ahead,
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

/// The third server chooses epochs with the first, which hears of none of them; an observer
/// might. Then the first and the second agree on a lower one.
fn unshared(scene: &mut Scene) {
    let (heard_of, other, alone, observer) = (0, 1, 2, 3);
    let leader = scene.lead();
    scene.commit(leader, 3);
    scene.crash_all();
    scene.start(heard_of);
    scene.start(observer);
    for _ in 0..4 {
        chooses_unheard(scene, alone, heard_of);
    }
    scene.start(other);
    scene.until(
        "the two lead and follow, and the observer learns",
        |world| {
            let phases = [heard_of, other, observer].map(|at| world.hosts[at].phase());
            phases.contains(&Some(Phase::Leading))
                && phases.contains(&Some(Phase::Following))
                && phases[2] == Some(Phase::Observing)
        },
    );
    scene.start(alone);
    scene.lead();
}

/// The third server chooses epoch after epoch that nobody hears of. Then one that knows of none of
/// them has the newest history, so that it must lead, and nobody but the third to follow it. What
/// the third has promised it learns in one election; by counting it takes one for each epoch.
fn ahead(scene: &mut Scene) {
    let (heard_of, other, ahead) = (0, 1, 2);
    let leader = scene.lead();
    scene.commit(leader, 3);
    scene.crash_all();
    scene.start(heard_of);
    for _ in 0..EPOCHS_AHEAD {
        chooses_unheard(scene, ahead, heard_of);
    }
    scene.start(other);
    let leader = scene.lead_instead_of(ahead);
    scene.commit(leader, 1);
    scene.kill(heard_of + other - leader);
    scene.start(ahead);
    scene.within_ms(STILL_US / 1_000, "the third follows", |world| {
        world.hosts[leader].leads() && world.hosts[ahead].phase() == Some(Phase::Following)
    });
    scene.start_all();
    scene.lead();
}

/// `alone` starts, chooses an epoch with `heard_of`, which it is not told of, and loses power.
pub(super) fn chooses_unheard(scene: &mut Scene, alone: usize, heard_of: usize) {
    let before = accepted(&scene.world, heard_of);
    scene.start(alone);
    let before = before.max(accepted(&scene.world, alone));
    scene.until("it has chosen an epoch", |world| {
        accepted(world, alone) > before
    });
    // What it announces reaches observers alone.
    scene.world.stage.net.close(alone, heard_of, false);
    scene.pass_ms(30);
    scene.crash(alone);
    scene.world.stage.net.reopen(alone, heard_of, false);
    scene.pass_ms(100);
}

/// More epochs than there is time for elections within which an ensemble must come further.
const EPOCHS_AHEAD: u32 = 60;

/// The epoch that a running server has promised, on its disk.
fn accepted(world: &World, at: usize) -> Option<Epoch> {
    let server = world.hosts[at].server.as_ref();
    server.map(|server| server.log.epochs().accepted)
}
