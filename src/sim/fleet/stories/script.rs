//! What a story does with a fleet: ask as a client, and let things go wrong at a chosen moment.
//!
//! Nothing is left to chance but the order of what happens within a millisecond: messages, writes
//! and syncs take as long as the [`still`] profile says. Clients do what they are told, and
//! nothing else.

use super::super::super::clock::Clock;
use super::super::super::random::Span;
use super::super::ghost::Ghost;
use super::super::http::{Answer, Ask};
use super::super::machine::{Machine, Stop};
use super::super::server::GROUP;
use super::super::stage::{Event, Request};
use super::super::{Fleet, Profile};
use super::{Faults, Neglect};
use crate::group::{End, Request as Change};
use crate::types::{Epoch, GroupVersion, SessionId};

/// A fleet that does what a story says.
pub(super) struct Script {
    pub(super) fleet: Fleet,
    /// The server that leads at the beginning.
    pub(super) leader: usize,
    /// The others, by number.
    pub(super) others: Vec<usize>,
    faults: Faults,
}

/// A member, and what its client knows.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its place among the names; those of even and odd place are in one group each.
    pub(super) index: usize,
    pub(super) timeout_ms: u64,
    pub(super) id: Option<SessionId>,
    pub(super) floor: Option<GroupVersion>,
}

/// A beat that was sent, and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// The position of its member among those that were kept up.
    pub(super) member: usize,
    /// When it was sent, µs.
    pub(super) sent_us: u64,
    /// The status, if it was answered.
    pub(super) status: Option<u16>,
}

/// Nothing, or what should not have come of a story.
pub(super) type Told = Result<(), String>;

/// A world of `servers` in which everything takes the time it takes.
pub(super) fn still(servers: usize) -> Profile {
    Profile {
        servers,
        clients: 0,
        chores: 0,
        latency: Span::new(500, 501),
        way: Span::new(100, 101),
        write: Span::new(1, 2),
        sync: Span::new(500, 501),
        turn: Span::new(50, 51),
        ..Profile::calm()
    }
}

impl Script {
    /// Three servers that serve, whose clocks run right.
    pub(super) fn three(faults: Faults) -> Result<Script, String> {
        Script::new(faults, still(3), 1, &[])
    }

    /// Five of them.
    pub(super) fn five(faults: Faults) -> Result<Script, String> {
        Script::new(faults, still(5), 1, &[])
    }

    /// Servers that serve. `drifts` are those of their clocks in millionths, 0 if not given.
    pub(super) fn new(
        faults: Faults,
        profile: Profile,
        seed: u64,
        drifts: &[i64],
    ) -> Result<Script, String> {
        Script::after(faults, (profile, seed), drifts, &[])
    }

    /// The same after a past in which these requests were granted.
    pub(super) fn after(
        faults: Faults,
        (profile, seed): (Profile, u64),
        drifts: &[i64],
        past: &[Change],
    ) -> Result<Script, String> {
        let mut fleet = Fleet::new(seed, profile, faults.plants, false);
        if !past.is_empty() {
            let mut ghost = Ghost::after(GROUP, past);
            ghost.plant(faults.plants.group);
            for machine in &mut fleet.machines {
                machine.remembers(&fleet.stage, ghost.state());
            }
            fleet.stage.judge.remembers(ghost);
        }
        for machine in &mut fleet.machines {
            let drift = drifts.get(machine.at).copied().unwrap_or(0);
            machine.clock = Clock::new(0, FIRST_READING_US * (1 + machine.at as u64), drift);
        }
        fleet.begin();
        let mut script = Script {
            fleet,
            leader: 0,
            others: Vec::new(),
            faults,
        };
        script.until(20_000, "all servers serve", |script| {
            let machines = &script.fleet.machines;
            machines.iter().any(Machine::leads) && machines.iter().all(serves)
        })?;
        let (leader, others) = script.fleet.roles();
        (script.leader, script.others) = (leader, others);
        Ok(script)
    }

    /// True time, µs.
    pub(super) fn now(&self) -> u64 {
        self.fleet.stage.now
    }

    /// So much time passes.
    pub(super) fn pass(&mut self, ms: u64) -> Told {
        self.pass_us(ms * 1_000)
    }

    pub(super) fn pass_us(&mut self, us: u64) -> Told {
        self.fleet.run_for(us);
        self.sound()
    }

