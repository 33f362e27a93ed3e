//! The characters of drawn worlds: what meets seldom meets often in one of them.

use super::super::net::Weather;
use super::super::random::{Random, Span};
use super::faults::Kind;
use super::profile::{Profile, some_of};
use crate::time::Millis;

/// Bends a world that was drawn.
pub(super) type Character = fn(Profile, &mut Random) -> Profile;

/// Every character, as often as it is to be drawn.
pub(super) const ALL: &[Character] = &[
    as_drawn, as_drawn, as_drawn, as_drawn, as_drawn, sharp, stranded, stranded, sent_on, sent_on,
    deposed, restarted, restarted, haunted, doubled, marooned, belated,
];

fn as_drawn(any: Profile, _: &mut Random) -> Profile {
    any
}

/// Quiet but for an owner that is cut off now and then: nothing but the clocks' drift lies
/// between its last promise and the end of its sessions.
fn sharp(any: Profile, random: &mut Random) -> Profile {
    let calm = Profile::calm();
    let (timeout, lease) = random.pick(&[(1_000, 1_200), (4_000, 6_000), (10_000, 6_000)]);
    let whole = (timeout + lease) * 1_000;
    Profile {
        servers: any.servers,
        shards: any.shards,
        clients: 3,
        timeouts: vec![timeout],
        lease: Millis(lease),
        latency: random.pick(&[Span::new(50, 300), Span::new(100, 2_000)]),
        way: Span::new(50, 300),
        sync: Span::new(50, 300),
        faults_every: Some(Span::new(whole / 2, 2 * whole)),
        faults: vec![Kind::Cut],
        lasts: vec![Span::new(whole, 2 * whole)],
        beats: timeout / 8,
        stubborn: 1_000_000,
        chores: 0,
        ..calm
    }
}

/// Owners are cut off for about as long as their sessions live, their clients stay with them, and
/// what the leader decides meanwhile takes its time.
fn stranded(any: Profile, random: &mut Random) -> Profile {
    let (timeout, lease) = random.pick(&[(300, 1_200), (500, 1_200), (1_000, 1_200)]);
    let whole = (timeout + lease) * 1_000;
    let kinds = [
        Kind::Cut,
        Kind::Cut,
        Kind::Pause,
        Kind::SlowDisk,
        Kind::SlowWays,
    ];
    Profile {
        clients: 4,
        timeouts: vec![timeout],
        lease: Millis(lease),
        latency: Span::new(100, 2_000),
        sync: Span::new(100, 3_000),
        slow_disks: random.pick(&[0, 600_000]),
        mail: random.pick(&[Span::new(1, 5_000), Span::new(1, 200_000)]),
        faults_every: Some(Span::new(200_000, 2 * whole)),
        faults: some_of(random, &kinds),
        at_leader: 0,
        lasts: vec![
            Span::new(whole - 200_000, whole + 600_000),
            Span::new(whole, 2 * whole),
        ],
        beats: timeout / 20,
        answer_us: 200_000,
        stubborn: random.pick(&[900_000, 1_000_000]),
        wanderers: 0,
        hops: 0,
        moods: 0,
        rests: 0,
        chores: random.pick(&[5_000, 400_000]),
        ..any
    }
}

/// Beats go to and fro between servers that do not all hear each other, so that sessions move, and
/// shards hear late of it.
fn sent_on(any: Profile, random: &mut Random) -> Profile {
    let timeouts = random.pick(&[&[500][..], &[500, 1_000], &[600, 3_000]]);
    let kinds = [
        Kind::Part,
        Kind::Part,
        Kind::Cut,
        Kind::Stall,
        Kind::SlowWays,
        Kind::Break,
    ];
    Profile {
        timeouts: timeouts.to_vec(),
        mail: random.pick(&[
            Span::new(1, 5_000),
            Span::new(1, 120_000),
            Span::new(20_000, 250_000),
        ]),
        faults_every: Some(Span::new(100_000, 3_000_000)),
        faults: some_of(random, &kinds),
        lasts: vec![
            Span::new(100_000, 1_500_000),
            Span::new(2_000_000, 15_000_000),
        ],
        beats: 10,
        answer_us: 300_000,
        twins: random.chance(500_000),
        wanderers: random.pick(&[0, 500_000]),
        hops: 300_000,
        moods: 0,
        rests: random.pick(&[50_000, 300_000]),
        ..any
    }
}

