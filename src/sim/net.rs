//! The network between the servers: connections, and everything that can go wrong with them.
//!
//! Two servers have at most one connection with each other. On it messages come in order and
//! none is missing, unless the [`Weather`] says otherwise; when it breaks, what is under way is
//! lost, unless the weather is such that it comes late, even after what the next connection
//! carries. Both ends are told of a break some time later, or not at all until they are
//! connected again.
//!
//! A way from one server to another may be cut: messages on it are then lost, or held until
//! the way is open again, as TCP does when it sends again what was not acknowledged.

use super::random::{Random, Span};
use crate::types::ServerId;
use crate::zab::Message;

/// All connections, and the messages under way.
#[derive(Debug)]
pub struct Net<M = Message> {
    count: usize,
    /// By unordered pair; see [`Net::pair`].
    connections: Vec<Connection>,
    /// By `from * count + to`.
    ways: Vec<Way>,
    /// Messages under way, by slot.
    packets: Vec<Option<Packet<M>>>,
    free: Vec<u32>,
    /// What the network does to messages at present.
    pub weather: Weather,
    /// How long a message takes.
    pub latency: Span,
}

/// The state of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Messages lost, in a million.
    pub loss: u32,
    /// Messages repeated, in a million; the repetition may come seconds later.
    pub repeat: u32,
    /// Messages that overtake others of their connection, in a million.
    pub overtake: u32,
    /// Messages that take very long, and hold up those behind them, in a million.
    pub spike: u32,
    /// Messages of a broken connection that arrive all the same, in a million.
    pub late: u32,
    /// Breaks of which a server is not told, in a million.
    pub silent: u32,
}

/// What two servers have with each other.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    /// Counts the connections of this pair.
    generation: u32,
    up: bool,
}

/// From one server to another.
#[derive(Clone, Debug, Default)]
struct Way {
    /// When the last message arrives: the next one does not overtake it.
    busy_until: u64,
    /// How many faults cut it at present, losing messages.
    cuts: u8,
    /// How many faults hold it up at present.
    stalls: u8,
    held: Vec<u32>,
}

/// A message under way.
#[derive(Clone, Debug)]
pub struct Packet<M = Message> {
    /// Index of the sender.
    pub from: usize,
    /// Index of the receiver.
    pub to: usize,
    /// Of the connection it was sent on.
    pub generation: u32,
    /// What it says.
    pub message: M,
}

/// What becomes of a message that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// When the message arrives and the slot it is in; `None`: it is lost, or held.
    pub arrives: Option<(u64, u32)>,
    /// The same for its repetition.
    pub repeated: Option<(u64, u32)>,
    /// True if it was lost by the weather.
    pub lost: bool,
    /// True if it overtakes another.
    pub overtakes: bool,
}

/// How a message that has arrived came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// On the present connection.
    InTime,
    /// On one that is no more, and is delivered all the same.
    Late,
    /// On one that is no more, and is lost with it.
    Lost,
    /// The way is held up; the message waits.
    Held,
}

impl<M: Clone> Net<M> {
    /// Servers 0 to `count`, none connected.
    #[must_use]
    pub fn new(count: usize, latency: Span) -> Net<M> {
        Net {
            count,
            connections: vec![Connection::default(); count * count],
            ways: vec![Way::default(); count * count],
            packets: Vec::new(),
            free: Vec::new(),
            weather: Weather::default(),
            latency,
        }
    }

    /// Sends; the caller delivers what [`Sending`] names at its time.
    pub fn send(
        &mut self,
        now: u64,
        random: &mut Random,
        from: usize,
        to: usize,
        message: M,
    ) -> Sending {
        let mut sending = Sending::default();
        let connection = self.connections[self.pair(from, to)];
        let way = &self.ways[from * self.count + to];
        if !connection.up || way.cuts > 0 {
            return sending;
        }
        let weather = self.weather;
        if random.chance(weather.loss) {
            sending.lost = true;
            return sending;
        }
        let mut arrives = now + random.span(self.latency);
        if random.chance(weather.spike) {
            arrives += random.span(SPIKE);
        }
        let way = &mut self.ways[from * self.count + to];
        if arrives <= way.busy_until {
            if random.chance(weather.overtake) {
                sending.overtakes = true;
            } else {
                arrives = way.busy_until + 1;
            }
        }
        way.busy_until = way.busy_until.max(arrives);
        let packet = Packet {
            from,
            to,
            generation: connection.generation,
            message,
        };
        if random.chance(weather.repeat) {
            let again = arrives + random.span(REPEAT);
            sending.repeated = Some((again, self.keep(packet.clone())));
        }
        sending.arrives = Some((arrives, self.keep(packet)));
        sending
    }