    /// Time passes until something is so, at most `ms`.
    pub(super) fn until(&mut self, ms: u64, what: &str, holds: impl Fn(&Script) -> bool) -> Told {
        let end = self.now() + ms * 1_000;
        while !holds(self) {
            if self.now() >= end {
                return Err(format!("within {ms} ms it does not come to this: {what}"));
            }
            self.pass_us(MOMENT_US)?;
        }
        Ok(())
    }

    /// Nothing is wrong so far.
    pub(super) fn sound(&self) -> Told {
        match self.fleet.stage.judge.violation() {
            None => Ok(()),
            Some(violation) => Err(violation.what.clone()),
        }
    }

    /// Heals all, and demands that all is well.
    pub(super) fn ends_well(mut self) -> Told {
        self.open_all();
        self.connect_all();
        self.fleet.recover();
        self.sound()
    }

    /// A client asks; the number of its request.
    pub(super) fn send(&mut self, member: &Member, at: usize, ask: Ask) -> u32 {
        self.send_to(member, (at, 0), ask)
    }

    /// The same of one shard.
    pub(super) fn send_to(&mut self, member: &Member, (at, shard): (usize, u16), ask: Ask) -> u32 {
        let (group, name) = member.names();
        let bytes = ask.bytes((&group, &name), member.id, member.floor);
        self.send_bytes(member, (at, shard), ask, bytes)
    }

    /// The same in words of one's own, which are to be answered as `ask` is.
    pub(super) fn send_bytes(
        &mut self,
        member: &Member,
        (at, shard): (usize, u16),
        ask: Ask,
        bytes: Vec<u8>,
    ) -> u32 {
        let names_session = !matches!(ask, Ask::Line | Ask::Join { .. } | Ask::Beat);
        self.fleet.stage.ask(Request {
            client: member.index,
            at,
            shard,
            ask,
            bytes,
            session: member.id.filter(|_| names_session),
            floor: member.floor,
            names: member.names(),
            known: None,
            epoch: Epoch::default(),
            arrived_us: 0,
            out: Vec::new(),
            answer: None,
        })
    }

    /// The answer to a request, if it has been given.
    pub(super) fn answer(&self, number: u32) -> Option<Answer> {
        self.fleet.stage.requests.get(&number)?.answer.clone()
    }

    /// Waits for the answer.
    pub(super) fn hear(&mut self, number: u32) -> Result<Answer, String> {
        self.until(ANSWER_MS_MAX, "a request is answered", |script| {
            script.answer(number).is_some()
        })?;
        let request = self.fleet.stage.requests.remove(&number);
        request
            .and_then(|request| request.answer)
            .ok_or_else(|| "there is no such request".to_owned())
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, member: &Member, at: usize, ask: Ask) -> Result<Answer, String> {
        let number = self.send(member, at, ask);
        self.hear(number)
    }

    /// The member joins at a server, and must be let in.
    pub(super) fn join(&mut self, member: &mut Member, at: usize) -> Told {
        let answer = self.ask(member, at, member.join())?;
        ensure_status("a join", &answer, &[200, 201])?;
        member.id = answer.session;
        member.floor = answer.version;
        Ok(())
    }

    /// A new member with this timeout, in a session at a server.
    pub(super) fn member(
        &mut self,
        index: usize,
        timeout_ms: u64,
        at: usize,
    ) -> Result<Member, String> {
        let mut member = Member::new(index, timeout_ms);
        self.join(&mut member, at)?;
        Ok(member)
    }

    /// A beat, by name and session, and its status.
    pub(super) fn beat(&mut self, member: &Member, at: usize) -> Result<u16, String> {
        Ok(self.ask(member, at, Ask::BeatSession)?.status)
    }

    /// A beat that must be answered so.
    pub(super) fn beats(&mut self, member: &Member, at: usize, status: u16) -> Told {
        let answer = self.ask(member, at, Ask::BeatSession)?;
        ensure_status("a beat", &answer, &[status])
    }

    /// For so long, these members beat at these servers every `every_ms`; what they hear.
    pub(super) fn keep(
        &mut self,
        kept: &[(&Member, usize)],
        every_ms: u64,
        for_ms: u64,
    ) -> Result<Vec<Beat>, String> {
        let end = self.now() + for_ms * 1_000;
        let mut sent = Vec::new();
        while self.now() < end {
            for (position, (member, at)) in kept.iter().enumerate() {
                let number = self.send(member, *at, Ask::BeatSession);
                sent.push((position, self.now(), number));
            }
            self.pass(every_ms)?;
        }
        let beats = sent.into_iter().map(|(member, sent_us, number)| Beat {
            member,
            sent_us,
            status: self.answer(number).map(|answer| answer.status),
        });
        Ok(beats.collect())
    }

