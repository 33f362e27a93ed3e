//! What kind of world a seed makes.

use super::super::net::Weather;
use super::super::random::{Random, Span};
use super::characters;
use super::faults::{self, Kind};
use crate::time::Millis;
use crate::zab::Timing;

/// The character of a fleet.
#[derive(Clone, Debug)]
pub struct Profile {
    /// How many servers.
    pub servers: usize,
    /// Shards of each.
    pub shards: u16,
    /// How many members there are.
    pub clients: usize,
    /// Their timeouts, one of which each draws, ms.
    pub timeouts: Vec<u64>,
    /// How long a lease is.
    pub lease: Millis,
    /// The patience of the ensemble.
    pub timing: Timing,
    /// How long a message from server to server takes, µs.
    pub latency: Span,
    /// How long a message from client to server takes, µs.
    pub way: Span,
    /// What the network does to messages.
    pub weather: Weather,
    /// Servers whose disks are slow from the beginning, in a million.
    pub slow_disks: u32,
    /// How long a write takes, µs.
    pub write: Span,
    /// How long a sync takes, µs.
    pub sync: Span,
    /// How long the core takes to look at what it was sent, µs.
    pub turn: Span,
    /// How long a shard takes to look at its mail, µs.
    pub mail: Span,
    /// How long the log takes to be read for the replica, a piece, µs.
    pub replay: Span,
    /// Transactions between two snapshots; 0 for none.
    pub snapshot_every: u64,
    /// Bytes of a segment of the log.
    pub segment_bytes: u32,
    /// Members that one piece of an adoption looks at, and sessions that a shard takes at once
    /// through a step of their expiry, up to its own limit.
    pub adopt_limit: u32,
    /// Proposals that a leader sends a follower ahead of its acknowledgements.
    pub unacknowledged_max: u64,
    /// How often a fault strikes, µs; never, if there is none.
    pub faults_every: Option<Span>,
    /// The kinds of them.
    pub faults: Vec<Kind>,
    /// How often they strike the leader, beyond chance, in a million.
    pub at_leader: u32,
    /// How long they last, µs: one of these is drawn each time.
    pub lasts: Vec<Span>,
    /// Beats in a timeout.
    pub beats: u64,
    /// How long a client waits for an answer, µs.
    pub answer_us: u64,
    /// Two clients each go by one name.
    pub twins: bool,
    /// Clients that speak to another server each time, in a million.
    pub wanderers: u32,
    /// How often a beat goes to another server than the last, in a million.
    pub hops: u32,
    /// How often a client stays where it is refused, in a million.
    pub stubborn: u32,
    /// The servers that clients speak to; all of them, if none is named.
    pub haunts: Vec<usize>,
    /// How often a client does something else than beat, in a million acts.
    pub chores: u32,
    /// How often a join ends the session before it, in a million joins.
    pub takeovers: u32,
    /// How often a client that does a chore wants another timeout from then on, in a million.
    pub fickle: u32,
    /// How often a client rests for good, leaves, or joins anew after it, in a million acts.
    pub moods: u32,
    /// How often it rests for about its timeout, in a million acts.
    pub rests: u32,
}

impl Profile {
    /// A calm world of three servers.
    #[must_use]
    pub fn calm() -> Profile {
        Profile {
            servers: 3,
            shards: 2,
            clients: 6,
            timeouts: vec![4_000],
            lease: Millis(3_000),
            timing: Timing::DEFAULT,
            latency: Span::new(100, 2_000),
            way: Span::new(50, 2_000),
            weather: Weather::default(),
            slow_disks: 0,
            write: Span::new(1, 50),
            sync: Span::new(100, 3_000),
            turn: Span::new(1, 200),
            mail: Span::new(1, 200),
            replay: Span::new(1, 2_000),
            snapshot_every: 0,
            segment_bytes: 16_384,
            adopt_limit: 16_384,
            unacknowledged_max: crate::zab::Limits::DEFAULT.unacknowledged_max,
            faults_every: None,
            faults: Kind::ALL.to_vec(),
            at_leader: 300_000,
            lasts: vec![Span::new(10_000, 4_000_000)],
            beats: 4,
            answer_us: 1_500_000,
            twins: false,
            wanderers: 0,
            hops: 0,
            stubborn: 0,
            haunts: Vec::new(),
            chores: 20_000,
            takeovers: 0,
            fickle: 0,
            moods: 0,
            rests: 0,
        }
    }