    /// The message in `slot` has come to the end of its way.
    pub fn arrive(&mut self, random: &mut Random, slot: u32) -> Arrival {
        let packet = self.packet(slot);
        let (from, to, generation) = (packet.from, packet.to, packet.generation);
        let way = &mut self.ways[from * self.count + to];
        if way.stalls > 0 {
            way.held.push(slot);
            return Arrival::Held;
        }
        let connection = self.connections[self.pair(from, to)];
        if connection.up && connection.generation == generation {
            Arrival::InTime
        } else if random.chance(self.weather.late) {
            Arrival::Late
        } else {
            Arrival::Lost
        }
    }

    /// Takes a message out of its slot.
    ///
    /// # Panics
    /// If there is none.
    pub fn take(&mut self, slot: u32) -> Packet<M> {
        self.free.push(slot);
        let packet = self.packets[slot as usize].take();
        packet.expect("each slot is delivered once")
    }

    /// Looks at a message under way.
    ///
    /// # Panics
    /// If there is none in `slot`.
    #[must_use]
    pub fn packet(&self, slot: u32) -> &Packet<M> {
        let packet = self.packets[slot as usize].as_ref();
        packet.expect("each slot is delivered once")
    }

    /// Lets `change` put something else in the place of a message under way; false if it took
    /// none.
    pub fn alter(&mut self, change: impl FnMut(&mut Packet<M>) -> bool) -> bool {
        self.packets.iter_mut().flatten().any(change)
    }

    /// Connects two servers unless they are connected or a way between them is closed; the
    /// connection's generation.
    pub fn connect(&mut self, a: usize, b: usize) -> Option<u32> {
        let closed = |way: &Way| way.cuts > 0 || way.stalls > 0;
        let ways = [a * self.count + b, b * self.count + a];
        let pair = self.pair(a, b);
        if self.connections[pair].up || ways.iter().any(|&way| closed(&self.ways[way])) {
            return None;
        }
        for way in ways {
            // What was held belonged to a connection that is gone.
            self.ways[way].busy_until = 0;
        }
        let connection = &mut self.connections[pair];
        connection.generation += 1;
        connection.up = true;
        Some(connection.generation)
    }

    /// Breaks the connection of two servers; its generation if there was one.
    pub fn disconnect(&mut self, a: usize, b: usize) -> Option<u32> {
        let pair = self.pair(a, b);
        let connection = &mut self.connections[pair];
        std::mem::replace(&mut connection.up, false).then_some(connection.generation)
    }

    /// Counts the connections these two have had.
    #[must_use]
    pub fn generation(&self, a: usize, b: usize) -> u32 {
        self.connections[self.pair(a, b)].generation
    }

    /// True if these two are connected.
    #[must_use]
    pub fn connected(&self, a: usize, b: usize) -> bool {
        self.connections[self.pair(a, b)].up
    }

    /// Cuts the way from `from` to `to`, or holds it up.
    pub fn close(&mut self, from: usize, to: usize, holding: bool) {
        let way = &mut self.ways[from * self.count + to];
        if holding {
            way.stalls += 1;
        } else {
            way.cuts += 1;
        }
    }

    /// Takes one such closing back. The messages that were held, in order, go on now.
    pub fn reopen(&mut self, from: usize, to: usize, holding: bool) -> Vec<u32> {
        let way = &mut self.ways[from * self.count + to];
        if !holding {
            way.cuts -= 1;
            return Vec::new();
        }
        way.stalls -= 1;
        if way.stalls > 0 {
            return Vec::new();
        }
        std::mem::take(&mut way.held)
    }

    /// True if the way from `from` to `to` is cut or held up.
    #[must_use]
    pub fn closed(&self, from: usize, to: usize) -> bool {
        let way = &self.ways[from * self.count + to];
        way.cuts > 0 || way.stalls > 0
    }

    fn pair(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.count + a.max(b)
    }

    fn keep(&mut self, packet: Packet<M>) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.packets[slot as usize] = Some(packet);
            return slot;
        }
        self.packets.push(Some(packet));
        (self.packets.len() - 1) as u32
    }
}

/// The id of the server with this index.
#[must_use]
pub fn id_of(index: usize) -> ServerId {
    ServerId(index as u32 + 1)
}

/// The index of the server with this id.
#[must_use]
pub fn index_of(id: ServerId) -> usize {
    id.0 as usize - 1
}

