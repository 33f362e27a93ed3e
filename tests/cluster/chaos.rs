//! Random faults, one after the other, some of them on a slow network, under clients of every
//! kind; then everything heals, and everything must have been kept.
//!
//! `SYSTOLE_CHAOS_MINUTES` says for how long (a CI run is short), `SYSTOLE_SEED` repeats a run's
//! choices; the moments are the machine's. `SYSTOLE_CHAOS_NET=namespaces` cuts wires instead of
//! a relay's connections, which needs root. `just chaos 10` is a campaign.

use std::time::{Duration, Instant};

use crate::common::{Deadline, Dice, now, seed};
use crate::ensemble::Ensemble;
use crate::faults::wait_until_empty;
use crate::ledger::{Ledger, Tally};
use crate::member::{Crowd, Habits};
use crate::registers::Registers;
use crate::watcher::Watcher;

/// What is done to an ensemble; each is undone before the next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill(usize),
    KillTwo(usize),
    KillAll,
    /// SIGTERM, and a start.
    Restart(usize),
    /// SIGSTOP, and SIGCONT.
    Pause(usize),
    PauseTwo(usize),
    /// Nothing to and from it.
    Isolate(usize),
    /// Nothing from one to another.
    CutOneWay(usize, usize),
    /// It hears and is not heard.
    Mute(usize),
    /// It is heard and does not hear.
    Deafen(usize),
    /// All connections of two break, and both may connect anew.
    Sever(usize, usize),
    /// Killed, and started on an empty disk.
    Wipe(usize),
}

impl Fault {
    fn draw(dice: &mut Dice, leader: usize) -> Fault {
        // Every other fault meets the leader.
        let victim = match dice.below(2) {
            0 => leader,
            _ => dice.below(SERVERS) as usize,
        };
        let other = (victim + 1 + dice.below(SERVERS - 1) as usize) % SERVERS as usize;
        match dice.below(15) {
            0 | 1 => Fault::Kill(victim),
            2 => Fault::KillTwo(victim),
            3 => Fault::KillAll,
            4 => Fault::Restart(victim),
            5 | 6 => Fault::Pause(victim),
            7 => Fault::PauseTwo(victim),
            8 | 9 => Fault::Isolate(victim),
            10 => Fault::CutOneWay(victim, other),
            11 => Fault::Mute(victim),
            12 => Fault::Deafen(victim),
            13 => Fault::Sever(victim, other),
            _ => Fault::Wipe(victim),
        }
    }

    fn strike(self, ensemble: &mut Ensemble) {
        let next = |server| (server + 1) % SERVERS as usize;
        match self {
            Fault::Kill(server) | Fault::Wipe(server) => ensemble.kill(server),
            Fault::KillTwo(server) => {
                ensemble.kill(server);
                ensemble.kill(next(server));
            }
            Fault::KillAll => (0..SERVERS as usize).for_each(|server| ensemble.kill(server)),
            Fault::Restart(server) => ensemble.stop(server),
            Fault::Pause(server) => ensemble.pause(server),
            Fault::PauseTwo(server) => {
                ensemble.pause(server);
                ensemble.pause(next(server));
            }
            Fault::Isolate(server) => ensemble.isolate(server),
            Fault::CutOneWay(from, to) => ensemble.network.cut(from, to),
            Fault::Mute(server) => others(server).for_each(|to| ensemble.network.cut(server, to)),
            Fault::Deafen(server) => {
                others(server).for_each(|from| ensemble.network.cut(from, server))
            }
            Fault::Sever(one, other) => ensemble.network.sever(one, other),
        }
        if let Fault::Wipe(server) = self {
            let wiped = std::fs::remove_dir_all(ensemble.data_dir(server));
            wiped.expect("a data directory to wipe");
        }
    }

    /// How long it lasts, at most.
    fn longest(self) -> Duration {
        match self {
            // The members' patience is what a pause of everybody may not outlast.
            Fault::KillAll | Fault::KillTwo(_) | Fault::PauseTwo(_) => Duration::from_secs(3),
            Fault::Sever(..) => Duration::from_millis(300),
            _ => Duration::from_secs(9),
        }
    }
}

fn others(server: usize) -> impl Iterator<Item = usize> {
    (0..SERVERS as usize).filter(move |&other| other != server)
}

/// A run, and what it has come to.
struct Chaos {
    ensemble: Ensemble,
    ledger: Ledger,
    dice: Dice,
    began: Instant,
    faults: u64,
    slowest_mending: Duration,
    slowest_orphans: Duration,
}

impl Chaos {
    fn say(&self, what: &str) {
        println!("{:>9.3} s  {what}", (now() - self.began).as_secs_f64());
    }

