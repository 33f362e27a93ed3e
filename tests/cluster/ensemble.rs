//! An ensemble of real servers, whose peers talk through a [`Network`] that can fail.
//!
//! Each ensemble has loopback addresses of its own (127.a.b.x, where a and b come from the
//! process id), so that fixed ports never collide and a server that is started anew is found
//! where it was.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Client, Ended, Response, Server, Setup, poll};
use crate::network::{Namespaces, Network};
use crate::relay::Relay;

/// Some servers, killed when dropped.
pub(crate) struct Ensemble {
    /// `None` while one is down.
    servers: Vec<Option<Server>>,
    setups: Vec<Setup>,
    addresses: Vec<SocketAddr>,
    pub(crate) network: Box<dyn Network>,
    dirs: Vec<PathBuf>,
    /// Keeps the directories alive that are our own.
    _dir: TempDir,
}

/// Where the servers are, and what is between them.
struct Plan {
    addresses: Vec<IpAddr>,
    /// Where each is found by the others.
    doors: Vec<SocketAddr>,
    /// What the command of each begins with.
    wraps: Vec<Vec<String>>,
    network: Box<dyn Network>,
}

impl Ensemble {
    /// Starts so many servers, each with these flags, and waits until all of them serve.
    #[track_caller]
    pub(crate) fn start(count: usize, flags: &[(&str, &str)]) -> Ensemble {
        Ensemble::start_in(&vec![None; count], flags)
    }

    /// The same for a server for each of `dirs`, which is its data directory if it is given.
    #[track_caller]
    pub(crate) fn start_in(dirs: &[Option<PathBuf>], flags: &[(&str, &str)]) -> Ensemble {
        let net = fresh_net();
        let all = || 0..dirs.len();
        let at = |host: usize| IpAddr::from([127, net[0], net[1], host as u8]);
        let doors: Vec<_> = all().map(|i| (at(101 + i), PEER_PORT).into()).collect();
        let peers: Vec<_> = all().map(|i| (at(1 + i), PEER_PORT).into()).collect();
        let plan = Plan {
            addresses: all().map(|i| at(1 + i)).collect(),
            wraps: vec![Vec::new(); dirs.len()],
            network: Box::new(Relay::start(&doors, &peers)),
            doors,
        };
        Ensemble::build(plan, dirs, flags)
    }

    /// The same in network namespaces; `None` if this user may not have any.
    #[track_caller]
    pub(crate) fn start_in_namespaces(count: usize) -> Option<Ensemble> {
        let namespaces = Namespaces::of(count, fresh_net())?;
        let all = || 0..count;
        let addresses: Vec<_> = all().map(|i| namespaces.address(i)).collect();
        let doors = addresses.iter().map(|&at| (at, PEER_PORT).into());
        let plan = Plan {
            doors: doors.collect(),
            addresses,
            wraps: all().map(|i| namespaces.wrap(i)).collect(),
            network: Box::new(namespaces),
        };
        Some(Ensemble::build(plan, &vec![None; count], &[]))
    }

    #[track_caller]
    fn build(plan: Plan, dirs: &[Option<PathBuf>], flags: &[(&str, &str)]) -> Ensemble {
        let count = dirs.len();
        let dir = tempfile::tempdir().expect("a directory");
        let own = |i: usize| dir.path().join(format!("server-{}", i + 1));
        let given = dirs.iter().enumerate();
        let dirs: Vec<PathBuf> = given
            .map(|(i, dir)| dir.clone().unwrap_or_else(|| own(i)))
            .collect();
        let client_at = |&at: &IpAddr| SocketAddr::from((at, CLIENT_PORT));
        let named = plan.doors.iter().enumerate();
        let list: Vec<String> = named.map(|(i, door)| format!("{}={door}", i + 1)).collect();
        let setup = |i: usize| {
            let at = &plan.addresses[i];
            let own = Setup::new()
                .dir(&dirs[i])
                .within(&plan.wraps[i])
                .flag("--id", &(i + 1).to_string())
                .flag("--listen", &client_at(at).to_string())
                .flag(
                    "--peer-listen",
                    &SocketAddr::from((*at, PEER_PORT)).to_string(),
                )
                .flag("--ensemble", &list.join(","))
                .flag("--pin", "off")
                .flag("--shards", "1");
            let add = |setup: Setup, &(name, value): &(&str, &str)| setup.flag(name, value);
            flags.iter().fold(own, add)
        };
        let mut ensemble = Ensemble {
            servers: (0..count).map(|_| None).collect(),
            setups: (0..count).map(setup).collect(),
            addresses: plan.addresses.iter().map(client_at).collect(),
            network: plan.network,
            dirs,
            _dir: dir,
        };
        let all: Vec<usize> = (0..count).collect();
        ensemble.start_servers(&all);
        ensemble.wait_until_all_serve();
        ensemble
    }

