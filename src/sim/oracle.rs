//! What clients were promised, and whether it is kept.
//!
//! The oracle sees only what applications see: transactions proposed, delivered and
//! acknowledged, states restored, barriers passed. It keeps one history, that of the server that
//! is furthest, and holds every server to it.

use super::app::App;
use super::observe::hash_of;
use crate::types::Zxid;

/// All that clients and applications have seen.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What was delivered, in order, at the server that is furthest.
    history: Vec<Known>,
    /// By the client's number of a transaction: its place in `history` plus one, or 0.
    places: Vec<u32>,
    /// Transactions acknowledged to clients: all in `history` up to this many.
    acknowledged: u64,
    /// By token: what was acknowledged when the barrier was asked for.
    barriers: Vec<u64>,
    barriers_passed: u64,
    barriers_refused: u64,
}

/// One delivered transaction.
#[derive(Clone, Copy, Debug)]
struct Known {
    zxid: Zxid,
    hash: u64,
    /// The digest of every state that ends with it.
    digest: u64,
}

impl Oracle {
    /// A new transaction of `length` bytes or a little more, whose bytes tell what it is.
    ///
    /// ```text
    /// offset size field
    ///      0    8 number, little-endian
    ///      8    8 a scramble of the number
    ///     16      the scramble's bytes over and over
    /// ```
    pub fn invent(&mut self, length: usize) -> Vec<u8> {
        let number = self.places.len() as u64;
        self.places.push(0);
        let scramble = scrambled(number).to_le_bytes();
        let mut payload = Vec::with_capacity(16 + length);
        payload.extend(number.to_le_bytes());
        payload.extend(scramble);
        payload.extend((0..length).map(|at| scramble[at % 8]));
        payload
    }

    /// A server's application, now `app`, has been given a transaction.
    ///
    /// # Errors
    /// A sentence, if that breaks a promise.
    pub fn delivered(&mut self, app: &App, zxid: Zxid, payload: &[u8]) -> Result<(), String> {
        let number = number_of(payload);
        let known = number.filter(|&number| number < self.places.len() as u64);
        let Some(number) = known else {
            return Err(format!(
                "transaction {zxid} is not what any client proposed"
            ));
        };
        let place = app.count as usize - 1;
        let hash = hash_of(payload);
        if let Some(known) = self.history.get(place) {
            if (known.zxid, known.hash) == (zxid, hash) {
                return Ok(());
            }
            return Err(format!(
                "transaction {zxid} was delivered in place {place}, where {} was delivered before",
                known.zxid
            ));
        }
        if place > self.history.len() {
            let had = self.history.len();
            return Err(format!(
                "{zxid} is in place {place}, and only {had} are known"
            ));
        }
        let before = std::mem::replace(&mut self.places[number as usize], place as u32 + 1);
        if before != 0 {
            return Err(format!(
                "the client's transaction {number} was delivered twice: in places {} and {place}",
                before - 1
            ));
        }
        if self.history.last().is_some_and(|last| last.zxid >= zxid) {
            return Err(format!(
                "transaction {zxid} was delivered after a later one"
            ));
        }
        self.history.push(Known {
            zxid,
            hash,
            digest: app.digest,
        });
        Ok(())
    }

    /// The proposer has delivered the transaction in this place, so its client knows.
    pub fn acknowledge(&mut self, count: u64) {
        self.acknowledged = self.acknowledged.max(count);
    }

    /// A server's application was set to `app` from a snapshot.
    ///
    /// # Errors
    /// A sentence, if no server was ever in that state by deliveries alone.
    pub fn restored(&self, app: &App) -> Result<(), String> {
        let known = (app.count as usize)
            .checked_sub(1)
            .map(|at| self.history.get(at));
        let right = match known {
            None => *app == App::default(),
            Some(None) => false,
            Some(Some(known)) => (known.zxid, known.digest) == (app.applied, app.digest),
        };
        if right {
            return Ok(());
        }
        Err(format!(
            "a snapshot of {} transactions up to {} is of no state that was ever delivered",
            app.count, app.applied
        ))
    }

    /// A client asks for a barrier; its token.
    pub fn ask_barrier(&mut self) -> u64 {
        self.barriers.push(self.acknowledged);
        self.barriers.len() as u64 - 1
    }

