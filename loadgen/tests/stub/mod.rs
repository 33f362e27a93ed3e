//! A server just good enough to be loaded, and able to lie in chosen ways.
//!
//! A thread a connection over one lock: slow and simple. It keeps the contract's semantics of
//! join, beat, leave, expiry, versions, pages, counts and batches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How the stub breaks the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each test file uses some")]
pub(crate) enum Lie {
    /// It does not.
    None,
    /// Every 50th beat is answered with another session's id.
    WrongSession,
    /// Every 50th beat is answered with a version that is one too low.
    VersionBack,
    /// Every 50th beat of a live member is answered 404.
    Forgets,
    /// Every 50th batch says that its first member is not there.
    ForgetsInBatch,
    /// Members expire at 70 % of their timeout.
    Hasty,
    /// Members expire a second late.
    Sluggish,
    /// A session that left is still answered 204.
    Ghosts,
    /// A member that joins again gets its old id.
    SameId,
    /// Every 50th beat is never answered.
    Silent,
    /// Every 50th beat is answered 503.
    Unavailable,
    /// Every 50th beat closes the connection.
    HangsUp,
    /// Every 50th answer is garbage.
    Garbage,
    /// The 600th beat makes everything stand still for 0.7 s; no lie, but slow.
    Stalls,
}

/// The stub's address; it serves until the test process ends.
pub(crate) fn start(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let world = Arc::new(Mutex::new(World::new(lie)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, world) = (stream.unwrap(), Arc::clone(&world));
            thread::spawn(move || serve(stream, &world));
        }
    });
    address
}

struct Member {
    id: u128,
    deadline: Instant,
    timeout: Duration,
}

#[derive(Default)]
struct Group {
    version: u64,
    members: BTreeMap<String, Member>,
}

struct World {
    lie: Lie,
    next_id: u128,
    beats: u64,
    groups: BTreeMap<String, Group>,
    by_id: HashMap<u128, (String, String)>,
    old_ids: HashMap<(String, String), u128>,
    due: BinaryHeap<Reverse<(Instant, String, String)>>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    body: Vec<u8>,
}

fn serve(mut stream: TcpStream, world: &Mutex<World>) {
    stream.set_nodelay(true).unwrap();
    let mut input = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let mut out = Vec::new();
        let mut hang_up = false;
        while let Some((request, used)) = parse(&input) {
            input.drain(..used);
            match world.lock().unwrap().answer(&request) {
                Some(answer) => out.extend_from_slice(&answer),
                None => hang_up = true,
            }
        }
        if stream.write_all(&out).is_err() || hang_up {
            return;
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(n) => input.extend_from_slice(&piece[..n]),
        }
    }
}

fn parse(input: &[u8]) -> Option<(Request, usize)> {
    let end = input.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&input[..end]).unwrap();
    let mut words = head.lines().next().unwrap().split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("Content-Length: "))
        .map_or(0, |v| v.parse().unwrap());
    let body = input.get(end..end + length)?.to_vec();
    let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
    Some((
        Request {
            method,
            path,
            query,
            body,
        },
        end + length,
    ))
}

impl World {
    fn new(lie: Lie) -> World {
        World {
            lie,
            next_id: 1,
            beats: 0,
            groups: BTreeMap::new(),
            by_id: HashMap::new(),
            old_ids: HashMap::new(),
            due: BinaryHeap::new(),
        }
    }

    /// The answer's bytes; `None` hangs up.
    fn answer(&mut self, request: &Request) -> Option<Vec<u8>> {
        self.expire();
        let parts: Vec<&str> = request.path[1..].split('/').collect();
        let answer = match (request.method.as_str(), parts.as_slice()) {
            ("GET", [""]) => self.list(&request.query),
            ("GET", ["-", "metrics"]) => plain(200, &self.metrics()),
            ("GET", ["-", _]) => plain(200, "{}"),
            ("POST", ["-", "heartbeats"]) => self.batch(&request.body),
            ("GET", [group]) => self.page(group, &request.query),
            ("PUT", [group, member]) => self.join(group, member, &request.query),
            ("DELETE", [group, member]) => self.leave(group, member),
            (_, [group, member]) => return self.beat(group, member),
            _ => plain(400, ""),
        };
        Some(answer)
    }

