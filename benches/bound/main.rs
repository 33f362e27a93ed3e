//! The bound: what heartbeats would cost if there were nothing to do for them.
//!
//! One thread, one edge-triggered epoll set, `recv` and `send`: every request, whatever it
//! is, gets the same 204, and all requests of one read are answered with one send. What a
//! real server costs above this is its own; below this is the kernel's TCP. TARGETS P1 to
//! P3 are ratios to it, measured in one interleaved run.
//!
//! ```text
//! cargo bench --bench bound -- --serve 127.0.0.1:8650 --cpu 0
//! ```
//!
//! Without `--serve` (as in `cargo test --benches`) it checks itself and exits.

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;

const USAGE: &str = "usage: bound --serve ADDR [--cpu N] [--accept-limit N] [--answer bare|beat]
             [--threads N] [--sync FILE] [--hands N]

  --serve ADDR      listen here; port 0 takes a free one
  --cpu N           run on this processor only
  --accept-limit N  accept at most N connections between two looks at the others (64)
  --answer bare     answer with a status line alone: the least a server can say (default)
  --answer beat     answer with as many bytes as systole does
  --threads N       serve with N threads that share the port (1)
  --sync FILE       overwrite 4 KiB of this new file and sync them before each send
  --hands N         have a thread do that which is reached through N - 1 others (0)";

/// What every request is answered with: the least that HTTP allows.
const BARE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// As many bytes as systole sends.
const BEAT: &[u8] = b"HTTP/1.1 204 No Content\r\nx-group-version: 123456\r\n\
    x-session-id: 6543210000000001000000000000abcd\r\nx-session-timeout-ms: 10000\r\n\
    cache-control: no-store\r\n\r\n";

/// Bytes that one read takes at most.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Answers that one send sends at most: as many as one read asks for, if requests have the
/// 16 bytes that a request line has at the least.
const ANSWERS_MAX: usize = READ_BYTES_MAX / 16;

/// Connections that the kernel holds for us until we accept them.
const BACKLOG: i32 = 4096;

/// What is done, from the command line.
#[derive(Clone)]
struct Options {
    address: SocketAddr,
    cpu: Option<usize>,
    accept_limit: usize,
    answer: &'static [u8],
    threads: usize,
    sync: Option<PathBuf>,
    hands: usize,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = if args.iter().any(|arg| arg == "--serve") {
        options(&args).and_then(|options| serve(&options))
    } else {
        self_check()
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bound: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        cpu: None,
        accept_limit: 64,
        answer: BARE,
        threads: 1,
        sync: None,
        hands: 0,
    };
    // Cargo adds `--bench` of its own.
    let mut args = args.iter().filter(|arg| *arg != "--bench");
    while let Some(flag) = args.next() {
        let value = args
            .next()
            .ok_or_else(|| format!("{flag} wants a value\n{USAGE}"))?;
        let bad = |error: &dyn Display| format!("{flag} {value}: {error}\n{USAGE}");
        match flag.as_str() {
            "--serve" => options.address = value.parse().map_err(|error| bad(&error))?,
            "--cpu" => options.cpu = Some(value.parse().map_err(|error| bad(&error))?),
            "--accept-limit" => {
                options.accept_limit = value.parse().map_err(|error| bad(&error))?
            }
            "--answer" if value == "bare" => options.answer = BARE,
            "--answer" if value == "beat" => options.answer = BEAT,
            "--threads" => options.threads = value.parse().map_err(|error| bad(&error))?,
            "--sync" => options.sync = Some(PathBuf::from(value)),
            "--hands" => options.hands = value.parse().map_err(|error| bad(&error))?,
            _ => return Err(bad(&"not understood")),
        }
    }
    Ok(options)
}

/// Serves until something fails, with as many threads as are asked for.
fn serve(options: &Options) -> Result<(), String> {
    let first = Server::new(options)?;
    let address = first.listener.local_addr().map_err(failed("listen"))?;
    for _ in 1..options.threads {
        let one = Server::new(&Options {
            address,
            ..options.clone()
        })?;
        std::thread::spawn(move || one.run());
    }
    println!("listening on {address}");
    std::io::stdout().flush().map_err(failed("say so"))?;
    first.run()
}

/// Preallocated, and overwritten page by page, as a log is.
struct Disk {
    file: File,
    page: u64,
}

impl Disk {
    fn new(path: &PathBuf) -> std::io::Result<Disk> {
        let file = File::create_new(path)?;
        for page in 0..DISK_PAGES {
            file.write_all_at(&PAGE, page * PAGE.len() as u64)?;
        }
        file.sync_all()?;
        Ok(Disk { file, page: 0 })
    }

    fn write_and_sync(&mut self) -> std::io::Result<()> {
        self.page = (self.page + 1) % DISK_PAGES;
        self.file
            .write_all_at(&PAGE, self.page * PAGE.len() as u64)?;
        self.file.sync_data()
    }
}