    /// Three servers with the settings that ship.
    #[track_caller]
    pub(crate) fn of_three() -> Ensemble {
        Ensemble::start(3, &[])
    }

    /// Starts servers that are down, all at once: alone none of them may get ready.
    #[track_caller]
    pub(crate) fn start_servers(&mut self, which: &[usize]) {
        let started: Vec<(usize, Server)> = thread::scope(|scope| {
            let threads: Vec<_> = which
                .iter()
                .map(|&i| {
                    assert!(self.servers[i].is_none(), "server {} runs", i + 1);
                    let setup = self.setups[i].clone();
                    (i, scope.spawn(move || setup.start()))
                })
                .collect();
            let ended = threads.into_iter();
            ended
                .map(|(i, thread)| (i, thread.join().expect("a server that gets ready")))
                .collect()
        });
        for (i, server) in started {
            self.servers[i] = Some(server);
        }
    }

    /// Ends one at once, as kill -9 does.
    pub(crate) fn kill(&mut self, which: usize) {
        if let Some(mut server) = self.servers[which].take() {
            server.kill();
        }
    }

    /// Ends one in order, as SIGTERM does.
    #[track_caller]
    pub(crate) fn stop(&mut self, which: usize) {
        let mut server = self.servers[which].take().expect("a server that runs");
        let status = server.stop();
        assert!(status.success(), "server {}: {status}", which + 1);
    }

    /// Holds one: it runs no more, and its sockets stay.
    pub(crate) fn pause(&self, which: usize) {
        self.server(which).signal(Signal::STOP);
    }

    /// Lets one go on.
    pub(crate) fn resume(&self, which: usize) {
        self.server(which).signal(Signal::CONT);
    }

    /// Nothing gets to the server from others, and nothing from it to them.
    pub(crate) fn isolate(&self, which: usize) {
        for other in (0..self.len()).filter(|&other| other != which) {
            self.network.cut(which, other);
            self.network.cut(other, which);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    pub(crate) fn is_up(&self, which: usize) -> bool {
        self.servers[which].is_some()
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    pub(crate) fn data_dir(&self, which: usize) -> &Path {
        &self.dirs[which]
    }

    /// Waits until one has ended by itself.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, which: usize) -> Ended {
        let mut server = self.servers[which].take().expect("a server that runs");
        server.wait_for_end()
    }

    /// Fails if a server has ended by itself.
    #[track_caller]
    pub(crate) fn expect_running(&mut self) {
        for (i, server) in self.servers.iter_mut().enumerate() {
            if let Some(server) = server {
                let running = server.is_running();
                assert!(running, "server {} has ended: {}", i + 1, server.stderr());
            }
        }
    }

    #[track_caller]
    fn server(&self, which: usize) -> &Server {
        self.servers[which].as_ref().expect("a server that runs")
    }

    /// Asks one server on a connection of its own; `None` if it does not answer in time.
    pub(crate) fn ask(&self, which: usize, method: &str, target: &str) -> Option<Response> {
        ask(self.addresses[which], method, target, &[])
    }

    /// What `/-/cluster` of one server says; `None` if it does not answer.
    pub(crate) fn cluster(&self, which: usize) -> Option<Value> {
        let answer = self.ask(which, "GET", "/-/cluster")?;
        (answer.status == 200).then(|| answer.json())
    }

    /// A counter of one server, its shards taken together.
    #[track_caller]
    pub(crate) fn counter(&self, which: usize, name: &str) -> u64 {
        let answer = self.ask(which, "GET", "/-/metrics").expect("metrics");
        let text = String::from_utf8(answer.expect(200).body).expect("UTF-8");
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            let key = key.split_once('{').map_or(key, |(key, _)| key);
            (key == name).then(|| value.parse::<f64>().expect("a number") as u64)
        });
        let values: Vec<u64> = values.collect();
        assert!(!values.is_empty(), "there is no counter {name}");
        values.iter().sum()
    }