    /// The leader did not take the barrier that was asked for last.
    pub fn refused(&mut self, refused: bool) {
        self.barriers_refused += u64::from(refused);
    }

    /// The barrier `token` has passed at a server whose application is `app`.
    ///
    /// # Errors
    /// A sentence, if the application lacks what was acknowledged before the barrier was asked
    /// for.
    pub fn passed(&mut self, token: u64, app: &App) -> Result<(), String> {
        self.barriers_passed += 1;
        let must = self.barriers[token as usize];
        if app.count >= must {
            return Ok(());
        }
        Err(format!(
            "a barrier passed at {} transactions, and {must} had been acknowledged before it",
            app.count
        ))
    }

    /// How many transactions the furthest server was given.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.history.len() as u64
    }

    /// How many barriers were taken by a leader and have not passed.
    #[must_use]
    pub fn barriers_open(&self) -> u64 {
        let taken = (self.barriers.len() as u64).saturating_sub(self.barriers_refused);
        taken.saturating_sub(self.barriers_passed)
    }
}

/// The client's number of a transaction; `None` if its bytes are not as they were made.
fn number_of(payload: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(payload.get(..8)?.try_into().ok()?);
    let scramble = scrambled(number).to_le_bytes();
    let rest = &payload[8..];
    let sound = rest.len() >= 8
        && rest
            .iter()
            .enumerate()
            .all(|(at, &b)| b == scramble[at % 8]);
    sound.then_some(number)
}

fn scrambled(number: u64) -> u64 {
    let mixed = (number ^ 0x5a5a_0f0f_3c3c_9696).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    fn at(epoch: u64, counter: u64) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn give(oracle: &mut Oracle, app: &mut App, zxid: Zxid, payload: &[u8]) -> Result<(), String> {
        app.apply(zxid, payload);
        oracle.delivered(app, zxid, payload)
    }

    #[test]
    fn two_servers_with_one_history_keep_every_promise() {
        let mut oracle = Oracle::default();
        let (mut one, mut two) = (App::default(), App::default());
        let payloads: Vec<_> = (0..5).map(|length| oracle.invent(length)).collect();
        for (counter, payload) in (1..).zip(&payloads) {
            give(&mut oracle, &mut one, at(1, counter), payload).unwrap();
        }
        oracle.acknowledge(one.count);
        let token = oracle.ask_barrier();
        assert!(oracle.passed(token, &two).is_err(), "it has nothing yet");
        for (counter, payload) in (1..).zip(&payloads) {
            give(&mut oracle, &mut two, at(1, counter), payload).unwrap();
        }
        assert_eq!(oracle.barriers_open(), 0, "it has passed, though wrongly");
        oracle.passed(token, &two).unwrap();
        oracle.restored(&two).unwrap();
        oracle.restored(&App::default()).unwrap();
        assert_eq!(oracle.committed(), 5);
    }

    #[test]
    fn a_transaction_altered_repeated_or_out_of_place_is_refused() {
        let mut oracle = Oracle::default();
        let (first, second) = (oracle.invent(3), oracle.invent(3));
        let mut app = App::default();
        give(&mut oracle, &mut app, at(1, 1), &first).unwrap();
        let refused = |oracle: &mut Oracle, app: &App, zxid, payload: &[u8], why: &str| {
            let error = give(oracle, &mut app.clone(), zxid, payload).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        let mut altered = second.clone();
        altered[17] ^= 1;
        refused(&mut oracle, &app, at(1, 2), &altered, "not what any client");
        refused(&mut oracle, &app, at(1, 2), &first, "twice");
        let empty = App::default();
        refused(&mut oracle, &empty, at(1, 1), &second, "in place 0");
        refused(&mut oracle, &empty, at(2, 1), &first, "in place 0");
    }

    #[test]
    fn a_state_nobody_was_ever_in_is_refused() {
        let mut oracle = Oracle::default();
        let payload = oracle.invent(0);
        let mut app = App::default();
        give(&mut oracle, &mut app, at(1, 1), &payload).unwrap();
        oracle.restored(&app).unwrap();
        for bad in [
            App { count: 2, ..app },
            App { digest: 1, ..app },
            App {
                applied: at(1, 2),
                ..app
            },
            App { count: 0, ..app },
        ] {
            assert!(oracle.restored(&bad).is_err(), "{bad:?}");
        }
    }
}