/// Makes something durable, and says whether that went well.
type Durable = Box<dyn FnMut() -> std::io::Result<()> + Send>;

/// Has a thread do it, as a server does whose log has a thread of its own: this is what it takes
/// to hand a request over and to get it back, and nothing else. The thread runs where its
/// maker runs.
fn handed(mut durable: Durable) -> Durable {
    let (to, asked) = flume::bounded(1);
    let (answer, back) = flume::bounded(1);
    std::thread::spawn(move || {
        for () in asked {
            if answer.send(durable()).is_err() {
                return;
            }
        }
    });
    let gone = || std::io::Error::other("the thread that syncs has ended");
    Box::new(move || {
        to.send(()).map_err(|_| gone())?;
        back.recv().map_err(|_| gone())?
    })
}

/// What is written.
const PAGE: [u8; 4096] = [0x5a; 4096];
/// Pages of the file.
const DISK_PAGES: u64 = 1024;

/// The server: a listener and the connections, by their file descriptors.
struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    accept_limit: usize,
    connections: Vec<Option<Connection>>,
    wire: Wire,
}

/// What is read into and sent from, shared by all connections.
struct Wire {
    input: Box<[u8]>,
    /// The answer, [`ANSWERS_MAX`] times: any number of answers is a suffix of it, and so
    /// is what remains of them when a send took only a part.
    answers: Vec<u8>,
    answer_len: usize,
    durable: Option<Durable>,
}

/// One client.
struct Connection {
    stream: TcpStream,
    /// The last two bytes of the last read, for the end of a head may be cut anywhere.
    tail: [u8; 2],
    /// Bytes of answers that the socket did not take: a suffix of [`Wire::answers`].
    unsent: usize,
}

/// The listener's mark in the epoll set; no file descriptor is as large.
const LISTENER: u64 = u64::MAX;

impl Server {
    fn new(options: &Options) -> Result<Server, String> {
        if let Some(cpu) = options.cpu {
            if cpu >= CpuSet::MAX_CPU {
                return Err(format!("there is no processor {cpu}"));
            }
            let mut set = CpuSet::new();
            set.set(cpu);
            rustix::thread::sched_setaffinity(None, &set).map_err(failed("pin"))?;
        }
        // As many connections as we are allowed.
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        rustix::process::setrlimit(Resource::Nofile, raised).map_err(failed("raise the limit"))?;
        let family = if options.address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
            .map_err(failed("listen"))?;
        sockopt::set_socket_reuseaddr(&socket, true).map_err(failed("listen"))?;
        sockopt::set_socket_reuseport(&socket, options.threads > 1).map_err(failed("listen"))?;
        rustix::net::bind(&socket, &options.address).map_err(failed("listen"))?;
        rustix::net::listen(&socket, BACKLOG).map_err(failed("listen"))?;
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true).map_err(failed("listen"))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll"))?;
        // Level-triggered, so that what the limit leaves comes up again.
        let mark = EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, mark, EventFlags::IN).map_err(failed("epoll"))?;
        let durable = options.sync.as_ref().map(|path| {
            let mut disk = Disk::new(path)?;
            let here: Durable = Box::new(move || disk.write_and_sync());
            Ok((0..options.hands).fold(here, |durable, _| handed(durable)))
        });
        let durable = durable.transpose();
        let durable = durable.map_err(failed::<std::io::Error>("write"))?;
        Ok(Server {
            epoll,
            listener,
            accept_limit: options.accept_limit.max(1),
            connections: Vec::new(),
            wire: Wire {
                input: vec![0; READ_BYTES_MAX].into_boxed_slice(),
                answers: options.answer.repeat(ANSWERS_MAX),
                answer_len: options.answer.len(),
                durable,
            },
        })
    }

    fn run(mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(1024);
        loop {
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(format!("cannot wait: {error}")),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    fd => self.serve(fd as usize, event.flags),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), String> {
        for _ in 0..self.accept_limit {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::ConnectionAborted => return Ok(()),
                    _ => return Err(format!("cannot accept: {error}")),
                },
            };
            stream.set_nonblocking(true).map_err(failed("accept"))?;
            stream.set_nodelay(true).map_err(failed("accept"))?;
            let fd = stream.as_raw_fd() as usize;
            // Both directions from the start: then nothing is ever changed in the set.
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &stream, EventData::new_u64(fd as u64), flags)
                .map_err(failed("accept"))?;
            if self.connections.len() <= fd {
                self.connections.resize_with(fd + 1, || None);
            }
            self.connections[fd] = Some(Connection {
                stream,
                tail: [0; 2],
                unsent: 0,
            });
        }
        Ok(())
    }

    fn serve(&mut self, fd: usize, flags: EventFlags) {
        let Some(place) = self.connections.get_mut(fd) else {
            return;
        };
        let Some(connection) = place else { return };
        let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if !connection.serve(&mut self.wire, ending) {
            // Closing takes it out of the epoll set.
            *place = None;
        }
    }
}

