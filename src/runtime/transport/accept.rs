//! Accepting: a thread takes connections, and a task greets each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use glommio::spawn_local;
use glommio::timer::Timer;

use super::links::Links;
use super::stream::{self, Numbered};
use super::{GREETING_TIME, PeerEvent, dial};
use crate::runtime::{clock, poller};
use crate::time::Millis;
use crate::types::ServerId;
use crate::wire::hello::{self, GREETING_BYTES_MAX, Greeting, Hello};

/// The accepting thread; dropped, it ends.
pub(super) struct Acceptor {
    listener: TcpListener,
    /// Dropped with this value, which tells the thread.
    _alive: Sender<()>,
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // It wakes whoever waits in accept.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// What greets those who come.
pub(super) struct Desk<T> {
    /// What this server says; to whom is filled in.
    pub(super) hello: Hello,
    /// Every server of the ensemble.
    pub(super) servers: Rc<[ServerId]>,
    pub(super) links: Rc<RefCell<Links>>,
    pub(super) events: Sender<T>,
}

/// Starts the thread, and the task that greets.
pub(super) fn start<T>(listener: TcpListener, desk: Desk<T>) -> io::Result<Acceptor>
where
    T: From<PeerEvent> + 'static,
{
    let (alive, ended) = flume::bounded(1);
    let (sender, accepted) = flume::bounded(GREETINGS_MAX);
    let held = listener.try_clone()?;
    thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || take_connections(&listener, &ended, &sender))?;
    spawn_local(receive(desk, accepted)).detach();
    Ok(Acceptor {
        listener: held,
        _alive: alive,
    })
}

fn take_connections(
    listener: &TcpListener,
    ended: &Receiver<()>,
    accepted: &Sender<(TcpStream, SocketAddr)>,
) {
    let mut complaint = String::new();
    loop {
        match listener.accept() {
            Ok(connection) => {
                // Waits while the executor has no time for more.
                if accepted.send(connection).is_err() {
                    return;
                }
            }
            Err(error) => {
                // What has gone wrong may be the end, or a shortage of descriptors, which
                // would fail again at once.
                if ended.recv_timeout(ACCEPT_PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let why = error.to_string();
                if why != complaint {
                    tracing::warn!("no other server can connect: {why}");
                    complaint = why;
                }
            }
        }
    }
}

/// Greets each connection in a task of its own. At the limit the one that has been at it
/// longest gives way, so that those who say nothing keep nobody out.
async fn receive<T>(desk: Desk<T>, accepted: Receiver<(TcpStream, SocketAddr)>)
where
    T: From<PeerEvent> + 'static,
{
    let desk = Rc::new(desk);
    let pending = Rc::new(RefCell::new(VecDeque::<(u64, TcpStream)>::new()));
    let quiet = Rc::new(Quiet::default());
    let mut number = 0;
    while let Ok((socket, from)) = accepted.recv_async().await {
        let Ok(held) = socket.try_clone() else {
            continue;
        };
        number += 1;
        let oldest = {
            let mut pending = pending.borrow_mut();
            pending.push_back((number, held));
            if pending.len() > GREETINGS_MAX {
                pending.pop_front()
            } else {
                None
            }
        };
        if let Some((_, socket)) = oldest {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let (desk, pending, quiet) = (Rc::clone(&desk), Rc::clone(&pending), Rc::clone(&quiet));
        spawn_local(async move {
            let served = desk.serve(socket).await;
            pending.borrow_mut().retain(|(other, _)| *other != number);
            match served {
                Ok(reader) => reader.await,
                Err(why) => quiet.warn(from, &why),
            }
        })
        .detach();
    }
}

impl<T: From<PeerEvent> + 'static> Desk<T> {
    /// Greets, and returns what reads from then on; or why there is nothing to read.
    async fn serve(&self, socket: TcpStream) -> Result<impl Future<Output = ()> + use<T>, String> {
        let plain = |error: io::Error| error.to_string();
        dial::prepare(&socket).map_err(plain)?;
        let ours = socket.try_clone().map_err(plain)?;
        let mut stream = poller::stream(socket);
        let late = async {
            Timer::new(GREETING_TIME).await;
            Err("it takes too long to say hello".to_owned())
        };
        let other = future::or(self.greet(&mut stream), late).await?;
        let accepted = self
            .links
            .borrow_mut()
            .accepted(other.from, other.nonce, ours);
        let (number, go) = accepted.ok_or("this server is stopping")?;
        let peer = other.from;
        let at = Numbered { peer, number };
        let (links, events) = (Rc::clone(&self.links), self.events.clone());
        Ok(stream::read(links, at, stream, go, events))
    }

    /// Hears who it is, and answers.
    async fn greet(&self, stream: &mut glommio::net::TcpStream) -> Result<Hello, String> {
        let mut bytes = [0; GREETING_BYTES_MAX];
        let mut filled = 0;
        let greeting = loop {
            let count = stream.read(&mut bytes[filled..]).await;
            let count = count.map_err(|error| error.to_string())?;
            if count == 0 {
                return Err("it has hung up without a greeting".to_owned());
            }
            filled += count;
            match hello::decode(&bytes[..filled]) {
                Err(error) => return Err(error.to_string()),
                Ok(Some((greeting, taken))) if taken == filled => break greeting,
                Ok(Some(_)) => return Err("it speaks before it is answered".to_owned()),
                Ok(None) => {}
            }
        };
        let mut answer = Vec::new();
        let verdict = self.judge(greeting);
        match &verdict {
            Ok(other) => Hello {
                to: other.from,
                ..self.hello
            }
            .encode(&mut answer),
            Err(reason) => hello::encode_reject(reason, &mut answer),
        }
        let written = stream.write_all(&answer).await;
        written.map_err(|error| error.to_string())?;
        verdict
    }

    fn judge(&self, greeting: Greeting) -> Result<Hello, String> {
        match greeting {
            Greeting::Hello(other) => match other.refusal(&self.hello, &self.servers) {
                Some(reason) => Err(reason),
                None => Ok(other),
            },
            Greeting::Foreign { format } => Err(hello::format_refusal(&self.hello, format)),
            Greeting::Reject(reason) => Err(format!("it refuses this server: {reason}")),
        }
    }
}

/// Says now and then what would be said too often.
#[derive(Default)]
struct Quiet {
    said: Cell<Option<Millis>>,
    kept: Cell<u64>,
}

impl Quiet {
    fn warn(&self, from: SocketAddr, why: &str) {
        let now = clock::now();
        if self.said.get().is_some_and(|said| now.since(said) < QUIET) {
            self.kept.set(self.kept.get() + 1);
            return;
        }
        self.said.set(Some(now));
        let more = match self.kept.take() {
            0 => String::new(),
            kept => format!(" ({kept} more since the last time)"),
        };
        tracing::warn!("refused a connection from {from} to the port for servers: {why}{more}");
    }
}

/// Greetings under way at once; the oldest gives way to more.
const GREETINGS_MAX: usize = 64;
/// After an accept that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two complaints about those who are refused.
const QUIET: Millis = Millis::from_secs(10);
