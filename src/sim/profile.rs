//! What kind of world a seed makes: how many servers, how fast, how roughly treated.
//!
//! Every seed enables another subset of faults at other rates (swizzling): some bugs need a
//! quiet world with one kind of trouble, and some need all of it.

use super::faults::FaultKind;
use super::links::Rules;
use super::net::Weather;
use super::random::{Random, Span};
use crate::time::Millis;
use crate::zab::{Limits, Timing};

/// A world's character.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Servers that vote.
    pub voters: usize,
    /// Servers that only learn.
    pub observers: usize,
    /// The peers' patience.
    pub timing: Timing,
    /// The peers' maxima.
    pub limits: Limits,
    /// How long a message takes, µs.
    pub latency: Span,
    /// How long the disk takes.
    pub disk: DiskTimes,
    /// Bytes of a segment of the log.
    pub segment_bytes: u32,
    /// Deliveries between two snapshots; 0 for none.
    pub snapshot_every: u64,
    /// How many snapshots are kept.
    pub snapshots_kept: usize,
    /// Time between two turns of the clients.
    pub clients: Span,
    /// Most transactions that are proposed in one turn.
    pub burst_max: u64,
    /// Turns that ask for a barrier instead, in a million.
    pub barriers: u32,
    /// Transactions sent to a follower for the leader, in a million.
    pub forwarded: u32,
    /// Longest filling of a transaction, bytes.
    pub payload_max: u64,
    /// What the network does at all times.
    pub weather: Weather,
    /// Time between two faults.
    pub faults_every: Span,
    /// The faults there are, each as often as it stands here.
    pub faults: Vec<FaultKind>,
    /// Changes of phase that draw a fault upon them, in a million.
    pub ambush: u32,
    /// True if clocks drift.
    pub drift: bool,
}

/// How long the disk takes, µs.
#[derive(Clone, Copy, Debug)]
pub struct DiskTimes {
    /// To take an append.
    pub write: Span,
    /// To sync.
    pub sync: Span,
    /// To write epochs, cut, or install.
    pub change: Span,
    /// From the end of a write to the report.
    pub report: Span,
    /// To read.
    pub read: Span,
}

impl Profile {
    /// An ordinary day: `voters` servers, default times and limits, and no faults.
    #[must_use]
    pub fn calm(voters: usize, observers: usize) -> Profile {
        Profile {
            voters,
            observers,
            timing: Timing::DEFAULT,
            limits: Limits::DEFAULT,
            latency: Span::new(100, 1_000),
            disk: DiskTimes {
                write: Span::new(2, 20),
                sync: Span::new(100, 1_500),
                change: Span::new(200, 3_000),
                report: Span::new(1, 60),
                read: Span::new(20, 500),
            },
            segment_bytes: 4_096,
            snapshot_every: 200,
            snapshots_kept: 2,
            clients: Span::new(500, 5_000),
            burst_max: 4,
            barriers: 20_000,
            forwarded: 100_000,
            payload_max: 40,
            weather: Weather::default(),
            faults_every: Span::new(100_000, 1_000_000),
            faults: Vec::new(),
            ambush: 0,
            drift: true,
        }
    }

    /// The world of a seed. `servers`, if given, is how many vote.
    #[must_use]
    pub fn drawn(random: &mut Random, servers: Option<usize>) -> Profile {
        let voters = servers.unwrap_or_else(|| random.pick(&[3, 3, 3, 5, 5, 7]));
        let observers = usize::from(random.chance(300_000)) + usize::from(random.chance(50_000));
        let mut profile = Profile::calm(voters, observers);
        profile.draw_sizes(random);
        profile.draw_speeds(random);
        profile.weather = drawn_weather(random);
        let every = random.pick(&[30_000, 100_000, 300_000, 1_000_000]);
        profile.faults_every = Span::new(every / 10, every * 2);
        profile.ambush = random.pick(&[0, 0, 20_000, 100_000, 300_000]);
        for &kind in FaultKind::ALL {
            if random.chance(450_000) {
                let weight = random.pick(&[1, 1, 2, 4]);
                profile.faults.extend(std::iter::repeat_n(kind, weight));
            }
        }
        profile
    }

