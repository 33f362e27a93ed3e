//! kill -9 at random moments under joins, leaves and config writes: after each restart
//! everything that was answered 2xx is there, and no version has gone back.
//!
//! `SYSTOLE_CRASH_ROUNDS` sets the number of kills (20 unless told), `SYSTOLE_SEED` repeats a
//! run's choices; the moments of the kills are the machine's.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{Client, Deadline, Dice, Response, Server, Setup, seed};
use serde_json::Value;

const WRITERS: usize = 3;
const GROUPS: u64 = 4;
/// Members of one writer in each group; no other writer touches them.
const MEMBERS: u64 = 12;

/// What is known of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fact {
    /// The session, if it is active; its id may be unknown when the join was not answered.
    active: Option<String>,
    config: Option<String>,
}

/// A write, and what it makes of a fact.
#[derive(Clone, Debug)]
enum Write {
    Join { config: Option<String> },
    Takeover,
    Leave,
    Configure { config: String },
    Unconfigure,
}

type Key = (String, String);

/// One client and all that it was promised.
struct Writer {
    number: usize,
    dice: Dice,
    facts: BTreeMap<Key, Fact>,
    /// Sessions that ended, by an answer that said so.
    ended: Vec<(Key, String)>,
    /// The write whose answer never came.
    pending: Option<(Key, Write)>,
    /// The highest version seen of each group.
    versions: BTreeMap<String, u64>,
    writes: u64,
}

impl Writer {
    fn new(number: usize, seed: u64) -> Writer {
        Writer {
            number,
            dice: Dice::new(seed ^ (number as u64 + 1)),
            facts: BTreeMap::new(),
            ended: Vec::new(),
            pending: None,
            versions: BTreeMap::new(),
            writes: 0,
        }
    }

    /// Writes until the server is gone.
    fn run(mut self, address: SocketAddr, stop: &AtomicBool) -> Writer {
        let mut client = Client::connect(address);
        while !stop.load(Ordering::Relaxed) {
            let key = self.some_key();
            let write = self.some_write(&key);
            let (method, target, body) = spell(&key, &write);
            let sent = client.send(&common::request(method, &target, &[], body.as_bytes()));
            let answer = sent.ok().and_then(|()| client.try_answer_to(method).ok());
            let Some(answer) = answer else {
                self.pending = Some((key, write));
                break;
            };
            assert!(
                (200..300).contains(&answer.status),
                "{key:?} {write:?}: {answer:?}"
            );
            self.note(&key, &write, &answer);
        }
        self
    }

    fn some_key(&mut self) -> Key {
        let group = self.dice.below(GROUPS);
        let member = self.dice.below(MEMBERS);
        (format!("g{group}"), format!("w{}-{member}", self.number))
    }

    /// A write that succeeds, given what is known.
    fn some_write(&mut self, key: &Key) -> Write {
        let fact = self.facts.get(key).cloned().unwrap_or_default();
        self.writes += 1;
        let config = format!("{} by {}", self.writes, self.number);
        match self.dice.below(6) {
            0 if fact.active.is_some() => Write::Takeover,
            1 | 2 if fact.active.is_some() => Write::Leave,
            3 => Write::Configure { config },
            4 if fact.config.is_some() => Write::Unconfigure,
            5 => Write::Join {
                config: Some(config),
            },
            _ => Write::Join { config: None },
        }
    }

    /// Takes an answer for what it promises.
    fn note(&mut self, key: &Key, write: &Write, answer: &Response) {
        let fact = self.facts.entry(key.clone()).or_default();
        let before = fact.clone();
        *fact = after(&before, write);
        if matches!(write, Write::Join { .. } | Write::Takeover) {
            let session = answer.session();
            let known = before.active.as_ref();
            let renews = matches!(write, Write::Join { .. }) && known.is_some();
            assert_eq!(
                renews,
                known == Some(&session),
                "{key:?} {write:?} {before:?}"
            );
            fact.active = Some(session);
        }
        if before.active != fact.active {
            self.ended.extend(before.active.map(|id| (key.clone(), id)));
        }
        self.see_version(&key.0, answer.version());
    }

    #[track_caller]
    fn see_version(&mut self, group: &str, version: u64) {
        let highest = self.versions.entry(group.to_owned()).or_insert(version);
        assert!(
            version >= *highest,
            "{group} went back from {highest} to {version}"
        );
        *highest = version;
    }

    /// Compares everything known with a server that has just started.
    fn check(&mut self, client: &mut Client, documents: &BTreeMap<String, Response>) {
        for (group, document) in documents {
            if document.status == 200 {
                self.see_version(group, document.version());
            } else {
                assert!(!self.versions.contains_key(group), "{group} is gone");
            }
        }
        if let Some((key, write)) = self.pending.take() {
            self.settle(&key, &write, documents);
        }
        let facts = self.facts.clone();
        for (key, fact) in facts {
            let found = read(documents, &key);
            let same = found.active.is_some() == fact.active.is_some();
            assert!(
                same && found.config == fact.config,
                "{key:?} was {fact:?}, is {found:?}"
            );
            let beat = beat(client, &key, fact.active.as_deref());
            match fact.active {
                Some(_) => {
                    let session = beat.expect(204).session();
                    self.facts.get_mut(&key).expect("known").active = Some(session);
                }
                None => assert_eq!(beat.status, 404, "{key:?} left"),
            }
        }
        let last = self.ended.len().saturating_sub(20);
        for (key, id) in self.ended.drain(last..) {
            // Another session may be the member's now; the old one stays ended.
            let status = beat(client, &key, Some(&id)).status;
            assert!(matches!(status, 409 | 410), "{key:?} {id}: {status}");
        }
        self.ended.clear();
    }

