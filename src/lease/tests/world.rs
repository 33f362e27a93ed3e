//! One session, its owner, voters and one leader after another, with clocks that drift as far
//! as they may and messages that take any time.
//!
//! What is under test is the pair of [`Owner`] and [`Grantor`]; the agreement below them is
//! reduced to what they rest on: voters that accept one epoch after another and log what the
//! leader of their epoch proposes, and a new leader that takes over the longest log of a quorum.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::*;
use crate::sim::clock::Clock;
use crate::sim::random::{Random, Span};

/// What befalls the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Txn {
    /// The run that starts is recorded.
    Record(Incarnation),
    /// It takes the session over.
    Adopt(Incarnation),
    /// The session of this run ends.
    Expire(Incarnation),
}

type Entry = (Zxid, Txn);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    OwnerTurn(u64),
    /// The owner may promise for the last time before its lease ends.
    LastMoment,
    LeaderTurn(usize),
    Renew(usize, Incarnation, u64),
    Ping(usize, u64, usize),
    Pong(usize, u64, usize),
    Propose(usize, usize, Entry),
    Acked(usize, Zxid, usize),
    Grant(Incarnation, u64, Zxid),
    Applied(usize),
    Elect,
    Cut,
    Restart,
}

#[derive(Default)]
struct Voter {
    accepted: usize,
    log: Vec<Entry>,
}

impl Voter {
    /// Whose history is the more recent, as Zab compares.
    fn recency(&self) -> (usize, Option<Zxid>) {
        (self.accepted, self.log.last().map(|(zxid, _)| *zxid))
    }
}

struct Leader {
    clock: Clock,
    grantor: Grantor,
    /// Everything proposed so far, and how much of it is committed.
    log: Vec<Entry>,
    committed: usize,
    acks: BTreeMap<Zxid, BTreeSet<usize>>,
    round: u64,
    pongs: BTreeSet<usize>,
    expiring: Option<Incarnation>,
}

/// A run of the owner's server.
struct Run {
    owner: Owner,
    incarnation: Incarnation,
    clock: Clock,
    /// How much of the ghost's log it has applied.
    applied: usize,
}

pub(super) struct World {
    random: Random,
    plants: Plants,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    queued: u64,
    timeout: Millis,
    /// How long messages take.
    slow: Span,
    /// How long the voters' confirmations take.
    pongs: Span,
    /// How long the owner takes to hear what was committed, and to apply it.
    news: Span,
    /// How long a proposal takes to be in the log of a voter.
    disks: Span,
    voters: [Voter; VOTERS],
    leaders: Vec<Leader>,
    run: Run,
    /// The owner's server and the present leader do not hear each other.
    cut: bool,
    /// What is committed in truth: a quorum has logged it.
    ghost: Vec<Entry>,
    /// The last promise, in real time.
    promised: Option<u64>,
    ended: bool,
    /// What the promise was broken by.
    broken: Option<String>,
    pub(super) promises: u64,
    pub(super) expired: bool,
}

impl World {
    pub(super) fn new(seed: u64, plants: Plants) -> World {
        let mut random = Random::new(seed);
        let timeout = random.pick(&[1_000, 4_000, 10_000, 200_000]);
        let [slow, pongs, news, disks] =
            [(); 4].map(|()| random.pick(&[1_000, 50_000, 2_000_000, 20_000_000]));
        let run = Run {
            owner: Owner::new(LEASE).planted(plants),
            incarnation: Incarnation(1),
            clock: clock(&mut random, 0),
            applied: 0,
        };
        let mut world = World {
            random,
            plants,
            now: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            timeout: Millis(timeout),
            slow: Span::new(100, slow),
            pongs: Span::new(100, pongs),
            news: Span::new(100, news),
            disks: Span::new(100, disks),
            voters: Default::default(),
            leaders: Vec::new(),
            run,
            cut: false,
            ghost: Vec::new(),
            promised: None,
            ended: false,
            broken: None,
            promises: 0,
            expired: false,
        };
        world.elect();
        world.propose(Txn::Record(Incarnation(1)));
        world.propose(Txn::Adopt(Incarnation(1)));
        world.at(1, Event::OwnerTurn(1));
        for event in [Event::Elect, Event::Cut, Event::Restart] {
            world.misfortune(event);
        }
        world
    }