impl Connection {
    /// Reads and answers until there is no more; false if the connection is over.
    fn serve(&mut self, wire: &mut Wire, ending: bool) -> bool {
        loop {
            if self.unsent > 0 && !self.send(wire) {
                return false;
            }
            if self.unsent > 0 {
                return true;
            }
            let read_len = match self.stream.read(&mut wire.input) {
                Ok(0) => return false,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            let answers = self.count_heads(&wire.input[..read_len]).min(ANSWERS_MAX);
            self.unsent = answers * wire.answer_len;
            let durable = wire.durable.as_mut().filter(|_| answers > 0);
            if durable.is_some_and(|durable| durable().is_err()) {
                return false;
            }
            // A short read has emptied the socket, and what comes after it is an edge.
            // What came before it might not be, if it was the end.
            let emptied = read_len < wire.input.len() && !ending;
            if self.unsent > 0 && !self.send(wire) {
                return false;
            }
            if emptied {
                return true;
            }
        }
    }

    /// Sends what is unsent, as far as the socket takes it; false if it is broken.
    fn send(&mut self, wire: &Wire) -> bool {
        let rest = &wire.answers[wire.answers.len() - self.unsent..];
        match self.stream.write(rest) {
            Ok(len) => {
                self.unsent -= len;
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// How many heads end in `input`, by CR LF CR LF.
    fn count_heads(&mut self, input: &[u8]) -> usize {
        let mut two_before = self.tail;
        let count = input.iter().zip(two_before.iter().chain(input)).take(2);
        let mut heads = count
            .filter(|(now, before)| **now == b'\n' && **before == b'\n')
            .count();
        if let Some(later) = input.get(2..) {
            let pairs = later.iter().zip(input);
            heads += pairs
                .filter(|(now, before)| **now == b'\n' && **before == b'\n')
                .count();
        }
        for &byte in &input[input.len().saturating_sub(2)..] {
            two_before = [two_before[1], byte];
        }
        self.tail = two_before;
        heads
    }
}

/// An error's sentence: what could not be done, and why.
fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("cannot {what}: {error}")
}

/// Serves a few requests to itself: single, pipelined, cut at every byte, and an end.
fn self_check() -> Result<(), String> {
    let path = std::env::temp_dir().join(format!("bound-{}.sync", std::process::id()));
    check(1, None, 0)?;
    check(2, None, 0)?;
    for hands in 0..3 {
        check(1, Some(path.clone()), hands)?;
        std::fs::remove_file(&path).map_err(failed("remove"))?;
    }
    println!("bound: checked");
    Ok(())
}

/// Does so with as many threads, and with a disk or none, which so many threads lead to.
fn check(threads: usize, sync: Option<PathBuf>, hands: usize) -> Result<(), String> {
    let options = Options {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        cpu: None,
        accept_limit: 1,
        answer: BEAT,
        threads,
        sync,
        hands,
    };
    let first = Server::new(&options)?;
    let address = first.listener.local_addr().map_err(failed("listen"))?;
    for _ in 1..threads {
        let one = Server::new(&Options {
            address,
            ..options.clone()
        })?;
        std::thread::spawn(move || one.run());
    }
    std::thread::spawn(move || first.run());
    let request = b"HEAD /g/m HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = TcpStream::connect(address).map_err(failed("connect"))?;
        client.set_nodelay(true).map_err(failed("connect"))?;
        clients.push(client);
    }
    for client in &mut clients {
        ask(client, &[request], 1)?;
        ask(client, &[&request.repeat(32)], 32)?;
        ask(client, &[&request.repeat(5_000)], 5_000)?;
        let bytes: Vec<&[u8]> = request.chunks(1).collect();
        ask(client, &bytes, 1)?;
        client
            .shutdown(std::net::Shutdown::Write)
            .map_err(failed("shut down"))?;
        let rest = client.read(&mut [0; 1]).map_err(failed("read"))?;
        if rest != 0 {
            return Err("there is an answer nobody asked for".to_owned());
        }
    }
    Ok(())
}

/// Sends the pieces and reads so many answers.
fn ask(client: &mut TcpStream, pieces: &[&[u8]], answers: usize) -> Result<(), String> {
    for piece in pieces {
        client.write_all(piece).map_err(failed("send"))?;
    }
    let mut got = vec![0; BEAT.len() * answers];
    client.read_exact(&mut got).map_err(failed("read"))?;
    if got == BEAT.repeat(answers) {
        Ok(())
    } else {
        Err("a wrong answer".to_owned())
    }
}
