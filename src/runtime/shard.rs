//! A shard's loop: sockets, mail and the tick around the pure [`Shard`].

use std::io;

use flume::{Sender, TrySendError};
use glommio::yield_if_needed;

use super::clock;
use super::gathered::Gathered;
use super::mailbox::MailSender;
use super::pipeline::ToCore;
use super::poller::Ticker;
use super::post::Inbox;
use super::sockets::{EVENTS_MAX, KEY_BELL, KEY_TICK, Service, Sockets, Waits};
use crate::mail::{Mail, Pass, ShardIndex};
use crate::shard::{ConnId, Next, Shard};
use crate::time::{Millis, TICK_MS};

use rustix::event::epoll::EventFlags;

/// What a shard's loop is made of.
pub struct ShardLoop {
    index: ShardIndex,
    sockets: Sockets,
    served: Served,
    ticker: Ticker,
    core: Sender<ToCore>,
    /// The inboxes of all shards, this one's own included.
    shards: Vec<MailSender<Mail>>,
    /// Messages to shards whose inbox was full.
    late: Vec<(ShardIndex, Pass)>,
    ticks: u64,
    /// How long it rests between portions of bulk while the core has something to do.
    rest_ns: u32,
    /// How long the loop looks for more input before it sleeps, and until when it now does.
    polling_ns: u64,
    polls_until_ns: u64,
}

/// What some turns came to.
#[derive(Clone, Copy, Default)]
struct Rounds {
    /// The last turn found nothing to do.
    idle: bool,
    /// Everything that was ready at some point during them has been read.
    drained: bool,
    /// The timer has fired.
    ticked: bool,
}

/// The pure shard as the sockets see it.
struct Served {
    shard: Shard,
    inbox: Inbox,
    gathered: Gathered,
}

impl ShardLoop {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn new(
        index: ShardIndex,
        sockets: Sockets,
        shard: Shard,
        inbox: Inbox,
        core: Sender<ToCore>,
        shards: Vec<MailSender<Mail>>,
    ) -> io::Result<ShardLoop> {
        let ticker = Ticker::new()?;
        sockets.poller().add(&ticker, KEY_TICK, EventFlags::IN)?;
        sockets.poller().add(&inbox, KEY_BELL, EventFlags::IN)?;
        let served = Served {
            shard,
            inbox,
            gathered: Gathered::default(),
        };
        let late = Vec::new();
        Ok(ShardLoop {
            index,
            sockets,
            served,
            ticker,
            core,
            shards,
            late,
            ticks: 0,
            rest_ns: 0,
            polling_ns: 0,
            polls_until_ns: 0,
        })
    }

    /// The same, looking for more input for so long after the last before it sleeps.
    #[must_use]
    pub fn polling(mut self, polling_us: u32) -> ShardLoop {
        self.polling_ns = u64::from(polling_us) * 1_000;
        self
    }

    /// The same, with the core on this shard's processor: it rests between portions of bulk, so
    /// that the core has its turn.
    #[must_use]
    pub fn beside_core(mut self, is_beside: bool) -> ShardLoop {
        self.rest_ns = if is_beside { REST_NS } else { 0 };
        self
    }

    /// Serves until the core says stop and every answer owed has been sent.
    ///
    /// # Errors
    /// Only if the epoll set breaks.
    pub async fn run(mut self) -> io::Result<()> {
        let mut stopping_since = None;
        loop {
            self.served.shard.count_turn();
            let rounds = self.rounds()?;
            if rounds.ticked || self.served.shard.is_behind() {
                self.tick(rounds.drained);
            }
            self.carry();
            let shard = &self.served.shard;
            let phase = shard.needs_tick().then(|| shard.tick_phase());
            self.ticker.run(phase, Millis(TICK_MS))?;
            if self.served.shard.is_stopping() {
                self.sockets.stop_accepting();
                let since = *stopping_since.get_or_insert_with(clock::now);
                let overdue = clock::now().since(since) > DRAIN_TIMEOUT;
                if overdue || (self.served.shard.is_drained() && self.sockets.is_flushed()) {
                    return Ok(());
                }
            }
            // What was carried away may have woken a connection.
            let idle = rounds.idle
                && !self.polls()
                && !self.sockets.is_busy()
                && self.late.is_empty()
                && self.served.gathered.is_empty();
            let shard = &self.served.shard;
            if idle && !shard.is_behind() && !shard.has_asks() && !shard.has_due() {
                self.sockets.poller().ready().await?;
            } else {
                // Lets the executor look after itself; it comes back at once.
                yield_if_needed().await;
            }
        }
    }

