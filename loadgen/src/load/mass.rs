//! A mass expiry: many members that fall silent together, watched to their end.

use super::{Loader, Phase};
use crate::churn;
use crate::clock::{MILLI, SECOND};
use crate::net::{Kind, Net};
use crate::standing::State;
use crate::verify::Fault;

/// How far the doom of a mass has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    /// Who is doomed is to be chosen.
    Choosing,
    /// They are silent; their last beats may be under way.
    Settling,
    /// So many batches that renew them are under way.
    Renewing(u32),
}

impl Doom {
    /// A batch that renews the doomed was answered, or will never be.
    pub(super) fn answered(&mut self) {
        if let Doom::Renewing(left) = self {
            *left -= 1;
        }
    }
}

impl Loader {
    /// Stops the doomed, waits until none of their beats is under way, then renews them all
    /// in a few batches so that they are due within milliseconds of each other.
    pub(super) fn doom(&mut self, net: &mut Net, now_ns: u64, spent: u64) {
        match self.doom {
            Doom::Choosing => {
                self.choose_doomed();
                self.ask_list(net, now_ns);
                self.doom = Doom::Settling;
            }
            Doom::Settling if spent >= SETTLE_NS && !self.listing => self.renew_doomed(net, now_ns),
            Doom::Renewing(0) => {
                self.mass.seal();
                self.next_list_ns = self.mass.first_due().saturating_sub(50 * MILLI);
                self.enter(Phase::Expiring, now_ns);
            }
            Doom::Settling | Doom::Renewing(_) => {}
        }
    }

    fn choose_doomed(&mut self) {
        for session in 0..self.plan.sessions {
            let doomed = churn::chosen(self.plan.seed, session, self.plan.doom);
            if doomed && self.standing.is_live(session) {
                self.standing.set(session, State::Dying);
                self.counts.died += 1;
            }
        }
    }

    fn renew_doomed(&mut self, net: &mut Net, now_ns: u64) {
        let doomed: Vec<u32> = (0..self.plan.sessions)
            .filter(|s| self.standing.get(*s) == State::Dying)
            .collect();
        let mut batches = 0;
        for part in doomed.chunks(DOOM_BATCH) {
            let (number, mut list) = self.batches.take();
            list.extend_from_slice(part);
            let lane = net.lane(batches % self.plan.connections);
            batches += 1;
            self.send_batch(lane, Kind::Doom, number, list, now_ns, now_ns);
        }
        self.doom = Doom::Renewing(batches);
    }

    pub(super) fn watch_mass(&mut self, net: &mut Net, now_ns: u64) {
        if self.mass.all_gone() {
            let span = self.mass.last_due() - self.mass.first_due();
            self.counts.mass_ns = Some((self.mass.took_ns(), span));
            self.enter(Phase::Draining, now_ns);
        } else if now_ns > self.mass.last_due() + MASS_NS_MAX.max(self.plan.late_bound_ns) {
            let (gone, all) = self.mass.progress();
            let said = format!(
                "{gone} of {all} were gone {} s after the last deadline",
                MASS_NS_MAX / SECOND
            );
            self.verifier.general(Fault::ListedTooLong, &said);
            self.enter(Phase::Draining, now_ns);
        } else if now_ns >= self.next_list_ns && !self.listing {
            self.ask_list(net, now_ns);
        }
    }

    fn ask_list(&mut self, net: &mut Net, now_ns: u64) {
        self.listing = true;
        let lane = net.lane(self.plan.connections + 1);
        self.plan.names.list(&mut lane.out);
        self.queue(lane, Kind::List, 0, now_ns, now_ns);
    }
}

/// Pause before the doomed are renewed for the last time.
const SETTLE_NS: u64 = 200 * MILLI;
/// Ids in a batch that dooms.
const DOOM_BATCH: usize = 50_000;
/// A mass must be gone by then.
const MASS_NS_MAX: u64 = 30 * SECOND;