    /// Runs until the session has ended and nobody can promise it anything any more, or for as
    /// long as several timeouts. How the promise was broken, if it was.
    pub(super) fn run(mut self) -> Result<World, String> {
        let mut end = self.timeout.0 * 3_000 + 60_000_000;
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            self.now = at;
            self.handle(event);
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            if self.ended {
                end = end.min(self.now + 30_000_000);
            }
            if self.now > end {
                break;
            }
        }
        Ok(self)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::OwnerTurn(run) if run == self.run.incarnation.0 => self.owner_turn(),
            Event::OwnerTurn(_) => {}
            Event::LastMoment => self.owner_acts(),
            Event::LeaderTurn(leader) => self.leader_turn(leader),
            Event::Renew(leader, incarnation, n) => self.on_renew(leader, incarnation, n),
            Event::Ping(leader, round, voter) => {
                // Only who follows confirms.
                if self.voters[voter].accepted == leader {
                    let at = self.now + self.random.span(self.pongs);
                    self.at(at, Event::Pong(leader, round, voter));
                }
            }
            Event::Pong(leader, round, voter) => self.on_pong(leader, round, voter),
            Event::Propose(leader, voter, entry) => self.on_propose(leader, voter, entry),
            Event::Acked(leader, zxid, voter) => self.on_acked(leader, zxid, voter),
            Event::Grant(incarnation, n, applied) => {
                self.run.owner.on_grant(Grant {
                    incarnation,
                    n,
                    applied,
                });
                self.owner_acts();
            }
            Event::Applied(length) => {
                self.run.applied = self.run.applied.max(length);
                let recorded = Txn::Record(self.run.incarnation);
                let applied = &self.ghost[..self.run.applied];
                if applied.iter().any(|(_, txn)| *txn == recorded) {
                    self.run.owner.begin(self.run.incarnation);
                }
                self.owner_acts();
            }
            Event::Elect => {
                self.elect();
                self.misfortune(Event::Elect);
            }
            Event::Cut => {
                self.cut = !self.cut;
                self.misfortune(Event::Cut);
            }
            Event::Restart => self.restart(),
        }
    }

    fn owner_turn(&mut self) {
        let clock = self.run.clock.read(self.now);
        if let Some(renew) = self.run.owner.renew(clock) {
            let newest = self.leaders.len() - 1;
            // One that was deposed may be asked as well, or alone: it must not say yes.
            let deposed = newest.saturating_sub(1);
            for (leader, heard) in [(newest, !self.cut), (deposed, deposed < newest)] {
                if heard {
                    self.send(Event::Renew(leader, renew.incarnation, renew.n));
                }
            }
        }
        self.owner_acts();
        let turn = Event::OwnerTurn(self.run.incarnation.0);
        let pause = self.random.span(Span::new(10_000, 400_000));
        self.at(self.now + pause, turn);
    }

    /// The owner promises whenever it may: its client never rests.
    fn owner_acts(&mut self) {
        let applied = &self.ghost[..self.run.applied];
        let last = applied.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        let mine = holder(applied) == Some(self.run.incarnation);
        if let Some(until) = self.run.owner.on_applied(last) {
            // And at the last moment at which it may.
            let last = self.run.clock.when(until).saturating_sub(1);
            self.at(last.max(self.now), Event::LastMoment);
        }
        if mine && self.run.clock.read(self.now) < self.run.owner.until() {
            self.promises += 1;
            self.promised = Some(self.now);
            if self.ended {
                self.broken = Some(format!("promised at {} after its end", self.now));
            }
        }
    }

    fn leader_turn(&mut self, index: usize) {
        // Those before could have nothing committed.
        if index + 2 < self.leaders.len() {
            return;
        }
        let leader = &mut self.leaders[index];
        let clock = leader.clock.read(self.now);
        let held = holder(&leader.log[..leader.committed]);
        if let Some(incarnation) = held
            && leader.expiring.is_none()
            && leader
                .grantor
                .due(clock, (OWNER, incarnation), self.timeout)
        {
            leader.expiring = Some(incarnation);
            leader.grantor.expiry_proposed((OWNER, incarnation));
            self.propose_by(index, Txn::Expire(incarnation));
        }
        // An hour need not be watched by the millisecond.
        let pause = self.random.between(2_000, 20_000 + self.timeout.0 / 4);
        self.at(self.now + pause, Event::LeaderTurn(index));
    }

    fn on_renew(&mut self, index: usize, incarnation: Incarnation, n: u64) {
        let leader = &mut self.leaders[index];
        let clock = leader.clock.read(self.now);
        let recorded = recorded(&leader.log[..leader.committed]);
        let renew = Renew { incarnation, n };
        leader.grantor.on_renew(clock, OWNER, renew, recorded);
        self.go_on(index);
    }

    /// Begins a round if one is wanted, and sends the grants there are.
    fn go_on(&mut self, index: usize) {
        let leader = &mut self.leaders[index];
        let applied = leader.log[..leader.committed].last();
        let applied = applied.map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        let grants = leader.grantor.grants(applied);
        if leader.grantor.wants_round() {
            leader.round += 1;
            leader.pongs.clear();
            leader.grantor.round_begun(leader.round);
            let round = leader.round;
            for voter in 0..VOTERS {
                self.send(Event::Ping(index, round, voter));
            }
        }
        for (_, grant) in grants {
            self.send(Event::Grant(grant.incarnation, grant.n, grant.applied));
        }
    }

    fn on_pong(&mut self, index: usize, round: u64, voter: usize) {
        let leader = &mut self.leaders[index];
        if leader.round == round {
            leader.pongs.insert(voter);
            if leader.pongs.len() == QUORUM {
                leader.grantor.round_passed(round);
                self.go_on(index);
            }
        }
    }

    fn propose(&mut self, txn: Txn) {
        self.propose_by(self.leaders.len() - 1, txn);
    }

    fn propose_by(&mut self, index: usize, txn: Txn) {
        let leader = &mut self.leaders[index];
        let counter = 1 + leader.log.len() as u64;
        let entry = (Zxid::new(Epoch(index as u64 + 1), counter), txn);
        leader.log.push(entry);
        for voter in 0..VOTERS {
            let logged = self.now + self.random.span(self.disks);
            self.at(logged, Event::Propose(index, voter, entry));
        }
    }

    fn on_propose(&mut self, index: usize, voter: usize, entry: Entry) {
        let log = &mut self.voters[voter];
        if log.accepted != index {
            return;
        }
        let whole = &self.leaders[index].log;
        let position = whole.iter().position(|logged| *logged == entry).unwrap();
        // Links keep the order; what overtook is here what brings the others along.
        if log.log.len() <= position {
            log.log.extend_from_slice(&whole[log.log.len()..=position]);
        }
        self.commit_in_truth();
        self.send(Event::Acked(index, entry.0, voter));
    }

    /// What a quorum has logged is committed, whoever knows of it; and that is when it counts.
    fn commit_in_truth(&mut self) {
        let next = self.ghost.len();
        let newest = self.voters.iter().max_by_key(|voter| voter.recency());
        let Some(entry) = newest.unwrap().log.get(next).copied() else {
            return;
        };
        let has = |voter: &&Voter| voter.log.get(next) == Some(&entry);
        let holders = self.voters.iter().filter(has);
        if holders.count() < QUORUM {
            return;
        }
        let before = holder(&self.ghost);
        self.ghost.push(entry);
        if matches!(entry.1, Txn::Expire(_)) && before.is_some() && holder(&self.ghost).is_none() {
            self.expired = true;
            self.ended = true;
            let due = self
                .promised
                .map(|promised| promised + self.timeout.0 * 1_000);
            if due.is_some_and(|due| self.now < due) {
                let (now, timeout) = (self.now, self.timeout.0);
                let promised = self.promised.unwrap();
                let broken = format!("expired at {now}, promised {timeout} ms at {promised}");
                self.broken = Some(broken);
            }
        }
        self.commit_in_truth();
    }

    fn on_acked(&mut self, index: usize, zxid: Zxid, voter: usize) {
        let leader = &mut self.leaders[index];
        leader.acks.entry(zxid).or_default().insert(voter);
        let clock = leader.clock.read(self.now);
        while let Some((zxid, txn)) = leader.log.get(leader.committed).copied() {
            if leader
                .acks
                .get(&zxid)
                .is_none_or(|acks| acks.len() < QUORUM)
            {
                break;
            }
            leader.committed += 1;
            match txn {
                Txn::Record(_) => {}
                Txn::Adopt(run) => leader.grantor.on_assigned(clock, (OWNER, run)),
                Txn::Expire(run) => {
                    if leader
                        .expiring
                        .take_if(|expiring| *expiring == run)
                        .is_some()
                    {
                        leader.grantor.expiry_settled((OWNER, run));
                    }
                }
            }
        }
        let committed = leader.committed;
        let heard = self.now + self.random.span(self.news);
        self.at(heard, Event::Applied(committed));
        self.go_on(index);
    }

    /// A quorum accepts the next epoch, and its leader takes over their longest log.
    fn elect(&mut self) {
        let epoch = self.leaders.len();
        let left_out = self.random.below(VOTERS as u64 + 1) as usize;
        let quorum: Vec<usize> = (0..VOTERS).filter(|voter| *voter != left_out).collect();
        let voters = quorum.iter().map(|voter| &self.voters[*voter]);
        let log = voters
            .max_by_key(|voter| voter.recency())
            .unwrap()
            .log
            .clone();
        for voter in &quorum {
            self.voters[*voter] = Voter {
                accepted: epoch,
                log: log.clone(),
            };
        }
        self.commit_in_truth();
        let clock = clock(&mut self.random, self.now);
        let since = clock.read(self.now);
        let committed = log.len();
        self.leaders.push(Leader {
            clock,
            grantor: Grantor::new(since, LEASE).planted(self.plants),
            log,
            committed,
            acks: BTreeMap::new(),
            round: 0,
            pongs: BTreeSet::new(),
            expiring: None,
        });
        let heard = self.now + self.random.span(self.news);
        self.at(heard, Event::Applied(committed));
        self.at(self.now + 1, Event::LeaderTurn(epoch));
        // Who was left out hears of it some day.
        if left_out < VOTERS && self.random.chance(500_000) {
            self.voters[left_out].accepted = epoch;
            self.voters[left_out].log = self.leaders[epoch].log.clone();
        }
        let run = self.run.incarnation;
        for txn in [Txn::Record(run), Txn::Adopt(run)] {
            if !self.leaders[epoch]
                .log
                .iter()
                .any(|(_, logged)| *logged == txn)
            {
                self.propose(txn);
            }
        }
    }

    /// The owner's server starts anew, and wants its session back.
    fn restart(&mut self) {
        let incarnation = Incarnation(self.run.incarnation.0 + 1);
        self.run = Run {
            owner: Owner::new(LEASE).planted(self.plants),
            incarnation,
            clock: clock(&mut self.random, self.now),
            applied: 0,
        };
        self.propose(Txn::Record(incarnation));
        let later = self.random.chance(500_000);
        if !later {
            self.propose(Txn::Adopt(incarnation));
        }
        self.at(self.now + 1, Event::OwnerTurn(incarnation.0));
        self.misfortune(Event::Restart);
    }

    /// The next time that something happens.
    fn misfortune(&mut self, event: Event) {
        let often = self.random.pick(&[3, 10, 30, 300]);
        let pause = self.random.span(Span::new(500_000, often * 1_000_000));
        self.at(self.now + pause, event);
    }

    fn send(&mut self, event: Event) {
        let at = self.now + self.random.span(self.slow);
        self.at(at, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse((at, self.queued, event)));
    }
}

/// A clock that starts at any time and drifts as far as it may, mostly.
fn clock(random: &mut Random, now: u64) -> Clock {
    let drift = random.pick(&[-1_000, -1_000, 1_000, 1_000, 0]);
    Clock::new(now, random.below(10_000_000_000), drift)
}

/// Which run has the session by this log.
fn holder(log: &[Entry]) -> Option<Incarnation> {
    log.iter().fold(None, |holder, (_, txn)| match txn {
        Txn::Record(_) => holder,
        // The first one creates it; one that comes after its end does nothing.
        Txn::Adopt(run) if holder.is_some() || *run == Incarnation(1) => Some(*run),
        Txn::Adopt(_) => None,
        Txn::Expire(run) => holder.filter(|holder| holder != run),
    })
}

/// Which run of the owner's server is recorded.
fn recorded(log: &[Entry]) -> Option<Incarnation> {
    let records = log.iter().filter_map(|(_, txn)| match txn {
        Txn::Record(run) => Some(*run),
        Txn::Adopt(_) | Txn::Expire(_) => None,
    });
    records.max()
}

const OWNER: ServerId = ServerId(2);
const VOTERS: usize = 3;
const QUORUM: usize = 2;