/// A message that takes very long.
const SPIKE: Span = Span::new(1_000, 2_000_000);
/// How much later a repetition comes.
const REPEAT: Span = Span::new(1, 5_000_000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zab::{Body, Tenure};

    fn ping(round: u64) -> Message {
        Message::Link {
            tenure: Tenure::default(),
            seq: round,
            body: Body::Ping { round },
        }
    }

    fn net() -> (Net, Random) {
        (Net::new(3, Span::new(10, 1_000)), Random::new(1))
    }

    #[test]
    fn messages_of_a_connection_keep_their_order() {
        let (mut net, mut random) = net();
        assert_eq!(
            net.send(0, &mut random, 0, 1, ping(0)).arrives,
            None,
            "not connected"
        );
        assert_eq!(net.connect(0, 1), Some(1));
        assert_eq!(net.connect(1, 0), None, "connected already");
        let mut last = 0;
        for round in 0..100 {
            let sending = net.send(round, &mut random, 0, 1, ping(round));
            let (time, slot) = sending.arrives.unwrap();
            assert!(time > last);
            last = time;
            assert_eq!(net.arrive(&mut random, slot), Arrival::InTime);
            assert_eq!(net.take(slot).message, ping(round));
        }
    }

    #[test]
    fn a_break_loses_what_is_under_way_unless_the_weather_is_late() {
        let (mut net, mut random) = net();
        net.connect(0, 1);
        let (_, slot) = net.send(0, &mut random, 0, 1, ping(0)).arrives.unwrap();
        assert_eq!(net.disconnect(1, 0), Some(1));
        assert_eq!(net.disconnect(1, 0), None);
        net.connect(0, 1);
        assert_eq!(net.arrive(&mut random, slot), Arrival::Lost);
        net.weather.late = 1_000_000;
        assert_eq!(net.arrive(&mut random, slot), Arrival::Late);
    }

    #[test]
    fn a_cut_loses_and_a_stall_holds_until_the_last_of_them_ends() {
        let (mut net, mut random) = net();
        net.connect(0, 1);
        net.close(0, 1, false);
        assert_eq!(net.send(0, &mut random, 0, 1, ping(0)).arrives, None);
        assert!(
            net.send(0, &mut random, 1, 0, ping(0)).arrives.is_some(),
            "one way only"
        );
        assert!(net.reopen(0, 1, false).is_empty());
        let (_, slot) = net.send(0, &mut random, 0, 1, ping(0)).arrives.unwrap();
        net.close(0, 1, true);
        net.close(0, 1, true);
        assert_eq!(net.arrive(&mut random, slot), Arrival::Held);
        assert!(net.reopen(0, 1, true).is_empty());
        assert_eq!(net.reopen(0, 1, true), [slot]);
        assert!(!net.closed(0, 1));
        assert_eq!(net.arrive(&mut random, slot), Arrival::InTime);
    }

    #[test]
    fn one_message_under_way_is_altered_and_only_one_that_is_taken() {
        let (mut net, mut random) = net();
        net.connect(0, 1);
        let sent = [3, 4, 4].map(|round| {
            let sending = net.send(0, &mut random, 0, 1, ping(round));
            sending.arrives.unwrap().1
        });
        let mut four_to_nine = |packet: &mut Packet| {
            let four = packet.message == ping(4);
            if four {
                packet.message = ping(9);
            }
            four
        };
        assert!(net.alter(&mut four_to_nine));
        let mut come: Vec<_> = sent.map(|slot| net.packet(slot).message.clone()).into();
        assert_eq!(come.remove(0), ping(3));
        assert!(come.contains(&ping(4)) && come.contains(&ping(9)));
        assert!(net.alter(&mut four_to_nine));
        sent.iter().for_each(|&slot| drop(net.take(slot)));
        assert!(!net.alter(four_to_nine), "none is under way any more");
    }

    #[test]
    fn the_weather_loses_repeats_and_lets_overtake() {
        let (mut net, mut random) = net();
        net.connect(0, 1);
        net.weather.loss = 1_000_000;
        assert!(net.send(0, &mut random, 0, 1, ping(0)).lost);
        net.weather = Weather {
            repeat: 1_000_000,
            ..Weather::default()
        };
        let sending = net.send(0, &mut random, 0, 1, ping(0));
        assert!(sending.repeated.unwrap().0 > sending.arrives.unwrap().0);
        net.weather = Weather {
            overtake: 1_000_000,
            ..Weather::default()
        };
        let overtook = (0..50).any(|_| net.send(0, &mut random, 0, 1, ping(0)).overtakes);
        assert!(overtook);
    }
}
