//! One run of one seed.

use super::judge::Sink;
use super::plants::Planted;
use super::profile::Profile;
use super::random::Random;
use super::world::{Outcome, World};

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many servers vote; drawn from the seed if not given.
    pub servers: Option<usize>,
    /// Events with faults, before all is healed.
    pub steps: u64,
    /// Faults planted on purpose.
    pub planted: Planted,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            servers: None,
            steps: 200_000,
            planted: Planted::default(),
        }
    }
}

/// Runs the world of `seed`.
#[must_use]
pub fn run(seed: u64, options: &Options, trace: Option<Sink>) -> Outcome {
    let mut random = Random::new(seed);
    let profile = Profile::drawn(&mut random, options.servers);
    World::new(seed, profile, options.planted, trace).run(options.steps)
}
