//! What is known of each other server: the two connections, what waits to be sent, and what
//! the core has been told.

use std::cell::RefCell;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flume::{Receiver, Sender};

use super::PeerEvent;
use super::stream::Numbered;
use crate::types::ServerId;

/// Every other server.
///
/// Nothing here waits: tasks borrow it between two points at which they do.
pub(super) struct Links {
    links: Vec<Link>,
    queue_bytes_max: usize,
    queue_frames_max: usize,
    /// Rung when the core is to be told something.
    notify: Sender<()>,
    /// Counts connections and orders, so that none is taken for another.
    count: u64,
    /// True once the transport has been dropped.
    closed: bool,
}

/// One other server.
///
/// Invariants: `up` only while both connections stand, and both were greeted by the same run;
/// a connection is ordered whenever `out` is missing.
struct Link {
    peer: ServerId,
    /// The connection this server has dialled.
    out: Option<Outgoing>,
    /// The connection it has accepted.
    inc: Option<Incoming>,
    orders: Orders,
    /// The number of the present time of being connected.
    up: Option<u64>,
    /// The number of that which the core knows of.
    told: Option<u64>,
    drained: Drained,
}

/// The way to a dialling thread, which ends when this is dropped.
pub(super) struct Orders {
    /// The number of the connection that is wanted.
    pub(super) wanted: Arc<AtomicU64>,
    /// Rung when that has changed, or when there is reason not to wait.
    pub(super) bell: Sender<()>,
}

struct Outgoing {
    number: u64,
    nonce: u64,
    /// To end the connection under whoever writes to it.
    socket: TcpStream,
    queue: Vec<u8>,
    frames: usize,
    /// Bytes that the writer has taken and not yet written.
    writing: usize,
    wake: Sender<()>,
}

struct Incoming {
    number: u64,
    nonce: u64,
    socket: TcpStream,
    /// Lets the reader begin.
    go: Sender<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    NotAsked,
    Asked,
    Due,
}

/// Which connection of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that this server has dialled.
    Out,
    /// The one that it has accepted.
    In,
}

impl Links {
    pub(super) fn new(
        queue_bytes_max: usize,
        queue_frames_max: usize,
        notify: Sender<()>,
        seed: u64,
    ) -> Links {
        Links {
            links: Vec::new(),
            queue_bytes_max,
            queue_frames_max,
            notify,
            count: seed >> 32,
            closed: false,
        }
    }

    /// A server to be connected with; it is dialled at once.
    pub(super) fn add(&mut self, peer: ServerId, orders: Orders) {
        self.links.push(Link {
            peer,
            out: None,
            inc: None,
            orders,
            up: None,
            told: None,
            drained: Drained::NotAsked,
        });
        let number = self.number();
        if let Some(link) = self.link(peer) {
            link.orders.place(number);
        }
    }

    /// A connection stands, greeted by the run `nonce` of its server. Its writer is woken by
    /// what is returned; `None` if the connection is not wanted any more.
    pub(super) fn dialled(
        &mut self,
        at: Numbered,
        nonce: u64,
        socket: TcpStream,
    ) -> Option<Receiver<()>> {
        let Numbered { peer, number } = at;
        let link = self.link(peer)?;
        if link.orders.placed() != number || link.out.is_some() {
            return None;
        }
        let (wake, woken) = flume::bounded(1);
        link.out = Some(Outgoing {
            number,
            nonce,
            socket,
            queue: Vec::new(),
            frames: 0,
            writing: 0,
            wake,
        });
        // The other side may have been accepted from a run that has ended meanwhile: then that
        // connection ends soon, or has been replaced.
        self.pair(peer);
        Some(woken)
    }

    /// A connection stands, but cannot be used; another is wanted.
    pub(super) fn undialled(&mut self, at: Numbered) {
        let number = self.number();
        if let Some(link) = self.link(at.peer)
            && link.orders.placed() == at.number
        {
            link.orders.place(number);
        }
    }