    /// The same, of all servers together.
    #[track_caller]
    pub(crate) fn counters(&self, name: &str) -> u64 {
        (0..self.len()).map(|i| self.counter(i, name)).sum()
    }

    /// Who leads, once everybody who is up and answers agrees.
    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        poll(HEAL_TIME, "a leader all agree on", || {
            let up = (0..self.len()).filter(|&i| self.is_up(i));
            let said: Vec<Option<u64>> = up
                .filter_map(|i| self.cluster(i))
                .map(|cluster| cluster["leader"].as_u64())
                .collect();
            let first = *said.first()?;
            let same = said.iter().all(|leader| *leader == first);
            first.filter(|_| same).map(|id| id as usize - 1)
        })
    }

    /// Some server that does not lead.
    #[track_caller]
    pub(crate) fn follower(&self) -> usize {
        (self.leader() + 1) % self.len()
    }

    /// Waits until every server that is up may serve.
    #[track_caller]
    pub(crate) fn wait_until_all_serve(&self) {
        for i in (0..self.len()).filter(|&i| self.is_up(i)) {
            let what = format!("server {} to be ready", i + 1);
            poll(HEAL_TIME, &what, || {
                let answer = self.ask(i, "GET", "/-/readyz")?;
                (answer.status == 200).then_some(())
            });
        }
    }

    /// Waits until all servers are up to the same transaction, and checks that they show the
    /// same documents of these groups.
    #[track_caller]
    pub(crate) fn expect_equal(&self, groups: &[String]) {
        for group in groups {
            let what = format!("the same document of {group} on all servers");
            poll(HEAL_TIME, &what, || {
                let applied = |i| Some(self.cluster(i)?["applied_zxid"].to_string());
                let before: Vec<_> = (0..self.len()).map(applied).collect::<Option<_>>()?;
                let documents = (0..self.len()).map(|i| {
                    let answer = self.ask(i, "GET", &format!("/{group}"))?;
                    Some((answer.status, answer.body))
                });
                let documents: Vec<_> = documents.collect::<Option<_>>()?;
                let after: Vec<_> = (0..self.len()).map(applied).collect::<Option<_>>()?;
                if before != after || before.iter().any(|zxid| *zxid != before[0]) {
                    return None;
                }
                // The same transactions have been applied, so this must hold now.
                for document in &documents {
                    assert_eq!(*document, documents[0], "{group} at {}", before[0]);
                }
                Some(())
            });
        }
    }

    /// Ends all servers in order and lets each check every byte it has written.
    #[track_caller]
    pub(crate) fn stop_and_verify(mut self) {
        for i in 0..self.len() {
            if self.is_up(i) {
                self.stop(i);
            }
        }
        for i in 0..self.len() {
            let mut verify = crate::common::systole();
            verify.args(["log", "verify"]).arg(self.data_dir(i));
            let ended = crate::common::run_to_end(&mut verify);
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
    }
}

/// One question on a connection of its own; `None` if there is no answer in time.
pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Option<Response> {
    let mut client = Client::try_connect(address, ANSWER_TIME).ok()?;
    client
        .send(&crate::common::request(method, target, headers, b""))
        .ok()?;
    client.try_answer_to(method).ok()
}

/// Two bytes of an address that no other ensemble has: the kernel gives a process id to one
/// process at a time, and an address that is taken all the same is passed over.
fn fresh_net() -> [u8; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(NETS_OF_A_PROCESS);
    loop {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % NETS;
        let net = [1 + (number / 256) as u8, (number % 256) as u8];
        let probe = SocketAddr::from(([127, net[0], net[1], 1], PEER_PORT));
        if std::net::TcpListener::bind(probe).is_ok() {
            return net;
        }
    }
}

const CLIENT_PORT: u16 = 8640;
const PEER_PORT: u16 = 8641;

/// Pairs of bytes to choose from; 127.0 is left to everybody else.
const NETS: u32 = 250 * 256;

/// Ensembles of one test process before it meets those of the next.
const NETS_OF_A_PROCESS: u32 = 16;

/// How long an answer may take that is no part of a promise.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// How long an ensemble may take to heal, on a busy machine.
const HEAL_TIME: Duration = Duration::from_secs(30);
