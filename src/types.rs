//! The words every module shares: identifiers that are not interchangeable integers.
//!
//! A [`Zxid`] orders transactions, an [`Epoch`] orders leaders, a [`SessionId`] names one
//! stay of one member for ever. Each is a newtype, so that an epoch cannot be passed for a
//! counter or a server for a shard.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The reign of one leader; strictly increasing over the life of an ensemble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that follows this one.
    ///
    /// # Panics
    /// If the epoch is `u64::MAX`, which 10⁹ elections a second reach after 580 years.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(
            self.0
                .checked_add(1)
                .expect("2^64 elections have not happened"),
        )
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of a transaction in the total order: epoch first, then counter.
///
/// Both halves are 64 bits wide: a 32-bit counter would force an election every twelve
/// hours at 100,000 transactions a second. Written `epoch:counter`, for example `3:17`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid {
    /// The epoch of the leader that proposed it.
    pub epoch: Epoch,
    /// 1 for the first transaction of an epoch; 0 stands for "before the first".
    pub counter: u64,
}

impl Zxid {
    /// Before every transaction.
    pub const ZERO: Zxid = Zxid {
        epoch: Epoch(0),
        counter: 0,
    };

    /// Builds a zxid from its two halves.
    #[must_use]
    pub const fn new(epoch: Epoch, counter: u64) -> Zxid {
        Zxid { epoch, counter }
    }

    /// The zxid that follows this one within its epoch.
    ///
    /// # Panics
    /// If the counter is `u64::MAX`.
    #[must_use]
    pub fn next(self) -> Zxid {
        let counter = self
            .counter
            .checked_add(1)
            .expect("2^64 transactions in one epoch");
        Zxid {
            epoch: self.epoch,
            counter,
        }
    }

    /// True if `self` may come right after `previous`: the next counter of the same epoch,
    /// or the first of a later one.
    #[must_use]
    pub fn follows(self, previous: Zxid) -> bool {
        if self.epoch == previous.epoch {
            previous.counter.checked_add(1) == Some(self.counter)
        } else {
            self.epoch > previous.epoch && self.counter == 1
        }
    }

    /// Sixteen bytes, big-endian, epoch first: byte order is zxid order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.epoch.0) << 64) | u128::from(self.counter)).to_be_bytes()
    }

    /// The inverse of [`Zxid::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Zxid {
        let whole = u128::from_be_bytes(bytes);
        Zxid {
            epoch: Epoch((whole >> 64) as u64),
            counter: whole as u64,
        }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch.0, self.counter)
    }
}

/// A server of the ensemble, as given by `--id`; 1 or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u32);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of one server: raised durably at each start, so that what an earlier run said
/// cannot be taken for the present one's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// How often a session has changed owner; 1 when created. Strictly increasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u32);

/// How many visible changes a group has seen; 0 for the change that created it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersion(pub u64);

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One stay of one member, from its creation to its end; never used again.
///
/// Layout, most significant first, so that ids grow in commit order and serve as fencing
/// tokens:
///
/// ```text
/// bits 127..96  birth     seconds since 1970 when the ensemble was founded
/// bits  95..64  epoch     low 32 bits of the creating transaction's epoch
/// bits  63..0   counter   of the creating transaction
/// ```
///
/// `birth` keeps ids apart when an ensemble is founded anew over wiped disks.
/// Written as 32 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// The id of the session that the transaction `zxid` creates in the ensemble founded at
    /// `birth_s` (seconds since 1970).
    ///
    /// # Panics
    /// If the epoch does not fit 32 bits: four milliard elections.
    #[must_use]
    pub fn of(birth_s: u32, zxid: Zxid) -> SessionId {
        let epoch = u32::try_from(zxid.epoch.0).expect("fewer than 2^32 elections");
        let era = (u64::from(birth_s) << 32) | u64::from(epoch);
        SessionId((u128::from(era) << 64) | u128::from(zxid.counter))
    }

    /// The upper half: birth and epoch. Few distinct values live at a time.
    #[must_use]
    pub const fn era(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The lower half: the counter within the era.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 as u64
    }

    /// Joins the two halves that [`SessionId::era`] and [`SessionId::counter`] part.
    #[must_use]
    pub const fn from_parts(era: u64, counter: u64) -> SessionId {
        SessionId(((era as u128) << 64) | counter as u128)
    }

    /// Sixteen bytes, big-endian, as in a packed heartbeat batch.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`SessionId::to_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> SessionId {
        SessionId(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = ParseIntError;

    /// Reads exactly 32 hex digits, either case.
    fn from_str(text: &str) -> Result<SessionId, ParseIntError> {
        // A wrong length or a sign must fail as an integer does: reparse something that
        // cannot succeed, for the standard library offers no way to build its error.
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u128::from_str_radix(if plain { text } else { "" }, 16).map(SessionId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxid_orders_by_epoch_then_counter_and_so_do_its_bytes() {
        let early = Zxid::new(Epoch(1), u64::MAX);
        let late = Zxid::new(Epoch(2), 0);
        assert!(early < late);
        assert!(early.to_bytes() < late.to_bytes());
        assert_eq!(Zxid::from_bytes(early.to_bytes()), early);
        assert_eq!(late.to_string(), "2:0");
    }

    #[test]
    fn a_zxid_follows_only_its_neighbour_or_starts_a_later_epoch() {
        let at = |e, c| Zxid::new(Epoch(e), c);
        assert!(at(1, 2).follows(at(1, 1)));
        assert!(at(2, 1).follows(at(1, 9)));
        assert!(!at(1, 3).follows(at(1, 1)), "a gap");
        assert!(
            !at(2, 2).follows(at(1, 9)),
            "a gap at the start of an epoch"
        );
        assert!(!at(1, 1).follows(at(2, 0)), "an older epoch");
        assert!(!at(1, u64::MAX).follows(at(1, u64::MAX)));
    }

    #[test]
    fn session_ids_grow_with_birth_epoch_and_counter() {
        let a = SessionId::of(7, Zxid::new(Epoch(1), 9));
        let b = SessionId::of(7, Zxid::new(Epoch(2), 1));
        let c = SessionId::of(8, Zxid::new(Epoch(1), 1));
        assert!(a < b && b < c);
        assert_eq!(SessionId::from_parts(b.era(), b.counter()), b);
        assert_eq!(SessionId::from_bytes(c.to_bytes()), c);
    }

    #[test]
    fn session_id_text_is_exactly_32_hex_digits() {
        let id = SessionId::of(0xabc, Zxid::new(Epoch(1), 255));
        assert_eq!(id.to_string(), "00000abc0000000100000000000000ff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "ff",
            "+0000abc0000000100000000000000ff",
            "00000abc0000000100000000000000fg",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
        }
    }
}