    /// How and when the session ended, µs.
    pub(super) fn end_of(&self, member: &Member) -> Option<(End, u64)> {
        let ghost = &self.fleet.stage.judge.ghost;
        ghost.ended.get(&member.id?).copied()
    }

    /// The session lives.
    pub(super) fn lives(&self, member: &Member) -> Told {
        match self.end_of(member) {
            None => Ok(()),
            Some(end) => Err(format!("m{} has ended: {end:?}", member.index)),
        }
    }

    /// Waits until the session has expired, from `from_us` to `to_us`; when that was.
    pub(super) fn expires(
        &mut self,
        member: &Member,
        from_us: u64,
        to_us: u64,
    ) -> Result<u64, String> {
        let index = member.index;
        while self.end_of(member).is_none() {
            if self.now() > to_us {
                let now = self.now();
                return Err(format!(
                    "m{index} is to expire by {to_us}, and lives at {now}"
                ));
            }
            self.pass_us(MOMENT_US)?;
        }
        match self.end_of(member) {
            Some((End::Expired, at)) if at >= from_us => Ok(at),
            end => Err(format!("m{index} is to expire from {from_us} on: {end:?}")),
        }
    }

    /// The server that owns the session by what is committed.
    pub(super) fn owner(&self, member: &Member) -> Option<usize> {
        let session = self.fleet.stage.judge.ghost.live.get(&member.id?)?;
        Some(session.owner.0 as usize - 1)
    }

    /// How many sessions have moved.
    pub(super) fn moved(&self) -> u64 {
        self.fleet.stage.judge.ghost.moved
    }

    /// How many transactions are committed.
    pub(super) fn committed(&self) -> u64 {
        self.fleet.stage.judge.ghost.committed()
    }

    /// What is said from one server to another waits from now on.
    pub(super) fn hold(&mut self, from: usize, to: usize) {
        self.fleet.stage.net.close(from, to, true);
    }

    /// It goes on, what has waited first.
    pub(super) fn release(&mut self, from: usize, to: usize) {
        if !self.fleet.stage.net.closed(from, to) {
            return;
        }
        for packet in self.fleet.stage.net.reopen(from, to, true) {
            let now = self.now();
            self.fleet.stage.queue.put(now, Event::Deliver { packet });
        }
    }

    /// Nobody of `some` hears anybody else, nor is heard.
    pub(super) fn part(&mut self, some: &[usize]) {
        for from in 0..self.fleet.machines.len() {
            for to in 0..self.fleet.machines.len() {
                if from != to && some.contains(&from) != some.contains(&to) {
                    self.hold(from, to);
                }
            }
        }
    }

    /// All ways are open.
    pub(super) fn open_all(&mut self) {
        for from in 0..self.fleet.machines.len() {
            for to in 0..self.fleet.machines.len() {
                while self.fleet.stage.net.closed(from, to) {
                    self.release(from, to);
                }
            }
        }
    }

    /// The connection of two servers breaks for good, and only the first of them is told.
    pub(super) fn breaks_for(&mut self, told: usize, other: usize) {
        if let Some(generation) = self.fleet.stage.net.disconnect(told, other) {
            self.fleet.tell(told, other, generation, false);
        }
    }

    /// The connection of two servers breaks, and both are told.
    pub(super) fn breaks(&mut self, one: usize, other: usize) {
        if let Some(generation) = self.fleet.stage.net.disconnect(one, other) {
            self.fleet.tell(one, other, generation, false);
            self.fleet.tell(other, one, generation, false);
        }
    }

    /// All servers that have lost a connection try to have one again.
    pub(super) fn connect_all(&mut self) {
        for a in 0..self.fleet.machines.len() {
            for b in 0..a {
                let (a, b) = (a as u8, b as u8);
                let now = self.now();
                self.fleet.stage.queue.put(now, Event::Connect { a, b });
            }
        }
    }

    /// A server is not run until [`Script::resume`].
    pub(super) fn pause(&mut self, at: usize) {
        self.fleet.machines[at].pauses += 1;
    }

    pub(super) fn resume(&mut self, at: usize) {
        self.fleet.machines[at].resume(&mut self.fleet.stage);
    }