    /// The world of a seed: one by chance, and half of the time bent to a character in which
    /// things meet that meet seldom.
    #[must_use]
    pub fn draw(random: &mut Random) -> Profile {
        let any = Profile::any(random);
        let character = random.pick(characters::ALL);
        character(any, random)
    }

    /// Lets clients live quietly and mail and replays be quick, once all is healed.
    pub(super) fn calm_down(&mut self) {
        let calm = Profile::calm();
        *self = Profile {
            servers: self.servers,
            shards: self.shards,
            clients: self.clients,
            timeouts: std::mem::take(&mut self.timeouts),
            lease: self.lease,
            sync: self.sync,
            snapshot_every: self.snapshot_every,
            segment_bytes: self.segment_bytes,
            adopt_limit: self.adopt_limit,
            unacknowledged_max: self.unacknowledged_max,
            twins: self.twins,
            wanderers: self.wanderers,
            hops: self.hops,
            haunts: std::mem::take(&mut self.haunts),
            ..calm
        };
    }

    fn any(random: &mut Random) -> Profile {
        let calm = Profile::calm();
        let slow = random.pick(&[1, 1, 4, 20]);
        Profile {
            servers: random.pick(&[3, 3, 3, 5]),
            shards: random.pick(&[1, 2]),
            clients: random.between(2, 10) as usize,
            timeouts: match random.below(4) {
                0 => vec![500, 1_000],
                1 => vec![1_000, 4_000],
                2 => vec![4_000],
                _ => vec![500, 4_000, 20_000],
            },
            lease: random.pick(&[Millis(3_000), Millis(3_000), Millis(1_200), Millis(6_000)]),
            latency: random.pick(&[
                Span::new(100, 1_000),
                Span::new(100, 5_000),
                Span::new(1_000, 60_000),
            ]),
            weather: faults::weather(random),
            slow_disks: random.pick(&[0, 0, 300_000]),
            sync: calm.sync.times(slow),
            turn: random.pick(&[Span::new(1, 100), Span::new(1, 5_000)]),
            mail: random.pick(&[Span::new(1, 100), Span::new(1, 5_000), Span::new(1, 60_000)]),
            replay: random.pick(&[Span::new(1, 2_000), Span::new(1, 300_000)]),
            snapshot_every: random.pick(&[0, 5, 20, 100]),
            segment_bytes: random.pick(&[4_096, 16_384]),
            adopt_limit: random.pick(&[1, 3, 16_384]),
            faults_every: Some(random.pick(&[
                Span::new(50_000, 2_000_000),
                Span::new(500_000, 8_000_000),
                Span::new(1_000_000, 30_000_000),
            ])),
            faults: some_of(random, Kind::ALL),
            lasts: vec![
                Span::new(10_000, 900_000),
                Span::new(500_000, 4_000_000),
                Span::new(2_000_000, 15_000_000),
                Span::new(5_000_000, 60_000_000),
            ],
            answer_us: random.pick(&[300_000, 1_500_000]),
            twins: random.chance(200_000),
            wanderers: random.pick(&[0, 300_000, 1_000_000]),
            hops: random.pick(&[0, 20_000, 300_000]),
            stubborn: random.pick(&[0, 0, 700_000]),
            chores: random.pick(&[20_000, 200_000]),
            takeovers: random.pick(&[0, 0, 300_000]),
            fickle: random.pick(&[0, 300_000]),
            moods: random.pick(&[0, 2_000, 20_000]),
            rests: random.pick(&[0, 5_000, 50_000]),
            ..calm
        }
    }
}

/// About half of them, and one at least.
pub(super) fn some_of(random: &mut Random, kinds: &[Kind]) -> Vec<Kind> {
    let sure = random.pick(kinds);
    let mut some = vec![sure];
    for kind in kinds {
        if random.chance(500_000) {
            some.push(*kind);
        }
    }
    some
}
