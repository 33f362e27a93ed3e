//! Clients that send a byte now and then, or half a request and no more.

use crate::cli::Overload;
use crate::clock::{self, MILLI, SECOND};
use crate::commands::own::Home;
use crate::commands::spread;
use crate::names::Names;
use crate::net::Target;
use crate::plan::{Known, Load, Plan};
use crate::process;
use crate::recorder::{Interval, Tag, merge, total};
use crate::report::{Report, plot, time};
use crate::run::{self, Done};
use anyhow::{Context, Result, anyhow, ensure};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Rounds of the same beats, without slow clients and with them.
pub(super) fn slow(flags: &Overload, home: &Home, report: &mut Report) -> Result<()> {
    let (server, _) = home.start()?;
    let others = flags.connections - flags.slow;
    run::ensure_files(u64::from(flags.connections))?;
    let joins = Plan {
        timeout_ns: TIMEOUT_NS,
        ..Plan::joins(names(), others, 64)
    };
    let joined = run::run(&home.target(), vec![joins], flags.own.load_cpu)?;
    report.verdict(&joined.faults, joined.broken_off.as_deref());
    let mut known = joined.into_known();
    let mut rounds = Rounds::default();
    for round in 0..flags.rounds {
        // Which goes first alternates: a drift within the round must not favour one.
        for crowded in [round % 2 == 1, round % 2 == 0] {
            let open = || Slow::open(home.address, flags.slow, flags.own.load_cpu);
            let held = crowded.then(open);
            let held = held.transpose()?;
            let done = measure(home, flags, others, known)?;
            report.verdict(&done.faults, done.broken_off.as_deref());
            if let Some(held) = held {
                let (ended, bytes) = held.close()?;
                rounds.ended += ended;
                rounds.bytes += bytes;
            }
            rounds.add(crowded, &done);
            known = done.into_known();
        }
    }
    drop(server);
    let text = format!(
        "{others} connections beat once a second, {} others send a byte every {} or half a request \
         and no more; {} such bytes were sent, the server ended {} such connections",
        flags.slow,
        time(TRICKLE_NS),
        rounds.bytes,
        rounds.ended
    );
    report.figure("slow_setup", "slow clients", text.clone(), text);
    rounds.tell(report)
}

/// What the rounds measured: first without slow clients, then beside them.
#[derive(Default)]
struct Rounds {
    p99_us: [Vec<f64>; 2],
    /// How late they were sent, which is the generator's own.
    lag_p99_us: [Vec<f64>; 2],
    intervals: [Vec<Interval>; 2],
    ended: u64,
    bytes: u64,
}

impl Rounds {
    fn add(&mut self, crowded: bool, done: &Done) {
        let place = usize::from(crowded);
        let p99 = done.hist(Tag::Beat).value_at_quantile(0.99);
        self.p99_us[place].push(p99 as f64 / 1e3);
        let lag = done.hist(Tag::SendLag).value_at_quantile(0.99);
        self.lag_p99_us[place].push(lag as f64 / 1e3);
        self.intervals[place].extend_from_slice(&done.intervals);
        let whose = ["without slow clients", "beside them"][place];
        eprintln!("p99 {whose}: {}", time(p99));
    }

    fn tell(self, report: &mut Report) -> Result<()> {
        let [without, beside] = &self.p99_us;
        let [lag_without, lag_beside] = &self.lag_p99_us;
        let each = without.iter().zip(beside).map(|(a, b)| b / a.max(0.1));
        let mut ratios: Vec<f64> = each.collect();
        for (key, label, values, unit) in [
            (
                "alone_p99_us",
                "p99 of beats without slow clients",
                without,
                " µs",
            ),
            (
                "alone_lag_p99_us",
                "    sent after due, the generator's own",
                lag_without,
                " µs",
            ),
            ("slow_p99_us", "p99 of beats beside them", beside, " µs"),
            (
                "slow_lag_p99_us",
                "    sent after due, the generator's own",
                lag_beside,
                " µs",
            ),
            ("slow_ratio", "beside / without, by round", &ratios, ""),
        ] {
            spread(report, key, label, values, unit);
        }
        ratios.sort_by(f64::total_cmp);
        let median = *ratios.get(ratios.len() / 2).context("no round was run")?;
        let what = "p99 of the others within +10 %, median of the rounds";
        let text = format!("{median:.3} ×");
        report.claim("slow_harmless", what, &text, median <= WORSE_MAX);
        let [alone, beside] = self.intervals.map(|all| total(&merge(all), Tag::Beat));
        report.distribution("beat-alone", &alone);
        report.distribution("beat-beside-slow", &beside);
        let curves = [
            ("without slow clients".to_owned(), alone),
            ("beside them".to_owned(), beside),
        ];
        report.attach("slow.svg", plot::percentiles("beats", &curves)?);
        ensure!(self.bytes > 0, "the slow clients have sent nothing");
        Ok(())
    }
}

