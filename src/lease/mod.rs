//! The promise of a 2xx, kept by leases: an owner's side and the leader's side.
//!
//! A server answers a beat only while it holds a lease, which the leader grants it for
//! [`LEASE`] from the moment the server asked. So once a server has been silent for long enough,
//! the leader knows what it can have promised at most, and may expire its sessions.
//!
//! ```text
//!   Owner, in every replica               Grantor, in the replica that leads
//!   renew ──────── Renew {inc, n} ──────▶ on_renew           remembers when it came
//!     remembers t_n                         │ round_begun … round_passed: a quorum says, later
//!                                           │ than the renewal came, that this server leads
//!   on_grant ◀──── Grant {inc, n, c} ──── grants             c: what the leader has applied
//!   on_applied: t_n + L, once c is applied here too
//! ```
//!
//! Nobody has a clock here: *now* is an argument, the caller's own clock, suspend-inclusive, whose
//! rate is within 1 ± ρ of real time, ρ = 10⁻³. Clocks are read in whole milliseconds, rounded
//! down, so that a reading may be up to a millisecond old.
//!
//! # Why no session dies that was promised to live
//! The last promise of an owner is made at a real time h ≤ real(t_n) + L/(1−ρ), where n is the
//! last renewal that was granted to it and counts.
//!
//! - *By the leader that granted it.* It heard of n at real(t_n) or later, and waits from there.
//! - *By a later leader.* The round behind the grant was confirmed by a quorum, and the later
//!   leader was established by one. A server in both confirmed the round before it accepted the
//!   later epoch, and the round began after n was received; so real(t_n) lies before the later
//!   leader's establishment, from which it waits.
//! - *Sessions that came to the owner* by a join, move or adoption may have been promised by
//!   another owner up to L/(1−ρ) after that was committed: the leader waits from there, too.
//!
//! The leader waits (1+ρ)(T + L/(1−ρ)) on its clock ([`orphan_wait`]), which are at least
//! T + L/(1−ρ) of real time: the expiry comes no earlier than h + T. That the owner does not
//! promise anything after the expiry has two reasons: no lease is granted while it is undecided,
//! and those that are granted later count only once the owner has applied it.
//!
//! What the caller owes: an expiry of orphans is proposed by the leader that waited for it, and
//! by no other. It must not be proposed again after that leader was deposed, even if its fate is
//! unknown: the next leader may have granted a lease meanwhile.
//!
//! Source: C. Gray and D. Cheriton, "Leases" (SOSP 1989), with the bound on drift spelled out.

mod grantor;
mod message;
mod owner;
mod plant;
#[cfg(test)]
mod tests;

pub use grantor::{Grantor, Owned};
pub use message::{Grant, Malformed, Message, Renew};
pub use owner::Owner;
pub use plant::{Plant, Plants};

use crate::time::{Millis, stretched};

/// How long a lease lasts unless something else is set: L.
pub const LEASE: Millis = Millis(3_000);

/// How often an owner renews: P = L/12, so that a lease survives several lost renewals.
#[must_use]
pub const fn period(lease: Millis) -> Millis {
    Millis(lease.0 / 12)
}

/// The longest gap between two turns of a loop that is not a pause, L/4. After a pause an owner
/// renews at once ([`Owner::hurry`]), and a leader has heard nobody ([`Grantor::rebase`]).
#[must_use]
pub const fn pause(lease: Millis) -> Millis {
    Millis(lease.0 / 4)
}

/// How much longer than its timeout a session may live by the promise of an owner that holds a
/// lease now, or held one until now: L/(1−ρ), in real time, rounded up.
///
/// A lease is L on the owner's clock, which may be slow. A millisecond is added for the clocks
/// that this is added to: they are read in whole milliseconds and round down, so that a wait
/// from a reading begins up to a millisecond early.
#[must_use]
pub const fn grace(lease: Millis) -> Millis {
    Millis((lease.0 * 1_000).div_ceil(999) + 1)
}

/// How long on its own clock a leader waits for a session of `timeout` whose owner is silent:
/// W = (1+ρ)(T + L/(1−ρ)), rounded up.
#[must_use]
pub const fn orphan_wait(timeout: Millis, lease: Millis) -> Millis {
    stretched(Millis(timeout.0 + grace(lease).0))
}