    /// A connection from the run `nonce` of `peer` has been accepted and greeted. It replaces
    /// an older one: whoever dials anew has given up the connection it had, even if this
    /// server has not heard of it. Returns its number and what lets its reader begin.
    pub(super) fn accepted(
        &mut self,
        peer: ServerId,
        nonce: u64,
        socket: TcpStream,
    ) -> Option<(u64, Receiver<()>)> {
        let number = self.number();
        let link = self.link(peer)?;
        let other_run = link.out.as_ref().is_some_and(|out| out.nonce != nonce);
        if link.inc.is_some() && link.up.is_some() || other_run {
            self.unpair(peer, "it has connected anew");
        }
        let link = self.link(peer)?;
        let (go, gone) = flume::bounded(1);
        let old = link.inc.replace(Incoming {
            number,
            nonce,
            socket,
            go,
        });
        if let Some(old) = old {
            let _ = old.socket.shutdown(Shutdown::Both);
        }
        // It is there, so there is no reason to wait before dialling it.
        if link.out.is_none() {
            link.orders.hurry();
        }
        self.pair(peer);
        Some((number, gone))
    }

    /// A connection has ended, for this reason.
    pub(super) fn lost(&mut self, at: Numbered, side: Side, why: &str) {
        let number = self.number();
        let Some(link) = self.link(at.peer) else {
            return;
        };
        if link.number_of(side) != Some(at.number) {
            return;
        }
        if link.up.is_some() {
            return self.unpair(at.peer, why);
        }
        // Not connected yet, and the other connection may be as good as ever.
        match side {
            Side::Out => {
                link.out = None;
                link.orders.place(number);
            }
            Side::In => link.inc = None,
        }
    }

    /// Appends a frame to what waits for `to`; false if it is lost.
    pub(super) fn send(&mut self, to: ServerId, put: impl FnOnce(&mut Vec<u8>)) -> bool {
        let (bytes_max, frames_max) = (self.queue_bytes_max, self.queue_frames_max);
        let Some(link) = self.link(to).filter(|link| link.is_known()) else {
            return false;
        };
        let Some(out) = &mut link.out else {
            return false;
        };
        put(&mut out.queue);
        out.frames += 1;
        let bytes = out.queue.len() + out.writing;
        if bytes > bytes_max || out.frames > frames_max {
            let frames = out.frames;
            let why = format!("it does not take what it is sent: {frames} frames, {bytes} bytes");
            self.unpair(to, &why);
            return false;
        }
        // If it is full the writer is woken already.
        let _ = out.wake.try_send(());
        true
    }

    /// Moves all that waits for a server into `batch`, which has been written; false if there
    /// is nothing, or the connection is not the present one.
    pub(super) fn take(&mut self, at: Numbered, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        let Some(link) = self.link(at.peer) else {
            return false;
        };
        let Some(out) = link.out.as_mut().filter(|out| out.number == at.number) else {
            return false;
        };
        std::mem::swap(batch, &mut out.queue);
        // A rare burst must not keep its memory for ever.
        if out.queue.capacity() > KEPT_BYTES_MAX {
            out.queue = Vec::new();
        }
        out.frames = 0;
        out.writing = batch.len();
        if !batch.is_empty() {
            return true;
        }
        if link.drained == Drained::Asked {
            link.drained = Drained::Due;
            self.ring();
        }
        false
    }

    /// See [`super::Transport::queued_bytes`].
    pub(super) fn queued_bytes(&self, to: ServerId) -> usize {
        let link = self.links.iter().find(|link| link.peer == to);
        let out = link.and_then(|link| link.out.as_ref());
        out.map_or(0, |out| out.queue.len() + out.writing)
    }

    /// See [`super::Transport::tell_when_drained`].
    pub(super) fn tell_when_drained(&mut self, to: ServerId) {
        let Some(link) = self.link(to).filter(|link| link.is_known()) else {
            return;
        };
        let Some(out) = &link.out else {
            return;
        };
        let empty = out.queue.is_empty() && out.writing == 0;
        link.drained = if empty { Drained::Due } else { Drained::Asked };
        if empty {
            self.ring();
        }
    }