    /// Servers in all.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.voters + self.observers
    }

    /// What a leader must keep to with each learner. Two pings later than the limit it has noticed,
    /// the first of them being the one that begins to count.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let timing = &self.timing;
        let within_us = |limit: Millis| (limit.0 + 3 * timing.ping.0) * 1_000 + PATIENCE_US;
        Rules {
            unacknowledged_max: self.limits.unacknowledged_max,
            sync_limit_us: within_us(timing.sync_limit),
            init_limit_us: within_us(timing.init_limit),
        }
    }

    /// Small maxima, so that their edges are met.
    fn draw_sizes(&mut self, random: &mut Random) {
        let limits = &mut self.limits;
        limits.in_flight_max = random.pick(&[2, 16, 100, 1_000, 100_000]);
        limits.window_entries_max = random.pick(&[0, 1, 8, 50, 500, 65_536]);
        limits.window_bytes_max = random.pick(&[100, 2_000, 16 << 20]);
        limits.unacknowledged_max = random.pick(&[1, 4, 64, 1_000, 200_000]);
        limits.read_bytes_max = random.pick(&[64, 300, 2_000, 256 << 10]);
        limits.barriers_max = random.pick(&[1, 16, 65_536]);
        if random.chance(200_000) {
            limits.counter_max = random.between(20, 400);
        }
        self.segment_bytes = random.pick(&[1_024, 1_024, 2_048, 4_096, 16_384]);
        self.snapshot_every = random.pick(&[0, 10, 50, 50, 300, 300, 1_000]);
        self.snapshots_kept = random.pick(&[1, 2, 2, 3]);
        self.payload_max = random.pick(&[1, 40, 40, 200]);
    }

    fn draw_speeds(&mut self, random: &mut Random) {
        self.drift = random.chance(800_000);
        if random.chance(500_000) {
            // Everything ten times as patient or impatient as by default, but for the network.
            self.timing = Timing {
                ping: Millis(40),
                sync_limit: Millis(250),
                init_limit: Millis(2_000),
                finalize: Millis(40),
                notify_min: Millis(20),
                notify_max: Millis(400),
                retry: Millis(30),
                disk_limit: Millis(500),
            };
        }
        self.latency = random.pick(&[
            Span::new(50, 500),
            Span::new(100, 1_000),
            Span::new(500, 20_000),
            Span::new(10, 60_000),
        ]);
        let slow = random.pick(&[1, 1, 1, 4, 15]);
        let disk = &mut self.disk;
        disk.sync = disk.sync.times(slow);
        disk.change = disk.change.times(slow);
        disk.report = random.pick(&[Span::new(1, 10), Span::new(1, 60), Span::new(10, 5_000)]);
        disk.read = disk.read.times(random.pick(&[1, 1, 20]));
        self.clients = random.pick(&[
            Span::new(100, 1_500),
            Span::new(500, 5_000),
            Span::new(1_000, 30_000),
            Span::new(5_000, 200_000),
        ]);
        self.burst_max = random.pick(&[1, 4, 4, 30]);
        self.barriers = random.pick(&[0, 20_000, 200_000]);
        self.forwarded = random.pick(&[0, 100_000, 800_000]);
    }
}

/// The network at all times: most worlds have one that is like TCP's.
fn drawn_weather(random: &mut Random) -> Weather {
    let mut weather = Weather::default();
    if random.chance(500_000) {
        weather.late = random.pick(&[0, 100_000, 1_000_000]);
        weather.silent = random.pick(&[0, 200_000, 900_000]);
        weather.spike = random.pick(&[0, 0, 1_000, 20_000]);
    }
    if random.chance(250_000) {
        weather.loss = random.pick(&[0, 100, 3_000]);
        weather.repeat = random.pick(&[0, 1_000, 50_000]);
        weather.overtake = random.pick(&[0, 100, 3_000]);
    }
    weather
}

/// What drifting clocks and late timers may add to a limit, µs.
const PATIENCE_US: u64 = 100_000;
