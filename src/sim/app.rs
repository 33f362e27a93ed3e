//! The smallest application: it remembers a digest of all it was given.

use super::observe::{fold, hash_of};
use crate::types::{Epoch, Zxid};

/// The state of one server's application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct App {
    /// The last transaction it was given.
    pub applied: Zxid,
    /// Of all it was given, in order; see [`fold`].
    pub digest: u64,
    /// How many it was given.
    pub count: u64,
}

impl App {
    /// Takes the next transaction; its hash.
    pub fn apply(&mut self, zxid: Zxid, payload: &[u8]) -> u64 {
        let hash = hash_of(payload);
        self.applied = zxid;
        self.digest = fold(self.digest, zxid, hash);
        self.count += 1;
        hash
    }

    /// The content of a snapshot: 32 bytes, little-endian, and a padding whose length and bytes
    /// follow from them, so that a piece lost or changed shows.
    ///
    /// ```text
    /// offset size field
    ///      0    8 epoch of the last transaction     8  8 its counter
    ///     16    8 digest                           24  8 count
    ///     32      padding
    /// ```
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let fields = [
            self.applied.epoch.0,
            self.applied.counter,
            self.digest,
            self.count,
        ];
        let mut bytes: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        bytes.extend((0..self.digest % PADDING_MAX).map(|at| (self.digest >> (at % 57)) as u8));
        bytes
    }

    /// The state that was saved as `bytes`; `None` if they are not what [`App::save`] gave.
    #[must_use]
    pub fn restore(bytes: &[u8]) -> Option<App> {
        let field = |at: usize| {
            let bytes = bytes.get(at * 8..at * 8 + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let app = App {
            applied: Zxid::new(Epoch(field(0)?), field(1)?),
            digest: field(2)?,
            count: field(3)?,
        };
        (app.save() == bytes).then_some(app)
    }
}

/// Longest padding of a snapshot, bytes.
const PADDING_MAX: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_is_restored_and_a_damaged_one_refused() {
        let mut app = App::default();
        for counter in 1..20 {
            app.apply(Zxid::new(Epoch(3), counter), &counter.to_le_bytes());
        }
        let bytes = app.save();
        assert_eq!(App::restore(&bytes), Some(app));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            // The padding vouches for the digest; the other fields change nothing else.
            if (16..24).contains(&at) || at >= 32 {
                assert_eq!(App::restore(&bad), None, "byte {at}");
            }
        }
        assert_eq!(App::restore(&bytes[..bytes.len() - 1]), None);
        assert_eq!(App::restore(&bytes[..20]), None);
    }
}
