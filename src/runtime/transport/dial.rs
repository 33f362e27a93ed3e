//! Dialling: a thread for each other server, because looking up a name blocks.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender};
use glommio::spawn_local;
use rustix::net::sockopt;

use super::GREETING_TIME;
use super::links::{Links, Orders};
use super::stream::{self, Numbered};
use crate::runtime::{clock, poller};
use crate::time::Millis;
use crate::types::ServerId;
use crate::wire::hello::{self, GREETING_BYTES_MAX, Greeting, Hello};

/// A connection that stands and has been greeted.
pub(super) struct Dialled {
    at: Numbered,
    nonce: u64,
    socket: TcpStream,
}

/// Starts the thread that dials `hello.to`; it ends when its orders are dropped.
pub(super) fn start(
    hello: Hello,
    address: String,
    servers: Vec<ServerId>,
    results: Sender<Dialled>,
) -> io::Result<Orders> {
    let (bell, rung) = flume::bounded(1);
    let wanted = Arc::new(AtomicU64::new(0));
    let dialler = Dialler {
        hello,
        address,
        servers,
        wanted: Arc::clone(&wanted),
        rung,
        results,
        wait: RETRY_MIN,
        jitter: hello.nonce ^ u64::from(hello.to.0),
        complaint: String::new(),
    };
    thread::Builder::new()
        .name(format!("dial-{}", hello.to))
        .spawn(move || dialler.run())?;
    Ok(Orders { wanted, bell })
}

/// Hands over what the threads have dialled, and starts the tasks on it.
pub(super) async fn collect(links: Rc<RefCell<Links>>, results: Receiver<Dialled>) {
    while let Ok(dialled) = results.recv_async().await {
        let Dialled { at, nonce, socket } = dialled;
        // Without a second descriptor for each task the connection is of no use. It is dialled
        // again at once, and by then there may be some.
        let Ok((watched, ours)) = socket
            .try_clone()
            .and_then(|watched| Ok((watched, socket.try_clone()?)))
        else {
            links.borrow_mut().undialled(at);
            continue;
        };
        let woken = links.borrow_mut().dialled(at, nonce, ours);
        if let Some(woken) = woken {
            let writer = stream::write(Rc::clone(&links), at, poller::stream(socket), woken);
            spawn_local(writer).detach();
            let watcher = stream::watch(Rc::clone(&links), at, poller::stream(watched));
            spawn_local(watcher).detach();
        }
    }
}

struct Dialler {
    hello: Hello,
    address: String,
    servers: Vec<ServerId>,
    wanted: Arc<AtomicU64>,
    rung: Receiver<()>,
    results: Sender<Dialled>,
    /// Before the next attempt.
    wait: Duration,
    jitter: u64,
    /// What was last complained of: said once, not at each attempt.
    complaint: String,
}

impl Dialler {
    fn run(mut self) {
        let mut done = 0;
        let mut stood_since: Option<Millis> = None;
        while self.rung.recv().is_ok() {
            let mut order = self.wanted.load(Ordering::Acquire);
            if order == done {
                continue;
            }
            // One that did not last is not dialled again in a hurry.
            let lasted = stood_since.map(|since| clock::now().since(since));
            if lasted.is_some_and(|lasted| lasted >= STEADY) {
                self.wait = RETRY_MIN;
            } else if lasted.is_some() && !self.pause() {
                return;
            }
            while done != order {
                match self.attempt() {
                    Ok((nonce, socket)) => {
                        self.complaint.clear();
                        stood_since = Some(clock::now());
                        let peer = self.hello.to;
                        let number = order;
                        let at = Numbered { peer, number };
                        if self.results.send(Dialled { at, nonce, socket }).is_err() {
                            return;
                        }
                        done = order;
                    }
                    Err(why) => {
                        self.complain(why);
                        if !self.pause() {
                            return;
                        }
                        order = self.wanted.load(Ordering::Acquire);
                    }
                }
            }
        }
    }

