//! Servers that end in the middle of everything: after each single piece of disk work and each
//! single message of a phase.

use super::paper;
use super::peers::Peers;

/// What has happened to a world before it is let go on.
struct Case {
    what: String,
    world: Peers,
    /// Delivered by somebody before: must be there at the end.
    kept: Vec<String>,
}

/// Ends `victim`, lets the others go on, brings it back, and demands that all of them agree and
/// go on.
fn end_and_return(mut case: Case, victim: u32, pause_ms: u64) {
    let what = format!("{}, {victim} ended for {pause_ms} ms", case.what);
    let world = &mut case.world;
    for id in world.alive() {
        let texts = world.texts(id.0);
        case.kept.extend(texts);
    }
    world.crash(victim);
    world.run(pause_ms);
    world.start(victim);
    // Less than the init limit: nobody waits for what cannot come any more.
    world.run(6_000);
    let leaders = world.leaders();
    assert_eq!(leaders.len(), 1, "{what}: leaders {leaders:?}");
    world.propose_all(leaders[0], &["the end"]);
    world.run(500);
    let texts = world.texts(leaders[0]);
    assert_eq!(texts.last().unwrap(), "the end", "{what}");
    for id in world.alive() {
        assert_eq!(world.texts(id.0), texts, "{what}: {id} and {}", leaders[0]);
    }
    for text in &case.kept {
        assert!(
            texts.contains(text),
            "{what}: {text} was delivered and is gone"
        );
    }
    if let Err(broken) = paper::check(case.world) {
        panic!("{what}: {broken}");
    }
}

/// Every victim, after each of the first `steps` steps of a world, for a moment and for longer
/// than the others need to go on.
fn at_every_step(steps: usize, build: impl Fn() -> Peers) {
    for step in 0..steps {
        for victim in 1..=3 {
            for pause_ms in [1, 2_500] {
                let mut world = build();
                let done = world.steps(step);
                if done < step {
                    return;
                }
                let what = format!("step {step}");
                let kept = Vec::new();
                end_and_return(Case { what, world, kept }, victim, pause_ms);
            }
        }
    }
}

#[test]
fn while_an_ensemble_is_founded() {
    at_every_step(200, || {
        let mut world = Peers::new(3);
        world.start_all();
        world
    });
}

#[test]
fn while_a_new_leader_is_found_after_one_that_had_something_under_way() {
    at_every_step(120, || {
        let mut world = Peers::running(3);
        let old = world.leader();
        world.propose_all(old, &["a", "b"]);
        let others = world.others(old);
        world.hold(old, others[0]);
        world.hold(others[0], old);
        world.hold(others[1], old);
        world.propose_all(old, &["c", "d"]);
        world.crash(old);
        world.heal();
        world.start(old);
        world
    });
}

#[test]
fn while_proposals_flow() {
    at_every_step(120, || {
        let mut world = Peers::running(3);
        let leader = world.leader();
        for text in ["a", "b", "c"] {
            world.propose(leader, text).unwrap();
        }
        world
    });
}

#[test]
fn while_a_server_is_brought_up_by_a_diff() {
    at_every_step(120, || {
        let mut world = Peers::running(3);
        let leader = world.leader();
        let down = world.others(leader)[0];
        world.crash(down);
        world.propose_all(leader, &["a", "b", "c"]);
        world.start(down);
        world
    });
}

#[test]
fn while_a_server_is_brought_up_by_a_cut() {
    at_every_step(120, || {
        let mut world = Peers::running(3);
        let old = world.leader();
        world.propose_all(old, &["a"]);
        for other in world.others(old) {
            world.hold(old, other);
        }
        world.propose_all(old, &["lost", "too"]);
        world.crash(old);
        world.heal();
        world.run(3_000);
        let leader = world.leader();
        world.propose_all(leader, &["b"]);
        world.start(old);
        world
    });
}

#[test]
fn while_a_server_is_brought_up_by_a_snapshot() {
    at_every_step(120, || {
        let mut world = Peers::new(3);
        world.settings.limits.window_entries_max = 1;
        world.settings.limits.read_bytes_max = 16;
        world.start_all();
        world.run(3_000);
        let leader = world.leader();
        let down = world.others(leader)[0];
        world.crash(down);
        world.propose_all(leader, &["a", "b", "c", "d"]);
        world.snapshot(leader);
        world.propose_all(leader, &["e"]);
        world.start(down);
        world
    });
}

#[test]
fn twenty_leaders_end_in_every_phase() {
    let mut world = Peers::running(5);
    let mut kept = Vec::new();
    for round in 0..20 {
        let leader = world.leader();
        let text = format!("round {round}");
        world.propose_all(leader, &[&text]);
        assert_eq!(world.texts(leader).last(), Some(&text));
        kept.push(text);
        world.propose(leader, "under way").unwrap();
        world.steps(round);
        world.crash(leader);
        // The next leader ends as well, further on its way each time.
        world.run(150);
        world.steps(round * 3);
        let looking = world.alive().into_iter().map(|id| id.0);
        let next = looking
            .max_by_key(|id| world.peer(*id).last_logged())
            .unwrap();
        world.crash(next);
        world.run(3_000);
        for id in [leader, next] {
            world.start(id);
        }
        world.run(3_000);
    }
    let texts = world.texts(world.leader());
    for text in kept {
        assert!(texts.contains(&text), "{text}");
    }
    paper::check(world).unwrap();
}
