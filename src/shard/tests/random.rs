//! Thousands of worlds that go their way by chance, each checked at every step.
//!
//! Messages between any two move in order and otherwise when chance says so; shards turn
//! late, stall, and read requests cut anywhere; clients vanish, half close, read nothing for
//! a while, beat at the wrong shard, join, leave and take over. See [`super::oracle`] for
//! what is held against it.

use std::fmt::Write as _;

use super::client::{Asked, Response};
use super::oracle::group_of;
use super::world::{Tune, World};
use crate::time::Millis;
use crate::types::SessionId;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What was so when a request was sent.
struct Note {
    /// The members it beats for, and the session it names for each.
    targets: Vec<(usize, Option<SessionId>)>,
    /// Each member's session then, and how often it had changed.
    then: Vec<(Option<SessionId>, u64)>,
    /// The newest version of the group anybody had been shown.
    version: Option<u64>,
    packed: bool,
    /// How many sessions had ended.
    ends: usize,
}

struct Run {
    world: World,
    chance: Chance,
    notes: Vec<Note>,
    /// The session each member's client believes in, perhaps an old one.
    believed: Vec<Option<SessionId>>,
    /// Answers checked, for each client.
    checked: Vec<usize>,
    steps: u64,
    /// When the server is ended and started again.
    restart_at: Option<u64>,
}

const GROUPS: usize = 2;
const MEMBERS: usize = 6;

