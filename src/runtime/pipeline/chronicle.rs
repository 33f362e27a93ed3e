//! Tells the log whom this server follows and whether it may promise: what somebody who is woken
//! at night wants to see first.

use crate::time::Millis;
use crate::zab::Standing;

/// What was told last.
#[derive(Debug)]
pub(super) struct Chronicle {
    standing: Standing,
    /// When the lease ran out; `None` while it holds.
    lapsed_at: Option<Millis>,
}

impl Default for Chronicle {
    fn default() -> Chronicle {
        Chronicle {
            standing: Standing::Recovering,
            // A server starts without a lease, and nobody need be told.
            lapsed_at: Some(Millis(0)),
        }
    }
}

impl Chronicle {
    /// What there is to be told now, if anything, once it has been looked at.
    pub(super) fn note(
        &mut self,
        standing: &Standing,
        until: Millis,
        now: Millis,
    ) -> Option<String> {
        let stands = (*standing != self.standing).then(|| {
            let was = std::mem::replace(&mut self.standing, standing.clone());
            stands(&was, standing)
        });
        let lease = match self.lapsed_at {
            None if now >= until => {
                self.lapsed_at = Some(until);
                Some(format!(
                    "the lease has lapsed {} ms ago: heartbeats are refused until the leader renews it",
                    now.since(until).0
                ))
            }
            Some(at) if now < until => {
                self.lapsed_at = None;
                Some(match at {
                    Millis(0) => "the leader has granted a lease".to_owned(),
                    at => format!(
                        "the lease holds again, {} ms after it lapsed",
                        now.since(at).0
                    ),
                })
            }
            _ => None,
        };
        match (stands, lease) {
            (Some(stands), Some(lease)) => Some(format!("{stands}; {lease}")),
            (stands, lease) => stands.or(lease),
        }
    }
}

fn stands(was: &Standing, standing: &Standing) -> String {
    match (was, standing) {
        (Standing::Leading { epoch, .. }, Standing::Recovering) => {
            format!("leads no more (epoch {}): looks for a leader", epoch.0)
        }
        (Standing::Following { leader, epoch }, Standing::Recovering) => format!(
            "follows server {leader} no more (epoch {}): looks for a leader",
            epoch.0
        ),
        (_, Standing::Recovering) => "looks for a leader".to_owned(),
        (_, Standing::Following { leader, epoch }) => {
            format!("follows server {leader} in epoch {}", epoch.0)
        }
        (_, Standing::Leading { epoch, active }) => {
            let active: Vec<String> = active.iter().map(ToString::to_string).collect();
            format!(
                "leads epoch {}; up to date: servers {}",
                epoch.0,
                active.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, ServerId};

    #[test]
    fn each_change_is_told_once() {
        let mut chronicle = Chronicle::default();
        let mut note =
            |standing: &Standing, until, now| chronicle.note(standing, Millis(until), Millis(now));
        let follows = Standing::Following {
            leader: ServerId(2),
            epoch: Epoch(7),
        };
        assert_eq!(note(&Standing::Recovering, 0, 5), None);
        let said = note(&follows, 0, 10).unwrap();
        assert_eq!(said, "follows server 2 in epoch 7");
        assert_eq!(note(&follows, 0, 11), None);
        let said = note(&follows, 3_011, 12).unwrap();
        assert_eq!(said, "the leader has granted a lease");
        assert_eq!(note(&follows, 3_011, 3_010), None);
        let said = note(&Standing::Recovering, 3_011, 3_020).unwrap();
        assert_eq!(
            said,
            "follows server 2 no more (epoch 7): looks for a leader; the lease has lapsed 9 ms \
             ago: heartbeats are refused until the leader renews it"
        );
        assert_eq!(note(&Standing::Recovering, 3_011, 3_500), None);
        let leads = Standing::Leading {
            epoch: Epoch(8),
            active: vec![ServerId(1), ServerId(3)],
        };
        let said = note(&leads, 7_000, 4_011).unwrap();
        assert_eq!(
            said,
            "leads epoch 8; up to date: servers 1, 3; the lease holds again, 1000 ms after it lapsed"
        );
    }
}
