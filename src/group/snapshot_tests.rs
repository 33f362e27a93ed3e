//! Tests of `snapshot.rs`.
