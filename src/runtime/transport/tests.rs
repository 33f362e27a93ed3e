//! Servers on loopback, and some that are not what they should be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use flume::Receiver;
use futures_lite::future;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};

use super::*;
use crate::wire::hello::{self, Greeting};
use crate::zab::{Body, Message, Tenure};

fn on_executor<F: Future<Output = ()> + 'static>(task: impl FnOnce() -> F + Send + 'static) {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(1 << 16)
        .spawn(move || async move { task().await })
        .expect("io_uring works here")
        .join()
        .expect("the test passes");
}

/// Runs what blocks on a thread of its own, and waits for it as a task does.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = flume::bounded(1);
    thread::spawn(move || sender.send(work()));
    receiver.recv_async().await.expect("the thread returns")
}

/// Ports that are free, with their listeners.
fn ports(count: usize) -> (Vec<(ServerId, String)>, Vec<TcpListener>) {
    let bound = (1..).take(count).map(|id| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        ((ServerId(id), address), listener)
    });
    bound.unzip()
}

struct Server {
    transport: Transport,
    events: Receiver<PeerEvent>,
}

impl Server {
    fn start(own: u32, servers: &[(ServerId, String)], listener: TcpListener, run: u64) -> Server {
        Server::with(settings(own, servers, run), listener)
    }

    fn with(settings: Settings, listener: TcpListener) -> Server {
        let (sender, events) = flume::bounded(64);
        let transport = Transport::start(&settings, listener, sender).unwrap();
        Server { transport, events }
    }

    async fn next(&self) -> PeerEvent {
        let late = async {
            Timer::new(Duration::from_secs(20)).await;
            panic!("nothing happens");
        };
        let event = async { self.events.recv_async().await.unwrap() };
        future::or(event, late).await
    }

    async fn connected(&self, peer: u32) {
        match self.next().await {
            PeerEvent::Connected(id) if id == ServerId(peer) => {}
            other => panic!("{other:?} where server {peer} should connect"),
        }
    }

    async fn disconnected(&self, peer: u32) {
        match self.next().await {
            PeerEvent::Disconnected(id) if id == ServerId(peer) => {}
            other => panic!("{other:?} where server {peer} should be lost"),
        }
    }

    /// The next `count` frames from `peer`.
    async fn hear(&self, peer: u32, count: usize) -> Vec<Frame> {
        let mut heard = Vec::new();
        while heard.len() < count {
            match self.next().await {
                PeerEvent::Frames(received) if received.from == ServerId(peer) => {
                    heard.extend(received.frames.iter().cloned());
                }
                other => panic!("{other:?} where server {peer} should speak"),
            }
        }
        heard
    }
}

fn settings(own: u32, servers: &[(ServerId, String)], run: u64) -> Settings {
    Settings {
        own: ServerId(own),
        servers: servers.to_vec(),
        ensemble_version: 1,
        nonce: run,
        queue_bytes_max: 32 << 20,
        queue_frames_max: 1 << 20,
    }
}

fn saying(seq: u64, bytes: &[u8]) -> Message {
    let tenure = Tenure::default();
    let body = Body::Payload(bytes.into());
    Message::Link { tenure, seq, body }
}

/// A server by hand: its greetings are right unless a test makes them wrong.
struct Fake {
    servers: Vec<(ServerId, String)>,
    listener: TcpListener,
    run: u64,
}

impl Fake {
    fn hello(&self) -> Hello {
        let settings = settings(2, &self.servers, self.run);
        super::hello(&settings, ServerId(1))
    }

    fn dial(&self) -> TcpStream {
        let (socket, answer) = greet(&self.servers[0].1, &self.hello());
        assert!(matches!(answer, Some(Greeting::Hello(_))), "{answer:?}");
        socket
    }

    fn answer(&self) -> TcpStream {
        let (mut socket, _) = self.listener.accept().unwrap();
        let heard = read_greeting(&mut socket);
        assert!(matches!(heard, Some(Greeting::Hello(_))), "{heard:?}");
        let mut bytes = Vec::new();
        self.hello().encode(&mut bytes);
        socket.write_all(&bytes).unwrap();
        socket
    }

    /// Both connections: the one it speaks on, and the one it listens on.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let listens = self.answer();
        (self.dial(), listens)
    }
}