    /// As if every 20 joins filled a segment of 32 MiB and led to a snapshot.
    fn metrics(&self) -> String {
        let full = self.next_id / 20;
        let bytes = full << 25;
        format!("systole_snapshots_total {full}\nsystole_log_bytes_total {bytes}\n")
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while self.due.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Reverse((_, group, member)) = self.due.pop().unwrap();
            let Some(g) = self.groups.get_mut(&group) else {
                continue;
            };
            let Some(m) = g.members.get(&member) else {
                continue;
            };
            let deadline = m.deadline;
            if deadline > now {
                self.due.push(Reverse((deadline, group, member)));
            } else {
                let m = g.members.remove(&member).unwrap();
                g.version += 1;
                self.by_id.remove(&m.id);
                self.old_ids.insert((group, member), m.id);
            }
        }
    }

    fn deadline(&self, timeout: Duration) -> Instant {
        Instant::now()
            + match self.lie {
                Lie::Hasty => timeout.mul_f64(0.7),
                Lie::Sluggish => timeout + Duration::from_secs(1),
                _ => timeout,
            }
    }

    fn join(&mut self, group: &str, member: &str, query: &str) -> Vec<u8> {
        let ms = query
            .strip_prefix("timeout=")
            .and_then(|t| t.strip_suffix("ms"));
        let timeout = Duration::from_millis(ms.unwrap().parse().unwrap());
        let deadline = self.deadline(timeout);
        let key = (group.to_owned(), member.to_owned());
        let mut id = self.next_id;
        self.next_id += 1;
        if self.lie == Lie::SameId {
            id = self.old_ids.get(&key).copied().unwrap_or(id);
        }
        let new = !self.groups.contains_key(group);
        let g = self.groups.entry(group.to_owned()).or_default();
        g.version += u64::from(!new);
        g.members.insert(
            member.to_owned(),
            Member {
                id,
                deadline,
                timeout,
            },
        );
        let answer = about(201, g.version, id, timeout);
        self.by_id.insert(id, key.clone());
        self.due.push(Reverse((deadline, key.0, key.1)));
        answer
    }

    fn beat(&mut self, group: &str, member: &str) -> Option<Vec<u8>> {
        self.beats += 1;
        if self.lie == Lie::Stalls && self.beats == 600 {
            thread::sleep(Duration::from_millis(700));
        }
        let lie = if self.beats.is_multiple_of(50) {
            self.lie
        } else {
            Lie::None
        };
        let Some(m) = self.groups.get(group).and_then(|g| g.members.get(member)) else {
            let ghost = self.lie == Lie::Ghosts;
            return Some(if ghost {
                about(204, 9, 9, Duration::ZERO)
            } else {
                plain(404, "")
            });
        };
        let deadline = self.deadline(m.timeout);
        let g = self.groups.get_mut(group).unwrap();
        let version = g.version;
        let m = g.members.get_mut(member).unwrap();
        m.deadline = deadline;
        Some(match lie {
            Lie::WrongSession => about(204, version, m.id + 1, m.timeout),
            Lie::VersionBack => about(204, version.saturating_sub(1), m.id, m.timeout),
            Lie::Forgets => plain(404, ""),
            Lie::Silent => Vec::new(),
            Lie::Unavailable => plain(503, ""),
            Lie::HangsUp => return None,
            Lie::Garbage => b"SSH-2.0-stub\r\n".to_vec(),
            _ => about(204, version, m.id, m.timeout),
        })
    }

    fn leave(&mut self, group: &str, member: &str) -> Vec<u8> {
        let Some(g) = self.groups.get_mut(group) else {
            return plain(404, "");
        };
        let Some(m) = g.members.remove(member) else {
            return plain(404, "");
        };
        g.version += 1;
        self.by_id.remove(&m.id);
        self.old_ids
            .insert((group.to_owned(), member.to_owned()), m.id);
        about(204, g.version, m.id, m.timeout)
    }

    fn batch(&mut self, body: &[u8]) -> Vec<u8> {
        self.beats += 1;
        // The ids given out here are small: packed, they begin with zeros, which no name does.
        // Their end says nothing: the last byte of id 10 is a line feed.
        let packed = body.first() == Some(&0);
        let text = std::str::from_utf8(body).ok().filter(|_| !packed);
        let members: Vec<(String, String)> = match text {
            Some(text) => text
                .lines()
                .map(|l| l.split_once('/').unwrap())
                .map(|(g, m)| (g.to_owned(), m.to_owned()))
                .collect(),
            None => body
                .chunks(16)
                .map(|id| u128::from_be_bytes(id.try_into().unwrap()))
                .map(|id| self.by_id.get(&id).cloned().unwrap_or_default())
                .collect(),
        };
        let mut failed = Vec::new();
        let lie = self.lie == Lie::ForgetsInBatch && self.beats.is_multiple_of(50);
        for (line, (group, member)) in members.iter().enumerate() {
            let found = self.groups.get(group).and_then(|g| g.members.get(member));
            let timeout = found.map(|m| m.timeout);
            match timeout {
                Some(timeout) if !(lie && line == 0) => {
                    let deadline = self.deadline(timeout);
                    let g = self.groups.get_mut(group).unwrap();
                    g.members.get_mut(member).unwrap().deadline = deadline;
                }
                _ => failed.push(format!("{{\"line\":{},\"status\":404}}", line + 1)),
            }
        }
        plain(200, &format!("{{\"failed\":[{}]}}", failed.join(",")))
    }

    fn page(&self, group: &str, query: &str) -> Vec<u8> {
        let Some(g) = self.groups.get(group) else {
            return plain(404, "");
        };
        let after = query
            .strip_prefix("after=")
            .and_then(|q| q.strip_suffix("&limit=1"));
        let after = after.unwrap().to_owned();
        let bounds = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let first = g.members.range(bounds).next();
        let member = first.map_or(String::new(), |(name, _)| format!("{{\"{name}\":null}}"));
        plain(
            200,
            &format!(
                "{{\"config\":null,\"endpoints\":[],\"active_members\":[{member}],\"inactive_members\":[]}}"
            ),
        )
    }

    fn list(&self, query: &str) -> Vec<u8> {
        assert!(query.contains("limit="));
        let groups = self.groups.iter().map(|(name, g)| {
            let (version, active) = (g.version, g.members.len());
            format!(
                "{{\"name\":\"{name}\",\"version\":{version},\"active\":{active},\"inactive\":0}}"
            )
        });
        let groups: Vec<String> = groups.collect();
        plain(200, &format!("{{\"groups\":[{}]}}", groups.join(",")))
    }
}

fn about(status: u16, version: u64, id: u128, timeout: Duration) -> Vec<u8> {
    let ms = timeout.as_millis();
    let length = if status == 204 {
        ""
    } else {
        "content-length: 0\r\n"
    };
    format!(
        "HTTP/1.1 {status} x\r\nx-group-version: {version}\r\nx-session-id: {id:032x}\r\n\
         x-session-timeout-ms: {ms}\r\n{length}\r\n"
    )
    .into_bytes()
}

fn plain(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}
