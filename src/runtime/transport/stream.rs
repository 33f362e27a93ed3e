//! The tasks on a connection: one writes what waits, one reads what comes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use flume::{Receiver, Sender};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;

use super::links::{Links, Side};
use super::{Credit, PeerEvent, Received};
use crate::types::ServerId;
use crate::wire::{self, Frame, Malformed};

/// One connection with one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    /// The server.
    pub(super) peer: ServerId,
    /// The connection.
    pub(super) number: u64,
}

/// Writes what waits, all of it at a time, whenever it is woken.
pub(super) async fn write(
    links: Rc<RefCell<Links>>,
    at: Numbered,
    mut stream: TcpStream,
    woken: Receiver<()>,
) {
    let mut batch = Vec::new();
    // The waker goes with the connection's entry in `links`.
    while woken.recv_async().await.is_ok() {
        loop {
            let more = links.borrow_mut().take(at, &mut batch);
            if !more {
                break;
            }
            if let Err(error) = stream.write_all(&batch).await {
                return links.borrow_mut().lost(at, Side::Out, &ended(&error));
            }
        }
    }
}

/// Notices that the other server has hung up on a connection that only it reads.
pub(super) async fn watch(links: Rc<RefCell<Links>>, at: Numbered, mut stream: TcpStream) {
    let mut byte = [0];
    let why = match stream.read(&mut byte).await {
        Ok(0) => HUNG_UP.to_owned(),
        Ok(_) => "it speaks where it should listen".to_owned(),
        Err(error) => ended(&error),
    };
    links.borrow_mut().lost(at, Side::Out, &why);
}

/// Reads frames for the core, from when the core knows of the connection until its end.
pub(super) async fn read<T: From<PeerEvent>>(
    links: Rc<RefCell<Links>>,
    at: Numbered,
    mut stream: TcpStream,
    go: Receiver<()>,
    events: Sender<T>,
) {
    if go.recv_async().await.is_err() {
        return;
    }
    let mut buffer = Buffer::default();
    let (credit, credits) = flume::bounded(1);
    let _ = credit.send(());
    let why = loop {
        match stream.read(buffer.room()).await {
            Ok(0) => break HUNG_UP.to_owned(),
            Ok(count) => buffer.filled += count,
            Err(error) => break ended(&error),
        }
        let frames = match buffer.frames() {
            Ok(frames) => frames,
            Err(malformed) => break format!("it has sent {malformed}"),
        };
        if frames.is_empty() {
            continue;
        }
        // The core has taken the batch before this one.
        if credits.recv_async().await.is_err() || !links.borrow().is_heard(at) {
            return;
        }
        let event = PeerEvent::Frames(Received {
            from: at.peer,
            frames,
            _credit: Credit(credit.clone()),
        });
        if events.send_async(event.into()).await.is_err() {
            return;
        }
    };
    links.borrow_mut().lost(at, Side::In, &why);
}

/// Bytes read and not yet understood.
#[derive(Default)]
struct Buffer {
    /// The first `filled` of these have been read; what follows is room.
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    /// Where the next bytes go. It grows with what has come in, never with what is announced.
    fn room(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.filled < READ_BYTES / 2 {
            self.bytes.resize(self.filled + READ_BYTES, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// Takes out every whole frame.
    fn frames(&mut self) -> Result<Vec<Frame>, Malformed> {
        let mut frames = Vec::new();
        let mut start = 0;
        while let Some((frame, taken)) = wire::decode(&self.bytes[start..self.filled])? {
            frames.push(frame);
            start += taken;
        }
        self.bytes.copy_within(start..self.filled, 0);
        self.filled -= start;
        // A rare long frame must not keep its memory for ever.
        if self.filled <= READ_BYTES && self.bytes.len() > 4 * READ_BYTES {
            self.bytes.truncate(2 * READ_BYTES);
            self.bytes.shrink_to_fit();
        }
        Ok(frames)
    }
}

fn ended(error: &io::Error) -> String {
    format!("the connection has ended: {error}")
}

const HUNG_UP: &str = "it has hung up";

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