fn group(member: usize) -> usize {
    member % GROUPS
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut chance = Chance(seed);
        let tune = Tune {
            shards: 1 + chance.below(4) as u16,
            asks_max: if chance.one_in(8) { 3 } else { 1_000 },
            pipelined_max: if chance.one_in(4) { 2 } else { 128 },
            output_bytes_max: if chance.one_in(4) { 700 } else { 1 << 20 },
            in_flight_max: if chance.one_in(8) { 2 } else { 4_096 },
            ..Tune::default()
        };
        let mut world = World::tuned(tune);
        world.oracle.members = (0..MEMBERS)
            .map(|index| (format!("g{}", group(index)), format!("m{index}")))
            .collect();
        let restart_at = chance.one_in(3).then(|| chance.below(400) as u64);
        let mut run = Run {
            restart_at,
            world,
            chance,
            notes: Vec::new(),
            believed: vec![None; MEMBERS],
            checked: Vec::new(),
            steps: 0,
        };
        run.connect();
        run
    }

    fn connect(&mut self) {
        for shard in 0..self.world.shards.len() {
            for _ in 0..2 {
                self.world.connect(shard);
            }
        }
    }

    /// Loses every connection, and what was not durable.
    fn restart(&mut self) {
        self.world = self.world.restart();
        self.world.start();
        self.checked.clear();
        self.connect();
    }

    fn step(&mut self) {
        self.steps += 1;
        if self.restart_at == Some(self.steps) {
            self.restart();
        }
        let count = self.world.shards.len();
        let (one, other) = (self.chance.below(count), self.chance.below(count));
        let client = self.chance.below(self.world.clients.len());
        match self.chance.below(32) {
            0..=5 => drop(self.world.core_takes(one)),
            6..=8 => drop(self.world.core_syncs()),
            9..=14 => drop(self.world.shard_hears(one)),
            15..=19 => drop(self.world.shard_gets(one, other)),
            20..=23 => self.request(client),
            24 | 25 => {
                let bytes = 1 + self.chance.below(200);
                let _ = self.world.pump(client, bytes);
            }
            26 | 27 => {
                let ms = self.chance.below(6) as u64;
                self.world.now = self.world.now + Millis(ms);
                let drained = !self.chance.one_in(4);
                self.world.ticks(one, drained);
            }
            28 => {
                let ms = if self.chance.one_in(12) { 300 } else { 20 };
                let ms = self.chance.below(ms) as u64;
                self.world.now = self.world.now + Millis(ms);
            }
            29 => {
                let slow = self.chance.one_in(3);
                let it = &mut self.world.clients[client];
                it.slow = slow;
                for asked in &mut it.asked {
                    asked.alone = false;
                }
                let _ = self.world.pump(client, 0);
            }
            30 if self.chance.one_in(4) => {
                if self.chance.one_in(2) {
                    self.world.drop_client(client);
                } else {
                    self.world.clients[client].shut = true;
                    let _ = self.world.pump(client, usize::MAX);
                }
                if self.world.clients.len() < 64 {
                    self.world.connect(one);
                }
            }
            _ => self.world.quiet(),
        }
        self.check();
    }

    fn request(&mut self, client: usize) {
        let it = &self.world.clients[client];
        if !it.open || it.shut || it.kernel.len() > 2_000 {
            return;
        }
        let member = self.chance.below(MEMBERS);
        let (g, m) = (group(member), member);
        let mut headers = String::new();
        let mut body = Vec::new();
        let mut targets = Vec::new();
        let mut packed = false;
        let path = format!("/g{g}/m{m}");
        let line = match self.chance.below(40) {
            0..=15 => {
                targets.push((member, self.named(member, &mut headers)));
                format!("HEAD {path}")
            }
            16..=22 => self.join(&path, &mut headers),
            23 | 24 => {
                self.named(member, &mut headers);
                format!("DELETE {path}")
            }
            25..=27 => {
                targets.push((member, self.named(member, &mut headers)));
                if self.chance.one_in(3) {
                    let version = self.world.oracle.versions.get(&format!("g{g}"));
                    let _ = write!(headers, "if-none-match: \"{}\"\r\n", version.unwrap_or(&0));
                }
                format!("GET {path}")
            }
            28..=30 => {
                for _ in 0..=self.chance.below(5) {
                    let member = self.chance.below(MEMBERS);
                    let line = format!("g{}/m{member}\n", group(member));
                    body.extend_from_slice(line.as_bytes());
                    targets.push((member, None));
                }
                "POST /-/heartbeats".to_owned()
            }
            31..=33 => {
                packed = true;
                headers.push_str("content-type: application/octet-stream\r\n");
                for _ in 0..=self.chance.below(5) {
                    let member = self.chance.below(MEMBERS);
                    let Some(id) = self.believed[member] else {
                        continue;
                    };
                    body.extend_from_slice(&id.to_bytes());
                    targets.push((member, Some(id)));
                }
                if body.is_empty() {
                    return;
                }
                "POST /-/heartbeats".to_owned()
            }
            34 | 35 => format!("GET /g{g}"),
            36 => {
                body.extend_from_slice(b"{\"a\":1}");
                format!("PUT {path}/config")
            }
            37 => format!("DELETE {path}/config"),
            38 => format!("GET {path}/config"),
            _ => ["DELETE /g0", "GET /-/livez", "GET /", "GET /g0/m0?x=1"][self.chance.below(4)]
                .to_owned(),
        };
        if self.chance.one_in(6)
            && let Some(version) = group_of(&line).and_then(|g| self.world.oracle.versions.get(g))
        {
            let ahead = u64::from(self.chance.one_in(20));
            let _ = write!(headers, "x-group-version: {}\r\n", version + ahead);
        }
        self.write(client, &line, &headers, &body, targets, packed);
    }

    fn join(&mut self, path: &str, headers: &mut String) -> String {
        let timeout = [100, 150, 250, 600][self.chance.below(4)];
        if self.chance.one_in(2) {
            headers.push_str("prefer: return=minimal\r\n");
        }
        match self.chance.below(10) {
            0 => format!("PUT {path}?takeover&timeout={timeout}ms"),
            1 => {
                headers.push_str("if-none-match: *\r\n");
                format!("PUT {path}?timeout={timeout}ms")
            }
            2 => format!("PUT {path}"),
            _ => format!("PUT {path}?timeout={timeout}ms"),
        }
    }

    /// Names the session the client believes in, in one of three requests.
    fn named(&mut self, member: usize, headers: &mut String) -> Option<SessionId> {
        let id = self.believed[member].filter(|_| self.chance.one_in(3))?;
        let _ = write!(headers, "x-session-id: {id}\r\n");
        Some(id)
    }

    fn write(
        &mut self,
        client: usize,
        line: &str,
        headers: &str,
        body: &[u8],
        targets: Vec<(usize, Option<SessionId>)>,
        packed: bool,
    ) {
        let oracle = &self.world.oracle;
        let then = |(member, _): &(usize, Option<SessionId>)| match oracle.sessions.get(member) {
            Some((session, changes)) => (session.map(|(id, _)| id), *changes),
            None => (None, 0),
        };
        let note = Note {
            then: targets.iter().map(then).collect(),
            version: group_of(line).and_then(|group| oracle.versions.get(group).copied()),
            targets,
            packed,
            ends: oracle.ends.len(),
        };
        self.notes.push(note);
        let (now, note) = (self.world.now, self.notes.len() - 1);
        self.world.clients[client].send(line, headers, body, now, note);
        let bytes = if self.chance.one_in(3) {
            self.chance.below(100)
        } else {
            usize::MAX
        };
        let _ = self.world.pump(client, bytes);
    }

    /// Looks at the answers that have come since the last time.
    fn check(&mut self) {
        self.checked.resize(self.world.clients.len(), 0);
        for client in 0..self.checked.len() {
            let it = &self.world.clients[client];
            assert_eq!(it.cut, 0, "closed without an answer: {:?}", it.asked);
            let answers = self.world.clients[client].answers.split_off(0);
            for (asked, response) in &answers {
                self.judge(asked, response);
            }
        }
    }

    fn judge(&mut self, asked: &Asked, response: &Response) {
        let note = &self.notes[asked.note];
        let status = response.status;
        if let (Some(floor), Some(version)) = (note.version, response.version())
            && (200..=304).contains(&status)
        {
            assert!(
                version >= floor,
                "S5: {} at {version} after {floor}",
                asked.line
            );
        }
        if asked.line.starts_with("PUT /g")
            && !asked.line.contains("config")
            && let Some(id) = response.session()
            && let Some(member) = asked.line.split(['/', '?', ' ']).nth(3)
        {
            let member: usize = member[1..].parse().expect("a member");
            self.believed[member] = self.believed[member].max(Some(id));
        }
        let note = &self.notes[asked.note];
        self.judge_session(note, response, &asked.line);
        if asked.line.starts_with("POST") && status == 200 {
            return self.judge_batch(note, response);
        }
        if let Some(&target) = note.targets.first()
            && asked.line.contains("/m")
        {
            self.judge_target(note, 0, target, status, &asked.line);
        }
    }

    /// A member whose session has not changed since the request was sent is known.
    fn judge_target(
        &self,
        note: &Note,
        at: usize,
        (member, named): (usize, Option<SessionId>),
        status: u16,
        what: &str,
    ) {
        let (id, changes) = note.then[at];
        let now = self.world.oracle.sessions.get(&member);
        let (Some(id), Some((_, still))) = (id, now) else {
            return;
        };
        if changes != *still {
            return;
        }
        if named.is_none_or(|named| named == id) {
            let denied = matches!(status, 404 | 409 | 410);
            assert!(!denied, "{what}: {status} for the live {id}");
        } else if !note.packed {
            let wrong = matches!(status, 200..=304 | 404 | 410);
            assert!(!wrong, "{what}: {status} for {named:?}, not {id}");
        }
    }

    /// Nobody is answered for a session that had ended when the request was sent.
    fn judge_session(&self, note: &Note, response: &Response, what: &str) {
        let ended = &self.world.oracle.ends[..note.ends];
        if let Some(id) = response.session() {
            assert!(!ended.contains(&id), "S3: {what}: {id} had ended");
        }
    }

    fn judge_batch(&self, note: &Note, response: &Response) {
        let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
        let failed = json["failed"].as_array().expect("a list");
        let renewed = json["renewed"].as_u64().expect("a count");
        let all = note.targets.len() as u64;
        assert_eq!(renewed + failed.len() as u64, all, "{json}");
        for failure in failed {
            let at = match failure["line"].as_u64() {
                Some(line) => line as usize - 1,
                None => failure["index"].as_u64().expect("an index") as usize,
            };
            let status = failure["status"].as_u64().expect("a status") as u16;
            self.judge_target(note, at, note.targets[at], status, "a batch");
        }
    }

    /// Everybody falls silent: sessions end in time, and nothing is kept.
    fn silence(&mut self) {
        for client in 0..self.world.clients.len() {
            self.world.clients[client].slow = false;
            let _ = self.world.pump(client, usize::MAX);
        }
        for shard in 0..self.world.shards.len() {
            self.world.ticks(shard, true);
        }
        self.world.quiet();
        self.world.pass(1_200);
        self.check();
        let since = self.world.now;
        for it in &self.world.clients {
            let owed = it.open && !(it.asked.is_empty() && it.partial() == 0);
            assert!(!owed, "unanswered: {:?}, {:?}", it.asked, it.next);
        }
        while self.world.now < since + Millis(1_300) {
            self.world.pass(10);
            for (index, (session, _)) in self.world.oracle.sessions.clone() {
                let Some((id, timeout)) = session else {
                    continue;
                };
                // A tick for the touch, one for the deadline; the rest takes no time here.
                let late = self.world.now.since(since).0 > timeout.0 + 1 + 30;
                let shards = &self.world.shards;
                let held = shards.iter().any(|s| s.tracker.find_id(id).is_some());
                assert!(!late, "S4: member {index}, {timeout:?}, held: {held}");
            }
        }
        self.world.assert_nothing_is_kept();
    }
}

fn go(seed: u64, steps: u64) -> u64 {
    let mut run = Run::new(seed);
    for _ in 0..steps {
        run.step();
    }
    run.silence();
    run.steps
}

fn seeds(from: u64, count: u64, steps: u64) {
    for seed in from..from + count {
        let outcome = std::panic::catch_unwind(|| go(seed, steps));
        assert!(outcome.is_ok(), "seed {seed}, {steps} steps");
    }
}

#[test]
fn every_promise_is_kept_whatever_happens_when() {
    seeds(1, 400, 400);
}

#[test]
#[ignore = "a minute; the same with more seeds"]
fn every_promise_is_kept_in_thousands_of_worlds() {
    seeds(1_000, 6_000, 400);
}

#[test]
#[ignore = "a minute; the same for longer"]
fn every_promise_is_kept_over_a_long_time() {
    seeds(100_000, 150, 10_000);
}
