//! Stories with an end that is known: each drives the world to one awkward point, and leaves the
//! rest to the judge.
//!
//! The seed still draws how long everything takes, so that a story is told in many ways. The
//! numbers are those of PROTOCOL.md, §5.

mod crashes;
mod disks;
mod joins;
mod lies;
mod networks;

use std::sync::Arc;

use super::faults::FaultKind;
use super::judge::Sink;
use super::plants::Planted;
use super::profile::Profile;
use super::world::{Outcome, World};
use crate::types::Zxid;
use crate::zab::{Body, Message, Phase};

/// One story.
#[derive(Clone, Copy)]
pub struct Story {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    play: fn(&mut Scene),
    servers: (usize, usize),
}

/// A world under a script. No clients come and nothing fails unless the script says so.
pub struct Scene {
    /// The world.
    pub world: World,
}

/// Every story.
pub fn all() -> impl Iterator<Item = Story> {
    let parts = [
        crashes::ALL,
        disks::ALL,
        joins::ALL,
        networks::ALL,
        lies::ALL,
    ];
    parts.into_iter().flatten().copied()
}

/// Tells the story of this name with the times of `seed`; `None` if there is none.
#[must_use]
pub fn play(name: &str, seed: u64, planted: Planted, trace: Option<Sink>) -> Option<Outcome> {
    let story = all().find(|story| story.name == name)?;
    let (voters, observers) = story.servers;
    let mut profile = Profile::calm(voters, observers);
    profile.burst_max = 0;
    profile.snapshot_every = 0;
    let mut world = World::new(seed, profile, planted, trace);
    world.script();
    world.begin();
    let mut scene = Scene { world };
    (story.play)(&mut scene);
    // For the end the clients are there: all must go on.
    scene.world.stage.profile.burst_max = 3;
    Some(scene.world.finish())
}

impl Scene {
    /// Lets time pass.
    pub fn pass_ms(&mut self, time_ms: u64) {
        self.world.run_for(time_ms * 1_000);
    }

    /// Lets the world go on until something is the case. That it comes to that is part of the
    /// story: if it does not within a minute, the story fails.
    pub fn until(&mut self, what: &str, case: impl FnMut(&World) -> bool) {
        self.within_ms(60_000, what, case);
    }

    /// The same, where less than a minute is part of the story too.
    pub fn within_ms(&mut self, ms: u64, what: &str, mut case: impl FnMut(&World) -> bool) {
        self.go_on(ms, what, |world| case(world));
    }

    /// Lets the world go on until a message from `from` to `to` is under way that `change` puts
    /// something else in the place of, which no sound server says.
    pub fn falsify(
        &mut self,
        what: &str,
        from: usize,
        to: usize,
        mut change: impl FnMut(&mut Body) -> bool,
    ) {
        self.go_on(60_000, what, |world| {
            world.stage.net.alter(|packet| match &mut packet.message {
                Message::Link { body, .. } => {
                    (packet.from, packet.to) == (from, to) && change(body)
                }
                Message::Vote(_) => false,
            })
        });
    }

    fn go_on(&mut self, ms: u64, what: &str, mut case: impl FnMut(&mut World) -> bool) {
        let limit = self.world.stage.now + ms * 1_000;
        while self.world.stage.judge.violation().is_none() && !case(&mut self.world) {
            if self.world.stage.now >= limit {
                let now = self.world.stage.now;
                let what = format!("the story stops before {what}: {}", self.world.describe());
                return self.world.stage.judge.condemn(now, what);
            }
            self.world.step();
        }
    }

    /// A number below `bound`, drawn from the seed.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.world.stage.random.below(bound)
    }

    /// Lets the world go on until somebody leads and everybody else follows; the leader.
    pub fn lead(&mut self) -> usize {
        self.until("all follow one leader", World::agrees);
        self.leader()
    }

    /// Lets the world go on until somebody other than `former` leads; who.
    pub fn lead_instead_of(&mut self, former: usize) -> usize {
        let leads = |world: &World| {
            let mut leaders = world.hosts.iter().filter(|host| host.leads());
            leaders.find(|host| host.at != former).map(|host| host.at)
        };
        self.until("another one leads", |world| leads(world).is_some());
        leads(&self.world).unwrap_or(former)
    }

    /// Who leads; the first server if nobody does, since then the story has failed already.
    #[must_use]
    pub fn leader(&self) -> usize {
        let mut hosts = self.world.hosts.iter();
        hosts.find(|host| host.leads()).map_or(0, |host| host.at)
    }

    /// A voter that follows, the `nth` of them.
    #[must_use]
    pub fn follower(&self, nth: usize) -> usize {
        let voters = self.world.hosts[..self.world.stage.profile.voters].iter();
        let mut following = voters.filter(|host| host.phase() == Some(Phase::Following));
        following.nth(nth).map_or(0, |host| host.at)
    }

    /// Proposes so many transactions at a server; the last one's place.
    pub fn propose(&mut self, at: usize, count: u64) -> Zxid {
        for _ in 0..count {
            let payload: Arc<[u8]> = self.world.stage.judge.oracle.invent(20).into();
            self.world.act(at, |host, stage| {
                host.propose(stage, payload);
            });
        }
        let server = self.world.hosts[at].server.as_ref();
        server.map_or(Zxid::ZERO, |server| server.peer.last_logged())
    }

    /// Proposes, and waits until every server that runs has delivered it.
    pub fn commit(&mut self, at: usize, count: u64) {
        let zxid = self.propose(at, count);
        self.until("all have delivered it", |world| {
            let mut running = world.hosts.iter().filter_map(|host| host.server.as_ref());
            running.all(|server| server.app.applied >= zxid)
        });
    }

    /// Power is lost at one server.
    pub fn crash(&mut self, at: usize) {
        self.world.act(at, |host, stage| host.lose_power(stage));
    }

    /// A process is killed.
    pub fn kill(&mut self, at: usize) {
        self.world.act(at, |host, stage| host.kill(stage));
    }

    /// Power is lost at all servers.
    pub fn crash_all(&mut self) {
        (0..self.world.hosts.len()).for_each(|at| self.crash(at));
    }

    /// A server starts again.
    pub fn start(&mut self, at: usize) {
        self.world.start_now(at);
    }

    /// All servers that do not run start again.
    pub fn start_all(&mut self) {
        (0..self.world.hosts.len()).for_each(|at| self.start(at));
    }

    /// A fault of the random world, which ends by itself.
    pub fn inflict(&mut self, kind: FaultKind, at: usize) {
        self.world.inflict(kind, at);
    }

    /// Until power is lost at this server, which the script has planned.
    pub fn until_down(&mut self, at: usize) {
        self.until("its power is lost", |world| {
            world.hosts[at].server.is_none()
        });
    }
}

/// The last durable transaction of a server's log.
#[must_use]
pub fn durable(world: &World, at: usize) -> Zxid {
    let server = world.hosts[at].server.as_ref();
    server.map_or(Zxid::ZERO, |server| server.log.durable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_story_ends_well_however_long_everything_takes() {
        for story in all() {
            for seed in 0..8 {
                let outcome = play(story.name, seed, Planted::default(), None).unwrap();
                assert_eq!(outcome.violation, None, "{}, seed {seed}", story.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_an_unknown_one_is_no_story() {
        let mut names: Vec<_> = all().map(|story| story.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(play("none", 0, Planted::default(), None).is_none());
    }
}