    /// True if what an accepted connection brings is to be told to the core.
    pub(super) fn is_heard(&self, at: Numbered) -> bool {
        let link = self.links.iter().find(|link| link.peer == at.peer);
        link.is_some_and(|link| link.is_known() && link.number_of(Side::In) == Some(at.number))
    }

    /// Ends every connection and thread.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for link in &mut self.links {
            link.hang_up();
        }
        // With the last sender of orders each dialling thread ends.
        self.links.clear();
    }

    /// The next thing that the core is to be told, and what is to be done once it has been.
    fn next_notice(&mut self) -> Option<(PeerEvent, Option<Sender<()>>)> {
        self.links.iter_mut().find_map(Link::next_notice)
    }

    /// Connects the two servers if both connections stand.
    fn pair(&mut self, peer: ServerId) {
        let number = self.number();
        let Some(link) = self.link(peer) else {
            return;
        };
        let (Some(out), Some(inc)) = (&link.out, &link.inc) else {
            return;
        };
        if out.nonce == inc.nonce {
            link.up = Some(number);
            link.drained = Drained::NotAsked;
            self.ring();
        }
    }

    /// Ends both connections and dials anew.
    fn unpair(&mut self, peer: ServerId, why: &str) {
        let number = self.number();
        let Some(link) = self.link(peer) else {
            return;
        };
        if link.up.is_some() {
            tracing::warn!("server {peer} is disconnected: {why}");
        }
        link.hang_up();
        link.orders.place(number);
        self.ring();
    }

    fn ring(&self) {
        // If it is full it has been rung already.
        let _ = self.notify.try_send(());
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn link(&mut self, peer: ServerId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.peer == peer)
    }
}

impl Link {
    /// True if the core knows that the server is connected.
    fn is_known(&self) -> bool {
        self.up.is_some() && self.told == self.up
    }

    fn number_of(&self, side: Side) -> Option<u64> {
        match side {
            Side::Out => self.out.as_ref().map(|out| out.number),
            Side::In => self.inc.as_ref().map(|inc| inc.number),
        }
    }

    fn hang_up(&mut self) {
        self.up = None;
        // Shut down rather than closed: whoever waits for the socket then learns of it.
        if let Some(out) = self.out.take() {
            let _ = out.socket.shutdown(Shutdown::Both);
        }
        if let Some(inc) = self.inc.take() {
            let _ = inc.socket.shutdown(Shutdown::Both);
        }
    }

    fn next_notice(&mut self) -> Option<(PeerEvent, Option<Sender<()>>)> {
        if self.told != self.up {
            if self.told.take().is_some() {
                return Some((PeerEvent::Disconnected(self.peer), None));
            }
            self.told = self.up;
            let go = self.inc.as_ref().map(|inc| inc.go.clone());
            return Some((PeerEvent::Connected(self.peer), go));
        }
        if self.told.is_some() && self.drained == Drained::Due {
            self.drained = Drained::NotAsked;
            return Some((PeerEvent::Drained(self.peer), None));
        }
        None
    }
}

impl Orders {
    /// Asks for a connection of this number.
    fn place(&self, number: u64) {
        self.wanted.store(number, Ordering::Release);
        self.hurry();
    }

    /// Asks not to wait before the next attempt, if one is needed.
    fn hurry(&self) {
        // If it is full it rings already.
        let _ = self.bell.try_send(());
    }

    fn placed(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }
}

/// Tells the core of connections, in order; a reader begins once the core knows.
pub(super) async fn tell<T: From<PeerEvent>>(
    links: Rc<RefCell<Links>>,
    rung: Receiver<()>,
    events: Sender<T>,
) {
    while rung.recv_async().await.is_ok() {
        loop {
            let notice = links.borrow_mut().next_notice();
            let Some((event, go)) = notice else {
                break;
            };
            if let PeerEvent::Connected(peer) = event {
                tracing::info!("server {peer} is connected");
            }
            if events.send_async(event.into()).await.is_err() {
                return;
            }
            if let Some(go) = go {
                let _ = go.try_send(());
            }
        }
        if links.borrow().closed {
            return;
        }
    }
}

/// Memory that an empty queue keeps.
const KEPT_BYTES_MAX: usize = 1 << 20;
