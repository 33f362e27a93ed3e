//! Tests of `members.rs`.