    /// One fault, from its strike until all serve again; members that fall silent when it
    /// strikes must be gone in their bound.
    fn round(&mut self) {
        let leader = self.ensemble.leader();
        let fault = Fault::draw(&mut self.dice, leader);
        let lasts =
            Duration::from_millis(100 + self.dice.below(fault.longest().as_millis() as u64));
        let slow = Duration::from_millis(self.dice.below(3) * self.dice.below(40));
        self.say(&format!(
            "{fault:?} for {lasts:?}, the network {slow:?} slower; {} leads",
            leader + 1
        ));
        let at = self.dice.below(SERVERS) as usize;
        let endpoints = self.ensemble.addresses();
        let habits = Habits::faithful(TIMEOUT);
        let dying = Crowd::join(&endpoints, &[at], "dying", 3, &habits, &self.ledger);
        for from in 0..SERVERS as usize {
            others(from).for_each(|to| self.ensemble.network.delay(from, to, slow));
        }
        fault.strike(&mut self.ensemble);
        dying.die();
        self.ledger.silent("dying");
        Deadline::after(lasts).pass();
        let mending = now();
        self.mend(fault);
        let mended = now() - mending;
        self.slowest_mending = self.slowest_mending.max(mended);
        self.ensemble.expect_running();
        let bound = TIMEOUT + LEASE + SLACK;
        let took = wait_until_empty(&self.ensemble, at, "dying", bound);
        self.slowest_orphans = self.slowest_orphans.max(took);
        self.say(&format!(
            "all serve {mended:?} after mending, the silent are gone {took:?} later"
        ));
        self.faults += 1;
        self.ledger.expect_kept();
        Deadline::after(Duration::from_millis(self.dice.below(1_500))).pass();
    }

    fn mend(&mut self, fault: Fault) {
        if let Fault::Pause(server) | Fault::PauseTwo(server) = fault {
            self.ensemble.resume(server);
        }
        if let Fault::PauseTwo(server) = fault {
            self.ensemble.resume((server + 1) % SERVERS as usize);
        }
        self.ensemble.network.heal();
        let up = |server: &usize| !self.ensemble.is_up(*server);
        let down: Vec<usize> = (0..SERVERS as usize).filter(up).collect();
        self.ensemble.start_servers(&down);
        self.ensemble.wait_until_all_serve();
        self.ensemble.leader();
    }
}

#[test]
fn random_faults_break_no_promise() {
    let minutes = std::env::var("SYSTOLE_CHAOS_MINUTES").ok();
    let minutes: f64 = minutes.map_or(CI_MINUTES, |text| text.parse().expect("minutes"));
    let seed = seed();
    let ensemble = match std::env::var("SYSTOLE_CHAOS_NET").as_deref() {
        Ok("namespaces") => Ensemble::start_in_namespaces(SERVERS as usize),
        _ => Some(Ensemble::start(SERVERS as usize, &[])),
    };
    let Some(ensemble) = ensemble else {
        return;
    };
    let endpoints = ensemble.addresses();
    let mut chaos = Chaos {
        ensemble,
        ledger: Ledger::default(),
        dice: Dice::new(seed),
        began: now(),
        faults: 0,
        slowest_mending: Duration::ZERO,
        slowest_orphans: Duration::ZERO,
    };
    let ledger = chaos.ledger.clone();
    let (faithful, all) = (Habits::faithful(TIMEOUT), [0, 1, 2]);
    let restless = Habits {
        restless: 4,
        ..faithful.clone()
    };
    let wandering = Habits {
        wanders: true,
        ..faithful.clone()
    };
    let crowds: Vec<Crowd> = [
        ("faithful", 12, &faithful),
        ("restless", 9, &restless),
        ("wandering", 5, &wandering),
    ]
    .map(|(group, count, habits)| Crowd::join(&endpoints, &all, group, count, habits, &ledger))
    .into();
    let groups = ["faithful", "restless", "wandering"];
    let watcher = Watcher::start(&endpoints, &groups, &ledger);
    let registers = Registers::start(&endpoints, 3, seed);
    while now() - chaos.began < Duration::from_secs_f64(minutes * 60.0) {
        chaos.round();
    }
    let looks = watcher.end();
    let (steps, members) = registers.judge();
    let tally = ledger.tally();
    crowds.into_iter().for_each(Crowd::die);
    for group in groups {
        ledger.silent(group);
        let took = wait_until_empty(&chaos.ensemble, 0, group, TIMEOUT + LEASE + SLACK);
        chaos.say(&format!("{group} was empty after {took:?}"));
    }
    ledger.expect_kept();
    let all_groups = ["faithful", "restless", "wandering", "dying", "register"];
    chaos.ensemble.expect_equal(&all_groups.map(str::to_owned));
    let (faults, slowest) = (chaos.faults, chaos.slowest_orphans);
    let mended = chaos.slowest_mending;
    let Tally {
        beats,
        retries,
        lapsed,
    } = tally;
    println!(
        "{faults} faults; {beats} beats answered, {retries} questions asked again, {lapsed} sessions \
         lapsed; {looks} documents; {steps} steps of {members} members explained; \
         all served within {mended:?} of each mending, and the silent were gone within {slowest:?} \
         of that; 0 violations"
    );
    chaos.ensemble.stop_and_verify();
}

const SERVERS: u64 = 3;

/// Of every session with a client of its own.
const TIMEOUT: Duration = Duration::from_secs(6);

/// The length of a lease as it ships.
const LEASE: Duration = Duration::from_secs(3);

/// What noticing a loss, an election and a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);

/// How long a run is that nobody asks to be long.
const CI_MINUTES: f64 = 0.4;
