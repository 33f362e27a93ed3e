//! What must hold of sessions, one invariant a file. Each is told what is true, never what a
//! server believes.

mod s1_one_owner;
mod s2_promise;
mod s3_closing;
mod s4_expiry_in_time;
mod s4_only_lived_time;
mod s5_versions;
mod s6_stale_is_nothing;
mod s7_beats_are_free;
mod s7_settling;
mod s8_ids_are_new;
mod s9_state_is_the_ghosts;

pub(super) use s1_one_owner::OneOwner;
pub(super) use s2_promise::Promises;
pub(super) use s3_closing::{Closing, joined_is_not_over};
pub(super) use s4_expiry_in_time::overdue;
pub(super) use s4_only_lived_time::Lived;
pub(super) use s5_versions::Versions;
pub(super) use s6_stale_is_nothing::stale_is_nothing;
pub(super) use s7_beats_are_free::Work;
pub(super) use s7_settling::Settling;
pub(super) use s8_ids_are_new::Ids;
pub(super) use s9_state_is_the_ghosts::state_is_the_ghosts;

/// Nothing, or what is wrong.
pub(super) type Verdict = Result<(), String>;