/// Says hello, and hears the answer, if there is one before the end.
fn greet(address: &str, hello: &Hello) -> (TcpStream, Option<Greeting>) {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(&bytes).unwrap();
    let answer = read_greeting(&mut socket);
    (socket, answer)
}

fn read_greeting(socket: &mut TcpStream) -> Option<Greeting> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while socket.read(&mut byte).unwrap() == 1 {
        bytes.push(byte[0]);
        if let Some((greeting, _)) = hello::decode(&bytes).unwrap() {
            return Some(greeting);
        }
    }
    None
}

/// Waits until the other side has closed; what it said before does not count.
fn is_closed(mut socket: TcpStream) -> bool {
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut bytes = [0; 1 << 16];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// A server, and one by hand that it is connected with.
async fn with_fake(run: u64) -> (Server, Arc<Fake>, TcpStream, TcpStream) {
    let (servers, listeners) = ports(2);
    let [first, second] = <[TcpListener; 2]>::try_from(listeners).unwrap();
    let server = Server::start(1, &servers, first, 1);
    let fake = Arc::new(Fake {
        servers,
        listener: second,
        run,
    });
    let hand = Arc::clone(&fake);
    let (speaks, listens) = on_thread(move || hand.connect()).await;
    server.connected(2).await;
    (server, fake, speaks, listens)
}

#[test]
fn servers_connect_both_ways_and_hear_each_other_in_order() {
    on_executor(|| async {
        let (servers, listeners) = ports(3);
        let start = |(id, listener)| Server::start(id, &servers, listener, 7 + u64::from(id));
        let all: Vec<Server> = (1..).zip(listeners).map(start).collect();
        for server in &all {
            let both = [server.next().await, server.next().await];
            let connected = |event: &PeerEvent| matches!(event, PeerEvent::Connected(_));
            assert!(both.iter().all(connected), "{both:?}");
        }
        for seq in 0..5_000 {
            assert!(all[0].transport.send_zab(ServerId(2), &saying(seq, b"x")));
            assert!(all[1].transport.send_zab(ServerId(1), &saying(seq, b"y")));
        }
        let expected = |bytes: &[u8]| -> Vec<Frame> {
            (0..5_000)
                .map(|seq| Frame::Zab(saying(seq, bytes)))
                .collect()
        };
        assert!(all[1].hear(1, 5_000).await == expected(b"x"));
        assert!(all[0].hear(2, 5_000).await == expected(b"y"));
        let (token, beats) = (9, Vec::new());
        let message = forward::Message::Beats { token, beats };
        assert!(all[2].transport.send_forward(ServerId(1), &message));
        assert_eq!(all[0].hear(3, 1).await, [Frame::Forward(message)]);
        let nobody = all[2].transport.send_zab(ServerId(4), &saying(0, b""));
        assert!(!nobody, "nobody has that id");
    });
}

#[test]
fn a_server_that_comes_back_is_connected_again() {
    on_executor(|| async {
        let (servers, listeners) = ports(2);
        let [first, second] = <[TcpListener; 2]>::try_from(listeners).unwrap();
        let again = second.try_clone().unwrap();
        let one = Server::start(1, &servers, first, 1);
        let two = Server::start(2, &servers, second, 2);
        one.connected(2).await;
        two.connected(1).await;
        drop(two);
        one.disconnected(2).await;
        assert!(!one.transport.send_zab(ServerId(2), &saying(0, b"lost")));
        // The listener was shut down with the transport; its port is taken anew.
        drop(again);
        let address: SocketAddr = servers[1].1.parse().unwrap();
        let listener = on_thread(move || {
            std::iter::repeat_with(|| TcpListener::bind(address))
                .find_map(Result::ok)
                .unwrap()
        });
        let two = Server::start(2, &servers, listener.await, 3);
        one.connected(2).await;
        two.connected(1).await;
        assert!(one.transport.send_zab(ServerId(2), &saying(1, b"new")));
        assert_eq!(two.hear(1, 1).await, [Frame::Zab(saying(1, b"new"))]);
    });
}

#[test]
fn whoever_does_not_belong_is_told_why() {
    on_executor(|| async {
        let (servers, listeners) = ports(2);
        let address = servers[0].1.clone();
        let mut listeners = listeners.into_iter();
        let _server = Server::start(1, &servers, listeners.next().unwrap(), 1);
        let listener = listeners.next().unwrap();
        let run = 5;
        let fake = Fake {
            servers,
            listener,
            run,
        };
        let right = fake.hello();
        let (cluster, format) = (right.cluster + 1, 2);
        let cases = [
            (Hello { cluster, ..right }, "different --ensemble settings"),
            (Hello { format, ..right }, "format"),
            (
                Hello {
                    to: ServerId(3),
                    ..right
                },
                "this is server 1, not server 3",
            ),
            (
                Hello {
                    from: ServerId(3),
                    ..right
                },
                "server 3 is not in the ensemble",
            ),
        ];
        for (hello, words) in cases {
            let address = address.clone();
            let (answer, closed) = on_thread(move || {
                let (socket, answer) = greet(&address, &hello);
                (answer, is_closed(socket))
            })
            .await;
            let Some(Greeting::Reject(reason)) = answer else {
                panic!("{answer:?} to {hello:?}");
            };
            assert!(reason.contains(words), "{reason}");
            assert!(closed);
        }
    });
}

#[test]
fn garbage_and_silence_harm_nobody() {
    on_executor(|| async {
        let (servers, listeners) = ports(2);
        let [first, second] = <[TcpListener; 2]>::try_from(listeners).unwrap();
        let one = Server::start(1, &servers, first, 1);
        let address = servers[0].1.clone();
        let silent = on_thread(move || {
            let mut stranger = TcpStream::connect(&address).unwrap();
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            assert!(is_closed(stranger), "what is no greeting ends at once");
            // More than may be greeted at once, none of which says a word.
            let all = std::iter::repeat_with(|| TcpStream::connect(&address).unwrap());
            all.take(3 * 64).collect::<Vec<_>>()
        });
        let silent = silent.await;
        let two = Server::start(2, &servers, second, 2);
        one.connected(2).await;
        two.connected(1).await;
        assert!(two.transport.send_zab(ServerId(1), &saying(1, b"hi")));
        assert_eq!(one.hear(2, 1).await, [Frame::Zab(saying(1, b"hi"))]);
        let mut silent = silent.into_iter();
        let (oldest, newest) = (silent.next().unwrap(), silent.next_back().unwrap());
        assert!(on_thread(|| is_closed(oldest)).await, "it has given way");
        assert!(on_thread(|| is_closed(newest)).await, "it takes too long");
    });
}

#[test]
fn a_frame_that_is_none_costs_the_connection_and_nothing_else() {
    on_executor(|| async {
        let (server, fake, mut speaks, listens) = with_fake(5).await;
        let mut bytes = Vec::new();
        wire_of(&saying(1, b"good"), &mut bytes);
        let whole = bytes.len();
        wire_of(&saying(2, b"bad"), &mut bytes);
        bytes[whole + 20] ^= 1;
        on_thread(move || {
            speaks.write_all(&bytes).unwrap();
            assert!(is_closed(speaks) && is_closed(listens));
        })
        .await;
        server.disconnected(2).await;
        let hand = Arc::clone(&fake);
        let (_speaks, _listens) = on_thread(move || hand.connect()).await;
        server.connected(2).await;
    });
}

#[test]
fn who_does_not_read_is_dropped_at_the_limit_and_not_waited_for() {
    on_executor(|| async {
        let (server, _fake, speaks, listens) = with_fake(5).await;
        let big = saying(0, &vec![0; 1 << 20]);
        let mut sent = 0;
        while server.transport.send_zab(ServerId(2), &big) {
            sent += 1;
            // Let the writer fill what the kernel takes.
            Timer::new(Duration::from_millis(1)).await;
            assert!(sent < 100, "the queue has no end");
        }
        assert!(sent >= 31, "{sent} MiB were too many");
        server.disconnected(2).await;
        assert_eq!(server.transport.queued_bytes(ServerId(2)), 0);
        assert!(on_thread(|| is_closed(speaks) && is_closed(listens)).await);
    });
}

#[test]
fn frames_are_limited_in_number_too() {
    on_executor(|| async {
        let (servers, listeners) = ports(2);
        let [first, second] = <[TcpListener; 2]>::try_from(listeners).unwrap();
        let few = Settings {
            queue_frames_max: 10,
            ..settings(1, &servers, 1)
        };
        let one = Server::with(few, first);
        let two = Server::start(2, &servers, second, 2);
        one.connected(2).await;
        two.connected(1).await;
        // The writer has no turn in between.
        let sent = (0..11).map(|seq| one.transport.send_zab(ServerId(2), &saying(seq, b"")));
        let sent: Vec<bool> = sent.collect();
        assert_eq!(sent, [vec![true; 10], vec![false]].concat());
        one.disconnected(2).await;
    });
}

#[test]
fn a_long_frame_comes_through_and_its_end_is_told() {
    on_executor(|| async {
        let (servers, listeners) = ports(2);
        let [first, second] = <[TcpListener; 2]>::try_from(listeners).unwrap();
        let one = Server::start(1, &servers, first, 1);
        let two = Server::start(2, &servers, second, 2);
        one.connected(2).await;
        two.connected(1).await;
        let long = saying(1, &vec![3; 8 << 20]);
        assert!(one.transport.send_zab(ServerId(2), &long));
        assert!(one.transport.send_zab(ServerId(2), &saying(2, b"after")));
        assert!(one.transport.queued_bytes(ServerId(2)) > 8 << 20);
        one.transport.tell_when_drained(ServerId(2));
        let heard = two.hear(1, 2).await;
        assert!(heard == [Frame::Zab(long), Frame::Zab(saying(2, b"after"))]);
        let drained = one.next().await;
        assert!(
            matches!(drained, PeerEvent::Drained(ServerId(2))),
            "{drained:?}"
        );
        assert_eq!(one.transport.queued_bytes(ServerId(2)), 0);
        one.transport.tell_when_drained(ServerId(2));
        let at_once = one.next().await;
        assert!(matches!(at_once, PeerEvent::Drained(_)), "{at_once:?}");
    });
}

#[test]
fn a_core_that_takes_nothing_is_sent_one_batch_and_no_more() {
    on_executor(|| async {
        let (server, _fake, mut speaks, _listens) = with_fake(5).await;
        let written = on_thread(move || {
            let mut bytes = Vec::new();
            for seq in 0..4_000 {
                wire_of(&saying(seq, &[0; 1_000]), &mut bytes);
            }
            // More than the sockets hold: it is stuck until somebody reads.
            thread::spawn(move || speaks.write_all(&bytes).map(|()| speaks))
        })
        .await;
        let PeerEvent::Frames(first) = server.next().await else {
            panic!("no frames");
        };
        Timer::new(Duration::from_millis(50)).await;
        assert!(server.events.is_empty(), "the first is still held");
        let mut seqs = first.frames.len();
        drop(first);
        seqs += server.hear(2, 4_000 - seqs).await.len();
        assert_eq!(seqs, 4_000);
        assert!(on_thread(|| written.join()).await.is_ok());
    });
}

#[test]
fn the_newest_connection_of_a_server_replaces_the_one_before() {
    on_executor(|| async {
        let (server, fake, speaks, listens) = with_fake(5).await;
        let hand = Arc::clone(&fake);
        // Half open, as far as the server knows: the other side has forgotten all of it.
        let (again, answered) = on_thread(move || (hand.dial(), hand.answer())).await;
        server.disconnected(2).await;
        server.connected(2).await;
        assert!(on_thread(|| is_closed(speaks) && is_closed(listens)).await);
        assert!(server.transport.send_zab(ServerId(2), &saying(1, b"x")));
        drop((again, answered));
        server.disconnected(2).await;
    });
}

#[test]
fn two_runs_of_one_server_do_not_make_a_pair() {
    on_executor(|| async {
        let (servers, mut listeners) = ports(2);
        let listener = listeners.pop().unwrap();
        let server = Server::start(1, &servers, listeners.pop().unwrap(), 1);
        let run = 5;
        let fake = Fake {
            servers,
            listener,
            run,
        };
        let (old, fake) = on_thread(move || (fake.answer(), fake)).await;
        let fresh = Fake { run: 6, ..fake };
        let stand = on_thread(move || {
            let speaks = fresh.dial();
            assert!(is_closed(old), "its run has ended");
            (speaks, fresh.answer())
        })
        .await;
        server.connected(2).await;
        drop(stand);
        server.disconnected(2).await;
    });
}

fn wire_of(message: &Message, out: &mut Vec<u8>) {
    encode_zab(message, out);
}