/// Leaders lose their connections again and again, and often win the next election.
fn deposed(any: Profile, random: &mut Random) -> Profile {
    let (timeout, lease) = random.pick(&[(300, 1_200), (500, 1_200), (1_000, 3_000)]);
    Profile {
        timeouts: vec![timeout],
        lease: Millis(lease),
        sync: random.pick(&[Span::new(100, 3_000), Span::new(5_000, 200_000)]),
        faults_every: Some(Span::new(100_000, 1_200_000)),
        faults: some_of(
            random,
            &[
                Kind::Break,
                Kind::Break,
                Kind::Cut,
                Kind::Kill,
                Kind::Maroon,
                Kind::SlowDisk,
            ],
        ),
        lasts: vec![Span::new(50_000, 600_000), Span::new(1_500_000, 6_000_000)],
        beats: 10,
        stubborn: 500_000,
        ..any
    }
}

/// Servers start again, faster and slower than their sessions are given up.
fn restarted(any: Profile, random: &mut Random) -> Profile {
    Profile {
        timeouts: random.pick(&[&[300][..], &[500, 1_000], &[3_000]]).to_vec(),
        lease: Millis(1_200),
        adopt_limit: random.pick(&[1, 1, 2]),
        sync: random.pick(&[Span::new(100, 3_000), Span::new(20_000, 300_000)]),
        faults_every: Some(Span::new(200_000, 3_000_000)),
        faults: some_of(
            random,
            &[
                Kind::Kill,
                Kind::Kill,
                Kind::Power,
                Kind::Cut,
                Kind::SlowDisk,
            ],
        ),
        lasts: vec![Span::new(1_000, 300_000), Span::new(1_000_000, 3_000_000)],
        beats: 10,
        clients: 8,
        ..any
    }
}

/// Two clients go by one name and stay where they are, and now and then one of them wants another
/// timeout, and rests.
fn doubled(any: Profile, random: &mut Random) -> Profile {
    Profile {
        timeouts: vec![400, 1_500],
        lease: random.pick(&[Millis(3_000), Millis(6_000)]),
        faults_every: Some(Span::new(1_000_000, 8_000_000)),
        faults: vec![Kind::Cut],
        lasts: vec![Span::new(2_000_000, 8_000_000)],
        beats: 20,
        answer_us: 200_000,
        twins: true,
        wanderers: 0,
        hops: random.pick(&[0, 20_000]),
        stubborn: 900_000,
        chores: 200_000,
        takeovers: 0,
        fickle: 1_000_000,
        moods: 0,
        rests: 100_000,
        ..any
    }
}

/// A leader hears late, and goes on hearing what was said to it before all but one server have
/// left it.
fn marooned(any: Profile, random: &mut Random) -> Profile {
    let calm = Profile::calm();
    Profile {
        servers: 5,
        shards: any.shards,
        timeouts: vec![500],
        lease: Millis(1_200),
        latency: Span::new(100, 1_000),
        weather: Weather {
            late: 1_000_000,
            ..Weather::default()
        },
        faults_every: Some(Span::new(300_000, 3_000_000)),
        faults: vec![Kind::SlowWays, Kind::Maroon],
        at_leader: 1_000_000,
        lasts: vec![Span::new(2_500_000, 5_000_000)],
        beats: 20,
        answer_us: 200_000,
        stubborn: random.pick(&[900_000, 1_000_000]),
        chores: 0,
        ..calm
    }
}

/// Everything between servers takes longer than it takes an owner to ask for its next lease.
fn belated(any: Profile, random: &mut Random) -> Profile {
    let calm = Profile::calm();
    Profile {
        shards: any.shards,
        timeouts: vec![500],
        lease: random.pick(&[Millis(1_200), Millis(2_400)]),
        latency: Span::new(50_000, 400_000),
        faults_every: Some(Span::new(2_000_000, 6_000_000)),
        faults: vec![Kind::Cut],
        at_leader: 0,
        lasts: vec![Span::new(3_000_000, 6_000_000)],
        beats: 20,
        answer_us: 200_000,
        stubborn: 1_000_000,
        chores: 0,
        ..calm
    }
}

/// Members are taken over, leave and come back elsewhere, while shards hear late of it.
fn haunted(any: Profile, random: &mut Random) -> Profile {
    Profile {
        shards: 2,
        timeouts: random.pick(&[&[500][..], &[500, 4_000]]).to_vec(),
        mail: random.pick(&[Span::new(1, 20_000), Span::new(1, 200_000)]),
        faults_every: Some(Span::new(500_000, 4_000_000)),
        faults: some_of(
            random,
            &[Kind::Stall, Kind::Pause, Kind::Part, Kind::SlowWays],
        ),
        lasts: vec![Span::new(20_000, 900_000)],
        beats: 20,
        twins: random.chance(500_000),
        hops: 300_000,
        chores: 200_000,
        takeovers: 500_000,
        moods: 50_000,
        rests: 20_000,
        ..any
    }
}