    /// Some turns of the sockets, with the mail that comes in between.
    fn rounds(&mut self) -> io::Result<Rounds> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            let shard = &self.served.shard;
            let pressed =
                shard.is_behind() || shard.has_asks() || shard.has_due() || !self.late.is_empty();
            let polls = self.polls();
            let inbox = &self.served.inbox;
            // Answers that are kept for others are sent once nothing came for a brief time.
            let brief_ns = match self.ticker.is_running() && self.served.gathered.is_empty() {
                true => BEYOND_TICK_NS,
                false => BRIEF_NS,
            };
            let idle_ns = match (pressed, inbox.has_mail()) {
                (false, false) if !polls => brief_ns,
                (false, true) if inbox.is_held() => HELD_NS,
                _ => 0,
            };
            let was_busy = self.sockets.is_busy();
            let rest_ns = if shard.awaits_core() { self.rest_ns } else { 0 };
            let waits = Waits { idle_ns, rest_ns };
            let turn = self.sockets.turn(&mut self.served, waits)?;
            if turn.tick {
                self.ticker.acknowledge();
                rounds.ticked = true;
            }
            if self.polling_ns > 0 && turn.events > usize::from(turn.tick) {
                self.polls_until_ns = clock::now_ns() + self.polling_ns;
            }
            if turn.bell {
                self.served.inbox.rung();
            }
            self.read_mail();
            if idle_ns > 0 && !was_busy && turn.events == 0 {
                self.served.gathered.rested();
            }
            // A batch that is not full has emptied the kernel's list of what is ready.
            rounds.drained |= turn.events < EVENTS_MAX && self.sockets.has_seen_all();
            self.carry();
            // Who has just been answered may ask again at once: not before a turn has waited for
            // that is it worth to park the executor.
            let is_busy = was_busy || self.sockets.is_busy() || self.served.inbox.has_mail();
            rounds.idle = turn.events == 0 && !is_busy;
            if rounds.idle || (rounds.ticked && rounds.drained) {
                break;
            }
        }
        Ok(rounds)
    }

    /// True while the loop looks for input without sleeping.
    fn polls(&self) -> bool {
        self.polling_ns > 0 && clock::now_ns() < self.polls_until_ns
    }

    /// Takes in some of the mail that has come.
    fn read_mail(&mut self) {
        let mut told = 0;
        while told < TELLS_MAX
            && let Some(mail) = self.served.inbox.take()
        {
            told += match &mail {
                Mail::Core { tells, .. } => tells.len(),
                _ => 1,
            };
            self.served.take_in(mail);
        }
    }

    fn tick(&mut self, drained: bool) {
        self.served.shard.tick(clock::now(), drained);
        self.ticks += 1;
        self.sockets.review(&mut self.served);
        if self.ticks.is_multiple_of(TICKS_A_PUBLICATION) {
            self.served.shard.publish(self.sockets.accepted());
        }
    }

    /// Carries away what the shard has to say.
    fn carry(&mut self) {
        if self.served.shard.has_due() {
            self.served.shard.fan_out(clock::now());
        }
        let outbox = self.served.shard.outbox();
        let gathered = &mut self.served.gathered;
        if !outbox.woken.is_empty() || !gathered.is_empty() {
            let now_ns = clock::now_ns();
            for conn in outbox.woken.drain(..) {
                if !(self.sockets.is_bulk(conn) && gathered.keeps(conn, now_ns)) {
                    self.sockets.resume(conn);
                }
            }
            for conn in gathered.due(now_ns) {
                self.sockets.resume(conn);
            }
        }
        if !outbox.asks.is_empty() {
            // As many may come the next time; the list goes to another thread and stays there.
            let room = Vec::with_capacity(outbox.asks.len());
            let asks = std::mem::replace(&mut outbox.asks, room);
            match self.core.try_send(ToCore::Asks(self.index, asks)) {
                Ok(()) => {}
                // Tried again next turn: the number of questions is bounded by the shard.
                Err(TrySendError::Full(ToCore::Asks(_, asks))) => outbox.asks = asks,
                // The core has gone, and the process with it in a moment.
                Err(_) => {}
            }
        }
        self.late.append(&mut outbox.passes);
        let shards = &self.shards;
        self.late = std::mem::take(&mut self.late)
            .into_iter()
            .filter_map(
                |(to, pass)| match shards[usize::from(to)].try_send(Mail::Shard(pass)) {
                    Err(Mail::Shard(pass)) => Some((to, pass)),
                    _ => None,
                },
            )
            .collect();
    }
}