    /// A machine is suspended for so long: nothing runs, and the clock goes on all the same.
    pub(super) fn suspend(&mut self, at: usize, ms: u64) -> Told {
        self.pause(at);
        let fell_asleep = self.now();
        self.pass(ms)?;
        if self.faults.neglect == Some(Neglect::ClockStops) {
            let now = self.now();
            let machine = &mut self.fleet.machines[at];
            let reading = machine.clock.read(fell_asleep).0 * 1_000;
            machine.clock = Clock::new(now, reading, 0);
            if let Some(server) = &mut machine.server {
                server.clock = machine.clock;
            }
        }
        self.resume(at);
        Ok(())
    }

    /// A server's process ends, and is started again after so long.
    pub(super) fn kill(&mut self, at: usize, down_ms: u64) {
        self.stop(at, Stop::Killed, down_ms);
    }

    pub(super) fn stop(&mut self, at: usize, how: Stop, down_ms: u64) {
        let down = down_ms * 1_000;
        self.fleet.stop(at, how, Span::new(down, down + 1));
    }

    /// The server that leads now, other than `but`.
    pub(super) fn leads_but(&self, but: usize) -> Option<usize> {
        let mut machines = self.fleet.machines.iter();
        machines.position(|machine| machine.at != but && machine.leads())
    }

    /// The epoch that a server is in, durably.
    pub(super) fn epoch(&self, at: usize) -> Option<Epoch> {
        let server = self.fleet.machines[at].server.as_ref()?;
        Some(server.replica.peer().current_epoch())
    }

    /// Transactions that a server has proposed and not committed.
    pub(super) fn in_flight(&self, at: usize) -> usize {
        let server = self.fleet.machines[at].server.as_ref();
        server.map_or(0, |server| server.replica.peer().in_flight())
    }
}

impl Member {
    /// One that has no session yet.
    pub(super) fn new(index: usize, timeout_ms: u64) -> Member {
        Member {
            index,
            timeout_ms,
            id: None,
            floor: None,
        }
    }

    pub(super) fn names(&self) -> (String, String) {
        super::super::client::Client::names(self.index, false)
    }

    pub(super) fn join(&self) -> Ask {
        Ask::Join {
            timeout_ms: self.timeout_ms,
        }
    }

    pub(super) fn timeout_us(&self) -> u64 {
        self.timeout_ms * 1_000
    }
}

/// What must be, or the story ends badly.
pub(super) fn ensure(holds: bool, what: &str) -> Told {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// The last of these beats that was answered with a promise, by when it was sent.
pub(super) fn last_promise(beats: &[Beat], member: usize) -> Option<u64> {
    let good = beats
        .iter()
        .filter(|beat| beat.member == member && beat.status.is_some_and(|status| status == 204));
    good.map(|beat| beat.sent_us).max()
}

/// All beats of a member were answered with a promise.
pub(super) fn all_promised(beats: &[Beat], member: usize) -> Told {
    let mut of_member = beats.iter().filter(|beat| beat.member == member);
    match of_member.find(|beat| beat.status != Some(204)) {
        None => Ok(()),
        Some(beat) => Err(format!("a beat is promised nothing: {beat:?}")),
    }
}

/// Once a beat of a member was refused, none was answered with a promise; and one was refused.
pub(super) fn refused_from_then_on(beats: &[Beat], member: usize) -> Told {
    let of_member = beats.iter().filter(|beat| beat.member == member);
    let mut rest = of_member
        .skip_while(|beat| beat.status == Some(204))
        .peekable();
    ensure(rest.peek().is_some(), "no beat is refused")?;
    match rest.find(|beat| beat.status == Some(204)) {
        None => Ok(()),
        Some(beat) => Err(format!("a beat is promised something again: {beat:?}")),
    }
}

/// An answer must be one of these.
pub(super) fn ensure_status(what: &str, answer: &Answer, wanted: &[u16]) -> Told {
    let (status, problem) = (answer.status, answer.problem.as_deref().unwrap_or("none"));
    ensure(
        wanted.contains(&status),
        &format!("{what} is answered {status} ({problem}), not {wanted:?}"),
    )
}

fn serves(machine: &Machine) -> bool {
    let server = machine.server.as_ref();
    server.is_some_and(|server| server.replica.is_serving())
}

/// How much later than `W` a leader may look for orphans, and commit, µs.
pub(super) const LOOK_US: u64 = 60_000;

/// What the first clock reads in the beginning, µs; the second twice that, and so on.
const FIRST_READING_US: u64 = 1_000_000_000;
/// How often a story looks whether something is so, µs.
const MOMENT_US: u64 = 1_000;
/// How long a story waits for an answer, ms: longer than any server keeps a client waiting.
const ANSWER_MS_MAX: u64 = 8_000;
