//! S7, what may be written for beats: a client has settled at another server only after so many
//! beats there that a balancer which spreads them costs no write a beat.

use std::collections::HashMap;

use super::Verdict;
use crate::mail::Beaten;
use crate::types::{ServerId, SessionId};

/// The beats in a row that each owner was sent by the same server.
#[derive(Default)]
pub(in super::super) struct Settling(HashMap<(usize, SessionId), (ServerId, u32)>);

impl Settling {
    /// A shard of the owner `at` has looked at beats that `from` has sent on.
    pub(in super::super) fn beaten(
        &mut self,
        at: usize,
        from: ServerId,
        verdicts: &[Beaten],
    ) -> Verdict {
        for verdict in verdicts {
            let Beaten::Touched { id, settled, .. } = *verdict else {
                continue;
            };
            let (last, count) = self.0.entry((at, id)).or_insert((from, 0));
            if *last != from {
                (*last, *count) = (from, 0);
            }
            *count += 1;
            if settled && *count < BEATS_MIN {
                return Err(format!(
                    "S7: {id} has settled at {from} after {count} beats"
                ));
            }
        }
        Ok(())
    }
}

/// Fewer beats than this tell nothing.
const BEATS_MIN: u32 = 8;