impl Served {
    /// Takes in a message. A join's promise counts from when it is answered, and a full inbox
    /// takes a while: the clock is read for each.
    fn take_in(&mut self, mail: Mail) {
        if let Mail::Core { more, .. } = &mail {
            self.gathered.told(*more);
        }
        self.shard.deliver(mail, clock::now());
    }

    #[cold]
    fn catch_up(&mut self) {
        for _ in 0..self.inbox.waiting() {
            match self.inbox.take() {
                Some(mail) => self.take_in(mail),
                None => return,
            }
        }
    }
}

impl Service for Served {
    fn open(&mut self, conn: ConnId, now: Millis) {
        self.shard.open(conn, now);
    }
    fn refuse(&mut self, out: &mut Vec<u8>) {
        self.shard.refuse(out);
    }
    fn expect<'a>(&mut self, inputs: impl Iterator<Item = &'a [u8]>) {
        self.shard.expect(inputs);
    }
    fn receive(&mut self, conn: ConnId, bytes: &[u8], now: Millis, out: &mut Vec<u8>) -> Next {
        // A client that another shard has told of a change must not find it unheard here.
        if self.inbox.is_first_to_be_heard() {
            self.catch_up();
        }
        self.shard.receive(conn, bytes, now, out)
    }
    fn resume(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Next {
        self.shard.resume(conn, now, out)
    }
    fn finish(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Next {
        self.shard.finish(conn, now, out)
    }
    fn review(&mut self, conn: ConnId, now: Millis, out: &mut Vec<u8>) -> Option<Next> {
        self.shard.review(conn, now, out)
    }
    fn late(&mut self, is_late: bool) {
        self.shard.late(is_late);
    }
    fn is_bulk(&self, conn: ConnId) -> bool {
        self.shard.is_bulk(conn)
    }
    fn close(&mut self, conn: ConnId) {
        self.shard.close(conn);
    }
    fn served(&mut self, took_ns: u64) {
        self.shard.served(took_ns);
    }
}

/// Turns of the sockets before the loop looks at anything else, or rests.
const ROUNDS: usize = 4;
/// What the mail tells before the sockets have their turn again, some 0.2 ms of it; the last
/// message may bring more.
const TELLS_MAX: usize = 256;
/// How long a turn sleeps in the epoll set itself before the executor is parked, nanoseconds.
/// Parking takes six system calls where this takes one, and on a busy shard the next input is
/// microseconds away. Other tasks of the executor wait as long; a shard has none that press.
const BRIEF_NS: u32 = 500_000;
/// The same while the timer runs, which then ends the sleep: to have the kernel set another timer
/// before that, and take it back, for each sleep costs a busy shard under a hypervisor more than
/// to be woken.
const BEYOND_TICK_NS: u32 = 2 * TICK_MS as u32 * 1_000_000;
/// The same while news waits for another shard to have it too, which takes the core a few
/// microseconds.
const HELD_NS: u32 = 20_000;
/// How long the shard rests after a quarter of a millisecond of bulk, nanoseconds: a piece or two of
/// the core's work.
const REST_NS: u32 = 150_000;
/// Histograms are published once a second.
const TICKS_A_PUBLICATION: u64 = 100;
/// How long answers owed may take once the server stops.
const DRAIN_TIMEOUT: Millis = Millis(5_000);
