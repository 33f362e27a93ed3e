//! The ways to the other servers: sockets on the core's executor.
//!
//! Each server dials every other and speaks on the connection it has dialled; on those it has
//! accepted it only listens. Two servers are *connected* while both stand, each greeted by the
//! same run of the other; the loss of either is the loss of both, so that the two servers
//! agree on it soon. Whoever is accepted is dialled at once, so that a server that comes back
//! is not waited for longer than it takes to say hello.
//!
//! ```text
//! dial (a thread for each server: resolve, connect, greet) ─┐
//!                                                           ├─▶ Links ─▶ write, read (tasks)
//! accept (a thread) ─▶ greet (a task for each, few at once) ─┘                    │
//!                                        core ◀── Connected, Frames, Disconnected ┘
//! ```
//!
//! What waits has a maximum. For a server that does not take what it is sent, it is a queue of
//! so many bytes and frames: at the limit the connection is dropped, which the protocol above
//! takes for what it is. For the core, it is one batch of frames from each server: until it has
//! been taken nothing more is read, and TCP holds the sender back. Greetings that are under way
//! at once are limited too, the oldest gives way, and each has little time; nobody who is not
//! of the ensemble gets further than that.

mod accept;
mod dial;
mod links;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use flume::Sender;
use glommio::spawn_local;

use crate::forward;
use crate::types::ServerId;
use crate::wire::hello::{FORMAT, Hello, cluster_id};
use crate::wire::{Frame, encode_forward, encode_zab};
use crate::zab;

use links::Links;

/// Whom to talk to, and with what patience.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This server.
    pub own: ServerId,
    /// Every server of the ensemble and its address, `HOST:PORT`, this one included.
    pub servers: Vec<(ServerId, String)>,
    /// The version of the ensemble.
    pub ensemble_version: u64,
    /// Drawn at random for this run.
    pub nonce: u64,
    /// Bytes that may wait for one server; at the limit the connection to it is dropped.
    pub queue_bytes_max: usize,
    /// Frames that may wait for one server; at the limit the connection to it is dropped.
    pub queue_frames_max: usize,
}

/// What happens on the ways to the other servers.
#[derive(Debug)]
pub enum PeerEvent {
    /// The server can be spoken to and heard.
    Connected(ServerId),
    /// It cannot any more; what was sent last may be lost. What follows is a new beginning.
    Disconnected(ServerId),
    /// All that waited for the server has been handed to the kernel. Told once for each
    /// [`Transport::tell_when_drained`].
    Drained(ServerId),
    /// The server says something.
    Frames(Received),
}

/// What one read of a connection has brought, in the order in which it was sent.
#[derive(Debug)]
pub struct Received {
    /// The speaker.
    pub from: ServerId,
    /// What it says; at least one.
    pub frames: Vec<Frame>,
    /// Dropped with this value, which lets the next batch come.
    _credit: Credit,
}

/// Gives its place free when it is dropped.
#[derive(Debug)]
struct Credit(Sender<()>);

impl Drop for Credit {
    fn drop(&mut self) {
        // Nobody waits for it if the connection is gone.
        let _ = self.0.try_send(());
    }
}

/// The ways to the other servers. Dropped, it closes them all.
pub struct Transport {
    links: Rc<RefCell<Links>>,
    _acceptor: accept::Acceptor,
}

impl Transport {
    /// Begins to accept on `listener` and to dial the others, and reports to `events`. To be
    /// called on the executor that is to serve the sockets.
    ///
    /// # Errors
    /// If a thread cannot be started or the listener cannot be used.
    pub fn start<T>(
        settings: &Settings,
        listener: TcpListener,
        events: Sender<T>,
    ) -> io::Result<Transport>
    where
        T: From<PeerEvent> + 'static,
    {
        let ids: Rc<[ServerId]> = settings.servers.iter().map(|(id, _)| *id).collect();
        let (dialled, results) = flume::bounded(settings.servers.len());
        let (notify, notices) = flume::bounded(1);
        let mut links = Links::new(
            settings.queue_bytes_max,
            settings.queue_frames_max,
            notify,
            settings.nonce,
        );
        for (peer, address) in &settings.servers {
            if *peer == settings.own {
                continue;
            }
            let hello = hello(settings, *peer);
            let orders = dial::start(hello, address.clone(), ids.to_vec(), dialled.clone())?;
            links.add(*peer, orders);
        }
        let links = Rc::new(RefCell::new(links));
        spawn_local(links::tell(Rc::clone(&links), notices, events.clone())).detach();
        spawn_local(dial::collect(Rc::clone(&links), results)).detach();
        let desk = accept::Desk {
            hello: hello(settings, settings.own),
            servers: ids,
            links: Rc::clone(&links),
            events,
        };
        let acceptor = accept::start(listener, desk)?;
        Ok(Transport {
            links,
            _acceptor: acceptor,
        })
    }

    /// Sends to `to`, after what was sent before; never waits. What is said to a server that is
    /// not connected is lost, and false is returned.
    pub fn send_zab(&self, to: ServerId, message: &zab::Message) -> bool {
        let mut links = self.links.borrow_mut();
        links.send(to, |out| encode_zab(message, out))
    }

    /// The same for a message about beats.
    pub fn send_forward(&self, to: ServerId, message: &forward::Message) -> bool {
        let mut links = self.links.borrow_mut();
        links.send(to, |out| encode_forward(message, out))
    }

    /// Bytes that wait for `to`; none if it is not connected.
    #[must_use]
    pub fn queued_bytes(&self, to: ServerId) -> usize {
        self.links.borrow().queued_bytes(to)
    }

    /// Asks for [`PeerEvent::Drained`] once nothing waits for `to` any more. Nothing comes if
    /// the server is lost before.
    pub fn tell_when_drained(&self, to: ServerId) {
        self.links.borrow_mut().tell_when_drained(to);
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.links.borrow_mut().close();
    }
}

/// Listens on `address`, `HOST:PORT`, for other servers.
///
/// # Errors
/// If it is not to be had, or is no address of this machine.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// What this server says to `to`.
fn hello(settings: &Settings, to: ServerId) -> Hello {
    Hello {
        format: FORMAT,
        cluster: cluster_id(&settings.servers),
        from: settings.own,
        to,
        ensemble_version: settings.ensemble_version,
        nonce: settings.nonce,
    }
}

/// How long a greeting may take, from the first byte to the answer.
const GREETING_TIME: Duration = Duration::from_secs(2);
