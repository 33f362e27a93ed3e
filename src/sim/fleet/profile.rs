//! What kind of world a seed makes.

use super::super::random::{Random, Span};
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
    /// How long a write takes, µs.
    pub write: Span,
    /// How long a sync takes, µs.
    pub sync: Span,
    /// How long a shard or core takes to look at what it was sent, µs.
    pub turn: Span,
    /// Transactions between two snapshots; 0 for none.
    pub snapshot_every: u64,
    /// Bytes of a segment of the log.
    pub segment_bytes: u32,
    /// How often a fault strikes, µs; never, if the longest is 0.
    pub faults_every: Option<Span>,
    /// Clients that speak to another server each time, in a million.
    pub wanderers: u32,
    /// How often a beat goes to another server than the last, in a million.
    pub hops: u32,
    /// The servers that clients speak to; all of them, if none is named.
    pub haunts: Vec<usize>,
    /// How often a client does something else than beat, in a million acts.
    pub chores: u32,
    /// How often a client rests for good, leaves, or joins anew after it, in a million acts.
    pub moods: u32,
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
            write: Span::new(1, 50),
            sync: Span::new(100, 3_000),
            turn: Span::new(1, 200),
            snapshot_every: 0,
            segment_bytes: 16_384,
            faults_every: None,
            wanderers: 0,
            hops: 0,
            haunts: Vec::new(),
            chores: 20_000,
            moods: 0,
        }
    }

    /// The world of a seed.
    #[must_use]
    pub fn draw(random: &mut Random) -> Profile {
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
            sync: calm.sync.times(slow),
            turn: random.pick(&[Span::new(1, 100), Span::new(1, 5_000)]),
            snapshot_every: random.pick(&[0, 5, 20, 100]),
            segment_bytes: random.pick(&[4_096, 16_384]),
            faults_every: Some(random.pick(&[
                Span::new(50_000, 2_000_000),
                Span::new(500_000, 8_000_000),
                Span::new(1_000_000, 30_000_000),
            ])),
            wanderers: random.pick(&[0, 300_000, 1_000_000]),
            hops: random.pick(&[0, 20_000, 300_000]),
            moods: random.pick(&[0, 2_000, 20_000]),
            ..calm
        }
    }
}
