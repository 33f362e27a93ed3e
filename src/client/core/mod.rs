//! What a client decides, without sockets, threads or a clock: times and random seeds come in,
//! calls and events go out. `tests/layering.rs` holds this directory to it.
//!
//! | file | decides |
//! |---|---|
//! | `membership` | what a member does next: join, beat, join again, leave; and what it tells |
//! | `endpoints` | which server is asked next, and when one that failed is asked again |
//! | `call` | how requests are written and answers read |
//! | `events` | what a stream of server-sent events says |

pub(super) mod call;
pub(super) mod endpoints;
pub(super) mod events;
pub(super) mod membership;
#[cfg(test)]
mod membership_tests;