    /// A write without an answer has happened or has not; nothing in between.
    fn settle(&mut self, key: &Key, write: &Write, documents: &BTreeMap<String, Response>) {
        let before = self.facts.get(key).cloned().unwrap_or_default();
        let after = after(&before, write);
        let found = read(documents, key);
        let alike = |fact: &Fact| {
            fact.active.is_some() == found.active.is_some() && fact.config == found.config
        };
        assert!(
            alike(&before) || alike(&after),
            "{key:?} {write:?}: was {before:?}, is {found:?}"
        );
        let mut settled = if alike(&after) { after } else { before };
        if matches!(write, Write::Takeover) {
            // Either session may be the one; the next beat tells.
            settled.active = Some(String::new());
        }
        self.facts.insert(key.clone(), settled);
    }
}

/// What a fact becomes; a session that is new has no id yet.
fn after(fact: &Fact, write: &Write) -> Fact {
    let mut fact = fact.clone();
    match write {
        Write::Join { config } => {
            fact.active.get_or_insert_default();
            if config.is_some() {
                fact.config.clone_from(config);
            }
        }
        Write::Takeover => fact.active = Some(String::new()),
        Write::Leave => fact.active = None,
        Write::Configure { config } => fact.config = Some(config.clone()),
        Write::Unconfigure => fact.config = None,
    }
    fact
}

/// Method, target and body of a write.
fn spell((group, member): &Key, write: &Write) -> (&'static str, String, String) {
    let member = format!("/{group}/{member}");
    match write {
        Write::Join { config } => {
            let target = format!("{member}?timeout=1h");
            ("PUT", target, config.clone().unwrap_or_default())
        }
        Write::Takeover => (
            "PUT",
            format!("{member}?takeover&timeout=1h"),
            String::new(),
        ),
        Write::Leave => ("DELETE", member, String::new()),
        Write::Configure { config } => ("PUT", format!("{member}/config"), config.clone()),
        Write::Unconfigure => ("DELETE", format!("{member}/config"), String::new()),
    }
}

/// What the documents say of a member; an active one's id is not in them.
fn read(documents: &BTreeMap<String, Response>, (group, member): &Key) -> Fact {
    let document = &documents[group];
    if document.status == 404 {
        return Fact::default();
    }
    let json = document.json();
    let entry = |list: &str| -> Option<Value> {
        let members = json[list].as_array().expect("a list");
        members.iter().find_map(|m| m.get(member)).cloned()
    };
    let active = entry("active_members");
    let config = active.clone().or_else(|| entry("inactive_members"));
    Fact {
        active: active.map(|_| String::new()),
        config: config.and_then(|c| c.as_str().map(str::to_owned)),
    }
}

/// A beat, by id if one is known.
fn beat(client: &mut Client, (group, member): &Key, id: Option<&str>) -> Response {
    let target = format!("/{group}/{member}");
    match id {
        Some(id) if !id.is_empty() => {
            client.ask_with("HEAD", &target, &[("x-session-id", id)], b"")
        }
        _ => client.ask("HEAD", &target),
    }
}

/// Lets the writers write for a while and kills the server under them.
fn round(server: &mut Server, writers: Vec<Writer>, time: Duration) -> Vec<Writer> {
    let stop = Arc::new(AtomicBool::new(false));
    let address = server.address();
    let running: Vec<_> = writers
        .into_iter()
        .map(|writer| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || writer.run(address, &stop))
        })
        .collect();
    Deadline::after(time).pass();
    server.kill();
    stop.store(true, Ordering::Relaxed);
    let ended = running
        .into_iter()
        .map(|writer| writer.join().expect("a writer's end"));
    ended.collect()
}

#[test]
fn nothing_answered_is_lost_and_no_version_goes_back() {
    let rounds = std::env::var("SYSTOLE_CRASH_ROUNDS").ok();
    let rounds: u64 = rounds.map_or(20, |text| text.parse().expect("a number of rounds"));
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut server = Setup::new().start();
    let mut writers: Vec<Writer> = (0..WRITERS).map(|n| Writer::new(n, seed)).collect();
    for number in 0..rounds {
        let time = Duration::from_millis(5 + dice.below(200));
        writers = round(&mut server, writers, time);
        if number % 4 == 3 {
            // Recovery itself may be cut off, anywhere.
            server.die_while_starting(Duration::from_micros(dice.below(60_000)));
        }
        server.restart();
        let mut client = server.client();
        let names = (0..GROUPS).map(|g| format!("g{g}"));
        let documents = names
            .map(|group| {
                let document = client.ask("GET", &format!("/{group}"));
                (group, document)
            })
            .collect();
        for writer in &mut writers {
            writer.check(&mut client, &documents);
        }
    }
    let writes: u64 = writers.iter().map(|writer| writer.writes).sum();
    println!("{rounds} kills under {writes} writes");
    assert!(writes > rounds, "the writers wrote");
}
