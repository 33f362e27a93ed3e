//! How long a change of leader takes, in simulated time.
//!
//! A leader falls while so many proposals are in flight; the clock runs until a transaction
//! proposed at its successor is committed. Everything before that is in it: noticing, election,
//! discovery, synchronization, the commit of what was in flight. What is simulated is waiting,
//! for messages, disks and patience; the work of a processor takes no time.

use std::sync::Arc;

use super::plants::Planted;
use super::profile::{DiskTimes, Profile};
use super::random::Span;
use super::world::World;
use crate::zab::Phase;

/// A way for a leader to fall.
#[derive(Clone, Copy, Debug)]
pub struct Fall {
    /// Servers that vote.
    pub voters: usize,
    /// Proposals that are not committed when it falls.
    pub in_flight: u64,
    /// True if all followers have them on disk; false if just enough have for the rest to be
    /// brought up by a Diff of all of them.
    pub everywhere: bool,
    /// True if the process ends, which its peers notice by their connections; false if it
    /// merely stops, which they notice by its silence.
    pub killed: bool,
}

/// Simulated µs from the fall to the next commit, with the times that `seed` draws; or why it
/// never came.
///
/// # Errors
/// What went wrong, in plain words.
pub fn measure(fall: Fall, seed: u64) -> Result<u64, String> {
    let mut world = World::new(seed, profile(fall.voters), Planted::default(), None);
    world.script();
    world.begin();
    run_until(&mut world, "all follow one leader", World::agrees)?;
    let leader = leading(&world, usize::MAX).ok_or("nobody leads")?;
    world.run_for(seed % 200_000);
    let followers: Vec<usize> = (0..fall.voters).filter(|&at| at != leader).collect();
    // With what the leader has, these are one short of a quorum's acknowledgements for ever:
    // nothing they say arrives any more.
    let holders = if fall.everywhere {
        followers.len()
    } else {
        fall.voters / 2
    };
    for (nth, &at) in followers.iter().enumerate() {
        world.stage.net.close(at, leader, true);
        if nth >= holders {
            world.stage.net.close(leader, at, true);
        }
    }
    let mut last = None;
    for _ in 0..fall.in_flight {
        propose(&mut world, leader);
        last = world.hosts[leader]
            .server
            .as_ref()
            .map(|server| server.peer.last_logged());
    }
    if let Some(last) = last {
        run_until(&mut world, "the proposals are on disk", |world| {
            followers[..holders].iter().all(|&at| {
                let server = world.hosts[at].server.as_ref();
                server.is_some_and(|server| server.log.durable() >= last)
            })
        })?;
    }
    let fell_at = world.stage.now;
    if fall.killed {
        world.act(leader, |host, stage| host.kill(stage));
    } else {
        world.hosts[leader].pauses += 1;
    }
    run_until(&mut world, "another one leads", |world| {
        leading(world, leader).is_some()
    })?;
    let successor = leading(&world, leader).ok_or("nobody leads")?;
    propose(&mut world, successor);
    let server = world.hosts[successor].server.as_ref();
    let proposed = server
        .map(|server| server.peer.last_logged())
        .ok_or("it is gone")?;
    run_until(&mut world, "the next commit", |world| {
        let server = world.hosts[successor].server.as_ref();
        server.is_some_and(|server| server.app.applied >= proposed)
    })?;
    Ok(world.stage.now - fell_at)
}

fn propose(world: &mut World, at: usize) {
    let payload: Arc<[u8]> = world.stage.judge.oracle.invent(20).into();
    world.act(at, |host, stage| {
        host.propose(stage, payload);
    });
}

/// Who leads, other than `former`.
fn leading(world: &World, former: usize) -> Option<usize> {
    let mut hosts = world.hosts.iter().filter(|host| host.at != former);
    hosts
        .find(|host| host.phase() == Some(Phase::Leading))
        .map(|host| host.at)
}

fn run_until(
    world: &mut World,
    what: &str,
    mut case: impl FnMut(&World) -> bool,
) -> Result<(), String> {
    let limit = world.stage.now + PATIENCE_US;
    while !case(world) {
        if let Some(violation) = world.stage.judge.violation() {
            return Err(violation.what.clone());
        }
        if world.stage.now > limit {
            return Err(format!(
                "a minute passes before {what}: {}",
                world.describe()
            ));
        }
        world.step();
    }
    Ok(())
}

/// A machine room: messages take up to half a millisecond, the disk syncs in a fifth of one.
fn profile(voters: usize) -> Profile {
    Profile {
        latency: Span::new(50, 500),
        disk: DiskTimes {
            write: Span::new(0, 2),
            sync: Span::new(130, 300),
            change: Span::new(300, 900),
            report: Span::new(1, 20),
            read: Span::new(20, 100),
        },
        segment_bytes: 1 << 20,
        snapshot_every: 0,
        burst_max: 0,
        barriers: 0,
        forwarded: 0,
        ..Profile::calm(voters, 0)
    }
}

/// Simulated µs after which what has not happened never will.
const PATIENCE_US: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const FALL: Fall = Fall {
        voters: 3,
        in_flight: 50,
        everywhere: true,
        killed: true,
    };

    #[test]
    fn a_killed_leader_is_missed_at_once_and_a_stopped_one_after_its_silence() {
        for seed in 0..3 {
            let killed = measure(FALL, seed).unwrap();
            let stopped = Fall {
                killed: false,
                ..FALL
            };
            let stopped = measure(stopped, seed).unwrap();
            assert!(killed < 1_000_000, "killed: {killed} µs");
            assert!(
                stopped > 700_000,
                "a stop shows by silence alone: {stopped} µs"
            );
        }
    }

    #[test]
    fn what_only_one_follower_holds_is_carried_over() {
        let fall = Fall {
            everywhere: false,
            in_flight: 300,
            ..FALL
        };
        assert!(measure(fall, 1).is_ok());
    }
}