    /// Waits before the next attempt, longer each time, unless the bell rings; false if it is
    /// time to end.
    fn pause(&mut self) -> bool {
        // Between half of it and all of it, so that two servers do not stay in step.
        self.jitter = self.jitter.wrapping_mul(JITTER_MULTIPLIER).wrapping_add(1);
        let part = u32::from((self.jitter >> 56) as u8);
        let wait = self.wait / 2 + self.wait * part / 512;
        self.wait = (self.wait * 2).min(RETRY_MAX);
        match self.rung.recv_timeout(wait) {
            Ok(()) => {
                self.wait = RETRY_MIN;
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    fn attempt(&self) -> Result<(u64, TcpStream), String> {
        let addresses = self.address.to_socket_addrs();
        let mut last = None;
        for address in addresses.map_err(|error| error.to_string())? {
            match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                Ok(socket) => {
                    let nonce = self.greet(&socket)?;
                    return Ok((nonce, socket));
                }
                Err(error) => last = Some(error.to_string()),
            }
        }
        Err(last.unwrap_or_else(|| "the name has no address".to_owned()))
    }

    /// Says hello and hears the answer: the run of the other server.
    fn greet(&self, mut socket: &TcpStream) -> Result<u64, String> {
        let plain = |error: io::Error| format!("it does not answer the greeting: {error}");
        prepare(socket).map_err(plain)?;
        socket
            .set_write_timeout(Some(GREETING_TIME))
            .map_err(plain)?;
        let mut bytes = Vec::new();
        self.hello.encode(&mut bytes);
        socket.write_all(&bytes).map_err(plain)?;
        let deadline = clock::now() + Millis(GREETING_TIME.as_millis() as u64);
        let mut bytes = [0; GREETING_BYTES_MAX];
        let mut filled = 0;
        loop {
            let left = deadline.since(clock::now());
            if left == Millis(0) {
                return Err("it takes too long to answer the greeting".to_owned());
            }
            let left = Duration::from_millis(left.0);
            socket.set_read_timeout(Some(left)).map_err(plain)?;
            let count = socket.read(&mut bytes[filled..]).map_err(plain)?;
            filled += count;
            match hello::decode(&bytes[..filled]) {
                Err(error) => return Err(error.to_string()),
                Ok(Some((greeting, _))) => return self.check(greeting),
                Ok(None) if count == 0 => return Err("it has hung up on the greeting".to_owned()),
                Ok(None) => {}
            }
        }
    }

    fn check(&self, greeting: Greeting) -> Result<u64, String> {
        match greeting {
            Greeting::Reject(reason) => Err(format!("it refuses this server: {reason}")),
            Greeting::Foreign { format } => Err(hello::format_refusal(&self.hello, format)),
            Greeting::Hello(other) => match other.refusal(&self.hello, &self.servers) {
                Some(reason) => Err(reason),
                None if other.from != self.hello.to => Err(format!(
                    "server {} answers there: is its address right?",
                    other.from
                )),
                None => Ok(other.nonce),
            },
        }
    }

    fn complain(&mut self, why: String) {
        if why != self.complaint {
            let (peer, address) = (self.hello.to, &self.address);
            tracing::warn!("server {peer} is not to be had at {address}: {why}");
            self.complaint = why;
        }
    }
}

/// Sets what every connection between servers needs.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // A way that has silently gone is given up soon, whether something waits to be sent or
    // not: TCP by itself would try for a quarter of an hour, ever more rarely, and two servers
    // that can reach each other again would not notice.
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, SILENCE_MAX / 2)?;
    sockopt::set_tcp_keepintvl(socket, SILENCE_MAX / 2)?;
    sockopt::set_tcp_keepcnt(socket, 2)?;
    sockopt::set_tcp_user_timeout(socket, SILENCE_MAX.as_millis() as u32)?;
    Ok(())
}

/// How long one attempt to connect may take.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// First wait between two attempts; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(10);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A connection that has stood so long was not in vain.
const STEADY: Millis = Millis(1_000);
/// How long the kernel of the other machine may not acknowledge.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Of a linear congruential generator; Knuth, MMIX.
const JITTER_MULTIPLIER: u64 = 6_364_136_223_846_793_005;