fn measure(home: &Home, flags: &Overload, sessions: u32, known: Known) -> Result<Done> {
    let plan = Plan {
        timeout_ns: TIMEOUT_NS,
        load: Load::Open {
            interval_ns: SECOND,
            block: 1,
        },
        duration_ns: flags.each,
        warmup_ns: SECOND,
        known: Some(Arc::new(known)),
        ..Plan::joins(names(), sessions, sessions)
    };
    let target = Target {
        connects_per_s: 5_000,
        ..home.target()
    };
    run::run(&target, vec![plan], flags.own.load_cpu)
}

fn names() -> Names {
    Names::new("load", 100, 24, 1, 0)
}

/// Connections that never end what they begin. Half of them send a byte of an endless header
/// now and then; half send a part of a request and fall silent. One that is ended is opened
/// again.
struct Slow {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Slow {
    /// They are load: on the processor that is given to it they take nothing from the server's.
    fn open(address: SocketAddr, connections: u32, cpu: Option<usize>) -> Result<Slow> {
        let stop = Arc::new(AtomicBool::new(false));
        let up = Arc::new(AtomicU32::new(0));
        let (ended, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let work = {
            let (stop, up) = (Arc::clone(&stop), Arc::clone(&up));
            let (ended, sent) = (Arc::clone(&ended), Arc::clone(&sent));
            move || {
                if let Some(cpu) = cpu {
                    process::pin_thread(cpu);
                }
                trickle(address, connections, &stop, &up, &ended, &sent)
            }
        };
        let thread = thread::spawn(work);
        let began = clock::now();
        while up.load(Ordering::Relaxed) < connections {
            ensure!(
                !thread.is_finished() && clock::now() - began < OPENING_NS_MAX,
                "only {} of {connections} slow connections could be opened",
                up.load(Ordering::Relaxed)
            );
            clock::pause(Duration::from_nanos(5 * MILLI));
        }
        Ok(Slow {
            stop,
            ended,
            sent,
            thread,
        })
    }

    /// Closes them; returns how many the server has ended, and how many bytes were sent.
    fn close(self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread of the slow clients panicked"))??;
        Ok((
            self.ended.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        ))
    }
}

fn trickle(
    address: SocketAddr,
    connections: u32,
    stop: &AtomicBool,
    up: &AtomicU32,
    ended: &AtomicU64,
    sent: &AtomicU64,
) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(begin(address)?);
        up.fetch_add(1, Ordering::Relaxed);
    }
    let mut next = 0;
    // One stream at a time, so that the bytes come evenly and not in one burst.
    let step_ns = TRICKLE_NS / u64::from(connections);
    let mut due_ns = clock::now();
    while !stop.load(Ordering::Relaxed) {
        due_ns += step_ns;
        let early = due_ns.saturating_sub(clock::now());
        if early > MILLI {
            clock::pause(Duration::from_nanos(early));
        }
        let stream = &mut streams[next];
        if next % 2 == 0 && stream.write(b"x").is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        if is_ended(stream) {
            ended.fetch_add(1, Ordering::Relaxed);
            *stream = begin(address)?;
        }
        next = (next + 1) % streams.len();
    }
    Ok(())
}

fn begin(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("cannot open a slow connection")?;
    stream.set_nodelay(true)?;
    stream.write_all(HALF_A_REQUEST)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether the server has said or done anything: to half a request it can only say 408.
fn is_ended(stream: &TcpStream) -> bool {
    let silent = stream.peek(&mut [0]);
    !matches!(silent, Err(e) if e.kind() == ErrorKind::WouldBlock)
}

/// How much longer the others' p99 may be beside slow clients.
const WORSE_MAX: f64 = 1.1;
/// What every slow client sends at once: a request line, and a header without end.
const HALF_A_REQUEST: &[u8] = b"HEAD /load-00001/x HTTP/1.1\r\nHost: systole\r\nX-Slow: ";
/// Every slow client has its turn once in this time.
const TRICKLE_NS: u64 = 500 * MILLI;
/// Timeout of those that beat: longer than it takes to open their connections again.
const TIMEOUT_NS: u64 = 60 * SECOND;
/// All slow connections must be open by then.
const OPENING_NS_MAX: u64 = 60 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn more_than_a_tenth_is_harm() {
        let harmless = |beside: f64| {
            let rounds = Rounds {
                p99_us: [vec![100.0; 3], vec![50.0, beside, 900.0]],
                bytes: 1,
                ..Rounds::default()
            };
            let mut report = Report::new("overload", std::time::SystemTime::UNIX_EPOCH, "x");
            rounds.tell(&mut report).unwrap();
            report.is_clean()
        };
        assert!(harmless(110.0));
        assert!(!harmless(111.0));
    }

    #[test]
    fn slow_clients_send_half_a_request_then_bytes_and_come_again_when_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = Slow::open(listener.local_addr().unwrap(), 2, None).unwrap();
        let mut peers: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        let mut half = vec![0; HALF_A_REQUEST.len() + 1];
        peers[0].read_exact(&mut half).unwrap();
        assert!(half.starts_with(HALF_A_REQUEST) && half.ends_with(b"x"));
        drop(peers.remove(0));
        let mut again = listener.accept().unwrap().0;
        again.read_exact(&mut half[..HALF_A_REQUEST.len()]).unwrap();
        drop((again, peers));
        let (ended, sent) = held.close().unwrap();
        assert!(ended >= 1 && sent >= 1, "{ended} {sent}");
    }
}
